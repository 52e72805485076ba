//! The one transform of these tests.

use bus_schema::data::Batch;
use flow::{Fault, Transform, Transformed};

use super::values;

/// Drops what is not a multiple of `keeps`, and fails on multiples of `fails`.
pub struct Sieve {
    pub keeps: i64,
    pub fails: i64,
}

impl Transform for Sieve {
    fn apply(&mut self, input: Batch) -> Result<Transformed, Fault> {
        let numbers = values(&input);
        let fails = |n: i64| n % self.fails == 0;
        let kept: Vec<usize> = (0..numbers.len())
            .filter(|row| numbers[*row] % self.keeps == 0 && !fails(numbers[*row]))
            .collect();
        let bad = (0..numbers.len()).filter(|row| fails(numbers[*row]));
        Ok(Transformed {
            batch: input.take(&kept),
            rejected: bad.map(|row| (row, "fails".to_string())).collect(),
        })
    }
}
