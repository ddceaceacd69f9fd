//! Several processes append to one file at once; a disk fills up; a file
//! disappears. What was acknowledged is read back, what was not is counted.

#[allow(unreachable_pub)] // It is for the tests of all crates.
#[path = "../../tests/src/skip.rs"]
mod skip;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use inquest_journal::{Body, Head, Identity, JobId, LINE_MAX, Lines, Lost, Note, Severity, Source, Writer};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use skip::skip;

/// A private journal directory that is not writable by others.
fn journal() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o750)).unwrap();
    dir
}

fn note(text: &str) -> Body {
    Note { text: Some(text.into()), ..Note::default() }.into()
}

fn open(dir: &Path, start: u64) -> Writer {
    let identity = Identity::new("lab", "n1", "0badc0de", std::process::id(), start);
    let (writer, failed) = Writer::open(dir, identity, Source::Plugin).unwrap();
    assert!(failed.is_none(), "{}", failed.unwrap());
    writer
}

fn say(writer: &mut Writer, text: &str) -> bool {
    writer.write(Severity::Info, Some(JobId(1)), None, None, &note(text))
}

/// All events of a journal by stream and number, and how many lines were bad.
fn read_back(dir: &Path) -> (BTreeMap<(String, u64), Vec<u8>>, usize) {
    let (mut events, mut bad) = (BTreeMap::new(), 0);
    for file in fs::read_dir(dir.join("n1")).unwrap() {
        let bytes = fs::read(file.unwrap().path()).unwrap();
        for (_, line) in Lines::new(&bytes) {
            assert!(line.len() < LINE_MAX);
            match Head::parse(line) {
                Ok(head) => {
                    let old = events.insert((head.stream.into_owned(), head.seq), line.to_vec());
                    assert!(old.is_none(), "one identity, two events");
                }
                Err(_) => bad += 1,
            }
        }
    }
    (events, bad)
}

/// Not a test by itself: the child of the one below.
#[test]
fn child_writes_its_share() {
    let Ok(dir) = std::env::var("INQUEST_TEST_JOURNAL") else { return };
    let count: u64 = std::env::var("INQUEST_TEST_COUNT").unwrap().parse().unwrap();
    let mut writer = open(Path::new(&dir), 1);
    for n in 0..count {
        // Lengths from a few bytes to beyond a line, control characters too.
        let text = "\u{7}x\u{fc}".repeat((n as usize * 97) % 2500);
        assert!(say(&mut writer, &text));
    }
}

#[test]
fn eight_processes_write_one_file() {
    let dir = journal();
    let me = std::env::current_exe().unwrap();
    let children: Vec<_> = (0..8)
        .map(|_| {
            Command::new(&me)
                .args(["--exact", "child_writes_its_share"])
                .env("INQUEST_TEST_JOURNAL", dir.path())
                .env("INQUEST_TEST_COUNT", "400")
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let (events, bad) = read_back(dir.path());
    assert_eq!((events.len(), bad), (8 * 400, 0));
}

#[test]
fn interleaved_writers_with_any_text() {
    let mut runner = TestRunner::new(Config { cases: 64, ..Config::default() });
    let plan = proptest::collection::vec((0usize..3, any::<String>()), 1..60);
    runner
        .run(&plan, |plan| {
            let dir = journal();
            let mut writers: Vec<Writer> = (0..3).map(|n| open(dir.path(), n)).collect();
            let mut said: Vec<Vec<String>> = vec![Vec::new(); 3];
            for (who, text) in plan {
                prop_assert!(say(&mut writers[who], &text));
                said[who].push(text);
            }
            let (events, bad) = read_back(dir.path());
            prop_assert_eq!(bad, 0);
            for (writer, said) in writers.iter().zip(&said) {
                for (seq, text) in said.iter().enumerate() {
                    let line = &events[&(writer.identity().stream().to_owned(), seq as u64)];
                    let Some(Ok(Body::Note(back))) = Body::parse("note", line) else { panic!() };
                    prop_assert_eq!(back.text.as_deref(), Some(text.as_str()));
                }
            }
            prop_assert_eq!(events.len(), said.iter().map(Vec::len).sum::<usize>());
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_file_that_was_deleted_is_made_anew() {
    let dir = journal();
    let mut writer = open(dir.path(), 1);
    assert!(say(&mut writer, "before"));
    fs::remove_dir_all(dir.path().join("n1")).unwrap();
    assert!(say(&mut writer, "after"));
    let (events, _) = read_back(dir.path());
    assert_eq!(events.into_keys().map(|k| k.1).collect::<Vec<_>>(), [1]);
}

/// Not a test by itself: the child of the one below, whose umask is its own.
#[test]
fn child_writes_with_a_users_umask() {
    let Ok(dir) = std::env::var("INQUEST_TEST_UMASK_JOURNAL") else { return };
    // SAFETY: umask cannot fail.
    unsafe { libc::umask(0o777) };
    assert!(say(&mut open(Path::new(&dir), 1), "mine"));
}

#[test]
fn a_users_umask_closes_no_journal() {
    let dir = journal();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_writes_with_a_users_umask"])
        .env("INQUEST_TEST_UMASK_JOURNAL", dir.path())
        .status();
    assert!(child.unwrap().success());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&dir.path().join("n1")), 0o750);
    let file = fs::read_dir(dir.path().join("n1")).unwrap().next().unwrap().unwrap().path();
    assert_eq!(mode(&file), 0o640);
    // What an admin has chosen stays.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(say(&mut open(dir.path(), 2), "mine, too"));
    assert_eq!(mode(&file), 0o600);
}

#[test]
fn a_descriptor_that_changed_hands_is_left_alone() {
    let dir = journal();
    let mut writer = open(dir.path(), 1);
    assert!(say(&mut writer, "mine"));
    // What another descriptor table would look like: our number, their file.
    let theirs = dir.path().join("theirs");
    let other = fs::File::create(&theirs).unwrap();
    for entry in fs::read_dir("/proc/self/fd").unwrap() {
        let entry = entry.unwrap().path();
        if fs::read_link(&entry).is_ok_and(|to| to.starts_with(dir.path().join("n1"))) {
            let number: i32 = entry.file_name().unwrap().to_str().unwrap().parse().unwrap();
            use std::os::fd::AsRawFd;
            // SAFETY: both descriptors are open in this process.
            assert!(unsafe { libc::dup2(other.as_raw_fd(), number) } >= 0);
        }
    }
    assert!(say(&mut writer, "still mine"));
    assert_eq!(fs::read(&theirs).unwrap(), b"");
    assert_eq!(read_back(dir.path()).0.len(), 2);
}

#[test]
fn a_symbolic_link_is_not_followed() {
    let dir = journal();
    let away = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(away.path(), dir.path().join("n1")).unwrap();
    let identity = Identity::new("lab", "n1", "0badc0de", 1, 1);
    let (mut writer, failed) = Writer::open(dir.path(), identity, Source::Plugin).unwrap();
    assert!(failed.is_some());
    assert!(!say(&mut writer, "lost"));
    assert_eq!(fs::read_dir(away.path()).unwrap().count(), 0);
    // The link goes away: the loss is told and the journal goes on.
    fs::remove_file(dir.path().join("n1")).unwrap();
    assert!(say(&mut writer, "kept"));
    let (events, _) = read_back(dir.path());
    let lines: Vec<Vec<u8>> = events.into_values().collect();
    let Some(Ok(Body::Lost(Lost { count, reason }))) = Body::parse("lost", &lines[0]) else { panic!() };
    assert_eq!(count, Some(1));
    assert!(reason.unwrap().contains("directory"), "the system's own words");
    assert_eq!(lines.len(), 2);
}

#[test]
fn a_directory_that_others_can_write_is_refused() {
    let dir = journal();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let identity = Identity::new("lab", "n1", "0badc0de", 1, 1);
    let (_, failed) = Writer::open(dir.path(), identity, Source::Plugin).unwrap();
    assert!(failed.unwrap().to_string().contains("not be writable by others"));
}

#[test]
fn lines_of_one_moment_go_out_together() {
    let dir = journal();
    let mut writer = open(dir.path(), 1);
    writer.hold();
    for n in 0..3 {
        assert!(say(&mut writer, &format!("held {n}")));
        assert_eq!(read_back(dir.path()).0.len(), 0);
    }
    assert!(writer.release());
    assert_eq!(read_back(dir.path()).0.len(), 3);
    // More than may wait, and what is not waited for.
    writer.hold();
    for n in 3..10 {
        assert!(say(&mut writer, &format!("held {n}")));
    }
    assert!(writer.release() && writer.release());
    assert!(say(&mut writer, "alone"));
    let (events, bad) = read_back(dir.path());
    assert_eq!((events.into_keys().map(|k| k.1).collect::<Vec<_>>(), bad), ((0..11).collect(), 0));
}

/// A file system of 64 KiB, unmounted when dropped.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path) -> Option<Small> {
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64k,mode=0750", "inquest-test"])
            .arg(at)
            .status()
            .is_ok_and(|s| s.success());
        done.then(|| Small(at.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_loses_events_that_are_counted() {
    let dir = journal();
    let Some(_small) = Small::mount(dir.path()) else {
        return skip("mounting a small file system needs root");
    };
    let ballast = dir.path().join("ballast");
    let mut writer = open(dir.path(), 1);
    let mut kept = Vec::new();
    for round in 0..40u64 {
        // Fill the disk, write into the full disk, make room again.
        let _ = fs::write(&ballast, vec![0; 1 << 16]);
        for n in 0..5u64 {
            let seq = writer.next_seq();
            if say(&mut writer, &"y".repeat(((round * 5 + n) as usize * 131) % 1500)) {
                kept.push(writer.next_seq() - 1);
            } else {
                assert!(writer.next_seq() > seq);
            }
        }
        fs::remove_file(&ballast).unwrap();
        if say(&mut writer, "room") {
            kept.push(writer.next_seq() - 1);
        }
        // Keep the journal itself from filling the disk for good.
        if round % 8 == 7 {
            let (events, _) = read_back(dir.path());
            for seq in kept.drain(..) {
                assert!(events.contains_key(&(writer.identity().stream().to_owned(), seq)));
            }
            fs::remove_dir_all(dir.path().join("n1")).unwrap();
        }
    }
    assert!(writer.lost() > 40, "the disk was never full");
}

#[test]
fn a_torn_line_makes_no_more_numbers_missing_than_events() {
    let dir = journal();
    let Some(_small) = Small::mount(dir.path()) else {
        return skip("mounting a small file system needs root");
    };
    let ballast = dir.path().join("ballast");
    let mut writer = open(dir.path(), 1);
    assert!(say(&mut writer, "before"));
    fs::write(&ballast, vec![0; 1 << 17]).unwrap_err();
    // What is left of the file's page holds one of them and a part of another.
    let lost = (0..20).filter(|_| !say(&mut writer, &"x".repeat(2500))).count() as u64;
    fs::remove_file(&ballast).unwrap();
    assert!(say(&mut writer, "after"));
    let (events, bad) = read_back(dir.path());
    assert_eq!(bad, 1, "the line was never torn");
    let missing = writer.next_seq() - events.len() as u64;
    assert_eq!((writer.lost(), missing), (lost, lost));
}

#[test]
fn of_lines_that_go_out_together_those_that_do_not_fit_are_counted() {
    let dir = journal();
    let Some(_small) = Small::mount(dir.path()) else {
        return skip("mounting a small file system needs root");
    };
    let ballast = dir.path().join("ballast");
    for length in [10, 700, 1500, 3000] {
        let mut writer = open(dir.path(), length as u64);
        for round in 0..30 {
            // Room for a page or two, or none.
            let _ = fs::write(&ballast, vec![0; (1 << 16) - 4096 * (round % 4)]);
            let (before, first) = (writer.lost(), writer.next_seq());
            writer.hold();
            (0..3).for_each(|_| {
                say(&mut writer, &"z".repeat(length));
            });
            let all = writer.release();
            let lost = writer.lost() - before;
            assert_eq!(all, lost == 0);
            let (events, _) = read_back(dir.path());
            let stream = writer.identity().stream().to_owned();
            let told = events.range((stream.clone(), first)..(stream, writer.next_seq()));
            let notes = told.filter(|(_, line)| line.windows(15).any(|w| w == b"\"event_type\":\"n")).count();
            assert_eq!(notes as u64 + lost, 3, "round {round} of lines of {length}");
            fs::remove_file(&ballast).unwrap();
            fs::remove_dir_all(dir.path().join("n1")).unwrap();
        }
        assert!(writer.lost() > 0, "the disk was never full");
    }
}
