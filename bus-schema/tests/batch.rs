//! Batches keep what is put into them: through the wire, and through taking rows, checked against rows of plain values.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;

use bus_schema::{
    data::{Batch, BatchBuilder, BatchError, Cell, Column, Field, Op, Ops, Origin, Schema, Type, Value},
    encode,
    limits::{BATCH_FORM_BYTES_MAX, COLUMNS_MAX, ROWS_MAX},
};
use common::batches::{self, Model, fits};
use proptest::{prelude::*, sample::Index};

/// Value for value the same, floats bit for bit.
#[track_caller]
fn same(batch: &Batch, rows: &[(Op, Vec<Value>)]) {
    assert_eq!(batch.rows(), rows.len());
    for (at, (op, row)) in rows.iter().enumerate() {
        assert_eq!(batch.op(at), *op, "row {at}");
        for (column, value) in row.iter().enumerate() {
            let found = batch.cell(at, column).to_value();
            assert_eq!(
                encode(&found),
                encode(value),
                "row {at}, column {column}: {found:?} is not {value:?}"
            );
        }
    }
}

proptest! {
    #[test]
    fn the_wire_keeps_every_value(model in batches::models()) {
        let batch = model.batch();
        same(&batch, &model.rows);
        let bytes = batch.encode();
        let read = Batch::decode(&bytes).unwrap();
        same(&read, &model.rows);
        prop_assert_eq!(read.schema(), &model.schema);
        prop_assert_eq!(read.origin(), &batches::origin());
        prop_assert_eq!(read.encode(), bytes);
        let cells = (0..batch.rows()).flat_map(|row| (0..model.schema.fields.len()).map(move |column| (row, column)));
        let hints = cells.map(|(row, column)| batch.cell(row, column).size_hint());
        prop_assert_eq!(batch.size_hint(), hints.sum::<usize>());
    }

    #[test]
    fn rows_are_taken_as_they_are(
        model in batches::models(),
        wanted in prop::collection::vec(any::<Index>(), 0..30),
        (from, to) in (0usize..25, 0usize..25),
    ) {
        let batch = model.batch();
        let Model { rows, .. } = &model;
        if !rows.is_empty() {
            let wanted: Vec<usize> = wanted.iter().map(|at| at.index(rows.len())).collect();
            let expected: Vec<_> = wanted.iter().map(|at| rows[*at].clone()).collect();
            let taken = batch.take(&wanted);
            same(&taken, &expected);
            same(&Batch::decode(&taken.encode()).unwrap(), &expected);
            // Byte for byte what they would be had they never had neighbours.
            let alone = Model { schema: Arc::clone(&model.schema), rows: expected }.batch();
            for (taken, alone) in taken.columns().iter().zip(alone.columns()) {
                prop_assert_eq!(encode(taken), encode(alone));
            }
        }
        let end = to.min(rows.len());
        same(&batch.slice(from..to), rows.get(from..end).unwrap_or_default());
    }

    #[test]
    fn a_row_that_does_not_fit_leaves_no_trace(model in batches::models(), at in any::<Index>()) {
        let mut builder = BatchBuilder::new(Arc::clone(&model.schema));
        let column = at.index(model.schema.fields.len());
        for (op, row) in &model.rows {
            let cells: Vec<Cell<'_>> = row.iter().map(Value::as_cell).collect();
            let mut wrong = cells.clone();
            let values = batches::values();
            let misfit = values.iter().find(|value| !fits(&model.schema.fields[column].ty, value));
            if let Some(misfit) = misfit {
                wrong[column] = misfit.as_cell();
                let refused = builder.push(*op, &wrong);
                prop_assert!(matches!(refused, Err(BatchError::Type { .. })), "{refused:?}");
            }
            prop_assert!(builder.push(*op, &cells[1..]).is_err());
            builder.push(*op, &cells).unwrap();
        }
        same(&builder.finish(Origin::default()), &model.rows);
    }
}

#[test]
fn every_type_takes_its_own_values_and_no_others() {
    for ty in batches::types() {
        for value in batches::values() {
            let pushed = Column::new(&ty).push(value.as_cell(), &ty);
            assert_eq!(pushed.is_ok(), fits(&ty, &value), "{value:?} into {ty}");
        }
    }
    // The scale is part of the type.
    let ty = Type::Decimal {
        precision: 12,
        scale: 3,
    };
    let refused = Column::new(&ty).push(Cell::Decimal(1, 2), &ty).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "a decimal(*,2) does not fit a column of type decimal(12,3)"
    );
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let fields = |names: &[&str]| names.iter().map(|name| Field::new(*name, Type::I64)).collect();
    let schema = |names: &[&str]| {
        Arc::new(Schema {
            collection: "t".into(),
            fields: fields(names),
        })
    };
    let column = |rows: usize, ty: &Type| {
        let mut column = Column::new(ty);
        (0..rows).for_each(|_| column.push(Cell::Null, ty).unwrap());
        column
    };
    let numbers = |rows| column(rows, &Type::I64);
    let all = Ops::All(Op::Insert);
    for (names, columns, ops, expected) in [
        (&["a"][..], vec![numbers(2)], all.clone(), None),
        (
            &["a", "b"],
            vec![numbers(2), numbers(2)],
            Ops::Each(vec![Op::Insert, Op::Delete]),
            None,
        ),
        (&["a"], vec![], all.clone(), Some("columns and schema differ in number")),
        (
            &["a", "b"],
            vec![numbers(2), numbers(3)],
            all.clone(),
            Some("'b': 3 values for 2 rows"),
        ),
        (
            &["a"],
            vec![column(2, &Type::Text)],
            all.clone(),
            Some("'a': the values are not of type i64"),
        ),
        (
            &["a"],
            vec![numbers(2)],
            Ops::Each(vec![Op::Insert]),
            Some("operations and rows differ in number"),
        ),
        (
            &["a"],
            vec![numbers(ROWS_MAX + 1)],
            all.clone(),
            Some("at most 65536 rows"),
        ),
    ] {
        let batch = Batch::new(schema(names), columns, ops, Origin::default());
        match (batch, expected) {
            (Ok(_), None) => {}
            (Err(error), Some(part)) => assert!(error.to_string().contains(part), "{error}"),
            (batch, expected) => panic!("{batch:?} is not {expected:?}"),
        }
    }
    let many: Vec<String> = (0..=COLUMNS_MAX).map(|n| format!("c{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let columns = many.iter().map(|_| numbers(1)).collect();
    assert_eq!(
        Batch::new(schema(&many), columns, all.clone(), Origin::default()),
        Err(BatchError::TooLarge)
    );

    let two = Batch::new(schema(&["a"]), vec![numbers(2)], all, Origin::default()).unwrap();
    assert!(two.with_columns(schema(&["a"]), vec![numbers(3)]).is_err());
    assert!(two.with_columns(schema(&[]), vec![]).is_err());
    assert_eq!(two.with_columns(schema(&["b"]), vec![numbers(2)]).unwrap().rows(), 2);
}

#[test]
fn a_text_ends_where_a_character_does() {
    let mut builder = BatchBuilder::new(Arc::new(Schema {
        collection: "t".into(),
        fields: vec![Field::new("a", Type::Text)],
    }));
    for text in ["é", "x"] {
        builder.push(Op::Insert, &[Cell::Text(text)]).unwrap();
    }
    let bytes = builder.finish(Origin::default()).encode();
    // Two ends, then three bytes of text.
    let ends = [2, 2, 3, 3, 0xc3, 0xa9, b'x'];
    let at = bytes.windows(ends.len()).position(|window| window == ends).unwrap();
    let (character, broken) = ([0xc3, 0xa9], [0xc3, 0x28]);
    for (changed, wanted) in [
        ([2, 2, 3, 3], true),
        ([2, 1, 3, 3], false),
        ([2, 3, 2, 3], false),
        ([2, 2, 2, 3], false),
    ] {
        let mut bytes = bytes.clone();
        bytes[at..at + 4].copy_from_slice(&changed);
        assert_eq!(Batch::decode(&bytes).is_ok(), wanted, "{changed:?}");
    }
    for (text, wanted) in [(character, true), (broken, false)] {
        let mut bytes = bytes.clone();
        bytes[at + 4..at + 6].copy_from_slice(&text);
        assert_eq!(Batch::decode(&bytes).is_ok(), wanted, "{text:?}");
    }
}

#[test]
fn the_size_hint_is_near_the_truth() {
    // Batches are closed by it, and a closed batch must fit an envelope.
    for rows in [1usize, 100, 1_000] {
        let fields = vec![
            Field::new("id", Type::I64),
            Field::new("name", Type::Text),
            Field::new("any", Type::Any),
        ];
        let mut builder = BatchBuilder::new(Arc::new(Schema {
            collection: "t".into(),
            fields,
        }));
        for row in 0..rows {
            let name = format!("a name of middling length {row}");
            let cells = [Cell::I64(i64::MAX - row as i64), Cell::Text(&name), Cell::F64(0.5)];
            builder.push(Op::Insert, &cells).unwrap();
        }
        let hint = builder.bytes();
        let bytes = builder.finish(Origin::default()).encode().len();
        // An i64 takes up to ten bytes as a varint, a value of an `any` column its tag as well.
        assert!(
            bytes <= hint + hint / 4 + 100,
            "{rows} rows: {bytes} bytes, hint {hint}"
        );
        assert!(
            hint <= bytes + bytes / 4 + 100,
            "{rows} rows: {bytes} bytes, hint {hint}"
        );
    }
}

fn wide(ty: Type, columns: usize, rows: usize, cell: Cell<'_>) -> Batch {
    let fields: Vec<_> = (0..columns).map(|n| Field::new(format!("c{n}"), ty.clone())).collect();
    let mut builder = BatchBuilder::new(Arc::new(Schema {
        collection: "t".into(),
        fields,
    }));
    for _ in 0..rows {
        builder.push(Op::Insert, &vec![cell; columns]).unwrap();
    }
    builder.finish(Origin::default())
}

/// What takes far more memory than wire is bounded by what is read, not by what would be allocated; content is not.
#[test]
fn a_batch_of_nothing_much_is_refused_before_it_is_allocated() {
    let blob = vec![7; 50_000_000];
    let nulls = vec![Value::Null; BATCH_FORM_BYTES_MAX];
    for (what, batch, fits) in [
        ("many small rows", wide(Type::Any, 28, ROWS_MAX, Cell::Null), true),
        ("too many small rows", wide(Type::Any, 33, ROWS_MAX, Cell::Null), false),
        ("a list of very many", wide(Type::List, 1, 1, Cell::List(&nulls)), false),
        ("one large record", wide(Type::Bytes, 1, 1, Cell::Bytes(&blob)), true),
        (
            "one large record of any type",
            wide(Type::Any, 1, 1, Cell::Bytes(&blob)),
            true,
        ),
    ] {
        let bytes = batch.encode();
        assert_eq!(batch.form_fits(&bytes), fits, "{what}");
        match Batch::decode(&bytes) {
            Ok(read) => assert!(fits && read == batch, "{what}"),
            Err(error) => assert!(!fits && matches!(error, BatchError::Malformed(_)), "{what}: {error}"),
        }
    }
}
