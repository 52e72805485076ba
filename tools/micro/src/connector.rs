//! Sources and destinations, built by the registry as a workflow's are, on real files.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail, ensure};
use bus_schema::{
    data::Batch,
    id::{NodeId, StreamId, WorkflowId},
    plan::ComponentRole,
};
use flow::{Build, BuildContext, Delivery, Position, Read, Registry, Sink, Source, Tally};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use crate::{Body, Case, SPREAD_PERCENT, data};

/// Batches in the file that is read, and rows in the database, in batches: enough that opening it is not what counts.
const READ_BATCHES: usize = 4;

/// Where records come from.
pub const SOURCES: &[Case] = &[
    Case {
        name: "file_source_json",
        iteration: "1,080 JSON lines (225 KB) opened and read",
        iterations: 2,
        spread_percent: SPREAD_PERCENT,
        main_thread_only: false,
        prepare: json_source,
    },
    Case {
        name: "sqlite_source",
        iteration: "4,000 table rows opened and read",
        iterations: 2,
        spread_percent: SPREAD_PERCENT,
        main_thread_only: false,
        prepare: sqlite_source,
    },
];

/// Where they go.
pub const SINKS: &[Case] = &[
    Case {
        name: "file_sink_json",
        iteration: "270 JSON records written and committed",
        iterations: 20,
        spread_percent: SPREAD_PERCENT,
        main_thread_only: false,
        prepare: |dir| file_sink(dir, "json_lines", data::records()?),
    },
    Case {
        name: "file_sink_csv",
        iteration: "1,000 table rows written and committed",
        iterations: 10,
        spread_percent: SPREAD_PERCENT,
        main_thread_only: false,
        prepare: |dir| file_sink(dir, "csv", data::table()?),
    },
    Case {
        name: "sqlite_sink",
        iteration: "1,000 table rows written and committed",
        iterations: 4,
        spread_percent: SPREAD_PERCENT,
        main_thread_only: false,
        prepare: sqlite_sink,
    },
];

fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

fn find(role: ComponentRole, name: &str) -> Result<Build> {
    let found = Registry::new(connectors::components()).find(role, name);
    found.with_context(|| format!("there is no connector '{name}'"))
}

fn context(dir: &Path) -> BuildContext {
    BuildContext {
        base_dir: dir.to_path_buf(),
        ..BuildContext::default()
    }
}

fn source(dir: &Path, name: &str, config: &Value) -> Result<Box<dyn Source>> {
    match find(ComponentRole::Source, name)? {
        Build::Source(build) => Ok(build(&config.to_string(), &context(dir))?),
        _ => bail!("'{name}' is no source"),
    }
}

fn sink(dir: &Path, name: &str, config: &Value) -> Result<Box<dyn Sink>> {
    match find(ComponentRole::Destination, name)? {
        Build::Sink(build) => Ok(build(&config.to_string(), &context(dir))?),
        _ => bail!("'{name}' is no destination"),
    }
}

/// Opens a source and reads it until it has given `rows`, which must be all: a source that follows would wait for more.
fn read_all(mut source: Box<dyn Source>, rows: usize) -> Result<Body> {
    let runtime = runtime()?;
    Ok(Box::new(move || {
        runtime.block_on(async {
            source.open(None).await?;
            let mut found = 0;
            while found < rows {
                match source.read().await? {
                    Read::Batch(read) => {
                        ensure!(read.undecodable.is_empty(), "{:?}", read.undecodable);
                        found += read.batch.rows();
                    }
                    Read::Idle | Read::End => bail!("only {found} of {rows} rows"),
                }
            }
            source.close().await;
            Ok(found as u64)
        })
    }))
}

fn json_source(dir: &Path) -> Result<Body> {
    fs::write(dir.join("in.jsonl"), data::lines().repeat(READ_BATCHES))?;
    let config = json!({"path": "in.jsonl", "format": "json_lines", "mode": "once"});
    read_all(source(dir, "file", &config)?, data::RECORD_ROWS * READ_BATCHES)
}

fn sqlite_source(dir: &Path) -> Result<Body> {
    let mut database = rusqlite::Connection::open(dir.join("in.db"))?;
    database.execute_batch(
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, name TEXT, price REAL, quantity INTEGER, note TEXT)",
    )?;
    let transaction = database.transaction()?;
    for _ in 0..READ_BATCHES {
        for order in data::orders() {
            transaction.execute(
                "INSERT INTO orders (name, price, quantity, note) VALUES (?1, ?2, ?3, ?4)",
                (order.name, order.price, order.quantity, order.note),
            )?;
        }
    }
    transaction.commit()?;
    let config = json!({"path": "in.db", "table": "orders"});
    read_all(source(dir, "sqlite", &config)?, data::TABLE_ROWS * READ_BATCHES)
}

/// Writes the same batch again and again, as one lineage.
fn write_again(mut sink: Box<dyn Sink>, batch: Batch) -> Result<Body> {
    let node = NodeId::of_key(&[3; 32]);
    let stream = StreamId::of_edge(&WorkflowId::of_name("shop"), "orders->out", &node, &node);
    let runtime = runtime()?;
    runtime.block_on(async {
        sink.open().await?;
        sink.watermark(&stream).await
    })?;
    let mut seq = 0;
    Ok(Box::new(move || {
        seq += 1;
        let delivery = Delivery {
            stream,
            seq,
            // As long at every call: the watermark holds it.
            position: Position::new(format!("{seq:08}")),
            batch: batch.clone(),
            tally: Tally::default(),
            bytes: 0,
        };
        runtime.block_on(async {
            let rejected = sink.write(&[delivery]).await?;
            ensure!(rejected.is_empty(), "rows were rejected: {rejected:?}");
            sink.commit().await?;
            Ok(batch.rows() as u64)
        })
    }))
}

fn file_sink(dir: &Path, format: &str, batch: Batch) -> Result<Body> {
    let config = json!({"path": "out.txt", "format": format});
    write_again(sink(dir, "file", &config)?, batch)
}

fn sqlite_sink(dir: &Path) -> Result<Body> {
    let config = json!({"path": "out.db", "table": "orders", "mode": "upsert", "key": ["id"]});
    write_again(sink(dir, "sqlite", &config)?, data::table()?)
}
