//! Every drift against every change, as a table.

use bus_schema::data::{BatchBuilder, Cell, Field, Op, Origin, Schema, Type};

use super::*;
use crate::testing::{check_config, shown, shown_schema, table, transform};

/// A contract of this drift about these columns; `evolve` has none.
fn about(drift: &str, columns: &str) -> Box<dyn Transform> {
    let columns = match drift {
        "evolve" => String::new(),
        _ => format!(", \"columns\": {{{columns}}}"),
    };
    transform(&CONTRACT, &format!("{{\"drift\": \"{drift}\"{columns}}}"))
}

/// One that has seen `id`, `a` and `b`.
fn met(drift: &str) -> Box<dyn Transform> {
    let mut contract = about(drift, r#""id": "i64", "a": "i64", "b": "text""#);
    let first = table(&["id:i64", "a:i64", "b:any"], &["1|1|x"]);
    let done = contract.apply(first.clone()).unwrap();
    assert_eq!((done.batch, done.rejected), (first, vec![]));
    contract
}

/// Rows, columns and rejected rows after a batch, or why it stopped.
fn after(
    contract: &mut dyn Transform,
    columns: &[&str],
    rows: &[&str],
) -> Result<(String, String, Vec<usize>), String> {
    let done = contract
        .apply(table(columns, rows))
        .map_err(|fault| fault.to_string())?;
    let rejected = done.rejected.iter().map(|(row, _)| *row).collect();
    Ok((shown(&done.batch), shown_schema(&done.batch), rejected))
}

const AGREED: &str = "id:i64 a:i64 b:any";

#[test]
fn each_drift_does_what_the_reference_says() {
    let added: (&[&str], &[&str]) = (
        &["id:i64", "a:i64", "b:any", "c:f64"],
        &["2|2|y|0.5", "3|3|z|~", "4|4|w|?"],
    );
    let gone: (&[&str], &[&str]) = (&["id:i64", "b:any"], &["2|y", "3|z"]);
    let lacking: (&[&str], &[&str]) = (&["id:i64", "a:i64", "b:any"], &["2|?|y", "3|~|z"]);
    let renamed: (&[&str], &[&str]) = (&["id:i64", "a2:i64", "b:any"], &["2|2|y"]);
    let retyped: (&[&str], &[&str]) = (&["id:i64", "a:text", "b:any"], &["2|two|y", "3|~|z"]);
    let stops = |change: (&[&'static str], &[&'static str]), part: &str| {
        let stopped = after(&mut *met("freeze"), change.0, change.1).unwrap_err();
        assert!(stopped.contains(part) && stopped.contains("freeze"), "{stopped}");
    };
    stops(added, "column 'c' (f64) is new in 't'");
    stops(gone, "column 'a' is gone");
    stops(lacking, "column 'a' is gone");
    stops(renamed, "column 'a' is gone and 'a2' (i64) is new: perhaps renamed");
    stops(retyped, "column 'a' was i64 and is text");
    for (drift, change, rows, schema, rejected) in [
        (
            "evolve",
            added,
            "2|2|y|0.5\n3|3|z|~\n4|4|w|?",
            "id:i64 a:i64 b:any c:f64",
            vec![],
        ),
        ("evolve", gone, "2|y\n3|z", "id:i64 b:any", vec![]),
        ("evolve", renamed, "2|2|y", "id:i64 a2:i64 b:any", vec![]),
        ("evolve", retyped, "2|two|y\n3|~|z", "id:i64 a:text b:any", vec![]),
        ("discard_value", added, "2|2|y\n3|3|z\n4|4|w", AGREED, vec![]),
        ("discard_value", gone, "2|y\n3|z", "id:i64 b:any", vec![]),
        ("discard_value", lacking, "2|?|y\n3|~|z", AGREED, vec![]),
        ("discard_value", renamed, "2|y", "id:i64 b:any", vec![]),
        ("discard_value", retyped, "2|?|y\n3|~|z", "id:i64 a:text b:any", vec![]),
        ("discard_row", added, "3|3|z\n4|4|w", AGREED, vec![]),
        ("discard_row", gone, "", "id:i64 b:any", vec![]),
        ("discard_row", lacking, "3|~|z", AGREED, vec![]),
        ("discard_row", renamed, "", "id:i64 b:any", vec![]),
        ("discard_row", retyped, "3|~|z", "id:i64 a:text b:any", vec![]),
        ("dead_letter", added, "3|3|z\n4|4|w", AGREED, vec![0]),
        ("dead_letter", gone, "", "id:i64 b:any", vec![0, 1]),
        ("dead_letter", lacking, "3|~|z", AGREED, vec![0]),
        ("dead_letter", renamed, "", "id:i64 b:any", vec![0]),
        ("dead_letter", retyped, "3|~|z", "id:i64 a:text b:any", vec![0]),
    ] {
        let mut contract = met(drift);
        let found = after(&mut *contract, change.0, change.1).unwrap();
        assert_eq!(
            found,
            (rows.to_string(), schema.to_string(), rejected),
            "{drift}: {:?}",
            change.0
        );
        // As before, it is as before; and what was agreed to is no news.
        let met = contract.drift().unwrap();
        assert_eq!(met.news.len(), 1, "{met:?}");
        assert!(
            met.what.starts_with("column '") && met.what.contains(" in 't': "),
            "{met:?}"
        );
        let found = after(&mut *contract, &["id:i64", "a:i64", "b:any"], &["5|5|v"]).unwrap();
        assert_eq!(found, ("5|5|v".to_string(), AGREED.to_string(), vec![]), "{drift}");
        assert_eq!(contract.drift(), None, "{drift}: as agreed");
        after(&mut *contract, change.0, change.1).unwrap();
        let again = contract.drift();
        let accepted = drift == "evolve";
        assert_eq!(
            again.is_none(),
            accepted,
            "{drift}: met as often as it comes, unless it was agreed to"
        );
        assert_eq!(
            again.unwrap_or_default().news,
            Vec::<String>::new(),
            "{drift}: told once"
        );
    }
}

#[test]
fn where_no_types_are_said_kinds_of_values_are_agreed() {
    for row in ["2|2|y", "2|2|~", "2|2|=", "2|~|y"] {
        let found = after(&mut *met("dead_letter"), &["id:i64", "a:any", "b:any"], &[row]).unwrap();
        // A number is agreed, and what such a table has in a column of any type is text.
        let has_none = row == "2|~|y";
        assert_eq!(found.2.is_empty(), has_none, "{row}");
    }
    let batch = |value: Cell<'_>| {
        let schema = Schema {
            collection: "t".into(),
            fields: vec![
                Field::new("id", Type::I64),
                Field::new("a", Type::Any),
                Field::new("b", Type::Any),
            ],
        };
        let mut builder = BatchBuilder::new(schema.into());
        builder
            .push(Op::Insert, &[Cell::I64(2), Cell::F64(0.5), value])
            .unwrap();
        builder.finish(Origin::default())
    };
    for (value, fits) in [
        (Cell::Text("y"), true),
        (Cell::I64(1), false),
        (Cell::Bool(true), false),
        (Cell::Bytes(b"y"), false),
    ] {
        let done = met("dead_letter").apply(batch(value)).unwrap();
        assert_eq!(done.rejected.is_empty(), fits, "{value:?}: {:?}", done.rejected);
    }
    // What any takes is everything.
    let mut contract = about("dead_letter", r#""id": "i64", "a": "f64", "b": "any""#);
    for value in [Cell::I64(7), Cell::Text("x"), Cell::Null] {
        assert!(contract.apply(batch(value)).unwrap().rejected.is_empty());
    }
    // Of which nothing but nulls was met, what comes first is no news; what comes then is.
    let mut contract = about("evolve", "");
    contract
        .apply(table(&["id:i64", "a:any", "b:any"], &["1|~|~"]))
        .unwrap();
    contract.apply(batch(Cell::I64(7))).unwrap();
    assert_eq!(contract.drift(), None);
    contract.apply(batch(Cell::Text("x"))).unwrap();
    assert_eq!(
        contract.drift().unwrap().news,
        ["column 'b' has values of another type than before in 't': accepted"]
    );
}

#[test]
fn updates_and_deletes_may_leave_columns_out_and_keys_may_not_change() {
    let schema = |ty| Schema {
        collection: "t".into(),
        fields: vec![Field::new("id", ty).key(), Field::new("a", Type::I64)],
    };
    let batch = |ty, rows: &[(Op, [Cell<'_>; 2])]| {
        let mut builder = BatchBuilder::new(schema(ty).into());
        for (op, cells) in rows {
            builder.push(*op, cells).unwrap();
        }
        builder.finish(Origin::default())
    };
    let first = batch(Type::I64, &[(Op::Insert, [Cell::I64(1), Cell::I64(1)])]);
    for drift in ["freeze", "dead_letter", "discard_row"] {
        let mut contract = about(drift, r#""id": "i64", "a": "i64""#);
        contract.apply(first.clone()).unwrap();
        let changes = [
            (Op::Update, [Cell::I64(1), Cell::Missing]),
            (Op::Delete, [Cell::I64(1), Cell::Missing]),
            (Op::Upsert, [Cell::I64(1), Cell::Unchanged]),
        ];
        let done = contract.apply(batch(Type::I64, &changes)).unwrap();
        assert_eq!((done.batch.rows(), done.rejected), (3, vec![]), "{drift}");
    }
    let mut contract = about("discard_value", r#""id": "i64", "a": "i64""#);
    contract.apply(first).unwrap();
    let done = contract
        .apply(batch(Type::Text, &[(Op::Insert, [Cell::Text("x"), Cell::I64(1)])]))
        .unwrap();
    let reason = "column 'id' is agreed to be i64, not text".to_string();
    assert_eq!((done.batch.rows(), done.rejected), (0, vec![(0, reason)]));
}

#[test]
fn what_may_be_lacking_is_said() {
    let said = r#"{"drift": "dead_letter", "columns": {"id": "i64", "a": "i64", "b": "any"}, "optional": ["b"]}"#;
    let mut contract = transform(&CONTRACT, said);
    for (columns, rows, rejected) in [
        (&["id:i64", "a:i64"][..], &["1|1"][..], vec![]),
        (&["id:i64", "b:any"], &["1|x"], vec![0]),
        (&["id:i64", "a:i64", "c:i64"], &["1|1|1"], vec![0]),
        (&["x:i64"], &["1"], vec![0]),
    ] {
        assert_eq!(after(&mut *contract, columns, rows).unwrap().2, rejected, "{columns:?}");
    }
}

#[test]
fn mistakes_are_named() {
    for (config, wanted) in [
        ("{}", "missing field `drift`"),
        (
            r#"{"drift": "adapt"}"#,
            "drift: unknown variant `adapt`, expected one of `evolve`",
        ),
        (r#"{"drift": "freeze", "columns": {}}"#, "columns: name at least one"),
        (
            r#"{"drift": "freeze", "columns": {"a": "int"}}"#,
            "columns.a: 'int' is not a type",
        ),
        (
            r#"{"drift": "evolve", "columns": {"a": "i64"}}"#,
            "columns: only where they stay",
        ),
        (
            r#"{"drift": "freeze", "columns": {"a": "i64"}, "optional": ["b"]}"#,
            "optional: 'b' is none of columns",
        ),
    ] {
        check_config(&CONTRACT, config, wanted);
    }
}

#[test]
fn of_many_differences_the_first_are_named_and_a_stop_is_told_too() {
    for (drift, done) in [("discard_value", "left out"), ("freeze", "stopped")] {
        let mut contract = about(drift, r#""id": "i64""#);
        let columns = ["id:i64", "a:i64", "b:i64", "c:i64", "d:i64", "e:i64", "f:i64"];
        let applied = contract.apply(table(&columns, &["1|1|1|1|1|1|1"]));
        assert_eq!(applied.is_err(), drift == "freeze");
        let met = contract.drift().unwrap();
        assert_eq!(met.news.len(), 6, "{met:?}");
        assert!(
            met.what.contains("column 'd' (i64) is new and 2 more in 't'"),
            "{met:?}"
        );
        assert!(met.what.ends_with(done) && !met.what.contains("'e'"), "{met:?}");
    }
}
