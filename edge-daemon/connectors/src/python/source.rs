//! Source `python`: the records a function of the user's own yields.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use async_trait::async_trait;
use bus_schema::{
    data::Op,
    limits::{BATCH_BYTES_TARGET, POSITION_BYTES_MAX, ROWS_MAX},
    plan::{ComponentRole, Descriptor},
};
use flow::{
    Build, BuildContext, Component, ConfigError, Fault, Position, READ_WAIT_MAX, Read, Source, SourceBatch, Trouble,
    Undecodable, describe, parse_config,
};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{
    cells::taken,
    script::{Answer, CODE_BYTES_MAX, LINE_BYTES_MAX, Script, Settings, half_a_minute, memory_usual},
};
use crate::{
    exec::{columns::Columns, restarts::Restarts, suspect::failures_usual, talk::Talk},
    file::{
        json::object,
        rows::{self, Rows, Token},
    },
    secret::SecretRef,
};

/// Takes the records that a Python function yields: `def read(cursor)`. It yields dicts, or pairs of a dict and where to go
/// on after it: any value JSON can hold, such as the record's number. When reading has to begin again, `read` is called
/// with the one of the last record that arrived; the first time with `None`. Give one with every record, or the records that
/// were on their way when the daemon or the code ended are lost.
///
/// `mycelial.Record(columns, op="delete")` instead of a dict says that a record updates, upserts or deletes. What values
/// become is as in the transform `python`; a value that no column can hold makes its record a dead letter. Columns have
/// the types of their values, batch by batch: declare in `types` what must not change.
///
/// When the function has come to its end, so has the source, or it is called again after `every_ms`. Raises it an exception,
/// or is it quiet for longer than `quiet_ms_max`, its process is killed and started again, later and later. It runs
/// in a process of `python3` with its standard library, which must be there, and has no more memory than `memory_mib`. What
/// it prints goes to the log (60 lines a minute). A daemon of a fleet
/// must allow it under `[custom_code]` in its `config.toml`: `allow = true`, or the SHA-256 of just this code, `sha256 = ["…"]`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The code itself, which travels with the workflow and is signed with it; at most 256 KiB.
    #[schemars(length(max = CODE_BYTES_MAX))]
    code: Option<String>,
    /// A file with the code on the daemon instead; a relative path starts in the daemon's directory. It is read when the
    /// process starts.
    file: Option<PathBuf>,
    /// The SHA-256 of the code, in hex, as `sha256sum` prints it: other code is not run. The CLI fills it in with `code_from`.
    #[schemars(length(equal = 64))]
    sha256: Option<String>,
    /// Environment variables, each a text or a secret from elsewhere. Of the daemon's own the process has PATH, HOME, USER, LOGNAME,
    /// LANG, LC_*, TZ and TMPDIR.
    #[serde(default)]
    env: BTreeMap<String, SecretRef>,
    /// Column = type, as in the source `file`.
    #[serde(default)]
    types: BTreeMap<String, String>,
    /// Most memory of the process, in MiB.
    #[serde(default = "memory_usual")]
    memory_mib: u64,
    /// Calls `read` again this many milliseconds after it has come to its end.
    every_ms: Option<u64>,
    /// Longest time without any record, in milliseconds; then the code counts as failed.
    quiet_ms_max: Option<u64>,
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

const EXAMPLE: &str = r#"name = "own-source"

[sources.numbers]
type = "python"
every_ms = 60000
code = '''
import os

def read(cursor):
    number = 0 if cursor is None else cursor
    for _ in range(3):
        number += 1
        yield {"number": number, "load": os.getloadavg()[0]}, number
'''

[destinations.out]
type = "stdout"
from = "numbers"
"#;

fn descriptor() -> Descriptor {
    let summary = "Takes the records that a Python function of your own yields";
    // Only with cursors can it read again, so that is not promised.
    describe::<Config>(ComponentRole::Source, "python", summary, EXAMPLE)
}

fn build(config: &str, context: &BuildContext) -> Result<Box<dyn Source>, ConfigError> {
    let config: Config = parse_config(config)?;
    for (key, value) in [("every_ms", config.every_ms), ("quiet_ms_max", config.quiet_ms_max)] {
        if value == Some(0) {
            return Err(ConfigError::at(key, "is 0; leave it out, or give it time"));
        }
    }
    let settings = Settings {
        code: config.code,
        file: config.file,
        sha256: config.sha256,
        env: config.env,
        memory_mib: config.memory_mib,
        answer_ms_max: half_a_minute(),
        types: config.types,
    };
    let script = Script::new(settings, "read", context)?;
    Ok(Box::new(PythonSource {
        columns: Columns::new(script.types.clone(), taken),
        name: context.node.clone(),
        script,
        every: config.every_ms.map(Duration::from_millis),
        quiet_max: config.quiet_ms_max.map(Duration::from_millis),
        restarts: Restarts::new(config.failures_max),
        cursor: None,
        talk: None,
        heard: Instant::now(),
        end: None,
        next_run: None,
    }))
}

struct PythonSource {
    script: Script,
    columns: Columns,
    /// What the batches are called.
    name: String,
    every: Option<Duration>,
    quiet_max: Option<Duration>,
    restarts: Restarts,
    /// Where to go on: JSON.
    cursor: Option<String>,
    talk: Option<Talk>,
    /// When something came last.
    heard: Instant,
    /// What the process said last, when it was about no record and has not been seen to.
    end: Option<String>,
    /// When the function is to be called again, which has come to its end.
    next_run: Option<Instant>,
}

/// Lines on their way into a batch.
#[derive(Default)]
struct Lines {
    texts: Vec<String>,
    bytes: usize,
}

impl Lines {
    fn take(&mut self, line: &[u8]) {
        self.bytes += line.len();
        self.texts.push(String::from_utf8_lossy(line).into_owned());
    }

    fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES_TARGET || self.texts.len() >= ROWS_MAX
    }

    /// The last of them is not about a record.
    fn has_ended(&self) -> bool {
        self.texts.last().is_some_and(|line| !line.starts_with(['{', '?']))
    }
}

/// What stands in the line of a record.
#[derive(Default)]
struct Parts<'a> {
    record: Option<&'a str>,
    op: Option<Op>,
    cursor: Option<String>,
}

impl<'a> Parts<'a> {
    fn of(line: &'a str) -> Result<Self, String> {
        let mut parts = Self::default();
        let mut wrong_op = None;
        let read = object(line, |name, token| {
            match (name, token) {
                ("record", Token::Nested(record)) => parts.record = Some(record),
                ("cursor", token) => parts.cursor = Some(json_of(&token)),
                ("op", Token::Text(name)) => {
                    parts.op = op_named(&name);
                    wrong_op = parts.op.is_none().then(|| name.to_string());
                }
                _ => {}
            }
            Ok(())
        });
        read.map_err(|error| error.to_string())?;
        match wrong_op {
            Some(name) => Err(format!(
                "the record's op is '{name}', and not insert, update, delete or upsert"
            )),
            None => Ok(parts),
        }
    }
}

fn op_named(name: &str) -> Option<Op> {
    Some(match name {
        "insert" => Op::Insert,
        "update" => Op::Update,
        "delete" => Op::Delete,
        "upsert" => Op::Upsert,
        _ => return None,
    })
}

/// A token as the JSON it was.
fn json_of(token: &Token<'_>) -> String {
    match token {
        Token::Bool(v) => v.to_string(),
        Token::Integer(text) | Token::Float(text) | Token::Nested(text) => (*text).to_string(),
        Token::Text(text) => serde_json::to_string(text).unwrap_or_default(),
        Token::Null | Token::Value(_) => "null".to_string(),
    }
}

impl PythonSource {
    /// Has the function called. Its process is there.
    async fn call(&mut self) -> Result<(), Fault> {
        self.next_run = None;
        self.heard = Instant::now();
        let cursor = self.cursor.as_deref().unwrap_or("null");
        let line = format!("{{\"cursor\":{cursor}}}\n");
        let Some(talk) = &mut self.talk else {
            return Err(self.script.failed("it does not run"));
        };
        let said = talk.say(line.as_bytes()).await;
        said.map_err(|cause| self.script.failed(&cause))
    }

    /// What has come, at most a batch of it. Empty: nothing in time.
    async fn lines(&mut self, give_up: Instant) -> Result<Lines, Fault> {
        let mut lines = Lines::default();
        let Some(talk) = &mut self.talk else {
            return Err(self.script.failed("it does not run"));
        };
        let limit = self.quiet_max.and_then(|quiet_max| self.heard.checked_add(quiet_max));
        let until = limit.map_or(give_up, |limit| limit.min(give_up));
        let cause = match timeout_at(until, talk.hear(LINE_BYTES_MAX)).await {
            Ok(Ok(line)) => {
                lines.take(line);
                while !lines.is_full() && !lines.has_ended() {
                    let Some(line) = talk.heard() else { break };
                    lines.take(line);
                }
                self.heard = Instant::now();
                return Ok(lines);
            }
            Ok(Err(cause)) => talk.ending(cause).await,
            Err(_) if limit.is_some_and(|limit| limit <= Instant::now()) => {
                "it was quiet too long, and was killed".into()
            }
            Err(_) => return Ok(lines),
        };
        Err(self.script.failed(&cause))
    }

    /// The records of these lines. What ends them is not looked at.
    fn batch(&mut self, lines: &[String]) -> Result<SourceBatch, Fault> {
        let (mut rows, mut ops, mut undecodable) = (Rows::new(), Vec::new(), Vec::new());
        for line in lines {
            let pushed = match Answer::of(line.as_bytes()).map_err(|cause| self.script.failed(&cause))? {
                Answer::Rejected(json) => {
                    let [reason, shown] = serde_json::from_str(json).unwrap_or([json.to_string(), String::new()]);
                    Err((reason, shown))
                }
                Answer::Object(line) => match Parts::of(line) {
                    Ok(parts) => {
                        let record = parts.record.unwrap_or("{}");
                        self.cursor = parts.cursor.or(self.cursor.take());
                        let pushed = self.columns.push(&mut rows, record, &[]);
                        ops.extend(pushed.is_ok().then_some(parts.op.unwrap_or(Op::Insert)));
                        pushed.map_err(|reason| (reason, record.to_string()))
                    }
                    Err(reason) => Err((reason, line.to_string())),
                },
                _ => continue,
            };
            if let Err((reason, shown)) = pushed {
                undecodable.push(Undecodable {
                    bytes: crate::file::reader::cut(shown.as_bytes()),
                    reason: format!("{}: {reason}", self.name),
                });
            }
        }
        let cursor = self.cursor.clone().unwrap_or_default();
        if cursor.len() > POSITION_BYTES_MAX {
            let message = format!("the cursor of a record has more than {POSITION_BYTES_MAX} bytes");
            return Err(Fault::stop(message));
        }
        let batch = match rows.len() {
            0 => Ok(rows::empty(&self.name)),
            _ => self.columns.batch(rows, &ops, &self.name),
        };
        Ok(SourceBatch {
            batch: batch.map_err(|cause| self.script.failed(&cause))?,
            position: Position::new(cursor),
            undecodable,
        })
    }

    /// What the last line says when it is about no record.
    fn ended(&mut self, line: &str) -> Result<(), Fault> {
        match Answer::of(line.as_bytes()) {
            Ok(Answer::Done(_)) => {
                // Whether there was something or not.
                self.restarts.worked();
                self.next_run = Some(Instant::now() + self.every.unwrap_or_default());
                Ok(())
            }
            Ok(Answer::Fault(cause)) | Err(cause) => Err(self.script.failed(&cause)),
            Ok(_) => Err(self.script.failed("its answer is none")),
        }
    }
}

#[async_trait]
impl Source for PythonSource {
    async fn open(&mut self, after: Option<&Position>) -> Result<(), Fault> {
        let begun = self.begin(after).await;
        begun.map_err(|fault| self.restarts.after(fault))
    }

    async fn read(&mut self) -> Result<Read, Fault> {
        let read = self.next().await;
        if matches!(read, Ok(Read::Batch(_))) {
            self.restarts.worked();
        }
        read.map_err(|fault| self.restarts.after(fault))
    }

    async fn check(&mut self) -> Result<String, Trouble> {
        self.script.check().await
    }

    async fn close(&mut self) {
        self.next_run = None;
        if let Some(talk) = self.talk.take() {
            talk.stop().await;
        }
    }
}

impl PythonSource {
    async fn begin(&mut self, after: Option<&Position>) -> Result<(), Fault> {
        (self.talk, self.end) = (None, None);
        let after = after.map(|position| String::from_utf8_lossy(position.as_bytes()).into_owned());
        self.cursor = after.filter(|after| !after.is_empty());
        self.talk = Some(self.script.start().await?);
        self.call().await
    }

    async fn next(&mut self) -> Result<Read, Fault> {
        let give_up = Instant::now() + READ_WAIT_MAX;
        if let Some(end) = self.end.take() {
            self.ended(&end)?;
        }
        if let Some(next_run) = self.next_run {
            if self.every.is_none() {
                return Ok(Read::End);
            }
            if timeout_at(give_up, sleep_until(next_run)).await.is_err() {
                return Ok(Read::Idle);
            }
            self.call().await?;
        }
        let mut lines = self.lines(give_up).await?;
        if lines.has_ended() {
            self.end = lines.texts.pop();
        }
        if lines.texts.is_empty() {
            return Ok(Read::Idle);
        }
        self.batch(&lines.texts).map(Read::Batch)
    }
}
