//! HTTP: a service that takes lines of JSON and counts them, asked by hyper.

use std::path::Path;

use anyhow::{Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use testkit::Script;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use super::{Race, generator, json, row, timed, to_its_end};

/// Records in a request: what the destination sends unless told.
const REQUEST_ROWS: u64 = 1_000;

/// Counts lines, and keeps the count in a file.
const SERVER: &str = r#"
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

taken = 0

class Taker(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_):
        pass
    def do_POST(self):
        global taken
        taken += self.rfile.read(int(self.headers["Content-Length"])).count(b"\n")
        with open("taken", "w") as file:
            file.write(str(taken))
        self.send_response(204)
        self.end_headers()

server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Taker)
server.daemon_threads = True
print("listening")
server.serve_forever()
"#;

/// The service.
pub(super) struct Taker {
    server: Script,
    runtime: Runtime,
}

impl Taker {
    /// Starts it.
    pub(super) fn start() -> Self {
        Self {
            server: Script::start(SERVER, &[]),
            runtime: super::runtime(),
        }
    }

    fn taken(&self) -> u64 {
        let text = std::fs::read_to_string(self.server.dir().join("taken")).unwrap_or_default();
        text.parse().unwrap_or(0)
    }

    /// The race.
    pub(super) fn race(&self, rows: u64) -> Race<'_> {
        Race {
            name: "http destination",
            note: "hyper, a thousand records in a request",
            rows,
            ours: Box::new(move |dir| self.ours(dir, rows)),
            bare: Box::new(move |_| {
                let before = self.taken();
                let seconds = timed(|| self.runtime.block_on(self.bare(rows)))?;
                ensure!(self.taken() - before == rows, "not all were taken");
                Ok(seconds)
            }),
        }
    }

    fn ours(&self, dir: &Path, rows: u64) -> Result<f64> {
        let before = self.taken();
        let place = format!(
            "url = \"http://127.0.0.1:{}/in\"\nformat = \"json_lines\"\n",
            self.server.port()
        );
        let text = format!(
            "{}[destinations.out]\ntype = \"http\"\nfrom = \"in\"\n{place}",
            generator(rows)
        );
        let seconds = to_its_end(dir, &text)?;
        ensure!(self.taken() - before == rows, "not all were taken");
        Ok(seconds)
    }

    async fn bare(&self, rows: u64) -> Result<()> {
        let stream = TcpStream::connect(self.server.addr()).await?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        for first in (1..=rows).step_by(REQUEST_ROWS as usize) {
            let mut body = String::new();
            for id in first..=rows.min(first + REQUEST_ROWS - 1) {
                body.push_str(&json(&row(id)));
                body.push('\n');
            }
            let request = Request::post("/in")
                .header("Host", "bench")
                .body(Full::new(Bytes::from(body)))?;
            sender.ready().await?;
            let answer = sender.send_request(request).await?;
            ensure!(answer.status().is_success(), "{}", answer.status());
            answer.into_body().collect().await?;
        }
        Ok(())
    }
}
