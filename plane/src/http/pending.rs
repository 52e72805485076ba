//! Daemons that wait for approval without a token, as HTTP. No logic of its own.

use bus_schema::{
    api::{ApiCall, ApiResult},
    pairing::{PairingCall, PairingResult, PendingView},
};
use serde::{Deserialize, Serialize};

use super::{
    ask::{Answer, Ask, Page, json, nothing, unexpected},
    problem::Refusal,
    table::{Endpoint, by, operator},
};
use crate::permission::Reach::Whole;

/// For how long daemons may wait unless told, in seconds.
const OPEN_S: u64 = 3_600;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get(
            "/pending",
            operator(Whole),
            "Daemons that wait for approval, with the codes they show",
            by!(list),
        )
        .answers::<Page<PendingView>>(),
        Endpoint::get(
            "/pending/door",
            operator(Whole),
            "Until when daemons may wait for approval, and the string they need",
            by!(door),
        )
        .answers::<Door>(),
        Endpoint::post(
            "/pending/open",
            operator(Whole),
            "Lets daemons without an enrolment string wait for approval for a while",
            by!(open),
        )
        .takes::<Opening>()
        .answers::<Door>(),
        Endpoint::post("/pending/close", operator(Whole), "Lets none wait any more", by!(close)),
        Endpoint::post(
            "/pending/{code}/approve",
            operator(Whole),
            "Makes the daemon that shows this code a member",
            by!(approve),
        )
        .takes::<Approval>()
        .answers::<Named>(),
        Endpoint::post(
            "/pending/{code}/reject",
            operator(Whole),
            "Turns the daemon that shows this code away",
            by!(reject),
        )
        .answers::<Named>(),
    ]
}

/// For how long.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Opening {
    /// In seconds; at most a week.
    #[serde(default = "an_hour")]
    ttl_s: u64,
}

fn an_hour() -> u64 {
    OPEN_S
}

/// What daemons need to find the fleet.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct Door {
    /// Always the same, and no secret: whoever uses it waits for approval.
    invitation: String,
    /// Until when they may wait, milliseconds since 1970; null: none may.
    open_until_unix_ms: Option<i64>,
}

/// How a daemon is approved.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Approval {
    /// Another name than the one it asks for.
    #[serde(default)]
    name: Option<String>,
}

/// A daemon.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct Named {
    /// Its name.
    name: String,
}

async fn pairing(ask: &Ask, call: PairingCall) -> Result<PairingResult, Refusal> {
    match ask.call(ApiCall::Pairing(call)).await? {
        ApiResult::Pairing(result) => Ok(result),
        _ => Err(unexpected()),
    }
}

async fn list(ask: Ask) -> Answer {
    json(Page::all(pairing(&ask, PairingCall::List).await?.waiting))
}

async fn open(ask: Ask) -> Answer {
    let Opening { ttl_s } = ask.body()?;
    match ask.call(ApiCall::Pairing(PairingCall::Open { ttl_s })).await? {
        ApiResult::Token(_) => door(ask).await,
        _ => Err(unexpected()),
    }
}

async fn door(ask: Ask) -> Answer {
    let ApiResult::Tokens(all) = ask.call(ApiCall::TokenList).await? else {
        return Err(unexpected());
    };
    let invitation = &ask.web.about.door;
    let open = all.iter().find(|token| token.id == invitation.token);
    json(Door {
        invitation: invitation.encode(),
        open_until_unix_ms: open.map(|token| token.expires_unix_ms),
    })
}

async fn close(ask: Ask) -> Answer {
    pairing(&ask, PairingCall::Close).await?;
    nothing()
}

async fn approve(ask: Ask) -> Answer {
    let Approval { name } = ask.body()?;
    let code = ask.param("code");
    let name = pairing(&ask, PairingCall::Approve { code, name }).await?.done;
    json(Named { name })
}

async fn reject(ask: Ask) -> Answer {
    let code = ask.param("code");
    let name = pairing(&ask, PairingCall::Reject { code }).await?.done;
    json(Named { name })
}
