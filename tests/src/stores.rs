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

/// Where the numbers of a stream do not run from 0 without a gap, or an event is there twice. What a
/// `lost` event of the stream tells of is no gap; it may be one more, where the first try to tell was
/// torn itself.
pub fn gaps(events: &[Value]) -> Vec<String> {
    let mut streams = BTreeMap::<&str, (BTreeSet<u64>, u64)>::new();
    let mut found = Vec::new();
    for event in events {
        let (Some(stream), Some(seq)) = (event["stream"].as_str(), event["seq"].as_u64()) else {
            found.push(format!("no identity: {event}"));
            continue;
        };
        let (numbers, told) = streams.entry(stream).or_default();
        if !numbers.insert(seq) {
            found.push(format!("twice: {event}"));
        }
        if event["event_type"] == "lost" && event["source"] == "plugin" {
            *told += event["count"].as_u64().unwrap_or(0);
        }
    }
    for (stream, (numbers, told)) in streams {
        let missing = numbers.last().map_or(0, |last| last + 1) - numbers.len() as u64;
        if missing < told || (missing > 0 && told == 0) {
            found.push(format!("{stream}: {missing} numbers are missing, {told} are told of as lost"));
        }
    }
    found
}
