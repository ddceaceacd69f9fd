//! A compute node: is the plugin loaded, can it write, does Slurm give it what
//! it reads?

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use inquest_journal::{Head, Lines, Source};

use super::files::{is_roots, mode, network, space};
use super::slurm_conf::SlurmConf;
use super::{Finding, Options, loaded, plugin, plugstack};

pub(super) fn check(options: &Options) -> Vec<Finding> {
    let conf = match SlurmConf::read() {
        Ok(conf) => conf,
        Err(why) => {
            return vec![Finding::wrong("slurm.conf", why, "set SLURM_CONF, or run this where slurmd runs")];
        }
    };
    let stack = plugstack::read(&conf.plugstack());
    let mut findings = plugin::lines(&stack);
    for line in stack.lines.iter().chain(&stack.job_lines) {
        findings.extend(plugin::file(line));
    }
    let mut journal = options.journal();
    if let Some(line) = stack.lines.first() {
        if line.path.exists() {
            findings.push(loaded());
        }
        let written = plugin::journal(line);
        if options.journal.is_none() && written != journal {
            findings.push(Finding::warning(
                "journal",
                format!(
                    "the plugin writes to {}, but the configuration says {}: a collector or agent of this machine \
                     looks there",
                    written.display(),
                    journal.display()
                ),
                format!("write journal = {written:?} into {}", crate::config::PATH),
            ));
        }
        journal = written;
    }
    findings.extend(journal_dir(&journal, &options.node));
    if let Some(newest) = newest(&journal.join(&options.node)) {
        findings.extend(cluster(&conf, stack.lines.first(), &newest));
    }
    findings.extend(slurm(&conf));
    findings.push(agent(options));
    findings
}

/// The plugin refuses a directory that somebody other than root could have a
/// hand in, because it writes there as root.
fn journal_dir(dir: &Path, node: &str) -> Vec<Finding> {
    let (shown, subject) = (dir.display(), "journal");
    let make = format!("install -d -o root -g inquest -m 2750 {shown}");
    let meta = match fs::symlink_metadata(dir) {
        Ok(meta) => meta,
        Err(e) => {
            return vec![Finding::wrong(
                subject,
                format!("{shown}: {e}; nothing is recorded"),
                format!("{make} (or: systemd-tmpfiles --create)"),
            )];
        }
    };
    if !meta.is_dir() {
        return vec![Finding::wrong(
            subject,
            format!("{shown} is no directory; the plugin follows no symbolic link: nothing is recorded"),
            format!("remove it, or name the real directory with journal= in plugstack.conf; {make}"),
        )];
    }
    if !is_roots(&meta) {
        return vec![Finding::wrong(
            subject,
            format!(
                "{shown} belongs to user {} with mode {}: the plugin writes only where nobody but root can; nothing is \
                 recorded",
                meta.uid(),
                mode(&meta)
            ),
            format!("chown root {shown} && chmod go-w {shown}"),
        )];
    }
    let mut findings = space(subject, dir);
    if let Some(kind) = network(dir) {
        findings.push(Finding::warning(
            subject,
            format!("{shown} is on {kind}: when that hangs, slurmstepd waits for it as any program does"),
            "prefer a local file system, of which the collector reads a copy (spank_inquest(8)), or mount it soft",
        ));
    }
    if meta.mode() & 0o007 != 0 {
        findings.push(Finding::warning(
            subject,
            format!("{shown} has mode {}: every user can read what the jobs of others are", mode(&meta)),
            format!("chmod o= {shown}"),
        ));
    }
    let own = dir.join(node);
    if findings.is_empty() {
        findings.push(match newest(&own) {
            Some(file) => Finding::ok(subject, format!("{}", file.display())),
            None => Finding::warning(
                subject,
                format!("{} is empty: no job has been recorded here yet", own.display()),
                format!("run one: srun -w {node} true; if the name of the node is another one, say --node"),
            ),
        });
    }
    findings
}

/// A node's newest journal.
fn newest(own: &Path) -> Option<PathBuf> {
    let files = fs::read_dir(own).into_iter().flatten().flatten();
    let journals = files.filter(|e| e.file_name().to_string_lossy().contains(".jsonl"));
    journals.max_by_key(fs::DirEntry::file_name).map(|e| e.path())
}

/// Bytes of its end that show under which name the cluster is written.
const END: u64 = 256 << 10;

/// The plugin and the agent look for the cluster's name in slurm.conf itself, and only where it has a line of its
/// own. Under another name, what Slurm says of a job never finds it.
fn cluster(conf: &SlurmConf, line: Option<&plugstack::Line>, journal: &Path) -> Vec<Finding> {
    let Some(name) = conf.get("ClusterName") else { return Vec::new() };
    let mut end = Vec::new();
    let read = fs::File::open(journal).and_then(|mut file| {
        file.seek(SeekFrom::Start(file.metadata()?.len().saturating_sub(END)))?;
        file.take(END).read_to_end(&mut end)
    });
    if read.is_err() {
        return Vec::new();
    }
    let heads: Vec<Head<'_>> = Lines::new(&end).filter_map(|(_, line)| Head::parse(line).ok()).collect();
    let told = line.and_then(|line| line.arguments.iter().find_map(|a| a.strip_prefix("cluster=")));
    let wrong = |source: Source, name: &str, mend: String| {
        let written = &heads.iter().rev().find(|head| head.source == source)?.cluster;
        (written != name).then(|| {
            let what = format!(
                "the newest event of the {} names the cluster {written}, not {name}: what Slurm says of jobs is not \
                 found for them",
                if source == Source::Plugin { "plugin" } else { "agent" }
            );
            Finding::wrong("cluster", what, mend)
        })
    };
    let place = line.map_or("plugstack.conf", |line| &line.place);
    let agent = format!("write cluster = \"{name}\" below [agent] in {}", crate::config::PATH);
    // What the line says of it is meant.
    let plugin = wrong(Source::Plugin, told.unwrap_or(name), format!("add cluster={name} to {place}"));
    plugin.into_iter().chain(wrong(Source::Agent, told.unwrap_or(name), agent)).collect()
}

/// What the recorder reads is there only if Slurm makes cgroups and limits.
fn slurm(conf: &SlurmConf) -> Vec<Finding> {
    let (path, subject) = (conf.path.display(), "cgroups");
    let mut findings = Vec::new();
    // It is what Slurm does when nothing is said.
    if let Some(kind) = conf.get("ProctrackType").filter(|kind| *kind != "proctrack/cgroup") {
        findings.push(Finding::wrong(
            subject,
            format!("{path} says ProctrackType={kind}: steps have no cgroup to read"),
            "write ProctrackType=proctrack/cgroup and restart slurmd",
        ));
    }
    if !["task/cgroup", "cgroup"].iter().any(|name| conf.lists("TaskPlugin", name)) {
        findings.push(Finding::wrong(
            subject,
            format!("TaskPlugin in {path} does not name task/cgroup: memory kills and peaks cannot be seen"),
            "write TaskPlugin=task/cgroup,task/affinity and restart slurmd",
        ));
    } else if let Ok(cgroup) = conf.beside("cgroup.conf")
        && !cgroup.get("ConstrainRAMSpace").is_some_and(|v| v.eq_ignore_ascii_case("yes"))
    {
        findings.push(Finding::warning(
            subject,
            format!(
                "{} does not say ConstrainRAMSpace=yes: a job may eat the memory of others, and the kernel then kills \
                 by its own choice",
                cgroup.path.display()
            ),
            "write ConstrainRAMSpace=yes and restart slurmd",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(subject, "Slurm makes a cgroup of every step and limits its memory"));
    }
    findings
}

fn agent(options: &Options) -> Finding {
    let socket = options.or_default().agent.socket;
    let shown = socket.display();
    let connected = UnixDatagram::unbound().and_then(|s| s.connect(&socket));
    match connected {
        Ok(()) => Finding::ok("agent", "runs"),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            Finding::ok("agent", "does not run here; it is optional, and sees single processes die")
        }
        Err(e) => Finding::wrong(
            "agent",
            format!("{shown} is there, but nobody listens: {e}"),
            "systemctl restart inquest-agent; journalctl -u inquest-agent says why it ended",
        ),
    }
}
