//! Destination `http`: requests with records in them, and what their answers mean.

use std::{collections::BTreeMap, time::SystemTime};

use async_trait::async_trait;
use bus_schema::plan::{ComponentRole, Descriptor};
use flow::{
    Build, BuildContext, Component, ConfigError, Delivery, Fault, Rejected, Sink, Trouble, describe, parse_config,
};
use hyper::{
    Method,
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    client::{Ask, Authorization, Client, ClientError, Settings},
    errand::{Encoded, Errand, Errands, Standing, later},
    verdict::{Verdict, hint, said, verdict},
};
use crate::{
    key,
    publish::{self, Payload},
    secret::SecretRef,
    tls::TlsFiles,
};

/// Most bytes of an answer: room for what is said of each record.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Bounds of `records_max`.
const RECORDS_MAX: std::ops::RangeInclusive<usize> = 1..=65_536;
/// Statuses that are about the records: the request is malformed, too large, or cannot be processed.
const REFUSING: &[u16] = &[400, 413, 422];

/// Sends records to an HTTP server, several in a request. A 2xx answer takes them. What the server refuses (400, 413 and 422,
/// or what `refused_status` says) goes to the dead letters: a refused request is sent again in halves, until those records
/// are alone that it means, unless `split_refused` is off. Anything else is tried again: 429 and 5xx, after the pause that
/// `Retry-After` asks for; and also 401, 403 or 404, because nothing is wrong with the records then. Redirects are not
/// followed.
///
/// At least once: when an answer is lost, or after a crash, the same request is sent again, and has the same
/// `Idempotency-Key`: a server that remembers the keys has each record once. (After a crash a source whose input has grown
/// meanwhile may put other records together; that request has a key of its own.)
///
/// With `outcomes` the server answers for each record: the body of its 2xx answer is a JSON array with an object for each
/// record of the request, in their order: `[{"status": 201}, {"status": 422, "error": "too hot"}, {"status": 503}]`. The
/// statuses mean what they mean for a request; what has to come again is sent without the others, under a key of its own.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Where to send to: `https://host/path` or `http://host:8080/path`.
    url: String,
    /// The method of the requests.
    #[serde(default)]
    method: MethodName,
    /// What a request carries.
    #[serde(default)]
    format: Format,
    /// For `raw`: the column whose text or bytes are the body.
    payload_column: Option<String>,
    /// For JSON: adds a field of this name that says what each record does: insert, update, delete or upsert. Without it,
    /// deletions go to the dead letters.
    op_column: Option<String>,
    /// Header `Content-Type`. By default what the format is.
    content_type: Option<String>,
    /// Most records in a request.
    #[serde(default = "a_thousand")]
    records_max: usize,
    /// Whether the server answers for each record of a request.
    #[serde(default)]
    outcomes: bool,
    /// Statuses that refuse the records; by default 400, 413 and 422.
    refused_status: Option<Vec<u16>>,
    /// Whether a refused request is sent again in halves to find the records it means. Turn it off for a server that has
    /// taken some of them.
    #[serde(default = "yes")]
    split_refused: bool,
    /// The header with the key.
    #[serde(default = "idempotency_key")]
    idempotency_header: String,
    /// More headers; a value may be a secret.
    #[serde(default)]
    headers: BTreeMap<String, SecretRef>,
    /// User name (Basic).
    user: Option<String>,
    /// Password.
    password: Option<SecretRef>,
    /// Token (Bearer), instead of user and password.
    bearer: Option<SecretRef>,
    /// Certificates, for `https`.
    tls: Option<TlsFiles>,
    /// How long an answer may take, in milliseconds: 100 to 50,000.
    #[serde(default = "half_a_minute")]
    timeout_ms: u64,
}

/// What a request carries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Format {
    /// A JSON array of objects.
    #[default]
    JsonArray,
    /// One JSON object per line.
    JsonLines,
    /// One record, as a JSON object.
    Json,
    /// One record: one column of it, as it is.
    Raw,
}

/// The method of a request.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
enum MethodName {
    #[default]
    Post,
    Put,
    Patch,
}

fn yes() -> bool {
    true
}

fn a_thousand() -> usize {
    1000
}

fn half_a_minute() -> u64 {
    30_000
}

fn idempotency_key() -> String {
    "Idempotency-Key".to_string()
}

/// The registry line.
pub(crate) const SINK: Component = Component {
    descriptor,
    build: Build::Sink(build),
};

const EXAMPLE: &str = r#"name = "upload"

[sources.readings]
type = "file"
path = "readings.jsonl"
format = "json_lines"

[destinations.service]
type = "http"
from = "readings"
url = "https://api.example.org/readings"
bearer = { env = "API_TOKEN" }
"#;

fn descriptor() -> Descriptor {
    let summary = "Sends records to an HTTP server, several in a request";
    describe::<Config>(ComponentRole::Destination, "http", summary, EXAMPLE)
}

fn build(config: &str, context: &BuildContext) -> Result<Box<dyn Sink>, ConfigError> {
    let config: Config = parse_config(config)?;
    let is_single = matches!(config.format, Format::Json | Format::Raw);
    if !RECORDS_MAX.contains(&config.records_max) {
        let bounds = format!("is {} to {}", RECORDS_MAX.start(), RECORDS_MAX.end());
        return Err(ConfigError::at("records_max", bounds));
    }
    if config.outcomes && is_single {
        let cause = "the answer's status is the outcome when a request carries one record";
        return Err(ConfigError::at("outcomes", cause));
    }
    if config.op_column.as_deref() == Some("") {
        return Err(ConfigError::at("op_column", "the name is empty"));
    }
    let refusing = config.refused_status.unwrap_or_else(|| REFUSING.to_vec());
    if refusing.iter().any(|status| !(400..500).contains(status)) {
        let cause = "a status that refuses records is 400 to 499: others say nothing of them";
        return Err(ConfigError::at("refused_status", cause));
    }
    let format = match config.format {
        Format::Raw => publish::Format::Raw,
        _ => publish::Format::Json,
    };
    let (between, usual_type) = match config.format {
        Format::JsonArray => (("[", ",", "]"), "application/json"),
        Format::JsonLines => (("", "\n", "\n"), "application/x-ndjson"),
        Format::Json => (("", "", ""), "application/json"),
        Format::Raw => (("", "", ""), "application/octet-stream"),
    };
    let content_type = HeaderValue::from_str(config.content_type.as_deref().unwrap_or(usual_type));
    let settings = Settings {
        url: config.url,
        headers: config.headers,
        authorization: Authorization::of(config.user, config.password, config.bearer)?,
        tls: config.tls,
        timeout_ms: config.timeout_ms,
    };
    Ok(Box::new(HttpSink {
        payload: Payload::new(format, config.payload_column, config.op_column)?,
        client: Client::new(settings, context)?,
        method: match config.method {
            MethodName::Post => Method::POST,
            MethodName::Put => Method::PUT,
            MethodName::Patch => Method::PATCH,
        },
        between,
        content_type: content_type.map_err(|_| ConfigError::at("content_type", "is no value of a header"))?,
        key_header: HeaderName::try_from(&config.idempotency_header)
            .map_err(|_| ConfigError::at("idempotency_header", "is no name of a header"))?,
        rows_max: if is_single { 1 } else { config.records_max },
        outcomes: config.outcomes,
        splits: config.split_refused,
        refusing,
        errands: Errands::default(),
    }))
}

struct HttpSink {
    client: Client,
    method: Method,
    payload: Payload,
    /// What stands before, between and behind the records of a request.
    between: (&'static str, &'static str, &'static str),
    content_type: HeaderValue,
    key_header: HeaderName,
    rows_max: usize,
    outcomes: bool,
    splits: bool,
    refusing: Vec<u16>,
    errands: Errands,
}

/// What a server says of a record.
#[derive(Debug, Deserialize)]
struct Outcome {
    status: u16,
    #[serde(default)]
    error: Option<serde_json::Value>,
}

impl HttpSink {
    fn encode(&self, delivery: &Delivery) -> Encoded {
        let payloads = self.payload.of(&delivery.batch);
        Encoded::of(delivery, |row, out| {
            payloads.row(row).map(|payload| out.extend(payload))
        })
    }

    async fn run(&mut self, delivery: &Delivery, encoded: &Encoded, errand: &mut Errand) -> Result<(), Fault> {
        while let Some(rows) = errand.next_rows() {
            let body = encoded.joined(&rows, self.between);
            // The first row too: the same record may stand twice in a batch.
            let key = format!("{}/{}", key::of(delivery, &body), rows.first().unwrap_or(&0));
            let key = HeaderValue::try_from(key).map_err(|error| Fault::stop(error.to_string()))?;
            let ask = Ask {
                method: self.method.clone(),
                url: self.client.url().clone(),
                headers: vec![
                    (CONTENT_TYPE, self.content_type.clone()),
                    (self.key_header.clone(), key),
                ],
                body: body.into(),
                answer_bytes_max: ANSWER_BYTES_MAX,
            };
            let answer = self.client.send(&ask).await.map_err(ClientError::fault)?;
            match verdict(answer.status, &answer.headers, &self.refusing, SystemTime::now()) {
                Verdict::Taken if self.outcomes => {
                    let standing = self.standing(&answer.body, rows.len());
                    let standing =
                        standing.map_err(|cause| Fault::retry(format!("{}: {cause}", self.client.place())))?;
                    let open = standing.iter().filter(|standing| **standing == Standing::Open).count();
                    errand.answered(&rows, standing);
                    if open > 0 {
                        let cause = format!("{} wants {open} of {} records again", self.client.place(), rows.len());
                        return Err(later(cause, super::verdict::pause(&answer.headers, SystemTime::now())));
                    }
                }
                Verdict::Taken => errand.taken(&rows),
                Verdict::Refused => errand.refused(&rows, &format!("the server refuses it: {}", said(&answer))),
                Verdict::Later(after) => {
                    let cause = format!("{} answers {}{}", self.client.place(), said(&answer), hint(&answer));
                    return Err(later(cause, after));
                }
            }
        }
        Ok(())
    }

    /// What an answer says of each record.
    fn standing(&self, body: &[u8], records: usize) -> Result<Vec<Standing>, String> {
        let form = "with outcomes its answer is a JSON array of {\"status\": …} for each record";
        let outcomes: Vec<Outcome> = serde_json::from_slice(body).map_err(|error| format!("{form}: {error}"))?;
        if outcomes.len() != records {
            return Err(format!("{form}, and this one has {} for {records}", outcomes.len()));
        }
        let standing = |outcome: Outcome| match outcome.status {
            200..=299 => Standing::Taken,
            status if self.refusing.contains(&status) => {
                let why = match outcome.error {
                    Some(serde_json::Value::String(why)) => format!(": {why}"),
                    Some(why) => format!(": {why}"),
                    None => String::new(),
                };
                Standing::Refused(format!("the server refuses it: {status}{why}"))
            }
            _ => Standing::Open,
        };
        Ok(outcomes.into_iter().map(standing).collect())
    }
}

#[async_trait]
impl Sink for HttpSink {
    async fn open(&mut self) -> Result<(), Fault> {
        self.client.connect().await.map_err(ClientError::fault)
    }

    async fn write(&mut self, deliveries: &[Delivery]) -> Result<Vec<Rejected>, Fault> {
        let mut rejected = Vec::new();
        for (index, delivery) in deliveries.iter().enumerate() {
            let encoded = self.encode(delivery);
            let mut errand = self.errands.take_up(&encoded, self.rows_max, self.splits);
            let done = self.run(delivery, &encoded, &mut errand).await;
            rejected.extend(errand.rejected(index));
            self.errands.remember(errand);
            done?;
        }
        Ok(rejected)
    }

    /// Nothing is left to do: the server has answered for all of it.
    async fn commit(&mut self) -> Result<(), Fault> {
        self.errands.forget();
        Ok(())
    }

    async fn check(&mut self) -> Result<String, Trouble> {
        self.client.check().await?;
        Ok(format!(
            "{} can be reached; what it says to the credentials and the address shows with the first records",
            self.client.place()
        ))
    }

    async fn close(&mut self) {
        self.client.close();
    }
}
