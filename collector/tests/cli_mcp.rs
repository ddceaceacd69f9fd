//! An assistant's client, played by a script: what it asks, and what it is told.

mod support;

use serde_json::{Value, json};
use support::{End, Job, Lab};

fn call(id: u32, tool: &str, arguments: &Value) -> String {
    let params = json!({ "name": tool, "arguments": arguments });
    json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params }).to_string()
}

#[test]
fn an_assistant_gets_what_the_commands_print() {
    let lab = Lab::with([Job::new(1, End::Code(0)), Job::new(2, End::Code(3)), Job::new(3, End::Oom(64))]);
    let hello = json!({ "protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
    let lines = [
        json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello }).to_string(),
        json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }).to_string(),
        call(2, "why", &json!({ "target": "3" })),
        call(3, "why", &json!({ "target": "no-such-run" })),
        call(4, "why", &json!({ "target": "--help" })),
        String::new(),
        call(5, "runs", &json!({})),
        call(6, "errors", &json!({ "target": "2" })),
        call(7, "events", &json!({ "target": "3", "type": "oom_kill" })),
        call(8, "compare", &json!({ "runs": ["job-2", "job-3"] })),
    ];
    let (code, out, err) = lab.feed(&["mcp"], (lines.join("\n") + "\n").as_bytes());
    assert_eq!((code, err.as_str()), (0, ""));
    let answers: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ids: Vec<u64> = answers.iter().map(|a| a["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, [1, 2, 3, 4, 5, 6, 7, 8], "a notification is not answered");
    assert_eq!(answers[0]["result"]["protocolVersion"], "2025-03-26");
    let text = |answer: &Value| answer["result"]["content"][0]["text"].as_str().unwrap().to_owned();
    let value = |answer: &Value| serde_json::from_str::<Value>(&text(answer)).unwrap();
    for (answer, line) in [
        (1, &["why", "3", "--json"][..]),
        (4, &["runs", "--json"]),
        (5, &["errors", "2", "--json"]),
        (7, &["compare", "job-2", "job-3", "--json"]),
    ] {
        assert_eq!(value(&answers[answer]), lab.json(line), "{line:?}");
        assert_eq!(answers[answer]["result"]["isError"], false, "a failure of a job is an answer");
    }
    assert_eq!(value(&answers[1])["jobs"][0]["verdict"]["class"], "oom");
    assert_eq!(value(&answers[6])["event_type"], "oom_kill");
    assert_eq!(answers[2]["result"]["isError"], true);
    assert!(text(&answers[2]).contains("no run no-such-run in"), "{}", answers[2]);
    // A run of that name, and not the manual.
    assert!(text(&answers[3]).contains("'--help' is no job or run id"), "{}", answers[3]);
}
