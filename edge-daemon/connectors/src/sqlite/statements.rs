//! Statements that write one row, and how values are bound to them without SQLite changing them on the way.

use bus_schema::data::{Batch, Cell, Op};
use rusqlite::{
    Statement, ToSql,
    types::{ToSqlOutput, ValueRef},
};

use super::{
    Affinity,
    table::{Column, Plan, Target},
};
use crate::list::list_json;

/// The text of a statement, and which columns of the batch its parameters are.
pub(super) struct Shape {
    /// What it does.
    pub op: Op,
    /// The columns of the batch that the record has and the table takes.
    pub present: Vec<usize>,
    /// The statement.
    pub sql: String,
    /// The column of each parameter.
    pub parameters: Vec<usize>,
}

impl Shape {
    /// The statement for records that have the columns `present`. Keys are known to be among them where they matter.
    pub(super) fn new(plan: &Plan, op: Op, present: Vec<usize>) -> Self {
        let table = &plan.table;
        let name = |index: usize| match &plan.targets[index] {
            Target::Column(column) => column.sql.as_str(),
            Target::Generated | Target::Refused(_) => "NULL",
        };
        let is_key = |index: &usize| plan.keys.contains(index);
        let list = |indexes: &mut dyn Iterator<Item = String>| indexes.collect::<Vec<_>>().join(", ");
        let others: Vec<usize> = present.iter().copied().filter(|index| !is_key(index)).collect();
        let matches = |first: usize| {
            let terms = plan
                .keys
                .iter()
                .enumerate()
                .map(|(at, key)| format!("{} = ?{}", name(*key), first + at));
            terms.collect::<Vec<_>>().join(" AND ")
        };
        let (sql, parameters) = match op {
            // OR ABORT: a refused row leaves its neighbours alone, whatever ON CONFLICT the table's constraints name.
            Op::Insert if present.is_empty() => (format!("INSERT OR ABORT INTO {table} DEFAULT VALUES"), Vec::new()),
            Op::Insert | Op::Upsert => {
                let names = list(&mut present.iter().map(|index| name(*index).to_string()));
                let values = list(&mut (1..=present.len()).map(|at| format!("?{at}")));
                let mut sql = format!("INSERT OR ABORT INTO {table} ({names}) VALUES ({values})");
                if op == Op::Upsert {
                    let keys = list(&mut plan.keys.iter().map(|index| name(*index).to_string()));
                    let sets = list(&mut others.iter().map(|index| format!("{0} = excluded.{0}", name(*index))));
                    let action = if sets.is_empty() {
                        "NOTHING".into()
                    } else {
                        format!("UPDATE SET {sets}")
                    };
                    sql.push_str(&format!(" ON CONFLICT ({keys}) DO {action}"));
                }
                (sql, present.clone())
            }
            Op::Update => {
                let mut sets = list(
                    &mut others
                        .iter()
                        .enumerate()
                        .map(|(at, index)| format!("{} = ?{}", name(*index), at + 1)),
                );
                if sets.is_empty() {
                    // Nothing changes, but whether the row is there still has to be found out.
                    sets = plan
                        .keys
                        .first()
                        .map(|key| format!("{0} = {0}", name(*key)))
                        .unwrap_or_default();
                }
                let sql = format!("UPDATE OR ABORT {table} SET {sets} WHERE {}", matches(others.len() + 1));
                (sql, others.iter().chain(&plan.keys).copied().collect())
            }
            Op::Delete => (format!("DELETE FROM {table} WHERE {}", matches(1)), plan.keys.clone()),
        };
        Self {
            op,
            present,
            sql,
            parameters,
        }
    }

    /// Binds the values of a row. `Ok(Err(…))`: the table's column cannot hold one, and why.
    pub(super) fn bind(
        &self,
        statement: &mut Statement<'_>,
        plan: &Plan,
        batch: &Batch,
        row: usize,
    ) -> rusqlite::Result<Result<(), String>> {
        for (at, index) in self.parameters.iter().enumerate() {
            let Target::Column(column) = &plan.targets[*index] else {
                continue;
            };
            match Stored::new(batch.cell(row, *index), column) {
                Ok(stored) => statement.raw_bind_parameter(at + 1, stored)?,
                Err(reason) => return Ok(Err(format!("column '{}': {reason}", plan.schema.fields[*index].name))),
            }
        }
        Ok(Ok(()))
    }
}

/// A value as SQLite stores it.
#[derive(Debug, PartialEq)]
enum Stored<'a> {
    Null,
    Integer(i64),
    Real(f64),
    Text(&'a str),
    Owned(String),
    Blob(&'a [u8]),
}

impl<'a> Stored<'a> {
    fn new(cell: Cell<'a>, column: &Column) -> Result<Self, String> {
        let stored = match cell {
            Cell::Null | Cell::Missing | Cell::Unchanged => Stored::Null,
            Cell::Bool(v) => Stored::Integer(i64::from(v)),
            Cell::I64(v) => Stored::Integer(v),
            Cell::U64(v) => i64::try_from(v).map_or_else(|_| Stored::Owned(v.to_string()), Stored::Integer),
            Cell::F32(v) => Stored::Real(f64::from(v)),
            Cell::F64(v) => Stored::Real(v),
            Cell::Text(v) | Cell::Json(v) => Stored::Text(v),
            Cell::Bytes(v) => Stored::Blob(v),
            Cell::List(items) => Stored::Owned(list_json(items)),
            Cell::Decimal(..)
            | Cell::Date(_)
            | Cell::Time(_)
            | Cell::Timestamp(_)
            | Cell::TimestampUtc(_)
            | Cell::TimestampOffset(..)
            | Cell::Uuid(_) => Stored::Owned(cell.to_string()),
        };
        stored.through(column)
    }

    /// What to bind so that the value comes out of the column's affinity unharmed.
    fn through(self, column: &Column) -> Result<Self, String> {
        use Affinity::{Integer, None, Numeric, Real, Text};
        match (&self, column.affinity) {
            (Stored::Null, _) if column.rowid => Err("is NULL, and SQLite would make up a number".to_string()),
            (Stored::Real(v), _) if v.is_nan() => Err("SQLite stores NaN as NULL".to_string()),
            // SQLite would write 15 digits.
            (Stored::Real(v), Text) => Ok(Stored::Owned(format!("{v:?}"))),
            (Stored::Real(v), Integer | Numeric | Real) if *v == 0.0 && v.is_sign_negative() => {
                if !column.noted.replace(true) {
                    let column = &column.sql;
                    tracing::warn!(
                        column,
                        "-0.0 is stored as 0: SQLite keeps the sign only in columns without a type"
                    );
                }
                Ok(self)
            }
            (Stored::Integer(v), Real) if *v as f64 as i128 != i128::from(*v) => {
                Err(format!("{v} has more digits than the REAL column can hold"))
            }
            (Stored::Text(_) | Stored::Owned(_), Integer | Numeric | Real) => {
                let text = if let Stored::Text(v) = &self {
                    v
                } else if let Stored::Owned(v) = &self {
                    v
                } else {
                    ""
                };
                match number_written(text) {
                    Some(number) if number != text => {
                        Err(format!("the column's type would turn the text '{text}' into a number"))
                    }
                    _ => Ok(self),
                }
            }
            (_, None | Integer | Numeric | Real | Text) => Ok(self),
        }
    }
}

/// When SQLite takes a text for a number (<https://www.sqlite.org/datatype3.html>, 3.): the shortest way to write it.
fn number_written(text: &str) -> Option<String> {
    let trimmed = text.trim_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    // Rust also reads "inf" and "nan", which SQLite does not.
    let digits = trimmed.trim_start_matches(['+', '-']);
    if !digits.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return None;
    }
    match (trimmed.parse::<i64>(), trimmed.parse::<f64>()) {
        (Ok(number), _) => Some(number.to_string()),
        (Err(_), Ok(number)) => Some(format!("{number:?}")),
        (Err(_), Err(_)) => None,
    }
}

impl ToSql for Stored<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Stored::Null => ValueRef::Null,
            Stored::Integer(v) => ValueRef::Integer(*v),
            Stored::Real(v) => ValueRef::Real(*v),
            Stored::Text(v) => ValueRef::Text(v.as_bytes()),
            Stored::Owned(v) => ValueRef::Text(v.as_bytes()),
            Stored::Blob(v) => ValueRef::Blob(v),
        }))
    }
}
