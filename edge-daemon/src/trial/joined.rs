//! Tries a node that joins inputs: what was led to it is given to it, input by input, and it is told that nothing more comes.

use std::collections::BTreeMap;

use bus_schema::{
    data::{Batch, Ops, Origin, Schema},
    id::{NodeId, StreamId, WorkflowId},
};
use flow::{Delivery, Fault, Junction, Position, Read, Tally};
use workflow::Spec;

/// What waits at such nodes until everything before them is done: by node, what came from where.
pub(super) type Waiting = BTreeMap<String, Vec<(String, Batch)>>;

/// What came of it: the records, and which of those that came were rejected, counted over all that came.
pub(super) type Joined = (Vec<Batch>, Vec<(usize, String)>);

/// The next node to be done: one that no other that waits leads to.
pub(super) fn next(spec: &Spec, waiting: &mut Waiting) -> Option<(String, Vec<(String, Batch)>)> {
    let is_first = |node: &&String| {
        waiting
            .keys()
            .all(|other| other == *node || !leads_to(spec, other, node))
    };
    let first = waiting.keys().find(is_first)?.clone();
    waiting.remove_entry(&first)
}

/// Whether records of one node come to another. A text whose nodes go round in circles was refused.
fn leads_to(spec: &Spec, from: &str, to: &str) -> bool {
    let (mut seen, mut todo) = (Vec::new(), vec![to]);
    while let Some(at) = todo.pop() {
        if at == from {
            return true;
        }
        if !seen.contains(&at) {
            seen.push(at);
            let before = spec.node(at).into_iter().flat_map(|node| &node.from);
            todo.extend(before.map(String::as_str));
        }
    }
    false
}

/// Does it.
pub(super) async fn join(
    mut junction: Box<dyn Junction>,
    inputs: &[String],
    came: &[(String, Batch)],
) -> Result<Joined, Fault> {
    junction.settle(None);
    let (mut rejected, mut before) = (Vec::new(), 0);
    let mut ends = Vec::with_capacity(inputs.len());
    for input in inputs {
        ends.push((input, junction.input(input).map_err(Fault::stop)?));
    }
    for (number, (from, batch)) in came.iter().enumerate() {
        let Some((_, sink)) = ends.iter_mut().find(|(input, _)| *input == from) else {
            continue;
        };
        let delivery = Delivery {
            stream: lineage(from),
            seq: number as u64 + 1,
            position: Position::default(),
            batch: batch.clone(),
            tally: Tally::default(),
            bytes: 0,
        };
        sink.open().await?;
        let rows = sink.write(&[delivery]).await?;
        sink.commit().await?;
        rejected.extend(rows.into_iter().map(|row| (before + row.row, row.reason)));
        before += batch.rows();
    }
    for (_, sink) in &mut ends {
        sink.ended();
    }
    let (mut source, mut batches) = (junction.output(), Vec::new());
    source.open(None).await?;
    while let Read::Batch(read) = source.read().await? {
        batches.push(read.batch);
    }
    if batches.is_empty() {
        let schema = Schema {
            collection: String::new(),
            fields: Vec::new(),
        };
        batches.extend(Batch::new(schema.into(), Vec::new(), Ops::Each(Vec::new()), Origin::default()).ok());
    }
    Ok((batches, rejected))
}

/// Of an input; nobody else sees it.
fn lineage(from: &str) -> StreamId {
    let nobody = NodeId::of_key(&[0; 32]);
    StreamId::of_edge(&WorkflowId::of_name("trial"), from, &nobody, &nobody)
}
