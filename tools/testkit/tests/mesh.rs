//! The whole mesh, with the real binaries: rows cross from one daemon to another over each kind of broker, while the broker,
//! the plane and the gateway fail. One body, four roads. Ends by comparing every value and by checking the ledger.

#![cfg(target_os = "linux")]

use std::{path::Path, time::Duration};

use testkit::{Cmd, Ledger, Link, Mosquitto, Nats, Proc, shop, temp_dir, wait_ok, wait_until};

const SOON: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(20);

/// A broker that can be taken away and brought back.
trait Road {
    /// Its address.
    fn url(&self) -> String;
    fn away(&mut self);
    fn back(&mut self);
}

struct OnMosquitto(Mosquitto);

impl Road for OnMosquitto {
    fn url(&self) -> String {
        self.0.url()
    }
    fn away(&mut self) {
        self.0.kill9();
    }
    fn back(&mut self) {
        self.0.start();
    }
}

struct OnNats(Nats, bool);

impl Road for OnNats {
    fn url(&self) -> String {
        if self.1 { self.0.mqtt_url() } else { self.0.url() }
    }
    fn away(&mut self) {
        self.0.kill9();
    }
    fn back(&mut self) {
        self.0.start();
    }
}

struct Embedded {
    port: u16,
    config: std::path::PathBuf,
    process: Option<Proc>,
}

impl Road for Embedded {
    fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }
    fn away(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill9();
        }
    }
    fn back(&mut self) {
        let mut process = Cmd::bin("mycelial-broker").arg("--config").arg(&self.config).spawn();
        process.wait_for_log("listening on", SOON);
        self.process = Some(process);
    }
}

fn start(name: &str, program: &str, arguments: &[&str]) -> Proc {
    Cmd::bin(program).name(name).args(arguments).spawn()
}

fn daemon(name: &str, dir: &Path) -> Proc {
    start(name, "myceliald", &["start", "--data-dir", &text(dir, name)])
}

fn text(dir: &Path, name: &str) -> String {
    dir.join(name).display().to_string()
}

fn plane(dir: &Path) -> Proc {
    let mut plane = start(
        "plane",
        "mycelial-plane",
        &["run", "--dir", &text(dir, "plane"), "--http", "127.0.0.1:0"],
    );
    plane.wait_for_log("the plane is running", SOON);
    plane
}

fn cli(dir: &Path, arguments: &[&str]) -> Result<String, String> {
    let home = text(dir, "operator");
    let done = Cmd::bin("mycelial").args(["--home", &home]).args(arguments).run(SOON);
    if done.code() == Some(0) {
        Ok(String::from_utf8_lossy(done.stdout.as_ref()).into_owned())
    } else {
        Err(String::from_utf8_lossy(done.stderr.as_ref()).into_owned())
    }
}

fn workflow(dir: &Path) -> String {
    format!(
        "name = \"shop\"\n\n[sources.orders]\ntype = \"sqlite\"\ndaemon = \"gateway\"\npath = \"{}\"\ntable = \"{}\"\n\
         cursor = \"id\"\n\n[destinations.copy]\ntype = \"sqlite\"\ndaemon = \"hub\"\nfrom = \"orders\"\npath = \"{}\"\n\
         table = \"copied\"\n",
        text(dir, "shop.db"),
        shop::TABLE,
        text(dir, "copy.db"),
    )
}

/// The stream's account as the plane has it.
fn ledger(dir: &Path) -> Option<Ledger> {
    let json: serde_json::Value = serde_json::from_str(&cli(dir, &["ledger", "-o", "json"]).ok()?).ok()?;
    let account = &json.get(0)?["ledger"];
    let count = |key: &str| account[key].as_u64().unwrap_or(0);
    Some(Ledger {
        produced: count("produced"),
        delivered: count("delivered"),
        buffered: count("buffered"),
        dropped: count("dropped"),
        dead_lettered: count("dead"),
    })
}

/// `make` gets the plane's directory and returns the broker, running, after `mycelial-plane init` has been run.
fn mesh(make: impl FnOnce(&Path) -> Box<dyn Road>) {
    let temporary = temp_dir("mesh");
    let dir = temporary.path();
    let mut road = make(&dir.join("plane"));
    let mut the_plane = plane(dir);
    let string = Cmd::bin("mycelial-plane")
        .args(["token", "--dir", &text(dir, "plane"), "--role", "operator"])
        .run(SOON)
        .ok();
    cli(dir, &["init", string.trim(), "--name", "me"]).unwrap_or_else(|error| panic!("{error}"));
    for name in ["gateway", "hub"] {
        let string = cli(dir, &["token", "create", "--name", name]).unwrap_or_else(|error| panic!("{error}"));
        Cmd::bin("myceliald")
            .args(["enrol", string.trim(), "--data-dir", &text(dir, name)])
            .run(SOON)
            .ok();
    }
    // What leaves the gateway goes through here, and is kept.
    let broker = road.url();
    let host = broker
        .split("://")
        .nth(1)
        .expect("a scheme")
        .replace("localhost", "127.0.0.1");
    let link = Link::to(host.parse::<std::net::SocketAddr>().expect("an address"));
    let capture = link.capture();
    let config = dir.join("gateway.toml");
    std::fs::write(&config, format!("[bus]\naddresses = [\"{}\"]\n", link.url(&broker))).expect("writable");
    let gateway_args = [
        "start",
        "--data-dir",
        &text(dir, "gateway"),
        "--config",
        &config.display().to_string(),
    ];
    let mut gateway = start("gateway", "myceliald", &gateway_args);
    let mut hub = daemon("hub", dir);

    let (source, copy) = (dir.join("shop.db"), dir.join("copy.db"));
    shop::create(&source).expect("a database");
    shop::add(&source, 5_000).expect("rows");
    let file = dir.join("shop.toml");
    std::fs::write(&file, workflow(dir)).expect("writable");
    wait_ok("the workflow to be deployed", SOON, || {
        cli(dir, &["workflow", "apply", &file.display().to_string()])
    });
    wait_ok("the first rows", SOON, || {
        shop::compare(&source, &copy, "copied").map_err(|error| error.to_string())
    });

    // Broker and plane away; the source goes on; the gateway dies and starts again on its own.
    road.away();
    the_plane.kill9();
    shop::add(&source, 10_000).expect("rows");
    std::thread::sleep(Duration::from_secs(2));
    gateway.kill9();
    gateway = start("gateway", "myceliald", &gateway_args);
    shop::add(&source, 5_000).expect("rows");
    std::thread::sleep(Duration::from_secs(2));
    assert!(shop::count(&copy, "copied") == 5_000, "nothing can have arrived");
    road.back();
    let rows = wait_ok("every row, once", Duration::from_secs(120), || {
        shop::compare(&source, &copy, "copied").map_err(|error| error.to_string())
    });
    assert_eq!(rows, 20_000);

    // The hub is killed in the middle of a delivery.
    shop::add(&source, 5_000).expect("rows");
    hub.kill9();
    let mut hub = daemon("hub", dir);
    let rows = wait_ok("every row after the hub died", Duration::from_secs(120), || {
        shop::compare(&source, &copy, "copied").map_err(|error| error.to_string())
    });
    assert_eq!(rows, 25_000);

    let mut the_plane = plane(dir);
    let account = wait_until("the ledger to show all rows", SOON, || {
        ledger(dir).filter(|account| account.delivered == 25_000)
    });
    account.assert_all_delivered("25,000 rows through every fault");
    capture.assert_no_plaintext(["orders", "copied", "quantity", "rocket", "note 17", "shop.db", "sqlite"]);
    for (name, process) in [("gateway", &mut gateway), ("hub", &mut hub)] {
        println!("{name}: {} KiB at most", process.rss_peak_kb().unwrap_or(0));
        assert!(process.term_and_wait(STOP).success(), "{name} drains and stops");
    }
    assert!(the_plane.term_and_wait(STOP).success());
    road.away();
}

fn init(dir: &Path, arguments: &[&str]) {
    Cmd::bin("mycelial-plane")
        .arg("init")
        .arg("--dir")
        .arg(dir)
        .args(arguments)
        .run(SOON)
        .ok();
}

#[test]
fn over_the_embedded_broker() {
    mesh(|dir| {
        let port = testkit::free_port();
        init(dir, &["--embedded", &format!("mqtt://127.0.0.1:{port}")]);
        let mut road = Embedded {
            port,
            config: dir.join("broker.toml"),
            process: None,
        };
        road.back();
        Box::new(road)
    });
}

#[test]
fn over_mosquitto() {
    mesh(|dir| {
        let road = OnMosquitto(Mosquitto::start());
        init(dir, &["--bus", &road.url()]);
        Box::new(road)
    });
}

#[test]
fn over_nats() {
    mesh(|dir| {
        let road = OnNats(Nats::start(), false);
        init(dir, &["--bus", &road.url()]);
        Box::new(road)
    });
}

#[test]
fn over_the_mqtt_listener_of_nats() {
    mesh(|dir| {
        let road = OnNats(Nats::builder().mqtt().start(), true);
        init(dir, &["--bus", &road.url()]);
        Box::new(road)
    });
}
