//! The file job: JSON lines are read, filtered, changed and written. What the input holds is in `input`, how others do the
//! job in `peers`.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::Circumstances;
use crate::suite::{Bound, Contestant, Suite, goal, in_turns, metric};
use crate::usage::{self, Usage};

mod input;
mod peers;

pub use input::convert;

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

impl Place {
    fn output(&self) -> PathBuf {
        self.dir.join("out.jsonl")
    }
}

/// Runs the suite.
pub fn run(circumstances: &Circumstances) -> Result<Suite> {
    let rows = circumstances.scaled(ROWS);
    let input = circumstances.dir.join("in.jsonl");
    let expected = input::write(&input, rows)?;
    let megabytes = fs::metadata(&input)?.len() as f64 / 1e6;
    let metrics = [
        metric("seconds", 2),
        metric("rows/s", 0),
        metric("CPU s", 2),
        metric("memory, MB", 1),
        metric("own memory, MB", 1),
        metric("written, MB", 0),
    ];
    let turn = Cell::new(0);
    let contestant = |name: &str, note: &str, job: fn(&Place, &Circumstances) -> Result<(f64, Usage)>| {
        let (input, turn) = (&input, &turn);
        Contestant::new(name, note, move || {
            turn.set(turn.get() + 1);
            let place = Place {
                input: input.clone(),
                dir: circumstances.fresh(&format!("file-{}", turn.get()))?,
                last_id: expected.last_id,
            };
            let (seconds, usage) = job(&place, circumstances)?;
            input::check(&place.output(), expected)?;
            fs::remove_dir_all(&place.dir).context("cannot clear up")?;
            Ok(vec![
                seconds,
                rows as f64 / seconds,
                usage.cpu_seconds,
                usage.rss_bytes / 1e6,
                usage.own_bytes / 1e6,
                usage.written_bytes / 1e6,
            ])
        })
    };
    let ours = "every batch is on disk (fsync) before its position is; after kill -9 no row is lost or doubled";
    let mut contestants = vec![
        contestant("myceliald", ours, mycelial),
        contestant("myceliald, again", "", mycelial),
    ];
    for peer in peers::ALL {
        contestants.push(contestant(peer.name, peer.note, peer.run));
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
    fs::write(&workflow, workflow_text(&place.input, &place.output()))?;
    usage::run(
        Command::new(testkit::bin("myceliald"))
            .arg("run")
            .arg(&workflow)
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    )
}

fn workflow_text(input: &Path, output: &Path) -> String {
    format!(
        r#"name = "job"

[sources.lines]
type = "file"
path = "{}"
format = "json_lines"
mode = "once"

[transforms.warm]
type = "filter"
from = "lines"
where = "temp_c > 10"

[transforms.fahrenheit]
type = "derive"
from = "warm"
columns = {{ temp_f = "temp_c * 1.8 + 32.0" }}

[transforms.less]
type = "select"
from = "fahrenheit"
except = ["humidity"]

[destinations.out]
type = "file"
from = "less"
path = "{}"
format = "json_lines"
"#,
        input.display(),
        output.display()
    )
}
