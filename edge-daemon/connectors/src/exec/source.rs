//! Source `exec`: the lines a program of the user's own writes.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use async_trait::async_trait;
use bus_schema::{
    data::Batch,
    limits::POSITION_BYTES_MAX,
    plan::{ComponentRole, Descriptor},
};
use flow::{
    Build, BuildContext, Component, ConfigError, Fault, Position, READ_WAIT_MAX, Read, Source, SourceBatch, Trouble,
    describe, parse_config,
};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::{
    io::AsyncReadExt,
    time::{Instant, sleep_until, timeout, timeout_at},
};

use super::{
    child::{Child, Program, explain},
    restarts::Restarts,
    suspect::failures_usual,
};
use crate::{
    feed::{Feed, FormatName},
    file::source::CsvConfig,
    secret::SecretRef,
};

/// Bytes read from the program at once.
const READ_BYTES: usize = 64 * 1024;
/// How long the output of a program may stay open after its end.
const REST_WAIT: Duration = Duration::from_secs(1);
/// The variable that tells the program where to go on.
const CURSOR_VARIABLE: &str = "MYCELIAL_CURSOR";

/// Runs a program and takes the lines it writes on its standard output as records. No shell is in between: write
/// `["sh", "-c", "…"]` where you want one. When the program fails it is started again, later and later; when it ends well,
/// the source is at its end, or starts it again after `every_ms`. What it writes on its standard error goes to the log (60
/// lines a minute). Program and whatever it has started are killed together when the workflow ends. A daemon of a fleet must
/// allow it: `allow = true` under `[custom_code]` in its `config.toml`.
///
/// A pipe cannot be read twice: lines on the way when the daemon is killed are lost, unless the program can go on after a
/// record. For that name the column that says where as `cursor`: the program finds its value in the last record that
/// arrived in the environment variable `MYCELIAL_CURSOR` (not set the first time), and writes what comes after it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The program and its arguments.
    command: Vec<String>,
    /// Environment variables, each a text or a secret from elsewhere. Of the daemon's own the process has PATH, HOME, USER, LOGNAME,
    /// LANG, LC_*, TZ and TMPDIR.
    #[serde(default)]
    env: BTreeMap<String, SecretRef>,
    /// Where it runs. By default, and where a relative path starts, the daemon's directory.
    dir: Option<PathBuf>,
    /// What its lines are.
    #[serde(default)]
    format: FormatName,
    /// How the CSV is written.
    csv: Option<CsvConfig>,
    /// Column = type, as in the source `file`.
    #[serde(default)]
    types: BTreeMap<String, String>,
    /// Runs the program again this many milliseconds after it has ended well.
    every_ms: Option<u64>,
    /// Longest run, in milliseconds; then the program is killed and counts as failed.
    run_ms_max: Option<u64>,
    /// Longest time without any output, in milliseconds; then the program is killed and counts as failed.
    quiet_ms_max: Option<u64>,
    /// The column to go on after.
    cursor: Option<String>,
    /// How often in a row it may fail without having given a record, before it is started once in half a minute only, until one comes.
    /// Up to then it is started again later and later, after ten seconds at most. It is never given up. 0: as often as any other source.
    #[serde(default = "failures_usual")]
    failures_max: u32,
}

/// The registry line.
pub(crate) const SOURCE: Component = Component {
    descriptor,
    build: Build::Source(build),
};

const EXAMPLE: &str = r#"name = "kernel"

[sources.messages]
type = "exec"
command = ["uname", "-a"]
format = "lines"
every_ms = 60000
run_ms_max = 5000

[destinations.out]
type = "stdout"
from = "messages"
"#;

fn descriptor() -> Descriptor {
    let summary = "Reads the lines that a program of your own writes";
    // Only with a cursor can it read again, so that is not promised.
    describe::<Config>(ComponentRole::Source, "exec", summary, EXAMPLE)
}

fn build(config: &str, context: &BuildContext) -> Result<Box<dyn Source>, ConfigError> {
    let config: Config = parse_config(config)?;
    for (key, value) in [
        ("every_ms", config.every_ms),
        ("run_ms_max", config.run_ms_max),
        ("quiet_ms_max", config.quiet_ms_max),
    ] {
        if value == Some(0) {
            return Err(ConfigError::at(key, "is 0; leave it out, or give it time"));
        }
    }
    if config.cursor.as_deref() == Some("") {
        return Err(ConfigError::at("cursor", "name a column"));
    }
    let program = Program::new(config.command, config.env, config.dir, context)?;
    Ok(Box::new(ExecSource {
        feed: Feed::new(program.name(), config.format, config.csv, &config.types)?,
        program,
        every: config.every_ms.map(Duration::from_millis),
        run_max: config.run_ms_max.map(Duration::from_millis),
        quiet_max: config.quiet_ms_max.map(Duration::from_millis),
        cursor: config.cursor,
        restarts: Restarts::new(config.failures_max),
        after: None,
        run: None,
        next_run: None,
    }))
}

struct Run {
    child: Child,
    since: Instant,
    heard: Instant,
    /// Its output has ended: whether it ended well.
    outcome: Option<Result<(), String>>,
}

struct ExecSource {
    program: Program,
    feed: Feed,
    every: Option<Duration>,
    run_max: Option<Duration>,
    quiet_max: Option<Duration>,
    cursor: Option<String>,
    restarts: Restarts,
    /// Value of the cursor in the last record.
    after: Option<String>,
    run: Option<Run>,
    next_run: Option<Instant>,
}

impl ExecSource {
    fn start(&mut self) -> Result<(), Fault> {
        let after: Vec<_> = self
            .after
            .iter()
            .map(|after| (CURSOR_VARIABLE, after.as_str()))
            .collect();
        let child = self.program.start(false, &after)?;
        self.feed.restart();
        let now = Instant::now();
        self.next_run = None;
        self.run = Some(Run {
            child,
            since: now,
            heard: now,
            outcome: None,
        });
        Ok(())
    }

    fn failed(&self, cause: &str) -> Fault {
        Fault::retry(format!("the program '{}': {cause}", self.program.name()))
    }

    /// The next bytes of the program, or its end. `false`: nothing came in time.
    async fn hear(&mut self, give_up: Instant) -> Result<bool, Fault> {
        let quiet_max = self.quiet_max.unwrap_or(Duration::MAX);
        let run_max = self.run_max.unwrap_or(Duration::MAX);
        let Some(run) = &mut self.run else { return Ok(false) };
        let buffer = self.feed.buffer();
        buffer.reserve(READ_BYTES);
        let limits = [run.heard.checked_add(quiet_max), run.since.checked_add(run_max)];
        let limit = limits.into_iter().flatten().min();
        let until = limit.map_or(give_up, |limit| limit.min(give_up));
        let read = tokio::select! {
            biased;
            read = run.child.output.read_buf(buffer) => read,
            status = run.child.life.ended() => {
                let status = status?;
                // What it wrote last is still in the pipe; a descendant that left its group may hold that open.
                let rest = timeout(REST_WAIT, run.child.output.read_buf(buffer)).await.unwrap_or(Ok(0));
                if matches!(rest, Ok(0)) {
                    run.outcome = Some(if status.success() { Ok(()) } else { Err(explain(status)) });
                }
                rest
            }
            () = sleep_until(until) => {
                return if limit.is_some_and(|limit| limit <= Instant::now()) {
                    let cause = if Instant::now() - run.since >= run_max { "it ran too long" } else { "it was quiet too long" };
                    Err(self.failed(&format!("{cause}, and was killed")))
                } else {
                    Ok(false)
                };
            }
        };
        match read {
            Ok(0) if run.outcome.is_none() => {
                // It has closed its output, and has no reason to live on.
                let ended = timeout(REST_WAIT, run.child.life.ended()).await;
                run.outcome = Some(match ended {
                    Ok(status) => match status? {
                        status if status.success() => Ok(()),
                        status => Err(explain(status)),
                    },
                    Err(_) => Err("it closed its output and went on; it was killed".to_string()),
                });
            }
            Ok(0) => {}
            Ok(_) => {
                run.heard = Instant::now();
                return Ok(true);
            }
            Err(error) => return Err(self.failed(&error.to_string())),
        }
        self.feed.end();
        Ok(true)
    }

    /// The position after a batch: where the program would go on.
    fn position(&mut self, batch: &Batch) -> Result<Position, Fault> {
        if let Some(cursor) = &self.cursor {
            let column = batch.schema().index_of(cursor);
            let last = column.and_then(|column| {
                let mut cells = (0..batch.rows()).rev().map(|row| batch.cell(row, column));
                cells.find(|cell| cell.is_value())
            });
            if let Some(cell) = last {
                self.after = Some(cell.to_string());
            } else if batch.rows() > 0 {
                return Err(Fault::stop(format!(
                    "the records have no value in the column '{cursor}' (cursor)"
                )));
            }
        }
        let after = self.after.clone().unwrap_or_default();
        if after.len() > POSITION_BYTES_MAX || after.contains('\0') {
            return Err(Fault::stop(
                "the value of the cursor is too long, or has a zero byte in it",
            ));
        }
        Ok(Position::new(after))
    }
}

#[async_trait]
impl Source for ExecSource {
    async fn open(&mut self, after: Option<&Position>) -> Result<(), Fault> {
        self.run = None;
        let after = after.map(|position| String::from_utf8_lossy(position.as_bytes()).into_owned());
        self.after = after.filter(|after| !after.is_empty());
        self.start().map_err(|fault| self.restarts.after(fault))
    }

    async fn read(&mut self) -> Result<Read, Fault> {
        let read = self.next().await;
        if matches!(read, Ok(Read::Batch(_))) {
            self.restarts.worked();
        }
        read.map_err(|fault| self.restarts.after(fault))
    }

    async fn check(&mut self) -> Result<String, Trouble> {
        self.program.check()
    }

    async fn close(&mut self) {
        self.next_run = None;
        if let Some(run) = self.run.take() {
            run.child.stop().await;
        }
    }
}

impl ExecSource {
    async fn next(&mut self) -> Result<Read, Fault> {
        let give_up = Instant::now() + READ_WAIT_MAX;
        loop {
            if let Some((batch, undecodable)) = self.feed.batch()? {
                let position = self.position(&batch)?;
                return Ok(Read::Batch(SourceBatch {
                    batch,
                    position,
                    undecodable,
                }));
            }
            if let Some(next_run) = self.next_run {
                if timeout_at(give_up, sleep_until(next_run)).await.is_err() {
                    return Ok(Read::Idle);
                }
                self.start()?;
            }
            match self.run.as_mut().map(|run| run.outcome.take()) {
                None => return Err(self.failed("it does not run")),
                Some(None) if !self.hear(give_up).await? => return Ok(Read::Idle),
                Some(None) => {}
                Some(Some(outcome)) => {
                    self.run = None;
                    outcome.map_err(|cause| self.failed(&cause))?;
                    // Whether there was something or not.
                    self.restarts.worked();
                    let Some(every) = self.every else { return Ok(Read::End) };
                    self.next_run = Some(Instant::now() + every);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::file::testing::{Harvest, refused, source};

    fn exec(script: &str, more: &str, dir: &Path) -> Box<dyn Source> {
        let command = serde_json::to_string(&["sh", "-c", script]).unwrap();
        source(&SOURCE, &format!(r#"{{"command": {command}{more}}}"#), dir)
    }

    /// Whether a process with this number is alive, and not only waiting to be reaped.
    fn is_alive(pid: &str) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        stat.rsplit(')')
            .next()
            .is_some_and(|rest| !rest.trim().is_empty() && !rest.trim().starts_with('Z'))
    }

    #[tokio::test]
    async fn lines_become_records_until_the_program_ends() {
        let dir = testkit::temp_dir("exec");
        let script =
            r#"echo "{\"a\": 1}"; echo no; echo "{\"a\": \"$MYCELIAL_CURSOR\"}" ; echo said >&2; printf '{"a": 3}'"#;
        let mut source = exec(script, "", dir.path());
        source.open(None).await.unwrap();
        let harvest = Harvest::of(&mut *source).await;
        assert!(harvest.ended);
        assert_eq!(harvest.rows(), "1\n\n3");
        assert!(
            harvest.reasons().starts_with("sh, line 2: not JSON"),
            "{}",
            harvest.reasons()
        );
    }

    #[tokio::test]
    async fn a_program_goes_on_after_the_last_record() {
        let dir = testkit::temp_dir("exec");
        let script = "i=${MYCELIAL_CURSOR:-0}; for n in 1 2 3; do i=$((i+1)); echo $i; done; exit 3";
        let more = r#", "format": "csv", "csv": {"header": false, "columns": ["n"]}, "cursor": "n""#;
        let mut source = exec(script, more, dir.path());
        source.open(None).await.unwrap();
        let (mut rows, mut position) = (Vec::new(), None);
        while rows.len() < 9 {
            match source.read().await {
                Ok(Read::Batch(read)) => {
                    rows.extend((0..read.batch.rows()).map(|row| read.batch.cell(row, 0).to_string()));
                    position = Some(read.position);
                }
                Ok(_) => {}
                Err(Fault::Retry { cause, .. }) => {
                    assert_eq!(cause, "the program 'sh': it ended with code 3");
                    source.close().await;
                    source.open(position.as_ref()).await.unwrap();
                }
                Err(fault) => panic!("{fault}"),
            }
        }
        assert_eq!(rows.join(" "), "1 2 3 4 5 6 7 8 9");
    }

    #[tokio::test]
    async fn it_is_run_again_and_again() {
        let dir = testkit::temp_dir("exec");
        let mut source = exec("echo x", r#", "format": "lines", "every_ms": 1"#, dir.path());
        source.open(None).await.unwrap();
        for _ in 0..3 {
            let Read::Batch(read) = source.read().await.unwrap() else {
                panic!()
            };
            assert_eq!(read.batch.rows(), 1);
        }
    }

    #[tokio::test]
    async fn no_descendant_survives() {
        let dir = testkit::temp_dir("exec");
        // A descendant that ignores a polite request and holds the output open.
        let start = "sh -c 'trap \"\" TERM; echo $$ > pid; while :; do sleep 0.05; done' & while ! [ -s pid ]; do sleep 0.01; done; echo x;";
        for (rest, more, cause) in [
            ("wait", "", ""),
            ("exit 0", "", "end"),
            ("exit 7", "", "it ended with code 7"),
            ("wait", r#", "quiet_ms_max": 2000"#, "it was quiet too long"),
            (
                "while :; do echo x; sleep 0.01; done",
                r#", "run_ms_max": 2000"#,
                "it ran too long",
            ),
        ] {
            let _ = fs::remove_file(dir.path().join("pid"));
            let mut source = exec(
                &format!("{start} {rest}"),
                &format!(r#", "format": "lines"{more}"#),
                dir.path(),
            );
            source.open(None).await.unwrap();
            while !matches!(source.read().await, Ok(Read::Batch(_))) {}
            let pid = fs::read_to_string(dir.path().join("pid")).unwrap();
            assert!(is_alive(&pid) || cause == "end" || cause.contains("code"), "{rest}");
            while !cause.is_empty() {
                match source.read().await {
                    Ok(Read::End) => {
                        assert_eq!(cause, "end");
                        break;
                    }
                    Ok(_) => {}
                    Err(fault) => {
                        assert!(fault.to_string().contains(cause), "{fault}");
                        break;
                    }
                }
            }
            if rest == "wait" && cause.is_empty() {
                // Dropped in the middle, as the runner may do.
                drop(source);
            } else {
                source.close().await;
            }
            testkit::wait_until("the descendant to end", Duration::from_secs(20), || {
                (!is_alive(&pid)).then_some(())
            });
        }
    }

    #[tokio::test]
    async fn mistakes_are_named() {
        for (config, wanted) in [
            (r#"{"command": []}"#, "command: name the program"),
            (r#"{"command": ["x"], "every_ms": 0}"#, "every_ms: is 0"),
            (
                r#"{"command": ["x"], "env": {"A=B": "1"}}"#,
                "env.A=B: is no environment variable",
            ),
            (r#"{"command": ["x"], "csv": {}}"#, "csv: only for format"),
            (r#"{"command": ["x"], "cursor": ""}"#, "cursor: name a column"),
        ] {
            refused(&SOURCE, config, wanted);
        }
        let mut none = source(&SOURCE, r#"{"command": ["/no/such/program"]}"#, Path::new("/"));
        let fault = none.open(None).await.unwrap_err();
        assert!(fault.to_string().contains("cannot start '/no/such/program'"), "{fault}");
        let dir = testkit::temp_dir("exec");
        let mut blind = exec("echo x", r#", "format": "lines", "cursor": "n""#, dir.path());
        blind.open(None).await.unwrap();
        assert!(matches!(blind.read().await, Err(Fault::Stop { .. })));
    }
}
