//! A disk under a process's own files that turns full, read-only, deaf to fsync or slow while the process runs: a library
//! preloaded between it and the system's calls. What lies elsewhere is on a disk that is well.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::{Cmd, find_program, temp_dir};

/// How long compiling one file may take.
const COMPILE_MAX: Duration = Duration::from_secs(60);

/// What a disk suffers from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Illness {
    /// What takes room fails with ENOSPC, some of it after half was taken.
    Full,
    /// What writes fails with EROFS.
    ReadOnly,
    /// An fsync fails with EIO.
    NoSync,
    /// An fsync takes this long.
    Slow(Duration),
}

/// The disk of whatever is started with [`IllDisk::under`]. It is well at first.
#[derive(Debug)]
pub struct IllDisk {
    /// Directories, with `:` between.
    files: OsString,
    dir: TempDir,
}

impl IllDisk {
    /// The disk that holds everything below these directories.
    #[must_use]
    #[track_caller]
    pub fn holding(dirs: &[&Path]) -> Self {
        let files: Vec<&OsStr> = dirs.iter().map(|dir| dir.as_os_str()).collect();
        let disk = Self {
            files: files.join(OsStr::new(":")),
            dir: temp_dir("ill-disk"),
        };
        Cmd::new(find_program("cc", "gcc"))
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(disk.library())
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ill_disk.c"))
            .arg("-ldl")
            .run(COMPILE_MAX)
            .ok();
        disk.is_well();
        disk
    }

    fn library(&self) -> PathBuf {
        self.dir.path().join("ill_disk.so")
    }

    fn mode(&self) -> PathBuf {
        self.dir.path().join("mode")
    }

    /// The command, with its files on this disk.
    #[must_use]
    pub fn under(&self, cmd: Cmd) -> Cmd {
        cmd.preload(&self.library())
            .env("ILL_DISK_DIRS", &self.files)
            .env("ILL_DISK_MODE", self.mode())
    }

    /// From now on it suffers from this.
    #[track_caller]
    pub fn suffers(&self, illness: Illness) {
        self.says(&match illness {
            Illness::Full => "full".to_string(),
            Illness::ReadOnly => "readonly".to_string(),
            Illness::NoSync => "nosync".to_string(),
            Illness::Slow(fsync) => format!("slow {}", fsync.as_millis()),
        });
    }

    /// From now on it is well again.
    #[track_caller]
    pub fn is_well(&self) {
        self.says("well");
    }

    #[track_caller]
    fn says(&self, mode: &str) {
        // Replaced whole: it is read at any moment.
        let (path, new) = (self.mode(), self.dir.path().join("new"));
        fs::write(&new, mode).unwrap_or_else(|e| panic!("cannot write {}: {e}", new.display()));
        fs::rename(&new, &path).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_illness_is_felt_below_the_directory_and_nowhere_else() {
        let dir = temp_dir("patient");
        let (ours, others) = (dir.path().join("ours"), dir.path().join("others"));
        fs::create_dir(&ours).unwrap();
        fs::create_dir(&others).unwrap();
        let disk = IllDisk::holding(&[&ours]);
        let writes = |into: &Path| {
            let to = format!("of={}", into.join("file").display());
            let dd = Cmd::new("dd").args(["if=/dev/zero", "bs=4096", "count=4", "conv=fsync", &to]);
            disk.under(dd).run(COMPILE_MAX)
        };
        for (illness, says) in [
            (Illness::Full, "No space"),
            (Illness::ReadOnly, "Read-only"),
            (Illness::NoSync, "Input/output error"),
        ] {
            disk.suffers(illness);
            let felt = writes(&ours);
            assert!(
                felt.code() != Some(0) && felt.stderr.contains(says),
                "{illness:?}: {felt:?}"
            );
            writes(&others).ok();
        }
        disk.suffers(Illness::Slow(Duration::from_millis(20)));
        writes(&ours).ok();
        disk.is_well();
        writes(&ours).ok();
    }
}
