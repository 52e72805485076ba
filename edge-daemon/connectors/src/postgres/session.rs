//! One connection and its open transaction. Anything that fails here ends the session: the server rolls back.

use std::{collections::HashMap, future::Future, path::Path, time::Duration};

use bus_schema::id::StreamId;
use flow::{Counts, Delivery, Fault, Position, Watermark};
use tokio::time::timeout;
use tokio_postgres::{Client, Statement, types::ToSql};

use super::{
    Settings,
    error::fault,
    rows::write_batch,
    table::{Plan, no_table, quote, table_oid},
};
use crate::names::hint;

/// The table that keeps how far each stream has come.
pub(super) const WATERMARK_TABLE: &str = "_mycelial_watermark";
/// A server that says nothing for this long is taken for gone.
const ANSWER_WAIT: Duration = Duration::from_secs(120);
/// Schemas whose plans are kept at the same time.
const PLANS_MAX: usize = 8;
/// Statements that are kept prepared.
const STATEMENTS_MAX: usize = 32;

/// What stands between the transaction and a statement that may fail.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Savepoint {
    /// None has been set.
    None,
    /// One from before a statement that succeeded: in the way.
    Used,
    /// One with nothing after it.
    Fresh,
}

/// An open connection.
pub(super) struct Session {
    client: Client,
    place: String,
    plans: Vec<Plan>,
    statements: HashMap<String, Statement>,
    /// The watermarks as the server has them, or will have them after the commit.
    marks: HashMap<StreamId, Watermark>,
    in_transaction: bool,
    savepoint: Savepoint,
}

impl Session {
    /// Connects and makes sure of what must exist.
    pub(super) async fn open(settings: &Settings, base_dir: &Path, name: &str) -> Result<Self, Fault> {
        let (client, place) = settings.server.connect(base_dir, name).await?;
        let session = Self {
            client,
            place,
            plans: Vec::new(),
            statements: HashMap::new(),
            marks: HashMap::new(),
            in_transaction: false,
            savepoint: Savepoint::None,
        };
        session.answer(session.prepare_database(settings)).await?;
        Ok(session)
    }

    async fn prepare_database(&self, settings: &Settings) -> Result<(), Fault> {
        let failed = |error| fault("prepare the database", &error);
        // Wherever a role or server has it off, a commit would return before it is durable.
        // A transaction we lost sight of must not hold its locks for hours. Text is read by fixed rules.
        let sql = "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'; \
                   SET idle_in_transaction_session_timeout = '60s'; \
                   SET TIME ZONE 'UTC'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'";
        self.client.batch_execute(sql).await.map_err(failed)?;
        let schemas = self
            .client
            .query("SELECT nspname::text FROM pg_namespace ORDER BY 1", &[])
            .await
            .map_err(failed)?;
        let schemas: Vec<&str> = schemas.iter().map(|row| row.get(0)).collect();
        if !schemas.contains(&settings.schema.as_str()) {
            let known = schemas.iter().copied().filter(|name| !name.starts_with("pg_"));
            let hint = hint(&settings.schema, known);
            return Err(Fault::retry(format!(
                "{} has no schema '{}'{hint}",
                self.place, settings.schema
            )));
        }
        // Looked up first: CREATE TABLE IF NOT EXISTS asks for the right to create even when it has nothing to do.
        let watermarks = settings.sibling(WATERMARK_TABLE);
        if table_oid(&self.client, &watermarks).await?.is_none() {
            let sql = format!(
                "CREATE TABLE IF NOT EXISTS {} (stream text PRIMARY KEY, seq bigint NOT NULL, \
                 position bytea NOT NULL, delivered bigint NOT NULL, counts bytea NOT NULL)",
                watermarks.relation()
            );
            self.client.batch_execute(&sql).await.map_err(failed)?;
        }
        if !settings.create_table && table_oid(&self.client, settings).await?.is_none() {
            return Err(no_table(&self.client, settings).await);
        }
        Ok(())
    }

    /// Waits for the server, but not for ever.
    async fn answer<T>(&self, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        match timeout(ANSWER_WAIT, work).await {
            Ok(result) => result.map_err(|fault| match fault {
                Fault::Retry { cause, after } => Fault::Retry {
                    cause: format!("{cause} (at {})", self.place),
                    after,
                },
                other => other,
            }),
            Err(_) => Err(Fault::retry(format!(
                "{} did not answer for {} s",
                self.place,
                ANSWER_WAIT.as_secs()
            ))),
        }
    }

    /// How far a stream has come.
    pub(super) async fn watermark(
        &mut self,
        settings: &Settings,
        stream: &StreamId,
    ) -> Result<Option<Watermark>, Fault> {
        let table = format!("{}.{WATERMARK_TABLE}", quote(&settings.schema));
        let sql = format!("SELECT seq, position, delivered, counts FROM {table} WHERE stream = $1");
        let name = stream.as_str();
        let values: [&(dyn ToSql + Sync); 1] = [&name];
        let row = self.client.query_opt(&sql, &values);
        let row = self
            .answer(async { row.await.map_err(|error| fault("read the watermark", &error)) })
            .await?;
        let found = row.map(|row| Watermark {
            seq: row.get::<_, i64>(0) as u64,
            position: Position::new(row.get::<_, Vec<u8>>(1)),
            delivered: row.get::<_, i64>(2) as u64,
            counts: Counts::decode(&row.get::<_, Vec<u8>>(3)),
        });
        self.marks.insert(*stream, found.clone().unwrap_or_default());
        Ok(found)
    }

    /// Writes rows and watermarks into the open transaction, which begins with the first delivery.
    pub(super) async fn write(
        &mut self,
        settings: &Settings,
        deliveries: &[Delivery],
    ) -> Result<Vec<flow::Rejected>, Fault> {
        if !self.in_transaction {
            // IMMEDIATE: a deferred constraint would otherwise refuse the commit, when no row can be rejected any more.
            let begin = self.client.batch_execute("BEGIN; SET CONSTRAINTS ALL IMMEDIATE");
            self.answer(async { begin.await.map_err(|error| fault("begin", &error)) })
                .await?;
            self.in_transaction = true;
            self.savepoint = Savepoint::None;
        }
        let mut rejected = Vec::new();
        let mut moved: Vec<(StreamId, u64)> = Vec::new();
        for (index, delivery) in deliveries.iter().enumerate() {
            if !self.marks.contains_key(&delivery.stream) {
                self.watermark(settings, &delivery.stream).await?;
            }
            let before = self.marks.get(&delivery.stream).cloned().unwrap_or_default();
            if delivery.seq <= before.seq {
                return Err(taken(&self.place, &delivery.stream));
            }
            let refused = if delivery.batch.rows() > 0 {
                self.write_delivery(settings, delivery).await?
            } else {
                vec![]
            };
            self.marks
                .insert(delivery.stream, before.after(delivery, refused.len() as u64));
            if !moved.iter().any(|(stream, _)| *stream == delivery.stream) {
                moved.push((delivery.stream, before.seq));
            }
            rejected.extend(refused.into_iter().map(|(row, reason)| flow::Rejected {
                delivery: index,
                row,
                reason,
            }));
        }
        crash_point::at!(PostgresBeforeWatermark);
        for (stream, from) in moved {
            self.move_watermark(settings, &stream, from).await?;
        }
        Ok(rejected)
    }

    async fn write_delivery(
        &mut self,
        settings: &Settings,
        delivery: &Delivery,
    ) -> Result<Vec<(usize, String)>, Fault> {
        let batch = &delivery.batch;
        // Decoded batches bring their own copy of the schema: compared by value, newest first.
        let known = self.plans.iter().rposition(|plan| plan.schema == *batch.schema());
        let plan = match known.map(|known| self.plans.remove(known)) {
            Some(plan) if !plan.is_outgrown_by(batch) => plan,
            _ => self.answer(Plan::make(&self.client, settings, batch)).await?,
        };
        let refused = write_batch(self, settings, &plan, batch).await?;
        if self.plans.len() == PLANS_MAX {
            self.plans.remove(0);
        }
        self.plans.push(plan);
        Ok(refused)
    }

    async fn move_watermark(&mut self, settings: &Settings, stream: &StreamId, from: u64) -> Result<(), Fault> {
        let Some(mark) = self.marks.get(stream) else {
            return Ok(());
        };
        let table = format!("{}.{WATERMARK_TABLE}", quote(&settings.schema));
        // Only from where we believe it to be: a second copy of this daemon cannot write the same records.
        let sql = format!(
            "INSERT INTO {table} AS w (stream, seq, position, delivered, counts) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (stream) DO UPDATE SET seq = EXCLUDED.seq, position = EXCLUDED.position, \
             delivered = EXCLUDED.delivered, counts = EXCLUDED.counts WHERE w.seq = $6"
        );
        let (seq, delivered, counts, from) = (
            mark.seq as i64,
            mark.delivered as i64,
            mark.counts.encode(),
            from as i64,
        );
        let position = mark.position.clone();
        let statement = self.prepare(&sql).await?;
        let name = stream.as_str();
        let values: [&(dyn ToSql + Sync); 6] = [&name, &seq, &position.as_bytes(), &delivered, &counts, &from];
        let changed = self.client.execute(&statement, &values);
        let changed = self
            .answer(async { changed.await.map_err(|error| fault("move the watermark", &error)) })
            .await?;
        if changed == 1 {
            Ok(())
        } else {
            Err(taken(&self.place, stream))
        }
    }

    /// Makes everything written durable.
    pub(super) async fn commit(&mut self) -> Result<(), Fault> {
        if !self.in_transaction {
            return Ok(());
        }
        crash_point::at!(PostgresBeforeCommit);
        // If the answer gets lost nobody knows whether it was done: the watermark, read again, tells.
        let commit = self.client.batch_execute("COMMIT");
        self.answer(async { commit.await.map_err(|error| fault("commit", &error)) })
            .await?;
        crash_point::at!(PostgresAfterCommit);
        self.in_transaction = false;
        Ok(())
    }

    /// A statement, prepared once.
    pub(super) async fn prepare(&mut self, sql: &str) -> Result<Statement, Fault> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let prepared = self.client.prepare(sql);
        let prepared = self
            .answer(async { prepared.await.map_err(|error| fault("write rows", &error)) })
            .await?;
        if self.statements.len() == STATEMENTS_MAX {
            self.statements.clear();
        }
        self.statements.insert(sql.to_string(), prepared.clone());
        Ok(prepared)
    }

    /// Sets a savepoint and runs a statement behind it, both in one trip to the server. `Ok(Err(…))`: it was refused.
    pub(super) async fn execute_behind_savepoint<P: ToSql + Sync>(
        &mut self,
        statement: &Statement,
        values: &[P],
    ) -> Result<Result<u64, tokio_postgres::Error>, Fault> {
        let sql = match self.savepoint {
            Savepoint::None => "SAVEPOINT mycelial",
            Savepoint::Used => "RELEASE SAVEPOINT mycelial; SAVEPOINT mycelial",
            Savepoint::Fresh => "",
        };
        let values = values.iter().map(|value| value as &(dyn ToSql + Sync));
        let work = async {
            // Biased: the requests go out in this order.
            let (set, done) =
                tokio::join!(biased; self.client.batch_execute(sql), self.client.execute_raw(statement, values));
            set?;
            done
        };
        let done = self.answer(async { Ok(work.await) }).await?;
        self.savepoint = Savepoint::Used;
        Ok(done)
    }

    /// Undoes what came after the savepoint.
    pub(super) async fn undo(&mut self) -> Result<(), Fault> {
        let undo = self.client.batch_execute("ROLLBACK TO SAVEPOINT mycelial");
        self.answer(async { undo.await.map_err(|error| fault("undo a refused statement", &error)) })
            .await?;
        self.savepoint = Savepoint::Fresh;
        Ok(())
    }
}

fn taken(place: &str, stream: &StreamId) -> Fault {
    Fault::retry(format!(
        "{place} holds more of {stream} than it is known to: somebody else delivers it too"
    ))
}
