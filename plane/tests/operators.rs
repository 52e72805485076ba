//! Operators that are taken out of the fleet: the plane does not answer them any more, and no daemon believes them.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

mod common;

use std::time::Duration;

use bus_schema::{
    api::{ApiCall, ApiResult, FailureKind, GroupCall},
    member::Role,
    observe::{AlertRule, ObserveCall, built_in_rules},
    rollout::{RolloutCommand, RolloutPolicy},
};
use common::{Plane, wait_for};

/// How long nobody must answer.
const SILENCE: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_revoked_operator_is_refused_by_plane_and_daemons() {
    let plane = Plane::start().await;
    let mut anna = plane.member(Role::Operator, 9, "anna").await;
    let mut bert = plane.member(Role::Operator, 8, "bert").await;
    anna.up().await;
    bert.up().await;
    let mut gw = plane.member(Role::Daemon, 1, "gw").await;
    gw.announce(&anna).await;
    let bert_is = *bert.session.secure().node();
    assert!(gw.session.secure().member(&bert_is).is_some());
    let ApiResult::Operators(all) = bert.call(ApiCall::OperatorList).await else {
        panic!("operators")
    };
    let names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["anna", "bert"]);
    // What is no operator is not revoked as one, and no operator as a daemon.
    let gw_is = *gw.session.secure().node();
    for call in [ApiCall::OperatorRevoke(gw_is), ApiCall::DaemonRevoke(bert_is)] {
        let result = anna.call(call).await;
        assert!(
            matches!(&result, ApiResult::Failed(failure) if failure.kind == FailureKind::NotFound),
            "{result:?}"
        );
    }
    let browser = plane.browser().await;
    assert_eq!(browser.delete("/api/v1/operators/nobody").await.status, 404);
    assert_eq!(browser.delete("/api/v1/operators/bert").await.status, 204);
    gw.behave(|daemon| daemon.session.secure().member(&bert_is).is_none())
        .await;
    let asked = bert
        .session
        .request::<ApiCall, ApiResult>(&bert.membership.plane, &ApiCall::Info, SILENCE)
        .await;
    assert!(asked.is_err(), "{asked:?}");
    let ApiResult::Operators(left) = anna.call(ApiCall::OperatorList).await else {
        panic!("operators")
    };
    assert_eq!(left.len(), 1);
    wait_for("the audit to say so", async || {
        let audit = browser.get("/api/v1/audit?search=revoke").await.body;
        audit.contains("revoke an operator").then_some(())
    })
    .await;
}

#[tokio::test]
async fn groups_stand_wherever_a_selector_stands() {
    let plane = Plane::start().await;
    let mut anna = plane.member(Role::Operator, 9, "anna").await;
    anna.up().await;
    for (n, name) in [(1, "gw-1"), (2, "gw-2"), (3, "hub")] {
        plane.member(Role::Daemon, n, name).await.announce(&anna).await;
    }
    let browser = plane.browser().await;
    let put = |selector: &str| serde_json::json!({ "selector": selector });
    assert_eq!(
        browser.put("/api/v1/groups/gateways", put("name:gw-*")).await.status,
        200
    );
    assert_eq!(
        browser.put("/api/v1/groups/more", put("group:gateways")).await.status,
        400
    );
    let list = browser.get("/api/v1/groups").await.json();
    assert_eq!(
        list["items"],
        serde_json::json!([{ "name": "gateways", "selector": "name:gw-*", "daemons": 2 }])
    );
    let chosen = async |selector: &str| match anna.call(ApiCall::DaemonSelect(selector.into())).await {
        ApiResult::Daemons(daemons) => Ok(daemons
            .into_iter()
            .map(|daemon| daemon.name)
            .collect::<Vec<_>>()
            .join(" ")),
        ApiResult::Failed(failure) => Err(failure.message),
        other => panic!("{other:?}"),
    };
    assert_eq!(chosen("group:gateways").await.as_deref(), Ok("gw-1 gw-2"));
    assert_eq!(chosen("-group:gateways").await.as_deref(), Ok("hub"));
    assert_eq!(chosen("group:gateways name:*-2").await.as_deref(), Ok("gw-2"));
    let unknown = chosen("group:none").await.unwrap_err();
    assert!(unknown.contains("no group 'none'"), "{unknown}");
    // As the place of a workflow's nodes.
    let text = common::text("shop", "group:gateways", "hub", "p");
    let ApiResult::Diff(diff) = anna.call(ApiCall::WorkflowDiff { text }).await else {
        panic!("a diff")
    };
    let on: Vec<&str> = diff.daemons.iter().map(|daemon| daemon.daemon.as_str()).collect();
    assert_eq!(on, ["gw-1", "gw-2", "hub"]);
    // It is not forgotten while something stands on it.
    let text = common::text("shop", "group:gateways", "hub", "p");
    let apply = ApiCall::WorkflowApply {
        text,
        expect_revision: None,
    };
    assert_eq!(anna.call(apply).await, ApiResult::Revision(1));
    let rule = AlertRule {
        name: "far".into(),
        select: "group:gateways".into(),
        ..built_in_rules().remove(0)
    };
    let rules = |rules| ApiCall::Observe(ObserveCall::PutRules(rules));
    let taken = anna.call(rules(vec![rule])).await;
    assert!(matches!(taken, ApiResult::Observe(_)), "{taken:?}");
    let removed = browser.delete("/api/v1/groups/gateways").await;
    let said = removed.json()["detail"].to_string();
    assert_eq!(removed.status, 409, "{said}");
    assert!(said.contains("alert rule 'far'; workflow 'shop'"), "{said}");
    assert_eq!(chosen("group:gateways").await.as_deref(), Ok("gw-1 gw-2"));
    anna.call(rules(Vec::new())).await;
    let ApiResult::Failed(failure) = anna.call(ApiCall::Group(GroupCall::Remove("gateways".into()))).await else {
        panic!("a workflow names it")
    };
    assert_eq!(failure.kind, FailureKind::Conflict);
    assert!(failure.message.contains("in use by workflow 'shop'"), "{failure:?}");
    anna.call(ApiCall::WorkflowDelete("shop".into())).await;
    assert_eq!(browser.delete("/api/v1/groups/gateways").await.status, 204);
    assert_eq!(browser.delete("/api/v1/groups/gateways").await.status, 404);
}

#[tokio::test]
async fn no_text_with_a_secret_comes_in() {
    let plane = Plane::start().await;
    let mut anna = plane.member(Role::Operator, 9, "anna").await;
    anna.up().await;
    let mut gw = plane.member(Role::Daemon, 1, "gw").await;
    gw.announce(&anna).await;
    let text = |token: &str| format!("{}token = {token}\n", common::text("shop", "gw", "gw", "p"));
    let (plain, kept) = (text("\"hunter2\""), text("{ secret = \"shop\" }"));
    let apply = |text: &str, expect_revision| ApiCall::WorkflowApply {
        text: text.to_string(),
        expect_revision,
    };
    let calls = [
        apply(&plain, None),
        ApiCall::WorkflowDiff { text: plain.clone() },
        ApiCall::RolloutStart {
            text: plain.clone(),
            expect_revision: None,
            policy: RolloutPolicy::default(),
        },
        ApiCall::WorkflowValidate { text: plain.clone() },
    ];
    for call in calls {
        let problems = match anna.call(call.clone()).await {
            ApiResult::Failed(failure) => failure.problems,
            ApiResult::Problems(problems) => problems,
            other => panic!("{call:?}: {other:?}"),
        };
        let places: Vec<_> = problems.iter().map(|problem| problem.place.as_str()).collect();
        assert_eq!(places, ["destinations.shop.token"], "{call:?}");
    }
    assert_eq!(anna.call(apply(&kept, Some(0))).await, ApiResult::Revision(1));
    let stays = anna.call(ApiCall::WorkflowValidate { text: kept.clone() }).await;
    assert_eq!(stays, ApiResult::Problems(Vec::new()));
}

#[tokio::test]
async fn how_long_records_may_wait_comes_with_a_rollout() {
    let plane = Plane::start().await;
    let mut anna = plane.member(Role::Operator, 9, "anna").await;
    anna.up().await;
    let mut gw = plane.member(Role::Daemon, 1, "gw").await;
    gw.announce(&anna).await;
    let browser = plane.browser().await;
    for (path, lag_s_max) in [("p", 60), ("q", 0)] {
        let begin = ApiCall::RolloutBegin {
            text: common::text("shop", "gw", "gw", path),
            expect_revision: None,
            reason: String::new(),
            policy: RolloutPolicy::default(),
            lag_s_max,
        };
        let begun = match anna.call(begin).await {
            ApiResult::Rollouts(begun) => begun,
            other => panic!("{other:?}"),
        };
        // The layout of the bus is fixed: what came later is on the page alone.
        let shown = browser.get(&format!("/api/v1/rollouts/{}", begun[0].id)).await.json();
        assert_eq!(shown["policy"]["lag_s_max"], lag_s_max, "{shown}");
        let abort = ApiCall::RolloutTell {
            id: begun[0].id,
            command: RolloutCommand::Abort,
            reason: String::new(),
        };
        let ended = anna.call(abort).await;
        assert!(matches!(ended, ApiResult::Rollouts(_)), "{ended:?}");
    }
}
