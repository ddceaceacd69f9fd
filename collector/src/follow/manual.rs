//! The manual page of the journal, made from its JSON Schema, which is made from the types.

use std::fmt::Write;

use serde_json::{Map, Value};

use crate::roff::text;

const HEAD: &str = "\
.TH inquest-journal 5
.SH NAME
inquest-journal \\- what Inquest records of Slurm jobs
.SH SYNOPSIS
.I JOURNAL\\fB/\\fINODE\\fB/\\fIYYYY\\-MM\\-DD\\fB.jsonl
.SH DESCRIPTION
A node appends to one file per UTC day, one event per line, each line a JSON object of at
most 4096 bytes with its newline. Several writers append to one file: the plugin in every
slurmstepd, and the agent. The run stores have the same lines, with the run and the chunk
added.
.PP
(stream, seq) is the identity of an event: a copy of a line is the same event, and a number
that never comes is an event that was lost. A field that is absent was not known. A reader
keeps fields and types that it does not know, and passes over a line that is no JSON.
.SH FIELDS OF EVERY LINE
The first fields of a line, in this order.
";

/// `inquest-journal(5)` as roff.
pub fn page() -> String {
    let schema: Value = serde_json::from_str(inquest_journal::SCHEMA).unwrap_or_default();
    let definitions = schema["$defs"].as_object().cloned().unwrap_or_default();
    let mut out = HEAD.to_owned();
    let fields = schema["properties"].as_object().cloned().unwrap_or_default();
    let order: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let place = |name: &str| order.iter().position(|n| *n == name).unwrap_or(order.len());
    let mut head: Vec<&str> = fields.keys().map(String::as_str).collect();
    head.sort_by_key(|name| place(name));
    for name in head {
        field(&mut out, name, &fields[name]);
    }
    // Types of events are written in small letters, parts of them are not.
    let is_event = |name: &str| name.starts_with(|c: char| c.is_ascii_lowercase());
    out.push_str(".SH EVENTS\n");
    for (name, event) in definitions.iter().filter(|(name, _)| is_event(name)) {
        section(&mut out, name, event);
    }
    out.push_str(".SH PARTS OF EVENTS\n");
    for (name, part) in definitions.iter().filter(|(name, _)| !is_event(name)) {
        section(&mut out, name, part);
    }
    out.push_str(".SH SEE ALSO\n.BR spank_inquest (8),\n.BR inquest-collect (1),\n.BR inquest-agent (1)\n");
    out
}

fn section(out: &mut String, name: &str, schema: &Value) {
    let _ = writeln!(out, ".SS {name}");
    let about = schema["description"].as_str().unwrap_or_default();
    if !about.is_empty() {
        let _ = writeln!(out, "{}", text(about));
    }
    if let Some(pattern) = schema["pattern"].as_str() {
        let _ = writeln!(out, "A string, {}.", text(pattern));
    }
    for choice in schema["oneOf"].as_array().into_iter().flatten() {
        let value = choice["const"].as_str().unwrap_or_default();
        let about = choice["description"].as_str().unwrap_or_default();
        let _ = writeln!(out, ".TP\n.B {}\n{}", text(value), text(about));
    }
    let none = Map::new();
    for (name, schema) in schema["properties"].as_object().unwrap_or(&none) {
        field(out, name, schema);
    }
}

fn field(out: &mut String, name: &str, schema: &Value) {
    let about = schema["description"].as_str().unwrap_or_default();
    let _ = writeln!(out, ".TP\n\\fB{}\\fR (\\fI{}\\fR)\n{}", text(name), text(&kind(schema)), text(about));
}

/// What a value is, in a word or two.
fn kind(schema: &Value) -> String {
    if let Some(part) = schema["$ref"].as_str() {
        return part.rsplit('/').next().unwrap_or_default().to_owned();
    }
    if let Some(choices) = schema["anyOf"].as_array() {
        let kinds = choices.iter().filter(|c| c["type"] != "null").map(kind);
        return kinds.collect::<Vec<_>>().join(" or ");
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(many) => many.iter().filter_map(Value::as_str).filter(|k| *k != "null").collect(),
        _ => Vec::new(),
    };
    match kinds.as_slice() {
        ["array"] => format!("list of {}", kind(&schema["items"])),
        ["object"] if schema["additionalProperties"].is_object() => {
            format!("object of {}", kind(&schema["additionalProperties"]))
        }
        kinds => kinds.join(" or "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_and_field_is_on_the_page() {
        let page = page();
        for word in ["task_exited", "oom_kill", "clipped", "largest_process_bytes", "mono_us", "Victim"] {
            assert!(
                page.contains(&format!("{word}\\fR (")) || page.contains(&format!(".SS {word}\n")),
                "{word}"
            );
        }
        let at = |field: &str| page.find(&format!(".TP\n\\fB{field}\\fR")).unwrap();
        assert!(
            at("v") < at("timestamp")
                && at("seq") < at("job_id")
                && at("job_id") < page.find(".SH EVENTS").unwrap()
        );
        assert!(!page.contains("()"), "a field without a kind: {page}");
        for line in page.lines().filter(|l| l.starts_with('.')) {
            assert!([".T", ".S", ".B", ".I", ".P"].iter().any(|r| line.starts_with(r)), "{line}");
        }
    }
}
