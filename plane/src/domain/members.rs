//! Who belongs to the fleet, by id and by name, and what of it each member has to be told. Decides nothing about tokens.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bus_schema::{
    id::{FleetId, NodeId},
    key::Identity,
    member::{Certificate, Role, Roster, Signed},
    message::HostFacts,
};

use super::Change;

/// Most members that an operator is told of in one message; of others it asks by name.
const OPERATORS_ROSTER_MAX: usize = 4_096;
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

/// Keys that a member had before, and that are good still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormerKeys {
    /// The certificate of them.
    pub certificate: Certificate,
    /// The same as signed by the root key.
    pub signed: Signed<Certificate>,
}

/// Everybody.
///
/// A roster with all members grows with the fleet, and would go to all of them whenever one joins. So each daemon is told
/// of those it has to do with: planes, operators, the other ends of its streams, and all who were revoked. Whoever joins as
/// a daemon concerns nobody until a plan says so. Operators are told of as many as fit into a message.
#[derive(Debug, Clone)]
pub struct Members {
    fleet: FleetId,
    by_node: BTreeMap<NodeId, Arc<Member>>,
    by_name: BTreeMap<String, NodeId>,
    /// While keys change.
    former: BTreeMap<NodeId, FormerKeys>,
    revoked: Vec<NodeId>,
    version: u64,
    /// The version since which something is new to everybody.
    of_all: u64,
    /// The same for single daemons, where it is higher.
    of_one: BTreeMap<NodeId, u64>,
}

impl Members {
    /// Nobody yet.
    pub fn new(fleet: FleetId) -> Self {
        Self {
            fleet,
            by_node: BTreeMap::new(),
            by_name: BTreeMap::new(),
            former: BTreeMap::new(),
            revoked: Vec::new(),
            version: 0,
            of_all: 0,
            of_one: BTreeMap::new(),
        }
    }

    /// The roster's version.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The oldest version that says all that a daemon has to know.
    pub fn version_for(&self, node: &NodeId) -> u64 {
        self.of_all.max(self.of_one.get(node).copied().unwrap_or(0))
    }

    /// A member by id.
    pub fn get(&self, node: &NodeId) -> Option<&Arc<Member>> {
        self.by_node.get(node)
    }

    /// A member by name.
    pub fn named(&self, name: &str) -> Option<&Arc<Member>> {
        self.by_name.get(name).and_then(|node| self.by_node.get(node))
    }

    /// The name of a member; its id when it has gone.
    pub fn name_of(&self, node: &NodeId) -> String {
        self.get(node)
            .map_or_else(|| node.to_string(), |member| member.certificate.name.clone())
    }

    /// A member's keys from before, while they are good beside the new ones.
    pub fn former(&self, node: &NodeId) -> Option<&FormerKeys> {
        self.former.get(node)
    }

    /// Whether any member has these keys, or had them before and is believed by them.
    pub fn has_keys(&self, sign: &[u8; 32]) -> bool {
        let all = self.by_node.values().map(|member| &member.certificate);
        let former = self.former.values().map(|former| &former.certificate);
        all.chain(former).any(|certificate| certificate.keys.sign == *sign)
    }

    /// A member's keys from before are good beside the new ones, or not any more. The roster's next version says so; who has to be
    /// told of a daemon's, see [`Members::news_of`].
    pub fn set_former(&mut self, node: NodeId, former: Option<Box<FormerKeys>>) {
        match former {
            Some(former) => self.former.insert(node, *former),
            None => self.former.remove(&node),
        };
        if self
            .get(&node)
            .is_none_or(|member| member.certificate.role != Role::Daemon)
        {
            self.of_all = self.version + 1;
        }
    }

    /// The roster's next version says something new of a daemon: to itself, and to those that have to do with it.
    pub fn news_of(&mut self, node: NodeId, peers: BTreeSet<NodeId>) {
        let next = self.version + 1;
        self.of_one
            .extend(peers.into_iter().chain([node]).map(|told| (told, next)));
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

    fn roster_of<'a>(&'a self, members: impl Iterator<Item = &'a Arc<Member>>) -> Roster {
        Roster {
            fleet: self.fleet,
            version: self.version,
            members: members
                .flat_map(|member| {
                    let former = self.former(&member.certificate.node);
                    std::iter::once(&member.certificate).chain(former.map(|former| &former.certificate))
                })
                .cloned()
                .collect(),
            revoked: self.revoked.clone(),
        }
    }

    /// The whole roster, as it is kept beside the plane's keys.
    pub fn roster(&self) -> Roster {
        self.roster_of(self.by_node.values())
    }

    /// The next roster, with one more member.
    pub fn roster_with(&self, certificate: &Certificate) -> Roster {
        let mut roster = self.roster();
        roster.version += 1;
        roster.members.retain(|member| member.node != certificate.node);
        roster.members.push(certificate.clone());
        roster
    }

    /// The next roster, without a member, that is not to be believed any more.
    pub fn roster_without(&self, node: &NodeId) -> Roster {
        let mut roster = self.roster();
        roster.version += 1;
        roster.members.retain(|member| member.node != *node);
        roster.revoked.retain(|known| known != node);
        roster.revoked.push(*node);
        // Who is on no list is a stranger, and as little believed: only its keys could be enrolled anew.
        let surplus = roster.revoked.len().saturating_sub(REVOKED_MAX);
        roster.revoked.drain(..surplus);
        roster
    }

    /// What a daemon is told, that has `peers` at the other ends of its streams.
    pub fn roster_for(&self, node: &NodeId, peers: &BTreeSet<NodeId>) -> Roster {
        self.roster_of(self.by_node.values().filter(|member| {
            let Certificate { role, node: of, .. } = &member.certificate;
            *role != Role::Daemon || of == node || peers.contains(of)
        }))
    }

    /// What an operator is told: everybody, or, in a fleet too large for that, all but the daemons that find no room.
    pub fn roster_for_operator(&self) -> Roster {
        let first = self
            .by_node
            .values()
            .filter(|member| member.certificate.role != Role::Daemon);
        self.roster_of(first.chain(self.of_role(Role::Daemon)).take(OPERATORS_ROSTER_MAX))
    }

    /// Adds or replaces a member. The roster's next version says so; who has to be told of a daemon with other keys, see
    /// [`Members::news_of`].
    pub fn insert(&mut self, member: Member) {
        let Certificate { node, name, role, .. } = &member.certificate;
        let before = self.by_node.get(node).map(|before| before.certificate.name.clone());
        if *role != Role::Daemon {
            self.of_all = self.version + 1;
        }
        if let Some(name) = before {
            self.by_name.remove(&name);
        }
        self.by_name.insert(name.clone(), *node);
        self.by_node.insert(*node, Arc::new(member));
    }

    /// A roster is in force. An older one than that changes nothing.
    pub fn set_roster(&mut self, roster: &Roster) {
        if roster.version >= self.version {
            if self.revoked != roster.revoked {
                self.of_all = roster.version;
                self.revoked.clone_from(&roster.revoked);
            }
            self.version = roster.version;
            self.by_node.retain(|node, _| !roster.revoked.contains(node));
            self.by_name.retain(|_, node| !roster.revoked.contains(node));
            self.former.retain(|node, _| !roster.revoked.contains(node));
        }
    }

    /// The roster has this version now; who is on it is known from elsewhere.
    pub fn raise(&mut self, version: u64) {
        self.version = self.version.max(version);
    }

    /// This version of the roster says something new to one daemon: it has streams to others than before.
    pub fn concerns(&mut self, node: NodeId, version: u64) {
        let told = self.of_one.entry(node).or_default();
        *told = version.max(*told);
    }

    /// After a restart: it is not known who was told of what, so all are told again.
    pub fn tell_all(&mut self) {
        self.of_all = self.version;
        self.of_one.clear();
    }

    /// Takes over members, and newer keys of members, from a roster that knows more than the store: the store was lost or is an
    /// old copy. Certificates are signed anew; what unknown hosts said is gone until they say it again. Returns what changes in
    /// the store. Whoever was revoked here stays so, whatever that roster says.
    pub fn adopt(&mut self, roster: &Roster, root: &Identity) -> Vec<Change> {
        let is_newer = roster.version > self.version;
        let mut changes = Vec::new();
        for certificate in &roster.members {
            let node = certificate.node;
            let is_revoked = roster.revoked.contains(&node) || self.revoked.contains(&node);
            // Of one whose keys change it is the newest that counts; the others are good beside it.
            let mut all: Vec<&Certificate> = roster.of(&node).collect();
            all.sort_by_key(|one| std::cmp::Reverse(one.key_epoch));
            if is_revoked || all.first() != Some(&certificate) {
                continue;
            }
            let known = self.by_node.get(&node).map(Arc::clone);
            let known_epoch = known.as_ref().map(|known| known.certificate.key_epoch);
            if known_epoch < Some(certificate.key_epoch) {
                let member = Member {
                    certificate: certificate.clone(),
                    signed: Signed::new(certificate, root),
                    host: known
                        .as_ref()
                        .map_or_else(HostFacts::default, |known| known.host.clone()),
                    enrolled_unix_ms: known.as_ref().map_or(0, |known| known.enrolled_unix_ms),
                };
                self.insert(member.clone());
                changes.push(Change::Member(Box::new(member)));
            } else if known_epoch > Some(certificate.key_epoch) || !is_newer {
                continue;
            }
            let former = all.get(1).map(|former| FormerKeys {
                certificate: (*former).clone(),
                signed: Signed::new(*former, root),
            });
            if self.former.get(&node) != former.as_ref() {
                let former = former.map(Box::new);
                self.set_former(node, former.clone());
                changes.push(Change::Former { node, former });
            }
        }
        let mut roster = roster.clone();
        let known = self.revoked.iter().filter(|node| !roster.revoked.contains(node));
        let known: Vec<NodeId> = known.copied().collect();
        roster.revoked.extend(known);
        self.set_roster(&roster);
        changes
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
            members.set_roster(&roster);
        }
        assert_eq!(
            members.named("b").map(|member| member.certificate.node),
            Some(member(2, "b").certificate.node)
        );
        assert!(members.named("c").is_none());
    }

    #[test]
    fn a_daemon_is_told_of_those_it_has_to_do_with() {
        let mut members = Members::new(certificate(1, "a", Role::Daemon).fleet);
        let add = |members: &mut Members, n: u8, name: &str, role| {
            let certificate = certificate(n, name, role);
            members.insert(Member {
                signed: Signed::new(&certificate, &identity(0)),
                certificate,
                ..member(n, name)
            });
            members.raise(members.version() + 1);
        };
        let [a, b, c] = [1, 2, 3].map(|n| certificate(n, "", Role::Daemon).node);
        let names = |roster: &Roster| {
            let mut names: Vec<_> = roster.members.iter().map(|member| member.name.clone()).collect();
            names.sort();
            names.join(" ")
        };
        for (n, name) in [(1, "a"), (2, "b"), (3, "c")] {
            add(&mut members, n, name, Role::Daemon);
        }
        assert_eq!(
            (members.version(), members.version_for(&a)),
            (3, 0),
            "daemons are no news to others"
        );
        add(&mut members, 9, "anna", Role::Operator);
        assert_eq!(members.version_for(&a), 4, "whoever gives commands is");
        assert_eq!(names(&members.roster_for(&a, &[b].into())), "a anna b");
        assert_eq!(names(&members.roster_for(&c, &[].into())), "anna c");
        assert_eq!(names(&members.roster_for_operator()), "a anna b c");
        members.raise(5);
        members.concerns(c, 5);
        assert_eq!([a, c].map(|node| members.version_for(&node)), [4, 5]);
        let revoked = Roster {
            version: 6,
            revoked: [b].into(),
            ..members.roster()
        };
        members.set_roster(&revoked);
        assert_eq!([a, c].map(|node| members.version_for(&node)), [6, 6]);
        // Keys of a daemon are news to those that have to do with it, keys of an operator to all.
        members.news_of(a, [c].into());
        add(&mut members, 1, "a", Role::Daemon);
        assert_eq!([a, c, b].map(|node| members.version_for(&node)), [7, 7, 6]);
        add(&mut members, 9, "anna", Role::Operator);
        assert_eq!(members.version_for(&b), 8);
    }

    #[test]
    fn who_is_taken_out_is_off_the_roster_and_listed() {
        let [a, b] = [(1, "a"), (2, "b")].map(|(n, name)| member(n, name));
        let mut members = Members::new(a.certificate.fleet);
        for one in [&a, &b] {
            let roster = members.roster_with(&one.certificate);
            members.insert(one.clone());
            members.set_roster(&roster);
        }
        let roster = members.roster_without(&a.certificate.node);
        assert_eq!((roster.version, &roster.members[..]), (3, &[b.certificate.clone()][..]));
        assert_eq!(roster.of(&a.certificate.node).count(), 0);
        members.set_roster(&roster);
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

    /// Whom changes are about.
    fn names(changes: &[Change]) -> Vec<String> {
        let name = |change: &Change| match change {
            Change::Member(member) => member.certificate.name.clone(),
            Change::Former { former, .. } => format!("former {}", former.is_some()),
            other => format!("{other:?}"),
        };
        changes.iter().map(name).collect()
    }

    #[test]
    fn an_older_store_learns_of_changed_keys_from_the_roster() {
        let a = member(1, "a");
        let newer = |n: u8, key_epoch| Certificate {
            keys: identity(n).public(),
            key_epoch,
            ..a.certificate.clone()
        };
        let roster = |version, members: Vec<Certificate>| Roster {
            fleet: a.certificate.fleet,
            version,
            members,
            revoked: [].into(),
        };
        let mut members = Members::new(a.certificate.fleet);
        members.insert(a.clone());
        // In the overlap: both are good.
        let both = roster(5, vec![a.certificate.clone(), newer(20, 1)]);
        let changes = members.adopt(&both, &identity(0));
        assert_eq!(names(&changes), ["a", "former true"]);
        let now = members.get(&a.certificate.node).unwrap();
        assert_eq!((now.certificate.key_epoch, now.enrolled_unix_ms), (1, 5));
        let former = |members: &Members| {
            members
                .former(&a.certificate.node)
                .map(|former| former.certificate.key_epoch)
        };
        assert_eq!(former(&members), Some(0));
        assert!(members.adopt(&both, &identity(0)).is_empty(), "nothing new");
        // An older roster takes nothing back.
        assert!(
            members
                .adopt(&roster(4, vec![a.certificate.clone()]), &identity(0))
                .is_empty()
        );
        // After it: the old ones are good no more.
        let changes = members.adopt(&roster(6, vec![newer(20, 1)]), &identity(0));
        assert_eq!(
            (names(&changes), former(&members)),
            (vec!["former false".to_string()], None)
        );
        assert_eq!(members.roster().of(&a.certificate.node).count(), 1);
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
        let adopted = members.adopt(&roster, &identity(0));
        assert_eq!(names(&adopted), ["b"]);
        assert_eq!(members.version(), 9);
        assert!(members.is_revoked(&c.certificate.node));
        assert_eq!(
            members.get(&a.certificate.node).map(|a| a.enrolled_unix_ms),
            Some(5),
            "what is known is kept"
        );
    }
}
