//! What only a member with the operator's role may ask a daemon: records, dead letters, trials, secrets. The plane's web operator
//! asks, for those whose role is high enough, and only daemons within their scope. Who wanted what is in the audit. Answers go to
//! whoever asked and are kept nowhere.

mod letters;
mod secrets;
mod taps;
mod trials;

use std::time::Duration;

use axum::http::StatusCode;
use bus_schema::{
    api::{ApiCall, ApiResult, FailureKind, Presence},
    id::NodeId,
    message::Message,
};

use super::{
    ask::{Answer, Ask, unexpected},
    problem::Refusal,
    table::Endpoint,
};
use crate::{
    domain::own_operator::NAME,
    permission::{Caller, Rank},
    web_operator::{DIR, Standing, WebOperator},
};

/// How long a daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take for what takes its time: a trial, a check of servers that say nothing.
const LONG_PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn endpoints() -> Vec<Endpoint> {
    [
        trials::endpoints(),
        letters::endpoints(),
        taps::endpoints(),
        secrets::endpoints(),
    ]
    .concat()
}

/// A daemon that the caller may ask, and the web operator can.
struct Daemon<'a> {
    operator: &'a WebOperator,
    name: String,
    node: NodeId,
}

/// The web operator, if it can ask. `instead`: the command that does the same.
fn operator<'a>(ask: &'a Ask, instead: &str) -> Result<&'a WebOperator, Refusal> {
    let refused =
        |message: &str, hint: String| Refusal::new(StatusCode::FORBIDDEN, FailureKind::Forbidden, message, hint);
    match &ask.web.operator {
        Standing::Off => Err(refused(
            "only an operator's keys open this, and the plane holds none: its web operator is switched off",
            format!(
                "use the command line: {instead}; or write web.operator = true into plane.toml, and start the plane again"
            ),
        )),
        Standing::On(operator) if operator.is_believed() => Ok(operator),
        Standing::On(_) | Standing::Revoked => Err(refused(
            "the plane's web operator was taken out of the fleet",
            format!(
                "use the command line: {instead}; or remove '{DIR}' in the plane's directory and start the plane again: it \
                 makes new keys"
            ),
        )),
    }
}

/// Finds a daemon that the caller sees.
async fn daemon<'a>(ask: &'a Ask, name: &str, instead: &str) -> Result<Daemon<'a>, Refusal> {
    let operator = operator(ask, instead)?;
    let ApiResult::Daemon(detail) = ask.call(ApiCall::DaemonShow(name.to_string())).await? else {
        return Err(unexpected());
    };
    let view = detail.view;
    if view.presence == Presence::Offline {
        let message = format!("daemon '{}' is offline", view.name);
        let hint = "what it holds can be seen when it is back";
        return Err(Refusal::new(
            StatusCode::GATEWAY_TIMEOUT,
            FailureKind::Internal,
            message,
            hint,
        ));
    }
    introduce(ask, operator, &view.node).await?;
    Ok(Daemon {
        operator,
        name: view.name,
        node: view.node,
    })
}

/// Makes sure that the web operator can speak to a daemon.
async fn introduce(ask: &Ask, operator: &WebOperator, node: &NodeId) -> Result<(), Refusal> {
    if operator.knows(node) {
        return Ok(());
    }
    let own = Caller::whole(NAME, Rank::Admin, "plane");
    match ask.web.service.call(&own, ApiCall::Certificate(node.to_string())).await {
        ApiResult::Certificate(certificate) => operator.admit(&certificate),
        ApiResult::Failed(failure) => return Err(failure.into()),
        _ => return Err(unexpected()),
    }
    Ok(())
}

impl Daemon<'_> {
    /// Asks it. `what` it did not do when it does not answer: `show its dead letters`.
    async fn ask<Q: Message, A: Message>(&self, what: &str, call: &Q, patience: Duration) -> Result<A, Refusal> {
        let Some(_turn) = self.operator.turn().await else {
            let (status, hint) = (StatusCode::TOO_MANY_REQUESTS, "try again in a moment");
            let message = "the web operator is asking many daemons already";
            let mut refusal = Refusal::new(status, FailureKind::Conflict, message, hint);
            refusal.retry_s = Some(1);
            return Err(refusal);
        };
        let asked = self.operator.ask(&self.node, call, patience).await;
        asked.map_err(|error| Refusal::unanswered(&self.name, what, &error))
    }
}

/// What of an answer cannot be: a daemon of another version.
fn something_else(daemon: &str) -> Refusal {
    let (status, hint) = (StatusCode::BAD_GATEWAY, "use the same version of both programs");
    Refusal::new(
        status,
        FailureKind::Internal,
        format!("daemon '{daemon}' answered something else than was asked"),
        hint,
    )
}

/// Carries out what reveals or changes something, and writes down who wanted it.
async fn noted(ask: &Ask, action: &str, what: &str, done: impl Future<Output = Answer>) -> Answer {
    let done = done.await;
    ask.noted(action, what, done).await
}
