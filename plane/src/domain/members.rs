//! Who belongs to the fleet, by id and by name, and the signed roster that says so. Decides nothing about tokens.

use std::{collections::BTreeMap, sync::Arc};

use bus_schema::{
    id::{FleetId, NodeId},
    key::Identity,
    member::{Certificate, Role, Roster, Signed},
    message::HostFacts,
};

/// Most revoked nodes on a roster; the oldest are left out.
pub const REVOKED_MAX: usize = 1_024;

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its certificate.
    pub certificate: Certificate,
    /// The same as signed by the root key.
    pub signed: Signed<Certificate>,
    /// What it said about its host when it was enrolled.
    pub host: HostFacts,
    /// When it was enrolled, milliseconds since 1970; 0 when that is not known any more.
    pub enrolled_unix_ms: i64,
}

/// Everybody.
#[derive(Debug, Clone)]
pub struct Members {
    fleet: FleetId,
    by_node: BTreeMap<NodeId, Arc<Member>>,
    revoked: Vec<NodeId>,
    version: u64,
    signed: Option<Signed<Roster>>,
}

impl Members {
    /// Nobody yet.
    pub fn new(fleet: FleetId) -> Self {
        Self {
            fleet,
            by_node: BTreeMap::new(),
            revoked: Vec::new(),
            version: 0,
            signed: None,
        }
    }

    /// The roster's version.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// A member by id.
    pub fn get(&self, node: &NodeId) -> Option<&Arc<Member>> {
        self.by_node.get(node)
    }

    /// A member by name.
    pub fn named(&self, name: &str) -> Option<&Arc<Member>> {
        self.by_node.values().find(|member| member.certificate.name == name)
    }

    /// The name of a member; its id when it has gone.
    pub fn name_of(&self, node: &NodeId) -> String {
        self.get(node)
            .map_or_else(|| node.to_string(), |member| member.certificate.name.clone())
    }

    /// All members of a role, by id.
    pub fn of_role(&self, role: Role) -> impl Iterator<Item = &Arc<Member>> {
        self.by_node
            .values()
            .filter(move |member| member.certificate.role == role)
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.by_node.len()
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.by_node.is_empty()
    }

    /// Whether a node was a member and is not to be believed any more.
    pub fn is_revoked(&self, node: &NodeId) -> bool {
        self.revoked.contains(node)
    }

    /// Those that were members and are not to be believed any more.
    pub fn revoked(&self) -> &[NodeId] {
        &self.revoked
    }

    /// The next roster, with one more member.
    pub fn roster_with(&self, certificate: &Certificate) -> Roster {
        let mut members: Vec<_> = self.by_node.values().map(|member| member.certificate.clone()).collect();
        members.retain(|member| member.node != certificate.node);
        members.push(certificate.clone());
        Roster {
            fleet: self.fleet,
            version: self.version + 1,
            members,
            revoked: self.revoked.clone(),
        }
    }

    /// The next roster, without a member, that is not to be believed any more.
    pub fn roster_without(&self, node: &NodeId) -> Roster {
        let left = self.by_node.values().filter(|member| member.certificate.node != *node);
        let members = left.map(|member| member.certificate.clone()).collect();
        let mut revoked = self.revoked.clone();
        revoked.retain(|known| known != node);
        revoked.push(*node);
        // Who is on no list is a stranger, and as little believed: only its keys could be enrolled anew.
        let surplus = revoked.len().saturating_sub(REVOKED_MAX);
        revoked.drain(..surplus);
        Roster {
            fleet: self.fleet,
            version: self.version + 1,
            members,
            revoked,
        }
    }

    /// Adds or replaces a member.
    pub fn insert(&mut self, member: Member) {
        self.by_node.insert(member.certificate.node, Arc::new(member));
    }

    /// The roster in force, signed; `None` before there is one.
    pub fn signed_roster(&self) -> Option<&Signed<Roster>> {
        self.signed.as_ref()
    }

    /// A roster is in force. An older one than that changes nothing.
    pub fn set_roster(&mut self, roster: &Roster, signed: Signed<Roster>) {
        if roster.version >= self.version {
            self.version = roster.version;
            self.revoked.clone_from(&roster.revoked);
            self.by_node.retain(|node, _| !roster.revoked.contains(node));
            self.signed = Some(signed);
        }
    }

    /// Takes over members from a roster that knows more than the store: the store was lost or is an old copy.
    /// Certificates are signed anew; what hosts said is gone until they say it again. Returns who is new.
    pub fn adopt(&mut self, roster: &Roster, signed: Signed<Roster>, root: &Identity) -> Vec<Member> {
        let mut adopted = Vec::new();
        for certificate in &roster.members {
            if self.by_node.contains_key(&certificate.node) || roster.revoked.contains(&certificate.node) {
                continue;
            }
            let member = Member {
                certificate: certificate.clone(),
                signed: Signed::new(certificate, root),
                host: HostFacts::default(),
                enrolled_unix_ms: 0,
            };
            self.insert(member.clone());
            adopted.push(member);
        }
        self.set_roster(roster, signed);
        adopted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::testing::{certificate, identity};

    fn member(n: u8, name: &str) -> Member {
        let certificate = certificate(n, name, Role::Daemon);
        let signed = Signed::new(&certificate, &identity(0));
        Member {
            certificate,
            signed,
            host: HostFacts::default(),
            enrolled_unix_ms: 5,
        }
    }

    #[test]
    fn the_roster_grows_by_versions() {
        let fleet = certificate(1, "a", Role::Daemon).fleet;
        let mut members = Members::new(fleet);
        for (n, name) in [(1, "a"), (2, "b")] {
            let new = member(n, name);
            let roster = members.roster_with(&new.certificate);
            assert_eq!((roster.version, roster.members.len()), (u64::from(n), usize::from(n)));
            members.insert(new);
            members.set_roster(&roster, Signed::new(&roster, &identity(0)));
        }
        assert_eq!(
            members.named("b").map(|member| member.certificate.node),
            Some(member(2, "b").certificate.node)
        );
        assert!(members.named("c").is_none());
    }

    #[test]
    fn who_is_taken_out_is_off_the_roster_and_listed() {
        let [a, b] = [(1, "a"), (2, "b")].map(|(n, name)| member(n, name));
        let mut members = Members::new(a.certificate.fleet);
        for one in [&a, &b] {
            let roster = members.roster_with(&one.certificate);
            members.insert(one.clone());
            members.set_roster(&roster, Signed::new(&roster, &identity(0)));
        }
        let roster = members.roster_without(&a.certificate.node);
        assert_eq!((roster.version, &roster.members[..]), (3, &[b.certificate.clone()][..]));
        assert_eq!(roster.of(&a.certificate.node).count(), 0);
        members.set_roster(&roster, Signed::new(&roster, &identity(0)));
        assert!(members.get(&a.certificate.node).is_none() && members.is_revoked(&a.certificate.node));
        assert_eq!(members.roster_without(&a.certificate.node).revoked.len(), 1, "once");
        members.revoked = (0..=REVOKED_MAX)
            .map(|n| NodeId::from_hash(&bus_schema::id::hash("t", &[&n.to_le_bytes()])))
            .collect();
        let roster = members.roster_without(&b.certificate.node);
        assert_eq!(
            (roster.revoked.len(), roster.revoked.last()),
            (REVOKED_MAX, Some(&b.certificate.node))
        );
    }

    #[test]
    fn a_lost_store_is_refilled_from_the_roster() {
        let [a, b, c] = [(1, "a"), (2, "b"), (3, "c")].map(|(n, name)| member(n, name));
        let roster = Roster {
            fleet: a.certificate.fleet,
            version: 9,
            members: [&a, &b, &c].map(|member| member.certificate.clone()).into(),
            revoked: [c.certificate.node].into(),
        };
        let mut members = Members::new(roster.fleet);
        members.insert(a.clone());
        let adopted = members.adopt(&roster, Signed::new(&roster, &identity(0)), &identity(0));
        assert_eq!(
            adopted
                .iter()
                .map(|member| member.certificate.name.as_str())
                .collect::<Vec<_>>(),
            ["b"]
        );
        assert_eq!(members.version(), 9);
        assert!(members.is_revoked(&c.certificate.node));
        assert_eq!(
            members.get(&a.certificate.node).map(|a| a.enrolled_unix_ms),
            Some(5),
            "what is known is kept"
        );
    }
}
