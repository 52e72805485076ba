//! The daemon's settings: `config.toml`, read strictly. Holds no state and opens nothing but that file.

use std::path::{Path, PathBuf};

use bus_link::{
    place::BusSection,
    settings::{self, SettingsError},
};
use bus_schema::redact::Redact;
use connectors::CustomCode;
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
    /// Buffers on disk.
    pub spool: SpoolSection,
    /// Logs.
    pub log: LogSection,
    /// Records that could not be delivered.
    pub dead_letters: LettersSection,
    /// Code that comes with workflows.
    pub custom_code: CustomCodeSection,
    /// Columns whose values no tap shows, whoever asks: names, with `*` for anything at the beginning or the end.
    pub tap_redact: Vec<String>,
}

/// `[custom_code]`: whether workflows of the plane may run code of their own here: programs (`exec`) and Python (`python`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CustomCodeSection {
    /// They may. Whoever can apply a workflow can then do on this host what the daemon can.
    pub allow: bool,
    /// Python code with one of these SHA-256 (in hex) may run, whatever `allow` says.
    pub sha256: Vec<String>,
    /// Environment variables that a workflow may give such code.
    pub env: Vec<String>,
}

impl From<CustomCodeSection> for CustomCode {
    fn from(section: CustomCodeSection) -> Self {
        Self {
            all: section.allow,
            sha256: section.sha256.into_iter().collect(),
            env: section.env.into_iter().collect(),
        }
    }
}

/// `[dead_letters]`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LettersSection {
    /// Room for those of one workflow; when it is used up, the oldest letters go. A single letter may be larger.
    pub quota: Size,
}

impl Default for LettersSection {
    fn default() -> Self {
        Self {
            quota: Size(32 * 1024 * 1024),
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
            spool: SpoolSection::default(),
            log: LogSection::default(),
            dead_letters: LettersSection::default(),
            custom_code: CustomCodeSection::default(),
            tap_redact: Vec::new(),
        }
    }
}

/// `[spool]`: room for the buffers of all streams together. Each stream's own quota is in its workflow.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpoolSection {
    /// Most bytes all buffers may have on disk: a number, or text such as `4GiB`. Bulk streams may fill a part of it,
    /// normal ones a larger part, critical ones all of it.
    pub quota: Size,
    /// Bytes kept free on the file system; 2 % of it by default, at most 64 MiB.
    pub keep_free: Option<Size>,
}

impl Default for SpoolSection {
    fn default() -> Self {
        Self {
            quota: Size(spool::BUDGET_BYTES),
            keep_free: None,
        }
    }
}

impl SpoolSection {
    /// The limits.
    pub fn room(&self) -> spool::Room {
        spool::Room {
            quota_bytes: self.quota.0,
            keep_free_bytes: self.keep_free.map(|size| size.0),
        }
    }
}

/// Bytes, written as a number or as text such as `500MB` or `1.5 GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Size;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a size such as \"500MB\" or \"4GiB\"")
            }

            fn visit_i64<E: serde::de::Error>(self, bytes: i64) -> Result<Size, E> {
                let wrong = || E::invalid_value(serde::de::Unexpected::Signed(bytes), &self);
                u64::try_from(bytes).map(Size).map_err(|_| wrong())
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Size, E> {
                let wrong = || E::invalid_value(serde::de::Unexpected::Str(text), &self);
                workflow::size_bytes(text).map(Size).ok_or_else(wrong)
            }
        }
        from.deserialize_any(Visitor)
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

    /// What no tap shows.
    pub fn tap_redact(&self) -> Redact {
        // What is no pattern was refused with the file.
        Redact::new(&self.tap_redact).unwrap_or_default()
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
        if let Some(wrong_hash) = config
            .custom_code
            .sha256
            .iter()
            .find(|text| !connectors::is_sha256(text))
        {
            let message = format!("custom_code.sha256: '{wrong_hash}' is no SHA-256");
            return wrong(
                message,
                "64 of the characters 0-9 and a-f, as `sha256sum FILE` prints them",
            );
        }
        if let Err(error) = Redact::new(&config.tap_redact) {
            return wrong(format!("tap_redact: {error}"), "");
        }
        if config.dead_letters.quota.0 < LETTERS_BYTES_MIN {
            let smallest = workflow::size_text(LETTERS_BYTES_MIN);
            let size = workflow::size_text(config.dead_letters.quota.0);
            let message = format!("dead_letters.quota: {size} is too small");
            return wrong(message, &format!("the smallest quota is {smallest}"));
        }
        if config.spool.quota.0 < spool::QUOTA_BYTES_MIN {
            let smallest = workflow::size_text(spool::QUOTA_BYTES_MIN);
            let message = format!(
                "spool.quota: {} is too small for a buffer",
                workflow::size_text(config.spool.quota.0)
            );
            return wrong(message, &format!("the smallest quota is {smallest}"));
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
                "[spool]\nquota = '4 Gig'",
                "config.toml:2: spool.quota: invalid value: string \"4 Gig\", expected a size such as",
            ),
            (
                "[spool]\nkeep_free = -1",
                "config.toml:2: spool.keep_free: invalid value",
            ),
            (
                "[spool]\nkeep_free = '1MB'\nquota = '1MiB'",
                "config.toml:3: spool.quota: 1 MiB is too small for a buffer\n  hint: the smallest quota is 16 MiB",
            ),
            ("[spool]\nquotas = 1", "did you mean `quota`?"),
            ("[custom_code]\nalow = true", "did you mean `allow`?"),
            (
                "[custom_code]\nsha256 = ['ABCD']",
                "config.toml:2: custom_code.sha256: 'ABCD' is no SHA-256\n  hint: 64 of the characters 0-9 and a-f",
            ),
            (
                "\ntap_redact = ['iban', 'a*b']",
                "config.toml:2: tap_redact: 'a*b' is no pattern: write a column's name",
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

    #[test]
    fn sizes_are_numbers_or_text() {
        for (text, quota_bytes, keep_free_bytes) in [
            ("", spool::BUDGET_BYTES, None),
            ("[spool]\nquota = 16777216\nkeep_free = 0", 16 << 20, Some(0)),
            (
                "[spool]\nquota = '1.5 GiB'\nkeep_free = '10MB'",
                3 << 29,
                Some(10_000_000),
            ),
        ] {
            let room = Config::parse("config.toml", text).unwrap().spool.room();
            assert_eq!(
                (room.quota_bytes, room.keep_free_bytes),
                (quota_bytes, keep_free_bytes),
                "{text}"
            );
        }
    }
}
