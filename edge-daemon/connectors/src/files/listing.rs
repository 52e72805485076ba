//! Which files of a directory are there and have come to rest. Looks at names, sizes and times, never inside.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::chunk::Version;
use crate::file::place::NAME_BYTES_MAX;

/// Files waited for at a time: of more, the oldest come first.
const WAITING_MAX: usize = 4096;
/// Directories below each other.
const DEPTH_MAX: usize = 32;

/// Which files are meant.
#[derive(Debug, Clone)]
pub(super) struct Choice {
    pub directory: PathBuf,
    /// Names of files, with `*` and `?`.
    pub pattern: Option<String>,
    pub recursive: bool,
    /// How long a file must stay as it is.
    pub settle: Duration,
}

/// What is waited for, and what is ready.
#[derive(Default)]
pub(super) struct Listing {
    /// Since when each has been as it is.
    seen: HashMap<Version, Instant>,
    ready: VecDeque<Version>,
    /// A name that cannot be sent has been told of.
    has_told: bool,
}

impl Listing {
    /// The next file to send, of those that `is_wanted`.
    pub(super) fn next(
        &mut self,
        choice: &Choice,
        now: Instant,
        mut is_wanted: impl FnMut(&Version) -> bool,
    ) -> io::Result<Option<Version>> {
        if self.ready.is_empty() {
            let mut waiting = BTreeSet::new();
            self.walk(choice, &mut |version| {
                if is_wanted(&version) {
                    waiting.insert(version);
                    if waiting.len() > WAITING_MAX {
                        waiting.pop_last();
                    }
                }
            })?;
            let since = |version: &Version| self.seen.get(version).copied().unwrap_or(now);
            self.seen = waiting
                .into_iter()
                .map(|version| (version.clone(), since(&version)))
                .collect();
            let mut ready: Vec<&Version> = self.seen.keys().collect();
            ready.retain(|version| now.saturating_duration_since(self.seen[*version]) >= choice.settle);
            ready.sort_unstable();
            self.ready = ready.into_iter().cloned().collect();
        }
        while let Some(version) = self.ready.pop_front() {
            if is_wanted(&version) {
                return Ok(Some(version));
            }
        }
        Ok(None)
    }

    /// Whether no file was there that will have to be sent.
    pub(super) fn is_exhausted(&self) -> bool {
        self.seen.is_empty()
    }

    /// Calls `found` for each file that is meant.
    pub(super) fn walk(&mut self, choice: &Choice, found: &mut impl FnMut(Version)) -> io::Result<()> {
        let mut directories = vec![(choice.directory.clone(), String::new(), 0)];
        while let Some((directory, prefix, depth)) = directories.pop() {
            let entries = match fs::read_dir(&directory) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound && depth > 0 => continue,
                Err(error) => return Err(error),
            };
            for entry in entries {
                let entry = entry?;
                let file_name = entry.file_name();
                let Some(file_name) = file_name
                    .to_str()
                    .filter(|name| prefix.len() + name.len() <= NAME_BYTES_MAX)
                else {
                    self.tell(&entry.path());
                    continue;
                };
                // Where programs put what is not finished, and we what is ours.
                if file_name.starts_with('.') {
                    continue;
                }
                // Gone since it was listed; or a link, which may lead anywhere.
                let Ok(metadata) = entry.metadata() else { continue };
                let name = format!("{prefix}{file_name}");
                if metadata.is_dir() && choice.recursive && depth < DEPTH_MAX {
                    directories.push((entry.path(), format!("{name}/"), depth + 1));
                } else if metadata.is_file() && is_like(file_name, choice.pattern.as_deref()) {
                    found(version(name, &metadata));
                }
            }
        }
        Ok(())
    }

    fn tell(&mut self, path: &Path) {
        if !std::mem::replace(&mut self.has_told, true) {
            tracing::warn!(path = %path.display(), "a file whose name is not UTF-8, or too long, is not sent: rename it");
        }
    }
}

/// The version of a file that this describes.
pub(super) fn version(name: String, metadata: &Metadata) -> Version {
    Version {
        modified: i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec()),
        name,
        size: metadata.len(),
    }
}

fn is_like(name: &str, pattern: Option<&str>) -> bool {
    let Some(pattern) = pattern else { return true };
    let (name, pattern): (Vec<char>, Vec<char>) = (name.chars().collect(), pattern.chars().collect());
    let (mut at, mut of) = (0, 0);
    // Where to go on when what follows the last star does not fit.
    let mut star: Option<(usize, usize)> = None;
    while at < name.len() {
        match pattern.get(of) {
            Some('*') => {
                star = Some((at, of + 1));
                of += 1;
            }
            Some(wanted) if *wanted == '?' || *wanted == name[at] => (at, of) = (at + 1, of + 1),
            _ => match star {
                Some((from, after)) => {
                    star = Some((from + 1, after));
                    (at, of) = (from + 1, after);
                }
                None => return false,
            },
        }
    }
    pattern[of..].iter().all(|rest| *rest == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name, wanted) in [
            ("*.jpg", "a.jpg", true),
            ("*.jpg", "a.jpg.part", false),
            ("*", "", true),
            ("", "a", false),
            ("a?c", "aéc", true),
            ("a?c", "ac", false),
            ("*a*b", "xaayab", true),
            ("*a*b", "xaayabc", false),
            ("a*", "a", true),
            ("**x", "abx", true),
        ] {
            assert_eq!(is_like(name, Some(pattern)), wanted, "{pattern} {name}");
        }
    }

    #[test]
    fn files_come_when_they_rest() {
        let dir = tempfile::tempdir().unwrap();
        let choice = |recursive| Choice {
            directory: dir.path().to_path_buf(),
            pattern: Some("*.x".into()),
            recursive,
            settle: Duration::from_secs(2),
        };
        let put = |name: &str, seconds: u64| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, name).unwrap();
            let time = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            fs::File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .set_modified(time)
                .unwrap();
        };
        put("b.x", 1);
        put("a.x", 2);
        put("sub/c.x", 0);
        put(".hidden.x", 0);
        put("other", 0);
        std::os::unix::fs::symlink("a.x", dir.path().join("link.x")).unwrap();
        let mut listing = Listing::default();
        let start = Instant::now();
        let mut names = |after: u64, recursive: bool| {
            let mut names = Vec::new();
            let now = start + Duration::from_secs(after);
            while let Some(found) = listing
                .next(&choice(recursive), now, |v| !names.contains(&v.name))
                .unwrap()
            {
                names.push(found.name);
            }
            names
        };
        assert_eq!(names(0, false), [""; 0]);
        put("a.x", 3);
        assert_eq!(names(2, false), ["b.x"]);
        assert_eq!(names(4, false), ["a.x"]);
        assert_eq!(names(5, true), [""; 0]);
        assert_eq!(names(7, true), ["sub/c.x", "b.x", "a.x"]);
    }
}
