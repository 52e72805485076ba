//! A sample of every message about secrets.

use bus_schema::{
    api::{Failure, FailureKind},
    secret::{SecretCall, SecretResult, SecretText, SecretView},
};

use super::*;

/// Calls and results, variant by variant.
pub fn secrets() -> Vec<Sample> {
    let name = || "pg".to_string();
    let calls = variants!(SecretCall {
        SecretCall::Set { .. } => SecretCall::Set { name: name(), value: SecretText::new("hunter2".into()) },
        SecretCall::Remove { .. } => SecretCall::Remove { name: name() },
        SecretCall::List => SecretCall::List,
    });
    let view = SecretView {
        name: name(),
        set_unix_ms: Some(1_700_000_000_000),
        used_by: vec!["orders".into()],
    };
    let results = variants!(SecretResult {
        SecretResult::Failed(_) => SecretResult::Failed(Failure {
            kind: FailureKind::NotFound,
            message: "no secret 'pg'".into(),
            hint: "list them".into(),
            problems: Vec::new(),
        }),
        SecretResult::Done { .. } => SecretResult::Done { used_by: vec!["orders".into()] },
        SecretResult::Names(_) => SecretResult::Names(vec![view.clone()]),
    });
    let name = |value: &dyn core::fmt::Debug| {
        let text = format!("{value:?}");
        text.split([' ', '(']).next().unwrap_or_default().to_string()
    };
    let mut all: Vec<Sample> = calls.into_iter().map(|call| message(&name(&call), call)).collect();
    all.extend(results.into_iter().map(|result| message(&name(&result), result)));
    all
}
