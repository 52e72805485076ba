//! What happens to a producer's files while nobody looks: lost, replaced by an older copy, damaged.

use crate::{setting::Policy, world::World};

impl World {
    /// Several streams of one source read again what one of them lost: later batches then have earlier places, and the lowest
    /// batch is no longer the earliest place. When another loss takes a stream back to a batch from before that, nobody knows
    /// which of two places is the earlier one.
    pub fn excuse_second_loss(&mut self) {
        if self.has_jumped {
            self.streams.iter_mut().for_each(|lanes| lanes.oracle.is_excused = true);
        }
    }

    /// The spool is lost, or the key to it, or both.
    pub fn lose_spool(&mut self, stream: usize) {
        self.kill_producer("its files are lost");
        let (spool, lineage) = match self.dice.below(3) {
            0 => (true, false),
            1 => (false, true),
            _ => (true, true),
        };
        self.say(|| format!("of stream {stream} are lost: its buffer: {spool}, its key: {lineage}"));
        self.excuse_second_loss();
        let capacity = self.setting.capacity_frames;
        let faults = self.setting.faults;
        let is_alone = self.streams.len() == 1;
        let lanes = &mut self.streams[stream];
        // One of several of which there is no trace is taken for a new one, and begins where its siblings are, unless its
        // consumer knows better.
        let is_traceless = (spool || lanes.spool.is_new()) && (lineage || lanes.lineage.is_none());
        let is_known = lanes.destination.mark.is_some() && !faults.destination_forgets && !faults.destination_restored;
        let comes_again = self.setting.replays && (is_alone || !is_traceless || is_known);
        if !comes_again {
            // What it had still to send is nowhere else.
            let owed = lanes
                .oracle
                .accepted
                .iter()
                .chain(lanes.spool.held().flat_map(|entry| &entry.ids));
            let owed: Vec<u64> = owed.filter(|id| !lanes.oracle.seen.contains(id)).copied().collect();
            lanes.oracle.lost.extend(owed);
        }
        if spool {
            lanes.spool = crate::spool::Spool::new(capacity);
        }
        if lineage {
            lanes.lineage = None;
        }
    }

    /// The producer's files are replaced by an older copy.
    pub fn restore_spools(&mut self) {
        let count = self.copies.len() as u64;
        // Of several streams of one source some may have sent the last batch and not yet have written down that they did:
        // a copy that is a little older cannot know.
        if count == 0 || self.streams.len() > 1 {
            return;
        }
        self.kill_producer("its files are replaced");
        let chosen = self.copies[self.dice.below(count) as usize].clone();
        // Those of the other history are of no use to this one.
        self.copies.clear();
        let comes_again = self.setting.replays && self.streams.len() == 1;
        for (lanes, (spool, lineage)) in self.streams.iter_mut().zip(chosen) {
            if !comes_again {
                lanes
                    .oracle
                    .lost
                    .extend(lanes.spool.held().flat_map(|entry| entry.ids.iter().copied()));
            }
            (lanes.spool, lanes.lineage) = (spool, lineage);
            // What a broker still has of the other history would pass for this one's.
            lanes.frames.reconnect(false);
            lanes.acks.reconnect(false);
            // Two histories of one epoch: which of them a seq belongs to, only the records themselves tell.
            lanes.oracle.inexact = Some("an older copy of a buffer was put back");
        }
        self.say(|| "an older copy of the buffers is put back".to_string());
    }

    /// A part of the spool becomes unreadable.
    pub fn damage_spool(&mut self, stream: usize) {
        self.kill_producer("its disk fails");
        let tail = self.dice.once_in(2);
        if tail {
            self.excuse_second_loss();
        }
        let replays = self.setting.replays;
        let lanes = &mut self.streams[stream];
        let gone = if tail {
            lanes.spool.damage_tail(&mut self.dice)
        } else {
            lanes.spool.damage_middle(&mut self.dice)
        };
        self.say(|| {
            format!(
                "buffer {stream} is damaged at its {}: {gone:?} are lost",
                if tail { "end" } else { "middle" }
            )
        });
        let lanes = &mut self.streams[stream];
        lanes.is_damaged = true;
        if tail || !replays || self.setting.policy == Policy::DropNewest {
            // Some of the end may have been delivered and not be known any more; a gap record of what was given up may be
            // among it.
            lanes.oracle.inexact = Some("damage");
        }
        if !(tail && replays) {
            lanes.oracle.lost.extend(gone);
        }
    }
}
