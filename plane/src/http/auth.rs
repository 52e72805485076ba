//! Who may ask: pages of our own origin, with a session cookie that was given for a one-time code.
//! Knows no password: codes come from `mycelial-plane login`, which needs the plane's own directory.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    extract::{Request, State as Shared},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use bus_schema::{api::FailureKind, id::FleetId};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::{
    Web,
    ask::{Answer, Ask, json, nothing},
    problem::Refusal,
    table::{Endpoint, OPEN, by},
};
use crate::{
    clock::unix_ms,
    disk::{Closed, Disk},
    login::{digest, fresh_secret},
    permission::{Caller, Rank},
};

/// How long a session lasts, in milliseconds: a week.
const SESSION_MS: i64 = 7 * 24 * 3_600 * 1_000;
/// Most sessions at a time; one more ends the oldest.
const SESSIONS_MAX: usize = 64;
/// Longest cookie header looked at, in bytes.
const COOKIE_BYTES_MAX: usize = 8 * 1024;
/// Whoever logs in with a code from the plane's own directory.
const OWNER: &str = "owner";

/// Sessions, and the names under which the page may be opened.
#[derive(Debug)]
pub struct Auth {
    disk: Disk,
    /// By hash of the cookie: when it expires, milliseconds since 1970.
    sessions: Mutex<HashMap<[u8; 32], i64>>,
    /// Allowed `Host` headers, lower case.
    hosts: Vec<String>,
    cookie: String,
    login_hint: String,
}

impl Auth {
    /// `names`: further host names under which the page may be opened. `dir`: the plane's directory, for hints.
    pub async fn new(
        disk: Disk,
        fleet: &FleetId,
        address: SocketAddr,
        names: &[String],
        dir: &Path,
    ) -> Result<Self, Closed> {
        let now = unix_ms();
        let stored = disk.run(move |files| files.store.sessions(now)).await?;
        let sessions = stored.unwrap_or_else(|cause| {
            warn!(%cause, "cannot read web sessions; everybody has to log in again");
            Vec::new()
        });
        Ok(Self {
            disk,
            sessions: Mutex::new(sessions.into_iter().collect()),
            hosts: hosts(address, names),
            // Cookies do not know ports: two planes on one machine must not overwrite each other's.
            cookie: format!("mycelial-{fleet}"),
            login_hint: format!(
                "make a one-time link with: mycelial-plane login --dir {}",
                dir.display()
            ),
        })
    }

    /// Nothing that panics runs while this lock is held.
    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], i64>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn session(&self, headers: &HeaderMap) -> Option<[u8; 32]> {
        let cookies = headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok());
        let pairs = cookies
            .filter(|text| text.len() <= COOKIE_BYTES_MAX)
            .flat_map(|text| text.split(';'));
        let ours = pairs
            .filter_map(|pair| pair.trim().split_once('='))
            .filter(|(name, _)| *name == self.cookie);
        let (sessions, now) = (self.lock(), unix_ms());
        // Kept by hash: comparing tells nothing of the secret.
        ours.map(|(_, secret)| digest(secret))
            .find(|hash| sessions.get(hash).is_some_and(|expires| *expires > now))
    }

    /// Who sent these headers, if anybody known.
    pub(super) async fn identify(&self, headers: &HeaderMap, from: &str) -> Result<Option<Caller>, Refusal> {
        Ok(self.session(headers).map(|_| Caller::whole(OWNER, Rank::Admin, from)))
    }

    pub(super) fn login_hint(&self) -> &str {
        &self.login_hint
    }

    fn set_cookie(&self, secret: &str, age_s: i64) -> Option<HeaderValue> {
        let name = &self.cookie;
        let text = format!("{name}={secret}; HttpOnly; SameSite=Strict; Path=/; Max-Age={age_s}");
        HeaderValue::from_str(&text).ok()
    }

    /// Keeps a new session; returns those that had to make room.
    fn remember(&self, hash: [u8; 32], expires: i64) -> Vec<[u8; 32]> {
        let mut sessions = self.lock();
        let now = unix_ms();
        sessions.retain(|_, expires| *expires > now);
        let mut ended = Vec::new();
        while sessions.len() >= SESSIONS_MAX {
            let oldest = sessions
                .iter()
                .min_by_key(|(_, expires)| **expires)
                .map(|(hash, _)| *hash);
            let Some(oldest) = oldest else { break };
            sessions.remove(&oldest);
            ended.push(oldest);
        }
        sessions.insert(hash, expires);
        ended
    }
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
    /// How to log in.
    hint: String,
}

/// A user of the page.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct UserShown {
    /// Its name.
    name: String,
    /// How much it may.
    role: Rank,
}

async fn session(ask: Ask) -> Answer {
    json(SessionShown {
        user: ask.known.map(|caller| UserShown {
            name: caller.name,
            role: caller.rank,
        }),
        hint: ask.web.auth.login_hint.clone(),
    })
}

/// A one-time code.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Login {
    /// From `mycelial-plane login`.
    code: String,
}

async fn login(ask: Ask) -> Answer {
    let Login { code } = ask.body()?;
    let (hash, now, auth) = (digest(&code), unix_ms(), &ask.web.auth);
    let used = auth.disk.run(move |files| files.store.use_login(&hash, now)).await;
    if !used.map_err(Refusal::internal)?.map_err(Refusal::internal)? {
        let message = "this log-in link has been used already, or is too old";
        let (status, hint) = (StatusCode::UNAUTHORIZED, auth.login_hint.clone());
        return Err(Refusal::new(status, FailureKind::Forbidden, message, hint));
    }
    let secret = fresh_secret().map_err(Refusal::internal)?;
    let (hash, expires) = (digest(&secret), now.saturating_add(SESSION_MS));
    let ended = auth.remember(hash, expires);
    let kept = auth.disk.run(move |files| {
        ended.iter().try_for_each(|hash| files.store.end_session(hash))?;
        files.store.add_session(&hash, expires)
    });
    if let Err(cause) = kept.await.map_err(Refusal::internal)? {
        warn!(%cause, "a web session will not survive a restart");
    }
    info!("somebody logged in to the web page");
    let mut response = nothing()?;
    if let Some(cookie) = auth.set_cookie(&secret, SESSION_MS / 1_000) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

async fn logout(ask: Ask) -> Answer {
    let auth = &ask.web.auth;
    if let Some(hash) = auth.session(&ask.headers) {
        auth.lock().remove(&hash);
        let _ = auth.disk.run(move |files| files.store.end_session(&hash)).await;
    }
    let mut response = nothing()?;
    if let Some(cookie) = auth.set_cookie("", 0) {
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
