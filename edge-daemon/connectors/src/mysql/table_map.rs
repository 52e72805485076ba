//! What an event of the binary log says a table looks like: names, types, character sets and the key of its columns. Pure.
//!
//! All of it is in the log only with `binlog_row_metadata = FULL`. Then it is what the table was at that moment, whatever has
//! been altered since.

use super::{
    binlog::Bits,
    bytes::{Broken, Bytes},
};

/// Types of columns, by the number the log has for them.
pub(super) mod ty {
    pub const DECIMAL: u8 = 0;
    pub const TINY: u8 = 1;
    pub const SHORT: u8 = 2;
    pub const LONG: u8 = 3;
    pub const FLOAT: u8 = 4;
    pub const DOUBLE: u8 = 5;
    pub const LONGLONG: u8 = 8;
    pub const INT24: u8 = 9;
    pub const DATE: u8 = 10;
    pub const YEAR: u8 = 13;
    pub const NEWDATE: u8 = 14;
    pub const VARCHAR: u8 = 15;
    pub const BIT: u8 = 16;
    pub const TIMESTAMP2: u8 = 17;
    pub const DATETIME2: u8 = 18;
    pub const TIME2: u8 = 19;
    /// MariaDB's columns that are COMPRESSED.
    pub const PACKED_BLOB: u8 = 140;
    pub const PACKED_VARCHAR: u8 = 141;
    pub const VECTOR: u8 = 242;
    pub const JSON: u8 = 245;
    pub const NEWDECIMAL: u8 = 246;
    pub const ENUM: u8 = 247;
    pub const SET: u8 = 248;
    pub const TINY_BLOB: u8 = 249;
    pub const BLOB: u8 = 252;
    pub const VAR_STRING: u8 = 253;
    pub const STRING: u8 = 254;
    pub const GEOMETRY: u8 = 255;
}

/// More columns than any server allows are no table.
const COLUMNS_MAX: usize = 4096;

/// A table at some moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableMap {
    /// What events with rows call it.
    pub id: u64,
    pub database: String,
    pub table: String,
    pub columns: Vec<Column>,
    /// Where the columns of the primary key stand.
    pub key: Vec<usize>,
}

/// A column at some moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Column {
    /// Empty when the log does not say.
    pub name: String,
    pub ty: u8,
    /// Sizes that the type has.
    pub meta: [u8; 2],
    pub nullable: bool,
    pub unsigned: bool,
    /// The number of its collation, if it holds text or bytes.
    pub collation: Option<u16>,
    /// The values of an enum or a set.
    pub values: Vec<Vec<u8>>,
}

impl Column {
    /// Longest value of a `char` or `binary`, in bytes.
    pub(super) fn fixed_bytes(&self) -> usize {
        let [high, low] = self.meta.map(usize::from);
        // Two bits of the length are hidden, inverted, in the byte of the type.
        if high & 0x30 == 0x30 {
            low
        } else {
            low | ((high & 0x30) ^ 0x30) << 4
        }
    }

    fn is_number(&self) -> bool {
        matches!(
            self.ty,
            ty::DECIMAL
                | ty::TINY
                | ty::SHORT
                | ty::LONG
                | ty::FLOAT
                | ty::DOUBLE
                | ty::LONGLONG
                | ty::INT24
                | ty::YEAR
                | ty::NEWDECIMAL
        )
    }

    fn is_text(&self) -> bool {
        matches!(
            self.ty,
            ty::VARCHAR | ty::VAR_STRING | ty::STRING | ty::TINY_BLOB..=ty::BLOB | ty::PACKED_BLOB | ty::PACKED_VARCHAR
        )
    }

    fn is_named(&self) -> bool {
        matches!(self.ty, ty::ENUM | ty::SET)
    }
}

/// The table's number, its database and its name: enough to know whether it is of interest.
pub(super) fn name(data: &[u8]) -> Result<(u64, String, String), Broken> {
    let (id, database, table, _) = head(data)?;
    Ok((id, database, table))
}

fn head(data: &[u8]) -> Result<(u64, String, String, Bytes<'_>), Broken> {
    let mut bytes = Bytes::new(data, "description of a table");
    let id = bytes.number(6)?;
    bytes.take(2)?;
    let mut name = || {
        let length = bytes.number(1)? as usize;
        let name = String::from_utf8_lossy(bytes.take(length)?).into_owned();
        bytes.take(1)?;
        Ok::<_, Broken>(name)
    };
    let (database, table) = (name()?, name()?);
    Ok((id, database, table, bytes))
}

impl TableMap {
    /// Reads the description.
    pub(super) fn parse(data: &[u8]) -> Result<Self, Broken> {
        let (id, database, table, mut bytes) = head(data)?;
        let broken = Broken("description of a table");
        let count = bytes.count()?;
        if count > COLUMNS_MAX {
            return Err(broken);
        }
        let types = bytes.take(count)?;
        let mut metas = Bytes::new(bytes.counted()?, "description of a column");
        let nullable = Bits::take(&mut bytes, count)?;
        let mut columns = Vec::with_capacity(count);
        for (index, ty) in types.iter().enumerate() {
            let meta = meta(*ty, &mut metas)?;
            // An enum or a set comes as a string, with its own type in front of its size.
            let is_named = *ty == ty::STRING && matches!(meta[0], ty::ENUM | ty::SET);
            columns.push(Column {
                ty: if is_named { meta[0] } else { *ty },
                meta,
                nullable: nullable.has(index),
                ..Column::default()
            });
        }
        let mut map = Self {
            id,
            database,
            table,
            columns,
            key: Vec::new(),
        };
        while !bytes.is_empty() {
            let kind = bytes.number(1)? as u8;
            let value = bytes.counted()?;
            map.more(kind, Bytes::new(value, "description of a column"))?;
        }
        Ok(map)
    }

    /// One of the things that are only said with `binlog_row_metadata`.
    fn more(&mut self, kind: u8, mut value: Bytes<'_>) -> Result<(), Broken> {
        let broken = Broken("description of a column");
        let columns = &mut self.columns;
        match kind {
            1 => {
                let bits = value.rest();
                let numbers = columns.iter_mut().filter(|column| column.is_number());
                // Here the first is in the highest bit.
                for (index, column) in numbers.enumerate() {
                    let byte = bits.get(index / 8).ok_or(broken)?;
                    column.unsigned = byte >> (7 - index % 8) & 1 == 1;
                }
            }
            2 | 3 => collations(kind == 2, columns.iter_mut().filter(|column| column.is_text()), value)?,
            4 => {
                for column in columns.iter_mut() {
                    column.name = String::from_utf8_lossy(value.counted()?).into_owned();
                }
            }
            5 | 6 => {
                let wanted = if kind == 5 { ty::SET } else { ty::ENUM };
                for column in columns.iter_mut().filter(|column| column.ty == wanted) {
                    let count = value.count()?;
                    column.values = (0..count.min(value.len()))
                        .map(|_| value.counted().map(<[u8]>::to_vec))
                        .collect::<Result<_, _>>()?;
                }
            }
            8 | 9 => {
                while !value.is_empty() {
                    let index = value.count()?;
                    if index >= columns.len() {
                        return Err(broken);
                    }
                    self.key.push(index);
                    if kind == 9 {
                        // How much of it is in the key.
                        value.count()?;
                    }
                }
            }
            10 | 11 => collations(kind == 10, columns.iter_mut().filter(|column| column.is_named()), value)?,
            // Kinds of geometry, what is visible, and what comes with later servers.
            _ => {}
        }
        Ok(())
    }

    /// The log says what the columns are called.
    pub(super) fn has_names(&self) -> bool {
        self.columns.iter().all(|column| !column.name.is_empty())
    }
}

/// The sizes of a type; the order of the bytes differs between types.
fn meta(ty: u8, metas: &mut Bytes<'_>) -> Result<[u8; 2], Broken> {
    Ok(match ty {
        ty::FLOAT
        | ty::DOUBLE
        | ty::TIMESTAMP2
        | ty::DATETIME2
        | ty::TIME2
        | ty::JSON
        | ty::VECTOR
        | ty::GEOMETRY
        | ty::PACKED_BLOB
        | ty::TINY_BLOB..=ty::BLOB => [metas.number(1)? as u8, 0],
        ty::VARCHAR
        | ty::PACKED_VARCHAR
        | ty::BIT
        | ty::NEWDECIMAL
        | ty::ENUM
        | ty::SET
        | ty::VAR_STRING
        | ty::STRING => {
            let both = metas.take(2)?;
            [both[0], both[1]]
        }
        _ => [0, 0],
    })
}

/// Numbers of collations: of each column, or of most and those that differ.
fn collations<'c>(
    has_default: bool,
    columns: impl Iterator<Item = &'c mut Column>,
    mut value: Bytes<'_>,
) -> Result<(), Broken> {
    let broken = Broken("character set");
    let number = |value: &mut Bytes<'_>| u16::try_from(value.count()?).map_err(|_| broken);
    let mut columns: Vec<&mut Column> = columns.collect();
    if !has_default {
        for column in columns {
            column.collation = Some(number(&mut value)?);
        }
        return Ok(());
    }
    let default = number(&mut value)?;
    for column in &mut columns {
        column.collation = Some(default);
    }
    while !value.is_empty() {
        let index = value.count()?;
        columns.get_mut(index).ok_or(broken)?.collation = Some(number(&mut value)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_described_table_is_understood() {
        // id bigint unsigned primary key, e enum('x','yy') latin1, c char(255) utf8mb4 null, n int
        let mut data = vec![9, 0, 0, 0, 0, 0, 1, 0];
        data.extend(b"\x01d\0\x01t\0\x04");
        data.extend([ty::LONGLONG, ty::STRING, ty::STRING, ty::LONG]);
        data.extend([4, ty::ENUM, 1, 0xce, 0xfc]);
        data.push(0b0100);
        data.extend([1, 1, 0b1000_0000]);
        data.extend([3, 1, 45]);
        // Names are 2 + 1 + 1 + 1 letters and their lengths.
        data.extend(b"\x04\x09\x02id\x01e\x01c\x01n");
        data.extend([6, 6, 2, 1, b'x', 2, b'y', b'y']);
        data.extend([8, 1, 0]);
        data.extend([11, 1, 8]);
        let map = TableMap::parse(&data).unwrap();
        assert_eq!((map.id, map.database.as_str(), map.table.as_str()), (9, "d", "t"));
        assert_eq!((map.key.as_slice(), map.has_names()), (&[0][..], true));
        let names: Vec<_> = map.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, ["id", "e", "c", "n"]);
        let [id, e, c, n] = &map.columns[..] else { panic!() };
        assert!(id.unsigned && !n.unsigned && c.nullable && !id.nullable);
        assert_eq!((e.ty, e.collation), (ty::ENUM, Some(8)));
        assert_eq!(e.values, [b"x".to_vec(), b"yy".to_vec()]);
        // 255 characters of four bytes.
        assert_eq!((c.fixed_bytes(), c.collation), (1020, Some(45)));
        assert_eq!(name(&data).unwrap(), (9, "d".into(), "t".into()));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(data in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = TableMap::parse(&data);
        }

        #[test]
        fn nor_do_descriptions_that_break_off(tail in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut data = vec![9, 0, 0, 0, 0, 0, 1, 0];
            data.extend(b"\x01d\0\x01t\0\x02");
            data.extend([ty::STRING, ty::LONG, 2, ty::SET, 1, 0]);
            data.extend(tail);
            let _ = TableMap::parse(&data);
        }
    }
}
