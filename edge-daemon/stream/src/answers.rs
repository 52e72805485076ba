//! How often a consumer acknowledges what has merely arrived. The producer's window lives on these answers: at the beginning
//! and on a slow line each one counts, on a fast line they would only cost. Pure.

use std::time::{Duration, Instant};

/// Answers in a row before they are spaced out.
const ROW: u32 = 8;
/// Then one in so long.
const APART: Duration = Duration::from_millis(150);

/// The answers of one stream.
#[derive(Debug, Clone)]
pub struct Answers {
    /// When a full row of them is free again.
    free_at: Instant,
}

impl Answers {
    /// None was given yet.
    pub fn new(now: Instant) -> Self {
        Self { free_at: now }
    }

    /// When the next one may be given.
    pub fn next(&self, now: Instant) -> Instant {
        self.free_at
            .checked_sub(APART * (ROW - 1))
            .map_or(now, |at| at.max(now))
    }

    /// One was given.
    pub fn given(&mut self, now: Instant) {
        // Those that are given for other reasons do not pile up.
        self.free_at = (self.free_at.max(now) + APART).min(now + APART * ROW);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_answers_are_free_and_then_they_are_spaced_out() {
        let start = Instant::now();
        let mut answers = Answers::new(start);
        for n in 0..ROW {
            assert_eq!(answers.next(start), start, "answer {n}");
            answers.given(start);
        }
        assert_eq!(answers.next(start), start + APART);
        for _ in 0..100 {
            answers.given(start);
        }
        assert_eq!(answers.next(start), start + APART);
        answers.given(start + APART);
        assert_eq!(answers.next(start + APART), start + APART * 2);
        let later = start + APART * 20;
        for _ in 0..ROW {
            assert_eq!(answers.next(later), later);
            answers.given(later);
        }
    }
}
