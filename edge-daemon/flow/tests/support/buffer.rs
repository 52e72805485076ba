//! The sink that stands for a spool.

use async_trait::async_trait;
use flow::{Delivery, Fault, Position, Rejected, Sink, Watermark};

use super::*;

/// Writes are durable at once and go out after the commit; can go back. More forgetful about marks without records than a
/// real spool: of those in one call only the last is kept.
pub struct Buffer {
    pub world: World,
    pub name: &'static str,
    rejects: i64,
    released_mark: u64,
}

impl Buffer {
    pub fn new(world: &World, name: &'static str) -> Self {
        let mut state = world.lock();
        let disk = state.sinks.entry(name.to_string()).or_default();
        let released_mark = disk.groups.last().map_or(0, |group| group.gone_out);
        Self {
            world: world.clone(),
            name,
            rejects: i64::MAX,
            released_mark,
        }
    }

    /// What a spool rejects it rejects all its life: mending it takes a new one.
    pub fn rejecting(mut self, multiples_of: i64) -> Self {
        self.rejects = self.world.rejects(multiples_of);
        self
    }

    fn release(&mut self) {
        let mut state = self.world.lock();
        let disk = state.sinks.get_mut(self.name).unwrap();
        for (number, n) in disk.flat().into_iter().enumerate() {
            let before = disk.sent.insert(number, n);
            assert!(
                before.is_none_or(|before| before == n),
                "{}: frame {number} was {before:?}, is {n}",
                self.name
            );
        }
        self.released_mark = disk.spool_seq();
    }
}

#[async_trait]
impl Sink for Buffer {
    async fn open(&mut self) -> Result<(), Fault> {
        self.world.take_time().await;
        Ok(())
    }

    fn keeps_watermark(&self) -> bool {
        true
    }

    async fn watermark(&mut self, _: &StreamId) -> Result<Option<Watermark>, Fault> {
        self.world.take_time().await;
        if !matches!(self.world.luck(), Luck::Good) {
            return Err(lost("watermark"));
        }
        Ok(self.world.lock().sinks[self.name]
            .groups
            .last()
            .map(|group| group.mark.clone()))
    }

    fn refuses(&self, deliveries: &[Delivery]) -> Vec<Rejected> {
        rejected(self.rejects, deliveries).0
    }

    async fn gone_out(&mut self, _: &StreamId) -> Result<u64, Fault> {
        Ok(self.world.lock().sinks[self.name]
            .groups
            .last()
            .map_or(0, |group| group.gone_out))
    }

    async fn write(&mut self, deliveries: &[Delivery]) -> Result<Vec<Rejected>, Fault> {
        self.world.take_time().await;
        let luck = self.world.luck();
        if matches!(luck, Luck::Before) {
            return Err(lost("append"));
        }
        let (refused, taken) = rejected(self.rejects, deliveries);
        let mut mark = self.world.lock().sinks[self.name]
            .groups
            .last()
            .map(|g| g.mark.clone())
            .unwrap_or_default();
        let mut parts = Vec::new();
        for (index, delivery) in deliveries.iter().enumerate() {
            assert!(delivery.seq > mark.seq, "{}: marks must rise", self.name);
            let lost = refused.iter().filter(|r| r.delivery == index).count() as u64;
            mark = mark.after(delivery, lost);
            parts.extend(&taken[index]);
            if delivery.position.is_part() {
                assert!(
                    index + 1 < deliveries.len(),
                    "{}: the rest of the read follows",
                    self.name
                );
                continue;
            }
            if parts.is_empty() && index + 1 < deliveries.len() {
                continue;
            }
            let group = Group {
                mark: mark.clone(),
                gone_out: self.released_mark,
                records: std::mem::take(&mut parts),
            };
            self.world.lock().sinks.get_mut(self.name).unwrap().groups.push(group);
            // A crash here leaves the first groups.
            self.world.take_time().await;
        }
        // A spool that says no has nothing of it, apart from its last word being lost.
        if matches!(luck, Luck::After) && refused.is_empty() {
            Err(lost("append"))
        } else {
            Ok(refused)
        }
    }

    async fn commit(&mut self) -> Result<(), Fault> {
        self.release();
        Ok(())
    }

    async fn rewind(&mut self, _: &StreamId, seq: u64) -> Result<(), Fault> {
        self.world.take_time().await;
        let luck = self.world.luck();
        if matches!(luck, Luck::Before) {
            return Err(lost("rewind"));
        }
        let mut state = self.world.lock();
        state
            .sinks
            .get_mut(self.name)
            .unwrap()
            .groups
            .retain(|group| group.mark.seq <= seq);
        if matches!(luck, Luck::After) {
            Err(lost("rewind"))
        } else {
            Ok(())
        }
    }

    fn recovered(&mut self) {
        self.release();
    }
}
