//! Mycelial's own broker: MQTT 3.1.1 and 5 for one fleet. Knows who may speak where, never what is said:
//! every message is sealed, and the broker holds no key.
//!
//! [`config`] reads `broker.toml`, [`serve()`] listens, and the binary `mycelial-broker` is these two and a signal handler.
//! The MQTT protocol itself is the `mqtt5` crate; what is here is what a fleet needs around it.
//!
//! # Who may connect
//!
//! There is no list of users. The user name is a node id, or `enrol-<token id>` before there is one; the password is an
//! HMAC of the user name under the broker's secret ([`bus_schema::access::User::password`]). What a user may publish and
//! subscribe to follows from its name as well ([`bus_schema::access::rules`]).
//!
//! The MQTT client id is the user name, or the user name, a `-` and anything (up to 128 bytes in all): nobody can end
//! another's connection by taking its client id. Only the plain user name may keep a session after disconnecting, so a
//! user keeps at most one. An empty client id is given one.
//!
//! # What it does not do
//!
//! | | |
//! |---|---|
//! | QoS 2 | refused; Mycelial acknowledges end to end |
//! | retained messages | delivered, not retained |
//! | last wills | only on subjects the user may publish on |
//! | topic aliases, shared subscriptions, `$SYS` | not there |
//! | WebSocket, QUIC, bridges | not there |
//!
//! # Memory
//!
//! Everything is bounded. One subscriber that has stopped reading holds at most [`LANE_FRAMES`] + [`WINDOW_FRAMES`]
//! frames (and [`LANE_FRAMES`] of QoS 0) and `max_queued_bytes_per_client` more; then its oldest messages are dropped.
//! That is no loss: whoever published them has no acknowledgement from the receiver and sends them again.
//!
//! A publisher waits for a slow subscriber (at most two seconds, or half its keep-alive, for each message) before its
//! message goes to the queue; while there is a queue, nobody waits. A client that says nothing for one and a half
//! keep-alives is disconnected.
//!
//! # `broker.toml`
//!
//! ```toml
#![doc = include_str!("../broker.example.toml")]
//! ```

pub mod config;

mod gate;
mod serve;
mod tls;

pub use config::{Config, ConfigError};
pub use serve::{Handle, ServeError, serve};

use bus_schema::limits::FRAME_BYTES_MAX;

/// The example of a configuration file, complete and commented.
pub const EXAMPLE: &str = include_str!("../broker.example.toml");

/// Largest MQTT packet taken or given, in bytes: a frame, its topic, and MQTT 5's properties.
pub const PACKET_BYTES_MAX: usize = FRAME_BYTES_MAX + 2 * 1024;

/// Messages handed to a subscriber's connection and not yet written to it.
pub const LANE_FRAMES: usize = 32;

/// Messages written to a subscriber and not yet acknowledged by it (QoS 1).
pub const WINDOW_FRAMES: u16 = 32;

/// Subscriptions one client may have. A daemon needs one for each stream it consumes and a handful more.
pub const SUBSCRIPTIONS_MAX: usize = 4_096;
