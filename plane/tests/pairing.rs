//! Daemons without a token: they wait for approval, by a code that both sides show. With real sessions against a running plane.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

mod common;

use std::time::Duration;

use bus_link::{
    enrol::{EnrolError, enrol, enrol_showing},
    home::Membership,
};
use bus_schema::{
    api::{ApiCall, ApiResult, FailureKind},
    member::{Invitation, Role},
    message::HostFacts,
    pairing::{PairingCall, PairingResult, PendingView},
};
use common::{Member, Plane, SOON, bus_config, keys, wait_for};
use serde_json::json;
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

/// More than one candidate shows in a test.
const CODES_MAX: usize = 16;

/// A daemon that waits, and the codes it shows.
fn candidate(
    plane: &Plane,
    door: &Invitation,
    n: u8,
    name: &str,
) -> (JoinHandle<Result<Membership, EnrolError>>, mpsc::Receiver<String>) {
    let (shown, codes) = mpsc::channel(CODES_MAX);
    let (door, config, name) = (
        door.clone(),
        bus_config(&plane.bus, &format!("pair-{n}")),
        name.to_string(),
    );
    let waits = tokio::spawn(async move {
        let show = |code: &str| shown.try_send(code.to_string()).unwrap();
        enrol_showing(&door, config, &keys(n), &name, HostFacts::default(), SOON, show).await
    });
    (waits, codes)
}

async fn open(operator: &mut Member, ttl_s: u64) -> Invitation {
    match operator.call(ApiCall::Pairing(PairingCall::Open { ttl_s })).await {
        ApiResult::Token(text) => Invitation::decode(&text).unwrap(),
        other => panic!("{other:?}"),
    }
}

async fn pairing(operator: &mut Member, call: PairingCall) -> PairingResult {
    match operator.call(ApiCall::Pairing(call)).await {
        ApiResult::Pairing(result) => result,
        other => panic!("{other:?}"),
    }
}

async fn waiting(operator: &mut Member, count: usize) -> Vec<PendingView> {
    for _ in 0..200 {
        let waiting = pairing(operator, PairingCall::List).await.waiting;
        if waiting.len() == count {
            return waiting;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{count} candidates do not wait");
}

#[tokio::test]
async fn a_daemon_waits_until_its_code_is_approved() {
    let mut plane = Plane::start().await;
    let mut operator = plane.member(Role::Operator, 9, "anna").await;
    operator.up().await;
    let door = open(&mut operator, 600).await;
    assert!(door.is_open() && door.secret == [0; 16]);
    let (first, mut codes) = candidate(&plane, &door, 1, "gw");
    let (_second, mut others) = candidate(&plane, &door, 2, "gw");
    let [code, other] = [codes.recv().await.unwrap(), others.recv().await.unwrap()];
    let seen = waiting(&mut operator, 2).await;
    let shown: Vec<&str> = seen.iter().map(|view| view.code.as_str()).collect();
    assert!(shown.contains(&code.as_str()) && shown.contains(&other.as_str()) && code != other);
    // What is not shown approves nobody.
    let wrong = PairingCall::Approve {
        code: "aaaa-aaaa".into(),
        name: None,
    };
    let refused = operator.call(ApiCall::Pairing(wrong)).await;
    assert!(matches!(refused, ApiResult::Failed(failure) if failure.kind == FailureKind::NotFound));
    let done = pairing(&mut operator, PairingCall::Approve { code, name: None }).await;
    assert_eq!((done.done.as_str(), done.waiting.len()), ("gw", 1));
    let membership = timeout(SOON, first).await.unwrap().unwrap().unwrap();
    let certificate = membership.certificate.open(&membership.root).unwrap();
    assert_eq!((certificate.name.as_str(), certificate.role), ("gw", Role::Daemon));
    // The plane starts again: who waits begins anew, and shows another code.
    plane.stop().await;
    plane.start_again().await;
    let again = timeout(SOON, others.recv()).await.unwrap().unwrap();
    assert_ne!(again, other);
    assert_eq!(waiting(&mut operator, 1).await[0].code, again);
}

#[tokio::test]
async fn who_is_rejected_or_comes_when_it_is_closed_hears_so() {
    let plane = Plane::start().await;
    let mut operator = plane.member(Role::Operator, 9, "anna").await;
    operator.up().await;
    let door = open(&mut operator, 600).await;
    let (waits, mut codes) = candidate(&plane, &door, 1, "gw");
    let code = codes.recv().await.unwrap();
    waiting(&mut operator, 1).await;
    let browser = plane.browser().await;
    let shown = browser.get("/api/v1/pending/door").await.json();
    assert_eq!(shown["invitation"], json!(door.encode()));
    assert!(shown["open_until_unix_ms"].as_i64().is_some_and(|until| until > 0));
    let list = browser.get("/api/v1/pending").await.json();
    assert_eq!(list["items"][0]["code"], json!(code));
    let answer = browser.post(&format!("/api/v1/pending/{code}/reject"), json!({})).await;
    assert_eq!((answer.status, answer.json()), (200, json!({ "name": "gw" })));
    let refused = timeout(SOON, waits).await.unwrap().unwrap().unwrap_err();
    assert!(refused.to_string().contains("rejected"), "{refused}");
    // What the string holds in the place of a token enrols nobody.
    let mut forged = door.clone();
    forged.token = bus_schema::id::TokenId::from_hash(&[3; 32]);
    let config = bus_config(&plane.bus, "forged");
    let refused = enrol(&forged, config, &keys(3), "x", HostFacts::default(), SOON).await;
    assert!(refused.unwrap_err().to_string().contains("not valid here"));
    pairing(&mut operator, PairingCall::Close).await;
    let shown = browser.get("/api/v1/pending/door").await.json();
    assert_eq!(shown["open_until_unix_ms"], json!(null));
    let (waits, _codes) = candidate(&plane, &door, 1, "gw");
    let refused = timeout(SOON, waits).await.unwrap().unwrap().unwrap_err();
    assert!(refused.to_string().contains("mycelial enrol open"), "{refused}");
    let ttl_s = open(&mut operator, 1).await;
    assert_eq!(ttl_s, door, "always the same");
    wait_for("the audit to say so", async || {
        let audit = browser.get("/api/v1/audit?search=reject").await.body;
        audit.contains("reject a daemon").then_some(())
    })
    .await;
}
