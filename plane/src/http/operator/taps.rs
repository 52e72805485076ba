//! Taps: records that pass a node, for a while. A page that wants to see them asks again and again; when it does not, the tap ends.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use bus_schema::{api::FailureKind, member::is_name};
use serde::Deserialize;

use super::{daemon, noted, operator as web_operator};
use crate::{
    http::{
        ask::{Answer, Ask, Page, json, nothing},
        problem::Refusal,
        table::{Endpoint, by, operator},
    },
    permission::{Rank, Reach::Narrow},
    web_operator::{Look, RATE_MAX, TAP_S_MAX, TapShown, TapWish},
};

const INSTEAD: &str = "mycelial tap WORKFLOW NODE";

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::post(
            "/operator/taps",
            operator(Narrow),
            "Shows records that pass a node, for a while",
            by!(open),
        )
        .takes::<Wish>()
        .answers::<TapShown>(),
        Endpoint::get(
            "/operator/taps",
            operator(Narrow),
            "One's own taps; an admin's: everybody's",
            by!(list),
        )
        .answers::<Page<TapShown>>(),
        Endpoint::get(
            "/operator/taps/{id}",
            operator(Narrow),
            "What one's own tap has shown since; keeps it open",
            by!(look),
        )
        .query::<Since>()
        .answers::<Look<'static>>(),
        Endpoint::delete("/operator/taps/{id}", operator(Narrow), "Ends a tap", by!(end)),
    ]
}

/// What to tap.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Wish {
    /// Where.
    daemon: String,
    /// Which workflow.
    workflow: String,
    /// What comes out of this node; of a destination: what goes in.
    node: String,
    /// How long, in seconds: 1 to 600.
    #[serde(default = "a_minute")]
    for_s: u64,
    /// Most records a second: 1 to 200.
    #[serde(default = "a_few")]
    rate: u32,
}

fn a_minute() -> u64 {
    60
}

fn a_few() -> u32 {
    20
}

async fn open(ask: Ask) -> Answer {
    let Wish {
        daemon: name,
        workflow,
        node: at,
        for_s,
        rate,
    } = ask.body()?;
    let what = format!("{at} of {workflow} on {name} for {for_s} s");
    let opened = async {
        if !(1..=TAP_S_MAX).contains(&for_s) || !(1..=RATE_MAX).contains(&rate) {
            let message = format!("for_s: 1 to {TAP_S_MAX} seconds; rate: 1 to {RATE_MAX} records a second");
            return Err(Refusal::invalid(message, ""));
        }
        if !is_name(&workflow) || at.len() > bus_schema::limits::TEXT_BYTES_MAX {
            return Err(Refusal::invalid("workflow or node: this is no name of one", ""));
        }
        let daemon = daemon(&ask, &name, INSTEAD).await?;
        let wish = TapWish {
            by: ask.caller()?.name.clone(),
            daemon: daemon.name,
            node: daemon.node,
            workflow,
            at,
            rate,
            lasts: Duration::from_secs(for_s),
        };
        match daemon.operator.taps.open(wish, Instant::now()) {
            Ok(shown) => json(shown),
            Err(cause) => {
                let (status, hint) = (
                    StatusCode::TOO_MANY_REQUESTS,
                    "end one of them, or wait until it is over",
                );
                Err(Refusal::new(status, FailureKind::Conflict, cause.to_string(), hint))
            }
        }
    };
    noted(&ask, "tap records", &what, opened).await
}

async fn list(ask: Ask) -> Answer {
    let (operator, caller) = (web_operator(&ask, INSTEAD)?, ask.caller()?);
    json(Page::all(operator.taps.list(whose(caller), Instant::now())))
}

/// Whose taps somebody may see and end: its own, or all.
fn whose(caller: &crate::permission::Caller) -> Option<&str> {
    let is_over_all = caller.rank == Rank::Admin && caller.scope.is_none();
    (!is_over_all).then_some(caller.name.as_str())
}

/// Since when.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Since {
    /// `newest` of the look before; 0 at first.
    #[serde(default)]
    after: u64,
}

fn no_tap() -> Refusal {
    Refusal::not_found(
        "there is no such tap",
        "it may be over since a while; see: GET /operator/taps",
    )
}

fn number(ask: &Ask) -> Result<u64, Refusal> {
    ask.param("id").parse().map_err(|_| no_tap())
}

async fn look(ask: Ask) -> Answer {
    let Since { after } = ask.query()?;
    let (operator, by) = (web_operator(&ask, INSTEAD)?, &ask.caller()?.name);
    let seen = operator
        .taps
        .look(number(&ask)?, by, after, Instant::now(), |look| json(look));
    seen.unwrap_or_else(|| Err(no_tap()))
}

async fn end(ask: Ask) -> Answer {
    let (operator, caller) = (web_operator(&ask, INSTEAD)?, ask.caller()?);
    match operator.taps.end(number(&ask)?, whose(caller), Instant::now()) {
        true => nothing(),
        false => Err(no_tap()),
    }
}
