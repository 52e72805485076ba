//! Reads a table as it is and then every change of it, from the binary log.
//!
//! The snapshot is read in a transaction of which it is known where in the log it is: what the snapshot does not have, the log
//! has after that place. A snapshot that is interrupted goes on after the last key, at a later moment, while the log is still
//! read from the first one on: until the later moment, changes are upserts by key, so that what is there already is only
//! written once more. The place is stored with the records, and nowhere on the server.

use std::{path::PathBuf, time::Duration};

use async_trait::async_trait;
use flow::{Fault, Position, READ_WAIT_MAX, Read, Source, SourceBatch, Trouble};
use tokio::time::Instant;

use super::{
    check,
    connect::Server,
    cursor::read_page,
    dump::{Dump, gone},
    encode::text_literal,
    layout::{Layout, Subject, TableInfo, prepare},
    link::Link,
    log::{self, Locks},
    mark::{At, Mark, Place},
    statement::Table,
    stream::Stream,
};
use crate::reach::as_trouble;

/// Makes another replica's number of a source's own.
const CHECK_ID: u32 = 1 << 30;

/// What the config says, checked.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub server: Server,
    pub table: String,
    /// What the server knows us by among its replicas.
    pub server_id: u32,
    /// Begin with the rows there are.
    pub snapshot: bool,
    pub rows_max: usize,
    pub heartbeat: Duration,
    /// Begin the snapshot under a lock, whatever the server knows.
    pub locks: bool,
}

/// The source.
pub(super) struct ChangesSource {
    settings: Settings,
    base_dir: PathBuf,
    stage: Stage,
    /// The table, once it is known what its database is called.
    table: Option<Table>,
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
    link: Link,
    layout: Layout,
    mark: Mark,
    /// After the last row.
    place: Option<Vec<String>>,
    row_bytes: Option<usize>,
    /// The last row has been read.
    is_done: bool,
}

impl ChangesSource {
    pub(super) fn new(settings: Settings, base_dir: PathBuf) -> Self {
        Self {
            settings,
            base_dir,
            stage: Stage::Closed,
            table: None,
            beat: Instant::now(),
        }
    }

    async fn link(&self) -> Result<Link, Fault> {
        let mut link = Link::open(&self.settings.server, &self.base_dir).await?;
        prepare(&mut link).await?;
        Ok(link)
    }

    async fn dump(&self, from: &Place) -> Result<Dump, Fault> {
        Dump::open(&self.settings.server, &self.base_dir, self.settings.server_id, from).await
    }

    async fn layout(&self, link: &mut Link) -> Result<Layout, Fault> {
        Layout::load(link, &Subject::Table(self.settings.table.clone()), None).await
    }

    /// The table, if its changes can be read.
    async fn find_table(&self, link: &mut Link) -> Result<Table, Fault> {
        let sql = "SELECT DATABASE(), @@lower_case_table_names";
        let found: Vec<(String, u8)> = link.rows("look at the server", sql).await?;
        let (database, cases) = found.into_iter().next().unwrap_or_default();
        log::check(link, &database).await?;
        let name = &self.settings.table;
        let info = TableInfo::load(link, name).await?;
        let cause = if info.keys.is_view {
            "is a view, and only its tables change: name one of them"
        } else if !info.keys.has_primary_key {
            "has no primary key, by which changes would find their rows: give it one, or use mode = \"cursor\""
        } else {
            tell_of_cascades(link, name).await?;
            return Ok(Table {
                database,
                name: name.clone(),
                is_caseless: cases > 0,
            });
        };
        Err(Fault::retry(format!("the table {name} {cause} (at {})", link.place)))
    }

    /// The first time: begins with the snapshot, and at its place in the log.
    async fn begin(&self, mut link: Link, table: &Table) -> Result<Stage, Fault> {
        if !self.settings.snapshot {
            let place = log::end(&mut link).await?;
            let dump = self.dump(&place).await?;
            let mark = self.first_mark(&dump, table, place)?;
            return Ok(self.stream(dump, table, mark));
        }
        // Before anything else: the key has to be one that can be read by.
        self.layout(&mut link).await?;
        let knows_places = !self.settings.locks && log::knows_places(&mut link).await?;
        let place = match knows_places {
            true => log::begin_at_place(&mut link, &table.name, Locks::No).await?,
            false => {
                let mut other = Link::open(&self.settings.server, &self.base_dir).await?;
                log::begin_at_place(&mut link, &table.name, Locks::By(&mut other)).await?
            }
        };
        let layout = self.layout(&mut link).await?;
        // Now, because a snapshot may take hours: whether the log may be read, and which file that is.
        let dump = self.dump(&place).await?;
        let mark = self.first_mark(&dump, table, place)?;
        dump.close().await;
        Ok(Stage::Snapshot(Box::new(Snapshot {
            link,
            layout,
            mark,
            place: None,
            row_bytes: None,
            is_done: false,
        })))
    }

    fn first_mark(&self, dump: &Dump, table: &Table, place: Place) -> Result<Mark, Fault> {
        let made = dump
            .made
            .ok_or_else(|| Fault::retry("the server did not say what its log is"))?;
        Ok(Mark {
            table: full_name(table),
            made,
            place,
            settled: None,
            at: At::Stream { changes: 0 },
            prepared: Vec::new(),
        })
    }

    /// Goes on with a snapshot, as the table is now.
    async fn resume(&self, mut link: Link, mark: Mark, place: Vec<String>) -> Result<Stage, Fault> {
        let begin = "START TRANSACTION WITH CONSISTENT SNAPSHOT";
        link.run("begin the snapshot", begin).await?;
        // Asked after the transaction has its snapshot: what that has was logged before.
        let settled = log::end(&mut link).await?;
        let layout = self.layout(&mut link).await?;
        if layout.cursor.len() != place.len() {
            return Err(Fault::stop(
                "the primary key was changed while the snapshot was being read: give the node another name to start over",
            ));
        }
        Ok(Stage::Snapshot(Box::new(Snapshot {
            link,
            layout,
            mark: Mark {
                settled: Some(settled),
                ..mark
            },
            place: Some(place),
            row_bytes: None,
            is_done: false,
        })))
    }

    /// Reads the log from `mark` on.
    async fn follow(&self, table: &Table, mark: Mark) -> Result<Stage, Fault> {
        let dump = self.dump(&mark.place).await?;
        if dump.made != Some(mark.made) {
            let file = &mark.place.file;
            return Err(Fault::stop(format!(
                "the file {file} of the binary log is another one than it was: the log was reset, or this is another server. \
                 Give the node another name to begin with a new snapshot"
            )));
        }
        Ok(self.stream(dump, table, mark))
    }

    fn stream(&self, dump: Dump, table: &Table, mark: Mark) -> Stage {
        let place = (self.settings.server.clone(), self.base_dir.clone());
        Stage::Stream(Box::new(Stream::new(
            dump,
            place,
            table.clone(),
            mark,
            self.settings.rows_max,
        )))
    }
}

/// What the server changes in a table because of another one's rows is not in its log.
async fn tell_of_cascades(link: &mut Link, table: &str) -> Result<(), Fault> {
    let sql = format!(
        "SELECT CONSTRAINT_NAME FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = DATABASE() \
         AND TABLE_NAME = {} AND (DELETE_RULE IN ('CASCADE', 'SET NULL') OR UPDATE_RULE IN ('CASCADE', 'SET NULL'))",
        text_literal(table)
    );
    let found: Vec<String> = link.rows("look at the foreign keys", &sql).await?;
    if !found.is_empty() {
        tracing::warn!(
            table,
            constraints = found.join(", "),
            "rows that the server deletes or changes because of these foreign keys are not in its log, and will not be \
             delivered: use ON DELETE RESTRICT, and let programs delete such rows first"
        );
    }
    Ok(())
}

fn full_name(table: &Table) -> String {
    format!("{}.{}", table.database, table.name)
}

/// The log of a source that has read before has to have what comes next.
async fn check_place(link: &mut Link, place: &Place) -> Result<(), Fault> {
    let files = log::files(link).await?;
    let cause = match files.iter().find(|(name, _)| *name == place.file) {
        None => format!("its file {} has been purged", place.file),
        Some((_, size)) if *size < place.offset => {
            format!("its file {} ends at {size}, before {}", place.file, place.offset)
        }
        Some(_) => return Ok(()),
    };
    Err(Fault::stop(gone(&link.place, &cause)))
}

#[async_trait]
impl Source for ChangesSource {
    async fn open(&mut self, after: Option<&Position>) -> Result<(), Fault> {
        self.close().await;
        let mut link = self.link().await?;
        let table = self.find_table(&mut link).await?;
        let name = full_name(&table);
        let mark = after.map(|position| Mark::from_position(position, &name)).transpose()?;
        self.stage = match mark {
            None => self.begin(link, &table).await?,
            Some(mark) => {
                check_place(&mut link, &mark.place).await?;
                match mark.at.clone() {
                    At::Snapshot(place) => self.resume(link, mark, place).await?,
                    At::Stream { .. } => self.follow(&table, mark).await?,
                }
            }
        };
        self.table = Some(table);
        self.beat = Instant::now();
        Ok(())
    }

    async fn read(&mut self) -> Result<Read, Fault> {
        if matches!(&self.stage, Stage::Snapshot(snapshot) if snapshot.is_done)
            && let Stage::Snapshot(snapshot) = std::mem::replace(&mut self.stage, Stage::Closed)
            && let Some(table) = &self.table
        {
            let Snapshot { mut link, mark, .. } = *snapshot;
            link.run("end the snapshot", "COMMIT").await?;
            drop(link);
            self.stage = self.follow(table, mark).await?;
            tracing::info!(
                table = self.settings.table,
                "the snapshot has been read; changes follow"
            );
        }
        let stream = match &mut self.stage {
            Stage::Closed => return Err(Fault::retry("the mysql source is not open")),
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
        // Nothing of this table, but the log goes on: a batch without records takes the place to the destinations, so that it
        // is not in a file that the server has purged meanwhile.
        let is_time = self.beat.elapsed() >= self.settings.heartbeat;
        if !is_time || !stream.idle_place() {
            return Ok(Read::Idle);
        }
        self.beat = Instant::now();
        Ok(Read::Batch(SourceBatch {
            batch: stream.empty()?,
            position: stream.mark.position(),
            undecodable: Vec::new(),
        }))
    }

    async fn check(&mut self) -> Result<String, Trouble> {
        let mut link = check::connect(&self.settings.server, &self.base_dir).await?;
        check::has_table(&mut link, &self.settings.table).await?;
        drop(link);
        // Under another number, because the server ends the log of whoever has the same; and without a snapshot nothing is locked.
        let settings = Settings {
            server_id: (self.settings.server_id ^ CHECK_ID).max(1),
            snapshot: false,
            ..self.settings.clone()
        };
        let mut other = Self::new(settings, self.base_dir.clone());
        let opened = other.open(None).await;
        other.close().await;
        opened.map_err(|fault| as_trouble(&fault))?;
        Ok(format!(
            "the changes of the table '{}' can be read",
            self.settings.table
        ))
    }

    async fn close(&mut self) {
        if let Stage::Stream(stream) = std::mem::replace(&mut self.stage, Stage::Closed) {
            stream.close().await;
        }
    }
}

impl Snapshot {
    /// The next rows; with the last, and if there are none, the place where the log goes on.
    async fn read(&mut self, rows_max: usize) -> Result<SourceBatch, Fault> {
        let after = self.place.as_deref();
        let read = read_page(&mut self.link, &self.layout, after, None, rows_max, self.row_bytes).await?;
        self.row_bytes = read.page.row_bytes().or(self.row_bytes);
        if let Some(place) = read.place {
            self.mark.at = At::Snapshot(place.clone());
            self.place = Some(place);
        }
        if !read.has_more {
            self.mark.at = At::Stream { changes: 0 };
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
