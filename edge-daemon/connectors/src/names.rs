//! Guesses what somebody meant to write, and makes names for what a node needs in another system. Knows only text.

/// Names that differ in more than one letter of this many are not the same word mistyped.
const LETTERS_PER_MISTAKE: usize = 3;
/// How many names to list when none is near.
const LISTED_MAX: usize = 8;
/// Of a name that is made from others, what stays readable, in bytes.
const READABLE_BYTES_MAX: usize = 50;

/// What a node calls the `thing` that it makes in another system: `mycelial_WORKFLOW_NODE`, at most 59 of the characters
/// a-z, 0-9 and _.
pub(crate) fn of_node(thing: &str, workflow: &str, node: &str) -> String {
    let given = format!("mycelial_{workflow}_{node}");
    let allowed = |char: char| matches!(char, 'a'..='z' | '0'..='9' | '_');
    if given.len() <= READABLE_BYTES_MAX && given.chars().all(allowed) {
        return given;
    }
    let readable = given.to_lowercase().replace(|char| !allowed(char), "_");
    let hash = bus_schema::id::hash(thing, &[workflow.as_bytes(), node.as_bytes()]);
    let hash: String = hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("{}_{hash}", &readable[..readable.len().min(READABLE_BYTES_MAX)])
}

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
