//! What else moves a table: the databases' own tools by hand, and brokers that pass bytes on. None promises what the daemons
//! do; they are the ceilings.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use futures_util::StreamExt as _;
use rumqttc::{Client, Event, Incoming, MqttOptions, QoS};
use testkit::oracle::Verdict;
use testkit::scenario::COPY;
use testkit::{Mosquitto, Nats, Postgres, find_program, free_port, shop};

use super::Table;
use crate::suites::Circumstances;
use crate::usage::{self, Watch};

/// What a broker carries at a time: about what a daemon's frame holds.
const MESSAGE_BYTES: usize = 64 * 1024;
const TOPIC: &str = "rows";
/// Messages that a client may have under way.
const WINDOW: u16 = 64;
/// How long a broker may be silent.
const PATIENCE: Duration = Duration::from_secs(30);

/// Somebody else who moves the table.
pub struct Peer {
    pub name: &'static str,
    pub note: &'static str,
    pub run: fn(&Table, &Circumstances) -> Result<Vec<f64>>,
}

/// All of them.
pub const ALL: &[Peer] = &[
    Peer {
        name: "sqlite3 .dump | sqlite3",
        note: "the ceiling by hand into SQLite, on one machine, in one transaction: interrupted, it begins again; it changes \
               the last digits of some numbers. The columns are of the reading and the writing shell",
        run: dump,
    },
    Peer {
        name: "sqlite3 -csv | psql COPY",
        note: "the ceiling by hand into PostgreSQL, likewise",
        run: copy,
    },
    Peer {
        name: "mosquitto bridge, QoS 1",
        note: "the same rows as CSV in messages of 64 KiB over two brokers and a bridge into a file: no database at either end, no \
               encryption; what the brokers hold in memory is lost with them. The columns are of the brokers",
        run: bridge,
    },
    Peer {
        name: "NATS leaf node",
        note: "the same over a leaf node and a server: nothing is acknowledged at all",
        run: leaf,
    },
];

/// What is common: the columns of the suite.
fn columns(table: &Table, seconds: f64, reader: usage::Usage, writer: usage::Usage) -> Vec<f64> {
    vec![
        seconds,
        table.rows as f64 / seconds,
        reader.cpu_seconds + writer.cpu_seconds,
        reader.rss_bytes / 1e6,
        writer.rss_bytes / 1e6,
        (reader.written_bytes + writer.written_bytes) / 1e6,
    ]
}

fn piped(mut reader: Command, mut writer: Command) -> Result<(f64, usage::Usage, usage::Usage)> {
    let started = Instant::now();
    let mut reading = reader
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the reader")?;
    let output = reading.stdout.take().context("it has an output")?;
    let mut writing = writer
        .stdin(output)
        .stdout(Stdio::null())
        .spawn()
        .context("cannot start the writer")?;
    let watches = [Watch::new(reading.id()), Watch::new(writing.id())];
    ensure!(reading.wait()?.success(), "the reader failed");
    ensure!(writing.wait()?.success(), "the writer failed");
    let seconds = started.elapsed().as_secs_f64();
    let [reader, writer] = watches.map(|watch| watch.usage());
    Ok((seconds, reader, writer))
}

fn shell(database: &Path) -> Command {
    let mut command = Command::new(find_program("sqlite3", "sqlite3"));
    command.arg("-bail").arg(database);
    command
}

fn dump(table: &Table, circumstances: &Circumstances) -> Result<Vec<f64>> {
    let target = circumstances.fresh("dump")?.join("copy.db");
    let mut reader = shell(&table.path);
    reader.arg(format!(".dump {}", shop::TABLE));
    let (seconds, reading, writing) = piped(reader, shell(&target))?;
    complete(&table.all.judge_sqlite(&target, shop::TABLE)?)?;
    Ok(columns(table, seconds, reading, writing))
}

fn copy(table: &Table, _: &Circumstances) -> Result<Vec<f64>> {
    let postgres = Postgres::start();
    super::create_in_postgres(&postgres);
    let mut reader = shell(&table.path);
    reader.args(["-csv", EXPORT]);
    let mut writer = Command::new(find_program("psql", "postgresql"));
    writer.args(["-X", "-q", "-d", &postgres.url(), "-c"]);
    writer.arg(format!(
        "COPY {COPY} (id, name, price, quantity, note, photo) FROM STDIN (FORMAT csv)"
    ));
    let (seconds, reading, writing) = piped(reader, writer)?;
    complete(&table.typed.judge_postgres(&postgres, COPY)?)?;
    Ok(columns(table, seconds, reading, writing))
}

/// Whether each row is there once. SQLite's shell changes the last digits of some numbers, which is not held against it.
fn complete(verdict: &Verdict) -> Result<()> {
    ensure!(verdict.lost.count == 0 && verdict.doubled.count == 0, "{verdict}");
    Ok(())
}

/// As PostgreSQL reads it: all digits of a number, and bytes as hexadecimal digits.
const EXPORT: &str = "SELECT id, name, CASE WHEN price IS NOT NULL THEN printf('%!.17g', price) END, quantity, note, \
                      CASE WHEN photo IS NOT NULL THEN '\\x' || hex(photo) END FROM orders";

/// The rows as they are sent: cut at the ends of lines.
fn messages(table: &Table, circumstances: &Circumstances) -> Result<Vec<Vec<u8>>> {
    let path = circumstances.dir.join("rows.csv");
    if !path.exists() {
        let done = shell(&table.path)
            .args(["-csv", EXPORT])
            .stdout(File::create(&path)?)
            .status()?;
        ensure!(done.success(), "the rows cannot be exported");
    }
    let text = fs::read(&path)?;
    let mut messages = Vec::new();
    let mut rest = text.as_slice();
    while !rest.is_empty() {
        let most = rest.len().min(MESSAGE_BYTES);
        let cut = rest[..most]
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(most, |at| at + 1);
        let (message, tail) = rest.split_at(cut);
        messages.push(message.to_vec());
        rest = tail;
    }
    Ok(messages)
}

/// Compares what arrived with what was sent.
fn arrived(path: &Path, messages: &[Vec<u8>]) -> Result<()> {
    ensure!(
        fs::read(path)? == messages.concat(),
        "what arrived is not what was sent"
    );
    Ok(())
}

fn bridge(table: &Table, circumstances: &Circumstances) -> Result<Vec<f64>> {
    let messages = messages(table, circumstances)?;
    let output = circumstances.fresh("bridge")?.join("rows.csv");
    let queues = ["max_queued_messages 0", "max_inflight_messages 0"];
    let center = queues
        .iter()
        .fold(Mosquitto::builder().quiet(), |broker, line| broker.line(line))
        .start();
    let mut edge = queues
        .iter()
        .fold(Mosquitto::builder().quiet(), |broker, line| broker.line(line));
    let to = format!("address 127.0.0.1:{}", center.port());
    for line in ["connection up", &to, "topic # out 1", "notifications false"] {
        edge = edge.line(line);
    }
    let edge = edge.start();
    let watches = [Watch::new(edge.pid()), Watch::new(center.pid())];

    let (subscriber, mut incoming) = client("subscriber", center.port());
    subscriber.subscribe("#", QoS::AtLeastOnce)?;
    let (publisher, mut outgoing) = client("publisher", edge.port());
    std::thread::spawn(move || outgoing.iter().all(|event| event.is_ok()));
    // The bridge is up when something has come over it.
    let started = Instant::now();
    while !matches!(
        incoming.recv_timeout(Duration::from_millis(50)),
        Ok(Ok(Event::Incoming(Incoming::Publish(_))))
    ) {
        ensure!(started.elapsed() < PATIENCE, "the bridge does not come up");
        publisher.try_publish("probe", QoS::AtMostOnce, false, "").ok();
    }

    let started = Instant::now();
    let all: Vec<Vec<u8>> = messages.clone();
    let sending = std::thread::spawn(move || {
        all.into_iter()
            .try_for_each(|message| publisher.publish(TOPIC, QoS::AtLeastOnce, false, message))
    });
    let mut file = File::create(&output)?;
    let mut count = 0;
    while count < messages.len() {
        let event = incoming
            .recv_timeout(PATIENCE)
            .map_err(|_| anyhow!("nothing more arrives"))?;
        if let Event::Incoming(Incoming::Publish(publish)) = event.context("the subscriber has been thrown out")?
            && publish.topic == TOPIC
        {
            file.write_all(&publish.payload)?;
            count += 1;
        }
    }
    file.sync_all()?;
    let seconds = started.elapsed().as_secs_f64();
    sending.join().expect("it does not panic")?;
    arrived(&output, &messages)?;
    let [edge, center] = watches.map(|watch| watch.usage());
    Ok(columns(table, seconds, edge, center))
}

fn client(name: &str, port: u16) -> (Client, rumqttc::Connection) {
    let mut options = MqttOptions::new(name, "127.0.0.1", port);
    options
        .set_max_packet_size(2 * MESSAGE_BYTES, 2 * MESSAGE_BYTES)
        .set_inflight(WINDOW);
    Client::new(options, usize::from(WINDOW))
}

fn leaf(table: &Table, circumstances: &Circumstances) -> Result<Vec<f64>> {
    let messages = messages(table, circumstances)?;
    let output = circumstances.fresh("leaf")?.join("rows.csv");
    let port = free_port();
    let center = Nats::builder()
        .line(&format!("leafnodes {{ host: \"127.0.0.1\", port: {port} }}"))
        .start();
    let edge = Nats::builder()
        .line(&format!(
            "leafnodes {{ remotes: [ {{ url: \"nats-leaf://127.0.0.1:{port}\" }} ] }}"
        ))
        .start();
    let watches = [Watch::new(edge.pid()), Watch::new(center.pid())];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let seconds = runtime.block_on(async {
        let subscriber = async_nats::connect(center.url()).await?;
        let mut incoming = subscriber.subscribe(TOPIC).await?;
        subscriber.flush().await?;
        let publisher = async_nats::connect(edge.url()).await?;
        let started = Instant::now();
        let mut next = async |within| tokio::time::timeout(within, incoming.next()).await.ok().flatten();
        // The leaf is up when something has come over it.
        while next(Duration::from_millis(50)).await.is_none() {
            ensure!(started.elapsed() < PATIENCE, "the leaf does not come up");
            publisher.publish(TOPIC, Vec::new().into()).await?;
        }

        let started = Instant::now();
        let all: Vec<Vec<u8>> = messages.clone();
        let sending = tokio::spawn(async move {
            for message in all {
                publisher.publish(TOPIC, message.into()).await?;
            }
            publisher.flush().await?;
            anyhow::Ok(())
        });
        let mut file = File::create(&output)?;
        let mut count = 0;
        while count < messages.len() {
            let message = next(PATIENCE).await.context("nothing more arrives")?;
            // Probes are empty.
            if !message.payload.is_empty() {
                file.write_all(&message.payload)?;
                count += 1;
            }
        }
        file.sync_all()?;
        let seconds = started.elapsed().as_secs_f64();
        sending.await??;
        anyhow::Ok(seconds)
    })?;
    arrived(&output, &messages)?;
    let [edge, center] = watches.map(|watch| watch.usage());
    Ok(columns(table, seconds, edge, center))
}
