//! A table that holds everything SQLite can hold, and a writer that keeps adding to it. Judges nothing: that is the
//! oracle's.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context, Result};
use rusqlite::Connection;

use crate::{Dice, oracle::Produced};

/// The table's name.
pub const TABLE: &str = "orders";

/// Names from many places, so that no byte of UTF-8 is left out by luck.
const NAMES: [&str; 6] = [
    "Grüße",
    "東京",
    "плата",
    "naïve café",
    "🚀 rocket",
    "O'Brien \"quoted\", comma",
];

fn open(path: &Path) -> Result<Connection> {
    let db = Connection::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    db.busy_timeout(Duration::from_secs(10))?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    Ok(db)
}

fn number(db: &Connection, sql: &str) -> rusqlite::Result<u64> {
    db.query_row(sql, [], |row| row.get::<_, i64>(0))
        .map(i64::cast_unsigned)
}

/// Creates the table if it is not there.
pub fn create(path: &Path) -> Result<()> {
    open(path)?.execute_batch(&format!(
        "CREATE TABLE IF NOT EXISTS {TABLE} (
            id INTEGER PRIMARY KEY,
            name TEXT NOT NULL,
            price REAL,
            quantity INTEGER,
            note TEXT,
            photo BLOB,
            misc
        )"
    ))?;
    Ok(())
}

/// How large the rows are: a bound on the photo of each in bytes. Small ones have one of 32 bytes now and then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sizes {
    /// About 70 bytes a row.
    Small,
    /// Anything up to so many bytes, most of it small.
    UpTo(u64),
}

/// Adds rows; their content follows from their id alone. Returns the highest id.
pub fn add(path: &Path, rows: u64) -> Result<u64> {
    add_sized(path, rows, Sizes::Small)
}

/// Adds rows of these sizes; their content follows from their id alone. Returns the highest id.
pub fn add_sized(path: &Path, rows: u64, sizes: Sizes) -> Result<u64> {
    let mut db = open(path)?;
    let mut last = number(&db, &format!("SELECT COALESCE(MAX(id), 0) FROM {TABLE}"))?;
    let mut left = rows;
    while left > 0 {
        let part = left.min(5_000);
        let transaction = db.transaction()?;
        {
            let sql = format!("INSERT INTO {TABLE} VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)");
            let mut insert = transaction.prepare_cached(&sql)?;
            for id in last + 1..=last + part {
                let name = format!("{} {id}", NAMES[(id % 6) as usize]);
                let note = (id % 3 != 0).then(|| format!("note {id}"));
                let photo = photo(id, sizes);
                insert.execute(rusqlite::params![
                    id as i64,
                    name,
                    price(id),
                    quantity(id),
                    note,
                    photo,
                    Misc(id)
                ])?;
            }
        }
        transaction.commit()?;
        last += part;
        left -= part;
    }
    Ok(last)
}

fn photo(id: u64, sizes: Sizes) -> Option<Vec<u8>> {
    match sizes {
        Sizes::Small => id.is_multiple_of(5).then(|| id.to_le_bytes().repeat(4)),
        Sizes::UpTo(bytes_max) => {
            let mut dice = Dice::new(id);
            // A bound that is random itself: half of the rows are a small part of the largest.
            let bound = (bytes_max >> dice.roll(6)).max(1);
            // At least one: CSV as most readers see it does not tell an empty value from none.
            let bytes = dice.between(1, bound) as usize;
            let noise = std::iter::repeat_with(|| dice.roll(u64::MAX).to_le_bytes()).flatten();
            (id % 5 != 1).then(|| noise.take(bytes).collect())
        }
    }
}

fn price(id: u64) -> Option<f64> {
    match id % 11 {
        0 => None,
        1 => Some(-0.0),
        2 => Some(f64::MIN_POSITIVE),
        3 => Some(f64::MAX),
        4 => Some(f64::INFINITY),
        5 => Some(0.1 + 0.2),
        _ => Some(id as f64 / 7.0),
    }
}

fn quantity(id: u64) -> Option<i64> {
    match id % 7 {
        0 => Some(i64::MAX),
        1 => Some(i64::MIN),
        2 => None,
        _ => Some(id as i64),
    }
}

/// A value of every storage class, in turn, in a column without a type.
struct Misc(u64);

impl rusqlite::ToSql for Misc {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        use rusqlite::types::{ToSqlOutput, Value};
        Ok(ToSqlOutput::Owned(match self.0 % 5 {
            0 => Value::Null,
            1 => Value::Integer(self.0 as i64),
            2 => Value::Real(self.0 as f64 / 3.0),
            3 => Value::Text(format!("{}", self.0)),
            _ => Value::Blob(vec![0, 0xff, self.0 as u8]),
        }))
    }
}

/// Adds about `rate` rows a second until told to stop. Returns the highest id.
pub fn write_until(path: &Path, rate: u64, stop: &AtomicBool) -> Result<u64> {
    let mut last = add(path, 0)?;
    while !stop.load(Ordering::Relaxed) {
        last = add(path, (rate / 10).max(1))?;
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(last)
}

/// Rows in a table; 0 when it is not there yet.
pub fn count(path: &Path, table: &str) -> u64 {
    let Ok(db) = open(path) else { return 0 };
    number(&db, &format!("SELECT COUNT(*) FROM \"{table}\"")).unwrap_or(0)
}

/// Asks the oracle about a copy of the whole table. Returns the number of rows, or the accusation.
pub fn compare(source: &Path, copy: &Path, copy_table: &str) -> Result<u64> {
    Produced::all(source)?.judge_sqlite(copy, copy_table)?.acquit()
}
