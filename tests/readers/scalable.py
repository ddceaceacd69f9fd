#!/usr/bin/python3
"""Reads a user's runs as somebody with Scalable's habits does: one directory per run, in it run.json
with the run's state and line files of records; failures counted by class, durations of what succeeded.

    scalable.py RUNS         <store>/<cluster>/<user>/runs

Prints one JSON object: by run, its status, tasks by state, failures by class, the longest duration."""
import json
import sys
from collections import Counter
from pathlib import Path


def report(directory):
    run = json.loads((directory / "run.json").read_text())
    states, classes, longest = Counter(), Counter(), 0.0
    latest = {}
    with (directory / "events.jsonl").open() as events:
        for line in events:
            event = json.loads(line)
            if event["event_type"] in ("chunk_started", "chunk_completed", "chunk_failed"):
                latest[event["job_id"]] = event
    for event in latest.values():
        state = {"chunk_started": "running", "chunk_completed": "succeeded"}.get(event["event_type"], "failed")
        states[state] += 1
        if state == "failed":
            classes[event["verdict"]["class"]] += 1
        longest = max(longest, (event.get("duration_ms") or 0) / 1000)
    return {
        "run_id": run["run_id"],
        "status": run["status"],
        "tasks": dict(states),
        "failures": dict(classes),
        "longest_s": longest,
    }


def main():
    # As the newest-first listing of run directories, the registry and hidden files left out.
    runs = [p for p in Path(sys.argv[1]).iterdir() if p.is_dir() and (p / "run.json").exists()]
    print(json.dumps({p.name: report(p) for p in sorted(runs)}, sort_keys=True))


main()
