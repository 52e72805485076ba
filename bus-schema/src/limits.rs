//! Every limit of the wire in one place, each with its unit in its name. Nothing here is configurable:
//! both ends of the bus rely on the same numbers.

/// Longest token of a subject, in bytes.
pub const TOKEN_BYTES_MAX: usize = 32;
/// Most tokens in a subject.
pub const SUBJECT_TOKENS_MAX: usize = 8;
/// Longest rendered subject, in bytes.
pub const SUBJECT_BYTES_MAX: usize = 128;

/// Largest plaintext payload of one envelope, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024;
/// Largest control message after its parts are put together, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a control message in one part, leaving room for the part's own heading.
pub const PART_BYTES: usize = 60 * 1024;
/// Largest frame handed to a broker, in bytes: payload, header, tag, signature and room for growth.
pub const FRAME_BYTES_MAX: usize = 96 * 1024;

/// Width of the replay window: how far out of order a sender's messages may arrive.
pub const REPLAY_WINDOW: u64 = 1024;

/// Longest human-readable name (daemon, workflow, component id), in bytes.
pub const NAME_BYTES_MAX: usize = 32;
/// Longest free text a message carries (causes, hints), in bytes.
pub const TEXT_BYTES_MAX: usize = 2 * 1024;

/// Most columns in a batch.
pub const COLUMNS_MAX: usize = 1024;
/// Most rows in a batch.
pub const ROWS_MAX: usize = 65_536;
/// Largest single record after encoding, in bytes. A larger one goes to the dead letters.
pub const RECORD_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most of an encoded batch that is not the content of texts and bytes, in bytes. Content takes in memory what it takes on
/// the wire; a null takes forty times as much, so this bounds what a hostile member can make others allocate: 80 MiB and
/// the content.
pub const BATCH_FORM_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Encoded size at which a batch is closed and becomes one frame, in bytes.
pub const BATCH_BYTES_TARGET: usize = 56 * 1024;

/// Frames a producer may have on the way to a consumer.
pub const CREDIT_FRAMES: u64 = 16;

/// Smallest quota of a stream's spool, in bytes: below it a few segments would not fit.
pub const SPOOL_QUOTA_BYTES_MIN: u64 = 16 * 1024 * 1024;

/// Most dead letters in one answer.
pub const LETTERS_PER_PAGE: usize = 100;
/// Most bytes of a dead letter's record in one answer.
pub const LETTER_PART_BYTES: usize = 512 * 1024;

/// Most records of a preview.
pub const PREVIEW_ROWS_MAX: usize = 100;

/// Longest secret that a daemon keeps, in bytes.
pub const SECRET_BYTES_MAX: usize = 16 * 1024;
/// Most secrets that a daemon keeps.
pub const SECRETS_MAX: usize = 256;

/// Most nodes in one workflow.
pub const WORKFLOW_NODES_MAX: usize = 256;
/// Most workflows in one daemon's plan.
pub const PLAN_WORKFLOWS_MAX: usize = 256;
/// Longest source position, in bytes.
pub const POSITION_BYTES_MAX: usize = 16 * 1024;
/// Most members of a fleet.
pub const ROSTER_MEMBERS_MAX: usize = 16_384;

/// How often a daemon reports its status, in milliseconds.
pub const HEARTBEAT_MS: u64 = 5_000;
/// How long a status keeps a daemon "online", in milliseconds: three heartbeats and a little.
pub const LEASE_MS: u64 = 17_000;
/// A wall clock further off than this is wrong, in milliseconds.
pub const CLOCK_OFF_MS_MAX: u64 = 2_000;
/// Default deadline of a request, in milliseconds.
pub const REQUEST_MS: u64 = 10_000;
