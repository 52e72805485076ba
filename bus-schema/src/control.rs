//! What an operator tells a daemon to do at once, and asks it about itself. None of it changes the plan: that is the plane's.
//! The plane has no part in it, so it works while the plane is away; it may ask the same, because none of it reveals or alters
//! records.

use alloc::{string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use crate::{
    api::Failure,
    audit::{AuditCall, AuditPage},
};

/// An operator commands a daemon. Doing one twice does what doing it once does. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlCall {
    /// Start a workflow anew. Answered by [`ControlResult::Done`].
    Restart {
        /// By name.
        workflow: String,
    },
    /// Let its sources read nothing more until told otherwise, over restarts too; what was read before is still delivered.
    /// Answered by [`ControlResult::Done`].
    Pause {
        /// By name; empty for all in the plan.
        workflow: String,
    },
    /// Let them read again. Answered by [`ControlResult::Done`].
    Resume {
        /// By name; empty for all that are paused.
        workflow: String,
    },
    /// Log more or less for a while; then what the settings say holds again. Answered by [`ControlResult::Done`].
    LogLevel {
        /// `debug`, `info,spool=debug`, …; empty goes back at once.
        level: String,
        /// For how long, in milliseconds.
        for_ms: u64,
    },
    /// The last lines of the log. Answered by [`ControlResult::Lines`].
    Logs {
        /// Only lines with higher numbers.
        after: u64,
        /// At most so many, the newest.
        lines_max: u16,
        /// Only lines about this workflow; empty for all.
        workflow: String,
    },
    /// Everything that helps to find out what is wrong, without secrets and records. Answered by [`ControlResult::Report`].
    Diagnose,
    /// The daemon's own audit. Answered by [`ControlResult::Audit`].
    Audit(AuditCall),
    /// Pause, and say when nothing is buffered any more. Answered by [`ControlResult::Working`] until then, and by
    /// [`ControlResult::Done`]: ask again.
    Drain {
        /// By name; empty for all in the plan.
        workflow: String,
    },
    /// Look closely at the buffers on disk, while they are in use. Answered by [`ControlResult::Working`] until that is done, and
    /// by [`ControlResult::Report`], or [`ControlResult::Failed`] when something is damaged: ask again.
    SpoolCheck,
    /// Make new keys and take them into use. Answered by [`ControlResult::Working`] until nothing is left that the old ones have
    /// signed, and by [`ControlResult::Done`]: ask again.
    Rotate {
        /// Random: the same wish, said again, is no second rotation.
        wish: u64,
    },
}

/// What a daemon answers. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlResult {
    /// It did not work.
    Failed(Failure),
    /// It is done, and durable where it has to last.
    Done {
        /// The workflows it was done to.
        workflows: Vec<String>,
    },
    /// Lines of the log, the oldest first.
    Lines {
        /// The lines.
        lines: Vec<LogLine>,
        /// Number of the newest line there is; ask for those after it next.
        newest: u64,
    },
    /// What is known, by heading.
    Report(Vec<Section>),
    /// Entries of the audit.
    Audit(AuditPage),
    /// It is being done, and not done yet: ask again.
    Working {
        /// What it waits for, for people.
        what: String,
    },
}

/// A line of a daemon's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LogLine {
    /// Counts the lines since the daemon's start, from 1.
    pub number: u64,
    /// By the daemon's wall clock, milliseconds since 1970.
    pub unix_ms: i64,
    /// `ERROR`, `WARN`, `INFO`, `DEBUG` or `TRACE`.
    pub level: String,
    /// What it says, and the fields it says it with.
    pub text: String,
    /// Which workflow it is about; empty when about none.
    pub workflow: String,
}

/// A part of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// What it is about.
    pub heading: String,
    /// For people.
    pub text: String,
}
