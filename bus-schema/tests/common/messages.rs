//! A sample of every message in every shape it can take.

use bus_schema::{
    api::{
        ApiCall, ApiResult, BrokerKind, Carriers, Changed, ComponentView, DaemonDetail, DaemonDiff, DaemonView,
        Failure, FailureKind, FieldDiff, GroupCall, GroupView, Labelled, LabelledToken, NodeDiff, NodeView,
        OperatorView, PlaneInfo, Presence, Problem, RevisionLine, RevisionView, StreamView, TokenView, WorkflowDiff,
        WorkflowPart, WorkflowView,
    },
    aside::Aside,
    audit::{AuditCall, AuditWish},
    carried::{Carried, LettersKept, NodeCarried, StreamCarried, Work, WorkflowLetters},
    envelope::{Header, Lock, NONCE_BYTES, SUITE, VERSION},
    member::{Role, Signed},
    message::{
        Body, BootClock, CatalogAsk, CatalogPage, Codec, EnrolAnswer, EnrolAsk, Exchange, Frame, HostFacts, Ledger,
        Packed, Ping, PlanPut, Pong, RecallAsk, RecallPage, Resources, Resume, RosterPut, RunState, Side, SourceMark,
        Status, StreamAck, StreamOpen, StreamReport, StreamReports, TapOpen, TapSample, Text, TimeHint, WorkflowStatus,
    },
    observe::{AlertState, AlertView, ObserveCall, ObserveResult, Severity},
    pairing::{PairingCall, PairingResult},
    plan::{Class, ComponentRole, WhenFull},
    rollout::{Amount, OnFailure, RolloutCommand, RolloutFailure, RolloutPhase, RolloutPolicy, RolloutView, WaveView},
};

use super::*;

/// Every message, and the small types inside them, variant by variant.
pub fn all() -> Vec<Sample> {
    let mut all = membership();
    all.extend(daemon());
    all.extend(streams());
    all.extend(api());
    all.extend(letters::letters());
    all.extend(secrets::secrets());
    all.extend(control::control());
    all.extend(trial::trial());
    all.extend(others());
    all.extend(enums());
    all
}

fn host() -> HostFacts {
    HostFacts {
        hostname: "gw-1".into(),
        os: "Debian 13".into(),
        arch: "aarch64".into(),
        cpus: 4,
        memory_bytes: 1 << 30,
        version: "0.1.0".into(),
    }
}

fn roster_put() -> RosterPut {
    RosterPut {
        roster: Signed::new(&roster(), &root()),
        group: group(),
    }
}

fn membership() -> Vec<Sample> {
    let keys = identity(10).public();
    let answers = variants!(EnrolAnswer {
        EnrolAnswer::Granted { .. } => EnrolAnswer::Granted {
            root: root().public().sign,
            certificate: Signed::new(&certificate(10, Role::Daemon), &root()),
            roster: Signed::new(&roster(), &root()),
            group: group(),
            login: Some(login()),
        },
        EnrolAnswer::Refused(_) => EnrolAnswer::Refused("the token was used already".into()),
    });
    let proof = invitation().proof(&keys, "gateway");
    let mut all = vec![
        message(
            "",
            EnrolAsk {
                keys,
                name: "gateway".into(),
                proof,
                host: host(),
            },
        ),
        message("", roster_put()),
        message(
            "",
            PlanPut {
                plan: Signed::new(&plan(), &identity(30)),
            },
        ),
    ];
    all.extend(
        answers
            .into_iter()
            .zip(["granted", "refused"])
            .map(|(answer, label)| message(label, answer)),
    );
    all
}

fn ledger() -> Ledger {
    Ledger {
        produced: 1_000,
        buffered: 10,
        delivered: 980,
        dropped: 7,
        dead: 3,
        duplicates: 5,
        unconfirmed: 2,
        filtered: 40,
    }
}

fn resources() -> Resources {
    Resources {
        rss_bytes: 9 << 20,
        rss_peak_bytes: 12 << 20,
        cpu_ms: 4_200,
        spool_bytes: 77,
        disk_free_bytes: 1 << 33,
    }
}

fn work() -> Work {
    Work {
        records: 1_000,
        bytes: 40_000,
        errors: 3,
        faults: 2,
        batches: 20,
        busy_us: 9_000,
    }
}

fn daemon() -> Vec<Sample> {
    let status = Status {
        version: "0.1.0".into(),
        boot: 9,
        uptime_ms: 86_400_000,
        unix_ms: -1,
        lease_ms: 17_000,
        plan_version: 12,
        plan_error: "no such component".into(),
        roster_version: 7,
        catalog: [0xc7; 32],
        workflows: vec![WorkflowStatus {
            workflow: workflow(),
            revision: 4,
            state: RunState::Retrying,
            cause: "connection refused".into(),
        }],
        resources: resources(),
        refused: 2,
        damaged: 1,
        began_unix_ms: Some(1_700_000_000_000),
    };
    let report = StreamReport {
        stream: stream(),
        workflow: workflow(),
        edge: "db->warehouse".into(),
        side: Side::Producer,
        epoch: 1,
        watermark: 980,
        ledger: ledger(),
        dead_before: 2,
        settled_earlier: 5,
        dropped_earlier: 6,
        buffered_bytes: 4_096,
        gaps: 1,
        trouble: "no credit".into(),
    };
    let components = vec![
        descriptor(ComponentRole::Source),
        descriptor(ComponentRole::Transform),
        descriptor(ComponentRole::Destination),
    ];
    vec![
        message("", status),
        message(
            "",
            StreamReports {
                boot: 9,
                streams: vec![report],
            },
        ),
        message(
            "",
            Carried {
                boot: 9,
                nodes: vec![NodeCarried {
                    workflow: workflow(),
                    node: "db".into(),
                    work: work(),
                }],
                streams: vec![StreamCarried {
                    stream: stream(),
                    bytes: 38_000,
                    timed: 20,
                    took_ms: 600,
                }],
            },
        ),
        message(
            "",
            LettersKept {
                workflows: vec![WorkflowLetters {
                    workflow: workflow(),
                    kept: 300,
                }],
            },
        ),
        message("", drift::drifts()),
        message("", RecallAsk { roster_version: 7 }),
        message(
            "",
            RecallPage {
                roster: Some(Signed::new(&roster(), &root())),
                plan: None,
            },
        ),
        message("", CatalogAsk { catalog: [0xc7; 32] }),
        message(
            "",
            CatalogPage {
                catalog: [0xc7; 32],
                components,
            },
        ),
    ]
}

fn source_mark() -> SourceMark {
    SourceMark {
        root_seq: 12,
        position: b"id=41".to_vec(),
    }
}

fn packed() -> Packed {
    Packed {
        records: 1,
        codec: Codec::Plain,
        bytes: batches::small().encode(),
        mark: Some(source_mark()),
    }
}

fn streams() -> Vec<Sample> {
    let open = StreamOpen {
        stream: stream(),
        epoch: 2,
        key: SecretKey::new([0x11; 32]),
        first_seq: 981,
        next_seq: 1_001,
        clocks: vec![BootClock {
            boot: 3,
            began_unix_ms: 1_700_000_000_000,
        }],
    };
    let ack = StreamAck {
        stream: stream(),
        epoch: 2,
        watermark: 980,
        received: 990,
        credit: 996,
        rewind: true,
        partial_bytes: 4_096,
        dead: 3,
        resume: Some(Resume {
            epoch: 1,
            watermark: 77,
            mark: Some(source_mark()),
        }),
        trouble: "disk full".into(),
        newest: 3,
        print: 0x0807_0605_0403_0201,
        records: 12_345,
    };
    let frames = variants!(Frame {
        Frame::Batch(_) => Frame::Batch(packed()),
        Frame::Part { .. } => Frame::Part { index: 1, count: 3, records: 1, bytes: vec![1, 2, 3] },
        Frame::Gap { .. } => Frame::Gap { first_seq: 5, dropped: 640, lost: 7, settled: 1 },
    });
    let mut all = vec![message("", open), message("", ack)];
    all.extend(
        frames
            .into_iter()
            .zip(["batch", "part", "gap"])
            .map(|(frame, label)| message(label, frame)),
    );
    all
}

fn api() -> Vec<Sample> {
    let text = || String::from("name = \"orders\"");
    let calls = variants!(ApiCall {
        ApiCall::Info => ApiCall::Info,
        ApiCall::TokenCreate { .. } =>
            ApiCall::TokenCreate { role: Role::Daemon, name: Some("gateway".into()), uses: 1, ttl_s: 3_600 },
        ApiCall::DaemonList => ApiCall::DaemonList,
        ApiCall::DaemonShow(_) => ApiCall::DaemonShow("gateway".into()),
        ApiCall::WorkflowValidate { .. } => ApiCall::WorkflowValidate { text: text() },
        ApiCall::WorkflowApply { .. } => ApiCall::WorkflowApply { text: text(), expect_revision: Some(3) },
        ApiCall::WorkflowList => ApiCall::WorkflowList,
        ApiCall::WorkflowShow(_) => ApiCall::WorkflowShow("orders".into()),
        ApiCall::WorkflowDelete(_) => ApiCall::WorkflowDelete("orders".into()),
        ApiCall::WorkflowStatus(_) => ApiCall::WorkflowStatus("orders".into()),
        ApiCall::Ledger => ApiCall::Ledger,
        ApiCall::Components => ApiCall::Components,
        ApiCall::AccessList(_) => ApiCall::AccessList(BrokerKind::Nats),
        ApiCall::Roster => ApiCall::Roster,
        ApiCall::DaemonSelect(_) => ApiCall::DaemonSelect("site=berlin".into()),
        ApiCall::DaemonLabels(_) => ApiCall::DaemonLabels("site=berlin".into()),
        ApiCall::DaemonLabel { .. } => ApiCall::DaemonLabel {
            selector: "name:gw-*".into(),
            set: vec![("site".into(), "berlin".into())],
            unset: vec!["test".into()],
        },
        ApiCall::WorkflowRevisions(_) => ApiCall::WorkflowRevisions("orders".into()),
        ApiCall::WorkflowText { .. } => ApiCall::WorkflowText { name: "orders".into(), revision: 3 },
        ApiCall::TokenList => ApiCall::TokenList,
        ApiCall::TokenRevoke(_) => ApiCall::TokenRevoke(TokenId::from_hash(&[9; 32])),
        ApiCall::WorkflowDiff { .. } => ApiCall::WorkflowDiff { text: text() },
        ApiCall::Certificate(_) => ApiCall::Certificate("gateway".into()),
        ApiCall::RolloutStart { .. } => ApiCall::RolloutStart {
            text: text(),
            expect_revision: Some(3),
            policy: RolloutPolicy::default(),
        },
        ApiCall::RolloutList => ApiCall::RolloutList,
        ApiCall::RolloutShow(_) => ApiCall::RolloutShow(7),
        ApiCall::RolloutTell { .. } => ApiCall::RolloutTell {
            id: 7,
            command: RolloutCommand::RollBack,
            reason: "the line stands still".into(),
        },
        ApiCall::Observe(_) => ApiCall::Observe(ObserveCall::Alerts),
        ApiCall::DaemonRevoke(_) => ApiCall::DaemonRevoke(node(10)),
        ApiCall::Audit(_) => ApiCall::Audit(AuditCall::Search {
            before: 17,
            most: 100,
            wish: AuditWish { by: "anna".into(), since_unix_ms: 1_700_000_000_000, search: "orders".into() },
        }),
        ApiCall::Pairing(_) => ApiCall::Pairing(PairingCall::Close),
        ApiCall::OperatorList => ApiCall::OperatorList,
        ApiCall::AccessListOf { .. } => ApiCall::AccessListOf { broker: BrokerKind::NatsAccount, member: "gw".into() },
        ApiCall::Group(_) => ApiCall::Group(GroupCall::Put { name: "north".into(), selector: "site=berlin".into() }),
        ApiCall::OperatorRevoke(_) => ApiCall::OperatorRevoke(node(10)),
        ApiCall::Carriers => ApiCall::Carriers,
        ApiCall::Deploy { .. } => ApiCall::Deploy {
            text: text(),
            expect_revision: Some(3),
            reason: "a new password".into(),
            waves: Some(RolloutPolicy::default()),
        },
        ApiCall::WorkflowHistory(_) => ApiCall::WorkflowHistory("orders".into()),
        ApiCall::TokenMint { .. } => ApiCall::TokenMint {
            name: None,
            uses: 9,
            ttl_s: 3_600,
            labels: [("site".into(), "berlin".into())].into(),
        },
        ApiCall::TokenLabels => ApiCall::TokenLabels,
        ApiCall::Nodes(_) => ApiCall::Nodes(Some("orders".into())),
        ApiCall::RolloutBegin { .. } => ApiCall::RolloutBegin {
            text: text(),
            expect_revision: Some(3),
            reason: "a new password".into(),
            policy: RolloutPolicy::default(),
            lag_s_max: 600,
        },
        ApiCall::Notes(_) => ApiCall::Notes(Some("orders".into())),
        ApiCall::WorkflowRemove { .. } => ApiCall::WorkflowRemove {
            name: "orders".into(),
            expect_revision: Some(3),
        },
    });
    let labelled = |value: &dyn core::fmt::Debug| {
        let text = format!("{value:?}");
        let end = text.find(|c: char| !c.is_alphanumeric()).unwrap_or(text.len());
        text[..end].to_string()
    };
    let results = results().into_iter().map(|result| message(&labelled(&result), result));
    calls
        .into_iter()
        .map(|call| message(&labelled(&call), call))
        .chain(results)
        .collect()
}

fn token_view() -> TokenView {
    TokenView {
        id: TokenId::from_hash(&[9; 32]),
        role: Role::Daemon,
        name: Some("gateway".into()),
        uses_left: 1,
        expires_unix_ms: 1_700_000_000_000,
    }
}

fn workflow_diff() -> WorkflowDiff {
    WorkflowDiff {
        name: "orders".into(),
        revision: 3,
        nodes: vec![NodeDiff {
            node: "db".into(),
            role: ComponentRole::Source,
            change: Changed::Changed,
            fields: vec![FieldDiff {
                field: "path".into(),
                before: Some("\"/a\"".into()),
                after: None,
            }],
        }],
        daemons: vec![DaemonDiff {
            daemon: "gateway".into(),
            change: Changed::Added,
            nodes: vec!["db".into()],
        }],
        more: 2,
    }
}

fn rollout_view() -> RolloutView {
    RolloutView {
        id: 7,
        workflow: "orders".into(),
        revision: 4,
        before: 3,
        by: "anna".into(),
        at_unix_ms: 1_700_000_000_000,
        phase: RolloutPhase::Soaking,
        wave: 2,
        waves: vec![WaveView {
            daemons: 10,
            taken: 9,
            failed: 1,
        }],
        cause: "wave 2".into(),
        failures: vec![RolloutFailure {
            daemon: "gateway".into(),
            cause: "silent for 60 s".into(),
        }],
        policy: RolloutPolicy {
            waves: vec![Amount::Count(1), Amount::Percent(10)],
            on_failure: OnFailure::Pause,
            ..RolloutPolicy::default()
        },
    }
}

fn alert_view() -> AlertView {
    AlertView {
        id: "daemon-offline/daemon:gateway".into(),
        rule: "daemon-offline".into(),
        subject: "daemon:gateway".into(),
        severity: Severity::Critical,
        state: AlertState::Firing,
        since_unix_ms: 1_700_000_000_000,
        summary: "not heard for 90 s".into(),
        silenced_until_unix_ms: 1_700_000_060_000,
        silence_reason: "maintenance".into(),
    }
}

fn results() -> Vec<ApiResult> {
    let problem = Problem {
        place: "sources.db.path".into(),
        line: 6,
        message: "'path' is missing".into(),
        hint: "add it".into(),
    };
    let view = || WorkflowView {
        name: "orders".into(),
        revision: 4,
        by: "ada".into(),
        at_unix_ms: 1_700_000_000_000,
        daemons: vec!["gateway".into(), "hub".into()],
        state: Some(RunState::Running),
        letters_kept: Aside::default(),
    };
    let part = || WorkflowPart {
        workflow: "orders".into(),
        daemon: "gateway".into(),
        revision: 4,
        wanted: Aside::default(),
        state: None,
        cause: String::new(),
    };
    let stream = || StreamView {
        workflow: "orders".into(),
        edge: "db->warehouse".into(),
        producer: "gateway".into(),
        consumer: "hub".into(),
        epoch: 2,
        ledger: ledger(),
        balances: true,
        buffered_bytes: 4_096,
        rate: 50_000,
        lag_ms: Aside::default(),
        bytes: Aside::default(),
        bytes_per_s: Aside::default(),
        latency_ms: Aside::default(),
        dropped_lately: Aside::default(),
        has_letters: Aside::default(),
        trouble: String::new(),
    };
    let daemon = || DaemonView {
        name: "gateway".into(),
        node: node(10),
        presence: Presence::Online,
        last_seen_ms: Some(1_200),
        version: "0.1.0".into(),
        plan_version: 11,
        plan_wanted: 12,
        troubled: 1,
        damaged: 2,
        resources: resources(),
    };
    let component = || ComponentView {
        role: ComponentRole::Source,
        name: "sqlite".into(),
        summary: "Rows of a table".into(),
        schema: "{}".into(),
        example: String::new(),
    };
    let detail = DaemonDetail {
        view: daemon(),
        host: host(),
        fingerprint: identity(10).public().fingerprint(),
        boot: 9,
        uptime_ms: 1,
        clock_offset_ms: -3_600_000,
        plan_error: String::new(),
        refused: 2,
        parts: vec![part()],
        components: vec![component()],
        lineage: Aside::default(),
    };
    let info = PlaneInfo {
        fleet: fleet(),
        plane: node(30),
        version: "0.1.0".into(),
        roster_version: 7,
        daemons: 2,
        operators: 1,
        workflows: 1,
        http: "127.0.0.1:7777".into(),
    };
    let failure = Failure {
        kind: FailureKind::Conflict,
        message: "revision 5 is current".into(),
        hint: "show it first".into(),
        problems: vec![problem.clone()],
    };
    variants!(ApiResult {
        ApiResult::Failed(_) => ApiResult::Failed(failure),
        ApiResult::Info(_) => ApiResult::Info(info),
        ApiResult::Token(_) => ApiResult::Token("myc1abc".into()),
        ApiResult::Daemons(_) => ApiResult::Daemons(vec![daemon()]),
        ApiResult::Daemon(_) => ApiResult::Daemon(detail),
        ApiResult::Problems(_) => ApiResult::Problems(vec![problem]),
        ApiResult::Revision(_) => ApiResult::Revision(4),
        ApiResult::Workflows(_) => ApiResult::Workflows(vec![view()]),
        ApiResult::Workflow { .. } => ApiResult::Workflow { view: view(), text: "name = \"orders\"".into() },
        ApiResult::Status { .. } =>
            ApiResult::Status { view: view(), parts: vec![part()], streams: vec![stream()] },
        ApiResult::Ledger(_) => ApiResult::Ledger(vec![stream()]),
        ApiResult::Components(_) => ApiResult::Components(vec![component()]),
        ApiResult::AccessList(_) => ApiResult::AccessList("user x".into()),
        ApiResult::Roster(_) => ApiResult::Roster(roster_put()),
        ApiResult::Labels(_) => ApiResult::Labels(vec![Labelled {
            name: "gateway".into(),
            node: node(10),
            labels: [("site".into(), "berlin".into())].into(),
        }]),
        ApiResult::Revisions(_) => ApiResult::Revisions(vec![RevisionLine {
            number: 4,
            by: "ada".into(),
            at_unix_ms: 1_700_000_000_000,
            is_current: true,
        }]),
        ApiResult::History(_) => ApiResult::History(vec![RevisionView {
            number: 4,
            by: "ada".into(),
            at_unix_ms: 1_700_000_000_000,
            is_current: true,
            reason: "a new password".into(),
        }]),
        ApiResult::Text(_) => ApiResult::Text("name = 'orders'".into()),
        ApiResult::Tokens(_) => ApiResult::Tokens(vec![token_view()]),
        ApiResult::TokenLabels(_) => ApiResult::TokenLabels(vec![LabelledToken {
            token: token_view(),
            labels: [("site".into(), "berlin".into())].into(),
        }]),
        ApiResult::Nodes(_) => ApiResult::Nodes(vec![NodeView {
            workflow: "orders".into(),
            node: "db".into(),
            daemon: "gateway".into(),
            records: 1_000,
            bytes: 40_000,
            errors: 3,
            faults: 2,
            batches: 20,
            busy_us: 9_000,
            rate: 12,
            bytes_per_s: 480,
        }]),
        ApiResult::Notes(_) => ApiResult::Notes(vec![drift::note()]),
        ApiResult::Diff(_) => ApiResult::Diff(workflow_diff()),
        ApiResult::Certificate(_) => ApiResult::Certificate(Signed::new(&certificate(10, Role::Daemon), &root())),
        ApiResult::Rollouts(_) => ApiResult::Rollouts(vec![rollout_view()]),
        ApiResult::Observe(_) => ApiResult::Observe(ObserveResult::Alerts(vec![alert_view()])),
        ApiResult::Revoked(_) => ApiResult::Revoked("gateway".into()),
        ApiResult::Audit(_) => ApiResult::Audit(control::audit_page()),
        ApiResult::Pairing(_) => ApiResult::Pairing(PairingResult { done: "gw".into(), waiting: Vec::new() }),
        ApiResult::Groups(_) => ApiResult::Groups(vec![GroupView {
            name: "north".into(),
            selector: "site=berlin".into(),
            daemons: 7,
        }]),
        ApiResult::Carriers(_) => ApiResult::Carriers(vec![Carriers {
            components: vec!["source/sqlite".into()],
            daemons: vec!["gw".into()],
        }]),
        ApiResult::Operators(_) => ApiResult::Operators(vec![OperatorView {
            name: "anna".into(),
            node: node(10),
            fingerprint: "k7qm x2ad".into(),
            enrolled_unix_ms: 1_700_000_000_000,
        }]),
    })
}

fn others() -> Vec<Sample> {
    let sample = TapSample {
        workflow: workflow(),
        node: "keep".into(),
        batch: batches::small().encode(),
        skipped: 40,
        refused: "no such node".into(),
    };
    let pong = Pong {
        nonce: 77,
        node: node(10),
        fleet: fleet(),
        role: Role::Daemon,
        version: "0.1.0".into(),
    };
    vec![
        message(
            "",
            TapOpen {
                workflow: workflow(),
                node: "keep".into(),
                rate_max: 10,
                lease_ms: 5_000,
            },
        ),
        message("", sample),
        message(
            "",
            TimeHint {
                boot: 9,
                uptime_ms: 60_000,
                unix_ms: 1_700_000_060_000,
            },
        ),
        message(
            "",
            Text {
                bytes: b"hello".to_vec(),
            },
        ),
        message("", Ping { nonce: 77 }),
        message("", pong),
    ]
}

/// The index of every variant is on the wire: each list is all of them, in order.
fn enums() -> Vec<Sample> {
    let nonce = [0x24; NONCE_BYTES];
    let locks = variants!(Lock {
        Lock::Pair { .. } => Lock::Pair { recipient: node(20) },
        Lock::Stream { .. } => Lock::Stream { stream: stream() },
        Lock::Group { .. } => Lock::Group { key_epoch: 2 },
        Lock::Box { .. } => Lock::Box { ephemeral: [6; 32] },
    });
    let headers: Vec<Header> = locks
        .into_iter()
        .map(|lock| Header {
            version: VERSION,
            suite: SUITE,
            lock,
            sender: node(10),
            key_epoch: 3,
            epoch: 9,
            counter: 1_001,
            nonce,
        })
        .collect();
    let exchanges = variants!(Exchange {
        Exchange::OneWay => Exchange::OneWay,
        Exchange::Request { .. } => Exchange::Request { deadline_ms: 10_000 },
        Exchange::Reply => Exchange::Reply,
    });
    let bodies: Vec<Vec<u8>> = exchanges
        .iter()
        .map(|exchange| {
            let exchange = *exchange;
            Body {
                kind: 17,
                ver: 1,
                exchange,
                correlation: 5,
                part: 0,
                parts: 1,
                payload: &[77],
            }
            .encode()
        })
        .collect();
    let roles =
        variants!(Role { Role::Plane => Role::Plane, Role::Daemon => Role::Daemon, Role::Operator => Role::Operator });
    let component_roles = variants!(ComponentRole {
        ComponentRole::Source => ComponentRole::Source,
        ComponentRole::Transform => ComponentRole::Transform,
        ComponentRole::Destination => ComponentRole::Destination,
    });
    let when_full = variants!(WhenFull {
        WhenFull::Block => WhenFull::Block,
        WhenFull::DropOldest => WhenFull::DropOldest,
        WhenFull::DropNewest => WhenFull::DropNewest,
    });
    let classes = variants!(Class {
        Class::Critical => Class::Critical,
        Class::Normal => Class::Normal,
        Class::Bulk => Class::Bulk,
    });
    let codecs = variants!(Codec {
        Codec::Plain => Codec::Plain,
        Codec::Zstd { .. } => Codec::Zstd { raw_bytes: 65_536 },
    });
    let states = variants!(RunState {
        RunState::Starting => RunState::Starting,
        RunState::Running => RunState::Running,
        RunState::Retrying => RunState::Retrying,
        RunState::Failed => RunState::Failed,
        RunState::Finished => RunState::Finished,
        RunState::Stopping => RunState::Stopping,
        RunState::Paused => RunState::Paused,
    });
    let sides = variants!(Side {
        Side::Producer => Side::Producer,
        Side::Consumer => Side::Consumer,
        Side::Direct => Side::Direct,
    });
    let presences = variants!(Presence {
        Presence::Unknown => Presence::Unknown,
        Presence::Online => Presence::Online,
        Presence::Late => Presence::Late,
        Presence::Offline => Presence::Offline,
    });
    let brokers = variants!(BrokerKind {
        BrokerKind::Mosquitto => BrokerKind::Mosquitto,
        BrokerKind::Nats => BrokerKind::Nats,
        BrokerKind::NatsAccount => BrokerKind::NatsAccount,
    });
    let failures = variants!(FailureKind {
        FailureKind::Invalid => FailureKind::Invalid,
        FailureKind::NotFound => FailureKind::NotFound,
        FailureKind::Conflict => FailureKind::Conflict,
        FailureKind::Forbidden => FailureKind::Forbidden,
        FailureKind::Internal => FailureKind::Internal,
    });
    vec![
        plain("headers", headers),
        plain("bodies", bodies),
        plain("enum Role", roles),
        plain("enum ComponentRole", component_roles),
        plain("enum WhenFull", when_full),
        plain("enum Class", classes),
        plain("enum Codec", codecs),
        plain("enum RunState", states[..6].to_vec()),
        plain("enum RunState, added", states[6..].to_vec()),
        plain("enum Side", sides),
        plain("enum Presence", presences),
        plain("enum BrokerKind", brokers[..2].to_vec()),
        plain("enum BrokerKind, added", brokers[2..].to_vec()),
        plain("enum FailureKind", failures),
    ]
}
