//! Transforms that give more than they get, and that remember.

use bus_schema::data::Batch;
use flow::{Fault, Stage, Transform, Transformed};

use super::{batch, values};

/// Each number becomes so many as it is by the remainder of this: itself, and itself plus a million, two million, ….
pub struct Copies {
    pub by: i64,
    made: usize,
}

impl Copies {
    pub fn stage(node: &str, after: Option<usize>, by: i64) -> Stage {
        Stage {
            after,
            node: node.to_string(),
            transform: Box::new(Self { by, made: 0 }),
        }
    }

    /// What one number becomes.
    pub fn of(number: i64, by: i64) -> Vec<i64> {
        (0..number % by).map(|copy| number + copy * 1_000_000).collect()
    }
}

impl Transform for Copies {
    fn apply(&mut self, input: Batch) -> Result<Transformed, Fault> {
        let copies: Vec<Vec<i64>> = values(&input).iter().map(|n| Self::of(*n, self.by)).collect();
        self.made = copies.iter().map(|copies| copies.len().saturating_sub(1)).sum();
        Ok(batch(&copies.concat()).into())
    }

    fn made(&mut self) -> usize {
        self.made
    }
}

/// The same, of so many numbers at a time: what comes of more would be too much.
pub struct Few {
    copies: Copies,
    most: usize,
    left: usize,
}

impl Few {
    pub fn stage(node: &str, after: Option<usize>, by: i64, most: usize) -> Stage {
        Stage {
            after,
            node: node.to_string(),
            transform: Box::new(Self {
                copies: Copies { by, made: 0 },
                most,
                left: 0,
            }),
        }
    }
}

impl Transform for Few {
    fn apply(&mut self, input: Batch) -> Result<Transformed, Fault> {
        self.left = input.rows().saturating_sub(self.most);
        self.copies.apply(input.slice(0..self.most))
    }

    fn made(&mut self) -> usize {
        self.copies.made
    }

    fn left(&mut self) -> usize {
        self.left
    }
}

/// Every so many numbers become their sum. What fails is in no sum.
pub struct Sums {
    every: u8,
    fails: i64,
    sum: i64,
    seen: u8,
    made: usize,
}

impl Sums {
    pub fn stage(node: &str, after: Option<usize>, every: u8, fails: i64) -> Stage {
        Stage {
            after,
            node: node.to_string(),
            transform: Box::new(Self {
                every,
                fails,
                sum: 0,
                seen: 0,
                made: 0,
            }),
        }
    }

    fn sums(&mut self, input: &Batch, is_last: bool) -> Transformed {
        let (mut sums, mut rejected) = (Vec::new(), Vec::new());
        for (row, number) in values(input).into_iter().enumerate() {
            if number % self.fails == 0 {
                rejected.push((row, "fails".to_string()));
                continue;
            }
            (self.sum, self.seen) = (self.sum + number, self.seen + 1);
            if self.seen == self.every {
                sums.push(std::mem::take(&mut self.sum));
                self.seen = 0;
            }
        }
        if is_last && self.seen > 0 {
            sums.push(std::mem::take(&mut self.sum));
            self.seen = 0;
        }
        self.made = sums.len();
        Transformed {
            batch: batch(&sums),
            rejected,
        }
    }
}

impl Transform for Sums {
    fn apply(&mut self, input: Batch) -> Result<Transformed, Fault> {
        Ok(self.sums(&input, false))
    }

    fn made(&mut self) -> usize {
        self.made
    }

    fn finish(&mut self, input: Batch) -> Result<Transformed, Fault> {
        Ok(self.sums(&input, true))
    }

    fn remembers(&self) -> bool {
        true
    }

    fn state(&self) -> Vec<u8> {
        [&self.sum.to_be_bytes()[..], &[self.seen]].concat()
    }

    fn restore(&mut self, state: Option<&[u8]>, _: usize) -> Result<(), Fault> {
        (self.sum, self.seen) = match state {
            Some(state) => (i64::from_be_bytes(state[..8].try_into().unwrap()), state[8]),
            None => (0, 0),
        };
        Ok(())
    }
}
