/*!
What is stored, as flat tables for other tools: events, members and runs, as
JSON lines, CSV or Parquet.

A table is a list of [`Column`]s, which the manual page is made from too, and
rows of [`Cell`]s. The columns of events come from the schema of the journal.
Rows pass through one at a time; no format keeps more of them than fit into one
row group.
*/

mod events;
mod lists;
pub mod manual;
#[cfg(feature = "parquet")]
mod parquet;
mod text;

use std::io::{self, Write};

use inquest_journal::Timestamp;

pub use events::Events;
pub use lists::{member, members, run, runs};

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// JSON, as text.
    Json,
    /// A number from 0.
    Unsigned,
    /// A number.
    Signed,
    /// A number with a fraction.
    Float,
    /// True or false.
    Bool,
    /// A time in UTC, to the microsecond.
    Time,
}

impl Kind {
    /// In a word.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Text => "text",
            Kind::Json => "JSON as text",
            Kind::Unsigned => "number from 0",
            Kind::Signed => "number",
            Kind::Float => "number with fraction",
            Kind::Bool => "true or false",
            Kind::Time => "time",
        }
    }
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub kind: Kind,
    /// What that means.
    pub about: String,
}

impl Column {
    pub(crate) fn new(name: impl Into<String>, kind: Kind, about: impl Into<String>) -> Column {
        Column { name: name.into(), kind, about: about.into() }
    }
}

/// A value of a column's kind, or none.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Cell {
    /// Not known, or not of this row.
    #[default]
    Null,
    /// For [`Kind::Text`] and [`Kind::Json`].
    Text(String),
    /// For [`Kind::Unsigned`].
    Unsigned(u64),
    /// For [`Kind::Signed`].
    Signed(i64),
    /// For [`Kind::Float`].
    Float(f64),
    /// For [`Kind::Bool`].
    Bool(bool),
    /// For [`Kind::Time`].
    Time(Timestamp),
}

impl Cell {
    /// An absent value is null.
    pub(crate) fn of<T>(value: Option<T>, cell: impl FnOnce(T) -> Cell) -> Cell {
        value.map_or(Cell::Null, cell)
    }

    pub(crate) fn text(value: impl Into<String>) -> Cell {
        Cell::Text(value.into())
    }

    /// JSON text of anything that is not empty.
    pub(crate) fn json(value: &impl serde::Serialize) -> Cell {
        match serde_json::to_string(value) {
            Ok(text) if !matches!(text.as_str(), "null" | "[]" | "{}") => Cell::Text(text),
            _ => Cell::Null,
        }
    }
}

/// How a table is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object per line; what is not known is left out.
    Jsonl,
    /// Comma-separated, with a line of names; what is not known is empty.
    Csv {
        /// Text stays as it is, even where a spreadsheet would take it for a formula.
        raw: bool,
    },
    /// Apache Parquet, compressed with Zstandard.
    #[cfg(feature = "parquet")]
    Parquet,
}

/// Takes in the rows of a table.
pub trait Sink {
    /// Writes a row; it has one cell per column.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    fn row(&mut self, cells: &[Cell]) -> io::Result<()>;

    /// Writes what is left.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// Begins a table of this name in `out`.
///
/// # Errors
///
/// When the file cannot be written.
pub fn begin<W: Write + Send + 'static>(
    format: Format,
    name: &str,
    columns: &[Column],
    out: W,
) -> io::Result<Box<dyn Sink>> {
    let _ = name; // Only Parquet keeps it.
    Ok(match format {
        Format::Jsonl => Box::new(text::Jsonl::new(columns, out)),
        Format::Csv { raw } => Box::new(text::Csv::new(columns, raw, out)?),
        #[cfg(feature = "parquet")]
        Format::Parquet => Box::new(parquet::Parquet::new(name, columns, out)?),
    })
}
