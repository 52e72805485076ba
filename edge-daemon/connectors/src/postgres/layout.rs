//! What a source reads: columns, their types, the key, and the statements that page through the rows in the order of the
//! cursor. Reads only the database's description of itself, no rows.

use std::sync::Arc;

use bus_schema::{
    data::{Field, Schema},
    limits::COLUMNS_MAX,
};
use flow::Fault;
use tokio_postgres::{Client, types::Type as PgType};

use super::{error::fault, form::Form, page::Written as _, table::quote};
use crate::names::hint;

/// Makes a session write values as `form` expects them.
pub(super) const VALUE_SETTINGS: &str = "SET TIME ZONE 'UTC'; SET DateStyle = 'ISO, YMD'; \
     SET IntervalStyle = 'postgres'; SET extra_float_digits = 3; SET bytea_output = 'hex'; \
     SET standard_conforming_strings = on; SET lc_monetary = 'C'";
/// Makes a session change nothing, and let nothing run on for which nobody waits any more.
pub(super) const READ_SETTINGS: &str = "SET default_transaction_read_only = on; SET statement_timeout = '55s'";
/// Makes the server read a table along the index of its cursor. By statistics that know nothing of the newest rows it would
/// take all that are left for few, and sort them anew for every page. Where there is no index it sorts all the same.
pub(super) const PAGE_SETTINGS: &str = "SET enable_sort = off";

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    /// A table or view, and its schema.
    Table { schema: String, table: String },
    /// The result of a SELECT, and what to call it.
    Query { sql: String, name: String },
}

/// A table as the catalog has it.
pub(super) struct TableInfo {
    pub oid: u32,
    /// Columns the database computes.
    pub generated: Vec<String>,
    pub keys: Keys,
}

/// What tells the rows of a table apart.
pub(crate) struct Keys {
    /// A view: nothing in it is known to be unique.
    pub is_view: bool,
    /// Columns declared NOT NULL.
    pub not_null: Vec<String>,
    /// The columns of each unique index that covers all rows; the primary key is the first, if there is one.
    pub unique: Vec<Vec<String>>,
    pub has_primary_key: bool,
}

impl Keys {
    /// The primary key.
    pub(crate) fn primary(&self) -> Option<&[String]> {
        self.unique.first().filter(|_| self.has_primary_key).map(Vec::as_slice)
    }
}

/// How the rows are read.
pub(super) struct Layout {
    /// Collection and columns.
    pub schema: Arc<Schema>,
    /// How the text of each column is read.
    pub forms: Arc<[Form]>,
    /// The columns whose order the rows are read in: they tell every two rows apart.
    pub cursor: Vec<String>,
    /// Where they stand.
    pub places: Vec<usize>,
    /// The first one's type is `timestamptz`.
    pub by_time: bool,
    /// The table, where it is known which one is read.
    pub table: Option<u32>,
    /// Rows without a cursor value can occur; they are left out.
    pub nullable: bool,
    types: Vec<PgType>,
    from: String,
}

impl Layout {
    /// Looks the subject up in the database. Columns that the database computes are left out if `generated` is false.
    pub(super) async fn load(
        client: &Client,
        subject: &Subject,
        cursor: Option<&[String]>,
        generated: bool,
    ) -> Result<Self, Fault> {
        let (from, name, info) = match subject {
            Subject::Table { schema, table } => {
                let info = TableInfo::load(client, schema, table).await?;
                (format!("{}.{}", quote(schema), quote(table)), table.clone(), Some(info))
            }
            // The line break keeps a comment at the query's end from swallowing the parenthesis.
            Subject::Query { sql, name } => {
                let from = format!("({}\n) AS q", sql.trim().trim_end_matches(';'));
                (from, name.clone(), None)
            }
        };
        let statement = client
            .prepare(&format!("SELECT * FROM {from}"))
            .await
            .map_err(|error| fault("look at what to read", &error))?;
        let is_computed = |name: &str| {
            info.as_ref()
                .is_some_and(|info| info.generated.iter().any(|it| it == name))
        };
        let columns = statement.columns().iter();
        let columns: Vec<_> = columns
            .filter(|column| generated || !is_computed(column.name()))
            .collect();
        if columns.len() > COLUMNS_MAX {
            return Err(Fault::stop(format!(
                "'{name}' has {} columns, and a record holds at most {COLUMNS_MAX}: choose some with query",
                columns.len()
            )));
        }
        let names: Vec<&str> = columns.iter().map(|column| column.name()).collect();
        let cursor = cursor_columns(&name, &names, info.as_ref().map(|info| &info.keys), cursor)?;
        let key = info.as_ref().and_then(|info| info.keys.primary()).unwrap_or_default();
        let not_null = |name: &str| {
            info.as_ref()
                .is_some_and(|info| info.keys.not_null.iter().any(|it| it == name))
        };
        let forms: Arc<[Form]> = columns
            .iter()
            .map(|column| Form::of(column.type_(), column.type_modifier()))
            .collect();
        let fields = columns.iter().zip(&*forms).map(|(column, form)| Field {
            name: column.name().to_string(),
            ty: form.ty(),
            nullable: !not_null(column.name()),
            key: key.iter().any(|key| key == column.name()),
        });
        let fields: Vec<Field> = fields.collect();
        let place = |name: &String| fields.iter().position(|field| field.name == *name);
        let places: Vec<usize> = cursor.iter().filter_map(place).collect();
        Ok(Self {
            by_time: places
                .first()
                .is_some_and(|place| *columns[*place].type_() == PgType::TIMESTAMPTZ),
            types: places.iter().map(|place| columns[*place].type_().clone()).collect(),
            nullable: places.iter().any(|place| fields[*place].nullable),
            table: info.filter(|info| !info.keys.is_view).map(|info| info.oid),
            schema: Arc::new(Schema {
                collection: name,
                fields,
            }),
            forms,
            cursor,
            places,
            from,
        })
    }

    /// The place of the last row there is after `after` that is older than `delay_ms`.
    pub(super) fn last(&self, after: Option<&[String]>, delay_ms: u64) -> String {
        let mut conditions = self.conditions(after, None);
        if delay_ms > 0 {
            let column = quote(&self.cursor[0]);
            conditions.push(format!(
                "{column} <= clock_timestamp() - interval '{delay_ms} milliseconds'"
            ));
        }
        let columns: Vec<String> = self.cursor.iter().map(|name| quote(name)).collect();
        let order: Vec<String> = columns.iter().map(|column| format!("{column} DESC")).collect();
        format!(
            "SELECT {} FROM {}{} ORDER BY {} LIMIT 1",
            columns.join(", "),
            self.from,
            filter(&conditions),
            order.join(", ")
        )
    }

    /// The rows after `after`, up to and with `last`.
    pub(super) fn rows(&self, after: Option<&[String]>, last: Option<&[String]>, limit: usize) -> String {
        let columns: Vec<String> = self.schema.fields.iter().map(|field| quote(&field.name)).collect();
        let order: Vec<String> = self.cursor.iter().map(|name| quote(name)).collect();
        format!(
            "SELECT {} FROM {}{} ORDER BY {} LIMIT {limit}",
            columns.join(", "),
            self.from,
            filter(&self.conditions(after, last)),
            order.join(", ")
        )
    }

    fn conditions(&self, after: Option<&[String]>, last: Option<&[String]>) -> Vec<String> {
        let columns: Vec<String> = self.cursor.iter().map(|name| quote(name)).collect();
        let mut conditions = Vec::new();
        for (sign, place) in [(">", after), ("<=", last)] {
            if let Some(place) = place {
                conditions.push(format!("({}) {sign} ({})", columns.join(", "), self.literals(place)));
            }
        }
        if self.nullable {
            conditions.extend(columns.iter().map(|column| format!("{column} IS NOT NULL")));
        }
        conditions
    }

    fn literals(&self, place: &[String]) -> String {
        let literal = |(value, ty): (&String, &PgType)| {
            // standard_conforming_strings is on: only quotes are special.
            let value = value.replace('\'', "''");
            format!("'{value}'::{}.{}", quote(ty.schema()), quote(ty.name()))
        };
        place
            .iter()
            .zip(&self.types)
            .map(literal)
            .collect::<Vec<_>>()
            .join(", ")
    }
}

fn filter(conditions: &[String]) -> String {
    match conditions {
        [] => String::new(),
        _ => format!(" WHERE {}", conditions.join(" AND ")),
    }
}

/// The cursor with what is needed besides to tell rows apart.
pub(crate) fn cursor_columns(
    name: &str,
    columns: &[&str],
    keys: Option<&Keys>,
    wanted: Option<&[String]>,
) -> Result<Vec<String>, Fault> {
    let key = keys.and_then(Keys::primary);
    let Some(wanted) = wanted else {
        return key.map(<[String]>::to_vec).ok_or_else(|| {
            Fault::stop(format!(
                "'{name}' has no primary key to read by: set cursor to columns whose values only rise"
            ))
        });
    };
    if let Some(unknown) = wanted.iter().find(|wanted| !columns.contains(&wanted.as_str())) {
        let hint = hint(unknown, columns.iter().copied());
        return Err(Fault::retry(format!(
            "'{name}' has no column '{unknown}' to use as cursor{hint}"
        )));
    }
    let mut cursor = wanted.to_vec();
    // A view's or query's columns are taken on trust.
    let Some(keys) = keys.filter(|keys| !keys.is_view) else {
        return Ok(cursor);
    };
    let is_unique = |unique: &Vec<String>| {
        unique
            .iter()
            .all(|column| wanted.contains(column) && keys.not_null.contains(column))
    };
    if keys.unique.iter().any(is_unique) {
        return Ok(cursor);
    }
    match key {
        Some(key) => cursor.extend(key.iter().filter(|column| !wanted.contains(column)).cloned()),
        None => {
            return Err(Fault::stop(format!(
                "'{name}' has no primary key, so its cursor has to be columns that are NOT NULL and together UNIQUE, \
                 which ({}) are not: rows with equal values could not be told apart",
                wanted.join(", ")
            )));
        }
    }
    Ok(cursor)
}

impl TableInfo {
    /// Describes a table or view.
    pub(super) async fn load(client: &Client, schema: &str, table: &str) -> Result<Self, Fault> {
        let failed = |error| fault("look the table up", &error);
        let sql = "SELECT c.oid, c.relkind IN ('v', 'm', 'f') FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                   WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')";
        let Some(found) = client.query_opt(sql, &[&schema, &table]).await.map_err(failed)? else {
            let sql = "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                       WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY 1 LIMIT 1000";
            let names = client.query(sql, &[&schema]).await.map_err(failed)?;
            let hint = hint(table, names.iter().map(|row| row.get(0)));
            return Err(Fault::retry(format!("there is no table {schema}.{table}{hint}")));
        };
        let oid: u32 = found.get(0);
        let sql = "SELECT attname::text, attnotnull, attgenerated::text <> '' FROM pg_attribute \
                   WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped";
        let columns = client.query(sql, &[&oid]).await.map_err(failed)?;
        let those = |place: usize| {
            columns
                .iter()
                .filter(move |row| row.get(place))
                .map(|row| row.get(0))
                .collect()
        };
        let sql = "SELECT i.indisprimary, array_agg(a.attname::text ORDER BY k.place) \
                   FROM pg_index i, LATERAL unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) WITH ORDINALITY AS k(number, place), \
                       pg_attribute a \
                   WHERE i.indrelid = $1 AND a.attrelid = i.indrelid AND a.attnum = k.number AND i.indisunique \
                       AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL \
                   GROUP BY i.indexrelid, i.indisprimary ORDER BY i.indisprimary DESC, i.indexrelid";
        let unique = client.query(sql, &[&oid]).await.map_err(failed)?;
        Ok(Self {
            oid,
            generated: those(2),
            keys: Keys {
                is_view: found.get(1),
                not_null: those(1),
                has_primary_key: unique.first().is_some_and(|row| row.get(0)),
                unique: unique.iter().map(|row| row.get(1)).collect(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        text.split_whitespace().map(ToString::to_string).collect()
    }

    #[test]
    fn the_cursor_tells_every_two_rows_apart() {
        let table = |primary: bool, unique: &[&str], not_null: &str| {
            Some(Keys {
                is_view: false,
                not_null: names(not_null),
                unique: unique.iter().map(|key| names(key)).collect(),
                has_primary_key: primary,
            })
        };
        let view = || table(false, &[], "").map(|keys| Keys { is_view: true, ..keys });
        for (info, wanted, found) in [
            (table(true, &["a b"], "a b"), "", Ok("a b")),
            (table(true, &["a b"], "a b"), "at", Ok("at a b")),
            (table(true, &["a b"], "a b"), "b", Ok("b a")),
            (table(true, &["a b"], "a b"), "b a", Ok("b a")),
            (table(true, &["a", "at"], "a at"), "at", Ok("at")),
            (table(true, &["a", "at"], "a"), "at", Ok("at a")),
            (table(false, &["a"], "a"), "a", Ok("a")),
            (table(false, &["a"], ""), "a", Err("could not be told apart")),
            (table(false, &[], "a"), "", Err("no primary key to read by")),
            (table(true, &["a"], "a"), "id", Err("no column 'id' to use as cursor")),
            (view(), "at", Ok("at")),
            (view(), "", Err("no primary key to read by")),
            (None, "at a", Ok("at a")),
        ] {
            let wanted = names(wanted);
            let wanted = (!wanted.is_empty()).then_some(&wanted[..]);
            match (cursor_columns("t", &["a", "b", "at"], info.as_ref(), wanted), found) {
                (Ok(cursor), Ok(found)) => assert_eq!(cursor, names(found), "{wanted:?}"),
                (Err(fault), Err(found)) => assert!(fault.to_string().contains(found), "{wanted:?}: {fault}"),
                (cursor, _) => panic!("{wanted:?}: {cursor:?}"),
            }
        }
    }
}
