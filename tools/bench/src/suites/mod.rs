//! The jobs, one file each.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::suite::{Rounds, Suite};

pub mod connectors;
pub mod daemons;
pub mod file;
pub mod fleet;
pub mod footprint;
pub mod latency;
pub mod micro;
pub mod outage;
pub mod sensors;

/// How much of a file [`tail`] looks at.
const TAIL_BYTES: u64 = 4096;

/// What every job is told.
#[derive(Debug, Clone)]
pub struct Circumstances {
    /// Whether it is only to see that everything works: a fiftieth of the data, one round.
    pub quick: bool,
    /// Counted rounds.
    pub rounds: usize,
    /// A directory on the disk to be measured.
    pub dir: PathBuf,
}

impl Circumstances {
    /// So many, or a fiftieth of it.
    #[must_use]
    pub fn scaled(&self, rows: u64) -> u64 {
        if self.quick { rows / 50 } else { rows }
    }

    /// A warm-up and what was asked for; only one in all when quick.
    #[must_use]
    pub fn rounds(&self) -> Rounds {
        if self.quick {
            Rounds { warm_up: 0, counted: 1 }
        } else {
            Rounds {
                warm_up: 1,
                counted: self.rounds,
            }
        }
    }

    /// An empty directory of this name. What an earlier run left there is removed.
    pub fn fresh(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join(name);
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        std::fs::create_dir_all(&dir)?;
        Ok(dir)
    }
}

/// The last few lines of a file; empty when it is not there.
#[must_use]
pub fn tail(path: &Path) -> String {
    let read = || {
        let mut file = File::open(path)?;
        let length = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        std::io::Result::Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_default()
}

/// A job and how to run it.
pub struct Job {
    /// What `--only` calls it.
    pub name: &'static str,
    /// What it measures, in a few words.
    pub what: &'static str,
    /// Whether it can be done quickly.
    pub can_be_quick: bool,
    /// Runs it.
    pub run: fn(&Circumstances) -> Result<Suite>,
}

/// All of them, in the order of the report.
pub const JOBS: &[Job] = &[
    Job {
        name: "file",
        what: "a million JSON lines filtered, changed and written, in one process",
        can_be_quick: true,
        run: file::run,
    },
    Job {
        name: "daemons",
        what: "a million rows from SQLite over each kind of broker into SQLite and PostgreSQL",
        can_be_quick: true,
        run: daemons::run,
    },
    Job {
        name: "sensors",
        what: "MQTT messages with QoS 1 into a file and into PostgreSQL",
        can_be_quick: true,
        run: sensors::run,
    },
    Job {
        name: "connectors",
        what: "records a second through each connector, beside a bare loop on the same client crate",
        can_be_quick: true,
        run: connectors::run,
    },
    Job {
        name: "latency",
        what: "from commit to commit at 1, 100 and 10,000 rows a second",
        can_be_quick: true,
        run: latency::run,
    },
    Job {
        name: "outage",
        what: "a minute without broker or destination, and how it is caught up",
        can_be_quick: true,
        run: outage::run,
    },
    Job {
        name: "footprint",
        what: "size of the programs, and their memory at rest",
        can_be_quick: true,
        run: footprint::run,
    },
    Job {
        name: "fleet",
        what: "what 100, 1,000 and 10,000 simulated daemons cost the plane, and how fast a revision is with all of them",
        can_be_quick: true,
        run: fleet::run,
    },
    Job {
        name: "micro",
        what: "what one step of the hot path takes, in time and in instructions",
        can_be_quick: false,
        run: micro::run,
    },
];
