//! What the SQLite source reads: columns, their types, and the statements that page through the rows in the order of the
//! cursor. Reads only the database's description of itself, no rows.

use std::{path::Path, sync::Arc};

use bus_schema::{
    data::{Field, Schema, Type},
    limits::COLUMNS_MAX,
};
use flow::Fault;
use rusqlite::Connection;

use super::{Affinity, ColumnInfo, TableInfo, fault, quote, table_names};
use crate::names::hint;

/// The names of the rowid, unless a column has them (<https://www.sqlite.org/lang_createtable.html#rowid>).
const ROWID_NAMES: [&str; 3] = ["rowid", "_rowid_", "oid"];

/// What to read.
#[derive(Debug, Clone)]
pub(super) enum Subject {
    /// A table or view.
    Table(String),
    /// The result of a SELECT, and what to call it.
    Query { sql: String, name: String },
}

/// How the rows are read.
#[derive(Debug)]
pub(super) struct Layout {
    /// Collection and columns.
    pub schema: Arc<Schema>,
    /// The cursor column, as positions name it; `rowid` whatever other name it has.
    pub cursor: String,
    /// Each row's first values are for the bookmark: the cursor value, then (when there can be ties) the rowid.
    pub leading: usize,
    /// The first rows. Takes: most rows.
    pub start: String,
    /// Rows after a cursor value. Takes: it, most rows.
    pub after: String,
    /// More rows of one cursor value. Takes: it, the last rowid, most rows.
    pub ties: Option<String>,
    /// Rows without a cursor value. Takes: the last rowid, most rows.
    pub nulls: Option<String>,
    /// The highest rowid, where that is the cursor.
    pub highest: Option<String>,
}

/// The cursor as SQL, and what is known of it.
struct Cursor {
    name: String,
    sql: String,
    /// The rowid as SQL, where rows can share a cursor value.
    tie: Option<String>,
    by_rowid: bool,
    nullable: bool,
}

impl Cursor {
    /// The rowid, written as `sql`.
    fn rowid(sql: String) -> Self {
        Self {
            name: "rowid".to_string(),
            sql,
            tie: None,
            by_rowid: true,
            nullable: false,
        }
    }
}

impl Layout {
    /// Looks the subject up in the database.
    pub(super) fn load(conn: &Connection, path: &Path, subject: &Subject, cursor: Option<&str>) -> Result<Self, Fault> {
        let (from, schema, cursor) = match subject {
            Subject::Table(table) => {
                let info = load_table(conn, path, table)?;
                let cursor = table_cursor(conn, path, &info, cursor)?;
                let fields = info.columns.iter().map(|column| field(column, &info)).collect();
                (
                    quote(&info.name),
                    Schema {
                        collection: info.name,
                        fields,
                    },
                    cursor,
                )
            }
            Subject::Query { sql, name } => {
                // The line break keeps a comment at the query's end from swallowing the parenthesis.
                let from = format!("({}\n)", sql.trim().trim_end_matches(';'));
                let fields = query_fields(conn, &from)
                    .map_err(|error| Fault::retry(format!("the query cannot run in {}: {error}", path.display())))?;
                let wanted = cursor.unwrap_or_default();
                let Some(found) = fields.iter().find(|field| field.name.eq_ignore_ascii_case(wanted)) else {
                    let hint = hint(wanted, fields.iter().map(|field| field.name.as_str()));
                    return Err(Fault::retry(format!(
                        "the query gives no column '{wanted}' to use as cursor{hint}"
                    )));
                };
                let (name_of, sql) = (found.name.clone(), quote(&found.name));
                // Whether its values are unique is the query's promise; nothing here can tell.
                let cursor = Cursor {
                    name: name_of,
                    sql,
                    tie: None,
                    by_rowid: false,
                    nullable: true,
                };
                (
                    from,
                    Schema {
                        collection: name.clone(),
                        fields,
                    },
                    cursor,
                )
            }
        };
        if schema.fields.len() > COLUMNS_MAX {
            let count = schema.fields.len();
            return Err(Fault::stop(format!(
                "'{}' has {count} columns, and a record holds at most {COLUMNS_MAX}: choose some with query",
                schema.collection
            )));
        }
        Ok(Self::build(&from, schema, cursor))
    }

    fn build(from: &str, schema: Schema, cursor: Cursor) -> Self {
        let Cursor {
            name,
            sql: c,
            tie,
            by_rowid,
            nullable,
        } = cursor;
        let mut select = format!("SELECT {c}");
        for column in tie
            .iter()
            .cloned()
            .chain(schema.fields.iter().map(|field| quote(&field.name)))
        {
            select.push_str(", ");
            select.push_str(&column);
        }
        select.push_str(&format!(" FROM {from}"));
        let order = match &tie {
            Some(rowid) => format!("{c}, {rowid}"),
            None => c.clone(),
        };
        let only_values = if nullable {
            format!(" WHERE {c} IS NOT NULL")
        } else {
            String::new()
        };
        Self {
            cursor: name,
            leading: 1 + usize::from(tie.is_some()),
            start: format!("{select}{only_values} ORDER BY {order} LIMIT ?1"),
            after: format!("{select} WHERE {c} > ?1 ORDER BY {order} LIMIT ?2"),
            ties: tie
                .as_ref()
                .map(|rowid| format!("{select} WHERE {c} = ?1 AND {rowid} > ?2 ORDER BY {rowid} LIMIT ?3")),
            nulls: tie
                .as_ref()
                .filter(|_| nullable)
                .map(|rowid| format!("{select} WHERE {c} IS NULL AND {rowid} > ?1 ORDER BY {rowid} LIMIT ?2")),
            highest: by_rowid.then(|| format!("SELECT max({c}) FROM {from}")),
            schema: Arc::new(schema),
        }
    }
}

/// Whether SQLite has to sort all rows a statement could give, because no index has their order.
pub(super) fn sorts(conn: &Connection, sql: &str) -> rusqlite::Result<bool> {
    let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next()? {
        if row.get::<_, String>(3)?.contains("TEMP B-TREE FOR ORDER BY") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What the database says of a table. Faults with a hint when there is none of that name.
pub(super) fn load_table(conn: &Connection, path: &Path, table: &str) -> Result<TableInfo, Fault> {
    let failed = |error| fault("read the schema", path, &error);
    if let Some(info) = TableInfo::load(conn, table).map_err(failed)? {
        return Ok(info);
    }
    let names = table_names(conn).map_err(failed)?;
    let hint = hint(table, names.iter().map(String::as_str));
    Err(Fault::retry(format!("{} has no table '{table}'{hint}", path.display())))
}

fn table_cursor(conn: &Connection, path: &Path, info: &TableInfo, wanted: Option<&str>) -> Result<Cursor, Fault> {
    let table = &info.name;
    let rowid = rowid_sql(info);
    let is_rowid = |name: &str| ROWID_NAMES.iter().any(|rowid| rowid.eq_ignore_ascii_case(name));
    let column = wanted.and_then(|wanted| info.column(wanted));
    match (wanted, column, rowid) {
        (_, Some(column), Some(rowid)) if column.rowid => Ok(Cursor::rowid(rowid)),
        (_, Some(column), Some(rowid)) => Ok(Cursor {
            name: column.name.clone(),
            sql: quote(&column.name),
            tie: Some(rowid),
            by_rowid: false,
            nullable: !column.not_null,
        }),
        (_, Some(column), None) => {
            let keys = info
                .unique_keys(conn)
                .map_err(|error| fault("read the schema", path, &error))?;
            let unique = keys
                .iter()
                .any(|key| matches!(&key[..], [only] if *only == column.name));
            // Without rowids nothing tells rows of equal cursor values apart. A view's columns are taken on trust.
            if !info.view && !(unique && (column.not_null || column.key_place > 0)) {
                return Err(Fault::stop(format!(
                    "'{table}' has no rowids, so its cursor must be one column that is UNIQUE and NOT NULL, which \
                     '{}' is not: choose another cursor",
                    column.name
                )));
            }
            let sql = quote(&column.name);
            Ok(Cursor {
                name: column.name.clone(),
                sql,
                tie: None,
                by_rowid: false,
                nullable: info.view,
            })
        }
        (None, None, Some(rowid)) => Ok(Cursor::rowid(rowid)),
        (Some(wanted), None, Some(rowid)) if is_rowid(wanted) => Ok(Cursor::rowid(rowid)),
        (None, None, None) => Err(Fault::stop(format!(
            "'{table}' has no rowid to read by: set cursor to a column whose values only rise"
        ))),
        (Some(wanted), None, _) => {
            let hint = hint(wanted, info.columns.iter().map(|column| column.name.as_str()));
            Err(Fault::retry(format!(
                "'{table}' in {} has no column '{wanted}' to use as cursor{hint}",
                path.display()
            )))
        }
    }
}

/// How to write the rowid; `None` when the table has none, or hides all of its names behind columns.
pub(super) fn rowid_sql(info: &TableInfo) -> Option<String> {
    if let Some(column) = info.columns.iter().find(|column| column.rowid) {
        return Some(quote(&column.name));
    }
    let free = ROWID_NAMES.iter().find(|name| info.column(name).is_none())?;
    info.has_rowid.then(|| (*free).to_string())
}

/// How records describe a column.
pub(super) fn field(column: &ColumnInfo, info: &TableInfo) -> Field {
    let key = column.key_place > 0;
    let ty = column_type(column.affinity, &column.declared);
    Field {
        name: column.name.clone(),
        ty,
        nullable: !column.not_null && (info.has_rowid || !key),
        key,
    }
}

/// Columns whose affinity lets values keep their type, or says nothing about it, are of any type.
fn column_type(affinity: Affinity, declared: &str) -> Type {
    match affinity {
        Affinity::Integer => Type::I64,
        Affinity::Real => Type::F64,
        Affinity::Text => Type::Text,
        Affinity::None if declared.to_ascii_uppercase().contains("BLOB") => Type::Bytes,
        Affinity::None | Affinity::Numeric => Type::Any,
    }
}

fn query_fields(conn: &Connection, from: &str) -> rusqlite::Result<Vec<Field>> {
    let statement = conn.prepare(&format!("SELECT * FROM {from} LIMIT 0"))?;
    let columns = statement.columns().map(|column| {
        let declared = column.decl_type().unwrap_or_default();
        Field::new(column.name(), column_type(Affinity::of(declared, false), declared))
    });
    Ok(columns.collect())
}
