//! Sources and destinations: one file or folder per system, one line each in [`components`].
//! Knows no bus, no spool and no plan: only the contract of `flow`.

mod list;
mod names;
mod secret;
mod sqlite;
mod write_mode;

pub use secret::SecretRef;

use flow::Component;

/// Every source and destination of this build.
pub fn components() -> Vec<Component> {
    vec![
        sqlite::SOURCE,
        sqlite::SINK,
    ]
}
