//! Source `mqtt`: the messages of a broker's topics. A message is acknowledged to the broker when it is durable where it
//! goes, never earlier.

use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use bus_schema::{
    data::Value,
    plan::{ComponentRole, Descriptor},
};
use flow::{
    Build, BuildContext, Component, ConfigError, Fault, Position, READ_WAIT_MAX, Read, Source, SourceBatch, Trouble,
    describe, parse_config,
};
use rumqttc::{
    AsyncClient, ClientError, Event, EventLoop, Packet, Publish, QoS, SubAck, SubscribeFilter, SubscribeReasonCode,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::{
    file::{
        rows::{Shape, Token},
        source::types,
    },
    mqtt::{Broker, CONNECT_WAIT_S, Connected, Manner, Settings, Task, Urls, explain},
    payload::{self, Format},
    reach,
    secret::SecretRef,
    tls::TlsFiles,
};

/// Bytes of messages held between the connection and the reader. While they are full nothing is read from the broker.
const BUFFER_BYTES_MAX: usize = 1024 * 1024;
/// Messages held there.
const BUFFER_MESSAGES_MAX: usize = 1024;
/// Bytes a message takes besides topic and payload.
const MESSAGE_BYTES: usize = 128;
/// How long the broker may take for its answer to a subscription, unless messages come first.
const SUBSCRIBE_WAIT: Duration = Duration::from_secs(CONNECT_WAIT_S);
/// Said when it takes longer.
const NO_ANSWER: &str = "the broker does not answer to the subscription";
/// Said when a connection that has ended has told no cause.
const ENDED: &str = "the connection to the MQTT broker has ended";
/// How long the first message of a batch waits for others at most, while earlier ones are on their way.
const GATHER: Duration = Duration::from_millis(10);
/// How long each of them waits for the next: a broker that gives no more before it is acknowledged is not waited for.
const GATHER_NEXT: Duration = Duration::from_millis(1);
/// How long a polite goodbye may take.
const CLOSE_WAIT: Duration = Duration::from_secs(1);
/// Acknowledgements handed to the connection at a time. It sends one for each ten messages that it reads while more come, and
/// some brokers (mosquitto 2.0.11 with MQTT 3.1.1) do not stop at their own limit: the others wait here, as numbers.
const REQUESTS_MAX: usize = 1024;

/// Reads the messages of a broker's topics (MQTT 3.1.1). With QoS 1 each is acknowledged to the broker only when it is
/// durable where it goes: after a crash, messages that were not acknowledged yet come again (at least once), and what is
/// sent while the daemon is away waits at the broker. With QoS 0 the broker keeps nothing: what is sent during an
/// interruption is lost. Brokers hand out a limited number of messages before they want acknowledgements (mosquitto:
/// `max_inflight_messages`, 20 by default): raise it for high rates. A destination that gathers (`s3`, and `file` with Parquet)
/// makes records durable only after `max_age_s`, and no more messages come before that: give it `spool = {}`, whose buffer is
/// durable at once, or the broker drops what its queue does not hold.
///
/// Beside what a payload brings, records have the columns `_topic`, `_received_at`, `_qos` and `_retained` with JSON, and
/// `topic`, `received_at`, `qos` and `retained` with text and bytes.
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
    /// Which topics the broker has confirmed; 0: none yet.
    topics: u64,
}

/// A message on its way to the reader.
struct Message {
    publish: Publish,
    received_ns: i128,
    /// What was not asked for is acknowledged, and no record.
    is_wanted: bool,
    _room: OwnedSemaphorePermit,
}

struct Session {
    connection: u64,
    client: AsyncClient,
    inbox: mpsc::Receiver<Result<Message, String>>,
    /// The broker has confirmed the subscription.
    is_subscribed: Arc<AtomicBool>,
    /// Taken from the inbox and not read yet.
    early: VecDeque<Result<Message, String>>,
    room: Arc<Semaphore>,
    poller: Task,
    /// Messages read so far.
    messages: u64,
    /// Read and not acknowledged: number and packet id.
    unacknowledged: VecDeque<(u64, u16)>,
    /// Messages that are durable where they go, and may be acknowledged as soon as there is room.
    durable: u64,
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
            events,
            session_present,
        } = self.broker.connect(&manner).await?;
        // The broker keeps the subscriptions of a session. Subscribing again would bring all retained messages again.
        let is_subscribed = session_present && known.is_some_and(|known| known.topics == self.topics_hash);
        let (answer, answered) = oneshot::channel();
        if !is_subscribed {
            self.ask(&client)?;
        }
        let is_subscribed = Arc::new(AtomicBool::new(is_subscribed));
        let subscription = Subscription {
            topics: self.topics.clone(),
            answer: Some(answer),
            is_confirmed: Arc::clone(&is_subscribed),
        };
        let (sender, inbox) = mpsc::channel(BUFFER_MESSAGES_MAX);
        let room = Arc::new(Semaphore::new(BUFFER_BYTES_MAX));
        let polling = poll(events, sender, Arc::clone(&room), subscription);
        let poller = Task(tokio::spawn(polling));
        if !is_subscribed.load(Ordering::Relaxed) {
            let answer = timeout(SUBSCRIBE_WAIT, answered).await;
            let subscribed = answer.map_or_else(
                |_| Err(NO_ANSWER.to_string()),
                |answer| answer.unwrap_or_else(|_| Err(ENDED.to_string())),
            );
            if let Err(cause) = subscribed {
                self.broker.next_address();
                return Err(Fault::retry(cause));
            }
        }
        let connection = RandomState::new().hash_one(SystemTime::now());
        let unacknowledged = VecDeque::new();
        self.session = Some(Session {
            connection,
            client,
            inbox,
            is_subscribed,
            early: VecDeque::new(),
            room,
            poller,
            messages: 0,
            unacknowledged,
            durable: 0,
        });
        Ok(())
    }

    async fn ready(&mut self) -> bool {
        let Some(session) = &mut self.session else {
            return true;
        };
        // Its error is found again by the next read.
        let _ = session.acknowledge().await;
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
        let gathered = match session.acknowledge().await {
            Ok(()) => session.gather().await,
            Err(cause) => Err(cause),
        };
        let mut messages = gathered.map_err(|cause| {
            self.broker.next_address();
            Fault::retry(cause)
        })?;
        if messages.is_empty() {
            return Ok(Read::Idle);
        }
        for message in &mut messages {
            message.is_wanted = is_wanted(&message.publish, &self.topics, self.retained);
        }
        let made = payload::batch(&messages, self.format, &mut self.shape, "mqtt");
        let (batch, undecodable, taken) = made.map_err(|cause| Fault::stop(format!("MQTT messages: {cause}")))?;
        session.take(messages, taken);
        let is_subscribed = session.is_subscribed.load(Ordering::Relaxed);
        let bookmark = Bookmark {
            v: 1,
            connection: session.connection,
            messages: session.messages,
            // Messages of the session came first: whoever goes on from here subscribes again.
            topics: if is_subscribed { self.topics_hash } else { 0 },
        };
        Ok(Read::Batch(SourceBatch {
            batch,
            position: Position::new(serde_json::to_vec(&bookmark).unwrap_or_default()),
            undecodable,
        }))
    }

    async fn commit(&mut self, position: &Position) -> Result<(), Fault> {
        let Some(session) = &mut self.session else {
            return Ok(());
        };
        match serde_json::from_slice::<Bookmark>(position.as_bytes()) {
            Ok(bookmark) if bookmark.connection == session.connection => {
                session.durable = session.durable.max(bookmark.messages);
                session
                    .acknowledge()
                    .await
                    .map_err(|cause| Fault::retry(format!("messages could not be acknowledged: {cause}")))
            }
            // Of an earlier connection: the broker will send those messages again.
            _ => Ok(()),
        }
    }

    async fn check(&mut self) -> Result<String, Trouble> {
        let Connected { client, mut events, .. } = self.broker.check().await?;
        // One of a group would take messages from the others.
        let (shared, own): (Vec<String>, Vec<String>) = self
            .topics
            .iter()
            .cloned()
            .partition(|topic| topic.starts_with("$share/"));
        let place = self.broker.place();
        if !own.is_empty() {
            let wanted = std::mem::replace(&mut self.topics, own);
            let subscribing = self.subscribe(&client, &mut events);
            let subscribed = timeout(SUBSCRIBE_WAIT, Box::pin(subscribing)).await;
            self.topics = wanted;
            let silent = || Err(Fault::retry(NO_ANSWER));
            subscribed.unwrap_or_else(|_| silent()).map_err(|fault| {
                reach::forbidden(
                    fault.to_string(),
                    "let the user read these topics in the broker's access list",
                )
            })?;
        }
        Ok(match shared.is_empty() {
            true => format!("{place}: the topics can be subscribed to"),
            false => format!("{place} lets us in; topics of a group show only when the workflow runs"),
        })
    }

    async fn close(&mut self) {
        let Some(mut session) = self.session.take() else { return };
        // What is still coming is not wanted; acknowledgements that are waiting still go out.
        session.inbox.close();
        session.room.close();
        let goodbye = async {
            while session.acknowledge().await.is_ok() && session.owed().is_some() {
                sleep(GATHER_NEXT).await;
            }
            while session.client.try_disconnect().is_err() && !session.poller.0.is_finished() {
                sleep(GATHER_NEXT).await;
            }
            let _ = (&mut session.poller.0).await;
        };
        let _ = timeout(CLOSE_WAIT, goodbye).await;
    }
}

impl MqttSource {
    /// Asks for the topics.
    fn ask(&self, client: &AsyncClient) -> Result<(), Fault> {
        let filters = self
            .topics
            .iter()
            .map(|topic| SubscribeFilter::new(topic.clone(), self.qos));
        let asked = client.try_subscribe_many(filters);
        asked.map_err(|error| Fault::stop(format!("the topics cannot be subscribed to: {error}")))
    }

    /// Subscribes and waits for the answer. Takes no message: for somebody who is forgotten afterwards.
    async fn subscribe(&self, client: &AsyncClient, events: &mut EventLoop) -> Result<(), Fault> {
        self.ask(client)?;
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::SubAck(answer))) => {
                    return refusal(&answer, &self.topics).map_or(Ok(()), |cause| Err(Fault::retry(cause)));
                }
                Ok(_) => {}
                Err(error) => return Err(Fault::retry(format!("the MQTT broker: {}", explain(&error)))),
            }
        }
    }
}

/// What is wrong with a subscription by its answer.
fn refusal(answer: &SubAck, topics: &[String]) -> Option<String> {
    let mut answers = answer.return_codes.iter().zip(topics);
    let (_, topic) = answers.find(|(code, _)| matches!(code, SubscribeReasonCode::Failure))?;
    Some(format!(
        "the broker refuses the subscription to '{topic}': does its access list allow it?"
    ))
}

/// A subscription whose answer may be awaited. Before it, a broker sends what it has kept for a session, and may not go on
/// before that is acknowledged: so nobody waits for the answer while messages wait for a reader.
struct Subscription {
    topics: Vec<String>,
    /// For whoever waits.
    answer: Option<oneshot::Sender<Result<(), String>>>,
    is_confirmed: Arc<AtomicBool>,
}

impl Subscription {
    /// Tells whoever waits; what is wrong, if nobody does.
    fn tell(&mut self, answer: Result<(), String>) -> Result<(), String> {
        match self.answer.take() {
            Some(waiting) => waiting.send(answer).or_else(|answer| answer),
            None => answer,
        }
    }

    /// The broker has answered.
    fn take(&mut self, answer: &SubAck) -> Result<(), String> {
        let refused = refusal(answer, &self.topics);
        self.is_confirmed.store(refused.is_none(), Ordering::Relaxed);
        self.tell(refused.map_or(Ok(()), Err))
    }
}

/// A session may hold subscriptions of an earlier config.
fn is_wanted(publish: &Publish, topics: &[String], retained: bool) -> bool {
    (retained || !publish.retain) && topics.iter().any(|filter| matches(&publish.topic, filter))
}

impl payload::Message for Message {
    fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    fn payload(&self) -> &[u8] {
        &self.publish.payload
    }

    fn beside(&self) -> Vec<(&'static str, Token<'_>)> {
        let Publish { topic, qos, retain, .. } = &self.publish;
        vec![
            ("_topic", Token::Text(Cow::Borrowed(topic))),
            ("_received_at", Token::Value(Value::TimestampUtc(self.received_ns))),
            ("_qos", Token::Value(Value::I64(*qos as i64))),
            ("_retained", Token::Value(Value::Bool(*retain))),
        ]
    }

    fn name(&self) -> String {
        format!("a message to '{}'", self.publish.topic)
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
                None => return Err(ENDED.to_string()),
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
    fn take(&mut self, mut messages: Vec<Message>, taken: usize) {
        for message in messages.drain(taken..).rev() {
            self.early.push_front(Ok(message));
        }
        for message in messages {
            self.messages += 1;
            if message.publish.qos != QoS::AtMostOnce {
                self.unacknowledged.push_back((self.messages, message.publish.pkid));
            }
        }
    }

    /// The packet id of the first message that is durable and not acknowledged.
    fn owed(&self) -> Option<u16> {
        let (number, pkid) = self.unacknowledged.front()?;
        (*number <= self.durable).then_some(*pkid)
    }

    /// Acknowledges messages that are durable, in the order they came, as far as there is room. Fails with the cause when the
    /// connection has ended.
    async fn acknowledge(&mut self) -> Result<(), String> {
        while let Some(pkid) = self.owed() {
            let mut publish = Publish::new("", QoS::AtLeastOnce, Vec::new());
            publish.pkid = pkid;
            match self.client.try_ack(&publish) {
                Ok(()) => {
                    self.unacknowledged.pop_front();
                }
                Err(ClientError::TryRequest(_)) if !self.poller.0.is_finished() => break,
                Err(_) => {
                    let cause = self.end().await;
                    self.early.push_front(Err(cause.clone()));
                    return Err(cause);
                }
            }
        }
        Ok(())
    }

    /// Why a connection that has ended did. The broker sends again what is passed over here.
    async fn end(&mut self) -> String {
        loop {
            let next = match self.early.pop_front() {
                Some(next) => Some(next),
                None => self.inbox.recv().await,
            };
            match next {
                Some(Ok(_)) => {}
                Some(Err(cause)) => return cause,
                None => return ENDED.to_string(),
            }
        }
    }
}

/// Keeps the connection going and hands messages on, as long as there is room for them. Ends with the connection.
async fn poll(
    mut events: EventLoop,
    sender: mpsc::Sender<Result<Message, String>>,
    room: Arc<Semaphore>,
    mut subscription: Subscription,
) {
    loop {
        let publish = match events.poll().await {
            Ok(Event::Incoming(Packet::Publish(publish))) => publish,
            Ok(Event::Incoming(Packet::SubAck(answer))) => {
                if let Err(cause) = subscription.take(&answer) {
                    // Goes on nevertheless: what was read before can still be acknowledged.
                    let _ = sender.send(Err(cause)).await;
                }
                continue;
            }
            Ok(_) => continue,
            Err(error) => {
                let cause = format!("the connection to the MQTT broker broke: {}", explain(&error));
                if let Err(cause) = subscription.tell(Err(cause)) {
                    let _ = sender.send(Err(cause)).await;
                }
                return;
            }
        };
        let received_ns = now_ns();
        let bytes = weight(&publish).min(BUFFER_BYTES_MAX);
        if room.available_permits() < bytes || sender.capacity() == 0 {
            // Whoever reads makes room, and is needed now.
            let _ = subscription.tell(Ok(()));
        }
        // While this waits nothing is read: the broker's own limits hold the rest back. When nobody wants messages any
        // more, they are not acknowledged, and polling goes on until the goodbye is sent.
        if let Ok(permit) = Arc::clone(&room).acquire_many_owned(bytes as u32).await {
            let _ = sender
                .send(Ok(Message {
                    publish,
                    received_ns,
                    is_wanted: true,
                    _room: permit,
                }))
                .await;
        }
    }
}

/// Bytes a message takes.
fn weight(publish: &Publish) -> usize {
    publish.payload.len() + publish.topic.len() + MESSAGE_BYTES
}

/// Advisory, as every wall clock is.
fn now_ns() -> i128 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as i128)
}

#[cfg(test)]
mod tests;
