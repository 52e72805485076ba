//! From a workflow's plan to pipes that can run: builds components, opens spools, ties streams to sources and sinks.

use std::{
    collections::{HashMap, hash_map::Entry},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use bus_link::{home::Home, secure::Secure};
use bus_schema::{
    carried::StreamCarried,
    data::Origin,
    id::StreamId,
    message::{Side, StreamReport},
    plan::{Action, ComponentRole, Pipe as PipePlan, PlanNode, PlanWorkflow, Root, SECOND_TRACK, Step, StreamSpec},
};
use connectors::{CustomCode, Refused};
use flow::{
    Build, BuildContext, ConfigError, Fault, Junction, Leaf, Meter, Pipe, Registry, Shared, Sink, Source, Stage,
    Transform,
};

use crate::streams::{
    Incoming, Outgoing, Streams, Tracks,
    outgoing::{Kind, spool_dir, stream_dir},
};

/// Where nodes that join inputs keep what waits, in the daemon's directory.
const JUNCTIONS_DIR: &str = "joins";

/// Those of a workflow, by index.
type Junctions = HashMap<u16, Box<dyn Junction>>;

/// What assembling needs of the daemon.
#[derive(Clone)]
pub struct Workshop {
    /// What can be built.
    pub registry: Arc<Registry>,
    /// The member's files.
    pub home: Arc<Home>,
    /// Its keys.
    pub secure: Arc<Secure>,
    /// Its streams.
    pub streams: Arc<Streams>,
    /// Room for buffers.
    pub budget: Arc<spool::Budget>,
    /// Where relative paths in configs start.
    pub base_dir: PathBuf,
    /// When the daemon started.
    pub started: Instant,
    /// Which code of their own workflows may run.
    pub custom_code: Arc<CustomCode>,
}

/// A workflow's pipes and what belongs to them.
pub struct Assembled {
    /// The pipes, in the plan's order.
    pub pipes: Vec<Pipe>,
    /// Their sinks, to be closed last.
    pub sinks: Vec<Shared>,
    /// Streams that begin here.
    pub outgoing: Vec<Arc<Outgoing>>,
    /// Streams that end here.
    pub incoming: Vec<Arc<Incoming>>,
    /// Accounts of pipes that go from a source straight to a destination.
    pub direct: Vec<Direct>,
}

/// The account of a pipe without streams.
#[derive(Clone)]
pub struct Direct {
    report: StreamReport,
    meter: Arc<Meter>,
    /// What the junction at its beginning has made and nobody has read.
    waiting: Option<Arc<dyn Fn() -> u64 + Send + Sync>>,
}

impl Direct {
    /// What it has carried.
    pub fn carried(&self) -> StreamCarried {
        let flow::Throughput { bytes, timed, took_ms } = self.meter.throughput();
        StreamCarried {
            stream: self.report.stream,
            bytes,
            timed,
            took_ms,
        }
    }

    /// The account now.
    pub fn report(&self) -> StreamReport {
        let mark = self.meter.mark();
        let waiting = self.waiting.as_ref().map_or(0, |waiting| waiting());
        let account = self.meter.account_at(&mark);
        StreamReport {
            watermark: mark.seq,
            ledger: flow::Account {
                produced: account.produced + waiting,
                buffered: account.buffered + waiting,
                ..account
            },
            ..self.report.clone()
        }
    }
}

/// Streams of a workflow, without opening anything.
pub fn stream_specs(plan: &PlanWorkflow) -> Vec<StreamSpec> {
    let mut specs = Vec::new();
    for pipe in &plan.pipes {
        if let Root::Stream(spec) = &pipe.root {
            specs.push(spec.clone());
        }
        let leaves = pipe.steps.iter().flat_map(|step| step.action.streams());
        specs.extend(leaves.cloned());
    }
    specs
}

impl Workshop {
    /// Builds all pipes of a workflow. Blocks on opening spools.
    pub fn assemble(&self, plan: &PlanWorkflow) -> Result<Assembled, Fault> {
        let mut out = Assembled {
            pipes: Vec::new(),
            sinks: Vec::new(),
            outgoing: Vec::new(),
            incoming: Vec::new(),
            direct: Vec::new(),
        };
        let (mut shared, mut junctions) = (HashMap::new(), HashMap::new());
        for pipe in &plan.pipes {
            let built = self.pipe(plan, pipe, (&mut shared, &mut junctions), &mut out)?;
            out.pipes.push(built);
        }
        out.sinks.extend(shared.into_values());
        Ok(out)
    }

    fn pipe(
        &self,
        plan: &PlanWorkflow,
        pipe: &PipePlan,
        (shared, junctions): (&mut HashMap<u16, Shared>, &mut Junctions),
        out: &mut Assembled,
    ) -> Result<Pipe, Fault> {
        let mut stages: Vec<Stage> = Vec::new();
        let mut leaves = Vec::new();
        // Steps are numbered with leaves among them, stages without.
        let mut stage_of_step = HashMap::new();
        for (number, step) in pipe.steps.iter().enumerate() {
            let after = match step.after {
                None => None,
                Some(before) => Some(
                    *stage_of_step
                        .get(&before)
                        .ok_or_else(|| broken(plan, "a step follows none before it"))?,
                ),
            };
            match &step.action {
                Action::Transform(index) => {
                    let node = node(plan, *index)?;
                    let transform = self.transform(plan, node)?;
                    stage_of_step.insert(number as u16, stages.len());
                    stages.push(Stage {
                        after,
                        node: node.id.clone(),
                        transform,
                    });
                }
                Action::Sink(index) => {
                    let node = node(plan, *index)?;
                    let sink = match shared.get(index) {
                        Some(sink) => sink.clone(),
                        None if node.role == ComponentRole::Transform => {
                            let from = comes_from(plan, pipe, step, node)?;
                            let input = self.junction(plan, *index, junctions)?.input(&from);
                            let input = input.map_err(|cause| Fault::stop(format!("{}: {cause}", node.id)))?;
                            let sink = Shared::new(input);
                            out.sinks.push(sink.clone());
                            sink
                        }
                        None => {
                            let sink = Shared::new(self.sink(plan, node)?);
                            shared.insert(*index, sink.clone());
                            sink
                        }
                    };
                    let stream = self.lineage(plan, pipe, node)?;
                    leaves.push(Leaf {
                        after,
                        node: node.id.clone(),
                        stream,
                        sink,
                        meter: Arc::default(),
                    });
                }
                Action::Stream(spec) => {
                    let outgoing = self.outgoing(plan, pipe, spec, None)?;
                    self.unite(plan, pipe, spec, &outgoing)?;
                    leaves.push(stream_leaf(after, spec, outgoing.sink()));
                    out.outgoing.push(outgoing);
                }
                Action::Tracks([first, second]) => {
                    let tracks = [
                        self.outgoing(plan, pipe, first, Some(second.stream))?,
                        self.outgoing(plan, pipe, second, Some(first.stream))?,
                    ];
                    out.outgoing.extend(tracks.iter().cloned());
                    leaves.push(stream_leaf(after, first, Tracks::sink(tracks)));
                }
            }
        }
        let first = leaves.first().ok_or_else(|| broken(plan, "a pipe without an end"))?;
        let (node, source, origin) = match &pipe.root {
            Root::Source(index) => {
                let node = node(plan, *index)?;
                let (source, waiting) = if node.role == ComponentRole::Transform {
                    let junction = self.junction(plan, *index, junctions)?;
                    (junction.output(), Some(Arc::from(junction.waiting())))
                } else {
                    (self.source(plan, node)?, None)
                };
                if let Some(direct) = direct(plan, pipe, node, first, self.secure.epoch()) {
                    out.direct.push(Direct { waiting, ..direct });
                }
                (node.id.clone(), source, Some(self.origin(&node.id)))
            }
            Root::Stream(spec) => {
                let (secure, meter) = (Arc::clone(&self.secure), Arc::clone(&first.meter));
                let incoming = Incoming::new(secure, plan.id, spec.clone(), meter);
                let source = incoming.source(Arc::clone(&self.streams));
                out.incoming.push(incoming);
                (spec.edge.clone(), source, None)
            }
        };
        Ok(Pipe {
            node,
            source,
            origin,
            stages,
            leaves,
            rereads: self.replays(plan, pipe),
        })
    }

    /// Opens a stream that begins here.
    fn outgoing(
        &self,
        plan: &PlanWorkflow,
        pipe: &PipePlan,
        spec: &StreamSpec,
        twin: Option<StreamId>,
    ) -> Result<Arc<Outgoing>, Fault> {
        let kind = Kind {
            replays: self.replays(plan, pipe),
            dated_here: matches!(pipe.root, Root::Source(_)),
            twin,
        };
        let secure = Arc::clone(&self.secure);
        Outgoing::open(&self.home, &self.budget, secure, plan.id, spec.clone(), kind)
    }

    /// A stream that delivered live data first once, and does no more, goes on from where its second track was.
    fn unite(&self, plan: &PlanWorkflow, pipe: &PipePlan, spec: &StreamSpec, first: &Outgoing) -> Result<(), Fault> {
        let second = spec.second_track(&plan.id);
        if !spool_dir(&stream_dir(self.home.dir(), &second.stream)).is_dir() {
            return Ok(());
        }
        let second = self.outgoing(plan, pipe, &second, Some(spec.stream))?;
        first.adopt(&second)
    }

    /// Under which id a destination keeps the watermark of what comes from one root.
    fn lineage(&self, plan: &PlanWorkflow, pipe: &PipePlan, sink: &PlanNode) -> Result<StreamId, Fault> {
        let me = *self.secure.node();
        let (root, producer, taker) = match &pipe.root {
            Root::Source(index) => (node(plan, *index)?.id.clone(), me, me),
            // Whoever takes it next goes on after what this one has written.
            Root::Stream(spec) if spec.is_shared(&plan.id) => (spec.edge.clone(), spec.producer, spec.producer),
            Root::Stream(spec) => (spec.edge.clone(), spec.producer, me),
        };
        let edge = format!("{root}=>{}", sink.id);
        Ok(StreamId::of_edge(&plan.id, &edge, &producer, &taker))
    }

    /// Whether a pipe's root can read again from a position. A stream can, as far as its producer still has it.
    fn replays(&self, plan: &PlanWorkflow, pipe: &PipePlan) -> bool {
        match &pipe.root {
            Root::Source(index) => {
                let node = plan.nodes.get(usize::from(*index));
                node.is_some_and(|node| self.registry.is_durable(&node.component))
            }
            Root::Stream(_) => true,
        }
    }

    fn origin(&self, source: &str) -> Arc<dyn Fn() -> Origin + Send + Sync> {
        let (source, boot, started) = (source.to_string(), self.secure.epoch(), self.started);
        Arc::new(move || Origin {
            source: source.clone(),
            boot,
            uptime_ms: started.elapsed().as_millis() as u64,
            unix_ms: unix_ms(),
        })
    }

    /// Refuses what this daemon does not allow.
    fn admit(&self, node: &PlanNode) -> Result<(), Fault> {
        let admitted = self.custom_code.admit(&node.component, &node.config);
        admitted.map_err(|Refused { what, remedy }| Fault::stop(format!("{}: {what}; to allow it: {remedy}", node.id)))
    }

    fn context(&self, plan: &PlanWorkflow, node: &PlanNode) -> BuildContext {
        BuildContext {
            workflow: plan.name.clone(),
            node: node.id.clone(),
            daemon: self.secure.me().name.clone(),
            base_dir: self.base_dir.clone(),
        }
    }

    fn source(&self, plan: &PlanWorkflow, node: &PlanNode) -> Result<Box<dyn Source>, Fault> {
        self.admit(node)?;
        match self.registry.find(ComponentRole::Source, &node.component) {
            Some(Build::Source(build)) => {
                build(&node.config, &self.context(plan, node)).map_err(|error| misfit(node, &error))
            }
            _ => Err(unknown(node)),
        }
    }

    fn transform(&self, plan: &PlanWorkflow, node: &PlanNode) -> Result<Box<dyn Transform>, Fault> {
        self.admit(node)?;
        match self.registry.find(ComponentRole::Transform, &node.component) {
            Some(Build::Transform(build)) => {
                build(&node.config, &self.context(plan, node)).map_err(|error| misfit(node, &error))
            }
            _ => Err(unknown(node)),
        }
    }

    /// A node at which pipes end and one begins, made when the first of them asks for it.
    fn junction<'j>(
        &self,
        plan: &PlanWorkflow,
        index: u16,
        junctions: &'j mut Junctions,
    ) -> Result<&'j dyn Junction, Fault> {
        let made = match junctions.entry(index) {
            Entry::Occupied(made) => made.into_mut(),
            Entry::Vacant(place) => {
                let node = node(plan, index)?;
                let Some(Build::Junction(build)) = self.registry.find(ComponentRole::Transform, &node.component) else {
                    return Err(unknown(node));
                };
                let mut junction =
                    build(&node.config, &self.context(plan, node)).map_err(|error| misfit(node, &error))?;
                let (me, edge) = (self.secure.node(), format!("{JUNCTIONS_DIR}:{}", node.id));
                let name = StreamId::of_edge(&plan.id, &edge, me, me);
                junction.settle(Some(self.home.dir().join(JUNCTIONS_DIR).join(format!("{name}.db"))));
                place.insert(junction)
            }
        };
        Ok(&**made)
    }

    fn sink(&self, plan: &PlanWorkflow, node: &PlanNode) -> Result<Box<dyn Sink>, Fault> {
        self.admit(node)?;
        match self.registry.find(ComponentRole::Destination, &node.component) {
            Some(Build::Sink(build)) => {
                build(&node.config, &self.context(plan, node)).map_err(|error| misfit(node, &error))
            }
            _ => Err(unknown(node)),
        }
    }
}

/// Milliseconds since 1970 by this host's clock, which may be wrong.
pub fn unix_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64)
}

fn stream_leaf(after: Option<usize>, spec: &StreamSpec, sink: Box<dyn Sink>) -> Leaf {
    Leaf {
        after,
        node: spec.edge.clone(),
        stream: spec.stream,
        sink: Shared::new(sink),
        meter: Arc::default(),
    }
}

fn direct(plan: &PlanWorkflow, pipe: &PipePlan, source: &PlanNode, leaf: &Leaf, epoch: u64) -> Option<Direct> {
    let is_direct = pipe.steps.iter().any(|step| matches!(step.action, Action::Sink(_)));
    is_direct.then(|| Direct {
        report: StreamReport {
            stream: leaf.stream,
            workflow: plan.id,
            edge: format!("{}->{}", source.id, leaf.node),
            side: Side::Direct,
            epoch,
            watermark: 0,
            ledger: flow::Account::default(),
            dead_before: 0,
            settled_earlier: 0,
            dropped_earlier: 0,
            buffered_bytes: 0,
            gaps: 0,
            trouble: String::new(),
        },
        meter: Arc::clone(&leaf.meter),
        waiting: None,
    })
}

fn node(plan: &PlanWorkflow, index: u16) -> Result<&PlanNode, Fault> {
    plan.nodes
        .get(usize::from(index))
        .ok_or_else(|| broken(plan, "a step names no node"))
}

/// The node whose records a step takes.
fn comes_from(plan: &PlanWorkflow, pipe: &PipePlan, step: &Step, into: &PlanNode) -> Result<String, Fault> {
    let before = step.after.and_then(|before| pipe.steps.get(usize::from(before)));
    match (before.map(|step| &step.action), &pipe.root) {
        (Some(Action::Transform(index)), _) | (None, Root::Source(index)) => Ok(node(plan, *index)?.id.clone()),
        (None, Root::Stream(spec)) => {
            let way = spec.edge.strip_suffix(SECOND_TRACK).unwrap_or(&spec.edge);
            let way = way.strip_suffix(&format!("->{}", into.id)).unwrap_or(way);
            Ok(way.rsplit("->").next().unwrap_or(way).to_string())
        }
        (Some(_), _) => Err(broken(plan, "a step follows one that ends")),
    }
}

fn broken(plan: &PlanWorkflow, what: &str) -> Fault {
    Fault::stop(format!(
        "the plan of workflow '{}' contradicts itself: {what}; apply the workflow again",
        plan.name
    ))
}

fn misfit(node: &PlanNode, error: &ConfigError) -> Fault {
    Fault::stop(format!("{}: {error}", node.id))
}

fn unknown(node: &PlanNode) -> Fault {
    Fault::stop(format!(
        "{}: this daemon has no {} '{}'; update myceliald, or see: myceliald components",
        node.id, node.role, node.component
    ))
}

/// Where a workflow's relative paths start when nothing else is said.
pub fn base_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("files")
}
