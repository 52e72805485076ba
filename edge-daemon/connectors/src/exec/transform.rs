//! Transform `exec`: a program of the user's own that answers each line with a line.

use std::{borrow::Cow, collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use bus_schema::{
    data::{Batch, Cell, Op, Ops, Type, Value},
    limits::RECORD_BYTES_MAX,
    plan::{ComponentRole, Descriptor},
};
use flow::{
    Build, BuildContext, Component, ConfigError, Fault, Outside, Transform, Transformed, Trouble, describe,
    parse_config,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    child::Program,
    columns::Columns,
    suspect::{Answers, Failure, answered, failures_usual},
    talk::{Patience, Talk},
};
use crate::{
    file::{
        encode::JsonRows,
        rows::{Rows, Token},
        source::types,
        text::shorten,
    },
    secret::SecretRef,
};

/// Records given to the program at once take about this many bytes, unless one alone takes more.
const ASKED_BYTES: usize = 64 * 1024;
/// A program that has not ended in this time without being given a record has nothing against starting.
const START_WAIT: Duration = Duration::from_secs(1);

/// Starts a program and writes records to its standard input, one JSON object per line, as the destination `file` does. The
/// program answers each line with one line, in order, and flushes it: a JSON object goes on in the record's place, `null`
/// leaves the record out, and a JSON text sends it to the dead letters with that text as the reason. It must answer the
/// same to the same, which may come again after a crash.
///
/// A column keeps its type, and a value that does not fit it exactly is a dead letter; `types` gives a column another type,
/// and says what a new column is, which else has the type of its values. A column that no record of a batch has any more is
/// left out. What a record does at the destination (insert, update, delete) stays as it is, and the program is not told.
///
/// What the program writes on its standard error goes to the log (60 lines a minute). When it ends, or takes longer than
/// `answer_ms_max` for an answer, it is killed with everything it has started, and started again, and the records come
/// again; one at which that happens every time is a dead letter (`failures_max`). A daemon of a fleet must allow it:
/// `allow = true` under `[custom_code]` in its `config.toml`.
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
    /// Column = type, for new columns and for those that change theirs, as in the source `file`.
    #[serde(default)]
    types: BTreeMap<String, String>,
    /// How long the program may take for an answer, in milliseconds.
    #[serde(default = "half_a_minute")]
    answer_ms_max: u64,
    /// How often the process may end, or run out of its time or memory, with the same batch before its records are given to
    /// it one by one. The record at which it does so again, twice, goes to the dead letters with what the process said last.
    /// 0: never, the batch comes again for ever. A process that cannot be started blames no record.
    #[serde(default = "failures_usual")]
    failures_max: u32,
}

fn half_a_minute() -> u64 {
    30_000
}

/// The registry line.
pub(crate) const TRANSFORM: Component = Component {
    descriptor,
    build: Build::Transform(build),
};

const EXAMPLE: &str = r#"name = "own-filter"

[sources.readings]
type = "file"
path = "readings.jsonl"
format = "json_lines"

[transforms.mine]
type = "exec"
from = "readings"
command = ["sed", "-u", "s/\"line\":\"a\"/\"line\":\"north\"/"]

[destinations.out]
type = "stdout"
from = "mine"
"#;

fn descriptor() -> Descriptor {
    let summary = "Lets a program of your own answer each record with a record";
    describe::<Config>(ComponentRole::Transform, "exec", summary, EXAMPLE)
}

fn build(config: &str, context: &BuildContext) -> Result<Box<dyn Transform>, ConfigError> {
    let config: Config = parse_config(config)?;
    if config.answer_ms_max == 0 {
        return Err(ConfigError::at("answer_ms_max", "is 0: give the program time"));
    }
    Ok(Box::new(ExecTransform {
        program: Program::new(config.command, config.env, config.dir, context)?,
        patience: Patience {
            answer_max: Duration::from_millis(config.answer_ms_max),
            line_bytes_max: RECORD_BYTES_MAX,
        },
        columns: Columns::new(types(&config.types)?, read),
        failures_max: config.failures_max,
        talk: None,
    }))
}

/// JSON as a column of this type holds it. A list comes back as one; what is nested in other columns is JSON.
fn read<'a>(token: Token<'a>, ty: Option<&Type>) -> Result<Token<'a>, String> {
    let value = match (token, ty) {
        (Token::Nested(text), Some(Type::List)) => {
            let items: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| "is no list".to_string())?;
            Value::List(items.into_iter().map(item).collect())
        }
        (Token::Null, Some(Type::List)) => Value::Null,
        (_, Some(Type::List)) => return Err("is no list".to_string()),
        (Token::Nested(text), Some(Type::Any)) => Value::Json(text.to_string()),
        (Token::Text(text), Some(Type::Any)) => Value::Text(text.into_owned()),
        (Token::Bool(v), Some(Type::Any)) => Value::Bool(v),
        (Token::Null, Some(Type::Any)) => Value::Null,
        (Token::Integer(text) | Token::Float(text), Some(Type::Any)) => number(text),
        (token, _) => return Ok(token),
    };
    Ok(Token::Value(value))
}

/// A number whose column takes any type: what it says, and as it is written when that is nothing exact.
fn number(text: &str) -> Value {
    if let Ok(v) = text.parse() {
        return Value::I64(v);
    }
    if let Ok(v) = text.parse() {
        return Value::U64(v);
    }
    match text.parse::<f64>() {
        Ok(v) if v.is_finite() && text.contains(['.', 'e', 'E']) => Value::F64(v),
        _ => Value::Json(text.to_string()),
    }
}

fn item(json: &RawValue) -> Value {
    let text = json.get();
    match text.as_bytes().first() {
        Some(b'"') => Value::Text(serde_json::from_str(text).unwrap_or_default()),
        Some(b'n') => Value::Null,
        Some(b't' | b'f') => Value::Bool(text == "true"),
        Some(b'{' | b'[') => Value::Json(text.to_string()),
        _ => number(text),
    }
}

/// The batch as records that are there: a file of records has no deletions, and a program that changes records need not know.
fn shown(batch: &Batch) -> Result<Cow<'_, Batch>, Fault> {
    if (0..batch.rows()).all(|row| batch.op(row) != Op::Delete) {
        return Ok(Cow::Borrowed(batch));
    }
    let (schema, columns) = (Arc::clone(batch.schema()), batch.columns().to_vec());
    let shown = Batch::new(schema, columns, Ops::All(Op::Insert), batch.origin().clone());
    shown.map(Cow::Owned).map_err(|error| Fault::stop(error.to_string()))
}

struct ExecTransform {
    program: Program,
    patience: Patience,
    columns: Columns,
    failures_max: u32,
    /// The program, while nothing is asked of it.
    talk: Option<Talk>,
}

/// What became of a row before anything was understood.
enum Row {
    /// The program's answer.
    Answer(String),
    /// It has no JSON form.
    Rejected(String),
}

impl Transform for ExecTransform {
    fn apply(&mut self, _: Batch) -> Result<Transformed, Fault> {
        Err(Fault::stop("a program is waited for, and nobody waits here"))
    }

    fn outside(&mut self) -> Option<&mut dyn Outside> {
        Some(self)
    }
}

#[async_trait]
impl Outside for ExecTransform {
    async fn apply(&mut self, batch: Batch) -> Result<Transformed, Fault> {
        self.columns.follow(batch.schema());
        // Together not much more than the largest record: what is above it has to be refused.
        let max = self.failures_max;
        let rows = answered(self, &batch, RECORD_BYTES_MAX, max).await?;
        self.understand(&batch, &rows)
    }

    async fn check(&mut self) -> Result<String, Trouble> {
        self.program.check()
    }
}

#[async_trait]
impl Answers for ExecTransform {
    type Row = Row;

    /// What becomes of each row. Dropped in the middle, the program is gone as well.
    async fn answers(&mut self, batch: &Batch, bytes_left: &mut usize) -> Result<Vec<Row>, Failure> {
        let mut talk = match self.talk.take() {
            Some(talk) => talk,
            None => self.start().map_err(Failure::Blameless)?,
        };
        let shown = shown(batch).map_err(Failure::Blameless)?;
        let json = JsonRows::new(&shown, None);
        let mut done: Vec<Row> = Vec::with_capacity(batch.rows());
        let mut text = Vec::new();
        while done.len() < batch.rows() {
            let (mut asked, mut rejected) = (0, None);
            text.clear();
            while done.len() + asked < batch.rows() && text.len() < ASKED_BYTES && rejected.is_none() {
                match json.row(done.len() + asked, &mut text) {
                    Ok(()) => {
                        text.push(b'\n');
                        asked += 1;
                    }
                    Err(reason) => rejected = Some(reason),
                }
            }
            let mut hear = |line: &[u8]| {
                done.push(if line.len() > *bytes_left {
                    Row::Rejected("the records of this batch have become too large together".to_string())
                } else {
                    *bytes_left -= line.len();
                    let line = std::str::from_utf8(line).map_err(|_| "its answer is not UTF-8".to_string())?;
                    Row::Answer(line.to_string())
                });
                Ok(())
            };
            if asked > 0 {
                let heard = talk.ask(&text, asked, self.patience, &mut hear).await;
                heard.map_err(|cause| Failure::Work(self.failed(&cause)))?;
            }
            done.extend(rejected.map(Row::Rejected));
        }
        self.talk = Some(talk);
        Ok(done)
    }

    async fn starts(&mut self) -> Result<(), Fault> {
        let mut talk = self.start()?;
        if let Some(cause) = talk.ends_within(START_WAIT).await {
            return Err(self.failed(&cause));
        }
        self.talk = Some(talk);
        Ok(())
    }

    fn rejected(reason: String) -> Row {
        Row::Rejected(reason)
    }
}

impl ExecTransform {
    fn failed(&self, cause: &str) -> Fault {
        Fault::retry(format!("the program '{}': {cause}", self.program.name()))
    }

    fn start(&self) -> Result<Talk, Fault> {
        let child = self.program.start(true, &[])?;
        Talk::new(child).ok_or_else(|| self.failed("it has no input"))
    }

    fn understand(&mut self, batch: &Batch, done: &[Row]) -> Result<Transformed, Fault> {
        let (mut rows, mut kept, mut rejected) = (Rows::new(), Vec::new(), Vec::new());
        for (row, done) in done.iter().enumerate() {
            let line = match done {
                Row::Answer(line) => line.trim(),
                Row::Rejected(reason) => {
                    rejected.push((row, reason.clone()));
                    continue;
                }
            };
            if line == "null" {
                continue;
            }
            let is_unchanged = |column: &usize| batch.cell(row, *column) == Cell::Unchanged;
            let unchanged: Vec<&str> = (0..batch.columns().len())
                .filter(is_unchanged)
                .map(|column| batch.schema().fields[column].name.as_str())
                .collect();
            let reason = match serde_json::from_str::<String>(line) {
                Ok(reason) => format!("the program refuses it: {reason}"),
                Err(_) => match self.columns.push(&mut rows, line, &unchanged) {
                    Ok(()) => {
                        kept.push(row);
                        continue;
                    }
                    Err(cause) => format!("the program's answer '{}': {cause}", shorten(line)),
                },
            };
            rejected.push((row, reason));
        }
        let batch = self.columns.changed(rows, batch, &kept);
        let batch = batch.map_err(|cause| self.failed(&cause))?;
        Ok(Transformed { batch, rejected })
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use bus_schema::data::{Field, Zone};

    use super::*;
    use crate::file::testing::{batch_of, refused, shown as rows_of, transform};

    fn exec(script: &str, more: &str, dir: &Path) -> Box<dyn Transform> {
        let command = serde_json::to_string(&["sh", "-c", script]).unwrap();
        transform(&TRANSFORM, &format!(r#"{{"command": {command}{more}}}"#), dir)
    }

    async fn done(transform: &mut dyn Transform, batch: &Batch) -> Result<Transformed, Fault> {
        transform.outside().unwrap().apply(batch.clone()).await
    }

    fn numbers(values: std::ops::Range<i64>) -> Batch {
        let rows: Vec<[Value; 1]> = values.map(|v| [Value::I64(v)]).collect();
        let rows: Vec<(Op, &[Value])> = rows.iter().map(|row| (Op::Insert, row.as_slice())).collect();
        batch_of(vec![Field::new("n", Type::I64)], &rows)
    }

    #[tokio::test]
    async fn what_comes_back_as_it_went_stays_what_it_is() {
        let dir = testkit::temp_dir("exec-transform");
        let fields = [
            ("i", Type::I64),
            ("u", Type::U64),
            ("f", Type::F64),
            ("g", Type::F32),
            (
                "d",
                Type::Decimal {
                    precision: 38,
                    scale: 9,
                },
            ),
            ("t", Type::Text),
            ("b", Type::Bytes),
            ("at", Type::Timestamp(Zone::Offset)),
            ("j", Type::Json),
            ("l", Type::List),
            ("any", Type::Any),
        ];
        let fields = fields.map(|(name, ty)| Field::new(name, ty));
        let values = [
            Value::I64(i64::MIN),
            Value::U64(u64::MAX),
            Value::F64(0.1 + 0.2),
            Value::F32(0.1),
            Value::Decimal(-99_999_999_999_999_999_999_999_999_999_999_999_999, 9),
            Value::Text("é\n\"\u{1f600}".into()),
            Value::Bytes(vec![0, 255]),
            Value::TimestampOffset(1_700_000_000_123_456_789, -330),
            Value::Json("{\"a\": [1.10]}".into()),
            Value::List(vec![Value::F64(0.1), Value::Null, Value::Text("x".into())]),
            Value::I64(-5),
        ];
        let nulls = vec![Value::Null; values.len()];
        let mut few = vec![Value::Unchanged; values.len()];
        few[0] = Value::I64(1);
        few[1] = Value::Missing;
        let rows: [(Op, &[Value]); 4] = [
            (Op::Insert, &values),
            (Op::Upsert, &nulls),
            (Op::Update, &few),
            (Op::Delete, &values),
        ];
        let input = batch_of(fields.into(), &rows);
        let output = done(&mut *exec("cat", "", dir.path()), &input).await.unwrap();
        assert_eq!((output.batch, output.rejected), (input, Vec::new()));
    }

    #[tokio::test]
    async fn lines_become_records_nothing_and_dead_letters() {
        let dir = testkit::temp_dir("exec-transform");
        let script = r#"while read line; do case $line in
            *:1}) echo null;; *:2}) echo '"too much"';; *:3}) echo no;; *:4}) echo '{"n": 1.5}';; *:5}) echo '{}';;
            *:6}) echo '[1]';; *) echo "{\"n\": 7, \"new\": 0.50}";; esac; done"#;
        let more = r#", "types": {"new": "decimal(5,2)"}"#;
        let output = done(&mut *exec(script, more, dir.path()), &numbers(0..7))
            .await
            .unwrap();
        assert_eq!(rows_of(&output.batch), "7|0.50");
        let reasons: Vec<_> = output
            .rejected
            .iter()
            .map(|(row, reason)| format!("{row} {reason}"))
            .collect();
        let wanted = [
            "2 the program refuses it: too much",
            "3 the program's answer 'no': not JSON",
            "4 the program's answer '{\"n\": 1.5}': column 'n' is not a value of type i64: '1.5'",
            "5 the program's answer '{}': it has no columns",
            "6 the program's answer '[1]': JSON, but not an object",
        ];
        assert_eq!(reasons.len(), wanted.len(), "{reasons:#?}");
        for (reason, wanted) in reasons.iter().zip(wanted) {
            assert!(reason.starts_with(wanted), "{reason}");
        }
    }

    #[tokio::test]
    async fn a_program_that_is_ended_gets_the_batch_again() {
        let dir = testkit::temp_dir("exec-transform");
        let harm = dir.path().join("harm");
        for (kind, more) in [
            ("kill -9 $$", ""),
            ("exit 3", ""),
            ("exec sleep 1000", r#", "answer_ms_max": 1000"#),
        ] {
            fs::write(&harm, "").unwrap();
            let script = format!(
                "while read line; do case $line in *:5000}}) if [ -e harm ]; then rm harm; {kind}; fi;; esac; \
                 echo \"$line\"; done"
            );
            let input = numbers(0..6_000);
            let output = done(&mut *exec(&script, more, dir.path()), &input).await.unwrap();
            assert_eq!(output.batch, input, "{kind}");
            assert!(!harm.exists(), "{kind}");
        }
        for (script, more, wanted) in [
            (
                "echo no disk >&2; exit 4",
                "",
                "it ended with code 4); the last it said: 'no disk'",
            ),
            (
                "cat > /dev/null",
                r#", "answer_ms_max": 300, "failures_max": 0"#,
                "no answer for 0.3 seconds",
            ),
            (
                "head -c 100 /dev/zero; cat > /dev/null",
                r#", "answer_ms_max": 300, "failures_max": 0"#,
                "no answer for 0.3 seconds",
            ),
        ] {
            let fault = done(&mut *exec(script, more, dir.path()), &numbers(0..1))
                .await
                .unwrap_err();
            assert!(fault.to_string().contains(wanted), "{script}: {fault}");
            assert!(matches!(fault, Fault::Retry { .. }));
        }
    }

    #[tokio::test]
    async fn a_record_that_ends_the_program_every_time_is_a_dead_letter() {
        let dir = testkit::temp_dir("exec-transform");
        let script = r#"while read line; do case $line in
            *:5}) echo five is too much >&2; exit 7;; *:7}) exec sleep 1000;; esac; echo "$line"; done"#;
        let mut exec = exec(script, r#", "answer_ms_max": 300"#, dir.path());
        let output = done(&mut *exec, &numbers(0..10)).await.unwrap();
        assert_eq!(rows_of(&output.batch), "0\n1\n2\n3\n4\n6\n8\n9");
        let [(5, ended), (7, hung)] = output.rejected.as_slice() else {
            panic!("{:?}", output.rejected);
        };
        assert!(
            ended.contains("(it ended with code 7); the last it said: 'five is too much'"),
            "{ended}"
        );
        assert!(hung.contains("no answer for 0.3 seconds"), "{hung}");
        assert_eq!(done(&mut *exec, &numbers(8..9)).await.unwrap().batch, numbers(8..9));
    }

    #[test]
    fn mistakes_are_named() {
        refused(&TRANSFORM, r#"{"command": []}"#, "command: name the program");
        refused(
            &TRANSFORM,
            r#"{"command": ["x"], "answer_ms_max": 0}"#,
            "answer_ms_max: is 0",
        );
        refused(
            &TRANSFORM,
            r#"{"command": ["x"], "types": {"a": "int"}}"#,
            "types.a: 'int' cannot be declared",
        );
    }
}
