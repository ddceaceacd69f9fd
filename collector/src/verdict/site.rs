/*!
Rules of a site, which come before the built-in ones.

They are read from a TOML file that is as strict as the configuration: a key
that nobody knows is an error with its line. What a rule says of facts is
decided wherever a job is judged, by the collector too. A pattern needs a log,
and logs are read with the permissions of whoever asks, so rules with a
pattern, and markers of success, count in the commands that read logs.
*/

mod when;

use std::path::{Path, PathBuf};

use regex::Regex;
use serde::Deserialize;
use toml::Spanned;

use self::when::{Signal, When, any};
use super::{Class, Confidence, Retry, Verdict};
use crate::config::Problem;
use crate::slurm::signal_name;
use crate::story::Facts;

/// Where the rules of a site are, unless told otherwise.
pub const PATH: &str = "/etc/inquest/rules.toml";

/// The keys of the file, for `inquest rules --help`, the manual and messages.
pub const KEYS: &str = "\
  [[rule]]            one rule; all that it says under match must hold
  name                becomes the cause; letters, digits, - and _
  priority            number; the highest is tried first, each once
  class               oom, timeout, app_error, crash, infra, dependency,
                      validation, cancelled, preempted, unknown
  label               word for tables; the name in capitals if not given
  detail              a sentence; the line of the log if not given
  advice              list of sentences
  retry               not, as_it_is, with_more_memory, with_more_time,
                      on_another_node; not if not given
  [rule.match]
  exit_code           list of exit codes of the first failure
  signal              list of signals, \"SIGBUS\" or 7
  class               list of classes that the built-in rules found
  partition, node, job_name
                      list of names; * and ? stand for any letters, any letter
  log                 regular expression, matched by whole words: OOM is not
                      found in ROOM
  [[success]]         a job that exits 0 without it has failed its validation
  marker              regular expression for a line of its log
  partition, job_name which jobs; all if not given";

/// The rules of a site, ready to be tried.
#[derive(Clone, Debug, Default)]
pub struct SiteRules {
    rules: Vec<SiteRule>,
    success: Vec<Success>,
}

/// One rule of a site.
#[derive(Clone, Debug)]
pub struct SiteRule {
    /// The cause.
    pub name: String,
    /// The highest is tried first.
    pub priority: i64,
    /// For counting.
    pub class: Class,
    /// One word for tables.
    pub label: String,
    detail: Option<String>,
    advice: Vec<String>,
    /// Whether to run it again.
    pub retry: Retry,
    when: When,
    pattern: Option<Regex>,
}

#[derive(Clone, Debug)]
struct Success {
    marker: Regex,
    shown: String,
    partition: Vec<String>,
    job_name: Vec<String>,
}

/// What a rule asks about the logs of a job: the first line that matches.
/// `Err` when no log can be read.
pub(crate) type Ask<'a> = dyn FnMut(&Regex) -> Result<Option<String>, ()> + 'a;

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// It is not there, or not for us to read.
    #[error("cannot read the rules {path}: {source}; name another file")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It says something that makes no sense.
    #[error("{}", .problems.iter().map(|p| format!("{}:{p}", .path.display())).collect::<Vec<_>>().join("; "))]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong with it.
        problems: Vec<Problem>,
    },
}

impl RulesError {
    /// What there is to say, a line each.
    pub fn lines(&self) -> Vec<String> {
        match self {
            RulesError::Unreadable { .. } => vec![self.to_string()],
            RulesError::Wrong { path, problems } => {
                problems.iter().map(|p| format!("{}:{p}", path.display())).collect()
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    rule: Vec<Spanned<RawRule>>,
    #[serde(default)]
    success: Vec<RawSuccess>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    name: Spanned<String>,
    priority: Spanned<i64>,
    class: Class,
    label: Option<String>,
    detail: Option<String>,
    #[serde(default)]
    advice: Vec<String>,
    retry: Option<Retry>,
    r#match: When,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSuccess {
    marker: Spanned<String>,
    #[serde(default)]
    partition: Vec<String>,
    #[serde(default)]
    job_name: Vec<String>,
}

impl SiteRules {
    /// Reads the file at `path`. Without a path it is [`PATH`], which need not
    /// be there.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or something in it is wrong.
    pub fn load(path: Option<&Path>) -> Result<SiteRules, RulesError> {
        let at = path.unwrap_or(Path::new(PATH));
        let text = match std::fs::read_to_string(at) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && path.is_none() => {
                return Ok(SiteRules::default());
            }
            Err(source) => return Err(RulesError::Unreadable { path: at.to_owned(), source }),
        };
        SiteRules::parse(&text).map_err(|problems| RulesError::Wrong { path: at.to_owned(), problems })
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it.
    pub fn parse(text: &str) -> Result<SiteRules, Vec<Problem>> {
        let line =
            |at: usize| 1 + text.as_bytes()[..at.min(text.len())].iter().filter(|b| **b == b'\n').count();
        let file: File = toml::from_str(text).map_err(|e| {
            let what = e.message().trim_end().replace('\n', ", ");
            let what = format!("{what}; see 'inquest rules --help' for the keys");
            vec![Problem { line: line(e.span().map_or(0, |s| s.start)), what }]
        })?;
        let mut problems = Vec::new();
        let mut found = SiteRules::default();
        for raw in file.rule {
            let at = line(raw.span().start);
            match SiteRule::of(raw.into_inner(), &line) {
                Ok((rule, span)) => {
                    let twin =
                        found.rules.iter().find(|r| r.name == rule.name || r.priority == rule.priority);
                    if let Some(twin) = twin {
                        let what = if twin.name == rule.name {
                            format!("there are two rules with the name {}; give one another name", rule.name)
                        } else {
                            let (a, b, p) = (&twin.name, &rule.name, rule.priority);
                            format!("{a} and {b} have the same priority {p}; say which is tried first")
                        };
                        problems.push(Problem { line: span.max(at), what });
                    }
                    found.rules.push(rule);
                }
                Err(problem) => problems.push(problem),
            }
        }
        for raw in file.success {
            let RawSuccess { marker, partition, job_name } = raw;
            match pattern(marker.get_ref(), "success.marker", line(marker.span().start)) {
                Ok(regex) => {
                    found.success.push(Success {
                        marker: regex,
                        shown: marker.into_inner(),
                        partition,
                        job_name,
                    });
                }
                Err(problem) => problems.push(problem),
            }
        }
        found.rules.sort_by_key(|r| std::cmp::Reverse(r.priority));
        if problems.is_empty() { Ok(found) } else { Err(problems) }
    }

    /// A marker of success of one call, for all jobs.
    ///
    /// # Errors
    ///
    /// When it is no regular expression.
    pub fn expect(&mut self, marker: &str) -> Result<(), String> {
        let regex = pattern(marker, "the marker", 1).map_err(|p| p.what)?;
        let success =
            Success { marker: regex, shown: marker.to_owned(), partition: vec![], job_name: vec![] };
        self.success.push(success);
        Ok(())
    }

    /// The rules in the order in which they are tried.
    pub fn rules(&self) -> &[SiteRule] {
        &self.rules
    }

    /// Whether there is nothing to try.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.success.is_empty()
    }

    /// The verdict of a site's rule in place of the built-in one, when one
    /// holds. Without `logs`, rules with a pattern do not.
    pub fn refine(
        &self,
        facts: &Facts,
        nodes: &[&str],
        verdict: &Verdict,
        logs: Option<&mut Ask<'_>>,
    ) -> Option<Verdict> {
        if verdict.class == Class::Ok {
            return logs.and_then(|logs| self.validate(facts, verdict, logs));
        }
        let mut logs = logs;
        for rule in self.rules.iter().filter(|r| r.when.holds(facts, nodes, verdict)) {
            let line = match (&rule.pattern, &mut logs) {
                (None, _) => None,
                (Some(_), None) => continue,
                (Some(pattern), Some(ask)) => match ask(pattern) {
                    Ok(Some(line)) => Some(line),
                    Ok(None) | Err(()) => continue,
                },
            };
            let told = line.as_deref().map(str::trim);
            return Some(Verdict {
                class: rule.class,
                cause: rule.name.clone(),
                label: rule.label.clone(),
                detail: match (&rule.detail, told) {
                    (Some(detail), _) => detail.clone(),
                    (None, Some(line)) => line.to_owned(),
                    (None, None) => verdict.detail.clone(),
                },
                confidence: if told.is_some() { Confidence::Log } else { verdict.confidence },
                advice: rule.advice.clone(),
                retry: rule.retry,
                rule: Some(rule.name.clone()),
                ..verdict.clone()
            });
        }
        None
    }

    /// A job that ended well must say so, where its site wants that.
    fn validate(&self, facts: &Facts, verdict: &Verdict, logs: &mut Ask<'_>) -> Option<Verdict> {
        let named = |globs: &[String], name: &Option<String>| any(globs, name.as_deref());
        let of = |s: &&Success| named(&s.partition, &facts.partition) && named(&s.job_name, &facts.name);
        // A log that cannot be read proves nothing.
        let missing = self.success.iter().filter(of).find(|s| matches!(logs(&s.marker), Ok(None)))?;
        Some(Verdict {
            class: Class::Validation,
            cause: "no_success_marker".into(),
            label: "NO_MARKER".into(),
            detail: format!("it exited 0, but no line of its logs says '{}' as it should.", missing.shown),
            confidence: Confidence::Log,
            advice: vec!["look at the end of the log: the job ended before its work was done".into()],
            retry: Retry::Not,
            rule: Some("no_success_marker".into()),
            ..verdict.clone()
        })
    }
}

impl SiteRule {
    /// Checks a rule; gives it with the line of its name.
    fn of(raw: RawRule, line: &dyn Fn(usize) -> usize) -> Result<(SiteRule, usize), Problem> {
        let at = line(raw.name.span().start);
        let problem = |line, what| Err(Problem { line, what });
        let name = raw.name.into_inner();
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
            return problem(at, format!("name = {name:?}: write up to 64 letters, digits, - and _"));
        }
        if raw.class == Class::Ok {
            return problem(at, format!("rule {name}: class = \"ok\" is no failure; leave the rule out"));
        }
        let when = raw.r#match;
        let pattern = match &when.log {
            None => None,
            Some(log) => Some(pattern(log.get_ref(), "match.log", line(log.span().start))?),
        };
        if when.is_empty() && pattern.is_none() {
            return problem(
                at,
                format!("rule {name}: [rule.match] is empty and would hold for every job; say when it holds"),
            );
        }
        if let Some(Signal::Name(word)) = when.signal.iter().find(|s| s.number().is_none()) {
            return problem(at, format!("rule {name}: there is no signal {word:?}; write \"SIGBUS\" or 7"));
        }
        let label = raw.label.unwrap_or_else(|| name.to_ascii_uppercase());
        Ok((
            SiteRule {
                label,
                priority: raw.priority.into_inner(),
                class: raw.class,
                detail: raw.detail,
                advice: raw.advice,
                retry: raw.retry.unwrap_or(Retry::Not),
                when,
                pattern,
                name,
            },
            at,
        ))
    }

    /// When it holds, in a few words.
    pub fn says(&self) -> String {
        let mut parts = Vec::new();
        let mut list = |key: &str, values: Vec<String>| {
            if !values.is_empty() {
                parts.push(format!("{key} {}", values.join(" or ")));
            }
        };
        let w = &self.when;
        list("exit code", w.exit_code.iter().map(u8::to_string).collect());
        list("signal", w.signal.iter().filter_map(|s| s.number().map(signal_name)).collect());
        list("class", w.class.iter().map(Class::to_string).collect());
        list("partition", w.partition.clone());
        list("node", w.node.clone());
        list("job name", w.job_name.clone());
        list("log", self.pattern.iter().map(|p| unwrapped(p.as_str()).to_owned()).collect());
        parts.join(", ")
    }
}

const BEFORE: &str = r"\b{start-half}(?:";
const AFTER: &str = r")\b{end-half}";

/// A pattern for whole words.
fn pattern(text: &str, key: &str, line: usize) -> Result<Regex, Problem> {
    let wrong = |reason: String| Problem {
        line,
        what: format!(
            "{key}: {text:?} is no regular expression: {reason}; write it in 'single quotes', \\ before . ( [ * +"
        ),
    };
    if text.is_empty() {
        return Err(wrong("it is empty and would match every line".into()));
    }
    // By itself first: a bracket too many must not close ours.
    let reason = |e: regex::Error| {
        e.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
    };
    Regex::new(text).map_err(|e| wrong(reason(e)))?;
    Regex::new(&format!("{BEFORE}{text}{AFTER}")).map_err(|e| wrong(reason(e)))
}

fn unwrapped(pattern: &str) -> &str {
    pattern.strip_prefix(BEFORE).and_then(|p| p.strip_suffix(AFTER)).unwrap_or(pattern)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const RULES: &str = r#"
[[rule]]
name = "scratch-full"
priority = 100
class = "infra"
label = "SCRATCH"
advice = ["write to /work instead"]
retry = "on_another_node"
[rule.match]
class = ["app_error"]
node = ["n1*"]
log = 'scratch\d+ is full'

[[rule]]
name = "bad_input"
priority = 200
class = "validation"
detail = "the input is no good."
[rule.match]
exit_code = [64, 65]
job_name = ["fit-?"]

[[rule]]
name = "bus"
priority = -1
class = "infra"
[rule.match]
signal = ["SIGBUS", 5]

[[success]]
marker = 'ALL \d+ DONE'
partition = ["batch"]
"#;

    fn verdict(class: &str, code: Option<u8>, signal: Option<u8>, node: &str) -> Verdict {
        let death = json!({
            "at": { "wall": "2026-11-21T14:00:00Z", "node": node, "boot": "b", "mono_us": 1, "event": "s#1" },
            "offset_us": 0, "step": "batch", "task": 0, "pid": 1, "exit_code": code, "signal": signal, "core": false,
            "oom_kills": 0, "peak_bytes": null, "limit_bytes": null, "limit_level": null,
            "reported_by_slurm": null, "evidence": [],
        });
        serde_json::from_value(json!({
            "class": class, "cause": "app_error", "label": "ERROR", "detail": "it ended", "confidence": "fact",
            "evidence": ["s#1"], "first_failure": (class != "ok").then_some(death), "retry": "not",
        }))
        .unwrap()
    }

    #[test]
    fn the_first_rule_that_holds_decides() {
        let rules = SiteRules::parse(RULES).unwrap();
        let order: Vec<&str> = rules.rules().iter().map(|r| r.name.as_str()).collect();
        assert_eq!(order, ["bad_input", "scratch-full", "bus"]);
        // name of the job, class, code, signal, node, log -> cause, or nothing
        for (name, class, code, signal, node, log, wanted) in [
            ("fit-1", "app_error", Some(64), None, "n12", "scratch3 is full", Some("bad_input")),
            ("fit-12", "app_error", Some(64), None, "n12", "scratch3 is full", Some("scratch-full")),
            ("x", "app_error", Some(1), None, "n12", "the scratch3 is full.", Some("scratch-full")),
            ("x", "app_error", Some(1), None, "n12", "myscratch3 is full", None),
            ("x", "app_error", Some(1), None, "n12", "scratch3 is fuller", None),
            ("x", "app_error", Some(1), None, "n2", "scratch3 is full", None),
            ("x", "crash", None, Some(7), "n2", "", Some("bus")),
            ("x", "crash", None, Some(5), "n2", "", Some("bus")),
            ("x", "crash", None, Some(11), "n2", "", None),
            ("x", "ok", Some(0), None, "n2", "ALL 3 DONE", None),
            ("x", "ok", Some(0), None, "n2", "FALL 3 DONE", Some("no_success_marker")),
        ] {
            let facts =
                Facts { name: Some(name.into()), partition: Some("batch".into()), ..Facts::default() };
            let given = verdict(class, code, signal, node);
            let mut ask = |p: &Regex| Ok(p.is_match(log).then(|| log.to_owned()));
            let got = rules.refine(&facts, &[node], &given, Some(&mut ask));
            assert_eq!(
                got.as_ref().map(|v| v.cause.as_str()),
                wanted,
                "{name} {class} {code:?} {signal:?} {log}"
            );
            assert!(got.is_none_or(|v| v.evidence == given.evidence && v.rule.is_some()));
        }
        let facts = Facts { partition: Some("gpu".into()), ..Facts::default() };
        let mut nothing = |_: &Regex| Ok(None);
        assert!(rules.refine(&facts, &[], &verdict("ok", Some(0), None, ""), Some(&mut nothing)).is_none());
        let facts = Facts { partition: Some("batch".into()), ..Facts::default() };
        let mut closed = |_: &Regex| Err(());
        let ok = verdict("ok", Some(0), None, "");
        assert!(
            rules.refine(&facts, &[], &ok, Some(&mut closed)).is_none(),
            "an unreadable log proves nothing"
        );
        assert!(rules.refine(&facts, &[], &ok, None).is_none());
        let full = verdict("app_error", Some(1), None, "n1");
        assert!(rules.refine(&facts, &[], &full, None).is_none(), "a pattern needs a log");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let rule = |rest: &str| format!("[[rule]]\nname = \"a\"\npriority = 1\nclass = \"infra\"\n{rest}");
        for (text, line, part) in [
            ("[[rules]]\n".to_owned(), 1, "unknown field `rules`, expected `rule` or `success`"),
            (rule("[rule.match]\nexit_codes = [1]\n"), 6, "exit_codes"),
            (rule("[rule.match]\n"), 2, "would hold for every job"),
            (rule("clas = \"x\"\n[rule.match]\nexit_code = [1]\n"), 5, "clas"),
            (
                rule("[rule.match]\nlog = 'a('\n"),
                6,
                "match.log: \"a(\" is no regular expression: unclosed group",
            ),
            (rule("[rule.match]\nlog = 'a)(b'\n"), 6, "is no regular expression"),
            (rule("[rule.match]\nlog = ''\n"), 6, "every line"),
            (rule("[rule.match]\nsignal = [\"SIGFOO\"]\n"), 2, "no signal \"SIGFOO\""),
            (
                rule("").replace("infra", "oops") + "[rule.match]\nexit_code = [1]\n",
                4,
                "unknown variant `oops`",
            ),
            (rule("").replace("infra", "ok") + "[rule.match]\nexit_code = [1]\n", 2, "is no failure"),
            (rule("").replace("\"a\"", "\"a b\"") + "[rule.match]\nexit_code = [1]\n", 2, "letters, digits"),
            ("[[success]]\nmarker = '['\n".to_owned(), 2, "success.marker"),
            (RULES.replace("priority = 200", "priority = 100"), 15, "the same priority 100"),
            (RULES.replace("\"bus\"", "\"bad_input\""), 24, "two rules with the name bad_input"),
        ] {
            let problems = SiteRules::parse(&text).unwrap_err();
            assert_eq!(problems.len(), 1, "{text}: {problems:?}");
            let (got, what) = (problems[0].line, &problems[0].what);
            assert!(what.contains(part), "{text}: {what}");
            assert_eq!(got, line, "{text}: {what}");
        }
        assert!(SiteRules::parse("").unwrap().is_empty());
    }
}
