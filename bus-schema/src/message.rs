//! Every message of the bus: the body around it, and one struct per kind and version. A version's struct is frozen;
//! a change is a new version beside it. The table in the crate's front page is the index.

use alloc::{string::String, vec::Vec};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    api::{ApiCall, ApiResult},
    carried::{Carried, LettersKept},
    control::{ControlCall, ControlResult},
    drift::Drifts,
    id::{FleetId, NodeId, StreamId, WorkflowId},
    key::{PublicKeys, SecretKey},
    letter::{LetterCall, LetterResult},
    member::{BrokerLogin, Certificate, GroupKey, Role, Roster, Signed},
    pairing::{PairAsk, PairWait},
    plan::{Descriptor, Plan},
    rotation::{CertificateShow, RotateAnswer, RotateAsk, RotateDone},
    secret::{SecretCall, SecretResult},
    trial::{TrialCall, TrialResult},
};

/// A body could not be read. Counted and reported, never a crash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Not a body at all.
    #[error("the plaintext is not a message: {0}")]
    Malformed(postcard::Error),
    /// A kind or version this program does not know.
    #[error("message kind {kind}, version {ver} is not known to this program; update it")]
    Unknown {
        /// Kind.
        kind: u16,
        /// Version.
        ver: u8,
    },
}

/// What a message is in an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exchange {
    /// Nobody answers.
    OneWay,
    /// The recipient answers within the deadline or the sender gives up.
    Request {
        /// Milliseconds from sending.
        deadline_ms: u32,
    },
    /// Answers the request with the same correlation.
    Reply,
}

/// The plaintext of an envelope: which message, how it belongs to others, and its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body<'a> {
    /// Which message.
    pub kind: u16,
    /// Which version of it.
    pub ver: u8,
    /// What it is in an exchange.
    pub exchange: Exchange,
    /// Ties a reply to its request and the parts of a long message together; unique per sender epoch.
    pub correlation: u64,
    /// Which part this is, from 0.
    pub part: u16,
    /// How many parts the message has; 1 for nearly all.
    pub parts: u16,
    /// The message, or a part of it.
    #[serde(borrow, with = "serde_bytes")]
    pub payload: &'a [u8],
}

impl<'a> Body<'a> {
    /// Wire bytes.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("a body is plain data, written to memory")
    }

    /// Reads wire bytes.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, BodyError> {
        crate::exactly(bytes).map_err(BodyError::Malformed)
    }
}

/// A message struct with its number.
pub trait Message: Serialize + DeserializeOwned {
    /// Unique, never reused.
    const KIND: u16;
    /// The version of this very struct.
    const VER: u8;

    /// Wire bytes of the message itself.
    fn to_payload(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("messages are plain data, written to memory")
    }

    /// Reads the message if `kind` and `ver` are its own.
    fn from_payload(kind: u16, ver: u8, payload: &[u8]) -> Result<Self, BodyError> {
        if (kind, ver) != (Self::KIND, Self::VER) {
            return Err(BodyError::Unknown { kind, ver });
        }
        crate::exactly(payload).map_err(BodyError::Malformed)
    }
}

macro_rules! messages {
    ($($kind:literal, $ver:literal => $name:ident;)*) => {
        $(impl Message for $name { const KIND: u16 = $kind; const VER: u8 = $ver; })*

        /// Kind, version and name of every message, for golden tests and docs.
        pub const CATALOG: &[(u16, u8, &str)] = &[$(($kind, $ver, stringify!($name)),)*];
    };
}

messages! {
    1, 1 => EnrolAsk;
    2, 1 => EnrolAnswer;
    3, 1 => Status;
    4, 1 => StreamReports;
    5, 1 => PlanPut;
    6, 1 => RosterPut;
    7, 1 => CatalogAsk;
    8, 1 => CatalogPage;
    9, 1 => StreamOpen;
    10, 1 => StreamAck;
    11, 1 => Frame;
    12, 1 => ApiCall;
    13, 1 => ApiResult;
    14, 1 => TapOpen;
    15, 1 => TapSample;
    16, 1 => Text;
    17, 1 => Ping;
    18, 1 => Pong;
    19, 1 => LetterCall;
    20, 1 => LetterResult;
    23, 1 => TimeHint;
    24, 1 => SecretCall;
    25, 1 => SecretResult;
    26, 1 => ControlCall;
    27, 1 => ControlResult;
    28, 1 => TrialCall;
    29, 1 => TrialResult;
    30, 1 => RecallAsk;
    31, 1 => RecallPage;
    32, 1 => PairAsk;
    33, 1 => PairWait;
    40, 1 => RotateAsk;
    41, 1 => RotateAnswer;
    42, 1 => RotateDone;
    43, 1 => CertificateShow;
    44, 1 => Carried;
    45, 1 => LettersKept;
    46, 1 => Drifts;
}

/// A candidate asks to become a member. Travels in a sealed box to the plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolAsk {
    /// The candidate's keys.
    pub keys: PublicKeys,
    /// The name it would like; the plane may have fixed another with the token.
    pub name: String,
    /// See [`crate::member::enrol_proof`].
    pub proof: [u8; 32],
    /// Facts about its host.
    pub host: HostFacts,
}

/// The plane's answer to [`EnrolAsk`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant, reason = "one per enrolment, taken apart at once")]
pub enum EnrolAnswer {
    /// Welcome.
    Granted {
        /// The fleet's root key; must hash to the fleet id of the invitation.
        root: [u8; 32],
        /// The new member's certificate.
        certificate: Signed<Certificate>,
        /// Everybody.
        roster: Signed<Roster>,
        /// The group key.
        group: GroupKey,
        /// How to log in at the broker from now on; `None` keeps what the config says.
        login: Option<BrokerLogin>,
    },
    /// No, and why, in words for a person.
    Refused(String),
}

/// Facts about a host that do not change while it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HostFacts {
    /// Host name.
    pub hostname: String,
    /// Operating system and version.
    pub os: String,
    /// Processor architecture.
    pub arch: String,
    /// Processors.
    pub cpus: u16,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Version of the Mycelial program.
    pub version: String,
}

/// How a workflow is doing on one daemon. Variants are only ever appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Components are being opened.
    Starting,
    /// Records flow, or would if there were any.
    Running,
    /// Something failed and is tried again; the cause says what.
    Retrying,
    /// Will not go on without a change; the cause says why.
    Failed,
    /// All its sources came to their end and everything is delivered.
    Finished,
    /// Shutting down.
    Stopping,
    /// An operator lets its sources read nothing; what was read before is still delivered.
    Paused,
}

/// One workflow in a [`Status`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkflowStatus {
    /// Which workflow.
    pub workflow: WorkflowId,
    /// Which revision runs.
    pub revision: u32,
    /// How it is doing.
    pub state: RunState,
    /// The reason, when there is one to tell.
    pub cause: String,
}

/// What the daemon uses of its host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Resources {
    /// Resident memory.
    pub rss_bytes: u64,
    /// Most resident memory since start.
    pub rss_peak_bytes: u64,
    /// Processor time since start.
    pub cpu_ms: u64,
    /// Bytes in all spools.
    pub spool_bytes: u64,
    /// Bytes free where the data directory is.
    pub disk_free_bytes: u64,
}

/// A daemon's heartbeat: a lease on being "online", and what it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of `myceliald`.
    pub version: String,
    /// The daemon's epoch: goes up at each start.
    pub boot: u64,
    /// Since start.
    pub uptime_ms: u64,
    /// The daemon's wall clock, milliseconds since 1970; advisory.
    pub unix_ms: i64,
    /// How long this status may be believed; 0 says goodbye.
    pub lease_ms: u64,
    /// The plan it has converged to; 0 for none.
    pub plan_version: u64,
    /// Why the newest plan is not applied; empty when it is.
    pub plan_error: String,
    /// The roster it enforces.
    pub roster_version: u64,
    /// Hash of its component catalog; the plane asks for the catalog when it does not know this one.
    pub catalog: [u8; 32],
    /// The workflows of its plan.
    pub workflows: Vec<WorkflowStatus>,
    /// What it uses.
    pub resources: Resources,
    /// Messages it refused since start (bad signature, replay, unknown kind).
    pub refused: u64,
    /// Damaged files it has set aside and not been told to forget.
    pub damaged: u32,
    /// When its boot began by the fleet's time, milliseconds since 1970; `None` until the plane has told it.
    pub began_unix_ms: Option<i64>,
}

/// Counts of records since a stream's epoch began. At every moment
/// `produced = delivered + buffered + dropped + dead`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Ledger {
    /// Taken from the source for this stream, after transforms.
    pub produced: u64,
    /// Waiting, durable, not acknowledged.
    pub buffered: u64,
    /// Durable at the destination, or left out on the consumer's side (see `filtered`).
    pub delivered: u64,
    /// Given up by policy, each reported.
    pub dropped: u64,
    /// In the dead letters.
    pub dead: u64,
    /// Arrived again and were recognised; not part of the balance.
    pub duplicates: u64,
    /// Of those delivered: known only by the producer's word, because the destination has lost its watermark, or was taken
    /// back to an older state (and may have lost these with it).
    pub unconfirmed: u64,
    /// Of those delivered: left out by a transform on the consumer's side, as the workflow wants it. What the producer's
    /// side leaves out was never produced for this stream.
    pub filtered: u64,
}

impl Ledger {
    /// Whether every record is accounted for.
    pub fn balances(&self) -> bool {
        let parts = [self.delivered, self.buffered, self.dropped, self.dead];
        parts.iter().try_fold(0u64, |sum, part| sum.checked_add(*part)) == Some(self.produced)
    }
}

/// Which end of a stream speaks. Variants are only ever appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The producing daemon.
    Producer,
    /// The consuming daemon.
    Consumer,
    /// Both in one: source and destination in one pipe, without a spool.
    Direct,
}

/// One stream's account, as one end sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamReport {
    /// Which stream.
    pub stream: StreamId,
    /// Of which workflow.
    pub workflow: WorkflowId,
    /// `<from>-><to>`.
    pub edge: String,
    /// Who speaks.
    pub side: Side,
    /// The stream's epoch.
    pub epoch: u64,
    /// Highest durable seq.
    pub watermark: u64,
    /// The account.
    pub ledger: Ledger,
    /// Of the dead: those that died on the producer's side, before they had a seq. The consumer knows nothing of them.
    pub dead_before: u64,
    /// Of what a consumer has settled (delivered and dead): records of earlier epochs. Its destination keeps one count for all.
    pub settled_earlier: u64,
    /// The same of what it counts as dropped.
    pub dropped_earlier: u64,
    /// Bytes waiting in the spool.
    pub buffered_bytes: u64,
    /// Gap records made (by a producer) or met (by a consumer) in this epoch: places where records are missing.
    pub gaps: u64,
    /// What keeps it from flowing, in words; empty when nothing does.
    pub trouble: String,
}

/// A daemon's stream accounts; at most 200 per message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamReports {
    /// The daemon's epoch.
    pub boot: u64,
    /// The accounts.
    pub streams: Vec<StreamReport>,
}

/// The plane's wish. Sent when a status shows an older plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanPut {
    /// Signed by the plane.
    pub plan: Signed<Plan>,
}

/// The newest roster and group key. Sent when a status shows an older roster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RosterPut {
    /// Signed by the root key.
    pub roster: Signed<Roster>,
    /// The group key.
    pub group: GroupKey,
}

/// The plane asks for the component catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogAsk {
    /// The hash from the status.
    pub catalog: [u8; 32],
}

/// The component catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogPage {
    /// Its hash.
    pub catalog: [u8; 32],
    /// The components.
    pub components: Vec<Descriptor>,
}

/// The producer opens (or re-opens) a stream to its consumer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamOpen {
    /// Which stream.
    pub stream: StreamId,
    /// Its epoch; a higher one than known means that the producer lost its spool.
    pub epoch: u64,
    /// The key of this stream and epoch.
    pub key: SecretKey,
    /// Oldest seq the producer still holds.
    pub first_seq: u64,
    /// The seq the next new frame will get.
    pub next_seq: u64,
    /// When boots began whose wall clock was wrong, as far as it is known by now.
    pub clocks: Vec<BootClock>,
}

/// When a boot of a daemon really began: corrects the times of records read while its wall clock was wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootClock {
    /// The daemon's epoch.
    pub boot: u64,
    /// Milliseconds since 1970, by the fleet's time.
    pub began_unix_ms: i64,
}

/// How far a source was read as of a batch. The consumer keeps it with the batch's watermark, so that a producer that lost
/// its buffer can ask for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceMark {
    /// Counts what the producing pipe has read.
    pub root_seq: u64,
    /// The source's bookmark, opaque.
    #[serde(with = "serde_bytes")]
    pub position: Vec<u8>,
}

/// Where a consumer stands in an older epoch of a stream whose newer one was opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// That epoch.
    pub epoch: u64,
    /// Highest seq of it durable at the destination.
    pub watermark: u64,
    /// How far the source was read as of that; `None` when nothing was ever durable.
    pub mark: Option<SourceMark>,
}

/// The consumer's answer, cumulative: a later one says all that earlier ones said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamAck {
    /// Which stream.
    pub stream: StreamId,
    /// Which epoch of it; 0 when the consumer does not know the stream's key (any more): open it, please.
    pub epoch: u64,
    /// Highest seq durable at the destination; everything up to it may be deleted.
    pub watermark: u64,
    /// Highest seq received in order; the producer goes on after it.
    pub received: u64,
    /// The producer may send up to this seq.
    pub credit: u64,
    /// A frame after `received` was lost on the way: go back to it now, do not wait for a time-out.
    pub rewind: bool,
    /// Bytes of the frame after `received` that have arrived in pieces, in order.
    pub partial_bytes: u32,
    /// Records of this stream that went to the consumer's dead letters.
    pub dead: u64,
    /// Answers the opening of an epoch of which nothing is durable yet: where the epoch before it ended.
    pub resume: Option<Resume>,
    /// What holds the consumer up, in words; empty when nothing does.
    pub trouble: String,
    /// The newest epoch the consumer knows of, also when it has no key to it. A producer that speaks in an older one was
    /// restored from a copy.
    pub newest: u64,
    /// The last eight bytes of the sealed frame `received`: a producer that has another frame there was restored from a
    /// copy. 0 when it is not known.
    pub print: u64,
    /// Records of this epoch that the frames up to `received` account for: carried, given up, lost or settled.
    pub records: u64,
}

/// How the bytes of a [`Packed`] batch are compressed. Variants are only ever appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Codec {
    /// Not at all.
    Plain,
    /// One Zstandard frame (RFC 8878).
    Zstd {
        /// Size once unpacked.
        raw_bytes: u32,
    },
}

/// What a pipe gave a stream in one go: a batch, and how far the source was read with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packed {
    /// Rows of the batch.
    pub records: u32,
    /// How its bytes are compressed.
    pub codec: Codec,
    /// The encoded batch.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
    /// The source, after this batch; `None` when more of the same read follows.
    pub mark: Option<SourceMark>,
}

/// One frame of a stream. Its seq is the envelope's counter. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Frame {
    /// A whole batch.
    Batch(Packed),
    /// A part of an encoded [`Packed`] that is larger than a frame. Parts follow each other.
    Part {
        /// From 0.
        index: u32,
        /// How many parts.
        count: u32,
        /// Rows of the batch, for the account of a part that stays alone.
        records: u32,
        /// The bytes.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    /// Records that will never come. Ends at this frame's own seq.
    Gap {
        /// The first seq it stands for. Its own seq, when the records never had one.
        first_seq: u64,
        /// Records given up by policy.
        dropped: u64,
        /// Records lost to damage.
        lost: u64,
        /// Records that are missing only here: an earlier life of the consumer has confirmed them.
        settled: u64,
    },
}

/// An operator asks a daemon to show some records of one node of a workflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapOpen {
    /// Which workflow.
    pub workflow: WorkflowId,
    /// Whose output (or, for a destination, input), by node name.
    pub node: String,
    /// Most records a second.
    pub rate_max: u32,
    /// The tap ends by itself after this long unless opened again.
    pub lease_ms: u32,
}

/// Records seen by a tap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapSample {
    /// Which workflow.
    pub workflow: WorkflowId,
    /// Which node.
    pub node: String,
    /// An encoded batch.
    #[serde(with = "serde_bytes")]
    pub batch: Vec<u8>,
    /// Records that passed since the last sample and are not shown.
    pub skipped: u64,
    /// Why there is no tap, if there is none; empty otherwise.
    pub refused: String,
}

/// The plane tells its time: the fleet's. Sent when a status does not know it, or knows another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeHint {
    /// From the status.
    pub boot: u64,
    /// From the status.
    pub uptime_ms: u64,
    /// What the plane's clock said then, milliseconds since 1970.
    pub unix_ms: i64,
}

/// The plane asks a daemon for what it was given, because the daemon knows more than the plane: the plane's disk was lost, or an
/// older copy of it was restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecallAsk {
    /// The newest roster that the plane knows.
    pub roster_version: u64,
}

/// What a daemon was given. Roster and plan may be too long for one message: there is one for each. Both are signed by keys that the
/// plane holds, so it need not take the daemon's word for them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecallPage {
    /// The newest roster it knows.
    pub roster: Option<Signed<Roster>>,
    /// The plan it runs.
    pub plan: Option<Signed<Plan>>,
}

/// A user's own message on the app lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    /// The user's bytes.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// Are you there?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// Comes back.
    pub nonce: u64,
}

/// Here I am.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// From the ping.
    pub nonce: u64,
    /// Who answers.
    pub node: NodeId,
    /// In which fleet.
    pub fleet: FleetId,
    /// As what.
    pub role: Role,
    /// Which version.
    pub version: String,
}
