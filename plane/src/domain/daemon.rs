//! What one daemon has said of itself, and what it has to be told or asked. Knows nothing of streams and plans' contents.

use std::sync::Arc;

use bus_schema::{
    api::Presence,
    limits::PLAN_WORKFLOWS_MAX,
    message::{Status, WorkflowStatus},
    plan::Descriptor,
};

use super::{Now, clip, lineage::Lineage, presence::Lease};

/// The roster, or the question for the catalog, goes to one daemon at most this often, in milliseconds.
pub const AGAIN_MS: u64 = 4_000;
/// Most components believed of one daemon.
const COMPONENTS_MAX: usize = 1_024;

/// The components a daemon carries, shared by all daemons that carry the same.
pub type Catalog = Arc<[Descriptor]>;

/// One daemon, as far as it has spoken.
#[derive(Debug, Clone, Default)]
pub struct Daemon {
    lease: Lease,
    last: Option<Status>,
    heard_unix_ms: Option<i64>,
    clock_offset_ms: i64,
    catalog: Option<([u8; 32], Catalog)>,
    catalog_asked_ms: Option<u64>,
    roster_sent_ms: Option<u64>,
    unsaved: bool,
    lineage: Lineage,
}

fn due(last_ms: &mut Option<u64>, now_ms: u64) -> bool {
    let due = last_ms.is_none_or(|last| now_ms.saturating_sub(last) >= AGAIN_MS);
    if due {
        *last_ms = Some(now_ms);
    }
    due
}

impl Daemon {
    /// As it was before a restart: its presence is unknown until it speaks.
    pub fn recall(&mut self, status: Status, heard_unix_ms: i64) {
        self.last = Some(status);
        self.heard_unix_ms = Some(heard_unix_ms);
    }

    /// A status came in. `false` when a newer one has come before it.
    pub fn heard(&mut self, mut status: Status, now: Now) -> bool {
        let heard_since_start = self.lease.silent_ms(now.mono_ms).is_some();
        let outdated = self
            .last
            .as_ref()
            .is_some_and(|last| heard_since_start && (status.boot, status.uptime_ms) < (last.boot, last.uptime_ms));
        self.lineage.heard(&status, !outdated, now);
        if outdated {
            return false;
        }
        self.lease.heard(now.mono_ms, status.lease_ms);
        self.heard_unix_ms = Some(now.unix_ms);
        self.clock_offset_ms = status.unix_ms.saturating_sub(now.unix_ms);
        status.workflows.truncate(PLAN_WORKFLOWS_MAX);
        for workflow in &mut status.workflows {
            workflow.cause = clip(&workflow.cause);
        }
        status.version = clip(&status.version);
        status.plan_error = clip(&status.plan_error);
        self.last = Some(status);
        self.unsaved = true;
        true
    }

    /// Time has passed.
    pub fn tick(&mut self, now_ms: u64) {
        self.lease.tick(now_ms);
    }

    /// Is it there?
    pub fn presence(&self) -> Presence {
        self.lease.state()
    }

    /// A genuine status came in that was refused, because what it counts as its messages had been used before.
    pub fn refused(&mut self, status: &Status, now: Now) {
        self.lineage.heard(status, false, now);
    }

    /// Whether two use its keys.
    pub fn is_cloned(&self, now_ms: u64) -> bool {
        self.lineage.is_cloned(now_ms)
    }

    /// Whether what it said last may be taken for how it is.
    pub fn is_believed(&self) -> bool {
        matches!(self.presence(), Presence::Online | Presence::Late)
    }

    /// Its last status, perhaps from before the plane's restart.
    pub fn last(&self) -> Option<&Status> {
        self.last.as_ref()
    }

    /// What it last said of one workflow.
    pub fn workflow(&self, id: &bus_schema::id::WorkflowId) -> Option<&WorkflowStatus> {
        self.last
            .as_ref()?
            .workflows
            .iter()
            .find(|workflow| workflow.workflow == *id)
    }

    /// Milliseconds since it was last heard: by the plane's own count, or, from before its restart, by the wall clock.
    pub fn silent_ms(&self, now: Now) -> Option<u64> {
        let by_wall = || {
            self.heard_unix_ms
                .map(|heard| u64::try_from(now.unix_ms.saturating_sub(heard)).unwrap_or(0))
        };
        self.lease.silent_ms(now.mono_ms).or_else(by_wall)
    }

    /// Its wall clock minus the plane's, in milliseconds.
    pub fn clock_offset_ms(&self) -> i64 {
        self.clock_offset_ms
    }

    /// Its components; `None` when it has never told them.
    pub fn catalog(&self) -> Option<&Catalog> {
        self.catalog.as_ref().map(|(_, catalog)| catalog)
    }

    /// Takes its components.
    pub fn set_catalog(&mut self, hash: [u8; 32], catalog: Catalog) {
        self.catalog = Some((hash, catalog));
    }

    /// Its components with the hash it announced.
    pub fn catalog_with_hash(&self) -> Option<&([u8; 32], Catalog)> {
        self.catalog.as_ref()
    }

    /// The hash of its catalog, if its last status shows one that is not known.
    pub fn unknown_catalog(&self) -> Option<[u8; 32]> {
        let announced = self.last.as_ref()?.catalog;
        let is_known = self.catalog.as_ref().is_some_and(|(hash, _)| *hash == announced);
        (!is_known).then_some(announced)
    }

    /// The catalog to ask for now, if its last status shows one that is not known.
    pub fn catalog_to_ask(&mut self, now_ms: u64) -> Option<[u8; 32]> {
        let announced = self.unknown_catalog()?;
        due(&mut self.catalog_asked_ms, now_ms).then_some(announced)
    }

    /// Whether to send it the roster now: its last status shows an older one.
    pub fn wants_roster(&mut self, version: u64, now_ms: u64) -> bool {
        self.last.as_ref().is_some_and(|last| last.roster_version < version) && due(&mut self.roster_sent_ms, now_ms)
    }

    /// Whether it has spoken since the last call: then its words should be stored.
    pub fn take_unsaved(&mut self) -> bool {
        std::mem::take(&mut self.unsaved)
    }

    /// When it was last heard, milliseconds since 1970.
    pub fn heard_unix_ms(&self) -> Option<i64> {
        self.heard_unix_ms
    }
}

/// A catalog as it is kept: bounded, and the same memory for the same content.
pub fn share(mut components: Vec<Descriptor>, known: impl Iterator<Item = Catalog>) -> Catalog {
    components.truncate(COMPONENTS_MAX);
    known
        .into_iter()
        .find(|catalog| **catalog == components[..])
        .unwrap_or_else(|| components.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::testing::status;

    fn at(mono_ms: u64) -> Now {
        Now {
            mono_ms,
            unix_ms: 1_000_000 + mono_ms as i64,
        }
    }

    fn remembered(status: Status, heard_unix_ms: i64) -> Daemon {
        let mut daemon = Daemon::default();
        daemon.recall(status, heard_unix_ms);
        daemon
    }

    #[test]
    fn a_status_that_was_overtaken_is_ignored() {
        let mut daemon = Daemon::default();
        // (boot, uptime, taken)
        for (boot, uptime, taken) in [
            (3, 10, true),
            (3, 9, false),
            (3, 10, true),
            (4, 0, true),
            (3, 99, false),
            (4, 5, true),
        ] {
            assert_eq!(daemon.heard(status(boot, uptime, 0), at(0)), taken, "{boot} {uptime}");
        }
        // What is remembered from before a restart is no yardstick: the daemon's disk may have been replaced since.
        let mut daemon = remembered(status(9, 9, 0), 0);
        assert!(daemon.heard(status(1, 0, 0), at(0)));
    }

    #[test]
    fn after_a_restart_it_is_unknown_but_was_seen() {
        let mut daemon = remembered(status(1, 0, 7), 940_000);
        daemon.tick(0);
        assert_eq!(
            (daemon.presence(), daemon.silent_ms(at(0))),
            (Presence::Unknown, Some(60_000))
        );
        assert!(!daemon.is_believed());
        daemon.heard(status(1, 5, 7), at(500));
        assert_eq!(
            (daemon.presence(), daemon.silent_ms(at(600))),
            (Presence::Online, Some(100))
        );
        // A wall clock that went back gives no negative time.
        assert_eq!(remembered(status(1, 0, 7), 2_000_000).silent_ms(at(0)), Some(0));
    }

    #[test]
    fn asks_and_tells_with_pauses() {
        let mut daemon = Daemon::default();
        assert_eq!((daemon.catalog_to_ask(0), daemon.wants_roster(9, 0)), (None, false));
        daemon.heard(status(1, 0, 0), at(0));
        assert_eq!(
            (daemon.catalog_to_ask(0), daemon.wants_roster(2, 0)),
            (Some([0; 32]), true)
        );
        assert_eq!(
            (
                daemon.catalog_to_ask(AGAIN_MS - 1),
                daemon.wants_roster(2, AGAIN_MS - 1)
            ),
            (None, false)
        );
        assert_eq!(
            (daemon.catalog_to_ask(AGAIN_MS), daemon.wants_roster(2, AGAIN_MS)),
            (Some([0; 32]), true)
        );
        daemon.set_catalog([0; 32], share(Vec::new(), std::iter::empty()));
        assert_eq!(
            (daemon.catalog_to_ask(100_000), daemon.wants_roster(1, 100_000)),
            (None, false)
        );
    }

    #[test]
    fn what_is_said_is_bounded() {
        let mut daemon = Daemon::default();
        let id = bus_schema::id::WorkflowId::of_name("a");
        let one = WorkflowStatus {
            workflow: id,
            revision: 1,
            state: bus_schema::message::RunState::Failed,
            cause: "ä".repeat(100_000),
        };
        let mut long = status(1, 0, 0);
        long.workflows = vec![one; PLAN_WORKFLOWS_MAX + 5];
        daemon.heard(long, at(0));
        assert_eq!(daemon.last().map(|last| last.workflows.len()), Some(PLAN_WORKFLOWS_MAX));
        assert!(
            daemon
                .workflow(&id)
                .is_some_and(|w| w.cause.len() <= bus_schema::limits::TEXT_BYTES_MAX)
        );
    }
}
