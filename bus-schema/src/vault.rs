//! Bytes that only their owner can read again: XChaCha20-Poly1305 under a key derived from the member's own secrets.
//!
//! ```text
//! sealed = nonce (24) ‖ ciphertext ‖ tag (16)          associated data: what the bytes are
//! ```

use alloc::vec::Vec;

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305,
    aead::{Aead, Payload},
};
use zeroize::Zeroizing;

use crate::{envelope::NONCE_BYTES, key::Identity};

/// Encrypts. `nonce` must be fresh random bytes; `what` says what the bytes are, so that one kind cannot be put in the place
/// of another. `None` when there is more than the cipher can take (256 GiB).
pub fn seal(owner: &Identity, what: &str, nonce: [u8; NONCE_BYTES], plaintext: &[u8]) -> Option<Vec<u8>> {
    let payload = Payload {
        msg: plaintext,
        aad: what.as_bytes(),
    };
    let sealed = XChaCha20Poly1305::new(owner.vault_key().expose().into())
        .encrypt((&nonce).into(), payload)
        .ok()?;
    Some([&nonce[..], &sealed].concat())
}

/// Decrypts. `None` when the bytes are not what `owner` sealed as `what`.
pub fn open(owner: &Identity, what: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>()?;
    let payload = Payload {
        msg: sealed,
        aad: what.as_bytes(),
    };
    let opened = XChaCha20Poly1305::new(owner.vault_key().expose().into()).decrypt(nonce.into(), payload);
    opened.ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_opens_only_what_it_sealed() {
        let (owner, other) = (Identity::from_bytes(&[1; 64]), Identity::from_bytes(&[2; 64]));
        let sealed = seal(&owner, "secrets", [7; NONCE_BYTES], b"hunter2").unwrap();
        assert!(!sealed.windows(7).any(|part| part == b"hunter2"));
        assert_eq!(open(&owner, "secrets", &sealed).unwrap().as_slice(), b"hunter2");
        assert!(open(&other, "secrets", &sealed).is_none());
        assert!(open(&owner, "something else", &sealed).is_none());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(open(&owner, "secrets", &changed).is_none(), "byte {at}");
            assert!(open(&owner, "secrets", &sealed[..at]).is_none(), "cut at {at}");
        }
    }
}
