//! A member's new keys: whether it gets a certificate of them, and when the old ones are no good any more. Pure.

use bus_schema::{
    audit::AuditEvent,
    member::{Certificate, Role, Signed},
    rotation::{RotateAsk, RotateDone},
};

use super::{
    Change, Now, State,
    change::Signer,
    members::{FormerKeys, Member},
};

/// What the audit says.
const ROTATE: &str = "change its keys";

/// What comes of an offer of new keys.
#[derive(Debug, Clone)]
pub enum Rotating {
    /// This certificate, by these changes; there are none when it has it already.
    Granted(Signed<Certificate>, Vec<Change>),
    /// No, and why.
    Refused(String),
}

impl State {
    /// A member offers new keys, in a message that was signed by `by`.
    pub fn on_rotate(&self, by: &Certificate, ask: &RotateAsk, signer: &Signer, now: Now) -> Rotating {
        let refused = |why: &str| Rotating::Refused(why.to_string());
        let offer = match ask.offer.open(&ask.keys.sign) {
            Ok(offer) => offer,
            Err(error) => return Rotating::Refused(error.to_string()),
        };
        if (offer.fleet, offer.node, offer.keys) != (self.fleet, by.node, ask.keys) {
            return refused("the offer is of other keys, or for another member");
        }
        let Some(member) = self.members.get(&by.node) else {
            return refused("you are no member");
        };
        if member.certificate.keys == ask.keys {
            return Rotating::Granted(member.signed.clone(), Vec::new());
        }
        // The plane's keys and operators' are not changed this way.
        if member.certificate.role != Role::Daemon {
            return refused("only daemons change their keys this way");
        }
        if self.members.has_keys(&ask.keys.sign) {
            return refused("these keys belong to a member already");
        }
        // Whoever has its older keys alone, such as a thief, gets no others by them. And while some are good beside the newest,
        // nothing is changed once more: what they have signed would be lost.
        if member.certificate != *by {
            return refused("the keys that signed this are not your newest");
        }
        if self.members.former(&by.node).is_some() {
            return refused("the keys before yours are still in use; wait until they are not");
        }
        let former = FormerKeys {
            certificate: member.certificate.clone(),
            signed: member.signed.clone(),
        };
        let certificate = Certificate {
            keys: ask.keys,
            key_epoch: member.certificate.key_epoch.saturating_add(1),
            ..member.certificate.clone()
        };
        let signed = Signed::new(&certificate, &signer.root);
        let what = format!("{}: generation {}", certificate.name, certificate.key_epoch);
        let event = AuditEvent::new(now.unix_ms, &certificate.name, "bus", ROTATE, &what);
        let mut changes = self.rotated(member, certificate, signed.clone(), former);
        changes.push(Change::Audit(event));
        Rotating::Granted(signed, changes)
    }

    fn rotated(
        &self,
        member: &Member,
        certificate: Certificate,
        signed: Signed<Certificate>,
        former: FormerKeys,
    ) -> Vec<Change> {
        let node = certificate.node;
        let member = Member {
            certificate,
            signed,
            ..member.clone()
        };
        vec![
            Change::Member(Box::new(member)),
            Change::Former {
                node,
                former: Some(Box::new(former)),
            },
            Change::RosterVersion(self.members.version() + 1),
        ]
    }

    /// A member says that nothing is left which its older keys have signed.
    pub fn on_rotate_done(&self, by: &Certificate, done: RotateDone, now: Now) -> Vec<Change> {
        let is_newest = self
            .members
            .get(&by.node)
            .is_some_and(|member| member.certificate == *by && by.key_epoch == done.key_epoch);
        if !is_newest || self.members.former(&by.node).is_none() {
            return Vec::new();
        }
        let what = format!("{}: its old keys are no good any more", by.name);
        vec![
            Change::Former {
                node: by.node,
                former: None,
            },
            Change::RosterVersion(self.members.version() + 1),
            Change::Audit(AuditEvent::new(now.unix_ms, &by.name, "bus", ROTATE, &what)),
        ]
    }

    /// A member shows a certificate of its own that this plane made and does not know any more: an older store was restored.
    pub fn on_shown(&self, by: &Certificate, certificate: Certificate, signed: Signed<Certificate>) -> Vec<Change> {
        let Some(member) = self.members.get(&by.node) else {
            return Vec::new();
        };
        let is_newer = certificate.node == by.node
            && certificate.fleet == self.fleet
            && certificate.role == member.certificate.role
            && certificate.name == member.certificate.name
            && certificate.key_epoch > member.certificate.key_epoch;
        if !is_newer || member.certificate != *by {
            return Vec::new();
        }
        let former = FormerKeys {
            certificate: member.certificate.clone(),
            signed: member.signed.clone(),
        };
        self.rotated(member, certificate, signed, former)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bus_schema::{
        id::{NodeId, StreamId, WorkflowId},
        key::Identity,
        message::{HostFacts, Status},
        plan::{Pipe, PlanWorkflow, Root, SendPolicy, SpoolPolicy, StreamSpec},
        rotation::KeyOffer,
    };

    use super::*;
    use crate::domain::{
        Effect,
        testing::{certificate, identity, part, status},
    };

    fn signer() -> Signer {
        Signer {
            root: identity(0),
            plane: identity(0),
        }
    }

    fn state() -> State {
        let daemon = certificate(1, "gw", Role::Daemon);
        let mut state = State::new(daemon.fleet, certificate(9, "plane", Role::Plane).node);
        for (n, name, role) in [
            (1, "gw", Role::Daemon),
            (2, "hub", Role::Daemon),
            (3, "anna", Role::Operator),
        ] {
            let certificate = certificate(n, name, role);
            let member = Member {
                signed: Signed::new(&certificate, &identity(0)),
                certificate,
                host: HostFacts::default(),
                enrolled_unix_ms: 7,
            };
            let version = state.members.version() + 1;
            state.apply(
                [Change::Member(Box::new(member)), Change::RosterVersion(version)],
                true,
                Now::default(),
            );
        }
        state
    }

    fn ask(by: &Certificate, keys: &Identity) -> RotateAsk {
        let offer = KeyOffer {
            fleet: by.fleet,
            node: by.node,
            keys: keys.public(),
        };
        RotateAsk {
            keys: keys.public(),
            offer: Signed::new(&offer, keys),
        }
    }

    fn epochs(state: &State, by: &Certificate) -> Vec<u32> {
        state.members.roster().of(&by.node).map(|one| one.key_epoch).collect()
    }

    #[test]
    fn both_keys_are_good_until_the_old_ones_are_done_with() {
        let (mut state, signer, now) = (state(), signer(), Now::default());
        let old = certificate(1, "gw", Role::Daemon);
        let new = Identity::from_bytes(&[40; 64]);
        let Rotating::Granted(signed, changes) = state.on_rotate(&old, &ask(&old, &new), &signer, now) else {
            panic!("refused");
        };
        let certificate = signed.open(&signer.root.public().sign).unwrap();
        assert_eq!(
            (certificate.node, certificate.key_epoch, certificate.keys),
            (old.node, 1, new.public())
        );
        let before = state.members.version();
        state.apply(changes, true, now);
        assert_eq!(state.members.version(), before + 1);
        assert_eq!(epochs(&state, &old), [1, 0]);
        assert_eq!(state.members.version_for(&old.node), before + 1, "it is told itself");
        assert_eq!(
            state.members.get(&old.node).map(|member| member.enrolled_unix_ms),
            Some(7)
        );
        // The answer was lost.
        let again = state.on_rotate(&old, &ask(&old, &new), &signer, now);
        assert!(matches!(again, Rotating::Granted(again, changes) if again == signed && changes.is_empty()));
        // Whoever still has the old keys cannot end it.
        let done = RotateDone { key_epoch: 1 };
        assert!(state.on_rotate_done(&old, done, now).is_empty());
        let changes = state.on_rotate_done(&certificate, done, now);
        let effects = state.apply(changes, true, now);
        let node = old.node;
        assert!(effects.contains(&crate::domain::Effect::ForgetOlder { node, key_epoch: 1 }));
        assert_eq!(epochs(&state, &old), [1]);
        assert!(state.on_rotate_done(&certificate, done, now).is_empty(), "once");
        // A second rotation.
        let newer = Identity::from_bytes(&[41; 64]);
        let Rotating::Granted(_, changes) = state.on_rotate(&certificate, &ask(&certificate, &newer), &signer, now)
        else {
            panic!("refused");
        };
        state.apply(changes, true, now);
        assert_eq!(epochs(&state, &old), [2, 1]);
        // Whoever has the older keys, a thief or the daemon from an older copy of its disk, gets no others by them; and while they
        // are good nobody gets any.
        let another = Identity::from_bytes(&[42; 64]);
        let newest = state.members.get(&node).unwrap().certificate.clone();
        for (by, said) in [
            (&certificate, "not your newest"),
            (&newest, "still in use"),
            (&old, "not your newest"),
        ] {
            let got = state.on_rotate(by, &ask(by, &another), &signer, now);
            assert!(
                matches!(&got, Rotating::Refused(why) if why.contains(said)),
                "{said}: {got:?}"
            );
        }
        assert_eq!(epochs(&state, &old), [2, 1]);
    }

    /// A workflow whose records go from one daemon to the other.
    fn between(from: NodeId, to: NodeId) -> BTreeMap<NodeId, PlanWorkflow> {
        let spec = StreamSpec {
            stream: StreamId::from_hash(&[5; 32]),
            edge: "a->b".into(),
            producer: from,
            consumer: to,
            spool: SpoolPolicy::default(),
            send: SendPolicy::default(),
        };
        let pipe = Pipe {
            root: Root::Stream(spec),
            steps: Vec::new(),
        };
        let part = PlanWorkflow {
            pipes: vec![pipe],
            ..part("w", 1)
        };
        [(from, part.clone()), (to, part)].into()
    }

    #[test]
    fn new_keys_are_news_to_those_that_have_to_do_with_them_and_to_nobody_else() {
        let (mut state, signer, now) = (state(), signer(), Now::default());
        let [gw, hub] = [1, 2].map(|n| certificate(n, "", Role::Daemon).node);
        let other = certificate(4, "other", Role::Daemon);
        let member = Member {
            signed: Signed::new(&other, &identity(0)),
            certificate: other.clone(),
            host: HostFacts::default(),
            enrolled_unix_ms: 7,
        };
        state.apply([Change::Member(Box::new(member)), Change::RosterVersion(9)], true, now);
        let told = |state: &State| [gw, hub, other.node].map(|node| state.members.version_for(&node));
        let workflow = WorkflowId::of_name("w");
        let changes = state.place(&workflow, between(gw, hub), &signer).unwrap();
        state.apply(changes, true, now);
        let before = told(&state);
        assert_eq!(before[..2], [10, 10], "each learns of the other");
        let old = certificate(1, "gw", Role::Daemon);
        let new = Identity::from_bytes(&[40; 64]);
        let Rotating::Granted(signed, changes) = state.on_rotate(&old, &ask(&old, &new), &signer, now) else {
            panic!("refused");
        };
        state.apply(changes, true, now);
        assert_eq!(told(&state), [11, 11, before[2]]);
        let newest = signed.open(&signer.root.public().sign).unwrap();
        let changes = state.on_rotate_done(&newest, RotateDone { key_epoch: 1 }, now);
        state.apply(changes, true, now);
        assert_eq!(told(&state), [12, 12, before[2]]);

        // They are parted: each is told so that it believes the other's keys no longer, once it cannot go back to the plan before.
        let changes = state.place(&workflow, BTreeMap::new(), &signer).unwrap();
        let rises = |change: &Change| matches!(change, Change::RosterVersion(13));
        assert!(changes.iter().any(rises), "{changes:?}");
        state.apply(changes, true, now);
        assert_eq!(told(&state), [12, 12, before[2]]);
        let version = state.plans.of(&hub).map_or(0, |plan| plan.version);
        let says = |state: &mut State, plan_version, at_s: u64| {
            let now = Now {
                mono_ms: at_s * 1_000,
                unix_ms: 0,
            };
            let status = Status {
                roster_version: 12,
                ..status(1, at_s * 1_000, plan_version)
            };
            let effects = state.on_status(hub, status, now);
            effects.contains(&Effect::SendRoster(hub))
        };
        assert!(!says(&mut state, version, 10), "it may go back yet");
        assert!(
            !says(&mut state, version - 1, 200),
            "it has gone back, and needs the other"
        );
        assert!(says(&mut state, version, 210));
        assert_eq!(told(&state), [12, 13, before[2]]);
        assert!(!state.roster_for(&hub).members.iter().any(|member| member.node == gw));
    }

    #[test]
    fn new_keys_are_news_to_those_who_are_planned_before_their_peer_is() {
        let (mut state, signer, now) = (state(), signer(), Now::default());
        let [gw, hub] = [1, 2].map(|n| certificate(n, "", Role::Daemon).node);
        // The first wave has the consumer alone.
        let workflow = WorkflowId::of_name("w");
        let mut parts = between(gw, hub);
        parts.remove(&gw);
        let changes = state.place(&workflow, parts, &signer).unwrap();
        state.apply(changes, true, now);
        let before = state.members.version_for(&hub);
        let old = certificate(1, "gw", Role::Daemon);
        let Rotating::Granted(_, changes) =
            state.on_rotate(&old, &ask(&old, &Identity::from_bytes(&[40; 64])), &signer, now)
        else {
            panic!("refused");
        };
        state.apply(changes, true, now);
        assert!(state.members.version_for(&hub) > before);
    }

    #[test]
    fn who_may_go_back_still_knows_whom_it_would_need() {
        let (mut state, signer, now) = (state(), signer(), Now::default());
        let [gw, hub] = [1, 2].map(|n| certificate(n, "", Role::Daemon).node);
        let workflow = WorkflowId::of_name("w");
        let changes = state.place(&workflow, between(gw, hub), &signer).unwrap();
        state.apply(changes, true, now);
        let changes = state.place(&workflow, BTreeMap::new(), &signer).unwrap();
        state.apply(changes, true, now);
        let knows = |state: &State| state.roster_for(&hub).members.iter().any(|member| member.node == gw);
        assert!(knows(&state));
    }

    #[test]
    fn offers_that_are_refused() {
        let (state, signer, now) = (state(), signer(), Now::default());
        let [gw, hub, anna] = [
            (1, "gw", Role::Daemon),
            (2, "hub", Role::Daemon),
            (3, "anna", Role::Operator),
        ]
        .map(|(n, name, role)| certificate(n, name, role));
        let new = Identity::from_bytes(&[40; 64]);
        let foreign = RotateAsk {
            keys: new.public(),
            offer: ask(&gw, &Identity::from_bytes(&[41; 64])).offer,
        };
        for (by, ask, said) in [
            (&gw, ask(&hub, &new), "another member"),
            (&gw, foreign, "not signed by"),
            (&gw, ask(&gw, &identity(2)), "belong to a member already"),
            (&anna, ask(&anna, &new), "only daemons"),
            (
                &certificate(8, "x", Role::Daemon),
                ask(&certificate(8, "x", Role::Daemon), &new),
                "no member",
            ),
        ] {
            let got = state.on_rotate(by, &ask, &signer, now);
            assert!(
                matches!(&got, Rotating::Refused(why) if why.contains(said)),
                "{said}: {got:?}"
            );
        }
    }

    #[test]
    fn a_plane_with_an_older_store_learns_what_it_signed() {
        let (mut state, signer) = (state(), signer());
        let old = certificate(1, "gw", Role::Daemon);
        let newer = Certificate {
            keys: Identity::from_bytes(&[40; 64]).public(),
            key_epoch: 2,
            ..old.clone()
        };
        let signed = Signed::new(&newer, &signer.root);
        let other = certificate(2, "hub", Role::Daemon);
        assert!(
            state.on_shown(&other, newer.clone(), signed.clone()).is_empty(),
            "another's"
        );
        let changes = state.on_shown(&old, newer.clone(), signed.clone());
        state.apply(changes, true, Now::default());
        assert_eq!(epochs(&state, &old), [2, 0]);
        assert!(state.on_shown(&old, newer, signed).is_empty(), "known by now");
    }
}
