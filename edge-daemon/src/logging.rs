//! Logs to stderr: for people, or a JSON object a line for machines. The level can change while running.

use tracing_subscriber::{EnvFilter, Registry, layer::SubscriberExt, reload, util::SubscriberInitExt};

use crate::config::{LogFormat, LogSection};

/// Changes the level of a running daemon.
#[derive(Clone)]
pub struct LogControl(reload::Handle<EnvFilter, Registry>);

fn filter(level: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(level)
        .map_err(|error| format!("log.level: '{level}': {error}; use error, warn, info, debug or trace"))
}

/// Starts logging. Once per process.
pub fn start(log: &LogSection) -> Result<LogControl, String> {
    let (filter, handle) = reload::Layer::new(filter(&log.level)?);
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let started = match log.format {
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
        LogFormat::Text => registry.with(layer.with_ansi(false).with_target(false)).try_init(),
    };
    started.map_err(|error| error.to_string())?;
    Ok(LogControl(handle))
}

impl LogControl {
    /// Takes another level.
    pub fn set_level(&self, level: &str) -> Result<(), String> {
        self.0.reload(filter(level)?).map_err(|error| error.to_string())
    }
}
