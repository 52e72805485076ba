//! Dead letters: what could not go on, why, and how it gets another chance. Keeps nothing: the daemon does.
//!
//! A letter is kept before the delivery it belongs to is committed. When that never happens, because of a crash, the same
//! records are read again and may die again: a letter above the watermark is in doubt until then ([`DeadLetters::begin`]).
//!
//! A letter that is tried again goes into the pipe where it died, between two reads, with a number that only goes up. Each
//! leaf stores the highest number with the records ([`crate::Counts::replay`]), so that after a crash it is known who has it.

use async_trait::async_trait;

use crate::Fault;

/// At which kind of node a letter died.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LetterPoint {
    /// The source's input could not be decoded.
    Source,
    /// A transform failed on the record.
    Transform,
    /// The destination cannot hold the record.
    Destination,
}

/// Tells the letters of one pipe's life apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LetterKey {
    /// The pipe, by its source's name.
    pub root: String,
    /// The way from there to where it died, node by node: `<root>-><transform>-><destination>`.
    pub path: String,
    /// The number of the batch.
    pub seq: u64,
    /// Which row of the batch that came to that node (of a source: which piece of its input).
    pub row: u32,
}

/// A record that could not be delivered, with the reason; kept until a person decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where it died.
    pub key: LetterKey,
    /// At which kind of node.
    pub point: LetterPoint,
    /// Which node.
    pub node: String,
    /// Why.
    pub reason: String,
    /// How often it was tried again before.
    pub replays: u32,
    /// The record: a batch of one row, encoded; or a source's original bytes.
    pub record: Vec<u8>,
}

/// A letter that is to be tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// Which letter.
    pub id: u64,
    /// Its place among all that are tried again; at least 1, durable, never used twice.
    pub number: u64,
    /// The way to where it died.
    pub path: String,
    /// At which kind of node.
    pub point: LetterPoint,
    /// Which node.
    pub node: String,
    /// How often it was tried again before.
    pub replays: u32,
    /// The record.
    pub record: Vec<u8>,
}

/// How far a pipe is with the letters it tries again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stand {
    /// It has seen to everything up to this number.
    pub after: u64,
    /// Numbers up to this one are used up; letters that have none yet get theirs above it.
    pub floor: u64,
    /// Batches up to this one are committed. A letter of a later one may still turn out to be none.
    pub committed: u64,
}

/// Letters to be tried again now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Due {
    /// The letters, by rising number.
    pub replays: Vec<Replay>,
    /// There are others, whose batches are not committed yet.
    pub has_later: bool,
}

/// Keeps dead letters. Everything is durable when it returns.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// The pipe `root` goes on after batch `seq` and uses the numbers above it anew. When the source reads again what was
    /// not committed (`rereads`), its letters above `seq` are in doubt until they come again, each then taking the place of
    /// its former self; otherwise they are letters like any other.
    async fn begin(&self, root: &str, seq: u64, rereads: bool) -> Result<(), Fault>;

    /// Keeps letters. One that is there already, by its key, is not kept twice.
    async fn put(&self, letters: Vec<DeadLetter>) -> Result<(), Fault>;

    /// These were accepted in another attempt, and are no letters any more.
    async fn take_back(&self, keys: Vec<LetterKey>) -> Result<(), Fault>;

    /// Goes up whenever letters are to be tried again. Must return at once.
    fn wishes(&self) -> u64;

    /// Letters of `root` that are to be tried again, lowest number first, a few at a time.
    async fn replays(&self, root: &str, stand: Stand) -> Result<Due, Fault>;

    /// These went in and are durable wherever they belong: they are dead no more.
    async fn settled(&self, ids: Vec<u64>) -> Result<(), Fault>;

    /// This one cannot be tried again; it stays, with the reason, and gives its number up: the next time it gets a new one.
    async fn refuse(&self, id: u64, reason: String) -> Result<(), Fault>;
}
