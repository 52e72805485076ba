//! Daemons, labels, enrolment strings, and what the fleet is: calls of [`ApiCall`] as HTTP. No logic of its own.

use std::collections::BTreeMap;

use bus_schema::{
    api::{
        ApiCall, ApiResult, BrokerKind, Carriers, ComponentView, DaemonDetail, DaemonView, Labelled, LabelledToken,
        PlaneInfo, StreamView, TokenView,
    },
    id::TokenId,
    member::Role,
};
use serde::{Deserialize, Serialize};

use super::{
    ask::{Answer, Ask, Page, PageWish, json, nothing, unexpected},
    problem::Refusal,
    table::{Endpoint, by, operator, viewer},
};
use crate::{
    login::FIRST_TTL_S,
    permission::Reach::{Free, Narrow, Whole},
};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/info", viewer(Free), "The plane, in short", by!(info)).answers::<PlaneInfo>(),
        Endpoint::get(
            "/daemons",
            viewer(Narrow),
            "Daemons, all or those a selector chooses",
            by!(daemons),
        )
        .query::<DaemonsWish>()
        .answers::<Page<DaemonItem>>(),
        Endpoint::get(
            "/daemons/{name}",
            viewer(Narrow),
            "One daemon, by name or id",
            by!(daemon),
        )
        .answers::<DaemonShown>(),
        Endpoint::post(
            "/daemons/labels",
            operator(Whole),
            "Puts labels on daemons and takes labels off",
            by!(label),
        )
        .takes::<LabelWish>()
        .answers::<Page<Labelled>>(),
        Endpoint::get(
            "/tokens",
            operator(Whole),
            "Enrolment strings that can still be used",
            by!(tokens),
        )
        .query::<PageWish>()
        .answers::<Page<TokenItem>>(),
        Endpoint::post(
            "/tokens",
            operator(Whole),
            "Makes an enrolment string; only an admin makes one for an operator",
            by!(token),
        )
        .takes::<TokenWish>()
        .answers::<Invited>(),
        Endpoint::delete(
            "/tokens/{id}",
            operator(Whole),
            "Makes an enrolment string useless",
            by!(revoke),
        ),
        Endpoint::get("/components", viewer(Free), "What daemons can run", by!(components))
            .answers::<Page<ComponentView>>(),
        Endpoint::get(
            "/components/daemons",
            viewer(Narrow),
            "Which daemons carry which components",
            by!(carriers),
        )
        .answers::<Page<Carriers>>(),
        Endpoint::get("/ledger", viewer(Narrow), "Every stream's account", by!(ledger))
            .query::<PageWish>()
            .answers::<Page<StreamView>>(),
        Endpoint::get(
            "/access-list",
            viewer(Whole),
            "The broker's access list",
            by!(access_list),
        )
        .query::<Broker>()
        .answers::<Text>(),
    ]
}

/// A text.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct Text {
    /// It.
    pub(super) text: String,
}

async fn info(ask: Ask) -> Answer {
    match ask.call(ApiCall::Info).await? {
        ApiResult::Info(info) => json(info),
        _ => Err(unexpected()),
    }
}

/// Which daemons.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct DaemonsWish {
    /// For example `site=berlin version:<0.4 -label:test`; all when empty.
    #[serde(default)]
    selector: String,
    /// Most items, 1 to 1000.
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// A daemon in the list.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct DaemonItem {
    #[serde(flatten)]
    view: DaemonView,
    /// By key.
    labels: BTreeMap<String, String>,
}

/// A daemon with everything known of it.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct DaemonShown {
    #[serde(flatten)]
    detail: DaemonDetail,
    /// By key.
    labels: BTreeMap<String, String>,
}

async fn daemons(ask: Ask) -> Answer {
    let DaemonsWish {
        selector,
        limit,
        cursor,
    } = ask.query()?;
    let ApiResult::Daemons(views) = ask.call(ApiCall::DaemonSelect(selector.clone())).await? else {
        return Err(unexpected());
    };
    let mut labels = labels(&ask, selector).await?;
    let mut items: Vec<DaemonItem> = views
        .into_iter()
        .map(|view| {
            let labels = labels.remove(&view.name).unwrap_or_default();
            DaemonItem { view, labels }
        })
        .collect();
    items.sort_by(|a, b| a.view.name.cmp(&b.view.name));
    json(Page::cut(items, &PageWish { limit, cursor }, |item| {
        item.view.name.clone()
    })?)
}

async fn labels(ask: &Ask, selector: String) -> Result<BTreeMap<String, BTreeMap<String, String>>, Refusal> {
    match ask.call(ApiCall::DaemonLabels(selector)).await? {
        ApiResult::Labels(all) => Ok(all.into_iter().map(|one| (one.name, one.labels)).collect()),
        _ => Err(unexpected()),
    }
}

async fn daemon(ask: Ask) -> Answer {
    let ApiResult::Daemon(detail) = ask.call(ApiCall::DaemonShow(ask.param("name"))).await? else {
        return Err(unexpected());
    };
    let mut labels = labels(&ask, format!("name:{}", detail.view.name)).await?;
    let labels = labels.remove(&detail.view.name).unwrap_or_default();
    json(DaemonShown { detail, labels })
}

/// Which labels on which daemons.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct LabelWish {
    /// Which daemons.
    selector: String,
    /// Keys with their new values.
    #[serde(default)]
    set: BTreeMap<String, String>,
    /// Keys.
    #[serde(default)]
    unset: Vec<String>,
}

async fn label(ask: Ask) -> Answer {
    let LabelWish { selector, set, unset } = ask.body()?;
    let set = set.into_iter().collect();
    match ask.call(ApiCall::DaemonLabel { selector, set, unset }).await? {
        ApiResult::Labels(all) => json(Page::all(all)),
        _ => Err(unexpected()),
    }
}

/// An enrolment string in the list.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct TokenItem {
    #[serde(flatten)]
    token: TokenView,
    /// What its daemons are labelled, by key.
    labels: BTreeMap<String, String>,
}

async fn tokens(ask: Ask) -> Answer {
    let ApiResult::TokenLabels(all) = ask.call(ApiCall::TokenLabels).await? else {
        return Err(unexpected());
    };
    let item = |LabelledToken { token, labels }| TokenItem { token, labels };
    let all = all.into_iter().map(item).collect();
    json(Page::after(all, &ask.query()?, |item: &TokenItem| {
        item.token.id.to_string()
    })?)
}

/// What an enrolment string shall be.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct TokenWish {
    /// What its holders become. An operator may everything on the bus, so only an admin lets one in.
    role: Role,
    /// The name its only holder gets; the candidate chooses unless told.
    #[serde(default)]
    name: Option<String>,
    /// How often it can be used.
    #[serde(default = "one")]
    uses: u32,
    /// How long it can be used.
    #[serde(default = "a_day")]
    ttl_s: u64,
    /// What each daemon is labelled from its enrolment on, by key.
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

fn one() -> u32 {
    1
}

fn a_day() -> u64 {
    FIRST_TTL_S
}

/// An enrolment string.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct Invited {
    /// Shown once, and kept nowhere.
    invitation: String,
}

async fn token(ask: Ask) -> Answer {
    let TokenWish {
        role,
        name,
        uses,
        ttl_s,
        labels,
    } = ask.body()?;
    let call = if labels.is_empty() {
        ApiCall::TokenCreate {
            role,
            name,
            uses,
            ttl_s,
        }
    } else if role == Role::Daemon {
        ApiCall::TokenMint {
            name,
            uses,
            ttl_s,
            labels,
        }
    } else {
        let message = "only daemons have labels".to_string();
        return Err(Refusal::invalid(
            message,
            "leave the labels out, or make a string for daemons",
        ));
    };
    match ask.call(call).await? {
        ApiResult::Token(invitation) => json(Invited { invitation }),
        _ => Err(unexpected()),
    }
}

async fn revoke(ask: Ask) -> Answer {
    let token: TokenId = ask
        .param("id")
        .parse()
        .map_err(|error: bus_schema::id::IdError| Refusal::invalid(error.to_string(), ""))?;
    match ask.call(ApiCall::TokenRevoke(token)).await? {
        ApiResult::Tokens(_) => nothing(),
        _ => Err(unexpected()),
    }
}

async fn components(ask: Ask) -> Answer {
    match ask.call(ApiCall::Components).await? {
        ApiResult::Components(all) => json(Page::all(all)),
        _ => Err(unexpected()),
    }
}

async fn carriers(ask: Ask) -> Answer {
    match ask.call(ApiCall::Carriers).await? {
        ApiResult::Carriers(all) => json(Page::all(all)),
        _ => Err(unexpected()),
    }
}

async fn ledger(ask: Ask) -> Answer {
    match ask.call(ApiCall::Ledger).await? {
        // Ends that are not seen are called the same: only places tell such streams apart.
        ApiResult::Ledger(all) => json(Page::at(all, &ask.query()?)?),
        _ => Err(unexpected()),
    }
}

/// For whom to write an access list.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Broker {
    broker: BrokerKind,
    /// Only what is about this member, by name or id.
    member: Option<String>,
}

async fn access_list(ask: Ask) -> Answer {
    let Broker { broker, member } = ask.query()?;
    let call = match member {
        None => ApiCall::AccessList(broker),
        Some(member) => ApiCall::AccessListOf { broker, member },
    };
    match ask.call(call).await? {
        ApiResult::AccessList(text) => json(Text { text }),
        _ => Err(unexpected()),
    }
}
