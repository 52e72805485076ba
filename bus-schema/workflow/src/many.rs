//! One workflow over many daemons: a node whose `daemon` is a selector (`daemon = "site=berlin"`) runs on every daemon that it
//! chooses, each with a copy of its part. Records stay within a copy, or go to a node on one named daemon, as a stream from
//! each. Cut one copy at a time, as if the text named that daemon; what one daemon gets of several copies is put together.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap, HashSet},
};

use bus_schema::{
    api::Problem,
    encode,
    plan::{Action, ComponentRole, Pipe, PlanWorkflow, Root},
};

use crate::{
    PART_BYTES_MAX, PROBLEMS_MAX,
    check::{self, Binding, Checked, Memory},
    compile::{self, Compiled, Part},
    fleet::Fleet,
    spec::{Node, Place, Spec},
    words::clip,
};

/// Whether what stands at `daemon` chooses daemons, and is not the name of one: names have neither sign.
pub fn is_selector(daemon: &str) -> bool {
    daemon.contains(['=', ':'])
}

/// Everything wrong, copy by copy; and what each daemon runs if nothing is.
pub(crate) fn compile(spec: &Spec, fleet: &Fleet, revision: u32) -> Result<Compiled, Vec<Problem>> {
    let mut problems = crossings(spec);
    let mut parts = Parts::default();
    for selector in spec.selectors() {
        let chosen = match fleet.chosen(selector) {
            Ok([]) => {
                problems.push(nobody(spec, selector));
                continue;
            }
            Ok(chosen) => chosen,
            Err(wrong) => {
                problems.push(wrongly(spec, selector, wrong));
                continue;
            }
        };
        let copy = without_other_copies(spec, selector);
        let memory = RefCell::new(Memory::default());
        for daemon in chosen {
            let binding = Binding {
                selector,
                daemon,
                memory: &memory,
            };
            let Checked {
                problems: found,
                sites,
                configs,
            } = check::check(&copy, fleet, Some(&binding));
            let sites: Option<Vec<_>> = sites.into_iter().collect();
            match sites {
                Some(sites) if found.is_empty() && problems.is_empty() => {
                    match compile::cut(&copy, &sites, &configs, revision) {
                        Ok(compiled) => compiled.parts.into_iter().for_each(|part| parts.add(part)),
                        Err(large) => problems.extend(large),
                    }
                }
                _ => problems.extend(found),
            }
            if problems.len() > PROBLEMS_MAX {
                break;
            }
        }
    }
    problems.dedup();
    let mut told = HashSet::new();
    problems.retain(|problem| told.insert((problem.place.clone(), problem.message.clone())));
    if problems.is_empty() {
        problems.extend(parts.too_large(spec));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Compiled {
        id: spec.id(),
        name: spec.name().to_string(),
        parts: parts.0.into_values().map(|merged| merged.part).collect(),
    })
}

fn nobody(spec: &Spec, selector: &str) -> Problem {
    let hint = format!("see: mycelial daemon list -l '{selector}'");
    spec.problem(
        &place_of(spec, selector),
        format!("'{}' chooses no daemon", clip(selector)),
        hint,
    )
}

fn wrongly(spec: &Spec, selector: &str, wrong: &str) -> Problem {
    spec.problem(&place_of(spec, selector), wrong, "")
}

/// The first node that uses a selector.
fn place_of(spec: &Spec, selector: &str) -> Place {
    let node = spec.nodes.iter().find(|node| node.daemon.as_deref() == Some(selector));
    node.map_or_else(Place::root, |node| node.place().key("daemon"))
}

/// The selector by which each node is copied; `None` for one on a named daemon.
fn copied_by(spec: &Spec) -> Vec<Option<&str>> {
    let own = |node: &Node| node.role == ComponentRole::Transform && node.daemon.is_none();
    let mut by: Vec<Option<&str>> = spec.nodes.iter().map(Node::selector).collect();
    // A transform runs where its input is; each round settles those behind what is settled.
    for _ in 0..spec.nodes.len() {
        let mut is_settled = true;
        for at in 0..spec.nodes.len() {
            if by[at].is_none() && own(&spec.nodes[at]) {
                let inputs = spec.nodes[at].from.iter().filter_map(|from| spec.index_of(from));
                by[at] = inputs.filter_map(|input| by[input]).next();
                is_settled &= by[at].is_none();
            }
        }
        if is_settled {
            break;
        }
    }
    by
}

/// Edges that lead into copies from elsewhere.
fn crossings(spec: &Spec) -> Vec<Problem> {
    let by = copied_by(spec);
    let mut problems = Vec::new();
    for (at, node) in spec.nodes.iter().enumerate() {
        for input in node.from.iter().filter_map(|from| spec.index_of(from)) {
            let (Some(to), from) = (by[at], by[input]) else {
                continue;
            };
            if from == Some(to) {
                continue;
            }
            let what = match from {
                Some(from) => format!("the daemons that '{}' chooses", clip(from)),
                None => "one daemon".to_string(),
            };
            let message = format!(
                "records go from {what} ('{}') to those that '{}' chooses: to which of them is not said",
                clip(&spec.nodes[input].id),
                clip(to)
            );
            let hint = match node.role {
                ComponentRole::Destination => {
                    "let both run on the same selector, name one daemon where records shall arrive, or let all of them share it: \
                     share = { by = [\"device\"] }"
                }
                _ => "let both run on the same selector, or name one daemon where records shall arrive",
            };
            problems.push(spec.problem(&node.place().key("from"), message, hint));
        }
    }
    problems
}

/// The workflow as one copy sees it: nodes that are copied by other selectors are not there.
fn without_other_copies(spec: &Spec, selector: &str) -> Spec {
    let by = copied_by(spec);
    let mut copy = spec.clone();
    let mut keep = by.iter().map(|by| by.is_none_or(|by| by == selector));
    copy.nodes.retain(|_| keep.next().unwrap_or(true));
    copy
}

/// What daemons run, put together from copies.
#[derive(Default)]
struct Parts(BTreeMap<String, Merged>);

struct Merged {
    part: Part,
    /// Index of each node.
    nodes: HashMap<String, u16>,
    /// Where its pipes begin.
    roots: HashSet<String>,
    copies: usize,
}

impl Parts {
    fn add(&mut self, part: Part) {
        let PlanWorkflow { nodes, pipes, .. } = part.workflow;
        let merged = self.0.entry(part.daemon.clone()).or_insert_with(|| Merged {
            part: Part {
                workflow: PlanWorkflow {
                    nodes: Vec::new(),
                    pipes: Vec::new(),
                    name: part.workflow.name,
                    ..part.workflow
                },
                ..part
            },
            nodes: HashMap::new(),
            roots: HashSet::new(),
            copies: 0,
        });
        merged.copies += 1;
        let into = &mut merged.part.workflow;
        let mut index = Vec::with_capacity(nodes.len());
        for node in nodes {
            let at = *merged.nodes.entry(node.id.clone()).or_insert_with(|| {
                into.nodes.push(node);
                // WORKFLOW_NODES_MAX is far below u16::MAX.
                (into.nodes.len() - 1) as u16
            });
            index.push(at);
        }
        for pipe in pipes {
            let pipe = renumbered(pipe, &index);
            let root = match &pipe.root {
                Root::Source(source) => format!("source {source}"),
                Root::Stream(stream) => stream.stream.to_string(),
            };
            if merged.roots.insert(root) {
                into.pipes.push(pipe);
            }
        }
    }

    fn too_large(&self, spec: &Spec) -> Vec<Problem> {
        let together = self.0.values().filter(|merged| merged.copies > 1);
        let large = together.filter(|merged| encode(&merged.part.workflow).len() > PART_BYTES_MAX);
        let told = large.map(|merged| {
            let message = format!(
                "what daemon '{}' would run is over {PART_BYTES_MAX} bytes: it has {} pipes",
                merged.part.daemon,
                merged.part.workflow.pipes.len()
            );
            spec.problem(
                &Place::root(),
                message,
                "let several daemons share what arrives, each with a workflow of its own",
            )
        });
        told.collect()
    }
}

fn renumbered(mut pipe: Pipe, index: &[u16]) -> Pipe {
    let at = |old: u16| index[usize::from(old)];
    if let Root::Source(source) = &mut pipe.root {
        *source = at(*source);
    }
    for step in &mut pipe.steps {
        if let Action::Transform(node) | Action::Sink(node) = &mut step.action {
            *node = at(*node);
        }
    }
    pipe
}
