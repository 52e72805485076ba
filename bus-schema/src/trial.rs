//! Trying a workflow's text on a daemon: its transforms run on given records, nothing is read from a source, written to a
//! destination, or deployed. The plane has no part in it: it must not see records.

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
}

/// How one test ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
