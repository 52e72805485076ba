//! Records that programs give, made into batches. A column keeps the type it came with or was declared to have; a value that
//! does not fit is the record's fault. Performs no I/O.

use std::sync::Arc;

use bus_schema::data::{Batch, Cell, Column, Field, Op, Ops, Schema, Type, Value};

use crate::file::{
    json::{JsonError, object},
    rows::{RowError, Rows, Shape, Token},
};

/// What a token of a record is to a column of this type, if it has one; the error continues a sentence about the column.
pub(crate) type Reading = for<'a> fn(Token<'a>, Option<&Type>) -> Result<Token<'a>, String>;

/// The columns that records have here. Outlives batches, so that their schemas agree while the records do.
pub(crate) struct Columns {
    /// What came in, for a transform.
    schema: Option<Arc<Schema>>,
    declared: Vec<(String, Type)>,
    /// Of a column with a type, where it stands in these.
    known: Vec<(String, Type)>,
    shape: Shape,
    reading: Reading,
}

impl Columns {
    pub(crate) fn new(declared: Vec<(String, Type)>, reading: Reading) -> Self {
        Self {
            schema: None,
            reading,
            known: declared.clone(),
            shape: Shape::new(declared.clone()),
            declared,
        }
    }

    /// Records of this schema come in: their columns keep their types, unless others were declared.
    pub(crate) fn follow(&mut self, schema: &Arc<Schema>) {
        if self.schema.as_ref() == Some(schema) {
            return;
        }
        let of = |name: &str| self.declared.iter().find(|(declared, _)| declared == name);
        let came = schema.fields.iter().map(|field| match of(&field.name) {
            Some(declared) => declared.clone(),
            None => (field.name.clone(), field.ty.clone()),
        });
        let others = self.declared.iter().filter(|(name, _)| schema.index_of(name).is_none());
        self.known = came.chain(others.cloned()).collect();
        self.shape = Shape::new(self.known.clone());
        self.schema = Some(Arc::clone(schema));
    }

    /// Names of those that hold JSON.
    pub(crate) fn json(&self) -> impl Iterator<Item = &str> {
        let json = self.known.iter().filter(|(_, ty)| *ty == Type::Json);
        json.map(|(name, _)| name.as_str())
    }

    /// Adds the record of a line, all of it or nothing. `unchanged` columns an update leaves as they were, unless the record
    /// says otherwise.
    pub(crate) fn push<'a>(&mut self, rows: &mut Rows<'a>, line: &'a str, unchanged: &[&str]) -> Result<(), String> {
        let Self {
            known, shape, reading, ..
        } = self;
        let mut guess = 0;
        let read = object(line, |name, token| {
            let is_next = known.get(guess).is_some_and(|(known, _)| known == name);
            let place = if is_next {
                Some(guess)
            } else {
                known.iter().position(|(known, _)| known == name)
            };
            guess = place.map_or(guess, |place| place + 1);
            let token = reading(token, place.map(|place| &known[place].1)).map_err(|cause| RowError::Value {
                column: name.to_string(),
                cause,
            })?;
            rows.set(shape, name, token)
        });
        let cause = match read {
            Ok(()) if rows.has_fields() || !unchanged.is_empty() => {
                for name in unchanged {
                    // Where the record has said something, that holds.
                    let _ = rows.set(shape, name, Token::Value(Value::Unchanged));
                }
                rows.end();
                return Ok(());
            }
            Ok(()) => "it has no columns".to_string(),
            Err(JsonError::Row(error @ RowError::Value { .. })) => {
                format!("{error} (types gives a column another type)")
            }
            Err(error) => error.to_string(),
        };
        rows.undo();
        Err(cause)
    }

    /// The batch of these rows, which a source has read. `ops` has one for each.
    pub(crate) fn batch(&mut self, rows: Rows<'_>, ops: &[Op], collection: &str) -> Result<Batch, String> {
        let made = rows.finish(&mut self.shape, collection)?;
        let schema = Arc::clone(made.schema());
        let batch = Batch::new(schema, made.columns().to_vec(), operations(ops), made.origin().clone());
        batch.map_err(|error| error.to_string())
    }

    /// The batch of these rows, which came from those of `input` with the numbers in `kept`. A column that no record has is
    /// left out, unless it was declared.
    pub(crate) fn changed(&mut self, rows: Rows<'_>, input: &Batch, kept: &[usize]) -> Result<Batch, String> {
        if kept.is_empty() {
            return Ok(input.take(&[]));
        }
        let collection = &input.schema().collection;
        let made = rows.finish(&mut self.shape, collection)?;
        let is_there = |place: usize, field: &Field| {
            let has_one = || (0..made.rows()).any(|row| made.cell(row, place) != Cell::Missing);
            self.declared.iter().any(|(name, _)| *name == field.name) || has_one()
        };
        let (mut fields, mut columns): (Vec<Field>, Vec<Column>) = (Vec::new(), Vec::new());
        for (place, field) in made.schema().fields.iter().enumerate() {
            if !is_there(place, field) {
                continue;
            }
            let came = input.schema().fields.iter().find(|came| came.name == field.name);
            fields.push(Field {
                key: came.is_some_and(|came| came.key),
                ..field.clone()
            });
            columns.push(made.columns()[place].clone());
        }
        let ops: Vec<Op> = kept.iter().map(|row| input.op(*row)).collect();
        let schema = Schema {
            collection: collection.clone(),
            fields,
        };
        Batch::new(schema.into(), columns, operations(&ops), input.origin().clone()).map_err(|error| error.to_string())
    }
}

fn operations(ops: &[Op]) -> Ops {
    match ops.first() {
        Some(first) if ops.iter().any(|op| op != first) => Ops::Each(ops.to_vec()),
        Some(first) => Ops::All(*first),
        None => Ops::All(Op::Insert),
    }
}
