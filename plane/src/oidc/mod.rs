//! Log-in through an OpenID Connect provider: finds out where it is and which keys it has, exchanges a code for a token, and says who
//! that is (<https://openid.net/specs/openid-connect-core-1_0.html>, authorization code with PKCE). Knows no session and no page.

pub mod flow;
mod mapping;
mod settings;
mod token;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bus_link::Tls;
use hyper::{Method, body::Bytes};
use serde_json::Value;
use tokio::{
    sync::{Mutex, Semaphore},
    time::timeout,
};
use zeroize::Zeroizing;

use crate::{
    config::ConfigError,
    notify::{client::Client, tls_of},
};
use flow::Flow;
pub use mapping::{PREFIX, Somebody};
pub use settings::{ANSWER, OidcSection};
use token::{Claims, Expected, Jwk, TokenError};

/// Longest answer of a provider, in bytes.
const ANSWER_BYTES_MAX: usize = 128 * 1024;
/// How long a provider may take to answer one question.
const ASK_MAX: Duration = Duration::from_secs(10);
/// How long is believed what it said of itself and its keys.
const KNOWN_MAX: Duration = Duration::from_secs(3_600);
/// It is not asked for them more often than this, whoever sends tokens that fit no key.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// Log-ins that are looked at at a time.
const TURNS: usize = 4;
/// Longest word of a provider that is passed on to people, in characters.
const SAID_CHARS_MAX: usize = 200;

/// Nobody comes in.
#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    /// The provider is away, or does not do what a provider does.
    #[error("{0}")]
    Away(String),
    /// Not this one.
    #[error("{0}")]
    Refused(String),
    /// Too many at a time.
    #[error("too many people are logging in just now")]
    Busy,
}

fn away(why: impl Into<String>) -> OidcError {
    OidcError::Away(why.into())
}

/// What the provider says of itself.
#[derive(Debug, Clone)]
struct Found {
    authorize: String,
    token: String,
    keys: String,
    userinfo: Option<String>,
    /// Takes the secret in a header; in the body otherwise.
    takes_basic: bool,
}

#[derive(Debug, Default)]
struct Known {
    found: Option<(Arc<Found>, Instant)>,
    keys: Option<(Arc<Vec<Jwk>>, Instant)>,
    /// Why it could not be asked the last time, and when.
    failed: Option<(String, Instant)>,
}

/// The provider.
pub struct Provider {
    section: OidcSection,
    secret: Option<Zeroizing<String>>,
    tls: Tls,
    known: Mutex<Known>,
    turns: Semaphore,
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Provider {}", self.section.issuer)
    }
}

/// For an address: everything but what needs no `%`.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match plain(byte) {
            true => out.push(char::from(byte)),
            false => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn form(pairs: &[(&str, &str)]) -> String {
    let pairs = pairs.iter().map(|(name, value)| format!("{name}={}", escaped(value)));
    pairs.collect::<Vec<_>>().join("&")
}

impl Provider {
    /// From the settings; reads the files that they name. Asks nobody yet.
    pub fn new(section: &OidcSection, dir: &Path) -> Result<Self, ConfigError> {
        let ca = section.ca.as_ref().map(|path| dir.join(path));
        Ok(Self {
            secret: section.secret(dir)?,
            tls: tls_of("web.oidc.ca", ca.as_deref())?,
            section: section.clone(),
            known: Mutex::default(),
            turns: Semaphore::new(TURNS),
        })
    }

    /// What the page calls it.
    pub fn shown(&self) -> String {
        self.section.shown()
    }

    /// Who it says that it is.
    pub fn issuer(&self) -> &str {
        &self.section.issuer
    }

    /// Changes when the settings about it do: what somebody may follows from them.
    pub fn fingerprint(&self) -> [u8; 32] {
        bus_schema::id::hash("mycelial oidc settings v1", &[format!("{:?}", self.section).as_bytes()])
    }

    /// Where it sends people back to. `page`: the address that the browser has of us, without a path.
    pub fn redirect_uri(&self, page: &str) -> String {
        let made = || format!("{page}{ANSWER}");
        self.section.redirect_uri.clone().unwrap_or_else(made)
    }

    /// Where to send somebody who wants to log in.
    pub async fn authorize(&self, flow: &Flow, redirect_uri: &str) -> Result<String, OidcError> {
        let found = self.found().await?;
        let scope = format!("openid {}", self.section.scopes.join(" "));
        let query = form(&[
            ("response_type", "code"),
            ("client_id", &self.section.client_id),
            ("redirect_uri", redirect_uri),
            ("scope", scope.trim_end()),
            ("state", &flow.state()),
            ("nonce", &flow.nonce()),
            ("code_challenge", &flow.challenge()),
            ("code_challenge_method", "S256"),
        ]);
        let joint = if found.authorize.contains('?') { '&' } else { '?' };
        Ok(format!("{}{joint}{query}", found.authorize))
    }

    /// Who came back with this code.
    pub async fn recognise(
        &self,
        flow: &Flow,
        code: &str,
        redirect_uri: &str,
        now_s: i64,
    ) -> Result<(Somebody, String), OidcError> {
        let _turn = self.turns.try_acquire().map_err(|_| OidcError::Busy)?;
        let found = self.found().await?;
        let answer = self.exchange(&found, flow, code, redirect_uri).await?;
        let id_token = answer["id_token"].as_str();
        let id_token = id_token.ok_or_else(|| away("it gave no ID token; is it an OpenID Connect provider?"))?;
        let nonce = flow.nonce();
        let expected = Expected {
            issuer: &self.section.issuer,
            client_id: &self.section.client_id,
            nonce: &nonce,
            now_s,
        };
        let mut claims = self.verified(&found, id_token, &expected).await?;
        if let (false, Some(url), Some(token)) =
            (self.has_all(&claims), &found.userinfo, answer["access_token"].as_str())
        {
            self.add_userinfo(url, token, &mut claims).await?;
        }
        let section = &self.section;
        let somebody = mapping::recognise(
            &claims,
            &section.user_claim,
            &section.roles,
            section.fleet_scope.as_ref(),
        );
        let sub = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
        Ok((somebody.map_err(OidcError::Refused)?, sub.to_string()))
    }

    fn has_all(&self, claims: &Claims) -> bool {
        let Self { section, .. } = self;
        let scope = section.fleet_scope.as_ref().map(|scope| scope.claim.as_str());
        let wanted = [section.user_claim.as_str(), section.roles.claim.as_str()];
        wanted.into_iter().chain(scope).all(|claim| mapping::has(claims, claim))
    }

    /// Asks, and reads the answer as JSON, whatever its status.
    async fn ask(
        &self,
        method: Method,
        url: &str,
        body: String,
        headers: &[(&str, String)],
    ) -> Result<(u16, Value), OidcError> {
        let client = Client::to(url, self.tls.clone()).map_err(|wrong| away(format!("{url}: {wrong}")))?;
        let headers: Vec<_> = std::iter::once(("accept", "application/json".to_string()))
            .chain(headers.iter().cloned())
            .collect();
        let asked = client.ask(method, Bytes::from(body), &headers, ANSWER_BYTES_MAX);
        let late = |_| away(format!("{url}: no answer in {} s", ASK_MAX.as_secs()));
        let (status, body) = timeout(ASK_MAX, asked)
            .await
            .map_err(late)?
            .map_err(|error| away(format!("{url}: {error}")))?;
        let json = serde_json::from_slice(&body);
        // What is wrong is said by the status then.
        let json = if status == 200 {
            json.map_err(|_| away(format!("{url}: its answer is no JSON")))?
        } else {
            json.unwrap_or_default()
        };
        Ok((status, json))
    }

    async fn get(&self, url: &str, headers: &[(&str, String)]) -> Result<Value, OidcError> {
        match self.ask(Method::GET, url, String::new(), headers).await? {
            (200, json) => Ok(json),
            (status, _) => Err(away(format!("{url}: it answered {status}"))),
        }
    }

    async fn found(&self) -> Result<Arc<Found>, OidcError> {
        let mut known = self.known.lock().await;
        match &known.found {
            Some((found, at)) if at.elapsed() < KNOWN_MAX => return Ok(Arc::clone(found)),
            _ => {}
        }
        if let Some((why, at)) = &known.failed
            && at.elapsed() < ASK_AGAIN
        {
            return Err(away(why.clone()));
        }
        let url = format!(
            "{}/.well-known/openid-configuration",
            self.section.issuer.trim_end_matches('/')
        );
        let found = match self.get(&url, &[]).await {
            Ok(said) => self.read(&said),
            Err(error) => Err(error),
        };
        match found {
            Ok(found) => {
                let found = Arc::new(found);
                known.found = Some((Arc::clone(&found), Instant::now()));
                known.failed = None;
                Ok(found)
            }
            Err(error) => {
                known.failed = Some((error.to_string(), Instant::now()));
                Err(error)
            }
        }
    }

    /// What it says of itself, if it is the one that we mean.
    fn read(&self, said: &Value) -> Result<Found, OidcError> {
        let issuer = &self.section.issuer;
        if said["issuer"].as_str() != Some(issuer) {
            let named: String = said["issuer"].to_string().chars().take(SAID_CHARS_MAX).collect();
            return Err(away(format!(
                "it calls itself {named}, and the settings '{issuer}': they have to be the same, to the last '/'"
            )));
        }
        let url = |name: &str| match said[name].as_str() {
            Some(url) if settings::is_safe(url) => Ok(url.to_string()),
            Some(_) => Err(away(format!("its {name} is not reached by https://"))),
            None => Err(away(format!("it does not say where its {name} is"))),
        };
        let ways = said["token_endpoint_auth_methods_supported"].as_array();
        let has = |way: &str| ways.is_some_and(|ways| ways.iter().any(|one| one == way));
        Ok(Found {
            authorize: url("authorization_endpoint")?,
            token: url("token_endpoint")?,
            keys: url("jwks_uri")?,
            userinfo: said.get("userinfo_endpoint").and(url("userinfo_endpoint").ok()),
            // The standard's way, unless it says that it knows only the other one.
            takes_basic: has("client_secret_basic") || !has("client_secret_post"),
        })
    }

    async fn exchange(&self, found: &Found, flow: &Flow, code: &str, redirect_uri: &str) -> Result<Value, OidcError> {
        let (id, verifier) = (self.section.client_id.as_str(), flow.verifier());
        let mut pairs = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect_uri),
            ("code_verifier", &verifier),
        ];
        let mut headers = vec![("content-type", "application/x-www-form-urlencoded".to_string())];
        match &self.secret {
            Some(secret) if found.takes_basic => {
                let both = Zeroizing::new(format!("{}:{}", escaped(id), escaped(secret)));
                headers.push(("authorization", format!("Basic {}", STANDARD.encode(both.as_bytes()))));
            }
            Some(secret) => pairs.extend([("client_id", id), ("client_secret", secret.as_str())]),
            None => pairs.push(("client_id", id)),
        }
        match self.ask(Method::POST, &found.token, form(&pairs), &headers).await? {
            (200, json) => Ok(json),
            (status, said) => {
                let cause = said["error"].as_str().unwrap_or("without saying why");
                let cause: String = cause.chars().take(SAID_CHARS_MAX).collect();
                let message = format!("it does not take the code ({status}: {})", cause.escape_debug());
                // What is not about this code is about the settings, or about the provider.
                Err(match cause.as_str() {
                    "invalid_grant" => OidcError::Refused(message),
                    _ => OidcError::Away(message),
                })
            }
        }
    }

    /// Checks a token. One that fits no key is looked at once more with the newest keys.
    async fn verified(&self, found: &Found, token: &str, expected: &Expected<'_>) -> Result<Claims, OidcError> {
        let refused = |error: TokenError| OidcError::Refused(format!("its token is not believed: {error}"));
        let (keys, at) = self.keys(found, None).await?;
        match token::verify(token, &keys, expected) {
            Err(TokenError::Key) => {}
            verified => return verified.map_err(refused),
        }
        let (keys, _) = self.keys(found, Some(at)).await?;
        token::verify(token, &keys, expected).map_err(refused)
    }

    /// Its keys, since when; newer ones than these, if it may be asked again.
    async fn keys(&self, found: &Found, newer_than: Option<Instant>) -> Result<(Arc<Vec<Jwk>>, Instant), OidcError> {
        let mut known = self.known.lock().await;
        if let Some((keys, at)) = &known.keys {
            let is_wanted = newer_than.is_none_or(|than| *at > than) && at.elapsed() < KNOWN_MAX;
            if is_wanted || at.elapsed() < ASK_AGAIN {
                return Ok((Arc::clone(keys), *at));
            }
        }
        let set = self.get(&found.keys, &[]).await?;
        let (keys, at) = (Arc::new(token::keys(&set)), Instant::now());
        known.keys = Some((Arc::clone(&keys), at));
        Ok((keys, at))
    }

    /// Adds what the token does not say. What it says wins.
    async fn add_userinfo(&self, url: &str, token: &str, claims: &mut Claims) -> Result<(), OidcError> {
        let bearer = ("authorization", format!("Bearer {token}"));
        let said = self.get(url, &[bearer]).await?;
        // Else it would be about somebody else.
        if said["sub"].as_str().is_none() || said.get("sub") != claims.get("sub") {
            return Err(OidcError::Refused(
                "it says things about somebody else than the token".into(),
            ));
        }
        for (name, value) in said.as_object().into_iter().flatten() {
            claims.entry(name.clone()).or_insert_with(|| value.clone());
        }
        Ok(())
    }
}
