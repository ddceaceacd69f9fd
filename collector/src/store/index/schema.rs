//! Tables of the index, and how older files become today's.

use rusqlite::Connection;

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
pub(super) const VERSION: u32 = MIGRATIONS.len() as u32;

/// What makes version n + 1 of version n.
const MIGRATIONS: [&str; 1] = [TABLES];

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
CREATE TABLE job_node (node INTEGER, job INTEGER, PRIMARY KEY (node, job)) WITHOUT ROWID;
CREATE TABLE day (
    day INTEGER, cluster INTEGER, partition INTEGER, class INTEGER, jobs INTEGER NOT NULL,
    node_us INTEGER NOT NULL, PRIMARY KEY (day, cluster, partition, class)) WITHOUT ROWID;
CREATE TABLE day_user (
    user INTEGER, day INTEGER, cluster INTEGER, account INTEGER, partition INTEGER, class INTEGER,
    jobs INTEGER NOT NULL, node_us INTEGER NOT NULL,
    PRIMARY KEY (user, day, cluster, account, partition, class)) WITHOUT ROWID;
CREATE TABLE day_node (
    day INTEGER, cluster INTEGER, node INTEGER, class INTEGER, jobs INTEGER NOT NULL,
    node_us INTEGER NOT NULL, PRIMARY KEY (day, cluster, node, class)) WITHOUT ROWID;
CREATE TABLE day_fingerprint (
    day INTEGER, cluster INTEGER, fingerprint INTEGER, class INTEGER, jobs INTEGER NOT NULL,
    node_us INTEGER NOT NULL, PRIMARY KEY (day, cluster, fingerprint, class)) WITHOUT ROWID;
CREATE UNIQUE INDEX job_place ON job (run, chunk, attempt);
";

/// What a rebuild makes last, because filling a table is faster without.
pub(super) const INDEXES: &str = "
CREATE INDEX IF NOT EXISTS run_last ON run (last);
CREATE INDEX IF NOT EXISTS run_run_id ON run (run_id);
CREATE INDEX IF NOT EXISTS run_user ON run (user, last);
CREATE INDEX IF NOT EXISTS job_job_id ON job (job_id);
CREATE INDEX IF NOT EXISTS job_array ON job (array_job_id, array_task_id) WHERE array_job_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS job_ended ON job (ended, class);
CREATE INDEX IF NOT EXISTS job_failed ON job (class, ended) WHERE class > 0;
CREATE INDEX IF NOT EXISTS job_cause ON job (ended, class, cause, node_us) WHERE class > 0;
CREATE INDEX IF NOT EXISTS job_user ON job (user, ended);
CREATE INDEX IF NOT EXISTS job_account ON job (account, ended);
CREATE INDEX IF NOT EXISTS job_partition ON job (partition, ended);
CREATE INDEX IF NOT EXISTS job_fingerprint ON job (fingerprint, ended) WHERE fingerprint IS NOT NULL;
CREATE INDEX IF NOT EXISTS day_user_day ON day_user (day);
";

/// What a rebuild drops first.
pub(super) const NO_INDEXES: &str = "
DROP INDEX IF EXISTS run_last;
DROP INDEX IF EXISTS run_run_id;
DROP INDEX IF EXISTS run_user;
DROP INDEX IF EXISTS job_job_id;
DROP INDEX IF EXISTS job_array;
DROP INDEX IF EXISTS job_ended;
DROP INDEX IF EXISTS job_failed;
DROP INDEX IF EXISTS job_cause;
DROP INDEX IF EXISTS job_user;
DROP INDEX IF EXISTS job_account;
DROP INDEX IF EXISTS job_partition;
DROP INDEX IF EXISTS job_fingerprint;
DROP INDEX IF EXISTS day_user_day;
";

/// Brings the file to [`VERSION`], inside the caller's transaction; says what
/// it was before.
pub(super) fn migrate(db: &Connection) -> rusqlite::Result<u32> {
    let found: u32 = db.pragma_query_value(None, "user_version", |r| r.get(0))?;
    for sql in MIGRATIONS.iter().skip(found as usize) {
        db.execute_batch(sql)?;
    }
    if found < VERSION {
        db.pragma_update(None, "user_version", VERSION)?;
    }
    Ok(found)
}
