//! A slot: the number that gives a cluster its directory, ports and node names, held by a
//! lock that every process of the machine sees, also from another root directory: the nodes' cgroups
//! and ports are the machine's, not the directory's.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::process::Process;
use super::sweep;

/// All clusters of this machine live below. Short, because unix sockets are, and on a path that
/// munge trusts and every user may pass. Not in /run, which is often mounted noexec: job scripts are
/// spooled here, and the plugin is loaded from here.
const ROOT: &str = "/var/lib/inquest-lab";
const SLOTS: u16 = 64;
/// Below the ephemeral range, away from Slurm's own 6817 and 6818.
const FIRST_PORT: u16 = 21_000;
const PORTS_PER_SLOT: u16 = 64;

/// A held slot. The lock ends with the process, so a crashed owner leaves a slot that can be taken.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) number: u16,
    pub(super) dir: PathBuf,
    _lock: Lock,
}

/// An abstract socket name: bound by one process at a time, and free when that has ended.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "held, not used")] UnixListener);

impl Lock {
    /// None when another process of the machine holds it.
    pub(super) fn take(name: &str) -> Result<Option<Lock>> {
        let name = format!("inquest-lab/{name}");
        match UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?) {
            Ok(socket) => Ok(Some(Lock(socket))),
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => Ok(None),
            Err(e) => Err(e).with_context(|| format!("cannot bind the abstract socket {name}")),
        }
    }
}

impl Slot {
    /// Take the first free slot, empty, after sweeping what crashed owners left in any of them.
    pub(super) fn acquire() -> Result<Slot> {
        fs::create_dir_all(ROOT).with_context(|| format!("cannot create {ROOT}"))?;
        fs::set_permissions(ROOT, Permissions::from_mode(0o755))?;
        let mut mine = None;
        for number in 0..SLOTS {
            let dir = Path::new(ROOT).join(number.to_string());
            if mine.is_some() && !dir.exists() {
                continue;
            }
            let Some(slot) = Slot::lock(number)? else {
                continue;
            };
            if slot.dir.exists() {
                if slot.is_kept() && Record::read(&slot.dir).is_running() {
                    continue;
                }
                sweep::all(&slot.dir)?;
            }
            if sweep::has_nodes(&node_name(number, "")) {
                // Kept or crashed in another root directory, whose record is not to be seen here.
                continue;
            }
            mine.get_or_insert(slot);
        }
        let Some(slot) = mine else {
            bail!("all {SLOTS} slots in {ROOT} are taken: stop a cluster first");
        };
        fs::create_dir(&slot.dir).with_context(|| format!("cannot create {}", slot.dir.display()))?;
        fs::set_permissions(&slot.dir, Permissions::from_mode(0o755))?;
        slot.record("boot", &boot_id())?;
        slot.record("marker", &slot.marker())?;
        Ok(slot)
    }

    /// The slots whose clusters were left running on purpose.
    pub(super) fn kept() -> Result<Vec<Slot>> {
        let mut kept = Vec::new();
        for number in 0..SLOTS {
            if Path::new(ROOT).join(number.to_string()).exists()
                && let Some(slot) = Slot::lock(number)?
                && slot.is_kept()
            {
                kept.push(slot);
            }
        }
        Ok(kept)
    }

    fn lock(number: u16) -> Result<Option<Slot>> {
        let dir = Path::new(ROOT).join(number.to_string());
        Ok(Lock::take(&number.to_string())?.map(|lock| Slot { number, dir, _lock: lock }))
    }

    /// What a node of this slot is called.
    pub(super) fn node_name(&self, node: usize) -> String {
        node_name(self.number, &node.to_string())
    }

    /// Value of the environment variable `MARKER` of this cluster's daemons; no other cluster's,
    /// before or after, is the same.
    pub(super) fn marker(&self) -> String {
        let owner = i32::try_from(std::process::id()).ok().and_then(Process::of);
        let start = owner.map_or(0, |owner| owner.start);
        format!("{}-{}-{start}", self.number, std::process::id())
    }

    /// Write down something that a sweep must find when this process cannot tell any more.
    pub(super) fn record(&self, kind: &str, what: &str) -> Result<()> {
        let path = self.dir.join("record");
        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        file.write_all(format!("{kind} {what}\n").as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))
    }

    pub(super) fn record_process(&self, name: &str, process: Process) -> Result<()> {
        self.record("process", &format!("{} {} {name}", process.pid, process.start))
    }

    /// Leave the cluster to `kept()`: nobody's start sweeps it while it runs.
    pub(super) fn keep(&self) -> Result<()> {
        fs::write(self.dir.join("kept"), "")?;
        Ok(())
    }

    fn is_kept(&self) -> bool {
        self.dir.join("kept").exists()
    }

    /// The first `count` ports of the slot that nobody listens on.
    pub(super) fn free_ports(&self, count: usize) -> Result<Vec<u16>> {
        let first = FIRST_PORT + self.number * PORTS_PER_SLOT;
        let free: Vec<u16> = (first..first + PORTS_PER_SLOT)
            .filter(|port| std::net::TcpListener::bind(("0.0.0.0", *port)).is_ok())
            .take(count)
            .collect();
        if free.len() < count {
            bail!("only {} of {count} ports are free from {first} on", free.len());
        }
        Ok(free)
    }
}

/// What `Slot::record` wrote.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) nodes: Vec<String>,
    /// What `Slot::marker` said.
    pub(super) marker: Option<String>,
    /// Empty when written before the last boot.
    pub(super) processes: Vec<Process>,
}

impl Record {
    pub(super) fn read(dir: &Path) -> Record {
        let text = fs::read_to_string(dir.join("record")).unwrap_or_default();
        let mut record = Record::default();
        let mut this_boot = false;
        for line in text.lines() {
            let mut words = line.split(' ');
            match (words.next(), words.next(), words.next()) {
                (Some("boot"), Some(id), _) => this_boot = id == boot_id(),
                (Some("marker"), Some(marker), _) => record.marker = Some(marker.into()),
                (Some("node"), Some(name), _) => record.nodes.push(name.into()),
                (Some("process"), Some(pid), Some(start)) if this_boot => {
                    if let (Ok(pid), Ok(start)) = (pid.parse(), start.parse()) {
                        record.processes.push(Process { pid, start });
                    }
                }
                _ => {}
            }
        }
        record
    }

    fn is_running(&self) -> bool {
        self.processes.iter().any(|p| p.is_alive())
    }
}

fn node_name(slot: u16, node: &str) -> String {
    format!("lab{slot}n{node}")
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}
