//! A secure channel without security over TCP (OPC 10000-6, 6.7 and 7.1): requests go out in chunks, and answers come back
//! with the number of their request, in any order. Knows no service but the one that opens it.

use std::{collections::VecDeque, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

use super::{
    message::{self, kind},
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
/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ChannelError {
    /// The connection is of no use any more.
    #[error("{0}")]
    Broken(String),
    /// The server says no.
    #[error("{what} failed with {status}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// The reason.
        status: Status,
    },
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
}

impl Channel {
    /// Connects and opens a channel. `url` is what the server shall be called in its own eyes.
    pub(super) async fn open(host: &str, port: u16, url: &str) -> Result<Self, ChannelError> {
        let late = |_| ChannelError::Broken(format!("no answer within {} s", ANSWER_WAIT.as_secs()));
        timeout(ANSWER_WAIT, Self::dial(host, port, url)).await.map_err(late)?
    }

    async fn dial(host: &str, port: u16, url: &str) -> Result<Self, ChannelError> {
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
        let mut acknowledged = Reader::new(&frame.content);
        acknowledged.u32()?;
        let takes = acknowledged.u32()?;
        channel.chunk_bytes = takes.clamp(CHUNK_BYTES_MIN, CHUNK_BYTES) as usize;
        channel.renew(true).await?;
        Ok(channel)
    }

    /// Asks for a channel, or for more time on it.
    async fn renew(&mut self, is_first: bool) -> Result<(), ChannelError> {
        let mut content = message::request(kind::OPEN_CHANNEL, None);
        // Version, issue or renew, no security, no nonce, lifetime.
        content
            .u32(0)
            .u32(u32::from(!is_first))
            .u32(1)
            .nothing()
            .u32(LIFETIME_MS);
        let request = self.send(*b"OPN", &content.finish()).await?;
        let answer = self.answer(request).await?;
        let mut answer = message::response(&answer, kind::OPEN_CHANNEL, "opening a channel")?;
        answer.u32()?;
        (self.id, self.token) = (answer.u32()?, answer.u32()?);
        answer.i64()?;
        let lifetime_ms = answer.u32()?;
        let after_ms = u64::from(lifetime_ms) * u64::from(RENEWED_AFTER) / 100;
        self.renew_at = Instant::now() + Duration::from_millis(after_ms);
        Ok(())
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
            let answer = timeout_at(until, self.receive()).await;
            let late = |_| ChannelError::Broken(format!("no answer within {} s", ANSWER_WAIT.as_secs()));
            let (number, answer) = answer.map_err(late)??;
            if number == request {
                return Ok(answer);
            }
            if self.early.len() >= EARLY_MAX {
                return Err(ChannelError::Broken("it answers more than it was asked".to_string()));
            }
            self.early.push_back((number, answer));
        }
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
        let mut frames = Vec::with_capacity(content.len() + CHUNK_HEAD_BYTES);
        let mut pieces = content.chunks(self.chunk_bytes - CHUNK_HEAD_BYTES).peekable();
        while let Some(piece) = pieces.next() {
            self.sequence = self.sequence.wrapping_add(1).max(1);
            let mut frame = Writer::default();
            frame.u32(self.id);
            if ty == *b"OPN" {
                frame.text(POLICY_NONE).nothing().nothing();
            } else {
                frame.u32(self.token);
            }
            frame.u32(self.sequence).u32(self.request).raw(piece);
            let frame = frame.finish();
            frames.extend(ty);
            frames.push(if pieces.peek().is_some() { b'C' } else { b'F' });
            frames.extend((frame.len() as u32 + 8).to_le_bytes());
            frames.extend(frame);
        }
        let written = timeout(ANSWER_WAIT, self.stream.write_all(&frames)).await;
        written.map_err(|_| ChannelError::Broken("it takes nothing any more".to_string()))??;
        Ok(self.request)
    }

    /// The next whole message.
    async fn receive(&mut self) -> Result<Answer, ChannelError> {
        loop {
            let Frame { ty, mark, content } = self.frame().await?;
            let mut content = Reader::new(&content);
            content.u32()?;
            match &ty {
                b"OPN" => {
                    content.text()?;
                    content.bytes()?;
                    content.bytes()?;
                }
                b"MSG" => {
                    content.u32()?;
                }
                _ => return Err(ChannelError::Broken("it sends messages that are not known".to_string())),
            }
            content.u32()?;
            let request = content.u32()?;
            match mark {
                b'F' => {
                    let mut message = std::mem::take(&mut self.parts);
                    message.extend_from_slice(content.rest());
                    return Ok((request, message));
                }
                // Given up by the server.
                b'A' => self.parts.clear(),
                _ => self.parts.extend_from_slice(content.rest()),
            }
            if self.parts.len() > MESSAGE_BYTES_MAX {
                let cause = format!("its message has more than {MESSAGE_BYTES_MAX} bytes");
                return Err(ChannelError::Broken(cause));
            }
        }
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

/// A frame without its head.
#[derive(Debug, PartialEq, Eq)]
struct Frame {
    ty: [u8; 3],
    /// Whether it is the last of its message.
    mark: u8,
    content: Vec<u8>,
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
    let content = bytes[8..size as usize].to_vec();
    bytes.drain(..size as usize);
    if ty == *b"ERR" {
        let mut error = Reader::new(&content);
        let (status, reason) = (Status(error.u32()?), error.text()?.unwrap_or_default());
        return Err(ChannelError::Broken(format!(
            "the server ended it with {status} {reason}"
        )));
    }
    Ok(Some(Frame { ty, mark, content }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn frames_are_cut_where_they_end() {
        let mut bytes = b"MSGC\x0a\0\0\0abMSGF\x08\0\0\0ERRF\x13\0\0\0\0\0\x7d\x80\x03\0\0\0no!".to_vec();
        let frame = |mark, content: &[u8]| {
            Ok(Some(Frame {
                ty: *b"MSG",
                mark,
                content: content.to_vec(),
            }))
        };
        assert_eq!(take_frame(&mut bytes), frame(b'C', b"ab"));
        assert_eq!(take_frame(&mut bytes), frame(b'F', b""));
        let error = take_frame(&mut bytes).unwrap_err();
        assert_eq!(error.to_string(), "the server ended it with BadTcpServerTooBusy no!");
        assert_eq!(take_frame(&mut bytes), Ok(None));
        assert!(take_frame(&mut b"HTTP/1.1 400".to_vec()).is_err());
    }

    proptest! {
        #[test]
        fn anything_may_come(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            while let Ok(Some(frame)) = take_frame(&mut bytes) {
                prop_assert!(frame.content.len() < 200);
            }
        }
    }
}
