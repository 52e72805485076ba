//! A CSV file that is looked up in. Read as a whole; knows when it has changed.

use std::{
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{Unread, table::Table};

/// Largest file, in bytes.
const FILE_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// The file, and what is wanted of it.
#[derive(Debug, Clone)]
pub(super) struct CsvFile {
    pub path: PathBuf,
    pub delimiter: u8,
    pub key: String,
    pub columns: Vec<String>,
}

/// What tells one state of the file from another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Stamp {
    bytes: u64,
    changed: Option<SystemTime>,
}

impl CsvFile {
    /// Its state; `None`: there is no such file.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        stamp(&self.path)
    }

    /// Reads it. Blocks.
    pub(super) fn read(&self) -> Result<Table, Unread> {
        let mut text = Vec::new();
        let file = File::open(&self.path).map_err(|error| Unread::from(error.to_string()))?;
        let read = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text);
        read.map_err(|error| Unread::from(error.to_string()))?;
        self.table(&text).map_err(|cause| Unread { cause, is_known: true })
    }

    fn table(&self, text: &[u8]) -> Result<Table, String> {
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(format!("it has more than {FILE_BYTES_MAX} bytes"));
        }
        let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
        let mut reader = csv::ReaderBuilder::new().delimiter(self.delimiter).from_reader(text);
        let headers = reader.headers().map_err(|error| error.to_string())?.clone();
        let place = |name: &String| {
            let place = headers.iter().position(|header| header == name);
            place.ok_or_else(|| format!("it has no column '{name}'"))
        };
        let key = place(&self.key)?;
        let places: Vec<usize> = self.columns.iter().map(place).collect::<Result<_, _>>()?;
        let mut table = Table::default();
        for record in reader.records() {
            let record = record.map_err(|error| error.to_string())?;
            let field = |place: usize| record.get(place).unwrap_or_default();
            let values = places.iter().map(|place| Some(field(*place).to_string()));
            table.insert(field(key), values.collect())?;
        }
        Ok(table)
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some(Stamp {
        bytes: metadata.len(),
        changed: metadata.modified().ok(),
    })
}
