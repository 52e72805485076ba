//! A session with a server: enters it, reads, and listens for changes. Holds one subscription at most, and asks for changes
//! only while somebody wants them: what comes meanwhile waits in the server's queues.

use std::{collections::hash_map::RandomState, hash::BuildHasher, time::Duration};

use tokio::time::timeout;

use super::{
    channel::{Channel, ChannelError},
    data::Datum,
    message::{self, Identity, Item, Pace, Token},
    node::NodeId,
    status::Status,
};

/// Nodes in one request.
const NODES_AT_ONCE: usize = 500;
/// Requests for changes that wait at the server, so that one is there while another is answered.
const PUBLISHES: usize = 2;
/// Changes in one answer.
const NOTIFICATIONS_MAX: u32 = 1000;
/// How long a session may be silent, in milliseconds: as long as a destination may be away before it has to be begun anew.
const SESSION_MS: f64 = 3_600_000.0;
/// A subscription lives so long without a word, in milliseconds.
const SUBSCRIPTION_MS: f64 = 600_000.0;
/// It says that it is alive so often, in milliseconds.
const KEEP_ALIVE_MS: f64 = 5000.0;
/// What is added to the time after which a server has fallen silent.
const SILENCE: Duration = Duration::from_secs(10);

/// Where a server is, and who one is there.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub url: String,
    pub host: String,
    pub port: u16,
}

/// An open session.
pub(super) struct Session {
    channel: Channel,
    token: Token,
    subscription: u32,
    /// Requests for changes that were not answered yet.
    asked: usize,
    /// How many of them may be.
    publishes: usize,
    /// Changes that came and may be forgotten by the server.
    told: Vec<(u32, u32)>,
    /// For so long nothing has come while somebody listened.
    silent: Duration,
    silent_max: Duration,
}

impl Session {
    /// Connects and enters, as a user with this name and password or as nobody in particular.
    pub(super) async fn open(server: &Server, user: Option<(&str, &str)>, name: &str) -> Result<Self, ChannelError> {
        let mut channel = Channel::open(&server.host, server.port, &server.url).await?;
        let wanted = message::create_session(&server.url, name, &nonce(), SESSION_MS);
        let granted = message::session_created(&channel.call(&wanted).await?)?;
        let refused = |cause: &str| Err(ChannelError::Broken(cause.to_string()));
        if !granted.is_open {
            return refused(&format!(
                "it takes only connections with security ({}), which this source cannot make: let it offer the policy None \
                 too, on a network of its own",
                granted.policies.join(", ")
            ));
        }
        let identity = match (user, &granted.anonymous, &granted.user_name) {
            (None, Some(policy), _) => Identity::Anonymous(policy),
            (None, None, _) => return refused("it lets nobody in without a user name: set user and password"),
            (Some((name, password)), _, Some(policy)) => Identity::User(policy, name, password),
            (Some(_), ..) if granted.wants_encryption => {
                return refused("it wants passwords encrypted, which this source cannot do");
            }
            (Some(_), ..) => return refused("it has no users on connections without security"),
        };
        let entered = channel
            .call(&message::activate_session(&granted.token, identity))
            .await?;
        message::response(&entered, message::kind::ACTIVATE_SESSION, "entering the session")?;
        Ok(Self {
            channel,
            token: granted.token,
            subscription: 0,
            asked: 0,
            publishes: PUBLISHES,
            told: Vec::new(),
            silent: Duration::ZERO,
            silent_max: SILENCE,
        })
    }

    /// The values of nodes as they are, in the same order.
    pub(super) async fn read(&mut self, nodes: &[NodeId]) -> Result<Vec<Datum>, ChannelError> {
        self.channel.keep_open().await?;
        let mut values = Vec::with_capacity(nodes.len());
        for part in nodes.chunks(NODES_AT_ONCE) {
            let read = message::values(&self.channel.call(&message::read(&self.token, part)).await?)?;
            expect(part.len(), read.len())?;
            values.extend(read);
        }
        Ok(values)
    }

    /// Begins to listen, with changes told this often.
    pub(super) async fn subscribe(&mut self, interval: Duration) -> Result<(), ChannelError> {
        let interval_ms = interval.as_secs_f64() * 1000.0;
        let times = |ms: f64| (ms / interval_ms).ceil().max(1.0) as u32;
        let keep_alive = times(KEEP_ALIVE_MS);
        let wanted = Pace {
            interval_ms,
            lifetime: times(SUBSCRIPTION_MS).max(keep_alive.saturating_mul(3)),
            keep_alive,
        };
        let request = message::create_subscription(&self.token, &wanted, NOTIFICATIONS_MAX);
        let (id, pace) = message::subscription_created(&self.channel.call(&request).await?)?;
        self.subscription = id;
        let alive_ms = pace.interval_ms * f64::from(pace.keep_alive);
        self.silent_max = Duration::try_from_secs_f64(alive_ms * 2.0 / 1000.0).unwrap_or_default() + SILENCE;
        Ok(())
    }

    /// Watches nodes; says of each, in the same order, whether it can be.
    pub(super) async fn watch(&mut self, items: &[Item<'_>]) -> Result<Vec<Status>, ChannelError> {
        let mut statuses = Vec::with_capacity(items.len());
        for part in items.chunks(NODES_AT_ONCE) {
            let request = message::create_items(&self.token, self.subscription, part);
            let created = message::items_created(&self.channel.call(&request).await?)?;
            expect(part.len(), created.len())?;
            statuses.extend(created);
        }
        Ok(statuses)
    }

    /// What has changed, by handle; nothing when nothing has for `wait`. May be dropped while it waits.
    pub(super) async fn changes(&mut self, wait: Duration) -> Result<Vec<(u32, Datum)>, ChannelError> {
        self.channel.keep_open().await?;
        while self.asked < self.publishes {
            let request = message::publish(&self.token, &self.told);
            self.channel.ask(&request).await?;
            self.told.clear();
            self.asked += 1;
        }
        let Ok(answer) = timeout(wait, self.channel.next()).await else {
            self.silent += wait;
            if self.silent > self.silent_max {
                let cause = format!("it has said nothing for {} s", self.silent.as_secs());
                return Err(ChannelError::Broken(cause));
            }
            return Ok(Vec::new());
        };
        let (_, answer) = answer?;
        self.silent = Duration::ZERO;
        self.asked = self.asked.saturating_sub(1);
        let publication = match message::published(&answer) {
            Err(ChannelError::Refused { status, .. })
                if status == Status::BAD_TOO_MANY_PUBLISH && self.publishes > 1 =>
            {
                self.publishes -= 1;
                return Ok(Vec::new());
            }
            published => published?,
        };
        if let Some(status) = publication.ended {
            return Err(ChannelError::Refused {
                what: "the subscription",
                status,
            });
        }
        if !publication.changes.is_empty() {
            self.told.push((publication.subscription, publication.sequence));
        }
        Ok(publication.changes)
    }

    /// Ends the session, politely if the server still listens.
    pub(super) async fn close(mut self) {
        let request = message::close_session(&self.token);
        let _ = timeout(Duration::from_secs(1), self.channel.call(&request)).await;
        self.channel.close().await;
    }
}

fn expect(wanted: usize, found: usize) -> Result<(), ChannelError> {
    if wanted == found {
        return Ok(());
    }
    Err(ChannelError::Broken(format!(
        "it gave {found} answers to {wanted} questions"
    )))
}

/// Bytes that differ from session to session. Nothing is kept secret with them.
fn nonce() -> Vec<u8> {
    let state = RandomState::new();
    (0..4_u8).flat_map(|part| state.hash_one(part).to_le_bytes()).collect()
}
