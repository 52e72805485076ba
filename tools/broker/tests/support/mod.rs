//! A fleet with its broker in a process of its own, and members of it as real MQTT clients. Each client works only while
//! a test waits for it: one that is not asked for anything has stalled.

#![allow(dead_code, reason = "no test file uses all of it")]
#![allow(
    clippy::unwrap_used,
    clippy::result_large_err,
    reason = "a helper of tests fails them, and the error is rumqttc's"
)]

use std::{
    collections::VecDeque,
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use bus_schema::{
    access::User,
    id::{FleetId, NodeId, StreamId, TokenId, base32},
    limits::FRAME_BYTES_MAX,
    subject::{self, Dialect, Pattern, Subject},
};
use rumqttc::{
    Client, Connection, ConnectionError, Event, MqttOptions, Packet, Publish, QoS, SubscribeReasonCode,
    TlsConfiguration, Transport,
};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use testkit::{Cmd, Proc, TempDir, free_port, temp_dir};

/// Longer than anything here takes on a busy machine.
pub const SOON: Duration = Duration::from_secs(20);
/// How long to look for something that must not come.
pub const QUIET: Duration = Duration::from_millis(400);
/// Packets a client takes and gives.
pub const PACKET_BYTES: usize = FRAME_BYTES_MAX + 1024;

/// The broker's secret in every test.
pub const SECRET: [u8; 32] = [42; 32];

/// The program under test.
pub fn broker_cmd() -> Cmd {
    Cmd::new(env!("CARGO_BIN_EXE_mycelial-broker")).env_remove("MYCELIAL_LOG")
}

/// Names, files and ports of one fleet.
pub struct Fleet {
    pub fleet: FleetId,
    pub plane: NodeId,
    pub a: NodeId,
    pub b: NodeId,
    pub token: TokenId,
    pub stream: StreamId,
    pub port: u16,
    pub dir: TempDir,
}

impl Fleet {
    pub fn new() -> Self {
        let dir = temp_dir("broker");
        let secret = dir.path().join("broker.secret");
        fs::write(&secret, base32(&SECRET)).unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let [plane, a, b] = [2, 3, 4].map(|n| NodeId::from_hash(&[n; 32]));
        Self {
            fleet: FleetId::from_hash(&[1; 32]),
            plane,
            a,
            b,
            token: TokenId::from_hash(&[5; 32]),
            stream: StreamId::from_hash(&[6; 32]),
            port: free_port(),
            dir,
        }
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Writes the configuration, with more lines after the necessary ones.
    pub fn config(&self, more: &str) -> PathBuf {
        let path = self.dir.path().join("broker.toml");
        let (fleet, plane, listen) = (self.fleet, self.plane, self.address());
        let text = format!(
            "fleet = '{fleet}'\nplane = '{plane}'\nsecret_file = 'broker.secret'\nlisten = '{listen}'\n{more}\n"
        );
        fs::write(&path, text).unwrap();
        path
    }

    /// Starts the broker and waits until it listens.
    #[track_caller]
    pub fn start(&self, more: &str) -> Proc {
        let mut broker = broker_cmd().arg("--config").arg(self.config(more)).spawn();
        broker.wait_for_log(&format!("listening on {}", self.address()), SOON);
        broker
    }

    /// How a user connects.
    pub fn options(&self, user: User, client_id: &str) -> MqttOptions {
        self.options_at(self.port, user, client_id)
    }

    /// How a user connects to another port than the first.
    pub fn options_at(&self, port: u16, user: User, client_id: &str) -> MqttOptions {
        let mut options = MqttOptions::new(client_id, "127.0.0.1", port);
        options.set_credentials(user.name(), user.password(&SECRET));
        options.set_max_packet_size(PACKET_BYTES, PACKET_BYTES);
        options.set_keep_alive(Duration::from_secs(30));
        options
    }

    /// A connected member.
    #[track_caller]
    pub fn member(&self, node: NodeId) -> Peer {
        let name = User::Node(node).name();
        Peer::connect(self.options(User::Node(node), &name)).unwrap()
    }

    /// Where `from` publishes for `to`.
    pub fn control(&self, from: &NodeId, to: &NodeId) -> String {
        topic(&subject::control(&self.fleet, from, to))
    }

    /// Where everything for `to` is.
    pub fn control_to(&self, to: &NodeId) -> String {
        filter(&subject::control_to(&self.fleet, to))
    }

    /// Where `from` publishes frames of the stream.
    pub fn data(&self, from: &NodeId) -> String {
        topic(&subject::data(&self.fleet, from, &self.stream))
    }
}

pub fn topic(subject: &Subject) -> String {
    subject.render(Dialect::Mqtt)
}

pub fn filter(pattern: &Pattern) -> String {
    pattern.render(Dialect::Mqtt)
}

/// Trusts one authority.
pub fn tls(ca: &std::path::Path) -> Transport {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(config)))
}

/// An MQTT 3.1.1 client.
pub struct Peer {
    client: Client,
    connection: Connection,
    inbox: VecDeque<Publish>,
    /// Of the latest connection.
    pub session_present: bool,
}

impl Peer {
    pub fn connect(options: MqttOptions) -> Result<Self, ConnectionError> {
        let (client, connection) = Client::new(options, 64);
        let mut peer = Self {
            client,
            connection,
            inbox: VecDeque::new(),
            session_present: false,
        };
        peer.await_connected()?;
        Ok(peer)
    }

    /// Waits for the broker's answer to CONNECT: the first, or the next after the connection broke.
    #[track_caller]
    pub fn await_connected(&mut self) -> Result<(), ConnectionError> {
        self.session_present = self.until("CONNACK", |packet| match packet {
            Packet::ConnAck(ack) => Some(ack.session_present),
            _ => None,
        })?;
        Ok(())
    }

    /// Whether the broker granted it.
    #[track_caller]
    pub fn subscribe(&mut self, filter: &str) -> bool {
        self.client.try_subscribe(filter, QoS::AtLeastOnce).unwrap();
        let granted = self.until("SUBACK", |packet| match packet {
            Packet::SubAck(ack) => Some(ack.return_codes.clone()),
            _ => None,
        });
        !granted.unwrap().contains(&SubscribeReasonCode::Failure)
    }

    /// Publishes with QoS 1 and waits for the acknowledgement.
    pub fn publish(&mut self, topic: &str, payload: impl Into<Vec<u8>>) -> Result<(), ConnectionError> {
        self.publish_with(topic, payload, false)
    }

    pub fn publish_with(
        &mut self,
        topic: &str,
        payload: impl Into<Vec<u8>>,
        retain: bool,
    ) -> Result<(), ConnectionError> {
        self.client
            .try_publish(topic, QoS::AtLeastOnce, retain, payload)
            .unwrap();
        self.until("PUBACK", |packet| matches!(packet, Packet::PubAck(_)).then_some(()))
    }

    /// The next message, if there is one in time.
    pub fn receive(&mut self, within: Duration) -> Option<Publish> {
        let deadline = Instant::now() + within;
        while self.inbox.is_empty() {
            let left = deadline.checked_duration_since(Instant::now())?;
            if let Ok(event) = self.connection.recv_timeout(left) {
                self.note(&event.unwrap());
            }
        }
        self.inbox.pop_front()
    }

    /// The next message, as text.
    #[track_caller]
    pub fn receive_text(&mut self) -> String {
        let publish = self.receive(SOON).expect("a message");
        String::from_utf8(publish.payload.to_vec()).unwrap()
    }

    /// Takes leave, so that the broker has seen it go when this returns.
    pub fn leave(mut self) {
        self.client.try_disconnect().unwrap();
        while self.connection.recv_timeout(SOON).expect("the connection ends").is_ok() {}
    }

    #[track_caller]
    fn until<T>(&mut self, what: &str, mut found: impl FnMut(&Packet) -> Option<T>) -> Result<T, ConnectionError> {
        let deadline = Instant::now() + SOON;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self
                .connection
                .recv_timeout(left)
                .unwrap_or_else(|_| panic!("waited in vain for {what}"))?;
            self.note(&event);
            if let Event::Incoming(packet) = &event
                && let Some(found) = found(packet)
            {
                return Ok(found);
            }
        }
    }

    fn note(&mut self, event: &Event) {
        if let Event::Incoming(Packet::Publish(publish)) = event {
            self.inbox.push_back(publish.clone());
        }
    }
}
