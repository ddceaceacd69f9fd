//! The metrics in the form of node_exporter.

use std::collections::BTreeSet;

/// The older text format, which is what node_exporter's textfile collector
/// reads: counters have the name of their samples, and there is no unit and
/// no end.
pub fn for_node_exporter(text: &str) -> String {
    let counters: BTreeSet<&str> =
        text.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let infos: BTreeSet<&str> =
        text.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.strip_suffix(" info")).collect();
    let mut out = String::new();
    for line in text.lines() {
        if line.starts_with("# UNIT") || line == "# EOF" {
            continue;
        }
        let mut parts = line.splitn(4, ' ');
        let line = match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("#"), Some(word), Some(name), Some(rest)) if counters.contains(name) => {
                format!("# {word} {name}_total {rest}")
            }
            (Some("#"), Some("TYPE"), Some(name), Some("info")) if infos.contains(name) => {
                format!("# TYPE {name}_info gauge")
            }
            (Some("#"), Some(word), Some(name), Some(rest)) if infos.contains(name) => {
                format!("# {word} {name}_info {rest}")
            }
            _ => line.to_owned(),
        };
        out.push_str(&line);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::metrics::Meters;

    #[test]
    fn the_textfile_has_no_openmetrics_in_it() {
        let text = for_node_exporter(&Meters::described());
        assert!(text.contains("# TYPE inquest_jobs_total counter\n"), "{text}");
        assert!(!text.contains("# EOF") && !text.contains("# UNIT") && !text.contains(" info\n"), "{text}");
    }
}
