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

    fn forget_one(&mut self, workflow: &WorkflowId, daemon: &NodeId) {
        if let Some(daemons) = self.0.get_mut(workflow) {
            daemons.remove(daemon);
        }
    }

    fn has_told(&self, workflow: &WorkflowId, daemon: &NodeId) -> bool {
        self.0.get(workflow).is_some_and(|daemons| daemons.contains_key(daemon))
    }
}

/// How many are kept, by workflow.
pub struct Letters {
    /// Workflows of which a daemon that runs them has, or had, letters and has not told how many it keeps: it has not spoken
    /// since the plane has started, or is older than this message.
    untold: BTreeSet<WorkflowId>,
    kept: BTreeMap<WorkflowId, u64>,
}

impl Letters {
    /// Of one workflow; `None`: not everybody has told.
    pub fn of(&self, workflow: &WorkflowId) -> Option<u64> {
        let kept = self.kept.get(workflow).copied().unwrap_or(0);
        (!self.untold.contains(workflow)).then_some(kept)
    }
}

impl State {
    /// A daemon told how many dead letters it keeps: of what it runs, and of what it may have run before, whose letters stay with
    /// it. Who ran what is not known for ever, so that all workflows that are in force count.
    pub fn on_letters_kept(&mut self, node: NodeId, said: &LettersKept) {
        for one in &said.workflows {
            let name = self.workflows.name_of(&one.workflow);
            let is_in_force = name.is_some_and(|name| self.workflows.get(name).is_some());
            let runs = self.plans.runs(&node, &one.workflow);
            if !runs && one.kept == 0 {
                self.kept.forget_one(&one.workflow, &node);
            } else if runs || is_in_force {
                self.kept.0.entry(one.workflow).or_default().insert(node, one.kept);
            }
        }
    }

    /// Who has told of a workflow that it does not run.
    pub(super) fn letters_elsewhere(&self, workflow: &WorkflowId) -> impl Iterator<Item = &NodeId> {
        let told = self.kept.0.get(workflow).into_iter().flat_map(BTreeMap::keys);
        told.filter(|node| !self.plans.runs(node, workflow))
    }

    /// What daemons keep, of every workflow.
    pub(super) fn letters(&self) -> Letters {
        let mut untold = BTreeSet::new();
        for (_, stream) in self.streams.iter() {
            let workflow = *stream.workflow();
            let is_untold =
                |daemon: NodeId| self.plans.runs(&daemon, &workflow) && !self.kept.has_told(&workflow, &daemon);
            if stream.keepers().any(is_untold) {
                untold.insert(workflow);
            }
        }
        let workflows = self.kept.0.keys();
        let kept = workflows.map(|workflow| (*workflow, self.letters_kept_by(workflow, |_| true)));
        Letters {
            untold,
            kept: kept.collect(),
        }
    }

    /// What some daemons keep of a workflow.
    pub(super) fn letters_kept_by(&self, workflow: &WorkflowId, counts: impl Fn(&NodeId) -> bool) -> u64 {
        let daemons = self.kept.0.get(workflow).into_iter().flatten();
        let counted = daemons.filter(|(daemon, _)| counts(daemon));
        counted.fold(0, |sum, (_, kept)| sum.saturating_add(*kept))
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
    use crate::domain::{
        ledger::Streams,
        plans::Plans,
        testing::{at, node, state},
    };

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
        // Who is taken out of a workflow keeps its letters, and says so until they are gone.
        state.on_letters_kept(node(2), &kept(4));
        state.plans = Plans::default();
        for (says, are_kept) in [(5, 5), (0, 0), (2, 2)] {
            state.on_letters_kept(node(2), &kept(says));
            assert_eq!(looks(&state, day + 30).0, Some(are_kept));
            let noted: u64 = state
                .note_views(Some("a"), at(day + 30))
                .iter()
                .filter_map(|note| note.letters_kept)
                .sum();
            assert_eq!(noted, are_kept, "the same in the notes");
        }
        // A plane that begins anew knows neither of streams that are empty nor of what was told.
        (state.kept, state.streams) = (Kept::default(), Streams::default());
        state.on_letters_kept(node(2), &kept(2));
        assert_eq!(state.letters().of(&WorkflowId::of_name("a")), Some(2));
        let letters = state.letters();
        let strange = letters.of(&WorkflowId::of_name("stranger"));
        assert_eq!(strange, Some(0), "it runs no such workflow");
    }
}
