//! Every dependency's licence against the list of those we may ship. Reads what the crates declare, not their texts.

use super::Report;
use crate::metadata::Metadata;

/// Licences that ask for no more than attribution, or, in the case of MPL-2.0, for changes to its own files.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "Unlicense",
    "Zlib",
];

/// Permissions on top of a licence. They take nothing away.
const ALLOWED_EXCEPTIONS: &[&str] = &["LLVM-exception"];

/// Checks every package of the dependency graph, the tools' and tests' included.
pub fn check(metadata: &Metadata) -> Report {
    let mut findings: Vec<String> = metadata
        .packages
        .iter()
        .filter_map(|package| {
            let name = format!("{} {}", package.name, package.version);
            let Some(licence) = &package.license else {
                return Some(format!("{name} declares no licence"));
            };
            match is_allowed(licence) {
                Ok(true) => None,
                Ok(false) => Some(format!("{name} is licensed as `{licence}`, which is not on the list")),
                Err(e) => Some(format!("{name} is licensed as `{licence}`: {e}")),
            }
        })
        .collect();
    findings.sort();
    Report {
        findings,
        note: Some(format!("{} crates", metadata.packages.len())),
    }
}

/// Whether an SPDX expression leaves us a choice that is on the list. `/` is the old way to write `OR`.
fn is_allowed(expression: &str) -> Result<bool, String> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut parser = Parser {
        words: spaced.split_whitespace().peekable(),
    };
    let allowed = parser.any_of()?;
    match parser.words.next() {
        None => Ok(allowed),
        Some(word) => Err(format!("`{word}` was not expected there")),
    }
}

/// `OR` binds weaker than `AND`, and `AND` weaker than `WITH`.
struct Parser<'e, I: Iterator<Item = &'e str>> {
    words: std::iter::Peekable<I>,
}

impl<'e, I: Iterator<Item = &'e str>> Parser<'e, I> {
    fn any_of(&mut self) -> Result<bool, String> {
        let mut allowed = self.all_of()?;
        while self.words.next_if_eq(&"OR").is_some() {
            allowed |= self.all_of()?;
        }
        Ok(allowed)
    }

    fn all_of(&mut self) -> Result<bool, String> {
        let mut allowed = self.one()?;
        while self.words.next_if_eq(&"AND").is_some() {
            allowed &= self.one()?;
        }
        Ok(allowed)
    }

    fn one(&mut self) -> Result<bool, String> {
        match self.words.next() {
            None => Err("something is missing at the end".into()),
            Some("(") => {
                let allowed = self.any_of()?;
                if self.words.next() == Some(")") {
                    Ok(allowed)
                } else {
                    Err("a `)` is missing".into())
                }
            }
            Some(word @ ("OR" | "AND" | "WITH" | ")")) => Err(format!("`{word}` was not expected there")),
            Some(licence) => {
                // `+` is "or any later version": the stated one is among them.
                let allowed = ALLOWED.contains(&licence.trim_end_matches('+'));
                if self.words.next_if_eq(&"WITH").is_none() {
                    return Ok(allowed);
                }
                let exception = self.words.next().ok_or("an exception is missing after `WITH`")?;
                Ok(allowed && ALLOWED_EXCEPTIONS.contains(&exception))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        let cases: &[(&str, Option<bool>)] = &[
            ("MIT", Some(true)),
            ("MIT OR Apache-2.0", Some(true)),
            ("MIT/Apache-2.0", Some(true)),
            ("Apache-2.0 / MIT", Some(true)),
            ("MPL-2.0+", Some(true)),
            ("Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT", Some(true)),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", Some(true)),
            ("MIT OR Apache-2.0 OR LGPL-2.1-or-later", Some(true)),
            ("AGPL-3.0-only", Some(false)),
            ("GPL-3.0+", Some(false)),
            ("MIT AND GPL-2.0-only", Some(false)),
            ("GPL-2.0-only OR AGPL-3.0-only", Some(false)),
            ("(MIT OR GPL-2.0-only) AND LGPL-3.0-only", Some(false)),
            // AND binds tighter: MIT alone is a choice.
            ("MIT OR Apache-2.0 AND GPL-2.0-only", Some(true)),
            ("GPL-2.0-only WITH Classpath-exception-2.0", Some(false)),
            ("MIT WITH Something-else", Some(false)),
            ("mit", Some(false)),
            ("", None),
            ("MIT OR", None),
            ("(MIT", None),
            ("MIT)", None),
            ("MIT Apache-2.0", None),
            ("MIT WITH", None),
            ("OR MIT", None),
        ];
        for (expression, want) in cases {
            assert_eq!(is_allowed(expression).ok(), *want, "{expression}");
        }
    }
}
