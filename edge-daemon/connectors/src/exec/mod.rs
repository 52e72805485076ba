//! Programs of the user's own as source, transform and destination: whatever can read or write lines. `child`, `talk`,
//! `suspect`, `search`, `restarts` and `columns` serve `python` too.

pub(crate) mod child;
pub(crate) mod columns;
pub(crate) mod restarts;
pub(crate) mod search;
mod sink;
mod source;
pub(crate) mod suspect;
pub(crate) mod talk;
mod transform;

pub(crate) use sink::SINK;
pub(crate) use source::SOURCE;
pub(crate) use transform::TRANSFORM;
