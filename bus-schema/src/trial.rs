//! Trying a workflow's text on a daemon: its transforms run on given records, nothing is read from a source, written to a
//! destination, or deployed. And checking its sources and destinations: they are reached from there, and no data is touched.
//! The plane has no part in it: it must not see records.

use alloc::{string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use crate::api::Failure;

/// An operator tries a text. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TrialCall {
    /// Run the tests that the text keeps. Answered by [`TrialResult::Verdicts`].
    Test {
        /// TOML.
        text: String,
    },
    /// Show what each step makes of these records. Answered by [`TrialResult::Steps`].
    Preview {
        /// TOML.
        text: String,
        /// At most [`crate::limits::PREVIEW_ROWS_MAX`] records in all.
        given: Vec<Given>,
    },
    /// Check the sources and destinations of this text that belong to the daemon. Answered by [`TrialResult::Checkups`].
    Check {
        /// TOML.
        text: String,
    },
    /// Check those of a workflow that the daemon has in its plan. Answered by [`TrialResult::Checkups`].
    CheckPlanned {
        /// Its name.
        workflow: String,
    },
}

/// Records for a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// Which source.
    pub source: String,
    /// JSON objects, one a line.
    pub lines: String,
    /// Types of columns, by the names that `cast` takes; a value without one has that of its form.
    pub types: Vec<(String, String)>,
}

/// What a daemon answers. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TrialResult {
    /// It could not be tried: the text is wrong, or a transform cannot be built here.
    Failed(Failure),
    /// How each test ended, in the order of the text.
    Verdicts(Vec<Verdict>),
    /// What came of the records, in the order in which they pass.
    Steps(Vec<TrialStep>),
    /// How each source and destination was found, in the order of the text.
    Checkups(Vec<Checkup>),
}

/// How a source or destination was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkup {
    /// Its name in the workflow.
    pub node: String,
    /// Its type.
    pub component: String,
    /// How long it took to find out, in milliseconds.
    pub took_ms: u32,
    /// What was seen, when nothing is wrong; and what could not be seen without touching data.
    pub found: String,
    /// What is wrong.
    pub trouble: Option<Trouble>,
}

/// What is wrong with a source or destination, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// Which part of the way it concerns.
    pub kind: TroubleKind,
    /// What failed, where.
    pub cause: String,
    /// What to do about it.
    pub remedy: String,
}

/// Which part of the way a [`Trouble`] concerns. Variants are only ever appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TroubleKind {
    /// The config, as only the component itself can judge it.
    Config,
    /// A secret that cannot be had.
    Secret,
    /// A host's name that nobody knows.
    Name,
    /// Nobody answers there.
    Unreachable,
    /// The protection of the connection.
    Tls,
    /// User, password, token or key.
    Login,
    /// A right that whoever logged in does not have.
    Right,
    /// Something that is not there: a database, table, stream, bucket, node.
    Missing,
    /// A file or directory that cannot be read or written.
    Path,
    /// A place to listen at that cannot be had.
    Listen,
    /// A program or its code.
    Program,
    /// The other side says nothing in time.
    Silent,
    /// How the other side is set up.
    Setup,
    /// Anything else.
    Other,
}

impl TroubleKind {
    /// One word for it.
    pub const fn name(self) -> &'static str {
        match self {
            TroubleKind::Config => "config",
            TroubleKind::Secret => "secret",
            TroubleKind::Name => "name",
            TroubleKind::Unreachable => "unreachable",
            TroubleKind::Tls => "tls",
            TroubleKind::Login => "login",
            TroubleKind::Right => "right",
            TroubleKind::Missing => "missing",
            TroubleKind::Path => "path",
            TroubleKind::Listen => "listen",
            TroubleKind::Program => "program",
            TroubleKind::Silent => "silent",
            TroubleKind::Setup => "setup",
            TroubleKind::Other => "other",
        }
    }
}

impl Trouble {
    /// Something that is wrong, and how to mend it.
    pub fn new(kind: TroubleKind, cause: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            kind,
            cause: cause.into(),
            remedy: remedy.into(),
        }
    }
}

/// How one test ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Verdict {
    /// Its name.
    pub test: String,
    /// What is not as it is expected; empty when all is.
    pub differs: Vec<String>,
}

/// What one node makes of records that come on one way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialStep {
    /// The node.
    pub node: String,
    /// The node they came from.
    pub from: String,
    /// How many came.
    pub came: u32,
    /// Those that go on (into a destination: that it would get), as an encoded [`crate::data::Batch`].
    #[serde(with = "serde_bytes")]
    pub batch: Vec<u8>,
    /// Rows of those that came which would be dead letters, with the reason.
    pub rejected: Vec<(u32, String)>,
}
