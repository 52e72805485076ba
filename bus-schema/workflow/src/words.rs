//! Small helpers for messages: the nearest right word, lists in words, sizes. Knows no workflow.

/// Longest piece of a user's text that a message repeats, in characters.
const QUOTE_CHARS_MAX: usize = 48;

/// The candidate a mistyped word was most likely meant to be: at most about a third of its letters differ.
///
/// Counts insertions, deletions, replacements and swapped neighbours (optimal string alignment), ignoring case.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word
        .chars()
        .take(QUOTE_CHARS_MAX)
        .flat_map(char::to_lowercase)
        .collect();
    let scored = candidates.into_iter().filter_map(|candidate| {
        let letters: Vec<char> = candidate
            .chars()
            .take(QUOTE_CHARS_MAX)
            .flat_map(char::to_lowercase)
            .collect();
        let distance = distance(&word, &letters);
        let longer = word.len().max(letters.len());
        // One slip in a short word is likely; in a word of two letters it is another word.
        let allowed = (longer / 3).max(usize::from(longer > 2));
        (distance <= allowed).then_some((distance, candidate))
    });
    scored
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut cost = (last[j] + usize::from(x != y)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                cost = cost.min(before[j - 1] + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

/// `did you mean 'x'?`, or, when nothing is near, `<what> are: a, b, c`; empty when there is nothing to name.
pub(crate) fn suggest<'a>(word: &str, what: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    let candidates: Vec<&str> = candidates.into_iter().collect();
    match nearest(word, candidates.iter().copied()) {
        Some(near) => format!("did you mean '{near}'?"),
        None if candidates.is_empty() => String::new(),
        None => format!("{what}: {}", some(&candidates)),
    }
}

/// Names one after the other, not more than a line of them.
fn some(names: &[&str]) -> String {
    const NAMES_MAX: usize = 20;
    let shown: Vec<String> = names.iter().take(NAMES_MAX).map(|name| clip(name)).collect();
    let more = names.len().saturating_sub(NAMES_MAX);
    if more > 0 {
        format!("{} and {more} more", shown.join(", "))
    } else {
        shown.join(", ")
    }
}

/// `'a', 'b' and 'c'`.
pub(crate) fn quoted<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    joined(
        &names
            .into_iter()
            .map(|name| format!("'{}'", clip(name)))
            .collect::<Vec<_>>(),
        "and",
    )
}

/// `a, b or c`.
pub(crate) fn joined(parts: &[String], last: &str) -> String {
    match parts {
        [] => String::new(),
        [one] => one.clone(),
        [init @ .., end] => format!("{} {last} {end}", init.join(", ")),
    }
}

/// A user's text, shortened so that it cannot flood a message, and without control characters.
pub(crate) fn clip(text: &str) -> String {
    let mut out: String = text
        .chars()
        .take(QUOTE_CHARS_MAX)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    if text.chars().nth(QUOTE_CHARS_MAX).is_some() {
        out.push('…');
    }
    out
}

/// Bytes of a size such as `500MB` or `1.5 GiB`; a bare number is bytes. `None` when it is no size or over 2^63.
pub fn size_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim_start();
    let scale: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(scale).filter(|bytes| *bytes <= i64::MAX as u64);
    }
    let bytes = number.parse::<f64>().ok()? * scale as f64;
    // A fraction of a byte is no size, and 2^53 is as far as an f64 counts.
    (bytes.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&bytes)).then_some(bytes as u64)
}

/// The same size as people write it.
pub fn size_text(bytes: u64) -> String {
    for (unit, scale) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes >= scale && bytes.is_multiple_of(scale) {
            return format!("{} {unit}", bytes / scale);
        }
    }
    format!("{bytes} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant() {
        let words = ["sqlite", "postgres", "file", "host_metrics", "mqtt"];
        for (word, near) in [
            ("sqlit", Some("sqlite")),
            ("SQLite", Some("sqlite")),
            ("sqltie", Some("sqlite")),
            ("postgress", Some("postgres")),
            ("hostmetrics", Some("host_metrics")),
            ("flie", Some("file")),
            ("oracle", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, words), near, "{word}");
        }
        assert_eq!(nearest("a", ["b", "c"]), None);
        assert_eq!(nearest("dbb", ["db"]), Some("db"));
    }

    #[test]
    fn suggests_or_lists() {
        assert_eq!(suggest("fiel", "known", ["file", "mqtt"]), "did you mean 'file'?");
        assert_eq!(suggest("zzzz", "known", ["file", "mqtt"]), "known: file, mqtt");
        assert_eq!(suggest("zzzz", "known", []), "");
        let many: Vec<String> = (0..25).map(|n| format!("name{n:04}")).collect();
        assert!(suggest("zzzz", "known", many.iter().map(String::as_str)).ends_with("name0019 and 5 more"));
        assert_eq!(quoted(["a", "b", "c"]), "'a', 'b' and 'c'");
        assert_eq!(clip("a\nb"), "a?b");
        assert_eq!(clip(&"ü".repeat(50)).chars().count(), QUOTE_CHARS_MAX + 1);
    }

    #[test]
    fn reads_sizes() {
        for (text, bytes) in [
            ("1GiB", Some(1 << 30)),
            ("500MB", Some(500_000_000)),
            ("500 mb", Some(500_000_000)),
            ("1.5 GiB", Some(3 << 29)),
            ("16777216", Some(16_777_216)),
            ("7b", Some(7)),
            ("", None),
            ("GiB", None),
            ("-1", None),
            ("1.2.3MB", None),
            ("0.1b", None),
            ("1 parsec", None),
            ("99999999999TiB", None),
            ("9223372036854775808", None),
        ] {
            assert_eq!(size_bytes(text), bytes, "{text}");
        }
        assert_eq!(size_text(16 << 20), "16 MiB");
        assert_eq!(size_text(1001), "1001 bytes");
    }
}
