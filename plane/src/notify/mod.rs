//! Tells people of alerts: takes what is due from the store, hands it to its channel, and tries again with growing pauses.
//! Durable and bounded, see `store::alerts`. Knows nothing of rules.

pub(crate) mod client;
mod email;
mod road;
mod settings;
mod webhook;

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use bus_link::{essential, session::Session};
use bus_schema::{message::Text, subject};
use serde_json::Value;
pub use settings::AlertsSection;
pub(crate) use settings::{first_line, tls_of};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};
use tracing::{error, info, warn};

use crate::{
    clock::unix_ms,
    config::ConfigError,
    disk::{Closed, Disk},
    service::stopped,
    store::alerts::Delivery,
};

/// How long one attempt may take.
const ATTEMPT_MAX: Duration = Duration::from_secs(20);
/// How often is looked for what is due again.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Messages taken from the store at once.
const AT_ONCE: u32 = 16;
/// First pause after a failed attempt; each one is twice as long as the one before.
const PAUSE_MS: u64 = 2_000;
/// Longest pause.
const PAUSE_MS_MAX: u64 = 15 * 60_000;
/// After so many attempts, about a day, a message is given up.
const ATTEMPTS_MAX: u32 = 100;

/// Why an attempt failed. Whether it makes sense to try again is known where it fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotifyError {
    /// Perhaps later.
    #[error("{0}")]
    Later(String),
    /// The other side has said no to this very message.
    #[error("{0}")]
    Never(String),
}

/// Where messages go.
enum Channel {
    Webhook(webhook::Webhook),
    Email(Box<email::Email>),
    Bus { topic: String, plain: bool },
}

/// All channels, by name.
pub struct Channels {
    all: BTreeMap<String, Channel>,
}

impl std::fmt::Debug for Channels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.all.keys()).finish()
    }
}

impl Channels {
    /// From the settings; reads the files that they name.
    pub fn new(section: &AlertsSection, dir: &Path) -> Result<Self, ConfigError> {
        let mut all = BTreeMap::new();
        for one in &section.webhook {
            all.insert(one.name.clone(), Channel::Webhook(webhook::Webhook::new(one, dir)?));
        }
        for one in &section.email {
            all.insert(one.name.clone(), Channel::Email(Box::new(email::Email::new(one, dir)?)));
        }
        for one in &section.bus {
            let (topic, plain) = (one.topic.clone(), one.plain);
            all.insert(one.name.clone(), Channel::Bus { topic, plain });
        }
        Ok(Self { all })
    }

    /// Their names.
    pub fn names(&self) -> Vec<String> {
        self.all.keys().cloned().collect()
    }

    async fn send(&self, session: &Session, delivery: &Delivery) -> Result<(), NotifyError> {
        let key = format!("{}-{}", session.secure().fleet(), delivery.id);
        match self.all.get(&delivery.channel) {
            None => Err(NotifyError::Never("plane.toml does not name it any more".to_string())),
            Some(Channel::Webhook(webhook)) => webhook.send(&delivery.body, &key).await,
            Some(Channel::Email(email)) => email.send(&delivery.body, &key).await,
            Some(Channel::Bus { topic, plain: true }) => {
                let me = session.secure();
                let subject = subject::app(me.fleet(), me.node(), topic);
                let subject = subject.map_err(|cause| NotifyError::Never(cause.to_string()))?;
                let sent = session
                    .bus()
                    .publish(&subject, in_the_clear(&delivery.body).into_bytes());
                sent.await.map_err(|cause| NotifyError::Later(cause.to_string()))
            }
            Some(Channel::Bus { topic, plain: false }) => {
                let bytes = delivery.body.clone().into_bytes();
                let sent = session.publish_app(topic, &Text { bytes }).await;
                sent.map_err(|cause| NotifyError::Later(cause.to_string()))
            }
        }
    }
}

/// A notice without what people wrote for each other.
fn in_the_clear(body: &str) -> String {
    let mut notice: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    if let Some(fields) = notice.as_object_mut() {
        fields.remove("silence_reason");
    }
    notice.to_string()
}

/// How long to wait after so many failed attempts, in milliseconds.
fn pause_ms(attempts: u32) -> u64 {
    PAUSE_MS.saturating_mul(1 << attempts.min(20)).min(PAUSE_MS_MAX)
}

/// Delivers until `stop` turns true. `wake` is told when there is something new.
pub fn start(
    channels: Arc<Channels>,
    session: Arc<Session>,
    disk: Disk,
    wake: Arc<Notify>,
    mut stop: watch::Receiver<bool>,
) -> tokio::task::JoinHandle<()> {
    essential::spawn("notify", async move {
        loop {
            tokio::select! {
                () = stopped(&mut stop) => return,
                () = wake.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY), if !channels.all.is_empty() => {}
            }
            tokio::select! {
                () = stopped(&mut stop) => return,
                done = deliver(&channels, &session, &disk) => if done.is_err() { return },
            }
        }
    })
}

async fn deliver(channels: &Channels, session: &Session, disk: &Disk) -> Result<(), Closed> {
    let now = unix_ms();
    let due = match disk.run(move |files| files.store.deliveries_due(now, AT_ONCE)).await? {
        Ok(due) => due,
        Err(cause) => {
            error!(%cause, "cannot look up what is to be delivered");
            return Ok(());
        }
    };
    for delivery in due {
        let late = || NotifyError::Later(format!("no answer within {} s", ATTEMPT_MAX.as_secs()));
        let sent = timeout(ATTEMPT_MAX, channels.send(session, &delivery)).await;
        let (id, attempts) = (delivery.id, delivery.attempts + 1);
        let kept = match sent.unwrap_or_else(|_| Err(late())) {
            Ok(()) => {
                info!(channel = delivery.channel, "told of an alert");
                disk.run(move |files| files.store.delivered(id)).await?
            }
            Err(NotifyError::Later(cause)) if attempts < ATTEMPTS_MAX => {
                warn!(
                    channel = delivery.channel,
                    attempts, cause, "cannot tell of an alert; trying again"
                );
                let due = unix_ms().saturating_add_unsigned(pause_ms(delivery.attempts));
                disk.run(move |files| files.store.postpone(id, due)).await?
            }
            Err(NotifyError::Later(cause) | NotifyError::Never(cause)) => {
                error!(
                    channel = delivery.channel,
                    attempts, cause, "gave up telling of an alert"
                );
                disk.run(move |files| files.store.delivered(id)).await?
            }
        };
        if let Err(cause) = kept {
            error!(%cause, "cannot keep what was delivered; it may be told twice");
        }
    }
    Ok(())
}

/// A message's line for people, out of its JSON.
fn subject_of(body: &Value) -> String {
    let text = |key: &str| body[key].as_str().unwrap_or_default();
    format!("[{}] {}: {}", text("severity"), text("state"), text("summary"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_wrote_is_not_told_in_the_clear() {
        let told = in_the_clear(r#"{"rule":"lag","silence_reason":"the key is under the mat"}"#);
        assert_eq!(told, r#"{"rule":"lag"}"#);
    }

    #[test]
    fn pauses_grow_and_end() {
        let pauses: Vec<u64> = (0..12).map(pause_ms).collect();
        assert_eq!(pauses[..4], [2_000, 4_000, 8_000, 16_000]);
        assert_eq!((pauses[11], pause_ms(u32::MAX)), (PAUSE_MS_MAX, PAUSE_MS_MAX));
        let day: u64 = (0..ATTEMPTS_MAX).map(pause_ms).sum();
        assert!((20..30).contains(&(day / 3_600_000)), "{day}");
    }
}
