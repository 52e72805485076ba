//! logfmt, the lines of `name=value` that many programs log: reading and writing one line. Values are texts.

use std::{fmt::Write as _, str::Chars};

use bus_schema::data::{Cell, Value};

use crate::{
    spread::{FIELDS_MAX, Found},
    text::shorten,
};

/// The fields of one line. A name without a value is true.
pub(crate) fn read(line: &str) -> Result<Found, String> {
    let wrong = |what: &str| format!("is no logfmt: {what} in '{}'", shorten(line));
    let mut found = Found::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        if found.len() >= FIELDS_MAX {
            return Err(format!("has more than {FIELDS_MAX} fields"));
        }
        let end = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        if name.is_empty() || name.contains('"') {
            return Err(wrong("a name is missing or quoted"));
        }
        let (value, after) = match after.strip_prefix('=') {
            None => (Value::Bool(true), after),
            Some(quoted) if quoted.starts_with('"') => {
                let (text, after) = unquoted(&quoted[1..]).map_err(wrong)?;
                if !(after.is_empty() || after.starts_with(char::is_whitespace)) {
                    return Err(wrong("something follows a quote"));
                }
                (Value::Text(text), after)
            }
            Some(plain) => {
                let (text, after) = plain.split_at(plain.find(char::is_whitespace).unwrap_or(plain.len()));
                (Value::Text(text.to_string()), after)
            }
        };
        found.push((name.to_string(), value));
        rest = after.trim_start();
    }
    if found.is_empty() {
        Err(wrong("there is nothing"))
    } else {
        Ok(found)
    }
}

/// A quoted text without its quotes, and what follows it; or what is wrong with it.
fn unquoted(text: &str) -> Result<(String, &str), &'static str> {
    const OPEN: &str = "a quote does not end";
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '"' => return Ok((out, chars.as_str())),
            '\\' => match chars.next().ok_or(OPEN)? {
                'n' => out.push('\n'),
                'r' => out.push('\r'),
                't' => out.push('\t'),
                'u' => out.push(escaped(&mut chars)?),
                other => out.push(other),
            },
            other => out.push(other),
        }
    }
    Err(OPEN)
}

/// The character of a `\u` by its digits, of which one beyond the first 65,536 needs two.
fn escaped(chars: &mut Chars<'_>) -> Result<char, &'static str> {
    const WRONG: &str = "a \\u does not name a character with four hexadecimal digits";
    let first = unit(chars).ok_or(WRONG)?;
    let is_half = (0xD800..0xDC00).contains(&first);
    let second = is_half.then(|| {
        let follows = chars.next() == Some('\\') && chars.next() == Some('u');
        follows.then(|| unit(chars)).flatten()
    });
    let units = [Some(first), second.flatten()];
    let char = char::decode_utf16(units.into_iter().flatten()).next();
    char.and_then(Result::ok).ok_or(WRONG)
}

/// Four hexadecimal digits.
fn unit(chars: &mut Chars<'_>) -> Option<u16> {
    let digit = |chars: &mut Chars<'_>| chars.next().and_then(|char| char.to_digit(16));
    let number = (0..4).try_fold(0, |number, _| Some(number * 16 + digit(chars)?))?;
    u16::try_from(number).ok()
}

/// One line of these fields; those without a value are left out.
pub(crate) fn write<'a>(fields: impl Iterator<Item = (&'a str, Cell<'a>)>) -> Result<String, String> {
    let mut out = String::new();
    for (name, cell) in fields.filter(|(_, cell)| cell.is_value()) {
        if name.is_empty() || name.contains(|c: char| c == '=' || c == '"' || c.is_whitespace() || c.is_control()) {
            return Err(format!("logfmt has no way to write the name '{}'", shorten(name)));
        }
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(name);
        out.push('=');
        let text = cell.to_string();
        let is_plain = |c: char| !(c == '"' || c == '\\' || c == '=' || c.is_whitespace() || c.is_control());
        if !text.is_empty() && text.chars().all(is_plain) {
            out.push_str(&text);
            continue;
        }
        out.push('"');
        for char in text.chars() {
            match char {
                '"' | '\\' => out.extend(['\\', char]),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                // Writing into a string cannot fail.
                control if control.is_control() => drop(write!(out, "\\u{:04x}", u32::from(control))),
                other => out.push(other),
            }
        }
        out.push('"');
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let text = |text: &str| Value::Text(text.to_string());
        for (line, wanted) in [
            (
                "a=1 b= c",
                Some(vec![("a", text("1")), ("b", text("")), ("c", Value::Bool(true))]),
            ),
            (
                r#"  msg="it is \"so\"\n"  x=a=b  "#,
                Some(vec![("msg", text("it is \"so\"\n")), ("x", text("a=b"))]),
            ),
            (r#"a="\u0007 \u00E9\ud83d\ude00""#, Some(vec![("a", text("\u{7} é😀"))])),
            (r#"a="\u00g7""#, None),
            (r#"a="\u07""#, None),
            (r#"a="\ud83d""#, None),
            (r#"a="\ud83d\u0041""#, None),
            (r#"a="\ude00""#, None),
            ("", None),
            ("=1", None),
            (r#"a="x"#, None),
            (r#"a="x"y"#, None),
            (r#""a"=1"#, None),
        ] {
            let wanted = wanted.map(|fields| {
                fields
                    .into_iter()
                    .map(|(name, value)| (name.to_string(), value))
                    .collect()
            });
            assert_eq!(read(line).ok(), wanted, "{line}");
        }
        assert!(
            read(&"a ".repeat(FIELDS_MAX + 1))
                .unwrap_err()
                .contains("more than 1000")
        );
        assert!(write([("a b", Cell::I64(1))].into_iter()).is_err());
        let controls = write([("a", Cell::Text("\u{7}\n\u{85}"))].into_iter());
        assert_eq!(controls.as_deref(), Ok(r#"a="\u0007\n\u0085""#));
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read(fields in proptest::collection::vec(("[a-z][a-z0-9_.é]{0,5}", ".*"), 1..5)) {
            let line = write(fields.iter().map(|(name, text)| (name.as_str(), Cell::Text(text)))).unwrap();
            let read = read(&line).unwrap();
            let wanted: Found = fields.into_iter().map(|(name, text)| (name, Value::Text(text))).collect();
            proptest::prop_assert_eq!(read, wanted, "{}", line);
        }
    }
}
