//! Connectors: what each costs beside a bare loop on the same client crate. A source is read into a file of JSON lines, a
//! destination is given made-up records; the bare loop does just that, and promises nothing. What each connector's loop is, is
//! in the files beside this one.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use testkit::{Cmd, bin};

use super::{Circumstances, tail};
use crate::suite::{Bound, Contestant, Suite, goal, in_turns, metric, number};
use crate::usage;

mod brokers;
mod changes;
mod columnar;
mod databases;
mod devices;
mod files;
mod http;
mod programs;
mod roster;
mod web;

const ROWS: u64 = 1_000_000;
/// Those that go through a broker, each a message.
const MESSAGES: u64 = 300_000;
/// Those that are made or taken by Python.
const PYTHON_ROWS: u64 = 300_000;
/// Looks at a unit with sixteen values.
const LOOKS: u64 = 10_000;
/// The goal, in percent of the bare loop.
const SHARE_MIN: f64 = 70.0;
const LATE: Duration = Duration::from_secs(600);
const STOP: Duration = Duration::from_secs(20);
/// Between two looks at an output.
const LOOK: Duration = Duration::from_millis(5);

/// What is timed, in an empty directory. Gives the seconds it took.
type Job<'a> = Box<dyn FnMut(&Path) -> Result<f64> + 'a>;

/// A connector and its bare loop, ready to run again and again.
struct Race<'a> {
    name: &'static str,
    note: &'static str,
    rows: u64,
    ours: Job<'a>,
    bare: Job<'a>,
}

/// A record of the job.
struct Row {
    id: u64,
    name: String,
    value: f64,
}

/// The record of a number, from one on. The generator of the workflows makes nearly the same.
fn row(id: u64) -> Row {
    Row {
        id,
        name: format!("reading {id} of the plant"),
        value: (id % 1000) as f64 / 8.0,
    }
}

/// As the file destination would write it.
fn json(row: &Row) -> String {
    format!(
        "{{\"id\":{},\"name\":\"{}\",\"value\":{:?}}}",
        row.id, row.name, row.value
    )
}

/// Writes rows as JSON lines, with one fsync at the end: what a bare loop does with what it reads.
struct Lines(BufWriter<File>);

impl Lines {
    fn create(path: &Path) -> Result<Self> {
        Ok(Self(BufWriter::with_capacity(1 << 16, File::create(path)?)))
    }

    fn push(&mut self, id: i64, name: &str, value: f64) -> Result<()> {
        self.push_value(&serde_json::json!({"id": id, "name": name, "value": value}))
    }

    fn push_value(&mut self, row: &serde_json::Value) -> Result<()> {
        serde_json::to_writer(&mut self.0, row)?;
        Ok(self.0.write_all(b"\n")?)
    }

    fn finish(self) -> Result<()> {
        let file = self.0.into_inner().context("cannot write the output")?;
        Ok(file.sync_all()?)
    }
}

/// Reads a record of JSON and writes it. Gives its number.
fn push_json(lines: &mut Lines, json: &[u8]) -> Result<i64> {
    let row: serde_json::Value = serde_json::from_slice(json)?;
    let id = row["id"].as_i64().context("no id")?;
    lines.push(
        id,
        row["name"].as_str().context("no name")?,
        row["value"].as_f64().context("no value")?,
    )?;
    Ok(id)
}

/// Runs the suite.
pub fn run(circumstances: &Circumstances) -> Result<Suite> {
    let (rows, messages) = (circumstances.scaled(ROWS), circumstances.scaled(MESSAGES));
    let metrics = [
        metric("records/s", 0),
        metric("bare loop, records/s", 0),
        metric("of the bare loop, %", 0),
    ];
    let databases = databases::Servers::start();
    let brokers = brokers::Servers::start();
    let changes = changes::Servers::start();
    let services = http::Services::start(rows)?;
    let inputs = files::inputs(circumstances, rows)?;
    let mut races = files::races(&inputs, rows);
    races.extend(databases.races(circumstances, rows)?);
    races.extend(changes.races(rows));
    races.extend(brokers.races(messages)?);
    races.extend(services.races(rows));
    let python_rows = circumstances.scaled(PYTHON_ROWS);
    races.extend(programs::races(inputs.json.clone(), rows, python_rows));
    races.extend(devices::races(rows, circumstances.scaled(LOOKS)));
    let names: Vec<&str> = races.iter().map(|race| race.name).collect();
    ensure!(
        names == roster::RACED,
        "the roster has other races than these: {names:?}"
    );
    let goals = races
        .iter()
        .map(|race| goal(race.name, "of the bare loop, %", Bound::AtLeast(SHARE_MIN)))
        .collect();
    let contestants = races.into_iter().enumerate();
    let contestants = contestants
        .map(|(turn, race)| contestant(race, format!("connector-{turn}"), circumstances))
        .collect();
    Ok(Suite {
        name: "connectors".to_string(),
        title: "Connectors".to_string(),
        about: format!(
            "{} small records ({} where each is a message, or Python's) through each connector, beside a loop of a few lines on the \
             same client crate. A source is read into a file of JSON lines; a destination gets made-up records. `myceliald` runs as a process of its own, from its \
             start until the last record is there; it keeps positions, and promises what its reference says. The loop promises \
             nothing, but commits as often (every thousand records) and syncs once at the end.",
            number(rows as f64, 0),
            number(messages as f64, 0)
        ),
        entries: in_turns(&metrics, circumstances.rounds(), contestants)?,
        metrics: metrics.to_vec(),
        goals,
    })
}

/// Who runs both, one after the other, each in an empty directory.
fn contestant<'a>(mut race: Race<'a>, name: String, circumstances: &'a Circumstances) -> Contestant<'a> {
    Contestant::new(race.name, race.note, move || {
        let one = |job: &mut dyn FnMut(&Path) -> Result<f64>| {
            let dir = circumstances.fresh(&name)?;
            let seconds = job(&dir)?;
            fs::remove_dir_all(&dir).context("cannot clear up")?;
            Ok::<f64, anyhow::Error>(race.rows as f64 / seconds)
        };
        let (ours, bare) = (one(&mut *race.ours)?, one(&mut *race.bare)?);
        Ok(vec![ours, bare, 100.0 * ours / bare])
    })
}

/// Runs a workflow to its end. Seconds.
fn to_its_end(dir: &Path, text: &str) -> Result<f64> {
    until_ended(dir, text, Stdio::null())
}

/// The same, with something to read on its standard input.
fn until_ended(dir: &Path, text: &str, stdin: Stdio) -> Result<f64> {
    let job = dir.join("job.toml");
    fs::write(&job, text)?;
    let mut command = Command::new(bin("myceliald"));
    command.arg("run").arg(&job).stdin(stdin).stdout(Stdio::null());
    let log = dir.join("log");
    command.stderr(File::create(&log)?);
    let run = usage::run(&mut command).with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
    Ok(run.0)
}

/// Starts a program that a bare loop works with.
fn start(command: &mut Command) -> Result<Child> {
    let started = command.spawn();
    started.with_context(|| format!("cannot start {}", command.get_program().display()))
}

/// Runs a workflow until a file has the record of the last number, and so many lines. Seconds.
fn until_lines(dir: &Path, text: &str, out: &Path, rows: u64) -> Result<f64> {
    let last = [format!("\"id\":{rows},"), format!("\"id\":{rows}}}")];
    let seconds = until(dir, text, out, |end| last.iter().any(|last| end.contains(last)))?;
    let found = memchr_lines(out)?;
    ensure!(found >= rows, "{found} of {rows} lines");
    Ok(seconds)
}

/// Runs a workflow until the end of a file, which is whole lines, is as wanted. Seconds.
fn until(dir: &Path, text: &str, out: &Path, is_done: impl Fn(&str) -> bool) -> Result<f64> {
    let job = dir.join("job.toml");
    fs::write(&job, text)?;
    let started = Instant::now();
    let mut daemon = Cmd::new(bin("myceliald"))
        .arg("run")
        .arg(&job)
        .log(dir.join("log"))
        .spawn();
    loop {
        let end = tail(out);
        if end.ends_with('\n') && is_done(&end) {
            break;
        }
        ensure!(daemon.is_running(), "it has ended: {}", daemon.log());
        ensure!(started.elapsed() < LATE, "not done after {LATE:?}: {}", daemon.log());
        std::thread::sleep(LOOK);
    }
    let seconds = started.elapsed().as_secs_f64();
    daemon.term_and_wait(STOP);
    Ok(seconds)
}

fn memchr_lines(path: &Path) -> Result<u64> {
    let bytes = fs::read(path)?;
    Ok(bytes.iter().filter(|byte| **byte == b'\n').count() as u64)
}

/// Seconds of a bare loop.
fn timed(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let started = Instant::now();
    work()?;
    Ok(started.elapsed().as_secs_f64())
}

/// The source of a workflow for a destination: so many records, as fast as they are taken.
fn generator(rows: u64) -> String {
    generator_with(rows, "")
}

/// The same, with more fields.
fn generator_with(rows: u64, more: &str) -> String {
    format!(
        "name = \"job\"\n\n[sources.in]\ntype = \"generator\"\ncount = {rows}\n\n[sources.in.fields]\n\
         id = {{ kind = \"counter\", start = 1 }}\nname = {{ kind = \"text\", text = \"reading {{n}} of the plant\" }}\n\
         value = {{ kind = \"sine\", max = 100.0 }}\n{more}\n"
    )
}

/// The destination of a workflow for a source.
fn into_file(out: &Path) -> String {
    format!(
        "\n[destinations.out]\ntype = \"file\"\nfrom = \"in\"\npath = \"{}\"\nformat = \"json_lines\"\n",
        out.display()
    )
}

/// For clients that are asynchronous.
fn runtime() -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime")
}

fn out(dir: &Path) -> PathBuf {
    dir.join("out.jsonl")
}
