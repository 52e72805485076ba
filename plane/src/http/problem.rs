//! What did not work, as `application/problem+json` (RFC 9457). Decides nothing.

use axum::{
    Extension, Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bus_link::session::RequestError;
use bus_schema::api::{Failure, FailureKind, Problem};
use serde::Serialize;

use crate::permission::{Denied, Need};

/// The body of every refusal.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct ProblemDetails<'a> {
    /// Always `about:blank`: the status says which kind of problem it is, `kind` says it finer.
    #[serde(rename = "type")]
    kind_uri: &'a str,
    /// The status in words.
    title: &'a str,
    /// The status.
    status: u16,
    /// What is wrong.
    detail: &'a str,
    /// What to do about it; may be empty.
    hint: &'a str,
    /// What kind of failure.
    kind: FailureKind,
    /// Every problem of a workflow, when that is what failed.
    problems: &'a [Problem],
}

/// An answer that says no.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) failure: Failure,
    /// When to try again, in seconds.
    pub(super) retry_s: Option<u64>,
}

impl Refusal {
    pub(super) fn new(
        status: StatusCode,
        kind: FailureKind,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        let failure = Failure {
            kind,
            message: message.into(),
            hint: hint.into(),
            problems: Vec::new(),
        };
        Self {
            status,
            failure,
            retry_s: None,
        }
    }

    pub(super) fn invalid(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, FailureKind::Invalid, message, hint)
    }

    pub(super) fn not_found(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, FailureKind::NotFound, message, hint)
    }

    pub(super) fn conflict(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, FailureKind::Conflict, message, hint)
    }

    /// For what somebody else has changed meanwhile.
    pub(super) fn changed(failure: Failure) -> Self {
        Self {
            status: StatusCode::PRECONDITION_FAILED,
            failure,
            retry_s: None,
        }
    }

    pub(super) fn internal(cause: impl std::fmt::Display) -> Self {
        let hint = "look at the plane's log and its disk";
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            FailureKind::Internal,
            cause.to_string(),
            hint,
        )
    }

    /// For what a daemon did not answer. `what` it did not do: `show its log`.
    pub(super) fn unanswered(daemon: &str, what: &str, error: &RequestError) -> Self {
        let (status, hint) = match error {
            RequestError::Timeout(_) => (StatusCode::GATEWAY_TIMEOUT, "see whether it is online"),
            _ => (
                StatusCode::BAD_GATEWAY,
                "see whether it is online, and of the same version",
            ),
        };
        let message = format!("daemon '{daemon}' does not {what}: {error}");
        Self::new(status, FailureKind::Internal, message, hint)
    }

    /// For what a table says no to.
    pub(super) fn denied(denied: Denied, need: Need, login_hint: &str) -> Self {
        match denied {
            Denied::Unknown => Self::new(
                StatusCode::UNAUTHORIZED,
                FailureKind::Forbidden,
                "you are not logged in",
                login_hint,
            ),
            Denied::Rank(_) => Self::new(
                StatusCode::FORBIDDEN,
                FailureKind::Forbidden,
                format!("this needs the role {}", need.word()),
                "ask an admin of this plane",
            ),
            Denied::Scope => Self::new(
                StatusCode::FORBIDDEN,
                FailureKind::Forbidden,
                "this is about the whole fleet, and you have a scope",
                "ask somebody whose role has no scope",
            ),
        }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        let status = match failure.kind {
            FailureKind::Invalid => StatusCode::BAD_REQUEST,
            FailureKind::NotFound => StatusCode::NOT_FOUND,
            FailureKind::Conflict => StatusCode::CONFLICT,
            FailureKind::Forbidden => StatusCode::FORBIDDEN,
            FailureKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self {
            status,
            failure,
            retry_s: None,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self {
            status,
            failure,
            retry_s,
        } = self;
        let body = Json(ProblemDetails {
            kind_uri: "about:blank",
            title: status.canonical_reason().unwrap_or("Failed"),
            status: status.as_u16(),
            detail: &failure.message,
            hint: &failure.hint,
            kind: failure.kind,
            problems: &failure.problems,
        })
        .into_response();
        // The failure is kept beside the JSON, for whoever turns it into a page.
        let mut response = (status, Extension(failure), body).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(wait_s) = retry_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait_s));
        }
        response
    }
}
