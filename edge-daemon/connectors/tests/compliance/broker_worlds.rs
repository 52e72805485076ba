//! Brokers: mosquitto and nats-server, fed and read by their own clients or by hand.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpStream,
    ops::Range,
    path::PathBuf,
    thread::sleep,
    time::Duration,
};

use base64::Engine as _;
use flow::TroubleKind;
use serde_json::{Value as Json, json};
use testkit::{Cmd, Mosquitto, Nats, Proc, TempDir, find_program, free_port, temp_dir};

use crate::{
    file_worlds::{extras_in, lines, numbers_in},
    world::{Promise, SinkWorld, SourceWorld, Wrong},
};

const CLIENTS: &str = "mosquitto-clients";
const SOON: Duration = Duration::from_secs(30);

fn mosquitto() -> Mosquitto {
    Mosquitto::builder()
        .persist()
        .line("max_queued_messages 0")
        .line("autosave_interval 1")
        // It counts what it keeps each second.
        .line("sys_interval 1")
        .quiet()
        .start()
}

/// Gives text to a client of mosquitto's, which publishes each line.
fn publish(server: &Mosquitto, text: &str) {
    let client = Cmd::new(find_program("mosquitto_pub", CLIENTS));
    let client = client.args([
        "-h",
        "127.0.0.1",
        "-p",
        &server.port().to_string(),
        "-t",
        "in/a",
        "-q",
        "1",
        "-l",
    ]);
    client.stdin(text).run(SOON).ok();
}

/// What a broker counts, once it has counted anew: sessions of those who are away, subscriptions, and messages that came.
fn counted(server: &Mosquitto) -> String {
    sleep(Duration::from_millis(2_500));
    let client = Cmd::new(find_program("mosquitto_sub", CLIENTS));
    let port = server.port().to_string();
    let client = client.args(["-h", "127.0.0.1", "-p", &port, "-F", "%t %p", "-C", "3", "-W", "20"]);
    let topics = [
        "$SYS/broker/clients/disconnected",
        "$SYS/broker/subscriptions/count",
        "$SYS/broker/publish/messages/received",
    ];
    let client = topics.iter().fold(client, |client, topic| client.args(["-t", topic]));
    let said = client.run(SOON).ok();
    let mut lines: Vec<&str> = said.lines().collect();
    lines.sort_unstable();
    format!("{lines:?}")
}

fn wrong_brokers(server: &str, good: &Json) -> Vec<Wrong> {
    let with = |url: String| {
        let mut config = good.clone();
        config["url"] = json!(url);
        config
    };
    let secure = if server == "mqtt" { "mqtts" } else { "tls" };
    let port = good["url"].as_str().unwrap().rsplit(':').next().unwrap();
    let mut secret = good.clone();
    secret["user"] = json!("somebody");
    secret["password"] = json!({"env": "COMPLIANCE_NOT_SET"});
    vec![
        (
            with(format!("{server}://127.0.0.1:{}", free_port())),
            TroubleKind::Unreachable,
        ),
        (with(format!("{server}://no-such-host.invalid:1")), TroubleKind::Name),
        (with(format!("{secure}://localhost:{port}")), TroubleKind::Tls),
        (secret, TroubleKind::Secret),
    ]
}

/// A topic of mosquitto.
pub struct MqttSource {
    server: Mosquitto,
    drifts: bool,
}

impl MqttSource {
    /// With sessions that outlive the broker.
    pub fn new() -> Self {
        Self {
            server: mosquitto(),
            drifts: false,
        }
    }
}

impl SourceWorld for MqttSource {
    fn config(&self) -> Json {
        json!({"url": self.server.url(), "topics": ["in/#"], "types": {"n": "i64"}})
    }

    fn promise(&self) -> Promise {
        Promise::AtLeast
    }

    fn feed(&mut self, numbers: Range<u64>, pad: usize) {
        publish(&self.server, &lines(numbers, pad, self.drifts));
    }

    fn feed_bad(&mut self, _: u64) -> bool {
        publish(&self.server, "nonsense\n");
        false
    }

    fn drift(&mut self) {
        self.drifts = true;
    }

    fn down(&mut self) {
        self.server.stop();
    }

    fn up(&mut self) {
        self.server.start();
    }

    fn wrong(&self) -> Vec<Wrong> {
        wrong_brokers("mqtt", &self.config())
    }

    fn touched(&mut self) -> String {
        counted(&self.server)
    }
}

/// A topic of mosquitto, and somebody who listens.
pub struct MqttSink {
    server: Mosquitto,
    heard: PathBuf,
    _listener: Proc,
    _dir: TempDir,
}

impl MqttSink {
    /// The listener's session outlives the broker.
    pub fn new() -> Self {
        let (server, dir) = (mosquitto(), temp_dir("compliance"));
        let heard = dir.path().join("heard");
        let client = Cmd::new(find_program("mosquitto_sub", CLIENTS));
        let port = server.port().to_string();
        let client = client.args([
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-t",
            "out/#",
            "-q",
            "1",
            "-c",
            "-i",
            "listener",
        ]);
        let listener = client.stdout_to(&heard).spawn();
        // A message of its own tells when it is there.
        testkit::wait_until("the listener", SOON, || {
            let hello = Cmd::new(find_program("mosquitto_pub", CLIENTS));
            hello
                .args(["-h", "127.0.0.1", "-p", &port, "-t", "out/hello", "-m", "hello"])
                .run(SOON)
                .ok();
            fs::read_to_string(&heard)
                .is_ok_and(|text| text.contains("hello"))
                .then_some(())
        });
        Self {
            server,
            heard,
            _listener: listener,
            _dir: dir,
        }
    }
}

impl SinkWorld for MqttSink {
    fn config(&self) -> Json {
        json!({"url": self.server.url(), "topic": "out/a"})
    }

    fn promise(&self) -> Promise {
        Promise::AtLeast
    }

    fn arrived(&mut self) -> Vec<u64> {
        numbers_in(&fs::read_to_string(&self.heard).unwrap_or_default())
    }

    fn extras(&mut self) -> u64 {
        extras_in(&fs::read_to_string(&self.heard).unwrap_or_default())
    }

    fn down(&mut self) {
        self.server.stop();
    }

    fn up(&mut self) {
        self.server.start();
    }

    fn freeze(&mut self) {
        self.server.pause();
    }

    fn thaw(&mut self) {
        self.server.resume();
    }

    fn wrong(&self) -> Vec<Wrong> {
        wrong_brokers("mqtt", &self.config())
    }

    fn touched(&mut self) -> String {
        counted(&self.server)
    }
}

fn nats() -> Nats {
    let server = Nats::builder().jetstream().start();
    server.create_stream("PLANT", "plant.>", "{}");
    server
}

/// A stream of JetStream, or a subject that nobody keeps.
pub struct NatsSource {
    server: Nats,
    has_stream: bool,
    drifts: bool,
}

impl NatsSource {
    /// A new server with a stream.
    pub fn jetstream() -> Self {
        Self {
            server: nats(),
            has_stream: true,
            drifts: false,
        }
    }

    /// A new server that keeps nothing.
    pub fn core() -> Self {
        Self {
            server: Nats::start(),
            has_stream: false,
            drifts: false,
        }
    }

    /// Publishes by hand.
    fn publish(&self, text: &str) {
        let mut out = b"CONNECT {\"verbose\":false}\r\n".to_vec();
        for payload in text.lines() {
            write!(out, "PUB plant.a {}\r\n{payload}\r\n", payload.len()).unwrap();
        }
        out.extend(b"PING\r\n");
        let mut socket = TcpStream::connect(self.server.addr()).unwrap();
        socket.write_all(&out).unwrap();
        let mut lines = BufReader::new(socket).lines();
        while lines.next().unwrap().unwrap() != "PONG" {}
    }
}

impl SourceWorld for NatsSource {
    fn config(&self) -> Json {
        let mut config = json!({"url": self.server.url(), "types": {"n": "i64"}});
        match self.has_stream {
            true => {
                config["stream"] = json!("PLANT");
                config["ack_wait_ms"] = json!(2000);
            }
            false => config["subject"] = json!("plant.>"),
        }
        config
    }

    fn promise(&self) -> Promise {
        match self.has_stream {
            true => Promise::AtLeast,
            false => Promise::GoesOn,
        }
    }

    fn rereads(&self) -> bool {
        self.has_stream
    }

    fn feed(&mut self, numbers: Range<u64>, pad: usize) {
        self.publish(&lines(numbers, pad, self.drifts));
    }

    fn feed_bad(&mut self, _: u64) -> bool {
        self.publish("nonsense\n");
        false
    }

    fn drift(&mut self) {
        self.drifts = true;
    }

    fn down(&mut self) {
        self.server.stop();
    }

    fn up(&mut self) {
        self.server.start();
    }

    fn wrong(&self) -> Vec<Wrong> {
        let mut wrong = wrong_brokers("nats", &self.config());
        if self.has_stream {
            let mut config = self.config();
            config["stream"] = json!("NONE");
            wrong.push((config, TroubleKind::Missing));
        }
        wrong
    }

    fn touched(&mut self) -> String {
        self.server.stream_state("PLANT")
    }
}

/// Messages asked for at once.
const ASKED: u64 = 500;

/// A stream of JetStream, which the destination knows of or not: it keeps what is published either way.
pub struct NatsSink {
    server: Nats,
    knows_stream: bool,
    /// The numbers of the messages that have been looked at, in the stream's order.
    seen: Vec<u64>,
    /// How many of them have the new column.
    extras: u64,
}

impl NatsSink {
    /// With acknowledgements of the stream.
    pub fn jetstream() -> Self {
        Self::new(true)
    }

    /// Without: the server takes the messages, and that is all it says.
    pub fn core() -> Self {
        Self::new(false)
    }

    fn new(knows_stream: bool) -> Self {
        Self {
            server: nats(),
            knows_stream,
            seen: Vec::new(),
            extras: 0,
        }
    }

    /// Asks the stream for messages by their place, by hand: their numbers, and how many have the new column.
    fn look(&self, places: Range<u64>) -> std::io::Result<(Vec<u64>, u64)> {
        let mut out = b"CONNECT {\"verbose\":false}\r\nSUB _INBOX.compliance 1\r\n".to_vec();
        for place in places.clone() {
            let ask = json!({"seq": place}).to_string();
            write!(
                out,
                "PUB $JS.API.STREAM.MSG.GET.PLANT _INBOX.compliance {}\r\n{ask}\r\n",
                ask.len()
            )?;
        }
        let mut socket = TcpStream::connect(self.server.addr())?;
        socket.set_read_timeout(Some(SOON))?;
        socket.write_all(&out)?;
        let mut lines = BufReader::new(socket);
        let (mut numbers, mut extras) = (Vec::new(), 0);
        while (numbers.len() as u64) < places.end - places.start {
            let mut line = String::new();
            if lines.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if !line.starts_with("MSG ") {
                continue;
            }
            let mut payload = String::new();
            lines.read_line(&mut payload)?;
            let answer: Json = serde_json::from_str(&payload)?;
            let data = answer["message"]["data"].as_str().unwrap_or_default();
            let data = base64::engine::general_purpose::STANDARD
                .decode(data)
                .unwrap_or_default();
            let message: Json = serde_json::from_slice(&data)?;
            numbers.push(message["n"].as_u64().unwrap_or_default());
            extras += u64::from(message["extra"] == "more");
        }
        Ok((numbers, extras))
    }
}

impl SinkWorld for NatsSink {
    fn config(&self) -> Json {
        json!({"url": self.server.url(), "subject": "plant.b", "jetstream": self.knows_stream})
    }

    fn promise(&self) -> Promise {
        match self.knows_stream {
            // It knows again what is published twice.
            true => Promise::Exactly,
            false => Promise::AtLeast,
        }
    }

    fn arrived(&mut self) -> Vec<u64> {
        let count = if self.server.is_running() {
            self.server.stream_messages("PLANT")
        } else {
            0
        };
        let mut next = self.seen.len() as u64 + 1;
        while next <= count {
            let upto = (next + ASKED).min(count + 1);
            let Ok((numbers, extras)) = self.look(next..upto) else {
                break;
            };
            self.seen.extend(numbers);
            self.extras += extras;
            next = upto;
        }
        self.seen.clone()
    }

    fn extras(&mut self) -> u64 {
        self.arrived();
        self.extras
    }

    fn down(&mut self) {
        self.server.stop();
    }

    fn up(&mut self) {
        self.server.start();
    }

    fn freeze(&mut self) {
        self.server.pause();
    }

    fn thaw(&mut self) {
        self.server.resume();
    }

    fn wrong(&self) -> Vec<Wrong> {
        let mut wrong = wrong_brokers("nats", &self.config());
        if self.knows_stream {
            let mut config = self.config();
            config["subject"] = json!("elsewhere");
            wrong.push((config, TroubleKind::Missing));
        }
        wrong
    }

    fn touched(&mut self) -> String {
        self.server.stream_state("PLANT")
    }
}
