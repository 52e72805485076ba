//! Commands for daemons, and their logs, from the web page. What reveals or alters no data: the plane asks daemons in its own name.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::http::StatusCode;
use bus_schema::{
    api::{ApiCall, ApiResult, DaemonDetail, DaemonView, FailureKind, Presence},
    audit::AuditEvent,
    control::{ControlCall, ControlResult, LogLine},
    id::NodeId,
};
use serde::{Deserialize, Serialize};

use super::{
    ask::{Answer, Ask, Page, PageWish, json, unexpected},
    problem::Refusal,
    table::{Endpoint, by, operator, viewer},
};
use crate::{
    clock::unix_ms,
    commands::{Order, Unstartable},
    domain::commands::{Command, CommandOf, DEADLINE_S, REPORTS_MAX, TARGETS_MAX},
    permission::Reach::Narrow,
};

/// How long a daemon may take to show its log.
const LOG_WAIT: Duration = Duration::from_secs(10);
/// Most lines of a log in one answer: what daemons give.
const LINES_MAX: u16 = 500;
/// Levels, the worst first.
const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

pub(super) fn endpoints() -> Vec<Endpoint> {
    let part = |path, summary, handler| Endpoint::post(path, operator(Narrow), summary, handler).answers::<Begun>();
    vec![
        Endpoint::post(
            "/daemons/commands",
            operator(Narrow),
            "Lets daemons do something; ask for its progress",
            by!(begin),
        )
        .takes::<Wish>()
        .answers::<Begun>(),
        Endpoint::get(
            "/commands",
            viewer(Narrow),
            "What daemons were told, or one of them, the newest first",
            by!(list),
        )
        .query::<Whose>()
        .answers::<Page<CommandOf>>(),
        Endpoint::get(
            "/commands/{id}",
            viewer(Narrow),
            "How a command stands, daemon by daemon",
            by!(show),
        )
        .answers::<Command>(),
        Endpoint::get(
            "/daemons/{name}/logs",
            viewer(Narrow),
            "The last lines of a daemon's log",
            by!(logs),
        )
        .query::<LogWish>()
        .answers::<Page<LogLine>>(),
        part(
            "/workflows/{name}/parts/{daemon}/restart",
            "Starts a workflow anew on a daemon",
            by!(restart),
        ),
        part(
            "/workflows/{name}/parts/{daemon}/pause",
            "Lets its sources on a daemon read nothing more",
            by!(pause),
        ),
        part(
            "/workflows/{name}/parts/{daemon}/resume",
            "Lets its sources on a daemon read again",
            by!(resume),
        ),
    ]
}

/// What shall be done, and by whom.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Wish {
    /// Which daemons; all when empty.
    selector: String,
    /// What.
    command: Order,
    /// How long daemons may take to answer, in seconds: 1 to 3600.
    #[serde(default = "a_minute")]
    deadline_s: u64,
}

fn a_minute() -> u64 {
    60
}

/// A command that has begun.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct Begun {
    /// For `GET /commands/{id}`.
    id: u64,
}

async fn begin(ask: Ask) -> Answer {
    let Wish {
        selector,
        command,
        deadline_s,
    } = ask.body()?;
    let what = format!("{} on '{selector}'", command.words());
    let event = ask.event("command daemons", &what);
    let begun = begun(&ask, event.clone(), &selector, command, deadline_s).await;
    ask.failed(event, begun).await
}

async fn begun(ask: &Ask, event: AuditEvent, selector: &str, order: Order, deadline_s: u64) -> Answer {
    let ApiResult::Daemons(mut views) = ask.call(ApiCall::DaemonSelect(selector.to_string())).await? else {
        return Err(unexpected());
    };
    if views.is_empty() {
        let message = format!("no daemon is chosen by '{selector}'");
        return Err(Refusal::not_found(message, "see: GET /daemons"));
    }
    // Those that are there are not held up by those that are not.
    let is_away = |view: &DaemonView| view.presence != Presence::Online;
    views.sort_by(|a, b| (is_away(a), &a.name).cmp(&(is_away(b), &b.name)));
    let targets = views.into_iter().map(|view| (view.name, view.node)).collect();
    start(ask, event, order, targets, deadline_s).await
}

async fn start(ask: &Ask, event: AuditEvent, order: Order, targets: Vec<(String, NodeId)>, deadline_s: u64) -> Answer {
    order.check().map_err(|wrong| Refusal::invalid(wrong, ""))?;
    if !DEADLINE_S.contains(&deadline_s) {
        let message = format!(
            "deadline_s: {} to {} seconds, not {deadline_s}",
            DEADLINE_S.start(),
            DEADLINE_S.end()
        );
        return Err(Refusal::invalid(message, ""));
    }
    let most = if order == Order::Diagnose {
        REPORTS_MAX
    } else {
        TARGETS_MAX
    };
    if targets.len() > most {
        let message = format!(
            "{} daemons are chosen; this can be asked of {most} at a time",
            targets.len()
        );
        return Err(Refusal::invalid(message, "choose fewer of them"));
    }
    let begun = ask
        .web
        .commands
        .begin(order, event, targets, Duration::from_secs(deadline_s));
    match begun.await {
        Ok(id) => json(Begun { id }),
        Err(busy @ Unstartable::Busy) => {
            let (status, hint) = (StatusCode::TOO_MANY_REQUESTS, "wait until one of them is over");
            Err(Refusal::new(status, FailureKind::Conflict, busy.to_string(), hint))
        }
        Err(error) => Err(Refusal::internal(error)),
    }
}

/// Whose commands, and which page of them.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Whose {
    /// The daemon's name or id; all daemons together when it is left out.
    daemon: Option<String>,
    /// Most items, 1 to 1000.
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// Which daemons somebody with a scope sees; `None`: all.
async fn seen(ask: &Ask) -> Result<Option<BTreeSet<NodeId>>, Refusal> {
    if ask.caller()?.scope.is_none() {
        return Ok(None);
    }
    match ask.call(ApiCall::DaemonSelect(String::new())).await? {
        ApiResult::Daemons(seen) => Ok(Some(seen.into_iter().map(|view| view.node).collect())),
        _ => Err(unexpected()),
    }
}

async fn list(ask: Ask) -> Answer {
    let Whose { daemon, limit, cursor } = ask.query()?;
    let told = match daemon {
        Some(daemon) => {
            let node = detail(&ask, daemon).await?.view.node;
            ask.web.commands.history(Arc::new(move |command| command.of(&node)))
        }
        None => {
            let seen = seen(&ask).await?;
            let look = move |command: Command| match &seen {
                Some(seen) => command.narrowed(|node| seen.contains(node)).of_all(),
                None => command.of_all(),
            };
            ask.web.commands.history(Arc::new(look))
        }
    };
    let told = told.await.map_err(Refusal::internal)?;
    json(Page::after(told, &PageWish { limit, cursor }, |told| {
        told.id.to_string()
    })?)
}

async fn show(ask: Ask) -> Answer {
    let id = ask.param("id");
    let missing = || {
        let id: String = id.chars().take(32).collect();
        Refusal::not_found(
            format!("there is no command {}", id.escape_debug()),
            "the newest hundred are kept",
        )
    };
    let number: u64 = id.parse().map_err(|_| missing())?;
    let found = ask.web.commands.show(number).await.map_err(Refusal::internal)?;
    let mut command = found.ok_or_else(missing)?;
    if let Some(seen) = seen(&ask).await? {
        command = command.narrowed(|node| seen.contains(node));
        if command.daemons.is_empty() {
            return Err(missing());
        }
    }
    json(command)
}

/// Which lines.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct LogWish {
    /// Only of the last so many seconds.
    last_s: Option<u64>,
    /// Only this level and worse: error, warn, info, debug or trace.
    level: Option<String>,
    /// Only about this workflow.
    #[serde(default)]
    workflow: String,
}

async fn detail(ask: &Ask, name: String) -> Result<DaemonDetail, Refusal> {
    match ask.call(ApiCall::DaemonShow(name)).await? {
        ApiResult::Daemon(detail) => Ok(detail),
        _ => Err(unexpected()),
    }
}

async fn logs(ask: Ask) -> Answer {
    let LogWish {
        last_s,
        level,
        workflow,
    } = ask.query()?;
    let rank = |level: &str| LEVELS.iter().position(|known| known.eq_ignore_ascii_case(level));
    let worst = match level {
        None => LEVELS.len(),
        Some(level) => rank(&level).ok_or_else(|| {
            let message = format!(
                "level: '{}' is none",
                level.chars().take(16).collect::<String>().escape_debug()
            );
            Refusal::invalid(message, LEVELS.join(", "))
        })?,
    };
    let detail = detail(&ask, ask.param("name")).await?;
    let call = ControlCall::Logs {
        after: 0,
        lines_max: LINES_MAX,
        workflow,
    };
    let name = &detail.view.name;
    let lines = match ask.web.commands.about(&detail.view.node, &call, LOG_WAIT).await {
        Ok(ControlResult::Lines { lines, .. }) => lines,
        Ok(ControlResult::Failed(failure)) => return Err(failure.into()),
        Ok(_) => return Err(unexpected()),
        Err(error) => return Err(Refusal::unanswered(name, "show its log", &error)),
    };
    // Lines are dated by the daemon's own clock.
    let since = last_s.map(|seconds| {
        let its_now = unix_ms().saturating_add(detail.clock_offset_ms);
        its_now.saturating_sub_unsigned(seconds.saturating_mul(1_000))
    });
    let wanted = |line: &LogLine| {
        rank(&line.level).is_none_or(|rank| rank <= worst) && since.is_none_or(|since| line.unix_ms >= since)
    };
    json(Page::all(lines.into_iter().filter(wanted).collect()))
}

async fn part(ask: Ask, order: impl FnOnce(String) -> Order) -> Answer {
    let (order, daemon) = (order(ask.param("name")), ask.param("daemon"));
    let what = format!("{} on {daemon}", order.words());
    let event = ask.event("command daemons", &what);
    let begun = async {
        let view = detail(&ask, daemon).await?.view;
        let targets = vec![(view.name, view.node)];
        start(&ask, event.clone(), order, targets, a_minute()).await
    };
    let begun = begun.await;
    ask.failed(event, begun).await
}

async fn restart(ask: Ask) -> Answer {
    part(ask, |workflow| Order::Restart { workflow }).await
}

async fn pause(ask: Ask) -> Answer {
    part(ask, |workflow| Order::Pause { workflow }).await
}

async fn resume(ask: Ask) -> Answer {
    part(ask, |workflow| Order::Resume { workflow }).await
}
