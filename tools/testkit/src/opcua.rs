//! An OPC UA server, played by asyncua: another implementation of the protocol than ours. Speaks none of it itself.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::ops::Deref;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::bins::python;
use crate::proc::Cmd;
use crate::service::{Service, Spec};
use crate::tls::CertFiles;
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

    /// A server with what else it can be told: `users` as above, and `security` with `cert` and `key` (its own, of RSA) and
    /// `policies` (as asyncua calls them, such as `Basic256Sha256_SignAndEncrypt`; `NoSecurity` is one), and perhaps `trusted`
    /// (a directory with the only certificates that it lets in) and `lifetime_ms` (how long keys hold at most).
    #[must_use]
    #[track_caller]
    pub fn start_with(nodes: &Value, settings: &Value) -> Self {
        let mut config = settings.clone();
        config["nodes"] = nodes.clone();
        Self::launch(&config)
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

/// A certificate of RSA that it signs itself, and its key, as a server or client of OPC UA has them. Made by openssl: the
/// authority of [`crate::Tls`] has no such keys.
#[must_use]
#[track_caller]
pub fn rsa_certificate(dir: &Path, name: &str, bits: u32, uri: &str) -> CertFiles {
    let files = CertFiles {
        cert: dir.join(format!("{name}.pem")),
        key: dir.join(format!("{name}.key")),
    };
    let made = Command::new("openssl")
        .args(["req", "-x509", "-nodes", "-days", "30", "-subj"])
        .arg(format!("/CN={name}"))
        .arg("-newkey")
        .arg(format!("rsa:{bits}"))
        .arg("-addext")
        .arg(format!("subjectAltName=URI:{uri},DNS:localhost"))
        .args(["-addext", "extendedKeyUsage=serverAuth,clientAuth", "-addext"])
        .arg("keyUsage=digitalSignature,nonRepudiation,keyEncipherment,dataEncipherment,keyCertSign")
        .arg("-keyout")
        .arg(&files.key)
        .arg("-out")
        .arg(&files.cert)
        .output();
    let made = made.unwrap_or_else(|e| panic!("there is no openssl: {e}"));
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    files
}

impl Deref for OpcUa {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.service
    }
}
