//! What a broker and two connections may do to messages: delay, lose, double, and after a reconnect deliver old ones after
//! new ones. Within one connection they stay in order.

use std::collections::VecDeque;

use crate::dice::Dice;

/// Messages on their way in one direction.
#[derive(Debug)]
pub struct Lane<T> {
    /// One queue for each connection that still has something under way.
    connections: Vec<VecDeque<T>>,
}

/// What may happen to a message, each once in so many; 0 for never.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    /// Lost.
    pub loses: u64,
    /// Delivered twice.
    pub doubles: u64,
}

impl<T> Default for Lane<T> {
    /// Nothing is under way.
    fn default() -> Self {
        Self {
            connections: vec![VecDeque::new()],
        }
    }
}

impl<T: Clone> Lane<T> {
    /// A message leaves.
    pub fn push(&mut self, message: T) {
        if let Some(newest) = self.connections.last_mut() {
            newest.push_back(message);
        }
    }

    /// A new connection: what is under way on older ones arrives whenever it likes, or never.
    pub fn reconnect(&mut self, keeps: bool) {
        if !keeps {
            self.connections.clear();
        }
        self.connections.retain(|queue| !queue.is_empty());
        self.connections.push(VecDeque::new());
    }

    /// The next message to arrive, unless it is lost.
    pub fn pop(&mut self, weather: Weather, dice: &mut Dice) -> Option<T> {
        let filled: Vec<usize> = (0..self.connections.len())
            .filter(|index| !self.connections[*index].is_empty())
            .collect();
        let index = *filled.get(dice.below(filled.len().max(1) as u64) as usize)?;
        let hits = |dice: &mut Dice, once_in: u64| once_in > 0 && dice.once_in(once_in);
        let queue = &mut self.connections[index];
        if hits(dice, weather.loses) {
            queue.pop_front();
            return None;
        }
        if hits(dice, weather.doubles) {
            return queue.front().cloned();
        }
        queue.pop_front()
    }

    /// Nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.connections.iter().all(VecDeque::is_empty)
    }
}
