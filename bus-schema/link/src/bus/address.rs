//! Where a broker is: `scheme://host:port`. Knows nothing of credentials, which never belong into an address.

use std::{fmt, str::FromStr};

/// Longest host name, in bytes (RFC 1035).
const HOST_BYTES_MAX: usize = 253;

/// Every scheme, the canonical one of each kind first: text, protocol, TLS, default port.
const SCHEMES: &[(&str, Protocol, bool, u16)] = &[
    ("nats", Protocol::Nats, false, 4222),
    ("nats+tls", Protocol::Nats, true, 4222),
    ("mqtt", Protocol::Mqtt, false, 1883),
    ("mqtts", Protocol::Mqtt, true, 8883),
    ("memory", Protocol::Memory, false, 0),
    // Other spellings people and tools use.
    ("tls+nats", Protocol::Nats, true, 4222),
    ("tls", Protocol::Nats, true, 4222),
    ("mqtt+tls", Protocol::Mqtt, true, 8883),
];

/// What is spoken at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Core NATS.
    Nats,
    /// MQTT 3.1.1.
    Mqtt,
    /// A hub inside this process, see [`crate::memory`].
    Memory,
}

/// The address of one broker: `nats://host:4222`, `nats+tls://host:4222`, `mqtt://host:1883`, `mqtts://host:8883` or
/// `memory://name`. The port may be left out where it is the usual one; an IPv6 address stands in brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BusAddress {
    protocol: Protocol,
    tls: bool,
    host: String,
    port: u16,
}

/// A text is not the address of a broker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No `scheme://`.
    #[error("'{text}' has no scheme: write for example 'mqtts://{text}' or 'nats://{text}'")]
    NoScheme {
        /// What was given.
        text: String,
    },
    /// A scheme nobody here speaks.
    #[error("'{scheme}://' is not spoken here: use nats://, nats+tls://, mqtt://, mqtts:// or memory://")]
    Scheme {
        /// What was given.
        scheme: String,
    },
    /// `user:password@` in the address. The text is not repeated: it holds a secret.
    #[error(
        "an address must not hold a user or password, because addresses are logged and shown: write '{scheme}://host:port' \
         and put the user and password into the credentials of the bus"
    )]
    Credentials {
        /// The scheme in front of them.
        scheme: String,
    },
    /// The host is empty or holds characters no host has.
    #[error(
        "'{host}' in '{text}' is not a host name or address: write for example 'broker.example.org', '10.0.0.7' or '[fe80::7]'"
    )]
    Host {
        /// The offending part.
        host: String,
        /// What was given.
        text: String,
    },
    /// The port is not a number between 1 and 65535.
    #[error("'{port}' in '{text}' is not a port: write a number from 1 to 65535, for example '{example}'")]
    Port {
        /// The offending part.
        port: String,
        /// What was given.
        text: String,
        /// A good address.
        example: String,
    },
    /// Something after host and port.
    #[error("'{rest}' in '{text}' has no meaning: an address ends after the host and port")]
    Rest {
        /// The offending part.
        rest: String,
        /// What was given.
        text: String,
    },
}

impl BusAddress {
    /// What is spoken there.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Whether the connection is encrypted with TLS.
    pub fn tls(&self) -> bool {
        self.tls
    }

    /// The host, an IPv6 address without its brackets; for `memory://` the name of the hub.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; 0 for `memory://`.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn scheme(&self) -> &'static str {
        let canonical = SCHEMES
            .iter()
            .find(|(_, protocol, tls, _)| (*protocol, *tls) == (self.protocol, self.tls));
        canonical.map_or("memory", |(scheme, ..)| scheme)
    }
}

impl fmt::Display for BusAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            protocol, host, port, ..
        } = self;
        match protocol {
            Protocol::Memory => write!(f, "{}://{host}", self.scheme()),
            _ if host.contains(':') => write!(f, "{}://[{host}]:{port}", self.scheme()),
            _ => write!(f, "{}://{host}:{port}", self.scheme()),
        }
    }
}

impl FromStr for BusAddress {
    type Err = AddressError;

    fn from_str(given: &str) -> Result<Self, Self::Err> {
        let given = given.trim();
        let (scheme, rest) = given
            .split_once("://")
            .ok_or_else(|| AddressError::NoScheme { text: harmless(given) })?;
        let scheme = scheme.to_ascii_lowercase();
        let Some(&(_, protocol, tls, usual_port)) = SCHEMES.iter().find(|(name, ..)| *name == scheme) else {
            return Err(AddressError::Scheme {
                scheme: harmless(&scheme),
            });
        };
        if rest.contains('@') {
            return Err(AddressError::Credentials { scheme });
        }
        let text = || harmless(given);
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if let Some(at) = authority.find(['/', '?', '#']) {
            return Err(AddressError::Rest {
                rest: harmless(&authority[at..]),
                text: text(),
            });
        }
        let (host, port) = split_port(authority);
        if !host_is_good(&host, authority.starts_with('[')) {
            return Err(AddressError::Host { host, text: text() });
        }
        let port = match (protocol, port) {
            (Protocol::Memory, None) => 0,
            (Protocol::Memory, Some(port)) => {
                return Err(AddressError::Rest {
                    rest: format!(":{port}"),
                    text: text(),
                });
            }
            (_, None) => usual_port,
            (_, Some(port)) => match port.parse() {
                Ok(number) if number > 0 => number,
                _ => {
                    let example = format!("{scheme}://{host}:{usual_port}");
                    return Err(AddressError::Port {
                        port: port.to_owned(),
                        text: text(),
                        example,
                    });
                }
            },
        };
        Ok(Self {
            protocol,
            tls,
            host: host.to_ascii_lowercase(),
            port,
        })
    }
}

/// `host:port`, `host`, `[v6]:port` or `[v6]`.
fn split_port(authority: &str) -> (String, Option<&str>) {
    if let Some(inner) = authority.strip_prefix('[')
        && let Some((host, after)) = inner.split_once(']')
    {
        return match after.strip_prefix(':') {
            Some(port) => (host.to_owned(), Some(port)),
            None => (format!("{host}{after}"), None),
        };
    }
    match authority.split_once(':') {
        Some((host, port)) => (host.to_owned(), Some(port)),
        None => (authority.to_owned(), None),
    }
}

fn host_is_good(host: &str, bracketed: bool) -> bool {
    if bracketed {
        return host.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let fits = (1..=HOST_BYTES_MAX).contains(&host.len());
    fits && host
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

/// The text without whatever may be a password or a token, for an error: what stands before `@`, and behind `?` or `#`.
fn harmless(text: &str) -> String {
    let end = text.find(['?', '#']).unwrap_or(text.len());
    let (before, cut) = text.split_at(end);
    let host = before.rsplit_once('@').map_or(before, |(_, host)| host);
    match cut.chars().next() {
        Some(mark) => format!("{host}{mark}…"),
        None => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_addresses_round_trip() {
        for (text, canonical) in [
            ("nats://broker:4222", "nats://broker:4222"),
            ("nats://broker", "nats://broker:4222"),
            ("nats+tls://broker", "nats+tls://broker:4222"),
            ("tls+nats://broker:1", "nats+tls://broker:1"),
            ("tls://broker:1", "nats+tls://broker:1"),
            ("mqtt://10.0.0.7", "mqtt://10.0.0.7:1883"),
            (" MQTT://Broker.Example:1883/ ", "mqtt://broker.example:1883"),
            ("mqtts://broker", "mqtts://broker:8883"),
            ("mqtt://[::1]:1883", "mqtt://[::1]:1883"),
            ("mqtts://[fe80::7]", "mqtts://[fe80::7]:8883"),
            ("memory://test-1", "memory://test-1"),
        ] {
            let address: BusAddress = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(address.to_string(), canonical, "{text}");
            assert_eq!(address.to_string().parse(), Ok(address), "{text}");
        }
    }

    #[test]
    fn bad_addresses_say_what_is_wrong() {
        for (text, needle) in [
            ("", "no scheme"),
            ("broker:1883", "'mqtts://broker:1883'"),
            ("http://broker", "'http://' is not spoken here"),
            ("mqtt://", "is not a host name"),
            ("mqtt://:1883", "is not a host name"),
            ("mqtt://bro ker", "is not a host name"),
            ("mqtt://::1:1883", "is not a host name"),
            ("mqtt://[::1", "is not a host name"),
            ("mqtt://[::1]x:1883", "is not a host name"),
            ("mqtt://broker:", "'' in 'mqtt://broker:' is not a port"),
            ("mqtt://broker:0", "'mqtt://broker:1883'"),
            ("nats://broker:70000", "'70000'"),
            ("nats://broker:4222,other", "is not a port"),
            ("mqtt://broker/topic", "'/topic'"),
            ("memory://name:1", "':1'"),
            ("nats://broker?token=x", "'?…' in 'nats://broker?…' has no meaning"),
            ("mqtt://ann:hunter2@broker", "into the credentials of the bus"),
        ] {
            let error = text.parse::<BusAddress>().unwrap_err().to_string();
            assert!(error.contains(needle), "{text}: {error}");
        }
    }

    #[test]
    fn passwords_are_never_repeated() {
        for text in [
            "mqtt://ann:hunter2@broker",
            "ann:hunter2@broker",
            "ann:hunter2@x://broker",
            "mqtt://broker?token=hunter2",
            "nats://broker:4222/?password=hunter2",
            "nats://broker:4222/#hunter2",
            "nats://broker/x?user=ann&password=hunter2",
            "nats://bro ker?token=hunter2",
            "nats://broker:x?token=hunter2",
            "memory://name:1?token=hunter2",
            "broker?token=hunter2",
            "broker?token=hunter2://x",
            "broker?next=a@b&token=hunter2",
            "http://broker?token=hunter2",
        ] {
            let error = text.parse::<BusAddress>().unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
