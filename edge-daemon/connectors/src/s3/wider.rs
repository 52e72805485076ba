//! CSV that gets more columns after it was written: its rows get empty fields at their ends. Knows no record.

use std::io::{self, BufRead, BufReader, Read, Write};

/// Copies lines of CSV, with `more` at the end of each. Where there is a `header`, it takes the place of the first line.
pub(super) fn widen(from: impl Read, to: &mut impl Write, header: Option<&[u8]>, more: &[u8]) -> io::Result<()> {
    let mut from = BufReader::new(from);
    let (mut is_quoted, mut is_left_out) = (false, header.is_some());
    if let Some(header) = header {
        to.write_all(header)?;
    }
    loop {
        let bytes = from.fill_buf()?;
        let Some((piece, end)) = next_piece(bytes) else {
            return Ok(());
        };
        if !is_left_out {
            to.write_all(piece)?;
        }
        let length = piece.len() + usize::from(end.is_some());
        match end {
            // One in a quoted text is there twice, which changes nothing.
            Some(b'"') => is_quoted = !is_quoted,
            // The rows follow the header.
            Some(_) if !is_quoted && is_left_out => {
                is_left_out = false;
                from.consume(length);
                continue;
            }
            Some(_) if !is_quoted => to.write_all(more)?,
            _ => {}
        }
        if let Some(end) = end.filter(|_| !is_left_out) {
            to.write_all(&[end])?;
        }
        from.consume(length);
    }
}

/// The bytes up to a quote or an end of a line, and which of them it is; `None` of none.
fn next_piece(bytes: &[u8]) -> Option<(&[u8], Option<u8>)> {
    if bytes.is_empty() {
        return None;
    }
    let found = memchr::memchr2(b'"', b'\n', bytes).and_then(|at| bytes.split_at_checked(at));
    Some(found.map_or((bytes, None), |(piece, rest)| (piece, rest.first().copied())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one byte at a time.
    struct Drops<'a>(&'a [u8]);

    impl Read for Drops<'_> {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            let one = bytes.len().min(1);
            self.0.read(&mut bytes[..one])
        }
    }

    #[test]
    fn rows_get_fields_at_their_ends() {
        for (text, header, wanted) in [
            ("", None, ""),
            ("1,x\n2,\"\"\n", None, "1,x,,\n2,\"\",,\n"),
            ("n,s\n1,x\n", Some("n,s,a,b\n"), "n,s,a,b\n1,x,,\n"),
            ("\"n\n\"\n\"a\"\"\n\n\"\n", Some("h\n"), "h\n\"a\"\"\n\n\",,\n"),
        ] {
            let header = header.map(str::as_bytes);
            let (mut whole, mut drops) = (Vec::new(), Vec::new());
            widen(text.as_bytes(), &mut whole, header, b",,").unwrap();
            widen(Drops(text.as_bytes()), &mut drops, header, b",,").unwrap();
            assert_eq!(String::from_utf8(whole).unwrap(), wanted);
            assert_eq!(String::from_utf8(drops).unwrap(), wanted);
        }
    }
}
