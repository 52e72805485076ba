//! The files a destination writes to, their rotation, and what a crash may leave behind. Blocking; knows no format.
//!
//! A commit is: data synced, then one ledger record synced that covers all files. What stands in a file beyond its recorded
//! length was never committed and is cut off at the next start. New files are born beside their place and moved there by a
//! commit, so that what stands in place is always committed up to the recorded length.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use bus_schema::id::StreamId;
use flow::Watermark;

use super::{
    ledger::{Ledger, Mark, Record, State, sync_directory},
    part::{Limits, Part, length_of},
    place::{self, Barred},
    siblings::parent,
};

/// What files are called that are not committed yet, after the path.
const PART: &str = ".mycelial-part";
/// Files that are open at a time; the ledger remembers as many from commit to commit.
const OPEN_FILES_MAX: usize = 32;
/// Files that one commit may touch.
pub(crate) const COMMIT_FILES_MAX: usize = 1024;
/// Whole files that are not complete, at a time.
const UNFINISHED_MAX: usize = 64;

/// Where a destination's files stand.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// At one path, and beside it.
    File(PathBuf),
    /// Below a directory, under names that come with the records. They are in place while they grow.
    Directory(PathBuf),
    /// The same, but nothing is in place before it is complete. It takes the place of what stands there, or not.
    Whole { directory: PathBuf, replace: bool },
}

impl Target {
    /// The file or the directory.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Directory(path) | Self::Whole { directory: path, .. } => path,
        }
    }
}

/// Complete, not committed.
struct Sealed {
    part: Part,
    place: String,
    /// Whether it gets a number, or the place itself.
    is_numbered: bool,
}

/// The destination's files.
pub(crate) struct Output {
    root: PathBuf,
    /// What the names of files begin with that are not committed yet; the ledger's, too.
    own: String,
    target: Target,
    limits: Limits,
    ledger: Ledger,
    /// What is committed.
    record: Record,
    sealed: Vec<Sealed>,
    /// By their names in place.
    parts: BTreeMap<String, Part>,
    /// Admitted since the last commit.
    names: BTreeSet<String>,
    /// Given up, to be removed after the commit.
    discarded: Vec<PathBuf>,
    /// Watermarks to be committed.
    marks: BTreeMap<StreamId, Mark>,
    /// Counts uses of files.
    uses: u64,
}

impl Output {
    /// Opens what a destination has written so far. Finishes or undoes what a crash interrupted.
    pub(crate) fn open(target: &Target, limits: Limits) -> io::Result<Self> {
        let (root, data) = match target {
            Target::File(path) => (parent(path).to_path_buf(), path.clone()),
            Target::Directory(root) | Target::Whole { directory: root, .. } => (root.clone(), root.join("")),
        };
        let (ledger, record) = Ledger::open(&data)?;
        let mut output = Self {
            own: match target {
                Target::File(path) => file_name(path),
                _ => String::new(),
            },
            root,
            target: target.clone(),
            limits,
            ledger,
            record: record.unwrap_or_else(|| Record::new(BTreeMap::new())),
            sealed: Vec::new(),
            parts: BTreeMap::new(),
            names: BTreeSet::new(),
            discarded: Vec::new(),
            marks: BTreeMap::new(),
            uses: 0,
        };
        output.remove_leftovers()?;
        output.marks.clone_from(&output.record.marks);
        output.finish_moves()?;
        for (name, state) in output.record.files.clone() {
            if let Some(part) = Part::reopen(output.root.join(&state.at), &state)? {
                output.parts.insert(name, part);
            }
        }
        Ok(output)
    }

    /// Files that were never committed.
    fn remove_leftovers(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.root)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let is_moved = self.record.moves.iter().any(|(from, _)| *from == name);
            let is_known = is_moved || self.record.files.values().any(|state| state.at == name);
            if self.is_part(&name) && !is_known {
                fs::remove_file(self.root.join(name))?;
            }
        }
        Ok(())
    }

    fn is_part(&self, name: &str) -> bool {
        name.strip_prefix(&self.own).is_some_and(|rest| rest.starts_with(PART))
    }

    /// The watermark of a lineage.
    pub(crate) fn mark(&self, stream: &StreamId) -> Option<Watermark> {
        self.record.marks.get(stream).map(Watermark::from)
    }

    /// The watermark a lineage will have after the next commit.
    pub(crate) fn pending_mark(&self, stream: &StreamId) -> Watermark {
        self.marks.get(stream).map(Watermark::from).unwrap_or_default()
    }

    /// Sets the watermark a lineage will have after the next commit.
    pub(crate) fn set_mark(&mut self, stream: StreamId, mark: &Watermark) {
        self.marks.insert(stream, mark.into());
    }

    /// Whether a file of this name may be written in this commit: `Err` says why not. Makes the directories it needs.
    pub(crate) fn admit(&mut self, name: &str) -> io::Result<Result<(), String>> {
        if let Target::File(_) = self.target {
            return Ok(Ok(()));
        }
        if let Err(cause) = place::check(name) {
            return Ok(Err(cause));
        }
        if self.names.len() >= COMMIT_FILES_MAX && !self.names.contains(name) {
            return Ok(Err(format!(
                "more than {COMMIT_FILES_MAX} files at once: its name changes too often"
            )));
        }
        // Of those that are not in place yet, the system knows nothing.
        let is_file = |name: &str| self.parts.contains_key(name) || self.names.contains(name);
        let mut ancestors = name.match_indices('/').map(|(at, _)| &name[..at]);
        if let Some(file) = ancestors.find(|ancestor| is_file(ancestor)) {
            return Ok(Err(format!("'{file}' is a file, no directory")));
        }
        match place::prepare(&self.root, name) {
            Ok(_) => {
                self.names.insert(name.to_string());
                Ok(Ok(()))
            }
            Err(Barred::Name(cause)) => Ok(Err(cause)),
            Err(Barred::System(error)) => Err(error),
        }
    }

    /// Takes over files that somebody else began, and remembers first how much of them is theirs: one record for all.
    pub(crate) fn adopt<'a>(&mut self, names: impl IntoIterator<Item = &'a str>) -> io::Result<()> {
        let mut record = None;
        for name in names {
            let is_leaving = self.sealed.iter().any(|sealed| sealed.place == name);
            let path = self.root.join(name);
            // An empty one has nothing to keep: a new file takes its place at the commit.
            if self.parts.contains_key(name) || is_leaving || self.is_whole() || length_of(&path)? == 0 {
                continue;
            }
            let part = Part::adopt(name.to_string(), path)?;
            let record = record.get_or_insert_with(|| self.record.clone());
            record.files.insert(name.to_string(), part.state(name));
            self.parts.insert(name.to_string(), part);
            self.shut_others(name)?;
        }
        if let Some(record) = record {
            self.ledger.append(&record)?;
            self.record = record;
        }
        Ok(())
    }

    /// The file of this name, which is begun if there is none. Its name must have been admitted.
    pub(crate) fn part(&mut self, name: &str) -> io::Result<&mut Part> {
        if !self.parts.contains_key(name) {
            self.adopt([name])?;
        }
        if !self.parts.contains_key(name) {
            let part = self.create()?;
            self.parts.insert(name.to_string(), part);
        }
        self.shut_others(name)?;
        self.uses += 1;
        let uses = self.uses;
        let part = self.parts.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
        part.used = uses;
        Ok(part)
    }

    /// A new file that will have this name, or a number beside it, whatever stands there. Its name must have been admitted.
    #[cfg(feature = "parquet")]
    pub(crate) fn begin(&mut self, name: &str) -> io::Result<&mut Part> {
        let part = self.create()?;
        self.parts.insert(name.to_string(), part);
        self.parts.get_mut(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The file of this name, if it is being written.
    pub(crate) fn known(&mut self, name: &str) -> Option<&mut Part> {
        self.parts.get_mut(name)
    }

    fn create(&mut self) -> io::Result<Part> {
        loop {
            self.uses += 1;
            let at = format!("{}{PART}{}", self.own, self.uses);
            match Part::create(at.clone(), self.root.join(at)) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                part => return part,
            }
        }
    }

    /// Lets go of file descriptors, except that of `name`.
    fn shut_others(&mut self, name: &str) -> io::Result<()> {
        while self.parts.values().filter(|part| part.is_open()).count() > OPEN_FILES_MAX {
            let others = self
                .parts
                .iter_mut()
                .filter(|(other, part)| *other != name && part.is_open());
            match others.min_by_key(|(_, part)| part.used) {
                Some((_, part)) => part.shut()?,
                None => break,
            }
        }
        Ok(())
    }

    /// The file is complete and gets a number: the next write begins another one.
    pub(crate) fn seal(&mut self, name: &str) -> io::Result<()> {
        let is_numbered = !matches!(self.target, Target::Whole { replace: true, .. });
        if let Some(mut part) = self.parts.remove(name) {
            part.shut()?;
            let place = name.to_string();
            self.sealed.push(Sealed {
                part,
                place,
                is_numbered,
            });
        }
        Ok(())
    }

    /// The file will never be complete.
    pub(crate) fn discard(&mut self, name: &str) {
        if let Some(part) = self.parts.remove(name) {
            self.discarded.push(part.path);
        }
    }

    fn is_whole(&self) -> bool {
        matches!(self.target, Target::Whole { .. })
    }

    /// Makes everything written durable, with the watermarks, and rotates when it is time.
    pub(crate) fn commit(&mut self) -> io::Result<()> {
        crash_point::at!(FileBeforeSync);
        for part in self.parts.values_mut().filter(|part| part.is_touched) {
            part.sync()?;
        }
        self.seal_complete()?;
        let moves = self.moves()?;
        let is_born = |part: &&Part| part.is_touched && !self.record.files.values().any(|state| state.at == part.at);
        if !moves.is_empty() || self.is_whole() && self.parts.values().any(|part| is_born(&part)) {
            // The record must not speak of a file whose name is lost in a power cut.
            sync_directory(&self.root.join("x"))?;
        }
        let states = self.parts.iter().map(|(name, part)| {
            let at = if self.is_whole() { &part.at } else { name };
            (name.clone(), part.state(at))
        });
        let record = Record {
            files: states.collect::<BTreeMap<String, State>>(),
            moves,
            ..Record::new(self.marks.clone())
        };
        crash_point::at!(FileBeforeLedger);
        self.ledger.append(&record)?;
        crash_point::at!(FileAfterLedger);
        self.record = record;
        self.sealed.clear();
        self.names.clear();
        if !self.is_whole() {
            for (name, part) in &mut self.parts {
                (part.at, part.path) = (name.clone(), self.root.join(name));
            }
        }
        self.finish_moves()?;
        for path in self.discarded.drain(..) {
            fs::remove_file(&path).or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })?;
        }
        self.notice_rotation_by_others()?;
        self.let_go();
        Ok(())
    }

    /// Whether a commit would find a file that is complete by its age, though nothing was written.
    pub(crate) fn is_due(&self) -> bool {
        !self.is_whole() && self.parts.values().any(|part| self.limits.is_old(part))
    }

    /// Seals what has reached its size or age; and the longest unused of too many, if their age matters.
    fn seal_complete(&mut self) -> io::Result<()> {
        if self.is_whole() {
            return Ok(());
        }
        let reached = self.parts.iter().filter(|(_, part)| self.limits.reached(part));
        let mut complete: Vec<String> = reached.map(|(name, _)| name.clone()).collect();
        if self.limits.age.is_some() {
            complete.extend(self.longest_unused(OPEN_FILES_MAX));
        }
        complete.iter().try_for_each(|name| self.seal(name))
    }

    fn longest_unused(&self, kept: usize) -> Vec<String> {
        let mut uses: Vec<(u64, &String)> = self.parts.iter().map(|(name, part)| (part.used, name)).collect();
        uses.sort_unstable();
        uses.truncate(self.parts.len().saturating_sub(kept));
        uses.into_iter().map(|(_, name)| name.clone()).collect()
    }

    /// Forgets the longest unused files when there are many: what is in place is adopted should it be written to again.
    fn let_go(&mut self) {
        for part in self.parts.values_mut() {
            part.is_touched = false;
        }
        let kept = if self.is_whole() {
            UNFINISHED_MAX
        } else {
            OPEN_FILES_MAX
        };
        for name in self.longest_unused(kept) {
            if self.is_whole() {
                tracing::warn!(
                    name,
                    "too many files are not complete: the one that came no further is given up"
                );
                self.discard(&name);
            } else {
                self.parts.remove(&name);
            }
        }
    }

    /// Which files go where with this commit.
    fn moves(&self) -> io::Result<Vec<(String, String)>> {
        let mut taken = BTreeSet::new();
        let mut moves = Vec::new();
        for sealed in &self.sealed {
            let to = if sealed.is_numbered && !(self.is_whole() && self.is_vacant(&sealed.place, &taken)?) {
                let mut number = place::next_number(&self.root.join(&sealed.place))?;
                let is_known = |name: &str| taken.contains(name) || (!self.is_whole() && self.parts.contains_key(name));
                while is_known(&place::numbered(&sealed.place, number)) {
                    number += 1;
                }
                place::numbered(&sealed.place, number)
            } else {
                sealed.place.clone()
            };
            taken.insert(to.clone());
            moves.push((sealed.part.at.clone(), to));
        }
        if !self.is_whole() {
            let born = self.parts.iter().filter(|(name, part)| part.at != **name);
            moves.extend(born.map(|(name, part)| (part.at.clone(), name.clone())));
        }
        Ok(moves)
    }

    fn is_vacant(&self, name: &str, taken: &BTreeSet<String>) -> io::Result<bool> {
        Ok(!taken.contains(name) && !self.root.join(name).try_exists()?)
    }

    /// Does the committed renames that are not done yet.
    fn finish_moves(&mut self) -> io::Result<()> {
        if self.record.moves.is_empty() {
            return Ok(());
        }
        let mut directories = BTreeSet::from([self.root.join("x")]);
        for (from, to) in &self.record.moves {
            self.make_way(to)?;
            let is_born = self.is_part(from);
            let (from, to) = (self.root.join(from), self.root.join(to));
            directories.insert(parent(&to).join("x"));
            let replaces = matches!(self.target, Target::Whole { replace: true, .. });
            match (from.try_exists()?, to.try_exists()?) {
                (true, false) => fs::rename(&from, &to)?,
                (true, true) if is_born && (replaces || length_of(&to)? == 0) => fs::rename(&from, &to)?,
                (true, true) if is_born => {
                    let cause = format!("{} appeared where a new file belongs: move it away", to.display());
                    return Err(io::Error::new(io::ErrorKind::AlreadyExists, cause));
                }
                // Done before a crash.
                _ => {}
            }
        }
        crash_point::at!(FileRotateAfterRename);
        directories.iter().try_for_each(|inside| sync_directory(inside))?;
        let record = Record {
            moves: Vec::new(),
            ..self.record.clone()
        };
        self.ledger.append(&record)?;
        crash_point::at!(FileRotateAfterLedger);
        self.record = record;
        Ok(())
    }

    /// The directories that a name needs are there, and none of them is a link by now.
    fn make_way(&self, name: &str) -> io::Result<()> {
        match self.target {
            Target::File(_) => Ok(()),
            Target::Directory(_) | Target::Whole { .. } => match place::prepare(&self.root, name) {
                Ok(_) => Ok(()),
                Err(Barred::Name(cause)) => Err(io::Error::other(cause)),
                Err(Barred::System(error)) => Err(error),
            },
        }
    }

    /// Somebody else may have renamed a file: what comes next goes to a new one.
    fn notice_rotation_by_others(&mut self) -> io::Result<()> {
        let mut gone = Vec::new();
        for (name, part) in self.parts.iter().filter(|(_, part)| part.is_touched) {
            if part.is_gone()? {
                tracing::info!(path = %part.path.display(), "the file was moved away: beginning a new one");
                gone.push(name.clone());
            }
        }
        if gone.is_empty() {
            return Ok(());
        }
        let mut record = self.record.clone();
        for name in gone {
            self.parts.remove(&name);
            record.files.remove(&name);
        }
        self.ledger.append(&record)?;
        self.record = record;
        Ok(())
    }
}

/// The name that the only file of a path has.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}
