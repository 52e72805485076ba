//! How many letters are kept: counted now and then, where a store has changed, and told to the plane. Holds up nobody who writes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::Metadata,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use bus_schema::{carried::WorkflowLetters, id::WorkflowId};

use super::{Letters, store};

/// In each so many of the times at which it could be, all is told: for a plane that has not heard it.
const TOLD_ANYWAY: u32 = 6;
/// A file that was written less long ago may be written once more without a sign of it: clocks of file systems are coarse.
const SETTLED_AFTER: Duration = Duration::from_secs(3);

/// What was counted last, by the name of the workflow.
#[derive(Debug, Default)]
pub(super) struct Counts(Mutex<BTreeMap<String, Counted>>);

#[derive(Debug)]
struct Counted {
    kept: u64,
    /// The state of the file that was counted; `None`: count it again.
    of: Option<State>,
}

#[derive(Debug, PartialEq)]
enum State {
    NoFile,
    /// Its bytes, and when it was written. SQLite opens it anew for the count: a descriptor of ours would end the locks of others.
    File(u64, SystemTime),
}

impl Counts {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Counted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn state_of(path: &Path) -> std::io::Result<State> {
    match path
        .metadata()
        .and_then(|file: Metadata| Ok(State::File(file.len(), file.modified()?)))
    {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(State::NoFile),
        state => state,
    }
}

impl State {
    fn is_settled(&self) -> bool {
        match self {
            Self::NoFile => true,
            // A clock that was set back: it is counted again until the file is of the past.
            Self::File(_, written) => written.elapsed().is_ok_and(|since| since >= SETTLED_AFTER),
        }
    }
}

impl Letters {
    /// Counts the letters of all workflows that have a store or have run here, where something may have changed: by this process
    /// or another. How many were counted. Blocks.
    pub fn count(&self) -> usize {
        let mut names: BTreeSet<String> = match self.workflows() {
            Ok(names) => names.into_iter().collect(),
            Err(error) => {
                tracing::debug!(%error, "the dead letters were not counted");
                return 0;
            }
        };
        names.extend(self.boxes().keys().cloned());
        self.shared.counts.lock().retain(|name, _| names.contains(name));
        names.into_iter().filter(|name| self.count_one(name)).count()
    }

    fn count_one(&self, name: &str) -> bool {
        let path = self.path(name);
        let before = match state_of(&path) {
            Ok(state) => state,
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "dead letters were not counted");
                return false;
            }
        };
        let counts = || self.shared.counts.lock();
        if counts()
            .get(name)
            .is_some_and(|counted| counted.of.as_ref() == Some(&before))
        {
            return false;
        }
        let counted = match before {
            State::NoFile => Ok(0),
            State::File(..) => store::count(&path),
        };
        match counted {
            Ok(kept) => {
                let of = before.is_settled().then_some(before);
                counts().insert(name.to_string(), Counted { kept, of });
                true
            }
            // Whoever depends on them says so, too.
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "dead letters were not counted");
                false
            }
        }
    }

    /// How many letters of each workflow were kept when they were counted last.
    pub fn kept(&self) -> Vec<WorkflowLetters> {
        let counts = self.shared.counts.lock();
        let kept = counts.iter().map(|(name, counted)| WorkflowLetters {
            workflow: WorkflowId::of_name(name),
            kept: counted.kept,
        });
        kept.collect()
    }

    /// Whether any workflow has a store: then there are letters, or there were.
    pub fn has_stores(&self) -> bool {
        let counts = self.shared.counts.lock();
        counts.values().any(|counted| counted.of != Some(State::NoFile))
    }
}

/// What the plane was told, since this process began.
#[derive(Debug, Default)]
pub struct ToldKept(Mutex<Memory>);

#[derive(Debug)]
struct Memory {
    kept: BTreeMap<WorkflowId, u64>,
    /// How often it was not all that was told, since it was.
    since_all: u32,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            kept: BTreeMap::new(),
            since_all: TOLD_ANYWAY,
        }
    }
}

/// What is to be told now.
#[derive(Debug, PartialEq)]
pub struct News {
    /// By workflow.
    pub workflows: Vec<WorkflowLetters>,
    is_all: bool,
}

impl ToldKept {
    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has changed since it was told; or all of it, once in a while, if that `is_worth` it. Of what was never told, none is
    /// no news.
    pub fn news(&self, kept: &[WorkflowLetters], is_worth: bool) -> News {
        let memory = self.lock();
        let told = |workflow| memory.kept.get(workflow).copied().unwrap_or(0);
        let is_all = is_worth && memory.since_all + 1 >= TOLD_ANYWAY;
        let changed = kept.iter().filter(|one| is_all || told(&one.workflow) != one.kept);
        let is_gone = |workflow: &WorkflowId| kept.iter().all(|one| one.workflow != *workflow);
        let gone = memory
            .kept
            .iter()
            .filter(|(workflow, told)| **told > 0 && is_gone(workflow));
        let gone = gone.map(|(workflow, _)| WorkflowLetters {
            workflow: *workflow,
            kept: 0,
        });
        News {
            workflows: changed.copied().chain(gone).collect(),
            is_all,
        }
    }

    /// These were sent.
    pub fn sent(&self, workflows: &[WorkflowLetters]) {
        let sent = workflows.iter().map(|one| (one.workflow, one.kept));
        self.lock().kept.extend(sent);
    }

    /// That was the last of it; `is_sent`: all of it was.
    pub fn done(&self, news: &News, is_sent: bool) {
        let memory = &mut *self.lock();
        memory.since_all = match news.is_all && is_sent && !news.workflows.is_empty() {
            true => 0,
            false => memory.since_all.saturating_add(1).min(TOLD_ANYWAY),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, sync::Arc, time::Instant};

    use flow::{DeadLetter, LetterKey, LetterPoint};

    use super::{
        super::{LetterBox, store::Filter},
        *,
    };

    fn letters(dir: &Path) -> Letters {
        Letters::new(dir, 1024 * 1024, 7, Instant::now())
    }

    fn put(own: &Arc<LetterBox>, seqs: &[u64]) {
        let letter = |seq: &u64| DeadLetter {
            key: LetterKey {
                root: "source".into(),
                path: "source->sieve".into(),
                seq: *seq,
                row: 0,
            },
            point: LetterPoint::Transform,
            node: "sieve".into(),
            reason: "it does not fit".into(),
            replays: 0,
            record: b"a".to_vec(),
        };
        let all: Vec<DeadLetter> = seqs.iter().map(letter).collect();
        let stamp = own.stamp();
        own.with(|store| store.put(&all, stamp)).unwrap();
    }

    fn of(name: &str, kept: u64) -> WorkflowLetters {
        WorkflowLetters {
            workflow: WorkflowId::of_name(name),
            kept,
        }
    }

    /// As if it had been written a while ago.
    fn settle(letters: &Letters, name: &str) {
        let file = File::options().write(true).open(letters.path(name)).unwrap();
        file.set_modified(SystemTime::now() - 2 * SETTLED_AFTER).unwrap();
    }

    #[test]
    fn letters_are_counted_whoever_has_left_them_and_only_if_something_changed() {
        let dir = tempfile::tempdir().unwrap();
        let before = letters(dir.path());
        put(&before.of("w"), &[1, 2, 3]);
        put(&before.of("x"), &[1]);
        drop(before);
        // After a restart: nobody has opened them.
        let own = letters(dir.path());
        assert_eq!((own.kept(), own.has_stores()), (Vec::new(), false), "not counted yet");
        assert_eq!(own.count(), 2);
        assert_eq!(own.kept(), [of("w", 3), of("x", 1)]);
        assert!(own.has_stores());
        assert_eq!(own.count(), 2, "they were written just now");
        settle(&own, "w");
        settle(&own, "x");
        assert_eq!((own.count(), own.count()), (2, 0));
        // Another process discards some.
        let purged = letters(dir.path()).of("w").with(|store| {
            store.purge(&Filter {
                ids: vec![1, 2],
                ..Filter::default()
            })
        });
        assert_eq!(purged.unwrap(), 2);
        // Whoever writes meanwhile is not waited for, nor waits.
        let writer = own.of("w");
        let writing = writer.lock();
        assert_eq!(own.count(), 1);
        drop(writing);
        assert_eq!(own.kept(), [of("w", 1), of("x", 1)]);
        put(&own.of("w"), &[4]);
        own.of("runs");
        own.count();
        assert_eq!(own.kept(), [of("runs", 0), of("w", 2), of("x", 1)]);
        std::fs::remove_file(own.path("x")).unwrap();
        own.count();
        assert_eq!(own.kept(), [of("runs", 0), of("w", 2)]);
        // What cannot be counted is what it was, and is tried again.
        std::fs::write(own.path("w"), "no database").unwrap();
        own.count();
        assert_eq!(own.kept(), [of("runs", 0), of("w", 2)]);
    }

    #[test]
    fn what_has_changed_is_told_until_it_is_sent_and_all_of_it_now_and_then() {
        let told = ToldKept::default();
        // What is kept, whether all is worth a word, whether it can be sent, and what is told.
        let tell = |kept: &[WorkflowLetters], is_worth: bool, is_sent: bool, wanted: &[WorkflowLetters]| {
            let news = told.news(kept, is_worth);
            assert_eq!(news.workflows, wanted, "{kept:?}");
            if is_sent {
                told.sent(&news.workflows);
            }
            told.done(&news, is_sent);
        };
        let (five, none) = (of("w", 5), of("w", 0));
        tell(&[], false, true, &[]);
        tell(&[none], false, true, &[]);
        // All of it, once it is worth it: also that there are none.
        let both = [five, of("x", 0)];
        tell(&both, true, false, &both);
        tell(&both, true, true, &both);
        for _ in 0..TOLD_ANYWAY - 1 {
            tell(&both, true, true, &[]);
        }
        tell(&both, true, true, &both);
        // Discarded: told until it is sent, and once.
        let neither = [none, of("x", 0)];
        tell(&neither, true, false, &[none]);
        tell(&neither, true, true, &[none]);
        tell(&neither, false, true, &[]);
        // Gone with its file.
        tell(&[five], false, true, &[five]);
        tell(&[], false, false, &[none]);
        tell(&[], false, true, &[none]);
        tell(&[], false, true, &[]);
    }
}
