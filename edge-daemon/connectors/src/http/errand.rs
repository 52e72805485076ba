//! The records of one delivery on their way to a server that answers for a request and not for a record: what is sent
//! together, what is sent again in halves because it was refused, and what an attempt that failed had settled already.
//! Decides only; whoever has the connection sends.

use std::ops::Range;

use flow::{Delivery, Fault, Rejected};

use crate::key;

/// Deliveries remembered between attempts: more than share one commit.
const KEPT_MAX: usize = 64;

/// The records of a delivery as they are sent.
pub(crate) struct Encoded {
    content: Vec<u8>,
    rows: Vec<Result<Range<usize>, String>>,
    /// Name of the delivery, made of its content too.
    key: String,
}

impl Encoded {
    /// `encode` appends a row, or says why it cannot be sent.
    pub(crate) fn of(delivery: &Delivery, mut encode: impl FnMut(usize, &mut Vec<u8>) -> Result<(), String>) -> Self {
        let mut content = Vec::new();
        let mut row = |row| {
            let start = content.len();
            let made = encode(row, &mut content);
            if made.is_err() {
                content.truncate(start);
            }
            made.map(|()| start..content.len())
        };
        let rows = (0..delivery.batch.rows()).map(&mut row).collect();
        let key = key::of(delivery, &content);
        Self { content, rows, key }
    }

    /// A row's bytes.
    pub(crate) fn row(&self, row: usize) -> &[u8] {
        match self.rows.get(row) {
            Some(Ok(place)) => self.content.get(place.clone()).unwrap_or_default(),
            _ => &[],
        }
    }

    /// Some rows with something before, between and behind them.
    pub(crate) fn joined(&self, rows: &[usize], (before, between, behind): (&str, &str, &str)) -> Vec<u8> {
        let bytes: usize = rows.iter().map(|row| self.row(*row).len() + between.len()).sum();
        let mut out = Vec::with_capacity(bytes + before.len() + behind.len());
        out.extend_from_slice(before.as_bytes());
        for (index, row) in rows.iter().enumerate() {
            if index > 0 {
                out.extend_from_slice(between.as_bytes());
            }
            out.extend_from_slice(self.row(*row));
        }
        out.extend_from_slice(behind.as_bytes());
        out
    }
}

/// How a record stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Not answered for.
    Open,
    /// The server has it.
    Taken,
    /// It will never have it.
    Refused(String),
}

/// Sends the records of one delivery.
pub(crate) struct Errand {
    key: String,
    standing: Vec<Standing>,
    /// What is to be sent together, the next one last.
    waiting: Vec<Vec<usize>>,
    splits: bool,
}

impl Errand {
    /// The rows to send next.
    pub(crate) fn next_rows(&mut self) -> Option<Vec<usize>> {
        self.waiting.pop()
    }

    /// The server has all of these.
    pub(crate) fn taken(&mut self, rows: &[usize]) {
        for row in rows {
            self.standing[*row] = Standing::Taken;
        }
    }

    /// The server refused these together. Which of them it means shows when they are sent in halves.
    pub(crate) fn refused(&mut self, rows: &[usize], reason: &str) {
        if let (true, [_, _, ..]) = (self.splits, rows) {
            let (first, second) = rows.split_at(rows.len() / 2);
            self.waiting.push(second.to_vec());
            self.waiting.push(first.to_vec());
            return;
        }
        for row in rows {
            self.standing[*row] = Standing::Refused(reason.to_string());
        }
    }

    /// The server refused some of these, by their index among them, and it is not certain that it has the others: they are
    /// sent again.
    pub(crate) fn refused_some(&mut self, rows: &[usize], refused: &[(usize, String)]) {
        for (index, reason) in refused {
            if let Some(row) = rows.get(*index) {
                self.standing[*row] = Standing::Refused(reason.clone());
            }
        }
        let rest: Vec<usize> = rows
            .iter()
            .copied()
            .filter(|row| self.standing[*row] == Standing::Open)
            .collect();
        if !rest.is_empty() {
            self.waiting.push(rest);
        }
    }

    /// The server answered for each of these.
    pub(crate) fn answered(&mut self, rows: &[usize], standing: Vec<Standing>) {
        for (row, standing) in rows.iter().zip(standing) {
            self.standing[*row] = standing;
        }
    }

    /// Those it will never have, with the index of the delivery in the call.
    pub(crate) fn rejected(&self, delivery: usize) -> impl Iterator<Item = Rejected> {
        let standing = self.standing.iter().enumerate();
        standing.filter_map(move |(row, standing)| match standing {
            Standing::Refused(reason) => Some(Rejected {
                delivery,
                row,
                reason: reason.clone(),
            }),
            _ => None,
        })
    }
}

/// Remembers between attempts of one process what has been answered for: the runner gives a whole group again after a
/// fault, and most of it has usually arrived.
#[derive(Default)]
pub(crate) struct Errands(Vec<Errand>);

impl Errands {
    /// Takes up a delivery, where an earlier attempt left it.
    pub(crate) fn take_up(&mut self, encoded: &Encoded, rows_max: usize, splits: bool) -> Errand {
        let known = self.0.iter().position(|errand| errand.key == encoded.key);
        let standing = match known {
            Some(at) => self.0.swap_remove(at).standing,
            None => {
                let standing = |row: &Result<_, String>| match row {
                    Ok(_) => Standing::Open,
                    Err(reason) => Standing::Refused(reason.clone()),
                };
                encoded.rows.iter().map(standing).collect()
            }
        };
        let open = standing
            .iter()
            .enumerate()
            .filter(|(_, standing)| **standing == Standing::Open);
        let open: Vec<usize> = open.map(|(row, _)| row).collect();
        Errand {
            key: encoded.key.clone(),
            waiting: open.chunks(rows_max.max(1)).rev().map(<[usize]>::to_vec).collect(),
            standing,
            splits,
        }
    }

    /// Remembers how far one has come.
    pub(crate) fn remember(&mut self, mut errand: Errand) {
        errand.waiting.clear();
        if self.0.len() >= KEPT_MAX {
            self.0.remove(0);
        }
        self.0.push(errand);
    }

    /// Everything is settled.
    pub(crate) fn forget(&mut self) {
        self.0.clear();
    }
}

/// Something has to come again.
pub(crate) fn later(cause: String, after: Option<std::time::Duration>) -> Fault {
    Fault::Retry { cause, after }
}

#[cfg(test)]
mod tests {
    use bus_schema::data::{BatchBuilder, Field, Op, Origin, Schema, Type, Value};

    use super::*;
    use crate::file::testing::delivery;

    fn encoded(values: &[i64]) -> Encoded {
        let schema = Schema {
            collection: "t".into(),
            fields: vec![Field::new("t", Type::I64)],
        };
        let mut builder = BatchBuilder::new(schema.into());
        for value in values {
            builder.push(Op::Insert, &[Value::I64(*value).as_cell()]).unwrap();
        }
        let delivery = delivery("a", 1, builder.finish(Origin::default()));
        let values = values.to_vec();
        Encoded::of(&delivery, |row, out| match values[row] {
            i64::MIN => Err("too small".to_string()),
            value => {
                out.extend_from_slice(value.to_string().as_bytes());
                Ok(())
            }
        })
    }

    /// Runs against a server that refuses a request with a negative number in it, and returns requests and rejected rows.
    fn run(values: &[i64], rows_max: usize, splits: bool) -> (Vec<String>, Vec<usize>) {
        let encoded = encoded(values);
        let mut errand = Errands::default().take_up(&encoded, rows_max, splits);
        let mut requests = Vec::new();
        while let Some(rows) = errand.next_rows() {
            let body = String::from_utf8(encoded.joined(&rows, ("[", ",", "]"))).unwrap();
            if body.contains('-') {
                errand.refused(&rows, "negative");
            } else {
                errand.taken(&rows);
            }
            requests.push(body);
        }
        (requests, errand.rejected(0).map(|rejected| rejected.row).collect())
    }

    #[test]
    fn only_what_is_refused_alone_is_rejected() {
        let (requests, rejected) = run(&[1, 2, -3, 4, 5], 100, true);
        assert_eq!(requests, ["[1,2,-3,4,5]", "[1,2]", "[-3,4,5]", "[-3]", "[4,5]"]);
        assert_eq!(rejected, [2]);
        assert_eq!(run(&[1, -2, 3], 2, true).0, ["[1,-2]", "[1]", "[-2]", "[3]"]);
        assert_eq!(
            run(&[1, -2, 3], 2, false),
            (vec!["[1,-2]".into(), "[3]".into()], vec![0, 1])
        );
        let (requests, rejected) = run(&[i64::MIN, 7], 100, true);
        assert_eq!((requests, rejected), (vec!["[7]".to_string()], vec![0]));
        let all = run(&[-1; 64], 100, true);
        assert_eq!((all.0.len(), all.1.len()), (127, 64));
    }

    #[test]
    fn what_was_settled_is_not_sent_again() {
        let (encoded, mut errands) = (encoded(&[1, 2, 3]), Errands::default());
        let mut errand = errands.take_up(&encoded, 100, true);
        let rows = errand.next_rows().unwrap();
        let refused = Standing::Refused("no".into());
        errand.answered(&rows, vec![Standing::Taken, refused, Standing::Open]);
        errands.remember(errand);
        let mut errand = errands.take_up(&encoded, 100, true);
        assert_eq!(errand.next_rows(), Some(vec![2]));
        errand.taken(&[2]);
        assert_eq!(errand.next_rows(), None);
        assert_eq!(
            errand
                .rejected(4)
                .map(|one| (one.delivery, one.row))
                .collect::<Vec<_>>(),
            [(4, 1)]
        );
        errands.forget();
        assert_eq!(errands.take_up(&encoded, 100, true).next_rows(), Some(vec![0, 1, 2]));
    }

    #[test]
    fn the_rest_is_sent_again_after_some_were_refused() {
        let encoded = encoded(&[1, 2, 3]);
        let mut errand = Errands::default().take_up(&encoded, 100, true);
        let rows = errand.next_rows().unwrap();
        errand.refused_some(&rows, &[(1, "no".into()), (9, "beyond".into())]);
        assert_eq!(errand.next_rows(), Some(vec![0, 2]));
        errand.refused_some(&[0, 2], &[(0, "no".into()), (1, "no".into())]);
        assert_eq!(errand.next_rows(), None);
        assert_eq!(errand.rejected(0).count(), 3);
    }
}
