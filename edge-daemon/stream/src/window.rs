//! How many bytes may be on the way, so that a slow line holds about a second of our data and not a minute. Pure.
//!
//! The window follows the delay, in the spirit of TCP Vegas (Brakmo, Peterson 1995) and LEDBAT (RFC 6817): the time from
//! handing bytes to the bus until the consumer's acknowledgement, less the least such time, is what they waited in a queue
//! somewhere. Above the target the window shrinks in proportion, well below it grows. Loss halves it. Unlike LEDBAT's, the
//! base may rise only on the word of bytes that had the line to themselves: a queue of our own can never pass for the line.

use std::time::{Duration, Instant};

use bus_schema::limits::{CREDIT_FRAMES, PAYLOAD_BYTES_MAX};

/// Least bytes on the way.
pub const WINDOW_BYTES_MIN: usize = 4 * 1024;
/// Most bytes on the way: what the credit of one stream allows.
pub const WINDOW_BYTES_MAX: usize = CREDIT_FRAMES as usize * PAYLOAD_BYTES_MAX;
/// At the start of a connection and after a pause: a second or three on a 50 kbit/s line, nothing on a fast one.
pub const WINDOW_BYTES_FIRST: usize = 16 * 1024;
/// How long bytes may wait in queues on the way.
pub const QUEUEING_TARGET: Duration = Duration::from_secs(1);
/// After so long without anything on the way, the line may be another one.
const IDLE_MAX: Duration = Duration::from_secs(2);
/// By which part of itself a window grows in the time of one turn, once doubling has found its limit.
const STEP: usize = 8;
/// How much of a longer delay the base takes on at a time.
const BASE_RISE: u32 = 4;

/// How long a way takes from sending to acknowledgement.
#[derive(Debug, Clone, Default)]
pub struct Delay {
    base: Option<Duration>,
    last: Duration,
}

impl Delay {
    /// Bytes were acknowledged this long after they were sent. `alone`: with next to nothing else on the way.
    pub fn sample(&mut self, took: Duration, alone: bool) {
        self.last = took;
        let base = self.base.unwrap_or(took);
        let rise = if alone {
            took.saturating_sub(base) / BASE_RISE
        } else {
            Duration::ZERO
        };
        self.base = Some(took.min(base + rise));
    }

    /// The least it takes.
    pub fn base(&self) -> Duration {
        self.base.unwrap_or_default()
    }

    /// What it took lately.
    pub fn last(&self) -> Duration {
        self.last
    }

    /// What of that was waiting.
    pub fn queueing(&self) -> Duration {
        self.last.saturating_sub(self.base())
    }
}

/// Bytes that were acknowledged, as far as a window cares.
#[derive(Debug, Clone, Copy)]
pub struct Acked {
    /// How many.
    pub bytes: usize,
    /// When the last of them were sent.
    pub sent_at: Instant,
    /// How many were on the way when the last of them had been sent, these among them.
    pub of: usize,
}

/// How many bytes may be on the way.
#[derive(Debug, Clone)]
pub struct Window {
    bytes: usize,
    /// Doubling has not found its limit yet.
    is_starting: bool,
    /// What was sent before this tells of the time before.
    shrunk_at: Option<Instant>,
    idle_since: Option<Instant>,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            bytes: WINDOW_BYTES_FIRST,
            is_starting: true,
            shrunk_at: None,
            idle_since: None,
        }
    }
}

impl Window {
    /// Most bytes on the way now.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes leave. After a pause it begins as at first.
    pub fn sent(&mut self, now: Instant) {
        if self
            .idle_since
            .take()
            .is_some_and(|since| now.saturating_duration_since(since) >= IDLE_MAX)
        {
            self.bytes = self.bytes.min(WINDOW_BYTES_FIRST);
            self.is_starting = true;
        }
    }

    /// Nothing is on the way any more.
    pub fn idle(&mut self, now: Instant) {
        self.idle_since.get_or_insert(now);
    }

    /// Bytes were acknowledged.
    pub fn acked(&mut self, acked: Acked, delay: &Delay, now: Instant) {
        let (base, waited) = (delay.base(), delay.queueing());
        if waited > QUEUEING_TARGET {
            // Once for all that was on the way at the same time.
            if self.shrunk_at.is_none_or(|at| acked.sent_at >= at) {
                let fits = (base + QUEUEING_TARGET).as_secs_f64() / (base + waited).as_secs_f64();
                self.shrink((self.bytes.min(acked.of) as f64 * fits) as usize, now);
            }
            return;
        }
        // Only a window that was used says anything about a larger one.
        if acked.of * 2 < self.bytes {
            return;
        }
        let is_far_below = waited < QUEUEING_TARGET / 4 && self.is_starting;
        // What a window of twice the size would make of it, were the line full already.
        let doubled_fits = delay.last() + waited < QUEUEING_TARGET / 2;
        if is_far_below || doubled_fits {
            self.grow(acked.bytes);
        } else if waited < QUEUEING_TARGET / 2 {
            self.is_starting = false;
            self.grow(acked.bytes.div_ceil(STEP));
        } else {
            self.is_starting = false;
        }
    }

    /// Something was lost on the way.
    pub fn lost(&mut self, now: Instant) {
        self.shrink(self.bytes / 2, now);
    }

    fn grow(&mut self, by: usize) {
        self.bytes = (self.bytes + by).min(WINDOW_BYTES_MAX);
    }

    fn shrink(&mut self, to: usize, now: Instant) {
        self.bytes = to.clamp(WINDOW_BYTES_MIN, self.bytes);
        self.is_starting = false;
        self.shrunk_at = Some(now);
    }
}
