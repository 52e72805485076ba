//! What happens to records on the way: pure functions over batches.

use bus_schema::data::Batch;

use crate::Fault;

/// The result of one transform on one batch.
#[derive(Debug, Clone)]
pub struct Transformed {
    /// The records that go on; may be empty.
    pub batch: Batch,
    /// Rows of the *incoming* batch that could not be transformed, with the reason: they go to the dead letters.
    pub rejected: Vec<(usize, String)>,
}

impl From<Batch> for Transformed {
    fn from(batch: Batch) -> Self {
        Self {
            batch,
            rejected: Vec::new(),
        }
    }
}

/// Changes records or leaves them out, and never makes more of them than came in: the account counts them. No I/O, no clock,
/// no waiting. Must give the same result for the same batch, which may come again after a crash; one that goes by what came
/// before may differ in what it leaves out, if the destination is as right with the one as with the other.
pub trait Transform: Send {
    /// Transforms a batch. A fault is about the config, not about a record.
    fn apply(&mut self, batch: Batch) -> Result<Transformed, Fault>;

    /// What somebody should know of the last batches, a sentence each; told once.
    fn notices(&mut self) -> Vec<String> {
        Vec::new()
    }

    /// What was transformed last may not have arrived and come again: whatever was learnt from it does not hold any more.
    fn forget(&mut self) {}
}
