//! Records on their way into a batch: names become columns, and types are found by looking at what is there. Knows no
//! format; several of them fill it.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use bus_schema::{
    data::{Batch, Cell, Column, Field, Op, Ops, Origin, Schema, Type, Value},
    limits::{BATCH_BYTES_TARGET, COLUMNS_MAX, ROWS_MAX},
};

use super::text::{parse, shorten};

/// Columns remembered from batch to batch; with more than these, only those of the batch itself stay.
const REMEMBERED_COLUMNS_MAX: usize = 256;

/// A value as a format found it, before it has a type.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token<'a> {
    Null,
    Bool(bool),
    /// Digits, perhaps after a minus.
    Integer(&'a str),
    /// A number with a point or an exponent.
    Float(&'a str),
    Text(Cow<'a, str>),
    /// A JSON object or array, as written.
    Nested(&'a str),
    /// Not from the record itself, and typed already.
    Value(Value),
}

/// A typed value, small: a batch holds thousands before their columns are known.
#[derive(Debug, Clone, PartialEq)]
enum Raw<'a> {
    Missing,
    Null,
    Bool(bool),
    I64(i64),
    U64(u64),
    F64(f64),
    Text(&'a str),
    OwnText(Box<str>),
    Json(&'a str),
    Other(Box<Value>),
}

/// Why a record cannot become a row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RowError {
    #[error("the field '{0}' stands in it twice")]
    Twice(String),
    #[error("column '{column}' {cause}")]
    Value { column: String, cause: String },
    /// The batch may have room when it is empty.
    #[error("it has more than {COLUMNS_MAX} fields")]
    TooManyColumns,
}

/// The columns seen so far. Outlives batches, so that their schemas agree while the records do.
#[derive(Debug, Default)]
pub(crate) struct Shape {
    columns: Vec<Known>,
    places: HashMap<String, usize>,
    declared: Vec<(String, Type)>,
}

#[derive(Debug)]
struct Known {
    name: String,
    declared: Option<Type>,
    /// What the last batch with a value had.
    last: Option<Type>,
}

impl Shape {
    /// Declared columns come first and are always there.
    pub(crate) fn new(declared: Vec<(String, Type)>) -> Self {
        let mut shape = Self {
            columns: Vec::new(),
            places: HashMap::new(),
            declared,
        };
        shape.forget();
        shape
    }

    /// Back to what was declared.
    pub(crate) fn forget(&mut self) {
        self.columns.clear();
        self.places.clear();
        for (name, ty) in self.declared.clone() {
            self.places.insert(name.clone(), self.columns.len());
            self.columns.push(Known {
                name,
                declared: Some(ty),
                last: None,
            });
        }
    }

    /// Where a column stands; a new one comes last. `guess` is where it stood in the record before.
    fn place(&mut self, name: &str, guess: usize) -> Option<usize> {
        if self.columns.get(guess).is_some_and(|known| known.name == name) {
            return Some(guess);
        }
        if let Some(place) = self.places.get(name) {
            return Some(*place);
        }
        if self.columns.len() >= COLUMNS_MAX {
            return None;
        }
        self.places.insert(name.to_string(), self.columns.len());
        self.columns.push(Known {
            name: name.to_string(),
            declared: None,
            last: None,
        });
        Some(self.columns.len() - 1)
    }
}

/// The rows of one batch.
pub(crate) struct Rows<'a> {
    columns: Vec<Vec<Raw<'a>>>,
    rows: usize,
    bytes: usize,
    /// Where the next field probably stands: after the one before it.
    guess: usize,
}

impl<'a> Rows<'a> {
    pub(crate) fn new() -> Self {
        Self {
            columns: Vec::new(),
            rows: 0,
            bytes: 0,
            guess: 0,
        }
    }

    /// Whether the row that is being filled has a field.
    pub(crate) fn has_fields(&self) -> bool {
        self.guess > 0
    }

    /// Finished rows.
    pub(crate) fn len(&self) -> usize {
        self.rows
    }

    /// Whether the batch should be closed.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES_TARGET || self.rows >= ROWS_MAX
    }

    /// Whether a record of this size had better begin a new batch.
    pub(crate) fn would_burst(&self, record_bytes: usize) -> bool {
        self.rows > 0 && record_bytes > BATCH_BYTES_TARGET / 4 && self.bytes + record_bytes > BATCH_BYTES_TARGET
    }

    /// Adds a field to the row that is being filled.
    pub(crate) fn set(&mut self, shape: &mut Shape, name: &str, token: Token<'a>) -> Result<(), RowError> {
        let place = shape.place(name, self.guess).ok_or(RowError::TooManyColumns)?;
        self.set_at(shape, place, token)
    }

    /// Adds a field whose column is known.
    fn set_at(&mut self, shape: &Shape, place: usize, token: Token<'a>) -> Result<(), RowError> {
        let known = &shape.columns[place];
        let raw = match &known.declared {
            None => undeclared(token),
            Some(ty) => declared(token, ty).map_err(|cause| RowError::Value {
                column: known.name.clone(),
                cause,
            })?,
        };
        if self.columns.len() <= place {
            self.columns.resize_with(shape.columns.len(), Vec::new);
        }
        let column = &mut self.columns[place];
        if column.len() > self.rows {
            return Err(RowError::Twice(known.name.clone()));
        }
        while column.len() < self.rows {
            column.push(Raw::Missing);
        }
        self.bytes += raw.size_hint();
        column.push(raw);
        self.guess = place + 1;
        Ok(())
    }

    /// The row is complete.
    pub(crate) fn end(&mut self) {
        self.rows += 1;
        self.guess = 0;
    }

    /// Takes the unfinished row back.
    pub(crate) fn undo(&mut self) {
        for column in &mut self.columns {
            column.truncate(self.rows);
        }
        self.guess = 0;
    }

    /// The batch. Its origin is for others to fill in.
    pub(crate) fn finish(mut self, shape: &mut Shape, collection: &str) -> Result<Batch, String> {
        self.columns.resize_with(shape.columns.len(), Vec::new);
        if shape.columns.len() > REMEMBERED_COLUMNS_MAX {
            self.drop_unseen(shape);
        }
        let mut fields = Vec::with_capacity(shape.columns.len());
        let mut columns = Vec::with_capacity(shape.columns.len());
        for (known, raws) in shape.columns.iter_mut().zip(&self.columns) {
            let found = known.declared.clone().or_else(|| common_type(raws));
            let ty = found.clone().or(known.last.take()).unwrap_or(Type::Any);
            known.last = Some(ty.clone());
            columns.push(column(raws, self.rows, &ty)?);
            fields.push(Field::new(&known.name, ty));
        }
        let schema = Schema {
            collection: collection.to_string(),
            fields,
        };
        Batch::new(Arc::new(schema), columns, Ops::All(Op::Insert), Origin::default())
            .map_err(|error| error.to_string())
    }

    fn drop_unseen(&mut self, shape: &mut Shape) {
        let columns = std::mem::take(&mut shape.columns)
            .into_iter()
            .zip(std::mem::take(&mut self.columns));
        let seen = columns.filter(|(known, raws)| known.declared.is_some() || !raws.is_empty());
        (shape.columns, self.columns) = seen.unzip();
        shape.places = shape
            .columns
            .iter()
            .enumerate()
            .map(|(place, known)| (known.name.clone(), place))
            .collect();
    }
}

/// A batch of no rows, to carry a position or undecodable input.
pub(crate) fn empty(collection: &str) -> Batch {
    let schema = Schema {
        collection: collection.to_string(),
        fields: Vec::new(),
    };
    bus_schema::data::BatchBuilder::new(Arc::new(schema)).finish(Origin::default())
}

impl Raw<'_> {
    fn size_hint(&self) -> usize {
        match self {
            Raw::Text(text) | Raw::Json(text) => text.len() + 3,
            Raw::OwnText(text) => text.len() + 3,
            Raw::Other(value) => value.as_cell().size_hint(),
            Raw::Missing | Raw::Null | Raw::Bool(_) => 1,
            Raw::I64(_) | Raw::U64(_) | Raw::F64(_) => 8,
        }
    }

    fn type_of(&self) -> Option<Type> {
        Some(match self {
            Raw::Missing | Raw::Null => return None,
            Raw::Bool(_) => Type::Bool,
            Raw::I64(_) => Type::I64,
            Raw::U64(_) => Type::U64,
            Raw::F64(_) => Type::F64,
            Raw::Text(_) | Raw::OwnText(_) => Type::Text,
            Raw::Json(_) => Type::Json,
            Raw::Other(value) => return value.as_cell().type_of(),
        })
    }

    fn cell(&self) -> Cell<'_> {
        match self {
            Raw::Missing => Cell::Missing,
            Raw::Null => Cell::Null,
            Raw::Bool(v) => Cell::Bool(*v),
            Raw::I64(v) => Cell::I64(*v),
            Raw::U64(v) => Cell::U64(*v),
            Raw::F64(v) => Cell::F64(*v),
            Raw::Text(v) => Cell::Text(v),
            Raw::OwnText(v) => Cell::Text(v),
            Raw::Json(v) => Cell::Json(v),
            Raw::Other(v) => v.as_cell(),
        }
    }
}

/// A value keeps the type it was written in. Integers are exact at any length; a number with a point or an exponent is the
/// nearest `f64`, and beyond the range of `f64` stays JSON.
fn undeclared(token: Token<'_>) -> Raw<'_> {
    match token {
        Token::Null => Raw::Null,
        Token::Bool(v) => Raw::Bool(v),
        Token::Text(Cow::Borrowed(v)) => Raw::Text(v),
        Token::Text(Cow::Owned(v)) => Raw::OwnText(v.into()),
        Token::Nested(v) => Raw::Json(v),
        Token::Value(v) => typed(v),
        // The only integer that has no i64: negative zero.
        Token::Integer("-0") => Raw::F64(-0.0),
        Token::Integer(v) => integer(v),
        Token::Float(v) => match v.parse::<f64>() {
            Ok(float) if float.is_finite() => Raw::F64(float),
            _ => Raw::Json(v),
        },
    }
}

fn integer(digits: &str) -> Raw<'_> {
    if let Ok(value) = digits.parse() {
        return Raw::I64(value);
    }
    if let Ok(value) = digits.parse() {
        return Raw::U64(value);
    }
    match digits.parse() {
        Ok(units) => Raw::Other(Box::new(Value::Decimal(units, 0))),
        Err(_) => Raw::Json(digits),
    }
}

fn declared<'a>(token: Token<'a>, ty: &Type) -> Result<Raw<'a>, String> {
    let text: &str = match (&token, ty) {
        (Token::Null, _) => return Ok(Raw::Null),
        (Token::Value(v), _) => return Ok(typed(v.clone())),
        // What is declared as JSON or text is taken as it is written.
        (Token::Integer(raw) | Token::Float(raw) | Token::Nested(raw), Type::Json) => return Ok(Raw::Json(raw)),
        (Token::Integer(raw) | Token::Float(raw) | Token::Nested(raw), Type::Text) => return Ok(Raw::Text(raw)),
        (Token::Bool(v), Type::Bool) => return Ok(Raw::Bool(*v)),
        (Token::Bool(v), Type::Json) => return Ok(Raw::Json(if *v { "true" } else { "false" })),
        (Token::Bool(v), _) => {
            if *v {
                "true"
            } else {
                "false"
            }
        }
        (Token::Text(_), Type::Text) => return Ok(undeclared(token)),
        (Token::Text(v), _) => v,
        (Token::Integer(v) | Token::Float(v), _) => v,
        (Token::Nested(v), _) => return Err(format!("is JSON '{}', which is not a value of type {ty}", shorten(v))),
    };
    parse(text, ty).map(typed)
}

fn typed<'a>(value: Value) -> Raw<'a> {
    match value {
        Value::Bool(v) => Raw::Bool(v),
        Value::I64(v) => Raw::I64(v),
        Value::U64(v) => Raw::U64(v),
        Value::F64(v) => Raw::F64(v),
        value => Raw::Other(Box::new(value)),
    }
}

/// The type all values share; integers of both kinds are `u64` when none is negative. `None` when there is no value.
fn common_type(raws: &[Raw<'_>]) -> Option<Type> {
    let mut common: Option<Type> = None;
    let mut any_negative = false;
    for raw in raws {
        any_negative |= matches!(raw, Raw::I64(v) if *v < 0);
        // Nearly always the same as before: no type is made for that.
        let same = matches!(
            (raw, &common),
            (Raw::Missing | Raw::Null, _)
                | (Raw::Bool(_), Some(Type::Bool))
                | (Raw::I64(_), Some(Type::I64 | Type::U64))
                | (Raw::U64(_), Some(Type::U64))
                | (Raw::F64(_), Some(Type::F64))
                | (Raw::Text(_) | Raw::OwnText(_), Some(Type::Text))
                | (Raw::Json(_), Some(Type::Json))
        );
        if same {
            continue;
        }
        common = match (common, raw.type_of()) {
            (None, found) => found,
            (Some(Type::I64), Some(Type::U64)) => Some(Type::U64),
            (common, found) if common == found => common,
            _ => return Some(Type::Any),
        };
    }
    if common == Some(Type::U64) && any_negative {
        Some(Type::Any)
    } else {
        common
    }
}

fn column(raws: &[Raw<'_>], rows: usize, ty: &Type) -> Result<Column, String> {
    let mut column = Column::new(ty);
    for raw in raws {
        let cell = match (raw, ty) {
            (Raw::I64(v), Type::U64) => Cell::U64(v.unsigned_abs()),
            (raw, _) => raw.cell(),
        };
        column.push(cell, ty).map_err(|error| error.to_string())?;
    }
    for _ in raws.len()..rows {
        column.push(Cell::Missing, ty).map_err(|error| error.to_string())?;
    }
    Ok(column)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(shape: &mut Shape, rows: &[&[(&'static str, Token<'static>)]]) -> Batch {
        let mut out = Rows::new();
        for row in rows {
            for (name, token) in *row {
                out.set(shape, name, token.clone()).unwrap();
            }
            out.end();
        }
        out.finish(shape, "t").unwrap()
    }

    fn schema(batch: &Batch) -> String {
        let fields = batch.schema().fields.iter();
        fields
            .map(|field| format!("{}:{}", field.name, field.ty))
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn types_are_those_of_the_values() {
        use Token::{Bool, Float, Integer, Nested, Null};
        for (tokens, wanted) in [
            (vec![Integer("1"), Null, Integer("-2")], "x:i64"),
            (vec![Integer("18446744073709551615"), Integer("1")], "x:u64"),
            (vec![Integer("1"), Integer("18446744073709551615")], "x:u64"),
            (vec![Integer("18446744073709551615"), Integer("-1")], "x:any"),
            (vec![Integer("18446744073709551616")], "x:decimal(*,0)"),
            (vec![Integer("999999999999999999999999999999999999999999")], "x:json"),
            (vec![Integer("-0")], "x:f64"),
            (vec![Float("1.5"), Float("1e3")], "x:f64"),
            (vec![Float("1e999")], "x:json"),
            (vec![Integer("1"), Float("1.5")], "x:any"),
            (vec![Bool(true), Null], "x:bool"),
            (
                vec![Token::Text("a".into()), Token::Text(String::from("b").into())],
                "x:text",
            ),
            (vec![Nested("{}"), Nested("[]")], "x:json"),
            (vec![Nested("{}"), Integer("1")], "x:any"),
            (vec![Null], "x:any"),
        ] {
            let mut rows = Rows::new();
            let mut shape = Shape::default();
            for token in &tokens {
                rows.set(&mut shape, "x", token.clone()).unwrap();
                rows.end();
            }
            assert_eq!(schema(&rows.finish(&mut shape, "t").unwrap()), wanted, "{tokens:?}");
        }
    }

    #[test]
    fn missing_null_and_order() {
        let mut shape = Shape::default();
        let one = Token::Integer("1");
        let first = batch(
            &mut shape,
            &[
                &[("a", one.clone())],
                &[("b", Token::Null), ("a", one.clone())],
                &[("c", one.clone())],
            ],
        );
        assert_eq!(schema(&first), "a:i64 b:any c:i64");
        assert_eq!(
            [first.cell(0, 1), first.cell(1, 1), first.cell(2, 0)],
            [Cell::Missing, Cell::Null, Cell::Missing]
        );
        // The next batch keeps the columns, and the types of those that have no value in it.
        let second = batch(&mut shape, &[&[("b", Token::Bool(true))]]);
        assert_eq!(schema(&second), "a:i64 b:bool c:i64");
        assert_eq!(second.cell(0, 0), Cell::Missing);
    }

    #[test]
    fn declared_types_are_kept() {
        let types = [
            ("n", Type::F64),
            ("d", Type::Decimal { precision: 9, scale: 2 }),
            ("t", Type::Text),
            ("j", Type::Json),
        ];
        let mut shape = Shape::new(types.map(|(name, ty)| (name.to_string(), ty)).to_vec());
        let one = Token::Integer("1");
        let made = batch(
            &mut shape,
            &[&[
                ("n", one.clone()),
                ("d", Token::Float("1.50")),
                ("t", Token::Nested("[1]")),
                ("j", one.clone()),
            ]],
        );
        assert_eq!(schema(&made), "n:f64 d:decimal(9,2) t:text j:json");
        let cells = [
            Cell::F64(1.0),
            Cell::Decimal(150, 2),
            Cell::Text("[1]"),
            Cell::Json("1"),
        ];
        assert_eq!([0, 1, 2, 3].map(|column| made.cell(0, column)), cells);
        let mut rows = Rows::new();
        for (column, token) in [
            ("n", Token::Text("x".into())),
            ("n", Token::Nested("{}")),
            ("d", Token::Float("1.555")),
        ] {
            let refused = rows.set(&mut shape, column, token).unwrap_err();
            assert!(
                refused.to_string().starts_with(&format!("column '{column}' is ")),
                "{refused}"
            );
            rows.undo();
        }
        assert_eq!(
            schema(&rows.finish(&mut shape, "t").unwrap()),
            "n:f64 d:decimal(9,2) t:text j:json"
        );
    }

    #[test]
    fn a_row_is_whole_or_not_there() {
        let mut shape = Shape::default();
        let mut rows = Rows::new();
        rows.set(&mut shape, "a", Token::Bool(true)).unwrap();
        rows.end();
        rows.set(&mut shape, "b", Token::Bool(true)).unwrap();
        assert_eq!(rows.set(&mut shape, "b", Token::Null), Err(RowError::Twice("b".into())));
        rows.undo();
        rows.set(&mut shape, "a", Token::Bool(false)).unwrap();
        rows.end();
        let made = rows.finish(&mut shape, "t").unwrap();
        assert_eq!(
            (made.rows(), made.cell(1, 0), made.cell(1, 1)),
            (2, Cell::Bool(false), Cell::Missing)
        );
    }

    #[test]
    fn columns_are_bounded() {
        let mut shape = Shape::default();
        let mut rows = Rows::new();
        for index in 0..COLUMNS_MAX {
            rows.set(&mut shape, &format!("c{index}"), Token::Null).unwrap();
        }
        assert_eq!(rows.set(&mut shape, "more", Token::Null), Err(RowError::TooManyColumns));
        rows.undo();
        rows.set(&mut shape, "c7", Token::Bool(true)).unwrap();
        rows.end();
        assert_eq!(rows.finish(&mut shape, "t").unwrap().schema().fields.len(), 1);
        let mut rows = Rows::new();
        rows.set(&mut shape, "more", Token::Bool(true)).unwrap();
        rows.end();
        assert_eq!(schema(&rows.finish(&mut shape, "t").unwrap()), "c7:bool more:bool");
    }
}
