//! The broker's access list, derived from a user name alone: no list of users to keep in step.

use alloc::{format, string::String, vec::Vec};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::{
    id::{FleetId, NodeId, TokenId, base32},
    subject::Pattern,
};

/// Prefix of the user name with which a candidate connects before it has a certificate.
const ENROL_PREFIX: &str = "enrol-";

/// Who connects, by user name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// A member of the fleet: its node id.
    Node(NodeId),
    /// A candidate with an enrolment token: `enrol-<token id>`.
    Candidate(TokenId),
}

impl User {
    /// Reads a broker user name.
    pub fn parse(name: &str) -> Option<Self> {
        match name.strip_prefix(ENROL_PREFIX) {
            Some(token) => token.parse().ok().map(User::Candidate),
            None => name.parse().ok().map(User::Node),
        }
    }

    /// The broker user name.
    pub fn name(&self) -> String {
        match self {
            User::Node(node) => format!("{node}"),
            User::Candidate(token) => format!("{ENROL_PREFIX}{token}"),
        }
    }

    /// The password the embedded broker expects: an HMAC of the name, so the broker keeps one secret and no list.
    pub fn password(&self, broker_secret: &[u8; 32]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(broker_secret).expect("HMAC takes keys of any length");
        mac.update(b"mycelial broker v1");
        mac.update(self.name().as_bytes());
        base32(&mac.finalize().into_bytes())
    }
}

/// What a user may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Subjects it may publish on.
    pub publish: Vec<Pattern>,
    /// Patterns it may subscribe to, or to anything inside them.
    pub subscribe: Vec<Pattern>,
}

/// The access list of one user. A node publishes only below its own name; it hears what is addressed to it,
/// and data and acknowledgements (which are sealed for whoever holds the stream's key).
pub fn rules(fleet: &FleetId, plane: &NodeId, user: &User) -> Rules {
    let pattern = |rest: String| {
        Pattern::parse(&format!("myc.v1.{fleet}.{rest}")).expect("built from ids and fixed tokens, all valid")
    };
    match user {
        User::Candidate(token) => Rules {
            publish: [pattern(format!("enrol.{token}.ask"))].into(),
            subscribe: [pattern(format!("enrol.{token}.answer"))].into(),
        },
        User::Node(node) => {
            let mut publish: Vec<_> = ["ctl", "data", "ack", "app"]
                .map(|lane| pattern(format!("{lane}.{node}.>")))
                .into();
            let mut subscribe: Vec<_> = [
                pattern(format!("ctl.*.{node}")),
                pattern("data.*.*".into()),
                pattern("ack.*.*".into()),
                pattern("app.>".into()),
            ]
            .into();
            if node == plane {
                publish.push(pattern("enrol.*.answer".into()));
                subscribe.push(pattern("enrol.*.ask".into()));
            }
            Rules { publish, subscribe }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::{self, Pattern};

    #[test]
    fn a_node_speaks_only_in_its_own_name() {
        let fleet = FleetId::from_hash(&[1; 32]);
        let [plane, a, b] = [2, 3, 4].map(|n| NodeId::from_hash(&[n; 32]));
        let token = TokenId::from_hash(&[5; 32]);
        let may = |user: &User, subject: &subject::Subject| {
            rules(&fleet, &plane, user)
                .publish
                .iter()
                .any(|rule| rule.matches(subject))
        };
        let hears = |user: &User, pattern: &Pattern| {
            rules(&fleet, &plane, user)
                .subscribe
                .iter()
                .any(|rule| rule.contains(pattern))
        };
        let (node_a, candidate) = (User::Node(a), User::Candidate(token));
        assert!(may(&node_a, &subject::control(&fleet, &a, &b)));
        assert!(!may(&node_a, &subject::control(&fleet, &b, &a)));
        assert!(hears(&node_a, &subject::control_to(&fleet, &a)));
        assert!(!hears(&node_a, &subject::control_to(&fleet, &b)));
        assert!(!hears(&node_a, &Pattern::parse("myc.>").unwrap()));
        assert!(!hears(&node_a, &subject::enrol_asks(&fleet)));
        assert!(hears(&User::Node(plane), &subject::enrol_asks(&fleet)));
        assert!(may(&candidate, &subject::enrol_ask(&fleet, &token)));
        assert!(!may(&candidate, &subject::control(&fleet, &a, &b)));
        assert!(!may(&candidate, &subject::enrol_answer(&fleet, &token)));
    }

    #[test]
    fn names_and_passwords() {
        for user in [
            User::Node(NodeId::from_hash(&[1; 32])),
            User::Candidate(TokenId::from_hash(&[2; 32])),
        ] {
            assert_eq!(User::parse(&user.name()), Some(user));
            assert_eq!(user.password(&[7; 32]).len(), 52);
            assert_ne!(user.password(&[7; 32]), user.password(&[8; 32]));
        }
        assert_eq!(User::parse("admin"), None);
    }
}
