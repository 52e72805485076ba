//! The MySQL source and destination against real servers of MariaDB.

mod changes;
mod delivery;
mod reading;
mod rows;
mod setup;
mod types;
mod xa;

use std::sync::{Arc, Mutex, PoisonError, Weak};

use bus_schema::data::{Batch, BatchBuilder, Field, Op, Origin, Schema, Type, Value};
use flow::{Build, BuildContext, ConfigError, Rejected, Sink};
use serde_json::json;
use testkit::Mariadb;

use super::SINK;
use crate::testing::{delivery, stream};

/// One server for all tests of a process that do not stop it, each with a database of its own.
fn shared() -> Arc<Mariadb> {
    static SERVER: Mutex<Weak<Mariadb>> = Mutex::new(Weak::new());
    let mut slot = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
    slot.upgrade().unwrap_or_else(|| {
        let server = Arc::new(Mariadb::start());
        *slot = Arc::downgrade(&server);
        server
    })
}

/// A database of one's own on a server.
struct Database {
    server: Arc<Mariadb>,
    name: &'static str,
    url: String,
}

impl Database {
    fn new(name: &'static str, sql: &str) -> Self {
        Self::on(&shared(), name, sql)
    }

    fn on(server: &Arc<Mariadb>, name: &'static str, sql: &str) -> Self {
        let url = server.create_database(name);
        if !sql.is_empty() {
            server.query_in(name, sql);
        }
        Self {
            server: Arc::clone(server),
            name,
            url,
        }
    }

    /// The rows of a query, values joined by `|`.
    fn rows(&self, sql: &str) -> Vec<String> {
        self.server
            .query_in(self.name, sql)
            .into_iter()
            .map(|row| row.join("|"))
            .collect()
    }

    /// A sink into table `t`, with more config; connected.
    async fn sink(&self, more: serde_json::Value) -> Box<dyn Sink> {
        let mut sink = sink(&self.url, more);
        sink.open().await.unwrap();
        sink
    }
}

fn try_sink(config: &str) -> Result<Box<dyn Sink>, ConfigError> {
    let Build::Sink(build) = SINK.build else {
        panic!("not a sink")
    };
    build(
        config,
        &BuildContext {
            node: "node".into(),
            workflow: "test".into(),
            ..BuildContext::default()
        },
    )
}

fn sink(url: &str, more: serde_json::Value) -> Box<dyn Sink> {
    let mut config = json!({"url": url, "tls": {"mode": "disable"}, "table": "t"});
    config
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    try_sink(&config.to_string()).unwrap()
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

/// Inserts of `(id, text)`.
fn inserts(ids: impl Iterator<Item = i64>) -> Batch {
    let schema = schema(&[("*id", Type::I64), ("v", Type::Text)]);
    let values: Vec<[Value; 2]> = ids
        .map(|id| [Value::I64(id), Value::Text(format!("row {id}"))])
        .collect();
    rows(
        &schema,
        &values.iter().map(|row| (Op::Insert, &row[..])).collect::<Vec<_>>(),
    )
}

/// Writes and commits one batch with the next seq.
async fn deliver(sink: &mut dyn Sink, batch: Batch) -> Vec<Rejected> {
    let seq = sink.watermark(&stream("s")).await.unwrap().unwrap_or_default().seq + 1;
    let rejected = sink.write(&[delivery(seq, batch)]).await.unwrap();
    sink.commit().await.unwrap();
    rejected
}
