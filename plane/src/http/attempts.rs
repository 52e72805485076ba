//! Log-ins that failed, counted by name and by address, so that nobody tries many passwords. Reads no clock.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// Failures of one name or address within [`WINDOW_MS`] after which it has to wait.
const FAILURES_MAX: u32 = 10;
/// How long failures count, in milliseconds.
const WINDOW_MS: u64 = 5 * 60 * 1_000;
/// Names and addresses that are remembered.
const KEYS_MAX: usize = 4_096;

/// Failures by key: how many, and when the first of them was.
#[derive(Debug, Default)]
pub struct Attempts(Mutex<HashMap<String, (u32, u64)>>);

impl Attempts {
    /// How long to wait before another attempt, in seconds; `None`: not at all.
    pub(super) fn wait_s(&self, keys: &[String], now_ms: u64) -> Option<u64> {
        let failed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = keys.iter().filter_map(|key| {
            let (count, since) = failed.get(key)?;
            let left_ms = (since + WINDOW_MS).saturating_sub(now_ms);
            (*count >= FAILURES_MAX && left_ms > 0).then(|| left_ms.div_ceil(1_000))
        });
        waits.max()
    }

    /// An attempt is made: it counts as failed until [`Self::succeeded`], so that many at once are counted too.
    pub(super) fn tried(&self, keys: &[String], now_ms: u64) {
        let mut failed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failed.retain(|_, (_, since)| *since + WINDOW_MS > now_ms);
        for key in keys {
            if failed.len() >= KEYS_MAX && !failed.contains_key(key) {
                let oldest = failed.iter().min_by_key(|(_, (_, since))| *since);
                let oldest = oldest.map(|(key, _)| key.clone());
                oldest.and_then(|key| failed.remove(&key));
            }
            failed.entry(key.clone()).or_insert((0, now_ms)).0 += 1;
        }
    }

    /// It was the right password.
    pub(super) fn succeeded(&self, keys: &[String]) {
        let mut failed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for key in keys {
            failed.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_failures_make_wait_and_time_heals() {
        let attempts = Attempts::default();
        let [name, other] = ["name anna", "name bert"].map(|key| vec![key.to_string()]);
        for n in 0..FAILURES_MAX {
            assert_eq!(attempts.wait_s(&name, 0), None, "{n}");
            attempts.tried(&name, 0);
        }
        assert_eq!(attempts.wait_s(&name, 0), Some(WINDOW_MS / 1_000));
        assert_eq!(attempts.wait_s(&other, 0), None);
        assert_eq!(attempts.wait_s(&name, WINDOW_MS), None);
        attempts.succeeded(&name);
        assert_eq!(attempts.wait_s(&name, 0), None);
        for n in 0..KEYS_MAX + 10 {
            attempts.tried(&[n.to_string()], 1);
        }
        assert_eq!(attempts.0.lock().unwrap().len(), KEYS_MAX, "bounded");
    }
}
