//! The daemon's settings: `config.toml`, read strictly. Holds no state and opens nothing but that file.

use std::path::{Path, PathBuf};

use bus_link::{
    place::BusSection,
    settings::{self, SettingsError},
};
use serde::Deserialize;

/// `config.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The name to ask for at enrolment; the host's name by default.
    pub name: Option<String>,
    /// Where keys, plan, buffers and dead letters live.
    pub data_dir: PathBuf,
    /// The bus, where it differs from what the enrolment string says.
    pub bus: BusSection,
    /// Logs.
    pub log: LogSection,
    /// Records that could not be delivered.
    pub dead_letters: LettersSection,
}

/// `[dead_letters]`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LettersSection {
    /// Bytes kept for one workflow; when they are used up, the oldest letters go. A single letter may be larger.
    pub bytes_max: u64,
}

impl Default for LettersSection {
    fn default() -> Self {
        Self {
            bytes_max: 32 * 1024 * 1024,
        }
    }
}

/// Least bytes of dead letters kept for one workflow.
const LETTERS_BYTES_MIN: u64 = 1024 * 1024;

impl Default for Config {
    fn default() -> Self {
        Self {
            name: None,
            data_dir: PathBuf::from("/var/lib/mycelial"),
            bus: BusSection::default(),
            log: LogSection::default(),
            dead_letters: LettersSection::default(),
        }
    }
}

/// How logs look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines, a JSON object a line.
    Json,
}

/// `[log]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSection {
    /// `text` or `json`.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,spool=debug`.
    pub level: String,
}

impl Default for LogSection {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: "info".to_string(),
        }
    }
}

impl Config {
    /// Reads a `config.toml`.
    pub fn read(path: &Path) -> Result<Self, SettingsError> {
        Self::parse(&path.display().to_string(), &settings::text(path)?)
    }

    fn parse(file: &str, text: &str) -> Result<Self, SettingsError> {
        let config: Config = settings::parse(file, text)?;
        let wrong = |message: String, hint: &str| Err(settings::mistake(file, text, message, hint));
        if let Some(name) = &config.name
            && !bus_schema::member::is_name(name)
        {
            let message = format!("name: '{name}' cannot be a daemon's name");
            return wrong(
                message,
                "use 1 to 32 of a-z, 0-9, '_' and '-', starting with a letter or digit",
            );
        }
        if let Err(error) = config.bus.check() {
            return wrong(error.to_string(), "");
        }
        if config.dead_letters.bytes_max < LETTERS_BYTES_MIN {
            let message = format!(
                "dead_letters.bytes_max: {} bytes are too few",
                config.dead_letters.bytes_max
            );
            return wrong(message, "use at least 1048576 (1 MiB)");
        }
        if let Err(error) = crate::logging::check(&config.log.level) {
            return wrong(error, "");
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            ("data_dri = '/x'", "config.toml:1: unknown field `data_dri`"),
            ("[bus]\naddreses = []", "did you mean `addresses`?"),
            ("[log]\nformat = 'jsn'", "did you mean `json`?"),
            (
                "\nname = 'Big Gateway'",
                "config.toml:2: name: 'Big Gateway' cannot be a daemon's name",
            ),
            ("[bus]\naddresses = ['http://x']", "config.toml:2: bus.addresses"),
            (
                "[bus]\nuser = 'x'",
                "config.toml:2: bus.user and bus.password_file belong together",
            ),
            (
                "[log]\nlevel = 'lots=of=it'",
                "config.toml:2: log.level: 'of=it' is no level",
            ),
        ] {
            let error = Config::parse("config.toml", text).unwrap_err();
            assert!(error.to_string().contains(expected), "{text}: {error}");
        }
    }
}
