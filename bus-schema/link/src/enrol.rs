//! Becoming a member: one question in a sealed box, one answer. Used by daemons and operators alike.

use std::time::Duration;

use bus_schema::{
    access::User,
    envelope::{self, Envelope, Header, Lock, NONCE_BYTES},
    id::{FleetId, NodeId},
    key::Identity,
    member::{Certificate, Invitation},
    message::{Body, EnrolAnswer, EnrolAsk, Exchange, HostFacts, Message},
    subject::{self, Subject},
};
use tokio::time::{Instant, timeout_at};

use crate::{Bus, BusConfig, Event, home::Membership};

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
    let fleet = invitation.fleet();
    let (ask, answer) = (
        subject::enrol_ask(&fleet, &invitation.token),
        subject::enrol_answer(&fleet, &invitation.token),
    );
    let (bus, mut events) = Bus::start(config, vec![answer.into()]);
    let deadline = Instant::now() + patience;
    let mut again = tokio::time::interval(ASK_AGAIN);
    let mut last = String::from("not connected yet");
    let outcome = loop {
        tokio::select! {
            () = tokio::time::sleep_until(deadline) => {
                break Err(EnrolError::Timeout { seconds: patience.as_secs(), last });
            }
            _ = again.tick() => {
                if bus.is_up() {
                    let frame = question(invitation, identity, name, &host, &ask)?;
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
                    match answered(invitation, &fleet, identity, &subject, &payload) {
                        // Somebody else's answer to the same token.
                        Ok(None) => {}
                        Ok(Some(answer)) => break accept(invitation, identity, answer),
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

fn question(
    invitation: &Invitation,
    identity: &Identity,
    name: &str,
    host: &HostFacts,
    subject: &Subject,
) -> Result<Vec<u8>, EnrolError> {
    let keys = identity.public();
    let proof = invitation.proof(&keys, name);
    let ask = EnrolAsk {
        keys,
        name: name.to_string(),
        proof,
        host: host.clone(),
    };
    let payload = ask.to_payload();
    let body = Body {
        kind: EnrolAsk::KIND,
        ver: EnrolAsk::VER,
        exchange: Exchange::OneWay,
        correlation: 0,
        part: 0,
        parts: 1,
        payload: &payload,
    };
    let mut random = [0; 32 + NONCE_BYTES];
    getrandom::fill(&mut random).map_err(|error| EnrolError::Ask(error.to_string()))?;
    let (ephemeral, nonce) = random
        .split_first_chunk::<32>()
        .ok_or(EnrolError::Ask("random".into()))?;
    let plane = bus_schema::key::PublicKeys {
        sign: [0; 32],
        seal: invitation.plane_seal,
    };
    let (lock, key) = envelope::seal_box(&plane, *ephemeral)
        .ok_or_else(|| EnrolError::Ask("the enrolment string holds an unusable key".into()))?;
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
    envelope::seal(subject, &header, &key, identity, &body.encode()).map_err(|error| EnrolError::Ask(error.to_string()))
}

/// Opens an answer. The plane's signing key is not known yet: the certificate inside the answer, signed by the root key of
/// the invitation, names it; until then only the sealed key (agreed with the invitation's plane key) vouches.
fn answered(
    invitation: &Invitation,
    fleet: &FleetId,
    identity: &Identity,
    subject: &Subject,
    frame: &[u8],
) -> Result<Option<EnrolAnswer>, EnrolError> {
    let not = |what: &dyn std::fmt::Display| EnrolError::NotThePlane(what.to_string());
    let envelope = Envelope::parse(frame).map_err(|error| not(&error))?;
    let me = identity.public().node_id();
    match envelope.header() {
        Header {
            lock: Lock::Pair { recipient },
            sender,
            ..
        } if *sender == invitation.plane => {
            if *recipient != me {
                return Ok(None);
            }
        }
        _ => return Err(not(&"another sender")),
    }
    let plane = bus_schema::key::PublicKeys {
        sign: [0; 32],
        seal: invitation.plane_seal,
    };
    let key = identity
        .pair_key(&plane, &invitation.plane, &me)
        .ok_or_else(|| not(&"unusable key"))?;
    let plaintext = envelope.open_unverified(subject, &key).map_err(|error| not(&error))?;
    let body = Body::decode(&plaintext).map_err(|error| not(&error))?;
    let answer = EnrolAnswer::from_payload(body.kind, body.ver, body.payload).map_err(|error| not(&error))?;
    if let EnrolAnswer::Granted { root, roster, .. } = &answer {
        if FleetId::of_root(root) != *fleet || *root != invitation.root {
            return Err(not(&"another root key"));
        }
        let roster = roster.open(root).map_err(|error| not(&error))?;
        let plane = roster
            .of(&invitation.plane)
            .next()
            .ok_or_else(|| not(&"the plane is not on the roster"))?;
        Envelope::parse(frame)
            .and_then(|envelope| envelope.verify(subject, &plane.keys))
            .map_err(|error| not(&error))?;
    }
    Ok(Some(answer))
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
