//! The wire contract: everything two members of a fleet must agree on before they can talk. Subjects, envelope, identities,
//! messages, records, plans and every limit. Knows no I/O, no clock, no randomness and no `std`: a firmware compiles it too.
//!
//! # One page
//!
//! Subjects are lists of tokens, joined by `.` on NATS and `/` on MQTT. All begin with `myc.v1.<fleet>`; the token after the
//! lane is always who publishes. Everything is sealed, then signed ([`envelope`]); what stands in the clear is the subject
//! and the [`Header`](envelope::Header).
//!
//! | subject below `myc.v1.<fleet>` | from → to | message, kind.version | answered by |
//! |---|---|---|---|
//! | `enrol.<token>.ask` | candidate → plane, sealed box | [`EnrolAsk`](message::EnrolAsk) 1.1 | [`EnrolAnswer`](message::EnrolAnswer) 2.1 |
//! | | candidate without a token → plane, sealed box | [`PairAsk`](pairing::PairAsk) 32.1 | [`PairWait`](pairing::PairWait), then [`EnrolAnswer`](message::EnrolAnswer) |
//! | `enrol.<token>.answer` | plane → candidate, pairwise | [`EnrolAnswer`](message::EnrolAnswer) 2.1 | – |
//! | | plane → candidate, pairwise | [`PairWait`](pairing::PairWait) 33.1 | the next [`PairAsk`](pairing::PairAsk) |
//! | `ctl.<sender>.<recipient>` | daemon → plane, pairwise | [`Status`](message::Status) 3.1 | [`PlanPut`](message::PlanPut), [`RosterPut`](message::RosterPut), [`CatalogAsk`](message::CatalogAsk), [`TimeHint`](message::TimeHint) when it is behind |
//! | | daemon → plane | [`StreamReports`](message::StreamReports) 4.1 | – |
//! | | daemon → plane | [`Carried`](carried::Carried) 44.1 | – |
//! | | daemon → plane | [`LettersKept`](carried::LettersKept) 45.1 | – |
//! | | daemon → plane | [`Drifts`](drift::Drifts) 46.1 | – |
//! | | plane → daemon | [`PlanPut`](message::PlanPut) 5.1 | the next [`Status`](message::Status) |
//! | | plane → member | [`RosterPut`](message::RosterPut) 6.1 | the next [`Status`](message::Status) |
//! | | plane → daemon | [`CatalogAsk`](message::CatalogAsk) 7.1 | [`CatalogPage`](message::CatalogPage) 8.1 |
//! | | daemon → plane | [`CatalogPage`](message::CatalogPage) 8.1 | – |
//! | | plane → daemon | [`TimeHint`](message::TimeHint) 23.1 | the next [`Status`](message::Status) |
//! | | plane → daemon | [`RecallAsk`](message::RecallAsk) 30.1 | [`RecallPage`](message::RecallPage) 31.1, two |
//! | | daemon → plane | [`RecallPage`](message::RecallPage) 31.1 | – |
//! | | daemon → plane | [`RotateAsk`](rotation::RotateAsk) 40.1 | [`RotateAnswer`](rotation::RotateAnswer) 41.1 |
//! | | plane → daemon | [`RotateAnswer`](rotation::RotateAnswer) 41.1 | – |
//! | | daemon → plane | [`RotateDone`](rotation::RotateDone) 42.1 | the next [`RosterPut`](message::RosterPut) |
//! | | daemon → daemon or plane | [`CertificateShow`](rotation::CertificateShow) 43.1 | – |
//! | | producer → consumer | [`StreamOpen`](message::StreamOpen) 9.1 | [`StreamAck`](message::StreamAck) 10.1 |
//! | | operator → plane, request | [`ApiCall`](api::ApiCall) 12.1 | [`ApiResult`](api::ApiResult) 13.1 |
//! | | plane → operator, reply | [`ApiResult`](api::ApiResult) 13.1 | – |
//! | | operator → daemon | [`TapOpen`](message::TapOpen) 14.1 | [`TapSample`](message::TapSample) 15.1, many |
//! | | daemon → operator | [`TapSample`](message::TapSample) 15.1 | – |
//! | | operator → daemon, request | [`LetterCall`](letter::LetterCall) 19.1 | [`LetterResult`](letter::LetterResult) 20.1 |
//! | | daemon → operator, reply | [`LetterResult`](letter::LetterResult) 20.1 | – |
//! | | operator → daemon, request | [`SecretCall`](secret::SecretCall) 24.1 | [`SecretResult`](secret::SecretResult) 25.1 |
//! | | daemon → operator, reply | [`SecretResult`](secret::SecretResult) 25.1 | – |
//! | | operator or plane → daemon, request | [`ControlCall`](control::ControlCall) 26.1 | [`ControlResult`](control::ControlResult) 27.1 |
//! | | daemon → operator or plane, reply | [`ControlResult`](control::ControlResult) 27.1 | – |
//! | | operator → daemon, request | [`TrialCall`](trial::TrialCall) 28.1 | [`TrialResult`](trial::TrialResult) 29.1 |
//! | | daemon → operator, reply | [`TrialResult`](trial::TrialResult) 29.1 | – |
//! | | any → any, request | [`Ping`](message::Ping) 17.1 | [`Pong`](message::Pong) 18.1 |
//! | | any → any, reply | [`Pong`](message::Pong) 18.1 | – |
//! | `data.<producer>.<stream>` | producer → consumer, stream key | [`Frame`](message::Frame) 11.1 | [`StreamAck`](message::StreamAck) 10.1 |
//! | `ack.<consumer>.<stream>` | consumer → producer, pairwise | [`StreamAck`](message::StreamAck) 10.1 | – |
//! | `app.<sender>.<topic…>` | member → members, group key | [`Text`](message::Text) 16.1 | – |
//!
//! A plaintext is a [`Body`](message::Body): kind, version, exchange, correlation, part, and the message in postcard. A
//! [`Frame`](message::Frame) carries a [`Batch`](data::Batch) of records; its seq is the envelope's counter. On a slow line a
//! sealed frame travels in [`Piece`](piece::Piece)s. Nothing relies on a message arriving: what matters is said again until
//! the other side shows that it knows.
//!
//! # What stays
//!
//! The struct of a version is frozen: a change is a new version beside it, and enum variants are only ever appended. What only the
//! web page is shown stands [aside](aside::Aside).
//! `tests/golden.txt` holds the bytes of everything above, and a test compares. Unknown kinds and versions are refused and
//! counted. No limit in [`limits`] is configurable.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod access;
pub mod api;
pub mod aside;
pub mod audit;
pub mod carried;
pub mod control;
pub mod data;
pub mod drift;
pub mod envelope;
pub mod id;
pub mod key;
pub mod letter;
pub mod limits;
pub mod member;
pub mod message;
pub mod observe;
pub mod pairing;
pub mod piece;
pub mod plan;
pub mod redact;
pub mod rollout;
pub mod rotation;
pub mod secret;
pub mod shown;
pub mod subject;
pub mod trial;
pub mod vault;

/// Postcard bytes of plain data.
pub fn encode<T: serde::Serialize>(value: &T) -> alloc::vec::Vec<u8> {
    postcard::to_allocvec(value).expect("plain data, written to memory")
}

/// Reads postcard bytes; `None` when they are anything else, or more.
pub fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    exactly(bytes).ok()
}

/// Reads postcard bytes to their end. Postcard itself ignores what is left over, which would let a struct that has grown
/// without a new version pass for the old one.
pub(crate) fn exactly<'a, T: serde::Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, postcard::Error> {
    match postcard::take_from_bytes(bytes)? {
        (value, []) => Ok(value),
        _ => Err(postcard::Error::DeserializeBadEncoding),
    }
}
