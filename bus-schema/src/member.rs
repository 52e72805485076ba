//! Who belongs to the fleet: signed documents, certificates, the roster, and enrolment.
//! Holds no clock: documents are ordered by versions that only go up, never by time.

use alloc::{string::String, vec::Vec};
use core::{fmt, marker::PhantomData};

use blake2::{Blake2b512, Digest};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::Sha256;

use crate::{
    id::{FleetId, NodeId, TokenId, base32, from_base32, hash},
    key::{self, Identity, PublicKeys, SecretKey},
    limits::NAME_BYTES_MAX,
    subject::check_token,
};

/// A document is not what it claims to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// The signature is by someone else, or the bytes were changed.
    #[error("the {what} is not signed by the expected key")]
    Signature {
        /// Which document.
        what: &'static str,
    },
    /// The bytes do not decode.
    #[error("the {what} cannot be read: {cause}")]
    Malformed {
        /// Which document.
        what: &'static str,
        /// Why.
        cause: postcard::Error,
    },
}

/// Something that is signed as a whole and kept as signed.
pub trait Document: Serialize + DeserializeOwned {
    /// What people call it; also keeps its signatures apart from those of other documents.
    const WHAT: &'static str;
}

/// A document's exact bytes and a signature over them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed<T> {
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
    #[serde(with = "serde_bytes")]
    signature: [u8; 64],
    #[serde(skip)]
    document: PhantomData<fn() -> T>,
}

impl<T: Document> fmt::Debug for Signed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signed {} of {} bytes", T::WHAT, self.bytes.len())
    }
}

fn document_digest(what: &str, bytes: &[u8]) -> [u8; 64] {
    let mut hasher = Blake2b512::new();
    hasher.update((what.len() as u64).to_le_bytes());
    hasher.update(what);
    hasher.update(bytes);
    hasher.finalize().into()
}

const DOCUMENT_CONTEXT: &[u8] = b"mycelial document v1";

impl<T: Document> Signed<T> {
    /// Signs a document.
    pub fn new(document: &T, signer: &Identity) -> Self {
        let bytes = postcard::to_allocvec(document).expect("documents are plain data, written to memory");
        let signature = signer.sign(DOCUMENT_CONTEXT, &document_digest(T::WHAT, &bytes));
        Self {
            bytes,
            signature,
            document: PhantomData,
        }
    }

    /// The document, if the holder of `sign_public` signed it.
    pub fn open(&self, sign_public: &[u8; 32]) -> Result<T, DocumentError> {
        if !key::verify(
            sign_public,
            DOCUMENT_CONTEXT,
            &document_digest(T::WHAT, &self.bytes),
            &self.signature,
        ) {
            return Err(DocumentError::Signature { what: T::WHAT });
        }
        crate::exactly(&self.bytes).map_err(|cause| DocumentError::Malformed { what: T::WHAT, cause })
    }

    /// The signed bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// What a member may do. Variants are only ever appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Orchestrates.
    Plane,
    /// Runs workflows.
    Daemon,
    /// A person, through the command line.
    Operator,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Plane => "plane",
            Role::Daemon => "daemon",
            Role::Operator => "operator",
        })
    }
}

/// Binds a node's name, role and keys, signed by the fleet's root key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The fleet.
    pub fleet: FleetId,
    /// The member.
    pub node: NodeId,
    /// What people call it; a subject token, unique in the fleet.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Its keys.
    pub keys: PublicKeys,
    /// Which generation of its keys; goes up with each rotation.
    pub key_epoch: u32,
}

impl Document for Certificate {
    const WHAT: &'static str = "certificate";
}

/// Everybody who belongs to the fleet, signed by the root key. Its version only goes up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roster {
    /// The fleet.
    pub fleet: FleetId,
    /// Goes up with every change.
    pub version: u64,
    /// The members. A member whose keys rotate is listed twice while the old ones are still good.
    pub members: Vec<Certificate>,
    /// Nodes that were members and are not to be believed any more.
    pub revoked: Vec<NodeId>,
}

impl Document for Roster {
    const WHAT: &'static str = "roster";
}

impl Roster {
    /// The certificates of a member, newest first; empty when it is revoked or unknown.
    pub fn of(&self, node: &NodeId) -> impl Iterator<Item = &Certificate> {
        let revoked = self.revoked.contains(node);
        let mut found: Vec<_> = self.members.iter().filter(|m| !revoked && m.node == *node).collect();
        found.sort_by_key(|member| core::cmp::Reverse(member.key_epoch));
        found.into_iter()
    }
}

/// The key for [`crate::envelope::Lock::Group`] messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupKey {
    /// Which one; changes when a member is revoked.
    pub key_epoch: u32,
    /// The key.
    pub key: SecretKey,
}

/// How a member logs in at the broker.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerLogin {
    /// User name.
    pub user: String,
    /// Password.
    pub password: String,
}

impl fmt::Debug for BrokerLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BrokerLogin {{ user: {}, password: [redacted] }}", self.user)
    }
}

/// Why an enrolment string cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvitationError {
    /// Does not start as one does.
    #[error("an enrolment string starts with '{PREFIX}'; make one with: mycelial token create")]
    Prefix,
    /// A character is wrong or missing.
    #[error(
        "the enrolment string was cut off or mistyped; copy the whole of it, or make a new one with: mycelial token create"
    )]
    Damaged,
    /// Made by another version.
    #[error("the enrolment string was made by another version of Mycelial; make a new one with: mycelial token create")]
    Version,
}

const PREFIX: &str = "myc1";
const CHECK_BYTES: usize = 5;

/// All a new member needs, in one string: where the bus is, a one-time token, and whom to trust.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// Bus addresses, tried in order.
    pub bus: Vec<String>,
    /// The broker's certificate authority, DER, when it is not a public one.
    pub ca: Option<Vec<u8>>,
    /// How to log in at the broker until there is a certificate.
    pub login: Option<BrokerLogin>,
    /// The fleet's root key: what everything else is checked against.
    pub root: [u8; 32],
    /// The plane's X25519 key, for the sealed box.
    pub plane_seal: [u8; 32],
    /// The plane's node id.
    pub plane: NodeId,
    /// The token's public half.
    pub token: TokenId,
    /// The token's secret half.
    pub secret: [u8; 16],
    /// What the new member will be.
    pub role: Role,
}

impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Invitation {{ token: {}, bus: {:?} }}", self.token, self.bus)
    }
}

impl Invitation {
    /// The fleet it invites to.
    pub fn fleet(&self) -> FleetId {
        FleetId::of_root(&self.root)
    }

    /// The one string.
    pub fn encode(&self) -> String {
        let mut bytes = postcard::to_allocvec(self).expect("plain data, written to memory");
        let check = hash("mycelial invitation v1", &[&bytes]);
        bytes.extend_from_slice(&check[..CHECK_BYTES]);
        alloc::format!("{PREFIX}{}", base32(&bytes))
    }

    /// Reads the string. White space around and inside it (a wrapped line) does not matter.
    pub fn decode(text: &str) -> Result<Self, InvitationError> {
        let text: String = text.split_whitespace().collect();
        let body = text.strip_prefix(PREFIX).ok_or(InvitationError::Prefix)?;
        let bytes = from_base32(body).ok_or(InvitationError::Damaged)?;
        let (body, check) = bytes
            .split_last_chunk::<CHECK_BYTES>()
            .ok_or(InvitationError::Damaged)?;
        if hash("mycelial invitation v1", &[body])[..CHECK_BYTES] != *check {
            return Err(InvitationError::Damaged);
        }
        crate::exactly(body).map_err(|_| InvitationError::Version)
    }

    /// Proves that the candidate holds the token, without showing it.
    pub fn proof(&self, keys: &PublicKeys, name: &str) -> [u8; 32] {
        enrol_proof(&self.secret, keys, name)
    }
}

/// HMAC of the candidate's keys and wished name under the token's secret.
pub fn enrol_proof(secret: &[u8; 16], keys: &PublicKeys, name: &str) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(b"mycelial enrol v1");
    mac.update(&keys.sign);
    mac.update(&keys.seal);
    mac.update(name.as_bytes());
    mac.finalize().into_bytes().into()
}

/// Compares in constant time.
pub fn same_secret(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

/// Whether text may name a daemon, operator, workflow or workflow node: a subject token that starts with a letter or digit.
pub fn is_name(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX && check_token(text).is_ok() && !text.starts_with(['-', '_'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invitation() -> Invitation {
        Invitation {
            bus: [String::from("mqtt://127.0.0.1:1883")].into(),
            ca: None,
            login: None,
            root: [1; 32],
            plane_seal: [2; 32],
            plane: NodeId::from_hash(&[3; 32]),
            token: TokenId::from_hash(&[4; 32]),
            secret: [5; 16],
            role: Role::Daemon,
        }
    }

    #[test]
    fn an_invitation_reads_back_and_shows_damage() {
        let text = invitation().encode();
        assert_eq!(Invitation::decode(&alloc::format!("  {text}\n")), Ok(invitation()));
        assert_eq!(Invitation::decode("hello"), Err(InvitationError::Prefix));
        assert_eq!(Invitation::decode("myc1"), Err(InvitationError::Damaged));
        assert_eq!(
            Invitation::decode(&text[..text.len() - 1]),
            Err(InvitationError::Damaged)
        );
        for at in 4..text.len() {
            let swapped = if text.as_bytes()[at] == b'a' { "b" } else { "a" };
            let wrong = alloc::format!("{}{swapped}{}", &text[..at], &text[at + 1..]);
            assert_eq!(
                Invitation::decode(&wrong),
                Err(InvitationError::Damaged),
                "character {at}"
            );
        }
    }

    #[test]
    fn a_document_opens_only_with_its_signer_and_kind() {
        let [root, other] = [1, 2].map(|n| Identity::from_bytes(&[n; 64]));
        let roster = Roster {
            fleet: FleetId::from_hash(&[1; 32]),
            version: 1,
            members: [].into(),
            revoked: [].into(),
        };
        let signed = Signed::new(&roster, &root);
        assert_eq!(signed.open(&root.public().sign), Ok(roster));
        assert!(signed.open(&other.public().sign).is_err());
        let mut bytes = postcard::to_allocvec(&signed).unwrap();
        let as_certificate: Signed<Certificate> = postcard::from_bytes(&bytes).unwrap();
        assert!(matches!(
            as_certificate.open(&root.public().sign),
            Err(DocumentError::Signature { .. })
        ));
        bytes[1] ^= 1;
        let changed: Signed<Roster> = postcard::from_bytes(&bytes).unwrap();
        assert!(changed.open(&root.public().sign).is_err());
    }

    #[test]
    fn the_revoked_are_not_found() {
        let keys = Identity::from_bytes(&[1; 64]).public();
        let node = keys.node_id();
        let fleet = FleetId::from_hash(&[1; 32]);
        let member = |key_epoch| Certificate {
            fleet,
            node,
            name: "a".into(),
            role: Role::Daemon,
            keys,
            key_epoch,
        };
        let mut roster = Roster {
            fleet,
            version: 1,
            members: [member(0), member(1)].into(),
            revoked: [].into(),
        };
        assert_eq!(roster.of(&node).map(|m| m.key_epoch).collect::<Vec<_>>(), [1, 0]);
        roster.revoked.push(node);
        assert_eq!(roster.of(&node).count(), 0);
    }
}
