//! One column of a batch: packed values, and which rows have none.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::ops::Range;

use serde::{Deserialize, Serialize};

use super::value::{Cell, Type, Value, Zone};

/// Values that are looked at where all of them would take too long.
const LOOKED_AT_MAX: usize = 32;

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

    /// The bits at `rows`; `None` when none of them is set.
    fn take(&self, rows: impl Iterator<Item = usize> + Clone) -> Option<Self> {
        rows.clone().any(|row| self.get(row)).then(|| {
            let mut out = Self::default();
            rows.for_each(|row| out.push(self.get(row)));
            out
        })
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
        self.bytes.get(span(&self.ends, index)).unwrap_or_default()
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len() as u32);
    }

    fn take(&self, rows: impl Iterator<Item = usize>) -> Self {
        let mut out = Self::default();
        rows.for_each(|row| out.push(self.get(row)));
        out
    }

    /// Every string in order and nothing left over.
    fn check(&self) -> Result<(), String> {
        check_ends(&self.ends, self.bytes.len(), |_| true)
    }
}

/// Many texts end to end. On the wire they are what [`Blobs`] are; that they are UTF-8 is looked at once, when they are
/// decoded, and never again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Texts {
    ends: Vec<u32>,
    text: String,
}

impl Texts {
    /// Number of texts.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// No texts at all.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The text at `index`; empty past the end.
    pub fn get(&self, index: usize) -> &str {
        self.text.get(span(&self.ends, index)).unwrap_or_default()
    }

    fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.ends.push(self.text.len() as u32);
    }

    fn take(&self, rows: impl Iterator<Item = usize>) -> Self {
        let mut out = Self::default();
        rows.for_each(|row| out.push(self.get(row)));
        out
    }

    /// Every text in order, none of them ending inside a character, and nothing left over.
    fn check(&self) -> Result<(), String> {
        check_ends(&self.ends, self.text.len(), |end| self.text.is_char_boundary(end))
    }
}

/// Where the string at `index` stands; nowhere past the end.
fn span(ends: &[u32], index: usize) -> Range<usize> {
    let end_of = |index: usize| ends.get(index).copied().unwrap_or(0) as usize;
    let start = if index == 0 { 0 } else { end_of(index - 1) };
    start..end_of(index)
}

fn check_ends(ends: &[u32], bytes: usize, may_end: impl Fn(usize) -> bool) -> Result<(), String> {
    let mut start = 0;
    for (row, end) in ends.iter().enumerate() {
        let end = *end as usize;
        if end < start || end > bytes {
            return Err(format!("row {row} ends outside"));
        }
        if !may_end(end) {
            return Err(format!("row {row} is not UTF-8"));
        }
        start = end;
    }
    (start == bytes)
        .then_some(())
        .ok_or_else(|| "left-over bytes".to_string())
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
    Text(Texts),
    Bytes(Blobs),
    Date(Vec<i32>),
    Time(Vec<u64>),
    Timestamp(Vec<i128>),
    TimestampOffset(Vec<(i128, i16)>),
    Uuid(Vec<[u8; 16]>),
    Json(Texts),
    List(Vec<Vec<Value>>),
    Any(Vec<Value>),
}

fn scale_of(ty: &Type) -> u8 {
    match ty {
        Type::Decimal { scale, .. } => *scale,
        _ => 0,
    }
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
            Type::Text => Values::Text(Texts::default()),
            Type::Bytes => Values::Bytes(Blobs::default()),
            Type::Date => Values::Date(Vec::new()),
            Type::Time => Values::Time(Vec::new()),
            Type::Timestamp(Zone::Naive | Zone::Utc) => Values::Timestamp(Vec::new()),
            Type::Timestamp(Zone::Offset) => Values::TimestampOffset(Vec::new()),
            Type::Uuid => Values::Uuid(Vec::new()),
            Type::Json => Values::Json(Texts::default()),
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
            Values::Text(v) | Values::Json(v) => v.len(),
            Values::Bytes(v) => v.len(),
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
            Values::Text(v) | Values::Json(v) => v.text.len(),
            Values::Bytes(v) => v.bytes.len(),
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

    /// Whether every row has a value or is null.
    pub fn is_told(&self) -> bool {
        self.missing.is_none() && self.unchanged.is_none()
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
        let cell = match &self.values {
            Values::Bool(v) => v.get(row).map(|v| Cell::Bool(*v)),
            Values::I64(v) => v.get(row).map(|v| Cell::I64(*v)),
            Values::U64(v) => v.get(row).map(|v| Cell::U64(*v)),
            Values::F32(v) => v.get(row).map(|v| Cell::F32(*v)),
            Values::F64(v) => v.get(row).map(|v| Cell::F64(*v)),
            Values::Decimal(v) => v.get(row).map(|v| Cell::Decimal(*v, scale_of(ty))),
            Values::Text(v) => (row < v.len()).then(|| Cell::Text(v.get(row))),
            Values::Bytes(v) => (row < v.len()).then(|| Cell::Bytes(v.get(row))),
            Values::Date(v) => v.get(row).map(|v| Cell::Date(*v)),
            Values::Time(v) => v.get(row).map(|v| Cell::Time(*v)),
            Values::Timestamp(v) if *ty == Type::Timestamp(Zone::Utc) => v.get(row).map(|v| Cell::TimestampUtc(*v)),
            Values::Timestamp(v) => v.get(row).map(|v| Cell::Timestamp(*v)),
            Values::TimestampOffset(v) => v.get(row).map(|(v, offset)| Cell::TimestampOffset(*v, *offset)),
            Values::Uuid(v) => v.get(row).map(|v| Cell::Uuid(*v)),
            Values::Json(v) => (row < v.len()).then(|| Cell::Json(v.get(row))),
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
            (Values::Text(v), Cell::Text(x)) | (Values::Json(v), Cell::Json(x)) => v.push(x),
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
        if cell.is_value() && self.is_dense() {
            return Ok(());
        }
        for (bits, hit) in [
            (&mut self.null, matches!(cell, Cell::Null)),
            (&mut self.missing, matches!(cell, Cell::Missing)),
            (&mut self.unchanged, matches!(cell, Cell::Unchanged)),
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
            Values::Text(v) | Values::Json(v) => v.push(""),
            Values::Bytes(v) => v.push(b""),
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
    pub fn take(&self, rows: impl Iterator<Item = usize> + Clone, ty: &Type) -> Self {
        if let Some(values) = self.take_values(rows.clone()) {
            let bits = |bits: &Option<Bits>| bits.as_ref().and_then(|bits| bits.take(rows.clone()));
            return Self {
                values,
                null: bits(&self.null),
                missing: bits(&self.missing),
                unchanged: bits(&self.unchanged),
            };
        }
        let mut out = Column::new(ty);
        for row in rows {
            // A cell of this very column always fits a column of the same type.
            let _ = out.push(self.get(row, ty), ty);
        }
        out
    }

    /// Their packed values, where these can be taken as they are and no row is past the end.
    fn take_values(&self, rows: impl Iterator<Item = usize> + Clone) -> Option<Values> {
        fn chosen<T: Copy>(values: &[T], rows: impl Iterator<Item = usize>) -> Vec<T> {
            let mut out = Vec::with_capacity(rows.size_hint().0);
            out.extend(rows.filter_map(|row| values.get(row).copied()));
            out
        }
        let len = self.len();
        if rows.clone().any(|row| row >= len) {
            return None;
        }
        Some(match &self.values {
            Values::Bool(v) => Values::Bool(chosen(v, rows)),
            Values::I64(v) => Values::I64(chosen(v, rows)),
            Values::U64(v) => Values::U64(chosen(v, rows)),
            Values::F32(v) => Values::F32(chosen(v, rows)),
            Values::F64(v) => Values::F64(chosen(v, rows)),
            Values::Decimal(v) => Values::Decimal(chosen(v, rows)),
            Values::Text(v) => Values::Text(v.take(rows)),
            Values::Json(v) => Values::Json(v.take(rows)),
            Values::Bytes(v) => Values::Bytes(v.take(rows)),
            Values::Date(v) => Values::Date(chosen(v, rows)),
            Values::Time(v) => Values::Time(chosen(v, rows)),
            Values::Timestamp(v) => Values::Timestamp(chosen(v, rows)),
            Values::TimestampOffset(v) => Values::TimestampOffset(chosen(v, rows)),
            Values::Uuid(v) => Values::Uuid(chosen(v, rows)),
            // Their values may say themselves that there is none.
            Values::List(_) | Values::Any(_) => return None,
        })
    }

    /// The same as [`Self::size_hint`], of values that differ in kind by the first few.
    pub(super) fn about_bytes(&self, ty: &Type) -> usize {
        match &self.values {
            Values::List(_) | Values::Any(_) if self.len() > LOOKED_AT_MAX => {
                let some: usize = (0..LOOKED_AT_MAX).map(|row| self.get(row, ty).size_hint()).sum();
                some.saturating_mul(self.len()) / LOOKED_AT_MAX
            }
            _ => self.size_hint(ty),
        }
    }

    /// About how many bytes the column takes on the wire: what the hints of its cells come to.
    pub(super) fn size_hint(&self, ty: &Type) -> usize {
        let (each, content) = match &self.values {
            Values::Bool(_) => (1, 0),
            Values::I64(_) | Values::U64(_) | Values::F32(_) | Values::F64(_) => (8, 0),
            Values::Date(_) | Values::Time(_) => (8, 0),
            Values::Decimal(_) | Values::Timestamp(_) | Values::TimestampOffset(_) => (12, 0),
            Values::Uuid(_) => (16, 0),
            Values::Text(v) | Values::Json(v) => (3, v.text.len()),
            Values::Bytes(v) => (3, v.bytes.len()),
            Values::List(_) | Values::Any(_) => {
                return (0..self.len()).map(|row| self.get(row, ty).size_hint()).sum();
            }
        };
        let absent = self.absent();
        content + self.len().saturating_sub(absent) * each + absent
    }

    /// Rows without a value.
    fn absent(&self) -> usize {
        let mut maps = [&self.null, &self.missing, &self.unchanged].into_iter().flatten();
        let ones = |bytes: &[u8]| bytes.iter().map(|byte| byte.count_ones() as usize).sum();
        match (maps.next(), maps.next(), maps.next()) {
            (None, ..) => 0,
            (Some(only), None, _) => ones(&only.bytes),
            (Some(one), Some(other), third) => {
                let mut either = one.bytes.clone();
                for bits in [Some(other), third].into_iter().flatten() {
                    either.iter_mut().zip(&bits.bytes).for_each(|(all, byte)| *all |= byte);
                }
                ones(&either)
            }
        }
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
            Values::Text(v) | Values::Json(v) => v.check(),
            Values::Bytes(v) => v.check(),
            // Could never be pushed: taking rows would lose such a one.
            Values::List(v) if v.iter().flatten().any(|item| matches!(item, Value::List(_))) => {
                Err("a list inside a list".to_string())
            }
            _ => Ok(()),
        }
    }
}
