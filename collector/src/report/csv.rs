//! CSV that a spreadsheet cannot take for formulas.

use std::io::Write;

use csv::{QuoteStyle, Writer, WriterBuilder};

/// The text, header line first.
pub fn text(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut writer = quoted(Vec::new());
    let _ = writer.write_record(header); // Memory does not fail.
    for row in rows {
        let _ = writer.write_record(row.iter().map(|cell| guard(cell)));
    }
    String::from_utf8(writer.into_inner().unwrap_or_default()).unwrap_or_default()
}

/// All text is quoted: where spreadsheets separate cells by semicolons or tabs, one within a cell would else begin
/// another, which no apostrophe guards.
pub(crate) fn quoted<W: Write>(out: W) -> Writer<W> {
    WriterBuilder::new().quote_style(QuoteStyle::NonNumeric).from_writer(out)
}

/// A cell that begins like a formula gets an apostrophe in front, which
/// spreadsheets take for "this is text"; numbers stay as they are. Some read
/// the wide forms of those signs too.
pub(crate) fn guard(cell: &str) -> String {
    let cell = super::clean(cell);
    let formula = cell.starts_with(['=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'])
        && cell != "-"
        && cell.parse::<f64>().is_err();
    if formula { format!("'{cell}") } else { cell }
}

#[cfg(test)]
mod tests {
    #[test]
    fn hostile_cells_stay_text() {
        let cells = ["=1+1", "a,\"b\"", "-5", "@x", "x\ny", "", "a;=1+1"].map(str::to_owned);
        assert_eq!(
            super::text(&["a", "b", "c", "d", "e", "f", "g"], &[cells.to_vec()]),
            concat!(
                r#""a","b","c","d","e","f","g""#,
                "\n",
                r#""'=1+1","a,""b""",-5,"'@x","x\ny","","a;=1+1""#,
                "\n"
            )
        );
    }
}
