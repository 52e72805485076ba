//! Fills one batch from the rows of a statement: typed columns, values borrowed from SQLite and copied once. Knows neither
//! cursors nor journals: whoever reads says where in a row the values stand, and what the row is.

use std::{str::from_utf8, sync::Arc};

use bus_schema::{
    data::{Batch, Cell, Column, Op, Ops, Origin, Schema, Type},
    limits::{BATCH_BYTES_TARGET, PAYLOAD_BYTES_MAX, RECORD_BYTES_MAX, ROWS_MAX},
};
use flow::Undecodable;
use rusqlite::{Row, types::ValueRef};

/// A row that would take a batch that has others past this waits for the next: below one envelope, with room for
/// the schema.
const BATCH_BYTES_MAX: usize = PAYLOAD_BYTES_MAX - 2 * 1024;
/// How much of an undecodable value is kept, in bytes.
const UNDECODABLE_BYTES_MAX: usize = 4 * 1024;

/// A batch in the making.
pub(super) struct Page {
    schema: Arc<Schema>,
    columns: Vec<Column>,
    types: Vec<Type>,
    ops: Vec<Op>,
    bytes: usize,
    rows_max: usize,
    undecodable: Vec<Undecodable>,
}

/// What became of a row.
pub(super) enum Taken {
    /// It is a record of the page.
    Record,
    /// It is no record.
    Unfit(Unfit),
    /// The page has no room for it: it is one for the next.
    Waits,
}

/// Why a row is not a record.
pub(super) struct Unfit {
    /// What a person gets to see of it.
    pub bytes: Vec<u8>,
    /// What is wrong with it.
    pub reason: String,
}

impl Page {
    /// An empty page of at most `rows_max` rows.
    pub(super) fn new(schema: &Arc<Schema>, rows_max: usize) -> Self {
        let types: Vec<Type> = schema.fields.iter().map(|field| field.ty.clone()).collect();
        Self {
            schema: Arc::clone(schema),
            columns: types.iter().map(Column::new).collect(),
            types,
            ops: Vec::new(),
            bytes: 0,
            rows_max: rows_max.min(ROWS_MAX),
            undecodable: Vec::new(),
        }
    }

    /// Most rows that still fit.
    pub(super) fn rows_left(&self) -> usize {
        self.rows_max.saturating_sub(self.ops.len() + self.undecodable.len())
    }

    /// Nothing has been read.
    pub(super) fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.undecodable.is_empty()
    }

    /// Nothing more goes in.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES_TARGET || self.rows_left() == 0
    }

    /// Takes a row whose values begin at column `first` of the statement. What it `has` not is missing in the record.
    pub(super) fn take(
        &mut self,
        op: Op,
        row: &Row<'_>,
        first: usize,
        has: impl Fn(usize) -> bool,
    ) -> rusqlite::Result<Taken> {
        let bytes = self.size(row, first, &has)?;
        if bytes > RECORD_BYTES_MAX {
            // What is too large is not copied at all.
            let reason = format!("holds {bytes} bytes, and a record holds at most {RECORD_BYTES_MAX}");
            let bytes = Vec::new();
            return Ok(Taken::Unfit(Unfit { bytes, reason }));
        }
        if !self.ops.is_empty() && self.bytes + bytes > BATCH_BYTES_MAX {
            return Ok(Taken::Waits);
        }
        if let Err(unfit) = self.push(row, first, &has)? {
            self.cut();
            return Ok(Taken::Unfit(unfit));
        }
        self.ops.push(op);
        self.bytes += bytes;
        Ok(Taken::Record)
    }

    /// Something that is no record; `place` says where it stood.
    pub(super) fn refuse(&mut self, unfit: Unfit, place: &str) {
        self.bytes += unfit.bytes.len();
        self.undecodable.push(Undecodable {
            bytes: unfit.bytes,
            reason: format!("{}, {place}: {}", self.schema.collection, unfit.reason),
        });
    }

    /// About how many bytes the row takes on the wire.
    fn size(&self, row: &Row<'_>, first: usize, has: impl Fn(usize) -> bool) -> rusqlite::Result<usize> {
        let mut bytes = 0;
        for index in 0..self.columns.len() {
            bytes += match row.get_ref(first + index)? {
                _ if !has(index) => 1,
                ValueRef::Null => 1,
                ValueRef::Integer(_) | ValueRef::Real(_) => 8,
                ValueRef::Text(v) | ValueRef::Blob(v) => v.len() + 3,
            };
        }
        Ok(bytes)
    }

    /// Appends the row's values to the columns. A misfit leaves a half-written row behind.
    fn push(
        &mut self,
        row: &Row<'_>,
        first: usize,
        has: impl Fn(usize) -> bool,
    ) -> rusqlite::Result<Result<(), Unfit>> {
        for index in 0..self.columns.len() {
            let value = row.get_ref(first + index)?;
            let cell = match value {
                _ if !has(index) => Cell::Missing,
                ValueRef::Null => Cell::Null,
                ValueRef::Integer(v) => Cell::I64(v),
                ValueRef::Real(v) => Cell::F64(v),
                ValueRef::Blob(v) => Cell::Bytes(v),
                ValueRef::Text(v) => match from_utf8(v) {
                    Ok(text) => Cell::Text(text),
                    Err(_) => {
                        let name = &self.schema.fields[index].name;
                        let bytes = v[..v.len().min(UNDECODABLE_BYTES_MAX)].to_vec();
                        let reason = format!("column '{name}' holds text that is not UTF-8");
                        return Ok(Err(Unfit { bytes, reason }));
                    }
                },
            };
            if self.columns[index].push(cell, &self.types[index]).is_err() {
                self.widen(index);
                // A column of any type takes every value SQLite has.
                let _ = self.columns[index].push(cell, &Type::Any);
            }
        }
        Ok(Ok(()))
    }

    /// A value of another type than declared: the column of this batch says row by row what it holds.
    fn widen(&mut self, index: usize) {
        let mut any = Column::new(&Type::Any);
        for row in 0..self.columns[index].len() {
            let _ = any.push(self.columns[index].get(row, &self.types[index]), &Type::Any);
        }
        self.columns[index] = any;
        self.types[index] = Type::Any;
    }

    /// Takes whatever was written of the last row off the columns.
    fn cut(&mut self) {
        let rows = self.ops.len();
        for (column, ty) in self.columns.iter_mut().zip(&self.types) {
            if column.len() > rows {
                *column = column.slice(0..rows, ty);
            }
        }
    }

    /// The row for a person to recognise.
    pub(super) fn row_text(&self, row: &Row<'_>, first: usize) -> Vec<u8> {
        let mut text = String::new();
        for (index, field) in self.schema.fields.iter().enumerate() {
            let value = match row.get_ref(first + index) {
                Ok(ValueRef::Integer(v)) => v.to_string(),
                Ok(ValueRef::Real(v)) => format!("{v:?}"),
                Ok(ValueRef::Text(v)) => format!("{:?}", String::from_utf8_lossy(v)),
                Ok(ValueRef::Blob(v)) => format!("{} bytes", v.len()),
                Ok(ValueRef::Null) | Err(_) => "NULL".to_string(),
            };
            text.push_str(&format!("{}{}={value}", if index > 0 { ", " } else { "" }, field.name));
            if text.len() > UNDECODABLE_BYTES_MAX {
                break;
            }
        }
        let mut bytes = text.into_bytes();
        bytes.truncate(UNDECODABLE_BYTES_MAX);
        bytes
    }

    /// The batch, and what is not in it.
    pub(super) fn batch(self) -> Result<(Batch, Vec<Undecodable>), String> {
        let mut schema = self.schema;
        if schema.fields.iter().zip(&self.types).any(|(field, ty)| field.ty != *ty) {
            let widened = Arc::make_mut(&mut schema);
            for (field, ty) in widened.fields.iter_mut().zip(self.types) {
                field.ty = ty;
            }
        }
        let ops = match self.ops.first() {
            Some(first) if self.ops.iter().any(|op| op != first) => Ops::Each(self.ops),
            first => Ops::All(first.copied().unwrap_or(Op::Insert)),
        };
        let batch = Batch::new(schema, self.columns, ops, Origin::default()).map_err(|error| error.to_string())?;
        Ok((batch, self.undecodable))
    }
}
