//! The processes are killed at every named moment, one after the other. Each time they are started again and go on, and
//! then the oracle and the ledger are asked: nothing is lost, doubled, altered or out of order.
//!
//! A moment that is not reached is a failing test that names it, and so is one that no job here gets to.

#![cfg(target_os = "linux")]

mod files;
mod joins;
mod objects;
mod windows;
mod world;

use std::collections::BTreeSet;

use crash_point::Point;
use testkit::soak::Victim;

use world::World;

/// What makes a process get there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Job {
    /// Rows on their way to all destinations.
    Flow,
    /// A new workflow is deployed.
    Deploy,
    /// A member is revoked, which everybody is told.
    Revoke,
    /// A daemon gets new keys.
    Rotate,
    /// A destination refuses one row in ten.
    Refuse,
    /// What a destination has refused is tried again, once it refuses it no more.
    Replay,
    /// A destination that cannot keep its watermark.
    Print,
    /// A buffer is over its quota while nobody receives, and gives up the oldest.
    Overfill,
    /// The streams of a pipe differ, because an earlier crash came between them.
    Level,
}

/// The moment, how many times it is passed before, who dies, and on what occasion.
type Case = (Point, u64, Victim, Job);

const GATEWAY_SPOOLS: &[Case] = &[
    (Point::SpoolAppendBeforeWrite, 2, Victim::Gateway, Job::Flow),
    (Point::SpoolAppendBeforeSync, 2, Victim::Gateway, Job::Flow),
    (Point::SpoolSyncBeforeFsync, 1, Victim::Gateway, Job::Flow),
    (Point::SpoolSyncBeforeFsync, 7, Victim::Gateway, Job::Flow),
    (Point::SpoolAppendAfterSync, 2, Victim::Gateway, Job::Flow),
    (Point::SpoolCreateBeforeSync, 1, Victim::Gateway, Job::Flow),
    (Point::SpoolCreateAfterSync, 1, Victim::Gateway, Job::Flow),
    (Point::SpoolSealBefore, 1, Victim::Gateway, Job::Flow),
    (Point::SpoolSealBeforeSync, 1, Victim::Gateway, Job::Flow),
    (Point::SpoolSealAfter, 1, Victim::Gateway, Job::Flow),
    (Point::SpoolTrimBeforeLedger, 1, Victim::Gateway, Job::Flow),
    (Point::SpoolTrimAfterLedger, 1, Victim::Gateway, Job::Flow),
    (Point::SpoolRetireAfterRename, 1, Victim::Gateway, Job::Flow),
    (Point::SpoolRetireAfterRemove, 1, Victim::Gateway, Job::Flow),
    (Point::SpoolTruncateBefore, 1, Victim::Gateway, Job::Level),
    (Point::SpoolTruncateAfterHint, 1, Victim::Gateway, Job::Level),
    (Point::SpoolTruncateAfterCut, 1, Victim::Gateway, Job::Level),
];

const GATEWAY_SENDS: &[Case] = &[
    (Point::OutgoingAfterAppend, 1, Victim::Gateway, Job::Flow),
    (Point::OutgoingAfterAppend, 5, Victim::Gateway, Job::Flow),
    (Point::OutgoingBeforeRelease, 1, Victim::Gateway, Job::Flow),
    (Point::OutgoingBeforeRelease, 2, Victim::Gateway, Job::Flow),
    (Point::OutgoingAfterRelease, 1, Victim::Gateway, Job::Flow),
    (Point::OutgoingAfterSend, 1, Victim::Gateway, Job::Flow),
    (Point::OutgoingAfterSend, 9, Victim::Gateway, Job::Flow),
    (Point::OutgoingBeforeTrim, 1, Victim::Gateway, Job::Flow),
    (Point::OutgoingBeforeTrim, 4, Victim::Gateway, Job::Flow),
    (Point::RunnerAfterWrite, 1, Victim::Gateway, Job::Flow),
    (Point::RunnerBetweenLeaves, 1, Victim::Gateway, Job::Flow),
    (Point::RunnerBetweenLeaves, 2, Victim::Gateway, Job::Flow),
    (Point::RunnerAfterCommit, 2, Victim::Gateway, Job::Flow),
    (Point::RunnerBeforeSourceCommit, 1, Victim::Gateway, Job::Flow),
    (Point::RunnerAfterSourceCommit, 1, Victim::Gateway, Job::Flow),
];

const HUB: &[Case] = &[
    (Point::IncomingAfterQueue, 1, Victim::Hub, Job::Flow),
    (Point::IncomingAfterQueue, 6, Victim::Hub, Job::Flow),
    (Point::IncomingBeforeHandOver, 2, Victim::Hub, Job::Flow),
    (Point::IncomingBeforeAck, 1, Victim::Hub, Job::Flow),
    (Point::IncomingBeforeAck, 5, Victim::Hub, Job::Flow),
    (Point::IncomingAfterAck, 1, Victim::Hub, Job::Flow),
    (Point::RunnerAfterWrite, 2, Victim::Hub, Job::Flow),
    (Point::RunnerAfterCommit, 3, Victim::Hub, Job::Flow),
    (Point::RunnerBeforeSourceCommit, 2, Victim::Hub, Job::Flow),
    (Point::SqliteBeforeWatermark, 2, Victim::Hub, Job::Flow),
    (Point::SqliteBeforeCommit, 2, Victim::Hub, Job::Flow),
    (Point::SqliteAfterCommit, 2, Victim::Hub, Job::Flow),
    (Point::PostgresBeforeWatermark, 2, Victim::Hub, Job::Flow),
    (Point::PostgresBeforeCommit, 2, Victim::Hub, Job::Flow),
    (Point::PostgresAfterCommit, 2, Victim::Hub, Job::Flow),
    (Point::FileBeforeSync, 2, Victim::Hub, Job::Flow),
    (Point::FileBeforeLedger, 2, Victim::Hub, Job::Flow),
    (Point::FileAfterLedger, 2, Victim::Hub, Job::Flow),
    (Point::FileRotateAfterRename, 1, Victim::Hub, Job::Flow),
    (Point::FileRotateAfterLedger, 1, Victim::Hub, Job::Flow),
];

const OTHER_OCCASIONS: &[Case] = &[
    (Point::EpochAfterStore, 1, Victim::Gateway, Job::Flow),
    (Point::HomeBeforeRename, 1, Victim::Gateway, Job::Flow),
    (Point::HomeBeforeRename, 2, Victim::Hub, Job::Flow),
    (Point::HomeAfterRename, 1, Victim::Hub, Job::Flow),
    (Point::HomeAfterRename, 3, Victim::Gateway, Job::Flow),
    (Point::PlanBeforeStore, 1, Victim::Gateway, Job::Deploy),
    (Point::PlanAfterStore, 1, Victim::Gateway, Job::Deploy),
    (Point::PlanAfterStore, 1, Victim::Hub, Job::Deploy),
    (Point::LineageBeforeStore, 1, Victim::Gateway, Job::Deploy),
    (Point::LineageAfterStore, 1, Victim::Gateway, Job::Deploy),
    (Point::RosterBeforeStore, 1, Victim::Gateway, Job::Revoke),
    (Point::RosterAfterStore, 1, Victim::Hub, Job::Revoke),
    (Point::RunnerAfterLetters, 1, Victim::Hub, Job::Refuse),
    (Point::LettersBeforeSync, 1, Victim::Hub, Job::Refuse),
    (Point::LettersAfterSync, 1, Victim::Hub, Job::Refuse),
    (Point::RunnerBeforeCheckpoint, 1, Victim::Gateway, Job::Print),
    (Point::RunnerAfterCheckpoint, 1, Victim::Gateway, Job::Print),
    (Point::PlaneBeforeCommit, 1, Victim::Plane, Job::Deploy),
    (Point::PlaneBeforeCommit, 3, Victim::Plane, Job::Deploy),
    (Point::PlaneAfterCommit, 1, Victim::Plane, Job::Deploy),
    (Point::PlaneAfterCommit, 4, Victim::Plane, Job::Deploy),
];

const ROTATIONS: &[Case] = &[
    (Point::RotateAfterOffer, 1, Victim::Gateway, Job::Rotate),
    (Point::RotateAfterFormer, 1, Victim::Gateway, Job::Rotate),
    (Point::RotateAfterFlip, 1, Victim::Hub, Job::Rotate),
    (Point::RotateAfterFlip, 1, Victim::Gateway, Job::Rotate),
    (Point::RotateAfterKeys, 1, Victim::Gateway, Job::Rotate),
    (Point::RotateBeforeForget, 1, Victim::Gateway, Job::Rotate),
    (Point::RotateAmidForget, 1, Victim::Hub, Job::Rotate),
];

const REPLAYS: &[Case] = &[
    (Point::LettersBeforeSync, 1, Victim::Hub, Job::Replay),
    (Point::LettersAfterSync, 2, Victim::Hub, Job::Replay),
    (Point::RunnerAfterWrite, 1, Victim::Hub, Job::Replay),
    (Point::RunnerAfterCommit, 2, Victim::Hub, Job::Replay),
    (Point::RunnerBeforeSettle, 1, Victim::Hub, Job::Replay),
    (Point::RunnerBeforeSettle, 2, Victim::Hub, Job::Replay),
    (Point::RunnerAfterSettle, 1, Victim::Hub, Job::Replay),
];

const DROPS: &[Case] = &[
    (Point::SpoolDropBeforeLedger, 1, Victim::Gateway, Job::Overfill),
    (Point::SpoolDropAfterLedger, 1, Victim::Gateway, Job::Overfill),
    (Point::SpoolDropAfterLedger, 3, Victim::Gateway, Job::Overfill),
    (Point::OutgoingAfterDrop, 1, Victim::Gateway, Job::Overfill),
    (Point::OutgoingAfterDrop, 2, Victim::Gateway, Job::Overfill),
];

const ALL: &[&[Case]] = &[
    GATEWAY_SPOOLS,
    GATEWAY_SENDS,
    HUB,
    OTHER_OCCASIONS,
    ROTATIONS,
    REPLAYS,
    DROPS,
];

#[track_caller]
fn die_at_each(cases: &[Case]) {
    let mut world = World::start();
    for case in cases {
        world.die_and_go_on(*case);
    }
    world.stop();
}

#[test]
fn the_gateway_dies_in_its_spool() {
    die_at_each(GATEWAY_SPOOLS);
}

#[test]
fn the_gateway_dies_while_it_gives_up_the_oldest() {
    die_at_each(DROPS);
}

#[test]
fn the_gateway_dies_while_it_sends() {
    die_at_each(GATEWAY_SENDS);
}

#[test]
fn the_hub_dies_while_it_receives() {
    die_at_each(HUB);
}

#[test]
fn everybody_dies_on_other_occasions() {
    die_at_each(OTHER_OCCASIONS);
}

#[test]
fn daemons_die_while_their_keys_change() {
    die_at_each(ROTATIONS);
}

#[test]
fn the_hub_dies_while_dead_letters_are_tried_again() {
    die_at_each(REPLAYS);
}

#[test]
fn every_moment_has_a_job() {
    let in_the_fleet = ALL.iter().copied().flatten().map(|(point, ..)| point);
    let tested: BTreeSet<&str> = in_the_fleet
        .chain(files::SENDING)
        .chain(joins::JOINING)
        .chain(objects::UPLOADING)
        .map(|point| point.name())
        .collect();
    let missing: Vec<&str> = Point::ALL
        .iter()
        .map(|point| point.name())
        .filter(|name| !tested.contains(name))
        .collect();
    assert!(missing.is_empty(), "nobody dies at {missing:?}: add a case");
}
