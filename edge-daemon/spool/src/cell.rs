//! How one frame, mark or ledger lies in a sled value: pure encoding and decoding.
//! Performs no I/O and knows neither sled nor directories.
//!
//! Whatever is stored is first one *cell* (a payload with a kind and an id), then cut into *chunks*, and each chunk is
//! one sled value. There are two reasons for chunks:
//!
//! 1. sled writes a B-tree leaf as a whole. A leaf above a quarter of sled's own segment goes to a separate file under
//!    `blobs/` that nobody ever fsyncs, so a 64 KiB value would not survive a power cut. Chunks of
//!    [`VALUE_BYTES_MAX`] keep every leaf in the log that is fsynced.
//! 2. Each chunk describes and checks itself, so what lies outside a damaged part can be read back from the raw file
//!    even when sled refuses to open it.

/// Largest sled value, bytes. A leaf holds up to 20 entries (17 before it splits, 3 merged in); 20 of these must stay
/// below a quarter of [`crate::segment::SLED_SEGMENT_BYTES`].
pub(crate) const VALUE_BYTES_MAX: usize = 6 * 1024;

/// Bytes of a chunk's header: magic 4, crc 4, kind 1, index 2, id 8, stamp 4, total 4, cell crc 4.
pub(crate) const CHUNK_HEADER_BYTES: usize = 31;

/// Payload bytes in one chunk.
pub(crate) const CHUNK_DATA_BYTES_MAX: usize = VALUE_BYTES_MAX - CHUNK_HEADER_BYTES;

/// Largest payload of a cell, bytes: bounds what a damaged length can make us allocate.
pub(crate) const CELL_BYTES_MAX: usize = 256 * 1024;

/// First bytes of every chunk.
pub(crate) const MAGIC: [u8; 4] = [0xC5, b'm', 0xF3, b'1'];

/// What a cell holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A frame; the id is its seq.
    Frame = 1,
    /// A mark without frames, or the record of a cut; the id is its root seq.
    Mark = 2,
    /// The state at the start of a segment; the id is the segment's first seq.
    Start = 3,
    /// Watermark and what became of the frames below it; the id is the floor.
    Ledger = 4,
}

impl Kind {
    fn from_u8(byte: u8) -> Option<Self> {
        [Self::Frame, Self::Mark, Self::Start, Self::Ledger]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// Identifies one written version of a cell: chunks belong together only if all of it is equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CellId {
    pub kind: Kind,
    pub id: u64,
    /// Goes up at every open and every roll-back, so that a left-over of an abandoned append loses against what
    /// replaced it.
    pub stamp: u32,
    /// Payload bytes of the whole cell.
    pub total: u32,
    /// CRC-32 of the whole payload.
    pub crc: u32,
}

impl CellId {
    /// The identity of `payload` written as `kind`, `id` under `stamp`.
    pub fn of(kind: Kind, id: u64, stamp: u32, payload: &[u8]) -> Self {
        Self {
            kind,
            id,
            stamp,
            total: payload.len() as u32,
            crc: crc32fast::hash(payload),
        }
    }

    /// How many chunks the cell has.
    pub fn chunks(&self) -> usize {
        (self.total as usize).div_ceil(CHUNK_DATA_BYTES_MAX).max(1)
    }

    fn chunk_data_bytes(&self, index: usize) -> usize {
        (self.total as usize)
            .saturating_sub(index * CHUNK_DATA_BYTES_MAX)
            .min(CHUNK_DATA_BYTES_MAX)
    }
}

/// One decoded chunk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chunk<'a> {
    pub cell: CellId,
    pub index: u16,
    pub data: &'a [u8],
}

/// The sled values of a cell, in order.
pub(crate) fn chunks(cell: CellId, payload: &[u8]) -> impl Iterator<Item = (u16, Vec<u8>)> + '_ {
    (0..cell.chunks()).map(move |index| {
        let start = index * CHUNK_DATA_BYTES_MAX;
        let data = &payload[start..start + cell.chunk_data_bytes(index)];
        let mut value = Vec::with_capacity(CHUNK_HEADER_BYTES + data.len());
        value.extend_from_slice(&MAGIC);
        value.extend_from_slice(&[0; 4]);
        value.push(cell.kind as u8);
        value.extend_from_slice(&(index as u16).to_be_bytes());
        value.extend_from_slice(&cell.id.to_be_bytes());
        value.extend_from_slice(&cell.stamp.to_be_bytes());
        value.extend_from_slice(&cell.total.to_be_bytes());
        value.extend_from_slice(&cell.crc.to_be_bytes());
        value.extend_from_slice(data);
        let crc = crc32fast::hash(&value[8..]);
        value[4..8].copy_from_slice(&crc.to_be_bytes());
        (index as u16, value)
    })
}

/// Decodes a chunk at the beginning of `bytes`; more may follow it. `None`: there is no intact chunk here.
pub(crate) fn parse_prefix(bytes: &[u8]) -> Option<(Chunk<'_>, usize)> {
    let mut reader = Reader::new(bytes);
    if reader.take(4)? != MAGIC {
        return None;
    }
    let crc = reader.u32()?;
    let kind = Kind::from_u8(reader.take(1)?[0])?;
    let index = reader.u16()?;
    let cell = CellId {
        kind,
        id: reader.u64()?,
        stamp: reader.u32()?,
        total: reader.u32()?,
        crc: reader.u32()?,
    };
    if cell.total as usize > CELL_BYTES_MAX || usize::from(index) >= cell.chunks() {
        return None;
    }
    let data = reader.take(cell.chunk_data_bytes(usize::from(index)))?;
    let len = CHUNK_HEADER_BYTES + data.len();
    (crc32fast::hash(&bytes[8..len]) == crc).then_some((Chunk { cell, index, data }, len))
}

/// Decodes a whole sled value.
pub(crate) fn parse(value: &[u8]) -> Option<Chunk<'_>> {
    let (chunk, len) = parse_prefix(value)?;
    (len == value.len()).then_some(chunk)
}

/// Puts the chunks of a cell back together; they must come in order.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    current: Option<(CellId, usize, Vec<u8>)>,
}

impl Assembler {
    /// Takes the next chunk; gives the payload with the last one. A chunk out of order drops what was begun.
    pub fn push(&mut self, chunk: &Chunk<'_>) -> Option<Vec<u8>> {
        if chunk.index == 0 {
            self.current = Some((chunk.cell, 0, Vec::with_capacity(chunk.cell.total as usize)));
        }
        let (cell, next, payload) = self.current.as_mut()?;
        if *cell != chunk.cell || *next != usize::from(chunk.index) {
            self.current = None;
            return None;
        }
        payload.extend_from_slice(chunk.data);
        *next += 1;
        if *next < cell.chunks() {
            return None;
        }
        let (cell, _, payload) = self.current.take()?;
        (crc32fast::hash(&payload) == cell.crc).then_some(payload)
    }
}

/// Reads big-endian fields; every method is `None` past the end.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(head)
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    pub fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    pub fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    pub fn u64(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 31 % 251) as u8).collect()
    }

    #[test]
    fn cells_of_every_size_come_back() {
        let one = CHUNK_DATA_BYTES_MAX;
        for (len, chunks_expected) in [
            (0, 1),
            (1, 1),
            (one - 1, 1),
            (one, 1),
            (one + 1, 2),
            (2 * one, 2),
            (96 * 1024, 17),
        ] {
            let payload = sample(len);
            let cell = CellId::of(Kind::Frame, 7, 3, &payload);
            let values: Vec<_> = chunks(cell, &payload).collect();
            assert_eq!(values.len(), chunks_expected, "{len}");
            let mut assembler = Assembler::default();
            let mut got = None;
            for (index, value) in &values {
                assert!(value.len() <= VALUE_BYTES_MAX);
                let chunk = parse(value).unwrap();
                assert_eq!((chunk.cell, chunk.index), (cell, *index));
                got = assembler.push(&chunk);
            }
            assert_eq!(got.as_deref(), Some(&payload[..]), "{len}");
        }
    }

    #[test]
    fn any_flipped_bit_or_cut_is_noticed() {
        let payload = sample(90);
        let (_, value) = chunks(CellId::of(Kind::Mark, 1, 1, &payload), &payload).next().unwrap();
        for at in 0..value.len() {
            for bit in 0..8 {
                let mut bad = value.clone();
                bad[at] ^= 1 << bit;
                assert!(parse(&bad).is_none(), "byte {at} bit {bit}");
            }
            assert!(parse(&value[..at]).is_none(), "cut at {at}");
        }
    }

    #[test]
    fn chunks_of_two_versions_never_mix() {
        let (old, new) = (sample(10_000), vec![1; 10_000]);
        let old_values: Vec<_> = chunks(CellId::of(Kind::Frame, 5, 1, &old), &old).collect();
        let new_values: Vec<_> = chunks(CellId::of(Kind::Frame, 5, 2, &new), &new).collect();
        let mut assembler = Assembler::default();
        assert!(assembler.push(&parse(&new_values[0].1).unwrap()).is_none());
        assert!(assembler.push(&parse(&old_values[1].1).unwrap()).is_none());
    }
}
