//! A TCP proxy that breaks, delays, throttles and records what passes. Never looks inside it.
//!
//! A byte of TCP is never lost while its connection lives: loss shows itself as lateness, or as a connection that ends. So
//! that is what the link does.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use memchr::memmem;
use tempfile::TempDir;

use crate::{Dice, free_port, temp_dir};

/// Between two looks for a new connection.
const ACCEPT_POLL: Duration = Duration::from_millis(2);
/// How long the proxy waits for the server to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The most that is read at once.
const CHUNK_BYTES: usize = 16 * 1024;
/// How many chunks may be under way in one direction of one connection: 4 MiB, or a minute at 50 kbit/s.
const CHUNKS_IN_FLIGHT_MAX: usize = 256;
/// The most that is read at once from a throttled direction: what a modem sends as one packet.
const PACKET_BYTES: usize = 1500;
/// A modem keeps what it can send in this long, unless told otherwise; then it takes nothing more.
const MODEM_QUEUE: Duration = Duration::from_secs(1);
/// Between two looks whether there is room in the modem's queue.
const QUEUE_POLL: Duration = Duration::from_millis(2);
/// The longest sleep of a direction that waits for its delay: whatever happens to the link meanwhile counts.
const NAP_MAX: Duration = Duration::from_millis(20);

/// A road between a client and a server that a test can spoil.
///
/// The client connects to [`Link::addr`] (or [`Link::url`]) instead of to the server. A link starts whole, and every
/// fault applies to connections that exist as well as to new ones. Dropping the link cuts it.
#[derive(Debug)]
pub struct Link {
    port: u16,
    shared: Arc<Shared>,
    acceptor: Option<thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Gone while the link is cut, so that connecting is refused.
    listener: Option<TcpListener>,
    /// Both ends of every connection, to close them with.
    open: Vec<(u64, TcpStream, TcpStream)>,
    accepted: u64,
    /// Where it goes instead of where it was made for.
    detour: Option<SocketAddr>,
    /// By [`Way`].
    stalled: [bool; 2],
    /// By [`Way`]: when the modem will have sent all it has taken.
    sent_at: [Option<Instant>; 2],
    delay: Duration,
    jitter: Duration,
    bytes_per_s: Option<u64>,
    /// What the modem keeps, if told.
    queue: Option<Duration>,
    /// Of a million chunks that pass, so many end their connection.
    losses_per_million: u64,
    dice: Option<Dice>,
    capture: Option<Arc<TempDir>>,
    closing: bool,
}

/// A direction of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// What the client sends.
    Up,
    /// What the server sends.
    Down,
}

impl Link {
    /// A whole link to the server at `target`, listening on a free port of 127.0.0.1.
    #[must_use]
    #[track_caller]
    pub fn to(target: impl Into<SocketAddr>) -> Self {
        let port = free_port();
        let shared = Arc::new(Shared {
            target: target.into(),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let mut link = Self {
            port,
            shared: Arc::clone(&shared),
            acceptor: None,
        };
        link.restore();
        link.acceptor = Some(thread::spawn(move || accept_all(&shared)));
        link
    }

    /// The port a client connects to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address a client connects to.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// `server_url` with its host and port replaced by the link's. User, password and path stay; `localhost` stays
    /// `localhost`, for the sake of certificates.
    #[must_use]
    #[track_caller]
    pub fn url(&self, server_url: &str) -> String {
        let (scheme, rest) = server_url
            .split_once("://")
            .unwrap_or_else(|| panic!("{server_url} is not a URL"));
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let (user, host) = match authority.rfind('@') {
            Some(at) => authority.split_at(at + 1),
            None => ("", authority),
        };
        let host = if host.starts_with("localhost") {
            "localhost"
        } else {
            "127.0.0.1"
        };
        format!("{scheme}://{user}{host}:{}{path}", self.port)
    }

    /// Closes every connection and refuses new ones.
    pub fn cut(&self) {
        let mut state = self.shared.lock();
        state.listener = None;
        state.close_all();
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Closes every connection, but accepts new ones.
    pub fn drop_connections(&self) {
        self.shared.lock().close_all();
        self.shared.changed.notify_all();
    }

    /// Accepts connections but passes nothing on in either direction, and reads nothing: what the client writes fills
    /// the kernel's buffers. What was on its way arrives after [`Link::restore`].
    pub fn stall(&self) {
        self.shared.lock().stalled = [true; 2];
    }

    /// Lets nothing pass in one direction, while the other one works. Ended by [`Link::restore`] too.
    pub fn stall_one_way(&self, way: Way) {
        self.shared.lock().stalled[way as usize] = true;
    }

    /// Ends [`Link::cut`] and [`Link::stall`]. Delay, loss and cap stay.
    #[track_caller]
    pub fn restore(&self) {
        let mut state = self.shared.lock();
        state.stalled = [false; 2];
        if state.listener.is_none() {
            let listener = TcpListener::bind(self.addr()).and_then(|l| l.set_nonblocking(true).map(|()| l));
            let listener = listener.unwrap_or_else(|e| panic!("the link cannot listen on {}: {e}", self.addr()));
            state.listener = Some(listener);
        }
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Makes every byte arrive this much later, in each direction.
    pub fn delay(&self, each_way: Duration) {
        self.delay_with_jitter(each_way, Duration::ZERO);
    }

    /// Makes every byte arrive later by `each_way` and up to `jitter` more. What is on a connection stays in order, so a
    /// late byte holds up those behind it.
    pub fn delay_with_jitter(&self, each_way: Duration, jitter: Duration) {
        let mut state = self.shared.lock();
        (state.delay, state.jitter) = (each_way, jitter);
    }

    /// Lets at most this many bytes a second pass in each direction, as a modem does: all connections share it, and what
    /// came first goes first. It keeps what it can send in a second; beyond that, senders have to wait. `None` for no cap.
    pub fn cap(&self, bytes_per_s: Option<u64>) {
        assert_ne!(bytes_per_s, Some(0), "use `stall` to let nothing pass");
        let mut state = self.shared.lock();
        state.bytes_per_s = bytes_per_s;
        state.sent_at = [None; 2];
    }

    /// Under [`Link::cap`], the modem keeps what it can send in this long. Real ones keep ten seconds and more, and whoever
    /// fills that queue makes everybody wait behind it.
    pub fn queue(&self, keeps: Duration) {
        self.shared.lock().queue = Some(keeps);
    }

    /// Ends connections at random: of a million chunks (of 16 KiB, or of a packet under [`Link::cap`]) so many end theirs,
    /// and what was under way in it is lost. 0 for no loss.
    pub fn lose(&self, chunks_per_million: u64) {
        self.shared.lock().losses_per_million = chunks_per_million;
    }

    /// Makes what is random about the link follow from a seed.
    pub fn seed(&self, dice: Dice) {
        self.shared.lock().dice = Some(dice);
    }

    /// Leads to another server from now on, and closes every connection: the clients are moved without being told.
    pub fn lead_to(&self, target: impl Into<SocketAddr>) {
        self.shared.lock().detour = Some(target.into());
        self.drop_connections();
    }

    /// Starts recording what passes over connections made from now on.
    #[must_use]
    pub fn capture(&self) -> Capture {
        let mut state = self.shared.lock();
        let dir = state.capture.get_or_insert_with(|| Arc::new(temp_dir("capture")));
        Capture { dir: Arc::clone(dir) }
    }

    /// How many connections were accepted since the link was made.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.lock().accepted
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.cut();
        if let Some(acceptor) = self.acceptor.take() {
            // It panics only when the test's machine is out of threads, and then the test has failed anyway.
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while this direction is stalled. `false` when connection `id` was closed.
    fn pass(&self, id: u64, way: Way) -> bool {
        let mut state = self.lock();
        while state.stalled[way as usize] && state.has(id) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.has(id)
    }

    /// Waits until this direction takes more. Returns how much at most, or `None` when connection `id` was closed.
    fn admit(&self, id: u64, way: Way) -> Option<usize> {
        loop {
            if !self.pass(id, way) {
                return None;
            }
            let state = self.lock();
            if state.bytes_per_s.is_none() {
                return Some(CHUNK_BYTES);
            }
            let backlog = state.sent_at[way as usize].map(|at| at.saturating_duration_since(Instant::now()));
            if backlog.unwrap_or_default() < state.queue.unwrap_or(MODEM_QUEUE) {
                return Some(PACKET_BYTES);
            }
            drop(state);
            thread::sleep(QUEUE_POLL);
        }
    }

    /// When a chunk that was read now may arrive, or `None` when it is lost and its connection with it.
    fn schedule(&self, way: Way, bytes: usize) -> Option<Instant> {
        let mut state = self.lock();
        let losses = state.losses_per_million;
        if losses > 0 && state.dice().roll(1_000_000) < losses {
            return None;
        }
        let mut due = Instant::now();
        if let Some(cap) = state.bytes_per_s {
            let begins = state.sent_at[way as usize].map_or(due, |at| at.max(due));
            due = begins + Duration::from_secs_f64(bytes as f64 / cap as f64);
            state.sent_at[way as usize] = Some(due);
        }
        let jitter_us = state.jitter.as_micros() as u64;
        let late = Duration::from_micros(state.dice().roll(jitter_us + 1));
        Some(due + state.delay + late)
    }

    /// Closes one connection; its threads end and forget it.
    fn hang_up(&self, id: u64) {
        for (_, client, server) in self.lock().open.iter().filter(|(other, ..)| *other == id) {
            close(client);
            close(server);
        }
    }

    fn forget(&self, id: u64) {
        self.lock().open.retain(|(other, ..)| *other != id);
    }
}

impl State {
    fn dice(&mut self) -> &mut Dice {
        self.dice.get_or_insert_with(|| Dice::new(0))
    }

    fn has(&self, id: u64) -> bool {
        self.open.iter().any(|(other, ..)| *other == id)
    }

    fn close_all(&mut self) {
        for (_, client, server) in self.open.drain(..) {
            close(&client);
            close(&server);
        }
    }
}

fn accept_all(shared: &Arc<Shared>) {
    loop {
        let mut state = shared.lock();
        if state.closing {
            return;
        }
        let client = match state.listener.as_ref().map(TcpListener::accept) {
            Some(Ok((client, _))) => client,
            // A client that went away before it was accepted is no reason to stop.
            Some(Err(_)) | None => {
                drop(state);
                thread::sleep(ACCEPT_POLL);
                continue;
            }
        };
        state.accepted += 1;
        let id = state.accepted;
        drop(state);
        let shared = Arc::clone(shared);
        thread::spawn(move || connect(&shared, id, &client));
    }
}

/// Connects to the server and starts moving bytes. Without a server the client is hung up on.
fn connect(shared: &Arc<Shared>, id: u64, client: &TcpStream) {
    // Inherited from the listener on some systems.
    if client.set_nonblocking(false).is_err() {
        return;
    }
    let target = shared.lock().detour.unwrap_or(shared.target);
    let Ok(server) = TcpStream::connect_timeout(&target, CONNECT_TIMEOUT) else {
        return close(client);
    };
    let (Ok(client), Ok(server)) = (Ends::of(client), Ends::of(&server)) else {
        return;
    };

    let mut state = shared.lock();
    if state.listener.is_none() {
        close(&client.control);
        close(&server.control);
        return;
    }
    let capture = state.capture.clone();
    state.open.push((id, client.control, server.control));
    drop(state);

    let record = |way: &str| capture.as_ref().map(|dir| Recorder::new(Arc::clone(dir), id, way));
    let up = spawn_pump(shared, (id, Way::Up), client.read, server.write, record("to-server"));
    let down = spawn_pump(shared, (id, Way::Down), server.read, client.write, record("to-client"));
    for half in up.into_iter().chain(down) {
        let _ = half.join();
    }
    shared.forget(id);
}

/// One socket, for three threads.
struct Ends {
    read: TcpStream,
    write: TcpStream,
    control: TcpStream,
}

impl Ends {
    fn of(socket: &TcpStream) -> std::io::Result<Self> {
        socket.set_nodelay(true)?;
        Ok(Self {
            read: socket.try_clone()?,
            write: socket.try_clone()?,
            control: socket.try_clone()?,
        })
    }
}

/// Bytes, and when they may arrive.
type Chunk = (Instant, Vec<u8>);

/// One direction: a reader and a writer with a bounded queue between them, so that a delay costs no throughput.
fn spawn_pump(
    shared: &Arc<Shared>,
    road: (u64, Way),
    from: TcpStream,
    to: TcpStream,
    record: Option<Recorder>,
) -> [thread::JoinHandle<()>; 2] {
    let (queue, chunks) = sync_channel(CHUNKS_IN_FLIGHT_MAX);
    let (reading, writing) = (Arc::clone(shared), Arc::clone(shared));
    [
        thread::spawn(move || read_all(&reading, road, from, &queue)),
        thread::spawn(move || write_all(&writing, road, to, &chunks, record)),
    ]
}

fn read_all(shared: &Shared, (id, way): (u64, Way), mut from: TcpStream, queue: &SyncSender<Chunk>) {
    let mut buffer = vec![0; CHUNK_BYTES];
    while let Some(bytes_max) = shared.admit(id, way) {
        match from.read(&mut buffer[..bytes_max]) {
            Ok(0) => return,
            Ok(n) => {
                let Some(due) = shared.schedule(way, n) else {
                    return shared.hang_up(id);
                };
                if queue.send((due, buffer[..n].to_vec())).is_err() {
                    return;
                }
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(_) => return shared.hang_up(id),
        }
    }
}

fn write_all(
    shared: &Shared,
    (id, way): (u64, Way),
    mut to: TcpStream,
    chunks: &Receiver<Chunk>,
    mut record: Option<Recorder>,
) {
    for (due, chunk) in chunks {
        loop {
            if !shared.pass(id, way) {
                return;
            }
            match due.checked_duration_since(Instant::now()) {
                Some(early) if !early.is_zero() => thread::sleep(early.min(NAP_MAX)),
                _ => break,
            }
        }
        if to.write_all(&chunk).is_err() {
            return shared.hang_up(id);
        }
        if let Some(record) = &mut record {
            record.write(&chunk);
        }
    }
    // The other side has finished writing; it may still be reading.
    let _ = to.shutdown(Shutdown::Write);
}

/// That a socket is closed already is fine.
fn close(socket: &TcpStream) {
    let _ = socket.shutdown(Shutdown::Both);
}

/// Writes one direction of one connection to a file of its own, so that nothing is split by another connection.
struct Recorder {
    file: File,
    path: PathBuf,
    _dir: Arc<TempDir>,
}

impl Recorder {
    fn new(dir: Arc<TempDir>, id: u64, way: &str) -> Self {
        let path = dir.path().join(format!("{id:06}-{way}"));
        let file = File::create(&path).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
        Self { file, path, _dir: dir }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.file
            .write_all(bytes)
            .unwrap_or_else(|e| panic!("cannot write {}: {e}", self.path.display()));
    }
}

/// Everything that passed over a [`Link`], one file per connection and direction.
#[derive(Debug, Clone)]
pub struct Capture {
    dir: Arc<TempDir>,
}

impl Capture {
    /// The directory of the recordings: `000001-to-server`, `000001-to-client`, and so on.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// How many bytes were recorded.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.recordings().map(|(_, bytes)| bytes.len() as u64).sum()
    }

    /// Whether nothing was recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether `needle` was sent, whole, over one connection in one direction.
    #[must_use]
    pub fn contains(&self, needle: &[u8]) -> bool {
        self.find(needle).is_some()
    }

    /// Panics when any of `secrets` passed in the clear, or when nothing was recorded at all, which proves nothing.
    #[track_caller]
    pub fn assert_no_plaintext<S: AsRef<[u8]>>(&self, secrets: impl IntoIterator<Item = S>) {
        assert!(!self.is_empty(), "nothing was captured, so its silence proves nothing");
        for secret in secrets {
            let secret = secret.as_ref();
            assert!(!secret.is_empty(), "an empty secret is found everywhere");
            if let Some((name, at)) = self.find(secret) {
                panic!(
                    "{:?} passed in the clear, at byte {at} of {name}",
                    String::from_utf8_lossy(secret)
                );
            }
        }
    }

    fn find(&self, needle: &[u8]) -> Option<(String, usize)> {
        let finder = memmem::Finder::new(needle);
        self.recordings()
            .find_map(|(name, bytes)| Some((name, finder.find(&bytes)?)))
    }

    fn recordings(&self) -> impl Iterator<Item = (String, Vec<u8>)> {
        let entries = fs::read_dir(self.dir.path()).unwrap_or_else(|e| panic!("cannot read the capture: {e}"));
        entries.flatten().map(|entry| {
            let path = entry.path();
            let bytes = fs::read(&path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()));
            (entry.file_name().to_string_lossy().into_owned(), bytes)
        })
    }
}
