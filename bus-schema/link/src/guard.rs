//! The replay window: has this very message been seen before? Pure state, no clock.
//! A sender's epoch goes up at every start and its counter with every message, per lane, so old frames are recognised
//! without trusting anybody's clock. A few epochs of one sender may live side by side: an operator runs several commands
//! at once, and the last words of a daemon that restarts may arrive after its first new ones. Each generation of a sender's
//! keys counts for itself: what a thief of the old ones said does not shut out who holds the new.

use std::collections::HashMap;

use bus_schema::{id::NodeId, limits::REPLAY_WINDOW, subject::Lane};

/// Epochs of one sender that are told apart; messages of older ones are refused.
const EPOCHS_MAX: usize = 4;
const WORDS: usize = (REPLAY_WINDOW / 64) as usize;

/// Why a message is not fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stale {
    /// Seen already, or too far behind to tell.
    #[error("an old message was repeated")]
    Replayed,
    /// From long before the sender's last known start: a replay, or a restored copy of the sender's data directory.
    #[error("the sender's epoch went backwards: a repeated message, or its data directory was copied or restored")]
    OldEpoch,
}

/// The highest message seen of one sender on one lane; what has to survive a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The sender.
    pub sender: NodeId,
    /// The generation of its keys.
    pub key_epoch: u32,
    /// The lane.
    pub lane: Lane,
    /// Its epoch.
    pub epoch: u64,
    /// The highest counter.
    pub counter: u64,
}

#[derive(Debug)]
struct Window {
    epoch: u64,
    highest: u64,
    /// Bit `n` of word 0 upwards: counter `highest - n` was seen.
    bits: [u64; WORDS],
}

impl Window {
    fn new(epoch: u64) -> Self {
        Self {
            epoch,
            highest: 0,
            bits: [0; WORDS],
        }
    }

    fn shift(&mut self, by: u64) {
        if by >= REPLAY_WINDOW {
            self.bits = [0; WORDS];
            return;
        }
        let (words, bits) = ((by / 64) as usize, by % 64);
        for index in (0..WORDS).rev() {
            let low = index.checked_sub(words).map_or(0, |from| self.bits[from]);
            let carried = index.checked_sub(words + 1).map_or(0, |from| self.bits[from]);
            self.bits[index] = if bits == 0 {
                low
            } else {
                low << bits | carried >> (64 - bits)
            };
        }
    }

    fn accept(&mut self, counter: u64) -> Result<(), Stale> {
        if counter > self.highest {
            self.shift(counter - self.highest);
            self.highest = counter;
        }
        let behind = self.highest - counter;
        let (word, bit) = ((behind / 64) as usize, behind % 64);
        let slot = self.bits.get_mut(word).ok_or(Stale::Replayed)?;
        if *slot >> bit & 1 == 1 {
            return Err(Stale::Replayed);
        }
        *slot |= 1 << bit;
        Ok(())
    }
}

/// What has been seen of every sender.
#[derive(Debug, Default)]
pub struct Guard {
    /// Newest epoch first.
    windows: HashMap<(NodeId, u32, Lane), Vec<Window>>,
    changed: bool,
}

impl Guard {
    /// Goes on after a restart: everything up to what had been seen counts as seen.
    pub fn restore(seen: impl IntoIterator<Item = Seen>) -> Self {
        let mut windows: HashMap<_, Vec<Window>> = HashMap::new();
        for seen in seen {
            let window = Window {
                epoch: seen.epoch,
                highest: seen.counter,
                bits: [u64::MAX; WORDS],
            };
            let of_sender = windows.entry((seen.sender, seen.key_epoch, seen.lane)).or_default();
            of_sender.push(window);
            of_sender.sort_by_key(|window| std::cmp::Reverse(window.epoch));
        }
        Self {
            windows,
            changed: false,
        }
    }

    /// Accepts a message once. Call only after its signature, by this generation of keys, has been verified.
    pub fn accept(
        &mut self,
        (sender, key_epoch): (NodeId, u32),
        lane: Lane,
        epoch: u64,
        counter: u64,
    ) -> Result<(), Stale> {
        let windows = self.windows.entry((sender, key_epoch, lane)).or_default();
        let index = windows.partition_point(|window| window.epoch > epoch);
        if windows.get(index).is_none_or(|window| window.epoch != epoch) {
            if index >= EPOCHS_MAX {
                return Err(Stale::OldEpoch);
            }
            windows.insert(index, Window::new(epoch));
            windows.truncate(EPOCHS_MAX);
        }
        let window = windows.get_mut(index).ok_or(Stale::OldEpoch)?;
        window.accept(counter)?;
        self.changed = true;
        Ok(())
    }

    /// Forgets generations of keys that nobody believes any more: `oldest` says of a member which is its oldest good one.
    pub fn forget(&mut self, oldest: impl Fn(&NodeId) -> Option<u32>) {
        self.windows
            .retain(|(sender, key_epoch, _), _| oldest(sender).is_none_or(|oldest| *key_epoch >= oldest));
    }

    /// What to store, if anything was accepted since the last call.
    pub fn changes(&mut self) -> Option<Vec<Seen>> {
        std::mem::take(&mut self.changed).then(|| {
            let each = |(key, windows): (&(NodeId, u32, Lane), &Vec<Window>)| {
                let (sender, key_epoch, lane) = *key;
                let seen = |w: &Window| Seen {
                    sender,
                    key_epoch,
                    lane,
                    epoch: w.epoch,
                    counter: w.highest,
                };
                windows.iter().map(seen).collect::<Vec<_>>()
            };
            self.windows.iter().flat_map(each).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn node() -> (NodeId, u32) {
        (NodeId::from_hash(&[1; 32]), 1)
    }

    #[test]
    fn each_message_once_whatever_the_order() {
        let mut guard = Guard::default();
        for (epoch, counter, expected) in [
            (5, 1, Ok(())),
            (5, 1, Err(Stale::Replayed)),
            (5, 3, Ok(())),
            (5, 2, Ok(())),
            (5, 2, Err(Stale::Replayed)),
            (5, 3000, Ok(())),
            (5, 3000 - 1023, Ok(())),
            (5, 3000 - 1024, Err(Stale::Replayed)),
            (6, 1, Ok(())),
            (5, 3001, Ok(())),
            (5, 3001, Err(Stale::Replayed)),
            (9, 1, Ok(())),
            (8, 1, Ok(())),
            (10, 1, Ok(())),
            (5, 3002, Err(Stale::OldEpoch)),
            (6, 1, Err(Stale::Replayed)),
        ] {
            assert_eq!(
                guard.accept(node(), Lane::Control, epoch, counter),
                expected,
                "{epoch}/{counter}"
            );
        }
        assert_eq!(
            guard.accept(node(), Lane::Ack, 5, 1),
            Ok(()),
            "lanes count for themselves"
        );
    }

    #[test]
    fn a_restart_forgets_nothing() {
        let mut guard = Guard::default();
        guard.accept(node(), Lane::Control, 7, 10).unwrap();
        let seen = guard.changes().unwrap();
        assert_eq!(guard.changes(), None);
        let mut again = Guard::restore(seen);
        assert_eq!(again.accept(node(), Lane::Control, 7, 10), Err(Stale::Replayed));
        assert_eq!(again.accept(node(), Lane::Control, 7, 9), Err(Stale::Replayed));
        assert_eq!(again.accept(node(), Lane::Control, 7, 11), Ok(()));
    }

    #[test]
    fn generations_of_keys_count_for_themselves() {
        let (sender, old) = node();
        let mut guard = Guard::default();
        let mut accept = |key_epoch, epoch, counter| guard.accept((sender, key_epoch), Lane::Control, epoch, counter);
        // Who holds a copy of the old keys uses up all epochs of theirs.
        for epoch in u64::MAX - 3..=u64::MAX {
            assert_eq!(accept(old, epoch, u64::MAX), Ok(()));
        }
        assert_eq!(accept(old, 9, 1), Err(Stale::OldEpoch));
        assert_eq!(accept(old + 1, 9, 1), Ok(()));
        assert_eq!(accept(old + 1, 9, 1), Err(Stale::Replayed));

        guard.forget(|node| (*node == sender).then_some(old + 1));
        let seen = guard.changes().unwrap();
        assert!(seen.iter().all(|seen| seen.key_epoch == old + 1), "{seen:?}");
        let mut again = Guard::restore(seen);
        let repeated = again.accept((sender, old + 1), Lane::Control, 9, 1);
        assert_eq!(repeated, Err(Stale::Replayed));
        guard.forget(|_| None);
        let repeated = guard.accept((sender, old + 1), Lane::Control, 9, 1);
        assert_eq!(
            repeated,
            Err(Stale::Replayed),
            "of whom nothing is known nothing is forgotten"
        );
    }

    proptest! {
        #[test]
        fn agrees_with_a_set(counters in proptest::collection::vec(1u64..3000, 1..400)) {
            let mut guard = Guard::default();
            let (mut seen, mut highest) = (HashSet::new(), 0);
            for counter in counters {
                highest = highest.max(counter);
                let fresh = highest - counter < REPLAY_WINDOW && seen.insert(counter);
                prop_assert_eq!(guard.accept(node(), Lane::Control, 1, counter).is_ok(), fresh);
            }
        }
    }
}
