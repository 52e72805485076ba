//! Loads a broker with frames and says how many bytes a second went through it, and what memory it took.
//!
//! ```text
//! cargo run --release -p broker --example load -- --clients 20 --frames 2000
//! ```
//!
//! Starts `mycelial-broker` from the same build, connects `--clients` producers and as many consumers, one stream for
//! each pair, and waits until every frame has arrived. At most 16 frames of a stream are on their way at a time, as
//! between daemons.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use bus_schema::{
    access::User,
    id::{FleetId, NodeId, StreamId, base32},
    limits::CREDIT_FRAMES,
    subject::{self, Dialect},
};
use clap::Parser;
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

/// Frames of a stream on their way.
const CREDIT: usize = CREDIT_FRAMES as usize;
/// The secret of a broker that lives for seconds.
const SECRET: [u8; 32] = [42; 32];

#[derive(Parser)]
struct Args {
    /// Pairs of a producer and a consumer
    #[arg(long, default_value_t = 1)]
    clients: u8,
    /// Frames each producer sends
    #[arg(long, default_value_t = 5000)]
    frames: usize,
    /// Bytes in a frame
    #[arg(long, default_value_t = 64 * 1024)]
    bytes: usize,
    /// Lines to add to broker.toml
    #[arg(long, default_value = "")]
    config: String,
}

/// Stops the broker when the measurement is over, however it ends.
struct Broker(Child);

impl Drop for Broker {
    fn drop(&mut self) {
        // Already gone is fine.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Broker {
    fn memory(&self, line: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let found = status
            .lines()
            .find_map(|text| text.strip_prefix(line)?.split_whitespace().next()?.parse().ok());
        found.with_context(|| format!("no {line} in the process's status"))
    }

    /// User and system time spent, in milliseconds.
    fn cpu_ms(&self) -> Result<u64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        Ok(ticks * 10)
    }
}

#[derive(Clone, Copy)]
struct Fleet {
    id: FleetId,
    port: u16,
}

impl Fleet {
    fn connect(self, node: NodeId) -> (AsyncClient, EventLoop) {
        let user = User::Node(node);
        let mut options = MqttOptions::new(user.name(), "127.0.0.1", self.port);
        options.set_credentials(user.name(), user.password(&SECRET));
        options.set_max_packet_size(broker::PACKET_BYTES_MAX, broker::PACKET_BYTES_MAX);
        options.set_inflight(CREDIT as u16);
        AsyncClient::new(options, 2 * CREDIT)
    }
}

fn node(kind: u8, n: u8) -> NodeId {
    let mut hash = [kind; 32];
    hash[1] = n;
    NodeId::from_hash(&hash)
}

fn main() -> Result<()> {
    let args = Args::parse();
    let dir = tempfile::tempdir()?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let fleet = Fleet {
        id: FleetId::from_hash(&[1; 32]),
        port,
    };
    let broker = start(dir.path(), fleet, &args.config)?;
    thread::sleep(Duration::from_millis(500));
    println!("idle: {} KB resident", broker.memory("VmRSS:")?);

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (seconds, cpu) = runtime.block_on(async {
        let (ready, mut readies) = mpsc::channel(256);
        let (mut consumers, mut streams) = (JoinSet::new(), Vec::new());
        for n in 0..args.clients {
            let stream = Stream {
                fleet,
                n,
                frames: args.frames,
                credit: Arc::new(Semaphore::new(CREDIT)),
            };
            consumers.spawn(consume(stream.clone(), ready.clone()));
            streams.push(stream);
        }
        for _ in 0..args.clients {
            readies.recv().await.context("a consumer ended early")?;
        }
        println!("{} subscribed: {} KB resident", args.clients, broker.memory("VmRSS:")?);
        let (start, cpu) = (Instant::now(), broker.cpu_ms()?);
        let mut producers = JoinSet::new();
        for stream in streams {
            producers.spawn(produce(stream, args.bytes));
        }
        while let Some(done) = consumers.join_next().await {
            done??;
        }
        let measured = (start.elapsed().as_secs_f64(), broker.cpu_ms()? - cpu);
        while let Some(done) = producers.join_next().await {
            done??;
        }
        anyhow::Ok(measured)
    })?;
    let frames = args.frames as f64 * f64::from(args.clients);
    println!(
        "{frames} frames of {} bytes in {seconds:.2} s: {:.0} frames/s, {:.0} MB/s; broker: {cpu} ms of CPU",
        args.bytes,
        frames / seconds,
        frames * args.bytes as f64 / 1e6 / seconds
    );
    println!(
        "peak: {} KB resident, now {} KB",
        broker.memory("VmHWM:")?,
        broker.memory("VmRSS:")?
    );
    Ok(())
}

fn start(dir: &Path, fleet: Fleet, more: &str) -> Result<Broker> {
    let secret = dir.join("secret");
    fs::write(&secret, base32(&SECRET))?;
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
    let config = dir.join("broker.toml");
    let (id, plane, port) = (fleet.id, node(0, 0), fleet.port);
    fs::write(
        &config,
        format!("fleet = '{id}'\nplane = '{plane}'\nsecret_file = 'secret'\nlisten = '127.0.0.1:{port}'\n{more}\n"),
    )?;
    // Examples are built into a directory below the binaries'.
    let own = std::env::current_exe()?;
    let program = own
        .parent()
        .and_then(Path::parent)
        .context("no build directory")?
        .join("mycelial-broker");
    ensure!(
        program.exists(),
        "{} is not built: cargo build --release -p broker",
        program.display()
    );
    let child = Command::new(program)
        .arg("--config")
        .arg(config)
        .stderr(Stdio::null())
        .spawn()?;
    let broker = Broker(child);
    for _ in 0..500 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Ok(broker);
        }
        thread::sleep(Duration::from_millis(10));
    }
    bail!("the broker does not listen");
}

/// One pair's stream.
#[derive(Clone)]
struct Stream {
    fleet: Fleet,
    n: u8,
    frames: usize,
    credit: Arc<Semaphore>,
}

impl Stream {
    fn topic(&self) -> String {
        subject::data(&self.fleet.id, &node(1, self.n), &StreamId::from_hash(&[self.n; 32])).render(Dialect::Mqtt)
    }
}

async fn consume(stream: Stream, ready: mpsc::Sender<()>) -> Result<()> {
    let (client, mut events) = stream.fleet.connect(node(2, stream.n));
    client.try_subscribe(stream.topic(), QoS::AtLeastOnce)?;
    let mut received = 0;
    while received < stream.frames {
        match events.poll().await? {
            Event::Incoming(Packet::SubAck(_)) => ready.send(()).await?,
            Event::Incoming(Packet::Publish(_)) => {
                received += 1;
                stream.credit.add_permits(1);
            }
            _ => {}
        }
    }
    Ok(())
}

async fn produce(stream: Stream, bytes: usize) -> Result<()> {
    let (client, mut events) = stream.fleet.connect(node(1, stream.n));
    let (topic, mut given, mut acked) = (stream.topic(), 0, 0);
    while acked < stream.frames {
        let polled = tokio::select! {
            credit = stream.credit.acquire(), if given < stream.frames => {
                credit?.forget();
                client.try_publish(&topic, QoS::AtLeastOnce, false, vec![7; bytes])?;
                given += 1;
                continue;
            }
            polled = events.poll() => polled?,
        };
        if let Event::Incoming(Packet::PubAck(_)) = polled {
            acked += 1;
        }
    }
    Ok(())
}
