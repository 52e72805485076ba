//! What speaks HTTP: a service that gives, one that takes, one that calls; InfluxDB, and an S3 store.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use flow::TroubleKind;
use serde_json::{Value as Json, json};
use testkit::{Influxdb, S3, Script, free_port, temp_dir};

use crate::{
    file_worlds::{append, extras_in, lines, listing, numbers_in},
    world::{Promise, SinkWorld, SourceWorld, Wrong},
};

/// Gives the lines of the file `data` that come after a number; a line that is no object counts as half a step on. Whoever
/// asks for something else than to be given leaves a mark.
const GIVER: &str = r#"
import json, os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Giver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_):
        pass
    def do_GET(self):
        status, body = 200, "[]"
        if not self.path.startswith("/after/"):
            status, body = (401 if self.path == "/locked" else 404), ""
        else:
            after, last, found = int(self.path.rsplit("/", 1)[1]), 0, []
            for line in open("data") if os.path.exists("data") else []:
                record = json.loads(line)
                if isinstance(record, dict):
                    last = record["n"]
                if last > after or (not isinstance(record, dict) and last == after):
                    found.append(line.strip())
                if len(found) >= 500:
                    break
            body = "[" + ",".join(found) + "]"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())
    def do_POST(self):
        open("changed", "a").write(self.command)
        self.send_error(405)
    do_PUT = do_PATCH = do_DELETE = do_POST

server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Giver)
server.daemon_threads = True
print("listening")
server.serve_forever()
"#;

fn wrong_addresses(good: &Json) -> Vec<Wrong> {
    let with = |url: String| {
        let mut config = good.clone();
        config["url"] = json!(url);
        config
    };
    let url = good["url"].as_str().unwrap();
    let (place, path) = url
        .strip_prefix("http://")
        .unwrap()
        .split_once('/')
        .unwrap_or((url, ""));
    vec![
        (
            with(format!("http://127.0.0.1:{}/{path}", free_port())),
            TroubleKind::Unreachable,
        ),
        (with(format!("http://no-such-host.invalid/{path}")), TroubleKind::Name),
        (
            with(format!("https://{}/{path}", place.trim_start_matches("http://"))),
            TroubleKind::Tls,
        ),
    ]
}

/// A service that is asked.
pub struct HttpSource {
    server: Script,
    drifts: bool,
    bad: bool,
}

impl HttpSource {
    /// It has nothing yet.
    pub fn new() -> Self {
        Self {
            server: Script::start(GIVER, &[]),
            drifts: false,
            bad: false,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.server.port())
    }
}

impl SourceWorld for HttpSource {
    fn config(&self) -> Json {
        json!({"url": self.url("after/{cursor}"), "cursor": {"field": "n"}, "start": "0", "poll_interval_ms": 100})
    }

    fn feed(&mut self, numbers: Range<u64>, pad: usize) {
        let bad = if std::mem::take(&mut self.bad) { "5\n" } else { "" };
        append(
            &self.server.dir().join("data"),
            &format!("{bad}{}", lines(numbers, pad, self.drifts)),
        );
    }

    fn feed_bad(&mut self, _: u64) -> bool {
        self.bad = true;
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
        let mut wrong = wrong_addresses(&self.config());
        let plain = |path: &str| json!({"url": self.url(path), "poll_interval_ms": 100});
        wrong.push((plain("locked"), TroubleKind::Login));
        wrong.push((plain("nowhere"), TroubleKind::Missing));
        wrong
    }

    fn touched(&mut self) -> String {
        listing(self.server.dir())
    }
}

/// Calls that wait for those before them.
const CALLS_MAX: usize = 1_000;

/// A service that calls, and calls again until it is told that all is well.
pub struct Webhook {
    port: u16,
    calls: mpsc::SyncSender<String>,
    ends: Arc<AtomicBool>,
    drifts: bool,
    bad: bool,
}

impl Webhook {
    /// It calls one after the other.
    pub fn new() -> Self {
        let port = free_port();
        let (calls, bodies) = mpsc::sync_channel::<String>(CALLS_MAX);
        let ends = Arc::new(AtomicBool::new(false));
        let (address, over) = (SocketAddr::from(([127, 0, 0, 1], port)), Arc::clone(&ends));
        thread::spawn(move || {
            for body in bodies {
                while !over.load(Ordering::SeqCst) && call(address, &body).is_err() {
                    thread::sleep(Duration::from_millis(20));
                }
            }
        });
        Self {
            port,
            calls,
            ends,
            drifts: false,
            bad: false,
        }
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
    }
}

/// Calls once; an error is anything but a 200.
fn call(address: SocketAddr, body: &str) -> std::io::Result<()> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    let head = format!(
        "POST /in HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes())?;
    socket.write_all(body.as_bytes())?;
    let mut answer = [0; 12];
    socket.read_exact(&mut answer)?;
    match answer.ends_with(b" 200") {
        true => Ok(()),
        false => Err(std::io::ErrorKind::Other.into()),
    }
}

/// What a check must let go of again: the place where it would listen.
pub fn is_free(port: u16) -> String {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => "free".to_string(),
        Err(error) => error.to_string(),
    }
}

impl SourceWorld for Webhook {
    fn config(&self) -> Json {
        json!({"listen": format!("127.0.0.1:{}", self.port), "path": "/in", "anybody": true, "types": {"n": "i64"}})
    }

    fn promise(&self) -> Promise {
        Promise::AtLeast
    }

    fn taken(&self) -> Option<TroubleKind> {
        Some(TroubleKind::Listen)
    }

    fn rereads(&self) -> bool {
        false
    }

    fn feed(&mut self, numbers: Range<u64>, pad: usize) {
        for start in numbers.clone().step_by(50) {
            let lines = lines(start..numbers.end.min(start + 50), pad, self.drifts);
            let bad = if std::mem::take(&mut self.bad) {
                "{\"n\": \"none\"}\n"
            } else {
                ""
            };
            let all = format!("{bad}{lines}");
            self.calls
                .send(format!("[{}]", all.trim_end().replace('\n', ",")))
                .unwrap();
        }
    }

    fn feed_bad(&mut self, _: u64) -> bool {
        self.bad = true;
        false
    }

    fn drift(&mut self) {
        self.drifts = true;
    }

    fn wrong(&self) -> Vec<Wrong> {
        let with = |key: &str, value: Json| {
            let mut config = self.config();
            config[key] = value;
            config
        };
        let mut guarded = with("bearer", json!({"env": "COMPLIANCE_NOT_SET"}));
        guarded["anybody"] = json!(false);
        vec![
            (with("listen", json!("192.0.2.1:8080")), TroubleKind::Listen),
            (
                with("tls", json!({"cert_file": "/no/cert", "key_file": "/no/key"})),
                TroubleKind::Tls,
            ),
            (guarded, TroubleKind::Secret),
        ]
    }

    fn touched(&mut self) -> String {
        is_free(self.port)
    }
}

/// Takes lines of JSON, each request once by its key.
const TAKER: &str = r#"
import os, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LOCK = threading.Lock()

class Taker(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_):
        pass
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with LOCK:
            key = self.headers["Idempotency-Key"]
            keys = open("keys").read().splitlines() if os.path.exists("keys") else []
            if key not in keys[-64:]:
                with open("out", "ab") as out:
                    out.write(body)
                with open("keys", "a") as file:
                    file.write(key + "\n")
        self.send_response(204)
        self.end_headers()

server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Taker)
server.daemon_threads = True
print("listening")
server.serve_forever()
"#;

/// A service that takes.
pub struct HttpSink {
    server: Script,
}

impl HttpSink {
    /// It has nothing yet.
    pub fn new() -> Self {
        Self {
            server: Script::start(TAKER, &[]),
        }
    }
}

impl SinkWorld for HttpSink {
    fn config(&self) -> Json {
        json!({"url": format!("http://127.0.0.1:{}/in", self.server.port()), "format": "json_lines"})
    }

    fn promise(&self) -> Promise {
        Promise::AtLeast
    }

    fn arrived(&mut self) -> Vec<u64> {
        numbers_in(&fs::read_to_string(self.server.dir().join("out")).unwrap_or_default())
    }

    fn extras(&mut self) -> u64 {
        extras_in(&fs::read_to_string(self.server.dir().join("out")).unwrap_or_default())
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
        let mut wrong = wrong_addresses(&self.config());
        let mut config = self.config();
        config["bearer"] = json!({"env": "COMPLIANCE_NOT_SET"});
        wrong.push((config, TroubleKind::Secret));
        wrong
    }

    fn touched(&mut self) -> String {
        listing(self.server.dir())
    }
}

/// A database of InfluxDB.
pub struct InfluxdbSink {
    server: Influxdb,
}

impl InfluxdbSink {
    /// An empty one.
    pub fn new() -> Self {
        let server = Influxdb::start();
        server.query("", "CREATE DATABASE plant");
        Self { server }
    }
}

impl SinkWorld for InfluxdbSink {
    fn config(&self) -> Json {
        json!({"url": self.server.url(), "database": "plant", "measurement": "m"})
    }

    fn promise(&self) -> Promise {
        Promise::AtLeast
    }

    fn arrived(&mut self) -> Vec<u64> {
        let answer = self.server.try_query("plant", "SELECT n FROM m");
        let answer: Json = serde_json::from_str(&answer.stdout).unwrap_or_default();
        let rows = answer["results"][0]["series"][0]["values"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        rows.iter().filter_map(|row| row[1].as_u64()).collect()
    }

    fn extras(&mut self) -> u64 {
        let answer = self
            .server
            .query("plant", "SELECT count(extra) FROM m WHERE extra = 'more'");
        let answer: Json = serde_json::from_str(&answer).unwrap();
        answer["results"][0]["series"][0]["values"][0][1]
            .as_u64()
            .unwrap_or_default()
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
        wrong_addresses(&self.config())
    }

    fn touched(&mut self) -> String {
        let said = |query: &str| self.server.query("plant", query);
        said("SHOW DATABASES; SHOW MEASUREMENTS") + &said("SELECT count(n) FROM m")
    }
}

/// A bucket.
pub struct S3Sink {
    server: S3,
    dir: testkit::TempDir,
    /// What is in the store is gone with its server: what was there before.
    kept: Vec<u64>,
}

impl S3Sink {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            server: S3::start(),
            dir: temp_dir("compliance"),
            kept: Vec::new(),
        }
    }

    fn there(&self) -> Vec<u64> {
        let objects = self.server.objects();
        objects
            .values()
            .flat_map(|bytes| numbers_in(&String::from_utf8_lossy(bytes)))
            .collect()
    }
}

impl SinkWorld for S3Sink {
    fn config(&self) -> Json {
        json!({
            "bucket": "plant", "region": "eu-central-1", "endpoint": self.server.url(), "access_key": "tester",
            "secret_key": "a secret/with+signs", "format": "json_lines", "max_age_s": 1, "max_bytes": 200_000,
        })
    }

    fn base_dir(&self) -> std::path::PathBuf {
        self.dir.path().to_path_buf()
    }

    fn promise(&self) -> Promise {
        Promise::AtLeast
    }

    fn arrived(&mut self) -> Vec<u64> {
        let mut numbers = self.kept.clone();
        numbers.extend(self.there());
        numbers
    }

    fn extras(&mut self) -> u64 {
        let objects = self.server.objects();
        let extras = objects.values().map(|bytes| extras_in(&String::from_utf8_lossy(bytes)));
        extras.sum()
    }

    fn down(&mut self) {
        self.kept.extend(self.there());
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
        let with = |key: &str, value: Json| {
            let mut config = self.config();
            config[key] = value;
            config
        };
        vec![
            (
                with("endpoint", json!(format!("http://127.0.0.1:{}", free_port()))),
                TroubleKind::Unreachable,
            ),
            (
                with("endpoint", json!("http://no-such-host.invalid")),
                TroubleKind::Name,
            ),
            (with("bucket", json!("none")), TroubleKind::Missing),
            (with("secret_key", json!("another")), TroubleKind::Login),
            (
                with("access_key", json!({"env": "COMPLIANCE_NOT_SET"})),
                TroubleKind::Secret,
            ),
        ]
    }

    fn touched(&mut self) -> String {
        format!("{} {:?}", self.server.uploads(), self.server.objects().keys())
    }
}
