//! `cargo xtask budgets`: counts the instructions of every case in `tools/micro` and compares them with the budgets in
//! `tools/micro/budgets.toml`. Instructions, because time on a machine that others use says nothing about five percent.
//! Counting is in `count`; this file decides and shows.

mod count;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use self::count::{Case, MadeWith};
use crate::cmd;
use crate::lint::Report;

/// What `cargo xtask budgets` can be told.
#[derive(clap::Args)]
pub struct Args {
    /// Make what is measured now the budgets
    #[arg(long)]
    accept: bool,
    /// Only the cases whose name contains this
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
}

const FILE: &str = "tools/micro/budgets.toml";
/// A change of more than this, up or down, wants a decision. In percent.
const CHANGE_PERCENT_MAX: f64 = 5.0;
const HEADING: &str = "\
# Instructions of one iteration of each case of tools/micro, under callgrind. Written by `cargo xtask budgets --accept`;
# `cargo xtask lint` fails when one is exceeded by more than 5 %.
";

/// The file.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Budgets {
    /// Other compilers and libraries make other instructions: budgets hold for these.
    made_with: Option<MadeWith>,
    #[serde(default)]
    cases: BTreeMap<String, Budget>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Budget {
    instructions: u64,
    /// Of what.
    iteration: String,
}

impl Budgets {
    fn load() -> Result<Self> {
        let path = cmd::root().join(FILE);
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {FILE}"))?;
        toml::from_str(&text).with_context(|| format!("cannot read {FILE}"))
    }

    fn save(&self) -> Result<()> {
        let text = toml::to_string(self).context("cannot write the budgets as TOML")?;
        fs::write(cmd::root().join(FILE), format!("{HEADING}\n{text}")).with_context(|| format!("cannot write {FILE}"))
    }
}

/// One line of the table.
#[derive(Debug, PartialEq)]
struct Line {
    name: String,
    budget: Option<u64>,
    now: Option<u64>,
    verdict: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Verdict {
    Kept,
    /// More than allowed.
    Exceeded,
    /// So much less that the budget would no longer notice a step back.
    Loose,
    /// A case without a budget.
    New,
    /// A budget without a case.
    Gone,
}

impl Verdict {
    fn of(budget: u64, now: u64, spread_percent: f64) -> Self {
        let change = change_percent(budget, now);
        // What a case spreads by itself is nobody's fault.
        let allowed = CHANGE_PERCENT_MAX.max(CHANGE_PERCENT_MAX + spread_percent - count::SPREAD_PERCENT_USUAL);
        if change > allowed {
            Verdict::Exceeded
        } else if change < -allowed {
            Verdict::Loose
        } else {
            Verdict::Kept
        }
    }

    fn word(self) -> &'static str {
        match self {
            Verdict::Kept => "ok",
            Verdict::Exceeded => "EXCEEDED",
            Verdict::Loose => "better: tighten it",
            Verdict::New => "NO BUDGET",
            Verdict::Gone => "NO SUCH CASE",
        }
    }
}

fn change_percent(budget: u64, now: u64) -> f64 {
    (now as f64 - budget as f64) * 100.0 / budget.max(1) as f64
}

/// Budgets and measurements side by side. `whole`: every case was measured, so that a budget without one is left over.
fn compare(budgets: &Budgets, cases: &[Case], counts: &BTreeMap<String, u64>, whole: bool) -> Vec<Line> {
    let mut lines: Vec<Line> = cases
        .iter()
        .filter_map(|case| {
            let now = *counts.get(&case.name)?;
            let budget = budgets.cases.get(&case.name).map(|budget| budget.instructions);
            Some(Line {
                name: case.name.clone(),
                budget,
                now: Some(now),
                verdict: budget.map_or(Verdict::New, |budget| Verdict::of(budget, now, case.spread_percent)),
            })
        })
        .collect();
    let left_over = budgets
        .cases
        .iter()
        .filter(|(name, _)| whole && !counts.contains_key(*name));
    lines.extend(left_over.map(|(name, budget)| Line {
        name: name.clone(),
        budget: Some(budget.instructions),
        now: None,
        verdict: Verdict::Gone,
    }));
    lines
}

fn table(lines: &[Line]) -> String {
    let mut text = format!(
        "{:<22} {:>14} {:>14} {:>9}  verdict\n",
        "case", "budget", "now", "change"
    );
    let shown = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), grouped);
    for line in lines {
        let change = match (line.budget, line.now) {
            (Some(budget), Some(now)) => format!("{:+.1} %", change_percent(budget, now)),
            _ => "-".to_owned(),
        };
        // Writing into a text cannot fail.
        let _ = writeln!(
            text,
            "{:<22} {:>14} {:>14} {change:>9}  {}",
            line.name,
            shown(line.budget),
            shown(line.now),
            line.verdict.word()
        );
    }
    text
}

/// A number as people read it: 1,234,567.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// What is wrong, one sentence for each line that is.
fn findings(lines: &[Line]) -> Vec<String> {
    let finding = |line: &Line| {
        let name = &line.name;
        match (line.verdict, line.budget, line.now) {
            (Verdict::Exceeded, Some(budget), Some(now)) => Some(format!(
                "{name} takes {:+.1} % more instructions than {FILE} allows: {} instead of {}. See where with `cargo \
                 xtask budgets --only {name}` and callgrind, and mend it; or, when it is worth its price, say so in the \
                 commit message and run `cargo xtask budgets --accept --only {name}`",
                change_percent(budget, now),
                grouped(now),
                grouped(budget)
            )),
            (Verdict::New, ..) => Some(format!(
                "{name} has no budget: `cargo xtask budgets --accept --only {name}` gives it one"
            )),
            (Verdict::Gone, ..) => Some(format!(
                "{FILE} has a budget for {name}, and there is no such case: `cargo xtask budgets --accept` removes it"
            )),
            _ => None,
        }
    };
    lines.iter().filter_map(finding).collect()
}

/// The names of those that got so much better that nobody would notice them getting worse again.
fn loose(lines: &[Line]) -> Option<String> {
    let names: Vec<&str> = lines
        .iter()
        .filter(|line| line.verdict == Verdict::Loose)
        .map(|line| line.name.as_str())
        .collect();
    (!names.is_empty()).then(|| {
        format!(
            "better by more than {CHANGE_PERCENT_MAX} %: {}; tighten them with `cargo xtask budgets --accept`",
            names.join(", ")
        )
    })
}

/// Runs the task.
pub fn run(args: &Args) -> Result<()> {
    if let Some(why) = count::impossible() {
        println!("budgets: skipped: {why}");
        return Ok(());
    }
    let mut budgets = Budgets::load()?;
    let here = MadeWith::here()?;
    let cases = count::build()?;
    let wanted: Vec<&Case> = cases
        .iter()
        .filter(|case| args.only.as_ref().is_none_or(|part| case.name.contains(part.as_str())))
        .collect();
    if wanted.is_empty() {
        bail!("no case has '{}' in its name", args.only.as_deref().unwrap_or_default());
    }
    let counts = count::all(&wanted)?;
    let lines = compare(&budgets, &cases, &counts, args.only.is_none());
    print!("{}", table(&lines));
    let others = budgets.made_with.clone().filter(|made_with| *made_with != here);
    if args.accept {
        if let Some(others) = others.filter(|_| args.only.is_some()) {
            bail!("the other budgets were made with {others}, here is {here}: accept all of them, without --only");
        }
        accept(&mut budgets, &cases, &counts, args.only.is_none());
        budgets.made_with = Some(here);
        budgets.save()?;
        println!("budgets: {} written to {FILE}", counts.len());
        return Ok(());
    }
    if let Some(others) = others {
        println!("budgets: not judged: they were made with {others}, and here is {here}");
        return Ok(());
    }
    if let Some(loose) = loose(&lines) {
        println!("budgets: {loose}");
    }
    let findings = findings(&lines);
    if !findings.is_empty() {
        bail!("{}", findings.join("\n"));
    }
    Ok(())
}

fn accept(budgets: &mut Budgets, cases: &[Case], counts: &BTreeMap<String, u64>, whole: bool) {
    if whole {
        budgets.cases.clear();
    }
    for case in cases {
        if let Some(instructions) = counts.get(&case.name) {
            let budget = Budget {
                instructions: *instructions,
                iteration: case.iteration.clone(),
            };
            budgets.cases.insert(case.name.clone(), budget);
        }
    }
}

/// The step of `cargo xtask lint`.
pub fn check() -> Result<Report> {
    let skipped = |why: String| Report {
        findings: Vec::new(),
        note: Some(format!("skipped: {why}")),
    };
    if let Some(why) = count::impossible() {
        return Ok(skipped(why));
    }
    let (budgets, here) = (Budgets::load()?, MadeWith::here()?);
    if let Some(others) = budgets.made_with.as_ref().filter(|made_with| **made_with != here) {
        return Ok(skipped(format!("budgets are for {others}, and here is {here}")));
    }
    let cases = count::build()?;
    let counts = count::all(&cases.iter().collect::<Vec<_>>())?;
    let lines = compare(&budgets, &cases, &counts, true);
    Ok(Report {
        findings: findings(&lines),
        note: loose(&lines).or_else(|| Some(format!("{} cases", lines.len()))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: &str, spread_percent: f64) -> Case {
        Case {
            name: name.to_owned(),
            iterations: 1,
            spread_percent,
            main_thread_only: false,
            iteration: "one".to_owned(),
        }
    }

    fn budgets(of: &[(&str, u64)]) -> Budgets {
        let budget = |(name, instructions): &(&str, u64)| {
            let budget = Budget {
                instructions: *instructions,
                iteration: "one".to_owned(),
            };
            ((*name).to_owned(), budget)
        };
        Budgets {
            made_with: None,
            cases: of.iter().map(budget).collect(),
        }
    }

    #[test]
    fn five_percent_is_the_line() {
        for (now, spread_percent, wanted) in [
            (1000, 0.5, Verdict::Kept),
            (1050, 0.5, Verdict::Kept),
            (1051, 0.5, Verdict::Exceeded),
            (1051, 2.5, Verdict::Kept),
            (1071, 2.5, Verdict::Exceeded),
            (950, 0.5, Verdict::Kept),
            (949, 0.5, Verdict::Loose),
            // A case that spreads less than others has no narrower limit.
            (1050, 0.0, Verdict::Kept),
        ] {
            assert_eq!(
                Verdict::of(1000, now, spread_percent),
                wanted,
                "{now} ± {spread_percent}"
            );
        }
    }

    #[test]
    fn says_what_is_wrong_and_how_to_accept_it() {
        let cases = [
            case("kept", 0.5),
            case("worse", 0.5),
            case("better", 0.5),
            case("fresh", 0.5),
        ];
        let counts: BTreeMap<String, u64> = [("kept", 100), ("worse", 110), ("better", 50), ("fresh", 1_234_567)]
            .map(|(name, count)| (name.to_owned(), count))
            .into();
        let mut budgets = budgets(&[("kept", 100), ("worse", 100), ("better", 100), ("old", 7)]);
        let lines = compare(&budgets, &cases, &counts, true);
        let said = findings(&lines);
        assert_eq!(said.len(), 3, "{said:?}");
        for (finding, parts) in said.iter().zip([
            [
                "worse takes +10.0 % more",
                "110 instead of 100",
                "--accept --only worse",
            ],
            ["fresh has no budget", "--accept", "--only fresh"],
            ["for old", "no such case", "--accept"],
        ]) {
            for part in parts {
                assert!(finding.contains(part), "'{part}' in {finding}");
            }
        }
        assert!(loose(&lines).unwrap().contains(": better;"));
        let shown = table(&lines);
        assert!(
            shown.contains("1,234,567") && shown.contains("-50.0 %  better"),
            "{shown}"
        );
        // A part of the cases says nothing about the rest.
        assert_eq!(findings(&compare(&budgets, &cases, &counts, false)).len(), 2);

        accept(&mut budgets, &cases, &counts, true);
        assert_eq!(budgets.cases.len(), 4);
        assert!(findings(&compare(&budgets, &cases, &counts, true)).is_empty());
    }

    #[test]
    fn the_file_reads_as_it_was_written() {
        let budgets = Budgets {
            made_with: Some(MadeWith {
                rustc: "1.0.0".to_owned(),
                libc: "glibc 2.36".to_owned(),
                valgrind: "valgrind-3.19.0".to_owned(),
            }),
            ..budgets(&[("a", 1), ("b", u64::from(u32::MAX))])
        };
        let text = toml::to_string(&budgets).unwrap();
        assert_eq!(toml::from_str::<Budgets>(&text).unwrap(), budgets, "{text}");
    }
}
