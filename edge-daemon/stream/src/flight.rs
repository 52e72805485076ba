//! What the producer of a stream does next: open it, send frames, or wait. Pure: events and the time come in.
//!
//! Cumulative acknowledgements and go-back-N: after a loss everything from the first missing frame is sent again, byte for
//! byte; where a frame travels in pieces, from the first missing piece. Credit bounds what is on the way; only a watermark
//! lets anything be deleted.

use std::time::{Duration, Instant};

use bus_schema::message::StreamAck;

/// No progress for this long with frames on the way: ask where the consumer is.
const PROGRESS_MAX: Duration = Duration::from_secs(3);
/// Received but not durable for this long: ask whether the consumer is still there.
const DURABLE_MAX: Duration = Duration::from_secs(15);
/// First and longest wait for an answer to an opening.
const OPEN_WAIT_FIRST: Duration = Duration::from_millis(500);
const OPEN_WAIT_MAX: Duration = Duration::from_secs(10);
/// How many times as long as an answer takes now no progress may be made, should that be longer.
const PATIENCE: u32 = 4;
/// Rewinds closer together than this, or than an answer takes now, answer one and the same loss.
const REWIND_APART: Duration = Duration::from_millis(200);

/// What an acknowledgement told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Nothing that lets anything be deleted.
    Nothing,
    /// More is durable than was known.
    Durable,
    /// The consumer has frames that were never written here: this end was restored from an older copy.
    Ahead,
    /// The consumer knows this epoch, which is newer than the one here: this end was restored from an older copy, or has
    /// lost more than it knows of.
    Newer(u64),
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Send a `StreamOpen`.
    Open,
    /// Send these frames.
    Send {
        /// First seq.
        from: u64,
        /// Last seq.
        to: u64,
    },
    /// Nothing until an event, or until this long from now.
    Wait(Option<Duration>),
}

/// Where a stream's producer stands towards its consumer.
#[derive(Debug)]
pub struct Flight {
    epoch: u64,
    connected: bool,
    /// The consumer has answered since the last opening.
    answered: bool,
    open_at: Instant,
    open_wait: Duration,
    /// Frames up to this seq may leave.
    released: u64,
    next: u64,
    /// Bytes of the frame `next` that have left in pieces.
    offset: u32,
    credit: u64,
    received: u64,
    /// Records that the frames up to `received` account for at the consumer, once it has said so.
    accounted: Option<u64>,
    /// Bytes of the frame after `received` that have arrived in pieces.
    partial: u32,
    watermark: u64,
    progress_at: Instant,
    rewound_at: Option<Instant>,
    losses: u64,
    /// How long an answer takes now.
    delay: Duration,
}

impl Flight {
    /// A stream whose frames up to `watermark` are known to be durable at the consumer.
    pub fn new(epoch: u64, watermark: u64, now: Instant) -> Self {
        Self {
            epoch,
            connected: false,
            answered: false,
            open_at: now,
            open_wait: OPEN_WAIT_FIRST,
            released: watermark,
            next: watermark + 1,
            offset: 0,
            credit: 0,
            received: watermark,
            accounted: None,
            partial: 0,
            watermark,
            progress_at: now,
            rewound_at: None,
            losses: 0,
            delay: Duration::ZERO,
        }
    }

    /// The connection came or went.
    pub fn connected(&mut self, connected: bool, now: Instant) {
        self.connected_after(connected, Duration::ZERO, now);
    }

    /// The connection came or went; the stream is opened `pause` later, so that many do not open at once.
    pub fn connected_after(&mut self, connected: bool, pause: Duration, now: Instant) {
        self.connected = connected;
        self.open_wait = OPEN_WAIT_FIRST;
        self.delay = Duration::ZERO;
        // What was under way is sent again from wherever the consumer says it is.
        (self.next, self.offset) = (self.received + 1, self.partial);
        self.ask(now);
        self.open_at = now + pause;
    }

    /// So long it takes now until what is sent is acknowledged. On a slow line nobody must be impatient.
    pub fn delayed(&mut self, delay: Duration) {
        self.delay = delay;
    }

    fn ask(&mut self, now: Instant) {
        self.answered = false;
        self.open_at = now;
    }

    /// Frames up to this seq may leave.
    pub fn released(&mut self, seq: u64) {
        self.released = self.released.max(seq);
    }

    /// Whether [`Self::acked`] is to be told what the frame `received` is known by here: an opening is answered, and that
    /// frame is not among those the consumer had confirmed before.
    pub fn compares(&self, ack: &StreamAck) -> bool {
        !self.answered && ack.epoch == self.epoch && ack.received > self.watermark && ack.print != 0
    }

    /// The consumer spoke. `sent` is the last seq that can have left here: what an earlier life found on disk or this one has
    /// sent. What was only appended since is not enough: a buffer restored from an older copy fills up again, with other
    /// records under the same seqs, and a consumer that has those seqs already has the old ones. After a restart nobody
    /// knows what was sent, so `print` is what the frame `received` is known by here, if it is here and
    /// [`Self::compares`] says so.
    pub fn acked(&mut self, ack: &StreamAck, sent: u64, print: Option<u64>, now: Instant) -> Heard {
        if ack.newest > self.epoch {
            return Heard::Newer(ack.newest);
        }
        if ack.epoch == 0 {
            self.ask(now);
            return Heard::Nothing;
        }
        if ack.epoch != self.epoch || ack.watermark > ack.received {
            return Heard::Nothing;
        }
        if ack.received > sent || print.is_some_and(|print| print != ack.print) {
            return Heard::Ahead;
        }
        let just_answered = !std::mem::replace(&mut self.answered, true);
        self.open_wait = OPEN_WAIT_FIRST;
        let apart = REWIND_APART.max(self.delay);
        let rewinds_again = self.rewound_at.is_none_or(|at| now.duration_since(at) >= apart);
        if just_answered || (ack.rewind && rewinds_again) {
            self.losses += u64::from(self.is_under_way());
            self.rewound_at = Some(now);
            (self.next, self.offset) = (ack.received + 1, ack.partial_bytes);
        }
        (self.next, self.offset) = (self.next, self.offset).max((ack.received + 1, ack.partial_bytes));
        let has_more = (ack.received, ack.partial_bytes) > (self.received, self.partial);
        let progress = just_answered || has_more || ack.watermark > self.watermark;
        if progress {
            self.progress_at = now;
        }
        let durable = ack.watermark > self.watermark;
        (self.received, self.partial) = (ack.received, ack.partial_bytes);
        self.accounted = Some(ack.records);
        self.watermark = self.watermark.max(ack.watermark);
        self.credit = ack.credit;
        if durable { Heard::Durable } else { Heard::Nothing }
    }

    /// An opening left.
    pub fn opened(&mut self, now: Instant) {
        self.open_at = now + self.open_wait;
        self.open_wait = (self.open_wait * 2).min(OPEN_WAIT_MAX);
    }

    /// Frames up to this seq left.
    pub fn sent(&mut self, through: u64, now: Instant) {
        if !self.is_under_way() {
            self.progress_at = now;
        }
        if through >= self.next {
            (self.next, self.offset) = (through + 1, 0);
        }
    }

    /// A piece of the next frame left: up to so many of its bytes.
    pub fn sent_piece(&mut self, end: u32, now: Instant) {
        if !self.is_under_way() {
            self.progress_at = now;
        }
        self.offset = end;
    }

    /// How many bytes of the next frame have left already.
    pub fn offset(&self) -> u32 {
        self.offset
    }

    /// What the consumer has accounted for of the frames before `seq`, in records, if it has said so.
    pub fn accounted_before(&self, seq: u64) -> Option<u64> {
        self.accounted.filter(|_| seq == self.received + 1)
    }

    /// Something was sent whose arrival is not known yet.
    fn is_under_way(&self) -> bool {
        (self.next, self.offset) > (self.received + 1, self.partial)
    }

    /// How often it went back while something was under way.
    pub fn losses(&self) -> u64 {
        self.losses
    }

    /// Highest seq known to be durable at the consumer.
    pub fn watermark(&self) -> u64 {
        self.watermark
    }

    /// What to do next. A question that is due is asked by this very call.
    pub fn action(&mut self, now: Instant) -> Action {
        if !self.connected {
            return Action::Wait(None);
        }
        let silent = now.saturating_duration_since(self.progress_at);
        // Credit comes with the watermark, unless the consumer has gone back behind what it had confirmed, and its last word
        // was lost.
        let is_starved = self.next <= self.released && self.next > self.credit;
        let patience = match (self.is_under_way(), self.received > self.watermark || is_starved) {
            (true, _) => Some(PROGRESS_MAX.max(self.delay * PATIENCE)),
            (false, true) => Some(DURABLE_MAX),
            (false, false) => None,
        };
        if self.answered && patience.is_some_and(|patience| silent >= patience) {
            self.ask(now);
            self.progress_at = now;
        }
        if !self.answered {
            let wait = self.open_at.saturating_duration_since(now);
            return if wait.is_zero() {
                Action::Open
            } else {
                Action::Wait(Some(wait))
            };
        }
        let to = self.released.min(self.credit);
        if self.next <= to {
            return Action::Send { from: self.next, to };
        }
        Action::Wait(patience.map(|patience| patience.saturating_sub(silent)))
    }
}

#[cfg(test)]
mod tests {
    use bus_schema::id::StreamId;

    use super::*;

    fn ack(watermark: u64, received: u64, credit: u64) -> StreamAck {
        let stream = StreamId::from_hash(&[1; 32]);
        StreamAck {
            stream,
            epoch: 1,
            watermark,
            received,
            credit,
            rewind: false,
            partial_bytes: 0,
            dead: 0,
            resume: None,
            trouble: String::new(),
            newest: 1,
            print: received,
            records: 0,
        }
    }

    #[test]
    fn a_stream_opens_flows_and_waits() {
        let t = Instant::now();
        let mut flight = Flight::new(1, 0, t);
        flight.released(40);
        assert_eq!(flight.action(t), Action::Wait(None));
        flight.connected(true, t);
        assert_eq!(flight.action(t), Action::Open);
        flight.opened(t);
        assert_eq!(flight.action(t), Action::Wait(Some(OPEN_WAIT_FIRST)));
        assert_eq!(flight.action(t + OPEN_WAIT_FIRST), Action::Open);
        assert_eq!(flight.acked(&ack(0, 0, 16), 40, None, t), Heard::Nothing);
        assert_eq!(flight.action(t), Action::Send { from: 1, to: 16 });
        flight.sent(16, t);
        assert_eq!(flight.action(t), Action::Wait(Some(PROGRESS_MAX)));
        assert_eq!(flight.acked(&ack(8, 16, 32), 40, None, t), Heard::Durable);
        assert_eq!(flight.action(t), Action::Send { from: 17, to: 32 });
        flight.sent(32, t);
        flight.acked(&ack(32, 32, 48), 40, None, t);
        assert_eq!(flight.action(t), Action::Send { from: 33, to: 40 });
        flight.sent(40, t);
        flight.acked(&ack(40, 40, 56), 40, None, t);
        assert_eq!(flight.action(t), Action::Wait(None));
    }

    #[test]
    fn losses_are_sent_again() {
        let t = Instant::now();
        let mut flight = Flight::new(1, 0, t);
        flight.released(10);
        flight.connected(true, t);
        flight.acked(&ack(0, 0, 16), 10, None, t);
        flight.sent(10, t);
        // The consumer noticed a hole after 4: at once, but once.
        let rewind = StreamAck {
            rewind: true,
            ..ack(0, 4, 20)
        };
        flight.acked(&rewind, 10, None, t + REWIND_APART);
        assert_eq!(flight.action(t), Action::Send { from: 5, to: 10 });
        flight.sent(10, t);
        flight.acked(&rewind, 10, None, t + REWIND_APART);
        assert!(matches!(flight.action(t + REWIND_APART), Action::Wait(_)));
        // Silence: ask, and go back to what the answer says.
        let later = t + PROGRESS_MAX * 2;
        assert_eq!(flight.action(later), Action::Open);
        flight.opened(later);
        flight.acked(&ack(4, 6, 22), 10, None, later);
        assert_eq!(flight.action(later), Action::Send { from: 7, to: 10 });
        // A consumer that restarted knows no key.
        flight.acked(
            &StreamAck {
                epoch: 0,
                ..ack(0, 0, 0)
            },
            10,
            None,
            later,
        );
        assert_eq!(flight.action(later), Action::Open);
        // A reconnect asks as well.
        flight.acked(&ack(4, 6, 22), 10, None, later);
        flight.connected(false, later);
        flight.connected(true, later);
        assert_eq!(flight.action(later), Action::Open);
    }

    #[test]
    fn a_producer_without_credit_asks_for_it() {
        let t = Instant::now();
        let mut flight = Flight::new(1, 13, t);
        flight.released(40);
        flight.connected(true, t);
        // The destination was taken back. What it had is told in one gap, for which the first credit is enough.
        assert_eq!(flight.accounted_before(14), None, "it has not said anything");
        let told = StreamAck {
            records: 7,
            ..ack(0, 2, 8)
        };
        flight.acked(&told, 40, None, t);
        assert_eq!(
            (flight.accounted_before(3), flight.accounted_before(4)),
            (Some(7), None)
        );
        flight.acked(&ack(0, 0, 8), 40, None, t);
        flight.sent(13, t);
        flight.acked(&ack(0, 13, 8), 40, None, t);
        // That it is durable and that there is credit again is lost on the way.
        assert_eq!(flight.action(t), Action::Wait(Some(DURABLE_MAX)));
        assert_eq!(flight.action(t + DURABLE_MAX), Action::Open);
    }

    #[test]
    fn a_frame_in_pieces_goes_on_from_where_it_is() {
        let t = Instant::now();
        let partial = |received, bytes| StreamAck {
            partial_bytes: bytes,
            ..ack(0, received, 16)
        };
        let mut flight = Flight::new(1, 0, t);
        flight.released(3);
        flight.connected(true, t);
        flight.acked(&ack(0, 0, 16), 3, None, t);
        let send = |from| Action::Send { from, to: 3 };
        assert_eq!((flight.action(t), flight.offset()), (send(1), 0));
        flight.sent_piece(1_000, t);
        flight.sent_piece(2_000, t);
        assert_eq!((flight.action(t), flight.offset()), (send(1), 2_000));
        // A piece that arrives is progress, and takes nothing back.
        let later = t + PROGRESS_MAX - Duration::from_millis(1);
        flight.acked(&partial(0, 1_000), 3, None, later);
        assert_eq!(
            (flight.action(later + PROGRESS_MAX / 2), flight.offset()),
            (send(1), 2_000)
        );
        // On a slow line an answer takes its time.
        flight.delayed(PROGRESS_MAX);
        let later = later + PROGRESS_MAX * 2;
        assert_eq!(flight.action(later), send(1));
        // The connection is lost: on from what is there.
        flight.connected(false, later);
        flight.connected_after(true, Duration::from_millis(50), later);
        assert_eq!(flight.action(later), Action::Wait(Some(Duration::from_millis(50))));
        flight.acked(&partial(0, 1_500), 3, None, later);
        assert_eq!(
            (flight.action(later), flight.offset(), flight.losses()),
            (send(1), 1_500, 0)
        );
        flight.sent(1, later);
        assert_eq!((flight.action(later), flight.offset()), (send(2), 0));
        flight.sent_piece(700, later);
        // A piece of the second was lost; the rest of the first is there.
        let rewind = StreamAck {
            rewind: true,
            ..partial(1, 300)
        };
        flight.acked(&rewind, 3, None, later + PROGRESS_MAX);
        assert_eq!(
            (flight.action(later), flight.offset(), flight.losses()),
            (send(2), 300, 1)
        );
        // What was sent before the loss arrives and asks again: it has been answered.
        flight.sent_piece(600, later);
        flight.acked(&rewind, 3, None, later + PROGRESS_MAX + REWIND_APART);
        assert_eq!(
            (flight.offset(), flight.losses()),
            (300, 2),
            "no delay is known on this connection"
        );
        flight.delayed(PROGRESS_MAX);
        flight.sent_piece(600, later);
        flight.acked(&rewind, 3, None, later + PROGRESS_MAX + REWIND_APART * 3);
        assert_eq!((flight.offset(), flight.losses()), (600, 2));
    }

    #[test]
    fn another_lineage_is_told_by_its_frames_and_epochs() {
        let t = Instant::now();
        // (watermark here, what the consumer received, what that frame is known by here, answered before, what is heard)
        for (watermark, received, here, answered, heard) in [
            (5, 8, Some(8), false, Heard::Nothing),
            (5, 8, Some(9), false, Heard::Ahead),
            // It is not here: given up, or damaged.
            (5, 8, None, false, Heard::Nothing),
            // Confirmed before: both have it from one history.
            (8, 8, Some(9), false, Heard::Nothing),
            (5, 8, Some(9), true, Heard::Nothing),
        ] {
            let mut flight = Flight::new(1, watermark, t);
            flight.released(9);
            flight.connected(true, t);
            if answered {
                flight.acked(&ack(watermark, watermark, 20), 9, None, t);
            }
            let told = ack(watermark, received, 20);
            let print = here.filter(|_| flight.compares(&told));
            assert_eq!(
                flight.acked(&told, 9, print, t),
                heard,
                "{watermark} {here:?} {answered}"
            );
        }
        // A hello without a key tells it as well.
        for epoch in [0, 1, 4] {
            let newer = StreamAck {
                epoch,
                newest: 4,
                ..ack(0, 0, 16)
            };
            assert_eq!(Flight::new(1, 0, t).acked(&newer, 9, None, t), Heard::Newer(4));
            assert_ne!(Flight::new(4, 0, t).acked(&newer, 9, None, t), Heard::Newer(4));
        }
    }

    #[test]
    fn nonsense_is_ignored() {
        let t = Instant::now();
        let mut flight = Flight::new(7, 5, t);
        flight.released(8);
        flight.connected(true, t);
        for (epoch, watermark, received, heard) in [
            (1, 8, 8, Heard::Nothing),
            (7, 9, 9, Heard::Ahead),
            (7, 8, 7, Heard::Nothing),
        ] {
            let wrong = StreamAck {
                epoch,
                newest: epoch,
                ..ack(watermark, received, 20)
            };
            assert_eq!(flight.acked(&wrong, 8, None, t), heard);
            assert_eq!(flight.watermark(), 5);
        }
    }
}
