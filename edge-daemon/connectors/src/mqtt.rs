//! Reaching an MQTT broker: addresses, credentials, TLS, and one connection. Knows no records.

use std::{collections::hash_map::RandomState, hash::BuildHasher as _, path::PathBuf, sync::Arc, time::Duration};

use flow::{BuildContext, ConfigError, Fault, Trouble, TroubleKind};
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, MqttOptions, Packet, StateError,
    TlsConfiguration, Transport, mqttbytes,
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{reach, secret::SecretRef, tls::TlsFiles};

/// How often a quiet connection is tested.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long reaching a broker may take, in seconds.
pub(crate) const CONNECT_WAIT_S: u64 = 10;
/// Largest MQTT packet taken or sent, in bytes. Larger than any record may be, so that a message that is too large for a
/// record can still be acknowledged and set aside.
pub(crate) const PACKET_BYTES_MAX: usize = 16 * 1024 * 1024;

/// One address or several.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "an address is \"mqtt://host:1883\", or a list of such")]
pub(crate) enum Urls {
    /// The only address.
    One(String),
    /// Tried in turn.
    Many(Vec<String>),
}

impl Urls {
    /// The addresses, each with the key it stands at in the config.
    pub(crate) fn keyed(self) -> Vec<(String, String)> {
        match self {
            Self::One(url) => vec![("url".to_string(), url)],
            Self::Many(urls) => {
                let keyed = |(at, url)| (format!("url[{at}]"), url);
                urls.into_iter().enumerate().map(keyed).collect()
            }
        }
    }
}

/// Everything it takes to connect.
#[derive(Debug)]
pub(crate) struct Broker {
    addresses: Vec<Address>,
    /// Which address is next.
    turn: usize,
    client_id: String,
    user: Option<String>,
    password: Option<SecretRef>,
    tls: TlsFiles,
    base_dir: PathBuf,
}

#[derive(Debug, Clone, PartialEq)]
struct Address {
    host: String,
    port: u16,
    tls: bool,
}

/// What a connection is to be like.
pub(crate) struct Manner {
    /// The broker forgets everything when the connection ends.
    pub clean_session: bool,
    /// Messages are acknowledged one by one, by hand.
    pub manual_acks: bool,
    /// Most messages sent and not acknowledged.
    pub inflight: u16,
    /// Requests that may wait for the connection.
    pub requests: usize,
}

/// A new connection: nobody polls it yet.
pub(crate) struct Connected {
    pub client: AsyncClient,
    pub events: EventLoop,
    /// The broker remembers this client.
    pub session_present: bool,
}

/// The settings both ends share, as they stand in a config.
pub(crate) struct Settings {
    pub url: Urls,
    pub client_id: Option<String>,
    pub user: Option<String>,
    pub password: Option<SecretRef>,
    pub tls: Option<TlsFiles>,
}

impl Broker {
    /// Checks the settings. Without a client id it is made of where the component stands, so that it stays the same.
    pub(crate) fn new(settings: Settings, context: &BuildContext) -> Result<Self, ConfigError> {
        let urls = settings.url.keyed();
        if urls.is_empty() {
            return Err(ConfigError::at("url", "name at least one broker"));
        }
        let addresses = urls
            .iter()
            .map(|(key, url)| address(url).map_err(|cause| ConfigError::at(key, cause)));
        let addresses = addresses.collect::<Result<Vec<_>, _>>()?;
        let tls = settings.tls.clone().unwrap_or_default();
        if settings.tls.is_some() && addresses.iter().any(|address| !address.tls) {
            return Err(ConfigError::at(
                "tls",
                "is of no use without TLS: write the address as mqtts://…",
            ));
        }
        tls.check()?;
        if settings.password.is_some() && settings.user.is_none() {
            return Err(ConfigError::at("user", "a password needs a user"));
        }
        let client_id = settings.client_id.unwrap_or_else(|| {
            let parts = ["mycelial", &context.daemon, &context.workflow, &context.node];
            parts
                .join("-")
                .replace(|c: char| c.is_control() || c.is_whitespace(), "_")
        });
        if client_id.is_empty() {
            return Err(ConfigError::at("client_id", "is empty; leave it out to have one made"));
        }
        Ok(Self {
            addresses,
            turn: 0,
            client_id,
            user: settings.user,
            password: settings.password,
            tls,
            base_dir: context.base_dir.clone(),
        })
    }

    /// Connects to the next broker in turn that answers.
    pub(crate) async fn connect(&mut self, manner: &Manner) -> Result<Connected, Fault> {
        let mut causes = Vec::new();
        for _ in 0..self.addresses.len() {
            let address = self.addresses[self.turn % self.addresses.len()].clone();
            match self.try_connect(&address, manner).await {
                Ok(connected) => return Ok(connected),
                Err(cause) => causes.push(format!("{}:{}: {cause}", address.host, address.port)),
            }
            self.turn += 1;
        }
        Err(Fault::retry(format!(
            "cannot connect to the MQTT broker {}",
            causes.join("; ")
        )))
    }

    /// Sees what is wrong with the way to the brokers, if nothing is, connects as somebody who is forgotten afterwards: under
    /// a name of its own, since the broker would throw out another client with the same one.
    pub(crate) async fn check(&mut self) -> Result<Connected, Trouble> {
        reach::secrets(&self.password, &self.base_dir)?;
        self.client_id = format!("{}-check-{:08x}", self.client_id, RandomState::new().hash_one(0) as u32);
        let manner = Manner {
            clean_session: true,
            manual_acks: true,
            inflight: 1,
            requests: 8,
        };
        let mut trouble = None;
        for address in self.addresses.clone() {
            match self.check_one(&address, &manner).await {
                Ok(connected) => return Ok(connected),
                Err(wrong) => trouble = Some(wrong),
            }
        }
        Err(trouble.unwrap_or_else(|| Trouble::new(TroubleKind::Config, "there is no address", "set url")))
    }

    async fn check_one(&self, address: &Address, manner: &Manner) -> Result<Connected, Trouble> {
        let Address { host, port, tls } = address;
        let stream = reach::tcp(host, *port).await?;
        if *tls {
            reach::tls(stream, host, self.tls.client_config(&self.base_dir)).await?;
        }
        let said = |cause: &str| format!("{host}:{port}: {cause}");
        let (client, mut events) = self
            .client(address, manner)
            .map_err(|cause| reach::certificates(&cause))?;
        match Box::pin(events.poll()).await {
            Ok(Event::Incoming(Packet::ConnAck(ack))) => Ok(Connected {
                client,
                events,
                session_present: ack.session_present,
            }),
            Ok(other) => Err(Trouble::new(
                TroubleKind::Other,
                said(&format!("an unexpected answer: {other:?}")),
                "is there an MQTT broker?",
            )),
            Err(error @ ConnectionError::ConnectionRefused(_)) => Err(reach::refused(said(&explain(&error)))),
            Err(error) => Err(Trouble::new(
                TroubleKind::Other,
                said(&explain(&error)),
                "is there an MQTT broker, and does it want TLS (mqtts://) or a certificate?",
            )),
        }
    }

    /// For a person.
    pub(crate) fn place(&self) -> String {
        let places = self
            .addresses
            .iter()
            .map(|address| format!("{}:{}", address.host, address.port));
        places.collect::<Vec<_>>().join(", ")
    }

    /// Starts with another address the next time.
    pub(crate) fn next_address(&mut self) {
        self.turn += 1;
    }

    async fn try_connect(&self, address: &Address, manner: &Manner) -> Result<Connected, String> {
        let (client, mut events) = self.client(address, manner)?;
        match Box::pin(events.poll()).await {
            Ok(Event::Incoming(Packet::ConnAck(ack))) => Ok(Connected {
                client,
                events,
                session_present: ack.session_present,
            }),
            Ok(other) => Err(format!("an unexpected answer: {other:?}")),
            Err(error) => Err(explain(&error)),
        }
    }

    /// A client that has not connected yet. A fresh one for every attempt: a used one drops what it had not sent when the
    /// broker forgot the session.
    fn client(&self, address: &Address, manner: &Manner) -> Result<(AsyncClient, EventLoop), String> {
        let mut options = MqttOptions::new(&self.client_id, &address.host, address.port);
        options
            .set_keep_alive(KEEP_ALIVE)
            .set_clean_session(manner.clean_session)
            .set_manual_acks(manner.manual_acks)
            .set_inflight(manner.inflight)
            .set_max_packet_size(PACKET_BYTES_MAX, PACKET_BYTES_MAX);
        if let Some(user) = &self.user {
            let password = match &self.password {
                Some(password) => password
                    .fetch(&self.base_dir)
                    .map_err(|error| error.to_string())?
                    .expose()
                    .to_string(),
                None => String::new(),
            };
            options.set_credentials(user, password);
        }
        if address.tls {
            let config = self.tls.client_config(&self.base_dir)?;
            options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(config))));
        }
        let (client, mut events) = AsyncClient::new(options, manner.requests);
        events.network_options.set_connection_timeout(CONNECT_WAIT_S);
        events.network_options.set_tcp_nodelay(true);
        Ok((client, events))
    }
}

/// Whether the other side closed a connection that was well, rather than not answering or answering nonsense.
pub(crate) fn is_closed(error: &ConnectionError) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    match error {
        ConnectionError::MqttState(StateError::ConnectionAborted) => true,
        // A connection that ends while something is read from it counts as a packet that cannot be read.
        ConnectionError::Io(error)
        | ConnectionError::MqttState(
            StateError::Io(error) | StateError::Deserialization(mqttbytes::Error::Io(error)),
        ) => {
            matches!(
                error.kind(),
                BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
            )
        }
        _ => false,
    }
}

/// Why a connection failed, for a person.
pub(crate) fn explain(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ConnectionRefused(
            ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized,
        ) => "the broker refuses this user or password".to_string(),
        ConnectionError::ConnectionRefused(ConnectReturnCode::BadClientId) => {
            "the broker refuses this client_id".to_string()
        }
        ConnectionError::ConnectionRefused(ConnectReturnCode::ServiceUnavailable) => {
            "the broker is not available".to_string()
        }
        ConnectionError::ConnectionRefused(code) => format!("the broker refuses the connection ({code:?})"),
        ConnectionError::NetworkTimeout => format!("no answer for {CONNECT_WAIT_S} seconds"),
        error if is_closed(error) => {
            "the broker closed the connection (another client with the same client_id, no right to do this, or a message \
             that is too large for it?)"
                .to_string()
        }
        ConnectionError::MqttState(StateError::Deserialization(error)) => {
            format!("a packet that cannot be taken ({error}); messages may have {PACKET_BYTES_MAX} bytes")
        }
        ConnectionError::Io(error) => error.to_string(),
        error => error.to_string(),
    }
}

fn address(url: &str) -> Result<Address, String> {
    let form = "an address is mqtt://host:1883, or mqtts://host:8883 with TLS";
    let (scheme, rest) = url
        .split_once("://")
        .ok_or_else(|| format!("'{url}' is none: {form}"))?;
    let tls = match scheme {
        "mqtt" | "tcp" => false,
        "mqtts" | "ssl" => true,
        _ => return Err(format!("'{scheme}' is not known: {form}")),
    };
    if rest.contains('@') {
        return Err("write user and password into keys of their own, not into the address".to_string());
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.strip_prefix('[') {
        // An IPv6 address has colons of its own.
        Some(rest) => rest.split_once(']').map(|(host, port)| (host, port.strip_prefix(':'))),
        None => Some(
            rest.split_once(':')
                .map_or((rest, None), |(host, port)| (host, Some(port))),
        ),
    }
    .ok_or_else(|| format!("'{url}' is none: {form}"))?;
    let default_port = if tls { 8883 } else { 1883 };
    let port = match port {
        None => default_port,
        Some(port) => port
            .parse()
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| format!("'{port}' is no port"))?,
    };
    if host.is_empty() || host.contains(['/', ' ']) {
        return Err(format!("'{url}' is none: {form}"));
    }
    Ok(Address {
        host: host.to_string(),
        port,
        tls,
    })
}

/// A task that ends with its owner.
pub(crate) struct Task(pub tokio::task::JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let ok = |host: &str, port, tls| {
            Some(Address {
                host: host.to_string(),
                port,
                tls,
            })
        };
        for (url, wanted) in [
            ("mqtt://broker", ok("broker", 1883, false)),
            ("mqtts://broker/", ok("broker", 8883, true)),
            ("tcp://10.0.0.1:1884", ok("10.0.0.1", 1884, false)),
            ("ssl://[::1]:8884", ok("::1", 8884, true)),
            ("broker:1883", None),
            ("http://broker", None),
            ("mqtt://", None),
            ("mqtt://user:pw@broker", None),
            ("mqtt://broker:0", None),
            ("mqtt://broker:x", None),
            ("mqtt://broker/path", None),
        ] {
            assert_eq!(address(url).ok(), wanted, "{url}");
        }
    }
}
