//! Which attempts a question is about, as a term over the columns of the
//! tables.

use std::collections::BTreeSet;

use inquest_journal::Timestamp;
use rusqlite::params_from_iter;
use rusqlite::types::Value;

use super::schema::class_number;
use super::{Index, OPEN};
use crate::verdict::Class;

/// Which attempts a question is about; without a field, all. Names are exact.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// That ended at or after this time, or run.
    pub since: Option<Timestamp>,
    /// That ended before this time.
    pub until: Option<Timestamp>,
    /// Cluster.
    pub cluster: Option<String>,
    /// User.
    pub user: Option<String>,
    /// Account.
    pub account: Option<String>,
    /// Partition.
    pub partition: Option<String>,
    /// That had an event on this node.
    pub node: Option<String>,
    /// Name of the job.
    pub name: Option<String>,
    /// Run.
    pub run_id: Option<String>,
    /// One of these classes; empty: any.
    pub classes: Vec<Class>,
    /// Cause.
    pub cause: Option<String>,
    /// Fingerprint.
    pub fingerprint: Option<String>,
    /// That failed: of any class but ok.
    pub failed: bool,
    /// That run (`true`), or have ended (`false`).
    pub open: Option<bool>,
    /// Number in its run; only together with a run.
    pub chunk: Option<u32>,
    /// Only what somebody may see.
    pub visible: Option<Visible>,
    /// For the next page: what comes after this entry of an earlier answer,
    /// by its end and its [`JobEntry::id`](super::JobEntry::id).
    pub before: Option<(Option<Timestamp>, i64)>,
}

/// Whose attempts somebody may see: their own, and those of accounts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Visible {
    /// User.
    pub user: String,
    /// Accounts that the user coordinates.
    pub accounts: Vec<String>,
}

/// Accounts of a coordinator that are asked for one by one.
const ARMS: usize = 50;

/// The term and its values of a question.
#[derive(Clone, Debug, Default)]
pub(super) struct Terms {
    terms: Vec<String>,
    pub(super) values: Vec<Value>,
}

impl Terms {
    pub(super) fn add(&mut self, term: &str, value: impl Into<Value>) {
        self.values.push(value.into());
        self.terms.push(term.replace('?', &format!("?{}", self.values.len())));
    }

    pub(super) fn add_two(&mut self, term: &str, first: i64, second: i64) {
        let n = self.values.len();
        self.values.extend([Value::from(first), second.into()]);
        let term = term.replacen('?', &format!("\u{1}{}", n + 1), 1);
        self.terms.push(term.replacen('?', &format!("?{}", n + 2), 1).replace('\u{1}', "?"));
    }

    pub(super) fn fixed(&mut self, term: &str) {
        self.terms.push(term.to_owned());
    }

    /// From `since` on, and before `until`.
    pub(super) fn times(&mut self, column: &str, since: Option<Timestamp>, until: Option<Timestamp>) {
        for (relation, at) in [(">=", since), ("<", until)] {
            if let Some(at) = at {
                self.add(&format!("{column} {relation} ?"), at.0);
            }
        }
    }

    /// Of some classes, or that failed at all.
    pub(super) fn classes(&mut self, column: &str, filter: &Filter) {
        if !filter.classes.is_empty() {
            let numbers: Vec<String> = filter.classes.iter().map(|c| class_number(*c).to_string()).collect();
            self.fixed(&format!("{column} IN ({})", numbers.join(", ")));
        }
        // Said even where it follows, because indexes of failures have this condition.
        if filter.failed || !filter.classes.is_empty() && !filter.classes.contains(&Class::Ok) {
            self.fixed(&format!("{column} > 0"));
        }
    }

    pub(super) fn sql(&self) -> String {
        if self.terms.is_empty() { "1".into() } else { self.terms.join(" AND ") }
    }
}

/// The table that attempts are chosen from, and what its columns are called.
/// Only of a node they are found by another one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    pub(super) tables: &'static str,
    pub(super) ended: &'static str,
    pub(super) class: &'static str,
    pub(super) id: &'static str,
}

impl Origin {
    pub(super) fn of(filter: &Filter) -> Origin {
        match filter.node {
            // The order of the tables is that of the words CROSS JOIN.
            Some(_) => Origin {
                tables: "job_node jn CROSS JOIN job ON job.id = jn.job",
                ended: "jn.ended",
                class: "jn.class",
                id: "jn.job",
            },
            None => Origin { tables: "job", ended: "job.ended", class: "job.class", id: "job.id" },
        }
    }
}

impl Filter {
    /// Whether a run, a name or a node leads to the attempts: those of one are
    /// few beside those of a user, an account or a time.
    fn is_led(&self) -> bool {
        self.run_id.is_some() || self.name.is_some() || self.node.is_some()
    }
}

impl Index {
    /// The part of a question that chooses attempts [`Origin::of`] it; `None`
    /// when a name in the filter was never seen, so that nothing can be found.
    /// What the viewer may see is in it, too, unless [`Index::arms`] say it.
    pub(super) fn terms(&self, filter: &Filter) -> rusqlite::Result<Option<Terms>> {
        let (mut terms, origin) = (Terms::default(), Origin::of(filter));
        // A sign before a column keeps SQLite, which takes one name for as rare
        // as another, from going through all that a busy user ever ran.
        let plain = if filter.is_led() { "+" } else { "" };
        // Of a kind of failure, most are often of others than those whose own may be seen.
        let kind = if filter.visible.is_some() { "+" } else { plain };
        let names = [
            (format!("{plain}job.cluster = ?"), &filter.cluster),
            (format!("{plain}job.user = ?"), &filter.user),
            (format!("{plain}job.account = ?"), &filter.account),
            (format!("{plain}job.partition = ?"), &filter.partition),
            (format!("{plain}job.cause = ?"), &filter.cause),
            (format!("{kind}job.fingerprint = ? AND {kind}job.fingerprint IS NOT NULL"), &filter.fingerprint),
            ("jn.node = ?".to_owned(), &filter.node),
        ];
        let names = names.each_ref().map(|(term, name)| (term.as_str(), *name));
        if !self.names(&mut terms, &names)? {
            return Ok(None);
        }
        if let Some(name) = &filter.name {
            let plain = if filter.run_id.is_some() { "+" } else { "" };
            terms.add(&format!("{plain}job.name = ?"), name.clone());
        }
        if filter.run_id.is_some() {
            let runs: Vec<String> = self.run_numbers(filter)?.iter().map(i64::to_string).collect();
            if runs.is_empty() {
                return Ok(None);
            }
            terms.fixed(&format!("job.run IN ({})", runs.join(", ")));
        }
        if let Some(chunk) = filter.chunk {
            terms.add("job.chunk = ?", i64::from(chunk));
        }
        if let Some(visible) = &filter.visible {
            let columns = [format!("{plain}job.user"), format!("{plain}job.account")];
            terms.fixed(&self.visible(visible, &columns[0], &columns[1])?);
        }
        terms.times(origin.ended, filter.since, filter.until);
        match filter.open {
            Some(true) => terms.add(&format!("{} = ?", origin.ended), OPEN),
            Some(false) => terms.add(&format!("{} < ?", origin.ended), OPEN),
            None => {}
        }
        terms.classes(origin.class, filter);
        Ok(Some(terms))
    }

    /// Numbers of the runs of the filter's id that are of its cluster and user.
    fn run_numbers(&self, filter: &Filter) -> rusqlite::Result<Vec<i64>> {
        let mut terms = Terms::default();
        if !self.names(&mut terms, &[("cluster = ?", &filter.cluster), ("user = ?", &filter.user)])? {
            return Ok(Vec::new());
        }
        terms.add("run_id = ?", filter.run_id.clone());
        let sql = format!("SELECT id FROM run WHERE {}", terms.sql());
        self.db().prepare_cached(&sql)?.query_map(params_from_iter(&terms.values), |r| r.get(0))?.collect()
    }

    /// Questions that together are the one of the filter and have no attempt
    /// in common. A coordinator's is one for them and one for each account, so
    /// that the newest of each come from an index in their order, and not all
    /// of them have to be sorted.
    pub(super) fn arms(&self, filter: &Filter) -> rusqlite::Result<Vec<Terms>> {
        let visible = filter.visible.as_ref().filter(|v| (1..=ARMS).contains(&v.accounts.len()));
        let Some(visible) = visible.filter(|_| !filter.is_led()) else {
            return Ok(self.terms(filter)?.into_iter().collect());
        };
        let Some(terms) = self.terms(&Filter { visible: None, ..filter.clone() })? else {
            return Ok(Vec::new());
        };
        let user = self.number(&visible.user)?;
        let mut conditions: Vec<String> = user.map(|id| format!("job.user = {id}")).into_iter().collect();
        let accounts: BTreeSet<&String> = visible.accounts.iter().filter(|a| !a.is_empty()).collect();
        for account in accounts {
            let Some(id) = self.number(account)? else { continue };
            conditions.push(match user {
                Some(user) => format!("job.account = {id} AND +job.user <> {user}"),
                None => format!("job.account = {id}"),
            });
        }
        let arm = |condition: String| {
            let mut terms = terms.clone();
            terms.fixed(&condition);
            terms
        };
        Ok(conditions.into_iter().map(arm).collect())
    }

    /// Adds what is said of names; `false` when one of them was never seen.
    pub(super) fn names(
        &self,
        terms: &mut Terms,
        names: &[(&str, &Option<String>)],
    ) -> rusqlite::Result<bool> {
        for (term, name) in names {
            let Some(name) = name else { continue };
            let Some(id) = self.number(name)? else { return Ok(false) };
            terms.add(term, id);
        }
        Ok(true)
    }

    /// The term for what somebody may see, over the columns of user and
    /// account, with numbers in it and no text; `0` when nothing.
    pub(super) fn visible(&self, visible: &Visible, user: &str, account: &str) -> rusqlite::Result<String> {
        let mut terms = Vec::new();
        if let Some(id) = self.number(&visible.user)? {
            terms.push(format!("{user} = {id}"));
        }
        let accounts = visible.accounts.iter().filter(|a| !a.is_empty()).map(|a| self.number(a));
        let accounts: Vec<Option<i64>> = accounts.collect::<Result<_, _>>()?;
        let accounts: Vec<String> = accounts.into_iter().flatten().map(|id| id.to_string()).collect();
        if !accounts.is_empty() {
            terms.push(format!("{account} IN ({})", accounts.join(", ")));
        }
        Ok(if terms.is_empty() { "0".into() } else { format!("({})", terms.join(" OR ")) })
    }
}
