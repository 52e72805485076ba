//! The flow of records through one daemon: what a source, a transform and a sink are, and the runner that drives them.
//!
//! This is what a connector is made against, with `bus-schema` for the records themselves; `docs/CONNECTOR.md` makes one in
//! thirty minutes. What there is to implement:
//!
//! | trait | must | has a default |
//! |---|---|---|
//! | [`Source`] | `open` after a [`Position`], `read` | `check`, `commit`, `ready`, `close`, and what only streams need |
//! | [`Transform`] | `apply`: pure, the same for the same batch, no more records than came | `forget`; `outside`, for one that has to be waited for ([`Outside`]) |
//! | [`Sink`] | `open`, `write`, `commit` | `check`; `watermark` and `keeps_watermark` for exactly once, `gathered` for objects, `close`, and what only spools need |
//! | [`Junction`] | a sink for each pipe that ends there and a source for the one that begins | |
//! | [`Component`] | a descriptor (see [`describe`]) and a builder that checks the config and opens nothing | |
//!
//! What holds between them and the runner:
//!
//! - **Positions.** A source offers one with each batch: bytes that only it understands, and from which alone it can go on just
//!   after the batch, in another process. The runner stores it with the [`Watermark`], never ahead of the records, and tells the
//!   source by `commit` once every sink has them durably. Whatever was read and not committed is read again.
//! - **Faults** say who can mend it ([`Fault`]): time, a person, or going back to the destination's own mark. After any of
//!   them, the runner closes the component, waits, opens it again and repeats what was not committed. A component never
//!   sleeps, loops or tries again by itself.
//! - **Records that cannot go on** are no faults: a source returns them as [`Undecodable`], a transform and a sink as rejected
//!   rows with a reason. They are in the dead letters before their batch is committed.
//! - **Calls** come one at a time, and a value may be dropped in the middle of any of them: nothing may be lost by that.
//!
//! A *pipe* goes from one source through a tree of transforms to its leaves, which are sinks. At a [`Junction`] pipes end and
//! another one begins. An incoming stream is a
//! source like any other, and a spooled outgoing stream is a sink like any other: this crate knows no bus, no disk and
//! no wall clock.
//!
//! Who owns what: a source *offers* a position with each batch; a sink makes batches durable in two steps, `write` and
//! `commit`; loops, retry, back-off, reopening, positions, dead letters and shutdown belong to the runner alone.

mod backoff;
pub mod check;
mod component;
mod junction;
mod letter;
mod level;
pub mod levelling;
mod memory;
mod outlet;
mod outside;
mod pipe;
mod reader;
mod runner;
pub mod secrets;
mod sink;
mod source;
mod transform;
mod work;

pub use backoff::Backoff;
pub use check::{Trouble, TroubleKind};
pub use component::{Build, BuildContext, Builder, Component, ConfigError, Registry, describe, parse_config};
pub use junction::Junction;
pub use letter::{DeadLetter, DeadLetters, Due, LetterKey, LetterPoint, Replay, Stand};
pub use memory::STATES_BYTES_MAX;
pub use outside::Outside;
pub use pipe::{Account, Checkpoints, Leaf, Meter, Observer, Passage, Pipe, Shared, Stage, Throughput};
pub use runner::{GROUP_BATCHES_MAX, Outcome, Surroundings, run};
pub use sink::{Counts, Delivery, Gathered, Rejected, Sink, Tally, Watermark};
pub use source::{Position, Read, Source, SourceBatch, Undecodable};
pub use transform::{Drift, Transform, Transformed};

use std::time::Duration;

/// How long a source may wait for records before it returns [`Read::Idle`].
pub const READ_WAIT_MAX: Duration = Duration::from_millis(500);

/// Why a component could not do its work, classified where it arose.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Worth trying again: the runner closes the component, waits (at least `after`, else with back-off) and reopens it.
    #[error("{cause}")]
    Retry {
        /// What failed, where; a full sentence for an operator.
        cause: String,
        /// The other side asked for this pause.
        after: Option<Duration>,
    },
    /// The destination does not stand where it stood before, ahead or behind: whatever was read since counts for nothing,
    /// and everything goes on from the watermark it has now.
    #[error("{cause}")]
    Moved {
        /// What happened.
        cause: String,
    },
    /// Trying again cannot help until somebody changes something: the workflow is reported as failed.
    #[error("{cause}")]
    Stop {
        /// What failed, where, and what to do about it.
        cause: String,
    },
}

impl Fault {
    /// A fault worth trying again.
    pub fn retry(cause: impl Into<String>) -> Self {
        Fault::Retry {
            cause: cause.into(),
            after: None,
        }
    }

    /// A fault that needs somebody to change something.
    pub fn stop(cause: impl Into<String>) -> Self {
        Fault::Stop { cause: cause.into() }
    }
}
