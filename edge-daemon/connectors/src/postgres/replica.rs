//! Reads a table as it is and then every change of it, from a logical replication slot.
//!
//! The slot and the snapshot are made at the same moment: what the snapshot does not have, the slot sends. A snapshot that is
//! interrupted goes on after the last key, at a later moment, while the slot still sends everything since the first: until
//! the later moment, changes are upserts by key, so that what is there already is only written once more. The server is told
//! to forget changes when every destination has them, and not before.

use std::{path::PathBuf, time::Duration};

use async_trait::async_trait;
use flow::{Fault, Position, READ_WAIT_MAX, Read, Source, SourceBatch, Trouble};
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

use super::{
    check,
    connect::Server,
    cursor::read_page,
    error::fault,
    layout::{Layout, PAGE_SETTINGS, READ_SETTINGS, Subject, TableInfo, VALUE_SETTINGS},
    slot::{self, At, Mark},
    stream::Stream,
    walsender::{Feed, Lsn, WalSender},
};

/// The server takes a moment to notice that the connection before has ended: how often to ask for the slot, and how long
/// to wait in between.
const SLOT_TRIES: u32 = 20;
const SLOT_PAUSE: Duration = Duration::from_millis(100);

/// What the config says, checked.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub server: Server,
    pub schema: String,
    pub table: String,
    pub slot: String,
    pub publication: String,
    /// Begin with the rows there are.
    pub snapshot: bool,
    pub rows_max: usize,
    pub heartbeat: Duration,
}

/// The source.
pub(super) struct ReplicaSource {
    settings: Settings,
    base_dir: PathBuf,
    name: String,
    stage: Stage,
    /// When a place was last given out.
    beat: Instant,
}

enum Stage {
    Closed,
    Snapshot(Box<Snapshot>),
    Stream(Box<Stream>),
}

/// A snapshot that is being read.
struct Snapshot {
    /// In a transaction that sees the snapshot.
    client: Client,
    layout: Layout,
    mark: Mark,
    /// After the last row.
    place: Option<Vec<String>>,
    row_bytes: Option<usize>,
    /// The last row has been read.
    is_done: bool,
}

impl ReplicaSource {
    pub(super) fn new(settings: Settings, base_dir: PathBuf, name: String) -> Self {
        Self {
            settings,
            base_dir,
            name,
            stage: Stage::Closed,
            beat: Instant::now(),
        }
    }

    async fn sender(&self) -> Result<WalSender, Fault> {
        let mut sender = WalSender::connect(&self.settings.server, &self.base_dir, &self.name).await?;
        sender.query(VALUE_SETTINGS).await?;
        Ok(sender)
    }

    async fn client(&self) -> Result<Client, Fault> {
        let (client, _) = self.settings.server.connect(&self.base_dir, &self.name).await?;
        let failed = |error| fault("prepare for reading", &error);
        client.batch_execute(VALUE_SETTINGS).await.map_err(failed)?;
        Ok(client)
    }

    async fn publish(&self, client: &Client) -> Result<(), Fault> {
        let Settings {
            publication,
            schema,
            table,
            ..
        } = &self.settings;
        slot::publish(client, publication, schema, table).await
    }

    fn subject(&self) -> Subject {
        Subject::Table {
            schema: self.settings.schema.clone(),
            table: self.settings.table.clone(),
        }
    }

    /// The first time: makes the slot, and begins with the snapshot at the moment the slot begins.
    async fn begin(&self, client: Client) -> Result<Stage, Fault> {
        let Settings { slot, snapshot, .. } = &self.settings;
        let found = slot::find(&client, slot).await?;
        let mark = |lsn| Mark {
            slot: slot.clone(),
            lsn,
            settled: 0,
            at: At::Stream { xid: 0, changes: 0 },
        };
        if !snapshot {
            self.publish(&client).await?;
            let lsn = match found {
                Some(found) => found.confirmed,
                None => slot::make(&mut self.sender().await?, slot, false).await?.lsn,
            };
            return self.stream(client, mark(lsn)).await;
        }
        // Before anything is made: the table has to have a key.
        Layout::load(&client, &self.subject(), None, false).await?;
        self.publish(&client).await?;
        if found.is_some() {
            tracing::warn!(
                slot,
                "dropping a slot of which nothing was ever delivered, to begin with a snapshot"
            );
            slot::drop(&client, slot).await?;
        }
        let mut sender = self.sender().await?;
        let made = slot::make(&mut sender, slot, true).await?;
        let snapshot = made.snapshot.unwrap_or_default().replace('\'', "");
        begin_transaction(&client, &format!("SET TRANSACTION SNAPSHOT '{snapshot}'")).await?;
        // From here on the transaction holds the snapshot.
        sender.end().await;
        let layout = Layout::load(&client, &self.subject(), None, false).await?;
        Ok(Stage::Snapshot(Box::new(Snapshot {
            client,
            layout,
            mark: mark(made.lsn),
            place: None,
            row_bytes: None,
            is_done: false,
        })))
    }

    /// Goes on with a snapshot, as the table is now.
    async fn resume(&self, client: Client, mark: Mark, place: Vec<String>) -> Result<Stage, Fault> {
        begin_transaction(&client, "").await?;
        // Computed after the transaction has its snapshot: what that has was logged before.
        let row = client.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await;
        let row = row.map_err(|error| fault("see how far the log is", &error))?;
        let settled =
            Lsn::parse(row.get(0)).ok_or_else(|| Fault::retry("the server did not say how far its log is"))?;
        let layout = Layout::load(&client, &self.subject(), None, false).await?;
        if layout.cursor.len() != place.len() {
            return Err(Fault::stop(
                "the primary key was changed while the snapshot was being read: give the node another name to start over",
            ));
        }
        Ok(Stage::Snapshot(Box::new(Snapshot {
            client,
            layout,
            mark: Mark {
                settled: settled.0,
                ..mark
            },
            place: Some(place),
            row_bytes: None,
            is_done: false,
        })))
    }

    /// Lets the slot send what comes after `mark`.
    async fn stream(&self, client: Client, mark: Mark) -> Result<Stage, Fault> {
        let Settings {
            schema,
            table,
            slot,
            publication,
            ..
        } = &self.settings;
        let info = TableInfo::load(&client, schema, table).await?;
        let primary_key = info.keys.primary().unwrap_or_default().to_vec();
        let feed = self.feed(slot, publication, mark.lsn).await?;
        let table = (schema.as_str(), table.as_str());
        let stream = Stream::new(feed, client, table, primary_key, mark, self.settings.rows_max);
        Ok(Stage::Stream(Box::new(stream)))
    }

    async fn feed(&self, slot: &str, publication: &str, lsn: u64) -> Result<Feed, Fault> {
        let mut tries = 1;
        loop {
            match self.sender().await?.start(slot, publication, lsn).await {
                // In use (55006): by ourselves, a moment ago, or by somebody else.
                Err(fault) if tries < SLOT_TRIES && fault.to_string().contains("[55006]") => tries += 1,
                done => return done,
            }
            sleep(SLOT_PAUSE).await;
        }
    }

    /// The slot of a source that has read before has to have what comes next.
    async fn check_slot(&self, client: &Client, mark: &Mark) -> Result<(), Fault> {
        let slot = &self.settings.slot;
        let new = "give the node another name to begin with a new snapshot";
        match slot::find(client, slot).await? {
            None => Err(Fault::stop(format!(
                "the slot '{slot}' is gone, and with it what was changed since: {new}"
            ))),
            Some(found) if found.confirmed > mark.lsn => Err(Fault::stop(format!(
                "the slot '{slot}' has been moved to {}, past what was delivered (to {}): what was changed in between is \
                 lost for it; {new}",
                Lsn(found.confirmed),
                Lsn(mark.lsn)
            ))),
            Some(_) => Ok(()),
        }
    }
}

/// Begins the transaction that a snapshot is read in. While nobody takes what was read, it ends by itself: who wants to
/// change the table has to wait for it, and others for him.
async fn begin_transaction(client: &Client, first: &str) -> Result<(), Fault> {
    let sql = format!(
        "{READ_SETTINGS}; {PAGE_SETTINGS}; SET idle_in_transaction_session_timeout = '60s'; \
         BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {first}"
    );
    let begun = client.batch_execute(&sql).await;
    begun.map_err(|error| fault("begin the snapshot", &error))
}

#[async_trait]
impl Source for ReplicaSource {
    async fn open(&mut self, after: Option<&Position>) -> Result<(), Fault> {
        self.close().await;
        let settings = &self.settings;
        let mark = after
            .map(|position| Mark::from_position(position, &settings.slot))
            .transpose()?;
        let client = self.client().await?;
        self.stage = match mark {
            None => self.begin(client).await?,
            Some(mark) => {
                self.check_slot(&client, &mark).await?;
                self.publish(&client).await?;
                match mark.at.clone() {
                    At::Snapshot(place) => self.resume(client, mark, place).await?,
                    At::Stream { .. } => self.stream(client, mark).await?,
                }
            }
        };
        self.beat = Instant::now();
        Ok(())
    }

    async fn read(&mut self) -> Result<Read, Fault> {
        if matches!(&self.stage, Stage::Snapshot(snapshot) if snapshot.is_done)
            && let Stage::Snapshot(snapshot) = std::mem::replace(&mut self.stage, Stage::Closed)
        {
            let Snapshot { client, mark, .. } = *snapshot;
            let ended = client.batch_execute("COMMIT").await;
            ended.map_err(|error| fault("end the snapshot", &error))?;
            self.stage = self.stream(client, mark).await?;
            tracing::info!(
                table = self.settings.table,
                "the snapshot has been read; changes follow"
            );
        }
        let stream = match &mut self.stage {
            Stage::Closed => return Err(Fault::retry("the postgres source is not open")),
            Stage::Snapshot(snapshot) => return snapshot.read(self.settings.rows_max).await.map(Read::Batch),
            Stage::Stream(stream) => stream,
        };
        if let Some(page) = stream.read(Instant::now() + READ_WAIT_MAX).await? {
            self.beat = Instant::now();
            let (batch, undecodable) = page.batch().map_err(Fault::stop)?;
            return Ok(Read::Batch(SourceBatch {
                batch,
                position: stream.mark.position(),
                undecodable,
            }));
        }
        // Nothing of this table, but the log goes on: a batch without records takes the place to the destinations, and only
        // when they have it may the server forget what is before.
        let is_time = self.beat.elapsed() >= self.settings.heartbeat;
        let Some(place) = is_time.then(|| stream.idle_place()).flatten() else {
            return Ok(Read::Idle);
        };
        stream.mark.lsn = place;
        stream.mark.at = At::Stream { xid: 0, changes: 0 };
        self.beat = Instant::now();
        Ok(Read::Batch(SourceBatch {
            batch: stream.empty()?,
            position: stream.mark.position(),
            undecodable: Vec::new(),
        }))
    }

    async fn commit(&mut self, position: &Position) -> Result<(), Fault> {
        if let Stage::Stream(stream) = &self.stage {
            // Never within a transaction: the place is the end of the last one that was delivered whole.
            stream
                .feed
                .confirm(Mark::from_position(position, &self.settings.slot)?.lsn);
        }
        Ok(())
    }

    async fn check(&mut self) -> Result<String, Trouble> {
        check::replica(&self.settings, &self.base_dir, &self.name).await
    }

    async fn close(&mut self) {
        if let Stage::Stream(stream) = std::mem::replace(&mut self.stage, Stage::Closed) {
            stream.feed.close().await;
        }
    }
}

impl Snapshot {
    /// The next rows; with the last, and if there are none, the place where the stream begins.
    async fn read(&mut self, rows_max: usize) -> Result<SourceBatch, Fault> {
        let after = self.place.as_deref();
        let read = read_page(&self.client, &self.layout, after, None, rows_max, self.row_bytes).await?;
        self.row_bytes = read.page.row_bytes().or(self.row_bytes);
        if let Some(place) = read.place {
            self.mark.at = At::Snapshot(place.clone());
            self.place = Some(place);
        }
        if !read.has_more {
            self.mark.at = At::Stream { xid: 0, changes: 0 };
            self.is_done = true;
        }
        let (batch, undecodable) = read.page.batch().map_err(Fault::stop)?;
        Ok(SourceBatch {
            batch,
            position: self.mark.position(),
            undecodable,
        })
    }
}
