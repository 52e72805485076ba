//! The audit of a running plane: what is done and what is refused stands in it, secrets do not, and whoever alters it is found out.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

mod common;

use std::time::Duration;

use bus_link::session::SessionEvent;
use bus_schema::{
    api::{ApiCall, ApiResult},
    audit::{AuditCall, AuditHead, AuditOutcome, AuditWish},
    member::Role,
    message::{Message, PlanPut, RecallAsk, RecallPage},
    observe::{AlertRule, ObserveCall, ObserveResult, built_in_rules},
    pairing::PairingCall,
};
use common::{Browser, Member, Plane, SOON, text};
use serde_json::{Value, json};

const PASSWORD: &str = "correct horse battery";

async fn entries(browser: &Browser, query: &str) -> Vec<Value> {
    let answer = browser.get(&format!("/api/v1/audit{query}")).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["items"].as_array().unwrap().clone()
}

fn said(entry: &Value) -> String {
    let event = &entry["event"];
    let text = |key: &str| event[key].as_str().unwrap().to_string();
    format!("{} {} {}", text("who"), text("action"), text("outcome"))
}

#[tokio::test]
async fn what_is_done_and_what_is_refused() {
    let plane = Plane::start().await;
    let mut operator = plane.member(Role::Operator, 50, "olga").await;
    operator.up().await;
    let mut daemon = plane.member(Role::Daemon, 51, "gateway").await;
    daemon.up().await;
    let owner = plane.browser().await;
    let user = json!({ "name": "vera", "role": "viewer", "password": PASSWORD });
    assert_eq!(owner.post("/api/v1/users", user).await.status, 204);
    let mut viewer = Browser {
        http: plane.http.clone(),
        cookie: None,
    };
    for (password, status) in [("wrong password", 401), (PASSWORD, 204)] {
        let body = json!({ "name": "vera", "password": password });
        let answer = viewer.post("/api/v1/session", body).await;
        assert_eq!(answer.status, status);
        let cookie = answer.headers.get("set-cookie");
        viewer.cookie = cookie.and_then(|cookie| cookie.split(';').next()).map(str::to_string);
    }
    assert_eq!(viewer.delete("/api/v1/workflows/orders").await.status, 403);
    // A password in the place of the name is not kept.
    let wrong = json!({ "name": "hunter2-hunter2", "password": "x" });
    assert_eq!(viewer.post("/api/v1/session", wrong).await.status, 401);
    let invited = owner.post("/api/v1/tokens", json!({ "role": "daemon" })).await.json();
    let missing = operator.call(ApiCall::WorkflowDelete("orders".into())).await;
    assert!(matches!(missing, ApiResult::Failed(_)));
    let refused = daemon.call(ApiCall::WorkflowDelete("orders".into())).await;
    assert!(matches!(refused, ApiResult::Failed(_)));

    let all = entries(&owner, "").await;
    let lines: Vec<String> = all.iter().map(said).collect();
    for expected in [
        "olga enrol done",
        "gateway enrol done",
        "owner log in to the page done",
        "owner add a user done",
        "vera log in to the page refused",
        "vera log in to the page done",
        "vera ask the web API refused",
        "owner make an enrolment string done",
        "olga delete a workflow failed",
        "gateway delete a workflow refused",
    ] {
        assert!(lines.iter().any(|line| line == expected), "{expected} in {lines:#?}");
    }
    let text = Value::Array(all.clone()).to_string();
    let invitation = invited["invitation"].as_str().unwrap();
    for secret in [PASSWORD, "wrong password", "hunter2", "argon2", invitation] {
        assert!(!text.contains(secret), "{secret}");
    }
    let from = all.iter().find(|entry| said(entry).starts_with("vera ask")).unwrap();
    assert!(
        from["event"]["from"].as_str().unwrap().starts_with("127.0.0.1:"),
        "{from}"
    );

    // Searched, page by page, by those who may.
    let search = entries(&owner, "?by=vera&search=web%20api").await;
    assert_eq!(search.len(), 1, "{search:?}");
    let first = owner.get("/api/v1/audit?limit=2").await.json();
    let next = first["next"].as_str().unwrap();
    let second = entries(&owner, &format!("?limit=2&cursor={next}")).await;
    let number = |entry: &Value| entry["number"].as_u64().unwrap();
    assert_eq!(number(&second[0]) + 1, number(&first["items"][1]));
    for (browser, status) in [(&owner, 200), (&viewer, 403)] {
        for path in ["/api/v1/audit", "/api/v1/audit/verify"] {
            assert_eq!(browser.get(path).await.status, status, "{path}");
        }
    }

    // Over the bus, with what is needed to check the chain.
    let ApiResult::Audit(page) = operator.call(ApiCall::Audit(AuditCall::Chain { after: 0 })).await else {
        panic!("no audit");
    };
    let mut from = AuditHead::default();
    page.entries.iter().try_for_each(|entry| from.take(entry)).unwrap();
    from.ends(&page.head).unwrap();
    let wish = AuditWish {
        by: "olga".into(),
        ..AuditWish::default()
    };
    let call = AuditCall::Search {
        before: 0,
        most: 1,
        wish,
    };
    let ApiResult::Audit(page) = operator.call(ApiCall::Audit(call)).await else {
        panic!("no audit");
    };
    assert_eq!(page.entries[0].event.action, "delete a workflow");
}

#[tokio::test]
async fn whoever_alters_the_file_is_found_out() {
    let mut plane = Plane::start().await;
    let browser = plane.browser().await;
    for n in 0..4 {
        let user = json!({ "name": format!("user-{n}"), "role": "viewer", "password": PASSWORD });
        assert_eq!(browser.post("/api/v1/users", user).await.status, 204);
    }
    let verified = browser.get("/api/v1/audit/verify").await.json();
    assert_eq!(
        (&verified["holds"], &verified["first"], &verified["fault"]),
        (&json!(true), &json!(1), &json!(""))
    );
    let last = verified["last"].as_i64().unwrap();
    assert!(last >= 5, "{verified}");
    let change = "UPDATE audit SET what = 'user-9' WHERE number =";
    let there = "UPDATE audit SET what = (SELECT what FROM kept) WHERE number =";
    for (sql, fault) in [
        (
            format!("CREATE TABLE kept AS SELECT what FROM audit WHERE number = {last}; {change} {last}"),
            "altered",
        ),
        (format!("{there} {last}; DROP TABLE kept"), ""),
        (format!("DELETE FROM audit WHERE number = {last}"), "should be"),
        (format!("DELETE FROM audit WHERE number = {}", last - 2), "removed"),
    ] {
        plane.stop().await;
        let db = rusqlite::Connection::open(plane.dir.path().join("plane.db")).unwrap();
        db.execute_batch(&sql).unwrap();
        drop(db);
        plane.start_again().await;
        // Nothing is written by this: the session is an old one.
        let browser = Browser {
            http: plane.http.clone(),
            ..browser.clone()
        };
        let verified = browser.get("/api/v1/audit/verify").await.json();
        assert_eq!(verified["holds"], json!(fault.is_empty()), "{sql}: {verified}");
        assert!(verified["fault"].as_str().unwrap().contains(fault), "{sql}: {verified}");
    }
}

/// Beats until the plane sends a message of this kind.
async fn sent<M: Message>(daemon: &mut Member, plan_version: u64) -> M {
    let deadline = tokio::time::Instant::now() + SOON;
    while tokio::time::Instant::now() < deadline {
        daemon.status.uptime_ms += 1;
        daemon.status.plan_version = plan_version;
        let (status, plane) = (daemon.status.clone(), daemon.membership.plane);
        // Not connected yet after the plane's restart.
        let _ = daemon.session.send(&plane, &status).await;
        while let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(300), daemon.events.recv()).await {
            if let SessionEvent::Message(message) = event
                && let Ok(found) = message.read::<M>()
            {
                return found;
            }
        }
    }
    panic!("the plane did not send it in time")
}

#[tokio::test]
async fn what_a_daemon_gives_back_stands_in_it() {
    let mut plane = Plane::start().await;
    let mut operator = plane.member(Role::Operator, 50, "olga").await;
    operator.up().await;
    let mut gw = plane.member(Role::Daemon, 51, "gw").await;
    gw.announce(&operator).await;
    let applied = operator.call(ApiCall::WorkflowApply {
        text: text("orders", "gw", "gw", "p"),
        expect_revision: None,
    });
    assert!(matches!(applied.await, ApiResult::Revision(1)));
    let PlanPut { plan } = sent(&mut gw, 0).await;
    plane.stop().await;
    for file in ["plane.db", "plane.db-wal", "plane.db-shm"] {
        let _gone = std::fs::remove_file(plane.dir.path().join(file));
    }
    plane.start_again().await;

    let RecallAsk { .. } = sent(&mut gw, 1).await;
    let page = RecallPage {
        roster: Some(gw.membership.roster.clone()),
        plan: Some(plan),
    };
    // Said twice, it is learnt once.
    for _ in 0..2 {
        gw.session.send(&gw.membership.plane, &page).await.unwrap();
    }
    let search = async || {
        let wish = AuditWish {
            search: "give back".into(),
            ..AuditWish::default()
        };
        let call = AuditCall::Search {
            before: 0,
            most: 10,
            wish,
        };
        match operator.call(ApiCall::Audit(call)).await {
            ApiResult::Audit(page) => page.entries,
            other => panic!("{other:?}"),
        }
    };
    let entries = common::wait_for("the entry", async || {
        let entries = search().await;
        (!entries.is_empty()).then_some(entries)
    })
    .await;
    let ApiResult::Workflows(workflows) = operator.call(ApiCall::WorkflowList).await else {
        panic!("workflows")
    };
    assert_eq!(workflows.len(), 1, "what was lost is there again");
    let event = &entries[0].event;
    assert_eq!(
        (
            event.who.as_str(),
            event.from.as_str(),
            event.action.as_str(),
            event.what.as_str()
        ),
        ("gw", "bus", "give back what the plane had lost", "0 members, 1 plans")
    );
    assert_eq!(search().await.len(), 1, "{entries:?}");
}

#[tokio::test]
async fn nothing_changes_whose_entry_cannot_be_written() {
    let mut plane = Plane::start().await;
    let mut olga = plane.member(Role::Operator, 50, "olga").await;
    olga.up().await;
    let ben = plane.member(Role::Operator, 52, "ben").await;
    let mut gw = plane.member(Role::Daemon, 51, "gw").await;
    gw.announce(&olga).await;
    let token = plane.invitation(Role::Daemon, None, 1).token;
    let [gw_is, ben_is] = [&gw, &ben].map(|member| *member.session.secure().node());
    let rules = vec![AlertRule {
        name: "mine".into(),
        ..built_in_rules().remove(0)
    }];
    let calls = [
        (ApiCall::TokenRevoke(token), "revoke an enrolment string"),
        (
            ApiCall::Pairing(PairingCall::Open { ttl_s: 60 }),
            "let daemons wait without a token",
        ),
        (
            ApiCall::Pairing(PairingCall::Close),
            "let no daemon wait without a token",
        ),
        (ApiCall::Observe(ObserveCall::PutRules(rules)), "change the alert rules"),
        (ApiCall::OperatorRevoke(ben_is), "revoke an operator"),
        (ApiCall::DaemonRevoke(gw_is), "revoke a daemon"),
    ];
    let path = plane.dir.path().join("plane.db");
    let head = {
        let db = rusqlite::Connection::open(&path).unwrap();
        let sql = "SELECT value FROM settings WHERE key = 'audit_head'";
        let head: Vec<u8> = db.query_row(sql, [], |row| row.get(0)).unwrap();
        head
    };
    let set_head = |bytes: &[u8]| {
        let db = rusqlite::Connection::open(&path).unwrap();
        let sql = "UPDATE settings SET value = ?1 WHERE key = 'audit_head'";
        assert_eq!(db.execute(sql, [bytes]).unwrap(), 1);
    };
    set_head(b"no head of a chain, whatever reads it");
    for (call, action) in &calls {
        let answer = olga.call(call.clone()).await;
        assert!(matches!(answer, ApiResult::Failed(_)), "{action}: {answer:?}");
    }
    // Not on the disk beside the store either.
    for is_again in [false, true] {
        if is_again {
            plane.stop().await;
            plane.start_again().await;
        }
        let ApiResult::Tokens(tokens) = olga.call(ApiCall::TokenList).await else {
            panic!("tokens")
        };
        let of_daemons: Vec<_> = tokens.iter().filter(|one| one.role == Role::Daemon).collect();
        assert!(matches!(of_daemons[..], [one] if one.id == token), "{tokens:?}");
        let ApiResult::Operators(operators) = olga.call(ApiCall::OperatorList).await else {
            panic!("operators")
        };
        assert_eq!(operators.len(), 2, "{operators:?}");
        let shown = olga.call(ApiCall::DaemonShow("gw".into())).await;
        assert!(matches!(shown, ApiResult::Daemon(_)), "{shown:?}");
        let ApiResult::Observe(ObserveResult::Rules(rules)) = olga.call(ApiCall::Observe(ObserveCall::Rules)).await
        else {
            panic!("rules")
        };
        assert!(rules.iter().all(|rule| rule.name != "mine"), "{rules:?}");
    }
    // Each has one entry once there can be one.
    set_head(&head);
    for (call, action) in calls {
        let answer = olga.call(call).await;
        assert!(!matches!(answer, ApiResult::Failed(_)), "{action}: {answer:?}");
        let wish = AuditWish {
            search: action.into(),
            ..AuditWish::default()
        };
        let call = AuditCall::Search {
            before: 0,
            most: 10,
            wish,
        };
        let ApiResult::Audit(page) = olga.call(ApiCall::Audit(call)).await else {
            panic!("audit")
        };
        let events: Vec<_> = page.entries.iter().map(|entry| &entry.event).collect();
        let [event] = &events[..] else {
            panic!("{action}: {events:?}")
        };
        assert_eq!((event.who.as_str(), event.outcome), ("olga", AuditOutcome::Done));
    }
}

#[tokio::test]
async fn a_revocation_that_the_store_has_missed_stands_in_it_when_it_is_made_up_for() {
    let mut plane = Plane::start().await;
    let mut olga = plane.member(Role::Operator, 50, "olga").await;
    olga.up().await;
    let gw = plane.member(Role::Daemon, 51, "gw").await;
    let gw_is = *gw.session.secure().node();
    let path = plane.dir.path().join("plane.db");
    plane.stop().await;
    let before = std::fs::read(&path).unwrap();
    plane.start_again().await;
    let revoked = olga.call(ApiCall::DaemonRevoke(gw_is)).await;
    assert_eq!(revoked, ApiResult::Revoked("gw".into()));
    plane.stop().await;
    // As if the disk had been full then: the roster beside the keys knows of it, the store does not.
    std::fs::write(&path, before).unwrap();
    for file in ["plane.db-wal", "plane.db-shm"] {
        let _gone = std::fs::remove_file(plane.dir.path().join(file));
    }
    for _ in 0..2 {
        plane.start_again().await;
        plane.stop().await;
    }
    let db = rusqlite::Connection::open(&path).unwrap();
    let members: i64 = db
        .query_row(
            "SELECT count(*) FROM members WHERE node = ?1",
            [gw_is.as_str()],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(members, 0);
    let sql = "SELECT who || ' ' || what FROM audit WHERE action LIKE 'take out whom%'";
    let mut found = db.prepare(sql).unwrap();
    let said: Vec<String> = found
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(said, [format!("plane {gw_is}")], "once");
}
