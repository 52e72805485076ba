//! Some columns of a table or query as texts: what a lookup keeps in memory. Never writes.

use std::path::{Path, PathBuf};

use super::{
    database::{Access, Database},
    quote,
};

/// What to read: all of a table, or of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum From {
    /// A table or view.
    Table(String),
    /// A SELECT.
    Query(String),
}

/// Gives each row of these columns to `take`. Blocks.
pub(crate) fn read(
    path: &Path,
    from: &From,
    columns: &[String],
    mut take: impl FnMut(Vec<Option<String>>) -> Result<(), String>,
) -> Result<(), String> {
    let database = open(path)?;
    let failed = |error: rusqlite::Error| database.failed("read the table")(error).to_string();
    let mut statement = database.conn.prepare(&select(from, columns)).map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        let values = (0..columns.len()).map(|column| row.get::<_, Option<String>>(column));
        take(values.collect::<rusqlite::Result<_>>().map_err(failed)?)?;
    }
    Ok(())
}

/// Whether the table or query is there and has the columns. Reads no row. Blocks.
pub(crate) fn find(path: &Path, from: &From, columns: &[String]) -> Result<(), String> {
    let database = open(path)?;
    let prepared = database.conn.prepare(&select(from, columns));
    let prepared = prepared.map(drop);
    prepared.map_err(|error| database.failed("read the table")(error).to_string())
}

fn open(path: &Path) -> Result<Database, String> {
    Database::open(PathBuf::from(path), Access::Read).map_err(|fault| fault.to_string())
}

fn select(from: &From, columns: &[String]) -> String {
    let names: Vec<String> = columns
        .iter()
        .map(|name| format!("CAST(q.{} AS TEXT)", quote(name)))
        .collect();
    let from = match from {
        From::Table(table) => quote(table),
        From::Query(sql) => format!("({}\n)", sql.trim().trim_end_matches(';')),
    };
    format!("SELECT {} FROM {from} AS q", names.join(", "))
}
