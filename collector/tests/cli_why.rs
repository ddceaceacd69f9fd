//! The report as it is printed, and which runs `--last` means.

mod support;

use support::{End, Job, Lab};

/// Compares with the file of this name; INQUEST_UPDATE=1 writes it.
fn golden(lab: &Lab, name: &str, text: &str) {
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
