//! A connection and its place, for messages: runs statements, and waits for the answers, but not for ever. Knows no table.

use std::{future::Future, path::Path, time::Duration};

use flow::Fault;
use mysql_async::{Conn, Error, prelude::Queryable};
use tokio::time::timeout;

use super::{connect::Server, error::fault};

/// A server that says nothing for this long is taken for gone.
const ANSWER_WAIT: Duration = Duration::from_secs(120);

/// An open connection.
pub(super) struct Link {
    pub conn: Conn,
    /// `host:port/database`.
    pub place: String,
}

impl Link {
    /// Connects.
    pub(super) async fn open(server: &Server, base_dir: &Path) -> Result<Self, Fault> {
        let (conn, place) = server.connect(base_dir).await?;
        Ok(Self { conn, place })
    }

    /// A failure, with the place. `doing` completes "cannot …".
    pub(super) fn failed(&self, doing: &str, error: &Error) -> Fault {
        match fault(doing, error) {
            Fault::Retry { cause, after } => Fault::Retry {
                cause: format!("{cause} (at {})", self.place),
                after,
            },
            other => other,
        }
    }

    /// Runs a statement whose result does not matter.
    pub(super) async fn run(&mut self, doing: &str, sql: &str) -> Result<(), Fault> {
        let done = answer(&self.place, self.conn.query_drop(sql)).await?;
        done.map_err(|error| self.failed(doing, &error))
    }

    /// The rows of a query.
    pub(super) async fn rows<T>(&mut self, doing: &str, sql: &str) -> Result<Vec<T>, Fault>
    where
        T: mysql_async::prelude::FromRow + Send + 'static,
    {
        let found = answer(&self.place, self.conn.query(sql)).await?;
        found.map_err(|error| self.failed(doing, &error))
    }
}

/// Waits for the server, but not for ever.
pub(super) async fn answer<T>(
    place: &str,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<Result<T, Error>, Fault> {
    timeout(ANSWER_WAIT, work)
        .await
        .map_err(|_| Fault::retry(format!("{place} did not answer for {} s", ANSWER_WAIT.as_secs())))
}
