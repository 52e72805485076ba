//! The envelope: every byte on the bus is sealed with XChaCha20-Poly1305, then signed with Ed25519 over the subject,
//! the header and the ciphertext. A broker can delay or drop one; it cannot read, change, redirect or forge one.
//!
//! ```text
//! frame     = header ‖ ciphertext ‖ tag (16) ‖ signature (64)
//! tag       covers  len(subject) ‖ subject ‖ header         (associated data)
//! signature covers  "mycelial envelope v1" ‖ BLAKE2b-512(len(subject) ‖ subject ‖ header ‖ ciphertext ‖ tag)
//! ```

use alloc::vec::Vec;

use blake2::{Blake2b512, Digest};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305,
    aead::{Aead, Payload},
};
use serde::{Deserialize, Serialize};

use crate::{
    id::{NodeId, StreamId},
    key::{self, Identity, PublicKeys, SecretKey},
    limits::{FRAME_BYTES_MAX, PAYLOAD_BYTES_MAX},
    subject::Subject,
};

/// The envelope version this code speaks.
pub const VERSION: u8 = 1;
/// XChaCha20-Poly1305, Ed25519, BLAKE2b-512, X25519 with HKDF-SHA256.
pub const SUITE: u8 = 1;
/// Bytes of a nonce. Random, so that no counter has to survive a crash.
pub const NONCE_BYTES: usize = 24;

const CONTEXT: &[u8] = b"mycelial envelope v1";
const TAG_BYTES: usize = 16;
const SIGNATURE_BYTES: usize = 64;

/// Why a frame was refused. Carries nothing that came from an unverified sender but its claimed name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Too short, too long, or the header does not parse.
    #[error("the bytes are not an envelope: {0}")]
    Malformed(&'static str),
    /// A version or suite of a newer or foreign program.
    #[error("envelope version {version}, suite {suite} is not understood (this program speaks {VERSION}, {SUITE})")]
    Unsupported {
        /// Found version.
        version: u8,
        /// Found suite.
        suite: u8,
    },
    /// Not signed by the claimed sender, or changed or moved to another subject on the way.
    #[error("the signature of '{sender}' does not match")]
    Signature {
        /// The claimed sender.
        sender: NodeId,
    },
    /// Signed well, but sealed with another key.
    #[error("the message of '{sender}' cannot be opened with the key at hand")]
    Key {
        /// The sender.
        sender: NodeId,
    },
    /// More plaintext than a frame may carry.
    #[error("a payload of {bytes} bytes is over the limit of {PAYLOAD_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

/// Which key seals the envelope. Variants are only ever appended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lock {
    /// The key two members share.
    Pair {
        /// Who can open it.
        recipient: NodeId,
    },
    /// A stream's key.
    Stream {
        /// The stream.
        stream: StreamId,
    },
    /// The fleet's group key.
    Group {
        /// Which of the fleet's group keys.
        key_epoch: u32,
    },
    /// An ephemeral key, for a candidate that has no certificate yet.
    Box {
        /// The ephemeral X25519 public key.
        ephemeral: [u8; 32],
    },
}

/// What stands in the clear, authenticated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Always [`VERSION`].
    pub version: u8,
    /// Always [`SUITE`].
    pub suite: u8,
    /// Which key opens it.
    pub lock: Lock,
    /// Who signed it.
    pub sender: NodeId,
    /// Which generation of the sender's keys.
    pub key_epoch: u32,
    /// Goes up at every start of the sender; for a stream, the stream's epoch.
    pub epoch: u64,
    /// Goes up with every message of the epoch; for a stream, the frame's seq.
    pub counter: u64,
    /// Random.
    pub nonce: [u8; NONCE_BYTES],
}

fn associated(subject: &Subject, header: &[u8]) -> Vec<u8> {
    let text = subject.as_str().as_bytes();
    [&(text.len() as u64).to_le_bytes(), text, header].concat()
}

fn digest(subject: &Subject, signed: &[u8]) -> [u8; 64] {
    let text = subject.as_str().as_bytes();
    let mut hasher = Blake2b512::new();
    hasher.update((text.len() as u64).to_le_bytes());
    hasher.update(text);
    hasher.update(signed);
    hasher.finalize().into()
}

/// Encrypts, then signs. The header's nonce must be fresh random bytes.
pub fn seal(
    subject: &Subject,
    header: &Header,
    key: &SecretKey,
    signer: &Identity,
    plaintext: &[u8],
) -> Result<Vec<u8>, EnvelopeError> {
    if plaintext.len() > PAYLOAD_BYTES_MAX {
        return Err(EnvelopeError::TooLarge { bytes: plaintext.len() });
    }
    let mut frame = postcard::to_allocvec(header).map_err(|_| EnvelopeError::Malformed("header"))?;
    let aad = associated(subject, &frame);
    let cipher = XChaCha20Poly1305::new(key.expose().into());
    let sealed = cipher
        .encrypt(
            (&header.nonce).into(),
            Payload {
                msg: plaintext,
                aad: &aad,
            },
        )
        .map_err(|_| EnvelopeError::Malformed("payload"))?;
    frame.reserve_exact(sealed.len() + SIGNATURE_BYTES);
    frame.extend_from_slice(&sealed);
    let signature = signer.sign(CONTEXT, &digest(subject, &frame));
    frame.extend_from_slice(&signature);
    Ok(frame)
}

/// Makes the lock and key of a sealed box for the holder of `recipient`. `None` when that key is unusable.
pub fn seal_box(recipient: &PublicKeys, ephemeral_secret: [u8; 32]) -> Option<(Lock, SecretKey)> {
    let (ephemeral, key) = key::box_for(&recipient.seal, ephemeral_secret)?;
    Some((Lock::Box { ephemeral }, key))
}

/// A frame taken apart, nothing checked yet.
#[derive(Debug)]
pub struct Envelope<'a> {
    header: Header,
    header_bytes: &'a [u8],
    sealed: &'a [u8],
    signed: &'a [u8],
    signature: [u8; SIGNATURE_BYTES],
}

impl<'a> Envelope<'a> {
    /// Reads the header. Believes nothing: only its shape, version and suite are checked.
    pub fn parse(frame: &'a [u8]) -> Result<Self, EnvelopeError> {
        if frame.len() > FRAME_BYTES_MAX {
            return Err(EnvelopeError::Malformed("longer than a frame may be"));
        }
        let Some((signed, signature)) = frame.split_last_chunk::<SIGNATURE_BYTES>() else {
            return Err(EnvelopeError::Malformed("too short for a signature"));
        };
        if let [version, suite, ..] = signed
            && (*version, *suite) != (VERSION, SUITE)
        {
            return Err(EnvelopeError::Unsupported {
                version: *version,
                suite: *suite,
            });
        }
        let (header, sealed) =
            postcard::take_from_bytes::<Header>(signed).map_err(|_| EnvelopeError::Malformed("header"))?;
        if sealed.len() < TAG_BYTES {
            return Err(EnvelopeError::Malformed("too short for a tag"));
        }
        let header_bytes = &signed[..signed.len() - sealed.len()];
        Ok(Self {
            header,
            header_bytes,
            sealed,
            signed,
            signature: *signature,
        })
    }

    /// The claimed header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Checks who signed this for this very subject.
    pub fn verify(self, subject: &Subject, sender: &PublicKeys) -> Result<Verified<'a>, EnvelopeError> {
        let digest = digest(subject, self.signed);
        if !key::verify(&sender.sign, CONTEXT, &digest, &self.signature) {
            return Err(EnvelopeError::Signature {
                sender: self.header.sender,
            });
        }
        Ok(Verified {
            envelope: self,
            subject: subject.clone(),
        })
    }

    /// Opens a sealed box whose sender is not known yet: the plaintext names the keys, and `keys` reads them from it.
    /// The signature must be by those keys, and the sender's id must be theirs.
    pub fn open_box<T>(
        self,
        subject: &Subject,
        recipient: &Identity,
        keys: impl FnOnce(&[u8]) -> Option<(PublicKeys, T)>,
    ) -> Result<(PublicKeys, T), EnvelopeError> {
        let Lock::Box { ephemeral } = self.header.lock else {
            return Err(EnvelopeError::Malformed("not a sealed box"));
        };
        let sender = self.header.sender;
        let key = recipient.box_key(&ephemeral).ok_or(EnvelopeError::Key { sender })?;
        let plaintext = self.decrypt(subject, &key)?;
        let (public, value) = keys(&plaintext).ok_or(EnvelopeError::Malformed("sealed box"))?;
        if public.node_id() != sender {
            return Err(EnvelopeError::Signature { sender });
        }
        self.verify(subject, &public)?;
        Ok((public, value))
    }

    /// Opens with a key that only one other party can hold, before that party's signing key is known. Whoever calls this
    /// learns the key from the plaintext and must then [`Envelope::verify`].
    pub fn open_unverified(&self, subject: &Subject, key: &SecretKey) -> Result<Vec<u8>, EnvelopeError> {
        self.decrypt(subject, key)
    }

    fn decrypt(&self, subject: &Subject, key: &SecretKey) -> Result<Vec<u8>, EnvelopeError> {
        let aad = associated(subject, self.header_bytes);
        XChaCha20Poly1305::new(key.expose().into())
            .decrypt(
                (&self.header.nonce).into(),
                Payload {
                    msg: self.sealed,
                    aad: &aad,
                },
            )
            .map_err(|_| EnvelopeError::Key {
                sender: self.header.sender,
            })
    }
}

/// A frame whose signature has been checked against a known sender and subject.
#[derive(Debug)]
pub struct Verified<'a> {
    envelope: Envelope<'a>,
    subject: Subject,
}

impl Verified<'_> {
    /// The header, now believed.
    pub fn header(&self) -> &Header {
        &self.envelope.header
    }

    /// Decrypts.
    pub fn open(&self, key: &SecretKey) -> Result<Vec<u8>, EnvelopeError> {
        self.envelope.decrypt(&self.subject, key)
    }
}
