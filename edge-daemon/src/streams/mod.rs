//! Streams: edges that cross from one pipe to another, over the bus or inside this daemon. This is where the bus's data
//! connection, the spools and the flow meet.

mod anew;
mod append;
mod clock;
mod courier;
pub mod incoming;
pub mod outgoing;
mod tracks;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::Ordering},
    time::{Duration, Instant},
};

use bus_link::{
    essential,
    secure::Secure,
    session::{Session, SessionEvent},
};
use bus_schema::{
    carried::StreamCarried,
    id::{NodeId, StreamId},
    limits::{CREDIT_FRAMES, FRAME_BYTES_MAX},
    message::{Body, Message, StreamAck, StreamOpen, StreamReport},
    piece::Piece,
    plan::StreamSpec,
    subject::{self, Lane, Pattern, Subject},
};
use stream::{
    answers::Answers,
    hours::{self, TimeOfDay},
    pacer::{self, Pacer, Turn},
};
use tokio::sync::{Notify, mpsc, watch};

use self::{clock::Clock, incoming::Answer};
use crate::clocks::Clocks;

pub use incoming::Incoming;
pub use outgoing::Outgoing;
pub use tracks::Tracks;

/// Frames all incoming streams together may have under way; each has its share.
const WINDOW_FRAMES: u64 = 2 * CREDIT_FRAMES;
/// Least frames a stream may have under way.
const WINDOW_FRAMES_MIN: u64 = 2;
/// After a reconnect a daemon's streams are opened one after the other, and after a start it asks for those that come to it
/// in the same way, in an order left to chance: so far apart on average, and the last of them no later than that.
const OPENS_APART: Duration = Duration::from_millis(20);
const OPENS_SPREAD_MAX: Duration = Duration::from_secs(5);

/// When it is the turn of one of so many streams, by a random number. Pure.
fn turn(streams: usize, random: u32) -> Duration {
    let streams = u32::try_from(streams).unwrap_or(u32::MAX);
    let spread = OPENS_APART.saturating_mul(streams).min(OPENS_SPREAD_MAX);
    spread.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// An acknowledgement to be sent.
#[derive(Debug, Clone, Copy)]
struct Due {
    at: Instant,
    /// Asks to go back.
    rewind: bool,
}

#[derive(Default)]
struct Table {
    outgoing: HashMap<StreamId, Arc<Outgoing>>,
    incoming: HashMap<StreamId, Arc<Incoming>>,
    /// Acknowledgements to send.
    due: HashMap<StreamId, Due>,
    /// How often each incoming stream was acknowledged lately.
    answers: HashMap<StreamId, Answers>,
}

impl Table {
    /// Notes an acknowledgement; an earlier one wins, and a wish to go back is kept.
    fn want(&mut self, stream: StreamId, at: Instant, rewind: bool) {
        let due = self.due.entry(stream).or_insert(Due { at, rewind });
        due.at = due.at.min(at);
        due.rewind |= rewind;
    }
}

/// The two connections of a daemon.
pub struct Road {
    /// For control messages.
    pub control: Arc<Session>,
    /// For frames and acknowledgements.
    pub data: Arc<Session>,
}

/// All streams of this daemon.
pub struct Streams {
    secure: Arc<Secure>,
    road: Option<Road>,
    clocks: Arc<Clocks>,
    table: Mutex<Table>,
    /// Who of those that send over the bus may send now. Never locked together with the table.
    pacer: Mutex<Pacer>,
    clock: Clock,
    due: Arc<Notify>,
    bus_up: watch::Sender<bool>,
    local_up: watch::Sender<bool>,
}

impl Streams {
    /// Streams over a road; without one, only those inside this daemon.
    pub fn new(secure: Arc<Secure>, road: Option<Road>, clocks: Arc<Clocks>) -> Arc<Self> {
        let streams = Arc::new(Self {
            secure,
            road,
            clocks,
            table: Mutex::default(),
            pacer: Mutex::default(),
            clock: Clock::default(),
            due: Arc::default(),
            bus_up: watch::Sender::new(false),
            local_up: watch::Sender::new(true),
        });
        essential::spawn(
            "acknowledgements",
            acknowledge(Arc::downgrade(&streams), Arc::clone(&streams.due)),
        );
        streams
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Every change under this lock is one insertion or removal.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this daemon knows of the time.
    pub fn clocks(&self) -> &Arc<Clocks> {
        &self.clocks
    }

    /// Whether a stream stays inside this daemon.
    pub fn is_local(&self, spec: &StreamSpec) -> bool {
        spec.producer == spec.consumer
    }

    /// Tells the pacer something, then lets whose turn it is know.
    fn pace<T>(&self, tell: impl FnOnce(&mut Pacer, Instant, Option<TimeOfDay>) -> T) -> T {
        let (now, clock) = (Instant::now(), self.clock.time_of_day());
        let (told, next) = {
            // A panic while this was held leaves counts behind that the next connection sets right.
            let mut pacer = self.pacer.lock().unwrap_or_else(PoisonError::into_inner);
            let told = tell(&mut pacer, now, clock);
            (told, pacer.next(now, clock))
        };
        if let Some(next) = next
            && let Some(out) = self.lock().outgoing.get(&next)
        {
            out.turn.notify_one();
        }
        told
    }

    /// A stream would like to send so many bytes. When it must wait for its turn, its courier is told.
    fn ask(&self, out: &Outgoing, bytes: usize) -> Turn {
        let spec = out.spec();
        if self.is_local(spec) {
            return Turn::Go(bytes);
        }
        let yields = out.yields.load(Ordering::Relaxed);
        self.pace(|pacer, now, clock| {
            pacer.yields(&spec.stream, yields);
            pacer.ask(&spec.stream, bytes, now, clock)
        })
    }

    /// A stream does not wait for its turn any more.
    fn give_up(&self, spec: &StreamSpec) {
        if !self.is_local(spec) {
            self.pace(|pacer, _, _| pacer.give_up(&spec.stream));
        }
    }

    /// A stream that may wait for its turn is about to do something else.
    fn away(&self, spec: &StreamSpec) {
        if !self.is_local(spec) {
            self.pace(|pacer, _, _| pacer.away(&spec.stream));
        }
    }

    /// How long a stream's bytes take now until they are acknowledged. `lost`: some have just been lost.
    fn heard(&self, spec: &StreamSpec, lost: bool) -> Duration {
        if self.is_local(spec) {
            return Duration::ZERO;
        }
        self.pace(|pacer, now, _| {
            if lost {
                pacer.lost(&spec.stream, now);
            }
            pacer.delay(&spec.stream)
        })
    }

    /// Whether so little may be on the way that reading ahead would only cost memory.
    fn is_slow(&self) -> bool {
        self.pace(|pacer, _, _| pacer.window() < FRAME_BYTES_MAX)
    }

    /// Why a stream outside its hours waits, in words.
    fn closed(&self, spec: &StreamSpec) -> String {
        let opens = self
            .clock
            .time_of_day()
            .and_then(|now| hours::opens_at(&spec.send.windows, now));
        format!("waits for its hours: sends again at {}", opens.unwrap_or_default())
    }

    /// How long a courier waits before it opens its stream on a new connection.
    fn pause(&self, spec: &StreamSpec) -> Duration {
        if self.is_local(spec) {
            return Duration::ZERO;
        }
        let streams = self.lock().outgoing.len();
        // Without randomness they are opened together, which is only slower.
        turn(streams, getrandom::u32().unwrap_or(0))
    }

    /// Whether the way to a consumer is open.
    pub fn up(&self, consumer: &NodeId) -> watch::Receiver<bool> {
        if consumer == self.secure.node() {
            self.local_up.subscribe()
        } else {
            self.bus_up.subscribe()
        }
    }

    /// Takes a stream on; its acknowledgements will be heard. What is returned sends its frames as long as it runs.
    pub async fn add_outgoing(self: &Arc<Self>, out: Arc<Outgoing>) -> impl Future<Output = ()> + Send + 'static {
        let spec = out.spec().clone();
        self.lock().outgoing.insert(spec.stream, Arc::clone(&out));
        if !self.is_local(&spec) {
            self.pace(|pacer, now, _| pacer.join_twin(spec.stream, out.twin, spec.consumer, &spec.send, now));
        }
        if let (Some(road), false) = (&self.road, self.is_local(&spec)) {
            road.data
                .bus()
                .subscribe(subject::ack(self.secure.fleet(), &spec.consumer, &spec.stream).into())
                .await;
        }
        out.courier(Arc::clone(self))
    }

    /// Takes a stream on; its frames will be heard.
    pub async fn add_incoming(&self, incoming: Arc<Incoming>) {
        let spec = incoming.spec().clone();
        self.lock().incoming.insert(spec.stream, incoming);
        if let (Some(road), false) = (&self.road, self.is_local(&spec)) {
            road.data
                .bus()
                .subscribe(subject::data(self.secure.fleet(), &spec.producer, &spec.stream).into())
                .await;
        }
    }

    /// Lets go of streams.
    pub async fn remove(&self, specs: &[StreamSpec]) {
        for spec in specs {
            {
                let mut table = self.lock();
                if spec.producer == *self.secure.node() {
                    table.outgoing.remove(&spec.stream);
                }
                if spec.consumer == *self.secure.node() {
                    table.incoming.remove(&spec.stream);
                }
                table.due.remove(&spec.stream);
                table.answers.remove(&spec.stream);
            }
            self.pace(|pacer, now, _| pacer.leave(&spec.stream, now));
            if let (Some(road), false) = (&self.road, self.is_local(spec)) {
                let fleet = self.secure.fleet();
                let pattern: Pattern = if spec.producer == *self.secure.node() {
                    subject::ack(fleet, &spec.consumer, &spec.stream).into()
                } else {
                    subject::data(fleet, &spec.producer, &spec.stream).into()
                };
                road.data.bus().unsubscribe(&pattern).await;
            }
        }
    }

    /// The accounts of all streams.
    pub fn reports(&self) -> Vec<StreamReport> {
        let (outgoing, incoming) = {
            let table = self.lock();
            (
                table.outgoing.values().cloned().collect::<Vec<_>>(),
                table.incoming.values().cloned().collect::<Vec<_>>(),
            )
        };
        let mut reports: Vec<_> = outgoing.iter().map(|stream| stream.report()).collect();
        let local: HashSet<_> = outgoing.iter().map(|stream| stream.spec().stream).collect();
        for stream in incoming {
            let report = stream.report();
            // Inside one daemon the producer's account says it all but the duplicates.
            match reports
                .iter_mut()
                .find(|r| local.contains(&r.stream) && r.stream == report.stream)
            {
                Some(mine) => mine.ledger.duplicates = report.ledger.duplicates,
                None => reports.push(report),
            }
        }
        reports.sort_by_key(|report| (report.workflow, report.edge.clone()));
        reports
    }

    /// What the streams that begin here have carried.
    pub fn carried(&self) -> Vec<StreamCarried> {
        let table = self.lock();
        let one = |out: &Arc<Outgoing>| out.on_the_way.carried(out.spec().stream);
        let mut carried: Vec<_> = table.outgoing.values().map(one).collect();
        carried.sort_by_key(|carried| carried.stream);
        carried
    }

    /// Handles what happens on the data connection until it is closed.
    pub async fn listen(self: Arc<Self>, mut events: mpsc::Receiver<SessionEvent>) {
        while let Some(event) = events.recv().await {
            match event {
                SessionEvent::Up { address } => {
                    tracing::info!(address, "data connection up");
                    self.pace(|pacer, _, _| pacer.reconnected());
                    self.bus_up.send_replace(true);
                    self.greet();
                }
                SessionEvent::Down { cause } => {
                    tracing::warn!(cause, "data connection down");
                    self.bus_up.send_replace(false);
                    self.pace(|pacer, _, _| pacer.reconnected());
                }
                SessionEvent::Stream { subject, frame } => self.arrived(&subject, &frame),
                SessionEvent::Refused { subject, cause } => tracing::warn!(%subject, cause, "refused"),
                SessionEvent::Message(_) | SessionEvent::Stale(_) | SessionEvent::Candidate { .. } => {}
            }
        }
    }

    /// After a reconnect every consumer says where it stands.
    fn greet(&self) {
        let mut table = self.lock();
        let streams: Vec<_> = table.incoming.keys().copied().collect();
        let now = Instant::now();
        for stream in streams {
            table.want(stream, now, false);
        }
        drop(table);
        self.due.notify_one();
    }

    fn arrived(&self, subject: &Subject, frame: &[u8]) {
        let Ok(address) = subject.address() else { return };
        let Some(stream) = address.rest.first().and_then(|token| token.parse::<StreamId>().ok()) else {
            return;
        };
        match address.lane {
            Lane::Data => self.frame_in(&stream, subject, frame),
            Lane::Ack => {
                let Some(out) = self.lock().outgoing.get(&stream).cloned() else {
                    return;
                };
                match self.read_ack(subject, frame, out.spec()) {
                    Ok(ack) => {
                        if ack.epoch == out.view().lineage.epoch {
                            let (received, partial) = (ack.received, ack.partial_bytes);
                            self.pace(|pacer, now, _| pacer.acked(&stream, received, partial, now));
                        }
                        out.ack(ack);
                    }
                    Err(cause) => tracing::warn!(%subject, cause, "an acknowledgement was refused"),
                }
            }
            _ => {}
        }
    }

    fn read_ack(&self, subject: &Subject, frame: &[u8], spec: &StreamSpec) -> Result<StreamAck, String> {
        let opened = self.secure.open(subject, frame).map_err(|error| error.to_string())?;
        let body = Body::decode(&opened.plaintext).map_err(|error| error.to_string())?;
        let ack = StreamAck::from_payload(body.kind, body.ver, body.payload).map_err(|error| error.to_string())?;
        if opened.sender.node != spec.consumer || ack.stream != spec.stream {
            return Err("not by the consumer of this stream".to_string());
        }
        Ok(ack)
    }

    fn frame_in(&self, stream: &StreamId, subject: &Subject, frame: &[u8]) {
        let Some(incoming) = self.lock().incoming.get(stream).cloned() else {
            return;
        };
        match incoming.arrived(subject, frame, Instant::now()) {
            Answer::None => {}
            Answer::Now { rewind } => self.want_ack(&incoming, rewind),
            Answer::Soon if self.is_local(incoming.spec()) => {}
            Answer::Soon => self.want_ack_soon(incoming.spec().stream),
        }
    }

    /// A producer opens a stream to this daemon.
    pub fn opened(&self, sender: &NodeId, open: &StreamOpen) {
        let incoming = self.lock().incoming.get(&open.stream).cloned();
        match incoming {
            Some(incoming) if incoming.spec().producer == *sender => {
                if incoming.opened(open) {
                    self.want_ack(&incoming, false);
                }
            }
            Some(_) => tracing::warn!(%sender, stream = %open.stream, "opened by somebody who is not its producer"),
            // The plan that names it has not arrived yet; the producer asks again.
            None => tracing::debug!(%sender, stream = %open.stream, "an unknown stream was opened"),
        }
    }

    /// Lets the producer know where this end stands. Many wishes become one message.
    pub fn want_ack(&self, incoming: &Incoming, rewind: bool) {
        self.lock().want(incoming.spec().stream, Instant::now(), rewind);
        self.due.notify_one();
    }

    /// A pipe has found out where it stands: its producer may open the stream. All pipes of a daemon that was restarted do so
    /// at once, and each opening is answered with a credit of its own.
    pub fn want_opening(&self, incoming: &Incoming) {
        let mut table = self.lock();
        let pause = if self.is_local(incoming.spec()) {
            Duration::ZERO
        } else {
            turn(table.incoming.len(), getrandom::u32().unwrap_or(0))
        };
        table.want(incoming.spec().stream, Instant::now() + pause, false);
        drop(table);
        self.due.notify_one();
    }

    /// Lets the producer know that something has arrived, as soon as it was not told so a moment ago.
    fn want_ack_soon(&self, stream: StreamId) {
        let now = Instant::now();
        let mut table = self.lock();
        let at = table.answers.get(&stream).map_or(now, |answers| answers.next(now));
        table.want(stream, at, false);
        drop(table);
        self.due.notify_one();
    }

    /// Sends the acknowledgements that are due; returns when the next one will be.
    async fn send_due(&self) -> Option<Instant> {
        let now = Instant::now();
        let due: Vec<(Arc<Incoming>, bool)> = {
            let mut table = self.lock();
            let due: Vec<_> = table.due.extract_if(|_, due| due.at <= now).collect();
            due.into_iter()
                .filter_map(|(id, due)| {
                    table.answers.entry(id).or_insert_with(|| Answers::new(now)).given(now);
                    Some((table.incoming.get(&id)?.clone(), due.rewind))
                })
                .collect()
        };
        let window = self.window();
        for (incoming, rewind) in due {
            if let Some(ack) = incoming.ack(rewind, window)
                && let Err(cause) = self.send_ack(&incoming, ack).await
            {
                tracing::debug!(
                    edge = incoming.spec().edge,
                    cause,
                    "an acknowledgement could not be sent"
                );
            }
        }
        self.lock().due.values().map(|due| due.at).min()
    }

    /// Frames each incoming stream may have under way.
    pub fn window(&self) -> u64 {
        let streams = self.lock().incoming.len().max(1) as u64;
        (WINDOW_FRAMES / streams).clamp(WINDOW_FRAMES_MIN, CREDIT_FRAMES)
    }

    async fn send_ack(&self, incoming: &Incoming, ack: StreamAck) -> Result<(), String> {
        let spec = incoming.spec();
        if self.is_local(spec) {
            let out = self.lock().outgoing.get(&spec.stream).cloned();
            out.ok_or("no producer")?.ack(ack);
            return Ok(());
        }
        let payload = ack.to_payload();
        let body = Body {
            kind: StreamAck::KIND,
            ver: StreamAck::VER,
            exchange: bus_schema::message::Exchange::OneWay,
            correlation: 0,
            part: 0,
            parts: 1,
            payload: &payload,
        };
        let subject = incoming.ack_subject();
        let frame = self
            .secure
            .seal_pair(&spec.producer, Lane::Ack, subject, &body.encode());
        let frame = frame.map_err(|error| error.to_string())?;
        self.publish(subject, frame).await
    }

    /// Sends an opening to a consumer.
    pub async fn send_open(&self, consumer: &NodeId, open: StreamOpen) -> Result<(), String> {
        if consumer == self.secure.node() {
            self.opened(consumer, &open);
            return Ok(());
        }
        let road = self.road.as_ref().ok_or("no bus")?;
        road.control
            .send(consumer, &open)
            .await
            .map_err(|error| error.to_string())
    }

    /// Sends a sealed frame.
    pub async fn send_frame(
        &self,
        spec: &StreamSpec,
        subject: &Subject,
        seq: u64,
        frame: Vec<u8>,
    ) -> Result<(), String> {
        if self.is_local(spec) {
            self.frame_in(&spec.stream, subject, &frame);
            return Ok(());
        }
        let bytes = frame.len();
        self.pace(|pacer, now, _| pacer.sent(&spec.stream, seq, pacer::WHOLE, bytes, now));
        self.publish(subject, frame).await
    }

    /// Sends a piece of a sealed frame.
    async fn send_piece(&self, spec: &StreamSpec, subject: &Subject, piece: &Piece<'_>) -> Result<(), String> {
        let (bytes, end) = (piece.bytes.len(), piece.offset + piece.bytes.len() as u32);
        let end = if end == piece.total { pacer::WHOLE } else { end };
        self.pace(|pacer, now, _| pacer.sent(&spec.stream, piece.seq, end, bytes, now));
        self.publish(subject, piece.encode()).await
    }

    async fn publish(&self, subject: &Subject, bytes: Vec<u8>) -> Result<(), String> {
        let road = self.road.as_ref().ok_or("no bus")?;
        road.data
            .bus()
            .publish(subject, bytes)
            .await
            .map_err(|error| error.to_string())
    }
}

/// Sends acknowledgements as they become due, as long as there are streams.
async fn acknowledge(streams: Weak<Streams>, due: Arc<Notify>) {
    let mut next: Option<Instant> = None;
    loop {
        match next {
            Some(at) => {
                let _ = tokio::time::timeout_at(at.into(), due.notified()).await;
            }
            None => due.notified().await,
        }
        let Some(streams) = streams.upgrade() else { return };
        next = streams.send_due().await;
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.due.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openings_are_spread_over_a_bounded_time() {
        for (streams, random, expected_ms) in [
            (0, u32::MAX, 0),
            (1, 0, 0),
            (1, u32::MAX, 20),
            (100, u32::MAX / 2, 1_000),
            (100, u32::MAX, 2_000),
            (1_000, u32::MAX, 5_000),
            (usize::MAX, u32::MAX, 5_000),
        ] {
            assert_eq!(turn(streams, random).as_millis(), expected_ms, "{streams} streams");
        }
    }
}
