//! Users of the page: who there is, how much each may, and their passwords.

use axum::http::StatusCode;
use bus_schema::{api::FailureKind, audit::AuditEvent};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::{
    ask::{Answer, Ask, Page, PageWish, json, nothing, plain_name, tag_of, tagged},
    problem::Refusal,
    table::{Endpoint, admin, by, viewer},
};
use crate::{
    clock::unix_ms,
    disk::Files,
    domain::labels::Selector,
    oidc::PREFIX,
    password,
    people::{USERS_MAX, mistaken_for_owner},
    permission::{Rank, Reach::Free},
    store::{Store, StoreError, User},
};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::put(
            "/session/password",
            viewer(Free),
            "Changes one's own password; ends one's other sessions",
            by!(own),
        )
        .takes::<PasswordWish>(),
        Endpoint::get("/users", admin(), "Users of the page", by!(list))
            .query::<PageWish>()
            .answers::<Page<UserView>>(),
        Endpoint::post("/users", admin(), "Adds a user", by!(add)).takes::<UserWish>(),
        Endpoint::get("/users/{name}", admin(), "One user", by!(show)).answers::<UserView>(),
        Endpoint::patch(
            "/users/{name}",
            admin(),
            "Changes a user's role, scope or password",
            by!(change),
        )
        .takes::<UserChange>()
        .conditional(),
        Endpoint::delete(
            "/users/{name}",
            admin(),
            "Removes a user and ends its sessions",
            by!(remove),
        ),
    ]
}

/// A user in the list.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct UserView {
    /// Its name.
    name: String,
    /// How much it may.
    role: Rank,
    /// Which daemons it sees, as a selector; all when null.
    scope: Option<String>,
    /// Since when, milliseconds since 1970.
    made_unix_ms: i64,
    /// What `If-Match` has to say to change it, without the quotes: the ETag of `GET /users/NAME`.
    etag: String,
}

impl From<User> for UserView {
    fn from(user: User) -> Self {
        Self {
            etag: tag(&user),
            name: user.name,
            role: user.rank,
            scope: user.scope,
            made_unix_ms: user.made_unix_ms,
        }
    }
}

/// What an admin decides of a user. Not the password: its owner changes it at any time, and takes nothing from an admin by that.
fn tag(user: &User) -> String {
    let scope = user.scope.as_deref().unwrap_or_default();
    tag_of(&[
        user.name.as_bytes(),
        user.rank.word().as_bytes(),
        scope.as_bytes(),
        &user.made_unix_ms.to_le_bytes(),
    ])
}

/// A new user.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct UserWish {
    name: String,
    role: Rank,
    /// 10 characters or more.
    password: String,
    /// Which daemons it sees: labels and names, such as site=berlin; all when it is left out.
    #[serde(default)]
    scope: Option<String>,
}

/// What changes of a user; the rest stays.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct UserChange {
    #[serde(default)]
    role: Option<Rank>,
    /// Which daemons it sees; all when empty.
    #[serde(default)]
    scope: Option<String>,
    /// Ends its sessions.
    #[serde(default)]
    password: Option<String>,
}

/// One's own password.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct PasswordWish {
    /// As it is.
    old: String,
    /// As it shall be.
    new: String,
}

/// Whether these can be a user's.
pub(super) fn check(name: &str, password: &str) -> Result<(), Refusal> {
    plain_name(name)?;
    password::mistake(password).map_or(Ok(()), |wrong| Err(Refusal::invalid(wrong, "")))
}

/// The same of a new user.
pub(super) fn check_new(name: &str, password: &str) -> Result<(), Refusal> {
    check(name, password)?;
    mistaken_for_owner(name).map_or(Ok(()), |wrong| Err(Refusal::invalid(wrong, "")))
}

/// Whether this can be somebody's scope; nothing is none.
pub(super) fn check_scope(scope: Option<&str>) -> Result<(), Refusal> {
    match scope.filter(|scope| !scope.is_empty()).map(Selector::parse_scope) {
        Some(Err(wrong)) => Err(Refusal::invalid(wrong, "")),
        _ => Ok(()),
    }
}

pub(super) async fn disk<T: Send + 'static>(
    ask: &Ask,
    job: impl FnOnce(&mut Files) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Refusal> {
    let done = ask.web.auth.disk.run(job).await;
    done.map_err(Refusal::internal)?.map_err(Refusal::internal)
}

/// Changes the store, with the entry about it. `false`: there was nothing to change.
pub(super) async fn noted(
    ask: &Ask,
    event: AuditEvent,
    change: impl FnOnce(&mut Store) -> Result<bool, StoreError> + Send + 'static,
) -> Result<bool, Refusal> {
    let change = |store: &mut Store, _: &mut AuditEvent| Ok(change(store)?.then_some(()));
    let done = disk(ask, move |files| files.store.noted(event, change));
    Ok(done.await?.is_some())
}

/// Away from the thread that serves, one at a time.
async fn slowly<T: Send + 'static>(ask: &Ask, job: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    let _turn = ask.web.auth.hashing.acquire().await.map_err(Refusal::internal)?;
    tokio::task::spawn_blocking(job).await.map_err(Refusal::internal)
}

async fn hashed(ask: &Ask, password: String) -> Result<String, Refusal> {
    slowly(ask, move || password::hash(&password))
        .await?
        .map_err(Refusal::internal)
}

/// From where, without the port.
pub(super) fn address(ask: &Ask) -> String {
    let peer = ask.from.parse::<std::net::SocketAddr>();
    peer.map_or_else(|_| ask.from.clone(), |peer| peer.ip().to_string())
}

/// Counts an attempt to log in under these keys; refused when too many have failed.
pub(super) fn attempt(ask: &Ask, keys: &[String]) -> Result<(), Refusal> {
    let (now_ms, attempts) = (u64::try_from(unix_ms()).unwrap_or(0), &ask.web.auth.attempts);
    if let Some(wait_s) = attempts.wait_s(keys, now_ms) {
        let message = "too many log-ins have failed";
        let mut refusal = Refusal::new(
            StatusCode::TOO_MANY_REQUESTS,
            FailureKind::Forbidden,
            message,
            format!("try again in {wait_s} s, or {}", ask.web.auth.login_hint()),
        );
        refusal.retry_s = Some(wait_s);
        return Err(refusal);
    }
    attempts.tried(keys, now_ms);
    Ok(())
}

/// Whose name and password these are. Many wrong ones from one address, or for one name, have to wait.
pub(super) async fn recognise(ask: &Ask, name: String, password: String) -> Result<String, Refusal> {
    let short: String = name.chars().take(64).collect();
    let keys = [format!("name {short}"), format!("address {}", address(ask))];
    attempt(ask, &keys)?;
    let found = disk(ask, move |files| files.store.user(&name)).await?;
    let kept = found.as_ref().map(|user| user.password.clone());
    let right = slowly(ask, move || password::is_right(&password, kept.as_deref())).await?;
    match found.filter(|_| right) {
        Some(user) => {
            ask.web.auth.attempts.succeeded(&keys);
            Ok(user.name)
        }
        None => {
            warn!(user = short, from = ask.from, "a log-in to the web page failed");
            let (status, hint) = (StatusCode::UNAUTHORIZED, ask.web.auth.login_hint());
            Err(Refusal::new(
                status,
                FailureKind::Forbidden,
                "name or password is wrong",
                hint,
            ))
        }
    }
}

/// Makes the first user, an admin. Its name.
pub(super) async fn first(ask: &Ask, name: String, password: String) -> Result<String, Refusal> {
    let event = AuditEvent::new(
        unix_ms(),
        &name,
        &ask.from,
        "add a user",
        &format!("{name} as admin, the first"),
    );
    make(
        ask,
        event,
        UserWish {
            name: name.clone(),
            role: Rank::Admin,
            password,
            scope: None,
        },
        1,
    )
    .await?;
    Ok(name)
}

async fn make(ask: &Ask, event: AuditEvent, wish: UserWish, most: u32) -> Result<(), Refusal> {
    check_new(&wish.name, &wish.password)?;
    check_scope(wish.scope.as_deref())?;
    let (name, rank) = (wish.name, wish.role);
    let user = User {
        name: name.clone(),
        rank,
        scope: wish.scope.filter(|scope| !scope.is_empty()),
        password: hashed(ask, wish.password).await?,
        made_unix_ms: unix_ms(),
    };
    let added = noted(ask, event, move |store| store.add_user(&user, most));
    if !added.await? {
        let (message, hint) = match most {
            1 => ("there are users already".to_string(), "log in without making one"),
            most => (
                format!("there is a user '{name}' already, or there are {most}"),
                "choose another name",
            ),
        };
        return Err(Refusal::conflict(message, hint));
    }
    info!(user = name, role = rank.word(), "there is a new user of the web page");
    Ok(())
}

fn no_user(name: &str) -> Refusal {
    let name: String = name.chars().take(64).collect();
    Refusal::not_found(format!("there is no user '{name}'"), "see: GET /users")
}

async fn own(ask: Ask) -> Answer {
    let name = ask.caller()?.name.clone();
    let event = ask.event("change one's own password", &name);
    ask.failed(event.clone(), change_own(&ask, event).await).await
}

async fn change_own(ask: &Ask, event: AuditEvent) -> Answer {
    let PasswordWish { old, new } = ask.body()?;
    let name = ask.caller()?.name.clone();
    if name.starts_with(PREFIX) {
        return Err(Refusal::invalid(
            "your password is not kept here",
            "change it where you log in",
        ));
    }
    let wanted = name.clone();
    if disk(ask, move |files| files.store.user(&wanted)).await?.is_none() {
        return Err(Refusal::invalid(
            "whoever logs in with a code has no password",
            "add a user first",
        ));
    }
    check(&name, &new)?;
    recognise(ask, name.clone(), old).await.map_err(|mut refusal| {
        // Not 401: the session is good.
        if refusal.status == StatusCode::UNAUTHORIZED {
            (refusal.status, refusal.failure.message) = (StatusCode::FORBIDDEN, "the old password is wrong".into());
        }
        refusal
    })?;
    let (hash, but) = (hashed(ask, new).await?, ask.web.auth.cookie_of(&ask.headers));
    let changed = noted(ask, event, move |store| {
        store.change_user(&name, None, None, Some(&hash), but.as_ref())
    });
    changed.await?;
    nothing()
}

async fn list(ask: Ask) -> Answer {
    let users = disk(&ask, |files| files.store.users()).await?;
    let users = users.into_iter().map(UserView::from).collect();
    json(Page::after(users, &ask.query()?, |user| user.name.clone())?)
}

async fn show(ask: Ask) -> Answer {
    let name = ask.param("name");
    let whom = name.clone();
    let user = disk(&ask, move |files| files.store.user(&whom)).await?;
    let user = UserView::from(user.ok_or_else(|| no_user(&name))?);
    tagged(&ask, &user.etag.clone(), user)
}

async fn add(ask: Ask) -> Answer {
    let wish: UserWish = ask.body()?;
    let scope = wish
        .scope
        .as_deref()
        .map_or(String::new(), |scope| format!(", only '{scope}'"));
    let what = format!("{} as {}{scope}", wish.name, wish.role.word());
    let event = ask.event("add a user", &what);
    let made = make(&ask, event.clone(), wish, USERS_MAX).await;
    ask.failed(event, made).await?;
    nothing()
}

async fn change(ask: Ask) -> Answer {
    let (wish, name): (UserChange, _) = (ask.body()?, ask.param("name"));
    let role = wish
        .role
        .map_or(String::new(), |role| format!(", {} from now on", role.word()));
    let password = if wish.password.is_some() {
        ", another password"
    } else {
        ""
    };
    let scope = match wish.scope.as_deref() {
        None => String::new(),
        Some("") => ", all daemons".to_string(),
        Some(scope) => format!(", only '{scope}'"),
    };
    let what = format!("{name}{role}{scope}{password}");
    let event = ask.event("change a user", &what);
    ask.failed(event.clone(), changed(&ask, event, name, wish).await).await
}

async fn changed(ask: &Ask, event: AuditEvent, name: String, wish: UserChange) -> Answer {
    let UserChange { role, scope, password } = wish;
    check_scope(scope.as_deref())?;
    let hash = match password {
        Some(password) => {
            check(&name, &password)?;
            Some(hashed(ask, password).await?)
        }
        None => None,
    };
    let (whom, expected) = (name.clone(), ask.expected()?);
    // Nobody else is at the store in between.
    let done = disk(ask, move |files| {
        let Some(user) = files.store.user(&whom)? else {
            return Ok(None);
        };
        if !expected.holds(Some(&tag(&user))) {
            return Ok(Some(false));
        }
        let change = |store: &mut Store, _: &mut AuditEvent| {
            let known = store.change_user(&whom, role, scope.as_deref(), hash.as_deref(), None)?;
            Ok(known.then_some(true))
        };
        files.store.noted(event, change)
    });
    if !done.await?.ok_or_else(|| no_user(&name))? {
        let message = format!("user '{name}' was changed meanwhile; nothing was done");
        let hint = "look at what is there now, then change it again";
        let mut refusal = Refusal::conflict(message, hint);
        refusal.status = StatusCode::PRECONDITION_FAILED;
        return Err(refusal);
    }
    info!(
        user = name,
        by = ask.caller()?.name,
        "a user of the web page was changed"
    );
    nothing()
}

async fn remove(ask: Ask) -> Answer {
    let name = ask.param("name");
    let event = ask.event("remove a user", &name);
    ask.failed(event.clone(), removed(&ask, event, name).await).await
}

async fn removed(ask: &Ask, event: AuditEvent, name: String) -> Answer {
    let whom = name.clone();
    let gone = noted(ask, event, move |store| match whom.starts_with(PREFIX) {
        // No user of ours: it is out until it logs in again.
        true => store.end_oidc_sessions(&whom),
        false => store.remove_user(&whom),
    });
    if !gone.await? {
        return Err(no_user(&name));
    }
    info!(
        user = name,
        by = ask.caller()?.name,
        "a user of the web page was removed"
    );
    nothing()
}
