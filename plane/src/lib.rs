//! The plane: who belongs to the fleet, what they shall run, and how it is going. A bus client with a store and a web page.
//!
//! ```text
//! main ── run ──┬── service ──▶ api ──▶ domain      decisions: pure, see `domain`
//!               │     │                             (event, time) → changes, effects
//!               │     ├── outbox ──▶ bus            effects
//!               │     └── disk ──▶ store, home      changes, durable before they are applied
//!               └── http ──▶ service                browsers on this machine
//! ```
//! Every call of an operator, from the bus or from the web page, is answered by [`api::handle`] and nothing else.
//! The plane never sees data: streams are sealed between daemons. It can be away, or lose its disk; workflows go on. Where its
//! settings say so it holds an operator's keys beside its own, see [`web_operator`], and shows records as an operator sees them.

pub mod api;
pub mod audit;
pub mod backup;
pub mod clock;
pub mod commands;
pub mod config;
pub mod disk;
pub mod domain;
pub mod http;
pub mod init;
pub mod invite;
pub mod live;
pub mod log;
pub mod login;
pub mod metrics;
pub mod notify;
pub mod observe;
pub mod oidc;
pub mod otlp;
pub mod outbox;
pub mod password;
pub mod people;
pub mod permission;
mod revoke;
pub mod run;
pub mod service;
pub mod store;
pub mod web_operator;
pub mod web_tls;
