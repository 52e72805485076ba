//! What processes take of the machine, read from `/proc` while they run. Never touches them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// Between two looks. Peaks and sums are the kernel's own, so only what the last moment adds can be missed.
const LOOK: Duration = Duration::from_millis(20);
/// What a page of `/proc/<pid>/stat` times is: Linux fixes it for user space.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a process and its children took.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Time on a processor, in seconds.
    pub cpu_seconds: f64,
    /// The peak resident set: of each process on its own, added up.
    pub rss_bytes: f64,
    /// The part of it that is the process's own memory, not its program or other files: the most that was seen.
    pub own_bytes: f64,
    /// What it made the disk write, with its children once they have ended.
    pub written_bytes: f64,
}

/// Watches processes from when it is made until asked.
pub struct Watch {
    root: u32,
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<BTreeMap<u32, Usage>>>,
    watcher: Option<JoinHandle<()>>,
}

impl Watch {
    /// Watches a process and what it starts.
    #[must_use]
    pub fn new(root: u32) -> Self {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(BTreeMap::new())));
        let watcher = thread::spawn({
            let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    look(root, &seen);
                    thread::sleep(LOOK);
                }
            }
        });
        look(root, &seen);
        Self {
            root,
            stop,
            seen,
            watcher: Some(watcher),
        }
    }

    /// What was taken so far, since the processes began.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().fold(Usage::default(), |sum, (pid, one)| Usage {
            cpu_seconds: sum.cpu_seconds + one.cpu_seconds,
            rss_bytes: sum.rss_bytes + one.rss_bytes,
            own_bytes: sum.own_bytes + one.own_bytes,
            // The kernel adds a child's to its parent's when it has ended.
            written_bytes: if *pid == self.root {
                one.written_bytes
            } else {
                sum.written_bytes
            },
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(watcher) = self.watcher.take() {
            // It only reads; a panic of its own has been printed.
            let _ = watcher.join();
        }
    }
}

fn look(root: u32, seen: &Mutex<BTreeMap<u32, Usage>>) {
    let mut pids = vec![root];
    let mut at = 0;
    while let Some(pid) = pids.get(at).copied() {
        at += 1;
        pids.extend(children(pid));
        if let Some(now) = read(pid) {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            let before = seen.entry(pid).or_default();
            *before = Usage {
                cpu_seconds: before.cpu_seconds.max(now.cpu_seconds),
                rss_bytes: before.rss_bytes.max(now.rss_bytes),
                own_bytes: before.own_bytes.max(now.own_bytes),
                written_bytes: before.written_bytes.max(now.written_bytes),
            };
        }
    }
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<u32>>()
        })
        .collect()
}

fn read(pid: u32) -> Option<Usage> {
    let dir = Path::new("/proc").join(pid.to_string());
    let stat = fs::read_to_string(dir.join("stat")).ok()?;
    // pid (name) state …: the name may hold anything, so from its end. Times are the 14th and 15th field.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    let status = fs::read_to_string(dir.join("status")).unwrap_or_default();
    let io = fs::read_to_string(dir.join("io")).unwrap_or_default();
    Some(Usage {
        cpu_seconds: (ticks(11)? + ticks(12)?) / TICKS_PER_SECOND,
        rss_bytes: field(&status, "VmHWM:") * 1024.0,
        own_bytes: field(&status, "RssAnon:") * 1024.0,
        written_bytes: (field(&io, "write_bytes:") - field(&io, "cancelled_write_bytes:")).max(0.0),
    })
}

/// The number after a name at the beginning of a line; 0 when there is none, as in a process that has just ended.
fn field(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0.0)
}

/// What one process takes now, without its children; nothing when it has ended.
#[must_use]
pub fn now(pid: u32) -> Usage {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    Usage {
        rss_bytes: field(&status, "VmRSS:") * 1024.0,
        ..read(pid).unwrap_or_default()
    }
}

/// Runs a program to its end. Returns how long it took, in seconds, and what.
pub fn run(command: &mut Command) -> Result<(f64, Usage)> {
    let what = format!("{}", command.get_program().display());
    let started = Instant::now();
    let mut child: Child = command.spawn().with_context(|| format!("cannot start {what}"))?;
    let watch = Watch::new(child.id());
    let status = child.wait().with_context(|| format!("cannot wait for {what}"))?;
    let seconds = started.elapsed().as_secs_f64();
    ensure!(status.success(), "{what} ended with {status}");
    Ok((seconds, watch.usage()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_and_its_children() {
        let dir = testkit::temp_dir("usage");
        let file = dir.path().join("file");
        let script = format!(
            "sh -c 'i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; dd if=/dev/zero of={} bs=1M count=3 conv=fsync'; \
             sleep 0.1",
            file.display()
        );
        let (seconds, usage) = run(Command::new("sh").args(["-c", &script])).unwrap();
        assert!(seconds >= 0.1);
        assert!(
            usage.cpu_seconds > 0.0 && usage.rss_bytes > 1e6 && usage.own_bytes > 0.0,
            "{usage:?}"
        );
        assert!(usage.written_bytes >= 3e6, "{usage:?}");
        let error = run(Command::new("sh").args(["-c", "exit 3"])).unwrap_err();
        assert!(format!("{error:#}").contains("exit status: 3"), "{error:#}");
    }
}
