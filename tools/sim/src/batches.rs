//! Record numbers to real batches and frames, and back.

use std::sync::Arc;

use bus_schema::{
    data::{Batch, BatchBuilder, Cell, Field, Op, Origin, Schema, Type},
    message::{Codec, Frame, Packed, SourceMark},
};

use crate::{dice::Dice, spool::Entry};

/// A batch of these records.
pub fn batch(ids: &[u64]) -> Batch {
    let schema = Schema {
        collection: String::new(),
        fields: vec![Field::new("n", Type::U64)],
    };
    let mut builder = BatchBuilder::new(Arc::new(schema));
    for id in ids {
        builder
            .push(Op::Insert, &[Cell::U64(*id)])
            .expect("a number fits a column of numbers");
    }
    builder.finish(Origin::default())
}

/// The records of a batch.
pub fn ids(batch: &Batch) -> Vec<u64> {
    let id = |row| match batch.cell(row, 0) {
        Cell::U64(id) => id,
        other => unreachable!("only numbers were put in, not {other:?}"),
    };
    (0..batch.rows()).map(id).collect()
}

/// A batch as a pipe gives it to a stream: in one frame, or now and then in parts.
pub fn entries(ids: &[u64], mark: SourceMark, dice: &mut Dice) -> Vec<Entry> {
    if ids.is_empty() {
        return Vec::new();
    }
    let records = ids.len() as u32;
    let packed = Packed {
        records,
        codec: Codec::Plain,
        bytes: batch(ids).encode(),
        mark: Some(mark),
    };
    let mut prints = Dice::new(dice.roll());
    let mut entry = |frame, ids: &[u64]| Entry {
        frame,
        records: ids.len() as u64,
        owed: 0,
        ids: ids.to_vec(),
        print: prints.roll(),
    };
    if !dice.once_in(8) {
        return vec![entry(Frame::Batch(packed), ids)];
    }
    let bytes = bus_schema::encode(&packed);
    let size = bytes.len().div_ceil(dice.between(2, 4) as usize);
    let count = bytes.len().div_ceil(size) as u32;
    let part = |(index, bytes): (usize, &[u8])| {
        let index = index as u32;
        let frame = Frame::Part {
            index,
            count,
            records,
            bytes: bytes.to_vec(),
        };
        entry(frame, if index + 1 == count { ids } else { &[] })
    };
    bytes.chunks(size).enumerate().map(part).collect()
}
