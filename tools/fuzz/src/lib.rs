//! What the fuzzer feeds with bytes: one function for each place where bytes from outside are read. None of them may panic,
//! hang or take more memory than its input justifies, whatever the bytes.
//!
//! The fuzzer itself is in `targets`, a workspace of its own, because it wants a nightly compiler's instruments. The corpora
//! are in `corpus/<target>`; the test beside them runs every file through the same functions, on any compiler.

mod batch;
mod envelope;
mod messages;
mod segment;
mod streams;
mod workflow;

/// One target: its name, and what is done with the bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("envelope", envelope::feed),
    ("messages", messages::feed),
    ("batch", batch::feed),
    ("segment", segment::feed),
    ("workflow", workflow::feed),
    ("streams", streams::feed),
];

/// The target of this name.
pub fn target(name: &str) -> Option<fn(&[u8])> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, feed)| *feed)
}
