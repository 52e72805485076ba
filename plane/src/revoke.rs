//! Taking a daemon or an operator out of the fleet: a roster without it, a new group key that it does not get, and everybody told at once.
//! What peers do with that is theirs: they believe the roster with the highest version, while the plane is away, too.

use bus_schema::{
    api::{ApiResult, FailureKind},
    id::NodeId,
    key::SecretKey,
    member::{GroupKey, Role, Signed},
};
use tracing::{error, info};

use crate::{
    api::failed,
    audit::Entry,
    disk::Closed,
    domain::{Change, Effect},
    service::Service,
};

impl Service {
    /// Takes a daemon or an operator out of the fleet. Durable beside the keys before anybody hears of it: a plane that dies half-way goes
    /// on from there at its next start.
    pub(crate) async fn revoke(&mut self, node: NodeId, role: Role, entry: &mut Entry) -> Result<ApiResult, Closed> {
        let parts = &mut self.parts;
        let certificate = parts.state.members.get(&node).map(|member| member.certificate.clone());
        let Some(certificate) = certificate.filter(|certificate| certificate.role == role) else {
            let message = format!("there is no {role} '{node}'");
            let hint = format!("see: mycelial {role} list");
            return Ok(failed(FailureKind::NotFound, message, hint));
        };
        let mut key = [0; 32];
        if let Err(cause) = getrandom::fill(&mut key) {
            let message = format!("the operating system gives no randomness: {cause}");
            return Ok(failed(FailureKind::Internal, message, ""));
        }
        let group = GroupKey {
            key_epoch: parts.group.key_epoch + 1,
            key: SecretKey::new(key),
        };
        let roster = parts.state.members.roster_without(&node);
        let signed = Signed::new(&roster, &parts.signer.root);
        let (kept, kept_group) = (signed.clone(), group.clone());
        let saved = parts.disk.run(move |files| {
            // An audit that cannot be gone on with stops it here: later there is no way back.
            files.store.audit_head().map_err(|cause| cause.to_string())?;
            let saved = files.save_roster_and_group(kept, kept_group);
            saved.map_err(|cause| cause.to_string())
        });
        if let Err(cause) = saved.await? {
            error!(cause, "cannot take a member out of the fleet; nothing was changed");
            return Ok(failed(
                FailureKind::Internal,
                cause,
                "look at the plane's log and its disk",
            ));
        }
        parts.group = group;
        let changes = [Change::Roster { roster, signed }].into_iter();
        let changes = changes.chain(entry.event().map(Change::Audit)).collect();
        if let Err(cause) = self.decide(changes).await? {
            // The roster beside the keys is in force; the store follows at the next start.
            return Ok(failed(
                FailureKind::Internal,
                cause,
                "make room on the plane's disk and start it again",
            ));
        }
        entry.written();
        info!(name = certificate.name, %role, %node, "took a member out of the fleet");
        let there = self
            .parts
            .state
            .daemons()
            .filter(|(_, daemon)| daemon.is_some_and(|daemon| daemon.is_believed()));
        let told: Vec<_> = there
            .map(|(member, _)| Effect::SendRoster(member.certificate.node))
            .collect();
        self.follow(told).await?;
        Ok(ApiResult::Revoked(certificate.name))
    }
}
