//! Percentiles of numbers without keeping them: how many lie in each of many narrow ranges, every one about 2 % wider than the
//! one before it (Masson, Rim, Lee: "DDSketch", VLDB 2019). What is read from it is within 1 % of a number that was put in.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where one range ends, over where it begins: (1 + 0.01) / (1 - 0.01).
const GAMMA: f64 = 1.01 / 0.99;

/// How many numbers lie in which range.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Sketch {
    /// Of numbers below 0, by what they are without the sign.
    below: BTreeMap<i32, u64>,
    zeros: u64,
    above: BTreeMap<i32, u64>,
}

impl Sketch {
    /// Puts a finite number in.
    pub(super) fn add(&mut self, number: f64) {
        // A range for every float that is not 0 fits an i32 by far.
        let range = |size: f64| (size.ln() / GAMMA.ln()).ceil() as i32;
        if number > 0.0 {
            *self.above.entry(range(number)).or_default() += 1;
        } else if number < 0.0 {
            *self.below.entry(range(-number)).or_default() += 1;
        } else {
            self.zeros += 1;
        }
    }

    /// Puts all numbers of another one in.
    pub(super) fn merge(&mut self, other: &Self) {
        for (own, others) in [(&mut self.below, &other.below), (&mut self.above, &other.above)] {
            for (range, count) in others {
                *own.entry(*range).or_default() += count;
            }
        }
        self.zeros += other.zeros;
    }

    /// A number below or at which so many hundredths of all lie; `None` without numbers.
    pub(super) fn percentile(&self, percent: f64) -> Option<f64> {
        let middle = |range: i32| 2.0 * GAMMA.powi(range) / (GAMMA + 1.0);
        let below = self.below.iter().rev().map(|(range, count)| (-middle(*range), *count));
        let above = self.above.iter().map(|(range, count)| (middle(*range), *count));
        let zeros = (self.zeros > 0).then_some((0.0, self.zeros));
        let in_order: Vec<(f64, u64)> = below.chain(zeros).chain(above).collect();
        let all: u64 = in_order.iter().map(|(_, count)| count).sum();
        let rank = ((percent / 100.0 * all as f64).ceil() as u64).max(1);
        let mut seen = 0;
        let mut reached = in_order.iter().filter(|(_, count)| {
            seen += count;
            seen >= rank
        });
        reached.next().map(|(number, _)| *number)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against the numbers themselves, in order.
        #[test]
        fn is_within_one_percent(numbers in prop::collection::vec(-1e12..1e12f64, 1..200), percent in 0.0..=100.0f64) {
            let mut sketch = Sketch::default();
            let (mut first, mut second) = (Sketch::default(), Sketch::default());
            for (at, number) in numbers.iter().enumerate() {
                sketch.add(*number);
                if at % 3 == 0 { first.add(*number) } else { second.add(*number) }
            }
            first.merge(&second);
            prop_assert_eq!(&first, &sketch);
            let mut sorted = numbers.clone();
            sorted.sort_by(f64::total_cmp);
            let rank = ((percent / 100.0 * sorted.len() as f64).ceil() as usize).max(1);
            let (found, exact) = (sketch.percentile(percent).unwrap(), sorted[rank - 1]);
            prop_assert!((found - exact).abs() <= 0.0101 * exact.abs(), "{} for {}", found, exact);
        }
    }

    #[test]
    fn nothing_has_no_percentile() {
        assert_eq!(Sketch::default().percentile(50.0), None);
        let mut zeros = Sketch::default();
        zeros.add(0.0);
        zeros.add(-0.0);
        assert_eq!(zeros.percentile(99.0), Some(0.0));
    }
}
