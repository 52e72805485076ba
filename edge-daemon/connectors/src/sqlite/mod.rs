//! SQLite: the source and the destination, and what both know of database files, names and declared types.

mod bookmark;
mod changes;
mod check;
mod cursor;
mod database;
mod journal;
mod layout;
mod mark;
mod page;
mod sink;
mod source;
mod statements;
mod store;
mod table;
#[cfg(test)]
mod tests;
mod texts;
mod triggers;

pub use sink::SINK;
pub use source::SOURCE;
pub(crate) use texts::{From, find as find_texts, read as texts};

use std::path::{Path, PathBuf};

use flow::Fault;
use rusqlite::{Connection, ErrorCode, OptionalExtension};

/// Where SQLite looks for the value types of a column: its affinity (<https://www.sqlite.org/datatype3.html>, 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Affinity {
    /// Whole numbers; other numbers and text stay what they are when they cannot be one.
    Integer,
    /// Floats.
    Real,
    /// Text.
    Text,
    /// Whatever looks like a number becomes one.
    Numeric,
    /// Nothing is converted.
    None,
}

impl Affinity {
    /// The affinity of a declared type. In a STRICT table `ANY` converts nothing.
    pub(crate) fn of(declared: &str, strict: bool) -> Self {
        let declared = declared.to_ascii_uppercase();
        let has = |part: &str| declared.contains(part);
        if has("INT") {
            Affinity::Integer
        } else if has("CHAR") || has("CLOB") || has("TEXT") {
            Affinity::Text
        } else if declared.is_empty() || has("BLOB") || (strict && declared == "ANY") {
            Affinity::None
        } else if has("REAL") || has("FLOA") || has("DOUB") {
            Affinity::Real
        } else {
            Affinity::Numeric
        }
    }
}

/// A table as the database describes it.
pub(crate) struct TableInfo {
    /// Its name, in the database's own spelling.
    pub name: String,
    /// A table of its own, with rowids: not a view, not WITHOUT ROWID.
    pub has_rowid: bool,
    /// A view: nothing in it is known to be unique.
    pub view: bool,
    /// Its visible columns, in order.
    pub columns: Vec<ColumnInfo>,
}

/// A column as the database describes it.
pub(crate) struct ColumnInfo {
    /// Its name.
    pub name: String,
    /// Its declared type; empty when it has none.
    pub declared: String,
    /// What SQLite does to values stored in it.
    pub affinity: Affinity,
    /// Declared NOT NULL (or cannot be null because it is the rowid).
    pub not_null: bool,
    /// Place in the primary key from 1; 0 when it is no part of it.
    pub key_place: i64,
    /// Another name of the rowid.
    pub rowid: bool,
    /// Computed by the database; cannot be written.
    pub generated: bool,
}

impl TableInfo {
    /// Describes a table; `None` when there is none of that name.
    pub(crate) fn load(conn: &Connection, table: &str) -> rusqlite::Result<Option<Self>> {
        let sql =
            "SELECT name, type, wr, strict FROM pragma_table_list WHERE schema = 'main' AND name = ?1 COLLATE NOCASE";
        let row = |row: &rusqlite::Row<'_>| {
            Ok((
                row.get::<_, String>(0)?,
                row.get::<_, String>(1)?,
                row.get::<_, bool>(2)?,
                row.get::<_, bool>(3)?,
            ))
        };
        let Some((name, kind, without_rowid, strict)) = conn.query_row(sql, [table], row).optional()? else {
            return Ok(None);
        };
        let view = kind == "view";
        // Hidden 1 is a virtual table's hidden column, 2 and 3 are generated ones.
        let sql =
            "SELECT name, type, \"notnull\", pk, hidden FROM pragma_table_xinfo(?1) WHERE hidden <> 1 ORDER BY cid";
        let mut statement = conn.prepare(sql)?;
        let columns = statement.query_map([&name], |row| {
            let declared: String = row.get(1)?;
            Ok(ColumnInfo {
                name: row.get(0)?,
                affinity: Affinity::of(&declared, strict),
                declared,
                not_null: row.get(2)?,
                key_place: row.get(3)?,
                rowid: false,
                generated: row.get::<_, i64>(4)? != 0,
            })
        })?;
        let mut columns = columns.collect::<rusqlite::Result<Vec<_>>>()?;
        let has_rowid = !view && !without_rowid;
        let mut keys = columns.iter_mut().filter(|column| column.key_place > 0);
        // Exactly "INTEGER" makes a single key column the rowid itself; then no index of its own exists for the key.
        if let (Some(only), None) = (keys.next(), keys.next())
            && has_rowid
            && only.declared.eq_ignore_ascii_case("INTEGER")
        {
            let sql = "SELECT count(*) FROM pragma_index_list(?1) WHERE origin = 'pk'";
            // (INTEGER PRIMARY KEY DESC is the one historical exception, and it has an index.)
            if conn.query_row(sql, [&name], |row| row.get::<_, i64>(0))? == 0 {
                only.rowid = true;
                only.not_null = true;
            }
        }
        Ok(Some(Self {
            name,
            has_rowid,
            view,
            columns,
        }))
    }

    /// The column of that name, as SQLite compares names.
    pub(crate) fn column(&self, name: &str) -> Option<&ColumnInfo> {
        self.columns
            .iter()
            .find(|column| column.name.eq_ignore_ascii_case(name))
    }

    /// The columns of each unique index that covers all rows, the primary key's included.
    pub(crate) fn unique_keys(&self, conn: &Connection) -> rusqlite::Result<Vec<Vec<String>>> {
        let mut keys: Vec<Vec<String>> = self
            .columns
            .iter()
            .filter(|column| column.rowid)
            .map(|column| vec![column.name.clone()])
            .collect();
        let sql = "SELECT name FROM pragma_index_list(?1) WHERE \"unique\" AND NOT partial";
        let mut statement = conn.prepare(sql)?;
        let indexes = statement.query_map([&self.name], |row| row.get::<_, String>(0))?;
        for index in indexes.collect::<rusqlite::Result<Vec<_>>>()? {
            let sql = "SELECT name FROM pragma_index_info(?1) ORDER BY seqno";
            let mut statement = conn.prepare(sql)?;
            let columns = statement.query_map([index], |row| row.get::<_, Option<String>>(0))?;
            // An expression has no name: such an index is the key of nothing.
            if let Some(key) = columns.collect::<rusqlite::Result<Option<Vec<_>>>>()? {
                keys.push(key);
            }
        }
        Ok(keys)
    }
}

/// The names of all tables and views that belong to the user.
pub(crate) fn table_names(conn: &Connection) -> rusqlite::Result<Vec<String>> {
    let sql =
        "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
    conn.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
}

/// Where a database file is. Joined even when `path` looks like one of SQLite's special names (`:memory:`).
pub(crate) fn database_path(base_dir: &Path, path: &Path) -> PathBuf {
    let base_dir = if base_dir.as_os_str().is_empty() {
        Path::new(".")
    } else {
        base_dir
    };
    base_dir.join(path)
}

/// What a failure of SQLite means for the pipe. `doing` completes "cannot …".
pub(crate) fn fault(doing: &str, path: &Path, error: &rusqlite::Error) -> Fault {
    let shown = path.display();
    match error.sqlite_error_code() {
        // Nothing heals that by itself: the path is wrong, or the file belongs to another program.
        Some(ErrorCode::NotADatabase) => Fault::stop(format!("{shown} is not a SQLite database")),
        Some(ErrorCode::CannotOpen) if path.is_dir() => Fault::stop(format!("{shown} is a directory, not a database")),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            Fault::retry(format!("cannot {doing}: {shown} is locked by another process"))
        }
        Some(ErrorCode::ReadOnly) => Fault::retry(format!(
            "cannot {doing}: the daemon may not write to {shown}, or not to its directory"
        )),
        Some(ErrorCode::DiskFull) => Fault::retry(format!("cannot {doing}: the disk of {shown} is full")),
        Some(ErrorCode::DatabaseCorrupt) => Fault::retry(format!(
            "cannot {doing}: {shown} is damaged ({error}); restore it, or repair it with `sqlite3 {shown} .recover`"
        )),
        Some(ErrorCode::CannotOpen) if !path.exists() => match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() && !parent.exists() => {
                Fault::retry(format!("cannot {doing}: there is no directory {}", parent.display()))
            }
            _ => Fault::retry(format!("cannot {doing}: there is no file {shown}")),
        },
        Some(ErrorCode::CannotOpen) => Fault::retry(format!(
            "cannot {doing}: the daemon may not open {shown}, or (in WAL mode) not create the files -wal and -shm beside it"
        )),
        _ => Fault::retry(format!("cannot {doing} in {shown}: {error}")),
    }
}

/// A name as SQL. Anything goes in one but NUL, which ends SQLite's text; the callers refuse it beforehand.
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
