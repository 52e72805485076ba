//! When a source looks at its file: at once where the system tells of changes (inotify on Linux), and at an interval always,
//! because nobody tells of what another machine writes to a network file system. What the system tells is only a hint to
//! look; nothing read here says what has changed.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, sleep_until, timeout_at};

/// Between two looks while changes are told of: what comes meanwhile is read together. Also the first pause after a look,
/// of several that double, because a writer may be heard before what it writes can be seen: SQLite's log is written, then
/// synced, and only then committed.
const APART: Duration = Duration::from_millis(2);

/// What a look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing new.
    Nothing,
    /// All that there was.
    Some,
    /// Something, and more can be had at once.
    More,
}

/// When to look. Pure.
#[derive(Debug)]
struct Looks {
    interval: Duration,
    last: Option<Instant>,
    pause: Duration,
    next: Option<Instant>,
}

impl Looks {
    fn new(interval: Duration) -> Self {
        Self {
            interval,
            last: None,
            pause: interval,
            next: None,
        }
    }

    /// Something may have changed.
    fn heard(&mut self, now: Instant) {
        self.pause = APART.min(self.interval);
        self.next = self.last.map(|last| now.max(last + self.pause));
    }

    /// It was looked at `now`.
    fn looked(&mut self, now: Instant, found: Found) {
        self.last = Some(now);
        if found == Found::Some {
            // What has begun often goes on.
            self.pause = APART.min(self.interval);
        }
        self.next = (found != Found::More).then_some(now + self.pause);
        self.pause = (2 * self.pause).min(self.interval);
    }

    /// The next look is so close that nothing that is heard brings it forward.
    fn is_close(&self) -> bool {
        matches!((self.last, self.next), (Some(last), Some(next)) if next <= last + APART)
    }
}

/// Waits until it is time to look at a file again.
pub(crate) struct Watch {
    looks: Looks,
    /// `None` where nobody tells.
    ear: Option<ear::Ear>,
}

impl Watch {
    /// Of a file, and of others beside it whose names have these endings. None of them needs to be there. Blocks for a
    /// moment.
    pub(crate) fn new(path: &Path, endings: &[&str], interval: Duration) -> Self {
        // Beside what a link leads to, because that is where SQLite keeps its log; the link itself may be changed, too.
        let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        let mut files = vec![path.to_path_buf(), target.clone()];
        files.extend(endings.iter().map(|ending| {
            let mut name = target.clone().into_os_string();
            name.push(ending);
            PathBuf::from(name)
        }));
        files.dedup();
        let ear = ear::Ear::new(files).map_err(|error| untold(&error)).ok();
        Self {
            looks: Looks::new(interval),
            ear,
        }
    }

    /// What is to be armed before each look, on a thread that may block.
    pub(crate) fn wire(&self) -> Option<Arc<ear::Wire>> {
        self.ear.as_ref().map(ear::Ear::wire)
    }

    /// Waits until it is time to look, at most until `give_up`. `false`: it is not yet.
    pub(crate) async fn due(&mut self, give_up: Instant) -> bool {
        loop {
            let now = Instant::now();
            let Some(next) = self.looks.next.filter(|next| *next > now) else {
                return true;
            };
            if now >= give_up {
                return false;
            }
            let until = next.min(give_up);
            match &mut self.ear {
                Some(ear) if !self.looks.is_close() => {
                    if timeout_at(until, ear.heard()).await.is_ok() {
                        self.looks.heard(Instant::now());
                    }
                }
                _ => sleep_until(until).await,
            }
        }
    }

    /// It was looked, beginning at `at`.
    pub(crate) fn looked(&mut self, at: Instant, found: Found) {
        self.looks.looked(at, found);
    }
}

/// Said once for each source that opens, or when the last limit is reached.
fn untold(error: &std::io::Error) {
    tracing::warn!(%error, "the system does not tell of changes to a file: looking at intervals only");
}

#[cfg(target_os = "linux")]
mod ear {
    use std::{
        collections::HashSet,
        ffi::{CStr, OsStr, OsString},
        io,
        mem::MaybeUninit,
        os::{
            fd::{AsRawFd, OwnedFd, RawFd},
            unix::ffi::OsStrExt,
        },
        path::{Path, PathBuf},
        sync::{Arc, Mutex, PoisonError},
    };

    use rustix::{
        fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
        io::Errno,
    };
    use tokio::io::unix::AsyncFd;

    /// Bytes of events read at a time. One with the longest name has 272.
    const EVENTS_BYTES: usize = 1024;

    /// What is listened at.
    struct Line {
        path: PathBuf,
        flags: WatchFlags,
        /// The kernel's number for it, once it is listened at.
        number: Option<i32>,
    }

    /// The end that is fastened to files. What it does may take as long as a disk does.
    pub(crate) struct Wire {
        fd: OwnedFd,
        lines: Mutex<Vec<Line>>,
        /// The names in their directories that matter.
        names: HashSet<OsString>,
    }

    impl AsRawFd for Wire {
        fn as_raw_fd(&self) -> RawFd {
            self.fd.as_raw_fd()
        }
    }

    /// The end that waits.
    pub(crate) struct Ear(AsyncFd<Arc<Wire>>);

    fn parent(path: &Path) -> PathBuf {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        parent.unwrap_or(Path::new(".")).to_path_buf()
    }

    impl Ear {
        pub(crate) fn new(files: Vec<PathBuf>) -> io::Result<Self> {
            let names = files.iter().filter_map(|path| path.file_name());
            let names = names.map(OsStr::to_os_string).collect();
            // A directory tells of files that come, go and are renamed; each file of what is written to it. Were a directory
            // to tell of that as well, every other file in it would be heard.
            let mut dirs: Vec<PathBuf> = files.iter().map(|path| parent(path)).collect();
            dirs.dedup();
            let moves = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVE | WatchFlags::ONLYDIR;
            let line = |path, flags| Line {
                path,
                flags,
                number: None,
            };
            let dirs = dirs.into_iter().map(|dir| line(dir, moves));
            let lines = dirs.chain(files.into_iter().map(|file| line(file, WatchFlags::MODIFY)));
            let wire = Wire {
                fd: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?,
                lines: Mutex::new(lines.collect()),
                names,
            };
            // What the successor asks for in an `unsafe` block holds: the wire owns one descriptor for as long as it lives.
            #[expect(deprecated, reason = "the same without `unsafe`")]
            let ear = AsyncFd::new(Arc::new(wire))?;
            Ok(Self(ear))
        }

        pub(crate) fn wire(&self) -> Arc<Wire> {
            Arc::clone(self.0.get_ref())
        }

        /// Returns when something may have changed since the last time.
        pub(crate) async fn heard(&mut self) {
            loop {
                // Neither fails in a runtime that goes on; if it did, the interval would have to do.
                let Ok(mut ready) = self.0.readable().await else {
                    return std::future::pending().await;
                };
                match ready.get_inner().read() {
                    Ok(true) => return,
                    Ok(false) => ready.clear_ready(),
                    Err(_) => return std::future::pending().await,
                }
            }
        }
    }

    impl Wire {
        /// Listens at what is there now. Before a look, so that what comes after it is heard.
        pub(crate) fn arm(&self) {
            // A panic while this was held leaves whole lines behind.
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            let mut failed = None;
            lines.retain_mut(|line| {
                let number = match inotify::add_watch(&self.fd, &line.path, line.flags) {
                    Ok(number) => number,
                    // Its directory tells when it comes; while that is not there either, the interval has to do.
                    Err(Errno::NOENT | Errno::NOTDIR) => return true,
                    Err(error) => {
                        failed = Some(error);
                        return false;
                    }
                };
                if let Some(before) = line.number.replace(number).filter(|before| *before != number) {
                    // Another file has its name. The old one may be gone, and its number with it.
                    let _no_matter = inotify::remove_watch(&self.fd, before);
                }
                true
            });
            if let Some(error) = failed {
                super::untold(&error.into());
                // Half of it would only wake for nothing.
                lines.clear();
            }
        }

        /// Takes what the kernel has to tell. Whether any of it matters.
        fn read(&self) -> Result<bool, Errno> {
            let mut buffer = [MaybeUninit::uninit(); EVENTS_BYTES];
            let mut reader = inotify::Reader::new(&self.fd, &mut buffer);
            let mut matters = false;
            loop {
                match reader.next() {
                    Ok(event) => {
                        let is_ours = |name: &CStr| self.names.contains(OsStr::from_bytes(name.to_bytes()));
                        // A file's own events have no name, and neither has that some were lost.
                        let is_end = event.events().contains(ReadFlags::IGNORED);
                        matters |= !is_end && event.file_name().is_none_or(is_ours);
                    }
                    Err(Errno::AGAIN) => return Ok(matters),
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod ear {
    use std::{io, path::PathBuf, sync::Arc};

    /// Fastened to nothing.
    pub(crate) struct Wire;

    /// Hears nothing.
    pub(crate) struct Ear;

    impl Ear {
        pub(crate) fn new(_: Vec<PathBuf>) -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(crate) fn wire(&self) -> Arc<Wire> {
            Arc::new(Wire)
        }

        pub(crate) async fn heard(&mut self) {
            std::future::pending().await
        }
    }

    impl Wire {
        pub(crate) fn arm(&self) {}
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(3600);
    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn looks_come_soon_after_something_was_heard_and_then_ever_more_seldom() {
        let start = Instant::now();
        let ms = |ms| start + Duration::from_millis(ms);
        let mut looks = Looks::new(Duration::from_millis(50));
        let next = |looks: &Looks| looks.next.map(|next| (next - start).as_millis());
        assert_eq!(next(&looks), None, "the first is at once");
        for (at, found, expected) in [
            (0, Found::Nothing, Some(50)),
            (50, Found::More, None),
            (51, Found::Some, Some(53)),
            (53, Found::Nothing, Some(57)),
            (57, Found::Nothing, Some(65)),
        ] {
            looks.looked(ms(at), found);
            assert_eq!(next(&looks), expected, "after a look at {at}");
        }
        // Heard: at once, but not in the same moment again.
        looks.heard(ms(60));
        assert_eq!(next(&looks), Some(60));
        looks.looked(ms(60), Found::Nothing);
        looks.heard(ms(61));
        assert_eq!((next(&looks), looks.is_close()), (Some(62), true));
        // After the last sound it dies away to the interval.
        for (at, expected) in [
            (62, 64),
            (64, 68),
            (68, 76),
            (76, 92),
            (92, 124),
            (124, 174),
            (174, 224),
        ] {
            looks.looked(ms(at), Found::Nothing);
            assert_eq!(next(&looks), Some(expected), "after a look at {at}");
        }
    }

    /// Looks as a source does; then whether a change that `change` makes is told of.
    async fn hears(watch: &mut Watch, what: &str, change: impl FnOnce()) {
        watch.wire().expect("the system tells").arm();
        let ear = watch.ear.as_mut().expect("the same");
        // What was before is not what is meant.
        while tokio::time::timeout(Duration::ZERO, ear.heard()).await.is_ok() {}
        change();
        assert!(tokio::time::timeout(LONG, ear.heard()).await.is_ok(), "{what}");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn every_way_in_which_a_followed_file_changes_is_heard() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let append = |path: &Path| {
            let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
            file.write_all(b"line\n").unwrap();
        };
        let mut watch = Watch::new(&path, &["-wal"], INTERVAL);
        hears(&mut watch, "it is made", || append(&path)).await;
        hears(&mut watch, "it grows", || append(&path)).await;
        hears(&mut watch, "one beside it is made", || {
            append(&dir.path().join("log-wal"))
        })
        .await;
        hears(&mut watch, "one beside it grows", || {
            append(&dir.path().join("log-wal"))
        })
        .await;
        hears(&mut watch, "it is renamed", || {
            fs::rename(&path, dir.path().join("log.1")).unwrap()
        })
        .await;
        hears(&mut watch, "another takes its name", || append(&path)).await;
        hears(&mut watch, "the other grows", || append(&path)).await;
        hears(&mut watch, "it is truncated", || fs::write(&path, "").unwrap()).await;
        hears(&mut watch, "it is removed", || fs::remove_file(&path).unwrap()).await;
        let target = dir.path().join("target");
        append(&target);
        hears(&mut watch, "a link takes its name", || {
            std::os::unix::fs::symlink(&target, &path).unwrap();
        })
        .await;
        hears(&mut watch, "what the link leads to grows", || append(&target)).await;
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn what_happens_to_other_files_is_not_heard() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = Watch::new(&dir.path().join("log"), &[], INTERVAL);
        watch.wire().unwrap().arm();
        fs::write(dir.path().join("other"), "much").unwrap();
        // Events are told in order: the first that is heard is the one that matters, if the other was not.
        let ear = watch.ear.as_mut().unwrap();
        assert!(tokio::time::timeout(Duration::ZERO, ear.heard()).await.is_err());
        fs::write(dir.path().join("log"), "much").unwrap();
        assert!(tokio::time::timeout(LONG, ear.heard()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn without_anything_to_hear_it_looks_at_the_interval() {
        let mut watch = Watch::new(Path::new("/nowhere/at/all"), &[], Duration::from_secs(10));
        let begun = Instant::now();
        let later = begun + LONG;
        assert!(watch.due(later).await);
        watch.looked(Instant::now(), Found::Nothing);
        assert!(!watch.due(begun + Duration::from_secs(1)).await);
        assert!(watch.due(later).await);
        assert_eq!(begun.elapsed().as_secs(), 10);
    }
}
