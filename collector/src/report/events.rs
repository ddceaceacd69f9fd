//! Events, one line each.

use inquest_journal::{Body, Memory};
use jiff::tz::TimeZone;

use super::{clean, clock};
use crate::slurm::signal_name;
use crate::store::Line;
use crate::units::{bytes, count, duration};
use crate::verdict::level_name;

/// `14:30:01.234  n1  101.0/1  task_exited  SIGKILL, peak 64.0 MiB`.
pub fn line(line: &Line<'_>, raw: &[u8], zone: &TimeZone) -> String {
    let mut place = line.job_id.map_or(String::new(), |id| id.to_string());
    if let Some(step) = line.step {
        place += &format!(".{step}");
    }
    if let Some(task) = line.task {
        place += &format!("/{task}");
    }
    let says = detail(line, raw);
    let when = clock(line.utc, zone);
    format!("{when}  {:<8}  {place:<16}  {:<15}  {says}", clean(&line.node), clean(&line.event_type))
        .trim_end()
        .to_owned()
}

/// What an event says beside who, when and where.
pub fn detail(line: &Line<'_>, raw: &[u8]) -> String {
    line.body(raw).map_or_else(|| derived(raw), |body| says(&body))
}

fn derived(raw: &[u8]) -> String {
    let value: serde_json::Value = serde_json::from_slice(raw).unwrap_or_default();
    let detail = value["verdict"]["detail"].as_str().or(value["error"].as_str());
    clean(detail.unwrap_or_default())
}

fn says(body: &Body) -> String {
    let mut parts: Vec<String> = Vec::new();
    match body {
        Body::JobStarted(b) => {
            parts.extend(b.name.iter().map(|n| clean(n)));
            parts.extend(b.partition.iter().map(|p| format!("partition {}", clean(p))));
            parts.extend(b.memory_mib.map(|m| format!("{m} MiB")));
        }
        Body::JobEnded(b) => parts.extend(end(b.exit_code, b.signal, false)),
        Body::StepStarted(b) => {
            if !b.argv.is_empty() {
                parts.push(clean(&b.argv.join(" ")));
            }
            parts.extend(b.limit_bytes.map(|l| format!("limit {}", bytes(l))));
        }
        Body::StepEnded(b) => {
            parts.extend(b.duration_us.map(|us| format!("after {}", duration(us.cast_signed()))));
            parts.extend(peak(&b.memory));
            parts.extend(b.oom_kills.filter(|&n| n > 0).map(|n| format!("{n} killed for memory")));
        }
        Body::TaskStarted(b) => parts.extend(b.pid.map(|p| format!("pid {p}"))),
        Body::TaskExited(b) => {
            parts.extend(end(b.exit_code, b.signal, b.core));
            parts.extend(b.duration_us.map(|us| format!("after {}", duration(us.cast_signed()))));
            parts.extend(peak(&b.memory));
            parts.extend(b.oom_kills.filter(|&n| n > 0).map(|n| format!("{n} killed for memory")));
        }
        Body::OomKill(b) => {
            parts.extend(b.count.map(|n| format!("{n} killed")));
            parts.extend(b.victims.iter().map(|v| {
                format!("{} (pid {})", clean(v.command.as_deref().unwrap_or("?")), v.pid.unwrap_or(0))
            }));
            parts.extend(b.limit_bytes.map(|l| {
                format!(
                    "limit {}{}",
                    bytes(l),
                    b.level.map_or(String::new(), |l| format!(" ({})", level_name(l)))
                )
            }));
            if b.reported_by_slurm == Some(false) {
                parts.push("not reported by Slurm".into());
            }
        }
        Body::MemoryHigh(b) => {
            if let (Some(usage), Some(limit)) = (b.usage_bytes, b.limit_bytes) {
                parts.push(format!("{} of {}", bytes(usage), bytes(limit)));
            }
        }
        Body::ProcessDied(b) => {
            parts.extend(b.command.iter().map(|c| clean(c)));
            parts.extend(b.pid.map(|p| format!("pid {p}")));
            parts.extend(end(b.exit_code, b.signal, b.core));
            parts.extend(super::member(&b.env));
        }
        Body::NodeBooted(b) => parts.extend(b.booted_at.map(|t| format!("booted at {t}"))),
        Body::Note(b) => parts.extend(b.text.iter().map(|t| clean(t))),
        Body::Lost(b) => {
            parts.extend(b.count.map(|n| format!("{} could not be written", count(n, "event", "events"))));
            parts.extend(b.reason.iter().map(|r| clean(r)));
        }
    }
    parts.join(", ")
}

pub(super) fn end(code: Option<u8>, signal: Option<u8>, core: bool) -> Option<String> {
    let core = if core { " (core dumped)" } else { "" };
    signal.map(|s| signal_name(s) + core).or_else(|| code.map(|c| format!("exit code {c}")))
}

fn peak(memory: &Memory) -> Option<String> {
    memory.cgroup_peak_bytes.map(|p| format!("peak {}", bytes(p)))
}
