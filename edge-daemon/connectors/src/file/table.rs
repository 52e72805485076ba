//! Files that are tables, and not lines: read once and whole, from row to row. What is in them a format says. Blocking; the
//! source around it brings threads and pauses.

use std::{
    fs::{File, Metadata},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use bus_schema::data::Batch;
use flow::{Fault, Position, SourceBatch, Undecodable};
use serde::{Deserialize, Serialize};

use super::{reader::Got, rows, siblings::parent};

/// Version of the form of a position; those of lines have another.
const FORM: u8 = 2;

/// Some rows of a file.
pub(crate) struct Section {
    pub batch: Batch,
    /// Those that are no records.
    pub undecodable: Vec<Undecodable>,
    /// How many rows of the file they are, with those.
    pub rows: u64,
}

/// The rows of a file, in their order.
pub(crate) trait Table: Send {
    /// Goes past rows, before the first are read.
    fn skip(&mut self, rows: u64) -> Result<(), String>;

    /// The next rows; `None` after the last. `Err`: what comes next cannot be read, nor what is after it.
    fn next(&mut self) -> Result<Option<Section>, String>;
}

/// Opens the rows of a file; or says why it holds none.
pub(crate) type Open = dyn Fn(File, &str) -> Result<Box<dyn Table>, String> + Send + Sync;

/// Where reading goes on: in which file, and after how many rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Bookmark {
    v: u8,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds since 1970.
    modified: (i64, i64),
    rows: u64,
    /// All of it was read, or given up.
    is_over: bool,
}

impl Bookmark {
    fn of(metadata: &Metadata) -> Self {
        Self {
            v: FORM,
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            rows: 0,
            is_over: false,
        }
    }

    fn is_of(&self, other: &Self) -> bool {
        (self.inode, self.size, self.modified) == (other.inode, other.size, other.modified)
    }

    fn read(position: &Position) -> Result<Self, Fault> {
        let bookmark: Option<Self> = serde_json::from_slice(position.as_bytes()).ok();
        bookmark.filter(|bookmark| bookmark.v == FORM).ok_or_else(|| {
            Fault::stop("the stored position is not one of a file of this format: was the workflow's source changed?")
        })
    }
}

/// A file being read.
pub(crate) struct TableReader {
    path: PathBuf,
    name: String,
    open: std::sync::Arc<Open>,
    table: Option<Box<dyn Table>>,
    bookmark: Option<Bookmark>,
    undecodable: Vec<Undecodable>,
}

impl TableReader {
    /// Opens nothing yet.
    pub(crate) fn new(path: &Path, open: std::sync::Arc<Open>) -> Self {
        let name = path
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        Self {
            path: path.to_path_buf(),
            name,
            open,
            table: None,
            bookmark: None,
            undecodable: Vec::new(),
        }
    }

    /// Goes to `after`, if that is in this very file, or to its beginning.
    pub(crate) fn open(&mut self, after: Option<&Position>) -> Result<(), Fault> {
        let after = after.map(Bookmark::read).transpose()?;
        let failed = |error: std::io::Error| Fault::retry(format!("cannot read {}: {error}", self.path.display()));
        let file = File::open(&self.path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            let directory = parent(&self.path).display();
            return Err(Fault::retry(format!(
                "cannot read {} in {directory}: it is a directory",
                self.name
            )));
        }
        let fresh = Bookmark::of(&metadata);
        let bookmark = after.filter(|after| after.is_of(&fresh)).unwrap_or(fresh);
        if !bookmark.is_over {
            let opened = (self.open)(file, &self.name).and_then(|mut table| {
                table.skip(bookmark.rows)?;
                Ok(table)
            });
            match opened {
                Ok(table) => self.table = Some(table),
                Err(cause) => self.give_up(&cause, bookmark.rows),
            }
        }
        self.bookmark = Some(bookmark);
        Ok(())
    }

    /// The next rows.
    pub(crate) fn read(&mut self) -> Result<Got, Fault> {
        let Some(mut bookmark) = self.bookmark.clone() else {
            return Err(Fault::retry("the file is not open"));
        };
        let next = match &mut self.table {
            Some(table) => table.next(),
            None => Ok(None),
        };
        let batch = match next {
            Ok(Some(section)) => {
                bookmark.rows += section.rows;
                self.undecodable.extend(section.undecodable);
                Some(section.batch)
            }
            Ok(None) => None,
            Err(cause) => {
                self.give_up(&cause, bookmark.rows);
                None
            }
        };
        if batch.is_none() {
            self.table = None;
            bookmark.is_over = true;
        }
        self.bookmark = Some(bookmark.clone());
        if batch.is_none() && self.undecodable.is_empty() {
            return Ok(Got::End);
        }
        Ok(Got::Batch(SourceBatch {
            batch: batch.unwrap_or_else(|| rows::empty(&self.name)),
            position: Position::new(serde_json::to_vec(&bookmark).unwrap_or_default()),
            undecodable: std::mem::take(&mut self.undecodable),
        }))
    }

    /// More may be left.
    pub(crate) fn has_more(&self) -> bool {
        self.table.is_some()
    }

    fn give_up(&mut self, cause: &str, rows: u64) {
        let reason = match rows {
            0 => format!("{}: the file cannot be read: {cause}", self.name),
            rows => format!(
                "{}, after row {rows}: the rest of the file cannot be read: {cause}",
                self.name
            ),
        };
        tracing::warn!(file = self.name, "{reason}");
        self.undecodable.push(Undecodable {
            bytes: Vec::new(),
            reason,
        });
        self.table = None;
    }
}
