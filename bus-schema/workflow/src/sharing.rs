//! Destinations that several daemons share. Records are dealt out in parts by what they hold in some columns; each part is a
//! stream of its own, written by one of the daemons at a time. Puts nodes for the parts in the place of the destination, so
//! that nobody else needs to know of sharing, and says who takes which part: whoever has one keeps it, as long as it is there
//! and has no more than its share. Knows no clock: how long a daemon has been silent is told.
//!
//! What one daemon has written of a part, the next has to know: only destinations that keep this with the records, where all
//! of them reach it, can be shared. They say so in their schema (`"x-shared": true`).

use std::{borrow::Cow, collections::BTreeMap};

use bus_schema::{api::Problem, plan::ComponentRole};
use serde_json::{Value, json};

use crate::{
    fleet::Fleet,
    outputs,
    spec::{Node, Share, Spec},
    words::clip,
};

/// The transform that lets one part through.
const PARTITION: &str = "partition";

/// A workflow with every part of a shared destination where it goes now.
pub(crate) fn placed<'a>(spec: &'a Spec, fleet: &Fleet) -> (Cow<'a, Spec>, Vec<Problem>) {
    // Where there is only one daemon there is nobody to share with.
    if fleet.default_daemon().is_some() || spec.nodes.iter().all(|node| node.share.is_none()) {
        return (Cow::Borrowed(spec), Vec::new());
    }
    let mut placed = spec.clone();
    placed.nodes.clear();
    let mut problems = Vec::new();
    for node in &spec.nodes {
        let Some(share) = &node.share else {
            placed.nodes.push(node.clone());
            continue;
        };
        match members(spec, node, share, fleet) {
            Ok(members) => {
                let holders: Vec<Option<&str>> = (1..=share.parts)
                    .map(|part| fleet.holder(spec.name(), &part_id(&node.id, part)))
                    .collect();
                parts(node, share, &dealt(&holders, &members), &mut placed.nodes);
            }
            Err(problem) => {
                problems.extend(problem);
                // Whatever else is wrong with it can still be told: as if the first of them had it all.
                let first = node.selector().and_then(|selector| fleet.chosen(selector).ok());
                let daemon = first.and_then(|names| names.first()).cloned();
                placed.nodes.extend(daemon.map(|daemon| Node {
                    daemon: Some(daemon),
                    share: None,
                    ..node.clone()
                }));
            }
        }
    }
    (Cow::Owned(placed), problems)
}

/// Whether a part of a shared destination is not where it goes now; or what keeps that from being told.
pub fn is_misplaced(spec: &Spec, fleet: &Fleet) -> Result<bool, Problem> {
    let (placed, problems) = placed(spec, fleet);
    if let Some(problem) = problems.into_iter().next() {
        return Err(problem);
    }
    let mut parts = placed
        .nodes
        .iter()
        .filter(|node| node.role == ComponentRole::Destination);
    Ok(parts.any(|node| part_of(&node.id).is_some() && node.daemon.as_deref() != fleet.holder(spec.name(), &node.id)))
}

/// What keeps a new text of a workflow from following the old one: records on their way belong to the parts there were.
pub fn unchangeable(old: &Spec, new: &Spec) -> Vec<Problem> {
    let dealt = |share: &Option<Share>| share.as_ref().map(|share| (share.by.clone(), share.parts));
    let moved = new.nodes.iter().filter(|node| {
        let before = old.node(&node.id).filter(|before| before.role == node.role);
        before.is_some_and(|before| dealt(&before.share) != dealt(&node.share))
    });
    let told = moved.map(|node| {
        let message = format!(
            "how '{}' is shared cannot change: records that are on their way would come twice",
            clip(&node.id)
        );
        let hint =
            "give the destination another name, which begins anew; or let it empty, delete the workflow and apply this";
        new.problem(&node.place().key("share"), message, hint)
    });
    told.collect()
}

/// The daemons that can take a part now; or what is wrong, unless that is told elsewhere.
fn members<'f>(spec: &Spec, node: &Node, share: &Share, fleet: &'f Fleet) -> Result<Vec<&'f str>, Option<Problem>> {
    let place = node.place();
    let wrong = |key: &str, message: String, hint: &str| Err(Some(spec.problem(&place.key(key), message, hint)));
    let Some(selector) = node.selector() else {
        // A missing daemon is told by whoever looks for it.
        return match &node.daemon {
            None => Err(None),
            Some(_) => wrong(
                "daemon",
                format!("'{}' is shared, but names one daemon", clip(&node.id)),
                "choose several, for example: daemon = \"group:writers\", or remove 'share'",
            ),
        };
    };
    let chosen = match fleet.chosen(selector) {
        Ok([]) => {
            let hint = format!("see: mycelial daemon list -l '{selector}'");
            return wrong("daemon", format!("'{}' chooses no daemon", clip(selector)), &hint);
        }
        Ok(chosen) => chosen,
        Err(cause) => return wrong("daemon", cause.to_string(), ""),
    };
    let components = fleet.components().map(|(_, found)| found);
    let mut components = components.filter(|found| found.role == node.role && found.name == node.component);
    if let Some(found) = components.next() {
        let schema: Value = serde_json::from_str(&found.schema).unwrap_or_default();
        if schema["x-shared"] != true {
            let message = format!(
                "'{}' cannot be shared: what one daemon has written the next would not know",
                clip(&node.component)
            );
            let hint = "share one that keeps this with the records on a server, such as postgres or mysql";
            return wrong("share", message, hint);
        }
    }
    if node.send.as_ref().is_some_and(|send| send.live_first) {
        let message = "'live_first' and 'share' do not go together".to_string();
        return wrong("send", message, "remove one of them");
    }
    let is_there = |name: &&str| match fleet.silent_s(name) {
        None => true,
        // What only restarts keeps what it has, and takes nothing new.
        Some(seconds) => seconds < u64::from(share.move_after_s) && fleet.holds_some(spec.name(), &node.id, name),
    };
    let chosen: Vec<&str> = chosen.iter().map(String::as_str).collect();
    let there: Vec<&str> = chosen.iter().copied().filter(is_there).collect();
    Ok(if there.is_empty() { chosen } else { there })
}

/// What a part of a destination is called.
fn part_id(destination: &str, part: u16) -> String {
    format!("{destination}.{part}")
}

/// The nodes of all parts.
fn parts(node: &Node, share: &Share, holders: &[&str], nodes: &mut Vec<Node>) {
    for (part, daemon) in (1..=share.parts).zip(holders) {
        let mut from = Vec::with_capacity(node.from.len());
        for input in &node.from {
            let id = format!("{input}.{}-{part}", node.id);
            let config = json!({"by": share.by, "part": part, "of": share.parts});
            nodes.push(Node {
                id: id.clone(),
                role: ComponentRole::Transform,
                component: PARTITION.to_string(),
                daemon: None,
                from: vec![input.clone()],
                spool: None,
                send: None,
                share: None,
                config: config.as_object().cloned().unwrap_or_default(),
            });
            from.push(id);
        }
        nodes.push(Node {
            id: part_id(&node.id, part),
            daemon: Some((*daemon).to_string()),
            from,
            ..node.clone()
        });
    }
}

/// Who takes each part. `holders`: who has it now. As few parts as possible change hands, and nobody has two more than another.
fn dealt<'a>(holders: &[Option<&str>], members: &[&'a str]) -> Vec<&'a str> {
    // So many have a part more than the others: those that have it already, first.
    let (least, more) = (holders.len() / members.len(), holders.len() % members.len());
    let mut load: BTreeMap<&str, usize> = members.iter().map(|member| (*member, 0)).collect();
    let mut larger = 0;
    let kept: Vec<Option<&'a str>> = holders
        .iter()
        .map(|holder| {
            let member = members.iter().copied().find(|member| Some(*member) == *holder)?;
            let has = load.get_mut(member)?;
            let is_extra = *has == least && larger < more;
            (*has < least || is_extra).then(|| {
                larger += usize::from(is_extra);
                *has += 1;
                member
            })
        })
        .collect();
    let give = |kept: Option<&'a str>| {
        kept.unwrap_or_else(|| {
            // By load, then by name, so that the same question has the same answer.
            let mut emptiest = members[0];
            for member in members {
                if load[member] < load[emptiest] {
                    emptiest = member;
                }
            }
            *load.entry(emptiest).or_default() += 1;
            emptiest
        })
    };
    kept.into_iter().map(give).collect()
}

/// The destination that a node of a plan is a part of, and which; `None` when it is a whole one.
pub fn part_of(node: &str) -> Option<(&str, u16)> {
    let (destination, part) = outputs::of(node)?;
    Some((destination, part.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_move_as_little_as_possible() {
        let (a, b, c) = ("a", "b", "c");
        for (holders, members, wanted) in [
            (vec![None; 4], vec![a], vec![a, a, a, a]),
            (vec![None; 4], vec![a, b], vec![a, b, a, b]),
            // One comes: half of what the first had moves.
            (vec![Some(a); 4], vec![a, b], vec![a, a, b, b]),
            // One leaves: only its parts move.
            (vec![Some(a), Some(b), Some(a), Some(b)], vec![a], vec![a; 4]),
            (vec![Some(a), Some(b), Some(c), Some(a)], vec![a, c], vec![a, c, c, a]),
            // It comes back to a group that has done without it.
            (
                vec![Some(a), Some(c), Some(c), Some(a)],
                vec![a, b, c],
                vec![a, c, c, b],
            ),
            // Nothing changes.
            (vec![Some(b), Some(a), Some(b), Some(a)], vec![a, b], vec![b, a, b, a]),
            // More daemons than parts.
            (vec![Some(c), None], vec![a, b, c], vec![c, a]),
        ] {
            assert_eq!(dealt(&holders, &members), wanted, "{holders:?} among {members:?}");
        }
    }

    proptest! {
        #[test]
        fn everybody_has_its_share_and_asking_again_changes_nothing(
            holders in prop::collection::vec(prop::option::of(0usize..6), 1..16),
            members in prop::collection::btree_set(0usize..6, 1..6),
        ) {
            const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
            let holders: Vec<Option<&str>> = holders.iter().map(|at| at.map(|at| NAMES[at])).collect();
            let members: Vec<&str> = members.iter().map(|at| NAMES[*at]).collect();
            let found = dealt(&holders, &members);
            let count = |member: &str| found.iter().filter(|holder| **holder == member).count();
            let loads: Vec<usize> = members.iter().map(|member| count(member)).collect();
            prop_assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 1, "{loads:?}");
            let again: Vec<Option<&str>> = found.iter().copied().map(Some).collect();
            prop_assert_eq!(dealt(&again, &members), found.clone());
            // Whoever holds no more than everybody has at least keeps all of it.
            for member in &members {
                let had = holders.iter().filter(|holder| **holder == Some(*member)).count();
                if had <= holders.len() / members.len() {
                    let kept = holders.iter().zip(&found).filter(|(was, is)| **was == Some(**is) && *is == member);
                    prop_assert_eq!(kept.count(), had);
                }
            }
        }
    }
}
