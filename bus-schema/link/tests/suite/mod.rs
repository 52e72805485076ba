//! What every road is tested with: brokers that can be started, stopped, frozen and wiped, and a client that says what it
//! waits for. To add a broker to the suite, write a function that returns its [`Road`] in `roads.rs` and name it in
//! `conformance.rs`.
//!
//! Texts in tests are short: `a.b` said by `sender` travels as `myc.v1.<fleet>.app.<sender>.a.b`, because our own broker
//! carries nothing else. At most three tokens fit.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod roads;
pub mod stranger;

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use bus_link::{Bus, BusConfig, Credentials, Event, Status, Tls, memory::Hub};
use bus_schema::{
    access::User,
    id::{FleetId, NodeId, hash},
    subject::{Pattern, Subject},
};
use testkit::{CertFiles, Mosquitto, Nats, Service};
use tokio::{sync::mpsc, time::timeout};

/// For anything that should happen at once, on a busy machine.
pub const SOON: Duration = Duration::from_secs(30);

/// Attempts in which a client must have come up: some minutes of pauses.
const ATTEMPTS_MAX: usize = 12;

/// A broker and how to reach it.
#[derive(Clone)]
pub struct Road {
    pub addresses: Vec<String>,
    pub credentials: Credentials,
    pub tls: Tls,
    pub broker: Arc<dyn Broker>,
    /// The embedded broker's secret, from which every client's login follows.
    pub secret: Option<[u8; 32]>,
    /// Where a stranger gets in who does not go through a [`Bus`].
    pub door: Option<Door>,
    /// Makes another road of the same kind.
    pub another: Option<fn() -> Road>,
}

/// What a stranger speaks, and where.
#[derive(Debug, Clone, Copy)]
pub enum Door {
    Mqtt(SocketAddr),
    Nats(SocketAddr),
}

/// What a test does to a broker. These block: call them through [`Road::on_broker`].
pub trait Broker: Send + Sync {
    fn start(&self);
    fn stop(&self);
    fn pause(&self);
    fn resume(&self);
    /// Stops it, takes everything away that it kept, and starts it.
    fn wipe(&self);
    /// How many messages a record of everything holds, where the broker keeps one.
    fn captured(&self) -> Option<u64> {
        None
    }
}

/// A server, and the directory of what it keeps.
struct Server<T> {
    server: T,
    keeps: &'static str,
}

impl<T: std::ops::Deref<Target = Service> + Send + Sync> Broker for Server<T> {
    fn start(&self) {
        self.server.start();
    }
    fn stop(&self) {
        self.server.stop();
    }
    fn pause(&self) {
        self.server.pause();
    }
    fn resume(&self) {
        self.server.resume();
    }
    fn wipe(&self) {
        self.server.stop();
        empty(&self.server.dir().join(self.keeps));
        self.server.start();
    }
}

/// Leaves the directory itself, if it is there.
fn empty(dir: &Path) {
    if dir.exists() {
        std::fs::remove_dir_all(dir).unwrap();
        std::fs::create_dir(dir).unwrap();
    }
}

impl Broker for Hub {
    fn start(&self) {
        Hub::start(self);
    }
    fn stop(&self) {
        Hub::stop(self);
    }
    fn pause(&self) {
        unreachable!("a hub has no process to freeze");
    }
    fn resume(&self) {
        unreachable!("a hub has no process to freeze");
    }
    fn wipe(&self) {
        Hub::stop(self);
        Hub::start(self);
    }
}

impl Road {
    pub fn new(address: String, broker: impl Broker + 'static) -> Self {
        Self {
            addresses: vec![address],
            credentials: Credentials::None,
            tls: Tls::default(),
            broker: Arc::new(broker),
            secret: None,
            door: None,
            another: None,
        }
    }

    pub fn mosquitto(server: Mosquitto) -> Self {
        let (url, door) = (server.url(), Door::Mqtt(server.addr()));
        let keeps = "data";
        Self::new(url, Server { server, keeps }).door(door)
    }

    pub fn nats(server: Nats) -> Self {
        let (url, door) = (server.url(), Door::Nats(server.addr()));
        let keeps = "jetstream";
        Self::new(url, Server { server, keeps }).door(door)
    }

    pub fn nats_mqtt(server: Nats) -> Self {
        let (url, door) = (
            server.mqtt_url(),
            Door::Mqtt(([127, 0, 0, 1], server.mqtt_port()).into()),
        );
        let keeps = "jetstream";
        Self::new(url, Server { server, keeps }).door(door)
    }

    pub fn memory(name: &str) -> Self {
        Self::new(format!("memory://{name}"), Hub::named(name))
    }

    /// One of these, which knows how to make more of them.
    pub fn made_by(make: fn() -> Self) -> Self {
        Self {
            another: Some(make),
            ..make()
        }
    }

    fn door(mut self, door: Door) -> Self {
        self.door = Some(door);
        self
    }

    pub fn user(mut self, user: &str, password: &str) -> Self {
        self.credentials = Credentials::UserPassword {
            user: user.into(),
            password: password.into(),
        };
        self
    }

    pub fn creds(mut self, text: String) -> Self {
        self.credentials = Credentials::NatsCreds(text.into());
        self
    }

    pub fn trusting(mut self, tls: &testkit::Tls, client: Option<&CertFiles>) -> Self {
        let client = client.map(|files| (read(&files.cert), read(&files.key)));
        let client = client.as_ref().map(|(cert, key)| (cert.as_slice(), key.as_slice()));
        self.tls = Tls::from_pem(Some(&read(&tls.ca())), client).unwrap();
        self
    }

    pub async fn on_broker(&self, action: impl FnOnce(&dyn Broker) + Send + 'static) {
        let broker = Arc::clone(&self.broker);
        tokio::task::spawn_blocking(move || action(&*broker)).await.unwrap();
    }

    pub fn config(&self, client: &str) -> BusConfig {
        let addresses = self.addresses.iter().map(|text| text.parse().unwrap()).collect();
        let (client, credentials) = self.login(client);
        BusConfig::new(addresses, client, credentials, self.tls.clone()).unwrap()
    }

    /// The client id and credentials of a client.
    pub fn login(&self, client: &str) -> (String, Credentials) {
        let Some(secret) = self.secret else {
            return (client.to_owned(), self.credentials.clone());
        };
        let user = User::Node(node(client));
        let password = user.password(&secret).into();
        let login = Credentials::UserPassword {
            user: user.name(),
            password,
        };
        (user.name(), login)
    }

    /// Starts a client without waiting for anything.
    pub fn start(&self, client: &str, patterns: &[&str]) -> Client {
        let own = format!("sync.{client}");
        let patterns = patterns.iter().copied().chain([own.as_str()]).map(pattern).collect();
        let (bus, events) = Bus::start(self.config(client), patterns);
        Client {
            bus,
            events,
            name: client.to_owned(),
        }
    }

    /// Starts a client and waits until it hears what it subscribed to.
    pub async fn connect(&self, client: &str, patterns: &[&str]) -> Client {
        let mut client = self.start(client, patterns);
        client.up().await;
        client.settle().await;
        client
    }
}

pub struct Client {
    pub bus: Bus,
    pub events: mpsc::Receiver<Event>,
    name: String,
}

impl Client {
    pub async fn next(&mut self, what: &str) -> Event {
        match timeout(SOON, self.events.recv()).await {
            Ok(event) => event.unwrap_or_else(|| panic!("the events ended while waiting for {what}")),
            Err(_) => panic!(
                "waited in vain for {what}; the bus is {:?}",
                *self.bus.status().borrow()
            ),
        }
    }

    /// Waits until it is up; passes over messages and failed attempts.
    pub async fn up(&mut self) -> String {
        let mut causes = Vec::new();
        loop {
            match self.next("the connection").await {
                Event::Up { address } => return address.to_string(),
                Event::Down { cause } => causes.push(cause),
                Event::Message { .. } => {}
            }
            assert!(causes.len() < ATTEMPTS_MAX, "it does not come up: {causes:#?}");
        }
    }

    /// Waits until it is down; passes over messages.
    pub async fn down(&mut self) -> String {
        loop {
            match self.next("the loss of the connection").await {
                Event::Down { cause } => return cause,
                Event::Message { .. } => {}
                Event::Up { address } => panic!("up ({address}) instead of down"),
            }
        }
    }

    /// The next message. Anything else is a failure.
    pub async fn message(&mut self) -> (String, Vec<u8>) {
        match self.next("a message").await {
            Event::Message { subject, payload } => (text(&subject), payload),
            other => panic!("{other:?} instead of a message"),
        }
    }

    /// The subject of what this client says.
    pub fn subject(&self, to: &str) -> Subject {
        said(&self.name, to)
    }

    pub async fn publish(&self, to: &str, payload: impl Into<Vec<u8>>) {
        self.bus
            .publish(&self.subject(to), payload.into())
            .await
            .unwrap_or_else(|error| panic!("{to}: {error}"));
    }

    /// Waits until the broker has handled everything this client asked for so far, by hearing itself. A NATS server
    /// gives no other sign. Returns what came before that.
    pub async fn drain(&mut self) -> Vec<(String, Vec<u8>)> {
        let own = format!("sync.{}", self.name);
        self.publish(&own, "").await;
        let mut before = Vec::new();
        loop {
            match self.message().await {
                (to, _) if to == own => return before,
                other => before.push(other),
            }
        }
    }

    /// [`Client::drain`], where nothing may come.
    pub async fn settle(&mut self) {
        assert_eq!(self.drain().await, []);
    }

    /// Waits for a status.
    pub async fn until(&self, what: &str, deadline: Duration, wanted: impl Fn(&Status) -> bool) {
        let mut status = self.bus.status();
        let waiting = status.wait_for(|status| wanted(status));
        match timeout(deadline, waiting).await {
            Ok(found) => drop(found.unwrap()),
            Err(_) => panic!("waited {deadline:?} in vain for {what}"),
        }
    }
}

/// The suite's fleet.
pub fn fleet() -> FleetId {
    FleetId::from_hash(&[1; 32])
}

/// A client's node.
pub fn node(client: &str) -> NodeId {
    NodeId::from_hash(&hash("conformance client", &[client.as_bytes()]))
}

/// Where everybody's `text` is heard.
pub fn pattern(text: &str) -> Pattern {
    Pattern::parse(&format!("myc.v1.{}.app.*.{text}", fleet())).unwrap()
}

/// Where `client` says `text`.
pub fn said(client: &str, text: &str) -> Subject {
    Subject::parse(&format!("myc.v1.{}.app.{}.{text}", fleet(), node(client))).unwrap()
}

/// The part of a subject that tests speak of.
fn text(subject: &Subject) -> String {
    subject.as_str().splitn(6, '.').last().unwrap_or_default().to_owned()
}

pub fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
