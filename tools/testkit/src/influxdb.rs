//! A real InfluxDB server of its own (1.x, as Debian has it). Talks to it only through `curl`.

use std::fs;
use std::ops::Deref;
use std::time::Duration;

use crate::proc::{Cmd, Finished};
use crate::service::{Service, Spec};
use crate::{Tls, find_program, free_port, temp_dir};

const PACKAGE: &str = "influxdb";
const QUERY_DEADLINE: Duration = Duration::from_secs(60);

/// A running InfluxDB; start, stop and faults are on [`Service`].
#[derive(Debug)]
pub struct Influxdb {
    service: Service,
    scheme: &'static str,
}

impl Influxdb {
    /// A fresh server that lets everybody in.
    #[must_use]
    #[track_caller]
    pub fn start() -> Self {
        Self::launch("", "http")
    }

    /// The same with TLS, where only the user `tester` with the password `tester` gets in.
    #[must_use]
    #[track_caller]
    pub fn start_guarded(tls: &Tls) -> Self {
        let files = tls.server();
        let settings = format!(
            "  auth-enabled = true\n  https-enabled = true\n  https-certificate = {:?}\n  https-private-key = {:?}\n",
            files.cert, files.key
        );
        let server = Self::launch(&settings, "https");
        server.query("", "CREATE USER tester WITH PASSWORD 'tester' WITH ALL PRIVILEGES");
        server
    }

    fn launch(http: &str, scheme: &'static str) -> Self {
        let dir = temp_dir("influxdb");
        let (port, inner) = (free_port(), free_port());
        let path = dir.path().display();
        let config = format!(
            "reporting-enabled = false\nbind-address = \"127.0.0.1:{inner}\"\n\
             [meta]\n  dir = \"{path}/meta\"\n\
             [data]\n  dir = \"{path}/data\"\n  wal-dir = \"{path}/wal\"\n  cache-max-memory-size = \"64m\"\n\
             [monitor]\n  store-enabled = false\n\
             [http]\n  bind-address = \"127.0.0.1:{port}\"\n  log-enabled = false\n{http}"
        );
        let file = dir.path().join("influxdb.conf");
        fs::write(&file, config).unwrap_or_else(|e| panic!("cannot write {}: {e}", file.display()));
        let cmd = Cmd::new(find_program("influxd", PACKAGE))
            .args(["run", "-config"])
            .arg(&file)
            .dir(dir.path());
        let service = Service::launch(Spec {
            name: "influxd",
            cmd,
            ports: vec![port],
            ready: "Listening for signals",
            family: false,
            dir,
        });
        Self { service, scheme }
    }

    /// Where it is reached.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port())
    }

    /// Runs InfluxQL and returns the answer's JSON, times as numbers of nanoseconds. Panics when it fails.
    #[track_caller]
    pub fn query(&self, database: &str, query: &str) -> String {
        self.try_query(database, query).ok()
    }

    /// Runs InfluxQL and returns how `curl` ended.
    #[track_caller]
    pub fn try_query(&self, database: &str, query: &str) -> Finished {
        Cmd::new(find_program("curl", "curl"))
            .args(["--silent", "--show-error", "--fail", "--insecure"])
            // Over its input: no argument has a NUL in it.
            .args(["--user", "tester:tester", "--data-urlencode", "q@-"])
            .stdin(query)
            .args(["--data-urlencode"])
            .arg(format!("db={database}"))
            .args(["--data-urlencode", "epoch=ns"])
            .arg(format!("{}/query", self.url()))
            .run(QUERY_DEADLINE)
    }
}

impl Deref for Influxdb {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.service
    }
}
