/*!
From a story to a verdict: what became of a job, why, and on which events that
rests.

Judging is pure and deterministic. Rules are tried in the order of
[`rules::RULES`]; the first one that holds decides, so a rule may rely on all
earlier ones having failed. Facts of the node come before what Slurm says, and
both before anything that is inferred.
*/

mod death;
pub mod manual;
pub mod rules;
mod site;

use std::fmt;

use serde::{Deserialize, Serialize};

pub(crate) use death::level_name;
pub use death::{Death, deaths};
pub(crate) use rules::processes;
pub use rules::{RULES, Unexplained};
pub use site::{KEYS as SITE_KEYS, PATH as SITE_PATH, RulesError, SiteRule, SiteRules};

use crate::logs::{Fingerprint, fingerprint};
use crate::slurm::accounting::JobRecord;
use crate::story::clocks::{Clocks, Skew};
use crate::story::{Attempt, EventId, Story};

/// What became of a job, for counting. A superset of the classes that parade
/// users know (`app_error` is its r_error, `crash` its r_crash, `infra` its
/// slurm_infra).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Class {
    Ok,
    Oom,
    Timeout,
    AppError,
    Crash,
    Infra,
    Dependency,
    Validation,
    Cancelled,
    Preempted,
    Unknown,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Class::Ok => "ok",
            Class::Oom => "oom",
            Class::Timeout => "timeout",
            Class::AppError => "app_error",
            Class::Crash => "crash",
            Class::Infra => "infra",
            Class::Dependency => "dependency",
            Class::Validation => "validation",
            Class::Cancelled => "cancelled",
            Class::Preempted => "preempted",
            Class::Unknown => "unknown",
        })
    }
}

/// How sure a verdict is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// The kernel, slurmstepd or Slurm itself said so.
    Fact,
    /// The job's log says so.
    Log,
    /// It follows from what is known, but something else could look the same.
    Inferred,
}

/// Whether the same job can be expected to succeed when it is run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Retry {
    Not,
    AsItIs,
    WithMoreMemory,
    WithMoreTime,
    OnAnotherNode,
}

/// The verdict on one attempt of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// For counting.
    pub class: Class,
    /// For acting; the name of the rule that decided.
    pub cause: String,
    /// One word for tables.
    pub label: String,
    /// One sentence.
    pub detail: String,
    /// How sure it is.
    pub confidence: Confidence,
    /// The events it rests on.
    pub evidence: Vec<EventId>,
    /// The death that explains the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_failure: Option<Death>,
    /// Later deaths, as consequences of the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub consequences: Vec<Death>,
    /// Deaths on other nodes that may have come before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unordered: Option<Unordered>,
    /// Clocks of its nodes that were wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clocks: Vec<Skew>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub advice: Vec<String>,
    /// Whether to run it again.
    pub retry: Retry,
    /// What Slurm itself said, when it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slurm: Option<JobRecord>,
    /// The rule of the site that decided, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

/// Deaths that the clocks of their nodes do not put in order with the first one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unordered {
    /// The clocks may be wrong against each other by so much, in microseconds; absent where
    /// nothing compares them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within_us: Option<i64>,
    /// How many.
    pub deaths: usize,
    /// The nearest of them.
    pub nearest: EventId,
}

impl Verdict {
    /// A name for the failure that is the same in other jobs. The sentence of
    /// a verdict has sizes and times in it that differ from job to job; what
    /// is the same is the cause and the way to die.
    pub fn fingerprint(&self) -> Fingerprint {
        fingerprint(&self.named())
    }

    /// The words of which [`Verdict::fingerprint`] is made.
    pub fn named(&self) -> String {
        let end = self.first_failure.as_ref().map_or(String::new(), Death::end);
        format!("{}: {end}", self.cause)
    }
}

/// What a rule looks at.
#[derive(Debug)]
pub struct Case<'a> {
    /// The attempt.
    pub attempt: &'a Attempt,
    /// What Slurm says, when it was asked and has a final answer.
    pub slurm: Option<&'a JobRecord>,
    /// Abnormal ends in the order in which they happened.
    pub deaths: Vec<Death>,
    /// Index of the death that explains the failure of the job, if one does.
    pub first: Option<usize>,
}

/// What a rule found.
#[derive(Clone, Debug)]
pub struct Match {
    /// How sure the rule is.
    pub confidence: Confidence,
    /// The death it is about.
    pub death: Option<usize>,
    /// Further evidence beside that death's.
    pub evidence: Vec<EventId>,
}

/// One reason why a job ended as it did.
pub trait Rule: Sync {
    /// Name of the cause, the key in JSON.
    fn cause(&self) -> &'static str;
    /// Class it counts as.
    fn class(&self) -> Class;
    /// One word for tables.
    fn label(&self) -> &'static str;
    /// When it holds, in one sentence for the manual.
    fn when(&self) -> &'static str;
    /// Whether it holds here.
    fn check(&self, case: &Case<'_>) -> Option<Match>;
    /// One sentence on this very case.
    fn explain(&self, case: &Case<'_>, found: &Match) -> String;
    /// What to do, in order of usefulness.
    fn advise(&self, _case: &Case<'_>, _found: &Match) -> Vec<String> {
        Vec::new()
    }
    /// Whether to run it again.
    fn retry(&self) -> Retry {
        Retry::Not
    }
}

/// Judges an attempt after which the job was put back into the queue.
pub fn judge_earlier(attempt: &Attempt, story: &Story) -> Verdict {
    let restarts = story.attempts.last().map_or(0, |a| a.restart).max(attempt.restart + 1);
    let later = JobRecord { state: "REQUEUED".into(), restarts, ..JobRecord::default() };
    judge(attempt, Some(&later))
}

/// Judges one attempt that has ended.
pub fn judge(attempt: &Attempt, slurm: Option<&JobRecord>) -> Verdict {
    let slurm = slurm.filter(|r| r.is_final() || r.restarts > attempt.restart);
    // The end of a later attempt, which no node has recorded, is none of what this one did.
    let blank;
    let attempt = if slurm.is_some_and(|r| r.is_final() && r.restarts > attempt.restart) {
        blank = attempt.without_course();
        &blank
    } else {
        attempt
    };
    let clocks = Clocks::of(attempt);
    let deaths = deaths(attempt, &clocks);
    let first = death::first(attempt, &deaths);
    let case = Case { attempt, slurm, deaths, first };
    let (rule, found) =
        rules::RULES.iter().find_map(|rule| rule.check(&case).map(|found| (*rule, found))).unwrap_or((
            &rules::Unexplained,
            Match { confidence: Confidence::Inferred, death: None, evidence: Vec::new() },
        ));
    let mut evidence = found.evidence.clone();
    if let Some(death) = found.death.and_then(|i| case.deaths.get(i)) {
        evidence.extend(death.evidence.iter().cloned());
    }
    evidence.dedup();
    let consequences = case.deaths.iter().enumerate().filter(|(i, d)| {
        found.death.is_some_and(|f| *i != f && d.offset_us - case.deaths[f].offset_us >= -death::BLUR_US)
    });
    let rivals = found.death.map_or(Vec::new(), |first| death::unordered(&clocks, &case.deaths, first));
    // Another first would be another verdict, if it died in another way.
    let alike = |i: usize, f: usize| {
        let of = |i: usize| (case.deaths[i].oom_kills > 0, case.deaths[i].end());
        of(i) == of(f)
    };
    let confidence = match found.confidence {
        Confidence::Fact if found.death.is_some_and(|f| !rivals.iter().all(|(i, _)| alike(*i, f))) => {
            Confidence::Inferred
        }
        as_found => as_found,
    };
    Verdict {
        class: rule.class(),
        cause: rule.cause().into(),
        label: rule.label().into(),
        detail: rule.explain(&case, &found),
        confidence,
        evidence,
        consequences: consequences.map(|(_, d)| d.clone()).collect(),
        first_failure: found.death.and_then(|i| case.deaths.get(i)).cloned(),
        unordered: unordered(&case, found.death, &rivals),
        clocks: if case.deaths.is_empty() { Vec::new() } else { clocks.wrong() },
        advice: rule.advise(&case, &found),
        retry: rule.retry(),
        slurm: slurm.cloned(),
        rule: None,
    }
}

fn unordered(case: &Case<'_>, first: Option<usize>, rivals: &[(usize, Option<i64>)]) -> Option<Unordered> {
    let first = case.deaths.get(first?)?.offset_us;
    let (nearest, _) =
        rivals.iter().min_by_key(|(i, _)| (case.deaths[*i].offset_us - first).saturating_abs())?;
    // One bound for all of them: the widest, and none where one of them has none.
    let within_us = rivals.iter().map(|(_, bound)| *bound).collect::<Option<Vec<i64>>>();
    Some(Unordered {
        within_us: within_us.and_then(|all| all.into_iter().max()),
        deaths: rivals.len(),
        nearest: case.deaths[*nearest].at.event.clone(),
    })
}
