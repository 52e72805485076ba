//! What a caller with a scope sees of the fleet, and what it may touch: daemons that its selector matches, and nothing else. Pure.
//!
//! A workflow is seen where it runs within the scope, and only that part of it. Its text says what runs elsewhere, so it is read
//! and changed only by those whose scope holds all of it; so are its history, its alerts and its rollouts.

use std::collections::BTreeSet;

use bus_schema::{
    api::{ApiCall, ApiResult, StreamView, WorkflowView},
    id::{NodeId, WorkflowId},
    rollout::RolloutView,
};

use super::{Change, Now, State, labels::Selector};

/// What stands in the place of a daemon that is not seen.
pub(super) const ELSEWHERE: &str = "(outside your scope)";

/// What is seen: everything, or these daemons.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sight(Option<Seen>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    nodes: BTreeSet<NodeId>,
    names: BTreeSet<String>,
    /// Whose sight it is.
    who: String,
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
    /// As if there was no such rollout.
    Rollout(u64),
}

impl Sight {
    /// What a scope shows to whoever has it; everything without one.
    pub fn of(state: &State, scope: Option<&Selector>, who: &str, now: Now) -> Self {
        Self(scope.map(|scope| {
            let views = state.chosen(scope, now);
            Seen {
                nodes: views.iter().map(|view| view.node).collect(),
                names: views.into_iter().map(|view| view.name).collect(),
                who: who.to_string(),
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

    /// How many of a workflow's daemons are seen, and how many there are: those that run it, and those that a rollout brings it to.
    fn of_workflow(&self, state: &State, name: &str) -> (usize, usize) {
        let id = WorkflowId::of_name(name);
        let mut nodes: BTreeSet<&NodeId> = state.plans.parts_of(&id).map(|(node, _)| node).collect();
        let rollout = state.rollouts.of(name).and_then(|id| state.rollout_daemons(id));
        nodes.extend(rollout.into_iter().flatten());
        let seen = nodes.iter().filter(|node| self.sees(node)).count();
        (seen, nodes.len())
    }

    /// Whether history and alerts of a subject are seen.
    pub fn shows(&self, state: &State, subject: &str) -> bool {
        self.is_whole()
            || match subject.split_once(':') {
                Some(("daemon", name)) => self.names(name),
                Some((_, place)) => self
                    .whole(state, place.split_once('/').map_or(place, |(workflow, _)| workflow))
                    .is_ok(),
                None => false,
            }
    }

    /// Whether a rollout is seen. Of one that is over the daemons are not kept: it is for whoever began it, and for those who see
    /// all of the workflow as it runs now; and never, if a daemon failed that is not seen.
    fn follows(&self, state: &State, id: u64, view: Option<&RolloutView>) -> bool {
        if let Some(nodes) = state.rollout_daemons(id) {
            let mut nodes = nodes.peekable();
            // Once all were taken out of the fleet, it is for those who see everything.
            return self.is_whole() || nodes.peek().is_some() && nodes.all(|node| self.sees(node));
        }
        let Some((seen, view)) = self.0.as_ref().zip(view.or_else(|| state.rollouts.over(id))) else {
            return self.is_whole();
        };
        let is_own = seen.who == view.by || self.whole(state, &view.workflow).is_ok();
        is_own && view.failures.iter().all(|failure| self.names(&failure.daemon))
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
            ApiCall::WorkflowStatus(name) | ApiCall::Nodes(Some(name)) | ApiCall::Notes(Some(name)) => {
                match self.of_workflow(state, name) {
                    (0, _) => Err(Hidden::Workflow(name.clone())),
                    _ => Ok(()),
                }
            }
            ApiCall::WorkflowShow(name)
            | ApiCall::WorkflowDelete(name)
            | ApiCall::WorkflowRemove { name, .. }
            | ApiCall::WorkflowRevisions(name)
            | ApiCall::WorkflowHistory(name) => self.whole(state, name),
            ApiCall::WorkflowText { name, .. } => self.whole(state, name),
            // Over another's workflow nobody writes, and a diff would show it.
            ApiCall::WorkflowApply { text, .. }
            | ApiCall::Deploy { text, .. }
            | ApiCall::RolloutStart { text, .. }
            | ApiCall::RolloutBegin { text, .. }
            | ApiCall::WorkflowDiff { text } => match workflow::parse(text) {
                Ok(spec) if state.workflows.get(spec.name()).is_some() => self.whole(state, spec.name()),
                _ => Ok(()),
            },
            ApiCall::RolloutShow(id) | ApiCall::RolloutTell { id, .. } => match self.follows(state, *id, None) {
                true => Ok(()),
                false => Err(Hidden::Rollout(*id)),
            },
            _ => Ok(()),
        }
    }

    /// Whether the text of a revision may be read: by those who see every daemon that the text is for, as daemons are today. An
    /// earlier one of that name may have been another workflow, elsewhere, and a rollout that was given up may have left a text that
    /// runs on some of its daemons alone. Whoever sees all that runs of it reads also what is for daemons that are no more.
    pub fn reads(&self, state: &State, revision: (&str, u32), text: &str, now: Now) -> Result<(), Hidden> {
        let (name, number) = revision;
        let runs = state.workflows.get(name).is_some_and(|runs| runs.number == number);
        if self.0.is_none() {
            return Ok(());
        }
        let is_seen = |name: &str| match state.members.named(name) {
            Some(_) => self.names(name),
            None => runs,
        };
        let are_seen = |selector: &str| {
            let chosen = state.groups.parse(selector).map(|parsed| state.chosen(&parsed, now));
            chosen.is_ok_and(|views| (runs || !views.is_empty()) && views.iter().all(|view| self.sees(&view.node)))
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
            Change::RolloutBegun(order) => order.parts.keys().all(|node| self.sees(node)),
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
                views.iter_mut().for_each(|view| self.narrow_workflow(state, view));
            }
            ApiResult::Workflow { view, .. } => self.narrow_workflow(state, view),
            ApiResult::Status { view, parts, streams } => {
                self.narrow_workflow(state, view);
                parts.retain(|part| self.names(&part.daemon));
                self.narrow(streams);
            }
            ApiResult::Ledger(streams) => self.narrow(streams),
            ApiResult::Nodes(views) => views.retain(|view| self.names(&view.daemon)),
            ApiResult::Notes(views) => views.retain(|view| self.names(&view.daemon)),
            ApiResult::Carriers(all) => {
                for one in &mut *all {
                    one.daemons.retain(|daemon| self.names(daemon));
                }
                all.retain(|one| !one.daemons.is_empty());
            }
            ApiResult::Rollouts(views) => views.retain(|view| self.follows(state, view.id, Some(view))),
            ApiResult::Diff(diff) => diff.daemons.retain(|daemon| self.names(&daemon.daemon)),
            _ => {}
        }
        result
    }

    /// A workflow as the daemons that are seen have it: of others neither the names nor how many dead letters they keep.
    fn narrow_workflow(&self, state: &State, view: &mut WorkflowView) {
        view.daemons.retain(|daemon| self.names(daemon));
        if !view.letters_kept.is_untold() {
            let id = WorkflowId::of_name(&view.name);
            view.letters_kept = state.letters_kept_by(&id, |daemon| self.sees(daemon)).into();
        }
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
    use std::sync::Arc;

    use bus_schema::{
        carried::{LettersKept, WorkflowLetters},
        member::{Role, Signed},
        message::HostFacts,
    };

    use super::*;
    use crate::domain::{
        change::Signer,
        groups::Groups,
        members::Member,
        rollout::{Exchange, Order},
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
        let scope = Selector::parse("site=berlin").unwrap();
        Sight::of(state, Some(&scope), "bea", Now::default())
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
        let remove = |name: &str| ApiCall::WorkflowRemove {
            name: name.into(),
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
            (remove("b"), None),
            (remove("a"), Some(Hidden::Elsewhere("a".into()))),
            (remove("c"), Some(workflow("c"))),
            (ApiCall::Notes(Some("c".into())), Some(workflow("c"))),
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
            // It runs; a rollout of it was given up before it came there.
            ("gw-2", 1, false),
            ("gw-1", 1, true),
            ("gone", 1, true),
            ("site=nowhere", 1, true),
            ("site=bonn", 1, false),
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

    /// A rollout of `workflow` to these daemons that nobody has begun to carry out.
    fn rollout(id: u64, workflow: &str, on: &[u8]) -> Change {
        let exchange = |after| Exchange { before: None, after };
        let parts = on.iter().map(|n| (node(*n), exchange(Some(part(workflow, 2)))));
        Change::RolloutBegun(Arc::new(Order {
            id,
            workflow: workflow.into(),
            revision: 2,
            before: None,
            by: "anna".into(),
            at_unix_ms: 0,
            policy: Default::default(),
            waves: vec![on.iter().map(|n| node(*n)).collect()],
            parts: parts.collect(),
        }))
    }

    #[test]
    fn rollouts_are_for_those_who_see_all_of_their_daemons() {
        let mut state = state();
        for (id, workflow, on, is_covered) in [
            (1, "b", vec![1], true),
            (2, "c", vec![2], false),
            (3, "d", vec![1, 2], false),
        ] {
            let change = rollout(id, workflow, &on);
            assert_eq!(berlin(&state).covers(std::slice::from_ref(&change)), is_covered, "{id}");
            state.apply([change], true, Now::default());
        }
        let sight = berlin(&state);
        let shown = |sight: &Sight, state: &State| {
            let ApiResult::Rollouts(views) =
                sight.narrowed(state, ApiResult::Rollouts(state.rollout_views(Now::default())))
            else {
                panic!("another answer")
            };
            views.iter().map(|view| view.id).collect::<Vec<_>>()
        };
        assert_eq!(shown(&sight, &state), [1]);
        assert_eq!(shown(&Sight::default(), &state), [3, 2, 1]);
        for id in 1..=3 {
            let tell = ApiCall::RolloutTell {
                id,
                command: bus_schema::rollout::RolloutCommand::Abort,
                reason: String::new(),
            };
            for call in [ApiCall::RolloutShow(id), tell] {
                let expected = if id == 1 { Ok(()) } else { Err(Hidden::Rollout(id)) };
                assert_eq!(sight.admits(&state, &call), expected, "{call:?}");
                assert_eq!(Sight::default().admits(&state, &call), Ok(()), "{call:?}");
            }
        }
        // `d` goes where it is seen first, and is not theirs for that: nor is its text, once the first wave has it.
        let signer = Signer {
            root: identity(0),
            plane: identity(100),
        };
        let first = [(node(1), part("d", 2))].into();
        let placed = state.place(&WorkflowId::of_name("d"), first, &signer).unwrap();
        state.apply(placed, true, Now::default());
        let call = ApiCall::WorkflowShow("d".into());
        assert_eq!(berlin(&state).admits(&state, &call), Err(Hidden::Elsewhere("d".into())));

        // Over: by what runs now, by who began it, and never when somebody failed who is not seen.
        let view = |id: u64, workflow: &str, by: &str, failed: &[&str]| RolloutView {
            id,
            workflow: workflow.into(),
            by: by.into(),
            failures: failed
                .iter()
                .map(|daemon| bus_schema::rollout::RolloutFailure {
                    daemon: daemon.to_string(),
                    cause: String::new(),
                })
                .collect(),
            ..state.rollout_views(Now::default())[0].clone()
        };
        let over = [
            (view(11, "b", "anna", &["gw-1"]), true),
            (view(12, "b", "anna", &["gw-2"]), false),
            (view(13, "a", "anna", &[]), false),
            (view(14, "gone", "anna", &[]), false),
            (view(15, "gone", "bea", &["gw-1"]), true),
            (view(16, "gone", "bea", &["gw-1", "gw-2"]), false),
        ];
        for (view, is_seen) in over {
            let id = view.id;
            state.apply([Change::RolloutEnded(Box::new(view))], true, Now::default());
            assert_eq!(shown(&berlin(&state), &state).contains(&id), is_seen, "{id}");
        }
    }

    #[test]
    fn history_and_alerts_are_of_what_is_seen() {
        let state = state();
        let berlin = berlin(&state);
        for (subject, is_seen) in [
            ("daemon:gw-1", true),
            ("daemon:gw-2", false),
            ("daemon:gone", false),
            ("workflow:b", true),
            ("workflow:a", false),
            ("workflow:c", false),
            ("stream:b/s.d", true),
            ("stream:a/s.d", false),
            ("node:b/s", true),
            ("node:c/s", false),
            ("rollout:b", true),
            ("plane", false),
            ("", false),
        ] {
            assert_eq!(berlin.shows(&state, subject), is_seen, "{subject}");
            assert!(Sight::default().shows(&state, subject));
        }
    }

    #[test]
    fn groups_are_told_without_what_is_not_seen() {
        let (state, mut groups) = (state(), Groups::default());
        for (name, selector) in [
            ("all", ""),
            ("bonn", "site=bonn"),
            ("mine", "site=berlin"),
            ("named", "site=berlin -name:gw-2"),
        ] {
            groups = groups.with(name, selector).unwrap();
        }
        let told = |sight: &Sight| {
            let views = state.group_views(&groups, sight, Now::default()).into_iter();
            views
                .map(|view| format!("{}: {} {}", view.name, view.selector, view.daemons))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            told(&berlin(&state)),
            [
                format!("all: {ELSEWHERE} 1"),
                "mine: site=berlin 1".into(),
                format!("named: {ELSEWHERE} 1")
            ]
        );
        assert_eq!(
            told(&Sight::default()).join(", "),
            "all:  2, bonn: site=bonn 1, mine: site=berlin 1, named: site=berlin -name:gw-2 1"
        );
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
        // Nor does a number tell what waits elsewhere.
        let mut letters = state.clone();
        for (n, kept) in [(1, 2), (2, 40)] {
            let workflow = WorkflowId::of_name("a");
            let workflows = vec![WorkflowLetters { workflow, kept }];
            letters.on_letters_kept(node(n), &LettersKept { workflows });
        }
        for (sight, kept) in [(&Sight::default(), 42), (&berlin, 2)] {
            let all = sight.narrowed(&letters, ApiResult::Workflows(letters.workflow_views(now)));
            let ApiResult::Workflows(views) = all else {
                panic!("another answer")
            };
            assert_eq!(views[0].letters_kept.get(), Some(&kept));
            let notes = sight.narrowed(&letters, ApiResult::Notes(letters.note_views(Some("a"), now)));
            let ApiResult::Notes(notes) = notes else {
                panic!("another answer")
            };
            assert_eq!(notes.iter().filter_map(|note| note.letters_kept).sum::<u64>(), kept);
        }
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
