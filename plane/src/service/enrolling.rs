//! Candidates: whoever asks to become a member is answered here, and nobody else answers them.

use bus_schema::{
    audit::{AuditEvent, AuditOutcome},
    id::TokenId,
    member::{Role, Signed},
    message::{Body, EnrolAnswer, EnrolAsk, Message as _},
    pairing::{PairAsk, door},
    subject::{self, Subject},
};
use tracing::{debug, error, warn};

use super::{
    Service,
    noting::{ENROL, enrolled},
    pairing::Reply,
};
use crate::{
    disk::Closed,
    domain::{members::Member, state::Enrolment},
    outbox::Outgoing,
};

/// What a candidate says.
enum Asked {
    /// It has a token.
    Enrol(EnrolAsk),
    /// It has none.
    Pair(PairAsk),
}

impl Service {
    pub(super) async fn candidate(&mut self, subject: &Subject, frame: &[u8]) -> Result<(), Closed> {
        let token = subject
            .address()
            .ok()
            .and_then(|address| address.sender.parse::<TokenId>().ok());
        let Some(token) = token else { return Ok(()) };
        let read = |plaintext: &[u8]| {
            let body = Body::decode(plaintext).ok()?;
            if let Ok(ask) = PairAsk::from_payload(body.kind, body.ver, body.payload) {
                return Some((ask.keys, Asked::Pair(ask)));
            }
            let ask = EnrolAsk::from_payload(body.kind, body.ver, body.payload).ok()?;
            Some((ask.keys, Asked::Enrol(ask)))
        };
        let asked = match self.session.secure().open_box(subject, frame, read) {
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
        let ask = match asked {
            Asked::Enrol(ask) => ask,
            Asked::Pair(ask) => {
                // Other tokens are not ways in without one.
                let open = found.filter(|_| token == door(&self.parts.inviter.root));
                let reply = self.waits(open.as_ref(), &ask);
                let to = Box::new(self.stranger(ask.keys));
                let subject = subject::enrol_answer(&self.parts.state.fleet, &token);
                self.outbox.put(match reply {
                    Reply::Wait(wait) => Outgoing::PairWait { to, subject, wait },
                    Reply::Answer(answer) => Outgoing::Enrolment { to, subject, answer },
                });
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
        let to = self.stranger(ask.keys);
        let subject = subject::enrol_answer(&self.parts.state.fleet, &token);
        self.outbox.put(Outgoing::Enrolment {
            to: Box::new(to),
            subject,
            answer: Box::new(answer),
        });
        Ok(())
    }

    pub(super) fn welcome(&self, member: &Member) -> EnrolAnswer {
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
