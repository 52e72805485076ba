//! Records on their way: typed, columnar, self-contained batches. Knows no source and no destination.

mod batch;
mod column;
mod value;

pub use batch::{Batch, BatchBuilder, BatchError, Field, Op, Ops, Origin, Schema};
pub use column::{Bits, Blobs, Column, Texts, TypeMismatch, Values};
pub use value::{Cell, Type, Value, Zone};
