//! Destination `influxdb`: points over its HTTP interface, version 1 or 2. Lines are written by the code that the transform
//! `render` has too; sending, and finding the lines a refused request means, are those of the destination `http`.

use std::{collections::BTreeMap, time::SystemTime};

use async_trait::async_trait;
use bus_schema::{
    data::{Batch, Cell, Op},
    plan::{ComponentRole, Descriptor},
};
use bytes::Bytes;
use flow::{
    Build, BuildContext, Component, ConfigError, Delivery, Fault, Rejected, Sink, Trouble, TroubleKind, describe,
    parse_config,
};
use hyper::{
    Method,
    header::{CONTENT_TYPE, HeaderValue},
};
use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use crate::{
    http::{
        client::{Answer, Ask, Authorization, Client, ClientError, Settings},
        errand::{Encoded, Errand, Errands, later},
        verdict::{Verdict, hint, said, verdict},
    },
    line::{Line, Precision},
    list::list_json,
    secret::SecretRef,
    tls::TlsFiles,
};

/// Most bytes of an answer: it quotes lines.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Bounds of `lines_max`.
const LINES_MAX: std::ops::RangeInclusive<usize> = 1..=65_536;
/// Statuses that are about the lines: malformed or in conflict with what is there, too large, not to be processed.
const REFUSING: &[u16] = &[400, 413, 422];
/// What no tag and no field may be called: the server drops it without a word.
const RESERVED: &str = "time";

/// Writes records as points to InfluxDB: version 2 and 3 with `bucket` (and `org`, `token`), version 1 with `database` (and
/// `user`, `password`). Each record needs a time with a zone, and a field. Integers become integers, floats and decimals
/// floats, booleans booleans; text, JSON, lists (as JSON), bytes (hexadecimal), times and the rest strings. Null and missing
/// are left out. To the dead letters goes what InfluxDB cannot hold: NaN and the infinities, decimals no float has the digits
/// of, integers beyond i64 (without `unsigned`), deletions, and what the server refuses, such as a field of another type than
/// it had before; the lines of a refused request that were good are written.
///
/// At least once, and what comes again changes nothing: a point is known by measurement, tags and time. For the same reason
/// two records with the same ones are one point, with the fields of both, and the later one's where both have one: give
/// them a tag that tells them apart.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Where the server is: `http://influx:8086` or `https://…`.
    url: String,
    /// Version 2 and 3: the bucket.
    bucket: Option<String>,
    /// Version 2: the organisation.
    org: Option<String>,
    /// Version 2 and 3: the token.
    token: Option<SecretRef>,
    /// Version 1: the database. It must exist.
    database: Option<String>,
    /// Version 1: the retention policy; by default the database's own.
    retention_policy: Option<String>,
    /// Version 1: user name.
    user: Option<String>,
    /// Version 1: password.
    password: Option<SecretRef>,
    /// Name of the measurement.
    measurement: Option<String>,
    /// Instead: the column with its name.
    measurement_column: Option<String>,
    /// Columns that are tags. A tag without a value is left out.
    #[serde(default)]
    tags: Vec<String>,
    /// Columns that are fields; by default all that are nothing else.
    fields: Option<Vec<String>>,
    /// Column with the time.
    #[serde(default = "time")]
    time: String,
    /// Whether u64 columns are written as unsigned integers. Version 1 has none; without this they are integers, and must
    /// fit.
    #[serde(default)]
    unsigned: bool,
    /// Most lines in a request.
    #[serde(default = "five_thousand")]
    lines_max: usize,
    /// More headers; a value may be a secret.
    #[serde(default)]
    headers: BTreeMap<String, SecretRef>,
    /// Certificates, for `https`.
    tls: Option<TlsFiles>,
    /// How long an answer may take, in milliseconds: 100 to 50,000.
    #[serde(default = "half_a_minute")]
    timeout_ms: u64,
}

fn time() -> String {
    RESERVED.to_string()
}

fn five_thousand() -> usize {
    5000
}

fn half_a_minute() -> u64 {
    30_000
}

/// The registry line.
pub(crate) const SINK: Component = Component {
    descriptor,
    build: Build::Sink(build),
};

const EXAMPLE: &str = r#"name = "points"

[sources.readings]
type = "file"
path = "readings.jsonl"
format = "json_lines"
types = { time = "timestamp_utc" }

[destinations.influx]
type = "influxdb"
from = "readings"
url = "http://influx:8086"
org = "plant"
bucket = "readings"
token = { env = "INFLUX_TOKEN" }
measurement = "temperature"
tags = ["line"]
"#;

fn descriptor() -> Descriptor {
    let summary = "Writes points to InfluxDB";
    describe::<Config>(ComponentRole::Destination, "influxdb", summary, EXAMPLE)
}

fn build(config: &str, context: &BuildContext) -> Result<Box<dyn Sink>, ConfigError> {
    let config: Config = parse_config(config)?;
    if !LINES_MAX.contains(&config.lines_max) {
        let bounds = format!("is {} to {}", LINES_MAX.start(), LINES_MAX.end());
        return Err(ConfigError::at("lines_max", bounds));
    }
    let points = Points::of(&config)?;
    let target = target(&config)?;
    let settings = Settings {
        url: config.url,
        headers: config.headers,
        authorization: target.authorization,
        tls: config.tls,
        timeout_ms: config.timeout_ms,
    };
    let client = Client::new(settings, context)?;
    let mut url = below(client.url(), target.path);
    url.query_pairs_mut().extend_pairs(target.query);
    Ok(Box::new(InfluxdbSink {
        client,
        url,
        points,
        lines_max: config.lines_max,
        errands: Errands::default(),
    }))
}

/// A path of the server, which may stand behind one of its own.
fn below(url: &Url, path: &str) -> Url {
    let mut url = url.clone();
    url.set_path(&format!("{}{path}", url.path().trim_end_matches('/')));
    url
}

/// How version 1, or 2, is asked.
struct Target {
    path: &'static str,
    query: Vec<(&'static str, String)>,
    authorization: Option<Authorization>,
}

fn target(config: &Config) -> Result<Target, ConfigError> {
    let only = |is_set: bool, key: &str, version: &str| match is_set {
        true => Err(ConfigError::at(key, format!("is for version {version}"))),
        false => Ok(()),
    };
    let precision = ("precision", "ns".to_string());
    match (&config.bucket, &config.database) {
        (Some(bucket), None) => {
            only(
                config.retention_policy.is_some(),
                "retention_policy",
                "1: name a database",
            )?;
            only(
                config.user.is_some() || config.password.is_some(),
                "user",
                "1: with a bucket, set token",
            )?;
            let org = config.org.iter().map(|org| ("org", org.clone()));
            Ok(Target {
                path: "/api/v2/write",
                query: org.chain([("bucket", bucket.clone()), precision]).collect(),
                authorization: config.token.clone().map(|token| Authorization::Token("Token", token)),
            })
        }
        (None, Some(database)) => {
            only(config.org.is_some(), "org", "2: name a bucket")?;
            only(
                config.token.is_some(),
                "token",
                "2: with a database, set user and password",
            )?;
            let policy = config.retention_policy.iter().map(|policy| ("rp", policy.clone()));
            Ok(Target {
                path: "/write",
                query: policy.chain([("db", database.clone()), precision]).collect(),
                authorization: Authorization::of(config.user.clone(), config.password.clone(), None)?,
            })
        }
        _ => Err(ConfigError::at("bucket", "set this, or database for version 1")),
    }
}

/// What of a record is what of a point.
struct Points {
    /// The measurement's name, or the column with it.
    measurement: Result<String, String>,
    tags: Vec<String>,
    fields: Option<Vec<String>>,
    time: String,
    unsigned: bool,
}

impl Points {
    fn of(config: &Config) -> Result<Self, ConfigError> {
        let measurement = match (&config.measurement, &config.measurement_column) {
            (Some(name), None) => {
                Line::of(name).map_err(|cause| ConfigError::at("measurement", cause))?;
                Ok(name.clone())
            }
            (None, Some(column)) => Err(column.clone()),
            _ => return Err(ConfigError::at("measurement", "set this, or measurement_column")),
        };
        let fields = config.fields.iter().flatten();
        let named = config
            .tags
            .iter()
            .map(|name| ("tags", name))
            .chain(fields.map(|name| ("fields", name)));
        let mut seen = vec![config.time.as_str()];
        for (key, name) in named {
            if name == RESERVED {
                return Err(ConfigError::at(key, "InfluxDB keeps the name 'time' to itself"));
            }
            if seen.contains(&name.as_str()) {
                return Err(ConfigError::at(key, format!("'{name}' is something else already")));
            }
            seen.push(name);
        }
        if config.fields.as_ref().is_some_and(Vec::is_empty) {
            return Err(ConfigError::at("fields", "a point has at least one"));
        }
        Ok(Self {
            measurement,
            tags: config.tags.clone(),
            fields: config.fields.clone(),
            time: config.time.clone(),
            unsigned: config.unsigned,
        })
    }

    /// The columns of a batch that are fields.
    fn field_columns(&self, batch: &Batch) -> Vec<usize> {
        let schema = batch.schema();
        match &self.fields {
            Some(fields) => fields.iter().filter_map(|name| schema.index_of(name)).collect(),
            None => {
                let is_else = |name: &String| {
                    *name == self.time || self.tags.contains(name) || self.measurement.as_ref().err() == Some(name)
                };
                let columns = schema.fields.iter().enumerate();
                columns
                    .filter(|(_, field)| !is_else(&field.name))
                    .map(|(column, _)| column)
                    .collect()
            }
        }
    }

    /// The line of a row, or why it has none.
    fn line(&self, batch: &Batch, row: usize, fields: &[usize]) -> Result<String, String> {
        if batch.op(row) == Op::Delete {
            return Err("it is a deletion, and points are not deleted one by one".to_string());
        }
        let cell = |name: &str| {
            batch
                .schema()
                .index_of(name)
                .map_or(Cell::Missing, |column| batch.cell(row, column))
        };
        let mut line = match &self.measurement {
            Ok(name) => Line::of(name)?,
            Err(column) => match cell(column) {
                name if name.is_value() => Line::of(&name.to_string())?,
                _ => return Err(format!("it has no measurement in column '{column}'")),
            },
        };
        for tag in &self.tags {
            line.tag(tag, cell(tag))?;
        }
        for column in fields {
            let (name, value) = (&batch.schema().fields[*column].name, batch.cell(row, *column));
            if name == RESERVED && value.is_value() {
                return Err("InfluxDB keeps the name 'time' to itself: rename the column".to_string());
            }
            match self.integer(name, value)? {
                // Shown without quotes, it could not be told what its items were.
                Cell::List(items) => line.field(name, Cell::Json(&list_json(items)))?,
                value => line.field(name, value)?,
            }
        }
        let time = cell(&self.time);
        if !time.is_value() {
            // The server would take its own, and another one when the record comes again.
            return Err(format!("it has no time in column '{}'", self.time));
        }
        line.finish(time, Precision::Nanos)
    }

    fn integer<'a>(&self, name: &str, cell: Cell<'a>) -> Result<Cell<'a>, String> {
        match cell {
            Cell::U64(value) if !self.unsigned => {
                let signed = i64::try_from(value);
                let cause =
                    || format!("'{name}' is {value}, which is more than an integer of InfluxDB holds (see unsigned)");
                signed.map(Cell::I64).map_err(|_| cause())
            }
            cell => Ok(cell),
        }
    }
}

struct InfluxdbSink {
    client: Client,
    url: Url,
    points: Points,
    lines_max: usize,
    errands: Errands,
}

impl InfluxdbSink {
    async fn run(&mut self, encoded: &Encoded, errand: &mut Errand) -> Result<(), Fault> {
        while let Some(rows) = errand.next_rows() {
            let ask = Ask {
                method: Method::POST,
                url: self.url.clone(),
                headers: vec![(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))],
                body: encoded.joined(&rows, ("", "\n", "\n")).into(),
                answer_bytes_max: ANSWER_BYTES_MAX,
            };
            let answer = self.client.send(&ask).await.map_err(ClientError::fault)?;
            match verdict(answer.status, &answer.headers, REFUSING, SystemTime::now()) {
                Verdict::Taken => errand.taken(&rows),
                Verdict::Refused => match named(&answer, encoded, &rows) {
                    Some(refused) => errand.refused_some(&rows, &refused),
                    None => errand.refused(&rows, &format!("InfluxDB refuses it: {}", said(&answer))),
                },
                Verdict::Later(after) => {
                    let cause = format!("{} answers {}{}", self.client.place(), said(&answer), hint(&answer));
                    return Err(later(cause, after));
                }
            }
        }
        Ok(())
    }
}

/// What version 3 says of the lines it did not write.
#[derive(Deserialize)]
struct Partial {
    data: Vec<Unwritten>,
}

#[derive(Deserialize)]
struct Unwritten {
    original_line: String,
    line_number: usize,
    error_message: String,
}

/// The lines an answer names, by their index among the rows; `None` when it does not name any, or others than were sent.
fn named(answer: &Answer, encoded: &Encoded, rows: &[usize]) -> Option<Vec<(usize, String)>> {
    let partial: Partial = serde_json::from_slice(&answer.body).ok()?;
    let refused = partial.data.into_iter().map(|unwritten| {
        let index = unwritten.line_number.checked_sub(1)?;
        let line = encoded.row(*rows.get(index)?);
        let reason = format!("InfluxDB refuses it: {}", unwritten.error_message);
        (line == unwritten.original_line.as_bytes()).then_some((index, reason))
    });
    let refused: Vec<_> = refused.collect::<Option<_>>()?;
    (!refused.is_empty()).then_some(refused)
}

#[async_trait]
impl Sink for InfluxdbSink {
    async fn open(&mut self) -> Result<(), Fault> {
        self.client.connect().await.map_err(ClientError::fault)
    }

    async fn write(&mut self, deliveries: &[Delivery]) -> Result<Vec<Rejected>, Fault> {
        let mut rejected = Vec::new();
        for (index, delivery) in deliveries.iter().enumerate() {
            let fields = self.points.field_columns(&delivery.batch);
            let encoded = Encoded::of(delivery, |row, out| {
                let line = self.points.line(&delivery.batch, row, &fields)?;
                out.extend_from_slice(line.as_bytes());
                Ok(())
            });
            let mut errand = self.errands.take_up(&encoded, self.lines_max, true);
            let done = self.run(&encoded, &mut errand).await;
            rejected.extend(errand.rejected(index));
            self.errands.remember(errand);
            done?;
        }
        Ok(rejected)
    }

    /// Nothing is left to do: the server has answered that it has them.
    async fn commit(&mut self) -> Result<(), Fault> {
        self.errands.forget();
        Ok(())
    }

    async fn check(&mut self) -> Result<String, Trouble> {
        let ask = Ask {
            method: Method::GET,
            url: below(self.client.url(), "/ping"),
            headers: Vec::new(),
            body: Bytes::new(),
            answer_bytes_max: ANSWER_BYTES_MAX,
        };
        let answer = self.client.check_with(&ask).await?;
        let said = format!("{} answers {} to a ping", self.client.place(), answer.status);
        match answer.status.is_success() {
            true => Ok(format!(
                "{said}; what it says to the credentials and the database shows with the first points"
            )),
            false => Err(Trouble::new(TroubleKind::Other, said, "is there an InfluxDB?")),
        }
    }

    async fn close(&mut self) {
        self.client.close();
    }
}

#[cfg(test)]
mod tests;
