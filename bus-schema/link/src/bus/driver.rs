//! Keeps one bus connected: address after address, with growing and jittered pauses, for ever. The only place that
//! decides about up and down. Speaks no protocol.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tracing::debug;

use crate::essential;

use super::{
    BusAddress, BusConfig, Event, Fate, Link, Live, Lost, Pattern, Protocol, Shared, Status,
    backoff::backoff,
    cause::Peer,
    inbox::{Held, Inbox},
    memory, mqtt, nats,
};

/// How long connecting may take, name lookup and TLS included.
const CONNECT_MAX: Duration = Duration::from_secs(20);
/// How long a broker may take to confirm subscriptions.
const CONFIRM_MAX: Duration = Duration::from_secs(10);
/// How long disconnecting politely may take.
const CLOSE_MAX: Duration = Duration::from_secs(4);
/// A connection that lasted this long was a good one: the next pause is short again.
const STABLE: Duration = Duration::from_secs(10);

/// The bus is being closed, or nobody listens any more.
struct Leave;

/// Runs until the bus is closed.
pub(super) async fn drive(shared: Arc<Shared>, config: BusConfig, events: mpsc::Sender<Event>) {
    // Also on a panic: nobody may wait for ever for a bus that has ended.
    let _ended = Ended(Arc::clone(&shared));
    let mut driver = Driver {
        closing: shared.closing.subscribe(),
        shared,
        config,
        events,
    };
    let (mut at, mut failures, mut was_connected) = (0, 0u32, false);
    loop {
        let address = driver.config.addresses[at].clone();
        let started = Instant::now();
        let (cause, was_up) = match driver.connect_and_serve(&address).await {
            Ok(lost) => lost,
            Err(Leave) => return,
        };
        if driver.down(cause).await.is_err() {
            return;
        }
        was_connected |= was_up;
        if was_up && started.elapsed() >= STABLE {
            // The same broker gets another chance: it may only have been restarted.
            failures = 0;
        } else {
            failures = failures.saturating_add(1);
            at = (at + 1) % driver.config.addresses.len();
        }
        let round = failures / u32::try_from(driver.config.addresses.len()).unwrap_or(u32::MAX);
        // Without randomness the pause is the longest of its round: slow, but right.
        let pause = backoff(round, was_connected, getrandom::u32().unwrap_or(u32::MAX));
        if driver.unless_leaving(sleep(pause)).await.is_err() {
            return;
        }
    }
}

struct Driver {
    shared: Arc<Shared>,
    config: BusConfig,
    events: mpsc::Sender<Event>,
    closing: watch::Receiver<bool>,
}

impl Driver {
    /// One connection, from the attempt to its loss: the cause, and whether it had been up.
    async fn connect_and_serve(&mut self, address: &BusAddress) -> Result<(String, bool), Leave> {
        let peer = Peer {
            address: address.clone(),
            user: self.config.credentials.user().map(str::to_owned),
            refused: Arc::default(),
        };
        let (inbox, held) = Inbox::new(Arc::clone(&self.shared.tally));
        let config = self.config.clone();
        let connecting = timeout(CONNECT_MAX, connect(&config, peer.clone(), inbox));
        let connected = self.unless_leaving(connecting).await?;
        // Known before the loss is told, and until the next attempt has ended.
        let is_refused = peer.refused.load(Ordering::Relaxed);
        self.shared.refused.store(is_refused, Ordering::Relaxed);
        let live = match connected {
            Ok(Ok(live)) => live,
            Ok(Err(cause)) => return Ok((cause, false)),
            Err(_) => return Ok((peer.no_answer(), false)),
        };
        // Marked as seen here, so that whatever is wanted later is noticed later.
        let mut wanted = self.shared.wanted.subscribe();
        let mut active = BTreeSet::new();
        let now_wanted = wanted.borrow_and_update().clone();
        match self
            .unless_leaving(reconcile(&live, &peer, &mut active, now_wanted))
            .await
        {
            Ok(Ok(())) => {}
            Ok(Err(Lost)) => return Ok((live.fate.wait().await.clone(), false)),
            Err(Leave) => {
                live.close().await;
                return Err(Leave);
            }
        }
        self.shared.active.send_replace(Some(active.clone()));
        self.shared.set_live(Some(live.clone()));
        self.shared.status.send_replace(Status::Up {
            address: address.clone(),
        });
        debug!(%address, "bus is up");
        let left = self.serve(&live, &peer, address, active, &mut wanted, held).await;
        self.shared.set_live(None);
        self.shared.active.send_replace(None);
        if left.is_err() {
            live.close().await;
        }
        left?;
        Ok((live.fate.wait().await.clone(), true))
    }

    /// Delivers and keeps the subscriptions as wanted until the connection is lost.
    async fn serve(
        &mut self,
        live: &Live,
        peer: &Peer,
        address: &BusAddress,
        mut active: BTreeSet<Pattern>,
        wanted: &mut watch::Receiver<BTreeSet<Pattern>>,
        held: mpsc::Receiver<Held>,
    ) -> Result<(), Leave> {
        let up = Event::Up {
            address: address.clone(),
        };
        let mut pump = Pump(essential::spawn(
            "pump",
            pump(live.clone(), held, self.events.clone(), up),
        ));
        loop {
            let changed = async {
                tokio::select! {
                    biased;
                    _ = live.fate.wait() => Err(Lost),
                    // The sender is in `self.shared`.
                    _ = wanted.changed() => Ok(()),
                }
            };
            if self.unless_leaving(changed).await?.is_err() {
                break;
            }
            let now_wanted = wanted.borrow_and_update().clone();
            if self
                .unless_leaving(reconcile(live, peer, &mut active, now_wanted))
                .await?
                .is_err()
            {
                break;
            }
            self.shared.active.send_replace(Some(active.clone()));
        }
        let cause = live.fate.wait().await.clone();
        self.shared.set_live(None);
        self.shared.active.send_replace(None);
        self.shared.status.send_replace(Status::Down { cause });
        // What had arrived before the loss is delivered before the loss is reported.
        let _ = self.unless_leaving(&mut pump.0).await?;
        Ok(())
    }

    async fn down(&mut self, cause: String) -> Result<(), Leave> {
        debug!(cause, "bus is down");
        self.shared.status.send_replace(Status::Down { cause: cause.clone() });
        let events = self.events.clone();
        match self.unless_leaving(events.send(Event::Down { cause })).await? {
            Ok(()) => Ok(()),
            Err(_) => Err(Leave),
        }
    }

    /// The work's result, unless the bus is closed or abandoned meanwhile.
    async fn unless_leaving<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Leave> {
        tokio::select! {
            biased;
            // An error would mean that the sender is gone, but it is in `self.shared`.
            _ = self.closing.wait_for(|closing| *closing) => Err(Leave),
            () = self.events.closed() => Err(Leave),
            done = work => Ok(done),
        }
    }
}

impl Live {
    async fn close(&self) {
        let politely = async {
            tokio::select! {
                _ = self.fate.wait() => {}
                () = self.link.close() => {}
            }
        };
        if timeout(CLOSE_MAX, politely).await.is_err() {
            debug!("the broker did not let go in time");
        }
        // Whoever still waits to publish learns that it is over.
        let _ = self.fate.set("the bus was closed".to_owned());
    }
}

async fn connect(config: &BusConfig, peer: Peer, inbox: Inbox) -> Result<Live, String> {
    let fate = Fate::default();
    let tls = match peer.address.tls() || (config.tls.is_custom() && peer.address.protocol() == Protocol::Nats) {
        true => {
            let tls = config.tls.clone();
            let built = tokio::task::spawn_blocking(move || tls.client_config()).await;
            Some(
                built
                    .map_err(|error| error.to_string())?
                    .map_err(|error| error.to_string())?,
            )
        }
        false => None,
    };
    let link: Arc<dyn Link> = match peer.address.protocol() {
        Protocol::Nats => Arc::new(nats::connect(config, tls, peer, inbox, Arc::clone(&fate)).await?),
        Protocol::Mqtt => Arc::new(mqtt::connect(config, tls, peer, inbox, Arc::clone(&fate)).await?),
        Protocol::Memory => Arc::new(memory::connect(&peer, inbox, Arc::clone(&fate))?),
    };
    Ok(Live { link, fate })
}

/// Makes the broker's subscriptions what the owner wants. Whatever goes wrong is the connection's fate.
async fn reconcile(
    live: &Live,
    peer: &Peer,
    active: &mut BTreeSet<Pattern>,
    wanted: BTreeSet<Pattern>,
) -> Result<(), Lost> {
    let missing: Vec<_> = wanted.difference(active).cloned().collect();
    let extra: Vec<_> = active.difference(&wanted).cloned().collect();
    let work = async {
        if !extra.is_empty() {
            live.link.unsubscribe(&extra).await?;
        }
        if !missing.is_empty() {
            live.link.subscribe(&missing).await?;
        }
        Ok(())
    };
    let outcome = tokio::select! {
        biased;
        _ = live.fate.wait() => Err(Lost),
        outcome = timeout(CONFIRM_MAX, work) => outcome.unwrap_or(Err(Lost)),
    };
    match outcome {
        Ok(()) => *active = wanted,
        Err(Lost) => {
            let _ = live
                .fate
                .set(format!("the broker at {} did not confirm a subscription", peer.address));
        }
    }
    outcome
}

/// Hands what was received to the owner, and the receipts to the broker. Ends some time after the connection does, when
/// everything has been handed over.
async fn pump(live: Live, mut held: mpsc::Receiver<Held>, events: mpsc::Sender<Event>, up: Event) {
    if events.send(up).await.is_err() {
        return;
    }
    loop {
        let next = tokio::select! {
            biased;
            next = held.recv() => next,
            _ = live.fate.wait(), if !held.is_closed() => {
                held.close();
                continue;
            }
        };
        let Some(Held { message, receipt, .. }) = next else {
            return;
        };
        if let Some((subject, payload)) = message
            && events.send(Event::Message { subject, payload }).await.is_err()
        {
            return;
        }
        if let Some(id) = receipt {
            tokio::select! {
                biased;
                _ = live.fate.wait() => {}
                () = live.link.receipt(id) => {}
            }
        }
    }
}

/// Aborts the pump when the driver leaves, so that nothing comes after the end.
struct Pump(JoinHandle<()>);

impl Drop for Pump {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.set_live(None);
        self.0.active.send_replace(None);
        self.0.status.send_replace(Status::Down {
            cause: "the bus was closed".to_owned(),
        });
        let _ = self.0.ended.set(());
    }
}
