//! What tests of the changes of databases share: a pipe that delivers them and can be killed, and how they are written down.

use bus_schema::{
    data::{Batch, Value},
    id::StreamId,
};
use flow::{Delivery, Position, Read, Sink, Source, SourceBatch};

/// As much of a daemon as delivers what a source gives to table `t` of a database, and can be killed.
pub(crate) struct Pipe {
    pub(crate) sink: Box<dyn Sink>,
    seq: u64,
    /// What the destination has.
    pub(crate) position: Option<Position>,
    pub(crate) rejected: Vec<String>,
    pub(crate) undecodable: Vec<String>,
}

impl Pipe {
    pub(crate) async fn new(mut sink: Box<dyn Sink>) -> Self {
        sink.open().await.unwrap();
        Self {
            sink,
            seq: 0,
            position: None,
            rejected: vec![],
            undecodable: vec![],
        }
    }

    pub(crate) async fn deliver(&mut self, read: &SourceBatch) {
        self.seq += 1;
        let batch = Batch::decode(&read.batch.encode()).unwrap();
        let rejected = self.sink.write(&[delivery(self.seq, batch)]).await.unwrap();
        self.rejected.extend(rejected.into_iter().map(|it| it.reason));
        self.undecodable
            .extend(read.undecodable.iter().map(|it| it.reason.clone()));
        self.sink.commit().await.unwrap();
        self.position = Some(read.position.clone());
    }

    /// Delivers everything until the source has been idle twice.
    pub(crate) async fn deliver_all(&mut self, source: &mut dyn Source) {
        let mut idle = 0;
        while idle < 2 {
            match source.read().await.unwrap() {
                Read::Batch(batch) => {
                    self.deliver(&batch).await;
                    source.commit(&batch.position).await.unwrap();
                    idle = 0;
                }
                _ => idle += 1,
            }
        }
    }
}

/// The operations and values of batches: `insert 1 a`.
pub(crate) fn shown(batches: &[SourceBatch]) -> Vec<String> {
    let row = |batch: &Batch, row: usize| {
        let values = (0..batch.columns().len()).map(|column| match batch.cell(row, column).to_value() {
            Value::Null => "null".to_string(),
            Value::Missing => "-".to_string(),
            Value::Unchanged => "=".to_string(),
            value => value.as_cell().to_string(),
        });
        let values = values.collect::<Vec<_>>().join(" ");
        format!("{} {values}", format!("{:?}", batch.op(row)).to_lowercase())
    };
    let rows = batches
        .iter()
        .flat_map(|batch| (0..batch.batch.rows()).map(|at| row(&batch.batch, at)));
    rows.collect()
}

/// Records and dead letters until the source has given this many.
pub(crate) async fn records(source: &mut dyn Source, count: usize) -> Vec<SourceBatch> {
    let mut batches = Vec::new();
    while batches
        .iter()
        .map(|it: &SourceBatch| it.batch.rows() + it.undecodable.len())
        .sum::<usize>()
        < count
    {
        batches.push(next_batch(source).await);
    }
    batches
}

/// The next batch; it may take a while.
pub(crate) async fn next_batch(source: &mut dyn Source) -> SourceBatch {
    for _ in 0..60 {
        if let Read::Batch(batch) = source.read().await.unwrap() {
            return batch;
        }
    }
    panic!("no batch came");
}

/// A stream's id, by a name.
pub(crate) fn stream(name: &str) -> StreamId {
    StreamId::from_hash(&bus_schema::id::hash("test", &[name.as_bytes()]))
}

/// A batch on its way to a destination.
pub(crate) fn delivery(seq: u64, batch: Batch) -> Delivery {
    Delivery {
        stream: stream("s"),
        seq,
        position: Position::new(seq.to_be_bytes()),
        batch,
        tally: flow::Tally::default(),
        bytes: 0,
    }
}
