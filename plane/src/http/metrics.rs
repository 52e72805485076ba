//! `GET /metrics`: for Prometheus, which shows a token instead of a session. Off unless the settings name a token.

use std::sync::Arc;

use axum::{
    extract::State as Shared,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use bus_schema::{api::FailureKind, member::same_secret};

use super::{Web, problem::Refusal};
use crate::metrics::{self, Standing};

/// In whose name the calls are made.
const CALLER: &str = "metrics";

/// Answers with everything, or says why not.
pub(super) async fn metrics(Shared(web): Shared<Arc<Web>>, headers: HeaderMap) -> Response {
    let Some(token) = &web.metrics_token else {
        let hint = "name a file that holds a token in plane.toml: metrics_token_file = \"metrics.token\"";
        return Refusal::new(StatusCode::NOT_FOUND, FailureKind::NotFound, "metrics are off", hint).into_response();
    };
    let shown = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    if !shown.is_some_and(|shown| same_secret(shown, token.as_bytes())) {
        let hint = "send the token: authorization: Bearer …";
        return Refusal::new(
            StatusCode::UNAUTHORIZED,
            FailureKind::Forbidden,
            "the token is missing or wrong",
            hint,
        )
        .into_response();
    }
    let standing = match Standing::ask(&web.service, CALLER).await {
        Ok(standing) => standing,
        Err(message) => {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            return Refusal::new(status, FailureKind::Internal, message, "try again").into_response();
        }
    };
    let text = metrics::text(&standing);
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}
