//! Host memory: kernel kills and allocations that failed.

use super::{Rule, Strength::*, rule};
use crate::logs::finding::Cause::*;

pub(super) const RULES: &[Rule] = &[
    rule("kernel_oom", Oom, Verdict, r"(?:Memory cgroup o|O)ut of memory: Kill(?:ed)? process|oom-kill:constraint=|invoked oom-killer|\boom_reaper: reaped process|Killed process \d+ \(.*total-vm:"),
    rule("oomkilled_state", Oom, Fatal, r"\bOOM[- ]?[Kk]illed\b"),
    rule("bad_alloc", Oom, Fatal, r"\bstd::bad_alloc\b|\bbad_alloc\b|\bbad_array_new_length\b"),
    rule("python_memory", Oom, Fatal, r"\bMemoryError\b|Unable to allocate [\d.]+ [KMGTPE]i?B for an array|ArrayMemoryError|DefaultCPUAllocator: (?:can't|not enough)|not enough memory: you tried to allocate"),
    rule("r_memory", Oom, Fatal, r"cannot allocate (?:vector of (?:size|length)|memory block of size|buffer of)|vector memory (?:exhausted|limit of .* reached)|memory exhausted \(limit reached").lang("r"),
    rule("java_heap", Oom, Fatal, r"java\.lang\.OutOfMemoryError|\bOutOfMemoryError: (?:Java heap|GC overhead|Metaspace|unable to create|Direct buffer|Requested array)|insufficient memory for the Java Runtime Environment|Container killed by YARN for exceeding").lang("java"),
    rule("julia_memory", Oom, Fatal, r"\bOutOfMemoryError\(\)").lang("julia"),
    rule("enomem", Oom, Fatal, r"(?i)\b(?:can ?not|can't|could not|couldn't|failed to|unable to) (?:re)?allocate (?:\w+ )?(?:memory|\d+ bytes|[\d.]+ ?[kmgt]i?b\b|[\w ]{0,20}array)|\[Errno 12\]|\(12\): Cannot allocate memory|fork: (?:retry: )?(?:Resource temporarily unavailable.*memory|Cannot allocate memory)|memory allocation (?:of \d+ bytes )?failed|virtual memory exhausted|allocation would exceed memory limit|(?:malloc|calloc|realloc)(?:\(\d*\))?:? (?:failed|returned NULL|[Cc]annot|out of memory)"),
    rule("fortran_memory", Oom, Fatal, r"forrtl: severe \((?:41|179)\)|insufficient virtual memory|Error allocating \d+ bytes|ALLOCATE: \d+ bytes requested; not enough memory").lang("fortran"),
    rule("matlab_memory", Oom, Fatal, r"(?:^|\s)Out of memory\. Type|Requested .* array exceeds maximum array size preference").lang("matlab"),
    rule("out_of_memory", Oom, Error, r"(?i)(?:^|[^\w])(?:ran |run |runs |running |went |is )?out[- ]of[- ]memory\b"),
    rule("memory_budget", Oom, Error, r"(?i)\b(?:worker|process|task|container|actor|pod)\b.{0,80}\b(?:exceed(?:ed|ing)|over|above|beyond) .{0,30}\bmemory (?:budget|limit|threshold)|exceeded \d+% memory budget|memory on the node .* was .* which exceeds the memory usage threshold|killed due to (?:the )?(?:node running low on memory|memory pressure)|Workers? \(tasks / actors\) killed due to memory pressure|exceeds? (?:the )?(?:available|physical|total) (?:system )?memory|not enough (?:free |available |physical )?memory\b|insufficient (?:free |available |system |host )?memory\b"),
    rule("mem_text", Oom, Text, r"(?i)\bOOM\b|cannot allocate"),
    // A kill with no reason beside it is most often the memory limit's.
    rule("bash_killed", Oom, Kill, r"(?:: line \d+: |^)\s*\d+ Killed(?:\s|$)|^Killed$|^\s*Killed\s*$|^\d+ Killed|line \d+: +\d+ Killed"),
    rule("sigkill", Oom, Kill, r"(?i)\bsignal 9\b|\bSIGKILL\b|killed by signal: Killed|exit (?:status|code):?\s*[=(]?\s*137\b|\(137\)|exitcode\s*:?\s*-9\b|code 137\b|(?:status|returned non-zero exit status) 137\b|died with <Signals\.SIGKILL"),
];
