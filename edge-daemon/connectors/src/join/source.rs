//! The beginning of the way that goes on: gives what was joined, in the order of its making, and lets the store forget it once
//! it is durable elsewhere.

use std::sync::Arc;

use async_trait::async_trait;
use flow::{Fault, Position, READ_WAIT_MAX, Read, Source};
use tokio::time::timeout;

use super::hub::Hub;

pub(super) struct JoinSource {
    hub: Arc<Hub>,
    /// The number of the last record that was read.
    last: i64,
}

impl JoinSource {
    pub(super) fn new(hub: Arc<Hub>) -> Self {
        Self { hub, last: 0 }
    }
}

fn number(position: &Position) -> Result<i64, Fault> {
    let bytes = position.as_bytes().try_into();
    bytes
        .map(i64::from_be_bytes)
        .map_err(|_| Fault::stop("the stored position is not one of a join: give the node another name to begin anew"))
}

#[async_trait]
impl Source for JoinSource {
    async fn open(&mut self, after: Option<&Position>) -> Result<(), Fault> {
        self.last = after.map(number).transpose()?.unwrap_or(0);
        let (turn, last) = (self.hub.turn().await?, self.last);
        self.hub.with(turn, move |store| store.resume(last)).await.map(drop)
    }

    async fn read(&mut self) -> Result<Read, Fault> {
        let ended = self.hub.ended();
        let is_over = ended == [true, true];
        let turn = self.hub.turn().await?;
        let last = self.last;
        let work = move |store: &mut super::store::Store| {
            if is_over {
                store.let_go_of_all()?;
            }
            store.read(last)
        };
        let (turn, found) = self.hub.with(turn, work).await?;
        drop(turn);
        if let Some((batch, last)) = found {
            self.last = last;
            return Ok(Read::Batch(flow::SourceBatch {
                batch,
                position: Position::new(last.to_be_bytes()),
                undecodable: Vec::new(),
            }));
        }
        if is_over {
            return Ok(Read::End);
        }
        // Nobody waits here but this: a notice that came before is kept.
        let _ = timeout(READ_WAIT_MAX, self.hub.made.notified()).await;
        Ok(Read::Idle)
    }

    async fn commit(&mut self, position: &Position) -> Result<(), Fault> {
        let (turn, last) = (self.hub.turn().await?, number(position)?);
        self.hub.with(turn, move |store| store.forget(last)).await?;
        self.hub.room.notify_waiters();
        Ok(())
    }
}
