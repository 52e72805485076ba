//! Commands from the web page: each daemon answers for itself, none holds up the others, and every command ends.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

mod common;

use bus_link::session::SessionEvent;
use bus_schema::{
    api::{Failure, FailureKind},
    control::{ControlCall, ControlResult, LogLine, Section},
    member::Role,
    message::{Ping, Pong},
};
use common::{Browser, Member, Plane, wait_for};
use plane::clock::unix_ms;
use serde_json::{Value, json};

fn line(number: u64, age_s: i64, level: &str, workflow: &str) -> LogLine {
    LogLine {
        number,
        unix_ms: unix_ms() - age_s * 1_000,
        level: level.into(),
        text: format!("line {number}"),
        workflow: workflow.into(),
    }
}

/// What a real daemon would say.
fn answer(call: ControlCall) -> ControlResult {
    match call {
        ControlCall::Restart { workflow } if workflow == "nothing" => ControlResult::Failed(Failure {
            kind: FailureKind::NotFound,
            message: "no workflow 'nothing'".into(),
            hint: String::new(),
            problems: Vec::new(),
        }),
        ControlCall::Restart { workflow } | ControlCall::Pause { workflow } => ControlResult::Done {
            workflows: vec![workflow],
        },
        ControlCall::Logs { .. } => ControlResult::Lines {
            lines: vec![
                line(1, 900, "ERROR", ""),
                line(2, 5, "WARN", "shop"),
                line(3, 1, "DEBUG", "shop"),
            ],
            newest: 3,
        },
        _ => ControlResult::Report(vec![Section {
            heading: "daemon".into(),
            text: "all is well".into(),
        }]),
    }
}

/// Answers as often as it is asked, but not the first `deaf` times.
fn obey(mut member: Member, mut deaf: u32) {
    tokio::spawn(async move {
        while let Some(event) = member.events.recv().await {
            let SessionEvent::Message(message) = event else {
                continue;
            };
            let is_asked = message.wants_reply();
            if is_asked && deaf > 0 {
                deaf -= 1;
                continue;
            }
            if let Ok(call) = message.read::<ControlCall>() {
                member.session.reply(&message, &answer(call)).await.unwrap();
            } else if let Ok(Ping { nonce }) = message.read::<Ping>() {
                let me = member.session.secure().me();
                let pong = Pong {
                    nonce,
                    node: me.node,
                    fleet: me.fleet,
                    role: me.role,
                    version: "0.0.2".into(),
                };
                member.session.reply(&message, &pong).await.unwrap();
            }
        }
    });
}

async fn world() -> (Plane, Browser) {
    let plane = Plane::start().await;
    for (n, name, deaf) in [(51, "gw-1", 0), (52, "gw-2", 1), (53, "gw-3", u32::MAX), (54, "hub", 0)] {
        let mut member = plane.member(Role::Daemon, n, name).await;
        member.up().await;
        obey(member, deaf);
    }
    let browser = plane.browser().await;
    (plane, browser)
}

async fn begin(browser: &Browser, selector: &str, command: Value, deadline_s: u64) -> u64 {
    let wish = json!({ "selector": selector, "command": command, "deadline_s": deadline_s });
    let answer = browser.post("/api/v1/daemons/commands", wish).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["id"].as_u64().unwrap()
}

async fn standings(browser: &Browser, id: u64) -> Vec<String> {
    let shown = browser.get(&format!("/api/v1/commands/{id}")).await.json();
    let one = |target: &Value| {
        format!(
            "{} {}",
            target["daemon"].as_str().unwrap(),
            target["standing"].as_str().unwrap()
        )
    };
    let mut all: Vec<_> = shown["daemons"].as_array().unwrap().iter().map(one).collect();
    all.sort();
    all
}

async fn over(browser: &Browser, id: u64) -> Vec<String> {
    wait_for("end of the command", async || {
        let all = standings(browser, id).await;
        all.iter().all(|line| !line.ends_with("waiting")).then_some(all)
    })
    .await
}

#[tokio::test]
async fn each_daemon_answers_for_itself_and_all_end() {
    let (_plane, browser) = world().await;
    let id = begin(
        &browser,
        "name:gw-*",
        json!({ "kind": "restart", "workflow": "shop" }),
        9,
    )
    .await;
    wait_for("an answer before the others", async || {
        let all = standings(&browser, id).await;
        (all[0] == "gw-1 done" && all[2] == "gw-3 waiting").then_some(())
    })
    .await;
    assert_eq!(over(&browser, id).await, ["gw-1 done", "gw-2 done", "gw-3 timed_out"]);
    let id = begin(
        &browser,
        "name:hub",
        json!({ "kind": "restart", "workflow": "nothing" }),
        5,
    )
    .await;
    assert_eq!(over(&browser, id).await, ["hub failed"]);
    let shown = browser.get(&format!("/api/v1/commands/{id}")).await.json();
    assert_eq!(shown["daemons"][0]["cause"], "no workflow 'nothing'");
    assert_eq!(
        (&shown["by"], &shown["what"]),
        (&json!("owner"), &json!("restart nothing"))
    );

    let id = begin(&browser, "name:hub", json!({ "kind": "ping" }), 5).await;
    assert_eq!(over(&browser, id).await, ["hub done"]);
    let id = begin(&browser, "name:hub", json!({ "kind": "diagnose" }), 5).await;
    over(&browser, id).await;
    let shown = browser.get(&format!("/api/v1/commands/{id}")).await.json();
    assert_eq!(shown["daemons"][0]["report"][0]["text"], "all is well");
    let answer = browser.post("/api/v1/workflows/shop/parts/hub/pause", json!({})).await;
    let id = answer.json()["id"].as_u64().unwrap();
    assert_eq!(over(&browser, id).await, ["hub done"]);

    // What one of them was told, the newest first.
    let told = browser.get("/api/v1/commands?daemon=hub").await.json();
    let told: Vec<_> = told["items"].as_array().unwrap().iter().collect();
    let whats: Vec<_> = told.iter().map(|one| one["what"].as_str().unwrap()).collect();
    assert_eq!(whats, ["pause shop", "diagnose", "ping", "restart nothing"]);
    assert_eq!(
        (&told[3]["standing"], &told[3]["cause"], &told[3]["by"]),
        (&json!("failed"), &json!("no workflow 'nothing'"), &json!("owner"))
    );
    let id = begin(&browser, "name:gw-3", json!({ "kind": "ping" }), 60).await;
    let told = browser.get("/api/v1/commands?daemon=gw-3").await.json();
    assert_eq!(
        (
            &told["items"][0]["id"],
            &told["items"][0]["standing"],
            &told["items"][1]["standing"]
        ),
        (&json!(id), &json!("waiting"), &json!("timed_out"))
    );
    assert_eq!(browser.get("/api/v1/commands?daemon=nobody").await.status, 404);

    let said = browser.get("/api/v1/audit?search=restart%20shop%20on").await.json();
    assert_eq!(said["items"].as_array().unwrap().len(), 1, "{said}");
}

#[tokio::test]
async fn what_cannot_be_is_said() {
    let (plane, browser) = world().await;
    let ping = json!({ "kind": "ping" });
    for (body, status) in [
        (json!({ "selector": "name:no-*", "command": ping }), 404),
        (json!({ "selector": "nonsense", "command": ping }), 400),
        (json!({ "selector": "", "command": ping, "deadline_s": 0 }), 400),
        (json!({ "selector": "", "command": { "kind": "explode" } }), 422),
        (json!({ "selector": "", "command": { "kind": "restart" } }), 422),
    ] {
        let answer = browser.post("/api/v1/daemons/commands", body.clone()).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
    }
    for (path, status) in [
        ("/api/v1/commands/999", 404),
        ("/api/v1/commands/x", 404),
        ("/api/v1/daemons/nobody/logs", 404),
        ("/api/v1/daemons/hub/logs?level=loud", 400),
    ] {
        assert_eq!(browser.get(path).await.status, status, "{path}");
    }
    // Bounded, and free again when they end.
    for _ in 0..8 {
        begin(&browser, "name:gw-3", ping.clone(), 3_600).await;
    }
    let wish = json!({ "selector": "name:hub", "command": ping });
    let answer = browser.post("/api/v1/daemons/commands", wish).await;
    assert_eq!(answer.status, 429, "{}", answer.body);
    drop(plane);
}

#[tokio::test]
async fn nobody_knows_how_it_ended_when_the_plane_did() {
    let (mut plane, browser) = world().await;
    let id = begin(&browser, "name:gw-3", json!({ "kind": "ping" }), 600).await;
    assert_eq!(standings(&browser, id).await, ["gw-3 waiting"]);
    plane.stop().await;
    plane.start_again().await;
    let browser = Browser {
        http: plane.http.clone(),
        ..browser
    };
    assert_eq!(standings(&browser, id).await, ["gw-3 unknown"]);
}

#[tokio::test]
async fn logs_are_filtered() {
    let (_plane, browser) = world().await;
    for (query, numbers) in [
        ("", json!([1, 2, 3])),
        ("?last_s=60", json!([2, 3])),
        ("?level=warn", json!([1, 2])),
        ("?level=error&last_s=60", json!([])),
    ] {
        let answer = browser.get(&format!("/api/v1/daemons/hub/logs{query}")).await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.body);
        let lines: Vec<_> = answer.json()["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|line| line["number"].clone())
            .collect();
        assert_eq!(json!(lines), numbers, "{query}");
    }
}
