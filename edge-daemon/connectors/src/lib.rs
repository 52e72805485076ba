//! Sources and destinations: one file or folder per system, one line each in [`components`].
//! Knows no bus, no spool and no plan: only the contract of `flow`.

mod file;
mod host_metrics;
mod list;
mod mqtt;
mod mqtt_sink;
mod mqtt_source;
mod mqtt_trial;
mod names;
mod postgres;
mod secret;
mod sqlite;
mod stdout;
mod watch;
mod write_mode;

pub use secret::SecretRef;

use flow::Component;

/// Every source and destination of this build.
pub fn components() -> Vec<Component> {
    vec![
        file::SOURCE,
        file::SINK,
        host_metrics::SOURCE,
        mqtt_source::SOURCE,
        mqtt_sink::SINK,
        postgres::SOURCE,
        postgres::SINK,
        sqlite::SOURCE,
        sqlite::SINK,
        stdout::SINK,
    ]
}
