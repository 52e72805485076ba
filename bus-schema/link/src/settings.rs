//! Strict settings files: TOML in which every mistake names the file, the line, the key and the nearest right key.

use std::{fmt, path::Path};

use serde::de::DeserializeOwned;
use toml::de::DeTable;

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
    parse(&path.display().to_string(), &text(path)?)
}

/// The text of a settings file, whatever it says.
pub fn text(path: &Path) -> Result<String, SettingsError> {
    let wrong = |line, message: String, hint: &str| SettingsError {
        file: path.display().to_string(),
        line,
        message,
        hint: hint.to_string(),
    };
    let bytes = std::fs::read(path).map_err(|error| wrong(0, format!("cannot read the file: {error}"), ""))?;
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = line_at(good, good.len());
        wrong(line, "the file is not UTF-8 text".to_string(), "save it as UTF-8")
    })
}

/// Reads settings from a text; `file` is only for messages.
pub fn parse<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, SettingsError> {
    toml::from_str(text).map_err(|error| {
        let start = error.span().map(|span| span.start.min(text.len()));
        let said = in_words(error.message());
        let hint = hint(&said);
        let message = match start.and_then(|start| key_before(text, start)) {
            Some(key) if said.starts_with("invalid") || said.starts_with("unknown variant") => format!("{key}: {said}"),
            _ => said,
        };
        SettingsError {
            file: file.to_string(),
            line: start.map_or(0, |start| line_at(text.as_bytes(), start)),
            message,
            hint,
        }
    })
}

/// A mistake that shows only when the settings are looked at as a whole. The message begins with the dotted key it is
/// about: `bus.addresses: …`; its line is looked up in `text`.
pub fn mistake(file: &str, text: &str, message: String, hint: &str) -> SettingsError {
    let key = message.split([':', ' ']).next().unwrap_or_default();
    SettingsError {
        file: file.to_string(),
        line: line_of(text, key),
        message,
        hint: hint.to_string(),
    }
}

fn line_at(text: &[u8], at: usize) -> usize {
    text[..at].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// The line of the innermost part of a dotted key that the text has; 0 without any.
fn line_of(text: &str, key: &str) -> usize {
    let Ok(table) = DeTable::parse(text) else { return 0 };
    let mut table = Some(table.get_ref());
    let mut line = 0;
    for part in key.split('.') {
        let Some((key, value)) = table.and_then(|table| table.get_key_value(part)) else {
            break;
        };
        line = line_at(text.as_bytes(), key.span().start.min(text.len()));
        table = value.get_ref().as_table();
    }
    line
}

/// The dotted key whose value stands at `start`; `None` when the line does not tell.
fn key_before(text: &str, start: usize) -> Option<String> {
    let (above, line) = text[..start].rsplit_once('\n').unwrap_or(("", &text[..start]));
    let key = line.split_once('=')?.0.trim();
    let sections = above.lines().rev().filter_map(|line| line.trim().strip_prefix('['));
    // One of several such sections stands in two pairs of brackets.
    let section = sections
        .filter_map(|rest| rest.trim_start_matches('[').split(']').next())
        .next();
    Some(section.map_or(key.to_string(), |section| format!("{section}.{key}")))
}

/// serde's words about Rust's types as words about TOML.
fn in_words(message: &str) -> String {
    let message = message.lines().collect::<Vec<_>>().join("; ");
    let message = message
        .replace("expected a sequence", "expected a list")
        .replace("expected path string", "expected a path");
    match message.split_once("expected struct ") {
        Some((before, _)) => format!("{before}expected a section of keys"),
        None => message,
    }
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

/// What a log level may be called.
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// Checks a log level or filter such as `info,spool=debug`: a bare word that is no level would be taken for the name of a
/// module, and silence all others.
pub fn check_level(level: &str) -> Result<(), String> {
    // What is said of one module is a level as well.
    let mut words = level.split(',').map(|word| match word.split_once('=') {
        Some((module, _)) if module.trim().is_empty() => word,
        Some((_, level)) => level.trim(),
        None => word.trim(),
    });
    match words.find(|word| !LEVELS.contains(&word.to_lowercase().as_str())) {
        None => Ok(()),
        Some(wrong) => Err(match nearest(wrong, LEVELS) {
            Some(near) => format!("'{wrong}' is no level; did you mean '{near}'?"),
            None => format!("'{wrong}' is no level; use error, warn, info, debug or trace"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[test]
    fn levels() {
        for (level, wrong) in [
            ("info", ""),
            ("WARN,spool=debug, flow = off", ""),
            ("inof", "'inof' is no level; did you mean 'info'?"),
            ("info,spool=loud", "'loud' is no level; "),
            ("=,=", "'=' is no level; "),
            ("=info", "'=info' is no level; "),
            ("", "'' is no level; "),
        ] {
            match check_level(level) {
                Ok(()) => assert_eq!(wrong, "", "{level}"),
                Err(error) => assert!(!wrong.is_empty() && error.contains(wrong), "{level}: {error}"),
            }
        }
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only read by Debug and the parser")]
    struct Settings {
        name: String,
        #[serde(default)]
        retries: u8,
        #[serde(default)]
        log: Log,
        #[serde(default)]
        rules: Vec<Log>,
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
            ("name = 'a'\nretries = 300", 2, "retries: invalid value", ""),
            (
                "name = 'a'\n[log]\nlevel = 5",
                3,
                "log.level: invalid type: integer `5`, expected a string",
                "",
            ),
            (
                "name = 'a'\nlog = 5",
                2,
                "log: invalid type: integer `5`, expected a section of keys",
                "",
            ),
            (
                "name = 'a'\n[[rules]]\nlevel = 'x'\n[[rules]]\nlevel = 5",
                5,
                "rules.level: invalid type: integer `5`, expected a string",
                "",
            ),
            ("retries = 3", 1, "missing field `name`", ""),
            ("name = ", 1, "", ""),
            ("name = 'a'\nzzzzzzzzz = 1", 2, "unknown field", ""),
        ] {
            let error = parse::<Settings>("c.toml", text).unwrap_err();
            assert_eq!((error.line, error.hint.as_str()), (line, hint), "{text}: {error}");
            assert!(error.message.starts_with(message), "{error}");
            assert!(error.to_string().starts_with(&format!("c.toml:{line}: ")), "{error}");
        }
        assert!(parse::<Settings>("c.toml", "name = 'a'").is_ok());
    }

    #[test]
    fn a_mistake_in_the_whole_finds_its_line() {
        for (text, key, line) in [
            ("[log]\n\nlevel = 'x'", "log.level: no", 3),
            ("name = 'a'\n[log]", "log.level and more", 2),
            ("log = { level = 'x' }", "log.level: no", 1),
            ("name = 'a'", "log.level: no", 0),
        ] {
            assert_eq!(mistake("c.toml", text, key.to_string(), "").line, line, "{text}");
        }
    }

    #[test]
    fn what_is_no_text_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        std::fs::write(&path, b"name = 'a'\nretries = '\xff'").unwrap();
        let error = read::<Settings>(&path).unwrap_err().to_string();
        assert!(error.contains("c.toml:2: the file is not UTF-8 text"), "{error}");
        let error = read::<Settings>(dir.path()).unwrap_err().to_string();
        assert!(error.contains("cannot read the file"), "{error}");
    }

    #[test]
    fn edits_count() {
        for (a, b, distance) in [("", "abc", 3), ("kitten", "sitting", 3), ("same", "Same", 0)] {
            assert_eq!(edits(a, b), distance);
        }
    }
}
