//! Keys: a node's own pair of secrets, the public halves others know, and what is derived between two of them.
//! Never draws randomness itself: secrets come in as bytes.

use alloc::string::String;
use core::fmt;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use hkdf::Hkdf;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::id::{NodeId, fingerprint};

/// A symmetric key. Does not print and is wiped when dropped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct SecretKey([u8; 32]);

impl SecretKey {
    /// Wraps 32 bytes that are secret and uniformly random, or derived from such.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The raw key.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// The two public keys of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PublicKeys {
    /// Ed25519: who signed.
    pub sign: [u8; 32],
    /// X25519: whom to seal for.
    pub seal: [u8; 32],
}

impl PublicKeys {
    /// The id that belongs to these keys when they are a node's first.
    pub fn node_id(&self) -> NodeId {
        NodeId::of_key(&self.sign)
    }

    /// For people to compare.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.sign)
    }
}

/// A node's own secrets.
#[derive(Clone)]
pub struct Identity {
    sign: SigningKey,
    seal: StaticSecret,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("node", &self.public().node_id())
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Length of [`Identity::to_bytes`].
    pub const BYTES: usize = 64;

    /// From 64 secret random bytes: the Ed25519 seed, then the X25519 secret.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let mut half = Zeroizing::new([0; 32]);
        half.copy_from_slice(&bytes[..32]);
        let sign = SigningKey::from_bytes(&half);
        half.copy_from_slice(&bytes[32..]);
        Self {
            sign,
            seal: StaticSecret::from(*half),
        }
    }

    /// The secrets, for storing.
    pub fn to_bytes(&self) -> Zeroizing<[u8; Self::BYTES]> {
        let mut out = Zeroizing::new([0; Self::BYTES]);
        out[..32].copy_from_slice(self.sign.as_bytes());
        out[32..].copy_from_slice(self.seal.as_bytes());
        out
    }

    /// The public halves.
    pub fn public(&self) -> PublicKeys {
        PublicKeys {
            sign: self.sign.verifying_key().to_bytes(),
            seal: PublicKey::from(&self.seal).to_bytes(),
        }
    }

    /// Signs a message under a context that keeps uses apart.
    pub(crate) fn sign(&self, context: &[u8], digest: &[u8; 64]) -> [u8; 64] {
        self.sign.sign(&signed_bytes(context, digest)).to_bytes()
    }

    /// The key for messages from `sender` to `recipient`, one of whom is this identity. Both sides derive the same;
    /// the two directions differ. `None` when the peer's key is a point that gives no secret.
    pub fn pair_key(&self, peer: &PublicKeys, sender: &NodeId, recipient: &NodeId) -> Option<SecretKey> {
        agree(
            &self.seal,
            &peer.seal,
            b"mycelial pair v1",
            &[sender.as_str(), recipient.as_str()],
        )
    }

    /// The key of what this identity seals for itself alone; see [`crate::vault`].
    pub(crate) fn vault_key(&self) -> SecretKey {
        let mut key = [0; 32];
        let derived = Hkdf::<Sha256>::new(Some(b"mycelial vault v1"), self.seal.as_bytes()).expand(&[], &mut key);
        derived.expect("32 bytes are within what HKDF gives");
        SecretKey(key)
    }

    /// The key of a sealed box made for this identity.
    pub(crate) fn box_key(&self, ephemeral: &[u8; 32]) -> Option<SecretKey> {
        agree(&self.seal, ephemeral, b"mycelial box v1", &[])
    }
}

/// The sender's side of a sealed box: the ephemeral public key and the box's key.
pub(crate) fn box_for(recipient_seal: &[u8; 32], ephemeral_secret: [u8; 32]) -> Option<([u8; 32], SecretKey)> {
    let secret = StaticSecret::from(ephemeral_secret);
    let public = PublicKey::from(&secret).to_bytes();
    Some((public, agree(&secret, recipient_seal, b"mycelial box v1", &[])?))
}

fn agree(secret: &StaticSecret, peer: &[u8; 32], salt: &[u8], info: &[&str]) -> Option<SecretKey> {
    let shared = secret.diffie_hellman(&PublicKey::from(*peer));
    if !shared.was_contributory() {
        return None;
    }
    let mut key = [0; 32];
    let mut text = String::new();
    info.iter().for_each(|part| text.push_str(part));
    Hkdf::<Sha256>::new(Some(salt), shared.as_bytes())
        .expand(text.as_bytes(), &mut key)
        .ok()?;
    Some(SecretKey(key))
}

fn signed_bytes(context: &[u8], digest: &[u8; 64]) -> alloc::vec::Vec<u8> {
    [context, digest].concat()
}

/// Whether `signature` over `digest` under `context` is by the holder of `sign_public`. Strict: no small-order keys.
pub(crate) fn verify(sign_public: &[u8; 32], context: &[u8], digest: &[u8; 64], signature: &[u8; 64]) -> bool {
    let Ok(key) = VerifyingKey::from_bytes(sign_public) else {
        return false;
    };
    key.verify_strict(&signed_bytes(context, digest), &Signature::from_bytes(signature))
        .is_ok()
}
