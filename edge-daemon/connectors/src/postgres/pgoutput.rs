//! The messages of PostgreSQL's logical decoding plugin `pgoutput`, protocol version 1
//! (<https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>). Pure.

use super::page::Slot;

/// The bytes are no such message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    /// They end too soon, or too late.
    #[error("a message of {0} bytes does not end where it should")]
    Length(usize),
    /// A byte that says what follows says something else.
    #[error("a message has an unknown {what} {found:#04x}")]
    Unknown {
        /// What the byte stands for.
        what: &'static str,
        /// The byte.
        found: u8,
    },
    /// A name that is not UTF-8.
    #[error("a message has a name that is not UTF-8")]
    Name,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message<'a> {
    /// A transaction begins: where its commit stands in the log, and its number.
    Begin { commit: u64, xid: u32 },
    /// It ends: where the log goes on after it.
    Commit { end: u64 },
    /// What the rows of a table look like from here on.
    Relation(Relation),
    /// A row was inserted.
    Insert { relation: u32, new: Vec<Slot<'a>> },
    /// A row was changed.
    Update {
        relation: u32,
        old: Option<Old<'a>>,
        new: Vec<Slot<'a>>,
    },
    /// A row was removed.
    Delete { relation: u32, old: Old<'a> },
    /// Tables were emptied.
    Truncate { relations: Vec<u32> },
    /// Nothing that concerns rows.
    Other,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Relation {
    pub id: u32,
    pub schema: String,
    pub name: String,
    /// What is sent of a row before a change: all of it.
    pub is_full: bool,
    pub columns: Vec<RelationColumn>,
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RelationColumn {
    /// Part of what identifies a row.
    pub is_key: bool,
    pub name: String,
    pub type_oid: u32,
    pub modifier: i32,
}

/// A row before a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Old<'a> {
    /// Only what identifies it; the rest says null.
    Key(Vec<Slot<'a>>),
    /// All of it.
    Row(Vec<Slot<'a>>),
}

/// What is left of a message.
struct Rest<'a> {
    bytes: &'a [u8],
    whole: usize,
}

impl<'a> Rest<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self
            .bytes
            .split_at_checked(length)
            .ok_or(Malformed::Length(self.whole))?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed::Length(self.whole))
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    fn text(&mut self) -> Result<String, Malformed> {
        let end = memchr::memchr(0, self.bytes).ok_or(Malformed::Length(self.whole))?;
        let text = self.take(end)?;
        self.take(1)?;
        String::from_utf8(text.to_vec()).map_err(|_| Malformed::Name)
    }

    fn row(&mut self) -> Result<Vec<Slot<'a>>, Malformed> {
        let columns = self.u16()?;
        let mut row = Vec::new();
        for _ in 0..columns {
            row.push(match self.u8()? {
                b'n' => Slot::Null,
                b'u' => Slot::Unchanged,
                b't' => {
                    let length = self.u32()? as usize;
                    Slot::Text(self.take(length)?)
                }
                found => {
                    let what = "kind of value";
                    return Err(Malformed::Unknown { what, found });
                }
            });
        }
        Ok(row)
    }

    fn old(&mut self, kind: u8) -> Result<Old<'a>, Malformed> {
        match kind {
            b'K' => Ok(Old::Key(self.row()?)),
            b'O' => Ok(Old::Row(self.row()?)),
            found => Err(Malformed::Unknown {
                what: "kind of row",
                found,
            }),
        }
    }

    fn new_row(&mut self, kind: u8) -> Result<Vec<Slot<'a>>, Malformed> {
        match kind {
            b'N' => self.row(),
            found => Err(Malformed::Unknown {
                what: "kind of row",
                found,
            }),
        }
    }
}

/// Reads one message.
pub(super) fn parse(bytes: &[u8]) -> Result<Message<'_>, Malformed> {
    let mut rest = Rest {
        bytes,
        whole: bytes.len(),
    };
    let message = match rest.u8()? {
        b'B' => {
            let commit = rest.u64()?;
            let _time = rest.u64()?;
            Message::Begin {
                commit,
                xid: rest.u32()?,
            }
        }
        b'C' => {
            let _flags = rest.u8()?;
            let _commit = rest.u64()?;
            let end = rest.u64()?;
            let _time = rest.u64()?;
            Message::Commit { end }
        }
        b'R' => Message::Relation(relation(&mut rest)?),
        b'I' => {
            let relation = rest.u32()?;
            let kind = rest.u8()?;
            Message::Insert {
                relation,
                new: rest.new_row(kind)?,
            }
        }
        b'U' => {
            let relation = rest.u32()?;
            let mut kind = rest.u8()?;
            let mut old = None;
            if kind != b'N' {
                old = Some(rest.old(kind)?);
                kind = rest.u8()?;
            }
            Message::Update {
                relation,
                old,
                new: rest.new_row(kind)?,
            }
        }
        b'D' => {
            let relation = rest.u32()?;
            let kind = rest.u8()?;
            Message::Delete {
                relation,
                old: rest.old(kind)?,
            }
        }
        b'T' => {
            let count = rest.u32()?;
            let _options = rest.u8()?;
            let relations = (0..count).map(|_| rest.u32()).collect::<Result<_, _>>()?;
            Message::Truncate { relations }
        }
        // Where a transaction came from; a type; a message of a program's own.
        b'O' | b'Y' | b'M' => return Ok(Message::Other),
        found => {
            let what = "kind";
            return Err(Malformed::Unknown { what, found });
        }
    };
    match rest.bytes {
        [] => Ok(message),
        _ => Err(Malformed::Length(bytes.len())),
    }
}

fn relation(rest: &mut Rest<'_>) -> Result<Relation, Malformed> {
    let id = rest.u32()?;
    let schema = match rest.text()? {
        // What the catalog's own schema is sent as.
        schema if schema.is_empty() => "pg_catalog".to_string(),
        schema => schema,
    };
    let name = rest.text()?;
    let is_full = rest.u8()? == b'f';
    let count = rest.u16()?;
    let mut columns = Vec::new();
    for _ in 0..count {
        columns.push(RelationColumn {
            is_key: rest.u8()? & 1 == 1,
            name: rest.text()?,
            type_oid: rest.u32()?,
            modifier: rest.u32()? as i32,
        });
    }
    Ok(Relation {
        id,
        schema,
        name,
        is_full,
        columns,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROW: &[u8] = b"\0\x03nut\0\0\0\x02ab";
    const SLOTS: [Slot<'_>; 3] = [Slot::Null, Slot::Unchanged, Slot::Text(b"ab")];

    fn bytes(parts: &[&[u8]]) -> Vec<u8> {
        parts.concat()
    }

    fn messages() -> Vec<(Vec<u8>, Message<'static>)> {
        let new = || SLOTS.to_vec();
        let id = &[0, 0, 0, 7][..];
        let relation = Relation {
            id: 7,
            schema: "public".into(),
            name: "t".into(),
            is_full: true,
            columns: vec![RelationColumn {
                is_key: true,
                name: "ä".into(),
                type_oid: 23,
                modifier: -1,
            }],
        };
        vec![
            (
                bytes(&[b"B", &1u64.to_be_bytes(), &[0; 8], &[0, 0, 0, 9]]),
                Message::Begin { commit: 1, xid: 9 },
            ),
            (
                bytes(&[b"C\0", &1u64.to_be_bytes(), &2u64.to_be_bytes(), &[0; 8]]),
                Message::Commit { end: 2 },
            ),
            (
                bytes(&[
                    b"R",
                    id,
                    b"public\0t\0f\0\x01\x01",
                    "ä\0".as_bytes(),
                    &[0, 0, 0, 23],
                    &[255; 4],
                ]),
                Message::Relation(relation),
            ),
            (
                bytes(&[b"I", id, b"N", ROW]),
                Message::Insert {
                    relation: 7,
                    new: new(),
                },
            ),
            (
                bytes(&[b"U", id, b"N", ROW]),
                Message::Update {
                    relation: 7,
                    old: None,
                    new: new(),
                },
            ),
            (
                bytes(&[b"U", id, b"K", ROW, b"N", ROW]),
                Message::Update {
                    relation: 7,
                    old: Some(Old::Key(new())),
                    new: new(),
                },
            ),
            (
                bytes(&[b"D", id, b"O", ROW]),
                Message::Delete {
                    relation: 7,
                    old: Old::Row(new()),
                },
            ),
            (
                bytes(&[b"T", &[0, 0, 0, 1], b"\x01", id]),
                Message::Truncate { relations: vec![7] },
            ),
        ]
    }

    #[test]
    fn messages_are_read() {
        for (bytes, message) in messages() {
            assert_eq!(parse(&bytes).as_ref(), Ok(&message), "{bytes:?}");
        }
        for other in [&b"Oxx"[..], b"Y", b"M\0"] {
            assert_eq!(parse(other), Ok(Message::Other));
        }
    }

    #[test]
    fn parts_of_messages_are_refused() {
        for (bytes, _) in messages() {
            for length in 0..bytes.len() {
                assert_eq!(
                    parse(&bytes[..length]),
                    Err(Malformed::Length(length)),
                    "{bytes:?} {length}"
                );
            }
            let longer = [&bytes[..], b"\0"].concat();
            assert_eq!(parse(&longer), Err(Malformed::Length(longer.len())));
        }
        for (bytes, what, found) in [
            (&b"X"[..], "kind", b'X'),
            (b"I\0\0\0\x07K", "kind of row", b'K'),
            (b"U\0\0\0\x07X", "kind of row", b'X'),
            (b"I\0\0\0\x07N\0\x01b", "kind of value", b'b'),
        ] {
            assert_eq!(parse(bytes), Err(Malformed::Unknown { what, found }), "{bytes:?}");
        }
        assert_eq!(parse(b"R\0\0\0\x07\xff\0"), Err(Malformed::Name));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(kind in "[BCRIUDTOYM]", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&[kind.as_bytes(), &bytes].concat());
        }
    }
}
