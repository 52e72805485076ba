//! The end of one way that comes in. Its rows and its watermark are one transaction of the store, which nobody else touches
//! from `write` to `commit`.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bus_schema::id::StreamId;
use flow::{Delivery, Fault, Rejected, Sink, Trouble, Watermark};
use tokio::time::{Instant, timeout_at};

use super::{
    hub::{Hub, Turn},
    store::Room,
};

/// How long one call waits for room.
const ROOM_WAIT: Duration = Duration::from_secs(2);

pub(super) struct JoinSink {
    hub: Arc<Hub>,
    side: usize,
    has_ended: bool,
    /// Between `write` and `commit`. Dropped with the sink, and what is half done is undone by who comes next.
    turn: Option<Turn>,
}

impl JoinSink {
    pub(super) fn new(hub: Arc<Hub>, side: usize) -> Self {
        hub.enter(side);
        Self {
            hub,
            side,
            has_ended: false,
            turn: None,
        }
    }

    /// Its turn, with room for what comes. `bool`: whether what does not fit is to be rejected.
    /// Not of the sink itself, whose open transaction is for one thread at a time.
    async fn turn_with_room(hub: &Hub, side: usize) -> Result<(Turn, bool), Fault> {
        let until = Instant::now() + ROOM_WAIT;
        loop {
            let room = hub.room.notified();
            let mut room = std::pin::pin!(room);
            // From here on no notice is missed.
            room.as_mut().enable();
            let ended = hub.ended();
            let turn = hub.turn().await?;
            let (turn, found) = hub.with(turn, move |store| Ok(store.room(side, ended))).await?;
            let cause = match found {
                Room::Free => return Ok((turn, false)),
                Room::Full => return Ok((turn, true)),
                Room::Ahead => {
                    let (own, other) = (&hub.rules.sides[side].name, &hub.rules.sides[1 - side].name);
                    format!(
                        "'{own}' is ahead of '{other}', and {} of its records wait: it goes on when '{other}' catches up",
                        hub.rules.rows_max
                    )
                }
                Room::Behind => "what is joined is not taken fast enough by what comes after".to_string(),
            };
            drop(turn);
            if timeout_at(until, room).await.is_err() {
                return Err(Fault::retry(cause));
            }
        }
    }
}

#[async_trait]
impl Sink for JoinSink {
    async fn open(&mut self) -> Result<(), Fault> {
        self.turn = None;
        if std::mem::take(&mut self.has_ended) {
            self.hub.begin(self.side);
        }
        self.hub.turn().await.map(drop)
    }

    async fn watermark(&mut self, stream: &StreamId) -> Result<Option<Watermark>, Fault> {
        self.turn = None;
        let (turn, stream) = (self.hub.turn().await?, *stream);
        let (_, mark) = self.hub.with(turn, move |store| store.watermark(&stream)).await?;
        Ok(mark)
    }

    fn keeps_watermark(&self) -> bool {
        true
    }

    async fn write(&mut self, deliveries: &[Delivery]) -> Result<Vec<Rejected>, Fault> {
        self.turn = None;
        let (mut turn, is_full) = Self::turn_with_room(&self.hub, self.side).await?;
        let (side, ended) = (self.side, self.hub.ended());
        let mut rejected = Vec::new();
        for (index, delivery) in deliveries.iter().enumerate() {
            // The blocking call cannot borrow.
            let delivery = delivery.clone();
            let work = move |store: &mut super::store::Store| store.take(side, ended, &delivery, is_full);
            let (given_back, rows) = self.hub.with(turn, work).await?;
            turn = given_back;
            rejected.extend(rows.into_iter().map(|(row, reason)| Rejected {
                delivery: index,
                row,
                reason,
            }));
        }
        self.turn = Some(turn);
        Ok(rejected)
    }

    async fn commit(&mut self) -> Result<(), Fault> {
        let Some(turn) = self.turn.take() else { return Ok(()) };
        self.hub.with(turn, super::store::Store::commit).await?;
        self.hub.made.notify_one();
        self.hub.room.notify_waiters();
        Ok(())
    }

    fn ended(&mut self) {
        if !std::mem::replace(&mut self.has_ended, true) {
            self.hub.end(self.side);
        }
    }

    async fn check(&mut self) -> Result<String, Trouble> {
        Ok("nothing outside of the daemon".to_string())
    }

    async fn close(&mut self) {
        self.turn = None;
    }
}
