//! The files of a directory: the source that sends them, as they are or as records, and the destination that puts those sent
//! as they are together again.

mod chunk;
mod listing;
mod reader;
mod records;
mod sent;
mod sink;
mod source;
mod whole;

pub(crate) use sink::SINK;
pub(crate) use source::SOURCE;

#[cfg(test)]
mod tests;
