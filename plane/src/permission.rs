//! Who may do what: ranks, scopes, and what each call of the bus needs. One table for the bus here, one for the web in
//! `http/table.rs`; the tests walk both. Pure.

use bus_schema::{api::ApiCall, member::Role};
use serde::{Deserialize, Serialize};

use crate::domain::labels::Selector;

/// How much somebody may. Each may what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Rank {
    /// Looks.
    Viewer,
    /// Operates daemons and workflows.
    Operator,
    /// Decides who else may.
    Admin,
}

impl Rank {
    /// All, the lowest first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl std::str::FromStr for Rank {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|rank| rank.word() == text);
        found.ok_or_else(|| format!("'{}' is no role: viewer, operator or admin", text.escape_debug()))
    }
}

/// Whoever makes a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// A user's, an API token's or an operator's name.
    pub name: String,
    /// How much it may.
    pub rank: Rank,
    /// Which daemons it may see and change; `None`: all.
    pub scope: Option<Selector>,
    /// Where the call came from: `bus`, or an address of the network.
    pub from: String,
}

impl Caller {
    /// A member of the fleet with the operator's role: the whole fleet trusts its certificate.
    pub fn of_bus(name: &str) -> Self {
        Self::whole(name, Rank::Admin, "bus")
    }

    /// Part of the plane itself, which only looks.
    pub fn within(name: &str) -> Self {
        Self::whole(name, Rank::Viewer, "plane")
    }

    /// Somebody without a scope.
    pub fn whole(name: &str, rank: Rank, from: &str) -> Self {
        Self {
            name: name.to_string(),
            rank,
            scope: None,
            from: from.to_string(),
        }
    }
}

/// What a scope does to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Nothing: the call is about no daemon.
    Free,
    /// Only what lies inside the scope is seen and changed; the rest is as if it were not there.
    Narrow,
    /// The call is about the whole fleet: it is not for those who have a scope.
    Whole,
}

/// What a call needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing: logging in.
    Open,
    /// A rank.
    Rank(Rank, Reach),
}

/// Why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// Nobody knows who it is.
    Unknown,
    /// Its rank is too low.
    Rank(Rank),
    /// It has a scope, and this is about the whole fleet.
    Scope,
}

impl Need {
    /// Whether `caller` may.
    pub fn judge(self, caller: Option<&Caller>) -> Result<(), Denied> {
        let Self::Rank(rank, reach) = self else { return Ok(()) };
        let caller = caller.ok_or(Denied::Unknown)?;
        if caller.rank < rank {
            return Err(Denied::Rank(rank));
        }
        match reach {
            Reach::Whole if caller.scope.is_some() => Err(Denied::Scope),
            _ => Ok(()),
        }
    }

    /// The rank it asks for, as people write it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Open => "none",
            Self::Rank(rank, _) => rank.word(),
        }
    }
}

/// What a call over the bus, or on behalf of a page, needs: the table of the bus. The second is whether it changes anything,
/// and so belongs into the audit.
pub fn of_call(call: &ApiCall) -> (Need, bool) {
    use Rank::{Admin, Operator, Viewer};
    use Reach::{Free, Narrow, Whole};
    let (rank, reach, changes) = match call {
        ApiCall::Info => (Viewer, Free, false),
        ApiCall::TokenCreate { role: Role::Daemon, .. } => (Operator, Whole, true),
        // Who enrols with it is an operator of the bus, who may everything: nobody makes somebody who may more than itself.
        ApiCall::TokenCreate { .. } => (Admin, Whole, true),
        ApiCall::DaemonList => (Viewer, Narrow, false),
        ApiCall::DaemonShow(_) => (Viewer, Narrow, false),
        ApiCall::WorkflowValidate { .. } => (Viewer, Narrow, false),
        ApiCall::WorkflowApply { .. } => (Operator, Narrow, true),
        ApiCall::WorkflowList => (Viewer, Narrow, false),
        ApiCall::WorkflowShow(_) => (Viewer, Narrow, false),
        ApiCall::WorkflowDelete(_) | ApiCall::WorkflowRemove { .. } => (Operator, Narrow, true),
        ApiCall::WorkflowStatus(_) => (Viewer, Narrow, false),
        ApiCall::Observe(call) => {
            use bus_schema::observe::ObserveCall::{Alerts, Preview, PutRules, Rules, Series, Silence, Test};
            match call {
                Series { .. } | Alerts => (Viewer, Narrow, false),
                // Rules and channels are the fleet's.
                Rules | Preview { .. } => (Viewer, Whole, false),
                Silence { .. } => (Operator, Narrow, true),
                PutRules(_) | Test { .. } => (Operator, Whole, true),
            }
        }
        ApiCall::DaemonRevoke(_) => (Admin, Whole, true),
        ApiCall::Audit(_) => (Admin, Whole, false),
        ApiCall::OperatorList => (Viewer, Whole, false),
        ApiCall::Group(bus_schema::api::GroupCall::List) => (Viewer, Narrow, false),
        ApiCall::Group(_) => (Operator, Whole, true),
        ApiCall::OperatorRevoke(_) => (Admin, Whole, true),
        ApiCall::Pairing(call) => {
            let changes = !matches!(call, bus_schema::pairing::PairingCall::List);
            (Operator, Whole, changes)
        }
        ApiCall::Ledger => (Viewer, Narrow, false),
        ApiCall::Components => (Viewer, Free, false),
        ApiCall::Carriers => (Viewer, Narrow, false),
        ApiCall::AccessList(_) | ApiCall::AccessListOf { .. } => (Viewer, Whole, false),
        // Holds the group key: no page ever gets it, see `http`.
        ApiCall::Roster => (Admin, Whole, false),
        ApiCall::DaemonSelect(_) => (Viewer, Narrow, false),
        ApiCall::DaemonLabels(_) => (Viewer, Narrow, false),
        // Labels are what scopes are made of: who has one could leave it.
        ApiCall::DaemonLabel { .. } => (Operator, Whole, true),
        ApiCall::WorkflowRevisions(_) => (Viewer, Narrow, false),
        ApiCall::WorkflowText { .. } => (Viewer, Narrow, false),
        ApiCall::TokenList => (Operator, Whole, false),
        ApiCall::TokenRevoke(_) => (Operator, Whole, true),
        ApiCall::WorkflowDiff { .. } => (Viewer, Narrow, false),
        // Only members of the bus have a use for it.
        ApiCall::Certificate(_) => (Admin, Whole, false),
        ApiCall::RolloutStart { .. } => (Operator, Narrow, true),
        ApiCall::RolloutList => (Viewer, Narrow, false),
        ApiCall::RolloutShow(_) => (Viewer, Narrow, false),
        ApiCall::RolloutTell { .. } => (Operator, Narrow, true),
        ApiCall::Deploy { .. } | ApiCall::RolloutBegin { .. } => (Operator, Narrow, true),
        ApiCall::WorkflowHistory(_) => (Viewer, Narrow, false),
        ApiCall::TokenMint { .. } => (Operator, Whole, true),
        ApiCall::TokenLabels => (Operator, Whole, false),
        ApiCall::Nodes(_) | ApiCall::Notes(_) => (Viewer, Narrow, false),
    };
    (Need::Rank(rank, reach), changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may() {
        let scoped = Caller {
            scope: Some(Selector::parse("site=berlin").unwrap()),
            ..Caller::whole("s", Rank::Admin, "x")
        };
        for need in [Rank::Viewer, Rank::Operator, Rank::Admin] {
            for has in Rank::ALL {
                let caller = Caller::whole("c", has, "x");
                for reach in [Reach::Free, Reach::Narrow, Reach::Whole] {
                    let judged = Need::Rank(need, reach).judge(Some(&caller));
                    assert_eq!(judged.is_ok(), has >= need, "{has:?} {need:?} {reach:?}");
                }
            }
            assert_eq!(Need::Rank(need, Reach::Free).judge(None), Err(Denied::Unknown));
            assert_eq!(Need::Rank(need, Reach::Whole).judge(Some(&scoped)), Err(Denied::Scope));
            assert_eq!(Need::Rank(need, Reach::Narrow).judge(Some(&scoped)), Ok(()));
        }
        assert_eq!(Need::Open.judge(None), Ok(()));
    }
}
