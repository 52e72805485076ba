//! One syslog message, taken apart: RFC 5424, and what RFC 3164 describes of older practice. Loose where devices are: what
//! does not fit stays part of the text, and no byte of it gets lost.

use std::borrow::Cow;

/// Where a message comes from within a system (RFC 5424, table 1).
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp",
    "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];
/// How bad it is (RFC 5424, table 2).
const SEVERITIES: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
/// Longest tag of RFC 3164, in bytes; the RFC says 32, and containers have longer names.
const TAG_BYTES_MAX: usize = 128;

/// Names, each with its keys and values.
type Elements<'a> = Vec<(&'a str, Vec<(&'a str, Cow<'a, str>)>)>;

/// What a message says of itself. What it does not say is `None`.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Message<'a> {
    pub facility: Option<&'static str>,
    pub severity: Option<&'static str>,
    /// As written.
    pub time: Option<&'a str>,
    pub host: Option<&'a str>,
    pub app: Option<&'a str>,
    pub process: Option<&'a str>,
    pub id: Option<&'a str>,
    /// Structured data: for each element its name and its parameters.
    pub data: Elements<'a>,
    pub text: &'a str,
}

/// Takes a message apart.
pub(super) fn parse(line: &str) -> Message<'_> {
    let line = line.trim_end_matches(['\r', '\n', '\0']);
    let Some((priority, rest)) = priority(line) else {
        return Message {
            text: line,
            ..Message::default()
        };
    };
    let mut message = rest
        .strip_prefix("1 ")
        .and_then(modern)
        .unwrap_or_else(|| traditional(rest));
    message.facility = FACILITIES.get(usize::from(priority / 8)).copied();
    message.severity = SEVERITIES.get(usize::from(priority % 8)).copied();
    message
}

/// `<34>` and what comes after it.
fn priority(line: &str) -> Option<(u8, &str)> {
    let (number, rest) = line.strip_prefix('<')?.split_once('>')?;
    let is_number = (1..=3).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
    let number = number.parse().ok().filter(|number| *number < 192)?;
    is_number.then_some((number, rest))
}

/// RFC 5424 after the version.
fn modern(rest: &str) -> Option<Message<'_>> {
    let (time, rest) = rest.split_once(' ')?;
    let (host, rest) = rest.split_once(' ')?;
    let (app, rest) = rest.split_once(' ')?;
    let (process, rest) = rest.split_once(' ')?;
    let (id, rest) = rest.split_once(' ')?;
    let said = |field| (field != "-").then_some(field);
    if said(time).is_some_and(|time| !time.contains('T')) {
        return None;
    }
    let (data, rest) = match rest.strip_prefix('-') {
        Some(rest) => (Vec::new(), rest),
        None => structured(rest)?,
    };
    let text = match rest.strip_prefix(' ') {
        Some(text) => text,
        None if rest.is_empty() => rest,
        None => return None,
    };
    Some(Message {
        time: said(time),
        host: said(host),
        app: said(app),
        process: said(process),
        id: said(id),
        data,
        // It may say that it is UTF-8, which it must be.
        text: text.strip_prefix('\u{feff}').unwrap_or(text),
        ..Message::default()
    })
}

/// `[name key="value" …][…]` and what comes after it.
fn structured(mut rest: &str) -> Option<(Elements<'_>, &str)> {
    let mut elements = Vec::new();
    while let Some(inside) = rest.strip_prefix('[') {
        let end = inside.find([' ', ']'])?;
        let (name, mut inside) = inside.split_at(end);
        let mut parameters = Vec::new();
        while let Some(parameter) = inside.strip_prefix(' ') {
            let (key, value) = parameter.split_once("=\"")?;
            let (value, after) = quoted(value)?;
            parameters.push((key, value));
            inside = after;
        }
        rest = inside.strip_prefix(']')?;
        elements.push((name, parameters));
    }
    (!elements.is_empty()).then_some((elements, rest))
}

/// A value up to its closing quote. A backslash stands before `"`, `\` and `]`; before others it stands for itself.
fn quoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut value = Cow::Borrowed("");
    let mut from = 0;
    let mut at = 0;
    loop {
        at += text.get(at..)?.find(['"', '\\'])?;
        if text.as_bytes()[at] == b'"' {
            if from == 0 {
                return Some((Cow::Borrowed(&text[..at]), &text[at + 1..]));
            }
            value.to_mut().push_str(&text[from..at]);
            return Some((value, &text[at + 1..]));
        }
        if let Some(b'"' | b'\\' | b']') = text.as_bytes().get(at + 1) {
            value.to_mut().push_str(&text[from..at]);
            // The escaped character is the first of the next piece.
            from = at + 1;
            at += 2;
        } else {
            at += 1;
        }
    }
}

/// RFC 3164 after the priority: `Oct 11 22:14:15 host app[123]: text`, each part as far as it is there.
fn traditional(rest: &str) -> Message<'_> {
    let (time, rest) = match time_before(rest) {
        Some(length) => (Some(&rest[..length]), rest[length..].trim_start_matches(' ')),
        None => (None, rest),
    };
    let mut message = Message {
        time,
        ..Message::default()
    };
    // Without a time there is no host either (RFC 3164, section 4.3.3); local programs leave it out.
    let mut rest = rest;
    if time.is_some()
        && let Some((host, after)) = rest.split_once(' ')
        && !host.is_empty()
        && !host.ends_with(':')
        && tag(host).is_none_or(|(_, process, _)| process.is_none())
    {
        message.host = Some(host);
        rest = after;
    }
    match tag(rest) {
        Some((app, process, text)) => {
            (message.app, message.process) = (Some(app), process);
            message.text = text;
        }
        None => message.text = rest,
    }
    message
}

/// How long the time at the beginning is: `Oct 11 22:14:15`, with a year before or behind, or as in RFC 5424.
fn time_before(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    if digit(0) {
        let length = text.find(' ')?;
        let is_time = text[..length].contains('T') && digit(3) && bytes.get(4) == Some(&b'-');
        return is_time.then_some(length);
    }
    let clock = |at: usize| {
        let shape = bytes.get(at..at + 8)?;
        let is_clock = shape.iter().enumerate().all(|(place, byte)| match place {
            2 | 5 => *byte == b':',
            _ => byte.is_ascii_digit(),
        });
        is_clock.then_some(at + 8)
    };
    if !MONTHS.contains(&text.get(..3)?) || bytes.get(3) != Some(&b' ') {
        return None;
    }
    let is_day = digit(5) && (digit(4) || bytes[4] == b' ') && bytes.get(6) == Some(&b' ');
    if !is_day {
        return None;
    }
    // Cisco and others write the year between day and time.
    if (7..11).all(digit) && bytes.get(11) == Some(&b' ') {
        return clock(12);
    }
    clock(7)
}

/// `app[123]: text` or `app: text`.
fn tag(text: &str) -> Option<(&str, Option<&str>, &str)> {
    let (tag, rest) = text.split_once(':')?;
    if tag.is_empty() || tag.len() > TAG_BYTES_MAX || tag.contains([' ', '\t', '"', '{']) {
        return None;
    }
    let text = rest.strip_prefix(' ').unwrap_or(rest);
    match tag.strip_suffix(']').and_then(|tag| tag.split_once('[')) {
        Some((app, process)) if !app.is_empty() => Some((app, Some(process), text)),
        _ => Some((tag, None, text)),
    }
}

/// A time without a zone, `Oct 11 22:14:15` or `Oct 11 2024 22:14:15`, as `2024-10-11T22:14:15`. A year that is not
/// said is the one in which the time is nearest to `year` and `month` of now.
pub(super) fn dated(time: &str, year: i32, month: usize) -> Option<String> {
    let mut parts = time.split(' ').filter(|part| !part.is_empty());
    let (name, day, next) = (parts.next()?, parts.next()?, parts.next()?);
    let number = MONTHS.iter().position(|known| *known == name)? + 1;
    let (said, clock) = match parts.next() {
        Some(clock) => (Some(next.parse::<i32>().ok()?), clock),
        None => (None, next),
    };
    let day: u8 = day.parse().ok()?;
    let year = said.unwrap_or(match number as i32 - month as i32 {
        // December's, read in January; and the other way, by a clock that goes before.
        7.. => year - 1,
        ..=-7 => year + 1,
        _ => year,
    });
    Some(format!("{year:04}-{number:02}-{day:02}T{clock}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `facility.severity|time|host|app|process|id|data|text`.
    fn shown(line: &str) -> String {
        let message = parse(line);
        let or = |field: Option<&str>| field.unwrap_or("~").to_string();
        let data = message.data.iter().map(|(name, parameters)| {
            let parameters = parameters.iter().map(|(key, value)| format!(" {key}={value}"));
            format!("[{name}{}]", parameters.collect::<String>())
        });
        [
            format!("{}.{}", or(message.facility), or(message.severity)),
            or(message.time),
            or(message.host),
            or(message.app),
            or(message.process),
            or(message.id),
            data.collect(),
            message.text.to_string(),
        ]
        .join("|")
    }

    #[test]
    fn messages_of_all_kinds() {
        for (line, wanted) in [
            // RFC 5424, section 6.5.
            (
                "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \u{feff}'su root' failed on /dev/pts/8",
                "auth.crit|2003-10-11T22:14:15.003Z|mymachine.example.com|su|~|ID47||'su root' failed on /dev/pts/8",
            ),
            (
                "<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time to make the do-nuts.",
                "local4.notice|2003-08-24T05:14:15.000003-07:00|192.0.2.1|myproc|8710|~||%% It's time to make the do-nuts.",
            ),
            (
                r#"<165>1 2003-10-11T22:14:15.003Z h evntslog - ID47 [a@1 iut="3" b="a\"b\]\\\n"][e@1 class="high"]"#,
                r#"local4.notice|2003-10-11T22:14:15.003Z|h|evntslog|~|ID47|[a@1 iut=3 b=a"b]\\n][e@1 class=high]|"#,
            ),
            ("<0>1 - - - - - -", "kern.emerg|~|~|~|~|~||"),
            // RFC 3164, section 5.4, and practice.
            (
                "<34>Oct 11 22:14:15 mymachine su: 'su root' failed",
                "auth.crit|Oct 11 22:14:15|mymachine|su|~|~||'su root' failed",
            ),
            (
                "<13>Feb  5 17:32:18 10.0.0.99 app[77]: a: b\n",
                "user.notice|Feb  5 17:32:18|10.0.0.99|app|77|~||a: b",
            ),
            (
                "<13>Feb  5 17:32:18 app[77]: local",
                "user.notice|Feb  5 17:32:18|~|app|77|~||local",
            ),
            (
                "<13>Feb  5 17:32:18 cron: local",
                "user.notice|Feb  5 17:32:18|~|cron|~|~||local",
            ),
            (
                "<189>Oct 11 2024 22:14:15 fw : %ASA-6-1: built",
                "local7.notice|Oct 11 2024 22:14:15|fw|~|~|~||: %ASA-6-1: built",
            ),
            (
                "<30>2024-02-05T17:32:18.5+01:00 host app: x",
                "daemon.info|2024-02-05T17:32:18.5+01:00|host|app|~|~||x",
            ),
            ("<13>Use the BFG!", "user.notice|~|~|~|~|~||Use the BFG!"),
            ("<13>", "user.notice|~|~|~|~|~||"),
            ("<192>x", "~.~|~|~|~|~|~||<192>x"),
            ("<+1>x", "~.~|~|~|~|~|~||<+1>x"),
            ("no priority: x", "~.~|~|~|~|~|~||no priority: x"),
            // Broken structured data is text.
            ("<13>1 - h a - - [x", "user.notice|~|~|~|~|~||1 - h a - - [x"),
        ] {
            assert_eq!(shown(line), wanted, "{line}");
        }
    }

    #[test]
    fn years_are_the_nearest() {
        for (time, now, wanted) in [
            ("Oct 11 22:14:15", (2024, 10), "2024-10-11T22:14:15"),
            ("Feb  5 01:00:00", (2024, 3), "2024-02-05T01:00:00"),
            ("Dec 31 23:59:59", (2025, 1), "2024-12-31T23:59:59"),
            ("Jan  1 00:00:01", (2024, 12), "2025-01-01T00:00:01"),
            ("Oct 11 2020 22:14:15", (2024, 1), "2020-10-11T22:14:15"),
        ] {
            assert_eq!(dated(time, now.0, now.1).as_deref(), Some(wanted), "{time}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(line in "(<[0-9]{0,4}>)?(1 )?.{0,80}", other in ".{0,80}") {
            parse(&line);
            parse(&other);
            let _ = dated(&other, 2024, 5);
        }

        #[test]
        fn structured_data_comes_out_as_it_went_in(value in "[ -~]{0,40}") {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace(']', "\\]");
            let line = format!("<13>1 - - - - - [x k=\"{escaped}\"] t");
            let message = parse(&line);
            prop_assert_eq!(&message.data[0].1[0].1, &value);
            prop_assert_eq!(message.text, "t");
        }
    }
}
