//! Room as a decision of its own: a stream's quota, all streams' quota with classes, and free bytes on the file system.
//! The decision is pure; what spools use is counted in one shared number. Never frees anything.

use std::{
    fmt, io,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Share of the quota that [`Class::Normal`] spools may fill, in percent.
pub const NORMAL_PERCENT: u64 = 90;

/// Share of the quota that [`Class::Bulk`] spools may fill, in percent.
pub const BULK_PERCENT: u64 = 60;

/// Bytes kept free on a file system unless told, at most; on a small one it is [`KEEP_FREE_PERCENT`] of it.
pub const KEEP_FREE_BYTES: u64 = 64 * 1024 * 1024;

/// See [`KEEP_FREE_BYTES`].
pub const KEEP_FREE_PERCENT: u64 = 2;

/// Quota of all spools together unless told, bytes.
pub const BUDGET_BYTES: u64 = 4 * 1024 * 1024 * 1024;

/// Who gets the last of the room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Class {
    /// May fill all of the quota.
    Critical,
    /// Leaves a little to the critical ones.
    #[default]
    Normal,
    /// Leaves a good deal to the others.
    Bulk,
}

impl Class {
    /// How much of a quota this class may fill, bytes. What it leaves is for the classes above it.
    pub fn share(self, quota_bytes: u64) -> u64 {
        let percent = match self {
            Self::Critical => 100,
            Self::Normal => NORMAL_PERCENT,
            Self::Bulk => BULK_PERCENT,
        };
        (u128::from(quota_bytes) * u128::from(percent) / 100) as u64
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Critical => "critical",
            Self::Normal => "normal",
            Self::Bulk => "bulk",
        })
    }
}

/// Which limit an append met, with the figures it was judged by, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The spool's own quota.
    Spool {
        /// On disk now.
        used_bytes: u64,
        /// The quota.
        quota_bytes: u64,
    },
    /// What spools of this class may fill of the quota they share.
    Budget {
        /// The class.
        class: Class,
        /// What all spools have on disk now.
        used_bytes: u64,
        /// The class's share of the quota.
        share_bytes: u64,
        /// The quota.
        quota_bytes: u64,
    },
    /// The free bytes of the file system.
    Disk {
        /// Free now.
        free_bytes: u64,
        /// To be kept free.
        keep_bytes: u64,
    },
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spool {
                used_bytes,
                quota_bytes,
            } => write!(
                f,
                "{used_bytes} of its {quota_bytes} bytes are used; raise the quota of the stream in the workflow"
            ),
            Self::Budget {
                class,
                used_bytes,
                share_bytes,
                quota_bytes,
            } => write!(
                f,
                "all buffers together have {used_bytes} bytes, and {class} streams may fill {share_bytes} of \
                 {quota_bytes}; raise `quota` under [spool] in the daemon's settings, or give the stream a higher class"
            ),
            Self::Disk { free_bytes, keep_bytes } => write!(
                f,
                "{free_bytes} bytes are free on the file system and {keep_bytes} are kept free; make room on the disk, \
                 or lower `keep_free` under [spool] in the daemon's settings"
            ),
        }
    }
}

/// A file system's size and what is free on it, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total_bytes: u64,
    /// What an unprivileged process could still write.
    pub free_bytes: u64,
}

impl Space {
    /// Of the file system that holds `path`.
    pub fn of(path: &Path) -> io::Result<Self> {
        let found = rustix::fs::statvfs(path)?;
        Ok(Self {
            total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
        })
    }

    /// What is kept free of it unless told.
    pub fn keep_free(&self) -> u64 {
        (self.total_bytes / 100 * KEEP_FREE_PERCENT).min(KEEP_FREE_BYTES)
    }
}

/// Limits shared by several spools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Most bytes all spools together may have on disk.
    pub quota_bytes: u64,
    /// Bytes to be kept free on the file system; `None` for [`Space::keep_free`].
    pub keep_free_bytes: Option<u64>,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            quota_bytes: BUDGET_BYTES,
            keep_free_bytes: None,
        }
    }
}

impl Room {
    /// Whether a spool of `class` may take `needed_bytes` more, when all spools have `used_bytes`. `space` is `None` where
    /// the file system does not tell.
    pub fn allows(&self, class: Class, used_bytes: u64, needed_bytes: u64, space: Option<Space>) -> Result<(), Full> {
        let share_bytes = class.share(self.quota_bytes);
        if used_bytes.saturating_add(needed_bytes) > share_bytes {
            return Err(Full::Budget {
                class,
                used_bytes,
                share_bytes,
                quota_bytes: self.quota_bytes,
            });
        }
        let Some(space) = space else { return Ok(()) };
        let keep_bytes = self.keep_free_bytes.unwrap_or_else(|| space.keep_free());
        if space.free_bytes < keep_bytes.saturating_add(needed_bytes) {
            return Err(Full::Disk {
                free_bytes: space.free_bytes,
                keep_bytes,
            });
        }
        Ok(())
    }
}

/// [`Room`] and how much of it is used.
#[derive(Debug)]
pub struct Budget {
    quota_bytes: AtomicU64,
    /// `u64::MAX` for "unless told".
    keep_free_bytes: AtomicU64,
    used_bytes: AtomicU64,
    /// Buffers that were set aside. Locked while they are counted, so that nobody counts what another removes.
    aside_bytes: Mutex<u64>,
}

impl Budget {
    /// Nothing is used yet.
    pub fn new(room: Room) -> Arc<Self> {
        let budget = Arc::new(Self {
            quota_bytes: AtomicU64::new(0),
            keep_free_bytes: AtomicU64::new(0),
            used_bytes: AtomicU64::new(0),
            aside_bytes: Mutex::new(0),
        });
        budget.set(room);
        budget
    }

    /// Other limits from now on.
    pub fn set(&self, room: Room) {
        self.quota_bytes.store(room.quota_bytes, Ordering::Relaxed);
        let keep_free_bytes = room.keep_free_bytes.map_or(u64::MAX, |bytes| bytes.min(u64::MAX - 1));
        self.keep_free_bytes.store(keep_free_bytes, Ordering::Relaxed);
    }

    /// The limits.
    pub fn room(&self) -> Room {
        let keep_free_bytes = self.keep_free_bytes.load(Ordering::Relaxed);
        Room {
            quota_bytes: self.quota_bytes.load(Ordering::Relaxed),
            keep_free_bytes: (keep_free_bytes < u64::MAX).then_some(keep_free_bytes),
        }
    }

    /// What all spools have on disk, with what was set aside of them, bytes.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes
            .load(Ordering::Relaxed)
            .saturating_add(self.aside_bytes())
    }

    /// Counts, by what `count` says, the bytes of spools that were set aside: nobody's share, and on disk all the same.
    pub fn count_aside(&self, count: impl FnOnce() -> u64) {
        // A number: a panic leaves it as it was.
        let mut aside = self.aside_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        *aside = count();
    }

    fn aside_bytes(&self) -> u64 {
        *self.aside_bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A spool's part in it.
    pub fn share(self: &Arc<Self>, class: Class) -> Share {
        Share {
            budget: Some(Arc::clone(self)),
            class,
            counted_bytes: 0,
        }
    }
}

/// One spool's part in a [`Budget`]. What it counted is given back when it is dropped.
#[derive(Debug, Default)]
pub struct Share {
    /// `None`: no limits but the spool's own.
    budget: Option<Arc<Budget>>,
    class: Class,
    counted_bytes: u64,
}

impl Share {
    /// Counts `needed_bytes` on top of what the spool has on disk, if they are allowed. [`Self::settle`] puts it right
    /// once they are written, or not. Of the file system's free bytes `owed_bytes` are spoken for.
    pub(crate) fn reserve(
        &mut self,
        dir: &Path,
        disk_bytes: u64,
        needed_bytes: u64,
        owed_bytes: u64,
    ) -> Result<(), Full> {
        self.settle(disk_bytes);
        let Some(budget) = &self.budget else { return Ok(()) };
        let (room, space, class) = (budget.room(), Space::of(dir).ok(), self.class);
        let space = space.map(|space| Space {
            free_bytes: space.free_bytes.saturating_sub(owed_bytes),
            ..space
        });
        let aside_bytes = budget.aside_bytes();
        let mut refused = None;
        let reserved = budget
            .used_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used_bytes| {
                match room.allows(class, used_bytes.saturating_add(aside_bytes), needed_bytes, space) {
                    Ok(()) => Some(used_bytes + needed_bytes),
                    Err(full) => {
                        refused = Some(full);
                        None
                    }
                }
            });
        if let (Err(_), Some(full)) = (reserved, refused) {
            return Err(full);
        }
        self.counted_bytes += needed_bytes;
        Ok(())
    }

    /// Counts what is on disk.
    pub(crate) fn settle(&mut self, disk_bytes: u64) {
        let Some(budget) = &self.budget else { return };
        let before = std::mem::replace(&mut self.counted_bytes, disk_bytes);
        if disk_bytes >= before {
            budget.used_bytes.fetch_add(disk_bytes - before, Ordering::Relaxed);
        } else {
            budget.used_bytes.fetch_sub(before - disk_bytes, Ordering::Relaxed);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.settle(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn who_may_take_what() {
        use Class::*;
        let room = Room {
            quota_bytes: 1000,
            keep_free_bytes: Some(50),
        };
        let space = |free_bytes| {
            Some(Space {
                total_bytes: 10_000,
                free_bytes,
            })
        };
        let budget = |class, used_bytes, share_bytes| {
            Err(Full::Budget {
                class,
                used_bytes,
                share_bytes,
                quota_bytes: 1000,
            })
        };
        for (class, used, needed, free, expected) in [
            (Bulk, 0, 600, space(9000), Ok(())),
            (Bulk, 0, 601, space(9000), budget(Bulk, 0, 600)),
            (Bulk, 600, 1, space(9000), budget(Bulk, 600, 600)),
            (Bulk, 5000, 1, space(9000), budget(Bulk, 5000, 600)),
            (Normal, 600, 300, space(9000), Ok(())),
            (Normal, 600, 301, space(9000), budget(Normal, 600, 900)),
            (Critical, 900, 100, space(9000), Ok(())),
            (Critical, 900, 101, space(9000), budget(Critical, 900, 1000)),
            (Critical, u64::MAX, 1, space(9000), budget(Critical, u64::MAX, 1000)),
            (Critical, 0, 100, space(150), Ok(())),
            (
                Critical,
                0,
                101,
                space(150),
                Err(Full::Disk {
                    free_bytes: 150,
                    keep_bytes: 50,
                }),
            ),
            (
                Bulk,
                0,
                1,
                space(0),
                Err(Full::Disk {
                    free_bytes: 0,
                    keep_bytes: 50,
                }),
            ),
            (Bulk, 0, 1, None, Ok(())),
        ] {
            assert_eq!(
                room.allows(class, used, needed, free),
                expected,
                "{class} {used}+{needed}, {free:?} free"
            );
        }
    }

    #[test]
    fn what_is_kept_free_follows_the_size_of_the_disk() {
        for (total_mib, keep_bytes) in [(0, 0), (14, 14 * MIB / 100 * 2), (1600, 32 * MIB), (1 << 20, 64 * MIB)] {
            let space = Space {
                total_bytes: total_mib * MIB,
                free_bytes: 0,
            };
            assert_eq!(space.keep_free(), keep_bytes, "{total_mib} MiB");
        }
        let here = Space::of(Path::new("/")).unwrap();
        assert!(here.total_bytes > here.free_bytes);
    }

    #[test]
    fn shares_count_together() {
        let budget = Budget::new(Room {
            quota_bytes: 1000,
            keep_free_bytes: Some(0),
        });
        let dir = std::env::temp_dir();
        let (mut bulk, mut critical) = (budget.share(Class::Bulk), budget.share(Class::Critical));
        bulk.reserve(&dir, 100, 400, 0).unwrap();
        assert_eq!(budget.used_bytes(), 500);
        bulk.settle(450);
        assert!(bulk.reserve(&dir, 450, 151, 0).is_err());
        critical.reserve(&dir, 0, 550, 0).unwrap();
        assert_eq!(budget.used_bytes(), 1000);
        assert!(critical.reserve(&dir, 550, 1, 0).is_err());
        drop(bulk);
        assert_eq!(budget.used_bytes(), 550);
        // What was set aside is nobody's share, and takes room like any other.
        budget.count_aside(|| 400);
        assert_eq!(budget.used_bytes(), 950);
        assert!(critical.reserve(&dir, 550, 51, 0).is_err());
        critical.reserve(&dir, 550, 50, 0).unwrap();
        critical.settle(550);
        budget.count_aside(|| 0);
        budget.set(Room {
            quota_bytes: 500,
            keep_free_bytes: None,
        });
        assert!(critical.reserve(&dir, 500, 1, 0).is_err());
        assert_eq!(budget.room().keep_free_bytes, None);
        let mut free = Share::default();
        free.reserve(&dir, 1 << 40, 1 << 40, 0).unwrap();
    }
}
