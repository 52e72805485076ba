//! The web operator against a running plane: a daemon is asked by a member with the operator's role, whose keys the plane holds
//! only when its settings say so; records are shown as far as they may be, and secrets are not kept.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

mod common;

use std::{sync::Arc, time::Duration};

use bus_link::session::SessionEvent;
use bus_schema::{
    api::{Failure, FailureKind},
    data::{BatchBuilder, Cell, Field, Op, Origin, Schema, Type},
    letter::{LetterBoxView, LetterCall, LetterPage, LetterPlace, LetterResult, LetterStage, LetterState, LetterView},
    member::Role,
    message::{RosterPut, TapOpen, TapSample},
    secret::{SecretCall, SecretResult, SecretView},
    trial::{Checkup, TrialCall, TrialResult, TrialStep, Trouble, TroubleKind, Verdict},
};
use common::{Answer, Browser, Member, Plane, wait_for};
use futures_util::future::join_all;
use plane::{http::table::endpoints, web_operator::DIR};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// What must not be kept anywhere.
const SECRET: &str = "a-value-that-is-kept-nowhere-17";

fn record() -> Vec<u8> {
    let schema = Schema {
        collection: "orders".into(),
        fields: vec![Field::new("id", Type::I64).key(), Field::new("api_token", Type::Text)],
    };
    let mut builder = BatchBuilder::new(Arc::new(schema));
    builder
        .push(Op::Insert, &[Cell::I64(7), Cell::Text("hunter2")])
        .unwrap();
    builder.finish(Origin::default()).encode()
}

fn letter(id: u64, stage: LetterStage) -> LetterView {
    LetterView {
        place: LetterPlace {
            workflow: "orders".into(),
            id,
        },
        stage,
        node: "shop".into(),
        path: "db -> shop".into(),
        reason: "CHECK failed".into(),
        state: LetterState::Kept,
        refusal: String::new(),
        replays: 0,
        boot: 1,
        uptime_ms: 2,
        unix_ms: 3,
        record_bytes: if stage == LetterStage::Source {
            3
        } else {
            record().len() as u64
        },
    }
}

fn letters(call: LetterCall) -> LetterResult {
    match call {
        LetterCall::List { after: None, .. } => LetterResult::Page(LetterPage {
            letters: vec![letter(1, LetterStage::Destination)],
            boxes: vec![LetterBoxView {
                workflow: "orders".into(),
                is_planned: true,
                evicted: 0,
                purged: 1,
                replayed: 2,
                damaged: 0,
            }],
            next: Some(letter(1, LetterStage::Destination).place),
        }),
        LetterCall::List { after: Some(after), .. } => LetterResult::Page(LetterPage {
            letters: vec![letter(after.id + 1, LetterStage::Source)],
            ..LetterPage::default()
        }),
        LetterCall::Show { letter: place, .. } => match place.id {
            1 => LetterResult::Letter {
                letter: letter(1, LetterStage::Destination),
                bytes: record(),
            },
            2 => LetterResult::Letter {
                letter: letter(2, LetterStage::Source),
                bytes: b"a,b".to_vec(),
            },
            _ => LetterResult::Failed(Failure {
                kind: FailureKind::NotFound,
                message: "there is no dead letter".into(),
                hint: String::new(),
                problems: Vec::new(),
            }),
        },
        LetterCall::Mend { letter, values } if values == r#"{"id":8}"# => LetterResult::Done {
            letters: letter.id,
            doubtful: 0,
            notes: Vec::new(),
        },
        LetterCall::Mend { .. } => LetterResult::Failed(Failure {
            kind: FailureKind::Conflict,
            message: "it does not wait for a person".into(),
            hint: String::new(),
            problems: Vec::new(),
        }),
        LetterCall::Replay(select) | LetterCall::Purge(select) => LetterResult::Done {
            letters: select.ids.len() as u64,
            doubtful: 0,
            notes: vec![format!("{}/{}", select.workflow, select.node)],
        },
    }
}

fn secrets(call: SecretCall) -> SecretResult {
    match call {
        SecretCall::Set { value, .. } => {
            assert_eq!(value.expose(), SECRET);
            SecretResult::Done {
                used_by: vec!["orders".into()],
            }
        }
        SecretCall::Remove { .. } => SecretResult::Done { used_by: Vec::new() },
        SecretCall::List => SecretResult::Names(vec![SecretView {
            name: "shop".into(),
            set_unix_ms: Some(5),
            used_by: vec!["orders".into()],
        }]),
    }
}

fn trial(call: TrialCall) -> TrialResult {
    match call {
        TrialCall::Preview { text, given } => {
            assert_eq!(text, "name = \"orders\"");
            let (source, lines) = (given[0].source.as_str(), given[0].lines.as_str());
            assert_eq!((source, lines), ("db", "{\"id\":6}\n{\"id\":7}"));
            assert_eq!(given[0].types, [("id".to_string(), "i64".to_string())]);
            TrialResult::Steps(vec![TrialStep {
                node: "shop".into(),
                from: "db".into(),
                came: 2,
                batch: record(),
                rejected: vec![(0, "too small".into())],
            }])
        }
        TrialCall::Test { .. } => TrialResult::Verdicts(vec![Verdict {
            test: "t".into(),
            differs: Vec::new(),
        }]),
        TrialCall::Check { .. } | TrialCall::CheckPlanned { .. } => TrialResult::Checkups(vec![Checkup {
            node: "shop".into(),
            component: "postgres".into(),
            took_ms: 4,
            found: String::new(),
            trouble: Some(Trouble::new(TroubleKind::Login, "no such user", "look at the URL")),
        }]),
    }
}

/// Answers as a daemon does, in the background.
fn serve(mut daemon: Member) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut beat = tokio::time::interval(Duration::from_millis(200));
        loop {
            let event = tokio::select! {
                _ = beat.tick() => {
                    daemon.beat().await;
                    continue;
                }
                event = daemon.events.recv() => event,
            };
            let Some(SessionEvent::Message(message)) = event else {
                continue;
            };
            if let Ok(RosterPut { roster, group }) = message.read::<RosterPut>() {
                daemon.session.secure().update(roster, group).unwrap();
                continue;
            }
            if message.sender.role != Role::Operator {
                continue;
            }
            assert_eq!(message.sender.name, "web-operator");
            let session = Arc::clone(&daemon.session);
            if let Ok(call) = message.read::<LetterCall>() {
                session.reply(&message, &letters(call)).await.unwrap();
            } else if let Ok(call) = message.read::<SecretCall>() {
                session.reply(&message, &secrets(call)).await.unwrap();
            } else if let Ok(call) = message.read::<TrialCall>() {
                session.reply(&message, &trial(call)).await.unwrap();
            } else if let Ok(open) = message.read::<TapOpen>() {
                let refused = if open.node == "db" {
                    ""
                } else {
                    "this daemon does not run that workflow"
                };
                let sample = TapSample {
                    workflow: open.workflow,
                    node: open.node,
                    batch: record(),
                    skipped: u64::from(open.lease_ms),
                    refused: refused.into(),
                };
                session.send(&message.sender.node, &sample).await.unwrap();
            }
        }
    })
}

/// A plane with a web operator, an operator of flesh and blood, and a daemon in Berlin that answers.
async fn world() -> (Plane, Browser, JoinHandle<()>) {
    let plane = Plane::start_with("web.operator = true\n").await;
    let mut olga = plane.member(Role::Operator, 60, "olga").await;
    olga.up().await;
    let mut daemon = plane.member(Role::Daemon, 61, "gw").await;
    daemon.up().await;
    daemon.announce(&olga).await;
    let owner = plane.browser().await;
    let label = json!({ "selector": "name:gw", "set": { "site": "berlin" } });
    assert_eq!(owner.post("/api/v1/daemons/labels", label).await.status, 200);
    (plane, owner, serve(daemon))
}

async fn post(browser: &Browser, path: &str, body: Value) -> Answer {
    browser.post(&format!("/api/v1/operator/{path}"), body).await
}

#[track_caller]
fn good(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

#[tokio::test]
async fn trials_tests_and_checks_are_made_by_the_daemon() {
    let (_plane, owner, _daemon) = world().await;
    let sample = json!({ "source": "db", "lines": "{\"id\":6}", "records": [{ "id": 7 }], "types": { "id": "i64" } });
    let wish = json!({ "daemon": "gw", "text": "name = \"orders\"", "samples": [sample] });
    let tried = good(&post(&owner, "trial", wish).await);
    assert_eq!(
        tried["items"],
        json!([{ "node": "shop", "from": "db", "came": 2, "out": [{ "id": 7, "api_token": "[redacted]" }],
                 "rejected": [{ "row": 0, "reason": "too small" }] }])
    );
    let many = vec![json!({}); 101];
    let wish = json!({ "daemon": "gw", "text": "", "samples": [{ "source": "db", "records": many }] });
    assert_eq!(post(&owner, "trial", wish).await.status, 400);
    let tested = good(&post(&owner, "test", json!({ "daemon": "gw", "text": "" })).await);
    assert_eq!(tested["items"], json!([{ "test": "t", "ok": true, "differs": [] }]));
    let checked = good(&post(&owner, "check", json!({ "daemon": "gw", "workflow": "orders" })).await);
    let one = &checked["items"][0];
    assert_eq!(
        (&one["ok"], &one["kind"], &one["remedy"]),
        (&json!(false), &json!("login"), &json!("look at the URL"))
    );
    assert_eq!(post(&owner, "check", json!({ "daemon": "gw" })).await.status, 400);
    let said = owner.get("/api/v1/audit?search=on%20gw").await.body;
    assert!(said.contains("try a text") && said.contains("owner"), "{said}");
}

#[tokio::test]
async fn dead_letters_are_listed_shown_replayed_and_discarded() {
    let (_plane, owner, _daemon) = world().await;
    let get = async |path: &str| owner.get(&format!("/api/v1/operator/letters{path}")).await;
    let first = good(&get("?daemon=gw&workflow=orders").await);
    assert_eq!(
        (&first["items"][0]["letter"], &first["next"]),
        (&json!("gw/orders/1"), &json!("orders/1"))
    );
    assert_eq!(first["boxes"][0]["replayed"], 2);
    let second = good(&get("?daemon=gw&cursor=orders/1").await);
    assert_eq!((&second["items"][0]["id"], &second["next"]), (&json!(2), &Value::Null));
    // More at a time than have a turn: they wait for it.
    let many = join_all((0..24).map(|_| get("?daemon=gw&workflow=orders"))).await;
    assert!(many.iter().all(|answer| answer.status == 200), "{many:?}");
    let shown = good(&get("/gw/orders/1").await);
    assert_eq!(shown["record"], json!([{ "id": 7, "api_token": "[redacted]" }]));
    assert_eq!(
        shown["columns"],
        json!([{ "name": "id", "type": "i64", "key": true, "is_hidden": false },
               { "name": "api_token", "type": "text", "key": false, "is_hidden": true }])
    );
    let raw = good(&get("/gw/orders/2").await);
    assert_eq!((&raw["raw"], &raw["record"]), (&json!("a,b"), &Value::Null));
    for (path, status) in [
        ("/gw/orders/3", 404),
        ("/gw/orders/x", 404),
        ("/nobody/orders/1", 404),
        ("?daemon=gw&cursor=x", 400),
        ("", 400),
    ] {
        assert_eq!(get(path).await.status, status, "{path}");
    }
    for (values, replay, status, said) in [
        (json!({ "id": 8 }), false, 200, r#""notes":[]"#),
        (json!({ "id": 8 }), true, 200, r#""notes":["orders/"]"#),
        (json!({ "id": 9 }), true, 409, "does not wait"),
    ] {
        let body = json!({ "values": values, "replay": replay }).to_string();
        let answer = owner
            .send("PATCH", "/api/v1/operator/letters/gw/orders/1", &[], Some(&body))
            .await;
        assert!(answer.status == status && answer.body.contains(said), "{}", answer.body);
    }
    let which = json!({ "daemon": "gw", "workflow": "orders", "ids": [1, 2], "node": "shop" });
    for verb in ["replay", "discard"] {
        let done = good(&post(&owner, &format!("letters/{verb}"), which.clone()).await);
        assert_eq!((&done["letters"], &done["notes"]), (&json!(2), &json!(["orders/shop"])));
    }
    let said = owner.get("/api/v1/audit?search=dead%20letter").await.body;
    for what in [
        "look at a dead letter",
        "gw/orders/1",
        "replay dead letters",
        "purge dead letters",
        "2 of orders on gw",
    ] {
        assert!(said.contains(what), "{what}: {said}");
    }
    assert!(!said.contains("hunter2"), "{said}");
}

#[tokio::test]
async fn secrets_are_set_and_never_kept_or_shown() {
    let (mut plane, owner, _daemon) = world().await;
    let mut away = plane.member(Role::Daemon, 62, "away").await;
    away.up().await;
    let put = async |name: &str, body: Value| owner.put(&format!("/api/v1/operator/secrets/{name}"), body).await;
    let set = good(&put("shop", json!({ "selector": "site=berlin", "value": SECRET })).await);
    assert_eq!(
        set["items"],
        json!([{ "daemon": "gw", "outcome": "done", "cause": "", "used_by": ["orders"] }])
    );
    for (name, body, status) in [
        ("No Name", json!({ "selector": "", "value": SECRET }), 400),
        ("shop", json!({ "selector": "site=bonn", "value": SECRET }), 404),
        ("shop", json!({ "selector": "site=berlin", "value": "" }), 400),
        (
            "shop",
            json!({ "selector": "site=berlin", "value": "x".repeat(20_000) }),
            400,
        ),
    ] {
        let name = name.replace(' ', "%20");
        let answer = put(&name, body).await;
        assert_eq!(answer.status, status, "{name}: {}", answer.body);
        assert!(!answer.body.contains(SECRET), "{}", answer.body);
    }
    let listed = good(&owner.get("/api/v1/operator/secrets?daemon=gw").await);
    assert_eq!(
        listed["items"],
        json!([{ "name": "shop", "set_unix_ms": 5, "used_by": ["orders"] }])
    );
    let gone = owner.delete("/api/v1/operator/secrets/shop?selector=name:gw").await;
    assert_eq!(good(&gone)["items"][0]["outcome"], "done");
    let said = owner.get("/api/v1/audit?search=secret").await.body;
    assert!(
        said.contains("set a secret") && said.contains("shop on 'site=berlin'"),
        "{said}"
    );
    plane.stop().await;
    for entry in std::fs::read_dir(plane.dir.path()).unwrap().map(Result::unwrap) {
        let bytes = std::fs::read(entry.path()).unwrap_or_default();
        let is_kept = bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes());
        assert!(!is_kept, "{}", entry.path().display());
    }
}

#[tokio::test]
async fn a_tap_shows_records_to_its_own_and_ends() {
    let (plane, owner, _daemon) = world().await;
    let wish = json!({ "daemon": "gw", "workflow": "orders", "node": "db" });
    let id = good(&post(&owner, "taps", wish.clone()).await)["id"].as_u64().unwrap();
    let path = format!("/api/v1/operator/taps/{id}");
    let seen = wait_for("record", async || {
        let look = good(&owner.get(&path).await);
        (look["newest"].as_u64() > Some(0)).then_some(look)
    })
    .await;
    assert_eq!(
        seen["records"],
        json!([{ "number": 1, "record": { "id": 7, "api_token": "[redacted]" } }])
    );
    let since = good(&owner.get(&format!("{path}?after=1")).await);
    assert_eq!(
        (&since["records"], &since["tap"]["is_over"]),
        (&json!([]), &json!(false))
    );
    // Somebody else neither sees it nor ends it; an admin sees that there is one.
    let wish_of =
        json!({ "name": "bea", "role": "operator", "password": "correct horse battery", "scope": "site=berlin" });
    assert_eq!(owner.post("/api/v1/users", wish_of).await.status, 204);
    let mut bea = Browser {
        http: plane.http.clone(),
        cookie: None,
    };
    let login = json!({ "name": "bea", "password": "correct horse battery" });
    let answer = bea.post("/api/v1/session", login).await;
    bea.cookie = answer.headers["set-cookie"].split(';').next().map(str::to_string);
    assert_eq!(bea.get(&path).await.status, 404);
    assert_eq!(bea.delete(&path).await.status, 404);
    assert_eq!(good(&bea.get("/api/v1/operator/taps").await)["items"], json!([]));
    let beas = good(&post(&bea, "taps", wish).await)["id"].as_u64().unwrap();
    let all = good(&owner.get("/api/v1/operator/taps").await);
    assert_eq!(all["items"].as_array().unwrap().len(), 2, "{all}");
    assert_eq!(owner.delete(&format!("/api/v1/operator/taps/{beas}")).await.status, 204);
    assert_eq!(owner.delete(&path).await.status, 204);
    let over = good(&owner.get(&path).await);
    assert_eq!(
        (&over["tap"]["is_over"], &over["tap"]["cause"]),
        (&json!(true), &json!("it was closed"))
    );
    // One that the daemon refuses.
    let wrong = json!({ "daemon": "gw", "workflow": "orders", "node": "other", "for_s": 600, "rate": 200 });
    let id = good(&post(&owner, "taps", wrong).await)["id"].as_u64().unwrap();
    wait_for("refusal", async || {
        let look = good(&owner.get(&format!("/api/v1/operator/taps/{id}")).await);
        (look["tap"]["cause"] == "this daemon does not run that workflow").then_some(())
    })
    .await;
    let long = json!({ "daemon": "gw", "workflow": "orders", "node": "db", "for_s": 601 });
    assert_eq!(post(&owner, "taps", long).await.status, 400);
    let said = owner.get("/api/v1/audit?search=tap%20records").await.body;
    assert!(said.contains("db of orders on gw for 60 s"), "{said}");
}

#[tokio::test]
async fn switched_off_or_revoked_it_says_so_and_which_command_does_the_same() {
    let mut plane = Plane::start().await;
    let owner = plane.browser().await;
    let refused = |answer: &Answer, hint: &str| {
        assert_eq!(answer.status, 403, "{}", answer.body);
        let said = answer.json()["hint"].as_str().unwrap().to_string();
        assert!(said.contains(hint), "{said}");
        answer.json()["detail"].as_str().unwrap().to_string()
    };
    let trial = json!({ "daemon": "gw", "text": "", "samples": [] });
    let said = refused(&post(&owner, "trial", trial.clone()).await, "mycelial workflow preview");
    assert!(said.contains("switched off"), "{said}");
    refused(
        &owner.get("/api/v1/operator/secrets?daemon=gw").await,
        "web.operator = true",
    );
    refused(&owner.get("/api/v1/operator/taps").await, "mycelial tap");
    refused(
        &owner.get("/api/v1/operator/letters?daemon=gw").await,
        "mycelial dlq list",
    );
    let secret = json!({ "selector": "", "value": SECRET });
    let put = owner.put("/api/v1/operator/secrets/shop", secret).await;
    refused(&put, "mycelial secret set shop --daemon DAEMON");
    assert!(!plane.dir.path().join(DIR).exists(), "no keys are made");
    let count = endpoints()
        .iter()
        .filter(|endpoint| endpoint.path.starts_with("/operator/"))
        .count();
    assert!(count >= 14, "{count}");

    // Switched on it is a member, and the same one after a restart.
    plane.stop().await;
    plane.configure("web.operator = true\n");
    let mut first = None;
    for _ in 0..2 {
        plane.start_again().await;
        let keys = std::fs::read(plane.dir.path().join(DIR).join("keys")).unwrap();
        assert_eq!(*first.get_or_insert_with(|| keys.clone()), keys);
        let owner = Browser {
            http: plane.http.clone(),
            ..owner.clone()
        };
        assert_eq!(post(&owner, "trial", trial.clone()).await.status, 404, "no such daemon");
        let said = owner.get("/api/v1/audit?search=web-operator").await.body;
        assert_eq!(said.matches("as operator").count(), 1, "{said}");
        plane.stop().await;
    }
}
