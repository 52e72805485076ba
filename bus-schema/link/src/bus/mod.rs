//! One bus over NATS, MQTT 3.1.1 or a hub in memory: connect and stay connected, publish, subscribe. Moves bytes on
//! subjects; knows no envelope, no member and no message.
//!
//! A [`Bus`] promises little, and exactly this:
//!
//! - [`Event::Up`] comes after the broker has confirmed the connection and taken every subscription, and before any
//!   message of that connection; [`Event::Down`] after every loss and every failed attempt, with the cause in words.
//! - Nothing is queued across connections: [`Bus::publish`] fails at once while there is none.
//! - A message may be lost at any time (each broker drops some), or come twice (after MQTT's repetition, or when two
//!   patterns match it). Within one connection, one subscription sees one sender's messages in the order sent.
//! - Memory is bounded in both directions; what finds no room on the way in is dropped and counted.

mod address;
mod backoff;
mod cause;
mod config;
mod creds;
mod driver;
mod inbox;
pub mod memory;
mod mqtt;
mod nats;
mod tls;
mod trust;

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::essential;
use async_trait::async_trait;
use bus_schema::{
    limits::FRAME_BYTES_MAX,
    subject::{Pattern, Subject},
};
use tokio::sync::{SetOnce, mpsc, watch};

pub use self::{
    address::{AddressError, BusAddress, Protocol},
    config::{BusConfig, ConfigError, Credentials, Secret},
    inbox::Counters,
    tls::{Tls, TlsError},
};

/// Events waiting for the owner, besides what waits in the inbox.
const EVENTS_MAX: usize = 4;
/// Payload under way to the broker on one connection, in bytes.
const SEND_BYTES_MAX: usize = 512 * 1024;
/// Between two signs of life asked of a broker.
const PING: Duration = Duration::from_secs(15);
/// Silence after which a broker is given up: two pings and some time to answer the second.
const SILENCE_MAX: Duration = Duration::from_secs(38);

/// What happens on a bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Connected, and every subscription is in place.
    Up {
        /// To which broker.
        address: BusAddress,
    },
    /// Not connected any more, or not yet again. Comes once for each failed attempt too.
    Down {
        /// Why, in words for a person.
        cause: String,
    },
    /// A message.
    Message {
        /// On which subject.
        subject: Subject,
        /// Its bytes.
        payload: Vec<u8>,
    },
}

/// How it is with a bus just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Not connected.
    Down {
        /// Why, in words for a person.
        cause: String,
    },
    /// Connected, and every subscription is in place.
    Up {
        /// To which broker.
        address: BusAddress,
    },
}

/// A message was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// There is no connection, or it was lost before the message was taken.
    #[error("not connected to the bus")]
    Offline,
    /// No broker would have to take it.
    #[error("a frame of {bytes} bytes on '{subject}' is over the limit of {FRAME_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// Where it was to go.
        subject: Subject,
    },
}

/// A connection to the bus that mends itself. Clones share it. It ends with [`Bus::close`], or when the receiver of its
/// events is dropped.
#[derive(Debug, Clone)]
pub struct Bus {
    shared: Arc<Shared>,
}

impl Bus {
    /// Returns at once, connects in the background and goes on doing so for ever. Must be called inside a tokio runtime.
    ///
    /// Take the events as they come: while nobody does, messages are held back up to a bound and dropped beyond it, and
    /// a lost connection is not replaced. The connection itself survives that. The channel ends after [`Bus::close`].
    pub fn start(config: BusConfig, subscriptions: Vec<Pattern>) -> (Self, mpsc::Receiver<Event>) {
        let shared = Arc::new(Shared::new(subscriptions.into_iter().collect()));
        let (events, incoming) = mpsc::channel(EVENTS_MAX);
        essential::spawn("bus", driver::drive(Arc::clone(&shared), config, events));
        (Self { shared }, incoming)
    }

    /// Subscribes, now and after every reconnect. Returns once the broker has taken it, or at once while there is no
    /// connection. A broker that refuses it is disconnected from, with that cause.
    pub async fn subscribe(&self, pattern: Pattern) {
        self.shared
            .wanted
            .send_if_modified(|wanted| wanted.insert(pattern.clone()));
        self.shared.settled(|active| active.contains(&pattern)).await;
    }

    /// Ends a subscription, now and for later connections. A few messages may still come.
    pub async fn unsubscribe(&self, pattern: &Pattern) {
        self.shared.wanted.send_if_modified(|wanted| wanted.remove(pattern));
        self.shared.settled(|active| !active.contains(pattern)).await;
    }

    /// Hands a message to the broker; waits while too much is under way already. `Ok` means no more than that: only the
    /// recipient's own answer proves that it arrived. May be cancelled: then the message was not sent.
    pub async fn publish(&self, subject: &Subject, payload: Vec<u8>) -> Result<(), PublishError> {
        if payload.len() > FRAME_BYTES_MAX {
            return Err(PublishError::TooLarge {
                bytes: payload.len(),
                subject: subject.clone(),
            });
        }
        let Live { link, fate } = self.shared.live().ok_or(PublishError::Offline)?;
        tokio::select! {
            biased;
            _ = fate.wait() => Err(PublishError::Offline),
            sent = link.publish(subject, payload) => sent.map_err(|Lost| PublishError::Offline),
        }
    }

    /// Whether there is a connection with every subscription in place.
    pub fn is_up(&self) -> bool {
        matches!(*self.shared.status.borrow(), Status::Up { .. })
    }

    /// Whether the last broker that was tried has refused to let this client in.
    pub fn is_refused(&self) -> bool {
        self.shared.refused.load(Ordering::Relaxed)
    }

    /// How it is, to look at or to wait for.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.shared.status.subscribe()
    }

    /// How often something received was not delivered.
    pub fn counters(&self) -> Counters {
        self.shared.tally.read()
    }

    /// Sends what is under way, disconnects and ends the events. Takes at most 5 seconds, whatever the broker does.
    pub async fn close(&self) {
        self.shared.closing.send_replace(true);
        self.shared.ended.wait().await;
    }
}

/// What the handles and the driver share.
#[derive(Debug)]
struct Shared {
    /// Patterns the owner wants.
    wanted: watch::Sender<BTreeSet<Pattern>>,
    /// Patterns the broker has taken; `None` while there is no connection.
    active: watch::Sender<Option<BTreeSet<Pattern>>>,
    status: watch::Sender<Status>,
    refused: AtomicBool,
    live: Mutex<Option<Live>>,
    closing: watch::Sender<bool>,
    ended: SetOnce<()>,
    tally: Arc<inbox::Tally>,
}

impl Shared {
    fn new(wanted: BTreeSet<Pattern>) -> Self {
        Self {
            wanted: watch::Sender::new(wanted),
            active: watch::Sender::new(None),
            status: watch::Sender::new(Status::Down {
                cause: "not connected yet".to_owned(),
            }),
            refused: AtomicBool::new(false),
            live: Mutex::new(None),
            closing: watch::Sender::new(false),
            ended: SetOnce::new(),
            tally: Arc::default(),
        }
    }

    fn live(&self) -> Option<Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_live(&self, live: Option<Live>) {
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = live;
    }

    /// Waits until the connection, if there is one, has done what was asked.
    async fn settled(&self, done: impl Fn(&BTreeSet<Pattern>) -> bool) {
        // The sender is in `self`, so this cannot fail.
        let _ = self
            .active
            .subscribe()
            .wait_for(|active| active.as_ref().is_none_or(&done))
            .await;
    }
}

/// A connection that is up.
#[derive(Debug, Clone)]
struct Live {
    link: Arc<dyn Link>,
    fate: Fate,
}

/// Set once, with the cause, when a connection is lost.
type Fate = Arc<SetOnce<String>>;

/// The connection was lost meanwhile; its [`Fate`] says why.
#[derive(Debug)]
struct Lost;

/// One connection to one broker, from connecting to its loss. Each method may be cancelled and ends when the connection
/// is lost, at the latest because the caller watches its fate.
#[async_trait]
trait Link: Send + Sync + std::fmt::Debug {
    /// Returns when the broker has taken all of them.
    async fn subscribe(&self, patterns: &[Pattern]) -> Result<(), Lost>;
    /// Returns when the broker has been told.
    async fn unsubscribe(&self, patterns: &[Pattern]) -> Result<(), Lost>;
    /// Hands a message over; waits for room.
    async fn publish(&self, subject: &Subject, payload: Vec<u8>) -> Result<(), Lost>;
    /// Tells the broker that a message has reached its owner.
    async fn receipt(&self, _id: u16) {}
    /// Sends what is under way and disconnects.
    async fn close(&self);
}

/// A task that ends with its owner.
#[derive(Debug)]
struct Background(tokio::task::JoinHandle<()>);

impl Background {
    fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(essential::spawn("connection", task))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.0.abort();
    }
}
