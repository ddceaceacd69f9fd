//! Native faults: signals, aborts, assertions, the Fortran and C++ runtimes,
//! Rust and Go panics, the JVM's and R's own crash reports.

use super::{Rule, Strength::*, rule};
use crate::logs::finding::Cause::*;

pub(super) const RULES: &[Rule] = &[
    rule("openfoam_signal", Crash, Fatal, r"\bFoam::sig(?:Fpe|Segv)::sigHandler").lang("c"),
    rule("go_nil", Crash, Fatal, r"^panic: runtime error: invalid memory address or nil pointer").lang("go"),
    rule("memcheck", Crash, Error, r"^==\d+== (?:Invalid (?:read|write) of size|Invalid free\(\)|Process terminating with default action of signal)").lang("c"),
    rule("forrtl_signal", Crash, Fatal, r"forrtl: (?:severe \(\d+\)|error \(\d+\))").lang("fortran"),
    rule("ucx_signal", Crash, Fatal, r"Caught signal (?:4|6|7|8|11) \(").lang("c"),
    rule("program_signal", Crash, Fatal, r"Program (?:received|terminated with) signal SIG(?:SEGV|ABRT|BUS|ILL|FPE)|\bsignal SIG(?:SEGV|BUS|ILL|FPE|ABRT)\b|\bsignal \((?:11|6|7|8|4|\d+\.\d+)\)|\bsignal \(\d+\): (?:Segmentation|Abort|Bus|Illegal|Floating)|\bsignal (?:11|7|4|6|8) \((?:SIG\w+|[Ss]egmentation|[Ss]egv|[Aa]bort|[Bb]us|[Ii]llegal|core|[Ff]loating)").lang("c"),
    rule("signal_number", Crash, Fatal, r"(?i)\bcaught (?:a )?(?:signal|SIG)\w*[ :]+(?:11|SEGV|SIGSEGV|SIGABRT|SIGBUS|SIGFPE|SIGILL)|\bSIGSEGV\b|\bSIGBUS\b|\bSIGILL\b|\bSIGFPE\b").lang("c"),
    rule("ompi_signal", Crash, Fatal, r"\] Signal: (?:Segmentation fault|Bus error|Illegal instruction|Floating point exception|Aborted) \(\d+\)").lang("c"),
    rule("r_caught", Crash, Fatal, r"\*\*\* caught (?:segfault|bus error|illegal operation) \*\*\*").lang("r"),
    rule("python_fault", Crash, Fatal, r"^Fatal Python error: ").lang("python"),
    rule("jvm_crash", Crash, Fatal, r"A fatal error has been detected by the Java Runtime Environment|# +SIG(?:SEGV|BUS|ILL|FPE) \(0x").lang("java"),
    rule("matlab_crash", Crash, Fatal, r"(?:Segmentation violation|Bus error|Access violation|Abnormal termination) detected at").lang("matlab"),
    rule("sanitizer", Crash, Fatal, r"^\S+:\d+:\d+: runtime error: |ERROR: (?:Address|Thread|Memory|Leak|UndefinedBehavior)Sanitizer|==\d+==ERROR").lang("c"),
    rule("glibc_abort", Crash, Fatal, r"\*\*\* (?:buffer overflow|stack smashing) detected \*\*\*|\*\*\* (?:Error in|glibc detected) |(?:double free or corruption|free\(\): invalid (?:pointer|size|next size)|malloc\(\): (?:invalid|corrupted|unaligned|unsorted|memory corruption|smallbin)|corrupted (?:size vs\. prev_size|double-linked list)|munmap_chunk\(\)|malloc_consolidate\(\)|invalid next size|realloc\(\): invalid|pure virtual method called|invalid fastbin entry)").lang("c"),
    rule("segfault_word", Crash, Fatal, r"\bSegmentation [Ff]ault\b|\bSegmentation violation\b|\bsegmentation fault\b|\bsegfault at [0-9a-f]+ ip\b|\bSegfault\b|\bsegfault\b.{0,20}\bcore\b").lang("c"),
    rule("bus_error", Crash, Fatal, r"\bBus error\b|\bIllegal instruction\b|\bTrace/breakpoint trap\b|\bFloating point exception\b(?: \(core dumped\)|$)|Invalid memory reference").lang("c"),
    rule("assertion", Crash, Fatal, r"\bAssertion [`'].*' failed|\bAssertion [`'\x22(].*[`'\x22)] failed|' failed\.$|: [Aa]ssertion failed\b|Assertion failed: \(|Assertion failed(?: in file|:)|ASSERT(?:ION)? (?:FAILED|failed|ERROR)|\bassert(?:ion)? failure\b|Check failed: ").lang("c"),
    rule("aborted", Crash, Kill, r"\bAborted \(core dumped\)|^Aborted$|: line \d+: +\d+ Aborted|\bSIGABRT\b|\bcore dumped\b|dumping core|Abort trap: 6|line \d+: +\d+ (?:Segmentation fault|Bus error|Illegal instruction|Floating point exception)|exit(?:ed)?(?: with)? (?:code|status):? ?\(?(?:139|134|135|136|132)\b|returned non-zero exit status (?:139|134|135)|died with <Signals\.SIG(?:SEGV|ABRT|BUS|ILL|FPE)|(?i)\bsignal (?:11|6|7|4|8)\b|exitcode\s*:?\s*-(?:11|6|7|8|4)\b").lang("c"),
    rule("fortran_stop", AppError, Error, r"^\s*(?:ERROR STOP\b|STOP [1-9]\d*$)").lang("fortran").carries(),
    rule("gfortran_runtime", AppError, Fatal, r"^(?:.*: )?Fortran runtime error: ").lang("fortran").carries(),
    rule("cray_fortran", AppError, Fatal, r"^\s*(?:lib-\d+|sys-\d+) : UNRECOVERABLE").lang("fortran").carries(),
    rule("nvfortran", AppError, Fatal, r"^(?:FIO-[FE]-\d+/|PGF90-[FS]-|0: (?:ALLOCATE|DEALLOCATE): )").lang("fortran").carries(),
    rule("rust_panic", AppError, Fatal, r"^thread '.*' (?:\(\d+\) )?panicked at").lang("rust").carries(),
    rule("go_panic", AppError, Fatal, r"^(?:panic: |fatal error: (?:all goroutines|concurrent map|stack overflow|unexpected signal|runtime:))").lang("go").carries(),
    rule("cpp_terminate", AppError, Fatal, r"terminate called (?:after throwing|without an active|recursively)|libc\+\+abi: terminating|terminating (?:with|due to) uncaught exception").lang("c"),
    rule("cpp_what", AppError, Fatal, r"^\s*what\(\): .*\S").lang("c").carries(),
    rule("stack_overflow", Crash, Error, r"(?i)\bstack (?:overflow|exhausted)\b|StackOverflowError"),
];
