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
use spool::{Budget, Space};
use tokio::task::JoinHandle;

use crate::aside;

/// The part of the file system that the reserve takes at most, in percent.
const RESERVE_PERCENT_MAX: u64 = 4;

/// The work and whether it is under way.
pub struct Chores {
    home: Arc<Home>,
    budget: Arc<Budget>,
    running: Option<JoinHandle<()>>,
    damaged: Arc<AtomicU32>,
}

impl Chores {
    /// Nothing is under way.
    pub fn new(home: Arc<Home>, budget: Arc<Budget>) -> Self {
        Self {
            home,
            budget,
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
        let (home, budget) = (Arc::clone(&self.home), Arc::clone(&self.budget));
        let (seen, damaged) = (seen(), Arc::clone(&self.damaged));
        self.running = Some(tokio::task::spawn_blocking(move || {
            round(&home, seen);
            damaged.store(aside::list(home.dir()).len() as u32, Ordering::Relaxed);
            aside::count(home.dir(), &budget);
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
