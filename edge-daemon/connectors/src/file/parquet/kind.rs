//! What a type is in Parquet, and its values there. Pure; knows no file.

use ::parquet::{
    basic::{DecimalType, IntType, LogicalType, Repetition, TimeUnit, Type as Physical},
    data_type::{ByteArray, FixedLenByteArray},
    errors::ParquetError,
    schema::types::Type as SchemaType,
};
use bus_schema::data::{Cell, Type, Zone};

use crate::{file::text::push_json, list::list_json};

/// Most digits of a decimal in Parquet, and the bytes they take.
const DECIMAL_DIGITS_MAX: u8 = 38;
const DECIMAL_BYTES: i32 = 16;
const UUID_BYTES: i32 = 16;

/// A column of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    I64,
    U64,
    F32,
    F64,
    Decimal { precision: u8, scale: u8 },
    Text,
    Bytes,
    Date,
    Time,
    Timestamp { is_utc: bool },
    Uuid,
    Json,
}

/// Values of a column on their way into a file, without those that are null.
pub(super) enum Values {
    Bool(Vec<bool>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bytes(Vec<ByteArray>),
    Fixed(Vec<FixedLenByteArray>),
}

impl Kind {
    /// What holds every value of a type, or most: see [`Kind::check`].
    pub(super) fn of(ty: &Type) -> Self {
        match ty {
            Type::Bool => Self::Bool,
            Type::I64 => Self::I64,
            Type::U64 => Self::U64,
            Type::F32 => Self::F32,
            Type::F64 => Self::F64,
            Type::Decimal { scale, .. } if *scale > DECIMAL_DIGITS_MAX => Self::Text,
            Type::Decimal { precision, scale } => Self::Decimal {
                precision: match precision {
                    1..=DECIMAL_DIGITS_MAX if precision >= scale => *precision,
                    _ => DECIMAL_DIGITS_MAX,
                },
                scale: *scale,
            },
            Type::Text => Self::Text,
            Type::Bytes => Self::Bytes,
            Type::Date => Self::Date,
            Type::Time => Self::Time,
            Type::Timestamp(zone) => Self::Timestamp {
                is_utc: *zone != Zone::Naive,
            },
            Type::Uuid => Self::Uuid,
            Type::Json | Type::List | Type::Any => Self::Json,
        }
    }

    /// The column as a file describes it.
    pub(super) fn column(self, name: &str) -> Result<SchemaType, ParquetError> {
        let (physical, logical) = match self {
            Self::Bool => (Physical::BOOLEAN, None),
            Self::I64 => (Physical::INT64, None),
            Self::U64 => {
                let unsigned = IntType {
                    bit_width: 64,
                    is_signed: false,
                };
                (Physical::INT64, Some(LogicalType::Integer(unsigned)))
            }
            Self::F32 => (Physical::FLOAT, None),
            Self::F64 => (Physical::DOUBLE, None),
            Self::Decimal { precision, scale } => {
                let decimal = DecimalType {
                    precision: i32::from(precision),
                    scale: i32::from(scale),
                };
                (Physical::FIXED_LEN_BYTE_ARRAY, Some(LogicalType::Decimal(decimal)))
            }
            Self::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
            Self::Bytes => (Physical::BYTE_ARRAY, None),
            Self::Date => (Physical::INT32, Some(LogicalType::Date)),
            Self::Time => (Physical::INT64, Some(LogicalType::time(false, TimeUnit::NANOS))),
            Self::Timestamp { is_utc } => (Physical::INT64, Some(LogicalType::timestamp(is_utc, TimeUnit::NANOS))),
            Self::Uuid => (Physical::FIXED_LEN_BYTE_ARRAY, Some(LogicalType::Uuid)),
            Self::Json => (Physical::BYTE_ARRAY, Some(LogicalType::Json)),
        };
        let mut builder = SchemaType::primitive_type_builder(name, physical)
            .with_repetition(Repetition::OPTIONAL)
            .with_logical_type(logical);
        builder = match self {
            Self::Decimal { precision, scale } => builder
                .with_length(DECIMAL_BYTES)
                .with_precision(i32::from(precision))
                .with_scale(i32::from(scale)),
            Self::Uuid => builder.with_length(UUID_BYTES),
            _ => builder,
        };
        builder.build()
    }

    /// No values yet.
    pub(super) fn values(self) -> Values {
        match self {
            Self::Bool => Values::Bool(Vec::new()),
            Self::I64 | Self::U64 | Self::Time | Self::Timestamp { .. } => Values::I64(Vec::new()),
            Self::F32 => Values::F32(Vec::new()),
            Self::F64 => Values::F64(Vec::new()),
            Self::Date => Values::I32(Vec::new()),
            Self::Decimal { .. } | Self::Uuid => Values::Fixed(Vec::new()),
            Self::Text | Self::Bytes | Self::Json => Values::Bytes(Vec::new()),
        }
    }

    /// Whether the file can hold a value exactly; if not, why.
    pub(super) fn check(self, cell: Cell<'_>) -> Result<(), String> {
        match (self, cell) {
            (Self::Timestamp { .. }, cell) => match nanos(cell).map(i64::try_from) {
                Some(Err(_)) => {
                    Err("is a time outside of the years 1677 to 2262, and Parquet has no other with nanoseconds".into())
                }
                _ => Ok(()),
            },
            (Self::Decimal { .. }, Cell::Decimal(units, _)) if units.unsigned_abs() >= 10u128.pow(38) => Err(format!(
                "has more than {DECIMAL_DIGITS_MAX} digits, the most of a decimal in Parquet"
            )),
            (Self::Json, Cell::Json(_)) => push_json(&mut Vec::new(), cell).map_err(|cause| cause.to_string()),
            _ => Ok(()),
        }
    }
}

impl Values {
    /// Adds a value, of the kind that the values were made for and which [`Kind::check`] let pass. `false`: it is none, null.
    pub(super) fn push(&mut self, kind: Kind, cell: Cell<'_>) -> bool {
        match (self, cell) {
            (_, Cell::Null | Cell::Missing | Cell::Unchanged) => return false,
            (Self::Bool(values), Cell::Bool(v)) => values.push(v),
            (Self::I32(values), Cell::Date(v)) => values.push(v),
            (Self::I64(values), Cell::I64(v)) => values.push(v),
            (Self::I64(values), Cell::U64(v)) => values.push(v.cast_signed()),
            (Self::I64(values), Cell::Time(v)) => values.push(i64::try_from(v).unwrap_or(i64::MAX)),
            (Self::I64(values), cell) => match nanos(cell).map(i64::try_from) {
                Some(Ok(v)) => values.push(v),
                _ => return false,
            },
            (Self::F32(values), Cell::F32(v)) => values.push(v),
            (Self::F64(values), Cell::F64(v)) => values.push(v),
            (Self::Fixed(values), Cell::Decimal(units, _)) => values.push(units.to_be_bytes().to_vec().into()),
            (Self::Fixed(values), Cell::Uuid(v)) => values.push(v.to_vec().into()),
            (Self::Bytes(values), cell) => values.push(bytes(kind, cell).into()),
            _ => return false,
        }
        true
    }
}

/// A moment as nanoseconds since 1970.
fn nanos(cell: Cell<'_>) -> Option<i128> {
    match cell {
        Cell::Timestamp(v) | Cell::TimestampUtc(v) | Cell::TimestampOffset(v, _) => Some(v),
        _ => None,
    }
}

/// Text, bytes, and what is JSON in a file.
fn bytes(kind: Kind, cell: Cell<'_>) -> Vec<u8> {
    match cell {
        Cell::Bytes(v) if kind == Kind::Bytes => v.to_vec(),
        Cell::Text(v) if kind == Kind::Text => v.as_bytes().to_vec(),
        Cell::List(items) => list_json(items).into_bytes(),
        cell if kind == Kind::Text => cell.to_string().into_bytes(),
        cell => {
            let mut out = Vec::new();
            // It was tried before.
            let _ = push_json(&mut out, cell);
            out
        }
    }
}
