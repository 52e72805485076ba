//! A crowd of simulated daemons around a [`Fleet`]: enrolled by its operator, run by `fleet-sim`, told what shall go wrong, and
//! looked at from their side. Knows nothing of what the plane thinks of them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{Cmd, Fleet, Proc, wait_ok};

/// Daemons that one enrolment string takes.
const PER_STRING: usize = 1_000;
/// Bytes in which the last line is looked for.
const TAIL_BYTES: u64 = 64 * 1024;

/// How a crowd is, by its own word.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Picture {
    /// Daemons that have been enrolled.
    pub daemons: u64,
    /// Of them connected.
    pub connected: u64,
    /// Statuses sent so far.
    pub beats: u64,
    /// Daemons without a workflow.
    pub idle: u64,
    /// Daemons by what they run and how: `orders@2 running`.
    pub runs: BTreeMap<String, u64>,
}

/// The running crowd.
pub struct Crowd {
    process: Proc,
    said: PathBuf,
    orders: PathBuf,
    count: usize,
}

impl Crowd {
    /// Enrols so many daemons, `sim-00000` and on, and lets them run. Returns once all are connected, which may take `patience`.
    #[must_use]
    #[track_caller]
    pub fn start(fleet: &Fleet, count: usize, patience: Duration) -> Self {
        let (said, orders) = (fleet.dir().join("crowd.jsonl"), fleet.dir().join("crowd.orders"));
        fs::write(&orders, "").expect("a file can be written");
        let strings: Vec<String> = (0..count.div_ceil(PER_STRING))
            .map(|_| {
                let string = fleet.cli(&["token", "create", "--uses", "1000"]);
                string.unwrap_or_else(|error| panic!("{error}")).trim().to_string()
            })
            .collect();
        let process = Cmd::bin("fleet-sim")
            .args([
                "--daemons",
                &count.to_string(),
                "--orders",
                &orders.display().to_string(),
            ])
            .args(&strings)
            .stdout_to(&said)
            .spawn();
        let mut crowd = Self {
            process,
            said,
            orders,
            count,
        };
        crowd.wait("all daemons to be connected", patience, |picture| {
            picture.connected as usize == count && picture.beats as usize >= count
        });
        crowd
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Proc {
        &mut self.process
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// What shall go wrong from now on; see `fleet-sim`.
    pub fn order(&self, text: &str) {
        fs::write(&self.orders, text).expect("a file can be written");
    }

    /// How it is: what it said last.
    #[must_use]
    pub fn picture(&self) -> Picture {
        let text = tail(&self.said).unwrap_or_default();
        let mut lines = text
            .lines()
            .rev()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let Some(line) = lines.find(|line| line["what"] == "daemons") else {
            return Picture::default();
        };
        let data = &line["data"];
        let count = |key: &str| data[key].as_u64().unwrap_or(0);
        let runs = data["runs"].as_object().into_iter().flatten();
        Picture {
            daemons: count("daemons"),
            connected: count("connected"),
            beats: count("beats"),
            idle: count("idle"),
            runs: runs
                .map(|(what, count)| (what.clone(), count.as_u64().unwrap_or(0)))
                .collect(),
        }
    }

    /// Waits until the picture is right; returns how long it took.
    #[track_caller]
    pub fn wait(&mut self, what: &str, patience: Duration, is_right: impl Fn(&Picture) -> bool) -> Duration {
        let started = Instant::now();
        wait_ok(what, patience, || {
            let picture = self.picture();
            match (is_right(&picture), self.process.is_running()) {
                (true, _) => Ok(()),
                (false, true) => Err(format!("{picture:?}")),
                (false, false) => panic!("fleet-sim has ended: {}", self.process.log()),
            }
        });
        started.elapsed()
    }

    /// Waits until all run this, such as `orders@2 running`, and nothing else.
    #[track_caller]
    pub fn wait_all(&mut self, run: &str, patience: Duration) -> Duration {
        let all = self.count as u64;
        let wanted = BTreeMap::from([(run.to_string(), all)]);
        self.wait(&format!("all to be {run}"), patience, |picture| picture.runs == wanted)
    }
}

fn tail(path: &PathBuf) -> std::io::Result<String> {
    let mut file = fs::File::open(path)?;
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
