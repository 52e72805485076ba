//! How a daemon changes its keys: makes new ones, asks the plane for a certificate of them, starts over with them, shows the new
//! certificate to those who may not have heard of it, and lets the old ones go when nothing is left that they have signed.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use bus_link::home::HomeError;
use bus_schema::{
    api::{Failure, FailureKind},
    control::ControlResult,
    id::StreamId,
    key::Identity,
    member::{Role, Signed},
    message::{Side, StreamReport},
    rotation::{CertificateShow, KeyOffer, RotateAnswer, RotateAsk, RotateDone},
};
use serde::{Deserialize, Serialize};

use super::Agent;
use crate::buffers;

/// How often a rotation is looked at.
pub(super) const ROTATION_EVERY: Duration = Duration::from_secs(2);
/// Between two times the new certificate is shown.
const SHOW_EVERY: Duration = Duration::from_secs(20);
/// Between two looks at buffers of workflows that are gone.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How long old keys stay at least: what was sealed for them is on its way.
const OVERLAP_MIN: Duration = Duration::from_secs(20);
/// The file that says for whom keys were changed last.
const FILE: &str = "rotation";
/// Most wishes for one change that are known by name; what one more of them would begin is seen in the audit.
const WISHES_MAX: usize = 16;

/// A rotation that is under way, and what came of the last one.
#[derive(Default)]
pub(super) struct Rotation {
    /// Keys that are offered to the plane.
    offered: Option<Identity>,
    /// When the new certificate was shown last.
    shown: Option<Instant>,
    /// Since when nothing is signed by the old keys.
    since: Option<Instant>,
    /// Where each stream has to come to, so that nothing of before is left in its buffer.
    goals: HashMap<StreamId, Goal>,
    /// When buffers of workflows that are gone were looked at last, and what was found there.
    looked: Option<Instant>,
    beside: Option<String>,
    /// Why the plane did not want it.
    refused: Option<String>,
    /// What it waits for, for people.
    waits_for: String,
    /// Start over, with the new keys.
    pub(super) starts_over: bool,
}

impl Rotation {
    /// There may be others here than before.
    pub(super) fn show_soon(&mut self) {
        self.shown = None;
    }
}

/// For whom keys were changed last, or are being. Whoever says it anew while that is under way has a wish of its own, and none
/// of them begins another change afterwards.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Wishes {
    /// The newest last.
    wishes: Vec<u64>,
}

impl Wishes {
    fn with(mut self, wish: u64) -> Self {
        let most = self.wishes.len().saturating_sub(WISHES_MAX - 1);
        self.wishes.drain(..most);
        self.wishes.push(wish);
        self
    }
}

/// Where a stream was when it was looked at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Goal {
    epoch: u64,
    /// So much delivered says that all that was buffered then has gone: it goes in order, and what is dropped or dies instead only
    /// makes this come later.
    delivered: u64,
}

/// Looks at the accounts; what keeps the old keys, for people. Nothing: all that was buffered when each stream was seen first has gone.
fn still_needed(goals: &mut HashMap<StreamId, Goal>, planned: &[StreamId], reports: &[StreamReport]) -> Option<String> {
    let (mut waiting, mut closed) = (0u64, 0);
    for stream in planned {
        let report = reports
            .iter()
            .find(|report| report.stream == *stream && report.side == Side::Producer);
        let Some(report) = report else {
            closed += 1;
            continue;
        };
        let (epoch, ledger) = (report.epoch, &report.ledger);
        let goal = goals.entry(*stream).or_insert(Goal {
            epoch,
            delivered: ledger.delivered.saturating_add(ledger.buffered),
        });
        // A higher epoch is a new buffer.
        if goal.epoch == epoch && ledger.buffered > 0 {
            waiting = waiting.saturating_add(goal.delivered.saturating_sub(ledger.delivered));
        }
    }
    match (waiting, closed) {
        (0, 0) => None,
        (0, closed) => Some(format!("{closed} buffers are not open yet")),
        (waiting, _) => Some(format!(
            "{waiting} records that the old keys have signed wait in buffers"
        )),
    }
}

impl Agent {
    /// Begins a rotation, or says how the one that is under way is getting on.
    pub(super) async fn rotate(&mut self, wish: u64) -> ControlResult {
        let failed = |message: String, hint: &str| {
            ControlResult::Failed(Failure {
                kind: FailureKind::Internal,
                message,
                hint: hint.to_string(),
                problems: Vec::new(),
            })
        };
        if let Some(why) = self.rotation.refused.take() {
            return failed(format!("the plane gives no certificate for new keys: {why}"), "");
        }
        let is_known = self.is_known_wish(wish);
        if self.is_rotating() {
            if !is_known {
                let wished = bus_schema::encode(&self.wishes().with(wish));
                if let Err(error) = self.on_disk(move |home| home.store(FILE, &wished)).await {
                    return failed(error.to_string(), "look at the daemon's disk");
                }
            }
        } else {
            if is_known {
                return ControlResult::Done { workflows: Vec::new() };
            }
            let wished = bus_schema::encode(&Wishes::default().with(wish));
            // The keys first: a wish that is written down and has none would seem to be done.
            let begun = self.on_disk(move |home| {
                home.next_keys()?;
                home.store(FILE, &wished)
            });
            if let Err(error) = begun.await.and_then(|()| self.resume_rotation()) {
                return failed(error.to_string(), "look at the daemon's disk");
            }
            self.step_rotation().await;
        }
        ControlResult::Working {
            what: self.rotation.waits_for.clone(),
        }
    }

    /// Whether keys were changed for this wish, or are being.
    pub(super) fn is_known_wish(&self, wish: u64) -> bool {
        self.wishes().wishes.contains(&wish)
    }

    fn wishes(&self) -> Wishes {
        let written = self.home.load(FILE).ok().flatten();
        written.and_then(|bytes| bus_schema::decode(&bytes)).unwrap_or_default()
    }

    /// Goes on with a rotation that was begun before the restart.
    pub(super) fn resume_rotation(&mut self) -> Result<(), HomeError> {
        self.rotation.offered = self.home.offered_keys()?;
        self.secure.offer(self.rotation.offered.clone());
        Ok(())
    }

    /// Whether there is anything to do.
    pub(super) fn is_rotating(&self) -> bool {
        // Believed by keys that are gone here: the plane was restored from a time when they were not.
        self.rotation.offered.is_some() || self.secure.has_former() || self.secure.is_believed_by_former()
    }

    /// Takes the next step, as far as it can be taken now.
    pub(super) async fn step_rotation(&mut self) {
        if let Some(offered) = &self.rotation.offered {
            self.rotation.waits_for = "the plane has not signed the new keys yet".to_string();
            let me = self.secure.me();
            let offer = KeyOffer {
                fleet: me.fleet,
                node: me.node,
                keys: offered.public(),
            };
            let ask = RotateAsk {
                keys: offered.public(),
                offer: Signed::new(&offer, offered),
            };
            if let Some(plane) = self.secure.plane()
                && let Err(error) = self.session.send(&plane.node, &ask).await
            {
                tracing::debug!(%error, "the new keys could not be offered");
            }
            return;
        }
        if !self.secure.is_believed_by_former() {
            self.maybe_forget_former().await;
            return;
        }
        let since = *self.rotation.since.get_or_insert_with(Instant::now);
        self.show_certificate().await;
        let planned: Vec<StreamId> = self
            .plan
            .iter()
            .flat_map(|plan| &plan.workflows)
            .flat_map(|workflow| &workflow.pipes)
            .flat_map(|pipe| &pipe.steps)
            .flat_map(|step| step.action.streams())
            .map(|spec| spec.stream)
            .collect();
        let reports = self.streams.reports();
        if let Some(needed) = still_needed(&mut self.rotation.goals, &planned, &reports) {
            self.rotation.waits_for = needed;
            return;
        }
        if since.elapsed() < OVERLAP_MIN {
            self.rotation.waits_for = "what was sealed for the old keys may still be on its way".to_string();
            return;
        }
        if let Err(needed) = self.look_beside(planned).await {
            self.rotation.waits_for = needed;
            return;
        }
        self.rotation.waits_for = "the plane has not said yet that the old keys are no good any more".to_string();
        let done = RotateDone {
            key_epoch: self.secure.me().key_epoch,
        };
        if let Some(plane) = self.secure.plane() {
            let _said_again = self.session.send(&plane.node, &done).await;
        }
    }

    /// Whether nothing waits in buffers of workflows that are gone: they may come back, and with them what the old keys have signed.
    async fn look_beside(&mut self, planned: Vec<StreamId>) -> Result<(), String> {
        if self.rotation.looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
            let dir = self.home.dir().to_path_buf();
            let looked = tokio::task::spawn_blocking(move || buffers::waiting_beside(&dir, &planned)).await;
            self.rotation.looked = Some(Instant::now());
            self.rotation.beside = match looked {
                Ok(Ok(0)) => None,
                Ok(Ok(count)) => Some(format!(
                    "{count} records wait in buffers of workflows that are gone; see: myceliald spool list"
                )),
                Ok(Err(error)) => Some(error.to_string()),
                Err(error) => Some(error.to_string()),
            };
        }
        self.rotation.beside.clone().map_or(Ok(()), Err)
    }

    /// Shows the new certificate to those who may know the old one alone.
    async fn show_certificate(&mut self) {
        let is_due = self.rotation.shown.is_none_or(|at| at.elapsed() >= SHOW_EVERY);
        if !is_due || !self.session.bus().is_up() {
            return;
        }
        self.rotation.shown = Some(Instant::now());
        let show = CertificateShow {
            certificate: self.membership.certificate.clone(),
        };
        for node in self.secure.others(&[Role::Daemon, Role::Plane]) {
            if let Err(error) = self.session.send_by_former(&node, &show).await {
                tracing::debug!(%error, %node, "the new certificate could not be shown");
            }
        }
    }

    /// The plane has answered to an offer. `true`: there is something new for it.
    pub(super) async fn rotated(&mut self, answer: RotateAnswer) -> bool {
        let Some(offered) = &self.rotation.offered else {
            return false;
        };
        let signed = match answer {
            RotateAnswer::Granted(signed) => signed,
            RotateAnswer::Refused(why) => {
                tracing::error!(why, "the plane gives no certificate for new keys");
                let forgotten = self.on_disk(|home| {
                    // Said again, the same wish is a new one.
                    home.store(FILE, &bus_schema::encode(&Wishes::default()))?;
                    home.drop_next_keys()
                });
                if let Err(error) = forgotten.await {
                    tracing::warn!(%error, "the new keys could not be removed");
                }
                self.rotation.offered = None;
                self.secure.offer(None);
                self.rotation.refused = Some(why);
                return false;
            }
        };
        let me = self.secure.me();
        let is_mine = signed.open(&self.membership.root).is_ok_and(|certificate| {
            (certificate.fleet, certificate.node) == (me.fleet, me.node)
                && certificate.role == me.role
                && certificate.keys == offered.public()
                && certificate.key_epoch > me.key_epoch
        });
        if !is_mine {
            tracing::warn!("the plane signed other keys than were offered");
            return false;
        }
        let mut membership = self.membership.clone();
        membership.certificate = signed;
        let taken = membership.clone();
        if let Err(error) = self.on_disk(move |home| home.take_next_keys(&taken)).await {
            tracing::error!(%error, "the new keys cannot be taken into use; will try again");
            // It may be written by now, and is not written over with what was there before.
            if let Ok(Some(kept)) = self.home.membership() {
                self.membership = kept;
            }
            return false;
        }
        tracing::info!("takes new keys into use; the old ones stay good for what they have signed");
        self.membership = membership;
        self.rotation.offered = None;
        self.rotation.starts_over = true;
        false
    }

    /// A new roster is in force. Once it does not name the old keys any more, nobody needs them.
    pub(super) async fn maybe_forget_former(&mut self) {
        if !self.secure.has_former() || self.secure.is_believed_by_former() {
            return;
        }
        // What was sealed for this member alone by the old keys is sealed anew when it is read.
        let secrets = std::sync::Arc::clone(&self.secrets);
        let forgotten = self.on_disk(move |home| {
            secrets.reseal()?;
            home.forget_former_keys()
        });
        match forgotten.await {
            Ok(()) => {
                self.secure.forget_former();
                self.rotation = Rotation::default();
                tracing::info!("the old keys are gone");
            }
            Err(error) => tracing::warn!(%error, "the old keys could not be removed; will try again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use bus_schema::{id::WorkflowId, message::Ledger};

    use super::*;

    #[test]
    fn of_many_wishes_the_newest_are_known() {
        let all = (0..40).fold(Wishes::default(), Wishes::with);
        assert_eq!(all.wishes, (24..40).collect::<Vec<_>>());
    }

    #[test]
    fn old_keys_stay_until_what_they_signed_has_gone() {
        let [a, b] = [1, 2].map(|n| StreamId::from_hash(&[n; 32]));
        let report = |stream, epoch, delivered, buffered| StreamReport {
            stream,
            workflow: WorkflowId::of_name("w"),
            edge: "a->b".into(),
            side: Side::Producer,
            epoch,
            watermark: 0,
            ledger: Ledger {
                produced: delivered + buffered,
                delivered,
                buffered,
                ..Ledger::default()
            },
            dead_before: 0,
            settled_earlier: 0,
            dropped_earlier: 0,
            buffered_bytes: 0,
            gaps: 0,
            trouble: String::new(),
        };
        let mut goals = HashMap::new();
        let mut look = |reports: &[StreamReport]| still_needed(&mut goals, &[a, b], reports).unwrap_or_default();
        for (reports, said) in [
            (vec![], "2 buffers are not open"),
            (vec![report(a, 1, 10, 5)], "5 records"),
            // New ones come in behind them.
            (vec![report(a, 1, 13, 90), report(b, 1, 0, 0)], "2 records"),
            (vec![report(a, 1, 14, 90), report(b, 1, 0, 7)], "1 records"),
            (vec![report(a, 1, 15, 90), report(b, 1, 0, 7)], ""),
            (vec![report(a, 1, 0, 0), report(b, 1, 0, 7)], ""),
            (vec![report(a, 2, 0, 90), report(b, 1, 0, 7)], ""),
        ] {
            let got = look(&reports);
            assert!(
                got.contains(said) && got.is_empty() == said.is_empty(),
                "{reports:?}: {got}"
            );
        }
        assert_eq!(still_needed(&mut HashMap::new(), &[], &[]), None);
    }
}
