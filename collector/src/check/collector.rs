//! The collector's host: does it run, can it read and write, what has it met,
//! and which nodes are silent?

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::files::{Account, mode, space};
use super::{Finding, Level, Options, slurm_says};
use crate::collect::health::{HEALTH, Health, NodeSeen};
use crate::slurm::hostlist;
use crate::store::LEDGER;
use crate::store::index::{Index, Standing};
use crate::units::{self, count};

/// An event that is read by so many milliseconds before its time was written by a wrong clock, or is
/// read by one: what NTP keeps is better by far.
const EARLY_MS: i64 = 1000;

/// Journals whose newest line is this far ahead have a wrong clock.
const FUTURE: Duration = Duration::from_secs(300);

pub(super) fn check(options: &Options, now: SystemTime) -> Vec<Finding> {
    let (journal, store) = (options.journal(), options.store());
    let mut findings = Vec::new();
    let account = fs::metadata(&store).ok().and_then(|m| Account::of(m.uid()));
    findings.extend(store_dir(&store));
    let nodes = match readable(&journal, account.as_ref()) {
        Ok(nodes) => nodes,
        Err(finding) => {
            findings.push(finding);
            BTreeSet::new()
        }
    };
    if !nodes.is_empty() {
        findings.extend(silent(&journal, &nodes));
        findings.extend(ahead(&journal, &nodes, now));
    }
    findings.push(runs(&store));
    findings.extend(met(&store));
    findings.push(index(&store));
    findings
}

fn store_dir(store: &Path) -> Vec<Finding> {
    let (shown, subject) = (store.display(), "store");
    let meta = match fs::metadata(store) {
        Ok(meta) => meta,
        Err(e) => {
            return vec![Finding::wrong(
                subject,
                format!("{shown}: {e}"),
                format!("install -d -o inquest -g inquest -m 0755 {shown} (or: systemd-tmpfiles --create)"),
            )];
        }
    };
    let mut findings = space(subject, store);
    if meta.mode() & 0o002 != 0 {
        findings.push(Finding::wrong(
            subject,
            format!(
                "{shown} has mode {}: every user can replace what the collector has written",
                mode(&meta)
            ),
            format!("chmod o-w {shown}"),
        ));
    }
    match Account::of(meta.uid()) {
        Some(account) if !account.may(0o7, &meta) => findings.push(Finding::wrong(
            subject,
            format!("{} cannot write to {shown}, which is its own, with mode {}", account.name, mode(&meta)),
            format!("chmod u+rwx {shown}"),
        )),
        Some(_) => {}
        None => findings.push(Finding::wrong(
            subject,
            format!("{shown} belongs to user {}, who does not exist", meta.uid()),
            format!("systemd-sysusers, then chown -R inquest:inquest {shown}"),
        )),
    }
    if findings.is_empty() {
        findings.push(Finding::ok(subject, shown.to_string()));
    }
    findings
}

/// The nodes whose journals the collector's account can read.
fn readable(journal: &Path, account: Option<&Account>) -> Result<BTreeSet<String>, Finding> {
    let (shown, subject) = (journal.display(), "journals");
    let wrong = |what: String, mend: String| Err(Finding::wrong(subject, what, mend));
    let meta = match fs::metadata(journal) {
        Ok(meta) => meta,
        Err(e) => {
            return wrong(
                format!("{shown}: {e}"),
                "mount the directory that the nodes write to, or name it: journal = in the configuration"
                    .into(),
            );
        }
    };
    let denied = |dir: &Path, account: &Account, meta: &fs::Metadata| {
        let what = format!("{} cannot read {}, which has mode {}", account.name, dir.display(), mode(meta));
        Finding::wrong(
            subject,
            what,
            format!("chgrp -R inquest {shown} && chmod -R g+rX {shown} && chmod g+s {shown}"),
        )
    };
    if let Some(account) = account
        && !account.may(0o5, &meta)
    {
        return Err(denied(journal, account, &meta));
    }
    let entries = match fs::read_dir(journal) {
        Ok(entries) => entries,
        Err(e) => {
            return wrong(format!("{shown}: {e}"), "look as root, or as the collector's account".into());
        }
    };
    let mut nodes = BTreeSet::new();
    for entry in entries.flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        if !meta.is_dir() {
            continue;
        }
        if let Some(account) = account
            && !account.may(0o5, &meta)
        {
            return Err(denied(&entry.path(), account, &meta));
        }
        nodes.insert(entry.file_name().to_string_lossy().into_owned());
    }
    if nodes.is_empty() {
        return wrong(
            format!("{shown} has no journal of any node"),
            "run inquest check on a node; is this the directory that the nodes write to?".into(),
        );
    }
    Ok(nodes)
}

/// Nodes that Slurm knows and that have never written.
fn silent(journal: &Path, nodes: &BTreeSet<String>) -> Option<Finding> {
    let known = match slurm_says("sinfo", &["-h", "-N", "-o", "%N"]) {
        Ok(text) => text.lines().map(str::trim).map(str::to_owned).collect::<BTreeSet<_>>(),
        Err(why) => {
            return Some(Finding::warning(
                "slurm",
                format!(
                    "Slurm does not answer here: {why}; verdicts then rest on the facts of the nodes alone"
                ),
                "install Slurm's commands and its configuration on this host, or set accounting = \"off\"",
            ));
        }
    };
    let missing: Vec<&str> = known.iter().map(String::as_str).filter(|n| !nodes.contains(*n)).collect();
    let all = known.len();
    Some(if missing.is_empty() {
        Finding::ok("journals", format!("{} has journals of every node ({all})", journal.display()))
    } else {
        let which = hostlist::fold(missing.iter().copied());
        Finding::warning(
            "journals",
            format!(
                "{} of {} never written to {}: {which}",
                missing.len(),
                count(all, "node has", "nodes have"),
                journal.display()
            ),
            "run inquest check on one of them",
        )
    })
}

/// Nodes whose newest file was written in the future.
fn ahead(journal: &Path, nodes: &BTreeSet<String>, now: SystemTime) -> Option<Finding> {
    let is_ahead = |node: &&String| {
        let files = fs::read_dir(journal.join(node)).into_iter().flatten().flatten();
        let newest = files.filter_map(|f| f.metadata().ok()?.modified().ok()).max();
        newest.is_some_and(|at| at.duration_since(now).is_ok_and(|by| by > FUTURE))
    };
    let wrong: Vec<&str> = nodes.iter().filter(is_ahead).map(String::as_str).collect();
    (!wrong.is_empty()).then(|| {
        Finding::warning(
            "clocks",
            format!(
                "journals from the future: the clocks of {} are ahead of this one",
                hostlist::fold(wrong)
            ),
            "let chrony or ntpd keep the time on all nodes; order inside a node is right in any case",
        )
    })
}

/// A collector keeps the ledger locked as long as it runs.
fn runs(store: &Path) -> Finding {
    let path = store.join(LEDGER);
    let start = "systemctl enable --now inquest-collect; journalctl -u inquest-collect says why it ended";
    let file = match fs::File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Finding::wrong(
                "collector",
                format!("has never run: there is no {}", path.display()),
                start,
            );
        }
        Err(e) => {
            let what = format!("whether it runs cannot be seen: {}: {e}", path.display());
            return Finding::warning("collector", what, "look as root, or as the collector's account");
        }
    };
    // SAFETY: all zeros is a valid flock.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    // SAFETY: the descriptor is open and lock is writable. Nothing is locked; the
    // kernel says who would be in the way.
    let asked = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLK, &mut lock) };
    if asked == 0 && lock.l_type != libc::F_UNLCK as libc::c_short {
        Finding::ok("collector", format!("runs, pid {}", lock.l_pid))
    } else {
        Finding::wrong("collector", "does not run: what the nodes record stays in their journals", start)
    }
}

/// Whether questions across runs have an index to ask.
fn index(store: &Path) -> Finding {
    let subject = "index";
    match Index::open(store).map(|_| ()) {
        Ok(()) => Finding::ok(subject, "answers"),
        Err(Standing::Denied) => Finding::warning(
            subject,
            "whether it answers cannot be seen: it is for operators",
            "look as root, or as the collector's account",
        ),
        Err(Standing::Building) => Finding::warning(
            subject,
            Standing::Building.to_string(),
            "wait; where it stays so, journalctl -u inquest-collect says why, and inquest index update does",
        ),
        Err(other) => Finding::warning(
            subject,
            other.to_string(),
            "start the collector of this version on this machine, which makes it",
        ),
    }
}

/// What it has met beside events.
fn met(store: &Path) -> Vec<Finding> {
    let path = store.join(HEALTH);
    let Ok(text) = fs::read(&path) else { return Vec::new() };
    let health: Health = match serde_json::from_slice(&text) {
        Ok(health) => health,
        Err(e) => {
            let what = format!("{} is not what a collector writes: {e}", path.display());
            return vec![Finding::warning("health", what, "delete it; the collector writes it anew")];
        }
    };
    let mut findings = Vec::new();
    let mut say = |n: u64, what: String, mend: &str| {
        if n > 0 {
            findings.push(Finding::warning("health", what, mend));
        }
    };
    let example = |pick: fn(&crate::collect::health::Oddities) -> u64| {
        let journal = health.journals.iter().max_by_key(|j| pick(&j.met));
        journal.map_or(String::new(), |j| format!(", most in {}", j.name))
    };
    let totals = health.totals;
    say(
        health.lost,
        format!(
            "{} but never came, most on {}",
            count(health.lost, "event was numbered", "events were numbered"),
            health.gaps.iter().max_by_key(|g| g.lost).map_or("no node", |g| &g.node)
        ),
        "look there for a full disk, or for a journal that was deleted or not copied; reports say it of their jobs",
    );
    say(
        totals.bad,
        format!(
            "{}{}: torn or overwritten; all others were merged",
            count(totals.bad, "line is no event", "lines are no events"),
            example(|m| m.bad)
        ),
        "one now and then is a node that died; many are a file system that does not append (see the manual)",
    );
    say(
        totals.newer,
        format!("{} of a newer schema{}", count(totals.newer, "line is", "lines are"), example(|m| m.newer)),
        "upgrade the collector: a plugin is newer than it",
    );
    say(
        totals.foreign_node,
        format!(
            "{} in the directory of another node{}",
            count(totals.foreign_node, "line lies", "lines lie"),
            example(|m| m.foreign_node)
        ),
        "two nodes share a name or a directory; inquest check on both",
    );
    let early = |n: &&NodeSeen| n.delay_ms <= -EARLY_MS;
    let early: Vec<&NodeSeen> = health.daemon.iter().flat_map(|d| &d.nodes).filter(early).collect();
    if let Some(worst) = early.iter().min_by_key(|n| n.delay_ms) {
        say(
            1,
            format!(
                "events of {} are read before their time: the clock of {} is at least {} ahead of this one",
                hostlist::fold(early.iter().map(|n| n.node.as_str())),
                worst.node,
                units::duration(-worst.delay_ms.saturating_mul(1000))
            ),
            "let chrony or ntpd keep the time on all nodes; order inside a node is right in any case",
        );
    }
    let removed = health.daemon.as_ref().map_or(0, |d| d.removed_runs);
    say(
        removed,
        format!(
            "{} gone from the store, though not by its own rules",
            count(removed, "run was", "runs were")
        ),
        "nothing to do if somebody meant it; its log names them, and inquest gc removes runs without a restart",
    );
    for (place, why) in health.aside.iter().take(5) {
        say(
            1,
            format!("{place} is set aside, and its events wait: {why}"),
            "make it the collector's to write again, or move it away; its events then come by themselves",
        );
    }
    for why in health.daemon.iter().flat_map(|d| &d.slurm_silent) {
        say(
            1,
            format!("the collector asked Slurm in vain: {why}"),
            "verdicts rest on the facts of the nodes alone until it answers; run the command as the collector's account",
        );
    }
    for (journal, why) in health.unreadable.iter().take(5) {
        say(1, format!("{journal} cannot be read: {why}"), "chgrp -R inquest, chmod -R g+rX on the journals");
    }
    if totals.copies > 0 {
        let what = format!(
            "{} merged before and passed over{}: copies do no harm",
            count(totals.copies, "line was", "lines were"),
            example(|m| m.copies)
        );
        findings.push(Finding::ok("health", what));
    }
    if findings.iter().all(|f| f.level == Level::Ok) {
        let written = fs::metadata(&path).and_then(|m| m.modified()).ok().and_then(|at| at.elapsed().ok());
        let when = written.map_or(String::new(), |d| {
            format!("; written {} ago", units::duration(i64::try_from(d.as_micros()).unwrap_or(i64::MAX)))
        });
        findings.push(Finding::ok("health", format!("nothing lost, nothing damaged{when}")));
    }
    findings
}
