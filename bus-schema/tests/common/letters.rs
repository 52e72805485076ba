//! A sample of every message about dead letters.

use bus_schema::{
    api::{Failure, FailureKind},
    letter::{
        LetterBoxView, LetterCall, LetterPage, LetterPlace, LetterResult, LetterSelect, LetterStage, LetterState,
        LetterView,
    },
};

use super::*;

fn place() -> LetterPlace {
    LetterPlace {
        workflow: "orders".into(),
        id: 17,
    }
}

fn view() -> LetterView {
    LetterView {
        place: place(),
        stage: LetterStage::Transform,
        node: "keep".into(),
        path: "shop->keep".into(),
        reason: "division by zero".into(),
        state: LetterState::Queued,
        refusal: "nothing that comes from 'shop' goes to 'keep' any more".into(),
        replays: 2,
        boot: 9,
        uptime_ms: 60_000,
        unix_ms: 1_700_000_000_000,
        record_bytes: 300,
    }
}

/// Calls, results and what is in them, variant by variant.
pub fn letters() -> Vec<Sample> {
    let select = || LetterSelect {
        workflow: "orders".into(),
        node: "keep".into(),
        ids: vec![17, 18],
    };
    let calls = variants!(LetterCall {
        LetterCall::List { .. } => LetterCall::List { select: select(), after: Some(place()) },
        LetterCall::Show { .. } => LetterCall::Show { letter: place(), offset: 4_096 },
        LetterCall::Replay(_) => LetterCall::Replay(select()),
        LetterCall::Purge(_) => LetterCall::Purge(select()),
        LetterCall::Mend { .. } => LetterCall::Mend { letter: place(), values: "{\"quantity\":5}".into() },
    });
    let failure = Failure {
        kind: FailureKind::NotFound,
        message: "no letter 17".into(),
        hint: "list them".into(),
        problems: Vec::new(),
    };
    let page = LetterPage {
        letters: vec![view()],
        boxes: vec![LetterBoxView {
            workflow: "orders".into(),
            is_planned: true,
            evicted: 1,
            purged: 2,
            replayed: 3,
            damaged: 4,
        }],
        next: Some(place()),
    };
    let results = variants!(LetterResult {
        LetterResult::Failed(_) => LetterResult::Failed(failure),
        LetterResult::Page(_) => LetterResult::Page(page),
        LetterResult::Letter { .. } => LetterResult::Letter { letter: view(), bytes: vec![1, 2, 3] },
        LetterResult::Done { .. } => LetterResult::Done { letters: 2, doubtful: 1, notes: vec!["soon".into()] },
    });
    let stages = variants!(LetterStage {
        LetterStage::Source => LetterStage::Source,
        LetterStage::Transform => LetterStage::Transform,
        LetterStage::Destination => LetterStage::Destination,
    });
    let states = variants!(LetterState {
        LetterState::Kept => LetterState::Kept,
        LetterState::Queued => LetterState::Queued,
        LetterState::Doubtful => LetterState::Doubtful,
    });
    let name = |value: &dyn core::fmt::Debug| {
        format!("{value:?}")
            .split([' ', '('])
            .next()
            .unwrap_or_default()
            .to_string()
    };
    let mut all: Vec<Sample> = calls.into_iter().map(|call| message(&name(&call), call)).collect();
    all.extend(results.into_iter().map(|result| message(&name(&result), result)));
    all.push(plain("enum LetterStage", stages));
    all.push(plain("enum LetterState", states));
    all
}
