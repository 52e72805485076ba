//! Results as text: tables for people, JSON for programs. Pure.

use std::collections::{BTreeMap, BTreeSet};

pub use bus_schema::shown::bytes;
use bus_schema::{
    api::{
        ComponentView, DaemonDetail, DaemonView, DriftView, Labelled, LabelledToken, NodeView, PlaneInfo, Presence,
        Problem, RevisionView, StreamView, WorkflowPart, WorkflowView,
    },
    message::RunState,
};
/// Rows under headings, columns as wide as they need to be. Numbers stand to the right.
pub fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count());
        cells.chain([headings[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let numeric = |column: usize| {
        !rows.is_empty()
            && rows
                .iter()
                .filter_map(|row| row.get(column))
                .all(|cell| is_amount(cell))
    };
    let right: Vec<bool> = (0..headings.len()).map(numeric).collect();
    let line = |cells: &[String]| {
        let padded: Vec<String> = cells
            .iter()
            .enumerate()
            .map(|(column, cell)| {
                let width = widths[column];
                if right[column] {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                }
            })
            .collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let headings: Vec<String> = headings.iter().map(|heading| heading.to_uppercase()).collect();
    std::iter::once(line(&headings))
        .chain(rows.iter().map(|row| line(row)))
        .collect()
}

/// A number, perhaps with its unit: no date, and no id that happens to begin with a digit.
fn is_amount(cell: &str) -> bool {
    let number = cell.split(' ').next().unwrap_or_default();
    number.starts_with(|c: char| c.is_ascii_digit()) && number.chars().all(|c| c.is_ascii_digit() || ".,%/".contains(c))
}

/// Milliseconds as people say them: `350 ms`, `12 s`, `3 min`, `5 h`, `2 d`.
pub fn ago(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{} s", ms / 1_000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        7_200_000..172_800_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} d", ms / 86_400_000),
    }
}

/// A moment as `2024-01-31 10:00:00.123` (UTC), from milliseconds since 1970. Days to dates as in Howard Hinnant's
/// "chrono-compatible low-level date algorithms", civil_from_days.
pub fn clock_time(unix_ms: i64) -> String {
    let (days, ms) = (unix_ms.div_euclid(86_400_000), unix_ms.rem_euclid(86_400_000));
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (h, m, s) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    format!("{year:04}-{month:02}-{day:02} {h:02}:{m:02}:{s:02}.{:03}", ms % 1_000)
}

/// `orders.toml:12: sources.db.path: message` and the hint below; `line 12: …` without a file.
pub fn problem(file: &str, problem: &Problem) -> String {
    let line = match (file, problem.line) {
        ("", 0) => String::new(),
        ("", line) => format!("line {line}: "),
        (file, 0) => format!("{file}: "),
        (file, line) => format!("{file}:{line}: "),
    };
    let place = if problem.place.is_empty() {
        String::new()
    } else {
        format!("{}: ", problem.place)
    };
    let hint = if problem.hint.is_empty() {
        String::new()
    } else {
        format!("\n    hint: {}", problem.hint)
    };
    format!("{line}{place}{}{hint}", problem.message)
}

fn presence(presence: Presence) -> &'static str {
    match presence {
        Presence::Unknown => "unknown",
        Presence::Online => "online",
        Presence::Late => "late",
        Presence::Offline => "offline",
    }
}

/// A run state in one word; `unknown` when nobody has reported it.
pub fn state(state: Option<RunState>) -> &'static str {
    match state {
        None => "unknown",
        Some(RunState::Starting) => "starting",
        Some(RunState::Running) => "running",
        Some(RunState::Retrying) => "retrying",
        Some(RunState::Failed) => "failed",
        Some(RunState::Finished) => "finished",
        Some(RunState::Stopping) => "stopping",
        Some(RunState::Paused) => "paused",
    }
}

fn last_seen(ms: Option<u64>) -> String {
    ms.map_or_else(|| "never".to_string(), |ms| format!("{} ago", ago(ms)))
}

/// The list of daemons.
pub fn daemons(daemons: &[DaemonView]) -> String {
    daemons_with(daemons, None)
}

/// The same with one column more.
pub fn daemons_labelled(daemons: &[DaemonView], labels: impl Fn(&DaemonView) -> String) -> String {
    daemons_with(daemons, Some(&labels))
}

fn daemons_with(daemons: &[DaemonView], labels: Option<&dyn Fn(&DaemonView) -> String>) -> String {
    let row = |daemon: &DaemonView| {
        let plan = match (daemon.plan_version, daemon.plan_wanted) {
            (has, wants) if has == wants => has.to_string(),
            (has, wants) => format!("{has} -> {wants}"),
        };
        let mut row = vec![
            daemon.name.clone(),
            presence(daemon.presence).to_string(),
            last_seen(daemon.last_seen_ms),
            daemon.version.clone(),
            plan,
            daemon.troubled.to_string(),
            daemon.damaged.to_string(),
            bytes(daemon.resources.rss_bytes),
            bytes(daemon.resources.spool_bytes),
            daemon.node.to_string(),
        ];
        row.extend(labels.map(|labels| labels(daemon)));
        row
    };
    let mut headings = vec![
        "name",
        "presence",
        "last seen",
        "version",
        "plan",
        "troubled",
        "damaged",
        "memory",
        "buffered",
        "id",
    ];
    headings.extend(labels.map(|_| "labels"));
    table(&headings, &daemons.iter().map(row).collect::<Vec<_>>())
}

/// What to do about damage.
fn damaged(count: u32) -> String {
    let things = if count == 1 {
        "1 thing was"
    } else {
        &format!("{count} things were")
    };
    format!(
        "{things} set aside as damaged; nothing waits for it. On its machine, with the daemon stopped, look with: \
         myceliald spool list; then: myceliald spool forget --yes"
    )
}

/// One daemon.
pub fn daemon(detail: &DaemonDetail, labels: &BTreeMap<String, String>) -> String {
    let DaemonDetail { view, host, .. } = detail;
    let mut lines = vec![
        ("name", view.name.clone()),
        ("id", view.node.to_string()),
        ("fingerprint", detail.fingerprint.clone()),
        (
            "presence",
            format!(
                "{}, last seen {}",
                presence(view.presence),
                last_seen(view.last_seen_ms)
            ),
        ),
        (
            "host",
            format!(
                "{} ({}, {}, {} cpus, {})",
                host.hostname,
                host.os,
                host.arch,
                host.cpus,
                bytes(host.memory_bytes)
            ),
        ),
        ("version", view.version.clone()),
        ("starts", detail.boot.to_string()),
        ("up", ago(detail.uptime_ms)),
        ("clock", format!("{:+} ms from the plane's", detail.clock_offset_ms)),
        (
            "memory",
            format!(
                "{} now, {} at most",
                bytes(view.resources.rss_bytes),
                bytes(view.resources.rss_peak_bytes)
            ),
        ),
        ("disk free", bytes(view.resources.disk_free_bytes)),
        ("buffered", bytes(view.resources.spool_bytes)),
        ("plan", format!("{} of {}", view.plan_version, view.plan_wanted)),
        ("refused", format!("{} messages", detail.refused)),
        ("labels", label_words(labels)),
    ];
    if !detail.components.is_empty() {
        let names: BTreeSet<&str> = detail.components.iter().map(|one| one.name.as_str()).collect();
        let names: Vec<&str> = names.into_iter().collect();
        lines.push(("components", names.join(", ")));
    }
    if !detail.plan_error.is_empty() {
        lines.push(("plan error", detail.plan_error.clone()));
    }
    if view.damaged > 0 {
        lines.push(("damaged", damaged(view.damaged)));
    }
    let mut text: String = lines
        .iter()
        .map(|(key, value)| format!("{}\n", format!("{key:<12} {value}").trim_end()))
        .collect();
    if !detail.parts.is_empty() {
        text.push('\n');
        text.push_str(&parts(&detail.parts));
    }
    text
}

/// Workflow parts per daemon.
pub fn parts(parts: &[WorkflowPart]) -> String {
    let row = |part: &WorkflowPart| {
        vec![
            part.workflow.clone(),
            part.daemon.clone(),
            part.revision.to_string(),
            state(part.state).to_string(),
            part.cause.clone(),
        ]
    };
    table(
        &["workflow", "daemon", "revision", "state", "cause"],
        &parts.iter().map(row).collect::<Vec<_>>(),
    )
}

/// Daemons with their labels.
pub fn labels(labelled: &[Labelled]) -> String {
    let row = |one: &Labelled| vec![one.name.clone(), label_words(&one.labels)];
    table(&["name", "labels"], &labelled.iter().map(row).collect::<Vec<_>>())
}

/// `site=berlin test=1`
pub fn label_words(labels: &BTreeMap<String, String>) -> String {
    let words: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    words.join(" ")
}

/// The enrolment strings that can still be used.
pub fn tokens(tokens: &[LabelledToken]) -> String {
    let row = |LabelledToken { token, labels }: &LabelledToken| {
        vec![
            token.id.to_string(),
            token.role.to_string(),
            token.name.clone().unwrap_or_default(),
            token.uses_left.to_string(),
            clock_time(token.expires_unix_ms),
            label_words(labels),
        ]
    };
    table(
        &["id", "for a", "named", "uses left", "until (utc)", "labels"],
        &tokens.iter().map(row).collect::<Vec<_>>(),
    )
}

/// A workflow's history.
pub fn revisions(revisions: &[RevisionView]) -> String {
    let row = |revision: &RevisionView| {
        vec![
            if revision.is_current { "*" } else { "" }.to_string(),
            revision.number.to_string(),
            revision.by.clone(),
            clock_time(revision.at_unix_ms),
            revision.reason.clone(),
        ]
    };
    table(
        &["", "revision", "by", "at (utc)", "why"],
        &revisions.iter().map(row).collect::<Vec<_>>(),
    )
}

/// Where columns are not as agreed, with the daemon.
pub fn drifts(drifts: &[(&str, &DriftView)]) -> String {
    let row = |(daemon, drift): &(&str, &DriftView)| {
        vec![
            (*daemon).to_string(),
            format!("{} ago", ago(drift.ago_ms)),
            drift.batches.to_string(),
            drift.what.clone(),
        ]
    };
    table(
        &["daemon", "drift seen", "in batches", "what"],
        &drifts.iter().map(row).collect::<Vec<_>>(),
    )
}

/// The list of workflows.
pub fn workflows(workflows: &[WorkflowView]) -> String {
    let row = |workflow: &WorkflowView| {
        vec![
            workflow.name.clone(),
            workflow.revision.to_string(),
            state(workflow.state).to_string(),
            workflow.daemons.join(", "),
            workflow.by.clone(),
        ]
    };
    table(
        &["name", "revision", "state", "daemons", "by"],
        &workflows.iter().map(row).collect::<Vec<_>>(),
    )
}

/// The streams' accounts.
pub fn streams(streams: &[StreamView]) -> String {
    let row = |stream: &StreamView| {
        let ledger = &stream.ledger;
        vec![
            stream.workflow.clone(),
            stream.edge.clone(),
            format!("{} -> {}", stream.producer, stream.consumer),
            ledger.produced.to_string(),
            ledger.delivered.to_string(),
            ledger.buffered.to_string(),
            ledger.dropped.to_string(),
            ledger.dead.to_string(),
            ledger.duplicates.to_string(),
            ledger.unconfirmed.to_string(),
            ledger.filtered.to_string(),
            stream.rate.to_string(),
            if stream.balances { "yes" } else { "NO" }.to_string(),
            stream.trouble.clone(),
        ]
    };
    let headings = [
        "workflow",
        "stream",
        "between",
        "produced",
        "delivered",
        "buffered",
        "dropped",
        "dead",
        "duplicates",
        "unconfirmed",
        "filtered",
        "rows/s",
        "balances",
        "trouble",
    ];
    table(&headings, &streams.iter().map(row).collect::<Vec<_>>())
}

/// What nodes do.
pub fn nodes(nodes: &[NodeView]) -> String {
    let row = |node: &NodeView| {
        let busy_us = node.busy_us.checked_div(node.batches).filter(|mean| *mean > 0);
        vec![
            node.node.clone(),
            node.daemon.clone(),
            node.records.to_string(),
            node.rate.to_string(),
            bytes(node.bytes),
            bytes(node.bytes_per_s),
            node.errors.to_string(),
            node.faults.to_string(),
            busy_us.map_or("-".to_string(), |mean| format!("{:.1} ms", mean as f64 / 1e3)),
        ]
    };
    let headings = [
        "node",
        "daemon",
        "records",
        "rows/s",
        "bytes",
        "bytes/s",
        "errors",
        "faults",
        "a batch takes",
    ];
    table(&headings, &nodes.iter().map(row).collect::<Vec<_>>())
}

/// The catalog.
pub fn components(components: &[ComponentView]) -> String {
    let row = |component: &ComponentView| {
        vec![
            component.role.to_string(),
            component.name.clone(),
            component.summary.clone(),
        ]
    };
    table(
        &["role", "name", "what it does"],
        &components.iter().map(row).collect::<Vec<_>>(),
    )
}

/// One component, whole.
pub fn component(component: &ComponentView) -> String {
    format!(
        "{} {}: {}\n\n{}\n\nsettings (JSON Schema): {}\n",
        component.role, component.name, component.summary, component.example, component.schema
    )
}

/// The plane in short.
pub fn info(info: &PlaneInfo) -> String {
    format!(
        "fleet      {}\nplane      {} (version {})\nweb page   {}\ndaemons    {}\noperators  {}\nworkflows  {}\nroster     version {}\n",
        info.fleet,
        info.plane,
        info.version,
        info.http,
        info.daemons,
        info.operators,
        info.workflows,
        info.roster_version
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up() {
        let rows = vec![vec!["a".into(), "10".into()], vec!["büch".into(), "9".into()]];
        assert_eq!(table(&["name", "n"], &rows), "NAME   N\na     10\nbüch   9\n");
        assert_eq!(table(&["name", "n"], &[]), "NAME  N\n");
        for (cell, is_right) in [
            ("7", true),
            ("1.5 KiB", true),
            ("0 B", true),
            ("90%", true),
            ("3f7k2", false),
            ("2026-11-28", false),
            ("", false),
        ] {
            assert_eq!(is_amount(cell), is_right, "{cell}");
        }
    }

    #[test]
    fn moments() {
        for (unix_ms, text) in [
            (0, "1970-01-01 00:00:00.000"),
            (-1, "1969-12-31 23:59:59.999"),
            (951_782_400_000, "2000-02-29 00:00:00.000"),
            (1_700_000_000_123, "2023-11-14 22:13:20.123"),
        ] {
            assert_eq!(clock_time(unix_ms), text);
        }
    }

    #[test]
    fn amounts_read_well() {
        for (count, text) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1 << 30, "1.0 GiB")] {
            assert_eq!(bytes(count), text);
        }
        for (ms, text) in [
            (350, "350 ms"),
            (12_000, "12 s"),
            (180_000, "3 min"),
            (259_200_000, "3 d"),
        ] {
            assert_eq!(ago(ms), text);
        }
    }
}
