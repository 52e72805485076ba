//! What this daemon knows of the time: when its boots began, by the plane's clock, kept in a small file. Nothing but the
//! times of records depends on it.

use std::sync::{Arc, Mutex, PoisonError};

use bus_link::home::Home;
use bus_schema::message::{BootClock, TimeHint};
use stream::clocks::Boots;
use tokio::sync::watch;

/// Name of the file in the member's directory.
const CLOCKS: &str = "clocks";

/// The boots of this daemon.
pub struct Clocks {
    home: Option<Arc<Home>>,
    boot: u64,
    boots: Mutex<Boots>,
    /// When this boot began, as far as it is known.
    began: watch::Sender<Option<i64>>,
}

impl Clocks {
    /// What was known before this boot. Without a home, for a daemon that is on no bus, nothing is.
    pub fn new(home: Option<Arc<Home>>, boot: u64) -> Arc<Self> {
        let known = home.as_ref().map(|home| home.load(CLOCKS)).transpose();
        let known = known.unwrap_or_else(|error| {
            tracing::warn!(%error, "when earlier boots began is forgotten: their records keep the times they were given");
            None
        });
        let clocks = known
            .flatten()
            .and_then(|bytes| bus_schema::decode::<Vec<BootClock>>(&bytes));
        Arc::new(Self {
            home,
            boot,
            boots: Mutex::new(Boots::new(clocks.unwrap_or_default())),
            began: watch::Sender::new(None),
        })
    }

    /// The plane told its time, `wall_unix_ms` by this host's clock.
    pub fn hear(&self, hint: &TimeHint, wall_unix_ms: i64) {
        if hint.boot != self.boot {
            return;
        }
        let (began, clocks) = {
            let mut boots = self.boots.lock().unwrap_or_else(PoisonError::into_inner);
            if !boots.hear(hint) {
                return;
            }
            (boots.began(self.boot), boots.list().to_vec())
        };
        let off_s = hint.unix_ms.saturating_sub(wall_unix_ms) / 1000;
        tracing::info!(off_s, "the plane told the time; records are dated by it");
        if let Some(home) = &self.home
            && let Err(error) = home.store(CLOCKS, &bus_schema::encode(&clocks))
        {
            tracing::warn!(%error, "when this boot began cannot be written down");
        }
        self.began.send_replace(began);
    }

    /// When this boot began, as far as it is known.
    pub fn began(&self) -> watch::Receiver<Option<i64>> {
        self.began.subscribe()
    }

    /// Every boot that records may still be of.
    pub fn list(&self) -> Vec<BootClock> {
        let boots = self.boots.lock().unwrap_or_else(PoisonError::into_inner);
        boots.list().to_vec()
    }
}
