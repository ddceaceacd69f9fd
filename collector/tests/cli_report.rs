//! `inquest report`: the week of a site, and what is new, said once.

mod support;

use std::fs;

use inquest::serve::site::kinds;
use inquest::store::index::{Filter, Index};
use inquest::verdict::Class;
use inquest_journal::Timestamp;
use support::{EPOCH, End, Job, Lab};

fn lab(jobs: impl IntoIterator<Item = (u32, i64, End)>) -> Lab {
    let lab = Lab::new();
    add(&lab, jobs);
    lab
}

/// Jobs that ended so many days ago.
fn add(lab: &Lab, jobs: impl IntoIterator<Item = (u32, i64, End)>) {
    let now = jiff::Timestamp::now().as_microsecond() / 1_000_000;
    for (id, days, end) in jobs {
        let start = now - EPOCH / 1_000_000 - 3000 - days * 86_400;
        lab.job(&Job { start, name: "a<b>&".into(), ..Job::new(id, end) });
    }
    lab.merge(&[]);
}

#[test]
fn the_week_in_text_in_json_and_as_a_page_that_stands_alone() {
    let lab = lab([(1, 0, End::Code(0)), (2, 1, End::Code(3)), (3, 2, End::Oom(64)), (4, 10, End::Code(3))]);
    let (code, text, stderr) = lab.run(&["report", "--week"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(text.contains("2 of 3 jobs failed (66.7 %); in the time before, 1 of 1 (100.0 %)."), "{text}");
    let json = lab.json(&["report", "--json"]);
    assert_eq!((&json["ended"], &json["failed"], &json["failed_before"]), (&3.into(), &2.into(), &1.into()));
    let new = |class: &str| {
        let kinds = json["kinds"].as_array().unwrap();
        kinds.iter().find(|k| k["class"] == class).map(|k| k["new"].as_bool().unwrap())
    };
    assert_eq!((new("app_error"), new("oom")), (Some(false), Some(true)), "{json}");
    let (code, page, _) = lab.run(&["report", "--html", "-"]);
    assert_eq!(code, 0);
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("2 of 3 jobs failed"), "{page}");
    for bad in ["<script", "http://", "https://", "src=", " style="] {
        assert!(!page.contains(bad), "{bad} is in {page}");
    }
}

#[test]
fn what_is_new_is_said_once() {
    let lab = lab([(1, 0, End::Oom(64)), (2, 0, End::Oom(64)), (3, 10, End::Code(3)), (4, 0, End::Code(3))]);
    let told = lab.path().join("told");
    let ask = || lab.run(&["report", "--new", told.to_str().unwrap()]);
    let (code, text, stderr) = ask();
    assert_eq!((code, stderr.as_str()), (1, ""));
    assert_eq!(text.matches("New kind of failure").count(), 1, "{text}");
    assert!(text.contains("(oom), 2 jobs so far"), "{text}");
    assert_eq!(ask(), (0, String::new(), String::new()));
    add(&lab, [(5, 0, End::Oom(64)), (6, 0, End::Signal(11))]);
    let (code, text, _) = ask();
    assert!(code == 1 && text.contains("(crash), 1 job so far") && !text.contains("(oom)"), "{text}");
    assert_eq!(fs::read_to_string(&told).unwrap().lines().count(), 2);
    lab.refuses(&["report", "--store", "/no/such/store"], 3, &["/no/such/store", "inquest index rebuild"]);
}

#[test]
fn one_of_something_is_not_many() {
    let lab = lab([(1, 0, End::Oom(64))]);
    let (_, text, _) = lab.run(&["report"]);
    assert!(text.contains("1 of 1 job failed (100.0 %); in the time before, 0 of 0 (0.0 %)."), "{text}");
    let (_, page, _) = lab.run(&["report", "--html", "-"]);
    assert!(page.contains("1 of 1 job failed"), "{page}");
    let (_, text, _) = lab.run(&["index"]);
    assert!(text.starts_with("1 run, 1 attempt of jobs, 1 ended, 1 of them badly; "), "{text}");
    let rules = lab.log(
        "rules.toml",
        "[[rule]]\nname = \"a\"\npriority = 1\nclass = \"infra\"\n[rule.match]\nexit_code = [1]\n",
    );
    let (_, text, _) = lab.run(&["rules", "--check", &rules]);
    assert!(text.ends_with(": 1 rule, nothing is wrong with it\n"), "{text}");
}

/// However many kinds were there before, and however often.
#[test]
fn what_was_there_before_leaves_room_for_what_is_new() {
    let lab = lab([(1, 10, End::Code(3)), (2, 0, End::Code(3)), (3, 0, End::Code(3)), (4, 0, End::Oom(64))]);
    let index = Index::open(&lab.store()).unwrap();
    let since = Timestamp(jiff::Timestamp::now().as_microsecond() - 7 * 86_400_000_000);
    let filter = Filter { since: Some(since), ..Filter::default() };
    let classes = |wanted: &dyn Fn(&str, bool) -> bool| -> Vec<Option<Class>> {
        kinds(&index, &filter, wanted, 1).unwrap().iter().map(|k| k.class).collect()
    };
    assert_eq!(classes(&|_, _| true), [Some(Class::AppError)]);
    assert_eq!(classes(&|_, new| new), [Some(Class::Oom)]);
}
