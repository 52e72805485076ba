//! Writes gathered records as a Parquet file. Blocking; in memory is one row group at most, and of that one column packed.

use std::{io, sync::Arc};

use ::parquet::{
    basic::{Compression, Repetition, ZstdLevel},
    column::writer::ColumnWriter,
    errors::ParquetError,
    file::{
        properties::WriterProperties,
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::types::Type as SchemaType,
};
use bus_schema::data::{Batch, Cell};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    heap::Heap,
    kind::{Kind, Values},
};
use crate::file::{encode::op_name, part::Part};

/// A row group is written when its batches have so many bytes.
const GROUP_BYTES: usize = 4 * 1024 * 1024;
/// A page of a column.
const PAGE_BYTES: usize = 256 * 1024;
/// Values that come again are written once, up to so many bytes of them.
const DICTIONARY_BYTES: usize = 256 * 1024;
/// What the whole of a file is called, which nobody sees.
const ROOT: &str = "schema";

/// How pages are packed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Packing {
    /// Not at all.
    None,
    /// Snappy: what every reader knows.
    #[default]
    Snappy,
    /// Zstandard: smaller.
    Zstd,
}

/// The end of a file that grows.
struct End<'a>(&'a mut Part);

impl io::Write for End<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes the whole file. `op_column` says what each record does.
pub(super) fn write(heap: &Heap, part: &mut Part, packing: Packing, op_column: Option<&str>) -> io::Result<()> {
    let own = heap.columns.iter().filter(|(name, _)| Some(name.as_str()) != op_column);
    let mut columns: Vec<(&str, Kind)> = own.map(|(name, kind)| (name.as_str(), *kind)).collect();
    columns.extend(op_column.map(|name| (name, Kind::Text)));
    let fields = columns.iter().map(|(name, kind)| kind.column(name).map(Arc::new));
    let fields = fields.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let schema = SchemaType::group_type_builder(ROOT)
        .with_repetition(Repetition::REQUIRED)
        .with_fields(fields)
        .build();
    let compression = match packing {
        Packing::None => Compression::UNCOMPRESSED,
        Packing::Snappy => Compression::SNAPPY,
        Packing::Zstd => Compression::ZSTD(ZstdLevel::default()),
    };
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .set_created_by("mycelial".to_string())
        .set_data_page_size_limit(PAGE_BYTES)
        .set_dictionary_page_size_limit(DICTIONARY_BYTES)
        .build();
    let schema = Arc::new(schema.map_err(failed)?);
    let mut writer = SerializedFileWriter::new(End(part), schema, Arc::new(properties)).map_err(failed)?;
    let (mut batches, mut group, mut bytes) = (heap.batches(), Vec::new(), 0);
    loop {
        let next = batches.next()?;
        let is_over = next.is_none();
        if let Some((batch, size)) = next {
            group.push(batch);
            bytes += size;
        }
        if !group.is_empty() && (is_over || bytes >= GROUP_BYTES) {
            let rows = writer.next_row_group().map_err(failed)?;
            write_group(rows, &columns, &group, op_column).map_err(failed)?;
            group.clear();
            bytes = 0;
        }
        if is_over {
            break;
        }
    }
    writer.close().map(drop).map_err(failed)
}

fn write_group(
    mut rows: SerializedRowGroupWriter<'_, End<'_>>,
    columns: &[(&str, Kind)],
    group: &[Batch],
    op_column: Option<&str>,
) -> Result<(), ParquetError> {
    for (name, kind) in columns {
        let Some(mut column) = rows.next_column()? else { break };
        for batch in group {
            let place = batch.schema().index_of(name);
            let is_op = op_column == Some(*name);
            let (mut values, mut levels) = (kind.values(), Vec::with_capacity(batch.rows()));
            for row in 0..batch.rows() {
                let cell = match place {
                    _ if is_op => Cell::Text(op_name(batch.op(row))),
                    Some(place) => batch.cell(row, place),
                    None => Cell::Missing,
                };
                levels.push(i16::from(values.push(*kind, cell)));
            }
            put(column.untyped(), &values, &levels)?;
        }
        column.close()?;
    }
    rows.close().map(drop)
}

fn put(column: &mut ColumnWriter<'_>, values: &Values, levels: &[i16]) -> Result<(), ParquetError> {
    let levels = Some(levels);
    let written = match (column, values) {
        (ColumnWriter::BoolColumnWriter(column), Values::Bool(values)) => column.write_batch(values, levels, None),
        (ColumnWriter::Int32ColumnWriter(column), Values::I32(values)) => column.write_batch(values, levels, None),
        (ColumnWriter::Int64ColumnWriter(column), Values::I64(values)) => column.write_batch(values, levels, None),
        (ColumnWriter::FloatColumnWriter(column), Values::F32(values)) => column.write_batch(values, levels, None),
        (ColumnWriter::DoubleColumnWriter(column), Values::F64(values)) => column.write_batch(values, levels, None),
        (ColumnWriter::ByteArrayColumnWriter(column), Values::Bytes(values)) => {
            column.write_batch(values, levels, None)
        }
        (ColumnWriter::FixedLenByteArrayColumnWriter(column), Values::Fixed(values)) => {
            column.write_batch(values, levels, None)
        }
        _ => return Err(ParquetError::General("a column of another type".to_string())),
    };
    written.map(drop)
}

fn failed(error: ParquetError) -> io::Error {
    io::Error::other(error)
}
