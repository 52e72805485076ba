//! A sample of every message by which a text is tried.

use bus_schema::{
    api::{Failure, FailureKind},
    trial::{Given, TrialCall, TrialResult, TrialStep, Verdict},
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
    let results = variants!(TrialResult {
        TrialResult::Failed(_) => TrialResult::Failed(Failure {
            kind: FailureKind::Invalid,
            message: "the workflow has problems".into(),
            hint: String::new(),
            problems: Vec::new(),
        }),
        TrialResult::Verdicts(_) => TrialResult::Verdicts(vec![verdict.clone()]),
        TrialResult::Steps(_) => TrialResult::Steps(vec![step.clone()]),
    });
    let name = |value: &dyn core::fmt::Debug| {
        let text = format!("{value:?}");
        text.split([' ', '(']).next().unwrap_or_default().to_string()
    };
    let mut all: Vec<Sample> = calls.into_iter().map(|call| message(&name(&call), call)).collect();
    all.extend(results.into_iter().map(|result| message(&name(&result), result)));
    all
}
