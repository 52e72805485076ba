//! The rotated files beside a log, and their order. Looks at names and times, never inside.

use std::{
    cmp::Reverse,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Endings of files whose lines cannot be read as they are.
const COMPRESSED: &[&str] = &["gz", "bz2", "xz", "zst", "lz4", "zip", "Z"];
/// Longest rotation number (`app.log.12`); more digits are a date.
const NUMBER_DIGITS_MAX: usize = 5;

/// Which file it is, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub device: u64,
    pub inode: u64,
}

impl Identity {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// A rotated file.
#[derive(Debug)]
pub(crate) struct Sibling {
    pub path: PathBuf,
    identity: Identity,
    changed: SystemTime,
    /// The number at the end of its name.
    number: Option<u32>,
}

/// The rotated files of `path`: in its directory, called like it with something added at the end (`app.log.1`,
/// `app.log-20240131`) or before the ending (`app-20240131.log`), not compressed. By their numbers when all have one
/// (the highest is the oldest), else by the time of their last change.
pub(crate) fn oldest_first(path: &Path) -> io::Result<Vec<Sibling>> {
    let (Some(name), directory) = (path.file_name().and_then(|name| name.to_str()), parent(path)) else {
        return Ok(Vec::new());
    };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Some(suffix) = entry.file_name().to_str().and_then(|other| added(name, other)) else {
            continue;
        };
        // Deleted since it was listed.
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_file() {
            let changed = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            found.push(Sibling {
                path: entry.path(),
                identity: Identity::of(&metadata),
                changed,
                number: number(&suffix),
            });
        }
    }
    if found.iter().all(|sibling| sibling.number.is_some()) {
        found.sort_by_key(|sibling| Reverse(sibling.number));
    } else {
        found.sort_by(|a, b| (a.changed, &a.path).cmp(&(b.changed, &b.path)));
    }
    Ok(found)
}

/// The rotated file that was written after the one with this identity; `None` when that is the one at `path`.
pub(crate) fn after(path: &Path, identity: &Identity) -> io::Result<Option<PathBuf>> {
    let mut rotated = oldest_first(path)?
        .into_iter()
        .skip_while(|sibling| sibling.identity != *identity);
    rotated.next();
    Ok(rotated.next().map(|sibling| sibling.path))
}

pub(crate) fn parent(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// What `other` has that `name` has not, if it is called like a rotated `name`.
fn added(name: &str, other: &str) -> Option<String> {
    if other == name || COMPRESSED.iter().any(|ending| other.ends_with(&format!(".{ending}"))) {
        return None;
    }
    let is_rotation = |added: &str| added.bytes().any(|byte| byte.is_ascii_digit());
    if let Some(end) = other
        .strip_prefix(name)
        .filter(|end| end.starts_with(['.', '-', '_']) && is_rotation(end))
    {
        return Some(end.to_string());
    }
    let (stem, ending) = name.rsplit_once('.')?;
    let middle = other.strip_prefix(stem)?.strip_suffix(ending)?.strip_suffix('.')?;
    (middle.starts_with(['.', '-', '_']) && is_rotation(middle)).then(|| middle.to_string())
}

fn number(suffix: &str) -> Option<u32> {
    let digits = suffix.trim_start_matches(['.', '-', '_']);
    (digits.len() <= NUMBER_DIGITS_MAX)
        .then(|| digits.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognises_rotated_names() {
        for (name, other, wanted) in [
            ("app.log", "app.log.1", Some(".1")),
            ("app.log", "app.log-20240131", Some("-20240131")),
            ("app.log", "app-20240131.log", Some("-20240131")),
            ("app.log", "app.1.log", Some(".1")),
            ("app.log", "app.log", None),
            ("app.log", "app.log.1.gz", None),
            ("app.log", "app.log.mycelial", None),
            ("app.log", "application.log", None),
            ("app.log", "app2.log", None),
            ("app.log", "other.log.1", None),
            ("app", "app.7", Some(".7")),
            ("app", "app.log", None),
        ] {
            assert_eq!(added(name, other).as_deref(), wanted, "{other}");
        }
    }

    #[test]
    fn orders_by_number_or_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let names = || {
            oldest_first(&path)
                .unwrap()
                .iter()
                .map(|s| s.path.file_name().unwrap().to_str().unwrap().to_string())
                .collect::<Vec<_>>()
        };
        for name in ["a.log.2", "a.log.10", "a.log.1", "a.log"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        assert_eq!(names(), ["a.log.10", "a.log.2", "a.log.1"]);
        let second = Identity::of(&fs::metadata(dir.path().join("a.log.2")).unwrap());
        assert_eq!(after(&path, &second).unwrap(), Some(dir.path().join("a.log.1")));
        let first = Identity::of(&fs::metadata(dir.path().join("a.log.1")).unwrap());
        assert_eq!(after(&path, &first).unwrap(), None);
        let dated = dir.path().join("a.log-20200101");
        fs::write(&dated, "").unwrap();
        fs::File::options()
            .write(true)
            .open(&dated)
            .unwrap()
            .set_modified(SystemTime::UNIX_EPOCH)
            .unwrap();
        assert_eq!(names()[0], "a.log-20200101");
    }
}
