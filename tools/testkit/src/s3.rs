//! An S3 server, played by moto; signatures are checked by botocore. Speaks none of it itself.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Deref;
use std::time::Duration;

use crate::bins::python;
use crate::proc::Cmd;
use crate::service::{Service, Spec};
use crate::tls::Tls;
use crate::{find_program, free_port, temp_dir};

/// What plays it.
const SCRIPT: &str = include_str!("s3_server.py");
/// How long an answer of the control path may take.
const ASKED_DEADLINE: Duration = Duration::from_secs(60);
/// Unpacks what the control path says of objects, into lines of name and hexadecimal bytes.
const UNPACK: &str = "import base64, json, sys
for name, value in json.load(sys.stdin).items():
    print(name, base64.b64decode(value).hex())";

/// A running server with the bucket `plant` in `eu-central-1`, the key `tester` and the secret `a secret/with+signs`; start,
/// stop and faults are on [`Service`]. What it stores is lost when it ends.
#[derive(Debug)]
pub struct S3 {
    service: Service,
    /// Of the store's URL: its host, and whether what is said to it is protected.
    place: &'static str,
}

impl S3 {
    /// A fresh server.
    #[must_use]
    #[track_caller]
    pub fn start() -> Self {
        Self::launch(None)
    }

    /// The same behind TLS.
    #[must_use]
    #[track_caller]
    pub fn start_with_tls(tls: &Tls) -> Self {
        Self::launch(Some(tls))
    }

    #[track_caller]
    fn launch(tls: Option<&Tls>) -> Self {
        let (dir, port) = (temp_dir("s3"), free_port());
        let script = dir.path().join("s3_server.py");
        fs::write(&script, SCRIPT).unwrap_or_else(|e| panic!("cannot write {}: {e}", script.display()));
        let cmd = Cmd::new(python()).arg(script).arg(port.to_string());
        let (cmd, place) = match tls {
            None => (cmd, "http://127.0.0.1"),
            Some(tls) => {
                let files = tls.server();
                (cmd.arg(&files.cert).arg(&files.key).arg(tls.ca()), "https://localhost")
            }
        };
        let service = Service::launch(Spec {
            name: "moto",
            cmd,
            ports: vec![port],
            ready: "ready",
            family: false,
            dir,
        });
        Self { service, place }
    }

    /// `http://127.0.0.1:port`, or `https://localhost:port` with TLS.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}:{}", self.place, self.port())
    }

    /// All objects by their names.
    #[must_use]
    #[track_caller]
    pub fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        let json = self.asked("objects");
        let lines = Cmd::new(python())
            .args(["-c", UNPACK])
            .stdin(json)
            .run(ASKED_DEADLINE)
            .ok();
        let object = |line: &str| {
            let (name, hex) = line.rsplit_once(' ')?;
            let byte = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
            Some((name.to_string(), (0..hex.len()).step_by(2).map_while(byte).collect()))
        };
        lines.lines().filter_map(object).collect()
    }

    /// The names of uploads in several parts that are neither complete nor aborted, as JSON.
    #[must_use]
    #[track_caller]
    pub fn uploads(&self) -> String {
        self.asked("uploads")
    }

    /// Everything that was asked of it, as JSON: method, path, and the query's beginning.
    #[must_use]
    #[track_caller]
    pub fn requests(&self) -> String {
        self.asked("requests")
    }

    /// The next `times` requests with `text` in method, path or query are answered with 503.
    #[track_caller]
    pub fn refuse(&self, text: &str, times: u32) {
        self.asked(&format!("refuse?{}={times}", text.replace('=', "%3D")));
    }

    #[track_caller]
    fn asked(&self, wish: &str) -> String {
        Cmd::new(find_program("curl", "curl"))
            .args(["--silent", "--show-error", "--fail", "--insecure"])
            .arg(format!("{}/-control/{wish}", self.url()))
            .run(ASKED_DEADLINE)
            .ok()
    }
}

impl Deref for S3 {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.service
    }
}
