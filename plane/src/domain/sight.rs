//! What a caller with a scope sees of the fleet, and what it may touch: daemons that its selector matches, and nothing else. Pure.
//!
//! A workflow is seen where it runs within the scope, and only that part of it. Its text says what runs elsewhere, so it is read
//! and changed only by those whose scope holds all of it.

use std::collections::BTreeSet;

use bus_schema::{
    api::{ApiCall, ApiResult, StreamView},
    id::{NodeId, WorkflowId},
};

use super::{Change, Now, State, labels::Selector};

/// What stands in the place of a daemon that is not seen.
const ELSEWHERE: &str = "(outside your scope)";

/// What is seen: everything, or these daemons.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sight(Option<Seen>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    nodes: BTreeSet<NodeId>,
    names: BTreeSet<String>,
}

/// Why a call is not for somebody with this sight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hidden {
    /// As if there was no such daemon.
    Daemon(String),
    /// As if there was no such workflow.
    Workflow(String),
    /// The workflow also runs where it is not seen.
    Elsewhere(String),
    /// A revision of it is for daemons that are not seen, or not there any more.
    Past(String, u32),
}

impl Sight {
    /// What a scope shows; everything without one.
    pub fn of(state: &State, scope: Option<&Selector>, now: Now) -> Self {
        Self(scope.map(|scope| {
            let views = state.chosen(scope, now);
            Seen {
                nodes: views.iter().map(|view| view.node).collect(),
                names: views.into_iter().map(|view| view.name).collect(),
            }
        }))
    }

    /// Whether nothing is hidden.
    pub fn is_whole(&self) -> bool {
        self.0.is_none()
    }

    /// Whether a daemon is seen.
    pub fn sees(&self, node: &NodeId) -> bool {
        self.0.as_ref().is_none_or(|seen| seen.nodes.contains(node))
    }

    fn names(&self, name: &str) -> bool {
        self.0.as_ref().is_none_or(|seen| seen.names.contains(name))
    }

    /// How many of a workflow's daemons are seen, and how many there are.
    fn of_workflow(&self, state: &State, name: &str) -> (usize, usize) {
        let id = WorkflowId::of_name(name);
        let parts = state.plans.parts_of(&id);
        parts.fold((0, 0), |(seen, all), (node, _)| {
            (seen + usize::from(self.sees(node)), all + 1)
        })
    }

    /// The text of a workflow: all of it has to be seen.
    fn whole(&self, state: &State, name: &str) -> Result<(), Hidden> {
        match self.of_workflow(state, name) {
            (0, _) => Err(Hidden::Workflow(name.to_string())),
            (seen, all) if seen < all => Err(Hidden::Elsewhere(name.to_string())),
            _ => Ok(()),
        }
    }

    /// Whether a call may go on. What it answers and changes is looked at afterwards.
    pub fn admits(&self, state: &State, call: &ApiCall) -> Result<(), Hidden> {
        if self.0.is_none() {
            return Ok(());
        }
        match call {
            ApiCall::DaemonShow(key) => {
                let by_id = || key.parse().ok().and_then(|node: NodeId| state.members.get(&node));
                let member = state.members.named(key).or_else(by_id);
                match member.filter(|member| self.sees(&member.certificate.node)) {
                    Some(_) => Ok(()),
                    None => Err(Hidden::Daemon(key.clone())),
                }
            }
            ApiCall::WorkflowStatus(name) | ApiCall::Nodes(Some(name)) => match self.of_workflow(state, name) {
                (0, _) => Err(Hidden::Workflow(name.clone())),
                _ => Ok(()),
            },
            ApiCall::WorkflowShow(name)
            | ApiCall::WorkflowDelete(name)
            | ApiCall::WorkflowRevisions(name)
            | ApiCall::WorkflowHistory(name) => self.whole(state, name),
            ApiCall::WorkflowText { name, .. } => self.whole(state, name),
            // Over another's workflow nobody writes, and a diff would show it.
            ApiCall::WorkflowApply { text, .. } | ApiCall::Deploy { text, .. } | ApiCall::WorkflowDiff { text } => {
                match workflow::parse(text) {
                    Ok(spec) if state.workflows.get(spec.name()).is_some() => self.whole(state, spec.name()),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// Whether the text of a revision may be read. The one that runs: by whom the workflow is for. Earlier ones of that name
    /// may have been another workflow, elsewhere: by those who see every daemon that the text is for, as daemons are today.
    pub fn reads(&self, state: &State, revision: (&str, u32), text: &str, now: Now) -> Result<(), Hidden> {
        let (name, number) = revision;
        let runs = state.workflows.get(name).is_some_and(|runs| runs.number == number);
        if self.0.is_none() || runs {
            return Ok(());
        }
        let is_seen = |name: &str| state.members.named(name).is_some() && self.names(name);
        let are_seen = |selector: &str| {
            let chosen = state.groups.parse(selector).map(|parsed| state.chosen(&parsed, now));
            chosen.is_ok_and(|views| !views.is_empty() && views.iter().all(|view| self.sees(&view.node)))
        };
        match workflow::parse(text) {
            Ok(spec) if spec.daemons().all(is_seen) && spec.selectors().all(are_seen) => Ok(()),
            _ => Err(Hidden::Past(name.to_string(), number)),
        }
    }

    /// Whether a decision touches only what is seen.
    pub fn covers(&self, changes: &[Change]) -> bool {
        changes.iter().all(|change| match change {
            Change::Plan { node, .. } | Change::Labels { node, .. } => self.sees(node),
            _ => true,
        })
    }

    /// An answer without what is not seen.
    #[must_use]
    pub fn narrowed(&self, state: &State, mut result: ApiResult) -> ApiResult {
        if self.0.is_none() {
            return result;
        }
        match &mut result {
            ApiResult::Daemons(views) => views.retain(|view| self.sees(&view.node)),
            ApiResult::Labels(all) => all.retain(|one| self.sees(&one.node)),
            ApiResult::Workflows(views) => {
                views.retain(|view| self.of_workflow(state, &view.name).0 > 0);
                for view in views {
                    view.daemons.retain(|daemon| self.names(daemon));
                }
            }
            ApiResult::Workflow { view, .. } => view.daemons.retain(|daemon| self.names(daemon)),
            ApiResult::Status { view, parts, streams } => {
                view.daemons.retain(|daemon| self.names(daemon));
                parts.retain(|part| self.names(&part.daemon));
                self.narrow(streams);
            }
            ApiResult::Ledger(streams) => self.narrow(streams),
            ApiResult::Nodes(views) => views.retain(|view| self.names(&view.daemon)),
            ApiResult::Carriers(all) => {
                for one in &mut *all {
                    one.daemons.retain(|daemon| self.names(daemon));
                }
                all.retain(|one| !one.daemons.is_empty());
            }
            ApiResult::Diff(diff) => diff.daemons.retain(|daemon| self.names(&daemon.daemon)),
            _ => {}
        }
        result
    }

    /// Streams that begin or end where it is seen; the other end is not named.
    fn narrow(&self, streams: &mut Vec<StreamView>) {
        streams.retain(|stream| self.names(&stream.producer) || self.names(&stream.consumer));
        for stream in streams {
            for end in [&mut stream.producer, &mut stream.consumer] {
                if !self.names(end) {
                    *end = ELSEWHERE.to_string();
                    // It may name that end.
                    stream.trouble.clear();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bus_schema::{
        member::{Role, Signed},
        message::HostFacts,
    };

    use super::*;
    use crate::domain::{
        change::Signer,
        members::Member,
        testing::{certificate, fleet, identity, node, part},
        workflows::Revision,
    };

    /// `gw-1` in Berlin, `gw-2` in Bonn; `a` runs on both, `b` in Berlin, `c` in Bonn.
    fn state() -> State {
        let mut state = State::new(fleet(), node(100));
        for (n, site) in [(1, "berlin"), (2, "bonn")] {
            let certificate = certificate(n, &format!("gw-{n}"), Role::Daemon);
            state.members.insert(Member {
                signed: Signed::new(&certificate, &identity(0)),
                certificate,
                host: HostFacts::default(),
                enrolled_unix_ms: 0,
            });
            let labels = [("site".to_string(), site.to_string())].into();
            state.apply([Change::Labels { node: node(n), labels }], true, Now::default());
        }
        let signer = Signer {
            root: identity(0),
            plane: identity(100),
        };
        for (name, on) in [("a", vec![1, 2]), ("b", vec![1]), ("c", vec![2])] {
            let parts = on.into_iter().map(|n| (node(n), part(name, 1))).collect();
            let mut changes = state.place(&WorkflowId::of_name(name), parts, &signer).unwrap();
            changes.push(Change::Revision(Revision {
                workflow: name.into(),
                number: 1,
                text: String::new(),
                by: "anna".into(),
                at_unix_ms: 0,
            }));
            state.apply(changes, true, Now::default());
        }
        state
    }

    fn berlin(state: &State) -> Sight {
        Sight::of(state, Some(&Selector::parse("site=berlin").unwrap()), Now::default())
    }

    #[test]
    fn what_a_scope_lets_through() {
        let state = state();
        let (all, berlin) = (Sight::default(), berlin(&state));
        let text = |name: &str| {
            format!(
                "name = \"{name}\"\n[sources.x]\ntype = \"t\"\ndaemon = \"gw-1\"\n[destinations.y]\ntype = \"t\"\ndaemon = \"gw-1\"\nfrom = \"x\"\n"
            )
        };
        let apply = |name: &str| ApiCall::WorkflowApply {
            text: text(name),
            expect_revision: None,
        };
        let (daemon, workflow) = (
            |name: &str| Hidden::Daemon(name.into()),
            |name: &str| Hidden::Workflow(name.into()),
        );
        for (call, expected) in [
            (ApiCall::DaemonShow("gw-1".into()), None),
            (ApiCall::DaemonShow("gw-2".into()), Some(daemon("gw-2"))),
            (ApiCall::DaemonShow(node(2).to_string()), Some(daemon(node(2).as_str()))),
            (ApiCall::WorkflowStatus("a".into()), None),
            (ApiCall::WorkflowStatus("c".into()), Some(workflow("c"))),
            (ApiCall::WorkflowShow("a".into()), Some(Hidden::Elsewhere("a".into()))),
            (ApiCall::WorkflowShow("b".into()), None),
            (ApiCall::WorkflowDelete("c".into()), Some(workflow("c"))),
            (ApiCall::WorkflowRevisions("gone".into()), Some(workflow("gone"))),
            (ApiCall::WorkflowHistory("gone".into()), Some(workflow("gone"))),
            (
                ApiCall::Deploy {
                    text: text("a"),
                    expect_revision: None,
                    reason: String::new(),
                    waves: None,
                },
                Some(Hidden::Elsewhere("a".into())),
            ),
            (apply("b"), None),
            (apply("new"), None),
            (apply("a"), Some(Hidden::Elsewhere("a".into()))),
            (apply("c"), Some(workflow("c"))),
            (ApiCall::WorkflowDiff { text: text("c") }, Some(workflow("c"))),
        ] {
            assert_eq!(berlin.admits(&state, &call).err(), expected, "{call:?}");
            assert_eq!(all.admits(&state, &call), Ok(()), "{call:?}");
        }
    }

    #[test]
    fn what_ran_elsewhere_is_not_read() {
        let state = state();
        let (berlin, now) = (berlin(&state), Now::default());
        let text = |daemon: &str| {
            format!(
                "name = \"b\"\n[sources.s]\ntype = \"generator\"\ndaemon = \"{daemon}\"\n\
                 [destinations.d]\ntype = \"stdout\"\ndaemon = \"gw-1\"\nfrom = \"s\"\n"
            )
        };
        for (daemon, number, may) in [
            ("gw-1", 7, true),
            ("gw-2", 7, false),
            // It runs.
            ("gw-2", 1, true),
            ("gone", 7, false),
            ("site=berlin", 7, true),
            ("site=bonn", 7, false),
            ("site=nowhere", 7, false),
            ("name:*", 7, false),
        ] {
            let read = berlin.reads(&state, ("b", number), &text(daemon), now);
            let hidden = Hidden::Past("b".into(), number);
            assert_eq!(read, if may { Ok(()) } else { Err(hidden) }, "{daemon}");
            assert_eq!(
                Sight::default().reads(&state, ("b", number), &text(daemon), now),
                Ok(())
            );
        }
        assert!(berlin.reads(&state, ("b", 7), "name = ", now).is_err(), "unreadable");
    }

    #[test]
    fn answers_and_decisions_are_narrowed() {
        let state = state();
        let berlin = berlin(&state);
        let now = Now::default();
        let ApiResult::Daemons(views) = berlin.narrowed(&state, ApiResult::Daemons(state.daemon_views(now))) else {
            panic!("another answer")
        };
        assert_eq!(
            views.iter().map(|view| view.name.as_str()).collect::<Vec<_>>(),
            ["gw-1"]
        );
        let ApiResult::Workflows(views) = berlin.narrowed(&state, ApiResult::Workflows(state.workflow_views(now)))
        else {
            panic!("another answer")
        };
        let shown: Vec<_> = views
            .iter()
            .map(|view| (view.name.as_str(), view.daemons.join(" ")))
            .collect();
        assert_eq!(shown, [("a", "gw-1".to_string()), ("b", "gw-1".to_string())]);
        let carriers = |daemons: &[&str]| bus_schema::api::Carriers {
            components: vec!["source/x".into()],
            daemons: daemons.iter().map(|name| name.to_string()).collect(),
        };
        let all = vec![carriers(&["gw-1", "gw-2"]), carriers(&["gw-2"])];
        let narrowed = berlin.narrowed(&state, ApiResult::Carriers(all));
        assert_eq!(narrowed, ApiResult::Carriers(vec![carriers(&["gw-1"])]));
        for (n, is_covered) in [(1, true), (2, false)] {
            let labels = Default::default();
            let changes = [Change::Labels { node: node(n), labels }];
            assert_eq!(berlin.covers(&changes), is_covered);
            assert!(Sight::default().covers(&changes));
        }
    }
}
