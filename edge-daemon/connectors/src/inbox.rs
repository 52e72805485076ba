//! What comes from outside waits here for the reader, within limits of count and bytes. Whoever brings more waits, and
//! does not listen to its system meanwhile. Knows no protocol.

use std::{sync::Arc, time::Duration};

use bus_schema::limits::BATCH_BYTES_TARGET;
use flow::READ_WAIT_MAX;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, timeout_at},
};

/// Bytes that may wait.
const BYTES_MAX: usize = 1024 * 1024;
/// Things that may wait, and most that are taken at once.
const ITEMS_MAX: usize = 1024;
/// Bytes of a thing besides its content.
const ITEM_BYTES: usize = 128;
/// How long those that came first wait for others.
const GATHER: Duration = Duration::from_millis(2);

struct Held<T> {
    item: T,
    bytes: usize,
    _room: OwnedSemaphorePermit,
}

/// The way in.
pub(crate) struct Door<T> {
    sender: mpsc::Sender<Held<T>>,
    room: Arc<Semaphore>,
}

impl<T> Clone for Door<T> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            room: Arc::clone(&self.room),
        }
    }
}

impl<T> Door<T> {
    /// Hands a thing in when there is room for it. `false`: nobody wants any more.
    pub(crate) async fn bring(&self, item: T, bytes: usize) -> bool {
        let weight = (bytes + ITEM_BYTES).min(BYTES_MAX);
        // Nobody closes the semaphore: it goes with the last door.
        let Ok(room) = Arc::clone(&self.room).acquire_many_owned(weight as u32).await else {
            return false;
        };
        let held = Held {
            item,
            bytes,
            _room: room,
        };
        self.sender.send(held).await.is_ok()
    }
}

/// The way out.
pub(crate) struct Inbox<T> {
    receiver: mpsc::Receiver<Held<T>>,
    /// The one that was waited for.
    early: Option<Held<T>>,
}

/// An empty one.
pub(crate) fn inbox<T>() -> (Door<T>, Inbox<T>) {
    let (sender, receiver) = mpsc::channel(ITEMS_MAX);
    let room = Arc::new(Semaphore::new(BYTES_MAX));
    (Door { sender, room }, Inbox { receiver, early: None })
}

impl<T> Inbox<T> {
    /// Waits until there is something, or nobody will bring anything. `false`: nothing came for a while. May be dropped while
    /// it waits.
    pub(crate) async fn ready(&mut self) -> bool {
        if self.early.is_none() {
            match timeout_at(Instant::now() + READ_WAIT_MAX, self.receiver.recv()).await {
                Err(_) => return false,
                Ok(held) => self.early = held,
            }
        }
        true
    }

    /// Things for about one batch, in the order they came; none when none came for a while. `None`: nobody will bring any.
    pub(crate) async fn gather(&mut self) -> Option<Vec<T>> {
        let mut items = Vec::new();
        let (mut bytes, mut until) = (0, Instant::now() + READ_WAIT_MAX);
        while bytes < BATCH_BYTES_TARGET && items.len() < ITEMS_MAX {
            let next = match self.early.take() {
                Some(held) => Ok(Some(held)),
                None => timeout_at(until, self.receiver.recv()).await,
            };
            match next {
                Err(_) => break,
                Ok(None) if items.is_empty() => return None,
                Ok(None) => break,
                Ok(Some(held)) => {
                    if items.is_empty() {
                        until = Instant::now() + GATHER;
                    }
                    bytes += held.bytes;
                    items.push(held.item);
                }
            }
        }
        Some(items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_brings_too_much_waits() {
        let (door, mut inbox) = inbox::<usize>();
        assert_eq!(inbox.gather().await, Some(vec![]));
        let bringing = tokio::spawn(async move {
            for number in 0..30 {
                assert!(door.bring(number, BYTES_MAX / 10).await);
            }
        });
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(!bringing.is_finished());
        let mut all = Vec::new();
        while let Some(items) = inbox.gather().await {
            assert_eq!(items.len(), 1, "a batch of large things is one");
            all.extend(items);
        }
        assert_eq!(all, (0..30).collect::<Vec<_>>());
        bringing.await.unwrap();
    }
}
