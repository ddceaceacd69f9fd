//! `inquest scan`: logs of jobs that no plugin recorded.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use support::{Lab, finish};

fn logs(lab: &Lab) -> String {
    let dir = lab.path().join("logs");
    fs::create_dir_all(dir.join("deeper")).unwrap();
    let write = |name: &str, text: &str| fs::write(dir.join(name), text).unwrap();
    write("sweep_4700_1.out", "epoch 1\nresults saved\n");
    write("sweep_4700_1.err", "");
    write("sweep_4700_2.out", "epoch 1\n");
    write(
        "sweep_4700_2.err",
        "slurmstepd: error: *** JOB 4702 ON n1 CANCELLED AT 2026-11-21T10:00:00 DUE TO TIME LIMIT ***\n",
    );
    write(
        "sweep_4700_3.err",
        "Traceback (most recent call last):\n  File \"a.py\", line 1, in <module>\nKeyError: 'x'\n",
    );
    write("sweep_4700_4.out", "epoch 1\n");
    write("deeper/slurm-4711.out", "KeyError: 'x'\nwrite failed: No space left on device\n");
    write("notes.txt", "KeyError: not a log\n");
    dir.to_str().unwrap().to_owned()
}

#[test]
fn a_directory_becomes_one_row_per_job() {
    let lab = Lab::new();
    let dir = logs(&lab);
    let (code, out, err) = lab.run(&["scan", &dir, "--all", "-P", "-o", "JOB,NAME,CLASS,CAUSE"]);
    assert_eq!((code, err.as_str()), (1, ""));
    assert_eq!(
        out,
        "JOB|NAME|CLASS|CAUSE\n4700_1|sweep|none|none\n4700_2|sweep|timeout|timeout\n\
         4700_3|sweep|app_error|app_error\n4700_4|sweep|none|none\n4711|slurm|app_error|disk_full\n"
    );
    let (_, out, _) = lab.run(&["scan", &dir]);
    assert!(
        out.contains("\n3 of 5 jobs failed\n") && out.contains("again: sbatch --array=2-3 SCRIPT\n"),
        "{out}"
    );
    let json = lab.json(&["scan", &dir, "--json"]);
    assert_eq!((&json["schema"], &json["failed"]), (&1.into(), &3.into()));
    assert_eq!(json["jobs"][2]["log"]["exception_type"], "KeyError");
}

#[test]
fn a_success_marker_decides() {
    let lab = Lab::new();
    let dir = logs(&lab);
    let arguments = ["scan", &dir, "--success", "results saved", "-P", "-n", "-o", "JOB,CAUSE"];
    let (code, out, _) = lab.run(&arguments);
    let wanted = "4700_2|timeout\n4700_3|app_error\n4700_4|no_success_marker\n4711|disk_full\n";
    assert_eq!((code, out.as_str()), (1, wanted));
}

#[test]
fn csv_has_the_configuration_of_each_index_and_no_formulas() {
    let lab = Lab::new();
    let dir = logs(&lab);
    let name = "=cmd()_4700_9.err";
    fs::write(Path::new(&dir).join(name), "Error: =HYPERLINK(\"x\")\n").unwrap();
    let template = ["--config-template", "configs/config_%04d.json"];
    let (code, out, _) = lab.run(&["scan", &dir, "--csv", template[0], template[1]]);
    assert_eq!(code, 1);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(
        lines[0],
        r#""job_id","job_name","array_id","class","cause","confidence","fingerprint","root_cause","log","config_file""#
    );
    assert!(lines[1].starts_with(r#"4700,"sweep",2,"timeout","timeout","#), "{out}");
    assert!(lines[1].ends_with(r#","configs/config_0002.json""#), "{out}");
    assert!(lines[3].starts_with(r#"4700,"'=cmd()",9,"#), "{out}");
    let (_, table, _) = lab.run(&["scan", &dir, "--csv", "failed.csv", template[0], template[1]]);
    assert_eq!(fs::read_to_string(lab.path().join("failed.csv")).unwrap(), out);
    assert!(table.contains("jobs failed"), "{table}");
}

#[test]
fn one_log_from_standard_input() {
    let lab = Lab::new();
    let log = b"x\n\x1b[31mKeyError: 'a'\x1b[0m\nsrun: error: n1: task 0: Exited with exit code 1\n";
    let (code, out, _) = lab.feed(&["scan", "--stdin", "--json"], log);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &json["schema"]), (1, &1.into()));
    assert_eq!((&json["cause"], &json["class"]), (&"app_error".into(), &"app_error".into()));
    assert_eq!((&json["root_cause"], &json["exception_type"]), (&"KeyError: 'a'".into(), &"KeyError".into()));
    for key in ["masked_by", "infra", "confidence", "fingerprint"] {
        assert!(json.get(key).is_some(), "{key} is not in {json}");
    }
    let (code, out, _) = lab.feed(&["scan", "--stdin"], log);
    assert_eq!(code, 1);
    assert!(
        out.contains("app_error") && out.contains("line 2: KeyError: 'a'") && !out.contains('\u{1b}'),
        "{out}"
    );
    let (code, out, _) = lab.feed(&["scan", "--stdin", "--json"], b"all went well\n");
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &json["cause"], &json["root_cause"]), (0, &"none".into(), &serde_json::Value::Null));
    assert_eq!(lab.feed(&["scan", "--stdin"], b"").0, 0);
}

#[test]
fn a_log_that_cannot_be_read_is_said_and_costs_only_itself() {
    let lab = Lab::new();
    let dir = logs(&lab);
    fs::create_dir(Path::new(&dir).join("odd_4700_5.err")).unwrap();
    std::os::unix::fs::symlink("/no/such", Path::new(&dir).join("odd_4700_6.err")).unwrap();
    let (code, out, err) = lab.run(&["scan", &dir, "-P", "-n", "-o", "JOB,CAUSE"]);
    assert_eq!(code, 1);
    assert!(out.contains("4700_6|unreadable\n") && !out.contains("4700_5"), "{out}");
    assert!(err.lines().count() == 1 && err.contains("odd_4700_6.err is missing"), "{err}");
    let (_, out, _) = lab.run(&["scan", &dir]);
    assert!(
        out.contains("3 of 6 jobs failed, 1 cannot be read\n") && out.contains("sbatch --array=2-3 SCRIPT\n"),
        "{out}"
    );
    assert_eq!(lab.run(&["scan", &format!("{dir}/odd_4700_6.err")]).0, 3);
}

#[test]
fn wrong_input_to_scan() {
    let lab = Lab::new();
    let dir = logs(&lab);
    fs::create_dir(lab.path().join("empty")).unwrap();
    lab.refuses(&["scan", "/no/such"], 3, &["/no/such", "no such file"]);
    lab.refuses(&["scan", "empty"], 3, &["no logs in empty", ".out"]);
    lab.refuses(&["scan", &dir, "--success", "("], 2, &["'('", "no regular expression"]);
    lab.refuses(&["scan", &dir, "--csv", "--config-template", "config.json"], 2, &["no %d", "config_%04d"]);
    lab.refuses(&["scan", &dir, "-o", "nope"], 2, &["no column 'nope'"]);
    lab.refuses(&["scan", &dir, "--csv", "/no/such/dir/x.csv"], 3, &["cannot write /no/such/dir/x.csv"]);
    assert_eq!(lab.run(&["scan"]).0, 2);
}

#[test]
fn slurm_is_asked_where_it_is_and_not_needed() {
    let lab = Lab::new();
    let dir = logs(&lab);
    let bin = lab.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let tool = |name: &str, body: &str| {
        let path = bin.join(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    tool("squeue", "echo \"$*\" >> asked; echo '4700|1|4701'");
    tool(
        "sacct",
        "echo '4700_3|FAILED'; echo '4700_3.0|OUT_OF_MEMORY'; echo '4700_4|FAILED'; echo '4711|COMPLETED'",
    );
    let run = |arguments: &[&str]| {
        let mut command =
            lab.command(&[&["scan", &dir, "-P", "-n", "-o", "JOB,STATE,CAUSE"], arguments].concat());
        command.env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
        finish(command, b"")
    };
    let (code, out, err) = run(&["--squeue", "--sacct", "--all"]);
    let wanted = "4700_2|-|timeout\n4700_3|OUT_OF_MEMORY|oom\n4700_4|FAILED|no_reason_in_log\n\
                  4711|COMPLETED|disk_full\n";
    assert_eq!((code, out.as_str()), (1, wanted));
    assert!(err.contains("1 job has not ended and is left out"), "{err}");
    assert!(fs::read_to_string(lab.path().join("asked")).unwrap().trim().ends_with("--jobs=4700,4711"));
    tool("sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1");
    let (code, out, err) = run(&["--sacct", "--jobs", "4711"]);
    assert_eq!((code, out.as_str()), (1, "4711|-|disk_full\n"));
    assert!(
        err.lines().count() == 1 && err.contains("storage is disabled") && err.contains("logs alone"),
        "{err}"
    );
}
