//! A candidate without a token, on its side: its random number, the plane's, and the code that both make. Has no connection
//! and no clock. See [`bus_schema::pairing`].

use bus_schema::{
    key::Identity,
    member::Invitation,
    message::HostFacts,
    pairing::{self, NONCE_BYTES, PairAsk, PairWait},
};

/// One attempt to be paired.
#[derive(Debug)]
pub struct Pairing {
    mine: [u8; NONCE_BYTES],
    planes: Option<[u8; NONCE_BYTES]>,
}

impl Pairing {
    /// With a fresh number.
    pub fn new() -> Result<Self, getrandom::Error> {
        let mut mine = [0; NONCE_BYTES];
        getrandom::fill(&mut mine)?;
        Ok(Self { mine, planes: None })
    }

    /// The question, as far as it may be asked by now.
    pub fn ask(&self, identity: &Identity, name: &str, host: &HostFacts) -> PairAsk {
        PairAsk {
            keys: identity.public(),
            name: name.to_string(),
            host: host.clone(),
            commitment: pairing::commitment(&self.mine),
            // Before the plane has said its own, whoever stands between could choose one that fits.
            nonce: self.planes.map(|_| self.mine),
        }
    }

    /// Takes the plane's number. `false`: it is another one than before (the plane has started again, or it is not the plane),
    /// and the number here, which was shown already, is of no use any more: begin anew.
    pub fn hears(&mut self, wait: &PairWait) -> bool {
        *self.planes.get_or_insert(wait.nonce) == wait.nonce
    }

    /// The code to show, once there is one.
    pub fn code(&self, invitation: &Invitation, identity: &Identity) -> Option<String> {
        let keys = identity.public();
        let code = |planes| pairing::code(&invitation.root, &invitation.plane_seal, &keys, &self.mine, planes);
        self.planes.as_ref().map(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_shown_once_the_other_is_known_and_to_one_plane_only() {
        let identity = Identity::from_bytes(&[1; Identity::BYTES]);
        let mut pairing = Pairing::new().unwrap();
        let host = HostFacts::default();
        let first = pairing.ask(&identity, "gw", &host);
        assert_eq!(first.nonce, None);
        assert!(pairing.hears(&PairWait {
            nonce: [7; NONCE_BYTES]
        }));
        let second = pairing.ask(&identity, "gw", &host);
        assert_eq!(second.commitment, pairing::commitment(&second.nonce.unwrap()));
        assert_eq!(second.commitment, first.commitment);
        assert!(
            pairing.hears(&PairWait {
                nonce: [7; NONCE_BYTES]
            }),
            "said again"
        );
        assert!(!pairing.hears(&PairWait {
            nonce: [8; NONCE_BYTES]
        }));
        assert_ne!(Pairing::new().unwrap().mine, pairing.mine);
    }
}
