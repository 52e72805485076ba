//! Taps: an operator looks at some records of one node for a while. A forgotten tap ends by itself and costs nothing
//! when there is none. What it shows of a batch is spread over all of it; columns that the settings name never leave.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bus_schema::{
    data::{Batch, Cell, Column, Field, Schema, Type},
    id::{NodeId, WorkflowId},
    message::{TapOpen, TapSample},
    plan::{Pipe, PlanWorkflow, Root},
    redact::Redact,
    shown::HIDDEN,
};
use tokio::sync::mpsc;

/// Taps at one time.
const TAPS_MAX: usize = 8;
/// Longest lease of a tap.
const LEASE_MAX: Duration = Duration::from_secs(600);
/// Most records a second through one tap.
const RATE_MAX: u32 = 200;
/// Samples waiting to be sent.
const SAMPLES_MAX: usize = 16;
/// Bytes of a sample; larger records are skipped and counted.
const SAMPLE_BYTES_MAX: usize = 48 * 1024;

struct Tap {
    operator: NodeId,
    workflow: WorkflowId,
    node: String,
    rate_max: u32,
    until: Instant,
    second: Instant,
    shown: u32,
    skipped: u64,
    /// Samples so far: each begins elsewhere in its batch.
    turn: usize,
}

/// All taps of this daemon.
pub struct Taps {
    open: AtomicUsize,
    taps: Mutex<Vec<Tap>>,
    redact: Redact,
    samples: mpsc::Sender<(NodeId, TapSample)>,
}

impl Taps {
    /// Taps whose samples come out of the receiver, with the operator they are for, without the values of these columns.
    pub fn new(redact: Redact) -> (Self, mpsc::Receiver<(NodeId, TapSample)>) {
        let (samples, receiver) = mpsc::channel(SAMPLES_MAX);
        (
            Self {
                open: AtomicUsize::new(0),
                taps: Mutex::default(),
                redact,
                samples,
            },
            receiver,
        )
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Tap>> {
        // Plain values: a panic leaves nothing half done.
        self.taps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a tap, or prolongs it; with a lease of nothing, ends it. `true`: it is a new one.
    pub fn open(&self, operator: NodeId, wish: &TapOpen, now: Instant) -> Result<bool, String> {
        let mut taps = self.lock();
        taps.retain(|tap| tap.until > now);
        let until = now + Duration::from_millis(u64::from(wish.lease_ms)).min(LEASE_MAX);
        let same = |tap: &Tap| tap.operator == operator && tap.workflow == wish.workflow && tap.node == wish.node;
        let mut is_new = false;
        if wish.lease_ms == 0 {
            taps.retain(|tap| !same(tap));
        } else if let Some(tap) = taps.iter_mut().find(|tap| same(tap)) {
            tap.until = until;
            tap.rate_max = wish.rate_max.clamp(1, RATE_MAX);
        } else if taps.len() >= TAPS_MAX {
            return Err(format!(
                "{TAPS_MAX} taps are open on this daemon already; wait until one ends"
            ));
        } else {
            taps.push(Tap {
                operator,
                workflow: wish.workflow,
                node: wish.node.clone(),
                rate_max: wish.rate_max.clamp(1, RATE_MAX),
                until,
                second: now,
                shown: 0,
                skipped: 0,
                turn: 0,
            });
            is_new = true;
        }
        self.open.store(taps.len(), Ordering::Relaxed);
        Ok(is_new)
    }

    /// Why there is nothing to tap at a node, or an edge, of what a daemon runs of a workflow.
    pub fn nothing_at(part: Option<&PlanWorkflow>, node: &str) -> Option<String> {
        let Some(part) = part else {
            return Some("this daemon does not run that workflow".to_string());
        };
        let is_edge = |pipe: &Pipe| {
            let root = match &pipe.root {
                Root::Stream(spec) => Some(spec),
                Root::Source(_) => None,
            };
            let streams = pipe.steps.iter().flat_map(|step| step.action.streams());
            root.into_iter().chain(streams).any(|spec| spec.edge == node)
        };
        if part.nodes.iter().any(|known| known.id == node) || part.pipes.iter().any(is_edge) {
            return None;
        }
        let nodes: Vec<&str> = part.nodes.iter().map(|known| known.id.as_str()).collect();
        let nodes = nodes.join(", ");
        Some(format!(
            "this daemon runs no '{node}' of '{}'; it runs: {nodes}",
            part.name
        ))
    }

    /// Records passed a node.
    pub fn passed(&self, workflow: WorkflowId, node: &str, batch: &Batch, now: Instant) {
        if self.open.load(Ordering::Relaxed) == 0 || batch.rows() == 0 {
            return;
        }
        let mut taps = self.lock();
        taps.retain(|tap| tap.until > now);
        self.open.store(taps.len(), Ordering::Relaxed);
        for tap in taps
            .iter_mut()
            .filter(|tap| tap.workflow == workflow && tap.node == node)
        {
            if let Some((operator, sample)) = tap.sample(batch, &self.redact, now)
                && self.samples.try_send((operator, sample)).is_err()
            {
                // The bus is slower than the tap: what is not shown is counted with the next sample.
                tap.skipped += batch.rows() as u64;
            }
        }
    }
}

impl Tap {
    fn sample(&mut self, batch: &Batch, redact: &Redact, now: Instant) -> Option<(NodeId, TapSample)> {
        if now.duration_since(self.second) >= Duration::from_secs(1) {
            self.second = now;
            self.shown = 0;
        }
        let mut rows = batch.rows().min(self.rate_max.saturating_sub(self.shown) as usize);
        self.turn = self.turn.wrapping_add(1);
        let shown = loop {
            let picked = batch.take(&spread(batch.rows(), rows, self.turn));
            let bytes = hiding(&picked, redact).map(|hidden| hidden.encode());
            match bytes.filter(|bytes| bytes.len() <= SAMPLE_BYTES_MAX) {
                Some(bytes) if rows > 0 => break bytes,
                // Fewer of large ones.
                None if rows > 1 => rows /= 2,
                _ => {
                    self.skipped += batch.rows() as u64;
                    return None;
                }
            }
        };
        self.shown += rows as u32;
        let skipped = std::mem::take(&mut self.skipped) + (batch.rows() - rows) as u64;
        let (workflow, node) = (self.workflow, self.node.clone());
        Some((
            self.operator,
            TapSample {
                workflow,
                node,
                batch: shown,
                skipped,
                refused: String::new(),
            },
        ))
    }
}

/// So many rows of all, at even distances: a batch may be sorted or grouped. Where they begin changes with every turn.
fn spread(all: usize, rows: usize, turn: usize) -> Vec<usize> {
    // A step that visits every beginning, in no order that a batch would have.
    const STEP: usize = 7_919;
    let begin = turn.wrapping_mul(STEP) % all.max(1);
    (0..rows).map(|row| (row * all + begin) / rows).collect()
}

/// The same records without the values of columns that no tap shows. What is not there stays so.
fn hiding(batch: &Batch, redact: &Redact) -> Option<Batch> {
    let (mut fields, mut columns) = (batch.schema().fields.clone(), batch.columns().to_vec());
    let hidden = |field: &Field| redact.hides(&field.name);
    if !fields.iter().any(hidden) {
        return Some(batch.clone());
    }
    for (index, (field, column)) in fields.iter_mut().zip(&mut columns).enumerate() {
        if !hidden(field) {
            continue;
        }
        field.ty = Type::Text;
        *column = Column::new(&Type::Text);
        for row in 0..batch.rows() {
            let cell = batch.cell(row, index);
            let shown = if cell.is_value() { Cell::Text(HIDDEN) } else { cell };
            column.push(shown, &Type::Text).ok()?;
        }
    }
    let collection = batch.schema().collection.clone();
    batch
        .with_columns(Arc::new(Schema { collection, fields }), columns)
        .ok()
}

#[cfg(test)]
mod tests {
    use bus_schema::{
        data::{BatchBuilder, Op, Origin},
        plan::{ComponentRole, PlanNode},
    };

    use super::*;

    fn batch(rows: i64) -> Batch {
        let schema = Schema {
            collection: "t".into(),
            fields: vec![Field::new("n", Type::I64)],
        };
        let mut builder = BatchBuilder::new(Arc::new(schema));
        (0..rows).for_each(|n| builder.push(Op::Insert, &[Cell::I64(n)]).unwrap());
        builder.finish(Origin::default())
    }

    fn redact(patterns: &[&str]) -> Redact {
        Redact::new(&patterns.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn a_sample_is_spread_over_its_batch_and_begins_elsewhere_each_time() {
        let (taps, mut samples) = Taps::new(redact(&[]));
        let (operator, workflow) = (NodeId::from_hash(&[1; 32]), WorkflowId::of_name("w"));
        let wish = TapOpen {
            workflow,
            node: "a".into(),
            rate_max: 10,
            lease_ms: 600_000,
        };
        let begin = Instant::now();
        taps.open(operator, &wish, begin).unwrap();
        let mut firsts = std::collections::BTreeSet::new();
        for second in 1..=50 {
            taps.passed(workflow, "a", &batch(1_000), begin + Duration::from_secs(second));
            let (_, sample) = samples.try_recv().unwrap();
            let shown = Batch::decode(&sample.batch).unwrap();
            let numbers: Vec<i64> = (0..shown.rows())
                .map(|row| match shown.cell(row, 0) {
                    Cell::I64(n) => n,
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!((numbers.len(), sample.skipped), (10, 990));
            for (index, n) in numbers.iter().enumerate() {
                let tenth = index as i64 * 100;
                assert!((tenth..tenth + 100).contains(n), "one of each tenth: {numbers:?}");
            }
            firsts.insert(numbers[0]);
        }
        assert!(firsts.len() > 20, "{firsts:?}");
        for (all, rows) in [(1, 1), (7, 7), (19, 10), (10, 3), (5, 0)] {
            for turn in 0..100 {
                let picked = spread(all, rows, turn);
                let is_rising = picked.windows(2).all(|pair| pair[0] < pair[1]);
                assert!(
                    is_rising && picked.iter().all(|row| *row < all),
                    "{all} {rows} {turn}: {picked:?}"
                );
                assert_eq!(picked.len(), rows);
            }
        }
    }

    #[test]
    fn columns_that_the_settings_name_never_leave() {
        let (taps, mut samples) = Taps::new(redact(&["iban", "card_*"]));
        let (operator, workflow) = (NodeId::from_hash(&[1; 32]), WorkflowId::of_name("w"));
        let schema = Schema {
            collection: "t".into(),
            fields: vec![
                Field::new("n", Type::I64),
                Field::new("IBAN", Type::Text),
                Field::new("card_no", Type::I64).key(),
            ],
        };
        let mut builder = BatchBuilder::new(Arc::new(schema));
        builder
            .push(
                Op::Insert,
                &[Cell::I64(1), Cell::Text("DE12 3456"), Cell::I64(987_654_321)],
            )
            .unwrap();
        builder
            .push(Op::Update, &[Cell::I64(2), Cell::Null, Cell::Missing])
            .unwrap();
        let wish = TapOpen {
            workflow,
            node: "a".into(),
            rate_max: 10,
            lease_ms: 5000,
        };
        let now = Instant::now();
        taps.open(operator, &wish, now).unwrap();
        taps.passed(workflow, "a", &builder.finish(Origin::default()), now);
        let (_, sample) = samples.try_recv().unwrap();
        assert!(!sample.batch.windows(4).any(|bytes| bytes == b"DE12"));
        let shown = Batch::decode(&sample.batch).unwrap();
        let cells: Vec<_> = (0..2).flat_map(|row| (0..3).map(move |column| (row, column))).collect();
        let cells: Vec<_> = cells.iter().map(|(row, column)| shown.cell(*row, *column)).collect();
        assert_eq!(
            cells,
            [
                Cell::I64(1),
                Cell::Text(HIDDEN),
                Cell::Text(HIDDEN),
                Cell::I64(2),
                Cell::Null,
                Cell::Missing
            ]
        );
        assert_eq!(shown.op(1), Op::Update);
    }

    #[test]
    fn a_tap_is_rated_and_ends_by_itself() {
        let (taps, mut samples) = Taps::new(redact(&[]));
        let (operator, workflow) = (NodeId::from_hash(&[1; 32]), WorkflowId::of_name("w"));
        let now = Instant::now();
        taps.passed(workflow, "a", &batch(5), now);
        assert!(samples.try_recv().is_err());
        let wish = TapOpen {
            workflow,
            node: "a".into(),
            rate_max: 10,
            lease_ms: 5000,
        };
        taps.open(operator, &wish, now).unwrap();
        taps.passed(workflow, "a", &batch(8), now);
        taps.passed(workflow, "a", &batch(8), now);
        taps.passed(workflow, "b", &batch(8), now);
        let shown: Vec<_> = std::iter::from_fn(|| samples.try_recv().ok()).collect();
        let rows: Vec<_> = shown
            .iter()
            .map(|(_, s)| Batch::decode(&s.batch).unwrap().rows())
            .collect();
        assert_eq!((rows, shown[1].1.skipped), (vec![8, 2], 6));
        taps.passed(workflow, "a", &batch(1), now + Duration::from_secs(6));
        assert!(samples.try_recv().is_err());
        assert_eq!(taps.open.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_tap_without_a_lease_is_over() {
        let (taps, mut samples) = Taps::new(redact(&[]));
        let (operator, workflow, now) = (NodeId::from_hash(&[1; 32]), WorkflowId::of_name("w"), Instant::now());
        let wish = |node: &str, lease_ms| TapOpen {
            workflow,
            node: node.into(),
            rate_max: 10,
            lease_ms,
        };
        for node in ["a", "b"] {
            assert_eq!(taps.open(operator, &wish(node, 5_000), now), Ok(true));
        }
        assert_eq!(taps.open(operator, &wish("a", 0), now), Ok(false));
        assert_eq!(taps.open(operator, &wish("c", 0), now), Ok(false), "there was none");
        ["a", "b", "c"]
            .iter()
            .for_each(|node| taps.passed(workflow, node, &batch(1), now));
        let shown: Vec<_> = std::iter::from_fn(|| samples.try_recv().ok()).collect();
        assert_eq!(shown.len(), 1, "of the one that is left");
        assert_eq!(shown[0].1.node, "b");
    }

    #[test]
    fn only_what_is_run_here_can_be_tapped() {
        let node = |id: &str| PlanNode {
            id: id.into(),
            role: ComponentRole::Source,
            component: "file".into(),
            config: "{}".into(),
        };
        let part = PlanWorkflow {
            id: WorkflowId::of_name("w"),
            name: "w".into(),
            revision: 1,
            nodes: vec![node("lines"), node("clean")],
            pipes: Vec::new(),
        };
        assert_eq!(Taps::nothing_at(Some(&part), "clean"), None);
        for (part, said) in [
            (Some(&part), "no 'out' of 'w'; it runs: lines, clean"),
            (None, "does not run that workflow"),
        ] {
            let cause = Taps::nothing_at(part, "out").unwrap();
            assert!(cause.contains(said), "{cause}");
        }
    }

    #[test]
    fn of_large_records_fewer_are_shown() {
        let (taps, mut samples) = Taps::new(redact(&[]));
        let (operator, workflow) = (NodeId::from_hash(&[1; 32]), WorkflowId::of_name("w"));
        let schema = Schema {
            collection: "t".into(),
            fields: vec![Field::new("text", Type::Text)],
        };
        let mut builder = BatchBuilder::new(Arc::new(schema));
        let large = "x".repeat(SAMPLE_BYTES_MAX / 4);
        for _ in 0..8 {
            builder.push(Op::Insert, &[Cell::Text(&large)]).unwrap();
        }
        let (batch, now) = (builder.finish(Origin::default()), Instant::now());
        let wish = TapOpen {
            workflow,
            node: "a".into(),
            rate_max: 10,
            lease_ms: 5000,
        };
        assert_eq!(taps.open(operator, &wish, now), Ok(true));
        assert_eq!(taps.open(operator, &wish, now), Ok(false), "prolonged");
        taps.passed(workflow, "a", &batch, now);
        let (_, sample) = samples.try_recv().unwrap();
        assert_eq!((Batch::decode(&sample.batch).unwrap().rows(), sample.skipped), (2, 6));
    }
}
