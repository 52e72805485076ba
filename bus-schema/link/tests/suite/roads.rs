//! Every broker of the suite. A function per road, so that each test has a broker of its own. Each takes packets of at
//! most 128 KB, which is what hosted brokers commonly allow.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use bus_schema::id::base32;
use testkit::{Cmd, Mosquitto, MosquittoBuilder, Nats, NatsBuilder, Proc, Signal, TempDir, Tls, free_port, temp_dir};

use super::{Broker, Door, Road, SOON, empty, fleet, node, read};

/// Largest packet or payload the brokers take, in bytes.
const LIMIT_BYTES: usize = 128 * 1024;

pub fn memory() -> Road {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    Road::memory(&format!("hub-{}", NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// `mycelial-broker`, keeping sessions as it does where it is told to.
pub fn embedded() -> Road {
    let broker = Embedded::new();
    let (address, door) = (broker.address, Door::Mqtt(broker.address));
    broker.start();
    let mut road = Road::new(format!("mqtt://{address}"), broker).door(door);
    road.secret = Some(Embedded::SECRET);
    road
}

struct Embedded {
    dir: TempDir,
    address: SocketAddr,
    process: Mutex<Option<Proc>>,
}

impl Embedded {
    const SECRET: [u8; 32] = [42; 32];

    fn new() -> Self {
        let dir = temp_dir("embedded");
        let secret = dir.path().join("broker.secret");
        fs::write(&secret, base32(&Self::SECRET)).unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let (fleet, plane) = (fleet(), node("plane"));
        let text = format!(
            "fleet = '{fleet}'\nplane = '{plane}'\nsecret_file = 'broker.secret'\nlisten = '{address}'\ndata_dir = 'data'\n"
        );
        fs::write(dir.path().join("broker.toml"), text).unwrap();
        Self {
            dir,
            address,
            process: Mutex::default(),
        }
    }

    fn signal(&self, signal: Signal) {
        self.process.lock().unwrap().as_mut().unwrap().signal(signal);
    }
}

impl Broker for Embedded {
    fn start(&self) {
        let config = self.dir.path().join("broker.toml");
        let mut process = Cmd::bin("mycelial-broker").arg("--config").arg(config).spawn();
        process.wait_for_log("listening on", SOON);
        *self.process.lock().unwrap() = Some(process);
    }
    fn stop(&self) {
        if let Some(mut process) = self.process.lock().unwrap().take() {
            process.term_and_wait(SOON);
        }
    }
    fn pause(&self) {
        self.signal(Signal::Stop);
    }
    fn resume(&self) {
        self.signal(Signal::Cont);
    }
    fn wipe(&self) {
        self.stop();
        empty(&self.dir.path().join("data"));
        self.start();
    }
}

fn a_mosquitto() -> MosquittoBuilder {
    Mosquitto::builder()
        .persist()
        .line(&format!("max_packet_size {LIMIT_BYTES}"))
        .line(&format!("message_size_limit {LIMIT_BYTES}"))
}

pub fn mosquitto() -> Road {
    Road::mosquitto(a_mosquitto().start())
}

pub fn mosquitto_tls() -> Road {
    let tls = Tls::new();
    Road::mosquitto(a_mosquitto().tls(&tls).start()).trusting(&tls, None)
}

pub fn mosquitto_client_certificate() -> Road {
    let tls = Tls::new();
    let server = a_mosquitto().tls(&tls).client_certs().start();
    Road::mosquitto(server).trusting(&tls, Some(&tls.client("gateway")))
}

pub fn mosquitto_password() -> Road {
    Road::mosquitto(a_mosquitto().user("ann", "right").start()).user("ann", "right")
}

fn a_nats() -> NatsBuilder {
    Nats::builder().line(&format!("max_payload: {LIMIT_BYTES}"))
}

pub fn nats() -> Road {
    Road::nats(a_nats().start())
}

pub fn nats_tls() -> Road {
    let tls = Tls::new();
    Road::nats(a_nats().tls(&tls).start()).trusting(&tls, None)
}

pub fn nats_client_certificate() -> Road {
    let tls = Tls::new();
    let server = a_nats().tls(&tls).client_certs().start();
    Road::nats(server).trusting(&tls, Some(&tls.client("gateway")))
}

pub fn nats_password() -> Road {
    Road::nats(a_nats().user("ann", "right").start()).user("ann", "right")
}

pub fn nats_creds() -> Road {
    let server = a_nats().creds().start();
    let creds = String::from_utf8(read(server.creds_file())).unwrap();
    Road::nats(server).creds(creds)
}

pub fn nats_mqtt() -> Road {
    Road::nats_mqtt(a_nats().mqtt().start())
}

pub fn nats_mqtt_tls() -> Road {
    let tls = Tls::new();
    Road::nats_mqtt(a_nats().mqtt().tls(&tls).start()).trusting(&tls, None)
}

/// A nats-server with a JetStream stream over everything the fleet says, as an operator may have for a record of it.
pub fn nats_jetstream() -> Road {
    capturing("{\"discard\": \"old\", \"max_bytes\": 8388608}")
}

/// The same with a stream that is full from the tenth message on, and refuses all others.
pub fn nats_jetstream_full() -> Road {
    capturing("{\"discard\": \"new\", \"max_msgs\": 10}")
}

fn capturing(limits: &'static str) -> Road {
    let server = a_nats().jetstream().start();
    let (url, door) = (server.url(), Door::Nats(server.addr()));
    let broker = Capturing { server, limits };
    broker.capture();
    Road::new(url, broker).door(door)
}

struct Capturing {
    server: Nats,
    limits: &'static str,
}

impl Capturing {
    /// Creates the stream, unless it is there.
    fn capture(&self) {
        self.server.create_stream("FLEET", "myc.v1.>", self.limits);
    }
}

impl Broker for Capturing {
    fn start(&self) {
        self.server.start();
        self.capture();
    }
    fn stop(&self) {
        self.server.stop();
    }
    fn pause(&self) {
        self.server.pause();
    }
    fn resume(&self) {
        self.server.resume();
    }
    fn captured(&self) -> Option<u64> {
        Some(self.server.stream_messages("FLEET"))
    }
    fn wipe(&self) {
        self.stop();
        empty(&self.server.dir().join("jetstream"));
        self.start();
    }
}
