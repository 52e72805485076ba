//! What the service writes into the audit beside the changes that it makes.

use bus_schema::{audit::AuditEvent, id::TokenId};
use tracing::error;

use super::Service;
use crate::domain::{Change, Now, members::Member};

/// What the entry about a new member is called.
pub(super) const ENROL: &str = "enrol";

/// The changes by which somebody becomes a member, with the entry about it.
pub(super) fn enrolled(mut changes: Vec<Change>, member: &Member, token: &TokenId, now: Now) -> Vec<Change> {
    let certificate = &member.certificate;
    let what = format!(
        "as {} {}, with enrolment string {token}",
        certificate.role, certificate.node
    );
    let event = AuditEvent::new(now.unix_ms, &certificate.name, "bus", ENROL, &what);
    changes.push(Change::Audit(event));
    changes
}

impl Service {
    /// Writes an entry, if there is one to write: about what changed nothing in the store. What did has its entry with the change.
    pub(super) async fn note(&mut self, event: Option<AuditEvent>) {
        let Some(event) = event else { return };
        let kept = self.parts.disk.run(move |files| files.store.audit(&[event])).await;
        if let Ok(Err(cause)) = kept {
            error!(%cause, "cannot write into the audit");
        }
    }

    /// Writes that somebody was refused; not more often than makes sense.
    pub(super) async fn note_refusal(&mut self, event: Option<AuditEvent>) {
        if event.as_ref().is_some_and(|event| self.refusals.may(event.at_unix_ms)) {
            self.note(event).await;
        }
    }
}
