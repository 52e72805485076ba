//! Candidates without a token, and what operators do about them. Who waits and by which code decides `domain/pairing.rs`.

use bus_schema::{
    api::{ApiResult, FailureKind},
    audit::AuditEvent,
    id::TokenId,
    key::PublicKeys,
    member::{Certificate, Role},
    message::EnrolAnswer,
    pairing::{NONCE_BYTES, PairAsk, PairWait, PairingCall, PairingResult, door},
};

use super::{Service, noting::ENROL};
use crate::{
    api::failed,
    audit::{self, Entry},
    disk::Closed,
    domain::{
        Change,
        enrol::{Token, USES_MAX},
        pairing::{OPEN_S_MAX, Ours, Told},
    },
    invite::Inviter,
};

/// What a candidate is told.
pub(super) enum Reply {
    /// To wait.
    Wait(PairWait),
    /// Yes or no.
    Answer(Box<EnrolAnswer>),
}

fn ours(inviter: &Inviter) -> Ours<'_> {
    Ours {
        root: &inviter.root,
        plane_seal: &inviter.plane_seal,
    }
}

fn nobody(code: &str) -> ApiResult {
    let code: String = code.chars().take(16).collect();
    failed(
        FailureKind::NotFound,
        format!("nobody who waits shows the code '{code}'"),
        "see: mycelial enrol pending; a candidate that shows another code than the plane is somebody else's",
    )
}

impl Service {
    /// A candidate without a token asks. `token` is what the store knows of the way in for such, if it is open.
    pub(super) fn waits(&mut self, token: Option<&Token>, ask: &PairAsk) -> Reply {
        let (now, state) = (self.parts.clock.now(), &mut self.parts.state);
        let refused = |why: &str| Reply::Answer(Box::new(EnrolAnswer::Refused(why.to_string())));
        let is_member = state.members.get(&ask.keys.node_id()).is_some();
        if !is_member && token.is_none_or(|token| token.expires_unix_ms <= now.unix_ms || token.uses_left == 0) {
            return refused(
                "nobody is let in without a token just now; an operator changes that with: mycelial enrol open",
            );
        }
        let mut fresh = [0; NONCE_BYTES];
        if getrandom::fill(&mut fresh).is_err() {
            return refused("the plane's operating system gives no randomness");
        }
        match state.on_pairing(ask, fresh, now) {
            Told::Wait(nonce) => Reply::Wait(PairWait { nonce }),
            Told::Refused(why) => refused(&why),
            Told::Known(member) => Reply::Answer(Box::new(self.welcome(&member))),
        }
    }

    /// Decides what an operator's call changes, together with the entry about it.
    async fn decide_noted(
        &mut self,
        mut changes: Vec<Change>,
        event: Option<AuditEvent>,
        entry: &mut Entry,
    ) -> Result<Result<(), ApiResult>, Closed> {
        changes.extend(event.map(Change::Audit));
        Ok(match self.decide(changes).await? {
            Ok(()) => {
                entry.written();
                Ok(())
            }
            Err(cause) => Err(failed(
                FailureKind::Internal,
                cause,
                "look at the plane's log and its disk",
            )),
        })
    }

    /// What an operator does about those that wait.
    pub(super) async fn pairing(&mut self, call: PairingCall, entry: &mut Entry) -> Result<ApiResult, Closed> {
        let done = match call {
            PairingCall::Open { ttl_s } => return self.open(ttl_s, entry).await,
            PairingCall::Close => {
                let door = door(&self.parts.inviter.root);
                let changes = vec![Change::TokenRevoked(door)];
                if let Err(failed) = self.decide_noted(changes, entry.event(), entry).await? {
                    return Ok(failed);
                }
                String::new()
            }
            PairingCall::List => String::new(),
            PairingCall::Approve { code, name } => match self.approve(&code, name.as_deref(), entry).await? {
                Ok(name) => name,
                Err(failed) => return Ok(failed),
            },
            PairingCall::Reject { code } => {
                let ours = ours(&self.parts.inviter);
                match self.parts.state.reject(&code, ours) {
                    Some(name) => name,
                    None => return Ok(nobody(&code)),
                }
            }
        };
        let waiting = self.parts.state.waiting(ours(&self.parts.inviter));
        Ok(ApiResult::Pairing(PairingResult { done, waiting }))
    }

    async fn open(&mut self, ttl_s: u64, entry: &mut Entry) -> Result<ApiResult, Closed> {
        if !(1..=OPEN_S_MAX).contains(&ttl_s) {
            let message = format!("it can be open for 1 to {OPEN_S_MAX} seconds, not {ttl_s}");
            return Ok(failed(FailureKind::Invalid, message, ""));
        }
        // Nobody is told the secret: what the string holds in its place enrols nobody.
        let mut secret = [0; 16];
        if let Err(cause) = getrandom::fill(&mut secret) {
            let message = format!("the operating system gives no randomness: {cause}");
            return Ok(failed(FailureKind::Internal, message, ""));
        }
        let door: TokenId = door(&self.parts.inviter.root);
        let life_ms = i64::try_from(ttl_s * 1_000).unwrap_or(i64::MAX);
        let token = Token {
            id: door,
            secret,
            role: Role::Daemon,
            name: None,
            uses_left: USES_MAX,
            expires_unix_ms: self.parts.clock.now().unix_ms.saturating_add(life_ms),
            used_by: Vec::new(),
            labels: Default::default(),
        };
        let changes = vec![Change::TokenRevoked(door), Change::Token(token)];
        if let Err(failed) = self.decide_noted(changes, entry.event(), entry).await? {
            return Ok(failed);
        }
        Ok(ApiResult::Token(self.parts.inviter.open_invitation().encode()))
    }

    async fn approve(
        &mut self,
        code: &str,
        name: Option<&str>,
        entry: &mut Entry,
    ) -> Result<Result<String, ApiResult>, Closed> {
        let (now, parts) = (self.parts.clock.now(), &self.parts);
        let found = parts
            .state
            .approve(code, name, ours(&parts.inviter), &parts.signer, now);
        let (member, mut changes) = match found {
            None => return Ok(Err(nobody(code))),
            Some(Err(why)) => {
                let hint = "give it another name: mycelial enrol approve CODE --name NAME";
                return Ok(Err(failed(FailureKind::Conflict, why, hint)));
            }
            Some(Ok(found)) => found,
        };
        let certificate = &member.certificate;
        let what = format!("as {} {}, approved by its code", certificate.role, certificate.node);
        let event = AuditEvent::new(now.unix_ms, &certificate.name, "bus", ENROL, &what);
        changes.push(Change::Audit(event));
        let done = ApiResult::Pairing(PairingResult {
            done: certificate.name.clone(),
            waiting: Vec::new(),
        });
        let event = entry.event().map(|event| audit::ended(event, &done));
        if let Err(failed) = self.decide_noted(changes, event, entry).await? {
            return Ok(Err(failed));
        }
        // It asks again in a moment, and hears then.
        self.parts.state.approved(&member.certificate.node);
        Ok(Ok(member.certificate.name))
    }

    /// An enrolment answer's recipient: sealed for the candidate's keys, whoever it is.
    pub(super) fn stranger(&self, keys: PublicKeys) -> Certificate {
        Certificate {
            fleet: self.parts.state.fleet,
            node: keys.node_id(),
            name: String::new(),
            role: Role::Daemon,
            keys,
            key_epoch: 0,
        }
    }
}
