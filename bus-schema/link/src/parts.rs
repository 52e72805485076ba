//! Long messages: split into the bodies of several envelopes, and put together again. Bounded in how many are under way at
//! one time, and for how long. Seals nothing.

use std::{collections::HashMap, time::Duration};

use bus_schema::{
    id::NodeId,
    limits::{MESSAGE_BYTES_MAX, PART_BYTES},
    message::{Body, Exchange},
};
use tokio::time::Instant;

/// Long messages being put together at one time.
const PARTIAL_MAX: usize = 16;
/// How long the parts of one message may take.
const PARTIAL_AGE_MAX: Duration = Duration::from_secs(30);

/// Longer than any message may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message of {bytes} bytes is over the limit of {MESSAGE_BYTES_MAX}")]
pub struct TooLarge {
    /// Its size.
    pub bytes: usize,
}

#[derive(Debug)]
struct Partial {
    started: Instant,
    parts: Vec<Option<Vec<u8>>>,
}

/// Long messages on their way in, by sender and correlation.
#[derive(Debug, Default)]
pub struct Assembly(HashMap<(NodeId, u64), Partial>);

impl Assembly {
    /// Takes a part; returns the message when it was the last one missing.
    pub fn take(&mut self, sender: NodeId, body: &Body<'_>, now: Instant) -> Option<Vec<u8>> {
        let count = usize::from(body.parts);
        if count <= 1 {
            return Some(body.payload.to_vec());
        }
        if count > MESSAGE_BYTES_MAX.div_ceil(PART_BYTES) || usize::from(body.part) >= count {
            return None;
        }
        self.0
            .retain(|_, partial| now.duration_since(partial.started) < PARTIAL_AGE_MAX);
        let key = (sender, body.correlation);
        if self.0.len() >= PARTIAL_MAX && !self.0.contains_key(&key) {
            return None;
        }
        let partial = self.0.entry(key).or_insert_with(|| Partial {
            started: now,
            parts: vec![None; count],
        });
        if let Some(slot) = partial.parts.get_mut(usize::from(body.part)) {
            *slot = Some(body.payload.to_vec());
        }
        if partial.parts.iter().any(Option::is_none) {
            return None;
        }
        let partial = self.0.remove(&key)?;
        Some(partial.parts.into_iter().flatten().collect::<Vec<_>>().concat())
    }
}

/// A message as the bodies of one or more envelopes.
pub fn parts(
    kind: u16,
    ver: u8,
    exchange: Exchange,
    correlation: u64,
    payload: &[u8],
) -> Result<Vec<Vec<u8>>, TooLarge> {
    if payload.len() > MESSAGE_BYTES_MAX {
        return Err(TooLarge { bytes: payload.len() });
    }
    let count = payload.len().div_ceil(PART_BYTES).max(1) as u16;
    let body = |part: u16| {
        let start = usize::from(part) * PART_BYTES;
        let end = payload.len().min(start + PART_BYTES);
        Body {
            kind,
            ver,
            exchange,
            correlation,
            part,
            parts: count,
            payload: &payload[start..end],
        }
        .encode()
    };
    Ok((0..count).map(body).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_come_together_in_any_order_and_bounded() {
        let payload: Vec<u8> = (0..200_000u32).map(|n| n as u8).collect();
        let bodies = parts(1, 1, Exchange::OneWay, 7, &payload).unwrap();
        assert_eq!(bodies.len(), 4);
        let sender = NodeId::from_hash(&[1; 32]);
        let (mut assembly, now) = (Assembly::default(), Instant::now());
        let mut whole = None;
        for body in bodies.iter().rev() {
            assert_eq!(whole, None);
            whole = assembly.take(sender, &Body::decode(body).unwrap(), now);
        }
        assert_eq!(whole, Some(payload));
        assert!(assembly.0.is_empty());
        for correlation in 0..100 {
            let first = &parts(1, 1, Exchange::OneWay, correlation, &[0; 100_000]).unwrap()[0];
            assembly.take(sender, &Body::decode(first).unwrap(), now);
        }
        assert_eq!(assembly.0.len(), PARTIAL_MAX);
        assert!(parts(1, 1, Exchange::OneWay, 1, &vec![0; MESSAGE_BYTES_MAX + 1]).is_err());
    }
}
