//! The table of the API's endpoints: router, permission check and `openapi.json` are made from it, and from nothing else.
//! A new endpoint is a line in the `endpoints` of the file it belongs to; a new file is a line in [`endpoints`] here.

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{ConnectInfo, RawPathParams, State as Shared, rejection::RawPathParamsRejection},
    http::{Request, StatusCode},
    response::{IntoResponse as _, Response},
    routing::{MethodFilter, on},
};
use bus_schema::api::FailureKind;

use super::{
    BODY_BYTES_MAX, Peer, Web, about, api_tokens,
    ask::{Answer, Ask, Handler},
    audit, auth, commands, drafts, fleet, groups, live, observe, oidc, operator as web_operator, operators, pending,
    problem::Refusal,
    road::Road,
    rollouts, users, workflows,
};
use crate::permission::{Need, Rank, Reach};

/// Below this every path of the table begins.
pub(super) const BASE: &str = "/api/v1";

/// What is done with a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Reads.
    Get,
    /// Makes, or does.
    Post,
    /// Puts in the place of what is there.
    Put,
    /// Changes parts.
    Patch,
    /// Takes away.
    Delete,
}

impl Verb {
    fn filter(self) -> MethodFilter {
        match self {
            Self::Get => MethodFilter::GET,
            Self::Post => MethodFilter::POST,
            Self::Put => MethodFilter::PUT,
            Self::Patch => MethodFilter::PATCH,
            Self::Delete => MethodFilter::DELETE,
        }
    }

    /// As HTTP writes it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// The shape of a body, as JSON Schema: known only where the API is described, and not in what users run.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    #[cfg(feature = "schema")]
    pub(super) schema: fn(&mut schemars::SchemaGenerator) -> schemars::Schema,
}

/// Anything that can be described.
#[cfg(feature = "schema")]
pub(super) trait Described: schemars::JsonSchema {}
#[cfg(feature = "schema")]
impl<T: schemars::JsonSchema> Described for T {}
/// Anything: there is no description in this program.
#[cfg(not(feature = "schema"))]
pub(super) trait Described {}
#[cfg(not(feature = "schema"))]
impl<T> Described for T {}

impl Shape {
    fn of<T: Described>() -> Self {
        Self {
            #[cfg(feature = "schema")]
            schema: |generator| generator.subschema_for::<T>(),
        }
    }
}

/// What an endpoint answers when all is well.
#[derive(Debug, Clone, Copy)]
pub enum Reply {
    /// 204.
    Nothing,
    /// 200 and JSON.
    Json(Shape),
    /// 200 and server-sent events.
    Events,
    /// 303: the browser goes on elsewhere.
    Elsewhere,
}

/// A line of the table.
#[derive(Clone)]
pub struct Endpoint {
    /// What is done …
    pub verb: Verb,
    /// … with what, below the base; `{x}` is a parameter.
    pub path: &'static str,
    /// Who may.
    pub need: Need,
    /// One line for people.
    pub summary: &'static str,
    /// What may stand after the question mark.
    pub query: Option<Shape>,
    /// What has to be sent.
    pub body: Option<Shape>,
    /// Whether it has to be said which version this shall replace: with `If-Match` or `If-None-Match`.
    pub is_conditional: bool,
    /// What comes back.
    pub reply: Reply,
    handler: Handler,
}

impl Endpoint {
    pub(super) fn new(verb: Verb, path: &'static str, need: Need, summary: &'static str, handler: Handler) -> Self {
        Self {
            verb,
            path,
            need,
            summary,
            query: None,
            body: None,
            is_conditional: false,
            reply: Reply::Nothing,
            handler,
        }
    }

    pub(super) fn get(path: &'static str, need: Need, summary: &'static str, handler: Handler) -> Self {
        Self::new(Verb::Get, path, need, summary, handler)
    }

    pub(super) fn post(path: &'static str, need: Need, summary: &'static str, handler: Handler) -> Self {
        Self::new(Verb::Post, path, need, summary, handler)
    }

    pub(super) fn put(path: &'static str, need: Need, summary: &'static str, handler: Handler) -> Self {
        Self::new(Verb::Put, path, need, summary, handler)
    }

    pub(super) fn patch(path: &'static str, need: Need, summary: &'static str, handler: Handler) -> Self {
        Self::new(Verb::Patch, path, need, summary, handler)
    }

    pub(super) fn delete(path: &'static str, need: Need, summary: &'static str, handler: Handler) -> Self {
        Self::new(Verb::Delete, path, need, summary, handler)
    }

    pub(super) fn query<T: Described>(self) -> Self {
        let query = Some(Shape::of::<T>());
        Self { query, ..self }
    }

    pub(super) fn takes<T: Described>(self) -> Self {
        let body = Some(Shape::of::<T>());
        Self { body, ..self }
    }

    pub(super) fn conditional(self) -> Self {
        let is_conditional = true;
        Self { is_conditional, ..self }
    }

    pub(super) fn answers<T: Described>(self) -> Self {
        let reply = Reply::Json(Shape::of::<T>());
        Self { reply, ..self }
    }

    pub(super) fn leads_elsewhere(self) -> Self {
        let reply = Reply::Elsewhere;
        Self { reply, ..self }
    }

    pub(super) fn events(self) -> Self {
        let reply = Reply::Events;
        Self { reply, ..self }
    }
}

/// A handler for the table, out of an `async fn(Ask) -> Answer`.
macro_rules! by {
    ($function:path) => {
        |ask| Box::pin($function(ask))
    };
}
pub(super) use by;

/// Who may, for the table.
pub(super) const OPEN: Need = Need::Open;
pub(super) const fn viewer(reach: Reach) -> Need {
    Need::Rank(Rank::Viewer, reach)
}
pub(super) const fn operator(reach: Reach) -> Need {
    Need::Rank(Rank::Operator, reach)
}
pub(super) const fn admin() -> Need {
    Need::Rank(Rank::Admin, Reach::Whole)
}

/// The whole table.
pub fn endpoints() -> Vec<Endpoint> {
    [
        auth::endpoints(),
        oidc::endpoints(),
        fleet::endpoints(),
        workflows::endpoints(),
        live::endpoints(),
        observe::endpoints(),
        users::endpoints(),
        pending::endpoints(),
        groups::endpoints(),
        operators::endpoints(),
        rollouts::endpoints(),
        api_tokens::endpoints(),
        drafts::endpoints(),
        audit::endpoints(),
        commands::endpoints(),
        web_operator::endpoints(),
        about::endpoints(),
    ]
    .concat()
}

/// Everything below the base.
pub(super) fn routes() -> Router<Arc<Web>> {
    let mut router = Router::new();
    for endpoint in endpoints() {
        let (path, filter, endpoint) = (endpoint.path, endpoint.verb.filter(), Arc::new(endpoint));
        let handler = move |Shared(web): Shared<Arc<Web>>,
                            ConnectInfo(peer): ConnectInfo<Peer>,
                            params: Result<RawPathParams, RawPathParamsRejection>,
                            request: Request<Body>| {
            let endpoint = Arc::clone(&endpoint);
            async move {
                let answer = dispatch(&endpoint, web, peer, params, request).await;
                answer.unwrap_or_else(Refusal::into_response)
            }
        };
        router = router.route(path, on(filter, handler));
    }
    router.method_not_allowed_fallback(wrong_method).fallback(no_such_call)
}

/// Who is it, may it, and only then: what does it want.
async fn dispatch(
    endpoint: &Endpoint,
    web: Arc<Web>,
    peer: Peer,
    params: Result<RawPathParams, RawPathParamsRejection>,
    request: Request<Body>,
) -> Answer {
    let (parts, body) = request.into_parts();
    let Road { from, is_secure } = web.auth.roads.of(peer.0, &parts.headers);
    let known = web.auth.identify(&parts.headers, &from).await?;
    if let Err(denied) = endpoint.need.judge(known.as_ref()) {
        let refusal = Refusal::denied(denied, endpoint.need, web.auth.login_hint());
        audit::refused(&web, known.as_ref(), endpoint.verb, parts.uri.path(), &refusal).await;
        return Err(refusal);
    }
    let params = params.map_err(|rejection| Refusal::invalid(rejection.body_text(), ""))?;
    let params = params
        .iter()
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .collect();
    let body = to_bytes(body, BODY_BYTES_MAX).await.map_err(|_| {
        let message = format!("the body is longer than {BODY_BYTES_MAX} bytes, or was cut off");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, FailureKind::Invalid, message, "")
    })?;
    let ask = Ask {
        web,
        known,
        from,
        is_secure,
        params,
        uri: parts.uri,
        headers: parts.headers,
        body,
    };
    // Not cut off when whoever asked hangs up: what was done is written down too.
    let done = tokio::spawn((endpoint.handler)(ask)).await;
    done.map_err(Refusal::internal)?
}

/// Who is not logged in is told that first: what there is, is nobody's business.
async fn no_such_call(Shared(web): Shared<Arc<Web>>, request: Request<Body>) -> Response {
    let need = viewer(Reach::Free);
    match web.auth.identify(request.headers(), "").await {
        Ok(Some(_)) => Refusal::not_found("there is no such call", "see the API's description"),
        Ok(None) => Refusal::denied(crate::permission::Denied::Unknown, need, web.auth.login_hint()),
        Err(refusal) => refusal,
    }
    .into_response()
}

async fn wrong_method() -> Response {
    let message = "this cannot be done with that method";
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, FailureKind::Invalid, message, "").into_response()
}
