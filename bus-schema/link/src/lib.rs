//! The bus, as members of a fleet use it. [`Bus`] moves bytes over NATS, MQTT or memory; [`secure`] seals and opens them;
//! [`session`] makes typed messages, requests and replies of them; [`parts`] cuts
//! long ones. [`home`], [`enrol`], [`place`] and [`settings`] are
//! what every member needs besides: its own files, becoming a member, finding the bus, reading strict settings; [`reserve`]
//! keeps room on a full disk for these files, [`essential`] tasks take the process with them when they panic.
//!
//! Knows no workflow, no stream and no storage but a member's own few small files.

mod bus;

pub mod enrol;
pub mod essential;
pub mod guard;
mod heard;
pub mod home;
mod pairing;
pub mod parts;
pub mod place;
pub mod reserve;
pub mod rotation;
pub mod secure;
pub mod session;
pub mod settings;

pub use bus::{
    AddressError, Bus, BusAddress, BusConfig, ConfigError, Counters, Credentials, Event, Protocol, PublishError,
    Secret, Status, Tls, TlsError, memory,
};
