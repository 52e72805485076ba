//! Modbus devices, played by pymodbus: another implementation of the protocol than ours. Knows no point.

use std::fs;
use std::ops::Deref;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::bins::python;
use crate::proc::Cmd;
use crate::service::{Service, Spec};
use crate::tls::Tls;
use crate::{free_port, temp_dir};

/// What plays them.
const SCRIPT: &str = include_str!("modbus_server.py");

/// Running devices; start, stop and faults are on [`Service`].
#[derive(Debug)]
pub struct Modbus {
    service: Service,
}

impl Modbus {
    /// Devices on a TCP port, as `{"units": [{"id": 1, "holding": [[0, "f32", "CDAB", 1.5]], "coil": [[7, true]]}]}` has
    /// them. What no entry says is not there: asking for it is an illegal address. Also:
    ///
    /// - `"framing": "rtu"`: frames as on a serial line
    /// - `"serial": true`: on a serial line as well, see [`Modbus::serial_port`]
    /// - `"delay_ms"`: they take so long to answer
    /// - `"silent_units": [2]`, `"silent": [[1, 40]]`: units and addresses that get no answer
    #[must_use]
    #[track_caller]
    pub fn start(devices: &Value) -> Self {
        Self::launch(devices, None)
    }

    /// The same behind TLS, for clients with a certificate of the same authority.
    #[must_use]
    #[track_caller]
    pub fn start_with_tls(devices: &Value, tls: &Tls) -> Self {
        Self::launch(devices, Some(tls))
    }

    #[track_caller]
    fn launch(devices: &Value, tls: Option<&Tls>) -> Self {
        let (dir, port) = (temp_dir("modbus"), free_port());
        let mut config = devices.clone();
        config["port"] = json!(port);
        if devices["serial"] == json!(true) {
            config["serial"] = json!(dir.path().join("serial"));
        }
        if let Some(tls) = tls {
            config["tls"] = json!({"cert": tls.server().cert, "key": tls.server().key, "ca": tls.ca()});
        }
        let (script, settings) = (dir.path().join("modbus_server.py"), dir.path().join("devices.json"));
        for (path, text) in [(&script, SCRIPT), (&settings, &config.to_string())] {
            fs::write(path, text).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
        }
        let service = Service::launch(Spec {
            name: "pymodbus",
            cmd: Cmd::new(python()).arg(script).arg(settings),
            ports: vec![port],
            ready: "ready",
            family: false,
            dir,
        });
        Self { service }
    }

    /// The end of the serial line that is not the devices'. While they are stopped it is not there, like that of an adapter
    /// that was pulled out.
    #[must_use]
    pub fn serial_port(&self) -> PathBuf {
        self.dir().join("serial")
    }

    /// What was asked so far: `unit table start count`, a line each.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        let log = self.log();
        let asked = log.lines().filter_map(|line| line.strip_prefix("asked "));
        asked.map(str::to_owned).collect()
    }
}

impl Deref for Modbus {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.service
    }
}
