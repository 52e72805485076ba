//! Whether a SQLite source or destination would work: the file, the directory, the table, and what is to be captured of it.
//! Opens for reading only, and makes nothing. Everything here blocks.

use std::path::Path;

use flow::{Fault, Trouble, TroubleKind as Kind};
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{
    TableInfo, changes, cursor,
    database::{Access, Database, Lock},
    fault,
    journal::State,
    layout::{Layout, Subject},
    store, table_names,
    triggers::Shape,
};
use crate::{
    names::hint,
    reach::{self, as_trouble, missing},
};

/// Opens a file that is there for reading.
fn open(path: &Path) -> Result<Database, Trouble> {
    if !reach::readable_file(path)? {
        return Err(missing(
            format!("there is no file {}", path.display()),
            "correct the path, or let the program that makes it run first",
        ));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    // The file is looked into by the first statement only.
    let looked = Connection::open_with_flags(path, flags)
        .and_then(|conn| conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())));
    looked.map_err(|error| of_error("look into the file", path, &error))?;
    Database::open(path.to_path_buf(), Access::Read).map_err(|fault| as_trouble(&fault))
}

fn of_error(doing: &str, path: &Path, error: &rusqlite::Error) -> Trouble {
    let cause = fault(doing, path, error).to_string();
    let (kind, remedy) = match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => (Kind::Path, "name the database's own file"),
        Some(ErrorCode::DatabaseCorrupt) => (Kind::Setup, "restore it from a copy, or repair it"),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            (Kind::Setup, "see which program holds the lock: fuser -v, and the file")
        }
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => (
            Kind::Path,
            "give the daemon's user the right to the file and its directory",
        ),
        _ => (Kind::Config, "correct the table or the query"),
    };
    Trouble::new(kind, cause, remedy)
}

fn table_there(conn: &Connection, path: &Path, table: &str) -> Result<TableInfo, Trouble> {
    let failed = |error| of_error("read the schema", path, &error);
    if let Some(info) = TableInfo::load(conn, table).map_err(failed)? {
        return Ok(info);
    }
    let names = table_names(conn).map_err(failed)?;
    Err(missing(
        format!(
            "{} has no table '{table}'{}",
            path.display(),
            hint(table, names.iter().map(String::as_str))
        ),
        "create it, or correct the name",
    ))
}

/// That of the source that reads by a cursor.
pub(super) fn cursor(path: &Path, settings: &cursor::Settings) -> Result<String, Trouble> {
    let database = open(path)?;
    if let Subject::Table(table) = &settings.subject {
        table_there(&database.conn, path, table)?;
    }
    let layout = Layout::load(&database.conn, path, &settings.subject, settings.cursor.as_deref());
    let layout = layout.map_err(|fault| {
        Trouble::new(
            Kind::Config,
            fault.to_string(),
            "correct the query, or name another cursor",
        )
    })?;
    Ok(format!(
        "{}: {} columns of '{}' can be read, in the order of {}",
        path.display(),
        layout.schema.fields.len(),
        layout.schema.collection,
        layout.cursor
    ))
}

/// That of the source that reads changes. Makes no trigger.
pub(super) fn changes(path: &Path, settings: &changes::Settings) -> Result<String, Trouble> {
    let database = open(path)?;
    reach::writable_file(path)?;
    reach::writable_directory(path.parent().unwrap_or(Path::new(".")))?;
    table_there(&database.conn, path, &settings.table)?;
    let unfit = |fault: Fault| {
        Trouble::new(
            Kind::Config,
            fault.to_string(),
            "name a table with a primary key, or another journal",
        )
    };
    let state = database.within(Lock::Shared, |conn| {
        let shape = Shape::load(conn, path, &settings.table)?;
        settings.journal.state(conn, path, &shape)
    });
    let (place, table, journal) = (path.display(), &settings.table, &settings.journal.name);
    match state.map_err(unfit)? {
        State::Missing => Ok(format!(
            "{place}: changes of '{table}' can be read; the journal '{journal}' will be made"
        )),
        State::Whole | State::Outdated(_) => {
            Ok(format!("{place}: changes of '{table}' are in the journal '{journal}'"))
        }
        State::Broken(cause) => Err(Trouble::new(
            Kind::Setup,
            format!("{place}: changes of '{table}' may have got past the journal: {cause}"),
            "give the node another name to begin with the rows there are, or drop what is left of the journal",
        )),
    }
}

/// The destination's. Makes no file.
pub(super) fn sink(settings: &store::Settings) -> Result<String, Trouble> {
    let (path, table) = (&settings.path, &settings.table);
    reach::writable_file(path)?;
    // The log and the journal are made beside it.
    reach::writable_directory(path.parent().unwrap_or(Path::new(".")))?;
    if !path.exists() {
        return match settings.create_table {
            true => Ok(format!("{} will be made, with the table '{table}'", path.display())),
            false => Err(missing(
                format!("there is no file {}", path.display()),
                "correct the path, or set create_table = true",
            )),
        };
    }
    let database = open(path)?;
    match TableInfo::load(&database.conn, table).map_err(|error| of_error("read the schema", path, &error))? {
        Some(_) => Ok(format!("{}: the table '{table}' can be written", path.display())),
        None if settings.create_table => Ok(format!("{}: the table '{table}' will be made", path.display())),
        None => table_there(&database.conn, path, table).map(|_| String::new()),
    }
}
