//! Destination `nats`: one message per record. With JetStream each is acknowledged by the stream, and has an id by which the
//! stream knows it again; without, the server says that it has taken them.

use std::{collections::HashMap, time::Duration};

use async_nats::{Client, HeaderMap, StatusCode, Subscriber};
use async_trait::async_trait;
use bus_schema::plan::{ComponentRole, Descriptor};
use bytes::Bytes;
use flow::{
    Build, BuildContext, Component, ConfigError, Delivery, Fault, Rejected, Sink, Trouble, describe, parse_config,
};
use futures_util::StreamExt;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::{Instant, sleep_until};

use super::{
    ApiError, check, check_subject,
    connect::{Alive, Connected, Server, Settings},
};
use crate::{
    key,
    mqtt::Urls,
    publish::{Format, Payload, Payloads, Template},
    secret::SecretRef,
    tls::TlsFiles,
};

/// Messages on the way and not acknowledged.
const INFLIGHT_MAX: usize = 256;
/// How long the server may take to acknowledge anything while something is missing.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// The header by which a stream knows a message again.
const ID_HEADER: &str = "Nats-Msg-Id";
/// Room for headers in a message, in bytes.
const HEADER_BYTES: usize = 256;
/// JetStream's word for a message that is larger than the stream takes.
const ERROR_TOO_LARGE: u32 = 10_054;

/// Publishes each record as a message. At least once: after a crash those of the last commit (up to about 16,000) may be
/// published again.
///
/// With `jetstream` a record counts as delivered when a stream has stored it, and each message has a `Nats-Msg-Id` made of
/// stream, number and content: what is published again within the stream's `duplicate_window` (two minutes by default) is
/// dropped there. A stream must take the subject. Without it, a record counts when the server has taken the message,
/// whether somebody listens or not.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Address of the server, `nats://host:4222` or `tls://host:4222`; or a list.
    url: Urls,
    /// Subject to publish to. `{column}` stands for the record's value: `plant.{line}.temperature`. A record without that
    /// value, or with one that no subject may have, goes to the dead letters.
    subject: String,
    /// Whether a JetStream stream takes the messages.
    #[serde(default = "yes")]
    jetstream: bool,
    /// What a payload is.
    #[serde(default)]
    format: Format,
    /// For `raw`: the column whose text or bytes are the payload.
    payload_column: Option<String>,
    /// For JSON: adds a field of this name that says what each record does: insert, update, delete or upsert. Without it,
    /// deletions go to the dead letters.
    op_column: Option<String>,
    /// User name.
    user: Option<String>,
    /// Password.
    password: Option<SecretRef>,
    /// Token, instead of user and password.
    token: Option<SecretRef>,
    /// Text of a `.creds` file, instead.
    credentials: Option<SecretRef>,
    /// Seed of an nkey, instead.
    nkey: Option<SecretRef>,
    /// Certificates, for `tls://`.
    tls: Option<TlsFiles>,
}

fn yes() -> bool {
    true
}

/// The registry line.
pub(crate) const SINK: Component = Component {
    descriptor,
    build: Build::Sink(build),
};

const EXAMPLE: &str = r#"name = "publish"

[sources.readings]
type = "file"
path = "readings.jsonl"
format = "json_lines"

[destinations.plant]
type = "nats"
from = "readings"
url = "nats://broker:4222"
subject = "plant.{line}.temperature"
"#;

fn descriptor() -> Descriptor {
    let summary = "Publishes records to NATS subjects and JetStream streams";
    describe::<Config>(ComponentRole::Destination, "nats", summary, EXAMPLE)
}

fn build(config: &str, context: &BuildContext) -> Result<Box<dyn Sink>, ConfigError> {
    let config: Config = parse_config(config)?;
    let payload = Payload::new(config.format, config.payload_column, config.op_column)?;
    let subject = Template::parse(&config.subject).map_err(|cause| ConfigError::at("subject", cause))?;
    // With something in the places of columns, it has to be one.
    let filled = config.subject.replace(['{', '}'], "_");
    check_subject(&filled, false).map_err(|cause| ConfigError::at("subject", cause))?;
    let settings = Settings {
        url: config.url,
        user: config.user,
        password: config.password,
        token: config.token,
        credentials: config.credentials,
        nkey: config.nkey,
        tls: config.tls,
    };
    Ok(Box::new(NatsSink {
        server: Server::new(settings, context)?,
        subject,
        jetstream: config.jetstream,
        payload,
        session: None,
    }))
}

struct Session {
    client: Client,
    alive: Alive,
    /// Where answers come, and what subject that is.
    answers: Subscriber,
    inbox: String,
    /// Number of the next message.
    next: u64,
    /// On the way: number, and where the record stands.
    under_way: HashMap<u64, (usize, usize)>,
}

struct NatsSink {
    server: Server,
    subject: Template,
    jetstream: bool,
    payload: Payload,
    session: Option<Session>,
}

/// What a stream answers.
#[derive(Debug, Deserialize)]
struct PubAck {
    error: Option<ApiError>,
    /// The number it has there.
    seq: Option<u64>,
}

impl Session {
    /// Publishes a message. With a place, the stream's answer is waited for later.
    async fn publish(&mut self, message: Outgoing, place: Option<(usize, usize)>) -> Result<(), Fault> {
        let Outgoing { subject, payload, id } = message;
        let publishing = async {
            match place {
                None => self.client.publish(subject, payload).await,
                Some(_) => {
                    let mut headers = HeaderMap::new();
                    headers.insert(ID_HEADER, id.as_str());
                    let reply = format!("{}.{}", self.inbox, self.next);
                    self.client
                        .publish_with_reply_and_headers(subject, reply, headers, payload)
                        .await
                }
            }
        };
        tokio::select! {
            biased;
            published = publishing => published.map_err(|error| Fault::retry(format!("NATS takes no messages: {error}")))?,
            fault = self.alive.ended() => return Err(fault),
            () = sleep_until(Instant::now() + ACK_WAIT) => return Err(silent()),
        }
        if let Some(place) = place {
            self.under_way.insert(self.next, place);
            self.next += 1;
        }
        Ok(())
    }

    /// Waits until no more than this many messages are on the way. Returns the records that were refused.
    async fn settle(&mut self, most: usize) -> Result<Vec<Rejected>, Fault> {
        let mut rejected = Vec::new();
        while self.under_way.len() > most {
            let answer = tokio::select! {
                biased;
                answer = self.answers.next() => answer,
                fault = self.alive.ended() => return Err(fault),
                () = sleep_until(Instant::now() + ACK_WAIT) => return Err(silent()),
            };
            let Some(answer) = answer else {
                return Err(self.alive.ended().await);
            };
            let number = answer.subject.rsplit('.').next().and_then(|number| number.parse().ok());
            let Some((delivery, row)) = number.and_then(|number: u64| self.under_way.remove(&number)) else {
                continue;
            };
            if answer.status == Some(StatusCode::NO_RESPONDERS) {
                return Err(Fault::retry(
                    "no JetStream stream takes the subject: make one, or set jetstream = false",
                ));
            }
            if let Some(reason) = verdict(&answer.payload)? {
                rejected.push(Rejected { delivery, row, reason });
            }
        }
        Ok(rejected)
    }

    /// Waits until the server has taken everything: it answers in the order it is asked.
    async fn all_taken(&mut self) -> Result<(), Fault> {
        let here = Outgoing {
            subject: format!("{}.{}", self.inbox, self.next),
            payload: Bytes::new(),
            id: String::new(),
        };
        self.under_way.insert(self.next, (0, 0));
        self.next += 1;
        self.publish(here, None).await?;
        // The mark is a message without content, not a stream's answer.
        while !self.under_way.is_empty() {
            let came = tokio::select! {
                biased;
                came = self.answers.next() => came,
                fault = self.alive.ended() => return Err(fault),
                () = sleep_until(Instant::now() + ACK_WAIT) => return Err(silent()),
            };
            let Some(came) = came else {
                return Err(self.alive.ended().await);
            };
            if let Some(number) = came.subject.rsplit('.').next().and_then(|number| number.parse().ok()) {
                self.under_way.remove(&number);
            }
        }
        Ok(())
    }
}

/// What a stream's answer means: taken, refused for a reason that stays, or a fault.
fn verdict(answer: &[u8]) -> Result<Option<String>, Fault> {
    let answer: PubAck = serde_json::from_slice(answer)
        .map_err(|error| Fault::retry(format!("JetStream's answer cannot be read: {error}")))?;
    match (answer.error, answer.seq) {
        (None, Some(_)) => Ok(None),
        (None, None) => Err(Fault::retry("JetStream's answer says neither yes nor no")),
        (Some(error), _) if error.err_code == ERROR_TOO_LARGE => {
            Ok(Some(format!("the stream refuses it: {}", error.description)))
        }
        (Some(error), _) => Err(Fault::retry(format!(
            "the stream takes no messages: {} ({}, {})",
            error.description, error.code, error.err_code
        ))),
    }
}

fn silent() -> Fault {
    Fault::retry(format!(
        "the NATS server has not answered for {} seconds",
        ACK_WAIT.as_secs()
    ))
}

/// A message to send.
struct Outgoing {
    subject: String,
    payload: Bytes,
    id: String,
}

impl NatsSink {
    /// The message of a row, or why there is none.
    fn message(
        &self,
        delivery: &Delivery,
        row: usize,
        payloads: &Payloads<'_>,
        bytes_max: usize,
    ) -> Result<Outgoing, String> {
        let subject = self.subject.fill(&delivery.batch, row)?;
        check_subject(&subject, false)?;
        let payload = payloads.row(row)?;
        if payload.len() + HEADER_BYTES > bytes_max {
            return Err(format!(
                "the message would have {} bytes; the server takes {bytes_max}, with headers",
                payload.len()
            ));
        }
        let mut content = subject.clone().into_bytes();
        content.extend_from_slice(&payload);
        Ok(Outgoing {
            subject,
            id: format!("{}/{row}", key::of(delivery, &content)),
            payload: payload.into(),
        })
    }
}

#[async_trait]
impl Sink for NatsSink {
    async fn open(&mut self) -> Result<(), Fault> {
        self.session = None;
        let Connected { client, alive } = self.server.connect(2 * INFLIGHT_MAX).await?;
        let inbox = client.new_inbox();
        let answers = client.subscribe(format!("{inbox}.*")).await;
        let answers = answers.map_err(|error| Fault::retry(format!("NATS refuses the subscription: {error}")))?;
        self.session = Some(Session {
            client,
            alive,
            answers,
            inbox,
            next: 0,
            under_way: HashMap::new(),
        });
        Ok(())
    }

    async fn write(&mut self, deliveries: &[Delivery]) -> Result<Vec<Rejected>, Fault> {
        let Some(mut session) = self.session.take() else {
            return Err(Fault::retry("the NATS destination is not open"));
        };
        let bytes_max = session.client.server_info().max_payload;
        let mut rejected = Vec::new();
        for (index, delivery) in deliveries.iter().enumerate() {
            // Not kept across a pause: it borrows the batch.
            let messages: Vec<_> = {
                let payloads = self.payload.of(&delivery.batch);
                let rows = 0..delivery.batch.rows();
                rows.map(|row| self.message(delivery, row, &payloads, bytes_max))
                    .collect()
            };
            for (row, message) in messages.into_iter().enumerate() {
                match message {
                    Ok(message) => {
                        session.publish(message, self.jetstream.then_some((index, row))).await?;
                        rejected.extend(session.settle(INFLIGHT_MAX).await?);
                    }
                    Err(reason) => rejected.push(Rejected {
                        delivery: index,
                        row,
                        reason,
                    }),
                }
            }
        }
        rejected.extend(session.settle(0).await?);
        // After a fault it is gone, and the runner opens another.
        self.session = Some(session);
        Ok(rejected)
    }

    /// With JetStream everything is stored already.
    async fn commit(&mut self) -> Result<(), Fault> {
        match &mut self.session {
            Some(session) if !self.jetstream => session.all_taken().await,
            Some(_) => Ok(()),
            None => Err(Fault::retry("the NATS destination is not open")),
        }
    }

    async fn check(&mut self) -> Result<String, Trouble> {
        let connected = self.server.check().await?;
        let place = self.server.place();
        match (self.jetstream, self.subject.constant()) {
            (true, Some(subject)) => {
                let stream = check::takes(&connected.client, subject).await?;
                Ok(format!("{place}: the stream '{stream}' takes '{subject}'"))
            }
            _ => Ok(format!(
                "{place} lets us in; whether the subjects may be written shows with the first message"
            )),
        }
    }

    async fn close(&mut self) {
        self.session = None;
    }
}
