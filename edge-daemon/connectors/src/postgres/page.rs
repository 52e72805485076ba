//! Fills one batch from rows as a database writes them: typed columns, each value copied once. Reads no connection, and knows
//! no database: what the text of a value means, a [`Written`] says.

use std::sync::Arc;

use bus_schema::{
    data::{Batch, Cell, Column, Op, Ops, Origin, Schema, Type},
    limits::{BATCH_BYTES_TARGET, PAYLOAD_BYTES_MAX, RECORD_BYTES_MAX, ROWS_MAX},
};
use flow::Undecodable;

/// A row that would take a batch that has others past this waits for the next: below one envelope, with room for
/// the schema.
const BATCH_BYTES_MAX: usize = PAYLOAD_BYTES_MAX - 2 * 1024;
/// How much of an undecodable row is kept, in bytes.
const UNDECODABLE_BYTES_MAX: usize = 4 * 1024;

/// How the values of a column are written.
pub(crate) trait Written {
    /// The type of the record's column.
    fn ty(&self) -> Type;

    /// Reads a value and lends it to `take`. `None`: it is not what the type says, or has no place in a record.
    fn read<R>(&self, value: &[u8], take: impl FnOnce(Cell<'_>) -> R) -> Option<R>;

    /// A value as the database writes it, for a column that has turned out to be text.
    fn shown(cell: Cell<'_>) -> String;
}

/// One value of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot<'a> {
    /// No value.
    Null,
    /// The row has more of it than was sent.
    Missing,
    /// An update left it as it was.
    Unchanged,
    /// As the database writes it.
    Text(&'a [u8]),
}

impl Slot<'_> {
    /// About how many bytes it takes on the wire.
    fn bytes(&self) -> usize {
        match self {
            Slot::Text(text) => text.len() + 3,
            _ => 1,
        }
    }
}

/// A batch in the making.
pub(crate) struct Page<F> {
    schema: Arc<Schema>,
    forms: Arc<[F]>,
    columns: Vec<Column>,
    types: Vec<Type>,
    ops: Vec<Op>,
    rows_max: usize,
    bytes: usize,
    undecodable: Vec<Undecodable>,
}

impl<F: Written> Page<F> {
    /// An empty page of at most `rows_max` rows.
    pub(crate) fn new(schema: &Arc<Schema>, forms: &Arc<[F]>, rows_max: usize) -> Self {
        let types: Vec<Type> = schema.fields.iter().map(|field| field.ty.clone()).collect();
        Self {
            schema: Arc::clone(schema),
            forms: Arc::clone(forms),
            columns: types.iter().map(Column::new).collect(),
            types,
            ops: Vec::new(),
            rows_max: rows_max.min(ROWS_MAX),
            bytes: 0,
            undecodable: Vec::new(),
        }
    }

    /// Rows in it, and what stood between them.
    pub(crate) fn len(&self) -> usize {
        self.ops.len() + self.undecodable.len()
    }

    /// Nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Nothing more goes in.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES_TARGET || self.len() >= self.rows_max
    }

    /// Whether this row goes in: it would otherwise have to wait for the next page.
    pub(crate) fn has_room_for(&self, row: &[Slot<'_>]) -> bool {
        let bytes: usize = row.iter().map(Slot::bytes).sum();
        !self.is_full() && (self.is_empty() || bytes > RECORD_BYTES_MAX || self.bytes + bytes <= BATCH_BYTES_MAX)
    }

    /// About how many bytes a row of it takes on the wire; `None` when there is none.
    pub(crate) fn row_bytes(&self) -> Option<usize> {
        self.bytes.checked_div(self.ops.len())
    }

    /// Takes a row of as many values as there are columns. What is no record goes to the dead letters; `place` says where
    /// it stood.
    pub(crate) fn push(&mut self, op: Op, row: &[Slot<'_>], place: impl Fn() -> String) {
        let bytes: usize = row.iter().map(Slot::bytes).sum();
        if bytes > RECORD_BYTES_MAX {
            let reason = format!(
                "{}: holds {bytes} bytes, and a record holds at most {RECORD_BYTES_MAX}",
                place()
            );
            return self.refuse(Vec::new(), reason);
        }
        let before = self.ops.len();
        for (index, slot) in row.iter().enumerate() {
            if let Err(reason) = self.put(index, *slot) {
                let name = &self.schema.fields[index].name;
                let reason = format!("{}: column '{name}' {reason}", place());
                for (column, ty) in self.columns.iter_mut().zip(&self.types) {
                    if column.len() > before {
                        *column = column.slice(0..before, ty);
                    }
                }
                return self.refuse(shown(&self.schema, row), reason);
            }
        }
        self.ops.push(op);
        self.bytes += bytes;
    }

    /// Something that is no record.
    pub(crate) fn refuse(&mut self, bytes: Vec<u8>, reason: String) {
        self.bytes += bytes.len();
        self.undecodable.push(Undecodable { bytes, reason });
    }

    fn put(&mut self, index: usize, slot: Slot<'_>) -> Result<(), String> {
        let (column, ty) = (&mut self.columns[index], &self.types[index]);
        let value = match slot {
            Slot::Null => return column.push(Cell::Null, ty).map_err(|error| error.to_string()),
            Slot::Missing => return column.push(Cell::Missing, ty).map_err(|error| error.to_string()),
            Slot::Unchanged => return column.push(Cell::Unchanged, ty).map_err(|error| error.to_string()),
            Slot::Text(value) => value,
        };
        let is_own_type = *ty == self.schema.fields[index].ty;
        let pushed = is_own_type
            .then(|| self.forms[index].read(value, |cell| column.push(cell, ty).is_ok()))
            .flatten();
        if pushed == Some(true) {
            return Ok(());
        }
        let text = std::str::from_utf8(value).map_err(|_| "holds text that is not UTF-8")?;
        if is_own_type {
            self.widen(index);
        }
        let (column, ty) = (&mut self.columns[index], &self.types[index]);
        column.push(Cell::Text(text), ty).map_err(|error| error.to_string())
    }

    /// A value that has no place in the column's type (an infinite date, an array of arrays): in this batch the column is
    /// text, as the database writes and reads it.
    fn widen(&mut self, index: usize) {
        let (old, ty) = (&self.columns[index], &self.types[index]);
        let mut texts = Column::new(&Type::Text);
        for row in 0..old.len() {
            let cell = old.get(row, ty);
            let text = F::shown(cell);
            let cell = if cell.is_value() { Cell::Text(&text) } else { cell };
            // A column of text takes every text, and every absence of one.
            let _ = texts.push(cell, &Type::Text);
        }
        self.columns[index] = texts;
        self.types[index] = Type::Text;
    }

    /// The batch.
    pub(crate) fn batch(self) -> Result<(Batch, Vec<Undecodable>), String> {
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

/// A row for a person to recognise.
pub(crate) fn shown(schema: &Schema, row: &[Slot<'_>]) -> Vec<u8> {
    let mut text = Vec::new();
    for (index, (field, slot)) in schema.fields.iter().zip(row).enumerate() {
        if text.len() > UNDECODABLE_BYTES_MAX {
            break;
        }
        let comma = if index > 0 { ", " } else { "" };
        text.extend_from_slice(format!("{comma}{}=", field.name).as_bytes());
        match slot {
            Slot::Null => text.extend_from_slice(b"NULL"),
            Slot::Missing => text.extend_from_slice(b"(not sent)"),
            Slot::Unchanged => text.extend_from_slice(b"(unchanged)"),
            Slot::Text(value) => text.extend_from_slice(&value[..value.len().min(UNDECODABLE_BYTES_MAX)]),
        }
    }
    text.truncate(UNDECODABLE_BYTES_MAX);
    text
}

#[cfg(test)]
mod tests {
    use bus_schema::data::{Field, Value};

    use super::{super::form::Form, *};

    fn page(forms: &[Form]) -> Page<Form> {
        let fields = forms
            .iter()
            .enumerate()
            .map(|(at, form)| Field::new(format!("c{at}"), form.ty()));
        let schema = Schema {
            collection: "t".into(),
            fields: fields.collect(),
        };
        Page::new(&Arc::new(schema), &forms.into(), 1000)
    }

    fn text(text: &str) -> Slot<'_> {
        Slot::Text(text.as_bytes())
    }

    #[test]
    fn a_misfit_makes_the_column_text_for_one_batch() {
        let ints = Form::Array(Box::new(Form::Integer));
        let mut page = page(&[Form::Date, ints, Form::Integer]);
        let rows = [
            [text("2000-02-29"), text("{1,NULL}"), text("1")],
            [Slot::Null, text("{{1},{2}}"), text("2")],
            [text("infinity"), Slot::Null, text("3")],
            [text("0001-01-01 BC"), text("{3}"), Slot::Unchanged],
        ];
        rows.iter().for_each(|row| page.push(Op::Insert, row, String::new));
        let (batch, undecodable) = page.batch().unwrap();
        assert_eq!(undecodable, []);
        let types: Vec<&Type> = batch.schema().fields.iter().map(|field| &field.ty).collect();
        assert_eq!(types, [&Type::Text, &Type::Text, &Type::I64]);
        let column = |at: usize| (0..4).map(|row| batch.cell(row, at).to_value()).collect::<Vec<_>>();
        let string = |text: &str| Value::Text(text.into());
        assert_eq!(
            column(0),
            [
                string("2000-02-29"),
                Value::Null,
                string("infinity"),
                string("0001-01-01 BC")
            ]
        );
        assert_eq!(
            column(1),
            [string("{\"1\",NULL}"), string("{{1},{2}}"), Value::Null, string("{3}")]
        );
        assert_eq!(
            column(2),
            [Value::I64(1), Value::I64(2), Value::I64(3), Value::Unchanged]
        );
    }

    #[test]
    fn what_is_not_utf_8_is_no_record_and_its_neighbours_are() {
        let mut page = page(&[Form::Integer, Form::Text]);
        page.push(Op::Insert, &[text("1"), text("a")], String::new);
        page.push(Op::Insert, &[text("2"), Slot::Text(b"\xff")], || "row 2".into());
        page.push(Op::Delete, &[text("3"), Slot::Missing], String::new);
        let (batch, undecodable) = page.batch().unwrap();
        assert_eq!((batch.rows(), batch.op(0), batch.op(1)), (2, Op::Insert, Op::Delete));
        assert_eq!(batch.cell(1, 0), Cell::I64(3));
        assert_eq!(undecodable[0].reason, "row 2: column 'c1' holds text that is not UTF-8");
        assert_eq!(undecodable[0].bytes, b"c0=2, c1=\xff");
    }

    #[test]
    fn a_page_is_full_before_it_is_too_large_for_a_frame() {
        let mut page = page(&[Form::Text]);
        let value = "x".repeat(40_000);
        let row = [text(&value)];
        assert!(page.has_room_for(&row));
        page.push(Op::Insert, &row, String::new);
        assert!(!page.has_room_for(&row) && !page.is_full());
        assert_eq!(page.row_bytes(), Some(40_003));
    }
}
