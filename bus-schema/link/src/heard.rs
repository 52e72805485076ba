//! The requests that came lately, so that one that is sent again is not carried out again. Bounded; knows no connection.

use std::collections::{HashSet, VecDeque};

use bus_schema::id::NodeId;

/// Requests remembered. One is sent again within seconds, and so many come to a plane in far longer.
const REMEMBERED_MAX: usize = 1024;

/// Who asked, and under which number.
pub type Request = (NodeId, u64);

/// The requests that came lately.
#[derive(Debug, Default)]
pub struct Heard {
    set: HashSet<Request>,
    order: VecDeque<Request>,
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_known_and_the_rest_forgotten() {
        let (mut heard, node) = (Heard::default(), NodeId::from_hash(&[7; 32]));
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
}
