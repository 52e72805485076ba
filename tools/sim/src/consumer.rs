//! The consuming daemon of one stream: takes frames from the bus, and writes what is in them into a destination with its
//! watermark. Does around the real decisions what the daemon does around them.

use std::collections::VecDeque;

use bus_schema::{
    id::StreamId,
    message::{Frame, SourceMark, StreamAck, StreamOpen},
};
use flow::{Delivery, Position, Tally, Watermark};
use stream::{
    frames::{Arrived, Assembly},
    standing::{Place, Reaction, Standing, Taken},
};

use crate::{
    batches,
    setting::{Mistake, Policy},
    world::{Destination, Sealed, Stop, World},
};

/// Batches between reading and writing.
const CHANNEL_BATCHES_MAX: usize = 4;
/// Frames the producer may have on the way.
const WINDOW_FRAMES: u64 = 8;

/// The daemon, while it lives.
#[derive(Debug, Default)]
pub struct Consumer {
    standing: Standing,
    assembly: Assembly,
    /// Whose parts are in it.
    epoch: u64,
    /// The producer's source, as of the last batch that said so.
    mark: Option<SourceMark>,
    /// An acknowledgement to send; `true` asks to go back.
    due: Option<bool>,
    /// The destination was asked where it stands, and the stream goes on from there.
    is_open: bool,
    /// The destination did not answer, and has to be asked again.
    is_unsure: bool,
    /// What was read and not written.
    channel: VecDeque<(Delivery, Place)>,
    /// The runner's count of what was read.
    seq: u64,
    /// Where reading is.
    place: Place,
    /// The destination's seq, as far as it is known.
    confirmed: u64,
}

impl Consumer {
    /// After a reconnect it says where it stands.
    pub fn greet(&mut self) {
        self.due.get_or_insert(false);
    }

    /// All that came is in the destination.
    pub fn is_idle(&self) -> bool {
        self.is_open && self.channel.is_empty() && self.standing.taken() == self.standing.received()
    }

    /// It will ask the destination where it stands before it writes again.
    pub fn is_unsure(&self) -> bool {
        self.is_unsure
    }

    /// The last seq it has.
    pub fn received(&self) -> u64 {
        self.standing.received()
    }

    /// Where it is, for people.
    pub fn describe(&self) -> String {
        let standing = &self.standing;
        format!(
            "is in epoch {}, received {}, durable {}, {}",
            standing.epoch(),
            standing.received(),
            standing.watermark(),
            standing.trouble()
        )
    }
}

fn place_of(mark: &Watermark) -> Place {
    Place::decode(mark.position.as_bytes()).unwrap_or_default()
}

fn total(mark: &Watermark) -> u64 {
    mark.delivered + mark.counts.dead + mark.counts.dropped
}

impl World {
    fn consumer(&mut self, stream: usize) -> Option<&mut Consumer> {
        self.streams[stream].consumer.as_mut()
    }

    /// The producer opens the stream.
    pub fn opened(&mut self, stream: usize, open: &StreamOpen) {
        if !self.streams[stream].is_up {
            return;
        }
        if let Some(consumer) = self.consumer(stream)
            && consumer.standing.open(open) == Reaction::Ack
        {
            consumer.greet();
        }
    }

    /// A frame arrives.
    pub fn frame_arrived(&mut self, stream: usize, sealed: Sealed) {
        let (is_up, now) = (self.streams[stream].is_up, self.now);
        let Some(consumer) = self.consumer(stream).filter(|_| is_up) else {
            return;
        };
        let Some(key) = consumer.standing.key() else {
            if consumer.standing.is_ready() {
                consumer.greet();
            }
            return;
        };
        if *key != sealed.key {
            return;
        }
        match consumer
            .standing
            .frame(sealed.epoch, sealed.seq, sealed.print, sealed.frame, now)
        {
            Reaction::Ack => consumer.greet(),
            Reaction::Rewind => consumer.due = Some(true),
            Reaction::Queued | Reaction::Nothing => {}
        }
    }

    /// An acknowledgement leaves, if one is due.
    pub fn answer(&mut self, stream: usize) {
        let is_up = self.streams[stream].is_up;
        let Some(consumer) = self.consumer(stream).filter(|_| is_up) else {
            return;
        };
        let Some(rewind) = consumer.due.take() else { return };
        let standing = &consumer.standing;
        if !standing.is_ready() {
            return;
        }
        let ack = StreamAck {
            stream: StreamId::from_hash(&[stream as u8; 32]),
            epoch: standing.key().map_or(0, |_| standing.epoch()),
            watermark: standing.watermark(),
            received: standing.received(),
            credit: standing.taken() + WINDOW_FRAMES,
            rewind,
            partial_bytes: 0,
            dead: 0,
            resume: standing.resume_point(),
            trouble: String::new(),
            newest: standing.epoch(),
            print: standing.print(),
            records: standing.records(),
        };
        let (epoch, watermark, received) = (ack.epoch, ack.watermark, ack.received);
        self.streams[stream].acks.push(ack);
        self.say(|| {
            format!("consumer {stream}: epoch {epoch}, durable {watermark}, received {received}, rewind {rewind}")
        });
    }

    /// The daemon does one step; a dead one starts.
    pub fn consumer_turn(&mut self, stream: usize) -> Result<(), String> {
        let Some(consumer) = &self.streams[stream].consumer else {
            self.say(|| format!("the daemon of consumer {stream} starts"));
            self.streams[stream].consumer = Some(Consumer::default());
            return Ok(());
        };
        let (is_open, waiting) = (consumer.is_open, consumer.channel.len());
        let writes = waiting > 0 && (waiting >= CHANNEL_BATCHES_MAX || self.dice.once_in(2));
        let step = if !is_open {
            self.open_destination(stream);
            Ok(())
        } else if writes {
            self.write_group(stream)
        } else {
            self.take(stream)
        };
        match step {
            Ok(()) => Ok(()),
            Err(Stop::Crash) => {
                self.kill_consumer(stream, "in the middle");
                Ok(())
            }
            Err(Stop::Broken(broken)) => Err(broken),
        }
    }

    /// Where the destination stands, and the stream with it.
    fn open_destination(&mut self, stream: usize) {
        let mark = self.streams[stream].destination.mark.clone().unwrap_or_default();
        let place = place_of(&mark);
        self.say(|| {
            format!(
                "consumer {stream} goes on after epoch {}, seq {}",
                place.epoch, place.seq
            )
        });
        if let Some(consumer) = self.consumer(stream) {
            consumer.channel.clear();
            (consumer.seq, consumer.confirmed, consumer.place) = (mark.seq, mark.seq, place);
            (consumer.is_open, consumer.is_unsure) = (true, false);
            consumer.open_source();
        }
    }

    /// The stream fails as a source, and is opened again where reading was.
    pub fn fail_source(&mut self, stream: usize) {
        self.say(|| format!("consumer {stream} fails to read and begins again"));
        if let Some(consumer) = self.consumer(stream).filter(|consumer| consumer.is_open) {
            consumer.standing.pause();
            consumer.open_source();
        }
    }

    /// Makes the next frame into something to write.
    fn take(&mut self, stream: usize) -> Result<(), Stop> {
        let doubles = self.setting.has(Mistake::GapTwice);
        let Some(consumer) = self.consumer(stream) else {
            return Ok(());
        };
        let Some(Taken {
            epoch,
            seq,
            print,
            records,
            dropped,
            frame,
        }) = consumer.standing.take()
        else {
            return Ok(());
        };
        if seq % 2 == 0 {
            consumer.greet();
        }
        if std::mem::replace(&mut consumer.epoch, epoch) != epoch {
            consumer.assembly = Assembly::default();
        }
        let is_gap = matches!(frame, Frame::Gap { .. });
        let mut tally = gap(&frame, doubles);
        let mut failed = false;
        let batch = match consumer.assembly.take(frame) {
            Ok(Some(Arrived { batch, mark })) => {
                consumer.mark = mark.or(consumer.mark.take());
                batch
            }
            Ok(None) if is_gap => batches::batch(&[]),
            Ok(None) => return Ok(()),
            Err(error) => {
                tally.dead += error.records;
                failed = true;
                batches::batch(&[])
            }
        };
        tally.duplicates += consumer.standing.take_duplicates();
        tally.gaps += consumer.standing.take_ended();
        let place = Place {
            epoch,
            seq,
            mark: consumer.mark.clone(),
            print,
            records,
            dropped,
        };
        consumer.seq += 1;
        consumer.place = place.clone();
        let delivery = Delivery {
            stream: StreamId::from_hash(&[stream as u8; 32]),
            seq: consumer.seq,
            position: Position::new(place.encode()),
            batch,
            tally,
            bytes: 0,
        };
        consumer.channel.push_back((delivery, place));
        if failed {
            let lanes = &mut self.streams[stream];
            let dead = lanes.spool.ids_at(seq);
            lanes.oracle.dead.extend(dead);
        }
        Ok(())
    }

    /// Writes what was read, with the watermark, in one transaction.
    fn write_group(&mut self, stream: usize) -> Result<(), Stop> {
        let mark = self.streams[stream].destination.mark.clone().unwrap_or_default();
        let Some(consumer) = self.consumer(stream) else {
            return Ok(());
        };
        // A commit whose answer was lost has been made all the same; anything else is another state of the destination.
        let is_ours =
            |(delivery, _): &(Delivery, Place)| (delivery.seq, &delivery.position) == (mark.seq, &mark.position);
        let has_moved = mark.seq != consumer.confirmed && !consumer.channel.iter().any(is_ours);
        if std::mem::take(&mut consumer.is_unsure) && has_moved {
            self.say(|| format!("destination {stream} is not where it was"));
            if let Some(consumer) = self.consumer(stream) {
                consumer.is_open = false;
                consumer.standing.pause();
            }
            return Ok(());
        }
        let group: Vec<(Delivery, Place)> = consumer.channel.iter().cloned().collect();
        let fresh: Vec<(Delivery, Place)> = group
            .iter()
            .filter(|(delivery, _)| delivery.seq > mark.seq)
            .cloned()
            .collect();
        let Some((last, place)) = group.last().cloned() else {
            return Ok(());
        };
        if self.setting.has(Mistake::AckBeforeCommit) {
            self.confirm(stream, &place);
        }
        self.point("before a destination commits")?;
        let fails = self.is_stormy && self.setting.faults.destination_fails;
        if fails && self.dice.once_in(12) {
            self.say(|| format!("destination {stream} fails before it commits"));
            return self.unsure(stream);
        }
        self.apply(stream, &fresh)?;
        self.point("after a destination has committed")?;
        if fails && self.dice.once_in(12) {
            self.say(|| format!("destination {stream} fails after it has committed"));
            return self.unsure(stream);
        }
        self.say(|| format!("destination {stream} has epoch {} up to seq {}", place.epoch, place.seq));
        if let Some(consumer) = self.consumer(stream) {
            consumer.channel.clear();
            consumer.confirmed = last.seq;
        }
        self.confirm(stream, &place);
        Ok(())
    }

    fn unsure(&mut self, stream: usize) -> Result<(), Stop> {
        if let Some(consumer) = self.consumer(stream) {
            consumer.is_unsure = true;
        }
        Ok(())
    }

    fn confirm(&mut self, stream: usize, place: &Place) {
        if let Some(consumer) = self.consumer(stream) {
            consumer.standing.commit(place.clone());
            consumer.greet();
        }
    }

    fn apply(&mut self, stream: usize, fresh: &[(Delivery, Place)]) -> Result<(), Stop> {
        let apart = self.setting.has(Mistake::MarkApart);
        let produced = self.produced;
        let ids = fresh.iter().flat_map(|(delivery, _)| batches::ids(&delivery.batch));
        for id in ids {
            for other in self.setting.tracks_of(stream).filter(|other| *other != stream) {
                let (here, other) = (&self.streams[stream].oracle, &self.streams[other]);
                here.not_in(&other.oracle, &other.destination.content, id)?;
            }
        }
        let lanes = &mut self.streams[stream];
        let mut next = lanes.destination.clone();
        for (delivery, place) in fresh {
            let ids = batches::ids(&delivery.batch);
            for id in ids {
                lanes.oracle.delivered(&next.content, id, produced)?;
                next.content.push(id);
                lanes.oracle.seen.insert(id);
            }
            let mark = next.mark.clone().unwrap_or_default();
            if place.epoch != next.base.0 {
                next.base = (place.epoch, total(&mark));
            }
            let mark = mark.after(delivery, 0);
            let (counted, expected) = (total(&mark) - next.base.1, lanes.oracle.account(place.epoch, place.seq));
            if lanes.oracle.inexact.is_none() && counted != expected {
                let (epoch, seq) = (place.epoch, place.seq);
                return Err(Stop::Broken(format!(
                    "destination {stream} accounts for {counted} records up to seq {seq} of epoch {epoch}, and there were {expected}"
                )));
            }
            next.mark = Some(mark);
        }
        if apart {
            lanes.destination.content = next.content.clone();
            if self.is_stormy && self.setting.faults.crashes && self.dice.once_in(8) {
                self.kill_consumer(stream, "between the records and their watermark");
                return Err(Stop::Crash);
            }
        }
        self.streams[stream].destination = next;
        Ok(())
    }

    /// The destination is taken back to an older state.
    pub fn restore_destination(&mut self, stream: usize) {
        let lanes = &mut self.streams[stream];
        let count = lanes.older.len() as u64;
        if count == 0 {
            return;
        }
        let older = lanes.older[self.dice.below(count) as usize].clone();
        self.say(|| format!("destination {stream} is taken back: {} records", older.content.len()));
        self.replace_destination(stream, older);
        if self.setting.policy == Policy::DropNewest || !self.setting.replays {
            // What its gap records counted is told by nobody again.
            self.streams[stream].oracle.inexact = Some("a destination was taken back");
        }
    }

    /// The destination is deleted.
    pub fn forget_destination(&mut self, stream: usize) {
        self.say(|| format!("destination {stream} is deleted"));
        self.replace_destination(stream, Destination::default());
        self.streams[stream].older.clear();
        if self.setting.policy == Policy::DropNewest || !self.setting.replays {
            // What its gap records counted is told by nobody again.
            self.streams[stream].oracle.inexact = Some("a destination was deleted");
        }
    }

    fn replace_destination(&mut self, stream: usize, with: Destination) {
        let lanes = &mut self.streams[stream];
        let old = std::mem::replace(&mut lanes.destination, with);
        lanes.oracle.wiped.extend(old.content);
        if let Some(consumer) = &mut lanes.consumer {
            consumer.is_unsure = true;
        }
    }
}

impl Consumer {
    fn open_source(&mut self) {
        self.assembly = Assembly::default();
        self.mark = self.place.mark.clone();
        self.standing.resume(self.place.clone());
        self.greet();
    }
}

/// What a frame says of records that do not come.
fn gap(frame: &Frame, doubles: bool) -> Tally {
    let Frame::Gap {
        dropped, lost, settled, ..
    } = *frame
    else {
        return Tally::default();
    };
    let times = if doubles { 2 } else { 1 };
    Tally {
        dropped: (dropped + lost) * times,
        settled: settled * times,
        gaps: 1,
        ..Tally::default()
    }
}
