//! Cuts a checked workflow into pipes and streams, daemon by daemon.
//!
//! From every source, and from every stream that comes in, records go through a tree of local transforms. The tree's leaves
//! decide: a single leaf that is a destination here is reached directly; every other leaf is a stream, to another daemon or,
//! spooled, to this one. A node that joins inputs is both: a leaf like a destination for what comes in, and then a root like a
//! source. A node with several inputs stands once in the tree for every way that leads to it.

use std::collections::VecDeque;

use bus_schema::{
    api::Problem,
    encode,
    id::{NodeId, StreamId, WorkflowId},
    plan::{Action, ComponentRole, Pipe, PlanNode, PlanWorkflow, Root, Step, StreamSpec},
};
use serde_json::{Map, Value};

use crate::{
    PART_BYTES_MAX,
    fleet::Site,
    graph, joins,
    spec::{Place, Spec},
};

/// A workflow, cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// Its id.
    pub id: WorkflowId,
    /// Its name.
    pub name: String,
    /// What each daemon runs; ordered by daemon name, none without nodes.
    pub parts: Vec<Part>,
}

/// What one daemon runs of a workflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The daemon's name.
    pub daemon: String,
    /// The daemon's id.
    pub node: NodeId,
    /// For its plan.
    pub workflow: PlanWorkflow,
}

impl Compiled {
    /// Every stream, once; those inside one daemon too.
    pub fn streams(&self) -> impl Iterator<Item = &StreamSpec> {
        let pipes = self.parts.iter().flat_map(|part| &part.workflow.pipes);
        pipes.filter_map(|pipe| match &pipe.root {
            Root::Stream(stream) => Some(stream),
            Root::Source(_) => None,
        })
    }
}

/// Cuts. `sites` says where each node runs, `configs` which configs were filled in for their daemon.
pub(crate) fn cut(
    spec: &Spec,
    sites: &[Site<'_>],
    configs: &[Option<Map<String, Value>>],
    revision: u32,
) -> Result<Compiled, Vec<Problem>> {
    let mut cutter = Cutter::new(spec, sites, configs, revision);
    for (index, node) in spec.nodes.iter().enumerate() {
        if node.role == ComponentRole::Source || cutter.joins[index] {
            let first = cutter.readers[index].clone();
            let root = Root::Source(cutter.local[index]);
            let spot = Spot {
                after: None,
                node: index,
                merged: None,
                track: None,
            };
            cutter.todo.push_back(Todo {
                part: cutter.part_of[index],
                root,
                spot,
                first,
            });
        }
    }
    while let Some(todo) = cutter.todo.pop_front() {
        cutter.pipe(todo);
    }
    let too_large = cutter
        .parts
        .iter()
        .filter(|part| encode(&part.workflow).len() > PART_BYTES_MAX);
    let problems: Vec<Problem> = too_large
        .map(|part| {
            let message = format!("what daemon '{}' would run is over {PART_BYTES_MAX} bytes", part.daemon);
            spec.problem(&Place::root(), message, "shorten the configs, or split the workflow")
        })
        .collect();
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Compiled {
        id: spec.id(),
        name: spec.name.clone(),
        parts: cutter.parts,
    })
}

/// A pipe to be built.
struct Todo {
    /// On which part.
    part: usize,
    root: Root,
    /// What the root gives.
    spot: Spot,
    /// The nodes that read from the root here.
    first: Vec<usize>,
}

/// A point of a tree from which records flow on.
#[derive(Clone)]
struct Spot {
    /// The step that gives them; `None` for the root.
    after: Option<u16>,
    /// The node whose output they are.
    node: usize,
    /// The way since the first merge, once there was one: see [`Cutter::edge`].
    merged: Option<String>,
    /// The edge from here, where it is the second track of one.
    track: Option<String>,
}

/// An edge that ends a tree.
struct Leaf {
    spot: Spot,
    to: usize,
}

/// A pipe being built.
struct Tree {
    part: usize,
    steps: Vec<Step>,
    leaves: Vec<Leaf>,
}

struct Cutter<'a> {
    spec: &'a Spec,
    sites: &'a [Site<'a>],
    parts: Vec<Part>,
    /// Which part each node is in.
    part_of: Vec<usize>,
    /// Each node's index in its part.
    local: Vec<u16>,
    readers: Vec<Vec<usize>>,
    /// Transforms that can have several inputs.
    merges: Vec<bool>,
    /// Transforms at which ways end and one begins.
    joins: Vec<bool>,
    todo: VecDeque<Todo>,
}

impl<'a> Cutter<'a> {
    fn new(spec: &'a Spec, sites: &'a [Site<'a>], configs: &[Option<Map<String, Value>>], revision: u32) -> Self {
        let mut names: Vec<&str> = sites.iter().map(|site| site.name).collect();
        names.sort_unstable();
        names.dedup();
        let empty = |nodes| PlanWorkflow {
            id: spec.id(),
            name: spec.name.clone(),
            revision,
            nodes,
            pipes: Vec::new(),
        };
        let mut parts = Vec::new();
        let (mut part_of, mut local) = (vec![0; sites.len()], vec![0; sites.len()]);
        for name in names {
            let mut nodes = Vec::new();
            let mut id = None;
            for (index, site) in sites.iter().enumerate().filter(|(_, site)| site.name == name) {
                part_of[index] = parts.len();
                // WORKFLOW_NODES_MAX is far below u16::MAX.
                local[index] = nodes.len() as u16;
                nodes.push(plan_node(spec, index, configs[index].as_ref()));
                id = Some(site.daemon.node);
            }
            parts.extend(id.map(|node| Part {
                daemon: name.to_string(),
                node,
                workflow: empty(nodes),
            }));
        }
        let merges = spec.nodes.iter().zip(sites).map(|(node, site)| {
            let descriptor = site.daemon.find(node.role, &node.component);
            node.role == ComponentRole::Transform && descriptor.is_some_and(|found| found.inputs_max != 1)
        });
        let joins = spec.nodes.iter().zip(sites).map(|(node, site)| {
            let descriptor = site.daemon.find(node.role, &node.component);
            descriptor.is_some_and(|found| joins::key(found).is_some())
        });
        let (readers, merges, joins) = (graph::readers(spec), merges.collect(), joins.collect());
        Self {
            spec,
            sites,
            parts,
            part_of,
            local,
            readers,
            merges,
            joins,
            todo: VecDeque::new(),
        }
    }

    fn pipe(&mut self, todo: Todo) {
        let Todo {
            part,
            root,
            spot,
            first,
        } = todo;
        let mut tree = Tree {
            part,
            steps: Vec::new(),
            leaves: Vec::new(),
        };
        self.grow(&mut tree, &spot, &first);
        let Tree { mut steps, leaves, .. } = tree;
        match leaves.as_slice() {
            [leaf] if self.part_of[leaf.to] == part && !self.wants_spool(leaf, &root) => {
                steps.push(Step {
                    after: leaf.spot.after,
                    action: Action::Sink(self.local[leaf.to]),
                });
            }
            _ => leaves.into_iter().for_each(|leaf| steps.push(self.stream(leaf))),
        }
        self.parts[part].workflow.pipes.push(Pipe { root, steps });
    }

    /// Adds what reads from one spot: transforms of this part as steps, everything else as leaves.
    fn grow(&self, tree: &mut Tree, spot: &Spot, readers: &[usize]) {
        for to in readers.iter().copied() {
            let is_end = self.joins[to] || self.spec.nodes[to].role == ComponentRole::Destination;
            if self.part_of[to] != tree.part || is_end {
                tree.leaves.push(Leaf { spot: spot.clone(), to });
                continue;
            }
            // WAYS_MAX keeps the number of steps far below u16::MAX.
            let step = tree.steps.len() as u16;
            tree.steps.push(Step {
                after: spot.after,
                action: Action::Transform(self.local[to]),
            });
            // What could merge counts already with one input, so that a second one renames nothing.
            let is_merged = spot.merged.is_some() || spot.track.is_some() || self.merges[to];
            let merged = is_merged.then(|| self.edge(spot, to));
            self.grow(
                tree,
                &Spot {
                    after: Some(step),
                    node: to,
                    merged,
                    track: None,
                },
                &self.readers[to],
            );
        }
    }

    /// Whether a buffer before a destination is asked for, though its input is here and not itself a stream.
    fn wants_spool(&self, leaf: &Leaf, root: &Root) -> bool {
        let fed_by_stream = leaf.spot.after.is_none() && matches!(root, Root::Stream(_));
        self.spec.nodes[leaf.to].spool.is_some() && !fed_by_stream
    }

    /// Ends a tree with a stream, or with two that take turns, and begins a pipe where each comes out.
    fn stream(&mut self, leaf: Leaf) -> Step {
        let Leaf { spot, to } = leaf;
        let edge = self.edge(&spot, to);
        let [producer, consumer] = [spot.node, to].map(|node| self.sites[node].daemon.node);
        // A part of what is shared stays the same stream, whoever takes it.
        let is_shared = self.spec.nodes[to].share.is_some();
        let taker = if is_shared { &producer } else { &consumer };
        let first = StreamSpec {
            stream: StreamId::of_edge(&self.spec.id(), &edge, &producer, taker),
            edge,
            producer,
            consumer,
            spool: self.spec.nodes[to].spool.unwrap_or_default(),
            send: self.spec.nodes[to].send.clone().unwrap_or_default(),
        };
        let after = spot.after;
        let spot = Spot {
            after: None,
            track: None,
            ..spot
        };
        let action = if first.send.live_first {
            let second = first.second_track(&self.spec.id());
            // What flows on from there is told apart by the way it came.
            let apart = Spot {
                track: Some(second.edge.clone()),
                ..spot.clone()
            };
            self.begin(to, first.clone(), spot);
            self.begin(to, second.clone(), apart);
            Action::Tracks([first, second])
        } else {
            self.begin(to, first.clone(), spot);
            Action::Stream(first)
        };
        Step { after, action }
    }

    /// Begins a pipe where a stream comes out.
    fn begin(&mut self, to: usize, stream: StreamSpec, spot: Spot) {
        self.todo.push_back(Todo {
            part: self.part_of[to],
            root: Root::Stream(stream),
            spot,
            first: vec![to],
        });
    }

    /// What an edge is called: `<from>-><to>`. Behind a merge the same edge stands on several ways, each a stream of its own:
    /// there the name begins with the edge into the first merge on the way, `<input>-><merge>->…-><from>-><to>`.
    /// An edge that delivers live data first is two streams, of which the second is marked.
    fn edge(&self, spot: &Spot, to: usize) -> String {
        if let Some(track) = &spot.track {
            return track.clone();
        }
        let way = spot.merged.as_deref().unwrap_or(self.spec.nodes[spot.node].id.as_str());
        format!("{way}->{}", self.spec.nodes[to].id)
    }
}

fn plan_node(spec: &Spec, index: usize, filled: Option<&Map<String, Value>>) -> PlanNode {
    let node = &spec.nodes[index];
    PlanNode {
        id: node.id.clone(),
        role: node.role,
        component: node.component.clone(),
        config: Value::Object(filled.unwrap_or(&node.config).clone()).to_string(),
    }
}
