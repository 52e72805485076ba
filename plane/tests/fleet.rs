//! Enrolment, operators' calls, plans and accounts over a bus, with members that speak the protocol through real sessions.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

mod common;

use std::{path::Path, time::Duration};

use bus_link::{
    enrol::EnrolError,
    memory::{Faults, Hub},
    session::SessionEvent,
};
use bus_schema::{
    api::{ApiCall, ApiResult, BrokerKind, FailureKind, Presence},
    carried::{NodeCarried, StreamCarried, Work},
    id::{NodeId, StreamId, WorkflowId},
    member::{Invitation, Role},
    message::{Frame, Ledger, Ping, Pong, RunState, Side, StreamReport, WorkflowStatus},
    subject,
};
use common::{Member, Plane, SOON, keys, text, wait_for};
use tokio::time::timeout;

fn kind(result: &ApiResult) -> Option<FailureKind> {
    match result {
        ApiResult::Failed(failure) => Some(failure.kind),
        _ => None,
    }
}

fn revision(result: ApiResult) -> u32 {
    match result {
        ApiResult::Revision(revision) => revision,
        other => panic!("not a revision: {other:?}"),
    }
}

fn apply(text: String, expect_revision: Option<u32>) -> ApiCall {
    ApiCall::WorkflowApply { text, expect_revision }
}

#[tokio::test]
async fn candidates_are_enrolled_once_and_the_same_keys_get_the_same_answer() {
    let mut plane = Plane::start().await;
    let invitation = plane.invitation(Role::Daemon, None, 1);
    let first = plane.enrol(&invitation, 1, "gw").await.unwrap();
    let me = first.certificate.open(&first.root).unwrap();
    assert_eq!(
        (me.name.as_str(), me.role, me.node),
        ("gw", Role::Daemon, keys(1).public().node_id())
    );
    let roster = first.roster.open(&first.root).unwrap();
    assert_eq!((roster.version, roster.members.len()), (2, 2));
    // It did not hear the answer (and the plane was started anew meanwhile): it asks again, and nothing is used up.
    plane.stop().await;
    plane.start_again().await;
    let again = plane.enrol(&invitation, 1, "gw").await.unwrap();
    assert_eq!(
        (&again.certificate, again.roster),
        (&first.certificate, first.roster.clone())
    );
    // Somebody else is too late.
    let refused = |result: Result<_, EnrolError>, part: &str| match result {
        Err(EnrolError::Refused(why)) => assert!(why.contains(part), "{why}"),
        other => panic!("{part}: {other:?}"),
    };
    refused(plane.enrol(&invitation, 2, "other").await, "used up");
    let open = plane.invitation(Role::Daemon, None, 5);
    // Each is a candidate of its own: an answer does not say to which of a candidate's questions it belongs.
    refused(plane.enrol(&open, 5, "gw").await, "taken by another daemon");
    refused(plane.enrol(&open, 6, "plane").await, "taken by another plane");
    refused(plane.enrol(&open, 7, "No Name").await, "cannot be a name");
    let wrong = Invitation {
        secret: [0; 16],
        ..open.clone()
    };
    refused(plane.enrol(&wrong, 8, "hub").await, "not valid here");
    let fixed = plane.invitation(Role::Daemon, Some("pump"), 1);
    let pump = plane.enrol(&fixed, 3, "whatever").await.unwrap();
    assert_eq!(pump.certificate.open(&pump.root).unwrap().name, "pump");
    let operator = plane.invitation(Role::Operator, None, 1);
    refused(
        plane.enrol(&operator, 1, "gw").await,
        "already belong to the daemon 'gw'",
    );
}

#[tokio::test]
async fn only_operators_are_served() {
    let plane = Plane::start().await;
    let mut daemon = plane.member(Role::Daemon, 1, "gw").await;
    daemon.up().await;
    for call in [ApiCall::Info, ApiCall::Roster, apply(text("a", "gw", "gw", "x"), None)] {
        assert_eq!(kind(&daemon.call(call).await), Some(FailureKind::Forbidden));
    }
    let mut operator = plane.member(Role::Operator, 2, "anna").await;
    operator.up().await;
    let ApiResult::Info(info) = operator.call(ApiCall::Info).await else {
        panic!("info")
    };
    assert_eq!(
        (info.daemons, info.operators, info.http.as_str()),
        (1, 1, plane.http.as_str())
    );
    let ApiResult::Roster(put) = operator.call(ApiCall::Roster).await else {
        panic!("roster")
    };
    assert_eq!(put.roster.open(&operator.membership.root).unwrap().version, 3);
    // Anybody may ask whether the plane is there.
    for member in [&daemon, &operator] {
        let pong: Pong = member
            .session
            .request(&member.membership.plane, &Ping { nonce: 7 }, SOON)
            .await
            .unwrap();
        assert_eq!((pong.nonce, pong.role), (7, Role::Plane));
    }
    let ApiResult::AccessList(list) = operator.call(ApiCall::AccessList(BrokerKind::Nats)).await else {
        panic!("list")
    };
    assert!(list.contains(daemon.session.secure().node().as_str()));
}

#[tokio::test]
async fn a_workflow_is_checked_stored_and_deployed_until_every_daemon_has_it() {
    let plane = Plane::start().await;
    let mut operator = plane.member(Role::Operator, 9, "anna").await;
    operator.up().await;
    let [mut gw, mut hub] = [
        plane.member(Role::Daemon, 1, "gw").await,
        plane.member(Role::Daemon, 2, "hub").await,
    ];
    // Nobody has announced anything yet.
    let failed = operator.call(apply(text("shop", "gw", "hub", "p"), None)).await;
    assert_eq!(kind(&failed), Some(FailureKind::Invalid));
    gw.announce(&operator).await;
    hub.announce(&operator).await;
    let ApiResult::Components(components) = operator.call(ApiCall::Components).await else {
        panic!("components")
    };
    assert_eq!(
        components.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(),
        ["ticks", "shelf"]
    );

    let broken = text("shop", "gw", "hbu", "p");
    let ApiResult::Failed(failure) = operator.call(apply(broken.clone(), None)).await else {
        panic!("broken")
    };
    assert_eq!(failure.problems.len(), 1);
    assert!(
        failure.problems[0].hint.contains("hub") && failure.problems[0].line == 10,
        "{failure:?}"
    );
    let ApiResult::Problems(problems) = operator.call(ApiCall::WorkflowValidate { text: broken }).await else {
        panic!("problems")
    };
    assert_eq!(problems, failure.problems);

    let good = text("shop", "gw", "hub", "p");
    assert_eq!(revision(operator.call(apply(good.clone(), Some(0))).await), 1);
    assert_eq!(
        revision(operator.call(apply(good.clone(), None)).await),
        1,
        "the same text is the same revision"
    );
    assert_eq!(
        kind(&operator.call(apply(text("shop", "gw", "hub", "q"), Some(0))).await),
        Some(FailureKind::Conflict)
    );
    for daemon in [&mut gw, &mut hub] {
        daemon.behave(|daemon| daemon.plan.is_some()).await;
        let plan = daemon.plan.clone().unwrap();
        assert_eq!((plan.version, plan.daemon), (1, *daemon.session.secure().node()));
        assert_eq!(
            plan.workflows
                .iter()
                .map(|w| (w.name.as_str(), w.revision))
                .collect::<Vec<_>>(),
            [("shop", 1)]
        );
    }
    assert_eq!(
        revision(operator.call(apply(text("shop", "gw", "hub", "q"), Some(1))).await),
        2
    );
    gw.behave(|daemon| daemon.plan.as_ref().is_some_and(|plan| plan.version == 2))
        .await;

    // How it runs is what the daemons say.
    let id = WorkflowId::of_name("shop");
    gw.status.workflows = vec![WorkflowStatus {
        workflow: id,
        revision: 2,
        state: RunState::Retrying,
        cause: "locked".into(),
    }];
    gw.beat().await;
    wait_for("trouble", async || {
        match operator.call(ApiCall::WorkflowStatus("shop".into())).await {
            ApiResult::Status { view, parts, .. } => {
                let retrying = view.state == Some(RunState::Retrying) && parts[0].cause == "locked";
                (retrying && parts[0].daemon == "gw").then_some(())
            }
            other => panic!("{other:?}"),
        }
    })
    .await;

    let remove = |expect_revision| ApiCall::WorkflowRemove {
        name: "shop".into(),
        expect_revision,
    };
    let seen = match operator.call(ApiCall::WorkflowStatus("shop".into())).await {
        ApiResult::Status { view, .. } => view.revision,
        other => panic!("{other:?}"),
    };
    let moved = operator.call(remove(Some(seen + 1))).await;
    assert_eq!(kind(&moved), Some(FailureKind::Conflict), "{moved:?}");
    assert_eq!(revision(operator.call(remove(Some(seen))).await), 0);
    gw.behave(|daemon| {
        daemon
            .plan
            .as_ref()
            .is_some_and(|plan| plan.version == 3 && plan.workflows.is_empty())
    })
    .await;
    for call in [
        ApiCall::WorkflowShow("shop".into()),
        ApiCall::WorkflowDelete("shop".into()),
        remove(Some(seen)),
        remove(None),
    ] {
        assert_eq!(kind(&operator.call(call).await), Some(FailureKind::NotFound));
    }
    assert_eq!(
        revision(operator.call(apply(good, Some(0))).await),
        3,
        "numbers are never used again"
    );
}

#[tokio::test]
async fn rosters_reach_everybody_and_plans_survive_restarts_of_both_sides() {
    let mut plane = Plane::start().await;
    let mut operator = plane.member(Role::Operator, 9, "anna").await;
    operator.up().await;
    let mut gw = plane.member(Role::Daemon, 1, "gw").await;
    gw.announce(&operator).await;
    assert_eq!(
        revision(operator.call(apply(text("a", "gw", "gw", "p"), None)).await),
        1
    );
    gw.behave(|daemon| daemon.plan.is_some()).await;
    // Another daemon concerns nobody yet. Of another operator the others hear without asking.
    let _hub = plane.member(Role::Daemon, 2, "hub").await;
    let _bert = plane.member(Role::Operator, 8, "bert").await;
    gw.behave(|daemon| daemon.session.secure().roster().0 == 5).await;

    plane.stop().await;
    plane.start_again().await;
    // A plan that was confirmed keeps its number; what was known is shown as not known to be so.
    let before = gw.plan.clone().unwrap();
    let ApiResult::Daemons(daemons) = operator.call(ApiCall::DaemonList).await else {
        panic!("daemons")
    };
    assert_eq!(
        (daemons[0].name.as_str(), daemons[0].presence),
        ("gw", Presence::Unknown)
    );
    assert!(daemons[0].last_seen_ms.is_some() && daemons[1].last_seen_ms.is_none());
    wait_for("presence", async || {
        let _ = timeout(Duration::from_millis(300), gw.behave(|_| false)).await;
        match operator.call(ApiCall::DaemonShow("gw".into())).await {
            ApiResult::Daemon(detail) if detail.view.presence == Presence::Online => Some(()),
            _ => None,
        }
    })
    .await;
    assert_eq!(gw.plan.as_ref().map(|plan| plan.version), Some(before.version));
    // The daemon's disk is lost: it gets the same again.
    gw.plan = None;
    gw.behave(|daemon| daemon.plan.is_some()).await;
    assert_eq!(gw.plan.as_ref(), Some(&before));
    assert_eq!(
        revision(operator.call(apply(text("a", "gw", "gw", "q"), Some(1))).await),
        2
    );
    gw.behave(|daemon| daemon.plan.as_ref().is_some_and(|plan| plan.version > before.version))
        .await;
}

#[tokio::test]
async fn a_plane_that_lost_its_store_still_knows_its_members_and_deploys_above_what_runs() {
    let mut plane = Plane::start().await;
    let mut operator = plane.member(Role::Operator, 9, "anna").await;
    operator.up().await;
    let mut gw = plane.member(Role::Daemon, 1, "gw").await;
    gw.announce(&operator).await;
    for path in ["p", "q", "r"] {
        operator.call(apply(text("a", "gw", "gw", path), None)).await;
    }
    gw.behave(|daemon| daemon.plan.as_ref().is_some_and(|plan| plan.version == 3))
        .await;
    plane.stop().await;
    for file in ["plane.db", "plane.db-wal", "plane.db-shm"] {
        let _ = std::fs::remove_file(Path::new(plane.dir.path()).join(file));
    }
    plane.start_again().await;
    gw.announce(&operator).await;
    let ApiResult::Daemon(detail) = operator.call(ApiCall::DaemonShow("gw".into())).await else {
        panic!("gw")
    };
    assert_eq!((detail.view.plan_version, detail.view.plan_wanted), (3, 0));
    assert!(
        detail
            .plan_error
            .contains("runs plan 3, which this plane does not know"),
        "{}",
        detail.plan_error
    );
    assert_eq!(
        revision(operator.call(apply(text("a", "gw", "gw", "s"), None)).await),
        1
    );
    gw.behave(|daemon| daemon.plan.as_ref().is_some_and(|plan| plan.version == 4))
        .await;
    assert_eq!(
        plane.member(Role::Daemon, 2, "hub").await.membership.fleet,
        gw.membership.fleet
    );
}

fn report(side: Side, watermark: u64, [produced, buffered, delivered]: [u64; 3], ends: [&NodeId; 2]) -> StreamReport {
    let workflow = WorkflowId::of_name("shop");
    StreamReport {
        stream: StreamId::of_edge(&workflow, "clock->shop", ends[0], ends[1]),
        workflow,
        edge: "clock->shop".into(),
        side,
        epoch: 1,
        watermark,
        ledger: Ledger {
            produced,
            buffered,
            delivered,
            ..Ledger::default()
        },
        dead_before: 0,
        settled_earlier: 0,
        dropped_earlier: 0,
        buffered_bytes: buffered * 100,
        gaps: 0,
        trouble: String::new(),
    }
}

#[tokio::test]
async fn two_ends_give_one_account_on_the_bus_and_on_the_page() {
    let plane = Plane::start().await;
    let mut operator = plane.member(Role::Operator, 9, "anna").await;
    operator.up().await;
    let [mut gw, mut hub] = [
        plane.member(Role::Daemon, 1, "gw").await,
        plane.member(Role::Daemon, 2, "hub").await,
    ];
    gw.announce(&operator).await;
    hub.announce(&operator).await;
    operator.call(apply(text("shop", "gw", "hub", "p"), None)).await;
    let ApiResult::Ledger(streams) = operator.call(ApiCall::Ledger).await else {
        panic!("ledger")
    };
    assert_eq!(streams.len(), 1, "a planned stream is there before anything flows");
    assert!(
        !streams[0].balances && streams[0].trouble.contains("no account from 'gw' yet"),
        "{streams:?}"
    );

    let (a, b) = (*gw.session.secure().node(), *hub.session.secure().node());
    // The consumer is two records ahead of what the producer knows.
    gw.report(vec![report(Side::Producer, 2, [10, 6, 4], [&a, &b])]).await;
    hub.report(vec![report(Side::Consumer, 3, [0, 0, 6], [&a, &b])]).await;
    // A third party's word on that stream does not count.
    operator
        .session
        .send(
            &operator.membership.plane,
            &bus_schema::message::StreamReports {
                boot: 1,
                streams: vec![report(Side::Consumer, 9, [0, 0, 99], [&a, &b])],
            },
        )
        .await
        .unwrap();
    let account = wait_for("account", async || match operator.call(ApiCall::Ledger).await {
        ApiResult::Ledger(streams) if streams[0].ledger.delivered == 6 => Some(streams[0].clone()),
        _ => None,
    })
    .await;
    assert_eq!(
        (account.ledger.produced, account.ledger.buffered, account.balances),
        (10, 4, true)
    );
    assert_eq!((account.producer.as_str(), account.consumer.as_str()), ("gw", "hub"));
    assert_eq!(
        (account.workflow.as_str(), account.edge.as_str(), account.buffered_bytes),
        ("shop", "clock->shop", 600)
    );
    let mut page = plane.browser().await.get("/api/v1/ledger").await.json()["items"].clone();
    assert_eq!(page[0]["ledger"]["delivered"], 6);
    // Only the page is told how far it is behind: some wait. Of bytes nobody has spoken.
    let lag = page[0].as_object_mut().and_then(|stream| stream.remove("lag_ms"));
    assert!(
        page[0].get("bytes").is_none() && page[0].get("latency_ms").is_none(),
        "{page}"
    );
    assert!(lag.is_some_and(|lag| lag.is_u64()), "{page}");
    for losses in ["dropped_lately", "has_letters"] {
        let told = page[0].as_object_mut().and_then(|stream| stream.remove(losses));
        assert_eq!(told, Some(false.into()), "{losses}");
    }
    assert!(account.lag_ms.is_untold());
    assert_eq!(
        page,
        serde_json::to_value([account]).unwrap(),
        "the page says what the bus says"
    );
}

#[tokio::test]
async fn what_nodes_do_and_streams_carry_is_shown_as_it_was_said() {
    let plane = Plane::start().await;
    let mut operator = plane.member(Role::Operator, 9, "anna").await;
    operator.up().await;
    let [mut gw, mut hub] = [
        plane.member(Role::Daemon, 1, "gw").await,
        plane.member(Role::Daemon, 2, "hub").await,
    ];
    gw.announce(&operator).await;
    hub.announce(&operator).await;
    operator.call(apply(text("shop", "gw", "hub", "p"), None)).await;
    let (a, b) = (*gw.session.secure().node(), *hub.session.secure().node());
    let account = report(Side::Producer, 2, [10, 6, 4], [&a, &b]);
    let stream = account.stream;
    let node = |node: &str, records, errors| NodeCarried {
        workflow: WorkflowId::of_name("shop"),
        node: node.into(),
        work: Work {
            records,
            bytes: records * 9,
            errors,
            batches: 1,
            busy_us: 500,
            ..Work::default()
        },
    };
    let way = |bytes, timed, took_ms| StreamCarried {
        stream,
        bytes,
        timed,
        took_ms,
    };
    gw.report(vec![account]).await;
    gw.carried(vec![node("clock", 10, 0)], vec![way(700, 2, 50)]).await;
    // Of a stream that begins elsewhere it has nothing to say.
    hub.carried(vec![node("out", 4, 1)], vec![way(999_999, 1, 1)]).await;
    let nodes = wait_for("both daemons' words", async || {
        match operator.call(ApiCall::Nodes(Some("shop".into()))).await {
            ApiResult::Nodes(nodes) if nodes.len() == 2 => Some(nodes),
            _ => None,
        }
    })
    .await;
    let said: Vec<_> = nodes
        .iter()
        .map(|one| (&*one.node, &*one.daemon, one.records, one.bytes, one.errors))
        .collect();
    assert_eq!(said, [("clock", "gw", 10, 90, 0), ("out", "hub", 4, 36, 1)]);
    let unknown = operator.call(ApiCall::Nodes(Some("gone".into()))).await;
    assert!(matches!(unknown, ApiResult::Failed(_)), "{unknown:?}");

    let browser = plane.browser().await;
    let page = browser.get("/api/v1/workflows/shop/status").await.json();
    let shown = &page["streams"][0];
    assert_eq!(
        (&shown["bytes"], &shown["latency_ms"]),
        (&700.into(), &25.into()),
        "{shown}"
    );
    assert_eq!(shown["bytes_per_s"], 0, "one word is no rate");
    assert_eq!(
        (&page["nodes"][1]["node"], &page["nodes"][1]["busy_us"]),
        (&"out".into(), &500.into())
    );
    // A rate needs two words, some time apart.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    gw.carried(vec![node("clock", 10_010, 0)], vec![way(100_700, 3, 150)])
        .await;
    let shown = wait_for("a rate", async || {
        let page = browser.get("/api/v1/workflows/shop/status").await.json();
        page["streams"][0]["bytes_per_s"].as_u64().filter(|rate| *rate > 0)?;
        Some(page)
    })
    .await;
    assert_eq!(shown["streams"][0]["latency_ms"], 100, "of what came since");
    assert!(shown["nodes"][0]["rate"].as_u64() > Some(1_000), "{shown}");
}

#[tokio::test]
async fn the_page_and_the_bus_change_the_same_things() {
    let plane = Plane::start().await;
    let mut operator = plane.member(Role::Operator, 9, "anna").await;
    operator.up().await;
    let mut gw = plane.member(Role::Daemon, 1, "gw").await;
    gw.announce(&operator).await;
    let browser = plane.browser().await;
    let put = |path: &str, expected: u32| {
        let body = serde_json::json!({ "text": text("a", "gw", "gw", path) }).to_string();
        let browser = browser.clone();
        let (name, value) = match expected {
            0 => ("if-none-match", "*".to_string()),
            expected => ("if-match", format!("\"{expected}\"")),
        };
        async move {
            browser
                .send("PUT", "/api/v1/workflows/a", &[(name, &value)], Some(&body))
                .await
        }
    };
    assert_eq!(put("p", 0).await.json()["revision"], 1);
    assert_eq!(
        revision(operator.call(apply(text("a", "gw", "gw", "q"), Some(1))).await),
        2
    );
    let conflict = put("r", 1).await;
    assert_eq!(conflict.status, 412);
    assert!(
        conflict.json()["detail"]
            .as_str()
            .unwrap()
            .contains("revision 2 by anna"),
        "{}",
        conflict.body
    );
    assert_eq!(put("r", 2).await.json()["revision"], 3);
    let ApiResult::Workflow { view, text } = operator.call(ApiCall::WorkflowShow("a".into())).await else {
        panic!("a")
    };
    assert_eq!((view.revision, view.by.as_str()), (3, "owner"));
    assert_eq!(browser.get("/api/v1/workflows/a").await.json()["text"], text);
    let status = browser.get("/api/v1/workflows/a/status").await.json();
    assert_eq!(status["parts"][0]["daemon"], "gw");
    assert_eq!(
        browser.get("/api/v1/daemons/gw").await.json()["host"]["hostname"],
        "host-1"
    );
    let gone = browser
        .send("DELETE", "/api/v1/workflows/a", &[("if-match", "\"3\"")], None)
        .await;
    assert_eq!(gone.json()["revision"], 0);
    assert_eq!(browser.get("/api/v1/workflows/a").await.status, 404);
    gw.behave(|daemon| daemon.plan.as_ref().is_some_and(|plan| plan.workflows.is_empty()))
        .await;
}

#[tokio::test]
async fn whatever_arrives_the_plane_goes_on() {
    let plane = Plane::start().await;
    let mut operator = plane.member(Role::Operator, 9, "anna").await;
    operator.up().await;
    let mut gw = plane.member(Role::Daemon, 1, "gw").await;
    gw.up().await;
    let to = gw.membership.plane;
    let fleet = gw.membership.fleet;
    // Messages of other kinds, and messages of daemons by an operator.
    gw.session
        .send(
            &to,
            &Frame::Part {
                index: 0,
                count: 1,
                records: 1,
                bytes: vec![1, 2, 3],
            },
        )
        .await
        .unwrap();
    operator.session.send(&to, &gw.status).await.unwrap();
    // Not envelopes at all, on every subject the plane hears.
    let me = *gw.session.secure().node();
    let token = bus_schema::id::TokenId::from_hash(&[1; 32]);
    for subject in [subject::control(&fleet, &me, &to), subject::enrol_ask(&fleet, &token)] {
        for frame in [vec![], vec![0; 10], vec![1; 500], vec![255; 90_000]] {
            gw.session.bus().publish(&subject, frame).await.unwrap();
        }
    }
    // A status full of nonsense.
    gw.status.lease_ms = u64::MAX;
    gw.status.unix_ms = i64::MIN;
    gw.status.uptime_ms = u64::MAX - 1;
    gw.status.plan_error = "x".repeat(900_000);
    gw.beat().await;
    let detail = wait_for("the daemon", async || {
        match operator.call(ApiCall::DaemonShow("gw".into())).await {
            ApiResult::Daemon(detail) if detail.view.presence == Presence::Online => Some(detail),
            _ => None,
        }
    })
    .await;
    assert!(detail.plan_error.len() <= bus_schema::limits::TEXT_BYTES_MAX);
    // Numbers after which none could come: what others are given goes on all the same.
    let mut other = plane.member(Role::Daemon, 2, "other").await;
    other.announce(&operator).await;
    gw.status.uptime_ms = 1;
    for (boot, version) in (100..).zip([1 << 48, (1 << 48) + 1, i64::MAX as u64 - 1, i64::MAX as u64, u64::MAX]) {
        gw.status.boot = boot;
        gw.status.plan_version = version;
        gw.status.roster_version = version;
        gw.session.send(&to, &gw.status).await.unwrap();
        wait_for("its word", async || {
            let ApiResult::Daemon(detail) = operator.call(ApiCall::DaemonShow("gw".into())).await else {
                return None;
            };
            (detail.boot == boot).then_some(())
        })
        .await;
        let path = format!("p{boot}");
        let found = operator.call(apply(text("a", "other", "other", &path), None)).await;
        let number = revision(found);
        let has = |daemon: &Member| {
            let plan = daemon.plan.as_ref();
            plan.is_some_and(|plan| plan.workflows.iter().any(|part| part.revision == number))
        };
        other.behave(has).await;
    }
    let error = operator.call(apply("x".repeat(300_000), None)).await;
    assert_eq!(kind(&error), Some(FailureKind::Invalid));
    let ApiResult::Info(_) = operator.call(ApiCall::Info).await else {
        panic!("still there")
    };
}

#[tokio::test]
async fn a_bad_bus_delays_but_changes_nothing() {
    let plane = Plane::start().await;
    let mut operator = plane.member(Role::Operator, 9, "anna").await;
    operator.up().await;
    let mut gw = plane.member(Role::Daemon, 1, "gw").await;
    gw.announce(&operator).await;
    let hub = Hub::named(plane.bus.strip_prefix("memory://").unwrap());
    hub.set_faults(Faults {
        seed: 7,
        drop_per_mille: 200,
        duplicate_per_mille: 300,
        reorder_per_mille: 200,
    });
    // Lost calls time out and are made again: the same text is the same revision, so asking twice does no harm.
    for (number, path) in (1..).zip(["p", "q", "r"]) {
        let found = wait_for("revision", async || {
            let call = apply(text("a", "gw", "gw", path), None);
            let to = operator.membership.plane;
            operator
                .session
                .request::<_, ApiResult>(&to, &call, Duration::from_millis(500))
                .await
                .ok()
        })
        .await;
        assert_eq!(revision(found), number);
        gw.behave(|daemon| {
            daemon
                .plan
                .as_ref()
                .is_some_and(|plan| plan.workflows[0].revision == number)
        })
        .await;
    }
    // The broker goes away and comes back: nobody has to do anything.
    hub.set_faults(Faults::default());
    hub.stop();
    while !matches!(gw.event().await, SessionEvent::Down { .. }) {}
    hub.start();
    gw.plan = None;
    gw.behave(|daemon| daemon.plan.is_some()).await;
    assert_eq!(gw.plan.as_ref().map(|plan| plan.workflows[0].revision), Some(3));
}

#[tokio::test]
async fn a_request_that_is_lost_is_sent_again_and_carried_out_once() {
    let plane = Plane::start().await;
    let mut operator = plane.member(Role::Operator, 9, "anna").await;
    operator.up().await;
    let hub = Hub::named(plane.bus.strip_prefix("memory://").unwrap());
    let lossy = |drop_per_mille| Faults {
        drop_per_mille,
        ..Faults::default()
    };
    let tokens = async || match operator.call(ApiCall::TokenList).await {
        ApiResult::Tokens(tokens) => tokens.len(),
        other => panic!("{other:?}"),
    };
    let before = tokens().await;
    // Everything is lost for a moment: one call is enough all the same.
    hub.set_faults(lossy(1000));
    let call = ApiCall::TokenCreate {
        role: Role::Daemon,
        name: None,
        uses: 1,
        ttl_s: 60,
    };
    let asked = operator
        .session
        .request::<_, ApiResult>(&operator.membership.plane, &call, Duration::from_secs(20));
    let heal = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        hub.set_faults(lossy(0));
    };
    let (answer, ()) = tokio::join!(asked, heal);
    assert!(matches!(answer, Ok(ApiResult::Token(_))), "{answer:?}");
    assert_eq!(tokens().await, before + 1);

    // One who takes his time is asked again too, and hears it once.
    let mut gw = plane.member(Role::Daemon, 1, "gw").await;
    gw.announce(&operator).await;
    let ApiResult::Roster(put) = operator.call(ApiCall::Roster).await else {
        panic!("a roster")
    };
    operator.session.secure().update(put.roster, put.group).unwrap();
    let gw_node = *gw.session.secure().node();
    let slow = async {
        let question = loop {
            match gw.event().await {
                SessionEvent::Message(incoming) if incoming.wants_reply() => break incoming,
                _ => {}
            }
        };
        let again = tokio::time::timeout(Duration::from_millis(2_500), async {
            loop {
                match gw.event().await {
                    SessionEvent::Message(incoming) if incoming.wants_reply() => return,
                    _ => {}
                }
            }
        });
        assert!(again.await.is_err(), "it was heard twice");
        gw.session
            .reply(&question, &ApiResult::Token("late".into()))
            .await
            .unwrap();
    };
    let asked = operator
        .session
        .request::<_, ApiResult>(&gw_node, &ApiCall::Info, Duration::from_secs(4));
    let (answer, ()) = tokio::join!(asked, slow);
    assert!(matches!(answer, Ok(ApiResult::Token(_))), "{answer:?}");
}

#[tokio::test]
async fn members_of_another_fleet_are_strangers() {
    let (plane, other) = (Plane::start().await, Plane::start().await);
    let mut operator = other.member(Role::Operator, 9, "anna").await;
    operator.up().await;
    // The same keys, on the other fleet's bus.
    let membership = operator.membership.clone();
    let mut intruder = Member::connect(&plane.bus, 9, membership, 2);
    intruder.up().await;
    let asked = intruder.session.request::<_, ApiResult>(
        &intruder.membership.plane,
        &ApiCall::Info,
        Duration::from_millis(300),
    );
    assert!(asked.await.is_err());
    assert!(matches!(operator.call(ApiCall::Info).await, ApiResult::Info(_)));
}
