//! Sources and destinations: one file or folder per system, one line each in [`components`].
//! Knows no bus, no spool and no plan: only the contract of `flow`.

mod exec;
mod feed;
mod file;
mod generator;
mod host_metrics;
mod http;
mod inbox;
mod influxdb;
mod key;
// One file for both crates, as below.
#[path = "../../transforms/src/line.rs"]
mod line;
mod list;
mod mqtt;
mod mqtt_sink;
mod mqtt_source;
mod mqtt_trial;
mod mysql;
mod names;
mod nats;
// One file for both crates, which do not depend on each other.
#[path = "../../transforms/src/ordered.rs"]
mod ordered;
mod payload;
mod postgres;
mod publish;
mod secret;
mod sqlite;
mod stdin;
mod stdout;
mod syslog;
mod tls;
mod watch;
mod write_mode;

pub use secret::SecretRef;

use file::text;
use flow::Component;

/// Every source and destination of this build.
pub fn components() -> Vec<Component> {
    vec![
        exec::SOURCE,
        exec::SINK,
        file::SOURCE,
        file::SINK,
        generator::SOURCE,
        host_metrics::SOURCE,
        http::SOURCE,
        http::WEBHOOK,
        http::SINK,
        influxdb::SINK,
        mqtt_source::SOURCE,
        mqtt_sink::SINK,
        mysql::SINK,
        nats::SOURCE,
        nats::SINK,
        postgres::SOURCE,
        postgres::SINK,
        sqlite::SOURCE,
        sqlite::SINK,
        stdin::SOURCE,
        stdout::SINK,
        syslog::SOURCE,
    ]
}
