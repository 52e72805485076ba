//! One connection to an MQTT 3.1.1 broker, on rumqttc. A fresh client for every attempt: rumqttc's own reconnect silently
//! forgets what was under way. Everything is QoS 1 in a clean session; nothing is retained.
//!
//! rumqttc only lives while its event loop is polled, pings included, and cancelling a poll may lose a packet. So one
//! task polls and never waits for anybody. Back-pressure works with MQTT's own means instead: a message is acknowledged
//! only once its owner has it, and a broker should send no more while too many are open. Not every broker keeps to that
//! (mosquitto 2.0.11 sends its whole backlog after the first acknowledgement); what finds no room then is dropped.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bus_schema::{
    limits::{FRAME_BYTES_MAX, SUBJECT_BYTES_MAX},
    subject::{Dialect, Pattern, Subject},
};
use rumqttc::{
    AsyncClient, Event, EventLoop, MqttOptions, Outgoing, Packet, Publish, QoS, SubscribeFilter, SubscribeReasonCode,
    TlsConfiguration, Transport,
};
use rustls::ClientConfig;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, timeout_at},
};

use super::{
    Background, BusConfig, Credentials, Fate, Link, Lost, PING, SEND_BYTES_MAX, SILENCE_MAX, cause::Peer, inbox::Inbox,
};

/// Messages under way to the broker.
const SEND_COUNT_MAX: usize = 64;
/// rumqttc's own limit. Higher than ours, so that its packet ids never collide and receipts are never held up.
const CLIENT_INFLIGHT: u16 = 4 * SEND_COUNT_MAX as u16;
/// Requests waiting for the event loop: every message under way, a receipt for every packet id, and a little more, so
/// that there is always room. Memory is only used by what is really there.
const REQUESTS_MAX: usize = SEND_COUNT_MAX + u16::MAX as usize + 16;
/// Patterns in one packet, which stays far below the packet limit.
const PATTERNS_PER_PACKET: usize = 64;
/// Largest packet in either direction, in bytes: a frame, its subject, and MQTT's headings.
const PACKET_BYTES_MAX: usize = FRAME_BYTES_MAX + SUBJECT_BYTES_MAX + 64;
/// How long the socket may take no data at all: one frame on a 30 kbit/s line.
const WRITE_MAX: Duration = Duration::from_secs(25);

/// A message under way: what it occupies of the window.
type Slot = (OwnedSemaphorePermit, OwnedSemaphorePermit);

/// The messages the broker has not acknowledged yet.
#[derive(Debug)]
struct Window {
    count: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    /// Handed to rumqttc, which has not chosen a packet id yet; in order.
    queued: VecDeque<Slot>,
    /// By packet id.
    sent: HashMap<u16, Slot>,
}

impl Window {
    fn new() -> Self {
        Self {
            count: Arc::new(Semaphore::new(SEND_COUNT_MAX)),
            bytes: Arc::new(Semaphore::new(SEND_BYTES_MAX)),
            slots: Mutex::default(),
        }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn room(&self, bytes: usize) -> Result<Slot, Lost> {
        let bytes = u32::try_from(bytes).map_err(|_| Lost)?;
        let count = Arc::clone(&self.count).acquire_owned().await.map_err(|_| Lost)?;
        let bytes = Arc::clone(&self.bytes)
            .acquire_many_owned(bytes)
            .await
            .map_err(|_| Lost)?;
        Ok((count, bytes))
    }

    fn sent(&self, id: u16) {
        let mut slots = self.slots();
        if let Some(slot) = slots.queued.pop_front() {
            slots.sent.insert(id, slot);
        }
    }

    fn acknowledged(&self, id: u16) {
        self.slots().sent.remove(&id);
    }
}

/// The broker's answer to the one open request for (un)subscription.
type Answer = Arc<Mutex<Option<oneshot::Sender<Vec<SubscribeReasonCode>>>>>;

fn answer(slot: &Answer, codes: Vec<SubscribeReasonCode>) {
    if let Some(waiting) = slot.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let _ = waiting.send(codes);
    }
}

#[derive(Debug)]
pub(super) struct MqttLink {
    client: AsyncClient,
    window: Arc<Window>,
    answer: Answer,
    fate: Fate,
    peer: Peer,
    _poller: Background,
}

/// Returns when the broker has accepted the connection.
pub(super) async fn connect(
    config: &BusConfig,
    tls: Option<Arc<ClientConfig>>,
    peer: Peer,
    inbox: Inbox,
    fate: Fate,
) -> Result<MqttLink, String> {
    let (client, mut eventloop) = AsyncClient::new(options(config, tls, &peer), REQUESTS_MAX);
    eventloop.network_options.set_tcp_nodelay(true);
    eventloop.network_options.set_connection_timeout(WRITE_MAX.as_secs());
    // The first event is the answer to the connection request.
    eventloop.poll().await.map_err(|error| peer.mqtt(&error))?;
    let (window, answer) = (Arc::new(Window::new()), Answer::default());
    let poller = Poller {
        window: Arc::clone(&window),
        answer: Arc::clone(&answer),
        inbox,
        peer: peer.clone(),
    };
    let poller = {
        let fate = Arc::clone(&fate);
        Background::spawn(async move {
            let _ = fate.set(poller.run(eventloop).await);
        })
    };
    Ok(MqttLink {
        client,
        window,
        answer,
        fate,
        peer,
        _poller: poller,
    })
}

fn options(config: &BusConfig, tls: Option<Arc<ClientConfig>>, peer: &Peer) -> MqttOptions {
    let mut options = MqttOptions::new(config.client(), peer.address.host(), peer.address.port());
    options.set_clean_session(true);
    options.set_keep_alive(PING);
    options.set_manual_acks(true);
    options.set_inflight(CLIENT_INFLIGHT);
    options.set_max_packet_size(PACKET_BYTES_MAX, PACKET_BYTES_MAX);
    if let Credentials::UserPassword { user, password } = &config.credentials {
        options.set_credentials(user, password.expose());
    }
    if let Some(tls) = tls {
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls)));
    }
    options
}

struct Poller {
    window: Arc<Window>,
    answer: Answer,
    inbox: Inbox,
    peer: Peer,
}

impl Poller {
    /// Polls until the connection ends; returns why it did.
    async fn run(self, mut eventloop: EventLoop) -> String {
        let mut heard = Instant::now();
        loop {
            let event = match timeout_at(heard + SILENCE_MAX, eventloop.poll()).await {
                Ok(Ok(event)) => event,
                Ok(Err(error)) => return self.peer.mqtt(&error),
                Err(_) => return self.peer.silent(),
            };
            match event {
                Event::Incoming(packet) => {
                    heard = Instant::now();
                    self.incoming(packet);
                }
                Event::Outgoing(Outgoing::Publish(id)) => self.window.sent(id),
                // Everything before it has been written.
                Event::Outgoing(Outgoing::Disconnect) => return "the bus was closed".to_owned(),
                Event::Outgoing(_) => {}
            }
        }
    }

    fn incoming(&self, packet: Packet) {
        match packet {
            Packet::Publish(publish) => {
                let receipt = (publish.qos == QoS::AtLeastOnce).then_some(publish.pkid);
                self.inbox
                    .offer(&publish.topic, Dialect::Mqtt, &publish.payload, receipt);
            }
            Packet::PubAck(ack) => self.window.acknowledged(ack.pkid),
            Packet::SubAck(ack) => answer(&self.answer, ack.return_codes),
            Packet::UnsubAck(_) => answer(&self.answer, Vec::new()),
            _ => {}
        }
    }
}

impl MqttLink {
    /// Sends a request for (un)subscription and waits for its answer. Only the driver asks, one thing at a time.
    async fn ask(
        &self,
        send: impl Future<Output = Result<(), rumqttc::ClientError>>,
    ) -> Result<Vec<SubscribeReasonCode>, Lost> {
        let (asked, answered) = oneshot::channel();
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(asked);
        send.await.map_err(|_| Lost)?;
        answered.await.map_err(|_| Lost)
    }
}

#[async_trait]
impl Link for MqttLink {
    async fn subscribe(&self, patterns: &[Pattern]) -> Result<(), Lost> {
        for patterns in patterns.chunks(PATTERNS_PER_PACKET) {
            let filter = |pattern: &Pattern| SubscribeFilter::new(pattern.render(Dialect::Mqtt), QoS::AtLeastOnce);
            let codes = self
                .ask(self.client.subscribe_many(patterns.iter().map(filter)))
                .await?;
            let refused = |(_, code): &(&Pattern, &SubscribeReasonCode)| **code == SubscribeReasonCode::Failure;
            if let Some((pattern, _)) = patterns.iter().zip(&codes).find(refused) {
                let _ = self.fate.set(self.peer.subscription_refused(&format!("'{pattern}'")));
                return Err(Lost);
            }
        }
        Ok(())
    }

    async fn unsubscribe(&self, patterns: &[Pattern]) -> Result<(), Lost> {
        for pattern in patterns {
            self.ask(self.client.unsubscribe(pattern.render(Dialect::Mqtt))).await?;
        }
        Ok(())
    }

    async fn publish(&self, subject: &Subject, payload: Vec<u8>) -> Result<(), Lost> {
        let slot = self.window.room(payload.len()).await?;
        // Under one lock, so that slots and messages stay in the same order.
        let mut slots = self.window.slots();
        let topic = subject.render(Dialect::Mqtt);
        // There is always room, so this fails only when the event loop is gone.
        self.client
            .try_publish(topic, QoS::AtLeastOnce, false, payload)
            .map_err(|_| Lost)?;
        slots.queued.push_back(slot);
        Ok(())
    }

    async fn receipt(&self, id: u16) {
        let mut publish = Publish::new("", QoS::AtLeastOnce, Vec::new());
        publish.pkid = id;
        // An error means that the connection is gone.
        let _ = self.client.ack(&publish).await;
    }

    async fn close(&self) {
        let all = u32::try_from(SEND_COUNT_MAX).unwrap_or(u32::MAX);
        let _acknowledged = self.window.count.acquire_many(all).await;
        if self.client.disconnect().await.is_ok() {
            self.fate.wait().await;
        }
    }
}
