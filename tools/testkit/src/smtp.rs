//! A mail server, played by aiosmtpd: another implementation of the protocol than ours. It wants STARTTLS and a log-in.

use std::{fs, ops::Deref};

use serde_json::Value;

use crate::bins::python;
use crate::proc::Cmd;
use crate::service::{Service, Spec};
use crate::tls::Tls;
use crate::{free_port, temp_dir};

/// What plays it.
const SCRIPT: &str = include_str!("smtp_server.py");

/// A running mail server; start, stop and faults are on [`Service`].
#[derive(Debug)]
pub struct Smtp {
    service: Service,
    port: u16,
}

impl Smtp {
    /// Who may log in.
    pub const USER: &str = "plane";
    /// With which password.
    pub const PASSWORD: &str = "right horse battery";

    /// Starts it with a certificate of an authority.
    #[must_use]
    #[track_caller]
    pub fn start(tls: &Tls) -> Self {
        let (dir, port) = (temp_dir("smtp"), free_port());
        let script = dir.path().join("smtp_server.py");
        fs::write(&script, SCRIPT).unwrap_or_else(|e| panic!("cannot write {}: {e}", script.display()));
        let service = Service::launch(Spec {
            name: "aiosmtpd",
            cmd: Cmd::new(python())
                .arg(script)
                .arg(port.to_string())
                .arg(&tls.server().cert)
                .arg(&tls.server().key),
            ports: vec![port],
            ready: "ready",
            family: false,
            dir,
        });
        Self { service, port }
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The mails it took, oldest first: `from`, `to`, `tls`, `login`, `content`.
    #[must_use]
    pub fn mails(&self) -> Vec<Value> {
        let log = self.log();
        let mails = log.lines().filter_map(|line| line.strip_prefix("mail "));
        mails.filter_map(|mail| serde_json::from_str(mail).ok()).collect()
    }
}

impl Deref for Smtp {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.service
    }
}
