//! The directory of a spool: names, seals, the high-water file, and small file helpers.
//! Never interprets frames.
//!
//! ```text
//! <spool>/lock                     held while the spool is open
//!         high                     seq, amounts and root seq after the last acknowledged append; a hint, not fsynced
//!         ballast                  bytes that can be given up so that segments still open on a full disk
//!         00000000000000000001/    a segment, named by its first seq: sled's files, and `seal` once it is closed
//!         new.<segment>            a segment being rebuilt
//!         bad.<segment>.<n>        a damaged segment, set aside
//!         spent.<segment>          the seal of a segment that was delivered and removed before that could be written down
//!         dead.<n>                 a segment about to be removed
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::Hole;
use crate::cell::Reader;
use crate::record::Counters;
use crate::segment::DB_FILE;

/// Summary of a closed segment, with the checksum of its database file.
pub(crate) const SEAL_FILE: &str = "seal";
/// Copy of the database file made before sled opens a segment that may be damaged: sled clears what it cannot follow.
pub(crate) const KEPT_FILE: &str = "db.kept";
/// Held while a spool is open.
pub(crate) const LOCK_FILE: &str = "lock";

const HIGH_FILE: &str = "high";
const BALLAST_FILE: &str = "ballast";

/// Room kept aside on the disk, bytes: enough for sled to open two segments on a full disk and drain them.
pub(crate) const BALLAST_BYTES: u64 = 1024 * 1024;

/// Holes listed in a seal; more than these are joined into the last one.
const SEAL_HOLES_MAX: usize = 1000;

/// Largest seal that is read, bytes.
const SEAL_BYTES_MAX: u64 = 64 * 1024;

/// Directory name of a segment.
pub(crate) fn segment_name(first_seq: u64) -> String {
    format!("{first_seq:020}")
}

/// Directory name of what is left of a delivered segment.
pub(crate) fn spent_name(first_seq: u64) -> String {
    format!("spent.{}", segment_name(first_seq))
}

/// What is in a spool's directory.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// First seqs, rising.
    pub segments: Vec<u64>,
    pub new: Vec<u64>,
    pub spent: Vec<u64>,
    pub bad: Vec<PathBuf>,
    pub dead: Vec<PathBuf>,
    /// Anything that is not ours.
    pub foreign: Vec<PathBuf>,
}

impl Listing {
    /// Reads the directory.
    pub fn read(dir: &Path) -> io::Result<Self> {
        let mut listing = Self::default();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if let Some(first_seq) = parse_segment_name(&name) {
                listing.segments.push(first_seq);
            } else if let Some(first_seq) = name.strip_prefix("new.").and_then(parse_segment_name) {
                listing.new.push(first_seq);
            } else if let Some(first_seq) = name.strip_prefix("spent.").and_then(parse_segment_name) {
                listing.spent.push(first_seq);
            } else if name.starts_with("bad.") {
                listing.bad.push(path);
            } else if name.starts_with("dead.") {
                listing.dead.push(path);
            } else if ![LOCK_FILE, HIGH_FILE, BALLAST_FILE].contains(&name.as_str()) {
                listing.foreign.push(path);
            }
        }
        listing.segments.sort_unstable();
        listing.spent.sort_unstable();
        listing.bad.sort();
        Ok(listing)
    }
}

fn parse_segment_name(name: &str) -> Option<u64> {
    let first_seq = name.parse().ok()?;
    (first_seq > 0 && segment_name(first_seq) == name).then_some(first_seq)
}

/// `prefix.<n>` with the first number that is free.
pub(crate) fn free_name(dir: &Path, prefix: &str) -> PathBuf {
    (1u64..)
        .map(|n| dir.join(format!("{prefix}.{n}")))
        .find(|path| fs::symlink_metadata(path).is_err())
        .unwrap_or_else(|| dir.join(prefix))
}

/// Removes a file or a directory with all that is in it; one that is not there is no error.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    removed.or_else(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            Ok(())
        } else {
            Err(error)
        }
    })
}

/// Removes everything in `dir` except the named entries.
pub(crate) fn keep_only(dir: &Path, names: &[&str]) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if !names.iter().any(|name| path.ends_with(name)) {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Makes names created, renamed or removed in `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Bytes of all files below `path`.
pub(crate) fn bytes_below(path: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return 0;
    };
    if !metadata.is_dir() {
        return metadata.len();
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| bytes_below(&entry.path())).sum()
}

/// What is known of a closed segment without opening it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seal {
    pub before: Counters,
    /// Seq after its last frame.
    pub end_seq: u64,
    pub end: Counters,
    pub holes: Vec<Hole>,
    db_bytes: u64,
    db_crc: u32,
}

impl Seal {
    /// Writes the seal of the closed segment in `dir`, durably.
    pub fn write(dir: &Path, before: Counters, end_seq: u64, end: Counters, holes: Vec<Hole>) -> io::Result<()> {
        let (db_bytes, db_crc) = checksum(&dir.join(DB_FILE))?;
        let seal = Self {
            before,
            end_seq,
            end,
            holes,
            db_bytes,
            db_crc,
        };
        let mut file = File::create(dir.join(SEAL_FILE))?;
        file.write_all(&seal.encode())?;
        crash_point::at!(SpoolSealBeforeSync);
        file.sync_all()?;
        sync_dir(dir)
    }

    /// Reads the seal; `None` if there is no intact one.
    pub fn read(dir: &Path) -> Option<Self> {
        let mut bytes = Vec::new();
        File::open(dir.join(SEAL_FILE))
            .ok()?
            .take(SEAL_BYTES_MAX)
            .read_to_end(&mut bytes)
            .ok()?;
        Self::decode(&bytes)
    }

    /// Removes the seal, durably, before the segment is written to again.
    pub fn remove(dir: &Path) -> io::Result<()> {
        if fs::symlink_metadata(dir.join(SEAL_FILE)).is_ok() {
            remove(&dir.join(SEAL_FILE))?;
            sync_dir(dir)?;
        }
        Ok(())
    }

    /// Gives back what reading has added: sled clears the space behind the end of its log when it opens, which makes
    /// the file longer. Without that, draining a full disk would need more of it.
    pub fn shrink(dir: &Path) {
        let Some(seal) = Self::read(dir) else { return };
        let file = OpenOptions::new().write(true).open(dir.join(DB_FILE));
        let shrunk = file.and_then(|file| {
            if file.metadata()?.len() > seal.db_bytes {
                file.set_len(seal.db_bytes)
            } else {
                Ok(())
            }
        });
        if let Err(error) = shrunk {
            tracing::debug!(segment = %dir.display(), %error, "segment not shrunk");
        }
    }

    /// True if the database file is bit for bit the one that was sealed.
    pub fn matches(&self, dir: &Path) -> bool {
        checksum(&dir.join(DB_FILE)).is_ok_and(|found| found == (self.db_bytes, self.db_crc))
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.before.write(&mut out);
        out.extend_from_slice(&self.end_seq.to_be_bytes());
        self.end.write(&mut out);
        out.extend_from_slice(&self.db_bytes.to_be_bytes());
        out.extend_from_slice(&self.db_crc.to_be_bytes());
        let mut holes: Vec<Hole> = self.holes.iter().take(SEAL_HOLES_MAX).copied().collect();
        if let Some(last) = holes.last_mut() {
            for hole in self.holes.iter().skip(SEAL_HOLES_MAX) {
                last.last_seq = hole.last_seq;
                last.frames += hole.frames;
                last.records += hole.records;
                last.bytes += hole.bytes;
            }
        }
        out.extend_from_slice(&(holes.len() as u32).to_be_bytes());
        for hole in &holes {
            for value in [hole.first_seq, hole.last_seq, hole.frames, hole.records, hole.bytes] {
                out.extend_from_slice(&value.to_be_bytes());
            }
        }
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_be_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(checked(bytes)?);
        let before = Counters::read(&mut reader)?;
        let (end_seq, end) = (reader.u64()?, Counters::read(&mut reader)?);
        let (db_bytes, db_crc, count) = (reader.u64()?, reader.u32()?, reader.u32()?);
        let mut holes = Vec::new();
        for _ in 0..count {
            holes.push(Hole {
                first_seq: reader.u64()?,
                last_seq: reader.u64()?,
                frames: reader.u64()?,
                records: reader.u64()?,
                bytes: reader.u64()?,
            });
        }
        Some(Self {
            before,
            end_seq,
            end,
            holes,
            db_bytes,
            db_crc,
        })
    }
}

/// The part of `bytes` that the CRC at its end vouches for.
fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    (crc32fast::hash(body) == u32::from_be_bytes(*crc)).then_some(body)
}

fn checksum(path: &Path) -> io::Result<(u64, u32)> {
    let mut file = File::open(path)?;
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut bytes = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((bytes, hasher.finalize())),
            read => {
                bytes += read as u64;
                hasher.update(&buffer[..read]);
            }
        }
    }
}

/// Where the stream stood after the last acknowledged append.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct High {
    pub next_seq: u64,
    pub amounts: Counters,
    pub root_seq: u64,
}

/// The file behind [`High`]. It is written after every append and not fsynced: after a kill it is exact, after a power
/// cut it may be older than the truth but is never newer. So if it is ahead of what a segment holds, something
/// acknowledged is gone.
#[derive(Debug)]
pub(crate) struct HighFile {
    file: File,
}

impl HighFile {
    /// Opens the file; what it says is `None` if it is missing or damaged.
    pub fn open(dir: &Path) -> io::Result<(Self, Option<High>)> {
        let path = dir.join(HIGH_FILE);
        let open = || {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
        };
        let mut file = open().or_else(|_| {
            remove(&path)?;
            open()
        })?;
        let mut bytes = Vec::new();
        // Damage in a hint is worth no error: it reads as "unknown".
        let _unreadable = Read::by_ref(&mut file).take(1024).read_to_end(&mut bytes);
        Ok((Self { file }, Self::decode(&bytes)))
    }

    /// Reads the hint without creating anything.
    pub fn peek(dir: &Path) -> Option<High> {
        let mut bytes = Vec::new();
        File::open(dir.join(HIGH_FILE))
            .ok()?
            .take(1024)
            .read_to_end(&mut bytes)
            .ok()?;
        Self::decode(&bytes)
    }

    fn decode(bytes: &[u8]) -> Option<High> {
        let mut reader = Reader::new(checked(bytes)?);
        Some(High {
            next_seq: reader.u64()?,
            amounts: Counters::read(&mut reader)?,
            root_seq: reader.u64()?,
        })
    }

    /// Writes the hint.
    pub fn write(&self, high: High) -> io::Result<()> {
        let mut out = high.next_seq.to_be_bytes().to_vec();
        high.amounts.write(&mut out);
        out.extend_from_slice(&high.root_seq.to_be_bytes());
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_be_bytes());
        self.file.write_all_at(&out, 0)?;
        Ok(())
    }

    /// Makes the hint durable.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Creates the ballast if it is missing and the disk has room for it. True if it is there afterwards.
pub(crate) fn put_ballast(dir: &Path) -> bool {
    let path = dir.join(BALLAST_FILE);
    if fs::metadata(&path).is_ok_and(|metadata| metadata.len() == BALLAST_BYTES) {
        return true;
    }
    let block = vec![0xB5; 64 * 1024];
    let written = File::create(&path).and_then(|mut file| {
        for _ in 0..BALLAST_BYTES / block.len() as u64 {
            file.write_all(&block)?;
        }
        file.sync_data()
    });
    written
        .or_else(|_| remove(&path).and(Err(io::Error::other("no room"))))
        .is_ok()
}

/// Gives the ballast up. True if there was one.
pub(crate) fn drop_ballast(dir: &Path) -> bool {
    fs::remove_file(dir.join(BALLAST_FILE)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, first_seq) in [
            ("00000000000000000001", Some(1)),
            ("18446744073709551615", Some(u64::MAX)),
            ("00000000000000000000", None),
            ("1", None),
            ("+0000000000000000001", None),
            ("0000000000000000001x", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(parse_segment_name(name), first_seq, "{name}");
        }
    }

    #[test]
    fn a_seal_notices_every_change() {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join(DB_FILE);
        fs::write(&db, [7; 100_000]).unwrap();
        let amounts = Counters {
            frames: 1,
            records: 2,
            bytes: 3,
        };
        let holes = vec![Hole {
            first_seq: 4,
            last_seq: 5,
            frames: 2,
            records: 9,
            bytes: 8,
        }];
        Seal::write(dir.path(), Counters::default(), 6, amounts, holes.clone()).unwrap();
        let seal = Seal::read(dir.path()).unwrap();
        assert_eq!((seal.end_seq, seal.end, &seal.holes), (6, amounts, &holes));
        assert!(seal.matches(dir.path()));

        let sealed = fs::read(dir.path().join(SEAL_FILE)).unwrap();
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 0x10;
            assert_eq!(Seal::decode(&bad), None, "byte {at}");
            assert_eq!(Seal::decode(&sealed[..at]), None, "cut at {at}");
        }
        for change in [
            |b: &mut Vec<u8>| b[99_999] = 8,
            |b: &mut Vec<u8>| b.truncate(99_999),
            |b: &mut Vec<u8>| b.push(7),
        ] {
            let mut bytes = vec![7; 100_000];
            change(&mut bytes);
            fs::write(&db, bytes).unwrap();
            assert!(!seal.matches(dir.path()));
        }
    }

    #[test]
    fn the_high_file_survives_nonsense() {
        let dir = tempfile::tempdir().unwrap();
        let high = High {
            next_seq: 5,
            amounts: Counters {
                frames: 4,
                records: 40,
                bytes: 400,
            },
            root_seq: 9,
        };
        for (spoil, expected) in [
            (None, Some(high)),
            (Some(&b"junk"[..]), None),
            (Some(&[0; 2000][..]), None),
        ] {
            let (file, _) = HighFile::open(dir.path()).unwrap();
            file.write(high).unwrap();
            if let Some(bytes) = spoil {
                fs::write(dir.path().join(HIGH_FILE), bytes).unwrap();
            }
            assert_eq!(HighFile::open(dir.path()).unwrap().1, expected);
            fs::remove_file(dir.path().join(HIGH_FILE)).unwrap();
        }
        fs::create_dir(dir.path().join(HIGH_FILE)).unwrap();
        assert_eq!(HighFile::open(dir.path()).unwrap().1, None);
    }
}
