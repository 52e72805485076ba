//! Logging in through an OpenID Connect provider that is not ours, with a browser that is not ours: who comes in as what, and who
//! does not when something on the way is wrong.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

mod common;

use common::{Browser, Plane};
use serde_json::{Value, json};
use testkit::{Oidc, Walker};

fn settings(oidc: &Oidc, client: &str, more: &str) -> String {
    let secret = match client {
        "plane-public" => "",
        _ => "client_secret = { file = \"oidc.secret\" }\n",
    };
    format!(
        "\n[web.oidc]\nname = \"Plant\"\nissuer = \"{}\"\nclient_id = \"{client}\"\n{secret}{more}\n\
         [web.oidc.roles]\nadmin = [\"ops\"]\nviewer = [\"staff\"]\n",
        oidc.issuer()
    )
}

/// Starts the plane again with these settings behind all others.
async fn again(plane: &mut Plane, plain: &str, more: &str) {
    plane.stop().await;
    let dir = plane.dir.path();
    std::fs::write(dir.join("oidc.secret"), format!("{}\n", Oidc::SECRET)).unwrap();
    std::fs::write(dir.join("plane.toml"), format!("{plain}{more}")).unwrap();
    plane.start_again().await;
}

async fn plane_with(more: &str) -> (Plane, String) {
    let mut plane = Plane::start().await;
    let plain = std::fs::read_to_string(plane.dir.path().join("plane.toml")).unwrap();
    again(&mut plane, &plain, more).await;
    (plane, plain)
}

fn begin(plane: &Plane) -> String {
    format!("http://{}/api/v1/session/oidc", plane.http)
}

/// Away from the thread on which the plane lives.
async fn apart<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(job).await.unwrap()
}

/// Somebody walks through the provider, and comes back; the walker, and where it was led back to.
async fn walked(plane: &Plane, name: &'static str) -> (Walker, String) {
    let begin = begin(plane);
    apart(move || {
        let walker = Walker::new();
        let back = walker.log_in(&begin, name);
        (walker, back)
    })
    .await
}

/// The status and the words of the plane for who comes back there.
async fn comes_back(walker: Walker, url: String) -> (Walker, u16, String) {
    apart(move || {
        let seen = walker.open(&url, None);
        let words = format!("{} {}", seen.leads_to, seen.body);
        (walker, seen.status, words)
    })
    .await
}

async fn session(plane: &Plane, walker: Walker) -> (Walker, Value) {
    let url = format!("http://{}/api/v1/session", plane.http);
    let (walker, _, body) = comes_back(walker, url).await;
    (walker, serde_json::from_str(body.trim()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn people_come_in_as_what_their_groups_say() {
    let oidc = Oidc::start();
    let (mut plane, plain) = plane_with(&settings(&oidc, "plane-rs", "")).await;
    let shown = plane.browser().await.get("/api/v1/session").await.json();
    assert_eq!(shown["oidc"], json!("Plant"));

    // The token does not say the groups, so the userinfo endpoint is asked.
    let (walker, back) = walked(&plane, "ada").await;
    let (walker, status, words) = comes_back(walker, back.clone()).await;
    assert_eq!(status, 303, "{words}");
    assert!(words.starts_with(&format!("http://{}/", plane.http)), "{words}");
    let (walker, shown) = session(&plane, walker).await;
    let ada = json!({ "name": "oidc:ada@example.com", "role": "admin", "scope": null });
    assert_eq!(shown["user"], ada);
    // The same answer once more.
    let (_, status, words) = comes_back(walker, back).await;
    assert_eq!(status, 403, "{words}");

    let owner = plane.browser().await;
    let audit = owner.get("/api/v1/audit?search=subject").await.body;
    assert!(
        audit.contains("oidc:ada@example.com") && audit.contains("as subject ada"),
        "{audit}"
    );

    // Another algorithm, another way to show the secret, claims in the token; a viewer.
    oidc.inline(true);
    again(&mut plane, &plain, &settings(&oidc, "plane-es", "")).await;
    let (walker, back) = walked(&plane, "bob").await;
    let (walker, status, words) = comes_back(walker, back).await;
    assert_eq!(status, 303, "{words}");
    let (walker, shown) = session(&plane, walker).await;
    assert_eq!(shown["user"]["role"], json!("viewer"));
    let (_, status, _) = comes_back(walker, format!("http://{}/api/v1/users", plane.http)).await;
    assert_eq!(status, 403, "it is no admin");
    let asked: Value = serde_json::from_str(&oidc.asked()).unwrap();
    assert_eq!(asked["/me"], json!(1), "only where the token did not say it: {asked}");

    // A client without a secret, and only a part of the fleet.
    let scope = "[web.oidc.fleet_scope]\nvalues = { berlin = \"site=berlin\", ops = \"\" }\n";
    let text = format!("{}{scope}", settings(&oidc, "plane-public", ""));
    again(&mut plane, &plain, &text).await;
    for (name, scope) in [("bob", json!("site=berlin")), ("ada", json!(null))] {
        let (walker, back) = walked(&plane, name).await;
        let (walker, status, words) = comes_back(walker, back).await;
        assert_eq!(status, 303, "{words}");
        assert_eq!(session(&plane, walker).await.1["user"]["scope"], scope);
    }

    // Whoever has no group that gives a role.
    let (walker, back) = walked(&plane, "eve").await;
    let (_, status, words) = comes_back(walker, back).await;
    assert_eq!(status, 403);
    assert!(
        words.contains("has no role here") && words.contains("<html"),
        "a page: {words}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_end_with_their_settings_and_by_an_admin() {
    let oidc = Oidc::start();
    let (mut plane, plain) = plane_with(&settings(&oidc, "plane-rs", "")).await;
    let (walker, back) = walked(&plane, "ada").await;
    let (walker, status, _) = comes_back(walker, back).await;
    assert_eq!(status, 303);
    // The same settings again: it goes on.
    again(&mut plane, &plain, &settings(&oidc, "plane-rs", "")).await;
    let (walker, shown) = session(&plane, walker).await;
    assert_eq!(shown["user"]["role"], json!("admin"));
    let owner = plane.browser().await;
    assert_eq!(owner.delete("/api/v1/users/oidc:ada@example.com").await.status, 204);
    assert_eq!(owner.delete("/api/v1/users/oidc:ada@example.com").await.status, 404);
    let (_, shown) = session(&plane, walker).await;
    assert_eq!(shown["user"], json!(null));

    let (walker, back) = walked(&plane, "ada").await;
    let (walker, status, _) = comes_back(walker, back).await;
    assert_eq!(status, 303);
    again(&mut plane, &plain, "").await;
    let (walker, shown) = session(&plane, walker).await;
    assert_eq!((&shown["user"], &shown["oidc"]), (&json!(null), &json!(null)));
    let (_, status, words) = comes_back(walker, begin(&plane)).await;
    assert_eq!(status, 404, "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_on_the_way_lets_nobody_in() {
    let oidc = Oidc::start();
    let (mut plane, plain) = plane_with(&settings(&oidc, "plane-rs", "")).await;

    // What the provider's token says.
    for client in ["plane-rs", "plane-es"] {
        if client == "plane-es" {
            again(&mut plane, &plain, &settings(&oidc, client, "")).await;
        }
        for (lie, said) in [
            ("nonce", "its nonce"),
            ("audience", "its audience"),
            ("issuer", "another issuer"),
            ("expired", "has expired"),
            ("none", "only RS256 and ES256"),
            ("foreign", "no key of the provider"),
        ] {
            oidc.lie(lie);
            let (walker, back) = walked(&plane, "ada").await;
            let (walker, status, words) = comes_back(walker, back).await;
            assert_eq!(status, 403, "{lie}: {words}");
            assert!(words.contains(said), "{lie}: {words}");
            assert_eq!(session(&plane, walker).await.1["user"], json!(null), "{lie}");
        }
        oidc.lie("nothing");
        // New keys are fetched when a token fits none.
        let (walker, back) = walked(&plane, "ada").await;
        assert_eq!(comes_back(walker, back).await.1, 303);
        tokio::time::sleep(std::time::Duration::from_secs(6)).await;
        oidc.rotate();
        let (walker, back) = walked(&plane, "ada").await;
        let (_, status, words) = comes_back(walker, back).await;
        assert_eq!(status, 303, "{client}: {words}");
    }
    let owner = plane.browser().await;
    let audit = owner.get("/api/v1/audit?search=nonce").await.body;
    assert!(
        audit.contains("log in to the page") && audit.contains("refused"),
        "{audit}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_in_the_browser_lets_nobody_in() {
    let oidc = Oidc::start();
    let (plane, _) = plane_with(&settings(&oidc, "plane-rs", "")).await;
    let (walker, back) = walked(&plane, "ada").await;
    let with = |name: &str, value: &str| {
        let (path, query) = back.split_once('?').unwrap();
        let pairs = query.split('&').filter(|pair| !pair.starts_with(&format!("{name}=")));
        let pairs: Vec<&str> = pairs.collect();
        format!("{path}?{}{value}", pairs.join("&"))
    };
    let mut walker = walker;
    for (url, status, said) in [
        (with("state", "&state=another"), 403, "another log-in"),
        (with("state", ""), 403, "another log-in"),
        (
            with("iss", "&iss=https%3A%2F%2Fid.example.com"),
            403,
            "another provider",
        ),
        (
            with("code", "&error=access_denied&error_description=a%3Cb"),
            403,
            "access_denied a&lt;b",
        ),
        (with("code", ""), 400, "has no code"),
        (with("code", "&code=another"), 403, "invalid_grant"),
    ] {
        let (back, got, words) = comes_back(walker, url.clone()).await;
        assert_eq!(got, status, "{url}: {words}");
        assert!(words.contains(said), "{url}: {words}");
        walker = back;
    }
    // Another browser shows the very same answer.
    let (_, status, words) = comes_back(Walker::new(), back.clone()).await;
    assert_eq!(status, 403);
    assert!(words.contains("not begun in this browser"), "{words}");
    // Whoever tries often has to wait.
    let mut status = 0;
    for _ in 0..12 {
        let (back, got, _) = comes_back(walker, with("code", "&code=another")).await;
        (walker, status) = (back, got);
    }
    assert_eq!(status, 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_away_is_named() {
    let oidc = Oidc::start();
    let (plane, _) = plane_with(&settings(&oidc, "plane-rs", "")).await;
    oidc.stop();
    let (walker, status, words) = comes_back(Walker::new(), begin(&plane)).await;
    assert_eq!(status, 502);
    assert!(
        words.contains("<html") && words.contains("Plant cannot be asked") && words.contains("cannot reach"),
        "{words}"
    );
    oidc.start();
    // It is not asked again at once.
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    let (_, status, words) = comes_back(walker, begin(&plane)).await;
    assert_eq!(status, 303, "{words}");
    let stranger = Browser {
        http: plane.http.clone(),
        cookie: None,
    };
    let answer = stranger.get("/api/v1/session/oidc").await;
    let (location, cookie) = (&answer.headers["location"], &answer.headers["set-cookie"]);
    for part in [
        "response_type=code&",
        "code_challenge_method=S256",
        "&nonce=",
        "&state=",
        "scope=openid%20profile",
    ] {
        assert!(location.contains(part), "{part} in {location}");
    }
    for part in ["HttpOnly", "SameSite=Lax", "Path=/api/v1/session/oidc", "Max-Age=600"] {
        assert!(cookie.contains(part), "{part} in {cookie}");
    }
    // An issuer that calls itself differently is none.
    let other = format!("http://localhost:{}", oidc.port());
    let (plane, _) = plane_with(&settings(&oidc, "plane-rs", "").replace(&oidc.issuer(), &other)).await;
    let (_, status, words) = comes_back(Walker::new(), begin(&plane)).await;
    assert_eq!(status, 502);
    assert!(words.contains("they have to be the same"), "{words}");
}
