//! What every road is tested with: brokers that can be started, stopped and frozen, and a client that says what it waits
//! for. To add a broker to the suite, write a function that returns its [`Road`] and name it in `conformance.rs`.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{path::Path, sync::Arc, time::Duration};

use bus_link::{Bus, BusConfig, Credentials, Event, Status, Tls, memory::Hub};
use bus_schema::subject::{Pattern, Subject};
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
}

/// What a test does to a broker. These block: call them through [`Road::on_broker`].
pub trait Broker: Send + Sync {
    fn start(&self);
    fn stop(&self);
    fn pause(&self);
    fn resume(&self);
}

impl Broker for Service {
    fn start(&self) {
        Service::start(self);
    }
    fn stop(&self) {
        Service::stop(self);
    }
    fn pause(&self) {
        Service::pause(self);
    }
    fn resume(&self) {
        Service::resume(self);
    }
}

/// Forwards to the [`Service`] inside a kind of server.
struct Server<T>(T);

impl<T: std::ops::Deref<Target = Service> + Send + Sync> Broker for Server<T> {
    fn start(&self) {
        Broker::start(&*self.0);
    }
    fn stop(&self) {
        Broker::stop(&*self.0);
    }
    fn pause(&self) {
        Broker::pause(&*self.0);
    }
    fn resume(&self) {
        Broker::resume(&*self.0);
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
}

impl Road {
    pub fn new(address: String, broker: impl Broker + 'static) -> Self {
        Self {
            addresses: vec![address],
            credentials: Credentials::None,
            tls: Tls::default(),
            broker: Arc::new(broker),
        }
    }

    pub fn mosquitto(server: Mosquitto) -> Self {
        Self::new(server.url(), Server(server))
    }

    pub fn nats(server: Nats) -> Self {
        Self::new(server.url(), Server(server))
    }

    pub fn nats_mqtt(server: Nats) -> Self {
        Self::new(server.mqtt_url(), Server(server))
    }

    pub fn memory(name: &str) -> Self {
        Self::new(format!("memory://{name}"), Hub::named(name))
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
        BusConfig::new(addresses, client, self.credentials.clone(), self.tls.clone()).unwrap()
    }

    /// Starts a client without waiting for anything.
    pub fn start(&self, client: &str, patterns: &[&str]) -> Client {
        let own = format!("sync.{client}");
        let patterns = patterns.iter().copied().chain([own.as_str()]).map(pattern).collect();
        let (bus, events) = Bus::start(self.config(client), patterns);
        Client {
            bus,
            events,
            own: subject(&own),
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
    own: Subject,
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
            Event::Message { subject, payload } => (subject.to_string(), payload),
            other => panic!("{other:?} instead of a message"),
        }
    }

    pub async fn publish(&self, to: &str, payload: impl Into<Vec<u8>>) {
        self.bus
            .publish(&subject(to), payload.into())
            .await
            .unwrap_or_else(|error| panic!("{to}: {error}"));
    }

    /// Waits until the broker has handled everything this client asked for so far, by hearing itself. A NATS server
    /// gives no other sign.
    pub async fn settle(&mut self) {
        let own = self.own.to_string();
        self.publish(&own, "").await;
        assert_eq!(self.message().await, (own, Vec::new()));
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

pub fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).unwrap()
}

pub fn subject(text: &str) -> Subject {
    Subject::parse(text).unwrap()
}

pub fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
