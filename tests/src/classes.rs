//! What the catalogue leaves out: with it, one run holds every class that can be produced for real.
//! These jobs need partitions and places that `stage` makes.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::catalogue::{Action, CATALOGUE, Entry, How, PLAIN, slurm, verdict};
use crate::cluster::{Cluster, Config};

/// A cluster on which every entry can run: two nodes for most, one where jobs give way to others, one
/// that goes down.
pub fn config() -> Config {
    let extra = [
        "PreemptType=preempt/partition_prio",
        "PreemptMode=CANCEL",
        "PartitionName=low Nodes=ALL PriorityTier=1 PreemptMode=CANCEL",
        "PartitionName=high Nodes=ALL PriorityTier=50",
        "PartitionName=edge Nodes=ALL PriorityTier=100",
    ];
    Config { nodes: 4, extra_slurm_conf: extra.map(str::to_owned).to_vec(), ..Config::default() }
}

/// A small file system of the test's, gone with the value.
#[derive(Debug)]
pub struct Stage(std::path::PathBuf);

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

/// Give each partition its nodes, and the jobs their programs and a file system of 64 kB.
pub fn stage(cluster: &Cluster) -> Result<Stage> {
    let [first, second, third, _] = &cluster.nodes()[..] else { bail!("four nodes are needed") };
    let main = format!("Nodes={first},{second}");
    cluster.scontrol(&["update", "PartitionName=main", &main, "PriorityTier=100"])?;
    for partition in ["low", "high"] {
        let (name, nodes) = (format!("PartitionName={partition}"), format!("Nodes={third}"));
        cluster.scontrol(&["update", &name, &nodes])?;
    }
    let source = cluster.work_dir().join("assert.c");
    fs::write(
        &source,
        "#include <assert.h>\nint main(void) { int cells = 0; assert(cells > 0); return 0; }\n",
    )?;
    let program = cluster.work_dir().join("assert");
    let compiled = Command::new("gcc").arg("-o").args([&program, &source]).status().context("gcc")?;
    if !compiled.success() {
        bail!("gcc ended with {compiled}");
    }
    fs::write(cluster.work_dir().join("not-a-program"), "data\n")?;
    let small = cluster.work_dir().join("small");
    fs::create_dir(&small)?;
    rustix::mount::mount(
        "tmpfs",
        &small,
        "tmpfs",
        rustix::mount::MountFlags::empty(),
        Some(c"size=64k,mode=1777"),
    )?;
    Ok(Stage(small))
}

/// Every entry of the one run.
pub fn entries() -> impl Iterator<Item = &'static Entry> {
    CATALOGUE.iter().chain(MORE)
}

const fn script(text: &'static str) -> How {
    How::Sbatch(&[], text)
}

const FAILED: Entry =
    Entry { slurm: slurm("FAILED", "1:0"), verdict: verdict("app_error", "app_error"), ..PLAIN };

/// The entries.
pub const MORE: &[Entry] = &[
    Entry {
        name: "hungry",
        what: "needs some 60 MB and has 48",
        how: How::Sbatch(
            &["--mem=48M"],
            "exec /usr/bin/python3 -c 'grid = b\"x\" * (50 << 20); print(\"done\")'\n",
        ),
        slurm: slurm("OUT_OF_MEMORY", "0:125"),
        verdict: verdict("oom", "oom_cgroup"),
        mended: true,
        ..PLAIN
    },
    Entry {
        name: "hungry-array",
        what: "two of four members of an array need more memory than they have",
        how: How::Sbatch(
            &["--mem=48M", "--array=0-3"],
            "exec /usr/bin/python3 -c 'import os
grid = b\"x\" * ((50 if os.environ[\"SLURM_ARRAY_TASK_ID\"] in \"13\" else 5) << 20)
print(\"done\")'
",
        ),
        slurm: slurm("OUT_OF_MEMORY", "0:125"),
        array: Some((4, &[1, 3])),
        verdict: verdict("oom", "oom_cgroup"),
        mended: true,
        ..PLAIN
    },
    Entry {
        name: "no-memory",
        what: "an allocation fails at a limit that no cgroup knows",
        how: script("ulimit -v 400000; exec /usr/bin/python3 -c 'grid = bytearray(1 << 30)'\n"),
        log: Some(("oom", "MemoryError")),
        ..FAILED
    },
    Entry {
        name: "checkpoints",
        what: "needs a minute and a half, has one, and goes on where it stopped",
        how: How::Sbatch(
            &["--time=1"],
            "from=$(cat checkpoint 2>/dev/null || echo 0)
for ((step = from; step < 95; step++)); do echo $step > checkpoint; sleep 1; done
echo done
",
        ),
        slurm: slurm("TIMEOUT", "0:15"),
        verdict: verdict("timeout", "timeout"),
        slow: true,
        mended: true,
        ..PLAIN
    },
    Entry {
        name: "told-in-time",
        what: "ends with code 0 when it is told that its time is over",
        how: How::Sbatch(&["--time=1"], "trap 'echo saved; exit 0' TERM\nsleep 600 & wait\n"),
        slurm: slurm("TIMEOUT", "0:0"),
        verdict: verdict("timeout", "timeout_handled"),
        slow: true,
        ..PLAIN
    },
    Entry {
        name: "preempted",
        what: "gives way to a job of a partition that goes before",
        how: How::Sbatch(&["--partition=low"], "sleep 20\necho done\n"),
        action: Action::Preempt,
        slurm: slurm("PREEMPTED", "0:15"),
        verdict: verdict("preempted", "preempted"),
        mended: true,
        ..PLAIN
    },
    Entry {
        name: "node-down",
        what: "its node goes down under it",
        how: How::Sbatch(&["--partition=edge", "--no-requeue"], "sleep 20\necho done\n"),
        action: Action::NodeDown,
        slurm: slurm("NODE_FAIL", "1:0"),
        verdict: verdict("infra", "node_fail"),
        slow: true,
        mended: true,
        ..PLAIN
    },
    Entry {
        name: "assertion",
        what: "a C program fails an assertion",
        how: script("exec ./assert\n"),
        slurm: slurm("FAILED", "0:6"),
        verdict: verdict("crash", "signal"),
        log: Some(("crash", "Assertion `cells > 0' failed")),
        ..PLAIN
    },
    Entry {
        name: "division",
        what: "a program dies by SIGFPE",
        how: script("kill -FPE $$\n"),
        slurm: slurm("FAILED", "0:8"),
        verdict: verdict("crash", "signal"),
        ..PLAIN
    },
    Entry {
        name: "child-crash",
        what: "a program that the script calls writes where it may not",
        how: script(
            "/usr/bin/python3 -c 'import os, signal; os.kill(os.getpid(), signal.SIGSEGV)'\nexit $?\n",
        ),
        slurm: slurm("FAILED", "139:0"),
        verdict: verdict("crash", "child_signal"),
        log: Some(("crash", "Segmentation fault")),
        ..PLAIN
    },
    Entry {
        name: "step-killed",
        what: "the task of a step is killed with kill -9 from inside",
        how: script("srun -n1 sh -c 'kill -9 $$'\nexit $?\n"),
        slurm: slurm("FAILED", "137:0"),
        verdict: verdict("crash", "killed_other"),
        first: Some(("0", 0)),
        ..PLAIN
    },
    Entry {
        name: "ranks-crash",
        what: "rank 2 of 4 crashes first, the others are killed because of it",
        how: How::Sbatch(
            &["-n4"],
            "srun -n4 --kill-on-bad-exit=1 sh -c '
if [ $SLURM_PROCID = 2 ]; then sleep 1; kill -SEGV $$; fi
sleep 300
'
exit $?
",
        ),
        slurm: slurm("FAILED", "143:0"),
        verdict: verdict("crash", "signal"),
        first: Some(("0", 2)),
        ..PLAIN
    },
    Entry {
        name: "second-step",
        what: "the second of two steps fails",
        how: script("srun -n1 true\nsrun -n1 sh -c 'echo the field has no cells >&2; exit 7'\nexit $?\n"),
        slurm: slurm("FAILED", "7:0"),
        first: Some(("1", 0)),
        ..FAILED
    },
    Entry {
        name: "hidden",
        what: "the reason is an exception below the one that a reader sees",
        how: script(
            "exec /usr/bin/python3 - <<'END'
class DependencyError(Exception):
    pass
def simulate():
    return 'steps: ' + 7
try:
    simulate()
except TypeError as reason:
    raise DependencyError('Dependency failure for task 1') from reason
END
",
        ),
        log: Some(("app_error", "TypeError: can only concatenate str")),
        ..FAILED
    },
    Entry {
        name: "import",
        what: "a Python module is not there",
        how: script("exec /usr/bin/python3 -c 'import solver_of_the_department'\n"),
        log: Some(("env", "No module named 'solver_of_the_department'")),
        ..FAILED
    },
    Entry {
        name: "unbound",
        what: "a variable of the script is not set",
        how: script("set -u\necho $OUTPUT_DIRECTORY\n"),
        log: Some(("app_error", "OUTPUT_DIRECTORY: unbound variable")),
        ..FAILED
    },
    Entry {
        name: "no-program",
        what: "a program is not there",
        how: script("solve-it --fast\n"),
        slurm: slurm("FAILED", "127:0"),
        verdict: verdict("app_error", "launch_fail"),
        log: Some(("env", "solve-it: command not found")),
        ..PLAIN
    },
    Entry {
        name: "no-execute",
        what: "a file is no program",
        how: script("./not-a-program\n"),
        slurm: slurm("FAILED", "126:0"),
        verdict: verdict("app_error", "launch_fail"),
        log: Some(("permission", "not-a-program: Permission denied")),
        ..PLAIN
    },
    Entry {
        name: "no-input",
        what: "an input file is not there",
        how: script("set -e\nsort data/mesh.txt\n"),
        slurm: slurm("FAILED", "2:0"),
        log: Some(("filesystem", "data/mesh.txt: No such file or directory")),
        ..FAILED
    },
    Entry {
        name: "disk-full",
        what: "a file system of 64 kB is full",
        how: script("dd if=/dev/zero of=small/field bs=16k count=8\n"),
        log: Some(("disk_full", "No space left on device")),
        ..FAILED
    },
    Entry {
        name: "forbidden",
        what: "a file is not for this user",
        how: script("cat /etc/shadow\n"),
        log: Some(("permission", "/etc/shadow: Permission denied")),
        ..FAILED
    },
    Entry {
        name: "refused",
        what: "nobody listens where a service should",
        how: script(
            "exec /usr/bin/python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 1))'\n",
        ),
        log: Some(("network", "Connection refused")),
        ..FAILED
    },
    Entry {
        name: "half-written",
        what: "a file of settings ends in the middle",
        how: script("exec /usr/bin/python3 -c 'import json; json.loads(\"{\\\"grid\\\": \")'\n"),
        log: Some(("parse_error", "JSONDecodeError")),
        ..FAILED
    },
    Entry {
        name: "noisy",
        what: "says error many times, fails twice, tries again and ends well",
        how: script(
            "for i in 1 2; do cat no-such-file || echo \"attempt $i failed, retrying\" >&2; done
echo 'error: 0.0123 error rate 1e-9 no errors found'
exit 0
",
        ),
        ..PLAIN
    },
];
