//! Files: the source that reads them and the destination that writes them, with the formats both share.

pub(crate) mod csv;
pub(crate) mod encode;
#[cfg(feature = "excel")]
pub(crate) mod excel;
pub(crate) mod input;
pub(crate) mod json;
pub(crate) mod ledger;
pub(crate) mod output;
pub(crate) mod packed;
#[cfg(feature = "parquet")]
mod parquet;
pub(crate) mod part;
pub(crate) mod partition;
pub(crate) mod place;
pub(crate) mod reader;
pub(crate) mod rows;
mod siblings;
pub(crate) mod sink;
pub(crate) mod source;
pub(crate) mod table;
mod tail;
pub(crate) mod writer;
// One file for both crates: transforms converts with it, files read and write with it, and neither depends on the other.
#[path = "../../../transforms/src/text.rs"]
pub(crate) mod text;

pub(crate) use sink::SINK;
pub(crate) use source::SOURCE;
pub(crate) use tail::hash;

#[cfg(feature = "excel")]
#[cfg(test)]
mod excel_tests;
#[cfg(test)]
mod packed_tests;
#[cfg(test)]
mod partition_tests;
#[cfg(test)]
mod sink_tests;
#[cfg(test)]
mod source_tests;
#[cfg(test)]
pub(crate) mod testing;
