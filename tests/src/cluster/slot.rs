//! A slot: the number that gives a cluster its directory, ports and node names, held by a file lock.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
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
    _lock: File,
}

impl Slot {
    /// Where all slots are.
    pub(super) fn root() -> &'static Path {
        Path::new(ROOT)
    }

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
            mine.get_or_insert(slot);
        }
        let Some(slot) = mine else {
            bail!("all {SLOTS} slots in {ROOT} are taken: stop a cluster first");
        };
        fs::create_dir(&slot.dir).with_context(|| format!("cannot create {}", slot.dir.display()))?;
        fs::set_permissions(&slot.dir, Permissions::from_mode(0o755))?;
        slot.record("boot", &boot_id())?;
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
        let path = format!("{ROOT}/{number}.lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot open {path}"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Slot { number, dir: Path::new(ROOT).join(number.to_string()), _lock: lock })),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(e)) => Err(e).with_context(|| format!("cannot lock {path}")),
        }
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

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}
