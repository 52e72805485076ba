//! What can only be read live: machines, the host, messages that nobody repeats; and records that are made up.

use std::{net::UdpSocket, ops::Range};

use flow::TroubleKind;
use serde_json::{Value as Json, json};
use testkit::free_port;

use crate::world::{Promise, SinkWorld, SourceWorld, Wrong};

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

    fn wrong(&self) -> Vec<Wrong> {
        // Nothing can be wrong with it that its config does not tell.
        Vec::new()
    }
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

    fn wrong(&self) -> Vec<Wrong> {
        vec![(json!({"proc_dir": "/no/such/directory"}), TroubleKind::Other)]
    }
}

/// A device that answers.
pub struct Modbus {
    devices: testkit::Modbus,
}

impl Modbus {
    /// One register.
    pub fn new() -> Self {
        let devices = json!({"units": [{"id": 1, "holding": [[0, "u16", "AB", 7]]}]});
        Self {
            devices: testkit::Modbus::start(&devices),
        }
    }
}

impl SourceWorld for Modbus {
    fn config(&self) -> Json {
        json!({
            "host": "127.0.0.1", "port": self.devices.port(), "interval_ms": 10, "timeout_ms": 500,
            "points": [{"name": "p", "table": "holding", "address": 0, "type": "u16"}],
        })
    }

    fn promise(&self) -> Promise {
        Promise::GoesOn
    }

    fn rereads(&self) -> bool {
        false
    }

    fn feed(&mut self, _: Range<u64>, _: usize) {}

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
        vec![
            (with("port", json!(free_port())), TroubleKind::Unreachable),
            (with("host", json!("no-such-host.invalid")), TroubleKind::Name),
            (with("units", json!([9])), TroubleKind::Missing),
        ]
    }
}

/// A server with a node that changes.
pub struct OpcUa {
    server: testkit::OpcUa,
}

impl OpcUa {
    /// One node.
    pub fn new() -> Self {
        let nodes = json!([{"id": "ns=2;s=a", "type": "Double", "value": 0.0}]);
        Self {
            server: testkit::OpcUa::start(&nodes),
        }
    }
}

impl SourceWorld for OpcUa {
    fn config(&self) -> Json {
        json!({"url": self.server.url(), "mode": "read", "interval_ms": 20, "nodes": [{"id": "ns=2;s=a"}]})
    }

    fn promise(&self) -> Promise {
        Promise::GoesOn
    }

    fn rereads(&self) -> bool {
        false
    }

    fn feed(&mut self, _: Range<u64>, _: usize) {}

    fn down(&mut self) {
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
        vec![
            (
                with("url", json!(format!("opc.tcp://127.0.0.1:{}", free_port()))),
                TroubleKind::Unreachable,
            ),
            (
                with("url", json!("opc.tcp://no-such-host.invalid:4840")),
                TroubleKind::Name,
            ),
            (with("nodes", json!([{"id": "ns=2;s=none"}])), TroubleKind::Missing),
        ]
    }
}

/// Datagrams that nobody repeats.
pub struct Syslog {
    port: u16,
    socket: UdpSocket,
}

impl Syslog {
    /// At a free port.
    pub fn new() -> Self {
        Self {
            port: free_port(),
            socket: UdpSocket::bind("127.0.0.1:0").unwrap(),
        }
    }

    fn send(&self, message: &[u8]) {
        // Nobody may listen at this moment.
        let _ = self.socket.send_to(message, ("127.0.0.1", self.port));
    }
}

impl SourceWorld for Syslog {
    fn config(&self) -> Json {
        json!({"udp": format!("127.0.0.1:{}", self.port)})
    }

    fn promise(&self) -> Promise {
        Promise::GoesOn
    }

    fn rereads(&self) -> bool {
        false
    }

    fn column(&self) -> &'static str {
        "message"
    }

    fn feed(&mut self, numbers: Range<u64>, _: usize) {
        // Whoever has just begun may not listen yet.
        std::thread::sleep(std::time::Duration::from_millis(100));
        for number in numbers {
            self.send(format!("<13>1 2024-01-01T00:00:00Z here app - - - {number}").as_bytes());
        }
    }

    fn feed_bad(&mut self, _: u64) -> bool {
        self.send(b"<13>1 2024-01-01T00:00:00Z here app - - - \xff\xfe");
        false
    }

    fn wrong(&self) -> Vec<Wrong> {
        vec![
            (json!({"udp": "192.0.2.1:5514"}), TroubleKind::Listen),
            (
                json!({"tcp": format!("127.0.0.1:{}", self.port), "tls": {"cert_file": "/no/cert", "key_file": "/no/key"}}),
                TroubleKind::Tls,
            ),
        ]
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

    fn wrong(&self) -> Vec<Wrong> {
        Vec::new()
    }
}

impl SinkWorld for Standard {
    fn config(&self) -> Json {
        self.plain()
    }

    fn arrived(&mut self) -> Vec<u64> {
        Vec::new()
    }

    fn wrong(&self) -> Vec<Wrong> {
        Vec::new()
    }
}
