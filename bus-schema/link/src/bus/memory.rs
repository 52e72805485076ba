//! A broker inside this process, for tests and for members that live together: `memory://name`. Like any broker it drops
//! messages nobody takes; unlike one it can be told to fail in ways that repeat exactly. Uses no network.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bus_schema::subject::{Dialect, Pattern, Subject};

use super::{Fate, Link, Lost, cause::Peer, inbox::Inbox};

/// What shall go wrong with messages on their way to each subscriber, in thousandths. Decided by `seed` and the order
/// of the messages alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// Where the dice start.
    pub seed: u64,
    /// How many are lost.
    pub drop_per_mille: u16,
    /// How many come twice.
    pub duplicate_per_mille: u16,
    /// How many are overtaken by the next one of the same subscriber.
    pub reorder_per_mille: u16,
}

/// A hub, by its name: the same one for everybody in this process.
#[derive(Debug, Clone)]
pub struct Hub {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    down: bool,
    faults: Faults,
    dice: u64,
    next_client: u64,
    clients: BTreeMap<u64, Client>,
}

#[derive(Debug)]
struct Client {
    inbox: Inbox,
    fate: Fate,
    peer: Peer,
    patterns: BTreeSet<Pattern>,
    /// A message being overtaken.
    late: Option<(Subject, Vec<u8>)>,
}

impl Hub {
    /// The hub behind `memory://name`. It exists from the first mention of its name.
    pub fn named(name: &str) -> Self {
        static HUBS: Mutex<BTreeMap<String, Hub>> = Mutex::new(BTreeMap::new());
        let mut hubs = HUBS.lock().unwrap_or_else(PoisonError::into_inner);
        hubs.entry(name.to_owned())
            .or_insert_with(|| Hub { state: Arc::default() })
            .clone()
    }

    /// Hangs up on everybody and lets nobody in until [`Hub::start`].
    pub fn stop(&self) {
        let mut state = self.lock();
        state.down = true;
        for client in std::mem::take(&mut state.clients).into_values() {
            let _ = client.fate.set(client.peer.hung_up());
        }
    }

    /// Ends [`Hub::stop`].
    pub fn start(&self) {
        self.lock().down = false;
    }

    /// From now on, lets this go wrong.
    pub fn set_faults(&self, faults: Faults) {
        let mut state = self.lock();
        state.dice = faults.seed;
        state.faults = faults;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether something happens that shall happen so often. SplitMix64 (Steele, Lea and Flood 2014).
    fn roll(&mut self, per_mille: u16) -> bool {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.dice;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % 1000 < u64::from(per_mille)
    }

    fn publish(&mut self, subject: &Subject, payload: &[u8]) {
        let matching = |client: &Client| {
            client
                .patterns
                .iter()
                .filter(|pattern| pattern.matches(subject))
                .count()
        };
        let copies: Vec<_> = self
            .clients
            .iter()
            .map(|(id, client)| (*id, matching(client)))
            .collect();
        for (id, copies) in copies {
            for _ in 0..copies {
                self.deliver(id, subject, payload);
            }
        }
    }

    fn deliver(&mut self, id: u64, subject: &Subject, payload: &[u8]) {
        let Faults {
            drop_per_mille,
            duplicate_per_mille,
            reorder_per_mille,
            ..
        } = self.faults;
        // All dice are cast each time, so that one fault's rate does not change where another strikes.
        let [lost, twice, late] =
            [drop_per_mille, duplicate_per_mille, reorder_per_mille].map(|often| self.roll(often));
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        if lost {
            return;
        }
        let put = |inbox: &Inbox, subject: &Subject, payload: &[u8]| {
            inbox.offer(subject.as_str(), Dialect::Nats, payload, None);
        };
        if late && client.late.is_none() {
            client.late = Some((subject.clone(), payload.to_vec()));
            return;
        }
        for _ in 0..=usize::from(twice) {
            put(&client.inbox, subject, payload);
        }
        if let Some((subject, payload)) = client.late.take() {
            put(&client.inbox, &subject, &payload);
        }
    }
}

#[derive(Debug)]
pub(super) struct MemoryLink {
    hub: Hub,
    id: u64,
}

pub(super) fn connect(peer: &Peer, inbox: Inbox, fate: Fate) -> Result<MemoryLink, String> {
    let hub = Hub::named(peer.address.host());
    let mut state = hub.lock();
    if state.down {
        return Err(format!("nothing listens at {} (stopped)", peer.address));
    }
    state.next_client += 1;
    let id = state.next_client;
    let client = Client {
        inbox,
        fate,
        peer: peer.clone(),
        patterns: BTreeSet::new(),
        late: None,
    };
    state.clients.insert(id, client);
    drop(state);
    Ok(MemoryLink { hub, id })
}

impl MemoryLink {
    fn change(&self, change: impl FnOnce(&mut BTreeSet<Pattern>)) -> Result<(), Lost> {
        let mut state = self.hub.lock();
        change(&mut state.clients.get_mut(&self.id).ok_or(Lost)?.patterns);
        Ok(())
    }
}

impl Drop for MemoryLink {
    fn drop(&mut self) {
        self.hub.lock().clients.remove(&self.id);
    }
}

#[async_trait]
impl Link for MemoryLink {
    async fn subscribe(&self, patterns: &[Pattern]) -> Result<(), Lost> {
        self.change(|subscribed| subscribed.extend(patterns.iter().cloned()))
    }

    async fn unsubscribe(&self, patterns: &[Pattern]) -> Result<(), Lost> {
        self.change(|subscribed| subscribed.retain(|pattern| !patterns.contains(pattern)))
    }

    async fn publish(&self, subject: &Subject, payload: Vec<u8>) -> Result<(), Lost> {
        // Else one busy publisher would never let the others run.
        tokio::task::consume_budget().await;
        let mut state = self.hub.lock();
        if !state.clients.contains_key(&self.id) {
            return Err(Lost);
        }
        state.publish(subject, &payload);
        Ok(())
    }

    async fn close(&self) {
        self.hub.lock().clients.remove(&self.id);
    }
}
