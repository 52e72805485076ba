//! Reads the rows of a table or query in the order of a cursor, and goes on reading as rows come. Never writes.
//!
//! Transactions commit in another order than that in which they take numbers and times. So rows are read up to a *last* one
//! that is looked for first; then it is waited until every transaction has ended that had written at that moment. What
//! begins to write later takes higher values, and what had lower ones is there to be seen.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use bus_schema::{data::Op, limits::BATCH_BYTES_TARGET};
use flow::{Fault, Position, READ_WAIT_MAX, Read, Source, SourceBatch, Trouble};
use mysql_async::{Error, Row, Value, prelude::Queryable};
use tokio::time::{Instant, sleep_until};

use super::{
    check,
    connect::Server,
    form::Form,
    layout::{Layout, Subject, prepare},
    link::{Link, answer},
};
use crate::postgres::{Bookmark, PLACE_BYTES_MAX, Page, Slot};

/// Rows asked for while nothing is known of their size.
const FIRST_ROWS: usize = 256;
/// How long a number that was taken may stay without its transaction being seen to write: within the server, microseconds.
/// And how soon to look again whether writers have ended: the server looks itself every 100 ms only.
const WRITERS_PAUSE: Duration = Duration::from_millis(120);
/// Writers that take longer than this are named in the log.
const WRITERS_WAIT: Duration = Duration::from_secs(60);
/// The right to see who is writing is missing.
const ACCESS_DENIED: u16 = 1227;

/// What the config says, checked.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub server: Server,
    pub subject: Subject,
    pub cursor: Option<Vec<String>>,
    pub rows_max: usize,
    pub poll_interval: Duration,
    pub delay: Duration,
}

/// The source.
pub(super) struct CursorSource {
    settings: Settings,
    base_dir: PathBuf,
    reader: Option<Box<Reader>>,
}

/// An open connection and how far it has read.
struct Reader {
    link: Link,
    layout: Layout,
    bookmark: Bookmark,
    /// It can be seen who is writing.
    watches: bool,
    /// Looks at the writers so far.
    looks: u64,
    /// Rows that are to be read before it is looked for more.
    pass: Option<Pass>,
    /// About how many bytes a row has.
    row_bytes: Option<usize>,
    next_look: Instant,
}

/// Rows up to a certain one.
struct Pass {
    last: Vec<String>,
    wait: Wait,
    begun: Instant,
    is_told: bool,
}

/// What has to happen before the rows are read.
enum Wait {
    /// Time has to pass, so that no other row takes the same time, and writers are seen.
    Until(Instant),
    /// These transactions, which may still commit rows before the last, have to end.
    Writers(Vec<String>),
    /// Nothing.
    Over,
}

impl CursorSource {
    pub(super) fn new(settings: Settings, base_dir: PathBuf) -> Self {
        Self {
            settings,
            base_dir,
            reader: None,
        }
    }
}

#[async_trait]
impl Source for CursorSource {
    async fn open(&mut self, after: Option<&Position>) -> Result<(), Fault> {
        self.close().await;
        let reader = Reader::open(&self.settings, &self.base_dir, after).await?;
        self.reader = Some(Box::new(reader));
        Ok(())
    }

    async fn read(&mut self) -> Result<Read, Fault> {
        let give_up = Instant::now() + READ_WAIT_MAX;
        let not_open = || Fault::retry("the mysql source is not open");
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
        check::cursor(&self.settings, &self.base_dir).await
    }

    async fn close(&mut self) {
        // The client says goodbye by itself when it is dropped.
        self.reader = None;
    }
}

impl Reader {
    async fn open(settings: &Settings, base_dir: &Path, after: Option<&Position>) -> Result<Self, Fault> {
        let mut link = Link::open(&settings.server, base_dir).await?;
        prepare(&mut link).await?;
        let layout = Layout::load(&mut link, &settings.subject, settings.cursor.as_deref()).await?;
        if settings.delay.is_zero() {
            if let Some(reason) = layout.unwatched() {
                return Err(Fault::stop(reason));
            }
            warn_of_elsewhere(&mut link).await?;
        }
        if layout.nullable && settings.cursor.is_some() {
            let (table, cursor) = (&layout.shape.schema.collection, layout.cursor.join(", "));
            tracing::info!(
                place = link.place,
                table,
                cursor,
                "rows where the cursor is NULL are left out"
            );
        }
        let bookmark = match after {
            Some(position) => Bookmark::from_position(position, &layout.cursor, "mysql")?,
            None => Bookmark {
                cursor: layout.cursor.clone(),
                place: None,
            },
        };
        let mut reader = Self {
            link,
            layout,
            bookmark,
            watches: true,
            looks: 0,
            pass: None,
            row_bytes: None,
            next_look: Instant::now(),
        };
        reader.find_out_whether_it_watches(settings).await?;
        Ok(reader)
    }

    /// Who is writing is only shown to those who may see it.
    async fn find_out_whether_it_watches(&mut self, settings: &Settings) -> Result<(), Fault> {
        let sql = "SELECT COUNT(*) FROM information_schema.INNODB_TRX";
        match answer(&self.link.place, self.link.conn.query_drop(sql)).await? {
            Ok(()) => Ok(()),
            Err(Error::Server(error)) if error.code == ACCESS_DENIED => {
                self.watches = false;
                match settings.delay.is_zero() {
                    true => Err(Fault::retry(format!(
                        "the user may not see who is writing, and rows of transactions that commit late would be missed: \
                         GRANT PROCESS ON *.* TO it, or set delay_ms to more than any transaction takes (at {})",
                        self.link.place
                    ))),
                    false => Ok(()),
                }
            }
            Err(error) => Err(self.link.failed("see who is writing", &error)),
        }
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
        let until = self.wait(&mut pass).await?;
        let Some(until) = until else {
            return self.page(pass, settings.rows_max).await;
        };
        self.pass = Some(pass);
        self.next_look = until;
        Ok(None)
    }

    /// Whether there is something to wait for before rows are read: then until when, to look again.
    async fn wait(&mut self, pass: &mut Pass) -> Result<Option<Instant>, Fault> {
        let again = Instant::now() + WRITERS_PAUSE;
        match &pass.wait {
            Wait::Over => return Ok(None),
            Wait::Until(time) if *time > Instant::now() => return Ok(Some(*time)),
            Wait::Until(_) if !self.watches => {
                pass.wait = Wait::Over;
                return Ok(None);
            }
            Wait::Until(_) | Wait::Writers(_) => {}
        }
        let Some(mut writers) = self.writers().await? else {
            return Ok(Some(again));
        };
        if let Wait::Writers(before) = &pass.wait {
            writers.retain(|writer| before.contains(writer));
        }
        if writers.is_empty() {
            pass.wait = Wait::Over;
            return Ok(None);
        }
        if pass.begun.elapsed() > WRITERS_WAIT && !std::mem::replace(&mut pass.is_told, true) {
            let (table, seconds) = (&self.layout.shape.schema.collection, pass.begun.elapsed().as_secs());
            tracing::warn!(
                table, seconds, transactions = ?writers,
                "new rows wait for transactions that have been open all the while, have written, and may commit rows before them (INNODB_TRX.trx_id)"
            );
        }
        pass.wait = Wait::Writers(writers);
        Ok(Some(again))
    }

    /// The transactions that have written, or have locked what they want to write; `None` when the server shows who they
    /// were some time ago.
    async fn writers(&mut self) -> Result<Option<Vec<String>>, Fault> {
        // What it shows it may have looked up for somebody else, up to 100 ms ago or, when somebody asks all the time, any
        // time ago. Our own transaction, with this very statement, shows that it has looked now.
        self.looks += 1;
        let mark = format!("mycelial look {}", self.looks);
        let doing = "see who is writing";
        self.link
            .run(doing, "START TRANSACTION WITH CONSISTENT SNAPSHOT")
            .await?;
        let sql = format!(
            "SELECT CAST(trx_id AS CHAR), trx_mysql_thread_id = CONNECTION_ID(), \
                 COALESCE(LOCATE('{mark};', trx_query) > 0, 0) \
             FROM information_schema.INNODB_TRX WHERE trx_mysql_thread_id = CONNECTION_ID() OR trx_lock_structs > 0 \
                 OR trx_rows_modified > 0"
        );
        let found: Vec<(String, bool, bool)> = self.link.rows(doing, &sql).await?;
        self.link.run(doing, "COMMIT").await?;
        if !found.iter().any(|(_, is_ours, is_now)| *is_ours && *is_now) {
            return Ok(None);
        }
        let others = found.into_iter().filter(|(_, is_ours, _)| !is_ours);
        Ok(Some(others.map(|(id, ..)| id).collect()))
    }

    /// Looks whether there is anything to read, and up to where.
    async fn begin_pass(&mut self, settings: &Settings) -> Result<Option<Pass>, Fault> {
        let sql = self.layout.last(self.bookmark.place.as_deref())?;
        let last: Vec<Row> = self.link.rows("look for new rows", &sql).await?;
        let Some(last) = last.first() else {
            return Ok(None);
        };
        let last = place_of(
            last,
            (0..self.layout.cursor.len()).zip(&self.layout.places),
            &self.layout,
        )?;
        // Who had written when the last row was seen is still at it, or has ended and can be seen.
        let pause = if self.watches { WRITERS_PAUSE } else { Duration::ZERO };
        let wait = settings.delay.max(self.layout.tick).max(pause);
        // Columns may have come and gone.
        let layout = Layout::load(&mut self.link, &settings.subject, settings.cursor.as_deref()).await?;
        if layout.cursor != self.layout.cursor {
            return Err(Fault::retry("the key of the table has changed: opening it again"));
        }
        self.layout = layout;
        let begun = Instant::now();
        Ok(Some(Pass {
            last,
            wait: Wait::Until(begun + wait),
            begun,
            is_told: false,
        }))
    }

    /// One batch of the rows of a pass.
    async fn page(&mut self, pass: Pass, rows_max: usize) -> Result<Option<SourceBatch>, Fault> {
        let after = self.bookmark.place.as_deref();
        let (last, row_bytes) = (Some(&pass.last[..]), self.row_bytes);
        let read = read_page(&mut self.link, &self.layout, after, last, rows_max, row_bytes).await?;
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
    link: &mut Link,
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
    let sql = layout.rows(after, last, limit)?;
    let place = link.place.clone();
    let asked = answer(&place, link.conn.query_iter(sql)).await?;
    let mut result = asked.map_err(|error| super::error::fault("read rows", &error))?;
    let failed = |error| super::error::fault("read rows", &error);
    let mut read = PageRead {
        page: Page::new(&layout.shape.schema, &layout.shape.forms, rows_max),
        place: None,
        has_more: false,
    };
    let mut last_row = None;
    while let Some(row) = answer(&place, result.next()).await?.map_err(failed)? {
        let slots: Vec<Slot<'_>> = (0..layout.shape.forms.len()).map(|index| slot(&row, index)).collect();
        if !read.page.has_room_for(&slots) {
            read.has_more = true;
            break;
        }
        read.page.push(Op::Insert, &slots, || {
            let (table, cursor) = (&layout.shape.schema.collection, layout.cursor.join(", "));
            let place = place_of_row(&row, layout).unwrap_or_default();
            format!("{table}, ({cursor}) = ({})", place.join(", "))
        });
        last_row = Some(row);
    }
    read.place = last_row.map(|row| place_of_row(&row, layout)).transpose()?;
    answer(&place, result.drop_result()).await?.map_err(failed)?;
    read.has_more |= read.page.len() == limit;
    Ok(read)
}

/// Transactions of other servers cannot be seen on this one.
async fn warn_of_elsewhere(link: &mut Link) -> Result<(), Fault> {
    let sql = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('read_only', 'wsrep_on') AND Value = 'ON'";
    let found: Vec<(String, String)> = link.rows("look at the server", sql).await?;
    if let Some((variable, _)) = found.first() {
        tracing::warn!(
            place = link.place,
            variable,
            "others write elsewhere (this is a replica or part of a cluster), which this server does not know of: rows of transactions that commit late may be missed unless delay_ms is set"
        );
    }
    Ok(())
}

/// The text protocol has bytes and NULL.
fn slot(row: &Row, index: usize) -> Slot<'_> {
    match row.as_ref(index) {
        Some(Value::Bytes(bytes)) => Slot::Text(bytes),
        _ => Slot::Null,
    }
}

/// The cursor values of a row with all columns.
fn place_of_row(row: &Row, layout: &Layout) -> Result<Vec<String>, Fault> {
    place_of(row, layout.places.iter().map(|place| (*place, place)), layout)
}

/// The cursor values of a row: where they stand in it, and in the layout.
fn place_of<'p>(
    row: &Row,
    places: impl Iterator<Item = (usize, &'p usize)>,
    layout: &Layout,
) -> Result<Vec<String>, Fault> {
    let mut values = Vec::new();
    for (at, place) in places {
        let value = match row.as_ref(at) {
            Some(Value::Bytes(bytes)) => layout.shape.forms[*place].place(bytes),
            _ => None,
        };
        values.push(value.ok_or_else(|| {
            Fault::stop(format!(
                "a value of the cursor ({}) of '{}' is NULL or not text: choose another cursor",
                layout.cursor.join(", "),
                layout.shape.schema.collection
            ))
        })?);
    }
    if values.iter().map(String::len).sum::<usize>() > PLACE_BYTES_MAX {
        return Err(Fault::stop(format!(
            "the values of the cursor ({}) of '{}' are longer than {PLACE_BYTES_MAX} bytes: choose another cursor",
            layout.cursor.join(", "),
            layout.shape.schema.collection
        )));
    }
    Ok(values)
}
