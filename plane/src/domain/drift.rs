//! Columns that were not what contracts say, as daemons tell. Kept for a day, in memory: daemons repeat it with every status, and
//! what a daemon has forgotten because it started anew is still so.

use std::collections::BTreeMap;

use bus_schema::{
    api::{DriftView, NoteView},
    drift::{DRIFT_BYTES_MAX, DRIFT_KEPT_MS, DRIFTS_MAX, Drifts},
    id::{NodeId, WorkflowId},
};

use super::{Now, State, clip_to};

/// What each daemon has told last.
#[derive(Debug, Clone, Default)]
pub struct Drifting(BTreeMap<NodeId, BTreeMap<WorkflowId, Seen>>);

#[derive(Debug, Clone)]
struct Seen {
    what: String,
    batches: u64,
    /// How long ago it was when the daemon said it, and when that was.
    ago_ms: u64,
    heard_ms: u64,
}

impl Drifting {
    /// A daemon is gone for good.
    pub fn forget_daemon(&mut self, daemon: &NodeId) {
        self.0.remove(daemon);
    }

    /// A workflow was deleted.
    pub fn forget(&mut self, workflow: &WorkflowId) {
        self.0.values_mut().for_each(|workflows| {
            workflows.remove(workflow);
        });
    }

    fn of(&self, daemon: &NodeId, workflow: &WorkflowId, now: Now) -> Option<DriftView> {
        let seen = self.0.get(daemon)?.get(workflow)?;
        let ago_ms = now.mono_ms.saturating_sub(seen.heard_ms).saturating_add(seen.ago_ms);
        (ago_ms <= DRIFT_KEPT_MS).then(|| DriftView {
            what: seen.what.clone(),
            batches: seen.batches,
            ago_ms,
        })
    }
}

impl State {
    /// A daemon told of drift: all that it knows of. Nobody speaks of what it does not run.
    pub fn on_drifts(&mut self, node: NodeId, said: Drifts, now: Now) {
        let runs = said.workflows.into_iter().take(DRIFTS_MAX);
        let seen = runs
            .filter(|one| self.plans.runs(&node, &one.workflow))
            .map(|one| {
                let seen = Seen {
                    what: clip_to(&one.what, DRIFT_BYTES_MAX),
                    batches: one.batches,
                    ago_ms: one.ago_ms,
                    heard_ms: now.mono_ms,
                };
                (one.workflow, seen)
            })
            .collect();
        self.drifting.0.insert(node, seen);
    }

    /// What daemons note about a workflow, or about all; by workflow and daemon.
    pub fn note_views(&self, workflow: Option<&str>, now: Now) -> Vec<NoteView> {
        let letters = self.letters();
        let mut views = Vec::new();
        for revision in self.workflows.iter() {
            let (name, id) = (&revision.workflow, WorkflowId::of_name(&revision.workflow));
            if workflow.is_none_or(|wanted| wanted == name) {
                let planned = self.plans.parts_of(&id).map(|(node, _)| node);
                views.extend(planned.chain(self.letters_elsewhere(&id)).map(|node| NoteView {
                    workflow: name.clone(),
                    daemon: self.members.name_of(node),
                    letters_kept: letters.of(&id).map(|_| self.letters_kept_by(&id, |one| one == node)),
                    drift: self.drifting.of(node, &id, now),
                }));
            }
        }
        views.sort_by(|a, b| (&a.workflow, &a.daemon).cmp(&(&b.workflow, &b.daemon)));
        views
    }

    /// The latest drift of each workflow that has some.
    pub fn drifts(&self, now: Now) -> BTreeMap<String, DriftView> {
        let mut latest: BTreeMap<String, DriftView> = BTreeMap::new();
        for (node, workflows) in &self.drifting.0 {
            for workflow in workflows.keys().filter(|workflow| self.plans.runs(node, workflow)) {
                let Some(drift) = self.drifting.of(node, workflow, now) else {
                    continue;
                };
                let name = self.workflow_name(workflow);
                if latest.get(&name).is_none_or(|known| known.ago_ms > drift.ago_ms) {
                    latest.insert(name, drift);
                }
            }
        }
        latest
    }
}

#[cfg(test)]
mod tests {
    use bus_schema::drift::WorkflowDrift;

    use super::*;
    use crate::domain::testing::{at, node, state};

    #[test]
    fn drift_is_what_a_daemon_said_last_for_a_day() {
        let mut state = state();
        let said = |all: &[(&str, u64)]| Drifts {
            workflows: all
                .iter()
                .map(|(name, ago_ms)| WorkflowDrift {
                    workflow: WorkflowId::of_name(name),
                    what: format!("{name} at {ago_ms}"),
                    batches: 2,
                    ago_ms: *ago_ms,
                })
                .collect(),
        };
        let known = |state: &State, ms| {
            let drifts = state.drifts(at(ms)).into_iter();
            drifts
                .map(|(name, drift)| format!("{name}: {} {}", drift.what, drift.ago_ms))
                .collect::<Vec<_>>()
        };
        let nothing = Vec::<String>::new();
        assert_eq!(known(&state, 0), nothing);
        state.on_drifts(node(1), said(&[("a", 70_000), ("stranger", 1)]), at(5));
        assert_eq!(known(&state, 1_005), ["a: a at 70000 71000"]);
        state.on_drifts(node(2), said(&[("a", 30)]), at(5));
        assert_eq!(known(&state, 5), ["a: a at 30 30"], "the latest");
        let notes = state.note_views(Some("a"), at(5));
        let ago = |note: &NoteView| note.drift.as_ref().map(|drift| (drift.ago_ms, drift.batches));
        assert_eq!(
            notes.iter().map(ago).collect::<Vec<_>>(),
            [Some((70_000, 2)), Some((30, 2))]
        );
        assert_eq!(state.note_views(Some("stranger"), at(5)), []);
        state.on_drifts(node(2), said(&[]), at(6));
        assert_eq!(
            known(&state, 6),
            ["a: a at 70000 70001"],
            "over where it is not told any more"
        );
        assert_eq!(known(&state, DRIFT_KEPT_MS), nothing, "a day ago");
        let long = Drifts {
            workflows: vec![WorkflowDrift {
                what: "ü".repeat(DRIFT_BYTES_MAX),
                ..said(&[("a", 0)]).workflows.remove(0)
            }],
        };
        state.on_drifts(node(1), long, at(7));
        assert!(state.drifts(at(7))["a"].what.len() <= DRIFT_BYTES_MAX);
        state.drifting.forget(&WorkflowId::of_name("a"));
        assert_eq!(known(&state, 7), nothing);
        state.on_drifts(node(1), said(&[("a", 0)]), at(8));
        state.drifting.forget_daemon(&node(1));
        assert_eq!(known(&state, 8), nothing);
    }
}
