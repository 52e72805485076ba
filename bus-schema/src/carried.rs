//! What the nodes of a daemon's workflows have done, and what its streams have carried: counts that only grow, until the workflow
//! or the stream begins anew. Rates and averages are made of them by whoever hears them. And how many dead letters it keeps, which
//! goes down, too.

use alloc::{string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use crate::id::{StreamId, WorkflowId};

/// Most nodes, and most streams, in one [`Carried`].
pub const CARRIED_PER_MESSAGE: usize = 200;

/// A daemon tells what nodes have done and streams have carried. Sent when something of it has changed, and now and then without.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// The daemon's epoch.
    pub boot: u64,
    /// Nodes of its workflows.
    pub nodes: Vec<NodeCarried>,
    /// Streams that begin here.
    pub streams: Vec<StreamCarried>,
}

/// One node's work since its workflow began on this daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCarried {
    /// Of which workflow.
    pub workflow: WorkflowId,
    /// Its name there.
    pub node: String,
    /// What it did.
    pub work: Work,
}

/// What a node did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Records that left it; of a destination: that arrived there.
    pub records: u64,
    /// About how many bytes they take.
    pub bytes: u64,
    /// Records that it could not take, which became dead letters.
    pub errors: u64,
    /// How often it failed and was tried again.
    pub faults: u64,
    /// Batches, of one record or many.
    pub batches: u64,
    /// How long it was at work on them, waiting for its system included, in microseconds. Of a source: nothing.
    pub busy_us: u64,
}

/// What a stream has carried since the producing daemon has opened it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamCarried {
    /// Which stream.
    pub stream: StreamId,
    /// Bytes that went into it: sealed frames, or, inside of one pipe, about what its records take.
    pub bytes: u64,
    /// Frames or batches that were timed, from where they went in until it was known that they are durable at the destination.
    pub timed: u64,
    /// How long all of those took, in milliseconds.
    pub took_ms: u64,
}

/// A daemon tells how many dead letters it keeps: what has changed with the next status, and all of it now and then while it has
/// a store of letters, or its streams count any as dead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LettersKept {
    /// By workflow; those of up to [`CARRIED_PER_MESSAGE`].
    pub workflows: Vec<WorkflowLetters>,
}

/// The dead letters of one workflow on one daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkflowLetters {
    /// Which workflow.
    pub workflow: WorkflowId,
    /// How many are kept: waiting for somebody, or to be tried again. What was purged or evicted is not among them.
    pub kept: u64,
}
