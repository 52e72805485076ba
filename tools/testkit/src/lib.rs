//! What a Mycelial test stands on: real brokers and databases on free ports of 127.0.0.1, processes, network faults,
//! certificates, and assertions that say what they waited for.
//!
//! Everything here is synchronous and usable from any test, async ones included. What a value starts, its `Drop` stops:
//! politely first, with SIGKILL after a grace period, by process id and never by name. A server that is not installed
//! is a failing test that prints the command to install it: nothing is skipped and nothing is mocked.
//!
//! | to get | use |
//! |---|---|
//! | a broker or database | [`Mosquitto`], [`Nats`], [`Postgres`], [`Mariadb`], [`Influxdb`]; common controls on [`Service`] |
//! | a server that behaves as a test says | [`Script`] |
//! | a machine | [`Modbus`], [`OpcUa`] |
//! | a mail server | [`Smtp`] |
//! | a provider of OpenID Connect | [`Oidc`] |
//! | certificates | [`Tls`] |
//! | one of our own binaries | [`bin`], [`Cmd::bin`], [`Proc`] |
//! | all of them together | [`Fleet`], on a [`Broker`] |
//! | a bad network, or what went over it | [`Link`] |
//! | a wrong clock | [`WallClock`] |
//! | a disk that fails while a process writes | [`IllDisk`] |
//! | a browser in front of the page | [`browser`] |
//! | to wait | [`wait_until`], [`wait_ok`] |
//! | the books of a stream | [`Ledger`] |
//! | a verdict on what arrived | [`oracle`] |
//! | a full disk, damaged files, a wrong clock | [`faults`] |
//! | chance that can be repeated | [`Dice`] |
//! | rows on their way to every kind of destination | [`everywhere`] |
//! | a whole story | [`scenario`], or [`soak`] |
//! | a job for one daemon, from file to file | [`file_job`] |
//! | what the programs take, beside what they may | [`footprint`] |
//!
//! Helpers panic instead of returning errors, because the only thing a test can do with one is to fail. Linux only.

mod bins;
pub mod browser;
mod crowd;
mod dice;
pub mod everywhere;
pub mod faults;
pub mod file_job;
mod fleet;
pub mod footprint;
mod ill_disk;
mod influxdb;
mod jetstream;
mod ledger;
mod link;
mod mariadb;
mod modbus;
mod mosquitto;
mod nats;
mod oidc;
mod opcua;
pub mod oracle;
mod ports;
mod postgres;
mod proc;
mod s3;
pub mod scenario;
mod script;
mod service;
pub mod shop;
mod smtp;
pub mod soak;
pub mod ten;
mod tls;
mod wait;
mod wall_clock;

pub use bins::{bin, find_program, node_packages, python};
pub use crowd::{Crowd, Picture};
pub use dice::{Dice, fresh_seed};
pub use fleet::{Broker, Embedded, Fleet};
pub use ill_disk::{IllDisk, Illness};
pub use influxdb::Influxdb;
pub use ledger::Ledger;
pub use link::{Capture, Link, Way};
pub use mariadb::{Mariadb, MariadbBuilder};
pub use modbus::Modbus;
pub use mosquitto::{Mosquitto, MosquittoBuilder};
pub use nats::{Nats, NatsBuilder};
pub use oidc::{Oidc, Seen, Walker};
pub use opcua::{OpcUa, rsa_certificate};
pub use ports::free_port;
pub use postgres::{NULL, Postgres, PostgresBuilder};
pub use proc::{Cmd, Finished, Proc, Signal};
pub use s3::S3;
pub use script::Script;
pub use service::Service;
pub use smtp::Smtp;
pub use tempfile::TempDir;
pub use tls::{CertFiles, Tls};
pub use wait::{wait_ok, wait_until};
pub use wall_clock::WallClock;

/// A fresh empty directory under the system's temporary directory, removed when dropped. `label` appears in its name.
#[must_use]
pub fn temp_dir(label: &str) -> TempDir {
    tempfile::Builder::new()
        .prefix(&format!("mycelial-{label}-"))
        .tempdir()
        .unwrap_or_else(|e| panic!("cannot create a temporary directory for {label}: {e}"))
}
