//! Opens a store of dead letters whatever has happened to it: a damaged file is set aside, and what is readable of it goes on
//! in a new one. Never deletes what it cannot read. Blocks.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::{
    row::{COLUMNS, Row, digest},
    store::{Counters, Store, StoreError},
};

/// Damaged files kept for a person to look at.
const SET_ASIDE_MAX: u32 = 2;
/// Ids left free after the counters were lost, so that no letter gets the id of another one.
const IDS_SKIPPED: u64 = 1_000_000;

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

/// Opens the store, making it when there is none.
pub fn open(path: &Path, quota_bytes: u64) -> Result<Store, StoreError> {
    let dir = path.parent().unwrap_or(path);
    fs::create_dir_all(dir)?;
    if !path.exists() {
        make(path, quota_bytes)?;
    }
    let opened = match fs::metadata(path)?.len() {
        // To SQLite a file of one byte is empty too.
        0 | 1 => Err(StoreError::Damaged("the file is empty".to_string())),
        _ => Store::open_sound(path, quota_bytes),
    };
    match opened {
        Err(error) if error.is_damage() => salvage(path, quota_bytes, &error),
        opened => opened,
    }
}

/// Makes the file under another name first: SQLite takes an empty one for a new one, so none of ours must ever be empty.
fn make(path: &Path, quota_bytes: u64) -> Result<(), StoreError> {
    let new = beside(path, ".new");
    // One that is there is whole if a crash came between the two renames of a salvage.
    match Store::open_sound(&new, quota_bytes) {
        Err(error) if error.is_damage() => {
            remove_all(&new)?;
            drop(Store::open_sound(&new, quota_bytes)?);
        }
        made => drop(made?),
    }
    fs::rename(&new, path)?;
    Ok(bus_link::home::sync_dir(path.parent().unwrap_or(path))?)
}

/// Sets a damaged store aside and opens a new one with what is readable of it.
pub(super) fn salvage(path: &Path, quota_bytes: u64, cause: &StoreError) -> Result<Store, StoreError> {
    let new = beside(path, ".new");
    remove_all(&new)?;
    let mut store = Store::open_sound(&new, quota_bytes)?;
    // One that cannot even be opened holds nothing that can be saved.
    let saved = match Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE) {
        Ok(old) => save(&old, &mut store)?,
        Err(_) => Saved::default(),
    };
    let counters = saved.counters.unwrap_or(Counters {
        next_id: saved.last_id + IDS_SKIPPED,
        ..Counters::default()
    });
    store.set_counters(Counters {
        next_id: counters.next_id.max(saved.last_id + 1),
        damaged: counters.damaged + 1,
        ..counters
    })?;
    drop(store);
    let aside = set_aside(path)?;
    // It belonged to the old file, and would be played back into the new one.
    remove_if_there(&beside(path, "-journal"))?;
    fs::rename(&new, path)?;
    bus_link::home::sync_dir(path.parent().unwrap_or(path))?;
    tracing::error!(
        path = %path.display(),
        aside = %aside.display(),
        %cause,
        saved = saved.letters,
        lost = saved.lost,
        "the dead letters were damaged: what was readable goes on, the damaged file is set aside"
    );
    Store::open_sound(path, quota_bytes)
}

#[derive(Default)]
struct Saved {
    letters: u64,
    /// Seen, but not readable any more. More may have been lost unseen.
    lost: u64,
    last_id: u64,
    counters: Option<Counters>,
}

/// Copies what is readable: from the lowest id up as far as it goes, then from the highest down.
fn save(old: &Connection, store: &mut Store) -> Result<Saved, StoreError> {
    // With this SQLite passes over what it cannot make sense of in the schema: the tables without a damaged index.
    if let Err(error) = old.execute_batch("PRAGMA writable_schema = ON") {
        tracing::debug!(%error, "the schema of the damaged dead letters is read as it stands");
    }
    let mut saved = Saved {
        counters: counters(old),
        ..Saved::default()
    };
    let mut reached = 0;
    for (order, bound) in [("ASC", ">"), ("DESC", ">")] {
        let sql = format!("SELECT rowid FROM letter WHERE rowid {bound} ?1 ORDER BY rowid {order}");
        let Ok(mut statement) = old.prepare(&sql) else { continue };
        let Ok(mut ids) = statement.query([reached]) else {
            continue;
        };
        // An error is the edge of the damage.
        while let Ok(Some(row)) = ids.next() {
            let Ok(id) = row.get::<_, i64>(0) else { break };
            if order == "ASC" {
                reached = id;
            }
            saved.last_id = saved.last_id.max(id as u64);
            match letter(old, id) {
                Some((row, record)) => {
                    store.adopt(&row, &record)?;
                    saved.letters += 1;
                }
                None => saved.lost += 1,
            }
        }
    }
    Ok(saved)
}

fn counters(old: &Connection) -> Option<Counters> {
    let sql = "SELECT bytes, seal FROM counters WHERE rowid = 0";
    let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?));
    let (bytes, seal) = old.query_row(sql, [], read).ok()?;
    bus_schema::decode(&bytes).filter(|_| digest(&bytes).as_slice() == seal)
}

fn letter(old: &Connection, id: i64) -> Option<(Row, Vec<u8>)> {
    // By place, not by name: the damage may be in the names, which need not even be text any more. The id is the rowid, and
    // is that also where the schema does not say so any more.
    let sql = format!("WITH named ({COLUMNS}) AS (SELECT * FROM letter WHERE rowid = ?1) SELECT {COLUMNS} FROM named")
        .replacen("SELECT id,", "SELECT ?1,", 1);
    let row = old.query_row(&sql, [id], |sql| Ok(Row::checked(sql))).ok()?.ok()?;
    let sql = "SELECT bytes FROM record WHERE rowid = ?1";
    let record: Vec<u8> = old.query_row(sql, [id], |sql| sql.get(0)).optional().ok()??;
    (digest(&record) == row.digest).then_some((row, record))
}

/// Renames a file to the next free `<name>.damaged.<n>`, keeping the newest few.
fn set_aside(path: &Path) -> Result<PathBuf, StoreError> {
    let name = |n: u32| beside(path, &format!(".damaged.{n}"));
    let last = (1..).take_while(|n| name(*n).exists()).last().unwrap_or(0);
    let mut next = last + 1;
    if last >= SET_ASIDE_MAX {
        fs::remove_file(name(1))?;
        for n in 2..=last {
            fs::rename(name(n), name(n - 1))?;
        }
        next = last;
    }
    fs::rename(path, name(next))?;
    // What was written to the new file must be there before the old one is missed.
    File::open(name(next))?.sync_all()?;
    Ok(name(next))
}

/// Removes a database and its journal.
fn remove_all(path: &Path) -> Result<(), StoreError> {
    remove_if_there(path)?;
    remove_if_there(&beside(path, "-journal"))
}

fn remove_if_there(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
