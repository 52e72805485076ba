//! Enrolment of many candidates over one connection: the same questions and answers as of one.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context as _, Result, bail};
use bus_link::{
    Bus, Event,
    enrol::{Candidate, EnrolError, client_name},
    home::Membership,
    place::{BusSection, Known},
};
use bus_schema::{
    envelope::{Envelope, Lock},
    id::NodeId,
    key::Identity,
    member::Invitation,
    message::HostFacts,
};
use tokio::time::{Instant, interval, timeout};

use crate::crowd::random;

/// Candidates that ask at one time.
const ASKING_MAX: usize = 32;
/// How often a question is put again.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// How long it may take until the next one is enrolled.
const PATIENCE: Duration = Duration::from_secs(60);

/// A new member.
pub type Enrolled = (String, Identity, Membership);

/// Makes keys for each name and enrols them all. `progress` hears how many there are.
pub async fn enrol(
    invitation: &Invitation,
    names: &[String],
    mut progress: impl FnMut(usize),
) -> Result<Vec<Enrolled>> {
    let identities: Vec<Identity> = names.iter().map(|_| identity()).collect::<Result<_>>()?;
    let first = identities.first().context("nobody to enrol")?;
    let client = client_name(invitation, first);
    let config = BusSection::default().resolve(&Known::from(invitation), &client)?;
    let mut waiting = names.iter().zip(&identities).rev().collect::<Vec<_>>();
    let hears_on = Candidate::new(invitation, first, "", HostFacts::default()).hears_on();
    let (bus, mut events) = Bus::start(config, vec![hears_on.into()]);
    let mut asking: HashMap<NodeId, (Candidate<'_>, &String, &Identity, Instant)> = HashMap::new();
    let mut enrolled = Vec::with_capacity(names.len());
    let mut again = interval(ASK_AGAIN / 4);
    while enrolled.len() < names.len() {
        while asking.len() < ASKING_MAX && bus.is_up() {
            let Some((name, identity)) = waiting.pop() else { break };
            let mut candidate = Candidate::new(invitation, identity, name, host(name));
            let _ = bus.publish(&candidate.asks_on(), candidate.question()?).await;
            let node = identity.public().node_id();
            asking.insert(node, (candidate, name, identity, Instant::now()));
        }
        tokio::select! {
            _ = again.tick() => {
                for (candidate, _, _, asked) in asking.values_mut() {
                    if asked.elapsed() > ASK_AGAIN {
                        *asked = Instant::now();
                        let _ = bus.publish(&candidate.asks_on(), candidate.question()?).await;
                    }
                }
            }
            event = timeout(PATIENCE, events.recv()) => match event {
                Ok(Some(Event::Message { subject, payload })) => {
                    let Some(node) = recipient(&payload) else { continue };
                    let Some((candidate, ..)) = asking.get_mut(&node) else { continue };
                    match candidate.answered(&subject, &payload) {
                        Ok(None) => {}
                        Ok(Some(membership)) => {
                            if let Some((_, name, identity, _)) = asking.remove(&node) {
                                enrolled.push((name.clone(), identity.clone(), membership));
                                progress(enrolled.len());
                            }
                        }
                        Err(error @ EnrolError::Refused(_)) => return Err(error.into()),
                        Err(error) => eprintln!("{error}"),
                    }
                }
                Ok(Some(Event::Down { cause })) => eprintln!("{cause}"),
                Ok(Some(Event::Up { .. })) => {}
                Ok(None) => bail!("the connection has ended"),
                Err(_) => bail!("nobody was enrolled for {} s: is the plane running?", PATIENCE.as_secs()),
            },
        }
    }
    bus.close().await;
    Ok(enrolled)
}

fn recipient(frame: &[u8]) -> Option<NodeId> {
    match Envelope::parse(frame).ok()?.header().lock {
        Lock::Pair { recipient } => Some(recipient),
        _ => None,
    }
}

fn identity() -> Result<Identity> {
    let mut bytes = [0; Identity::BYTES];
    getrandom::fill(&mut bytes).context("the operating system gives no randomness")?;
    Ok(Identity::from_bytes(&bytes))
}

fn host(name: &str) -> HostFacts {
    HostFacts {
        hostname: format!("host-of-{name}"),
        os: "Simulated 1".into(),
        arch: std::env::consts::ARCH.into(),
        cpus: 1 + random(4) as u16,
        memory_bytes: 512 << 20,
        version: env!("CARGO_PKG_VERSION").into(),
    }
}
