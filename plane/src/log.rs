//! Log lines on stderr, as text or JSON.

use std::io::{self, IsTerminal as _};

use bus_link::settings;
use tracing_subscriber::{Layer as _, filter::Targets, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::config::{LogFormat, LogSection};

/// Overrides `log.level`.
pub const LEVEL_VAR: &str = "MYCELIAL_LOG";

/// Starts logging. `level` wins over the settings'. Fails when the level is no filter, or when logging has been started.
pub fn start(log: &LogSection, level: Option<&str>) -> Result<(), String> {
    let level = level.unwrap_or(&log.level);
    settings::check_level(level).map_err(|cause| format!("log level: {cause}"))?;
    let filter = level
        .parse::<Targets>()
        .map_err(|error| format!("log level '{level}': use error, warn, info, debug, trace or a filter ({error})"))?;
    let lines = fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false);
    let lines = match log.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init()
        .map_err(|error| error.to_string())
}
