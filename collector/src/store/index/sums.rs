//! What the attempts that ended come to, by the day of their end and by blocks
//! of days: a year is answered from a dozen blocks and the days around them.

use std::collections::HashMap;
use std::ops::Range;

use rusqlite::{Connection, params_from_iter};

use crate::ledger::FastHash;

pub(super) const DAY_US: i64 = 86_400_000_000;

/// Days of a block.
pub(super) const BLOCK: i64 = 32;

/// What a row of sums is about, beside its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Cluster,
    Partition,
    Class,
    Cause,
    Fingerprint,
    User,
    Account,
    Node,
}

impl Column {
    pub(super) fn name(self) -> &'static str {
        match self {
            Column::Cluster => "cluster",
            Column::Partition => "partition",
            Column::Class => "class",
            Column::Cause => "cause",
            Column::Fingerprint => "fingerprint",
            Column::User => "user",
            Column::Account => "account",
            Column::Node => "node",
        }
    }
}

/// A table of sums. Its rows lie in the order of time and then of its columns.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) columns: &'static [Column],
    /// Only of attempts that failed.
    pub(super) failed: bool,
}

/// The small ones first: a question takes the first that knows what it asks.
pub(super) const TABLES: [Table; 4] = {
    use Column::{Account, Cause, Class, Cluster, Fingerprint, Node, Partition, User};
    [
        Table { name: "sum_all", columns: &[Cluster, Partition, Class, Cause], failed: false },
        Table { name: "sum_fingerprint", columns: &[Fingerprint, Cluster, Class, Cause], failed: true },
        Table { name: "sum_node", columns: &[Node, Cluster, Class], failed: false },
        Table {
            name: "sum_user",
            columns: &[User, Account, Cluster, Partition, Class, Cause, Fingerprint],
            failed: false,
        },
    ]
};

/// Columns of the widest table.
const COLUMNS: usize = 7;

impl Table {
    pub(super) fn has(&self, column: Column) -> bool {
        self.columns.contains(&column)
    }

    fn columns(&self) -> String {
        let names: Vec<&str> = self.columns.iter().map(|c| c.name()).collect();
        names.join(", ")
    }
}

/// The tables, as SQL. `days` is the length of the time that a row is about,
/// 1 or [`BLOCK`], and `at` its number in such times since 1970.
pub(super) fn create() -> String {
    let one = |table: &Table| {
        format!(
            "CREATE TABLE {} (days INTEGER, at INTEGER, {}, jobs INTEGER NOT NULL, node_us INTEGER NOT NULL, \
             PRIMARY KEY (days, at, {})) WITHOUT ROWID;\n",
            table.name,
            table.columns.iter().map(|c| format!("{} INTEGER", c.name())).collect::<Vec<_>>().join(", "),
            table.columns()
        )
    };
    TABLES.iter().map(one).collect()
}

/// An attempt that has ended, as far as it is counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted<'a> {
    /// Its end, in microseconds since 1970.
    pub(super) ended: i64,
    pub(super) cluster: i64,
    pub(super) partition: i64,
    pub(super) class: i64,
    pub(super) cause: i64,
    /// 0: it has none.
    pub(super) fingerprint: i64,
    pub(super) user: i64,
    pub(super) account: i64,
    pub(super) nodes: &'a [i64],
    pub(super) node_us: i64,
}

/// Number of a table, days, time, and its columns.
type Key = (usize, i64, i64, [i64; COLUMNS]);

/// What is to be added to the tables.
#[derive(Debug, Default)]
pub(super) struct Sums(HashMap<Key, (i64, i64), FastHash>);

impl Sums {
    /// Adds an attempt, or with -1 takes it out.
    pub(super) fn count(&mut self, job: &Counted<'_>, times: i64) {
        let day = job.ended.div_euclid(DAY_US);
        for (number, table) in TABLES.iter().enumerate() {
            let nodes: &[i64] = if table.has(Column::Node) { job.nodes } else { &[0] };
            if table.failed && job.fingerprint == 0 {
                continue;
            }
            let share = job.node_us / nodes.len().max(1) as i64;
            for node in nodes {
                let mut key = [0; COLUMNS];
                for (place, column) in key.iter_mut().zip(table.columns) {
                    *place = match column {
                        Column::Cluster => job.cluster,
                        Column::Partition => job.partition,
                        Column::Class => job.class,
                        Column::Cause => job.cause,
                        Column::Fingerprint => job.fingerprint,
                        Column::User => job.user,
                        Column::Account => job.account,
                        Column::Node => *node,
                    };
                }
                for days in [1, BLOCK] {
                    let known = self.0.entry((number, days, day.div_euclid(days), key)).or_default();
                    known.0 += times;
                    known.1 += times * share;
                }
            }
        }
    }

    /// Writes what was added, and forgets it.
    pub(super) fn flush(&mut self, db: &Connection) -> rusqlite::Result<()> {
        let statements = TABLES.each_ref().map(|table| {
            let (name, columns, n) = (table.name, table.columns(), table.columns.len());
            let places: Vec<String> = (1..=n + 4).map(|n| format!("?{n}")).collect();
            let add = format!(
                "INSERT INTO {name} (days, at, {columns}, jobs, node_us) VALUES ({}) \
                 ON CONFLICT DO UPDATE SET jobs = jobs + ?{}, node_us = node_us + ?{}",
                places.join(", "),
                n + 3,
                n + 4
            );
            let equal =
                table.columns.iter().zip(3..).map(|(column, n)| format!(" AND {} = ?{n}", column.name()));
            let equal: String = equal.collect();
            (add, format!("DELETE FROM {name} WHERE days = ?1 AND at = ?2{equal} AND jobs <= 0"))
        });
        for ((number, days, at, key), (jobs, node_us)) in self.0.drain().filter(|(_, added)| *added != (0, 0))
        {
            let (add, drop) = &statements[number];
            let place = [days, at].into_iter().chain(key.into_iter().take(TABLES[number].columns.len()));
            db.prepare_cached(add)?.execute(params_from_iter(place.clone().chain([jobs, node_us])))?;
            if jobs < 0 {
                db.prepare_cached(drop)?.execute(params_from_iter(place))?;
            }
        }
        Ok(())
    }
}

/// Days from `first` on and before `end`, as `days` and `at` of rows: as many
/// whole blocks as there are, and the days around them.
pub(super) fn parts(first: i64, end: i64) -> Vec<(i64, Range<i64>)> {
    let blocks = -(-first).div_euclid(BLOCK)..end.div_euclid(BLOCK);
    if blocks.is_empty() {
        return vec![(1, first..end)];
    }
    let around = [first..blocks.start * BLOCK, blocks.end * BLOCK..end];
    let days = around.into_iter().filter(|days| !days.is_empty()).map(|days| (1, days));
    days.chain([(BLOCK, blocks.clone())]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_are_every_day_once(first in -200i64..200, length in 0i64..200) {
            let mut days = Vec::new();
            for (span, at) in parts(first, first + length) {
                days.extend(at.flat_map(|n| n * span..(n + 1) * span));
            }
            days.sort_unstable();
            prop_assert_eq!(days, (first..first + length).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_year_is_a_dozen_blocks_and_the_days_around_them() {
        let parts = parts(20_001, 20_366);
        let rows: i64 = parts.iter().map(|(_, at)| at.end - at.start).sum();
        assert!(rows <= 12 + 2 * BLOCK, "{parts:?}");
    }

    #[test]
    fn no_table_is_wider_than_a_key() {
        assert_eq!(TABLES.iter().map(|t| t.columns.len()).max(), Some(COLUMNS));
    }
}
