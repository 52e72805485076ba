//! CSV that gets more columns after it was written: its rows get empty fields at their ends. Knows no record.

use std::io::{self, BufRead, BufReader, Read, Write};

/// Copies lines of CSV, with `more` at the end of each.
pub(super) fn widen(from: impl Read, to: &mut impl Write, more: &[u8]) -> io::Result<()> {
    let mut from = BufReader::new(from);
    let mut is_quoted = false;
    loop {
        let bytes = from.fill_buf()?;
        let Some((piece, end)) = next_piece(bytes) else {
            return Ok(());
        };
        to.write_all(piece)?;
        let length = piece.len() + usize::from(end.is_some());
        match end {
            // One in a quoted text is there twice, which changes nothing.
            Some(b'"') => is_quoted = !is_quoted,
            Some(_) if !is_quoted => to.write_all(more)?,
            _ => {}
        }
        if let Some(end) = end {
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
        for (text, wanted) in [
            ("", ""),
            ("1,x\n2,\"\"\n", "1,x,,\n2,\"\",,\n"),
            ("\"a\"\"\n\n\"\n1\n", "\"a\"\"\n\n\",,\n1,,\n"),
        ] {
            let (mut whole, mut drops) = (Vec::new(), Vec::new());
            widen(text.as_bytes(), &mut whole, b",,").unwrap();
            widen(Drops(text.as_bytes()), &mut drops, b",,").unwrap();
            assert_eq!(String::from_utf8(whole).unwrap(), wanted);
            assert_eq!(String::from_utf8(drops).unwrap(), wanted);
        }
    }
}
