//! Every verb that is asked about jobs, with every kind of wrong input: the error names the thing and
//! the reason, says how to mend it, and the exit code is the one of the house.

mod support;

use std::fs;

use support::{End, Job, Lab};

/// Verbs that take a job or a run, with what they take beside it.
const VERBS: [(&str, &[&str]); 11] = [
    ("why", &[]),
    ("run", &[]),
    ("timeline", &[]),
    ("logs", &[]),
    ("grep", &["ERROR"]),
    ("events", &[]),
    ("errors", &[]),
    ("rerun", &[]),
    ("top", &["--once"]),
    ("compare", &["7"]),
    ("export", &["members"]),
];

/// What is asked for, the exit code, the thing that is named, and how to mend it.
const WRONG: [(&str, i32, &str, &str); 9] = [
    ("sweep-9", 3, "sweep-9", "inquest runs"),
    ("999", 3, "999", "inquest runs"),
    ("999_4", 3, "999", "inquest runs"),
    ("7_[1-", 2, "7_[1-", "write 123"),
    ("7_[3-1]", 2, "7_[3-1]", "write 123"),
    ("7.nostep", 2, "7.nostep", "write 123"),
    ("no such run", 2, "no such run", "write 123"),
    ("", 2, "''", "write 123"),
    ("../../etc", 2, "../../etc", "write 123"),
];

fn lab() -> Lab {
    Lab::with([Job::new(7, End::Code(1))])
}

fn words<'a>(verb: &'a str, more: &[&'a str], target: &'a str) -> Vec<&'a str> {
    [&[verb], more, &[target]].concat()
}

#[test]
fn eleven_verbs_refuse_nine_wrong_targets() {
    let lab = lab();
    for (verb, more) in VERBS {
        for (target, code, thing, mend) in WRONG {
            lab.refuses(&words(verb, more, target), code, &[thing, mend]);
        }
    }
}

#[test]
fn eleven_verbs_refuse_a_store_that_is_none() {
    let lab = lab();
    let file = lab.log("file", "no directory\n");
    for (verb, more) in VERBS {
        for store in ["/no/such/store", &file] {
            let all = [words(verb, more, "job-7"), vec!["--store", store]].concat();
            lab.refuses(&all, 3, &[store]);
        }
    }
}

#[test]
fn every_verb_names_an_option_that_it_has_not_and_an_argument_that_it_wants() {
    let lab = lab();
    for (verb, more) in VERBS {
        let all = [words(verb, more, "7"), vec!["--no-such-option"]].concat();
        let (code, out, err) = lab.run(&all);
        assert_eq!((code, out.as_str()), (2, ""), "{all:?}");
        assert!(err.contains("--no-such-option") && err.contains("--help"), "{all:?}: {err}");
        // `top` alone has something to show of nothing.
        let wanted: Vec<&str> = [&[verb][..], if verb == "grep" { more } else { &[] }].concat();
        let (code, _, err) = if verb == "top" { continue } else { lab.run(&wanted) };
        assert!(code == 2 && err.contains("Usage: inquest"), "{wanted:?}: {code} {err}");
    }
}

#[test]
fn a_store_without_permission_or_with_a_broken_run_is_said() {
    let lab = lab();
    let state = lab.events_of("job-7").with_file_name("run.json");
    fs::write(&state, "{\"schema\": ").unwrap();
    for (verb, more) in VERBS.iter().filter(|(verb, _)| *verb != "top") {
        let (code, _, err) = lab.run(&words(verb, more, "job-7"));
        assert!(matches!(code, 2 | 3), "{verb}: {code} {err}");
        assert!(err.starts_with("inquest: ") && err.lines().count() <= 2, "{verb}: {err}");
    }
}
