//! Tables in Slurm's manner: aligned for people, `|` for programs.

use comfy_table::{ContentArrangement, Table as Grid, presets::NOTHING};

use super::wrap;

/// Between two columns.
const GAP: usize = 2;
/// A last column that is narrower is not worth reading: other columns go before that.
const LAST: usize = 30;
/// Nor is one folded into less.
const NARROW: usize = 12;

/// How a table is printed.
#[derive(Clone, Debug, Default)]
pub struct Style {
    /// Without the line of names.
    pub no_header: bool,
    /// Columns separated by `|` and not aligned.
    pub parsable: bool,
    /// Only these columns, in this order; all when empty.
    pub columns: Vec<String>,
    /// How wide a line may be; programs, which read what is parsable, have no page.
    pub width: Option<usize>,
}

impl Style {
    /// For people, as wide as their page.
    pub fn page() -> Style {
        Style { width: wrap::page(), ..Style::default() }
    }
}

/// Names of columns and rows of cells.
#[derive(Clone, Debug)]
pub struct Table {
    names: Vec<&'static str>,
    spare: Vec<&'static str>,
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
        Table { names: names.to_vec(), spare: Vec::new(), rows: Vec::new() }
    }

    /// Columns that a page does without when the table is too wide for it, the
    /// first of them first.
    #[must_use]
    pub fn spare(mut self, names: &[&'static str]) -> Table {
        debug_assert!(names.iter().all(|name| self.names.contains(name)), "{names:?}");
        self.spare = names.to_vec();
        self
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
        let mut chosen = self.choose(&style.columns)?;
        let page = style.width.filter(|_| !style.parsable);
        let last = page.and_then(|width| self.fit(&mut chosen, width, style.columns.is_empty()));
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
        grid.add_rows(self.rows.iter().map(|r| {
            let mut cells = pick(r);
            if let (Some(room), Some(cell)) = (last, cells.last_mut()) {
                *cell = wrap::fold(cell, room);
            }
            cells
        }));
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

    /// Leaves out what a page of `width` columns has no room for: columns in
    /// which nothing stands, then spare ones, when it is `free` to. Gives the columns that are left
    /// for the last one, when its cells must be folded.
    fn fit(&self, chosen: &mut Vec<usize>, width: usize, free: bool) -> Option<usize> {
        let cells = |at: usize| self.rows.iter().filter_map(move |r| r.get(at));
        let widest = |at: usize| {
            let all = cells(at).map(|c| c.chars().count()).chain([self.names[at].len()]);
            all.max().unwrap_or(0)
        };
        // What the columns before the last one take, and the last one itself.
        let taken = |chosen: &[usize]| {
            let (last, before) = chosen.split_last().map_or((0, chosen), |(l, b)| (widest(*l), b));
            (before.iter().map(|&at| widest(at) + GAP).sum::<usize>(), last)
        };
        let tight = |chosen: &[usize]| {
            let (before, last) = taken(chosen);
            before + last.min(LAST) > width
        };
        let (before, last) = taken(chosen);
        if before + last <= width {
            return None;
        }
        if free && !self.rows.is_empty() {
            chosen.retain(|&at| cells(at).any(|cell| !cell.is_empty()));
        }
        for spare in &self.spare {
            if !free || !tight(chosen) {
                break;
            }
            chosen.retain(|&at| self.names[at] != *spare);
        }
        let (before, last) = taken(chosen);
        let room = width.saturating_sub(before);
        (last > room && room >= NARROW).then_some(room)
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
    fn a_table_fits_its_page() {
        let mut table = Table::new(&["JOB", "NODE", "KEY", "NOTE", "WHAT"]).spare(&["KEY", "NODE"]);
        let what = "the solver diverged in /scratch/a/very/long/path/of/a/user/run.log at last";
        table.row(vec!["1".into(), "n1".into(), "array (weak)".into(), String::new(), what.into()]);
        let print = |width| table.print(&Style { width, ..Style::default() }).unwrap();
        assert_eq!(
            print(None),
            format!("JOB  NODE  KEY           NOTE  WHAT\n1    n1    array (weak)        {what}\n")
        );
        assert!(print(Some(200)).contains("NOTE"), "there is room for all of it");
        let wanted = "JOB  NODE  KEY           WHAT\n1    n1    array (weak)  the solver diverged in\n";
        assert!(print(Some(60)).starts_with(wanted), "{}", print(Some(60)));
        let narrow = print(Some(30));
        assert!(narrow.starts_with("JOB  WHAT\n1    the solver diverged in\n     /scratch/a/"), "{narrow}");
        let named = Style { width: Some(30), columns: vec!["key".into()], ..Style::default() };
        assert_eq!(table.print(&named).unwrap(), "KEY\narray (weak)\n", "what was asked for is there");
        assert_eq!(Table::new(&["A"]).spare(&["A"]).print(&Style::page()).unwrap(), "A\n");
    }

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
