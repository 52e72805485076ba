//! Logging in through an OpenID Connect provider: sends the browser there, and makes a session of what it comes back with.
//! Believes nothing itself: see `crate::oidc`.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use bus_schema::{api::FailureKind, member::same_secret};
use serde::Deserialize;
use tracing::{info, warn};

use super::{
    ask::{Answer, Ask},
    auth::Auth,
    problem::Refusal,
    table::{Endpoint, OPEN, by},
    users::{address, attempt, disk},
};
use crate::{
    clock::unix_ms,
    login::{digest, fresh_secret},
    oidc::{
        OidcError, Provider, Somebody,
        flow::{FLOW_S, Flow},
    },
};

/// How long a session lasts, in milliseconds: a shift. What somebody may is asked of the provider anew after that.
const SESSION_MS: i64 = 12 * 3_600 * 1_000;
/// Most sessions at a time; one more ends the oldest.
const SESSIONS_MAX: u32 = 256;
/// Longest code of a provider, in bytes.
const CODE_BYTES_MAX: usize = 4_096;
/// Where the cookie of a log-in on its way goes, and nowhere else.
const PATH: &str = "/api/v1/session/oidc";
/// Longest word of a provider that is passed on to people, in characters.
const SAID_CHARS_MAX: usize = 200;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get(
            "/session/oidc",
            OPEN,
            "Logs in at the OpenID Connect provider: leads the browser there",
            by!(begin),
        )
        .leads_elsewhere(),
        Endpoint::get(
            "/session/oidc/answer",
            OPEN,
            "Where the provider leads the browser back to; leads on to the page",
            by!(answer),
        )
        .query::<Said>()
        .leads_elsewhere(),
    ]
}

/// What the provider has to say.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct Said {
    /// What is exchanged for a token.
    code: Option<String>,
    /// Which log-in it is about.
    state: Option<String>,
    /// Who says so (RFC 9207).
    iss: Option<String>,
    /// Why there is no code.
    error: Option<String>,
    /// The same for people.
    error_description: Option<String>,
}

fn refused(message: impl Into<String>, hint: &str) -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, FailureKind::Forbidden, message, hint)
}

fn provider(ask: &Ask) -> Result<&Provider, Refusal> {
    let provider = ask.web.auth.oidc.as_ref();
    provider.ok_or_else(|| Refusal::not_found("this plane has no log-in at a provider", "see [web.oidc] in plane.toml"))
}

fn failed(provider: &Provider, error: &OidcError) -> Refusal {
    let (name, again) = (provider.shown(), "try again, or log in with a password or a link");
    match error {
        OidcError::Away(why) => Refusal::new(
            StatusCode::BAD_GATEWAY,
            FailureKind::Internal,
            format!("{name} cannot be asked: {why}"),
            again,
        ),
        OidcError::Refused(why) => refused(
            format!("{name}: {why}"),
            "try again; when it stays so, ask an admin of this plane",
        ),
        OidcError::Busy => Refusal::new(
            StatusCode::TOO_MANY_REQUESTS,
            FailureKind::Forbidden,
            error.to_string(),
            "try again in a moment",
        ),
    }
}

/// The address of the page as this browser has it. Only our own names come this far.
fn page(ask: &Ask) -> String {
    let host = ask.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let scheme = if ask.is_secure { "https" } else { "http" };
    format!("{scheme}://{}", host.unwrap_or_default())
}

fn elsewhere(url: &str, cookies: &[Option<HeaderValue>]) -> Answer {
    let mut response: Response = StatusCode::SEE_OTHER.into_response();
    let location = HeaderValue::from_str(url).map_err(Refusal::internal)?;
    response.headers_mut().insert(header::LOCATION, location);
    for cookie in cookies.iter().flatten() {
        response.headers_mut().append(header::SET_COOKIE, cookie.clone());
    }
    Ok(response)
}

impl Auth {
    /// Carries a log-in to the provider and back. Sent along when another page leads to ours, unlike a session.
    fn flow_cookie(&self, value: &str, age_s: i64, is_secure: bool) -> Option<HeaderValue> {
        let (name, secure) = (self.flow_cookie_name(), if is_secure { "; Secure" } else { "" });
        let text = format!("{name}={value}; HttpOnly; SameSite=Lax; Path={PATH}; Max-Age={age_s}{secure}");
        HeaderValue::from_str(&text).ok()
    }
}

async fn begin(ask: Ask) -> Answer {
    let provider = provider(&ask)?;
    let flow = Flow::begin(&fresh_secret().map_err(Refusal::internal)?, unix_ms() / 1_000);
    let redirect_uri = provider.redirect_uri(&page(&ask));
    let url = provider.authorize(&flow, &redirect_uri).await.map_err(|error| {
        warn!(%error, "people cannot log in at the OpenID Connect provider");
        failed(provider, &error)
    })?;
    let cookie = ask.web.auth.flow_cookie(flow.cookie(), FLOW_S, ask.is_secure);
    elsewhere(&url, &[cookie])
}

async fn answer(ask: Ask) -> Answer {
    let known = who(&ask).await;
    let (name, what) = match &known {
        Ok((somebody, sub)) => (
            somebody.name.clone(),
            format!("through OpenID Connect, as subject {sub}"),
        ),
        Err(_) => ("an unknown name".to_string(), "through OpenID Connect".to_string()),
    };
    let (somebody, _) = ask.noted_of(&name, "log in to the page", &what, known).await?;
    let secret = fresh_secret().map_err(Refusal::internal)?;
    let (hash, expires) = (digest(&secret), unix_ms().saturating_add(SESSION_MS));
    let kept =
        move |files: &mut crate::disk::Files| files.store.add_oidc_session(&hash, &somebody, expires, SESSIONS_MAX);
    disk(&ask, kept).await?;
    info!(
        user = name,
        from = ask.from,
        "somebody logged in to the web page through a provider"
    );
    let (auth, is_secure) = (&ask.web.auth, ask.is_secure);
    elsewhere(
        "/",
        &[
            auth.set_cookie(&secret, SESSION_MS / 1_000, is_secure),
            auth.flow_cookie("", 0, is_secure),
        ],
    )
}

/// Who came back, if it is the one who went.
async fn who(ask: &Ask) -> Result<(Somebody, String), Refusal> {
    let (provider, auth, now_s) = (provider(ask)?, &ask.web.auth, unix_ms() / 1_000);
    let said: Said = ask.query()?;
    let cookie = Auth::cookie_named(&ask.headers, &auth.flow_cookie_name());
    let flow = cookie.and_then(|cookie| Flow::read(&cookie, now_s));
    let flow = flow.ok_or_else(|| {
        let hint = "begin again at /, under the same name in the browser as the provider leads back to";
        refused("this log-in was not begun in this browser, or it took too long", hint)
    })?;
    let state = said.state.unwrap_or_default();
    if !same_secret(state.as_bytes(), flow.state().as_bytes()) {
        return Err(refused("this answer belongs to another log-in", "begin again at /"));
    }
    if said.iss.is_some_and(|iss| iss != provider.issuer()) {
        return Err(refused("this answer is from another provider", "begin again at /"));
    }
    if let Some(error) = said.error {
        let cut = |text: String| text.chars().take(SAID_CHARS_MAX).collect::<String>();
        let (error, about) = (cut(error), cut(said.error_description.unwrap_or_default()));
        let message = format!(
            "{} did not let you in: {} {}",
            provider.shown(),
            error.escape_debug(),
            about.escape_debug()
        );
        return Err(refused(message.trim_end(), "begin again at /"));
    }
    let code = said
        .code
        .filter(|code| !code.is_empty() && code.len() <= CODE_BYTES_MAX);
    let code = code.ok_or_else(|| Refusal::invalid("the provider's answer has no code", "begin again at /"))?;
    // Each is a question to the provider: nobody makes us ask many.
    let keys = [format!("oidc {}", address(ask))];
    attempt(ask, &keys)?;
    let redirect_uri = provider.redirect_uri(&page(ask));
    let known = provider.recognise(&flow, &code, &redirect_uri, now_s).await;
    let known = known.map_err(|error| {
        warn!(%error, from = ask.from, "a log-in through the OpenID Connect provider failed");
        failed(provider, &error)
    })?;
    auth.attempts.succeeded(&keys);
    Ok(known)
}
