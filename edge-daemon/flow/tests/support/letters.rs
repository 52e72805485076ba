//! Dead letters as they should be kept: a model of the daemon's store.

use std::collections::BTreeMap;

use async_trait::async_trait;
use flow::{DeadLetter, DeadLetters, Due, Fault, LetterKey, Replay, Stand};

use super::{Luck, World, lost};

/// Letters a caller gets at once.
const HELPING: usize = 3;

#[derive(Default)]
pub struct Letters {
    pub kept: BTreeMap<u64, Kept>,
    next: u64,
    number: u64,
    wishes: u64,
    pub refused: BTreeMap<u64, String>,
}

#[derive(Clone, Debug)]
pub struct Kept {
    pub letter: DeadLetter,
    key: Option<LetterKey>,
    /// Its record may have been read again since.
    pub doubtful: bool,
    queued: bool,
    number: Option<u64>,
}

impl Letters {
    fn begin(&mut self, root: &str, seq: u64, rereads: bool) {
        for kept in self.kept.values_mut() {
            if kept.key.as_ref().is_some_and(|key| key.root == root && key.seq > seq) {
                kept.key = None;
                kept.doubtful = rereads;
                kept.number = None;
            }
        }
    }

    fn put(&mut self, letter: DeadLetter) {
        if self.kept.values().any(|kept| kept.key.as_ref() == Some(&letter.key)) {
            return;
        }
        let former = self.kept.values_mut().find(|kept| {
            let (a, b) = (&kept.letter, &letter);
            kept.doubtful && a.key.path == b.key.path && a.record == b.record
        });
        if let Some(former) = former {
            former.doubtful = false;
            former.key = Some(letter.key.clone());
            self.wishes += u64::from(former.queued);
            return;
        }
        self.next += 1;
        let key = Some(letter.key.clone());
        let (doubtful, queued, number) = (false, false, None);
        self.kept.insert(
            self.next,
            Kept {
                letter,
                key,
                doubtful,
                queued,
                number,
            },
        );
    }

    /// Wishes that these are tried again.
    pub fn queue(&mut self, choose: impl Fn(u64) -> bool) {
        for (id, kept) in &mut self.kept {
            kept.queued |= !kept.doubtful && choose(*id);
        }
        self.wishes += 1;
    }

    fn replays(&mut self, root: &str, stand: Stand) -> Due {
        self.number = self.number.max(stand.floor);
        let mut due = Due::default();
        for (id, kept) in &mut self.kept {
            if !kept.queued || kept.doubtful || kept.letter.key.root != root {
                continue;
            }
            if kept.key.as_ref().is_some_and(|key| key.seq > stand.committed) {
                due.has_later = true;
                continue;
            }
            let number = *kept.number.get_or_insert_with(|| {
                self.number += 1;
                self.number
            });
            if number > stand.after {
                let DeadLetter {
                    key,
                    point,
                    node,
                    replays,
                    record,
                    ..
                } = kept.letter.clone();
                due.replays.push(Replay {
                    id: *id,
                    number,
                    path: key.path,
                    point,
                    node,
                    replays,
                    record,
                });
            }
        }
        due.replays.sort_by_key(|replay| replay.number);
        due.replays.truncate(HELPING);
        due
    }
}

impl World {
    /// Does it, fails before, or loses the answer.
    async fn letters<T>(&self, work: impl FnOnce(&mut Letters) -> T) -> Result<T, Fault> {
        self.take_time().await;
        let luck = self.luck();
        if matches!(luck, Luck::Before) {
            return Err(lost("dead letters"));
        }
        let done = work(&mut self.lock().letters);
        if matches!(luck, Luck::After) {
            Err(lost("dead letters"))
        } else {
            Ok(done)
        }
    }
}

#[async_trait]
impl DeadLetters for World {
    async fn begin(&self, root: &str, seq: u64, rereads: bool) -> Result<(), Fault> {
        self.letters(|letters| letters.begin(root, seq, rereads)).await
    }

    async fn put(&self, all: Vec<DeadLetter>) -> Result<(), Fault> {
        assert!(!all.is_empty());
        self.letters(|letters| all.into_iter().for_each(|letter| letters.put(letter)))
            .await
    }

    async fn take_back(&self, keys: Vec<LetterKey>) -> Result<(), Fault> {
        self.letters(|letters| {
            letters
                .kept
                .retain(|_, kept| kept.key.as_ref().is_none_or(|key| !keys.contains(key)))
        })
        .await
    }

    fn wishes(&self) -> u64 {
        self.lock().letters.wishes
    }

    async fn replays(&self, root: &str, stand: Stand) -> Result<Due, Fault> {
        self.letters(|letters| letters.replays(root, stand)).await
    }

    async fn settled(&self, ids: Vec<u64>) -> Result<(), Fault> {
        assert!(!ids.is_empty());
        self.letters(|letters| letters.kept.retain(|id, _| !ids.contains(id)))
            .await
    }

    async fn refuse(&self, id: u64, reason: String) -> Result<(), Fault> {
        self.letters(|letters| {
            if let Some(kept) = letters.kept.get_mut(&id) {
                kept.queued = false;
                kept.number = None;
                letters.refused.insert(id, reason);
            }
        })
        .await
    }
}
