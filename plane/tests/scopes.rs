//! Scopes, API tokens and drafts, against a running plane: a scoped caller sees and touches only what its selector matches.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

mod common;

use bus_schema::member::Role;
use common::{Answer, Browser, Plane, SOON, text};
use plane::{
    http::table::endpoints,
    permission::{Need, Rank, Reach},
};
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::timeout};

/// A program with a token.
struct Program {
    browser: Browser,
    token: String,
}

impl Program {
    async fn new(plane: &Plane, owner: &Browser, name: &str, role: &str, scope: Option<&str>) -> Self {
        let wish = json!({ "name": name, "role": role, "scope": scope, "ttl_s": 600 });
        let made = owner.post("/api/v1/api-tokens", wish).await;
        assert_eq!(made.status, 200, "{}", made.body);
        Self {
            browser: Browser {
                http: plane.http.clone(),
                cookie: None,
            },
            token: made.json()["token"].as_str().unwrap().to_string(),
        }
    }

    async fn send(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let authorization = format!("Bearer {}", self.token);
        // As from another page: a token needs no cookie, and its holder no origin.
        let headers = [
            ("authorization", authorization.as_str()),
            ("origin", "https://elsewhere.example"),
            ("if-match", "*"),
        ];
        let body = body.map(|body| body.to_string());
        self.browser
            .send(method, &format!("/api/v1{path}"), &headers, body.as_deref())
            .await
    }

    async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, None).await
    }
}

fn names(answer: &Answer) -> Vec<String> {
    let items = answer.json()["items"].as_array().unwrap().clone();
    items
        .iter()
        .map(|item| item["name"].as_str().unwrap().to_string())
        .collect()
}

/// `gw-1` in Berlin and `gw-2` in Bonn; workflow `a` from one to the other, `b` in Berlin, `c` in Bonn.
async fn world() -> (Plane, Browser) {
    let plane = Plane::start_with("web.operator = true\n").await;
    let mut operator = plane.member(Role::Operator, 50, "olga").await;
    operator.up().await;
    let owner = plane.browser().await;
    for (n, name, site) in [(51, "gw-1", "berlin"), (52, "gw-2", "bonn")] {
        let mut member = plane.member(Role::Daemon, n, name).await;
        member.up().await;
        member.announce(&operator).await;
        let wish = json!({ "selector": format!("name:{name}"), "set": { "site": site } });
        assert_eq!(owner.post("/api/v1/daemons/labels", wish).await.status, 200);
    }
    for (name, from, to) in [("a", "gw-1", "gw-2"), ("b", "gw-1", "gw-1"), ("c", "gw-2", "gw-2")] {
        let text = text(name, from, to, "x");
        let answer = owner
            .put(&format!("/api/v1/workflows/{name}"), json!({ "text": text }))
            .await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    (plane, owner)
}

#[tokio::test]
async fn a_scoped_caller_sees_and_touches_only_its_own() {
    let (plane, owner) = world().await;
    let berlin = Program::new(&plane, &owner, "berlin", "operator", Some("site=berlin")).await;
    assert_eq!(names(&berlin.get("/daemons").await), ["gw-1"]);
    assert_eq!(names(&berlin.get("/daemons?selector=site%3Dbonn").await), [""; 0]);
    assert_eq!(names(&berlin.get("/workflows").await), ["a", "b"]);
    for (path, status) in [
        ("/daemons/gw-1", 200),
        ("/daemons/gw-2", 404),
        ("/daemons/gw-2/logs", 404),
        ("/workflows/a", 403),
        ("/workflows/b", 200),
        ("/workflows/c", 404),
        ("/workflows/c/status", 404),
        ("/workflows/c/revisions", 404),
        ("/workflows/a/revisions/1", 403),
        ("/workflows/b/revisions/1", 200),
        ("/components", 200),
        ("/commands?daemon=gw-1", 200),
        ("/commands?daemon=gw-2", 404),
        ("/commands", 200),
    ] {
        let answer = berlin.get(path).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
    }
    for path in [
        "/workflows/a/status",
        "/ledger",
        "/workflows",
        "/daemons",
        "/components/daemons",
    ] {
        let answer = berlin.get(path).await;
        assert!(
            answer.status == 200 && !answer.body.contains("gw-2"),
            "{path}: {}",
            answer.body
        );
    }
    let put = async |name: &str, from: &str, to: &str| {
        let body = json!({ "text": text(name, from, to, "y") });
        berlin.send("PUT", &format!("/workflows/{name}"), Some(body)).await
    };
    for (name, from, to, status) in [
        ("b", "gw-1", "gw-1", 200),
        ("new", "gw-1", "gw-1", 200),
        ("other", "gw-1", "gw-2", 400),
        ("a", "gw-1", "gw-1", 403),
        ("c", "gw-1", "gw-1", 404),
    ] {
        let answer = put(name, from, to).await;
        assert_eq!(answer.status, status, "{name} {from} {to}: {}", answer.body);
        // `400`: as if there was no such daemon.
        assert!(status != 400 || answer.body.contains("gw-2"), "{}", answer.body);
    }
    // What is shared moves by itself: not by somebody who sees a part of the fleet.
    let shared = text("shared", "gw-1", "site=berlin", "y") + "share = { by = [\"a\"] }\n";
    let answer = berlin
        .send("PUT", "/workflows/shared", Some(json!({ "text": shared })))
        .await;
    assert_eq!(answer.status, 403, "{}", answer.body);
    assert!(answer.body.contains("outside of your scope"), "{}", answer.body);
    assert_eq!(berlin.send("DELETE", "/workflows/c", None).await.status, 404);
    assert_eq!(berlin.send("DELETE", "/workflows/new", None).await.status, 200);
    let ping = json!({ "kind": "ping" });
    for (selector, status) in [("", 200), ("site=bonn", 404)] {
        let wish = json!({ "selector": selector, "command": ping, "deadline_s": 1 });
        let answer = berlin.send("POST", "/daemons/commands", Some(wish)).await;
        assert_eq!(answer.status, status, "{}", answer.body);
        if status == 200 {
            let path = format!("/commands/{}", answer.json()["id"]);
            let shown = berlin.get(&path).await;
            assert!(
                shown.body.contains("gw-1") && !shown.body.contains("gw-2"),
                "{}",
                shown.body
            );
        }
    }
    let wish = json!({ "selector": "name:gw-2", "command": ping, "deadline_s": 1 });
    let other = owner.post("/api/v1/daemons/commands", wish).await.json();
    assert_eq!(berlin.get(&format!("/commands/{}", other["id"])).await.status, 404);
    let told = berlin.get("/commands").await.json();
    let told = told["items"].as_array().unwrap();
    assert_eq!(told.len(), 1, "only what was for its own: {told:?}");
    assert!(told[0]["cause"].as_str().unwrap().starts_with("1 "), "{told:?}");
    let all = owner.get("/api/v1/commands").await.json();
    assert_eq!(all["items"].as_array().unwrap().len(), 2);
    // What is left of the fleet is as it was.
    let text = owner.get("/api/v1/workflows/c").await.json();
    assert_eq!(text["view"]["revision"], 1);
}

#[tokio::test]
async fn a_scoped_operator_rolls_out_watches_and_silences_within_its_scope() {
    let (plane, owner) = world().await;
    let berlin = Program::new(&plane, &owner, "berlin", "operator", Some("site=berlin")).await;
    for (name, selector) in [("mine", "site=berlin"), ("theirs", "site=bonn")] {
        let path = format!("/api/v1/groups/{name}");
        let answer = owner.put(&path, json!({ "selector": selector })).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    assert_eq!(names(&berlin.get("/groups").await), ["mine"]);
    let rollout = async |name: &str, from: &str, to: &str| {
        let wish = json!({ "text": text(name, from, to, "z") });
        berlin.send("POST", "/rollouts", Some(wish)).await
    };
    for (name, from, to, status) in [
        ("c", "gw-1", "gw-1", 404),
        ("a", "gw-1", "gw-1", 403),
        ("n", "gw-1", "gw-2", 400),
        ("b", "gw-1", "gw-1", 200),
    ] {
        let answer = rollout(name, from, to).await;
        assert_eq!(answer.status, status, "{name} {from} {to}: {}", answer.body);
    }
    let wish = json!({ "text": text("c", "gw-2", "gw-2", "z") });
    let text = wish.to_string();
    let start = async |tag: &[(&str, &str)]| owner.send("POST", "/api/v1/rollouts", tag, Some(&text)).await;
    for (tag, status) in [
        (&[][..], 428),
        (&[("if-match", "\"7\"")], 412),
        (&[("if-none-match", "*")], 412),
    ] {
        let refused = start(tag).await;
        assert_eq!(refused.status, status, "{tag:?}: {}", refused.body);
    }
    let other = start(&[("if-match", "\"1\"")]).await.json();
    let (mine, other) = (berlin.get("/rollouts").await.json(), &other["id"]);
    let mine = mine["items"].as_array().unwrap();
    assert_eq!((mine.len(), &mine[0]["workflow"]), (1, &json!("b")));
    let reason = json!({ "reason": "as planned" });
    let told = async |id: &Value, verb: &str| {
        let path = format!("/rollouts/{id}/{verb}");
        berlin.send("POST", &path, Some(reason.clone())).await
    };
    assert_eq!(berlin.get(&format!("/rollouts/{other}")).await.status, 404);
    assert_eq!(told(other, "abort").await.status, 404);
    assert_eq!(told(&json!(99), "abort").await.status, 404);
    let ended = told(&mine[0]["id"], "abort").await;
    assert_eq!(
        (ended.status, &ended.json()["phase"]),
        (200, &json!("aborted")),
        "{}",
        ended.body
    );

    // Both daemons are silent, or both say nothing of their plan: an alert for each, of which one is seen.
    let rule = json!({ "name": "daemon-offline", "when": "offline", "over": 0, "for_s": 0, "severity": "info",
        "select": "", "workflow": "", "notify": [], "enabled": true });
    let stuck = json!({ "name": "plan-stuck", "when": "plan_stuck", "over": 0, "for_s": 0, "severity": "info",
        "select": "", "workflow": "", "notify": [], "enabled": true });
    let answer = owner
        .put("/api/v1/alerts/rules", json!({ "rules": [rule, stuck] }))
        .await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let about = |all: &Value, daemon: &str| {
        let items = all["items"].as_array().unwrap().iter();
        let mut ids = items
            .filter(|alert| alert["subject"] == format!("daemon:{daemon}"))
            .map(|alert| alert["id"].clone());
        ids.next()
    };
    let (seen, hidden) = common::wait_for("alerts about both", async || {
        let all = owner.get("/api/v1/alerts").await.json();
        about(&all, "gw-1").zip(about(&all, "gw-2"))
    })
    .await;
    let shown = berlin.get("/alerts").await;
    assert!(
        shown.body.contains("gw-1") && !shown.body.contains("gw-2"),
        "{}",
        shown.body
    );
    let silence = json!({ "for_s": 60, "reason": "known" });
    for (id, status) in [(&seen, 200), (&hidden, 404)] {
        let path = format!("/alerts/{}/silence", id.as_str().unwrap());
        let answer = berlin.send("POST", &path, Some(silence.clone())).await;
        assert_eq!(answer.status, status, "{}", answer.body);
        assert!(!answer.body.contains("gw-2"), "{}", answer.body);
    }
    let subject = |name: &str| format!("/metrics/series?subject={name}&metric=online");
    assert_eq!(berlin.get(&subject("daemon:gw-1")).await.status, 200);
    assert_eq!(
        owner.get(&format!("/api/v1{}", subject("daemon:gw-2"))).await.status,
        200
    );
    for name in ["daemon:gw-2", "workflow:a", "workflow:c", "stream:c/x", "nothing"] {
        assert_eq!(berlin.get(&subject(name)).await.status, 404, "{name}");
    }
}

#[tokio::test]
async fn what_is_about_the_whole_fleet_is_not_for_a_scope() {
    let (plane, owner) = world().await;
    let berlin = Program::new(&plane, &owner, "berlin", "admin", Some("site=berlin")).await;
    let mut count = 0;
    for endpoint in endpoints() {
        let Need::Rank(_, reach) = endpoint.need else { continue };
        // It never ends.
        if endpoint.path == "/live" {
            assert_eq!(reach, Reach::Narrow);
            continue;
        }
        let path = endpoint.path.replace('{', "no-").replace('}', "");
        let body = endpoint.body.map(|_| json!({}));
        let answer = berlin.send(endpoint.verb.word(), &path, body).await;
        let place = format!("{} {}", endpoint.verb.word(), endpoint.path);
        assert_eq!(answer.status == 403, reach == Reach::Whole, "{place}: {}", answer.body);
        assert!(!answer.body.contains("gw-2"), "{place}: {}", answer.body);
        count += 1;
    }
    assert!(count > 30, "{count}");
}

/// Reads events until the text has come, or the stream has ended (`None`).
async fn until(stream: &mut TcpStream, seen: &mut String, text: &str) -> Option<()> {
    let mut buffer = [0; 4096];
    while !seen.contains(text) {
        let read = timeout(SOON, stream.read(&mut buffer)).await.unwrap().unwrap_or(0);
        if read == 0 {
            return None;
        }
        seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    Some(())
}

#[tokio::test]
async fn the_live_picture_shows_a_scope_its_part_and_ends_with_the_right_to_see_it() {
    let (plane, owner) = world().await;
    let session = async |name: &str, scope: &str| {
        let user = json!({ "name": name, "role": "viewer", "password": "correct horse battery", "scope": scope });
        assert_eq!(owner.post("/api/v1/users", user).await.status, 204);
        let mut browser = Browser {
            http: plane.http.clone(),
            cookie: None,
        };
        let body = json!({ "name": name, "password": "correct horse battery" });
        let answer = browser.post("/api/v1/session", body).await;
        browser.cookie = answer.headers["set-cookie"].split(';').next().map(str::to_string);
        browser
    };
    let bea = session("bea", "site=berlin").await;
    let mut stream = bea.open("GET", "/api/v1/live", &[], None).await;
    let mut seen = String::new();
    until(&mut stream, &mut seen, "\"streams\"").await.unwrap();
    assert!(seen.contains("gw-1") && !seen.contains("gw-2"), "{seen}");
    assert!(
        seen.contains("\"name\":\"b\"") && !seen.contains("\"name\":\"c\""),
        "{seen}"
    );
    // Another scope, a removed user, a log-out, an ended token: each ends what was open.
    let change = json!({ "scope": "site=bonn" }).to_string();
    assert_eq!(
        owner
            .send("PATCH", "/api/v1/users/bea", &[("if-match", "*")], Some(&change))
            .await
            .status,
        204
    );
    assert!(until(&mut stream, &mut seen, "never").await.is_none());
    let mut stream = bea.open("GET", "/api/v1/live", &[], None).await;
    assert_eq!(owner.delete("/api/v1/users/bea").await.status, 204);
    assert!(until(&mut stream, &mut String::new(), "never").await.is_none());
    let cyd = session("cyd", "").await;
    let mut stream = cyd.open("GET", "/api/v1/live", &[], None).await;
    let mut seen = String::new();
    until(&mut stream, &mut seen, "gw-2").await.unwrap();
    assert_eq!(cyd.delete("/api/v1/session").await.status, 204);
    assert!(until(&mut stream, &mut seen, "never").await.is_none());
    let ci = Program::new(&plane, &owner, "ci", "viewer", Some("site=berlin")).await;
    let shown = format!("Bearer {}", ci.token);
    let mut stream = ci
        .browser
        .open("GET", "/api/v1/live", &[("authorization", &shown)], None)
        .await;
    until(&mut stream, &mut String::new(), "gw-1").await.unwrap();
    let id = owner.get("/api/v1/api-tokens").await.json()["items"][0]["id"]
        .as_str()
        .unwrap()
        .to_string();
    assert_eq!(owner.delete(&format!("/api/v1/api-tokens/{id}")).await.status, 204);
    assert!(until(&mut stream, &mut String::new(), "never").await.is_none());
}

#[tokio::test]
async fn nobody_is_called_as_whoever_has_the_directory() {
    let plane = Plane::start().await;
    let owner = plane.browser().await;
    for name in ["owner", "Owner"] {
        let user = json!({ "name": name, "role": "viewer", "password": "correct horse battery" });
        let answer = owner.post("/api/v1/users", user).await;
        assert!(
            answer.status == 400 && answer.body.contains("is what whoever"),
            "{}",
            answer.body
        );
    }
}

#[tokio::test]
async fn tokens_are_shown_once_and_end() {
    let (plane, owner) = world().await;
    let viewer = Program::new(&plane, &owner, "ci", "viewer", None).await;
    assert_eq!(viewer.get("/daemons").await.status, 200);
    assert_eq!(viewer.send("DELETE", "/workflows/a", None).await.status, 403);
    let session = viewer.get("/session").await.json();
    assert_eq!(
        session["user"],
        json!({ "name": "token:ci", "role": "viewer", "scope": null })
    );
    let list = owner.get("/api/v1/api-tokens").await;
    assert!(
        list.body.contains("\"ci\"") && !list.body.contains(&viewer.token),
        "{}",
        list.body
    );
    let db = std::fs::read(plane.dir.path().join("plane.db")).unwrap();
    let wal = std::fs::read(plane.dir.path().join("plane.db-wal")).unwrap_or_default();
    for bytes in [db, wal] {
        assert!(
            !bytes
                .windows(viewer.token.len())
                .any(|part| part == viewer.token.as_bytes())
        );
    }
    for (wish, status) in [
        (json!({ "name": "ci", "role": "viewer", "ttl_s": 600 }), 409),
        (json!({ "name": "a b", "role": "viewer", "ttl_s": 600 }), 400),
        (json!({ "name": "x", "role": "viewer", "ttl_s": 0 }), 400),
        (
            json!({ "name": "x", "role": "viewer", "ttl_s": 600, "scope": "presence:online" }),
            400,
        ),
        (json!({ "name": "x", "role": "king", "ttl_s": 600 }), 422),
    ] {
        let answer = owner.post("/api/v1/api-tokens", wish.clone()).await;
        assert_eq!(answer.status, status, "{wish}: {}", answer.body);
    }
    // A wrong token is not made good by a cookie.
    let path = "/api/v1/info";
    let wrong = owner
        .send("GET", path, &[("authorization", "Bearer mycapi_nonsense")], None)
        .await;
    assert_eq!(wrong.status, 401);
    let short = json!({ "name": "short", "role": "viewer", "ttl_s": 1 });
    let short = owner.post("/api/v1/api-tokens", short).await.json();
    let short = Program {
        browser: viewer.browser.clone(),
        token: short["token"].as_str().unwrap().to_string(),
    };
    common::wait_for("end of the token", async || {
        (short.get("/info").await.status == 401).then_some(())
    })
    .await;
    let id = list.json()["items"][0]["id"].as_str().unwrap().to_string();
    assert_eq!(owner.delete(&format!("/api/v1/api-tokens/{id}")).await.status, 204);
    assert_eq!(viewer.get("/daemons").await.status, 401);
    assert_eq!(owner.delete(&format!("/api/v1/api-tokens/{id}")).await.status, 404);
    let said = owner.get("/api/v1/audit?search=api%20token").await;
    assert!(
        said.body.contains("make an API token") && said.body.contains("end an API token"),
        "{}",
        said.body
    );
    assert!(!said.body.contains("mycapi_"), "{}", said.body);
}

#[tokio::test]
async fn users_have_scopes_and_drafts_are_kept() {
    let (plane, owner) = world().await;
    let user =
        json!({ "name": "bea", "role": "operator", "password": "correct horse battery", "scope": "site=berlin" });
    assert_eq!(owner.post("/api/v1/users", user).await.status, 204);
    let mut bea = Browser {
        http: plane.http.clone(),
        cookie: None,
    };
    let body = json!({ "name": "bea", "password": "correct horse battery" });
    let answer = bea.post("/api/v1/session", body).await;
    bea.cookie = answer.headers["set-cookie"].split(';').next().map(str::to_string);
    let session = bea.get("/api/v1/session").await.json();
    assert_eq!(
        session["user"],
        json!({ "name": "bea", "role": Rank::Operator, "scope": "site=berlin" })
    );
    assert_eq!(names(&bea.get("/api/v1/daemons").await), ["gw-1"]);

    let draft = json!({ "text": "name = \"half", "layout": { "clock": [1, 2] } });
    let put = async |browser: &Browser, name: &str, tag: &[(&str, &str)]| {
        let body = draft.to_string();
        browser
            .send("PUT", &format!("/api/v1/drafts/{name}"), tag, Some(&body))
            .await
    };
    let first = put(&owner, "orders", &[("if-none-match", "*")]).await;
    assert_eq!((first.status, first.headers["etag"].as_str()), (200, "\"1\""));
    assert_eq!(put(&owner, "orders", &[("if-none-match", "*")]).await.status, 412);
    assert_eq!(
        put(&owner, "orders", &[("if-match", "\"1\"")]).await.headers["etag"],
        "\"2\""
    );
    assert_eq!(put(&owner, "orders", &[("if-match", "\"1\"")]).await.status, 412);
    let unsaid = put(&owner, "orders", &[]).await;
    assert_eq!(unsaid.status, 428, "{}", unsaid.body);
    assert_eq!(put(&owner, "No-Name", &[("if-none-match", "*")]).await.status, 400);
    let shown = owner.get("/api/v1/drafts/orders").await;
    assert_eq!(
        (&shown.json()["text"], &shown.json()["layout"]),
        (&draft["text"], &draft["layout"])
    );
    assert_eq!(shown.headers["etag"], "\"2\"");
    // Texts of others name what a scope hides.
    assert_eq!(bea.get("/api/v1/drafts/orders").await.status, 404);
    assert_eq!(put(&bea, "orders", &[("if-match", "*")]).await.status, 409);
    assert_eq!(bea.delete("/api/v1/drafts/orders").await.status, 404);
    let own = put(&bea, "own", &[("if-none-match", "*")]).await;
    assert_eq!(own.status, 200);
    // What somebody else has touched stays hers, but for what was written.
    let touched = put(&owner, "own", &[("if-match", own.headers["etag"].as_str())]).await;
    assert_eq!(touched.status, 200, "{}", touched.body);
    let hidden = bea.get("/api/v1/drafts/own").await;
    assert_eq!(hidden.status, 403, "{}", hidden.body);
    assert!(
        hidden.body.contains("'owner' has gone on") && !hidden.body.contains("half"),
        "{}",
        hidden.body
    );
    assert_eq!(names(&bea.get("/api/v1/drafts").await), ["own"]);
    let again = put(&bea, "own", &[("if-match", touched.headers["etag"].as_str())]).await;
    assert_eq!(again.status, 200, "{}", again.body);
    let shown = bea.get("/api/v1/drafts/own").await;
    assert_eq!((shown.status, &shown.json()["by"]), (200, &json!("bea")));
    assert_eq!(names(&bea.get("/api/v1/drafts").await), ["own"]);
    assert_eq!(names(&owner.get("/api/v1/drafts").await), ["orders", "own"]);
    let long = json!({ "text": "x".repeat(300 * 1024) });
    assert_eq!(owner.put("/api/v1/drafts/long", long).await.status, 400);
    let stale = owner
        .send("DELETE", "/api/v1/drafts/orders", &[("if-match", "\"1\"")], None)
        .await;
    assert_eq!(stale.status, 412);
    assert_eq!(owner.delete("/api/v1/drafts/orders").await.status, 204);
    assert_eq!(owner.get("/api/v1/drafts/orders").await.status, 404);
    let noted = owner.get("/api/v1/audit?search=draft").await.json();
    let noted = noted["items"].as_array().unwrap().iter().map(|entry| {
        format!(
            "{} {} {}",
            entry["event"]["who"], entry["event"]["action"], entry["event"]["what"]
        )
        .replace('"', "")
    });
    assert_eq!(
        noted.collect::<Vec<_>>(),
        [
            "owner forget a draft orders",
            "bea write a draft own",
            "owner write a draft own",
            "bea write a draft own",
            "owner write a draft orders"
        ],
        "not each time that one is kept"
    );
    // A draft is none of the fleet's workflows.
    assert_eq!(owner.get("/api/v1/workflows/own").await.status, 404);
}

#[tokio::test]
async fn why_a_revision_was_applied_stands_with_it() {
    let (_plane, owner) = world().await;
    let wish = json!({ "text": text("b", "gw-1", "gw-1", "y"), "reason": "the shop has moved" });
    let answer = owner.put("/api/v1/workflows/b", wish).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let back = json!({ "revision": 1, "reason": "it had not" });
    let back = back.to_string();
    // What is replaced has to be said; what somebody has applied since is not.
    for (tag, status) in [
        (&[][..], 428),
        (&[("if-match", "\"1\"")], 412),
        (&[("if-match", "\"2\"")], 200),
    ] {
        let path = "/api/v1/workflows/b/rollback";
        let answer = owner.send("POST", path, tag, Some(&back)).await;
        assert_eq!(answer.status, status, "{tag:?}: {}", answer.body);
    }
    let revisions = owner.get("/api/v1/workflows/b/revisions").await.json();
    let reasons: Vec<_> = revisions["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|revision| {
            (
                revision["number"].as_u64().unwrap(),
                revision["reason"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(reasons, [(3, "it had not"), (2, "the shop has moved"), (1, "")]);
    let audit = owner.get("/api/v1/audit?search=moved").await.body;
    assert!(audit.contains("b (the shop has moved) revision 2"), "{audit}");
    for (tag, status) in [
        (&[][..], 428),
        (&[("if-match", "\"2\"")], 412),
        (&[("if-match", "\"3\"")], 200),
        (&[("if-match", "\"3\"")], 404),
    ] {
        let answer = owner.send("DELETE", "/api/v1/workflows/b", tag, None).await;
        assert_eq!(answer.status, status, "{tag:?}: {}", answer.body);
    }
}
