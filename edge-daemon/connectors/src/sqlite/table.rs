//! Makes a table fit for a schema, created or checked, and says where each column of a batch goes. Writes no rows.

use std::{cell::Cell as Flag, sync::Arc};

use bus_schema::data::{Field, Schema, Type};
use flow::Fault;
use rusqlite::{Connection, ErrorCode};

use super::{Affinity, TableInfo, fault, quote, store::Settings, table_names};
use crate::{names::hint, write_mode::WriteMode};

/// Where the columns of one schema go.
pub(super) struct Plan {
    /// The schema this is for.
    pub schema: Arc<Schema>,
    /// The table's name as SQL.
    pub table: String,
    /// For each column of the batch.
    pub targets: Vec<Target>,
    /// The columns that identify a record, by index.
    pub keys: Vec<usize>,
}

/// Where one column of a batch goes.
pub(super) enum Target {
    /// Into this column of the table.
    Column(Column),
    /// Nowhere: the database computes it.
    Generated,
    /// Nowhere: a record with a value in it is rejected, for this reason.
    Refused(String),
}

/// A column of the table.
pub(super) struct Column {
    /// Its name as SQL.
    pub sql: String,
    /// What SQLite does to values stored in it.
    pub affinity: Affinity,
    /// Another name of the rowid: SQLite would make up a value for NULL.
    pub rowid: bool,
    /// Whether a conversion that loses the sign of -0.0 has been logged.
    pub noted: Flag<bool>,
}

impl Plan {
    /// Creates the table or adds what it lacks, as far as the settings allow. Runs inside the caller's transaction.
    pub(super) fn make(conn: &Connection, settings: &Settings, schema: &Arc<Schema>) -> Result<Self, Fault> {
        let failed = |error| fault("prepare the table", &settings.path, &error);
        let keys = keys(settings, schema)?;
        let load = || TableInfo::load(conn, &settings.table).map_err(failed);
        let info = match load()? {
            Some(info) => info,
            None if settings.create_table => {
                conn.execute_batch(&create_sql(&settings.table, schema, &keys))
                    .map_err(failed)?;
                load()?
                    .ok_or_else(|| Fault::retry(format!("'{}' vanished right after its creation", settings.table)))?
            }
            None => return Err(no_table(conn, settings)),
        };
        if settings.mode == WriteMode::Upsert {
            check_unique(conn, settings, &info, schema, &keys)?;
        }
        let targets = schema.fields.iter().map(|field| target(conn, settings, &info, field));
        let targets = targets.collect::<Result<_, _>>()?;
        Ok(Self {
            schema: Arc::clone(schema),
            table: quote(&info.name),
            targets,
            keys,
        })
    }
}

/// There is no such table, and it may not be created.
pub(super) fn no_table(conn: &Connection, settings: &Settings) -> Fault {
    let names = table_names(conn).unwrap_or_default();
    let hint = hint(&settings.table, names.iter().map(String::as_str));
    let (path, table) = (settings.path.display(), &settings.table);
    Fault::retry(format!(
        "{path} has no table '{table}'{hint}: create it, or set create_table = true"
    ))
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
        schema
            .fields
            .iter()
            .position(|field| field.name.eq_ignore_ascii_case(name))
            .ok_or_else(|| {
                let hint = hint(name, schema.fields.iter().map(|field| field.name.as_str()));
                Fault::retry(format!(
                    "the records of '{}' have no key column '{name}'{hint}",
                    schema.collection
                ))
            })
    };
    names.iter().map(find).collect()
}

fn create_sql(table: &str, schema: &Schema, keys: &[usize]) -> String {
    let mut parts = Vec::new();
    let mut key_stands = keys.is_empty();
    for (index, field) in schema
        .fields
        .iter()
        .enumerate()
        .filter(|(_, field)| !field.name.contains('\0'))
    {
        let mut part = quote(&field.name);
        part.push_str(declared(&field.ty));
        if keys.contains(&index) {
            // SQLite alone among databases allows NULL in a primary key unless told not to.
            part.push_str(" NOT NULL");
        }
        if keys == [index] {
            part.push_str(" PRIMARY KEY");
            key_stands = true;
        }
        parts.push(part);
    }
    if !key_stands {
        let names: Vec<String> = keys.iter().map(|index| quote(&schema.fields[*index].name)).collect();
        parts.push(format!("PRIMARY KEY ({})", names.join(", ")));
    }
    format!("CREATE TABLE {} ({})", quote(table), parts.join(", "))
}

/// The declared type, with a space before it, that leaves every value of the type as it is.
fn declared(ty: &Type) -> &'static str {
    match ty {
        Type::Bool | Type::I64 => " INTEGER",
        Type::F32 | Type::F64 => " REAL",
        Type::Bytes => " BLOB",
        // Any affinity would turn one or another of their values into something else (u64: large ones are text).
        Type::U64 | Type::Any => "",
        Type::Decimal { .. }
        | Type::Text
        | Type::Date
        | Type::Time
        | Type::Timestamp(_)
        | Type::Uuid
        | Type::Json
        | Type::List => " TEXT",
    }
}

fn target(conn: &Connection, settings: &Settings, info: &TableInfo, field: &Field) -> Result<Target, Fault> {
    let (name, table) = (&field.name, &info.name);
    if let Some(column) = info.column(name) {
        return Ok(match column.generated {
            true => Target::Generated,
            false => Target::Column(Column {
                sql: quote(name),
                affinity: column.affinity,
                rowid: column.rowid,
                noted: Flag::new(false),
            }),
        });
    }
    if name.contains('\0') {
        return Ok(Target::Refused(format!(
            "SQLite has no column names with NUL in them: '{}'",
            name.escape_debug()
        )));
    }
    if !settings.add_columns {
        return Ok(Target::Refused(format!(
            "table '{table}' has no column '{name}', and add_columns is false"
        )));
    }
    let declared = declared(&field.ty);
    match conn.execute_batch(&format!(
        "ALTER TABLE {} ADD COLUMN {}{declared}",
        quote(table),
        quote(name)
    )) {
        Ok(()) => {
            tracing::info!(path = %settings.path.display(), table, column = name, "column added");
            let affinity = Affinity::of(declared.trim(), false);
            Ok(Target::Column(Column {
                sql: quote(name),
                affinity,
                rowid: false,
                noted: Flag::new(false),
            }))
        }
        // A view, or too many columns: that concerns this column only, and will not change by trying again.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::Unknown) => Ok(Target::Refused(format!(
            "table '{table}' has no column '{name}', and it cannot be added: {error}"
        ))),
        Err(error) => Err(fault("add a column", &settings.path, &error)),
    }
}

fn check_unique(
    conn: &Connection,
    settings: &Settings,
    info: &TableInfo,
    schema: &Schema,
    keys: &[usize],
) -> Result<(), Fault> {
    let found = info
        .unique_keys(conn)
        .map_err(|error| fault("read the schema", &settings.path, &error))?;
    let fold = |name: &str| name.to_ascii_lowercase();
    let mut wanted: Vec<String> = keys.iter().map(|index| fold(&schema.fields[*index].name)).collect();
    wanted.sort();
    let same = |key: &Vec<String>| {
        let mut key: Vec<String> = key.iter().map(|name| fold(name)).collect();
        key.sort();
        key == wanted
    };
    if found.iter().any(same) {
        return Ok(());
    }
    let (table, columns) = (&info.name, wanted.join(", "));
    Err(Fault::retry(format!(
        "mode = \"upsert\" needs a unique index on exactly ({columns}) of table '{table}' in {}: \
         CREATE UNIQUE INDEX \"{table}_key\" ON {} ({columns})",
        settings.path.display(),
        quote(table)
    )))
}
