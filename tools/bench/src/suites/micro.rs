//! Micro: what one step of the hot path takes, in time by criterion and in instructions by callgrind. The steps are those
//! of `tools/micro`; this file only gathers their figures.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::Circumstances;
use crate::suite::{Entry, Suite, metric, number};

const BUDGETS: &str = "tools/micro/budgets.toml";

/// The part of the budgets' file that is shown.
#[derive(Deserialize)]
struct Budgets {
    cases: BTreeMap<String, Budget>,
}

#[derive(Deserialize)]
struct Budget {
    instructions: u64,
    iteration: String,
}

/// Runs the suite.
pub fn run(circumstances: &Circumstances) -> Result<Suite> {
    let home = circumstances.fresh("criterion")?;
    let mut bench = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    bench
        .args(["bench", "--quiet", "-p", "micro"])
        .env("CRITERION_HOME", &home);
    ensure!(
        bench.status().context("cannot run cargo")?.success(),
        "criterion failed"
    );
    let text = fs::read_to_string(BUDGETS).with_context(|| format!("cannot read {BUDGETS}"))?;
    let budgets: Budgets = toml::from_str(&text).with_context(|| format!("{BUDGETS} is not a list of budgets"))?;
    let entry = |(name, budget): (&String, &Budget)| {
        let times = times(&home.join(name).join("new").join("sample.json"))
            .with_context(|| format!("{name} has a budget, and was not timed"))?;
        Ok(Entry {
            name: format!("{name}: {}", budget.iteration),
            note: String::new(),
            runs: times
                .into_iter()
                .map(|us| vec![Some(us), Some(budget.instructions as f64)])
                .collect(),
        })
    };
    let entries: Vec<Entry> = budgets.cases.iter().map(entry).collect::<Result<_>>()?;
    Ok(Suite {
        name: "micro".to_string(),
        title: "Micro".to_string(),
        about: format!(
            "One step of the hot path at a time: {} cases, timed by criterion (`cargo bench -p micro`), and their budgets in \
             instructions, counted by callgrind (`cargo xtask budgets`), which do not depend on how busy the machine is. Ratios \
             between different steps mean nothing.",
            number(entries.len() as f64, 0)
        ),
        metrics: vec![metric("µs", 1), metric("instructions", 0)],
        entries,
        goals: Vec::new(),
    })
}

/// The samples of a case, in µs for one iteration.
fn times(sample: &Path) -> Result<Vec<f64>> {
    let sample: Value = serde_json::from_str(&fs::read_to_string(sample)?)?;
    let numbers = |key: &str| {
        sample[key]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_f64)
            .collect::<Vec<_>>()
    };
    let (iterations, nanoseconds) = (numbers("iters"), numbers("times"));
    Ok(iterations
        .iter()
        .zip(nanoseconds)
        .map(|(count, ns)| ns / count / 1e3)
        .collect())
}
