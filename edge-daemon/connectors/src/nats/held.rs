//! Messages of a JetStream stream that are not acknowledged yet, and who tells the server meanwhile that somebody is at work on
//! them: a destination may gather for longer than the server waits, and while the pipe is full nobody reads for as long.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use async_nats::{Client, Subject, Subscriber};
use futures_util::{FutureExt, StreamExt};
use tokio::time::sleep;

/// What every acknowledgement's subject begins with.
pub(super) const ACK_HEAD: &str = "$JS.ACK.";
/// The server hears of a message so often while it waits for one acknowledgement.
const SIGNS_PER_WAIT: u32 = 3;
/// Not more often than this.
const SIGN_EVERY_MIN: Duration = Duration::from_millis(10);
/// Messages that it hears of between two looks at what is still held.
const SIGNS_MAX: usize = 256;

/// A message as it came.
pub(super) struct Message {
    pub message: async_nats::Message,
    pub received_ns: i128,
}

/// What the server sends, before the source takes it.
pub(super) struct Incoming {
    messages: Subscriber,
    /// Taken from the connection while nobody read.
    early: VecDeque<Message>,
    early_max: usize,
    /// With a stream.
    held: Option<Arc<Held>>,
}

impl Incoming {
    pub(super) fn new(messages: Subscriber, early_max: usize, held: Option<Arc<Held>>) -> Self {
        Self {
            messages,
            early: VecDeque::new(),
            early_max,
            held,
        }
    }

    /// The next message; `None`: the connection is gone. May be dropped while it waits.
    pub(super) async fn next(&mut self) -> Option<Message> {
        if let Some(message) = self.early.pop_front() {
            return Some(message);
        }
        let message = self.messages.next().await?;
        Some(self.came(message))
    }

    /// Takes in what is there, so that the server hears of it.
    fn look(&mut self) {
        while self.early.len() < self.early_max
            && let Some(Some(message)) = self.messages.next().now_or_never()
        {
            let message = self.came(message);
            self.early.push_back(message);
        }
    }

    fn came(&self, message: async_nats::Message) -> Message {
        // One with a status is the server's own word.
        if let Some(held) = self.held.as_ref().filter(|_| message.status.is_none()) {
            held.add(message.reply.as_deref().unwrap_or_default());
        }
        Message {
            message,
            received_ns: now_ns(),
        }
    }
}

/// Where the acknowledgements of messages go, until they have gone. Numbered from 1, as the messages came.
#[derive(Default)]
pub(super) struct Held(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    /// What the first subject began with, up to its numbers: nearly always that of all.
    head: String,
    /// The rest of each; all of one that begins otherwise.
    rests: VecDeque<Box<str>>,
    /// How many came before the first of them.
    gone: u64,
}

impl Kept {
    fn subject(&self, rest: &str) -> Subject {
        match rest.starts_with(|c: char| c.is_ascii_digit()) {
            true => [self.head.as_str(), rest].concat().into(),
            false => rest.into(),
        }
    }
}

impl Held {
    fn add(&self, reply: &str) {
        let mut kept = self.kept();
        if kept.head.is_empty() {
            kept.head = head(reply).unwrap_or_default().to_string();
        }
        let rest = match reply.strip_prefix(kept.head.as_str()) {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_digit()) => rest,
            _ => reply,
        };
        kept.rests.push_back(rest.into());
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.kept().rests.len()
    }

    /// The number of the last that came.
    fn last(&self) -> u64 {
        let kept = self.kept();
        kept.gone + kept.rests.len() as u64
    }

    /// Where the first goes, if its number is not above `up_to`; an empty subject if it wants none.
    pub(super) fn first(&self, up_to: u64) -> Option<Subject> {
        let kept = self.kept();
        let rest = kept.rests.front().filter(|_| kept.gone < up_to)?;
        Some(kept.subject(rest))
    }

    /// The first is acknowledged.
    pub(super) fn settle_first(&self) {
        let mut kept = self.kept();
        if kept.rests.pop_front().is_some() {
            kept.gone += 1;
        }
    }

    /// Where those after `after` go, some of them, not above `up_to`; and the number of the last.
    fn some(&self, after: u64, up_to: u64) -> (Vec<Subject>, u64) {
        let kept = self.kept();
        let after = after.max(kept.gone);
        let skipped = usize::try_from(after - kept.gone).unwrap_or(usize::MAX);
        let wanted = usize::try_from(up_to.saturating_sub(after)).unwrap_or(usize::MAX);
        let rests = kept.rests.iter().skip(skipped).take(wanted.min(SIGNS_MAX));
        let subjects: Vec<Subject> = rests.map(|rest| kept.subject(rest)).collect();
        let last = after + subjects.len() as u64;
        (subjects, last)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What stands before the numbers in the subject of an acknowledgement:
/// `$JS.ACK.<stream>.<consumer>.<delivered>.<number>.…`, later with domain and account before the stream.
fn head(reply: &str) -> Option<&str> {
    let tokens = numbers_at(reply)?;
    let (end, _) = reply.match_indices('.').nth(tokens - 1)?;
    reply.get(..=end)
}

/// Which of its tokens is the first of the numbers.
pub(super) fn numbers_at(reply: &str) -> Option<usize> {
    if !reply.starts_with(ACK_HEAD) {
        return None;
    }
    match reply.split('.').count() {
        9 => Some(4),
        11.. => Some(6),
        _ => None,
    }
}

/// Tells the server of everything that is held that there is somebody at work, until the connection is gone. Nothing is said of
/// what comes and goes between two looks.
pub(super) async fn keep(client: Client, incoming: Arc<tokio::sync::Mutex<Incoming>>, held: Arc<Held>, wait: Duration) {
    let every = (wait / SIGNS_PER_WAIT).max(SIGN_EVERY_MIN);
    let mut seen = 0;
    loop {
        sleep(every).await;
        // Who is at it finds them itself.
        if let Ok(mut incoming) = incoming.try_lock() {
            incoming.look();
        }
        let mut told = 0;
        loop {
            let (subjects, last) = held.some(told, seen);
            if subjects.is_empty() {
                break;
            }
            for subject in subjects.into_iter().filter(|subject| !subject.is_empty()) {
                if client.publish(subject, "+WPI".into()).await.is_err() {
                    return;
                }
            }
            told = last;
        }
        seen = held.last();
    }
}

/// Advisory, as every wall clock is.
fn now_ns() -> i128 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as i128)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts((subjects, last): (Vec<Subject>, u64)) -> (Vec<String>, u64) {
        (subjects.iter().map(ToString::to_string).collect(), last)
    }

    #[test]
    fn subjects_come_out_as_they_went_in() {
        let held = Held::default();
        let replies = [
            "$JS.ACK.S.c.1.7.1.1700000000000000000.3",
            "$JS.ACK.S.c.2.8.2.1700000000000000001.2",
            "$JS.ACK.S.other.1.9.3.1700000000000000002.1",
            "",
            "$JS.ACK.hub.AB12.S.c.1.10.4.1700000000000000003.0.x",
        ];
        replies.iter().for_each(|reply| held.add(reply));
        assert_eq!(held.0.lock().unwrap().head, "$JS.ACK.S.c.");
        assert_eq!(&*held.0.lock().unwrap().rests[1], "2.8.2.1700000000000000001.2");
        assert_eq!(texts(held.some(0, 5)), (replies.map(String::from).to_vec(), 5));
        assert_eq!(texts(held.some(1, 2)), (vec![replies[1].to_string()], 2));
        assert_eq!(texts(held.some(5, 5)), (vec![], 5));
        assert_eq!(held.first(1).as_deref(), Some(replies[0]));
        held.settle_first();
        assert_eq!(held.first(1), None);
        assert_eq!((held.len(), held.last()), (4, 5));
        // What is gone meanwhile is skipped, not counted twice.
        assert_eq!(texts(held.some(0, 2)), (vec![replies[1].to_string()], 2));
        let domain = Held::default();
        domain.add(replies[4]);
        assert_eq!(domain.0.lock().unwrap().head, "$JS.ACK.hub.AB12.S.c.");
        assert_eq!(domain.first(1).as_deref(), Some(replies[4]));
    }

    #[test]
    fn many_are_told_in_parts() {
        let held = Held::default();
        (1..=600).for_each(|n| held.add(&format!("$JS.ACK.S.c.1.{n}.{n}.1700000000000000000.0")));
        let (mut told, mut heard) = (0, 0);
        loop {
            let (subjects, last) = held.some(told, 599);
            if subjects.is_empty() {
                break;
            }
            assert!(subjects.len() <= SIGNS_MAX);
            heard += subjects.len();
            told = last;
            held.settle_first();
        }
        assert_eq!((heard, told), (599, 599));
    }
}
