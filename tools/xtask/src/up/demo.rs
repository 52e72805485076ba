//! What moves in the demonstration: the host's own metrics, and a shop's orders from a SQLite database that is written to
//! all the while. Both land in a SQLite file and in a CSV file.

use std::{
    cell::RefCell,
    path::Path,
    process::ChildStdin,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{children::Children, text};

/// Orders in the database before the first workflow starts.
const ROWS_BEFORE: &str = "100000";
/// Orders written each second while it runs.
const ROWS_PER_SECOND: &str = "200";

thread_local! {
    /// The writer stops when this is closed.
    static WRITER: RefCell<Option<ChildStdin>> = const { RefCell::new(None) };
}

/// Fills the database and starts writing to it.
pub fn prepare(dir: &Path, children: &mut Children) -> Result<()> {
    std::fs::create_dir_all(dir.join("out"))?;
    let shop = text(dir, "shop.db");
    eprintln!("filling {shop} with {ROWS_BEFORE} orders …");
    children.run("shop", &["fill", &shop, ROWS_BEFORE])?;
    let stdin = children.start("shop", "shop", &["write", &shop, ROWS_PER_SECOND])?;
    WRITER.set(stdin);
    Ok(())
}

fn workflows(dir: &Path) -> [(&'static str, String); 2] {
    let shop = format!(
        r#"name = "shop"

[sources.orders]
type = "sqlite"
daemon = "gateway"
path = "{db}"
table = "orders"
cursor = "id"

[destinations.database]
type = "sqlite"
daemon = "hub"
from = "orders"
path = "{out}/shop.db"
table = "orders"

[destinations.csv]
type = "file"
daemon = "hub"
from = "orders"
path = "{out}/orders.csv"
format = "csv"
"#,
        db = text(dir, "shop.db"),
        out = text(dir, "out"),
    );
    let host = format!(
        r#"name = "host"

[sources.metrics]
type = "host_metrics"
daemon = "gateway"
interval_ms = 1000

[destinations.database]
type = "sqlite"
daemon = "hub"
from = "metrics"
path = "{out}/host.db"
table = "metrics"

[destinations.csv]
type = "file"
daemon = "hub"
from = "metrics"
path = "{out}/metrics.csv"
format = "csv"
"#,
        out = text(dir, "out"),
    );
    [("shop", shop), ("host", host)]
}

/// Deploys both workflows, once the daemons have said what they can run.
pub fn deploy(dir: &Path, children: &Children) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    for (name, workflow) in workflows(dir) {
        let file = dir.join(format!("{name}.toml"));
        std::fs::write(&file, workflow)?;
        let file = file.display().to_string();
        while let Err(error) = children.cli(&["workflow", "apply", &file]) {
            if Instant::now() > deadline {
                return Err(error.context(format!("cannot deploy {name}")));
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }
    Ok(())
}

/// One line about all streams.
pub fn progress(ledger: &str) -> String {
    let streams: Vec<Value> = serde_json::from_str(ledger).unwrap_or_default();
    let count = |stream: &Value, key: &str| stream["ledger"][key].as_u64().unwrap_or(0);
    let line = |stream: &Value| {
        format!(
            "{} {}: {} delivered, {} buffered",
            stream["workflow"].as_str().unwrap_or_default(),
            stream["edge"].as_str().unwrap_or_default(),
            count(stream, "delivered"),
            count(stream, "buffered")
        )
    };
    if streams.is_empty() {
        "waiting for the first accounts".to_string()
    } else {
        streams.iter().map(line).collect::<Vec<_>>().join(" | ")
    }
}

/// Stops the writer, waits until everything has arrived, and compares.
pub fn finish(dir: &Path, children: &mut Children, patience: Duration) -> Result<()> {
    eprintln!("\nstopping the writer; waiting for the rest to arrive …");
    WRITER.take();
    children.wait_for_end("shop")?;
    let deadline = Instant::now() + patience;
    let (shop, copy) = (text(dir, "shop.db"), text(dir, "out/shop.db"));
    let rows = loop {
        match children.run("shop", &["compare", &shop, &copy, "orders"]) {
            Ok(rows) => break rows.trim().to_string(),
            Err(error) if Instant::now() > deadline => return Err(error.context("the copy is not the original")),
            Err(_) => std::thread::sleep(Duration::from_millis(500)),
        }
    };
    println!("{rows} orders in {copy}: every value and type as in the source");
    let wanted: u64 = rows.parse().context("shop compare prints a number")?;
    let csv = csv_records(&dir.join("out/orders.csv"), |found| found == wanted, deadline)?;
    println!("{csv} orders in {}", text(dir, "out/orders.csv"));
    let streams = balanced(children, wanted, deadline)?;
    metrics(dir, children, &streams, deadline)
}

/// The host's metrics go on while others look; what both destinations hold must be what their ledgers say.
fn metrics(dir: &Path, children: &Children, streams: &[Value], deadline: Instant) -> Result<()> {
    let delivered = |edge: &str| {
        let stream = streams.iter().find(|stream| stream["edge"] == edge);
        stream
            .and_then(|stream| stream["ledger"]["delivered"].as_u64())
            .unwrap_or(0)
    };
    let (database, csv) = (text(dir, "out/host.db"), dir.join("out/metrics.csv"));
    let rows: u64 = children.run("shop", &["count", &database, "metrics"])?.trim().parse()?;
    let records = csv_records(&csv, |found| found >= delivered("metrics->csv"), deadline)?;
    ensure!(
        rows >= delivered("metrics->database") && rows > 0,
        "{database} holds {rows} metrics, its ledger says {}",
        delivered("metrics->database")
    );
    println!("{rows} metrics in {database}, {records} in {}", csv.display());
    Ok(())
}

/// Waits until the CSV has the right number of records. Nothing in it holds line breaks, so a line is a record.
fn csv_records(path: &Path, right: impl Fn(u64) -> bool, deadline: Instant) -> Result<u64> {
    loop {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let found = text.lines().count().saturating_sub(1) as u64;
        if right(found) {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("{} holds {found} records: too few, or too many", path.display());
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Waits until every account balances, and the orders' have caught up with what is there.
fn balanced(children: &Children, orders: u64, deadline: Instant) -> Result<Vec<Value>> {
    let is_behind = |stream: &Value| stream["workflow"] == "shop" && stream["ledger"]["delivered"] != orders;
    loop {
        let streams: Vec<Value> = serde_json::from_str(&children.cli(&["ledger", "-o", "json"])?)?;
        let wrong: Vec<&Value> = streams
            .iter()
            .filter(|s| s["balances"] != Value::Bool(true) || s["ledger"]["dead"] != 0 || is_behind(s))
            .collect();
        if streams.len() == 4 && wrong.is_empty() {
            println!("all {} streams balance", streams.len());
            return Ok(streams);
        }
        ensure!(
            Instant::now() < deadline,
            "{} streams, and these do not balance: {wrong:?}",
            streams.len()
        );
        std::thread::sleep(Duration::from_secs(1));
    }
}
