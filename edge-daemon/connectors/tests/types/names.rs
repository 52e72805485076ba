//! What is no value, and names that are hard: the other two tables of the page.

use bus_schema::data::{Field, Op, Type, Value};
use serde_json::json;

use crate::{
    Log, deliver, key,
    page::Outcome,
    places::{Place, Row},
    reference,
};

/// What the reference of a destination says that has no null.
const LEFT_OUT: &str = "Null and missing are left out";

/// A line of a table: what it is about, and the outcome at each destination.
pub type Line = (String, Vec<Outcome>);

/// What becomes of null, of a field that a record does not have, and of one that it leaves as it was.
pub async fn absent(places: &[Box<dyn Place>], log: &Log, silent: &mut Vec<String>) -> Vec<Line> {
    let mut lines = Vec::new();
    for (op, is_there, record) in [
        (Op::Insert, false, "insert"),
        (Op::Update, true, "update"),
        (Op::Upsert, true, "upsert of a row that is there"),
        (Op::Upsert, false, "upsert of a new row"),
    ] {
        for (name, value) in [
            ("null", Value::Null),
            ("missing", Value::Missing),
            ("unchanged", Value::Unchanged),
        ] {
            let what = format!("{record}, {name}");
            let table = what.replace(", ", "_").replace(' ', "_");
            let mut outcomes = Vec::new();
            for place in places {
                match absent_at(&**place, &table, (op, is_there), &value, log).await {
                    Ok(outcome) => outcomes.push(outcome),
                    Err(wrong) => silent.push(format!("{what} into {}: {wrong}", place.name())),
                }
            }
            lines.push((what, outcomes));
        }
    }
    lines
}

async fn absent_at(
    place: &dyn Place,
    table: &str,
    (op, is_there): (Op, bool),
    value: &Value,
    log: &Log,
) -> Result<Outcome, String> {
    let more = match place.is_database() {
        true => json!({}),
        false => json!({"op_column": "op"}),
    };
    let mut sink = place.sink(table, more)?;
    sink.open().await.unwrap();
    let fields = || [key(), Field::new("v", Type::Text)];
    if is_there {
        let before = [Value::I64(1), Value::Text("before".into())];
        deliver(&mut *sink, fields(), Op::Insert, before).await?;
    }
    log.take();
    let written = deliver(&mut *sink, fields(), op, [Value::I64(1), value.clone()]).await;
    let logged = log.take();
    let found = match (written, place.read(table, "v")) {
        (Err(reason), Row::None) => return Ok(Outcome::Rejected(reason)),
        (Err(reason), row) => return Err(format!("rejected ({reason}), and yet there is {row:?}")),
        (Ok(()), Row::With(found)) => found.text,
        (Ok(()), Row::Without) => return Ok(Outcome::Said("left out")),
        (Ok(()), Row::None) => return Err("there is no row".to_string()),
    };
    match (value, is_there, found.as_deref()) {
        (Value::Null, _, None) => Ok(Outcome::Said("null")),
        (Value::Null, true, Some("before")) if reference(place.component()).contains(LEFT_OUT) => {
            Ok(Outcome::Said("left out: stays as it was"))
        }
        (_, true, Some("before")) if *value != Value::Null => Ok(Outcome::Said("stays as it was")),
        (_, false, None) if place.is_database() => Ok(Outcome::Said("the column's default")),
        (_, _, None) if logged.contains("a missing or unchanged field is") => Ok(Outcome::Said("as null, logged")),
        (_, _, found) => Err(format!("became {found:?} in silence; logged: {logged:?}")),
    }
}

/// Names as users and other systems make them.
fn names() -> Vec<(&'static str, String)> {
    vec![
        ("a reserved word: `select`", "select".into()),
        ("a space inside", "outside temperature".into()),
        ("spaces at both ends", " x ".into()),
        ("double quotes", "a \"b\" c".into()),
        ("single quotes and backticks", "it's `it`".into()),
        ("backslash, semicolon, comment", "\\'; DROP TABLE t; --".into()),
        ("placeholders: `$1 ?1 %s :a`", "$1 ?1 %s :a".into()),
        ("dots, commas, tabs", "a.b,c\td".into()),
        ("a line end", "a\nb".into()),
        ("capitals", "MixedCase".into()),
        ("umlauts", "größe".into()),
        ("4-byte characters", "🌱".into()),
        ("64 characters", "x".repeat(64)),
        ("NUL", "a\0b".into()),
        ("empty", String::new()),
    ]
}

/// What becomes of columns with such names, and of tables.
pub async fn named(places: &[Box<dyn Place>], log: &Log, silent: &mut Vec<String>) -> Vec<Line> {
    let mut lines = Vec::new();
    for (number, (what, name)) in names().into_iter().enumerate() {
        for is_table in [false, true] {
            let of = if is_table { "table" } else { "column" };
            let mut outcomes = Vec::new();
            for place in places {
                if is_table && !place.is_database() {
                    outcomes.push(Outcome::Said("–"));
                    continue;
                }
                let table = if is_table { name.clone() } else { format!("n{number}") };
                let column = if is_table { "v" } else { &name };
                match named_at(&**place, &table, column, log).await {
                    Ok(outcome) => outcomes.push(outcome),
                    Err(wrong) => silent.push(format!("{of} with {what} at {}: {wrong}", place.name())),
                }
            }
            lines.push((format!("{of}: {what}"), outcomes));
        }
    }
    lines
}

async fn named_at(place: &dyn Place, table: &str, column: &str, log: &Log) -> Result<Outcome, String> {
    let mut sink = match place.sink(table, json!({})) {
        Ok(sink) => sink,
        Err(refused) => return Ok(Outcome::Rejected(refused)),
    };
    sink.open().await.unwrap();
    let fields = [key(), Field::new(column, Type::Text)];
    let row = [Value::I64(1), Value::Text("kept".into())];
    let written = deliver(&mut *sink, fields, Op::Insert, row).await;
    log.take();
    if let Err(reason) = written {
        return match place.read(table, "id") {
            Row::None => Ok(Outcome::Rejected(reason)),
            row => Err(format!("rejected ({reason}), and yet there is {row:?}")),
        };
    }
    match place.read(table, column) {
        Row::With(found) if found.text.as_deref() == Some("kept") => Ok(Outcome::Exact(found.kind)),
        row => Err(format!("taken, and there is {row:?}")),
    }
}
