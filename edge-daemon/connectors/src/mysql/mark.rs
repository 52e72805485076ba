//! Where in the binary log a source is: places, and the bytes of a position. Reads nothing.

use flow::{Fault, Position};
use serde::{Deserialize, Serialize};

/// First byte of a position of this mode; those of the cursor begin with another.
const FORM: u8 = 2;
/// XA transactions that are remembered at a time: with names of the greatest length they still fit into a position.
const PREPARED_MAX: usize = 32;

/// A place in the log, between two events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// `NAME.NUMBER`; the numbers rise.
    pub file: String,
    pub offset: u64,
}

impl Place {
    /// Whether everything before `self` is before `other` too.
    pub(super) fn is_before(&self, other: &Place) -> bool {
        let number = |place: &Place| {
            place
                .file
                .rsplit('.')
                .next()
                .and_then(|number| number.parse::<u64>().ok())
        };
        (number(self), self.offset) < (number(other), other.offset)
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.offset)
    }
}

/// What a position of this mode holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// `database.table`.
    pub table: String,
    /// When the file of the place was begun, and by which server: another one may have files of the same names.
    pub made: Made,
    /// Everything before has been given out, or is in the snapshot.
    pub place: Place,
    /// Rows read at different times are in the snapshot: what was committed before this place may be in it, or not.
    pub settled: Option<Place>,
    /// Where it goes on.
    pub at: At,
    /// The names of XA transactions whose changes have been given out, and which may yet be rolled back; the oldest first.
    #[serde(skip)]
    pub prepared: Vec<String>,
}

/// What a file of the log is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Made {
    pub server_id: u32,
    /// Seconds since 1970.
    pub second: u32,
}

/// Where it goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum At {
    /// In the snapshot, after the row of this key.
    Snapshot(Vec<String>),
    /// In the log. Of the transaction after the place, so many changes have been given out.
    Stream { changes: u64 },
}

impl Mark {
    /// The bytes to store.
    pub(super) fn position(&self) -> Position {
        let mut bytes = vec![FORM];
        bytes = postcard::to_extend(self, bytes).expect("a mark holds only types postcard can write");
        // Behind the rest and seldom there: positions without it are as they always were.
        if !self.prepared.is_empty() {
            bytes = postcard::to_extend(&self.prepared, bytes).expect("names are text");
        }
        Position::new(bytes)
    }

    /// Remembers an XA transaction whose changes have been given out. The one that had to be forgotten for it, if any.
    pub(super) fn prepare(&mut self, name: String) -> Option<String> {
        self.prepared.retain(|known| *known != name);
        let forgotten = (self.prepared.len() >= PREPARED_MAX).then(|| self.prepared.remove(0));
        self.prepared.push(name);
        forgotten
    }

    /// Reads a stored position of a source of the changes of `table`.
    pub(super) fn from_position(position: &Position, table: &str) -> Result<Self, Fault> {
        let mark = position.as_bytes().split_first().filter(|(form, _)| **form == FORM);
        let mark: Option<Self> = mark.and_then(|(_, body)| {
            let (mut mark, rest) = postcard::take_from_bytes::<Self>(body).ok()?;
            if !rest.is_empty() {
                mark.prepared = postcard::from_bytes(rest).ok()?;
            }
            Some(mark)
        });
        let mark = mark.ok_or_else(|| {
            Fault::stop(
                "the stored position is not one of a mysql source with mode = \"changes\"; give the node another name to \
                 start over",
            )
        })?;
        if mark.table != table {
            return Err(Fault::stop(format!(
                "the stored position is one of the table {}, and the table is now {table}: name it again, or give the \
                 node another name to start over",
                mark.table
            )));
        }
        Ok(mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(file: &str, offset: u64) -> Place {
        Place {
            file: file.into(),
            offset,
        }
    }

    #[test]
    fn places_have_an_order() {
        for (a, b, is_before) in [
            (place("log.000001", 9), place("log.000002", 4), true),
            (place("log.999999", 9), place("log.1000000", 4), true),
            (place("log.000001", 4), place("log.000001", 9), true),
            (place("log.000001", 9), place("log.000001", 9), false),
            (place("log.000002", 4), place("log.000001", 9), false),
        ] {
            assert_eq!(a.is_before(&b), is_before, "{a} {b}");
        }
    }

    #[test]
    fn prepared_transactions_are_remembered_within_a_bound() {
        let mut mark = Mark {
            table: "d".repeat(64) + "." + &"t".repeat(64),
            made: Made {
                server_id: u32::MAX,
                second: u32::MAX,
            },
            place: place(&"l".repeat(255), u64::MAX),
            settled: Some(place(&"l".repeat(255), u64::MAX)),
            at: At::Stream { changes: u64::MAX },
            prepared: Vec::new(),
        };
        // 64 bytes and 64 more, in hexadecimal.
        let name = |number: usize| format!("X'{:0128x}',X'{:0128x}',4294967295", number, 0);
        for number in 0..PREPARED_MAX {
            assert_eq!(mark.prepare(name(number)), None);
        }
        assert_eq!(mark.prepare(name(0)), None, "it is the newest now");
        assert_eq!(mark.prepare(name(PREPARED_MAX)), Some(name(1)));
        assert_eq!(mark.prepared.len(), PREPARED_MAX);
        assert!(mark.position().as_bytes().len() < bus_schema::limits::POSITION_BYTES_MAX);
    }

    #[test]
    fn positions_come_back_exactly() {
        for at in [
            At::Snapshot(vec!["7".into(), "ä'".into()]),
            At::Stream { changes: u64::MAX },
        ] {
            let mark = Mark {
                table: "d.t".into(),
                made: Made {
                    server_id: 1,
                    second: u32::MAX,
                },
                place: place("log.000001", u64::MAX),
                settled: Some(place("log.000002", 0)),
                at,
                prepared: Vec::new(),
            };
            assert_eq!(Mark::from_position(&mark.position(), "d.t").unwrap(), mark);
            let mut more = mark.clone();
            more.prepare("X'61',X'',1".into());
            assert_eq!(Mark::from_position(&more.position(), "d.t").unwrap(), more);
            // Who does not know of the names reads the rest.
            assert!(more.position().as_bytes().starts_with(mark.position().as_bytes()));
            let fault = Mark::from_position(&mark.position(), "d.u").unwrap_err();
            assert!(fault.to_string().contains("is now d.u"), "{fault}");
        }
        for bytes in [&b""[..], b"\x01", b"\x02\x05", b"offset"] {
            let fault = Mark::from_position(&Position::new(bytes), "d.t").unwrap_err();
            assert!(matches!(fault, Fault::Stop { .. }), "{fault}");
        }
    }
}
