//! What the plane knows and decides, as pure state machines: an event and the time go in, changes and effects come out.
//! Performs no I/O, reads no clock, draws no randomness: store, bus and web page are the rim around it.
//!
//! Two kinds of state, kept apart on purpose:
//! - what was *decided* (members, tokens, revisions, plans) changes only through a [`Change`], which the rim makes durable
//!   before it is applied: after a crash nothing was promised that is not on disk;
//! - what was *heard* (statuses, stream reports) is a picture of the moment, stored now and then for a restart's sake.

pub mod access_list;
pub mod alerts;
pub mod carried;
pub mod catalogs;
pub mod change;
pub mod commands;
pub mod daemon;
pub mod drift;
pub mod enrol;
pub mod groups;
pub mod history;
pub mod labels;
pub mod lag;
pub mod ledger;
pub mod letters;
pub mod lineage;
pub mod members;
pub mod own_operator;
pub mod pairing;
pub mod peers;
pub mod plans;
pub mod presence;
pub mod rates;
pub mod readings;
pub mod recall;
pub mod rollout;
pub mod rollouts;
pub mod rotation;
pub mod sight;
pub mod state;
pub mod views;
pub mod workflows;

#[cfg(test)]
pub(crate) mod testing;

use bus_schema::limits::TEXT_BYTES_MAX;

pub use change::{Change, Effect};
pub use state::State;

/// The time, as the rim sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since the plane started; never goes backwards. All leases and pauses are measured with it.
    pub mono_ms: u64,
    /// Wall clock, milliseconds since 1970. Only for people to read, and for the advisory expiry of tokens.
    pub unix_ms: i64,
}

/// A text from the bus, cut to what a message may carry: nobody fills the plane's memory with a cause.
pub(crate) fn clip(text: &str) -> String {
    clip_to(text, TEXT_BYTES_MAX)
}

/// As much of a text as so many bytes hold.
fn clip_to(text: &str, bytes_max: usize) -> String {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_string()
}
