//! `[alerts]` in `plane.toml`: the channels that tell people of alerts, and the files they need.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bus_link::Tls;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::config::ConfigError;

/// Most channels.
const CHANNELS_MAX: usize = 50;

/// `[alerts]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AlertsSection {
    /// `[[alerts.webhook]]`
    pub webhook: Vec<WebhookSection>,
    /// `[[alerts.email]]`
    pub email: Vec<EmailSection>,
    /// `[[alerts.bus]]`
    pub bus: Vec<BusChannel>,
}

/// An HTTP server that is told.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookSection {
    /// The channel's name.
    pub name: String,
    /// Where to POST to.
    pub url: String,
    /// A file whose first line both sides know; messages are signed with it.
    pub secret_file: Option<PathBuf>,
    /// PEM file of the authority that vouches for the server, unless the system trusts it.
    pub ca: Option<PathBuf>,
}

/// People who get e-mail.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmailSection {
    /// The channel's name.
    pub name: String,
    /// Host and port of the mail server: `smtp.example.com:587`.
    pub server: String,
    /// How the line is protected.
    #[serde(default)]
    pub tls: SmtpTls,
    /// Who logs in.
    pub user: Option<String>,
    /// A file whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// The sender's address.
    pub from: String,
    /// The recipients' addresses.
    pub to: Vec<String>,
    /// PEM file of the authority that vouches for the server, unless the system trusts it.
    pub ca: Option<PathBuf>,
}

/// How the line to a mail server is protected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SmtpTls {
    /// TLS after a first word in the clear; nothing is sent if the server cannot.
    #[default]
    Starttls,
    /// TLS from the beginning.
    Tls,
    /// Not at all: for a server on this very machine.
    None,
}

/// A topic of the fleet's own bus, as `mycelial sub` reads it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BusChannel {
    /// The channel's name.
    pub name: String,
    /// One or more tokens joined by '.'.
    pub topic: String,
    /// Neither sealed nor signed, for those who are no members of the fleet: panels, home automation. The broker reads it, too.
    #[serde(default)]
    pub plain: bool,
}

impl AlertsSection {
    /// Topics whose messages everybody can read whom the broker lets.
    pub fn plain_topics(&self) -> impl Iterator<Item = &str> {
        let plain = self.bus.iter().filter(|one| one.plain);
        plain.map(|one| one.topic.as_str())
    }

    /// What is wrong with it, beginning with the key.
    pub fn check(&self) -> Result<(), String> {
        let webhooks = self.webhook.iter().map(|one| &one.name);
        let emails = self.email.iter().map(|one| &one.name);
        let names: Vec<&String> = webhooks
            .chain(emails)
            .chain(self.bus.iter().map(|one| &one.name))
            .collect();
        if names.len() > CHANNELS_MAX {
            return Err(format!(
                "alerts: there are {} channels, {CHANNELS_MAX} are possible",
                names.len()
            ));
        }
        for (index, name) in names.iter().enumerate() {
            if !bus_schema::member::is_name(name) {
                return Err(format!(
                    "alerts: '{name}' cannot be a channel's name: use a-z, 0-9, '_' and '-'"
                ));
            }
            if names[..index].contains(name) {
                return Err(format!("alerts: there are two channels '{name}'"));
            }
        }
        let topic = self.bus.iter().find(|one| {
            one.topic
                .split('.')
                .any(|token| bus_schema::subject::check_token(token).is_err())
        });
        topic.map_or(Ok(()), |one| {
            Err(format!(
                "alerts.bus.topic: '{}' is no topic: one to three words of a-z, 0-9, '_' and '-' joined by '.'",
                one.topic
            ))
        })
    }
}

fn read(key: &'static str, path: &Path) -> Result<Zeroizing<Vec<u8>>, ConfigError> {
    fs::read(path).map(Zeroizing::new).map_err(|error| ConfigError::File {
        key,
        path: path.to_path_buf(),
        message: format!("cannot read it: {error}"),
    })
}

/// The first line of a file that holds a secret.
pub(crate) fn first_line(key: &'static str, path: &Path) -> Result<Zeroizing<String>, ConfigError> {
    let bytes = read(key, path)?;
    let line = std::str::from_utf8(&bytes)
        .ok()
        .and_then(|text| text.lines().next())
        .unwrap_or_default();
    if line.trim().is_empty() {
        return Err(ConfigError::File {
            key,
            path: path.to_path_buf(),
            message: "its first line is empty".to_string(),
        });
    }
    Ok(Zeroizing::new(line.to_string()))
}

/// Whom to trust: an authority of one's own, or the system's.
pub(crate) fn tls_of(key: &'static str, ca: Option<&Path>) -> Result<Tls, ConfigError> {
    let Some(path) = ca else {
        return Ok(Tls::default());
    };
    Tls::from_pem(Some(&read(key, path)?), None).map_err(|error| ConfigError::File {
        key,
        path: path.to_path_buf(),
        message: error.to_string(),
    })
}
