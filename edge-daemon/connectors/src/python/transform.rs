//! Transform `python`: a function of the user's own, called for each record.

use std::{collections::BTreeMap, path::PathBuf};

use async_trait::async_trait;
use bus_schema::{
    data::Batch,
    limits::RECORD_BYTES_MAX,
    plan::{ComponentRole, Descriptor},
};
use flow::{
    Build, BuildContext, Component, ConfigError, Fault, Outside, Transform, Transformed, Trouble, describe,
    parse_config,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    cells::{push_row, taken},
    script::{Answer, CODE_BYTES_MAX, Script, Settings, half_a_minute, memory_usual, said},
};
use crate::{
    exec::{
        columns::Columns,
        suspect::{Answers, Failure, answered, failures_usual},
        talk::Talk,
    },
    file::rows::Rows,
    secret::SecretRef,
};

/// Records given to the process at once take about this many bytes, unless one alone takes more.
const ASKED_BYTES: usize = 64 * 1024;

/// Calls a Python function for each record: `def transform(record)`. A record is a dict of its columns; what the function
/// returns goes on in its place, and nothing does when it returns `None`. Raises it an exception, the record goes to the dead
/// letters with the exception and the line. It must give the same for the same record, which may come again after a crash.
///
/// Integers, floats, texts, bytes and `None` are Python's own; a decimal is a `decimal.Decimal`, a date, time or timestamp one
/// of `datetime` (of a timestamp's nanoseconds Python counts the microseconds; those below stay while the value is passed on
/// as it is, and are in its `nanosecond`), a UUID a `uuid.UUID`, JSON what `json.loads` makes of it, written as it was while it
/// is not changed. A column that a record does not have is not in the dict. What the record does at the destination is in
/// `record.op` and stays as it is.
///
/// A column keeps its type, and a value that does not fit it exactly is a dead letter; `types` gives a column another type. A
/// new column has the type of its values: declare what must not change with them. A column that no record of a batch has any
/// more is left out.
///
/// The code runs in a process of `python3` with its standard library, which must be there. It has no more memory than
/// `memory_mib`, and when it takes longer than `answer_ms_max` for an answer, or ends, it is killed and started again, and the
/// records come again; one at which that happens every time is a dead letter (`failures_max`). What it prints goes to the log
/// (60 lines a minute). A daemon of a fleet
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
    /// Column = type, for new columns and for those that change theirs, as in the source `file`.
    #[serde(default)]
    types: BTreeMap<String, String>,
    /// Most memory of the process, in MiB.
    #[serde(default = "memory_usual")]
    memory_mib: u64,
    /// How long the code may go without an answer, in milliseconds. While it is quick, answers come in bundles.
    #[serde(default = "half_a_minute")]
    answer_ms_max: u64,
    /// How often the process may end, or run out of its time or memory, with the same batch before its records are given to
    /// it one by one. The record at which it does so again, twice, goes to the dead letters with what the process said last.
    /// 0: never, the batch comes again for ever. A process that cannot be started blames no record.
    #[serde(default = "failures_usual")]
    failures_max: u32,
}

/// The registry line.
pub(crate) const TRANSFORM: Component = Component {
    descriptor,
    build: Build::Transform(build),
};

const EXAMPLE: &str = r#"name = "own-code"

[sources.readings]
type = "file"
path = "readings.jsonl"
format = "json_lines"

[transforms.grade]
type = "python"
from = "readings"
types = { grade = "text" }
code = '''
def transform(record):
    celsius = record.get("temperature")
    if celsius is None:
        return None  # leaves the record out
    if celsius < -273.15:
        raise ValueError("colder than cold")  # a dead letter
    record["grade"] = "hot" if celsius > 30 else "fine"
    return record
'''

[destinations.out]
type = "stdout"
from = "grade"
"#;

fn descriptor() -> Descriptor {
    let summary = "Calls a Python function of your own for each record";
    describe::<Config>(ComponentRole::Transform, "python", summary, EXAMPLE)
}

fn build(config: &str, context: &BuildContext) -> Result<Box<dyn Transform>, ConfigError> {
    let config: Config = parse_config(config)?;
    let settings = Settings {
        code: config.code,
        file: config.file,
        sha256: config.sha256,
        env: config.env,
        memory_mib: config.memory_mib,
        answer_ms_max: config.answer_ms_max,
        types: config.types,
    };
    let script = Script::new(settings, "transform", context)?;
    Ok(Box::new(Python {
        columns: Columns::new(script.types.clone(), taken),
        script,
        failures_max: config.failures_max,
        talk: None,
    }))
}

struct Python {
    script: Script,
    columns: Columns,
    failures_max: u32,
    /// The process, while nothing is asked of it.
    talk: Option<Talk>,
}

/// What comes before rows.
#[derive(Serialize)]
struct Heading<'a> {
    collection: &'a str,
    columns: Vec<&'a str>,
    json: Vec<&'a str>,
    rows: usize,
}

impl Transform for Python {
    fn apply(&mut self, _: Batch) -> Result<Transformed, Fault> {
        Err(Fault::stop("Python code is waited for, and nobody waits here"))
    }

    fn outside(&mut self) -> Option<&mut dyn Outside> {
        Some(self)
    }
}

#[async_trait]
impl Outside for Python {
    async fn apply(&mut self, batch: Batch) -> Result<Transformed, Fault> {
        self.columns.follow(batch.schema());
        // Together not much more than the largest record: what is above it has to be refused.
        let max = self.failures_max;
        let answers = answered(self, &batch, RECORD_BYTES_MAX, max).await?;
        self.understand(&batch, &answers)
    }

    async fn check(&mut self) -> Result<String, Trouble> {
        self.script.check().await
    }
}

#[async_trait]
impl Answers for Python {
    type Row = String;

    /// What the process says of each row. Dropped in the middle, the process is gone as well.
    async fn answers(&mut self, batch: &Batch, bytes_left: &mut usize) -> Result<Vec<String>, Failure> {
        if batch.rows() == 0 {
            return Ok(Vec::new());
        }
        let mut talk = match self.talk.take() {
            Some(talk) => talk,
            None => self.script.start().await.map_err(Failure::Blameless)?,
        };
        let mut answers = Vec::with_capacity(batch.rows());
        let (mut text, mut next) = (Vec::new(), 0);
        while next < batch.rows() {
            let mut rows = Vec::new();
            let first = next;
            while next < batch.rows() && rows.len() < ASKED_BYTES {
                push_row(&mut rows, batch, next);
                next += 1;
            }
            let heading = Heading {
                collection: &batch.schema().collection,
                columns: batch.schema().fields.iter().map(|field| field.name.as_str()).collect(),
                json: self.columns.json().collect(),
                rows: next - first,
            };
            text.clear();
            text.extend(serde_json::to_vec(&heading).unwrap_or_default());
            text.push(b'\n');
            text.append(&mut rows);
            let mut hear = |line: &[u8]| {
                if let Answer::Fault(cause) = Answer::of(line)? {
                    return Err(cause);
                }
                let fits = line.len() <= *bytes_left || line.first() != Some(&b'{');
                answers.push(if fits {
                    *bytes_left = bytes_left.saturating_sub(line.len());
                    String::from_utf8_lossy(line).into_owned()
                } else {
                    "?\"the records of this batch have become too large together\"".to_string()
                });
                Ok(())
            };
            let asked = talk.ask(&text, next - first, self.script.patience, &mut hear).await;
            asked.map_err(|cause| Failure::Work(self.script.failed(&cause)))?;
        }
        self.talk = Some(talk);
        Ok(answers)
    }

    /// It has then loaded the code.
    async fn starts(&mut self) -> Result<(), Fault> {
        self.talk = Some(self.script.start().await?);
        Ok(())
    }

    fn rejected(reason: String) -> String {
        format!("?{}", serde_json::Value::String(reason))
    }
}

impl Python {
    fn understand(&mut self, batch: &Batch, answers: &[String]) -> Result<Transformed, Fault> {
        let (mut rows, mut kept, mut rejected) = (Rows::new(), Vec::new(), Vec::new());
        for (row, line) in answers.iter().enumerate() {
            let answer = Answer::of(line.as_bytes()).map_err(|cause| self.script.failed(&cause))?;
            match answer {
                Answer::Object(record) => match self.columns.push(&mut rows, record, &[]) {
                    Ok(()) => kept.push(row),
                    Err(reason) => rejected.push((row, reason)),
                },
                Answer::LeftOut => {}
                Answer::Rejected(reason) => rejected.push((row, said(reason))),
                _ => return Err(self.script.failed("its answer is none to a record")),
            }
        }
        let batch = self.columns.changed(rows, batch, &kept);
        let batch = batch.map_err(|cause| self.script.failed(&cause))?;
        Ok(Transformed { batch, rejected })
    }
}
