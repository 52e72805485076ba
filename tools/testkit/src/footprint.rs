//! What the programs may take of disk and memory, and the work under which they are measured. Every figure is of a run whose
//! rows were compared. `cargo xtask footprint` prints and checks them; the limits are in this file alone.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::{Broker, Cmd, bin, file_job, scenario, temp_dir, ten, wait_ok};

/// How much there is to do.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Rows that go from one daemon to another.
    pub rows: u64,
    /// Lines of the file job.
    pub lines: u64,
    /// Daemons around the plane.
    pub daemons: usize,
    /// Rows each way through ten connectors.
    pub each: u64,
}

impl Load {
    /// What the limits are for.
    pub const FULL: Self = Self {
        rows: 1_000_000,
        lines: 1_000_000,
        daemons: 100,
        each: 100_000,
    };
    /// Everything happens once.
    pub const SMALL: Self = Self {
        rows: 20_000,
        lines: 20_000,
        daemons: 3,
        each: 2_000,
    };
}

/// One figure beside its limit.
#[derive(Debug, Clone)]
pub struct Figure {
    /// What was measured.
    pub what: String,
    /// Bytes.
    pub bytes: u64,
    /// Bytes it may be at most.
    pub bytes_max: u64,
}

impl Figure {
    /// Whether it is within its limit.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.bytes <= self.bytes_max
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        let verdict = if self.holds() { "" } else { "   TOO MUCH" };
        write!(
            f,
            "{:<42} {:>6.2} MB of {:>6.2}{verdict}",
            self.what,
            megabytes(self.bytes),
            megabytes(self.bytes_max)
        )
    }
}

/// Bytes the programs may take on disk.
const DAEMON_DISK: u64 = 30_000_000;
const PLANE_DISK: u64 = 10_000_000;
const BROKER_DISK: u64 = 6_000_000;
/// Bytes of memory a daemon may take at work.
const DAEMON_MEMORY: u64 = 15_000_000;
/// The same for one that sends: its spool is a database in memory as well. A tenth above what was measured: how far its reader is
/// ahead differs from run to run.
const SENDER_MEMORY: u64 = 16_500_000;
/// The same for one in which ten connectors of nine kinds work at once. A tenth above what was measured.
const TEN_MEMORY: u64 = 16_500_000;
/// The plane's, with [`Load::FULL`] around it.
const PLANE_MEMORY: u64 = 10_000_000;
/// The same while a browser watches them.
const WATCHED_MEMORY: u64 = PLANE_MEMORY;

/// Sizes of the programs.
pub fn disk() -> Result<Vec<Figure>> {
    let programs = [
        ("myceliald", DAEMON_DISK),
        ("mycelial-plane", PLANE_DISK),
        ("mycelial-broker", BROKER_DISK),
    ];
    let figure = |(program, bytes_max): (&str, u64)| {
        let file = fs::metadata(bin(program)).with_context(|| format!("cannot find {program}"))?;
        Ok(Figure {
            what: format!("{program} on disk"),
            bytes: file.len(),
            bytes_max,
        })
    };
    programs.into_iter().map(figure).collect()
}

fn figure(what: &str, peak_kib: u64, bytes_max: u64) -> Figure {
    Figure {
        what: what.to_string(),
        bytes: peak_kib * 1024,
        bytes_max,
    }
}

/// The peak of one daemon with a workflow of ten connectors.
pub fn ten_connectors(load: Load) -> Result<Figure> {
    Ok(figure(
        "myceliald, ten connectors at once",
        ten::peak(load.each)?,
        TEN_MEMORY,
    ))
}

/// Peaks of resident memory (VmHWM) while the load is moved.
pub fn memory(load: Load) -> Result<Vec<Figure>> {
    let peaks = scenario::bulk(Broker::embedded(false), load.rows).peaks;
    let file = measure_file_job(load.lines)?;
    let ten = ten_connectors(load)?;
    let scenario::Crowded { alone, watched } = scenario::crowd(Broker::embedded(false), load.daemons);
    ensure!(
        [peaks.gateway, peaks.hub, file, ten.bytes, alone, watched]
            .iter()
            .all(|peak| *peak > 0),
        "a process was gone before its memory could be read"
    );
    Ok(vec![
        figure("myceliald, SQLite to a stream", peaks.gateway, SENDER_MEMORY),
        figure("myceliald, a stream to SQLite", peaks.hub, DAEMON_MEMORY),
        figure("myceliald, the file job", file, DAEMON_MEMORY),
        ten,
        figure(
            &format!("mycelial-plane with {} daemons", load.daemons),
            alone,
            PLANE_MEMORY,
        ),
        figure("mycelial-plane, watched by a browser too", watched, WATCHED_MEMORY),
    ])
}

const SOON: Duration = Duration::from_secs(20);
const LATE: Duration = Duration::from_secs(300);

/// So many JSON lines through a filter and two transforms into a file. Peak memory of the daemon, in KiB.
fn measure_file_job(lines: u64) -> Result<u64> {
    let dir = temp_dir("file-job");
    let at = |name: &str| dir.path().join(name);
    let (input, out, job) = (at("in.jsonl"), at("out.jsonl"), at("job.toml"));
    let wanted = file_job::write(&input, lines)?;
    fs::write(&job, file_job::workflow(&input, &out, "tail"))?;
    let mut daemon = Cmd::bin("myceliald").arg("run").arg(&job).spawn();
    wait_ok("every line that is warm", LATE, || {
        let found = count_lines(&out)?;
        ensure!(found >= wanted.rows, "{found} of {} lines", wanted.rows);
        Ok(())
    });
    let peak = daemon.rss_peak_kb().unwrap_or(0);
    ensure!(daemon.term_and_wait(SOON).success(), "the daemon drains and stops");
    file_job::check(&out, wanted)?;
    Ok(peak)
}

fn count_lines(path: &Path) -> Result<u64> {
    let bytes = fs::read(path).with_context(|| format!("no output at {}", path.display()))?;
    Ok(memchr::memchr_iter(b'\n', &bytes).count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_above_its_limit_is_told() {
        let figure = |bytes| Figure {
            what: "it".to_string(),
            bytes,
            bytes_max: 10_000_000,
        };
        assert!(figure(10_000_000).holds());
        assert!(!figure(10_000_001).holds());
        assert!(
            figure(10_100_000)
                .to_string()
                .ends_with("10.10 MB of  10.00   TOO MUCH")
        );
        assert!(figure(9_900_000).to_string().ends_with("9.90 MB of  10.00"));
    }
}
