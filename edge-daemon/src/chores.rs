//! Small disk work of the agent that nobody waits for: writing down what has been seen, keeping the reserve whole, counting
//! the damaged files that were set aside.
//! Never runs on the runtime's thread, and never twice at a time: a slow disk holds up nothing but itself.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use bus_link::{guard::Seen, home::Home, reserve};
use spool::Space;
use tokio::task::JoinHandle;

/// The part of the file system that the reserve takes at most, in percent.
const RESERVE_PERCENT_MAX: u64 = 4;

/// The work and whether it is under way.
pub struct Chores {
    home: Arc<Home>,
    running: Option<JoinHandle<()>>,
    damaged: Arc<AtomicU32>,
}

impl Chores {
    /// Nothing is under way.
    pub fn new(home: Arc<Home>) -> Self {
        Self {
            home,
            running: None,
            damaged: Arc::default(),
        }
    }

    /// Damaged files and buffers that were set aside, as of the last round.
    pub fn damaged(&self) -> u32 {
        self.damaged.load(Ordering::Relaxed)
    }

    /// Begins a round, unless one is still under way; `seen` is only asked for if it begins.
    pub fn begin(&mut self, seen: impl FnOnce() -> Option<Vec<Seen>>) {
        if self.running.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let (home, seen, damaged) = (Arc::clone(&self.home), seen(), Arc::clone(&self.damaged));
        self.running = Some(tokio::task::spawn_blocking(move || {
            round(&home, seen);
            damaged.store(set_aside(home.dir()), Ordering::Relaxed);
        }));
    }

    /// A last round, after the one that is under way.
    pub async fn finish(&mut self, seen: impl FnOnce() -> Option<Vec<Seen>>) {
        if let Some(task) = self.running.take() {
            // A panic in it was said already.
            let _done = task.await;
        }
        self.begin(seen);
        if let Some(task) = self.running.take() {
            let _done = task.await;
        }
    }
}

fn round(home: &Home, seen: Option<Vec<Seen>>) {
    if let Some(seen) = seen
        && let Err(error) = home.save_seen(&seen)
    {
        tracing::warn!(%error, "cannot write down what has been seen");
    }
    keep_reserve(home.dir());
}

/// Counts what was set aside: small files as `<name>.bad.<n>`, segments of a buffer as `bad.<segment>.<n>`, whole buffers as
/// `spool.lost.<n>`. Whoever has looked at them removes them, and they are forgotten.
fn set_aside(dir: &Path) -> u32 {
    let names = |dir: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    };
    let is_aside =
        |name: &&String| name.contains(".bad.") || name.starts_with("bad.") || name.starts_with("spool.lost.");
    let count = |dir: &Path| names(dir).iter().filter(is_aside).count() as u32;
    let streams = dir.join("streams");
    let of_streams = names(&streams).into_iter().map(|stream| {
        let stream = streams.join(stream);
        count(&stream) + count(&stream.join("spool"))
    });
    count(dir) + count(&dir.join("marks")) + count(&dir.join("dead")) + of_streams.sum::<u32>()
}

/// Makes the reserve whole again when there is more room than it takes. Blocks.
pub fn keep_reserve(dir: &Path) {
    let Ok(space) = Space::of(dir) else { return };
    let there = reserve::bytes(dir);
    let Some(wanted) = wanted(space, there) else { return };
    match reserve::fill(dir, wanted) {
        Ok(true) => tracing::info!(bytes = wanted, "bytes are kept in reserve for a full disk"),
        Ok(false) => {}
        Err(error) => tracing::debug!(%error, "the reserve could not be made"),
    }
}

/// The size the reserve should be brought to; `None` to leave it as it is. Pure.
fn wanted(space: Space, there: u64) -> Option<u64> {
    let whole = (space.total_bytes / 100 * RESERVE_PERCENT_MAX).min(reserve::RESERVE_BYTES);
    // Twice what is missing: making it must not be what fills the disk.
    let fits = space.free_bytes / 2 >= whole.saturating_sub(there);
    (there != whole && fits).then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_was_set_aside_is_counted() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(set_aside(home.path()), 0);
        for (name, counts) in [
            ("plan", false),
            ("plan.bad.1", true),
            ("marks/abc.bad.2", true),
            ("streams/abc/lineage.bad.1", true),
            ("streams/abc/spool.lost.1/db", true),
            ("streams/abc/spool/bad.00000000000000000001.1/db", true),
            ("streams/abc/spool/00000000000000000007/db", false),
        ] {
            let before = set_aside(home.path());
            let path = home.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
            assert_eq!(set_aside(home.path()) - before, u32::from(counts), "{name}");
        }
    }

    #[test]
    fn the_reserve_returns_when_there_is_room() {
        for (total, free, there, expected) in [
            (1000, 900, 0, Some(8)),
            (1000, 900, 8, None),
            (1000, 16, 0, Some(8)),
            (1000, 15, 0, None),
            (1000, 4, 6, Some(8)),
            (1000, 3, 6, None),
            (1000, 0, 9, Some(8)),
            (100, 100, 0, Some(4)),
        ] {
            let space = Space {
                total_bytes: total * MIB,
                free_bytes: free * MIB,
            };
            assert_eq!(
                wanted(space, there * MIB),
                expected.map(|mib| mib * MIB),
                "{free} of {total} MiB free, {there} in reserve"
            );
        }
    }
}
