//! A plane that has lost its disk, or was given an older copy of it, learns again what its daemons know: members and revoked ones from
//! their rosters, what they shall run from their plans. Both were signed by keys that the plane holds; a daemon can keep them
//! back, and make nothing up. Pure.

use std::collections::BTreeMap;

use bus_schema::{
    id::NodeId,
    member::{Roster, Signed},
    message::RecallPage,
    plan::Plan,
};

use super::{Change, Now, State, change::Signer, plans::Deployed, workflows::Revision};

/// A daemon is asked at most this often, in milliseconds.
const AGAIN_MS: u64 = 30_000;
/// Who made a revision whose text is gone.
const NOBODY: &str = "(recalled)";

/// Who was asked: when first, and when last.
#[derive(Debug, Clone, Default)]
pub struct Recalls(BTreeMap<NodeId, (u64, u64)>);

impl Recalls {
    /// Whether to ask a daemon that knows more, now.
    pub fn ask(&mut self, node: NodeId, now_ms: u64) -> bool {
        match self.0.get_mut(&node) {
            None => {
                self.0.insert(node, (now_ms, now_ms));
                true
            }
            Some((_, last)) if now_ms.saturating_sub(*last) >= AGAIN_MS => {
                *last = now_ms;
                true
            }
            Some(_) => false,
        }
    }

    /// Whether a daemon has been asked: what nobody wanted to know is not listened to.
    fn has_asked(&self, node: &NodeId) -> bool {
        self.0.contains_key(node)
    }

    /// Whether to wait for what a daemon knows before it is told of the fleet: as long as its plan is not known, it would be told
    /// of nobody at the other ends of its streams, and refuse them. Not for ever: it has to hear who was revoked.
    pub fn holds_back(&self, node: &NodeId, now_ms: u64) -> bool {
        let asked = self.0.get(node);
        asked.is_some_and(|(first, _)| now_ms.saturating_sub(*first) < AGAIN_MS)
    }
}

/// In the place of a text that nobody has any more.
fn lost_text(name: &str, number: u32) -> String {
    format!(
        "# Revision {number} of this workflow is in force on its daemons. Its text was lost with the plane's disk:\n\
         # apply it again from where you keep it, and it becomes the next revision.\nname = \"{name}\"\n"
    )
}

impl State {
    /// What a daemon was given by the plane that this one was before.
    pub fn on_recalled(&self, node: &NodeId, page: &RecallPage, signer: &Signer, now: Now) -> Vec<Change> {
        let mut changes = Vec::new();
        if !self.recalls.has_asked(node) {
            return changes;
        }
        if let Some(signed) = &page.roster {
            changes.extend(self.recall_roster(signed, signer));
        }
        if let Some(signed) = &page.plan {
            changes.extend(self.recall_plan(node, signed, signer, now));
        }
        changes
    }

    fn recall_roster(&self, signed: &Signed<Roster>, signer: &Signer) -> Vec<Change> {
        let Ok(roster) = signed.open(&signer.root.public().sign) else {
            return Vec::new();
        };
        if roster.fleet != self.fleet {
            return Vec::new();
        }
        let mut members = self.members.clone();
        let is_newer = roster.version > members.version();
        let mut changes = members.adopt(&roster, &signer.root);
        if !is_newer && changes.is_empty() {
            return Vec::new();
        }
        // Above what anybody has, so that everybody takes it.
        members.raise(members.version() + 1);
        let roster = members.roster();
        let signed = Signed::new(&roster, &signer.root);
        changes.push(Change::Roster { roster, signed });
        changes
    }

    fn recall_plan(&self, node: &NodeId, signed: &Signed<Plan>, signer: &Signer, now: Now) -> Vec<Change> {
        let Ok(plan) = signed.open(&signer.plane.public().sign) else {
            return Vec::new();
        };
        let known = self.plans.of(node).map_or(0, |plan| plan.version);
        if plan.fleet != self.fleet || plan.daemon != *node || plan.version <= known {
            return Vec::new();
        }
        let mut changes = Vec::new();
        for part in &plan.workflows {
            if self.workflows.next_number(&part.name) <= part.revision {
                changes.push(Change::Revision(Revision {
                    workflow: part.name.clone(),
                    number: part.revision,
                    text: lost_text(&part.name, part.revision),
                    by: NOBODY.to_string(),
                    at_unix_ms: now.unix_ms,
                }));
            }
        }
        if self.has_new_peers(node, &plan.workflows) {
            // It has to be told of them again.
            changes.push(Change::RosterVersion(self.members.version() + 1));
        }
        changes.push(Change::Plan {
            node: *node,
            plan: Deployed {
                version: plan.version,
                workflows: plan.workflows,
                signed: signed.clone(),
            },
            confirmed: true,
        });
        changes
    }
}

#[cfg(test)]
mod tests {
    use bus_schema::member::Role;

    use super::*;
    use crate::domain::testing::{certificate, fleet, identity, node, part, status};

    fn signer() -> Signer {
        Signer {
            root: identity(0),
            plane: identity(100),
        }
    }

    fn roster(version: u64, members: &[u8], revoked: &[u8], by: u8) -> RecallPage {
        let roster = Roster {
            fleet: fleet(),
            version,
            members: members
                .iter()
                .map(|n| certificate(*n, &format!("d{n}"), Role::Daemon))
                .collect(),
            revoked: revoked.iter().map(|n| node(*n)).collect(),
        };
        RecallPage {
            roster: Some(Signed::new(&roster, &identity(by))),
            plan: None,
        }
    }

    fn plan(of: u8, version: u64, by: u8) -> RecallPage {
        let plan = Plan {
            fleet: fleet(),
            daemon: node(of),
            version,
            workflows: vec![part("orders", 4)],
        };
        RecallPage {
            roster: None,
            plan: Some(Signed::new(&plan, &identity(by))),
        }
    }

    fn recall(state: &mut State, from: u8, page: &RecallPage) -> usize {
        state.recalls.ask(node(from), 0);
        let changes = state.on_recalled(&node(from), page, &signer(), Now::default());
        let count = changes.len();
        state.apply(changes, true, Now::default());
        count
    }

    #[test]
    fn members_and_plans_come_back_and_only_genuine_ones() {
        let mut state = State::new(fleet(), node(100));
        // Signed by somebody else, or of another fleet's making: nothing.
        assert_eq!(recall(&mut state, 1, &roster(9, &[1], &[], 7)), 0);
        assert_eq!(recall(&mut state, 1, &plan(1, 7, 7)), 0);
        assert_eq!(recall(&mut state, 1, &plan(2, 7, 100)), 0, "another's plan");

        assert!(recall(&mut state, 1, &roster(9, &[1, 2, 3], &[4], 0)) > 0);
        assert_eq!((state.members.len(), state.members.version()), (3, 10));
        assert!(state.members.is_revoked(&node(4)));
        // Another daemon's older roster names whom the first did not know; the revoked one stays away.
        assert!(recall(&mut state, 2, &roster(8, &[2, 4, 5], &[], 0)) > 0);
        assert_eq!((state.members.len(), state.members.version()), (4, 11));
        assert!(state.members.get(&node(5)).is_some() && state.members.get(&node(4)).is_none());
        assert_eq!(recall(&mut state, 2, &roster(8, &[2, 5], &[], 0)), 0, "nothing new");
        assert_eq!(
            recall(&mut state, 2, &roster(8, &[2, 4, 5], &[], 0)),
            0,
            "nothing new either"
        );

        assert!(recall(&mut state, 1, &plan(1, 7, 100)) > 0);
        assert_eq!(state.plans.of(&node(1)).map(|plan| plan.version), Some(7));
        let revision = state.workflows.get("orders").unwrap();
        assert!(revision.number == 4 && revision.text.contains("apply it again"));
        assert_eq!(recall(&mut state, 1, &plan(1, 6, 100)), 0, "older than what is known");
        assert_eq!(
            recall(&mut state, 2, &plan(2, 8, 100)),
            1,
            "its revision is known by now"
        );
        assert_eq!(
            (state.plans.next_version(), state.workflows.next_number("orders")),
            (9, 5)
        );
    }

    #[test]
    fn who_was_revoked_here_stays_so_and_who_was_not_asked_is_not_heard() {
        let mut state = State::new(fleet(), node(100));
        assert!(recall(&mut state, 1, &roster(5, &[1, 2, 3], &[3], 0)) > 0);
        // From before a plane was lost: newer, and the revoked one is on it.
        assert!(recall(&mut state, 2, &roster(20, &[1, 2, 3, 6], &[4], 0)) > 0);
        assert!(state.members.get(&node(3)).is_none() && state.members.get(&node(6)).is_some());
        let all = state.members.roster();
        assert!([3, 4].iter().all(|n| all.revoked.contains(&node(*n))));
        assert!(all.version > 20 && all.members.iter().all(|member| member.node != node(3)));
        let heard = state.on_recalled(&node(6), &roster(30, &[7], &[], 0), &signer(), Now::default());
        assert!(heard.is_empty(), "nobody asked it");
    }

    #[test]
    fn only_who_knows_more_is_asked_and_not_all_the_time() {
        let mut state = State::new(fleet(), node(100));
        let asked = |effects: Vec<super::super::Effect>| {
            effects
                .iter()
                .filter(|effect| matches!(effect, super::super::Effect::Recall(_)))
                .count()
        };
        for (mono_ms, plan_version, count) in [(0, 0, 0), (1, 7, 1), (2, 7, 0), (AGAIN_MS + 1, 7, 1)] {
            let now = Now { mono_ms, unix_ms: 0 };
            let status = status(1, mono_ms, plan_version);
            let status = bus_schema::message::Status {
                roster_version: 0,
                ..status
            };
            assert_eq!(asked(state.on_status(node(1), status, now)), count, "{mono_ms}");
        }
        recall(&mut state, 1, &plan(1, 7, 100));
        let now = Now {
            mono_ms: 3 * AGAIN_MS,
            unix_ms: 0,
        };
        let status = bus_schema::message::Status {
            roster_version: 0,
            ..status(1, 3 * AGAIN_MS, 7)
        };
        assert_eq!(asked(state.on_status(node(1), status, now)), 0);
    }
}
