//! What happens to a producer's files while nobody looks: lost, replaced by an older copy, damaged.

use crate::{setting::Policy, world::World};

impl World {
    /// The spool is lost, or the key to it, or both.
    pub fn lose_spool(&mut self, stream: usize) {
        self.kill_producer("its files are lost");
        let (spool, lineage) = match self.dice.below(3) {
            0 => (true, false),
            1 => (false, true),
            _ => (true, true),
        };
        self.say(|| format!("of stream {stream} are lost: its buffer: {spool}, its key: {lineage}"));
        let capacity = self.setting.capacity_frames;
        let is_alone = self.streams.len() == 1;
        let comes_again = self.setting.replays && is_alone;
        let lanes = &mut self.streams[stream];
        if !comes_again {
            let held: Vec<u64> = lanes.spool.held().flat_map(|entry| entry.ids.iter().copied()).collect();
            lanes.oracle.lost.extend(held);
        }
        if spool {
            lanes.spool = crate::spool::Spool::new(capacity);
        }
        if lineage {
            lanes.lineage = None;
        }
    }

    /// The spool and its key are replaced by an older copy.
    pub fn restore_spool(&mut self, stream: usize) {
        let copies = self.streams[stream].copies.len() as u64;
        if copies == 0 {
            return;
        }
        self.kill_producer("its files are replaced");
        let chosen = self.dice.below(copies) as usize;
        let comes_again = self.setting.replays && self.streams.len() == 1;
        let lanes = &mut self.streams[stream];
        let (spool, lineage) = lanes.copies[chosen].clone();
        if !comes_again {
            lanes.oracle.lost.extend(lanes.spool.held().flat_map(|entry| entry.ids.iter().copied()));
        }
        (lanes.spool, lanes.lineage) = (spool, lineage);
        let epoch = lanes.lineage.as_ref().map_or(0, |lineage| lineage.epoch);
        lanes.oracle.truncated(epoch, lanes.spool.next_seq());
        self.say(|| format!("an older copy of buffer {stream} is put back"));
    }

    /// A part of the spool becomes unreadable.
    pub fn damage_spool(&mut self, stream: usize) {
        self.kill_producer("its disk fails");
        let tail = self.dice.once_in(2);
        let replays = self.setting.replays;
        let lanes = &mut self.streams[stream];
        let gone = if tail {
            lanes.spool.damage_tail(&mut self.dice)
        } else {
            lanes.spool.damage_middle(&mut self.dice)
        };
        self.say(|| format!("buffer {stream} is damaged at its {}: {gone:?} are lost", if tail { "end" } else { "middle" }));
        let lanes = &mut self.streams[stream];
        if self.setting.policy == Policy::DropNewest {
            // A gap record of what was given up may be among it.
            lanes.oracle.inexact = Some("damage");
        }
        if !(tail && replays) {
            lanes.oracle.lost.extend(gone);
        }
    }
}
