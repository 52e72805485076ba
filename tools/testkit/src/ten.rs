//! One workflow of ten connectors, five sources into five destinations in one daemon, and what it takes of memory while all of
//! them work. Everything that goes in is looked for at the other end.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::{Cmd, Mosquitto, Nats, Postgres, Proc, file_job, find_program, shop, temp_dir, wait_ok};

const SOON: Duration = Duration::from_secs(20);
const LATE: Duration = Duration::from_secs(120);
/// Messages of one `mosquitto_pub`: it ends with the first acknowledgement of its last number, and numbers have 16 bits.
const PUBLISHED_MAX: usize = 50_000;
const CLIENTS: &str = "mosquitto-clients";
/// What listens to the broker writes here.
const HEARD: &str = "heard";

/// Moves so many rows each way. Peak memory of the daemon, in KiB.
pub fn peak(rows: u64) -> Result<u64> {
    let (postgres, broker, nats) = (
        Postgres::start(),
        // All that is published waits for the daemon, however slow this machine is.
        Mosquitto::builder().line("max_queued_messages 0").start(),
        Nats::builder().jetstream().start(),
    );
    let url = postgres.create_database("plant");
    nats.create_stream("PLANT", "plant.>", "{}");
    let dir = temp_dir("ten");
    let at = |name: &str| dir.path().join(name);
    shop::create(&at("shop.db"))?;
    file_job::write(&at("in.jsonl"), rows)?;
    let job = at("job.toml");
    fs::write(&job, workflow(dir.path(), rows, &url, &broker.url(), &nats.url()))?;
    let _listener = listen(&broker, &at(HEARD));
    let mut daemon = Cmd::bin("myceliald").arg("run").arg(&job).spawn();
    shop::add(&at("shop.db"), rows)?;
    publish(&broker, rows);
    wait_ok("all rows at all destinations", LATE, || -> Result<()> {
        let lines = |name: &str| Ok::<u64, anyhow::Error>(fs::read(at(name)).map_or(0, |bytes| lines_in(&bytes)));
        let counted = postgres.try_query_in("plant", "SELECT count(*) FROM numbers").stdout;
        for (what, found, wanted) in [
            ("SQLite", shop::count(&at("copy.db"), "copied"), rows),
            // The first line has the names of the columns.
            ("the file", lines("out.csv")?, rows + 1),
            ("PostgreSQL", number_in(&counted), rows),
            ("NATS", nats.stream_messages("PLANT"), rows),
        ] {
            ensure!(found >= wanted, "{found} of {wanted} in {what}");
        }
        ensure!(lines(HEARD)? > 0, "nothing was heard of the host");
        Ok(())
    });
    let peak = daemon.rss_peak_kb().context("the daemon is gone")?;
    ensure!(daemon.term_and_wait(SOON).success(), "the daemon drains and stops");
    ensure!(
        shop::compare(&at("shop.db"), &at("copy.db"), "copied")? == rows,
        "the copy is not whole"
    );
    Ok(peak)
}

/// The only number in what psql says; 0 while there is no table.
fn number_in(said: &str) -> u64 {
    said.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0)
}

fn lines_in(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

fn client(name: &str, broker: &Mosquitto) -> Cmd {
    Cmd::new(find_program(name, CLIENTS)).args(["-h", "127.0.0.1", "-p", &broker.port().to_string(), "-q", "1"])
}

fn listen(broker: &Mosquitto, heard: &Path) -> Proc {
    client("mosquitto_sub", broker)
        .args(["-t", "host"])
        .stdout_to(heard)
        .spawn()
}

/// Published once the daemon has subscribed: before, nobody keeps them.
fn publish(broker: &Mosquitto, rows: u64) {
    wait_ok("the daemon to be there", SOON, || {
        let log = broker.log();
        ensure!(log.contains("mycelial-local-ten-messages"), "it has not connected");
        ensure!(log.contains("meters/#"), "it has not subscribed");
        Ok(())
    });
    for first in (0..rows).step_by(PUBLISHED_MAX) {
        let messages: String = (first..rows.min(first + PUBLISHED_MAX as u64))
            .map(|n| format!("{{\"n\": {n}, \"level\": {}.5}}\n", n % 100))
            .collect();
        client("mosquitto_pub", broker)
            .args(["-t", "meters/a", "-l"])
            .stdin(messages)
            .run(LATE)
            .ok();
    }
}

fn workflow(dir: &Path, rows: u64, postgres: &str, mqtt: &str, nats: &str) -> String {
    format!(
        r#"name = "ten"

[sources.orders]
type = "sqlite"
path = "{dir}/shop.db"
table = "{orders}"
cursor = "id"

[sources.lines]
type = "file"
path = "{dir}/in.jsonl"
format = "json_lines"

[sources.numbers]
type = "generator"
count = {rows}
fields = {{ n = {{ kind = "counter" }}, wave = {{ kind = "sine" }}, text = {{ kind = "text", text = "number {{n}}" }} }}

[sources.messages]
type = "mqtt"
url = "{mqtt}"
topics = ["meters/#"]

[sources.host]
type = "host_metrics"
interval_ms = 200

[destinations.copy]
type = "sqlite"
from = "orders"
path = "{dir}/copy.db"
table = "copied"
key = []

[destinations.archive]
type = "file"
from = "lines"
path = "{dir}/out.csv"
format = "csv"

[destinations.warehouse]
type = "postgres"
from = "numbers"
url = "{postgres}"
tls = {{ mode = "disable" }}
table = "numbers"

[destinations.stream]
type = "nats"
from = "messages"
url = "{nats}"
subject = "plant.meters"

[destinations.board]
type = "mqtt"
from = "host"
url = "{mqtt}"
topic = "host"
"#,
        dir = dir.display(),
        orders = shop::TABLE,
    )
}
