//! Which plan a daemon takes, and what has to change for it to be true. Pure: no bus, no disk, nothing is started here, so
//! that a simulation can offer plans in any order.
//!
//! A daemon converges to the highest version it was ever offered: level-triggered, so that of five changes made while it
//! was away only the last one matters, and repeating it changes nothing.

pub mod probation;

use std::collections::BTreeMap;

use bus_schema::{
    id::{FleetId, NodeId, WorkflowId},
    plan::{Plan, PlanWorkflow},
};

/// Why a plan is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Somebody else's.
    #[error("it is for another daemon")]
    Misaddressed,
    /// What is in force is as new, or newer.
    #[error("version {offered} is not newer than {current}")]
    Old {
        /// The plan's version.
        offered: u64,
        /// The version in force; 0 for none.
        current: u64,
    },
}

/// Whether a genuine plan is one for this daemon and newer than what is in force. It has to be durable before it is acted
/// on.
pub fn judge(plan: &Plan, fleet: &FleetId, daemon: &NodeId, current: u64) -> Result<(), Refused> {
    if plan.fleet != *fleet || plan.daemon != *daemon {
        return Err(Refused::Misaddressed);
    }
    if plan.version <= current {
        return Err(Refused::Old {
            offered: plan.version,
            current,
        });
    }
    Ok(())
}

/// What has to change for a plan to be true.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Stop these.
    pub stop: Vec<WorkflowId>,
    /// Start these, after the stops.
    pub start: Vec<WorkflowId>,
    /// Only the revision number changes.
    pub renumber: Vec<WorkflowId>,
}

/// Compares what runs with what is wanted.
pub fn difference<'a>(
    running: impl IntoIterator<Item = &'a PlanWorkflow>,
    wanted: impl IntoIterator<Item = &'a PlanWorkflow>,
) -> Difference {
    let running: BTreeMap<_, _> = running.into_iter().map(|workflow| (workflow.id, workflow)).collect();
    let wanted: BTreeMap<_, _> = wanted.into_iter().map(|workflow| (workflow.id, workflow)).collect();
    let mut difference = Difference::default();
    for (id, now) in &running {
        match wanted.get(id) {
            None => difference.stop.push(*id),
            Some(then) if (&then.nodes, &then.pipes) != (&now.nodes, &now.pipes) => {
                difference.stop.push(*id);
                difference.start.push(*id);
            }
            Some(then) if then.revision != now.revision => difference.renumber.push(*id),
            Some(_) => {}
        }
    }
    difference
        .start
        .extend(wanted.keys().filter(|id| !running.contains_key(id)));
    difference
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workflow(name: &str, revision: u32, pipes: usize) -> PlanWorkflow {
        let pipe = bus_schema::plan::Pipe {
            root: bus_schema::plan::Root::Source(0),
            steps: Vec::new(),
        };
        PlanWorkflow {
            id: WorkflowId::of_name(name),
            name: name.to_string(),
            revision,
            nodes: Vec::new(),
            pipes: vec![pipe; pipes],
        }
    }

    #[test]
    fn only_what_differs_is_touched() {
        let (a, b) = (WorkflowId::of_name("a"), WorkflowId::of_name("b"));
        let running = [workflow("a", 1, 1), workflow("b", 1, 1)];
        for (wanted, stop, start, renumber) in [
            (vec![workflow("a", 1, 1), workflow("b", 1, 1)], vec![], vec![], vec![]),
            (vec![workflow("a", 2, 1), workflow("b", 1, 1)], vec![], vec![], vec![a]),
            (vec![workflow("a", 2, 2), workflow("b", 1, 1)], vec![a], vec![a], vec![]),
            (vec![workflow("b", 1, 1)], vec![a], vec![], vec![]),
            (
                vec![],
                {
                    let mut all = vec![a, b];
                    all.sort();
                    all
                },
                vec![],
                vec![],
            ),
        ] {
            assert_eq!(difference(&running, &wanted), Difference { stop, start, renumber });
        }
        assert_eq!(difference(&[], &running).start.len(), 2);
    }
}
