//! Every sign of failure in the lines, before any is chosen.

use std::collections::HashMap;

use super::announce::{announced, matlab, mpich_stacks, unboxed};
use super::exceptions::{self, Raised};
use super::finding::Cause;
use super::rules::{RULES, Rule, Strength, python, success};
use super::text::{Level, Line, re};
use super::trigger::may_matter;

/// One sign of failure.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    /// Index of the line to quote.
    pub(crate) line: usize,
    pub(crate) rule: &'static str,
    pub(crate) cause: Cause,
    pub(crate) strength: Strength,
    pub(crate) infra: Option<bool>,
    pub(crate) exception: Option<String>,
    pub(crate) lang: Option<&'static str>,
    /// Names of the exceptions from the root outwards.
    pub(crate) chain: Vec<String>,
    /// Index of the outermost exception's line, when it is another one.
    pub(crate) outermost: Option<usize>,
    /// A known reason, not a general sign.
    pub(crate) specific: bool,
    /// The line says that it will be tried again or done without.
    pub(crate) mended: bool,
}

// A statement of an error in the way that most programs print one.
re!(
    STATEMENT,
    r"(?x)^\s*(?:[>*!|\#\-=\[\]\ ]*)
      (?:[\w./\-+]{1,60}(?:\[\d+\])?:\s*(?:line\ \d+:\s*|\d+:(?:\d+:)?\s*)?|\(?[\w.\-]{1,30}\)?\s)?
      \[?(?:FATAL[\ _-]ERROR|Fatal[\ ]error|fatal[\ ]error|ERROR|FATAL|CRITICAL|Error|Fatal|error|fatal|SEVERE|PANIC|panic|Runtime\ Error|Internal\ error|Exception)\]?
      (?:\s*\[[^\]]*\]|\s*\([^)]*\)|\s+\#?\d+)?
      \s*(?::|!|~|\s-|>|\s\|)+\s*
      (?P<msg>\S.*)$"
);
// "awk: cmd. line:1: (FILENAME=-) fatal: text": the place stands between the
// program and the word.
re!(PLACED, r#"^[\w.\-+/]{1,60}: [^"=]{0,20}[^"]{0,80}[:)] (?:fatal error|fatal|error): (?P<msg>\S.*)$"#);
re!(MARKED, r"^\s*(?:\S+\s+){0,3}(?:❌|✗|✘|🔴|💥|🚨)\s*(?P<msg>\S.*)$");
re!(STARRED, r"^\s*[*!#=\-]{2,}\s*(?:ERROR|FATAL|Error)\b[\s:!*-]*(?P<msg>\S.*)$");
// "cp: cannot create ...": how small tools report.
re!(
    UTILITY,
    r"^\s*(?:/?[\w.+\-/]{1,80}): (?:line \d+: )?(?:[^:]{1,200}: )?(?P<msg>(?:cannot|can't|could not|couldn't|unable to|failed to|error|no such|permission denied|missing|invalid|unrecognized|unknown|not a|fatal)\b.*)$"
);
// "program: file: message" of the GNU coding standards; it counts where the
// message is one that a rule knows.
re!(GNU, r"^/?[\w.+\-/]{1,80}: (?:[^:]{1,200}: )*(?P<msg>[^:]*[a-z][^:]*)$");
// What perl's die adds to a message that ends without a newline.
re!(DIE, r"^(?P<msg>\S.*) at \S+ line \d+(?:, <\w+> (?:line|chunk) \d+)?\.$");
re!(
    SENTENCE,
    r"(?i)^\s*(?P<msg>(?:error|errors? (?:in|while|during|reading|opening|at|when|occurred)|an? (?:\w+ ){0,2}error (?:has )?occurred|failed to|failure (?:in|to)|fatal\b|unable to|could not|couldn't|cannot|can't|problem (?:in|with))\b.*)$"
);
re!(
    INLINE_EXCEPTION,
    r"\b(?:(?:[a-z_]\w*\.)+)?(?P<kind>[A-Z]\w*(?:Error|Exception))(?:\]|\))?\s?(?::|\()\s?\S"
);
// A number where a message should be is a metric: "error: 0.01".
re!(
    METRIC,
    r"^[-+=~<>(\[]*\s*(?:\d+\.\d*|\d*\.\d+|\d+(?:\.\d+)?[eE][-+]?\d+|[-+]?\d+\s*$|\d+(?:\.\d+)?\s*%|nan\b\s*$|None\s*$|null\s*$|0\b|false\s*$|no\s*$)"
);
// Noise of platforms that means nothing for the job: name services, locales,
// terminals, displays, and libraries that probe for hardware.
re!(
    NOISE,
    r"(?i)forces have not converged to the requested precision|cannot find name for (?:group|user) ID|setlocale|cannot change locale|set the locale|^stty: |^tput: |tcsetattr|no version information available|\bxauth\b|cannot open display|X11 (?:forwarding|connection)|libGL error|Gtk-(?:WARNING|CRITICAL)|^ALSA lib|QStandardPaths|XDG_RUNTIME_DIR|Unable to register (?:cuDNN|cuFFT|cuBLAS)|could not find cuda drivers|rm: cannot remove .*: No such file|mkdir: cannot create directory .*: File exists|^mv: .* are the same file|error initializing an OpenFabrics device|OpenFabrics device|libibverbs: Warning|btl_openib_warn|no job control in this shell|cannot set terminal process group|Inappropriate ioctl for device|(?:un)?able to find cuda|NUMA node|Exception ignored in|command line option .* is valid for|Failed to load image Python extension|could not retrieve (?:the )?git|not a git repository|tensorrt|nvinfer|mesg: ttyname failed|Can't stat .*bash_profile|error_if_nonfinite"
);
// Words that take the edge off: nothing failed, or it is being mended.
re!(
    HARMLESS,
    r"(?i)\b(?:no|0|zero|without(?: any)?|free of|ignor(?:e|ing|ed)|skip(?:ping|ped)?|not an) (?:\w+ )?(?:errors?|failures?|problems?|warnings?)\b|\berrors?\s*[:=]\s*(?:0\b|\[\]|\{\}|(?:none|no)\s*$)|\b(?:0|no) (?:failed|failing)\b|\bfailed\s*[:=]\s*0\b|\b(?:on|if|--?|_)(?:error|fail)(?:s|ed)?\b[-_= ]|-(?:W|w)error|\berror[-_ ]?(?:rate|bars?|model|function|correction|handling|handler|tolerance|estimate|metric|norm|log\b|reporting|propagation|term|percentage|threshold)|\b(?:mean|absolute|squared|relative|standard|root|test|train(?:ing)?|validation|total|max(?:imum)?|average|rms|residual|fit(?:ting)?|prediction|reconstruction|energy|force|discretization|truncation|numerical|rounding|approximation|integration|estimated|sampling|statistical|l2|final|cumulative|interpolation) errors?\b"
);
re!(
    MENDED,
    r"(?i)\b(?:retry(?:ing)?\b|will retry|trying again|re-?try(?:ing)? in|attempt \d+ ?(?:/|of) ?\d+|attempts? (?:left|remaining)|fall(?:ing|s)? ?back|using (?:the )?default|continuing|proceeding|skipping|ignoring|ignored|degrading|recover(?:ed|ing)|backing off|reconnecting|resubmit\w*|restarting|execution is retried)"
);
// Lines of a program's own text: what it will run, not what happened.
re!(
    ECHO,
    r#"^\s*(?:\+{1,3} |\$ |>>> |#(?:SBATCH|!)|echo\b|raise \w|except\b|try:|print\(|logger\.|assert |if \[|throw |stop\(|tryCatch|error\(|\d{1,5}\s+(?:raise|except) |-{1,4}> ?\d+ |return\b|def |import |from \S+ import )"#
);
// What a library thinks of as possible reasons is not what happened.
re!(GUESS, r"(?i)\b(?:this|it|which) (?:could|may|might) (?:be|have been) (?:caused by|due to)\b[^.]*\.?");
// A script's own last word, under its own name.
re!(LAST_WORD, r"^(?:\S*/)?[\w\-]+\.(?:sh|bash|py|pl|R|x|exe|out): (?P<msg>\S.*)$");
re!(R_TRACE, r"^\s*(?:\d+: |▆|\d+\. [├└│])");

/// Collects the signs, ordered by line.
pub(crate) fn collect(lines: &[Line]) -> Vec<Candidate> {
    let mut out = Vec::new();
    let mut taken = vec![false; lines.len()];
    from_exceptions(lines, &mut taken, &mut out);
    for a in announced(lines) {
        if taken[a.line] {
            continue;
        }
        let message = unboxed(&lines[a.line].text);
        let known = RULES.standing(&lines[a.line].text).filter(|r| r.strength <= Strength::Wrapper);
        let about = RULES.about(message);
        let (rule, cause, strength, infra, specific) = match (known, about) {
            (Some(k), None) => (k.name, k.cause, k.strength, k.infra, false),
            (_, Some(r)) => (r.name, r.cause, a.strength.max(Strength::Error), r.infra, true),
            (None, None) => ("announced", a.default, a.strength, None, false),
        };
        taken[a.line] = true;
        taken[a.head] = true;
        let mut c = Candidate::new(a.line, rule, cause, strength, infra, a.lang, specific);
        // Groovy's own wording of two exceptions.
        c.exception = match message {
            m if m.starts_with("No signature of method") => Some("MissingMethodException".to_owned()),
            m if m.starts_with("No such property") => Some("MissingPropertyException".to_owned()),
            _ => None,
        };
        c.outermost = Some(a.head);
        out.push(c);
    }
    for (message, frames) in matlab(lines) {
        for f in frames {
            taken[f] = true;
        }
        if !taken[message] {
            taken[message] = true;
            let about = RULES.about(&lines[message].text);
            let mut c = match about {
                Some(r) => Candidate::of_rule(message, r, Strength::Fatal),
                None => {
                    Candidate::new(message, "matlab", Cause::AppError, Strength::Fatal, None, None, false)
                }
            };
            c.lang = Some("matlab");
            out.push(c);
        }
    }
    for (head, deepest) in mpich_stacks(lines) {
        taken[head..head.max(deepest) + 1].fill(true);
        // "Fatal error in MPI_X: ..., error stack:" stands right above.
        let above = head.checked_sub(1).filter(|&a| lines[a].text.contains("error stack")).unwrap_or(head);
        taken[above] = true;
        let mut c =
            Candidate::new(deepest, "mpich_stack", Cause::Mpi, Strength::Fatal, None, Some("c"), true);
        c.outermost = Some(above);
        out.push(c);
    }
    command_error(lines, &taken, &mut out);
    for (i, line) in lines.iter().enumerate() {
        if !taken[i] && (line.level == Some(Level::Error) || may_matter(line.text.as_bytes())) {
            out.extend(from_line(i, line));
        }
    }
    if out.is_empty() {
        out.extend(last_word(lines));
    }
    out.sort_by_key(|c| c.line);
    out
}

/// With no other sign, what a script says under its own name in the last line.
fn last_word(lines: &[Line]) -> Option<Candidate> {
    let (i, line) = lines.iter().enumerate().rev().find(|(_, l)| !l.text.trim().is_empty())?;
    let quiet = matches!(line.level, Some(Level::Info | Level::Warn));
    let fine = HARMLESS.is_match(&line.text) || success::made(&line.text) || success::progress(&line.text);
    (LAST_WORD.is_match(&line.text) && may_matter(line.text.as_bytes()) && !quiet && !fine)
        .then(|| Candidate::new(i, "last_word", Cause::AppError, Strength::Weak, None, None, false))
}

impl Candidate {
    fn new(
        line: usize,
        rule: &'static str,
        cause: Cause,
        strength: Strength,
        infra: Option<bool>,
        lang: Option<&'static str>,
        specific: bool,
    ) -> Self {
        Candidate {
            line,
            rule,
            cause,
            strength,
            infra,
            exception: None,
            lang,
            chain: Vec::new(),
            outermost: None,
            specific,
            mended: false,
        }
    }

    /// A runtime's way to report any error says nothing of its kind; its
    /// message may.
    fn carry(&mut self, text: &str) {
        let telling = |r: &&Rule| {
            !matches!(r.cause, Cause::AppError | Cause::EngineWrapper | Cause::Crash)
                && !matches!(r.strength, Strength::Aftermath | Strength::Wrapper | Strength::Cancel)
        };
        if let Some(inner) = RULES.matching(text).find(telling) {
            (self.rule, self.cause, self.infra) = (inner.name, inner.cause, inner.infra);
        }
    }

    fn of_rule(line: usize, rule: &'static Rule, strength: Strength) -> Self {
        Candidate::new(line, rule.name, rule.cause, strength, rule.infra, rule.lang, true)
    }
}

fn from_line(i: usize, line: &Line) -> Option<Candidate> {
    let text = line.text.as_str();
    if ECHO.is_match(text) {
        // A prompt can share its line with the scheduler's message.
        let verdict = RULES.standing(text).filter(|r| r.strength == Strength::Verdict)?;
        return Some(Candidate::of_rule(i, verdict, Strength::Verdict));
    }
    if NOISE.is_match(text) {
        return None;
    }
    let mended = MENDED.is_match(text);
    let quiet = matches!(line.level, Some(Level::Info | Level::Warn));
    let soften = |s: Strength| {
        if (quiet || mended) && s < Strength::Verdict && s > Strength::Soft && s != Strength::Cancel {
            Strength::Soft
        } else {
            s
        }
    };
    if let Some(rule) = RULES.standing(text) {
        if quiet && rule.strength <= Strength::Wrapper {
            return None;
        }
        if rule.strength < Strength::Fatal && HARMLESS.is_match(text) {
            return None;
        }
        // A wrapper's line may carry the reason it wraps.
        if rule.strength == Strength::Wrapper
            && let Some(inner) = RULES.matching(text).find(|r| r.strength >= Strength::Kill)
        {
            return Some(Candidate::of_rule(i, inner, soften(inner.strength)));
        }
        // Some codes call a failed cycle a warning.
        let strength = if rule.name == "scf_not_converged" { rule.strength } else { soften(rule.strength) };
        let mut c = Candidate::of_rule(i, rule, strength);
        if rule.carries {
            c.carry(text);
        }
        c.mended = mended;
        c.exception = inline_kind(text);
        if c.exception.is_some() && c.lang.is_none() {
            c.lang = Some("python");
        }
        return Some(c);
    }
    if HARMLESS.is_match(text) {
        return None;
    }
    let statement = [&STATEMENT, &PLACED, &STARRED, &MARKED].into_iter().find_map(|form| form.captures(text));
    let (message, strong) = match &statement {
        Some(c) => (c.name("msg").map_or("", |m| m.as_str()), true),
        None if line.level == Some(Level::Error) => (text, true),
        None => match UTILITY
            .captures(text)
            .or_else(|| SENTENCE.captures(text))
            .or_else(|| DIE.captures(text))
            .or_else(|| GNU.captures(text).filter(|c| RULES.about(&c["msg"]).is_some()))
        {
            Some(c) => (c.name("msg").map_or("", |m| m.as_str()), false),
            None => match inline_kind(text) {
                Some(_) => (text, false),
                None => return None,
            },
        },
    };
    if METRIC.is_match(message) || message.trim().is_empty() || quiet && !strong {
        return None;
    }
    let kind = inline_kind(text);
    let by_type = kind.as_deref().and_then(python::by_type);
    let mut c = match (RULES.about(text), by_type) {
        (Some(r), _) if kind.as_deref().is_none_or(|k| !python::programming(k)) => {
            Candidate::of_rule(i, r, soften(if strong { Strength::Error } else { Strength::Weak }))
        }
        (_, Some((cause, infra))) => Candidate::new(
            i,
            "exception_type",
            cause,
            soften(if strong { Strength::Error } else { Strength::Weak }),
            infra,
            Some("python"),
            true,
        ),
        _ => Candidate::new(i, "statement", Cause::AppError, soften(Strength::Weak), None, None, false),
    };
    c.exception = kind;
    c.mended = mended;
    Some(c)
}

fn inline_kind(text: &str) -> Option<String> {
    INLINE_EXCEPTION.captures(text).map(|c| c["kind"].to_owned())
}

/// The lines of each writer, as indices.
fn writers(lines: &[Line]) -> Vec<Vec<usize>> {
    let mut writers: Vec<Vec<usize>> = Vec::new();
    let mut place: HashMap<Option<&str>, usize> = HashMap::new();
    for (i, line) in lines.iter().enumerate() {
        let at = *place.entry(line.rank.as_deref()).or_insert_with(|| {
            writers.push(Vec::new());
            writers.len() - 1
        });
        writers[at].push(i);
    }
    writers
}

/// The exceptions of languages that print each in one block of lines.
fn in_blocks(lines: &[Line], own: &[usize], raised: &mut Vec<Raised>) {
    let alone: Vec<Line>;
    let block = if own.len() == lines.len() {
        lines
    } else {
        alone = own.iter().map(|&i| lines[i].clone()).collect();
        &alone
    };
    let mut found = Vec::new();
    exceptions::java(block, &mut found);
    exceptions::r(block, &mut found);
    exceptions::julia(block, &mut found);
    exceptions::cpp(block, &mut found);
    let before = raised.len();
    raised.extend(found.into_iter().map(|r| Raised {
        line: own[r.line],
        head: own[r.head],
        inner: r.inner.map(|inner| before + inner),
        ..r
    }));
}

fn from_exceptions(lines: &[Line], taken: &mut [bool], out: &mut Vec<Candidate>) {
    // One stream per writer: ranks share a file line by line.
    let mut raised = Vec::new();
    let mut ignored = Vec::new();
    for mut own in writers(lines) {
        let before = raised.len();
        in_blocks(lines, &own, &mut raised);
        for r in &raised[before..] {
            let (head, line) = (own.partition_point(|&i| i < r.head), own.partition_point(|&i| i <= r.line));
            own[head..line].iter().for_each(|&i| taken[i] = true);
        }
        own.retain(|&i| !taken[i]);
        exceptions::python(lines, &own, &mut raised, &mut ignored);
    }
    for i in ignored {
        taken[i] = true;
    }
    for r in &raised {
        taken[r.line] = true;
        taken[r.head] = true;
    }
    let mut caused = vec![false; raised.len()];
    for r in &raised {
        if let Some(inner) = r.inner {
            caused[inner] = true;
        }
    }
    for (n, outermost) in raised.iter().enumerate() {
        if caused[n] {
            continue;
        }
        // From the outermost inwards; links point to other exceptions once,
        // the bound is against a circle.
        let mut chain = vec![outermost];
        while let Some(inner) = chain.last().and_then(|r| r.inner)
            && chain.len() <= raised.len()
        {
            chain.push(&raised[inner]);
        }
        chain.reverse();
        out.push(of_chain(lines, &chain));
    }
}

struct Judged {
    cause: Cause,
    infra: Option<bool>,
    rule: &'static str,
    strength: Strength,
    specific: bool,
}

fn judge(lines: &[Line], r: &Raised) -> Judged {
    let kind = r.kind.as_deref().unwrap_or("");
    let mut base = python::strength(kind, r.traceback);
    // sys.exit("reason") says why; sys.exit(1) does not.
    if kind == "SystemExit" && r.message.len() > 4 {
        base = Strength::Fatal;
    }
    // The message may go on below its first line.
    let message = GUESS.replace_all(&r.message, "");
    let mut text = if r.lang == Some("python") && r.line == r.head {
        GUESS.replace_all(&lines[r.line].text, "").into_owned()
    } else {
        format!("{kind}: {message}")
    };
    let more: Vec<&str> = if r.lang == Some("java") {
        vec![]
    } else {
        lines[r.line + 1..]
            .iter()
            .take(3)
            .take_while(|l| l.rank == lines[r.line].rank && l.level.is_none())
            .map(|l| l.text.as_str())
            .take_while(|t| {
                !t.trim().is_empty()
                    && !t.contains("srun:")
                    && !t.contains("slurmstepd")
                    && !t.contains("Traceback")
                    && RULES.standing(t).is_none_or(|r| {
                        !matches!(r.strength, Strength::Kill | Strength::Wrapper | Strength::Aftermath)
                    })
            })
            .collect()
    };
    // Java's loggers print the level on the line above the stack.
    let own = lines[..r.head].iter().rev().find(|l| l.rank == lines[r.head].rank);
    let logged = own.filter(|_| r.lang == Some("java")).and_then(|l| l.level);
    let level = lines[r.head].level;
    let strength = match level.or(logged) {
        Some(Level::Info | Level::Warn) if logged.is_some() && base >= Strength::Error => Strength::Soft,
        Some(Level::Info | Level::Warn) if base >= Strength::Error && !r.traceback => Strength::Soft,
        _ => base,
    };
    let of_data = kind == "SyntaxError" && r.message.contains("JSON");
    if !of_data && (python::programming(kind) || kind == "TypeError") {
        return Judged { cause: Cause::AppError, infra: None, rule: "exception", strength, specific: false };
    }
    if strength == Strength::Cancel {
        return Judged { cause: Cause::Cancelled, infra: None, rule: "interrupt", strength, specific: true };
    }
    let killed = |t: &str| RULES.matching(t).find(|m| m.strength == Strength::Kill);
    if strength == Strength::Wrapper {
        return match killed(&text) {
            Some(m) => Judged {
                cause: m.cause,
                infra: m.infra,
                rule: m.name,
                strength: Strength::Kill,
                specific: true,
            },
            None => match RULES.about(&message).filter(|m| m.strength >= Strength::Error) {
                Some(m) => Judged {
                    cause: m.cause,
                    infra: m.infra,
                    rule: m.name,
                    strength: Strength::Error,
                    specific: true,
                },
                None => Judged {
                    cause: Cause::EngineWrapper,
                    infra: None,
                    rule: "wrapper",
                    strength,
                    specific: true,
                },
            },
        };
    }
    // An exception that reports the failure of a process or a worker.
    let reported = RULES.standing(&text).filter(|m| m.strength == Strength::Wrapper && m.name == "pool");
    let engine = || {
        let said = RULES.standing(&message)?;
        (said.strength == Strength::Wrapper && said.name == "snakemake_rule").then_some(said)
    };
    if let Some(w) = reported.or_else(engine) {
        let cause = killed(&text);
        return Judged {
            cause: cause.map_or(Cause::EngineWrapper, |m| m.cause),
            infra: None,
            rule: w.name,
            strength: if cause.is_some() { Strength::Kill } else { Strength::Wrapper },
            specific: true,
        };
    }
    if kind == "FileNotFoundError" && started_program(lines, r) {
        let rule = "python_subprocess";
        return Judged { cause: Cause::Env, infra: None, rule, strength, specific: true };
    }
    let known = RULES.about(&text);
    let typed = python::by_type(kind);
    let known = match known {
        Some(m) => Some((m.cause, m.infra, m.name, m.strength == Strength::Fatal)),
        None => typed.map(|(c, infra)| (c, infra, "exception_type", false)).or_else(|| {
            if more.is_empty() {
                return None;
            }
            text.push(' ');
            text.push_str(&more.join(" "));
            RULES.about(&text).map(|m| (m.cause, m.infra, m.name, false))
        }),
    };
    match known {
        Some((cause, infra, rule, fatal)) => Judged {
            cause,
            infra,
            rule,
            strength: if fatal && strength == Strength::Error { Strength::Fatal } else { strength },
            specific: true,
        },
        None => Judged { cause: Cause::AppError, infra: None, rule: "exception", strength, specific: false },
    }
}

/// The file that is missing is a program: the last frame is CPython's way to
/// start one.
fn started_program(lines: &[Line], r: &Raised) -> bool {
    let writer = lines[..r.head].iter().rev().filter(|l| l.rank == lines[r.head].rank);
    writer.take(5).any(|l| l.text.contains("in _execute_child"))
}

/// The root of a chain: its innermost exception, unless that one is
/// incidental ("during handling") and a later one names a known reason.
fn of_chain(lines: &[Line], chain: &[&Raised]) -> Candidate {
    let judged: Vec<Judged> = chain.iter().map(|r| judge(lines, r)).collect();
    let mut root = 0;
    while root + 1 < chain.len() {
        let here = &judged[root];
        let next = &judged[root + 1];
        let incidental = chain[root + 1].implicit && !here.specific && next.specific;
        let wraps = here.strength == Strength::Wrapper && next.strength > Strength::Wrapper;
        if incidental || wraps {
            root += 1;
        } else {
            break;
        }
    }
    let r = chain[root];
    let j = &judged[root];
    let last = chain[chain.len() - 1];
    let mut c = Candidate::new(r.line, j.rule, j.cause, j.strength, j.infra, r.lang, j.specific);
    c.exception = r.kind.clone();
    // A chain that ends in a wrapper still ended the program.
    if c.strength == Strength::Error && chain.iter().any(|r| r.traceback) {
        c.strength = Strength::Fatal;
    }
    if chain.len() > 1 {
        c.chain = chain[root..].iter().map(|r| r.kind.clone().unwrap_or_else(|| r.message.clone())).collect();
    }
    if last.line != r.line {
        c.outermost = Some(last.head);
    } else if r.head != r.line && r.lang != Some("python") {
        c.outermost = Some(r.head);
    }
    c
}

/// Nextflow prints the task's own error output under "Command error:". Its
/// last line is the task's last word, when no rule knows a better one.
fn command_error(lines: &[Line], taken: &[bool], out: &mut Vec<Candidate>) {
    for (i, line) in lines.iter().enumerate() {
        if line.text.trim() != "Command error:" {
            continue;
        }
        let mut last = None;
        for (j, l) in lines.iter().enumerate().skip(i + 1).take(60) {
            let t = l.text.trim();
            if t.starts_with("Work dir:") || t.starts_with("Tip: ") || t.starts_with("Container:") {
                break;
            }
            if !t.is_empty() && t != "(empty)" && !R_TRACE.is_match(t) && t != "Execution halted" {
                last = Some(j);
            }
        }
        if let Some(j) = last
            && !taken[j]
            && RULES.standing(&lines[j].text).is_none()
            && lines[j].level.is_none()
        {
            out.push(Candidate::new(j, "task_stderr", Cause::AppError, Strength::Weak, None, None, false));
        }
    }
}
