//! What a question costs is bounded by what its answer shows, and not by all
//! that a user, an account or a run ever had: counted in instructions of
//! SQLite's machine, which no busy processor changes.

use std::cell::Cell;
use std::ffi::{c_int, c_void};

use inquest_journal::Timestamp;
use rusqlite::{Connection, params};

use super::{Filter, Group, Index, OPEN, Visible, Writer, path_of};

/// Attempts of the one busy user, nearly all that there are.
const HISTORY: i64 = 12_000;

/// Entries of a page.
const PAGE: usize = 51;

/// Instructions that a page may take. Going through the history takes five per
/// attempt at the very least.
const STEPS: u64 = 20_000;

const DAY_US: i64 = 86_400_000_000;

/// An index of [`HISTORY`] attempts, half of them in one array.
fn filled() -> (tempfile::TempDir, Index) {
    let dir = tempfile::tempdir().unwrap();
    drop(Writer::open(dir.path()).unwrap());
    let mut db = Connection::open(path_of(dir.path())).unwrap();
    let tx = db.transaction().unwrap();
    for (id, text) in ["lab", "busy", "quiet", "physics", "main", "n1", "ok", "oom_cgroup"].iter().enumerate()
    {
        tx.execute("INSERT INTO word VALUES (?1, ?2)", params![id as i64 + 1, text]).unwrap();
    }
    let mut run = 1;
    let mut runs: Vec<(i64, i64, i64)> = vec![(1, 2, 0)];
    for n in 0..HISTORY {
        let (user, chunk) = if n % 100 == 0 { (3, 1) } else { (2, n) };
        if n % 2 == 0 {
            run += 1;
            runs.push((run, user, n));
        }
        let class = i64::from(n % 20 == 0);
        tx.execute(
            "INSERT INTO job VALUES (?1, ?2, ?3, 1, 1, ?4, ?1, NULL, NULL, ?5, 4, 5, ?6, ?6, ?6, ?7, ?8, ?8, 0, NULL, \
             NULL, 0, NULL, 6, x'06000000', 1, 1, NULL, NULL)",
            params![n + 1, if n % 2 == 0 { run } else { 1 }, chunk, user, format!("name{}", n % 3), at(n), class, 7 + class],
        )
        .unwrap();
    }
    for (id, user, n) in runs {
        let sql = "INSERT INTO run VALUES (?1, 1, ?2, ?3, NULL, '[]', NULL, ?4, ?4, 1, 0, 0, '{}', 0, 0)";
        tx.execute(sql, params![id, user, format!("run-{id}"), at(n)]).unwrap();
    }
    tx.commit().unwrap();
    drop(db);
    let mut writer = Writer::open(dir.path()).unwrap();
    let building = writer.building().unwrap().unwrap();
    writer.is_whole(building).unwrap();
    drop(writer);
    let index = Index::open(dir.path()).unwrap();
    (dir, index)
}

/// When attempt `n` ended: forty in a day.
fn at(n: i64) -> i64 {
    n * DAY_US / 40
}

/// Instructions that a question takes.
fn steps(index: &Index, ask: impl FnOnce(&Index)) -> u64 {
    extern "C" fn one_more(count: *mut c_void) -> c_int {
        // SAFETY: it is the counter below, which outlives the question.
        let count = unsafe { &*count.cast::<Cell<u64>>() };
        count.set(count.get() + 1);
        0
    }
    let count = Cell::new(0u64);
    // SAFETY: the handle is open, and no handler is left behind.
    unsafe {
        let db = index.db().handle();
        rusqlite::ffi::sqlite3_progress_handler(db, 1, Some(one_more), (&raw const count).cast_mut().cast());
        ask(index);
        rusqlite::ffi::sqlite3_progress_handler(db, 0, None, std::ptr::null_mut());
    }
    count.get()
}

#[test]
fn a_page_costs_what_it_shows() {
    let (_dir, index) = filled();
    let busy = || Some("busy".to_owned());
    let time = Filter { since: Some(Timestamp(1)), until: Some(Timestamp(OPEN - 1)), ..Filter::default() };
    let failed = Filter { failed: true, open: Some(false), ..time.clone() };
    let nobody = || Some("nobody-calls-a-job-so".to_owned());
    let run = Filter {
        cluster: Some("lab".into()),
        user: busy(),
        run_id: Some("run-1".into()),
        ..Filter::default()
    };
    let coordinator = Some(Visible { user: "quiet".into(), accounts: vec!["physics".into()] });
    let jobs = [
        ("the newest", time.clone()),
        ("failures of a user", Filter { user: busy(), ..failed.clone() }),
        ("failures under no such name", Filter { user: busy(), name: nobody(), ..failed.clone() }),
        ("jobs under no such name", Filter { user: busy(), name: nobody(), ..time.clone() }),
        ("jobs of everybody under no such name", Filter { name: nobody(), ..time.clone() }),
        ("what a coordinator sees", Filter { visible: coordinator.clone(), ..time.clone() }),
        ("failures that a coordinator sees", Filter { visible: coordinator.clone(), ..failed }),
        ("failures of a run", Filter { failed: true, open: Some(false), ..run.clone() }),
    ];
    let mut found = 0;
    for (what, filter) in &jobs {
        let took = steps(&index, |index| found += index.jobs(filter, PAGE).unwrap().len());
        assert!(took < STEPS, "{what}: {took} instructions");
    }
    assert_eq!(found, 4 * PAGE);
    let took = steps(&index, |index| assert_eq!(index.members(&run, 3000, PAGE).unwrap().len(), PAGE));
    assert!(took < STEPS, "members of a run: {took} instructions");
    let running = Filter { user: busy(), open: Some(true), ..time.clone() };
    let took = steps(&index, |index| assert!(index.runs(&running, PAGE).unwrap().is_empty()));
    assert!(took < STEPS, "runs that run: {took} instructions");
    for visible in [None, coordinator] {
        let of_busy = Filter { user: visible.is_none().then(busy).flatten(), visible, ..time.clone() };
        let took = steps(&index, |index| {
            assert!(index.tally(&of_busy, &[(Group::Node, 10)], PAGE).unwrap().cut);
        });
        assert!(took < STEPS, "nodes of what {of_busy:?} finds: {took} instructions");
    }
}

#[test]
fn going_through_the_history_would_be_seen() {
    let (_dir, index) = filled();
    let took = steps(&index, |index| {
        let sql = "SELECT count(*) FROM job WHERE +user = 2";
        let counted: i64 = index.db().query_row(sql, [], |r| r.get(0)).unwrap();
        assert!(counted > HISTORY / 2);
    });
    assert!(took > 2 * STEPS, "{took} instructions");
}
