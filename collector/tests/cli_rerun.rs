//! `inquest rerun`: which commands it prints, and that it submits nothing
//! but what it printed, after a yes.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use support::{End, Job, Lab, finish};

/// An array of 8: 1, 2, 3 and 6 killed for memory, 4 an error, 0, 5 and 7 good.
fn lab() -> Lab {
    lab_of(rustix::process::geteuid().as_raw())
}

/// The same of another user.
fn lab_of(uid: u32) -> Lab {
    let lab = Lab::new();
    for index in 0..8 {
        let end = match index {
            1..=3 | 6 => End::Oom(1024),
            4 => End::Code(3),
            _ => End::Code(0),
        };
        let peak_mib = if index == 7 { 900 } else { 100 };
        let work_dir = Some("/home/ann/my runs".to_owned());
        lab.job(&Job { uid, array: Some((20, index)), peak_mib, work_dir, ..Job::new(20 + index, end) });
    }
    lab.collect();
    fs::create_dir(lab.path().join("bin")).unwrap();
    // Whatever Slurm this machine has is none of a test's business.
    tool(&lab, "scontrol", "exit 1");
    lab
}

fn tool(lab: &Lab, name: &str, body: &str) {
    let path = lab.path().join("bin").join(name);
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn command(lab: &Lab, arguments: &[&str]) -> Command {
    let mut command = lab.command(arguments);
    let bin = lab.path().join("bin");
    command.env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
    command
}

fn run(lab: &Lab, arguments: &[&str], input: &str) -> (i32, String, String) {
    finish(command(lab, arguments), input.as_bytes())
}

#[test]
fn exact_ranges_by_class_with_measured_memory() {
    let lab = lab();
    let (code, out, err) = run(&lab, &["rerun", "array-20", "--script", "job.sh"], "");
    assert_eq!((code, err.as_str()), (1, ""));
    let oom = "sbatch --array=1-3,6 --mem=1536M --partition=batch --job-name=fit --chdir='/home/ann/my runs' job.sh";
    let error = "sbatch --array=4 --partition=batch --job-name=fit --chdir='/home/ann/my runs' job.sh";
    for line in [
        "oom: 4 of 8 jobs, 20_[1-3,6] \"fit\"",
        "  how many of its array may run at a time is not known: where --array had a %N, add it here",
        "  killed at a limit of 1.0 GiB: their peak was clipped there, the true need may be higher",
        "  3 that succeeded peaked at 900.0 MiB or less (page cache included)",
        &format!("  {oom}"),
        "app_error: 1 of 8 jobs, 20_4 \"fit\"",
        "  the same input will fail the same way: mend the cause first",
        &format!("  {error}"),
    ] {
        assert!(out.lines().any(|l| l == line), "{line:?} is not in\n{out}");
    }
    let json = lab.json(&["rerun", "20", "--script", "job.sh", "--json"]);
    assert_eq!((&json["schema"], &json["plan"]["groups"][0]["command"]), (&1.into(), &oom.into()));
    assert_eq!(json["plan"]["groups"][0]["argv"][1], "--array=1-3,6");
}

#[test]
fn wishes_come_first() {
    let lab = lab();
    let line = |arguments: &[&str]| {
        let base = ["rerun", "20_[1-2]", "--script", "a b.sh"];
        let (_, out, _) = run(&lab, &[&base[..], arguments].concat(), "");
        out.lines().find(|l| l.starts_with("  sbatch")).unwrap_or_default().trim().to_owned()
    };
    let tail = "--partition=batch --job-name=fit --chdir='/home/ann/my runs' 'a b.sh'";
    assert_eq!(line(&["--mem", "32G"]), format!("sbatch --array=1-2 --mem=32G {tail}"));
    assert_eq!(line(&["--mem-factor", "4"]), format!("sbatch --array=1-2 --mem=4G {tail}"));
    let timed = format!("sbatch --array=1-2 --mem=1536M --time=1-00:00:00 {tail}");
    assert_eq!(line(&["--time", "1-00:00:00"]), timed);
    assert_eq!(line(&["--class", "timeout"]), "");
}

#[test]
fn bad_nodes_are_left_out_on_demand() {
    let job =
        |index, node, code| Job { array: Some((30, index)), node, ..Job::new(30 + index, End::Code(code)) };
    let bad = [job(1, "n17", 1), job(2, "n17", 1), job(3, "n17", 1)];
    let lab = Lab::with((4..14).map(|index| job(index, "n1", 0)).chain(bad));
    let (_, out, _) = lab.run(&["rerun", "30", "--script", "j"]);
    assert!(out.contains("--exclude-bad") && !out.contains("--exclude="), "{out}");
    assert!(out.contains("Node n17: 3 of 3 jobs failed there, 0 of 10 elsewhere"), "{out}");
    let (_, out, _) = lab.run(&["rerun", "30", "--script", "j", "--exclude-bad"]);
    assert!(out.contains("sbatch --array=1-3 --exclude=n17 "), "{out}");
}

#[test]
fn the_script_is_asked_of_slurm_and_else_said_to_be_missing() {
    let lab = lab();
    let (_, out, _) = run(&lab, &["rerun", "20"], "");
    assert!(out.contains("give it with --script") && out.contains(" JOBSCRIPT\n"), "{out}");
    tool(&lab, "scontrol", "echo \"JobId=$4 JobName=x Command=/a/job.sh x WorkDir=/w StdErr=/w/x\"");
    let (_, out, _) = run(&lab, &["rerun", "20"], "");
    assert!(out.contains("runs' /a/job.sh x\n") && !out.contains("JOBSCRIPT"), "{out}");
    assert!(out.contains("--array=1-3,6 ") && !out.contains("%N"), "{out}");
    let array = "JobId=$4 ArrayJobId=20 ArrayTaskId=1 ArrayTaskThrottle=2 JobName=x";
    tool(&lab, "scontrol", &format!("echo \"{array} Command=/a/job.sh WorkDir=/w StdErr=/w/x\""));
    let (_, out, _) = run(&lab, &["rerun", "20"], "");
    assert!(out.contains("--array=1-3,6%2 ") && !out.contains("%N"), "{out}");
}

#[test]
fn submits_after_a_yes_and_without_a_shell() {
    let lab = lab();
    tool(&lab, "sbatch", "for a; do echo \"[$a]\"; done >> submitted");
    let submitted = lab.path().join("submitted");
    let base = ["rerun", "20", "--class", "oom", "--submit"];
    let with_script = [&base[..], &["--script", "$(touch x).sh"]].concat();
    for no in ["", "n\n", "yess\n"] {
        let (code, _, err) = run(&lab, &with_script, no);
        assert_eq!(code, 1, "{err}");
        assert!(err.contains("1 command(s) for 4 job(s)") && err.contains("nothing was submitted"), "{err}");
        assert!(!submitted.exists());
    }
    let (code, _, err) = run(&lab, &with_script, "y\n");
    assert_eq!(code, 0, "{err}");
    let words = "[--array=1-3,6]\n[--mem=1536M]\n[--partition=batch]\n[--job-name=fit]\n[--chdir=/home/ann/my runs]\n[$(touch x).sh]\n";
    assert_eq!(fs::read_to_string(&submitted).unwrap(), words);
    tool(&lab, "sbatch", "exit 7");
    let (code, _, err) = run(&lab, &with_script, "y\n");
    assert!(code == 3 && err.contains("exit status: 7") && err.contains("20_[1-3,6]"), "{code} {err}");
    let (code, _, err) = run(&lab, &base, "y\n");
    assert!(code == 2 && err.contains("--script"), "{code} {err}");
}

/// Another's script must not run with the rights of whoever may see their runs, least of all root's.
#[test]
fn jobs_of_others_are_planned_and_not_submitted() {
    let lab = lab_of(4_123_456);
    tool(&lab, "sbatch", "echo \"$@\" >> submitted");
    let store = lab.store();
    let mend = "sudo -u '#4123456' inquest rerun 20 --script j --class oom,app_error --store";
    let mend = format!("{mend} {} --submit", store.display());
    let mend = mend.as_str();
    let (code, out, err) = run(&lab, &["rerun", "20", "--script", "j", "--class", "oom,app_error"], "");
    assert!(code == 1 && err.is_empty() && out.contains("sbatch --array=1-3,6"), "{out} {err}");
    assert!(
        out.contains("jobs of uid-4123456") && out.contains("your rights") && out.contains(mend),
        "{out}"
    );
    let words = ["rerun", "20", "--script", "j", "--class", "oom,app_error", "--submit"];
    let (code, out, err) = run(&lab, &words, "y\n");
    assert!(code == 4 && out.contains("sbatch --array=1-3,6"), "{code} {out} {err}");
    assert!(err.contains("nothing was submitted") && err.contains(mend) && !err.contains("[y/N]"), "{err}");
    assert!(!lab.path().join("submitted").exists());
    // Of one's own jobs nothing is said.
    let (_, out, _) = run(&self::lab(), &["rerun", "20", "--script", "j"], "");
    assert!(!out.contains("your rights"), "{out}");
    let json = lab.json(&["rerun", "20", "--script", "j", "--json"]);
    assert_eq!(json["user"], "uid-4123456");
}

#[test]
fn csv_of_what_failed() {
    let lab = lab();
    let csv = ["--csv", "--config-template", "configs/config_%04d.json"];
    let (code, out, _) = run(&lab, &[&["rerun", "20", "--class", "app_error"], &csv[..]].concat(), "");
    let (header, row) = out.split_once('\n').unwrap();
    let names = r#""job_id","job_name","array_id","class","cause","fingerprint","node","config_file""#;
    assert_eq!((code, header), (1, names));
    assert!(row.starts_with(r#"20,"fit",4,"app_error","app_error","1-"#), "{row}");
    assert!(row.ends_with("\",\"n1\",\"configs/config_0004.json\"\n"), "{row}");
}

#[test]
fn wrong_input_to_rerun() {
    let lab = lab();
    lab.refuses(&["rerun", "999"], 3, &["no job 999"]);
    lab.refuses(&["rerun", "20", "--class", "nope"], 2, &["no class 'nope'", "oom"]);
    lab.refuses(&["rerun", "20", "--mem", "lots; rm"], 2, &["no memory size", "24G"]);
    lab.refuses(&["rerun", "20", "--time", "soon"], 2, &["no time limit", "1-12:00:00"]);
    lab.refuses(&["rerun", "20", "--mem-factor", "0"], 2, &["factor of 0"]);
    lab.refuses(&["rerun", "20", "--csv", "--config-template", "x"], 2, &["no template"]);
    lab.refuses(&["rerun", "20_1", "--script", "j", "--csv", "/no/such/x.csv"], 3, &["cannot write"]);
    lab.refuses(&["rerun", "20", "--store", "/no/such"], 3, &["/no/such"]);
    let (code, _, err) = lab.run(&["rerun", "20_0", "--script", "j"]);
    assert!(code == 0 && err.contains("nothing failed"), "{err}");
}

/// Jobs of one run need not do the same work, and `why` names the same memory as the plan.
#[test]
fn only_siblings_tell_what_a_job_needs() {
    let run = Some("all");
    let lab = Lab::with([
        Job { run, memory_mib: 2048, ..Job::new(1, End::Oom(2048)) },
        // Another name, another size, and a sibling.
        Job { run, name: "huge".into(), memory_mib: 65536, peak_mib: 30_000, ..Job::new(2, End::Code(0)) },
        Job { run, memory_mib: 65536, peak_mib: 31_000, ..Job::new(3, End::Code(0)) },
        Job { run, memory_mib: 2048, peak_mib: 500, ..Job::new(4, End::Code(0)) },
        // An array of the same name and size is no sibling of a job, nor of another array.
        Job { run, array: Some((5, 1)), memory_mib: 2048, peak_mib: 600, ..Job::new(5, End::Code(0)) },
        Job { run, array: Some((6, 1)), memory_mib: 2048, ..Job::new(6, End::Oom(2048)) },
        // The limit was that of a step, of which the job has more than enough.
        Job { run, name: "step".into(), memory_mib: 65536, ..Job::new(7, End::OomStep(1024)) },
    ]);
    let (_, out, _) = lab.run(&["rerun", "all", "--script", "j"]);
    let (first, rest) = out.split_once("oom: 1 of 7 jobs, 6_1").unwrap();
    let (second, third) = rest.split_once("oom: 1 of 7 jobs, 7").unwrap();
    assert!(
        first.contains("  1 that succeeded peaked at 500.0 MiB or less") && first.contains(" --mem=3G "),
        "{out}"
    );
    assert!(second.contains("none of their siblings succeeded") && second.contains(" --mem=3G "), "{out}");
    assert!(third.contains("give its srun --mem=1536M in the script"), "{out}");
    assert!(third.contains("\n  sbatch --partition=batch "), "{out}");
    for (job, memory) in
        [("1", "more memory: --mem=3G"), ("6_1", "more memory: --mem=3G"), ("7", "srun --mem=1536M")]
    {
        let (_, out, _) = lab.run(&["why", job]);
        assert!(out.contains(memory), "{out}");
    }
}

#[test]
fn what_somebody_cancelled_stays_cancelled() {
    let lab = Lab::with([Job::new(1, End::Signal(15)), Job::new(2, End::Code(3))]);
    let cancel = lab.log(
        "rules.toml",
        "[[rule]]\nname = \"stopped\"\npriority = 1\nclass = \"cancelled\"\n[rule.match]\nsignal = [15]\n",
    );
    let rerun = |words: &[&str]| lab.run(&[&["rerun", "--rules", &cancel, "--script", "j"], words].concat());
    let (code, out, _) = rerun(&["1"]);
    assert_eq!(code, 0, "{out}");
    assert_eq!(out, "1 cancelled job is left out: --class cancelled takes them\n");
    let (code, out, _) = rerun(&["1", "--class", "cancelled"]);
    assert!(code == 1 && out.contains("  sbatch ") && !out.contains("left out"), "{out}");
    assert!(out.contains("somebody cancelled it") && !out.contains("the same input"), "{out}");
}
