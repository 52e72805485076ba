//! How far the SQLite source has read: the place of the last row in the order of the cursor column.
//! Knows the bytes of a position; reads no database.

use flow::{Fault, Position};
use rusqlite::{
    ToSql,
    types::{ToSqlOutput, ValueRef},
};
use serde::{Deserialize, Serialize};

/// First byte of every position, so that a later form can be told from this one.
const FORM: u8 = 1;
/// Longest text or blob a cursor value may be, in bytes: positions are stored with every batch.
pub(super) const PLACE_BYTES_MAX: usize = 8 * 1024;

/// A value of the cursor column, exactly as stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Place {
    /// A whole number.
    Integer(i64),
    /// A float.
    Real(f64),
    /// Text; usually UTF-8, but nothing in SQLite makes sure.
    Text(#[serde(with = "serde_bytes")] Vec<u8>),
    /// Bytes.
    Blob(#[serde(with = "serde_bytes")] Vec<u8>),
}

impl Place {
    /// Takes over the value of a row, into the same memory where it can. `false`: the value is NULL and has no place.
    pub(super) fn set(slot: &mut Option<Place>, value: ValueRef<'_>) -> bool {
        match (value, slot) {
            (ValueRef::Null, _) => return false,
            (ValueRef::Integer(v), slot) => *slot = Some(Place::Integer(v)),
            (ValueRef::Real(v), slot) => *slot = Some(Place::Real(v)),
            (ValueRef::Text(v), Some(Place::Text(held))) | (ValueRef::Blob(v), Some(Place::Blob(held))) => {
                held.clear();
                held.extend_from_slice(v);
            }
            (ValueRef::Text(v), slot) => *slot = Some(Place::Text(v.to_vec())),
            (ValueRef::Blob(v), slot) => *slot = Some(Place::Blob(v.to_vec())),
        }
        true
    }

    /// Bytes it takes in a position.
    pub(super) fn len(&self) -> usize {
        match self {
            Place::Integer(_) | Place::Real(_) => 8,
            Place::Text(v) | Place::Blob(v) => v.len(),
        }
    }
}

impl ToSql for Place {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Place::Integer(v) => ValueRef::Integer(*v),
            Place::Real(v) => ValueRef::Real(*v),
            Place::Text(v) => ValueRef::Text(v),
            Place::Blob(v) => ValueRef::Blob(v),
        }))
    }
}

/// What a position of this source holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Bookmark {
    /// The column the places are of: a position is useless for another one.
    pub cursor: String,
    /// The cursor value of the last row read; `None` before the first.
    pub place: Option<Place>,
    /// That row's rowid, where rows of equal cursor values are told apart by it.
    pub rowid: Option<i64>,
    /// The highest rowid among rows that have NULL for a cursor value and were reported.
    pub nulls: Option<i64>,
}

impl Bookmark {
    /// The bytes to store.
    pub(super) fn position(&self) -> Position {
        let start = vec![FORM];
        Position::new(postcard::to_extend(self, start).expect("a bookmark holds only types postcard can write"))
    }

    /// Reads a stored position of a source that now reads by `cursor`.
    pub(super) fn from_position(position: &Position, cursor: &str) -> Result<Self, Fault> {
        let foreign = || {
            Fault::stop("the stored position is not one of a sqlite source; give the node another name to start over")
        };
        let (form, body) = position.as_bytes().split_first().ok_or_else(foreign)?;
        if *form != FORM {
            return Err(foreign());
        }
        let bookmark: Self = postcard::from_bytes(body).map_err(|_| foreign())?;
        if bookmark.cursor != cursor {
            let before = &bookmark.cursor;
            return Err(Fault::stop(format!(
                "the stored position is a value of column '{before}', but cursor is now '{cursor}': \
                 set cursor = \"{before}\" again, or give the node another name to start over"
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
        for place in [
            None,
            Some(Place::Integer(i64::MIN)),
            Some(Place::Real(-0.0)),
            Some(Place::Real(f64::INFINITY)),
            Some(Place::Text(b"\xff not UTF-8".to_vec())),
            Some(Place::Blob(vec![0; PLACE_BYTES_MAX])),
        ] {
            let bookmark = Bookmark {
                cursor: "ts".into(),
                place,
                rowid: Some(-1),
                nulls: Some(i64::MAX),
            };
            let position = bookmark.position();
            assert_eq!(Bookmark::from_position(&position, "ts").unwrap(), bookmark);
            let fault = Bookmark::from_position(&position, "id").unwrap_err();
            assert!(fault.to_string().contains("cursor = \"ts\""), "{fault}");
        }
        for bytes in [&b""[..], b"\x02", b"\x01\x05", b"offset 12"] {
            let fault = Bookmark::from_position(&Position::new(bytes), "id").unwrap_err();
            assert!(
                matches!(&fault, Fault::Stop { cause } if cause.contains("not one of a sqlite source")),
                "{fault}"
            );
        }
    }
}
