//! Named moments at which a process can be killed, to prove that none of them loses or doubles anything.
//!
//! A debug build that is started with `MYCELIAL_CRASH_AT=spool.append.before_sync` (or
//! `spool.append.before_sync:3`, for the third time it gets there) ends itself there with SIGKILL: no destructor runs and
//! nothing is flushed, as in a power cut that spares what the kernel has been given. In a release, which is what users run,
//! [`at!`] is nothing.
//!
//! `MYCELIAL_HASTE=12` lets long waits of such a build pass twelve times as fast: see [`haste`].
//!
//! A new moment is a line in the table below and an `at!` where it is; the test that dies at each of them then fails until
//! it has a job that gets there.

/// Ends the process here when it was told to. The name is one of [`Point`].
#[macro_export]
macro_rules! at {
    ($point:ident) => {
        $crate::reached($crate::Point::$point)
    };
}

macro_rules! points {
    ($($variant:ident $name:literal $doc:literal)*) => {
        /// A moment.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Point {
            $(#[doc = $doc] $variant,)*
        }

        impl Point {
            /// All of them, in the order of the table.
            pub const ALL: &[Point] = &[$(Point::$variant,)*];

            /// What it is called on the outside.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Point::$variant => $name,)*
                }
            }
        }
    };
}

points! {
    SpoolAppendBeforeWrite "spool.append.before_write" "A group has its seqs and nothing of it is written."
    SpoolAppendBeforeSync "spool.append.before_sync" "A group is with sled and not with the kernel."
    SpoolSyncBeforeFsync "spool.sync.before_fsync" "The kernel has everything, the disk may not."
    SpoolAppendAfterSync "spool.append.after_sync" "A group is durable, and the hint beside it is old."
    SpoolCreateBeforeSync "spool.create.before_sync" "A new segment exists and is not durable."
    SpoolCreateAfterSync "spool.create.after_sync" "A new segment is durable and empty."
    SpoolSealBefore "spool.seal.before" "A segment is complete and has no seal."
    SpoolSealBeforeSync "spool.seal.before_sync" "A seal is written and not durable."
    SpoolSealAfter "spool.seal.after" "A segment has its seal."
    SpoolTrimBeforeLedger "spool.trim.before_ledger" "Frames are settled, and the spool has not stored that."
    SpoolTrimAfterLedger "spool.trim.after_ledger" "It is stored that frames are settled; their segments are there."
    SpoolDropBeforeLedger "spool.drop.before_ledger" "The oldest frames are to be given up, and the spool has not stored that."
    SpoolDropAfterLedger "spool.drop.after_ledger" "It is stored that frames are given up; their segments are there."
    SpoolRetireAfterRename "spool.retire.after_rename" "A settled segment has been renamed to `dead.N`."
    SpoolRetireAfterRemove "spool.retire.after_remove" "A settled segment is gone."
    SpoolTruncateBefore "spool.truncate.before" "Groups are to be taken back, and the hint still knows them."
    SpoolTruncateAfterHint "spool.truncate.after_hint" "The hint has forgotten groups that are still there."
    SpoolTruncateAfterCut "spool.truncate.after_cut" "Groups have been taken back."

    LineageBeforeStore "lineage.before_store" "A stream has made a key and epoch of its own and not stored them."
    LineageAfterStore "lineage.after_store" "A stream has stored its key and epoch."
    OutgoingAfterAppend "outgoing.after_append" "Frames are durable and may not be sent yet."
    OutgoingAfterDrop "outgoing.after_drop" "The oldest frames are given up, and what needs their room is not written."
    OutgoingBeforeRelease "outgoing.before_release" "Every leaf has the records; nothing was let go."
    OutgoingAfterRelease "outgoing.after_release" "Frames may be sent; the source does not know."
    OutgoingAfterSend "outgoing.after_send" "A frame has been handed to the bus."
    OutgoingBeforeTrim "outgoing.before_trim" "A watermark has come and nothing is given back."

    IncomingAfterQueue "incoming.after_queue" "A frame has been received and counted."
    IncomingBeforeHandOver "incoming.before_hand_over" "A batch is whole and goes to the pipe."
    IncomingBeforeAck "incoming.before_ack" "The destination has committed, and nobody was told."
    IncomingAfterAck "incoming.after_ack" "The acknowledgement is on its way."

    RunnerAfterWrite "runner.after_write" "A destination has been written to and has not committed."
    RunnerBetweenLeaves "runner.between_leaves" "One leaf of several has written."
    RunnerAfterLetters "runner.after_letters" "Dead letters are kept, and their records are not committed."
    RunnerAfterCommit "runner.after_commit" "A destination has committed, and nobody knows."
    RunnerBeforeSettle "runner.before_settle" "A dead letter was tried again and is in, and is kept all the same."
    RunnerAfterSettle "runner.after_settle" "A dead letter that is in is kept no more, and the source does not know."
    RunnerBeforeCheckpoint "runner.before_checkpoint" "The destination cannot keep its watermark, which is old."
    RunnerAfterCheckpoint "runner.after_checkpoint" "The watermark is kept for it."
    RunnerBeforeSourceCommit "runner.before_source_commit" "Every leaf has committed, and the source has not."
    RunnerAfterSourceCommit "runner.after_source_commit" "The source has committed."

    SqliteBeforeWatermark "sqlite.before_watermark" "Rows are in the transaction, the watermark is not."
    SqliteBeforeCommit "sqlite.before_commit" "Rows and watermark are in the transaction."
    SqliteAfterCommit "sqlite.after_commit" "The transaction is durable."
    PostgresBeforeWatermark "postgres.before_watermark" "Rows are in the transaction, the watermark is not."
    PostgresBeforeCommit "postgres.before_commit" "Rows and watermark are in the transaction."
    PostgresAfterCommit "postgres.after_commit" "The transaction is durable."
    FileBeforeSync "file.before_sync" "Records are in the file and not durable."
    FileBeforeLedger "file.before_ledger" "Records are durable, and not covered by the ledger."
    FileAfterLedger "file.after_ledger" "Records are covered; renames are still to be done."
    FileRotateAfterRename "file.rotate.after_rename" "A complete file has its number; the ledger does not know."
    FileRotateAfterLedger "file.rotate.after_ledger" "A rotation is done."
    FilesBeforeDealt "files.before_dealt" "A whole file is durable elsewhere, and here as it was."
    FilesAfterDealt "files.after_dealt" "It is remembered, deleted or moved."

    S3BeforeComplete "s3.before_complete" "All parts of an object are uploaded, and it is not there yet."
    S3AfterComplete "s3.after_complete" "An object is there, and nobody knows."
    JoinBeforeCommit "join.before_commit" "A join has taken records and a watermark, in its transaction."
    JoinAfterCommit "join.after_commit" "A join's transaction is durable."

    HomeBeforeRename "home.before_rename" "A file of a member's directory has a successor beside it."
    HomeAfterRename "home.after_rename" "A file of a member's directory has been replaced."
    EpochAfterStore "epoch.after_store" "This start has been counted."
    RosterBeforeStore "roster.before_store" "A newer roster has been checked and not stored."
    RosterAfterStore "roster.after_store" "A newer roster is stored and not acted on."
    RotateAfterOffer "rotate.after_offer" "New keys are kept, and nobody has heard of them."
    RotateAfterFormer "rotate.after_former" "The keys in use are kept beside themselves, and are in use still."
    RotateAfterFlip "rotate.after_flip" "The new certificate is in force, and the old keys are in their place."
    RotateAfterKeys "rotate.after_keys" "The new keys are in place, and still among those that are offered."
    RotateBeforeForget "rotate.before_forget" "The old keys are no good any more, and are there."
    RotateAmidForget "rotate.amid_forget" "Of the old keys one of two copies is gone."
    PlanBeforeStore "plan.before_store" "A newer plan has been checked and not stored."
    PlanAfterStore "plan.after_store" "A newer plan is stored and not acted on."
    LettersBeforeSync "letters.before_sync" "Dead letters are written and not durable."
    LettersAfterSync "letters.after_sync" "Dead letters are durable."

    PlaneBeforeCommit "plane.before_commit" "A change is in the plane's transaction."
    PlaneAfterCommit "plane.after_commit" "A change is durable, and nobody was told."
}

/// How many times faster than the clock long waits pass: what a test would have to wait minutes for. In a release always 1.
#[cfg(not(all(unix, debug_assertions)))]
#[inline(always)]
pub const fn haste() -> u64 {
    1
}

/// Does nothing: this program was built for users.
#[cfg(not(all(unix, debug_assertions)))]
#[inline(always)]
pub fn reached(_: Point) {}

#[cfg(all(unix, debug_assertions))]
pub use armed::{haste, reached};

#[cfg(all(unix, debug_assertions))]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::Point;

    const VARIABLE: &str = "MYCELIAL_CRASH_AT";
    const HASTE: &str = "MYCELIAL_HASTE";

    /// How many times faster than the clock long waits pass.
    pub fn haste() -> u64 {
        static HASTE_ASKED: OnceLock<u64> = OnceLock::new();
        *HASTE_ASKED.get_or_init(|| {
            let Ok(text) = std::env::var(HASTE) else { return 1 };
            text.parse().ok().filter(|times| *times > 0).unwrap_or_else(|| {
                eprintln!("{HASTE}: '{text}' is no number from 1");
                std::process::abort();
            })
        })
    }

    /// Where to end, and how many times to get there first.
    fn order() -> Option<(Point, u64)> {
        static ORDER: OnceLock<Option<(Point, u64)>> = OnceLock::new();
        *ORDER.get_or_init(|| {
            let text = std::env::var(VARIABLE).ok()?;
            let order = parse(&text);
            if order.is_none() {
                eprintln!("{VARIABLE}: '{text}' is no crash point");
                // Not the end that was asked for, so that the test fails and shows what was said.
                std::process::abort();
            }
            order
        })
    }

    pub(super) fn parse(text: &str) -> Option<(Point, u64)> {
        let (name, times) = match text.split_once(':') {
            Some((name, times)) => (name, times.parse().ok().filter(|times| *times > 0)?),
            None => (text, 1),
        };
        let point = Point::ALL.iter().find(|point| point.name() == name)?;
        Some((*point, times))
    }

    /// Ends the process when this is where it was told to end.
    pub fn reached(point: Point) {
        static TIMES: AtomicU64 = AtomicU64::new(0);
        let Some((wanted, times)) = order() else { return };
        if wanted != point || TIMES.fetch_add(1, Ordering::SeqCst) + 1 != times {
            return;
        }
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        // The signal takes a moment; nothing may be done in it.
        loop {
            std::thread::park();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_different_and_look_alike() {
        let mut names: Vec<_> = Point::ALL.iter().map(|point| point.name()).collect();
        for name in &names {
            let parts: Vec<_> = name.split('.').collect();
            assert!((2..=3).contains(&parts.len()), "{name}");
            let is_word = |part: &&str| {
                !part.is_empty()
                    && part
                        .bytes()
                        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            };
            assert!(parts.iter().all(is_word), "{name}");
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Point::ALL.len());
    }

    #[cfg(all(unix, debug_assertions))]
    #[test]
    fn orders() {
        assert_eq!(armed::parse("plan.before_store"), Some((Point::PlanBeforeStore, 1)));
        assert_eq!(armed::parse("plan.before_store:3"), Some((Point::PlanBeforeStore, 3)));
        for wrong in [
            "",
            "plan",
            "plan.before_store:0",
            "plan.before_store:x",
            "plan.before_stor",
        ] {
            assert_eq!(armed::parse(wrong), None, "{wrong}");
        }
    }
}
