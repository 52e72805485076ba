//! Bytes kept on the disk for the day it is full: a file that is given up piece by piece when one of a member's own small
//! files does not fit any more, and made again when there is room. Bulk data never gets any of it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    path::Path,
};

use crate::home::sync_dir;

/// Size of a whole reserve, bytes.
pub const RESERVE_BYTES: u64 = 8 * 1024 * 1024;

/// What is given up at a time, bytes. Every small file fits into a few of them, old and new version side by side.
const PIECE_BYTES: u64 = 128 * 1024;

/// Pieces given up for one file. A disk that has no room even then will not have it for the rest of them either: somebody
/// else takes it at once, or it is full in another way.
const PIECES_PER_FILE_MAX: u32 = 16;

const FILE: &str = "reserve";

/// Runs `write`, and when the disk is full gives up pieces of the reserve in `dir` until it succeeds, a few at most.
/// `write` must leave nothing behind when it fails.
pub fn with<T>(dir: &Path, mut write: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut pieces = 0;
    loop {
        match write() {
            Err(error) if is_full(&error) && pieces < PIECES_PER_FILE_MAX && give_up(dir) => {
                pieces += 1;
                tracing::warn!(
                    left_bytes = bytes(dir),
                    "the disk is full; reserved bytes were given up for a small file"
                );
            }
            other => return other,
        }
    }
}

/// Whether an error says that the disk, or a quota on it, is used up.
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// Bytes in reserve in `dir`.
pub fn bytes(dir: &Path) -> u64 {
    fs::metadata(dir.join(FILE)).map_or(0, |metadata| metadata.len())
}

/// Shortens the reserve by a piece. False if there is nothing left of it.
fn give_up(dir: &Path) -> bool {
    let path = dir.join(FILE);
    let left = bytes(dir);
    let shorten = || {
        OpenOptions::new()
            .write(true)
            .open(&path)?
            .set_len(left.saturating_sub(PIECE_BYTES))
    };
    left > 0 && (shorten().is_ok() || fs::remove_file(&path).is_ok())
}

/// Brings the reserve in `dir` to `wanted_bytes`, or as near as the disk has room. True if it is whole.
pub fn fill(dir: &Path, wanted_bytes: u64) -> io::Result<bool> {
    let there = bytes(dir);
    if there == wanted_bytes {
        return Ok(true);
    }
    let path = dir.join(FILE);
    let open = || OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let mut file = match open() {
        Ok(file) => file,
        // Not ours: nothing but a file keeps bytes.
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
            fs::remove_dir_all(&path)?;
            open()?
        }
        Err(error) => return Err(error),
    };
    let filled = extend(&mut file, there, wanted_bytes);
    if let Err(error) = &filled {
        if !is_full(error) {
            return filled.map(|()| false);
        }
        // The last piece may be written in part: bytes that were promised must be there.
        let whole = file.metadata()?.len() / PIECE_BYTES * PIECE_BYTES;
        file.set_len(whole)?;
    }
    file.sync_data()?;
    sync_dir(dir)?;
    Ok(filled.is_ok())
}

/// Written, not just allocated: what a file system promises without writing is not everywhere kept. The bytes do not
/// compress.
fn extend(file: &mut File, from: u64, to: u64) -> io::Result<()> {
    if from > to {
        return file.set_len(to);
    }
    file.seek(SeekFrom::Start(from))?;
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut piece = Vec::with_capacity(PIECE_BYTES as usize);
    while (piece.len() as u64) < PIECE_BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        piece.extend_from_slice(&state.to_le_bytes());
    }
    let mut left = to - from;
    while left > 0 {
        let part = left.min(PIECE_BYTES);
        file.write_all(&piece[..part as usize])?;
        left -= part;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> io::Error {
        io::Error::from(io::ErrorKind::StorageFull)
    }

    #[test]
    fn pieces_are_given_up_until_it_fits() {
        let dir = tempfile::tempdir().unwrap();
        assert!(fill(dir.path(), 4 * PIECE_BYTES + 10).unwrap());
        assert_eq!(bytes(dir.path()), 4 * PIECE_BYTES + 10);
        let mut tries = 0;
        let written = with(dir.path(), || {
            tries += 1;
            if tries < 3 { Err(full()) } else { Ok(tries) }
        });
        assert_eq!((written.unwrap(), bytes(dir.path())), (3, 2 * PIECE_BYTES + 10));
        // Nothing is left: the error comes through.
        let error = with(dir.path(), || Err::<(), _>(full())).unwrap_err();
        assert_eq!((error.kind(), bytes(dir.path())), (io::ErrorKind::StorageFull, 0));
        // A disk that stays full keeps the rest.
        let more = u64::from(PIECES_PER_FILE_MAX) + 4;
        assert!(fill(dir.path(), more * PIECE_BYTES).unwrap());
        assert!(with(dir.path(), || Err::<(), _>(full())).is_err());
        assert_eq!(bytes(dir.path()), 4 * PIECE_BYTES);
        // Other errors cost nothing.
        assert!(fill(dir.path(), 2 * PIECE_BYTES).unwrap());
        let denied = || Err::<(), _>(io::Error::from(io::ErrorKind::PermissionDenied));
        assert!(with(dir.path(), denied).is_err());
        assert_eq!(bytes(dir.path()), 2 * PIECE_BYTES);
        // A smaller one is wished for.
        assert!(fill(dir.path(), PIECE_BYTES).unwrap());
        assert_eq!(bytes(dir.path()), PIECE_BYTES);
    }

    #[test]
    fn a_directory_in_its_place_does_not_matter() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(FILE)).unwrap();
        fs::write(dir.path().join(FILE).join("x"), "y").unwrap();
        assert!(fill(dir.path(), 100).unwrap());
        assert_eq!(bytes(dir.path()), 100);
    }
}
