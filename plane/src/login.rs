//! What an operator at the plane's own machine can always get: a one-time web link, and enrolment strings. Works beside a
//! running plane: both go through the store, which the plane reads when they are used.

use std::path::Path;

use bus_link::home::{Home, HomeError};
use bus_schema::{
    audit::AuditEvent,
    id::{base32, hash},
};

use crate::{
    clock::unix_ms,
    config::{Config, ConfigError, STORE},
    domain::Change,
    init::{is_made, public},
    invite::{TOKEN_RANDOM_BYTES, Wish, mint},
    people::OWNER,
    store::{Store, StoreError},
};

/// How long a one-time web link works, in milliseconds.
pub const LINK_MS: i64 = 15 * 60 * 1_000;
/// How long the operator's first enrolment string works, in seconds.
pub const FIRST_TTL_S: u64 = 24 * 3_600;

const CODE_BYTES: usize = 20;
const HTTP: &str = "http";

/// It did not work.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// There is no plane.
    #[error("{0} holds no plane; make one with: mycelial-plane run --dir {0}")]
    NoPlane(String),
    /// See [`ConfigError`].
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
    /// See [`HomeError`].
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The wish for a token makes no sense.
    #[error("{0}")]
    Wish(String),
    /// No randomness.
    #[error("the operating system gives no randomness: {0}")]
    Random(getrandom::Error),
}

/// The hash under which a code or a session is kept.
pub fn digest(secret: &str) -> [u8; 32] {
    hash("mycelial web login v1", &[secret.as_bytes()])
}

/// A fresh secret, as text.
pub fn fresh_secret() -> Result<String, LoginError> {
    let mut bytes = [0; CODE_BYTES];
    getrandom::fill(&mut bytes).map_err(LoginError::Random)?;
    Ok(base32(&bytes))
}

/// Notes where the web page really listens.
pub fn note_http(store: &Store, http: &str) -> Result<(), StoreError> {
    store.set(HTTP, http.as_bytes())
}

/// Makes a one-time link to the page at `http`, an address and a port.
pub fn link(store: &Store, scheme: &str, http: &str) -> Result<String, LoginError> {
    let code = fresh_secret()?;
    store.add_login(&digest(&code), unix_ms().saturating_add(LINK_MS))?;
    // In the fragment, which browsers send to nobody: not to the server's log, not on to other pages.
    Ok(format!("{scheme}://{http}/#/login/{code}"))
}

/// Makes an enrolment string, with the audit's entry about it if there is one.
pub fn token(store: &mut Store, config: &Config, wish: Wish, entry: Option<AuditEvent>) -> Result<String, LoginError> {
    let no_plane = || LoginError::NoPlane("the store".to_string());
    let inviter = config.inviter(&public(store)?.ok_or_else(no_plane)?)?;
    let mut random = [0; TOKEN_RANDOM_BYTES];
    getrandom::fill(&mut random).map_err(LoginError::Random)?;
    let token = mint(wish, &random, unix_ms()).map_err(|failure| {
        let hint = if failure.hint.is_empty() {
            String::new()
        } else {
            format!("; {}", failure.hint)
        };
        LoginError::Wish(format!("{}{hint}", failure.message))
    })?;
    let text = inviter.invitation(&token).encode();
    let changes = [Change::Token(token)].into_iter();
    let changes: Vec<_> = changes.chain(entry.map(Change::Audit)).collect();
    store.commit(&changes)?;
    Ok(text)
}

/// The entry about what is done by whoever can read the plane's directory.
pub fn from_directory(action: &str, what: &str) -> AuditEvent {
    AuditEvent::new(unix_ms(), OWNER, "directory", action, what)
}

fn open(dir: &Path) -> Result<(Store, Config), LoginError> {
    if !is_made(dir) {
        return Err(LoginError::NoPlane(dir.display().to_string()));
    }
    let config = Config::read(dir)?;
    Ok((Store::open(&dir.join(STORE))?, config))
}

/// `mycelial-plane login`: the link, and whether the plane is running.
pub fn login_command(dir: &Path) -> Result<(String, bool), LoginError> {
    let (mut store, config) = open(dir)?;
    let running = match Home::open(dir) {
        Ok(_) => false,
        Err(HomeError::InUse(_)) => true,
        Err(error) => return Err(error.into()),
    };
    let noted = store
        .setting(HTTP)?
        .filter(|_| running)
        .and_then(|bytes| String::from_utf8(bytes).ok());
    let http = noted.unwrap_or(config.http);
    store.audit(&[from_directory("make a log-in link", "for an admin")])?;
    Ok((link(&store, config.web.scheme(), &http)?, running))
}

/// `mycelial-plane token`: the enrolment string.
pub fn token_command(dir: &Path, wish: Wish) -> Result<String, LoginError> {
    let (mut store, config) = open(dir)?;
    let name = wish.name.as_deref().unwrap_or("any name");
    let what = format!("for {} {name}, {} uses", wish.role, wish.uses);
    let entry = from_directory("make an enrolment string", &what);
    token(&mut store, &config, wish, Some(entry))
}

#[cfg(test)]
mod tests {
    use bus_schema::member::{Invitation, Role};

    use super::*;
    use crate::init::{Wishes, init};

    #[test]
    fn a_link_and_a_token_without_and_beside_a_running_plane() {
        let dir = tempfile::tempdir().unwrap();
        let refused = login_command(dir.path()).unwrap_err().to_string();
        assert!(refused.contains("holds no plane"), "{refused}");
        init(dir.path(), &Wishes::default()).unwrap();
        let (link, running) = login_command(dir.path()).unwrap();
        assert!(link.starts_with("http://127.0.0.1:7777/#/login/") && !running, "{link}");

        let home = Home::open(dir.path()).unwrap();
        let store = Store::open(&dir.path().join(STORE)).unwrap();
        note_http(&store, "127.0.0.1:40123").unwrap();
        let (link, running) = login_command(dir.path()).unwrap();
        assert!(link.starts_with("http://127.0.0.1:40123/#/login/") && running, "{link}");
        let code = link.rsplit('/').next().unwrap();
        assert!(store.use_login(&digest(code), unix_ms()).unwrap());

        let wish = Wish {
            role: Role::Operator,
            name: None,
            uses: 1,
            ttl_s: 60,
            labels: Default::default(),
        };
        let text = token_command(dir.path(), wish.clone()).unwrap();
        let invitation = Invitation::decode(&text).unwrap();
        let kept = store.token(&invitation.token).unwrap().unwrap();
        assert_eq!((kept.secret, kept.role), (invitation.secret, Role::Operator));
        let error = token_command(dir.path(), Wish { uses: 0, ..wish })
            .unwrap_err()
            .to_string();
        assert!(error.contains("1 to 1000 times"), "{error}");
        drop(home);
    }
}
