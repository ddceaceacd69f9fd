//! A store on disk, read by two people with their own rights: each has their own
//! runs, by every command and by plain tools, and hears nothing of the other's.

#[path = "support/server.rs"]
mod server;
mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Output;

use inquest_journal::NodeBooted;
use inquest_tests::children::apart;
use server::{is_root, uid};
use support::{End, Job, Lab};

const ANN: &str = "inquest-test1";
const BOB: &str = "inquest-test2";

/// Of whom this machine knows no account.
const NOBODY: u32 = 4_123_456;

fn lab() -> Lab {
    let lab = Lab::new();
    // A temporary directory is its maker's alone.
    fs::set_permissions(lab.path(), Permissions::from_mode(0o755)).unwrap();
    fs::create_dir_all(lab.store()).unwrap();
    fs::set_permissions(lab.store(), Permissions::from_mode(0o755)).unwrap();
    // The first thing that is heard of a cluster may be of no job.
    lab.event(("n1", "0badc0de", 1), 0, None, NodeBooted::default());
    lab.merge(&[]);
    lab.job(&Job { uid: uid(ANN), name: "fit".into(), ..Job::new(101, End::Oom(64)) });
    lab.job(&Job { uid: uid(BOB), name: "bobs-secret".into(), ..Job::new(777_123, End::Code(3)) });
    lab.job(&Job { uid: NOBODY, ..Job::new(4123, End::Oom(64)) });
    // A file system of its own has this in it, for root alone.
    fs::create_dir(lab.store().join("lost+found")).unwrap();
    fs::set_permissions(lab.store().join("lost+found"), Permissions::from_mode(0o700)).unwrap();
    lab.merge(&[]);
    lab
}

fn as_user(lab: &Lab, who: &str, program: &str, arguments: &[&str]) -> Output {
    as_uid(lab, uid(who), uid(who), program, arguments)
}

fn as_uid(lab: &Lab, uid: u32, gid: u32, program: &str, arguments: &[&str]) -> Output {
    let mut command = apart(program);
    // Where every account may start a program from.
    command.args(arguments).env("INQUEST_STORE", lab.store()).current_dir("/").uid(uid).gid(gid);
    command.output().unwrap()
}

/// The command, where every account may run it.
fn inquest(lab: &Lab) -> PathBuf {
    let copy = lab.path().join("inquest");
    if !copy.exists() {
        fs::copy(env!("CARGO_BIN_EXE_inquest"), &copy).unwrap();
        fs::set_permissions(&copy, Permissions::from_mode(0o755)).unwrap();
    }
    copy
}

#[test]
fn everybody_reads_their_own_runs_and_nobody_elses() {
    if !is_root() {
        return;
    }
    let lab = lab();
    let inquest = inquest(&lab);
    let inquest = inquest.to_str().unwrap();
    let ask = |who: &str, arguments: &[&str]| {
        let output = as_user(&lab, who, inquest, arguments);
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code().unwrap(), said)
    };

    let (code, said) = ask(ANN, &["runs", "-n"]);
    assert!(code == 1 && said.contains("job-101") && said.lines().count() == 1, "{code}: {said}");
    let (code, said) = ask(ANN, &["why", "101"]);
    assert!(code == 1 && said.contains("out of memory"), "{code}: {said}");
    let (code, said) = ask(BOB, &["why", "777123"]);
    assert!(code == 1 && said.contains("exit code 3"), "{code}: {said}");

    // What is another's does not exist, whoever asks, and however.
    let nothing = ask(ANN, &["why", "4242"]);
    for arguments in [
        &["why", "777123"][..],
        &["events", "777123"],
        &["logs", "job-777123"],
        &["timeline", "777123"],
        &["why", "777123", "-u", BOB],
        &["errors", "job-777123", "-u", BOB],
        &["why", "777123", "--cluster", "lab"],
        &["runs", "-u", BOB],
        &["runs", "-u", "../inquest-test2"],
        &["runs", "-u", "inquest-test2/runs"],
    ] {
        let (code, said) = ask(ANN, arguments);
        assert!([0, 3, 4].contains(&code), "{arguments:?}: {code}: {said}");
        assert!(!said.contains("bobs-secret") && !said.contains("exit code 3"), "{arguments:?}: {said}");
    }
    let (code, said) = ask(ANN, &["why", "777123"]);
    assert_eq!((code, said.replace("777123", "4242")), nothing, "a job of another is told from none");

    // The same by plain tools.
    let at = |who: &str, below: &str| lab.store().join("lab").join(who).join("runs").join(below);
    let plain =
        |who: &str, path: PathBuf| as_user(&lab, who, "cat", &[path.to_str().unwrap()]).status.success();
    for below in ["_registry.jsonl", "job-101/events.jsonl", "job-101/run.json"] {
        assert!(plain(ANN, at(ANN, below)), "{below}");
        assert!(!plain(BOB, at(ANN, below)), "{below}");
    }
    for path in [lab.store().join("lab"), lab.store().join("lab").join(BOB)] {
        let listed = as_user(&lab, ANN, "ls", &[path.to_str().unwrap()]);
        assert!(!listed.status.success(), "{listed:?}");
    }
    for file in ["ledger.db", "index.db"] {
        assert!(!plain(ANN, lab.store().join(file)), "{file}");
    }
    // Nobody writes.
    let touched = as_user(&lab, ANN, "touch", &[at(ANN, "x").to_str().unwrap()]);
    assert!(!touched.status.success());
}

/// What the command says, and with which code.
fn said(output: &Output) -> (i32, String) {
    let text = [&output.stdout, &output.stderr].map(|b| String::from_utf8_lossy(b).into_owned()).concat();
    (output.status.code().unwrap(), text)
}

#[test]
fn an_index_that_is_not_the_callers_is_denied_and_not_missing() {
    if !is_root() {
        return;
    }
    let lab = lab();
    assert_eq!(lab.run(&["index", "rebuild"]).0, 0);
    for arguments in [&["index"][..], &["index", "update"], &["index", "rebuild"], &["report"]] {
        let (code, text) = said(&as_user(&lab, ANN, inquest(&lab).to_str().unwrap(), arguments));
        assert!(code == 4 && text.contains("no permission"), "{arguments:?}: {code}: {text}");
    }
}

#[test]
fn who_has_no_account_here_finds_their_own_runs() {
    if !is_root() {
        return;
    }
    let lab = lab();
    let inquest = inquest(&lab);
    for arguments in [&["why", "--last"][..], &["why", "4123"], &["runs"], &["top", "--once"]] {
        let (code, text) = said(&as_uid(&lab, NOBODY, NOBODY, inquest.to_str().unwrap(), arguments));
        assert!(code == 1 && text.contains("4123") && !text.contains("bobs-secret"), "{arguments:?}: {text}");
    }
}

/// A collector that could not resolve the account named the directory by the number.
#[test]
fn runs_that_are_kept_under_the_callers_number_are_theirs() {
    if !is_root() {
        return;
    }
    let lab = lab();
    let own = lab.store().join("lab").join(format!("uid-{}", uid(ANN)));
    fs::rename(lab.store().join("lab").join(ANN), &own).unwrap();
    let inquest = inquest(&lab);
    let ask = |arguments: &[&str]| said(&as_user(&lab, ANN, inquest.to_str().unwrap(), arguments));
    for arguments in [
        &["runs"][..],
        &["runs", "-u", ANN],
        &["why", "101"],
        &["why", "--last"],
        &["top", "--once"],
        &["errors", "job-101", "-u", ANN],
    ] {
        let (code, text) = ask(arguments);
        assert!(code == 1 && text.contains("101") && !text.contains("bobs-secret"), "{arguments:?}: {text}");
    }
    for name in ["system.posix_acl_access", "system.posix_acl_default"] {
        rustix::fs::removexattr(&own, name).unwrap();
    }
    let (_, text) = ask(&["check", "login", "--json"]);
    assert!(text.contains(&format!("you cannot read your own runs in {}", own.display())), "{text}");
}

/// The group of the store is that of operators.
#[test]
fn what_a_file_system_has_for_itself_makes_no_user_of_an_operator() {
    if !is_root() {
        return;
    }
    let lab = lab();
    let ask = |gid: u32| as_uid(&lab, uid(ANN), gid, inquest(&lab).to_str().unwrap(), &["why", "999"]);
    let of_others = "Jobs of others are for their owners and for operators";
    let (code, text) = said(&ask(uid(ANN)));
    assert!(code == 3 && text.contains(of_others), "{text}");
    let (code, text) = said(&ask(0));
    assert!(code == 3 && !text.contains(of_others), "{text}");
}

#[test]
fn the_check_looks_into_the_callers_own_directory() {
    if !is_root() {
        return;
    }
    let lab = lab();
    let own = lab.store().join("lab").join(ANN);
    let check = |lab: &Lab| {
        let output = as_user(lab, ANN, inquest(lab).to_str().unwrap(), &["check", "login", "--json"]);
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let findings = json["roles"][0]["findings"].as_array().unwrap();
        let store = findings.iter().find(|f| f["subject"] == "store").unwrap();
        ["level", "what", "mend"].map(|key| store[key].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(check(&lab)[0], "ok", "{:?}", check(&lab));
    // As after a copy that left the lists of who may read behind.
    for name in ["system.posix_acl_access", "system.posix_acl_default"] {
        rustix::fs::removexattr(&own, name).unwrap();
    }
    let [level, what, mend] = check(&lab);
    assert_eq!(level, "wrong", "{what}");
    assert!(what.contains(own.to_str().unwrap()) && mend.contains("ACL"), "{what}: {mend}");
    fs::set_permissions(lab.store().join("lab"), Permissions::from_mode(0o750)).unwrap();
    let [level, what, mend] = check(&lab);
    assert!(level == "warning" && what.contains(own.to_str().unwrap()), "{what}: {mend}");
    assert!(mend.contains("chmod o+x"), "{mend}");
    // Nothing but what the file system has for itself.
    fs::remove_dir_all(lab.store().join("lab")).unwrap();
    let [level, what, _] = check(&lab);
    assert!(level == "warning" && what.contains("has no runs yet"), "{level}: {what}");
}
