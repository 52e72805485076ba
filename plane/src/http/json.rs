//! Operators' calls as JSON over HTTP: paths and bodies become an [`ApiCall`], answers become JSON. No logic of its own.

use std::sync::Arc;

use axum::{
    Extension, Json, Router,
    extract::{
        Path, Query, State as Shared,
        rejection::{JsonRejection, QueryRejection},
    },
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use bus_schema::{
    api::{ApiCall, ApiResult, BrokerKind, Failure, FailureKind},
    member::Role,
    observe::ObserveResult,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Web, Web_};
use crate::login::FIRST_TTL_S;

/// In whose name the page's calls are made.
const CALLER: &str = "web";
const NO_SUCH_CALL: &str = "there is no such call";

/// Everything below `/api`, except the live picture.
pub(super) fn routes() -> Router<Arc<Web>> {
    Router::new()
        .route("/info", get(async |web: Web_| call(web, ApiCall::Info).await))
        .route("/daemons", get(async |web: Web_| call(web, ApiCall::DaemonList).await))
        .route(
            "/daemons/{name}",
            get(async |web: Web_, Path(name): Path<String>| call(web, ApiCall::DaemonShow(name)).await),
        )
        .route(
            "/workflows",
            get(async |web: Web_| call(web, ApiCall::WorkflowList).await),
        )
        .route("/workflows/validate", post(validate))
        .route("/workflows/{name}", get(show).put(apply).delete(delete))
        .route("/workflows/{name}/status", get(status))
        .route("/ledger", get(async |web: Web_| call(web, ApiCall::Ledger).await))
        .route(
            "/components",
            get(async |web: Web_| call(web, ApiCall::Components).await),
        )
        .route("/tokens", post(token))
        .route("/access-list", get(access_list))
        .method_not_allowed_fallback(wrong_method)
}

async fn call(Shared(web): Web_, call: ApiCall) -> Response {
    answer(web.service.call(CALLER, call).await)
}

/// An answer as JSON; a failure with its status.
fn answer(result: ApiResult) -> Response {
    match result {
        ApiResult::Failed(failure) => fail(failure),
        ApiResult::Info(info) => Json(info).into_response(),
        ApiResult::Token(invitation) => Json(json!({ "invitation": invitation })).into_response(),
        ApiResult::Daemons(daemons) => Json(daemons).into_response(),
        ApiResult::Daemon(daemon) => Json(daemon).into_response(),
        ApiResult::Problems(problems) => Json(json!({ "problems": problems })).into_response(),
        ApiResult::Revision(revision) => Json(json!({ "revision": revision })).into_response(),
        ApiResult::Workflows(workflows) => Json(workflows).into_response(),
        ApiResult::Workflow { view, text } => Json(json!({ "view": view, "text": text })).into_response(),
        ApiResult::Status { view, parts, streams } => {
            Json(json!({ "view": view, "parts": parts, "streams": streams })).into_response()
        }
        ApiResult::Ledger(streams) => Json(streams).into_response(),
        ApiResult::Components(components) => Json(components).into_response(),
        ApiResult::Labels(labels) => Json(labels).into_response(),
        ApiResult::Revisions(revisions) => Json(revisions).into_response(),
        ApiResult::Text(text) => Json(json!({ "text": text })).into_response(),
        ApiResult::Tokens(tokens) => Json(tokens).into_response(),
        ApiResult::AccessList(text) => Json(json!({ "text": text })).into_response(),
        ApiResult::Observe(result) => observed(result),
        // Holds the group key, and no page has a use for it.
        ApiResult::Roster(_) => refuse(StatusCode::NOT_FOUND, FailureKind::NotFound, NO_SUCH_CALL, ""),
    }
}

fn observed(result: ObserveResult) -> Response {
    match result {
        ObserveResult::Series(series) => Json(series).into_response(),
        ObserveResult::Alerts(alerts) => Json(alerts).into_response(),
        ObserveResult::Rules(rules) => Json(rules).into_response(),
        ObserveResult::Preview(fired) => Json(fired).into_response(),
        ObserveResult::Sent(channel) => Json(json!({ "channel": channel })).into_response(),
    }
}

fn fail(failure: Failure) -> Response {
    let status = match failure.kind {
        FailureKind::Invalid => StatusCode::BAD_REQUEST,
        FailureKind::NotFound => StatusCode::NOT_FOUND,
        FailureKind::Conflict => StatusCode::CONFLICT,
        FailureKind::Forbidden => StatusCode::FORBIDDEN,
        FailureKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, Json(failure)).into_response()
}

/// A failure of the road, not of the call.
pub(super) fn refuse(status: StatusCode, kind: FailureKind, message: &str, hint: &str) -> Response {
    let failure = Failure {
        kind,
        message: message.to_string(),
        hint: hint.to_string(),
        problems: Vec::new(),
    };
    // Kept beside the JSON, for whoever turns it into a page.
    (status, Extension(failure.clone()), Json(failure)).into_response()
}

pub(super) fn rejected(rejection: &JsonRejection) -> Response {
    refuse(
        rejection.status(),
        FailureKind::Invalid,
        &rejection.body_text(),
        "send JSON, with content-type: application/json",
    )
}

pub(super) async fn no_such_call() -> Response {
    refuse(StatusCode::NOT_FOUND, FailureKind::NotFound, NO_SUCH_CALL, "")
}

async fn wrong_method() -> Response {
    refuse(
        StatusCode::METHOD_NOT_ALLOWED,
        FailureKind::Invalid,
        "this cannot be done with that method",
        "",
    )
}

type Body<T> = Result<Json<T>, JsonRejection>;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    text: String,
    #[serde(default)]
    expect_revision: Option<u32>,
}

async fn validate(web: Web_, body: Body<Text>) -> Response {
    match body {
        Ok(Json(Text { text, .. })) => call(web, ApiCall::WorkflowValidate { text }).await,
        Err(rejection) => rejected(&rejection),
    }
}

async fn show(web: Web_, Path(name): Path<String>) -> Response {
    call(web, ApiCall::WorkflowShow(name)).await
}

async fn status(web: Web_, Path(name): Path<String>) -> Response {
    call(web, ApiCall::WorkflowStatus(name)).await
}

async fn delete(web: Web_, Path(name): Path<String>) -> Response {
    call(web, ApiCall::WorkflowDelete(name)).await
}

/// The name stands in the path and in the text: they have to be the same, or another workflow would be changed.
async fn apply(web: Web_, Path(name): Path<String>, body: Body<Text>) -> Response {
    let Json(Text { text, expect_revision }) = match body {
        Ok(body) => body,
        Err(rejection) => return rejected(&rejection),
    };
    if let Ok(spec) = workflow::parse(&text)
        && spec.name() != name
    {
        let message = format!("the text is of the workflow '{}', not of '{name}'", spec.name());
        let hint = "a workflow cannot be renamed: apply it as a new one and delete the old one";
        return refuse(StatusCode::BAD_REQUEST, FailureKind::Invalid, &message, hint);
    }
    call(web, ApiCall::WorkflowApply { text, expect_revision }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenWish {
    role: Role,
    #[serde(default)]
    name: Option<String>,
    #[serde(default = "one")]
    uses: u32,
    #[serde(default = "a_day")]
    ttl_s: u64,
}

fn one() -> u32 {
    1
}

fn a_day() -> u64 {
    FIRST_TTL_S
}

async fn token(web: Web_, body: Body<TokenWish>) -> Response {
    match body {
        Ok(Json(TokenWish {
            role,
            name,
            uses,
            ttl_s,
        })) => {
            call(
                web,
                ApiCall::TokenCreate {
                    role,
                    name,
                    uses,
                    ttl_s,
                },
            )
            .await
        }
        Err(rejection) => rejected(&rejection),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Broker {
    broker: BrokerKind,
}

async fn access_list(web: Web_, query: Result<Query<Broker>, QueryRejection>) -> Response {
    match query {
        Ok(Query(Broker { broker })) => call(web, ApiCall::AccessList(broker)).await,
        Err(rejection) => {
            let hint = "ask for ?broker=mosquitto or ?broker=nats";
            refuse(
                StatusCode::BAD_REQUEST,
                FailureKind::Invalid,
                &rejection.body_text(),
                hint,
            )
        }
    }
}
