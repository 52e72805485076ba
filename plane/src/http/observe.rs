//! History and alerts: calls of [`ObserveCall`] as HTTP; and taking a daemon out of the fleet. No logic of its own.

use bus_schema::{
    api::{ApiCall, ApiResult},
    observe::{AlertRule, AlertView, Fired, ObserveCall, ObserveResult},
};
use serde::{Deserialize, Serialize};

use super::{
    ask::{Answer, Ask, Page, PageWish, json, nothing, tag_of, tagged, unexpected},
    problem::Refusal,
    table::{Endpoint, admin, by, operator, viewer},
};
use crate::{
    clock::unix_ms,
    domain::alerts::is_built_in,
    permission::Reach::{Narrow, Whole},
};

/// How far back a series goes unless asked, in milliseconds.
const LAST_MS: i64 = 3_600_000;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get(
            "/metrics/series",
            viewer(Narrow),
            "One metric of one subject over time",
            by!(series),
        )
        .query::<SeriesWish>()
        .answers::<SeriesShown>(),
        Endpoint::get(
            "/alerts",
            viewer(Narrow),
            "Alerts that are pending or firing",
            by!(alerts),
        )
        .query::<PageWish>()
        .answers::<Page<AlertView>>(),
        Endpoint::get("/alerts/rules", viewer(Whole), "All rules of alerts", by!(rules)).answers::<Page<RuleShown>>(),
        Endpoint::put(
            "/alerts/rules",
            operator(Whole),
            "Takes other rules, besides those that come with the plane",
            by!(put_rules),
        )
        .takes::<Rules>()
        .conditional()
        .answers::<Page<RuleShown>>(),
        Endpoint::post(
            "/alerts/preview",
            viewer(Whole),
            "When a rule would have fired",
            by!(preview),
        )
        .takes::<PreviewWish>()
        .answers::<Page<Fired>>(),
        Endpoint::post(
            "/alerts/{id}/silence",
            operator(Narrow),
            "Tells nobody of an alert for a while; 0 seconds end that",
            by!(silence),
        )
        .takes::<SilenceWish>()
        .answers::<Page<AlertView>>(),
        Endpoint::delete(
            "/daemons/{name}",
            admin(),
            "Takes a daemon out of the fleet for good",
            by!(revoke),
        ),
    ]
}

/// What of whom, and when.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct SeriesWish {
    /// daemon:NAME, workflow:NAME, node:WORKFLOW/NODE or stream:WORKFLOW/EDGE.
    subject: String,
    /// For example memory, records or lag.
    metric: String,
    /// Milliseconds since 1970; an hour before the end by default.
    from: Option<i64>,
    /// Milliseconds since 1970; now by default.
    to: Option<i64>,
}

/// A metric over time.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct SeriesShown {
    /// Of the values: bytes, records/s, ms.
    unit: String,
    /// Length of a step, in seconds.
    step_s: u64,
    /// Begin of the step in milliseconds since 1970, mean, least and most; steps of which nothing is known are missing.
    points: Vec<(i64, f64, f64, f64)>,
}

async fn observe(ask: &Ask, call: ObserveCall) -> Result<ObserveResult, Refusal> {
    match ask.call(ApiCall::Observe(call)).await? {
        ApiResult::Observe(result) => Ok(result),
        _ => Err(unexpected()),
    }
}

async fn series(ask: Ask) -> Answer {
    let SeriesWish {
        subject,
        metric,
        from,
        to,
    } = ask.query()?;
    let to_unix_ms = to.unwrap_or_else(unix_ms);
    let call = ObserveCall::Series {
        subject,
        metric: Some(metric),
        from_unix_ms: from.unwrap_or_else(|| to_unix_ms.saturating_sub(LAST_MS)),
        to_unix_ms,
    };
    let ObserveResult::Series(all) = observe(&ask, call).await? else {
        return Err(unexpected());
    };
    let milli = |value: u64| value as f64 / 1e3;
    let shown = all.into_iter().next().map(|series| SeriesShown {
        unit: series.unit,
        step_s: series.step_s,
        points: series
            .points
            .iter()
            .map(|point| {
                let [mean, least, most] = [point.mean_milli, point.min_milli, point.max_milli].map(milli);
                (point.at_unix_ms, mean, least, most)
            })
            .collect(),
    });
    // Known, but nothing of that time.
    json(shown.unwrap_or_else(|| SeriesShown {
        unit: String::new(),
        step_s: 0,
        points: Vec::new(),
    }))
}

async fn alerts(ask: Ask) -> Answer {
    match observe(&ask, ObserveCall::Alerts).await? {
        ObserveResult::Alerts(all) => json(Page::after(all, &ask.query()?, |alert| alert.id.clone())?),
        _ => Err(unexpected()),
    }
}

/// A rule in the list.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct RuleShown {
    #[serde(flatten)]
    rule: AlertRule,
    /// Whether it is as it comes with the plane.
    comes_with_plane: bool,
}

fn shown(ask: &Ask, rules: Vec<AlertRule>) -> Answer {
    let tag = tag_of_rules(&rules);
    let items = rules.into_iter().map(|rule| RuleShown {
        comes_with_plane: is_built_in(&rule),
        rule,
    });
    tagged(ask, &tag, Page::all(items.collect()))
}

fn tag_of_rules(rules: &Vec<AlertRule>) -> String {
    tag_of(&[&bus_schema::encode(rules)])
}

async fn rules(ask: Ask) -> Answer {
    match observe(&ask, ObserveCall::Rules).await? {
        ObserveResult::Rules(all) => shown(&ask, all),
        _ => Err(unexpected()),
    }
}

/// An operator's rules.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Rules {
    /// All of them.
    rules: Vec<AlertRule>,
}

async fn put_rules(ask: Ask) -> Answer {
    let Rules { rules } = ask.body()?;
    let (put, read) = (ObserveCall::PutRules(rules), ObserveCall::Rules);
    let tag = |now: &ApiResult| match now {
        ApiResult::Observe(ObserveResult::Rules(all)) => Some(tag_of_rules(all)),
        _ => None,
    };
    match ask.call_if(ApiCall::Observe(put), ApiCall::Observe(read), tag).await? {
        ApiResult::Observe(ObserveResult::Rules(all)) => shown(&ask, all),
        _ => Err(unexpected()),
    }
}

/// A rule and how far back.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct PreviewWish {
    /// It is not stored.
    rule: AlertRule,
    /// Seconds.
    last_s: u64,
}

async fn preview(ask: Ask) -> Answer {
    let PreviewWish { rule, last_s } = ask.body()?;
    match observe(&ask, ObserveCall::Preview { rule, last_s }).await? {
        ObserveResult::Preview(fired) => json(Page::all(fired)),
        _ => Err(unexpected()),
    }
}

/// For how long, and why.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct SilenceWish {
    /// Seconds; 0 ends a silence.
    for_s: u64,
    /// Why.
    #[serde(default)]
    reason: String,
}

async fn silence(ask: Ask) -> Answer {
    let SilenceWish { for_s, reason } = ask.body()?;
    let id = ask.param("id");
    match observe(&ask, ObserveCall::Silence { id, for_s, reason }).await? {
        ObserveResult::Alerts(all) => json(Page::all(all)),
        _ => Err(unexpected()),
    }
}

async fn revoke(ask: Ask) -> Answer {
    let ApiResult::Daemon(detail) = ask.call(ApiCall::DaemonShow(ask.param("name"))).await? else {
        return Err(unexpected());
    };
    match ask.call(ApiCall::DaemonRevoke(detail.view.node)).await? {
        ApiResult::Revoked(_) => nothing(),
        _ => Err(unexpected()),
    }
}
