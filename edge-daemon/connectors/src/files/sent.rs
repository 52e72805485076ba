//! Which files of a directory have been sent and stay there: a list beside them, on disk. Blocking; looks at no other file.
//!
//! Every file has a number, in the order of sending. A source that goes on from an older position forgets what has a higher
//! one, because its destination may not have that any more.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use crate::file::ledger::sync_directory;

/// `number key` and a line end, in hexadecimal.
const LINE_BYTES: usize = 34;
/// Entries of files that are gone are put up with, up to so many.
const GONE_MAX: usize = 1024;

pub(super) struct Sent {
    path: PathBuf,
    file: File,
    /// Key and number.
    known: HashMap<u64, u64>,
}

impl Sent {
    /// Opens or creates the list, and forgets what comes after `number`.
    pub(super) fn open(path: &Path, number: u64) -> io::Result<Self> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        // A line that is none was being written when the power went: its file has not been settled.
        let lines = bytes.chunks_exact(LINE_BYTES).filter_map(entry);
        let known = lines.filter(|(_, found)| *found <= number).collect();
        let file = rewrite(path, &known)?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
            known,
        })
    }

    pub(super) fn has(&self, key: u64) -> bool {
        self.known.contains_key(&key)
    }

    /// Adds files, durably.
    pub(super) fn add(&mut self, files: impl IntoIterator<Item = (u64, u64)>) -> io::Result<()> {
        let mut lines = String::new();
        for (key, number) in files {
            if self.known.insert(key, number).is_none() {
                lines.push_str(&line(key, number));
            }
        }
        if !lines.is_empty() {
            self.file.write_all(lines.as_bytes())?;
            self.file.sync_data()?;
        }
        Ok(())
    }

    /// Whether it is worth to go through the directory for files that are gone, of which `present` are there.
    pub(super) fn is_overgrown(&self, present: usize) -> bool {
        self.known.len() > 2 * present + GONE_MAX
    }

    /// Forgets all others.
    pub(super) fn keep_only(&mut self, present: impl Fn(u64) -> bool) -> io::Result<()> {
        self.known.retain(|key, _| present(*key));
        self.file = rewrite(&self.path, &self.known)?;
        Ok(())
    }
}

fn rewrite(path: &Path, known: &HashMap<u64, u64>) -> io::Result<File> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let text: String = known.iter().map(|(key, number)| line(*key, *number)).collect();
    fs::write(&fresh, text)?;
    let file = OpenOptions::new().append(true).open(&fresh)?;
    file.sync_data()?;
    fs::rename(&fresh, path)?;
    sync_directory(path)?;
    Ok(file)
}

fn line(key: u64, number: u64) -> String {
    format!("{number:016x} {key:016x}\n")
}

fn entry(line: &[u8]) -> Option<(u64, u64)> {
    let (number, key) = std::str::from_utf8(line).ok()?.strip_suffix('\n')?.split_once(' ')?;
    let hex = |text: &str| (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok()).flatten();
    Some((hex(key)?, hex(number)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_up_to_a_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list");
        let mut sent = Sent::open(&path, 0).unwrap();
        sent.add([(0xaa, 1), (0xbb, 2)]).unwrap();
        sent.add([(0xbb, 2), (0xcc, 3)]).unwrap();
        assert_eq!(fs::read(&path).unwrap().len(), 3 * LINE_BYTES);
        // Torn while it was written.
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend(b"00000000000000");
        fs::write(&path, bytes).unwrap();
        let sent = Sent::open(&path, 2).unwrap();
        assert_eq!([0xaa, 0xbb, 0xcc].map(|key| sent.has(key)), [true, true, false]);
        let mut sent = Sent::open(&path, 9).unwrap();
        assert!(!sent.has(0xcc));
        assert!(!sent.is_overgrown(0));
        sent.keep_only(|key| key == 0xbb).unwrap();
        sent.add([(0xdd, 4)]).unwrap();
        let sent = Sent::open(&path, 9).unwrap();
        assert_eq!([0xaa, 0xbb, 0xdd].map(|key| sent.has(key)), [false, true, true]);
        assert!(!Sent::open(&path, 0).unwrap().has(0xbb));
    }
}
