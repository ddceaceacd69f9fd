//! Whatever goes wrong, the host lives, every hook returns 0 and nothing is
//! written where the job would see it (asserted by `Host::run` each time).

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use inquest_tests::host::item::*;
use inquest_tests::host::{Host, faulty_plugin, faulty_plugin_of_jobs, plugin, plugin_of_jobs};
use inquest_tests::skip::skip;
use proptest::prelude::*;

const STEP: &str = "load\ninit\nfork 0 0 exit 3\nreap 0\nexit";
const JOB_HOOKS: &str = "load\nprolog\nepilog";

fn step() -> Host {
    Host::new().step(0)
}

fn job() -> Host {
    Host::new().job()
}

/// Both plugins: what Slurm knows there, all of the hooks, how many sentences a fault is worth (each hook of
/// a job is a process of its own, which says it anew), and who speaks.
type Plugin = (fn() -> Host, &'static str, usize, &'static str);
const BOTH: [Plugin; 2] = [(step, STEP, 1, "inquest: "), (job, JOB_HOOKS, 2, "inquest-job: ")];

#[test]
fn a_hostile_environment_is_bounded_and_repaired() {
    let run = Host::new()
        .step(BATCH)
        .script("bigenv SLURM_JOB_PARTITION x 1048576\nbigenv WANDB_RUN_ID y 1048576\nbigenv RUBBISH z 1048576")
        .script("bigenv SLURM_JOB_NUM_NODES 9 4096\nenv SLURM_RESTART_COUNT=-1\nenv SLURM_JOB_END_TIME=99999999999999999999")
        .script("env SLURM_JOB_ACCOUNT=a\\xff\\xfeb\nenv SLURM_SUBMIT_DIR=/x\\ny\\\"\\x01\\x1b[31m\nenv NOEQUALS\nenv =x\nenv")
        .script("env MLFLOW_RUN_ID=https://me:secret@host/\nbigenv INQUEST_RUN q 512\nbigenv RAY_JOB_ID q 513")
        .script("argv a\\xffb\nbigenv SLURM_JOB_QOS \\ 3000")
        .script(STEP)
        .run();
    assert_eq!(run.types().len(), 6);
    let job = run.of("job_started")[0];
    assert_eq!(job["cut"], true);
    assert!(job["partition"].as_str().unwrap().starts_with("xxx"));
    assert_eq!(job["account"], "a\u{fffd}\u{fffd}b");
    assert_eq!(job["node_count"], serde_json::Value::Null);
    assert_eq!(job["end_limit"], serde_json::Value::Null);
    // A value that is too long for an id is none; half of it would be another's.
    let env = job["env"].as_object().unwrap();
    assert_eq!(env.keys().collect::<Vec<_>>(), ["INQUEST_RUN"]);
}

#[test]
fn a_hostile_environment_of_a_job_is_bounded_and_repaired() {
    let run = job()
        .script("bigown SLURM_JOB_COMMENT c 1048576\nown SLURM_JOB_ACCOUNT=a\\xff\\xfeb\nown SLURM_JOB_STDOUT=(null)")
        .script("own SLURM_JOB_WORK_DIR=/x\\ny\\\"\\x01\\x1b[31m\nown SLURM_JOB_STDERR=\nown SLURM_JOB_PARTITION")
        .script("bigown SLURM_JOB_NUM_NODES 9 4096\nown SLURM_JOB_END_TIME=99999999999999999999")
        .script("own SLURM_JOB_RESTART_COUNT=-1\nown SLURM_HET_JOB_ID=4294967296\nbigown SLURM_JOB_QOS \\ 3000")
        .script("own SLURM_JOB_EXIT_CODE=-1\nown SLURM_JOB_DERIVED_EC=x\nbigown SPANK__SLURM_SPANK_OPTION_inquest_inquest_run r 9000")
        .script(JOB_HOOKS)
        .run();
    assert_eq!(run.types(), ["job_started", "job_ended"]);
    let (began, ended) = (&run.events[0], &run.events[1]);
    assert_eq!(began["cut"], true);
    assert_eq!(began["account"], "a\u{fffd}\u{fffd}b");
    for absent in ["stdout", "stderr", "partition", "node_count", "end_limit", "restart", "het_job_id"] {
        assert!(began[absent].is_null(), "{absent}: {began}");
    }
    for absent in ["exit_code", "signal", "derived_exit_code", "restart"] {
        assert!(ended[absent].is_null(), "{absent}: {ended}");
    }
    assert_eq!(ended["severity"], "info");
    // Slurm's own word for a job that ran out of memory is no signal.
    let run = job().script("own SLURM_JOB_EXIT_CODE=125\nload\nepilog").run();
    assert!(run.events[0]["signal"].is_null() && run.events[0]["exit_code"].is_null(), "{:?}", run.events);
}

#[test]
fn missing_and_lying_items_are_absent() {
    for error in [1, -1, 3000, 3009, 2_000_000_000] {
        for item in 0..32 {
            let run = Host::new().step(0).script(&format!("fail {item} {error}")).script(STEP).run();
            let expected = if item == JOB || item == STEP_ITEM { 0 } else { 4 };
            assert!(run.events.len() >= expected, "item {item}, error {error}: {:?}", run.types());
            assert!(!run.events.iter().any(|e| e.to_string().contains("48879")), "0xbeef was believed");
        }
    }
    for (item, events) in [(UID, 2), (GID, 2), (JOB, 0), (VERSION, 2)] {
        for error in [1, -1, 3009] {
            let run = job().script(&format!("fail {item} {error}")).script(JOB_HOOKS).run();
            assert_eq!(run.events.len(), events, "item {item}, error {error}");
            assert!(!run.events.iter().any(|e| e.to_string().contains("48879")), "0xbeef was believed");
        }
    }
    let nulls: String = [ARGV, ENV, VERSION, JOB_CORES, STEP_CORES].map(|i| format!("null {i}\n")).concat();
    let run = Host::new().step(0).script(&nulls).script(STEP).run();
    assert_eq!(run.types().len(), 5);
}

const STEP_ITEM: u32 = inquest_tests::host::item::STEP;

#[test]
fn a_bad_argument_is_one_sentence_and_silence() {
    for arg in
        ["jurnal=/x", "journal=relative", "sync=perhaps", "journal", "env=A B", "\\xff=1", "inject=init"]
    {
        for (host, hooks, times, who) in BOTH {
            let run = host().script(&format!("arg {arg}")).script(hooks).run();
            assert!(run.events.is_empty(), "{arg}");
            let said = run.said("info");
            assert_eq!(said.len(), times, "{arg}: {:?}", run.report);
            let right = |s: &&str| s.starts_with(&format!("{who}argument ")) && s.contains("plugstack.conf");
            assert!(said.iter().all(right), "{said:?}");
        }
    }
    // slurmd says it as an error, in its own log.
    let run = Host::new().script("context 4\narg x=1\nload\ninit").run();
    assert_eq!(run.said("error").len(), 1);
    let run = Host::new().script("context 4\narg env=MY_TOKEN,GOOD\nload\ninit").run();
    assert_eq!(run.said("info"), ["inquest: not recorded, because it may be a secret: MY_TOKEN"]);
}

#[test]
fn a_journal_that_cannot_be_written_costs_events_only() {
    type Break = fn(&std::path::Path);
    let broken: [(&str, Break); 5] = [
        ("missing", |j| fs::remove_dir(j).unwrap()),
        ("a file", |j| {
            fs::remove_dir(j).unwrap();
            fs::write(j, "").unwrap();
        }),
        ("a symlink", |j| {
            let elsewhere = j.with_file_name("elsewhere");
            fs::rename(j, &elsewhere).unwrap();
            symlink(&elsewhere, j).unwrap();
        }),
        ("writable by all", |j| fs::set_permissions(j, fs::Permissions::from_mode(0o777)).unwrap()),
        ("node is a symlink", |j| symlink("/tmp", j.join("n1")).unwrap()),
    ];
    for (name, break_it) in broken {
        for (host, hooks, times, who) in BOTH {
            let host = host().script(hooks);
            break_it(&host.dir.path().join("journal"));
            let run = host.run();
            let elsewhere = host.dir.path().join("elsewhere");
            assert!(!elsewhere.exists() || fs::read_dir(elsewhere).unwrap().next().is_none(), "{name}");
            let said = run.said("info");
            assert_eq!(said.len(), times, "{name}: {:?}", run.report);
            let right = |s: &&str| s.starts_with(who) && s.contains("The job is not affected");
            assert!(said.iter().all(right), "{name}: {said:?}");
        }
    }
}

#[test]
fn a_journal_that_comes_back_tells_what_was_lost() {
    let host = Host::new().step(0).script("load\ninit\nfork 0 0 mkdir -m 755 @dir@/journal\nreap 0\nexit");
    fs::remove_dir(host.dir.path().join("journal")).unwrap();
    let run = host.run();
    assert_eq!(run.types(), ["lost", "task_exited", "step_ended"]);
    assert_eq!(run.of("lost")[0]["count"], 3);
    assert_eq!(run.of("lost")[0]["seq"], 3);
}

#[test]
fn a_full_disk_costs_events_only() {
    // A file size limit stands in for the disk: it, too, ends in a short write,
    // and beyond it the kernel would kill with SIGXFSZ.
    let run = Host::new().wrapper(&["prlimit", "--fsize=700:700", "--core=0"]).step(BATCH).script(STEP).run();
    assert!(run.types().len() < 6, "{:?}", run.types());
    let long = job().script("bigown SLURM_JOB_COMMENT c 600").script(JOB_HOOKS);
    let run = long.wrapper(&["prlimit", "--fsize=700:700", "--core=0"]).run();
    assert_eq!(run.types(), ["job_ended"]);
}

#[test]
fn descriptors_that_are_gone_are_noticed() {
    let run = Host::new().step(0).script("load\ninit\nfork 0 0 true\nclose_from 3\nreap 0\nexit").run();
    assert_eq!(run.types().len(), 5);
    run.assert_gapless();
}

#[test]
fn a_panic_in_any_hook_is_silent_and_counted() {
    for (hook, types) in [
        ("init", vec!["step_ended"]),
        ("init_post_opt", vec!["step_ended"]),
        ("task_post_fork", vec!["step_ended"]),
        ("task_exit", vec!["job_started", "step_started", "task_started", "step_ended", "job_ended"]),
        (
            "exit",
            vec!["job_started", "step_started", "task_started", "task_exited", "step_ended", "job_ended"],
        ),
    ] {
        let run = Host::new()
            .plugin(faulty_plugin())
            .step(BATCH)
            .script(&format!("arg inject={hook}"))
            .script(STEP)
            .run();
        let got: Vec<_> = run.types().into_iter().filter(|t| types.contains(t)).collect();
        assert_eq!(got, types, "{hook}: {:?}", run.types());
        assert_eq!(run.of("step_ended")[0]["panics"], 1, "{hook}");
    }
}

#[test]
fn a_panic_in_a_hook_of_a_job_is_silent_and_the_other_hook_goes_on() {
    for (hook, left) in [("job_prolog", "job_ended"), ("job_epilog", "job_started")] {
        let faulty = job().plugin(faulty_plugin_of_jobs()).script(&format!("arg inject={hook}"));
        let run = faulty.script(JOB_HOOKS).run();
        assert_eq!(run.types(), [left], "{hook}");
        assert!(run.said("info").is_empty(), "{:?}", run.report);
    }
}

#[test]
fn only_slurms_names_are_exported_and_none_is_missing() {
    let of_steps = [
        "slurm_spank_exit",
        "slurm_spank_init",
        "slurm_spank_init_post_opt",
        "slurm_spank_task_exit",
        "slurm_spank_task_post_fork",
    ];
    exports(plugin(), &of_steps);
    exports(plugin_of_jobs(), &["slurm_spank_job_epilog", "slurm_spank_job_prolog"]);
}

fn exports(plugin: &std::path::Path, hooks: &[&str]) {
    let nm = |args: &[&str]| {
        let out = Command::new("nm").args(args).arg(plugin).output().expect("nm is installed (binutils)");
        assert!(out.status.success());
        String::from_utf8(out.stdout).unwrap()
    };
    let exported = nm(&["-D", "--defined-only"]);
    let mut names: Vec<_> = exported.lines().filter_map(|l| l.split_whitespace().last()).collect();
    names.sort_unstable();
    assert_eq!(names, [&["plugin_name", "plugin_type", "plugin_version"], hooks].concat());
    let wanted = nm(&["-D", "--undefined-only"]);
    assert!(!wanted.contains("slurm") && !wanted.contains("spank"), "{wanted}");
    for never in ["waitpid", "wait4", "pthread_create", "fork", "execve"] {
        let used = wanted
            .lines()
            .any(|l| l.split_whitespace().last().is_some_and(|n| n.split('@').next() == Some(never)));
        assert!(!used, "{never} is used");
    }
    let flags = Command::new("readelf").args(["-d"]).arg(plugin).output().expect("readelf is installed");
    assert!(String::from_utf8_lossy(&flags.stdout).contains("NODELETE"));
    let size = fs::metadata(plugin).unwrap().len();
    assert!(size <= 600_000, "{size} bytes");
}

/// Anything that valgrind finds ends the host with an error.
fn under_valgrind(host: Host) -> Host {
    let log = format!("--log-file={}/valgrind", host.dir.path().display());
    host.wrapper(&["valgrind", "--quiet", "--error-exitcode=99", "--trace-children=no", &log])
}

#[test]
fn valgrind_finds_nothing() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        return skip("valgrind is not installed (ci/setup installs it)");
    }
    let run = under_valgrind(Host::new())
        .step(BATCH)
        .script("bigenv SLURM_JOB_PARTITION x 100000\nenv SLURM_JOB_ACCOUNT=\\xff\nu32 6 2")
        .script(
            "load\ninit\noption inquest-run a\nfork 0 0 exit 3\nfork 1 1 kill -9 $$\nreap 1\nreap 0\nexit",
        )
        .run();
    assert_eq!(run.types().len(), 8);
    let run = under_valgrind(job())
        .script("bigown SLURM_JOB_COMMENT x 100000\nown SLURM_JOB_ACCOUNT=\\xff\nown SLURM_JOB_EXIT_CODE=11")
        .script(JOB_HOOKS)
        .run();
    assert_eq!(run.types(), ["job_started", "job_ended"]);
    let panics = under_valgrind(job().plugin(faulty_plugin_of_jobs())).script("arg inject=job_prolog");
    assert_eq!(panics.script(JOB_HOOKS).run().types(), ["job_ended"]);
}

/// What a job could make a plugin read: values of items and of the environment, and hooks in any order.
#[derive(Debug, Clone)]
struct Fuzz {
    hooks: Vec<u8>,
    items: Vec<(u32, u8, u32)>,
    texts: Vec<(u32, Vec<u8>)>,
    env: Vec<(usize, Vec<u8>)>,
    arguments: Vec<(usize, Vec<u8>)>,
    step: u32,
}

/// Keys that the plugin looks for, ends of which are lists or numbers, and some that are none.
const KEYS: [&str; 12] = [
    "SLURM_JOB_NAME=",
    "SLURM_JOB_NUM_NODES=",
    "SLURM_JOB_NODELIST=",
    "SLURM_JOB_END_TIME=",
    "SLURM_RESTART_COUNT=",
    "SLURM_JOB_ID_HET_GROUP_0=",
    "SLURM_JOB_ID_HET_GROUP_",
    "WANDB_RUN_ID=",
    "INQUEST_RUN=",
    "SLURM_",
    "=",
    "",
];
/// The same for the plugin of jobs, whose environment is its own process's.
const JOB_KEYS: [&str; 14] = [
    "SLURM_JOB_ACCOUNT=",
    "SLURM_JOB_COMMENT=",
    "SLURM_JOB_STDOUT=",
    "SLURM_JOB_NODELIST=",
    "SLURM_JOB_NUM_NODES=",
    "SLURM_JOB_RESTART_COUNT=",
    "SLURM_JOB_EXIT_CODE=",
    "SLURM_JOB_DERIVED_EC=",
    "SLURM_JOB_END_TIME=",
    "SLURM_HET_JOB_ID=",
    "SPANK__SLURM_SPANK_OPTION_inquest_inquest=",
    "SPANK__SLURM_SPANK_OPTION_inquest_inquest_run=",
    "SLURMD_NODENAME=",
    "SLURM_CONF=",
];
const ARGUMENTS: [&str; 6] = ["env=", "cluster=", "sync=", "optout=", "", "="];
/// Items that are strings or lists: a pointer that lies is not survivable, so these stay pointers.
const POINTERS: [u32; 8] = [ARGV, ENV, VERSION, 21, 22, 23, JOB_CORES, STEP_CORES];

fn fuzz() -> impl Strategy<Value = Fuzz> {
    let bytes = |most| prop::collection::vec(1..=255u8, 0..most);
    let number = prop_oneof![Just(0), Just(1), Just(u32::MAX), Just(NO_VAL), any::<u32>()];
    let items = prop::collection::vec((0..32u32, 0..5u8, number), 0..12);
    let texts =
        prop::collection::vec((prop::sample::select(vec![VERSION, JOB_CORES, STEP_CORES]), bytes(300)), 0..3);
    let env = prop::collection::vec((0..JOB_KEYS.len(), bytes(700)), 0..8);
    // Rarely: most of them turn the plugin off.
    let arguments =
        prop_oneof![4 => Just(Vec::new()), 1 => prop::collection::vec((0..ARGUMENTS.len(), bytes(40)), 1..3)];
    let step = prop_oneof![Just(BATCH), Just(EXTERN), Just(INTERACTIVE), any::<u32>()];
    let hooks = prop::collection::vec(0..9u8, 0..24);
    (hooks, items, texts, env, arguments, step).prop_map(|(hooks, items, texts, env, arguments, step)| Fuzz {
        hooks,
        items,
        texts,
        env,
        arguments,
        step,
    })
}

fn escaped(text: &[u8]) -> String {
    text.iter().map(|b| format!("\\x{b:02x}")).collect()
}

impl Fuzz {
    /// Items and arguments.
    fn told(&self) -> String {
        let mut script = String::new();
        for &(item, kind, number) in &self.items {
            let pointer = POINTERS.contains(&item);
            script += &match kind {
                // Never 0: a success whose pointer lies.
                0 => format!("fail {item} {}\n", (number & 0xffff).max(1)),
                1 if !pointer => format!("u32 {item} {number}\n"),
                2 if !pointer && ![26, 28].contains(&item) => format!("int {item} {}\n", number as i32),
                3 if pointer => format!("null {item}\n"),
                4 if !pointer => format!("u64 {item} {}\n", u64::from(number) << 32 | u64::from(number)),
                _ => String::new(),
            };
        }
        for (item, text) in &self.texts {
            script += &format!("str {item} {}\n", escaped(text));
        }
        for (key, text) in &self.arguments {
            script += &format!("arg {}{}\n", ARGUMENTS[*key], escaped(text));
        }
        script
    }

    fn host(&self) -> Host {
        let mut script = self.told();
        for (key, text) in &self.env {
            let (key, text) = (KEYS[*key % KEYS.len()], escaped(text));
            script += &format!("env {key}{text}\nargv {text}\n");
        }
        script += "load\n";
        for (n, hook) in self.hooks.iter().enumerate() {
            script += &match hook {
                0 => "init\n".to_owned(),
                1 => "post_fork\n".to_owned(),
                2 => format!("task_exit {} {} {}\n", n % 5, 1 + n, n * 77),
                3 => "exit\n".to_owned(),
                4 => format!("option inquest-run {n}\n"),
                5 => format!("contain {}\n", n % 2),
                6 => format!("fork {} {n} exit {n}\nreap {}\n", n % 5, n % 5),
                7 => "context 1\n".to_owned(),
                _ => "option inquest off\ncontext 2\n".to_owned(),
            };
        }
        Host::new().step(self.step).script(&script)
    }

    /// The same against the plugin of a job's prolog and epilog.
    fn job_host(&self) -> Host {
        let mut script = self.told();
        for (key, text) in &self.env {
            script += &format!("own {}{}\n", JOB_KEYS[*key], escaped(text));
        }
        script += "load\n";
        for hook in &self.hooks {
            script += match hook {
                0..4 => "prolog\n",
                4..7 => "epilog\n",
                7 => "context 2\n",
                _ => "context 5\n",
            };
        }
        job().script(&script)
    }
}

/// `INQUEST_FUZZ` runs so many, times `each`.
fn cases(each: u32) -> ProptestConfig {
    let asked = std::env::var("INQUEST_FUZZ").ok().and_then(|n| n.parse::<u32>().ok());
    let cases = asked.unwrap_or(1).saturating_mul(each);
    // A case that fails is printed whole, and smaller.
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(96))]

    #[test]
    fn any_order_of_hooks_is_survived(fuzz in fuzz()) {
        fuzz.host().run();
        fuzz.job_host().run();
    }
}

proptest! {
    #![proptest_config(cases(4))]

    #[test]
    fn any_order_of_hooks_is_clean_under_valgrind(fuzz in fuzz()) {
        // valgrind knows no clone that shares memory and is no thread.
        let fuzz = Fuzz { hooks: fuzz.hooks.into_iter().filter(|&hook| hook != 5).collect(), ..fuzz };
        under_valgrind(fuzz.host()).run();
        under_valgrind(fuzz.job_host()).run();
    }
}
