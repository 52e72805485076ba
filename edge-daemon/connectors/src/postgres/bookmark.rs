//! How far a cursor source has read: the last row's values of the cursor columns. Knows the bytes of a position; reads no
//! database.

use flow::{Fault, Position};
use serde::{Deserialize, Serialize};

/// First byte of a position of this mode, so that another one's can be told from it.
const FORM: u8 = 1;
/// Most bytes of cursor values: positions are stored with every batch.
pub(crate) const PLACE_BYTES_MAX: usize = 8 * 1024;

/// What a position of this source holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bookmark {
    /// The columns the place is of: a position is useless for others.
    pub cursor: Vec<String>,
    /// Their values in the last row read, as the database writes them; `None` before the first.
    pub place: Option<Vec<String>>,
}

impl Bookmark {
    /// The bytes to store.
    pub(crate) fn position(&self) -> Position {
        let start = vec![FORM];
        Position::new(postcard::to_extend(self, start).expect("a bookmark holds only types postcard can write"))
    }

    /// Reads a stored position of a `source` (its type) that now reads by `cursor`.
    pub(crate) fn from_position(position: &Position, cursor: &[String], source: &str) -> Result<Self, Fault> {
        let foreign = || {
            Fault::stop(format!(
                "the stored position is not one of a {source} source in cursor mode; give the node another name to start over"
            ))
        };
        let (form, body) = position.as_bytes().split_first().ok_or_else(foreign)?;
        if *form != FORM {
            return Err(foreign());
        }
        let bookmark: Self = postcard::from_bytes(body).map_err(|_| foreign())?;
        let fits = bookmark
            .place
            .as_ref()
            .is_none_or(|place| place.len() == bookmark.cursor.len());
        if !fits {
            return Err(foreign());
        }
        if bookmark.cursor != cursor {
            let (before, now) = (bookmark.cursor.join(", "), cursor.join(", "));
            return Err(Fault::stop(format!(
                "the stored position is a place in the order of ({before}), and rows are now read in the order of \
                 ({now}): set cursor to the first columns of the former again (the primary key follows by itself), or \
                 give the node another name to start over"
            )));
        }
        Ok(bookmark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_come_back_exactly() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        for place in [None, Some(names(&["2024-01-01 00:00:00+00", "'ä"]))] {
            let bookmark = Bookmark {
                cursor: names(&["at", "id"]),
                place,
            };
            let position = bookmark.position();
            assert_eq!(
                Bookmark::from_position(&position, &bookmark.cursor, "postgres").unwrap(),
                bookmark
            );
            let fault = Bookmark::from_position(&position, &names(&["id"]), "postgres").unwrap_err();
            assert!(fault.to_string().contains("order of (at, id)"), "{fault}");
        }
        let uneven = Bookmark {
            cursor: names(&["at", "id"]),
            place: Some(names(&["1"])),
        };
        for bytes in [
            &b""[..],
            b"\x02",
            b"\x01\x05",
            b"offset 12",
            uneven.position().as_bytes(),
        ] {
            let fault = Bookmark::from_position(&Position::new(bytes), &names(&["at", "id"]), "postgres").unwrap_err();
            assert!(
                matches!(&fault, Fault::Stop { cause } if cause.contains("not one of a postgres source in cursor mode")),
                "{fault}"
            );
        }
    }
}
