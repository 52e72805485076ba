//! A file of any format being read: lines, one after the other, or a table. Blocking.

use bus_schema::data::Batch;
use flow::{Fault, Position};

use super::{
    reader::{Got, Reader},
    table::TableReader,
};

/// A file, not opened or being read.
pub(crate) enum Input {
    Lines(Box<Reader>),
    Table(TableReader),
}

impl Input {
    /// Goes to `after`, or to the start or end of the file.
    pub(crate) fn open(&mut self, after: Option<&Position>, at_end: bool) -> Result<(), Fault> {
        match self {
            Self::Lines(reader) => reader.open(after, at_end),
            Self::Table(table) => table.open(after),
        }
    }

    /// The next batch, if there is one now.
    pub(crate) fn read(&mut self) -> Result<Got, Fault> {
        match self {
            Self::Lines(reader) => reader.read(),
            Self::Table(table) => table.read(),
        }
    }

    /// Whether there is more to read at once.
    pub(crate) fn has_more(&self) -> bool {
        match self {
            Self::Lines(reader) => reader.has_more(),
            Self::Table(table) => table.has_more(),
        }
    }

    /// Makes a record of the bytes of one that could not be read before.
    pub(crate) fn decode(&mut self, bytes: &[u8]) -> Result<Batch, String> {
        match self {
            Self::Lines(reader) => reader.decode(bytes),
            Self::Table(_) => Err("a row of a table is not read again: mend the file".to_string()),
        }
    }
}
