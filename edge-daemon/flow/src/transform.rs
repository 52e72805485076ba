//! What happens to records on the way: functions over batches, and over what they remember.

use bus_schema::data::Batch;

use crate::{Fault, outside::Outside};

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

/// Columns that are not what was agreed about them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drift {
    /// All that differs, and what is done about it.
    pub what: String,
    /// Of that, what was not told before, a sentence each.
    pub news: Vec<String>,
}

/// Changes records, leaves them out, or makes new ones of them and says how many. No I/O, no clock, no waiting. Must give the
/// same result for the same batch after the same state, since both may come again after a crash; one that goes by what came
/// before without keeping it ([`Transform::forget`]) may differ in what it leaves out, if the destination is as right with
/// the one as with the other.
///
/// One that [`Transform::remembers`] has its state stored with the position, in the same transaction or group as the records:
/// what it makes of them is exactly once where they are. How records are cut into batches must not matter to it.
pub trait Transform: Send {
    /// Transforms a batch. A fault is about the config, not about a record.
    fn apply(&mut self, batch: Batch) -> Result<Transformed, Fault>;

    /// How many records of what came of the last batch are new, beyond those that went on: the account needs it. One that
    /// becomes five has made four; five that become one sum are left out, and the sum is made.
    fn made(&mut self) -> usize {
        0
    }

    /// How many rows of the last batch, counted from its end, it has not taken, because what comes of all of them would be too
    /// much for one batch. They come to it again, as a batch of their own, before anything else does; what came of the others
    /// goes ahead of them, and all of it becomes durable together. It takes at least one row of those that it is given, and
    /// nothing of what it says about the batch (what it rejected, made or remembers) is about those that it left.
    fn left(&mut self) -> usize {
        0
    }

    /// The source has come to its end: transforms the last batch, and gives out what was held back for more, unless it left
    /// rows of that batch: these come once more in the same way.
    fn finish(&mut self, batch: Batch) -> Result<Transformed, Fault> {
        self.apply(batch)
    }

    /// Itself, when others do its work and have to be waited for: the runner then never calls [`Transform::apply`].
    fn outside(&mut self) -> Option<&mut dyn Outside> {
        None
    }

    /// What of the last batch is not as its columns are agreed to be; asked after every batch, also one that failed.
    fn drift(&mut self) -> Option<Drift> {
        None
    }

    /// What was transformed last may not have arrived and come again: whatever was learnt from it does not hold any more.
    /// Not called for one that remembers.
    fn forget(&mut self) {}

    /// Whether it has a state that is kept.
    fn remembers(&self) -> bool {
        false
    }

    /// All that later results depend on.
    fn state(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Goes on from a state (`None`: from the beginning) and forgets everything else. A state that is to grow beyond
    /// `room_bytes` has to reject records instead. A fault says that the state cannot be gone on from, and what to do.
    fn restore(&mut self, state: Option<&[u8]>, room_bytes: usize) -> Result<(), Fault> {
        let _ = (state, room_bytes);
        Ok(())
    }
}
