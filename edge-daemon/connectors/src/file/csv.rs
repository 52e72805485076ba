//! CSV after RFC 4180: where a record ends, and its fields. A quoted field may hold line ends; an empty field without
//! quotes is null, with quotes an empty text. Lines may end with CR LF or LF.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

/// One field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CsvField<'a> {
    pub text: Cow<'a, str>,
    pub quoted: bool,
}

/// Where the first record of `bytes` ends: the length of its content, and of it with its line end. `None` while its end is
/// not there yet. With `last`, the end of the bytes is the end of the record (but not inside quotes).
pub(crate) fn record_end(bytes: &[u8], delimiter: u8, last: bool) -> Option<(usize, usize)> {
    let line_end = memchr(b'\n', bytes);
    // Without quotes a record is a line: the case to be fast for.
    let plain = match line_end {
        Some(end) => memchr(b'"', &bytes[..end]).is_none().then_some(end),
        None if last && memchr(b'"', bytes).is_none() => Some(bytes.len()),
        None => None,
    };
    let end = match plain {
        Some(end) => end,
        None if line_end.is_none() && !last => return None,
        None => quoted_end(bytes, delimiter, last)?,
    };
    let content = if end > 0 && bytes[end - 1] == b'\r' {
        end - 1
    } else {
        end
    };
    Some((content, (end + 1).min(bytes.len())))
}

/// The end of a record with quotes in it: a line end outside of them.
fn quoted_end(bytes: &[u8], delimiter: u8, last: bool) -> Option<usize> {
    let mut at = 0;
    loop {
        // At the beginning of a field.
        if bytes.get(at) == Some(&b'"') {
            at = closing_quote(bytes, at)? + 1;
        }
        match memchr2(delimiter, b'\n', bytes.get(at..)?) {
            Some(step) if bytes[at + step] == b'\n' => return Some(at + step),
            Some(step) => at += step + 1,
            None => return last.then_some(bytes.len()),
        }
    }
}

/// Where the field that opens with a quote at `open` closes: two quotes in a row are one of its characters.
fn closing_quote(bytes: &[u8], open: usize) -> Option<usize> {
    let mut at = open + 1;
    loop {
        at += memchr(b'"', bytes.get(at..)?)?;
        if bytes.get(at + 1) != Some(&b'"') {
            return Some(at);
        }
        at += 2;
    }
}

/// The fields of a record (without its line end). Fails when something follows a closing quote, or one is missing.
pub(crate) fn fields<'a>(record: &'a str, delimiter: u8, out: &mut Vec<CsvField<'a>>) -> Result<(), String> {
    out.clear();
    let bytes = record.as_bytes();
    let mut at = 0;
    loop {
        let end = if bytes.get(at) == Some(&b'"') {
            let close = closing_quote(bytes, at).ok_or("a quoted field without its closing quote")?;
            let inner = &record[at + 1..close];
            let text = if inner.contains('"') {
                Cow::Owned(inner.replace("\"\"", "\""))
            } else {
                Cow::Borrowed(inner)
            };
            out.push(CsvField { text, quoted: true });
            if close + 1 < bytes.len() && bytes[close + 1] != delimiter {
                return Err(format!("field {} goes on after its closing quote", out.len()));
            }
            close + 1
        } else {
            let end = memchr(delimiter, &bytes[at..]).map_or(bytes.len(), |step| at + step);
            out.push(CsvField {
                text: Cow::Borrowed(&record[at..end]),
                quoted: false,
            });
            end
        };
        if end >= bytes.len() {
            return Ok(());
        }
        at = end + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(record: &str) -> Result<Vec<(String, bool)>, String> {
        let mut out = Vec::new();
        fields(record, b',', &mut out)?;
        Ok(out
            .into_iter()
            .map(|field| (field.text.into_owned(), field.quoted))
            .collect())
    }

    #[test]
    fn ends_of_records() {
        for (bytes, last, wanted) in [
            ("a,b\nc", false, Some((3, 4))),
            ("a,b\r\nc", false, Some((3, 5))),
            ("a,b", false, None),
            ("a,b", true, Some((3, 3))),
            ("\n", false, Some((0, 1))),
            ("\"a\nb\",c\nd", false, Some((7, 8))),
            ("\"a\"\"\nb\",c\nd", false, Some((9, 10))),
            ("x,\"a\nb", false, None),
            ("x,\"a\nb", true, None),
            ("x,\"a\nb\"", true, Some((7, 7))),
            ("x,\"a\"", false, None),
            ("5\" pipe,b\nc", false, Some((9, 10))),
            ("\"a\"x\ny", false, Some((4, 5))),
            ("\"a\"\r\ny", false, Some((3, 5))),
            ("", true, Some((0, 0))),
        ] {
            assert_eq!(record_end(bytes.as_bytes(), b',', last), wanted, "{bytes:?}");
        }
    }

    #[test]
    fn fields_of_records() {
        let plain = |text: &str| (text.to_string(), false);
        let quoted = |text: &str| (text.to_string(), true);
        for (record, wanted) in [
            ("", Ok(vec![plain("")])),
            (",", Ok(vec![plain(""), plain("")])),
            ("a,,\"\"", Ok(vec![plain("a"), plain(""), quoted("")])),
            ("\"a,\"\"b\nc\"\"\",d", Ok(vec![quoted("a,\"b\nc\""), plain("d")])),
            ("5\" pipe, x ", Ok(vec![plain("5\" pipe"), plain(" x ")])),
            ("\"a\"x,b", Err("field 1 goes on after its closing quote")),
            ("a,\"b", Err("a quoted field without its closing quote")),
        ] {
            assert_eq!(split(record), wanted.map_err(str::to_string), "{record:?}");
        }
    }

    proptest::proptest! {
        /// What the csv crate writes is read back, record by record.
        #[test]
        fn reads_what_the_csv_crate_writes(records in proptest::collection::vec(proptest::collection::vec("[a\",;\r\n é]{0,5}", 2..4), 1..5)) {
            let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
            for record in &records {
                writer.write_record(record).unwrap();
            }
            let bytes = writer.into_inner().unwrap();
            let (mut at, mut found) = (0, Vec::new());
            while at < bytes.len() {
                let (content, whole) = record_end(&bytes[at..], b',', false).unwrap();
                let record = std::str::from_utf8(&bytes[at..at + content]).unwrap();
                found.push(split(record).unwrap().into_iter().map(|(text, _)| text).collect::<Vec<_>>());
                at += whole;
            }
            proptest::prop_assert_eq!(found, records);
        }
    }
}
