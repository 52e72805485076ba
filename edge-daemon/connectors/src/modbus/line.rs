//! The line to the devices: a TCP connection, protected or not, or a serial port. Asks one question at a time and waits for
//! its answer. Knows no points.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use flow::{ConfigError, Trouble, TroubleKind};
use futures_util::FutureExt as _;
use rustls_pki_types::ServerName;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tokio_rustls::TlsConnector;
use tokio_serial::{DataBits, SerialStream};

use super::frame::{self, Reply, Span};
use crate::{reach, tls::TlsFiles};

/// How long connecting may take, TLS included.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// A device that is busy is left alone for this long.
const BUSY_PAUSE: Duration = Duration::from_millis(100);
/// A serial line on which nothing came for this long after a failure is quiet enough for a question to another unit.
const SETTLED: Duration = Duration::from_millis(50);
/// Bits of a letter on a serial line: start, data, parity, stop.
const LETTER_BITS: u32 = 11;
/// Silence between two frames on a serial line, in tenths of a letter's time; never less than [`SILENCE_MIN`].
const SILENCE_TENTHS: u32 = 35;
/// What the specification has for fast lines.
const SILENCE_MIN: Duration = Duration::from_micros(1750);
/// More than this is no answer, in bytes.
const ANSWER_BYTES_MAX: usize = 1024;
/// Bytes read at once.
const READ_BYTES: usize = 512;
/// Reads before a question that are thrown away: whoever sends more without being asked is not waited for.
const CLEARED_MAX: usize = 128;
/// Speeds of serial lines, in bits per second.
const SPEEDS: std::ops::RangeInclusive<u32> = 110..=4_000_000;
/// The exception of a device that has something else to do.
const BUSY: u8 = 6;

/// How frames are wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Framing {
    /// As Modbus TCP has it.
    Tcp,
    /// As on a serial line, with a checksum: for converters that pass bytes on as they are.
    Rtu,
}

/// A serial line.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SerialConfig {
    /// The device, such as `/dev/ttyUSB0`; a name under `/dev/serial/by-id` stays the same.
    device: PathBuf,
    /// Bits per second. Default: 19200.
    #[serde(default = "default_speed")]
    speed: u32,
    /// Default: even, as the specification has it.
    #[serde(default)]
    parity: Parity,
    /// 1 or 2. Default: 1, or 2 where there is no parity.
    #[schemars(range(min = 1, max = 2))]
    stop_bits: Option<u8>,
}

fn default_speed() -> u32 {
    19_200
}

/// The bit that checks the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Parity {
    /// There is an even number of ones.
    #[default]
    Even,
    /// There is an odd number of ones.
    Odd,
    /// There is none.
    None,
}

impl SerialConfig {
    /// Finds what can be found wrong without opening it.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if !SPEEDS.contains(&self.speed) {
            let message = format!("must be from {} to {}", SPEEDS.start(), SPEEDS.end());
            return Err(ConfigError::at("serial.speed", message));
        }
        if self.stop_bits.is_some_and(|bits| !(1..=2).contains(&bits)) {
            return Err(ConfigError::at("serial.stop_bits", "1 or 2"));
        }
        if self.device.as_os_str().is_empty() {
            return Err(ConfigError::at("serial.device", "is missing"));
        }
        Ok(())
    }

    fn open(&self) -> Result<SerialStream, String> {
        let parity = match self.parity {
            Parity::Even => tokio_serial::Parity::Even,
            Parity::Odd => tokio_serial::Parity::Odd,
            Parity::None => tokio_serial::Parity::None,
        };
        let stop_bits = match (self.stop_bits, self.parity) {
            (Some(2), _) | (None, Parity::None) => tokio_serial::StopBits::Two,
            _ => tokio_serial::StopBits::One,
        };
        let builder = tokio_serial::new(self.device.to_string_lossy(), self.speed)
            .data_bits(DataBits::Eight)
            .parity(parity)
            .stop_bits(stop_bits);
        SerialStream::open(&builder).map_err(|error| match error.kind() {
            tokio_serial::ErrorKind::Io(io::ErrorKind::PermissionDenied) => {
                format!("{error} (the daemon's user has to be in the device's group, often dialout)")
            }
            _ => error.to_string(),
        })
    }

    /// How long so many bytes are under way.
    fn flight(&self, bytes: usize) -> Duration {
        Duration::from_secs(1) * LETTER_BITS * bytes as u32 / self.speed
    }

    /// The silence that ends a frame.
    fn silence(&self) -> Duration {
        (self.flight(1) * SILENCE_TENTHS / 10).max(SILENCE_MIN)
    }
}

/// Where the devices are.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// At the end of a connection.
    Tcp {
        host: String,
        port: u16,
        framing: Framing,
        tls: Option<TlsFiles>,
        base_dir: PathBuf,
    },
    /// On a serial line.
    Serial(SerialConfig),
}

impl Place {
    /// Sees what is wrong with the way to it.
    pub(super) async fn check(&self) -> Result<(), Trouble> {
        match self {
            Place::Tcp {
                host,
                port,
                tls,
                base_dir,
                ..
            } => {
                let stream = reach::tcp(host, *port).await?;
                match tls {
                    Some(tls) => reach::tls(stream, host, tls.client_config(base_dir)).await,
                    None => Ok(()),
                }
            }
            Place::Serial(serial) => serial.open().map(drop).map_err(|cause| {
                let remedy = "correct the device's name; if this workflow runs already, it is the one that holds it";
                Trouble::new(
                    TroubleKind::Path,
                    format!("{}: {cause}", serial.device.display()),
                    remedy,
                )
            }),
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Tcp { host, port, .. } => write!(f, "{host}:{port}"),
            Place::Serial(serial) => write!(f, "{}", serial.device.display()),
        }
    }
}

/// How patiently to ask.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    /// How long to wait for an answer.
    pub timeout: Duration,
    /// How often to ask, at least once.
    pub attempts: u32,
    /// Between an answer and the next question.
    pub pause: Duration,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AskError {
    /// Nothing came.
    Silent,
    /// Something came that is no answer.
    Garbled(String),
    /// The line itself is gone, for every unit on it.
    Lost(String),
}

/// Bytes to and fro.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// An answer that may still come though its time is over. As an RTU frame it does not say which question it belongs to, so no
/// other one is asked of its unit before it has come or cannot come any more.
#[derive(Debug)]
struct Owed {
    /// What was asked. Asked once more it takes the answer, late as it is.
    span: Span,
    /// When that was asked first and last.
    first: Instant,
    last: Instant,
    /// How long the unit may take, after it has said something late: that may have been the answer to the first.
    slowness: Option<Duration>,
    /// When the last answer has had its time.
    until: Instant,
}

impl Owed {
    /// Something came, at `now`.
    fn heard(&mut self, now: Instant, timeout: Duration) {
        let slowness = *self.slowness.get_or_insert(now - self.first);
        self.until = self.until.max(self.last + slowness + timeout);
    }

    /// Waits until nothing can come any more, and throws away what comes meanwhile.
    async fn settle(&mut self, wire: &mut Box<dyn Wire>, timeout: Duration) -> Result<(), String> {
        let mut bytes = [0; READ_BYTES];
        while let Ok(came) = timeout_at(self.until, wire.read(&mut bytes)).await {
            match came {
                Ok(0) => return Err("it was closed by the other side".to_string()),
                Ok(_) => self.heard(Instant::now(), timeout),
                Err(error) => return Err(error.to_string()),
            }
            if Instant::now() >= self.until {
                break;
            }
        }
        Ok(())
    }
}

/// The line.
pub(super) struct Line {
    place: Place,
    manner: Manner,
    wire: Option<Box<dyn Wire>>,
    transaction: u16,
    /// The next question has to wait until then.
    not_before: Instant,
    /// Something may still come that nobody waits for.
    is_unsettled: bool,
    /// With RTU frames: by unit, what may still come.
    owed: BTreeMap<u8, Owed>,
    /// When the last question went out.
    asked_at: Instant,
}

impl Line {
    pub(super) fn new(place: Place, manner: Manner) -> Self {
        Self {
            place,
            manner,
            wire: None,
            transaction: 0,
            not_before: Instant::now(),
            is_unsettled: false,
            owed: BTreeMap::new(),
            asked_at: Instant::now(),
        }
    }

    /// Opens the line anew. The error says what is wrong with it.
    pub(super) async fn connect(&mut self) -> Result<(), String> {
        self.wire = None;
        let opened = match &self.place {
            Place::Serial(serial) => serial.open().map(|port| -> Box<dyn Wire> { Box::new(port) }),
            Place::Tcp {
                host,
                port,
                tls,
                base_dir,
                ..
            } => match timeout(CONNECT_WAIT, dial(host, *port, tls.as_ref(), base_dir)).await {
                Ok(dialled) => dialled,
                Err(_) => Err(format!("no connection within {} s", CONNECT_WAIT.as_secs())),
            },
        };
        let wire = opened.map_err(|cause| format!("cannot reach {}: {cause}", self.place))?;
        self.wire = Some(wire);
        self.is_unsettled = false;
        Ok(())
    }

    /// Asks a unit, `attempts` times at most, until something comes of it.
    pub(super) async fn ask(&mut self, unit: u8, span: &Span, attempts: u32) -> Result<Reply, AskError> {
        // One that has served before may have been closed meanwhile, as devices do after a while: that is no failure.
        let mut may_be_stale = self.wire.is_some();
        let mut left = attempts;
        loop {
            left = left.saturating_sub(1);
            match self.ask_once(unit, span).await {
                Err(AskError::Lost(_)) if std::mem::take(&mut may_be_stale) => left += 1,
                Ok(Reply::Refused(BUSY)) if left > 0 => sleep(BUSY_PAUSE).await,
                Err(_) if left > 0 => {}
                done => return done,
            }
        }
    }

    async fn ask_once(&mut self, unit: u8, span: &Span) -> Result<Reply, AskError> {
        if self.wire.is_none() {
            self.connect().await.map_err(AskError::Lost)?;
        }
        // A timer takes a millisecond at least, even for a moment that has passed: many times what a question takes on a network.
        if self.not_before > Instant::now() {
            sleep_until(self.not_before).await;
        }
        self.transaction = self.transaction.wrapping_add(1);
        let asked = self.exchange(unit, span).await;
        let silence = match &self.place {
            Place::Serial(serial) => serial.silence(),
            Place::Tcp { .. } => Duration::ZERO,
        };
        self.not_before = Instant::now() + silence.max(self.manner.pause);
        if self.is_rtu() {
            self.note(unit, span, &asked);
        }
        match (&asked, self.is_rtu(), &self.place) {
            (Ok(_), ..) => {}
            // Its transaction says which question a late answer belongs to.
            (Err(AskError::Silent), false, _) => {}
            (Err(AskError::Silent | AskError::Garbled(_)), true, Place::Serial(_)) => self.is_unsettled = true,
            (Err(_), ..) => self.wire = None,
        }
        asked
    }

    /// Remembers what may still come of a question.
    fn note(&mut self, unit: u8, span: &Span, asked: &Result<Reply, AskError>) {
        let (now, timeout, last) = (Instant::now(), self.manner.timeout, self.asked_at);
        match (asked, self.owed.get_mut(&unit)) {
            (Err(AskError::Lost(_)), _) | (Ok(_), None) => {}
            // It may be the answer to an earlier question, and this one's own is still to come.
            (Ok(_), Some(owed)) => {
                owed.last = last;
                owed.heard(now, timeout);
            }
            (Err(AskError::Silent | AskError::Garbled(_)), Some(owed)) => {
                owed.last = last;
                owed.until = owed.until.max(now + timeout);
            }
            (Err(AskError::Silent | AskError::Garbled(_)), None) => {
                let owed = Owed {
                    span: *span,
                    first: last,
                    last,
                    slowness: None,
                    until: now + timeout,
                };
                self.owed.insert(unit, owed);
            }
        }
    }

    fn is_rtu(&self) -> bool {
        match &self.place {
            Place::Tcp { framing, .. } => *framing == Framing::Rtu,
            Place::Serial(_) => true,
        }
    }

    async fn exchange(&mut self, unit: u8, span: &Span) -> Result<Reply, AskError> {
        let is_rtu = self.is_rtu();
        let Self {
            place,
            manner,
            wire,
            transaction,
            is_unsettled,
            owed,
            asked_at,
            ..
        } = self;
        let place: &Place = place;
        let lost = |cause: String| AskError::Lost(format!("the line to {place} broke: {cause}"));
        let Some(wire) = wire else {
            return Err(lost("it is closed".to_string()));
        };
        if let Some(late) = owed.get_mut(&unit) {
            if late.span != *span {
                late.settle(wire, manner.timeout).await.map_err(lost)?;
            }
            if Instant::now() >= late.until {
                owed.remove(&unit);
            }
        }
        let settling = if std::mem::take(is_unsettled) {
            SETTLED
        } else {
            Duration::ZERO
        };
        if is_rtu {
            clear(wire, settling, manner.timeout).await.map_err(lost)?;
        } else {
            // What comes late has the number of its question.
            clear_at_once(wire).map_err(lost)?;
        }
        let flight = match place {
            Place::Serial(serial) => serial.flight(span.rtu_bytes()),
            Place::Tcp { .. } => Duration::ZERO,
        };
        *asked_at = Instant::now();
        let deadline = *asked_at + manner.timeout + flight;
        let question = if is_rtu {
            frame::rtu_question(unit, span)
        } else {
            frame::tcp_question(*transaction, unit, span)
        };
        let written = timeout_at(deadline, async {
            wire.write_all(&question).await?;
            // A serial port has it already, and flushing it would hold up every task of the daemon until it is sent.
            match place {
                Place::Tcp { .. } => wire.flush().await,
                Place::Serial(_) => Ok(()),
            }
        });
        match written.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(lost(error.to_string())),
            Err(_) => return Err(lost("it takes nothing any more".to_string())),
        }
        let mut bytes = Vec::with_capacity(READ_BYTES);
        while bytes.len() < ANSWER_BYTES_MAX {
            match timeout_at(deadline, wire.read_buf(&mut bytes)).await {
                Err(_) if bytes.is_empty() || !is_rtu => return Err(AskError::Silent),
                Err(_) => break,
                Ok(Ok(0)) => return Err(lost("it was closed by the other side".to_string())),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(lost(error.to_string())),
            }
            let answer = if is_rtu {
                Ok(frame::rtu_answer(&bytes, unit, span))
            } else {
                frame::tcp_answer(&mut bytes, *transaction, span)
            };
            match answer {
                Ok(None) => {}
                Ok(Some(reply)) => return Ok(reply),
                Err(error) => return Err(AskError::Garbled(error.to_string())),
            }
        }
        Err(AskError::Garbled(
            "what came is no answer (are speed, parity and stop bits those of the device?)".to_string(),
        ))
    }
}

/// Throws away what came unasked, until nothing has come for `settled`; not longer than `most`.
async fn clear(wire: &mut Box<dyn Wire>, settled: Duration, most: Duration) -> Result<(), String> {
    let until = Instant::now() + most;
    let mut bytes = [0; READ_BYTES];
    while Instant::now() < until {
        match timeout(settled, wire.read(&mut bytes)).await {
            Err(_) => return Ok(()),
            Ok(read) => thrown_away(read)?,
        }
    }
    Ok(())
}

/// The same of what is there already. Waits for nothing, not even a timer.
fn clear_at_once(wire: &mut Box<dyn Wire>) -> Result<(), String> {
    let mut bytes = [0; READ_BYTES];
    for _ in 0..CLEARED_MAX {
        match wire.read(&mut bytes).now_or_never() {
            None => return Ok(()),
            Some(read) => thrown_away(read)?,
        }
    }
    Ok(())
}

fn thrown_away(read: io::Result<usize>) -> Result<(), String> {
    match read {
        Ok(0) => Err("it was closed by the other side".to_string()),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

async fn dial(host: &str, port: u16, tls: Option<&TlsFiles>, base_dir: &Path) -> Result<Box<dyn Wire>, String> {
    let text = |error: io::Error| error.to_string();
    let stream = TcpStream::connect((host, port)).await.map_err(text)?;
    stream.set_nodelay(true).map_err(text)?;
    let Some(tls) = tls else {
        return Ok(Box::new(stream));
    };
    let name = ServerName::try_from(host.to_string()).map_err(|error| error.to_string())?;
    let connector = TlsConnector::from(Arc::new(tls.client_config(base_dir)?));
    Ok(Box::new(connector.connect(name, stream).await.map_err(text)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_lines_get_the_time_they_need() {
        let serial = |speed| SerialConfig {
            device: "/dev/ttyS0".into(),
            speed,
            parity: Parity::Even,
            stop_bits: None,
        };
        // 250 bytes at 1200 bits per second take over two seconds.
        assert_eq!(serial(1200).flight(250).as_millis(), 2291);
        assert_eq!(serial(9600).silence().as_micros(), 4010);
        assert_eq!(serial(115_200).silence(), SILENCE_MIN);
    }

    /// The clock stands still while anybody has something to do, so any timer that is waited for shows.
    #[tokio::test(start_paused = true)]
    async fn questions_over_tcp_wait_for_answers_and_nothing_else() {
        let (ours, mut device) = tokio::io::duplex(1024);
        tokio::spawn(async move {
            let mut question = [0; 12];
            // Said before anybody has asked: thrown away.
            device.write_all(b"hello").await.unwrap();
            while device.read_exact(&mut question).await.is_ok() {
                let [a, b, .., unit, function, _, _, _, _] = question;
                let answer = [a, b, 0, 0, 0, 5, unit, function, 2, a, b];
                device.write_all(&answer).await.unwrap();
            }
        });
        tokio::task::yield_now().await;
        let place = Place::Tcp {
            host: "device".to_string(),
            port: 502,
            tls: None,
            base_dir: PathBuf::new(),
            framing: Framing::Tcp,
        };
        let manner = Manner {
            timeout: Duration::from_secs(1),
            attempts: 1,
            pause: Duration::ZERO,
        };
        let span = Span {
            table: frame::Table::Holding,
            start: 0,
            count: 1,
        };
        let mut line = Line::new(place, manner);
        line.wire = Some(Box::new(ours));
        let begun = Instant::now();
        for number in 1..=100_u16 {
            let reply = line.ask(1, &span, 1).await.unwrap();
            assert_eq!(reply, Reply::Data(number.to_be_bytes().to_vec()));
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
