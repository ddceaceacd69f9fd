//! Which attempts a question is about, as a term over the columns of the
//! tables.

use inquest_journal::Timestamp;
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

impl Index {
    /// The part of a question that chooses attempts [`Origin::of`] it; `None`
    /// when a name in the filter was never seen, so that nothing can be found.
    pub(super) fn terms(&self, filter: &Filter) -> rusqlite::Result<Option<Terms>> {
        let (mut terms, origin) = (Terms::default(), Origin::of(filter));
        let names = [
            ("job.cluster = ?", &filter.cluster),
            ("job.user = ?", &filter.user),
            ("job.account = ?", &filter.account),
            ("job.partition = ?", &filter.partition),
            ("job.cause = ?", &filter.cause),
            ("job.fingerprint = ? AND job.fingerprint IS NOT NULL", &filter.fingerprint),
            ("jn.node = ?", &filter.node),
        ];
        if !self.names(&mut terms, &names)? {
            return Ok(None);
        }
        if let Some(name) = &filter.name {
            terms.add("job.name = ?", name.clone());
        }
        if let Some(run) = &filter.run_id {
            terms.add("job.run IN (SELECT id FROM run WHERE run_id = ?)", run.clone());
        }
        if let Some(chunk) = filter.chunk {
            terms.add("job.chunk = ?", i64::from(chunk));
        }
        if let Some(visible) = &filter.visible {
            terms.fixed(&self.visible(visible, "job.user", "job.account")?);
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
