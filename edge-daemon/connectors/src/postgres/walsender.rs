//! A replication connection: the part of PostgreSQL's protocol that `tokio-postgres` does not have
//! (<https://www.postgresql.org/docs/current/protocol-replication.html>). Credentials and TLS are those of `connect`. Knows
//! no table; what a slot sends passes through as it is.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flow::Fault;
use postgres_protocol::{
    authentication::{
        md5_hash,
        sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256},
    },
    message::frontend,
};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_postgres::config::{Config, Host, SslMode};
use tokio_rustls::TlsConnector;

use super::connect::Server;

/// How long connecting, and an answer to a command, may take.
const ANSWER_WAIT: Duration = Duration::from_secs(60);
/// How often the server hears from us, which it wants within `wal_sender_timeout` (60 s unless changed), and is asked to say
/// how far it is.
const STATUS_EVERY: Duration = Duration::from_secs(5);
/// A server that says nothing for this long, though it is asked, is taken for gone. While it decodes a large transaction of
/// which it has nothing to send it does not answer, and it would have to begin again.
const SILENCE_MAX: Duration = Duration::from_secs(300);
/// How long a goodbye may take.
const GOODBYE_WAIT: Duration = Duration::from_secs(5);
/// Messages handed over together, in bytes, but for the last, which may be large.
const CHUNK_BYTES: usize = 128 * 1024;
/// What is read at a time, in bytes.
const READ_BYTES: usize = 32 * 1024;
/// Longest message, in bytes: PostgreSQL's own bound.
const MESSAGE_BYTES_MAX: usize = 0x3fff_ffff;
/// From 1970 to 2000, in microseconds: what the protocol's clock counts from.
const EPOCH_MICROS: u128 = 946_684_800_000_000;

trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// A connection that takes commands.
pub(super) struct WalSender {
    stream: Box<dyn Duplex>,
    input: BytesMut,
    place: String,
}

/// A row of an answer.
pub(super) type AnswerRow = Vec<Option<String>>;

/// What a slot sends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// A message of the plugin.
    Data(Bytes),
    /// Everything that was committed before this place in the log has been sent.
    Reached(u64),
}

/// A slot that is being sent. A task of its own reads and answers, so that the server knows we are there while nobody takes
/// what came.
pub(super) struct Feed {
    pub receiver: mpsc::Receiver<Result<Vec<Sent>, Fault>>,
    confirmed: watch::Sender<u64>,
    task: JoinHandle<()>,
}

impl Feed {
    /// Tells the server that it may forget what was committed before this place.
    pub(super) fn confirm(&self, lsn: u64) {
        self.confirmed.send_if_modified(|confirmed| {
            let is_more = lsn > *confirmed;
            *confirmed = lsn.max(*confirmed);
            is_more
        });
    }

    /// Says goodbye.
    pub(super) async fn close(self) {
        let Self {
            receiver,
            confirmed,
            mut task,
        } = self;
        drop(confirmed);
        drop(receiver);
        if timeout(GOODBYE_WAIT, &mut task).await.is_err() {
            task.abort();
        }
    }
}

impl WalSender {
    /// Connects and logs in.
    pub(super) async fn connect(server: &Server, base_dir: &Path, name: &str) -> Result<Self, Fault> {
        let (config, tls, place) = server.parts(base_dir, name)?;
        let connect = async {
            let stream = open(&config, TlsConnector::from(Arc::new(tls))).await?;
            let mut sender = Self {
                stream,
                input: BytesMut::new(),
                place: place.clone(),
            };
            sender.log_in(&config).await?;
            Ok(sender)
        };
        let connected = timeout(ANSWER_WAIT, Box::pin(connect)).await;
        let connected = connected.unwrap_or_else(|_| Err("it did not answer".to_string()));
        connected.map_err(|cause| {
            Fault::retry(format!(
                "cannot connect to PostgreSQL at {place} for replication: {cause}"
            ))
        })
    }

    async fn log_in(&mut self, config: &Config) -> Result<(), String> {
        let user = config.get_user().unwrap_or_default();
        let database = config.get_dbname().unwrap_or(user);
        let parameters = [
            ("client_encoding", "UTF8"),
            ("user", user),
            ("database", database),
            ("replication", "database"),
            ("application_name", config.get_application_name().unwrap_or_default()),
        ];
        let mut out = BytesMut::new();
        frontend::startup_message(parameters, &mut out).map_err(text)?;
        self.send(&out).await?;
        let password = config.get_password();
        let mut scram = None;
        loop {
            let (tag, body) = self.message().await?;
            match tag {
                b'R' => {
                    let mut out = BytesMut::new();
                    answer_challenge(body, user, password, &mut scram, &mut out)?;
                    self.send(&out).await?;
                }
                b'Z' => return Ok(()),
                b'E' => return Err(error_of(&body)),
                // Parameters, the key for cancelling, notices.
                _ => {}
            }
        }
    }

    /// Runs a command and collects its rows.
    pub(super) async fn query(&mut self, sql: &str) -> Result<Vec<AnswerRow>, Fault> {
        self.query_within(sql, ANSWER_WAIT).await
    }

    /// The same for a command that may take longer.
    pub(super) async fn query_within(&mut self, sql: &str, wait: Duration) -> Result<Vec<AnswerRow>, Fault> {
        let run = async {
            let mut out = BytesMut::new();
            frontend::query(sql, &mut out).map_err(text)?;
            self.send(&out).await?;
            let (mut rows, mut error) = (Vec::new(), None);
            loop {
                let (tag, body) = self.message().await?;
                match tag {
                    b'D' => rows.push(row_of(body)?),
                    b'E' => error = Some(error_of(&body)),
                    b'Z' => return error.map_or(Ok(rows), Err),
                    _ => {}
                }
            }
        };
        let done: Result<_, String> = timeout(wait, run).await.unwrap_or_else(|_| Err("no answer".into()));
        done.map_err(|cause| Fault::retry(format!("PostgreSQL at {}: {cause}", self.place)))
    }

    /// Lets a slot send what was committed after `lsn`.
    pub(super) async fn start(mut self, slot: &str, publication: &str, lsn: u64) -> Result<Feed, Fault> {
        let publication = super::table::quote(publication).replace('\'', "''");
        let command = format!(
            "START_REPLICATION SLOT {} LOGICAL {} (proto_version '1', publication_names '{publication}')",
            super::table::quote(slot),
            Lsn(lsn)
        );
        let begin = async {
            let mut out = BytesMut::new();
            frontend::query(&command, &mut out).map_err(text)?;
            self.send(&out).await?;
            loop {
                let (tag, body) = self.message().await?;
                match tag {
                    b'W' => return Ok(()),
                    b'E' => return Err(error_of(&body)),
                    _ => {}
                }
            }
        };
        let begun: Result<_, String> = timeout(ANSWER_WAIT, begin)
            .await
            .unwrap_or_else(|_| Err("no answer".into()));
        begun.map_err(|cause| {
            Fault::retry(format!(
                "PostgreSQL at {} does not send the slot '{slot}': {cause}",
                self.place
            ))
        })?;
        // One chunk waits while the next is read: what is under way is bounded, and the server waits.
        let (sender, receiver) = mpsc::channel(1);
        let (confirmed, to_confirm) = watch::channel(lsn);
        let task = Task {
            connection: self,
            sender,
            to_confirm,
            chunk: Vec::new(),
            chunk_bytes: 0,
            received: lsn,
            heard: Instant::now(),
        };
        Ok(Feed {
            receiver,
            confirmed,
            task: tokio::spawn(task.run()),
        })
    }

    /// Says goodbye.
    pub(super) async fn end(mut self) {
        let mut out = BytesMut::new();
        frontend::terminate(&mut out);
        // The server notices anyway.
        let _ = timeout(GOODBYE_WAIT, self.send(&out)).await;
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.stream.write_all(bytes).await.map_err(text)?;
        self.stream.flush().await.map_err(text)
    }

    /// The next message: its tag and its body.
    async fn message(&mut self) -> Result<(u8, Bytes), String> {
        loop {
            if let Some(message) = split_message(&mut self.input)? {
                return Ok(message);
            }
            self.fill().await?;
        }
    }

    /// Reads more. Nothing is lost when it is dropped while it waits.
    async fn fill(&mut self) -> Result<(), String> {
        self.input.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.input).await {
            Ok(0) => Err("the server has closed the connection".to_string()),
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// What runs beside the source.
struct Task {
    connection: WalSender,
    sender: mpsc::Sender<Result<Vec<Sent>, Fault>>,
    to_confirm: watch::Receiver<u64>,
    /// What is to be handed over next, and how many bytes of it there are.
    chunk: Vec<Sent>,
    chunk_bytes: usize,
    /// How far the server has come.
    received: u64,
    heard: Instant,
}

impl Task {
    async fn run(mut self) {
        if let Err(cause) = self.serve().await {
            let cause = format!("PostgreSQL at {} stopped sending: {cause}", self.connection.place);
            // Nobody to tell: then nobody cares.
            let _ = self.sender.send(Err(Fault::retry(cause))).await;
            return;
        }
        let goodbye = async {
            self.status(true, false).await?;
            let mut out = BytesMut::new();
            frontend::copy_done(&mut out);
            frontend::terminate(&mut out);
            self.connection.send(&out).await
        };
        // The server notices anyway.
        let _ = timeout(GOODBYE_WAIT, goodbye).await;
    }

    /// Reads, hands over and answers until nobody listens any more.
    async fn serve(&mut self) -> Result<(), String> {
        let mut tick = tokio::time::interval(STATUS_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // What is read from was confirmed before, but the server may not have heard.
        self.status(true, false).await?;
        loop {
            self.take_whole().await?;
            let (has_chunk, has_room) = (!self.chunk.is_empty(), self.chunk_bytes < CHUNK_BYTES);
            // Whether there is something to say: that something is confirmed, or that we are there.
            let say = tokio::select! {
                permit = self.sender.reserve(), if has_chunk => match permit {
                    Ok(permit) => {
                        permit.send(Ok(std::mem::take(&mut self.chunk)));
                        self.chunk_bytes = 0;
                        None
                    }
                    Err(_) => return Ok(()),
                },
                // Also while nobody takes the chunk, so that the server's questions are heard.
                read = self.connection.fill(), if has_room => {
                    read?;
                    self.heard = Instant::now();
                    None
                }
                changed = self.to_confirm.changed() => match changed {
                    Ok(()) => Some(true),
                    Err(_) => return Ok(()),
                },
                _ = tick.tick() => Some(false),
            };
            if !has_room {
                // Nothing was read, so nothing could be heard.
                self.heard = Instant::now();
            }
            if self.heard.elapsed() > SILENCE_MAX {
                return Err(format!("nothing came for {} s", SILENCE_MAX.as_secs()));
            }
            if let Some(confirm) = say {
                self.status(confirm, !confirm).await?;
                if confirm {
                    // So that this is not the last that is said of it.
                    self.status(false, false).await?;
                }
            }
        }
    }

    /// Takes what has come in whole, as long as there is room for it.
    async fn take_whole(&mut self) -> Result<(), String> {
        let mut is_asked = false;
        while self.chunk_bytes < CHUNK_BYTES {
            let Some((tag, mut body)) = split_message(&mut self.connection.input)? else {
                break;
            };
            match tag {
                b'd' => {}
                b'E' => return Err(error_of(&body)),
                b'c' | b'C' => return Err("the server has ended it".to_string()),
                _ => continue,
            }
            match (body.try_get_u8().map_err(text)?, body.len()) {
                (b'w', 24..) => {
                    let _start = body.get_u64();
                    self.received = self.received.max(body.get_u64());
                    let _clock = body.get_u64();
                    self.chunk_bytes += body.len();
                    self.chunk.push(Sent::Data(body));
                }
                (b'k', 17..) => {
                    let end = body.get_u64();
                    self.received = self.received.max(end);
                    let _clock = body.get_u64();
                    is_asked |= body.get_u8() == 1;
                    match self.chunk.last_mut() {
                        Some(Sent::Reached(before)) => *before = end.max(*before),
                        _ => self.chunk.push(Sent::Reached(end)),
                    }
                }
                (kind, length) => return Err(format!("a message of kind {kind:#04x} with {length} bytes")),
            }
        }
        if is_asked {
            self.status(false, false).await?;
        }
        Ok(())
    }

    /// Says what has come, and on `confirm` what the server may forget. That is left out otherwise: a server that shuts down
    /// waits until all it has sent is confirmed by those who ever say so in their last message, and for a destination that
    /// is away it would wait in vain.
    async fn status(&mut self, confirm: bool, wants_answer: bool) -> Result<(), String> {
        let confirmed = *self.to_confirm.borrow_and_update();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let micros = now.map_or(0, |now| now.as_micros().saturating_sub(EPOCH_MICROS));
        let flushed = if confirm { confirmed } else { 0 };
        let mut out = BytesMut::new();
        out.put_u8(b'd');
        out.put_u32(4 + 34);
        out.put_u8(b'r');
        out.put_u64(self.received.max(confirmed));
        // Flushed, and applied.
        out.put_u64(flushed);
        out.put_u64(flushed);
        out.put_u64(micros as u64);
        out.put_u8(u8::from(wants_answer));
        self.connection.send(&out).await
    }
}

async fn open(config: &Config, tls: TlsConnector) -> Result<Box<dyn Duplex>, String> {
    let mut last = "no host is given".to_string();
    for (index, host) in config.get_hosts().iter().enumerate() {
        let ports = config.get_ports();
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        let opened = match host {
            Host::Tcp(host) => open_tcp(host, port, config.get_ssl_mode(), tls.clone()).await,
            Host::Unix(dir) => match UnixStream::connect(dir.join(format!(".s.PGSQL.{port}"))).await {
                Ok(stream) => Ok(Box::new(stream) as Box<dyn Duplex>),
                Err(error) => Err(error.to_string()),
            },
        };
        match opened {
            Ok(stream) => return Ok(stream),
            Err(cause) => last = cause,
        }
    }
    Err(last)
}

async fn open_tcp(host: &str, port: u16, mode: SslMode, tls: TlsConnector) -> Result<Box<dyn Duplex>, String> {
    let mut stream = TcpStream::connect((host, port)).await.map_err(text)?;
    stream.set_nodelay(true).map_err(text)?;
    if mode == SslMode::Disable {
        return Ok(Box::new(stream));
    }
    let mut out = BytesMut::new();
    frontend::ssl_request(&mut out);
    stream.write_all(&out).await.map_err(text)?;
    if stream.read_u8().await.map_err(text)? != b'S' {
        return Err("the server does not support TLS, so it needs tls.mode = \"disable\"".to_string());
    }
    let name = ServerName::try_from(host.to_string()).map_err(text)?;
    Ok(Box::new(tls.connect(name, stream).await.map_err(text)?))
}

/// Answers a message about who we are.
fn answer_challenge(
    mut body: Bytes,
    user: &str,
    password: Option<&[u8]>,
    scram: &mut Option<ScramSha256>,
    out: &mut BytesMut,
) -> Result<(), String> {
    let kind = body.try_get_u32().map_err(text)?;
    let missing = "the server asks for a password, and none is given".to_string();
    match kind {
        0 => Ok(()),
        3 => frontend::password_message(password.ok_or(missing)?, out).map_err(text),
        5 => {
            let salt = body.get(..4).and_then(|salt| salt.try_into().ok());
            let hash = md5_hash(user.as_bytes(), password.ok_or(missing)?, salt.ok_or("no salt")?);
            frontend::password_message(hash.as_bytes(), out).map_err(text)
        }
        10 if body
            .split(|byte| *byte == 0)
            .any(|name| name == SCRAM_SHA_256.as_bytes()) =>
        {
            let begun = ScramSha256::new(password.ok_or(missing)?, ChannelBinding::unsupported());
            frontend::sasl_initial_response(SCRAM_SHA_256, begun.message(), out).map_err(text)?;
            *scram = Some(begun);
            Ok(())
        }
        11 => {
            let scram = scram.as_mut().ok_or("an answer to nothing")?;
            scram.update(&body).map_err(text)?;
            frontend::sasl_response(scram.message(), out).map_err(text)
        }
        12 => scram
            .as_mut()
            .ok_or("an answer to nothing")?
            .finish(&body)
            .map_err(text),
        kind => Err(format!(
            "the server asks for a way to log in (number {kind}) that is not supported"
        )),
    }
}

/// Takes a whole message off the front.
fn split_message(input: &mut BytesMut) -> Result<Option<(u8, Bytes)>, String> {
    let Some((tag, length)) = input
        .get(..5)
        .map(|head| (head[0], u32::from_be_bytes([head[1], head[2], head[3], head[4]])))
    else {
        return Ok(None);
    };
    let length = length as usize;
    if !(4..=MESSAGE_BYTES_MAX).contains(&length) {
        return Err(format!("a message of {length} bytes: this is no PostgreSQL server"));
    }
    if input.len() < 1 + length {
        input.reserve(1 + length - input.len());
        return Ok(None);
    }
    let mut message = input.split_to(1 + length).freeze();
    message.advance(5);
    Ok(Some((tag, message)))
}

fn row_of(mut body: Bytes) -> Result<AnswerRow, String> {
    let count = body.try_get_u16().map_err(text)?;
    let mut row = Vec::new();
    for _ in 0..count {
        let length = body.try_get_i32().map_err(text)?;
        row.push(match usize::try_from(length) {
            Err(_) => None,
            Ok(length) if length <= body.len() => Some(String::from_utf8_lossy(&body.split_to(length)).into_owned()),
            Ok(_) => return Err("an answer ends too soon".to_string()),
        });
    }
    Ok(row)
}

/// What an error message says: the message, details, and the code.
fn error_of(body: &[u8]) -> String {
    let field = |kind: u8| {
        let found = body.split(|byte| *byte == 0).find(|field| field.first() == Some(&kind));
        found.map(|field| String::from_utf8_lossy(&field[1..]).into_owned())
    };
    let detail = field(b'D').map(|detail| format!(" ({detail})")).unwrap_or_default();
    format!(
        "{}{detail} [{}]",
        field(b'M').unwrap_or_default(),
        field(b'C').unwrap_or_default()
    )
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// A place in the log as PostgreSQL writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lsn(pub u64);

impl std::fmt::Display for Lsn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl Lsn {
    /// Reads what PostgreSQL writes.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (high, low) = text.split_once('/')?;
        let half = |text| u32::from_str_radix(text, 16).ok().map(u64::from);
        Some(Self(half(high)? << 32 | half(low)?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn errors_say_what_the_server_said() {
        let body = b"SERROR\0VERROR\0C55006\0Mslot is active\0Dfor PID 5\0\0";
        assert_eq!(error_of(body), "slot is active (for PID 5) [55006]");
        assert_eq!(error_of(b""), " []");
    }

    #[test]
    fn messages_are_taken_whole() {
        let mut input = BytesMut::from(&b"d\0\0\0\x06abZ\0\0\0\x05"[..]);
        assert_eq!(split_message(&mut input), Ok(Some((b'd', Bytes::from_static(b"ab")))));
        assert_eq!(split_message(&mut input), Ok(None));
        input.put_u8(b'I');
        assert_eq!(split_message(&mut input), Ok(Some((b'Z', Bytes::from_static(b"I")))));
        assert!(split_message(&mut BytesMut::from(&b"HTTP/1.1 400"[..])).is_err());
        assert!(split_message(&mut BytesMut::from(&b"d\0\0\0\x03"[..])).is_err());
    }

    proptest! {
        #[test]
        fn places_in_the_log_are_read_back(lsn: u64) {
            prop_assert_eq!(Lsn::parse(&Lsn(lsn).to_string()), Some(Lsn(lsn)));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = row_of(Bytes::from(bytes.clone()));
            let _ = error_of(&bytes);
            let mut input = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = split_message(&mut input) {}
            let _ = answer_challenge(Bytes::from(bytes), "u", Some(b"p"), &mut None, &mut BytesMut::new());
        }
    }
}
