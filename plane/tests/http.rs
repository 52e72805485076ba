//! The web page's door: who gets in, who does not, and what the JSON looks like. Against a real port.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

mod common;

use std::time::Duration;

use bus_schema::member::Role;
use common::{Browser, Plane, SOON, code_of, text};
use serde_json::json;
use tokio::{io::AsyncReadExt as _, time::timeout};

#[tokio::test]
async fn nobody_gets_in_without_a_session() {
    let plane = Plane::start().await;
    let stranger = Browser {
        http: plane.http.clone(),
        cookie: None,
    };
    let faker = Browser {
        cookie: Some("mycelial-aaaaaaaaaaaaaaaa=secret; other=1".into()),
        ..stranger.clone()
    };
    for path in [
        "/api/v1/info",
        "/api/v1/daemons",
        "/api/v1/daemons/x",
        "/api/v1/workflows",
        "/api/v1/workflows/x",
        "/api/v1/workflows/x/status",
        "/api/v1/ledger",
        "/api/v1/components",
        "/api/v1/access-list?broker=nats",
        "/api/v1/live",
        "/api/v1/no-such-thing",
    ] {
        for browser in [&stranger, &faker] {
            let answer = browser.get(path).await;
            assert_eq!(answer.status, 401, "{path}");
            assert!(
                answer.json()["hint"]
                    .as_str()
                    .unwrap()
                    .contains("mycelial-plane login --dir"),
                "{path}"
            );
        }
    }
    for (method, path) in [
        ("POST", "/api/v1/tokens"),
        ("PUT", "/api/v1/workflows/x"),
        ("DELETE", "/api/v1/workflows/x"),
    ] {
        let answer = stranger.send(method, path, &[], Some("{}")).await;
        assert_eq!(answer.status, 401, "{method} {path}");
    }
    let browser = plane.browser().await;
    let info = browser.get("/api/v1/info").await;
    assert_eq!((info.status, &info.json()["http"]), (200, &json!(plane.http)));
    assert_eq!(info.headers["cache-control"], "no-store");
}

#[tokio::test]
async fn a_link_works_once_and_a_session_survives_a_restart_until_it_is_ended() {
    let mut plane = Plane::start().await;
    // The first start's own link.
    let link = plane
        .greeting
        .split_whitespace()
        .find(|word| word.starts_with("http://"))
        .unwrap()
        .to_string();
    let mut browser = Browser {
        http: plane.http.clone(),
        cookie: None,
    };
    assert_eq!(browser.log_in("nonsense").await.status, 401);
    let answer = browser.log_in(code_of(&link)).await;
    assert_eq!(answer.status, 204);
    let cookie = &answer.headers["set-cookie"];
    for part in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let again = Browser {
        cookie: None,
        ..browser.clone()
    }
    .log_in(code_of(&link))
    .await;
    assert_eq!(again.status, 401);
    assert!(again.json()["detail"].as_str().unwrap().contains("used already"));

    plane.stop().await;
    plane.start_again().await;
    assert!(
        !plane.greeting.contains("#/login/"),
        "only the first start makes a link by itself"
    );
    browser.http = plane.http.clone();
    assert_eq!(browser.get("/api/v1/info").await.status, 200);
    assert_eq!(browser.send("DELETE", "/api/v1/session", &[], None).await.status, 204);
    assert_eq!(browser.get("/api/v1/info").await.status, 401);
    plane.stop().await;
    plane.start_again().await;
    browser.http = plane.http.clone();
    assert_eq!(browser.get("/api/v1/info").await.status, 401);
}

#[tokio::test]
async fn other_pages_and_other_names_are_refused() {
    let plane = Plane::start().await;
    let browser = plane.browser().await;
    let own = format!("http://{}", plane.http);
    let port = plane.http.rsplit(':').next().unwrap().to_string();
    let (localhost, rebound) = (format!("localhost:{port}"), format!("evil.example:{port}"));
    let local_origin = format!("http://{localhost}");
    // (method, headers, status)
    for (method, headers, status) in [
        ("GET", vec![], 200),
        ("GET", vec![("host", localhost.as_str())], 200),
        ("GET", vec![("host", rebound.as_str())], 421),
        ("GET", vec![("host", "127.0.0.1")], 421),
        ("POST", vec![], 200),
        ("POST", vec![("origin", own.as_str())], 200),
        (
            "POST",
            vec![("host", localhost.as_str()), ("origin", local_origin.as_str())],
            200,
        ),
        ("POST", vec![("origin", local_origin.as_str())], 403),
        ("POST", vec![("origin", "http://evil.example")], 403),
        ("POST", vec![("origin", "null")], 403),
        ("POST", vec![("sec-fetch-site", "same-origin")], 200),
        ("POST", vec![("sec-fetch-site", "cross-site")], 403),
        ("POST", vec![("sec-fetch-site", "same-site")], 403),
        ("POST", vec![("host", rebound.as_str())], 421),
        // A form of another page cannot send JSON.
        ("POST", vec![("content-type", "text/plain")], 415),
        ("POST", vec![("content-type", "application/x-www-form-urlencoded")], 415),
    ] {
        let (path, body) = match method {
            "GET" => ("/api/v1/info", None),
            _ => ("/api/v1/workflows/validate", Some(r#"{"text":""}"#)),
        };
        let answer = browser.send(method, path, &headers, body).await;
        assert_eq!(answer.status, status, "{method} {headers:?}: {}", answer.body);
    }
}

#[tokio::test]
async fn pages_are_ours_and_say_what_browsers_may_not_do() {
    let plane = Plane::start().await;
    let browser = Browser {
        http: plane.http.clone(),
        cookie: None,
    };
    for (path, mime) in [
        ("/", "text/html; charset=utf-8"),
        ("/plain.css", "text/css; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
    ] {
        let answer = browser.get(path).await;
        assert_eq!(
            (answer.status, answer.headers["content-type"].as_str()),
            (200, mime),
            "{path}"
        );
        assert!(answer.body.len() > 100, "{path}");
        let csp = &answer.headers["content-security-policy"];
        assert!(csp.contains("script-src 'self'") && !csp.contains("unsafe"), "{csp}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        let again = browser
            .send("GET", path, &[("if-none-match", &answer.headers["etag"])], None)
            .await;
        assert_eq!((again.status, again.body.as_str()), (304, ""), "{path}");
    }
    // Every file the page asks for is there.
    let page = browser.get("/").await.body;
    for link in page
        .split(['"', '\''])
        .filter(|part| part.starts_with('/') && part.len() > 1)
    {
        let file = browser.send("GET", link, &[("accept-encoding", "gzip")], None).await;
        assert_eq!(file.status, 200, "{link}");
        // What the bundler named by its content is kept for ever, and there compressed only, unless it is tiny.
        if link.starts_with("/assets/") {
            assert!(file.headers["cache-control"].contains("immutable"), "{link}");
            let plain = if file.headers.contains_key("content-encoding") {
                406
            } else {
                200
            };
            assert_eq!(browser.get(link).await.status, plain, "{link}");
        }
    }
    assert!(
        !page.contains("<script>") && !page.contains("style="),
        "nothing inline: the policy forbids it"
    );
    for path in ["/nothing", "/../plane.db", "/icon.svg/x", "/assets/none.js"] {
        assert_eq!(browser.get(path).await.status, 404, "{path}");
    }
    // Who looks at it in a browser's window gets a page, who calls it gets JSON.
    let window = [("accept", "text/html,application/xhtml+xml")];
    // An address of the page is its own matter.
    let answer = browser.send("GET", "/workflows/shop", &window, None).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, page.as_str()));
    for (path, status) in [("/assets/none.js", 404), ("/api/v1/ledger", 401)] {
        let answer = browser.send("GET", path, &window, None).await;
        assert_eq!(
            (answer.status, answer.headers["content-type"].as_str()),
            (status, "text/html; charset=utf-8")
        );
        assert!(answer.body.contains("<main>"), "{}", answer.body);
        assert_eq!(
            browser.get(path).await.headers["content-type"],
            "application/problem+json",
            "{path}"
        );
    }
    for path in ["/login", "/logout"] {
        let answer = browser.send("GET", path, &window, None).await;
        assert_eq!(
            (answer.status, answer.headers["location"].as_str()),
            (303, "/"),
            "{path}"
        );
    }
    let session = browser.get("/api/v1/session").await;
    assert_eq!((session.status, &session.json()["user"]), (200, &json!(null)));
    let session = plane.browser().await.get("/api/v1/session").await;
    assert_eq!(session.json()["user"]["name"], json!("owner"));
}

#[tokio::test]
async fn malformed_requests_get_an_answer_that_helps() {
    let plane = Plane::start().await;
    let browser = plane.browser().await;
    let long = json!({ "text": "x".repeat(600_000) }).to_string();
    // (method, path, body, status, a part of the message)
    for (method, path, body, status, part) in [
        ("GET", "/api/v1/nothing", None, 404, "no such call"),
        ("POST", "/api/v1/info", Some("{}"), 405, "that method"),
        (
            "GET",
            "/api/v1/daemons/nobody",
            None,
            404,
            "there is no daemon 'nobody'",
        ),
        ("GET", "/api/v1/daemons/%ff", None, 400, ""),
        (
            "GET",
            "/api/v1/workflows/nothing",
            None,
            404,
            "there is no workflow 'nothing'",
        ),
        ("DELETE", "/api/v1/workflows/nothing", None, 404, "there is no workflow"),
        ("PUT", "/api/v1/workflows/a", Some("not json"), 400, "JSON"),
        ("PUT", "/api/v1/workflows/a", Some("{}"), 422, "missing field `text`"),
        (
            "PUT",
            "/api/v1/workflows/a",
            Some(r#"{"text":"","x":1}"#),
            422,
            "unknown field `x`",
        ),
        (
            "PUT",
            "/api/v1/workflows/a",
            Some(r#"{"text":"nonsense"}"#),
            400,
            "nothing was changed",
        ),
        ("POST", "/api/v1/workflows/validate", Some(long.as_str()), 413, ""),
        ("POST", "/api/v1/tokens", Some(r#"{"role":"plane"}"#), 400, "one plane"),
        (
            "POST",
            "/api/v1/tokens",
            Some(r#"{"role":"king"}"#),
            422,
            "unknown variant `king`",
        ),
        (
            "POST",
            "/api/v1/tokens",
            Some(r#"{"role":"daemon","uses":0}"#),
            400,
            "not 0",
        ),
        (
            "POST",
            "/api/v1/tokens",
            Some(r#"{"role":"daemon","name":"Ä"}"#),
            400,
            "cannot be a name",
        ),
        (
            "POST",
            "/api/v1/tokens",
            Some(r#"{"role":"operator","labels":{"site":"berlin"}}"#),
            400,
            "only daemons have labels",
        ),
        ("GET", "/api/v1/access-list", None, 400, "broker"),
        ("GET", "/api/v1/access-list?broker=kafka", None, 400, "kafka"),
        ("POST", "/api/v1/session", Some("{}"), 400, "a code, are missing"),
    ] {
        let answer = browser.send(method, path, &[("if-match", "*")], body).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
        if !part.is_empty() {
            let message = answer.json()["detail"].as_str().unwrap().to_string();
            assert!(message.contains(part), "{method} {path}: {message}");
        }
    }
    // Still there.
    assert_eq!(browser.get("/api/v1/info").await.status, 200);
}

#[tokio::test]
async fn tokens_and_lists() {
    let plane = Plane::start().await;
    let browser = plane.browser().await;
    let answer = browser
        .post("/api/v1/tokens", json!({ "role": "daemon", "name": "gw" }))
        .await;
    let string = answer.json()["invitation"].as_str().unwrap().to_string();
    assert!(bus_schema::member::Invitation::decode(&string).is_ok());
    let labels = json!({ "site": "berlin" });
    let wish = json!({ "role": "daemon", "name": "hub", "labels": labels });
    assert_eq!(browser.post("/api/v1/tokens", wish).await.status, 200);
    let listed = browser.get("/api/v1/tokens").await.json();
    let of = |name: &str| {
        let items = listed["items"].as_array().unwrap();
        items.iter().find(|item| item["name"] == name).unwrap()["labels"].clone()
    };
    assert_eq!([of("gw"), of("hub")], [json!({}), labels]);
    for path in [
        "/api/v1/daemons",
        "/api/v1/workflows",
        "/api/v1/ledger",
        "/api/v1/components",
    ] {
        let answer = browser.get(path).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, r#"{"items":[],"next":null}"#),
            "{path}"
        );
    }
    let list = browser.get("/api/v1/access-list?broker=mosquitto").await;
    assert!(list.json()["text"].as_str().unwrap().contains("topic write myc/v1/"));
    let problems = browser
        .post(
            "/api/v1/workflows/validate",
            json!({ "text": text("a", "gw", "hub", "x") }),
        )
        .await;
    let problems = problems.json()["problems"].as_array().unwrap().clone();
    assert!(
        problems
            .iter()
            .any(|p| p["line"] == 5 && p["message"].as_str().unwrap().contains("gw")),
        "{problems:?}"
    );
    let other = browser
        .put("/api/v1/workflows/b", json!({ "text": text("a", "gw", "hub", "x") }))
        .await;
    assert!(
        other.json()["detail"]
            .as_str()
            .unwrap()
            .contains("the workflow 'a', not of 'b'")
    );
}

#[tokio::test]
async fn the_live_picture_comes_and_ends_with_the_plane() {
    let mut plane = Plane::start().await;
    let browser = plane.browser().await;
    let mut stream = browser.open("GET", "/api/v1/live", &[], None).await;
    let mut seen = String::new();
    let mut buffer = [0; 4096];
    timeout(SOON, async {
        while seen.matches("data: {").count() < 2 {
            let read = stream.read(&mut buffer).await.unwrap();
            assert_ne!(read, 0, "it ended: {seen}");
            seen.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        }
    })
    .await
    .unwrap();
    assert!(seen.contains("content-type: text/event-stream"), "{seen}");
    assert!(seen.contains(r#""daemons":[]"#), "{seen}");
    // An open page does not hold up the shutdown.
    timeout(Duration::from_secs(10), plane.stop()).await.unwrap();
    let mut rest = Vec::new();
    timeout(SOON, stream.read_to_end(&mut rest)).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let plane = Plane::start().await;
    let error = plane::http::bind(plane.http.parse().unwrap()).await.unwrap_err();
    for part in [plane.http.as_str(), "another program", "--http 127.0.0.1:0"] {
        assert!(error.contains(part), "{error}");
    }
}

#[tokio::test]
async fn metrics_are_for_those_who_show_the_token() {
    let mut plane = Plane::start().await;
    let stranger = Browser {
        http: plane.http.clone(),
        cookie: None,
    };
    let off = stranger.get("/metrics").await;
    assert_eq!(off.status, 404);
    assert!(off.json()["hint"].as_str().unwrap().contains("metrics_token_file"));

    plane.stop().await;
    let (settings, token) = (plane.dir.path().join("plane.toml"), plane.dir.path().join("m"));
    let text = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, format!("metrics_token_file = \"m\"\n{text}")).unwrap();
    std::fs::write(&token, "short\n").unwrap();
    let config = plane::config::Config::read(plane.dir.path()).unwrap();
    assert!(config.metrics_token().unwrap_err().to_string().contains("at least 16"));
    std::fs::write(&token, "a-token-that-is-long\nnot this\n").unwrap();
    plane.start_again().await;
    let stranger = Browser {
        http: plane.http.clone(),
        cookie: None,
    };
    for wrong in [
        &[][..],
        &[("authorization", "Bearer a-token-that-is-lonG")],
        &[("authorization", "a-token-that-is-long")],
    ] {
        assert_eq!(
            stranger.send("GET", "/metrics", wrong, None).await.status,
            401,
            "{wrong:?}"
        );
    }
    let _gw = plane.member(Role::Daemon, 1, "gw").await;
    let shown = &[("authorization", "Bearer a-token-that-is-long")];
    let answer = stranger.send("GET", "/metrics", shown, None).await;
    assert_eq!(answer.status, 200);
    assert!(answer.headers["content-type"].starts_with("text/plain; version=0.0.4"));
    assert!(
        answer.body.contains("mycelial_daemon_up{daemon=\"gw\"} 0"),
        "{}",
        answer.body
    );
}

#[tokio::test]
async fn a_change_says_what_it_replaces() {
    let plane = Plane::start().await;
    let mut operator = plane.member(Role::Operator, 9, "anna").await;
    operator.up().await;
    let mut gw = plane.member(Role::Daemon, 1, "gw").await;
    gw.announce(&operator).await;
    let browser = plane.browser().await;
    let bea = json!({ "name": "bea", "role": "viewer", "password": "correct horse battery" });
    assert_eq!(browser.post("/api/v1/users", bea).await.status, 204);
    let rule = json!({ "name": "off", "when": "offline", "over": 0, "for_s": 60, "severity": "info",
        "select": "", "workflow": "", "notify": [], "enabled": true });
    // (method, what is changed, to what, and to what next; whether it is there before)
    for (method, path, first, second, is_there) in [
        (
            "PUT",
            "/api/v1/workflows/a",
            json!({ "text": text("a", "gw", "gw", "x") }),
            json!({ "text": text("a", "gw", "gw", "y") }),
            false,
        ),
        (
            "PUT",
            "/api/v1/alerts/rules",
            json!({ "rules": [rule] }),
            json!({ "rules": [] }),
            true,
        ),
        (
            "PUT",
            "/api/v1/groups/north",
            json!({ "selector": "site=berlin" }),
            json!({ "selector": "site=bonn" }),
            false,
        ),
        (
            "PATCH",
            "/api/v1/users/bea",
            json!({ "role": "operator" }),
            json!({ "scope": "site=bonn" }),
            true,
        ),
    ] {
        let (first, second) = (first.to_string(), second.to_string());
        let change = async |header: &[(&str, &str)], body: &str| browser.send(method, path, header, Some(body)).await;
        let unsaid = change(&[], &first).await;
        assert_eq!(unsaid.status, 428, "{path}: {}", unsaid.body);
        assert!(
            unsaid.json()["hint"].as_str().unwrap().contains("If-Match: *"),
            "{}",
            unsaid.body
        );
        assert_eq!(
            change(&[("if-match", "7")], &first).await.status,
            400,
            "{path}: without quotes"
        );
        let before = browser.get(path).await;
        let old = if is_there {
            assert_eq!(change(&[("if-none-match", "*")], &first).await.status, 412, "{path}");
            before.headers["etag"].clone()
        } else {
            assert_eq!(before.status, 404, "{path}");
            assert_eq!(
                change(&[("if-match", "\"1\"")], &first).await.status,
                412,
                "{path}: there is none"
            );
            "\"9\"".to_string()
        };
        let header = if is_there {
            ("if-match", old.as_str())
        } else {
            ("if-none-match", "*")
        };
        let done = change(&[header], &first).await;
        assert!(matches!(done.status, 200 | 204), "{path}: {}", done.body);
        let now = browser.get(path).await.headers["etag"].clone();
        assert_ne!(now, old, "{path}");
        // Somebody who read it before does not take that back.
        let late = change(&[("if-match", &old)], &second).await;
        assert_eq!(late.status, 412, "{path}: {}", late.body);
        assert!(!late.json()["hint"].as_str().unwrap().is_empty(), "{}", late.body);
        assert_eq!(browser.get(path).await.headers["etag"], now, "{path}: nothing was done");
        assert_eq!(
            browser.send("GET", path, &[("if-none-match", &now)], None).await.status,
            304,
            "{path}"
        );
        let next = change(&[("if-match", &now)], &second).await;
        assert!(matches!(next.status, 200 | 204), "{path}: {}", next.body);
        if method == "PUT" {
            assert_eq!(next.headers["etag"], browser.get(path).await.headers["etag"], "{path}");
        }
        // For scripts.
        let any = change(&[("if-match", "*")], &first).await;
        assert!(matches!(any.status, 200 | 204), "{path}: {}", any.body);
    }
    let users = browser.get("/api/v1/users").await.json();
    let tag = format!("\"{}\"", users["items"][0]["etag"].as_str().unwrap());
    assert_eq!(browser.get("/api/v1/users/bea").await.headers["etag"], tag);
    assert_eq!(browser.get("/api/v1/users/nobody").await.status, 404);
    let nobody = browser.send("PATCH", "/api/v1/users/nobody", &[("if-match", "*")], Some("{}"));
    assert_eq!(nobody.await.status, 404);
}
