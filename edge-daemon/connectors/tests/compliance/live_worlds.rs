//! What can only be read live: machines, the host, messages that nobody repeats; and records that are made up.

use std::{
    io::Write as _,
    net::{Ipv4Addr, TcpStream, UdpSocket},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use flow::TroubleKind;
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use testkit::free_port;

use crate::{
    http_worlds::is_free,
    world::{Promise, SinkWorld, SourceWorld, Wrong},
};

/// Batches that may be on their way to somebody who takes none.
const BATCHES_MAX: u64 = 60;
/// Changes of a node that are made in one go; more of them are a flood.
const CHANGES_AT_ONCE: u64 = 50;
/// How long that goes on.
const FLOOD: Duration = Duration::from_secs(12);

/// Makes records up. They are fed by nobody.
pub struct Generator;

impl Generator {
    /// None yet.
    pub fn new() -> Self {
        Self
    }
}

impl SourceWorld for Generator {
    fn config(&self) -> Json {
        json!({"rate": 20_000.0, "fields": {"n": {"kind": "counter", "start": 1}, "v": {"kind": "text", "text": "x"}}})
    }

    fn promise(&self) -> Promise {
        Promise::GoesOn
    }

    fn feed(&mut self, _: Range<u64>, _: usize) {}
}

/// The host's own numbers.
pub struct HostMetrics;

impl HostMetrics {
    /// As they are.
    pub fn new() -> Self {
        Self
    }
}

impl SourceWorld for HostMetrics {
    fn config(&self) -> Json {
        json!({"interval_ms": 100})
    }

    fn promise(&self) -> Promise {
        Promise::GoesOn
    }

    fn rereads(&self) -> bool {
        false
    }

    fn feed(&mut self, _: Range<u64>, _: usize) {}

    fn under_way_max(&self) -> u64 {
        // Batches, of some records each: those that wait for one that is being written.
        BATCHES_MAX * 100
    }

    fn wrong(&self) -> Vec<Wrong> {
        vec![(json!({"proc_dir": "/no/such/directory"}), TroubleKind::Other)]
    }
}

/// A device that answers, at a port or at the end of a serial line.
pub struct Modbus {
    devices: testkit::Modbus,
    is_serial: bool,
}

impl Modbus {
    /// One register, over TCP.
    pub fn tcp() -> Self {
        Self::new(false)
    }

    /// One register, at a pair of pseudo terminals.
    pub fn rtu() -> Self {
        Self::new(true)
    }

    fn new(is_serial: bool) -> Self {
        let mut devices = json!({"units": [{"id": 1, "holding": [[0, "u16", "AB", 7]]}]});
        if is_serial {
            devices["serial"] = json!(true);
        }
        Self {
            devices: testkit::Modbus::start(&devices),
            is_serial,
        }
    }
}

impl SourceWorld for Modbus {
    fn config(&self) -> Json {
        let mut config = json!({
            "interval_ms": 10, "timeout_ms": 500,
            "points": [{"name": "p", "table": "holding", "address": 0, "type": "u16"}],
        });
        match self.is_serial {
            // As fast as the interval wants it.
            true => config["serial"] = json!({"device": self.devices.serial_port(), "speed": 115_200}),
            false => {
                config["host"] = json!("127.0.0.1");
                config["port"] = json!(self.devices.port());
            }
        }
        config
    }

    fn promise(&self) -> Promise {
        Promise::GoesOn
    }

    fn rereads(&self) -> bool {
        false
    }

    fn feed(&mut self, _: Range<u64>, _: usize) {}

    fn taken(&self) -> Option<TroubleKind> {
        // The line.
        self.is_serial.then_some(TroubleKind::Path)
    }

    fn under_way_max(&self) -> u64 {
        BATCHES_MAX
    }

    fn down(&mut self) {
        self.devices.stop();
    }

    fn up(&mut self) {
        self.devices.start();
    }

    fn wrong(&self) -> Vec<Wrong> {
        let with = |key: &str, value: Json| {
            let mut config = self.config();
            config[key] = value;
            config
        };
        let mut wrong = vec![(with("units", json!([9])), TroubleKind::Missing)];
        match self.is_serial {
            true => wrong.push((
                with("serial", json!({"device": "/dev/no-such-line"})),
                TroubleKind::Path,
            )),
            false => {
                wrong.push((with("port", json!(free_port())), TroubleKind::Unreachable));
                wrong.push((with("host", json!("no-such-host.invalid")), TroubleKind::Name));
            }
        }
        wrong
    }

    fn touched(&mut self) -> String {
        // Requests that do anything else than read what the config names.
        let asked = self.devices.asked();
        let others = asked.into_iter().filter(|asked| asked != "1 holding 0 1");
        format!("{:?}", others.collect::<Vec<_>>())
    }
}

/// A server with a node that changes.
pub struct OpcUa {
    server: Arc<testkit::OpcUa>,
    mode: &'static str,
    flood: Flood,
    /// Its table `security`, with the directory of the certificates in it, if the connection is protected.
    security: Option<(Json, TempDir)>,
}

/// Changes that go on for longer than anybody is given to hold back, but not beyond the server's end.
#[derive(Default)]
struct Flood {
    is_over: Arc<AtomicBool>,
    running: Option<thread::JoinHandle<()>>,
}

impl Flood {
    fn begin(&mut self, server: &Arc<testkit::OpcUa>, numbers: Range<u64>) {
        self.end();
        let (server, ends) = (Arc::clone(server), Instant::now() + FLOOD);
        let is_over = Arc::new(AtomicBool::new(false));
        self.is_over = Arc::clone(&is_over);
        self.running = Some(thread::spawn(move || {
            for number in numbers.take_while(|_| Instant::now() < ends && !is_over.load(Ordering::Relaxed)) {
                server.set(&json!([value(number)]));
                thread::sleep(Duration::from_millis(5));
            }
        }));
    }

    fn end(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(running) = self.running.take() {
            running.join().unwrap();
        }
    }
}

/// The node.
const NODE: &str = "ns=2;s=a";

impl OpcUa {
    /// Its value at an interval.
    pub fn read() -> Self {
        Self::new("read")
    }

    /// Every change of its value.
    pub fn subscribe() -> Self {
        Self::new("subscribe")
    }

    /// The same, signed and encrypted.
    pub fn encrypted() -> Self {
        let dir = testkit::temp_dir("opcua-keys");
        let server = testkit::rsa_certificate(dir.path(), "server", 2048, "urn:test:server");
        let own = testkit::rsa_certificate(dir.path(), "own", 2048, "urn:test:own");
        let offered = json!({
            "cert": server.cert, "key": server.key, "policies": ["Basic256Sha256_SignAndEncrypt"],
        });
        let security = json!({"cert_file": own.cert, "key_file": own.key, "server_cert_file": server.cert});
        let server = testkit::OpcUa::start_with(&json!([value(0)]), &json!({"security": offered}));
        Self {
            server: Arc::new(server),
            mode: "subscribe",
            flood: Flood::default(),
            security: Some((security, dir)),
        }
    }

    fn new(mode: &'static str) -> Self {
        let server = testkit::OpcUa::start(&json!([value(0)]));
        Self {
            server: Arc::new(server),
            mode,
            flood: Flood::default(),
            security: None,
        }
    }
}

fn value(number: u64) -> Json {
    json!({"id": NODE, "type": "Double", "value": number as f64})
}

impl SourceWorld for OpcUa {
    fn config(&self) -> Json {
        let mut config =
            json!({"url": self.server.url(), "mode": self.mode, "interval_ms": 20, "nodes": [{"id": NODE}]});
        if let Some((security, _)) = &self.security {
            config["security"] = security.clone();
        }
        config
    }

    fn promise(&self) -> Promise {
        Promise::GoesOn
    }

    fn rereads(&self) -> bool {
        false
    }

    fn feed(&mut self, numbers: Range<u64>, _: usize) {
        if self.mode == "read" {
            return;
        }
        let few = numbers.start..numbers.end.min(numbers.start + CHANGES_AT_ONCE);
        self.server.set(&few.map(value).collect::<Json>());
        if numbers.end - numbers.start > 1_000 {
            self.flood.begin(&self.server, numbers);
        }
    }

    fn under_way_max(&self) -> u64 {
        match self.mode {
            "read" => BATCHES_MAX,
            // In each those of an interval.
            _ => BATCHES_MAX * 10,
        }
    }

    fn down(&mut self) {
        self.flood.end();
        self.server.stop();
    }

    fn up(&mut self) {
        self.server.start();
    }

    fn wrong(&self) -> Vec<Wrong> {
        let with = |key: &str, value: Json| {
            let mut config = self.config();
            config[key] = value;
            config
        };
        let mut wrong = vec![
            (
                with("url", json!(format!("opc.tcp://127.0.0.1:{}", free_port()))),
                TroubleKind::Unreachable,
            ),
            (
                with("url", json!("opc.tcp://no-such-host.invalid:4840")),
                TroubleKind::Name,
            ),
            (with("nodes", json!([{"id": "ns=2;s=none"}])), TroubleKind::Missing),
        ];
        if let Some((security, _)) = &self.security {
            let mut stranger = self.config();
            stranger["security"]["server_cert_file"] = security["cert_file"].clone();
            wrong.push((stranger, TroubleKind::Tls));
        }
        wrong
    }

    fn touched(&mut self) -> String {
        self.server.sessions()
    }
}

/// Messages that wait for those before them: more than a flood.
const WAITING_MAX: usize = 50_000;

/// How messages come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Udp,
    Tcp,
}

/// Messages that nobody repeats.
pub struct Syslog {
    way: Way,
    port: u16,
    /// They are sent in their order; whoever listens to connections may let them wait.
    messages: mpsc::SyncSender<Vec<u8>>,
}

impl Syslog {
    /// Datagrams.
    pub fn udp() -> Self {
        Self::new(Way::Udp)
    }

    /// A connection, made anew when it breaks.
    pub fn tcp() -> Self {
        Self::new(Way::Tcp)
    }

    fn new(way: Way) -> Self {
        let (port, (messages, waiting)) = (free_port(), mpsc::sync_channel::<Vec<u8>>(WAITING_MAX));
        thread::spawn(move || {
            let place = (Ipv4Addr::LOCALHOST, port);
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let mut connection = None;
            for message in waiting {
                if way == Way::Udp {
                    // Nobody may listen at this moment.
                    let _ = socket.send_to(&message, place);
                    continue;
                }
                let line = [&message[..], b"\n"].concat();
                let sent = |connection: &mut Option<TcpStream>| {
                    let stream = match connection {
                        Some(stream) => stream,
                        None => connection.insert(TcpStream::connect(place)?),
                    };
                    stream.write_all(&line)
                };
                if sent(&mut connection).is_err() {
                    connection = None;
                }
            }
        });
        Self { way, port, messages }
    }

    fn send(&self, message: impl Into<Vec<u8>>) {
        self.messages.send(message.into()).unwrap();
    }
}

impl SourceWorld for Syslog {
    fn config(&self) -> Json {
        let place = format!("127.0.0.1:{}", self.port);
        match self.way {
            Way::Udp => json!({"udp": place}),
            Way::Tcp => json!({"tcp": place}),
        }
    }

    fn promise(&self) -> Promise {
        Promise::GoesOn
    }

    fn taken(&self) -> Option<TroubleKind> {
        Some(TroubleKind::Listen)
    }

    fn rereads(&self) -> bool {
        false
    }

    fn column(&self) -> &'static str {
        "message"
    }

    fn feed(&mut self, numbers: Range<u64>, pad: usize) {
        // Whoever has just begun may not listen yet.
        thread::sleep(Duration::from_millis(100));
        let pad = "x".repeat(pad);
        for number in numbers {
            self.send(format!("<13>1 2024-01-01T00:00:00Z here {pad} - - - {number}"));
        }
    }

    fn feed_bad(&mut self, _: u64) -> bool {
        self.send(b"<13>1 2024-01-01T00:00:00Z here app - - - \xff\xfe");
        false
    }

    fn wrong(&self) -> Vec<Wrong> {
        let key = match self.way {
            Way::Udp => "udp",
            Way::Tcp => "tcp",
        };
        let mut elsewhere = json!({});
        elsewhere[key] = json!("192.0.2.1:5514");
        let mut wrong = vec![(elsewhere, TroubleKind::Listen)];
        if self.way == Way::Tcp {
            let mut guarded = self.config();
            guarded["tls"] = json!({"cert_file": "/no/cert", "key_file": "/no/key"});
            wrong.push((guarded, TroubleKind::Tls));
        }
        wrong
    }

    fn touched(&mut self) -> String {
        match self.way {
            Way::Tcp => is_free(self.port),
            Way::Udp => format!("{:?}", UdpSocket::bind((Ipv4Addr::LOCALHOST, self.port)).is_ok()),
        }
    }
}

/// The process's own input or output: only its check can be asked here.
pub struct Standard(&'static str);

impl Standard {
    /// By its name.
    pub fn new(name: &'static str) -> Self {
        Self(name)
    }

    fn plain(&self) -> Json {
        match self.0 {
            "stdin" => json!({"format": "json_lines"}),
            _ => json!({}),
        }
    }
}

impl SourceWorld for Standard {
    fn config(&self) -> Json {
        self.plain()
    }

    fn feed(&mut self, _: Range<u64>, _: usize) {}
}

impl SinkWorld for Standard {
    fn config(&self) -> Json {
        self.plain()
    }

    fn arrived(&mut self) -> Vec<u64> {
        Vec::new()
    }
}
