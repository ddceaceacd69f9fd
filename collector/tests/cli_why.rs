//! The report as it is printed, and which runs `--last` means.

mod support;

use inquest_journal::{Level, OomKill, ProcessDied, StepId, Victim};
use inquest_tests::skip::skip;
use support::{End, Job, Lab};

/// Compares with the file of this name; INQUEST_UPDATE=1 writes it.
fn golden(lab: &Lab, name: &str, text: &str) {
    if !rustix::process::geteuid().is_root() {
        return skip("only root has logs of a user without a name, whom the kept text names");
    }
    let place = lab.path().to_str().unwrap();
    // A temporary directory may have a name of any length.
    let text: String = text
        .lines()
        .map(|line| match line.find(place) {
            Some(at) => format!("{} LOG{}\n", line[..at].trim_end(), &line[at + place.len()..]),
            None => format!("{line}\n"),
        })
        .collect();
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("INQUEST_UPDATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap();
    assert!(text == wanted, "{path} is not what is printed (INQUEST_UPDATE=1 writes it):\n{text}");
}

/// An array with every kind of end.
fn sweep(lab: &Lab) -> Vec<Job> {
    let log = |n: u32| {
        lab.log(
            &format!("fit_{n}.err"),
            format!(
                "epoch 1\nTraceback (most recent call last):\n  File \"fit.py\", line 12, in <module>\n    \
                 load('/data/{n}.json')\nFileNotFoundError: [Errno 2] No such file or directory: '/data/{n}.json'\n"
            ),
        )
    };
    (0..40)
        .map(|n| {
            let end = match n {
                3 | 7 | 21 => End::Oom(64),
                4 | 5 | 6 | 30 => End::Code(1),
                11 => End::Signal(11),
                12 => End::Code(7),
                39 => End::Open,
                _ => End::Code(0),
            };
            Job {
                array: Some((100, n)),
                start: i64::from(n),
                node: if n % 2 == 0 { "n1" } else { "n2" },
                open: match n {
                    4 | 5 | 6 | 30 => Some(log(n)),
                    12 => Some(lab.log("quiet.out", "reading\nwriting \u{1b}[31mred\u{1b}[0m\nbye\n")),
                    _ => None,
                },
                ..Job::new(100 + n, end)
            }
        })
        .collect()
}

#[test]
fn a_run_is_told_by_kinds_of_failure() {
    let lab = Lab::new();
    for job in sweep(&lab) {
        lab.job(&job);
    }
    lab.collect();
    let (code, text, stderr) = lab.run(&["why", "array-100"]);
    assert_eq!((code, stderr.as_str()), (1, ""));
    golden(&lab, "why_run.txt", &text);
    let wide = text.lines().filter(|l| l.chars().count() > 80 && !l.contains(lab.path().to_str().unwrap()));
    assert_eq!(wide.collect::<Vec<_>>(), [""; 0]);

    let json = lab.json(&["why", "array-100", "--json"]);
    let kinds = json["failures"].as_array().unwrap();
    let kind =
        |f: &serde_json::Value| format!("{} {} {}", f["cause"], f["jobs"], f["members"]).replace('"', "");
    let said: Vec<String> = kinds.iter().map(kind).collect();
    assert_eq!(
        said,
        ["filesystem 4 100_[4-6,30]", "oom_cgroup 3 100_[3,7,21]", "signal 1 100_11", "app_error 1 100_12"]
    );
    let (code, text, _) = lab.run(&["why", "100_3"]);
    assert_eq!(code, 1);
    golden(&lab, "why_job.txt", &text);
}

#[test]
fn a_run_that_is_called_like_a_job_is_found() {
    let lab = Lab::with([
        Job { run: Some("2026"), ..Job::new(7, End::Code(3)) },
        Job { run: Some("7_3"), ..Job::new(9, End::Code(3)) },
        // A job of that number comes first.
        Job { run: Some("9"), ..Job::new(10, End::Code(0)) },
    ]);
    for (word, job) in [("2026", 7), ("7_3", 9), ("9", 9)] {
        assert_eq!(lab.json(&["why", word, "--json"])["jobs"][0]["job_id"], job.to_string(), "{word}");
        assert_eq!(lab.run(&["events", word]).0, 1, "{word}");
    }
    lab.refuses(&["why", "2027"], 3, &["no job 2027"]);
}

#[test]
fn what_was_lost_of_a_job_is_said() {
    let lab = Lab::new();
    lab.job(&Job::new(7, End::Code(3)));
    let journal = lab.journal().join("n1/2026-11-21.jsonl");
    let whole = std::fs::read_to_string(&journal).unwrap();
    let but_one: String = whole.split_inclusive('\n').filter(|l| !l.contains("task_exited")).collect();
    std::fs::write(&journal, but_one).unwrap();
    lab.collect();
    let (code, text, _) = lab.run(&["why", "7"]);
    assert_eq!(code, 1, "{text}");
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("1 event of this job lost on n1: its number is missing in the journals"), "{text}");
    assert!(text.contains("the job ended with exit code 3"), "{text}");
}

#[test]
fn the_last_failures_are_found() {
    let at = |id, start, end| Job { start, ..Job::new(id, end) };
    let lab = Lab::with([
        at(1, 0, End::Code(1)),
        at(2, 100, End::Code(2)),
        at(3, 200, End::Code(0)),
        // Began first, failed last.
        Job { start: 10, secs: 500, ..Job::new(4, End::Code(4)) },
    ]);
    let user = lab.json(&["runs", "--json"])["runs"][0]["user"].as_str().unwrap().to_owned();
    let ids = |arguments: &[&str]| -> Vec<String> {
        let mut words = vec!["why", "--json", "-u", &user];
        words.extend(arguments);
        let json = lab.json(&words);
        let runs = json["runs"].as_array().cloned().unwrap_or_else(|| vec![json]);
        runs.iter().map(|r| r["run_id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&["--last"]), ["job-4"]);
    assert_eq!(ids(&["--last", "2"]), ["job-4", "job-2"]);
    assert_eq!(ids(&["--last=9"]), ["job-4", "job-2", "job-1"]);
    let (code, text, _) = lab.run(&["why", "--last", "2", "-u", &user]);
    assert_eq!((code, text.matches("\nJob ").count(), text.starts_with("Job 4")), (1, 1, true), "{text}");

    let (code, stdout, stderr) = lab.run(&["why", "--last", "-u", "nobody-of-that-name"]);
    assert_eq!((code, stdout.as_str()), (0, ""));
    assert!(stderr.contains("no run of nobody-of-that-name has a job that failed"), "{stderr}");
    for wrong in [&["why"][..], &["why", "--last", "0"], &["why", "--last", "x"], &["why", "4", "--last"]] {
        assert_eq!(lab.run(wrong).0, 2, "{wrong:?}");
    }
}

#[test]
fn the_page_stands_alone_and_believes_nobody() {
    let lab = Lab::new();
    let evil = "</title><script>alert(1)</script>\u{1b}[2J\u{202e}\"'&amp;";
    for mut job in sweep(&lab) {
        job.name = evil.into();
        lab.job(&job);
    }
    let log = lab.log(
        "evil.err",
        format!("Traceback (most recent call last):\nValueError: {evil}<img src=x onerror=y>\n"),
    );
    lab.job(&Job {
        open: Some(log),
        name: evil.into(),
        array: Some((100, 90)),
        ..Job::new(190, End::Code(1))
    });
    lab.collect();
    let file = lab.path().join("report.html");
    let (code, stdout, stderr) = lab.run(&["why", "array-100", "--html", file.to_str().unwrap()]);
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (1, "", ""));
    let page = std::fs::read_to_string(&file).unwrap();
    for never in
        ["<script", "<img", "\u{1b}", "\u{202e}", "http:", "https:", "href=", "style=\"", "@import", "url("]
    {
        assert!(!page.contains(never), "{never:?} is in the page");
    }
    for wanted in [
        "default-src 'none'",
        "&lt;script&gt;alert(1)",
        "prefers-color-scheme: dark",
        "10 of 41 jobs failed",
        "100_[3,7,21]",
        "role=\"img\"",
        "<th scope=\"col\">",
        "No such file or directory: '/data/4.json'",
        "inquest rerun array-100 --class oom",
    ] {
        assert!(page.contains(wanted), "{wanted:?} is not in the page");
    }
    // What is opened is closed.
    for tag in
        ["svg", "g", "table", "tr", "td", "section", "article", "figure", "dl", "pre", "span", "p", "ul"]
    {
        let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
    }
    let ids: Vec<&str> =
        page.match_indices(" id=\"").map(|(at, _)| page[at + 5..].split('"').next().unwrap()).collect();
    let mut once = ids.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(ids.len(), once.len(), "{ids:?}");

    let (code, page, _) = lab.run(&["why", "100_3", "--html", "-"]);
    assert_eq!(code, 1);
    assert!(page.contains("64.0 MiB of 64.0 MiB, cut off") && page.ends_with("</html>"), "{page}");
    lab.refuses(&["why", "100_3", "--html", "/no/such/dir/x.html"], 3, &["cannot write /no/such/dir/x.html"]);
    assert_eq!(lab.run(&["why", "100_3", "--html", "-", "--json"]).0, 2);
}

#[test]
fn processes_that_died_inside_are_named_with_their_member() {
    let lab = Lab::with([Job::new(7, End::Code(1))]);
    let died = |at: i64, pid: u32, body: ProcessDied| {
        let body = ProcessDied { pid: Some(pid), ppid: Some(7), ..body };
        lab.event(("n1", "0badc0de", pid), at, Some((7, StepId::Batch)), body);
    };
    let of = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    let command = |name: &str| Some(name.to_owned());
    // A worker of Parsl, a rank of MPI that only ended with a code, a grep that found nothing.
    let worker = of(&[("PARSL_WORKER_RANK", "3"), ("PARSL_WORKER_POOL_ID", "p1")]);
    died(
        3,
        101,
        ProcessDied {
            command: command("py\u{1b}[2J"),
            signal: Some(11),
            core: true,
            env: worker,
            ..ProcessDied::default()
        },
    );
    let rank = of(&[("PMI_RANK", "17")]);
    died(
        4,
        102,
        ProcessDied { command: command("solver"), exit_code: Some(2), env: rank, ..ProcessDied::default() },
    );
    died(4, 103, ProcessDied { command: command("grep"), exit_code: Some(1), ..ProcessDied::default() });
    died(5, 104, ProcessDied { command: command("sleep"), signal: Some(15), ..ProcessDied::default() });
    let victim = Victim { pid: Some(105), command: command("ssh-session"), ..Victim::default() };
    let kill = OomKill {
        count: Some(1),
        level: Some(Level::Job),
        limit_bytes: Some(64 << 20),
        victims: vec![victim],
        ..OomKill::default()
    };
    lab.event(("n1", "0badc0de", 105), 6, Some((7, StepId::Extern)), kill);
    lab.collect();
    let (code, out, _) = lab.run(&["why", "7"]);
    assert_eq!(code, 1, "{out}");
    let words = out.split_whitespace().collect::<Vec<_>>().join(" ");
    for told in [
        "What died inside",
        "step batch on n1: py\\u{1b}[2J (pid 101), SIGSEGV (core dumped); PARSL_WORKER_RANK=3",
        "step batch on n1: solver (pid 102), exit code 2; PMI_RANK=17",
        "step extern on n1: ssh-session (pid 105) killed for memory; limit 64.0 MiB (job)",
    ] {
        assert!(words.contains(told), "{told}:\n{out}");
    }
    assert!(!out.contains("grep") && !out.contains("sleep"), "{out}");
    let (_, page, _) = lab.run(&["why", "7", "--html", "-"]);
    assert!(page.contains("What died inside") && page.contains("PARSL_WORKER_RANK=3"), "{page}");
    let (_, timeline, _) = lab.run(&["timeline", "7"]);
    assert!(timeline.contains("PMI_RANK=17"), "{timeline}");
}

/// A sacct that knows jobs of these users, first in the path.
fn sacct(lab: &Lab, jobs: &[(u32, &str)]) -> String {
    let bin = lab.path().join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    let mut script =
        "#!/bin/sh\ncase \"$*\" in\n*--helpformat*) echo JobIDRaw JobID Cluster User JobName Partition \
                      NodeList State ExitCode Timelimit Start End; exit ;;\n"
            .to_owned();
    let head = "JobIDRaw|JobID|Cluster|User|JobName|Partition|NodeList|State|ExitCode|Timelimit|Start|End";
    for (id, user) in jobs {
        let row = format!("{id}|{id}|lab|{user}|fit|batch|n1|FAILED|3:0|00:01:00|1795269600|1795269610");
        script += &format!("*--jobs={id}) printf '{head}\\n{row}\\n' | tr '|' '\\037' ;;\n");
    }
    script += &format!("*) printf '{head}\\n' | tr '|' '\\037' ;;\nesac\n");
    let file = bin.join("sacct");
    std::fs::write(&file, script).unwrap();
    use std::os::unix::fs::PermissionsExt;
    for path in [file.as_path(), lab.path()] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    format!("{}:/usr/bin:/bin", bin.display())
}

#[test]
fn what_is_not_the_callers_to_read_is_not_called_unrecorded() {
    if !rustix::process::geteuid().is_root() {
        return skip("only root can ask as somebody else");
    }
    const ANN: &str = "inquest-test1";
    const BOB: &str = "inquest-test2";
    let uid = |name: &str| uzers::get_user_by_name(name).expect("ci/setup makes it").uid();
    let lab = Lab::with([Job { uid: uid(BOB), ..Job::new(7, End::Code(3)) }]);
    // 7 was recorded, 8 was not; sacct tells of both, as it tells a coordinator, or everybody.
    let path = sacct(&lab, &[(7, BOB), (8, BOB), (9, ANN)]);
    let why = |who: Option<&str>, words: &[&str]| {
        use std::os::unix::process::CommandExt;
        let mut command = lab.command(&[&["why"], words].concat());
        command.env("PATH", &path);
        if let Some(who) = who {
            let user = uzers::get_user_by_name(who).unwrap();
            command.uid(user.uid()).gid(user.primary_group_id());
        }
        let (code, out, err) = support::finish(command, b"");
        (code, (out + &err).split_whitespace().collect::<Vec<_>>().join(" "))
    };
    const HIDDEN: &str =
        "what was recorded of it, if anything was, is for its owner and for operators to read";
    const NOTHING: &str = "nothing was recorded there";
    let (code, seven) = why(Some(ANN), &["7"]);
    assert!(code == 1 && seven.contains(HIDDEN) && seven.contains("inquest serve"), "{seven}");
    let (code, eight) = why(Some(ANN), &["8"]);
    assert!(code == 1 && !eight.contains(NOTHING), "{eight}");
    assert_eq!(seven, eight.replace("Job 8", "Job 7"), "nothing tells which of them was recorded");
    let (_, json) = why(Some(ANN), &["7", "--json"]);
    assert!(json.contains("\"recorded\": null"), "{json}");
    let (_, page) = why(Some(ANN), &["7", "--html", "-"]);
    assert!(page.contains("for its owner and for operators to read"), "{page}");
    // Her own, and those of anybody for an operator, were not recorded indeed.
    for (who, id) in [(Some(ANN), "9"), (None, "8")] {
        let (code, said) = why(who, &[id]);
        assert!(code == 1 && said.contains(NOTHING) && !said.contains(HIDDEN), "{said}");
    }
    assert!(why(None, &["7"]).1.contains("What happened"));
    // Where Slurm does not tell of it, neither is there anything.
    let path = sacct(&lab, &[]);
    assert!(!path.is_empty());
    let (code, seven) = why(Some(ANN), &["7"]);
    assert_eq!((code, &seven), (3, &why(Some(ANN), &["5"]).1.replace("no job 5", "no job 7")));
    assert!(seven.contains("coordinators"), "{seven}");
}

/// A number says nothing without its cluster: another job than the one that was asked for is worse than none.
#[test]
fn the_cluster_and_the_user_that_were_named_hold_for_slurm_too() {
    let lab = Lab::with([Job::new(7, End::Code(3))]);
    let path = sacct(&lab, &[(8, "bob")]);
    let why = |words: &[&str]| {
        let mut command = lab.command(&[&["why", "8"], words].concat());
        command.env("PATH", &path);
        support::finish(command, b"")
    };
    for other in [&["-M", "other"][..], &["-u", "ann"], &["-M", "lab", "-u", "ann"]] {
        let (code, out, err) = why(other);
        assert!(
            code == 3 && out.is_empty() && err.contains("sacct does not know it either"),
            "{other:?} {out}{err}"
        );
    }
    for same in [&[][..], &["-M", "lab", "-u", "bob"]] {
        let (code, out, err) = why(same);
        assert!(code == 1 && out.contains(" of bob on "), "{same:?} {out}{err}");
    }
}

#[test]
fn a_run_that_cannot_be_read_does_not_hide_the_others() {
    let lab = Lab::with([Job::new(1, End::Code(1)), Job { start: 100, ..Job::new(2, End::Code(2)) }]);
    std::fs::write(support::find(&lab.store(), "job-2").join("run.json"), "{").unwrap();
    let user = lab.json(&["runs", "--json"])["runs"][0]["user"].as_str().unwrap().to_owned();
    let (code, text, err) = lab.run(&["why", "--last", "-u", &user]);
    assert!(code == 1 && text.starts_with("Job 1 "), "{text}{err}");
    assert!(err.contains("the run job-2 is left out: cannot read ") && err.contains("run.json"), "{err}");
}

#[test]
fn a_run_beyond_midnight_has_dates() {
    let long =
        |id, start| Job { start, secs: 43_200, array: Some((9, id)), ..Job::new(9 + id, End::Code(3)) };
    let lab = Lab::with([long(0, 0), long(1, 60)]);
    let (_, text, _) = lab.run(&["why", "9_0"]);
    assert!(text.contains("\n  started 2026-11-21 14:00:00, took 12:00:00\n"), "{text}");
    assert!(text.contains("\n    2026-11-22 02:00:00  +12:00:00  step batch task 0 on n1"), "{text}");
    let (_, text, _) = lab.run(&["why", "array-9"]);
    assert!(
        text.contains("\n  2026-11-22 02:00:00  9_0: ") && text.contains(" at 2026-11-22 02:00:00:"),
        "{text}"
    );
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let (_, page, _) = lab.run(&["why", "9_0", "--html", "-"]);
    assert!(page.contains("<td class=\"time\">2026-11-22 02:00:00</td>"), "{page}");
}
