//! A source that counts as far as a plan says: what destinations are given. Its position is the last number.

use async_trait::async_trait;
use bus_schema::data::{BatchBuilder, Cell, Field, Op, Origin, Schema, Type, Zone};
use flow::{Fault, Position, Read, Source, SourceBatch};
use std::time::Duration;

use crate::bench::Plan;

/// Records in a batch.
const BATCH_ROWS: u64 = 100;
/// How long it waits for more.
const WAIT: Duration = Duration::from_millis(20);
/// 2024-01-01, in nanoseconds: each record has a time of its own.
const BEGIN_NS: i128 = 1_704_067_200_000_000_000;

/// Counts.
pub struct Counter {
    plan: Plan,
    at: u64,
    pad: String,
}

impl Counter {
    /// Goes by a plan.
    pub fn new(plan: Plan) -> Self {
        let pad = "x".repeat(80);
        Self { plan, at: 0, pad }
    }
}

#[async_trait]
impl Source for Counter {
    async fn open(&mut self, after: Option<&Position>) -> Result<(), Fault> {
        let at = after.and_then(|position| position.as_bytes().try_into().ok());
        self.at = at.map_or(0, u64::from_be_bytes);
        Ok(())
    }

    async fn read(&mut self) -> Result<Read, Fault> {
        let last = self.plan.last().min(self.at + BATCH_ROWS);
        if last == self.at {
            tokio::time::sleep(WAIT).await;
            return Ok(Read::Idle);
        }
        let drifts = self.at + 1 >= self.plan.drift_from();
        let mut fields = vec![
            Field::new("n", Type::I64).key(),
            Field::new("v", Type::Text),
            Field::new("time", Type::Timestamp(Zone::Utc)),
        ];
        if drifts {
            fields.push(Field::new("extra", Type::Text));
        }
        let schema = Schema {
            collection: "numbers".into(),
            fields,
        };
        let mut rows = BatchBuilder::new(schema.into());
        for number in self.at + 1..=last {
            let bad = self.plan.bad().filter(|(bad, _)| *bad == number);
            let op = bad.map_or(Op::Insert, |(_, op)| op);
            let mut cells = vec![
                Cell::I64(number as i64),
                Cell::Text(&self.pad),
                Cell::TimestampUtc(BEGIN_NS + i128::from(number) * 1_000_000),
            ];
            if drifts {
                cells.push(Cell::Text("more"));
            }
            rows.push(op, &cells).unwrap();
        }
        self.at = last;
        self.plan.given(last);
        Ok(Read::Batch(SourceBatch {
            batch: rows.finish(Origin::default()),
            position: Position::new(last.to_be_bytes()),
            undecodable: Vec::new(),
        }))
    }
}
