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
    let database = Database::open(PathBuf::from(path), Access::Read).map_err(|fault| fault.to_string())?;
    let failed = |error: rusqlite::Error| database.failed("read the table")(error).to_string();
    let names: Vec<String> = columns
        .iter()
        .map(|name| format!("CAST(q.{} AS TEXT)", quote(name)))
        .collect();
    let from = match from {
        From::Table(table) => quote(table),
        From::Query(sql) => format!("({}\n)", sql.trim().trim_end_matches(';')),
    };
    let sql = format!("SELECT {} FROM {from} AS q", names.join(", "));
    let mut statement = database.conn.prepare(&sql).map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        let values = (0..columns.len()).map(|column| row.get::<_, Option<String>>(column));
        take(values.collect::<rusqlite::Result<_>>().map_err(failed)?)?;
    }
    Ok(())
}
