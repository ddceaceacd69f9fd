//! What a test asks of its cluster, and the files Slurm reads from it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// What a cluster shall be. `Config::default()` is two nodes, no plugin.
#[derive(Debug, Clone)]
pub struct Config {
    /// How many nodes, each with a slurmd of its own.
    pub nodes: usize,
    /// Call the nodes n1, n2, ... instead of by slot, where no other cluster of this machine does:
    /// Debian's slurmd names its cgroups after the node, so two nodes of one name would share them.
    pub short_names: bool,
    /// Lines of plugstack.conf. `{journal}` stands for the cluster's journal directory.
    pub plugstack: Vec<String>,
    /// Lines added to the end of slurm.conf.
    pub extra_slurm_conf: Vec<String>,
    /// slurm.conf's PrologFlags; empty leaves the line out.
    pub prolog_flags: String,
    /// Run slurmdbd on a MariaDB of the cluster's own.
    pub accounting: bool,
    /// A root directory whose Slurm shall run, as `ci/roots` makes them; None for the machine's own.
    pub root: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            nodes: 2,
            short_names: false,
            plugstack: Vec::new(),
            extra_slurm_conf: Vec::new(),
            prolog_flags: "Alloc,Contain".into(),
            accounting: false,
            root: None,
        }
    }
}

/// The ports and places that a slot fixes.
pub(super) struct Layout<'a> {
    pub(super) dir: &'a Path,
    pub(super) cluster_name: String,
    pub(super) nodes: &'a [String],
    pub(super) slurmctld_port: u16,
    pub(super) slurmd_ports: &'a [u16],
    /// Where slurmdbd and MariaDB listen, when they do.
    pub(super) accounting_ports: Option<(u16, u16)>,
}

impl Config {
    pub(super) fn slurm_conf(&self, at: &Layout<'_>) -> String {
        let dir = at.dir.display();
        let mut conf = format!(
            "ClusterName={name}
SlurmctldHost=localhost
SlurmctldPort={port}
SlurmUser=slurm
AuthType=auth/munge
AuthInfo=socket={dir}/munge/socket,cred_expire=20
StateSaveLocation={dir}/state
SlurmdSpoolDir={dir}/spool/%n
SlurmctldPidFile={dir}/pid/slurmctld
SlurmdPidFile={dir}/pid/slurmd-%n
SlurmctldLogFile={dir}/log/slurmctld.log
SlurmdLogFile={dir}/log/slurmd-%n.log
PlugStackConfig={dir}/etc/plugstack.conf
ProctrackType=proctrack/cgroup
TaskPlugin=task/cgroup
JobAcctGatherType=jobacct_gather/cgroup
{accounting}
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
LaunchParameters=use_interactive_step
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
MinJobAge=600
SlurmctldTimeout=10
DefMemPerNode=200
MailProg=/bin/true
",
            name = at.cluster_name,
            port = at.slurmctld_port,
            accounting = at.accounting_ports.map_or(
                "AccountingStorageType=accounting_storage/none".into(),
                |(port, _)| {
                    format!(
                        "AccountingStorageType=accounting_storage/slurmdbd\nAccountingStorageHost=localhost\n\
                     AccountingStoragePort={port}\nAccountingStoragePass={dir}/munge/socket"
                    )
                }
            ),
        );
        if !self.prolog_flags.is_empty() {
            let _ = writeln!(conf, "PrologFlags={}", self.prolog_flags);
        }
        for (node, port) in at.nodes.iter().zip(at.slurmd_ports) {
            // CPUs=16 on any machine, by config_overrides: tests mostly sleep, and many run at once.
            let _ = writeln!(
                conf,
                "NodeName={node} NodeAddr=127.0.0.1 NodeHostname=localhost Port={port} CPUs=16 RealMemory=8000 State=UNKNOWN"
            );
        }
        conf.push_str("PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP\n");
        for line in &self.extra_slurm_conf {
            conf.push_str(line);
            conf.push('\n');
        }
        conf
    }

    pub(super) fn slurmdbd_conf(at: &Layout<'_>, (port, database): (u16, u16)) -> String {
        let dir = at.dir.display();
        format!(
            "AuthType=auth/munge
AuthInfo=socket={dir}/munge/socket,cred_expire=20
DbdHost=localhost
DbdPort={port}
SlurmUser=slurm
PidFile={dir}/pid/slurmdbd
LogFile={dir}/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database}
StorageUser=slurm
StorageLoc=slurm_acct_db
"
        )
    }

    pub(super) fn plugstack_conf(&self, journal: &Path) -> String {
        let journal = journal.display().to_string();
        self.plugstack.iter().map(|line| line.replace("{journal}", &journal) + "\n").collect()
    }

    pub(super) fn cgroup_conf() -> &'static str {
        "CgroupPlugin=cgroup/v1
CgroupAutomount=yes
CgroupMountpoint=/sys/fs/cgroup
ConstrainRAMSpace=yes
ConstrainSwapSpace=no
"
    }
}
