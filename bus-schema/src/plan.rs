//! What the plane asks of a daemon: a signed, versioned plan of pipes, and the descriptors by which the plane knows
//! what a daemon can run. Knows no component.

use alloc::{format, string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use crate::{
    id::{FleetId, NodeId, StreamId, WorkflowId},
    member::Document,
};

/// What a component does in a graph. Variants are only ever appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ComponentRole {
    /// Reads records from a system.
    Source,
    /// Changes or drops records.
    Transform,
    /// Writes records to a system.
    Destination,
}

impl core::fmt::Display for ComponentRole {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            ComponentRole::Source => "source",
            ComponentRole::Transform => "transform",
            ComponentRole::Destination => "destination",
        })
    }
}

/// A component a daemon carries, as data: enough to validate a config and to draw a form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// What it does in a graph.
    pub role: ComponentRole,
    /// Its type name in workflows (`sqlite`, `filter`).
    pub name: String,
    /// One line for people.
    pub summary: String,
    /// JSON Schema (2020-12) of its config.
    pub schema: String,
    /// A working example, as a TOML fragment of a workflow.
    pub example: String,
    /// Most edges that may end at it: 1, or 0 for as many as you like. Sources take none whatever this says.
    pub inputs_max: u16,
    /// Sources: can read again from a position. Destinations: keep the watermark with the records (exactly once).
    pub durable: bool,
}

/// What to do when a stream's spool is full. Variants are only ever appended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// The source waits.
    #[default]
    Block,
    /// Give up the oldest records, with a gap record.
    DropOldest,
    /// Give up the records that do not fit, with a gap record.
    DropNewest,
}

/// Who gets room and bandwidth first when there is not enough for all. Variants are only ever appended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// First of all.
    Critical,
    /// In between.
    #[default]
    Normal,
    /// With what the others leave.
    Bulk,
}

/// A time of day at which a stream may send, by the producing daemon's local time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// First minute of the day, 0 to 1439.
    pub from_minute: u16,
    /// The minute at which it ends; at or before `from_minute`, it ends on the next day.
    pub to_minute: u16,
}

/// How a stream is buffered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolPolicy {
    /// Most bytes on disk.
    pub quota_bytes: u64,
    /// What happens then.
    pub when_full: WhenFull,
}

impl Default for SpoolPolicy {
    fn default() -> Self {
        Self {
            quota_bytes: 1 << 30,
            when_full: WhenFull::Block,
        }
    }
}

/// How a stream is sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendPolicy {
    /// Who goes first.
    pub class: Class,
    /// Most bytes a second on the wire; 0 for no limit.
    pub bytes_per_s_max: u64,
    /// When it may send; empty for always.
    pub windows: Vec<Window>,
    /// Whether batches are compressed.
    pub compress: bool,
    /// Whether, after an outage, what is produced now goes before what had to wait; see [`Action::Tracks`].
    pub live_first: bool,
}

/// One component instance of a workflow on this daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanNode {
    /// Its name in the workflow.
    pub id: String,
    /// What it does.
    pub role: ComponentRole,
    /// Component type name.
    pub component: String,
    /// Config as JSON text, already validated against the descriptor.
    pub config: String,
}

/// One stream, as both of its ends see it. A spooled edge inside one daemon has that daemon at both ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamSpec {
    /// Its id.
    pub stream: StreamId,
    /// `<from>-><to>` in the workflow's node names.
    pub edge: String,
    /// Who produces.
    pub producer: NodeId,
    /// Who consumes.
    pub consumer: NodeId,
    /// How the producer buffers it.
    pub spool: SpoolPolicy,
    /// How the producer sends it.
    pub send: SendPolicy,
}

/// What the edge of the second of two tracks ends with.
pub const SECOND_TRACK: &str = "#2";

impl StreamSpec {
    /// Whether it stays the same stream whichever daemon consumes it: a part of a destination that several share.
    pub fn is_shared(&self, workflow: &WorkflowId) -> bool {
        self.stream == StreamId::of_edge(workflow, &self.edge, &self.producer, &self.producer)
    }

    /// The stream that takes turns with this one, if its edge delivers live data first.
    pub fn second_track(&self, workflow: &WorkflowId) -> Self {
        let edge = format!("{}{SECOND_TRACK}", self.edge);
        Self {
            stream: StreamId::of_edge(workflow, &edge, &self.producer, &self.consumer),
            edge,
            ..self.clone()
        }
    }
}

/// Where a pipe's records come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Root {
    /// A source node, by index into [`PlanWorkflow::nodes`].
    Source(u16),
    /// An incoming stream.
    Stream(StreamSpec),
}

/// What happens to the records of one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// A transform node, by index.
    Transform(u16),
    /// A destination node, by index. A pipe with such a leaf has no other leaf.
    Sink(u16),
    /// An outgoing stream.
    Stream(StreamSpec),
    /// An outgoing edge that delivers live data first: two streams that take turns. Each record is in one of them.
    Tracks([StreamSpec; 2]),
}

impl Action {
    /// The streams that begin here.
    pub fn streams(&self) -> &[StreamSpec] {
        match self {
            Action::Stream(spec) => core::slice::from_ref(spec),
            Action::Tracks(specs) => specs,
            Action::Transform(_) | Action::Sink(_) => &[],
        }
    }
}

/// One step of a pipe. Steps stand in an order in which each comes after the one it reads from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The step it reads from; `None` reads from the root.
    pub after: Option<u16>,
    /// What it does.
    pub action: Action,
}

/// From one root through transforms to leaves: either exactly one destination, or one or more streams.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pipe {
    /// Where records come from.
    pub root: Root,
    /// What happens to them.
    pub steps: Vec<Step>,
}

/// One workflow's part on one daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanWorkflow {
    /// Its id.
    pub id: WorkflowId,
    /// Its name.
    pub name: String,
    /// Which revision.
    pub revision: u32,
    /// The components on this daemon.
    pub nodes: Vec<PlanNode>,
    /// How records flow through them.
    pub pipes: Vec<Pipe>,
}

/// All that one daemon shall run. Signed by the plane; the daemon converges to the highest version it has seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The fleet.
    pub fleet: FleetId,
    /// Whose plan.
    pub daemon: NodeId,
    /// Only goes up.
    pub version: u64,
    /// What to run; anything else stops.
    pub workflows: Vec<PlanWorkflow>,
}

impl Document for Plan {
    const WHAT: &'static str = "plan";
}
