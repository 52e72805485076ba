//! What a source reads: columns, their types, the key, and the statements that page through the rows in the order of the
//! cursor. Reads only the database's description of itself, no rows.

use std::{sync::Arc, time::Duration};

use bus_schema::{
    data::{Field, Schema},
    limits::COLUMNS_MAX,
};
use flow::Fault;
use mysql_async::{Column, prelude::Queryable};

use super::{
    connect::is_mariadb,
    error::fault,
    form::{Form, text_literal, tick_us},
    link::{Link, answer},
    table::quote,
};
use crate::{
    names::hint,
    postgres::{Keys, Written as _, cursor_columns},
};

/// What a statement may take: longer than any page should, shorter than a read may.
const STATEMENT_SECONDS_MAX: u64 = 55;
/// Engines whose rows are there for all as soon as they are written, or whose transactions the server tells of.
const WATCHED_ENGINES: [&str; 6] = ["InnoDB", "MyISAM", "Aria", "MEMORY", "ARCHIVE", "CSV"];

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    /// A table or view of the database.
    Table(String),
    /// The result of a SELECT, and what to call it.
    Query { sql: String, name: String },
}

/// A table as the catalog has it.
pub(super) struct TableInfo {
    /// All columns, in order.
    pub columns: Vec<Declared>,
    pub keys: Keys,
    pub engine: String,
}

/// A column as the catalog has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Declared {
    pub name: String,
    /// The name of the type, in small letters: `int`, `uuid`, `json` in MariaDB too.
    pub ty: String,
    /// With its size and values: `enum('a','b')`.
    pub full: String,
    /// The character set of text.
    pub charset: Option<String>,
}

/// What rows look like.
pub(super) struct Shape {
    /// Collection and columns.
    pub schema: Arc<Schema>,
    /// How the text of each column is read.
    pub forms: Arc<[Form]>,
    /// The table, if it is one.
    pub info: Option<TableInfo>,
    columns: Vec<Column>,
    from: String,
}

/// How the rows are read.
pub(super) struct Layout {
    pub shape: Shape,
    /// The columns whose order the rows are read in: they tell every two rows apart.
    pub cursor: Vec<String>,
    /// Where they stand.
    pub places: Vec<usize>,
    /// Two times of the cursor are at least this far apart.
    pub tick: Duration,
    /// Rows without a cursor value can occur; they are left out.
    pub nullable: bool,
}

/// Makes a session read values as `form` expects them, change nothing, and let nothing run on for which nobody waits any more.
pub(super) async fn prepare(link: &mut Link) -> Result<(), Fault> {
    let version: Vec<String> = link.rows("look at the server", "SELECT VERSION()").await?;
    let limit = match version.first().is_some_and(|version| is_mariadb(version)) {
        true => format!("max_statement_time = {STATEMENT_SECONDS_MAX}"),
        false => format!("max_execution_time = {}", STATEMENT_SECONDS_MAX * 1000),
    };
    // No mode: a table may hold dates that a strict session would not let pass even in a comparison.
    let sql = format!("SET SESSION sql_mode = '', time_zone = '+00:00', {limit}");
    link.run("prepare for reading", &sql).await?;
    let sql = "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY";
    link.run("prepare for reading", sql).await
}

impl Shape {
    /// Looks the subject up in the database.
    pub(super) async fn load(link: &mut Link, subject: &Subject) -> Result<Self, Fault> {
        let (from, name, info) = match subject {
            Subject::Table(table) => {
                let info = TableInfo::load(link, table).await?;
                (format!("{} AS q", quote(table)), table.clone(), Some(info))
            }
            // The line break keeps a comment at the query's end from swallowing the parenthesis.
            Subject::Query { sql, name } => {
                let from = format!("({}\n) AS q", sql.trim().trim_end_matches(';'));
                (from, name.clone(), None)
            }
        };
        // Columns that `*` does not have are columns all the same.
        let selected = match &info {
            Some(info) => {
                let names: Vec<String> = info.columns.iter().map(|column| quote(&column.name)).collect();
                names.join(", ")
            }
            None => "*".to_string(),
        };
        let columns = columns(link, &format!("SELECT {selected} FROM {from} LIMIT 0")).await?;
        if columns.len() > COLUMNS_MAX {
            return Err(Fault::stop(format!(
                "'{name}' has {} columns, and a record holds at most {COLUMNS_MAX}: choose some with query",
                columns.len()
            )));
        }
        let declared = |index: usize| info.as_ref().map(|info| info.columns[index].ty.as_str());
        let forms = columns.iter().enumerate();
        let forms: Arc<[Form]> = forms.map(|(index, column)| Form::of(column, declared(index))).collect();
        let keys = info.as_ref().map(|info| &info.keys);
        let key = keys.and_then(Keys::primary).unwrap_or_default();
        let not_null = |name: &String| keys.is_some_and(|keys| keys.not_null.contains(name));
        let fields = columns.iter().zip(&*forms).map(|(column, form)| {
            let name = column.name_str().into_owned();
            Field {
                ty: form.ty(),
                nullable: !not_null(&name),
                key: key.contains(&name),
                name,
            }
        });
        Ok(Self {
            schema: Arc::new(Schema {
                fields: fields.collect(),
                collection: name,
            }),
            forms,
            info,
            columns,
            from,
        })
    }
}

impl Layout {
    /// Looks the subject up in the database.
    pub(super) async fn load(link: &mut Link, subject: &Subject, cursor: Option<&[String]>) -> Result<Self, Fault> {
        let shape = Shape::load(link, subject).await?;
        let (name, fields) = (&shape.schema.collection, &shape.schema.fields);
        let names: Vec<String> = fields.iter().map(|field| field.name.clone()).collect();
        let cursor = cursor_of(name, &names, shape.info.as_ref().map(|info| &info.keys), cursor)?;
        let places: Vec<usize> = cursor
            .iter()
            .filter_map(|name| names.iter().position(|it| it == name))
            .collect();
        if let Some(place) = places.iter().find(|place| !shape.forms[**place].is_ordered()) {
            return Err(Fault::stop(format!(
                "'{}' of '{name}' cannot be a cursor: values of enum, set, json and float are not compared in the order \
                 in which they are sorted",
                names[*place]
            )));
        }
        let tick = places.iter();
        let tick = tick
            .map(|place| tick_us(&shape.forms[*place], &shape.columns[*place]))
            .max();
        Ok(Self {
            tick: Duration::from_micros(tick.unwrap_or(0)),
            nullable: places.iter().any(|place| fields[*place].nullable),
            cursor,
            places,
            shape,
        })
    }

    /// Why it cannot be known who is writing, if it cannot.
    pub(super) fn unwatched(&self) -> Option<String> {
        let engine = &self.shape.info.as_ref().filter(|info| !info.keys.is_view)?.engine;
        let is_watched = WATCHED_ENGINES.iter().any(|known| known.eq_ignore_ascii_case(engine));
        (!is_watched).then(|| {
            format!(
                "'{}' is kept by {engine}, and who is writing to it the server does not tell: set delay_ms",
                self.shape.schema.collection
            )
        })
    }

    /// The place of the last row there is after `after`.
    pub(super) fn last(&self, after: Option<&[String]>) -> Result<String, Fault> {
        let order: Vec<String> = self.names().map(|name| format!("{name} DESC")).collect();
        let columns: Vec<String> = self.places.iter().map(|place| self.selected(*place)).collect();
        Ok(format!(
            "SELECT {} FROM {}{} ORDER BY {} LIMIT 1",
            columns.join(", "),
            self.shape.from,
            self.filter(after, None)?,
            order.join(", ")
        ))
    }

    /// The rows after `after`, up to and with `last`.
    pub(super) fn rows(
        &self,
        after: Option<&[String]>,
        last: Option<&[String]>,
        limit: usize,
    ) -> Result<String, Fault> {
        let columns: Vec<String> = (0..self.shape.forms.len()).map(|index| self.selected(index)).collect();
        let order: Vec<String> = self.names().collect();
        Ok(format!(
            "SELECT {} FROM {}{} ORDER BY {} LIMIT {limit}",
            columns.join(", "),
            self.shape.from,
            self.filter(after, last)?,
            order.join(", ")
        ))
    }

    /// The columns of the cursor as SQL.
    fn names(&self) -> impl Iterator<Item = String> {
        self.cursor.iter().map(|name| format!("q.{}", quote(name)))
    }

    /// A column as it is read. The server writes a `float` with six digits unless it is made a double.
    fn selected(&self, index: usize) -> String {
        let name = quote(&self.shape.schema.fields[index].name);
        match self.shape.forms[index] {
            Form::Float4 | Form::Float8 => format!("q.{name} + 0e0 AS {name}"),
            _ => format!("q.{name}"),
        }
    }

    fn filter(&self, after: Option<&[String]>, last: Option<&[String]>) -> Result<String, Fault> {
        let mut conditions = Vec::new();
        for (sign, place) in [('>', after), ('<', last)] {
            if let Some(place) = place {
                conditions.push(self.beyond(sign, place)?);
            }
        }
        if self.nullable {
            conditions.extend(self.names().map(|name| format!("{name} IS NOT NULL")));
        }
        Ok(match &conditions[..] {
            [] => String::new(),
            _ => format!(" WHERE {}", conditions.join(" AND ")),
        })
    }

    /// Rows after a place, or up to and with it. Written out, because the server does not use an index for
    /// `(a, b) > (1, 2)`.
    fn beyond(&self, sign: char, place: &[String]) -> Result<String, Fault> {
        let unfit =
            || Fault::stop("the stored position does not fit the cursor; give the node another name to start over");
        let pairs = self.names().zip(&self.places).zip(place);
        let pairs = pairs.map(|((name, index), value)| Some((name, self.shape.forms[*index].literal(value)?)));
        let pairs: Vec<(String, String)> = pairs.collect::<Option<_>>().ok_or_else(unfit)?;
        let mut condition = String::new();
        for (name, value) in pairs.iter().rev() {
            condition = match (condition.is_empty(), sign) {
                (true, '>') => format!("{name} > {value}"),
                (true, _) => format!("{name} <= {value}"),
                (false, _) => {
                    format!("{name} {sign}= {value} AND ({name} {sign} {value} OR ({name} = {value} AND {condition}))")
                }
            };
        }
        (!condition.is_empty())
            .then(|| format!("({condition})"))
            .ok_or_else(unfit)
    }
}

/// The columns of a query's result.
async fn columns(link: &mut Link, sql: &str) -> Result<Vec<Column>, Fault> {
    let described = async {
        let result = link.conn.query_iter(sql).await?;
        let columns = result.columns_ref().to_vec();
        result.drop_result().await?;
        Ok(columns)
    };
    let described = answer(&link.place, described).await?;
    described.map_err(|error| fault("look at what to read", &error))
}

/// The cursor with what is needed besides to tell rows apart. Names of columns do not tell large letters from small ones.
fn cursor_of(
    name: &str,
    columns: &[String],
    keys: Option<&Keys>,
    wanted: Option<&[String]>,
) -> Result<Vec<String>, Fault> {
    let same = |wanted: &String| {
        let found = columns
            .iter()
            .find(|column| column.to_lowercase() == wanted.to_lowercase());
        found.unwrap_or(wanted).clone()
    };
    let wanted: Option<Vec<String>> = wanted.map(|wanted| wanted.iter().map(same).collect());
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    cursor_columns(name, &columns, keys, wanted.as_deref())
}

impl TableInfo {
    /// Describes a table or view.
    pub(super) async fn load(link: &mut Link, table: &str) -> Result<Self, Fault> {
        let here = format!("TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {}", text_literal(table));
        let sql = format!("SELECT TABLE_TYPE, COALESCE(ENGINE, '') FROM information_schema.TABLES WHERE {here}");
        let found: Vec<(String, String)> = link.rows("look the table up", &sql).await?;
        let Some((kind, engine)) = found.into_iter().next() else {
            let sql = "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() \
                       ORDER BY 1 LIMIT 1000";
            let names: Vec<String> = link.rows("list the tables", sql).await?;
            let hint = hint(table, names.iter().map(String::as_str));
            return Err(Fault::retry(format!("there is no table {table}{hint}")));
        };
        let sql = format!(
            "SELECT COLUMN_NAME, LOWER(DATA_TYPE), COLUMN_TYPE, CHARACTER_SET_NAME, IS_NULLABLE = 'NO' \
             FROM information_schema.COLUMNS WHERE {here} ORDER BY ORDINAL_POSITION"
        );
        let rows: Vec<(String, String, String, Option<String>, bool)> =
            link.rows("read the table's columns", &sql).await?;
        let documents = documents(link, table).await?;
        let mut columns = Vec::with_capacity(rows.len());
        let mut not_null = Vec::new();
        for (name, ty, full, charset, is_not_null) in rows {
            if is_not_null {
                not_null.push(name.clone());
            }
            let is_document = ty == "longtext" && documents.contains(&name);
            let ty = if is_document { "json".to_string() } else { ty };
            columns.push(Declared {
                name,
                ty,
                full,
                charset,
            });
        }
        let sql = format!(
            "SELECT INDEX_NAME, COALESCE(COLUMN_NAME, ''), SUB_PART IS NOT NULL OR COLUMN_NAME IS NULL \
             FROM information_schema.STATISTICS WHERE {here} AND NON_UNIQUE = 0 \
             ORDER BY INDEX_NAME <> 'PRIMARY', INDEX_NAME, SEQ_IN_INDEX"
        );
        let parts: Vec<(String, String, bool)> = link.rows("read the table's indexes", &sql).await?;
        Ok(Self {
            columns,
            engine,
            keys: Keys {
                is_view: kind != "BASE TABLE",
                not_null,
                has_primary_key: parts.first().is_some_and(|(index, ..)| index == "PRIMARY"),
                unique: uniques(&parts),
            },
        })
    }
}

/// The columns of each unique index that is on whole columns. Parts come in order, as index, column, and whether it is only a
/// part of a column, or an expression. A primary key on parts of columns stays in: it tells rows apart all the same.
fn uniques(parts: &[(String, String, bool)]) -> Vec<Vec<String>> {
    let same = |a: &(String, String, bool), b: &(String, String, bool)| a.0 == b.0;
    parts
        .chunk_by(same)
        .filter(|parts| parts[0].0 == "PRIMARY" || parts.iter().all(|(.., partial)| !partial))
        .map(|parts| parts.iter().map(|(_, column, _)| column.clone()).collect())
        .collect()
}

/// The columns that MariaDB, whose `json` is a text with a check, takes for documents.
pub(super) async fn documents(link: &mut Link, table: &str) -> Result<Vec<String>, Fault> {
    let version: Vec<String> = link.rows("look at the server", "SELECT VERSION()").await?;
    if !version.first().is_some_and(|version| is_mariadb(version)) {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT CONSTRAINT_NAME, CHECK_CLAUSE FROM information_schema.CHECK_CONSTRAINTS \
         WHERE CONSTRAINT_SCHEMA = DATABASE() AND TABLE_NAME = {}",
        text_literal(table)
    );
    let checks: Vec<(String, String)> = link.rows("read the table's checks", &sql).await?;
    let checks = checks.into_iter();
    Ok(checks
        .filter(|(name, clause)| *clause == format!("json_valid({})", quote(name)))
        .map(|(name, _)| name)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_compared_so_that_an_index_serves() {
        let layout = |names: &[&str]| Layout {
            shape: Shape {
                schema: Arc::new(Schema {
                    collection: "t".into(),
                    fields: names.iter().map(|name| Field::new(*name, Form::Integer.ty())).collect(),
                }),
                forms: names.iter().map(|_| Form::Integer).collect(),
                info: None,
                columns: vec![],
                from: "`t` AS q".into(),
            },
            cursor: names.iter().map(ToString::to_string).collect(),
            places: (0..names.len()).collect(),
            tick: Duration::ZERO,
            nullable: false,
        };
        let place = |values: &[&str]| values.iter().map(ToString::to_string).collect::<Vec<_>>();
        let one = layout(&["id"]);
        assert_eq!(
            one.rows(Some(&place(&["5"])), Some(&place(&["9"])), 10).unwrap(),
            "SELECT q.`id` FROM `t` AS q WHERE (q.`id` > 5) AND (q.`id` <= 9) ORDER BY q.`id` LIMIT 10"
        );
        assert_eq!(
            one.last(None).unwrap(),
            "SELECT q.`id` FROM `t` AS q ORDER BY q.`id` DESC LIMIT 1"
        );
        let two = layout(&["a", "b"]);
        assert_eq!(
            two.filter(Some(&place(&["1", "2"])), None).unwrap(),
            " WHERE (q.`a` >= 1 AND (q.`a` > 1 OR (q.`a` = 1 AND q.`b` > 2)))"
        );
        assert_eq!(
            two.filter(None, Some(&place(&["1", "2"]))).unwrap(),
            " WHERE (q.`a` <= 1 AND (q.`a` < 1 OR (q.`a` = 1 AND q.`b` <= 2)))"
        );
        let fault = two.filter(None, Some(&place(&["1", "2)--"]))).unwrap_err();
        assert!(matches!(fault, Fault::Stop { .. }), "{fault}");
    }

    #[test]
    fn an_index_on_a_part_of_a_column_proves_nothing() {
        let part = |index: &str, column: &str, partial| (index.to_string(), column.to_string(), partial);
        let parts = [
            part("PRIMARY", "a", false),
            part("PRIMARY", "b", false),
            part("u", "c", true),
            part("v", "d", false),
        ];
        assert_eq!(
            uniques(&parts),
            [vec!["a".to_string(), "b".to_string()], vec!["d".to_string()]]
        );
    }
}
