//! Batches to frames and back. Pure.

use bus_schema::{
    data::{Batch, BatchError},
    limits::{PART_BYTES, RECORD_BYTES_MAX},
    message::{Body, BodyError, Exchange, Frame, Message},
};

/// One frame's plaintext, and how many records it completes.
#[derive(Debug)]
pub struct Packed {
    /// The body's bytes.
    pub plaintext: Vec<u8>,
    /// Records, for the ledger.
    pub records: u64,
}

/// A batch as frames.
#[derive(Debug, Default)]
pub struct Packing {
    /// In order.
    pub frames: Vec<Packed>,
    /// Rows (of the batch) that are too large to travel.
    pub too_large: Vec<usize>,
}

/// Packs a batch into frames of at most [`PART_BYTES`]: whole if it fits, else split by rows, else (one huge record) in parts.
pub fn pack(batch: &Batch) -> Packing {
    let mut packing = Packing::default();
    if batch.rows() > 0 {
        pack_rows(batch, 0, &mut packing);
    }
    packing
}

fn pack_rows(batch: &Batch, first_row: usize, packing: &mut Packing) {
    let bytes = batch.encode();
    let rows = batch.rows();
    if bytes.len() <= PART_BYTES {
        packing.frames.push(Packed {
            plaintext: body(&Frame::Batch(bytes)),
            records: rows as u64,
        });
    } else if rows > 1 {
        let middle = rows / 2;
        pack_rows(&batch.slice(0..middle), first_row, packing);
        pack_rows(&batch.slice(middle..rows), first_row + middle, packing);
    } else if bytes.len() <= RECORD_BYTES_MAX {
        let count = bytes.len().div_ceil(PART_BYTES) as u32;
        for (index, part) in bytes.chunks(PART_BYTES).enumerate() {
            let index = index as u32;
            let plaintext = body(&Frame::Part {
                index,
                count,
                bytes: part.to_vec(),
            });
            packing.frames.push(Packed {
                plaintext,
                records: u64::from(index + 1 == count),
            });
        }
    } else {
        packing.too_large.push(first_row);
    }
}

/// A frame's plaintext.
pub fn body(frame: &Frame) -> Vec<u8> {
    let payload = frame.to_payload();
    let (kind, ver) = (Frame::KIND, Frame::VER);
    Body {
        kind,
        ver,
        exchange: Exchange::OneWay,
        correlation: 0,
        part: 0,
        parts: 1,
        payload: &payload,
    }
    .encode()
}

/// Reads a frame's plaintext.
pub fn read(plaintext: &[u8]) -> Result<Frame, BodyError> {
    let body = Body::decode(plaintext)?;
    Frame::from_payload(body.kind, body.ver, body.payload)
}

/// Frames arrived in order that do not make sense together.
#[derive(Debug, thiserror::Error)]
pub enum AssemblyError {
    /// See [`BatchError`].
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A part without those before it.
    #[error("part {index} of {count} of a large record does not follow the one before")]
    Part {
        /// Its index.
        index: u32,
        /// Of how many.
        count: u32,
    },
}

/// Puts the parts of large records together. Holds at most one record.
#[derive(Debug, Default)]
pub struct Assembly {
    bytes: Vec<u8>,
    next: u32,
}

impl Assembly {
    /// Takes the next frame in order. `None` when a record is not complete yet (or the frame is a gap).
    pub fn take(&mut self, frame: Frame) -> Result<Option<Batch>, AssemblyError> {
        match frame {
            Frame::Batch(bytes) => {
                self.reset();
                Ok(Some(Batch::decode(&bytes)?))
            }
            Frame::Gap { .. } => {
                self.reset();
                Ok(None)
            }
            Frame::Part { index, count, bytes } => {
                let fits = self.bytes.len() + bytes.len() <= RECORD_BYTES_MAX;
                if index != self.next || index >= count || !fits {
                    self.reset();
                    return Err(AssemblyError::Part { index, count });
                }
                self.bytes.extend_from_slice(&bytes);
                self.next += 1;
                if self.next < count {
                    return Ok(None);
                }
                let whole = std::mem::take(&mut self.bytes);
                self.reset();
                Ok(Some(Batch::decode(&whole)?))
            }
        }
    }

    /// Whether the last frame taken completed everything before it.
    #[cfg(test)]
    fn is_idle(&self) -> bool {
        self.next == 0
    }

    fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bus_schema::{
        data::{BatchBuilder, Cell, Field, Op, Origin, Schema, Type},
        limits::PAYLOAD_BYTES_MAX,
    };
    use proptest::prelude::*;

    use super::*;

    fn batch(sizes: &[usize]) -> Batch {
        let fields = vec![Field::new("n", Type::I64), Field::new("blob", Type::Bytes)];
        let mut builder = BatchBuilder::new(Arc::new(Schema {
            collection: "t".into(),
            fields,
        }));
        for (n, size) in sizes.iter().enumerate() {
            builder
                .push(Op::Insert, &[Cell::I64(n as i64), Cell::Bytes(&vec![n as u8; *size])])
                .unwrap();
        }
        builder.finish(Origin::default())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn what_is_packed_comes_out_again(sizes in proptest::collection::vec(0usize..90_000, 1..12)) {
            let packing = pack(&batch(&sizes));
            prop_assert!(packing.too_large.is_empty());
            prop_assert_eq!(packing.frames.iter().map(|f| f.records).sum::<u64>(), sizes.len() as u64);
            let mut assembly = Assembly::default();
            let mut rows = Vec::new();
            for packed in &packing.frames {
                prop_assert!(packed.plaintext.len() <= PAYLOAD_BYTES_MAX);
                if let Some(batch) = assembly.take(read(&packed.plaintext).unwrap()).unwrap() {
                    for row in 0..batch.rows() {
                        let Cell::Bytes(blob) = batch.cell(row, 1) else { panic!("a blob") };
                        rows.push(blob.len());
                    }
                }
            }
            prop_assert!(assembly.is_idle());
            prop_assert_eq!(rows, sizes);
        }
    }

    #[test]
    fn a_record_that_cannot_travel_is_named_and_its_neighbours_go() {
        let packing = pack(&batch(&[10, RECORD_BYTES_MAX + 1, 10]));
        assert_eq!(packing.too_large, [1]);
        assert_eq!(packing.frames.iter().map(|frame| frame.records).sum::<u64>(), 2);
        assert!(pack(&batch(&[])).frames.is_empty());
    }

    #[test]
    fn parts_out_of_order_are_refused() {
        let part = |index| Frame::Part {
            index,
            count: 3,
            bytes: vec![1],
        };
        let mut assembly = Assembly::default();
        assert!(assembly.take(part(1)).is_err());
        assert!(assembly.take(part(0)).unwrap().is_none());
        assert!(assembly.take(part(2)).is_err());
        assert!(assembly.is_idle());
    }
}
