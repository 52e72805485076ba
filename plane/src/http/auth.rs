//! Who asks: pages of our own origin, with a session cookie that was given for a password, or for a one-time code from
//! `mycelial-plane login`, which needs the plane's own directory. What they may is the table's business.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    extract::{Request, State as Shared},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use bus_schema::{api::FailureKind, id::FleetId};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tracing::{info, warn};

use super::{
    Web,
    ask::{Answer, Ask, json, nothing},
    attempts::Attempts,
    problem::Refusal,
    road::Roads,
    table::{Endpoint, OPEN, by},
    users,
};
use crate::{
    audit::Sparing,
    clock::unix_ms,
    config::ConfigError,
    disk::{Closed, Disk},
    domain::labels::Selector,
    login::{digest, fresh_secret},
    oidc::{OidcSection, Provider},
    people::OWNER,
    permission::{Caller, Rank},
    store::{Person, StoreError},
};

/// How long a session lasts, in milliseconds: a week.
const SESSION_MS: i64 = 7 * 24 * 3_600 * 1_000;
/// Most sessions at a time; one more ends the oldest.
const SESSIONS_MAX: u32 = 256;
/// Longest cookie header looked at, in bytes.
const COOKIE_BYTES_MAX: usize = 8 * 1024;
/// What the name of a token begins with, where people read it.
const TOKEN: &str = "token:";

/// How log-ins are checked, and the names under which the page may be opened.
#[derive(Debug)]
pub struct Auth {
    pub(super) disk: Disk,
    pub(super) attempts: Attempts,
    /// Only one password is looked at a time: each takes memory.
    pub(super) hashing: Semaphore,
    /// Allowed `Host` headers, lower case.
    hosts: Vec<String>,
    cookie: String,
    /// How requests come.
    pub(super) roads: Roads,
    login_hint: String,
    refusals: Mutex<Sparing>,
    /// Who else lets people in.
    pub(super) oidc: Option<Provider>,
}

/// It cannot be known who may come in.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// See [`Closed`].
    #[error(transparent)]
    Closed(#[from] Closed),
    /// See [`ConfigError`].
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where people come in.
#[derive(Debug, Clone, Copy)]
pub struct Door<'a> {
    /// Where the page listens.
    pub address: SocketAddr,
    /// Further host names under which the page may be opened.
    pub names: &'a [String],
    /// Connections have TLS.
    pub has_tls: bool,
    /// Proxies that are believed whose request it is, and whether it came with TLS.
    pub proxies: &'a [IpAddr],
    /// The plane's directory, for hints.
    pub dir: &'a Path,
    /// Who else lets people in.
    pub oidc: Option<&'a OidcSection>,
}

impl Auth {
    /// Behind this door.
    pub async fn new(disk: Disk, fleet: &FleetId, door: Door<'_>) -> Result<Self, AuthError> {
        let Door {
            address,
            names,
            has_tls,
            proxies,
            dir,
            oidc,
        } = door;
        let now = unix_ms();
        if let Err(cause) = disk.run(move |files| files.store.forget_expired(now)).await? {
            warn!(%cause, "cannot forget old web sessions");
        }
        let oidc = oidc.map(|section| Provider::new(section, dir)).transpose()?;
        let settings = oidc.as_ref().map(Provider::fingerprint);
        // Nobody keeps a role that the settings do not give any more.
        disk.run(move |files| files.store.keep_oidc_sessions_of(settings.as_ref()))
            .await??;
        Ok(Self {
            disk,
            attempts: Attempts::default(),
            hashing: Semaphore::new(1),
            hosts: hosts(address, names),
            // Cookies do not know ports: two planes on one machine must not overwrite each other's.
            cookie: format!("mycelial-{fleet}"),
            roads: Roads::new(has_tls, proxies),
            login_hint: format!(
                "make a one-time link with: mycelial-plane login --dir {}",
                dir.display()
            ),
            refusals: Mutex::default(),
            oidc,
        })
    }

    /// Whether one more refusal is written into the audit.
    pub(super) fn may_note_refusal(&self, now_unix_ms: i64) -> bool {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.may(now_unix_ms)
    }

    /// What a cookie says, if it was sent.
    pub(super) fn cookie_named(headers: &HeaderMap, wanted: &str) -> Option<String> {
        let cookies = headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok());
        let pairs = cookies
            .filter(|text| text.len() <= COOKIE_BYTES_MAX)
            .flat_map(|text| text.split(';'));
        let mut ours = pairs
            .filter_map(|pair| pair.trim().split_once('='))
            .filter(|(name, _)| *name == wanted);
        ours.next().map(|(_, value)| value.to_string())
    }

    /// The hash of the session cookie, if one was sent.
    pub(super) fn cookie_of(&self, headers: &HeaderMap) -> Option<[u8; 32]> {
        // Kept by hash: looking it up tells nothing of the secret.
        Self::cookie_named(headers, &self.cookie).map(|secret| digest(&secret))
    }

    /// The name of the cookie that carries a log-in to a provider and back.
    pub(super) fn flow_cookie_name(&self) -> String {
        format!("{}-oidc", self.cookie)
    }

    /// Who sent these headers, if anybody known.
    pub(super) async fn identify(&self, headers: &HeaderMap, from: &str) -> Result<Option<Caller>, Refusal> {
        let now = unix_ms();
        if let Some(token) = bearer(headers) {
            let hash = digest(token);
            let found = self.disk.run(move |files| files.store.api_token(&hash, now)).await;
            let found = found.map_err(Refusal::internal)?.map_err(Refusal::internal)?;
            return Ok(found.and_then(|token| {
                let name = format!("{TOKEN}{}", token.name);
                scoped(&name, token.rank, token.scope.as_deref(), from)
            }));
        }
        let Some(hash) = self.cookie_of(headers) else {
            return Ok(None);
        };
        let found = self.disk.run(move |files| files.store.session(&hash, now)).await;
        let found = found.map_err(Refusal::internal)?.map_err(Refusal::internal)?;
        Ok(found.and_then(|person| match person {
            Person::Owner => Some(Caller::whole(OWNER, Rank::Admin, from)),
            Person::User { name, rank, scope } => scoped(&name, rank, scope.as_deref(), from),
        }))
    }

    pub(super) fn login_hint(&self) -> &str {
        &self.login_hint
    }

    /// A session's. `is_secure`: it is never sent without TLS.
    pub(super) fn set_cookie(&self, secret: &str, age_s: i64, is_secure: bool) -> Option<HeaderValue> {
        let name = &self.cookie;
        let secure = if is_secure { "; Secure" } else { "" };
        let text = format!("{name}={secret}; HttpOnly; SameSite=Strict; Path=/; Max-Age={age_s}{secure}");
        HeaderValue::from_str(&text).ok()
    }
}

/// What a program shows instead of a cookie. No page of somebody else can make a browser send it.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// A caller with a scope. One that cannot be read shows nothing, rather than everything.
fn scoped(name: &str, rank: Rank, scope: Option<&str>, from: &str) -> Option<Caller> {
    let scope = scope.map(Selector::parse_scope).transpose().ok()?;
    Some(Caller {
        scope,
        ..Caller::whole(name, rank, from)
    })
}

/// The names for which a certificate of the page is made: without ports.
pub fn names(address: SocketAddr, names: &[String]) -> Vec<String> {
    let mut all = names.to_vec();
    if address.ip().is_loopback() || address.ip().is_unspecified() {
        all.extend(["localhost", "127.0.0.1", "::1"].map(str::to_string));
    }
    if !address.ip().is_unspecified() {
        all.push(address.ip().to_string());
    }
    all
}

/// Under which names the page can be opened: a name that resolves to us without being ours is an attack (DNS rebinding).
fn hosts(address: SocketAddr, names: &[String]) -> Vec<String> {
    let port = address.port();
    let mut hosts = vec![address.to_string()];
    if address.ip().is_loopback() || address.ip().is_unspecified() {
        hosts.extend(["localhost", "127.0.0.1", "[::1]"].map(|name| format!("{name}:{port}")));
    }
    for name in names {
        let name = name.to_ascii_lowercase();
        hosts.push(format!("{name}:{port}"));
        hosts.push(name);
    }
    hosts
}

/// Lets only requests through that name us as their host and, when they come from a page, come from a page of ours.
pub(super) async fn require_own_origin(Shared(web): Shared<Arc<Web>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    // These rules are about what browsers do with cookies; with a token, cookies are not looked at. To log in needs neither.
    if bearer(headers).is_some() && !request.uri().path().ends_with("/session") {
        return next.run(request).await;
    }
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST).unwrap_or_default().to_ascii_lowercase();
    if !web.auth.hosts.contains(&host) {
        let names = web.auth.hosts.join(", ");
        return Refusal::new(
            StatusCode::MISDIRECTED_REQUEST,
            FailureKind::Forbidden,
            "this plane is not reached under that name",
            format!("it answers to {names}; add other names to http_names in plane.toml"),
        )
        .into_response();
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let origin = text(header::ORIGIN).map(str::to_ascii_lowercase);
        let own = |origin: &String| {
            let name = origin
                .strip_prefix("http://")
                .or_else(|| origin.strip_prefix("https://"));
            name.is_some_and(|name| name == host)
        };
        let site = text(header::HeaderName::from_static("sec-fetch-site"));
        let from_elsewhere = origin.as_ref().is_some_and(|origin| !own(origin))
            || site.is_some_and(|site| !matches!(site, "same-origin" | "none"));
        if from_elsewhere {
            return Refusal::new(
                StatusCode::FORBIDDEN,
                FailureKind::Forbidden,
                "another web page tried to use this plane",
                "open the plane's own page and try again",
            )
            .into_response();
        }
    }
    next.run(request).await
}

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get(
            "/session",
            OPEN,
            "Who is logged in, and how to be; never an error",
            by!(session),
        )
        .answers::<SessionShown>(),
        Endpoint::post("/session", OPEN, "Logs in", by!(login)).takes::<Login>(),
        Endpoint::delete("/session", OPEN, "Logs out", by!(logout)),
    ]
}

/// Who is logged in.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct SessionShown {
    /// Nobody, when null.
    user: Option<UserShown>,
    /// There are no users yet: whoever has a code makes the first admin.
    setup: bool,
    /// How to log in.
    hint: String,
    /// What the provider is called where people can log in too (`GET /session/oidc`); null: there is none.
    oidc: Option<String>,
}

/// Who it is, and how much it may.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct UserShown {
    /// Its name.
    name: String,
    /// How much it may.
    role: Rank,
    /// Which daemons it sees, as a selector; all when null.
    scope: Option<String>,
}

async fn session(ask: Ask) -> Answer {
    let found = ask.web.auth.disk.run(|files| files.store.users()).await;
    let users = found.map_err(Refusal::internal)?.map_err(Refusal::internal)?;
    json(SessionShown {
        user: ask.known.map(|caller| UserShown {
            name: caller.name,
            role: caller.rank,
            scope: caller.scope.map(|scope| scope.to_string()),
        }),
        setup: users.is_empty(),
        hint: ask.web.auth.login_hint.clone(),
        oidc: ask.web.auth.oidc.as_ref().map(Provider::shown),
    })
}

/// A name with its password, or a one-time code. With all three, the code makes the first admin.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Login {
    /// A user's.
    #[serde(default)]
    name: Option<String>,
    /// Its.
    #[serde(default)]
    password: Option<String>,
    /// From `mycelial-plane login`.
    #[serde(default)]
    code: Option<String>,
}

async fn login(ask: Ask) -> Answer {
    let wish: Login = ask.body()?;
    let name = match (&wish.code, &wish.name) {
        (Some(_), _) => OWNER.to_string(),
        // What is no name may be a password, typed into the wrong field.
        (None, name) => known_name(&ask, name.clone()).await?,
    };
    let how = if wish.code.is_some() {
        "with a code"
    } else {
        "with a password"
    };
    let known = who_logs_in(&ask, wish).await;
    let user = ask.noted_of(&name, "log in to the page", how, known).await?;
    let secret = fresh_secret().map_err(Refusal::internal)?;
    let (hash, expires) = (digest(&secret), unix_ms().saturating_add(SESSION_MS));
    let (auth, who) = (&ask.web.auth, user.clone());
    let kept = auth.disk.run(move |files| {
        let user = user.as_deref();
        files.store.add_session(&hash, user, expires, SESSIONS_MAX)
    });
    kept.await.map_err(Refusal::internal)?.map_err(Refusal::internal)?;
    info!(
        user = who.as_deref().unwrap_or(OWNER),
        from = ask.from,
        "somebody logged in to the web page"
    );
    let mut response = nothing()?;
    if let Some(cookie) = auth.set_cookie(&secret, SESSION_MS / 1_000, ask.is_secure) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

async fn known_name(ask: &Ask, name: Option<String>) -> Result<String, Refusal> {
    let name = name.unwrap_or_default();
    let wanted = name.clone();
    let found = ask.web.auth.disk.run(move |files| files.store.user(&wanted)).await;
    let found = found.map_err(Refusal::internal)?.map_err(Refusal::internal)?;
    Ok(found.map_or_else(|| "an unknown name".to_string(), |_| name))
}

/// The user; `None`: whoever has a code.
async fn who_logs_in(ask: &Ask, wish: Login) -> Result<Option<String>, Refusal> {
    match wish {
        Login {
            code: Some(code),
            name,
            password,
        } => {
            let first = match (name, password) {
                (None, None) => None,
                (Some(name), Some(password)) => Some((name, password)),
                _ => return Err(Refusal::invalid("name and password belong together", "")),
            };
            if let Some((name, password)) = &first {
                users::check_new(name, password)?;
            }
            use_code(ask, &code).await?;
            match first {
                Some((name, password)) => users::first(ask, name, password).await.map(Some),
                None => Ok(None),
            }
        }
        Login {
            code: None,
            name: Some(name),
            password: Some(password),
        } => users::recognise(ask, name, password).await.map(Some),
        _ => Err(Refusal::invalid("name and password, or a code, are missing", "")),
    }
}

async fn use_code(ask: &Ask, code: &str) -> Result<(), Refusal> {
    let (hash, now, auth) = (digest(code), unix_ms(), &ask.web.auth);
    let used = auth.disk.run(move |files| files.store.use_login(&hash, now)).await;
    if used.map_err(Refusal::internal)?.map_err(Refusal::internal)? {
        return Ok(());
    }
    let message = "this log-in link has been used already, or is too old";
    let (status, hint) = (StatusCode::UNAUTHORIZED, auth.login_hint.clone());
    Err(Refusal::new(status, FailureKind::Forbidden, message, hint))
}

async fn logout(ask: Ask) -> Answer {
    let auth = &ask.web.auth;
    if let Some(hash) = auth.cookie_of(&ask.headers) {
        let ended = auth.disk.run(move |files| files.store.end_session(&hash)).await;
        ended.map_err(Refusal::internal)?.map_err(Refusal::internal)?;
    }
    let mut response = nothing()?;
    if let Some(cookie) = auth.set_cookie("", 0, ask.is_secure) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_page() {
        for (address, names, ours, foreign) in [
            (
                "127.0.0.1:7777",
                &[] as &[&str],
                vec!["127.0.0.1:7777", "localhost:7777", "[::1]:7777"],
                vec!["localhost", "evil.example:7777", ""],
            ),
            (
                "10.0.0.5:80",
                &[],
                vec!["10.0.0.5:80"],
                vec!["localhost:80", "127.0.0.1:80"],
            ),
            (
                "0.0.0.0:7777",
                &["Plane.Example.org"],
                vec!["plane.example.org", "plane.example.org:7777", "127.0.0.1:7777"],
                vec!["10.0.0.5:7777"],
            ),
        ] {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            let hosts = hosts(address.parse().unwrap(), &names);
            for host in ours {
                assert!(hosts.contains(&host.to_string()), "{host} in {hosts:?}");
            }
            for host in foreign {
                assert!(!hosts.contains(&host.to_string()), "{host} not in {hosts:?}");
            }
        }
    }
}
