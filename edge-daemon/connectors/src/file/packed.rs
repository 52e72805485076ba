//! A file that is gzip, as the bytes in it. Read from its beginning each time; never by anybody who waits for it to grow.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::Path,
};

use flate2::read::MultiGzDecoder;

/// Bytes unpacked at once of what was read before.
const AGAIN_BYTES: usize = 64 * 1024;

/// Whether a file is taken for gzip: by its name.
pub(crate) fn is_packed(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gz"))
}

/// Reads a file without moving anybody else's place in it.
struct Independent {
    file: File,
    at: u64,
}

impl Read for Independent {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(bytes, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// The unpacked bytes of a file. Several gzips one after the other are one.
pub(super) struct Packed {
    bytes: MultiGzDecoder<Independent>,
    /// There is nothing after what was read.
    is_over: bool,
    /// What is wrong with what comes next.
    broken: Option<String>,
}

impl Read for Packed {
    /// 0 at the end, and before what cannot be unpacked.
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.is_over {
            return Ok(0);
        }
        let read = self.bytes.read(bytes);
        match read {
            Ok(0) => self.is_over = true,
            // Damaged, no gzip at all, or broken off. Trying again would not help.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof
                ) =>
            {
                self.is_over = true;
                self.broken = Some(error.to_string());
                return Ok(0);
            }
            _ => {}
        }
        read
    }
}

impl Packed {
    pub(super) fn new(file: &File) -> io::Result<Self> {
        let file = Independent {
            file: file.try_clone()?,
            at: 0,
        };
        Ok(Self {
            bytes: MultiGzDecoder::new(file),
            is_over: false,
            broken: None,
        })
    }

    /// Goes to an offset, by unpacking what is before it.
    pub(super) fn go_to(&mut self, offset: u64) -> io::Result<u64> {
        let mut bytes = vec![0; AGAIN_BYTES];
        let mut at = 0;
        while at < offset {
            let wanted = (offset - at).min(AGAIN_BYTES as u64) as usize;
            match self.read(&mut bytes[..wanted]) {
                Ok(0) => break,
                Ok(count) => at += count as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(at)
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// What is wrong with what comes next, said once.
    pub(super) fn take_broken(&mut self) -> Option<String> {
        self.broken.take()
    }
}
