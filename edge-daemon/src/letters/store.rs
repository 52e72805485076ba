//! The dead letters of one workflow in one SQLite file, bounded in bytes (`room`). Everything here blocks. What damage
//! does, and what is saved from it, is in `salvage`.

use std::{
    fs::OpenOptions,
    path::{Path, PathBuf},
};

use bus_link::reserve;
use flow::{DeadLetter, Due, LetterKey, LetterPoint, Replay, Stand};
use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, TransactionBehavior,
    ffi::{SQLITE_ERROR, SQLITE_IOERR_READ, SQLITE_IOERR_SHORT_READ},
    params,
};
use serde::{Deserialize, Serialize};

use super::{
    room,
    row::{COLUMNS, Row, Stamp, State, digest},
};

/// Letters handed out at once to be tried again.
const HELPING_LETTERS_MAX: u64 = 16;
/// Bytes handed out at once, unless a single letter is larger.
const HELPING_BYTES_MAX: u64 = 1024 * 1024;
/// SQLite's page cache, in KiB.
const CACHE_KIB: i64 = 256;
/// How long to wait for a command that looks into the same file.
const BUSY_WAIT: std::time::Duration = std::time::Duration::from_secs(5);
/// Pages given back to the file system at a time.
const VACUUM_PAGES: u32 = 16_384;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS letter (
    id INTEGER PRIMARY KEY, root TEXT NOT NULL, path TEXT NOT NULL, node TEXT NOT NULL, point INTEGER NOT NULL,
    seq INTEGER, row INTEGER, state INTEGER NOT NULL, number INTEGER, replays INTEGER NOT NULL,
    reason TEXT NOT NULL, refusal TEXT NOT NULL, boot INTEGER NOT NULL, uptime_ms INTEGER NOT NULL,
    unix_ms INTEGER NOT NULL, record_bytes INTEGER NOT NULL, digest BLOB NOT NULL, seal BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS record (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS counters (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL, seal BLOB NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS letter_key ON letter (root, path, seq, row);
CREATE INDEX IF NOT EXISTS letter_queued ON letter (root, number, id) WHERE state = 1;
CREATE INDEX IF NOT EXISTS letter_doubtful ON letter (digest) WHERE state >= 2;
";

/// Something did not work.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite says so.
    #[error(transparent)]
    Sql(#[from] rusqlite::Error),
    /// The file system says so.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// What is there is not what was written.
    #[error("{0}")]
    Damaged(String),
}

impl StoreError {
    /// Whether the disk has no room.
    pub(super) fn is_full(&self) -> bool {
        match self {
            StoreError::Sql(error) => error.sqlite_error_code() == Some(ErrorCode::DiskFull),
            StoreError::Io(error) => reserve::is_full(error),
            StoreError::Damaged(_) => false,
        }
    }

    /// Whether the file is damaged, rather than locked, full or away.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            StoreError::Damaged(_) => true,
            // A value of another kind than was written, or a statement of ours that the file's schema does not fit.
            StoreError::Sql(
                rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::Utf8Error(..)
                | rusqlite::Error::SqlInputError { .. },
            ) => true,
            StoreError::Sql(error) => {
                let is_corrupt = matches!(
                    error.sqlite_error_code(),
                    Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
                );
                // A sector that cannot be read any more is damage too; a disk that is full is not. SQLITE_ERROR: a table
                // is not there, or the file claims a format that SQLite does not know.
                let extended = error.sqlite_error().map(|error| error.extended_code);
                is_corrupt
                    || matches!(
                        extended,
                        Some(SQLITE_ERROR | SQLITE_IOERR_READ | SQLITE_IOERR_SHORT_READ)
                    )
            }
            StoreError::Io(_) => false,
        }
    }
}

/// What has happened to a workflow's letters so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// The next letter's id.
    pub next_id: u64,
    /// The highest replay number given.
    pub number: u64,
    /// Letters that had to go because the store was full.
    pub evicted: u64,
    /// Letters that somebody purged.
    pub purged: u64,
    /// Letters that were tried again, and came through or died as another letter.
    pub replayed: u64,
    /// Times that damage was found, and what was readable was saved.
    pub damaged: u64,
}

/// Which letters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this node; empty for any.
    pub node: String,
    /// These; empty for all.
    pub ids: Vec<u64>,
}

impl Filter {
    fn fits(&self, row: &Row) -> bool {
        (self.node.is_empty() || self.node == row.node) && (self.ids.is_empty() || self.ids.contains(&row.id))
    }
}

/// What became of a wish to try letters again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Queued {
    /// Will be tried again.
    pub queued: u64,
    /// In doubt, and therefore left alone unless named one by one.
    pub doubtful: u64,
}

/// What became of a wish to change a letter's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mended {
    /// It has the new record.
    Done,
    /// The new values are wrong.
    Wrong(String),
    /// It does not wait for a person, or is no record.
    Busy,
    /// There is no such letter.
    None,
}

/// The open store.
pub struct Store {
    pub(super) conn: Connection,
    pub(super) path: PathBuf,
    quota_bytes: u64,
    /// What the letters take of the quota.
    bytes: u64,
    pub(super) counters: Counters,
}

impl Store {
    /// Opens a sound file, or makes it. [`super::salvage::open`] also copes with damage.
    pub(super) fn open_sound(path: &Path, quota_bytes: u64) -> Result<Self, StoreError> {
        let conn = Connection::open(path)?;
        conn.busy_timeout(BUSY_WAIT)?;
        check_header(&conn, path)?;
        // Only has an effect on a new file.
        conn.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        // Letters are few: one file, and no second one that a copy could forget. EXTRA: a power cut must not bring the
        // journal back, which would undo the last transaction.
        let _: String = conn.pragma_update_and_check(None, "journal_mode", "DELETE", |row| row.get(0))?;
        conn.pragma_update(None, "synchronous", "EXTRA")?;
        conn.pragma_update(None, "cache_size", -CACHE_KIB)?;
        conn.execute_batch(SCHEMA)?;
        check_schema(&conn)?;
        let mut store = Self {
            conn,
            path: path.to_path_buf(),
            quota_bytes,
            bytes: 0,
            counters: Counters::default(),
        };
        store.counters = store.read_counters()?;
        let mut bytes = 0;
        store.each(0, |row| {
            bytes += room::share(row.cost(), quota_bytes);
            Ok(true)
        })?;
        store.bytes = bytes;
        Ok(store)
    }

    fn read_counters(&self) -> Result<Counters, StoreError> {
        let sql = "SELECT bytes, seal FROM counters WHERE id = 0";
        let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?));
        let Some((bytes, seal)) = self.conn.query_row(sql, [], read).optional()? else {
            let last: Option<i64> = self
                .conn
                .query_row("SELECT max(id) FROM letter", [], |row| row.get(0))?;
            return match last {
                None => Ok(Counters {
                    next_id: 1,
                    ..Counters::default()
                }),
                Some(_) => Err(StoreError::Damaged("the counters are gone".to_string())),
            };
        };
        let counters = bus_schema::decode(&bytes).filter(|_| digest(&bytes).as_slice() == seal);
        counters.ok_or_else(|| StoreError::Damaged("the counters do not match their checksum".to_string()))
    }

    /// Does something in a transaction, with counters that count only if it is committed.
    fn change<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>, &mut Counters, &mut u64) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let (mut counters, mut bytes) = (self.counters, self.bytes);
        // IMMEDIATE: waits for another process here, and not in the middle.
        let transaction = Transaction::new_unchecked(&self.conn, TransactionBehavior::Immediate)?;
        let done = work(&transaction, &mut counters, &mut bytes)?;
        if counters != self.counters {
            save_counters(&transaction, &counters)?;
        }
        crash_point::at!(LettersBeforeSync);
        transaction.commit()?;
        crash_point::at!(LettersAfterSync);
        (self.counters, self.bytes) = (counters, bytes);
        Ok(done)
    }

    /// Calls for every letter above an id, in order, until told to stop.
    fn each(&self, after: u64, mut look: impl FnMut(Row) -> Result<bool, StoreError>) -> Result<(), StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM letter WHERE id > ?1 ORDER BY id");
        let mut statement = self.conn.prepare_cached(&sql)?;
        let mut rows = statement.query([after as i64])?;
        while let Some(sql) = rows.next()? {
            if !look(Row::checked(sql)?)? {
                break;
            }
        }
        Ok(())
    }

    /// See [`flow::DeadLetters::begin`].
    pub(super) fn begin(&mut self, root: &str, seq: u64, rereads: bool) -> Result<(), StoreError> {
        let mut open = Vec::new();
        let sql = format!("SELECT {COLUMNS} FROM letter WHERE root = ?1 AND seq > ?2");
        let mut statement = self.conn.prepare_cached(&sql)?;
        let mut rows = statement.query(params![root, seq as i64])?;
        while let Some(sql) = rows.next()? {
            open.push(Row::checked(sql)?.id);
        }
        drop(rows);
        drop(statement);
        if open.is_empty() {
            return Ok(());
        }
        self.change(|transaction, _, _| {
            for id in open {
                let Some(mut row) = Row::load(transaction, id)? else {
                    continue;
                };
                row.key = None;
                row.number = None;
                if rereads {
                    row.state = row.state.doubted();
                }
                row.save(transaction)?;
            }
            Ok(())
        })
    }

    /// See [`flow::DeadLetters::put`]. Returns how many are new, and whether one came back that is to be tried again.
    pub(super) fn put(&mut self, letters: &[DeadLetter], stamp: Stamp) -> Result<(u64, bool), StoreError> {
        let quota_bytes = self.quota_bytes;
        self.change(|transaction, counters, bytes| {
            let (mut new, mut is_wished) = (0, false);
            for letter in letters {
                if is_kept(transaction, &letter.key)? {
                    continue;
                }
                if let Some(mut former) = former_self(transaction, letter)? {
                    former.key = Some((letter.key.seq, letter.key.row));
                    former.state = former.state.certain();
                    is_wished |= former.state.is_queued();
                    former.save(transaction)?;
                    continue;
                }
                let row = Row::new(counters.next_id, letter, stamp);
                row.save(transaction)?;
                transaction
                    .prepare_cached("INSERT INTO record (id, bytes) VALUES (?1, ?2)")?
                    .execute(params![row.id as i64, letter.record])?;
                counters.next_id += 1;
                *bytes += room::share(row.cost(), quota_bytes);
                new += 1;
                counters.evicted += room::make(transaction, bytes, quota_bytes, &row)?;
            }
            Ok((new, is_wished))
        })
    }

    /// See [`flow::DeadLetters::take_back`].
    pub(super) fn take_back(&mut self, keys: &[LetterKey]) -> Result<(), StoreError> {
        let quota_bytes = self.quota_bytes;
        self.change(|transaction, _, bytes| {
            for key in keys {
                if let Some(id) = id_of(transaction, key)? {
                    room::remove(transaction, id, bytes, quota_bytes)?;
                }
            }
            Ok(())
        })
    }

    /// See [`flow::DeadLetters::replays`].
    pub(super) fn replays(&mut self, root: &str, stand: Stand) -> Result<Due, StoreError> {
        let mut due = Vec::new();
        let sql = format!(
            "SELECT {COLUMNS} FROM letter WHERE state = 1 AND root = ?1 AND (number IS NULL OR number > ?2) \
             AND (seq IS NULL OR seq <= ?3) ORDER BY number IS NULL, number, id LIMIT {HELPING_LETTERS_MAX}"
        );
        let mut statement = self.conn.prepare_cached(&sql)?;
        let mut rows = statement.query(params![root, stand.after as i64, stand.committed as i64])?;
        let mut bytes = 0;
        while let Some(sql) = rows.next()? {
            let row = Row::checked(sql)?;
            bytes += row.record_bytes;
            if bytes > HELPING_BYTES_MAX && !due.is_empty() {
                break;
            }
            due.push(row);
        }
        drop(rows);
        drop(statement);
        let later = "SELECT EXISTS (SELECT 1 FROM letter WHERE state = 1 AND root = ?1 AND seq > ?2)";
        let has_later = self
            .conn
            .prepare_cached(later)?
            .query_row(params![root, stand.committed as i64], |row| row.get(0))?;
        if due.iter().any(|row| row.number.is_none()) {
            self.change(|transaction, counters, _| {
                counters.number = counters.number.max(stand.floor).max(stand.after);
                for row in due.iter_mut().filter(|row| row.number.is_none()) {
                    counters.number += 1;
                    row.number = Some(counters.number);
                    row.save(transaction)?;
                }
                Ok(())
            })?;
        }
        let replay = |row: Row| {
            Ok(Replay {
                id: row.id,
                number: row.number.unwrap_or_default(),
                record: self.record(&row)?,
                path: row.path,
                point: row.point,
                node: row.node,
                replays: row.replays,
            })
        };
        let replays: Result<Vec<Replay>, StoreError> = due.into_iter().map(replay).collect();
        Ok(Due {
            replays: replays?,
            has_later,
        })
    }

    /// A letter's record, whole.
    pub(super) fn record(&self, row: &Row) -> Result<Vec<u8>, StoreError> {
        let mut statement = self.conn.prepare_cached("SELECT bytes FROM record WHERE id = ?1")?;
        let found: Option<Vec<u8>> = statement.query_row([row.id as i64], |sql| sql.get(0)).optional()?;
        found
            .filter(|record| digest(record) == row.digest)
            .ok_or_else(|| StoreError::Damaged(format!("the record of letter {} is damaged", row.id)))
    }

    /// See [`flow::DeadLetters::settled`].
    pub(super) fn settled(&mut self, ids: &[u64]) -> Result<(), StoreError> {
        let quota_bytes = self.quota_bytes;
        self.change(|transaction, counters, bytes| {
            for id in ids {
                counters.replayed += u64::from(room::remove(transaction, *id, bytes, quota_bytes)?);
            }
            Ok(())
        })
    }

    /// See [`flow::DeadLetters::refuse`].
    pub(super) fn refuse(&mut self, id: u64, reason: &str) -> Result<(), StoreError> {
        self.change(|transaction, _, _| {
            let Some(mut row) = Row::load(transaction, id)? else {
                return Ok(());
            };
            row.state = State::Kept;
            row.number = None;
            row.refusal = reason.chars().take(bus_schema::limits::TEXT_BYTES_MAX / 4).collect();
            row.save(transaction)
        })
    }

    /// Letters above an id, lowest first.
    pub fn list(&self, filter: &Filter, after: u64, most: usize) -> Result<Vec<Row>, StoreError> {
        let mut found = Vec::new();
        self.each(after, |row| {
            if filter.fits(&row) {
                found.push(row);
            }
            Ok(found.len() < most)
        })?;
        Ok(found)
    }

    /// A letter and a part of its record.
    pub fn show(&self, id: u64, offset: u64, most: usize) -> Result<Option<(Row, Vec<u8>)>, StoreError> {
        let Some(row) = Row::load(&self.conn, id)? else {
            return Ok(None);
        };
        let blob = self
            .conn
            .blob_open(rusqlite::MAIN_DB, c"record", c"bytes", id as i64, true)?;
        let offset = usize::try_from(offset).unwrap_or(usize::MAX).min(blob.len());
        let mut part = vec![0; most.min(blob.len() - offset)];
        blob.read_at_exact(&mut part, offset)?;
        Ok(Some((row, part)))
    }

    /// Marks letters to be tried again. Those in doubt only when they are named.
    pub fn queue(&mut self, filter: &Filter) -> Result<Queued, StoreError> {
        let (mut chosen, mut doubtful) = (Vec::new(), 0);
        self.each(0, |row| {
            if filter.fits(&row) && row.state.is_doubtful() && filter.ids.is_empty() {
                doubtful += 1;
            } else if filter.fits(&row) && row.state != State::Queued {
                chosen.push(row.id);
            }
            Ok(true)
        })?;
        let queued = chosen.len() as u64;
        self.change(|transaction, _, _| {
            for id in chosen {
                let Some(mut row) = Row::load(transaction, id)? else {
                    continue;
                };
                if row.state.is_doubtful() {
                    // Whoever names it has decided that it is a letter of its own.
                    row.key = None;
                }
                row.state = State::Queued;
                row.number = None;
                row.refusal.clear();
                row.save(transaction)?;
            }
            Ok(())
        })?;
        Ok(Queued { queued, doubtful })
    }

    /// Gives a letter that waits for a person another record.
    pub fn mend(&mut self, id: u64, mend: impl FnOnce(&[u8]) -> Result<Vec<u8>, String>) -> Result<Mended, StoreError> {
        let Some(row) = Row::load(&self.conn, id)? else {
            return Ok(Mended::None);
        };
        if row.state != State::Kept || row.point == LetterPoint::Source {
            return Ok(Mended::Busy);
        }
        let record = match mend(&self.record(&row)?) {
            Ok(record) => record,
            Err(wrong) => return Ok(Mended::Wrong(wrong)),
        };
        let quota_bytes = self.quota_bytes;
        self.change(|transaction, counters, bytes| {
            // What another process did to it meanwhile counts.
            let Some(mut now) = Row::load(transaction, id)?.filter(|now| *now == row) else {
                return Ok(Mended::Busy);
            };
            *bytes = bytes.saturating_sub(room::share(now.cost(), quota_bytes));
            (now.digest, now.record_bytes) = (digest(&record), record.len() as u64);
            now.refusal.clear();
            now.save(transaction)?;
            transaction
                .prepare_cached("UPDATE record SET bytes = ?2 WHERE id = ?1")?
                .execute(params![id as i64, record])?;
            *bytes += room::share(now.cost(), quota_bytes);
            counters.evicted += room::make(transaction, bytes, quota_bytes, &now)?;
            Ok(Mended::Done)
        })
    }

    /// Forgets letters for good. Returns how many.
    pub fn purge(&mut self, filter: &Filter) -> Result<u64, StoreError> {
        let mut chosen = Vec::new();
        self.each(0, |row| {
            if filter.fits(&row) {
                chosen.push(row.id);
            }
            Ok(true)
        })?;
        let quota_bytes = self.quota_bytes;
        let purged = self.change(|transaction, counters, bytes| {
            let mut purged = 0;
            for id in chosen {
                purged += u64::from(room::remove(transaction, id, bytes, quota_bytes)?);
            }
            counters.purged += purged;
            Ok(purged)
        })?;
        self.give_back();
        Ok(purged)
    }

    /// Gives the disk back what is not used any more. Not doing so costs nothing but space.
    pub(super) fn give_back(&self) {
        let done = self
            .conn
            .execute_batch(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"));
        if let Err(error) = done {
            tracing::debug!(path = %self.path.display(), %error, "the dead letters' file did not shrink");
        }
    }

    /// What has happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Takes a letter that was saved from damage, unless it does not match its checksum.
    pub(super) fn adopt(&mut self, row: &Row, record: &[u8]) -> Result<(), StoreError> {
        let quota_bytes = self.quota_bytes;
        self.change(|transaction, _, bytes| {
            row.save(transaction)?;
            transaction
                .prepare_cached("INSERT OR REPLACE INTO record (id, bytes) VALUES (?1, ?2)")?
                .execute(params![row.id as i64, record])?;
            *bytes += room::share(row.cost(), quota_bytes);
            Ok(())
        })
    }

    /// Takes over what has happened so far.
    pub(super) fn set_counters(&mut self, counters: Counters) -> Result<(), StoreError> {
        self.change(|_, own, _| {
            *own = counters;
            Ok(())
        })
    }
}

/// How many letters are in a file, by a look of its own: whoever works with it goes on, and what is damaged stays as it is.
pub(super) fn count(path: &Path) -> Result<u64, StoreError> {
    // Not to be made. For writing: what a crash left half done is undone first.
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    conn.busy_timeout(BUSY_WAIT)?;
    conn.pragma_update(None, "cache_size", -CACHE_KIB)?;
    Ok(conn.query_row("SELECT count(*) FROM letter", [], |row| row.get::<_, i64>(0))? as u64)
}

/// One byte of a file's header says whether it may be written to; nothing but damage forbids that.
fn check_header(conn: &Connection, path: &Path) -> Result<(), StoreError> {
    // SQLite knows only once it has read something.
    conn.pragma_query(None, "schema_version", |_| Ok(()))?;
    if conn.is_readonly(rusqlite::MAIN_DB)? && OpenOptions::new().write(true).open(path).is_ok() {
        return Err(StoreError::Damaged("its header forbids writing".to_string()));
    }
    Ok(())
}

/// A schema that is another one can still be valid, and hide every letter.
fn check_schema(conn: &Connection) -> Result<(), StoreError> {
    let mut expected: Vec<String> = SCHEMA
        .split(';')
        .map(|sql| sql.trim().replace("IF NOT EXISTS ", ""))
        .collect();
    expected.retain(|sql| !sql.is_empty());
    let mut statement = conn.prepare("SELECT sql FROM sqlite_master ORDER BY rowid")?;
    let found: Result<Vec<String>, _> = statement.query_map([], |row| row.get(0))?.collect();
    if found? != expected {
        return Err(StoreError::Damaged(
            "its schema is not the one that was written".to_string(),
        ));
    }
    Ok(())
}

fn save_counters(transaction: &Transaction<'_>, counters: &Counters) -> Result<(), StoreError> {
    let bytes = bus_schema::encode(counters);
    transaction
        .prepare_cached("INSERT OR REPLACE INTO counters (id, bytes, seal) VALUES (0, ?1, ?2)")?
        .execute(params![bytes, digest(&bytes).as_slice()])?;
    Ok(())
}

fn id_of(transaction: &Transaction<'_>, key: &LetterKey) -> Result<Option<u64>, StoreError> {
    let sql = "SELECT id FROM letter WHERE root = ?1 AND path = ?2 AND seq = ?3 AND row = ?4";
    let found = transaction
        .prepare_cached(sql)?
        .query_row(params![key.root, key.path, key.seq as i64, i64::from(key.row)], |row| {
            row.get::<_, i64>(0)
        })
        .optional()?;
    Ok(found.map(|id| id as u64))
}

fn is_kept(transaction: &Transaction<'_>, key: &LetterKey) -> Result<bool, StoreError> {
    Ok(id_of(transaction, key)?.is_some())
}

/// The same letter from a life of its pipe that ended before its batch was committed.
fn former_self(transaction: &Transaction<'_>, letter: &DeadLetter) -> Result<Option<Row>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM letter WHERE state >= 2 AND digest = ?1 AND root = ?2 AND path = ?3 ORDER BY id LIMIT 1"
    );
    let mut statement = transaction.prepare_cached(&sql)?;
    let digest = digest(&letter.record);
    let known = params![digest.as_slice(), letter.key.root, letter.key.path];
    let found = statement.query_row(known, |sql| Ok(Row::checked(sql))).optional()?;
    found.transpose()
}
