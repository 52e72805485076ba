//! The file job: JSON lines are read, filtered, changed and written. What the input holds is in `testkit::file_job`, how
//! others do the job in `peers` and `bare`.

use std::cell::Cell;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use testkit::file_job;

use super::Circumstances;
use crate::suite::{Bound, Contestant, Suite, goal, in_turns, metric};
use crate::usage::{self, Usage};

mod bare;
mod peers;

pub use bare::convert;

const ROWS: u64 = 1_000_000;
/// The goals, in seconds and MB.
const SECONDS_MAX: f64 = 7.0;
const MEMORY_MAX: f64 = 15.0;

/// One round's place: the input and a directory of its own.
struct Place {
    input: PathBuf,
    dir: PathBuf,
    /// The id in the last line of the output.
    last_id: u64,
}

/// What a job reads, and what must come of it.
#[derive(Clone)]
struct Input {
    path: PathBuf,
    expected: file_job::Expected,
}

impl Input {
    fn make(circumstances: &Circumstances, name: &str, rows: u64) -> Result<Self> {
        let path = circumstances.dir.join(name);
        let expected = file_job::write(&path, rows)?;
        Ok(Self { path, expected })
    }
}

impl Place {
    fn output(&self) -> PathBuf {
        self.dir.join("out.jsonl")
    }
}

/// Runs the suite.
pub fn run(circumstances: &Circumstances) -> Result<Suite> {
    let rows = circumstances.scaled(ROWS);
    let whole = Input::make(circumstances, "in.jsonl", rows)?;
    let megabytes = fs::metadata(&whole.path)?.len() as f64 / 1e6;
    let metrics = [
        metric("seconds", 2),
        metric("rows/s", 0),
        metric("CPU s", 2),
        metric("memory, MB", 1),
        metric("own memory, MB", 1),
        metric("written, MB", 0),
    ];
    let turn = Cell::new(0);
    type Job = fn(&Place, &Circumstances) -> Result<(f64, Usage)>;
    let contestant = |name: &str, note: &str, input: Input, part: u64, job: Job| {
        let turn = &turn;
        Contestant::new(name, note, move || {
            turn.set(turn.get() + 1);
            let place = Place {
                input: input.path.clone(),
                dir: circumstances.fresh(&format!("file-{}", turn.get()))?,
                last_id: input.expected.last_id,
            };
            let (seconds, usage) = job(&place, circumstances)?;
            file_job::check(&place.output(), input.expected)?;
            fs::remove_dir_all(&place.dir).context("cannot clear up")?;
            let times = part as f64;
            Ok(vec![
                seconds * times,
                rows as f64 / (seconds * times),
                usage.cpu_seconds * times,
                usage.rss_bytes / 1e6,
                usage.own_bytes / 1e6,
                usage.written_bytes / 1e6 * times,
            ])
        })
    };
    let ours = "every batch is on disk (fsync) before its position is; after kill -9 no row is lost or doubled";
    let mut contestants = vec![
        contestant("myceliald", ours, whole.clone(), 1, mycelial),
        contestant("myceliald, again", "", whole.clone(), 1, mycelial),
    ];
    for peer in peers::ALL {
        let input = match peer.part {
            1 => whole.clone(),
            part => Input::make(circumstances, "part.jsonl", rows / part)?,
        };
        contestants.push(contestant(peer.name, peer.note, input, peer.part, peer.run));
    }
    Ok(Suite {
        name: "file".to_string(),
        title: "File job".to_string(),
        about: format!(
            "{} JSON lines ({megabytes:.0} MB): keep `temp_c > 10`, add `temp_f`, drop `humidity`, write JSON lines. From \
             the start of the process until it has ended or, where it does not end, until the last line is in the output. Every \
             output is read afterwards: the right rows, each once, with the right values.",
            crate::suite::number(rows as f64, 0)
        ),
        entries: in_turns(&metrics, circumstances.rounds(), contestants)?,
        metrics: metrics.to_vec(),
        goals: vec![
            goal("myceliald", "seconds", Bound::AtMost(SECONDS_MAX)),
            goal("myceliald", "memory, MB", Bound::AtMost(MEMORY_MAX)),
        ],
    })
}

/// `myceliald run`, whose state is in a new directory.
fn mycelial(place: &Place, _: &Circumstances) -> Result<(f64, Usage)> {
    let workflow = place.dir.join("job.toml");
    fs::write(&workflow, file_job::workflow(&place.input, &place.output(), "once"))?;
    usage::run(
        Command::new(testkit::bin("myceliald"))
            .arg("run")
            .arg(&workflow)
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    )
}
