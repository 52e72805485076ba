//! A real mosquitto. Speaks no MQTT itself.

use std::fmt::Write as _;
use std::fs;
use std::ops::Deref;
use std::path::Path;
use std::time::Duration;

use crate::proc::Cmd;
use crate::service::{Service, Spec};
use crate::tls::Tls;
use crate::{find_program, free_port, temp_dir};

const PACKAGE: &str = "mosquitto";
/// `mosquitto_passwd` hashes with many rounds.
const PASSWD_DEADLINE: Duration = Duration::from_secs(30);

/// A running mosquitto; start, stop and faults are on [`Service`].
#[derive(Debug)]
pub struct Mosquitto {
    service: Service,
    tls: bool,
}

impl Mosquitto {
    /// Plain TCP, anybody may connect, nothing is persisted.
    #[must_use]
    #[track_caller]
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// To ask for more than [`Mosquitto::start`] gives.
    #[must_use]
    #[track_caller]
    pub fn builder() -> MosquittoBuilder {
        MosquittoBuilder {
            dir: temp_dir("mosquitto"),
            config: String::new(),
            users: Vec::new(),
            tls: false,
            logged: "all",
        }
    }

    /// `mqtt://127.0.0.1:port`, or `mqtts://localhost:port` with TLS.
    #[must_use]
    pub fn url(&self) -> String {
        if self.tls {
            format!("mqtts://localhost:{}", self.port())
        } else {
            format!("mqtt://127.0.0.1:{}", self.port())
        }
    }
}

impl Deref for Mosquitto {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.service
    }
}

/// What the mosquitto to start shall be like.
#[derive(Debug)]
pub struct MosquittoBuilder {
    dir: tempfile::TempDir,
    config: String,
    users: Vec<(String, String)>,
    tls: bool,
    logged: &'static str,
}

impl MosquittoBuilder {
    /// Listens with TLS only, with `tls`'s server certificate.
    #[must_use]
    pub fn tls(mut self, tls: &Tls) -> Self {
        for (option, source) in [
            ("cafile", &tls.ca()),
            ("certfile", &tls.server().cert),
            ("keyfile", &tls.server().key),
        ] {
            let path = self.dir.path().join(option);
            copy(source, &path);
            self.config_line(&format!("{option} {}", path.display()));
        }
        self.tls = true;
        self
    }

    /// Asks for a client certificate of the same authority. Needs [`MosquittoBuilder::tls`].
    #[must_use]
    pub fn client_certs(self) -> Self {
        self.line("require_certificate true")
    }

    /// Lets this user in, and nobody without a password. May be called for several users.
    #[must_use]
    pub fn user(mut self, name: &str, password: &str) -> Self {
        self.users.push((name.to_owned(), password.to_owned()));
        self
    }

    /// Enforces an access list, in mosquitto's `acl_file` syntax.
    #[must_use]
    pub fn acl(mut self, text: &str) -> Self {
        let path = self.dir.path().join("acl");
        write(&path, text);
        self.config_line(&format!("acl_file {}", path.display()));
        self
    }

    /// Keeps sessions, queues and retained messages over a polite restart.
    #[must_use]
    pub fn persist(mut self) -> Self {
        let path = self.dir.path().join("data");
        fs::create_dir_all(&path).unwrap_or_else(|e| panic!("cannot create {}: {e}", path.display()));
        self.config_line("persistence true");
        self.config_line(&format!("persistence_location {}/", path.display()));
        self
    }

    /// Logs no packets, as a broker in use does not: that takes longer than to pass them on.
    #[must_use]
    pub fn quiet(mut self) -> Self {
        self.logged = "error\nlog_type warning\nlog_type notice\nlog_type information";
        self
    }

    /// Adds a line to the configuration.
    #[must_use]
    pub fn line(mut self, line: &str) -> Self {
        self.config_line(line);
        self
    }

    /// Starts it and waits until it answers.
    #[must_use]
    #[track_caller]
    pub fn start(self) -> Mosquitto {
        let Self {
            dir,
            config,
            users,
            tls,
            logged,
        } = self;
        let port = free_port();
        let mut text = format!("listener {port} 127.0.0.1\n{config}log_dest stderr\nlog_type {logged}\n");
        if users.is_empty() {
            text.push_str("allow_anonymous true\n");
        } else {
            let path = dir.path().join("passwords");
            write_passwords(&path, &users);
            let _ = write!(text, "allow_anonymous false\npassword_file {}\n", path.display());
        }
        if rustix::process::geteuid().is_root() {
            // Else it becomes the user `mosquitto`, who may not read our directory.
            text.push_str("user root\n");
        }
        let path = dir.path().join("mosquitto.conf");
        write(&path, &text);
        let cmd = Cmd::new(find_program("mosquitto", PACKAGE)).arg("-c").arg(&path);
        let service = Service::launch(Spec {
            name: "mosquitto",
            cmd,
            ports: vec![port],
            ready: "running",
            family: false,
            dir,
        });
        Mosquitto { service, tls }
    }

    fn config_line(&mut self, line: &str) {
        self.config.push_str(line);
        self.config.push('\n');
    }
}

fn write_passwords(path: &Path, users: &[(String, String)]) {
    write(path, "");
    let tool = find_program("mosquitto_passwd", PACKAGE);
    for (name, password) in users {
        Cmd::new(&tool)
            .arg("-b")
            .arg(path)
            .arg(name)
            .arg(password)
            .run(PASSWD_DEADLINE)
            .ok();
    }
}

fn copy(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap_or_else(|e| panic!("cannot copy {} to {}: {e}", from.display(), to.display()));
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
}
