//! What goes out of a stream: hears what the consumer says, sends what has been released, says what will never come, begins
//! anew when it must. Does what the daemon's courier does.

use bus_schema::{
    id::StreamId,
    message::{Frame, StreamAck, StreamOpen},
};
use stream::{
    flight::{Action, Heard},
    lineage::next_epoch,
};

use crate::{
    dice::Dice,
    producer::{Lineage, owed_gap},
    setting::Mistake,
    spool::{Group, Missing},
    tracks::BACKLOG_FRAMES_MIN,
    world::{Sealed, Stop, World},
};

/// Frames sent at a time.
const SEND_FRAMES_MAX: usize = 4;

/// Says that the frames from `first_seq` on will never come.
fn gap(first_seq: u64, missing: Missing) -> Frame {
    Frame::Gap {
        first_seq,
        dropped: missing.dropped,
        lost: missing.lost,
        settled: missing.settled,
    }
}

impl World {
    /// The connection came or went.
    pub fn told_link(&mut self) {
        let (is_up, now) = (self.is_up, self.now);
        if let Some(producer) = &mut self.producer {
            producer
                .outs
                .iter_mut()
                .for_each(|out| out.flight.connected(is_up, now));
        }
        (0..self.streams.len()).for_each(|stream| self.stands_still(stream));
    }

    /// An acknowledgement came.
    pub fn ack_arrived(&mut self, stream: usize, ack: StreamAck) {
        if !self.is_up {
            return;
        }
        let mixed = self.setting.has(Mistake::EpochMixed);
        let epoch = self.streams[stream].lineage.as_ref().map_or(0, |lineage| lineage.epoch);
        if let Some(out) = self.out(stream) {
            let ack = StreamAck {
                epoch: if mixed { epoch } else { ack.epoch },
                ..ack
            };
            out.acks.push_back(ack);
        }
    }

    /// The courier does one thing.
    pub fn courier_turn(&mut self, stream: usize) -> Result<(), String> {
        let turn = self.courier_step(stream);
        self.dies(turn).map(|_| ())
    }

    fn courier_step(&mut self, stream: usize) -> Result<(), Stop> {
        while let Some(ack) = self.out(stream).and_then(|out| out.acks.pop_front()) {
            if !self.heard(stream, &ack)? {
                return Ok(());
            }
        }
        self.settle_debt(stream);
        let now = self.now;
        let Some(out) = self.out(stream) else { return Ok(()) };
        match out.flight.action(now) {
            Action::Open => {
                out.flight.opened(now);
                self.stands_still(stream);
                self.open(stream);
            }
            Action::Send { from, to } => {
                if let Some(through) = self.send(stream, from, to)
                    && let Some(out) = self.out(stream)
                {
                    out.flight.sent(through, now);
                }
            }
            Action::Wait(_) => {}
        }
        Ok(())
    }

    /// False when the stream begins anew.
    fn heard(&mut self, stream: usize, ack: &StreamAck) -> Result<bool, Stop> {
        let now = self.now;
        let lanes = &self.streams[stream];
        let epoch = lanes.lineage.as_ref().map_or(0, |lineage| lineage.epoch);
        let is_first = lanes.lineage.as_ref().is_some_and(|lineage| lineage.is_first);
        let with_siblings = lanes.spool.book().with_siblings;
        let print = lanes.spool.print_of(ack.received);
        let (replays, compares) = (self.setting.replays, !self.setting.has(Mistake::NotCompared));
        let believes = self.setting.has(Mistake::FirstBelieved);
        let Some(out) = self.out(stream) else { return Ok(false) };
        let sent = out.sent;
        if ack.epoch == epoch {
            out.answer = Some((epoch, ack.resume.clone()));
        }
        let print = print.filter(|_| compares && out.flight.compares(ack));
        let heard = out.flight.acked(ack, sent, print, now);
        let knows_more = ack.resume.as_ref().is_some_and(|resume| resume.mark.is_some());
        if is_first
            && !with_siblings
            && replays
            && out.flight.watermark() == 0
            && ack.epoch == epoch
            && knows_more
            && !believes
        {
            // The loss is noticed now.
            self.excuse_second_loss();
            self.start_over(stream, 0)?;
            return Ok(false);
        }
        match heard {
            Heard::Nothing => {}
            Heard::Newer(known) => {
                self.start_both_over(stream, known)?;
                return Ok(false);
            }
            Heard::Durable => {
                out.moves = true;
                let watermark = out.flight.watermark();
                self.trim(stream, watermark)?;
            }
            Heard::Ahead => {
                self.start_both_over(stream, 0)?;
                return Ok(false);
            }
        }
        if self.setting.has(Mistake::TrimReceived) && ack.epoch == epoch && ack.received <= sent {
            self.trim(stream, ack.received)?;
        }
        Ok(true)
    }

    fn trim(&mut self, stream: usize, watermark: u64) -> Result<(), Stop> {
        let lanes = &mut self.streams[stream];
        let gone = lanes.spool.trim(watermark)?;
        lanes.oracle.deleted(&gone)?;
        self.say(|| format!("stream {stream} is durable up to {watermark}"));
        self.point("after a trim")
    }

    /// Nothing becomes durable now. If much waits, that is an outage.
    fn stands_still(&mut self, stream: usize) {
        let has_backlog = self.streams[stream].spool.held().count() >= BACKLOG_FRAMES_MIN;
        if let Some(out) = self.out(stream) {
            out.moves = false;
            out.had_outage |= has_backlog;
        }
    }

    /// The same with the other track, if there is one: an older copy is one of both, and the other may not notice.
    fn start_both_over(&mut self, stream: usize, known: u64) -> Result<(), Stop> {
        let mut others = self.setting.tracks_of(stream).filter(|other| *other != stream);
        if let Some(other) = others.next() {
            self.start_over(other, 0)?;
            self.was_copy(other);
        }
        self.start_over(stream, known)?;
        self.was_copy(stream);
        Ok(())
    }

    fn was_copy(&mut self, stream: usize) {
        if let Some(lineage) = &mut self.streams[stream].lineage {
            lineage.was_copy = true;
        }
    }

    /// The stream begins a new epoch, above its own and `known`.
    pub(crate) fn start_over(&mut self, stream: usize, known: u64) -> Result<(), Stop> {
        let last = self.streams[stream].lineage.as_ref().map_or(0, |lineage| lineage.epoch);
        let asks = self.setting.replays && !self.setting.has(Mistake::NotAsked);
        let lineage = self.make_lineage(next_epoch(self.boot, last.max(known)), asks);
        let epoch = lineage.epoch;
        self.say(|| format!("stream {stream} begins anew: epoch {epoch}"));
        let gone = self.out(stream).map_or(0, |out| out.gone);
        self.clear(
            stream,
            Lineage {
                clears: true,
                ..lineage
            },
            gone,
        )?;
        let life = self.out(stream).map_or(0, |out| out.life);
        let mut out = self.make_out(stream, life + 1);
        (out.pipe_life, out.released, out.sent) = (life, 0, 0);
        if let Some(producer) = &mut self.producer {
            producer.outs[stream] = out;
        }
        Ok(())
    }

    fn open(&mut self, stream: usize) {
        let is_up = self.is_up;
        let lanes = &mut self.streams[stream];
        let Some(lineage) = lanes.lineage.as_ref().filter(|_| is_up) else {
            return;
        };
        let open = StreamOpen {
            stream: StreamId::from_hash(&[stream as u8; 32]),
            epoch: lineage.epoch,
            key: lineage.key.clone(),
            first_seq: lanes.spool.first_seq(),
            next_seq: lanes.spool.next_seq(),
            clocks: Vec::new(),
        };
        lanes.opens.push(open);
        let epoch = lineage.epoch;
        self.say(|| format!("stream {stream} is opened in epoch {epoch}"));
    }

    fn send(&mut self, stream: usize, from: u64, to: u64) -> Option<u64> {
        // What was confirmed in an earlier life is told in one piece, though the pipe has not released anything yet.
        let released = self.out(stream)?.released.max(self.streams[stream].spool.watermark());
        let book = self.streams[stream].spool.book();
        let accounted = self.out(stream)?.flight.accounted_before(from);
        let accounted = accounted.filter(|_| book.dropped == book.owed);
        let is_up = self.is_up;
        let lanes = &mut self.streams[stream];
        let lineage = lanes.lineage.clone().filter(|_| is_up)?;
        let frames = lanes.spool.read(from, to, SEND_FRAMES_MAX);
        let (mut sent, mut is_inexact) = (Vec::new(), false);
        let mut prints = Dice::new(self.dice.roll());
        let mut gap_over = |first, last| {
            let missing = lanes.spool.missing(first, last, accounted.filter(|_| first == from));
            is_inexact |= missing.is_inexact;
            (last, prints.roll(), gap(first, missing))
        };
        let mut next = from;
        for (seq, print, frame) in frames {
            if seq > next {
                sent.push(gap_over(next, seq - 1));
            }
            sent.push((seq, print, frame));
            next = seq + 1;
        }
        if sent.is_empty() {
            let last = lanes
                .spool
                .next_held(from)
                .map_or(released, |next| released.min(next - 1));
            sent.push(gap_over(from, last));
            next = last + 1;
        }
        if is_inexact {
            // What was settled is no longer known frame by frame.
            lanes.oracle.inexact = Some("a destination stands below what it had confirmed");
        }
        for (seq, print, frame) in sent {
            lanes.frames.push(Sealed {
                key: lineage.key.clone(),
                epoch: lineage.epoch,
                seq,
                print,
                frame,
            });
        }
        self.say(|| format!("stream {stream}: {from} to {} leave", next - 1));
        let out = self.out(stream)?;
        out.sent = out.sent.max(next - 1);
        Some(next - 1)
    }

    /// Tells what was given up for want of room, though nothing new follows.
    fn settle_debt(&mut self, stream: usize) {
        let Some(out) = self.out(stream) else { return };
        let (released, gone) = (out.released, out.gone);
        let tells = !self.setting.has(Mistake::GapUntold);
        let print = self.dice.roll();
        let lanes = &mut self.streams[stream];
        let (seq, mut book) = (lanes.spool.next_seq(), lanes.spool.book());
        let Some((root, _)) = lanes.spool.mark() else { return };
        if book.owed == 0 || released + 1 != seq || gone < root {
            return;
        }
        book.gone = book.gone.max(root);
        if let Some(lineage) = &mut lanes.lineage {
            lineage.begun = true;
        }
        let entries = vec![owed_gap(seq, &mut book, tells, print)];
        if lanes.spool.append(vec![Group { entries, root, book }]).is_ok() {
            self.note_appended(stream, seq);
            if let Some(out) = self.out(stream) {
                out.released = seq;
                out.flight.released(seq);
            }
        }
    }
}
