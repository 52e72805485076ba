//! Some columns of a table or query as texts: what a lookup keeps in memory. Never writes.

use std::{path::Path, pin::pin};

use futures_util::TryStreamExt as _;
use tokio_postgres::{Client, Statement};

use super::{
    connect::{Server, explain},
    layout::{READ_SETTINGS, VALUE_SETTINGS},
    table::quote,
};

/// What to read: all of a table, or of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum From {
    /// A table or view, and its schema.
    Table(String, String),
    /// A SELECT.
    Query(String),
}

/// Columns that can be read: the table or query is there and has them.
pub(crate) struct Texts {
    client: Client,
    statement: Statement,
}

impl Texts {
    /// Connects and finds the columns.
    pub(crate) async fn connect(
        server: &Server,
        base_dir: &Path,
        name: &str,
        (from, columns): (&From, &[String]),
    ) -> Result<Self, String> {
        let connected = server.connect(base_dir, name).await;
        let (client, _) = connected.map_err(|fault| fault.to_string())?;
        Self::find(client, from, columns).await
    }

    /// Finds the columns. Reads no row.
    pub(crate) async fn find(client: Client, from: &From, columns: &[String]) -> Result<Self, String> {
        let failed = |error: tokio_postgres::Error| explain(&error);
        let set = client
            .batch_execute(&format!("{VALUE_SETTINGS}; {READ_SETTINGS}"))
            .await;
        set.map_err(failed)?;
        let names: Vec<String> = columns.iter().map(|name| format!("q.{}::text", quote(name))).collect();
        let from = match from {
            From::Table(schema, table) => format!("{}.{}", quote(schema), quote(table)),
            From::Query(sql) => format!("({}\n)", sql.trim().trim_end_matches(';')),
        };
        let sql = format!("SELECT {} FROM {from} AS q", names.join(", "));
        let statement = client.prepare(&sql).await.map_err(failed)?;
        Ok(Self { client, statement })
    }

    /// Gives each row to `take`.
    pub(crate) async fn read(
        self,
        mut take: impl FnMut(Vec<Option<String>>) -> Result<(), String>,
    ) -> Result<(), String> {
        let failed = |error: tokio_postgres::Error| explain(&error);
        let none: [&str; 0] = [];
        let rows = self.client.query_raw(&self.statement, none).await.map_err(failed)?;
        let mut rows = pin!(rows);
        while let Some(row) = rows.try_next().await.map_err(failed)? {
            take(
                (0..row.len())
                    .map(|column| row.get::<_, Option<String>>(column))
                    .collect(),
            )?;
        }
        Ok(())
    }
}
