//! What lies in a store or a journal directory: every file, and every event by its identity.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use inquest_journal::Lines;
use serde_json::Value;

/// All files but the databases, with their content, by their path below `root`.
pub fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for path in walk(root) {
        let name = path.strip_prefix(root).unwrap_or(&path).to_owned();
        if !["ledger.db", "index.db"].iter().any(|db| name.to_string_lossy().starts_with(db)) {
            let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let timeless = name == Path::new("health.json");
            found.insert(name, if timeless { without_times(&bytes) } else { bytes });
        }
    }
    found
}

/// The collector's health without what is of its process and its clock.
fn without_times(health: &[u8]) -> Vec<u8> {
    let mut health: Value = serde_json::from_slice(health).unwrap_or_else(|e| panic!("health.json: {e}"));
    for field in ["at", "daemon"] {
        health.as_object_mut().and_then(|h| h.remove(field));
    }
    health.to_string().into_bytes()
}

/// The paths of all files below a directory; none when it is not there.
pub fn walk(root: &Path) -> Vec<PathBuf> {
    let (mut found, mut dirs) = (Vec::new(), vec![root.to_owned()]);
    while let Some(dir) = dirs.pop() {
        // A collector that was killed early has not even made its store.
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let directory = entry.file_type().is_ok_and(|t| t.is_dir());
            if directory { &mut dirs } else { &mut found }.push(entry.path());
        }
    }
    found
}

/// Stream and number of every event of a node; panics when one is there twice or a line is none.
pub fn identities(files: &BTreeMap<PathBuf, Vec<u8>>) -> BTreeSet<(String, u64)> {
    let mut seen = BTreeSet::new();
    let events =
        |path: &Path| path.extension().is_some_and(|e| e == "jsonl") && !path.ends_with("_registry.jsonl");
    for (path, bytes) in files.iter().filter(|(path, _)| events(path)) {
        for (_, line) in Lines::new(bytes) {
            let event: Value =
                serde_json::from_slice(line).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let (Some(stream), Some(seq)) = (event["stream"].as_str(), event["seq"].as_u64()) else {
                panic!("{}: no identity: {event}", path.display());
            };
            let id = (stream.to_owned(), seq);
            assert!(seen.insert(id), "{} holds an event that was seen before", path.display());
        }
    }
    seen.into_iter().filter(|(stream, _)| !stream.starts_with("collector-")).collect()
}

/// Where the numbers of a stream do not run from 0 without a gap, or an event is there twice. What its
/// `lost` events tell of is no gap. Such an event has a number like any other, and the first try to write it
/// may have been torn, which costs one more; a disk that has become full once tears no second one.
pub fn gaps(events: &[Value]) -> Vec<String> {
    #[derive(Default)]
    struct Stream {
        numbers: BTreeSet<u64>,
        lost_events: u64,
        told: u64,
    }
    let mut streams = BTreeMap::<&str, Stream>::new();
    let mut found = Vec::new();
    for event in events {
        let (Some(stream), Some(seq)) = (event["stream"].as_str(), event["seq"].as_u64()) else {
            found.push(format!("no identity: {event}"));
            continue;
        };
        let of_stream = streams.entry(stream).or_default();
        if !of_stream.numbers.insert(seq) {
            found.push(format!("twice: {event}"));
        }
        // The agent's tell of deaths that had no number.
        if event["event_type"] == "lost" && event["source"] == "plugin" {
            of_stream.lost_events += 1;
            of_stream.told += event["count"].as_u64().unwrap_or(0);
        }
    }
    for (stream, Stream { numbers, lost_events, told }) in streams {
        let missing = numbers.last().map_or(0, |last| last + 1) - numbers.len() as u64;
        if !(told..=told + lost_events).contains(&missing) {
            found.push(format!("{stream}: {missing} numbers are missing, {told} are told of as lost"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A stream of events with these numbers, and of `lost` events with a number and a count.
    fn stream(numbers: impl IntoIterator<Item = u64>, lost: &[(u64, u64)]) -> Vec<Value> {
        let event = |seq| json!({"stream": "s", "seq": seq, "source": "plugin", "event_type": "note"});
        let told = |&(seq, count): &(u64, u64)| json!({"stream": "s", "seq": seq, "source": "plugin", "event_type": "lost", "count": count});
        numbers.into_iter().map(event).chain(lost.iter().map(told)).collect()
    }

    #[test]
    fn what_is_told_of_is_no_gap() {
        assert_eq!(gaps(&stream(0..10, &[])), [""; 0]);
        // 2, 3 and 4 are lost, 5 tells of them.
        assert_eq!(gaps(&stream([0, 1, 6], &[(5, 3)])), [""; 0]);
        // 5 was torn, 6 tells.
        assert_eq!(gaps(&stream([0, 1, 7], &[(6, 3)])), [""; 0]);
        assert_eq!(gaps(&stream([0, 3, 7], &[(2, 1), (6, 2)])), [""; 0]);
    }

    #[test]
    fn more_or_less_than_what_is_told_of_is_one() {
        let refused = |events: &[Value], what: &str| assert_eq!(gaps(events), [format!("s: {what} as lost")]);
        refused(&stream([0, 502], &[(501, 1)]), "500 numbers are missing, 1 are told of");
        refused(&stream([0, 8], &[(7, 3)]), "6 numbers are missing, 3 are told of");
        refused(&stream([0, 2], &[]), "1 numbers are missing, 0 are told of");
        refused(&stream([0, 1, 2], &[(3, 1)]), "0 numbers are missing, 1 are told of");
        assert_eq!(gaps(&stream([0, 1, 1], &[])).len(), 1);
        // The agent's own count is of something else.
        let mut events = stream([0, 3], &[(2, 1)]);
        events[2]["source"] = "agent".into();
        refused(&events, "1 numbers are missing, 0 are told of");
    }
}
