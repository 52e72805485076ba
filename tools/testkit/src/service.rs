//! The controls every server has: start, restart on the same port with the same data, stop, kill, freeze. Knows no
//! particular server.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tempfile::TempDir;

use crate::proc::{Cmd, Proc, Signal, send, tail};
use crate::wait_until;

/// How long a server may take to answer after its start; recovery of a database included.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How long a server may take to end after it was asked to.
const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// A server on 127.0.0.1 that keeps its port and its data over restarts.
///
/// Methods take `&self`, so that one server can be shared between the threads of a test. Dropping it stops the server
/// and removes its data; dropping it while the test panics prints the end of its log first.
#[derive(Debug)]
pub struct Service {
    name: &'static str,
    cmd: Cmd,
    ports: Vec<u16>,
    ready: &'static str,
    family: bool,
    proc: Mutex<Option<Proc>>,
    // Last, so that it is removed after the process ended.
    dir: TempDir,
}

/// What a [`Service`] is made of.
pub(crate) struct Spec {
    /// What failures call it.
    pub name: &'static str,
    /// How to start it, in the foreground, logging to stdout or stderr.
    pub cmd: Cmd,
    /// The ports it listens on, the main one first.
    pub ports: Vec<u16>,
    /// What it logs once it answers.
    pub ready: &'static str,
    /// Whether it works through child processes that a kill or freeze must reach too.
    pub family: bool,
    /// Its data and configuration.
    pub dir: TempDir,
}

impl Service {
    /// Starts it and waits until it answers.
    #[track_caller]
    pub(crate) fn launch(spec: Spec) -> Self {
        let Spec {
            name,
            cmd,
            ports,
            ready,
            family,
            dir,
        } = spec;
        let cmd = cmd.name(name).log(dir.path().join("log"));
        let service = Self {
            name,
            cmd,
            ports,
            ready,
            family,
            proc: Mutex::new(None),
            dir,
        };
        service.start();
        service
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.ports[0]
    }

    /// The address it listens on.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port()).into()
    }

    /// The directory of its data, configuration and log.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Everything it logged, over all its runs.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.log_bytes()).into_owned()
    }

    /// Whether it has been started and has not ended. A frozen server is running.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.lock().as_mut().is_some_and(Proc::is_running)
    }

    /// Its process id. Panics when it is stopped.
    #[must_use]
    #[track_caller]
    pub fn pid(&self) -> u32 {
        self.lock()
            .as_ref()
            .unwrap_or_else(|| panic!("{} is stopped", self.name))
            .pid()
    }

    /// Starts it again after [`Service::stop`] or [`Service::kill9`], on the same port with the same data, and waits
    /// until it answers.
    #[track_caller]
    pub fn start(&self) {
        let mut slot = self.lock();
        assert!(slot.is_none(), "{} runs already", self.name);
        let logged_before = self.log_bytes().len();
        let mut proc = self.cmd.spawn();
        let what = format!("{} to answer on port {}", self.name, self.port());
        wait_until(&what, START_DEADLINE, || {
            if let Some(status) = proc.exit_status() {
                panic!(
                    "{} ended with {status} while starting; its log:\n{}",
                    self.name,
                    proc.log_tail()
                );
            }
            let said = String::from_utf8_lossy(&self.log_bytes()[logged_before..]).contains(self.ready);
            (said && self.ports.iter().all(|port| accepts(*port))).then_some(())
        });
        *slot = Some(proc);
    }

    /// Asks it to end and waits until it has. Panics when it has not after 20 seconds. Does nothing when it is stopped.
    #[track_caller]
    pub fn stop(&self) {
        if let Some(mut proc) = self.lock().take() {
            self.thaw(&proc);
            proc.term_and_wait(STOP_DEADLINE);
        }
    }

    /// [`Service::stop`], then [`Service::start`].
    #[track_caller]
    pub fn restart(&self) {
        self.stop();
        self.start();
    }

    /// Kills it and all of its children with SIGKILL, and waits until it is gone. Does nothing when it is stopped.
    pub fn kill9(&self) {
        if let Some(mut proc) = self.lock().take() {
            // Frozen first, so that no child is born while the others are being killed.
            let family = self.freeze(&proc);
            proc.kill9();
            for pid in &family {
                send(*pid, Signal::Kill);
            }
            // A database refuses to start while an orphan of its last run still holds the shared memory.
            let what = format!("the children of {} to end", self.name);
            wait_until(&what, STOP_DEADLINE, || {
                family.iter().all(|pid| has_ended(*pid)).then_some(())
            });
        }
    }

    /// Freezes it: connections stay open and are still accepted by the kernel, but nobody answers.
    #[track_caller]
    pub fn pause(&self) {
        let slot = self.lock();
        self.freeze(slot.as_ref().unwrap_or_else(|| panic!("{} is stopped", self.name)));
    }

    /// Ends [`Service::pause`].
    #[track_caller]
    pub fn resume(&self) {
        let slot = self.lock();
        self.thaw(slot.as_ref().unwrap_or_else(|| panic!("{} is stopped", self.name)));
    }

    /// Freezes the process, then its children, and returns the children.
    fn freeze(&self, proc: &Proc) -> Vec<u32> {
        stop(proc.pid());
        let children = self.children(proc);
        for pid in &children {
            stop(*pid);
        }
        children
    }

    fn thaw(&self, proc: &Proc) {
        for pid in self.children(proc) {
            send(pid, Signal::Cont);
        }
        send(proc.pid(), Signal::Cont);
    }

    fn children(&self, proc: &Proc) -> Vec<u32> {
        if self.family {
            children_of(proc.pid())
        } else {
            Vec::new()
        }
    }

    fn log_bytes(&self) -> Vec<u8> {
        fs::read(self.dir.path().join("log")).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Proc>> {
        self.proc.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // A running `Proc` prints the log itself when the test panics, and stops the server.
        match self.lock().take() {
            Some(proc) => self.thaw(&proc),
            None if std::thread::panicking() => {
                eprintln!(
                    "--- the end of the log of {} (stopped)\n{}",
                    self.name,
                    tail(&self.log())
                );
            }
            None => {}
        }
    }
}

/// Freezes a process and waits until each of its threads stands still: the signal returns before they do.
fn stop(pid: u32) {
    send(pid, Signal::Stop);
    wait_until(&format!("process {pid} to freeze"), STOP_DEADLINE, || {
        let threads = fs::read_dir(format!("/proc/{pid}/task"))
            .ok()
            .into_iter()
            .flatten()
            .flatten();
        let mut states = threads.filter_map(|thread| state_in(&thread.path().join("stat")));
        states
            .all(|(state, _)| matches!(state.as_str(), "T" | "Z" | "X"))
            .then_some(())
    });
}

fn accepts(port: u16) -> bool {
    TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, port).into(), Duration::from_secs(1)).is_ok()
}

/// The direct children of a process, from /proc.
fn children_of(parent: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| state_and_parent(*pid).is_some_and(|(_, ppid)| ppid == parent))
        .collect()
}

/// Whether a process is gone, or waits only to be reaped.
fn has_ended(pid: u32) -> bool {
    state_and_parent(pid).is_none_or(|(state, _)| state == "Z")
}

fn state_and_parent(pid: u32) -> Option<(String, u32)> {
    state_in(Path::new(&format!("/proc/{pid}/stat")))
}

/// State and parent from a `stat` file.
fn state_in(stat: &Path) -> Option<(String, u32)> {
    // pid (name) state ppid …: the name may hold spaces and parentheses, so look from its end.
    let stat = fs::read_to_string(stat).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_children() {
        let mut parent = Cmd::new("/bin/sh")
            .args(["-c", "sleep 600 & sleep 600 & echo up; wait"])
            .spawn();
        parent.wait_for_log("up", Duration::from_secs(10));
        let children = children_of(parent.pid());
        assert_eq!(children.len(), 2);
        parent.kill9();
        for pid in children {
            send(pid, Signal::Kill);
        }
    }
}
