//! The report, for machines and for people. Measures nothing.
//!
//! The file for machines is the truth, and keeps what earlier runs measured: a run of some suites replaces only those.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::stats;
use crate::suite::{Bound, Entry, Setting, Suite, cell, number};

/// Everything measured so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The suites, in the order in which they are shown.
    pub suites: Vec<Measured>,
}

/// A suite, and where its figures come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Where, when and of what.
    pub setting: Setting,
    /// What.
    pub suite: Suite,
}

impl Report {
    /// Puts a suite in the place of the one of its name, and all in the order of `names`.
    pub fn put(&mut self, measured: Measured, names: &[&str]) {
        self.suites.retain(|known| known.suite.name != measured.suite.name);
        self.suites.push(measured);
        let place = |measured: &Measured| names.iter().position(|name| *name == measured.suite.name);
        self.suites
            .sort_by_key(|measured| place(measured).unwrap_or(names.len()));
    }

    /// As a document.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut out = String::from(
            "# Benchmarks\n\nMade by `cargo xtask bench`; do not edit. Raw figures are in [report.json](report.json), what was \
             learned from them in [PERFORMANCE.md](../PERFORMANCE.md).\n\n\
             Everybody runs in turns after a warm-up (latency and outages without one); a cell is the median, with the least and the greatest in parentheses. \
             Rows are counted and compared at the destination: whoever loses, doubles or changes one has failed. Ratios are to \
             the first row of a table, of its first column; where an entry appears a second time (“again”), the difference is \
             the noise. CPU and memory are of the process and its children; memory is the peak resident set (VmHWM), which \
             includes the pages of the program itself. MB are millions of bytes. “Written” is what the kernel was told to \
             write to a disk.\n",
        );
        if self.suites.iter().any(|measured| !measured.suite.goals.is_empty()) {
            out += "\n## Goals\n\n| suite | entry | goal | measured | |\n|---|---|---|---:|---|\n";
            for measured in &self.suites {
                goals(&mut out, &measured.suite);
            }
        }
        for measured in &self.suites {
            table(&mut out, measured);
        }
        out
    }
}

fn goals(out: &mut String, suite: &Suite) {
    for goal in &suite.goals {
        let metric = suite.metrics.iter().find(|metric| metric.name == goal.metric);
        let digits = metric.map_or(1, |metric| metric.digits);
        let (side, bound) = match goal.bound {
            Bound::AtMost(bound) => ("≤", bound),
            Bound::AtLeast(bound) => ("≥", bound),
        };
        let median = suite.median(&goal.entry, &goal.metric);
        let verdict = if goal.bound.is_met(median) {
            "met"
        } else {
            "**not met**"
        };
        let (bound, median) = (number(bound, digits.min(1)), number(median, digits));
        // Writing to a string cannot fail; so below.
        let _ = writeln!(
            out,
            "| {} | {} | {} {side} {bound} | {median} | {verdict} |",
            suite.name, goal.entry, goal.metric
        );
    }
}

fn table(out: &mut String, Measured { setting, suite }: &Measured) {
    let _ = writeln!(out, "\n## {}\n\n{}\n", suite.title, suite.about.trim());
    let names: Vec<&str> = suite.metrics.iter().map(|metric| metric.name.as_str()).collect();
    let _ = writeln!(out, "| | {} | ratio |", names.join(" | "));
    let _ = writeln!(out, "|---|{}", "---:|".repeat(names.len() + 1));
    let median = |entry: &Entry| stats::median(&entry.column(0));
    let first = suite.entries.first().map_or(f64::NAN, median);
    for entry in &suite.entries {
        // A bar would end the cell.
        let _ = write!(out, "| {} |", entry.name.replace('|', "\\|"));
        for (at, metric) in suite.metrics.iter().enumerate() {
            let _ = write!(out, " {} |", cell(&entry.column(at), metric.digits));
        }
        let _ = writeln!(out, " {} |", number(median(entry) / first, 2));
    }
    out.push('\n');
    for entry in suite.entries.iter().filter(|entry| !entry.note.is_empty()) {
        let _ = writeln!(out, "- **{}**: {}", entry.name, entry.note);
    }
    let Setting { machine, commit, day } = setting;
    let _ = writeln!(
        out,
        "\n`cargo xtask bench --only {}`, {day}, commit {commit}, {machine}.",
        suite.name
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::{goal, metric};

    fn measured(name: &str) -> Measured {
        let entry = |name: &str, note: &str, runs: &[[f64; 2]]| Entry {
            name: name.to_string(),
            note: note.to_string(),
            runs: runs.iter().map(|run| run.iter().copied().map(Some).collect()).collect(),
        };
        let suite = Suite {
            name: name.to_string(),
            title: "File job".to_string(),
            about: "Copy.".to_string(),
            metrics: vec![metric("seconds", 1), metric("memory, MB", 0)],
            entries: vec![
                entry("ours", "durable", &[[2.0, 9.0], [4.0, 9.0], [3.0, 9.0]]),
                entry("cat | theirs", "", &[[6.0, 1200.0]]),
            ],
            goals: vec![
                goal("ours", "seconds", Bound::AtMost(2.5)),
                goal("ours", "memory, MB", Bound::AtMost(15.0)),
                goal("nobody", "seconds", Bound::AtMost(15.0)),
            ],
        };
        let setting = Setting {
            machine: "a machine".to_string(),
            commit: "0123".to_string(),
            day: "2026-01-02".to_string(),
        };
        Measured { setting, suite }
    }

    #[test]
    fn a_table() {
        let report = Report {
            suites: vec![measured("file")],
        };
        let text = report.to_markdown();
        for line in [
            "| file | ours | seconds ≤ 2.5 | 3.0 | **not met** |",
            "| file | ours | memory, MB ≤ 15 | 9 | met |",
            "| file | nobody | seconds ≤ 15.0 | – | **not met** |",
            "| | seconds | memory, MB | ratio |",
            "|---|---:|---:|---:|",
            "| ours | 3.0 (2.0–4.0) | 9 | 1.00 |",
            r"| cat \| theirs | 6.0 | 1,200 | 2.00 |",
            "- **ours**: durable",
            "`cargo xtask bench --only file`, 2026-01-02, commit 0123, a machine.",
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} is not in\n{text}");
        }
    }

    #[test]
    fn a_run_replaces_only_its_own_suites() {
        let names = ["a", "b", "c"];
        let mut report = Report::default();
        for name in ["c", "a", "b"] {
            report.put(measured(name), &names);
        }
        let mut newer = measured("b");
        newer.setting.commit = "4567".to_string();
        report.put(newer, &names);
        let found: Vec<_> = report
            .suites
            .iter()
            .map(|measured| (measured.suite.name.as_str(), measured.setting.commit.as_str()))
            .collect();
        assert_eq!(found, [("a", "0123"), ("b", "4567"), ("c", "0123")]);
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }
}
