//! An open database file, for reading or for changing: transactions, what changed since, and whether it still is the file of
//! that name. Knows no table.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use flow::Fault;
use rusqlite::{Connection, OpenFlags};

use super::fault;

/// How long to wait for another process's lock before trying again later.
const BUSY_WAIT: Duration = Duration::from_secs(5);
/// SQLite's page cache, in KiB: rows are read in order and once, so there is nothing to keep.
const CACHE_KIB: i64 = 256;

/// What it is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Nothing can be written.
    Read,
    /// For writing as well.
    Write,
}

/// Which lock a transaction begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lock {
    /// None: it sees one state of the database.
    Shared,
    /// The writer's: what it sees is what it changes.
    Write,
}

/// The open file.
pub(super) struct Database {
    pub conn: Connection,
    pub path: PathBuf,
    /// Device and inode of the open file: another file may take over its name.
    file: (u64, u64),
}

impl Database {
    /// Opens a file that is there.
    pub(super) fn open(path: PathBuf, access: Access) -> Result<Self, Fault> {
        let failed = |error| fault("open the database", &path, &error);
        // Before opening: if the file is replaced in between, the first look sees that.
        let file = identity(&path)?;
        let flags = OpenFlags::SQLITE_OPEN_NO_MUTEX
            | match access {
                Access::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
                Access::Write => OpenFlags::SQLITE_OPEN_READ_WRITE,
            };
        let conn = Connection::open_with_flags(&path, flags).map_err(failed)?;
        conn.busy_timeout(BUSY_WAIT).map_err(failed)?;
        conn.pragma_update(None, "cache_size", -CACHE_KIB).map_err(failed)?;
        Ok(Self { conn, path, file })
    }

    /// Faults when another file has the name.
    pub(super) fn check_file(&self) -> Result<(), Fault> {
        if identity(&self.path)? == self.file {
            return Ok(());
        }
        Err(Fault::retry(format!(
            "{} was replaced by another file: opening it again",
            self.path.display()
        )))
    }

    /// What SQLite says that `doing` failed with.
    pub(super) fn failed(&self, doing: &'static str) -> impl Fn(rusqlite::Error) -> Fault + use<> {
        let path = self.path.clone();
        move |error| fault(doing, &path, &error)
    }

    /// Changes when another connection has committed something.
    pub(super) fn data_version(&self) -> Result<i64, Fault> {
        self.pragma("data_version").map_err(self.failed("read rows"))
    }

    /// Changes with the schema.
    pub(super) fn schema_version(&self) -> Result<i64, Fault> {
        self.pragma("schema_version").map_err(self.failed("read the schema"))
    }

    fn pragma(&self, name: &str) -> rusqlite::Result<i64> {
        let mut statement = self.conn.prepare_cached(&format!("PRAGMA {name}"))?;
        statement.query_row([], |row| row.get(0))
    }

    /// Begins a transaction.
    pub(super) fn begin(&self, lock: Lock) -> Result<(), Fault> {
        let begin = match lock {
            Lock::Shared => "BEGIN",
            Lock::Write => "BEGIN IMMEDIATE",
        };
        self.conn
            .execute_batch(begin)
            .map_err(self.failed("begin a transaction"))
    }

    /// Ends a transaction without changing anything.
    pub(super) fn end(&self) {
        if !self.conn.is_autocommit() {
            let _ = self.conn.execute_batch("ROLLBACK");
        }
    }

    /// Does `work` in one transaction, all of it or nothing.
    pub(super) fn within<T>(&self, lock: Lock, work: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, Fault> {
        self.begin(lock)?;
        let commit = |done| {
            let committed = self.conn.execute_batch("COMMIT");
            committed.map(|()| done).map_err(self.failed("commit"))
        };
        let done = work(&self.conn).and_then(commit);
        self.end();
        done
    }

    /// Does `work` without waiting for another process's lock. `None`: there is one.
    pub(super) fn unless_busy<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Option<T>> {
        self.conn.busy_timeout(Duration::ZERO)?;
        let done = work(&self.conn);
        self.conn.busy_timeout(BUSY_WAIT)?;
        match done {
            Err(error) if is_busy(&error) => Ok(None),
            done => done.map(Some),
        }
    }

    /// Makes sure that what was committed stays, also when the machine fails. In WAL mode SQLite usually syncs its log only
    /// now and then; after a power failure the last transactions are gone, and nothing of them may be elsewhere.
    pub(super) fn make_last(&self) -> Result<(), Fault> {
        let failed = |error: std::io::Error| Fault::retry(format!("cannot sync {}: {error}", self.path.display()));
        let path = fs::canonicalize(&self.path).map_err(failed)?;
        let mut log = path.clone().into_os_string();
        log.push("-wal");
        // Never the database itself: closing it again would take all of SQLite's locks on it away from this process
        // (<https://www.sqlite.org/howtocorrupt.html>, 2.2).
        match File::open(Path::new(&log)) {
            Ok(log) => return log.sync_data().map_err(failed),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        // Without a log the file was synced before the commit, which is that the journal beside it went away.
        let Some(dir) = path.parent() else { return Ok(()) };
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)
    }
}

/// Whether another process has the lock.
fn is_busy(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked};
    matches!(error.sqlite_error_code(), Some(DatabaseBusy | DatabaseLocked))
}

fn identity(path: &Path) -> Result<(u64, u64), Fault> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(Fault::stop(format!(
            "{} is a directory, not a database",
            path.display()
        ))),
        Ok(found) => Ok((found.dev(), found.ino())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Fault::retry(format!("there is no file {}", path.display())))
        }
        Err(error) => Err(Fault::retry(format!("cannot read {}: {error}", path.display()))),
    }
}
