//! Batches to frames and back. Pure.
//!
//! What a pipe gives a stream in one go is one [`Packed`] batch, and with it the place in the source: whole in one frame if
//! it fits, else cut into parts. So a consumer never makes half of it durable.

use bus_schema::{
    data::{Batch, BatchError},
    limits::{PART_BYTES, RECORD_BYTES_MAX},
    message::{Body, BodyError, Codec, Exchange, Frame, Message, Packed, SourceMark},
};

use crate::compression::{self, UnpackError};

/// Room in a frame for what stands around a packed batch, bytes.
const AROUND_BYTES: usize = 64;

/// One frame's plaintext, and how many records it completes.
#[derive(Debug)]
pub struct Plain {
    /// The body's bytes.
    pub plaintext: Vec<u8>,
    /// Records, for the ledger.
    pub records: u64,
}

/// A batch as frames.
#[derive(Debug, Default)]
pub struct Packing {
    /// In order.
    pub frames: Vec<Plain>,
    /// Rows (of the batch) that are too large to travel.
    pub too_large: Vec<usize>,
}

/// Packs a batch into frames of at most [`PART_BYTES`]. `mark` is where the source stands after it; `record_bytes_max` is
/// the most that one record may take, at most [`RECORD_BYTES_MAX`].
pub fn pack(batch: &Batch, mark: &SourceMark, record_bytes_max: usize) -> Packing {
    pack_with(batch, mark, record_bytes_max, false)
}

/// The same, compressed where that makes it smaller, if wanted.
pub fn pack_with(batch: &Batch, mark: &SourceMark, record_bytes_max: usize, compress: bool) -> Packing {
    let mut packing = Packing::default();
    let mut packed = Vec::new();
    let bytes_max = record_bytes_max.min(RECORD_BYTES_MAX);
    if batch.rows() > 0 {
        pack_rows(batch, 0, bytes_max, &mut packed, &mut packing.too_large);
    }
    if compress {
        packed.iter_mut().for_each(compression::compress);
    }
    // Only the last one: what is durable in between is not all of this read.
    if let Some(last) = packed.last_mut() {
        last.mark = Some(mark.clone());
    }
    packing.frames = packed.into_iter().flat_map(frames_of).collect();
    packing
}

/// One packed batch, unless that is more than may travel: then by rows.
fn pack_rows(batch: &Batch, first_row: usize, bytes_max: usize, packed: &mut Vec<Packed>, too_large: &mut Vec<usize>) {
    let bytes = batch.encode();
    let rows = batch.rows();
    if bytes.len() <= bytes_max && batch.form_fits(&bytes) {
        packed.push(Packed {
            records: rows as u32,
            codec: Codec::Plain,
            bytes,
            mark: None,
        });
    } else if rows > 1 {
        // A large record would be held once more for each half it is in.
        drop(bytes);
        let middle = rows / 2;
        for rows in [0..middle, middle..rows] {
            let first_row = first_row + rows.start;
            pack_rows(&batch.slice(rows), first_row, bytes_max, packed, too_large);
        }
    } else {
        too_large.push(first_row);
    }
}

fn frames_of(packed: Packed) -> Vec<Plain> {
    let records = packed.records;
    let around = packed.mark.as_ref().map_or(0, |mark| mark.position.len()) + AROUND_BYTES;
    if packed.bytes.len() + around <= PART_BYTES {
        return vec![Plain {
            plaintext: body(&Frame::Batch(packed)),
            records: u64::from(records),
        }];
    }
    let bytes = bus_schema::encode(&packed);
    drop(packed);
    let count = bytes.len().div_ceil(PART_BYTES) as u32;
    let part = |(index, part): (usize, &[u8])| {
        let index = index as u32;
        let plaintext = body(&Frame::Part {
            index,
            count,
            records,
            bytes: part.to_vec(),
        });
        let is_last = index + 1 == count;
        Plain {
            plaintext,
            records: if is_last { u64::from(records) } else { 0 },
        }
    };
    bytes.chunks(PART_BYTES).enumerate().map(part).collect()
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

/// What a sealed frame is known by: the end of its signature, which differs between any two frames that were sealed, be
/// they of one seq and one text. 0 for what is too short to be one.
pub fn print(sealed: &[u8]) -> u64 {
    sealed.last_chunk().map_or(0, |end| u64::from_le_bytes(*end))
}

/// Reads a frame's plaintext.
pub fn read(plaintext: &[u8]) -> Result<Frame, BodyError> {
    let body = Body::decode(plaintext)?;
    Frame::from_payload(body.kind, body.ver, body.payload)
}

/// What came in order cannot be made into records.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
pub struct AssemblyError {
    /// Why.
    #[source]
    pub cause: AssemblyCause,
    /// How many records it stands for.
    pub records: u64,
    /// What is there of them.
    pub bytes: Vec<u8>,
}

/// Why an assembly failed.
#[derive(Debug, thiserror::Error)]
pub enum AssemblyCause {
    /// See [`BatchError`].
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// See [`UnpackError`].
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// A program that is newer than this one packed it.
    #[error("the packing is not one this program knows; update it")]
    Packing,
    /// Some of its parts are missing: they were given up or lost.
    #[error("{missing} of the {count} parts of a large record are missing")]
    Parts {
        /// Parts that never came.
        missing: u32,
        /// Of how many.
        count: u32,
    },
}

/// A batch that has come through.
#[derive(Debug)]
pub struct Arrived {
    /// The records.
    pub batch: Batch,
    /// The producer's source after them, if it says so.
    pub mark: Option<SourceMark>,
}

/// Puts the parts of large batches together. Holds at most one.
#[derive(Debug, Default)]
pub struct Assembly {
    bytes: Vec<u8>,
    next: u32,
    /// Parts of the present batch that did not come.
    missing: u32,
}

impl Assembly {
    /// Takes the next frame in order. `None` when a batch is not complete yet (or the frame is a gap). An error stands for
    /// a whole batch, however many parts it had.
    pub fn take(&mut self, frame: Frame) -> Result<Option<Arrived>, AssemblyError> {
        match frame {
            Frame::Batch(packed) => {
                // What was begun before it had its last part in a gap, and is counted there.
                *self = Self::default();
                unpack(packed).map(Some)
            }
            Frame::Gap { .. } => Ok(None),
            Frame::Part {
                index,
                count,
                records,
                bytes,
            } => self.part(index, count, records, &bytes),
        }
    }

    fn part(&mut self, index: u32, count: u32, records: u32, bytes: &[u8]) -> Result<Option<Arrived>, AssemblyError> {
        if index < self.next {
            *self = Self::default();
        }
        let fits = self.bytes.len() + bytes.len() <= RECORD_BYTES_MAX + 2 * PART_BYTES;
        self.missing = self
            .missing
            .saturating_add(index - self.next)
            .saturating_add(u32::from(!fits));
        self.next = index.saturating_add(1);
        if self.missing == 0 {
            self.bytes.extend_from_slice(bytes);
        }
        if self.next < count {
            return Ok(None);
        }
        let Self { bytes, missing, .. } = std::mem::take(self);
        let failed = |cause, bytes| AssemblyError {
            cause,
            records: u64::from(records),
            bytes,
        };
        if missing > 0 {
            return Err(failed(AssemblyCause::Parts { missing, count }, bytes));
        }
        match bus_schema::decode::<Packed>(&bytes) {
            Some(packed) => {
                drop(bytes);
                unpack(packed).map(Some)
            }
            None => Err(failed(AssemblyCause::Packing, bytes)),
        }
    }

    /// Whether the last frame taken completed everything before it.
    #[cfg(test)]
    fn is_idle(&self) -> bool {
        self.next == 0
    }
}

fn unpack(packed: Packed) -> Result<Arrived, AssemblyError> {
    let Packed {
        records,
        codec,
        bytes,
        mark,
    } = packed;
    let failed = |cause, bytes| AssemblyError {
        cause,
        records: u64::from(records),
        bytes,
    };
    let raw = match codec {
        Codec::Plain => bytes,
        Codec::Zstd { .. } => match compression::unpack(codec, &bytes) {
            Ok(raw) => raw,
            Err(error) => return Err(failed(error.into(), bytes)),
        },
    };
    match Batch::decode(&raw) {
        Ok(batch) => Ok(Arrived { batch, mark }),
        Err(error) => Err(failed(error.into(), raw)),
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

    fn mark() -> SourceMark {
        SourceMark {
            root_seq: 9,
            position: b"id=41".to_vec(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn what_is_packed_comes_out_again(sizes in proptest::collection::vec(0usize..90_000, 1..12)) {
            let packing = pack_with(&batch(&sizes), &mark(), RECORD_BYTES_MAX, sizes.len() % 2 == 0);
            prop_assert!(packing.too_large.is_empty());
            prop_assert_eq!(packing.frames.iter().map(|f| f.records).sum::<u64>(), sizes.len() as u64);
            let mut assembly = Assembly::default();
            let mut rows = Vec::new();
            let mut marks = Vec::new();
            for plain in &packing.frames {
                prop_assert!(plain.plaintext.len() <= PAYLOAD_BYTES_MAX);
                if let Some(Arrived { batch, mark }) = assembly.take(read(&plain.plaintext).unwrap()).unwrap() {
                    marks.push(mark);
                    for row in 0..batch.rows() {
                        let Cell::Bytes(blob) = batch.cell(row, 1) else { panic!("a blob") };
                        rows.push(blob.len());
                    }
                }
            }
            prop_assert!(assembly.is_idle());
            prop_assert_eq!(rows, sizes);
            prop_assert_eq!(marks, [Some(mark())]);
        }
    }

    #[test]
    fn a_record_that_cannot_travel_is_named_and_its_neighbours_go() {
        for (large, bytes_max) in [(RECORD_BYTES_MAX + 1, usize::MAX), (100_001, 100_000)] {
            let packing = pack(&batch(&[10, large, 10]), &mark(), bytes_max);
            assert_eq!(packing.too_large, [1]);
            assert_eq!(packing.frames.iter().map(|frame| frame.records).sum::<u64>(), 2);
        }
        assert!(pack(&batch(&[]), &mark(), RECORD_BYTES_MAX).frames.is_empty());
    }

    #[test]
    fn parts_that_are_missing_are_told_once() {
        let whole: Vec<Frame> = pack(&batch(&[200_000, 20]), &mark(), RECORD_BYTES_MAX)
            .frames
            .iter()
            .map(|plain| read(&plain.plaintext).unwrap())
            .collect();
        assert_eq!(whole.len(), 4);
        let gap = || Frame::Gap {
            first_seq: 1,
            dropped: 0,
            lost: 0,
            settled: 0,
        };
        let take = |kept: &[usize]| {
            let mut assembly = Assembly::default();
            assembly.take(gap()).unwrap();
            let frames = kept.iter().map(|index| whole[*index].clone());
            // What follows has nothing to do with it.
            let frames = frames.chain(whole.iter().cloned());
            let taken: Vec<_> = frames.map(|frame| assembly.take(frame)).collect();
            let lost: Vec<u64> = taken
                .iter()
                .filter_map(|taken| taken.as_ref().err())
                .map(|error| error.records)
                .collect();
            (taken.iter().filter(|taken| matches!(taken, Ok(Some(_)))).count(), lost)
        };
        assert_eq!(take(&[]), (1, vec![]));
        assert_eq!(take(&[0, 1, 2, 3]), (2, vec![]));
        assert_eq!(take(&[1, 2, 3]), (1, vec![2]));
        assert_eq!(take(&[0, 3]), (1, vec![2]));
        // Its last part is in a gap, and counted there.
        assert_eq!(take(&[0, 1]), (1, vec![]));
    }
}
