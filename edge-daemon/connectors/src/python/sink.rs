//! Destination `python`: a function of the user's own, called for each batch.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
};

use async_trait::async_trait;
use bus_schema::{
    id::StreamId,
    plan::{ComponentRole, Descriptor},
};
use flow::{
    Build, BuildContext, Component, ConfigError, Delivery, Fault, Rejected, Sink, Trouble, Watermark, describe,
    parse_config,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    cells::push_row,
    script::{Answer, CODE_BYTES_MAX, Script, Settings, half_a_minute, memory_usual},
};
use crate::{
    exec::{
        search::{Search, Takes},
        suspect::{Failure, failures_usual},
        talk::Talk,
    },
    key,
    secret::SecretRef,
};

/// Gives records to a Python function: `def write(records)`. They are dicts of their columns, as in the transform `python`;
/// `record.op` says what each does: insert, update, delete or upsert. When the function returns, its records must be safe.
/// It may return a dict of those it refuses, with the reason: `{0: "too hot"}` (counted from 0); they go to the dead
/// letters. Raises it an exception, or takes longer than `answer_ms_max`, or ends, its process is killed and started again,
/// and the batch comes again, later and later.
///
/// At least once: a batch that was not answered comes again. `def write(records, key)` gets a text as well, which is the
/// same when the same batch comes again: code that stores the keys of the last 16 batches with the records can leave out
/// what it has already. A batch that its process dies of again and again (`failures_max`) comes in parts, which have keys of
/// their own.
///
/// The code runs in a process of `python3` with its standard library, which must be there, and has no more memory than
/// `memory_mib`. What it prints goes to the log (60 lines a minute). A daemon of a fleet
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
    /// Most memory of the process, in MiB.
    #[serde(default = "memory_usual")]
    memory_mib: u64,
    /// How long the code may take for a batch, in milliseconds.
    #[serde(default = "half_a_minute")]
    answer_ms_max: u64,
    /// How often the process may end, or run out of its time or memory, with the same batch before its records are given to it in
    /// ever smaller parts. The record at which it does so alone, as often again, goes to the dead letters, but only when other
    /// records go through before and after it: a destination that is broken or whose server is away rejects nothing, and the
    /// batch comes again until it works. If what it had stored before it ended must not come again in parts, give 0: then
    /// the batch comes again as it is, for ever.
    #[serde(default = "failures_usual")]
    failures_max: u32,
}

/// The registry line.
pub(crate) const SINK: Component = Component {
    descriptor,
    build: Build::Sink(build),
};

const EXAMPLE: &str = r#"name = "own-destination"

[sources.readings]
type = "file"
path = "readings.jsonl"
format = "json_lines"

[destinations.mine]
type = "python"
from = "readings"
code = '''
import json, os

def write(records):
    with open("/var/tmp/mine.jsonl", "a") as out:
        for record in records:
            out.write(json.dumps(record, default=str) + "\n")
        out.flush()
        os.fsync(out.fileno())
'''
"#;

fn descriptor() -> Descriptor {
    let summary = "Gives records to a Python function of your own";
    describe::<Config>(ComponentRole::Destination, "python", summary, EXAMPLE)
}

fn build(config: &str, context: &BuildContext) -> Result<Box<dyn Sink>, ConfigError> {
    let config: Config = parse_config(config)?;
    let settings = Settings {
        code: config.code,
        file: config.file,
        sha256: config.sha256,
        env: config.env,
        memory_mib: config.memory_mib,
        answer_ms_max: config.answer_ms_max,
        types: BTreeMap::new(),
    };
    Ok(Box::new(PythonSink {
        process: Process {
            script: Script::new(settings, "write", context)?,
            talk: None,
        },
        search: Search::new(config.failures_max),
    }))
}

struct PythonSink {
    process: Process,
    search: Search,
}

struct Process {
    script: Script,
    /// The process, while nothing is asked of it.
    talk: Option<Talk>,
}

/// What comes before rows.
#[derive(Serialize)]
struct Heading<'a> {
    key: &'a str,
    collection: &'a str,
    columns: Vec<&'a str>,
    rows: usize,
}

impl Process {
    /// Has one delivery written, and says which rows were refused.
    async fn deliver(&self, talk: &mut Talk, delivery: &Delivery, index: usize) -> Result<Vec<Rejected>, Failure> {
        let batch = &delivery.batch;
        let mut rows = Vec::new();
        (0..batch.rows()).for_each(|row| push_row(&mut rows, batch, row));
        let heading = Heading {
            key: &key::of(delivery, &rows),
            collection: &batch.schema().collection,
            columns: batch.schema().fields.iter().map(|field| field.name.as_str()).collect(),
            rows: batch.rows(),
        };
        let mut text = serde_json::to_vec(&heading).unwrap_or_default();
        text.push(b'\n');
        text.append(&mut rows);
        let mut refused = HashMap::<usize, String>::new();
        let mut hear = |line: &[u8]| match Answer::of(line)? {
            Answer::Object(json) => {
                refused =
                    serde_json::from_str(json).map_err(|error| format!("what it refuses makes no sense: {error}"))?;
                Ok(())
            }
            Answer::Fault(cause) => Err(cause),
            _ => Err("its answer is none".to_string()),
        };
        let asked = talk.ask(&text, 1, self.script.patience, &mut hear).await;
        asked.map_err(|cause| Failure::Work(self.script.failed(&cause)))?;
        let mut rejected: Vec<_> = refused
            .into_iter()
            .filter(|(row, _)| *row < batch.rows())
            .map(|(row, reason)| Rejected {
                delivery: index,
                row,
                reason,
            })
            .collect();
        rejected.sort_by_key(|rejected| rejected.row);
        Ok(rejected)
    }
}

#[async_trait]
impl Takes for Process {
    async fn take(&mut self, deliveries: &[Delivery]) -> Result<Vec<Rejected>, Failure> {
        let mut rejected = Vec::new();
        // Not put back after a failure, nor when this is dropped in the middle: what it says next would answer something else.
        let mut talk = match self.talk.take() {
            Some(talk) => talk,
            None => self.script.start().await.map_err(Failure::Blameless)?,
        };
        for (index, delivery) in deliveries.iter().enumerate() {
            if delivery.batch.rows() > 0 {
                rejected.extend(self.deliver(&mut talk, delivery, index).await?);
            }
        }
        self.talk = Some(talk);
        Ok(rejected)
    }
}

#[async_trait]
impl Sink for PythonSink {
    async fn open(&mut self) -> Result<(), Fault> {
        self.process.talk = None;
        self.process.talk = Some(self.process.script.start().await?);
        Ok(())
    }

    async fn write(&mut self, deliveries: &[Delivery]) -> Result<Vec<Rejected>, Fault> {
        self.search.write(&mut self.process, deliveries).await
    }

    fn wants_company(&self, stream: &StreamId) -> bool {
        self.search.wants_company(stream)
    }

    fn begin(&mut self, stream: &StreamId, _: &Watermark) {
        self.search.forget(stream);
    }

    /// Nothing is left to do: the function has returned, so the records are safe.
    async fn commit(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    async fn check(&mut self) -> Result<String, Trouble> {
        self.process.script.check().await
    }

    async fn close(&mut self) {
        if let Some(talk) = self.process.talk.take() {
            talk.stop().await;
        }
    }
}
