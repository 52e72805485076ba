//! Saved selectors, as HTTP. No logic of its own.

use bus_schema::api::{ApiCall, ApiResult, GroupCall, GroupView};
use serde::Deserialize;

use super::{
    ask::{Answer, Ask, Page, json, nothing, tag_of, tagged, unexpected, with_tag},
    problem::Refusal,
    table::{Endpoint, by, operator, viewer},
};
use crate::permission::Reach::{Narrow, Whole};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get(
            "/groups",
            viewer(Narrow),
            "Saved selectors; used as group:NAME wherever a selector is",
            by!(list),
        )
        .answers::<Page<GroupView>>(),
        Endpoint::get("/groups/{name}", viewer(Narrow), "One group", by!(show)).answers::<GroupView>(),
        Endpoint::put(
            "/groups/{name}",
            operator(Whole),
            "Makes a group, or gives it another selector",
            by!(put),
        )
        .takes::<Stands>()
        .conditional()
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

/// The tag of a group among all: how many it chooses changes by itself.
fn tag(all: &ApiResult, name: &str) -> Option<String> {
    let ApiResult::Groups(all) = all else { return None };
    let group = all.iter().find(|group| group.name == name)?;
    Some(tag_of(&[group.selector.as_bytes()]))
}

async fn show(ask: Ask) -> Answer {
    let (name, all) = (ask.param("name"), ask.call(ApiCall::Group(GroupCall::List)).await?);
    match (tag(&all, &name), all) {
        (Some(tag), ApiResult::Groups(all)) => tagged(&ask, &tag, all.into_iter().find(|group| group.name == name)),
        _ => {
            let name: String = name.chars().take(64).collect();
            let message = format!("there is no group '{}'", name.escape_debug());
            Err(Refusal::not_found(message, "see: GET /groups"))
        }
    }
}

async fn put(ask: Ask) -> Answer {
    let Stands { selector } = ask.body()?;
    let name = ask.param("name");
    let call = GroupCall::Put {
        name: name.clone(),
        selector,
    };
    let wanted = name.clone();
    let put = ask.call_if(ApiCall::Group(call), ApiCall::Group(GroupCall::List), move |all| {
        tag(all, &wanted)
    });
    let all = put.await?;
    let tag = tag(&all, &name).ok_or_else(unexpected)?;
    match all {
        ApiResult::Groups(all) => Ok(with_tag(&tag, json(Page::all(all))?)),
        _ => Err(unexpected()),
    }
}

async fn remove(ask: Ask) -> Answer {
    group(&ask, GroupCall::Remove(ask.param("name"))).await?;
    nothing()
}
