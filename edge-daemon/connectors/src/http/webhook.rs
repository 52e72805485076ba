//! Source `webhook`: is called with records, and says that it has them when they are durable where they go, never earlier.

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use bus_schema::{
    limits::BATCH_BYTES_TARGET,
    plan::{ComponentRole, Descriptor},
};
use flow::{
    Build, BuildContext, Component, ConfigError, Fault, Position, Read, Source, SourceBatch, Trouble, describe,
    parse_config,
};
use hyper::header::HeaderName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, sync::watch, time::timeout};
use tokio_rustls::TlsAcceptor;

use self::{
    listener::{Listener, Rules},
    request::{Called, Record},
};
use crate::{
    file::{rows::Shape, source::types},
    inbox::{Inbox, inbox},
    mqtt::Task,
    payload, reach,
    secret::SecretRef,
    tls::ListenTls,
};

mod listener;
mod request;

/// Bounds of `body_bytes_max`.
const BODY_BYTES: std::ops::RangeInclusive<usize> = 1024..=16 * 1024 * 1024;
/// Bounds of `answer_ms_max`.
const ANSWER_MS: std::ops::RangeInclusive<u64> = 100..=300_000;
/// How long those whose answer is ready may take to get it when the source is closed.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// Listens for HTTP requests with records in them (POST or PUT). The answer is 200 when the records are durable where they
/// go, and not earlier: a sender that repeats what was not answered with 200 loses nothing. At least once: an answer can be
/// lost after the records are safe. The sender's `Idempotency-Key` and the record's number in the request tell what came
/// twice; a key has at most 255 bytes.
///
/// Besides what a body brings, records have the columns `_received_at`, `_sender`, `_idempotency_key` (null when there is
/// none) and `_item` (from 0) with JSON, and `received_at`, `sender`, `idempotency_key` and `item` with text and bytes. A
/// record that does not fit `types` goes to the dead letters; a body that is not what `format` says is refused as a whole.
///
/// Other answers have a JSON body with an `error`: 400 for a body that cannot be read, 401 without the right credentials, 404
/// and 405 for another path or method, 408 for a body that comes too slowly, 413 for one that is too large or has too many
/// records (10,000), and 503 with `Retry-After` when there is no room, the destination takes too long, or the daemon stops:
/// send the same again then. At most 64 connections, and 4 MiB of bodies at once (or one that is larger).
///
/// A destination that gathers (`s3`, and `file` with Parquet) makes records durable only after `max_age_s`. Where that is not
/// less than `answer_ms_max`, give it `spool = {}`: then its buffer keeps them, and senders are answered at once.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-waits" = {"answer_ms": "/answer_ms_max", "default": 30_000, "bytes": "/body_bytes_max", "default_bytes": 4_194_304}))]
struct Config {
    /// Address to listen at, such as `0.0.0.0:8080`. Ports below 1024 need a right of the daemon's.
    listen: SocketAddr,
    /// The path that is called.
    #[serde(default = "root")]
    path: String,
    /// What a body is.
    #[serde(default)]
    format: Format,
    /// For JSON: field = type, as in the source `file`.
    #[serde(default)]
    types: BTreeMap<String, String>,
    /// Token that senders have (`Authorization: Bearer …`).
    bearer: Option<SecretRef>,
    /// Senders sign the body (HMAC-SHA256).
    signature: Option<Signature>,
    /// Lets everybody in. Without credentials and without certificates of clients this has to be said.
    #[serde(default)]
    anybody: bool,
    /// Certificate to show, and whose clients to let in.
    tls: Option<ListenTls>,
    /// Largest body, in bytes: 1,024 to 16,777,216.
    #[serde(default = "one_mib")]
    body_bytes_max: usize,
    /// How long a sender waits for the destination at most, in milliseconds, before it is told to come again: 100 to 300,000.
    #[serde(default = "half_a_minute")]
    answer_ms_max: u64,
}

/// What a body is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Format {
    /// A JSON object, or an array of them: each is a record, its fields become columns.
    #[default]
    Json,
    /// One JSON object per line.
    JsonLines,
    /// UTF-8 text: one record, in the column `payload`.
    Text,
    /// Any bytes: the same.
    Bytes,
}

/// How senders sign.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Signature {
    /// The secret both have.
    secret: SecretRef,
    /// The header with the signature.
    #[serde(default = "signature_header")]
    header: String,
    /// What stands before it there.
    #[serde(default = "signature_prefix")]
    prefix: String,
    /// How it is written.
    #[serde(default)]
    encoding: Encoding,
}

/// How bytes are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Encoding {
    /// Hexadecimal.
    #[default]
    Hex,
    /// Base64.
    Base64,
}

fn root() -> String {
    "/".to_string()
}

fn one_mib() -> usize {
    1024 * 1024
}

fn half_a_minute() -> u64 {
    30_000
}

fn signature_header() -> String {
    "X-Hub-Signature-256".to_string()
}

fn signature_prefix() -> String {
    "sha256=".to_string()
}

/// The registry line.
pub(crate) const SOURCE: Component = Component {
    descriptor,
    build: Build::Source(build),
};

const EXAMPLE: &str = r#"name = "events"

[sources.events]
type = "webhook"
listen = "0.0.0.0:8080"
path = "/events"
bearer = { env = "EVENTS_TOKEN" }

[destinations.out]
type = "stdout"
from = "events"
"#;

fn descriptor() -> Descriptor {
    let summary = "Is called over HTTP, and answers when the records are durable";
    // It does not read again: whoever was not answered calls again.
    describe::<Config>(ComponentRole::Source, "webhook", summary, EXAMPLE)
}

fn build(config: &str, context: &BuildContext) -> Result<Box<dyn Source>, ConfigError> {
    let config: Config = parse_config(config)?;
    if !config.path.starts_with('/') || config.path.contains(['?', '#']) {
        return Err(ConfigError::at("path", "begins with /, and has no ? and no #"));
    }
    if !BODY_BYTES.contains(&config.body_bytes_max) {
        let bounds = format!("is {} to {}", BODY_BYTES.start(), BODY_BYTES.end());
        return Err(ConfigError::at("body_bytes_max", bounds));
    }
    if !ANSWER_MS.contains(&config.answer_ms_max) {
        let bounds = format!("is {} to {}", ANSWER_MS.start(), ANSWER_MS.end());
        return Err(ConfigError::at("answer_ms_max", bounds));
    }
    let knows_clients = config.tls.as_ref().is_some_and(ListenTls::knows_clients);
    let is_guarded = config.bearer.is_some() || config.signature.is_some() || knows_clients;
    if is_guarded == config.anybody {
        let cause = match is_guarded {
            true => "is the opposite of bearer, signature and tls.client_ca_file",
            false => "nobody's word is asked for: set bearer, signature or tls.client_ca_file, or anybody = true",
        };
        return Err(ConfigError::at("anybody", cause));
    }
    if let Some(signature) = &config.signature
        && HeaderName::try_from(&signature.header).is_err()
    {
        return Err(ConfigError::at(
            "signature.header",
            format!("'{}' is no name of a header", signature.header),
        ));
    }
    if !matches!(config.format, Format::Json | Format::JsonLines) && !config.types.is_empty() {
        return Err(ConfigError::at("types", "only for JSON"));
    }
    Ok(Box::new(Webhook {
        shape: Shape::new(types(&config.types)?),
        config,
        base_dir: context.base_dir.clone(),
        session: None,
    }))
}

/// The source's bookmark: how many records of which listening. Means nothing to a later one: who was not answered calls
/// again.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Bookmark {
    v: u8,
    session: u64,
    records: u64,
}

struct Session {
    id: u64,
    inbox: Inbox<Called>,
    /// Taken from the inbox, and not read yet.
    waiting: VecDeque<Record>,
    /// Records read so far.
    records: u64,
    /// Read and not durable: the number of the last record of a call, and who waits for it.
    unanswered: VecDeque<(u64, request::Waiting)>,
    listening: Task,
    /// Ends the listening.
    stop: watch::Sender<bool>,
}

struct Webhook {
    config: Config,
    base_dir: PathBuf,
    shape: Shape,
    session: Option<Session>,
}

impl Webhook {
    fn payload_format(&self) -> payload::Format {
        match self.config.format {
            Format::Json | Format::JsonLines => payload::Format::Json,
            Format::Text => payload::Format::Text,
            Format::Bytes => payload::Format::Bytes,
        }
    }
}

#[async_trait]
impl Source for Webhook {
    async fn open(&mut self, _: Option<&Position>) -> Result<(), Fault> {
        self.close().await;
        let address = self.config.listen;
        let failed = |cause: String| Fault::retry(format!("cannot listen for HTTP at {address}: {cause}"));
        let rules = Rules::new(&self.config, &self.base_dir).map_err(failed)?;
        let tls = self.config.tls.as_ref().map(|tls| tls.server_config(&self.base_dir));
        let tls = tls.transpose().map_err(failed)?;
        let socket = TcpListener::bind(address)
            .await
            .map_err(|error| failed(error.to_string()))?;
        let (door, inbox) = inbox();
        let (stop, stopped) = watch::channel(false);
        let listener = Listener::new(rules, door, tls.map(|config| TlsAcceptor::from(Arc::new(config))));
        self.session = Some(Session {
            id: RandomState::new().hash_one(SystemTime::now()),
            inbox,
            waiting: VecDeque::new(),
            records: 0,
            unanswered: VecDeque::new(),
            listening: Task(tokio::spawn(listener.run(socket, stopped))),
            stop,
        });
        Ok(())
    }

    async fn ready(&mut self) -> bool {
        match &mut self.session {
            Some(session) if session.waiting.is_empty() => session.inbox.ready().await,
            _ => true,
        }
    }

    async fn read(&mut self) -> Result<Read, Fault> {
        let format = self.payload_format();
        let Some(session) = &mut self.session else {
            return Err(Fault::retry("the webhook is not open"));
        };
        if session.waiting.is_empty() {
            let Some(calls) = session.inbox.gather().await else {
                return Err(Fault::retry("nobody listens for HTTP requests any more"));
            };
            session.waiting.extend(calls.into_iter().flat_map(Called::records));
        }
        if session.waiting.is_empty() {
            return Ok(Read::Idle);
        }
        let mut bytes = 0;
        let wanted = session.waiting.iter().take_while(|record| {
            let is_first = bytes == 0;
            bytes += record.weight();
            is_first || bytes <= BATCH_BYTES_TARGET
        });
        let wanted = wanted.count();
        let records = &session.waiting.make_contiguous()[..wanted];
        let made = payload::batch(records, format, &mut self.shape, "webhook");
        let (batch, undecodable, taken) = made.map_err(|cause| Fault::stop(format!("HTTP requests: {cause}")))?;
        for record in session.waiting.drain(..taken) {
            session.records += 1;
            if let Some(waiting) = record.waiting {
                session.unanswered.push_back((session.records, waiting));
            }
        }
        let bookmark = Bookmark {
            v: 1,
            session: session.id,
            records: session.records,
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
            Ok(bookmark) if bookmark.session == session.id => bookmark.records,
            // Of an earlier one: nobody waits for that answer any more.
            _ => return Ok(()),
        };
        while let Some((_, waiting)) = session.unanswered.pop_front_if(|(number, _)| *number <= up_to) {
            // Who has gone meanwhile calls again.
            let _ = waiting.send(());
        }
        Ok(())
    }

    async fn check(&mut self) -> Result<String, Trouble> {
        let signature = self.config.signature.as_ref().map(|signature| &signature.secret);
        reach::secrets(self.config.bearer.iter().chain(signature), &self.base_dir)?;
        if let Some(tls) = &self.config.tls {
            tls.server_config(&self.base_dir)
                .map_err(|cause| reach::certificates(&cause))?;
        }
        reach::listen_tcp(self.config.listen).await?;
        Ok(format!("it can listen at {}", self.config.listen))
    }

    async fn close(&mut self) {
        let Some(session) = self.session.take() else { return };
        let Session {
            mut listening,
            stop,
            inbox,
            waiting,
            unanswered,
            ..
        } = session;
        // Those who wait learn that they have to come again.
        drop((inbox, waiting, unanswered));
        let _ = stop.send(true);
        if timeout(CLOSE_WAIT, &mut listening.0).await.is_err() {
            // The port is free when the task is gone.
            listening.0.abort();
            let _ = (&mut listening.0).await;
        }
    }
}
