//! A secure channel over TCP (OPC 10000-6, 6.7 and 7.1), protected or not: requests go out in chunks, and answers come back
//! with the number of their request, in any order. Knows no service but the one that opens it.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

use super::{
    certificate::Unusable,
    message::{self, kind},
    security::{Head, Mode, Opened, Pair, Ring, SecurityError, nonce},
    status::Status,
    wire::{Reader, WireError, Writer},
};

/// The policy that protects nothing.
pub(super) const POLICY_NONE: &str = "http://opcfoundation.org/UA/SecurityPolicy#None";
/// How long connecting, and each answer, may take.
pub(super) const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// Bytes of a chunk, as we offer and as we take them at most.
const CHUNK_BYTES: u32 = 64 * 1024;
/// Least that the specification lets a server take.
const CHUNK_BYTES_MIN: u32 = 8192;
/// Bytes of a chunk before its content: type, size, channel, token, sequence, request.
const CHUNK_HEAD_BYTES: usize = 24;
/// Bytes of a message that may come, in all of its chunks. A list of single bytes takes thirty times as much in memory.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Chunks that make up such a message.
const CHUNKS_MAX: u32 = 1024;
/// Answers that came before they were asked after.
const EARLY_MAX: usize = 64;
/// How long a channel is asked to live, in milliseconds.
const LIFETIME_MS: u32 = 3_600_000;
/// It is renewed after so much of its life, in hundredths.
const RENEWED_AFTER: u32 = 75;
/// What comes with its keys is taken for so much of its life, in hundredths: it may have been on the way.
const TAKEN_FOR: u32 = 125;
/// It is renewed no more often than this, whatever the server says.
const RENEWED_LEAST: Duration = Duration::from_secs(1);
/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ChannelError {
    /// The connection is of no use any more.
    #[error("{0}")]
    Broken(String),
    /// The server ended the connection.
    #[error("the server ended it with {status} {reason}")]
    Ended {
        /// Why.
        status: Status,
        /// The same in words.
        reason: String,
    },
    /// The connection cannot be protected as it should be.
    #[error("{cause}")]
    Unprotected {
        /// Why not.
        cause: String,
        /// What would mend it.
        remedy: String,
    },
    /// The server says no.
    #[error("{what} failed with {status}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// The reason.
        status: Status,
    },
}

impl ChannelError {
    /// What would mend it, where that is known.
    pub(super) fn remedy(&self) -> Option<&str> {
        match self {
            ChannelError::Broken(_) => None,
            ChannelError::Unprotected { remedy, .. } => Some(remedy),
            ChannelError::Ended { status, .. } | ChannelError::Refused { status, .. } => status.remedy(),
        }
    }
}

impl From<Unusable> for ChannelError {
    fn from(Unusable { cause, remedy }: Unusable) -> Self {
        ChannelError::Unprotected { cause, remedy }
    }
}

impl From<SecurityError> for ChannelError {
    fn from(error: SecurityError) -> Self {
        ChannelError::Unprotected {
            cause: format!("its protection does not hold: {error}"),
            remedy: "it is tried again by itself; if that does not help, find out who on the way changes what is sent"
                .to_string(),
        }
    }
}

impl From<WireError> for ChannelError {
    fn from(error: WireError) -> Self {
        ChannelError::Broken(format!("it does not speak as it should: {error}"))
    }
}

impl From<std::io::Error> for ChannelError {
    fn from(error: std::io::Error) -> Self {
        ChannelError::Broken(error.to_string())
    }
}

/// An answer: the number of its request, and its bytes.
pub(super) type Answer = (u32, Vec<u8>);

/// What protects a channel.
struct Protected {
    pair: Arc<Pair>,
    ring: Ring<Instant>,
}

/// An open channel.
pub(super) struct Channel {
    stream: TcpStream,
    /// Came, and not looked at yet.
    bytes: Vec<u8>,
    /// The chunks of a message so far.
    parts: Vec<u8>,
    early: VecDeque<Answer>,
    chunk_bytes: usize,
    id: u32,
    token: u32,
    sequence: u32,
    request: u32,
    renew_at: Instant,
    /// Until when the newest keys are taken.
    taken_until: Instant,
    protected: Option<Protected>,
}

impl Channel {
    /// Connects and opens a channel, protected by `pair` or not at all. `url` is what the server shall be called in its own
    /// eyes.
    pub(super) async fn open(host: &str, port: u16, url: &str, pair: Option<Arc<Pair>>) -> Result<Self, ChannelError> {
        timeout(ANSWER_WAIT, Self::dial(host, port, url, pair))
            .await
            .map_err(late)?
    }

    async fn dial(host: &str, port: u16, url: &str, pair: Option<Arc<Pair>>) -> Result<Self, ChannelError> {
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        let mut channel = Self {
            stream,
            bytes: Vec::new(),
            parts: Vec::new(),
            early: VecDeque::new(),
            chunk_bytes: CHUNK_BYTES_MIN as usize,
            id: 0,
            token: 0,
            sequence: 0,
            request: 0,
            renew_at: Instant::now(),
            taken_until: Instant::now(),
            protected: pair.map(|pair| Protected {
                pair,
                ring: Ring::new(),
            }),
        };
        let mut hello = Writer::default();
        // Version, most bytes of a chunk to us and from us, most bytes and chunks of a message to us.
        hello.u32(0).u32(CHUNK_BYTES).u32(CHUNK_BYTES);
        hello.u32(MESSAGE_BYTES_MAX as u32).u32(CHUNKS_MAX).text(url);
        let hello = hello.finish();
        let mut frame = b"HELF".to_vec();
        frame.extend((hello.len() as u32 + 8).to_le_bytes());
        frame.extend(hello);
        channel.stream.write_all(&frame).await?;
        let frame = channel.frame().await?;
        if frame.ty != *b"ACK" {
            return Err(ChannelError::Broken("it is no OPC UA server".to_string()));
        }
        let mut acknowledged = Reader::new(frame.content());
        acknowledged.u32()?;
        let takes = acknowledged.u32()?;
        channel.chunk_bytes = takes.clamp(CHUNK_BYTES_MIN, CHUNK_BYTES) as usize;
        let is_protected = channel.protected.is_some();
        match channel.renew(true).await {
            // Many close it without a word when they do not like what is shown to them.
            Err(ChannelError::Broken(cause)) if is_protected => {
                let remedy = Status::BAD_SECURITY_CHECKS.remedy().unwrap_or_default();
                Err(ChannelError::Unprotected {
                    cause: format!("{cause}, when the protected channel was opened"),
                    remedy: remedy.to_string(),
                })
            }
            opened => opened.map(|()| channel),
        }
    }

    /// Asks for a channel, or for more time on it; with keys of its own each time, if it is protected.
    async fn renew(&mut self, is_first: bool) -> Result<(), ChannelError> {
        let pair = self.protected.as_ref().map(|protected| Arc::clone(&protected.pair));
        let mode = pair.as_ref().map_or(Mode::None, |pair| pair.mode);
        let mut content = message::request(kind::OPEN_CHANNEL, None);
        // Version, issue or renew, nonce, lifetime.
        content.u32(0).u32(u32::from(!is_first)).u32(mode.code());
        let own_nonce = match pair {
            None => Vec::new(),
            Some(_) => nonce()?.to_vec(),
        };
        match pair {
            None => content.nothing(),
            Some(_) => content.bytes(&own_nonce),
        };
        content.u32(LIFETIME_MS);
        let content = content.finish();
        let answer = match &pair {
            None => {
                let request = self.send(*b"OPN", &content).await?;
                self.answer(request).await?
            }
            Some(pair) => self.open_protected(pair, content).await?,
        };
        let mut answer = message::response(&answer, kind::OPEN_CHANNEL, "opening a channel")?;
        answer.u32()?;
        (self.id, self.token) = (answer.u32()?, answer.u32()?);
        answer.i64()?;
        let lifetime_ms = answer.u32()?;
        let part = |hundredths: u32| Duration::from_millis(u64::from(lifetime_ms) * u64::from(hundredths) / 100);
        let before_until = self.taken_until;
        self.renew_at = Instant::now() + part(RENEWED_AFTER).max(RENEWED_LEAST);
        self.taken_until = Instant::now() + part(TAKEN_FOR);
        if let Some(Protected { pair, ring }) = &mut self.protected {
            let other_nonce = answer.bytes()?.unwrap_or_default();
            if other_nonce.len() < own_nonce.len() || other_nonce == own_nonce {
                return Err(ChannelError::Broken("its nonce can be guessed".to_string()));
            }
            ring.renew(self.token, pair.keys(&own_nonce, other_nonce), before_until);
        }
        Ok(())
    }

    /// Asks in a chunk that is signed and encrypted with the keys of the certificates. Those take their time: others run
    /// meanwhile.
    async fn open_protected(&mut self, pair: &Arc<Pair>, content: Vec<u8>) -> Result<Vec<u8>, ChannelError> {
        self.request = self.request.wrapping_add(1).max(1);
        let head = self.head(*b"OPN", b'F');
        let ours = Arc::clone(pair);
        let chunk = aside(move || Ok(ours.wrap_open(head, &content)?)).await?;
        self.write(&chunk).await?;
        let until = Instant::now() + ANSWER_WAIT;
        let frame = loop {
            let frame = timeout_at(until, self.frame()).await.map_err(late)??;
            if frame.ty == *b"OPN" {
                break frame;
            }
            if let Some(early) = self.taken(&frame)? {
                self.keep(early)?;
            }
        };
        let theirs = Arc::clone(pair);
        let opened = aside(move || Ok(theirs.unwrap_open(&frame.bytes)?)).await?;
        if let Some(protected) = &mut self.protected {
            protected.ring.follows(opened.sequence)?;
        }
        if opened.request != head.request {
            return Err(ChannelError::Broken(
                "it opens a channel that nobody asked for".to_string(),
            ));
        }
        Ok(opened.content)
    }

    /// Renews the channel when it is time.
    pub(super) async fn keep_open(&mut self) -> Result<(), ChannelError> {
        if Instant::now() < self.renew_at {
            return Ok(());
        }
        self.renew(false).await
    }

    /// Asks and waits for the answer; others that come meanwhile are kept.
    pub(super) async fn call(&mut self, content: &[u8]) -> Result<Vec<u8>, ChannelError> {
        let request = self.ask(content).await?;
        self.answer(request).await
    }

    /// Asks; the number is that of the answer.
    pub(super) async fn ask(&mut self, content: &[u8]) -> Result<u32, ChannelError> {
        self.send(*b"MSG", content).await
    }

    async fn answer(&mut self, request: u32) -> Result<Vec<u8>, ChannelError> {
        let until = Instant::now() + ANSWER_WAIT;
        loop {
            let answer = timeout_at(until, self.receive()).await.map_err(late)??;
            if answer.0 == request {
                return Ok(answer.1);
            }
            self.keep(answer)?;
        }
    }

    /// Keeps an answer for whoever asks after it.
    fn keep(&mut self, answer: Answer) -> Result<(), ChannelError> {
        if self.early.len() >= EARLY_MAX {
            return Err(ChannelError::Broken("it answers more than it was asked".to_string()));
        }
        self.early.push_back(answer);
        Ok(())
    }

    /// The next answer. May be dropped while it waits: nothing is lost.
    pub(super) async fn next(&mut self) -> Result<Answer, ChannelError> {
        match self.early.pop_front() {
            Some(early) => Ok(early),
            None => self.receive().await,
        }
    }

    /// Says goodbye; the server lets go of the channel.
    pub(super) async fn close(mut self) {
        let content = message::request(kind::CLOSE_CHANNEL, None).finish();
        // There is no answer, and nothing to be done if it does not arrive.
        let _ = timeout(Duration::from_secs(1), self.send(*b"CLO", &content)).await;
    }

    async fn send(&mut self, ty: [u8; 3], content: &[u8]) -> Result<u32, ChannelError> {
        self.request = self.request.wrapping_add(1).max(1);
        let piece_bytes = match &self.protected {
            None => self.chunk_bytes - CHUNK_HEAD_BYTES,
            Some(protected) => protected.pair.content_bytes(self.chunk_bytes),
        };
        let mut frames = Vec::with_capacity(content.len() + CHUNK_HEAD_BYTES);
        let mut pieces = content.chunks(piece_bytes).peekable();
        while let Some(piece) = pieces.next() {
            let head = self.head(ty, if pieces.peek().is_some() { b'C' } else { b'F' });
            match &self.protected {
                None => frames.extend(self.bare(head, piece)),
                Some(Protected { pair, ring }) => frames.extend(ring.wrap(pair, head, piece)?),
            }
        }
        self.write(&frames).await?;
        Ok(self.request)
    }

    /// What the next chunk begins with.
    fn head(&mut self, ty: [u8; 3], mark: u8) -> Head {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        Head {
            ty,
            mark,
            channel: self.id,
            sequence: self.sequence,
            request: self.request,
        }
    }

    /// A chunk that nothing protects.
    fn bare(&self, head: Head, piece: &[u8]) -> Vec<u8> {
        let mut frame = Writer::default();
        frame.u32(head.channel);
        if head.ty == *b"OPN" {
            frame.text(POLICY_NONE).nothing().nothing();
        } else {
            frame.u32(self.token);
        }
        frame.u32(head.sequence).u32(head.request).raw(piece);
        let frame = frame.finish();
        let mut whole = head.ty.to_vec();
        whole.push(head.mark);
        whole.extend((frame.len() as u32 + 8).to_le_bytes());
        whole.extend(frame);
        whole
    }

    async fn write(&mut self, frames: &[u8]) -> Result<(), ChannelError> {
        let written = timeout(ANSWER_WAIT, self.stream.write_all(frames)).await;
        written.map_err(|_| ChannelError::Broken("it takes nothing any more".to_string()))??;
        Ok(())
    }

    /// The next whole message.
    async fn receive(&mut self) -> Result<Answer, ChannelError> {
        loop {
            let frame = self.frame().await?;
            if let Some(answer) = self.taken(&frame)? {
                return Ok(answer);
            }
        }
    }

    /// Takes a chunk; `Some` when its message is whole.
    fn taken(&mut self, frame: &Frame) -> Result<Option<Answer>, ChannelError> {
        let Opened { request, content, .. } = match (&frame.ty, &mut self.protected) {
            (b"MSG", Some(Protected { pair, ring })) => ring.unwrap(pair, &frame.bytes, Instant::now())?,
            (b"MSG" | b"OPN", None) => opened(frame)?,
            _ => return Err(ChannelError::Broken("it sends messages that are not known".to_string())),
        };
        match frame.mark {
            b'F' => {
                let mut message = std::mem::take(&mut self.parts);
                message.extend_from_slice(&content);
                return Ok(Some((request, message)));
            }
            // Given up by the server.
            b'A' => self.parts.clear(),
            _ => self.parts.extend_from_slice(&content),
        }
        if self.parts.len() > MESSAGE_BYTES_MAX {
            let cause = format!("its message has more than {MESSAGE_BYTES_MAX} bytes");
            return Err(ChannelError::Broken(cause));
        }
        Ok(None)
    }

    /// The next frame. May be dropped while it waits.
    async fn frame(&mut self) -> Result<Frame, ChannelError> {
        loop {
            if let Some(frame) = take_frame(&mut self.bytes)? {
                return Ok(frame);
            }
            self.bytes.reserve(READ_BYTES);
            if self.stream.read_buf(&mut self.bytes).await? == 0 {
                return Err(ChannelError::Broken(
                    "the connection was closed by the server".to_string(),
                ));
            }
        }
    }
}

/// What does not come in time.
fn late<T>(_: T) -> ChannelError {
    ChannelError::Broken(format!("no answer within {} s", ANSWER_WAIT.as_secs()))
}

/// Does what takes long in a thread of its own.
pub(super) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ChannelError> + Send + 'static,
) -> Result<T, ChannelError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| ChannelError::Broken(error.to_string()))?
}

/// What is in a chunk that nothing protects.
fn opened(frame: &Frame) -> Result<Opened, WireError> {
    let mut content = Reader::new(frame.content());
    content.u32()?;
    if frame.ty == *b"OPN" {
        content.text()?;
        content.bytes()?;
        content.bytes()?;
    } else {
        content.u32()?;
    }
    Ok(Opened {
        sequence: content.u32()?,
        request: content.u32()?,
        content: content.rest().to_vec(),
    })
}

/// A frame, whole.
#[derive(Debug, PartialEq, Eq)]
struct Frame {
    ty: [u8; 3],
    /// Whether it is the last of its message.
    mark: u8,
    bytes: Vec<u8>,
}

impl Frame {
    /// What comes after its size.
    fn content(&self) -> &[u8] {
        self.bytes.get(8..).unwrap_or_default()
    }
}

/// Takes a frame out of what came. `None`: it is not all there yet.
fn take_frame(bytes: &mut Vec<u8>) -> Result<Option<Frame>, ChannelError> {
    let Some([a, b, c, mark, size @ ..]) = bytes.first_chunk::<8>() else {
        return Ok(None);
    };
    let (ty, mark, size) = ([*a, *b, *c], *mark, u32::from_le_bytes(*size));
    if !(8..=CHUNK_BYTES).contains(&size) {
        return Err(ChannelError::Broken("it is no OPC UA server".to_string()));
    }
    if bytes.len() < size as usize {
        return Ok(None);
    }
    let bytes = bytes.drain(..size as usize).collect();
    let frame = Frame { ty, mark, bytes };
    if ty == *b"ERR" {
        let mut error = Reader::new(frame.content());
        let (status, reason) = (Status(error.u32()?), error.text()?.unwrap_or_default().to_string());
        return Err(ChannelError::Ended { status, reason });
    }
    Ok(Some(frame))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn frames_are_cut_where_they_end() {
        let mut bytes = b"MSGC\x0a\0\0\0abMSGF\x08\0\0\0ERRF\x13\0\0\0\0\0\x7d\x80\x03\0\0\0no!".to_vec();
        for (mark, content) in [(b'C', &b"ab"[..]), (b'F', b"")] {
            let frame = take_frame(&mut bytes).unwrap().unwrap();
            assert_eq!((&frame.ty, frame.mark, frame.content()), (b"MSG", mark, content));
        }
        let error = take_frame(&mut bytes).unwrap_err();
        assert_eq!(error.to_string(), "the server ended it with BadTcpServerTooBusy no!");
        assert_eq!(take_frame(&mut bytes), Ok(None));
        assert!(take_frame(&mut b"HTTP/1.1 400".to_vec()).is_err());
    }

    proptest! {
        #[test]
        fn anything_may_come(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            while let Ok(Some(frame)) = take_frame(&mut bytes) {
                prop_assert!(frame.content().len() < 200);
            }
        }
    }
}
