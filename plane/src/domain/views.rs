//! The picture as operators see it: the same for the command line and the web page. Derives, never decides.

use std::{collections::BTreeMap, sync::Arc};

use bus_schema::{
    api::{
        Carriers, ComponentView, DaemonDetail, DaemonView, Labelled, Lineage, OperatorView, PlaneInfo, Presence,
        StreamView, WorkflowPart, WorkflowView,
    },
    aside::Aside,
    id::{NodeId, WorkflowId},
    member::Role,
    message::RunState,
    plan::Descriptor,
};

use super::{
    Now, State,
    daemon::{Catalog, Daemon},
    labels::{Candidate, Selector},
    ledger::Stream,
    letters::Letters,
    members::Member,
    workflows::Revision,
};

/// A plan that a daemon which is there has not applied after this long, in milliseconds, is trouble and said to be.
pub const APPLY_MS_MAX: u64 = 60_000;

/// A time span for people: `45 s`, `3 min`, `2 h`, `5 days`.
pub fn span(ms: u64) -> String {
    let s = ms / 1_000;
    match s {
        0..120 => format!("{s} s"),
        120..7_200 => format!("{} min", s / 60),
        7_200..172_800 => format!("{} h", s / 3_600),
        _ => format!("{} days", s / 86_400),
    }
}

fn word(state: RunState) -> &'static str {
    match state {
        RunState::Starting => "starting",
        RunState::Running => "running",
        RunState::Retrying => "retrying",
        RunState::Failed => "failed",
        RunState::Finished => "finished",
        RunState::Stopping => "stopping",
        RunState::Paused => "paused",
    }
}

/// The worse a state, the higher.
fn badness(state: RunState) -> u8 {
    match state {
        RunState::Failed => 6,
        RunState::Retrying => 5,
        RunState::Paused => 4,
        RunState::Starting => 3,
        RunState::Stopping => 2,
        RunState::Running => 1,
        RunState::Finished => 0,
    }
}

fn presence_word(presence: Presence) -> &'static str {
    match presence {
        Presence::Unknown => "not heard since the plane started",
        Presence::Online => "online",
        Presence::Late => "late",
        Presence::Offline => "offline",
    }
}

fn component(descriptor: &Descriptor) -> ComponentView {
    ComponentView {
        role: descriptor.role,
        name: descriptor.name.clone(),
        summary: descriptor.summary.clone(),
        schema: descriptor.schema.clone(),
        example: descriptor.example.clone(),
    }
}

impl State {
    /// The plane, in short.
    pub fn info(&self, http: &str) -> PlaneInfo {
        let count = |role| u32::try_from(self.members.of_role(role).count()).unwrap_or(u32::MAX);
        PlaneInfo {
            fleet: self.fleet,
            plane: self.plane,
            version: env!("CARGO_PKG_VERSION").to_string(),
            roster_version: self.members.version(),
            daemons: count(Role::Daemon),
            operators: count(Role::Operator),
            workflows: u32::try_from(self.workflows.len()).unwrap_or(u32::MAX),
            http: http.to_string(),
        }
    }

    /// All daemons, by name.
    pub fn daemon_views(&self, now: Now) -> Vec<DaemonView> {
        let mut views: Vec<_> = self
            .daemons()
            .map(|(member, daemon)| self.daemon_view(member, daemon, now))
            .collect();
        views.sort_by(|a, b| a.name.cmp(&b.name));
        views
    }

    /// The daemons that a selector chooses, by name.
    pub fn chosen(&self, selector: &Selector, now: Now) -> Vec<DaemonView> {
        let mut views = self.daemon_views(now);
        views.retain(|view| {
            let planned = self.plans.of(&view.node).map_or(&[][..], |plan| &plan.workflows);
            let runs: Vec<String> = planned.iter().map(|workflow| workflow.name.clone()).collect();
            selector.chooses(&Candidate {
                view,
                labels: self.labels(&view.node),
                runs: &runs,
                groups: &self.groups,
            })
        });
        views
    }

    /// The labels of daemons.
    pub fn labelled(&self, views: &[DaemonView]) -> Vec<Labelled> {
        let one = |view: &DaemonView| Labelled {
            name: view.name.clone(),
            node: view.node,
            labels: self.labels(&view.node).clone(),
        };
        views.iter().map(one).collect()
    }

    fn daemon_view(&self, member: &Member, daemon: Option<&Daemon>, now: Now) -> DaemonView {
        let node = member.certificate.node;
        let last = daemon.and_then(Daemon::last);
        let troubled = |part: &WorkflowPart| matches!(part.state, Some(RunState::Failed | RunState::Retrying));
        let parts = self.parts_on(&node, now);
        let stuck = u32::from(!self.plan_error(&node, now).is_empty());
        DaemonView {
            name: member.certificate.name.clone(),
            node,
            presence: daemon.map_or(Presence::Unknown, Daemon::presence),
            last_seen_ms: daemon.and_then(|daemon| daemon.silent_ms(now)),
            version: last.map_or_else(|| member.host.version.clone(), |last| last.version.clone()),
            plan_version: last.map_or(0, |last| last.plan_version),
            plan_wanted: self.plans.of(&node).map_or(0, |plan| plan.version),
            troubled: u32::try_from(parts.iter().filter(|part| troubled(part)).count()).unwrap_or(u32::MAX) + stuck,
            damaged: last.map_or(0, |last| last.damaged),
            resources: last.map_or_else(Default::default, |last| last.resources.clone()),
        }
    }

    /// One daemon, by name or id.
    pub fn daemon_detail(&self, key: &str, now: Now) -> Option<DaemonDetail> {
        let by_id = || key.parse().ok().and_then(|node: NodeId| self.members.get(&node));
        let member = self.members.named(key).or_else(by_id)?;
        if member.certificate.role != Role::Daemon {
            return None;
        }
        let node = member.certificate.node;
        let daemon = self.daemon(&node);
        let last = daemon.and_then(Daemon::last);
        let mut components: Vec<_> = daemon
            .and_then(Daemon::catalog)
            .map_or(Vec::new(), |catalog| catalog.iter().map(component).collect());
        components.sort_by(|a, b| (a.role, &a.name).cmp(&(b.role, &b.name)));
        Some(DaemonDetail {
            view: self.daemon_view(member, daemon, now),
            host: member.host.clone(),
            fingerprint: member.certificate.keys.fingerprint(),
            boot: last.map_or(0, |last| last.boot),
            uptime_ms: last.map_or(0, |last| last.uptime_ms),
            clock_offset_ms: daemon.map_or(0, Daemon::clock_offset_ms),
            plan_error: self.plan_error(&node, now),
            refused: last.map_or(0, |last| last.refused),
            parts: self.parts_on(&node, now),
            components,
            lineage: Lineage {
                generation: member.certificate.key_epoch,
                former_fingerprint: self
                    .members
                    .former(&node)
                    .map_or_else(String::new, |former| former.certificate.keys.fingerprint()),
                enrolled_unix_ms: member.enrolled_unix_ms,
                is_cloned: daemon.is_some_and(|daemon| daemon.is_cloned(now.mono_ms)),
            }
            .into(),
        })
    }

    /// Why a daemon's newest plan is not applied; empty when it is, or when that may still be on its way.
    fn plan_error(&self, node: &NodeId, now: Now) -> String {
        let Some(daemon) = self.daemon(node) else {
            return String::new();
        };
        let Some(last) = daemon.last() else {
            return String::new();
        };
        if daemon.is_cloned(now.mono_ms) {
            return "two daemons use its keys (was its data directory copied and both started?): stop one of them; if you do not \
                    know where it is, revoke the daemon and enrol it anew"
                .to_string();
        }
        if !last.plan_error.is_empty() {
            return last.plan_error.clone();
        }
        if self.plans.is_foreign(node, last.plan_version) {
            return format!(
                "runs plan {}, which this plane does not know (was its store lost or restored?); it is left alone until a \
                 workflow on this daemon is applied",
                last.plan_version
            );
        }
        match self.plans.waiting_ms(node, now.mono_ms) {
            Some(waiting) if waiting > APPLY_MS_MAX && daemon.presence() == Presence::Online => format!(
                "plan {} has not been applied for {} although the daemon is online; see its log",
                self.plans.of(node).map_or(0, |plan| plan.version),
                span(waiting)
            ),
            _ => String::new(),
        }
    }

    fn parts_on(&self, node: &NodeId, now: Now) -> Vec<WorkflowPart> {
        let planned = self.plans.of(node).map_or(&[][..], |plan| &plan.workflows);
        let mut parts: Vec<_> = planned
            .iter()
            .map(|part| self.part(node, &part.id, &part.name, part.revision, now))
            .collect();
        // What it still runs without being asked to, or what a plane without memory does not know of.
        let last = self.daemon(node).and_then(Daemon::last);
        for extra in last.map_or(&[][..], |last| &last.workflows) {
            if planned.iter().all(|part| part.id != extra.workflow) {
                let name = self.workflow_name(&extra.workflow);
                parts.push(self.part(node, &extra.workflow, &name, 0, now));
            }
        }
        parts
    }

    /// A workflow's name; its id when it is not known any more.
    pub fn workflow_name(&self, id: &WorkflowId) -> String {
        self.workflows
            .name_of(id)
            .map_or_else(|| id.to_string(), str::to_string)
    }

    fn part(&self, node: &NodeId, id: &WorkflowId, name: &str, wanted: u32, now: Now) -> WorkflowPart {
        let daemon = self.daemon(node);
        let said = daemon.and_then(|daemon| daemon.workflow(id));
        let mut part = WorkflowPart {
            workflow: name.to_string(),
            daemon: self.members.name_of(node),
            revision: said.map_or(0, |said| said.revision),
            wanted: wanted.into(),
            state: None,
            cause: String::new(),
        };
        let Some(daemon) = daemon.filter(|daemon| daemon.last().is_some()) else {
            part.cause = "the daemon has not reported yet".to_string();
            return part;
        };
        if !daemon.is_believed() {
            // Stale words are not passed off as the state of things.
            let seen = daemon
                .silent_ms(now)
                .map_or(String::new(), |ms| format!(", last seen {} ago", span(ms)));
            let was = said.map_or(String::new(), |said| format!("; it was {}", word(said.state)));
            part.cause = format!("the daemon is {}{seen}{was}", presence_word(daemon.presence()));
            return part;
        }
        let error = self.plan_error(node, now);
        match said {
            Some(said) => {
                part.state = Some(said.state);
                part.cause = said.cause.clone();
                if part.cause.is_empty() && said.revision != wanted {
                    part.cause = match wanted {
                        _ if !error.is_empty() => error,
                        0 => "it shall not run here any more; the plan without it is on its way".to_string(),
                        _ => format!("revision {wanted} is on its way"),
                    };
                }
            }
            None if error.is_empty() => part.cause = "its plan is on the way to the daemon".to_string(),
            None => part.cause = error,
        }
        part
    }

    /// All workflows, by name.
    pub fn workflow_views(&self, now: Now) -> Vec<WorkflowView> {
        let letters = self.letters();
        self.workflows
            .iter()
            .map(|revision| self.view_of(revision, &letters, now))
            .collect()
    }

    /// One workflow.
    pub fn workflow_view(&self, revision: &Revision, now: Now) -> WorkflowView {
        self.view_of(revision, &self.letters(), now)
    }

    fn view_of(&self, revision: &Revision, letters: &Letters, now: Now) -> WorkflowView {
        let id = WorkflowId::of_name(&revision.workflow);
        let parts = self.parts_of(&revision.workflow, now);
        let mut daemons: Vec<_> = parts.iter().map(|part| part.daemon.clone()).collect();
        daemons.sort();
        WorkflowView {
            name: revision.workflow.clone(),
            revision: revision.number,
            by: revision.by.clone(),
            at_unix_ms: revision.at_unix_ms,
            daemons,
            state: overall(&parts, revision.number),
            letters_kept: letters.of(&id).map_or_else(Aside::default, Aside::from),
        }
    }

    /// A workflow's parts, by daemon name.
    pub fn parts_of(&self, workflow: &str, now: Now) -> Vec<WorkflowPart> {
        let id = WorkflowId::of_name(workflow);
        let planned = self.plans.parts_of(&id);
        let mut parts: Vec<_> = planned
            .map(|(node, part)| self.part(node, &id, workflow, part.revision, now))
            .collect();
        parts.sort_by(|a, b| a.daemon.cmp(&b.daemon));
        parts
    }

    /// Stream accounts, of one workflow or of all, by workflow and edge.
    pub fn stream_views(&self, workflow: Option<&str>, now: Now) -> Vec<StreamView> {
        let id = workflow.map(WorkflowId::of_name);
        let streams = self.streams.iter().map(|(_, stream)| stream);
        let letters = self.letters();
        let mut views: Vec<_> = streams
            .filter(|stream| id.is_none_or(|id| *stream.workflow() == id))
            .map(|stream| self.stream_view(stream, &letters, now))
            .collect();
        views.sort_by(|a, b| (&a.workflow, &a.edge, &a.producer).cmp(&(&b.workflow, &b.edge, &b.producer)));
        views
    }

    fn stream_view(&self, stream: &Stream, letters: &Letters, now: Now) -> StreamView {
        let account = stream.account();
        let (producer, consumer) = stream.ends();
        let name = |node: Option<NodeId>| node.map_or(String::new(), |node| self.members.name_of(&node));
        let way = stream.way();
        let workflow = stream.workflow();
        let has_letters = account.ledger.dead > 0 && letters.of(workflow) != Some(0);
        let mut trouble = stream.trouble();
        if trouble.is_empty() && !stream.is_accounted() {
            trouble = format!("no account from '{}' yet", name(producer));
        }
        StreamView {
            workflow: self.workflow_name(stream.workflow()),
            edge: stream.edge().to_string(),
            producer: name(producer),
            consumer: name(consumer),
            epoch: account.epoch,
            ledger: account.ledger,
            balances: account.balances,
            buffered_bytes: stream.buffered_bytes(),
            rate: stream.rate(now.mono_ms),
            lag_ms: stream.lag_ms(now.mono_ms).into(),
            bytes: way.map_or_else(Aside::default, |way| way.bytes().into()),
            bytes_per_s: way.map_or_else(Aside::default, |way| way.bytes_per_s(now.mono_ms).into()),
            latency_ms: way.map_or_else(Aside::default, |way| way.latency_ms(now.mono_ms).into()),
            dropped_lately: stream.dropped_lately(now.mono_ms).into(),
            has_letters: has_letters.into(),
            trouble,
        }
    }

    /// All operators, by name.
    pub fn operator_views(&self) -> Vec<OperatorView> {
        let view = |member: &std::sync::Arc<Member>| OperatorView {
            name: member.certificate.name.clone(),
            node: member.certificate.node,
            fingerprint: member.certificate.keys.fingerprint(),
            enrolled_unix_ms: member.enrolled_unix_ms,
        };
        let mut views: Vec<_> = self.members.of_role(Role::Operator).map(view).collect();
        views.sort_by(|a, b| a.name.cmp(&b.name));
        views
    }

    /// Every component any daemon carries, by role and name.
    pub fn component_views(&self) -> Vec<ComponentView> {
        let mut all = BTreeMap::new();
        let catalogs = self
            .daemons()
            .filter_map(|(_, daemon)| daemon.and_then(Daemon::catalog));
        for descriptor in catalogs.flat_map(|catalog| catalog.iter()) {
            all.entry((descriptor.role, descriptor.name.as_str()))
                .or_insert(descriptor);
        }
        all.into_values().map(component).collect()
    }

    /// Which daemons carry which components: each catalog once, with those of whom it is known.
    pub fn carriers(&self) -> Vec<Carriers> {
        let mut by_catalog: Vec<(&Catalog, Vec<String>)> = Vec::new();
        for (member, daemon) in self.daemons() {
            let Some(catalog) = daemon.and_then(Daemon::catalog) else {
                continue;
            };
            let name = member.certificate.name.clone();
            // Who carries the same shares the memory of it.
            let same = by_catalog.iter_mut().find(|(known, _)| Arc::ptr_eq(known, catalog));
            match same {
                Some((_, daemons)) => daemons.push(name),
                None => by_catalog.push((catalog, vec![name])),
            }
        }
        let one = |(catalog, mut daemons): (&Catalog, Vec<String>)| {
            daemons.sort();
            let mut components: Vec<_> = catalog.iter().map(|one| format!("{}/{}", one.role, one.name)).collect();
            components.sort();
            Carriers { components, daemons }
        };
        by_catalog.into_iter().map(one).collect()
    }

    /// What workflows are checked against: names, ids and components of all daemons.
    pub fn placeable(&self) -> impl Iterator<Item = (&str, NodeId, Option<Catalog>)> {
        self.daemons().map(|(member, daemon)| {
            let certificate = &member.certificate;
            (
                certificate.name.as_str(),
                certificate.node,
                daemon.and_then(Daemon::catalog).cloned(),
            )
        })
    }
}

/// The worst state of all parts. As long as one of them is not known, and no other is in trouble, nothing is claimed.
fn overall(parts: &[WorkflowPart], revision: u32) -> Option<RunState> {
    let seen = |part: &WorkflowPart| match part.state {
        // An older revision that runs well is not what was asked for.
        Some(RunState::Running | RunState::Finished) if part.revision != revision => Some(RunState::Starting),
        state => state,
    };
    let worst = parts.iter().filter_map(seen).max_by_key(|state| badness(*state))?;
    let unknown = parts.iter().any(|part| part.state.is_none());
    let trouble = matches!(worst, RunState::Failed | RunState::Retrying);
    (trouble || !unknown).then_some(worst)
}

#[cfg(test)]
mod tests {
    use bus_schema::message::{Status, WorkflowStatus};

    use super::*;
    use crate::domain::{
        change::Signer,
        testing::{at, identity, node, state, status},
    };

    fn says(state: &mut State, n: u8, revision: u32, run: RunState, now: u64) {
        let workflow = WorkflowId::of_name("a");
        let workflows = vec![WorkflowStatus {
            workflow,
            revision,
            state: run,
            cause: String::new(),
        }];
        state.on_status(
            node(n),
            Status {
                workflows,
                ..status(1, now, 1)
            },
            at(now),
        );
    }

    #[test]
    fn a_workflow_is_as_good_as_its_worst_part_and_never_better_than_known() {
        use RunState::{Failed, Finished, Retrying, Running, Starting};
        // (gw's revision and state, hub's, overall)
        for (gw, hub, expected) in [
            (None, None, None),
            (Some((1, Running)), None, None),
            (Some((1, Failed)), None, Some(Failed)),
            (Some((1, Running)), Some((1, Running)), Some(Running)),
            (Some((1, Running)), Some((1, Finished)), Some(Running)),
            (Some((1, Finished)), Some((1, Finished)), Some(Finished)),
            (Some((1, Retrying)), Some((1, Starting)), Some(Retrying)),
            (Some((0, Running)), Some((1, Running)), Some(Starting)),
        ] {
            let mut state = state();
            for (n, said) in [(1, gw), (2, hub)] {
                if let Some((revision, run)) = said {
                    says(&mut state, n, revision, run, 10);
                }
            }
            let views = state.workflow_views(at(20));
            assert_eq!(views.len(), 1);
            assert_eq!(views[0].state, expected, "{gw:?} {hub:?}");
            assert_eq!(views[0].daemons, ["gw", "hub"]);
        }
    }

    #[test]
    fn stale_green_is_not_shown() {
        let mut state = state();
        says(&mut state, 1, 1, RunState::Running, 0);
        says(&mut state, 2, 1, RunState::Running, 0);
        assert_eq!(state.workflow_views(at(0))[0].state, Some(RunState::Running));
        state.tick(at(200_000));
        assert_eq!(state.workflow_views(at(200_000))[0].state, None);
        let parts = state.parts_of("a", at(200_000));
        assert_eq!(
            parts[0].cause,
            "the daemon is offline, last seen 3 min ago; it was running"
        );
        let daemon = &state.daemon_views(at(200_000))[0];
        assert_eq!(
            (daemon.presence, daemon.last_seen_ms),
            (Presence::Offline, Some(200_000))
        );
    }

    #[test]
    fn a_deployment_that_hangs_is_trouble() {
        let mut state = state();
        let beat = |state: &mut State, now| state.on_status(node(1), status(1, now, 0), at(now));
        beat(&mut state, 0);
        let detail = state.daemon_detail("gw", at(1_000)).unwrap();
        assert_eq!((detail.view.troubled, detail.plan_error.as_str()), (0, ""));
        assert_eq!(detail.parts[0].cause, "its plan is on the way to the daemon");
        for now in (5_000..=65_000).step_by(5_000) {
            beat(&mut state, now);
        }
        let detail = state.daemon_detail("gw", at(65_000)).unwrap();
        assert_eq!(detail.view.troubled, 1);
        assert!(
            detail.plan_error.starts_with("plan 1 has not been applied for 65 s"),
            "{}",
            detail.plan_error
        );
        assert_eq!((detail.view.plan_version, detail.view.plan_wanted), (0, 1));
    }

    #[test]
    fn daemons_by_name_or_id_and_only_daemons() {
        let state = state();
        let id = node(2).to_string();
        for (key, found) in [
            ("gw", Some("gw")),
            (id.as_str(), Some("hub")),
            ("anna", None),
            ("x", None),
            ("", None),
        ] {
            let detail = state.daemon_detail(key, at(0));
            assert_eq!(detail.as_ref().map(|detail| detail.view.name.as_str()), found, "{key}");
        }
        let view = &state.daemon_views(at(0))[0];
        assert_eq!(
            (view.presence, view.last_seen_ms, view.version.as_str()),
            (Presence::Unknown, None, "0.0.9")
        );
        let info = state.info("127.0.0.1:7777");
        assert_eq!((info.daemons, info.operators, info.workflows), (2, 1, 1));
    }

    #[test]
    fn what_runs_unasked_is_shown() {
        let mut state = state();
        let stranger = WorkflowId::of_name("from elsewhere");
        let workflows = vec![WorkflowStatus {
            workflow: stranger,
            revision: 4,
            state: RunState::Running,
            cause: String::new(),
        }];
        state.on_status(
            node(1),
            Status {
                workflows,
                ..status(1, 0, 9)
            },
            at(0),
        );
        let parts = state.daemon_detail("gw", at(0)).unwrap().parts;
        assert_eq!(parts.len(), 2);
        assert_eq!((parts[1].workflow.as_str(), parts[1].revision), (stranger.as_str(), 4));
        assert_eq!((parts[0].wanted, parts[1].wanted), (1.into(), 0.into()));
        assert!(
            parts[1].cause.contains("which this plane does not know"),
            "{}",
            parts[1].cause
        );
    }

    #[test]
    fn what_shall_not_run_any_more_says_so() {
        let mut state = state();
        says(&mut state, 1, 1, RunState::Running, 10);
        let signer = Signer {
            root: identity(0),
            plane: identity(100),
        };
        let changes = state
            .place(&WorkflowId::of_name("a"), Default::default(), &signer)
            .unwrap();
        state.apply(changes, true, at(20));
        let parts = state.daemon_detail("gw", at(20)).unwrap().parts;
        assert_eq!((parts[0].revision, parts[0].wanted), (1, 0.into()));
        assert_eq!(
            parts[0].cause,
            "it shall not run here any more; the plan without it is on its way"
        );
    }

    #[test]
    fn how_far_a_stream_is_behind() {
        use bus_schema::message::{Ledger, Side, StreamReport};

        let mut state = state();
        let mut tells = |now, produced, delivered| {
            let ledger = Ledger {
                produced,
                delivered,
                buffered: produced - delivered,
                ..Ledger::default()
            };
            let report = StreamReport {
                stream: bus_schema::id::StreamId::from_hash(&[1; 32]),
                workflow: WorkflowId::of_name("a"),
                edge: "x->y".into(),
                side: Side::Direct,
                epoch: 1,
                watermark: delivered,
                ledger,
                dead_before: 0,
                settled_earlier: 0,
                dropped_earlier: 0,
                buffered_bytes: 0,
                gaps: 0,
                trouble: String::new(),
            };
            state.on_reports(node(1), 1, vec![report], at(now));
            state.stream_views(None, at(now))[0].lag_ms
        };
        assert_eq!(tells(0, 5, 5), None.into());
        assert_eq!(tells(5_000, 9, 5), Some(0).into());
        assert_eq!(tells(15_000, 12, 5), Some(10_000).into());
        assert_eq!(tells(20_000, 12, 9), Some(5_000).into());
        assert_eq!(tells(25_000, 12, 12), None.into());
    }

    #[test]
    fn who_carries_what() {
        use bus_schema::plan::ComponentRole;

        let mut state = state();
        assert_eq!(state.carriers(), [], "nobody has told");
        let descriptor = |name: &str| Descriptor {
            role: ComponentRole::Source,
            name: name.into(),
            summary: String::new(),
            schema: String::new(),
            example: String::new(),
            inputs_max: 1,
            durable: false,
        };
        let mut tells = |n: u8, names: &[&str]| {
            let components: Vec<_> = names.iter().copied().map(descriptor).collect();
            let catalog = crate::domain::catalogs::hash_of(&components);
            state.on_status(
                node(n),
                Status {
                    catalog,
                    ..status(1, 0, 1)
                },
                at(0),
            );
            let changes = state.on_catalog(node(n), catalog, components);
            state.apply(changes, true, at(0));
        };
        tells(1, &["sqlite", "csv"]);
        tells(2, &["sqlite", "csv"]);
        let carriers = |names: &[&str], daemons: &[&str]| Carriers {
            components: names.iter().map(|name| format!("source/{name}")).collect(),
            daemons: daemons.iter().map(|name| name.to_string()).collect(),
        };
        assert_eq!(state.carriers(), [carriers(&["csv", "sqlite"], &["gw", "hub"])]);
    }

    #[test]
    fn lineage_is_shown() {
        let mut state = state();
        let lineage = |state: &State| {
            state
                .daemon_detail("gw", at(0))
                .unwrap()
                .lineage
                .get()
                .cloned()
                .unwrap()
        };
        let alone = lineage(&state);
        assert_eq!((alone.generation, alone.former_fingerprint.as_str()), (0, ""));
        assert!(!alone.is_cloned);
        let former = state.members.get(&node(1)).unwrap().certificate.clone();
        let fingerprint = former.keys.fingerprint();
        let signed = bus_schema::member::Signed::new(&former, &identity(0));
        let former = crate::domain::members::FormerKeys {
            certificate: former,
            signed,
        };
        state.members.set_former(node(1), Some(Box::new(former)));
        assert_eq!(lineage(&state).former_fingerprint, fingerprint);
    }

    #[test]
    fn spans() {
        for (ms, text) in [
            (0, "0 s"),
            (119_999, "119 s"),
            (120_000, "2 min"),
            (7_200_000, "2 h"),
            (172_800_000, "2 days"),
        ] {
            assert_eq!(span(ms), text);
        }
    }
}
