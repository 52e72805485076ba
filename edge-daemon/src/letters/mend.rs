//! Other values for the record of a dead letter, as a person wrote them. Keeps the record's columns, their types, its operation and
//! where it came from. Pure.

use bus_schema::data::{Batch, BatchBuilder, Cell, Type};
use serde_json::{Map, Value as Json};

use crate::trial::rows;

/// The record with these values, a JSON object by column; says what is wrong with them.
pub(super) fn mended(record: &[u8], values: &str) -> Result<Vec<u8>, String> {
    let batch =
        Batch::decode(record).map_err(|error| format!("the letter holds no record that can be changed: {error}"))?;
    let values: Map<String, Json> =
        serde_json::from_str(values).map_err(|error| format!("the values are no JSON object: {error}"))?;
    let fields = &batch.schema().fields;
    if let Some(unknown) = values.keys().find(|name| batch.schema().index_of(name).is_none()) {
        let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
        return Err(format!(
            "the record has no column '{unknown}'; it has {}",
            names.join(", ")
        ));
    }
    if values.is_empty() || batch.rows() != 1 {
        return Err("name at least one column and its value".to_string());
    }
    let changed = fields.iter().map(|field| {
        let json = values.get(&field.name)?;
        let wanted = (field.ty != Type::Any).then_some(&field.ty);
        Some(rows::value(json, wanted).map_err(|wrong| format!("{} {wrong}", field.name)))
    });
    let changed: Vec<_> = changed.map(Option::transpose).collect::<Result<_, String>>()?;
    let cells: Vec<Cell<'_>> = changed
        .iter()
        .enumerate()
        .map(|(column, value)| {
            value
                .as_ref()
                .map_or_else(|| batch.cell(0, column), |value| value.as_cell())
        })
        .collect();
    let mut builder = BatchBuilder::new(batch.schema().clone());
    builder.push(batch.op(0), &cells).map_err(|error| error.to_string())?;
    Ok(builder.finish(batch.origin().clone()).encode())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bus_schema::data::{Field, Op, Origin, Schema};

    use super::*;

    fn record() -> Vec<u8> {
        let schema = Schema {
            collection: "orders".into(),
            fields: vec![
                Field::new("id", Type::I64).key(),
                Field::new(
                    "price",
                    Type::Decimal {
                        precision: 10,
                        scale: 2,
                    },
                ),
                Field::new("note", Type::Any),
            ],
        };
        let mut builder = BatchBuilder::new(Arc::new(schema));
        let cells = [Cell::I64(7), Cell::Decimal(-150, 2), Cell::Missing];
        builder.push(Op::Update, &cells).unwrap();
        let origin = Origin {
            source: "db".into(),
            ..Origin::default()
        };
        builder.finish(origin).encode()
    }

    #[test]
    fn only_what_is_named_changes() {
        let batch = Batch::decode(&mended(&record(), r#"{"price": "1.50", "note": 5}"#).unwrap()).unwrap();
        let shown: Vec<String> = (0..3).map(|column| batch.cell(0, column).to_string()).collect();
        assert_eq!(shown, ["7", "1.50", "5"]);
        assert_eq!((batch.op(0), batch.origin().source.as_str()), (Op::Update, "db"));
        let same = Batch::decode(&mended(&record(), r#"{"id": 7}"#).unwrap()).unwrap();
        assert_eq!(same, Batch::decode(&record()).unwrap());
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (values, said) in [
            ("[]", "no JSON object"),
            ("{}", "at least one column"),
            (r#"{"prize": 1}"#, "no column 'prize'; it has id, price, note"),
            (r#"{"price": "many"}"#, "price "),
        ] {
            let error = mended(&record(), values).unwrap_err();
            assert!(error.contains(said), "{values}: {error}");
        }
        assert!(mended(b"a,b", "{}").is_err());
    }
}
