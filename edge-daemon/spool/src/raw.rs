//! Reads what is intact straight from a segment's file, without sled: to see what is there before sled touches it, and
//! to save what can be saved when sled will not open it. Never writes.
//!
//! It relies on one property of sled 0.34: a value is stored as one uncompressed run of bytes. Chunks describe
//! themselves, so nothing else of the file needs to be understood.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::cell::{self, Assembler, CellId, Kind, MAGIC, VALUE_BYTES_MAX};
use crate::contents::{Contents, FrameInfo};
use crate::record::{FrameHead, Ledger, MarkRecord, Start};

/// How much of the file is looked at in one go, bytes.
const WINDOW_BYTES: usize = 256 * 1024;

/// Unit in which unreadable stretches are skipped, bytes.
const BLOCK_BYTES: usize = 4 * 1024;

/// The intact chunks of one file.
#[derive(Debug)]
pub(crate) struct RawFile {
    file: File,
    /// Offset of each chunk of each version of each cell.
    cells: HashMap<CellId, Vec<Option<u64>>>,
}

impl RawFile {
    /// Finds every intact chunk in the file at `path`. Unreadable blocks count as damage, not as an error.
    pub fn scan(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        let mut cells: HashMap<CellId, Vec<Option<u64>>> = HashMap::new();
        let mut window = vec![0; WINDOW_BYTES];
        let mut at = 0;
        while at < len {
            let filled = read_tolerantly(&file, &mut window, at, len);
            let last_window = at + filled as u64 >= len;
            // A chunk that begins in the last bytes of the window may be cut off: it is looked at in the next one.
            let limit = if last_window { filled } else { filled - VALUE_BYTES_MAX };
            let mut offset = 0;
            while offset < limit {
                let Some(found) = find_magic(&window[offset..limit.saturating_add(MAGIC.len() - 1).min(filled)]) else {
                    offset = limit;
                    break;
                };
                offset += found;
                match cell::parse_prefix(&window[offset..filled]) {
                    Some((chunk, chunk_len)) => {
                        let places = cells
                            .entry(chunk.cell)
                            .or_insert_with(|| vec![None; chunk.cell.chunks()]);
                        places[usize::from(chunk.index)] = Some(at + offset as u64);
                        offset += chunk_len;
                    }
                    None => offset += 1,
                }
            }
            at += offset as u64;
        }
        Ok(Self { file, cells })
    }

    /// True if not a single chunk was found.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// The payload of a cell, if every chunk of it is there.
    pub fn payload(&self, cell: &CellId) -> Option<Vec<u8>> {
        let mut assembler = Assembler::default();
        let mut value = vec![0; VALUE_BYTES_MAX];
        let mut payload = None;
        for place in self.cells.get(cell)? {
            let filled = read_at_most(&self.file, &mut value, (*place)?).ok()?;
            payload = assembler.push(&cell::parse_prefix(&value[..filled])?.0);
        }
        payload
    }

    /// The complete frames, by seq and stamp.
    pub fn frame_cells(&self) -> HashMap<(u64, u32), CellId> {
        let frames = self
            .cells
            .keys()
            .filter(|cell| cell.kind == Kind::Frame && self.complete(cell));
        frames.map(|cell| ((cell.id, cell.stamp), *cell)).collect()
    }

    fn complete(&self, cell: &CellId) -> bool {
        self.cells
            .get(cell)
            .is_some_and(|places| places.iter().all(Option::is_some))
    }

    /// What the complete cells say.
    pub fn contents(&self) -> Contents {
        let mut contents = Contents::default();
        for cell in self.cells.keys().filter(|cell| self.complete(cell)) {
            contents.stamp_max = contents.stamp_max.max(cell.stamp);
            match cell.kind {
                Kind::Frame => {
                    let Some(head) = self.frame_head(cell) else { continue };
                    let bytes = u64::from(cell.total).saturating_sub(head.body_at() as u64);
                    contents.frames.push(FrameInfo {
                        seq: cell.id,
                        stamp: cell.stamp,
                        bytes,
                        head,
                    });
                }
                Kind::Mark => {
                    let record = self.payload(cell).and_then(|payload| MarkRecord::read(&payload));
                    contents.marks.extend(record.map(|record| (cell.stamp, record)));
                }
                Kind::Start => {
                    contents.start = self.payload(cell).and_then(|payload| Start::read(&payload));
                }
                Kind::Ledger => {
                    let ledger = self
                        .payload(cell)
                        .and_then(|payload| Ledger::read(&mut cell::Reader::new(&payload)));
                    contents.ledger = contents.ledger.into_iter().chain(ledger).max_by_key(Ledger::age);
                }
            }
        }
        contents
    }

    fn frame_head(&self, cell: &CellId) -> Option<FrameHead> {
        let place = (*self.cells.get(cell)?.first()?)?;
        let mut value = [0; cell::CHUNK_HEADER_BYTES + FrameHead::BYTES_MAX];
        let filled = read_at_most(&self.file, &mut value, place).ok()?;
        FrameHead::read(value.get(cell::CHUNK_HEADER_BYTES..filled)?)
    }
}

fn find_magic(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(found) = bytes[from..].iter().position(|byte| *byte == MAGIC[0]) {
        if bytes[from + found..].starts_with(&MAGIC) {
            return Some(from + found);
        }
        from += found + 1;
    }
    None
}

/// Fills the window; what cannot be read is left as zeros.
fn read_tolerantly(file: &File, window: &mut [u8], at: u64, len: u64) -> usize {
    let filled = window.len().min((len - at) as usize);
    if file.read_exact_at(&mut window[..filled], at).is_err() {
        for (index, block) in window[..filled].chunks_mut(BLOCK_BYTES).enumerate() {
            if file.read_exact_at(block, at + (index * BLOCK_BYTES) as u64).is_err() {
                block.fill(0);
            }
        }
    }
    filled
}

fn read_at_most(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_found_wherever_they_lie() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let payload: Vec<u8> = (0..20_000u32).map(|i| (i % 253) as u8).collect();
        let cell = CellId::of(Kind::Frame, 9, 1, &payload);
        let values: Vec<Vec<u8>> = cell::chunks(cell, &payload).map(|(_, value)| value).collect();
        // Around the seam of two windows, with false beginnings before each.
        for gap in [
            0,
            1,
            WINDOW_BYTES - VALUE_BYTES_MAX - 3,
            WINDOW_BYTES - 5,
            WINDOW_BYTES - 1,
            WINDOW_BYTES,
        ] {
            let mut image = vec![0xEE; gap];
            for value in values.iter().rev() {
                image.extend_from_slice(&MAGIC[..3]);
                image.extend_from_slice(&MAGIC);
                image.extend_from_slice(value);
            }
            std::fs::write(&path, &image).unwrap();
            let raw = RawFile::scan(&path).unwrap();
            assert_eq!(raw.payload(&cell).as_deref(), Some(&payload[..]), "gap {gap}");
            image.truncate(image.len() - 1);
            std::fs::write(&path, &image).unwrap();
            assert_eq!(RawFile::scan(&path).unwrap().payload(&cell), None, "gap {gap}, cut");
        }
    }
}
