//! What an answer means for what was sent. Decides only.

use std::time::{Duration, SystemTime};

use hyper::{HeaderMap, StatusCode, header::RETRY_AFTER};

use super::client::Answer;
use crate::file::text::shorten;

/// The longest pause a server may ask for.
const PAUSE_MAX: Duration = Duration::from_secs(3600);
/// Bytes of an answer that are looked at to say what it was.
const SAID_BYTES_MAX: usize = 2 * 1024;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It has been taken.
    Taken,
    /// It will never be taken as it is.
    Refused,
    /// Nothing is wrong with it: later, perhaps after a pause that was asked for.
    Later(Option<Duration>),
}

/// What a status means; `refusing` are those that are about what was sent, and not about who sent it, or when.
pub(crate) fn verdict(status: StatusCode, headers: &HeaderMap, refusing: &[u16], now: SystemTime) -> Verdict {
    if status.is_success() {
        Verdict::Taken
    } else if refusing.contains(&status.as_u16()) {
        Verdict::Refused
    } else {
        Verdict::Later(pause(headers, now))
    }
}

/// The pause that `Retry-After` asks for: seconds, or a moment (RFC 9110, section 10.2.3).
pub(crate) fn pause(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let asked = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text)
            .ok()?
            .duration_since(now)
            .unwrap_or_default(),
    };
    Some(asked.min(PAUSE_MAX))
}

/// Status and the beginning of what was said, for a person.
pub(crate) fn said(answer: &Answer) -> String {
    let beginning = &answer.body[..answer.body.len().min(SAID_BYTES_MAX)];
    let text = String::from_utf8_lossy(beginning);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let text: String = text.chars().filter(|char| !char.is_control()).collect();
    match text.as_str() {
        "" => answer.status.to_string(),
        text => format!("{}: {}", answer.status, lengthened(text)),
    }
}

/// Longer than other quotations: what servers say first is often only "error".
fn lengthened(text: &str) -> String {
    const SAID_CHARS_MAX: usize = 300;
    match text.char_indices().nth(SAID_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}

/// Where an answer that is a redirect leads to, as a hint.
pub(crate) fn hint(answer: &Answer) -> String {
    let to = answer
        .headers
        .get(hyper::header::LOCATION)
        .and_then(|to| to.to_str().ok());
    match (answer.status.as_u16(), to) {
        (300..=399, Some(to)) => format!(" (redirects are not followed: set url to {})", shorten(to)),
        (401 | 403 | 407, _) => " (are the credentials right?)".to_string(),
        (404 | 405, _) => " (is the url right?)".to_string(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (status, after, wanted) in [
            (200, "", Verdict::Taken),
            (204, "9", Verdict::Taken),
            (400, "", Verdict::Refused),
            (413, "5", Verdict::Refused),
            (401, "", Verdict::Later(None)),
            (302, "", Verdict::Later(None)),
            (409, "", Verdict::Later(None)),
            (429, " 7 ", Verdict::Later(Some(Duration::from_secs(7)))),
            (
                503,
                "Sun, 06 Nov 1994 08:49:47 GMT",
                Verdict::Later(Some(Duration::from_secs(10))),
            ),
            (
                503,
                "Sun, 06 Nov 1994 08:49:30 GMT",
                Verdict::Later(Some(Duration::ZERO)),
            ),
            (503, "99999999", Verdict::Later(Some(PAUSE_MAX))),
            (503, "soon", Verdict::Later(None)),
            (500, "-1", Verdict::Later(None)),
        ] {
            let mut headers = HeaderMap::new();
            if !after.is_empty() {
                headers.insert(RETRY_AFTER, after.parse().unwrap());
            }
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(
                verdict(status, &headers, &[400, 413, 422], now),
                wanted,
                "{status} {after}"
            );
        }
    }

    #[test]
    fn what_was_said_is_shown_on_one_line_and_not_whole() {
        let answer = |body: &str| Answer {
            status: StatusCode::BAD_REQUEST,
            headers: HeaderMap::new(),
            body: body.to_string().into(),
        };
        assert_eq!(said(&answer("")), "400 Bad Request");
        assert_eq!(
            said(&answer("<p>\n too\thot\u{1b}[0m</p>\n")),
            "400 Bad Request: <p> too hot[0m</p>"
        );
        assert!(said(&answer(&"ä".repeat(5000))).chars().count() < 330);
    }
}
