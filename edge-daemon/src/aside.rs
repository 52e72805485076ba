//! What was set aside because it was damaged or of no use any more: finds it, counts it, and lets go of it when somebody
//! says so or a stream needs the room. Never touches anything that is in use.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use bus_schema::id::StreamId;
use spool::Budget;

/// What something was before it was set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A small file of the daemon's own: `<name>.bad.<n>`.
    File,
    /// A store of dead letters: `<name>.damaged.<n>`.
    Letters,
    /// A segment of a buffer: `spool/bad.<segment>.<n>`. It counts in its buffer's quota.
    Segment,
    /// A whole buffer: `spool.lost.<n>`, of which 1 is the oldest.
    Buffer,
}

impl Kind {
    fn of(name: &str) -> Option<Self> {
        let is_numbered = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
        let ends = |word: &str| name.rsplit_once(word).is_some_and(|(_, rest)| is_numbered(rest));
        if name.strip_prefix("spool.lost.").is_some_and(is_numbered) {
            Some(Self::Buffer)
        } else if name.starts_with("bad.") {
            Some(Self::Segment)
        } else if ends(".damaged.") {
            Some(Self::Letters)
        } else if ends(".bad.") {
            Some(Self::File)
        } else {
            None
        }
    }

    /// In words.
    pub fn describe(self) -> &'static str {
        match self {
            Self::File => "a file",
            Self::Letters => "dead letters",
            Self::Segment => "a part of a buffer",
            Self::Buffer => "a whole buffer",
        }
    }
}

/// One thing that was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aside {
    /// Where it is.
    pub path: PathBuf,
    /// What it was.
    pub kind: Kind,
    /// Of which stream, if it is of one.
    pub stream: Option<StreamId>,
    /// What it takes on disk.
    pub bytes: u64,
}

/// Everything that was set aside in a daemon's directory, by path. What cannot be read is left out.
pub fn list(data_dir: &Path) -> Vec<Aside> {
    let mut found = Vec::new();
    for dir in [data_dir, &data_dir.join("marks"), &data_dir.join("dead")] {
        look(dir, None, &mut found);
    }
    for dir in entries(&data_dir.join("streams")) {
        let stream = dir.file_name().and_then(|name| name.to_string_lossy().parse().ok());
        look(&dir, stream, &mut found);
        look(&dir.join("spool"), stream, &mut found);
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn look(dir: &Path, stream: Option<StreamId>, found: &mut Vec<Aside>) {
    for path in entries(dir) {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        if let Some(kind) = name.and_then(|name| Kind::of(&name)) {
            found.push(Aside {
                bytes: bytes_below(&path),
                path,
                kind,
                stream,
            });
        }
    }
}

fn bytes_below(path: &Path) -> u64 {
    if !path.is_dir() {
        return fs::symlink_metadata(path).map_or(0, |file| file.len());
    }
    entries(path).iter().map(|path| bytes_below(path)).sum()
}

/// Removes it for good.
pub fn forget(aside: &Aside) -> io::Result<()> {
    if aside.path.is_dir() {
        fs::remove_dir_all(&aside.path)
    } else {
        fs::remove_file(&aside.path)
    }
}

/// Counts whole buffers that were set aside among what buffers have on disk. Blocks.
pub fn count(data_dir: &Path, budget: &Budget) {
    budget.count_aside(|| bytes(&buffers(data_dir)));
}

/// A stream needs room: the oldest buffer that was set aside goes, and of several the largest. False when there is none, or
/// it cannot be removed. Blocks.
pub fn give_up_oldest(data_dir: &Path, budget: &Budget) -> bool {
    let mut is_given_up = false;
    budget.count_aside(|| {
        let all = buffers(data_dir);
        if let Some(oldest) = oldest(&all) {
            let path = oldest.path.display();
            match forget(oldest) {
                Ok(()) => {
                    is_given_up = true;
                    tracing::warn!(%path, bytes = oldest.bytes, "no room: a buffer that had been set aside was removed");
                }
                Err(error) => tracing::warn!(%path, %error, "no room, and what was set aside cannot be removed"),
            }
        }
        bytes(&buffers(data_dir))
    });
    is_given_up
}

fn buffers(data_dir: &Path) -> Vec<Aside> {
    let mut all = list(data_dir);
    all.retain(|aside| aside.kind == Kind::Buffer);
    all
}

fn bytes(all: &[Aside]) -> u64 {
    all.iter().map(|aside| aside.bytes).sum()
}

/// By number, not by time: clocks of gateways are wrong. Pure.
fn oldest(buffers: &[Aside]) -> Option<&Aside> {
    let number = |aside: &Aside| aside.path.extension()?.to_str()?.parse::<u32>().ok();
    buffers
        .iter()
        .min_by_key(|aside| (number(aside), std::cmp::Reverse(aside.bytes)))
}

#[cfg(test)]
mod tests {
    use spool::Room;

    use super::*;

    const STREAMS: [&str; 2] = ["aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb"];

    fn write(home: &Path, name: &str, bytes: usize) {
        let path = home.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, vec![0; bytes]).unwrap();
    }

    #[test]
    fn what_was_set_aside_is_found() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(list(home.path()), []);
        for (name, kind) in [
            ("plan", None),
            ("plan.bad.1", Some(Kind::File)),
            ("plan.bad.new", None),
            ("marks/abc.bad.2", Some(Kind::File)),
            ("dead/shop.db", None),
            ("dead/shop.db.damaged.1", Some(Kind::Letters)),
            ("streams/abc/lineage.bad.1", Some(Kind::File)),
            ("streams/abc/spool.lost.1/db", Some(Kind::Buffer)),
            ("streams/abc/spool/bad.00000000000000000001.1/db", Some(Kind::Segment)),
            ("streams/abc/spool/00000000000000000007/db", None),
        ] {
            let before = list(home.path());
            write(home.path(), name, 3);
            let mut new = list(home.path());
            new.retain(|aside| !before.contains(aside));
            let found: Vec<_> = new.iter().map(|aside| (aside.kind, aside.bytes)).collect();
            assert_eq!(
                found,
                kind.map(|kind| (kind, 3)).into_iter().collect::<Vec<_>>(),
                "{name}"
            );
        }
        for aside in list(home.path()) {
            forget(&aside).unwrap();
        }
        assert_eq!(list(home.path()), []);
        assert!(home.path().join("streams/abc/spool/00000000000000000007/db").exists());
    }

    #[test]
    fn the_oldest_goes_first_and_nothing_else() {
        let home = tempfile::tempdir().unwrap();
        let budget = Budget::new(Room::default());
        let [a, b] = STREAMS.map(|stream| format!("streams/{stream}"));
        for (name, bytes) in [
            (format!("{a}/spool.lost.1/x"), 10),
            (format!("{a}/spool.lost.2/x"), 500),
            (format!("{b}/spool.lost.1/x"), 20),
            (format!("{b}/spool/00000000000000000001/db"), 7),
            (format!("{b}/spool/bad.00000000000000000001.1/db"), 7),
            ("plan.bad.1".to_string(), 7),
        ] {
            write(home.path(), &name, bytes);
        }
        count(home.path(), &budget);
        for left in [530, 510, 500, 0] {
            assert_eq!(budget.used_bytes(), left);
            assert_eq!(give_up_oldest(home.path(), &budget), left > 0);
        }
        let left: Vec<_> = list(home.path()).iter().map(|aside| aside.kind).collect();
        assert_eq!(left, [Kind::File, Kind::Segment]);
    }
}
