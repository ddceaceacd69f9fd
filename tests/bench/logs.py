"""How fast logs are read, beside ripgrep and a Python scan with the same patterns on the same files,
and how soon `inquest why` answers. Run by `ci/bench-logs`; everything it makes is gone in the end.

usage: logs.py INQUEST INQUEST-GENERATE LITERALS DIR MEGABYTES
"""

import hashlib
import os
import re
import subprocess
import sys
import time

# The bars of the figures below.
SCAN_BAR = 0.8
WHY_BAR_MS = 50
MEMORY_BAR_MB = 256
# Python reads no more of a file than this; its rate does not depend on it.
PYTHON_MB = 100
ROUNDS = 3
WHY = 20

inquest, generate, literals, place, megabytes = sys.argv[1:]
megabytes = int(megabytes)
patterns = open(literals, "rb").read().splitlines()


def lines(make):
    return b"".join(make(n).encode() + b"\n" for n in range(60_000))


def words(n):
    """Ten words that no other line has in this order, without a digit."""
    letters = bytes.maketrans(b"0123456789", b"ghijklmnop")
    text = hashlib.sha256(str(n).encode()).hexdigest().encode().translate(letters).decode()
    return [text[at : at + 6] for at in range(0, 60, 6)]


KINDS = {
    "few hits": lambda n: f"2026-11-21 08:{n // 60 % 60:02}:{n % 60:02} step {n} residual {1 / (n + 1):.3e} cfl 0.{n % 97:02}"
    if n % 1000
    else f"WARNING: slow write, retry {n}",
    "every line a hit": lambda n: f"[rank{n % 64}] step {n}: residual error {1 / (n + 1):.3e}, not converged, limit {n % 7}",
    # No line is another's repetition, which is what the scan is fastest at.
    "no two lines alike": lambda n: " ".join(words(n)) + (" failed" if n % 100 == 0 else ""),
}
END = b"""Traceback (most recent call last):
  File "/home/user/model.py", line 12, in <module>
    run()
ValueError: negative depth in cell 7
"""


def write(path, make):
    block = lines(make)
    with open(path, "wb") as log:
        for _ in range(max(1, megabytes * 1_000_000 // len(KINDS) // len(block))):
            log.write(block)
        log.write(END)
    return os.path.getsize(path)


def timed(arguments, **more):
    began = time.monotonic()
    done = subprocess.run(arguments, stdout=subprocess.PIPE, **more)
    if done.returncode not in (0, 1):
        sys.exit(f"{arguments[0]} ended with {done.returncode}")
    return time.monotonic() - began, done.stdout


def python(path):
    pattern = re.compile(b"|".join(map(re.escape, patterns)))
    began, seen, hits = time.monotonic(), 0, 0
    with open(path, "rb") as log:
        for line in log:
            hits += pattern.search(line) is not None
            seen += len(line)
            if seen > PYTHON_MB * 1_000_000:
                break
    return seen / 1e6 / (time.monotonic() - began)


missed = []
print(f"{megabytes} MB of logs in {len(KINDS)} files; MB/s, best of {ROUNDS}, files in memory; Python reads {PYTHON_MB} MB of each")
print(f"{'':20}{'inquest':>10}{'ripgrep':>10}{'python':>10}")
for kind, make in KINDS.items():
    path = os.path.join(place, "job.out")
    size = write(path, make) / 1e6
    # In turn, so that a drift of the machine hits both.
    ours, theirs = [], []
    for _ in range(ROUNDS):
        with open(path, "rb") as log:
            took, said = timed([inquest, "scan", "--stdin", "--json"], stdin=log)
        ours.append(took)
        theirs.append(timed(["rg", "--count", "--fixed-strings", "--text", "--file", literals, path])[0])
    if b"negative depth" not in said:
        sys.exit(f"the root cause was not found in the log with {kind}: {said[:300]}")
    ratio = min(theirs) / min(ours)
    print(f"{kind:20}{size / min(ours):10.0f}{size / min(theirs):10.0f}{python(path):10.0f}   {ratio:.2f} x ripgrep (bar {SCAN_BAR})")
    if ratio < SCAN_BAR:
        missed.append(f"{kind}: {ratio:.2f} x ripgrep")
    os.remove(path)

# Twice the bytes, from a pipe, so that no file of the size is needed.
block = lines(KINDS["every line a hit"])
scan = subprocess.Popen([inquest, "scan", "--stdin", "--json"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
sent = 0
while sent < 2 * megabytes * 1_000_000:
    scan.stdin.write(block)
    sent += len(block)
scan.stdin.close()
_, status, usage = os.wait4(scan.pid, 0)
peak = usage.ru_maxrss / 1024
print(f"\nmemory for a log of {sent / 1e9:.1f} GB: {peak:.0f} MiB (bar {MEMORY_BAR_MB})")
if peak > MEMORY_BAR_MB:
    missed.append(f"memory: {peak:.0f} MiB")

journal, store = os.path.join(place, "journal"), os.path.join(place, "store")
jobs = 20_000
timed([generate, "--jobs", str(jobs), "--out", journal])
timed([inquest, "collect", "--journal", journal, "--store", store, "--once", "--accounting", "off"])
runs = re.findall(rb'"run_id": ?"(job-\d+)"', timed([inquest, "runs", "--store", store, "--json"])[1])
if not runs:
    sys.exit("the store has no run of one job")
took = []
for n in range(WHY):
    run = runs[n * len(runs) // WHY].decode()
    took.append(timed([inquest, "why", "--store", store, run])[0] * 1e3)
took.sort()
print(f"why of one job among {jobs}: median {took[WHY // 2]:.0f} ms, longest {took[-1]:.0f} ms (bar {WHY_BAR_MS} ms)")
if took[WHY // 2] > WHY_BAR_MS:
    missed.append(f"why: {took[WHY // 2]:.0f} ms")

if missed:
    print("missed: " + "; ".join(missed))
    sys.exit(1)
print("every bar is met")
