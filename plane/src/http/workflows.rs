//! Workflows and their revisions: calls of [`ApiCall`] as HTTP. A workflow's ETag is its revision. No logic of its own.

use bus_schema::api::{
    ApiCall, ApiResult, DriftView, NodeView, NoteView, Problem, RevisionView, StreamView, WorkflowPart, WorkflowView,
};
use serde::{Deserialize, Serialize};

use super::{
    ask::{Answer, Ask, Page, PageWish, json, tagged, unexpected, with_tag},
    fleet::Text,
    problem::Refusal,
    table::{Endpoint, by, operator, viewer},
};
use crate::permission::Reach::Narrow;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/workflows", viewer(Narrow), "Workflows", by!(list))
            .query::<PageWish>()
            .answers::<Page<WorkflowView>>(),
        Endpoint::post(
            "/workflows/validate",
            viewer(Narrow),
            "Checks a text; changes nothing",
            by!(validate),
        )
        .takes::<TextSent>()
        .answers::<Checked>(),
        Endpoint::get(
            "/workflows/{name}",
            viewer(Narrow),
            "One workflow with its text",
            by!(show),
        )
        .answers::<WorkflowShown>(),
        Endpoint::put(
            "/workflows/{name}",
            operator(Narrow),
            "Stores a text as a new revision and deploys it",
            by!(apply),
        )
        .takes::<ApplyWish>()
        .conditional()
        .answers::<Revised>(),
        Endpoint::delete(
            "/workflows/{name}",
            operator(Narrow),
            "Stops and forgets; revisions are kept",
            by!(delete),
        )
        .conditional()
        .answers::<Revised>(),
        Endpoint::get(
            "/workflows/{name}/status",
            viewer(Narrow),
            "How it is doing, daemon by daemon",
            by!(status),
        )
        .answers::<WorkflowStatus>(),
        Endpoint::get(
            "/workflows/{name}/revisions",
            viewer(Narrow),
            "All revisions, the newest first",
            by!(revisions),
        )
        .answers::<Page<RevisionView>>(),
        Endpoint::get(
            "/workflows/{name}/revisions/{number}",
            viewer(Narrow),
            "The text of one revision",
            by!(revision),
        )
        .answers::<Text>(),
        Endpoint::post(
            "/workflows/{name}/rollback",
            operator(Narrow),
            "Deploys an older revision's text anew",
            by!(rollback),
        )
        .takes::<RollbackWish>()
        .conditional()
        .answers::<Revised>(),
    ]
}

/// A workflow's text.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct TextSent {
    /// TOML.
    text: String,
}

/// What shall be deployed.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct ApplyWish {
    /// TOML.
    text: String,
    /// Why, for those who look at the revisions later.
    #[serde(default)]
    reason: String,
}

/// What is wrong with a text.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct Checked {
    /// Everything; empty when nothing is.
    problems: Vec<Problem>,
}

/// A workflow with its text.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct WorkflowShown {
    /// The list's line about it.
    view: WorkflowView,
    /// TOML.
    text: String,
}

/// What is current now.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct Revised {
    /// The revision; 0 when there is none any more.
    revision: u32,
}

/// How a workflow is doing.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct WorkflowStatus {
    /// The list's line about it.
    view: WorkflowView,
    /// Per daemon.
    parts: Vec<WorkflowPart>,
    /// Per stream.
    streams: Vec<StreamView>,
    /// What its nodes do, per daemon.
    nodes: Vec<NodeView>,
    /// Where its columns were not as agreed within the last day.
    drift: Vec<DriftOn>,
}

/// Drift, and on which daemon.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct DriftOn {
    /// Its name.
    daemon: String,
    #[serde(flatten)]
    drift: DriftView,
}

async fn list(ask: Ask) -> Answer {
    let ApiResult::Workflows(mut views) = ask.call(ApiCall::WorkflowList).await? else {
        return Err(unexpected());
    };
    views.sort_by(|a, b| a.name.cmp(&b.name));
    json(Page::cut(views, &ask.query()?, |view| view.name.clone())?)
}

async fn validate(ask: Ask) -> Answer {
    let TextSent { text } = ask.body()?;
    match ask.call(ApiCall::WorkflowValidate { text }).await? {
        ApiResult::Problems(problems) => json(Checked { problems }),
        _ => Err(unexpected()),
    }
}

async fn show(ask: Ask) -> Answer {
    match ask.call(ApiCall::WorkflowShow(ask.param("name"))).await? {
        ApiResult::Workflow { view, text } => tagged(&ask, &view.revision.to_string(), WorkflowShown { view, text }),
        _ => Err(unexpected()),
    }
}

/// The name stands in the path and in the text: they have to be the same, or another workflow would be changed.
async fn apply(ask: Ask) -> Answer {
    let (ApplyWish { text, reason }, name) = (ask.body()?, ask.param("name"));
    if let Ok(spec) = workflow::parse(&text)
        && spec.name() != name
    {
        let message = format!("the text is of the workflow '{}', not of '{name}'", spec.name());
        let hint = "a workflow cannot be renamed: apply it as a new one and delete the old one";
        return Err(Refusal::invalid(message, hint));
    }
    let expected = ask.expected()?.revision()?;
    deploy(&ask, name, text, reason, expected).await
}

/// The answer to a workflow's text that was refused.
pub(super) async fn refused(ask: &Ask, refusal: Refusal, name: String) -> Refusal {
    let read = ApiCall::WorkflowStatus(name);
    ask.refused(refusal, read, revision_of).await
}

fn revision_of(now: &ApiResult) -> Option<String> {
    match now {
        ApiResult::Status { view, .. } => Some(view.revision.to_string()),
        _ => None,
    }
}

async fn deploy(ask: &Ask, name: String, text: String, reason: String, expect_revision: Option<u32>) -> Answer {
    let call = ApiCall::Deploy {
        text,
        expect_revision,
        reason,
        waves: None,
    };
    match ask.call(call).await {
        Ok(ApiResult::Revision(revision)) => revised(revision),
        Ok(_) => Err(unexpected()),
        Err(refusal) => Err(refused(ask, refusal, name).await),
    }
}

fn revised(revision: u32) -> Answer {
    Ok(with_tag(&revision.to_string(), json(Revised { revision })?))
}

async fn delete(ask: Ask) -> Answer {
    let name = ask.param("name");
    let read = ApiCall::WorkflowStatus(name.clone());
    match ask.call_if(ApiCall::WorkflowDelete(name), read, revision_of).await? {
        ApiResult::Revision(revision) => json(Revised { revision }),
        _ => Err(unexpected()),
    }
}

async fn status(ask: Ask) -> Answer {
    let name = ask.param("name");
    let ApiResult::Status { view, parts, streams } = ask.call(ApiCall::WorkflowStatus(name.clone())).await? else {
        return Err(unexpected());
    };
    let ApiResult::Nodes(nodes) = ask.call(ApiCall::Nodes(Some(name.clone()))).await? else {
        return Err(unexpected());
    };
    let ApiResult::Notes(notes) = ask.call(ApiCall::Notes(Some(name))).await? else {
        return Err(unexpected());
    };
    let on = |NoteView { daemon, drift, .. }| drift.map(|drift| DriftOn { daemon, drift });
    json(WorkflowStatus {
        view,
        parts,
        streams,
        nodes,
        drift: notes.into_iter().filter_map(on).collect(),
    })
}

async fn revisions(ask: Ask) -> Answer {
    match ask.call(ApiCall::WorkflowHistory(ask.param("name"))).await? {
        ApiResult::History(all) => json(Page::all(all)),
        _ => Err(unexpected()),
    }
}

async fn text_of(ask: &Ask, revision: u32) -> Result<String, Refusal> {
    let name = ask.param("name");
    match ask.call(ApiCall::WorkflowText { name, revision }).await? {
        ApiResult::Text(text) => Ok(text),
        _ => Err(unexpected()),
    }
}

async fn revision(ask: Ask) -> Answer {
    let number = ask.param("number").parse().map_err(|_| {
        let message = format!("'{}' is no revision's number", ask.param("number").escape_debug());
        Refusal::invalid(message, "revisions are counted from 1")
    })?;
    json(Text {
        text: text_of(&ask, number).await?,
    })
}

/// Back to which revision.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct RollbackWish {
    /// Its number.
    revision: u32,
    /// Why, for those who look at the revisions later.
    #[serde(default)]
    reason: String,
}

async fn rollback(ask: Ask) -> Answer {
    let RollbackWish { revision, reason } = ask.body()?;
    let expected = ask.expected()?.revision()?;
    let text = text_of(&ask, revision).await?;
    deploy(&ask, ask.param("name"), text, reason, expected).await
}
