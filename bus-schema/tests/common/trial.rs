//! A sample of every message by which a text is tried.

use bus_schema::{
    api::{Failure, FailureKind},
    trial::{Checkup, Given, TrialCall, TrialResult, TrialStep, Trouble, TroubleKind, Verdict},
};

use super::*;

/// Calls and results, variant by variant.
pub fn trial() -> Vec<Sample> {
    let text = || "name = 'orders'".to_string();
    let given = Given {
        source: "db".into(),
        lines: "{\"id\": 1}\n".into(),
        types: vec![("at".into(), "timestamp_utc".into())],
    };
    let calls = variants!(TrialCall {
        TrialCall::Test { .. } => TrialCall::Test { text: text() },
        TrialCall::Preview { .. } => TrialCall::Preview { text: text(), given: vec![given.clone()] },
        TrialCall::Check { .. } => TrialCall::Check { text: text() },
        TrialCall::CheckPlanned { .. } => TrialCall::CheckPlanned { workflow: "orders".into() },
    });
    let step = TrialStep {
        node: "keep".into(),
        from: "db".into(),
        came: 3,
        batch: vec![1, 2, 3],
        rejected: vec![(1, "division by zero".into())],
    };
    let verdict = Verdict {
        test: "first".into(),
        differs: vec!["out: record 0: 'n' is 1 instead of 2".into()],
    };
    let well = Checkup {
        node: "db".into(),
        component: "sqlite".into(),
        took_ms: 3,
        found: "orders.db has the table 'orders'".into(),
        trouble: None,
    };
    let kinds = variants!(TroubleKind {
        TroubleKind::Config => TroubleKind::Config,
        TroubleKind::Secret => TroubleKind::Secret,
        TroubleKind::Name => TroubleKind::Name,
        TroubleKind::Unreachable => TroubleKind::Unreachable,
        TroubleKind::Tls => TroubleKind::Tls,
        TroubleKind::Login => TroubleKind::Login,
        TroubleKind::Right => TroubleKind::Right,
        TroubleKind::Missing => TroubleKind::Missing,
        TroubleKind::Path => TroubleKind::Path,
        TroubleKind::Listen => TroubleKind::Listen,
        TroubleKind::Program => TroubleKind::Program,
        TroubleKind::Silent => TroubleKind::Silent,
        TroubleKind::Setup => TroubleKind::Setup,
        TroubleKind::Other => TroubleKind::Other,
    });
    let ill = |kind: TroubleKind| Checkup {
        node: "out".into(),
        component: "postgres".into(),
        took_ms: 15_000,
        found: String::new(),
        trouble: Some(Trouble::new(kind, "the server refuses the password", "set another")),
    };
    let checkups: Vec<Checkup> = std::iter::once(well).chain(kinds.into_iter().map(ill)).collect();
    let results = variants!(TrialResult {
        TrialResult::Failed(_) => TrialResult::Failed(Failure {
            kind: FailureKind::Invalid,
            message: "the workflow has problems".into(),
            hint: String::new(),
            problems: Vec::new(),
        }),
        TrialResult::Verdicts(_) => TrialResult::Verdicts(vec![verdict.clone()]),
        TrialResult::Steps(_) => TrialResult::Steps(vec![step.clone()]),
        TrialResult::Checkups(_) => TrialResult::Checkups(checkups.clone()),
    });
    let name = |value: &dyn core::fmt::Debug| {
        let text = format!("{value:?}");
        text.split([' ', '(']).next().unwrap_or_default().to_string()
    };
    let mut all: Vec<Sample> = calls.into_iter().map(|call| message(&name(&call), call)).collect();
    all.extend(results.into_iter().map(|result| message(&name(&result), result)));
    all
}
