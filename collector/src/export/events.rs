//! The table of events: one column for every field that any event can have.

use std::collections::HashMap;

use inquest_journal::{SCHEMA, Timestamp};
use serde_json::{Map, Value};

use super::{Cell, Column, Kind};

/// Fields of the collector's own events, beside those of the journal.
const DERIVED: [(&str, Kind, &str); 10] = [
    ("attempt", Kind::Unsigned, "Which attempt of the job ended or began, from 1."),
    ("duration_ms", Kind::Signed, "How long that attempt lasted, in milliseconds."),
    ("revised", Kind::Bool, "The verdict takes the place of an earlier one."),
    ("n_errors", Kind::Unsigned, "Deaths of an attempt, failed members of a run."),
    ("error", Kind::Text, "What went wrong, in one sentence."),
    ("backend", Kind::Text, "What runs the jobs of a run: slurm."),
    ("classes", Kind::Json, "Members of a run by class, at its end."),
    ("alias", Kind::Text, "A further id of the run."),
    ("run_key", Kind::Json, "What decided which run the job belongs to."),
    ("verdict", Kind::Json, "The verdict on an attempt, whole."),
];

/// Fields of the verdict that have columns of their own.
const OF_VERDICT: [(&str, &str); 4] = [
    ("class", "Class of the verdict."),
    ("cause", "Cause of the verdict."),
    ("label", "The verdict in one word."),
    ("confidence", "How sure the verdict is: fact, log or inferred."),
];

/// Where fields go that have no column.
const MORE: &str = "more";

/// The table of events.
#[derive(Debug)]
pub struct Events {
    columns: Vec<Column>,
    at: HashMap<String, usize>,
    /// Fields that are records; theirs have columns of their own.
    records: Vec<String>,
    cells: Vec<Cell>,
}

impl Default for Events {
    fn default() -> Events {
        Events::new()
    }
}

impl Events {
    /// The table that the schema of the journal makes.
    pub fn new() -> Events {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap_or_default();
        let (columns, records) = columns(&schema);
        let at = columns.iter().enumerate().map(|(n, c)| (c.name.clone(), n)).collect();
        Events { cells: vec![Cell::Null; columns.len()], columns, at, records }
    }

    /// Its columns.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The row of a line of the store, and what it says of itself; `None` when
    /// it is no object.
    pub fn row(&mut self, cluster: &str, user: &str, line: &[u8]) -> Option<&[Cell]> {
        let Ok(Value::Object(fields)) = serde_json::from_slice(line) else { return None };
        self.cells.fill(Cell::Null);
        let mut more = Map::new();
        self.put("cluster", Value::from(cluster), &mut more);
        self.put("user", Value::from(user), &mut more);
        for (name, value) in fields {
            match name.as_str() {
                // Local time; the exact time comes as `utc`. The cluster is the directory's.
                "timestamp" | "cluster" => {}
                "utc" => self.put("timestamp", value, &mut more),
                record if self.records.iter().any(|r| r == record) => {
                    let Value::Object(parts) = value else {
                        more.insert(name, value);
                        continue;
                    };
                    for (part, value) in parts {
                        self.put(&format!("{name}_{part}"), value, &mut more);
                    }
                }
                "verdict" => {
                    for (part, _) in OF_VERDICT {
                        self.put(part, value[part].clone(), &mut more);
                    }
                    self.put("verdict", value, &mut more);
                }
                _ => self.put(&name, value, &mut more),
            }
        }
        let last = self.cells.len() - 1;
        self.cells[last] = Cell::json(&more);
        Some(&self.cells)
    }

    fn put(&mut self, name: &str, value: Value, more: &mut Map<String, Value>) {
        let Some(&at) = self.at.get(name).filter(|_| name != MORE) else {
            if !value.is_null() {
                more.insert(name.to_owned(), value);
            }
            return;
        };
        match cell(self.columns[at].kind, &value) {
            Some(cell) => self.cells[at] = cell,
            None => _ = more.insert(name.to_owned(), value),
        }
    }
}

/// The value as its column has it; `None` when it is of another kind.
fn cell(kind: Kind, value: &Value) -> Option<Cell> {
    if value.is_null() {
        return Some(Cell::Null);
    }
    match kind {
        Kind::Text => value.as_str().map(Cell::text),
        Kind::Json => Some(Cell::json(value)),
        Kind::Unsigned => value.as_u64().map(Cell::Unsigned),
        Kind::Signed => value.as_i64().map(Cell::Signed),
        Kind::Float => value.as_f64().map(Cell::Float),
        Kind::Bool => value.as_bool().map(Cell::Bool),
        Kind::Time => value.as_str()?.parse::<Timestamp>().ok().map(Cell::Time),
    }
}

/// The columns, and the fields that are records.
fn columns(schema: &Value) -> (Vec<Column>, Vec<String>) {
    let none = Map::new();
    let head = schema["properties"].as_object().unwrap_or(&none);
    let mut columns = vec![
        Column::new("cluster", Kind::Text, "Name of the cluster, as the store has it."),
        Column::new("user", Kind::Text, "Whose run it is; empty for events of no job."),
        Column::new("run_id", Kind::Text, "The run; `_site` for events of no job."),
        Column::new("chunk_id", Kind::Unsigned, "Number of the job in the run."),
    ];
    let first: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut names: Vec<&str> = head.keys().map(String::as_str).collect();
    names.sort_by_key(|name| first.iter().position(|f| f == name).unwrap_or(first.len()));
    for name in names.into_iter().filter(|n| *n != "cluster") {
        columns.push(column(schema, name, &head[name]));
    }
    // One column per name: a field means the same wherever it is.
    let mut bodies: Map<String, Value> = Map::new();
    let definitions = schema["$defs"].as_object().unwrap_or(&none);
    for (_, event) in definitions.iter().filter(|(name, _)| name.starts_with(|c: char| c.is_lowercase())) {
        for (name, field) in event["properties"].as_object().unwrap_or(&none) {
            bodies.entry(name.clone()).or_insert_with(|| field.clone());
        }
    }
    let mut records = Vec::new();
    let mut body: Vec<Column> = Vec::new();
    for (name, field) in &bodies {
        match definition(schema, field).and_then(|d| d["properties"].as_object()) {
            Some(parts) => {
                records.push(name.clone());
                body.extend(parts.iter().map(|(part, f)| column(schema, &format!("{name}_{part}"), f)));
            }
            None => body.push(column(schema, name, field)),
        }
    }
    body.sort_by(|a, b| a.name.cmp(&b.name));
    columns.extend(body);
    columns.extend(DERIVED.map(|(name, kind, about)| Column::new(name, kind, about)));
    columns.extend(OF_VERDICT.map(|(name, about)| Column::new(name, Kind::Text, about)));
    columns.push(Column::new(MORE, Kind::Json, "Fields that have no column: those of a newer version."));
    (columns, records)
}

/// What a reference names.
fn definition<'a>(schema: &'a Value, field: &Value) -> Option<&'a Value> {
    let choices = field["anyOf"].as_array().into_iter().flatten();
    let named = std::iter::once(field).chain(choices).find_map(|f| f["$ref"].as_str())?;
    schema["$defs"].get(named.rsplit('/').next()?)
}

fn column(schema: &Value, name: &str, field: &Value) -> Column {
    let about = field["description"].as_str().unwrap_or_default().replace('\n', " ");
    Column::new(name, kind(schema, field), about)
}

fn kind(schema: &Value, field: &Value) -> Kind {
    if field["$ref"].as_str().is_some_and(|r| r.ends_with("/Timestamp"))
        || field["anyOf"][0]["$ref"].as_str().is_some_and(|r| r.ends_with("/Timestamp"))
    {
        return Kind::Time;
    }
    if let Some(definition) = definition(schema, field) {
        // A choice of words has no type of its own.
        return if definition["type"].is_null() { Kind::Text } else { kind(schema, definition) };
    }
    let is = |word: &str| {
        field["type"] == word || field["type"].as_array().is_some_and(|t| t.iter().any(|t| t == word))
    };
    match () {
        () if is("integer") => Kind::Unsigned,
        () if is("number") => Kind::Float,
        () if is("boolean") => Kind::Bool,
        () if is("array") || is("object") => Kind::Json,
        () => Kind::Text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_field_of_the_schema_has_one_column_of_its_kind() {
        let events = Events::new();
        let names: BTreeSet<&str> = events.columns.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names.len(), events.columns.len(), "a name stands for two columns");
        let kind = |name: &str| events.columns[events.at[name]].kind;
        for (name, want) in [
            ("timestamp", Kind::Time),
            ("end_limit", Kind::Time),
            ("severity", Kind::Text),
            ("level", Kind::Text),
            ("job_id", Kind::Text),
            ("mono_us", Kind::Unsigned),
            ("core", Kind::Bool),
            ("percent", Kind::Float),
            ("argv", Kind::Json),
            ("env", Kind::Json),
            ("victims", Kind::Json),
            ("memory_cgroup_peak_bytes", Kind::Unsigned),
            ("memory_limit_level", Kind::Text),
            ("pressure_io_full_us", Kind::Unsigned),
            ("verdict", Kind::Json),
        ] {
            assert_eq!(kind(name), want, "{name}");
        }
        assert_eq!(events.records, ["memory", "pressure"]);
        assert!(events.columns.iter().all(|c| !c.about.is_empty()), "a column without an explanation");
        assert_eq!(events.columns.last().map(|c| c.name.as_str()), Some(MORE));
    }

    #[test]
    fn one_name_is_one_kind_in_every_event() {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        let mut seen: HashMap<String, (Kind, String)> = HashMap::new();
        let definitions = schema["$defs"].as_object().unwrap();
        for (event, body) in definitions.iter().filter(|(n, _)| n.starts_with(|c: char| c.is_lowercase())) {
            for (name, field) in body["properties"].as_object().unwrap() {
                let kind = kind(&schema, field);
                let (known, first) = seen.entry(name.clone()).or_insert((kind, event.clone()));
                assert_eq!(*known, kind, "{name} in {event} and in {first}");
            }
        }
    }

    #[test]
    fn what_has_no_column_and_what_does_not_fit_is_kept() {
        let mut events = Events::new();
        let line = br#"{"timestamp":"x","utc":"2026-11-21T14:00:00.000001Z","pid":"seven","memory":{"new":1,"clipped":true},"future":[1],"verdict":{"class":"oom"},"more":2}"#;
        let at = |events: &Events, name: &str| events.at[name];
        let row = events.row("lab", "ann", line).unwrap().to_vec();
        assert_eq!(row[at(&events, "timestamp")], Cell::Time("2026-11-21T14:00:00.000001Z".parse().unwrap()));
        assert_eq!(row[at(&events, "memory_clipped")], Cell::Bool(true));
        assert_eq!(row[at(&events, "class")], Cell::text("oom"));
        assert_eq!(row[at(&events, "pid")], Cell::Null);
        let Some(Cell::Text(more)) = row.last() else { panic!("{row:?}") };
        let more: Value = serde_json::from_str(more).unwrap();
        assert_eq!(more, serde_json::json!({ "pid": "seven", "memory_new": 1, "future": [1], "more": 2 }));
        assert!(events.row("lab", "ann", b"[]").is_none() && events.row("lab", "ann", b"{").is_none());
    }
}
