//! The books of a stream, as a test counts them. Never reads them from a process: the test fills them in.

/// How many records came in, and where each of them is now.
///
/// Every fault test ends with [`Ledger::assert_balances`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Records the source handed over.
    pub produced: u64,
    /// Records durable at the destination.
    pub delivered: u64,
    /// Records waiting in a spool or in flight.
    pub buffered: u64,
    /// Records given up on, and reported as gaps.
    pub dropped: u64,
    /// Records the destination or a transform refused, kept as dead letters.
    pub dead_lettered: u64,
}

impl Ledger {
    /// How many records are missing or counted twice; `None` when
    /// `produced = delivered + buffered + dropped + dead_lettered`.
    #[must_use]
    pub fn imbalance(&self) -> Option<String> {
        let accounted: i128 = [self.delivered, self.buffered, self.dropped, self.dead_lettered]
            .iter()
            .map(|n| i128::from(*n))
            .sum();
        let missing = i128::from(self.produced) - accounted;
        match missing {
            0 => None,
            n if n > 0 => Some(format!("{n} lost without a trace")),
            n => Some(format!("{} counted twice", -n)),
        }
    }

    /// Panics unless the books balance, with all of them.
    #[track_caller]
    pub fn assert_balances(&self, what: &str) {
        let Some(verdict) = self.imbalance() else { return };
        panic!(
            "the ledger of {what} does not balance: {verdict}\n  produced      {:>12}\n  delivered     {:>12}\n  buffered      \
             {:>12}\n  dropped       {:>12}\n  dead-lettered {:>12}",
            self.produced, self.delivered, self.buffered, self.dropped, self.dead_lettered
        );
    }

    /// Panics unless the books balance and every record is at the destination: nothing waits, was dropped or refused.
    #[track_caller]
    pub fn assert_all_delivered(&self, what: &str) {
        self.assert_balances(what);
        let elsewhere = [self.buffered, self.dropped, self.dead_lettered];
        assert_eq!(
            elsewhere, [0; 3],
            "{what}: not everything was delivered (buffered, dropped, dead-lettered)"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        // (produced, delivered, buffered, dropped, dead-lettered), what the failure must say
        let cases: &[([u64; 5], Option<&str>)] = &[
            ([0, 0, 0, 0, 0], None),
            ([10, 4, 3, 2, 1], None),
            ([u64::MAX, u64::MAX, 0, 0, 0], None),
            ([10, 9, 0, 0, 0], Some("1 lost without a trace")),
            ([10, 10, 2, 0, 0], Some("2 counted twice")),
        ];
        for ([produced, delivered, buffered, dropped, dead_lettered], want) in cases {
            let ledger = Ledger {
                produced: *produced,
                delivered: *delivered,
                buffered: *buffered,
                dropped: *dropped,
                dead_lettered: *dead_lettered,
            };
            let got = std::panic::catch_unwind(|| ledger.assert_balances("orders"));
            match (want, got) {
                (None, Ok(())) => {}
                (Some(want), Err(panic)) => {
                    let text = panic.downcast_ref::<String>().unwrap();
                    assert!(text.contains(want) && text.contains("orders"), "{text}");
                }
                (want, got) => panic!("{ledger:?}: wanted {want:?}, got {got:?}"),
            }
        }
    }

    #[test]
    #[should_panic(expected = "not everything was delivered")]
    fn waiting_is_not_delivered() {
        Ledger {
            produced: 2,
            delivered: 1,
            buffered: 1,
            ..Ledger::default()
        }
        .assert_all_delivered("orders");
    }
}
