//! Numbers that have arrived, in little room however many they are.

use std::collections::BTreeMap;

/// Numbers from one on.
#[derive(Debug, Default, Clone)]
pub struct Numbers {
    /// All up to this one are there.
    upto: u64,
    /// Those beyond the first gap: the first and the last of each run of them. Some are lost for good, and many follow.
    beyond: BTreeMap<u64, u64>,
    /// How often one came that was there.
    pub doubles: u64,
}

impl Numbers {
    /// One has come.
    pub fn add(&mut self, number: u64) {
        if number <= self.upto || self.is_beyond(number) {
            self.doubles += 1;
            return;
        }
        let (mut first, mut last) = (number, number);
        if let Some((before, end)) = self.beyond.range(..number).next_back()
            && end + 1 == number
        {
            first = *before;
        }
        if let Some(end) = self.beyond.remove(&(number + 1)) {
            last = end;
        }
        if first == self.upto + 1 {
            self.beyond.remove(&first);
            self.upto = last;
        } else {
            self.beyond.insert(first, last);
        }
    }

    fn is_beyond(&self, number: u64) -> bool {
        let run = self.beyond.range(..=number).next_back();
        run.is_some_and(|(_, last)| number <= *last)
    }

    /// All of these.
    pub fn of(numbers: impl IntoIterator<Item = u64>) -> Self {
        let mut all = Self::default();
        numbers.into_iter().for_each(|number| all.add(number));
        all
    }

    /// Those up to a number that are missing, the first few.
    pub fn missing(&self, last: u64) -> Vec<u64> {
        let missing = (self.upto + 1..=last).filter(|number| !self.is_beyond(*number));
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
    let mut numbers = Numbers::of([5, 7, 6, 9, 10, 8, 6, 2]);
    assert_eq!((numbers.upto, numbers.doubles, numbers.beyond.len()), (0, 1, 2));
    [3, 1, 4, 10].into_iter().for_each(|number| numbers.add(number));
    assert!(numbers.is_all(10) && numbers.doubles == 2);
}
