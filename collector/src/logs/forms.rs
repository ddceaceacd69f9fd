//! The forms in which programs of all kinds state an error, and those in which
//! the same words are no statement of one.

use super::text::re;

// A statement of an error in the way that most programs print one.
re!(
    pub(super) STATEMENT,
    r"(?x)^\s*(?:[>*!|\#\-=\[\]\ ]*)
      (?:[\w./\-+]{1,60}(?:\[\d+\])?:\s*(?:line\ \d+:\s*|\d+:(?:\d+:)?\s*)?|\(?[\w.\-]{1,30}\)?\s)?
      \[?(?:FATAL[\ _-]ERROR|Fatal[\ ]error|fatal[\ ]error|ERROR|FATAL|CRITICAL|Error|Fatal|error|fatal|SEVERE|PANIC|panic|Runtime\ Error|Internal\ error|Exception)\]?
      (?:\s*\[[^\]]*\]|\s*\([^)]*\)|\s+\#?\d+)?
      \s*(?::|!|~|\s-|>|\s\|)+\s*
      (?P<msg>\S.*)$"
);
// "awk: cmd. line:1: (FILENAME=-) fatal: text": the place stands between the
// program and the word.
re!(pub(super) PLACED, r#"^[\w.\-+/]{1,60}: [^"=]{0,20}[^"]{0,80}[:)] (?:fatal error|fatal|error): (?P<msg>\S.*)$"#);
// "BLAST Database error: text", "tool: ERROR text", "(ERR): text".
re!(
    pub(super) CALLED,
    r"^\s*(?:(?:[\w./'\x22()\[\]\-]+ ){1,6}(?:ERROR|FATAL|[Ee]rror|[Ff]atal error|Exception)(?: ?\(\d+\)| \d+)?\s?:\s+|[\w./\-]+: (?:ERROR|FATAL|Error) |\(ERR(?:OR)?\):\s*|\S+ : \w+ error \(\d+\) : )(?P<msg>\S.*)$"
);
// "model.mod:3: syntax error": compilers and interpreters of all kinds.
re!(
    pub(super) AT_LINE,
    r"^(?:[\w./+\-]+: )?[\w./+\-]+\.\w{1,6}:\d+(?::\d+)?:\s*(?P<msg>(?:\S+ ){0,5}(?:[Ee]rror|cannot|can't|undefined|undeclared|not (?:found|defined|declared)|unexpected|expected|invalid|unknown|missing|failed|no such)\b.*)$"
);
re!(pub(super) MARKED, r"^\s*(?:\S+\s+){0,3}(?:❌|✗|✘|🔴|💥|🚨)\s*(?P<msg>\S.*)$");
re!(pub(super) STARRED, r"^\s*[*!#=\-]{2,}\s*(?:ERROR|FATAL|Error)\b[\s:!*-]*(?P<msg>\S.*)$");
// "cp: cannot create ...": how small tools report.
re!(
    pub(super) UTILITY,
    r"^\s*(?:/?[\w.+\-/]{1,80}): (?:line \d+: )?(?:[^:]{1,200}: )?(?P<msg>(?:cannot|can't|could not|couldn't|unable to|failed to|error|no such|permission denied|missing|invalid|unrecognized|unknown|not a|fatal)\b.*)$"
);
// "program: file: message" of the GNU coding standards; it counts where the
// message is one that a rule knows.
re!(pub(super) GNU, r"^/?[\w.+\-/]{1,80}: (?:[^:]{1,200}: )*(?P<msg>[^:]*[a-z][^:]*)$");
// What perl's die adds to a message that ends without a newline.
re!(pub(super) DIE, r"^(?P<msg>\S.*) at \S+ line \d+(?:, <\w+> (?:line|chunk) \d+)?\.$");
re!(
    pub(super) SENTENCE,
    r"(?i)^\s*(?P<msg>(?:error|errors? (?:in|while|during|reading|opening|at|when|occurred)|an? (?:\w+ ){0,2}error (?:has )?occurred|failed to|failure (?:in|to)|fatal\b|unable to|could not|couldn't|cannot|can't|problem (?:in|with))\b.*|(?:[\w./\-]+: )?[^:]*\b(?:giving up|bailing out|(?:cannot|can't|unable to) continue|refus\w+ to continue)\b.*)$"
);
re!(
    pub(super) INLINE_EXCEPTION,
    r"\b(?:(?:[a-z_]\w*\.)+)?(?P<kind>[A-Z]\w*(?:Error|Exception))(?:\]|\))?\s?(?::|\()\s?\S"
);
// A number where a message should be is a metric: "error: 0.01".
re!(
    pub(super) METRIC,
    r"^[-+=~<>(\[]*\s*(?:\d+\.\d*|\d*\.\d+|\d+(?:\.\d+)?[eE][-+]?\d+|[-+]?\d+\s*$|\d+(?:\.\d+)?\s*%|nan\b\s*$|None\s*$|null\s*$|0\b|false\s*$|no\s*$)"
);
// Noise of platforms that means nothing for the job: name services, locales,
// terminals, displays, and libraries that probe for hardware.
re!(
    pub(super) NOISE,
    r"(?i)forces have not converged to the requested precision|cannot find name for (?:group|user) ID|setlocale|cannot change locale|set the locale|^stty: |^tput: |tcsetattr|no version information available|\bxauth\b|cannot open display|X11 (?:forwarding|connection)|libGL error|Gtk-(?:WARNING|CRITICAL)|^ALSA lib|QStandardPaths|XDG_RUNTIME_DIR|Unable to register (?:cuDNN|cuFFT|cuBLAS)|could not find cuda drivers|rm: cannot remove .*: No such file|mkdir: cannot create directory .*: File exists|^mv: .* are the same file|error initializing an OpenFabrics device|OpenFabrics device|libibverbs: Warning|btl_openib_warn|no job control in this shell|cannot set terminal process group|Inappropriate ioctl for device|(?:un)?able to find cuda|NUMA node|Exception ignored in|command line option .* is valid for|Failed to load image Python extension|could not retrieve (?:the )?git|not a git repository|tensorrt|nvinfer|mesg: ttyname failed|Can't stat .*bash_profile|error_if_nonfinite"
);
// Words that take the edge off: nothing failed, or it is being mended.
re!(
    pub(super) HARMLESS,
    r"(?i)\b(?:no|0|zero|without(?: any)?|free of|ignor(?:e|ing|ed)|skip(?:ping|ped)?|not an) (?:\w+ )?(?:errors?|failures?|problems?|warnings?)\b|\berrors?\s*[:=]\s*(?:0\b|\[\]|\{\}|(?:none|no)\s*$)|\b(?:0|no) (?:failed|failing)\b|\bfailed\s*[:=]\s*0\b|\b(?:on|if|--?|_)(?:error|fail)(?:s|ed)?\b[-_= ]|-(?:W|w)error|^(?:error: )?ignoring\b|\b(?:errors?|exceptions?) (?:was |were )?(?:caught|handled|suppressed)\b|\berror[-_ ]?(?:rate|bars?|model|function|correction|handling|handler|tolerance|estimate|metric|norm|log\b|reporting|propagation|term|percentage|threshold)|\b(?:mean|absolute|squared|relative|standard|root|test|train(?:ing)?|validation|total|max(?:imum)?|average|rms|residual|fit(?:ting)?|prediction|reconstruction|energy|force|discretization|truncation|numerical|rounding|approximation|integration|estimated|sampling|statistical|l2|final|cumulative|interpolation) errors?\b"
);
re!(
    pub(super) MENDED,
    r"(?i)\b(?:retry(?:ing)?\b|will retry|trying again|re-?try(?:ing)? in|attempt \d+ ?(?:/|of) ?\d+|attempts? (?:left|remaining)|fall(?:ing|s)? ?back|using (?:the )?default|continuing|proceeding|skipping|ignoring|ignored|degrading|recover(?:ed|ing)|backing off|reconnecting|resubmit\w*|restarting|execution is retried)"
);
// Lines of a program's own text: what it will run, not what happened.
re!(
    pub(super) ECHO,
    r#"^\s*(?:\+{1,3} |\$ |>>> |#(?:SBATCH|!)|echo\b|raise \w|except\b|try:|print\(|logger\.|assert |if \[|throw |stop\(|tryCatch|error\(|\d{1,5}\s+(?:raise|except) |-{1,4}> ?\d+ |return\b|def |import |from \S+ import )"#
);
// What a library thinks of as possible reasons is not what happened.
re!(pub(super) GUESS, r"(?i)\b(?:this|it|which) (?:could|may|might) (?:be|have been) (?:caused by|due to)\b[^.]*\.?");
// A script's own last word, under its own name.
re!(pub(super) LAST_WORD, r"^(?:\S*/)?[\w\-]+\.(?:sh|bash|py|pl|R|x|exe|out): (?P<msg>\S.*)$");
re!(pub(super) R_TRACE, r"^\s*(?:\d+: |▆|\d+\. [├└│])");

// A file's name, alone or as a frame of a traceback, tells nothing by its words.
re!(pub(super) NAME, r#"^\s*(?:File "[^"]*", line \d+(?:, in .*)?|[\w.+\-/]*[./][\w.+\-/]*)$"#);
// Advice beside a message, not a message.
re!(pub(super) ADVICE, r"^\s*(?:[\w./\-]+: )?(?i:hint|solution|tip|help|suggestion)\b\s*:?\s");
// Words without which the last lines of a log say nothing of a failure.
re!(
    pub(super) TROUBLE,
    r"(?i)\b(?:not found|does(?: not|n't) (?:\w+ to )?exist|no such|cannot|can't|could(?: not|n't)|failed|failure|unable to|unknown|invalid|undefined|refused|denied|expired|unsupported|mismatch|corrupt\w*|no data)\b"
);
