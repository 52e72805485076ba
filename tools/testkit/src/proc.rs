//! Child processes: started with a log, watched, signalled and stopped by id. Never touches a process it did not start.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, kill_process};
use tempfile::TempDir;

use crate::{bin, temp_dir, wait_until};

/// How long a dropped process may take to leave before it is killed.
const DROP_GRACE: Duration = Duration::from_secs(3);
/// How much of a log a failing test shows.
const LOG_TAIL_LINES: usize = 60;
/// Between two looks at a running process.
const POLL: Duration = Duration::from_millis(5);

/// The signals a test needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Ask to end.
    Term,
    /// Ctrl-C.
    Int,
    /// Reload.
    Hup,
    /// End now, without a word.
    Kill,
    /// Freeze.
    Stop,
    /// Go on after [`Signal::Stop`].
    Cont,
}

impl Signal {
    fn raw(self) -> rustix::process::Signal {
        match self {
            Self::Term => rustix::process::Signal::TERM,
            Self::Int => rustix::process::Signal::INT,
            Self::Hup => rustix::process::Signal::HUP,
            Self::Kill => rustix::process::Signal::KILL,
            Self::Stop => rustix::process::Signal::STOP,
            Self::Cont => rustix::process::Signal::CONT,
        }
    }
}

/// What the loader reads.
const PRELOAD: &str = "LD_PRELOAD";

/// A program to run: either to its end with [`Cmd::run`], or in the background with [`Cmd::spawn`].
#[derive(Debug, Clone)]
pub struct Cmd {
    name: String,
    program: PathBuf,
    args: Vec<OsString>,
    envs: Vec<(OsString, Option<OsString>)>,
    dir: Option<PathBuf>,
    stdin: Option<Vec<u8>>,
    log: Option<PathBuf>,
    stdout: Option<PathBuf>,
    user: Option<(u32, u32)>,
    stop_signal: Signal,
}

impl Cmd {
    /// Runs the program at `program`, or found in PATH.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>) -> Self {
        let program = program.into();
        let name = program
            .file_name()
            .unwrap_or(program.as_os_str())
            .to_string_lossy()
            .into_owned();
        Self {
            name,
            program,
            args: Vec::new(),
            envs: Vec::new(),
            dir: None,
            stdin: None,
            log: None,
            stdout: None,
            user: None,
            stop_signal: Signal::Term,
        }
    }

    /// Runs one of the workspace's binaries, see [`bin`].
    #[must_use]
    #[track_caller]
    pub fn bin(name: &str) -> Self {
        Self::new(bin(name))
    }

    /// Runs another program with all the rest as it is.
    #[must_use]
    pub fn program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = program.into();
        self
    }

    /// The name failures and logs use; the program's file name unless told.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Appends an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Appends arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable; the rest is inherited.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.envs
            .push((key.as_ref().to_owned(), Some(value.as_ref().to_owned())));
        self
    }

    /// Loads a library before all others, behind those that were asked for earlier.
    #[must_use]
    pub fn preload(self, library: &Path) -> Self {
        let asked = self.envs.iter().rev().find(|(key, _)| key == PRELOAD);
        let mut list = match asked {
            Some((_, Some(earlier))) => {
                let mut list = earlier.clone();
                list.push(":");
                list
            }
            _ => OsString::new(),
        };
        list.push(library);
        self.env(PRELOAD, list)
    }

    /// Takes an inherited environment variable away.
    #[must_use]
    pub fn env_remove(mut self, key: impl AsRef<OsStr>) -> Self {
        self.envs.push((key.as_ref().to_owned(), None));
        self
    }

    /// The working directory; the test's own unless told.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// What the program reads on stdin; nothing unless told.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// The file stdout and stderr are appended to when spawned; one in a temporary directory unless told. It may be
    /// shared by one run after the other.
    #[must_use]
    pub fn log(mut self, path: impl Into<PathBuf>) -> Self {
        self.log = Some(path.into());
        self
    }

    /// Sends stdout of a spawned process to this file instead of the log.
    #[must_use]
    pub fn stdout_to(mut self, path: impl Into<PathBuf>) -> Self {
        self.stdout = Some(path.into());
        self
    }

    /// Runs as this user and group. Only root may.
    #[must_use]
    pub(crate) fn user(mut self, uid_gid: Option<(u32, u32)>) -> Self {
        self.user = uid_gid;
        self
    }

    /// What ends the program politely; SIGTERM unless told.
    #[must_use]
    pub(crate) fn stop_signal(mut self, signal: Signal) -> Self {
        self.stop_signal = signal;
        self
    }

    /// Starts the program in the background.
    #[must_use]
    #[track_caller]
    pub fn spawn(&self) -> Proc {
        let dir = temp_dir(&self.name);
        let log = self.log.clone().unwrap_or_else(|| dir.path().join("log"));
        let stderr = append(&log);
        let stdout = match &self.stdout {
            Some(path) => append(path),
            None => stderr
                .try_clone()
                .unwrap_or_else(|e| panic!("cannot share the log of {}: {e}", self.name)),
        };
        let child = self.start(dir.path(), stdout, stderr);
        Proc {
            child,
            name: self.name.clone(),
            log,
            stop_signal: self.stop_signal,
            exit: None,
            _dir: dir,
        }
    }

    /// Runs the program to its end and returns what it said. Panics, and kills it, when `timeout` passes first.
    #[track_caller]
    pub fn run(&self, timeout: Duration) -> Finished {
        let dir = temp_dir(&self.name);
        let (out, err) = (dir.path().join("stdout"), dir.path().join("stderr"));
        let mut child = self.start(dir.path(), append(&out), append(&err));
        let status = wait_for(&mut child, timeout);
        if status.is_none() {
            // Killing what has just ended by itself is fine.
            let _ = child.kill();
            let _ = child.wait();
        }
        let finished = Finished {
            name: self.name.clone(),
            status: status.unwrap_or_else(|| ExitStatus::from_raw(9)),
            stdout: read_text(&out),
            stderr: read_text(&err),
        };
        assert!(
            status.is_some(),
            "{} {:?} did not end within {timeout:?}: {finished}",
            self.name,
            self.args
        );
        finished
    }

    #[track_caller]
    fn start(&self, scratch: &Path, stdout: File, stderr: File) -> Child {
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .stdout(stdout)
            .stderr(stderr)
            .stdin(self.open_stdin(scratch));
        for (key, value) in &self.envs {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {}: {e}", self.program.display()))
    }

    fn open_stdin(&self, scratch: &Path) -> Stdio {
        let Some(bytes) = &self.stdin else { return Stdio::null() };
        let path = scratch.join("stdin");
        fs::write(&path, bytes)
            .and_then(|()| File::open(&path))
            .unwrap_or_else(|e| panic!("cannot prepare the input of {}: {e}", self.name))
            .into()
    }
}

/// What a program that ran to its end said. Its `Display` shows all of it.
#[derive(Debug, Clone)]
pub struct Finished {
    name: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Everything on stdout; bytes that are not UTF-8 are replaced.
    pub stdout: String,
    /// Everything on stderr; bytes that are not UTF-8 are replaced.
    pub stderr: String,
}

impl Finished {
    /// The exit code; `None` when a signal ended the program.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Panics with all output unless the exit code was 0; else returns stdout.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.status.success(), "{self}");
        self.stdout
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            name,
            status,
            stdout,
            stderr,
        } = self;
        write!(
            f,
            "{name} ended with {status}\n--- stdout\n{stdout}\n--- stderr\n{stderr}"
        )
    }
}

/// A running process. Dropping it stops it; dropping it while the test panics prints the end of its log first.
#[derive(Debug)]
pub struct Proc {
    child: Child,
    name: String,
    log: PathBuf,
    stop_signal: Signal,
    exit: Option<ExitStatus>,
    _dir: TempDir,
}

impl Proc {
    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The file its output goes to.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// Everything in the log so far; bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn log(&self) -> String {
        read_text(&self.log)
    }

    /// How it ended, if it did.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        if self.exit.is_none() {
            self.exit = self
                .child
                .try_wait()
                .unwrap_or_else(|e| panic!("cannot wait for {}: {e}", self.name));
        }
        self.exit
    }

    /// Whether it has not ended. A frozen process is running.
    pub fn is_running(&mut self) -> bool {
        self.exit_status().is_none()
    }

    /// Waits until the log contains `needle`. Panics when `deadline` passes, or the process ends, first.
    #[track_caller]
    pub fn wait_for_log(&mut self, needle: &str, deadline: Duration) {
        let what = format!("{needle:?} in the log of {}", self.name);
        wait_until(&what, deadline, || {
            // The exit is looked at first: what was said before it is then in the log.
            let ended = self.exit_status();
            if self.log().contains(needle) {
                return Some(());
            }
            if let Some(status) = ended {
                panic!(
                    "{} ended with {status} before it said {needle:?}; its log:\n{}",
                    self.name,
                    self.log_tail()
                );
            }
            None
        });
    }

    /// Sends a signal. Does nothing when the process has ended.
    pub fn signal(&mut self, signal: Signal) {
        if self.is_running() {
            send(self.pid(), signal);
        }
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill9(&mut self) -> ExitStatus {
        self.signal(Signal::Kill);
        let status = self
            .child
            .wait()
            .unwrap_or_else(|e| panic!("cannot wait for {}: {e}", self.name));
        *self.exit.get_or_insert(status)
    }

    /// Asks it to end and waits for that. Panics when it is still there after `timeout`, with the end of its log.
    #[track_caller]
    pub fn term_and_wait(&mut self, timeout: Duration) -> ExitStatus {
        self.signal(self.stop_signal);
        self.wait_exit(timeout).unwrap_or_else(|| {
            panic!(
                "{} is still running {timeout:?} after {:?}; its log:\n{}",
                self.name,
                self.stop_signal,
                self.log_tail()
            )
        })
    }

    /// Waits until it ends by itself; `None` when it has not within `timeout`.
    pub fn wait_exit(&mut self, timeout: Duration) -> Option<ExitStatus> {
        if self.exit.is_none() {
            self.exit = wait_for(&mut self.child, timeout);
        }
        self.exit
    }

    /// Resident memory now, in KiB; `None` once it has ended.
    #[must_use]
    pub fn rss_kb(&self) -> Option<u64> {
        self.status_kb("VmRSS:")
    }

    /// The most memory that was ever resident, in KiB; `None` once it has ended.
    #[must_use]
    pub fn rss_peak_kb(&self) -> Option<u64> {
        self.status_kb("VmHWM:")
    }

    /// Bytes it made the disk write so far, without those that were deleted before they got there; `None` once it has
    /// ended. From `/proc/<pid>/io`, which counts pages when they become dirty.
    #[must_use]
    pub fn written_bytes(&self) -> Option<u64> {
        let io = fs::read_to_string(format!("/proc/{}/io", self.pid())).ok()?;
        let field = |name: &str| {
            let line = io.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        };
        Some(field("write_bytes:")?.saturating_sub(field("cancelled_write_bytes:")?))
    }

    /// Freezes it for a while: a disk, a machine or a virtual one that hangs looks like this from outside.
    pub fn freeze_for(&mut self, pause: Duration) {
        self.signal(Signal::Stop);
        thread::sleep(pause);
        self.signal(Signal::Cont);
    }

    fn status_kb(&self, field: &str) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let line = status.lines().find(|line| line.starts_with(field))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }

    /// The last lines of the log.
    pub(crate) fn log_tail(&self) -> String {
        tail(&self.log())
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!(
                "--- the end of the log of {} (pid {})\n{}",
                self.name,
                self.pid(),
                self.log_tail()
            );
        }
        if self.is_running() {
            self.signal(self.stop_signal);
            // A frozen process acts on the signal only once it runs again.
            self.signal(Signal::Cont);
            if self.wait_exit(DROP_GRACE).is_none() {
                self.kill9();
            }
        }
    }
}

/// Sends `signal` to one process. That it is gone already is not an error.
pub(crate) fn send(pid: u32, signal: Signal) {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return;
    };
    match kill_process(pid, signal.raw()) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(e) => panic!("cannot send {signal:?} to process {pid}: {e}"),
    }
}

/// The last lines of a log, as a failure shows them.
pub(crate) fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}

fn wait_for(child: &mut Child, timeout: Duration) -> Option<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child
            .try_wait()
            .unwrap_or_else(|e| panic!("cannot wait for a child process: {e}"))
        {
            return Some(status);
        }
        if start.elapsed() >= timeout {
            return None;
        }
        thread::sleep(POLL);
    }
}

fn append(path: &Path) -> File {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()))
}

fn read_text(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()));
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn sh(script: &str) -> Cmd {
        Cmd::new("/bin/sh").arg("-c").arg(script)
    }

    fn exists(pid: u32) -> bool {
        Path::new(&format!("/proc/{pid}")).exists()
    }

    #[test]
    fn runs_to_the_end() {
        let finished = sh("cat; echo bad >&2; exit 3").stdin("in").run(SOON);
        assert_eq!(
            (finished.code(), finished.stdout.as_str(), finished.stderr.as_str()),
            (Some(3), "in", "bad\n")
        );
    }

    #[test]
    #[should_panic(expected = "did not end within")]
    fn a_hanging_program_is_a_failure() {
        sh("exec sleep 600").run(Duration::from_millis(50));
    }

    #[test]
    #[should_panic(expected = "bad news")]
    fn a_failure_shows_the_output() {
        sh("echo bad news; exit 1").run(SOON).ok();
    }

    #[test]
    fn environment_and_directory() {
        let dir = temp_dir("proc");
        let said = sh("echo $COLOUR; pwd")
            .env("COLOUR", "green")
            .dir(dir.path())
            .run(SOON)
            .ok();
        assert_eq!(said, format!("green\n{}\n", dir.path().display()));
    }

    #[test]
    fn stops_when_asked_and_when_dropped() {
        let mut asked = sh("trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.02; done").spawn();
        asked.wait_for_log("up", SOON);
        assert_eq!(asked.term_and_wait(SOON).code(), Some(7));
        assert!(asked.log().contains("bye"));

        let dropped = sh("exec sleep 600").spawn();
        let pid = dropped.pid();
        assert!(exists(pid));
        drop(dropped);
        assert!(!exists(pid));
    }

    #[test]
    fn kill9_cannot_be_refused() {
        let mut deaf = sh("trap '' TERM; echo up; while :; do sleep 0.02; done").spawn();
        deaf.wait_for_log("up", SOON);
        deaf.signal(Signal::Term);
        assert_eq!(deaf.kill9().signal(), Some(9));
        assert!(!deaf.is_running());
    }

    #[test]
    fn a_frozen_process_is_dropped_too() {
        let mut frozen = sh("exec sleep 600").spawn();
        frozen.signal(Signal::Stop);
        let pid = frozen.pid();
        drop(frozen);
        assert!(!exists(pid));
    }

    #[test]
    #[should_panic(expected = "no config")]
    fn an_early_end_shows_the_log() {
        sh("echo no config; exit 2").spawn().wait_for_log("ready", SOON);
    }

    #[test]
    fn memory() {
        let mut sleeper = sh("exec sleep 600").spawn();
        let (now, peak) = (sleeper.rss_kb().unwrap(), sleeper.rss_peak_kb().unwrap());
        assert!(now > 0 && peak >= now, "{now} {peak}");
        sleeper.kill9();
        assert_eq!(sleeper.rss_kb(), None);
    }

    #[test]
    fn disk_writes() {
        let dir = temp_dir("written");
        let file = dir.path().join("file").display().to_string();
        let script = format!("dd if=/dev/zero of={file} bs=1M count=4 conv=fsync; echo up; exec sleep 600");
        let mut writer = sh(&script).spawn();
        writer.wait_for_log("up", SOON);
        // dd's writes count for its parent once it has been waited for.
        let written = writer.written_bytes().unwrap();
        assert!(written >= 4 << 20, "{written}");
        writer.kill9();
        assert_eq!(writer.written_bytes(), None);
    }
}
