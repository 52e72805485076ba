//! What a joined record looks like: the columns of the first input, then those of the second, and what becomes of those that
//! have the same name.

use std::sync::Arc;

use bus_schema::data::{Cell, Field, Schema, Type, Value};

use super::{SIDES, store::Rules};

/// Where a column's value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    First(usize),
    Second(usize),
    /// A column of the key: whichever is there.
    Either(usize, usize),
}

/// The columns of records joined from two schemas; one that nobody has seen yet has none.
pub(super) struct Shape {
    pub schema: Arc<Schema>,
    from: Vec<From>,
}

impl Shape {
    pub(super) fn new(rules: &Rules, schemas: [Option<Arc<Schema>>; SIDES]) -> Self {
        let [first, second] = &schemas;
        let columns =
            |schema: &Option<Arc<Schema>>| schema.as_ref().map_or_else(Vec::new, |schema| schema.fields.clone());
        let (first, second) = (columns(first), columns(second));
        let [one, two] = &rules.sides;
        let shared = |name: &str| {
            one.key
                .iter()
                .zip(&two.key)
                .any(|(left, right)| left == name && right == name)
        };
        let mut fields: Vec<Field> = Vec::with_capacity(first.len() + second.len());
        let mut from = Vec::with_capacity(first.len() + second.len());
        for (index, field) in first.iter().enumerate() {
            let twin = second.iter().position(|other| other.name == field.name);
            let (ty, place) = match twin.filter(|_| shared(&field.name)) {
                Some(twin) if second[twin].ty == field.ty => (field.ty.clone(), From::Either(index, twin)),
                Some(twin) => (Type::Any, From::Either(index, twin)),
                None => (field.ty.clone(), From::First(index)),
            };
            fields.push(Field::new(field.name.clone(), ty));
            from.push(place);
        }
        for (index, field) in second.iter().enumerate() {
            let is_taken = |name: &str| fields.iter().any(|field| field.name == name);
            if is_taken(&field.name) && shared(&field.name) {
                continue;
            }
            let mut name = field.name.clone();
            // Once is nearly always enough; each time it is longer, and names are finitely many.
            while is_taken(&name) || (name != field.name && second.iter().any(|other| other.name == name)) {
                name = format!("{}_{name}", two.name);
            }
            fields.push(Field::new(name, field.ty.clone()));
            from.push(From::Second(index));
        }
        let schema = Schema {
            collection: rules.node.clone(),
            fields,
        };
        Self {
            schema: Arc::new(schema),
            from,
        }
    }

    /// The cells of a record of these two; nulls for one that is not there.
    pub(super) fn cells<'a>(&self, values: &'a [Option<Vec<Value>>; SIDES]) -> Vec<Cell<'a>> {
        let [first, second] = values;
        let cell = |row: &'a Option<Vec<Value>>, index: usize| match row {
            Some(row) => row.get(index).map_or(Cell::Missing, Value::as_cell),
            None => Cell::Null,
        };
        let place = |from: &From| match *from {
            From::First(index) => cell(first, index),
            From::Second(index) => cell(second, index),
            From::Either(index, _) if first.is_some() => cell(first, index),
            From::Either(_, index) => cell(second, index),
        };
        self.from.iter().map(place).collect()
    }
}
