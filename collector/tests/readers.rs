//! Readers that are not ours: what users of parade and of Scalable have, and plain jq, on a store as
//! the collector writes it. The scripts are in `tests/readers`.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use support::{End, Job, Lab, find};

fn lab() -> Lab {
    let array =
        |id, end| Job { array: Some((40, id - 40)), name: "sweep \"é\"".into(), ..Job::new(id, end) };
    let lab = Lab::with([
        array(41, End::Code(0)),
        array(42, End::Oom(64)),
        array(43, End::Signal(15)),
        Job { start: 100, ..Job::new(7, End::Code(3)) },
        Job { start: 200, ..Job::new(8, End::Open) },
    ]);
    // A requeued member whose second attempt ends well, after the first was judged.
    lab.job(&Job { restart: 1, start: 60, ..array(43, End::Code(0)) });
    lab.collect();
    lab
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/readers").join(name)
}

fn read(program: &Path, arguments: &[&Path]) -> Value {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", program.display());
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_reader_of_parade_finds_runs_and_chunks() {
    let lab = lab();
    let user = find(&lab.store(), "runs").parent().unwrap().to_owned();
    let told = read(&script("parade.py"), &[&user]);
    let array = &told["array-40"];
    assert_eq!(
        (&array["status"], &array["backend"], &array["n_chunks"]),
        (&json!("failed"), &json!("slurm"), &json!(3))
    );
    assert_eq!((&array["completed"], &array["failed"]), (&json!([1, 3]), &json!([2])), "{array}");
    assert_eq!((&array["retried"], &array["last"]), (&json!(1), &json!("run_failed")), "{array}");
    assert_eq!((&told["job-7"]["failed"], &told["job-8"]["status"]), (&json!([1]), &json!("running")));
}

#[test]
fn a_reader_of_scalable_counts_states_and_failures() {
    let lab = lab();
    let told = read(&script("scalable.py"), &[&find(&lab.store(), "runs")]);
    let array = &told["array-40"];
    assert_eq!(array["tasks"], json!({"succeeded": 2, "failed": 1}), "{array}");
    assert_eq!((&array["failures"], &array["status"]), (&json!({"oom": 1}), &json!("failed")));
    assert_eq!(
        (&told["job-8"]["tasks"], &told["job-7"]["longest_s"]),
        (&json!({"running": 1}), &json!(10.0))
    );
}

#[test]
fn jq_says_what_failed() {
    let lab = lab();
    let program = script("failed.jq");
    let failed = |run: &str| {
        let events = lab.events_of(run);
        read(Path::new("jq"), &[Path::new("-s"), Path::new("-f"), &program, &events])
    };
    let array = failed("array-40");
    assert_eq!((array.as_array().unwrap().len(), &array[0]["job"]), (1, &json!("42")), "{array}");
    assert_eq!((&array[0]["class"], &array[0]["node"]), (&json!("oom"), &json!("n1")));
    assert!(array[0]["error"].as_str().unwrap().contains("killed"), "{array}");
    assert_eq!(failed("job-8"), json!([]));
}
