//! Streams: edges that cross from one pipe to another, over the bus or inside this daemon. This is where the bus's data
//! connection, the spools and the flow meet.

mod append;
mod courier;
pub mod incoming;
pub mod outgoing;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Instant,
};

use bus_link::{
    secure::Secure,
    session::{Session, SessionEvent},
};
use bus_schema::{
    id::{NodeId, StreamId},
    limits::CREDIT_FRAMES,
    message::{Body, Message, StreamAck, StreamOpen, StreamReport},
    plan::StreamSpec,
    subject::{self, Lane, Pattern, Subject},
};
use tokio::sync::{Notify, mpsc, watch};

use crate::clocks::Clocks;

pub use incoming::Incoming;
pub use outgoing::Outgoing;

/// Frames all incoming streams together may have under way; each has its share.
const WINDOW_FRAMES: u64 = 2 * CREDIT_FRAMES;
/// Least frames a stream may have under way.
const WINDOW_FRAMES_MIN: u64 = 2;

#[derive(Default)]
struct Table {
    outgoing: HashMap<StreamId, Arc<Outgoing>>,
    incoming: HashMap<StreamId, Arc<Incoming>>,
    /// Acknowledgements to send; `true` asks to go back.
    due: HashMap<StreamId, bool>,
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
            due: Arc::default(),
            bus_up: watch::Sender::new(false),
            local_up: watch::Sender::new(true),
        });
        tokio::spawn(acknowledge(Arc::downgrade(&streams), Arc::clone(&streams.due)));
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
            }
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

    /// Handles what happens on the data connection until it is closed.
    pub async fn listen(self: Arc<Self>, mut events: mpsc::Receiver<SessionEvent>) {
        while let Some(event) = events.recv().await {
            match event {
                SessionEvent::Up { address } => {
                    tracing::info!(address, "data connection up");
                    self.bus_up.send_replace(true);
                    self.greet();
                }
                SessionEvent::Down { cause } => {
                    tracing::warn!(cause, "data connection down");
                    self.bus_up.send_replace(false);
                }
                SessionEvent::Stream { subject, frame } => self.arrived(&subject, &frame),
                SessionEvent::Refused { subject, cause } => tracing::warn!(%subject, cause, "refused"),
                SessionEvent::Message(_) | SessionEvent::Candidate { .. } => {}
            }
        }
    }

    /// After a reconnect every consumer says where it stands.
    fn greet(&self) {
        let mut table = self.lock();
        let streams: Vec<_> = table.incoming.keys().copied().collect();
        for stream in streams {
            table.due.entry(stream).or_insert(false);
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
                    Ok(ack) => out.ack(ack),
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
        if let Some(rewind) = incoming.frame(subject, frame, Instant::now()) {
            self.want_ack(&incoming, rewind);
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

    /// Lets the producer know where this end stands, soon. Many wishes become one message.
    pub fn want_ack(&self, incoming: &Incoming, rewind: bool) {
        *self.lock().due.entry(incoming.spec().stream).or_insert(false) |= rewind;
        self.due.notify_one();
    }

    async fn send_due(&self) {
        let due: Vec<(Arc<Incoming>, bool)> = {
            let mut table = self.lock();
            let due = std::mem::take(&mut table.due);
            due.into_iter()
                .filter_map(|(id, rewind)| Some((table.incoming.get(&id)?.clone(), rewind)))
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
        let road = self.road.as_ref().ok_or("no bus")?;
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
        road.data
            .bus()
            .publish(subject, frame)
            .await
            .map_err(|error| error.to_string())
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
    pub async fn send_frame(&self, spec: &StreamSpec, subject: &Subject, frame: Vec<u8>) -> Result<(), String> {
        if self.is_local(spec) {
            self.frame_in(&spec.stream, subject, &frame);
            return Ok(());
        }
        let road = self.road.as_ref().ok_or("no bus")?;
        road.data
            .bus()
            .publish(subject, frame)
            .await
            .map_err(|error| error.to_string())
    }
}

/// Sends acknowledgements as they become due, as long as there are streams.
async fn acknowledge(streams: Weak<Streams>, due: Arc<Notify>) {
    loop {
        due.notified().await;
        let Some(streams) = streams.upgrade() else { return };
        streams.send_due().await;
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.due.notify_one();
    }
}
