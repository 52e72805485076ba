//! A member's own files: its keys, its epoch, its membership and what it has seen. Plain small files, each replaced
//! atomically. Knows no workflow and no stream.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use bus_schema::{
    id::{FleetId, NodeId, hash},
    key::Identity,
    member::{BrokerLogin, Certificate, GroupKey, Roster, Signed},
    subject::Lane,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::guard::Seen;

/// A member's files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// The file system said no.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// Another process uses the directory.
    #[error("{0} is in use by another process; stop it, or choose another data directory")]
    InUse(String),
    /// A file is damaged.
    #[error("{path} is damaged ({cause}); restore it from a backup, or remove it and enrol again")]
    Damaged {
        /// Which file.
        path: String,
        /// In what way.
        cause: &'static str,
    },
    /// No randomness.
    #[error("the operating system gives no randomness: {0}")]
    Random(getrandom::Error),
}

/// What enrolment gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The fleet.
    pub fleet: FleetId,
    /// Its root key.
    pub root: [u8; 32],
    /// The plane.
    pub plane: NodeId,
    /// This member's certificate.
    pub certificate: Signed<Certificate>,
    /// The newest roster known.
    pub roster: Signed<Roster>,
    /// The newest group key known.
    pub group: GroupKey,
    /// Broker log-in.
    pub login: Option<BrokerLogin>,
    /// Bus addresses from the invitation.
    pub bus: Vec<String>,
    /// The broker's certificate authority (DER) from the invitation.
    pub ca: Option<Vec<u8>>,
}

/// A member's directory, locked for this process.
#[derive(Debug)]
pub struct Home {
    dir: PathBuf,
    /// Held as long as the directory belongs to this process alone.
    lock: Option<File>,
}

const KEYS: &str = "keys";
const EPOCH: &str = "epoch";
const MEMBERSHIP: &str = "membership";
const SEEN: &str = "seen";
const CHECK_BYTES: usize = 32;

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HomeError {
    let path = path.display().to_string();
    move |source| HomeError::Io { what, path, source }
}

/// Replaces a file so that a crash leaves the old or the new one, whole. Only the owner can read it.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    crash_point::at!(HomeBeforeRename);
    fs::rename(&temporary, path)?;
    crash_point::at!(HomeAfterRename);
    if let Some(parent) = path.parent() {
        sync_dir(parent)?;
    }
    Ok(())
}

/// Makes renames and new files in a directory survive a power cut.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    // Other systems cannot open a directory as a file; their renames are journalled.
    if cfg!(unix) {
        File::open(dir)?.sync_all()
    } else {
        Ok(())
    }
}

impl Home {
    /// Opens or creates a member's directory, and locks it.
    pub fn open(dir: &Path) -> Result<Self, HomeError> {
        fs::create_dir_all(dir).map_err(io_error("create", dir))?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(io_error("protect", dir))?;
        }
        let path = dir.join("lock");
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io_error("open", &path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                dir: dir.to_path_buf(),
                lock: Some(lock),
            }),
            Err(fs::TryLockError::WouldBlock) => Err(HomeError::InUse(dir.display().to_string())),
            Err(fs::TryLockError::Error(source)) => Err(io_error("lock", &path)(source)),
        }
    }

    /// Lets other processes open the directory too, once this one has counted its start: an operator's commands run side
    /// by side, each in an epoch of its own.
    pub fn share(&mut self) {
        self.lock = None;
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, HomeError> {
        let path = self.dir.join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(io_error("read", &path)(source)),
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), HomeError> {
        let path = self.dir.join(name);
        write_atomic(&path, bytes).map_err(io_error("write", &path))
    }

    /// Reads a file that ends with a checksum of the rest.
    pub fn load(&self, name: &str) -> Result<Option<Vec<u8>>, HomeError> {
        let Some(mut bytes) = self.read(name)? else {
            return Ok(None);
        };
        let damaged = |cause| HomeError::Damaged {
            path: self.dir.join(name).display().to_string(),
            cause,
        };
        let cut = bytes
            .len()
            .checked_sub(CHECK_BYTES)
            .ok_or_else(|| damaged("too short"))?;
        if hash(name, &[&bytes[..cut]]) != bytes[cut..] {
            return Err(damaged("wrong checksum"));
        }
        bytes.truncate(cut);
        Ok(Some(bytes))
    }

    /// Writes a file with a checksum, atomically and durably.
    pub fn store(&self, name: &str, bytes: &[u8]) -> Result<(), HomeError> {
        self.write(name, &[bytes, &hash(name, &[bytes])].concat())
    }

    /// This member's keys; made on first use.
    pub fn identity(&self) -> Result<Identity, HomeError> {
        if let Some(bytes) = self.load(KEYS)?.map(Zeroizing::new) {
            let path = self.dir.join(KEYS).display().to_string();
            let bytes: &[u8; Identity::BYTES] = bytes.as_slice().try_into().map_err(|_| HomeError::Damaged {
                path,
                cause: "wrong length",
            })?;
            return Ok(Identity::from_bytes(bytes));
        }
        let mut bytes = Zeroizing::new([0; Identity::BYTES]);
        getrandom::fill(&mut *bytes).map_err(HomeError::Random)?;
        self.store(KEYS, &*bytes)?;
        Ok(Identity::from_bytes(&bytes))
    }

    /// Counts this start: returns a number higher than at any start before. Durable before it returns.
    pub fn next_epoch(&self) -> Result<u64, HomeError> {
        let last = match self.load(EPOCH) {
            Ok(bytes) => bytes.map_or(0, |bytes| bytes.try_into().map_or(0, u64::from_le_bytes)),
            Err(HomeError::Damaged { .. }) => self.epoch_after_damage(),
            Err(error) => return Err(error),
        };
        let next = last + 1;
        self.store(EPOCH, &next.to_le_bytes())?;
        crash_point::at!(EpochAfterStore);
        Ok(next)
    }

    /// A damaged counter must not go backwards, or every peer would refuse this member. Wall-clock seconds since 1970
    /// are far above any count of starts; with a clock before 2020 the damage is left to an operator's eye.
    fn epoch_after_damage(&self) -> u64 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1 << 32, |since| since.as_secs().max(1 << 30))
    }

    /// What enrolment gave; `None` before it.
    pub fn membership(&self) -> Result<Option<Membership>, HomeError> {
        let Some(bytes) = self.load(MEMBERSHIP)? else {
            return Ok(None);
        };
        let path = self.dir.join(MEMBERSHIP).display().to_string();
        let membership = bus_schema::decode(&bytes).ok_or(HomeError::Damaged {
            path,
            cause: "unreadable",
        })?;
        Ok(Some(membership))
    }

    /// Stores what enrolment (or a newer roster) gave.
    pub fn save_membership(&self, membership: &Membership) -> Result<(), HomeError> {
        crash_point::at!(RosterBeforeStore);
        self.store(MEMBERSHIP, &bus_schema::encode(membership))?;
        crash_point::at!(RosterAfterStore);
        Ok(())
    }

    /// What had been seen of other members before the restart. Damage is as good as nothing seen: epochs protect still.
    pub fn seen(&self) -> Vec<Seen> {
        let bytes = self.load(SEEN).ok().flatten().unwrap_or_default();
        let seen: Vec<(NodeId, u8, u64, u64)> = bus_schema::decode(&bytes).unwrap_or_default();
        let seen = seen.into_iter().filter_map(|(sender, lane, epoch, counter)| {
            let lane = *Lane::ALL.get(usize::from(lane))?;
            Some(Seen {
                sender,
                lane,
                epoch,
                counter,
            })
        });
        seen.collect()
    }

    /// Stores what has been seen.
    pub fn save_seen(&self, seen: &[Seen]) -> Result<(), HomeError> {
        let position = |lane: Lane| Lane::ALL.iter().position(|each| *each == lane).unwrap_or(0) as u8;
        let rows: Vec<_> = seen
            .iter()
            .map(|s| (s.sender, position(s.lane), s.epoch, s.counter))
            .collect();
        self.store(SEEN, &bus_schema::encode(&rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_epochs_survive() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        let public = home.identity().unwrap().public();
        assert_eq!((home.next_epoch().unwrap(), home.next_epoch().unwrap()), (1, 2));
        assert!(matches!(Home::open(dir.path()), Err(HomeError::InUse(_))));
        drop(home);
        let home = Home::open(dir.path()).unwrap();
        assert_eq!(home.identity().unwrap().public(), public);
        assert_eq!(home.next_epoch().unwrap(), 3);
        let seen = Seen {
            sender: NodeId::from_hash(&[1; 32]),
            lane: Lane::Ack,
            epoch: 3,
            counter: 9,
        };
        home.save_seen(&[seen]).unwrap();
        assert_eq!(home.seen(), [seen]);
    }

    #[test]
    fn damage_is_named_and_the_epoch_never_falls() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        home.identity().unwrap();
        let before = home.next_epoch().unwrap();
        fs::write(dir.path().join(KEYS), b"short").unwrap();
        fs::write(dir.path().join(EPOCH), vec![0; 40]).unwrap();
        assert!(matches!(home.identity(), Err(HomeError::Damaged { .. })));
        assert!(home.next_epoch().unwrap() > before);
    }
}
