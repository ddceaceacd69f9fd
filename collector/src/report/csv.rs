//! CSV that a spreadsheet cannot take for formulas.

/// The text, header line first.
pub fn text(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let _ = writer.write_record(header); // Memory does not fail.
    for row in rows {
        let _ = writer.write_record(row.iter().map(|cell| guard(cell)));
    }
    String::from_utf8(writer.into_inner().unwrap_or_default()).unwrap_or_default()
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
        let cells = ["=1+1", "a,\"b\"", "-5", "@x", "x\ny", ""].map(str::to_owned);
        assert_eq!(
            super::text(&["a", "b", "c", "d", "e", "f"], &[cells.to_vec()]),
            "a,b,c,d,e,f\n'=1+1,\"a,\"\"b\"\"\",-5,'@x,x\\ny,\n"
        );
    }
}
