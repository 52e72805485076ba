//! Texts that are given away, without what nobody should see: log-ins, queries and long random words in addresses, and what stands
//! beside a word that tells of a secret. Covers too much rather than too little. Pure.

/// Parts of words beside which nobody should read on.
const PARTS: [&str; 10] = [
    "pass",
    "pwd",
    "secret",
    "token",
    "key",
    "credential",
    "auth",
    "cookie",
    "signature",
    "private",
];
/// Whole words of the same kind, which are parts of harmless ones.
const WORDS: [&str; 5] = ["sig", "sas", "pin", "pat", "pw"];
/// What a secret follows without a sign between them.
const BEFORE: [&str; 2] = ["bearer", "basic"];
/// From so many characters on a part of an address may be made at random: some servers know their clients by nothing else.
const RANDOM_CHARS_MIN: usize = 16;
/// What stands in the place of what is not shown.
pub const COVER: &str = "[covered]";

/// Whether a name of a setting, or a word, tells of a secret.
pub fn is_telling(word: &str) -> bool {
    let word = word.to_lowercase();
    PARTS.iter().any(|part| word.contains(part)) || WORDS.contains(&word.as_str())
}

/// The text with all that covered.
pub fn text(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(|line| pairs(&addresses(line))).collect();
    lines.join("\n")
}

/// Without what addresses hold besides a place.
fn addresses(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    for token in line.split_inclusive(char::is_whitespace) {
        let word = token.trim_end_matches(char::is_whitespace);
        let space = &token[word.len()..];
        match address(word) {
            Some(kept) => shown.push_str(&kept),
            // A port that is none: this is no address, but may be the beginning of a log-in.
            None => return shown + COVER,
        }
        shown.push_str(space);
    }
    shown
}

/// A word without blanks, of which some may be an address; `None`: where it ends cannot be known.
fn address(word: &str) -> Option<String> {
    let Some((before, rest)) = word.split_once("://") else {
        let login = word.rsplit_once('@').filter(|(login, _)| login.contains(':'));
        return Some(login.map_or_else(|| word.to_string(), |(_, place)| format!("{COVER}@{place}")));
    };
    // A password may hold any sign but the last of these, whatever an address may hold.
    let (login, place) = match rest.rsplit_once('@') {
        Some((_, place)) => (format!("{COVER}@"), place),
        None => (String::new(), rest),
    };
    let end = place.find(['?', '#']).unwrap_or(place.len());
    let (path, query) = place.split_at(end);
    let mut parts = path.split('/');
    let host = parts.next().unwrap_or_default();
    let port = host
        .rsplit_once(':')
        .filter(|(name, _)| !name.starts_with('[') || name.ends_with(']'));
    let is_port = |port: &str| {
        let digits = port.trim_end_matches(['"', '\'', ',', ';', ')', ']', '}', '.', ':']);
        digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    if login.is_empty() && !host.starts_with('[') && port.is_some_and(|(_, port)| !is_port(port)) && !host.contains(',')
    {
        return None;
    }
    let mut shown = format!("{before}://{login}{host}");
    for part in parts {
        shown.push('/');
        shown.push_str(if is_random(part) { COVER } else { part });
    }
    if let Some(sign) = query.chars().next() {
        shown.push(sign);
        shown.push_str(COVER);
    }
    Some(shown)
}

fn is_random(part: &str) -> bool {
    part.chars().count() >= RANDOM_CHARS_MIN
        && part.contains(|sign: char| sign.is_ascii_digit())
        && part.contains(char::is_alphabetic)
}

/// Without what follows telling words.
fn pairs(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(start) = rest.find(is_of_word) {
        let (before, from_word) = rest.split_at(start);
        let end = from_word.find(|sign| !is_of_word(sign)).unwrap_or(from_word.len());
        let (word, after) = from_word.split_at(end);
        shown.push_str(before);
        shown.push_str(word);
        rest = match value(word, after) {
            Some((between, left)) => {
                shown.push_str(between);
                shown.push_str(COVER);
                left
            }
            None => after,
        };
    }
    shown + rest
}

fn is_of_word(sign: char) -> bool {
    sign.is_alphanumeric() || matches!(sign, '_' | '-')
}

/// What stands between a telling word and its value, and what comes after the value; `None`: there is none.
fn value<'a>(word: &str, after: &'a str) -> Option<(&'a str, &'a str)> {
    let split = |at: usize, end: usize| Some((&after[..at], &after[end..]));
    let blanks = after.len() - after.trim_start().len();
    let of_word = |at: usize| {
        after[at..]
            .find(char::is_whitespace)
            .map_or(after.len(), |end| at + end)
    };
    if BEFORE.contains(&word.to_lowercase().as_str()) && blanks > 0 && blanks < after.len() {
        return split(blanks, of_word(blanks));
    }
    if !is_telling(word) {
        return None;
    }
    // `"password": "…"`, `password = '…'`, `password => …`.
    let unquoted = after.strip_prefix(['"', '\'']).unwrap_or(after).trim_start();
    let is_line = unquoted.starts_with(':');
    let is_pair = is_line || unquoted.starts_with('=');
    let begins = after.len() - unquoted.trim_start_matches([':', '=', '>']).trim_start().len();
    let quote = after[begins..]
        .chars()
        .next()
        .filter(|sign| matches!(sign, '"' | '\'' | '`'));
    match (is_pair, quote) {
        _ if begins >= after.len() => None,
        (true, Some(quote)) => split(begins, closed(after, begins + quote.len_utf8(), quote)),
        // A header goes on to the end of its line.
        (true, None) if is_line => split(begins, after.len()),
        (true, None) => {
            let sign = after[begins..].find(';').map_or(begins, |at| begins + at);
            split(begins, of_word(sign))
        }
        // `PASSWORD 'hunter2'`, `--password hunter2`.
        (false, Some(quote)) if blanks > 0 && begins == blanks => {
            split(begins, closed(after, begins + quote.len_utf8(), quote))
        }
        (false, None) if word.starts_with('-') && blanks > 0 && begins == blanks => split(begins, of_word(begins)),
        _ => None,
    }
}

/// Where a text in quotes ends; without an end, all of it is in them.
fn closed(text: &str, from: usize, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, sign) in text[from..].char_indices() {
        match sign {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            sign if sign == quote => return from + at + sign.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_should_see_is_covered() {
        for (given, shown) in [
            ("https://h/x?api_key=hunter2", "https://h/x?[covered]"),
            ("https://h/x?sig=hunter2&sv=1", "https://h/x?[covered]"),
            ("https://h/x#hunter2", "https://h/x#[covered]"),
            ("https://h?hunter2", "https://h?[covered]"),
            ("mqtt://anna:hunter2@broker:1883", "mqtt://[covered]@broker:1883"),
            ("mqtt://anna:hun/ter2@broker", "mqtt://[covered]@broker"),
            ("mqtt://anna:hun?ter2#@broker", "mqtt://[covered]@broker"),
            ("mqtt://anna:hun@ter2@broker/x", "mqtt://[covered]@broker/x"),
            ("mqtt://anna:hun'ter2@broker", "mqtt://[covered]@broker"),
            ("mqtt://anna:hun ter2@broker", "[covered]"),
            ("mqtt://hunter2@broker", "mqtt://[covered]@broker"),
            (
                "see mqtt://a:hunter2@b and nats://c:hunter2@d/e",
                "see mqtt://[covered]@b and nats://[covered]@d/e",
            ),
            ("anna:hunter2@tcp(db:3306)/shop", "[covered]@tcp(db:3306)/shop"),
            (
                "https://hooks.example/services/T0/hunter2hunter2hunter2",
                "https://hooks.example/services/T0/[covered]",
            ),
            (
                "host=db password=hunter2 dbname=shop",
                "host=db password=[covered] dbname=shop",
            ),
            ("host=db password = hunter2", "host=db password = [covered]"),
            ("password='hun ter2' dbname=shop", "password=[covered] dbname=shop"),
            (r"password='hun\'ter2' dbname=shop", "password=[covered] dbname=shop"),
            ("password='hunter2", "password=[covered]"),
            ("Server=db;Pwd=hun ter2;Port=1", "Server=db;Pwd=[covered]"),
            ("sv=1&sig=hunter2&se=2", "sv=1&sig=[covered]"),
            (
                r#"{"user": "anna", "password": "hunter2", "x": 1}"#,
                r#"{"user": "anna", "password": [covered], "x": 1}"#,
            ),
            ("Authorization: Bearer hunter2", "Authorization: [covered]"),
            ("X-Api-Key: hunter2, hunter2", "X-Api-Key: [covered]"),
            ("bearer hunter2", "bearer [covered]"),
            ("a\nCookie: hunter2\nb", "a\nCookie: [covered]\nb"),
            (
                "CREATE USER anna PASSWORD 'hunter2' LOGIN",
                "CREATE USER anna PASSWORD [covered] LOGIN",
            ),
            ("run --password hunter2 --fast", "run --password [covered] --fast"),
            ("run --token=hunter2 --fast", "run --token=[covered] --fast"),
            ("PASSWORD=\"hunter2\" run", "PASSWORD=[covered] run"),
        ] {
            assert_eq!(text(given), shown, "{given}");
            assert!(!text(given).contains("ter2"), "{given}");
        }
    }

    #[test]
    fn what_helps_is_kept() {
        for kept in [
            "",
            "orders",
            "a@example.com",
            "mqtt://broker:1883/sensors/line-1",
            "mqtt://[::1]:1883",
            "mqtts://[fe80::7]",
            "http://a:1, http://b:2",
            "nats://a:4222,nats://b:4222",
            "\"http://a:80\"",
            "https://api.example.com/v2/orders",
            "SELECT name, total FROM orders WHERE total > 5",
            "temperature > 5 and site == 'berlin'",
            "the token is missing",
            "no key",
            "12:30:00",
            "password",
        ] {
            assert_eq!(text(kept), kept);
        }
    }
}
