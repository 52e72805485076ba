//! What the service stores without having decided anything: what was seen, who is on the roster, what daemons have said.

use bus_schema::member::Signed;
use tracing::error;

use super::Service;
use crate::{
    disk::{Closed, Files},
    domain::{Change, state::Share},
};

impl Service {
    /// What must not be lost when the plane ends.
    pub(super) async fn save_all(&mut self) -> Result<(), Closed> {
        self.save_seen().await?;
        self.save_roster().await?;
        self.save_words(Share::All).await
    }

    /// What was seen must not be taken for new after a restart.
    pub(super) async fn save_seen(&self) -> Result<(), Closed> {
        let Some(seen) = self.session.secure().seen_changes() else {
            return Ok(());
        };
        let saved = self.parts.disk.run(move |files| files.home.save_seen(&seen)).await?;
        if let Err(cause) = saved {
            error!(%cause, "cannot save what was seen");
        }
        Ok(())
    }

    /// Keeps the roster beside the keys as new as the members, so that a lost store can be made again. Not at each change:
    /// it is as long as the fleet is large.
    pub(super) async fn save_roster(&mut self) -> Result<(), Closed> {
        let members = &self.parts.state.members;
        if members.version() == self.roster_saved {
            return Ok(());
        }
        let (version, signed) = (
            members.version(),
            Signed::new(&members.roster(), &self.parts.signer.root),
        );
        match self.parts.disk.run(move |files| files.save_roster(signed)).await? {
            Ok(()) => self.roster_saved = version,
            Err(cause) => error!(%cause, "cannot save the roster beside the keys"),
        }
        Ok(())
    }

    /// Stores what daemons have said, or a share of it.
    pub(super) async fn save_words(&mut self, share: Share) -> Result<(), Closed> {
        let state = &mut self.parts.state;
        let mut changes = state.take_unsaved_catalogs();
        let (floor, confirmed, words) = (
            state.plans.floor(),
            state.plans.take_confirmed(),
            state.take_unsaved(share),
        );
        if floor > self.floor_saved {
            changes.push(Change::PlanFloor(floor));
        }
        if !confirmed.is_empty() {
            changes.push(Change::PlansConfirmed(confirmed));
        }
        if words.is_empty() && changes.is_empty() {
            return Ok(());
        }
        let save = move |files: &mut Files| {
            files
                .store
                .commit(&changes)
                .and_then(|()| files.store.save_words(&words))
        };
        match self.parts.disk.run(save).await? {
            Ok(()) => self.floor_saved = floor,
            Err(cause) => error!(%cause, "cannot store what daemons have said"),
        }
        Ok(())
    }
}
