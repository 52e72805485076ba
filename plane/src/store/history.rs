//! The history of metrics in a file of its own: rows of all series a step, at falling resolution, within a budget of bytes.
//! Losing the file loses the past and nothing else. What is kept, and for how long, is decided in `domain::history`.

use std::{collections::HashMap, path::Path, sync::Arc};

use bus_schema::observe::{Point, Series};
use rusqlite::{Connection, OptionalExtension as _, params};
use tracing::{debug, error, warn};

use super::StoreError;
use crate::domain::{
    history::{Amount, RESOLUTIONS, Rings, Row, RowId, SeriesId, add, pack, resolution_for, unpack},
    readings::{self, Reading},
};

/// The file's name.
pub const FILE: &str = "metrics.db";
/// Budget unless told, in bytes: a month of about a hundred gateways.
pub const BUDGET_BYTES: u64 = 64 << 20;
/// Smallest budget, in bytes.
pub const BUDGET_BYTES_MIN: u64 = 1 << 20;
/// Most series; further ones are not kept.
const SERIES_MAX: usize = 60_000;
/// Series that nobody has told of for this many days are forgotten: longer than the longest resolution.
const SERIES_DAYS: i64 = 32;
/// Bytes of a page. Small ones, because rows of small fleets are.
const PAGE_BYTES: u64 = 1_024;
/// Of the budget, in percent, what rows may take: the rest is for the names of series and SQLite's own.
const ROWS_PERCENT: u64 = 80;
/// Page cache, in KiB.
const CACHE_KIB: i64 = 64;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS rows (id INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS series (
        id INTEGER PRIMARY KEY, subject TEXT NOT NULL, metric TEXT NOT NULL, day INTEGER NOT NULL,
        UNIQUE (subject, metric)
    ) STRICT;";

/// What a row of so many bytes takes in the file, at most.
fn takes(bytes: usize) -> u64 {
    let bytes = bytes as u64 + 32;
    if bytes <= PAGE_BYTES / 4 {
        // Several share a page.
        return bytes * 2;
    }
    (bytes.div_ceil(PAGE_BYTES) + 1) * PAGE_BYTES
}

/// Resolution and step in one number, so that rows of a resolution are neighbours in time.
fn key(row: RowId) -> i64 {
    (row.resolution as i64) << 48 | (row.step & 0xffff_ffff_ffff) as i64
}

fn row_id(key: i64) -> Option<RowId> {
    let resolution = usize::try_from(key >> 48).ok()?;
    (resolution < RESOLUTIONS.len()).then_some(RowId {
        resolution,
        step: (key & 0xffff_ffff_ffff) as u64,
    })
}

/// The open history.
#[derive(Debug)]
pub struct History {
    db: Connection,
    rings: Rings,
    /// Those of one subject share its name, as far as they were met together.
    series: HashMap<(Arc<str>, &'static str), (SeriesId, i64)>,
    last: SeriesId,
    left_out: u64,
    /// The day on which room was made last.
    forgot_day: i64,
}

impl History {
    /// Opens or creates the file. A damaged one is set aside: nothing depends on it.
    pub fn open(dir: &Path, budget_bytes: u64) -> Result<Self, StoreError> {
        let path = dir.join(FILE);
        Self::open_file(&path, budget_bytes).or_else(|cause| {
            let aside = dir.join(format!("{FILE}.damaged"));
            error!(%cause, aside = %aside.display(), "the history of metrics cannot be read; beginning a new one");
            for end in ["", "-wal", "-shm"] {
                let of = |path: &Path| std::path::PathBuf::from(format!("{}{end}", path.display()));
                // What is not there need not be moved; what cannot be moved fails again below.
                let _ = std::fs::rename(of(&path), of(&aside));
            }
            Self::open_file(&path, budget_bytes)
        })
    }

    fn open_file(path: &Path, budget_bytes: u64) -> Result<Self, StoreError> {
        super::make_private(path)?;
        let db = Connection::open(path)?;
        db.pragma_update(None, "page_size", PAGE_BYTES as i64)?;
        super::prepare(&db)?;
        db.pragma_update(None, "cache_size", -CACHE_KIB)?;
        db.execute_batch(SCHEMA)?;
        let mut history = Self {
            db,
            rings: Rings::new(budget_bytes / 100 * ROWS_PERCENT),
            series: HashMap::new(),
            last: 0,
            left_out: 0,
            forgot_day: i64::MIN,
        };
        history.load()?;
        Ok(history)
    }

    fn load(&mut self) -> Result<(), StoreError> {
        let mut gone = Vec::new();
        {
            let mut all = self.db.prepare("SELECT id, length(body) FROM rows ORDER BY id")?;
            let mut rows = all.query([])?;
            while let Some(row) = rows.next()? {
                let (id, bytes): (i64, i64) = (row.get(0)?, row.get(1)?);
                let bytes = takes(usize::try_from(bytes).unwrap_or(0));
                match row_id(id).and_then(|id| self.rings.put(id, bytes)) {
                    Some(more) => gone.extend(more.into_iter().map(key)),
                    // It is larger than a smaller budget allows.
                    None => gone.push(id),
                }
            }
            let sql = "SELECT id, subject, metric, day FROM series ORDER BY subject";
            let mut all = self.db.prepare(sql)?;
            let mut rows = all.query([])?;
            let mut subject: Arc<str> = Arc::from("");
            while let Some(row) = rows.next()? {
                let (id, name, day): (SeriesId, String, i64) = (row.get(0)?, row.get(2)?, row.get(3)?);
                self.last = self.last.max(id);
                let of = row.get_ref(1)?.as_str().unwrap_or_default();
                if *subject != *of {
                    subject = Arc::from(of);
                }
                if let Some((metric, _)) = readings::ALL.iter().find(|(metric, _)| *metric == name) {
                    self.series.insert((Arc::clone(&subject), metric), (id, day));
                }
            }
        }
        for id in gone {
            self.db.execute("DELETE FROM rows WHERE id = ?1", [id])?;
        }
        Ok(())
    }

    /// Writes what was read in the step that ended at `now_s`, and puts coarser rows together that are over. All of it or
    /// nothing.
    pub fn write(&mut self, readings: &[Reading], now_s: u64) -> Result<(), StoreError> {
        self.db.execute_batch("BEGIN IMMEDIATE")?;
        let done = self.write_all(readings, now_s);
        let done = done.and_then(|()| Ok(self.db.execute_batch("COMMIT")?));
        if done.is_err() {
            // SQLite may have rolled back by itself. What is in memory follows what is on disk.
            let _ = self.db.execute_batch("ROLLBACK");
            self.rings.clear();
            self.series.clear();
            self.load()?;
        }
        done
    }

    fn write_all(&mut self, readings: &[Reading], now_s: u64) -> Result<(), StoreError> {
        let future = self.rings.from_the_future(now_s);
        if !future.is_empty() {
            warn!(
                rows = future.len(),
                "the clock was set back: history that was written under a later time is forgotten"
            );
        }
        for row in future {
            self.db.execute("DELETE FROM rows WHERE id = ?1", [key(row)])?;
        }
        let row = self.row(readings, (now_s / 86_400) as i64)?;
        let step = (now_s / RESOLUTIONS[0].step_s).saturating_sub(1);
        for resolution in 1..RESOLUTIONS.len() {
            // This row is not there yet: what it belongs to is not over.
            for due in self.rings.due(resolution, step * RESOLUTIONS[0].step_s) {
                let sum = self.sum(due)?;
                self.put(due, &sum)?;
            }
        }
        self.put(RowId { resolution: 0, step }, &row)
    }

    fn row(&mut self, readings: &[Reading], day: i64) -> Result<Row, StoreError> {
        let mut row = Row::new();
        let mut left_out = 0;
        for reading in readings {
            let name = (Arc::clone(&reading.subject), reading.metric.0);
            let id = match self.series.get(&name).copied() {
                Some((id, seen)) if seen >= day => id,
                Some((id, _)) => {
                    self.db
                        .prepare_cached("UPDATE series SET day = ?2 WHERE id = ?1")?
                        .execute(params![id, day])?;
                    self.series.insert(name, (id, day));
                    id
                }
                None => {
                    self.forget_old(day)?;
                    if self.series.len() >= SERIES_MAX {
                        left_out += 1;
                        continue;
                    }
                    self.last += 1;
                    let sql = "INSERT INTO series (id, subject, metric, day) VALUES (?1, ?2, ?3, ?4)";
                    self.db
                        .prepare_cached(sql)?
                        .execute(params![self.last, name.0, name.1, day])?;
                    self.series.insert(name, (self.last, day));
                    self.last
                }
            };
            row.insert(id, reading.amount);
        }
        if left_out > 0 && self.left_out == 0 {
            warn!(
                left_out,
                "the history keeps {SERIES_MAX} series at most; the others are left out"
            );
        }
        self.left_out = left_out;
        Ok(row)
    }

    /// Makes room when there is none. Once a day: looking through all for each one that finds no room would take for ever.
    fn forget_old(&mut self, day: i64) -> Result<(), StoreError> {
        if self.series.len() < SERIES_MAX || self.forgot_day == day {
            return Ok(());
        }
        self.forgot_day = day;
        let before = day - SERIES_DAYS;
        self.series.retain(|_, (_, seen)| *seen >= before);
        self.db.execute("DELETE FROM series WHERE day < ?1", [before])?;
        Ok(())
    }

    fn sum(&self, coarse: RowId) -> Result<Row, StoreError> {
        let fine = coarse.resolution - 1;
        let ratio = RESOLUTIONS[coarse.resolution].step_s / RESOLUTIONS[fine].step_s;
        let mut sum = Row::new();
        self.each(fine, coarse.step * ratio, (coarse.step + 1) * ratio, |_, row| {
            add(&mut sum, &row)
        })?;
        Ok(sum)
    }

    fn each(
        &self,
        resolution: usize,
        from_step: u64,
        to_step: u64,
        mut see: impl FnMut(u64, Row),
    ) -> Result<(), StoreError> {
        let sql = "SELECT id, body FROM rows WHERE id >= ?1 AND id < ?2 ORDER BY id";
        let mut statement = self.db.prepare_cached(sql)?;
        let bounds = [from_step, to_step].map(|step| key(RowId { resolution, step }));
        let mut rows = statement.query(bounds)?;
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            match (row_id(id), unpack(row.get_ref(1)?.as_blob().unwrap_or(&[]))) {
                (Some(id), Some(row)) => see(id.step, row),
                _ => debug!(id, "a damaged row of the history is left out"),
            }
        }
        Ok(())
    }

    fn put(&mut self, id: RowId, row: &Row) -> Result<(), StoreError> {
        let body = pack(row);
        let Some(gone) = self.rings.put(id, takes(body.len())) else {
            return Ok(());
        };
        for gone in gone {
            self.db
                .prepare_cached("DELETE FROM rows WHERE id = ?1")?
                .execute([key(gone)])?;
        }
        let sql = "INSERT OR REPLACE INTO rows (id, body) VALUES (?1, ?2)";
        self.db.prepare_cached(sql)?.execute(params![key(id), body])?;
        Ok(())
    }

    /// The history of a subject, by metric; `None` when nothing is known of it at all.
    pub fn read(
        &self,
        subject: &str,
        metric: Option<&str>,
        (from_s, to_s): (u64, u64),
        now_s: u64,
        points_max: usize,
    ) -> Result<Option<Vec<Series>>, StoreError> {
        let mut found: Vec<(SeriesId, Series)> = Vec::new();
        let asked: Arc<str> = Arc::from(subject);
        let resolution = resolution_for(from_s, to_s, now_s, points_max as u64);
        let step_s = RESOLUTIONS[resolution].step_s;
        for (name, unit) in readings::ALL {
            if metric.is_some_and(|wanted| wanted != name) {
                continue;
            }
            if let Some((id, _)) = self.series.get(&(Arc::clone(&asked), name)) {
                let series = Series {
                    subject: subject.to_string(),
                    metric: name.to_string(),
                    unit: unit.to_string(),
                    step_s,
                    points: Vec::new(),
                };
                found.push((*id, series));
            }
        }
        if found.is_empty() {
            return Ok(None);
        }
        self.each(resolution, from_s / step_s, to_s.div_ceil(step_s), |step, row| {
            for (id, series) in &mut found {
                if let Some(amount) = row.get(id)
                    && series.points.len() < points_max
                {
                    series.points.push(point(step * step_s, step_s, amount));
                }
            }
        })?;
        found.retain(|(_, series)| !series.points.is_empty());
        Ok(Some(found.into_iter().map(|(_, series)| series).collect()))
    }

    /// Every subject there is history of.
    pub fn subjects(&self) -> Result<Vec<String>, StoreError> {
        let mut statement = self
            .db
            .prepare("SELECT DISTINCT subject FROM series ORDER BY subject")?;
        let rows = statement.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Bytes of the file and what its rows take by the budget's reckoning.
    pub fn size(&self) -> Result<(u64, u64), StoreError> {
        let pages: Option<i64> = self
            .db
            .query_row("PRAGMA page_count", [], |row| row.get(0))
            .optional()?;
        let size: Option<i64> = self.db.query_row("PRAGMA page_size", [], |row| row.get(0)).optional()?;
        let bytes = pages.unwrap_or(0).saturating_mul(size.unwrap_or(0));
        Ok((u64::try_from(bytes).unwrap_or(0), self.rings.used_bytes()))
    }
}

fn point(at_s: u64, step_s: u64, amount: &Amount) -> Point {
    let milli = |value: u64| value.saturating_mul(1_000);
    let (min, mean, max) = match amount {
        Amount::Growth(count) => {
            let rate = milli(*count) / step_s;
            (rate, rate, rate)
        }
        Amount::Gauge(gauge) => {
            let mean = gauge.sum() * 1_000 / u128::from(gauge.count().max(1));
            (
                milli(gauge.min()),
                u64::try_from(mean).unwrap_or(u64::MAX),
                milli(gauge.max()),
            )
        }
    };
    Point {
        at_unix_ms: i64::try_from(at_s * 1_000).unwrap_or(i64::MAX),
        min_milli: min,
        mean_milli: mean,
        max_milli: max,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::history::Gauge;

    const START_S: u64 = 1_700_000_400;

    fn readings(series: usize, step: u64) -> Vec<Reading> {
        (0..series)
            .flat_map(|n| {
                let of = |metric, amount| Reading {
                    subject: format!("daemon:gw-{n}").into(),
                    metric,
                    amount,
                };
                [
                    of(readings::RECORDS, Amount::Growth(100 + step % 7)),
                    of(
                        readings::MEMORY,
                        Amount::Gauge(Gauge::of(9_000_000 + step * 4_096 % 50_000)),
                    ),
                ]
            })
            .collect()
    }

    fn fill(history: &mut History, series: usize, steps: std::ops::Range<u64>) {
        for step in steps {
            history.write(&readings(series, step), START_S + step * 10).unwrap();
        }
    }

    #[test]
    fn survives_a_restart_and_loses_at_most_the_last_step() {
        let dir = tempfile::tempdir().unwrap();
        let mut history = History::open(dir.path(), BUDGET_BYTES).unwrap();
        fill(&mut history, 2, 0..100);
        let now = START_S + 990;
        let span = (START_S - 60, now);
        let before = history.read("daemon:gw-1", None, span, now, 1_500).unwrap().unwrap();
        // Not closed in good order: a copy of what is on disk at this moment.
        let copy = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(dir.path()).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
        }
        let again = History::open(copy.path(), BUDGET_BYTES).unwrap();
        let after = again.read("daemon:gw-1", None, span, now, 1_500).unwrap().unwrap();
        assert_eq!(before, after);
        assert_eq!(
            after.iter().map(|series| series.points.len()).collect::<Vec<_>>(),
            [100, 100]
        );
        let memory = &after.iter().find(|series| series.metric == "memory").unwrap().points[0];
        assert_eq!((memory.min_milli, memory.max_milli), (9_000_000_000, 9_000_000_000));
        let records = &after.iter().find(|series| series.metric == "records").unwrap().points[1];
        assert_eq!(records.mean_milli, 10_100, "101 in ten seconds");
        assert_eq!(again.read("daemon:none", None, span, now, 1_500).unwrap(), None);
        let none = again.read("daemon:gw-1", Some("lag"), span, now, 1_500).unwrap();
        assert_eq!(none, None);
    }

    #[test]
    fn hours_become_coarse_and_sums_stay() {
        let dir = tempfile::tempdir().unwrap();
        let mut history = History::open(dir.path(), BUDGET_BYTES).unwrap();
        // Three hours.
        fill(&mut history, 1, 0..1_080);
        let now = START_S + 10_790;
        let read = |from: u64, to: u64| {
            let all = history
                .read("daemon:gw-0", Some("records"), (from, to), now, 1_500)
                .unwrap();
            all.unwrap().remove(0)
        };
        let fine = read(now - 3_500, now);
        assert_eq!(fine.step_s, 10);
        let coarse = read(START_S, now);
        assert_eq!(coarse.step_s, 60);
        let records: u64 = coarse.points.iter().map(|point| point.mean_milli * 60 / 1_000).sum();
        // Rows 1..: the one of step 0 ended where the first whole minute begins.
        let until = coarse.points.last().unwrap().at_unix_ms as u64 / 1_000 + 60;
        let told: u64 = (1..1_080)
            .filter(|step| START_S + step * 10 <= until)
            .map(|step| 100 + step % 7)
            .sum();
        assert!(
            records.abs_diff(told) <= coarse.points.len() as u64,
            "{records} {told}: rounded per point"
        );
    }

    #[test]
    fn the_file_stays_within_its_budget() {
        let dir = tempfile::tempdir().unwrap();
        let budget = BUDGET_BYTES_MIN;
        let mut history = History::open(dir.path(), budget).unwrap();
        history.db.pragma_update(None, "synchronous", "OFF").unwrap();
        fill(&mut history, 50, 0..3_000);
        let (file, used) = history.size().unwrap();
        assert!(file <= budget, "{file} of {budget} bytes");
        assert!(used > budget / 4, "{used}: there was more to keep");
        // A smaller budget holds from the next start on.
        drop(history);
        let history = History::open(dir.path(), budget / 2).unwrap();
        assert!(history.size().unwrap().1 <= budget / 2);
    }

    #[test]
    fn a_damaged_file_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), b"this is no database at all. ".repeat(100)).unwrap();
        let mut history = History::open(dir.path(), BUDGET_BYTES).unwrap();
        fill(&mut history, 1, 0..2);
        assert!(dir.path().join("metrics.db.damaged").exists());
        assert_eq!(history.subjects().unwrap(), ["daemon:gw-0"]);
    }
}
