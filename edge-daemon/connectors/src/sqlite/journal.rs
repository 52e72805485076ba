//! A table's journal in the database: what there is of it, making it, giving it the columns that the table got, and taking off
//! it what every destination has. Its rows are written by the triggers, in the transactions of whoever changes the table.

use std::{path::Path, sync::Arc};

use bus_schema::{data::Schema, limits::COLUMNS_MAX};
use flow::Fault;
use rusqlite::{Connection, OptionalExtension};

use super::{
    TableInfo,
    database::Database,
    fault,
    layout::{field, load_table, rowid_sql},
    quote,
    triggers::{
        HEAD, Key, Shape, bound_of, column_sql, complete_sql, op, removal_sql, table_sql, trigger_names, trigger_sql,
    },
};

/// Rows that are taken off the journal in one transaction, and transactions at a time: writers wait for each.
const FORGET_ROWS_MAX: i64 = 5_000;
const FORGET_ROUNDS_MAX: usize = 20;
/// Numbers of journals that are made anew begin this much further on for each second: what was read of one is never taken for
/// a place in another of the same name.
const SEQS_PER_SECOND: i64 = 1_000_000;

/// A journal by name.
#[derive(Debug, Clone)]
pub(super) struct Journal {
    /// The name of its table.
    pub name: String,
    /// Most rows in it, before it gives up.
    pub rows_max: u64,
}

/// What there is of a journal.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing.
    Missing,
    /// All of it, as the table is now.
    Whole,
    /// All of it, for a table with so many columns or another bound.
    Outdated(usize),
    /// Changes may have got past it, for this reason.
    Broken(String),
}

impl Shape {
    /// Looks the table up. Faults if its changes cannot be captured.
    pub(super) fn load(conn: &Connection, path: &Path, table: &str) -> Result<Self, Fault> {
        let info = load_table(conn, path, table)?;
        let name = &info.name;
        if info.view {
            return Err(Fault::stop(format!(
                "'{name}' is a view: name the table whose changes to read"
            )));
        }
        if info.columns.len() > COLUMNS_MAX {
            let count = info.columns.len();
            return Err(Fault::stop(format!(
                "'{name}' has {count} columns, and a record holds at most {COLUMNS_MAX}: read a query of it by a cursor"
            )));
        }
        let keys = keys(conn, &info).map_err(|error| fault("read the schema", path, &error))?;
        if keys.is_empty() {
            return Err(Fault::stop(format!(
                "'{name}' has no primary key, so nothing tells which row has changed: give it one, or read it by a cursor"
            )));
        }
        Ok(Self {
            affinities: info.columns.iter().map(|column| column.affinity).collect(),
            rowid: rowid_sql(&info),
            keys,
            schema: Arc::new(Schema {
                fields: info.columns.iter().map(|column| field(column, &info)).collect(),
                collection: info.name,
            }),
        })
    }
}

fn keys(conn: &Connection, info: &TableInfo) -> rusqlite::Result<Vec<Key>> {
    let sql = "SELECT upper(x.coll) FROM pragma_index_list(?1) AS l, pragma_index_xinfo(l.name) AS x \
               WHERE l.origin = 'pk' AND x.key AND x.name = ?2";
    let mut collation = conn.prepare(sql)?;
    let mut columns: Vec<_> = info.columns.iter().enumerate().collect();
    columns.retain(|(_, column)| column.key_place > 0);
    columns.sort_by_key(|(_, column)| column.key_place);
    let key = |(index, column): (usize, &super::ColumnInfo)| {
        let of_index: Option<String> = collation
            .query_row([&info.name, &column.name], |row| row.get(0))
            .optional()?;
        let of_index = match of_index.as_deref() {
            Some("NOCASE") => "NOCASE",
            Some("RTRIM") => "RTRIM",
            // What is unique to any other is so to the last bit.
            _ => "BINARY",
        };
        Ok(Key {
            column: index,
            collation: of_index,
            is_own: column.rowid || own_collation(conn, &info.name, &column.name) == Some(of_index),
            nullable: !column.not_null && info.has_rowid,
            is_rowid: column.rowid,
        })
    };
    columns.into_iter().map(key).collect()
}

/// How a column compares by itself, of which SQLite has no description. `None`: as only another program knows.
fn own_collation(conn: &Connection, table: &str, column: &str) -> Option<&'static str> {
    let (table, column) = (quote(table), quote(column));
    let is_same = |one: &str, other: &str| {
        let sql = format!("SELECT {column} = ?1 FROM (SELECT {column} FROM {table} WHERE 0 UNION ALL SELECT ?2)");
        conn.query_row(&sql, [one, other], |row| row.get::<_, bool>(0)).ok()
    };
    Some(match (is_same("a", "A")?, is_same("a", "a ")?) {
        (true, _) => "NOCASE",
        (_, true) => "RTRIM",
        _ => "BINARY",
    })
}

impl Journal {
    /// The first and the last number; `None`: there is none, not even the one that always stays.
    pub(super) fn ends(&self, conn: &Connection) -> rusqlite::Result<Option<(i64, i64)>> {
        let journal = quote(&self.name);
        let sql = format!("SELECT (SELECT min(_seq) FROM {journal}), (SELECT max(_seq) FROM {journal})");
        let mut statement = conn.prepare_cached(&sql)?;
        statement.query_row([], |row| {
            Ok(row.get::<_, Option<i64>>(0)?.zip(row.get::<_, Option<i64>>(1)?))
        })
    }

    /// What there is of it. Runs inside the caller's transaction.
    pub(super) fn state(&self, conn: &Connection, path: &Path, shape: &Shape) -> Result<State, Fault> {
        let failed = |error| fault("read the schema", path, &error);
        let width = self.width(conn, path)?;
        let mut found: [Option<String>; 3] = Default::default();
        for (name, found) in trigger_names(&self.name).iter().zip(&mut found) {
            let sql = "SELECT sql FROM sqlite_schema WHERE type = 'trigger' AND name = ?1 COLLATE NOCASE";
            *found = conn
                .query_row(sql, [name], |row| row.get(0))
                .optional()
                .map_err(failed)?;
        }
        let Some(width) = width else {
            let state = match found.iter().any(Option::is_some) {
                true => State::Broken(format!("its journal '{}' is gone", self.name)),
                false => State::Missing,
            };
            return Ok(state);
        };
        if let Some(missing) = found.iter().position(Option::is_none) {
            let name = &trigger_names(&self.name)[missing];
            return Ok(State::Broken(format!("the trigger '{name}' is gone")));
        }
        let found = found.map(Option::unwrap_or_default);
        let bound = bound_of(&self.name, &found[0]);
        let columns = shape.affinities.len();
        let is_as_made =
            bound.is_some_and(|bound| width <= columns && trigger_sql(&self.name, shape, width, bound) == found);
        Ok(match is_as_made {
            true if width == columns && bound == Some(self.rows_max) => State::Whole,
            true => State::Outdated(width),
            false => State::Broken(format!(
                "the triggers of its journal '{}' are not those for it",
                self.name
            )),
        })
    }

    /// How many columns of the table it has. `None`: it is not there. Faults if another table has its name.
    fn width(&self, conn: &Connection, path: &Path) -> Result<Option<usize>, Fault> {
        let failed = |error| fault("read the schema", path, &error);
        let sql = "SELECT name FROM pragma_table_info(?1) ORDER BY cid";
        let mut statement = conn.prepare(sql).map_err(failed)?;
        let names = statement.query_map([&self.name], |row| row.get(0)).map_err(failed)?;
        let names: Vec<String> = names.collect::<Result<_, _>>().map_err(failed)?;
        if names.is_empty() {
            return Ok(None);
        }
        let width = names.len().saturating_sub(HEAD.len());
        let expected = HEAD.iter().map(ToString::to_string);
        let expected = expected.chain((1..=width).map(|place| place.to_string()));
        match names.iter().cloned().eq(expected) {
            true => Ok(Some(width)),
            false => Err(Fault::stop(format!(
                "{} has a table '{}' that is no journal: choose another name with journal = \"…\"",
                path.display(),
                self.name
            ))),
        }
    }

    /// Makes it, in the place of one that was never read. Gives the number it begins with. Runs inside the caller's
    /// transaction.
    pub(super) fn make(&self, conn: &Connection, path: &Path, shape: &Shape, unix_s: i64) -> Result<i64, Fault> {
        let failed = |error| fault("make the journal of changes", path, &error);
        let before = match self.width(conn, path)? {
            Some(_) => self.ends(conn).map_err(failed)?,
            None => None,
        };
        // Never next to a number of the one before.
        let start = (unix_s * SEQS_PER_SECOND).max(before.map_or(1, |(_, last)| last + 2));
        conn.execute_batch(&removal_sql(&self.name)).map_err(failed)?;
        conn.execute_batch(&table_sql(&self.name, shape)).map_err(failed)?;
        let width = shape.affinities.len();
        let journal = quote(&self.name);
        let sql = format!(
            "INSERT INTO {journal} (_seq, _op, _width) VALUES (?1, '{}', ?2)",
            op::START
        );
        conn.execute(&sql, [start, width as i64]).map_err(failed)?;
        for trigger in trigger_sql(&self.name, shape, width, self.rows_max) {
            conn.execute_batch(&trigger).map_err(failed)?;
        }
        Ok(start)
    }

    /// Gives it the columns that the table has and it has not, and its triggers the bound. What was changed since the table
    /// has them, all of it after `seq`, gets their values where it is the last that is known of a row. Runs inside the
    /// caller's transaction.
    pub(super) fn extend(
        &self,
        conn: &Connection,
        path: &Path,
        shape: &Shape,
        (width, seq): (usize, i64),
    ) -> Result<(), Fault> {
        let failed = |error| fault("add a column to the journal of changes", path, &error);
        let journal = quote(&self.name);
        for (column, affinity) in shape.affinities.iter().enumerate().skip(width) {
            let sql = format!("ALTER TABLE {journal} ADD COLUMN {}", column_sql(column, *affinity));
            conn.execute_batch(&sql).map_err(failed)?;
        }
        if width < shape.affinities.len() {
            let sql = complete_sql(&self.name, shape, width);
            conn.execute(&sql, [seq]).map_err(failed)?;
        }
        for name in trigger_names(&self.name) {
            conn.execute_batch(&format!("DROP TRIGGER {}", quote(&name)))
                .map_err(failed)?;
        }
        for trigger in trigger_sql(&self.name, shape, shape.affinities.len(), self.rows_max) {
            conn.execute_batch(&trigger).map_err(failed)?;
        }
        Ok(())
    }

    /// Takes the rows up to `seq` off it, but for its last. Waits for nobody. `false`: there are more, or somebody writes.
    pub(super) fn forget(&self, database: &Database, seq: i64) -> Result<bool, Fault> {
        let journal = quote(&self.name);
        // The last one stays: its number is where the next one comes from.
        let sql = format!(
            "DELETE FROM {journal} WHERE _seq <= ?1 AND _seq < (SELECT max(_seq) FROM {journal}) \
             AND _seq < (SELECT min(_seq) FROM {journal}) + {FORGET_ROWS_MAX}"
        );
        for _ in 0..FORGET_ROUNDS_MAX {
            let done = database.unless_busy(|conn| conn.prepare_cached(&sql)?.execute([seq]));
            match done.map_err(database.failed("shorten the journal of changes"))? {
                None => return Ok(false),
                Some(rows) if (rows as i64) < FORGET_ROWS_MAX => return Ok(true),
                Some(_) => {}
            }
        }
        Ok(false)
    }
}
