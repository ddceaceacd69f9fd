//! A private Slurm cluster on this machine: slurmctld, any number of slurmd, munge, all with their
//! own key, ports, directories and configuration. Several run at once, and none of them touches
//! the machine's own Slurm. It ends with its value, also when a test panics; what a killed process
//! left behind is swept by the next start.

mod accounting;
mod config;
mod jobs;
mod process;
mod root;
mod slot;
mod sweep;

use std::fs::{self, File, Permissions};
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use serde_json::Value;

pub use config::Config;
pub use jobs::JobRecord;
pub use process::Process;

use crate::artefacts;
use config::Layout;
use slot::{Lock, Slot};

/// Ordinary users that jobs run as; made by the first start where they are missing.
pub const USERS: [&str; 2] = ["inquest-test1", "inquest-test2"];

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    slot: Slot,
    /// Whose Slurm runs; None is the machine's.
    root: Option<PathBuf>,
    nodes: Vec<String>,
    daemons: Vec<Child>,
    /// Held while the nodes are called n1, n2, ...
    _short_names: Option<Lock>,
    stopped: bool,
}

impl Cluster {
    /// Start a cluster and wait until every node is idle. Needs root, Slurm and munge.
    pub fn start(config: Config) -> Result<Cluster> {
        if !rustix::process::geteuid().is_root() {
            bail!("a private Slurm cluster needs root: slurmd starts jobs as other users");
        }
        if memory_of_cgroup_v1().is_none() {
            bail!(
                "a private Slurm cluster needs the memory hierarchy of cgroup v1, which this machine has not mounted: \
                 boot it with systemd.unified_cgroup_hierarchy=0, or use ci/vm, where a kernel with cgroup v2 runs"
            );
        }
        for user in USERS {
            make_user(user)?;
        }
        let slot = Slot::acquire()?;
        let short_names = if config.short_names { short_names(config.nodes)? } else { None };
        let nodes: Vec<String> = (1..=config.nodes)
            .map(|n| match short_names {
                Some(_) => format!("n{n}"),
                None => slot.node_name(n),
            })
            .collect();
        // From here on Drop cleans up whatever was started.
        let mut cluster = Cluster {
            slot,
            root: config.root.clone(),
            nodes,
            daemons: Vec::new(),
            _short_names: short_names,
            stopped: false,
        };
        let accounting = cluster.configure(&config)?;
        cluster.start_munge()?;
        if let Some(ports) = accounting {
            cluster.start_accounting(ports)?;
        }
        cluster.daemon("slurmctld", &["-D", "-c"])?;
        for node in cluster.nodes.clone() {
            cluster.daemon("slurmd", &["-D", "-N", &node])?;
        }
        cluster.wait_nodes(Duration::from_secs(60))?;
        Ok(cluster)
    }

    /// End everything that runs on the cluster, and the cluster.
    pub fn stop(mut self) -> Result<()> {
        self.end()
    }

    /// Leave the cluster running after this process; `stop_kept` ends it.
    pub fn keep(mut self) -> Result<()> {
        self.slot.keep()?;
        self.stopped = true;
        Ok(())
    }

    /// End the clusters that `keep` left running. Returns their directories.
    pub fn stop_kept() -> Result<Vec<PathBuf>> {
        let mut ended = Vec::new();
        for slot in Slot::kept()? {
            sweep::all(&slot.dir)?;
            ended.push(slot.dir);
        }
        Ok(ended)
    }

    /// Have every step that starts from now on recorded by the plugin as it is shipped, from a copy
    /// that every user may read. `more` goes to its arguments.
    pub fn record(&self, more: &str) -> Result<()> {
        let so = self.place(&artefacts::plugin(), "spank_inquest.so")?;
        self.plugstack(&format!("optional {so} journal={} {more}", self.journal_dir().display()))
    }

    /// The same, and of every job its prolog and epilog by the plugin's second object. slurmd looks for these
    /// hooks when it starts, so each slurmd is started anew.
    pub fn record_jobs(&mut self, more: &str) -> Result<()> {
        let journal = self.journal_dir().display().to_string();
        let steps = self.place(&artefacts::plugin(), "spank_inquest.so")?;
        let jobs = self.place(&artefacts::plugin_of_jobs(), "spank_inquest_job.so")?;
        self.plugstack(&format!(
            "optional {steps} journal={journal} {more}\noptional {jobs} journal={journal} {more}"
        ))?;
        for node in self.nodes() {
            let starts = |cluster: &Cluster| cluster.slurmd_log(&node).matches("slurmd started on").count();
            let before = starts(self);
            self.kill_and_restart_slurmd(&node)?;
            let deadline = Instant::now() + Duration::from_secs(30);
            while starts(self) == before {
                if Instant::now() > deadline {
                    bail!("slurmd of {node} has not started again: {}", self.slurmd_log(&node));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    /// A copy of a plugin or a program that every user may read and run, as where a real one lies.
    pub fn place(&self, file: &Path, name: &str) -> Result<String> {
        let copy = self.dir().join(name);
        if !copy.exists() {
            fs::copy(file, &copy).with_context(|| format!("cannot make {}", copy.display()))?;
            fs::set_permissions(&copy, Permissions::from_mode(0o755))?;
        }
        Ok(copy.display().to_string())
    }

    /// The `inquest` command, as root or as `user`, on the store of this cluster; the copy of it that
    /// every user may run.
    pub fn inquest(&self, user: Option<&str>, arguments: &[&str]) -> Command {
        let inquest = self.place(&artefacts::inquest(), "inquest").unwrap_or_else(|e| panic!("{e:#}"));
        let mut command = self.command(user, &inquest);
        command.args(arguments).env("INQUEST_STORE", self.store());
        command
    }

    /// What such a command answers in JSON; null where that is none.
    pub fn inquest_json(&self, arguments: &[&str]) -> Value {
        let output = self.inquest(None, arguments).output().unwrap_or_else(|e| panic!("inquest: {e}"));
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// `inquest collect` from the cluster's journal directory into its store.
    pub fn collect(&self, more: &[&str]) -> Command {
        let mut command = self.inquest(None, &["collect", "--journal"]);
        command.arg(self.journal_dir()).args(more);
        command
    }

    /// Writes plugstack.conf, which every command and step reads anew.
    pub fn plugstack(&self, lines: &str) -> Result<()> {
        Ok(fs::write(self.dir().join("etc/plugstack.conf"), format!("{lines}\n"))?)
    }

    /// SIGKILL to the slurmd of a node, and another slurmd in its place.
    pub fn kill_and_restart_slurmd(&mut self, node: &str) -> Result<()> {
        let at = self.nodes.iter().position(|n| n == node).with_context(|| format!("no node {node}"))?;
        // Behind munged and slurmctld.
        let mut killed = self.daemons.remove(at + 2);
        // It may have ended by itself; waiting tells.
        let _ = killed.kill();
        killed.wait()?;
        self.daemon("slurmd", &["-D", "-N", node])?;
        self.daemons[at + 2..].rotate_right(1);
        Ok(())
    }

    /// SIGKILL to everything of a node at once, slurmstepds and jobs too, as when its power goes;
    /// then another slurmd in its place.
    pub fn crash(&mut self, node: &str) -> Result<()> {
        for tree in sweep::cgroup_trees(node) {
            for process in sweep::cgroup_processes(&tree) {
                process.signal(Signal::KILL);
            }
        }
        self.kill_and_restart_slurmd(node)
    }

    /// The process of a node's slurmd.
    pub fn slurmd_pid(&self, node: &str) -> Option<u32> {
        let at = self.nodes.iter().position(|n| n == node)?;
        self.daemons.get(at + 2).map(Child::id)
    }

    /// Have a process that was started beside the cluster end with it.
    pub fn adopt(&self, name: &str, pid: u32) -> Result<()> {
        let process = i32::try_from(pid)
            .ok()
            .and_then(Process::of)
            .with_context(|| format!("{name} (pid {pid}) has ended already"))?;
        self.slot.record_process(name, process)
    }

    /// The cluster's directory; everything it writes is below.
    pub fn dir(&self) -> &Path {
        &self.slot.dir
    }

    /// For the environment variable SLURM_CONF.
    pub fn slurm_conf(&self) -> PathBuf {
        self.dir().join("etc/slurm.conf")
    }

    /// A journal directory for the plugin; root's, like on a real node.
    pub fn journal_dir(&self) -> PathBuf {
        self.dir().join("journal")
    }

    /// Where `collect` merges into.
    pub fn store(&self) -> PathBuf {
        self.dir().join("store")
    }

    /// Where commands and jobs run. Everyone may write here.
    pub fn work_dir(&self) -> PathBuf {
        self.dir().join("work")
    }

    /// Node names.
    pub fn nodes(&self) -> Vec<String> {
        self.nodes.clone()
    }

    /// Every process of the cluster: daemons, slurmstepds, jobs.
    pub fn processes(&self) -> Vec<Process> {
        sweep::processes(self.dir())
    }

    /// The cgroup directories of the cluster's nodes, one per node and hierarchy.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        self.nodes.iter().flat_map(|node| sweep::cgroup_trees(node)).collect()
    }

    /// What a node's slurmd and slurmstepds have logged.
    pub fn slurmd_log(&self, node: &str) -> String {
        fs::read_to_string(self.dir().join(format!("log/slurmd-{node}.log"))).unwrap_or_default()
    }

    /// Writes all files; says where slurmdbd and MariaDB shall listen.
    fn configure(&self, config: &Config) -> Result<Option<(u16, u16)>> {
        let dir = self.dir();
        let slurm = user_ids("slurm").context("there is no user slurm: install slurmctld")?;
        let munge = user_ids("munge").context("there is no user munge: install munge")?;
        // Owner and mode are what the daemons insist on.
        for (name, owner, mode) in [
            ("etc", None, 0o755),
            ("munge", Some(munge), 0o755),
            ("state", Some(slurm), 0o755),
            ("spool", None, 0o755),
            ("pid", Some(slurm), 0o755),
            ("log", Some(slurm), 0o755),
            ("journal", None, 0o755),
            ("work", None, 0o1777),
            ("database", user_ids("mysql").filter(|_| config.accounting), 0o755),
        ] {
            let path = dir.join(name);
            fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
            fs::set_permissions(&path, Permissions::from_mode(mode))?;
            if let Some((uid, gid)) = owner {
                chown(&path, Some(uid), Some(gid))?;
            }
        }

        let mut key = [0; 128];
        File::open("/dev/urandom")?.read_exact(&mut key)?;
        let path = dir.join("munge/key");
        fs::write(&path, key)?;
        fs::set_permissions(&path, Permissions::from_mode(0o400))?;
        chown(&path, Some(munge.0), Some(munge.1))?;

        for node in &self.nodes {
            self.slot.record("node", node)?;
        }
        let ports = self.slot.free_ports(3 + self.nodes.len())?;
        let accounting_ports = config.accounting.then_some((ports[1], ports[2]));
        let layout = Layout {
            dir,
            cluster_name: format!("lab{}", self.slot.number),
            nodes: &self.nodes,
            slurmctld_port: ports[0],
            slurmd_ports: &ports[3..],
            accounting_ports,
        };
        if let Some(ports) = accounting_ports {
            accounting::write_conf(
                &dir.join("etc/slurmdbd.conf"),
                &Config::slurmdbd_conf(&layout, ports),
                slurm,
            )?;
        }
        fs::write(self.slurm_conf(), config.slurm_conf(&layout))?;
        fs::write(dir.join("etc/cgroup.conf"), Config::cgroup_conf())?;
        fs::write(dir.join("etc/plugstack.conf"), config.plugstack_conf(&self.journal_dir()))?;
        Ok(accounting_ports)
    }

    fn start_munge(&mut self) -> Result<()> {
        let at = |name: &str, file: &str| format!("--{name}={}/munge/{file}", self.dir().display());
        let args = [
            "--foreground".to_owned(),
            at("key-file", "key"),
            at("socket", "socket"),
            at("pid-file", "pid"),
            at("seed-file", "seed"),
            at("log-file", "log"),
        ];
        let socket = self.dir().join("munge/socket");
        self.daemon("munged", &args.each_ref().map(String::as_str))?;
        let deadline = Instant::now() + Duration::from_secs(20);
        while !fs::metadata(&socket).is_ok_and(|m| m.file_type().is_socket()) {
            self.check_daemons()?;
            if Instant::now() > deadline {
                bail!("munged has made no socket{}", self.logs());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Start a daemon in the foreground, so that its process id is known from the first moment,
    /// but in a session of its own: a Ctrl-C is for the owner, who then stops it in order.
    fn daemon(&mut self, program: &str, args: &[&str]) -> Result<()> {
        let user = match program {
            "munged" => user_ids("munge"),
            "mariadbd" => user_ids("mysql"),
            "slurmdbd" => user_ids("slurm"),
            _ => None,
        };
        // The database is the machine's whatever Slurm is tried.
        let root = self.root.as_deref().filter(|_| program != "mariadbd");
        let err = self.dir().join(format!("log/{program}-{}.err", self.daemons.len()));
        let err = File::create(&err).with_context(|| format!("cannot create {}", err.display()))?;
        let mut command = root::command(root, user, program);
        command
            .args(args)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("SLURM_CONF", self.slurm_conf())
            .env(sweep::MARKER, self.slot.marker())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(err.try_clone()?)
            .stderr(err);
        // SAFETY: setsid and umask are async-signal-safe and touch no memory.
        unsafe {
            command.pre_exec(|| {
                libc::setsid();
                libc::umask(0o022);
                Ok(())
            });
        }
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {program}: is it installed? Run ci/setup"))?;
        let process = i32::try_from(child.id()).ok().and_then(Process::of);
        self.daemons.push(child);
        match process {
            Some(process) => self.slot.record_process(program, process),
            None => self.check_daemons(),
        }
    }

    fn check_daemons(&mut self) -> Result<()> {
        for daemon in &mut self.daemons {
            if let Some(status) = daemon.try_wait()? {
                bail!("a daemon (pid {}) ended with {status}{}", daemon.id(), self.logs());
            }
        }
        Ok(())
    }

    fn wait_nodes(&mut self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        loop {
            self.check_daemons()?;
            let output = self.command(None, "sinfo").args(["-h", "-N", "-o", "%T"]).output()?;
            let states = String::from_utf8_lossy(&output.stdout);
            if output.status.success() && states.lines().all(|state| state == "idle") {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "the nodes are not idle after {timeout:?}, but {:?}{}{}",
                    states.lines().collect::<Vec<_>>(),
                    String::from_utf8_lossy(&output.stderr),
                    self.logs()
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The last lines of every log, for an error that must explain itself after the clean-up.
    fn logs(&self) -> String {
        let mut text = String::new();
        for dir in ["log", "munge"] {
            for file in fs::read_dir(self.dir().join(dir)).into_iter().flatten().flatten() {
                let name = file.file_name();
                if !name.to_string_lossy().contains("log") && !name.to_string_lossy().ends_with("err") {
                    continue;
                }
                let log = fs::read(file.path()).unwrap_or_default();
                let log = String::from_utf8_lossy(&log);
                let lines: Vec<&str> = log.lines().collect();
                let last = &lines[lines.len().saturating_sub(8)..];
                if !last.is_empty() {
                    text += &format!("\n--- {}\n{}", name.to_string_lossy(), last.join("\n"));
                }
            }
        }
        text
    }

    fn end(&mut self) -> Result<()> {
        if self.stopped {
            return Ok(());
        }
        self.stopped = true;
        // Let Slurm end the jobs in its own way where it can; the sweep kills the rest.
        let busy = || self.cgroups().iter().any(|tree| !sweep::cgroup_processes(tree).is_empty());
        if busy() {
            let _ = self.command(None, "timeout").args(["-k1", "5", "scancel", "--partition=main"]).output();
            let deadline = Instant::now() + Duration::from_secs(2);
            while busy() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        let swept = sweep::all(self.dir());

        for daemon in &mut self.daemons {
            // Reaps; the sweep has ended it. Not wait(): a Drop must not hang.
            let deadline = Instant::now() + Duration::from_secs(1);
            while matches!(daemon.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        swept
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(e) = self.end() {
            eprintln!("the cluster in {} has not ended cleanly: {e:#}", self.dir().display());
        }
    }
}

/// Where the memory hierarchy of cgroup v1 is mounted. On v2, a directory of that name is a cgroup that
/// somebody made.
pub fn memory_of_cgroup_v1() -> Option<&'static Path> {
    let mount = Path::new("/sys/fs/cgroup/memory");
    mount.join("memory.limit_in_bytes").exists().then_some(mount)
}

/// The right to the names n1, n2, ...; None when another cluster of this machine uses them.
fn short_names(nodes: usize) -> Result<Option<Lock>> {
    let lock = Lock::take("short-names")?;
    let free = (1..=nodes).all(|n| sweep::cgroup_trees(&format!("n{n}")).is_empty());
    Ok(lock.filter(|_| free))
}

/// User and group id, from /etc/passwd.
fn user_ids(name: &str) -> Option<(u32, u32)> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    let line = passwd.lines().find(|l| l.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn make_user(name: &str) -> Result<()> {
    if user_ids(name).is_some() {
        return Ok(());
    }
    let output = Command::new("useradd")
        .args(["--system", "--no-create-home", "--shell", "/bin/bash", name])
        .output()
        .context("cannot start useradd")?;
    // Two clusters may start at once: what counts is that the user is there.
    if user_ids(name).is_none() {
        bail!("cannot make user {name}: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(())
}
