//! A server that a test writes itself, in Python: an implementation of a protocol that is not ours. Needs nothing but the
//! standard library.

use std::fs;
use std::ops::Deref;

use crate::proc::Cmd;
use crate::service::{Service, Spec};
use crate::{find_program, free_port, temp_dir};

const PACKAGE: &str = "python3-minimal";

/// A running script; start, stop and faults are on [`Service`].
#[derive(Debug)]
pub struct Script(Service);

impl Script {
    /// Starts the script with a port as its first argument and `args` behind it, in an empty directory that it keeps over
    /// restarts, and waits until it listens there and has printed `listening`.
    #[must_use]
    #[track_caller]
    pub fn start(source: &str, args: &[&str]) -> Self {
        let dir = temp_dir("script");
        let file = dir.path().join("server.py");
        fs::write(&file, source).unwrap_or_else(|e| panic!("cannot write {}: {e}", file.display()));
        let port = free_port();
        let cmd = Cmd::new(find_program("python3", PACKAGE))
            .arg("-u")
            .arg(&file)
            .arg(port.to_string())
            .args(args)
            .dir(dir.path());
        Self(Service::launch(Spec {
            name: "the script",
            cmd,
            ports: vec![port],
            ready: "listening",
            family: false,
            dir,
        }))
    }
}

impl Deref for Script {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.0
    }
}
