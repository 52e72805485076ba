//! Sources and destinations: one file or folder per system, one line each in [`components`].
//! Knows no bus, no spool and no plan: only the contract of `flow`.

mod clock;
mod custom_code;
mod exec;
mod feed;
mod file;
mod files;
mod generator;
mod host_facts;
mod host_metrics;
mod http;
mod inbox;
mod influxdb;
mod join;
mod key;
// One file for both crates, as below.
#[path = "../../transforms/src/line.rs"]
mod line;
mod list;
mod lookup;
mod modbus;
// The same.
#[path = "../../transforms/src/moment.rs"]
mod moment;
mod mqtt;
mod mqtt_sink;
mod mqtt_source;
mod mqtt_trial;
mod mysql;
mod names;
mod nats;
mod opcua;
// One file for both crates, which do not depend on each other.
#[path = "../../transforms/src/ordered.rs"]
mod ordered;
// The same.
#[path = "../../transforms/src/pace.rs"]
#[allow(dead_code, reason = "a join has no use for its end")]
mod pace;
mod payload;
mod postgres;
mod publish;
mod python;
mod reach;
mod s3;
mod secret;
mod sqlite;
mod stdin;
mod stdout;
mod syslog;
#[cfg(test)]
mod testing;
mod tls;
mod watch;
mod write_mode;

pub use custom_code::{CustomCode, Refused, is_sha256};
pub use secret::SecretRef;

use file::text;
use flow::Component;

/// Every source and destination of this build, and the transforms that wait for programs and tables, keep a file, or look at
/// the host.
pub fn components() -> Vec<Component> {
    vec![
        exec::SOURCE,
        exec::TRANSFORM,
        exec::SINK,
        file::SOURCE,
        file::SINK,
        files::SOURCE,
        files::SINK,
        generator::SOURCE,
        host_facts::TRANSFORM,
        host_metrics::SOURCE,
        http::SOURCE,
        http::WEBHOOK,
        http::SINK,
        influxdb::SINK,
        join::TRANSFORM,
        lookup::TRANSFORM,
        modbus::SOURCE,
        mqtt_source::SOURCE,
        mqtt_sink::SINK,
        mysql::SOURCE,
        mysql::SINK,
        nats::SOURCE,
        nats::SINK,
        opcua::SOURCE,
        postgres::SOURCE,
        postgres::SINK,
        python::SOURCE,
        python::TRANSFORM,
        python::SINK,
        s3::SINK,
        sqlite::SOURCE,
        sqlite::SINK,
        stdin::SOURCE,
        stdout::SINK,
        syslog::SOURCE,
    ]
}
