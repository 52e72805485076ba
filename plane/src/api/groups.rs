//! Saved selectors. One that something stands on is not forgotten: rules and workflows that name it would choose nobody from
//! then on, and nobody would be told.

use bus_schema::{
    api::{ApiResult, Failure, FailureKind, GroupCall},
    observe::AlertRule,
};

use super::{Env, Outcome, failure, not_found};
use crate::domain::{Change, State, labels::Selector};

/// Most names of one kind that a refusal gives.
const NAMED_MAX: usize = 5;

/// Whether a selector's text names a group.
fn names(selector: &str, group: &str) -> bool {
    Selector::parse(selector).is_ok_and(|selector| selector.groups().any(|name| name == group))
}

/// Whether a workflow's text places something by a group.
fn places(text: &str, group: &str) -> bool {
    workflow::selectors(text).iter().any(|selector| names(selector, group))
}

/// So many of one kind, by name; `None` when there are none.
fn named(kind: &str, mut names: Vec<String>) -> Option<String> {
    let more = names.len().saturating_sub(NAMED_MAX);
    names.truncate(NAMED_MAX);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    (!names.is_empty()).then(|| format!("{kind} {}{more}", names.join(", ")))
}

/// Everything that stands on a group, in words; empty when nothing does.
fn users(state: &State, rules: &[AlertRule], group: &str) -> String {
    let rules = rules.iter().filter(|rule| names(&rule.select, group));
    let rules = rules.map(|rule| format!("'{}'", rule.name)).collect();
    let workflows = state.workflows.iter().filter(|one| places(&one.text, group));
    let workflows = workflows.map(|one| format!("'{}'", one.workflow)).collect();
    // The revision that one brings is the current one already; the one before may be again.
    let rollouts = state.rollouts.orders().filter(|order| {
        let before = order.before.as_ref();
        before.is_some_and(|before| places(&before.text, group))
    });
    let rollouts = rollouts
        .map(|order| format!("{} of '{}'", order.id, order.workflow))
        .collect();
    let all = [
        named("alert rule", rules),
        named("workflow", workflows),
        named("rollout", rollouts),
    ];
    all.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

pub(super) fn group(state: &State, call: GroupCall, env: &Env<'_>) -> Result<Outcome, Failure> {
    let now = env.now;
    let groups = match call {
        GroupCall::List => return Ok(ApiResult::Groups(state.group_views(&state.groups, env.sight, now)).into()),
        GroupCall::Put { name, selector } => state
            .groups
            .with(&name, &selector)
            .map_err(|wrong| failure(FailureKind::Invalid, wrong, "see: mycelial group set --help".into()))?,
        GroupCall::Remove(name) => {
            let without = state.groups.without(&name);
            let groups = without.ok_or_else(|| not_found("group", &name, state.groups.names(), "group list"))?;
            let users = users(state, env.rules, &name);
            if !users.is_empty() {
                let message = format!("group '{name}' is in use by {users}; nothing was changed");
                let hint = format!(
                    "take it out of them first (mycelial alert apply, mycelial workflow apply; let a rollout end), or give it \
                     another selector: mycelial group set {name} SELECTOR"
                );
                return Err(failure(FailureKind::Conflict, message, hint));
            }
            groups
        }
    };
    let result = ApiResult::Groups(state.group_views(&groups, env.sight, now));
    Ok(Outcome {
        changes: vec![Change::Groups(groups)],
        result,
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use bus_schema::{observe::built_in_rules, rollout::RolloutPolicy};

    use super::*;
    use crate::domain::{
        Now,
        rollout::{Before, Order},
        testing::{fleet, node},
        workflows::Revision,
    };

    fn text(daemon: &str) -> String {
        format!("name = \"w\"\n[sources.a]\ntype = \"x\"\ndaemon = \"{daemon}\"\n")
    }

    #[test]
    fn everything_that_stands_on_a_group_is_named() {
        let mut state = State::new(fleet(), node(100));
        let rule = |name: &str, select: &str| AlertRule {
            name: name.into(),
            select: select.into(),
            ..built_in_rules().remove(0)
        };
        let mut rules = built_in_rules();
        assert_eq!(users(&state, &rules, "north"), "");
        rules.extend([rule("far", "site=x -group:north"), rule("other", "group:northern")]);
        for (workflow, daemon) in [
            ("orders", "label:x group:north"),
            ("stock", "gw-1"),
            ("parts", "group:south"),
        ] {
            let revision = Revision {
                workflow: workflow.into(),
                number: 2,
                text: text(daemon),
                by: "anna".into(),
                at_unix_ms: 0,
            };
            let before = Before {
                number: 1,
                text: text("group:north"),
                by: "anna".into(),
                at_unix_ms: 0,
            };
            let mut changes = vec![Change::Revision(revision)];
            if workflow == "parts" {
                changes.push(Change::RolloutBegun(Arc::new(Order {
                    id: 7,
                    workflow: workflow.into(),
                    revision: 2,
                    before: Some(before),
                    by: "anna".into(),
                    at_unix_ms: 0,
                    policy: RolloutPolicy::default(),
                    waves: Vec::new(),
                    parts: BTreeMap::new(),
                })));
            }
            state.apply(changes, true, Now::default());
        }
        assert_eq!(
            users(&state, &rules, "north"),
            "alert rule 'far'; workflow 'orders'; rollout 7 of 'parts'"
        );
        assert_eq!(users(&state, &rules, "south"), "workflow 'parts'");
        assert_eq!(users(&state, &rules, "west"), "");
        let many = (0..7).map(|n| rule(&format!("r{n}"), "group:west")).collect::<Vec<_>>();
        assert_eq!(
            users(&state, &many, "west"),
            "alert rule 'r0', 'r1', 'r2', 'r3', 'r4' and 2 more"
        );
    }
}
