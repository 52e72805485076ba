//! What `docs/TROUBLESHOOTING.md` quotes, the programs really say. Knows the first column of its tables and string literals;
//! nothing of Rust's grammar.

use anyhow::Result;

use super::{Report, files};
use crate::cmd;

const PAGE: &str = "docs/TROUBLESHOOTING.md";
/// Stands for what differs from one time to another.
const ELLIPSIS: char = '…';

/// Every message quoted on the page is somewhere in the sources.
pub fn check() -> Result<Report> {
    let mut sources = String::new();
    for path in files::files()?.iter().filter(|path| path.ends_with(".rs")) {
        sources.push_str(&unwrapped(&read(path)?));
    }
    Ok(Report {
        findings: unsaid(&read(PAGE)?, &sources),
        note: None,
    })
}

fn read(path: &str) -> Result<String> {
    Ok(std::fs::read_to_string(cmd::root().join(path))?)
}

/// A literal that is continued on the next line, on one.
fn unwrapped(source: &str) -> String {
    let mut parts = source.split("\\\n");
    let first = parts.next().unwrap_or_default().to_string();
    parts.fold(first, |text, part| text + part.trim_start())
}

fn unsaid(page: &str, sources: &str) -> Vec<String> {
    let mut findings = Vec::new();
    for (number, line) in page.lines().enumerate() {
        let Some((message, _)) = line.strip_prefix("| `").and_then(|rest| rest.split_once("` |")) else {
            continue;
        };
        let message = message.replace("\\`", "`");
        for part in message.split(ELLIPSIS).map(str::trim).filter(|part| !part.is_empty()) {
            if !sources.contains(part) {
                findings.push(format!("{PAGE}:{}: no program says `{part}`", number + 1));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_says_is_found() {
        let sources = unwrapped("warn!(\"the disk is \\\n        full: {cause}\")");
        for (page, wanted) in [
            ("| `the disk is full` | x |", 0),
            ("| `the disk … full: …` | x |", 0),
            ("| `the disk is empty` | x |", 1),
            ("| something else | `the disk is empty` |", 0),
            ("the disk is empty", 0),
        ] {
            assert_eq!(unsaid(page, &sources).len(), wanted, "{page}");
        }
    }
}
