//! How many dead letters the daemons of a workflow keep, as they tell. A stream's ledger goes on counting those that were discarded:
//! it says what became of records, and this what still waits for somebody.

use std::collections::{BTreeMap, BTreeSet};

use bus_schema::{
    carried::LettersKept,
    id::{NodeId, WorkflowId},
};

use super::State;

/// What each daemon has told last.
#[derive(Debug, Clone, Default)]
pub struct Kept(BTreeMap<WorkflowId, BTreeMap<NodeId, u64>>);

impl Kept {
    /// A daemon is gone for good.
    pub fn forget_daemon(&mut self, daemon: &NodeId) {
        self.0.values_mut().for_each(|daemons| {
            daemons.remove(daemon);
        });
    }

    /// A workflow was deleted.
    pub fn forget(&mut self, workflow: &WorkflowId) {
        self.0.remove(workflow);
    }

    fn has_told(&self, workflow: &WorkflowId, daemon: &NodeId) -> bool {
        self.0.get(workflow).is_some_and(|daemons| daemons.contains_key(daemon))
    }
}

impl State {
    /// A daemon told how many dead letters it keeps. Nobody speaks of what it does not run.
    pub fn on_letters_kept(&mut self, node: NodeId, said: &LettersKept) {
        for one in &said.workflows {
            if self.plans.runs(&node, &one.workflow) {
                self.kept.0.entry(one.workflow).or_default().insert(node, one.kept);
            }
        }
    }

    /// Workflows of which a daemon that runs them has, or had, letters and has not told how many it keeps: it has not spoken
    /// since the plane has started, or is older than this message.
    pub(super) fn letters_untold(&self) -> BTreeSet<WorkflowId> {
        let mut untold = BTreeSet::new();
        for (_, stream) in self.streams.iter() {
            let workflow = *stream.workflow();
            let is_untold =
                |daemon: NodeId| self.plans.runs(&daemon, &workflow) && !self.kept.has_told(&workflow, &daemon);
            if stream.keepers().any(is_untold) {
                untold.insert(workflow);
            }
        }
        untold
    }

    /// How many the daemons that run a workflow keep.
    pub(super) fn letters_kept(&self, workflow: &WorkflowId) -> u64 {
        self.letters_kept_by(workflow, |_| true)
    }

    /// The same, of some daemons.
    pub(super) fn letters_kept_by(&self, workflow: &WorkflowId, counts: impl Fn(&NodeId) -> bool) -> u64 {
        let daemons = self.kept.0.get(workflow).into_iter().flatten();
        let running = daemons.filter(|(daemon, _)| counts(daemon) && self.plans.runs(daemon, workflow));
        running.fold(0, |sum, (_, kept)| sum.saturating_add(*kept))
    }
}

#[cfg(test)]
mod tests {
    use bus_schema::{
        carried::WorkflowLetters,
        id::StreamId,
        message::{Ledger, Side, StreamReport},
    };

    use super::*;
    use crate::domain::testing::{at, node, state};

    #[test]
    fn what_was_discarded_is_counted_and_wants_no_look() {
        let mut state = state();
        let report = |dead, dropped| StreamReport {
            stream: StreamId::from_hash(&[1; 32]),
            workflow: WorkflowId::of_name("a"),
            edge: "x->y".into(),
            side: Side::Direct,
            epoch: 1,
            watermark: 9,
            ledger: Ledger {
                produced: 9 + dead + dropped,
                delivered: 9,
                dead,
                dropped,
                ..Ledger::default()
            },
            dead_before: 0,
            settled_earlier: 0,
            dropped_earlier: 0,
            buffered_bytes: 0,
            gaps: 0,
            trouble: String::new(),
        };
        let kept = |kept| LettersKept {
            workflows: ["a", "stranger"]
                .map(|name| WorkflowLetters {
                    workflow: WorkflowId::of_name(name),
                    kept,
                })
                .into(),
        };
        let looks = |state: &State, ms| {
            let workflow = state.workflow_views(at(ms)).remove(0);
            let stream = state.stream_views(None, at(ms)).remove(0);
            let flags = (stream.has_letters.get().copied(), stream.dropped_lately.get().copied());
            (workflow.letters_kept.get().copied(), stream.ledger.dead, flags)
        };
        let flags = |has_letters, dropped_lately| (Some(has_letters), Some(dropped_lately));
        state.on_reports(node(1), 1, vec![report(0, 0)], at(0));
        assert_eq!(looks(&state, 0), (Some(0), 0, flags(false, false)), "nothing to tell");
        state.on_reports(node(1), 1, vec![report(3, 2)], at(10));
        assert_eq!(
            looks(&state, 10),
            (None, 3, flags(true, true)),
            "not told yet: the count is all there is"
        );
        state.on_letters_kept(node(1), &kept(3));
        assert_eq!(looks(&state, 10), (Some(3), 3, flags(true, true)));
        state.on_letters_kept(node(1), &kept(0));
        assert_eq!(looks(&state, 10), (Some(0), 3, flags(false, true)), "discarded");
        let day = 24 * 3_600 * 1_000;
        state.on_reports(node(1), 1, vec![report(3, 2)], at(day));
        assert_eq!(looks(&state, day + 10), (Some(0), 3, flags(false, false)), "a day ago");
        // Those that died before a stream are with its producer, and its consumer need not speak of them.
        let over = |dead, dead_before| StreamReport {
            stream: StreamId::from_hash(&[2; 32]),
            side: Side::Producer,
            dead_before,
            ..report(dead, 0)
        };
        let hub = |dead| StreamReport {
            side: Side::Consumer,
            ..over(dead, 0)
        };
        state.on_reports(node(2), 1, vec![hub(0)], at(day));
        state.on_reports(node(1), 1, vec![over(2, 2)], at(day));
        assert_eq!(looks(&state, day + 10).0, Some(0));
        state.on_reports(node(2), 1, vec![hub(1)], at(day));
        assert_eq!(
            looks(&state, day + 10).0,
            None,
            "one is with the consumer, who has not told"
        );
        state.on_letters_kept(node(2), &kept(1));
        assert_eq!(looks(&state, day + 10).0, Some(1));
        state.on_letters_kept(node(2), &kept(0));
        state.on_reports(node(1), 1, vec![report(3, 5)], at(day + 20));
        assert_eq!(looks(&state, day + 20), (Some(0), 3, flags(false, true)));
        assert_eq!(
            state.letters_kept(&WorkflowId::of_name("stranger")),
            0,
            "it runs no such workflow"
        );
    }
}
