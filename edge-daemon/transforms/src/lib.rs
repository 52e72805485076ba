//! Transforms, one file each. Pure functions over batches: no I/O, no clock.

pub mod convert;
mod engine;
pub mod text;
