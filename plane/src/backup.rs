//! Backups of a plane, made beside a running one, and what is made of them again.
//!
//! There are two kinds, in files of one form. A **key backup** holds what nobody could make anew: keys, roster, settings, the
//! broker's secret and certificates. It is small, changes seldom, and is sealed under a recovery code that is shown once. A **full
//! backup** holds the stores, too, and is sealed under the root key: whoever has the key backup can open it, and nobody has to type
//! a code each night. From the key backup alone a plane comes back as well: daemons tell it the rest (`domain/recall.rs`).
//!
//! ```text
//! file = "MYCBACK1" ‖ kind (1) ‖ sealed contents ‖ BLAKE2b-256 of all before
//! ```

use std::{
    collections::BTreeSet,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use bus_link::home::{Home, HomeError, write_atomic};
use bus_schema::{
    decode, encode,
    envelope::NONCE_BYTES,
    id::{base32, hash},
    key::Identity,
    member::Signed,
    vault,
};
use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    clock::unix_ms,
    config::{FILE, STORE},
    domain::change::Signer,
    init::{InitError, is_made, root},
    login::from_directory,
    run::remember,
    store::{Store, StoreError, history},
    web_operator,
};

const MAGIC: &[u8; 8] = b"MYCBACK1";
const CHECK_BYTES: usize = 32;
/// Bytes of randomness in a recovery code.
const CODE_BYTES: usize = 20;
/// Largest file besides the stores, in bytes: all of them are small.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Files that grow with the fleet: a hundred bytes a member and more.
const GROWING: [&str; 4] = ["membership", "membership.copy", "seen", "seen.copy"];
/// Without which there is nothing to restore.
const NEEDED: [&str; 3] = ["root", "keys", "membership"];
/// Most files besides the stores.
const FILES_MAX: usize = 64;
/// What folders begin with in which a restore puts what was there.
const ASIDE: &str = "before-";
/// The stores.
const STORES: [&str; 2] = [STORE, history::FILE];
/// What a restored plane must not take over: the lock, and the count of its own starts, which would go backwards. Not what it has seen of others: an
/// older state of that refuses less than the newest, and never more.
const LEFT_OUT: [&str; 3] = ["lock", "epoch", "epoch.copy"];
/// Starts are counted on from here after a restore, unless the clock says more: seconds since 1970, far above any count.
const EPOCH_MIN: u64 = 1 << 30;

/// It did not work.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is no plane, or there is one where none should be.
    #[error("{0}")]
    Wish(String),
    /// The file is no backup, is damaged, or was sealed by somebody else.
    #[error("{path}: {what}", path = .path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// A file could not be read or written.
    #[error("cannot {what} {path}: {source}", path = .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// See [`HomeError`].
    #[error(transparent)]
    Home(#[from] HomeError),
    /// See [`InitError`].
    #[error(transparent)]
    Keys(#[from] InitError),
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A store could not be copied.
    #[error("cannot copy the store: {0}")]
    Copy(#[from] rusqlite::Error),
    /// No randomness.
    #[error("the operating system gives no randomness: {0}")]
    Random(getrandom::Error),
}

/// What a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Keys, roster and settings, under a recovery code.
    Keys,
    /// The stores too, under the root key.
    Full,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Self::Keys => 1,
            Self::Full => 2,
        }
    }

    fn of(byte: u8) -> Option<Self> {
        [Self::Keys, Self::Full].into_iter().find(|kind| kind.byte() == byte)
    }

    /// In words.
    pub fn word(self) -> &'static str {
        match self {
            Self::Keys => "key backup",
            Self::Full => "full backup",
        }
    }

    /// What the sealed bytes are: one kind cannot be taken for the other.
    fn sealed_as(self) -> &'static str {
        match self {
            Self::Keys => "plane key backup v1",
            Self::Full => "plane full backup v1",
        }
    }
}

/// A file of the plane's directory.
#[derive(Serialize, Deserialize)]
struct Entry {
    /// Below the directory.
    name: String,
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Contents {
    made_unix_ms: i64,
    fleet: String,
    entries: Vec<Entry>,
}

/// A backup that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The recovery code of a key backup: nobody else has it.
    pub code: Option<String>,
    /// What is in the directory and not in the backup, each with the reason.
    pub left_out: Vec<String>,
}

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// What it holds.
    pub kind: Kind,
    /// When it was made, milliseconds since 1970.
    pub made_unix_ms: i64,
    /// Of which fleet.
    pub fleet: String,
    /// Files in it, and their bytes.
    pub files: Vec<(String, u64)>,
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> BackupError {
    let path = path.to_path_buf();
    move |source| BackupError::Io { what, path, source }
}

/// The keys that a recovery code stands for.
fn keys_of(code: &str) -> Identity {
    let code: String = code
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect::<String>()
        .to_lowercase();
    let half = |what| hash(what, &[code.as_bytes()]);
    let bytes = Zeroizing::new(
        [
            half("mycelial recovery code, first half v1"),
            half("mycelial recovery code, second half v1"),
        ]
        .concat(),
    );
    let mut whole = Zeroizing::new([0; Identity::BYTES]);
    whole.copy_from_slice(&bytes);
    Identity::from_bytes(&whole)
}

fn fresh_code() -> Result<String, BackupError> {
    let mut bytes = Zeroizing::new([0; CODE_BYTES]);
    getrandom::fill(&mut *bytes).map_err(BackupError::Random)?;
    let text = base32(&*bytes);
    let groups: Vec<&str> = (0..text.len())
        .step_by(4)
        .map(|at| &text[at..(at + 4).min(text.len())])
        .collect();
    Ok(groups.join("-"))
}

/// The small files of a plane, with those of its folders; and what is there and is not among them, with the reason.
fn small_files(dir: &Path) -> Result<(Vec<Entry>, Vec<String>), BackupError> {
    let (mut entries, mut left_out) = (Vec::new(), Vec::new());
    let mut folders = vec![(dir.to_path_buf(), String::new())];
    while let Some((folder, before)) = folders.pop() {
        for found in fs::read_dir(&folder).map_err(io_error("read", &folder))? {
            let found = found.map_err(io_error("read", &folder))?;
            let (path, name) = (found.path(), format!("{before}{}", found.file_name().to_string_lossy()));
            // What a link points to is needed as well.
            let data = fs::metadata(&path).map_err(io_error("read", &path))?;
            if data.is_dir() {
                // One level: certificates. Not what an earlier restore has moved aside.
                match (before.is_empty(), name.starts_with(ASIDE)) {
                    (true, false) => folders.push((path, format!("{name}/"))),
                    (true, true) => left_out.push(format!("{name}/: moved aside by a restore")),
                    (false, _) => left_out.push(format!("{name}/: a folder inside of a folder")),
                }
                continue;
            }
            let is_store = STORES.iter().any(|store| name.starts_with(store));
            let is_left_out = LEFT_OUT.contains(&&*found.file_name().to_string_lossy())
                || name.contains(".bad.")
                || name.ends_with(".new");
            if is_store || is_left_out {
                continue;
            }
            if !data.is_file() || (data.len() > FILE_BYTES_MAX && !GROWING.contains(&name.as_str())) {
                let why = if data.is_file() {
                    format!("longer than {FILE_BYTES_MAX} bytes")
                } else {
                    "no file".to_string()
                };
                left_out.push(format!("{name}: {why}"));
                continue;
            }
            if is_backup(&path) {
                left_out.push(format!("{name}: a backup itself"));
                continue;
            }
            if entries.len() == FILES_MAX {
                let message = format!(
                    "{} holds more than {FILES_MAX} files: keep others elsewhere",
                    dir.display()
                );
                return Err(BackupError::Wish(message));
            }
            let bytes = fs::read(&path).map_err(io_error("read", &path))?;
            entries.push(Entry { name, bytes });
        }
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    left_out.sort();
    Ok((entries, left_out))
}

/// Whether a file is a backup: each would hold all before it.
fn is_backup(path: &Path) -> bool {
    let mut head = [0; MAGIC.len()];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && head == *MAGIC
}

/// A consistent copy of a store that others may be writing to.
fn copy_of(dir: &Path, store: &str) -> Result<Option<Entry>, BackupError> {
    let path = dir.join(store);
    if !path.is_file() {
        return Ok(None);
    }
    let copy = dir.join(format!("{store}.backup.new"));
    let _left_behind = fs::remove_file(&copy);
    let db = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    db.busy_timeout(std::time::Duration::from_secs(10))?;
    let copied = db.execute("VACUUM INTO ?1", [copy.to_string_lossy()]);
    let read = copied
        .map_err(BackupError::from)
        .and_then(|_| fs::read(&copy).map_err(io_error("read", &copy)));
    let _removed = fs::remove_file(&copy);
    Ok(Some(Entry {
        name: store.to_string(),
        bytes: read?,
    }))
}

/// The fleet that keys belong to, and the root key. Reads files that never change, so the plane may be running.
fn root_of(dir: &Path) -> Result<Identity, BackupError> {
    if !is_made(dir) {
        let dir = dir.display();
        return Err(BackupError::Wish(format!(
            "{dir} holds no plane; restore its key backup first"
        )));
    }
    if !dir.join("root").exists() {
        return Err(BackupError::Wish(format!("{} holds no root key", dir.display())));
    }
    Ok(root(&Home::beside(dir))?)
}

fn sealed(kind: Kind, owner: &Identity, contents: &Contents) -> Result<Vec<u8>, BackupError> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(BackupError::Random)?;
    let plain = Zeroizing::new(encode(contents));
    let sealed = vault::seal(owner, kind.sealed_as(), nonce, &plain)
        .ok_or_else(|| BackupError::Wish("there is more than can be sealed".to_string()))?;
    let mut bytes = [&MAGIC[..], &[kind.byte()], &sealed].concat();
    let check = hash("mycelial backup v1", &[&bytes]);
    bytes.extend_from_slice(&check);
    Ok(bytes)
}

/// Puts the newest roster into the membership: a running plane keeps it in its store first, and beside the keys a moment later.
/// Without it, nobody who is enrolled just now could tell a restored plane anything.
fn with_newest_roster(dir: &Path, root: &Identity, entries: &mut [Entry]) -> Result<(), BackupError> {
    let home = Home::beside(dir);
    let Some(mut membership) = home.membership()? else {
        return Ok(());
    };
    let signer = Signer {
        root: root.clone(),
        plane: home.identity()?,
    };
    let mut store = Store::open(&dir.join(STORE))?;
    let state = remember(&mut store, &signer, &membership)
        .map_err(|error| BackupError::Wish(format!("the store cannot be read: {error}")))?;
    let known = membership
        .roster
        .open(&membership.root)
        .map_or(0, |roster| roster.version);
    if state.members.version() > known {
        membership.roster = Signed::new(&state.members.roster(), root);
        for entry in entries {
            if matches!(entry.name.as_str(), "membership" | "membership.copy") {
                entry.bytes = Home::stored(&entry.name, &encode(&membership));
            }
        }
    }
    Ok(())
}

/// Makes a backup; the recovery code, if it is of the keys. The plane may be running.
pub fn create(dir: &Path, kind: Kind, to: &Path) -> Result<Made, BackupError> {
    let root = root_of(dir)?;
    // First, so that the backup says that it was made.
    Store::open(&dir.join(STORE))?.audit(&[from_directory("make a backup", kind.word())])?;
    let (mut entries, left_out) = small_files(dir)?;
    if let Some(missing) = NEEDED
        .iter()
        .find(|name| !entries.iter().any(|entry| entry.name == **name))
    {
        let message = format!(
            "{} holds no usable '{missing}': a backup without it could not be restored",
            dir.display()
        );
        return Err(BackupError::Wish(message));
    }
    with_newest_roster(dir, &root, &mut entries)?;
    if kind == Kind::Full {
        for store in STORES {
            entries.extend(copy_of(dir, store)?);
        }
    }
    let contents = Contents {
        made_unix_ms: unix_ms(),
        fleet: bus_schema::id::FleetId::of_root(&root.public().sign).to_string(),
        entries,
    };
    let (owner, code) = match kind {
        Kind::Full => (root, None),
        Kind::Keys => {
            let code = fresh_code()?;
            (keys_of(&code), Some(code))
        }
    };
    let bytes = sealed(kind, &owner, &contents)?;
    write_atomic(to, &bytes).map_err(io_error("write", to))?;
    Ok(Made { code, left_out })
}

fn open(
    path: &Path,
    owner: impl FnOnce(Kind) -> Result<Identity, BackupError>,
) -> Result<(Kind, Contents), BackupError> {
    let unusable = |what: &str| BackupError::Unusable {
        path: path.to_path_buf(),
        what: what.to_string(),
    };
    let bytes = fs::read(path).map_err(io_error("read", path))?;
    let (body, check) = bytes
        .split_last_chunk::<CHECK_BYTES>()
        .filter(|(body, _)| body.starts_with(MAGIC) && body.len() > MAGIC.len())
        .ok_or_else(|| unusable("this is no backup of a plane"))?;
    if hash("mycelial backup v1", &[body]) != *check {
        return Err(unusable("it is damaged: its checksum is wrong; take another copy"));
    }
    let kind = Kind::of(body[MAGIC.len()]).ok_or_else(|| unusable("it was made by a newer version"))?;
    let owner = owner(kind)?;
    let plain = vault::open(&owner, kind.sealed_as(), &body[MAGIC.len() + 1..]).ok_or_else(|| {
        unusable(match kind {
            Kind::Keys => "the recovery code is not the one that was shown when it was made",
            Kind::Full => "it was sealed under another root key: is this the plane it was made of?",
        })
    })?;
    let contents = decode(&plain).ok_or_else(|| unusable("it was made by a newer version"))?;
    Ok((kind, contents))
}

/// What kind a file is, without opening it.
pub fn kind_of(path: &Path) -> Result<Kind, BackupError> {
    let mut head = [0; MAGIC.len() + 1];
    let mut file = fs::File::open(path).map_err(io_error("open", path))?;
    let read = file.read_exact(&mut head);
    let kind = read
        .ok()
        .filter(|()| head.starts_with(MAGIC))
        .and_then(|()| Kind::of(head[MAGIC.len()]));
    kind.ok_or_else(|| BackupError::Unusable {
        path: path.to_path_buf(),
        what: "this is no backup of a plane".to_string(),
    })
}

/// What opens a backup: the code for a key backup, the plane's own directory for a full one.
#[derive(Debug, Clone, Copy)]
pub enum Opener<'a> {
    /// The recovery code.
    Code(&'a str),
    /// A plane's directory, with the root key.
    Dir(&'a Path),
}

impl Opener<'_> {
    fn identity(self, kind: Kind) -> Result<Identity, BackupError> {
        match (kind, self) {
            (Kind::Keys, Self::Code(code)) => Ok(keys_of(code)),
            (Kind::Full, Self::Dir(dir)) => root_of(dir),
            (Kind::Keys, Self::Dir(_)) => Err(BackupError::Wish("a key backup needs its recovery code".to_string())),
            (Kind::Full, Self::Code(_)) => {
                let message = "a full backup needs the root key: say the plane's directory with --dir";
                Err(BackupError::Wish(message.to_string()))
            }
        }
    }
}

/// Opens a backup and looks whether all in it can be used; restores nothing.
pub fn verify(path: &Path, opener: Opener<'_>) -> Result<Summary, BackupError> {
    let (kind, contents) = open(path, |kind| opener.identity(kind))?;
    for entry in contents
        .entries
        .iter()
        .filter(|entry| STORES.contains(&entry.name.as_str()))
    {
        check_store(path, entry)?;
    }
    let has = |name: &str| contents.entries.iter().any(|entry| entry.name == name);
    if let Some(missing) = std::iter::once(FILE).chain(NEEDED).find(|name| !has(name)) {
        return Err(BackupError::Unusable {
            path: path.to_path_buf(),
            what: format!("it holds no '{missing}'"),
        });
    }
    Ok(Summary {
        kind,
        made_unix_ms: contents.made_unix_ms,
        fleet: contents.fleet,
        files: contents
            .entries
            .iter()
            .map(|entry| (entry.name.clone(), entry.bytes.len() as u64))
            .collect(),
    })
}

/// Whether SQLite finds the copy of a store whole. In memory: looking at a backup leaves nothing beside it.
fn check_store(backup: &Path, entry: &Entry) -> Result<(), BackupError> {
    let checked = Connection::open_in_memory().and_then(|mut db| {
        db.deserialize_read_exact("main", entry.bytes.as_slice(), entry.bytes.len(), true)?;
        db.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0))
    });
    match checked {
        Ok(said) if said == "ok" => Ok(()),
        Ok(said) => Err(BackupError::Unusable {
            path: backup.to_path_buf(),
            what: format!("{} in it is damaged: {said}", entry.name),
        }),
        Err(error) => Err(BackupError::Unusable {
            path: backup.to_path_buf(),
            what: format!("{} in it is damaged: {error}", entry.name),
        }),
    }
}

/// Makes a plane out of a backup, in a directory that holds none; with `over`, also in the place of one that is stopped. What
/// was there is moved aside.
pub fn restore(path: &Path, opener: Opener<'_>, dir: &Path, over: bool) -> Result<Summary, BackupError> {
    let summary = verify(path, opener)?;
    let (_, contents) = open(path, |kind| opener.identity(kind))?;
    // Never below a running plane.
    let home = Home::open(dir)?;
    let has_stores = summary.kind == Kind::Full && STORES.iter().any(|store| dir.join(store).exists());
    // The directory whose key opens a full backup may hold a plane that was just made of its key backup.
    let is_there = has_stores || summary.kind == Kind::Keys && (is_made(dir) || dir.join("root").exists());
    if is_there && !over {
        let message = format!(
            "{} holds a plane already; with --over what is there is moved aside, and the backup takes its place",
            dir.display()
        );
        return Err(BackupError::Wish(message));
    }
    let mut aside = Vec::new();
    for store in STORES {
        // A key backup knows nothing of stores: an old one would contradict it.
        if has_stores || summary.kind == Kind::Keys {
            for name in [store.to_string(), format!("{store}-wal"), format!("{store}-shm")] {
                aside.push(name);
            }
        }
    }
    aside.extend(contents.entries.iter().map(|entry| entry.name.clone()));
    set_aside(dir, &aside)?;
    for Entry { name, bytes } in &contents.entries {
        let to = inside(path, dir, name)?;
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder).map_err(io_error("create", folder))?;
        }
        write_atomic(&to, bytes).map_err(io_error("write", &to))?;
    }
    // Peers refuse whoever counts its starts backwards.
    let now_s = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let mut members = vec![home];
    let operator = dir.join(web_operator::DIR);
    if operator.is_dir() {
        members.push(Home::open(&operator)?);
    }
    for (member, name) in members
        .iter()
        .flat_map(|member| [(member, "epoch"), (member, "epoch.copy")])
    {
        member.store(name, &now_s.max(EPOCH_MIN).to_le_bytes())?;
    }
    if summary.kind == Kind::Full {
        Store::open(&dir.join(STORE))?.audit(&[from_directory("restore a backup", summary.kind.word())])?;
    }
    Ok(summary)
}

/// Where a file of the backup goes: nowhere but below the directory.
fn inside(backup: &Path, dir: &Path, name: &str) -> Result<PathBuf, BackupError> {
    let is_plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    if name.split('/').count() > 2 || !name.split('/').all(is_plain) {
        return Err(BackupError::Unusable {
            path: backup.to_path_buf(),
            what: format!("'{}' in it is no name of a file", name.escape_debug()),
        });
    }
    Ok(dir.join(name))
}

/// Moves what is there into a folder of its own.
fn set_aside(dir: &Path, names: &[String]) -> Result<(), BackupError> {
    let there: BTreeSet<&String> = names.iter().filter(|name| dir.join(name).exists()).collect();
    if there.is_empty() {
        return Ok(());
    }
    let folder = dir.join(format!("{ASIDE}{}", unix_ms()));
    for name in there {
        let to = folder.join(name.replace('/', "-"));
        fs::create_dir_all(&folder).map_err(io_error("create", &folder))?;
        fs::rename(dir.join(name), &to).map_err(io_error("move", &to))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::{Wishes, init};

    fn made() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let wishes = Wishes {
            tls: true,
            ..Wishes::default()
        };
        init(dir.path(), &wishes).unwrap();
        Store::open(&dir.path().join(STORE))
            .unwrap()
            .set("kept", b"yes")
            .unwrap();
        dir
    }

    #[test]
    fn a_full_backup_brings_everything_back() {
        let (dir, elsewhere) = (made(), tempfile::tempdir().unwrap());
        let (keys, full) = (elsewhere.path().join("keys.myc"), elsewhere.path().join("full.myc"));
        // Beside a plane that holds the lock, and has the store open.
        let running = Home::open(dir.path()).unwrap();
        let seen = bus_link::guard::Seen {
            sender: bus_schema::id::NodeId::from_hash(&[7; 32]),
            key_epoch: 1,
            lane: bus_schema::subject::Lane::Control,
            epoch: 3,
            counter: 4_711,
        };
        running.save_seen(&[seen]).unwrap();
        let store = Store::open(&dir.path().join(STORE)).unwrap();
        let code = create(dir.path(), Kind::Keys, &keys).unwrap().code.unwrap();
        let before = dir.path().join("before-1");
        fs::create_dir(&before).unwrap();
        fs::write(dir.path().join("large"), vec![0; 1 << 21]).unwrap();
        fs::copy(&keys, dir.path().join("old.myc")).unwrap();
        let made = create(dir.path(), Kind::Full, &full).unwrap();
        assert_eq!(made.code, None);
        assert_eq!(
            made.left_out,
            [
                "before-1/: moved aside by a restore",
                "large: longer than 1048576 bytes",
                "old.myc: a backup itself",
            ]
        );
        store.set("later", b"yes").unwrap();
        for (file, kind, opener) in [
            (&keys, Kind::Keys, Opener::Code(&code)),
            (&full, Kind::Full, Opener::Dir(dir.path())),
        ] {
            let summary = verify(file, opener).unwrap();
            assert_eq!((summary.kind, kind_of(file).unwrap()), (kind, kind));
            let names: Vec<&str> = summary.files.iter().map(|(name, _)| name.as_str()).collect();
            assert!(
                names.contains(&"tls/server.key") && names.contains(&"broker.secret"),
                "{names:?}"
            );
            assert_eq!(names.contains(&STORE), kind == Kind::Full);
            assert!(!names.contains(&"epoch") && !names.contains(&"lock"));
        }
        // Over a running plane never, whatever is said.
        let error = restore(&full, Opener::Dir(dir.path()), dir.path(), true)
            .unwrap_err()
            .to_string();
        assert!(error.contains("in use"), "{error}");

        // The disk is lost: first the keys, which open the rest.
        let new = tempfile::tempdir().unwrap();
        restore(&keys, Opener::Code(&code), new.path(), false).unwrap();
        let error = restore(&keys, Opener::Code(&code), new.path(), false)
            .unwrap_err()
            .to_string();
        assert!(error.contains("holds a plane already"), "{error}");
        restore(&full, Opener::Dir(new.path()), new.path(), false).unwrap();
        let error = restore(&full, Opener::Dir(new.path()), new.path(), false)
            .unwrap_err()
            .to_string();
        assert!(error.contains("--over"), "there is a store now: {error}");
        restore(&full, Opener::Dir(new.path()), new.path(), true).unwrap();
        let store = Store::open(&new.path().join(STORE)).unwrap();
        assert_eq!(store.setting("kept").unwrap().as_deref(), Some(&b"yes"[..]));
        assert_eq!(store.setting("later").unwrap(), None, "it was made before that");
        for name in [
            "root",
            "keys",
            "membership",
            "plane.toml",
            "broker.secret",
            "tls/server.key",
        ] {
            let [old, new] = [dir.path(), new.path()].map(|dir| fs::read(dir.join(name)).unwrap());
            assert!(old == new, "{name}");
        }
        let restored = Home::open(new.path()).unwrap();
        assert!(restored.next_epoch().unwrap() > EPOCH_MIN);
        // What was said to the old plane before the backup is not believed a second time.
        let known = restored.seen();
        assert_eq!(
            known.iter().map(|seen| (seen.epoch, seen.counter)).collect::<Vec<_>>(),
            [(3, 4_711)]
        );
    }

    #[test]
    fn members_of_this_very_moment_are_in_the_key_backup() {
        let (dir, elsewhere) = (made(), tempfile::tempdir().unwrap());
        let keys = elsewhere.path().join("keys.myc");
        let home = Home::open(dir.path()).unwrap();
        let membership = home.membership().unwrap().unwrap();
        let signer = Signer {
            root: root(&home).unwrap(),
            plane: home.identity().unwrap(),
        };
        let mut store = Store::open(&dir.path().join(STORE)).unwrap();
        let mut state = remember(&mut store, &signer, &membership).unwrap();
        let certificate = bus_schema::member::Certificate {
            fleet: membership.fleet,
            ..crate::domain::testing::certificate(7, "new", bus_schema::member::Role::Daemon)
        };
        let member = crate::domain::members::Member {
            signed: Signed::new(&certificate, &signer.root),
            certificate,
            host: Default::default(),
            enrolled_unix_ms: 0,
        };
        let changes = vec![
            crate::domain::Change::Member(Box::new(member)),
            crate::domain::Change::RosterVersion(state.members.version() + 1),
        ];
        store.commit(&changes).unwrap();
        state.apply(changes, true, Default::default());
        let code = create(dir.path(), Kind::Keys, &keys).unwrap().code.unwrap();
        let new = tempfile::tempdir().unwrap();
        restore(&keys, Opener::Code(&code), new.path(), false).unwrap();
        let restored = Home::open(new.path()).unwrap().membership().unwrap().unwrap();
        let roster = restored.roster.open(&restored.root).unwrap();
        assert!(roster.members.iter().any(|member| member.name == "new"));
        assert_eq!(roster.version, state.members.version());
    }

    #[test]
    fn what_is_damaged_or_foreign_is_refused() {
        let (dir, other) = (made(), made());
        let elsewhere = tempfile::tempdir().unwrap();
        let (keys, full) = (elsewhere.path().join("keys.myc"), elsewhere.path().join("full.myc"));
        let code = create(dir.path(), Kind::Keys, &keys).unwrap().code.unwrap();
        create(dir.path(), Kind::Full, &full).unwrap();
        let upper = code.to_uppercase().replace('-', " ");
        assert!(verify(&keys, Opener::Code(&upper)).is_ok(), "as somebody may type it");
        for (file, opener, said) in [
            (&keys, Opener::Code("aaaa-bbbb"), "recovery code is not the one"),
            (&keys, Opener::Dir(dir.path()), "needs its recovery code"),
            (&full, Opener::Dir(other.path()), "another root key"),
            (&full, Opener::Code(&code), "needs the root key"),
        ] {
            let error = verify(file, opener).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        verify(&full, Opener::Dir(dir.path())).unwrap();
        let beside: Vec<_> = fs::read_dir(elsewhere.path()).unwrap().collect();
        assert_eq!(beside.len(), 2, "looking leaves nothing: {beside:?}");
        let whole = fs::read(&full).unwrap();
        assert!(!whole.windows(7).any(|part| part == b"SQLite "), "sealed");
        for at in [0, 8, 9, whole.len() / 2, whole.len() - 1] {
            let mut spoilt = whole.clone();
            spoilt[at] ^= 1;
            fs::write(&full, &spoilt).unwrap();
            assert!(verify(&full, Opener::Dir(dir.path())).is_err(), "byte {at}");
            fs::write(&full, &whole[..at]).unwrap();
            assert!(verify(&full, Opener::Dir(dir.path())).is_err(), "cut at {at}");
        }
        let store = Entry {
            name: STORE.to_string(),
            bytes: copy_of(dir.path(), STORE).unwrap().unwrap().bytes,
        };
        check_store(&full, &store).unwrap();
        for cut in [0, 100, store.bytes.len() / 2] {
            let spoilt = Entry {
                name: STORE.to_string(),
                bytes: store.bytes[..cut].to_vec(),
            };
            let error = check_store(&full, &spoilt).unwrap_err().to_string();
            assert!(error.contains("is damaged"), "cut at {cut}: {error}");
        }
        for name in ["../x", "a/../b", "/etc/passwd", "a/b/c", ""] {
            assert!(inside(&full, dir.path(), name).is_err(), "{name}");
        }
    }
}
