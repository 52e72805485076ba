//! Events of the binary log, taken apart: which table, which columns, which rows. Pure: knows no connection, and not what the
//! bytes of a value mean (that is `value`).
//!
//! The layout is that of MySQL's `libbinlogevents` and of MariaDB's `log_event.h`; both servers write it.

use std::io::Read as _;

use flate2::read::ZlibDecoder;

use super::bytes::{Broken, Bytes};

/// Kinds of events, by the number in their header.
pub(super) mod kind {
    pub const QUERY: u8 = 2;
    pub const ROTATE: u8 = 4;
    pub const FORMAT: u8 = 15;
    pub const XID: u8 = 16;
    pub const TABLE_MAP: u8 = 19;
    pub const INCIDENT: u8 = 26;
    pub const HEARTBEAT: u8 = 27;
    pub const GTID: u8 = 33;
    pub const ANONYMOUS_GTID: u8 = 34;
    pub const XA_PREPARE: u8 = 38;
    pub const PARTIAL_UPDATE: u8 = 39;
    /// MySQL's compressed transaction; what is in it follows.
    pub const PAYLOAD: u8 = 40;
    pub const GTID_TAGGED: u8 = 42;
    /// MariaDB's, which also says whether the one event after it is all there is.
    pub const MARIADB_GTID: u8 = 162;
    pub const COMPRESSED_QUERY: u8 = 165;
}

/// In MariaDB's GTID event: no commit follows, the next statement is all.
const STANDALONE: u8 = 1;
/// Largest event that is unpacked, in bytes: as large as the server's packets can be.
const UNPACKED_BYTES_MAX: usize = 1 << 30;

/// What changed in the rows of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Insert,
    Update,
    Delete,
}

/// Which columns are in a row, the first in the lowest bit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Bits(Vec<u8>);

impl Bits {
    pub(super) fn has(&self, index: usize) -> bool {
        self.0.get(index / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1)
    }

    /// How many of the first `count` are there.
    pub(super) fn among(&self, count: usize) -> usize {
        (0..count).filter(|index| self.has(*index)).count()
    }

    pub(super) fn take(bytes: &mut Bytes<'_>, count: usize) -> Result<Self, Broken> {
        Ok(Self(bytes.take(count.div_ceil(8))?.to_vec()))
    }
}

/// Changed rows of one table, one after the other.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rows {
    pub table: u64,
    pub kind: Kind,
    /// Columns of the first row of each change.
    pub first: Bits,
    /// Of an update: columns of the row after it.
    pub second: Bits,
    /// How many columns the table has.
    pub width: usize,
    /// The rows.
    pub body: Vec<u8>,
    /// How far they are read.
    pub at: usize,
}

/// Whether events of this kind hold rows: what changed, whether there is more before the columns, and whether they are packed.
fn shape_of(kind: u8) -> Option<(Kind, bool, bool)> {
    Some(match kind {
        23 => (Kind::Insert, false, false),
        24 => (Kind::Update, false, false),
        25 => (Kind::Delete, false, false),
        30 => (Kind::Insert, true, false),
        31 => (Kind::Update, true, false),
        32 => (Kind::Delete, true, false),
        166 => (Kind::Insert, false, true),
        167 => (Kind::Update, false, true),
        168 => (Kind::Delete, false, true),
        169 => (Kind::Insert, true, true),
        170 => (Kind::Update, true, true),
        171 => (Kind::Delete, true, true),
        _ => return None,
    })
}

/// Whether an event of this kind holds rows.
pub(super) fn has_rows(kind: u8) -> bool {
    shape_of(kind).is_some()
}

/// The table an event with rows is about.
pub(super) fn table_of(data: &[u8]) -> Result<u64, Broken> {
    Bytes::new(data, "table").number(6)
}

impl Rows {
    /// Reads an event with rows.
    pub(super) fn parse(kind: u8, data: &[u8]) -> Result<Self, Broken> {
        let (kind, has_more, is_packed) = shape_of(kind).ok_or(Broken("kind"))?;
        let mut bytes = Bytes::new(data, "rows");
        let table = bytes.number(6)?;
        bytes.take(2)?;
        if has_more {
            let length = bytes.number(2)? as usize;
            bytes.take(length.checked_sub(2).ok_or(Broken("rows"))?)?;
        }
        let width = bytes.count()?;
        let first = Bits::take(&mut bytes, width)?;
        let second = match kind {
            Kind::Update => Bits::take(&mut bytes, width)?,
            _ => Bits::default(),
        };
        let body = match is_packed {
            true => unpacked(bytes.rest())?,
            false => bytes.rest().to_vec(),
        };
        Ok(Self {
            table,
            kind,
            first,
            second,
            width,
            body,
            at: 0,
        })
    }

    /// All of them have been read.
    pub(super) fn is_over(&self) -> bool {
        self.at >= self.body.len()
    }
}

/// MariaDB's packed bytes: how long the length is, the length, and zlib.
fn unpacked(data: &[u8]) -> Result<Vec<u8>, Broken> {
    let broken = Broken("packed bytes");
    let mut bytes = Bytes::new(data, "packed bytes");
    let head = bytes.number(1)? as u8;
    // The three bits of the algorithm: zlib is the only one.
    if head & 0xf0 != 0x80 {
        return Err(broken);
    }
    let length = bytes.big_endian(usize::from(head & 7))? as usize;
    if length > UNPACKED_BYTES_MAX {
        return Err(broken);
    }
    let mut out = Vec::new();
    let mut unpacker = ZlibDecoder::new(bytes.rest()).take(length as u64 + 1);
    unpacker.read_to_end(&mut out).map_err(|_| broken)?;
    if out.len() == length { Ok(out) } else { Err(broken) }
}

/// A statement in the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Query {
    /// The database it was run in.
    pub database: String,
    pub sql: String,
}

impl Query {
    pub(super) fn parse(kind: u8, data: &[u8]) -> Result<Self, Broken> {
        let mut bytes = Bytes::new(data, "statement");
        bytes.take(8)?;
        let database = bytes.number(1)? as usize;
        bytes.take(2)?;
        let variables = bytes.number(2)? as usize;
        bytes.take(variables)?;
        let database = bytes.take(database)?;
        bytes.take(1)?;
        let sql = match kind {
            kind::COMPRESSED_QUERY => unpacked(bytes.rest())?,
            _ => bytes.rest().to_vec(),
        };
        Ok(Self {
            database: String::from_utf8_lossy(database).into_owned(),
            sql: String::from_utf8_lossy(&sql).into_owned(),
        })
    }
}

/// Where the log goes on: the next file's name.
pub(super) fn next_file(data: &[u8]) -> Result<String, Broken> {
    let mut bytes = Bytes::new(data, "name of a file");
    bytes.take(8)?;
    String::from_utf8(bytes.rest().to_vec()).map_err(|_| Broken("name of a file"))
}

/// Whether an XA transaction that is prepared is committed with that, in one phase.
pub(super) fn is_one_phase(data: &[u8]) -> bool {
    data.first().is_some_and(|one_phase| *one_phase != 0)
}

/// Whether a GTID event of MariaDB begins what has no commit: one statement.
pub(super) fn is_standalone(data: &[u8]) -> bool {
    // After the number and the domain.
    data.get(12).is_some_and(|flags| flags & STANDALONE != 0)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::ZlibEncoder};
    use proptest::prelude::*;

    use super::*;

    /// An update of two columns, the second of which is not in the row before.
    fn update(has_more: bool, body: &[u8]) -> Vec<u8> {
        let mut data = vec![7, 0, 0, 0, 0, 0, 1, 0];
        if has_more {
            data.extend([4, 0, 9, 9]);
        }
        data.extend([2, 0b01, 0b11]);
        data.extend(body);
        data
    }

    #[test]
    fn rows_are_found() {
        let wanted = Rows {
            table: 7,
            kind: Kind::Update,
            first: Bits(vec![1]),
            second: Bits(vec![3]),
            width: 2,
            body: b"body".to_vec(),
            at: 0,
        };
        let mut packed = vec![0x81, 4];
        let mut zlib = ZlibEncoder::new(&mut packed, Compression::fast());
        zlib.write_all(b"body").unwrap();
        zlib.finish().unwrap();
        for (kind, data) in [
            (24, update(false, b"body")),
            (31, update(true, b"body")),
            (167, update(false, &packed)),
            (170, update(true, &packed)),
        ] {
            assert_eq!(Rows::parse(kind, &data).unwrap(), wanted, "{kind}");
        }
        let (first, second) = (&wanted.first, &wanted.second);
        assert_eq!((first.has(0), first.has(1), second.among(9)), (true, false, 2));
        // A length that is a lie.
        packed[1] = 3;
        assert_eq!(Rows::parse(167, &update(false, &packed)), Err(Broken("packed bytes")));
    }

    #[test]
    fn statements_are_found() {
        let mut data = vec![0; 8];
        data.extend([1, 0, 0, 3, 0, 9, 9, 9]);
        data.extend(b"d\0DROP TABLE t");
        let query = Query::parse(kind::QUERY, &data).unwrap();
        assert_eq!((query.database.as_str(), query.sql.as_str()), ("d", "DROP TABLE t"));
        assert!(Query::parse(kind::QUERY, &data[..12]).is_err());
        assert_eq!(next_file(b"\x04\0\0\0\0\0\0\0log.000002").unwrap(), "log.000002");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(kind in 0..255u8, data in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (Rows::parse(kind, &data), Query::parse(kind, &data), next_file(&data), table_of(&data));
            let _ = (is_standalone(&data), is_one_phase(&data));
        }
    }
}
