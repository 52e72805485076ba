//! One connection to a NATS server, on async-nats. A fresh client for every attempt: async-nats would reconnect by itself
//! for ever, without saying why it had to, and would send what was queued for the old connection.
//!
//! async-nats always reads, so there is no back-pressure: what comes too fast is dropped, here or in its own bounded
//! channels, and counted. It also has no round trip to confirm a subscription with: a subscription counts as taken once
//! it has been written to the socket, and the server handles everything written later after it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use async_nats::{Client, ConnectOptions, ServerError, Statistics, Subscriber};
use async_trait::async_trait;
use bus_schema::subject::{Dialect, Pattern, Subject};
use futures_util::StreamExt;
use rustls::ClientConfig;
use tokio::{
    sync::{Notify, mpsc},
    time::{MissedTickBehavior, interval},
};
use tracing::warn;

use super::{
    Background, BusConfig, Credentials, Fate, Link, Lost, PING, SEND_BYTES_MAX, SILENCE_MAX, cause::Peer, creds,
    inbox::Inbox,
};

/// Messages under way to the server. async-nats holds as many again in its write buffer, and knows no bytes: with the
/// largest frames that is what MQTT's window allows.
const SEND_COUNT_MAX: usize = SEND_BYTES_MAX / (2 * bus_schema::limits::PAYLOAD_BYTES_MAX);
/// How long one host's address may take to answer; a name may have several.
const CONNECT_MAX: Duration = Duration::from_secs(8);
/// What is read at once, in bytes: small, so that a burst is handed on before the next one is read.
const READ_BYTES: u16 = 16 * 1024;
/// Between two looks whether the server still says anything.
const LOOK: Duration = Duration::from_secs(2);
/// What the server says between two turns of the watching task.
const SAYINGS_MAX: usize = 16;

#[derive(Debug)]
pub(super) struct NatsLink {
    client: Client,
    inbox: Inbox,
    subscriptions: Mutex<BTreeMap<Pattern, Background>>,
    _watch: Background,
}

/// Returns when the server has accepted the connection.
pub(super) async fn connect(
    config: &BusConfig,
    tls: Option<Arc<ClientConfig>>,
    peer: Peer,
    inbox: Inbox,
    fate: Fate,
) -> Result<NatsLink, String> {
    let (said, saying) = mpsc::channel(SAYINGS_MAX);
    let (ended, tally) = (Arc::new(Notify::new()), inbox.tally());
    let end = Arc::clone(&ended);
    let mut options = match &config.credentials {
        Credentials::None => ConnectOptions::new(),
        Credentials::UserPassword { user, password } => {
            ConnectOptions::with_user_and_password(user.clone(), password.expose().to_owned())
        }
        Credentials::NatsCreds(text) => creds::options(text.expose())?,
    };
    if let Some(tls) = tls {
        options = options.tls_client_config(ClientConfig::clone(&tls));
    }
    let client = options
        .require_tls(peer.address.tls())
        .name(config.client())
        .connection_timeout(CONNECT_MAX)
        .ping_interval(PING)
        .client_capacity(SEND_COUNT_MAX)
        .subscription_capacity(config.burst)
        .read_buffer_capacity(READ_BYTES)
        // One is the least: once this connection is lost it tries once more, finds this client gone, and ends.
        .max_reconnects(1)
        .ignore_discovered_servers()
        .event_callback(move |event| {
            match event {
                async_nats::Event::SlowConsumer(_) => tally.count_dropped(),
                async_nats::Event::Disconnected | async_nats::Event::Closed => end.notify_one(),
                async_nats::Event::ServerError(error) => {
                    // When the server has a lot to say, the rest of it is not news.
                    let _ = said.try_send(error);
                }
                _ => {}
            }
            std::future::ready(())
        })
        .connect(url(&peer))
        .await
        .map_err(|error| peer.nats(&error))?;
    let watch = watch(client.statistics(), peer, ended, saying);
    let watch = Background::spawn(async move {
        let _ = fate.set(watch.await);
    });
    Ok(NatsLink {
        client,
        inbox,
        subscriptions: Mutex::default(),
        _watch: watch,
    })
}

fn url(peer: &Peer) -> String {
    let (scheme, port) = (if peer.address.tls() { "tls" } else { "nats" }, peer.address.port());
    match peer.address.host() {
        host if host.contains(':') => format!("{scheme}://[{host}]:{port}"),
        host => format!("{scheme}://{host}:{port}"),
    }
}

/// Watches until the connection ends; returns why it did.
async fn watch(
    statistics: Arc<Statistics>,
    peer: Peer,
    ended: Arc<Notify>,
    mut saying: mpsc::Receiver<ServerError>,
) -> String {
    let bytes_read = || statistics.in_bytes.load(Ordering::Relaxed);
    let mut look = interval(LOOK);
    // Time during which this process itself was stopped must not count as the server's silence.
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut read, mut silence, mut last_words) = (bytes_read(), Duration::ZERO, None);
    loop {
        tokio::select! {
            biased;
            Some(error) = saying.recv() => match refusal(&error) {
                Some(Refusal::Subscription(what)) => return peer.subscription_refused(&what),
                Some(Refusal::Publication(subject)) => {
                    warn!(address = %peer.address, subject, "the broker refuses messages: its access list must allow them");
                }
                None => last_words = Some(error.to_string()),
            },
            () = ended.notified() => break,
            _ = look.tick() => {
                let before = std::mem::replace(&mut read, bytes_read());
                silence = if read == before { silence + LOOK } else { Duration::ZERO };
                if silence >= SILENCE_MAX {
                    return peer.silent();
                }
                // The news of an end can be lost in a flood of other news; a second connection cannot be missed.
                if statistics.connects.load(Ordering::Relaxed) > 1 {
                    break;
                }
            }
        }
    }
    match last_words {
        Some(said) => format!("{}: {said}", peer.hung_up()),
        None => peer.hung_up(),
    }
}

enum Refusal {
    Subscription(String),
    Publication(String),
}

/// What nats-server says when an access list forbids something: `Permissions Violation for Subscription to "a.b"`.
fn refusal(error: &ServerError) -> Option<Refusal> {
    let ServerError::Other(text) = error else { return None };
    // Case differs between versions; the length stays the same, subjects are ASCII.
    let lower = text.to_ascii_lowercase();
    let after = |start: &str| {
        lower
            .strip_prefix(start)
            .map(|rest| text[text.len() - rest.len()..].to_owned())
    };
    after("permissions violation for subscription to ")
        .map(Refusal::Subscription)
        .or_else(|| after("permissions violation for publish to ").map(Refusal::Publication))
}

async fn forward(mut subscriber: Subscriber, inbox: Inbox) {
    while let Some(message) = subscriber.next().await {
        inbox.offer(&message.subject, Dialect::Nats, &message.payload, None);
    }
}

#[async_trait]
impl Link for NatsLink {
    async fn subscribe(&self, patterns: &[Pattern]) -> Result<(), Lost> {
        for pattern in patterns {
            let subscriber = self
                .client
                .subscribe(pattern.render(Dialect::Nats))
                .await
                .map_err(|_| Lost)?;
            let task = Background::spawn(forward(subscriber, self.inbox.clone()));
            self.subscriptions
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(pattern.clone(), task);
        }
        self.client.flush().await.map_err(|_| Lost)
    }

    async fn unsubscribe(&self, patterns: &[Pattern]) -> Result<(), Lost> {
        for pattern in patterns {
            // Its end drops the subscriber, and that unsubscribes.
            self.subscriptions
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(pattern);
        }
        tokio::task::yield_now().await;
        self.client.flush().await.map_err(|_| Lost)
    }

    async fn publish(&self, subject: &Subject, payload: Vec<u8>) -> Result<(), Lost> {
        self.client
            .publish(subject.render(Dialect::Nats), payload.into())
            .await
            .map_err(|_| Lost)
    }

    async fn close(&self) {
        let _ = self.client.flush().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart() {
        let read = |text: &str| match refusal(&ServerError::Other(text.to_owned())) {
            Some(Refusal::Subscription(what)) => format!("subscribe {what}"),
            Some(Refusal::Publication(what)) => format!("publish {what}"),
            None => "-".to_owned(),
        };
        for (text, expected) in [
            ("Permissions Violation for Subscription to \"a.B\"", "subscribe \"a.B\""),
            ("permissions violation for publish to \"a.b\"", "publish \"a.b\""),
            ("Stale Connection", "-"),
            ("", "-"),
        ] {
            assert_eq!(read(text), expected);
        }
    }
}
