//! Makes a table fit for a schema, created or checked, and says where each column of a batch goes. Writes no rows.

use std::sync::Arc;

use bus_schema::data::{Batch, Field, Schema, Type};
use flow::Fault;

use super::{
    Settings,
    encode::{Column, column_type, column_type_of, text_literal},
    session::Session,
};
use crate::{names::hint, write_mode::WriteMode};

/// Longest name, in characters.
const NAME_CHARS_MAX: usize = 64;
/// Longest key of an index of InnoDB, in bytes.
const KEY_BYTES_MAX: usize = 3072;
/// What a part of a key takes that is neither text nor bytes, in bytes: `decimal(65,30)` is the largest.
const KEY_PART_BYTES: usize = 32;
/// Most characters (or bytes) of a part of a key.
const KEY_CHARS_MAX: usize = 255;
/// Most bytes of a character in utf8mb4.
const CHAR_BYTES_MAX: usize = 4;

/// Where the columns of one schema go.
pub(super) struct Plan {
    /// The schema this is for.
    pub schema: Arc<Schema>,
    /// For each column of the batch.
    pub targets: Vec<Target>,
    /// The columns that identify a record, by index.
    pub keys: Vec<usize>,
    /// Why upserts would go wrong, if they would.
    pub no_upsert: Option<String>,
}

/// Where one column of a batch goes.
pub(super) enum Target {
    /// Into this column of the table.
    Column(Column),
    /// Nowhere: the database computes it.
    Generated,
    /// Nowhere: a record with a value in it is rejected, for this reason.
    Refused(String),
    /// Nowhere yet: it is added when the first value tells its type.
    Later,
}

impl Plan {
    /// Creates the table or adds what it lacks, as far as the settings allow. Must not run inside of a transaction: these
    /// statements would commit it.
    pub(super) async fn make(session: &mut Session, settings: &Settings, batch: &Batch) -> Result<Self, Fault> {
        let schema = batch.schema();
        let keys = keys(settings, schema)?;
        let types: Vec<Option<String>> = (0..schema.fields.len()).map(|index| new_type(batch, index)).collect();
        match engine(session, &settings.table).await? {
            Some(engine) => refuse_engine(&settings.table, &engine)?,
            None if settings.create_table => {
                let sql = create_sql(session.mariadb, settings, schema, &types, &keys)?;
                session.run("create the table", &sql).await?;
            }
            None => return Err(no_table(session, &settings.table).await),
        }
        let no_upsert = check_unique(session, settings, schema, &keys).await?;
        if settings.mode == WriteMode::Upsert
            && let Some(reason) = &no_upsert
        {
            return Err(Fault::retry(reason.clone()));
        }
        let mut found = columns(session, &settings.table).await?;
        let mut missing = Vec::with_capacity(schema.fields.len());
        let mut added = false;
        for (index, (field, ty)) in schema.fields.iter().zip(types).enumerate() {
            missing.push(match twin(schema, index) {
                Some(twin) => Some(Target::Refused(format!(
                    "MySQL takes the names '{}' and '{twin}' for the same",
                    field.name
                ))),
                None if position(&found, &field.name).is_some() => None,
                None => {
                    let target = add(session, settings, field, ty).await?;
                    added |= target.is_none();
                    target
                }
            });
        }
        if added {
            found = columns(session, &settings.table).await?;
        }
        let mut targets = Vec::with_capacity(missing.len());
        for (field, target) in schema.fields.iter().zip(missing) {
            targets.push(match (target, position(&found, &field.name)) {
                (Some(target), _) => target,
                (None, Some(at)) if found[at].generated => Target::Generated,
                (None, Some(at)) => Target::Column(found.swap_remove(at)),
                (None, None) => {
                    let (table, name) = (&settings.table, &field.name);
                    return Err(Fault::retry(format!(
                        "column '{name}' of {table} vanished right after it was added"
                    )));
                }
            });
        }
        Ok(Self {
            schema: Arc::clone(schema),
            targets,
            keys,
            no_upsert,
        })
    }

    /// Whether the batch has a value in a column that was not added for want of one.
    pub(super) fn is_outgrown_by(&self, batch: &Batch) -> bool {
        let mut later = (0..self.targets.len()).filter(|index| matches!(self.targets[*index], Target::Later));
        later.any(|index| (0..batch.rows()).any(|row| batch.cell(row, index).is_value()))
    }
}

/// An earlier field that would be the same column: names of columns do not tell large letters from small ones.
fn twin(schema: &Schema, index: usize) -> Option<&str> {
    let name = schema.fields[index].name.to_lowercase();
    let earlier = &schema.fields[..index];
    earlier
        .iter()
        .map(|field| field.name.as_str())
        .find(|earlier| earlier.to_lowercase() == name)
}

fn position(found: &[Column], name: &str) -> Option<usize> {
    let name = name.to_lowercase();
    found.iter().position(|column| column.name.to_lowercase() == name)
}

/// The engine of a table, `VIEW` for a view; `None` when there is no such table.
pub(super) async fn engine(session: &mut Session, table: &str) -> Result<Option<String>, Fault> {
    let sql = format!(
        "SELECT COALESCE(ENGINE, TABLE_TYPE) FROM information_schema.TABLES \
         WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {}",
        text_literal(table)
    );
    let found: Vec<String> = session.rows("look the table up", &sql).await?;
    Ok(found.into_iter().next())
}

/// Other engines have no transactions: rows and watermark would part.
pub(super) fn refuse_engine(table: &str, engine: &str) -> Result<(), Fault> {
    if engine.eq_ignore_ascii_case("InnoDB") {
        return Ok(());
    }
    Err(Fault::retry(format!(
        "table {table} is kept by {engine}, which cannot write rows and watermark in one transaction: ALTER TABLE {} ENGINE = \
         InnoDB",
        quote(table)
    )))
}

/// There is no such table, and it may not be created.
pub(super) async fn no_table(session: &mut Session, table: &str) -> Fault {
    let sql = "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() ORDER BY 1 LIMIT 1000";
    let names: Vec<String> = session.rows("list the tables", sql).await.unwrap_or_default();
    let hint = hint(table, names.iter().map(String::as_str));
    Fault::retry(format!(
        "there is no table {table}{hint}: create it, or set create_table = true"
    ))
}

async fn columns(session: &mut Session, table: &str) -> Result<Vec<Column>, Fault> {
    let sql = format!(
        "SELECT COLUMN_NAME, LOWER(DATA_TYPE), COLUMN_TYPE, IS_NULLABLE = 'YES', EXTRA, CHARACTER_MAXIMUM_LENGTH, \
             NUMERIC_PRECISION, NUMERIC_SCALE, DATETIME_PRECISION FROM information_schema.COLUMNS \
         WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {} ORDER BY ORDINAL_POSITION",
        text_literal(table)
    );
    let found: Vec<mysql_async::Row> = session.rows("read the table's columns", &sql).await?;
    let columns = found.into_iter().map(|row| Column::of(&row));
    columns
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| Fault::retry(format!("what the server says of the columns of {table} cannot be read")))
}

fn keys(settings: &Settings, schema: &Schema) -> Result<Vec<usize>, Fault> {
    let Some(names) = &settings.key else {
        let keys: Vec<usize> = (0..schema.fields.len())
            .filter(|index| schema.fields[*index].key)
            .collect();
        if keys.is_empty() && settings.mode == WriteMode::Upsert {
            return Err(Fault::stop(format!(
                "mode = \"upsert\" needs to know what identifies a record, and the records of '{}' come without key \
                 columns: set key",
                schema.collection
            )));
        }
        return Ok(keys);
    };
    let find = |name: &String| {
        schema.index_of(name).ok_or_else(|| {
            let hint = hint(name, schema.fields.iter().map(|field| field.name.as_str()));
            Fault::retry(format!(
                "the records of '{}' have no key column '{name}'{hint}",
                schema.collection
            ))
        })
    };
    names.iter().map(find).collect()
}

/// The type of a new column for this one of the batch; `None` while no value tells.
fn new_type(batch: &Batch, index: usize) -> Option<String> {
    let ty = &batch.schema().fields[index].ty;
    column_type(ty).or_else(|| column_type_of((0..batch.rows()).map(|row| batch.cell(row, index))))
}

fn create_sql(
    mariadb: bool,
    settings: &Settings,
    schema: &Schema,
    types: &[Option<String>],
    keys: &[usize],
) -> Result<String, Fault> {
    let mut parts = Vec::new();
    for (index, (field, ty)) in schema.fields.iter().zip(types).enumerate() {
        let is_key = keys.contains(&index);
        match ty {
            Some(ty) if refusal(&field.name).is_none() && twin(schema, index).is_none() => {
                let ty = if is_key { key_type(ty, keys.len()) } else { ty.clone() };
                let null = if is_key { " NOT NULL" } else { "" };
                parts.push(format!("{} {ty}{null}", quote(&field.name)));
            }
            None if is_key => {
                let message = format!(
                    "the key column '{}' has no value yet that would tell its type",
                    field.name
                );
                return Err(Fault::retry(message));
            }
            _ => {}
        }
    }
    if !keys.is_empty() {
        let names: Vec<String> = keys.iter().map(|index| quote(&schema.fields[*index].name)).collect();
        parts.push(format!("PRIMARY KEY ({})", names.join(", ")));
    }
    // Tells all texts apart, trailing spaces included.
    let collation = if mariadb {
        "utf8mb4_nopad_bin"
    } else {
        "utf8mb4_0900_bin"
    };
    Ok(format!(
        "CREATE TABLE {} ({}) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE {collation}",
        quote(&settings.table),
        parts.join(", ")
    ))
}

/// The type of a column of a primary key of this many: long text and bytes cannot be in an index.
fn key_type(ty: &str, keys: usize) -> String {
    let bytes = KEY_BYTES_MAX / keys.max(1) - KEY_PART_BYTES;
    match ty {
        "longtext" | "json" => format!("varchar({})", KEY_CHARS_MAX.min(bytes / CHAR_BYTES_MAX)),
        "longblob" => format!("varbinary({})", KEY_CHARS_MAX.min(bytes)),
        _ => ty.to_string(),
    }
}

/// Why a table or column cannot have this name.
pub(super) fn refusal(name: &str) -> Option<String> {
    let shown = name.escape_debug();
    match name {
        "" => Some("MySQL has no names without a letter".to_string()),
        _ if name.ends_with(' ') => Some(format!("MySQL has no names with a space at their end: '{shown}'")),
        _ if name.contains(|c: char| c == '\0' || c > '\u{ffff}') => Some(format!(
            "MySQL has no names with NUL or characters beyond U+FFFF in them: '{shown}'"
        )),
        _ if name.chars().count() > NAME_CHARS_MAX => Some(format!(
            "MySQL's names have at most {NAME_CHARS_MAX} characters: '{shown}'"
        )),
        _ => None,
    }
}

/// Adds a column; `None` when it was added.
async fn add(
    session: &mut Session,
    settings: &Settings,
    field: &Field,
    ty: Option<String>,
) -> Result<Option<Target>, Fault> {
    let (name, table) = (&field.name, &settings.table);
    if let Some(refusal) = refusal(name) {
        return Ok(Some(Target::Refused(refusal)));
    }
    if !settings.add_columns {
        return Ok(Some(Target::Refused(format!(
            "table {table} has no column '{name}', and add_columns is false"
        ))));
    }
    let Some(ty) = ty else {
        debug_assert_eq!(field.ty, Type::Any);
        return Ok(Some(Target::Later));
    };
    let sql = format!("ALTER TABLE {} ADD COLUMN {} {ty}", quote(table), quote(name));
    session.run("add a column", &sql).await?;
    tracing::info!(table, column = name, "column added");
    Ok(None)
}

/// Why upserts would go wrong. One changes the row that *any* unique index finds: only the key's may be there to find one.
async fn check_unique(
    session: &mut Session,
    settings: &Settings,
    schema: &Schema,
    keys: &[usize],
) -> Result<Option<String>, Fault> {
    if keys.is_empty() {
        // Such records are rejected one by one.
        return Ok(None);
    }
    let sql = format!(
        "SELECT s.INDEX_NAME, LOWER(COALESCE(s.COLUMN_NAME, '')), s.SUB_PART IS NOT NULL, \
             COALESCE(c.EXTRA LIKE '%auto_increment%', 0) \
         FROM information_schema.STATISTICS s LEFT JOIN information_schema.COLUMNS c \
             ON c.TABLE_SCHEMA = s.TABLE_SCHEMA AND c.TABLE_NAME = s.TABLE_NAME AND c.COLUMN_NAME = s.COLUMN_NAME \
         WHERE s.TABLE_SCHEMA = DATABASE() AND s.TABLE_NAME = {} AND s.NON_UNIQUE = 0 ORDER BY 1, s.SEQ_IN_INDEX",
        text_literal(&settings.table)
    );
    let rows: Vec<(String, String, bool, bool)> = session.rows("read the table's indexes", &sql).await?;
    let mut wanted: Vec<String> = keys
        .iter()
        .map(|index| schema.fields[*index].name.to_lowercase())
        .collect();
    wanted.sort_unstable();
    let given = |name: &str| schema.fields.iter().any(|field| field.name.to_lowercase() == name);
    let mut key_stands = false;
    let mut names: Vec<&str> = rows.iter().map(|(index, ..)| index.as_str()).collect();
    names.dedup();
    for name in names {
        let parts = rows.iter().filter(|(index, ..)| index == name);
        let mut columns: Vec<&str> = parts.clone().map(|(_, column, ..)| column.as_str()).collect();
        columns.sort_unstable();
        if columns == wanted && parts.clone().all(|(_, _, prefix, _)| !prefix) {
            key_stands = true;
        } else if !parts.clone().any(|(_, column, _, counted)| *counted && !given(column)) {
            // A number the server makes up is in no other row.
            return Ok(Some(format!(
                "an upsert would change the row that the unique index {name} of table {} finds, whatever its key: \
                 drop that index, or make its columns the key",
                settings.table
            )));
        }
    }
    if key_stands {
        return Ok(None);
    }
    let columns: Vec<String> = wanted.iter().map(|name| quote(name)).collect();
    let columns = columns.join(", ");
    Ok(Some(format!(
        "an upsert needs a unique index on exactly ({columns}) of table {0}: ALTER TABLE {1} ADD UNIQUE ({columns})",
        settings.table,
        quote(&settings.table)
    )))
}

/// A name as SQL.
pub(super) fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_only_names() {
        assert_eq!(quote("a`b"), "`a``b`");
        let long = "ä".repeat(64);
        for (name, fine) in [
            ("a", true),
            ("select", true),
            (" a", true),
            (&*long, true),
            ("", false),
            ("a ", false),
            ("a\0", false),
            ("🌱", false),
            (&*format!("{long}x"), false),
        ] {
            assert_eq!(refusal(name).is_none(), fine, "{name}");
        }
    }

    #[test]
    fn keys_fit_an_index() {
        for keys in 1..=16 {
            let ty = key_type("longtext", keys);
            let chars: usize = ty.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
            assert!(
                chars > 0 && chars * CHAR_BYTES_MAX * keys <= KEY_BYTES_MAX,
                "{keys} {ty}"
            );
        }
        assert_eq!(key_type("bigint", 2), "bigint");
    }
}
