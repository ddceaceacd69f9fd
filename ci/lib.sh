# Sourced by the scripts beside it, from the root of the repository.
# shellcheck shell=bash

# step NAME COMMAND...: a heading, the command, and how long it took.
step() {
  local name=$1 began=$SECONDS status=0
  shift
  printf '\n=== %s\n' "$name"
  "$@" || status=$?
  if ((status != 0)); then
    printf '=== %s: failed with %d after %d s\n' "$name" "$status" $((SECONDS - began)) >&2
    exit "$status"
  fi
  printf '=== %s: %d s\n' "$name" $((SECONDS - began))
}

# artefacts: sets INQUEST_PLUGIN and INQUEST_BIN, the absolute paths of what the
# two builds below make. The system tests read them and never build by themselves.
artefacts() {
  local target
  target=$(cargo metadata --no-deps --format-version 1 | jq -r .target_directory)
  export INQUEST_PLUGIN=$target/plugin/libspank_inquest.so
  export INQUEST_BIN=$target/release/inquest
}

build_plugin() { cargo build --profile plugin -p spank-inquest; }
build_inquest() { cargo build --release -p inquest; }
