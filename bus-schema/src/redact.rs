//! Columns whose values are not shown where records are, by their names: one rule for the command line and the web page. Never
//! on the wire.

use alloc::{format, string::String, vec::Vec};

/// Which columns, unless it is said otherwise.
pub const USUAL: [&str; 6] = [
    "*password*",
    "*passwd*",
    "*secret*",
    "*token*",
    "*api_key*",
    "authorization",
];
/// Most patterns.
pub const PATTERNS_MAX: usize = 64;

/// Names of columns, with `*` for anything at the beginning and at the end; upper and lower case are the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Redact(Vec<String>);

impl Redact {
    /// By these patterns; says what is wrong with one.
    pub fn new(patterns: &[String]) -> Result<Self, String> {
        if patterns.len() > PATTERNS_MAX {
            return Err(format!("there are more than {PATTERNS_MAX} patterns"));
        }
        let inner = |pattern: &String| pattern.trim_start_matches('*').trim_end_matches('*').contains('*');
        match patterns.iter().find(|pattern| pattern.is_empty() || inner(pattern)) {
            Some(wrong) => Err(format!(
                "'{wrong}' is no pattern: write a column's name, with * at its beginning or end for anything"
            )),
            None => Ok(Self(patterns.iter().map(|pattern| pattern.to_lowercase()).collect())),
        }
    }

    /// Whether the values of this column are not shown.
    pub fn hides(&self, column: &str) -> bool {
        let column = column.to_lowercase();
        self.0.iter().any(|pattern| {
            let (before, after) = (pattern.starts_with('*'), pattern.ends_with('*'));
            let word = pattern.trim_matches('*');
            match (before, after) {
                (true, true) => column.contains(word),
                (true, false) => column.ends_with(word),
                (false, true) => column.starts_with(word),
                (false, false) => column == word,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn which_columns_are_hidden() {
        let of = |patterns: &[&str]| Redact::new(&patterns.iter().map(ToString::to_string).collect::<Vec<_>>());
        let usual = of(&USUAL).unwrap();
        for (column, hidden) in [
            ("password", true),
            ("UserPassword2", true),
            ("token", true),
            ("Authorization", true),
            ("authorization_code", false),
            ("name", false),
            ("", false),
        ] {
            assert_eq!(usual.hides(column), hidden, "{column}");
        }
        let own = of(&["iban", "card_*", "*_ssn"]).unwrap();
        for (column, hidden) in [
            ("iban", true),
            ("iban2", false),
            ("card_no", true),
            ("a_ssn", true),
            ("ssn", false),
            ("password", false),
        ] {
            assert_eq!(own.hides(column), hidden, "{column}");
        }
        assert!(of(&["*"]).unwrap().hides("anything"), "all of them");
        assert!(of(&["a*b"]).unwrap_err().contains("'a*b' is no pattern"));
        assert!(of(&[""]).is_err());
    }
}
