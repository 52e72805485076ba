//! A member's own files: its keys, its epoch, its membership and what it has seen. Plain small files, each replaced
//! atomically. Knows no workflow and no stream.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use bus_schema::{
    envelope::NONCE_BYTES,
    id::{FleetId, NodeId, hash},
    key::Identity,
    member::{BrokerLogin, Certificate, GroupKey, Roster, Signed},
    subject::Lane,
    vault,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{guard::Seen, reserve};

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
    /// A file is damaged, and so is its copy if it has one.
    #[error("{path} is damaged ({cause}); restore it from a backup, or enrol again with another data directory")]
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

impl HomeError {
    /// Whether the disk is full, read-only or failing just now: nothing that another setting would help, and something that
    /// may pass.
    pub fn is_of_the_disk(&self) -> bool {
        let Self::Io { source, .. } = self else { return false };
        reserve::is_full(source)
            || source.kind() == io::ErrorKind::ReadOnlyFilesystem
            || source.raw_os_error() == Some(EIO)
    }
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

pub(crate) const KEYS: &str = "keys";
const EPOCH: &str = "epoch";
const MEMBERSHIP: &str = "membership";
const SEEN: &str = "seen";
const CHECK_BYTES: usize = 32;
/// Damaged files of one name that are kept for a person to look at.
const SET_ASIDE_MAX: u32 = 2;
/// Linux error number of an unreadable block: the disk is there, this piece of it is not.
const EIO: i32 = 5;

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HomeError {
    let path = path.display().to_string();
    move |source| HomeError::Io { what, path, source }
}

/// Replaces a file so that a crash leaves the old or the new one, whole. Only the owner can read it. After an error the old
/// one is there, and nothing else.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    replace(path, &temporary, bytes).inspect_err(|_| {
        // On a full disk half a file would be in the way.
        let _gone_already = fs::remove_file(&temporary);
    })
}

fn replace(path: &Path, temporary: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    crash_point::at!(HomeBeforeRename);
    fs::rename(temporary, path)?;
    crash_point::at!(HomeAfterRename);
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        // A name without a directory is in the one where the program runs.
        _ => sync_dir(Path::new(".")),
    }
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

    /// Reads files that never change, beside the process that holds the directory. Locks nothing, and makes nothing.
    pub fn beside(dir: &Path) -> Self {
        Self {
            dir: dir.to_path_buf(),
            lock: None,
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
            Err(error) if error.kind() == io::ErrorKind::IsADirectory || error.raw_os_error() == Some(EIO) => {
                Err(HomeError::Damaged {
                    path: path.display().to_string(),
                    cause: "unreadable",
                })
            }
            Err(source) => Err(io_error("read", &path)(source)),
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), HomeError> {
        let path = self.dir.join(name);
        reserve::with(&self.dir, || write_atomic(&path, bytes)).map_err(io_error("write", &path))
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

    /// Like [`Self::load`]; a damaged file is also moved aside, so that it can be made anew and still be looked at.
    pub fn load_or_set_aside(&self, name: &str) -> Result<Option<Vec<u8>>, HomeError> {
        self.load(name).inspect_err(|error| {
            if matches!(error, HomeError::Damaged { .. }) {
                self.set_aside(name, error);
            }
        })
    }

    /// Moves a damaged file aside; of one name the newest few are kept.
    fn set_aside(&self, name: &str, error: &HomeError) {
        let path = self.dir.join(name);
        let aside = |n: u32| self.dir.join(format!("{name}.bad.{n}"));
        if !path.exists() {
            return;
        }
        let free = (1..SET_ASIDE_MAX)
            .find(|n| !aside(*n).exists())
            .unwrap_or(SET_ASIDE_MAX);
        let to = aside(free);
        let _replaced = fs::remove_dir_all(&to).or_else(|_| fs::remove_file(&to));
        match fs::rename(&path, &to) {
            Ok(()) => tracing::error!(%error, kept = %to.display(), "a damaged file was set aside"),
            Err(cause) => tracing::error!(%error, %cause, "a damaged file could not be set aside"),
        }
    }

    /// Writes a file and a copy of it: for what could not be made again.
    pub(crate) fn store_twice(&self, name: &str, bytes: &[u8]) -> Result<(), HomeError> {
        self.store(name, bytes)?;
        self.store(&copy_of(name), bytes)
    }

    /// Reads such a file: the file itself, or if that is missing or damaged, its copy. The other one is put right.
    pub(crate) fn load_either(&self, name: &str) -> Result<Option<Vec<u8>>, HomeError> {
        let copy = copy_of(name);
        match (self.load(name), self.load(&copy)) {
            (Ok(Some(bytes)), second) => {
                if let Err(error) = &second {
                    self.set_aside(&copy, error);
                }
                if !second.is_ok_and(|second| second.as_ref() == Some(&bytes)) {
                    // It is read all the same when this fails.
                    let _said = self.store(&copy, &bytes);
                }
                Ok(Some(bytes))
            }
            (Ok(None), Ok(None)) => Ok(None),
            (first, Ok(Some(bytes))) => {
                match first {
                    Err(error @ HomeError::Damaged { .. }) => self.set_aside(name, &error),
                    Err(error) => return Err(error),
                    Ok(_) => tracing::error!(file = name, "a file is gone; its copy is used"),
                }
                self.store(name, &bytes)?;
                Ok(Some(bytes))
            }
            (Ok(None), Err(error)) | (Err(error), _) => Err(error),
        }
    }

    /// Removes a file for good, if it is there.
    pub(crate) fn remove(&self, name: &str) -> Result<(), HomeError> {
        let path = self.dir.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", &path)(error)),
            _ => sync_dir(&self.dir).map_err(io_error("write", &self.dir)),
        }
    }

    /// What such a file holds: the bytes, and a checksum of them.
    pub fn stored(name: &str, bytes: &[u8]) -> Vec<u8> {
        [bytes, &hash(name, &[bytes])].concat()
    }

    /// Writes a file with a checksum, atomically and durably; on a full disk with the help of the [`reserve`], if there is
    /// one.
    pub fn store(&self, name: &str, bytes: &[u8]) -> Result<(), HomeError> {
        self.write(name, &Self::stored(name, bytes))
    }

    /// Writes what only this member shall read again, and a copy of it.
    pub fn store_sealed(&self, name: &str, bytes: &[u8]) -> Result<(), HomeError> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(HomeError::Random)?;
        let sealed = vault::seal(&self.identity()?, name, nonce, bytes).ok_or_else(|| HomeError::Damaged {
            path: self.dir.join(name).display().to_string(),
            cause: "too large to be sealed",
        })?;
        self.store_twice(name, &sealed)
    }

    /// Reads it. What is damaged beyond its copy is set aside, and as good as never written.
    pub fn load_sealed(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, HomeError> {
        let loaded = self.load_either(name).and_then(|sealed| {
            let Some(sealed) = sealed else { return Ok(None) };
            let former = self.former_keys()?.into_iter().map(|former| former.identity);
            let mut all = std::iter::once(self.identity()?).chain(former);
            let opened = all.find_map(|identity| vault::open(&identity, name, &sealed));
            opened.map(Some).ok_or_else(|| HomeError::Damaged {
                path: self.dir.join(name).display().to_string(),
                cause: "it was sealed with other keys",
            })
        });
        match loaded {
            Err(error @ HomeError::Damaged { .. }) => {
                for name in [name, &copy_of(name)] {
                    self.set_aside(name, &error);
                }
                Ok(None)
            }
            loaded => loaded,
        }
    }

    /// This member's keys; made on first use.
    pub fn identity(&self) -> Result<Identity, HomeError> {
        if let Some(bytes) = self.load_either(KEYS)?.map(Zeroizing::new) {
            return identity_of(&bytes, || self.dir.join(KEYS));
        }
        if self.dir.join(MEMBERSHIP).exists() {
            // New keys would be somebody else's.
            return Err(HomeError::Damaged {
                path: self.dir.join(KEYS).display().to_string(),
                cause: "the keys of this member are gone",
            });
        }
        let mut bytes = Zeroizing::new([0; Identity::BYTES]);
        getrandom::fill(&mut *bytes).map_err(HomeError::Random)?;
        self.store_twice(KEYS, &*bytes)?;
        Ok(Identity::from_bytes(&bytes))
    }

    /// Counts this start: returns a number higher than at any start before. Durable before it returns.
    pub fn next_epoch(&self) -> Result<u64, HomeError> {
        let last = match self.load_either(EPOCH) {
            Ok(bytes) => bytes.map_or(0, |bytes| bytes.try_into().map_or(0, u64::from_le_bytes)),
            Err(error @ HomeError::Damaged { .. }) => {
                for name in [EPOCH, &copy_of(EPOCH)] {
                    self.set_aside(name, &error);
                }
                self.epoch_after_damage()
            }
            Err(error) => return Err(error),
        };
        let next = last + 1;
        self.store_twice(EPOCH, &next.to_le_bytes())?;
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
        let Some(bytes) = self.load_either(MEMBERSHIP)? else {
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
        self.store_twice(MEMBERSHIP, &bus_schema::encode(membership))?;
        crash_point::at!(RosterAfterStore);
        Ok(())
    }

    /// What had been seen of other members before the restart. Damage is as good as nothing seen: epochs protect still.
    pub fn seen(&self) -> Vec<Seen> {
        let bytes = self.load_or_set_aside(SEEN).ok().flatten().unwrap_or_default();
        let seen: Vec<(NodeId, u32, u8, u64, u64)> = bus_schema::decode(&bytes).unwrap_or_default();
        let seen = seen
            .into_iter()
            .filter_map(|(sender, key_epoch, lane, epoch, counter)| {
                let lane = *Lane::ALL.get(usize::from(lane))?;
                Some(Seen {
                    sender,
                    key_epoch,
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
            .map(|s| (s.sender, s.key_epoch, position(s.lane), s.epoch, s.counter))
            .collect();
        self.store(SEEN, &bus_schema::encode(&rows))
    }
}

/// Keys out of their bytes.
pub(crate) fn identity_of(bytes: &[u8], path: impl FnOnce() -> PathBuf) -> Result<Identity, HomeError> {
    let bytes: &[u8; Identity::BYTES] = bytes.try_into().map_err(|_| HomeError::Damaged {
        path: path().display().to_string(),
        cause: "wrong length",
    })?;
    Ok(Identity::from_bytes(bytes))
}

pub(crate) fn copy_of(name: &str) -> String {
    format!("{name}.copy")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_directory_is_written_here() {
        let path = format!("written-atomically-{}", std::process::id());
        let path = Path::new(&path);
        write_atomic(path, b"whole").unwrap();
        let read = fs::read(path).unwrap();
        fs::remove_file(path).unwrap();
        assert_eq!(read, b"whole");
    }

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
            key_epoch: 2,
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
        for name in [KEYS, &copy_of(KEYS)] {
            fs::write(dir.path().join(name), b"short").unwrap();
        }
        for name in [EPOCH, &copy_of(EPOCH)] {
            fs::write(dir.path().join(name), vec![0; 40]).unwrap();
        }
        assert!(matches!(home.identity(), Err(HomeError::Damaged { .. })));
        assert!(home.next_epoch().unwrap() > before);
    }

    #[test]
    fn what_cannot_be_made_again_has_a_copy() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        let public = home.identity().unwrap().public();
        home.next_epoch().unwrap();
        let mut expected = 1;
        type Damage = fn(&Path);
        let damages: [(&str, Damage); 4] = [
            ("junk", |path| fs::write(path, [7; 50]).unwrap()),
            ("empty", |path| fs::write(path, []).unwrap()),
            ("gone", |path| fs::remove_file(path).unwrap()),
            ("a directory", |path| {
                fs::remove_file(path).unwrap();
                fs::create_dir(path).unwrap();
            }),
        ];
        for (damage, spoil) in damages {
            for copied in [false, true] {
                let pick = |name: &str| dir.path().join(if copied { copy_of(name) } else { name.to_string() });
                spoil(&pick(KEYS));
                spoil(&pick(EPOCH));
                assert_eq!(
                    home.identity().unwrap().public(),
                    public,
                    "{damage}, of the copy: {copied}"
                );
                expected += 1;
                assert_eq!(home.next_epoch().unwrap(), expected, "{damage}, of the copy: {copied}");
            }
        }
        let kept = fs::read_dir(dir.path()).unwrap().flatten();
        let kept = kept.filter(|entry| entry.file_name().to_string_lossy().contains(".bad."));
        assert!((1..=8).contains(&kept.count()));
    }

    #[test]
    fn a_member_without_keys_gets_no_new_ones() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        fs::write(dir.path().join(MEMBERSHIP), "x").unwrap();
        let error = home.identity().map(|_| ()).unwrap_err();
        assert!(
            error.to_string().contains("the keys of this member are gone"),
            "{error}"
        );
    }
}
