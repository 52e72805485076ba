//! What is wrong with a workflow's graph whoever runs it: edges to nowhere, cycles, dead ends. Knows no fleet.

use bus_schema::{api::Problem, plan::ComponentRole};

use crate::{
    WAYS_MAX,
    spec::{Place, Spec, section},
    words::{clip, nearest, suggest},
};

/// Everything wrong with the edges. Works on specs with holes.
pub(crate) fn check(spec: &Spec) -> Vec<Problem> {
    let mut problems = Vec::new();
    both_ends(spec, &mut problems);
    edges(spec, &mut problems);
    let cycles = cycles(spec);
    for cycle in &cycles {
        problems.push(told(spec, cycle));
    }
    dead_ends(spec, &mut problems);
    if cycles.is_empty() {
        too_many_ways(spec, &mut problems);
    }
    problems
}

/// The nodes that read from each node, in the order of the text. Edges from nowhere and from destinations are left out.
pub(crate) fn readers(spec: &Spec) -> Vec<Vec<usize>> {
    let mut readers = vec![Vec::new(); spec.nodes.len()];
    for (index, node) in spec.nodes.iter().enumerate() {
        for from in node.from.iter().filter_map(|from| spec.index_of(from)) {
            if can_be_read(spec.nodes[from].role) {
                readers[from].push(index);
            }
        }
    }
    readers
}

fn both_ends(spec: &Spec, problems: &mut Vec<Problem>) {
    for role in [ComponentRole::Source, ComponentRole::Destination] {
        // What stands in a section without being a node has been told already.
        let is_empty = spec
            .lines
            .keys
            .get(section(role))
            .is_none_or(|lines| lines.keys.is_empty());
        if is_empty && !spec.nodes.iter().any(|node| node.role == role) {
            let hint = format!("add a section [{}.<name>]", section(role));
            problems.push(spec.problem(&Place::root(), format!("the workflow has no {role}"), hint));
        }
    }
}

fn edges(spec: &Spec, problems: &mut Vec<Problem>) {
    for node in &spec.nodes {
        let from_place = node.place().key("from");
        for (index, from) in node.from.iter().enumerate() {
            // A single name stands directly at `from`; its line is the same.
            let place = if node.from.len() == 1 {
                from_place.clone()
            } else {
                from_place.item(index)
            };
            let mut report = |message: String, hint: String| problems.push(spec.problem(&place, message, hint));
            if *from == node.id {
                report(
                    format!("'{}' reads from itself", clip(from)),
                    "name the node before it".to_string(),
                );
            } else if node.from[..index].contains(from) {
                let message = format!("'{}' reads from '{}' twice", clip(&node.id), clip(from));
                report(message, "every record would come twice: remove one of them".to_string());
            } else {
                match spec.node(from) {
                    None => {
                        let others = spec
                            .nodes
                            .iter()
                            .filter(|other| other.id != node.id && can_be_read(other.role));
                        let hint = suggest(from, "nodes to read from", others.map(|other| other.id.as_str()));
                        report(format!("there is no node '{}'", clip(from)), hint);
                    }
                    Some(other) if !can_be_read(other.role) => {
                        let hint = reads_instead(&other.from);
                        report(
                            format!("'{}' is a destination: nothing comes out of it", clip(from)),
                            hint,
                        );
                    }
                    Some(_) => {}
                }
            }
        }
    }
}

fn can_be_read(role: ComponentRole) -> bool {
    role != ComponentRole::Destination
}

fn reads_instead(from: &[String]) -> String {
    match from {
        [one] => format!("read from what it reads, '{}': a node can have many readers", clip(one)),
        _ => "read from a source or a transform".to_string(),
    }
}

/// One cycle for each knot of nodes that reach each other, as indices in the order records would flow.
pub(crate) fn cycles(spec: &Spec) -> Vec<Vec<usize>> {
    let readers = readers(spec);
    let mut done = vec![false; spec.nodes.len()];
    let mut cycles: Vec<Vec<usize>> = Vec::new();
    for start in 0..spec.nodes.len() {
        if done[start] {
            continue;
        }
        // A walk with the way to it, so that a step back onto the way shows the cycle.
        let mut way: Vec<(usize, usize)> = vec![(start, 0)];
        while let Some((node, next)) = way.last_mut() {
            let (here, reader) = (*node, readers[*node].get(*next).copied());
            *next += 1;
            match reader {
                None => {
                    done[here] = true;
                    way.pop();
                }
                // Reading from itself is told at the edge.
                Some(reader) if reader == here => {}
                Some(reader) => match way.iter().position(|(on_way, _)| *on_way == reader) {
                    Some(at) => {
                        let cycle: Vec<usize> = way[at..].iter().map(|(node, _)| *node).collect();
                        if !cycles.iter().flatten().any(|known| cycle.contains(known)) {
                            cycles.push(cycle);
                        }
                    }
                    None if !done[reader] => way.push((reader, 0)),
                    None => {}
                },
            }
        }
    }
    cycles
}

fn told(spec: &Spec, cycle: &[usize]) -> Problem {
    // Begin where the text does.
    let first = (0..cycle.len()).min_by_key(|at| cycle[*at]).unwrap_or_default();
    let turned = cycle.iter().cycle().skip(first).take(cycle.len() + 1);
    let names: Vec<&str> = turned.map(|node| spec.nodes[*node].id.as_str()).collect();
    let node = &spec.nodes[cycle[first]];
    let message = format!("records would go round for ever: {}", names.join(" → "));
    spec.problem(
        &node.place().key("from"),
        message,
        "let one of them read from another node",
    )
}

fn dead_ends(spec: &Spec, problems: &mut Vec<Problem>) {
    let readers = readers(spec);
    let all_from = || spec.nodes.iter().flat_map(|node| node.from.iter().map(String::as_str));
    for (index, node) in spec.nodes.iter().enumerate() {
        if !can_be_read(node.role) || !readers[index].is_empty() || spec.index_of(&node.id) != Some(index) {
            continue;
        }
        // Somebody who means this node but mistyped its name has been told so already.
        let unknown = all_from().filter(|from| spec.node(from).is_none());
        if unknown
            .into_iter()
            .any(|from| nearest(from, [node.id.as_str()]).is_some())
        {
            continue;
        }
        let message = format!("nothing reads from '{}': its records would go nowhere", clip(&node.id));
        let hint = format!(
            "add from = \"{}\" to a transform or a destination, or remove it",
            clip(&node.id)
        );
        problems.push(spec.problem(&node.place(), message, hint));
    }
}

/// How many ways lead to each node from sources, and from where inputs are joined; saturating. Two tracks are two ways. Only for
/// graphs without cycles.
pub(crate) fn ways(spec: &Spec, joins: &[bool]) -> Vec<usize> {
    fn of(spec: &Spec, joins: &[bool], node: usize, known: &mut Vec<Option<usize>>) -> usize {
        if let Some(ways) = known[node] {
            return ways;
        }
        // At most as deep as there are nodes: nothing goes in circles here but a node that reads from itself.
        let from = spec.nodes[node].from.iter().filter_map(|from| spec.index_of(from));
        let from: Vec<usize> = from
            .filter(|from| *from != node && can_be_read(spec.nodes[*from].role))
            .collect();
        let inner = from
            .into_iter()
            .fold(0usize, |sum, from| sum.saturating_add(out_of(spec, joins, from, known)));
        let tracks = match &spec.nodes[node].send {
            Some(send) if send.live_first => 2,
            _ => 1,
        };
        let ways = if spec.nodes[node].role == ComponentRole::Source {
            1
        } else {
            inner.saturating_mul(tracks)
        };
        known[node] = Some(ways);
        ways
    }
    fn out_of(spec: &Spec, joins: &[bool], node: usize, known: &mut Vec<Option<usize>>) -> usize {
        let into = of(spec, joins, node, known);
        if joins.get(node) == Some(&true) { 1 } else { into }
    }
    let mut known = vec![None; spec.nodes.len()];
    (0..spec.nodes.len())
        .map(|node| of(spec, joins, node, &mut known))
        .collect()
}

fn too_many_ways(spec: &Spec, problems: &mut Vec<Problem>) {
    let sum = ways(spec, &[]).into_iter().fold(0usize, usize::saturating_add);
    if sum > WAYS_MAX {
        let message = format!(
            "records would have more than {WAYS_MAX} ways through the workflow: merges and 'live_first' multiply them"
        );
        problems.push(spec.problem(&Place::root(), message, "merge later, or split the workflow"));
    }
}
