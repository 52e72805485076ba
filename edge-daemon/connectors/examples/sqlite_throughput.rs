//! How fast rows go from one SQLite file to another through the source and the destination, in one process and without
//! a runner. Usage: `cargo run --release --example sqlite_throughput -- [ROWS]` (default 1,000,000).

use std::{env, error::Error, path::Path, time::Instant};

use bus_schema::{
    data::Batch,
    id::{StreamId, hash},
    plan::ComponentRole,
};
use flow::{Build, BuildContext, Delivery, Read, Registry, Sink, Source};
use rusqlite::Connection;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Deliveries written between two commits, as a runner with full queues would.
const COMMIT_EVERY: usize = 16;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let rows: u64 = env::args().nth(1).as_deref().unwrap_or("1000000").parse()?;
    let dir = tempfile::tempdir()?;
    fill(&dir.path().join("from.db"), rows)?;

    let start = Instant::now();
    let mut batches = 0;
    let mut from = source(dir.path())?;
    from.open(None).await?;
    while let Read::Batch(_) = from.read().await? {
        batches += 1;
    }
    // The last read waited in vain.
    report(
        "source alone",
        rows,
        start.elapsed().saturating_sub(flow::READ_WAIT_MAX).as_secs_f64(),
        batches,
    );

    for (what, wire) in [("source to destination", false), ("the same through wire bytes", true)] {
        let name = if wire { "wire.db" } else { "direct.db" };
        let start = Instant::now();
        let (batches, in_sink) = copy(dir.path(), name, wire).await?;
        report(
            what,
            rows,
            start.elapsed().saturating_sub(flow::READ_WAIT_MAX).as_secs_f64(),
            batches,
        );
        report("  destination's part", rows, in_sink, batches);
        let arrived: u64 = Connection::open(dir.path().join(name))?
            .query_row("SELECT count(*) FROM readings", [], |row| row.get::<_, i64>(0))?
            .try_into()?;
        if arrived != rows {
            return Err(format!("{arrived} rows arrived").into());
        }
    }
    Ok(())
}

fn report(what: &str, rows: u64, seconds: f64, batches: usize) {
    println!(
        "{what:<28} {:>9.0} rows/s  ({seconds:.2} s, {batches} batches)",
        rows as f64 / seconds
    );
}

fn fill(path: &Path, rows: u64) -> Outcome<()> {
    let conn = Connection::open(path)?;
    conn.execute_batch(&format!(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;
         CREATE TABLE readings (id INTEGER PRIMARY KEY, at INTEGER, value REAL, sensor TEXT, ok INTEGER);
         WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {rows})
         INSERT INTO readings SELECT n, 1700000000 + n, n * 0.25 + 0.1, 'sensor-' || (n % 97), n % 2 FROM n"
    ))?;
    Ok(())
}

fn context(dir: &Path) -> BuildContext {
    BuildContext {
        base_dir: dir.to_path_buf(),
        ..BuildContext::default()
    }
}

fn source(dir: &Path) -> Outcome<Box<dyn Source>> {
    let registry = Registry::new(connectors::components());
    match registry.find(ComponentRole::Source, "sqlite") {
        Some(Build::Source(build)) => Ok(build(r#"{"path": "from.db", "table": "readings"}"#, &context(dir))?),
        _ => Err("no source sqlite".into()),
    }
}

fn sink(dir: &Path, name: &str) -> Outcome<Box<dyn Sink>> {
    let registry = Registry::new(connectors::components());
    let config = format!(r#"{{"path": "{name}", "table": "readings"}}"#);
    match registry.find(ComponentRole::Destination, "sqlite") {
        Some(Build::Sink(build)) => Ok(build(&config, &context(dir))?),
        _ => Err("no destination sqlite".into()),
    }
}

/// Returns the number of batches and the seconds spent in the destination.
async fn copy(dir: &Path, name: &str, wire: bool) -> Outcome<(usize, f64)> {
    let (mut from, mut to) = (source(dir)?, sink(dir, name)?);
    from.open(None).await?;
    to.open().await?;
    let stream = StreamId::from_hash(&hash("throughput", &[]));
    let (mut batches, mut in_sink) = (0, 0.0);
    let mut waiting: Vec<Delivery> = Vec::new();
    loop {
        let read = from.read().await?;
        let more = if let Read::Batch(read) = read {
            batches += 1;
            let batch = if wire {
                Batch::decode(&read.batch.encode())?
            } else {
                read.batch
            };
            waiting.push(Delivery {
                stream,
                seq: batches as u64,
                position: read.position,
                batch,
                tally: flow::Tally::default(),
                bytes: 0,
            });
            true
        } else {
            false
        };
        if waiting.len() >= COMMIT_EVERY || !more {
            let start = Instant::now();
            if !to.write(&waiting).await?.is_empty() {
                return Err("rows were rejected".into());
            }
            to.commit().await?;
            waiting.clear();
            in_sink += start.elapsed().as_secs_f64();
        }
        if !more {
            to.close().await;
            return Ok((batches, in_sink));
        }
    }
}
