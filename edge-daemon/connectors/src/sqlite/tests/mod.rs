//! The SQLite connectors against real database files.

mod capture;
mod changes;
mod processes;
mod round_trip;
mod sink;
mod source;

use std::{path::Path, sync::Arc, time::Duration};

use bus_schema::data::{Batch, BatchBuilder, Field, Op, Origin, Schema, Type, Value};
use flow::{Build, BuildContext, ConfigError, Read, Rejected, Sink, Source, SourceBatch};
use rusqlite::Connection;
use serde_json::json;

use super::{SINK, SOURCE};
use crate::testing::{delivery, stream};

fn context(dir: &Path) -> BuildContext {
    BuildContext {
        base_dir: dir.to_path_buf(),
        node: "node".into(),
        ..BuildContext::default()
    }
}

fn try_source(dir: &Path, config: &str) -> Result<Box<dyn Source>, ConfigError> {
    let Build::Source(build) = SOURCE.build else {
        panic!("not a source")
    };
    build(config, &context(dir))
}

fn try_sink(dir: &Path, config: &str) -> Result<Box<dyn Sink>, ConfigError> {
    let Build::Sink(build) = SINK.build else {
        panic!("not a sink")
    };
    build(config, &context(dir))
}

/// A source of `db` in `dir`, with more config; polls every 10 ms.
fn source(dir: &Path, more: serde_json::Value) -> Box<dyn Source> {
    let mut config = json!({"path": "db", "poll_interval_ms": 10});
    config
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    try_source(dir, &config.to_string()).unwrap()
}

/// A sink into table `t` of `out` in `dir`, with more config.
fn sink(dir: &Path, more: serde_json::Value) -> Box<dyn Sink> {
    let mut config = json!({"path": "out", "table": "t"});
    config
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    try_sink(dir, &config.to_string()).unwrap()
}

/// The database `name` in `dir`, after running `sql`.
fn database(dir: &Path, name: &str, sql: &str) -> Connection {
    let conn = Connection::open(dir.join(name)).unwrap();
    conn.busy_timeout(Duration::from_secs(20)).unwrap();
    conn.execute_batch(sql).unwrap();
    conn
}

async fn next_batch(source: &mut dyn Source) -> SourceBatch {
    for _ in 0..20 {
        if let Read::Batch(batch) = source.read().await.unwrap() {
            return batch;
        }
    }
    panic!("no batch came");
}

/// Everything there is: batches until the source is idle.
async fn drain(source: &mut dyn Source) -> Vec<SourceBatch> {
    let mut batches = Vec::new();
    while let Read::Batch(batch) = source.read().await.unwrap() {
        batches.push(batch);
    }
    batches
}

fn schema(fields: &[(&str, Type)]) -> Arc<Schema> {
    let fields = fields.iter().map(|(name, ty)| match name.strip_prefix('*') {
        Some(key) => Field::new(key, ty.clone()).key(),
        None => Field::new(*name, ty.clone()),
    });
    Arc::new(Schema {
        collection: "c".into(),
        fields: fields.collect(),
    })
}

fn rows(schema: &Arc<Schema>, rows: &[(Op, &[Value])]) -> Batch {
    let mut builder = BatchBuilder::new(Arc::clone(schema));
    for (op, values) in rows {
        let cells: Vec<_> = values.iter().map(Value::as_cell).collect();
        builder.push(*op, &cells).unwrap();
    }
    builder.finish(Origin::default())
}

/// Writes and commits one batch with the next seq.
async fn deliver(sink: &mut dyn Sink, batch: Batch) -> Vec<Rejected> {
    let seq = sink.watermark(&stream("s")).await.unwrap().unwrap_or_default().seq + 1;
    let rejected = sink.write(&[delivery(seq, batch)]).await.unwrap();
    sink.commit().await.unwrap();
    rejected
}

/// A query's rows as SQL literals, joined by commas.
fn literals(conn: &Connection, sql: &str) -> Vec<String> {
    let mut statement = conn.prepare(sql).unwrap();
    let width = statement.column_count();
    let rows = statement.query_map([], |row| {
        let value = |index| match row.get_ref_unwrap(index) {
            rusqlite::types::ValueRef::Null => "NULL".to_string(),
            rusqlite::types::ValueRef::Integer(v) => v.to_string(),
            rusqlite::types::ValueRef::Real(v) => format!("{v:?}"),
            rusqlite::types::ValueRef::Text(v) => format!("'{}'", String::from_utf8_lossy(v)),
            rusqlite::types::ValueRef::Blob(v) => {
                format!("x'{}'", v.iter().map(|b| format!("{b:02x}")).collect::<String>())
            }
        };
        Ok((0..width).map(value).collect::<Vec<_>>().join(","))
    });
    rows.unwrap().collect::<Result<_, _>>().unwrap()
}
