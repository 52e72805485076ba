//! Strict settings files: TOML in which every mistake names the file, the line, the key and the nearest right key.

use std::{fmt, path::Path};

use serde::de::DeserializeOwned;

/// A settings file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct SettingsError {
    /// The file.
    pub file: String,
    /// Line, from 1; 0 when the file as a whole is meant.
    pub line: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it; may be empty.
    pub hint: String,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": {}", self.message)?;
        if !self.hint.is_empty() {
            write!(f, "\n  hint: {}", self.hint)?;
        }
        Ok(())
    }
}

/// Reads a settings file.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, SettingsError> {
    let file = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&file, &text),
        Err(error) => Err(SettingsError {
            file,
            line: 0,
            message: format!("cannot read the file: {error}"),
            hint: String::new(),
        }),
    }
}

/// Reads settings from a text; `file` is only for messages.
pub fn parse<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, SettingsError> {
    toml::from_str(text).map_err(|error| {
        let line = error
            .span()
            .map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        let message = error.message().lines().collect::<Vec<_>>().join("; ");
        let hint = hint(&message);
        SettingsError {
            file: file.to_string(),
            line,
            message,
            hint,
        }
    })
}

/// serde lists what it would have taken; name the closest.
fn hint(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let Some(wrong) = quoted.next() else {
        return String::new();
    };
    if !(message.starts_with("unknown field") || message.starts_with("unknown variant")) {
        return String::new();
    }
    match nearest(wrong, quoted) {
        Some(right) => format!("did you mean `{right}`?"),
        None => String::new(),
    }
}

/// The candidate closest to `wrong`, if any is close enough to be meant.
pub fn nearest<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let close = |candidate: &'a str| {
        let distance = edits(wrong, candidate);
        (distance <= candidate.len().max(wrong.len()).div_ceil(3)).then_some((distance, candidate))
    };
    candidates
        .into_iter()
        .filter_map(close)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance, ignoring case (Wagner and Fischer, 1974).
fn edits(a: &str, b: &str) -> usize {
    let (a, b) = (a.to_lowercase(), b.to_lowercase());
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only read by Debug and the parser")]
    struct Settings {
        name: String,
        #[serde(default)]
        retries: u8,
        #[serde(default)]
        log: Log,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only read by Debug and the parser")]
    struct Log {
        level: Option<String>,
    }

    #[test]
    fn a_mistake_names_its_place_and_the_nearest_key() {
        for (text, line, message, hint) in [
            (
                "name = 'a'\nretrys = 1",
                2,
                "unknown field `retrys`",
                "did you mean `retries`?",
            ),
            (
                "name = 'a'\n\n[log]\nlevle = 'x'",
                4,
                "unknown field `levle`",
                "did you mean `level`?",
            ),
            ("name = 'a'\nretries = 300", 2, "u8", ""),
            ("retries = 3", 1, "missing field `name`", ""),
            ("name = ", 1, "", ""),
            ("name = 'a'\nzzzzzzzzz = 1", 2, "unknown field", ""),
        ] {
            let error = parse::<Settings>("c.toml", text).unwrap_err();
            assert_eq!((error.line, error.hint.as_str()), (line, hint), "{text}: {error}");
            assert!(error.message.contains(message), "{error}");
            assert!(error.to_string().starts_with(&format!("c.toml:{line}: ")), "{error}");
        }
        assert!(parse::<Settings>("c.toml", "name = 'a'").is_ok());
    }

    #[test]
    fn edits_count() {
        for (a, b, distance) in [("", "abc", 3), ("kitten", "sitting", 3), ("same", "Same", 0)] {
            assert_eq!(edits(a, b), distance);
        }
    }
}
