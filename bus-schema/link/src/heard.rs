//! The requests that came lately and what was answered, so that one that is sent again is not carried out again, and one whose answer
//! was lost gets the same answer again. Bounded; knows no connection.

use std::{
    collections::{HashSet, VecDeque},
    fmt,
    sync::Arc,
    time::Duration,
};

use bus_schema::id::NodeId;
use tokio::time::Instant;

/// Requests remembered. One is sent again within seconds, and so many come to a plane in far longer.
const REMEMBERED_MAX: usize = 1024;
/// Answers kept.
const ANSWERS_MAX: usize = 128;
/// The longest of them, in bytes. A longer one is made again when it is asked for again: what has a long answer only asks, or does
/// the same when it is done twice.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// All of them, in bytes.
const ANSWERS_BYTES_MAX: usize = 64 * 1024;

/// How long they are kept: a request is asked again within its deadline, and some answers hold what nobody should find later.
const ANSWERS_KEPT: Duration = Duration::from_secs(60);

/// Who asked, and under which number.
pub type Request = (NodeId, u64);

/// An answer as it was given.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    /// Which message.
    pub kind: u16,
    /// Which version of it.
    pub ver: u8,
    /// Its bytes.
    pub payload: Arc<[u8]>,
}

/// Without what it says: that may be a secret.
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.payload.len();
        write!(f, "Answer {{ kind: {}, ver: {}, bytes: {bytes} }}", self.kind, self.ver)
    }
}

/// The requests that came lately.
#[derive(Debug, Default)]
pub struct Heard {
    set: HashSet<Request>,
    order: VecDeque<Request>,
    answers: VecDeque<(Instant, Request, Answer)>,
    answers_bytes: usize,
}

impl Heard {
    /// Whether it came before.
    pub fn has(&self, request: &Request) -> bool {
        self.set.contains(request)
    }

    /// It came.
    pub fn note(&mut self, request: Request) {
        if !self.set.insert(request) {
            return;
        }
        self.order.push_back(request);
        if self.order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.set.remove(&oldest);
        }
    }

    /// It was answered. What is too long to be kept counts as if it had not come.
    pub fn answered(&mut self, request: Request, answer: Answer, now: Instant) {
        let bytes = answer.payload.len();
        if bytes > ANSWER_BYTES_MAX {
            if self.set.remove(&request) {
                self.order.retain(|one| *one != request);
            }
            return;
        }
        self.answers_bytes += bytes;
        self.answers.push_back((now, request, answer));
        while self.answers.len() > ANSWERS_MAX || self.answers_bytes > ANSWERS_BYTES_MAX {
            self.forget_oldest();
        }
    }

    /// Forgets answers that nobody asks for any more.
    pub fn forget_old(&mut self, now: Instant) {
        let is_old = |since: Instant| now.saturating_duration_since(since) > ANSWERS_KEPT;
        while self.answers.front().is_some_and(|(since, ..)| is_old(*since)) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let oldest = self.answers.pop_front();
        self.answers_bytes -= oldest.map_or(0, |(.., answer)| answer.payload.len());
    }

    /// What was answered; `None` as long as nothing is, or when it is forgotten.
    pub fn answer(&self, request: &Request) -> Option<&Answer> {
        let found = self.answers.iter().rev().find(|(_, answered, _)| answered == request);
        found.map(|(.., answer)| answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> NodeId {
        NodeId::from_hash(&[7; 32])
    }

    fn answer(bytes: usize) -> Answer {
        Answer {
            kind: 13,
            ver: 1,
            payload: vec![1; bytes].into(),
        }
    }

    #[test]
    fn the_latest_are_known_and_the_rest_forgotten() {
        let (mut heard, node) = (Heard::default(), node());
        for number in 0..3 * REMEMBERED_MAX as u64 {
            assert!(!heard.has(&(node, number)));
            heard.note((node, number));
            heard.note((node, number));
            assert!(heard.has(&(node, number)));
        }
        assert_eq!((heard.set.len(), heard.order.len()), (REMEMBERED_MAX, REMEMBERED_MAX));
        let newest = 3 * REMEMBERED_MAX as u64 - 1;
        assert!(heard.has(&(node, newest)) && !heard.has(&(NodeId::from_hash(&[8; 32]), newest)));
        assert!(!heard.has(&(node, newest - REMEMBERED_MAX as u64)));
    }

    #[test]
    fn answers_are_kept_within_bounds() {
        let (mut heard, node, now) = (Heard::default(), node(), Instant::now());
        for number in 0..10 * ANSWERS_MAX as u64 {
            heard.note((node, number));
            assert_eq!(heard.answer(&(node, number)), None, "not answered yet");
            heard.answered((node, number), answer(number as usize % ANSWER_BYTES_MAX), now);
            assert_eq!(
                heard.answer(&(node, number)),
                Some(&answer(number as usize % ANSWER_BYTES_MAX))
            );
            let bytes: usize = heard.answers.iter().map(|(.., one)| one.payload.len()).sum();
            assert_eq!(bytes, heard.answers_bytes);
            assert!(bytes <= ANSWERS_BYTES_MAX && heard.answers.len() <= ANSWERS_MAX);
        }
        assert_eq!(heard.answer(&(node, 0)), None);
        assert_eq!(heard.answer(&(NodeId::from_hash(&[8; 32]), 1_279)), None, "another's");
        heard.forget_old(now + ANSWERS_KEPT);
        assert!(heard.answer(&(node, 1_279)).is_some());
        heard.forget_old(now + ANSWERS_KEPT + Duration::from_secs(1));
        assert_eq!((heard.answers.len(), heard.answers_bytes), (0, 0));
        assert!(heard.has(&(node, 1_279)), "it is not done twice for that");
    }

    #[test]
    fn what_is_too_long_is_asked_again() {
        let (mut heard, request) = (Heard::default(), (node(), 5));
        heard.note(request);
        heard.answered(request, answer(ANSWER_BYTES_MAX + 1), Instant::now());
        assert!(!heard.has(&request) && heard.answer(&request).is_none() && heard.order.is_empty());
        heard.note(request);
        assert!(heard.has(&request));
    }
}
