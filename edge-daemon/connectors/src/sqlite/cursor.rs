//! Reads the rows of a table or query in the order of a cursor column, and goes on as rows come. Never writes to the database.

use std::path::PathBuf;

use bus_schema::data::Op;
use flow::{Fault, Position, SourceBatch};
use rusqlite::{Connection, Row, Statement, types::ValueRef};

use super::{
    bookmark::{Bookmark, PLACE_BYTES_MAX, Place},
    database::{Access, Database, Lock},
    layout::{Layout, Subject, sorts},
    page::{Page, Taken, Unfit},
    source::Reader,
};

/// What the config says, checked.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub subject: Subject,
    pub cursor: Option<String>,
    pub rows_max: usize,
}

/// The open database and how far it has been read.
pub(super) struct CursorReader {
    database: Database,
    settings: Settings,
    layout: Layout,
    /// `PRAGMA schema_version` the layout is of.
    schema_version: i64,
    bookmark: Bookmark,
    /// `PRAGMA data_version` at which everything had been read.
    caught_up: Option<i64>,
    /// The last page was full.
    full: bool,
    warned: bool,
}

impl CursorReader {
    pub(super) fn open(path: PathBuf, settings: Settings, after: Option<&Position>) -> Result<Self, Fault> {
        let database = Database::open(path, Access::Read)?;
        let schema_version = database.schema_version()?;
        let (conn, path) = (&database.conn, &database.path);
        let layout = Layout::load(conn, path, &settings.subject, settings.cursor.as_deref())?;
        let bookmark = match after {
            Some(position) => Bookmark::from_position(position, &layout.cursor)?,
            None => Bookmark {
                cursor: layout.cursor.clone(),
                ..Bookmark::default()
            },
        };
        if sorts(conn, &layout.after).map_err(database.failed("plan the reading"))? {
            let (table, cursor) = (&layout.schema.collection, &layout.cursor);
            tracing::warn!(path = %path.display(), table, cursor, "no index in the cursor's order: SQLite sorts all rows for every batch");
        }
        Ok(Self {
            database,
            settings,
            layout,
            schema_version,
            bookmark,
            caught_up: None,
            full: false,
            warned: false,
        })
    }

    fn read_page(&mut self) -> Result<Option<SourceBatch>, Fault> {
        let failed = self.database.failed("read rows");
        let data_version = self.database.data_version()?;
        let schema_version = self.database.schema_version()?;
        let conn = &self.database.conn;
        if schema_version != self.schema_version {
            let Settings { subject, cursor, .. } = &self.settings;
            self.layout = Layout::load(conn, &self.database.path, subject, cursor.as_deref())?;
            self.schema_version = schema_version;
        }

        let mut filling = Filling {
            layout: &self.layout,
            page: Page::new(&self.layout.schema, self.settings.rows_max),
            bookmark: self.bookmark.clone(),
            full: false,
        };
        filling.fill(conn).map_err(&failed)?;
        let Filling {
            page, bookmark, full, ..
        } = filling;
        if bookmark
            .place
            .as_ref()
            .is_some_and(|place| place.len() > PLACE_BYTES_MAX)
        {
            let (table, cursor) = (&self.layout.schema.collection, &self.layout.cursor);
            return Err(Fault::stop(format!(
                "a value of the cursor column '{cursor}' of '{table}' is longer than {PLACE_BYTES_MAX} bytes: \
                 choose another cursor"
            )));
        }
        self.full = full;
        if !full {
            self.caught_up = Some(data_version);
        }
        if page.is_empty() {
            self.step_back().map_err(failed)?;
            return Ok(None);
        }
        let (batch, undecodable) = page.batch().map_err(Fault::stop)?;
        self.bookmark = bookmark;
        Ok(Some(SourceBatch {
            batch,
            position: self.bookmark.position(),
            undecodable,
        }))
    }

    /// After the newest rows were deleted SQLite gives their rowids to new rows: the bookmark must not stand above them.
    fn step_back(&mut self) -> rusqlite::Result<()> {
        let (Some(sql), Some(Place::Integer(place))) = (&self.layout.highest, &self.bookmark.place) else {
            return Ok(());
        };
        let mut statement = self.database.conn.prepare_cached(sql)?;
        let highest: Option<i64> = statement.query_row([], |row| row.get(0))?;
        if highest.is_some_and(|highest| highest >= *place) {
            return Ok(());
        }
        if !self.warned {
            self.warned = true;
            let (path, table) = (self.database.path.display(), &self.layout.schema.collection);
            tracing::warn!(%path, table, read = place, highest, "the newest rows were deleted; without AUTOINCREMENT their rowids are given again, and rows that got one before this was seen are missed");
        }
        self.bookmark.place = highest.map(Place::Integer);
        Ok(())
    }
}

impl Reader for CursorReader {
    fn poll(&mut self) -> Result<Option<SourceBatch>, Fault> {
        self.full = false;
        self.database.check_file()?;
        if self.caught_up == Some(self.database.data_version()?) {
            return Ok(None);
        }
        // One read transaction sees one state of the database, schema and rows alike. It cannot see a row and miss one
        // with a lower rowid: SQLite has a single writer at a time, so transactions commit in the order in which they
        // were given their rowids, and a snapshot holds all of an order's beginning.
        self.database.begin(Lock::Shared)?;
        let page = self.read_page();
        self.database.end();
        page
    }

    fn has_more(&self) -> bool {
        self.full
    }
}

/// A page in the making, and the bookmark after its last row.
struct Filling<'a> {
    layout: &'a Layout,
    page: Page,
    bookmark: Bookmark,
    /// There may be more rows.
    full: bool,
}

impl Filling<'_> {
    /// Reads in the cursor's order: what is left of the last value, then higher values, then what has no value.
    fn fill(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        if let Some(place) = self.bookmark.place.clone() {
            if let (Some(sql), Some(rowid)) = (&self.layout.ties, self.bookmark.rowid) {
                let mut statement = conn.prepare_cached(sql)?;
                statement.raw_bind_parameter(1, &place)?;
                statement.raw_bind_parameter(2, rowid)?;
                self.take(&mut statement, 3)?;
            }
            if !self.full {
                let mut statement = conn.prepare_cached(&self.layout.after)?;
                statement.raw_bind_parameter(1, &place)?;
                self.take(&mut statement, 2)?;
            }
        } else {
            let mut statement = conn.prepare_cached(&self.layout.start)?;
            self.take(&mut statement, 1)?;
        }
        if let (false, Some(sql)) = (self.full, &self.layout.nulls) {
            let mut statement = conn.prepare_cached(sql)?;
            match self.bookmark.nulls {
                Some(rowid) => statement.raw_bind_parameter(1, rowid)?,
                // Below every rowid, the lowest included.
                None => statement.raw_bind_parameter(1, f64::NEG_INFINITY)?,
            }
            self.take(&mut statement, 2)?;
        }
        Ok(())
    }

    /// Binds how many rows still fit, and takes rows until there are no more or the page is full.
    fn take(&mut self, statement: &mut Statement<'_>, limit: usize) -> rusqlite::Result<()> {
        statement.raw_bind_parameter(limit, self.page.rows_left() as i64)?;
        let leading = self.layout.leading;
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next()? {
            let value = row.get_ref(0)?;
            let has_place = !matches!(value, ValueRef::Null);
            let taken = if has_place {
                self.page.take(Op::Insert, row, leading, |_| true)?
            } else {
                let cursor = &self.layout.cursor;
                Taken::Unfit(Unfit {
                    bytes: self.page.row_text(row, leading),
                    reason: format!("NULL in the cursor column '{cursor}' has no place in its order"),
                })
            };
            if matches!(taken, Taken::Waits) {
                self.full = true;
                return Ok(());
            }
            self.mark(row, value)?;
            if let Taken::Unfit(unfit) = taken {
                let place = self.place(has_place);
                self.page.refuse(unfit, &place);
            }
            if self.page.is_full() {
                self.full = true;
                return Ok(());
            }
        }
        Ok(())
    }

    /// Moves the bookmark to this row, whose cursor value this is.
    fn mark(&mut self, row: &Row<'_>, value: ValueRef<'_>) -> rusqlite::Result<()> {
        let rowid = match self.layout.leading > 1 {
            true => Some(row.get::<_, i64>(1)?),
            false => None,
        };
        if Place::set(&mut self.bookmark.place, value) {
            self.bookmark.rowid = rowid;
        } else {
            self.bookmark.nulls = rowid;
        }
        Ok(())
    }

    /// The bookmark's row, for a person to find.
    fn place(&self, has_place: bool) -> String {
        let rowid = match has_place {
            true => self.bookmark.rowid,
            false => self.bookmark.nulls,
        };
        match (rowid, &self.bookmark.place) {
            (Some(rowid), _) => format!("rowid {rowid}"),
            (None, Some(Place::Integer(at))) => format!("{} {at}", self.layout.cursor),
            (None, Some(Place::Text(at))) => format!("{} {:?}", self.layout.cursor, String::from_utf8_lossy(at)),
            (None, _) => "one row".to_string(),
        }
    }
}
