//! What a paused workflow does: its sources read nothing, and what they have read is delivered all the same. A pipe that ends in
//! streams runs on with its source asleep, so that its buffers are opened, brought to one place and let go. Where a pipe ends
//! in a destination here nothing is buffered: it does not run.

use std::sync::Arc;

use async_trait::async_trait;
use bus_schema::{
    data::Batch,
    message::RunState,
    plan::{Action, ComponentRole, Pipe, PlanWorkflow, Root},
};
use flow::{Drift, Fault, Observer, Passage, Position, READ_WAIT_MAX, Read, Source};

/// The cause of a paused workflow's state.
pub const PAUSED: &str = "paused by an operator";

/// What becomes of a pipe while its workflow is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// It goes on: its records come from a stream, or from a node that joins what was read.
    GoesOn,
    /// Its source sleeps, and what is in its buffers goes on.
    Sleeps,
    /// It does not run.
    Stands,
}

impl Rest {
    /// Decides it.
    pub fn of(pipe: &Pipe, plan: &PlanWorkflow) -> Self {
        let Root::Source(index) = pipe.root else {
            return Rest::GoesOn;
        };
        let node = plan.nodes.get(usize::from(index));
        if node.is_none_or(|node| node.role != ComponentRole::Source) {
            return Rest::GoesOn;
        }
        let ends_here = pipe.steps.iter().any(|step| matches!(step.action, Action::Sink(_)));
        if ends_here { Rest::Stands } else { Rest::Sleeps }
    }
}

/// A source that sleeps. Its dead letters can still be read.
pub struct Sleeping(pub Box<dyn Source>);

#[async_trait]
impl Source for Sleeping {
    async fn open(&mut self, _: Option<&Position>) -> Result<(), Fault> {
        Ok(())
    }

    async fn read(&mut self) -> Result<Read, Fault> {
        tokio::time::sleep(READ_WAIT_MAX).await;
        Ok(Read::Idle)
    }

    fn decode(&mut self, bytes: &[u8]) -> Result<Batch, String> {
        self.0.decode(bytes)
    }
}

/// Says of a pipe that works that it is paused; what is wrong with it is said as it is.
pub struct Quiet(pub Arc<dyn Observer>);

impl Observer for Quiet {
    fn state(&self, state: RunState, cause: &str) {
        match state {
            RunState::Starting | RunState::Running => self.0.state(RunState::Paused, PAUSED),
            other => self.0.state(other, cause),
        }
    }

    fn drifted(&self, node: &str, drift: &Drift) {
        self.0.drifted(node, drift);
    }

    fn failed(&self, node: &str) {
        self.0.failed(node);
    }

    fn passed(&self, node: &str, batch: &Batch, passage: Passage) {
        self.0.passed(node, batch, passage);
    }
}
