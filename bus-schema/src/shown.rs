//! What daemons tell operators, as it is shown: one shape for the JSON of the command line and of the web API, and one for sizes in
//! texts. Never on the wire, and never read back.

use alloc::{format, string::String, vec::Vec};

use serde::{Serialize, Serializer};

use crate::{
    data::{Batch, BatchError, Cell},
    letter::{LetterBoxView, LetterStage, LetterState, LetterView},
    trial::{Checkup, TrialStep},
};

/// What stands in the place of a value that is not for everybody's eyes.
pub const HIDDEN: &str = "[redacted]";

/// A size as people read it: 1536 → `1.5 KiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{count} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// A row of a batch, as an object of its columns: numbers and truth values as such, everything else as text. What is null,
/// missing or unchanged is null.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    batch: &'a Batch,
    row: usize,
    /// By column, which values are not shown; columns beyond its end are.
    hidden: &'a [bool],
}

impl<'a> Record<'a> {
    /// All of a row.
    pub fn of(batch: &'a Batch, row: usize) -> Self {
        Self {
            batch,
            row,
            hidden: &[],
        }
    }
}

impl Serialize for Record<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = self.batch.schema().fields.iter().enumerate();
        serializer.collect_map(fields.map(|(column, field)| {
            let cell = self.batch.cell(self.row, column);
            let is_hidden = self.hidden.get(column).copied().unwrap_or(false);
            (&field.name, Shown { cell, is_hidden })
        }))
    }
}

struct Shown<'a> {
    cell: Cell<'a>,
    is_hidden: bool,
}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.cell {
            Cell::Null | Cell::Missing | Cell::Unchanged => serializer.serialize_none(),
            _ if self.is_hidden => serializer.serialize_str(HIDDEN),
            Cell::Bool(value) => serializer.serialize_bool(value),
            Cell::I64(value) => serializer.serialize_i64(value),
            Cell::U64(value) => serializer.serialize_u64(value),
            Cell::F64(value) => serializer.serialize_f64(value),
            cell => serializer.collect_str(&cell),
        }
    }
}

/// The rows of a batch, as a list of [`Record`]s.
#[derive(Debug, Clone)]
pub struct Records {
    batch: Batch,
    hidden: Vec<bool>,
}

impl Records {
    /// All of an encoded batch.
    pub fn decode(bytes: &[u8]) -> Result<Self, BatchError> {
        Ok(Self {
            batch: Batch::decode(bytes)?,
            hidden: Vec::new(),
        })
    }

    /// The same without the values of some columns, chosen by name.
    #[must_use]
    pub fn hiding(self, is_hidden: impl Fn(&str) -> bool) -> Self {
        let fields = self.batch.schema().fields.iter();
        let hidden = fields.map(|field| is_hidden(&field.name)).collect();
        Self { hidden, ..self }
    }

    /// The batch.
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// The rows.
    pub fn rows(&self) -> impl Iterator<Item = Record<'_>> {
        (0..self.batch.rows()).map(|row| Record {
            batch: &self.batch,
            row,
            hidden: &self.hidden,
        })
    }
}

impl Serialize for Records {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.rows())
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Records {
    fn schema_name() -> alloc::borrow::Cow<'static, str> {
        "Records".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "array", "items": { "type": "object" } })
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Record<'_> {
    fn schema_name() -> alloc::borrow::Cow<'static, str> {
        "Record".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "object" })
    }
}

/// What one node made of records that came on one way.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Step {
    /// The node.
    pub node: String,
    /// The node they came from.
    pub from: String,
    /// How many came.
    pub came: u32,
    /// Those that go on; into a destination: that it would get.
    pub out: Records,
    /// Those that would be dead letters.
    pub rejected: Vec<Rejected>,
}

/// A record that would be a dead letter.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Rejected {
    /// Which of those that came, from 0.
    pub row: u32,
    /// Why.
    pub reason: String,
}

impl TryFrom<TrialStep> for Step {
    type Error = BatchError;

    fn try_from(step: TrialStep) -> Result<Self, BatchError> {
        let rejected = step.rejected.into_iter();
        Ok(Self {
            out: Records::decode(&step.batch)?,
            node: step.node,
            from: step.from,
            came: step.came,
            rejected: rejected.map(|(row, reason)| Rejected { row, reason }).collect(),
        })
    }
}

/// How a source or destination was found.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Checked {
    /// From which daemon.
    pub daemon: String,
    /// Its name in the workflow.
    pub node: String,
    /// Its type.
    pub component: String,
    /// Nothing is wrong.
    pub ok: bool,
    /// How long it took to find out, in milliseconds.
    pub took_ms: u32,
    /// What was seen, when nothing is wrong; and what could not be seen without touching data.
    pub found: String,
    /// Which part of the way is wrong, in one word.
    pub kind: Option<String>,
    /// What is wrong.
    pub cause: Option<String>,
    /// How to mend it.
    pub remedy: Option<String>,
}

impl Checked {
    /// As a daemon found it.
    pub fn new(daemon: &str, checkup: Checkup) -> Self {
        let (kind, cause, remedy) = match checkup.trouble {
            Some(trouble) => (
                Some(trouble.kind.name().into()),
                Some(trouble.cause),
                Some(trouble.remedy),
            ),
            None => (None, None, None),
        };
        Self {
            daemon: daemon.into(),
            node: checkup.node,
            component: checkup.component,
            ok: kind.is_none(),
            took_ms: checkup.took_ms,
            found: checkup.found,
            kind,
            cause,
            remedy,
        }
    }
}

/// What is known about a dead letter.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Letter {
    /// Its whole name: `daemon/workflow/id`.
    pub letter: String,
    /// Where it lies.
    pub daemon: String,
    /// Of which workflow.
    pub workflow: String,
    /// Its number in the workflow.
    pub id: u64,
    /// At which kind of node it died.
    pub stage: LetterStage,
    /// At which node.
    pub node: String,
    /// The way there, node by node.
    pub path: String,
    /// Why.
    pub reason: String,
    /// How it stands.
    pub state: LetterState,
    /// Why it could not be tried again; empty when nobody tried, or it can.
    pub refusal: String,
    /// How often it was tried again before it died here.
    pub replays: u32,
    /// The daemon's epoch when it died.
    pub boot: u64,
    /// Milliseconds since the daemon's start when it died.
    pub uptime_ms: u64,
    /// The daemon's wall clock then, milliseconds since 1970; advisory.
    pub unix_ms: i64,
    /// Size of its record.
    pub record_bytes: u64,
}

impl Letter {
    /// As a daemon tells of it.
    pub fn new(daemon: &str, view: LetterView) -> Self {
        let id = view.place.id;
        Self {
            letter: alloc::format!("{daemon}/{}/{id}", view.place.workflow),
            daemon: daemon.into(),
            workflow: view.place.workflow,
            id,
            stage: view.stage,
            node: view.node,
            path: view.path,
            reason: view.reason,
            state: view.state,
            refusal: view.refusal,
            replays: view.replays,
            boot: view.boot,
            uptime_ms: view.uptime_ms,
            unix_ms: view.unix_ms,
            record_bytes: view.record_bytes,
        }
    }
}

/// The dead letters of one workflow on one daemon, in numbers.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LetterBox {
    /// On which daemon.
    pub daemon: String,
    /// Of which workflow.
    pub workflow: String,
    /// The workflow is in the daemon's plan.
    pub is_planned: bool,
    /// Letters that had to go because there was no room.
    pub evicted: u64,
    /// Letters somebody purged.
    pub purged: u64,
    /// Letters that were tried again and came through, or died as another letter.
    pub replayed: u64,
    /// Times that damage was found on disk.
    pub damaged: u64,
}

impl LetterBox {
    /// As a daemon tells of it.
    pub fn new(daemon: &str, view: LetterBoxView) -> Self {
        Self {
            daemon: daemon.into(),
            workflow: view.workflow,
            is_planned: view.is_planned,
            evicted: view.evicted,
            purged: view.purged,
            replayed: view.replayed,
            damaged: view.damaged,
        }
    }
}
