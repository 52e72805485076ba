//! One JSON object per line, taken apart at its top level without copying. Strict (RFC 8259); what is nested stays text.

use std::borrow::Cow;

use serde::de::IgnoredAny;

use super::rows::{RowError, Token};

/// A line is not a JSON object, or its fields do not make a row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JsonError {
    #[error("not JSON: {what} at byte {at}")]
    Syntax { what: &'static str, at: usize },
    #[error("not JSON: {0}")]
    Nested(String),
    #[error("JSON, but not an object: a record needs named fields")]
    NotAnObject,
    #[error(transparent)]
    Row(#[from] RowError),
}

/// Calls `field` with each name and value of the object in `line`.
pub(crate) fn object<'a>(
    line: &'a str,
    mut field: impl FnMut(&str, Token<'a>) -> Result<(), RowError>,
) -> Result<(), JsonError> {
    let mut scanner = Scanner { line, at: 0 };
    if !scanner.accept(b'{') {
        return Err(match serde_json::from_str::<IgnoredAny>(line) {
            Ok(_) => JsonError::NotAnObject,
            Err(_) => scanner.wrong("expected '{'"),
        });
    }
    if !scanner.accept(b'}') {
        loop {
            scanner.skip_space();
            let name = scanner.string("expected a field name in double quotes")?;
            if !scanner.accept(b':') {
                return Err(scanner.wrong("expected ':'"));
            }
            field(&name, scanner.value()?)?;
            if scanner.accept(b',') {
                continue;
            }
            if scanner.accept(b'}') {
                break;
            }
            return Err(scanner.wrong("expected ',' or '}'"));
        }
    }
    scanner.skip_space();
    if scanner.at < line.len() {
        Err(scanner.wrong("expected the end of the line"))
    } else {
        Ok(())
    }
}

/// How many bytes at the start are certainly inside a string: no quote, backslash or control character. Looks at eight at a
/// time, and leaves the last few to the caller.
fn plain_bytes(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGHS: u64 = ONES * 0x80;
    // The lowest marked byte is right; a borrow may mark wrong ones above it.
    let below = |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit)) & !word & HIGHS;
    let equal = |word: u64, byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    let (eights, _) = bytes.as_chunks::<8>();
    for (index, eight) in eights.iter().enumerate() {
        let word = u64::from_le_bytes(*eight);
        let marks = below(word, 0x20) | equal(word, b'"') | equal(word, b'\\');
        if marks != 0 {
            return index * 8 + marks.trailing_zeros() as usize / 8;
        }
    }
    eights.len() * 8
}

struct Scanner<'a> {
    line: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    fn wrong(&self, what: &'static str) -> JsonError {
        JsonError::Syntax { what, at: self.at }
    }

    fn peek(&self) -> Option<u8> {
        self.line.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// Goes past `byte`, and the space before it.
    fn accept(&mut self, byte: u8) -> bool {
        self.skip_space();
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn value(&mut self) -> Result<Token<'a>, JsonError> {
        self.skip_space();
        match self.peek() {
            Some(b'"') => self.string("expected a value").map(Token::Text),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'{' | b'[') => self.nested().map(Token::Nested),
            Some(b't') => self.word("true", Token::Bool(true)),
            Some(b'f') => self.word("false", Token::Bool(false)),
            Some(b'n') => self.word("null", Token::Null),
            _ => Err(self.wrong("expected a value")),
        }
    }

    fn word(&mut self, word: &str, token: Token<'a>) -> Result<Token<'a>, JsonError> {
        if !self.line.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.wrong("expected a value"));
        }
        self.at += word.len();
        Ok(token)
    }

    fn string(&mut self, otherwise: &'static str) -> Result<Cow<'a, str>, JsonError> {
        if self.peek() != Some(b'"') {
            return Err(self.wrong(otherwise));
        }
        let open = self.at;
        let bytes = self.line.as_bytes();
        let mut at = open + 1;
        let mut has_escapes = false;
        loop {
            at += plain_bytes(bytes.get(at..).unwrap_or_default());
            match bytes.get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    has_escapes = true;
                    at += 2;
                }
                Some(0..=0x1f) => {
                    self.at = at;
                    return Err(self.wrong("a control character inside a string"));
                }
                Some(_) => at += 1,
                None => return Err(self.wrong("a string without end")),
            }
        }
        self.at = at + 1;
        if !has_escapes {
            return Ok(Cow::Borrowed(&self.line[open + 1..at]));
        }
        let text = serde_json::from_str(&self.line[open..=at]);
        text.map(Cow::Owned).map_err(|_| JsonError::Syntax {
            what: "a wrong escape in the string",
            at: open,
        })
    }

    fn number(&mut self) -> Result<Token<'a>, JsonError> {
        let start = self.at;
        self.at += usize::from(self.peek() == Some(b'-'));
        let first = self.at;
        if self.digits()? > 1 && self.line.as_bytes()[first] == b'0' {
            self.at = first;
            return Err(self.wrong("a number that begins with 0"));
        }
        let mut is_integer = true;
        if self.peek() == Some(b'.') {
            is_integer = false;
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            is_integer = false;
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        let text = &self.line[start..self.at];
        Ok(if is_integer {
            Token::Integer(text)
        } else {
            Token::Float(text)
        })
    }

    fn digits(&mut self) -> Result<usize, JsonError> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start {
            Err(self.wrong("expected a digit"))
        } else {
            Ok(self.at - start)
        }
    }

    fn nested(&mut self) -> Result<&'a str, JsonError> {
        let rest = &self.line[self.at..];
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<IgnoredAny>();
        match values.next() {
            Some(Ok(_)) => {
                let text = &rest[..values.byte_offset()];
                self.at += text.len();
                Ok(text)
            }
            Some(Err(error)) => Err(JsonError::Nested(error.to_string())),
            None => Err(self.wrong("expected a value")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(line: &str) -> Result<Vec<(String, Token<'_>)>, String> {
        let mut found = Vec::new();
        let scanned = object(line, |name, token| {
            found.push((name.to_string(), token));
            Ok(())
        });
        scanned.map(|()| found).map_err(|error| error.to_string())
    }

    #[test]
    fn takes_objects_apart() {
        let line =
            r#" { "a" : 1 , "b":-0.5e+3,"c":"x\"\u00e9", "é":[1, {"x": "]"}],"d":{},"t":true,"f":false,"n":null} "#;
        let text = |text: &str| Token::Text(text.to_string().into());
        let wanted = [
            ("a", Token::Integer("1")),
            ("b", Token::Float("-0.5e+3")),
            ("c", text("x\"é")),
            ("é", Token::Nested(r#"[1, {"x": "]"}]"#)),
            ("d", Token::Nested("{}")),
            ("t", Token::Bool(true)),
            ("f", Token::Bool(false)),
            ("n", Token::Null),
        ];
        assert_eq!(
            fields(line).unwrap(),
            wanted.map(|(name, token)| (name.to_string(), token))
        );
        assert_eq!(fields("{}"), Ok(vec![]));
    }

    #[test]
    fn finds_the_end_of_what_is_plain() {
        for special in [b'"', b'\\', 0, 0x1f] {
            for at in 0..24 {
                // Around it what differs from it least.
                for plain in [b' ', b'!', b'#', b'[', b']', 0x7f, 0x80, 0xa2, 0xdc, 0xff] {
                    let mut bytes = [plain; 24];
                    assert_eq!(plain_bytes(&bytes), 24, "{plain:#x}");
                    bytes[at] = special;
                    assert_eq!(plain_bytes(&bytes), at, "{special:#x} among {plain:#x}");
                    assert_eq!(plain_bytes(&bytes[..7]), 0);
                }
            }
        }
    }

    #[test]
    fn refuses_what_is_not_one() {
        for (line, wanted) in [
            ("", "expected '{' at byte 0"),
            ("x", "expected '{' at byte 0"),
            ("[1]", "JSON, but not an object"),
            ("5", "JSON, but not an object"),
            ("{", "expected a field name"),
            (r#"{"a"}"#, "expected ':' at byte 4"),
            (r#"{"a":}"#, "expected a value at byte 5"),
            (r#"{"a":1,}"#, "expected a field name in double quotes at byte 7"),
            (r#"{"a":1"#, "expected ',' or '}' at byte 6"),
            (r#"{"a":1} x"#, "expected the end of the line at byte 8"),
            (r#"{"a":01}"#, "a number that begins with 0 at byte 5"),
            (r#"{"a":1.}"#, "expected a digit"),
            (r#"{"a":1e}"#, "expected a digit"),
            (r#"{"a":-}"#, "expected a digit"),
            (r#"{"a":tru}"#, "expected a value"),
            (r#"{"a":truex}"#, "expected ',' or '}'"),
            (r#"{"a":"x"#, "a string without end"),
            (r#"{"a":"\"#, "a string without end"),
            (r#"{"a":"\x"}"#, "a wrong escape"),
            (r#"{"a":"\ud800"}"#, "a wrong escape"),
            ("{\"a\":\"\u{1}\"}", "a control character inside a string at byte 6"),
            (r#"{"a":[1}"#, "not JSON: "),
            (r#"{"a":{"#, "not JSON: "),
        ] {
            let refused = fields(line).unwrap_err();
            assert!(refused.contains(wanted), "{line}: {refused}");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { cases: 2000, failure_persistence: None, ..Default::default() })]

        /// Agrees with serde_json on what is an object, and on its keys; near misses come from cutting and exchanging bytes.
        #[test]
        fn agrees_with_serde_json(pieces in proptest::collection::vec(piece(), 0..8), cut in 0..40usize, byte in proptest::option::of(0..40usize)) {
            let mut line = format!("{{{}}}", pieces.join(","));
            if let Some(at) = byte
                && line.is_char_boundary(at) && at < line.len()
            {
                line.insert_str(at, ["\"", "\\", "0", "}", " ", "e"][at % 6]);
            } else if line.is_char_boundary(cut) && cut % 3 == 0 {
                line.truncate(cut.max(1));
            }
            let theirs = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&line);
            let ours = fields(&line);
            match (theirs, ours) {
                (Ok(map), Ok(fields)) => {
                    for (name, token) in &fields {
                        // Of a doubled name serde_json keeps the last value.
                        if fields.iter().rev().find(|(other, _)| other == name).is_some_and(|(_, last)| last == token) {
                            proptest::prop_assert!(same(token, &map[name]), "{}: {:?}", line, token);
                        }
                    }
                }
                // Floats beyond f64 are JSON, and kept as such.
                (Err(error), Ok(_)) => proptest::prop_assert!(error.to_string().contains("out of range"), "{}: {}", line, error),
                (Ok(_), Err(error)) => proptest::prop_assert!(false, "{}: {}", line, error),
                (Err(_), Err(_)) => {}
            }
        }
    }

    fn same(token: &Token<'_>, value: &serde_json::Value) -> bool {
        match token {
            Token::Null => value.is_null(),
            Token::Bool(v) => value.as_bool() == Some(*v),
            Token::Text(v) => value.as_str() == Some(v),
            Token::Nested(v) => serde_json::from_str::<serde_json::Value>(v).is_ok_and(|v| v == *value),
            // serde_json's own reading of a float may be off by its last bit.
            Token::Integer(v) | Token::Float(v) => match (value.as_f64(), v.parse::<f64>()) {
                (Some(theirs), Ok(ours)) => (theirs - ours).abs() <= ours.abs() * 1e-15,
                _ => false,
            },
            Token::Value(_) => false,
        }
    }

    fn piece() -> impl proptest::strategy::Strategy<Value = String> {
        use proptest::prelude::*;
        let scalar = prop_oneof![
            any::<i64>().prop_map(|v| v.to_string()),
            any::<f64>()
                .prop_filter("finite", |v| v.is_finite())
                .prop_map(|v| format!("{v:?}")),
            any::<String>().prop_map(|v| serde_json::to_string(&v).unwrap()),
            Just("null".to_string()),
            Just("true".to_string()),
            Just("-0".to_string()),
            Just("1e5".to_string()),
        ];
        let value = scalar.prop_recursive(3, 8, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(|items| format!("[{}]", items.join(" ,"))),
                inner.prop_map(|item| format!("{{\"k\":{item}}}")),
            ]
        });
        ("[a-c]|é", value).prop_map(|(name, value)| format!("{} : {value}", serde_json::to_string(&name).unwrap()))
    }
}
