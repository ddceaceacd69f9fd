//! A site's own rules: tried first, checked strictly, shown in their order.

mod support;

use support::{End, Job, Lab};

const RULES: &str = r#"
[[rule]]
name = "scratch-full"
priority = 100
class = "infra"
label = "SCRATCH"
advice = ["write to /work instead"]
retry = "as_it_is"
[rule.match]
class = ["app_error"]
log = 'scratch\d+ is full'

[[rule]]
name = "bad-input"
priority = 50
class = "validation"
detail = "the input is no good."
[rule.match]
exit_code = [64]

[[success]]
marker = 'ALL DONE'
job_name = ["strict*"]
"#;

fn lab() -> Lab {
    let lab = Lab::new();
    let job = |id, end, name: &str, log: &str| Job {
        name: name.into(),
        run: Some("r1"),
        open: Some(lab.log(&format!("{id}.log"), log)),
        ..Job::new(id, end)
    };
    for job in [
        job(1, End::Code(1), "fit", "starting\nerror: /scratch7: scratch7 is full\n"),
        job(2, End::Code(64), "fit", "error: no such column\n"),
        job(3, End::Code(0), "strict-1", "working\nwork is ALL DONE\n"),
        job(4, End::Code(0), "strict-2", "working\n"),
        job(5, End::Code(0), "fit", "working\n"),
        job(6, End::Code(1), "fit", "ValueError: bad\n"),
    ] {
        lab.job(&job);
    }
    lab
}

fn causes(lab: &Lab, words: &[&str]) -> Vec<String> {
    let mut all = vec!["run", "r1", "-n", "-P", "-o", "JOB,CLASS,CAUSE,STATE"];
    all.extend(words);
    lab.run(&all).1.lines().map(str::to_owned).collect()
}

#[test]
fn rules_of_a_site_come_first() {
    let lab = lab();
    lab.collect();
    let rules = lab.log("rules.toml", RULES);
    let with = ["--rules", rules.as_str()];
    assert_eq!(
        causes(&lab, &with),
        [
            "1|infra|scratch-full|SCRATCH",
            "2|validation|bad-input|BAD-INPUT",
            "3|ok|ok|OK",
            "4|validation|no_success_marker|NO_MARKER",
            "5|ok|ok|OK",
            "6|app_error|app_error|ERROR"
        ]
    );
    let told = lab.json(&["rules", "--rules", &rules, "--json"]);
    assert_eq!(told["path"], rules.as_str());
    assert_eq!(causes(&lab, &[])[0], "1|app_error|app_error|ERROR");
    assert_eq!(causes(&lab, &["--success", "working"])[4..], ["5|ok|ok|OK", "6|app_error|app_error|ERROR"]);
    assert_eq!(causes(&lab, &["--success", "ALL"])[4], "5|validation|no_success_marker|NO_MARKER");

    let (code, text, _) = lab.run(&["why", "1", "--rules", &rules]);
    assert_eq!(code, 1);
    assert!(text.contains("SCRATCH") && text.contains("Advice      write to /work instead"), "{text}");
    assert!(text.contains("  error: /scratch7: scratch7 is full\n"), "{text}");
    let json = lab.json(&["why", "1", "--json", "--rules", &rules]);
    assert_eq!(json["jobs"][0]["verdict"]["rule"], "scratch-full");
    assert_eq!(json["failures"][0]["cause"], "scratch-full");
    assert_eq!(lab.run(&["why", "4"]).0, 0);
    assert_eq!(lab.run(&["why", "4", "--rules", &rules]).0, 1);
    let (_, text, _) = lab.run(&["rerun", "r1", "--script", "j", "--rules", &rules]);
    assert!(text.contains("infra: 1 of 6 jobs, 1 "), "{text}");
}

#[test]
fn the_collector_tries_what_asks_for_no_log() {
    let lab = lab();
    let rules = lab.log("rules.toml", RULES);
    lab.merge(&["--rules", &rules]);
    let json = lab.json(&["runs", "--json"]);
    assert_eq!(json["runs"][0]["classes"], serde_json::json!({ "ok": 3, "app_error": 2, "validation": 1 }));
    // With other rules it is judged anew.
    let other = lab.log("other.toml", RULES.replace("[64]", "[65]"));
    assert_eq!(causes(&lab, &[])[1], "2|validation|bad-input|BAD-INPUT");
    assert_eq!(causes(&lab, &["--rules", &other])[1], "2|app_error|app_error|ERROR");
}

#[test]
fn a_wrong_file_is_refused_and_a_good_one_shown() {
    let lab = lab();
    lab.collect();
    let good = lab.log("good.toml", RULES);
    let (code, out, _) = lab.run(&["rules", "--check", &good]);
    assert_eq!((code, out), (0, format!("{good}: 2 rules, nothing is wrong with them\n")));
    let (_, out, _) = lab.run(&["rules", "--rules", &good, "-n", "-P", "-o", "ORDER,FROM,CAUSE"]);
    assert!(out.starts_with("1|site|scratch-full\n2|site|bad-input\n3|inquest|"), "{out}");
    let json = lab.json(&["rules", "--json", "--rules", &good]);
    assert_eq!(json["rules"][0]["holds"], r"class app_error, log scratch\d+ is full");

    let bad = lab.log("bad.toml", RULES.replace("exit_code", "exit_kode"));
    for arguments in
        [&["rules", "--check", &bad][..], &["why", "1", "--rules", &bad], &["run", "r1", "--rules", &bad]]
    {
        lab.refuses(arguments, 2, &["bad.toml:19: ", "exit_kode", "inquest rules --help"]);
    }
    lab.refuses(&["why", "1", "--rules", "/no/such/file"], 2, &["/no/such/file", "name another file"]);
    lab.refuses(&["why", "1", "--success", "a("], 2, &["the marker", "unclosed group"]);
}
