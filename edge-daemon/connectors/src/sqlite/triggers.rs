//! The journal's SQL: its table, the triggers that write it, and how it and the table beside it are read. Pure.
//!
//! A row of the journal has a number, an operation, how many columns there were, and the values of these by their places. So a
//! column or table that is renamed needs no change, because SQLite renames it in the triggers. The triggers do not take the
//! values they are given but those that the row has when they run: another trigger may have changed it again before, and
//! nobody says which runs first. So what the journal says last of a row is always how it is.

use std::sync::Arc;

use bus_schema::data::Schema;

use super::{Affinity, quote};

/// The first columns of every journal; the values follow, named by their places from 1.
pub(super) const HEAD: [&str; 3] = ["_seq", "_op", "_width"];

/// What happened to a row of the table, as journals say it.
pub(super) mod op {
    /// Nothing: the row a journal begins with.
    pub(crate) const START: &str = "-";
    /// It is new, or in the place of another one with its key.
    pub(crate) const INSERT: &str = "i";
    /// It has other values.
    pub(crate) const UPDATE: &str = "u";
    /// It is gone. Only the key has values.
    pub(crate) const DELETE: &str = "d";
    /// Nobody knows: the journal was full, and takes no more.
    pub(crate) const FULL: &str = "x";
}

/// A table whose changes are captured.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    /// Collection and columns.
    pub schema: Arc<Schema>,
    /// For each column.
    pub affinities: Vec<Affinity>,
    /// The primary key, in its order.
    pub keys: Vec<Key>,
    /// The rowid as SQL, if it has one.
    pub rowid: Option<String>,
}

/// A column of the primary key.
#[derive(Debug, Clone)]
pub(super) struct Key {
    /// Which column it is, from 0.
    pub column: usize,
    /// How the key's index compares it: one that every SQLite knows.
    pub collation: &'static str,
    /// The column compares by itself as the index does.
    pub is_own: bool,
    /// Rows may have NULL in it, as SQLite allows it.
    pub nullable: bool,
    /// It is the rowid, and no index has it.
    pub is_rowid: bool,
}

impl Key {
    /// Compared as the key's index does.
    fn collated(&self, sql: &str) -> String {
        match self.is_rowid {
            true => sql.to_string(),
            false => format!("{sql} COLLATE {}", self.collation),
        }
    }

    /// A column of the table, compared as the key's index does. The index serves several columns only if nothing is said
    /// about them that they do by themselves.
    fn ordered(&self, column: &str) -> String {
        match self.is_own {
            true => column.to_string(),
            false => self.collated(column),
        }
    }

    /// Both are the same to the last bit; found by the key's index.
    fn same(&self, left: &str, right: &str) -> String {
        let by_index = format!("{left} = {}", self.collated(right));
        match self.is_rowid || self.collation == "BINARY" {
            true => by_index,
            false => format!("{by_index} AND {left} = {right} COLLATE BINARY"),
        }
    }
}

impl Shape {
    /// The table's name as SQL.
    pub(super) fn table(&self) -> String {
        quote(&self.schema.collection)
    }

    /// A column of the table as SQL, of the table itself or of `OLD` or `NEW`.
    fn column(&self, of: &str, column: usize) -> String {
        format!("{of}.{}", quote(&self.schema.fields[column].name))
    }

    /// The columns of the table as SQL, the first `width` of them.
    fn columns(&self, width: usize) -> String {
        let table = self.table();
        joined((0..width).map(|column| self.column(&table, column)), ", ")
    }

    /// Whether a column belongs to the key.
    pub(super) fn is_key(&self, column: usize) -> bool {
        self.keys.iter().any(|key| key.column == column)
    }

    /// The rows whose key is that of `OLD` or `NEW`.
    fn same_key(&self, of: &str) -> String {
        let table = self.table();
        let same = |key: &Key| key.same(&self.column(&table, key.column), &self.column(of, key.column));
        joined(self.keys.iter().map(same), " AND ")
    }

    /// As many parameters as the key has columns, as a row value, from number `first` on.
    fn parameters(&self, first: usize) -> String {
        let parameter = |index| format!("?{}", first + index);
        format!("({})", joined((0..self.keys.len()).map(parameter), ", "))
    }

    /// Rows that have a place in the key's order, each column as `name` writes it; with ` AND ` before each.
    fn whole(&self, name: impl Fn(usize) -> String) -> String {
        let keys = self.keys.iter().filter(|key| key.nullable);
        let whole = |key: &Key| format!(" AND {} IS NOT NULL", name(key.column));
        joined(keys.map(whole), "")
    }
}

fn joined(parts: impl Iterator<Item = String>, between: &str) -> String {
    parts.collect::<Vec<_>>().join(between)
}

/// A column of the journal as SQL.
fn place(column: usize) -> String {
    quote(&(column + 1).to_string())
}

/// The journal's table.
pub(super) fn table_sql(journal: &str, shape: &Shape) -> String {
    let [seq, op, width] = HEAD;
    let columns = shape.affinities.iter().enumerate();
    let columns = columns.map(|(column, affinity)| format!(", {}", column_sql(column, *affinity)));
    format!(
        "CREATE TABLE {} ({seq} INTEGER PRIMARY KEY, {op} TEXT NOT NULL, {width} INTEGER NOT NULL{})",
        quote(journal),
        joined(columns, "")
    )
}

/// A column of the journal that keeps values as they were stored in one of the table.
pub(super) fn column_sql(column: usize, affinity: Affinity) -> String {
    let declared = match affinity {
        Affinity::Integer => "INTEGER",
        Affinity::Real => "REAL",
        Affinity::Text => "TEXT",
        Affinity::Numeric => "NUMERIC",
        Affinity::None => "BLOB",
    };
    format!("{} {declared}", place(column))
}

/// The names of the journal's triggers.
pub(super) fn trigger_names(journal: &str) -> [String; 3] {
    ["insert", "update", "delete"].map(|event| format!("{journal}_{event}"))
}

/// What comes before the bound in every trigger.
fn before_bound(journal: &str) -> String {
    format!("(SELECT min(_seq) FROM {}) >= ", quote(journal))
}

/// The bound that a trigger was made with.
pub(super) fn bound_of(journal: &str, trigger: &str) -> Option<u64> {
    let (_, rest) = trigger.split_once(&before_bound(journal))?;
    rest.split(' ').next()?.parse().ok()
}

/// The triggers that write the first `width` columns into the journal, as the database keeps them.
pub(super) fn trigger_sql(journal: &str, shape: &Shape, width: usize, rows_max: u64) -> [String; 3] {
    let (m, t) = (quote(journal), shape.table());
    let open = format!("(SELECT _op FROM {m} ORDER BY _seq DESC LIMIT 1) <> '{}'", op::FULL);
    let before_bound = before_bound(journal);
    // Both ends of the numbers, which have no gaps: the first and the last entry of one tree.
    let full = format!(
        "INSERT INTO {m} (_op, _width) SELECT '{}', {width} WHERE (SELECT max(_seq) FROM {m}) - {before_bound}{rows_max} \
         AND {open};",
        op::FULL
    );
    let keys = joined(shape.keys.iter().map(|key| place(key.column)), ", ");
    let old = joined(shape.keys.iter().map(|key| shape.column("OLD", key.column)), ", ");
    // Not if another trigger has put it back.
    let gone = format!("NOT EXISTS (SELECT 1 FROM {t} WHERE {})", shape.same_key("OLD"));
    let delete = |when: &str| {
        format!(
            "INSERT INTO {m} (_op, _width, {keys}) SELECT '{}', {width}, {old} WHERE {when}{gone} AND {open};",
            op::DELETE
        )
    };
    let names = joined((0..width).map(place), ", ");
    let this_row = match &shape.rowid {
        Some(rowid) => format!("{t}.{rowid} = NEW.{rowid}"),
        None => shape.same_key("NEW"),
    };
    let row = |op: &str| {
        format!(
            "INSERT INTO {m} (_op, _width, {names}) SELECT {op}, {width}, {} FROM {t} WHERE {this_row} AND {open};",
            shape.columns(width)
        )
    };
    let has_moved = |key: &Key| {
        let (old, new) = (shape.column("OLD", key.column), shape.column("NEW", key.column));
        format!("{old} IS NOT {new} COLLATE BINARY")
    };
    let moved = format!("({})", joined(shape.keys.iter().map(has_moved), " OR "));
    let (inserted, updated) = (op::INSERT, op::UPDATE);
    let bodies = [
        row(&format!("'{inserted}'")),
        // Another key is another row.
        delete(&format!("{moved} AND "))
            + " "
            + &row(&format!("CASE WHEN {moved} THEN '{inserted}' ELSE '{updated}' END")),
        delete(""),
    ];
    let events = ["INSERT", "UPDATE", "DELETE"].into_iter().zip(bodies);
    let mut triggers = events.zip(trigger_names(journal)).map(|((event, body), name)| {
        format!(
            "CREATE TRIGGER {} AFTER {event} ON {t} BEGIN {full} {body} END",
            quote(&name)
        )
    });
    [(); 3].map(|()| triggers.next().unwrap_or_default())
}

/// Gives the last journal row of each key after ?1 the values of the columns from `from` on, which the triggers did not know.
pub(super) fn complete_sql(journal: &str, shape: &Shape, from: usize) -> String {
    let (m, t) = (quote(journal), shape.table());
    let width = shape.affinities.len();
    let set = joined(
        (from..width).map(|column| format!("{} = {}", place(column), shape.column(&t, column))),
        ", ",
    );
    let same = |key: &Key| {
        let of_journal = format!("{m}.{}", place(key.column));
        key.same(&shape.column(&t, key.column), &of_journal)
    };
    let same = joined(shape.keys.iter().map(same), " AND ");
    let key = |key: &Key| format!("{} COLLATE BINARY", place(key.column));
    let key = joined(shape.keys.iter().map(key), ", ");
    format!(
        "UPDATE {m} SET {set}, _width = {width} FROM {t} WHERE {same} AND {m}._op IN ('{}', '{}') AND {m}._seq IN \
         (SELECT max(_seq) FROM {m} WHERE _seq > ?1 GROUP BY {key})",
        op::INSERT,
        op::UPDATE
    )
}

/// How the journal and the table are read.
#[derive(Debug)]
pub(super) struct Queries {
    /// The journal's rows after ?1: head, whether it is due, values. All are due.
    pub stream: String,
    /// The same, while of the table the rows up to the key ?2 … have been read: those of higher ones are not due.
    pub during: String,
    /// The same, while none have been read.
    pub before: String,
    /// The table's first rows, at most ?1.
    pub first: String,
    /// The rows after the key ?1 …; the last parameter is how many at most.
    pub next: String,
    /// The rows that have NULL in the key. `None`: there cannot be any.
    pub nulls: Option<String>,
}

/// Values of a journal's row begin here in the statements that read it: after its head, and whether it is due.
pub(super) const VALUES_FROM: usize = HEAD.len() + 1;

impl Queries {
    pub(super) fn new(journal: &str, shape: &Shape) -> Self {
        let (m, t) = (quote(journal), shape.table());
        let width = shape.affinities.len();
        let values = joined((0..width).map(place), ", ");
        let changes =
            |due: &str| format!("SELECT _seq, _op, _width, {due}, {values} FROM {m} WHERE _seq > ?1 ORDER BY _seq");
        let key = joined(shape.keys.iter().map(|key| key.collated(&place(key.column))), ", ");
        let due = format!("({key}) <= {}{}", shape.parameters(2), shape.whole(place));
        let name = |column: usize| quote(&shape.schema.fields[column].name);
        let columns = joined((0..width).map(name), ", ");
        let order = joined(shape.keys.iter().map(|key| key.ordered(&name(key.column))), ", ");
        let rows = |after: &str, limit: usize| {
            let whole = shape.whole(name);
            format!("SELECT {columns} FROM {t} WHERE {after}{whole} ORDER BY {order} LIMIT ?{limit}")
        };
        let nullable = shape.keys.iter().filter(|key| key.nullable);
        let nulls = joined(nullable.map(|key| format!("{} IS NULL", name(key.column))), " OR ");
        let after = format!("({order}) > {}", shape.parameters(1));
        Self {
            stream: changes("1"),
            during: changes(&due),
            before: changes("0"),
            first: rows("1", 1),
            next: rows(&after, shape.keys.len() + 1),
            nulls: (!nulls.is_empty()).then(|| format!("SELECT {columns} FROM {t} WHERE {nulls}")),
        }
    }
}

/// What a person runs to be rid of a journal.
pub(super) fn removal_sql(journal: &str) -> String {
    let triggers = trigger_names(journal).map(|name| format!("DROP TRIGGER IF EXISTS {}; ", quote(&name)));
    format!("{}DROP TABLE IF EXISTS {};", triggers.concat(), quote(journal))
}
