//! The audits of many daemons as one: what was said to daemons themselves is in their own audits only. Each is asked by itself; one
//! that is silent is named, and the others are shown.

use std::{cell::RefCell, collections::BTreeMap, path::Path};

use bus_schema::{
    api::{Failure, FailureKind},
    audit::{AuditEntry, AuditHead, AuditWish},
    id::NodeId,
};
use serde::Serialize;

use super::{Check, Counts, HEADS, Keeper, Line, Verified, broken, cells, remember, remembered};
use crate::{
    answer::Answer,
    arguments::Output,
    client::{CliError, Client},
    many::{self, Ended, Outcome, Said, Where},
    render::table,
};

/// What is asked of one of them.
fn keeper<'a>(client: &'a Client, daemon: &str, node: &NodeId) -> Keeper<'a> {
    Keeper {
        client,
        daemon: Some((daemon.to_string(), *node)),
    }
}

/// An entry, and whose.
#[derive(Debug, Serialize)]
struct Entry {
    daemon: String,
    #[serde(flatten)]
    entry: AuditEntry,
}

/// The newest entries of all of them by their clocks, the newest last.
pub async fn list(
    client: &Client,
    output: Output,
    selector: String,
    wish: &AuditWish,
    most: usize,
) -> Result<(), CliError> {
    let ask = async |daemon: &str, node: &NodeId| {
        let found = keeper(client, daemon, node).newest(wish.clone(), most).await?;
        Ok(Said::Done(Found { entries: found }))
    };
    let mut all = many::each(client, Where::Selector(selector), None, None, ask).await?;
    let entries = merged(&mut all, most);
    let names = entries.iter().map(|one| format!("{}/{}", one.daemon, one.entry.number));
    let row = |one: &Entry| [vec![one.daemon.clone()], cells(&one.entry)].concat();
    let rows: Vec<_> = entries.iter().map(row).collect();
    let heads = [
        "daemon",
        "number",
        "when (UTC)",
        "who",
        "from",
        "did",
        "what",
        "outcome",
        "cause",
    ];
    Answer::new(&entries, names, table(&heads, &rows)).print(output);
    concluded(&all)
}

/// What one of them has.
#[derive(Debug, Default, Serialize)]
struct Found {
    entries: Vec<AuditEntry>,
}

fn merged(all: &mut [Ended<Found>], most: usize) -> Vec<Entry> {
    let of = |one: &mut Ended<Found>| {
        let (daemon, entries) = (one.daemon.clone(), std::mem::take(&mut one.gave.entries));
        entries.into_iter().map(move |entry| Entry {
            daemon: daemon.clone(),
            entry,
        })
    };
    let mut entries: Vec<Entry> = all.iter_mut().flat_map(of).collect();
    entries.sort_by(|a, b| {
        let key = |one: &Entry| (one.entry.event.at_unix_ms, one.entry.number);
        key(a).cmp(&key(b)).then_with(|| a.daemon.cmp(&b.daemon))
    });
    let surplus = entries.len().saturating_sub(most);
    entries.drain(..surplus);
    entries
}

/// How often somebody did something, and on how many of them.
#[derive(Debug, Serialize)]
struct Sum {
    #[serde(flatten)]
    line: Line,
    daemons: usize,
}

/// Who did how much of what on all of them together.
pub async fn report(client: &Client, output: Output, selector: String, since_unix_ms: i64) -> Result<(), CliError> {
    let sums = RefCell::new(Sums::default());
    let ask = async |daemon: &str, node: &NodeId| {
        let mut counts = Counts::default();
        let take = |_: &AuditHead, entry: &AuditEntry| {
            counts.since(since_unix_ms, entry);
            Ok(())
        };
        keeper(client, daemon, node).each(take).await?;
        sums.borrow_mut().add(counts);
        Ok(Said::Done(()))
    };
    let all = many::each(client, Where::Selector(selector), None, None, ask).await?;
    let report = sums.into_inner().report();
    let row = |sum: &Sum| [super::counted(&sum.line), vec![sum.daemons.to_string()]].concat();
    let rows: Vec<_> = report.iter().map(row).collect();
    let heads = ["who", "did", "done", "refused", "failed", "last (UTC)", "daemons"];
    let names = report
        .iter()
        .map(|sum| format!("{}: {}", sum.line.who, sum.line.action));
    Answer::new(&report, names, table(&heads, &rows)).print(output);
    concluded(&all)
}

/// Counts of all, with how many have each.
#[derive(Default)]
struct Sums {
    counts: Counts,
    daemons: BTreeMap<(String, String), usize>,
}

impl Sums {
    fn add(&mut self, counts: Counts) {
        for key in counts.0.keys() {
            *self.daemons.entry(key.clone()).or_default() += 1;
        }
        self.counts.join(counts);
    }

    fn report(self) -> Vec<Sum> {
        let Self { counts, daemons } = self;
        let sum = |line: Line| {
            let key = (line.who.clone(), line.action.clone());
            let daemons = daemons.get(&key).copied().unwrap_or_default();
            Sum { line, daemons }
        };
        counts.report().into_iter().map(sum).collect()
    }
}

/// What was found about one chain.
#[derive(Debug, Default, Serialize)]
struct Chain {
    #[serde(flatten)]
    verified: Option<Verified>,
}

/// Recomputes the chain of each, and remembers where it ended.
pub async fn verify(client: &Client, dir: &Path, output: Output, selector: String) -> Result<(), CliError> {
    let path = dir.join(HEADS);
    let heads = RefCell::new(remembered(&path)?);
    let ill = RefCell::new(0_usize);
    let ask = async |daemon: &str, node: &NodeId| {
        let keeper = keeper(client, daemon, node);
        let mut check = Check::new(heads.borrow().get(&keeper.name()).cloned());
        let mut fault = None;
        let take = |cut: &AuditHead, entry: &AuditEntry| {
            check.take(cut, entry).map_err(|found| {
                let error = broken(&found);
                fault = Some(found);
                error
            })
        };
        let read = keeper.each(take).await;
        let found = match (fault, read) {
            (Some(fault), _) => Err(fault),
            (None, Err(error)) => return Err(error),
            (None, Ok((cut, head))) => check.end(cut, &head).map(|verified| (verified, head)),
        };
        Ok(match found {
            Ok((verified, head)) => {
                heads.borrow_mut().insert(keeper.name(), head);
                Said::Done(Chain {
                    verified: Some(verified),
                })
            }
            Err(fault) => {
                *ill.borrow_mut() += 1;
                Said::Failed(format!("the audit does not hold: {fault}"))
            }
        })
    };
    let all = many::each(client, Where::Selector(selector), None, None, ask).await?;
    many::print(output, &all, "chain", |chain: &Chain| {
        let said = chain.verified.as_ref().map(super::holds);
        said.unwrap_or_default()
    });
    remember(&path, &heads.into_inner())?;
    match ill.into_inner() {
        0 => concluded(&all),
        ill => Err(CliError::Refused(Failure {
            kind: FailureKind::Invalid,
            message: format!("the audits of {ill} of {} daemons do not hold", all.len()),
            hint: "compare them with exports from before: mycelial audit verify --file FILE".to_string(),
            problems: Vec::new(),
        })),
    }
}

/// Names those that did not answer, and fails when there is one: what is shown is not all.
fn concluded<T>(all: &[Ended<T>]) -> Result<(), CliError> {
    for one in all.iter().filter(|one| one.outcome != Outcome::Done) {
        eprintln!("{}: {}", one.daemon, one.cause);
    }
    many::concluded(all)
}

#[cfg(test)]
mod tests {
    use bus_schema::audit::AuditEvent;

    use super::*;

    fn entry(number: u64, at_unix_ms: i64, who: &str) -> AuditEntry {
        AuditEntry {
            number,
            event: AuditEvent::new(at_unix_ms, who, "bus", "pause", "orders"),
            hash: String::new(),
        }
    }

    #[test]
    fn entries_of_many_stand_in_the_order_of_their_clocks() {
        let ended = |daemon: &str, entries| Ended {
            daemon: daemon.to_string(),
            outcome: Outcome::Done,
            gave: Found { entries },
            cause: String::new(),
        };
        let mut all = vec![
            ended("a", vec![entry(1, 10, "ann"), entry(2, 30, "ann")]),
            ended("b", vec![entry(7, 20, "bob"), entry(8, 40, "bob")]),
        ];
        let shown: Vec<_> = merged(&mut all, 3)
            .iter()
            .map(|one| (one.daemon.clone(), one.entry.number))
            .collect();
        assert_eq!(
            shown,
            [("b".to_string(), 7), ("a".to_string(), 2), ("b".to_string(), 8)]
        );
        let data = serde_json::to_value(Entry {
            daemon: "a".into(),
            entry: entry(1, 10, "ann"),
        })
        .unwrap();
        assert_eq!((&data["daemon"], &data["number"]), (&"a".into(), &1.into()), "{data}");
    }

    #[test]
    fn counts_of_many_are_one_report() {
        let counts = |entries: &[AuditEntry]| {
            let mut counts = Counts::default();
            entries.iter().for_each(|entry| counts.since(15, entry));
            counts
        };
        let mut sums = Sums::default();
        sums.add(counts(&[entry(1, 10, "ann"), entry(2, 20, "ann"), entry(3, 20, "bob")]));
        sums.add(counts(&[entry(1, 30, "ann")]));
        let report = sums.report();
        let lines: Vec<_> = report
            .iter()
            .map(|sum| (sum.line.who.as_str(), sum.line.done, sum.line.last_unix_ms, sum.daemons))
            .collect();
        assert_eq!(lines, [("ann", 2, 30, 2), ("bob", 1, 20, 1)]);
    }
}
