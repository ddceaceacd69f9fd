//! Sums over many jobs: by day from the tables of sums, the edges of a span
//! and what those cannot tell from the attempts.

use std::collections::BTreeMap;

use inquest_journal::Timestamp;
use rusqlite::params_from_iter;
use rusqlite::types::Value;
use serde::Serialize;

use super::query::{Filter, Index, Terms};
use super::schema::{class_number, class_of};
use super::write::restore_nodes;
use super::{IndexError, OPEN};
use crate::verdict::Class;

const HOUR_US: i64 = 3_600_000_000;
const DAY_US: i64 = 24 * HOUR_US;

/// What attempts are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// All in one.
    All,
    /// UTC day of the end, as microseconds since 1970.
    Day,
    /// UTC hour of the end, as microseconds since 1970. Reads every attempt of
    /// the span: for days, not for years.
    Hour,
    /// Cluster.
    Cluster,
    /// User.
    User,
    /// Account.
    Account,
    /// Partition.
    Partition,
    /// Node with an event: a job counts once on each of its nodes.
    Node,
    /// Cause.
    Cause,
    /// Name of the job. Of the newest [`NAMED`] attempts only: names are not
    /// summed up by day.
    Name,
    /// Fingerprint; what did not fail has none and is not counted.
    Fingerprint,
}

/// Attempts whose names are looked at for [`Group::Name`].
pub const NAMED: usize = 20_000;

/// Attempts of one group that have ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Name of the group; empty when the jobs do not say.
    pub key: String,
    /// Attempts by class.
    pub jobs: BTreeMap<Class, i64>,
    /// Their time on nodes by class, in microseconds.
    pub node_us: BTreeMap<Class, i64>,
}

impl Counts {
    /// All attempts.
    pub fn total(&self) -> i64 {
        self.jobs.values().sum()
    }

    /// Attempts of any class but ok.
    pub fn failed(&self) -> i64 {
        self.total() - self.jobs.get(&Class::Ok).copied().unwrap_or(0)
    }
}

/// A table of sums by day, and by what beside day, cluster and class.
const SUMS: [(&str, &[&str]); 4] = [
    ("day", &["partition"]),
    ("day_fingerprint", &["fingerprint"]),
    ("day_node", &["node"]),
    ("day_user", &["user", "account", "partition"]),
];

impl Group {
    /// Its column in the tables of sums; `None` for one that is in all.
    fn column(self) -> Option<&'static str> {
        match self {
            Group::All | Group::Day | Group::Cluster | Group::Hour | Group::Name => None,
            Group::User => Some("user"),
            Group::Account => Some("account"),
            Group::Partition => Some("partition"),
            Group::Node => Some("node"),
            Group::Cause => Some("cause"),
            Group::Fingerprint => Some("fingerprint"),
        }
    }
}

/// Sums by the number of a group and class.
type Sums = BTreeMap<i64, BTreeMap<i64, (i64, i64)>>;

impl Index {
    /// Counts the attempts that ended, by `group`: most failures first, times
    /// in order; at most `limit` groups.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn count(&self, filter: &Filter, group: Group, limit: usize) -> Result<Vec<Counts>, IndexError> {
        self.wrap(|| {
            if group == Group::Name {
                return self.by_name(filter, limit);
            }
            let mut sums = Sums::new();
            match self.table(filter, group) {
                Some(table) => {
                    let since = filter.since.map_or(i64::MIN, |t| t.0);
                    let until = filter.until.map_or(i64::MAX, |t| t.0);
                    let first = -(-i128::from(since)).div_euclid(i128::from(DAY_US));
                    let end = i128::from(until).div_euclid(i128::from(DAY_US));
                    let (first, end) = (first as i64, end as i64);
                    if first < end {
                        self.add_days(&mut sums, table, filter, group, first, end)?;
                        let edge = |since: i64, until: i64| Filter {
                            since: Some(Timestamp(since)),
                            until: Some(Timestamp(until)),
                            ..filter.clone()
                        };
                        if filter.since.is_some() && since < first * DAY_US {
                            self.add_jobs(&mut sums, &edge(since, first * DAY_US), group)?;
                        }
                        if filter.until.is_some() && end * DAY_US < until {
                            self.add_jobs(&mut sums, &edge(end * DAY_US, until), group)?;
                        }
                    } else {
                        self.add_jobs(&mut sums, filter, group)?;
                    }
                }
                None => self.add_jobs(&mut sums, filter, group)?,
            }
            self.name(sums, group, limit)
        })
    }

    /// The table of sums that knows all that is asked for.
    fn table(&self, filter: &Filter, group: Group) -> Option<&'static str> {
        let Filter { name, run_id, chunk, cause, open, .. } = filter;
        if name.is_some()
            || run_id.is_some()
            || chunk.is_some()
            || cause.is_some()
            || *open == Some(true)
            || group == Group::Hour
        {
            return None;
        }
        let mut needed: Vec<&str> = group.column().into_iter().collect();
        let filters = [
            ("user", &filter.user),
            ("account", &filter.account),
            ("partition", &filter.partition),
            ("node", &filter.node),
            ("fingerprint", &filter.fingerprint),
        ];
        needed.extend(filters.iter().filter(|(_, value)| value.is_some()).map(|(column, _)| *column));
        if filter.visible.is_some() {
            needed.extend(["user", "account"]);
        }
        SUMS.iter().find(|(_, has)| needed.iter().all(|n| has.contains(n))).map(|(table, _)| *table)
    }

    fn add_days(
        &self,
        sums: &mut Sums,
        table: &str,
        filter: &Filter,
        group: Group,
        first: i64,
        end: i64,
    ) -> rusqlite::Result<()> {
        let mut terms = Terms::default();
        let names = [
            ("cluster = ?", &filter.cluster),
            ("user = ?", &filter.user),
            ("account = ?", &filter.account),
            ("partition = ?", &filter.partition),
            ("node = ?", &filter.node),
            ("fingerprint = ?", &filter.fingerprint),
        ];
        for (term, name) in names {
            let Some(name) = name else { continue };
            let Some(id) = self.number(name)? else { return Ok(()) };
            terms.add(term, id);
        }
        if let Some(visible) = &filter.visible {
            terms.fixed(&self.visible(visible, "user", "account")?);
        }
        terms.add("day >= ?", first);
        terms.add("day < ?", end);
        if !filter.classes.is_empty() {
            let numbers: Vec<String> = filter.classes.iter().map(|c| class_number(*c).to_string()).collect();
            terms.fixed(&format!("class IN ({})", numbers.join(", ")));
        }
        if filter.failed {
            terms.fixed("class > 0");
        }
        let key = match group {
            Group::All | Group::Hour => "0".to_owned(),
            Group::Day => format!("day * {DAY_US}"),
            Group::Cluster => "cluster".to_owned(),
            other => other.column().unwrap_or("0").to_owned(),
        };
        let sql = format!(
            "SELECT {key}, class, sum(jobs), sum(node_us) FROM {table} WHERE {} GROUP BY 1, 2",
            terms.sql()
        );
        self.add(sums, &sql, &terms.values)
    }

    fn add_jobs(&self, sums: &mut Sums, filter: &Filter, group: Group) -> rusqlite::Result<()> {
        let Some(mut terms) = self.terms(filter)? else { return Ok(()) };
        terms.add("ended < ?", OPEN);
        let key = match group {
            Group::All => "0".to_owned(),
            Group::Day => format!("ended - ended % {DAY_US}"),
            Group::Hour => format!("ended - ended % {HOUR_US}"),
            Group::Cluster => "cluster".to_owned(),
            Group::Node => return self.add_nodes(sums, filter, &terms),
            other => other.column().unwrap_or("0").to_owned(),
        };
        if group == Group::Fingerprint {
            terms.fixed("fingerprint IS NOT NULL");
        }
        let sql = format!(
            "SELECT {key}, class, count(*), sum(node_us) FROM job WHERE {} GROUP BY 1, 2",
            terms.sql()
        );
        self.add(sums, &sql, &terms.values)
    }

    /// The names of the newest attempts.
    fn by_name(&self, filter: &Filter, limit: usize) -> rusqlite::Result<Vec<Counts>> {
        let Some(mut terms) = self.terms(filter)? else { return Ok(Vec::new()) };
        terms.add("ended < ?", OPEN);
        let sql = format!(
            "SELECT coalesce(name, ''), class, count(*), sum(node_us) FROM (SELECT name, class, node_us FROM job \
             WHERE {} ORDER BY ended DESC LIMIT {NAMED}) GROUP BY 1, 2",
            terms.sql()
        );
        let mut query = self.db().prepare_cached(&sql)?;
        let mut rows = query.query(params_from_iter(&terms.values))?;
        let mut names: BTreeMap<String, Counts> = BTreeMap::new();
        while let Some(row) = rows.next()? {
            let key: String = row.get(0)?;
            let counts = names.entry(key.clone()).or_insert_with(|| Counts { key, ..Counts::default() });
            let class = class_of(row.get(1)?);
            *counts.jobs.entry(class).or_default() += row.get::<_, i64>(2)?;
            *counts.node_us.entry(class).or_default() += row.get::<_, i64>(3)?;
        }
        let mut all: Vec<Counts> = names.into_values().collect();
        all.sort_by_key(|c| std::cmp::Reverse((c.failed(), c.total())));
        all.truncate(limit);
        Ok(all)
    }

    fn add(&self, sums: &mut Sums, sql: &str, values: &[Value]) -> rusqlite::Result<()> {
        let mut query = self.db().prepare_cached(sql)?;
        let mut rows = query.query(params_from_iter(values))?;
        while let Some(row) = rows.next()? {
            let known = sums.entry(row.get(0)?).or_default().entry(row.get(1)?).or_default();
            known.0 += row.get::<_, i64>(2)?;
            known.1 += row.get::<_, i64>(3)?;
        }
        Ok(())
    }

    /// By node, from the nodes in the row of each attempt.
    fn add_nodes(&self, sums: &mut Sums, filter: &Filter, terms: &Terms) -> rusqlite::Result<()> {
        let only = filter.node.as_deref().map(|n| self.number(n)).transpose()?.flatten();
        let sql = format!("SELECT nodes, class, node_us FROM job WHERE {}", terms.sql());
        let mut query = self.db().prepare_cached(&sql)?;
        let mut rows = query.query(params_from_iter(&terms.values))?;
        while let Some(row) = rows.next()? {
            let nodes = restore_nodes(row.get_ref(0)?.as_blob()?);
            let (class, node_us): (i64, i64) = (row.get(1)?, row.get(2)?);
            let share = node_us / nodes.len().max(1) as i64;
            for node in nodes.into_iter().filter(|n| only.is_none_or(|only| only == *n)) {
                let known = sums.entry(node).or_default().entry(class).or_default();
                known.0 += 1;
                known.1 += share;
            }
        }
        Ok(())
    }

    fn name(&self, sums: Sums, group: Group, limit: usize) -> rusqlite::Result<Vec<Counts>> {
        let mut all = Vec::with_capacity(sums.len());
        for (key, classes) in sums {
            let key = match group {
                Group::All => String::new(),
                Group::Day | Group::Hour => key.to_string(),
                _ => self.word(key)?.to_string(),
            };
            let jobs = classes.iter().map(|(class, (jobs, _))| (class_of(*class), *jobs)).collect();
            let node_us = classes.iter().map(|(class, (_, us))| (class_of(*class), *us)).collect();
            all.push(Counts { key, jobs, node_us });
        }
        if !matches!(group, Group::Day | Group::Hour) {
            all.sort_by_key(|c| std::cmp::Reverse((c.failed(), c.total())));
        }
        all.truncate(limit);
        Ok(all)
    }
}
