//! Logs to stderr: for people, or a JSON object a line for machines. Level and format can change while running.

use bus_link::settings;
use tracing_subscriber::{
    Layer, Registry,
    filter::Targets,
    layer::{Layered, SubscriberExt},
    reload,
    util::SubscriberInitExt,
};

use crate::{
    config::{LogFormat, LogSection},
    recent::Recent,
};

type Format = Box<dyn Layer<Registry> + Send + Sync>;
type Formatted = Layered<Recent, Layered<reload::Layer<Format, Registry>, Registry>>;

/// Changes the logs of a running daemon.
#[derive(Clone)]
pub struct LogControl {
    filter: reload::Handle<Targets, Formatted>,
    format: reload::Handle<Format, Registry>,
    recent: Recent,
}

/// Says what is wrong with a level, if anything; the message begins with the key.
pub fn check(level: &str) -> Result<(), String> {
    filter(level).map(drop)
}

fn filter(level: &str) -> Result<Targets, String> {
    settings::check_level(level).map_err(|cause| format!("log.level: {cause}"))?;
    level
        .parse::<Targets>()
        .map_err(|error| format!("log.level: '{level}': {error}; write for example info or info,spool=debug"))
}

fn format(format: LogFormat) -> Format {
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
        LogFormat::Text => layer.with_ansi(false).with_target(false).boxed(),
    }
}

/// Starts logging. Once per process.
pub fn start(log: &LogSection) -> Result<LogControl, String> {
    let (filter, filter_handle) = reload::Layer::new(filter(&log.level)?);
    let (format, format_handle) = reload::Layer::new(format(log.format));
    let recent = Recent::default();
    let started = tracing_subscriber::registry()
        .with(format)
        .with(recent.clone())
        .with(filter)
        .try_init();
    started.map_err(|error| error.to_string())?;
    Ok(LogControl {
        filter: filter_handle,
        format: format_handle,
        recent,
    })
}

impl LogControl {
    /// The last lines.
    pub fn recent(&self) -> &Recent {
        &self.recent
    }

    /// Takes another level.
    pub fn set_level(&self, level: &str) -> Result<(), String> {
        self.filter.reload(filter(level)?).map_err(|error| error.to_string())
    }

    /// Takes another level and format.
    pub fn change(&self, log: &LogSection) -> Result<(), String> {
        let filter = filter(&log.level)?;
        self.format
            .reload(format(log.format))
            .and_then(|()| self.filter.reload(filter))
            .map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels() {
        for (level, wrong) in [
            ("info", None),
            ("INFO", None),
            ("info,spool=debug", None),
            ("inof", Some("'inof' is no level; did you mean 'info'?")),
            ("", Some("'' is no level; use error")),
            ("everything", Some("use error, warn, info, debug or trace")),
            ("spool=loud", Some("log.level: 'loud' is no level")),
        ] {
            match (check(level), wrong) {
                (Ok(()), None) => {}
                (Err(error), Some(part)) => assert!(error.contains(part), "{level}: {error}"),
                (found, _) => panic!("{level}: {found:?}"),
            }
        }
    }
}
