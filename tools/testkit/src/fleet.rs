//! A whole fleet of the real binaries: a broker, a plane, an operator and daemons, all in one directory. Knows how to
//! start them and take them away; what they shall do is the test's.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::{Cmd, Ledger, Mosquitto, Nats, Proc, Signal, Tls, free_port, temp_dir, wait_ok};

/// How long a command or a start may take on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// Who shows it may fetch the plane's metrics.
const METRICS_TOKEN: &str = "a token for metrics";

/// The broker of a [`Fleet`]: it can be taken away and brought back, on the same port.
pub enum Broker {
    /// Ours. Configured by the plane's `init`, so it starts after that.
    Embedded(Embedded),
    /// A mosquitto.
    Mosquitto(Mosquitto),
    /// A nats-server.
    Nats(Nats),
    /// The MQTT listener of a nats-server.
    NatsMqtt(Nats),
    /// A nats-server whose JetStream keeps the data of every fleet in a stream, as an operator may have configured it.
    NatsJetStream(Nats),
}

/// What JetStream keeps, and how much of it.
const KEPT: (&str, &str, u64) = ("DATA", "myc.v1.*.data.>", 64 * 1024 * 1024);

/// `mycelial-broker`.
pub struct Embedded {
    port: u16,
    config: PathBuf,
    tls: bool,
    process: Option<Proc>,
}

impl Broker {
    /// Ours, on a free port.
    #[must_use]
    #[track_caller]
    pub fn embedded(tls: bool) -> Self {
        Self::Embedded(Embedded {
            port: free_port(),
            config: PathBuf::new(),
            tls,
            process: None,
        })
    }

    /// A nats-server with JetStream, and a stream that keeps the data.
    #[must_use]
    #[track_caller]
    pub fn nats_jetstream() -> Self {
        let server = Nats::builder().jetstream().start();
        keep_data(&server);
        Self::NatsJetStream(server)
    }

    /// Its address, as clients write it.
    #[must_use]
    pub fn url(&self) -> String {
        match self {
            Self::Embedded(broker) if broker.tls => format!("mqtts://127.0.0.1:{}", broker.port),
            Self::Embedded(broker) => format!("mqtt://127.0.0.1:{}", broker.port),
            Self::Mosquitto(broker) => broker.url(),
            Self::Nats(broker) | Self::NatsJetStream(broker) => broker.url(),
            Self::NatsMqtt(broker) => broker.mqtt_url(),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        let port = match self {
            Self::Embedded(broker) => broker.port,
            Self::Mosquitto(broker) => broker.port(),
            Self::Nats(broker) | Self::NatsJetStream(broker) => broker.port(),
            Self::NatsMqtt(broker) => broker.mqtt_port(),
        };
        (Ipv4Addr::LOCALHOST, port).into()
    }

    /// Its process id. Panics when it is away.
    #[must_use]
    #[track_caller]
    pub fn pid(&self) -> u32 {
        match self {
            Self::Embedded(broker) => broker.process.as_ref().expect("the broker is away").pid(),
            Self::Mosquitto(broker) => broker.pid(),
            Self::Nats(broker) | Self::NatsMqtt(broker) | Self::NatsJetStream(broker) => broker.pid(),
        }
    }

    /// Kills it.
    pub fn away(&mut self) {
        match self {
            Self::Embedded(broker) => {
                if let Some(mut process) = broker.process.take() {
                    process.kill9();
                }
            }
            Self::Mosquitto(broker) => broker.kill9(),
            Self::Nats(broker) | Self::NatsMqtt(broker) | Self::NatsJetStream(broker) => broker.kill9(),
        }
    }

    /// Removes what it has stored while it is away. Ours stores nothing unless told.
    #[track_caller]
    pub fn forget(&mut self) {
        let (service, name) = match self {
            Self::Embedded(_) => return,
            Self::Mosquitto(broker) => (&**broker, "data"),
            Self::Nats(broker) | Self::NatsMqtt(broker) | Self::NatsJetStream(broker) => (&**broker, "jetstream"),
        };
        let dir = service.dir().join(name);
        assert!(!service.is_running(), "a broker holds on to its files while it runs");
        if dir.exists() {
            let emptied = fs::remove_dir_all(&dir).and_then(|()| fs::create_dir(&dir));
            emptied.unwrap_or_else(|e| panic!("cannot empty {}: {e}", dir.display()));
        }
    }

    /// Freezes it: connections stay open, and nobody answers.
    #[track_caller]
    pub fn freeze(&mut self) {
        match self {
            Self::Embedded(broker) => broker
                .process
                .iter_mut()
                .for_each(|process| process.signal(Signal::Stop)),
            Self::Mosquitto(broker) => broker.pause(),
            Self::Nats(broker) | Self::NatsMqtt(broker) | Self::NatsJetStream(broker) => broker.pause(),
        }
    }

    /// Ends [`Broker::freeze`].
    #[track_caller]
    pub fn thaw(&mut self) {
        match self {
            Self::Embedded(broker) => broker
                .process
                .iter_mut()
                .for_each(|process| process.signal(Signal::Cont)),
            Self::Mosquitto(broker) => broker.resume(),
            Self::Nats(broker) | Self::NatsMqtt(broker) | Self::NatsJetStream(broker) => broker.resume(),
        }
    }

    /// Starts it again.
    #[track_caller]
    pub fn back(&mut self) {
        match self {
            Self::Embedded(broker) => {
                let mut process = Cmd::bin("mycelial-broker").arg("--config").arg(&broker.config).spawn();
                process.wait_for_log("listening on", SOON);
                broker.process = Some(process);
            }
            Self::Mosquitto(broker) => broker.start(),
            Self::Nats(broker) | Self::NatsMqtt(broker) => broker.start(),
            Self::NatsJetStream(broker) => {
                broker.start();
                keep_data(broker);
            }
        }
    }
}

#[track_caller]
fn keep_data(server: &Nats) {
    let (name, subjects, bytes_max) = KEPT;
    server.add_stream(name, subjects, bytes_max);
}

/// A plane, an operator and daemons around a [`Broker`].
///
/// Everything lives under [`Fleet::dir`]: `plane/`, `operator/` and a directory per daemon. Dropping it stops what runs.
pub struct Fleet {
    /// The broker.
    pub broker: Broker,
    plane: Option<Proc>,
    dir: TempDir,
}

impl Fleet {
    /// Makes the plane, starts the broker if it is ours, starts the plane, enrols an operator. `tls` is whose
    /// certificate a broker of the operator's own has.
    #[must_use]
    #[track_caller]
    pub fn start(broker: Broker, tls: Option<&Tls>) -> Self {
        Self::start_in(temp_dir("fleet"), broker, tls)
    }

    /// Like [`Fleet::start`], with brokers to fail over to when `broker` is gone.
    #[must_use]
    #[track_caller]
    pub fn start_beside(broker: Broker, others: &[&str]) -> Self {
        Self::start_on(temp_dir("fleet"), broker, others, None)
    }

    /// Like [`Fleet::start`], in a directory in which a test has prepared something: links to disks of its own.
    #[must_use]
    #[track_caller]
    pub fn start_in(dir: TempDir, broker: Broker, tls: Option<&Tls>) -> Self {
        Self::start_on(dir, broker, &[], tls)
    }

    #[track_caller]
    fn start_on(dir: TempDir, mut broker: Broker, others: &[&str], tls: Option<&Tls>) -> Self {
        let plane_dir = dir.path().join("plane");
        let mut init = Cmd::bin("mycelial-plane").arg("init").arg("--dir").arg(&plane_dir);
        init = match &broker {
            Broker::Embedded(_) => init.args(["--embedded", &broker.url()]),
            _ => init.args(["--bus", &broker.url()]),
        };
        for other in others {
            init = init.args(["--bus", other]);
        }
        if let Some(tls) = tls {
            init = init.arg("--ca").arg(tls.ca());
        }
        init.run(SOON).ok();
        if let Broker::Embedded(embedded) = &mut broker {
            embedded.config = plane_dir.join("broker.toml");
            broker.back();
        }
        let mut fleet = Self {
            broker,
            plane: None,
            dir,
        };
        fleet.plane_back();
        let string = fleet.plane_command(&["token", "--role", "operator"]);
        wait_ok("the operator to be enrolled", SOON, || {
            fleet.cli(&["init", string.trim(), "--name", "me"])
        });
        fleet
    }

    /// Where everything lives.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A path in [`Fleet::dir`], as text for command lines and settings.
    #[must_use]
    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Runs the operator's command line; its stdout, or its stderr when it failed.
    pub fn cli(&self, arguments: &[&str]) -> Result<String, String> {
        let home = self.path("operator");
        let done = Cmd::bin("mycelial").args(["--home", &home]).args(arguments).run(SOON);
        if done.code() == Some(0) {
            Ok(String::from_utf8_lossy(done.stdout.as_ref()).into_owned())
        } else {
            Err(String::from_utf8_lossy(done.stderr.as_ref()).into_owned())
        }
    }

    /// Runs one of the plane's own commands on its directory; its stdout.
    #[track_caller]
    pub fn plane_command(&self, arguments: &[&str]) -> String {
        let (command, rest) = arguments.split_first().expect("a command");
        let plane = self.path("plane");
        Cmd::bin("mycelial-plane")
            .args([command, "--dir", &plane])
            .args(rest)
            .run(SOON)
            .ok()
    }

    /// Makes a new daemon a member, without starting it.
    #[track_caller]
    pub fn enrol(&self, name: &str) {
        self.enrol_with(name, |cmd| cmd);
    }

    /// The same, with something else about the command.
    #[track_caller]
    pub fn enrol_with(&self, name: &str, change: impl FnOnce(Cmd) -> Cmd) {
        let string = self
            .cli(&["token", "create", "--name", name])
            .unwrap_or_else(|error| panic!("{error}"));
        let dir = self.path(name);
        let cmd = Cmd::bin("myceliald").args(["enrol", string.trim(), "--data-dir", &dir]);
        change(cmd).run(SOON).ok();
    }

    /// Starts an enrolled daemon; with `bus`, it finds the bus there instead of where its enrolment says.
    #[must_use]
    #[track_caller]
    pub fn daemon(&self, name: &str, bus: Option<&str>) -> Proc {
        self.daemon_cmd(name, bus).spawn()
    }

    /// What [`Fleet::daemon`] runs, for a test that wants its log elsewhere, or more around it.
    #[must_use]
    #[track_caller]
    pub fn daemon_cmd(&self, name: &str, bus: Option<&str>) -> Cmd {
        let mut cmd = Cmd::bin("myceliald")
            .name(name)
            .args(["start", "--data-dir", &self.path(name)]);
        if let Some(bus) = bus {
            let config = self.dir.path().join(format!("{name}.toml"));
            let text = format!("[bus]\naddresses = [\"{bus}\"]\n");
            fs::write(&config, text).unwrap_or_else(|e| panic!("cannot write {}: {e}", config.display()));
            cmd = cmd.arg("--config").arg(config);
        }
        cmd
    }

    /// Leaves everything where it is when the fleet is dropped, for somebody to look at. Returns where that is.
    pub fn keep(&mut self) -> PathBuf {
        self.dir.disable_cleanup(true);
        self.dir.path().to_path_buf()
    }

    /// Kills the plane.
    pub fn plane_away(&mut self) {
        if let Some(mut plane) = self.plane.take() {
            plane.kill9();
        }
    }

    /// What [`Fleet::plane_back`] runs, for a test that wants more around it.
    #[must_use]
    #[track_caller]
    pub fn plane_cmd(&self) -> Cmd {
        let dir = self.path("plane");
        Cmd::bin("mycelial-plane")
            .name("plane")
            .args(["run", "--dir", &dir, "--http", "127.0.0.1:0"])
    }

    /// Starts the plane again.
    #[track_caller]
    pub fn plane_back(&mut self) {
        let mut plane = self.plane_cmd().spawn();
        plane.wait_for_log("the plane is running", SOON);
        self.plane = Some(plane);
    }

    /// Restarts the plane with metrics that can be fetched.
    #[track_caller]
    pub fn with_metrics(mut self) -> Self {
        let settings = self.path("plane/plane.toml");
        let before = fs::read_to_string(&settings).expect("settings");
        fs::write(self.path("plane/metrics.token"), METRICS_TOKEN).expect("a token");
        fs::write(&settings, format!("metrics_token_file = \"metrics.token\"\n{before}")).expect("settings");
        self.plane_away();
        self.plane_back();
        self
    }

    /// What Prometheus would fetch now.
    pub fn metrics(&self) -> Result<String, String> {
        let info: serde_json::Value =
            serde_json::from_str(&self.cli(&["info", "-o", "json"])?).map_err(|error| error.to_string())?;
        let url = format!("http://{}/metrics", info["http"].as_str().ok_or("no address")?);
        let token = format!("authorization: Bearer {METRICS_TOKEN}");
        Ok(Cmd::new("curl").args(["-sS", "-H", &token, &url]).run(SOON).stdout)
    }

    /// The running plane.
    #[track_caller]
    pub fn plane(&mut self) -> &mut Proc {
        self.plane.as_mut().expect("the plane has been taken away")
    }

    /// Writes a workflow to a file, deploys it once the daemons have said what they can run, and waits until they do.
    #[track_caller]
    pub fn apply(&self, name: &str, workflow: &str) {
        let file = self.dir.path().join(format!("{name}.workflow.toml"));
        fs::write(&file, workflow).unwrap_or_else(|e| panic!("cannot write {}: {e}", file.display()));
        let file = file.display().to_string();
        wait_ok("the workflow to be deployed", SOON, || {
            self.cli(&["workflow", "apply", &file])
        });
        wait_ok("the workflow to run everywhere", SOON, || self.runs(name));
    }

    /// Whether every daemon runs the newest revision of a workflow; else what the status says.
    fn runs(&self, workflow: &str) -> Result<(), String> {
        let text = self.cli(&["workflow", "status", workflow, "-o", "json"])?;
        let status: serde_json::Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let wanted = (&status["view"]["revision"], "running");
        let parts = status["parts"].as_array().map_or(&[][..], Vec::as_slice);
        let is_wanted = |part: &serde_json::Value| (&part["revision"], part["state"].as_str().unwrap_or("")) == wanted;
        let all = !parts.is_empty() && parts.iter().all(is_wanted);
        all.then_some(()).ok_or(text)
    }

    /// Every stream's account as the plane has it, by edge. Empty while it does not answer.
    #[must_use]
    pub fn ledgers(&self) -> Vec<(String, Ledger)> {
        self.accounts(|_| true)
    }

    /// The accounts of one workflow's streams.
    #[must_use]
    pub fn ledgers_of(&self, workflow: &str) -> Vec<(String, Ledger)> {
        self.accounts(|stream| stream["workflow"] == workflow)
    }

    fn accounts(&self, wanted: impl Fn(&serde_json::Value) -> bool) -> Vec<(String, Ledger)> {
        let Ok(text) = self.cli(&["ledger", "-o", "json"]) else {
            return Vec::new();
        };
        let streams: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap_or_default();
        let read = |stream: &serde_json::Value| {
            let count = |key: &str| stream["ledger"][key].as_u64().unwrap_or(0);
            let ledger = Ledger {
                produced: count("produced"),
                delivered: count("delivered"),
                buffered: count("buffered"),
                dropped: count("dropped"),
                dead_lettered: count("dead"),
            };
            (stream["edge"].as_str().unwrap_or_default().to_string(), ledger)
        };
        streams.iter().filter(|stream| wanted(stream)).map(read).collect()
    }
}
