//! The judge of every fault test: knows what was produced, reads what is at a destination, and accuses. Reads databases
//! and files only; never asks a daemon, so that nothing the product believes can acquit it.
//!
//! | it accuses of | when |
//! |---|---|
//! | lost | a row was produced and is not there |
//! | doubled | a row is there more than once |
//! | altered | a value is not bit for bit what was produced |
//! | invented | a row is there that nobody produced |
//! | disordered | a row arrived after one that was produced later |

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rusqlite::{Connection, OpenFlags, types::ValueRef};
use sha2::{Digest, Sha256};

use crate::{NULL, Postgres, shop};

/// How many offenders of each kind are shown.
const SHOWN_MAX: usize = 3;
/// Values of at most so many bytes are compared as they are, longer ones by their digest.
const PLAIN_BYTES_MAX: usize = 32;
/// How long a reader waits for a database that is being written to.
const BUSY_MAX: Duration = Duration::from_secs(10);

/// The columns of the shop that every destination can hold, in order.
const TYPED: &[&str] = &["id", "name", "price", "quantity", "note", "photo"];
/// All columns of the shop; only SQLite has a column without a type.
const ALL: &[&str] = &["id", "name", "price", "quantity", "note", "photo", "misc"];

/// A row as the oracle sees it: each value in a form that is the same wherever it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    id: i64,
    cells: Vec<String>,
}

impl Row {
    fn digest(&self) -> [u8; 16] {
        let mut hash = Sha256::new();
        for cell in &self.cells {
            hash.update((cell.len() as u64).to_le_bytes());
            hash.update(cell);
        }
        let mut short = [0; 16];
        short.copy_from_slice(&hash.finalize()[..16]);
        short
    }
}

/// What was produced: the shop's own table.
#[derive(Debug)]
pub struct Produced {
    source: PathBuf,
    columns: &'static [&'static str],
    /// Where in the order of production, and a digest of the values.
    rows: HashMap<i64, (usize, [u8; 16])>,
    payload_bytes: u64,
}

impl Produced {
    /// All columns, for a destination that holds all of them.
    pub fn all(source: &Path) -> Result<Self> {
        Self::read(source, ALL)
    }

    /// Without the column that has no type.
    pub fn typed(source: &Path) -> Result<Self> {
        Self::read(source, TYPED)
    }

    fn read(source: &Path, columns: &'static [&'static str]) -> Result<Self> {
        let mut produced = Self {
            source: source.to_path_buf(),
            columns,
            rows: HashMap::new(),
            payload_bytes: 0,
        };
        let mut index = 0;
        let bytes = sqlite_rows(source, shop::TABLE, columns, "id", |row| {
            produced.rows.insert(row.id, (index, row.digest()));
            index += 1;
        })?;
        produced.payload_bytes = bytes;
        Ok(produced)
    }

    /// How many rows.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows.len() as u64
    }

    /// Bytes of all values: text and blobs as they are, 8 for a number.
    #[must_use]
    pub fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// Judges a table of a SQLite database. It has a key of its own that grows with each arrival.
    pub fn judge_sqlite(&self, path: &Path, table: &str) -> Result<Verdict> {
        let mut trial = Trial::new(self, &format!("{}:{table}", path.display()));
        sqlite_rows(path, table, self.columns, "rowid", |row| trial.hear(&row))?;
        Ok(trial.verdict())
    }

    /// Judges a table of a PostgreSQL. It has a column `arrived`, a `bigserial`; without one the order of ids is taken,
    /// and nobody can be accused of disorder.
    pub fn judge_postgres(&self, postgres: &Postgres, table: &str) -> Result<Verdict> {
        let rows = postgres_rows(postgres, table)?;
        let mut trial = Trial::new(self, &format!("postgres:{table}"));
        rows.iter().for_each(|row| trial.hear(row));
        Ok(trial.verdict())
    }

    /// Judges CSV files, in the order given, each with a header.
    pub fn judge_csv(&self, files: &[PathBuf]) -> Result<Verdict> {
        let name = files
            .first()
            .map_or_else(String::new, |file| file.display().to_string());
        let mut trial = Trial::new(self, &name);
        for file in files {
            csv_rows(file, |row| trial.hear(&row)).with_context(|| format!("cannot read {}", file.display()))?;
        }
        Ok(trial.verdict())
    }

    fn original(&self, id: i64) -> Option<Row> {
        let mut found = None;
        let filter = format!("id = {id} ORDER BY id");
        sqlite_rows_where(&self.source, shop::TABLE, self.columns, &filter, |row| {
            found = Some(row)
        })
        .ok()?;
        found
    }
}

/// One kind of accusation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offence {
    /// How often.
    pub count: u64,
    /// The first few offenders.
    pub first: Vec<String>,
}

impl Offence {
    fn add(&mut self, offender: impl FnOnce() -> String) {
        self.count += 1;
        if self.first.len() < SHOWN_MAX {
            self.first.push(offender());
        }
    }
}

/// What the oracle says about one destination.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Which destination.
    pub place: String,
    /// Rows produced.
    pub produced: u64,
    /// Rows at the destination.
    pub found: u64,
    /// Produced and not there.
    pub lost: Offence,
    /// There more than once.
    pub doubled: Offence,
    /// There with another value.
    pub altered: Offence,
    /// There, and never produced.
    pub invented: Offence,
    /// Arrived after a row that was produced later.
    pub disordered: Offence,
}

impl Verdict {
    /// Each kind of accusation by name.
    #[must_use]
    pub fn offences(&self) -> [(&'static str, &Offence); 5] {
        [
            ("lost", &self.lost),
            ("doubled", &self.doubled),
            ("altered", &self.altered),
            ("invented", &self.invented),
            ("disordered", &self.disordered),
        ]
    }

    /// Whether there is nothing to accuse anybody of.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.offences().iter().all(|(_, offence)| offence.count == 0)
    }

    /// The number of rows if nobody is accused, else the accusation.
    pub fn acquit(self) -> Result<u64> {
        anyhow::ensure!(self.is_clean(), "{self}");
        Ok(self.found)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} of {} rows", self.place, self.found, self.produced)?;
        for (kind, offence) in self.offences() {
            if offence.count > 0 {
                write!(f, "; {} {kind} ({})", offence.count, offence.first.join("; "))?;
            }
        }
        Ok(())
    }
}

/// Hears the rows of one destination in the order in which they arrived.
struct Trial<'a> {
    produced: &'a Produced,
    seen: HashMap<i64, u32>,
    /// The latest row so far, in the order of production.
    latest: Option<(usize, i64)>,
    verdict: Verdict,
}

impl<'a> Trial<'a> {
    fn new(produced: &'a Produced, place: &str) -> Self {
        Self {
            produced,
            seen: HashMap::with_capacity(produced.rows.len()),
            latest: None,
            verdict: Verdict {
                place: place.to_string(),
                produced: produced.rows(),
                ..Verdict::default()
            },
        }
    }

    fn hear(&mut self, row: &Row) {
        let (verdict, id) = (&mut self.verdict, row.id);
        verdict.found += 1;
        let Some((index, digest)) = self.produced.rows.get(&id) else {
            return verdict.invented.add(|| format!("id {id}"));
        };
        if *digest != row.digest() {
            verdict.altered.add(|| describe(self.produced, row));
        }
        let times = self.seen.entry(id).or_default();
        *times += 1;
        if *times > 1 {
            return verdict.doubled.add(|| format!("id {id}"));
        }
        match self.latest {
            Some((latest, before)) if latest > *index => {
                verdict.disordered.add(|| format!("id {id} after id {before}"));
            }
            _ => self.latest = Some((*index, id)),
        }
    }

    fn verdict(mut self) -> Verdict {
        let missing = self.produced.rows.keys().filter(|id| !self.seen.contains_key(id));
        let mut missing: Vec<i64> = missing.copied().collect();
        missing.sort_unstable();
        for id in missing {
            self.verdict.lost.add(|| format!("id {id}"));
        }
        self.verdict
    }
}

fn describe(produced: &Produced, row: &Row) -> String {
    let id = row.id;
    let Some(original) = produced.original(id) else {
        return format!("id {id}");
    };
    let mut pairs = produced.columns.iter().zip(original.cells.iter().zip(&row.cells));
    let differing = pairs.find(|(_, (was, is))| was != is);
    differing.map_or_else(
        || format!("id {id}: {} columns became {}", original.cells.len(), row.cells.len()),
        |(column, (was, is))| format!("id {id}: {column} {was} became {is}"),
    )
}

/// The books of all streams against what was produced: what does not balance, or does not agree with the oracle.
#[must_use]
pub fn accuse_ledger(edge: &str, ledger: &crate::Ledger, produced: u64) -> Option<String> {
    if let Some(imbalance) = ledger.imbalance() {
        return Some(format!("{edge}: the ledger does not balance: {imbalance}"));
    }
    let all = crate::Ledger {
        produced,
        delivered: produced,
        ..crate::Ledger::default()
    };
    (*ledger != all).then(|| format!("{edge}: {produced} rows were produced, and the ledger says {ledger:?}"))
}

/// Opens a database for reading, as it is: a copy in the middle of a recovery is not touched.
fn open(path: &Path) -> Result<Connection> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
        .with_context(|| format!("cannot open {}", path.display()))?;
    db.busy_timeout(BUSY_MAX)?;
    Ok(db)
}

fn sqlite_rows(path: &Path, table: &str, columns: &[&str], order: &str, each: impl FnMut(Row)) -> Result<u64> {
    sqlite_rows_where(path, table, columns, &format!("TRUE ORDER BY {order}"), each)
}

/// Gives the bytes of all values.
fn sqlite_rows_where(
    path: &Path,
    table: &str,
    columns: &[&str],
    filter: &str,
    mut each: impl FnMut(Row),
) -> Result<u64> {
    let db = open(path)?;
    let mut select = db.prepare(&format!(
        "SELECT {} FROM \"{table}\" WHERE {filter}",
        columns.join(", ")
    ))?;
    let mut rows = select.query([])?;
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let id = row.get(0)?;
        let mut cells = Vec::with_capacity(columns.len());
        for column in 0..columns.len() {
            let value = row.get_ref(column)?;
            bytes += value_bytes(value);
            cells.push(cell(value));
        }
        each(Row { id, cells });
    }
    Ok(bytes)
}

fn value_bytes(value: ValueRef<'_>) -> u64 {
    match value {
        ValueRef::Null => 0,
        ValueRef::Integer(_) | ValueRef::Real(_) => 8,
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len() as u64,
    }
}

/// Storage class and bytes; floats bit for bit.
fn cell(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "null".to_string(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => float(number),
        ValueRef::Text(text) => format!("t:{}", short(text)),
        ValueRef::Blob(blob) => format!("x:{}", short(blob)),
    }
}

fn float(number: f64) -> String {
    format!("f:{:016x}", number.to_bits())
}

/// PostgreSQL can say the same, see [`sql_short`].
fn short(bytes: &[u8]) -> String {
    if bytes.len() <= PLAIN_BYTES_MAX {
        hex(bytes)
    } else {
        format!("{}/{}", hex(&Sha256::digest(bytes)), bytes.len())
    }
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn sql_short(kind: &str, bytes: &str) -> String {
    format!(
        "'{kind}:' || CASE WHEN octet_length({bytes}) <= {PLAIN_BYTES_MAX} THEN encode({bytes}, 'hex')
         ELSE encode(sha256({bytes}), 'hex') || '/' || octet_length({bytes}) END"
    )
}

fn postgres_rows(postgres: &Postgres, table: &str) -> Result<Vec<Row>> {
    let ask = |sql: &str| -> Result<Vec<Vec<String>>> {
        let done = postgres.try_query_in("postgres", sql);
        anyhow::ensure!(done.status.success(), "{}", done.stderr);
        Ok(crate::postgres::parse_rows(&done.stdout))
    };
    let stamped = ask(&format!(
        "SELECT 1 FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attname = 'arrived'"
    ))?;
    let order = if stamped.is_empty() { "id" } else { "arrived" };
    let text = |column: &str| sql_short("t", &format!("convert_to({column}, 'UTF8')"));
    let rows = ask(&format!(
        "SELECT id, {}, 'f:' || encode(float8send(price), 'hex'), quantity, {}, {} FROM {table} ORDER BY {order}",
        text("name"),
        text("note"),
        sql_short("x", "photo"),
    ))?;
    let null = |cell: String| if cell == NULL { "null".to_string() } else { cell };
    let row = |cells: Vec<String>| {
        let id = cells
            .first()
            .and_then(|id| id.parse().ok())
            .context("a row without an id")?;
        Ok(Row {
            id,
            cells: cells.into_iter().map(null).collect(),
        })
    };
    rows.into_iter().map(row).collect()
}

/// No field of the shop is an empty text, so that an empty field is null.
fn csv_rows(path: &Path, mut each: impl FnMut(Row)) -> Result<()> {
    let mut reader = csv::ReaderBuilder::new().from_path(path)?;
    let header = reader.headers()?.clone();
    let places: Vec<Option<usize>> = TYPED
        .iter()
        .map(|column| header.iter().position(|name| name == *column))
        .collect();
    for record in reader.records() {
        let record = record?;
        let mut cells = Vec::with_capacity(TYPED.len());
        for (column, place) in TYPED.iter().zip(&places) {
            let text = place.and_then(|place| record.get(place)).unwrap_or_default();
            cells.push(csv_cell(column, text).with_context(|| format!("{column} is '{text}'"))?);
        }
        let id = cells[0].parse().context("a record without an id")?;
        each(Row { id, cells });
    }
    Ok(())
}

fn csv_cell(column: &str, text: &str) -> Result<String> {
    if text.is_empty() {
        return Ok("null".to_string());
    }
    Ok(match column {
        "price" => float(text.parse()?),
        "name" | "note" => format!("t:{}", short(text.as_bytes())),
        "photo" => format!("x:{}", short(&unhex(text).context("not hexadecimal")?)),
        _ => text.to_string(),
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests;
