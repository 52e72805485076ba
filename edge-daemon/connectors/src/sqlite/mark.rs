//! How far the changes of a table have been read: the last row of the journal, and of the table while that is read for the
//! first time. Knows the bytes of a position; reads no database.

use flow::{Fault, Position};
use serde::{Deserialize, Serialize};

use super::bookmark::Place;

/// First byte of a position of this mode; those of the cursor begin with another.
const FORM: u8 = 2;

/// What a position of this mode holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// The journal the number is of.
    pub journal: String,
    /// The last row of it that was given out or needs not be.
    pub seq: i64,
    /// Which rows of the table that row and those before it are about.
    pub at: At,
}

/// How much of the table has been read as it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum At {
    /// The rows up to this key, none if it is empty; changes of higher ones are left out, because they are yet to be read.
    Snapshot(Vec<Place>),
    /// All rows.
    Stream,
}

impl Mark {
    /// The bytes to store.
    pub(super) fn position(&self) -> Position {
        let start = vec![FORM];
        Position::new(postcard::to_extend(self, start).expect("a mark holds only types postcard can write"))
    }

    /// Reads a stored position of a source that reads this journal.
    pub(super) fn from_position(position: &Position, journal: &str) -> Result<Self, Fault> {
        let mark = position.as_bytes().split_first().filter(|(form, _)| **form == FORM);
        let mark: Option<Self> = mark.and_then(|(_, body)| postcard::from_bytes(body).ok());
        let mark = mark.ok_or_else(|| {
            Fault::stop(
                "the stored position is not one of a sqlite source with mode = \"changes\"; give the node another name \
                 to start over",
            )
        })?;
        if mark.journal != journal {
            let before = &mark.journal;
            return Err(Fault::stop(format!(
                "the stored position is one in the journal '{before}', but journal is now '{journal}': set \
                 journal = \"{before}\" again, or give the node another name to start over"
            )));
        }
        Ok(mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_come_back_exactly() {
        let key = vec![
            Place::Text(b"\xff".to_vec()),
            Place::Real(-0.5),
            Place::Integer(i64::MIN),
        ];
        for at in [At::Stream, At::Snapshot(vec![]), At::Snapshot(key)] {
            let mark = Mark {
                journal: "j".into(),
                seq: i64::MAX,
                at,
            };
            assert_eq!(Mark::from_position(&mark.position(), "j").unwrap(), mark);
            let fault = Mark::from_position(&mark.position(), "k").unwrap_err();
            assert!(fault.to_string().contains("journal = \"j\""), "{fault}");
        }
        for bytes in [&b""[..], b"\x01", b"\x02\x05", b"offset 12"] {
            let fault = Mark::from_position(&Position::new(bytes), "j").unwrap_err();
            assert!(matches!(fault, Fault::Stop { .. }), "{fault}");
        }
    }
}
