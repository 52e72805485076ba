//! A dead letter as it lies in the store: every field is covered by a checksum, because SQLite has none.

use bus_schema::id::hash;
use flow::{DeadLetter, LetterPoint};
use rusqlite::{Connection, OptionalExtension, Row as SqlRow, params};

use super::store::StoreError;

/// Columns of a letter, in the order of [`Row::read`] and of the table.
pub(super) const COLUMNS: &str = "id, root, path, node, point, seq, row, state, number, replays, reason, refusal, \
                                  boot, uptime_ms, unix_ms, record_bytes, digest, seal";

/// What counts against the bound besides a record's own bytes: the rest of its row, and SQLite's pages.
const OVERHEAD_BYTES: u64 = 512;

/// How a letter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It waits for a person.
    Kept,
    /// It will be tried again.
    Queued,
    /// Its pipe ended before its batch was committed, and read the record again since.
    Doubtful,
    /// The same, and it will be tried again should it die again.
    DoubtfulQueued,
}

impl State {
    const ALL: [State; 4] = [State::Kept, State::Queued, State::Doubtful, State::DoubtfulQueued];

    pub(super) fn code(self) -> i64 {
        Self::ALL.iter().position(|state| *state == self).unwrap_or_default() as i64
    }

    fn of(code: i64) -> Option<Self> {
        Self::ALL.get(usize::try_from(code).ok()?).copied()
    }

    /// Whether it is in doubt that the letter is one.
    pub fn is_doubtful(self) -> bool {
        matches!(self, State::Doubtful | State::DoubtfulQueued)
    }

    /// Whether somebody wished that it be tried again.
    pub fn is_queued(self) -> bool {
        matches!(self, State::Queued | State::DoubtfulQueued)
    }

    pub(super) fn doubted(self) -> Self {
        if self.is_queued() {
            State::DoubtfulQueued
        } else {
            State::Doubtful
        }
    }

    pub(super) fn certain(self) -> Self {
        if self.is_queued() { State::Queued } else { State::Kept }
    }
}

/// When a letter was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The daemon's epoch.
    pub boot: u64,
    /// Since the daemon's start.
    pub uptime_ms: u64,
    /// By the host's clock, which may be wrong.
    pub unix_ms: i64,
}

/// Everything about a letter but its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Rises with every letter of a workflow.
    pub id: u64,
    /// The pipe, by its source's name.
    pub root: String,
    /// The way to where it died.
    pub path: String,
    /// The node where it died.
    pub node: String,
    /// At which kind of node.
    pub point: LetterPoint,
    /// Batch and row, while its pipe could still write the same letter again.
    pub key: Option<(u64, u32)>,
    /// How it stands.
    pub state: State,
    /// Its place among those that are tried again, once it has one.
    pub number: Option<u64>,
    /// How often it was tried again before.
    pub replays: u32,
    /// Why it died.
    pub reason: String,
    /// Why it could not be tried again; empty when it was not refused.
    pub refusal: String,
    /// When.
    pub stamp: Stamp,
    /// Size of the record.
    pub record_bytes: u64,
    /// Of the record.
    pub digest: [u8; 32],
}

/// Recognises a record.
pub(super) fn digest(record: &[u8]) -> [u8; 32] {
    hash("mycelial dead letter record v1", &[record])
}

fn point_code(point: LetterPoint) -> i64 {
    match point {
        LetterPoint::Source => 0,
        LetterPoint::Transform => 1,
        LetterPoint::Destination => 2,
    }
}

fn point_of(code: i64) -> Option<LetterPoint> {
    [LetterPoint::Source, LetterPoint::Transform, LetterPoint::Destination]
        .into_iter()
        .find(|point| point_code(*point) == code)
}

impl Row {
    pub(super) fn new(id: u64, letter: &DeadLetter, stamp: Stamp) -> Self {
        Self {
            id,
            root: letter.key.root.clone(),
            path: letter.key.path.clone(),
            node: letter.node.clone(),
            point: letter.point,
            key: Some((letter.key.seq, letter.key.row)),
            state: State::Kept,
            number: None,
            replays: letter.replays,
            reason: shortened(&letter.reason),
            refusal: String::new(),
            stamp,
            record_bytes: letter.record.len() as u64,
            digest: digest(&letter.record),
        }
    }

    /// What it takes of the bound.
    pub(super) fn cost(&self) -> u64 {
        self.record_bytes + (self.path.len() + self.reason.len()) as u64 + OVERHEAD_BYTES
    }

    fn seal(&self) -> Vec<u8> {
        let numbers = [
            self.id,
            self.key.map_or(0, |(seq, _)| seq + 1),
            self.key.map_or(0, |(_, row)| u64::from(row) + 1),
            self.state.code() as u64,
            self.number.unwrap_or(0),
            u64::from(self.replays),
            point_code(self.point) as u64,
            self.stamp.boot,
            self.stamp.uptime_ms,
            self.stamp.unix_ms as u64,
            self.record_bytes,
        ];
        let numbers: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        let texts = [&self.root, &self.path, &self.node, &self.reason, &self.refusal];
        let mut parts: Vec<&[u8]> = texts.iter().map(|text| text.as_bytes()).collect();
        parts.extend([numbers.as_slice(), &self.digest]);
        hash("mycelial dead letter v1", &parts)[..8].to_vec()
    }

    /// Reads a row; `None` when it is not what was written.
    fn read(sql: &SqlRow<'_>) -> rusqlite::Result<Option<Self>> {
        // SQLite's integers are signed; the bits are the same.
        let number = |column| sql.get::<_, i64>(column).map(|value| value as u64);
        let maybe = |column| {
            sql.get::<_, Option<i64>>(column)
                .map(|value| value.map(|value| value as u64))
        };
        let (Some(point), Some(state)) = (point_of(sql.get(4)?), State::of(sql.get(7)?)) else {
            return Ok(None);
        };
        let (seq, row) = (maybe(5)?, maybe(6)?);
        let digest: Vec<u8> = sql.get(16)?;
        let Ok(digest) = digest.try_into() else { return Ok(None) };
        let read = Self {
            id: number(0)?,
            root: sql.get(1)?,
            path: sql.get(2)?,
            node: sql.get(3)?,
            point,
            key: seq.zip(row.map(|row| row as u32)),
            state,
            number: maybe(8)?,
            replays: number(9)? as u32,
            reason: sql.get(10)?,
            refusal: sql.get(11)?,
            stamp: Stamp {
                boot: number(12)?,
                uptime_ms: number(13)?,
                unix_ms: sql.get(14)?,
            },
            record_bytes: number(15)?,
            digest,
        };
        let seal: Vec<u8> = sql.get(17)?;
        Ok((read.seal() == seal).then_some(read))
    }

    /// Reads the row of one query line.
    pub(super) fn checked(sql: &SqlRow<'_>) -> Result<Self, StoreError> {
        match Self::read(sql) {
            Ok(Some(row)) => Ok(row),
            Ok(None) => Err(StoreError::Damaged("a letter does not match its checksum".to_string())),
            Err(error) => Err(error.into()),
        }
    }

    /// A letter by its id.
    pub(super) fn load(conn: &Connection, id: u64) -> Result<Option<Self>, StoreError> {
        let mut statement = conn.prepare_cached(&format!("SELECT {COLUMNS} FROM letter WHERE id = ?1"))?;
        let row = statement
            .query_row([id as i64], |sql| Ok(Self::checked(sql)))
            .optional()?;
        row.transpose()
    }

    /// Writes the row, over the one of the same id if there is one.
    pub(super) fn save(&self, conn: &Connection) -> Result<(), StoreError> {
        let marks: Vec<String> = (1..=COLUMNS.split(',').count()).map(|n| format!("?{n}")).collect();
        let sql = format!(
            "INSERT OR REPLACE INTO letter ({COLUMNS}) VALUES ({})",
            marks.join(", ")
        );
        conn.prepare_cached(&sql)?.execute(params![
            self.id as i64,
            self.root,
            self.path,
            self.node,
            point_code(self.point),
            self.key.map(|(seq, _)| seq as i64),
            self.key.map(|(_, row)| i64::from(row)),
            self.state.code(),
            self.number.map(|number| number as i64),
            i64::from(self.replays),
            self.reason,
            self.refusal,
            self.stamp.boot as i64,
            self.stamp.uptime_ms as i64,
            self.stamp.unix_ms,
            self.record_bytes as i64,
            self.digest.as_slice(),
            self.seal(),
        ])?;
        Ok(())
    }
}

fn shortened(reason: &str) -> String {
    let most = bus_schema::limits::TEXT_BYTES_MAX;
    let end = (0..=most.min(reason.len()))
        .rev()
        .find(|end| reason.is_char_boundary(*end));
    reason[..end.unwrap_or(0)].to_string()
}
