//! Candidates: whoever asks to become a member is answered here, and nobody else answers them.

use bus_schema::{
    audit::{AuditEvent, AuditOutcome},
    id::TokenId,
    member::{Certificate, Role, Signed},
    message::{Body, EnrolAnswer, EnrolAsk, Message as _},
    subject::{self, Subject},
};
use tracing::{debug, error, warn};

use super::{
    Service,
    noting::{ENROL, enrolled},
};
use crate::{
    disk::Closed,
    domain::{members::Member, state::Enrolment},
    outbox::Outgoing,
};

impl Service {
    pub(super) async fn candidate(&mut self, subject: &Subject, frame: &[u8]) -> Result<(), Closed> {
        let token = subject
            .address()
            .ok()
            .and_then(|address| address.sender.parse::<TokenId>().ok());
        let Some(token) = token else { return Ok(()) };
        let read = |plaintext: &[u8]| {
            let body = Body::decode(plaintext).ok()?;
            let ask = EnrolAsk::from_payload(body.kind, body.ver, body.payload).ok()?;
            Some((ask.keys, ask))
        };
        let ask = match self.session.secure().open_box(subject, frame, read) {
            Ok((_, ask)) => ask,
            Err(cause) => {
                debug!(%subject, %cause, "refused a candidate's message");
                return Ok(());
            }
        };
        let found = match self.parts.disk.run(move |files| files.store.token(&token)).await? {
            Ok(found) => found,
            Err(cause) => {
                error!(%cause, "cannot look up a token");
                return Ok(());
            }
        };
        let now = self.parts.clock.now();
        let answer = match self
            .parts
            .state
            .on_candidate(found.as_ref(), &ask, &self.parts.signer, now)
        {
            Enrolment::Known(member) => self.welcome(&member),
            Enrolment::New(member, changes) => match self.decide(enrolled(changes, &member, &token, now)).await? {
                Ok(()) => self.welcome(&member),
                Err(_) => EnrolAnswer::Refused("the plane cannot store it now; see its log".into()),
            },
            Enrolment::Refused(why) => EnrolAnswer::Refused(why),
        };
        if let EnrolAnswer::Refused(why) = &answer {
            let name: String = ask.name.chars().take(64).collect();
            warn!(%token, name, why, "refused a candidate");
            // Not by the name that it gives itself: that may be anybody's.
            let event = AuditEvent::new(
                now.unix_ms,
                "a candidate",
                "bus",
                ENROL,
                &format!("with enrolment string {token}"),
            );
            self.note_refusal(Some(event.but(AuditOutcome::Refused, why))).await;
        }
        // Sealed for the candidate's keys, whoever it is: only the holder of those keys can read the answer.
        let to = Certificate {
            fleet: self.parts.state.fleet,
            node: ask.keys.node_id(),
            name: String::new(),
            role: Role::Daemon,
            keys: ask.keys,
            key_epoch: 0,
        };
        let subject = subject::enrol_answer(&self.parts.state.fleet, &token);
        self.outbox.put(Outgoing::Enrolment {
            to: Box::new(to),
            subject,
            answer: Box::new(answer),
        });
        Ok(())
    }

    fn welcome(&self, member: &Member) -> EnrolAnswer {
        let state = &self.parts.state;
        let roster = match member.certificate.role {
            Role::Operator | Role::Plane => state.members.roster_for_operator(),
            Role::Daemon => state.roster_for(&member.certificate.node),
        };
        EnrolAnswer::Granted {
            root: self.parts.inviter.root,
            certificate: member.signed.clone(),
            roster: Signed::new(&roster, &self.parts.signer.root),
            group: self.parts.group.clone(),
            login: self.parts.inviter.logins.of_member(&member.certificate.node),
        }
    }
}
