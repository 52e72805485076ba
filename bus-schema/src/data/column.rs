//! One column of a batch: packed values, and which rows have none.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::{ops::Range, str};

use serde::{Deserialize, Serialize};

use super::value::{Cell, Type, Value, Zone};

/// A value does not fit its column.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a {found} does not fit a column of type {wanted}")]
pub struct TypeMismatch {
    /// The column's type.
    pub wanted: String,
    /// The value's type.
    pub found: String,
}

/// A packed list of booleans.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bits {
    len: u32,
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
}

impl Bits {
    fn zeros(len: usize) -> Self {
        Self {
            len: len as u32,
            bytes: alloc::vec![0; len.div_ceil(8)],
        }
    }

    /// Number of bits.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// No bits at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bit at `index`; `false` past the end.
    pub fn get(&self, index: usize) -> bool {
        self.bytes
            .get(index / 8)
            .is_some_and(|byte| byte >> (index % 8) & 1 == 1)
    }

    fn push(&mut self, bit: bool) {
        let index = self.len();
        if index.is_multiple_of(8) {
            self.bytes.push(0);
        }
        if bit {
            self.bytes[index / 8] |= 1 << (index % 8);
        }
        self.len += 1;
    }

    fn check(&self, rows: usize) -> Result<(), String> {
        let fits = self.len() == rows && self.bytes.len() == rows.div_ceil(8);
        fits.then_some(())
            .ok_or_else(|| format!("{} bits in {} bytes for {rows} rows", self.len, self.bytes.len()))
    }
}

/// Many byte strings end to end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blobs {
    ends: Vec<u32>,
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
}

impl Blobs {
    /// Number of strings.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// No strings at all.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The string at `index`; empty past the end.
    pub fn get(&self, index: usize) -> &[u8] {
        let start = if index == 0 {
            0
        } else {
            self.ends.get(index - 1).copied().unwrap_or(0) as usize
        };
        let end = self.ends.get(index).copied().unwrap_or(0) as usize;
        self.bytes.get(start..end).unwrap_or_default()
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len() as u32);
    }

    /// Every string in order and nothing left over; text is UTF-8 string by string.
    fn check(&self, text: bool) -> Result<(), String> {
        let mut start = 0;
        for (row, end) in self.ends.iter().enumerate() {
            let part = self
                .bytes
                .get(start..*end as usize)
                .ok_or_else(|| format!("row {row} ends outside"))?;
            if text && str::from_utf8(part).is_err() {
                return Err(format!("row {row} is not UTF-8"));
            }
            start = *end as usize;
        }
        (start == self.bytes.len())
            .then_some(())
            .ok_or_else(|| "left-over bytes".to_string())
    }
}

/// Text columns are checked when decoded and when pushed, so this never has to replace anything.
fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap_or_default()
}

/// The packed values of a column. Rows without a value hold a zero. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each variant packs the Type of the same name")]
pub enum Values {
    Bool(Vec<bool>),
    I64(Vec<i64>),
    U64(Vec<u64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Decimal(Vec<i128>),
    Text(Blobs),
    Bytes(Blobs),
    Date(Vec<i32>),
    Time(Vec<u64>),
    Timestamp(Vec<i128>),
    TimestampOffset(Vec<(i128, i16)>),
    Uuid(Vec<[u8; 16]>),
    Json(Blobs),
    List(Vec<Vec<Value>>),
    Any(Vec<Value>),
}

/// One column: values, and for the rows that have none, why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Column {
    values: Values,
    null: Option<Bits>,
    missing: Option<Bits>,
    unchanged: Option<Bits>,
}

impl Column {
    /// An empty column that can hold `ty`.
    pub fn new(ty: &Type) -> Self {
        let values = match ty {
            Type::Bool => Values::Bool(Vec::new()),
            Type::I64 => Values::I64(Vec::new()),
            Type::U64 => Values::U64(Vec::new()),
            Type::F32 => Values::F32(Vec::new()),
            Type::F64 => Values::F64(Vec::new()),
            Type::Decimal { .. } => Values::Decimal(Vec::new()),
            Type::Text => Values::Text(Blobs::default()),
            Type::Bytes => Values::Bytes(Blobs::default()),
            Type::Date => Values::Date(Vec::new()),
            Type::Time => Values::Time(Vec::new()),
            Type::Timestamp(Zone::Naive | Zone::Utc) => Values::Timestamp(Vec::new()),
            Type::Timestamp(Zone::Offset) => Values::TimestampOffset(Vec::new()),
            Type::Uuid => Values::Uuid(Vec::new()),
            Type::Json => Values::Json(Blobs::default()),
            Type::List => Values::List(Vec::new()),
            Type::Any => Values::Any(Vec::new()),
        };
        Self {
            values,
            null: None,
            missing: None,
            unchanged: None,
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        match &self.values {
            Values::Bool(v) => v.len(),
            Values::I64(v) => v.len(),
            Values::U64(v) => v.len(),
            Values::F32(v) => v.len(),
            Values::F64(v) => v.len(),
            Values::Decimal(v) => v.len(),
            Values::Text(v) | Values::Bytes(v) | Values::Json(v) => v.len(),
            Values::Date(v) => v.len(),
            Values::Time(v) => v.len(),
            Values::Timestamp(v) => v.len(),
            Values::TimestampOffset(v) => v.len(),
            Values::Uuid(v) => v.len(),
            Values::List(v) => v.len(),
            Values::Any(v) => v.len(),
        }
    }

    /// No rows at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the content of texts and bytes.
    pub(super) fn content_bytes(&self) -> usize {
        match &self.values {
            Values::Text(v) | Values::Bytes(v) | Values::Json(v) => v.bytes.len(),
            Values::List(v) => v.iter().flatten().map(Value::content_bytes).sum(),
            Values::Any(v) => v.iter().map(Value::content_bytes).sum(),
            _ => 0,
        }
    }

    /// The packed values, for code that works on whole columns.
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// Whether every row has a value.
    pub fn is_dense(&self) -> bool {
        self.null.is_none() && self.missing.is_none() && self.unchanged.is_none()
    }

    /// The value of one row. `ty` is the column's type in the schema.
    pub fn get(&self, row: usize, ty: &Type) -> Cell<'_> {
        for (bits, cell) in [
            (&self.null, Cell::Null),
            (&self.missing, Cell::Missing),
            (&self.unchanged, Cell::Unchanged),
        ] {
            if bits.as_ref().is_some_and(|bits| bits.get(row)) {
                return cell;
            }
        }
        let scale = if let Type::Decimal { scale, .. } = ty {
            *scale
        } else {
            0
        };
        let cell = match &self.values {
            Values::Bool(v) => v.get(row).map(|v| Cell::Bool(*v)),
            Values::I64(v) => v.get(row).map(|v| Cell::I64(*v)),
            Values::U64(v) => v.get(row).map(|v| Cell::U64(*v)),
            Values::F32(v) => v.get(row).map(|v| Cell::F32(*v)),
            Values::F64(v) => v.get(row).map(|v| Cell::F64(*v)),
            Values::Decimal(v) => v.get(row).map(|v| Cell::Decimal(*v, scale)),
            Values::Text(v) => (row < v.len()).then(|| Cell::Text(text(v.get(row)))),
            Values::Bytes(v) => (row < v.len()).then(|| Cell::Bytes(v.get(row))),
            Values::Date(v) => v.get(row).map(|v| Cell::Date(*v)),
            Values::Time(v) => v.get(row).map(|v| Cell::Time(*v)),
            Values::Timestamp(v) if *ty == Type::Timestamp(Zone::Utc) => v.get(row).map(|v| Cell::TimestampUtc(*v)),
            Values::Timestamp(v) => v.get(row).map(|v| Cell::Timestamp(*v)),
            Values::TimestampOffset(v) => v.get(row).map(|(v, offset)| Cell::TimestampOffset(*v, *offset)),
            Values::Uuid(v) => v.get(row).map(|v| Cell::Uuid(*v)),
            Values::Json(v) => (row < v.len()).then(|| Cell::Json(text(v.get(row)))),
            Values::List(v) => v.get(row).map(|v| Cell::List(v)),
            Values::Any(v) => v.get(row).map(Value::as_cell),
        };
        cell.unwrap_or(Cell::Missing)
    }

    /// Appends one row. Numbers are not converted: an `i64` does not fit an `f64` column.
    pub fn push(&mut self, cell: Cell<'_>, ty: &Type) -> Result<(), TypeMismatch> {
        let row = self.len();
        if let Cell::List(items) = cell
            && items.iter().any(|item| matches!(item, Value::List(_)))
        {
            return Err(TypeMismatch {
                wanted: ty.to_string(),
                found: "list inside a list".to_string(),
            });
        }
        match (&mut self.values, cell) {
            (Values::Any(v), cell) if cell.is_value() => v.push(cell.to_value()),
            (_, Cell::Null | Cell::Missing | Cell::Unchanged) => self.push_zero(),
            (Values::Bool(v), Cell::Bool(x)) => v.push(x),
            (Values::I64(v), Cell::I64(x)) => v.push(x),
            (Values::U64(v), Cell::U64(x)) => v.push(x),
            (Values::F32(v), Cell::F32(x)) => v.push(x),
            (Values::F64(v), Cell::F64(x)) => v.push(x),
            (Values::Decimal(v), Cell::Decimal(x, scale)) if matches!(ty, Type::Decimal { scale: wanted, .. } if *wanted == scale) =>
            {
                v.push(x);
            }
            (Values::Text(v), Cell::Text(x)) | (Values::Json(v), Cell::Json(x)) => v.push(x.as_bytes()),
            (Values::Bytes(v), Cell::Bytes(x)) => v.push(x),
            (Values::Date(v), Cell::Date(x)) => v.push(x),
            (Values::Time(v), Cell::Time(x)) => v.push(x),
            (Values::Timestamp(v), Cell::Timestamp(x)) if *ty == Type::Timestamp(Zone::Naive) => v.push(x),
            (Values::Timestamp(v), Cell::TimestampUtc(x)) if *ty == Type::Timestamp(Zone::Utc) => v.push(x),
            (Values::TimestampOffset(v), Cell::TimestampOffset(x, offset)) => v.push((x, offset)),
            (Values::Uuid(v), Cell::Uuid(x)) => v.push(x),
            (Values::List(v), Cell::List(x)) => v.push(x.to_vec()),
            (_, cell) => {
                let found = cell
                    .type_of()
                    .map_or_else(|| "null".to_string(), |found| found.to_string());
                return Err(TypeMismatch {
                    wanted: ty.to_string(),
                    found,
                });
            }
        }
        for (bits, hit) in [
            (&mut self.null, cell == Cell::Null),
            (&mut self.missing, cell == Cell::Missing),
            (&mut self.unchanged, cell == Cell::Unchanged),
        ] {
            if hit || bits.is_some() {
                bits.get_or_insert_with(|| Bits::zeros(row)).push(hit);
            }
        }
        Ok(())
    }

    fn push_zero(&mut self) {
        match &mut self.values {
            Values::Bool(v) => v.push(false),
            Values::I64(v) => v.push(0),
            Values::U64(v) | Values::Time(v) => v.push(0),
            Values::F32(v) => v.push(0.0),
            Values::F64(v) => v.push(0.0),
            Values::Decimal(v) | Values::Timestamp(v) => v.push(0),
            Values::Text(v) | Values::Bytes(v) | Values::Json(v) => v.push(b""),
            Values::Date(v) => v.push(0),
            Values::TimestampOffset(v) => v.push((0, 0)),
            Values::Uuid(v) => v.push([0; 16]),
            Values::List(v) => v.push(Vec::new()),
            Values::Any(v) => v.push(Value::Null),
        }
    }

    /// The same rows in the same order, a part of them.
    pub fn slice(&self, rows: Range<usize>, ty: &Type) -> Self {
        self.take(rows, ty)
    }

    /// The chosen rows, in the order given. Rows past the end come out as missing.
    pub fn take(&self, rows: impl Iterator<Item = usize>, ty: &Type) -> Self {
        let mut out = Column::new(ty);
        for row in rows {
            // A cell of this very column always fits a column of the same type.
            let _ = out.push(self.get(row, ty), ty);
        }
        out
    }

    /// Decoded bytes are what they claim: lengths agree, text is UTF-8.
    pub(super) fn check(&self, rows: usize, ty: &Type) -> Result<(), String> {
        if core::mem::discriminant(&self.values) != core::mem::discriminant(&Column::new(ty).values) {
            return Err(format!("the values are not of type {ty}"));
        }
        if self.len() != rows {
            return Err(format!("{} values for {rows} rows", self.len()));
        }
        for bits in [&self.null, &self.missing, &self.unchanged].into_iter().flatten() {
            bits.check(rows)?;
        }
        match &self.values {
            Values::Text(v) | Values::Json(v) => v.check(true),
            Values::Bytes(v) => v.check(false),
            // Could never be pushed: taking rows would lose such a one.
            Values::List(v) if v.iter().flatten().any(|item| matches!(item, Value::List(_))) => {
                Err("a list inside a list".to_string())
            }
            _ => Ok(()),
        }
    }
}
