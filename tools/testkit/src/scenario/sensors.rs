//! How many sensor messages a second a daemon takes from an MQTT broker with QoS 1, and what it does with them. The
//! publisher speaks MQTT by itself and costs next to nothing, so that it is not what is measured.

use std::{
    fs::File,
    io::{BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    net::TcpStream,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{COPY, LATE, STOP, latency::cpu, peak};
use crate::{Broker, Fleet, Mosquitto, Postgres, wait_ok, wait_until};

/// Bytes of a message's payload.
const PAYLOAD_BYTES: usize = 1024;
/// Messages under way from the publisher to the broker.
const WINDOW: u64 = 200;
/// The topic.
const TOPIC: &str = "plant/sensor";
/// Messages before the measured ones.
const WARM_UP: u64 = 1_000;

/// Where messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// Through a filter into a file of JSON lines, in the same daemon.
    File,
    /// Over the bus into PostgreSQL.
    Postgres,
}

/// What [`sensors`] found.
#[derive(Debug, Clone, Copy)]
pub struct Sensors {
    /// From the first measured message until the last was there.
    pub took: Duration,
    /// Until the publisher had the broker's word for all of them.
    pub published: Duration,
    /// CPU time of the daemon that takes them.
    pub cpu: Duration,
    /// Its peak resident memory, KiB.
    pub peak_kib: u64,
}

/// A publisher of QoS 1 messages.
struct Publisher {
    stream: TcpStream,
    acknowledged: Arc<AtomicU64>,
    sent: u64,
}

impl Publisher {
    fn connect(port: u16) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a broker");
        stream.set_nodelay(true).expect("a socket");
        // CONNECT: protocol level 4, a clean session, no keep-alive, the client id "sensors".
        let mut connect = vec![0x10, 19, 0, 4];
        connect.extend(b"MQTT\x04\x02\0\0\0\x07sensors");
        stream.write_all(&connect).expect("a connection");
        let mut connack = [0; 4];
        stream.read_exact(&mut connack).expect("an answer");
        assert_eq!(connack, [0x20, 2, 0, 0], "the broker takes the publisher");
        let acknowledged = Arc::new(AtomicU64::new(0));
        let (answers, count) = (stream.try_clone().expect("a socket"), Arc::clone(&acknowledged));
        thread::spawn(move || {
            let mut answers = BufReader::new(answers);
            let mut puback = [0; 4];
            while answers.read_exact(&mut puback).is_ok() {
                count.fetch_add(1, Ordering::Release);
            }
        });
        Self {
            stream,
            acknowledged,
            sent: 0,
        }
    }

    /// Publishes so many, and waits until the broker has all of them.
    fn publish(&mut self, messages: u64) {
        let last = self.sent + messages;
        let mut packets = Vec::new();
        while self.sent < last {
            let room = WINDOW - (self.sent - self.acknowledged.load(Ordering::Acquire));
            if room < WINDOW / 4 {
                thread::sleep(Duration::from_micros(200));
                continue;
            }
            packets.clear();
            for id in self.sent + 1..=(self.sent + room).min(last) {
                packet(&mut packets, id);
                self.sent = id;
            }
            self.stream.write_all(&packets).expect("the broker takes messages");
        }
        wait_until("the broker to have every message", LATE, || {
            (self.acknowledged.load(Ordering::Acquire) == last).then_some(())
        });
    }
}

/// A PUBLISH packet with QoS 1. One message in ten is cold, for the filter.
fn packet(packets: &mut Vec<u8>, id: u64) {
    let temp = if id.is_multiple_of(10) { 5 } else { 20 + id % 50 };
    let mut payload = format!(
        "{{\"id\":{id},\"sensor\":\"sensor-{}\",\"temp_c\":{temp}.5,\"note\":\"",
        id % 50
    );
    let rest = PAYLOAD_BYTES - payload.len() - 2;
    payload.extend(std::iter::repeat_n('x', rest));
    payload.push_str("\"}");
    let length = 2 + TOPIC.len() + 2 + payload.len();
    packets.push(0x32);
    packets.extend([(length % 128) as u8 | 0x80, (length / 128) as u8]);
    packets.extend((TOPIC.len() as u16).to_be_bytes());
    packets.extend(TOPIC.as_bytes());
    // Packet ids are never 0; with the window this small none is in use twice.
    packets.extend(((id % 65_535) as u16 + 1).to_be_bytes());
    packets.extend(payload.as_bytes());
}

/// Of messages 1 to `messages`, those that are not cold.
fn warm(messages: u64) -> u64 {
    messages - messages / 10
}

/// Counts the lines of a growing file.
struct Lines {
    path: PathBuf,
    read_to: u64,
    found: u64,
}

impl Lines {
    fn count(&mut self) -> u64 {
        let read = || {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(self.read_to))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            std::io::Result::Ok(bytes)
        };
        // The file is made with the first row.
        let bytes = read().unwrap_or_default();
        self.read_to += bytes.len() as u64;
        self.found += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.found
    }
}

/// `messages` go from a mosquitto into a daemon and on to the destination; every one that passes the filter has to arrive.
/// `in_flight`: how many the broker hands out before it wants acknowledgements; mosquitto's own default is 20.
#[track_caller]
pub fn sensors(to: Destination, messages: u64, in_flight: u16) -> Sensors {
    let in_flight = format!("max_inflight_messages {in_flight}");
    let plant = Mosquitto::builder()
        .line(&in_flight)
        .line("max_queued_messages 0")
        .start();
    let postgres = (to == Destination::Postgres).then(Postgres::start);
    let fleet = Fleet::start(Broker::embedded(false), None);
    fleet.enrol("gateway");
    fleet.enrol("hub");
    let mut gateway = fleet.daemon("gateway", None);
    let mut hub = fleet.daemon("hub", None);
    let file = fleet.dir().join("out.jsonl");
    let destination = match &postgres {
        None => format!(
            "daemon = \"gateway\"\ntype = \"file\"\npath = \"{}\"\nformat = \"json_lines\"\n",
            file.display()
        ),
        Some(postgres) => format!(
            "daemon = \"hub\"\ntype = \"postgres\"\nurl = \"{}\"\ntable = \"{COPY}\"\nkey = []\ntls = {{ mode = \"disable\" }}\n",
            postgres.url()
        ),
    };
    fleet.apply(
        "sensors",
        &format!(
            "name = \"sensors\"\n\n[sources.plant]\ntype = \"mqtt\"\ndaemon = \"gateway\"\nurl = \"{}\"\ntopics = [\"plant/#\"]\n\n\
             [transforms.warm]\ntype = \"filter\"\nfrom = \"plant\"\nwhere = \"temp_c > 10.0\"\n\n\
             [destinations.out]\nfrom = \"warm\"\n{destination}",
            plant.url()
        ),
    );
    let mut lines = Lines {
        path: file,
        read_to: 0,
        found: 0,
    };
    let mut arrived = || match &postgres {
        None => lines.count(),
        Some(postgres) => {
            let counted = postgres.try_query_in("postgres", &format!("SELECT count(*) FROM {COPY}"));
            // The table is made with the first row.
            if counted.code() == Some(0) {
                counted.ok().trim().parse().unwrap_or(0)
            } else {
                0
            }
        }
    };
    let mut publisher = Publisher::connect(plant.port());
    publisher.publish(WARM_UP);
    let mut all = |wanted: u64| {
        wait_ok("every message at the destination", LATE, || match arrived() {
            found if found == wanted => Ok(()),
            found => Err(format!("{found} of {wanted}")),
        });
    };
    all(warm(WARM_UP));
    let (before, started) = (cpu(&gateway), Instant::now());
    publisher.publish(messages);
    let published = started.elapsed();
    all(warm(WARM_UP + messages));
    let found = Sensors {
        took: started.elapsed(),
        published,
        cpu: cpu(&gateway) - before,
        peak_kib: peak(&gateway),
    };
    assert!(gateway.term_and_wait(STOP).success(), "the gateway drains and stops");
    assert!(hub.term_and_wait(STOP).success(), "the hub drains and stops");
    found
}
