//! Calls that bring workflows to daemons: what would change, and rollouts.

use std::{collections::BTreeMap, sync::Arc};

use bus_schema::{
    api::{ApiResult, Changed, DaemonDiff, Failure, FailureKind, Problem, WorkflowDiff},
    id::{NodeId, WorkflowId},
    member::{Certificate, Role, Signed},
    plan::PlanWorkflow,
    rollout::{RolloutCommand, RolloutPolicy, RolloutView},
};

use super::{ASK_OTHERS, Env, Outcome, conflict, failure, faulty, fleet, not_found, sharing};
use crate::domain::{
    Change, Now, State,
    rollout::Head,
    rollouts::Unstartable,
    workflows::{Revision, WORKFLOWS_MAX},
};

/// Most daemons that are listed one by one in what would change.
const LISTED_MAX: usize = 5_000;
/// Longest reason that somebody gives, in characters.
const REASON_CHARS_MAX: usize = 512;

/// A text that can be deployed.
pub(super) struct Ready {
    /// The workflow's name.
    pub name: String,
    /// The revision's number.
    pub number: u32,
    /// The workflow's id.
    pub id: WorkflowId,
    /// What each daemon shall run of it.
    pub parts: BTreeMap<NodeId, PlanWorkflow>,
    /// The revision; `None` when it is the one in force.
    pub revision: Option<Revision>,
}

/// Checks everything that can keep a text from being deployed, but the plans of single daemons.
pub(super) fn prepare(
    state: &State,
    caller: &str,
    text: String,
    expected: Option<u32>,
    env: &Env<'_>,
) -> Result<Ready, Failure> {
    if !env.sight.is_whole() && workflow::parse(&text).is_ok_and(|spec| sharing::has_any(&spec)) {
        let message = "what daemons share moves to whoever is of the group, also outside of your scope";
        return Err(failure(FailureKind::Forbidden, message.to_string(), ASK_OTHERS.into()));
    }
    let fleet = fleet(state, &text, env.sight, env.now);
    let spec = comes_in(state, &text, &fleet).map_err(faulty)?;
    let name = spec.name().to_string();
    state
        .workflows
        .expect(&name, expected)
        .map_err(|moved| conflict(state, &name, expected, moved))?;
    let before = state.workflows.get(&name);
    if let Some(old) = before.and_then(|revision| workflow::parse(&revision.text).ok()) {
        let moved = workflow::unchangeable(&old, &spec);
        if !moved.is_empty() {
            return Err(faulty(moved));
        }
    }
    // The same text again is not another revision; but it is compiled anew, because daemons may have changed.
    let unchanged = before.filter(|revision| revision.text == text);
    let number = unchanged.map_or_else(|| state.workflows.next_number(&name), |revision| revision.number);
    if before.is_none() && state.workflows.len() >= WORKFLOWS_MAX {
        let message = format!("a fleet has at most {WORKFLOWS_MAX} workflows");
        return Err(failure(FailureKind::Invalid, message, "delete one first".into()));
    }
    let compiled = workflow::compile(&spec, &fleet, number).map_err(faulty)?;
    let revision = unchanged.is_none().then(|| Revision {
        workflow: name.clone(),
        number,
        text,
        by: caller.to_string(),
        at_unix_ms: env.now.unix_ms,
    });
    Ok(Ready {
        name,
        number,
        id: compiled.id,
        parts: compiled
            .parts
            .into_iter()
            .map(|part| (part.node, part.workflow))
            .collect(),
        revision,
    })
}

/// A new revision, and why there is one, if somebody said so.
pub(super) fn revised(revision: Option<Revision>, reason: &str) -> Vec<Change> {
    let Some(revision) = revision else { return Vec::new() };
    let why = (!reason.is_empty()).then(|| Change::Reason {
        workflow: revision.workflow.clone(),
        number: revision.number,
        reason: shortened(reason),
    });
    std::iter::once(Change::Revision(revision)).chain(why).collect()
}

/// As much of a reason as is kept.
fn shortened(reason: &str) -> String {
    reason.chars().take(REASON_CHARS_MAX).collect()
}

/// Nobody changes what is being rolled out.
pub(super) fn not_rolling(state: &State, name: &str) -> Result<(), Failure> {
    let Some(id) = state.rollouts.of(name) else {
        return Ok(());
    };
    let message = format!("workflow '{name}' is being rolled out (rollout {id})");
    let hint = format!("see: mycelial rollout show {id}; end it first: mycelial rollout abort {id}");
    Err(failure(FailureKind::Conflict, message, hint))
}

/// A text that may come in: none with a secret in it as it is, and none whose senders would wait for longer than they can. The one
/// in force is there already, and may come again.
pub(super) fn comes_in(state: &State, text: &str, fleet: &workflow::Fleet) -> Result<workflow::Spec, Vec<Problem>> {
    let spec = workflow::sound(text, fleet)?;
    let current = state.workflows.get(spec.name());
    if current.is_some_and(|revision| revision.text == text) {
        return Ok(spec);
    }
    let mut problems = workflow::plain_secrets(&spec, fleet);
    problems.extend(workflow::waits(&spec, fleet));
    if problems.is_empty() { Ok(spec) } else { Err(problems) }
}

/// What applying a text would change.
pub(super) fn diff(state: &State, text: &str, env: &Env<'_>) -> Result<WorkflowDiff, Failure> {
    let fleet = fleet(state, text, env.sight, env.now);
    let spec = comes_in(state, text, &fleet).map_err(faulty)?;
    let before = state.workflows.get(spec.name());
    let old = before.and_then(|revision| workflow::parse(&revision.text).ok());
    let number = before.map_or(0, |revision| revision.number);
    let compiled = workflow::compile(&spec, &fleet, number).map_err(faulty)?;
    let mut was: BTreeMap<&NodeId, &PlanWorkflow> = state.plans.parts_of(&compiled.id).collect();
    let mut daemons: Vec<DaemonDiff> = compiled
        .parts
        .iter()
        .map(|part| {
            let same = |old: &PlanWorkflow| (&old.nodes, &old.pipes) == (&part.workflow.nodes, &part.workflow.pipes);
            DaemonDiff {
                daemon: part.daemon.clone(),
                change: match was.remove(&part.node) {
                    None => Changed::Added,
                    Some(old) if same(old) => Changed::Unchanged,
                    Some(_) => Changed::Changed,
                },
                nodes: part.workflow.nodes.iter().map(|node| node.id.clone()).collect(),
            }
        })
        .collect();
    daemons.extend(was.into_keys().map(|node| DaemonDiff {
        daemon: state.members.name_of(node),
        change: Changed::Removed,
        nodes: Vec::new(),
    }));
    daemons.sort_by(|a, b| a.daemon.cmp(&b.daemon));
    let more = daemons.len().saturating_sub(LISTED_MAX);
    daemons.truncate(LISTED_MAX);
    Ok(WorkflowDiff {
        name: spec.name().to_string(),
        revision: number,
        nodes: workflow::diff(old.as_ref(), &spec),
        daemons,
        more: u32::try_from(more).unwrap_or(u32::MAX),
    })
}

/// A daemon's certificate.
pub(super) fn certificate(state: &State, key: &str) -> Result<Signed<Certificate>, Failure> {
    let by_id = || key.parse().ok().and_then(|node: NodeId| state.members.get(&node));
    let member = state.members.named(key).or_else(by_id);
    let daemon = member.filter(|member| member.certificate.role == Role::Daemon);
    daemon.map(|member| member.signed.clone()).ok_or_else(|| {
        let names = state.daemons().map(|(member, _)| member.certificate.name.as_str());
        not_found("daemon", key, names, "daemon list")
    })
}

/// Begins a rollout of a text, for a reason. The revision is current from then on.
pub(super) fn start(
    state: &State,
    caller: &str,
    (text, reason): (String, &str),
    expected: Option<u32>,
    policy: RolloutPolicy,
    env: &Env<'_>,
) -> Result<Outcome, Failure> {
    let ready = prepare(state, caller, text, expected, env)?;
    not_rolling(state, &ready.name)?;
    let order = state.order_rollout(
        &ready.name,
        ready.number,
        ready.parts,
        policy,
        caller,
        env.signer,
        env.now,
    );
    let order = order.map_err(|why| {
        let (kind, hint) = match &why {
            Unstartable::Busy => (FailureKind::Conflict, "see: mycelial rollout list"),
            Unstartable::Nothing => (FailureKind::Conflict, ""),
            Unstartable::Waves => (FailureKind::Invalid, "for example: --waves 1,10%,50%,100%"),
            Unstartable::TooLarge(_) => (FailureKind::Invalid, "place some of it on another daemon"),
        };
        failure(kind, why.to_string(), hint.into())
    })?;
    let result = ApiResult::Rollouts(vec![state.view_rollout(&order, &Head::default(), env.now)]);
    let mut changes = vec![Change::RolloutBegun(Arc::new(order))];
    changes.extend(revised(ready.revision, reason));
    Ok(Outcome { changes, result })
}

/// One rollout.
pub(super) fn rollout(state: &State, id: u64, now: Now) -> Result<RolloutView, Failure> {
    let mut views = state.rollout_views(now).into_iter();
    views.find(|view| view.id == id).ok_or_else(|| no_rollout(id))
}

pub(super) fn no_rollout(id: u64) -> Failure {
    failure(
        FailureKind::NotFound,
        format!("there is no rollout {id}"),
        "see: mycelial rollout list".into(),
    )
}

/// Tells a rollout what to do. The answer is how it stood; what follows is seen a moment later.
pub(super) fn tell(
    state: &State,
    id: u64,
    command: RolloutCommand,
    reason: &str,
    env: &Env<'_>,
) -> Result<Outcome, Failure> {
    let view = rollout(state, id, env.now)?;
    let changes = state.tell_rollout(id, command, &shortened(reason), env.signer, env.now);
    let changes = changes.map_err(|why| failure(FailureKind::Conflict, why, String::new()))?;
    Ok(Outcome {
        changes,
        result: ApiResult::Rollouts(vec![view]),
    })
}

#[cfg(test)]
mod tests {
    use bus_schema::plan::{ComponentRole, Descriptor};

    use super::*;
    use crate::domain::testing::{node, state};

    #[test]
    fn what_is_in_force_may_come_again() {
        let descriptor = |role, name: &str, schema: &str| Descriptor {
            role,
            name: name.into(),
            summary: String::new(),
            schema: schema.into(),
            example: String::new(),
            inputs_max: u16::from(role == ComponentRole::Destination),
            durable: true,
        };
        let asks = r##"{"type": "object", "properties": {"token": {"$ref": "#/$defs/SecretRef"}},
            "$defs": {"SecretRef": {"anyOf": [{"type": "string"}, {"type": "object"}]}},
            "x-waits": {"answer_ms": "/answer_ms_max", "default": 30000, "bytes": "/body_bytes_max", "default_bytes": 1000}}"##;
        let gathers = r#"{"type": "object",
            "x-gathers": {"age_s": "/max_age_s", "default": 300, "bytes": "/max_bytes", "default_bytes": 16000000}}"#;
        let components = [
            descriptor(ComponentRole::Source, "hook", asks),
            descriptor(ComponentRole::Destination, "lake", gathers),
        ];
        let fleet = workflow::Fleet::single("gw", node(1), components.into());
        let text = "name = \"a\"\n[sources.hook]\ntype = \"hook\"\ndaemon = \"gw\"\ntoken = \"hunter2\"\n\
                    [destinations.lake]\ntype = \"lake\"\ndaemon = \"gw\"\nfrom = \"hook\"\n";
        let mut state = state();
        let problems = comes_in(&state, text, &fleet).unwrap_err();
        let places: Vec<&str> = problems.iter().map(|problem| problem.place.as_str()).collect();
        assert_eq!((places.len(), places[0]), (2, "sources.hook.token"), "{problems:?}");
        state.workflows.put(Revision {
            workflow: "a".into(),
            number: 2,
            text: text.into(),
            by: "anna".into(),
            at_unix_ms: 0,
        });
        comes_in(&state, text, &fleet).unwrap();
        let changed = format!("{text}\n# once more\n");
        assert_eq!(comes_in(&state, &changed, &fleet).unwrap_err().len(), 2);
    }
}
