//! Programs of the user's own as source and destination: whatever can read or write lines. Knows no record.

mod child;
mod sink;
mod source;

pub(crate) use sink::SINK;
pub(crate) use source::SOURCE;
