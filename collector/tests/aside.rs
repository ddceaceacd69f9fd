//! A run that cannot be written is set aside; everything else goes on, and its events come when it can be.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use inquest::collect::health::HEALTH;
use inquest::collect::{Collector, Options};
use serde_json::Value;

use support::{End, Job, Lab};

/// Lines of a journal, of which some are there already.
struct Lines {
    at: PathBuf,
    rest: Vec<String>,
}

impl Lines {
    /// All lines of these jobs, of which each has a node of its own, and of each the first `first`.
    fn of(lab: &Lab, jobs: &[Job], first: usize) -> Vec<Lines> {
        let whole = Lab::new();
        let of = |job: &Job| {
            whole.job(job);
            let name = Path::new(job.node).join("2026-11-21.jsonl");
            let text = fs::read_to_string(whole.journal().join(&name)).unwrap();
            let mut lines = Lines {
                at: lab.journal().join(name),
                rest: text.lines().map(|line| format!("{line}\n")).collect(),
            };
            lines.write(first);
            lines
        };
        jobs.iter().map(of).collect()
    }

    fn write(&mut self, count: usize) {
        fs::create_dir_all(self.at.parent().unwrap()).unwrap();
        let known = fs::read_to_string(&self.at).unwrap_or_default();
        let new: String = self.rest.drain(..count.min(self.rest.len())).collect();
        fs::write(&self.at, known + &new).unwrap();
    }
}

fn open(lab: &Lab) -> Collector {
    let options = Options { journal: lab.journal(), store: lab.store(), quiet: Duration::from_secs(1) };
    let mut collector = Collector::open(options, None).unwrap();
    collector.checkpoint_every(600);
    collector
}

fn aside(lab: &Lab) -> Vec<String> {
    let health: Value = serde_json::from_slice(&fs::read(lab.store().join(HEALTH)).unwrap()).unwrap();
    let places = health["aside"].as_array().cloned().unwrap_or_default();
    places.iter().map(|place| place[0].as_str().unwrap().to_owned()).collect()
}

/// What a run has of its own job, and how it was judged.
fn events(lab: &Lab, run: &str) -> Vec<(String, Value, Value)> {
    let text = fs::read_to_string(lab.events_of(run)).unwrap();
    let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.map(|e| (e["event_type"].to_string(), e["seq"].clone(), e["verdict"]["class"].clone())).collect()
}

fn jobs() -> [Job; 2] {
    [Job::new(7, End::Code(3)), Job { node: "n2", ..Job::new(8, End::Code(0)) }]
}

/// Breaks and mends the store below the directory of the runs of the jobs' user.
struct Harm {
    name: &'static str,
    aside: &'static str,
    harm: fn(&Path),
    mend: fn(&Path),
}

fn away(path: &Path) -> PathBuf {
    path.parent().unwrap().join("away")
}

/// Puts a file where something else was.
fn file_for(path: &Path) {
    fs::rename(path, away(path)).unwrap();
    fs::write(path, "mine").unwrap();
}

/// Puts a directory where something else was.
fn dir_for(path: &Path) {
    fs::rename(path, away(path)).unwrap();
    fs::create_dir(path).unwrap();
}

fn back(path: &Path) {
    let _ = fs::remove_file(path);
    let _ = fs::remove_dir(path);
    fs::rename(away(path), path).unwrap();
}

const HARMS: [Harm; 6] = [
    Harm {
        name: "a file for the run's directory",
        aside: "/runs/job-7",
        harm: |runs| file_for(&runs.join("job-7")),
        mend: |runs| back(&runs.join("job-7")),
    },
    Harm {
        name: "a directory for its events",
        aside: "/runs/job-7",
        harm: |runs| dir_for(&runs.join("job-7/events.jsonl")),
        mend: |runs| back(&runs.join("job-7/events.jsonl")),
    },
    Harm {
        name: "a directory for its state",
        aside: "/runs/job-7",
        harm: |runs| {
            dir_for(&runs.join("job-7/run.json"));
            fs::write(runs.join("job-7/run.json/x"), "").unwrap();
        },
        mend: |runs| {
            fs::remove_file(runs.join("job-7/run.json/x")).unwrap();
            back(&runs.join("job-7/run.json"));
        },
    },
    Harm {
        name: "no events any more",
        aside: "/runs/job-7",
        harm: |runs| {
            fs::rename(runs.join("job-7/events.jsonl"), runs.join("away")).unwrap();
        },
        mend: |runs| fs::rename(runs.join("away"), runs.join("job-7/events.jsonl")).unwrap(),
    },
    Harm {
        name: "fewer events than were written",
        aside: "/runs/job-7",
        harm: |runs| {
            fs::copy(runs.join("job-7/events.jsonl"), runs.join("away")).unwrap();
            fs::write(runs.join("job-7/events.jsonl"), "{}\n").unwrap();
        },
        mend: |runs| fs::rename(runs.join("away"), runs.join("job-7/events.jsonl")).unwrap(),
    },
    Harm {
        name: "a directory for the registry",
        aside: "",
        harm: |runs| dir_for(&runs.join("_registry.jsonl")),
        mend: |runs| back(&runs.join("_registry.jsonl")),
    },
];

#[test]
fn one_run_that_cannot_be_written_stops_nobody_and_loses_nothing() {
    let calm = Lab::with(jobs());
    let wanted = events(&calm, "job-7");
    assert!(wanted.iter().any(|e| e.2 == "app_error"), "{wanted:?}");
    for restarted in [false, true] {
        for harm in &HARMS {
            let what = format!("{}, restarted: {restarted}", harm.name);
            let lab = Lab::new();
            let mut lines = Lines::of(&lab, &jobs()[..1], 2);
            let mut collector = open(&lab);
            collector.pass(false).unwrap();
            let runs = lab.events_of("job-7").parent().unwrap().parent().unwrap().to_owned();
            (harm.harm)(&runs);
            if restarted {
                drop(collector);
                collector = open(&lab);
            }
            // The rest of it, and another job of another user.
            lines[0].write(2);
            let other = Job { uid: 4_294_967_293, ..jobs()[1].clone() };
            Lines::of(&lab, &[other], usize::MAX);
            collector.pass(false).unwrap_or_else(|e| panic!("{what}: {e}"));
            lines[0].write(usize::MAX);
            collector.pass(false).unwrap_or_else(|e| panic!("{what}: {e}"));
            collector.pass(true).unwrap_or_else(|e| panic!("{what}: {e}"));
            let said = aside(&lab);
            assert!(said.len() == 1 && said[0].ends_with(harm.aside), "{what}: {said:?}");
            assert!(events(&lab, "job-8").iter().any(|e| e.2 == "ok"), "{what}");
            if restarted {
                drop(collector);
                collector = open(&lab);
                collector.pass(false).unwrap();
                assert_eq!(aside(&lab), said, "{what}");
            }
            (harm.mend)(&runs);
            drop(collector);
            collector = open(&lab);
            collector.pass(true).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(aside(&lab), Vec::<String>::new(), "{what}");
            assert_eq!(events(&lab, "job-7"), wanted, "{what}");
            // Nothing of it waits any more, and nothing comes twice.
            drop(collector);
            open(&lab).pass(true).unwrap();
            assert_eq!(events(&lab, "job-7"), wanted, "{what}");
        }
    }
}

#[test]
fn a_run_that_was_taken_away_under_the_collector_is_gone_on_without() {
    let lab = Lab::new();
    let mut lines = Lines::of(&lab, &jobs()[..1], 2);
    let mut collector = open(&lab);
    collector.pass(false).unwrap();
    fs::remove_dir_all(lab.events_of("job-7").parent().unwrap()).unwrap();
    Lines::of(&lab, &jobs()[1..], usize::MAX);
    lines[0].write(usize::MAX);
    for last in [false, true] {
        collector.pass(last).unwrap();
    }
    assert!(events(&lab, "job-8").iter().any(|e| e.2 == "ok"));
    assert!(events(&lab, "job-7").iter().any(|e| e.0.contains("job_ended")), "what came later");
    assert_eq!(aside(&lab), Vec::<String>::new());
}

#[test]
fn what_was_set_aside_comes_back_by_itself() {
    let calm = Lab::with(jobs());
    let wanted = events(&calm, "job-7");
    for harm in [&HARMS[0], &HARMS[4]] {
        let lab = Lab::new();
        let mut lines = Lines::of(&lab, &jobs()[..1], 2);
        let mut collector = open(&lab);
        collector.pass(false).unwrap();
        let runs = lab.events_of("job-7").parent().unwrap().parent().unwrap().to_owned();
        (harm.harm)(&runs);
        lines[0].write(usize::MAX);
        collector.pass(true).unwrap();
        assert_eq!(aside(&lab).len(), 1, "{}", harm.name);
        (harm.mend)(&runs);
        let began = Instant::now();
        while !aside(&lab).is_empty() {
            assert!(began.elapsed() < Duration::from_secs(60), "{}", harm.name);
            collector.pass(true).unwrap();
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(events(&lab, "job-7"), wanted, "{}", harm.name);
    }
}
