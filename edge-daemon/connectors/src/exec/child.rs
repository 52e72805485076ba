//! One child process in a group of its own, which ends with its owner: the whole group is killed. What it writes on its
//! standard error goes to the log, within limits. It knows of the daemon's environment what any program needs, and nothing
//! else: secrets stand there.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use flow::{BuildContext, ConfigError, Fault, Trouble};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{ChildStderr, ChildStdin, ChildStdout, Command},
    time::{Instant, timeout},
};

use crate::{file::text::shorten, mqtt::Task, reach, secret::SecretRef};

/// How long a child may take to end after it was asked to.
const STOP_WAIT: Duration = Duration::from_secs(2);
/// How long a program that has failed may take to end, so that it can be said how.
const END_WAIT: Duration = Duration::from_secs(1);
/// Longest line of a child's standard error that is logged, in bytes; longer ones are cut.
const LOG_LINE_BYTES_MAX: usize = 1024;
/// Lines of it that are logged in [`LOG_WINDOW`].
const LOG_LINES_MAX: u32 = 60;
const LOG_WINDOW: Duration = Duration::from_secs(60);

/// What a child gets of the daemon's environment, besides `LC_*`.
const INHERITED: [&str; 7] = ["PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR"];

/// What to start.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    command: Vec<String>,
    env: BTreeMap<String, SecretRef>,
    /// Where relative paths start.
    base_dir: PathBuf,
    dir: PathBuf,
    /// For the log.
    node: String,
}

impl Program {
    /// Checks what stands in a config.
    pub(crate) fn new(
        command: Vec<String>,
        env: BTreeMap<String, SecretRef>,
        dir: Option<PathBuf>,
        context: &BuildContext,
    ) -> Result<Self, ConfigError> {
        if command.first().is_none_or(String::is_empty) {
            return Err(ConfigError::at("command", "name the program, then its arguments"));
        }
        if let Some(at) = command.iter().position(|part| part.contains('\0')) {
            return Err(ConfigError::at(format!("command[{at}]"), "has a zero byte in it"));
        }
        let has_zero = |value: &SecretRef| matches!(value, SecretRef::Plain(text) if text.contains('\0'));
        if let Some((name, _)) = env
            .iter()
            .find(|(name, value)| name.is_empty() || name.contains(['=', '\0']) || has_zero(value))
        {
            return Err(ConfigError::at(format!("env.{name}"), "is no environment variable"));
        }
        Ok(Self {
            command,
            env,
            base_dir: context.base_dir.clone(),
            dir: dir.map_or_else(|| context.base_dir.clone(), |dir| context.base_dir.join(dir)),
            node: context.node.clone(),
        })
    }

    /// Whether there is such a program. It is not started.
    pub(crate) fn check(&self) -> Result<String, Trouble> {
        let found = reach::program(&self.command[0], &self.dir)?;
        Ok(format!(
            "{} can be started; what it does shows when it runs",
            found.display()
        ))
    }

    /// Its name, for messages.
    pub(crate) fn name(&self) -> &str {
        &self.command[0]
    }

    /// Starts it. `with_input`: its standard input is a pipe; else there is nothing to read.
    pub(crate) fn start(&self, with_input: bool, more_env: &[(&str, &str)]) -> Result<Child, Fault> {
        let mut command = Command::new(&self.command[0]);
        let is_inherited = |name: &str| INHERITED.contains(&name) || name.starts_with("LC_");
        let inherited = std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_inherited));
        command.env_clear().envs(inherited);
        for (name, value) in &self.env {
            let value = value.fetch(&self.base_dir);
            let value = value.map_err(|error| Fault::retry(format!("env.{name}: {error}")))?;
            command.env(name, value.expose());
        }
        command
            .args(&self.command[1..])
            .envs(more_env.iter().copied())
            .stdin(if with_input { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if self.dir.as_os_str() != OsStr::new("") {
            command.current_dir(&self.dir);
        }
        let failed = |cause: String| Fault::retry(format!("cannot start '{}': {cause}", self.name()));
        let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let (Some(group), Some(output), Some(errors)) = (group, child.stdout.take(), child.stderr.take()) else {
            return Err(failed("it is not there".to_string()));
        };
        let last_words = LastWords::default();
        Ok(Child {
            input: child.stdin.take(),
            output,
            life: Life {
                log: Task(tokio::spawn(log(errors, self.node.clone(), last_words.clone()))),
                last_words,
                group: Some(Group(group)),
                child,
            },
        })
    }
}

/// A process group. Killed when dropped.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        // Nobody is left in it: that is what is wanted.
        let _ = kill_process_group(self.0, Signal::KILL);
    }
}

/// A running child.
pub(crate) struct Child {
    pub(crate) input: Option<ChildStdin>,
    pub(crate) output: ChildStdout,
    pub(crate) life: Life,
}

/// The last line of a child's standard error.
#[derive(Clone, Default)]
struct LastWords(Arc<Mutex<String>>);

impl LastWords {
    fn set(&self, line: &[u8]) {
        let line = String::from_utf8_lossy(line).trim().to_string();
        if !line.is_empty() {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = line;
        }
    }

    /// A cause with them, if there are any.
    fn after(&self, cause: String) -> String {
        let words = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match words.as_str() {
            "" => cause,
            words => format!("{cause}; the last it said: '{}'", shorten(words)),
        }
    }
}

/// That it runs.
pub(crate) struct Life {
    log: Task,
    last_words: LastWords,
    /// Before `child`: while that has not been waited for, the number of the group belongs to nobody else.
    group: Option<Group>,
    child: tokio::process::Child,
}

impl Life {
    /// Waits for its end; whatever it has started ends with it. May be dropped and called again.
    pub(crate) async fn ended(&mut self) -> Result<ExitStatus, Fault> {
        let ended = self.child.wait().await;
        self.group = None;
        ended.map_err(|error| Fault::retry(format!("waiting for a child process: {error}")))
    }

    /// A cause with how the program has ended, if it has, and what it said last.
    pub(crate) async fn ending(&mut self, cause: String) -> String {
        let cause = match timeout(END_WAIT, self.ended()).await {
            Ok(Ok(status)) => {
                // Its last words are the ones that tell why.
                if !self.log.0.is_finished() {
                    let _ = timeout(END_WAIT, &mut self.log.0).await;
                }
                format!("{cause} ({})", explain(status))
            }
            _ => cause,
        };
        self.last_words.after(cause)
    }
}

impl Child {
    /// Asks it to end, then makes it.
    pub(crate) async fn stop(self) {
        let Self {
            input,
            output,
            mut life,
        } = self;
        drop((input, output));
        if let Some(Group(group)) = &life.group {
            let _ = kill_process_group(*group, Signal::TERM);
        }
        let _ = timeout(STOP_WAIT, life.child.wait()).await;
        life.group = None;
        let _ = life.child.kill().await;
    }
}

/// How a child ended, for a person.
pub(crate) fn explain(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it ended with code {code}"),
        (None, Some(signal)) => format!("it was killed by signal {signal}"),
        (None, None) => "it ended".to_string(),
    }
}

/// Tells which lines are logged.
#[derive(Debug, Default)]
struct Allowance {
    window: Option<Instant>,
    logged: u32,
    left_out: u64,
}

impl Allowance {
    /// `None`: not this line. Else how many were left out before it.
    fn line(&mut self, now: Instant) -> Option<u64> {
        if self.window.is_none_or(|since| now - since >= LOG_WINDOW) {
            (self.window, self.logged) = (Some(now), 0);
        }
        if self.logged >= LOG_LINES_MAX {
            self.left_out += 1;
            return None;
        }
        self.logged += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

/// Logs lines until there are no more. A pipe that nobody reads would stop the child.
async fn log(errors: ChildStderr, node: String, last_words: LastWords) {
    let mut errors = BufReader::with_capacity(4 * LOG_LINE_BYTES_MAX, errors);
    let (mut line, mut allowance) = (Vec::new(), Allowance::default());
    loop {
        let bytes = match errors.fill_buf().await {
            Ok([]) | Err(_) => break,
            Ok(bytes) => bytes,
        };
        let end = memchr::memchr(b'\n', bytes);
        let piece = &bytes[..end.unwrap_or(bytes.len())];
        line.extend_from_slice(&piece[..piece.len().min(LOG_LINE_BYTES_MAX - line.len())]);
        let used = end.map_or(bytes.len(), |end| end + 1);
        errors.consume(used);
        if end.is_some() {
            last_words.set(&line);
            tell(&node, &line, &mut allowance);
            line.clear();
        }
    }
    if !line.is_empty() {
        last_words.set(&line);
        tell(&node, &line, &mut allowance);
    }
}

fn tell(node: &str, line: &[u8], allowance: &mut Allowance) {
    let Some(left_out) = allowance.line(Instant::now()) else {
        return;
    };
    if left_out > 0 {
        tracing::warn!(node, left_out, "lines of the child's standard error were left out");
    }
    tracing::info!(node, line = %String::from_utf8_lossy(line), "the child says");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_talkative_child_does_not_fill_the_log() {
        let (mut allowance, start) = (Allowance::default(), Instant::now());
        let logged = (0..1000).filter(|_| allowance.line(start).is_some()).count();
        assert_eq!(logged, LOG_LINES_MAX as usize);
        assert_eq!(
            allowance.line(start + LOG_WINDOW),
            Some(1000 - u64::from(LOG_LINES_MAX))
        );
        assert_eq!(allowance.line(start + LOG_WINDOW), Some(0));
    }
}
