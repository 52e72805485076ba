//! Makes a table fit for a schema, created or checked, and says where each column of a batch goes. Writes no rows.

use std::sync::Arc;

use bus_schema::data::{Batch, Field, Schema, Type};
use flow::Fault;
use tokio_postgres::Client;

use super::{
    Settings,
    encode::{Notes, Wire, column_type, column_type_of},
    error,
};
use crate::{names::hint, write_mode::WriteMode};

/// Longest name, in bytes: PostgreSQL cuts longer ones off without a word of refusal.
pub(super) const NAME_BYTES_MAX: usize = 63;

/// Where the columns of one schema go.
pub(super) struct Plan {
    /// The schema this is for.
    pub schema: Arc<Schema>,
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
    /// Nowhere yet: it is added when the first value tells its type.
    Later,
}

/// A column of the table.
pub(super) struct Column {
    /// Its name.
    pub name: String,
    /// How values travel to it.
    pub wire: Wire,
    /// Its type as SQL, without length or precision: an explicit cast to those would cut values off.
    pub cast: String,
    /// What it cuts off.
    pub notes: Notes,
}

struct Found {
    name: String,
    wire: Wire,
    cast: String,
    generated: bool,
}

impl Plan {
    /// Creates the table or adds what it lacks, as far as the settings allow. Runs inside the caller's transaction.
    pub(super) async fn make(client: &Client, settings: &Settings, batch: &Batch) -> Result<Self, Fault> {
        let schema = batch.schema();
        let keys = keys(settings, schema)?;
        let types: Vec<Option<String>> = (0..schema.fields.len()).map(|index| new_type(batch, index)).collect();
        let oid = match table_oid(client, settings).await? {
            Some(oid) => oid,
            None if settings.create_table => {
                let sql = create_sql(settings, schema, &types, &keys)?;
                client
                    .batch_execute(&sql)
                    .await
                    .map_err(|error| error::fault("create the table", &error))?;
                let vanished = || Fault::retry(format!("{} vanished right after its creation", settings.shown()));
                table_oid(client, settings).await?.ok_or_else(vanished)?
            }
            None => return Err(no_table(client, settings).await),
        };
        if settings.mode == WriteMode::Upsert {
            check_unique(client, settings, oid, schema, &keys).await?;
        }
        let found = columns(client, oid).await?;
        let mut targets = Vec::with_capacity(schema.fields.len());
        for (field, ty) in schema.fields.iter().zip(types) {
            targets.push(match found.iter().find(|found| found.name == field.name) {
                Some(found) if found.generated => Target::Generated,
                Some(found) => Target::Column(Column {
                    name: found.name.clone(),
                    wire: found.wire,
                    cast: found.cast.clone(),
                    notes: Notes::default(),
                }),
                None => add(client, settings, field, ty).await?,
            });
        }
        if targets
            .iter()
            .any(|target| matches!(target, Target::Column(column) if column.cast.is_empty()))
        {
            // Columns were added: now the catalog knows how values travel to them.
            let found = columns(client, oid).await?;
            for target in &mut targets {
                if let Target::Column(column) = target
                    && let Some(found) = found.iter().find(|found| found.name == column.name)
                {
                    column.wire = found.wire;
                    column.cast.clone_from(&found.cast);
                }
            }
        }
        Ok(Self {
            schema: Arc::clone(schema),
            targets,
            keys,
        })
    }

    /// Whether the batch has a value in a column that was not added for want of one.
    pub(super) fn is_outgrown_by(&self, batch: &Batch) -> bool {
        let later = self
            .targets
            .iter()
            .enumerate()
            .filter(|(_, target)| matches!(target, Target::Later));
        later
            .into_iter()
            .any(|(index, _)| (0..batch.rows()).any(|row| batch.cell(row, index).is_value()))
    }
}

/// The table's OID; `None` when there is none.
pub(super) async fn table_oid(client: &Client, settings: &Settings) -> Result<Option<u32>, Fault> {
    let sql = "SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
               WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'f')";
    let row = client.query_opt(sql, &[&settings.schema, &settings.table]).await;
    Ok(row
        .map_err(|error| error::fault("look the table up", &error))?
        .map(|row| row.get(0)))
}

/// There is no such table, and it may not be created.
pub(super) async fn no_table(client: &Client, settings: &Settings) -> Fault {
    let sql = "SELECT tablename::text FROM pg_tables WHERE schemaname = $1 ORDER BY 1 LIMIT 1000";
    let rows = client.query(sql, &[&settings.schema]).await.unwrap_or_default();
    let hint = hint(&settings.table, rows.iter().map(|row| row.get(0)));
    Fault::retry(format!(
        "there is no table {}{hint}: create it, or set create_table = true",
        settings.shown()
    ))
}

async fn columns(client: &Client, oid: u32) -> Result<Vec<Found>, Fault> {
    // A domain is written like the type it is over; the cast makes PostgreSQL check its constraints.
    let sql = "SELECT a.attname::text, COALESCE(NULLIF(t.typbasetype, 0), t.oid), \
                   CASE WHEN t.typbasetype <> 0 THEN t.typtypmod ELSE a.atttypmod END, \
                   format_type(a.atttypid, NULL), a.attgenerated::text <> '' \
               FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid \
               WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";
    let rows = client
        .query(sql, &[&oid])
        .await
        .map_err(|error| error::fault("read the table's columns", &error))?;
    let found = rows.iter().map(|row| {
        let cast: String = row.get(3);
        let wire = match Wire::of(row.get(1), row.get(2)) {
            Wire::Read if cast.ends_with("[]") => Wire::ReadArray,
            wire => wire,
        };
        Found {
            name: row.get(0),
            wire,
            cast,
            generated: row.get(4),
        }
    });
    Ok(found.collect())
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

fn create_sql(settings: &Settings, schema: &Schema, types: &[Option<String>], keys: &[usize]) -> Result<String, Fault> {
    let mut parts = Vec::new();
    for (index, (field, ty)) in schema.fields.iter().zip(types).enumerate() {
        match ty {
            Some(ty) if refusal(&field.name).is_none() => parts.push(format!("{} {ty}", quote(&field.name))),
            None if keys.contains(&index) => {
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
    Ok(format!("CREATE TABLE {} ({})", settings.relation(), parts.join(", ")))
}

/// Why a column cannot have this name.
fn refusal(name: &str) -> Option<String> {
    let shown = name.escape_debug();
    match name {
        "" => Some("PostgreSQL has no columns without a name".to_string()),
        _ if name.contains('\0') => Some(format!("PostgreSQL has no column names with NUL in them: '{shown}'")),
        _ if name.len() > NAME_BYTES_MAX => Some(format!(
            "PostgreSQL's column names have at most {NAME_BYTES_MAX} bytes: '{shown}'"
        )),
        _ => None,
    }
}

async fn add(client: &Client, settings: &Settings, field: &Field, ty: Option<String>) -> Result<Target, Fault> {
    let (name, table) = (&field.name, settings.shown());
    if let Some(refusal) = refusal(name) {
        return Ok(Target::Refused(refusal));
    }
    if !settings.add_columns {
        return Ok(Target::Refused(format!(
            "table {table} has no column '{name}', and add_columns is false"
        )));
    }
    let Some(ty) = ty else {
        debug_assert_eq!(field.ty, Type::Any);
        return Ok(Target::Later);
    };
    let sql = format!("ALTER TABLE {} ADD COLUMN {} {ty}", settings.relation(), quote(name));
    client
        .batch_execute(&sql)
        .await
        .map_err(|error| error::fault("add a column", &error))?;
    tracing::info!(table, column = name, "column added");
    // An empty cast: to be looked up.
    Ok(Target::Column(Column {
        name: name.clone(),
        wire: Wire::Read,
        cast: String::new(),
        notes: Notes::default(),
    }))
}

async fn check_unique(
    client: &Client,
    settings: &Settings,
    oid: u32,
    schema: &Schema,
    keys: &[usize],
) -> Result<(), Fault> {
    let sql = "SELECT array_agg(a.attname::text) \
               FROM pg_index i JOIN pg_attribute a \
                   ON a.attrelid = i.indrelid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]) \
               WHERE i.indrelid = $1 AND i.indisunique AND i.indimmediate AND i.indisvalid \
                   AND i.indpred IS NULL AND i.indexprs IS NULL \
               GROUP BY i.indexrelid";
    let rows = client
        .query(sql, &[&oid])
        .await
        .map_err(|error| error::fault("read the table's indexes", &error))?;
    let mut wanted: Vec<&str> = keys.iter().map(|index| schema.fields[*index].name.as_str()).collect();
    wanted.sort_unstable();
    let same = |mut key: Vec<String>| {
        key.sort_unstable();
        key == wanted
    };
    if rows.iter().any(|row| same(row.get(0))) {
        return Ok(());
    }
    let columns: Vec<String> = wanted.iter().map(|name| quote(name)).collect();
    let columns = columns.join(", ");
    Err(Fault::retry(format!(
        "mode = \"upsert\" needs a unique index on exactly ({columns}) of table {}: CREATE UNIQUE INDEX ON {} ({columns})",
        settings.shown(),
        settings.relation()
    )))
}

/// A name as SQL. The callers refuse NUL and names that are too long beforehand.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
