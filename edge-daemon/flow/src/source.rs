//! Where records come from.

use std::fmt;

use async_trait::async_trait;
use bus_schema::{data::Batch, limits::POSITION_BYTES_MAX};

use crate::{
    Fault,
    check::{self, Trouble},
    memory::STATES_BYTES_MAX,
    sink::Tally,
};

/// A source's own bookmark. Nobody else looks inside; it is stored with the records that came before it, and with what the
/// transforms between them and the source remembered then (see `memory`).
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Position(Vec<u8>);

impl Position {
    /// Wraps a bookmark of at most [`POSITION_BYTES_MAX`] bytes (a stream's contains another one); a longer one is a
    /// programming error of the source.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        debug_assert!(
            bytes.len() <= 2 * (POSITION_BYTES_MAX + STATES_BYTES_MAX),
            "a position holds a bookmark, not data"
        );
        Self(bytes)
    }

    /// All of it, as it is stored.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Position({})", String::from_utf8_lossy(&self.0).escape_debug())
    }
}

/// Input that could not be made into records; goes to the dead letters as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undecodable {
    /// The original bytes (cut to a sensible length if huge).
    pub bytes: Vec<u8>,
    /// What is wrong with them, and where they stood (file and line, row id, topic).
    pub reason: String,
}

/// Records, and where to go on after them.
#[derive(Debug, Clone)]
pub struct SourceBatch {
    /// The records; may be empty when everything was undecodable. The runner fills in the origin.
    pub batch: Batch,
    /// The bookmark after the last of them.
    pub position: Position,
    /// What stood between them and is not a record.
    pub undecodable: Vec<Undecodable>,
}

/// What a read gave.
#[derive(Debug)]
pub enum Read {
    /// Some records. About `limits::BATCH_BYTES_TARGET` bytes when there are many, whatever is there when there are few.
    Batch(SourceBatch),
    /// Nothing new within [`crate::READ_WAIT_MAX`].
    Idle,
    /// Nothing will ever come again (a one-shot file has been read).
    End,
}

/// Reads records from a system. Keeps no durable state: its position comes in with `open`.
///
/// The runner calls one method at a time. It may drop the value at any moment; nothing may be lost by that.
#[async_trait]
pub trait Source: Send {
    /// Connects and goes to just after `after` (`None`: the start, as the config defines it).
    /// Called again after a fault and [`Source::close`]; must then start afresh.
    async fn open(&mut self, after: Option<&Position>) -> Result<(), Fault>;

    /// Waits until [`Source::read`] has something to give, for about [`crate::READ_WAIT_MAX`]; `false`: nothing came, as if
    /// that had been idle. It may be dropped while it waits, and nothing may be lost by that: what becomes durable meanwhile
    /// is told to the source at once. Only of use where the system waits for that before it gives more.
    async fn ready(&mut self) -> bool {
        true
    }

    /// The next records. Returns within about [`crate::READ_WAIT_MAX`], sooner when there is something.
    async fn read(&mut self) -> Result<Read, Fault>;

    /// What the batch just read settles besides its records. Only a stream knows of gaps and repetitions.
    fn settled(&mut self) -> Tally {
        Tally::default()
    }

    /// Reads the bytes of one of its dead letters once more, as [`Undecodable::bytes`] gave them away. `Err` says for a
    /// person why that cannot be. May be called before `open`.
    fn decode(&mut self, bytes: &[u8]) -> Result<Batch, String> {
        let _ = bytes;
        Err("this source does not read single records again: mend them where they come from".to_string())
    }

    /// Everything up to `position` is durable at every destination (or in a spool): the source may acknowledge it to its
    /// system. Called with the latest position only; earlier ones are covered by it.
    async fn commit(&mut self, position: &Position) -> Result<(), Fault> {
        let _ = position;
        Ok(())
    }

    /// Whether it would work here and now: what was seen, for a person, or what is wrong and how to mend it. Called instead of
    /// `open`, by somebody who waits ([`check::check_source`]), also while the same source runs elsewhere. Touches no data:
    /// nothing is written, made, taken or acknowledged, and no position moves. Where `open` does any of that, this must not
    /// be left as it is.
    async fn check(&mut self) -> Result<String, Trouble> {
        let opened = self.open(None).await;
        self.close().await;
        check::opened(opened)
    }

    /// Lets go of connections and files. Never fails: there is nobody left to tell.
    async fn close(&mut self) {}
}
