//! `docs/TYPES.md` as text. Knows outcomes, no destination.

use std::{env, fmt::Write as _, fs, path::Path};

use crate::names::Line;

const PAGE: &str = "../../docs/TYPES.md";
const HEAD: &str = "# What becomes of every type

Written by the test that proves it (`edge-daemon/connectors/tests/types`): each value goes through the real destination into
the real server, and something that is not Mycelial's reads it back. `UPDATE=1 cargo test -p connectors --test types` writes
this page, and the test fails while it says anything else.

- `yes` and a type: read back, it is the same value, kept as what is named there. Bytes and identifiers that are text are
  hexadecimal, times are ISO 8601.
- **Bold**: converted. The program logs it, once per column, or (where a format has no such thing at all) the destination's
  reference says so.
- `no` and a number: the record went to the dead letters, with the reason below. Its neighbours passed.

The tables are created by the destination. What existing tables of other types take is in the reference of each destination:
what fits exactly, and nothing else. Objects (`s3`), messages (`mqtt`, `nats`), `exec` and `stdout` have the same JSON and CSV.
";

/// What became of a value.
pub enum Outcome {
    /// It is there, as this.
    Exact(String),
    /// Something is left of it that was told, as this.
    Converted(&'static str, String),
    /// The record was rejected.
    Rejected(String),
    /// No column yet: nothing tells its type.
    NoColumn,
    /// In words.
    Said(&'static str),
}

/// The reasons of rejections, numbered as they come.
#[derive(Default)]
struct Reasons(Vec<String>);

impl Reasons {
    fn number(&mut self, reason: &str) -> usize {
        let reason = one_line(reason);
        let known = self.0.iter().position(|known| *known == reason);
        known.unwrap_or_else(|| {
            self.0.push(reason);
            self.0.len() - 1
        }) + 1
    }

    fn cell(&mut self, outcome: &Outcome) -> String {
        match outcome {
            Outcome::Exact(kind) => format!("yes, `{kind}`"),
            Outcome::Converted(what, kind) => format!("**{what}**, `{kind}`"),
            Outcome::Rejected(reason) => format!("no ({})", self.number(reason)),
            Outcome::NoColumn => "no column yet".to_string(),
            Outcome::Said(words) => (*words).to_string(),
        }
    }
}

/// A reason without what only this run has: it stands in a list, shortened.
fn one_line(reason: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 160;
    let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    match reason.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &reason[..end]),
        None => reason,
    }
}

fn table(
    text: &mut String,
    first: &[&str],
    heads: &[&str],
    lines: &[(Vec<String>, &[Outcome])],
    reasons: &mut Reasons,
) {
    let _ = writeln!(text, "| {} | {} |", first.join(" | "), heads.join(" | "));
    let _ = writeln!(text, "|{}", "---|".repeat(first.len() + heads.len()));
    for (names, outcomes) in lines {
        let cells: Vec<String> = outcomes.iter().map(|outcome| reasons.cell(outcome)).collect();
        let _ = writeln!(text, "| {} | {} |", names.join(" | "), cells.join(" | "));
    }
}

fn rows(lines: &[Line]) -> Vec<(Vec<String>, &[Outcome])> {
    lines
        .iter()
        .map(|(name, outcomes)| (vec![name.clone()], &outcomes[..]))
        .collect()
}

/// The page.
pub fn text(heads: &[&str], types: &[(String, &str, Vec<Outcome>)], absent: &[Line], named: &[Line]) -> String {
    let (mut text, mut reasons) = (HEAD.to_string(), Reasons::default());
    let mut before = "";
    let values: Vec<_> = types
        .iter()
        .map(|(ty, what, outcomes)| {
            let shown = if ty == before { String::new() } else { format!("`{ty}`") };
            before = ty;
            (vec![shown, (*what).to_string()], &outcomes[..])
        })
        .collect();
    text.push_str("\n## Values\n\n");
    table(&mut text, &["type", "value"], heads, &values, &mut reasons);
    text.push_str("\n## Null, missing, unchanged\n\nFiles were written with `op_column`.\n\n");
    table(&mut text, &["the record"], heads, &rows(absent), &mut reasons);
    text.push_str("\n## Names\n\n");
    table(&mut text, &["the name"], heads, &rows(named), &mut reasons);
    text.push_str("\n## Reasons\n\n");
    for (at, reason) in reasons.0.iter().enumerate() {
        let _ = writeln!(text, "{}. {reason}", at + 1);
    }
    text
}

/// Compares the page with the file, or writes it.
pub fn check(text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    if env::var_os("UPDATE").is_some() {
        fs::write(&path, text).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    for (at, (is, was)) in text.lines().zip(committed.lines()).enumerate() {
        assert_eq!(is, was, "line {} of docs/TYPES.md: UPDATE=1 writes it", at + 1);
    }
    assert_eq!(
        text.lines().count(),
        committed.lines().count(),
        "docs/TYPES.md: UPDATE=1 writes it"
    );
}
