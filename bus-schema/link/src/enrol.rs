//! Becoming a member: one question in a sealed box, one answer. Used by daemons and operators alike.

use std::time::Duration;

use bus_schema::{
    access::User,
    envelope::{self, Envelope, Header, Lock, NONCE_BYTES},
    id::{FleetId, NodeId},
    key::Identity,
    member::{Certificate, Invitation},
    message::{Body, EnrolAnswer, EnrolAsk, Exchange, HostFacts, Message},
    pairing::PairWait,
    subject::{self, Subject},
};
use tokio::time::{Instant, timeout_at};

use crate::{Bus, BusConfig, Event, home::Membership, pairing::Pairing, parts::Assembly};

/// How often the question is put again: a plane that is just starting hears the next one.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// Enrolment did not work.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// Nobody answered in time.
    #[error(
        "no answer from the plane in {seconds} s ({last}); is mycelial-plane running and connected to this broker?"
    )]
    Timeout {
        /// How long it was tried.
        seconds: u64,
        /// The last that was heard of the connection.
        last: String,
    },
    /// The plane said no.
    #[error("the plane refused: {0}")]
    Refused(String),
    /// Something answered that is not this fleet's plane.
    #[error("the answer is not by the plane that made the enrolment string: {0}")]
    NotThePlane(String),
    /// The question could not be made.
    #[error("cannot ask: {0}")]
    Ask(String),
}

/// The client name of a candidate's connection: the broker's user name and the candidate's id, so that several candidates
/// with one token do not throw each other out.
pub fn client_name(invitation: &Invitation, identity: &Identity) -> String {
    format!(
        "{}-{}",
        User::Candidate(invitation.token).name(),
        identity.public().node_id()
    )
}

/// Asks the plane to become a member until it answers or `patience` is over.
pub async fn enrol(
    invitation: &Invitation,
    config: BusConfig,
    identity: &Identity,
    name: &str,
    host: HostFacts,
    patience: Duration,
) -> Result<Membership, EnrolError> {
    enrol_showing(invitation, config, identity, name, host, patience, |_| {}).await
}

/// The same; without a token, `show` is told the code that the plane shows too, and each further one.
pub async fn enrol_showing(
    invitation: &Invitation,
    config: BusConfig,
    identity: &Identity,
    name: &str,
    host: HostFacts,
    patience: Duration,
    mut show: impl FnMut(&str),
) -> Result<Membership, EnrolError> {
    let mut candidate = Candidate::new(invitation, identity, name, host);
    let ask = candidate.asks_on();
    let (bus, mut events) = Bus::start(config, vec![candidate.hears_on().into()]);
    let deadline = Instant::now() + patience;
    let mut again = tokio::time::interval(ASK_AGAIN);
    let mut last = String::from("not connected yet");
    let mut shown = None;
    let outcome = loop {
        tokio::select! {
            () = tokio::time::sleep_until(deadline) => {
                break Err(EnrolError::Timeout { seconds: patience.as_secs(), last });
            }
            _ = again.tick() => {
                if bus.is_up() {
                    let frame = candidate.question()?;
                    if let Err(error) = bus.publish(&ask, frame).await {
                        last = error.to_string();
                    }
                }
            }
            event = events.recv() => match event {
                Some(Event::Up { address }) => {
                    last = format!("connected to {address}");
                    again.reset_immediately();
                }
                Some(Event::Down { cause }) => last = cause,
                Some(Event::Message { subject, payload }) => {
                    match candidate.answered(&subject, &payload) {
                        Ok(None) => {
                            let code = candidate.code();
                            if code != shown {
                                // What was just heard, or forgotten, changes the question.
                                again.reset_immediately();
                                code.iter().for_each(|code| show(code));
                                shown = code;
                            }
                        }
                        Ok(Some(membership)) => break Ok(membership),
                        Err(error @ EnrolError::Refused(_)) => break Err(error),
                        Err(error) => last = error.to_string(),
                    }
                }
                None => break Err(EnrolError::Timeout { seconds: patience.as_secs(), last }),
            }
        }
    };
    let _ = timeout_at(deadline.max(Instant::now() + Duration::from_secs(1)), bus.close()).await;
    outcome
}

/// Somebody who asks to become a member. Has no connection and no clock: whoever holds one asks and listens for it.
#[derive(Debug)]
pub struct Candidate<'a> {
    invitation: &'a Invitation,
    fleet: FleetId,
    identity: &'a Identity,
    name: String,
    host: HostFacts,
    answer: Assembly,
    /// Without a token: the attempt that is under way.
    pairing: Option<Pairing>,
}

impl<'a> Candidate<'a> {
    /// A candidate of this name; the plane may have fixed another with the token.
    pub fn new(invitation: &'a Invitation, identity: &'a Identity, name: &str, host: HostFacts) -> Self {
        Self {
            invitation,
            fleet: invitation.fleet(),
            identity,
            name: name.to_string(),
            host,
            answer: Assembly::default(),
            pairing: None,
        }
    }

    /// Without a token: what to show, for somebody to compare with what the plane shows.
    pub fn code(&self) -> Option<String> {
        self.pairing.as_ref()?.code(self.invitation, self.identity)
    }

    /// Where the question goes.
    pub fn asks_on(&self) -> Subject {
        subject::enrol_ask(&self.fleet, &self.invitation.token)
    }

    /// Where the answer comes.
    pub fn hears_on(&self) -> Subject {
        subject::enrol_answer(&self.fleet, &self.invitation.token)
    }

    /// The question. Repeating it does no harm.
    pub fn question(&mut self) -> Result<Vec<u8>, EnrolError> {
        let keys = self.identity.public();
        if !self.invitation.is_open() {
            return self.sealed(&EnrolAsk {
                keys,
                name: self.name.clone(),
                proof: self.invitation.proof(&keys, &self.name),
                host: self.host.clone(),
            });
        }
        let pairing = match self.pairing.take() {
            Some(pairing) => pairing,
            None => Pairing::new().map_err(|error| EnrolError::Ask(error.to_string()))?,
        };
        let ask = self.pairing.insert(pairing).ask(self.identity, &self.name, &self.host);
        self.sealed(&ask)
    }

    /// In a sealed box for the plane.
    fn sealed<M: Message>(&self, message: &M) -> Result<Vec<u8>, EnrolError> {
        let keys = self.identity.public();
        let payload = message.to_payload();
        let body = Body {
            kind: M::KIND,
            ver: M::VER,
            exchange: Exchange::OneWay,
            correlation: 0,
            part: 0,
            parts: 1,
            payload: &payload,
        };
        let failed = |cause: &dyn std::fmt::Display| EnrolError::Ask(cause.to_string());
        let mut random = [0; 32 + NONCE_BYTES];
        getrandom::fill(&mut random).map_err(|error| failed(&error))?;
        let (ephemeral, nonce) = random.split_first_chunk::<32>().ok_or_else(|| failed(&"random"))?;
        let plane = bus_schema::key::PublicKeys {
            sign: [0; 32],
            seal: self.invitation.plane_seal,
        };
        let (lock, key) = envelope::seal_box(&plane, *ephemeral)
            .ok_or_else(|| failed(&"the enrolment string holds an unusable key"))?;
        let header = Header {
            version: envelope::VERSION,
            suite: envelope::SUITE,
            lock,
            sender: keys.node_id(),
            key_epoch: 0,
            epoch: 0,
            counter: 0,
            nonce: nonce.try_into().unwrap_or([0; NONCE_BYTES]),
        };
        let sealed = envelope::seal(&self.asks_on(), &header, &key, self.identity, &body.encode());
        sealed.map_err(|error| failed(&error))
    }

    /// Takes what came on [`Candidate::hears_on`]: `None` when it is for somebody with the same token, or not all of the
    /// answer has come.
    ///
    /// The plane's signing key is not known yet: the certificate inside the answer, signed by the root key of the
    /// invitation, names it; until then only the sealed key (agreed with the invitation's plane key) vouches for the parts.
    pub fn answered(&mut self, subject: &Subject, frame: &[u8]) -> Result<Option<Membership>, EnrolError> {
        let not = |what: &dyn std::fmt::Display| EnrolError::NotThePlane(what.to_string());
        let envelope = Envelope::parse(frame).map_err(|error| not(&error))?;
        let me = self.identity.public().node_id();
        match envelope.header() {
            Header {
                lock: Lock::Pair { recipient },
                sender,
                ..
            } if *sender == self.invitation.plane => {
                if *recipient != me {
                    return Ok(None);
                }
            }
            _ => return Err(not(&"another sender")),
        }
        let plane = bus_schema::key::PublicKeys {
            sign: [0; 32],
            seal: self.invitation.plane_seal,
        };
        let key = self
            .identity
            .pair_key(&plane, &self.invitation.plane, &me)
            .ok_or_else(|| not(&"unusable key"))?;
        let plaintext = envelope.open_unverified(subject, &key).map_err(|error| not(&error))?;
        let body = Body::decode(&plaintext).map_err(|error| not(&error))?;
        let Some(payload) = self.answer.take(self.invitation.plane, &body, Instant::now()) else {
            return Ok(None);
        };
        if let (Some(pairing), Ok(wait)) = (&mut self.pairing, PairWait::from_payload(body.kind, body.ver, &payload)) {
            if !pairing.hears(&wait) {
                self.pairing = None;
            }
            return Ok(None);
        }
        let answer = EnrolAnswer::from_payload(body.kind, body.ver, &payload).map_err(|error| not(&error))?;
        if let EnrolAnswer::Granted { root, roster, .. } = &answer {
            if FleetId::of_root(root) != self.fleet || *root != self.invitation.root {
                return Err(not(&"another root key"));
            }
            let roster = roster.open(root).map_err(|error| not(&error))?;
            let plane = roster
                .of(&self.invitation.plane)
                .next()
                .ok_or_else(|| not(&"the plane is not on the roster"))?;
            // What the last part says of the sender holds for all: only its holder has the key they are sealed with.
            Envelope::parse(frame)
                .and_then(|envelope| envelope.verify(subject, &plane.keys))
                .map_err(|error| not(&error))?;
        }
        accept(self.invitation, self.identity, answer).map(Some)
    }
}

fn accept(invitation: &Invitation, identity: &Identity, answer: EnrolAnswer) -> Result<Membership, EnrolError> {
    let (root, certificate, roster, group, login) = match answer {
        EnrolAnswer::Granted {
            root,
            certificate,
            roster,
            group,
            login,
        } => (root, certificate, roster, group, login),
        EnrolAnswer::Refused(reason) => return Err(EnrolError::Refused(reason)),
    };
    let mine: Certificate = certificate
        .open(&root)
        .map_err(|error| EnrolError::NotThePlane(error.to_string()))?;
    let me: NodeId = identity.public().node_id();
    if mine.node != me || mine.keys != identity.public() || mine.fleet != invitation.fleet() {
        return Err(EnrolError::NotThePlane("the certificate is somebody else's".into()));
    }
    Ok(Membership {
        fleet: invitation.fleet(),
        root,
        plane: invitation.plane,
        certificate,
        roster,
        group,
        login,
        bus: invitation.bus.clone(),
        ca: invitation.ca.clone(),
    })
}
