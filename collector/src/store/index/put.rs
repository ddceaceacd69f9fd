//! What one transaction of the writer puts into the tables.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use super::OPEN;
use super::entry::Entry;
use super::scan::{Attempts, Member, RunScan, guard, restore_extents};
use super::schema::{class_number, class_of};
use super::sums::{Counted, Sums};
use crate::ledger::RunName;
use crate::store::{EventsFile, ReadError, run_dir};
use crate::verdict::Class;

/// What a transaction gathers.
#[derive(Debug, Default)]
pub(super) struct Memory {
    words: HashMap<String, i64>,
    sums: Sums,
}

#[derive(Debug)]
pub(super) enum Trouble {
    Read(ReadError),
    Sql(rusqlite::Error),
}

impl From<ReadError> for Trouble {
    fn from(e: ReadError) -> Trouble {
        Trouble::Read(e)
    }
}

impl From<rusqlite::Error> for Trouble {
    fn from(e: rusqlite::Error) -> Trouble {
        Trouble::Sql(e)
    }
}

/// One transaction.
pub(super) struct Put<'a> {
    db: &'a Connection,
    memory: &'a mut Memory,
}

/// A run as the index has it.
struct Known {
    id: i64,
    length: u64,
    guard: u64,
}

impl<'a> Put<'a> {
    pub(super) fn new(db: &'a Connection, memory: &'a mut Memory) -> Put<'a> {
        Put { db, memory }
    }

    pub(super) fn update(&mut self, store: &Path, name: &RunName, to: Option<u64>) -> Result<u64, Trouble> {
        let file = match EventsFile::open(&store.join(run_dir(&name.0, &name.1, &name.2))) {
            Ok(file) => file,
            Err(ReadError::NotFound(_)) => {
                self.delete(name)?;
                return Ok(0);
            }
            Err(e) => return Err(e.into()),
        };
        let to = to.unwrap_or(u64::MAX).min(file.len());
        let mut known = self.known(name)?;
        if let Some(run) = &known {
            if run.length > file.len() || guard(&file, run.length)? != run.guard {
                // It was cut back, or made anew.
                self.delete(name)?;
                known = None;
            } else if run.length >= to {
                return Ok(0);
            }
        }
        let mut scan = RunScan { at: known.as_ref().map_or(0, |r| r.length), ..RunScan::default() };
        let id = known.as_ref().map(|r| r.id);
        scan.read(&file, to, &mut |chunk| match id {
            Some(run) => self.member(run, chunk).map_err(Trouble::Sql),
            None => Ok(None),
        })?;
        Ok(self.apply(name, id, scan)?)
    }

    fn known(&mut self, name: &RunName) -> rusqlite::Result<Option<Known>> {
        let (cluster, user) = (self.word(&name.0)?, self.word(&name.1)?);
        let sql = "SELECT id, length, guard FROM run WHERE cluster = ?1 AND user = ?2 AND run_id = ?3";
        let read = |r: &rusqlite::Row<'_>| {
            let [length, guard] = [r.get::<_, i64>(1)?, r.get(2)?].map(i64::cast_unsigned);
            Ok(Known { id: r.get(0)?, length, guard })
        };
        self.db.prepare_cached(sql)?.query_row(params![cluster, user, name.2], read).optional()
    }

    /// How far a run is in the index.
    pub(super) fn length(&mut self, name: &RunName) -> rusqlite::Result<Option<u64>> {
        Ok(self.known(name)?.map(|run| run.length))
    }

    fn member(&self, run: i64, chunk: u32) -> rusqlite::Result<Option<Member>> {
        let sql = "SELECT job_id, attempts, started, last, first, end, verdict, verdict_length, extents, name \
                   FROM member WHERE run = ?1 AND chunk = ?2";
        let read = |r: &rusqlite::Row<'_>| {
            let verdict = r.get::<_, Option<i64>>(6)?.map(i64::cast_unsigned).zip(r.get(7)?);
            Ok(Member {
                job_id: r.get(0)?,
                attempts: r.get(1)?,
                started: r.get(2)?,
                last: r.get(3)?,
                first: r.get::<_, i64>(4)?.cast_unsigned(),
                end: r.get::<_, i64>(5)?.cast_unsigned(),
                verdict,
                extents: restore_extents(r.get_ref(8)?.as_blob()?),
                name: r.get(9)?,
                ..Member::default()
            })
        };
        self.db.prepare_cached(sql)?.query_row(params![run, chunk], read).optional()
    }

    /// Writes what was read of a run; says how many attempts that were.
    pub(super) fn apply(&mut self, name: &RunName, id: Option<i64>, scan: RunScan) -> rusqlite::Result<u64> {
        let (cluster, user) = (self.word(&name.0)?, self.word(&name.1)?);
        let first = scan.members.values().min_by_key(|m| m.first);
        let (started, last) = first.map_or((0, 0), |m| (m.started, m.last));
        let id = match id {
            Some(id) => id,
            None => {
                let sql = "INSERT INTO run (cluster, user, run_id, aliases, started, last, members, running, failed, \
                           classes, length, guard) VALUES (?1, ?2, ?3, '[]', ?4, ?5, 0, 0, 0, '{}', 0, 0)";
                self.db.prepare_cached(sql)?.execute(params![cluster, user, name.2, started, last])?;
                self.db.last_insert_rowid()
            }
        };
        let sql = "SELECT members, running, classes FROM run WHERE id = ?1";
        let (mut count, mut running, classes): (i64, i64, String) =
            self.db.prepare_cached(sql)?.query_row([id], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
        let mut classes: BTreeMap<Class, i64> = serde_json::from_str(&classes).unwrap_or_default();
        let (mut jobs, mut named) = (0, None::<(u64, String)>);
        for (chunk, attempts) in &scan.entries {
            let Some((member, newest)) = scan.members.get(chunk).zip(attempts.entries.last()) else {
                continue;
            };
            let sql = "SELECT class FROM job WHERE run = ?1 AND chunk = ?2 ORDER BY attempt DESC LIMIT 1";
            let before: Option<Option<i64>> =
                self.db.prepare_cached(sql)?.query_row(params![id, chunk], |r| r.get(0)).optional()?;
            for entry in &attempts.entries {
                self.job(&Place { run: id, chunk: *chunk, cluster, user, member, attempts }, entry)?;
                jobs += 1;
            }
            match before {
                None => count += 1,
                Some(None) => running -= 1,
                Some(Some(class)) => *classes.entry(class_of(class)).or_default() -= 1,
            }
            match &newest.end {
                None => running += 1,
                Some(end) => *classes.entry(end.class).or_default() += 1,
            }
            if let Some(name) = &newest.name
                && named.as_ref().is_none_or(|(first, _)| member.first < *first)
            {
                named = Some((member.first, name.clone()));
            }
        }
        classes.retain(|_, n| *n > 0);
        let failed: i64 = classes.iter().filter(|(class, _)| **class != Class::Ok).map(|(_, n)| n).sum();
        for (chunk, m) in &scan.members {
            let sql =
                "INSERT OR REPLACE INTO member VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
            self.db.prepare_cached(sql)?.execute(params![
                id,
                chunk,
                m.job_id,
                m.attempts,
                m.started,
                m.last,
                m.first.cast_signed(),
                m.end.cast_signed(),
                m.verdict.map(|(at, _)| at.cast_signed()),
                m.verdict.map(|(_, length)| length),
                m.save_extents(),
                m.name
            ])?;
        }
        if !scan.aliases.is_empty() {
            let sql = "SELECT aliases FROM run WHERE id = ?1";
            let known: String = self.db.prepare_cached(sql)?.query_row([id], |r| r.get(0))?;
            let mut known: Vec<String> = serde_json::from_str(&known).unwrap_or_default();
            for alias in &scan.aliases {
                self.db
                    .prepare_cached("INSERT OR IGNORE INTO alias VALUES (?1, ?2)")?
                    .execute(params![alias, id])?;
                known.push(alias.clone());
            }
            let text = serde_json::to_string(&known).unwrap_or_default();
            self.db
                .prepare_cached("UPDATE run SET aliases = ?2 WHERE id = ?1")?
                .execute(params![id, text])?;
        }
        let started = scan.members.values().map(|m| m.started).min().unwrap_or(started);
        let last = scan.members.values().map(|m| m.last).max().unwrap_or(last);
        let sql = "UPDATE run SET run_key = coalesce(run_key, ?2), name = coalesce(name, ?3), \
                   started = min(started, ?4), last = max(last, ?5), members = ?6, running = ?7, failed = ?8, \
                   classes = ?9, length = ?10, guard = ?11 WHERE id = ?1";
        self.db.prepare_cached(sql)?.execute(params![
            id,
            scan.key.as_ref().and_then(|k| serde_json::to_string(k).ok()),
            named.map(|(_, name)| name),
            started,
            last,
            count,
            running,
            failed,
            serde_json::to_string(&classes).unwrap_or_default(),
            scan.at.cast_signed(),
            scan.guard.cast_signed()
        ])?;
        Ok(jobs)
    }

    fn job(&mut self, at: &Place<'_>, entry: &Entry) -> rusqlite::Result<()> {
        let old = self.stored(at.run, at.chunk, entry.attempt)?;
        let account = self.word(entry.account.as_deref().unwrap_or(""))?;
        let partition = self.word(entry.partition.as_deref().unwrap_or(""))?;
        let node = entry.node.as_deref().map(|n| self.word(n)).transpose()?;
        let nodes: Vec<i64> = entry.nodes.iter().map(|n| self.word(n)).collect::<Result<_, _>>()?;
        let end = entry.end.as_ref();
        let fingerprint = end.and_then(|e| e.fingerprint.as_deref()).map(|f| self.word(f)).transpose()?;
        let cause = end.map(|e| self.word(&e.cause)).transpose()?;
        let label = end.map(|e| self.word(&e.label)).transpose()?;
        let sql = "INSERT OR REPLACE INTO job VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, \
                   ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29)";
        self.db.prepare_cached(sql)?.execute(params![
            old.as_ref().map(|o| o.id),
            at.run,
            at.chunk,
            entry.attempt,
            at.cluster,
            at.user,
            at.member.job_id,
            at.attempts.array_job_id,
            at.attempts.array_task_id,
            entry.name,
            account,
            partition,
            entry.started.0,
            entry.last.0,
            end.map_or(OPEN, |e| e.ended.0),
            end.map(|e| class_number(e.class)),
            cause,
            label,
            end.map(|e| e.confidence as i64),
            fingerprint,
            end.and_then(|e| e.message.as_deref()),
            entry.exit_code,
            entry.signal,
            node,
            save_nodes(&nodes),
            entry.node_count,
            entry.node_us,
            entry.peak_bytes.map(u64::cast_signed),
            entry.limit_bytes.map(u64::cast_signed)
        ])?;
        let id = self.db.last_insert_rowid();
        if let Some(old) = &old {
            self.count(old, -1);
        }
        let new = Stored {
            id,
            cluster: at.cluster,
            user: at.user,
            account,
            partition,
            ended: end.map_or(OPEN, |e| e.ended.0),
            class: end.map(|e| class_number(e.class)),
            cause,
            fingerprint,
            node_us: entry.node_us,
            nodes,
        };
        self.put_nodes(old.as_ref(), &new)?;
        self.count(&new, 1);
        Ok(())
    }

    fn stored(&self, run: i64, chunk: u32, attempt: u32) -> rusqlite::Result<Option<Stored>> {
        let sql = format!("{STORED} run = ?1 AND chunk = ?2 AND attempt = ?3");
        self.db.prepare_cached(&sql)?.query_row(params![run, chunk, attempt], Stored::read).optional()
    }

    /// Adds an attempt that has ended to the sums, or takes it out.
    fn count(&mut self, job: &Stored, times: i64) {
        let Some(class) = job.class else { return };
        let counted = Counted {
            ended: job.ended,
            cluster: job.cluster,
            partition: job.partition,
            class,
            cause: job.cause.unwrap_or(0),
            fingerprint: job.fingerprint.unwrap_or(0),
            user: job.user,
            account: job.account,
            nodes: &job.nodes,
            node_us: job.node_us,
        };
        self.memory.sums.count(&counted, times);
    }

    /// Which nodes an attempt was on, and is on.
    fn put_nodes(&self, old: Option<&Stored>, new: &Stored) -> rusqlite::Result<()> {
        if let Some(old) = old {
            if (old.ended, old.class, &old.nodes) == (new.ended, new.class, &new.nodes) {
                return Ok(());
            }
            self.drop_nodes(old)?;
        }
        let mut put = self.db.prepare_cached("INSERT OR REPLACE INTO job_node VALUES (?1, ?2, ?3, ?4)")?;
        for node in &new.nodes {
            put.execute(params![*node, new.ended, new.id, new.class])?;
        }
        Ok(())
    }

    fn drop_nodes(&self, job: &Stored) -> rusqlite::Result<()> {
        let sql = "DELETE FROM job_node WHERE node = ?1 AND ended = ?2 AND job = ?3";
        let mut drop = self.db.prepare_cached(sql)?;
        for node in &job.nodes {
            drop.execute([*node, job.ended, job.id])?;
        }
        Ok(())
    }

    pub(super) fn delete(&mut self, name: &RunName) -> rusqlite::Result<()> {
        let Some(run) = self.known(name)? else { return Ok(()) };
        let sql = format!("{STORED} run = ?1");
        let jobs: Vec<Stored> =
            self.db.prepare_cached(&sql)?.query_map([run.id], Stored::read)?.collect::<Result<_, _>>()?;
        for job in &jobs {
            self.count(job, -1);
            self.drop_nodes(job)?;
        }
        for sql in [
            "DELETE FROM job WHERE run = ?1",
            "DELETE FROM member WHERE run = ?1",
            // The number may be given to the next run.
            "DELETE FROM alias WHERE run = ?1",
            "DELETE FROM run WHERE id = ?1",
        ] {
            self.db.prepare_cached(sql)?.execute([run.id])?;
        }
        Ok(())
    }

    /// Number of a name.
    fn word(&mut self, text: &str) -> rusqlite::Result<i64> {
        if let Some(id) = self.memory.words.get(text) {
            return Ok(*id);
        }
        let sql = "SELECT id FROM word WHERE text = ?1";
        let known = self.db.prepare_cached(sql)?.query_row([text], |r| r.get(0)).optional()?;
        let id = match known {
            Some(id) => id,
            None => {
                self.db.prepare_cached("INSERT INTO word (text) VALUES (?1)")?.execute([text])?;
                self.db.last_insert_rowid()
            }
        };
        self.memory.words.insert(text.to_owned(), id);
        Ok(id)
    }

    /// Writes what was gathered.
    pub(super) fn flush(&mut self) -> rusqlite::Result<()> {
        self.memory.sums.flush(self.db)
    }
}

/// Where an attempt belongs.
struct Place<'a> {
    run: i64,
    chunk: u32,
    cluster: i64,
    user: i64,
    member: &'a Member,
    attempts: &'a Attempts,
}

/// An attempt as the index has it, as far as it is counted.
struct Stored {
    id: i64,
    cluster: i64,
    user: i64,
    account: i64,
    partition: i64,
    ended: i64,
    class: Option<i64>,
    cause: Option<i64>,
    fingerprint: Option<i64>,
    node_us: i64,
    nodes: Vec<i64>,
}

const STORED: &str = "SELECT id, cluster, user, account, partition, ended, class, cause, fingerprint, node_us, nodes \
                      FROM job WHERE";

impl Stored {
    fn read(r: &rusqlite::Row<'_>) -> rusqlite::Result<Stored> {
        Ok(Stored {
            id: r.get(0)?,
            cluster: r.get(1)?,
            user: r.get(2)?,
            account: r.get(3)?,
            partition: r.get(4)?,
            ended: r.get(5)?,
            class: r.get(6)?,
            cause: r.get(7)?,
            fingerprint: r.get(8)?,
            node_us: r.get(9)?,
            nodes: restore_nodes(r.get_ref(10)?.as_blob()?),
        })
    }
}

/// Numbers of names, four bytes each.
fn save_nodes(nodes: &[i64]) -> Vec<u8> {
    nodes.iter().flat_map(|n| (*n as u32).to_le_bytes()).collect()
}

pub(super) fn restore_nodes(bytes: &[u8]) -> Vec<i64> {
    bytes.as_chunks::<4>().0.iter().map(|n| i64::from(u32::from_le_bytes(*n))).collect()
}
