//! The table of the bus, walked: every call an operator can make, by every role a member can have, against a running plane; and by
//! every rank, as the web page's users have them.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

mod common;

use bus_schema::{
    api::{ApiCall, ApiResult, BrokerKind, FailureKind, GroupCall},
    audit::{AuditCall, AuditWish},
    id::{NodeId, TokenId},
    member::Role,
    observe::ObserveCall,
    pairing::PairingCall,
    rollout::{RolloutCommand, RolloutPolicy},
};
use common::Plane;
use plane::{
    domain::labels::Selector,
    permission::{Caller, Need, Rank, Reach, of_call},
};

/// One of each: a call that is new does not compile until it stands here.
macro_rules! each {
    ($($pattern:pat => $call:expr,)*) => {{
        fn known(call: &ApiCall) {
            match call { $($pattern => {})* }
        }
        let all = vec![$($call,)*];
        all.iter().for_each(known);
        all
    }};
}

fn calls() -> Vec<ApiCall> {
    let nobody = NodeId::from_hash(&[77; 32]);
    let none = || "none".to_string();
    let text = || "name = 'x'".to_string();
    let mut all = each! {
        ApiCall::Info => ApiCall::Info,
        ApiCall::TokenCreate { .. } => ApiCall::TokenCreate { role: Role::Daemon, name: None, uses: 1, ttl_s: 60 },
        ApiCall::DaemonList => ApiCall::DaemonList,
        ApiCall::DaemonShow(_) => ApiCall::DaemonShow(none()),
        ApiCall::WorkflowValidate { .. } => ApiCall::WorkflowValidate { text: text() },
        ApiCall::WorkflowApply { .. } => ApiCall::WorkflowApply { text: text(), expect_revision: None },
        ApiCall::WorkflowList => ApiCall::WorkflowList,
        ApiCall::WorkflowShow(_) => ApiCall::WorkflowShow(none()),
        ApiCall::WorkflowDelete(_) => ApiCall::WorkflowDelete(none()),
        ApiCall::WorkflowStatus(_) => ApiCall::WorkflowStatus(none()),
        ApiCall::Ledger => ApiCall::Ledger,
        ApiCall::Components => ApiCall::Components,
        ApiCall::Carriers => ApiCall::Carriers,
        ApiCall::AccessList(_) => ApiCall::AccessList(BrokerKind::Nats),
        ApiCall::AccessListOf { .. } => ApiCall::AccessListOf { broker: BrokerKind::Nats, member: none() },
        ApiCall::Roster => ApiCall::Roster,
        ApiCall::DaemonSelect(_) => ApiCall::DaemonSelect(String::new()),
        ApiCall::DaemonLabels(_) => ApiCall::DaemonLabels(String::new()),
        ApiCall::DaemonLabel { .. } => ApiCall::DaemonLabel { selector: "a=b".into(), set: Vec::new(), unset: Vec::new() },
        ApiCall::WorkflowRevisions(_) => ApiCall::WorkflowRevisions(none()),
        ApiCall::WorkflowText { .. } => ApiCall::WorkflowText { name: none(), revision: 1 },
        ApiCall::TokenList => ApiCall::TokenList,
        ApiCall::TokenRevoke(_) => ApiCall::TokenRevoke(TokenId::from_hash(&[77; 32])),
        ApiCall::WorkflowDiff { .. } => ApiCall::WorkflowDiff { text: text() },
        ApiCall::Certificate(_) => ApiCall::Certificate(none()),
        ApiCall::RolloutStart { .. } => ApiCall::RolloutStart {
            text: text(),
            expect_revision: None,
            policy: RolloutPolicy::default(),
        },
        ApiCall::RolloutList => ApiCall::RolloutList,
        ApiCall::RolloutShow(_) => ApiCall::RolloutShow(77),
        ApiCall::RolloutTell { .. } => ApiCall::RolloutTell { id: 77, command: RolloutCommand::Abort, reason: none() },
        ApiCall::Observe(_) => ApiCall::Observe(ObserveCall::Alerts),
        ApiCall::DaemonRevoke(_) => ApiCall::DaemonRevoke(nobody),
        ApiCall::Audit(_) => ApiCall::Audit(AuditCall::Search { before: 0, most: 1, wish: AuditWish::default() }),
        ApiCall::Pairing(_) => ApiCall::Pairing(PairingCall::List),
        ApiCall::OperatorList => ApiCall::OperatorList,
        ApiCall::OperatorRevoke(_) => ApiCall::OperatorRevoke(nobody),
        ApiCall::Group(_) => ApiCall::Group(GroupCall::List),
        ApiCall::Deploy { .. } => ApiCall::Deploy {
            text: text(),
            expect_revision: None,
            reason: none(),
            waves: None,
        },
        ApiCall::WorkflowHistory(_) => ApiCall::WorkflowHistory(none()),
        ApiCall::TokenMint { .. } => ApiCall::TokenMint { name: None, uses: 1, ttl_s: 60, labels: Default::default() },
        ApiCall::TokenLabels => ApiCall::TokenLabels,
        ApiCall::Nodes(_) => ApiCall::Nodes(None),
        ApiCall::Notes(_) => ApiCall::Notes(None),
        ApiCall::WorkflowRemove { .. } => ApiCall::WorkflowRemove { name: none(), expect_revision: Some(1) },
        ApiCall::RolloutBegin { .. } => ApiCall::RolloutBegin {
            text: text(),
            expect_revision: None,
            reason: none(),
            policy: RolloutPolicy::default(),
            lag_s_max: 600,
        },
    };
    // What is asked for within them.
    all.extend([
        ApiCall::TokenCreate {
            role: Role::Operator,
            name: None,
            uses: 1,
            ttl_s: 60,
        },
        ApiCall::Observe(ObserveCall::Rules),
        ApiCall::Observe(ObserveCall::PutRules(Vec::new())),
        ApiCall::Observe(ObserveCall::Silence {
            id: none(),
            for_s: 0,
            reason: String::new(),
        }),
        ApiCall::Observe(ObserveCall::Test { channel: none() }),
        ApiCall::Pairing(PairingCall::Open { ttl_s: 1 }),
        ApiCall::Pairing(PairingCall::Close),
        ApiCall::Pairing(PairingCall::Approve {
            code: none(),
            name: None,
        }),
        ApiCall::Pairing(PairingCall::Reject { code: none() }),
        ApiCall::Group(GroupCall::Put {
            name: "g".into(),
            selector: "a=b".into(),
        }),
        ApiCall::Group(GroupCall::Remove("g".into())),
    ]);
    all
}

#[tokio::test]
async fn only_operators_are_answered() {
    let plane = Plane::start().await;
    let mut operator = plane.member(Role::Operator, 9, "anna").await;
    let mut daemon = plane.member(Role::Daemon, 1, "gw").await;
    operator.up().await;
    daemon.up().await;
    for call in calls() {
        for (role, caller) in [(Role::Operator, &operator), (Role::Daemon, &daemon)] {
            let result = caller.call(call.clone()).await;
            let is_refused = matches!(&result, ApiResult::Failed(failure) if failure.kind == FailureKind::Forbidden);
            assert_eq!(is_refused, role != Role::Operator, "{call:?} by a {role}: {result:?}");
        }
    }
}

#[test]
fn ranks_and_scopes() {
    let scoped = |rank| Caller {
        scope: Some(Selector::parse("site=berlin").unwrap()),
        ..Caller::whole("s", rank, "x")
    };
    let mut counts = [0; 2];
    for call in calls() {
        let (need, changes) = of_call(&call);
        let Need::Rank(least, reach) = need else {
            panic!("{call:?} is for nobody in particular")
        };
        for rank in Rank::ALL {
            let may = need.judge(Some(&Caller::whole("c", rank, "x"))).is_ok();
            assert_eq!(may, rank >= least, "{call:?} by {rank:?}");
            counts[usize::from(may)] += 1;
            let may = need.judge(Some(&scoped(rank))).is_ok();
            assert_eq!(
                may,
                rank >= least && reach != Reach::Whole,
                "{call:?} by {rank:?} with a scope"
            );
        }
        assert!(
            !changes || least > Rank::Viewer,
            "{call:?} changes something, and a viewer may"
        );
        assert!(need.judge(None).is_err(), "{call:?} by a stranger");
    }
    assert!(counts.iter().all(|count| *count > 10), "{counts:?}");
}

#[test]
fn nobody_enrols_somebody_who_may_more() {
    let string = |role| ApiCall::TokenCreate {
        role,
        name: None,
        uses: 1,
        ttl_s: 60,
    };
    for (role, least) in [
        (Role::Daemon, Rank::Operator),
        (Role::Operator, Caller::of_bus("anna").rank),
        (Role::Plane, Rank::Admin),
    ] {
        let (need, changes) = of_call(&string(role));
        assert_eq!((need, changes), (Need::Rank(least, Reach::Whole), true), "{role}");
    }
}
