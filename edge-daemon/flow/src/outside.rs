//! Transforms that others do: a program or a service, which may take its time, fail or be ended. The reading half waits for
//! them, and the writing half goes on meanwhile.

use async_trait::async_trait;
use bus_schema::{data::Batch, message::RunState};

use crate::{Fault, backoff::Backoff, check::Trouble, runner::Surroundings, transform::Transformed};

/// A transform whose work is done elsewhere. What [`crate::Transform`] says of results holds for it as well.
#[async_trait]
pub trait Outside: Send {
    /// Transforms a batch. [`Fault::Retry`]: nothing came of it, and it comes again. May be dropped in the middle.
    async fn apply(&mut self, batch: Batch) -> Result<Transformed, Fault>;

    /// Whether it could work here and now: what was seen, for a person, or what is wrong. Called before any batch, by somebody
    /// who waits ([`crate::check::check_outside`]), also while the same transform runs elsewhere. Changes no data.
    async fn check(&mut self) -> Result<String, Trouble>;
}

/// What becomes of a batch. A source that cannot read again would lose it by a fault: then it is tried here until it goes, or
/// it is time to stop.
pub(crate) async fn wait_for(
    outside: &mut dyn Outside,
    batch: &Batch,
    rereads: bool,
    (node, around): (&str, &Surroundings),
) -> Result<Transformed, Fault> {
    let mut backoff = Backoff::default();
    let mut has_failed = false;
    loop {
        let fault = match outside.apply(batch.clone()).await {
            Err(fault @ Fault::Retry { .. }) if !rereads => fault,
            done => {
                if has_failed && done.is_ok() {
                    around.observer.state(RunState::Running, "");
                }
                return done;
            }
        };
        has_failed = true;
        if around.recover(node, fault.clone(), &mut backoff).await.is_err() {
            return Err(fault);
        }
    }
}
