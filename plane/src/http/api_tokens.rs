//! Tokens for programs that use this API: `Authorization: Bearer …`. Shown once, kept by hash, and they end.

use bus_schema::audit::AuditEvent;
use serde::{Deserialize, Serialize};

use super::{
    ask::{Answer, Ask, Page, PageWish, json, nothing, plain_name},
    problem::Refusal,
    table::{Endpoint, admin, by},
    users::{check_scope, disk, noted},
};
use crate::{
    clock::unix_ms,
    login::{digest, fresh_secret},
    permission::Rank,
    store::{Store, api_tokens::ApiToken},
};

/// Most tokens.
const TOKENS_MAX: u32 = 1_000;
/// Longest time that a token works, in seconds: a year.
const TTL_S_MAX: u64 = 366 * 86_400;
/// What a token begins with, so that it is recognised where it should not be.
const PREFIX: &str = "mycapi_";
/// Characters of a token's id.
const ID_CHARS: usize = 12;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get(
            "/api-tokens",
            admin(),
            "Tokens of programs that use this API",
            by!(list),
        )
        .query::<PageWish>()
        .answers::<Page<TokenView>>(),
        Endpoint::post("/api-tokens", admin(), "Makes a token for a program", by!(add))
            .takes::<TokenWish>()
            .answers::<Made>(),
        Endpoint::delete("/api-tokens/{id}", admin(), "Ends a token at once", by!(end)),
    ]
}

/// A token in the list.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct TokenView {
    /// Its id.
    id: String,
    /// What it is for.
    name: String,
    /// How much it may.
    role: Rank,
    /// Which daemons it sees, as a selector; all when null.
    scope: Option<String>,
    /// Who made it.
    by: String,
    /// When, milliseconds since 1970.
    made_unix_ms: i64,
    /// Until when it works.
    expires_unix_ms: i64,
}

/// A new token.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct TokenWish {
    /// What it is for.
    name: String,
    role: Rank,
    /// Which daemons it sees: labels and names, such as site=berlin; all when it is left out.
    #[serde(default)]
    scope: Option<String>,
    /// How long it works, in seconds; a year at most.
    ttl_s: u64,
}

/// A token that was made.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct Made {
    /// Its id.
    id: String,
    /// Itself: shown once, and kept nowhere.
    token: String,
    /// Until when it works, milliseconds since 1970.
    expires_unix_ms: i64,
}

async fn list(ask: Ask) -> Answer {
    let now = unix_ms();
    let view = |token: ApiToken| TokenView {
        id: token.id,
        name: token.name,
        role: token.rank,
        scope: token.scope,
        by: token.by,
        made_unix_ms: token.made_unix_ms,
        expires_unix_ms: token.expires_unix_ms,
    };
    let tokens = disk(&ask, move |files| files.store.api_tokens(now)).await?;
    let tokens = tokens.into_iter().map(view).collect();
    json(Page::after(tokens, &ask.query()?, |token| token.id.clone())?)
}

async fn add(ask: Ask) -> Answer {
    let wish: TokenWish = ask.body()?;
    let scope = wish
        .scope
        .as_deref()
        .map_or(String::new(), |scope| format!(", only '{scope}'"));
    let what = format!("{} as {} for {} s{scope}", wish.name, wish.role.word(), wish.ttl_s);
    let event = ask.event("make an API token", &what);
    let made = make(&ask, event.clone(), wish).await;
    json(ask.failed(event, made).await?)
}

async fn make(ask: &Ask, event: AuditEvent, wish: TokenWish) -> Result<Made, Refusal> {
    plain_name(&wish.name)?;
    check_scope(wish.scope.as_deref())?;
    if !(1..=TTL_S_MAX).contains(&wish.ttl_s) {
        let message = format!("ttl_s: a token works for 1 to {TTL_S_MAX} seconds, not {}", wish.ttl_s);
        return Err(Refusal::invalid(message, ""));
    }
    let secret = fresh_secret().map_err(Refusal::internal)?;
    let id: String = fresh_secret()
        .map_err(Refusal::internal)?
        .chars()
        .take(ID_CHARS)
        .collect();
    let (token, made_unix_ms) = (format!("{PREFIX}{secret}"), unix_ms());
    let expires_unix_ms = made_unix_ms.saturating_add_unsigned(wish.ttl_s * 1_000);
    let (hash, name) = (digest(&token), wish.name.clone());
    let kept = ApiToken {
        id: id.clone(),
        name: wish.name,
        rank: wish.role,
        scope: wish.scope.filter(|scope| !scope.is_empty()),
        by: ask.caller()?.name.clone(),
        made_unix_ms,
        expires_unix_ms,
    };
    let added = noted(ask, event, move |store| store.add_api_token(&kept, &hash, TOKENS_MAX));
    if !added.await? {
        let message = format!("there is a token '{name}' already, or there are {TOKENS_MAX}");
        return Err(Refusal::conflict(message, "choose another name, or end one"));
    }
    Ok(Made {
        id,
        token,
        expires_unix_ms,
    })
}

async fn end(ask: Ask) -> Answer {
    let id = ask.param("id");
    let event = ask.event("end an API token", &id);
    let done = ended(&ask, event.clone(), id).await;
    ask.failed(event, done).await?;
    nothing()
}

async fn ended(ask: &Ask, event: AuditEvent, id: String) -> Result<(), Refusal> {
    let wanted = id.clone();
    let change = move |store: &mut Store, event: &mut AuditEvent| {
        let name = store.end_api_token(&wanted)?;
        Ok(name.map(|name| event.what = name))
    };
    disk(ask, move |files| files.store.noted(event, change))
        .await?
        .ok_or_else(|| {
            let id: String = id.chars().take(64).collect();
            Refusal::not_found(
                format!("there is no API token '{}'", id.escape_debug()),
                "see: GET /api-tokens",
            )
        })
}
