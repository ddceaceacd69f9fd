//! The JSON Schema of a journal line, made from the types.

use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::event::body_schemas;
use crate::{JobId, LINE_MAX, SCHEMA_VERSION, Severity, Source, StepId, Timestamp};

/// Describes a type whose JSON form is a string of one pattern.
macro_rules! text_schema {
    ($t:ty, $name:literal, $pattern:literal) => {
        impl schemars::JsonSchema for $t {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "pattern": $pattern })
            }
        }
    };
}
pub(crate) use text_schema;

/// The head of every line. Only its schema is used; [`crate::Head`] reads it.
#[derive(JsonSchema)]
#[allow(dead_code)]
struct HeadFields {
    /// Schema version of the line.
    v: u32,
    /// Wall clock of the node, UTC.
    timestamp: Timestamp,
    /// What happened.
    event_type: String,
    /// How much it matters.
    severity: Severity,
    /// Who saw it.
    source: Source,
    /// Name of the cluster.
    cluster: String,
    /// Name of the node.
    node: String,
    /// First eight digits of the kernel's boot id.
    boot: String,
    /// CLOCK_BOOTTIME in microseconds; orders the events of one boot.
    mono_us: u64,
    /// One life of one writer: node, boot, pid, start time.
    stream: String,
    /// Number of the event in its stream, from 0; a gap is a counted loss.
    seq: u64,
    /// The job.
    job_id: Option<JobId>,
    /// The step.
    step: Option<StepId>,
    /// Rank of the task in its step, over all nodes.
    task: Option<u32>,
    /// Strings or lists of this line were shortened to make it fit.
    cut: Option<bool>,
}

/// The schema of one line, as a JSON Schema 2020-12 document.
pub fn document() -> Value {
    let mut generator = SchemaGenerator::default();
    let mut head = HeadFields::json_schema(&mut generator).to_value();
    let bodies = body_schemas(&mut generator);
    let mut types = Map::new();
    for (name, schema) in bodies {
        types.insert(name.into(), schema.to_value());
    }
    let choices: Vec<Value> = types
        .keys()
        .map(|name| {
            json!({
                "if": { "properties": { "event_type": { "const": name } }, "required": ["event_type"] },
                "then": { "$ref": format!("#/$defs/{name}") },
            })
        })
        .collect();
    let mut definitions = generator.take_definitions(true);
    definitions.extend(types);
    if let Some(head) = head.as_object_mut() {
        head.remove("title");
        head.remove("description");
    }
    let mut document = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": format!("A line of an Inquest journal, version {SCHEMA_VERSION}"),
        "description": format!(
            "One event of a node. A line is at most {LINE_MAX} bytes with its newline. \
             Unknown fields and unknown event types are to be kept, not refused."
        ),
    });
    if let (Some(document), Value::Object(head)) = (document.as_object_mut(), head) {
        document.extend(head);
        document.insert("allOf".into(), choices.into());
        document.insert("$defs".into(), Value::Object(definitions));
    }
    document
}
