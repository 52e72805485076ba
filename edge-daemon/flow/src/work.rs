//! One read on its way through a pipe, and the ways it can take. Performs no I/O.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bus_schema::{
    data::{Batch, BatchBuilder, Origin, Schema},
    limits::BATCH_BYTES_TARGET,
};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    letter::{DeadLetter, LetterKey, LetterPoint},
    pipe::{Leaf, Passage, Stage},
    sink::Tally,
    source::Position,
};

/// Bytes between the source and the last commit, of ordinary records; a larger batch goes alone.
pub(crate) const INFLIGHT_BYTES_MAX: usize = 320 * 1024;
/// Batches of at most so many rows are weighed: a source closes a batch of more rows at about its target.
const WEIGHED_ROWS_MAX: usize = 64;

/// What one read, or one dead letter that is tried again, became: a batch for each leaf.
pub(crate) struct Work {
    /// What comes before it, when that is too much for one batch.
    pub(crate) before: Vec<Piece>,
    pub(crate) seq: u64,
    pub(crate) position: Position,
    /// One per leaf, in order.
    pub(crate) parts: Vec<Part>,
    pub(crate) letters: Vec<DeadLetter>,
    /// The dead letter it was made from, and how often that was tried before.
    pub(crate) tried: Option<(u64, u32)>,
    /// When it was read.
    pub(crate) read_at: Instant,
    /// Its share of [`INFLIGHT_BYTES_MAX`].
    pub(crate) room: OwnedSemaphorePermit,
}

/// What came of the first rows of a read: goes ahead of the rest, and is nothing without it.
pub(crate) struct Piece {
    pub(crate) seq: u64,
    /// See [`Position::is_part`].
    pub(crate) position: Position,
    /// One per leaf, in order. Those without records settle nothing, and go nowhere.
    pub(crate) parts: Vec<Part>,
}

/// Puts what a piece settles at a leaf that gets no records of it with what follows.
pub(crate) fn settle_with_next(pieces: &mut [Vec<Part>]) {
    for at in 1..pieces.len() {
        let (earlier, later) = pieces.split_at_mut(at);
        let (Some(piece), Some(next)) = (earlier.last_mut(), later.first_mut()) else {
            continue;
        };
        for (part, next) in piece.iter_mut().zip(next) {
            if part.batch.rows() == 0 {
                next.tally = std::mem::take(&mut part.tally).plus(next.tally);
            }
        }
    }
}

/// A batch at one place of a pipe, with what else it settles there.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) batch: Batch,
    pub(crate) tally: Tally,
    /// About how many bytes the batch takes: counted once, and needed wherever it passes. One that is weighed is counted whole.
    pub(crate) bytes: usize,
}

impl Part {
    pub(crate) fn new(batch: Batch, tally: Tally) -> Self {
        let bytes = match batch.rows() {
            // One large document may be any of them.
            0..=WEIGHED_ROWS_MAX => batch.size_hint(),
            _ => batch.about_bytes(),
        };
        Self { batch, tally, bytes }
    }

    /// How many bytes the batch takes, whatever its rows are like: for what a transform made, which no source has cut to size.
    pub(crate) fn whole_bytes(&self) -> usize {
        self.batch.size_hint()
    }

    /// No records, for a leaf that only has to move its watermark.
    pub(crate) fn empty() -> Self {
        Self::new(empty_batch(), Tally::default())
    }

    pub(crate) fn is_nothing(&self) -> bool {
        self.batch.rows() == 0 && self.tally == Tally::default()
    }

    /// Its share of [`INFLIGHT_BYTES_MAX`].
    pub(crate) fn weight(&self) -> u32 {
        let bytes = match self.batch.rows() {
            0..=WEIGHED_ROWS_MAX => self.bytes,
            _ => BATCH_BYTES_TARGET,
        };
        bytes.min(INFLIGHT_BYTES_MAX) as u32
    }

    /// What passes a node with it.
    pub(crate) fn passage(&self, died: u64, took: Duration) -> Passage {
        Passage {
            bytes: self.bytes as u64,
            died,
            took,
        }
    }
}

impl Work {
    pub(crate) fn rows(&self) -> usize {
        self.every_part().map(|part| part.batch.rows()).sum()
    }

    /// How many bytes a leaf gets at most.
    pub(crate) fn part_bytes_max(&self) -> usize {
        let of = |parts: &[Part]| parts.iter().map(Part::whole_bytes).max().unwrap_or(0);
        self.before.iter().map(|piece| of(&piece.parts)).sum::<usize>() + of(&self.parts)
    }

    fn every_part(&self) -> impl Iterator<Item = &Part> {
        let before = self.before.iter().flat_map(|piece| &piece.parts);
        before.chain(&self.parts)
    }

    /// Its share of [`INFLIGHT_BYTES_MAX`].
    pub(crate) fn bytes(&self) -> usize {
        self.room.num_permits()
    }

    pub(crate) fn records(&self, leaf: usize) -> u64 {
        let of = |parts: &[Part]| parts.get(leaf).map_or(0, |part| in_flight(&part.batch, &part.tally));
        self.before.iter().map(|piece| of(&piece.parts)).sum::<u64>() + of(&self.parts)
    }
}

/// Records of a delivery that count as under way. A dead letter that is tried again counts as dead until it is in.
pub(crate) fn in_flight(batch: &Batch, tally: &Tally) -> u64 {
    (batch.rows() as u64 + tally.dead).saturating_sub(tally.revived)
}

/// No records, for a leaf that only has to move its watermark.
pub(crate) fn empty_batch() -> Batch {
    let schema = Schema {
        collection: String::new(),
        fields: Vec::new(),
    };
    BatchBuilder::new(Arc::new(schema)).finish(Origin::default())
}

/// Where records enter a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// As the source reads them.
    Source,
    /// As input of a stage, by index.
    Stage(usize),
    /// At one leaf only, by index.
    Leaf(usize),
}

/// The ways through a pipe: how each stage and leaf is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ways {
    pub(crate) root: String,
    stages: Vec<Spot>,
    leaves: Vec<Spot>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Spot {
    after: Option<usize>,
    node: String,
    path: String,
}

impl Ways {
    pub(crate) fn new(root: &str, stages: &[Stage], leaves: &[Leaf]) -> Self {
        let mut ways = Self {
            root: root.to_string(),
            stages: Vec::with_capacity(stages.len()),
            leaves: Vec::with_capacity(leaves.len()),
        };
        for stage in stages {
            let spot = ways.spot(stage.after, &stage.node);
            ways.stages.push(spot);
        }
        ways.leaves = leaves.iter().map(|leaf| ways.spot(leaf.after, &leaf.node)).collect();
        ways
    }

    fn spot(&self, after: Option<usize>, node: &str) -> Spot {
        let before = after.and_then(|after| self.stages.get(after));
        let before = before.map_or(self.root.as_str(), |spot| spot.path.as_str());
        Spot {
            after,
            node: node.to_string(),
            path: format!("{before}->{node}"),
        }
    }

    /// The way to each stage.
    pub(crate) fn stage_paths(&self) -> Vec<String> {
        self.stages.iter().map(|spot| spot.path.clone()).collect()
    }

    /// The key of a letter that dies there.
    pub(crate) fn key(&self, entry: Entry, seq: u64, row: usize) -> LetterKey {
        let path = match entry {
            Entry::Source => None,
            Entry::Stage(index) => self.stages.get(index),
            Entry::Leaf(index) => self.leaves.get(index),
        };
        LetterKey {
            root: self.root.clone(),
            path: path.map_or_else(|| self.root.clone(), |spot| spot.path.clone()),
            seq,
            row: row as u32,
        }
    }

    /// Where a letter died: by its way there, or, when the ways have changed, by the node's name if only one way leads there.
    pub(crate) fn find(&self, point: LetterPoint, path: &str, node: &str) -> Result<Entry, String> {
        let (spots, entry): (&[Spot], fn(usize) -> Entry) = match point {
            LetterPoint::Source => return Ok(Entry::Source),
            LetterPoint::Transform => (&self.stages, Entry::Stage),
            LetterPoint::Destination => (&self.leaves, Entry::Leaf),
        };
        if let Some(index) = spots.iter().position(|spot| spot.path == path) {
            return Ok(entry(index));
        }
        let mut named = (0..spots.len()).filter(|index| spots[*index].node == node);
        match (named.next(), named.next()) {
            (Some(index), None) => Ok(entry(index)),
            (None, _) => Err(format!(
                "nothing that comes from '{}' goes to '{node}' any more",
                self.root
            )),
            (Some(_), Some(_)) => Err(format!(
                "several ways lead to '{node}' now, and '{path}' is none of them"
            )),
        }
    }

    /// Which leaves get what enters there.
    pub(crate) fn leaves_of(&self, entry: Entry) -> Vec<bool> {
        let reached = |(index, leaf): (usize, &Spot)| match entry {
            Entry::Source => true,
            Entry::Stage(stage) => self.is_behind(leaf.after, stage),
            Entry::Leaf(only) => index == only,
        };
        self.leaves.iter().enumerate().map(reached).collect()
    }

    /// Whether a stage is on the way to one of these leaves.
    pub(crate) fn leads_to(&self, stage: usize, leaves: &[bool]) -> bool {
        let mut wanted = self.leaves.iter().zip(leaves).filter(|(_, wanted)| **wanted);
        wanted.any(|(leaf, _)| self.is_behind(leaf.after, stage))
    }

    /// Whether one stage gets what comes of another one.
    pub(crate) fn follows(&self, stage: usize, other: usize) -> bool {
        let after = self.stages.get(stage).and_then(|spot| spot.after);
        self.is_behind(after, other)
    }

    fn is_behind(&self, mut after: Option<usize>, stage: usize) -> bool {
        while let Some(index) = after {
            if index == stage {
                return true;
            }
            after = self.stages.get(index).and_then(|spot| spot.after);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use bus_schema::data::{Field, Op, Type, Value};

    use super::*;

    #[test]
    fn a_large_document_is_weighed_wherever_it_stands() {
        let document = "x".repeat(100 * 1024);
        for (rows, at) in [
            (1, 0),
            (33, 32),
            (WEIGHED_ROWS_MAX, 0),
            (WEIGHED_ROWS_MAX, 63),
            (200, 150),
        ] {
            let schema = Schema {
                collection: String::new(),
                fields: vec![Field::new("document", Type::Any)],
            };
            let mut builder = BatchBuilder::new(Arc::new(schema));
            for row in 0..rows {
                let value = Value::Text(if row == at { document.clone() } else { "x".to_string() });
                builder.push(Op::Insert, &[value.as_cell()]).unwrap();
            }
            let part = Part::new(builder.finish(Origin::default()), Tally::default());
            let is_weighed = rows <= WEIGHED_ROWS_MAX;
            assert_eq!(part.weight() as usize > document.len(), is_weighed, "{rows} rows");
            assert!(part.whole_bytes() > document.len(), "{rows} rows");
        }
    }

    /// source -> a -> b -> merge -> x
    ///             \-------> merge -> y
    ///        \--> z
    fn ways() -> Ways {
        let mut ways = Ways {
            root: "source".into(),
            stages: Vec::new(),
            leaves: Vec::new(),
        };
        for (after, node) in [(None, "a"), (Some(0), "b"), (Some(1), "merge"), (Some(0), "merge")] {
            let spot = ways.spot(after, node);
            ways.stages.push(spot);
        }
        let leaves = [(Some(2), "x"), (Some(3), "y"), (None, "z")];
        ways.leaves = leaves.iter().map(|(after, node)| ways.spot(*after, node)).collect();
        ways
    }

    #[test]
    fn a_letter_goes_back_to_where_it_died_and_nowhere_else() {
        use LetterPoint::*;
        let ways = ways();
        for (point, path, node, entry, leaves) in [
            (Source, "source", "source", Entry::Source, [true, true, true]),
            (Transform, "source->a", "a", Entry::Stage(0), [true, true, false]),
            (Transform, "source->a->b", "b", Entry::Stage(1), [true, false, false]),
            (
                Transform,
                "source->a->merge",
                "merge",
                Entry::Stage(3),
                [false, true, false],
            ),
            (
                Transform,
                "source->a->b->merge",
                "merge",
                Entry::Stage(2),
                [true, false, false],
            ),
            // The way has changed, but there is only one.
            (Transform, "source->old->b", "b", Entry::Stage(1), [true, false, false]),
            (Destination, "source->z", "z", Entry::Leaf(2), [false, false, true]),
            (Destination, "source->old->x", "x", Entry::Leaf(0), [true, false, false]),
        ] {
            assert_eq!(ways.find(point, path, node), Ok(entry), "{path}");
            assert_eq!(ways.leaves_of(entry), leaves, "{path}");
        }
        for (point, path, node) in [
            (Transform, "source->c", "c"),
            (Transform, "source->merge", "merge"),
            (Destination, "source->a", "a"),
        ] {
            assert!(ways.find(point, path, node).is_err(), "{path}");
        }
        let leads: Vec<bool> = (0..4).map(|stage| ways.leads_to(stage, &[true, false, true])).collect();
        assert_eq!(leads, [true, true, true, false]);
        assert_eq!(ways.key(Entry::Leaf(0), 7, 1).path, "source->a->b->merge->x");
        assert_eq!(ways.key(Entry::Source, 7, 1).path, "source");
    }
}
