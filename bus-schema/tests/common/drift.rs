//! Columns that are not as agreed, in messages.

use bus_schema::{
    api::{DriftView, NoteView},
    drift::{Drifts, WorkflowDrift},
};

use super::*;

const WHAT: &str = "agreed: column 'speed' (i64) is new in 'readings': accepted";

/// What a daemon tells.
pub fn drifts() -> Drifts {
    Drifts {
        workflows: vec![WorkflowDrift {
            workflow: workflow(),
            what: WHAT.into(),
            batches: 3,
            ago_ms: 40_000,
        }],
    }
}

/// What the plane tells.
pub fn note() -> NoteView {
    NoteView {
        workflow: "orders".into(),
        daemon: "gateway".into(),
        letters_kept: Some(300),
        drift: Some(DriftView {
            what: WHAT.into(),
            batches: 3,
            ago_ms: 40_000,
        }),
    }
}
