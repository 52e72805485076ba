//! Long lists come in pages: one after the other they are the whole list, in its order. Against a running plane.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

mod common;

use bus_schema::member::Role;
use common::{Browser, Plane, text, wait_for};
use serde_json::{Value, json};

async fn items(browser: &Browser, path: &str) -> (Vec<Value>, Value) {
    let answer = browser.get(path).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    let page = answer.json();
    (page["items"].as_array().unwrap().clone(), page["next"].clone())
}

/// What tells an item from the others, whatever it says of the moment.
fn name(item: &Value) -> String {
    let keys = ["id", "name", "workflow", "edge", "producer", "consumer"];
    keys.map(|key| item[key].to_string()).join(" ")
}

#[tokio::test]
async fn pages_are_the_list() {
    let plane = Plane::start().await;
    let mut operator = plane.member(Role::Operator, 50, "olga").await;
    operator.up().await;
    let owner = plane.browser().await;
    let mut members = Vec::new();
    for (n, name) in [(51, "gw-1"), (52, "gw-2"), (53, "gw-3")] {
        let mut member = plane.member(Role::Daemon, n, name).await;
        member.up().await;
        member.announce(&operator).await;
        members.push(member);
    }
    let rule = json!({ "name": "plan-stuck", "when": "plan_stuck", "over": 0, "for_s": 0, "severity": "info",
        "select": "", "workflow": "", "notify": [], "enabled": true });
    assert_eq!(
        owner
            .put("/api/v1/alerts/rules", json!({ "rules": [rule] }))
            .await
            .status,
        200
    );
    for (n, name) in ["a", "b", "c"].into_iter().enumerate() {
        let (from, to) = (format!("gw-{}", n + 1), format!("gw-{}", (n + 1) % 3 + 1));
        let text = text(name, &from, &to, "x");
        let made = [
            (
                "/api/v1/users",
                json!({ "name": name, "role": "viewer", "password": "correct horse battery" }),
            ),
            (
                "/api/v1/api-tokens",
                json!({ "name": name, "role": "viewer", "ttl_s": 600 }),
            ),
            (
                "/api/v1/tokens",
                json!({ "role": "daemon", "name": format!("new-{name}") }),
            ),
            ("/api/v1/rollouts", json!({ "text": text })),
            (
                "/api/v1/daemons/commands",
                json!({ "selector": "name:gw-*", "command": { "kind": "ping" }, "deadline_s": 1 }),
            ),
        ];
        for (path, body) in made {
            let body = body.to_string();
            let answer = owner.send("POST", path, &[("if-none-match", "*")], Some(&body)).await;
            assert!(matches!(answer.status, 200 | 204), "{path}: {}", answer.body);
        }
        let path = format!("/api/v1/drafts/{name}");
        assert_eq!(owner.put(&path, json!({ "text": "", "layout": {} })).await.status, 200);
    }
    // What was deployed is not reported by anybody: an alert for each daemon.
    wait_for("alerts about all", async || {
        let (all, _) = items(&owner, "/api/v1/alerts").await;
        (all.len() >= 3).then_some(())
    })
    .await;
    for list in [
        "users",
        "api-tokens",
        "tokens",
        "rollouts",
        "drafts",
        "alerts",
        "commands",
        "ledger",
    ] {
        let path = format!("/api/v1/{list}");
        let (all, next) = items(&owner, &path).await;
        assert!(all.len() >= 3 && next.is_null(), "{list}: {all:?}");
        for limit in [1, 2, all.len()] {
            let (mut pages, mut cursor) = (Vec::new(), String::new());
            loop {
                let (page, next) = items(&owner, &format!("{path}?limit={limit}{cursor}")).await;
                assert!((1..=limit).contains(&page.len()), "{list}: {page:?}");
                pages.extend(page);
                let Some(next) = next.as_str() else { break };
                cursor = format!("&cursor={}", next.replace(' ', "%20"));
            }
            let names = |items: &[Value]| items.iter().map(name).collect::<Vec<_>>();
            assert_eq!(names(&pages), names(&all), "{list} by {limit}");
        }
        for wrong in [
            "limit=0",
            "limit=1001",
            "limit=x",
            "cursor=nothing%20like%20it",
            "page=1",
        ] {
            let answer = owner.get(&format!("{path}?{wrong}")).await;
            assert_eq!(answer.status, 400, "{list}?{wrong}: {}", answer.body);
        }
    }
    // Of all daemons together, and of one.
    let (all, _) = items(&owner, "/api/v1/commands?limit=1").await;
    assert!(all[0]["cause"].as_str().unwrap().starts_with("3 "), "{all:?}");
    let (one, next) = items(&owner, "/api/v1/commands?daemon=gw-1&limit=2").await;
    assert_eq!((one.len(), next.is_null()), (2, false));
}
