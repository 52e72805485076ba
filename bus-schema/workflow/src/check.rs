//! What is wrong with a workflow for a given fleet: daemons, components, inputs, configs; and where each node runs.

use std::{cell::RefCell, collections::HashSet};

use bus_schema::{
    api::Problem,
    plan::{ComponentRole, Descriptor},
};
use serde_json::{Map, Value};

use crate::{
    fleet::{Fleet, Site},
    graph, joins, outputs,
    parse::RESERVED_KEYS,
    schema,
    spec::{Node, Place, Spec},
    template,
    words::{clip, joined, quoted, suggest},
};

/// For one copy of a workflow over many daemons: who takes the place of a selector.
pub(crate) struct Binding<'a> {
    pub selector: &'a str,
    pub daemon: &'a str,
    pub memory: &'a RefCell<Memory>,
}

/// Configs that were checked for an earlier copy: by node, by the components of its daemon, and as filled in. What was wrong
/// with them was told then.
pub(crate) type Memory = HashSet<(usize, *const Descriptor, String)>;

/// What comes of checking.
pub(crate) struct Checked<'a> {
    /// Everything wrong.
    pub problems: Vec<Problem>,
    /// The site of every node whose site is known.
    pub sites: Vec<Option<Site<'a>>>,
    /// The configs that had to be filled in for their daemon.
    pub configs: Vec<Option<Map<String, Value>>>,
}

/// Checks a workflow, or one copy of it. Works on specs with holes.
pub(crate) fn check<'a>(spec: &'a Spec, fleet: &'a Fleet, binding: Option<&'a Binding<'a>>) -> Checked<'a> {
    let mut checker = Checker {
        spec,
        fleet,
        binding,
        problems: Vec::new(),
        sites: vec![None; spec.nodes.len()],
        configs: vec![None; spec.nodes.len()],
    };
    checker.sites();
    checker.fill();
    checker.announced();
    for index in 0..spec.nodes.len() {
        checker.node(index);
        checker.is_sent(index);
        checker.needs_order(index);
    }
    checker.gathers();
    Checked {
        problems: checker.problems,
        sites: checker.sites,
        configs: checker.configs,
    }
}

struct Checker<'a> {
    spec: &'a Spec,
    fleet: &'a Fleet,
    binding: Option<&'a Binding<'a>>,
    problems: Vec<Problem>,
    sites: Vec<Option<Site<'a>>>,
    configs: Vec<Option<Map<String, Value>>>,
}

impl<'a> Checker<'a> {
    fn wrong(&mut self, place: &Place, message: impl Into<String>, hint: impl Into<String>) {
        self.problems.push(self.spec.problem(place, message, hint));
    }

    /// Sources and destinations say where they run; a transform runs where its input is unless it says otherwise.
    fn sites(&mut self) {
        for index in 0..self.spec.nodes.len() {
            let node = &self.spec.nodes[index];
            self.sites[index] = match &node.daemon {
                Some(name) => self.named(node, name),
                None if node.role == ComponentRole::Transform => None,
                None => self.by_default(node),
            };
        }
        let in_cycle: Vec<usize> = graph::cycles(self.spec).concat();
        let mut settled: Vec<bool> = self.spec.nodes.iter().map(|node| !follows_input(node)).collect();
        // Each round settles at least one transform whose inputs are all settled, or there is none left.
        loop {
            let ready = (0..settled.len()).find(|at| {
                !settled[*at] && !in_cycle.contains(at) && self.inputs(*at).all(|input| settled[input] || input == *at)
            });
            let Some(index) = ready else { break };
            settled[index] = true;
            self.sites[index] = self.where_input_is(index);
        }
    }

    /// Puts in what differs from daemon to daemon.
    fn fill(&mut self) {
        for (index, node) in self.spec.nodes.iter().enumerate() {
            let Some(site) = self.sites[index].filter(|_| template::is_in(&node.config)) else {
                continue;
            };
            let daemon = (site.name, &site.daemon.node, &site.daemon.facts);
            match template::fill(&node.config, &node.place(), daemon) {
                Ok(config) => self.configs[index] = Some(config),
                // Told once, of the node and not of its outputs.
                Err(holes) if outputs::of(&node.id).is_none() => {
                    for hole in holes {
                        self.wrong(&hole.place, hole.message, hole.hint);
                    }
                }
                Err(_) => {}
            }
        }
    }

    /// 'send' is about the bus: it says nothing about records that stay in one daemon.
    fn is_sent(&mut self, index: usize) {
        let node = &self.spec.nodes[index];
        let Some(here) = self.sites[index].filter(|_| node.send.is_some()) else {
            return;
        };
        let inputs: Option<Vec<Site<'_>>> = self.inputs(index).map(|input| self.sites[input]).collect();
        if inputs.is_some_and(|inputs| !inputs.is_empty() && inputs.iter().all(|input| input.name == here.name)) {
            let message = format!(
                "what '{}' reads comes from its own daemon, not over the bus",
                clip(&node.id)
            );
            self.wrong(
                &node.place().key("send"),
                message,
                "remove 'send', or put it where the records arrive from another daemon",
            );
        }
    }

    /// Live data first is newer data first: where a record changes an older one with the same key, that would be wrong.
    fn needs_order(&mut self, index: usize) {
        let node = &self.spec.nodes[index];
        if !node.send.as_ref().is_some_and(|send| send.live_first) {
            return;
        }
        let readers = graph::readers(self.spec);
        let (mut seen, mut todo) = (vec![false; readers.len()], vec![index]);
        while let Some(at) = todo.pop() {
            if std::mem::replace(&mut seen[at], true) {
                continue;
            }
            let reached = &self.spec.nodes[at];
            let is_upsert = reached.config.get("mode").and_then(|mode| mode.as_str()) == Some("upsert");
            if reached.role == ComponentRole::Destination && is_upsert {
                let message = format!(
                    "'live_first' delivers newer records before older ones, and '{}' has mode = \"upsert\": an older record \
                     would overwrite a newer one with its key",
                    clip(&reached.id)
                );
                self.wrong(
                    &node.place().key("send").key("live_first"),
                    message,
                    "remove 'live_first', or let the destination insert",
                );
            }
            todo.extend(&readers[at]);
        }
    }

    fn inputs(&self, index: usize) -> impl Iterator<Item = usize> {
        self.spec.nodes[index]
            .from
            .iter()
            .filter_map(|from| self.spec.index_of(from))
    }

    fn named(&mut self, node: &Node, name: &str) -> Option<Site<'a>> {
        let fleet = self.fleet;
        if let Some(binding) = self.binding.filter(|binding| binding.selector == name) {
            return fleet.site(binding.daemon);
        }
        // The text's own mistake, told already.
        if name.is_empty() {
            return None;
        }
        let found = fleet.site(name);
        if found.is_none() {
            let hint = match fleet.default_daemon() {
                Some(default) => format!("leave 'daemon' out: everything runs here, on '{default}'"),
                None => no_daemon_hint(suggest(name, "daemons of this fleet", fleet.names())),
            };
            self.wrong(
                &node.place().key("daemon"),
                format!("there is no daemon '{}'", clip(name)),
                hint,
            );
        }
        found
    }

    fn by_default(&mut self, node: &Node) -> Option<Site<'a>> {
        let fleet = self.fleet;
        if let Some(default) = fleet.default_daemon() {
            return fleet.site(default);
        }
        let names: Vec<&str> = fleet.names().collect();
        let hint = match names.first() {
            Some(first) => format!("say where it runs, for example: daemon = \"{first}\""),
            None => no_daemon_hint(String::new()),
        };
        self.wrong(&node.place(), "'daemon' is missing", hint);
        None
    }

    fn where_input_is(&mut self, index: usize) -> Option<Site<'a>> {
        let node = &self.spec.nodes[index];
        let mut names: Vec<&str> = Vec::new();
        let mut site = None;
        for input in self.inputs(index).collect::<Vec<_>>() {
            let input = self.sites[input]?;
            if !names.contains(&input.name) {
                names.push(input.name);
            }
            site = Some(input);
        }
        if names.len() > 1 {
            let message = format!(
                "the inputs of '{}' are on different daemons: {}",
                clip(&node.id),
                quoted(names)
            );
            self.wrong(&node.place(), message, "say where it runs with 'daemon'");
            return None;
        }
        site
    }

    /// Each daemon in use has said what it can run.
    fn announced(&mut self) {
        let mut told: Vec<&str> = Vec::new();
        for index in 0..self.spec.nodes.len() {
            let node = &self.spec.nodes[index];
            let Some(site) = self.sites[index] else { continue };
            if site.daemon.components.is_some() || told.contains(&site.name) {
                continue;
            }
            told.push(site.name);
            let place = if node.daemon.is_some() {
                node.place().key("daemon")
            } else {
                node.place()
            };
            let message = format!("daemon '{}' has not announced its components yet", site.name);
            self.wrong(&place, message, "start it, wait until it is online, and try again");
        }
    }

    fn node(&mut self, index: usize) {
        let node = &self.spec.nodes[index];
        self.spool(index);
        if node.component.is_empty() {
            return;
        }
        let site = self.sites[index];
        let found = match site {
            Some(site) => site.daemon.find(node.role, &node.component),
            // Which daemon is not known. What any daemon says of the component is near enough.
            None => self
                .fleet
                .components()
                .map(|(_, d)| d)
                .find(|d| d.role == node.role && d.name == node.component),
        };
        let Some(descriptor) = found else {
            let is_silent = site.is_some_and(|site| site.daemon.components.is_none());
            // Nothing can be said where nothing is known.
            if !is_silent && self.fleet.components().next().is_some() {
                self.no_such_component(node, site);
            }
            return;
        };
        if self.is_remembered(index, descriptor) {
            return;
        }
        self.inputs_fit(node, descriptor);
        self.config(index, descriptor);
        self.outputs(node, descriptor);
        if let Some(key) = joins::key(descriptor)
            && let Some((message, hint)) = joins::misfit(node, &key, usize::from(descriptor.inputs_max))
        {
            self.wrong(&node.place().key(&key), message, hint);
        }
    }

    /// Whether an earlier copy had the same config and the same component.
    fn is_remembered(&self, index: usize, descriptor: &Descriptor) -> bool {
        let Some(binding) = self.binding else { return false };
        let filled = self.configs[index]
            .as_ref()
            .map(|config| Value::Object(config.clone()).to_string());
        let key = (index, std::ptr::from_ref(descriptor), filled.unwrap_or_default());
        !binding.memory.borrow_mut().insert(key)
    }

    /// Who reads a node names one of its outputs if it has several, and else none; and each output is read.
    fn outputs(&mut self, node: &Node, descriptor: &Descriptor) {
        if node.role != ComponentRole::Transform || outputs::of(&node.id).is_some() {
            return;
        }
        let Ok(schema) = serde_json::from_str::<serde_json::Value>(&descriptor.schema) else {
            return;
        };
        let (key, named) = outputs::named(&schema, node).unzip();
        let all = |named: &[&str]| {
            let names = named.iter().copied().chain([outputs::ELSE]);
            names
                .map(|output| format!("'{}.{output}'", node.id))
                .collect::<Vec<_>>()
        };
        let mut read: Vec<&str> = Vec::new();
        for reader in self
            .spec
            .nodes
            .iter()
            .filter(|reader| outputs::of(&reader.id).is_none())
        {
            for from in &reader.from {
                let (of, output) = outputs::of(from).map_or((from.as_str(), None), |(of, output)| (of, Some(output)));
                if of != node.id {
                    continue;
                }
                read.extend(output);
                let (message, hint) = match (&named, output) {
                    (None, Some(_)) => (
                        format!("'{}' has no outputs to choose from", clip(of)),
                        format!("read from '{}'", clip(of)),
                    ),
                    (Some(named), None) => (
                        format!("'{}' has several outputs", clip(of)),
                        format!("read from {}", joined(&all(named), "or")),
                    ),
                    (Some(named), Some(output)) if output != outputs::ELSE && !named.contains(&output) => (
                        format!("'{}' has no output '{}'", clip(of), clip(output)),
                        suggest(output, "its outputs", named.iter().copied().chain([outputs::ELSE])),
                    ),
                    _ => continue,
                };
                self.wrong(&reader.place().key("from"), message, hint);
            }
        }
        for output in named.into_iter().flatten().filter(|output| !read.contains(output)) {
            let message = format!(
                "nothing reads from '{}.{}': its records would go nowhere",
                clip(&node.id),
                clip(output)
            );
            let hint = "let a transform or a destination read from it, or remove it";
            self.wrong(&node.place().key(key.unwrap_or_default()).key(output), message, hint);
        }
    }

    /// Which nodes join their inputs.
    fn joins(&self) -> Vec<bool> {
        let joins = |(index, node): (usize, &Node)| {
            let found = self.sites[index].and_then(|site| site.daemon.find(node.role, &node.component));
            found.is_some_and(|descriptor| joins::key(descriptor).is_some())
        };
        self.spec.nodes.iter().enumerate().map(joins).collect()
    }

    /// What remembers records knows only those that come on its own way: on several, each would have results of its own.
    fn gathers(&mut self) {
        let ways = if graph::cycles(self.spec).is_empty() {
            graph::ways(self.spec, &self.joins())
        } else {
            return;
        };
        for (index, node) in self.spec.nodes.iter().enumerate() {
            let site = self.sites[index].filter(|_| ways[index] > 1);
            let found = site.and_then(|site| site.daemon.find(node.role, &node.component));
            let remembers = found.is_some_and(|descriptor| {
                let schema = serde_json::from_str(&descriptor.schema);
                schema.is_ok_and(|schema: serde_json::Value| schema["x-remembers"] == true)
            });
            if remembers {
                let message = format!(
                    "records come to '{}' on {} ways, and it would work on each by itself",
                    clip(&node.id),
                    ways[index]
                );
                let hint = "use one for each source, before they are merged; 'live_first' makes two ways of one";
                self.wrong(&node.place().key("from"), message, hint);
            }
        }
    }

    /// A buffer needs a stream: an edge from another daemon, or the last edge before a destination.
    fn spool(&mut self, index: usize) {
        let node = &self.spec.nodes[index];
        let (Some(_), ComponentRole::Transform, Some(here)) = (node.spool, node.role, self.sites[index]) else {
            return;
        };
        let inputs: Vec<_> = self.inputs(index).collect();
        if inputs
            .iter()
            .all(|input| self.sites[*input].is_some_and(|site| site.name == here.name))
        {
            let message = format!("'spool' has no effect: '{}' runs where its input is", clip(&node.id));
            self.wrong(
                &node.place().key("spool"),
                message,
                "buffers stand before destinations and between daemons",
            );
        }
    }

    fn no_such_component(&mut self, node: &Node, site: Option<Site<'_>>) {
        let (fleet, role, name) = (self.fleet, node.role, clip(&node.component));
        let place = node.place().key("type");
        let having = |role: ComponentRole| {
            let all = fleet
                .components()
                .filter(move |(_, d)| d.role == role && d.name == node.component);
            all.map(|(daemon, _)| daemon)
        };
        if let (Some(site), true) = (site, having(role).next().is_some()) {
            let message = format!("daemon '{}' has no {role} '{name}'", site.name);
            return self.wrong(&place, message, format!("it runs on {}", quoted(having(role))));
        }
        let known = fleet
            .components()
            .filter(|(daemon, d)| d.role == role && site.is_none_or(|s| s.name == *daemon));
        let mut known: Vec<&str> = known.map(|(_, d)| d.name.as_str()).collect();
        known.sort_unstable();
        known.dedup();
        let list = site.map_or_else(|| format!("{role}s"), |site| format!("{role}s of '{}'", site.name));
        let other_roles: Vec<String> = [
            ComponentRole::Source,
            ComponentRole::Transform,
            ComponentRole::Destination,
        ]
        .into_iter()
        .filter(|other| having(*other).next().is_some())
        .map(|other| format!("a {other}"))
        .collect();
        if other_roles.is_empty() {
            let hint = suggest(&node.component, &list, known);
            return self.wrong(&place, format!("there is no {role} '{name}'"), hint);
        }
        let hint = if known.is_empty() {
            String::new()
        } else {
            format!("{list}: {}", known.join(", "))
        };
        self.wrong(
            &place,
            format!("'{name}' is {}, not a {role}", joined(&other_roles, "and")),
            hint,
        );
    }

    fn inputs_fit(&mut self, node: &Node, descriptor: &Descriptor) {
        let (count, most) = (node.from.len(), usize::from(descriptor.inputs_max));
        if node.role == ComponentRole::Source || most == 0 || count <= most {
            return;
        }
        let takes = if most == 1 {
            "one input".to_string()
        } else {
            format!("at most {most} inputs")
        };
        let from = quoted(node.from.iter().map(String::as_str));
        let message = format!(
            "'{}' takes {takes}, but '{}' reads from {from}",
            clip(&node.component),
            clip(&node.id)
        );
        let merge = self
            .fleet
            .components()
            .find(|(_, d)| d.role == ComponentRole::Transform && d.inputs_max == 0);
        let hint = match merge {
            Some((_, merge)) => format!("put a '{}' before it, or use one for each input", merge.name),
            None => "use one for each input".to_string(),
        };
        self.wrong(&node.place().key("from"), message, hint);
    }

    fn config(&mut self, index: usize, descriptor: &Descriptor) {
        let node = &self.spec.nodes[index];
        // An output's config is that of the node whose output it is.
        if node.role == ComponentRole::Transform && outputs::of(&node.id).is_some() {
            return;
        }
        let place = node.place();
        let schema = serde_json::from_str(&descriptor.schema);
        let findings = match &schema {
            Ok(schema) => {
                let config = self.configs[index].as_ref().unwrap_or(&node.config);
                schema::check(schema, config, &place, &RESERVED_KEYS).ok()
            }
            Err(_) => None,
        };
        let Some(findings) = findings else {
            let message = format!(
                "the config of {} '{}' cannot be checked: its schema is broken",
                node.role, descriptor.name
            );
            return self.wrong(
                &place.key("type"),
                message,
                "update the daemon, and tell whoever wrote the component",
            );
        };
        for finding in findings {
            self.wrong(&finding.place, finding.message, finding.hint);
        }
    }
}

fn follows_input(node: &Node) -> bool {
    node.role == ComponentRole::Transform && node.daemon.is_none()
}

fn no_daemon_hint(hint: String) -> String {
    if hint.is_empty() {
        "the fleet has no daemon yet; enrol one with: mycelial token create".to_string()
    } else {
        hint
    }
}
