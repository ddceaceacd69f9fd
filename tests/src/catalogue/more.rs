//! More jobs, each for one thing that a node can know of it. They are for what is recorded: the demo
//! does not show them.

use super::{Entry, How, PLAIN, slurm, verdict};

/// Beside the catalogue.
pub const MORE: &[Entry] = &[
    Entry {
        name: "pairs",
        what: "four tasks that end with 0, 1, 2 and 3",
        how: How::Sbatch(&["-n4"], "srun -n4 sh -c 'exit $SLURM_PROCID'\nexit 0\n"),
        ..PLAIN
    },
    Entry {
        name: "at-once",
        what: "sixteen steps at once",
        how: How::Sbatch(
            &[],
            "for i in $(seq 16); do srun --overlap -n1 --mem=0 sleep 1 & done\nwait\nexit 0\n",
        ),
        ..PLAIN
    },
    Entry {
        name: "gpu-oom",
        what: "ends with 1 and the words of a graphics card that is out of memory",
        how: How::Sbatch(
            &[],
            "echo 'RuntimeError: CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0)' >&2\nexit 1\n",
        ),
        slurm: slurm("FAILED", "1:0"),
        verdict: verdict("app_error", "app_error"),
        ..PLAIN
    },
    Entry {
        name: "near-limit",
        what: "takes 95 % of its memory and ends well",
        how: How::Sbatch(
            &["--mem=200M"],
            "/usr/bin/python3 -c 'held = bytearray(183 << 20); import time; time.sleep(3)'\n",
        ),
        ..PLAIN
    },
    Entry {
        name: "limit-caught",
        what: "catches the SIGTERM of its time limit and exits 0",
        how: How::Sbatch(&["--time=1"], "trap 'exit 0' TERM\nsleep 600 & wait\n"),
        slurm: slurm("TIMEOUT", "0:0"),
        slow: true,
        verdict: verdict("timeout", "timeout_handled"),
        ..PLAIN
    },
    Entry {
        name: "limit-warned",
        what: "asks for SIGUSR1 before its time limit and does not handle it",
        how: How::Sbatch(&["--time=2", "--signal=B:USR1@50"], "exec sleep 600\n"),
        slurm: slurm("FAILED", "0:10"),
        slow: true,
        verdict: verdict("timeout", "limit_warning"),
        ..PLAIN
    },
    Entry {
        name: "signals",
        what: "five steps that crash in five ways, with core files",
        how: How::Sbatch(
            &[],
            "ulimit -c unlimited\nfor s in SEGV ABRT BUS ILL FPE; do srun -n1 sh -c \"kill -$s \\$\\$\"; done\nexit 0\n",
        ),
        verdict: verdict("crash", "crash_masked"),
        first: Some(("0", 0)),
        ..PLAIN
    },
    Entry {
        name: "exit139",
        what: "hands on the exit code of a child that died by SIGSEGV",
        how: How::Sbatch(&[], "sh -c 'kill -SEGV $$'\nexit $?\n"),
        slurm: slurm("FAILED", "139:0"),
        child: Some("sh"),
        verdict: verdict("crash", "child_signal"),
        ..PLAIN
    },
    Entry {
        name: "burst",
        what: "an array of five that are all OOM-killed, as soon as all of them run",
        how: How::Sbatch(
            &["--array=0-4", "--mem=64M"],
            "touch here-$SLURM_ARRAY_JOB_ID-$SLURM_ARRAY_TASK_ID
until set -- here-$SLURM_ARRAY_JOB_ID-*; [ $# = 5 ]; do sleep 0.2; done
exec /usr/bin/python3 -c 'eaten = [bytearray(4 << 20) for _ in range(128)]'\n",
        ),
        slurm: slurm("OUT_OF_MEMORY", "0:125"),
        array: Some((5, &[0, 1, 2, 3, 4])),
        verdict: verdict("oom", "oom_cgroup"),
        ..PLAIN
    },
    Entry {
        name: "first",
        what: "rank 2 of 4 aborts, the others end with 1 when it is gone",
        how: How::Sbatch(
            &["-N1", "-n4"],
            "srun -n4 --kill-on-bad-exit=0 sh -c '
pid=first-$SLURM_JOB_ID
[ $SLURM_PROCID = 2 ] && { echo $$ >$pid; kill -ABRT $$; }
until read -r first 2>/dev/null <$pid; do sleep 0.2; done
while kill -0 $first 2>/dev/null; do sleep 0.2; done
exit 1
'
exit 1
",
        ),
        slurm: slurm("FAILED", "1:0"),
        verdict: verdict("crash", "signal"),
        first: Some(("0", 2)),
        ..PLAIN
    },
    Entry {
        name: "spike",
        what: "needs 150 MiB for 200 ms",
        how: How::Sbatch(
            &["--mem=300M"],
            "/usr/bin/python3 -c 'import time; x = bytearray(150 << 20); time.sleep(0.2); del x; time.sleep(1)'\n",
        ),
        ..PLAIN
    },
    Entry {
        name: "uneven",
        what: "two tasks, one with 20 MiB and one with 120 MiB",
        how: How::Sbatch(
            &["-n2", "--mem=300M"],
            "srun -n2 sh -c '/usr/bin/python3 -c \"x = bytearray((20 + 100 * $SLURM_PROCID) << 20)\"'\n",
        ),
        ..PLAIN
    },
    Entry {
        name: "busy",
        what: "computes for two seconds of CPU time",
        how: How::Sbatch(
            &[],
            "srun -n1 /usr/bin/python3 -c '
import time
while time.process_time() < 2: pass
'
",
        ),
        ..PLAIN
    },
    Entry {
        name: "members",
        what: "a pool that runs three members in one step, one of which crashes",
        how: How::Sbatch(
            &[],
            "srun -n1 bash -c '
for id in a b c; do
  WANDB_RUN_ID=$id bash -c \"sleep 0.5; [ $id != b ] || kill -SEGV \\$\\$\"
done
exit 0
'
",
        ),
        ..PLAIN
    },
    Entry {
        name: "oom-step",
        what: "a step is OOM-killed, srun ends with 1, the script goes on and exits 0",
        how: How::Sbatch(
            &["--mem=64M"],
            "srun -n1 /usr/bin/python3 -c 'eaten = [bytearray(4 << 20) for _ in range(128)]'
echo \"srun ended with $?\"
exit 0
",
        ),
        child: Some("python3"),
        verdict: verdict("oom", "oom_partial"),
        first: Some(("0", 0)),
        ..PLAIN
    },
    Entry {
        name: "child-crash",
        what: "a child dies by SIGSEGV, the script exits 0",
        how: How::Sbatch(&[], "bash -c 'kill -SEGV $$'\nsleep 1\nexit 0\n"),
        child: Some("bash"),
        ..PLAIN
    },
    Entry {
        name: "child-killed",
        what: "a child is killed with SIGKILL, the script exits 0",
        how: How::Sbatch(&[], "sleep 600 &\nsleep 1\nkill -KILL $!\nwait\nsleep 1\nexit 0\n"),
        child: Some("sleep"),
        ..PLAIN
    },
    Entry {
        name: "note",
        what: "says itself how far it is",
        how: How::Sbatch(
            &[],
            "./inquest note --strict --socket note-$SLURMD_NODENAME --kind stage 'half way'\n",
        ),
        note: Some("half way"),
        ..PLAIN
    },
    Entry {
        name: "note-file",
        what: "says it by appending a line to a file",
        how: How::Sbatch(
            &[],
            "echo '{\"kind\":\"stage\",\"text\":\"nearly there\"}' >>\"$INQUEST_NOTE\"\nexit 0\n",
        ),
        note: Some("nearly there"),
        ..PLAIN
    },
    Entry {
        name: "het",
        what: "a heterogeneous job of two components",
        how: How::Sbatch(&["-n1", ":", "-n1"], "srun --het-group=0,1 sh -c 'exit 0'\n"),
        ..PLAIN
    },
];

/// What newer releases of Slurm can do where they have cgroup v2, and swap.
pub const V2: &[Entry] = &[
    Entry {
        name: "oom-group",
        what: "a step asks to be killed as a whole; one of its two tasks takes too much; the script exits 0",
        how: How::Sbatch(
            &["-N1", "-n2", "--mem=64M"],
            "srun -n2 --oom-kill-step=1 sh -c '
[ $SLURM_PROCID = 1 ] || exec sleep 600
exec /usr/bin/python3 -c \"eaten = [bytearray(4 << 20) for _ in range(128)]\"
'
exit 0
",
        ),
        verdict: verdict("oom", "oom_partial"),
        child: Some("python3"),
        ..PLAIN
    },
    Entry {
        name: "swapped",
        what: "takes more than its memory, has some of it swapped out, and ends well",
        how: How::Sbatch(
            &["--mem=96M"],
            "/usr/bin/python3 -c 'held = bytearray(94 << 20); import time; time.sleep(3)'\n",
        ),
        ..PLAIN
    },
];
