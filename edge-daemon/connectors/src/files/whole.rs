//! A file on its way as it is: read in chunks, with the checksum of what was read. Blocking.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::chunk::{Version, hex};

/// Bytes read at once of what was sent before.
const AGAIN_BYTES: usize = 64 * 1024;

/// What changes when a file does.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stamp([i64; 5], u64);

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        let times = [
            metadata.mtime(),
            metadata.mtime_nsec(),
            metadata.ctime(),
            metadata.ctime_nsec(),
            metadata.ino().cast_signed(),
        ];
        Self(times, metadata.len())
    }

    /// Whether the file at `path` is what it was.
    pub(super) fn is_at(&self, path: &Path) -> io::Result<bool> {
        match fs::symlink_metadata(path) {
            Ok(there) => Ok(Self::of(&there) == *self),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// A file being sent.
pub(super) struct Whole {
    pub version: Version,
    pub path: PathBuf,
    file: File,
    stamp: Stamp,
    pub offset: u64,
    digest: Sha256,
}

impl Whole {
    /// At its beginning. `metadata` is the file's.
    pub(super) fn new(version: Version, path: PathBuf, file: File, metadata: &Metadata) -> Self {
        Self {
            stamp: Stamp::of(metadata),
            version,
            path,
            file,
            offset: 0,
            digest: Sha256::new(),
        }
    }

    /// Goes to an offset: what was sent before has to go into the checksum again. `false`: it is not there any more.
    pub(super) fn go_to(&mut self, offset: u64) -> io::Result<bool> {
        let mut bytes = vec![0; AGAIN_BYTES];
        while self.offset < offset {
            let wanted = (offset - self.offset).min(AGAIN_BYTES as u64) as usize;
            if !self.take(&mut bytes[..wanted])? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Fills `bytes` with what comes next. `false`: the file is not what it was.
    pub(super) fn take(&mut self, bytes: &mut [u8]) -> io::Result<bool> {
        match self.file.read_exact(bytes) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
        self.digest.update(&*bytes);
        self.offset += bytes.len() as u64;
        // Nobody has touched it, nor put another one into its place.
        Ok(Stamp::of(&self.file.metadata()?) == self.stamp && self.stamp.is_at(&self.path)?)
    }

    /// SHA-256 of what was read.
    pub(super) fn sha256(self) -> String {
        hex(&self.digest.finalize())
    }
}
