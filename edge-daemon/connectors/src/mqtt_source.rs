//! Source `mqtt`: the messages of a broker's topics. A message is acknowledged to the broker when it is durable where it
//! goes, never earlier.

use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use bus_schema::{
    data::Value,
    limits::RECORD_BYTES_MAX,
    plan::{ComponentRole, Descriptor},
};
use flow::{
    Build, BuildContext, Component, ConfigError, Fault, Position, READ_WAIT_MAX, Read, Source, SourceBatch,
    Undecodable, describe, parse_config,
};
use rumqttc::{AsyncClient, Event, EventLoop, Packet, Publish, QoS, SubscribeFilter, SubscribeReasonCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, timeout, timeout_at},
};

use crate::{
    file::{
        json,
        reader::cut,
        rows::{self, RowError, Rows, Shape, Token},
        source::types,
    },
    mqtt::{Broker, CONNECT_WAIT_S, Connected, Manner, Settings, Task, Urls, explain},
    secret::SecretRef,
    tls::TlsFiles,
};

/// Bytes of messages held between the connection and the reader. While they are full nothing is read from the broker.
const BUFFER_BYTES_MAX: usize = 1024 * 1024;
/// Messages held there.
const BUFFER_MESSAGES_MAX: usize = 1024;
/// Bytes a message takes besides topic and payload.
const MESSAGE_BYTES: usize = 128;
/// How long the first message of a batch waits for others at most, while earlier ones are on their way.
const GATHER: Duration = Duration::from_millis(10);
/// How long each of them waits for the next: a broker that gives no more before it is acknowledged is not waited for.
const GATHER_NEXT: Duration = Duration::from_millis(1);
/// How long a polite goodbye may take.
const CLOSE_WAIT: Duration = Duration::from_secs(1);
/// More than packet ids there are, so that every message can be acknowledged without waiting. Room is made when needed.
const REQUESTS_MAX: usize = 70_000;

/// Reads the messages of a broker's topics (MQTT 3.1.1). With QoS 1 each is acknowledged to the broker only when it is
/// durable where it goes: after a crash, messages that were not acknowledged yet come again (at least once), and what is
/// sent while the daemon is away waits at the broker. With QoS 0 the broker keeps nothing: what is sent during an
/// interruption is lost. Brokers hand out a limited number of messages before they want acknowledgements (mosquitto:
/// `max_inflight_messages`, 20 by default): raise it for high rates.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Address of the broker, `mqtt://host:1883` or `mqtts://host:8883`; or a list, tried in turn.
    url: Urls,
    /// Topics to subscribe to; `+` stands for one level, `#` at the end for all deeper ones.
    topics: Vec<String>,
    /// Quality of service: 0 or 1.
    #[serde(default = "one")]
    qos: u8,
    /// What a payload is.
    #[serde(default)]
    format: Format,
    /// For JSON: field = type, as in the source `file`.
    #[serde(default)]
    types: BTreeMap<String, String>,
    /// Whether to take retained messages, which the broker sends again at a new subscription.
    #[serde(default = "yes")]
    retained: bool,
    /// Name of this client at the broker. Must be unique there, and stay the same. By default made of the names of daemon,
    /// workflow and node.
    client_id: Option<String>,
    /// User name.
    user: Option<String>,
    /// Password.
    password: Option<SecretRef>,
    /// Certificates, for `mqtts`.
    tls: Option<TlsFiles>,
}

fn one() -> u8 {
    1
}

fn yes() -> bool {
    true
}

/// What a payload is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Format {
    /// A JSON object: its fields become columns, beside `_topic`, `_received_at`, `_qos` and `_retained`.
    #[default]
    Json,
    /// UTF-8 text: columns `topic`, `payload`, `received_at`, `qos` and `retained`.
    Text,
    /// Any bytes: the same columns.
    Bytes,
}

/// The registry line.
pub(crate) const SOURCE: Component = Component {
    descriptor,
    build: Build::Source(build),
};

const EXAMPLE: &str = r#"name = "temperatures"

[sources.plant]
type = "mqtt"
url = "mqtt://broker:1883"
topics = ["plant/+/temperature"]

[destinations.out]
type = "stdout"
from = "plant"
"#;

fn descriptor() -> Descriptor {
    let mut descriptor = describe::<Config>(
        ComponentRole::Source,
        "mqtt",
        "Reads the messages of MQTT topics",
        EXAMPLE,
    );
    descriptor.durable = true;
    descriptor
}

fn build(config: &str, context: &BuildContext) -> Result<Box<dyn Source>, ConfigError> {
    let config: Config = parse_config(config)?;
    let qos = match config.qos {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => return Err(ConfigError::at("qos", "is 0 or 1")),
    };
    if config.topics.is_empty() {
        return Err(ConfigError::at("topics", "name at least one topic"));
    }
    for (at, topic) in config.topics.iter().enumerate() {
        check_filter(topic).map_err(|cause| ConfigError::at(format!("topics[{at}]"), cause))?;
    }
    if config.format != Format::Json && !config.types.is_empty() {
        return Err(ConfigError::at("types", "only for format = \"json\""));
    }
    let Config {
        url,
        client_id,
        user,
        password,
        tls,
        ..
    } = config;
    Ok(Box::new(MqttSource {
        broker: Broker::new(
            Settings {
                url,
                client_id,
                user,
                password,
                tls,
            },
            context,
        )?,
        topics_hash: crate::file::hash(config.topics.join("\n").as_bytes()),
        topics: config.topics,
        qos,
        format: config.format,
        retained: config.retained,
        shape: Shape::new(types(&config.types)?),
        session: None,
    }))
}

fn check_filter(filter: &str) -> Result<(), String> {
    let levels: Vec<&str> = filter.split('/').collect();
    let last = levels.len() - 1;
    let is_wrong = |(at, level): (usize, &&str)| {
        level.contains('+') && *level != "+" || level.contains('#') && (*level != "#" || at < last)
    };
    if filter.is_empty() || filter.len() > 65_535 || filter.contains('\0') {
        return Err("is not a topic".to_string());
    }
    if levels.iter().enumerate().any(is_wrong) {
        return Err(format!(
            "'{filter}': + stands for a whole level, # for all levels at the end"
        ));
    }
    Ok(())
}

/// Whether a topic belongs to a filter (MQTT 3.1.1, section 4.7).
fn matches(topic: &str, filter: &str) -> bool {
    // `$share/group/filter` shares the messages of the filter among a group.
    let filter = filter
        .strip_prefix("$share/")
        .and_then(|rest| rest.split_once('/'))
        .map_or(filter, |(_, filter)| filter);
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        match (wanted, levels.next()) {
            ("#", _) => return true,
            (_, None) => return false,
            ("+", Some(_)) => {}
            (wanted, Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

/// The source's bookmark: which messages of which connection. Means nothing to a later connection, except that the broker
/// knows the subscription.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Bookmark {
    v: u8,
    connection: u64,
    messages: u64,
    topics: u64,
}

/// A message on its way to the reader.
struct Message {
    publish: Publish,
    received_ns: i128,
    _room: Option<OwnedSemaphorePermit>,
}

struct Session {
    connection: u64,
    client: AsyncClient,
    inbox: mpsc::Receiver<Result<Message, String>>,
    /// Taken from the inbox and not read yet; or came with the answer to the subscription.
    early: VecDeque<Result<Message, String>>,
    room: Arc<Semaphore>,
    poller: Task,
    /// Messages read so far.
    messages: u64,
    /// Read and not acknowledged: number and packet id.
    unacknowledged: VecDeque<(u64, u16)>,
}

struct MqttSource {
    broker: Broker,
    topics: Vec<String>,
    topics_hash: u64,
    qos: QoS,
    format: Format,
    retained: bool,
    shape: Shape,
    session: Option<Session>,
}

#[async_trait]
impl Source for MqttSource {
    async fn open(&mut self, after: Option<&Position>) -> Result<(), Fault> {
        self.session = None;
        let known = after.and_then(|position| serde_json::from_slice::<Bookmark>(position.as_bytes()).ok());
        let manner = Manner {
            // A session without QoS 1 would only collect subscriptions.
            clean_session: self.qos == QoS::AtMostOnce,
            manual_acks: true,
            inflight: 16,
            requests: REQUESTS_MAX,
        };
        let Connected {
            client,
            mut events,
            session_present,
        } = self.broker.connect(&manner).await?;
        let mut early = VecDeque::new();
        // The broker keeps the subscriptions of a session. Subscribing again would bring all retained messages again.
        if !(session_present && known.is_some_and(|known| known.topics == self.topics_hash)) {
            let subscribing = self.subscribe(&client, &mut events, &mut early);
            let subscribed = timeout(Duration::from_secs(CONNECT_WAIT_S), Box::pin(subscribing)).await;
            let subscribed =
                subscribed.unwrap_or_else(|_| Err(Fault::retry("the broker does not answer to the subscription")));
            if let Err(fault) = subscribed {
                self.broker.next_address();
                return Err(fault);
            }
        }
        let (sender, inbox) = mpsc::channel(BUFFER_MESSAGES_MAX);
        let room = Arc::new(Semaphore::new(BUFFER_BYTES_MAX));
        let poller = Task(tokio::spawn(poll(events, sender, Arc::clone(&room))));
        let connection = RandomState::new().hash_one(SystemTime::now());
        let unacknowledged = VecDeque::new();
        self.session = Some(Session {
            connection,
            client,
            inbox,
            early,
            room,
            poller,
            messages: 0,
            unacknowledged,
        });
        Ok(())
    }

    async fn ready(&mut self) -> bool {
        let Some(session) = &mut self.session else {
            return true;
        };
        if session.early.is_empty() {
            match timeout(READ_WAIT_MAX, session.inbox.recv()).await {
                Err(_) => return false,
                // The end without a cause is found again.
                Ok(next) => session.early.extend(next),
            }
        }
        true
    }

    async fn read(&mut self) -> Result<Read, Fault> {
        let Some(session) = &mut self.session else {
            return Err(Fault::retry("the MQTT source is not open"));
        };
        let messages = session.gather().await.map_err(|cause| {
            self.broker.next_address();
            Fault::retry(format!("the connection to the MQTT broker broke: {cause}"))
        })?;
        if messages.is_empty() {
            return Ok(Read::Idle);
        }
        self.batch(&messages).map(Read::Batch)
    }

    async fn commit(&mut self, position: &Position) -> Result<(), Fault> {
        let Some(session) = &mut self.session else {
            return Ok(());
        };
        match serde_json::from_slice::<Bookmark>(position.as_bytes()) {
            Ok(bookmark) if bookmark.connection == session.connection => session.acknowledge(bookmark.messages),
            // Of an earlier connection: the broker will send those messages again.
            _ => Ok(()),
        }
    }

    async fn close(&mut self) {
        let Some(session) = self.session.take() else { return };
        let Session {
            client,
            inbox,
            room,
            mut poller,
            ..
        } = session;
        // What is still coming is not wanted; acknowledgements that are waiting still go out.
        drop(inbox);
        room.close();
        if client.try_disconnect().is_ok() {
            let _ = timeout(CLOSE_WAIT, &mut poller.0).await;
        }
    }
}

impl MqttSource {
    /// Subscribes and waits for the answer, collecting messages that overtake it.
    async fn subscribe(
        &self,
        client: &AsyncClient,
        events: &mut EventLoop,
        early: &mut VecDeque<Result<Message, String>>,
    ) -> Result<(), Fault> {
        let filters = self
            .topics
            .iter()
            .map(|topic| SubscribeFilter::new(topic.clone(), self.qos));
        let asked = client.try_subscribe_many(filters);
        asked.map_err(|error| Fault::stop(format!("the topics cannot be subscribed to: {error}")))?;
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::SubAck(answer))) => {
                    let refused = answer.return_codes.iter().zip(&self.topics);
                    let mut refused = refused.filter(|(code, _)| matches!(code, SubscribeReasonCode::Failure));
                    return match refused.next() {
                        Some((_, topic)) => Err(Fault::retry(format!(
                            "the broker refuses the subscription to '{topic}': does its access list allow it?"
                        ))),
                        None => Ok(()),
                    };
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    early.push_back(Ok(Message {
                        publish,
                        received_ns: now_ns(),
                        _room: None,
                    }));
                }
                Ok(_) => {}
                Err(error) => return Err(Fault::retry(format!("the MQTT broker: {}", explain(&error)))),
            }
        }
    }

    fn batch(&mut self, messages: &[Message]) -> Result<SourceBatch, Fault> {
        let mut rows = Rows::new();
        let mut undecodable = Vec::new();
        let mut taken = 0;
        for message in messages {
            let publish = &message.publish;
            if !self.is_wanted(publish) {
                taken += 1;
                continue;
            }
            let mut made = self.row(message, &mut rows);
            if matches!(made, Err(RowFault::Full)) && rows.len() == 0 {
                // The columns remembered from other messages leave no room: forget them.
                rows.undo();
                self.shape.forget();
                made = self.row(message, &mut rows);
            }
            match made {
                Ok(()) => rows.end(),
                Err(RowFault::Full) if rows.len() > 0 => {
                    rows.undo();
                    break;
                }
                Err(fault) => {
                    rows.undo();
                    let reason = format!("a message to '{}': {fault}", publish.topic);
                    undecodable.push(Undecodable {
                        bytes: cut(&publish.payload),
                        reason,
                    });
                }
            }
            taken += 1;
        }
        let batch = if rows.len() > 0 {
            rows.finish(&mut self.shape, "mqtt")
                .map_err(|cause| Fault::stop(format!("MQTT messages: {cause}")))?
        } else {
            rows::empty("mqtt")
        };
        let topics = self.topics_hash;
        let Some(session) = &mut self.session else {
            return Err(Fault::retry("the MQTT source is not open"));
        };
        session.take(messages, taken);
        let bookmark = Bookmark {
            v: 1,
            connection: session.connection,
            messages: session.messages,
            topics,
        };
        let position = Position::new(serde_json::to_vec(&bookmark).unwrap_or_default());
        Ok(SourceBatch {
            batch,
            position,
            undecodable,
        })
    }

    /// A session may hold subscriptions of an earlier config.
    fn is_wanted(&self, publish: &Publish) -> bool {
        (self.retained || !publish.retain) && self.topics.iter().any(|filter| matches(&publish.topic, filter))
    }

    fn row<'a>(&mut self, message: &'a Message, rows: &mut Rows<'a>) -> Result<(), RowFault> {
        let payload = &message.publish.payload[..];
        if payload.len() > RECORD_BYTES_MAX {
            return Err(RowFault::Other(format!("it has more than {RECORD_BYTES_MAX} bytes")));
        }
        let text =
            |payload| std::str::from_utf8(payload).map_err(|error| RowFault::Other(format!("not UTF-8: {error}")));
        let shape = &mut self.shape;
        let names = match self.format {
            Format::Json => {
                json::object(text(payload)?, |name, token| rows.set(shape, name, token)).map_err(
                    |error| match error {
                        json::JsonError::Row(error) => error.into(),
                        error => RowFault::Other(error.to_string()),
                    },
                )?;
                ["_topic", "_received_at", "_qos", "_retained"]
            }
            Format::Text | Format::Bytes => ["topic", "received_at", "qos", "retained"],
        };
        rows.set(shape, names[0], Token::Text(Cow::Borrowed(&message.publish.topic)))?;
        match self.format {
            Format::Json => {}
            Format::Text => rows.set(shape, "payload", Token::Text(Cow::Borrowed(text(payload)?)))?,
            Format::Bytes => rows.set(shape, "payload", Token::Value(Value::Bytes(payload.to_vec())))?,
        }
        let Publish { qos, retain, .. } = message.publish;
        let own = [
            Value::TimestampUtc(message.received_ns),
            Value::I64(qos as i64),
            Value::Bool(retain),
        ];
        for (name, value) in names[1..].iter().zip(own) {
            rows.set(shape, name, Token::Value(value))?;
        }
        Ok(())
    }
}

/// Why a message did not become a row.
#[derive(Debug, thiserror::Error)]
enum RowFault {
    #[error("{}", RowError::TooManyColumns)]
    Full,
    #[error("{0}")]
    Other(String),
}

impl From<RowError> for RowFault {
    fn from(error: RowError) -> Self {
        match error {
            RowError::TooManyColumns => RowFault::Full,
            error => RowFault::Other(error.to_string()),
        }
    }
}

impl Session {
    /// The messages that are there, or come soon; none when there is none for a while.
    async fn gather(&mut self) -> Result<Vec<Message>, String> {
        let mut messages: Vec<Message> = Vec::new();
        let mut bytes = 0;
        // A message that finds the pipe empty goes at once; the others gather while it is on its way.
        let next = if self.unacknowledged.is_empty() {
            Duration::ZERO
        } else {
            GATHER_NEXT
        };
        let mut deadline = Instant::now() + READ_WAIT_MAX;
        let mut end = deadline;
        while bytes < bus_schema::limits::BATCH_BYTES_TARGET && messages.len() < BUFFER_MESSAGES_MAX {
            let message = match self.early.pop_front() {
                Some(message) => Some(message),
                None => match self.inbox.try_recv() {
                    Ok(message) => Some(message),
                    Err(_) => match timeout_at(deadline, self.inbox.recv()).await {
                        Err(_) => break,
                        Ok(message) => message,
                    },
                },
            };
            let message = match message {
                Some(Ok(message)) => message,
                // What came before the end is still read; unacknowledged, the broker sends it again at worst.
                Some(Err(cause)) if !messages.is_empty() => {
                    self.early.push_front(Err(cause));
                    break;
                }
                Some(Err(cause)) => return Err(cause),
                None if !messages.is_empty() => break,
                None => return Err("it has ended".to_string()),
            };
            if messages.is_empty() {
                end = Instant::now() + GATHER;
            }
            bytes += message.publish.payload.len() + message.publish.topic.len() + 24;
            messages.push(message);
            if self.early.is_empty() && self.inbox.is_empty() {
                deadline = end.min(Instant::now() + next);
            }
        }
        Ok(messages)
    }

    /// Counts the first `taken` messages as read; the others come first the next time.
    fn take(&mut self, messages: &[Message], taken: usize) {
        for message in &messages[..taken] {
            self.messages += 1;
            if message.publish.qos != QoS::AtMostOnce {
                self.unacknowledged.push_back((self.messages, message.publish.pkid));
            }
        }
        for message in messages[taken..].iter().rev() {
            let again = Message {
                publish: message.publish.clone(),
                received_ns: message.received_ns,
                _room: None,
            };
            self.early.push_front(Ok(again));
        }
    }

    /// Acknowledges the messages up to this number, in the order they came.
    fn acknowledge(&mut self, up_to: u64) -> Result<(), Fault> {
        while let Some((_, pkid)) = self.unacknowledged.front().filter(|(number, _)| *number <= up_to) {
            let mut publish = Publish::new("", QoS::AtLeastOnce, Vec::new());
            publish.pkid = *pkid;
            let sent = self.client.try_ack(&publish);
            sent.map_err(|_| {
                Fault::retry("the connection to the MQTT broker broke before messages were acknowledged")
            })?;
            self.unacknowledged.pop_front();
        }
        Ok(())
    }
}

/// Keeps the connection going and hands messages on, as long as there is room for them. Ends with the connection.
async fn poll(mut events: EventLoop, sender: mpsc::Sender<Result<Message, String>>, room: Arc<Semaphore>) {
    loop {
        let publish = match events.poll().await {
            Ok(Event::Incoming(Packet::Publish(publish))) => publish,
            Ok(_) => continue,
            Err(error) => {
                let _ = sender.send(Err(explain(&error))).await;
                return;
            }
        };
        let received_ns = now_ns();
        let bytes = (publish.payload.len() + publish.topic.len() + MESSAGE_BYTES).min(BUFFER_BYTES_MAX);
        // While this waits nothing is read: the broker's own limits hold the rest back. When nobody wants messages any
        // more, they are not acknowledged, and polling goes on until the goodbye is sent.
        if let Ok(permit) = Arc::clone(&room).acquire_many_owned(bytes as u32).await {
            let _ = sender
                .send(Ok(Message {
                    publish,
                    received_ns,
                    _room: Some(permit),
                }))
                .await;
        }
    }
}

/// Advisory, as every wall clock is.
fn now_ns() -> i128 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as i128)
}
