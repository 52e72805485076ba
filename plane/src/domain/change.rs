//! What a decision changes for good, and what it makes the rim do. A change is durable before it is applied.

use std::sync::Arc;

use bus_schema::{
    audit::AuditEvent,
    id::{NodeId, TokenId},
    key::Identity,
    member::{Certificate, Roster, Signed},
    message::TimeHint,
    rollout::RolloutView,
};

use super::{
    daemon::Catalog,
    enrol::Token,
    groups::Groups,
    labels::Labels,
    members::{FormerKeys, Member},
    plans::Deployed,
    rollout::{Head, Order},
    workflows::Revision,
};

/// Something that was decided. All changes of one decision become durable together or not at all.
#[derive(Debug, Clone)]
pub enum Change {
    /// There is a new token.
    Token(Token),
    /// A token is of no use any more.
    TokenRevoked(TokenId),
    /// A daemon has these labels, all of them.
    Labels {
        /// Which daemon.
        node: NodeId,
        /// By key.
        labels: Labels,
    },
    /// A token was used once, by this node.
    TokenUsed {
        /// Which token.
        token: TokenId,
        /// By whom.
        node: NodeId,
    },
    /// There is a new member.
    Member(Box<Member>),
    /// A member's keys from before are good beside its new ones; `None`: not any more.
    Former {
        /// Whose.
        node: NodeId,
        /// Its certificate from before.
        former: Option<Box<FormerKeys>>,
    },
    /// A new roster is in force.
    Roster {
        /// What it says.
        roster: Roster,
        /// The same, signed by the root key.
        signed: Signed<Roster>,
    },
    /// The roster has this version; who is on it follows from the members.
    RosterVersion(u64),
    /// A revision is current.
    Revision(Revision),
    /// Why a revision was applied. It lives in the store alone.
    Reason {
        /// The workflow.
        workflow: String,
        /// The revision's number.
        number: u32,
        /// Why.
        reason: String,
    },
    /// A revision that was current before is current again.
    Reverted(Revision),
    /// A workflow is deleted.
    Retired(String),
    /// A rollout has begun.
    RolloutBegun(Arc<Order>),
    /// A rollout that was begun before a restart goes on; only when read back.
    RolloutKept(Arc<Order>, Head),
    /// A rollout stands there now.
    RolloutHead {
        /// Which.
        id: u64,
        /// Where.
        head: Head,
    },
    /// A rollout is over.
    RolloutEnded(Box<RolloutView>),
    /// A daemon has a new plan.
    Plan {
        /// Which daemon.
        node: NodeId,
        /// Its plan.
        plan: Deployed,
        /// Its daemon was known to run it: only when read back after a restart.
        confirmed: bool,
    },
    /// Daemons run the plans they shall run.
    PlansConfirmed(Vec<NodeId>),
    /// Plan versions up to this one are taken.
    PlanFloor(u64),
    /// A daemon has told its components.
    Catalog {
        /// Which daemon.
        node: NodeId,
        /// The hash it announced.
        hash: [u8; 32],
        /// The components.
        catalog: Catalog,
    },
    /// These are the groups, all of them.
    Groups(Groups),
    /// The audit has one more entry. It lives in the store alone.
    Audit(AuditEvent),
}

/// Something for the rim to do. None of it has to succeed: whatever is still due is asked for again by the next status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send a daemon its plan.
    SendPlan(NodeId),
    /// Send a daemon the roster, as far as it concerns it, and the group key.
    SendRoster(NodeId),
    /// Believe a new member, or a member's new keys.
    Admit(Signed<Certificate>),
    /// Believe a member by keys of this generation and newer ones alone.
    ForgetOlder {
        /// Which member.
        node: NodeId,
        /// The generation.
        key_epoch: u32,
    },
    /// Ask a daemon for its components.
    AskCatalog {
        /// Which daemon.
        node: NodeId,
        /// The hash it announced.
        hash: [u8; 32],
    },
    /// Tell a daemon the time.
    TellTime {
        /// Which daemon.
        node: NodeId,
        /// The time.
        hint: TimeHint,
    },
    /// Ask a daemon for what it was given: it knows more than the plane.
    Recall(NodeId),
    /// Deploy a daemon's plan again under a higher version, see [`super::State::reissue`].
    Reissue(NodeId),
    /// Take the roster of this version into force for the plane itself.
    TakeRoster(Signed<Roster>),
}

/// Who signs.
#[derive(Debug, Clone)]
pub struct Signer {
    /// The fleet's root key: certificates and rosters.
    pub root: Identity,
    /// The plane's own: plans.
    pub plane: Identity,
}
