//! The plane's memory: one SQLite file, readable by its owner only. Knows how decisions are kept, never what to decide.
//!
//! Durable before it returns (WAL with a full sync at each commit). Other processes of the same machine may write log-in
//! codes and tokens at the same time (`mycelial-plane login`, `mycelial-plane token`); everything else is one writer's.

pub mod alerts;
pub mod api_tokens;
pub mod audit;
mod commands;
pub mod drafts;
pub mod history;
mod oidc;
mod records;
mod rollouts;
mod users;
mod web;

use std::{
    fs::OpenOptions,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OptionalExtension as _, TransactionBehavior, params};

pub use records::Loaded;
pub use users::{Person, User};

/// How long a write waits for another process, see above.
const BUSY: Duration = Duration::from_secs(5);
/// Page cache, in KiB: the picture is in memory anyway, this only serves writing.
const CACHE_KIB: i64 = 128;
/// Pages of the write-ahead log after which it is folded back into the file.
const CHECKPOINT_PAGES: i64 = 64;
/// Most bytes of the write-ahead log kept on disk when idle.
const JOURNAL_BYTES_MAX: i64 = 1 << 20;

/// One script per version, in order. Released ones never change.
const MIGRATIONS: &[&str] = &[
    include_str!("schema.sql"),
    include_str!("labels.sql"),
    include_str!("rollouts.sql"),
    include_str!("alerts.sql"),
    include_str!("users.sql"),
    include_str!("audit.sql"),
    include_str!("commands.sql"),
    include_str!("care.sql"),
    include_str!("oidc.sql"),
    include_str!("rotation.sql"),
    include_str!("reasons.sql"),
    include_str!("token_labels.sql"),
    include_str!("rollout_gates.sql"),
    include_str!("owners.sql"),
];

/// The store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened or is protected.
    #[error("cannot {what} {path}: {source}", path = .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Not a database, or a damaged one.
    #[error("{path} is not a usable database ({source}); restore it from a backup, or move it away: members are then read \
             back from the roster, and workflows have to be applied again", path = .path.display())]
    NotADatabase {
        /// Which file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// A newer program has changed it.
    #[error("{path} was written by a newer mycelial-plane (its format is {found}, this program knows up to {known}); \
             update this one", path = .path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest this program knows.
        known: usize,
    },
    /// A row that cannot be read.
    #[error("a row of '{table}' cannot be read; restore the store from a backup")]
    Damaged {
        /// Where.
        table: &'static str,
    },
    /// SQLite said no.
    #[error("the store failed: {0}{remedy}", remedy = remedy(.0))]
    Sqlite(#[from] rusqlite::Error),
}

/// What to do about it, where SQLite's words do not say.
fn remedy(error: &rusqlite::Error) -> &'static str {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "; make room on the plane's disk, and it goes on by itself",
        Some(ErrorCode::ReadOnly | ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => {
            "; the plane's disk is read-only or fails: look into its system's log; when it can be written again the plane \
             goes on by itself"
        }
        _ => "",
    }
}

/// The open store.
#[derive(Debug)]
pub struct Store {
    db: Connection,
}

impl Store {
    /// Opens or creates the file, readable by its owner only, and brings it to the newest version.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_with(path, MIGRATIONS)
    }

    fn open_with(path: &Path, migrations: &[&str]) -> Result<Self, StoreError> {
        make_private(path)?;
        let unusable = |source| StoreError::NotADatabase {
            path: path.to_path_buf(),
            source,
        };
        let mut db = Connection::open(path).map_err(unusable)?;
        prepare(&db).map_err(unusable)?;
        let found: i64 = db
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(unusable)?;
        let done = usize::try_from(found).unwrap_or(usize::MAX);
        if done > migrations.len() {
            return Err(StoreError::Newer {
                path: path.to_path_buf(),
                found,
                known: migrations.len(),
            });
        }
        for (version, script) in (1i64..).zip(migrations).skip(done) {
            let migration = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            migration.execute_batch(script)?;
            migration.pragma_update(None, "user_version", version)?;
            migration.commit()?;
        }
        Ok(Self { db })
    }

    /// A setting.
    pub fn setting(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self
            .db
            .query_row("SELECT value FROM settings WHERE key = ?1", [key], |row| row.get(0));
        Ok(found.optional()?)
    }

    /// Sets a setting.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        set(&self.db, key, value)
    }
}

fn set(db: &Connection, key: &str, value: &[u8]) -> Result<(), StoreError> {
    let sql = "INSERT INTO settings (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2";
    db.prepare_cached(sql)?.execute(params![key, value])?;
    Ok(())
}

/// Makes the file if it is not there, readable by its owner only. SQLite gives its journal files the same mode.
fn make_private(path: &Path) -> Result<(), StoreError> {
    let io = |what| {
        move |source| StoreError::Io {
            what,
            path: path.to_path_buf(),
            source,
        }
    };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path);
    let file = file.map_err(io("open"))?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
        .map_err(io("protect"))
}

fn prepare(db: &Connection) -> rusqlite::Result<()> {
    db.busy_timeout(BUSY)?;
    db.pragma_update(None, "cache_size", -CACHE_KIB)?;
    db.pragma_update(None, "foreign_keys", true)?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    db.pragma_update_and_check(None, "journal_size_limit", JOURNAL_BYTES_MAX, |_| Ok(()))?;
    db.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_private_and_reopened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plane.db");
        let store = Store::open(&path).unwrap();
        assert_eq!(store.setting("a").unwrap(), None);
        store.set("a", b"1").unwrap();
        store.set("a", b"2").unwrap();
        for file in std::fs::read_dir(dir.path()).unwrap() {
            let file = file.unwrap();
            assert_eq!(
                file.metadata().unwrap().permissions().mode() & 0o777,
                0o600,
                "{:?}",
                file.path()
            );
        }
        drop(store);
        assert_eq!(
            Store::open(&path).unwrap().setting("a").unwrap().as_deref(),
            Some(&b"2"[..])
        );
    }

    #[test]
    fn migrations_run_once_each_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plane.db");
        let first = MIGRATIONS[0];
        let then = "CREATE TABLE more (x); INSERT INTO more VALUES (1);";
        let broken = "CREATE TABLE half (x); NONSENSE;";
        Store::open_with(&path, &[first]).unwrap().set("kept", b"yes").unwrap();
        assert!(Store::open_with(&path, &[first, broken]).is_err());
        for _ in 0..2 {
            let store = Store::open_with(&path, &[first, then]).unwrap();
            let count: i64 = store
                .db
                .query_row("SELECT count(*) FROM more", [], |row| row.get(0))
                .unwrap();
            assert_eq!(
                (count, store.setting("kept").unwrap().as_deref()),
                (1, Some(&b"yes"[..]))
            );
            let half = store.db.prepare("SELECT * FROM half");
            assert!(half.is_err(), "a migration that fails leaves nothing behind");
        }
        let error = Store::open_with(&path, &[first]).unwrap_err().to_string();
        assert!(
            error.contains("newer mycelial-plane (its format is 2, this program knows up to 1)"),
            "{error}"
        );
    }

    #[test]
    fn drafts_of_before_belong_to_who_changed_them_last() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plane.db");
        let before = MIGRATIONS.iter().position(|script| script.contains("ADD COLUMN owner"));
        let old = Store::open_with(&path, &MIGRATIONS[..before.unwrap()]).unwrap();
        let draft =
            "INSERT INTO drafts (name, text, layout, revision, made_by, at_unix_ms) VALUES ('a', '', '', 1, 'bea', 5)";
        old.db.execute(draft, []).unwrap();
        drop(old);
        let draft = Store::open(&path).unwrap().draft("a").unwrap().unwrap();
        assert_eq!((draft.owner.as_str(), draft.by.as_str()), ("bea", "bea"));
    }

    #[test]
    fn a_file_that_is_no_database_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plane.db");
        std::fs::write(&path, b"this is not a database, not at all. ".repeat(200)).unwrap();
        let error = Store::open(&path).unwrap_err().to_string();
        assert!(error.contains("plane.db is not a usable database"), "{error}");
        let error = Store::open(&dir.path().join("no/such/dir.db")).unwrap_err().to_string();
        assert!(error.contains("cannot open"), "{error}");
    }
}
