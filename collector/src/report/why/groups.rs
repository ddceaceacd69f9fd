//! Failures of a run that are the same failure, and what they have in common.

use std::collections::{BTreeMap, BTreeSet};

use inquest_journal::Timestamp;
use serde::Serialize;

use super::Subject;
use crate::logs::Fingerprint;
use crate::report::failures::Failure;
use crate::report::ids;
use crate::slurm::hostlist;
use crate::verdict::Class;

/// Jobs that failed in the same way.
#[derive(Debug)]
pub struct Group<'a> {
    /// For counting.
    pub class: Class,
    /// For acting.
    pub cause: String,
    /// One word for tables.
    pub label: String,
    /// Who, the earliest failure first.
    pub subjects: Vec<&'a Subject<'a>>,
}

/// What `why --json` says of a group.
#[derive(Debug, Serialize)]
pub struct Row {
    class: Class,
    cause: String,
    fingerprint: Option<Fingerprint>,
    jobs: usize,
    members: String,
    nodes: String,
    message: String,
    first_at: Timestamp,
}

impl<'a> Group<'a> {
    /// The job that failed first in this way.
    pub fn first(&self) -> &'a Subject<'a> {
        self.subjects[0]
    }

    /// Ids of the jobs, folded.
    pub fn members(&self) -> String {
        members(&self.subjects)
    }

    /// Nodes on which it happened, folded.
    pub fn nodes(&self) -> String {
        let nodes: BTreeSet<&str> = self.subjects.iter().filter_map(|s| s.node()).collect();
        hostlist::fold(nodes)
    }

    /// For JSON.
    pub fn row(&self) -> Row {
        let first = self.first();
        let failure = first.failure.as_ref();
        Row {
            class: self.class,
            cause: self.cause.clone(),
            fingerprint: failure.map(Failure::fingerprint),
            jobs: self.subjects.len(),
            members: self.members(),
            nodes: self.nodes(),
            message: failure.map_or_else(String::new, |f| f.message.clone()),
            first_at: first.failed_at(),
        }
    }
}

/// Ids of jobs, folded.
pub fn members(subjects: &[&Subject<'_>]) -> String {
    let id = |s: &&Subject<'_>| {
        (s.member.job_id.0, s.member.array_job_id.map(|a| a.0).zip(s.member.array_task_id))
    };
    ids::fold(subjects.iter().map(id))
}

/// The failures of a run by what failed: the most frequent first, and of those
/// the earliest.
pub fn groups<'a>(subjects: &'a [Subject<'a>]) -> Vec<Group<'a>> {
    let mut groups: BTreeMap<(Class, String, Option<Fingerprint>), Vec<&'a Subject<'a>>> = BTreeMap::new();
    // Nothing is like one alone.
    let several = subjects.iter().filter(|s| s.failed()).nth(1).is_some();
    for subject in subjects.iter().filter(|s| s.failed()) {
        let Some(verdict) = &subject.member.verdict else { continue };
        let failure = subject.failure.as_ref();
        let cause = failure.map_or(&verdict.cause, |f| &f.cause);
        let key = (verdict.class, cause.clone(), failure.filter(|_| several).map(Failure::fingerprint));
        groups.entry(key).or_default().push(subject);
    }
    let mut groups: Vec<Group<'a>> = groups
        .into_iter()
        .map(|((class, cause, _), mut subjects)| {
            subjects.sort_by_key(|s| (s.failed_at(), s.number));
            let label = subjects[0].member.verdict.as_ref().map_or_else(String::new, |v| v.label.clone());
            Group { class, cause, label, subjects }
        })
        .collect();
    groups.sort_by_key(|g| (std::cmp::Reverse(g.subjects.len()), g.first().failed_at()));
    groups
}
