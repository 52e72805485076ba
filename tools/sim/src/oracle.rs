//! Knows what was produced and what became of it, looks into the destination, and accuses. Takes part in nothing.

use std::collections::{BTreeMap, BTreeSet};

/// What is known of one stream.
#[derive(Debug, Default)]
pub struct Oracle {
    /// Records that the pipe has made durable at all its leaves: they must arrive.
    pub accepted: BTreeSet<u64>,
    /// Records given up by policy.
    pub dropped: BTreeSet<u64>,
    /// Records that damage or the loss of a spool took.
    pub lost: BTreeSet<u64>,
    /// Records that were in the destination before it was deleted or taken back.
    pub wiped: BTreeSet<u64>,
    /// Records that were durable in the destination once.
    pub seen: BTreeSet<u64>,
    /// Records that the consumer put among the dead letters.
    pub dead: BTreeSet<u64>,
    /// Records above this one may come again, and do: a part of a source's pipe lost what it had confirmed.
    pub again_above: Option<u64>,
    /// Records each epoch accounts for, up to and including a seq.
    pub accounts: BTreeMap<u64, BTreeMap<u64, u64>>,
    /// Something happened that the protocol cannot notice.
    pub is_excused: bool,
    /// What is counted cannot be exact any more, and why.
    pub inexact: Option<&'static str>,
}

impl Oracle {
    /// What an epoch accounts for up to `seq`.
    pub fn account(&self, epoch: u64, seq: u64) -> u64 {
        let account = self.accounts.get(&epoch);
        account
            .and_then(|account| account.range(..=seq).next_back())
            .map_or(0, |(_, sum)| *sum)
    }

    /// A frame was appended that accounts for so many records.
    pub fn appended(&mut self, epoch: u64, seq: u64, records: u64) {
        let sum = self.account(epoch, seq - 1) + records;
        self.accounts.entry(epoch).or_default().insert(seq, sum);
    }

    /// Frames above `seq` were taken back.
    pub fn truncated(&mut self, epoch: u64, next_seq: u64) {
        if let Some(account) = self.accounts.get_mut(&epoch) {
            account.retain(|seq, _| *seq < next_seq);
        }
    }

    /// Records may come again from here on.
    pub fn may_repeat_above(&mut self, id: u64) {
        self.again_above = Some(self.again_above.map_or(id, |above| above.min(id)));
    }

    /// A record reaches the destination, after what is there.
    pub fn delivered(&mut self, content: &[u64], id: u64, produced: u64) -> Result<(), String> {
        if id == 0 || id > produced {
            return Err(format!("record {id} was never produced"));
        }
        if !self.may_repeat(id)
            && let Some(last) = content.last().filter(|last| id <= **last)
        {
            let what = if content.contains(&id) {
                "came twice"
            } else {
                "came out of order"
            };
            return Err(format!("record {id} {what}, after record {last}"));
        }
        Ok(())
    }

    /// Frames with these records are deleted at the producer.
    pub fn deleted(&self, ids: &[u64]) -> Result<(), String> {
        let told = [&self.seen, &self.dead, &self.dropped, &self.lost];
        let is_unknown = |id: &&u64| !self.is_excused && !told.iter().any(|set| set.contains(id));
        match ids.iter().find(is_unknown) {
            Some(id) => Err(format!(
                "record {id} was deleted from the spool, and the destination never had it"
            )),
            None => Ok(()),
        }
    }

    /// A record reaches the destination by one track: is it there by the other?
    pub fn not_in(&self, other: &Self, content: &[u64], id: u64) -> Result<(), String> {
        if self.may_repeat(id) || other.may_repeat(id) || !content.contains(&id) {
            return Ok(());
        }
        Err(format!("record {id} came by both tracks"))
    }

    fn may_repeat(&self, id: u64) -> bool {
        self.is_excused || self.again_above.is_some_and(|above| id > above)
    }
}

/// Everything has arrived that ever will, by whichever of a destination's tracks.
pub fn settled(tracks: &[(&Oracle, &[u64])]) -> Result<(), String> {
    let there: BTreeSet<u64> = tracks.iter().flat_map(|(_, content)| content.iter().copied()).collect();
    let explained = |id: &u64| {
        let by = |(oracle, _): &(&Oracle, &[u64])| {
            oracle.is_excused
                || [&oracle.dropped, &oracle.lost, &oracle.wiped, &oracle.dead]
                    .iter()
                    .any(|set| set.contains(id))
        };
        there.contains(id) || tracks.iter().any(by)
    };
    let accepted = tracks.iter().flat_map(|(oracle, _)| &oracle.accepted);
    match accepted.into_iter().find(|id| !explained(id)) {
        Some(id) => Err(format!("record {id} is lost")),
        None => Ok(()),
    }
}
