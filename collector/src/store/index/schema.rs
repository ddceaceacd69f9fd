//! Tables of the index.

use rusqlite::Connection;

use super::sums;
use crate::verdict::Class;

/// Classes by their number in the index. Only ever appended to.
pub const CLASSES: [Class; 11] = [
    Class::Ok,
    Class::Oom,
    Class::Timeout,
    Class::AppError,
    Class::Crash,
    Class::Infra,
    Class::Dependency,
    Class::Validation,
    Class::Cancelled,
    Class::Preempted,
    Class::Unknown,
];

/// Number of a class.
pub(super) fn class_number(class: Class) -> i64 {
    CLASSES.iter().position(|c| *c == class).map_or(10, |at| at as i64)
}

/// Class of a number.
pub(super) fn class_of(number: i64) -> Class {
    usize::try_from(number).ok().and_then(|n| CLASSES.get(n)).copied().unwrap_or(Class::Unknown)
}

/// Version of the tables.
pub(super) const VERSION: u32 = 4;

const TABLES: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE word (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
CREATE TABLE run (
    id INTEGER PRIMARY KEY, cluster INTEGER NOT NULL, user INTEGER NOT NULL, run_id TEXT NOT NULL,
    run_key TEXT, aliases TEXT NOT NULL, name TEXT, started INTEGER NOT NULL, last INTEGER NOT NULL,
    members INTEGER NOT NULL, running INTEGER NOT NULL, failed INTEGER NOT NULL, classes TEXT NOT NULL,
    length INTEGER NOT NULL, guard INTEGER NOT NULL, UNIQUE (cluster, user, run_id));
CREATE TABLE member (
    run INTEGER, chunk INTEGER, job_id INTEGER NOT NULL, attempts INTEGER NOT NULL, started INTEGER NOT NULL,
    last INTEGER NOT NULL, first INTEGER NOT NULL, end INTEGER NOT NULL, verdict INTEGER,
    verdict_length INTEGER, extents BLOB NOT NULL, name TEXT, PRIMARY KEY (run, chunk)) WITHOUT ROWID;
CREATE TABLE alias (run_id TEXT, run INTEGER, PRIMARY KEY (run_id, run)) WITHOUT ROWID;
CREATE TABLE job (
    id INTEGER PRIMARY KEY, run INTEGER NOT NULL, chunk INTEGER NOT NULL, attempt INTEGER NOT NULL,
    cluster INTEGER NOT NULL, user INTEGER NOT NULL, job_id INTEGER NOT NULL, array_job_id INTEGER,
    array_task_id INTEGER, name TEXT, account INTEGER NOT NULL, partition INTEGER NOT NULL,
    started INTEGER NOT NULL, last INTEGER NOT NULL, ended INTEGER NOT NULL, class INTEGER, cause INTEGER,
    label INTEGER, confidence INTEGER, fingerprint INTEGER, message TEXT, exit_code INTEGER, signal INTEGER,
    node INTEGER, nodes BLOB NOT NULL, node_count INTEGER NOT NULL, node_us INTEGER NOT NULL,
    peak INTEGER, limit_bytes INTEGER);
CREATE TABLE job_node (
    node INTEGER, ended INTEGER, job INTEGER, class INTEGER, PRIMARY KEY (node, ended, job)) WITHOUT ROWID;
CREATE UNIQUE INDEX job_place ON job (run, chunk, attempt);
";

/// What is made last, because filling a table is faster without. Failures are
/// few and asked for most: they have indexes of their own, of which the first
/// answers most questions about them alone. What a page counts of a user, or
/// looks for under a name, is in the indexes themselves, so that no row has to be
/// fetched for it.
pub(super) const INDEXES: &str = "
CREATE INDEX run_last ON run (last);
CREATE INDEX run_failed ON run (last) WHERE failed > 0;
CREATE INDEX run_running ON run (last) WHERE running > 0;
CREATE INDEX run_run_id ON run (run_id);
CREATE INDEX run_user ON run (user, last);
CREATE INDEX alias_run ON alias (run);
CREATE INDEX job_job_id ON job (job_id);
CREATE INDEX job_array ON job (array_job_id, array_task_id) WHERE array_job_id IS NOT NULL;
CREATE INDEX job_ended ON job (ended, class);
CREATE INDEX job_name ON job (name, ended, class, user);
CREATE INDEX job_user ON job (user, ended, class, node_us, nodes);
CREATE INDEX job_account ON job (account, ended, run);
CREATE INDEX job_partition ON job (partition, ended);
CREATE INDEX failed_ended ON job
    (ended, class, cause, fingerprint, partition, user, account, cluster, node_us, name) WHERE class > 0;
CREATE INDEX failed_class ON job (class, ended) WHERE class > 0;
CREATE INDEX failed_cause ON job (cause, ended) WHERE class > 0;
CREATE INDEX failed_run ON job (run, ended) WHERE class > 0;
CREATE INDEX failed_user ON job (user, ended, class, node_us, name) WHERE class > 0;
CREATE INDEX failed_account ON job (account, ended, class) WHERE class > 0;
CREATE INDEX failed_partition ON job (partition, ended, class) WHERE class > 0;
CREATE INDEX failed_fingerprint ON job (fingerprint, ended) WHERE fingerprint IS NOT NULL;
";

/// Makes everything but the indexes, after what was there is gone; says that
/// the index is not whole, by a number that no filling had before.
pub(super) fn make(db: &Connection) -> rusqlite::Result<()> {
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
    let tables: Vec<String> = db.prepare(sql)?.query_map([], |r| r.get(0))?.collect::<Result<_, _>>()?;
    for table in tables {
        db.execute_batch(&format!("DROP TABLE \"{table}\""))?;
    }
    db.execute_batch(TABLES)?;
    db.execute_batch(&sums::create())?;
    db.execute("INSERT INTO meta VALUES ('building', random() | 1)", [])?;
    db.pragma_update(None, "user_version", VERSION)
}
