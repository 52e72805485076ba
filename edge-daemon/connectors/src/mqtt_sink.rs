//! Destination `mqtt`: one message per record. With QoS 1 a commit waits for the broker's acknowledgement of each. A message
//! that the broker will not take goes to the dead letters, and the others go on.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bus_schema::{
    data::Batch,
    plan::{ComponentRole, Descriptor},
};
use flow::{
    Build, BuildContext, Component, ConfigError, Delivery, Fault, Rejected, Sink, Trouble, describe, parse_config,
};
use rumqttc::{AsyncClient, Event, EventLoop, Outgoing, Packet, QoS};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};

use crate::{
    mqtt::{Broker, Connected, Manner, PACKET_BYTES_MAX, Settings, Task, Urls, explain, is_closed},
    mqtt_trial::{self, Limit, Trials},
    publish::{Format, Payload, Payloads, Template},
    secret::SecretRef,
    tls::TlsFiles,
};

/// Messages on the way to the broker and not acknowledged.
const INFLIGHT_MAX: u16 = 100;
/// Messages waiting for the connection.
const REQUESTS_MAX: usize = 32;
/// How long the broker may take to acknowledge anything while something is missing.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// How long a polite goodbye may take.
const CLOSE_WAIT: Duration = Duration::from_secs(1);
/// Quiet that a new connection has to survive before a message is blamed for its end.
const CALM: Duration = Duration::from_secs(1);
/// How long a broker's limit is believed that was found by trying.
const LIMIT_KEPT: Duration = Duration::from_secs(600);
/// Bytes that a packet takes besides topic and payload, at most.
const HEAD_BYTES: usize = 16;
/// Least value of `packet_bytes_max`.
const PACKET_BYTES_MIN: usize = 128;

/// Publishes each record as a message (MQTT 3.1.1). With QoS 1 records count as delivered when the broker has acknowledged
/// them, and after a crash or a lost connection those of the last commit (up to about 16,000) may be published again: at
/// least once. With QoS 0 they count when they are handed to the network: at most the broker's word is missing. Note
/// that brokers acknowledge messages that nobody is subscribed to, or that their access list forbids.
///
/// A message at which the broker closes the connection again and again goes to the dead letters.
///
/// mosquitto sends its acknowledgements faster with `set_tcp_nodelay true` in its settings: without, the last ones of each
/// commit come 40 ms late.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Address of the broker, `mqtt://host:1883` or `mqtts://host:8883`; or a list, tried in turn.
    url: Urls,
    /// Topic to publish to. `{column}` stands for the record's value: `plant/{line}/temperature`. A record without that
    /// value goes to the dead letters.
    topic: String,
    /// Quality of service: 0 or 1.
    #[serde(default = "one")]
    qos: u8,
    /// Whether the broker keeps the last message of each topic for new subscribers.
    #[serde(default)]
    retain: bool,
    /// What a payload is.
    #[serde(default)]
    format: Format,
    /// For `raw`: the column whose text or bytes are the payload.
    payload_column: Option<String>,
    /// For JSON: adds a field of this name that says what each record does: insert, update, delete or upsert. Without it,
    /// deletions go to the dead letters.
    op_column: Option<String>,
    /// Name of this client at the broker. Must be unique there. By default made of the names of daemon, workflow and node.
    client_id: Option<String>,
    /// User name.
    user: Option<String>,
    /// Password.
    password: Option<SecretRef>,
    /// Certificates, for `mqtts`.
    tls: Option<TlsFiles>,
    /// The largest packet the broker takes, in bytes. Larger messages go to the dead letters at once. Set it where the
    /// broker has a limit (mosquitto: `max_packet_size`, `message_size_limit`): some only close the connection, which
    /// takes a while to understand, and some acknowledge a message that is too large and drop it.
    packet_bytes_max: Option<usize>,
}

fn one() -> u8 {
    1
}

/// The registry line.
pub(crate) const SINK: Component = Component {
    descriptor,
    build: Build::Sink(build),
};

const EXAMPLE: &str = r#"name = "publish"

[sources.readings]
type = "file"
path = "readings.jsonl"
format = "json_lines"

[destinations.plant]
type = "mqtt"
from = "readings"
url = "mqtt://broker:1883"
topic = "plant/{line}/temperature"
"#;

fn descriptor() -> Descriptor {
    describe::<Config>(
        ComponentRole::Destination,
        "mqtt",
        "Publishes records to MQTT topics",
        EXAMPLE,
    )
}

fn build(config: &str, context: &BuildContext) -> Result<Box<dyn Sink>, ConfigError> {
    let config: Config = parse_config(config)?;
    let qos = match config.qos {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => return Err(ConfigError::at("qos", "is 0 or 1")),
    };
    let payload = Payload::new(config.format, config.payload_column, config.op_column)?;
    let topic = Template::parse(&config.topic).map_err(|cause| ConfigError::at("topic", cause))?;
    let packet_bytes_max = config.packet_bytes_max.unwrap_or(PACKET_BYTES_MAX);
    if !(PACKET_BYTES_MIN..=PACKET_BYTES_MAX).contains(&packet_bytes_max) {
        let cause = format!("is {packet_bytes_max}, and may be {PACKET_BYTES_MIN} to {PACKET_BYTES_MAX}");
        return Err(ConfigError::at("packet_bytes_max", cause));
    }
    let Config {
        url,
        client_id,
        user,
        password,
        tls,
        ..
    } = config;
    let broker = Broker::new(
        Settings {
            url,
            client_id,
            user,
            password,
            tls,
        },
        context,
    )?;
    Ok(Box::new(MqttSink {
        broker,
        topic,
        qos,
        retain: config.retain,
        payload,
        packet_bytes_max,
        session: None,
        trials: Trials::new(),
        limit: Limit::default(),
        limit_until: None,
    }))
}

/// What the connection and the sink tell each other.
#[derive(Default)]
struct Progress {
    /// Messages the broker has acknowledged (QoS 1) or the network has taken (QoS 0).
    done: AtomicU64,
    /// Why the connection ended, and whether the broker closed it.
    broken: Mutex<Option<(String, bool)>>,
    changed: Notify,
}

impl Progress {
    fn cause(&self) -> Option<(String, bool)> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Session {
    client: AsyncClient,
    progress: Arc<Progress>,
    poller: Task,
    /// Messages handed to the client.
    published: u64,
    /// Of these, the ones the broker is known to have taken.
    taken: u64,
}

struct MqttSink {
    broker: Broker,
    topic: Template,
    qos: QoS,
    retain: bool,
    payload: Payload,
    packet_bytes_max: usize,
    session: Option<Session>,
    trials: Trials,
    /// What was found out about the broker, and until when it is believed.
    limit: Limit,
    limit_until: Option<Instant>,
}

#[async_trait]
impl Sink for MqttSink {
    async fn open(&mut self) -> Result<(), Fault> {
        self.forget_session();
        // Nothing is left to the broker's memory of us: after a break everything that was not committed comes again.
        let manner = Manner {
            clean_session: true,
            manual_acks: false,
            inflight: INFLIGHT_MAX,
            requests: REQUESTS_MAX,
        };
        let Connected { client, events, .. } = self.broker.connect(&manner).await?;
        let progress = Arc::new(Progress::default());
        let poller = Task(tokio::spawn(poll(events, Arc::clone(&progress), self.qos)));
        self.session = Some(Session {
            client,
            progress,
            poller,
            published: 0,
            taken: 0,
        });
        Ok(())
    }

    async fn write(&mut self, deliveries: &[Delivery]) -> Result<Vec<Rejected>, Fault> {
        let mut rejected = Vec::new();
        self.trials.turn_to(deliveries);
        if self.limit_until.is_some_and(|until| Instant::now() > until) {
            (self.limit, self.limit_until) = (Limit::default(), None);
        }
        self.calm().await?;
        let mut number = 0;
        for (index, delivery) in deliveries.iter().enumerate() {
            let batch = &delivery.batch;
            // Not kept across a pause: it borrows the batch.
            let messages: Vec<_> = {
                let payloads = self.payload.of(batch);
                let rows = 0..batch.rows();
                rows.map(|row| self.message(batch, row, &payloads)).collect()
            };
            for (row, message) in messages.into_iter().enumerate() {
                let message = message.and_then(|message| self.allowed(number, message));
                let refused = match message {
                    Ok(message) => self.publish(number, message).await?,
                    Err(reason) => Some(reason),
                };
                rejected.extend(refused.map(|reason| Rejected {
                    delivery: index,
                    row,
                    reason,
                }));
                number += 1;
            }
        }
        Ok(rejected)
    }

    async fn commit(&mut self) -> Result<(), Fault> {
        self.all_taken().await?;
        self.trials.done();
        Ok(())
    }

    async fn check(&mut self) -> Result<String, Trouble> {
        drop(self.broker.check().await?);
        Ok(format!(
            "{} lets us in; whether the topics may be written shows with the first message",
            self.broker.place()
        ))
    }

    async fn close(&mut self) {
        let Some(mut session) = self.forget_session() else {
            return;
        };
        if session.client.try_disconnect().is_ok() {
            let _ = timeout(CLOSE_WAIT, &mut session.poller.0).await;
        }
    }
}

impl MqttSink {
    /// Topic and payload of a row, or why there is no message.
    fn message(&self, batch: &Batch, row: usize, payloads: &Payloads<'_>) -> Result<(String, Vec<u8>), String> {
        let topic = self.topic.fill(batch, row)?;
        let payload = payloads.row(row)?;
        // Topic length, packet id and header take a few bytes more.
        if payload.len() + topic.len() + HEAD_BYTES > self.packet_bytes_max {
            return Err(format!(
                "the message would have {} bytes; packets have at most {} (packet_bytes_max)",
                payload.len(),
                self.packet_bytes_max
            ));
        }
        Ok((topic, payload))
    }

    /// Whether a message may be sent, by what was found out about the broker.
    fn allowed(&self, number: u64, message: (String, Vec<u8>)) -> Result<(String, Vec<u8>), String> {
        let bytes = message.1.len();
        if self.trials.now.has(number) {
            Ok(message)
        } else if self.trials.now.refuses(number) {
            Err(mqtt_trial::reason(bytes))
        } else if self.limit.forbids(bytes) {
            Err(mqtt_trial::too_large(bytes))
        } else {
            Ok(message)
        }
    }

    /// Before a message is blamed once more: a connection that ends by itself, with nothing on its way, is not its fault.
    async fn calm(&mut self) -> Result<(), Fault> {
        let Some(session) = self.session.as_ref().filter(|session| session.published == 0) else {
            return Ok(());
        };
        if !self.trials.now.has_suspect() {
            return Ok(());
        }
        sleep(CALM).await;
        if session.progress.cause().is_some() {
            self.trials.now.acquit();
            return Err(self.broken("it ended by itself"));
        }
        Ok(())
    }

    /// Sends a message. One that may be at fault is sent alone, and over a new connection when that is closed. Returns why
    /// it was given up, if it was.
    async fn publish(&mut self, number: u64, (topic, payload): (String, Vec<u8>)) -> Result<Option<String>, Fault> {
        if self.trials.now.has(number) {
            return Ok(None);
        }
        if !self.trials.now.is_careful(number) {
            return self.send(number, topic, payload).await.map(|()| None);
        }
        self.all_taken().await?;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let sent = self.send(number, topic.clone(), payload.clone()).await;
            let sent = if sent.is_ok() { self.all_taken().await } else { sent };
            match sent {
                Ok(()) => return Ok(None),
                Err(fault) if attempts >= mqtt_trial::BREAKS_MAX && !self.trials.now.refuses(number) => {
                    return Err(fault);
                }
                Err(_) => self.open().await?,
            }
            if self.trials.now.refuses(number) {
                return Ok(Some(mqtt_trial::reason(payload.len())));
            }
            self.calm().await?;
        }
    }

    /// Hands a message to the connection, waiting for room.
    async fn send(&mut self, number: u64, topic: String, payload: Vec<u8>) -> Result<(), Fault> {
        let Some(session) = &mut self.session else {
            return Err(Fault::retry("the MQTT destination is not open"));
        };
        let bytes = payload.len();
        let sending = session.client.publish(topic, self.qos, self.retain, payload);
        let sent = timeout(ACK_WAIT, sending).await;
        if !matches!(sent, Ok(Ok(()))) {
            self.note_taken();
            return Err(self.broken("it takes no more messages"));
        }
        session.published += 1;
        self.trials.now.sent(number, bytes);
        self.note_taken();
        Ok(())
    }

    /// Waits until the broker has taken everything that was handed to the client.
    async fn all_taken(&mut self) -> Result<(), Fault> {
        loop {
            let Some(session) = &self.session else {
                return Err(Fault::retry("the MQTT destination is not open"));
            };
            let progress = Arc::clone(&session.progress);
            let changed = progress.changed.notified();
            // Looked for first: what was taken before the end counts.
            let is_broken = progress.cause().is_some();
            let missing = self.note_taken();
            if missing == 0 {
                return Ok(());
            }
            if is_broken {
                return Err(self.broken("it ended"));
            }
            if timeout(ACK_WAIT, changed).await.is_err() {
                self.trials.now.broke(false, &mut self.limit);
                self.broker.next_address();
                let waited = ACK_WAIT.as_secs();
                return Err(Fault::retry(format!(
                    "the MQTT broker has not acknowledged {missing} messages for {waited} s"
                )));
            }
        }
    }

    /// What was on the way is sent again over the next connection.
    fn forget_session(&mut self) -> Option<Session> {
        self.note_taken();
        self.trials.now.broke(false, &mut self.limit);
        self.session.take()
    }

    /// Brings the trial up to what the broker has taken. Returns how many messages are missing.
    fn note_taken(&mut self) -> u64 {
        let Some(session) = &mut self.session else { return 0 };
        let done = session.progress.done.load(Ordering::Acquire).min(session.published);
        while session.taken < done {
            session.taken += 1;
            self.trials.now.taken(&mut self.limit);
        }
        session.published - done
    }

    /// The connection is over.
    fn broken(&mut self, otherwise: &str) -> Fault {
        self.broker.next_address();
        let cause = self.session.as_ref().and_then(|session| session.progress.cause());
        let (cause, is_closed) = cause.unwrap_or_else(|| (otherwise.to_string(), false));
        let before = self.limit;
        self.trials.now.broke(is_closed, &mut self.limit);
        if self.limit != before {
            self.limit_until = Some(Instant::now() + LIMIT_KEPT);
        }
        Fault::retry(format!("the connection to the MQTT broker broke: {cause}"))
    }
}

/// Keeps the connection going and counts what is done. Ends with the connection.
async fn poll(mut events: EventLoop, progress: Arc<Progress>, qos: QoS) {
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::PubAck(_))) if qos == QoS::AtLeastOnce => {
                progress.done.fetch_add(1, Ordering::Release);
            }
            Ok(Event::Outgoing(Outgoing::Publish(_))) if qos == QoS::AtMostOnce => {
                progress.done.fetch_add(1, Ordering::Release);
            }
            Ok(_) => continue,
            Err(error) => {
                *progress.broken.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some((explain(&error), is_closed(&error)));
                progress.changed.notify_waiters();
                return;
            }
        }
        progress.changed.notify_waiters();
    }
}
