//! Tables as text: JSON lines and CSV.

use std::io::{self, Write};

use serde::ser::{SerializeMap, Serializer};

use super::{Cell, Column, Kind, Sink};
use crate::report::csv::{guard, quoted};

/// JSON lines.
pub(super) struct Jsonl<W> {
    columns: Vec<Column>,
    out: W,
}

impl<W> Jsonl<W> {
    pub(super) fn new(columns: &[Column], out: W) -> Jsonl<W> {
        Jsonl { columns: columns.to_vec(), out }
    }
}

impl<W: Write> Sink for Jsonl<W> {
    fn row(&mut self, cells: &[Cell]) -> io::Result<()> {
        let mut line = serde_json::Serializer::new(&mut self.out);
        let mut map = line.serialize_map(None)?;
        for (column, cell) in self.columns.iter().zip(cells) {
            let name = &column.name;
            match cell {
                Cell::Null => {}
                Cell::Text(text) if column.kind == Kind::Json => {
                    // JSON inside JSON needs no second coat.
                    match serde_json::from_str::<&serde_json::value::RawValue>(text) {
                        Ok(raw) => map.serialize_entry(name, raw)?,
                        Err(_) => map.serialize_entry(name, text)?,
                    }
                }
                Cell::Text(text) => map.serialize_entry(name, text)?,
                Cell::Unsigned(n) => map.serialize_entry(name, n)?,
                Cell::Signed(n) => map.serialize_entry(name, n)?,
                Cell::Float(n) => map.serialize_entry(name, n)?,
                Cell::Bool(b) => map.serialize_entry(name, b)?,
                Cell::Time(at) => map.serialize_entry(name, at)?,
            }
        }
        map.end()?;
        self.out.write_all(b"\n")
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.out.flush()
    }
}

/// CSV.
pub(super) struct Csv<W: Write> {
    raw: bool,
    out: csv::Writer<W>,
}

impl<W: Write> Csv<W> {
    pub(super) fn new(columns: &[Column], raw: bool, out: W) -> io::Result<Csv<W>> {
        let mut out = if raw { csv::Writer::from_writer(out) } else { quoted(out) };
        out.write_record(columns.iter().map(|c| &c.name))?;
        Ok(Csv { raw, out })
    }
}

impl<W: Write> Sink for Csv<W> {
    fn row(&mut self, cells: &[Cell]) -> io::Result<()> {
        for cell in cells {
            match cell {
                Cell::Null => self.out.write_field("")?,
                Cell::Text(text) if self.raw => self.out.write_field(text)?,
                Cell::Text(text) => self.out.write_field(guard(text))?,
                Cell::Unsigned(n) => self.out.write_field(n.to_string())?,
                Cell::Signed(n) => self.out.write_field(n.to_string())?,
                Cell::Float(n) => self.out.write_field(n.to_string())?,
                Cell::Bool(b) => self.out.write_field(b.to_string())?,
                Cell::Time(at) => self.out.write_field(at.to_string())?,
            }
        }
        self.out.write_record(None::<&[u8]>)?;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.out.flush()
    }
}
