//! Where the bus is, for one member: what its enrolment said, overridden by what its settings say.

use std::{fs, path::PathBuf};

use bus_schema::member::{BrokerLogin, Invitation};
use serde::Deserialize;

use crate::{BusAddress, BusConfig, Credentials, Secret, Tls, home::Membership};

/// `[bus]` in a settings file: everything optional, because enrolment usually says it all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BusSection {
    /// Addresses, tried in order: `nats://host:4222`, `mqtts://host:8883`.
    pub addresses: Vec<String>,
    /// User name at the broker.
    pub user: Option<String>,
    /// A file whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// A NATS credentials file.
    pub nats_creds: Option<PathBuf>,
    /// PEM file of the certificate authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// PEM file of the client certificate.
    pub client_cert: Option<PathBuf>,
    /// PEM file of its key.
    pub client_key: Option<PathBuf>,
}

/// The bus cannot be found from what is known.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PlaceError(String);

/// What enrolment knows of the bus.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Addresses.
    pub addresses: Vec<String>,
    /// The broker's certificate authority, DER.
    pub ca: Option<Vec<u8>>,
    /// How to log in.
    pub login: Option<BrokerLogin>,
}

impl From<&Invitation> for Known {
    fn from(invitation: &Invitation) -> Self {
        let Invitation { bus, ca, login, .. } = invitation.clone();
        Self {
            addresses: bus,
            ca,
            login,
        }
    }
}

impl From<&Membership> for Known {
    fn from(membership: &Membership) -> Self {
        let Membership { bus, ca, login, .. } = membership.clone();
        Self {
            addresses: bus,
            ca,
            login,
        }
    }
}

impl BusSection {
    /// Checks what can be checked without reading other files; the message names the key.
    pub fn check(&self) -> Result<(), PlaceError> {
        let wrong = |text: &str| Err(PlaceError(text.to_string()));
        self.parsed_addresses(&self.addresses)?;
        if self.user.is_some() != self.password_file.is_some() {
            return wrong("bus.user and bus.password_file belong together: set both or neither");
        }
        if self.client_cert.is_some() != self.client_key.is_some() {
            return wrong("bus.client_cert and bus.client_key belong together: set both or neither");
        }
        if self.nats_creds.is_some() && self.user.is_some() {
            return wrong("bus.nats_creds and bus.user exclude each other: keep one");
        }
        Ok(())
    }

    fn parsed_addresses(&self, texts: &[String]) -> Result<Vec<BusAddress>, PlaceError> {
        let parse = |text: &String| {
            text.parse()
                .map_err(|error| PlaceError(format!("bus.addresses: {error}")))
        };
        texts.iter().map(parse).collect()
    }

    /// How to connect, under this client name. Reads the files the section names.
    pub fn resolve(&self, known: &Known, client: &str) -> Result<BusConfig, PlaceError> {
        self.check()?;
        let texts = if self.addresses.is_empty() {
            &known.addresses
        } else {
            &self.addresses
        };
        let config = BusConfig::new(
            self.parsed_addresses(texts)?,
            client,
            self.credentials(known)?,
            self.tls(known)?,
        );
        config.map_err(|error| PlaceError(error.to_string()))
    }

    fn credentials(&self, known: &Known) -> Result<Credentials, PlaceError> {
        if let (Some(user), Some(path)) = (&self.user, &self.password_file) {
            let text = read("bus.password_file", path)?;
            let password = Secret::from(text.lines().next().unwrap_or_default());
            return Ok(Credentials::UserPassword {
                user: user.clone(),
                password,
            });
        }
        if let Some(path) = &self.nats_creds {
            return Ok(Credentials::NatsCreds(read("bus.nats_creds", path)?.into()));
        }
        Ok(known
            .login
            .as_ref()
            .map_or(Credentials::None, |login| Credentials::UserPassword {
                user: login.user.clone(),
                password: login.password.as_str().into(),
            }))
    }

    fn tls(&self, known: &Known) -> Result<Tls, PlaceError> {
        let failed = |error: crate::TlsError| PlaceError(format!("bus: {error}"));
        let file = |key, path: &Option<PathBuf>| path.as_ref().map(|path| read(key, path)).transpose();
        let ca = file("bus.ca", &self.ca)?;
        let cert = file("bus.client_cert", &self.client_cert)?;
        let key = file("bus.client_key", &self.client_key)?;
        let client = cert
            .as_deref()
            .zip(key.as_deref())
            .map(|(cert, key)| (cert.as_bytes(), key.as_bytes()));
        match (&ca, client, &known.ca) {
            (None, None, Some(der)) => Tls::from_ca_der(der).map_err(failed),
            (None, None, None) => Ok(Tls::default()),
            _ => Tls::from_pem(ca.as_deref().map(str::as_bytes), client).map_err(failed),
        }
    }
}

fn read(key: &str, path: &std::path::Path) -> Result<String, PlaceError> {
    fs::read_to_string(path).map_err(|error| PlaceError(format!("{key}: cannot read {}: {error}", path.display())))
}
