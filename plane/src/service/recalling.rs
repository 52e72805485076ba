//! What daemons give back to a plane that has lost its disk: made durable, and told on.

use bus_schema::{audit::AuditEvent, id::NodeId, key::SecretKey, member::GroupKey, message::RecallPage};
use tracing::{error, info};

use super::Service;
use crate::{disk::Closed, domain::Change};

/// What the entry about it is called.
const RECALL: &str = "give back what the plane had lost";

impl Service {
    /// A daemon has given back what it was given.
    pub(super) async fn recalled(&mut self, node: NodeId, page: &RecallPage) -> Result<(), Closed> {
        let now = self.parts.clock.now();
        let state = &self.parts.state;
        let mut changes = state.on_recalled(&node, page, &self.parts.signer, now);
        if changes.is_empty() {
            return Ok(());
        }
        let daemon = state.members.name_of(&node);
        let members = changes
            .iter()
            .filter(|change| matches!(change, Change::Member(_)))
            .count();
        let plans = changes
            .iter()
            .filter(|change| matches!(change, Change::Plan { .. }))
            .count();
        info!(daemon, members, plans, "learnt again what was lost here");
        let what = format!("{members} members, {plans} plans");
        let event = AuditEvent::new(now.unix_ms, &daemon, "bus", RECALL, &what);
        let known = state.members.revoked().len();
        let revoked = changes.iter().filter_map(|change| match change {
            Change::Roster { roster, .. } => Some(roster.revoked.len()),
            _ => None,
        });
        // Each revocation made a new group key, which is lost: another one, above all of them.
        let missed = revoked.max().unwrap_or(0).saturating_sub(known);
        if missed > 0 {
            self.renew_group(u32::try_from(missed).unwrap_or(u32::MAX)).await?;
        }
        changes.push(Change::Audit(event));
        if let Err(cause) = self.decide(changes).await? {
            error!(cause, "cannot store what was learnt again");
        }
        Ok(())
    }

    async fn renew_group(&mut self, missed: u32) -> Result<(), Closed> {
        let mut key = [0; 32];
        if let Err(cause) = getrandom::fill(&mut key) {
            error!(%cause, "the operating system gives no randomness: the group key stays as it was");
            return Ok(());
        }
        let group = GroupKey {
            key_epoch: self.parts.group.key_epoch.saturating_add(missed).saturating_add(1),
            key: SecretKey::new(key),
        };
        let kept = group.clone();
        let saved = self.parts.disk.run(move |files| {
            let roster = files.membership.roster.clone();
            files.save_roster_and_group(roster, kept)
        });
        match saved.await? {
            Ok(()) => self.parts.group = group,
            Err(cause) => error!(%cause, "cannot keep a new group key"),
        }
        Ok(())
    }
}
