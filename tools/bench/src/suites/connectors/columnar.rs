//! Parquet by its crate: a file in row groups, written and read column by column.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use parquet::basic::Compression;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_typed_column_reader};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::{Lines, row};

/// Rows of a row group: some 4 MB, as the destination makes them.
const GROUP_ROWS: u64 = 65_536;
/// Rows that are read at once.
const READ_ROWS: usize = 4_096;
const COLUMNS: &str = "message rows { OPTIONAL INT64 id; OPTIONAL BYTE_ARRAY name (UTF8); OPTIONAL DOUBLE value; }";

/// Writes a file, packed with Snappy, with one fsync at the end.
pub(super) fn write(path: &Path, rows: u64) -> Result<()> {
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let file = File::create(path)?;
    let synced = file.try_clone()?;
    let mut writer = SerializedFileWriter::new(file, Arc::new(parse_message_type(COLUMNS)?), Arc::new(properties))?;
    for first in (1..=rows).step_by(GROUP_ROWS as usize) {
        let (mut ids, mut names, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for id in first..=rows.min(first + GROUP_ROWS - 1) {
            let row = row(id);
            ids.push(row.id as i64);
            names.push(ByteArray::from(row.name.into_bytes()));
            values.push(row.value);
        }
        let there = vec![1; ids.len()];
        let mut group = writer.next_row_group()?;
        let mut column = group.next_column()?.context("no first column")?;
        column.typed::<Int64Type>().write_batch(&ids, Some(&there), None)?;
        column.close()?;
        let mut column = group.next_column()?.context("no second column")?;
        column
            .typed::<ByteArrayType>()
            .write_batch(&names, Some(&there), None)?;
        column.close()?;
        let mut column = group.next_column()?.context("no third column")?;
        column.typed::<DoubleType>().write_batch(&values, Some(&there), None)?;
        column.close()?;
        group.close()?;
    }
    writer.close()?;
    Ok(synced.sync_all()?)
}

/// Reads a file into JSON lines.
pub(super) fn read(path: &Path, out: &Path) -> Result<()> {
    let reader = SerializedFileReader::new(File::open(path)?)?;
    let mut out = Lines::create(out)?;
    for at in 0..reader.num_row_groups() {
        let group = reader.get_row_group(at)?;
        let mut left = usize::try_from(group.metadata().num_rows())?;
        let mut ids = column::<Int64Type>(group.get_column_reader(0)?);
        let mut names = column::<ByteArrayType>(group.get_column_reader(1)?);
        let mut values = column::<DoubleType>(group.get_column_reader(2)?);
        while left > 0 {
            let count = left.min(READ_ROWS);
            let (ids, names, values) = (
                some(&mut ids, count)?,
                some(&mut names, count)?,
                some(&mut values, count)?,
            );
            for ((id, name), value) in ids.iter().zip(&names).zip(&values) {
                out.push(*id, name.as_utf8()?, *value)?;
            }
            left -= count;
        }
    }
    out.finish()
}

/// How many rows a file says it has.
pub(super) fn count(path: &Path) -> Result<u64> {
    let reader = SerializedFileReader::new(File::open(path)?)?;
    Ok(u64::try_from(reader.metadata().file_metadata().num_rows())?)
}

fn column<T: DataType>(reader: ColumnReader) -> ColumnReaderImpl<T> {
    get_typed_column_reader::<T>(reader)
}

/// The next so many values of a column without a null.
fn some<T: DataType>(column: &mut ColumnReaderImpl<T>, count: usize) -> Result<Vec<T::T>> {
    let (mut values, mut levels) = (Vec::with_capacity(count), Vec::with_capacity(count));
    while levels.len() < count {
        let (read, ..) = column.read_records(count - levels.len(), Some(&mut levels), None, &mut values)?;
        ensure!(read > 0, "a column has {} rows too few", count - levels.len());
    }
    ensure!(values.len() == count, "a column has a null");
    Ok(values)
}
