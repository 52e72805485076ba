//! An OPC UA server, played by asyncua: another implementation of the protocol than ours. Speaks none of it itself.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::ops::Deref;
use std::time::Duration;

use serde_json::{Value, json};

use crate::bins::python;
use crate::proc::Cmd;
use crate::service::{Service, Spec};
use crate::tls::Tls;
use crate::{free_port, temp_dir};

/// What plays it.
const SCRIPT: &str = include_str!("opcua_server.py");
/// How long it may take to do as it was told.
const DONE_DEADLINE: Duration = Duration::from_secs(30);

/// A running server; start, stop and faults are on [`Service`]. After a restart its nodes are as they were at first.
#[derive(Debug)]
pub struct OpcUa {
    service: Service,
    control_port: u16,
}

impl OpcUa {
    /// A server with nodes, as `[{"id": "ns=2;s=a", "type": "Double", "value": 1.5}]` has them; an entry may have a
    /// `status` (a code) and a `source_time` (ISO 8601) as well. Everybody may do everything.
    #[must_use]
    #[track_caller]
    pub fn start(nodes: &Value) -> Self {
        Self::launch(&json!({"nodes": nodes}))
    }

    /// The same for users with a password only, as `{"name": "password"}` has them.
    #[must_use]
    #[track_caller]
    pub fn start_for_users(nodes: &Value, users: &Value) -> Self {
        Self::launch(&json!({"nodes": nodes, "users": users}))
    }

    /// A server that takes only connections that are signed and encrypted.
    #[must_use]
    #[track_caller]
    pub fn start_secured(nodes: &Value, tls: &Tls) -> Self {
        let files = tls.server();
        Self::launch(&json!({"nodes": nodes, "security": {"cert": files.cert, "key": files.key}}))
    }

    #[track_caller]
    fn launch(config: &Value) -> Self {
        let (dir, port, control_port) = (temp_dir("opcua"), free_port(), free_port());
        let mut config = config.clone();
        config["port"] = json!(port);
        config["control_port"] = json!(control_port);
        let (script, settings) = (dir.path().join("opcua_server.py"), dir.path().join("nodes.json"));
        for (path, text) in [(&script, SCRIPT), (&settings, &config.to_string())] {
            fs::write(path, text).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
        }
        let service = Service::launch(Spec {
            name: "asyncua",
            cmd: Cmd::new(python()).arg(script).arg(settings),
            ports: vec![port, control_port],
            ready: "ready",
            family: false,
            dir,
        });
        Self { service, control_port }
    }

    /// `opc.tcp://127.0.0.1:port`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("opc.tcp://127.0.0.1:{}", self.port())
    }

    /// Sets nodes, one after the other, and waits until that is done. A node that is not there is made.
    #[track_caller]
    pub fn set(&self, nodes: &Value) {
        let said = self.tell(&nodes.to_string());
        assert_eq!(said, "done\n", "asyncua says no; its log:\n{}", self.log());
    }

    /// How many sessions and subscriptions it keeps.
    #[must_use]
    #[track_caller]
    pub fn sessions(&self) -> String {
        self.tell("\"sessions\"")
    }

    #[track_caller]
    fn tell(&self, line: &str) -> String {
        let tell = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.control_port))?;
            stream.set_read_timeout(Some(DONE_DEADLINE))?;
            stream.write_all(format!("{line}\n").as_bytes())?;
            let mut said = String::new();
            BufReader::new(stream).read_line(&mut said)?;
            Ok(said)
        };
        tell().unwrap_or_else(|e| panic!("asyncua does not do as it is told: {e}"))
    }
}

impl Deref for OpcUa {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.service
    }
}
