//! Rollouts and what applying a text would change: calls of [`ApiCall`] as HTTP. No logic of its own.

use bus_schema::{
    api::{ApiCall, ApiResult, WorkflowDiff},
    rollout::{RolloutCommand, RolloutPolicy, RolloutView},
};
use serde::Deserialize;

use super::{
    ask::{Answer, Ask, Page, PageWish, json, unexpected},
    problem::Refusal,
    table::{Endpoint, by, operator, viewer},
    workflows::refused,
};
use crate::permission::Reach::Narrow;

pub(super) fn endpoints() -> Vec<Endpoint> {
    let tell = |path, summary, handler| {
        Endpoint::post(path, operator(Narrow), summary, handler)
            .takes::<Reason>()
            .answers::<RolloutView>()
    };
    vec![
        Endpoint::post(
            "/workflows/diff",
            viewer(Narrow),
            "What applying a text would change: nodes, and daemons",
            by!(diff),
        )
        .takes::<TextSent>()
        .answers::<WorkflowDiff>(),
        Endpoint::get("/rollouts", viewer(Narrow), "Rollouts, the newest first", by!(list))
            .query::<PageWish>()
            .answers::<Page<RolloutView>>(),
        Endpoint::post(
            "/rollouts",
            operator(Narrow),
            "Stores a text as a new revision and deploys it in waves",
            by!(start),
        )
        .takes::<RolloutWish>()
        .conditional()
        .answers::<RolloutView>(),
        Endpoint::get("/rollouts/{id}", viewer(Narrow), "One rollout", by!(show)).answers::<RolloutView>(),
        tell("/rollouts/{id}/pause", "Begins no new wave", by!(pause)),
        tell(
            "/rollouts/{id}/resume",
            "Goes on, whatever has failed so far",
            by!(resume),
        ),
        tell("/rollouts/{id}/abort", "Ends it; what was deployed stays", by!(abort)),
        tell(
            "/rollouts/{id}/rollback",
            "Gives all that have the new revision back what they had",
            by!(roll_back),
        ),
    ]
}

/// A workflow's text, to be compared.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct TextSent {
    /// TOML.
    text: String,
}

/// What shall be rolled out, and how.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct RolloutWish {
    /// TOML.
    text: String,
    /// How it goes on; what is left out is as usual.
    #[serde(default)]
    policy: RolloutPolicy,
    /// Why, for those who look at the revisions later.
    #[serde(default)]
    reason: String,
}

/// Why somebody tells a rollout what to do.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Reason {
    /// For those who read it later.
    reason: String,
}

async fn diff(ask: Ask) -> Answer {
    let TextSent { text } = ask.body()?;
    match ask.call(ApiCall::WorkflowDiff { text }).await? {
        ApiResult::Diff(diff) => json(diff),
        _ => Err(unexpected()),
    }
}

async fn list(ask: Ask) -> Answer {
    match ask.call(ApiCall::RolloutList).await? {
        ApiResult::Rollouts(views) => json(Page::after(views, &ask.query()?, |view| view.id.to_string())?),
        _ => Err(unexpected()),
    }
}

async fn one(ask: &Ask, call: ApiCall) -> Result<RolloutView, Refusal> {
    match ask.call(call).await? {
        ApiResult::Rollouts(views) => views.into_iter().next().ok_or_else(unexpected),
        _ => Err(unexpected()),
    }
}

async fn start(ask: Ask) -> Answer {
    let RolloutWish { text, policy, reason } = ask.body()?;
    let expect_revision = ask.expected()?.revision()?;
    let name = workflow::parse(&text).map_or(String::new(), |spec| spec.name().to_string());
    let call = ApiCall::Deploy {
        text,
        expect_revision,
        reason,
        waves: Some(policy),
    };
    match one(&ask, call).await {
        Ok(view) => json(view),
        Err(refusal) => Err(refused(&ask, refusal, name).await),
    }
}

fn id(ask: &Ask) -> Result<u64, Refusal> {
    ask.param("id").parse().map_err(|_| {
        let message = format!("'{}' is no rollout's number", ask.param("id").escape_debug());
        Refusal::invalid(message, "rollouts are counted from 1")
    })
}

async fn show(ask: Ask) -> Answer {
    let id = id(&ask)?;
    json(one(&ask, ApiCall::RolloutShow(id)).await?)
}

async fn tell(ask: Ask, command: RolloutCommand) -> Answer {
    let (id, Reason { reason }) = (id(&ask)?, ask.body()?);
    let before = one(&ask, ApiCall::RolloutTell { id, command, reason }).await?;
    // As it stands now, if whoever has a scope may still see it when it is over.
    json(one(&ask, ApiCall::RolloutShow(id)).await.unwrap_or(before))
}

async fn pause(ask: Ask) -> Answer {
    tell(ask, RolloutCommand::Pause).await
}

async fn resume(ask: Ask) -> Answer {
    tell(ask, RolloutCommand::Resume).await
}

async fn abort(ask: Ask) -> Answer {
    tell(ask, RolloutCommand::Abort).await
}

async fn roll_back(ask: Ask) -> Answer {
    tell(ask, RolloutCommand::RollBack).await
}
