//! Numbers that have arrived, in little room however many they are.

use std::collections::BTreeSet;

/// Numbers from one on.
#[derive(Debug, Default, Clone)]
pub struct Numbers {
    /// All up to this one are there.
    upto: u64,
    /// Those beyond the first gap.
    beyond: BTreeSet<u64>,
    /// How often one came that was there.
    pub doubles: u64,
}

impl Numbers {
    /// One has come.
    pub fn add(&mut self, number: u64) {
        if number <= self.upto || !self.beyond.insert(number) {
            self.doubles += 1;
            return;
        }
        while self.beyond.remove(&(self.upto + 1)) {
            self.upto += 1;
        }
    }

    /// All of these.
    pub fn of(numbers: impl IntoIterator<Item = u64>) -> Self {
        let mut all = Self::default();
        numbers.into_iter().for_each(|number| all.add(number));
        all
    }

    /// Those up to a number that are missing, the first few.
    pub fn missing(&self, last: u64) -> Vec<u64> {
        let missing = (self.upto + 1..=last).filter(|number| !self.beyond.contains(number));
        missing.take(10).collect()
    }

    /// Whether all up to a number are there, and none above it.
    pub fn is_all(&self, last: u64) -> bool {
        self.upto == last && self.beyond.is_empty()
    }
}

#[test]
fn gaps_and_doubles_are_seen() {
    let numbers = Numbers::of([1, 2, 5, 2, 4]);
    assert_eq!((numbers.upto, numbers.doubles), (2, 1));
    assert_eq!(numbers.missing(6), [3, 6]);
    let numbers = Numbers::of([3, 1, 2]);
    assert!(numbers.is_all(3) && !numbers.is_all(4) && !numbers.is_all(2));
}
