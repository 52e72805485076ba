//! The table of permissions, walked: each endpoint answers only to those who may. Against a running plane.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

mod common;

use std::time::Duration;

use common::{Browser, Plane, SOON, code_of};
use plane::{
    http::table::{Endpoint, endpoints},
    login::login_command,
    permission::{Caller, Need, Rank},
};
use serde_json::json;
use tokio::{io::AsyncReadExt as _, time::timeout};

const PASSWORD: &str = "correct horse battery";

fn stranger(plane: &Plane) -> Browser {
    Browser {
        http: plane.http.clone(),
        cookie: None,
    }
}

async fn log_in(plane: &Plane, body: serde_json::Value) -> (u16, Browser) {
    let mut browser = stranger(plane);
    let answer = browser.post("/api/v1/session", body).await;
    let cookie = answer.headers.get("set-cookie");
    browser.cookie = cookie.and_then(|cookie| cookie.split(';').next()).map(str::to_string);
    (answer.status, browser)
}

/// The status alone: some answers never end.
async fn status(browser: &Browser, endpoint: &Endpoint) -> u16 {
    let path = endpoint.path.replace('{', "no-").replace('}', "");
    let body = endpoint.body.map(|_| "{}");
    let path = format!("/api/v1{path}");
    let mut stream = browser.open(endpoint.verb.word(), &path, &[], body).await;
    let mut head = [0; 12];
    timeout(SOON, stream.read_exact(&mut head)).await.unwrap().unwrap();
    std::str::from_utf8(&head[9..]).unwrap().parse().unwrap()
}

#[tokio::test]
async fn each_endpoint_answers_only_to_those_who_may() {
    // Without it, what needs it is refused to all.
    let plane = Plane::start_with("web.operator = true\n").await;
    let owner = plane.browser().await;
    let mut people = vec![(None, stranger(&plane)), (Some(Rank::Admin), owner.clone())];
    for rank in Rank::ALL {
        let user = json!({ "name": rank.word(), "role": rank, "password": PASSWORD });
        assert_eq!(owner.post("/api/v1/users", user).await.status, 204);
        let (status, browser) = log_in(&plane, json!({ "name": rank.word(), "password": PASSWORD })).await;
        assert_eq!(status, 204);
        people.push((Some(rank), browser));
    }
    let mut seen = [0; 2];
    for endpoint in endpoints() {
        let place = format!("{} {}", endpoint.verb.word(), endpoint.path);
        if place == "DELETE /session" {
            assert_eq!(endpoint.need, Need::Open, "it would end the sessions of this test");
            continue;
        }
        for (rank, browser) in &people {
            let caller = rank.map(|rank| Caller::whole("x", rank, "x"));
            let may = endpoint.need.judge(caller.as_ref()).is_ok();
            let status = status(browser, &endpoint).await;
            let refused = if rank.is_none() { 401 } else { 403 };
            assert_eq!(status != refused, may, "{place} by {rank:?}: {status}");
            assert!(status < 500, "{place} by {rank:?}: {status}");
            seen[usize::from(may)] += 1;
        }
    }
    assert!(seen.iter().all(|count| *count > 10), "{seen:?}");
    // A few by hand, so that a table that allows everything does not pass.
    let [viewer, operator] = [2, 3].map(|index: usize| people[index].1.clone());
    for (browser, method, path, expected) in [
        (&viewer, "GET", "/api/v1/info", 200),
        (&viewer, "DELETE", "/api/v1/workflows/a", 403),
        (&operator, "DELETE", "/api/v1/workflows/a", 404),
        (&operator, "GET", "/api/v1/users", 403),
        (&owner, "GET", "/api/v1/users", 200),
    ] {
        let answer = browser.send(method, path, &[("if-match", "*")], None).await;
        assert_eq!(answer.status, expected, "{method} {path}: {}", answer.body);
    }
    // An operator of the bus may everything: nobody below an admin lets one in.
    for (browser, role, expected) in [
        (&viewer, "daemon", 403),
        (&operator, "daemon", 200),
        (&operator, "operator", 403),
        (&owner, "operator", 200),
    ] {
        let answer = browser.post("/api/v1/tokens", json!({ "role": role })).await;
        assert_eq!(answer.status, expected, "{role}: {}", answer.body);
    }
}

#[tokio::test]
async fn the_first_admin_passwords_and_sessions() {
    let mut plane = Plane::start().await;
    let setup = stranger(&plane).get("/api/v1/session").await.json();
    assert_eq!((&setup["setup"], &setup["user"]), (&json!(true), &json!(null)));
    let code = || code_of(&login_command(plane.dir.path()).unwrap().0).to_string();
    let first = |code: String| json!({ "code": code, "name": "ada", "password": PASSWORD });
    // A password that is too short does not use the code up.
    let once = code();
    let short = json!({ "code": once, "name": "ada", "password": "short" });
    assert_eq!(log_in(&plane, short).await.0, 400);
    let (status, mut ada) = log_in(&plane, first(once)).await;
    assert_eq!(status, 204);
    let session = ada.get("/api/v1/session").await.json();
    assert_eq!(
        (&session["setup"], &session["user"]),
        (&json!(false), &json!({ "name": "ada", "role": "admin", "scope": null }))
    );
    assert_eq!(log_in(&plane, first(code())).await.0, 409, "only the first");

    // Users and their sessions outlive a restart.
    plane.stop().await;
    plane.start_again().await;
    ada.http = plane.http.clone();
    let (_, other) = log_in(&plane, json!({ "name": "ada", "password": PASSWORD })).await;
    assert_eq!(other.get("/api/v1/info").await.status, 200);
    let change = |old: &str| json!({ "old": old, "new": "another password" });
    assert_eq!(
        ada.put("/api/v1/session/password", change("wrong one")).await.status,
        403
    );
    assert_eq!(ada.put("/api/v1/session/password", change(PASSWORD)).await.status, 204);
    assert_eq!(ada.get("/api/v1/info").await.status, 200);
    assert_eq!(
        other.get("/api/v1/info").await.status,
        401,
        "the other session has ended"
    );

    let bob = json!({ "name": "bob", "role": "viewer", "password": PASSWORD });
    assert_eq!(ada.post("/api/v1/users", bob.clone()).await.status, 204);
    assert_eq!(ada.post("/api/v1/users", bob).await.status, 409);
    let (_, bob) = log_in(&plane, json!({ "name": "bob", "password": PASSWORD })).await;
    assert_eq!(bob.get("/api/v1/tokens").await.status, 403);
    let promote = json!({ "role": "operator" }).to_string();
    assert_eq!(
        ada.send("PATCH", "/api/v1/users/bob", &[("if-match", "*")], Some(&promote))
            .await
            .status,
        204
    );
    assert_eq!(bob.get("/api/v1/tokens").await.status, 200, "at once");
    assert_eq!(ada.delete("/api/v1/users/bob").await.status, 204);
    assert_eq!(bob.get("/api/v1/info").await.status, 401);
    let list = ada.get("/api/v1/users").await.body;
    assert!(
        list.contains("ada") && !list.contains("bob") && !list.contains("argon2"),
        "{list}"
    );
}

#[tokio::test]
async fn behind_a_proxy_people_are_told_apart_if_it_is_one() {
    for (settings, is_believed) in [("web.proxies = [\"127.0.0.1\"]\n", true), ("", false)] {
        let plane = Plane::start_with(settings).await;
        let owner = plane.browser().await;
        let user = json!({ "name": "ada", "role": "viewer", "password": PASSWORD });
        assert_eq!(owner.post("/api/v1/users", user).await.status, 204);
        let log_in = async |name: &str, password: &str, from: &str| {
            let body = json!({ "name": name, "password": password }).to_string();
            let headers = [("x-forwarded-for", from), ("x-forwarded-proto", "https")];
            let stranger = stranger(&plane);
            stranger.send("POST", "/api/v1/session", &headers, Some(&body)).await
        };
        for n in 0..10 {
            // What its sender wrote before the proxy changes nothing.
            let from = format!("192.0.2.{n}, 198.51.100.7");
            assert_eq!(log_in(&format!("user-{n}"), "guess", &from).await.status, 401);
        }
        assert_eq!(log_in("ada", PASSWORD, "198.51.100.7").await.status, 429);
        let other = log_in("ada", PASSWORD, "198.51.100.8").await;
        assert_eq!(other.status, if is_believed { 204 } else { 429 }, "{settings}");
        if is_believed {
            assert!(other.headers["set-cookie"].contains("; Secure"), "{:?}", other.headers);
        }
        let audit = owner.get("/api/v1/audit?search=198.51.100.8").await.json();
        let noted = audit["items"].as_array().unwrap().len();
        assert_eq!(noted, usize::from(is_believed), "{audit}");
    }
    // Without TLS a cookie that is for TLS only would never come back.
    let plane = Plane::start().await;
    let code = code_of(&login_command(plane.dir.path()).unwrap().0).to_string();
    let body = json!({ "code": code }).to_string();
    let said = [("x-forwarded-proto", "https")];
    let answer = stranger(&plane)
        .send("POST", "/api/v1/session", &said, Some(&body))
        .await;
    assert!(!answer.headers["set-cookie"].contains("Secure"), "{:?}", answer.headers);
}

#[tokio::test]
async fn many_wrong_passwords_have_to_wait() {
    let plane = Plane::start().await;
    let mut statuses = Vec::new();
    for n in 0..12 {
        // Of one address, whatever the names.
        let wrong = json!({ "name": format!("user-{n}"), "password": "guess" });
        statuses.push(log_in(&plane, wrong).await.0);
    }
    assert_eq!(statuses[..10], [401; 10]);
    assert_eq!(statuses[10..], [429; 2]);
    let answer = stranger(&plane)
        .post("/api/v1/session", json!({ "name": "a", "password": "b" }))
        .await;
    assert!(answer.headers["retry-after"].parse::<u64>().unwrap() > 0);
    // Whoever has the plane's directory gets in.
    timeout(Duration::from_secs(10), plane.browser()).await.unwrap();
}
