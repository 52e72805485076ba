//! Reads a Parquet file as batches, row group by row group. Blocking; in memory are the pages that are being read, one for
//! each column, and a few rows.

use std::{
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use ::parquet::{
    basic::{ConvertedType, IntType, LogicalType, TimeUnit, Type as Physical},
    column::reader::ColumnReader,
    data_type::{ByteArray, FixedLenByteArray, Int96},
    file::reader::{FileReader as _, SerializedFileReader},
    schema::types::ColumnDescriptor,
};
use bus_schema::{
    data::{Batch, Cell, Column, Field, Op, Ops, Origin, Schema, Type, Zone},
    limits::{BATCH_BYTES_TARGET, COLUMNS_MAX},
};

use crate::file::table::{Section, Table};

/// Rows read at once: while nothing is known of their size, and at most.
const FIRST_ROWS: usize = 64;
const ROWS_MAX: usize = 4096;
/// Of INT96, an old form of timestamps: the Julian day of 1970-01-01, and nanoseconds of a day.
const JULIAN_EPOCH: i128 = 2_440_588;
const DAY_NANOS: i128 = 86_400_000_000_000;
/// Most digits of our decimals.
const DECIMAL_DIGITS_MAX: i32 = 38;

/// What values of a column are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Bool,
    Integer,
    /// 64 bits that are a number without a sign, or 32.
    Unsigned,
    F16,
    F32,
    F64,
    Decimal(u8),
    Text,
    Json,
    Bytes,
    Uuid,
    Date,
    /// Nanoseconds of a unit.
    Time(u64),
    Timestamp(i128, Zone),
    /// INT96.
    Old,
}

/// A file that is being read.
pub(super) struct Rows {
    reader: SerializedFileReader<File>,
    schema: Arc<Schema>,
    forms: Vec<Form>,
    /// The row group after the one that is being read.
    next_group: usize,
    columns: Vec<ColumnReader>,
    /// Rows left in the row group.
    left: usize,
    rows_at_once: usize,
}

impl Rows {
    /// Opens a file; or says why it cannot be read.
    pub(super) fn open(file: File, collection: &str) -> Result<Self, String> {
        let reader = SerializedFileReader::new(file).map_err(|error| error.to_string())?;
        let descriptor = reader.metadata().file_metadata().schema_descr_ptr();
        if descriptor.num_columns() > COLUMNS_MAX {
            let count = descriptor.num_columns();
            return Err(format!(
                "it has {count} columns, and a record holds at most {COLUMNS_MAX}"
            ));
        }
        let (mut forms, mut fields) = (Vec::new(), Vec::<Field>::new());
        for column in descriptor.columns() {
            let name = column.path().parts().join(".");
            if column.path().parts().len() > 1 || column.max_rep_level() > 0 {
                return Err(format!(
                    "column '{name}' is part of a list, a map or a structure, which are not read"
                ));
            }
            if fields.iter().any(|field| field.name == name) {
                return Err(format!("two columns are called '{name}'"));
            }
            let (form, ty) = form(column).map_err(|cause| format!("column '{name}' {cause}"))?;
            forms.push(form);
            fields.push(Field {
                nullable: column.max_def_level() > 0,
                ..Field::new(name, ty)
            });
        }
        Ok(Self {
            reader,
            schema: Arc::new(Schema {
                collection: collection.to_string(),
                fields,
            }),
            forms,
            next_group: 0,
            columns: Vec::new(),
            left: 0,
            rows_at_once: FIRST_ROWS,
        })
    }

    fn go_past(&mut self, mut rows: u64) -> Result<(), String> {
        while rows > 0 && self.begin_group()? {
            let count = usize::try_from(rows).unwrap_or(usize::MAX).min(self.left);
            for column in &mut self.columns {
                skip(column, count)?;
            }
            self.left -= count;
            rows -= count as u64;
        }
        Ok(())
    }

    /// Makes sure that there is a row group with rows left. `false`: there is none.
    fn begin_group(&mut self) -> Result<bool, String> {
        while self.left == 0 {
            if self.next_group >= self.reader.num_row_groups() || self.forms.is_empty() {
                return Ok(false);
            }
            let group = self
                .reader
                .get_row_group(self.next_group)
                .map_err(|error| error.to_string())?;
            self.next_group += 1;
            self.left =
                usize::try_from(group.metadata().num_rows()).map_err(|_| "a row group of fewer rows than none")?;
            let columns = (0..self.forms.len()).map(|column| group.get_column_reader(column));
            self.columns = columns.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
        }
        Ok(true)
    }

    fn read(&mut self) -> Result<Option<Batch>, String> {
        if !self.begin_group()? {
            return Ok(None);
        }
        let rows = self.rows_at_once.min(self.left);
        let mut columns = Vec::with_capacity(self.columns.len());
        for ((reader, form), field) in self.columns.iter_mut().zip(&self.forms).zip(&self.schema.fields) {
            let column =
                read(reader, *form, field, rows).map_err(|cause| format!("column '{}': {cause}", field.name))?;
            if column.len() != rows {
                return Err(format!("column '{}' has fewer rows than the others", field.name));
            }
            columns.push(column);
        }
        self.left -= rows;
        let batch = Batch::new(self.schema.clone(), columns, Ops::All(Op::Insert), Origin::default());
        let batch = batch.map_err(|error| error.to_string())?;
        let of_each = batch.size_hint() / rows.max(1);
        self.rows_at_once = (BATCH_BYTES_TARGET / of_each.max(1)).clamp(1, ROWS_MAX);
        Ok(Some(batch))
    }
}

/// The reader was not written for files that are damaged on purpose: what it gives up with a panic is damaged.
impl Table for Rows {
    fn skip(&mut self, rows: u64) -> Result<(), String> {
        let done = catch_unwind(AssertUnwindSafe(|| self.go_past(rows)));
        done.unwrap_or_else(|_| Err("it is damaged".to_string()))
    }

    fn next(&mut self) -> Result<Option<Section>, String> {
        let done = catch_unwind(AssertUnwindSafe(|| self.read()));
        let batch = done.unwrap_or_else(|_| Err("it is damaged".to_string()))?;
        Ok(batch.map(|batch| Section {
            rows: batch.rows() as u64,
            batch,
            undecodable: Vec::new(),
        }))
    }
}

/// What a column of the file is here.
fn form(column: &ColumnDescriptor) -> Result<(Form, Type), String> {
    let unit = |unit: &TimeUnit| match unit {
        TimeUnit::MILLIS => 1_000_000u64,
        TimeUnit::MICROS => 1_000,
        TimeUnit::NANOS => 1,
    };
    let zone = |is_utc: bool| if is_utc { Zone::Utc } else { Zone::Naive };
    let timestamp = |nanos: u64, is_utc: bool| {
        let zone = zone(is_utc);
        (Form::Timestamp(i128::from(nanos), zone), Type::Timestamp(zone))
    };
    let decimal = || {
        let (precision, scale) = (column.type_precision(), column.type_scale());
        if !(1..=DECIMAL_DIGITS_MAX).contains(&precision) || !(0..=precision).contains(&scale) {
            return Err(format!(
                "is decimal({precision},{scale}), and decimals here have at most {DECIMAL_DIGITS_MAX} digits"
            ));
        }
        let (precision, scale) = (precision as u8, scale as u8);
        Ok((Form::Decimal(scale), Type::Decimal { precision, scale }))
    };
    Ok(
        match (
            column.physical_type(),
            column.logical_type_ref(),
            column.converted_type(),
        ) {
            (Physical::BOOLEAN, ..) => (Form::Bool, Type::Bool),
            (Physical::INT96, ..) => (Form::Old, Type::Timestamp(Zone::Naive)),
            (Physical::FLOAT, ..) => (Form::F32, Type::F32),
            (Physical::DOUBLE, ..) => (Form::F64, Type::F64),
            (_, Some(LogicalType::Decimal(_)), _) | (_, None, ConvertedType::DECIMAL) => decimal()?,
            (_, Some(LogicalType::Date), _) | (_, None, ConvertedType::DATE) => (Form::Date, Type::Date),
            (_, Some(LogicalType::Time(time)), _) => (Form::Time(unit(&time.unit)), Type::Time),
            (_, None, ConvertedType::TIME_MILLIS) => (Form::Time(1_000_000), Type::Time),
            (_, None, ConvertedType::TIME_MICROS) => (Form::Time(1_000), Type::Time),
            (_, Some(LogicalType::Timestamp(time)), _) => timestamp(unit(&time.unit), time.is_adjusted_to_u_t_c),
            (_, None, ConvertedType::TIMESTAMP_MILLIS) => timestamp(1_000_000, true),
            (_, None, ConvertedType::TIMESTAMP_MICROS) => timestamp(1_000, true),
            (Physical::INT64, Some(LogicalType::Integer(IntType { is_signed: false, .. })), _)
            | (Physical::INT64, None, ConvertedType::UINT_64) => (Form::Unsigned, Type::U64),
            (Physical::INT32, Some(LogicalType::Integer(IntType { is_signed: false, .. })), _)
            | (Physical::INT32, None, ConvertedType::UINT_32) => (Form::Unsigned, Type::U64),
            (Physical::INT32 | Physical::INT64, ..) => (Form::Integer, Type::I64),
            (_, Some(LogicalType::String | LogicalType::Enum), _)
            | (_, None, ConvertedType::UTF8 | ConvertedType::ENUM) => (Form::Text, Type::Text),
            (_, Some(LogicalType::Json), _) | (_, None, ConvertedType::JSON) => (Form::Json, Type::Json),
            (Physical::FIXED_LEN_BYTE_ARRAY, Some(LogicalType::Uuid), _) => (Form::Uuid, Type::Uuid),
            (Physical::FIXED_LEN_BYTE_ARRAY, Some(LogicalType::Float16), _) => (Form::F16, Type::F32),
            (Physical::BYTE_ARRAY | Physical::FIXED_LEN_BYTE_ARRAY, ..) => (Form::Bytes, Type::Bytes),
        },
    )
}

fn skip(column: &mut ColumnReader, rows: usize) -> Result<(), String> {
    let skipped = match column {
        ColumnReader::BoolColumnReader(reader) => reader.skip_records(rows),
        ColumnReader::Int32ColumnReader(reader) => reader.skip_records(rows),
        ColumnReader::Int64ColumnReader(reader) => reader.skip_records(rows),
        ColumnReader::Int96ColumnReader(reader) => reader.skip_records(rows),
        ColumnReader::FloatColumnReader(reader) => reader.skip_records(rows),
        ColumnReader::DoubleColumnReader(reader) => reader.skip_records(rows),
        ColumnReader::ByteArrayColumnReader(reader) => reader.skip_records(rows),
        ColumnReader::FixedLenByteArrayColumnReader(reader) => reader.skip_records(rows),
    };
    match skipped {
        Ok(count) if count == rows => Ok(()),
        Ok(_) => Err("a column has fewer rows than the file says".to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// Reads so many rows of a column.
fn read(reader: &mut ColumnReader, form: Form, field: &Field, rows: usize) -> Result<Column, String> {
    /// Reads values, and puts each where the levels say that there is one.
    macro_rules! column {
        ($reader:expr, $ty:ty, $cell:expr) => {{
            let mut values: Vec<$ty> = Vec::with_capacity(rows);
            let (mut levels, mut found) = (Vec::with_capacity(rows), 0);
            while found < rows {
                let wanted = if field.nullable { Some(&mut levels) } else { None };
                let read = $reader.read_records(rows - found, wanted, None, &mut values);
                match read.map_err(|error| error.to_string())? {
                    (0, ..) => break,
                    (count, ..) => found += count,
                }
            }
            let mut column = Column::new(&field.ty);
            let mut values = values.iter();
            for row in 0..found {
                let is_there = !field.nullable || levels.get(row).is_some_and(|level| *level > 0);
                let pushed = match is_there.then(|| values.next()).flatten() {
                    None => column.push(Cell::Null, &field.ty),
                    Some(value) => $cell(value, &mut |cell: Cell<'_>| column.push(cell, &field.ty))?,
                };
                pushed.map_err(|error| error.to_string())?;
            }
            Ok(column)
        }};
    }
    type Put<'a> = &'a mut dyn FnMut(Cell<'_>) -> Result<(), bus_schema::data::TypeMismatch>;
    type Done = Result<Result<(), bus_schema::data::TypeMismatch>, String>;
    let number = |value: i64, put: Put<'_>| -> Done { Ok(put(of_number(form, value)?)) };
    let bytes = |value: &[u8], put: Put<'_>| -> Done { Ok(put(of_bytes(form, value)?)) };
    match reader {
        ColumnReader::BoolColumnReader(reader) => {
            column!(reader, bool, |value: &bool, put: Put<'_>| -> Done {
                Ok(put(Cell::Bool(*value)))
            })
        }
        ColumnReader::Int32ColumnReader(reader) if form == Form::Unsigned => {
            column!(reader, i32, |value: &i32, put: Put<'_>| -> Done {
                Ok(put(Cell::U64(u64::from(value.cast_unsigned()))))
            })
        }
        ColumnReader::Int32ColumnReader(reader) => {
            column!(reader, i32, |value: &i32, put: Put<'_>| -> Done {
                number(i64::from(*value), put)
            })
        }
        ColumnReader::Int64ColumnReader(reader) => {
            column!(reader, i64, |value: &i64, put: Put<'_>| -> Done { number(*value, put) })
        }
        ColumnReader::Int96ColumnReader(reader) => {
            column!(reader, Int96, |value: &Int96, put: Put<'_>| -> Done {
                Ok(put(Cell::Timestamp(of_old(value))))
            })
        }
        ColumnReader::FloatColumnReader(reader) => {
            column!(reader, f32, |value: &f32, put: Put<'_>| -> Done {
                Ok(put(Cell::F32(*value)))
            })
        }
        ColumnReader::DoubleColumnReader(reader) => {
            column!(reader, f64, |value: &f64, put: Put<'_>| -> Done {
                Ok(put(Cell::F64(*value)))
            })
        }
        ColumnReader::ByteArrayColumnReader(reader) => {
            column!(reader, ByteArray, |value: &ByteArray, put: Put<'_>| -> Done {
                bytes(value.data(), put)
            })
        }
        ColumnReader::FixedLenByteArrayColumnReader(reader) => {
            column!(reader, FixedLenByteArray, |value: &FixedLenByteArray,
                                                put: Put<'_>|
             -> Done {
                bytes(value.data(), put)
            })
        }
    }
}

fn of_number(form: Form, value: i64) -> Result<Cell<'static>, String> {
    let wrong = || format!("{value} is no value of its type");
    Ok(match form {
        Form::Unsigned => Cell::U64(value.cast_unsigned()),
        Form::Decimal(scale) => Cell::Decimal(i128::from(value), scale),
        Form::Date => Cell::Date(i32::try_from(value).map_err(|_| wrong())?),
        Form::Time(unit) => {
            let nanos = u64::try_from(value).ok().and_then(|value| value.checked_mul(unit));
            Cell::Time(nanos.ok_or_else(wrong)?)
        }
        Form::Timestamp(unit, Zone::Naive) => Cell::Timestamp(i128::from(value) * unit),
        Form::Timestamp(unit, _) => Cell::TimestampUtc(i128::from(value) * unit),
        _ => Cell::I64(value),
    })
}

fn of_bytes(form: Form, value: &[u8]) -> Result<Cell<'_>, String> {
    Ok(match form {
        Form::Text => Cell::Text(std::str::from_utf8(value).map_err(|_| "a text that is not UTF-8")?),
        Form::Json => Cell::Json(std::str::from_utf8(value).map_err(|_| "a document that is not UTF-8")?),
        Form::Uuid => Cell::Uuid(value.try_into().map_err(|_| "a UUID of other than 16 bytes")?),
        Form::Decimal(scale) => Cell::Decimal(units(value).ok_or("a decimal of more digits than it may have")?, scale),
        Form::F16 => Cell::F32(half(value).ok_or("a short float of other than 2 bytes")?),
        _ => Cell::Bytes(value),
    })
}

/// A number in as many bytes as it takes, the highest first.
fn units(value: &[u8]) -> Option<i128> {
    let fill = if value.first().is_some_and(|byte| byte & 0x80 != 0) {
        0xff
    } else {
        0
    };
    let (rest, last) = value.split_at(value.len().saturating_sub(16));
    if rest.iter().any(|byte| *byte != fill) {
        return None;
    }
    let mut bytes = [fill; 16];
    bytes[16 - last.len()..].copy_from_slice(last);
    Some(i128::from_be_bytes(bytes))
}

/// A float of 16 bits (IEEE 754 binary16), which one of 32 holds exactly.
fn half(value: &[u8]) -> Option<f32> {
    let bits = u32::from(u16::from_le_bytes(value.try_into().ok()?));
    let (sign, exponent, fraction) = (bits >> 15 << 31, bits >> 10 & 0x1f, bits & 0x3ff);
    Some(match exponent {
        0 => f32::from_bits(sign | 0x3f80_0000) * (fraction as f32) * 2f32.powi(-24),
        0x1f => f32::from_bits(sign | 0x7f80_0000 | fraction << 13),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
    })
}

fn of_old(value: &Int96) -> i128 {
    let [low, high, day] = [value.data()[0], value.data()[1], value.data()[2]];
    let nanos = i128::from(u64::from(high) << 32 | u64::from(low));
    (i128::from(day) - JULIAN_EPOCH) * DAY_NANOS + nanos
}

#[cfg(test)]
pub(super) mod numbers {
    use super::*;

    #[test]
    fn old_forms_become_values() {
        for (bytes, wanted) in [
            (&b"\x01"[..], Some(1)),
            (b"\xff", Some(-1)),
            (b"", Some(0)),
            (
                b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe",
                Some(-2),
            ),
            (b"\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", None),
        ] {
            assert_eq!(units(bytes), wanted, "{bytes:?}");
        }
        for (bits, wanted) in [
            (0x3c00u16, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0001, 2f32.powi(-24)),
            (0x0400, 2f32.powi(-14)),
            (0x7c00, f32::INFINITY),
            (0x8000, -0.0),
        ] {
            assert_eq!(
                half(&bits.to_le_bytes()).map(f32::to_bits),
                Some(wanted.to_bits()),
                "{bits:x}"
            );
        }
        assert!(half(&0x7e00u16.to_le_bytes()).unwrap().is_nan());
    }
}
