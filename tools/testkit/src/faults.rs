//! Faults of disks: one that fills up or turns read-only, files damaged while nobody uses them. Network faults are a
//! [`Link`](crate::Link)'s, those of processes a [`Proc`](crate::Proc)'s.
//!
//! A slow disk is not here: without a device of one's own nothing can make fsync slow honestly. What a daemon can see of
//! it is that time passes inside a call, and [`Proc::freeze_for`](crate::Proc::freeze_for) does that.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use tempfile::TempDir;

use crate::{Dice, temp_dir};

/// Bytes of ballast written at once.
const BALLAST_STEP_BYTES: usize = 256 * 1024;
/// What the disk is filled with last, so that not even a small file fits.
const BALLAST_CRUMB_BYTES: usize = 512;

/// A small disk in memory, unmounted when dropped. Needs root.
#[derive(Debug)]
pub struct Disk {
    dir: TempDir,
    ballast: PathBuf,
}

impl Disk {
    /// An empty disk of this size, a multiple of 4096 bytes.
    #[must_use]
    #[track_caller]
    pub fn mount(bytes: u64) -> Self {
        let dir = temp_dir("disk");
        let options = std::ffi::CString::new(format!("size={bytes},mode=0755")).expect("no zero byte");
        mount(
            "tmpfs",
            dir.path(),
            "tmpfs",
            MountFlags::empty(),
            Some(options.as_c_str()),
        )
        .unwrap_or_else(|e| {
            panic!(
                "cannot mount a tmpfs on {}: {e}; this test needs root",
                dir.path().display()
            )
        });
        let ballast = dir.path().join("ballast");
        Self { dir, ballast }
    }

    /// Where it is mounted.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Puts what is going to be kept as `name` in `dir` on this disk.
    #[track_caller]
    pub fn hold(&self, dir: &Path, name: &str) {
        let there = self.dir().join(name);
        let held = fs::create_dir(&there).and_then(|()| symlink(&there, dir.join(name)));
        held.unwrap_or_else(|e| panic!("cannot put {name} on a disk of its own: {e}"));
    }

    /// Bytes that are free.
    #[must_use]
    #[track_caller]
    pub fn free_bytes(&self) -> u64 {
        let stat = rustix::fs::statvfs(self.dir()).unwrap_or_else(|e| panic!("cannot look at the disk: {e}"));
        stat.f_bavail * stat.f_frsize
    }

    /// Fills it with a file until not a byte is left.
    #[track_caller]
    pub fn fill(&self) {
        let mut file = OpenOptions::new().create(true).append(true).open(&self.ballast);
        let file = file
            .as_mut()
            .unwrap_or_else(|e| panic!("cannot write {}: {e}", self.ballast.display()));
        for step in [BALLAST_STEP_BYTES, BALLAST_CRUMB_BYTES] {
            while file.write_all(&vec![0; step]).is_ok() {}
        }
    }

    /// Fills it until about so many bytes are left.
    #[track_caller]
    pub fn fill_but(&self, left_bytes: u64) {
        let bytes = self.free_bytes().saturating_sub(left_bytes);
        let written = File::create(&self.ballast).and_then(|mut file| file.write_all(&vec![0; bytes as usize]));
        written.unwrap_or_else(|e| panic!("cannot write {}: {e}", self.ballast.display()));
    }

    /// Takes away what [`Disk::fill`] wrote.
    #[track_caller]
    pub fn free(&self) {
        match fs::remove_file(&self.ballast) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => panic!("cannot free the disk: {e}"),
            _ => {}
        }
    }

    /// Remounts it. The kernel refuses to make a disk read-only on which a file is open for writing: `false` then. (A disk
    /// with errors turns read-only all the same; see [`Disk::fill`] for writes that fail on open files.)
    #[must_use]
    pub fn read_only(&self, read_only: bool) -> bool {
        let flags = if read_only {
            MountFlags::RDONLY
        } else {
            MountFlags::empty()
        };
        mount_remount(self.dir(), flags, "").is_ok()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Detached: whatever a process still has open goes with the process.
        if let Err(e) = unmount(self.dir(), UnmountFlags::DETACH) {
            eprintln!("cannot unmount {}: {e}", self.dir().display());
        }
    }
}

/// Every file below a directory that has any content, sorted by path, so that dice choose the same one again.
#[must_use]
#[track_caller]
pub fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("cannot read {}: {e}", dir.display()));
    for entry in entries.flatten() {
        let path = entry.path();
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => found.extend(files_below(&path)),
            Ok(metadata) if metadata.is_file() && metadata.len() > 0 => found.push(path),
            _ => {}
        }
    }
    found.sort();
    found
}

/// Flips one bit of a file that nobody uses. Returns what it did, for the log.
#[track_caller]
pub fn flip_bit(path: &Path, dice: &mut Dice) -> String {
    let (file, bytes) = open(path);
    let at = dice.roll(bytes);
    let bit = dice.roll(8);
    let mut byte = [0];
    let flipped = file.read_exact_at(&mut byte, at).and_then(|()| {
        byte[0] ^= 1 << bit;
        file.write_all_at(&byte, at)
    });
    flipped.unwrap_or_else(|e| panic!("cannot change {}: {e}", path.display()));
    format!("flipped bit {bit} of byte {at} of {bytes} in {}", path.display())
}

/// Tears the end off a file that nobody uses, as a power cut does to the last write: up to 4096 bytes are missing, or are
/// there and zero. Returns what it did, for the log.
#[track_caller]
pub fn tear(path: &Path, dice: &mut Dice) -> String {
    let (file, bytes) = open(path);
    let torn = dice.between(1, bytes.min(4096));
    let zeroed = dice.roll(2) == 0;
    let done = if zeroed {
        file.write_all_at(&vec![0; torn as usize], bytes - torn)
    } else {
        file.set_len(bytes - torn)
    };
    done.unwrap_or_else(|e| panic!("cannot change {}: {e}", path.display()));
    let what = if zeroed { "zeroed" } else { "cut off" };
    format!("{what} the last {torn} of {bytes} bytes of {}", path.display())
}

#[track_caller]
fn open(path: &Path) -> (File, u64) {
    let opened = File::options().read(true).write(true).open(path).and_then(|file| {
        let bytes = file.metadata()?.len();
        Ok((file, bytes))
    });
    let (file, bytes) = opened.unwrap_or_else(|e| panic!("cannot open {}: {e}", path.display()));
    assert!(bytes > 0, "{} is empty: there is nothing to damage", path.display());
    (file, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_fills_up_and_is_freed() {
        let disk = Disk::mount(1 << 20);
        let file = disk.dir().join("file");
        fs::write(&file, [1; 1000]).unwrap();
        disk.fill();
        assert_eq!(disk.free_bytes(), 0);
        let full = fs::write(disk.dir().join("more"), [1; 10_000]).expect_err("the disk is full");
        assert_eq!(full.raw_os_error(), Some(28));
        assert_eq!(fs::read(&file).unwrap(), [1; 1000]);
        disk.free();
        disk.free();
        fs::write(&file, [2; 10_000]).unwrap();
        disk.fill_but(100_000);
        assert!((1..=110_000).contains(&disk.free_bytes()), "{}", disk.free_bytes());

        disk.free();
        let open = File::create(disk.dir().join("open")).unwrap();
        assert!(!disk.read_only(true), "a file is open for writing");
        drop(open);
        assert!(disk.read_only(true));
        let refused = fs::write(&file, "x").expect_err("it is read-only");
        assert_eq!(refused.raw_os_error(), Some(30));
        assert!(disk.read_only(false));
        fs::write(&file, "x").unwrap();

        let dir = disk.dir().to_path_buf();
        drop(disk);
        assert!(!dir.exists());
    }

    #[test]
    fn damage_is_small_and_can_be_repeated() {
        let dir = temp_dir("damage");
        fs::create_dir(dir.path().join("sub")).unwrap();
        let path = dir.path().join("sub").join("file");
        fs::write(dir.path().join("empty"), "").unwrap();
        let original = vec![0x5a_u8; 10_000];
        fs::write(&path, &original).unwrap();
        assert_eq!(files_below(dir.path()), std::slice::from_ref(&path));
        let differing = |bytes: &[u8]| original.iter().zip(bytes).filter(|(a, b)| a != b).count();

        let mut said = Vec::new();
        for _ in 0..2 {
            fs::write(&path, &original).unwrap();
            said.push(flip_bit(&path, &mut Dice::new(3)));
            let flipped = fs::read(&path).unwrap();
            assert_eq!((flipped.len(), differing(&flipped)), (10_000, 1));
        }
        assert_eq!(said[0], said[1]);
        let (mut cut, mut zeroed) = (0, 0);
        for seed in 0..20 {
            fs::write(&path, &original).unwrap();
            tear(&path, &mut Dice::new(seed));
            let torn = fs::read(&path).unwrap();
            assert!(torn.len() >= 10_000 - 4096);
            cut += usize::from(torn.len() < 10_000);
            zeroed += usize::from(torn.len() == 10_000 && torn.ends_with(&[0]));
        }
        assert!(cut > 0 && zeroed > 0 && cut + zeroed == 20, "{cut} {zeroed}");
    }
}
