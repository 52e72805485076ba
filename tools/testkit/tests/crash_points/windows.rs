//! A daemon is killed in the middle of open windows, at every moment that stands between a batch and its commit: afterwards each
//! window came out once with the exact numbers, and no record that had come before passed twice.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path, time::Duration};

use crash_point::Point;
use rusqlite::{Connection, OpenFlags};
use testkit::{Cmd, bin, temp_dir};

const LATE: Duration = Duration::from_secs(120);
/// Enough for many batches, and for windows that begin in one and end some batches later.
const READINGS: i64 = 30_000;
const WINDOW_S: i64 = 60;

/// Number, second, sensor. Times go back by up to three seconds, and every tenth reading comes twice.
fn readings() -> Vec<(i64, i64, char)> {
    let reading = |n: i64| {
        let second = n / 20 + 3 - (n * 7) % 4;
        (n, second, ['a', 'b', 'c'][(n % 3) as usize])
    };
    let once = (0..READINGS).map(reading);
    once.flat_map(|reading| std::iter::repeat_n(reading, if reading.0 % 10 == 0 { 2 } else { 1 }))
        .collect()
}

fn write_readings(dir: &Path) {
    let mut text = String::new();
    for (n, second, sensor) in readings() {
        let (hours, minutes, seconds) = (second / 3600, second / 60 % 60, second % 60);
        let _infallible = writeln!(
            text,
            "{{\"n\": {n}, \"at\": \"2024-01-01T{hours:02}:{minutes:02}:{seconds:02}Z\", \"sensor\": \"{sensor}\"}}"
        );
    }
    fs::write(dir.join("readings.jsonl"), text).expect("the readings are written");
}

const SOURCE: &str = "name = \"windows\"\n\n[sources.readings]\ntype = \"file\"\npath = \"readings.jsonl\"\nformat = \
                      \"json_lines\"\nmode = \"once\"\ntypes = { n = \"i64\" }\n\n[transforms.once]\ntype = \"dedupe\"\nfrom = \
                      \"readings\"\nby = [\"n\"]\ncount = 50\n\n";

/// The windows of what `from` gives, and a destination for them.
fn windows(from: &str) -> String {
    format!(
        "[transforms.minutes]\ntype = \"aggregate\"\nfrom = \"{from}\"\ntime = \"at\"\nwindow = {{ every_ms = 60_000 }}\n\
         lateness_ms = 5_000\nby = [\"sensor\"]\n\n[transforms.minutes.values]\nreadings = \"count\"\ntotal = {{ sum = \"n\" \
         }}\nmost = {{ max = \"n\" }}\n\n[destinations.windows]\ntype = \"sqlite\"\nfrom = \"minutes\"\npath = \
         \"windows.db\"\ntable = \"windows\"\nkey = []\n\n"
    )
}

/// Straight into a destination.
fn direct() -> String {
    format!("{SOURCE}{}", windows("once"))
}

/// Two ways, each through a buffer.
fn forked() -> String {
    format!(
        "{SOURCE}[transforms.split]\ntype = \"route\"\nfrom = \"once\"\noutputs = {{ odd = \"n % 2 == 1\" }}\n\n{}\
         [destinations.odd]\ntype = \"sqlite\"\nfrom = \"split.odd\"\npath = \"odd.db\"\ntable = \"odd\"\nkey = []\n",
        windows("split.else")
    )
}

/// Sensor, count, sum and maximum of each window, in order.
type Window = (String, i64, i64, i64);

fn expected(counts: impl Fn(i64) -> bool) -> Vec<Window> {
    let mut windows: BTreeMap<(i64, char), (i64, i64, i64)> = BTreeMap::new();
    let mut readings = readings();
    readings.dedup();
    for (n, second, sensor) in readings.into_iter().filter(|(n, ..)| counts(*n)) {
        let window = windows.entry((second / WINDOW_S, sensor)).or_insert((0, 0, n));
        *window = (window.0 + 1, window.1 + n, window.2.max(n));
    }
    let window =
        |((_, sensor), (count, sum, most)): ((i64, char), (i64, i64, i64))| (sensor.to_string(), count, sum, most);
    windows.into_iter().map(window).collect()
}

fn found(dir: &Path) -> rusqlite::Result<Vec<Window>> {
    let db = Connection::open_with_flags(dir.join("windows.db"), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut rows = db.prepare("SELECT sensor, readings, total, most FROM windows ORDER BY window_start, sensor")?;
    let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    rows.collect()
}

fn odd(dir: &Path) -> rusqlite::Result<(i64, i64)> {
    let db = Connection::open_with_flags(dir.join("odd.db"), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    db.query_row("SELECT count(*), count(DISTINCT n) FROM odd", [], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })
}

/// Runs the workflow, dying at each of the moments in turn, then to its end.
fn run(workflow: &str, deaths: &[(Point, u64)]) -> testkit::TempDir {
    let dir = temp_dir("windows");
    write_readings(dir.path());
    let file = dir.path().join("windows.toml");
    fs::write(&file, workflow).expect("the workflow is written");
    for (point, times) in deaths {
        let order = format!("{}:{times}", point.name());
        let done = Cmd::new(bin("myceliald"))
            .arg("run")
            .arg(&file)
            .env("MYCELIAL_CRASH_AT", &order)
            .run(LATE);
        assert_eq!(done.code(), None, "{order} was not reached: {done}");
    }
    let done = Cmd::new(bin("myceliald")).arg("run").arg(&file).run(LATE);
    assert_eq!(done.code(), Some(0), "{done}");
    assert!(!done.stderr.contains("does not balance"), "{done}");
    dir
}

#[test]
fn every_window_comes_out_once_and_exact() {
    use Point::{
        RunnerAfterCommit, RunnerAfterSourceCommit, RunnerAfterWrite, RunnerBeforeSourceCommit, SqliteAfterCommit,
        SqliteBeforeCommit, SqliteBeforeWatermark,
    };
    let expected = expected(|_| true);
    for deaths in [
        &[][..],
        &[(SqliteBeforeWatermark, 2)],
        &[(SqliteBeforeCommit, 2), (SqliteBeforeCommit, 1)],
        &[(SqliteAfterCommit, 1), (SqliteAfterCommit, 2)],
        &[(RunnerAfterWrite, 3), (RunnerAfterCommit, 1), (SqliteBeforeCommit, 2)],
        &[(RunnerBeforeSourceCommit, 1), (RunnerAfterSourceCommit, 2)],
    ] {
        let dir = run(&direct(), deaths);
        let found = found(dir.path()).expect("the windows are there");
        assert_eq!(found, expected, "{deaths:?}");
    }
}

#[test]
fn windows_and_buffers_stay_level() {
    use Point::{
        OutgoingAfterAppend, OutgoingBeforeRelease, RunnerAfterWrite, RunnerBetweenLeaves, SpoolAppendBeforeSync,
        SpoolSyncBeforeFsync, SqliteAfterCommit,
    };
    let expected = expected(|n| n % 2 == 0);
    for deaths in [
        &[][..],
        &[(RunnerBetweenLeaves, 1), (RunnerBetweenLeaves, 3)],
        &[(OutgoingAfterAppend, 3), (OutgoingBeforeRelease, 2)],
        &[
            (SpoolAppendBeforeSync, 3),
            (SpoolSyncBeforeFsync, 4),
            (SqliteAfterCommit, 1),
        ],
        &[(RunnerAfterWrite, 2), (RunnerBetweenLeaves, 2)],
    ] {
        let dir = run(&forked(), deaths);
        let found = found(dir.path()).expect("the windows are there");
        assert_eq!(found, expected, "{deaths:?}");
        let odd = odd(dir.path()).expect("the odd ones are there");
        assert_eq!(odd, (READINGS / 2, READINGS / 2), "{deaths:?}");
    }
}
