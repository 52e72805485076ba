//! The records that a whole file travels as: its bytes in chunks, and at the end what they have to be. Performs no I/O.

use std::sync::Arc;

use bus_schema::data::{Batch, BatchBuilder, Cell, Field, Op, Schema, Type, Zone};

use crate::file::hash;

/// The columns, in their order.
const COLUMNS: [&str; 8] = [
    "name", "step", "transfer", "offset", "data", "size", "modified", "sha256",
];

/// A file as it was when its sending began: another size or time is another version of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Version {
    /// Nanoseconds since 1970. First, because the oldest is sent first.
    pub modified: i128,
    /// Below the directory, with slashes.
    pub name: String,
    pub size: u64,
}

impl Version {
    /// What the version is known by.
    pub(super) fn key(&self) -> u64 {
        hash(format!("{}\0{}\0{}", self.name, self.size, self.modified).as_bytes())
    }

    fn transfer(&self) -> String {
        format!("{:016x}", self.key())
    }
}

/// What a record does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// Bytes of the file, from this offset on. Those at 0 begin it, even if it had begun before.
    Data { offset: u64, data: &'a [u8] },
    /// All bytes have been sent, and this is their SHA-256.
    End { sha256: &'a str },
    /// What was sent of the file is worth nothing: it changed or vanished meanwhile.
    Dropped,
}

/// An empty batch of such records.
pub(super) fn builder() -> BatchBuilder {
    let types = [
        Type::Text,
        Type::Text,
        Type::Text,
        Type::U64,
        Type::Bytes,
        Type::U64,
        Type::Timestamp(Zone::Utc),
        Type::Text,
    ];
    let schema = Schema {
        collection: "files".to_string(),
        fields: COLUMNS
            .iter()
            .zip(types)
            .map(|(name, ty)| Field::new(*name, ty))
            .collect(),
    };
    BatchBuilder::new(Arc::new(schema))
}

/// Adds a record.
pub(super) fn push(builder: &mut BatchBuilder, version: &Version, step: Step<'_>) -> Result<(), String> {
    let transfer = version.transfer();
    let (name, offset, data, sha256) = match step {
        Step::Data { offset, data } => ("data", Cell::U64(offset), Cell::Bytes(data), Cell::Null),
        Step::End { sha256 } => ("end", Cell::Null, Cell::Null, Cell::Text(sha256)),
        Step::Dropped => ("dropped", Cell::Null, Cell::Null, Cell::Null),
    };
    let cells = [
        Cell::Text(&version.name),
        Cell::Text(name),
        Cell::Text(&transfer),
        offset,
        data,
        Cell::U64(version.size),
        Cell::TimestampUtc(version.modified),
        sha256,
    ];
    builder.push(Op::Insert, &cells).map_err(|error| error.to_string())
}

/// A record, read back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chunk<'a> {
    pub step: Step<'a>,
    pub transfer: &'a str,
    pub size: u64,
    /// Nanoseconds since 1970; unknown when a transform took it away.
    pub modified: Option<i128>,
}

/// Where the columns of a batch are.
pub(super) struct Chunks<'a> {
    batch: &'a Batch,
    places: [Option<usize>; COLUMNS.len()],
}

impl<'a> Chunks<'a> {
    pub(super) fn of(batch: &'a Batch) -> Self {
        Self {
            batch,
            places: COLUMNS.map(|name| batch.schema().index_of(name)),
        }
    }

    /// The record of a row, or why it is none.
    pub(super) fn row(&self, row: usize) -> Result<Chunk<'a>, String> {
        let cell = |column: usize| self.places[column].map_or(Cell::Missing, |place| self.batch.cell(row, place));
        let wrong = |column: usize| {
            let name = COLUMNS[column];
            format!("it is no chunk of a file: column '{name}' does not hold what the source 'files' puts there")
        };
        let text = |column: usize| match cell(column) {
            Cell::Text(text) => Ok(text),
            _ => Err(wrong(column)),
        };
        let number = |column: usize| match cell(column) {
            Cell::U64(number) => Ok(number),
            Cell::I64(number) => u64::try_from(number).map_err(|_| wrong(column)),
            _ => Err(wrong(column)),
        };
        let step = match text(1)? {
            "data" => Step::Data {
                offset: number(3)?,
                data: match cell(4) {
                    Cell::Bytes(data) => data,
                    _ => return Err(wrong(4)),
                },
            },
            "end" => Step::End { sha256: text(7)? },
            "dropped" => Step::Dropped,
            _ => return Err(wrong(1)),
        };
        Ok(Chunk {
            step,
            transfer: text(2)?,
            size: number(5)?,
            modified: match cell(6) {
                Cell::TimestampUtc(nanos) | Cell::TimestampOffset(nanos, _) => Some(nanos),
                _ => None,
            },
        })
    }
}

/// Bytes as hexadecimal text.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use bus_schema::data::Origin;

    use super::*;

    #[test]
    fn chunks_come_back() {
        let version = Version {
            modified: -5,
            name: "a/b".into(),
            size: 3,
        };
        let steps = [
            Step::Data {
                offset: 0,
                data: b"abc",
            },
            Step::End { sha256: "00ff" },
            Step::Dropped,
        ];
        let mut made = builder();
        for step in steps {
            push(&mut made, &version, step).unwrap();
        }
        let batch = made.finish(Origin::default());
        for (row, step) in steps.into_iter().enumerate() {
            let chunk = Chunk {
                step,
                transfer: &version.transfer(),
                size: 3,
                modified: Some(-5),
            };
            assert_eq!(Chunks::of(&batch).row(row), Ok(chunk));
        }
        let other = crate::file::rows::empty("x");
        assert!(Chunks::of(&other).row(0).unwrap_err().contains("column 'step'"));
    }

    #[test]
    fn versions_differ() {
        let version = |name: &str, size, modified| Version {
            modified,
            name: name.into(),
            size,
        };
        let keys = [
            version("a", 1, 2),
            version("a", 2, 1),
            version("a", 1, 3),
            version("b", 1, 2),
        ]
        .map(|v| v.key());
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(key));
        }
    }
}
