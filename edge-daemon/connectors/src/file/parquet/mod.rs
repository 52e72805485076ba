//! Parquet: what becomes of types in it, files written and read.

mod heap;
mod kind;
mod read;
mod sink;
mod write;

use std::fs::File;

use super::table::Table;

/// Opens the rows of a file; or says why it holds none.
pub(super) fn open(file: File, collection: &str) -> Result<Box<dyn Table>, String> {
    // The reader was not written for files that are damaged on purpose.
    let opened = std::panic::catch_unwind(|| read::Rows::open(file, collection));
    let rows = opened.unwrap_or_else(|_| Err("it is damaged".to_string()))?;
    Ok(Box::new(rows))
}

pub(super) use sink::{Limits, ParquetSink};
pub(crate) use write::Packing;

#[cfg(test)]
mod tests;
