//! Columns that are not what was agreed about them: what a daemon tells of its contracts. Says what the columns are called; nothing
//! of what is in them.

use alloc::{string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use crate::id::WorkflowId;

/// Most workflows in a [`Drifts`].
pub const DRIFTS_MAX: usize = 100;
/// Longest text about one of them, in bytes.
pub const DRIFT_BYTES_MAX: usize = 500;
/// For how long drift is told of after it was met last, in milliseconds.
pub const DRIFT_KEPT_MS: u64 = 86_400_000;

/// A daemon tells where it met drift within the last [`DRIFT_KEPT_MS`]; of more than [`DRIFTS_MAX`] workflows where it was last. Sent
/// with each status while there is any, and once more, without a workflow, when there is none any more. What is not in it is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drifts {
    /// By workflow.
    pub workflows: Vec<WorkflowDrift>,
}

/// The drift of one workflow on one daemon, since it began there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkflowDrift {
    /// Which workflow.
    pub workflow: WorkflowId,
    /// What was met last and what was done about it, for people: the node, the columns, where they are.
    pub what: String,
    /// In how many batches it was met.
    pub batches: u64,
    /// How long ago it was met last, in milliseconds.
    pub ago_ms: u64,
}
