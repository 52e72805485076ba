//! Text of the binary log, which is in the character set of its column, as UTF-8. Pure.

/// What the bytes of a column are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Charset {
    /// No text.
    Binary,
    /// utf8mb4, utf8mb3 or ascii: as it is.
    Utf8,
    /// What MySQL calls latin1: Windows-1252.
    Latin1,
    /// ucs2 and utf16, the high byte first.
    Utf16,
    Utf16Le,
    Utf32,
    /// One that is not read here.
    Other(String),
}

/// Windows-1252 from 0x80 to 0x9f; the five that are nothing there are what they are by number, as in MySQL.
const LATIN1_HIGH: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}', '‘', '’',
    '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

impl Charset {
    /// By the server's name for it.
    pub(super) fn named(name: &str) -> Self {
        match name {
            "binary" => Self::Binary,
            "utf8" | "utf8mb3" | "utf8mb4" | "ascii" => Self::Utf8,
            "latin1" => Self::Latin1,
            "ucs2" | "utf16" => Self::Utf16,
            "utf16le" => Self::Utf16Le,
            "utf32" => Self::Utf32,
            other => Self::Other(other.to_string()),
        }
    }

    /// Appends bytes as UTF-8; those that are no text as they are, for somebody else to refuse.
    pub(super) fn write(&self, bytes: &[u8], out: &mut Vec<u8>) {
        let text: Option<String> = match self {
            Self::Binary | Self::Utf8 | Self::Other(_) => None,
            Self::Latin1 => Some(bytes.iter().map(|byte| latin1(*byte)).collect()),
            Self::Utf16 => utf16(bytes, u16::from_be_bytes),
            Self::Utf16Le => utf16(bytes, u16::from_le_bytes),
            Self::Utf32 => {
                let chars = bytes.chunks(4);
                let chars = chars.map(|four| {
                    <[u8; 4]>::try_from(four)
                        .ok()
                        .and_then(|it| char::from_u32(u32::from_be_bytes(it)))
                });
                chars.collect()
            }
        };
        match text {
            Some(text) => out.extend_from_slice(text.as_bytes()),
            None => out.extend_from_slice(bytes),
        }
    }
}

fn latin1(byte: u8) -> char {
    match byte {
        0x80..=0x9f => LATIN1_HIGH[usize::from(byte - 0x80)],
        other => char::from(other),
    }
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Option<String> {
    let units = bytes.chunks(2).map(|two| two.try_into().ok().map(unit));
    String::from_utf16(&units.collect::<Option<Vec<u16>>>()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_utf_8() {
        for (name, bytes, wanted) in [
            ("utf8mb4", "ä😀".as_bytes(), "ä😀".as_bytes()),
            ("latin1", b"\xe4\x80\x81", "ä€\u{81}".as_bytes()),
            ("ucs2", b"\x00a\x20\xac", "a€".as_bytes()),
            ("utf16", b"\xd8\x3d\xde\x00", "😀".as_bytes()),
            ("utf16le", b"\x3d\xd8\x00\xde", "😀".as_bytes()),
            ("utf32", b"\x00\x01\xf6\x00", "😀".as_bytes()),
            // Half a character is none.
            ("utf16", b"\xd8\x3d", b"\xd8\x3d"),
            ("binary", b"\xff\x00", b"\xff\x00"),
        ] {
            let mut out = Vec::new();
            Charset::named(name).write(bytes, &mut out);
            assert_eq!(out, wanted, "{name}");
        }
        assert_eq!(Charset::named("gbk"), Charset::Other("gbk".into()));
    }
}
