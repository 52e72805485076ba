//! Source `nats`: the messages of a subject, or of a JetStream stream. Those of a stream are acknowledged when they are
//! durable where they go, never earlier.

use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_nats::{Client, StatusCode};
use async_trait::async_trait;
use bus_schema::{
    data::Value,
    limits::BATCH_BYTES_TARGET,
    plan::{ComponentRole, Descriptor},
};
use flow::{
    Build, BuildContext, Component, ConfigError, Fault, Position, READ_WAIT_MAX, Read, Source, SourceBatch, Trouble,
    describe, parse_config,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout, timeout_at},
};

use super::{
    ApiError, check, check_name, check_subject,
    connect::{Alive, Connected, Server, Settings},
    held::{Held, Incoming, Message, keep, numbers_at},
};
use crate::{
    file::{
        rows::{Shape, Token},
        source::types,
    },
    mqtt::{Task, Urls},
    payload::{self, Format},
    secret::SecretRef,
    tls::TlsFiles,
};

/// Messages that may wait to be read; with JetStream, most that are asked for at once.
const MESSAGES_MAX: usize = 256;
/// Bytes asked for at once, besides those of one message of the largest size.
const PULL_BYTES: usize = 1024 * 1024;
/// How long the server keeps a request for messages.
const PULL_KEPT: Duration = Duration::from_secs(20);
/// How much longer its end is waited for.
const PULL_OVERRUN: Duration = Duration::from_secs(10);
/// How long the server may take to answer, or to take what it is sent.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// How long the first message of a batch waits for others.
const GATHER: Duration = Duration::from_millis(2);
/// What `max_ack_pending` may be.
const PENDING: std::ops::RangeInclusive<u32> = 1..=262_144;

/// Reads the messages of a subject, or of a JetStream stream.
///
/// With `stream`: each message is acknowledged only when it is durable where it goes, and until then the server hears that
/// somebody is at work on it. What is not acknowledged before a crash or the end of a connection comes again (at least once);
/// nothing is lost. The stream must exist; the consumer is made when it does not.
///
/// Without it: NATS itself keeps nothing. What is sent while the daemon is away is lost, and so is what was received and
/// not stored when it is killed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Address of the server, `nats://host:4222` or `tls://host:4222`; or a list.
    url: Urls,
    /// Subject: `*` stands for one token, `>` at the end for all that follow. With `stream`, only its messages of this
    /// subject (all by default).
    subject: Option<String>,
    /// JetStream stream to read.
    stream: Option<String>,
    /// Name of the consumer at the stream. Two readers with the same share the messages. By default made of the names of
    /// daemon, workflow and node.
    consumer: Option<String>,
    /// With which messages of the stream a new consumer begins.
    #[serde(default)]
    start: Start,
    /// How long the server hears nothing of a message before it sends it again, in milliseconds: after a crash, so long. The
    /// daemon speaks of what it holds three times as often, however long the destination is away or gathers.
    #[serde(default = "five_minutes")]
    ack_wait_ms: u64,
    /// Messages of the stream that may be read and not acknowledged yet: no more go into one object of a destination that
    /// gathers. Each takes about 80 bytes of memory until then.
    #[serde(default = "sixty_four_thousand")]
    max_ack_pending: u32,
    /// Without a stream: readers of the same queue share the messages.
    queue: Option<String>,
    /// What a payload is.
    #[serde(default)]
    format: Format,
    /// For JSON: field = type, as in the source `file`.
    #[serde(default)]
    types: BTreeMap<String, String>,
    /// User name.
    user: Option<String>,
    /// Password.
    password: Option<SecretRef>,
    /// Token, instead of user and password.
    token: Option<SecretRef>,
    /// Text of a `.creds` file, instead.
    credentials: Option<SecretRef>,
    /// Seed of an nkey, instead.
    nkey: Option<SecretRef>,
    /// Certificates, for `tls://`.
    tls: Option<TlsFiles>,
}

/// Where to begin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Start {
    /// With the oldest message the stream has.
    #[default]
    All,
    /// Only with those that come from now on.
    New,
}

fn five_minutes() -> u64 {
    300_000
}

fn sixty_four_thousand() -> u32 {
    65_536
}

/// The registry line.
pub(crate) const SOURCE: Component = Component {
    descriptor,
    build: Build::Source(build),
};

const EXAMPLE: &str = r#"name = "orders"

[sources.orders]
type = "nats"
url = "nats://broker:4222"
stream = "ORDERS"
subject = "orders.*.new"

[destinations.out]
type = "stdout"
from = "orders"
"#;

fn descriptor() -> Descriptor {
    let summary = "Reads the messages of a NATS subject or a JetStream stream";
    // Not for all of its settings can it read again, so that is not promised.
    describe::<Config>(ComponentRole::Source, "nats", summary, EXAMPLE)
}

fn build(config: &str, context: &BuildContext) -> Result<Box<dyn Source>, ConfigError> {
    let config: Config = parse_config(config)?;
    if let Some(subject) = &config.subject {
        check_subject(subject, true).map_err(|cause| ConfigError::at("subject", cause))?;
    }
    let wanted = match (config.stream, config.subject) {
        (None, None) => return Err(ConfigError::at("subject", "set a subject, a stream or both")),
        (None, Some(subject)) => {
            if config.consumer.is_some() || config.start != Start::All {
                return Err(ConfigError::at(
                    "stream",
                    "consumer and start are for a stream: name it",
                ));
            }
            if let Some(queue) = &config.queue {
                check_name(queue).map_err(|cause| ConfigError::at("queue", cause))?;
            }
            Wanted::Subject {
                subject,
                queue: config.queue,
            }
        }
        (Some(_), _) if config.queue.is_some() => {
            return Err(ConfigError::at("queue", "readers of a stream share a consumer instead"));
        }
        (Some(stream), subject) => {
            check_name(&stream).map_err(|cause| ConfigError::at("stream", cause))?;
            let consumer = config.consumer.unwrap_or_else(|| {
                let name = ["mycelial", &context.daemon, &context.workflow, &context.node].join("-");
                name.replace(|c: char| !c.is_alphanumeric() && c != '-', "_")
            });
            check_name(&consumer).map_err(|cause| ConfigError::at("consumer", cause))?;
            if config.ack_wait_ms == 0 {
                return Err(ConfigError::at("ack_wait_ms", "is 0: give the destination time"));
            }
            if !PENDING.contains(&config.max_ack_pending) {
                let bounds = format!("must be from {} to {}", PENDING.start(), PENDING.end());
                return Err(ConfigError::at("max_ack_pending", bounds));
            }
            Wanted::Stream {
                stream,
                consumer,
                subject,
                start: config.start,
                ack_wait: Duration::from_millis(config.ack_wait_ms),
                pending_max: config.max_ack_pending,
            }
        }
    };
    if config.format != Format::Json && !config.types.is_empty() {
        return Err(ConfigError::at("types", "only for format = \"json\""));
    }
    let settings = Settings {
        url: config.url,
        user: config.user,
        password: config.password,
        token: config.token,
        credentials: config.credentials,
        nkey: config.nkey,
        tls: config.tls,
    };
    Ok(Box::new(NatsSource {
        server: Server::new(settings, context)?,
        wanted,
        format: config.format,
        shape: Shape::new(types(&config.types)?),
        session: None,
    }))
}

enum Wanted {
    Subject {
        subject: String,
        queue: Option<String>,
    },
    Stream {
        stream: String,
        consumer: String,
        subject: Option<String>,
        start: Start,
        ack_wait: Duration,
        /// Messages that may be held.
        pending_max: u32,
    },
}

/// The source's bookmark: how many messages of which connection. Means nothing to a later one.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Bookmark {
    v: u8,
    connection: u64,
    messages: u64,
}

impl payload::Message for Message {
    fn payload(&self) -> &[u8] {
        &self.message.payload
    }

    fn beside(&self) -> Vec<(&'static str, Token<'_>)> {
        let mut beside = vec![
            ("_subject", Token::Text(Cow::Borrowed(self.message.subject.as_str()))),
            ("_received_at", Token::Value(Value::TimestampUtc(self.received_ns))),
        ];
        if let Some(sequence) = self.message.reply.as_deref().and_then(sequence) {
            beside.push(("_sequence", Token::Value(Value::U64(sequence))));
        }
        beside
    }

    fn name(&self) -> String {
        format!("a message to '{}'", self.message.subject)
    }
}

/// The number of a message in its stream, which stands in the subject of its acknowledgement.
fn sequence(reply: &str) -> Option<u64> {
    reply.split('.').nth(numbers_at(reply)? + 1)?.parse().ok()
}

/// A request for messages that the server has.
struct Pull {
    /// Messages it may still send.
    left: usize,
    /// When it is not waited for any more.
    until: Instant,
}

impl Pull {
    /// Whether the server keeps it no longer.
    fn is_due(&self) -> bool {
        Instant::now() + PULL_OVERRUN >= self.until
    }
}

/// How messages of a stream are asked for.
struct Pulls {
    /// Where to ask, and where they shall go.
    api: String,
    inbox: String,
    /// What has been asked.
    pull: Option<Pull>,
    /// While so many are held nothing is asked for.
    pending_max: usize,
    /// How long the server waits to hear of one.
    ack_wait: Duration,
}

impl Pulls {
    /// Asks for messages unless the server has a request.
    async fn ask(&mut self, client: &Client, held: usize) -> Result<(), Fault> {
        let has_request = |pull: &Pull| pull.left > 0 && Instant::now() < pull.until;
        if held >= self.pending_max || self.pull.as_ref().is_some_and(has_request) {
            return Ok(());
        }
        let request = json!({
            "batch": MESSAGES_MAX,
            "max_bytes": PULL_BYTES + client.server_info().max_payload,
            "expires": PULL_KEPT.as_nanos() as u64,
        });
        let sent = client.publish_with_reply(self.api.clone(), self.inbox.clone(), request.to_string().into());
        sent.await.map_err(|error| broken(&error))?;
        self.pull = Some(Pull {
            left: MESSAGES_MAX,
            until: Instant::now() + PULL_KEPT + PULL_OVERRUN,
        });
        Ok(())
    }
}

struct Session {
    client: Client,
    alive: Alive,
    incoming: Arc<Mutex<Incoming>>,
    /// With JetStream.
    pulls: Option<Pulls>,
    early: VecDeque<Message>,
    connection: u64,
    /// Messages read so far.
    read: u64,
    /// Those that came and are not acknowledged.
    held: Arc<Held>,
    /// With JetStream: who tells the server of them.
    _keeper: Option<Task>,
}

impl Session {
    /// The next message, if one comes in time. May be dropped while it waits.
    async fn next(&mut self, until: Instant) -> Result<Option<Message>, Fault> {
        loop {
            if let Some(pulls) = &mut self.pulls {
                pulls.ask(&self.client, self.held.len()).await?;
            }
            let mut incoming = self.incoming.lock().await;
            let message = tokio::select! {
                biased;
                message = incoming.next() => message,
                fault = self.alive.ended() => return Err(fault),
                () = tokio::time::sleep_until(until) => return Ok(None),
            };
            drop(incoming);
            let Some(came) = message else {
                return Err(self.alive.ended().await);
            };
            let Some(pulls) = &mut self.pulls else {
                return Ok(Some(came));
            };
            match came.message.status {
                None => {
                    if let Some(pull) = &mut pulls.pull {
                        pull.left = pull.left.saturating_sub(1);
                    }
                    return Ok(Some(came));
                }
                Some(StatusCode::IDLE_HEARTBEAT) => {}
                // Of the last request, or of one before it that nobody listened to meanwhile.
                Some(StatusCode::TIMEOUT | StatusCode::NOT_FOUND) => {
                    pulls.pull.take_if(|pull| pull.is_due());
                }
                // The request has got as many bytes as it wanted, or the consumer is gone.
                Some(status) => {
                    let said = came.message.description.unwrap_or_default();
                    pulls.pull = None;
                    if !said.to_lowercase().contains("maxbytes") {
                        return Err(Fault::retry(format!("JetStream sends no messages: {said} ({status})")));
                    }
                }
            }
        }
    }

    async fn gather(&mut self) -> Result<Vec<Message>, Fault> {
        let mut messages: Vec<Message> = Vec::new();
        let (mut bytes, mut until) = (0, Instant::now() + READ_WAIT_MAX);
        while bytes < BATCH_BYTES_TARGET && messages.len() < MESSAGES_MAX {
            let next = match self.early.pop_front() {
                Some(message) => Ok(Some(message)),
                None => self.next(until).await,
            };
            match next {
                Ok(Some(message)) => {
                    if messages.is_empty() {
                        until = Instant::now() + GATHER;
                    }
                    bytes += message.message.payload.len() + message.message.subject.len() + 24;
                    messages.push(message);
                }
                Ok(None) => break,
                // It is found again, after what came before it.
                Err(_) if !messages.is_empty() => break,
                Err(fault) => return Err(fault),
            }
        }
        Ok(messages)
    }
}

struct NatsSource {
    server: Server,
    wanted: Wanted,
    format: Format,
    shape: Shape,
    session: Option<Session>,
}

impl NatsSource {
    /// How to ask for messages, after making sure that the consumer is there.
    async fn consumer(&self, client: &Client, inbox: String) -> Result<Option<Pulls>, Fault> {
        let Wanted::Stream {
            stream,
            consumer,
            subject,
            start,
            ack_wait,
            pending_max,
        } = &self.wanted
        else {
            return Ok(None);
        };
        let mut config = json!({
            "durable_name": consumer,
            "ack_policy": "explicit",
            "ack_wait": ack_wait.as_nanos() as u64,
            "max_ack_pending": pending_max,
            "deliver_policy": if *start == Start::All { "all" } else { "new" },
            "max_deliver": -1,
        });
        if let Some(subject) = subject {
            config["filter_subject"] = json!(subject);
        }
        let request = json!({"stream_name": stream, "config": config}).to_string();
        let api = format!("$JS.API.CONSUMER.DURABLE.CREATE.{stream}.{consumer}");
        let answer = timeout(ANSWER_WAIT, client.request(api, request.into())).await;
        let answer = answer
            .map_err(|_| Fault::retry("JetStream does not answer"))?
            .map_err(|error| Fault::retry(format!("JetStream does not answer ({error}): does the server have it?")))?;
        #[derive(Deserialize)]
        struct Answer {
            error: Option<ApiError>,
        }
        let understood: Answer = serde_json::from_slice(&answer.payload)
            .map_err(|error| Fault::retry(format!("JetStream's answer cannot be read: {error}")))?;
        match understood.error {
            None => Ok(Some(Pulls {
                api: format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"),
                inbox,
                pull: None,
                pending_max: usize::try_from(*pending_max).unwrap_or(usize::MAX),
                ack_wait: *ack_wait,
            })),
            Some(ApiError {
                code,
                err_code,
                description,
            }) => Err(Fault::retry(format!(
                "the consumer '{consumer}' of the stream '{stream}' cannot be used: {description} ({code}, {err_code})"
            ))),
        }
    }
}

#[async_trait]
impl Source for NatsSource {
    async fn open(&mut self, _: Option<&Position>) -> Result<(), Fault> {
        self.session = None;
        let Connected { client, alive } = self.server.connect(2 * MESSAGES_MAX).await?;
        let refused =
            |error: async_nats::SubscribeError| Fault::retry(format!("NATS refuses the subscription: {error}"));
        let (messages, pulls) = match &self.wanted {
            Wanted::Subject { subject, queue: None } => {
                (client.subscribe(subject.clone()).await.map_err(refused)?, None)
            }
            Wanted::Subject {
                subject,
                queue: Some(queue),
            } => {
                let subscribed = client.queue_subscribe(subject.clone(), queue.clone()).await;
                (subscribed.map_err(refused)?, None)
            }
            Wanted::Stream { .. } => {
                let inbox = client.new_inbox();
                let messages = client.subscribe(inbox.clone()).await.map_err(refused)?;
                (messages, self.consumer(&client, inbox).await?)
            }
        };
        // The server learns of the subscription now, not when something else is sent.
        let flushed = timeout(ANSWER_WAIT, client.flush()).await;
        flushed
            .map_err(|_| Fault::retry("NATS does not answer"))?
            .map_err(|error| broken(&error))?;
        let held = Arc::new(Held::default());
        let to_hold = pulls.is_some().then(|| Arc::clone(&held));
        let incoming = Arc::new(Mutex::new(Incoming::new(messages, 2 * MESSAGES_MAX, to_hold)));
        let keeper = pulls.as_ref().map(|pulls| {
            let (incoming, held) = (Arc::clone(&incoming), Arc::clone(&held));
            Task(tokio::spawn(keep(client.clone(), incoming, held, pulls.ack_wait)))
        });
        self.session = Some(Session {
            client,
            alive,
            incoming,
            pulls,
            early: VecDeque::new(),
            connection: RandomState::new().hash_one(SystemTime::now()),
            read: 0,
            held,
            _keeper: keeper,
        });
        Ok(())
    }

    async fn ready(&mut self) -> bool {
        let Some(session) = &mut self.session else { return true };
        if session.early.is_empty() {
            match session.next(Instant::now() + READ_WAIT_MAX).await {
                Ok(None) => return false,
                Ok(Some(message)) => session.early.push_back(message),
                // Found again by `read`.
                Err(_) => {}
            }
        }
        true
    }

    async fn read(&mut self) -> Result<Read, Fault> {
        let Some(session) = &mut self.session else {
            return Err(Fault::retry("the NATS source is not open"));
        };
        let mut messages = session.gather().await?;
        if messages.is_empty() {
            return Ok(Read::Idle);
        }
        let made = payload::batch(&messages, self.format, &mut self.shape, "nats");
        let (batch, undecodable, taken) = made.map_err(|cause| Fault::stop(format!("NATS messages: {cause}")))?;
        for message in messages.drain(taken..).rev() {
            session.early.push_front(message);
        }
        session.read += messages.len() as u64;
        let bookmark = Bookmark {
            v: 1,
            connection: session.connection,
            messages: session.read,
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
        let up_to = match serde_json::from_slice::<Bookmark>(position.as_bytes()) {
            Ok(bookmark) if bookmark.connection == session.connection => bookmark.messages,
            // Of an earlier connection: the server will send those messages again.
            _ => return Ok(()),
        };
        let until = Instant::now() + ANSWER_WAIT;
        while let Some(reply) = session.held.first(up_to) {
            if !reply.is_empty() {
                let sent = timeout_at(until, session.client.publish(reply, "+ACK".into())).await;
                sent.map_err(|_| Fault::retry("the NATS server takes no acknowledgements"))?
                    .map_err(|error| broken(&error))?;
            }
            session.held.settle_first();
        }
        Ok(())
    }

    async fn check(&mut self) -> Result<String, Trouble> {
        let mut connected = self.server.check().await?;
        let place = self.server.place();
        match &self.wanted {
            // Without the queue: one of that takes messages from the others.
            Wanted::Subject { subject, .. } => {
                check::subscribable(&mut connected, subject).await?;
                Ok(format!("{place}: '{subject}' can be subscribed to"))
            }
            Wanted::Stream { stream, consumer, .. } => {
                check::stream(&connected.client, stream).await?;
                Ok(format!(
                    "{place}: the stream '{stream}' is there; the consumer '{consumer}' is made when it is missing"
                ))
            }
        }
    }

    async fn close(&mut self) {
        if let Some(session) = self.session.take() {
            // Acknowledgements that are waiting still go out.
            let _ = timeout(Duration::from_secs(1), session.client.flush()).await;
        }
    }
}

fn broken(error: &dyn std::fmt::Display) -> Fault {
    Fault::retry(format!("the connection to the NATS server broke: {error}"))
}
