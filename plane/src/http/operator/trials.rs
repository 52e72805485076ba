//! Trying a workflow's text on a daemon: what its steps make of records, its tests, and whether its sources and destinations can
//! be reached from there. Nothing is read from a source or written to a destination.

use std::collections::BTreeMap;

use bus_schema::{
    limits::PREVIEW_ROWS_MAX,
    shown::{Checked, Step},
    trial::{Given, TrialCall, TrialResult, Verdict},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Daemon, LONG_PATIENCE, daemon, noted, something_else};
use crate::{
    http::{
        ask::{Answer, Ask, Page, json},
        problem::Refusal,
        table::{Endpoint, by, operator},
    },
    permission::Reach::Narrow,
};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::post(
            "/operator/trial",
            operator(Narrow),
            "What each step of a text makes of records, on a daemon; writes to no destination",
            by!(trial),
        )
        .takes::<Trial>()
        .answers::<Page<Step>>(),
        Endpoint::post(
            "/operator/test",
            operator(Narrow),
            "Runs the tests that a text keeps, on a daemon",
            by!(test),
        )
        .takes::<Test>()
        .answers::<Page<TestShown>>(),
        Endpoint::post(
            "/operator/check",
            operator(Narrow),
            "Whether sources and destinations can be reached from a daemon",
            by!(check),
        )
        .takes::<Check>()
        .answers::<Page<Checked>>(),
    ]
}

/// A text and records for its sources.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Trial {
    /// Where.
    daemon: String,
    /// The workflow.
    text: String,
    /// At most 100 records in all.
    samples: Vec<Samples>,
}

/// Records for a source.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Samples {
    /// Which source.
    source: String,
    /// Each an object of its columns.
    #[serde(default)]
    records: Vec<Map<String, Value>>,
    /// Further ones as text, a JSON object a line.
    #[serde(default)]
    lines: String,
    /// Types of columns, by the names that `cast` takes; a value without one has that of its form.
    #[serde(default)]
    types: BTreeMap<String, String>,
}

impl Samples {
    fn count(&self) -> usize {
        let lines = self.lines.lines().filter(|line| !line.trim().is_empty());
        self.records.len() + lines.count()
    }

    fn given(self) -> Given {
        let mut lines = self.lines;
        for record in self.records {
            if !lines.is_empty() && !lines.ends_with('\n') {
                lines.push('\n');
            }
            lines.push_str(&Value::Object(record).to_string());
        }
        Given {
            source: self.source,
            lines,
            types: self.types.into_iter().collect(),
        }
    }
}

async fn ask_daemon(daemon: &Daemon<'_>, call: &TrialCall) -> Result<TrialResult, Refusal> {
    match daemon.ask("try the text", call, LONG_PATIENCE).await? {
        TrialResult::Failed(failure) => Err(failure.into()),
        result => Ok(result),
    }
}

async fn trial(ask: Ask) -> Answer {
    let Trial {
        daemon: name,
        text,
        samples,
    } = ask.body()?;
    let count: usize = samples.iter().map(Samples::count).sum();
    if count > PREVIEW_ROWS_MAX {
        let message = format!("samples: {PREVIEW_ROWS_MAX} records can be tried at a time, not {count}");
        return Err(Refusal::invalid(message, ""));
    }
    let tried = async {
        let daemon = daemon(&ask, &name, "mycelial workflow preview FILE --given SOURCE=ROWS").await?;
        let given = samples.into_iter().map(Samples::given).collect();
        let TrialResult::Steps(steps) = ask_daemon(&daemon, &TrialCall::Preview { text, given }).await? else {
            return Err(something_else(&daemon.name));
        };
        let redact = &daemon.operator.redact;
        let step = |step| -> Result<Step, Refusal> {
            let step = Step::try_from(step).map_err(|_| something_else(&daemon.name))?;
            let out = step.out.hiding(|column| redact.hides(column));
            Ok(Step { out, ..step })
        };
        json(Page::all(steps.into_iter().map(step).collect::<Result<_, _>>()?))
    };
    noted(&ask, "try a text", &format!("on {name}"), tried).await
}

/// A text.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Test {
    /// Where.
    daemon: String,
    /// The workflow.
    text: String,
}

/// How a test ended.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct TestShown {
    /// Its name.
    test: String,
    /// Nothing differs.
    ok: bool,
    /// What is not as it is expected.
    differs: Vec<String>,
}

async fn test(ask: Ask) -> Answer {
    let Test { daemon: name, text } = ask.body()?;
    let tried = async {
        let daemon = daemon(&ask, &name, "mycelial workflow test FILE").await?;
        let TrialResult::Verdicts(verdicts) = ask_daemon(&daemon, &TrialCall::Test { text }).await? else {
            return Err(something_else(&daemon.name));
        };
        let shown = |Verdict { test, differs }| TestShown {
            ok: differs.is_empty(),
            test,
            differs,
        };
        json(Page::all(verdicts.into_iter().map(shown).collect()))
    };
    noted(&ask, "try a text", &format!("on {name}"), tried).await
}

/// A text, or the name of a workflow.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Check {
    /// From where.
    daemon: String,
    /// This text's sources and destinations there.
    #[serde(default)]
    text: Option<String>,
    /// Those of this workflow, as the daemon runs it.
    #[serde(default)]
    workflow: Option<String>,
}

async fn check(ask: Ask) -> Answer {
    let Check {
        daemon: name,
        text,
        workflow,
    } = ask.body()?;
    let call = match (text, workflow) {
        (Some(text), None) => TrialCall::Check { text },
        (None, Some(workflow)) => TrialCall::CheckPlanned { workflow },
        _ => {
            return Err(Refusal::invalid(
                "either a text or a workflow can be checked",
                "name one of them",
            ));
        }
    };
    let checked = async {
        let daemon = daemon(&ask, &name, "mycelial workflow check NAME").await?;
        let TrialResult::Checkups(checkups) = ask_daemon(&daemon, &call).await? else {
            return Err(something_else(&daemon.name));
        };
        let checked = checkups.into_iter().map(|checkup| Checked::new(&daemon.name, checkup));
        json(Page::all(checked.collect()))
    };
    noted(&ask, "check connections", &format!("from {name}"), checked).await
}
