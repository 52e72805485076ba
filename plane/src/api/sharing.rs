//! Destinations that several daemons share: parts move when a daemon has been silent for too long, comes back, joins the group
//! or leaves it. Level-triggered: what decides is who has which part by the plans, who is chosen, and who is there.

use std::collections::BTreeMap;

use bus_schema::{
    api::Presence,
    id::NodeId,
    plan::{ComponentRole, PlanWorkflow},
};

use super::fleet;
use crate::domain::{Change, Now, State, change::Signer, sight::Sight};

/// Whether a workflow has a destination that daemons share.
pub(super) fn has_any(spec: &workflow::Spec) -> bool {
    spec.nodes().iter().any(|node| node.share.is_some())
}

/// Says who is away, and who has which part by the plans.
pub(super) fn describe(fleet: &mut workflow::Fleet, state: &State, now: Now) {
    for view in state.daemon_views(now) {
        if matches!(view.presence, Presence::Offline | Presence::Unknown) {
            // Who has never been heard may have been there all the time that this plane was not.
            let silent_ms = view.last_seen_ms.unwrap_or(now.mono_ms);
            fleet.silent(&view.name, silent_ms / 1_000);
        }
    }
    for (node, workflow, part) in held(state) {
        fleet.hold(&workflow.name, part, &state.members.name_of(node));
    }
}

/// Every part that a daemon has by its plan: the daemon, the workflow, the part's node.
fn held(state: &State) -> impl Iterator<Item = (&NodeId, &PlanWorkflow, &str)> {
    let workflows = state
        .plans
        .nodes()
        .flat_map(|(node, plan)| plan.workflows.iter().map(move |workflow| (node, workflow)));
    workflows.flat_map(|(node, workflow)| {
        let parts = workflow
            .nodes
            .iter()
            .filter(|part| part.role == ComponentRole::Destination && workflow::part_of(&part.id).is_some());
        parts.map(move |part| (node, workflow, part.id.as_str()))
    })
}

/// What moves parts to where they go now, workflow by workflow; or why one cannot be moved. What is being rolled out waits.
pub(crate) fn rebalance(state: &State, signer: &Signer, now: Now) -> BTreeMap<String, Result<Vec<Change>, String>> {
    let mut names: Vec<&str> = held(state).map(|(_, workflow, _)| workflow.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let mut moved = BTreeMap::new();
    for name in names.into_iter().filter(|name| state.rollouts.of(name).is_none()) {
        let Some(revision) = state.workflows.get(name) else {
            continue;
        };
        let Ok(spec) = workflow::parse(&revision.text) else {
            continue;
        };
        let fleet = fleet(state, &revision.text, &Sight::default(), now);
        match workflow::is_misplaced(&spec, &fleet) {
            Ok(true) => {}
            Ok(false) => continue,
            Err(problem) => {
                moved.insert(name.to_string(), Err(problem.message));
                continue;
            }
        }
        let changes = workflow::compile(&spec, &fleet, revision.number)
            .map_err(|problems| {
                problems
                    .first()
                    .map_or_else(String::new, |problem| problem.message.clone())
            })
            .and_then(|compiled| {
                let parts = compiled.parts.into_iter().map(|part| (part.node, part.workflow));
                let placed = state.place(&compiled.id, parts.collect(), signer);
                placed.map_err(|large| format!("daemon '{}' cannot take it: {}", large.daemon, large.cause))
            });
        moved.insert(name.to_string(), changes);
    }
    moved
}
