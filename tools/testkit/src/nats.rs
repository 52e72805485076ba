//! A real nats-server: core, TLS, users, nkeys, credentials files, JetStream and its own MQTT listener. Speaks no NATS
//! itself.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nkeys::KeyPair;
use serde_json::{Value, json};

use crate::proc::Cmd;
use crate::service::{Service, Spec};
use crate::tls::Tls;
use crate::{find_program, free_port, temp_dir, wait_ok};

const PACKAGE: &str = "nats-server";
/// JetStream may still be reading what it has stored when the server says that it is ready.
const STREAM_DEADLINE: Duration = Duration::from_secs(20);
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// A running nats-server; start, stop and faults are on [`Service`].
#[derive(Debug)]
pub struct Nats {
    service: Service,
    tls: bool,
    mqtt_port: Option<u16>,
    nkey_seed: Option<String>,
    creds: Option<PathBuf>,
}

impl Nats {
    /// Core NATS on plain TCP; anybody may connect.
    #[must_use]
    #[track_caller]
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// To ask for more than [`Nats::start`] gives.
    #[must_use]
    #[track_caller]
    pub fn builder() -> NatsBuilder {
        NatsBuilder {
            dir: temp_dir("nats"),
            config: String::new(),
            users: Vec::new(),
            tls: None,
            jetstream: false,
            mqtt: false,
            nkey: None,
            creds: false,
        }
    }

    /// `nats://127.0.0.1:port`, or `tls://localhost:port` with TLS.
    #[must_use]
    pub fn url(&self) -> String {
        if self.tls {
            format!("tls://localhost:{}", self.port())
        } else {
            format!("nats://127.0.0.1:{}", self.port())
        }
    }

    /// `mqtt://127.0.0.1:port` of the MQTT listener, or `mqtts://localhost:port` with TLS.
    #[must_use]
    #[track_caller]
    pub fn mqtt_url(&self) -> String {
        let port = self.mqtt_port();
        if self.tls {
            format!("mqtts://localhost:{port}")
        } else {
            format!("mqtt://127.0.0.1:{port}")
        }
    }

    /// The port of the MQTT listener.
    #[must_use]
    #[track_caller]
    pub fn mqtt_port(&self) -> u16 {
        self.mqtt_port
            .expect("ask for the MQTT listener with `Nats::builder().mqtt()`")
    }

    /// Makes JetStream keep what is published on `subjects`, in a stream of at most so many bytes that forgets the oldest
    /// first. For a server with [`NatsBuilder::jetstream`] that lets anybody in. Does nothing when it does so already.
    #[track_caller]
    pub fn add_stream(&self, name: &str, subjects: &str, bytes_max: u64) {
        let config = json!({
            "name": name, "subjects": [subjects], "retention": "limits", "storage": "file", "discard": "old",
            "max_bytes": bytes_max, "max_msgs": -1, "max_consumers": -1, "num_replicas": 1
        });
        let made = wait_ok("JetStream to make a stream", STREAM_DEADLINE, || {
            self.request(&format!("$JS.API.STREAM.CREATE.{name}"), &config.to_string())
        });
        assert!(
            !made.contains("\"error\""),
            "JetStream refuses the stream {name}: {made}"
        );
    }

    /// Asks the server something over a connection of its own.
    fn request(&self, subject: &str, body: &str) -> std::io::Result<String> {
        let mut socket = TcpStream::connect(self.addr())?;
        socket.set_read_timeout(Some(ANSWER_MAX))?;
        let mut lines = BufReader::new(socket.try_clone()?);
        write!(
            socket,
            "CONNECT {{\"verbose\":false}}\r\nSUB answer 1\r\nPUB {subject} answer {}\r\n{body}\r\n",
            body.len()
        )?;
        let mut line = String::new();
        while !line.starts_with("MSG ") {
            line.clear();
            if lines.read_line(&mut line)? == 0 {
                return Err(std::io::Error::other("the server hung up"));
            }
        }
        line.clear();
        lines.read_line(&mut line)?;
        Ok(line)
    }

    /// The seed of the user let in by [`NatsBuilder::nkey`].
    #[must_use]
    #[track_caller]
    pub fn nkey_seed(&self) -> &str {
        self.nkey_seed
            .as_deref()
            .expect("ask for an nkey user with `Nats::builder().nkey()`")
    }

    /// The credentials file of the user let in by [`NatsBuilder::creds`].
    #[must_use]
    #[track_caller]
    pub fn creds_file(&self) -> &Path {
        self.creds
            .as_deref()
            .expect("ask for a credentials file with `Nats::builder().creds()`")
    }
}

impl Deref for Nats {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.service
    }
}

/// What the nats-server to start shall be like.
#[derive(Debug)]
pub struct NatsBuilder {
    dir: tempfile::TempDir,
    config: String,
    users: Vec<String>,
    tls: Option<&'static str>,
    jetstream: bool,
    mqtt: bool,
    nkey: Option<String>,
    creds: bool,
}

impl NatsBuilder {
    /// Listens with TLS only, with `tls`'s server certificate; the MQTT listener too.
    #[must_use]
    pub fn tls(mut self, tls: &Tls) -> Self {
        let sources = [("ca.pem", tls.ca()), ("server.pem", tls.server().cert.clone())];
        for (name, source) in sources.iter().chain([&("server.key", tls.server().key.clone())]) {
            let path = self.dir.path().join(name);
            fs::copy(source, &path).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
        }
        self.tls = Some("");
        self
    }

    /// Asks for a client certificate of the same authority. Needs [`NatsBuilder::tls`].
    #[must_use]
    #[track_caller]
    pub fn client_certs(mut self) -> Self {
        assert!(self.tls.is_some(), "client certificates need `.tls(…)` first");
        self.tls = Some("verify: true");
        self
    }

    /// Lets this user in, and nobody without a password. May be called for several users.
    #[must_use]
    pub fn user(mut self, name: &str, password: &str) -> Self {
        self.users
            .push(format!("{{ user: {}, password: {} }}", json!(name), json!(password)));
        self
    }

    /// Lets this user in with permissions, in nats-server's syntax: `publish: [...], subscribe: [...]`.
    #[must_use]
    pub fn user_with_permissions(mut self, name: &str, password: &str, permissions: &str) -> Self {
        self.users.push(format!(
            "{{ user: {}, password: {}, permissions: {{ {permissions} }} }}",
            json!(name),
            json!(password)
        ));
        self
    }

    /// Lets in a user with an nkey: see [`Nats::nkey_seed`].
    #[must_use]
    pub fn nkey(mut self) -> Self {
        let user = KeyPair::new_user();
        self.users.push(format!("{{ nkey: {} }}", user.public_key()));
        self.nkey = Some(user.seed().expect("a fresh key pair has a seed"));
        self
    }

    /// Runs with an operator and an account, and lets in a user of it: see [`Nats::creds_file`]. Not together with
    /// users of any other kind.
    #[must_use]
    pub fn creds(mut self) -> Self {
        self.creds = true;
        self
    }

    /// Turns JetStream on, with its store in the server's directory.
    #[must_use]
    pub fn jetstream(mut self) -> Self {
        self.jetstream = true;
        self
    }

    /// Adds the MQTT listener, and with it JetStream, which it needs.
    #[must_use]
    pub fn mqtt(mut self) -> Self {
        self.mqtt = true;
        self.jetstream()
    }

    /// Adds a line to the configuration.
    #[must_use]
    pub fn line(mut self, line: &str) -> Self {
        self.config.push_str(line);
        self.config.push('\n');
        self
    }

    /// Starts it and waits until it answers.
    #[must_use]
    #[track_caller]
    pub fn start(self) -> Nats {
        let port = free_port();
        let mqtt_port = self.mqtt.then(free_port);
        let creds = self.creds.then(|| self.dir.path().join("user.creds"));
        let path = self.dir.path().join("nats.conf");
        let text = self.config_text(port, mqtt_port, creds.as_deref());
        fs::write(&path, text).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
        let cmd = Cmd::new(find_program("nats-server", PACKAGE)).arg("-c").arg(&path);
        let ports = std::iter::once(port).chain(mqtt_port).collect();
        let (tls, nkey_seed) = (self.tls.is_some(), self.nkey);
        let service = Service::launch(Spec {
            name: "nats-server",
            cmd,
            ports,
            ready: "Server is ready",
            family: false,
            dir: self.dir,
        });
        Nats {
            service,
            tls,
            mqtt_port,
            nkey_seed,
            creds,
        }
    }

    fn config_text(&self, port: u16, mqtt_port: Option<u16>, creds: Option<&Path>) -> String {
        let dir = self.dir.path().display();
        let mut text = format!(
            "server_name: \"test-{port}\"\nlisten: \"127.0.0.1:{port}\"\n{}",
            self.config
        );
        let tls = self.tls.map(|verify| {
            format!(
                "tls {{ cert_file: \"{dir}/server.pem\", key_file: \"{dir}/server.key\", ca_file: \"{dir}/ca.pem\"\n\
                 {verify} }}\n"
            )
        });
        text.push_str(tls.as_deref().unwrap_or_default());
        if let Some(port) = mqtt_port {
            let _ = write!(
                text,
                "mqtt {{ listen: \"127.0.0.1:{port}\"\n{} }}\n",
                tls.unwrap_or_default()
            );
        }
        if self.jetstream {
            let _ = writeln!(text, "jetstream {{ store_dir: \"{dir}/jetstream\" }}");
        }
        if !self.users.is_empty() {
            let _ = writeln!(text, "authorization {{ users: [ {} ] }}", self.users.join("\n"));
        }
        if let Some(path) = creds {
            text.push_str(&write_creds(path));
        }
        text
    }
}

/// Makes an operator, an account and a user; writes the user's credentials file and returns the server's part.
fn write_creds(path: &Path) -> String {
    let (operator, account, user) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_user());
    let operator_jwt = jwt(&operator, &operator, &json!({ "type": "operator", "version": 2 }));
    let unlimited = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1
    });
    let account_jwt = jwt(
        &operator,
        &account,
        &json!({ "type": "account", "version": 2, "limits": unlimited }),
    );
    let user_jwt = jwt(
        &account,
        &user,
        &json!({ "type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1 }),
    );
    let seed = user.seed().expect("a fresh key pair has a seed");
    let creds = format!(
        "-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    );
    fs::write(path, creds).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
    format!(
        "operator: {operator_jwt}\nresolver: MEMORY\nresolver_preload: {{ {}: {account_jwt} }}\n",
        account.public_key()
    )
}

/// A claim about `subject` signed by `issuer`, in the JSON Web Token form nats-server reads.
fn jwt(issuer: &KeyPair, subject: &KeyPair, nats: &Value) -> String {
    let header = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
    let claims = json!({
        "jti": subject.public_key(), "iat": 1_700_000_000, "iss": issuer.public_key(), "name": "test",
        "sub": subject.public_key(), "nats": nats
    });
    let signed = format!(
        "{}.{}",
        base64url(header.to_string().as_bytes()),
        base64url(claims.to_string().as_bytes())
    );
    let signature = issuer.sign(signed.as_bytes()).expect("a fresh key pair can sign");
    format!("{signed}.{}", base64url(&signature))
}

/// RFC 4648 section 5, without padding.
fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, byte| (bits << 8) | u32::from(*byte)) << (8 * (3 - group.len()));
        for digit in 0..=group.len() {
            let index = (bits >> (18 - 6 * digit)) & 63;
            text.push(char::from(ALPHABET[index as usize]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers the server's challenge and returns what it says to a PING.
    fn login(server: &Nats, seed: &str, who: &Value) -> String {
        let mut socket = TcpStream::connect(server.addr()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut lines = BufReader::new(socket.try_clone().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        let info: Value = serde_json::from_str(line.strip_prefix("INFO ").unwrap()).unwrap();
        let nonce = info["nonce"].as_str().unwrap();
        let signature = KeyPair::from_seed(seed).unwrap().sign(nonce.as_bytes()).unwrap();
        let mut connect = who.clone();
        connect["sig"] = json!(base64url(&signature));
        connect["verbose"] = json!(false);
        write!(socket, "CONNECT {connect}\r\nPING\r\n").unwrap();
        line.clear();
        lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    #[test]
    fn nkey_user() {
        let server = Nats::builder().nkey().start();
        let public = KeyPair::from_seed(server.nkey_seed()).unwrap().public_key();
        assert_eq!(login(&server, server.nkey_seed(), &json!({ "nkey": public })), "PONG");
        let stranger = KeyPair::new_user().seed().unwrap();
        assert!(login(&server, &stranger, &json!({ "nkey": public })).contains("Authorization Violation"));
    }

    #[test]
    fn credentials_file() {
        let server = Nats::builder().creds().start();
        let creds = fs::read_to_string(server.creds_file()).unwrap();
        let mut texts = creds.lines().filter(|line| !line.is_empty() && !line.starts_with('-'));
        let (token, seed) = (texts.next().unwrap(), texts.next().unwrap());
        assert_eq!(login(&server, seed, &json!({ "jwt": token })), "PONG");
        let other = Nats::builder().creds().start();
        assert!(login(&other, seed, &json!({ "jwt": token })).contains("Authorization Violation"));
    }

    #[test]
    fn jetstream_keeps_a_stream() {
        let server = Nats::builder().jetstream().start();
        for _ in 0..2 {
            server.add_stream("KEPT", "a.*.b.>", 1 << 20);
        }
        let stored = || {
            let info: Value = serde_json::from_str(&server.request("$JS.API.STREAM.INFO.KEPT", "").unwrap()).unwrap();
            info["state"]["messages"].as_u64().unwrap()
        };
        assert_eq!(stored(), 0);
        // Answered by JetStream itself: it has stored it.
        server.request("a.x.b.c", "hello").unwrap();
        assert_eq!(stored(), 1);
    }

    #[test]
    fn base64url_table() {
        let cases: &[(&[u8], &str)] = &[
            (b"", ""),
            (b"f", "Zg"),
            (b"fo", "Zm8"),
            (b"foo", "Zm9v"),
            (b"foob", "Zm9vYg"),
            (&[0xff, 0xef], "_-8"),
        ];
        for (bytes, text) in cases {
            assert_eq!(base64url(bytes), *text);
        }
    }
}
