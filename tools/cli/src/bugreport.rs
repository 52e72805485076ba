//! `mycelial bugreport`: what somebody who helps needs to know, in one file that can be given away. Holds no record and no
//! secret: passwords in workflow texts are covered, code is left out, and daemons tell what `daemon diagnose` tells.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bus_schema::{
    api::{ApiCall, ApiResult, DaemonView, Presence, WorkflowView},
    control::{ControlCall, ControlResult},
};
use serde_json::{Value, json};

use crate::{
    client::{CliError, Client},
    covered::{self, COVER, is_telling},
    doctor,
};

/// Most daemons that are asked; those in trouble first.
const DAEMONS_MAX: usize = 20;
/// Text longer than this, in bytes, is code or data of the user's own: it is left out.
const TEXT_BYTES_MAX: usize = 200;
/// What says of which setting, header or argument the text beside it is the value.
const NAMES: [&str; 3] = ["name", "key", "header"];

/// Writes the report.
pub async fn run(dir: &Path, timeout: Duration, file: &Path) -> Result<(), CliError> {
    if file.exists() {
        let text = format!("{} is there already", file.display());
        return Err(CliError::Usage(format!(
            "{text}\n  hint: choose another name, or remove it"
        )));
    }
    let checks = doctor::checks(dir, timeout).await;
    let fleet = match Client::connect(dir, timeout, Vec::new()).await {
        Ok(client) => {
            let told = fleet(&client).await;
            client.close().await;
            told
        }
        Err(error) => told(json!({ "unreachable": error.to_string() })),
    };
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let report = json!({
        "format": 1,
        "made_unix_ms": since.as_millis() as u64,
        "command": { "version": env!("CARGO_PKG_VERSION"), "os": std::env::consts::OS, "arch": std::env::consts::ARCH },
        "doctor": told(json!(checks)),
        "fleet": fleet,
    });
    let text = serde_json::to_string_pretty(&report).map_err(|error| CliError::Failed(error.to_string()))?;
    let cannot = |error| CliError::Usage(format!("cannot write {}: {error}", file.display()));
    std::fs::write(file, text + "\n").map_err(cannot)?;
    eprintln!(
        "written to {}: no records, no secrets. Names of daemons, workflows, hosts and tables are in it: read it before you give it away",
        file.display()
    );
    Ok(())
}

/// What plane and daemons tell; what one of them does not tell is said in its place.
async fn fleet(client: &Client) -> Value {
    let mut all = serde_json::Map::new();
    let mut put = |name: &str, value| drop(all.insert(name.to_string(), value));
    for (name, call) in [("info", ApiCall::Info), ("ledger", ApiCall::Ledger)] {
        let answered = client.call(&call).await;
        put(
            name,
            told(match answered {
                Ok(ApiResult::Info(info)) => json!(info),
                Ok(ApiResult::Ledger(streams)) => json!(streams),
                Ok(_) => json!({ "error": "another answer" }),
                Err(error) => json!({ "error": error.to_string() }),
            }),
        );
    }
    if let Ok(ApiResult::Workflows(workflows)) = client.call(&ApiCall::WorkflowList).await {
        let mut shown = Vec::new();
        for view in workflows {
            shown.push(workflow(client, view).await);
        }
        put("workflows", Value::Array(shown));
    }
    if let Ok(ApiResult::Daemons(daemons)) = client.call(&ApiCall::DaemonList).await {
        if let Ok(ApiResult::Roster(roster)) = client.call(&ApiCall::Roster).await {
            client.take_roster(&roster);
        }
        put("daemons", told(json!(daemons)));
        let mut reports = serde_json::Map::new();
        for daemon in asked(daemons) {
            eprintln!("asking '{}' …", daemon.name);
            reports.insert(daemon.name.clone(), told(diagnosis(client, &daemon).await));
        }
        put("diagnoses", Value::Object(reports));
    }
    Value::Object(all)
}

/// Whom to ask: who is there, those in trouble first.
fn asked(mut daemons: Vec<DaemonView>) -> Vec<DaemonView> {
    daemons.retain(|daemon| daemon.presence == Presence::Online);
    daemons.sort_by_key(|daemon| std::cmp::Reverse((daemon.troubled, daemon.damaged)));
    daemons.truncate(DAEMONS_MAX);
    daemons
}

async fn diagnosis(client: &Client, daemon: &DaemonView) -> Value {
    match client.ask(&daemon.name, &daemon.node, &ControlCall::Diagnose).await {
        Ok(ControlResult::Report(sections)) => json!(sections),
        Ok(_) => json!({ "error": "another answer" }),
        Err(error) => json!({ "error": error.to_string() }),
    }
}

async fn workflow(client: &Client, view: WorkflowView) -> Value {
    let parts = match client.call(&ApiCall::WorkflowStatus(view.name.clone())).await {
        Ok(ApiResult::Status { parts, .. }) => json!(parts),
        _ => Value::Null,
    };
    let text = match client.call(&ApiCall::WorkflowShow(view.name.clone())).await {
        Ok(ApiResult::Workflow { text, .. }) => covered(&text),
        _ => Value::Null,
    };
    json!({ "view": told(json!(view)), "parts": told(parts), "text": text })
}

/// A workflow without what nobody should see. A text that is no TOML is not shown at all.
fn covered(text: &str) -> Value {
    let Ok(mut table) = text.parse::<toml::Table>() else {
        return json!("[not TOML]");
    };
    for (name, value) in &mut table {
        // What is given to tests are records.
        match name.as_str() {
            "tests" => *value = toml::Value::String("[left out]".to_string()),
            _ => cover(name, value, false),
        }
    }
    json!(toml::to_string(&table).unwrap_or_default())
}

/// `is_secret`: it belongs to something that nobody should see.
fn cover(name: &str, value: &mut toml::Value, is_secret: bool) {
    let is_secret = is_secret || is_telling(name);
    match value {
        // `{ secret = "NAME" }`, `{ env = "NAME" }` and `{ file = "PATH" }` say where it is, not what it is.
        toml::Value::Table(table)
            if table.len() == 1 && ["secret", "env", "file"].iter().any(|key| table.contains_key(*key)) => {}
        toml::Value::Table(table) => {
            // `{ name = "Authorization", value = "…" }`.
            let mut names = NAMES.iter().filter_map(|key| table.get(*key)?.as_str());
            let is_named = names.any(is_telling);
            for (name, value) in table {
                cover(name, value, is_secret || (is_named && name == "value"));
            }
        }
        toml::Value::Array(items) => {
            // `["Authorization", "…"]`, and `--password` with its value.
            let is_pair = items.len() == 2;
            let mut is_value = false;
            for item in items {
                let is_name = |text: &str| (is_pair || text.starts_with('-')) && is_telling(text);
                let is_next = item.as_str().is_some_and(is_name);
                cover(name, item, is_secret || is_value);
                is_value = is_next;
            }
        }
        toml::Value::String(text) if is_secret => *text = COVER.to_string(),
        toml::Value::String(text) if text.len() > TEXT_BYTES_MAX => *text = format!("[{} bytes]", text.len()),
        toml::Value::String(text) => *text = covered::text(text),
        _ => {}
    }
}

/// What plane and daemons tell, without what may stand in messages and lines of logs.
fn told(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(covered::text(&text)),
        Value::Array(items) => items.into_iter().map(told).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, told(value))).collect(),
        value => value,
    }
}

/// Where the report goes unless told.
pub fn file(named: Option<PathBuf>) -> PathBuf {
    named.unwrap_or_else(|| PathBuf::from("mycelial-report.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_should_see_is_covered() {
        let text = format!(
            r#"name = "orders"
[sources.db]
type = "postgres"
host = "db"
password = "hunter2"
url = "mqtt://anna:hunter2@broker:1883/x@y"
headers = {{ Authorization = "Bearer hunter2" }}
salt = {{ secret = "salt" }}
tokens = ["hunter2"]
dsn = "host=db password=hunter2"
hook = "https://h/x?api_key=hunter2"
headers2 = [["Authorization", "hunter2"], ["Accept", "text/csv"]]
headers3 = [{{ name = "X-Api-Key", value = "hunter2" }}]
arguments = ["--password", "hunter2", "--fast"]
credentials = {{ user = "anna", more = [{{ value = "hunter2" }}] }}
[transforms.mine]
type = "python"
code = '''{}hunter2'''
[tests.one]
given.db = [{{ card = "hunter2" }}]
"#,
            "x".repeat(TEXT_BYTES_MAX)
        );
        let shown = covered(&text);
        let shown = shown.as_str().unwrap();
        assert!(!shown.contains("hunter2"), "{shown}");
        for kept in [
            "orders",
            "host = \"db\"",
            "secret = \"salt\"",
            // Where the password ends cannot be known.
            "mqtt://[covered]@y",
            "https://h/x?[covered]",
            "host=db password=[covered]",
            "text/csv",
            "--fast",
            "[207 bytes]",
        ] {
            assert!(shown.contains(kept), "{kept}: {shown}");
        }
        assert_eq!(covered("not toml ="), json!("[not TOML]"));
    }

    #[test]
    fn messages_and_logs_are_covered_too() {
        let report = json!({
            "doctor": [{ "found": "postgres://anna:hunter2@db is away" }],
            "fleet": { "diagnoses": { "gw": [{ "heading": "log", "text": "1 info started\n2 warn token=hunter2 is old" }] } },
        });
        let shown = told(report).to_string();
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(
            shown.contains("[covered]@db is away") && shown.contains("1 info started"),
            "{shown}"
        );
    }
}
