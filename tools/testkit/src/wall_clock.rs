//! A wall clock that a test sets, for one process or several: Debian's libfaketime, preloaded. The monotonic clock goes on
//! as it is, as on a real host whose clock is set.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use crate::{Cmd, temp_dir};

/// Where Debian puts it, below a directory per architecture.
const LIBRARY: &str = "faketime/libfaketime.so.1";

/// The wall clock of whatever is started with [`WallClock::on`]. It can be set while that runs.
#[derive(Debug)]
pub struct WallClock {
    library: PathBuf,
    dir: TempDir,
}

impl WallClock {
    /// A clock that is right.
    #[must_use]
    #[track_caller]
    pub fn right() -> Self {
        let found = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
        let library = found
            .map(|entry| entry.path().join(LIBRARY))
            .find(|path| path.is_file())
            .unwrap_or_else(|| {
                panic!("libfaketime is not installed: run `cargo xtask setup` (or `apt-get install faketime`)")
            });
        let clock = Self {
            library,
            dir: temp_dir("clock"),
        };
        clock.off_by(0);
        clock
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("offset")
    }

    /// From now on it is wrong by so many seconds; into the past when negative.
    #[track_caller]
    pub fn off_by(&self, seconds: i64) {
        // Replaced whole: it is read at any moment.
        let (path, new) = (self.file(), self.dir.path().join("new"));
        fs::write(&new, format!("{seconds:+}\n")).unwrap_or_else(|e| panic!("cannot write {}: {e}", new.display()));
        fs::rename(&new, &path).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
    }

    /// From now on it counts from the beginning of 1970, as on a host without a battery.
    #[track_caller]
    pub fn begin_in_1970(&self) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("this host is past 1970");
        self.off_by(60 - i64::try_from(now.as_secs()).expect("seconds since 1970"));
    }

    /// The command, living by this clock.
    #[must_use]
    pub fn on(&self, cmd: Cmd) -> Cmd {
        let library: &Path = &self.library;
        cmd.preload(library)
            .env("FAKETIME_TIMESTAMP_FILE", self.file())
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::wait_until;

    #[test]
    fn a_clock_is_wrong_and_jumps() {
        const YEAR_S: i64 = 31_557_600;
        let this_year = || -> i64 {
            let done = Cmd::new("/bin/date").args(["-u", "+%Y"]).run(Duration::from_secs(10));
            done.stdout.trim().parse().expect("a year")
        };
        let clock = WallClock::right();
        clock.begin_in_1970();
        let script = "while :; do date -u +year-%Y; sleep 0.05; done";
        let mut process = clock.on(Cmd::new("/bin/sh").args(["-c", script])).spawn();
        let soon = Duration::from_secs(10);
        process.wait_for_log("year-1970", soon);
        clock.off_by(20 * YEAR_S);
        process.wait_for_log(&format!("year-{}", this_year() + 20), soon);
        clock.off_by(0);
        wait_until("the true time", soon, || {
            let log = process.log();
            let last = log.lines().rev().find_map(|line| line.strip_prefix("year-"))?;
            (last.trim() == this_year().to_string()).then_some(())
        });
        process.kill9();
    }
}
