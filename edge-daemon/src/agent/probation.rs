//! A new plan on probation: see `converge::probation`. The plan before is kept on disk until the new one has proven itself, so
//! that a restart in between changes nothing.

use std::time::Instant;

use bus_schema::{member::Signed, message::Ping, plan::Plan};
use converge::probation::{Probation, REFUSED_MS, Verdict};

use super::{Agent, PLAN};

/// Name of the plan before, in the member's directory. Empty when the newer one has proven itself.
const BEFORE: &str = "plan-before";

/// The plan that has to prove itself, and the one before.
pub(super) struct OnProbation {
    probation: Probation,
    before: Signed<Plan>,
}

/// A plan that this daemon has gone back from.
pub(super) struct GoneBack {
    pub version: u64,
    at: Instant,
}

impl GoneBack {
    /// Whether it is not taken yet again.
    pub fn is_refused(&self, version: u64) -> bool {
        self.version == version && u128::from(REFUSED_MS) > self.at.elapsed().as_millis()
    }
}

impl Agent {
    /// Milliseconds since the start, by which probation is counted.
    fn uptime_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64 * crash_point::haste()
    }

    /// Keeps the plan in force, if it runs anything: there is nothing to go back to else. Before the new one is stored.
    pub(super) async fn keep_before(&mut self) {
        let now_ms = self.uptime_ms();
        if let Some(on) = &mut self.on_probation {
            // The plan in between has not proven itself either.
            on.probation = Probation::begin(now_ms);
            return;
        }
        let runs = self.plan.as_ref().is_some_and(|plan| !plan.workflows.is_empty());
        let Some(before) = self.signed.clone().filter(|_| runs) else {
            return;
        };
        let bytes = bus_schema::encode(&before);
        if let Err(error) = self.on_disk(move |home| home.store(BEFORE, &bytes)).await {
            tracing::warn!(%error, "the plan before cannot be kept: this daemon could not go back to it");
            return;
        }
        let probation = Probation::begin(now_ms);
        self.on_probation = Some(OnProbation { probation, before });
    }

    /// After a start: a plan that had not proven itself still has to.
    pub(super) fn resume_probation(&mut self) {
        let bytes = self.home.load_or_set_aside(BEFORE).ok().flatten().unwrap_or_default();
        let probation = Probation::begin(self.uptime_ms());
        self.on_probation = bus_schema::decode::<Signed<Plan>>(&bytes).map(|before| OnProbation { probation, before });
    }

    /// A message to itself came back from the broker.
    pub(super) fn came_back(&mut self) {
        let now_ms = self.uptime_ms();
        if let Some(on) = &mut self.on_probation {
            on.probation.came_back(now_ms);
        }
    }

    /// Looks at the plan on probation; `true` when the plane should hear of it.
    pub(super) async fn look_at_probation(&mut self) -> bool {
        let Some(on) = &self.on_probation else {
            return false;
        };
        match on.probation.look(self.uptime_ms()) {
            Verdict::Waits => {
                let nonce = (self.random)();
                // Whoever is cut off cannot send it; that is what is found out.
                let _ = self.session.send(self.secure.node(), &Ping { nonce }).await;
                false
            }
            Verdict::Stays => {
                self.on_probation = None;
                self.forget_before().await;
                false
            }
            Verdict::GoesBack => self.go_back().await,
        }
    }

    async fn forget_before(&self) {
        if let Err(error) = self.on_disk(|home| home.store(BEFORE, &[])).await {
            tracing::warn!(%error, "cannot forget the plan before");
        }
    }

    async fn go_back(&mut self) -> bool {
        let Some(OnProbation { before, .. }) = self.on_probation.take() else {
            return false;
        };
        let opened = self.secure.plane().and_then(|plane| before.open(&plane.keys.sign).ok());
        let Some(plan) = opened else { return false };
        let version = self.plan_version();
        let bytes = bus_schema::encode(&before);
        if let Err(error) = self.on_disk(move |home| home.store(PLAN, &bytes)).await {
            tracing::error!(%error, "cannot go back to the plan before");
            return false;
        }
        self.forget_before().await;
        self.plan_error = format!(
            "plan {version} cut this daemon off from the bus; it went back to plan {} by itself",
            plan.version
        );
        tracing::error!(
            refused = version,
            back_to = plan.version,
            "the newest plan cuts this daemon off from the bus: going back"
        );
        self.gone_back = Some(GoneBack {
            version,
            at: Instant::now(),
        });
        self.plan = Some(plan);
        self.signed = Some(before);
        self.converge().await;
        true
    }
}
