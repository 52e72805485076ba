//! Dead letters over the bus: what an operator asks a daemon about them, and the answers. The plane has no part in it: it
//! must not see records.

use alloc::{string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use crate::api::Failure;

/// An operator asks a daemon about its dead letters. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LetterCall {
    /// Which are there? Answered by [`LetterResult::Page`].
    List {
        /// Of which.
        select: LetterSelect,
        /// Go on after this one; `None` begins.
        after: Option<LetterPlace>,
    },
    /// One of them, with a part of its record. Answered by [`LetterResult::Letter`].
    Show {
        /// Which.
        letter: LetterPlace,
        /// From which byte of the record on.
        offset: u64,
    },
    /// Try them again. Answered by [`LetterResult::Done`].
    Replay(LetterSelect),
    /// Forget them for good. Answered by [`LetterResult::Done`].
    Purge(LetterSelect),
    /// Give the record of a letter that waits for a person other values; it can then be tried again. Answered by
    /// [`LetterResult::Done`].
    Mend {
        /// Which.
        letter: LetterPlace,
        /// The columns that change and their values: a JSON object. The rest stays.
        values: String,
    },
}

/// A letter of a daemon.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LetterPlace {
    /// Of this workflow, by name.
    pub workflow: String,
    /// Its number in the workflow.
    pub id: u64,
}

/// Which letters of a daemon are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterSelect {
    /// Of this workflow, by name; empty for all.
    pub workflow: String,
    /// That died at this node; empty for any.
    pub node: String,
    /// These; empty for all, except those in doubt.
    pub ids: Vec<u64>,
}

/// What a daemon answers. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LetterResult {
    /// It did not work.
    Failed(Failure),
    /// Some letters.
    Page(LetterPage),
    /// One letter.
    Letter {
        /// What is known about it.
        letter: LetterView,
        /// A part of its record, from the asked byte on.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    /// It is done, or will be.
    Done {
        /// For so many letters.
        letters: u64,
        /// So many were left alone because they are in doubt.
        doubtful: u64,
        /// What else there is to say.
        notes: Vec<String>,
    },
}

/// Some letters, by workflow and number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterPage {
    /// The letters.
    pub letters: Vec<LetterView>,
    /// With the first page: the workflows that have or had some.
    pub boxes: Vec<LetterBoxView>,
    /// Ask for what follows after this one; `None` at the end.
    pub next: Option<LetterPlace>,
}

/// At which kind of node a letter died. Variants are only ever appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum LetterStage {
    /// The source could not decode it.
    Source,
    /// A transform failed on it.
    Transform,
    /// The destination cannot hold it.
    Destination,
}

/// How a letter stands. Variants are only ever appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum LetterState {
    /// It waits for a person.
    Kept,
    /// It will be tried again.
    Queued,
    /// The daemon stopped before its batch was committed, and its record was read again: if it did not die again, it has
    /// been delivered.
    Doubtful,
}

/// What is known about a letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterView {
    /// Which.
    pub place: LetterPlace,
    /// At which kind of node it died.
    pub stage: LetterStage,
    /// At which node.
    pub node: String,
    /// The way there, node by node.
    pub path: String,
    /// Why.
    pub reason: String,
    /// How it stands.
    pub state: LetterState,
    /// Why it could not be tried again; empty when nobody tried, or it can.
    pub refusal: String,
    /// How often it was tried again before it died here.
    pub replays: u32,
    /// The daemon's epoch when it died.
    pub boot: u64,
    /// Milliseconds since the daemon's start when it died.
    pub uptime_ms: u64,
    /// The daemon's wall clock then, milliseconds since 1970; advisory.
    pub unix_ms: i64,
    /// Size of its record.
    pub record_bytes: u64,
}

/// The letters of one workflow on one daemon, in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterBoxView {
    /// The workflow, by name.
    pub workflow: String,
    /// It is in the daemon's plan.
    pub is_planned: bool,
    /// Letters that had to go because there was no room. They count as dead for ever.
    pub evicted: u64,
    /// Letters somebody purged. They count as dead for ever.
    pub purged: u64,
    /// Letters that were tried again and came through, or died as another letter.
    pub replayed: u64,
    /// Times that damage was found on disk.
    pub damaged: u64,
}
