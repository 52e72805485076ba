//! What a run is made of: which faults may happen, how the streams are set up, and which mistake is built in on purpose.

use crate::dice::Dice;

/// What is done with records that do not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// The source waits.
    Block,
    /// The oldest are given up.
    DropOldest,
    /// Those that do not fit are given up.
    DropNewest,
}

/// A mistake built in on purpose, to see that it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    /// The consumer acknowledges before the destination has committed.
    AckBeforeCommit,
    /// The producer deletes what was received, though it is not durable yet.
    TrimReceived,
    /// A gap record counts twice at the consumer.
    GapTwice,
    /// What is dropped is not told.
    GapUntold,
    /// An acknowledgement of one epoch is taken for another's.
    EpochMixed,
    /// The watermark is stored after the records, not with them.
    MarkApart,
    /// After a crash the leaves of a pipe go on from where each of them is.
    NotLevelled,
    /// Frames may leave before the sibling streams have them.
    SentBeforeSiblings,
    /// The source is told that it may forget before the spool has it.
    SourceCommitFirst,
    /// A producer that lost its buffer does not ask how far the consumer is.
    NotAsked,
    /// What the consumer received last is not compared with what is here.
    NotCompared,
    /// A stream of which nothing is found is taken for a new one, whatever the consumer says.
    FirstBelieved,
    /// A plan is acted on before it is durable.
    PlanActedFirst,
    /// Whatever plan comes is taken.
    AnyPlan,
}

impl Mistake {
    /// All of them, with their names on the command line.
    pub const ALL: &'static [(&'static str, Mistake)] = &[
        ("ack-before-commit", Mistake::AckBeforeCommit),
        ("trim-received", Mistake::TrimReceived),
        ("gap-twice", Mistake::GapTwice),
        ("gap-untold", Mistake::GapUntold),
        ("epoch-mixed", Mistake::EpochMixed),
        ("mark-apart", Mistake::MarkApart),
        ("not-levelled", Mistake::NotLevelled),
        ("sent-before-siblings", Mistake::SentBeforeSiblings),
        ("source-commit-first", Mistake::SourceCommitFirst),
        ("not-asked", Mistake::NotAsked),
        ("not-compared", Mistake::NotCompared),
        ("first-believed", Mistake::FirstBelieved),
        ("plan-acted-first", Mistake::PlanActedFirst),
        ("any-plan", Mistake::AnyPlan),
    ];
}

/// Which faults may happen in a run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Daemons are killed, or lose power.
    pub crashes: bool,
    /// Connections come and go.
    pub links: bool,
    /// The broker loses and doubles messages.
    pub broker: bool,
    /// Destinations fail, also after they have committed.
    pub destination_fails: bool,
    /// A destination is taken back to an older state.
    pub destination_restored: bool,
    /// A destination is deleted.
    pub destination_forgets: bool,
    /// The producer's spool is lost, its key, or both.
    pub spool_lost: bool,
    /// The producer's spool and key are replaced by an older copy.
    pub spool_restored: bool,
    /// Parts of the spool become unreadable.
    pub damage: bool,
}

/// One run.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Streams that one source goes into.
    pub streams: usize,
    /// The source can read again from a position.
    pub replays: bool,
    /// What happens when a spool is full.
    pub policy: Policy,
    /// Frames a spool has room for.
    pub capacity_frames: usize,
    /// Records the source will have.
    pub records: u64,
    /// Events before everything heals.
    pub events: u64,
    /// What may go wrong.
    pub faults: Faults,
    /// What was built in.
    pub mistake: Option<Mistake>,
}

impl Setting {
    /// A run's setting, by chance. In most runs only some kinds of faults happen: so a rare one meets calm water too.
    pub fn draw(dice: &mut Dice, mistake: Option<Mistake>) -> Self {
        let mut often = |of: u64| !dice.once_in(of);
        let faults = Faults {
            crashes: often(4),
            links: often(3),
            broker: often(2),
            destination_fails: often(2),
            destination_restored: !often(4),
            destination_forgets: !often(5),
            spool_lost: !often(4),
            spool_restored: !often(4),
            damage: !often(4),
        };
        Self {
            streams: 1 + dice.below(2) as usize,
            replays: !dice.once_in(4),
            policy: [Policy::Block, Policy::DropOldest, Policy::DropNewest][dice.below(3) as usize],
            capacity_frames: dice.between(24, 60) as usize,
            records: dice.between(20, 150),
            events: dice.between(100, 500),
            faults,
            mistake,
        }
    }

    /// Whether a certain mistake is built in.
    pub fn has(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }
}
