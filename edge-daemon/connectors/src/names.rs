//! Guesses what somebody meant to write. Knows only text.

/// Names that differ in more than one letter of this many are not the same word mistyped.
const LETTERS_PER_MISTAKE: usize = 3;
/// How many names to list when none is near.
const LISTED_MAX: usize = 8;

/// ` (did you mean 'x'?)` for the nearest of `known`; when none is near, what there is.
pub(crate) fn hint<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    if let Some(near) = nearest(name, known.iter().copied()) {
        return format!(" (did you mean '{near}'?)");
    }
    let listed = known
        .iter()
        .take(LISTED_MAX)
        .map(|name| format!("'{name}'"))
        .collect::<Vec<_>>()
        .join(", ");
    let more = if known.len() > LISTED_MAX { ", …" } else { "" };
    if listed.is_empty() {
        " (there is none at all)".to_string()
    } else {
        format!(" (there is {listed}{more})")
    }
}

/// The name most like `name`, if any is like it at all.
fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    let scored = known
        .into_iter()
        .map(|other| (distance(&lower, &other.to_lowercase()), other));
    let (distance, other) = scored.min_by_key(|(distance, _)| *distance)?;
    let length = name.chars().count().max(other.chars().count());
    (distance <= (length / LETTERS_PER_MISTAKE).max(usize::from(length > 1))).then_some(other)
}

/// How many characters have to be put in, taken out or replaced (Wagner and Fischer, 1974).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant() {
        for (name, known, near) in [
            ("reading", vec!["readings", "events"], Some("readings")),
            ("Readings", vec!["events", "readings"], Some("readings")),
            ("evnets", vec!["readings", "events"], Some("events")),
            ("größe", vec!["grösse", "x"], Some("grösse")),
            ("zebra", vec!["readings", "events"], None),
            ("zebra", vec![], None),
        ] {
            assert_eq!(nearest(name, known.iter().copied()), near, "{name}");
        }
        assert_eq!(hint("vents", ["events"]), " (did you mean 'events'?)");
        assert_eq!(hint("a", ["b", "c"]), " (there is 'b', 'c')");
        assert_eq!(hint("a", []), " (there is none at all)");
    }
}
