//! Destination `exec`: gives records to a program of the user's own, which answers for each batch.
//!
//! The protocol: for each batch the program reads a line `{"batch": "KEY", "records": N}` and then N lines, one JSON object
//! each. When it has made them durable, it writes one line: `{"batch": "KEY"}`. It may refuse records, which then go to the
//! dead letters: `{"batch": "KEY", "rejected": [{"record": 0, "reason": "…"}]}` (counted from 0); or ask for the batch
//! again, later: `{"batch": "KEY", "retry": "…"}`. Batches are answered in the order they came. The same batch has the
//! same key when it comes again: a program that remembers the last key can leave out what it has already. One that the program
//! dies of again and again comes in parts (see `search`), which have keys of their own.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

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
    child::Program,
    search::{Search, Takes},
    suspect::{Failure, failures_usual},
    talk::{Patience, Talk},
};
use crate::{
    file::{encode::JsonRows, text::shorten},
    key,
    secret::SecretRef,
};

/// Longest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Starts a program and writes records to its standard input, one JSON object per line, with a line before each batch:
/// `{"batch": "KEY", "records": N}`. When the N records are safe, the program writes `{"batch": "KEY"}` on its standard
/// output, in one line, and flushes it. `{"batch": "KEY", "rejected": [{"record": 0, "reason": "too hot"}]}` sends records
/// to the dead letters (counted from 0) and takes the others; `{"batch": "KEY", "retry": "disk full"}` asks for the whole
/// batch later. Batches are answered in their order. What the program writes on its standard error goes to the log (60
/// lines a minute). When it ends, or takes longer than `answer_ms_max`, it is killed with everything it has started, and
/// started again, later and later.
///
/// A daemon of a fleet must allow it: `allow = true` under `[custom_code]` in its `config.toml`.
///
/// At least once: a batch without an answer comes again, with the same key. A program that remembers the keys of its last
/// commit (up to 16 batches) with the records can leave out what it has already. A batch that it dies of again and again
/// (`failures_max`) comes in parts, which have keys of their own.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The program and its arguments. No shell is in between.
    command: Vec<String>,
    /// Environment variables, each a text or a secret from elsewhere. Of the daemon's own the process has PATH, HOME, USER, LOGNAME,
    /// LANG, LC_*, TZ and TMPDIR.
    #[serde(default)]
    env: BTreeMap<String, SecretRef>,
    /// Where it runs. By default, and where a relative path starts, the daemon's directory.
    dir: Option<PathBuf>,
    /// How long the program may take to answer, in milliseconds.
    #[serde(default = "half_a_minute")]
    answer_ms_max: u64,
    /// Adds a field of this name that says what each record does: insert, update, delete or upsert. Without it, deletions
    /// go to the dead letters.
    op_column: Option<String>,
    /// How often the process may end, or run out of its time, with the same batch before its records are given to it in
    /// ever smaller parts. The record at which it does so alone, as often again, goes to the dead letters, but only when other
    /// records go through before and after it: a destination that is broken or whose server is away rejects nothing, and the
    /// batch comes again until it works. If what it had stored before it ended must not come again in parts, give 0: then
    /// the batch comes again as it is, for ever.
    #[serde(default = "failures_usual")]
    failures_max: u32,
}

fn half_a_minute() -> u64 {
    30_000
}

/// The registry line.
pub(crate) const SINK: Component = Component {
    descriptor,
    build: Build::Sink(build),
};

const EXAMPLE: &str = r#"name = "own-program"

[sources.readings]
type = "file"
path = "readings.jsonl"
format = "json_lines"

[destinations.mine]
type = "exec"
from = "readings"
command = ["python3", "store.py"]
"#;

fn descriptor() -> Descriptor {
    let summary = "Gives records to a program of your own";
    describe::<Config>(ComponentRole::Destination, "exec", summary, EXAMPLE)
}

fn build(config: &str, context: &BuildContext) -> Result<Box<dyn Sink>, ConfigError> {
    let config: Config = parse_config(config)?;
    if config.answer_ms_max == 0 {
        return Err(ConfigError::at("answer_ms_max", "is 0: give the program time"));
    }
    if config.op_column.as_deref() == Some("") {
        return Err(ConfigError::at("op_column", "the name is empty"));
    }
    Ok(Box::new(ExecSink {
        process: Process {
            program: Program::new(config.command, config.env, config.dir, context)?,
            answer_max: Duration::from_millis(config.answer_ms_max),
            op_column: config.op_column,
            talk: None,
        },
        search: Search::new(config.failures_max),
    }))
}

#[derive(Serialize)]
struct Heading<'a> {
    batch: &'a str,
    records: usize,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    batch: String,
    #[serde(default)]
    rejected: Vec<Refusal>,
    retry: Option<String>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Refusal {
    record: usize,
    #[serde(default)]
    reason: String,
}

/// A batch that was sent.
struct Sent {
    key: String,
    delivery: usize,
    /// The row of each of its records.
    rows: Vec<usize>,
}

impl Sent {
    /// What an answer says of it.
    fn settle(&self, answer: Answer) -> Result<Vec<Rejected>, String> {
        if answer.batch != self.key {
            let cause = format!(
                "it answered for batch '{}' when it was '{}' that it owed",
                answer.batch, self.key
            );
            return Err(cause);
        }
        let refused = answer
            .rejected
            .into_iter()
            .map(|refusal| match self.rows.get(refusal.record) {
                Some(row) => Ok(Rejected {
                    delivery: self.delivery,
                    row: *row,
                    reason: match refusal.reason.as_str() {
                        "" => "the program refuses it".to_string(),
                        reason => format!("the program refuses it: {reason}"),
                    },
                }),
                None => Err(format!(
                    "it refused record {} of {}, counted from 0",
                    refusal.record,
                    self.rows.len()
                )),
            });
        let mut refused = refused.collect::<Result<Vec<_>, _>>()?;
        refused.sort_by_key(|refused| refused.row);
        refused.dedup_by_key(|refused| refused.row);
        Ok(refused)
    }
}

struct ExecSink {
    process: Process,
    search: Search,
}

struct Process {
    program: Program,
    answer_max: Duration,
    op_column: Option<String>,
    /// The program, while nothing is asked of it.
    talk: Option<Talk>,
}

impl Process {
    fn start(&self) -> Result<Talk, Fault> {
        Talk::new(self.program.start(true, &[])?).ok_or_else(|| self.failed("it has no input"))
    }

    fn failed(&self, cause: &str) -> Fault {
        Fault::retry(format!("the program '{}': {cause}", self.program.name()))
    }

    /// The text of a delivery, and what it holds. Rows that have no text are rejected.
    fn text(&self, delivery: &Delivery, index: usize, out: &mut Vec<u8>, rejected: &mut Vec<Rejected>) -> Option<Sent> {
        let rows = JsonRows::new(&delivery.batch, self.op_column.as_deref());
        let (mut lines, mut sent) = (Vec::new(), Vec::new());
        for row in 0..delivery.batch.rows() {
            match rows.row(row, &mut lines) {
                Ok(()) => {
                    lines.push(b'\n');
                    sent.push(row);
                }
                Err(reason) => rejected.push(Rejected {
                    delivery: index,
                    row,
                    reason,
                }),
            }
        }
        if sent.is_empty() {
            return None;
        }
        let key = key::of(delivery, &lines);
        let heading = Heading {
            batch: &key,
            records: sent.len(),
        };
        out.extend(serde_json::to_vec(&heading).unwrap_or_default());
        out.push(b'\n');
        out.append(&mut lines);
        Some(Sent {
            key,
            delivery: index,
            rows: sent,
        })
    }

    async fn exchange(&self, talk: &mut Talk, text: &[u8], sent: &[Sent]) -> Result<Vec<Rejected>, Failure> {
        let patience = Patience {
            answer_max: self.answer_max,
            line_bytes_max: ANSWER_BYTES_MAX,
        };
        let (mut rejected, mut owed, mut wants_again) = (Vec::new(), sent.iter(), false);
        let mut hear = |line: &[u8]| {
            let answer: Answer = serde_json::from_slice(line).map_err(|error| {
                let line = String::from_utf8_lossy(line);
                format!("its answer '{}' is none: {error}", shorten(line.trim_end()))
            })?;
            let retry = answer.retry.clone();
            if let Some(sent) = owed.next() {
                rejected.extend(sent.settle(answer)?);
            }
            retry.map_or(Ok(()), |cause| {
                wants_again = true;
                Err(format!("it wants the batch again: {cause}"))
            })
        };
        match talk.ask(text, sent.len(), patience, &mut hear).await {
            Ok(()) => Ok(rejected),
            Err(cause) if wants_again => Err(Failure::Blameless(self.failed(&cause))),
            Err(cause) => Err(Failure::Work(self.failed(&cause))),
        }
    }
}

#[async_trait]
impl Takes for Process {
    async fn take(&mut self, deliveries: &[Delivery]) -> Result<Vec<Rejected>, Failure> {
        let (mut text, mut rejected) = (Vec::new(), Vec::new());
        let sent = deliveries.iter().enumerate();
        let sent: Vec<Sent> = sent
            .filter_map(|(index, delivery)| self.text(delivery, index, &mut text, &mut rejected))
            .collect();
        if sent.is_empty() {
            return Ok(rejected);
        }
        // Not put back after a failure, nor when this is dropped in the middle: what it says next would answer something else.
        let mut talk = match self.talk.take() {
            Some(talk) => talk,
            None => self.start().map_err(Failure::Blameless)?,
        };
        rejected.extend(self.exchange(&mut talk, &text, &sent).await?);
        self.talk = Some(talk);
        Ok(rejected)
    }
}

#[async_trait]
impl Sink for ExecSink {
    async fn open(&mut self) -> Result<(), Fault> {
        self.process.talk = None;
        self.process.talk = Some(self.process.start()?);
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

    /// Nothing is left to do: the program has answered that the records are safe.
    async fn commit(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    async fn check(&mut self) -> Result<String, Trouble> {
        self.process.program.check()
    }

    async fn close(&mut self) {
        if let Some(talk) = self.process.talk.take() {
            talk.stop().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use bus_schema::data::{Batch, BatchBuilder, Field, Op, Origin, Schema, Type, Value};

    use super::*;
    use crate::file::testing::{delivery, refused, sink};

    /// Stores records and remembers the last keys, as a program of a user would: a batch that comes again is left out.
    const STORE: &str = r#"
import json, os, sys
done = set(open("keys").read().split()) if os.path.exists("keys") else set()
for line in sys.stdin:
    heading = json.loads(line)
    records = [json.loads(sys.stdin.readline()) for _ in range(heading["records"])]
    answer = {"batch": heading["batch"]}
    if heading["batch"] not in done:
        hot = [i for i, record in enumerate(records) if record["t"] > 100]
        if hot:
            answer["rejected"] = [{"record": i, "reason": "too hot"} for i in hot]
        with open("out", "a") as out:
            for i, record in enumerate(records):
                if i not in hot:
                    out.write(json.dumps(record) + "\n")
        with open("keys", "a") as keys:
            keys.write(heading["batch"] + "\n")
    if os.path.exists("crash"):
        os.remove("crash")
        os.kill(os.getpid(), 9)
    print(json.dumps(answer), flush=True)
"#;

    fn batch(values: &[(Op, i64)]) -> Batch {
        let schema = Schema {
            collection: "t".into(),
            fields: vec![Field::new("t", Type::I64)],
        };
        let mut builder = BatchBuilder::new(schema.into());
        for (op, value) in values {
            builder.push(*op, &[Value::I64(*value).as_cell()]).unwrap();
        }
        builder.finish(Origin::default())
    }

    fn exec(program: &[&str], more: &str, dir: &Path) -> Box<dyn Sink> {
        let command = serde_json::to_string(program).unwrap();
        sink(&SINK, &format!(r#"{{"command": {command}{more}}}"#), dir)
    }

    #[tokio::test]
    async fn a_program_takes_refuses_and_crashes() {
        let dir = testkit::temp_dir("exec-sink");
        fs::write(dir.path().join("store.py"), STORE).unwrap();
        let mut sink = exec(&["python3", "store.py"], "", dir.path());
        sink.open().await.unwrap();
        let first = [
            delivery(
                "a",
                1,
                batch(&[(Op::Insert, 1), (Op::Delete, 2), (Op::Insert, 300), (Op::Insert, 4)]),
            ),
            delivery("a", 2, batch(&[])),
            delivery("a", 3, batch(&[(Op::Insert, 5)])),
        ];
        let rejected = sink.write(&first).await.unwrap();
        let rejected: Vec<_> = rejected
            .iter()
            .map(|one| (one.delivery, one.row, one.reason.as_str()))
            .collect();
        assert_eq!(rejected[1], (0, 2, "the program refuses it: too hot"));
        assert_eq!((rejected.len(), rejected[0].0, rejected[0].1), (2, 0, 1));
        sink.commit().await.unwrap();
        // Stored, and killed before it could say so: the same again is told from the next.
        fs::write(dir.path().join("crash"), "").unwrap();
        let second = [
            delivery("a", 4, batch(&[(Op::Insert, 6)])),
            delivery("a", 5, batch(&[(Op::Insert, 7)])),
        ];
        let fault = sink.write(&second).await.unwrap_err();
        assert!(fault.to_string().contains("killed by signal 9"), "{fault}");
        sink.close().await;
        sink.open().await.unwrap();
        assert_eq!(sink.write(&second).await.unwrap(), []);
        sink.commit().await.unwrap();
        sink.close().await;
        let out = fs::read_to_string(dir.path().join("out")).unwrap();
        assert_eq!(out, "{\"t\": 1}\n{\"t\": 4}\n{\"t\": 5}\n{\"t\": 6}\n{\"t\": 7}\n");
    }

    #[tokio::test]
    async fn a_program_that_answers_wrongly_is_not_believed() {
        let dir = testkit::temp_dir("exec-sink");
        for (script, wanted) in [
            ("read a; echo nonsense; cat >/dev/null", "its answer 'nonsense' is none"),
            (
                "read a; echo '{\"batch\": \"x\"}'; cat >/dev/null",
                "it answered for batch 'x'",
            ),
            ("cat >/dev/null", "no answer for 0.5 seconds"),
            ("exec >&-; cat >/dev/null", "it closed its output"),
            ("exit 4", "it ended with code 4"),
            (
                "read a; printf '%2000000s' x; cat >/dev/null",
                "more than 1048576 bytes",
            ),
            (
                "read a; echo \"${a%%,*}, \\\"retry\\\": \\\"full\\\"}\"; cat >/dev/null",
                "it wants the batch again: full",
            ),
            (
                "read a; echo \"${a%%,*}, \\\"rejected\\\": [{\\\"record\\\": 1}]}\"; cat >/dev/null",
                "it refused record 1 of 1",
            ),
        ] {
            let mut sink = exec(&["sh", "-c", script], r#", "answer_ms_max": 500"#, dir.path());
            sink.open().await.unwrap();
            let fault = sink
                .write(&[delivery("a", 1, batch(&[(Op::Insert, 1)]))])
                .await
                .unwrap_err();
            assert!(fault.to_string().contains(wanted), "{script}: {fault}");
            assert!(matches!(fault, Fault::Retry { .. }));
            sink.close().await;
        }
    }

    #[tokio::test]
    async fn a_program_that_answers_early_does_not_block() {
        let dir = testkit::temp_dir("exec-sink");
        // Writes more than a pipe holds before it reads on.
        let script = "while read a; do n=${a##*:}; n=${n%\\}}; head -c 200000 /dev/zero | tr '\\0' ' '; \
                      for i in $(seq $n); do read b; done; echo \"${a%%,*}}\"; done";
        let mut sink = exec(&["sh", "-c", script], "", dir.path());
        sink.open().await.unwrap();
        let values: Vec<_> = (0..20_000).map(|value| (Op::Insert, value)).collect();
        let deliveries: Vec<_> = (1..4).map(|seq| delivery("a", seq, batch(&values))).collect();
        assert_eq!(sink.write(&deliveries).await.unwrap(), []);
        sink.close().await;
    }

    #[test]
    fn mistakes_are_named() {
        for (config, wanted) in [
            (r#"{"command": [""]}"#, "command: name the program"),
            (r#"{"command": ["x"], "answer_ms_max": 0}"#, "answer_ms_max: is 0"),
            (r#"{"command": ["x"], "op_column": ""}"#, "op_column: the name is empty"),
        ] {
            refused(&SINK, config, wanted);
        }
    }
}
