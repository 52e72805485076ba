//! The bounded store between a connection, which must never wait, and the owner of the bus, who may. What finds no room
//! is dropped and counted: the streams above notice and ask again. Knows no broker.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bus_schema::{
    limits::{CREDIT_FRAMES, PAYLOAD_BYTES_MAX},
    subject::{Dialect, Subject},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Received payload waiting for the owner of one bus, in bytes: the whole credit of one stream, and a little.
const RECEIVE_BYTES_MAX: usize = (CREDIT_FRAMES as usize + 1) * PAYLOAD_BYTES_MAX;
/// What a message costs besides its payload, in bytes, so that a flood of empty ones is bounded too.
const MESSAGE_BYTES: usize = 256;
/// As many receipts as MQTT can have open (one per packet id), and messages besides. Memory is only used by what is
/// really there.
const ENTRIES_MAX: usize = u16::MAX as usize + RECEIVE_BYTES_MAX / MESSAGE_BYTES;

/// How often something was not delivered, since the bus was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages received on subjects that are not valid ones.
    pub foreign: u64,
    /// Messages received while there was no room for them.
    pub dropped: u64,
}

#[derive(Debug, Default)]
pub(super) struct Tally {
    foreign: AtomicU64,
    dropped: AtomicU64,
}

impl Tally {
    pub(super) fn count_dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Counters {
        Counters {
            foreign: self.foreign.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
        }
    }
}

/// Where a connection puts what it receives.
#[derive(Debug, Clone)]
pub(super) struct Inbox {
    queue: mpsc::Sender<Held>,
    room: Arc<Semaphore>,
    tally: Arc<Tally>,
}

/// Something received.
#[derive(Debug)]
pub(super) struct Held {
    /// Absent when it was dropped and only its receipt is owed.
    pub message: Option<(Subject, Vec<u8>)>,
    /// The packet id to acknowledge once the owner has the message.
    pub receipt: Option<u16>,
    _room: Option<OwnedSemaphorePermit>,
}

impl Inbox {
    /// An empty inbox and the end to take from.
    pub(super) fn new(tally: Arc<Tally>) -> (Self, mpsc::Receiver<Held>) {
        let (queue, held) = mpsc::channel(ENTRIES_MAX);
        (
            Self {
                queue,
                room: Arc::new(Semaphore::new(RECEIVE_BYTES_MAX)),
                tally,
            },
            held,
        )
    }

    /// Where what this inbox cannot see is counted too.
    pub(super) fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }

    /// Takes a message if its subject is valid and there is room. Never waits.
    pub(super) fn offer(&self, subject: &str, dialect: Dialect, payload: &[u8], receipt: Option<u16>) {
        let Ok(subject) = Subject::from_wire(subject, dialect) else {
            self.tally.foreign.fetch_add(1, Ordering::Relaxed);
            return self.put(None, receipt, None);
        };
        let cost = u32::try_from(payload.len() + MESSAGE_BYTES).unwrap_or(u32::MAX);
        match Arc::clone(&self.room).try_acquire_many_owned(cost) {
            Ok(room) => self.put(Some((subject, payload.to_vec())), receipt, Some(room)),
            Err(_) => {
                self.tally.count_dropped();
                self.put(None, receipt, None);
            }
        }
    }

    fn put(&self, message: Option<(Subject, Vec<u8>)>, receipt: Option<u16>, room: Option<OwnedSemaphorePermit>) {
        if message.is_none() && receipt.is_none() {
            return;
        }
        let was_message = message.is_some();
        // Only a broker that reuses open packet ids can fill the queue; when it is closed nobody listens any more.
        if self
            .queue
            .try_send(Held {
                message,
                receipt,
                _room: room,
            })
            .is_err()
            && was_message
        {
            self.tally.count_dropped();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inbox() -> (Inbox, mpsc::Receiver<Held>) {
        Inbox::new(Arc::default())
    }

    #[tokio::test]
    async fn holds_no_more_than_its_bound_and_recovers() {
        let (inbox, mut held) = inbox();
        let frame = vec![7; 64 * 1024];
        for _ in 0..25 {
            inbox.offer("a.b", Dialect::Nats, &frame, None);
        }
        assert_eq!((held.len(), inbox.tally.read().dropped), (16, 9));
        drop(held.recv().await);
        inbox.offer("a.b", Dialect::Nats, &frame, None);
        assert_eq!((held.len(), inbox.tally.read().dropped), (16, 9));
        let (many, held) = super::Inbox::new(Arc::default());
        for _ in 0..6000 {
            many.offer("a.b", Dialect::Nats, &[], None);
        }
        assert_eq!((held.len(), many.tally.read().dropped), (4352, 1648));
    }

    #[tokio::test]
    async fn what_is_dropped_is_still_receipted() {
        let (inbox, mut held) = inbox();
        for (subject, receipt) in [
            ("a/$sys", Some(3)),
            ("a/$sys", None),
            ("a//b", Some(4)),
            ("a/b", Some(5)),
        ] {
            inbox.offer(subject, Dialect::Mqtt, b"x", receipt);
        }
        assert_eq!(inbox.tally.read(), Counters { foreign: 3, dropped: 0 });
        let mut seen = Vec::new();
        while let Ok(held) = held.try_recv() {
            seen.push((held.message.is_some(), held.receipt));
        }
        assert_eq!(seen, [(false, Some(3)), (false, Some(4)), (true, Some(5))]);
    }
}
