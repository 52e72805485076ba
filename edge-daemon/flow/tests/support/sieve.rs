//! The transforms of these tests: one that works at once, and the same one elsewhere.

use async_trait::async_trait;
use bus_schema::data::Batch;
use flow::{Fault, Outside, Transform, Transformed, Trouble};

use super::{Luck, World, lost, values};

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

/// A sieve that has to be waited for, and fails as the dice say.
pub struct DistantSieve {
    pub world: World,
    pub sieve: Sieve,
}

impl Transform for DistantSieve {
    fn apply(&mut self, _: Batch) -> Result<Transformed, Fault> {
        panic!("nobody waited for it")
    }

    fn outside(&mut self) -> Option<&mut dyn Outside> {
        Some(self)
    }
}

#[async_trait]
impl Outside for DistantSieve {
    async fn apply(&mut self, input: Batch) -> Result<Transformed, Fault> {
        self.world.take_time().await;
        match self.world.luck() {
            Luck::Good => self.sieve.apply(input),
            Luck::Before | Luck::After => Err(lost("distant sieve")),
        }
    }

    async fn check(&mut self) -> Result<String, Trouble> {
        panic!("nobody checks here")
    }
}
