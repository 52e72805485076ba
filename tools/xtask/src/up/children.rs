//! The processes `up` starts: their logs, their ends, and that none of them outlives it.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// How long a process may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// Processes by name.
pub struct Children {
    bins: PathBuf,
    dir: PathBuf,
    running: BTreeMap<String, Child>,
    /// In the order of starting.
    order: Vec<String>,
}

impl Children {
    /// None yet.
    pub fn new(bins: &Path, dir: &Path) -> Result<Self> {
        Ok(Self {
            bins: bins.to_path_buf(),
            dir: dir.to_path_buf(),
            running: BTreeMap::new(),
            order: Vec::new(),
        })
    }

    fn program(&self, name: &str) -> Command {
        Command::new(self.bins.join(name))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.log"))
    }

    /// Starts a process whose output goes to `<dir>/<name>.log`.
    pub fn start(&mut self, name: &str, program: &str, arguments: &[&str]) -> Result<Option<ChildStdin>> {
        let log = File::create(self.log(name))?;
        let mut command = self.program(program);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log);
        // Ctrl-C in the terminal is for `up` alone, which stops the others in order.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().with_context(|| format!("cannot start {program}"))?;
        let stdin = child.stdin.take();
        self.order.push(name.to_string());
        self.running.insert(name.to_string(), child);
        Ok(stdin)
    }

    /// Runs a program to its end; returns what it printed on stdout.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = self.program(program).args(arguments).stdin(Stdio::null()).output();
        let output = output.with_context(|| format!("cannot run {program}"))?;
        if !output.status.success() {
            let shown: Vec<&str> = arguments
                .iter()
                .map(|a| if a.starts_with("myc1") { "myc1…" } else { a })
                .collect();
            bail!(
                "{program} {} failed:\n{}",
                shown.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs the operator's command line.
    pub fn cli(&self, arguments: &[&str]) -> Result<String> {
        let home = self.dir.join("operator").display().to_string();
        self.run("mycelial", &[&["--home", home.as_str()], arguments].concat())
    }

    /// The command line as a person would type it.
    pub fn cli_as_typed(&self) -> String {
        let here = std::env::current_dir().unwrap_or_default();
        let short = |path: PathBuf| path.strip_prefix(&here).map(Path::to_path_buf).unwrap_or(path);
        let (program, home) = (short(self.bins.join("mycelial")), short(self.dir.join("operator")));
        format!("{} --home {}", program.display(), home.display())
    }

    /// Waits until a log holds a text.
    pub fn wait_for_log(&mut self, name: &str, text: &str) -> Result<()> {
        self.wait(name, |log| log.contains(text).then_some(()))
    }

    /// Waits until a log holds a fitting word.
    pub fn wait_for_word(&mut self, name: &str, fits: impl Fn(&str) -> bool) -> Result<String> {
        self.wait(name, |log| {
            log.split_whitespace().find(|word| fits(word)).map(str::to_string)
        })
    }

    fn wait<T>(&mut self, name: &str, find: impl Fn(&str) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = std::fs::read(self.log(name)).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            if let Some(found) = find(&log) {
                return Ok(found);
            }
            if self.ended().is_some_and(|ended| ended == name) {
                bail!("{name} ended:\n{log}");
            }
            if Instant::now() > deadline {
                bail!(
                    "{name} did not get ready within {} s; its log is {}",
                    PATIENCE.as_secs(),
                    self.log(name).display()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A process that ended by itself, if any.
    pub fn ended(&mut self) -> Option<String> {
        let ended =
            |(name, child): (&String, &mut Child)| matches!(child.try_wait(), Ok(Some(_))).then(|| name.clone());
        self.running.iter_mut().find_map(ended)
    }

    /// Waits for a process that is about to end by itself.
    pub fn wait_for_end(&mut self, name: &str) -> Result<()> {
        if let Some(mut child) = self.running.remove(name) {
            let deadline = Instant::now() + PATIENCE;
            while child.try_wait()?.is_none() {
                if Instant::now() > deadline {
                    child.kill()?;
                    bail!("{name} did not end");
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    /// The ends of all logs, for when something went wrong.
    pub fn show_logs(&self) {
        for name in &self.order {
            let log = std::fs::read(self.log(name)).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let lines: Vec<&str> = log.lines().collect();
            let from = lines.len().saturating_sub(12);
            eprintln!("--- {name}.log\n{}", lines[from..].join("\n"));
        }
    }

    /// Stops everything, last started first; names what had to be killed.
    pub fn stop_all(&mut self) -> Result<()> {
        let mut stubborn = Vec::new();
        for name in std::mem::take(&mut self.order).into_iter().rev() {
            let Some(mut child) = self.running.remove(&name) else {
                continue;
            };
            terminate(&child);
            let deadline = Instant::now() + PATIENCE;
            while child.try_wait()?.is_none() {
                if Instant::now() > deadline {
                    child.kill()?;
                    child.wait()?;
                    stubborn.push(name);
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        if !stubborn.is_empty() {
            bail!("had to be killed: {}", stubborn.join(", "));
        }
        Ok(())
    }
}

/// SIGTERM, by the system's own `kill`: xtask needs no crate for one signal.
#[cfg(unix)]
fn terminate(child: &Child) {
    let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
}

#[cfg(not(unix))]
fn terminate(_: &Child) {}

impl Drop for Children {
    fn drop(&mut self) {
        // Only reached with children left when something panicked.
        for child in self.running.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
