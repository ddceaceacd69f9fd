# Sourced by the scripts beside it, from the root of the repository.
# shellcheck shell=bash

# step NAME COMMAND...: a heading, the command, and how long it took.
step() {
  local name=$1 began=$SECONDS status=0
  shift
  printf '\n=== %s\n' "$name"
  # Behind || or in a condition, a function would go on after a command of it that fails.
  set +e
  (set -e && "$@")
  status=$?
  set -e
  if ((status != 0)); then
    printf '=== %s: failed with %d after %d s\n' "$name" "$status" $((SECONDS - began)) >&2
    exit "$status"
  fi
  printf '=== %s: %d s\n' "$name" $((SECONDS - began))
}

if ! command -v cargo >/dev/null; then
  echo "cargo is not in PATH: install Rust (rustup.rs, or the distribution's rustc and cargo if they are new enough)" >&2
  exit 2
fi

# Sets the absolute paths of what the builds below make. The system tests read
# them and never build by themselves.
target=$(cargo metadata --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
export INQUEST_PLUGIN=$target/plugin/libspank_inquest.so
export INQUEST_PLUGIN_JOB=$target/plugin/libspank_inquest_job.so
export INQUEST_PLUGIN_FAULTS=$target/faults/plugin/libspank_inquest.so
export INQUEST_PLUGIN_JOB_FAULTS=$target/faults/plugin/libspank_inquest_job.so
export INQUEST_BIN=$target/release/inquest

build_plugin() { cargo build --profile plugin -p spank-inquest -p spank-inquest-job; }
# The plugins with switches that make their hooks fail, for the tests of what then happens.
build_plugin_with_faults() {
  cargo build --profile plugin -p spank-inquest -p spank-inquest-job \
    --features spank-inquest/inject-faults,spank-inquest-job/inject-faults --target-dir "$target/faults"
}
build_inquest() { cargo build --release -p inquest; }

# The tests of ci/long too. Another selection of packages would make cargo choose other features of
# what they share, and build all of that once more.
long=(--workspace --features inquest-journal/schema,inquest-tests/long)
