//! Where messages end in a stream of TCP (RFC 6587): counted, or ended by a line end or a zero byte. Performs no I/O.

use super::MESSAGE_BYTES_MAX;

/// Digits of the longest count.
const COUNT_DIGITS_MAX: usize = 6;

/// A piece of a stream.
#[derive(Debug, PartialEq)]
pub(super) enum Piece {
    Message(Vec<u8>),
    /// Of a message that is too long: its beginning.
    TooLong(Vec<u8>),
}

/// The stream can no longer be told apart.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("the count of a message is not a number of at most {MESSAGE_BYTES_MAX}")]
pub(super) struct Broken;

/// What has come of one connection.
#[derive(Default)]
pub(super) struct Frames {
    bytes: Vec<u8>,
    used: usize,
    /// In the rest of a message that is too long.
    skipping: bool,
}

impl Frames {
    /// Where more bytes go.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        self.bytes.drain(..self.used);
        self.used = 0;
        &mut self.bytes
    }

    /// The next message, as far as it is there. `last`: nothing more will come.
    pub(super) fn next(&mut self, last: bool) -> Result<Option<Piece>, Broken> {
        loop {
            let rest = &self.bytes[self.used..];
            let Some(first) = rest.first() else { return Ok(None) };
            if first.is_ascii_digit() && !self.skipping {
                return self.counted(last);
            }
            match memchr::memchr2(b'\n', 0, rest) {
                Some(end) => {
                    let message = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
                    let is_wanted = !std::mem::take(&mut self.skipping) && !message.is_empty();
                    let piece = is_wanted.then(|| piece(message));
                    self.used += end + 1;
                    if piece.is_some() {
                        return Ok(piece);
                    }
                }
                None if last || rest.len() > MESSAGE_BYTES_MAX => {
                    let piece = (!self.skipping).then(|| piece(rest));
                    self.skipping = !last;
                    self.used = self.bytes.len();
                    return Ok(piece);
                }
                None => return Ok(None),
            }
        }
    }

    fn counted(&mut self, last: bool) -> Result<Option<Piece>, Broken> {
        let rest = &self.bytes[self.used..];
        let head = &rest[..rest.len().min(COUNT_DIGITS_MAX + 1)];
        let Some(digits) = head.iter().position(|byte| *byte == b' ') else {
            let is_short = head.len() <= COUNT_DIGITS_MAX && head.iter().all(u8::is_ascii_digit);
            return if is_short && !last { Ok(None) } else { Err(Broken) };
        };
        let count = std::str::from_utf8(&head[..digits])
            .ok()
            .and_then(|text| text.parse().ok());
        let count: usize = count.filter(|count| *count <= MESSAGE_BYTES_MAX).ok_or(Broken)?;
        let message = &rest[digits + 1..];
        if message.len() < count && !last {
            return Ok(None);
        }
        let message = message[..count.min(message.len())].to_vec();
        self.used += digits + 1 + message.len();
        Ok(Some(Piece::Message(message)))
    }
}

fn piece(message: &[u8]) -> Piece {
    if message.len() > MESSAGE_BYTES_MAX {
        Piece::TooLong(message[..MESSAGE_BYTES_MAX].to_vec())
    } else {
        Piece::Message(message.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(stream: &[u8], step: usize) -> (Vec<String>, bool) {
        let (mut frames, mut found) = (Frames::default(), Vec::new());
        let mut take = |frames: &mut Frames, last| loop {
            match frames.next(last) {
                Ok(Some(Piece::Message(message))) => found.push(String::from_utf8(message).unwrap()),
                Ok(Some(Piece::TooLong(message))) => found.push(format!("{} bytes", message.len())),
                Ok(None) => return true,
                Err(Broken) => return false,
            }
        };
        for part in stream.chunks(step) {
            frames.buffer().extend_from_slice(part);
            if !take(&mut frames, false) {
                return (found, true);
            }
        }
        let is_broken = !take(&mut frames, true);
        (found, is_broken)
    }

    #[test]
    fn counted_or_ended() {
        let long = "x".repeat(MESSAGE_BYTES_MAX + 10);
        let cut = format!("{MESSAGE_BYTES_MAX} bytes");
        for step in [1, 2, 5, 100_000] {
            for (stream, wanted, is_broken) in [
                (
                    "<1>a\n<2>b\r\n\n<3>c\0<4>last".to_string(),
                    vec!["<1>a", "<2>b", "<3>c", "<4>last"],
                    false,
                ),
                (
                    "5 <1>a\n6 <2>bb\n3 <3>".to_string(),
                    vec!["<1>a\n", "<2>bb\n", "<3>"],
                    false,
                ),
                ("4 <1>a<2>b\n".to_string(), vec!["<1>a", "<2>b"], false),
                (format!("{long}\n<1>a\n"), vec![&*cut, "<1>a"], false),
                ("9 <1>cut".to_string(), vec!["<1>cut"], false),
                ("<1>a\n9999999 x".to_string(), vec!["<1>a"], true),
                ("65537 x".to_string(), vec![], true),
                ("12x".to_string(), vec![], true),
            ] {
                assert_eq!(
                    pieces(stream.as_bytes(), step),
                    (wanted.iter().map(ToString::to_string).collect(), is_broken),
                    "{step}"
                );
            }
        }
    }
}
