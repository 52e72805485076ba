//! Taps: an operator looks at some records of one node for a while. A forgotten tap ends by itself and costs nothing
//! when there is none.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bus_schema::{
    data::Batch,
    id::{NodeId, WorkflowId},
    message::{TapOpen, TapSample},
    plan::{Pipe, PlanWorkflow, Root},
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
}

/// All taps of this daemon.
pub struct Taps {
    open: AtomicUsize,
    taps: Mutex<Vec<Tap>>,
    samples: mpsc::Sender<(NodeId, TapSample)>,
}

impl Taps {
    /// Taps whose samples come out of the receiver, with the operator they are for.
    pub fn new() -> (Self, mpsc::Receiver<(NodeId, TapSample)>) {
        let (samples, receiver) = mpsc::channel(SAMPLES_MAX);
        (
            Self {
                open: AtomicUsize::new(0),
                taps: Mutex::default(),
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
            if let Some((operator, sample)) = tap.sample(batch, now)
                && self.samples.try_send((operator, sample)).is_err()
            {
                // The bus is slower than the tap: what is not shown is counted with the next sample.
                tap.skipped += batch.rows() as u64;
            }
        }
    }
}

impl Tap {
    fn sample(&mut self, batch: &Batch, now: Instant) -> Option<(NodeId, TapSample)> {
        if now.duration_since(self.second) >= Duration::from_secs(1) {
            self.second = now;
            self.shown = 0;
        }
        let mut rows = batch.rows().min(self.rate_max.saturating_sub(self.shown) as usize);
        let mut shown = batch.slice(0..rows).encode();
        // Fewer of large ones.
        while rows > 1 && shown.len() > SAMPLE_BYTES_MAX {
            rows /= 2;
            shown = batch.slice(0..rows).encode();
        }
        if rows == 0 || shown.len() > SAMPLE_BYTES_MAX {
            self.skipped += batch.rows() as u64;
            return None;
        }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bus_schema::{
        data::{BatchBuilder, Cell, Field, Op, Origin, Schema, Type},
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

    #[test]
    fn a_tap_is_rated_and_ends_by_itself() {
        let (taps, mut samples) = Taps::new();
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
        let (taps, mut samples) = Taps::new();
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
        let (taps, mut samples) = Taps::new();
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
