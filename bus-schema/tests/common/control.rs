//! A sample of every message by which operators command daemons.

use bus_schema::{
    api::{Failure, FailureKind},
    audit::{AuditCall, AuditEvent, AuditHead, AuditOutcome, AuditPage},
    control::{ControlCall, ControlResult, LogLine, Section},
    member::{Certificate, Role, Signed},
    message::HostFacts,
    pairing::{PairAsk, PairWait, PairingCall, PairingResult, PendingView},
    rotation::{CertificateShow, KeyOffer, RotateAnswer, RotateAsk, RotateDone},
};

use super::*;

/// A page with each outcome; its hashes stay as they are, too.
pub fn audit_page() -> AuditPage {
    let outcomes = variants!(AuditOutcome {
        AuditOutcome::Done => AuditOutcome::Done,
        AuditOutcome::Refused => AuditOutcome::Refused,
        AuditOutcome::Failed => AuditOutcome::Failed,
    });
    let (cut, mut entries) = (AuditHead::default(), Vec::new());
    let mut head = cut.clone();
    for outcome in outcomes {
        let event = AuditEvent::new(1_700_000_000_000, "anna", "bus", "restart", "shop").but(outcome, "because");
        let entry = head.next(event);
        head = AuditHead::from(&entry);
        entries.push(entry);
    }
    AuditPage { cut, entries, head }
}

/// Somebody who waits for approval.
fn pending() -> PendingView {
    PendingView {
        code: "k7qm-x2ad".into(),
        name: "gateway".into(),
        node: node(10),
        host: HostFacts::default(),
        since_unix_ms: 1_700_000_000_000,
    }
}

/// What candidates without a token say and hear, and what operators do about them.
fn pairing() -> Vec<Sample> {
    let code = || "k7qm-x2ad".to_string();
    let calls = variants!(PairingCall {
        PairingCall::Open { .. } => PairingCall::Open { ttl_s: 3_600 },
        PairingCall::Close => PairingCall::Close,
        PairingCall::List => PairingCall::List,
        PairingCall::Approve { .. } => PairingCall::Approve { code: code(), name: Some("gw-1".into()) },
        PairingCall::Reject { .. } => PairingCall::Reject { code: code() },
    });
    let result = PairingResult {
        done: "gw-1".into(),
        waiting: vec![pending()],
    };
    let ask = PairAsk {
        keys: identity(10).public(),
        name: "gateway".into(),
        host: HostFacts::default(),
        commitment: [0xc0; 32],
        nonce: Some([0x17; 16]),
    };
    let mut all: Vec<Sample> = calls
        .into_iter()
        .map(|call| plain(&format!("pairing call {}", word(&call)), call))
        .collect();
    all.extend([
        plain("pairing result", result),
        message("", ask),
        message("", PairWait { nonce: [0x24; 16] }),
    ]);
    all
}

/// A variant's name.
fn word(value: &dyn core::fmt::Debug) -> String {
    let text = format!("{value:?}");
    text.split([' ', '(']).next().unwrap_or_default().to_string()
}

/// Calls and results, variant by variant.
pub fn control() -> Vec<Sample> {
    let shop = || "shop".to_string();
    let calls = variants!(ControlCall {
        ControlCall::Restart { .. } => ControlCall::Restart { workflow: shop() },
        ControlCall::Pause { .. } => ControlCall::Pause { workflow: shop() },
        ControlCall::Resume { .. } => ControlCall::Resume { workflow: shop() },
        ControlCall::LogLevel { .. } => ControlCall::LogLevel { level: "info,spool=debug".into(), for_ms: 600_000 },
        ControlCall::Logs { .. } => ControlCall::Logs { after: 17, lines_max: 200, workflow: shop() },
        ControlCall::Diagnose => ControlCall::Diagnose,
        ControlCall::Audit(_) => ControlCall::Audit(AuditCall::Chain { after: 300 }),
        ControlCall::Drain { .. } => ControlCall::Drain { workflow: shop() },
        ControlCall::SpoolCheck => ControlCall::SpoolCheck,
        ControlCall::Rotate { .. } => ControlCall::Rotate { wish: 0x1234_5678_9abc },
    });
    let line = LogLine {
        number: 18,
        unix_ms: 1_700_000_000_000,
        level: "WARN".into(),
        text: "not connected cause=\"no host\"".into(),
        workflow: shop(),
    };
    let results = variants!(ControlResult {
        ControlResult::Failed(_) => ControlResult::Failed(Failure {
            kind: FailureKind::NotFound,
            message: "no workflow 'shop'".into(),
            hint: "list them".into(),
            problems: Vec::new(),
        }),
        ControlResult::Done { .. } => ControlResult::Done { workflows: vec![shop()] },
        ControlResult::Lines { .. } => ControlResult::Lines { lines: vec![line.clone()], newest: 18 },
        ControlResult::Report(_) => ControlResult::Report(vec![Section { heading: "disk".into(), text: "1 GiB free".into() }]),
        ControlResult::Audit(_) => ControlResult::Audit(audit_page()),
        ControlResult::Working { .. } => ControlResult::Working { what: "17 records are buffered".into() },
    });
    let mut all: Vec<Sample> = calls.into_iter().map(|call| message(&word(&call), call)).collect();
    all.extend(results.into_iter().map(|result| message(&word(&result), result)));
    all.extend(pairing());
    all.extend(rotation());
    all
}

/// New keys for a member.
fn rotation() -> Vec<Sample> {
    let (old, new, root) = (identity(10), identity(11), identity(1));
    let (fleet, node) = (FleetId::of_root(&root.public().sign), old.public().node_id());
    let certificate = Certificate {
        fleet,
        node,
        name: "gateway".into(),
        role: Role::Daemon,
        keys: new.public(),
        key_epoch: 1,
    };
    let certificate = Signed::new(&certificate, &root);
    let offer = KeyOffer {
        fleet,
        node,
        keys: new.public(),
    };
    let ask = RotateAsk {
        keys: new.public(),
        offer: Signed::new(&offer, &new),
    };
    let answers = variants!(RotateAnswer {
        RotateAnswer::Granted(_) => RotateAnswer::Granted(certificate.clone()),
        RotateAnswer::Refused(_) => RotateAnswer::Refused("not now".into()),
    });
    let mut all = vec![
        message("", ask),
        message("", RotateDone { key_epoch: 1 }),
        message("", CertificateShow { certificate }),
    ];
    all.extend(answers.into_iter().map(|answer| message(&word(&answer), answer)));
    all
}
