//! `cargo xtask conformance`: runs the bus's suite over every road and writes the table of results into
//! `docs/CONFORMANCE.md`. Knows no road and no case: both come from the run itself.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::metadata::Metadata;
use crate::{cmd, setup};

/// What `cargo xtask conformance` can be told.
#[derive(clap::Args)]
pub struct Args {}

const PAGE: &str = "docs/CONFORMANCE.md";
const BEGIN: &str = "<!-- conformance: begin -->\n";
const END: &str = "<!-- conformance: end -->";
/// These tests wait far more than they work.
const TESTS_AT_ONCE: &str = "10";

/// Runs the task. The page is written whatever the results are; a failure fails the task.
pub fn run(_: &Args) -> Result<()> {
    setup::ensure_all()?;
    cmd::run(cmd::cargo().args(["build", "--workspace", "--bins"]))?;
    let bin_dir = Metadata::load()?.target_directory.join("debug");
    eprintln!("every road, with every fault (two minutes on two cores) …");
    // Not the test runner of `cargo xtask test`: what this one prints is stable, and the same everywhere.
    let mut tests = cmd::cargo();
    tests.args([
        "test",
        "--quiet",
        "-p",
        "bus-link",
        "--test",
        "conformance",
        "--no-fail-fast",
        "--",
    ]);
    tests.args(["--format", "pretty", "--test-threads", TESTS_AT_ONCE]);
    let output = cmd::output(tests.env("MYCELIAL_BIN_DIR", bin_dir))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let results = results(&said);
    if results.is_empty() {
        bail!(
            "the suite did not run:\n{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let path = cmd::root().join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("cannot read {PAGE}"))?;
    let text = format!("\n{}{}", versions(), tables(&results));
    let page = replaced(&page, &text).with_context(|| format!("{PAGE} has no '{}' and '{END}'", BEGIN.trim()))?;
    fs::write(&path, page).with_context(|| format!("cannot write {PAGE}"))?;
    let failed: Vec<_> = results.iter().filter(|result| !result.passed).collect();
    println!(
        "conformance: {} of {} hold; see {PAGE}",
        results.len() - failed.len(),
        results.len()
    );
    if !failed.is_empty() {
        bail!("{said}");
    }
    Ok(())
}

/// The outcome of one case over one road.
#[derive(Debug, PartialEq, Eq)]
struct CaseResult {
    road: String,
    case: String,
    passed: bool,
}

/// Reads `test <road>::<case> ... ok`, in the order they are listed in.
fn results(said: &str) -> Vec<CaseResult> {
    let read = |line: &str| {
        let (name, outcome) = line.strip_prefix("test ")?.split_once(" ... ")?;
        let (road, case) = name.split_once("::")?;
        Some(CaseResult {
            road: road.to_owned(),
            case: case.to_owned(),
            passed: outcome == "ok",
        })
    };
    said.lines().filter_map(read).collect()
}

/// One table for the roads that were tested with everything, one for the others, and so on: a table per set of cases.
fn tables(results: &[CaseResult]) -> String {
    let roads: BTreeSet<&str> = results.iter().map(|result| result.road.as_str()).collect();
    let cases_of = |road: &str| -> BTreeSet<&str> {
        let of = results.iter().filter(|result| result.road == road);
        of.map(|result| result.case.as_str()).collect()
    };
    let (all, few): (Vec<&str>, Vec<&str>) = roads.iter().partition(|road| cases_of(road).len() > 4);
    let table = |roads: &[&str]| {
        let cases: BTreeSet<&str> = roads.iter().flat_map(|road| cases_of(road)).collect();
        let mut text = format!(
            "\n| | `{}` |\n|---|{}\n",
            roads.join("` | `"),
            "---|".repeat(roads.len())
        );
        for case in cases {
            let _ = write!(text, "| `{case}` |");
            for road in roads {
                let found = results
                    .iter()
                    .find(|result| result.road == *road && result.case == case);
                let cell = match found {
                    Some(result) if result.passed => "yes",
                    Some(_) => "**no**",
                    None => "–",
                };
                let _ = write!(text, " {cell} |");
            }
            text.push('\n');
        }
        text
    };
    [all, few]
        .iter()
        .filter(|roads| !roads.is_empty())
        .map(|roads| table(roads))
        .collect()
}

/// What the servers call themselves.
fn versions() -> String {
    let first_line = |program: &str, argument: &str| {
        let output = cmd::output(cmd::program(program).arg(argument)).ok()?;
        let text = [output.stdout, output.stderr].concat();
        Some(String::from_utf8_lossy(&text).lines().next()?.trim().to_owned())
    };
    let found = [("mosquitto", "-h"), ("nats-server", "--version")].map(|(program, argument)| {
        first_line(program, argument).unwrap_or_else(|| format!("a {program} that does not say its version"))
    });
    format!("Tested with {}.\n", found.join(" and "))
}

/// The page with other text between the marks. `None` without them.
fn replaced(page: &str, text: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{text}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_show_every_outcome() {
        let said = "running 7 tests\ntest a::one ... ok\ntest a::two ... FAILED\ntest a::three ... ok\ntest a::four ... ok\n\
                    test a::five ... ok\ntest b::one ... ok\ntest the_table ... ok\n\ntest result: FAILED. 6 passed";
        let text = tables(&results(said));
        assert_eq!(
            text,
            "\n| | `a` |\n|---|---|\n| `five` | yes |\n| `four` | yes |\n| `one` | yes |\n| `three` | yes |\n\
             | `two` | **no** |\n\n| | `b` |\n|---|---|\n| `one` | yes |\n"
        );
        assert_eq!(
            replaced(
                "x\n<!-- conformance: begin -->\nold\n<!-- conformance: end -->\ny",
                "new"
            )
            .unwrap(),
            "x\n<!-- conformance: begin -->\nnew\n<!-- conformance: end -->\ny"
        );
        assert_eq!(replaced("x", "new"), None);
    }
}
