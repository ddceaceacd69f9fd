//! Sums over many jobs: by day from the tables of sums, the edges of a span
//! and what those cannot tell from the attempts.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use inquest_journal::Timestamp;
use rusqlite::types::Value;
use rusqlite::{OptionalExtension, params_from_iter};
use serde::Serialize;

use super::filter::{Filter, Origin, Terms};
use super::put::restore_nodes;
use super::schema::class_of;
use super::sums::{Column, DAY_US, TABLES, Table, parts};
use super::{Index, IndexError, OPEN};
use crate::ledger::FastHash;
use crate::verdict::Class;

const HOUR_US: i64 = 3_600_000_000;

/// Times that are looked up one by one; of more, all rows are read.
const NARROW: i64 = 800;

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

/// What attempts come to, by several groups.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// The groups of each, in the order in which they were asked for.
    pub groups: Vec<Vec<Counts>>,
    /// What the sums could not tell was counted of so many of the newest
    /// attempts only, because there are more.
    pub cut: bool,
}

impl Group {
    /// Its column in the tables of sums; `None` for one that is in all.
    fn column(self) -> Option<Column> {
        match self {
            Group::All | Group::Day | Group::Hour | Group::Name => None,
            Group::Cluster => Some(Column::Cluster),
            Group::User => Some(Column::User),
            Group::Account => Some(Column::Account),
            Group::Partition => Some(Column::Partition),
            Group::Node => Some(Column::Node),
            Group::Cause => Some(Column::Cause),
            Group::Fingerprint => Some(Column::Fingerprint),
        }
    }

    /// Whether it is in the order of time.
    fn is_time(self) -> bool {
        matches!(self, Group::Day | Group::Hour)
    }
}

/// Attempts and their time on nodes, by the number of a group and of a class.
type Numbers = HashMap<(i64, i64), (i64, i64), FastHash>;

/// A group that is being counted.
struct Counting {
    group: Group,
    numbers: Numbers,
}

impl Counting {
    fn add(&mut self, key: i64, class: i64, jobs: i64, node_us: i64) {
        let known = self.numbers.entry((key, class)).or_default();
        known.0 += jobs;
        known.1 += node_us;
    }
}

impl Index {
    /// Counts the attempts that ended, by `group`: most failures first, times
    /// in order; at most `limit` groups.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn count(&self, filter: &Filter, group: Group, limit: usize) -> Result<Vec<Counts>, IndexError> {
        let tally = self.tally(filter, &[(group, limit)], usize::MAX)?;
        Ok(tally.groups.into_iter().next().unwrap_or_default())
    }

    /// Counts the attempts that ended by several groups at once, each with how
    /// many of it are wanted, as [`Index::count`] does. Looks at `rows` attempts
    /// at most where the sums by day do not tell.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn tally(
        &self,
        filter: &Filter,
        groups: &[(Group, usize)],
        rows: usize,
    ) -> Result<Tally, IndexError> {
        self.wrap(|| {
            let (days, around) = self.split(filter)?;
            let mut all: Vec<(Counting, bool)> = Vec::new();
            for (group, _) in groups {
                let mut counting = Counting { group: *group, numbers: Numbers::default() };
                let table = Self::table(filter, *group);
                if let Some(table) = table {
                    self.add_days(&mut counting, table, filter, days.clone())?;
                }
                all.push((counting, table.is_some()));
            }
            // What the days leave, and what they do not know.
            let mut tally = Tally::default();
            for edge in around {
                let some = all.iter_mut().filter(|(_, summed)| *summed).map(|(counting, _)| counting);
                tally.cut |= self.add_jobs(some.collect(), &edge, rows)?;
            }
            let rest = all.iter_mut().filter(|(c, summed)| !summed && c.group != Group::Name);
            tally.cut |= self.add_jobs(rest.map(|(counting, _)| counting).collect(), filter, rows)?;
            for ((counting, _), (_, limit)) in all.into_iter().zip(groups) {
                tally.groups.push(match counting.group {
                    Group::Name => self.by_name(filter, *limit)?,
                    _ => self.name(counting, *limit)?,
                });
            }
            Ok(tally)
        })
    }

    /// The table of sums that knows all that is asked for.
    fn table(filter: &Filter, group: Group) -> Option<&'static Table> {
        let Filter { name, run_id, chunk, open, .. } = filter;
        let not_summed = name.is_some() || run_id.is_some() || chunk.is_some() || *open == Some(true);
        if not_summed || matches!(group, Group::Hour | Group::Name) {
            return None;
        }
        let mut needed: Vec<Column> = group.column().into_iter().collect();
        needed.extend(said(filter).into_iter().filter(|(_, name)| name.is_some()).map(|(column, _)| column));
        if filter.visible.is_some() {
            needed.extend([Column::User, Column::Account]);
        }
        let failed = needed.contains(&Column::Fingerprint);
        TABLES.iter().find(|t| t.failed <= failed && needed.iter().all(|n| t.has(*n)))
    }

    /// The whole days in the filter's time, and what is left around them.
    fn split(&self, filter: &Filter) -> rusqlite::Result<(Range<i64>, Vec<Filter>)> {
        // Within the days that there are, so that their number is bounded.
        let sql = "SELECT (SELECT min(at) FROM sum_all WHERE days = 1), (SELECT max(at) FROM sum_all WHERE days = 1)";
        let span: (Option<i64>, Option<i64>) =
            self.db().prepare_cached(sql)?.query_row([], |r| Ok((r.get(0)?, r.get(1)?)))?;
        let (Some(oldest), Some(newest)) = span else { return Ok((0..0, Vec::new())) };
        let mut around = Vec::new();
        let first = match filter.since {
            Some(since) => -(-since.0).div_euclid(DAY_US),
            None => oldest,
        };
        let end = match filter.until {
            Some(until) if !self.is_after_all(until)? => until.0.div_euclid(DAY_US),
            _ => newest + 1,
        };
        if first >= end {
            return Ok((0..0, vec![filter.clone()]));
        }
        let at = |day: i64| Some(Timestamp(day * DAY_US));
        if first > oldest && filter.since < at(first) {
            around.push(Filter { until: at(first), ..filter.clone() });
        }
        if end <= newest && filter.until > at(end) {
            around.push(Filter { since: at(end), ..filter.clone() });
        }
        Ok((first.max(oldest)..end.min(newest + 1), around))
    }

    /// Nothing has ended at this time or later.
    fn is_after_all(&self, at: Timestamp) -> rusqlite::Result<bool> {
        let sql = "SELECT 1 FROM job WHERE ended >= ?1 AND ended < ?2 LIMIT 1";
        let found = self.db().prepare_cached(sql)?.query_row([at.0, OPEN], |_| Ok(())).optional()?;
        Ok(found.is_none())
    }

    fn add_days(
        &self,
        counting: &mut Counting,
        table: &Table,
        filter: &Filter,
        days: Range<i64>,
    ) -> rusqlite::Result<()> {
        let group = counting.group;
        let parts = if group == Group::Day { vec![(1, days)] } else { parts(days.start, days.end) };
        let said = said(filter);
        let known = said.each_ref().map(|(column, _)| format!("{} = ?", column.name()));
        let names: Vec<(&str, &Option<String>)> =
            known.iter().zip(&said).map(|(term, (_, name))| (term.as_str(), *name)).collect();
        // The rows of one user, node or kind lie together within a day.
        let narrow = said.iter().any(|(column, name)| name.is_some() && table.columns[0] == *column);
        for (length, at) in parts {
            let mut terms = Terms::default();
            terms.add("days = ?", length);
            if narrow && at.end - at.start <= NARROW {
                let numbers: Vec<String> = at.map(|n| n.to_string()).collect();
                terms.fixed(&format!("at IN ({})", numbers.join(", ")));
            } else {
                terms.add("at >= ?", at.start);
                terms.add("at < ?", at.end);
            }
            if !self.names(&mut terms, &names)? {
                return Ok(());
            }
            if let Some(visible) = &filter.visible {
                terms.fixed(&self.visible(visible, "user", "account")?);
            }
            terms.classes("class", filter);
            let key = match group {
                Group::Day => "at",
                other => other.column().map_or("0", Column::name),
            };
            if group == Group::Fingerprint {
                terms.fixed("fingerprint > 0");
            }
            let sql = format!("SELECT {key}, class, jobs, node_us FROM {} WHERE {}", table.name, terms.sql());
            let mut query = self.db().prepare_cached(&sql)?;
            let mut rows = query.query(params_from_iter(&terms.values))?;
            while let Some(row) = rows.next()? {
                let key: i64 = row.get(0)?;
                let key = if group == Group::Day { key * DAY_US } else { key };
                counting.add(key, row.get(1)?, row.get(2)?, row.get(3)?);
            }
        }
        Ok(())
    }

    /// Counts the newest attempts, at most `most`, one by one; says whether
    /// there are more.
    fn add_jobs(&self, mut all: Vec<&mut Counting>, filter: &Filter, most: usize) -> rusqlite::Result<bool> {
        if all.is_empty() {
            return Ok(false);
        }
        let only = filter.node.as_deref().map(|n| self.number(n)).transpose()?.flatten();
        // Columns that an index does not have, only where they are needed.
        let column =
            |name: &'static str, group| if all.iter().any(|c| c.group == group) { name } else { "NULL" };
        let columns = [
            "job.node_us",
            column("job.cluster", Group::Cluster),
            column("job.user", Group::User),
            column("job.account", Group::Account),
            column("job.partition", Group::Partition),
            column("job.cause", Group::Cause),
            column("job.fingerprint", Group::Fingerprint),
            column("job.nodes", Group::Node),
        ];
        let failed = all.iter().all(|c| c.group == Group::Fingerprint);
        let newest = (most < usize::MAX).then_some(most);
        let Some((sql, values)) = self.ended(filter, failed, &columns, newest)? else { return Ok(false) };
        let mut query = self.db().prepare_cached(&sql)?;
        let mut rows = query.query(params_from_iter(&values))?;
        let mut seen = 0;
        while let Some(row) = rows.next()? {
            seen += 1;
            let (ended, class, node_us): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            for counting in &mut all {
                let key = match counting.group {
                    Group::All | Group::Name => Some(0),
                    Group::Day => Some(ended - ended.rem_euclid(DAY_US)),
                    Group::Hour => Some(ended - ended.rem_euclid(HOUR_US)),
                    Group::Cluster => row.get(3)?,
                    Group::User => row.get(4)?,
                    Group::Account => row.get(5)?,
                    Group::Partition => row.get(6)?,
                    Group::Cause => row.get(7)?,
                    Group::Fingerprint => row.get(8)?,
                    Group::Node => {
                        let nodes = restore_nodes(row.get_ref(9)?.as_blob()?);
                        let share = node_us / nodes.len().max(1) as i64;
                        for node in nodes.into_iter().filter(|n| only.is_none_or(|only| only == *n)) {
                            counting.add(node, class, 1, share);
                        }
                        None
                    }
                };
                if let Some(key) = key {
                    counting.add(key, class, 1, node_us);
                }
            }
        }
        Ok(seen >= most)
    }

    /// The question for attempts that have ended, and of them for the end, the
    /// class and these columns: of those that `failed` only, and of so many of
    /// the `newest` only. `None` when there can be none.
    fn ended(
        &self,
        filter: &Filter,
        failed: bool,
        columns: &[&str],
        newest: Option<usize>,
    ) -> rusqlite::Result<Option<(String, Vec<Value>)>> {
        let Origin { tables, ended, class, .. } = Origin::of(filter);
        let mut arms = match newest {
            Some(_) => self.arms(filter)?,
            None => self.terms(filter)?.into_iter().collect(),
        };
        let mut all = Vec::new();
        for terms in &mut arms {
            terms.add(&format!("{ended} < ?"), OPEN);
            if failed {
                terms.fixed(&format!("{class} > 0"));
            }
            let columns = columns.join(", ");
            let sql = terms.sql();
            all.push(format!(
                "SELECT {ended} AS ended, {class} AS class, {columns} FROM {tables} WHERE {sql}"
            ));
        }
        let order = newest.map_or(String::new(), |n| format!(" ORDER BY 1 DESC LIMIT {n}"));
        let values = arms.into_iter().next().map(|arm| arm.values);
        Ok(values.map(|values| (all.join(" UNION ALL ") + &order, values)))
    }

    /// The names of the newest attempts.
    fn by_name(&self, filter: &Filter, limit: usize) -> rusqlite::Result<Vec<Counts>> {
        let columns = ["job.name AS name", "job.node_us AS node_us"];
        let Some((sql, values)) = self.ended(filter, false, &columns, Some(NAMED))? else {
            return Ok(Vec::new());
        };
        let sql =
            format!("SELECT coalesce(name, ''), class, count(*), sum(node_us) FROM ({sql}) GROUP BY 1, 2");
        let mut query = self.db().prepare_cached(&sql)?;
        let mut rows = query.query(params_from_iter(&values))?;
        let mut names: BTreeMap<String, Counts> = BTreeMap::new();
        while let Some(row) = rows.next()? {
            let key: String = row.get(0)?;
            let counts = names.entry(key.clone()).or_insert_with(|| Counts { key, ..Counts::default() });
            let class = class_of(row.get(1)?);
            *counts.jobs.entry(class).or_default() += row.get::<_, i64>(2)?;
            *counts.node_us.entry(class).or_default() += row.get::<_, i64>(3)?;
        }
        Ok(sorted(names.into_values().collect(), limit))
    }

    fn name(&self, counting: Counting, limit: usize) -> rusqlite::Result<Vec<Counts>> {
        let mut all: BTreeMap<i64, Counts> = BTreeMap::new();
        for ((key, class), (jobs, node_us)) in counting.numbers {
            let counts = all.entry(key).or_default();
            *counts.jobs.entry(class_of(class)).or_default() += jobs;
            *counts.node_us.entry(class_of(class)).or_default() += node_us;
        }
        for (key, counts) in &mut all {
            counts.key = match counting.group {
                Group::All => String::new(),
                time if time.is_time() => key.to_string(),
                _ => self.word(*key)?.to_string(),
            };
        }
        let mut all: Vec<Counts> = all.into_values().collect();
        if counting.group.is_time() {
            all.truncate(limit);
            return Ok(all);
        }
        Ok(sorted(all, limit))
    }
}

/// Most failures first.
fn sorted(mut all: Vec<Counts>, limit: usize) -> Vec<Counts> {
    all.sort_by_key(|c| std::cmp::Reverse((c.failed(), c.total())));
    all.truncate(limit);
    all
}

/// Names of a filter that sums can be chosen by.
fn said(filter: &Filter) -> [(Column, &Option<String>); 7] {
    [
        (Column::Cluster, &filter.cluster),
        (Column::User, &filter.user),
        (Column::Account, &filter.account),
        (Column::Partition, &filter.partition),
        (Column::Node, &filter.node),
        (Column::Cause, &filter.cause),
        (Column::Fingerprint, &filter.fingerprint),
    ]
}
