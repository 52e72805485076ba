//! A batch of records: schema, columns, what each row does, and where it came from.

use alloc::{
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};
use core::ops::Range;

use postcard::{de_flavors::Flavor, ser_flavors};
use serde::{Deserialize, Serialize};

use super::{
    column::{Column, TypeMismatch},
    value::{Cell, Type},
};
use crate::limits::{BATCH_FORM_BYTES_MAX, COLUMNS_MAX, ROWS_MAX};

/// Bytes are not a batch, or rows do not make one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Not postcard of a batch.
    #[error("the bytes are not a batch: {0}")]
    Malformed(postcard::Error),
    /// Decoded, but its parts contradict each other.
    #[error("the batch contradicts itself: {0}")]
    Inconsistent(String),
    /// More rows or columns than allowed.
    #[error("a batch holds at most {ROWS_MAX} rows and {COLUMNS_MAX} columns")]
    TooLarge,
    /// A value does not fit its column.
    #[error("column '{column}': {cause}")]
    Type {
        /// The column.
        column: String,
        /// What does not fit.
        cause: TypeMismatch,
    },
    /// A row has another number of values than there are columns.
    #[error("a row of {found} values for {wanted} columns")]
    Width {
        /// Columns in the schema.
        wanted: usize,
        /// Values in the row.
        found: usize,
    },
}

/// One column of a schema.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Field {
    /// Name, as the source has it.
    pub name: String,
    /// Type of its values.
    pub ty: Type,
    /// Whether null may occur.
    pub nullable: bool,
    /// Whether it is part of the key that identifies a record.
    pub key: bool,
}

impl Field {
    /// A nullable column that is not part of the key.
    pub fn new(name: impl Into<String>, ty: Type) -> Self {
        Self {
            name: name.into(),
            ty,
            nullable: true,
            key: false,
        }
    }

    /// The same column as part of the key.
    #[must_use]
    pub fn key(mut self) -> Self {
        self.key = true;
        self
    }
}

/// The columns of a batch and the collection they belong to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Schema {
    /// Table, topic or file the records come from.
    pub collection: String,
    /// The columns, in order.
    pub fields: Vec<Field>,
}

impl Schema {
    /// Where a column stands.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }
}

/// What a record does at the destination. Variants are only ever appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// A new record.
    Insert,
    /// A changed record, known by its key.
    Update,
    /// A removed record, known by its key.
    Delete,
    /// Insert or update by key.
    Upsert,
}

/// The operations of a batch; nearly always the same for every row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ops {
    /// Every row.
    All(Op),
    /// Row by row.
    Each(Vec<Op>),
}

/// When and where a batch was read. Clocks are advisory; boot and uptime order batches even when the clock lies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The source component's id in its workflow.
    pub source: String,
    /// The producing daemon's epoch.
    pub boot: u64,
    /// Milliseconds since that daemon started.
    pub uptime_ms: u64,
    /// The daemon's wall clock, milliseconds since 1970.
    pub unix_ms: i64,
}

/// Typed records, column by column. Always consistent: constructors check.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    schema: Arc<Schema>,
    /// Shared: a batch on its way through a pipe is cloned for every leaf and every retry, and may be large.
    columns: Arc<[Column]>,
    rows: usize,
    ops: Ops,
    origin: Origin,
}

/// The wire form, version 1. Frozen.
#[derive(Serialize)]
struct WireRef<'a> {
    schema: &'a Schema,
    rows: u32,
    columns: &'a [Column],
    ops: &'a Ops,
    origin: &'a Origin,
}

#[derive(Deserialize)]
struct Wire {
    schema: Schema,
    rows: u32,
    columns: Vec<Column>,
    ops: Ops,
    origin: Origin,
}

impl Batch {
    /// Puts columns together. Fails when they do not match the schema.
    pub fn new(schema: Arc<Schema>, columns: Vec<Column>, ops: Ops, origin: Origin) -> Result<Self, BatchError> {
        let rows = columns.first().map_or(0, Column::len);
        Self {
            schema,
            columns: columns.into(),
            rows,
            ops,
            origin,
        }
        .checked()
    }

    fn checked(self) -> Result<Self, BatchError> {
        let wrong = BatchError::Inconsistent;
        if self.rows > ROWS_MAX || self.columns.len() > COLUMNS_MAX {
            return Err(BatchError::TooLarge);
        }
        if self.schema.fields.len() != self.columns.len() {
            return Err(wrong("columns and schema differ in number".to_string()));
        }
        if self.columns.is_empty() && self.rows > 0 {
            return Err(wrong("rows without columns".to_string()));
        }
        if let Ops::Each(ops) = &self.ops
            && ops.len() != self.rows
        {
            return Err(wrong("operations and rows differ in number".to_string()));
        }
        for (field, column) in self.schema.fields.iter().zip(self.columns.iter()) {
            column
                .check(self.rows, &field.ty)
                .map_err(|cause| wrong(alloc::format!("'{}': {cause}", field.name)))?;
        }
        Ok(self)
    }

    /// Number of records.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns and collection.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// The columns, in schema order.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// One value. Missing when there is no such row or column.
    pub fn cell(&self, row: usize, column: usize) -> Cell<'_> {
        match (self.columns.get(column), self.schema.fields.get(column)) {
            (Some(values), Some(field)) => values.get(row, &field.ty),
            _ => Cell::Missing,
        }
    }

    /// What one row does.
    pub fn op(&self, row: usize) -> Op {
        match &self.ops {
            Ops::All(op) => *op,
            Ops::Each(ops) => ops.get(row).copied().unwrap_or(Op::Insert),
        }
    }

    /// The operations.
    pub fn ops(&self) -> &Ops {
        &self.ops
    }

    /// Where the batch was read.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The same records with another origin.
    #[must_use]
    pub fn with_origin(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }

    /// The chosen rows, in the order given.
    #[must_use]
    pub fn take(&self, rows: &[usize]) -> Self {
        let columns = self.columns.iter().zip(&self.schema.fields);
        Self {
            schema: Arc::clone(&self.schema),
            columns: columns
                .map(|(column, field)| column.take(rows.iter().copied(), &field.ty))
                .collect(),
            rows: rows.len(),
            ops: match &self.ops {
                Ops::All(op) => Ops::All(*op),
                Ops::Each(_) => Ops::Each(rows.iter().map(|row| self.op(*row)).collect()),
            },
            origin: self.origin.clone(),
        }
    }

    /// A run of rows; the range is cut to what is there.
    #[must_use]
    pub fn slice(&self, rows: Range<usize>) -> Self {
        let rows: Vec<usize> = (rows.start..rows.end.min(self.rows)).collect();
        self.take(&rows)
    }

    /// The same rows under another schema and columns: what transforms return.
    pub fn with_columns(&self, schema: Arc<Schema>, columns: Vec<Column>) -> Result<Self, BatchError> {
        Self {
            schema,
            columns: columns.into(),
            rows: self.rows,
            ops: self.ops.clone(),
            origin: self.origin.clone(),
        }
        .checked()
    }

    /// Wire bytes.
    pub fn encode(&self) -> Vec<u8> {
        let wire = WireRef {
            schema: &self.schema,
            rows: self.rows as u32,
            columns: &self.columns,
            ops: &self.ops,
            origin: &self.origin,
        };
        // Room for the content at once: growing would copy a large record, and hold it twice meanwhile.
        let room = Vec::with_capacity(self.content_bytes() + FORM_BYTES_USUAL);
        postcard::serialize_with_flavor(&wire, Append(room))
            .expect("a batch holds only types postcard can write, into memory")
    }

    /// About how many bytes it takes on the wire: what the hints of its cells come to.
    pub fn size_hint(&self) -> usize {
        let columns = self.columns.iter().zip(&self.schema.fields);
        columns.map(|(column, field)| column.size_hint(&field.ty)).sum()
    }

    /// The same at the cost of a few rows: columns whose values differ in kind are judged by the first of them.
    pub fn about_bytes(&self) -> usize {
        let columns = self.columns.iter().zip(&self.schema.fields);
        columns.map(|(column, field)| column.about_bytes(&field.ty)).sum()
    }

    /// Bytes of the content of texts and bytes. An encoded batch takes this and its form.
    fn content_bytes(&self) -> usize {
        self.columns.iter().map(Column::content_bytes).sum()
    }

    /// Whether these wire bytes of this batch can be read by others: not too much besides content. A batch that does not
    /// fit can be split by rows.
    pub fn form_fits(&self, encoded: &[u8]) -> bool {
        encoded.len().saturating_sub(self.content_bytes()) <= BATCH_FORM_BYTES_MAX
    }

    /// Reads wire bytes. Anything but a consistent batch is refused. Takes memory for the content and for at most
    /// [`BATCH_FORM_BYTES_MAX`] bytes of form.
    pub fn decode(bytes: &[u8]) -> Result<Self, BatchError> {
        let mut reader = postcard::Deserializer::from_flavor(Frugal {
            bytes,
            form_left: BATCH_FORM_BYTES_MAX,
        });
        let wire = Wire::deserialize(&mut reader).map_err(BatchError::Malformed)?;
        let left_over = reader.finalize().map_err(BatchError::Malformed)?;
        if !left_over.is_empty() {
            return Err(BatchError::Malformed(postcard::Error::DeserializeBadEncoding));
        }
        let Wire {
            schema,
            rows,
            columns,
            ops,
            origin,
        } = wire;
        Self {
            schema: Arc::new(schema),
            columns: columns.into(),
            rows: rows as usize,
            ops,
            origin,
        }
        .checked()
    }
}

/// Bytes of form of an ordinary batch: the schema and some hundred small values.
const FORM_BYTES_USUAL: usize = 4 * 1024;

/// Hands out the bytes of a batch, singly only so many: whatever takes more memory than wire comes singly.
struct Frugal<'de> {
    bytes: &'de [u8],
    form_left: usize,
}

impl<'de> Flavor<'de> for Frugal<'de> {
    type Remainder = &'de [u8];
    type Source = &'de [u8];

    fn pop(&mut self) -> postcard::Result<u8> {
        let (first, rest) = self
            .bytes
            .split_first()
            .ok_or(postcard::Error::DeserializeUnexpectedEnd)?;
        self.form_left = self
            .form_left
            .checked_sub(1)
            .ok_or(postcard::Error::DeserializeBadEncoding)?;
        self.bytes = rest;
        Ok(*first)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.bytes.len())
    }

    fn try_take_n(&mut self, count: usize) -> postcard::Result<&'de [u8]> {
        let taken = self.bytes.split_at_checked(count);
        let (taken, rest) = taken.ok_or(postcard::Error::DeserializeUnexpectedEnd)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn finalize(self) -> postcard::Result<&'de [u8]> {
        Ok(self.bytes)
    }
}

/// Writes into memory that is there already. Postcard's own ways grow from nothing, or byte by byte.
struct Append(Vec<u8>);

impl ser_flavors::Flavor for Append {
    type Output = Vec<u8>;

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<Vec<u8>> {
        Ok(self.0)
    }
}

/// Collects rows into a batch.
#[derive(Debug)]
pub struct BatchBuilder {
    schema: Arc<Schema>,
    columns: Vec<Column>,
    ops: Vec<Op>,
    bytes: usize,
}

impl BatchBuilder {
    /// An empty batch of this schema.
    pub fn new(schema: Arc<Schema>) -> Self {
        let columns = schema.fields.iter().map(|field| Column::new(&field.ty)).collect();
        Self {
            schema,
            columns,
            ops: Vec::new(),
            bytes: 0,
        }
    }

    /// Appends a row, all of it or nothing.
    pub fn push<'a>(&mut self, op: Op, cells: &[Cell<'a>]) -> Result<(), BatchError> {
        if cells.len() != self.columns.len() {
            return Err(BatchError::Width {
                wanted: self.columns.len(),
                found: cells.len(),
            });
        }
        for (index, cell) in cells.iter().enumerate() {
            let field = &self.schema.fields[index];
            if let Err(cause) = self.columns[index].push(*cell, &field.ty) {
                let column = field.name.clone();
                self.cut_row(index);
                return Err(BatchError::Type { column, cause });
            }
        }
        self.bytes += cells.iter().map(Cell::size_hint).sum::<usize>();
        self.ops.push(op);
        Ok(())
    }

    /// Takes the half-written last row off the first `written` columns.
    fn cut_row(&mut self, written: usize) {
        let rows = self.ops.len();
        for (column, field) in self.columns.iter_mut().zip(&self.schema.fields).take(written) {
            *column = column.slice(0..rows, &field.ty);
        }
    }

    /// Rows so far.
    pub fn rows(&self) -> usize {
        self.ops.len()
    }

    /// About how many bytes the batch will take on the wire.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The batch.
    pub fn finish(self, origin: Origin) -> Batch {
        let rows = self.ops.len();
        let ops = match self.ops.first() {
            Some(first) if self.ops.iter().all(|op| op == first) => Ops::All(*first),
            Some(_) => Ops::Each(self.ops),
            None => Ops::All(Op::Insert),
        };
        Batch {
            schema: self.schema,
            columns: self.columns.into(),
            rows,
            ops,
            origin,
        }
    }
}
