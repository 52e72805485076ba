//! What a soak found, for people, for machines and for the document. Measures nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Bus, Victim};
use crate::oracle::Verdict;

/// What came of a soak.
#[derive(Debug, Clone)]
pub struct Report {
    /// Over which broker.
    pub bus: Bus,
    /// What all that was random followed from.
    pub seed: u64,
    /// How often each was killed.
    pub kills: BTreeMap<&'static str, u64>,
    /// How often what else went wrong.
    pub faults: BTreeMap<&'static str, u64>,
    /// Rows produced.
    pub rows: u64,
    /// Bytes of their values.
    pub payload_bytes: u64,
    /// How long it took, without the settling, in seconds.
    pub seconds: u64,
    /// One per destination.
    pub verdicts: Vec<Verdict>,
    /// What else is wrong: books, a program that ended by itself, a destination that never got everything.
    pub accusations: Vec<String>,
    /// The producing daemon, over all its lives.
    pub gateway: Usage,
    /// The consuming daemon, over all its lives.
    pub hub: Usage,
}

/// What a daemon took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Peak resident memory of any life, KiB.
    pub rss_peak_kb: u64,
    /// Bytes written to disk by all lives.
    pub written_bytes: u64,
}

impl Report {
    /// Whether nothing is lost, doubled, altered, invented or disordered, and the books balance.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.accusations.is_empty() && !self.verdicts.is_empty() && self.verdicts.iter().all(Verdict::is_clean)
    }

    fn kills_total(&self) -> u64 {
        self.kills.values().sum()
    }

    /// Over all destinations, by kind.
    fn offences(&self) -> [u64; 5] {
        let mut sums = [0; 5];
        for verdict in &self.verdicts {
            for (sum, (_, offence)) in sums.iter_mut().zip(verdict.offences()) {
                *sum += offence.count;
            }
        }
        sums
    }

    /// Bytes the gateway and the hub wrote for each byte delivered to a destination.
    fn written_per_byte(&self) -> (f64, f64) {
        let delivered = (self.payload_bytes * self.verdicts.len() as u64).max(1) as f64;
        (
            self.gateway.written_bytes as f64 / delivered,
            self.hub.written_bytes as f64 / delivered,
        )
    }

    /// The table's head.
    pub const HEAD: &str = "\
| broker | kills: gateway, hub, plane, broker, database | other faults | rows | lost | doubled | altered | invented | out of order \
| books | peak memory: gateway, hub (MB) | written per byte delivered: gateway, hub | seed |
|---|---|---|---|---|---|---|---|---|---|---|---|---|";

    /// One row of the table.
    #[must_use]
    pub fn row(&self) -> String {
        let by_victim = Victim::ALL.map(|victim| self.kills.get(victim.name()).copied().unwrap_or(0).to_string());
        let [lost, doubled, altered, invented, disordered] = self.offences();
        let books = if self.accusations.is_empty() {
            "balance"
        } else {
            "**do not balance**"
        };
        let megabytes = |usage: Usage| usage.rss_peak_kb as f64 * 1024.0 / 1e6;
        let (gateway, hub) = self.written_per_byte();
        format!(
            "| {} | {}: {} | {} | {} | {lost} | {doubled} | {altered} | {invented} | {disordered} | {books} \
             | {:.1}, {:.1} | {gateway:.1}, {hub:.1} | {} |",
            self.bus.name(),
            self.kills_total(),
            by_victim.join(", "),
            self.faults.values().sum::<u64>(),
            self.rows,
            megabytes(self.gateway),
            megabytes(self.hub),
            self.seed,
        )
    }

    /// All there is to accuse anybody of, a line each. Empty when there is nothing.
    #[must_use]
    pub fn accusation(&self) -> String {
        let mut text = String::new();
        for verdict in self.verdicts.iter().filter(|verdict| !verdict.is_clean()) {
            let _ = writeln!(text, "  {verdict}");
        }
        for accusation in &self.accusations {
            let _ = writeln!(text, "  {accusation}");
        }
        text
    }

    /// For machines.
    #[must_use]
    pub fn json(&self) -> Value {
        let usage = |usage: Usage| json!({ "rss_peak_kb": usage.rss_peak_kb, "written_bytes": usage.written_bytes });
        let verdict = |verdict: &Verdict| {
            let offences = verdict.offences();
            let counts = offences.map(|(kind, offence)| (kind.to_string(), json!(offence.count)));
            let mut object: serde_json::Map<String, Value> = counts.into_iter().collect();
            object.insert("place".into(), json!(verdict.place));
            object.insert("found".into(), json!(verdict.found));
            Value::Object(object)
        };
        json!({
            "bus": self.bus.name(), "seed": self.seed, "seconds": self.seconds, "clean": self.is_clean(),
            "kills": self.kills, "faults": self.faults, "rows": self.rows, "payload_bytes": self.payload_bytes,
            "destinations": self.verdicts.iter().map(verdict).collect::<Vec<_>>(),
            "accusations": self.accusations, "gateway": usage(self.gateway), "hub": usage(self.hub),
        })
    }
}

/// Where the table begins and ends in the document.
const MARKS: (&str, &str) = ("<!-- soak: begin -->", "<!-- soak: end -->");

/// Puts a text between the marks of a document; `None` when it has none.
#[must_use]
pub fn between_marks(document: &str, text: &str) -> Option<String> {
    let begin = document.find(MARKS.0)? + MARKS.0.len();
    let end = begin + document[begin..].find(MARKS.1)?;
    Some(format!(
        "{}\n{}\n{}",
        &document[..begin],
        text.trim_end(),
        &document[end..]
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::Offence;

    fn report() -> Report {
        let verdict = |place: &str| Verdict {
            place: place.to_string(),
            produced: 10,
            found: 10,
            ..Verdict::default()
        };
        Report {
            bus: Bus::Nats,
            seed: 7,
            kills: [("hub", 3), ("plane", 1)].into(),
            faults: [("cut", 2)].into(),
            rows: 10,
            payload_bytes: 1_000,
            seconds: 60,
            verdicts: vec![verdict("a"), verdict("b")],
            accusations: Vec::new(),
            gateway: Usage {
                rss_peak_kb: 10_000,
                written_bytes: 5_000,
            },
            hub: Usage::default(),
        }
    }

    #[test]
    fn a_row() {
        let row = report().row();
        assert_eq!(
            row,
            "| nats | 4: 0, 3, 1, 0, 0 | 2 | 10 | 0 | 0 | 0 | 0 | 0 | balance | 10.2, 0.0 | 2.5, 0.0 | 7 |"
        );
        let columns = |line: &str| line.matches('|').count();
        assert!(Report::HEAD.lines().all(|line| columns(line) == columns(&row)));
    }

    #[test]
    fn guilt_is_told() {
        assert!(report().is_clean());
        let mut lost = report();
        lost.verdicts[1].lost = Offence {
            count: 2,
            first: vec!["id 3".to_string()],
        };
        assert!(!lost.is_clean());
        assert!(lost.row().contains("| 2 | 0 | 0 | 0 | 0 |"), "{}", lost.row());
        assert!(lost.accusation().contains("2 lost (id 3)"));
        assert_eq!(lost.json()["destinations"][1]["lost"], 2);
        let mut books = report();
        books.accusations.push("copy: 1 counted twice".to_string());
        assert!(!books.is_clean() && books.row().contains("do not balance"));
        let mut nothing = report();
        nothing.verdicts.clear();
        assert!(!nothing.is_clean(), "without a verdict nobody is acquitted");
    }

    #[test]
    fn a_document_keeps_what_is_around_the_table() {
        let document = "before\n<!-- soak: begin -->\nold\n<!-- soak: end -->\nafter\n";
        let changed = between_marks(document, "new\n").unwrap();
        assert_eq!(
            changed,
            "before\n<!-- soak: begin -->\nnew\n<!-- soak: end -->\nafter\n"
        );
        assert_eq!(between_marks(&changed, "new").unwrap(), changed);
        assert_eq!(between_marks("no marks", "new"), None);
    }
}
