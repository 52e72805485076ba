//! Fills one batch from the rows of a statement: typed columns, values borrowed from SQLite and copied once.

use std::str::from_utf8;

use bus_schema::{
    data::{Batch, Cell, Column, Op, Ops, Origin, Type},
    limits::{BATCH_BYTES_TARGET, PAYLOAD_BYTES_MAX, RECORD_BYTES_MAX, ROWS_MAX},
};
use flow::Undecodable;
use rusqlite::{Row, Statement, types::ValueRef};

use super::{
    bookmark::{Bookmark, PLACE_BYTES_MAX, Place},
    layout::Layout,
};

/// A row that would take a batch that has others past this waits for the next: below one envelope, with room for
/// the schema.
const BATCH_BYTES_MAX: usize = PAYLOAD_BYTES_MAX - 2 * 1024;
/// How much of an undecodable value is kept, in bytes.
const UNDECODABLE_BYTES_MAX: usize = 4 * 1024;

/// A batch in the making, and the bookmark after its last row.
pub(super) struct Page<'a> {
    layout: &'a Layout,
    columns: Vec<Column>,
    types: Vec<Type>,
    rows: usize,
    bytes: usize,
    rows_max: usize,
    /// What is not a record.
    pub undecodable: Vec<Undecodable>,
    /// Where to go on after this page.
    pub bookmark: Bookmark,
    /// The page is full: there may be more rows.
    pub full: bool,
}

/// Why a row is not a record.
struct Unfit {
    bytes: Vec<u8>,
    reason: String,
}

impl<'a> Page<'a> {
    /// An empty page of at most `rows_max` rows after `bookmark`.
    pub(super) fn new(layout: &'a Layout, bookmark: Bookmark, rows_max: usize) -> Self {
        let types: Vec<Type> = layout.schema.fields.iter().map(|field| field.ty.clone()).collect();
        Self {
            layout,
            columns: types.iter().map(Column::new).collect(),
            types,
            rows: 0,
            bytes: 0,
            rows_max: rows_max.min(ROWS_MAX),
            undecodable: Vec::new(),
            bookmark,
            full: false,
        }
    }

    /// Most rows that still fit.
    pub(super) fn rows_left(&self) -> usize {
        self.rows_max - self.rows - self.undecodable.len()
    }

    /// Nothing has been read.
    pub(super) fn is_empty(&self) -> bool {
        self.rows == 0 && self.undecodable.is_empty()
    }

    /// Takes rows until there are no more or the page is full. The statement's parameters are bound.
    pub(super) fn fill(&mut self, statement: &mut Statement<'_>) -> rusqlite::Result<()> {
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next()? {
            let bytes = self.size(row)?;
            if bytes <= RECORD_BYTES_MAX && self.rows > 0 && self.bytes + bytes > BATCH_BYTES_MAX {
                self.full = true;
                return Ok(());
            }
            // What is too large is not copied at all.
            let pushed = if bytes <= RECORD_BYTES_MAX {
                self.push(row)?
            } else {
                Ok(())
            };
            let placed = self.mark(row)?;
            let unfit = match pushed {
                _ if !placed => {
                    let reason = format!(
                        "NULL in the cursor column '{}' has no place in its order",
                        self.layout.cursor
                    );
                    Some(Unfit {
                        bytes: self.row_text(row),
                        reason,
                    })
                }
                _ if bytes > RECORD_BYTES_MAX => {
                    let reason = format!("holds {bytes} bytes, and a record holds at most {RECORD_BYTES_MAX}");
                    Some(Unfit {
                        bytes: Vec::new(),
                        reason,
                    })
                }
                Ok(()) => {
                    self.rows += 1;
                    self.bytes += bytes;
                    None
                }
                Err(unfit) => Some(unfit),
            };
            if let Some(unfit) = unfit {
                self.cut();
                self.report(unfit, placed);
            }
            if self.bytes >= BATCH_BYTES_TARGET || self.rows_left() == 0 {
                self.full = true;
                return Ok(());
            }
        }
        Ok(())
    }

    /// About how many bytes the row takes on the wire.
    fn size(&self, row: &Row<'_>) -> rusqlite::Result<usize> {
        let mut bytes = 0;
        for index in 0..self.columns.len() {
            bytes += match row.get_ref(self.layout.leading + index)? {
                ValueRef::Null => 1,
                ValueRef::Integer(_) | ValueRef::Real(_) => 8,
                ValueRef::Text(v) | ValueRef::Blob(v) => v.len() + 3,
            };
        }
        Ok(bytes)
    }

    /// Appends the row's values to the columns. A misfit leaves a half-written row behind.
    fn push(&mut self, row: &Row<'_>) -> rusqlite::Result<Result<(), Unfit>> {
        for index in 0..self.columns.len() {
            let value = row.get_ref(self.layout.leading + index)?;
            let cell = match value {
                ValueRef::Null => Cell::Null,
                ValueRef::Integer(v) => Cell::I64(v),
                ValueRef::Real(v) => Cell::F64(v),
                ValueRef::Blob(v) => Cell::Bytes(v),
                ValueRef::Text(v) => match from_utf8(v) {
                    Ok(text) => Cell::Text(text),
                    Err(_) => {
                        let name = &self.layout.schema.fields[index].name;
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
        for (column, ty) in self
            .columns
            .iter_mut()
            .zip(&self.types)
            .filter(|(column, _)| column.len() > self.rows)
        {
            *column = column.slice(0..self.rows, ty);
        }
    }

    /// Moves the bookmark to this row. `false`: its cursor value is NULL.
    fn mark(&mut self, row: &Row<'_>) -> rusqlite::Result<bool> {
        let rowid = if self.layout.leading > 1 {
            Some(row.get::<_, i64>(1)?)
        } else {
            None
        };
        let placed = Place::set(&mut self.bookmark.place, row.get_ref(0)?);
        if placed {
            self.bookmark.rowid = rowid;
        } else {
            self.bookmark.nulls = rowid;
        }
        Ok(placed)
    }

    /// Whether the bookmark is too long to be stored.
    pub(super) fn place_too_long(&self) -> bool {
        self.bookmark
            .place
            .as_ref()
            .is_some_and(|place| place.len() > PLACE_BYTES_MAX)
    }

    fn report(&mut self, unfit: Unfit, placed: bool) {
        let rowid = if placed {
            self.bookmark.rowid
        } else {
            self.bookmark.nulls
        };
        let place = match (rowid, &self.bookmark.place) {
            (Some(rowid), _) => format!("rowid {rowid}"),
            (None, Some(Place::Integer(at))) => format!("{} {at}", self.layout.cursor),
            (None, Some(Place::Text(at))) => format!("{} {:?}", self.layout.cursor, String::from_utf8_lossy(at)),
            (None, _) => "one row".to_string(),
        };
        self.bytes += unfit.bytes.len();
        let reason = format!("{}, {place}: {}", self.layout.schema.collection, unfit.reason);
        self.undecodable.push(Undecodable {
            bytes: unfit.bytes,
            reason,
        });
    }

    /// The row for a person to recognise.
    fn row_text(&self, row: &Row<'_>) -> Vec<u8> {
        let mut text = String::new();
        for (index, field) in self.layout.schema.fields.iter().enumerate() {
            let value = match row.get_ref(self.layout.leading + index) {
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

    /// The batch.
    pub(super) fn batch(self) -> Result<(Batch, Bookmark, Vec<Undecodable>), String> {
        let mut schema = self.layout.schema.clone();
        if schema.fields.iter().zip(&self.types).any(|(field, ty)| field.ty != *ty) {
            let widened = std::sync::Arc::make_mut(&mut schema);
            for (field, ty) in widened.fields.iter_mut().zip(self.types) {
                field.ty = ty;
            }
        }
        let batch = Batch::new(schema, self.columns, Ops::All(Op::Insert), Origin::default());
        Ok((
            batch.map_err(|error| error.to_string())?,
            self.bookmark,
            self.undecodable,
        ))
    }
}
