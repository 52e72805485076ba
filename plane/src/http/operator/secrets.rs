//! Secrets of daemons: set and forgotten, never shown. A value passes through the plane on its way from the browser to the daemon,
//! for which it is sealed at once; it is neither kept nor logged, and what held it is wiped.

use bus_schema::{
    api::{ApiCall, ApiResult, DaemonView, Failure, FailureKind, Presence},
    limits::SECRET_BYTES_MAX,
    member::is_name,
    secret::{SecretCall, SecretResult, SecretText, SecretView},
};
use futures_util::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};

use super::{Daemon, PATIENCE, daemon, introduce, noted, operator as web_operator, something_else};
use crate::{
    http::{
        ask::{Answer, Ask, Page, json, unexpected},
        problem::Refusal,
        table::{Endpoint, by, operator},
    },
    permission::Reach::Narrow,
    web_operator::WebOperator,
};

/// Most daemons that are told at a time.
const DAEMONS_MAX: usize = 64;
/// Of them at the same time: fewer than may ask, so that others have a turn.
const AT_ONCE_MAX: usize = 4;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get(
            "/operator/secrets",
            operator(Narrow),
            "Names of a daemon's secrets, and who uses them; never a value",
            by!(list),
        )
        .query::<Of>()
        .answers::<Page<SecretView>>(),
        Endpoint::put(
            "/operator/secrets/{name}",
            operator(Narrow),
            "Sets a secret on daemons; it cannot be read back",
            by!(set),
        )
        .takes::<SecretWish>()
        .answers::<Page<Told>>(),
        Endpoint::delete(
            "/operator/secrets/{name}",
            operator(Narrow),
            "Lets daemons forget a secret",
            by!(forget),
        )
        .query::<Chosen>()
        .answers::<Page<Told>>(),
    ]
}

/// Of which daemon.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Of {
    /// Its name.
    daemon: String,
}

/// On which daemons.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Chosen {
    /// A selector: name:hub, site=berlin.
    selector: String,
}

/// A secret, and for whom.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct SecretWish {
    /// On these daemons: name:hub, site=berlin.
    selector: String,
    /// What it is.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    value: SecretText,
}

/// How it ended on a daemon.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct Told {
    /// Which.
    daemon: String,
    /// How.
    outcome: Outcome,
    /// Why not; empty when it was done.
    cause: String,
    /// The workflows there that use it; they have begun anew.
    used_by: Vec<String>,
}

/// How it ended.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// It is done, and durable.
    Done,
    /// The daemon did not do it.
    Failed,
    /// No answer came: it may or may not have been done.
    Unknown,
}

async fn list(ask: Ask) -> Answer {
    let Of { daemon: name } = ask.query()?;
    let daemon = daemon(&ask, &name, "mycelial secret list --daemon DAEMON").await?;
    match daemon.ask("list its secrets", &SecretCall::List, PATIENCE).await? {
        SecretResult::Names(views) => json(Page::all(views)),
        SecretResult::Failed(failure) => Err(failure.into()),
        SecretResult::Done { .. } => Err(something_else(&daemon.name)),
    }
}

async fn set(ask: Ask) -> Answer {
    let name = ask.param("name");
    let (selector, call) = match ask.body()? {
        SecretWish { selector, value } => {
            if !(1..=SECRET_BYTES_MAX).contains(&value.expose().len()) {
                let message = format!("value: a secret has 1 to {SECRET_BYTES_MAX} bytes");
                return Err(Refusal::invalid(message, ""));
            }
            let name = name.clone();
            (selector, SecretCall::Set { name, value })
        }
    };
    let what = format!("{name} on '{selector}'");
    let instead = format!("mycelial secret set {name} --daemon DAEMON");
    noted(
        &ask,
        "set a secret",
        &what,
        told(&ask, &name, &selector, &call, &instead),
    )
    .await
}

async fn forget(ask: Ask) -> Answer {
    let (name, Chosen { selector }) = (ask.param("name"), ask.query()?);
    let what = format!("{name} on '{selector}'");
    let instead = format!("mycelial secret remove {name} --daemon DAEMON");
    let call = SecretCall::Remove { name: name.clone() };
    noted(
        &ask,
        "remove a secret",
        &what,
        told(&ask, &name, &selector, &call, &instead),
    )
    .await
}

/// Tells each of the chosen daemons.
async fn told(ask: &Ask, name: &str, selector: &str, call: &SecretCall, instead: &str) -> Answer {
    if !is_name(name) {
        let hint = "use 1 to 32 of a-z, 0-9, '_' and '-', starting with a letter or digit";
        return Err(Refusal::invalid("this cannot name a secret", hint));
    }
    let operator = web_operator(ask, instead)?;
    let ApiResult::Daemons(views) = ask.call(ApiCall::DaemonSelect(selector.to_string())).await? else {
        return Err(unexpected());
    };
    if views.is_empty() {
        let message = format!("no daemon is chosen by '{selector}'");
        return Err(Refusal::not_found(message, "see: GET /daemons"));
    }
    if views.len() > DAEMONS_MAX {
        let message = format!(
            "{} daemons are chosen; {DAEMONS_MAX} can be told at a time",
            views.len()
        );
        return Err(Refusal::invalid(message, "choose fewer of them"));
    }
    let told = views.into_iter().map(|view| tell(ask, operator, view, call));
    json(Page::all(stream::iter(told).buffered(AT_ONCE_MAX).collect().await))
}

async fn tell(ask: &Ask, operator: &WebOperator, view: DaemonView, call: &SecretCall) -> Told {
    let told = |outcome, cause: String, used_by| Told {
        daemon: view.name.clone(),
        outcome,
        cause,
        used_by,
    };
    if view.presence == Presence::Offline {
        return told(Outcome::Failed, "it is offline".to_string(), Vec::new());
    }
    let asked = async {
        introduce(ask, operator, &view.node).await?;
        let daemon = Daemon {
            operator,
            name: view.name.clone(),
            node: view.node,
        };
        daemon.ask("keep the secret", call, PATIENCE).await
    };
    match asked.await {
        Ok(SecretResult::Done { used_by }) => told(Outcome::Done, String::new(), used_by),
        Ok(SecretResult::Failed(failure)) => told(Outcome::Failed, failure.message, Vec::new()),
        Ok(SecretResult::Names(_)) => told(Outcome::Failed, "it answered something else".to_string(), Vec::new()),
        Err(Refusal {
            failure: Failure { kind, message, .. },
            ..
        }) => {
            // Only silence leaves it open.
            let outcome = if kind == FailureKind::Internal {
                Outcome::Unknown
            } else {
                Outcome::Failed
            };
            told(outcome, message, Vec::new())
        }
    }
}
