//! What `inquest check` has found.

use serde_json::{Value, json};

use super::wrap::hang;
use super::{JSON_SCHEMA, clean};
use crate::check::{Finding, Level, Role};

/// Columns of the level and the subject before the sentence.
const INDENT: usize = 21;

/// For people.
pub fn text(roles: &[(Role, Vec<Finding>)], host: &str) -> String {
    let mut out = String::new();
    for (role, findings) in roles {
        let heading = match role {
            Role::Node => "compute node",
            Role::Collector => "collector's host",
            Role::Login => "login node",
        };
        out.push_str(&format!("{} as {heading}\n", clean(host)));
        for finding in findings {
            let (word, style) = match finding.level {
                Level::Ok => ("ok", anstyle::Style::new()),
                Level::Warning => ("note", anstyle::AnsiColor::Yellow.on_default()),
                Level::Wrong => ("WRONG", anstyle::AnsiColor::Red.on_default().bold()),
            };
            let first = format!("  {style}{word:5}{style:#}  {:10}  ", finding.subject);
            hang(&mut out, &first, INDENT, INDENT, &clean(&finding.what));
            if let Some(mend) = &finding.mend {
                hang(
                    &mut out,
                    &format!("{:INDENT$}", "  "),
                    INDENT,
                    INDENT + 2,
                    &format!("> {}", clean(mend)),
                );
            }
        }
    }
    out
}

/// For programs.
pub fn json(roles: &[(Role, Vec<Finding>)], host: &str) -> Value {
    let roles: Vec<Value> =
        roles.iter().map(|(role, findings)| json!({ "role": role, "findings": findings })).collect();
    json!({ "schema": JSON_SCHEMA, "host": host, "roles": roles })
}
