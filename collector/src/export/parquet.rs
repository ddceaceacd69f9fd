//! Tables as Apache Parquet, compressed with Zstandard.

use std::io::{self, Write};
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical, ZstdLevel};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;

use super::{Cell, Column, Kind, Sink};

/// Rows of a row group: what is held in memory and what readers skip at once.
const ROWS: usize = 50_000;

/// Bytes of text after which a row group ends early.
const BYTES: usize = 32 << 20;

/// Key of the file's own account of what it holds.
const TABLE: &str = "inquest.table";

pub(super) struct Parquet<W: Write + Send> {
    out: SerializedFileWriter<W>,
    columns: Vec<Buffer>,
    rows: usize,
    bytes: usize,
}

/// The values of a column in the row group that is being filled, and which
/// rows have one.
struct Buffer {
    values: Values,
    present: Vec<i16>,
}

enum Values {
    Bytes(Vec<ByteArray>),
    Whole(Vec<i64>),
    Float(Vec<f64>),
    Bool(Vec<bool>),
}

impl<W: Write + Send> Parquet<W> {
    pub(super) fn new(name: &str, columns: &[Column], out: W) -> io::Result<Parquet<W>> {
        let fields = columns.iter().map(field).collect::<Result<Vec<_>, _>>().map_err(failed)?;
        let schema = Type::group_type_builder(name).with_fields(fields).build().map_err(failed)?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_created_by(format!("inquest {}", env!("CARGO_PKG_VERSION")))
            .set_key_value_metadata(Some(vec![KeyValue::new(TABLE.into(), name.to_owned())]))
            .build();
        let out = SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties)).map_err(failed)?;
        let columns = columns.iter().map(|c| Buffer { values: Values::of(c.kind), present: Vec::new() });
        Ok(Parquet { out, columns: columns.collect(), rows: 0, bytes: 0 })
    }

    fn end_group(&mut self) -> io::Result<()> {
        let mut group = self.out.next_row_group().map_err(failed)?;
        for column in &mut self.columns {
            let mut writer = group
                .next_column()
                .map_err(failed)?
                .ok_or_else(|| io::Error::other("the file has fewer columns than the table"))?;
            let present = Some(column.present.as_slice());
            match &column.values {
                Values::Bytes(v) => writer.typed::<ByteArrayType>().write_batch(v, present, None),
                Values::Whole(v) => writer.typed::<Int64Type>().write_batch(v, present, None),
                Values::Float(v) => writer.typed::<DoubleType>().write_batch(v, present, None),
                Values::Bool(v) => writer.typed::<BoolType>().write_batch(v, present, None),
            }
            .map_err(failed)?;
            writer.close().map_err(failed)?;
            column.present.clear();
            column.values.clear();
        }
        group.close().map_err(failed)?;
        (self.rows, self.bytes) = (0, 0);
        Ok(())
    }
}

impl<W: Write + Send> Sink for Parquet<W> {
    fn row(&mut self, cells: &[Cell]) -> io::Result<()> {
        for (column, cell) in self.columns.iter_mut().zip(cells) {
            column.present.push(i16::from(*cell != Cell::Null));
            match (&mut column.values, cell) {
                (_, Cell::Null) => {}
                (Values::Bytes(v), Cell::Text(text)) => {
                    self.bytes += text.len();
                    v.push(text.as_str().into());
                }
                // The bits of an unsigned number: the column says so.
                (Values::Whole(v), Cell::Unsigned(n)) => v.push(n.cast_signed()),
                (Values::Whole(v), Cell::Signed(n)) => v.push(*n),
                (Values::Whole(v), Cell::Time(at)) => v.push(at.0),
                (Values::Float(v), Cell::Float(n)) => v.push(*n),
                (Values::Bool(v), Cell::Bool(b)) => v.push(*b),
                // A cell of another kind than its column is none of it.
                (_, _) => _ = column.present.last_mut().map(|p| *p = 0),
            }
        }
        self.rows += 1;
        if self.rows >= ROWS || self.bytes >= BYTES { self.end_group() } else { Ok(()) }
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        if self.rows > 0 {
            self.end_group()?;
        }
        self.out.finish().map_err(failed)?;
        self.out.inner_mut().flush()
    }
}

impl Values {
    fn of(kind: Kind) -> Values {
        match kind {
            Kind::Text | Kind::Json => Values::Bytes(Vec::new()),
            Kind::Unsigned | Kind::Signed | Kind::Time => Values::Whole(Vec::new()),
            Kind::Float => Values::Float(Vec::new()),
            Kind::Bool => Values::Bool(Vec::new()),
        }
    }

    fn clear(&mut self) {
        match self {
            Values::Bytes(v) => v.clear(),
            Values::Whole(v) => v.clear(),
            Values::Float(v) => v.clear(),
            Values::Bool(v) => v.clear(),
        }
    }
}

fn field(column: &Column) -> Result<Arc<Type>, ParquetError> {
    let (physical, logical) = match column.kind {
        Kind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        Kind::Json => (Physical::BYTE_ARRAY, Some(LogicalType::Json)),
        Kind::Unsigned => (Physical::INT64, Some(LogicalType::integer(64, false))),
        Kind::Signed => (Physical::INT64, Some(LogicalType::integer(64, true))),
        Kind::Time => (Physical::INT64, Some(LogicalType::timestamp(true, TimeUnit::MICROS))),
        Kind::Float => (Physical::DOUBLE, None),
        Kind::Bool => (Physical::BOOLEAN, None),
    };
    let field = Type::primitive_type_builder(&column.name, physical)
        .with_repetition(Repetition::OPTIONAL)
        .with_logical_type(logical);
    field.build().map(Arc::new)
}

/// The reason of the file system, where it was that: a closed pipe is no error.
fn failed(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(source) => *source,
            Err(other) => io::Error::other(other),
        },
        other => io::Error::other(other),
    }
}
