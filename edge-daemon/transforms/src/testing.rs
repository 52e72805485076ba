//! Batches and results as text, so that tests read as tables.

use bus_schema::data::{Batch, BatchBuilder, Cell, Field, Op, Origin, Schema, Type, Value};
use flow::{Build, BuildContext, Component, Transform};

use crate::text::{parse, type_named};

/// A batch from `name:type` headings and rows of `|`-separated values: `~` is null, `?` missing, `=` unchanged.
pub(crate) fn table(columns: &[&str], rows: &[&str]) -> Batch {
    let fields = columns.iter().map(|column| {
        let (name, ty) = column.split_once(':').unwrap();
        Field::new(name, type_named(ty).unwrap())
    });
    let fields: Vec<Field> = fields.collect();
    let types: Vec<Type> = fields.iter().map(|field| field.ty.clone()).collect();
    let mut builder = BatchBuilder::new(
        Schema {
            collection: "t".into(),
            fields,
        }
        .into(),
    );
    for row in rows {
        let values: Vec<Value> = row.split('|').zip(&types).map(|(text, ty)| value(text, ty)).collect();
        builder
            .push(Op::Insert, &values.iter().map(Value::as_cell).collect::<Vec<_>>())
            .unwrap();
    }
    builder.finish(Origin::default())
}

fn value(text: &str, ty: &Type) -> Value {
    match text {
        "~" => Value::Null,
        "?" => Value::Missing,
        "=" => Value::Unchanged,
        text => parse(text, ty).unwrap(),
    }
}

/// The rows of a batch in the form [`table`] takes.
pub(crate) fn shown(batch: &Batch) -> String {
    let cell = |row, column| match batch.cell(row, column) {
        Cell::Null => "~".to_string(),
        Cell::Missing => "?".to_string(),
        Cell::Unchanged => "=".to_string(),
        cell => cell.to_string(),
    };
    let row = |row| {
        (0..batch.columns().len())
            .map(|column| cell(row, column))
            .collect::<Vec<_>>()
            .join("|")
    };
    (0..batch.rows()).map(row).collect::<Vec<_>>().join("\n")
}

/// `name:type` of each column.
pub(crate) fn shown_schema(batch: &Batch) -> String {
    let fields = &batch.schema().fields;
    fields
        .iter()
        .map(|field| format!("{}:{}", field.name, field.ty))
        .collect::<Vec<_>>()
        .join(" ")
}

/// The transform of a config that must be right.
pub(crate) fn transform(component: &Component, config: &str) -> Box<dyn Transform> {
    let Build::Transform(build) = component.build else {
        panic!("not a transform")
    };
    build(config, &BuildContext::default()).unwrap_or_else(|error| panic!("{config}: {error}"))
}

/// Checks what comes out, and which rows were rejected with reasons that start as given (`row: reason`, by line).
pub(crate) fn check(component: &Component, config: &str, input: Batch, kept: &str, rejected: &str) {
    let done = transform(component, config)
        .apply(input)
        .unwrap_or_else(|fault| panic!("{config}: {fault}"));
    assert_eq!(shown(&done.batch), kept, "{config}: {:?}", done.rejected);
    let found: Vec<String> = done
        .rejected
        .iter()
        .map(|(row, reason)| format!("{row}: {reason}"))
        .collect();
    let wanted: Vec<&str> = rejected.lines().collect();
    let same = found.len() == wanted.len()
        && found
            .iter()
            .zip(&wanted)
            .all(|(found, wanted)| found.starts_with(wanted));
    assert!(same, "{config}: {found:#?} instead of {wanted:#?}");
}

/// Checks that a config is refused with a message that contains `wanted`.
pub(crate) fn check_config(component: &Component, config: &str, wanted: &str) {
    let Build::Transform(build) = component.build else {
        panic!("not a transform")
    };
    match build(config, &BuildContext::default()) {
        Ok(_) => panic!("{config} was taken"),
        Err(error) => assert!(error.to_string().contains(wanted), "{config}: {error}"),
    }
}
