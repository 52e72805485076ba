//! One hollow daemon: what it knows, what it makes of a message, and what it has to say. Seals and opens as a real one does,
//! takes plans by the same rule, and reports what a real one would report of records that it does not move. Has no
//! connection; what it says goes into a list for whoever holds one.

use std::{collections::BTreeMap, sync::Arc};

use bus_link::{
    home::Membership,
    parts::{Assembly, parts},
    secure::Secure,
};
use bus_schema::{
    api::{Failure, FailureKind},
    carried::{Carried, NodeCarried, StreamCarried, Work as NodeWork},
    control::{ControlCall, ControlResult},
    id::{NodeId, StreamId, WorkflowId, hash},
    key::Identity,
    limits::LEASE_MS,
    member::Role,
    message::{
        Body, CatalogAsk, CatalogPage, Exchange, Ledger, Message, Ping, PlanPut, Pong, Resources, RosterPut, RunState,
        Side, Status, StreamReport, StreamReports, TimeHint, WorkflowStatus,
    },
    plan::{Action, ComponentRole, Descriptor, Plan, PlanWorkflow, Root},
    subject::{self, Lane, Subject},
};
use tokio::time::Instant;

use crate::orders::{Fate, Orders};

/// How long a workflow takes to start.
const START_MS: u64 = 300;
/// What a workflow moves on each pipe, in records a second.
const RATE_PER_S: u64 = 10;
/// What a record takes.
const RECORD_BYTES: u64 = 40;
/// What a hollow daemon says it carries: enough to check workflows for it. Their configs are anything.
const COMPONENTS: [(ComponentRole, &str); 5] = [
    (ComponentRole::Source, "generator"),
    (ComponentRole::Transform, "filter"),
    (ComponentRole::Destination, "file"),
    (ComponentRole::Destination, "sqlite"),
    (ComponentRole::Destination, "discard"),
];

/// A sealed message on its way.
pub type Frame = (Subject, Vec<u8>);

/// What all hollow daemons carry, and its hash.
#[derive(Debug, Clone)]
pub struct Catalog {
    components: Arc<[Descriptor]>,
    hash: [u8; 32],
}

impl Default for Catalog {
    fn default() -> Self {
        let components: Vec<Descriptor> = COMPONENTS
            .iter()
            .map(|(role, name)| Descriptor {
                role: *role,
                name: (*name).to_string(),
                summary: "simulated".into(),
                schema: r#"{"type":"object"}"#.into(),
                example: String::new(),
                inputs_max: u16::from(*role == ComponentRole::Transform),
                durable: true,
            })
            .collect();
        Self {
            hash: hash("mycelial catalog v1", &[&bus_schema::encode(&components)]),
            components: components.into(),
        }
    }
}

/// One workflow at work.
#[derive(Debug, Clone)]
struct Work {
    part: PlanWorkflow,
    since_ms: u64,
    /// What its pipes have moved before `since_ms`, and the records that died.
    moved: u64,
    dead: u64,
}

/// One daemon.
pub struct Daemon {
    name: String,
    identity: Identity,
    membership: Membership,
    catalog: Catalog,
    secure: Secure,
    assembly: Assembly,
    correlation: u64,
    boot: u64,
    started: Instant,
    began_unix_ms: Option<i64>,
    plan: Option<Plan>,
    plan_error: String,
    works: BTreeMap<WorkflowId, Work>,
    is_gone: bool,
    out: Vec<Frame>,
}

fn secure(identity: &Identity, membership: &Membership, boot: u64) -> anyhow::Result<Secure> {
    Ok(Secure::new(identity.clone(), membership, boot, [])?)
}

impl Daemon {
    /// A daemon that was just enrolled, at its first start.
    pub fn new(name: &str, identity: Identity, membership: Membership, catalog: Catalog) -> anyhow::Result<Self> {
        Ok(Self {
            name: name.to_string(),
            secure: secure(&identity, &membership, 1)?,
            identity,
            membership,
            catalog,
            assembly: Assembly::default(),
            correlation: 0,
            boot: 1,
            started: Instant::now(),
            began_unix_ms: None,
            plan: None,
            plan_error: String::new(),
            works: BTreeMap::new(),
            is_gone: false,
            out: Vec::new(),
        })
    }

    /// Its id.
    pub fn node(&self) -> NodeId {
        *self.secure.node()
    }

    /// Where it is spoken to.
    pub fn hears_on(&self) -> subject::Pattern {
        subject::control_to(self.secure.fleet(), self.secure.node())
    }

    /// What it has to say since the last call.
    pub fn take_out(&mut self) -> Vec<Frame> {
        std::mem::take(&mut self.out)
    }

    /// Its plan's version.
    pub fn plan_version(&self) -> u64 {
        self.plan.as_ref().map_or(0, |plan| plan.version)
    }

    /// Its workflows as they run by now: name, revision, how.
    pub fn runs(&self, orders: &Orders) -> impl Iterator<Item = (&str, u32, RunState)> {
        self.works.values().map(move |work| {
            let state = self.state_of(work, orders);
            (work.part.name.as_str(), work.part.revision, state)
        })
    }

    fn uptime_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Takes a frame. `true` when the plane should hear of it soon.
    pub fn hear(&mut self, subject: &Subject, frame: &[u8], orders: &Orders) -> bool {
        if self.is_gone || orders.is_silent(&self.name) {
            return false;
        }
        let Ok(opened) = self.secure.open(subject, frame) else {
            return false;
        };
        let Ok(body) = Body::decode(&opened.plaintext) else {
            return false;
        };
        let Some(payload) = self.assembly.take(opened.sender.node, &body, Instant::now()) else {
            return false;
        };
        let (kind, ver, from) = (body.kind, body.ver, opened.sender.node);
        let is_plane = opened.sender.role == Role::Plane;
        let asked = matches!(body.exchange, Exchange::Request { .. }).then_some(body.correlation);
        if let Ok(put) = PlanPut::from_payload(kind, ver, &payload) {
            return self.offered(&put, orders);
        }
        if let Ok(put) = RosterPut::from_payload(kind, ver, &payload) {
            if matches!(self.secure.update(put.roster.clone(), put.group.clone()), Ok(true)) {
                self.membership.roster = put.roster;
                self.membership.group = put.group;
                return true;
            }
        } else if CatalogAsk::from_payload(kind, ver, &payload).is_ok() {
            let page = CatalogPage {
                catalog: self.catalog.hash,
                components: self.catalog.components.to_vec(),
            };
            self.say(&from, Exchange::OneWay, None, &page);
        } else if let Ok(hint) = TimeHint::from_payload(kind, ver, &payload) {
            if is_plane && hint.boot == self.boot {
                self.began_unix_ms = Some(hint.unix_ms.saturating_sub_unsigned(hint.uptime_ms));
            }
        } else if let Ok(Ping { nonce }) = Ping::from_payload(kind, ver, &payload) {
            let me = self.secure.me();
            let pong = Pong {
                nonce,
                node: me.node,
                fleet: me.fleet,
                role: me.role,
                version: env!("CARGO_PKG_VERSION").to_string(),
            };
            self.say(&from, Exchange::Reply, asked, &pong);
        } else if let Ok(call) = ControlCall::from_payload(kind, ver, &payload) {
            let answer = self.commanded(&call);
            self.say(&from, Exchange::Reply, asked, &answer);
            return true;
        }
        false
    }

    fn offered(&mut self, put: &PlanPut, orders: &Orders) -> bool {
        let Some(plane) = self.secure.plane() else { return false };
        let taken = put.plan.open(&plane.keys.sign).map_err(|error| error.to_string());
        let (fleet, node) = (*self.secure.fleet(), self.node());
        let judged = taken.and_then(
            |plan| match converge::judge(&plan, &fleet, &node, self.plan_version()) {
                Ok(()) => Ok(Some(plan)),
                Err(converge::Refused::Old { .. }) => Ok(None),
                Err(error) => Err(error.to_string()),
            },
        );
        match judged {
            Ok(Some(plan)) => self.take(plan, orders),
            Ok(None) => return false,
            Err(error) => self.plan_error = error,
        }
        true
    }

    fn take(&mut self, plan: Plan, orders: &Orders) {
        let (now, slow) = (self.uptime_ms(), orders.slow_ms(&self.name));
        let running = self.works.values().map(|work| &work.part);
        let difference = converge::difference(running, &plan.workflows);
        for id in &difference.stop {
            self.works.remove(id);
        }
        for part in &plan.workflows {
            match self.works.get_mut(&part.id) {
                Some(work) => work.part.revision = part.revision,
                None => {
                    let work = Work {
                        part: part.clone(),
                        since_ms: now + START_MS + slow,
                        moved: 0,
                        dead: 0,
                    };
                    self.works.insert(part.id, work);
                }
            }
        }
        self.plan = Some(plan);
        self.plan_error.clear();
    }

    fn commanded(&self, call: &ControlCall) -> ControlResult {
        let done = |workflow: &str| ControlResult::Done {
            workflows: self
                .works
                .values()
                .map(|work| work.part.name.clone())
                .filter(|name| workflow.is_empty() || name == workflow)
                .collect(),
        };
        match call {
            ControlCall::Restart { workflow }
            | ControlCall::Pause { workflow }
            | ControlCall::Drain { workflow }
            | ControlCall::Resume { workflow } => done(workflow),
            ControlCall::SpoolCheck => ControlResult::Done { workflows: Vec::new() },
            ControlCall::LogLevel { .. } => ControlResult::Done { workflows: Vec::new() },
            _ => ControlResult::Failed(Failure {
                kind: FailureKind::NotFound,
                message: "a simulated daemon has no log, and no other keys".into(),
                hint: String::new(),
                problems: Vec::new(),
            }),
        }
    }

    /// Does what orders say of coming and going. `false` while it is gone or silent.
    pub fn obey(&mut self, orders: &Orders) -> bool {
        match (orders.is_gone(&self.name), self.is_gone) {
            (true, false) => {
                self.beat_with(orders, 0);
                self.is_gone = true;
            }
            (false, true) => self.start_again(),
            _ => {}
        }
        !self.is_gone && !orders.is_silent(&self.name)
    }

    /// A new boot, with what a real one has on disk: keys, roster and plan.
    fn start_again(&mut self) {
        self.is_gone = false;
        self.boot += 1;
        self.started = Instant::now();
        self.began_unix_ms = None;
        for work in self.works.values_mut() {
            work.since_ms = START_MS;
        }
        if let Ok(secure) = secure(&self.identity, &self.membership, self.boot) {
            self.secure = secure;
        }
    }

    /// Milliseconds until a workflow that is starting has started: then there is something to say.
    pub fn changes_in_ms(&self) -> Option<u64> {
        let now = self.uptime_ms();
        let starting = self.works.values().filter(|work| work.since_ms > now);
        starting.map(|work| work.since_ms - now).min()
    }

    /// The status and the accounts.
    pub fn beat(&mut self, orders: &Orders) {
        self.beat_with(orders, LEASE_MS);
    }

    fn beat_with(&mut self, orders: &Orders, lease_ms: u64) {
        let Some(plane) = self.secure.plane() else { return };
        let workflows = self.works.values().map(|work| {
            let state = self.state_of(work, orders);
            WorkflowStatus {
                workflow: work.part.id,
                revision: work.part.revision,
                state,
                cause: match state {
                    RunState::Failed => "it was ordered to fail".to_string(),
                    _ => String::new(),
                },
            }
        });
        let status = Status {
            version: env!("CARGO_PKG_VERSION").to_string(),
            boot: self.boot,
            uptime_ms: self.uptime_ms(),
            unix_ms: unix_ms(),
            lease_ms,
            plan_version: self.plan_version(),
            plan_error: self.plan_error.clone(),
            roster_version: self.secure.roster().0,
            catalog: self.catalog.hash,
            workflows: workflows.collect(),
            resources: Resources {
                rss_bytes: 12 << 20,
                rss_peak_bytes: 13 << 20,
                cpu_ms: self.uptime_ms() / 100,
                spool_bytes: 0,
                disk_free_bytes: 8 << 30,
            },
            refused: self.secure.refused(),
            damaged: 0,
            began_unix_ms: self.began_unix_ms,
        };
        self.say(&plane.node, Exchange::OneWay, None, &status);
        let streams = self.accounts(orders);
        if !streams.is_empty() {
            let boot = self.boot;
            let carried = carried(boot, &streams);
            self.say(&plane.node, Exchange::OneWay, None, &StreamReports { boot, streams });
            self.say(&plane.node, Exchange::OneWay, None, &carried);
        }
    }

    fn state_of(&self, work: &Work, orders: &Orders) -> RunState {
        if self.uptime_ms() < work.since_ms {
            return RunState::Starting;
        }
        match orders.fate(&self.name, &work.part.name, work.part.revision) {
            Fate::Fails => RunState::Failed,
            Fate::Runs | Fate::Dies => RunState::Running,
        }
    }

    /// The accounts of pipes from a source to a destination in this daemon.
    fn accounts(&mut self, orders: &Orders) -> Vec<StreamReport> {
        let (now, me, mut reports) = (self.uptime_ms(), self.node(), Vec::new());
        for work in self.works.values_mut() {
            let since = now.saturating_sub(work.since_ms);
            let grown = since * RATE_PER_S / 1_000;
            match orders.fate(&self.name, &work.part.name, work.part.revision) {
                Fate::Fails => work.since_ms = work.since_ms.max(now),
                Fate::Runs => {
                    work.moved += grown;
                    work.since_ms += grown * 1_000 / RATE_PER_S;
                }
                Fate::Dies => {
                    work.dead += grown;
                    work.since_ms += grown * 1_000 / RATE_PER_S;
                }
            }
            for edge in direct_edges(&work.part) {
                let ledger = Ledger {
                    produced: work.moved + work.dead,
                    delivered: work.moved,
                    dead: work.dead,
                    ..Ledger::default()
                };
                reports.push(StreamReport {
                    stream: StreamId::of_edge(&work.part.id, &edge, &me, &me),
                    workflow: work.part.id,
                    edge,
                    side: Side::Direct,
                    epoch: 1,
                    watermark: work.moved + work.dead,
                    ledger,
                    dead_before: 0,
                    settled_earlier: 0,
                    dropped_earlier: 0,
                    buffered_bytes: 0,
                    gaps: 0,
                    trouble: String::new(),
                });
            }
        }
        reports
    }

    fn say<M: Message>(&mut self, to: &NodeId, exchange: Exchange, correlation: Option<u64>, message: &M) {
        let Some(peer) = self.secure.member(to) else { return };
        self.correlation += 1;
        let correlation = correlation.unwrap_or(self.correlation);
        let subject = subject::control(self.secure.fleet(), self.secure.node(), to);
        let Ok(bodies) = parts(M::KIND, M::VER, exchange, correlation, &message.to_payload()) else {
            return;
        };
        for body in bodies {
            if let Ok(frame) = self.secure.seal_for(&peer, Lane::Control, &subject, &body) {
                self.out.push((subject.clone(), frame));
            }
        }
    }
}

/// The edges of pipes that begin with a source and end with a destination.
fn direct_edges(part: &PlanWorkflow) -> Vec<String> {
    let name = |index: u16| part.nodes.get(usize::from(index)).map_or("", |node| node.id.as_str());
    let of_pipe = |pipe: &bus_schema::plan::Pipe| {
        let Root::Source(source) = pipe.root else { return None };
        pipe.steps.iter().find_map(|step| match step.action {
            Action::Sink(sink) => Some(format!("{}->{}", name(source), name(sink))),
            _ => None,
        })
    };
    part.pipes.iter().filter_map(of_pipe).collect()
}

/// What a real daemon would say of the same: each record takes so many bytes, and each report is of one batch more.
fn carried(boot: u64, streams: &[StreamReport]) -> Carried {
    let work = |records: u64, errors: u64| NodeWork {
        records,
        bytes: records * RECORD_BYTES,
        errors,
        faults: 0,
        batches: records / RATE_PER_S,
        busy_us: records,
    };
    let nodes = streams.iter().flat_map(|report| {
        let (from, to) = report.edge.split_once("->").unwrap_or((&report.edge, ""));
        let Ledger {
            produced,
            delivered,
            dead,
            ..
        } = report.ledger;
        let of = |node: &str, work| NodeCarried {
            workflow: report.workflow,
            node: node.to_string(),
            work,
        };
        [of(from, work(produced, 0)), of(to, work(delivered, dead))]
    });
    let way = |report: &StreamReport| StreamCarried {
        stream: report.stream,
        bytes: report.ledger.delivered * RECORD_BYTES,
        timed: report.ledger.delivered / RATE_PER_S,
        took_ms: report.ledger.delivered,
    };
    Carried {
        boot,
        nodes: nodes.collect(),
        streams: streams.iter().map(way).collect(),
    }
}

fn unix_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64)
}
