//! Tables in Slurm's manner: aligned for people, `|` for programs.

use comfy_table::{ContentArrangement, Table as Grid, presets::NOTHING};

/// How a table is printed.
#[derive(Clone, Debug, Default)]
pub struct Style {
    /// Without the line of names.
    pub no_header: bool,
    /// Columns separated by `|` and not aligned.
    pub parsable: bool,
    /// Only these columns, in this order; all when empty.
    pub columns: Vec<String>,
}

/// Names of columns and rows of cells.
#[derive(Clone, Debug)]
pub struct Table {
    names: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

/// A column was asked for that is not there.
#[derive(Debug, thiserror::Error)]
#[error("there is no column '{}'; choose from {known}", .name.escape_debug())]
pub struct NoColumn {
    name: String,
    known: String,
}

impl Table {
    /// A table with these columns.
    pub fn new(names: &[&'static str]) -> Table {
        Table { names: names.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; it has one cell per column.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The text, newline included when it is not empty.
    ///
    /// # Errors
    ///
    /// When the style names a column that is not there.
    pub fn print(&self, style: &Style) -> Result<String, NoColumn> {
        let chosen = self.choose(&style.columns)?;
        let pick = |cells: &[String]| -> Vec<String> {
            chosen.iter().map(|&i| cells.get(i).cloned().unwrap_or_default()).collect()
        };
        let names: Vec<String> = chosen.iter().map(|&i| self.names[i].to_owned()).collect();
        if style.parsable {
            let header = (!style.no_header).then(|| names.join("|"));
            let bar = |cell: String| cell.replace('|', "\\|");
            let rows = self.rows.iter().map(|r| pick(r).into_iter().map(bar).collect::<Vec<_>>().join("|"));
            return Ok(header.into_iter().chain(rows).map(|line| line + "\n").collect());
        }
        let mut grid = Grid::new();
        grid.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        if !style.no_header {
            grid.set_header(names);
        }
        grid.add_rows(self.rows.iter().map(|r| pick(r)));
        for column in grid.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let text = grid.to_string();
        Ok(text.lines().map(|line| line.trim_end().to_owned() + "\n").filter(|l| l != "\n").collect())
    }

    /// One object per row, with the names in lower case as keys.
    pub fn json(&self) -> serde_json::Value {
        let row = |cells: &Vec<String>| -> serde_json::Map<String, serde_json::Value> {
            self.names.iter().zip(cells).map(|(n, c)| (n.to_ascii_lowercase(), c.as_str().into())).collect()
        };
        self.rows.iter().map(row).collect()
    }

    fn choose(&self, columns: &[String]) -> Result<Vec<usize>, NoColumn> {
        if columns.is_empty() {
            return Ok((0..self.names.len()).collect());
        }
        let find = |name: &String| {
            let at = self.names.iter().position(|n| n.eq_ignore_ascii_case(name));
            at.ok_or_else(|| NoColumn { name: name.clone(), known: self.names.join(",") })
        };
        columns.iter().map(find).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligned_and_parsable() {
        let mut table = Table::new(&["JOB", "NAME"]);
        table.row(vec!["1".into(), "a|b".into()]);
        table.row(vec!["1000".into(), "c".into()]);
        assert_eq!(table.print(&Style::default()).unwrap(), "JOB   NAME\n1     a|b\n1000  c\n");
        let style = Style { parsable: true, columns: vec!["name".into(), "job".into()], ..Style::default() };
        assert_eq!(table.print(&style).unwrap(), "NAME|JOB\na\\|b|1\nc|1000\n");
        let style = Style { columns: vec!["nope".into()], ..Style::default() };
        assert!(table.print(&style).unwrap_err().to_string().contains("choose from JOB,NAME"));
    }
}
