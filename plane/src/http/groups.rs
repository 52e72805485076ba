//! Saved selectors, as HTTP. No logic of its own.

use bus_schema::api::{ApiCall, ApiResult, GroupCall, GroupView};
use serde::Deserialize;

use super::{
    ask::{Answer, Ask, Page, json, nothing, unexpected},
    table::{Endpoint, by, operator, viewer},
};
use crate::permission::Reach::Whole;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get(
            "/groups",
            viewer(Whole),
            "Saved selectors; used as group:NAME wherever a selector is",
            by!(list),
        )
        .answers::<Page<GroupView>>(),
        Endpoint::put(
            "/groups/{name}",
            operator(Whole),
            "Makes a group, or gives it another selector",
            by!(put),
        )
        .takes::<Stands>()
        .answers::<Page<GroupView>>(),
        Endpoint::delete("/groups/{name}", operator(Whole), "Forgets a group", by!(remove)),
    ]
}

/// What a group stands for.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Stands {
    /// For example `site=berlin -label:test`; no other group.
    selector: String,
}

async fn group(ask: &Ask, call: GroupCall) -> Answer {
    match ask.call(ApiCall::Group(call)).await? {
        ApiResult::Groups(all) => json(Page::all(all)),
        _ => Err(unexpected()),
    }
}

async fn list(ask: Ask) -> Answer {
    group(&ask, GroupCall::List).await
}

async fn put(ask: Ask) -> Answer {
    let Stands { selector } = ask.body()?;
    let name = ask.param("name");
    group(&ask, GroupCall::Put { name, selector }).await
}

async fn remove(ask: Ask) -> Answer {
    group(&ask, GroupCall::Remove(ask.param("name"))).await?;
    nothing()
}
