//! The plugin in every context of Slurm, played by the host.

use inquest_tests::host::item::*;
use inquest_tests::host::{Host, Outcome, bare_program, plugin, program};

const WHOLE_STEP: &str = "load\ninit\nfork 0 0 exit 3\nreap 0\nexit";

fn fields<'a>(outcome: &'a Outcome, event_type: &str) -> &'a serde_json::Value {
    let events = outcome.of(event_type);
    assert_eq!(events.len(), 1, "{event_type}: {:?}", outcome.types());
    events[0]
}

#[test]
fn a_batch_step_is_told_from_start_to_end() {
    let run = Host::new()
        .step(BATCH)
        .script("env SLURM_JOB_PARTITION=main\nenv SLURM_JOB_NUM_NODES=2\nenv SLURM_JOB_NODELIST=n[1-2]")
        .script("env SLURM_JOB_END_TIME=1800000000\nenv SLURM_RESTART_COUNT=2\nenv WANDB_RUN_ID=abc")
        .script("env WANDB_API_KEY=hunter2\nenv HOME=/root")
        .script(WHOLE_STEP)
        .run();
    assert_eq!(
        run.types(),
        ["job_started", "step_started", "task_started", "task_exited", "step_ended", "job_ended"]
    );
    run.assert_gapless();
    let job = fields(&run, "job_started");
    assert_eq!(job["cluster"], "lab");
    assert_eq!(job["node"], "n1");
    assert_eq!(job["job_id"], "7");
    assert_eq!(job["step"], "batch");
    assert_eq!(job["via"], "batch");
    assert_eq!(job["uid"], 1000);
    assert_eq!(job["name"], "name");
    assert_eq!(job["partition"], "main");
    assert_eq!(job["node_count"], 2);
    assert_eq!(job["node_list"], "n[1-2]");
    assert_eq!(job["cpus"], 4);
    assert_eq!(job["memory_mib"], 100);
    assert!(job["restart"].is_null(), "before its end, a script's step does not know");
    assert_eq!(job["end_limit"], "2027-01-15T08:00:00.000000Z");
    assert_eq!(job["env"], serde_json::json!({"WANDB_RUN_ID": "abc"}));
    assert_eq!(job["array_job_id"], serde_json::Value::Null);
    let step = fields(&run, "step_started");
    assert_eq!(step["argv"], serde_json::json!(["/bin/app", "--size", "3"]));
    assert_eq!(step["slurm_version"], "22.05.8");
    assert_eq!(step["cpus"], 1);
    let end = fields(&run, "task_exited");
    assert_eq!(end["exit_code"], 3);
    assert_eq!(end["severity"], "error");
    assert_eq!(end["task"], 0);
    assert_eq!(end["pid"], fields(&run, "task_started")["pid"]);
    assert_eq!(fields(&run, "job_ended")["exit_code"], 3);
    assert_eq!(fields(&run, "step_ended")["tasks_failed"], 1);
}

#[test]
fn the_number_of_restarts_is_told_where_it_is_known_and_nowhere_else() {
    let (task, again) = ("env SLURM_PROCID=0\n", "env SLURM_RESTART_COUNT=1\n");
    let step = |before: &str| {
        let run = Host::new().step(0).script(before).script(WHOLE_STEP).run();
        assert_eq!(fields(&run, "job_started")["restart"], fields(&run, "step_started")["restart"]);
        fields(&run, "step_started")["restart"].as_u64()
    };
    // srun in a script; srun by `env -i` or from a login node.
    assert_eq!([step(task), step(&format!("{task}{again}"))], [Some(0), Some(1)]);
    assert_eq!([step(""), step("env SLURM_RESTART_COUNT=x"), step(again)], [None, None, Some(1)]);

    // What sbatch is called with is in the environment first, and what Slurm tells the script only later.
    let script = |before: &str, later: &str| {
        let hooks = format!("{before}load\ninit\nfork 0 0 true\n{later}reap 0\nexit");
        let run = Host::new().step(BATCH).script(&hooks).run();
        assert!(fields(&run, "job_started")["restart"].is_null(), "{before} {later}");
        fields(&run, "job_ended")["restart"].as_u64()
    };
    let second = "env SLURM_PROCID=0\nenv SLURM_RESTART_COUNT=2\n";
    assert_eq!([script("", task), script("", second), script(task, second)], [Some(0), Some(2), Some(2)]);
    // Submitted by a job that was restarted, whose number it may still be.
    assert_eq!([script("", ""), script(again, task), script(&format!("{task}{again}"), "")], [None; 3]);
}

#[test]
fn what_a_task_has_not_opened_yet_is_not_told_as_its_output() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let run = Host::new()
        .step(0)
        .script("null\nu32 6 4\nu32 7 4\nload\ninit")
        .script("fork 0 0 exit 0")
        .script(&format!("out {}", out.display()))
        .script("fork 1 1 exit 0\nlate 500000\nfork 2 2 exit 0\nlate 200\nfork 3 3 exit 0")
        .script("reap 0\nreap 1\nreap 2\nreap 3\nexit")
        .run();
    let out = out.to_str();
    let told = |e: &serde_json::Value, key: &str| e[key].as_str().map(str::to_owned);
    let starts: Vec<_> =
        run.of("task_started").iter().map(|e| (told(e, "stdout"), told(e, "stderr"))).collect();
    let of = |path: Option<&str>| (path.map(str::to_owned), path.map(str::to_owned));
    assert_eq!(starts.len(), 4);
    assert_eq!(starts[0], of(Some("/dev/null")), "opened by the task itself");
    assert_eq!(starts[1], of(out));
    assert!([of(None), of(out)].contains(&starts[2]), "{:?}", starts[2]);
    assert!([of(None), of(out)].contains(&starts[3]), "{:?}", starts[3]);
}

#[test]
fn tasks_keep_their_ranks_signals_and_order() {
    let run = Host::new()
        .step(0)
        .script("u32 6 3\nu32 7 6\nload\ninit")
        .script("fork 0 3 kill -SEGV $$\nfork 1 4 sleep 0.05; kill -KILL $$\nfork 2 5 exit 0")
        .script("reap 2\nreap 0\nreap 1\nexit")
        .run();
    let ends: Vec<_> = run
        .of("task_exited")
        .iter()
        .map(|e| (e["task"].as_u64(), e["local_id"].as_u64(), e["signal"].as_u64(), e["exit_code"].as_u64()))
        .collect();
    assert_eq!(
        ends,
        [
            (Some(5), Some(2), None, Some(0)),
            (Some(3), Some(0), Some(11), None),
            (Some(4), Some(1), Some(9), None)
        ]
    );
    let end = fields(&run, "step_ended");
    assert_eq!(
        (&end["tasks_started"], &end["tasks_exited"], &end["tasks_failed"]),
        (&3.into(), &3.into(), &2.into())
    );
    assert_eq!(fields(&run, "job_started")["via"], "step");
    assert!(run.of("job_ended").is_empty());
}

#[test]
fn the_extern_step_has_no_task() {
    // As in slurmstepd: an all but empty environment, an array id that is not one.
    let run = Host::new().step(EXTERN).script("u32 31 4\nload\ninit\npost_fork\nexit").run();
    assert_eq!(run.types(), ["step_started", "step_ended"]);
    let start = fields(&run, "step_started");
    assert_eq!(start["step"], "extern");
    assert_eq!(start["array_task_id"], serde_json::Value::Null);
    assert_eq!(start["restart"], serde_json::Value::Null);
}

#[test]
fn an_array_member_and_an_interactive_step() {
    let run = Host::new().step(INTERACTIVE).script("u32 30 5\nu32 31 0").script(WHOLE_STEP).run();
    let job = fields(&run, "job_started");
    assert_eq!(job["via"], "interactive");
    assert_eq!(job["array_job_id"], "5");
    assert_eq!(job["array_task_id"], 0);
    assert_eq!(fields(&run, "job_ended")["exit_code"], 3);
}

#[test]
fn tasks_are_told_where_to_leave_notes() {
    let steps = "load\ninit\nfork 0 0 true\nreap 0\nexit";
    let host = || Host::new().step(3).script("arg note=@dir@/notes");
    let before = host().script(steps);
    let notes = before.dir.path().join("notes");
    // Nobody has made the directory of all: no variable, not even one that was handed on.
    let run = before.run();
    assert_eq!((run.said("unsetenv"), run.said("setenv").len()), (vec!["INQUEST_NOTE"], 0));

    let with = host().script(steps);
    let notes_there = with.dir.path().join("notes");
    std::fs::create_dir(&notes_there).unwrap();
    let run = with.run();
    let uid = run.events[0]["uid"].as_u64().unwrap();
    let set = run.said("setenv");
    let [set] = set[..] else { panic!("{set:?}") };
    let job = run.events[0]["job_id"].as_str().unwrap();
    let pid = fields(&run, "step_started")["stepd_pid"].as_u64().unwrap();
    assert_eq!(set, format!("INQUEST_NOTE={}/{uid}/{job}.3.{pid}", notes_there.display()));
    let made = std::fs::metadata(notes_there.join(uid.to_string())).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!((u64::from(made.uid()), made.mode() & 0o7777), (uid, 0o700));
    assert!(!notes.exists());

    // Who said no to recording has no place for notes, nor one of a step around it.
    let said_no = host().script("arg optout=yes\nload\ninit\noption inquest off").script(WHOLE_STEP_REST);
    let notes_there = said_no.dir.path().join("notes");
    std::fs::create_dir(&notes_there).unwrap();
    let run = said_no.run();
    assert_eq!((run.said("unsetenv"), run.said("setenv").len()), (vec!["INQUEST_NOTE"], 0));
    assert!(run.events.is_empty() && std::fs::read_dir(notes_there).unwrap().next().is_none());

    // The extern step has nobody to tell, and without the argument there is none.
    let quiet = Host::new().step(EXTERN).script("arg note=/run").script("load\ninit\npost_fork\nexit").run();
    assert!(quiet.said("setenv").is_empty() && quiet.said("unsetenv").is_empty());
    let quiet = Host::new().step(3).script(steps).run();
    assert!(quiet.said("setenv").is_empty() && quiet.said("unsetenv").is_empty());
}

#[test]
fn a_failed_launch_is_a_start_and_an_end() {
    let run = Host::new().step(3).script("load\ninit\nexit").run();
    assert_eq!(run.types(), ["step_started", "step_ended"]);
    assert_eq!(fields(&run, "step_ended")["tasks_started"], 0);
}

#[test]
fn other_processes_register_the_options_and_nothing_else() {
    for context in [1, 3, 4, 5, 0, 99] {
        let run = Host::new()
            .step(0)
            .script(&format!("context {context}\nload\ninit\npost_fork\ntask_exit 0 1 0\nexit"))
            .run();
        assert!(run.events.is_empty(), "context {context}");
        assert_eq!(run.said("registered"), ["inquest-run", "inquest"], "context {context}");
        assert!(run.said("info").is_empty() && run.said("error").is_empty(), "{:?}", run.report);
    }
}

#[test]
fn a_prolog_and_an_epilog_are_told_and_nothing_else_of_a_job() {
    let hooks = "load\nprolog\nepilog";
    let run = Host::new().job().script("own SLURM_JOB_END_TIME=1800000000").script(hooks).run();
    assert_eq!(run.types(), ["job_started", "job_ended"]);
    let (began, ended) = (&run.events[0], &run.events[1]);
    assert_eq!((&began["via"], &ended["via"]), (&"prolog".into(), &"epilog".into()));
    assert_eq!(
        (&began["job_id"], &began["uid"], &began["account"]),
        (&"7".into(), &1000.into(), &"acc".into())
    );
    assert_eq!((&began["restart"], &began["end_limit"]), (&0.into(), &"2027-01-15T08:00:00.000000Z".into()));
    assert_eq!((&ended["exit_code"], &ended["severity"]), (&3.into(), &"error".into()));
    assert!(began["step"].is_null() && ended["step"].is_null());
    // Each hook is a process of its own, and so a stream; here both are one process, at two moments.
    assert!(run.events.iter().all(|e| e["seq"] == 0));
    assert_ne!(began["stream"], ended["stream"]);

    for context in [0, 1, 2, 3, 4, 99] {
        let run = Host::new().job().script(&format!("context {context}")).script(hooks).run();
        assert!(run.events.is_empty(), "context {context}");
        assert!(run.said("info").is_empty() && run.said("registered").is_empty(), "{:?}", run.report);
    }
    let off = |allowed: &str| {
        let said = Host::new().job().script("own SPANK__SLURM_SPANK_OPTION_inquest_inquest=off");
        said.script(allowed).script(hooks).run().events.len()
    };
    assert_eq!((off("arg optout=yes"), off("arg optout=no"), off("")), (0, 2, 2));
}

#[test]
fn users_name_a_run_and_opt_out_where_they_may() {
    let run =
        Host::new().step(0).script("load\ninit\noption inquest-run sweep 9").script(WHOLE_STEP_REST).run();
    assert_eq!(fields(&run, "job_started")["run"], "sweep 9");

    let off = |allowed: &str| {
        Host::new()
            .step(0)
            .script(allowed)
            .script("load\ninit\noption inquest off")
            .script(WHOLE_STEP_REST)
            .run()
    };
    assert!(off("arg optout=yes").events.is_empty());
    assert!(!off("arg optout=no").events.is_empty());
    assert!(!off("").events.is_empty());
    // Slurm 22.05 calls back twice; what makes no sense is not a no.
    let run = Host::new()
        .step(0)
        .script("arg optout=yes\nload\ninit\noption inquest maybe\noption inquest maybe\noption inquest-run")
        .script(WHOLE_STEP_REST)
        .run();
    assert_eq!(run.types().len(), 5);
}

const WHOLE_STEP_REST: &str = "fork 0 0 true\nreap 0\nexit";

#[test]
fn every_release_gets_its_own_version_and_an_unknown_one_none() {
    for (api, version) in [
        (36, "0x140b00"),
        (37, "0x150800"),
        (38, "0x160500"),
        (39, "0x170200"),
        (40, "0x170b00"),
        (41, "0x180500"),
        (42, "0x180b00"),
        (43, "0x190500"),
        (44, "0x190b00"),
        (45, "0x1a0500"),
        (46, "0x1a0b00"),
        (47, "0x000000"),
        (0, "0x000000"),
    ] {
        let run = Host::new().script(&format!("api {api}\nload")).run();
        assert_eq!(run.said("loaded"), [format!("inquest spank {version}")], "api {api}");
    }
}

#[test]
fn an_admin_may_vouch_for_an_unknown_release() {
    let host = Host::new().script("api 47\nload");
    let so = host.dir.path().join("spank_inquest.so");
    std::fs::copy(plugin(), &so).unwrap();
    let host = host.plugin(&so);
    // Nobody is told in srun (or here): only slurmd and slurmstepd have the log.
    assert_eq!(host.run().said("info").len(), 0);
    for (text, version) in [("27.05\n", "0x1b0500"), ("yes\n", "0x000000"), ("27.13", "0x000000")] {
        std::fs::write(host.dir.path().join("spank_inquest.so.abi"), text).unwrap();
        assert_eq!(host.run().said("loaded"), [format!("inquest spank {version}")], "{text}");
    }
    // The marker is for the unknown only.
    let known = Host::new().script("api 38\nload").plugin(&so);
    assert_eq!(known.run().said("loaded"), ["inquest spank 0x160500"]);
}

#[test]
fn slurmd_and_slurmstepd_log_what_to_do_about_an_unknown_release() {
    for (name, lines) in [("slurmd", 1), ("slurmstepd", 1), ("srun", 0)] {
        let host = Host::new().script("api 47\nload");
        let exe = host.dir.path().join(name);
        std::fs::copy(program(), &exe).unwrap();
        let run = host.program(&exe).run();
        let said = run.said("info");
        assert_eq!(said.len(), lines, "{name}: {said:?}");
        if let Some(line) = said.first() {
            assert!(line.contains("API 47") && line.contains("spank_inquest.so.abi"), "{line}");
        }
    }
}

#[test]
fn a_host_without_slurms_functions_is_survived() {
    let run = Host::new()
        .program(bare_program())
        .step(0)
        .script("load\ninit\npost_fork\ntask_exit 0 1 0\nexit")
        .run();
    assert!(run.events.is_empty());
    let run = Host::new().program(bare_program()).job().script("load\nprolog\nepilog").run();
    assert!(run.events.is_empty());
}

#[test]
fn hooks_in_a_clone_write_through_the_descriptor_of_the_start() {
    let run = Host::new()
        .step(BATCH)
        .script("load\ninit\ncontain 1\nfork 0 0 exit 1\nreap 0\ncontain 0\nexit")
        .run();
    assert_eq!(run.types().len(), 6);
    run.assert_gapless();
}

#[test]
fn nothing_grows() {
    let steps = |n: u32| {
        let run = Host::new()
            .step(0)
            .script(&format!("load\nrepeat {n}\ninit\nfork 0 0 true\nreap 0\nexit\nagain"))
            .run();
        // The journal of the last step, which in slurmstepd goes with the process.
        assert_eq!(run.said("new_fds"), ["1"]);
        run.said("heap")[0].parse::<u64>().unwrap()
    };
    let (few, many) = (steps(10), steps(200));
    // The host itself keeps two names of options per init.
    assert!(many < few + 64 * 1024, "{few} bytes after 10 steps, {many} after 200");
}

#[test]
fn the_cluster_is_named_by_slurm_conf_when_no_argument_does() {
    let host = Host::new();
    let conf = host.dir.path().join("slurm.conf");
    std::fs::write(&conf, "# ClusterName=no\nslurmctldhost=x\n clustername = c1 # yes\n").unwrap();
    let script = "context 2\narg journal=@dir@/journal\nu32 2 7\nu32 3 1\nenv SLURM_CLUSTER_NAME=forged\nload\ninit\nexit";
    let run = host.env("SLURM_CONF", conf.to_str().unwrap()).script(script).run();
    assert_eq!(fields(&run, "step_ended")["cluster"], "c1");
    let run = Host::new().script(script).run();
    assert_eq!(fields(&run, "step_ended")["cluster"], "unknown");
}
