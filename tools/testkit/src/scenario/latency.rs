//! How long a row takes from the commit in its source to the commit in its destination, one way and one clock: both ends
//! are on this machine. Loses no row without a panic, so that a lost one cannot pass for a fast one.

use std::{
    fs::OpenOptions,
    io::Write as _,
    path::Path,
    thread,
    time::{Duration, Instant, SystemTime},
};

use rusqlite::{Connection, OpenFlags};

use super::{COPY, SOON, STOP, peak};
use crate::{Broker, Fleet, Postgres, Proc, wait_ok, wait_until};

/// Commits a second at most: at a higher rate a commit has several rows.
const COMMITS_PER_S_MAX: u64 = 500;
/// How often a SQLite destination is looked at, which is how coarse its times are.
const LOOK: Duration = Duration::from_micros(500);
/// Rows written before the measured ones: connections are made, plans prepared.
const WARM_UP: Duration = Duration::from_secs(2);

/// Where rows come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// A SQLite table in WAL mode.
    Sqlite,
    /// A file of JSON lines; a line is committed when it is written.
    File,
}

/// Where rows go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// A SQLite table. A row counts as committed when a reader sees it.
    Sqlite,
    /// A PostgreSQL table. A row counts as committed at the time of its transaction's commit record, as the server has it.
    Postgres,
}

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    /// Where rows come from.
    pub from: From,
    /// Where they go.
    pub to: To,
    /// Rows a second.
    pub rate: u64,
    /// For how long.
    pub lasts: Duration,
}

/// What [`latency`] found.
#[derive(Debug, Clone)]
pub struct Latencies {
    /// Of each row, ascending.
    pub rows: Vec<Duration>,
    /// Rows a second that the writer really made.
    pub rate: f64,
    /// CPU time of the producing and the consuming daemon meanwhile.
    pub cpu: (Duration, Duration),
    /// Their peak resident memory, KiB.
    pub peaks_kib: (u64, u64),
}

impl Latencies {
    /// The latency that this share of the rows did not exceed; zero when there are none.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Duration {
        let last = self.rows.len().saturating_sub(1);
        let at = (self.rows.len() as f64 * share).ceil() as usize;
        self.rows
            .get(at.saturating_sub(1).min(last))
            .copied()
            .unwrap_or_default()
    }
}

/// Microseconds since 1970: what PostgreSQL has, too.
fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as i64)
}

/// A writer into the source.
enum Writer {
    Sqlite(Connection),
    File(std::fs::File),
}

impl Writer {
    fn open(from: From, path: &Path) -> Self {
        match from {
            From::Sqlite => {
                let db = Connection::open(path).expect("a database");
                db.busy_timeout(SOON).expect("a time");
                db.execute_batch(
                    "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; \
                     CREATE TABLE IF NOT EXISTS readings (id INTEGER PRIMARY KEY, sensor TEXT, temp_c REAL, note TEXT)",
                )
                .expect("a table");
                Self::Sqlite(db)
            }
            From::File => {
                let file = OpenOptions::new().create(true).append(true).open(path);
                Self::File(file.expect("a file"))
            }
        }
    }

    /// Commits rows `first..=last` together.
    fn commit(&mut self, first: u64, last: u64) {
        match self {
            Self::Sqlite(db) => {
                let transaction = db.transaction().expect("a transaction");
                for id in first..=last {
                    let mut insert = transaction
                        .prepare_cached("INSERT INTO readings VALUES (?1, ?2, ?3, 'nothing to remark')")
                        .expect("a statement");
                    let values = (
                        id.cast_signed(),
                        format!("sensor-{}", id % 50),
                        20.0 + (id % 100) as f64 / 10.0,
                    );
                    insert.execute(values).expect("a row");
                }
                transaction.commit().expect("a commit");
            }
            Self::File(file) => {
                let line = |id: u64| {
                    let (sensor, temp) = (id % 50, 20.0 + (id % 100) as f64 / 10.0);
                    format!(
                        "{{\"id\":{id},\"sensor\":\"sensor-{sensor}\",\"temp_c\":{temp:.1},\"note\":\"nothing to remark\"}}\n"
                    )
                };
                let lines: String = (first..=last).map(line).collect();
                file.write_all(lines.as_bytes()).expect("lines");
            }
        }
    }
}

/// Writes at a rate until it has lasted; the time at which each commit returned, by the last row of it.
fn write(mut writer: Writer, rate: u64, lasts: Duration) -> Vec<(u64, i64)> {
    let per_commit = rate.div_ceil(COMMITS_PER_S_MAX).max(1);
    let apart = Duration::from_secs_f64(per_commit as f64 / rate as f64);
    let started = Instant::now();
    let mut commits = Vec::new();
    let mut next = Duration::ZERO;
    let mut last = 0;
    while next < lasts {
        // A writer that was held up catches up, as one that is fed by sensors does.
        thread::sleep(next.saturating_sub(started.elapsed()));
        writer.commit(last + 1, last + per_commit);
        last += per_commit;
        commits.push((last, now_us()));
        next += apart;
    }
    commits
}

/// When each row of a SQLite table was first seen, by the last row of each step; until `stop` rows are there.
fn watch_sqlite(path: &Path, deadline: Duration, is_last: impl Fn(u64) -> bool) -> Vec<(u64, i64)> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let db = wait_ok("the copy", SOON, || Connection::open_with_flags(path, flags));
    db.busy_timeout(SOON).expect("a time");
    let started = Instant::now();
    let (mut seen, mut version, mut last) = (Vec::new(), -1, 0);
    while !is_last(last) {
        assert!(started.elapsed() < deadline, "only {last} rows arrived");
        let now: i64 = db
            .prepare_cached("PRAGMA data_version")
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
            .expect("a version");
        if now == version {
            thread::sleep(LOOK);
            continue;
        }
        version = now;
        let highest = db
            .prepare_cached(&format!("SELECT max(id) FROM {COPY}"))
            .and_then(|mut statement| statement.query_row([], |row| row.get::<_, Option<i64>>(0)));
        // The table is made with the first row.
        let highest = highest.ok().flatten().unwrap_or(0).cast_unsigned();
        if highest > last {
            last = highest;
            seen.push((last, now_us()));
        }
    }
    seen
}

/// When each row of a PostgreSQL table was committed.
fn ask_postgres(postgres: &Postgres, rows: u64) -> Vec<(u64, i64)> {
    let count = format!("SELECT count(*) FROM {COPY}");
    wait_until("every row in PostgreSQL", SOON, || {
        (postgres.query_one(&count) == rows.to_string()).then_some(())
    });
    let sql = format!(
        "SELECT max(id), (extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000)::bigint AS at \
         FROM {COPY} GROUP BY xmin, at ORDER BY 1"
    );
    let number = |text: &String| text.parse::<i64>().expect("a number");
    let rows = postgres.query(&sql);
    rows.iter()
        .map(|row| (number(&row[0]).cast_unsigned(), number(&row[1])))
        .collect()
}

/// What each row took. Both lists are of the last row of each commit, ascending; `after` rows are left out.
fn latencies(committed: &[(u64, i64)], arrived: &[(u64, i64)], after: u64) -> Vec<Duration> {
    let mut arrivals = arrived.iter().peekable();
    let mut first = 1;
    let mut rows = Vec::new();
    for (last, at) in committed {
        for id in first..=*last {
            while arrivals.next_if(|(until, _)| *until < id).is_some() {}
            let (_, there) = arrivals.peek().expect("every row has arrived");
            if id > after {
                // The commit can be seen before it returns to the writer.
                rows.push(Duration::from_micros((there - at).max(0).cast_unsigned()));
            }
        }
        first = *last + 1;
    }
    rows.sort();
    rows
}

/// Processor time that a process has taken.
fn cpu(process: &Proc) -> Duration {
    /// Clock ticks a second in `/proc`, on every Linux.
    const TICKS_PER_S: u64 = 100;
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid())).unwrap_or_default();
    // After the name, which may hold anything but ends with the last parenthesis; then utime and stime are 11 fields on.
    let fields = stat
        .rsplit_once(')')
        .map_or("", |(_, fields)| fields)
        .split_whitespace();
    let ticks: u64 = fields
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * 1000 / TICKS_PER_S)
}

fn workflow(fleet: &Fleet, way: Way, postgres: Option<&Postgres>) -> String {
    let source = match way.from {
        From::Sqlite => format!(
            "type = \"sqlite\"\npath = \"{}\"\ntable = \"readings\"\ncursor = \"id\"\n",
            fleet.path("source")
        ),
        From::File => format!(
            "type = \"file\"\npath = \"{}\"\nformat = \"json_lines\"\n",
            fleet.path("source")
        ),
    };
    let destination = match postgres {
        None => format!("type = \"sqlite\"\npath = \"{}\"\n", fleet.path("copy.db")),
        Some(postgres) => format!(
            "type = \"postgres\"\nurl = \"{}\"\ntls = {{ mode = \"disable\" }}\n",
            postgres.url()
        ),
    };
    format!(
        "name = \"latency\"\n\n[sources.readings]\ndaemon = \"gateway\"\n{source}\n\
         [destinations.copy]\ndaemon = \"hub\"\nfrom = \"readings\"\n{destination}table = \"{COPY}\"\nkey = []\n"
    )
}

/// Rows go one way at a rate for a while, over `broker`, between two daemons.
#[track_caller]
pub fn latency(broker: Broker, way: Way) -> Latencies {
    let postgres = (way.to == To::Postgres).then(|| Postgres::builder().config("track_commit_timestamp", "on").start());
    let fleet = Fleet::start(broker, None);
    fleet.enrol("gateway");
    fleet.enrol("hub");
    let mut gateway = fleet.daemon("gateway", None);
    let mut hub = fleet.daemon("hub", None);
    let writer = Writer::open(way.from, &fleet.dir().join("source"));
    fleet.apply("latency", &workflow(&fleet, way, postgres.as_ref()));

    let lasts = WARM_UP + way.lasts;
    let began = (cpu(&gateway), cpu(&hub), Instant::now());
    let writing = thread::spawn(move || write(writer, way.rate, lasts));
    let (committed, arrived) = match &postgres {
        Some(postgres) => {
            let committed = writing.join().expect("the writer");
            let rows = committed.last().map_or(0, |(last, _)| *last);
            (committed, ask_postgres(postgres, rows))
        }
        None => {
            let per_commit = way.rate.div_ceil(COMMITS_PER_S_MAX).max(1);
            let apart = Duration::from_secs_f64(per_commit as f64 / way.rate as f64);
            let rows = per_commit * lasts.as_nanos().div_ceil(apart.as_nanos()) as u64;
            let arrived = watch_sqlite(&fleet.dir().join("copy.db"), lasts + SOON, |last| last >= rows);
            (writing.join().expect("the writer"), arrived)
        }
    };
    let cpu = (cpu(&gateway) - began.0, cpu(&hub) - began.1);
    let rows = committed.last().map_or(0, |(last, _)| *last);
    super::balanced(&fleet, 1, rows);
    let peaks_kib = (peak(&gateway), peak(&hub));
    let found = Latencies {
        rate: rate(&committed),
        rows: latencies(&committed, &arrived, (way.rate * WARM_UP.as_secs()).min(rows / 2)),
        cpu,
        peaks_kib,
    };
    assert!(gateway.term_and_wait(STOP).success(), "the gateway drains and stops");
    assert!(hub.term_and_wait(STOP).success(), "the hub drains and stops");
    found
}

/// Rows a second, as they were committed.
fn rate(committed: &[(u64, i64)]) -> f64 {
    match committed {
        [(first, from), .., (last, to)] => (last - first) as f64 * 1e6 / (to - from).max(1) as f64,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_measured_from_its_commit_to_the_one_it_arrived_with() {
        let committed = [(2, 100), (3, 200), (6, 300)];
        let arrived = [(1, 150), (4, 260), (6, 290)];
        let us = |all: &[u64]| all.iter().map(|us| Duration::from_micros(*us)).collect::<Vec<_>>();
        // Rows 1 to 6: 50, 160, 60, and of the last three one came before its writer knew.
        assert_eq!(latencies(&committed, &arrived, 0), us(&[0, 0, 0, 50, 60, 160]));
        assert_eq!(latencies(&committed, &arrived, 2), us(&[0, 0, 0, 60]));
    }

    #[test]
    fn quantiles_are_of_rows_that_were_there() {
        let rows: Vec<Duration> = (1..=1000).map(Duration::from_millis).collect();
        let found = Latencies {
            rows,
            rate: 0.0,
            cpu: Default::default(),
            peaks_kib: (0, 0),
        };
        for (share, millis) in [(0.0, 1), (0.5, 500), (0.99, 990), (0.999, 999), (1.0, 1000)] {
            assert_eq!(found.quantile(share).as_millis(), millis, "{share}");
        }
    }
}
