//! How messages are protected (OPC 10000-6, 6.7; OPC 10000-7, 6.6): the policies, the keys of a channel, and chunks on their
//! way in and out. Performs no I/O; what is drawn by chance comes from the system.

use std::sync::Arc;

use aes::{
    Aes128, Aes256,
    cipher::{Array, BlockModeDecrypt, BlockModeEncrypt, KeyIvInit, consts::U16},
};
use hmac::{Hmac, KeyInit, Mac};
use rsa::{PrivateKey, PublicKey, traits::PublicKeyParts};
use sha1::{Digest, Sha1};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{
    certificate::{Known, Own},
    wire::{Reader, WireError, Writer},
};

/// What the names of policies begin with.
const POLICY_BASE: &str = "http://opcfoundation.org/UA/SecurityPolicy#";
/// Bytes of a nonce, in each of the policies.
pub(super) const NONCE_BYTES: usize = 32;
/// Bytes of HMAC-SHA-256, and of the key that it is made with.
const MAC_BYTES: usize = 32;
/// Bytes that AES takes at once.
const BLOCK_BYTES: usize = 16;
/// Bytes of a chunk before its security: type, mark, size, channel.
const HEAD_BYTES: usize = 12;
/// Bytes of a message's chunk that are not encrypted: its head, and the token.
const OPEN_BYTES: usize = HEAD_BYTES + 4;
/// Bytes of what says which chunk it is: sequence, request.
const NUMBERS_BYTES: usize = 8;
/// Keys of RSA longer than this need two bytes to say how much was padded.
const KEY_BYTES_SHORT: usize = 256;
/// Sizes of a key that the policies allow, in bytes.
pub(super) const KEY_BYTES: std::ops::RangeInclusive<usize> = 256..=512;
/// From here on a sequence number may begin anew.
const SEQUENCE_WRAPS: u32 = u32::MAX - 1024;
/// With a number below this.
const SEQUENCE_BEGINS: u32 = 1024;

/// Why a message is not taken, or cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SecurityError {
    /// Whoever wrote it does not have the key, or it was changed.
    #[error("a message is not from whom it should be, or was changed on its way")]
    Forged,
    /// It cannot be decrypted.
    #[error("a message cannot be decrypted")]
    Sealed,
    /// It is left out or repeated.
    #[error("a message was left out, repeated or put in another place: number {found} after {last}")]
    Sequence {
        /// The one before.
        last: u32,
        /// This one.
        found: u32,
    },
    /// It uses keys that are not of this channel, or not any more.
    #[error("a message uses keys ({0}) that do not hold, or not any more")]
    Token(u32),
    /// It opens a channel, but not as it was asked to.
    #[error("the channel was opened with {0} that was not asked for")]
    Other(&'static str),
    /// It is not as the specification has it.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// Our own key, or the other's, does not do what it should.
    #[error("the key cannot {0}")]
    Key(&'static str),
    /// The system has no randomness.
    #[error("the system has no randomness: {0}")]
    Random(String),
}

/// What is done with messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mode {
    /// Nothing.
    None,
    /// They are signed: everybody can read them, and nobody change them.
    Sign,
    /// They are encrypted as well.
    SignAndEncrypt,
}

impl Mode {
    /// As it is on the wire.
    pub(super) fn code(self) -> u32 {
        match self {
            Mode::None => 1,
            Mode::Sign => 2,
            Mode::SignAndEncrypt => 3,
        }
    }

    pub(super) fn of(code: u32) -> Option<Self> {
        [Mode::None, Mode::Sign, Mode::SignAndEncrypt]
            .into_iter()
            .find(|mode| mode.code() == code)
    }

    /// As it stands in a config.
    pub(super) fn word(self) -> &'static str {
        match self {
            Mode::None => "none",
            Mode::Sign => "sign",
            Mode::SignAndEncrypt => "sign_and_encrypt",
        }
    }
}

/// How RSA signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signs {
    /// PKCS #1 v1.5 with SHA-256.
    Pkcs1,
    /// PSS with SHA-256.
    Pss,
}

/// How RSA masks what it encrypts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Masks {
    Sha1,
    Sha256,
}

/// A set of algorithms that go together.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Policy {
    /// What it is called, behind what all of them are.
    pub name: &'static str,
    signs: Signs,
    masks: Masks,
    /// Bytes of a key of AES.
    cipher_key_bytes: usize,
}

/// The policies that there are, the strongest first.
pub(super) const POLICIES: &[Policy] = &[
    Policy {
        name: "Aes256_Sha256_RsaPss",
        signs: Signs::Pss,
        masks: Masks::Sha256,
        cipher_key_bytes: 32,
    },
    Policy {
        name: "Basic256Sha256",
        signs: Signs::Pkcs1,
        masks: Masks::Sha1,
        cipher_key_bytes: 32,
    },
    Policy {
        name: "Aes128_Sha256_RsaOaep",
        signs: Signs::Pkcs1,
        masks: Masks::Sha1,
        cipher_key_bytes: 16,
    },
];

impl Policy {
    /// The policy of this address, if it is one of ours.
    pub(super) fn find(uri: &str) -> Option<&'static Policy> {
        let name = uri.strip_prefix(POLICY_BASE)?;
        POLICIES.iter().find(|policy| policy.name == name)
    }

    pub(super) fn uri(&self) -> String {
        format!("{POLICY_BASE}{}", self.name)
    }

    /// What signatures say that they are.
    pub(super) fn signature_uri(&self) -> &'static str {
        match self.signs {
            Signs::Pkcs1 => "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256",
            Signs::Pss => "http://opcfoundation.org/UA/security/rsa-pss-sha2-256",
        }
    }

    /// What an encrypted password says that it is.
    pub(super) fn encryption_uri(&self) -> &'static str {
        match self.masks {
            Masks::Sha1 => "http://www.w3.org/2001/04/xmlenc#rsa-oaep",
            Masks::Sha256 => "http://opcfoundation.org/UA/security/rsa-oaep-sha2-256",
        }
    }

    /// Signs with a private key.
    pub(super) fn sign(&self, key: &PrivateKey, bytes: &[u8]) -> Result<Vec<u8>, SecurityError> {
        let signed = match self.signs {
            Signs::Pkcs1 => key.pkcs1v15_sign::<Sha256>(bytes),
            Signs::Pss => key.pss_sign::<Sha256>(bytes),
        };
        signed.map_err(|_| SecurityError::Key("sign"))
    }

    /// Whether who has the private key to this one has signed it.
    pub(super) fn verify(&self, key: &PublicKey, bytes: &[u8], signature: &[u8]) -> Result<(), SecurityError> {
        let verified = match self.signs {
            Signs::Pkcs1 => key.pkcs1v15_verify::<Sha256>(bytes, signature),
            Signs::Pss => key.pss_verify::<Sha256>(bytes, signature),
        };
        verified.map_err(|_| SecurityError::Forged)
    }

    /// Bytes that a key of this size encrypts at once.
    fn plain_bytes(&self, key: &PublicKey) -> usize {
        let hash_bytes = match self.masks {
            Masks::Sha1 => Sha1::output_size(),
            Masks::Sha256 => Sha256::output_size(),
        };
        key.size().saturating_sub(2 * hash_bytes + 2).max(1)
    }

    /// Encrypts for whoever has the private key to this one, piece by piece.
    pub(super) fn encrypt(&self, key: &PublicKey, bytes: &[u8]) -> Result<Vec<u8>, SecurityError> {
        let mut sealed = Vec::with_capacity(key.size() * bytes.len().div_ceil(self.plain_bytes(key)));
        for piece in bytes.chunks(self.plain_bytes(key)) {
            let encrypted = match self.masks {
                Masks::Sha1 => key.oaep_encrypt::<Sha1>(piece),
                Masks::Sha256 => key.oaep_encrypt::<Sha256>(piece),
            };
            sealed.extend(encrypted.map_err(|_| SecurityError::Key("encrypt"))?);
        }
        Ok(sealed)
    }

    /// Decrypts what was encrypted piece by piece.
    fn decrypt(&self, key: &PrivateKey, bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, SecurityError> {
        let mut plain = Zeroizing::new(Vec::with_capacity(bytes.len()));
        for piece in bytes.chunks(key.size()) {
            let decrypted = match self.masks {
                Masks::Sha1 => key.oaep_decrypt::<Sha1>(piece),
                Masks::Sha256 => key.oaep_decrypt::<Sha256>(piece),
            };
            let decrypted = Zeroizing::new(decrypted.map_err(|_| SecurityError::Sealed)?);
            plain.extend_from_slice(&decrypted);
        }
        Ok(plain)
    }

    /// A password for the server's eyes: with the nonce of this session, so that nobody can send it again.
    pub(super) fn password(&self, server: &Known, password: &[u8], nonce: &[u8]) -> Result<Vec<u8>, SecurityError> {
        let mut plain = Zeroizing::new(Vec::with_capacity(4 + password.len() + nonce.len()));
        plain.extend_from_slice(&((password.len() + nonce.len()) as u32).to_le_bytes());
        plain.extend_from_slice(password);
        plain.extend_from_slice(nonce);
        self.encrypt(&server.key, &plain)
    }
}

/// Bytes that nobody can guess.
pub(super) fn nonce() -> Result<[u8; NONCE_BYTES], SecurityError> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(|error| SecurityError::Random(error.to_string()))?;
    Ok(nonce)
}

/// Makes as many bytes as are wanted of a secret and a seed (P_SHA256 of TLS 1.2).
fn derived(secret: &[u8], seed: &[u8], bytes: usize) -> Zeroizing<Vec<u8>> {
    let mac = |parts: &[&[u8]]| {
        // Keys of any length are taken.
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(secret).ok()?;
        parts.iter().for_each(|part| mac.update(part));
        Some(Zeroizing::new(<[u8; MAC_BYTES]>::from(mac.finalize().into_bytes())))
    };
    let mut made = Zeroizing::new(Vec::with_capacity(bytes + MAC_BYTES));
    let mut link = mac(&[seed]);
    while made.len() < bytes {
        let Some(current) = link.take() else { break };
        if let Some(block) = mac(&[&current[..], seed]) {
            made.extend_from_slice(&block[..]);
            link = mac(&[&current[..]]);
        }
    }
    made.truncate(bytes);
    made
}

/// The keys of one direction. Neither printed nor left in memory.
pub(super) struct Keys {
    sign: Zeroizing<Vec<u8>>,
    cipher: Zeroizing<Vec<u8>>,
    start: Zeroizing<Vec<u8>>,
}

impl Keys {
    /// Those of whoever drew `own`; the other side drew `other`.
    fn new(policy: &Policy, own: &[u8], other: &[u8]) -> Self {
        let cipher_end = MAC_BYTES + policy.cipher_key_bytes;
        let made = derived(other, own, cipher_end + BLOCK_BYTES);
        let part = |range: std::ops::Range<usize>| Zeroizing::new(made.get(range).unwrap_or_default().to_vec());
        Self {
            sign: part(0..MAC_BYTES),
            cipher: part(MAC_BYTES..cipher_end),
            start: part(cipher_end..cipher_end + BLOCK_BYTES),
        }
    }

    fn mac(&self, bytes: &[u8]) -> Result<Hmac<Sha256>, SecurityError> {
        let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.sign);
        let mut mac = mac.map_err(|_| SecurityError::Key("sign"))?;
        mac.update(bytes);
        Ok(mac)
    }

    /// In place; whole blocks only.
    fn encrypt(&self, bytes: &mut [u8]) -> Result<(), SecurityError> {
        let wrong = |_| SecurityError::Key("encrypt");
        let (blocks, rest) = Array::<u8, U16>::slice_as_chunks_mut(bytes);
        if !rest.is_empty() {
            return Err(SecurityError::Key("encrypt"));
        }
        match self.cipher.len() {
            16 => cbc::Encryptor::<Aes128>::new_from_slices(&self.cipher, &self.start)
                .map_err(wrong)?
                .encrypt_blocks(blocks),
            _ => cbc::Encryptor::<Aes256>::new_from_slices(&self.cipher, &self.start)
                .map_err(wrong)?
                .encrypt_blocks(blocks),
        }
        Ok(())
    }

    /// In place; whole blocks only.
    fn decrypt(&self, bytes: &mut [u8]) -> Result<(), SecurityError> {
        let wrong = |_| SecurityError::Sealed;
        let (blocks, rest) = Array::<u8, U16>::slice_as_chunks_mut(bytes);
        if !rest.is_empty() {
            return Err(SecurityError::Sealed);
        }
        match self.cipher.len() {
            16 => cbc::Decryptor::<Aes128>::new_from_slices(&self.cipher, &self.start)
                .map_err(wrong)?
                .decrypt_blocks(blocks),
            _ => cbc::Decryptor::<Aes256>::new_from_slices(&self.cipher, &self.start)
                .map_err(wrong)?
                .decrypt_blocks(blocks),
        }
        Ok(())
    }
}

/// What a chunk begins with, and where it belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub ty: [u8; 3],
    /// Whether it is the last of its message.
    pub mark: u8,
    pub channel: u32,
    pub sequence: u32,
    pub request: u32,
}

/// What was in a chunk.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opened {
    pub sequence: u32,
    pub request: u32,
    pub content: Vec<u8>,
}

impl Opened {
    fn read(plain: &[u8]) -> Result<Self, SecurityError> {
        let mut plain = Reader::new(plain);
        Ok(Self {
            sequence: plain.u32()?,
            request: plain.u32()?,
            content: plain.rest().to_vec(),
        })
    }
}

/// The two sides of a channel, and what they agreed on.
pub(super) struct Pair {
    pub policy: &'static Policy,
    pub mode: Mode,
    pub own: Arc<Own>,
    pub other: Known,
}

impl Pair {
    /// Bytes of a message that fit into a chunk of this size.
    pub(super) fn content_bytes(&self, chunk_bytes: usize) -> usize {
        let room = chunk_bytes.saturating_sub(OPEN_BYTES);
        let room = match self.mode {
            Mode::SignAndEncrypt => room / BLOCK_BYTES * BLOCK_BYTES - 1,
            _ => room,
        };
        room.saturating_sub(NUMBERS_BYTES + MAC_BYTES).max(1)
    }

    /// The keys of both directions, ours first, from what both have drawn.
    pub(super) fn keys(&self, own_nonce: &[u8], other_nonce: &[u8]) -> (Keys, Keys) {
        let ours = Keys::new(self.policy, own_nonce, other_nonce);
        (ours, Keys::new(self.policy, other_nonce, own_nonce))
    }

    /// A chunk that opens the channel: signed by us, and encrypted for the other whatever the mode.
    pub(super) fn wrap_open(&self, head: Head, content: &[u8]) -> Result<Vec<u8>, SecurityError> {
        let (own_bytes, other_bytes) = (self.own.key.size(), self.other.key.size());
        let mut security = Writer::default();
        security
            .text(&self.policy.uri())
            .bytes(&self.own.certificate)
            .bytes(&Sha1::digest(&self.other.certificate));
        let security = security.finish();
        let plain_bytes = self.policy.plain_bytes(&self.other.key);
        let is_long = other_bytes > KEY_BYTES_SHORT;
        let whole = NUMBERS_BYTES + content.len() + 1 + usize::from(is_long) + own_bytes;
        let padding = whole.next_multiple_of(plain_bytes) - whole;
        let sealed_bytes = (whole + padding) / plain_bytes * other_bytes;
        let mut chunk = begun(&head, HEAD_BYTES + security.len() + sealed_bytes);
        chunk.extend_from_slice(&security);
        let begin = chunk.len();
        number(&mut chunk, &head);
        chunk.extend_from_slice(content);
        let [low, high, ..] = padding.to_le_bytes();
        chunk.extend(std::iter::repeat_n(low, padding + 1));
        if is_long {
            chunk.push(high);
        }
        let mut chunk = Zeroizing::new(chunk);
        let signature = self.policy.sign(&self.own.key, &chunk)?;
        chunk.extend_from_slice(&signature);
        let sealed = self
            .policy
            .encrypt(&self.other.key, chunk.get(begin..).unwrap_or_default())?;
        let mut done = chunk.get(..begin).unwrap_or_default().to_vec();
        done.extend(sealed);
        Ok(done)
    }

    /// What is in a chunk that opens the channel, if it is from the other and for us.
    pub(super) fn unwrap_open(&self, chunk: &[u8]) -> Result<Opened, SecurityError> {
        let mut reader = Reader::new(chunk);
        reader.take(HEAD_BYTES)?;
        if reader.text()? != Some(self.policy.uri().as_str()) {
            return Err(SecurityError::Other("a policy"));
        }
        // Behind it there may be those who signed it.
        let sender = reader.bytes()?.unwrap_or_default();
        if !sender.starts_with(&self.other.certificate) {
            return Err(SecurityError::Other("a certificate"));
        }
        if reader.bytes()?.unwrap_or_default() != &Sha1::digest(&self.own.certificate)[..] {
            return Err(SecurityError::Other("a certificate of ours"));
        }
        let sealed = reader.rest();
        let open = chunk.get(..chunk.len() - sealed.len()).unwrap_or_default();
        let own_bytes = self.own.key.size();
        if sealed.is_empty() || !sealed.len().is_multiple_of(own_bytes) {
            return Err(SecurityError::Sealed);
        }
        let plain = self.policy.decrypt(&self.own.key, sealed)?;
        let signed = plain.len().checked_sub(self.other.key.size());
        let (content, signature) = signed
            .and_then(|signed| plain.split_at_checked(signed))
            .ok_or(SecurityError::Forged)?;
        let signed = Zeroizing::new([open, content].concat());
        self.policy.verify(&self.other.key, &signed, signature)?;
        Opened::read(unpadded(content, own_bytes > KEY_BYTES_SHORT)?)
    }

    /// A chunk of a message, with our keys.
    pub(super) fn wrap(&self, keys: &Keys, token: u32, head: Head, content: &[u8]) -> Result<Vec<u8>, SecurityError> {
        let is_encrypted = self.mode == Mode::SignAndEncrypt;
        let bare = NUMBERS_BYTES + content.len() + MAC_BYTES;
        let padding = match is_encrypted {
            true => Some((bare + 1).next_multiple_of(BLOCK_BYTES) - bare - 1),
            false => None,
        };
        let mut chunk = begun(&head, OPEN_BYTES + bare + padding.map_or(0, |padding| padding + 1));
        chunk.extend(token.to_le_bytes());
        number(&mut chunk, &head);
        chunk.extend_from_slice(content);
        if let Some(padding) = padding {
            // Less than a block.
            let [low, ..] = padding.to_le_bytes();
            chunk.extend(std::iter::repeat_n(low, padding + 1));
        }
        let mac = keys.mac(&chunk)?.finalize().into_bytes();
        chunk.extend_from_slice(&mac);
        if is_encrypted {
            keys.encrypt(chunk.get_mut(OPEN_BYTES..).unwrap_or_default())?;
        }
        Ok(chunk)
    }

    /// What is in a chunk of a message, with the other's keys.
    pub(super) fn unwrap(&self, keys: &Keys, chunk: &[u8]) -> Result<Opened, SecurityError> {
        let is_encrypted = self.mode == Mode::SignAndEncrypt;
        let mut chunk = Zeroizing::new(chunk.to_vec());
        if is_encrypted {
            keys.decrypt(chunk.get_mut(OPEN_BYTES..).ok_or(SecurityError::Sealed)?)?;
        }
        let signed = chunk
            .len()
            .checked_sub(MAC_BYTES)
            .filter(|signed| *signed >= OPEN_BYTES);
        let (signed, mac) = signed
            .and_then(|signed| chunk.split_at_checked(signed))
            .ok_or(SecurityError::Forged)?;
        // Takes the same time wherever it differs.
        keys.mac(signed)?.verify_slice(mac).map_err(|_| SecurityError::Forged)?;
        let plain = signed.get(OPEN_BYTES..).unwrap_or_default();
        Opened::read(if is_encrypted { unpadded(plain, false)? } else { plain })
    }
}

/// A chunk of this size up to its channel.
fn begun(head: &Head, bytes: usize) -> Vec<u8> {
    let mut chunk = Vec::with_capacity(bytes);
    chunk.extend(head.ty);
    chunk.push(head.mark);
    chunk.extend((bytes as u32).to_le_bytes());
    chunk.extend(head.channel.to_le_bytes());
    chunk
}

fn number(chunk: &mut Vec<u8>, head: &Head) {
    chunk.extend(head.sequence.to_le_bytes());
    chunk.extend(head.request.to_le_bytes());
}

/// Takes off what was added to fill the last block. It is signed: nobody but the other side can have made it wrong.
fn unpadded(plain: &[u8], is_long: bool) -> Result<&[u8], SecurityError> {
    let (rest, high) = match is_long {
        true => plain
            .split_last()
            .map(|(high, rest)| (rest, usize::from(*high)))
            .ok_or(WireError::Short)?,
        false => (plain, 0),
    };
    let low = rest.last().copied().ok_or(WireError::Short)?;
    let padding = (high << 8) + usize::from(low) + 1;
    let kept = rest.len().checked_sub(padding).ok_or(WireError::Short)?;
    let (kept, padded) = rest.split_at_checked(kept).ok_or(WireError::Short)?;
    if padded.iter().all(|byte| *byte == low) {
        Ok(kept)
    } else {
        Err(SecurityError::Wire(WireError::Unknown("a padding".to_string())))
    }
}

/// Keys that hold for a while.
struct Held {
    token: u32,
    ours: Keys,
    theirs: Keys,
}

/// The keys that a channel has at a time: the newest, those before while the other may not know yet, and the number of the
/// last chunk that came.
pub(super) struct Ring<T> {
    current: Option<Held>,
    /// With the moment until which they hold.
    before: Option<(Held, T)>,
    last: Option<u32>,
}

impl<T: PartialOrd + Copy> Ring<T> {
    pub(super) fn new() -> Self {
        Self {
            current: None,
            before: None,
            last: None,
        }
    }

    /// New keys. Those there are hold for what comes until `until`.
    pub(super) fn renew(&mut self, token: u32, (ours, theirs): (Keys, Keys), until: T) {
        let held = Held { token, ours, theirs };
        self.before = self.current.replace(held).map(|before| (before, until));
    }

    /// A chunk of a message.
    pub(super) fn wrap(&self, pair: &Pair, head: Head, content: &[u8]) -> Result<Vec<u8>, SecurityError> {
        let held = self.current.as_ref().ok_or(SecurityError::Token(0))?;
        pair.wrap(&held.ours, held.token, head, content)
    }

    /// What is in a chunk of a message that comes `now`.
    pub(super) fn unwrap(&mut self, pair: &Pair, chunk: &[u8], now: T) -> Result<Opened, SecurityError> {
        let mut reader = Reader::new(chunk);
        reader.take(HEAD_BYTES)?;
        let token = reader.u32()?;
        self.before.take_if(|(_, until)| *until < now);
        let before = self.before.as_ref().map(|(held, _)| held);
        let held = self.current.iter().chain(before).find(|held| held.token == token);
        let opened = pair.unwrap(&held.ok_or(SecurityError::Token(token))?.theirs, chunk)?;
        self.follows(opened.sequence)?;
        Ok(opened)
    }

    /// Whether a chunk is the one after the last; from now on it is the last itself.
    pub(super) fn follows(&mut self, found: u32) -> Result<(), SecurityError> {
        if let Some(last) = self.last {
            let begins_anew = last >= SEQUENCE_WRAPS && found < SEQUENCE_BEGINS;
            if last.checked_add(1) != Some(found) && !begins_anew {
                return Err(SecurityError::Sequence { last, found });
            }
        }
        self.last = Some(found);
        Ok(())
    }
}

#[cfg(test)]
#[path = "tests/security.rs"]
mod tests;
