//! Drafts of workflows: what the editor keeps while somebody writes. Changes nothing in the fleet; deploying is another call.

use axum::http::{HeaderValue, StatusCode, header};
use bus_schema::{api::FailureKind, member::is_name};
use serde::{Deserialize, Serialize};

use super::{
    ask::{Answer, Ask, Page, PageWish, json, nothing, tagged},
    problem::Refusal,
    table::{Endpoint, by, operator},
    users::disk,
};
use crate::{
    clock::unix_ms,
    permission::Reach::Narrow,
    store::drafts::{Draft, Kept},
};

/// Most drafts.
const DRAFTS_MAX: u32 = 200;
/// Longest text, in bytes.
const TEXT_BYTES_MAX: usize = 256 * 1024;
/// Longest layout, in bytes of JSON.
const LAYOUT_BYTES_MAX: usize = 64 * 1024;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/drafts", operator(Narrow), "Drafts of workflows", by!(list))
            .query::<PageWish>()
            .answers::<Page<DraftView>>(),
        Endpoint::get("/drafts/{name}", operator(Narrow), "One draft", by!(show)).answers::<DraftShown>(),
        Endpoint::put(
            "/drafts/{name}",
            operator(Narrow),
            "Keeps a draft; deploys nothing",
            by!(keep),
        )
        .takes::<DraftWish>()
        .conditional()
        .answers::<DraftKept>(),
        Endpoint::delete("/drafts/{name}", operator(Narrow), "Forgets a draft", by!(forget)),
    ]
}

/// A draft in the list.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct DraftView {
    /// Its name: the workflow's.
    name: String,
    /// Its tag.
    revision: u32,
    /// Who changed it last.
    by: String,
    /// When, milliseconds since 1970.
    at_unix_ms: i64,
}

/// A draft.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct DraftShown {
    /// What the workflow shall say; it need not be right.
    text: String,
    /// Where the page has put things.
    layout: serde_json::Value,
    /// Who changed it last.
    by: String,
    /// When, milliseconds since 1970.
    at_unix_ms: i64,
}

/// What shall be kept.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct DraftWish {
    /// What the workflow shall say; it need not be right.
    text: String,
    /// Where the page has put things: any JSON.
    #[serde(default)]
    layout: serde_json::Value,
}

/// A draft that was kept.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct DraftKept {
    /// Its tag from now on.
    revision: u32,
}

/// A text may name daemons that not everybody sees: whoever has a scope has only the drafts that it began. They stay its own after
/// somebody else has written on; what was written then is not shown to it.
fn is_for(ask: &Ask, draft: &Draft) -> Result<bool, Refusal> {
    let caller = ask.caller()?;
    Ok(caller.scope.is_none() || draft.owner == caller.name)
}

fn missing(name: &str) -> Refusal {
    let name: String = name.chars().take(64).collect();
    Refusal::not_found(
        format!("there is no draft '{}'", name.escape_debug()),
        "see: GET /drafts",
    )
}

async fn list(ask: Ask) -> Answer {
    let mut items = Vec::new();
    for draft in disk(&ask, |files| files.store.drafts()).await? {
        if is_for(&ask, &draft)? {
            items.push(DraftView {
                name: draft.name,
                revision: draft.revision,
                by: draft.by,
                at_unix_ms: draft.at_unix_ms,
            });
        }
    }
    json(Page::after(items, &ask.query()?, |draft| draft.name.clone())?)
}

/// The draft of this name, if it is for whoever asks.
async fn found(ask: &Ask, name: String) -> Result<Option<Draft>, Refusal> {
    let draft = disk(ask, move |files| files.store.draft(&name)).await?;
    match draft {
        Some(draft) if is_for(ask, &draft)? => Ok(Some(draft)),
        _ => Ok(None),
    }
}

async fn show(ask: Ask) -> Answer {
    let name = ask.param("name");
    let draft = found(&ask, name.clone()).await?.ok_or_else(|| missing(&name))?;
    let caller = ask.caller()?;
    if caller.scope.is_some() && draft.by != caller.name {
        let message = format!(
            "'{}' has gone on with this draft, and may have named what is outside of your scope",
            draft.by
        );
        let hint = "ask them for it, or write over it (PUT with If-Match), or forget it (DELETE)";
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            FailureKind::Forbidden,
            message,
            hint,
        ));
    }
    let shown = DraftShown {
        text: draft.text,
        layout: serde_json::from_str(&draft.layout).unwrap_or_default(),
        by: draft.by,
        at_unix_ms: draft.at_unix_ms,
    };
    tagged(&ask, &draft.revision.to_string(), shown)
}

/// Nobody overwrites what belongs to somebody it may not see.
async fn only_own(ask: &Ask, name: &str) -> Result<(), Refusal> {
    let wanted = name.to_string();
    let there = disk(ask, move |files| files.store.draft(&wanted)).await?;
    match there {
        Some(draft) if !is_for(ask, &draft)? => Err(Refusal::conflict(
            "somebody else has a draft of that name",
            "choose another name",
        )),
        _ => Ok(()),
    }
}

async fn keep(ask: Ask) -> Answer {
    let (DraftWish { text, layout }, name) = (ask.body()?, ask.param("name"));
    if !is_name(&name) {
        let hint = "use 1 to 32 of a-z, 0-9, '_' and '-', starting with a letter or digit";
        return Err(Refusal::invalid("the name of a draft is a workflow's", hint));
    }
    let layout = layout.to_string();
    for (what, length, most) in [
        ("text", text.len(), TEXT_BYTES_MAX),
        ("layout", layout.len(), LAYOUT_BYTES_MAX),
    ] {
        if length > most {
            let message = format!("{what}: {length} bytes are too many; {most} are possible");
            return Err(Refusal::invalid(message, ""));
        }
    }
    let expected = ask.expected()?.revision()?;
    only_own(&ask, &name).await?;
    let event = ask.event("write a draft", &name);
    let by = ask.caller()?.name.clone();
    let draft = Draft {
        name,
        text,
        layout,
        revision: 0,
        owner: by.clone(),
        by,
        at_unix_ms: unix_ms(),
    };
    let kept = disk(&ask, move |files| {
        files.store.keep_draft(&draft, expected, DRAFTS_MAX, event)
    });
    match kept.await? {
        Kept::As(revision) => {
            let mut response = json(DraftKept { revision })?;
            if let Ok(tag) = HeaderValue::from_str(&format!("\"{revision}\"")) {
                response.headers_mut().insert(header::ETAG, tag);
            }
            Ok(response)
        }
        Kept::Moved(current) => Err(moved(current)),
        Kept::Full => Err(Refusal::conflict(
            format!("there are {DRAFTS_MAX} drafts already"),
            "forget one that is not needed any more",
        )),
    }
}

fn moved(current: u32) -> Refusal {
    let message = match current {
        0 => "there is no such draft any more".to_string(),
        current => format!("the draft was changed meanwhile: it is at revision {current}"),
    };
    let (status, hint) = (StatusCode::PRECONDITION_FAILED, "look at what is there now");
    Refusal::new(status, FailureKind::Conflict, message, hint)
}

async fn forget(ask: Ask) -> Answer {
    let (name, expected) = (ask.param("name"), ask.precondition()?);
    found(&ask, name.clone()).await?.ok_or_else(|| missing(&name))?;
    let (wanted, event) = (name.clone(), ask.event("forget a draft", &name));
    match disk(&ask, move |files| files.store.forget_draft(&wanted, expected, event)).await? {
        Kept::Moved(0) => Err(missing(&name)),
        Kept::Moved(current) => Err(moved(current)),
        Kept::As(_) | Kept::Full => nothing(),
    }
}
