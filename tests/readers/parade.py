#!/usr/bin/python3
"""Reads a user's runs as parade's own readers do: the registry, whose later lines overlay earlier ones,
then the five keys of the envelope of every event, anything else tolerated, bad lines left out.

    parade.py ARTIFACTS      <store>/<cluster>/<user>

Prints one JSON object: by run, its status and the chunks by what became of them."""
import json
import re
import sys
from datetime import datetime
from pathlib import Path

# Local time, milliseconds, an offset without a colon: what parade's parser of times takes.
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d{4}")
ENVELOPE = ["timestamp", "event_type", "severity", "source", "run_id"]


def lines(path):
    for line in path.read_text(errors="replace").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            pass


def run(root, run_id):
    seen = {"started": 0, "completed": [], "failed": [], "retried": 0, "last": None}
    for event in lines(root / "runs" / run_id / "events.jsonl"):
        if list(event)[:5] != ENVELOPE:
            sys.exit(f"the envelope is another: {list(event)[:6]}")
        if not TIME.fullmatch(event["timestamp"]):
            sys.exit(f"no time of parade's: {event['timestamp']}")
        datetime.strptime(event["timestamp"], "%Y-%m-%dT%H:%M:%S.%f%z")
        if event["severity"] not in ("info", "warn", "error") or event["run_id"] != run_id:
            sys.exit(f"not as parade writes it: {event}")
        kind, chunk = event["event_type"], event.get("chunk_id")
        if chunk is not None and not isinstance(chunk, int):
            sys.exit(f"a chunk is a number: {event}")
        if kind == "chunk_started":
            seen["started"] += 1
        elif kind == "chunk_retried":
            seen["retried"] += 1
        elif kind in ("chunk_completed", "chunk_failed"):
            # The newest word on a chunk counts.
            for those in (seen["completed"], seen["failed"]):
                if chunk in those:
                    those.remove(chunk)
            seen[kind.removeprefix("chunk_")].append(chunk)
        elif kind in ("run_started", "run_completed", "run_failed"):
            seen["last"] = kind
    for those in (seen["completed"], seen["failed"]):
        those.sort()
    return seen


def main():
    root = Path(sys.argv[1])
    registry = {}
    for entry in lines(root / "runs" / "_registry.jsonl"):
        registry.setdefault(entry["run_id"], {}).update(entry)
    told = {}
    for run_id, entry in registry.items():
        told[run_id] = {key: entry[key] for key in ("status", "backend", "n_chunks")} | run(root, run_id)
    print(json.dumps(told, sort_keys=True))


main()
