//! Becoming a daemon without a token: the candidate waits, a person compares the code that both sides show, and approves it.
//! Knows no I/O, no clock and no randomness.
//!
//! The code is made of the keys of both sides and of one random number from each. The candidate binds itself to its number
//! ([`PairAsk::commitment`]) before it hears the plane's ([`PairWait`]), and shows it only then: whoever stands between the
//! two and puts keys of its own in the place of theirs cannot try until the codes agree. It has one guess in 2^40.

use alloc::{format, string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use crate::{
    id::{NodeId, TokenId, base32, hash},
    key::PublicKeys,
    member::Invitation,
    message::HostFacts,
};

/// Bytes of each side's random number.
pub const NONCE_BYTES: usize = 16;
const CODE_BYTES: usize = 5;
const HALF_CHARS: usize = 4;

/// A candidate without a token asks to be let in. Travels in a sealed box to the plane, until it is approved or rejected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairAsk {
    /// The candidate's keys.
    pub keys: PublicKeys,
    /// The name it would like.
    pub name: String,
    /// Facts about its host.
    pub host: HostFacts,
    /// See [`commitment`].
    pub commitment: [u8; 32],
    /// The candidate's random number, once it has heard the plane's.
    pub nonce: Option<[u8; NONCE_BYTES]>,
}

/// The plane's answer to a [`PairAsk`] that nobody has approved yet. Approved and rejected candidates are answered with an
/// [`EnrolAnswer`](crate::message::EnrolAnswer).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairWait {
    /// The plane's random number for this candidate and commitment.
    pub nonce: [u8; NONCE_BYTES],
}

/// Binds a candidate to its random number.
pub fn commitment(nonce: &[u8; NONCE_BYTES]) -> [u8; 32] {
    hash("mycelial pairing commitment v1", &[nonce])
}

/// What both sides show: `k7qm-x2ad`.
pub fn code(
    root: &[u8; 32],
    plane_seal: &[u8; 32],
    keys: &PublicKeys,
    candidates: &[u8; NONCE_BYTES],
    planes: &[u8; NONCE_BYTES],
) -> String {
    let parts: [&[u8]; 6] = [root, plane_seal, &keys.sign, &keys.seal, candidates, planes];
    let text = base32(&hash("mycelial pairing v1", &parts)[..CODE_BYTES]);
    let (first, second) = text.split_at(HALF_CHARS);
    format!("{first}-{second}")
}

/// As people type a code: without the dash, in capitals, with spaces around it.
pub fn plain(code: &str) -> String {
    let letters = code.chars().filter(char::is_ascii_alphanumeric);
    letters.map(|letter| letter.to_ascii_lowercase()).collect()
}

/// Where candidates without a token of this fleet ask.
pub fn door(root: &[u8; 32]) -> TokenId {
    TokenId::from_hash(&hash("mycelial enrolment without a token v1", &[root]))
}

impl Invitation {
    /// Whether it holds no token: whoever uses it has to wait for approval. It is no secret.
    pub fn is_open(&self) -> bool {
        self.token == door(&self.root)
    }
}

/// What an operator does about candidates without a token. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PairingCall {
    /// Lets candidates wait for approval for a while. Answered by [`ApiResult::Token`](crate::api::ApiResult::Token): the
    /// string they need, always the same.
    Open {
        /// For how long.
        ttl_s: u64,
    },
    /// Lets none wait any more.
    Close,
    /// Those that wait.
    List,
    /// Makes one a member.
    Approve {
        /// The code that it shows.
        code: String,
        /// Another name than the one it asks for.
        name: Option<String>,
    },
    /// Turns one away.
    Reject {
        /// The code that it shows.
        code: String,
    },
}

/// For [`PairingCall`]: what it was done to, and who waits now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairingResult {
    /// The name of the daemon that was approved or rejected; empty otherwise.
    pub done: String,
    /// Those that wait, the first one first.
    pub waiting: Vec<PendingView>,
}

/// A candidate that waits for approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PendingView {
    /// The code: the candidate shows the same, or it is somebody else.
    pub code: String,
    /// The name it would like.
    pub name: String,
    /// The id it would have.
    pub node: NodeId,
    /// What it says of its host.
    pub host: HostFacts,
    /// Since when, milliseconds since 1970.
    pub since_unix_ms: i64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Identity;

    #[test]
    fn whoever_stands_between_shows_another_code() {
        let [candidate, other] = [1, 2].map(|n| Identity::from_bytes(&[n; 64]).public());
        let shown = code(&[3; 32], &[4; 32], &candidate, &[5; 16], &[6; 16]);
        assert_eq!((shown.len(), shown.find('-')), (9, Some(4)));
        for another in [
            code(&[9; 32], &[4; 32], &candidate, &[5; 16], &[6; 16]),
            code(&[3; 32], &[9; 32], &candidate, &[5; 16], &[6; 16]),
            code(&[3; 32], &[4; 32], &other, &[5; 16], &[6; 16]),
            code(&[3; 32], &[4; 32], &candidate, &[9; 16], &[6; 16]),
            code(&[3; 32], &[4; 32], &candidate, &[5; 16], &[9; 16]),
        ] {
            assert_ne!(shown, another);
        }
        assert_ne!(commitment(&[1; 16]), commitment(&[2; 16]));
        assert_eq!(plain(&format!(" {} ", shown.to_uppercase())), plain(&shown));
    }
}
