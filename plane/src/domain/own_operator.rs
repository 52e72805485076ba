//! Whether the plane's own operator is a member, or becomes one. Nobody asks for it over the bus: whoever may write the plane's
//! settings holds the root key anyway. Pure.

use bus_schema::{
    audit::AuditEvent,
    key::PublicKeys,
    limits::ROSTER_MEMBERS_MAX,
    member::{Certificate, Role, Signed},
    message::HostFacts,
};

use super::{Change, Now, State, change::Signer, members::Member};

/// What it is called on the roster; with a number when that name is taken.
pub const NAME: &str = "web-operator";
/// Numbers that are tried.
const NUMBERS_MAX: u32 = 99;

/// How the plane's own operator stands.
#[derive(Debug, Clone)]
pub enum OwnOperator {
    /// It is a member.
    Known(Box<Member>),
    /// It becomes one by these changes.
    New(Box<Member>, Vec<Change>),
    /// It was one: its keys are not to be believed any more.
    Revoked,
    /// There is no room on the roster, or no name.
    Full,
}

impl State {
    /// Looks whether the holder of these keys is the plane's operator, and makes it that.
    pub fn own_operator(&self, keys: PublicKeys, signer: &Signer, now: Now) -> OwnOperator {
        let node = keys.node_id();
        if self.members.is_revoked(&node) {
            return OwnOperator::Revoked;
        }
        if let Some(member) = self.members.get(&node) {
            return OwnOperator::Known(Box::new(Member::clone(member)));
        }
        let mut names = std::iter::once(NAME.to_string()).chain((2..=NUMBERS_MAX).map(|n| format!("{NAME}-{n}")));
        let name = names.find(|name| self.members.named(name).is_none());
        let Some(name) = name.filter(|_| self.members.len() < ROSTER_MEMBERS_MAX) else {
            return OwnOperator::Full;
        };
        let certificate = Certificate {
            fleet: self.fleet,
            node,
            name,
            role: Role::Operator,
            keys,
            key_epoch: 0,
        };
        let event = AuditEvent::new(
            now.unix_ms,
            &certificate.name,
            "directory",
            "enrol",
            &format!("as operator {node}, because the settings switch the web operator on"),
        );
        let member = Box::new(Member {
            signed: Signed::new(&certificate, &signer.root),
            certificate,
            host: HostFacts::default(),
            enrolled_unix_ms: now.unix_ms,
        });
        let changes = vec![
            Change::Member(member.clone()),
            Change::RosterVersion(self.members.version() + 1),
            Change::Audit(event),
        ];
        OwnOperator::New(member, changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::testing::{certificate, fleet, identity, node};

    #[test]
    fn it_becomes_a_member_once_and_not_again_when_it_was_revoked() {
        let signer = Signer {
            root: identity(0),
            plane: identity(100),
        };
        let mut state = State::new(fleet(), node(100));
        let keys = identity(7).public();
        let OwnOperator::New(member, changes) = state.own_operator(keys, &signer, Now::default()) else {
            panic!("it is new")
        };
        assert_eq!(
            (member.certificate.name.as_str(), member.certificate.role),
            (NAME, Role::Operator)
        );
        assert_eq!(
            member.signed.open(&identity(0).public().sign),
            Ok(member.certificate.clone())
        );
        let before = state.members.version();
        state.apply(changes, true, Now::default());
        assert_eq!(state.members.version(), before + 1);
        assert!(matches!(
            state.own_operator(keys, &signer, Now::default()),
            OwnOperator::Known(known) if known == member
        ));
        // Keys that were lost: the name is taken.
        let OwnOperator::New(second, _) = state.own_operator(identity(8).public(), &signer, Now::default()) else {
            panic!("it is new")
        };
        assert_eq!(second.certificate.name, "web-operator-2");
        let roster = state.members.roster_without(&certificate(7, NAME, Role::Operator).node);
        state.members.set_roster(&roster);
        assert!(matches!(
            state.own_operator(keys, &signer, Now::default()),
            OwnOperator::Revoked
        ));
    }
}
