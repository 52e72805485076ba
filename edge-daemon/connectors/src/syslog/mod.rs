//! Source `syslog`: listens for the messages of devices and programs, over UDP and TCP. Neither knows acknowledgements.

mod framing;
mod message;

use std::{
    borrow::Cow,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use bus_schema::{
    data::{Type, Value, Zone},
    plan::{ComponentRole, Descriptor},
};
use flow::{
    Build, BuildContext, Component, ConfigError, Fault, Position, Read, Source, SourceBatch, Trouble, Undecodable,
    describe, parse_config,
};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use self::{
    framing::{Frames, Piece},
    message::Message,
};
use crate::{
    file::{
        rows::{self, RowError, Rows, Shape, Token},
        text::timestamp,
    },
    inbox::{Door, Inbox, inbox},
    mqtt::Task,
    reach,
    tls::ListenTls,
};

/// Longest message, in bytes; what is longer goes to the dead letters, cut. No datagram is.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Connections at once; others wait.
const CONNECTIONS_MAX: usize = 64;
/// A connection on which nothing comes for this long is closed: those who sent may be gone without a word.
const IDLE_MAX: Duration = Duration::from_secs(3600);
/// How long greeting each other may take with TLS.
const GREETING_MAX: Duration = Duration::from_secs(10);
/// Bytes read of a connection at once.
const READ_BYTES: usize = 16 * 1024;
/// A moment for whoever holds what is short (open files, mostly) to let go.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Listens for syslog messages (RFC 5424, RFC 3164; over TCP counted or ended by a line end, RFC 6587; with TLS, RFC 5425).
/// Columns: `received_at` (UTC), `sender` (address), `facility` and `severity` (names), `time` (UTC; null when the message
/// has no time, or one without a zone and `utc_offset` is not set), `time_text` (as written), `host`, `app`, `process`,
/// `message_id`, `data` (structured data as JSON) and `message`. What a message does not say is null. Messages that are not
/// UTF-8, or longer than 64 KiB, go to the dead letters.
///
/// Syslog knows no acknowledgement: messages that were received and not stored when the daemon is killed are lost, and so
/// are datagrams that come faster than they are stored. Over TCP the sender waits. At most 64 connections.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Address to listen at for datagrams, such as `0.0.0.0:5514`. Ports below 1024 need a right of the daemon's.
    udp: Option<SocketAddr>,
    /// Address to listen at for connections.
    tcp: Option<SocketAddr>,
    /// Protects the connections.
    tls: Option<ListenTls>,
    /// Zone of times that have none, such as `+02:00` or `Z`. A year that is not said is the nearest.
    utc_offset: Option<String>,
}

/// The registry line.
pub(crate) const SOURCE: Component = Component {
    descriptor,
    build: Build::Source(build),
};

const EXAMPLE: &str = r#"name = "devices"

[sources.log]
type = "syslog"
udp = "0.0.0.0:5514"
tcp = "0.0.0.0:5514"

[destinations.out]
type = "stdout"
from = "log"
"#;

fn descriptor() -> Descriptor {
    let summary = "Listens for syslog messages over UDP and TCP";
    describe::<Config>(ComponentRole::Source, "syslog", summary, EXAMPLE)
}

fn build(config: &str, context: &BuildContext) -> Result<Box<dyn Source>, ConfigError> {
    let config: Config = parse_config(config)?;
    if config.udp.is_none() && config.tcp.is_none() {
        return Err(ConfigError::at(
            "udp",
            "set udp, tcp or both to an address to listen at",
        ));
    }
    if config.tls.is_some() && config.tcp.is_none() {
        return Err(ConfigError::at("tls", "is for connections: set tcp"));
    }
    if let Some(offset) = &config.utc_offset
        && timestamp(&format!("2024-01-01T00:00:00{offset}"), Zone::Utc).is_none()
    {
        return Err(ConfigError::at(
            "utc_offset",
            format!("'{offset}' is not like +02:00 or Z"),
        ));
    }
    Ok(Box::new(Syslog {
        config,
        base_dir: context.base_dir.clone(),
        shape: Shape::new(columns()),
        ears: None,
    }))
}

fn columns() -> Vec<(String, Type)> {
    let utc = Type::Timestamp(Zone::Utc);
    let columns = [
        ("received_at", utc.clone()),
        ("sender", Type::Text),
        ("facility", Type::Text),
        ("severity", Type::Text),
        ("time", utc),
        ("time_text", Type::Text),
        ("host", Type::Text),
        ("app", Type::Text),
        ("process", Type::Text),
        ("message_id", Type::Text),
        ("data", Type::Json),
        ("message", Type::Text),
    ];
    columns.map(|(name, ty)| (name.to_string(), ty)).into()
}

/// What came in.
struct Letter {
    bytes: Vec<u8>,
    sender: SocketAddr,
    received_ns: i128,
    /// It was longer, and the rest is gone.
    is_cut: bool,
}

struct Ears {
    inbox: Inbox<Letter>,
    tasks: Vec<Task>,
}

struct Syslog {
    config: Config,
    base_dir: PathBuf,
    shape: Shape,
    ears: Option<Ears>,
}

impl Syslog {
    fn row<'a>(&self, letter: &'a Letter, message: &Message<'a>) -> [Token<'a>; 12] {
        let text = |said: Option<&'a str>| said.map_or(Token::Null, |said| Token::Text(Cow::Borrowed(said)));
        let offset = self.config.utc_offset.as_deref();
        let time = message.time.and_then(|time| time_of(time, offset, letter.received_ns));
        [
            Token::Value(Value::TimestampUtc(letter.received_ns)),
            Token::Text(Cow::Owned(letter.sender.ip().to_canonical().to_string())),
            text(message.facility),
            text(message.severity),
            time.map_or(Token::Null, Token::Value),
            text(message.time),
            text(message.host),
            text(message.app),
            text(message.process),
            text(message.id),
            data_json(message).map_or(Token::Null, |json| Token::Value(Value::Json(json))),
            Token::Text(Cow::Borrowed(message.text)),
        ]
    }

    fn batch(&mut self, letters: &[Letter]) -> Result<SourceBatch, Fault> {
        let (mut rows, mut undecodable) = (Rows::new(), Vec::new());
        let names = columns();
        for letter in letters {
            let made = match std::str::from_utf8(&letter.bytes) {
                Err(error) => Err(format!("not UTF-8: {error}")),
                Ok(_) if letter.is_cut => Err(format!("it has more than {MESSAGE_BYTES_MAX} bytes")),
                Ok(text) => {
                    let tokens = self.row(letter, &message::parse(text));
                    let mut set = names.iter().zip(tokens);
                    let set: Result<(), RowError> =
                        set.try_for_each(|((name, _), token)| rows.set(&mut self.shape, name, token));
                    set.map_err(|error| error.to_string())
                }
            };
            match made {
                Ok(()) => rows.end(),
                Err(cause) => {
                    rows.undo();
                    undecodable.push(Undecodable {
                        bytes: letter.bytes.clone(),
                        reason: format!("a syslog message of {}: {cause}", letter.sender),
                    });
                }
            }
        }
        let batch = if rows.len() > 0 {
            let finished = rows.finish(&mut self.shape, "syslog");
            finished.map_err(|cause| Fault::stop(format!("syslog messages: {cause}")))?
        } else {
            rows::empty("syslog")
        };
        Ok(SourceBatch {
            batch,
            position: Position::default(),
            undecodable,
        })
    }
}

/// A message's time in UTC, where it can be known.
fn time_of(time: &str, offset: Option<&str>, now_ns: i128) -> Option<Value> {
    if time.as_bytes().first().is_some_and(u8::is_ascii_digit) {
        return timestamp(time, Zone::Utc);
    }
    let offset = offset?;
    // The date of now is read from its text: `2024-01-…`.
    let now = Value::TimestampUtc(now_ns).as_cell().to_string();
    let (year, month) = (now.get(..4)?.parse().ok()?, now.get(5..7)?.parse().ok()?);
    timestamp(&format!("{}{offset}", message::dated(time, year, month)?), Zone::Utc)
}

/// `{"name": {"key": "value"}}`. A key that stands there twice has its values in a list.
fn data_json(message: &Message<'_>) -> Option<String> {
    use serde_json::{Map, Value as Json};
    if message.data.is_empty() {
        return None;
    }
    let mut elements = Map::new();
    for (name, parameters) in &message.data {
        let element = elements.entry(*name).or_insert_with(|| Json::Object(Map::new()));
        let Json::Object(element) = element else { continue };
        for (key, value) in parameters {
            let value = Json::String(value.to_string());
            match element.get_mut(*key) {
                None => drop(element.insert((*key).to_string(), value)),
                Some(Json::Array(values)) => values.push(value),
                Some(first) => *first = Json::Array(vec![first.take(), value]),
            }
        }
    }
    Some(Json::Object(elements).to_string())
}

#[async_trait]
impl Source for Syslog {
    async fn open(&mut self, _: Option<&Position>) -> Result<(), Fault> {
        self.close().await;
        let (door, inbox) = inbox();
        let mut tasks = Vec::new();
        let failed = |what: &str, address: SocketAddr, error: std::io::Error| {
            let hint = match error.kind() {
                std::io::ErrorKind::PermissionDenied => " (ports below 1024 need CAP_NET_BIND_SERVICE)",
                _ => "",
            };
            Fault::retry(format!("cannot listen for syslog at {what} {address}: {error}{hint}"))
        };
        if let Some(address) = self.config.udp {
            let socket = UdpSocket::bind(address).await;
            let socket = socket.map_err(|error| failed("udp", address, error))?;
            tasks.push(Task(tokio::spawn(datagrams(socket, door.clone()))));
        }
        if let Some(address) = self.config.tcp {
            let tls = self.config.tls.as_ref().map(|tls| tls.server_config(&self.base_dir));
            let tls = tls
                .transpose()
                .map_err(|cause| Fault::retry(format!("TLS for syslog: {cause}")))?;
            let listener = TcpListener::bind(address).await;
            let listener = listener.map_err(|error| failed("tcp", address, error))?;
            let tls = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
            tasks.push(Task(tokio::spawn(connections(listener, tls, door))));
        }
        self.ears = Some(Ears { inbox, tasks });
        Ok(())
    }

    async fn read(&mut self) -> Result<Read, Fault> {
        let letters = match &mut self.ears {
            Some(ears) => ears.inbox.gather().await,
            None => None,
        };
        match letters {
            None => Err(Fault::retry("nobody listens for syslog messages any more")),
            Some(letters) if letters.is_empty() => Ok(Read::Idle),
            Some(letters) => self.batch(&letters).map(Read::Batch),
        }
    }

    async fn check(&mut self) -> Result<String, Trouble> {
        if let Some(tls) = &self.config.tls {
            tls.server_config(&self.base_dir)
                .map_err(|cause| reach::certificates(&cause))?;
        }
        let mut places = Vec::new();
        if let Some(address) = self.config.udp {
            reach::listen_udp(address).await?;
            places.push(format!("udp {address}"));
        }
        if let Some(address) = self.config.tcp {
            reach::listen_tcp(address).await?;
            places.push(format!("tcp {address}"));
        }
        Ok(format!("it can listen at {}", places.join(" and ")))
    }

    async fn close(&mut self) {
        let Some(ears) = self.ears.take() else { return };
        for mut task in ears.tasks {
            // The port is free when the task is gone.
            task.0.abort();
            let _ = (&mut task.0).await;
        }
    }
}

async fn datagrams(socket: UdpSocket, door: Door<Letter>) {
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((bytes, sender)) => {
                let letter = Letter {
                    bytes: buffer[..bytes].to_vec(),
                    sender,
                    received_ns: now_ns(),
                    is_cut: false,
                };
                if bytes > 0 && !door.bring(letter, bytes).await {
                    return;
                }
            }
            // Of an earlier answer that could not be delivered, or for want of memory.
            Err(error) => {
                tracing::warn!(%error, "a datagram could not be received");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connections(listener: TcpListener, tls: Option<TlsAcceptor>, door: Door<Letter>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // They end with this task.
    let mut talks = JoinSet::new();
    loop {
        while talks.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let (stream, sender) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (tls, door) = (tls.clone(), door.clone());
        talks.spawn(async move {
            let ended = Box::pin(talk(stream, sender, tls, door)).await;
            if let Err(cause) = ended {
                tracing::warn!(%sender, cause, "a syslog connection was closed");
            }
            drop(permit);
        });
    }
}

async fn talk(
    stream: TcpStream,
    sender: SocketAddr,
    tls: Option<TlsAcceptor>,
    door: Door<Letter>,
) -> Result<(), String> {
    let Some(tls) = tls else {
        return listen(stream, sender, door).await;
    };
    let greeted = timeout(GREETING_MAX, tls.accept(stream)).await;
    let stream = greeted.map_err(|_| "it did not greet in time".to_string())?;
    listen(stream.map_err(|error| error.to_string())?, sender, door).await
}

async fn listen(mut stream: impl AsyncRead + Unpin, sender: SocketAddr, door: Door<Letter>) -> Result<(), String> {
    let mut frames = Frames::default();
    loop {
        let buffer = frames.buffer();
        buffer.reserve(READ_BYTES);
        let read = match timeout(IDLE_MAX, stream.read_buf(buffer)).await {
            Err(_) => return Err("nothing came for a long time".to_string()),
            Ok(read) => read,
        };
        // What came before a connection broke is not less true.
        let last = !matches!(read, Ok(1..));
        let received_ns = now_ns();
        while let Some(piece) = frames.next(last).map_err(|error| error.to_string())? {
            let (bytes, is_cut) = match piece {
                Piece::Message(bytes) => (bytes, false),
                Piece::TooLong(bytes) => (bytes, true),
            };
            let weight = bytes.len();
            let letter = Letter {
                bytes,
                sender,
                received_ns,
                is_cut,
            };
            if !door.bring(letter, weight).await {
                return Ok(());
            }
        }
        if last {
            return read.map(drop).map_err(|error| error.to_string());
        }
    }
}

/// Advisory, as every wall clock is.
fn now_ns() -> i128 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as i128)
}

#[cfg(test)]
mod tests;
