//! What a connection is made with: addresses, name, credentials, trust. Parsed here into values that cannot be wrong, so
//! that connecting later fails only for reasons outside this process. Opens no file and no socket.

use std::fmt;

use zeroize::Zeroizing;

use super::{BusAddress, Protocol, Tls, creds};

/// Longest client name, in bytes.
const CLIENT_BYTES_MAX: usize = 64;
/// Most addresses of one bus.
const ADDRESSES_MAX: usize = 16;
/// Longest user name or password, in bytes: MQTT's limit.
const LOGIN_BYTES_MAX: usize = 65_535;

/// A text that is never shown and is wiped from memory when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// The text itself; keep it out of logs and errors.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// How a client proves to the broker who it is. A client certificate is part of [`Tls`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Credentials {
    /// Not at all, or with its certificate only.
    #[default]
    None,
    /// With a user name and a password.
    UserPassword {
        /// The user name.
        user: String,
        /// The password.
        password: Secret,
    },
    /// With the text of a NATS credentials file (a JWT and a seed, as `nsc` writes it).
    NatsCreds(Secret),
}

impl Credentials {
    /// The user name, where there is one.
    pub(crate) fn user(&self) -> Option<&str> {
        match self {
            Credentials::UserPassword { user, .. } => Some(user),
            Credentials::None | Credentials::NatsCreds(_) => None,
        }
    }
}

/// A bus cannot be configured like this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No address, or far too many.
    #[error(
        "a bus needs between 1 and {ADDRESSES_MAX} addresses, not {count}; for example 'mqtts://broker.example.org:8883'"
    )]
    Addresses {
        /// How many were given.
        count: usize,
    },
    /// The client name cannot be used with every broker.
    #[error("'{client}' is not a client name: use 1 to {CLIENT_BYTES_MAX} of a-z, A-Z, 0-9, '_' and '-'")]
    Client {
        /// What was given.
        client: String,
    },
    /// NATS credentials for a broker that does not speak NATS.
    #[error("{address} cannot use NATS credentials: give a user and password, or use a nats:// address")]
    NotNats {
        /// The address.
        address: String,
    },
    /// The text of a NATS credentials file is damaged.
    #[error("the NATS credentials cannot be read ({cause}): give the whole text of the .creds file")]
    Creds {
        /// In what way.
        cause: String,
    },
    /// A user name or password no broker can take.
    #[error(
        "the broker's user name and password must be at most {LOGIN_BYTES_MAX} bytes each, and the user name not empty"
    )]
    Login,
}

/// Messages of one subscription between two turns of its task, unless there is a reason for more: the largest frames take
/// 16 MiB then.
const BURST: usize = 256;

/// How to reach the bus. Cheap enough to clone for each of a member's connections.
#[derive(Debug, Clone)]
pub struct BusConfig {
    pub(super) addresses: Vec<BusAddress>,
    pub(super) client: String,
    pub(super) credentials: Credentials,
    pub(super) tls: Tls,
    pub(super) burst: usize,
}

impl BusConfig {
    /// Checks everything that can be checked without connecting.
    ///
    /// `addresses` are tried in turn. `client` names this connection to the broker and stays the same over reconnects;
    /// no other connection to the same broker may use it at the same time (a broker hangs up on the older one).
    pub fn new(
        addresses: Vec<BusAddress>,
        client: impl Into<String>,
        credentials: Credentials,
        tls: Tls,
    ) -> Result<Self, ConfigError> {
        if !(1..=ADDRESSES_MAX).contains(&addresses.len()) {
            return Err(ConfigError::Addresses { count: addresses.len() });
        }
        match &credentials {
            Credentials::None => {}
            Credentials::UserPassword { user, password } => {
                let longest = user.len().max(password.expose().len());
                if user.is_empty() || longest > LOGIN_BYTES_MAX {
                    return Err(ConfigError::Login);
                }
            }
            Credentials::NatsCreds(text) => {
                if let Some(address) = addresses.iter().find(|address| address.protocol() == Protocol::Mqtt) {
                    return Err(ConfigError::NotNats {
                        address: address.to_string(),
                    });
                }
                creds::options(text.expose()).map_err(|cause| ConfigError::Creds { cause })?;
            }
        }
        Self {
            addresses,
            client: String::new(),
            credentials,
            tls,
            burst: BURST,
        }
        .with_client(client)
    }

    /// The same bus for one to whom many speak at once: takes a burst of so many messages of one subscription from NATS
    /// before it drops any. (MQTT is read no faster than the messages are taken.)
    pub fn with_burst(self, messages: usize) -> Self {
        Self {
            burst: messages,
            ..self
        }
    }

    /// The same bus under another client name, for a second connection.
    pub fn with_client(mut self, client: impl Into<String>) -> Result<Self, ConfigError> {
        self.client = client.into();
        let fits = (1..=CLIENT_BYTES_MAX).contains(&self.client.len());
        if fits
            && self
                .client
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        {
            Ok(self)
        } else {
            Err(ConfigError::Client { client: self.client })
        }
    }

    /// The addresses, in the order they are tried.
    pub fn addresses(&self) -> &[BusAddress] {
        &self.addresses
    }

    /// The name of this connection.
    pub fn client(&self) -> &str {
        &self.client
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(user: &str, password: &str) -> Credentials {
        Credentials::UserPassword {
            user: user.into(),
            password: password.into(),
        }
    }

    #[test]
    fn mistakes_are_named() {
        let mqtt = ["mqtt://broker"].as_slice();
        let long = "x".repeat(65);
        for (addresses, client, credentials, needle) in [
            (&[] as &[&str], "c", Credentials::None, "between 1 and 16"),
            (&["nats://a"; 17], "c", Credentials::None, "not 17"),
            (mqtt, "", Credentials::None, "is not a client name"),
            (mqtt, "a b", Credentials::None, "'a b'"),
            (mqtt, &long, Credentials::None, "1 to 64"),
            (mqtt, "c", login("", "p"), "not empty"),
            (
                mqtt,
                "c",
                Credentials::NatsCreds("x".into()),
                "mqtt://broker:1883 cannot use NATS credentials",
            ),
            (
                &["nats://a"],
                "c",
                Credentials::NatsCreds("x".into()),
                "whole text of the .creds file",
            ),
        ] {
            let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
            let error = BusConfig::new(addresses, client, credentials, Tls::default())
                .unwrap_err()
                .to_string();
            assert!(error.contains(needle), "{error}");
        }
    }

    #[test]
    fn secrets_do_not_print() {
        let config = BusConfig::new(
            vec!["mqtt://broker".parse().unwrap()],
            "c",
            login("ann", "hunter2"),
            Tls::default(),
        );
        let shown = format!("{config:?}");
        assert!(shown.contains("ann") && !shown.contains("hunter2"), "{shown}");
    }
}
