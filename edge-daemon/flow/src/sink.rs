//! Where records go.

use async_trait::async_trait;
use bus_schema::{data::Batch, id::StreamId};
use serde::{Deserialize, Serialize};

use crate::{
    Fault,
    check::{self, Trouble},
    source::Position,
};

/// One batch on its way into a sink.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The lineage: every batch of one pipe into one sink has the same, and each lineage has its own watermark.
    pub stream: StreamId,
    /// Number of the batch within the lineage, rising by at least 1.
    pub seq: u64,
    /// The pipe's source position after this batch, to be stored with the watermark. Of a part of a read
    /// ([`Position::is_part`]) it is none to go on from: the rest is in the same call of [`Sink::write`].
    pub position: Position,
    /// The records.
    pub batch: Batch,
    /// What else it settles.
    pub tally: Tally,
    /// About how many bytes the batch takes ([`Batch::about_bytes`]); for counts only.
    pub bytes: usize,
}

/// What a delivery settles besides the records in it. The destination adds it to its watermark.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records that went to the dead letters before they came here.
    pub dead: u64,
    /// Records that will never come: a gap in the stream said so.
    pub dropped: u64,
    /// Records that came again and were recognised.
    pub duplicates: u64,
    /// Records that do not come (again): an earlier life of this destination has confirmed them.
    pub settled: u64,
    /// Gap records met.
    pub gaps: u64,
    /// Records that transforms left out on the way, as the workflow wants it, less those that they made: what came to them
    /// is this and what goes on and what died. Below 0 when they made more.
    pub filtered: i64,
    /// Dead letters that are tried again with this delivery: they count as dead no more.
    pub revived: u64,
    /// The highest replay number among them; 0 when there are none.
    pub replay: u64,
}

impl Tally {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            dead: self.dead + other.dead,
            dropped: self.dropped + other.dropped,
            duplicates: self.duplicates + other.duplicates,
            settled: self.settled + other.settled,
            gaps: self.gaps + other.gaps,
            filtered: self.filtered + other.filtered,
            revived: self.revived + other.revived,
            replay: self.replay.max(other.replay),
        }
    }
}

/// A record the destination cannot hold. Its neighbours pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Which delivery of the call, by index.
    pub delivery: usize,
    /// Which row of its batch.
    pub row: usize,
    /// Why, for a person.
    pub reason: String,
}

/// How far a lineage has come in a sink. Sinks with transactions store it in the same transaction as the records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watermark {
    /// The last durable delivery's seq.
    pub seq: u64,
    /// Its position.
    #[serde(with = "position_bytes")]
    pub position: Position,
    /// Records made durable so far.
    pub delivered: u64,
    /// The rest of the account.
    pub counts: Counts,
}

/// What a watermark counts besides what was delivered. Sinks store it as it is ([`Counts::encode`]).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Records in the dead letters.
    pub dead: u64,
    /// Records that never came, each reported by a gap.
    pub dropped: u64,
    /// Records that came again and were recognised.
    pub duplicates: u64,
    /// Of those delivered: known only by the producer's word.
    pub unconfirmed: u64,
    /// Gap records met.
    pub gaps: u64,
    /// The highest replay number of a dead letter that was delivered after all.
    pub replay: u64,
    /// Records that transforms between source and destination left out, less those that they made.
    #[serde(with = "as_unsigned")]
    pub filtered: i64,
}

impl Counts {
    /// Bytes for a sink to store.
    pub fn encode(&self) -> Vec<u8> {
        bus_schema::encode(self)
    }

    /// The counts after a delivery that settles this, and of whose rows the sink rejected `rejected`.
    #[must_use]
    pub fn after(self, tally: Tally, rejected: u64) -> Self {
        Self {
            dead: (self.dead + tally.dead + rejected).saturating_sub(tally.revived),
            dropped: self.dropped + tally.dropped,
            duplicates: self.duplicates + tally.duplicates,
            unconfirmed: self.unconfirmed + tally.settled,
            gaps: self.gaps + tally.gaps,
            replay: self.replay.max(tally.replay),
            filtered: self.filtered + tally.filtered,
        }
    }

    /// Reads stored bytes; what is not readable counts as nothing.
    pub fn decode(bytes: &[u8]) -> Self {
        bus_schema::decode(bytes).unwrap_or_default()
    }
}

impl Watermark {
    /// The watermark after `delivery`, of whose rows the sink rejected `rejected`.
    #[must_use]
    pub fn after(&self, delivery: &Delivery, rejected: u64) -> Self {
        let tally = delivery.tally;
        Self {
            seq: delivery.seq,
            position: delivery.position.clone(),
            delivered: self.delivered + (delivery.batch.rows() as u64).saturating_sub(rejected) + tally.settled,
            counts: self.counts.after(tally, rejected),
        }
    }
}

/// As it was stored when nothing could be made: what is 0 or more has the same bytes.
mod as_unsigned {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(number: &i64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(number.cast_unsigned())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
        u64::deserialize(deserializer).map(u64::cast_signed)
    }
}

mod position_bytes {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Position;

    pub fn serialize<S: Serializer>(position: &Position, serializer: S) -> Result<S::Ok, S::Error> {
        position.as_bytes().serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Position, D::Error> {
        Vec::<u8>::deserialize(deserializer).map(Position::new)
    }
}

/// See [`Sink::gathered`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gathered {
    /// The watermark of all that was committed.
    pub mark: Watermark,
    /// All of it is durable.
    pub is_durable: bool,
}

/// Writes records to a system, in two steps: `write` takes them, `commit` makes them durable.
///
/// The runner calls one method at a time: `open`, `watermark` for each lineage, then `write`, `commit`, `write`, ….
/// After any fault it calls `close` and `open`, reads the watermarks again, and repeats what is above them.
#[async_trait]
pub trait Sink: Send {
    /// Connects; creates or checks what has to exist. An unfinished earlier `write` is undone.
    async fn open(&mut self) -> Result<(), Fault>;

    /// How far this lineage has come, read from the destination itself; `None` when it never delivered anything.
    /// Sinks that cannot keep it there leave [`Sink::keeps_watermark`] false, and the runner keeps it for them.
    async fn watermark(&mut self, stream: &StreamId) -> Result<Option<Watermark>, Fault> {
        let _ = stream;
        Ok(None)
    }

    /// Whether the watermark is stored with the records (exactly once) or by the runner (at least once).
    fn keeps_watermark(&self) -> bool {
        false
    }

    /// The records that `write` will return as rejected, as far as that is known without writing. Their letters are kept
    /// first. Only sinks whose `write` is durable before `commit` (spools) need it: a crash behind it would else leave a
    /// watermark that counts a dead letter nobody has.
    fn refuses(&self, deliveries: &[Delivery]) -> Vec<Rejected> {
        let _ = deliveries;
        Vec::new()
    }

    /// Takes deliveries in order, and with them the watermarks they lead to (see [`Watermark::after`]), without making
    /// anything visible that a crash now would leave behind, where the system allows that.
    /// One whose `write` is durable before `commit` keeps no part of a read without its rest ([`Position::is_part`]).
    /// Returns the records it cannot hold; the runner puts them into the dead letters before it calls `commit`.
    async fn write(&mut self, deliveries: &[Delivery]) -> Result<Vec<Rejected>, Fault>;

    /// After a fault: whether what has come meanwhile of this lineage shall be written together with what failed. Others that go
    /// through, or do not, tell whether a record is to blame or the system.
    fn wants_company(&self, stream: &StreamId) -> bool {
        let _ = stream;
        false
    }

    /// Makes everything written durable. When this returns, power may fail (except for what is [`Sink::gathered`]).
    async fn commit(&mut self) -> Result<(), Fault>;

    /// Where a lineage stands in a sink that gathers, because its system takes only something larger than a commit (an
    /// object). What is gathered becomes durable by a commit that finds it large or old enough, all of a lineage at once.
    /// Until then the runner leaves watermark and source where they are, and goes on committing. What is gathered survives
    /// [`Sink::close`]; a crash it does not, and is read again. `None`: every commit makes everything durable.
    fn gathered(&self, stream: &StreamId) -> Option<Gathered> {
        let _ = stream;
        None
    }

    /// A pipe begins, or begins anew, where this lineage stands: what was gathered beyond that comes again. Only sinks that
    /// gather need it.
    fn begin(&mut self, stream: &StreamId, mark: &Watermark) {
        let _ = (stream, mark);
    }

    /// Makes durable what is gathered of a lineage, however little that is: nothing comes after it.
    async fn complete(&mut self, stream: &StreamId) -> Result<(), Fault> {
        let _ = stream;
        Ok(())
    }

    /// The pipe has come to its end, with everything durable: nothing comes any more until it begins anew. Only where others go
    /// on with what comes ([`crate::Junction`]) does that matter.
    fn ended(&mut self) {}

    /// The highest seq of a lineage of which something may have gone out already: there is no going back behind it.
    async fn gone_out(&mut self, stream: &StreamId) -> Result<u64, Fault> {
        let _ = stream;
        Ok(0)
    }

    /// Undoes what a lineage holds above `seq`. Only sinks that can share a source with others (spools) need it: after a
    /// crash between two of them, the one that is ahead goes back. [`Fault::Moved`]: it could not go there, stands somewhere
    /// else now, and all of them have to be brought together anew.
    async fn rewind(&mut self, stream: &StreamId, seq: u64) -> Result<(), Fault> {
        let _ = (stream, seq);
        Err(Fault::stop(
            "this destination cannot share a source with another one without a spool between them",
        ))
    }

    /// Recovery is over, this sink and its siblings stand at the same mark: what it holds may go out.
    fn recovered(&mut self) {}

    /// Whether what is written from here on would be refused with [`Fault::Moved`]: asked while nothing comes to be written.
    fn has_moved(&self) -> bool {
        false
    }

    /// Whether a commit has something to do though nothing was written: a file has become old enough to be complete. Asked while
    /// nothing comes to be written.
    fn is_due(&self) -> bool {
        false
    }

    /// Whether it would work here and now: what was seen, for a person, or what is wrong and how to mend it. Called instead of
    /// `open`, by somebody who waits ([`check::check_sink`]), also while the same destination runs elsewhere. Touches no data:
    /// nothing is written, made or undone. Where `open` does any of that, this must not be left as it is.
    async fn check(&mut self) -> Result<String, Trouble> {
        let opened = self.open().await;
        self.close().await;
        check::opened(opened)
    }

    /// Lets go of connections and files.
    async fn close(&mut self) {}
}
