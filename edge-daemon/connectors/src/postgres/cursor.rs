//! Reads the rows of a table or query in the order of a cursor, and goes on reading as rows come. Never writes.
//!
//! Transactions commit in another order than that in which they take numbers and times. So rows are read up to a *last* one
//! that is looked for first; then it is waited until every transaction has ended that was writing to the table at that
//! moment. What begins to write later takes higher values, and what had lower ones is there to be seen.

use std::{path::PathBuf, time::Duration};

use async_trait::async_trait;
use bus_schema::{data::Op, limits::BATCH_BYTES_TARGET};
use flow::{Fault, Position, READ_WAIT_MAX, Read, Source, SourceBatch, Trouble};
use futures_util::StreamExt as _;
use tokio::time::{Instant, sleep_until};
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use super::{
    bookmark::{Bookmark, PLACE_BYTES_MAX},
    check,
    connect::Server,
    error::fault,
    form::Form,
    layout::{Layout, PAGE_SETTINGS, READ_SETTINGS, Subject, VALUE_SETTINGS},
    page::{Page, Slot},
};

/// Rows asked for while nothing is known of their size.
const FIRST_ROWS: usize = 256;
/// How soon to look again whether writers have ended.
const WRITERS_PAUSE: Duration = Duration::from_millis(50);
/// Writers that take longer than this are named in the log.
const WRITERS_WAIT: Duration = Duration::from_secs(60);

/// What the config says, checked.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub server: Server,
    pub subject: Subject,
    pub cursor: Option<Vec<String>>,
    pub rows_max: usize,
    pub poll_interval: Duration,
    pub delay_ms: u64,
}

/// The source.
pub(super) struct CursorSource {
    settings: Settings,
    base_dir: PathBuf,
    name: String,
    reader: Option<Box<Reader>>,
}

/// An open connection and how far it has read.
struct Reader {
    client: Client,
    layout: Layout,
    bookmark: Bookmark,
    /// Rows that are to be read before it is looked for more.
    pass: Option<Pass>,
    /// About how many bytes a row has.
    row_bytes: Option<usize>,
    next_look: Instant,
}

/// Rows up to a certain one.
struct Pass {
    last: Vec<String>,
    /// Transactions that may still commit rows before it.
    writers: Vec<String>,
    begun: Instant,
    is_told: bool,
}

impl CursorSource {
    pub(super) fn new(settings: Settings, base_dir: PathBuf, name: String) -> Self {
        Self {
            settings,
            base_dir,
            name,
            reader: None,
        }
    }
}

#[async_trait]
impl Source for CursorSource {
    async fn open(&mut self, after: Option<&Position>) -> Result<(), Fault> {
        self.close().await;
        let reader = Reader::open(&self.settings, &self.base_dir, &self.name, after).await?;
        self.reader = Some(Box::new(reader));
        Ok(())
    }

    async fn read(&mut self) -> Result<Read, Fault> {
        let give_up = Instant::now() + READ_WAIT_MAX;
        let not_open = || Fault::retry("the postgres source is not open");
        let reader = self.reader.as_mut().ok_or_else(not_open)?;
        loop {
            sleep_until(reader.next_look.min(give_up)).await;
            if reader.next_look > Instant::now() {
                return Ok(Read::Idle);
            }
            if let Some(batch) = reader.poll(&self.settings).await? {
                return Ok(Read::Batch(batch));
            }
        }
    }

    async fn check(&mut self) -> Result<String, Trouble> {
        check::cursor(&self.settings, &self.base_dir, &self.name).await
    }

    async fn close(&mut self) {
        // The connection says goodbye by itself when nobody holds it any more.
        self.reader = None;
    }
}

impl Reader {
    async fn open(
        settings: &Settings,
        base_dir: &std::path::Path,
        name: &str,
        after: Option<&Position>,
    ) -> Result<Self, Fault> {
        let (client, place) = settings.server.connect(base_dir, name).await?;
        let failed = |error| fault("prepare for reading", &error);
        client.batch_execute(VALUE_SETTINGS).await.map_err(failed)?;
        client.batch_execute(READ_SETTINGS).await.map_err(failed)?;
        if matches!(settings.subject, Subject::Table { .. }) {
            client.batch_execute(PAGE_SETTINGS).await.map_err(failed)?;
        }
        let layout = Layout::load(&client, &settings.subject, settings.cursor.as_deref(), true).await?;
        if settings.delay_ms > 0 && !layout.by_time {
            return Err(Fault::stop(format!(
                "delay_ms needs a cursor that begins with a timestamptz column, which '{}' is not: only of an instant \
                 can it be said how long ago it was",
                layout.cursor[0]
            )));
        }
        let is_standby: bool = client
            .query_one("SELECT pg_is_in_recovery()", &[])
            .await
            .map_err(failed)?
            .get(0);
        if is_standby && settings.delay_ms == 0 {
            tracing::warn!(
                place,
                "this is a standby, which does not know who is writing: rows of transactions that commit late may be missed unless delay_ms is set"
            );
        }
        if layout.nullable && settings.cursor.is_some() {
            let (table, cursor) = (&layout.schema.collection, layout.cursor.join(", "));
            tracing::info!(place, table, cursor, "rows where the cursor is NULL are left out");
        }
        let bookmark = match after {
            Some(position) => Bookmark::from_position(position, &layout.cursor, "postgres")?,
            None => Bookmark {
                cursor: layout.cursor.clone(),
                place: None,
            },
        };
        Ok(Self {
            client,
            layout,
            bookmark,
            pass: None,
            row_bytes: None,
            next_look: Instant::now(),
        })
    }

    /// The next rows, or `None` when there are none now; then `next_look` says when to ask again.
    async fn poll(&mut self, settings: &Settings) -> Result<Option<SourceBatch>, Fault> {
        let mut pass = match self.pass.take() {
            Some(pass) => pass,
            None => match self.begin_pass(settings).await? {
                Some(pass) => pass,
                None => {
                    self.next_look = Instant::now() + settings.poll_interval;
                    return Ok(None);
                }
            },
        };
        if !pass.writers.is_empty() {
            pass.writers = writers(&self.client, self.layout.table, Some(&pass.writers)).await?;
        }
        if pass.writers.is_empty() {
            return self.page(pass, settings.rows_max).await;
        }
        if pass.begun.elapsed() > WRITERS_WAIT && !std::mem::replace(&mut pass.is_told, true) {
            let (table, seconds) = (&self.layout.schema.collection, pass.begun.elapsed().as_secs());
            tracing::warn!(
                table, seconds, transactions = ?pass.writers,
                "new rows wait for transactions that have been writing all the while and may commit rows before them (pg_locks.virtualtransaction)"
            );
        }
        self.pass = Some(pass);
        self.next_look = Instant::now() + WRITERS_PAUSE;
        Ok(None)
    }

    /// Looks whether there is anything to read, and up to where.
    async fn begin_pass(&mut self, settings: &Settings) -> Result<Option<Pass>, Fault> {
        let sql = self.layout.last(self.bookmark.place.as_deref(), settings.delay_ms);
        let found = self.client.simple_query(&sql).await;
        let found = found.map_err(|error| fault("look for new rows", &error))?;
        let last = found.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let Some(last) = last else {
            return Ok(None);
        };
        let last = place_of(last, 0..self.layout.cursor.len(), &self.layout)?;
        // After that: who was writing when the last row was taken is still at it, or has ended and can be seen.
        let writers = writers(&self.client, self.layout.table, None).await?;
        // Columns may have come and gone.
        let layout = Layout::load(&self.client, &settings.subject, settings.cursor.as_deref(), true).await?;
        if layout.cursor != self.layout.cursor {
            return Err(Fault::retry("the key of the table has changed: opening it again"));
        }
        self.layout = layout;
        Ok(Some(Pass {
            last,
            writers,
            begun: Instant::now(),
            is_told: false,
        }))
    }

    /// One batch of the rows of a pass.
    async fn page(&mut self, pass: Pass, rows_max: usize) -> Result<Option<SourceBatch>, Fault> {
        let after = self.bookmark.place.as_deref();
        let read = read_page(
            &self.client,
            &self.layout,
            after,
            Some(&pass.last),
            rows_max,
            self.row_bytes,
        )
        .await?;
        self.next_look = Instant::now();
        if read.has_more {
            self.pass = Some(pass);
        }
        self.row_bytes = read.page.row_bytes().or(self.row_bytes);
        if read.page.is_empty() {
            // The rows of the pass have been deleted, or moved on, since.
            return Ok(None);
        }
        self.bookmark.place = read.place;
        let (batch, undecodable) = read.page.batch().map_err(Fault::stop)?;
        Ok(Some(SourceBatch {
            batch,
            position: self.bookmark.position(),
            undecodable,
        }))
    }
}

/// Rows that were read, and where they end.
pub(super) struct PageRead {
    pub page: Page<Form>,
    pub place: Option<Vec<String>>,
    /// There may be more rows.
    pub has_more: bool,
}

/// Reads as many rows after `after`, up to and with `last`, as make a batch.
pub(super) async fn read_page(
    client: &Client,
    layout: &Layout,
    after: Option<&[String]>,
    last: Option<&[String]>,
    rows_max: usize,
    row_bytes: Option<usize>,
) -> Result<PageRead, Fault> {
    let limit = match row_bytes {
        // A quarter more than would fill it: what is asked for and does not fit is read again.
        Some(bytes) => (BATCH_BYTES_TARGET + BATCH_BYTES_TARGET / 4) / bytes.max(1) + 2,
        None => FIRST_ROWS,
    };
    let limit = limit.min(rows_max);
    let failed = |error| fault("read rows", &error);
    let stream = client.simple_query_raw(&layout.rows(after, last, limit)).await;
    let mut stream = std::pin::pin!(stream.map_err(failed)?);
    let mut read = PageRead {
        page: Page::new(&layout.schema, &layout.forms, rows_max),
        place: None,
        has_more: false,
    };
    let place_of_row = |row: &SimpleQueryRow| place_of(row, layout.places.iter().copied(), layout);
    let mut last_row = None;
    while let Some(message) = stream.next().await {
        let SimpleQueryMessage::Row(row) = message.map_err(failed)? else {
            continue;
        };
        let slots: Vec<Slot<'_>> = (0..layout.forms.len()).map(|index| slot(&row, index)).collect();
        if !read.page.has_room_for(&slots) {
            read.has_more = true;
            break;
        }
        read.page.push(Op::Insert, &slots, || {
            let (table, cursor) = (&layout.schema.collection, layout.cursor.join(", "));
            format!(
                "{table}, ({cursor}) = ({})",
                place_of_row(&row).unwrap_or_default().join(", ")
            )
        });
        last_row = Some(row);
    }
    read.place = last_row.map(|row| place_of_row(&row)).transpose()?;
    read.has_more |= read.page.len() == limit;
    Ok(read)
}

/// The transactions that are writing to a table (or any of the database); of these only, if some are given.
async fn writers(client: &Client, table: Option<u32>, among: Option<&[String]>) -> Result<Vec<String>, Fault> {
    // Whoever inserts, updates or deletes holds this lock from before it computes the first value to its end.
    let sql = "SELECT DISTINCT virtualtransaction FROM pg_locks \
               WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND granted \
                   AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
                   AND CASE WHEN $1::oid IS NULL THEN relation >= 16384 \
                            ELSE relation = $1 OR relation IN (SELECT relid FROM pg_partition_tree($1)) END \
                   AND ($2::text[] IS NULL OR virtualtransaction = ANY ($2))";
    let rows = client.query(sql, &[&table, &among]).await;
    let rows = rows.map_err(|error| fault("see who is writing", &error))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

fn slot(row: &SimpleQueryRow, index: usize) -> Slot<'_> {
    match row.try_get(index) {
        Ok(Some(text)) => Slot::Text(text.as_bytes()),
        Ok(None) => Slot::Null,
        // Not UTF-8, which a database in SQL_ASCII may hold. Nor is this.
        Err(_) => Slot::Text(b"\xff"),
    }
}

/// The cursor values of a row.
fn place_of(row: &SimpleQueryRow, places: impl Iterator<Item = usize>, layout: &Layout) -> Result<Vec<String>, Fault> {
    let mut values = Vec::new();
    for place in places {
        let value = row.try_get(place).ok().flatten().ok_or_else(|| {
            Fault::stop(format!(
                "a value of the cursor ({}) of '{}' is NULL or not UTF-8: choose another cursor",
                layout.cursor.join(", "),
                layout.schema.collection
            ))
        })?;
        values.push(value.to_string());
    }
    if values.iter().map(String::len).sum::<usize>() > PLACE_BYTES_MAX {
        return Err(Fault::stop(format!(
            "the values of the cursor ({}) of '{}' are longer than {PLACE_BYTES_MAX} bytes: choose another cursor",
            layout.cursor.join(", "),
            layout.schema.collection
        )));
    }
    Ok(values)
}
