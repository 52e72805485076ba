//! One connection and its open transaction. Anything that fails here ends the session: the server rolls back.

use std::{collections::HashMap, path::Path, sync::Arc};

use bus_schema::id::StreamId;
use flow::{Counts, Delivery, Fault, Position, Watermark};
use mysql_async::{Error, prelude::Queryable};

use super::{
    Settings,
    connect::is_mariadb,
    encode::{bytes_literal, text_literal},
    error::{row_refusal, says_changed},
    link::{Link, answer},
    rows::write_batch,
    table::{Plan, engine, no_table, refuse_engine},
};

/// The table that keeps how far each stream has come.
pub(super) const WATERMARK_TABLE: &str = "_mycelial_watermark";
/// What a statement that writes rows has in front of it, in the same trip to the server.
pub(super) const SAVEPOINT: &str = "SAVEPOINT mycelial;";
/// Schemas whose plans are kept at the same time.
const PLANS_MAX: usize = 8;
/// Bytes of a packet that are left for what stands around the values.
const PACKET_SLACK: usize = 4096;

/// An open connection.
pub(super) struct Session {
    link: Link,
    /// Whether the server is MariaDB.
    pub mariadb: bool,
    /// Longest statement the server takes, in bytes.
    pub statement_max: usize,
    plans: Vec<Arc<Plan>>,
    /// The watermarks as the server has them, or will have them after the commit.
    marks: HashMap<StreamId, Watermark>,
    in_transaction: bool,
}

impl Session {
    /// Connects and makes sure of what must exist.
    pub(super) async fn open(settings: &Settings, base_dir: &Path) -> Result<Self, Fault> {
        let mut session = Self {
            link: Link::open(&settings.server, base_dir).await?,
            mariadb: false,
            statement_max: 0,
            plans: Vec::new(),
            marks: HashMap::new(),
            in_transaction: false,
        };
        session.prepare_database(settings).await?;
        Ok(session)
    }

    async fn prepare_database(&mut self, settings: &Settings) -> Result<(), Fault> {
        let sql = "SELECT VERSION(), @@max_allowed_packet, @@global.innodb_flush_log_at_trx_commit";
        let found: Vec<(String, usize, u64)> = self.rows("look at the server", sql).await?;
        let Some((version, packet, flush)) = found.into_iter().next() else {
            return Err(Fault::retry(format!("{} does not tell its settings", self.link.place)));
        };
        self.mariadb = is_mariadb(&version);
        self.statement_max = packet.saturating_sub(PACKET_SLACK);
        if flush != 1 {
            tracing::warn!(
                server = self.link.place,
                "innodb_flush_log_at_trx_commit is {flush}: what the server says is committed is lost if its machine \
                 fails within a second; only 1 is safe"
            );
        }
        // Looked up first: CREATE TABLE IF NOT EXISTS asks for the right to create even when it has nothing to do.
        if engine(self, WATERMARK_TABLE).await?.is_none() {
            let sql = format!(
                "CREATE TABLE IF NOT EXISTS `{WATERMARK_TABLE}` (stream varchar(128) CHARACTER SET ascii COLLATE ascii_bin \
                 PRIMARY KEY, seq bigint unsigned NOT NULL, position mediumblob NOT NULL, delivered bigint unsigned NOT NULL, \
                 counts blob NOT NULL) ENGINE = InnoDB"
            );
            self.run("create the table of watermarks", &sql).await?;
        }
        for table in [WATERMARK_TABLE, &settings.table] {
            match engine(self, table).await? {
                Some(engine) => refuse_engine(table, &engine)?,
                None if table == settings.table && !settings.create_table => {
                    return Err(no_table(self, &settings.table).await);
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Runs a statement whose result does not matter.
    pub(super) async fn run(&mut self, doing: &str, sql: &str) -> Result<(), Fault> {
        self.link.run(doing, sql).await
    }

    /// The rows of a query.
    pub(super) async fn rows<T>(&mut self, doing: &str, sql: &str) -> Result<Vec<T>, Fault>
    where
        T: mysql_async::prelude::FromRow + Send + 'static,
    {
        self.link.rows(doing, sql).await
    }

    /// Runs a statement that writes rows, which begins with [`SAVEPOINT`]. `Ok(Err(…))`: it was refused, or would have
    /// changed a value, and nothing of it is left.
    pub(super) async fn execute(&mut self, sql: Vec<u8>) -> Result<Result<u64, String>, Fault> {
        if let Err(error) = answer(&self.link.place, self.link.conn.query_drop(sql)).await? {
            // InnoDB has undone the statement. A deadlock undoes the transaction: the session ends.
            return match row_refusal(&error) {
                Some(reason) => Ok(Err(reason)),
                None => Err(self.link.failed("write rows", &error)),
            };
        }
        let changed = self.link.conn.affected_rows();
        if self.link.conn.get_warnings() == 0 {
            return Ok(Ok(changed));
        }
        // Even a strict server lets some losses pass with no more than a note.
        let warnings: Vec<(String, u16, String)> = self.rows("read warnings", "SHOW WARNINGS").await?;
        match warnings.into_iter().find(|(_, code, _)| says_changed(*code)) {
            Some((_, code, message)) => {
                self.run("undo a statement", "ROLLBACK TO SAVEPOINT mycelial").await?;
                Ok(Err(format!("{message} [{code}]")))
            }
            None => Ok(Ok(changed)),
        }
    }

    /// How far a stream has come.
    pub(super) async fn watermark(&mut self, stream: &StreamId) -> Result<Option<Watermark>, Fault> {
        let sql = format!(
            "SELECT seq, position, delivered, counts FROM `{WATERMARK_TABLE}` WHERE stream = {}",
            text_literal(stream.as_str())
        );
        let rows: Vec<(u64, Vec<u8>, u64, Vec<u8>)> = self.rows("read the watermark", &sql).await?;
        let found = rows
            .into_iter()
            .next()
            .map(|(seq, position, delivered, counts)| Watermark {
                seq,
                position: Position::new(position),
                delivered,
                counts: Counts::decode(&counts),
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
        // All tables are made fit before the first row: such statements commit what is open, and rows must not be committed
        // without their watermark.
        let mut plans = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            plans.push(match delivery.batch.rows() {
                0 => None,
                _ => Some(self.plan(settings, delivery).await?),
            });
        }
        if !self.in_transaction {
            self.run("begin", "START TRANSACTION").await?;
            self.in_transaction = true;
        }
        let mut rejected = Vec::new();
        let mut moved: Vec<(StreamId, u64)> = Vec::new();
        for (index, (delivery, plan)) in deliveries.iter().zip(plans).enumerate() {
            if !self.marks.contains_key(&delivery.stream) {
                self.watermark(&delivery.stream).await?;
            }
            let before = self.marks.get(&delivery.stream).cloned().unwrap_or_default();
            if delivery.seq <= before.seq {
                return Err(taken(&self.link.place, &delivery.stream));
            }
            let refused = match plan {
                Some(plan) => write_batch(self, settings, &plan, &delivery.batch).await?,
                None => vec![],
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
        for (stream, from) in moved {
            self.move_watermark(&stream, from).await?;
        }
        Ok(rejected)
    }

    async fn plan(&mut self, settings: &Settings, delivery: &Delivery) -> Result<Arc<Plan>, Fault> {
        let batch = &delivery.batch;
        // Decoded batches bring their own copy of the schema: compared by value, newest first.
        let known = self.plans.iter().rposition(|plan| plan.schema == *batch.schema());
        if let Some(known) = known {
            let plan = self.plans.remove(known);
            if !plan.is_outgrown_by(batch) {
                self.plans.push(Arc::clone(&plan));
                return Ok(plan);
            }
        }
        // What was written before is complete with its watermarks: it may be committed by what comes now, which a
        // transaction cannot hold anyway.
        self.commit().await?;
        let plan = Arc::new(Plan::make(self, settings, batch).await?);
        if self.plans.len() >= PLANS_MAX {
            self.plans.remove(0);
        }
        self.plans.push(Arc::clone(&plan));
        Ok(plan)
    }

    async fn move_watermark(&mut self, stream: &StreamId, from: u64) -> Result<(), Fault> {
        let Some(mark) = self.marks.get(stream) else {
            return Ok(());
        };
        let (name, position) = (text_literal(stream.as_str()), bytes_literal(mark.position.as_bytes()));
        let (seq, delivered, counts) = (mark.seq, mark.delivered, bytes_literal(&mark.counts.encode()));
        // Only from where we believe it to be: a second copy of this daemon cannot write the same records.
        let sql = match from {
            0 => format!(
                "INSERT INTO `{WATERMARK_TABLE}` (stream, seq, position, delivered, counts) \
                 VALUES ({name}, {seq}, {position}, {delivered}, {counts})"
            ),
            _ => format!(
                "UPDATE `{WATERMARK_TABLE}` SET seq = {seq}, position = {position}, delivered = {delivered}, \
                 counts = {counts} WHERE stream = {name} AND seq = {from}"
            ),
        };
        match answer(&self.link.place, self.link.conn.query_drop(sql)).await? {
            Ok(()) if self.link.conn.affected_rows() == 1 => Ok(()),
            Ok(()) => Err(taken(&self.link.place, stream)),
            Err(Error::Server(error)) if error.code == DUPLICATE => Err(taken(&self.link.place, stream)),
            Err(error) => Err(self.link.failed("move the watermark", &error)),
        }
    }

    /// Makes everything written durable.
    pub(super) async fn commit(&mut self) -> Result<(), Fault> {
        if self.in_transaction {
            // If the answer gets lost nobody knows whether it was done: the watermark, read again, tells.
            self.run("commit", "COMMIT").await?;
            self.in_transaction = false;
        }
        Ok(())
    }
}

/// A key that is there already.
const DUPLICATE: u16 = 1062;

fn taken(place: &str, stream: &StreamId) -> Fault {
    Fault::retry(format!(
        "{place} holds more of {stream} than it is known to: somebody else delivers it too"
    ))
}
