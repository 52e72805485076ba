//! A suite: several ways to do the same job, run in turns. Knows nothing of any particular job.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::stats::{median, range};

/// What a column of the table shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metric {
    /// What it is called.
    pub name: String,
    /// Digits after the point.
    pub digits: usize,
}

/// A metric of this name and so many digits.
#[must_use]
pub fn metric(name: &str, digits: usize) -> Metric {
    Metric {
        name: name.to_string(),
        digits,
    }
}

/// What the project promises about an entry of a suite.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Goal {
    /// The entry's name.
    pub entry: String,
    /// The metric's name.
    pub metric: String,
    /// What the median must be.
    pub bound: Bound,
}

/// A goal of an entry.
#[must_use]
pub fn goal(entry: &str, metric: &str, bound: Bound) -> Goal {
    Goal {
        entry: entry.to_string(),
        metric: metric.to_string(),
        bound,
    }
}

/// On which side of a goal is good.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// At most this.
    AtMost(f64),
    /// At least this.
    AtLeast(f64),
}

impl Bound {
    /// Whether a value is good. NaN never is.
    #[must_use]
    pub fn is_met(self, value: f64) -> bool {
        match self {
            Bound::AtMost(bound) => value <= bound,
            Bound::AtLeast(bound) => value >= bound,
        }
    }
}

/// One way to do the job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name, with the peer's version where it has one.
    pub name: String,
    /// What it promises, and what it cannot do of the job.
    pub note: String,
    /// The metrics of every counted run. JSON has no NaN: what could not be measured is `null` there.
    pub runs: Vec<Vec<Option<f64>>>,
}

/// Where, when and of what a suite was measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Processor, cores, memory, kernel.
    pub machine: String,
    /// The commit of the sources, with a mark when they had been changed.
    pub commit: String,
    /// The day, in UTC.
    pub day: String,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Suite {
    /// What `--only` calls it.
    pub name: String,
    /// Its heading.
    pub title: String,
    /// What the job is and how it is counted, as Markdown.
    pub about: String,
    /// The columns.
    pub metrics: Vec<Metric>,
    /// The rows. Ratios are to the first.
    pub entries: Vec<Entry>,
    /// What the project wants to hold.
    pub goals: Vec<Goal>,
}

impl Suite {
    /// The median of a metric of an entry; NaN when there is no such.
    #[must_use]
    pub fn median(&self, entry: &str, metric: &str) -> f64 {
        let column = self.metrics.iter().position(|known| known.name == metric);
        let entry = self.entries.iter().find(|known| known.name == entry);
        match (entry, column) {
            (Some(entry), Some(column)) => median(&entry.column(column)),
            _ => f64::NAN,
        }
    }
}

impl Entry {
    /// What was measured of a column, over all runs.
    #[must_use]
    pub fn column(&self, at: usize) -> Vec<f64> {
        self.runs
            .iter()
            .filter_map(|run| run.get(at).copied().flatten())
            .collect()
    }
}

/// Somebody who does the job.
pub struct Contestant<'a> {
    name: String,
    note: String,
    run: Box<dyn FnMut() -> Result<Vec<f64>> + 'a>,
}

impl<'a> Contestant<'a> {
    /// `run` does the whole job once and returns the suite's metrics in their order. It fails when the destination has
    /// not what it should.
    pub fn new(name: impl Into<String>, note: impl Into<String>, run: impl FnMut() -> Result<Vec<f64>> + 'a) -> Self {
        Self {
            name: name.into(),
            note: note.into(),
            run: Box::new(run),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// How often everybody runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rounds {
    /// Rounds before anything counts.
    pub warm_up: usize,
    /// Rounds that count.
    pub counted: usize,
}

/// Runs everybody in turns, and the turns in another order each round, so that what changes on the machine meanwhile
/// falls on all alike.
pub fn in_turns(metrics: &[Metric], rounds: Rounds, mut contestants: Vec<Contestant<'_>>) -> Result<Vec<Entry>> {
    let mut entries: Vec<Entry> = contestants
        .iter()
        .map(|contestant| Entry {
            name: contestant.name.clone(),
            note: contestant.note.clone(),
            runs: Vec::new(),
        })
        .collect();
    let count = contestants.len();
    for round in 0..rounds.warm_up + rounds.counted {
        for turn in 0..count {
            let at = (turn + round) % count;
            let name = &contestants[at].name;
            let is_warm_up = round < rounds.warm_up;
            eprint!("  {name}{} … ", if is_warm_up { ", warming up" } else { "" });
            let what = format!("{name}, round {}", round + 1);
            let values = (contestants[at].run)().with_context(|| what.clone())?;
            anyhow::ensure!(
                values.len() == metrics.len(),
                "{what}: {} metrics of {}",
                values.len(),
                metrics.len()
            );
            eprintln!("{}", said(metrics, &values));
            if !is_warm_up {
                entries[at]
                    .runs
                    .push(values.iter().map(|value| value.is_finite().then_some(*value)).collect());
            }
        }
    }
    Ok(entries)
}

fn said(metrics: &[Metric], values: &[f64]) -> String {
    let one = |(metric, value): (&Metric, &f64)| format!("{} {}", metric.name, number(*value, metric.digits));
    metrics.iter().zip(values).map(one).collect::<Vec<_>>().join(", ")
}

/// A number with its thousands set apart; a dash for what could not be measured.
#[must_use]
pub fn number(value: f64, digits: usize) -> String {
    if !value.is_finite() {
        return "–".to_string();
    }
    let text = format!("{:.digits$}", value.abs());
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut out = String::from(if value < 0.0 { "-" } else { "" });
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out + rest
}

/// Median and range of a column.
#[must_use]
pub fn cell(values: &[f64], digits: usize) -> String {
    let (low, high) = range(values);
    let middle = number(median(values), digits);
    if values.len() < 2 || number(low, digits) == number(high, digits) {
        return middle;
    }
    format!("{middle} ({}–{})", number(low, digits), number(high, digits))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn numbers() {
        for (value, digits, expected) in [
            (0.0, 0, "0"),
            (999.0, 0, "999"),
            (1000.0, 0, "1,000"),
            (1_234_567.891, 1, "1,234,567.9"),
            (-12_345.0, 0, "-12,345"),
            (0.05, 2, "0.05"),
            (f64::NAN, 1, "–"),
        ] {
            assert_eq!(number(value, digits), expected);
        }
    }

    #[test]
    fn cells() {
        assert_eq!(cell(&[2.0], 1), "2.0");
        assert_eq!(cell(&[2.0, 2.01, 2.0], 1), "2.0");
        assert_eq!(cell(&[2.0, 4.0, 3.0], 1), "3.0 (2.0–4.0)");
        assert_eq!(cell(&[], 1), "–");
    }

    #[test]
    fn bounds() {
        assert!(Bound::AtMost(2.0).is_met(2.0) && !Bound::AtMost(2.0).is_met(2.1));
        assert!(Bound::AtLeast(2.0).is_met(2.0) && !Bound::AtLeast(2.0).is_met(1.9));
        assert!(!Bound::AtMost(2.0).is_met(f64::NAN) && !Bound::AtLeast(2.0).is_met(f64::NAN));
    }

    #[test]
    fn everybody_has_every_turn() {
        let order = RefCell::new(String::new());
        let metrics = [metric("seconds", 1)];
        let runs = |name: &'static str, value: f64| {
            let order = &order;
            Contestant::new(name, "", move || {
                order.borrow_mut().push_str(name);
                Ok(vec![value])
            })
        };
        let rounds = Rounds { warm_up: 1, counted: 2 };
        let entries = in_turns(&metrics, rounds, vec![runs("a", 1.0), runs("b", 2.0), runs("c", 3.0)]).unwrap();
        assert_eq!(order.into_inner(), "abcbcacab");
        let columns: Vec<Vec<f64>> = entries.iter().map(|entry| entry.column(0)).collect();
        assert_eq!(columns, [vec![1.0, 1.0], vec![2.0, 2.0], vec![3.0, 3.0]]);
    }

    #[test]
    fn a_failed_run_fails_all() {
        let failing = Contestant::new("peer", "", || anyhow::bail!("lost a row"));
        let rounds = Rounds { warm_up: 0, counted: 1 };
        let error = in_turns(&[metric("s", 1)], rounds, vec![failing]).unwrap_err();
        assert_eq!(format!("{error:#}"), "peer, round 1: lost a row");
    }
}
