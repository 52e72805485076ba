//! What JetStream says to checks: is there such a stream, does one take a subject. Makes nothing, takes no message.

use std::time::Duration;

use async_nats::Client;
use flow::{Trouble, TroubleKind as Kind};
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use super::{ApiError, connect::Connected};
use crate::reach::{forbidden, missing};

/// How long JetStream may take to answer.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// How long the server may take to refuse something.
const REFUSAL_WAIT: Duration = Duration::from_millis(200);

#[derive(Deserialize)]
struct Answer {
    error: Option<ApiError>,
    streams: Option<Vec<String>>,
}

async fn ask(client: &Client, api: &str, request: String) -> Result<Answer, Trouble> {
    let without = |cause: String| {
        let remedy = "turn JetStream on in the server, and let the user publish to $JS.API.> and subscribe to _INBOX.>";
        Trouble::new(Kind::Setup, cause, remedy)
    };
    let answered = timeout(ANSWER_WAIT, client.request(api.to_string(), request.into())).await;
    let answer = answered
        .map_err(|_| without("JetStream does not answer".to_string()))?
        .map_err(|error| without(format!("JetStream does not answer ({error})")))?;
    serde_json::from_slice(&answer.payload)
        .map_err(|error| without(format!("the answer of JetStream cannot be read: {error}")))
}

/// There is such a stream.
pub(super) async fn stream(client: &Client, stream: &str) -> Result<(), Trouble> {
    let answer = ask(client, &format!("$JS.API.STREAM.INFO.{stream}"), String::new()).await?;
    match answer.error {
        None => Ok(()),
        Some(error) => Err(missing(
            format!(
                "the stream '{stream}' cannot be used: {} ({})",
                error.description, error.err_code
            ),
            "make the stream, or correct its name",
        )),
    }
}

/// A stream takes this subject.
pub(super) async fn takes(client: &Client, subject: &str) -> Result<String, Trouble> {
    let answer = ask(
        client,
        "$JS.API.STREAM.NAMES",
        json!({ "subject": subject }).to_string(),
    )
    .await?;
    let streams = answer.streams.unwrap_or_default();
    let none = || {
        missing(
            format!("no stream takes the subject '{subject}'"),
            "make one, or set jetstream = false",
        )
    };
    streams.into_iter().next().ok_or_else(none)
}

/// A subject can be subscribed to: the server refuses a little later, if it does.
pub(super) async fn subscribable(connected: &mut Connected, subject: &str) -> Result<(), Trouble> {
    let refused = |cause: String| {
        forbidden(
            format!("the subject '{subject}' cannot be subscribed to: {cause}"),
            "let the user subscribe to it in the server's permissions",
        )
    };
    let subscribed = connected.client.subscribe(subject.to_string()).await;
    let _subscriber = subscribed.map_err(|error| refused(error.to_string()))?;
    let flushed = timeout(ANSWER_WAIT, connected.client.flush()).await;
    if !matches!(flushed, Ok(Ok(()))) {
        return Err(Trouble::new(
            Kind::Silent,
            "the server does not answer",
            "look at its load",
        ));
    }
    match timeout(REFUSAL_WAIT, connected.alive.ended()).await {
        Ok(fault) => Err(refused(fault.to_string())),
        Err(_) => Ok(()),
    }
}
