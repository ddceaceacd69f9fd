//! The manual page of the exported tables, made from their columns.

use std::fmt::Write;

use super::{Column, Events, members, runs};
use crate::roff::text;

const HEAD: &str = "\
.TH inquest-tables 5
.SH NAME
inquest-tables \\- what inquest export writes
.SH DESCRIPTION
Three tables, each the same in JSON lines, CSV and Parquet. What is not known is left out of
JSON, empty in CSV and null in Parquet. Times are in UTC, to the microsecond. Columns are found
by their names: newer versions have more of them.
";

/// `inquest-tables(5)` as roff.
pub fn page() -> String {
    let mut out = HEAD.to_owned();
    section(
        &mut out,
        "events",
        "One row per event. Fields of records have columns of their own.",
        Events::new().columns(),
    );
    section(
        &mut out,
        "members",
        "One row per job of a run, with the verdict on its newest attempt.",
        &members(),
    );
    section(&mut out, "runs", "One row per run.", &runs());
    out.push_str(
        ".SH SEE ALSO\n.BR inquest-export (1),\n.BR inquest-journal (5),\n.BR inquest-verdicts (7)\n",
    );
    out
}

fn section(out: &mut String, name: &str, about: &str, columns: &[Column]) {
    let _ = writeln!(out, ".SH {}\n{}", name.to_uppercase(), text(about));
    for column in columns {
        let (name, kind) = (text(&column.name), text(column.kind.word()));
        let _ = writeln!(out, ".TP\n\\fB{name}\\fR (\\fI{kind}\\fR)\n{}", text(&column.about));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_table_is_on_the_page() {
        let page = super::page();
        for word in ["oom_kills", "memory_cgroup_peak_bytes", "died_node", "n_failed", "more"] {
            assert!(page.contains(&format!(".TP\n\\fB{word}\\fR (")), "{word}");
        }
    }
}
