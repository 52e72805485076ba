//! What becomes of a batch in which a process dies, again and again: one of its records may be why, and must not stop all that
//! come after it. They are given one by one then, and the one that does it again is rejected.

use async_trait::async_trait;
use bus_schema::data::Batch;
use flow::Fault;

/// Tries of a batch before the runner is told, which then waits and tries again, and of a record by itself before it is
/// rejected: whatever ended the process once may have nothing to do with the record.
const TRIES: u32 = 2;

/// How often a process may die in one batch before its records are suspected, unless the config says something else.
pub(crate) fn failures_usual() -> u32 {
    3
}

/// Why nothing came of a batch.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The process could not be started, or not be given anything, or wants it later: that says nothing of the records.
    Blameless(Fault),
    /// It ended, or took more time or memory than it may, while it had them.
    Work(Fault),
}

impl Failure {
    pub(crate) fn fault(self) -> Fault {
        match self {
            Self::Blameless(fault) | Self::Work(fault) => fault,
        }
    }
}

/// Why a record is rejected that its process dies of.
pub(crate) fn blamed(fault: &Fault) -> String {
    format!("{fault} (whenever it is given this record)")
}

/// A process that answers a batch row by row.
#[async_trait]
pub(crate) trait Answers: Send {
    /// What is known of a row then.
    type Row: Send;

    /// Starts the process if it does not run, and has a batch answered: as many as it has rows, of together not much more
    /// than `bytes_left`. After a failure the process is gone.
    async fn answers(&mut self, batch: &Batch, bytes_left: &mut usize) -> Result<Vec<Self::Row>, Failure>;

    /// Whether the process starts, and goes on while it has no record. The fault says that it does not.
    async fn starts(&mut self) -> Result<(), Fault>;

    /// A row that is rejected for this reason.
    fn rejected(reason: String) -> Self::Row;
}

/// Has a batch answered. `failures_max` of 0: no record is suspected, however often the process dies.
pub(crate) async fn answered<A: Answers>(
    process: &mut A,
    batch: &Batch,
    bytes_max: usize,
    failures_max: u32,
) -> Result<Vec<A::Row>, Fault> {
    let (mut failures, mut tries) = (0, 0);
    loop {
        tries += 1;
        let failure = match process.answers(batch, &mut { bytes_max }).await {
            Ok(rows) => return Ok(rows),
            Err(failure) => failure,
        };
        failures += u32::from(matches!(failure, Failure::Work(_)));
        let fault = failure.fault();
        if failures_max > 0 && failures >= failures_max {
            tracing::warn!(%fault, failures, "the records of the batch are given to it one by one");
            return one_by_one(process, batch, bytes_max).await;
        }
        // A batch that is about to be suspected is not given back: the count would begin anew.
        let goes_on = tries < TRIES || failures == tries && failures < failures_max;
        if !goes_on || !matches!(fault, Fault::Retry { .. }) {
            return Err(fault);
        }
        tracing::warn!(%fault, "the process is started again, and gets the batch again");
    }
}

async fn one_by_one<A: Answers>(process: &mut A, batch: &Batch, mut bytes_left: usize) -> Result<Vec<A::Row>, Fault> {
    let mut rows = Vec::with_capacity(batch.rows());
    for row in 0..batch.rows() {
        let alone = batch.slice(row..row + 1);
        let mut tries = 0;
        let fault = loop {
            tries += 1;
            match process.answers(&alone, &mut bytes_left).await {
                Ok(answers) => {
                    rows.extend(answers);
                    break None;
                }
                Err(Failure::Blameless(fault)) => return Err(fault),
                Err(Failure::Work(fault)) if tries == TRIES => break Some(fault),
                Err(Failure::Work(_)) => {}
            }
        };
        if let Some(fault) = fault {
            // A process that ends in any case has nothing against this record.
            process.starts().await?;
            tracing::warn!(%fault, row, "a record that does this to its process goes to the dead letters");
            rows.push(A::rejected(blamed(&fault)));
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use bus_schema::data::{Field, Op, Type, Value};

    use super::*;
    use crate::file::testing::batch_of;

    /// Dies at some numbers, and starts only so often.
    struct Fragile {
        deadly: Vec<i64>,
        starts_left: u32,
        asked: u32,
    }

    #[async_trait]
    impl Answers for Fragile {
        type Row = String;

        async fn answers(&mut self, batch: &Batch, _: &mut usize) -> Result<Vec<String>, Failure> {
            self.asked += 1;
            self.starts().await.map_err(Failure::Blameless)?;
            let number = |row| match batch.cell(row, 0).to_value() {
                Value::I64(number) => number,
                other => panic!("{other:?}"),
            };
            let numbers: Vec<i64> = (0..batch.rows()).map(number).collect();
            match numbers.iter().find(|number| self.deadly.contains(number)) {
                Some(_) => Err(Failure::Work(Fault::retry("dead"))),
                None => Ok(numbers.iter().map(i64::to_string).collect()),
            }
        }

        async fn starts(&mut self) -> Result<(), Fault> {
            self.starts_left = self.starts_left.checked_sub(1).ok_or(Fault::retry("no start"))?;
            Ok(())
        }

        fn rejected(reason: String) -> String {
            reason
        }
    }

    #[tokio::test]
    async fn who_kills_is_found_and_nobody_else() {
        const DEAD: &str = "dead (whenever it is given this record)";
        for (deadly, starts_left, failures_max, wanted, asked) in [
            (vec![], 99, 3, Ok(vec!["0", "1", "2"]), 1),
            (vec![1], 99, 3, Ok(vec!["0", DEAD, "2"]), 3 + 4),
            (vec![1], 99, 1, Ok(vec!["0", DEAD, "2"]), 1 + 4),
            (vec![0, 2], 99, 3, Ok(vec![DEAD, "1", DEAD]), 3 + 5),
            (vec![0, 1, 2], 99, 3, Ok(vec![DEAD; 3]), 3 + 6),
            // Never.
            (vec![1], 99, 0, Err("dead"), 2),
            // Without a start nobody is to blame: not before, not meanwhile, and not before the last word.
            (vec![1], 0, 3, Err("no start"), 2),
            (vec![1], 2, 3, Err("no start"), 3),
            (vec![1], 5, 3, Err("no start"), 6),
            (vec![1], 6, 3, Err("no start"), 6),
        ] {
            let rows: Vec<[Value; 1]> = (0..3).map(|number| [Value::I64(number)]).collect();
            let rows: Vec<(Op, &[Value])> = rows.iter().map(|row| (Op::Insert, row.as_slice())).collect();
            let batch = batch_of(vec![Field::new("n", Type::I64)], &rows);
            let mut process = Fragile {
                deadly: deadly.clone(),
                starts_left,
                asked: 0,
            };
            let done = answered(&mut process, &batch, 1_000, failures_max).await;
            let done = done.map_err(|fault| fault.to_string());
            let wanted = wanted
                .map(|rows| rows.into_iter().map(str::to_string).collect())
                .map_err(str::to_string);
            let place = format!("{deadly:?} {starts_left} {failures_max}");
            assert_eq!((done, process.asked), (wanted, asked), "{place}");
        }
    }
}
