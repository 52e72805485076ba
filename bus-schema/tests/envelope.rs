//! The envelope holds: what is sealed opens for whom it is meant, and nothing else is believed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use bus_schema::{
    decode, encode,
    envelope::{Envelope, EnvelopeError, Header, Lock, NONCE_BYTES, SUITE, VERSION, seal, seal_box},
    key::{Identity, PublicKeys, SecretKey},
    limits::{FRAME_BYTES_MAX, PAYLOAD_BYTES_MAX},
    subject::{self, Subject},
};
use common::{fleet, identity, node, stream};
use proptest::prelude::*;

fn header(lock: Lock) -> Header {
    Header {
        version: VERSION,
        suite: SUITE,
        lock,
        sender: node(10),
        key_epoch: 0,
        epoch: 1,
        counter: 2,
        nonce: [9; NONCE_BYTES],
    }
}

fn to_20() -> Header {
    header(Lock::Pair { recipient: node(20) })
}

fn control() -> Subject {
    subject::control(&fleet(), &node(10), &node(20))
}

/// Reads a frame as its recipient would: shape, signature, then contents.
fn read(frame: &[u8], subject: &Subject, sender: &PublicKeys, key: &SecretKey) -> Result<Vec<u8>, EnvelopeError> {
    Envelope::parse(frame)?.verify(subject, sender)?.open(key)
}

fn lock() -> impl Strategy<Value = Lock> {
    prop_oneof![
        Just(Lock::Pair { recipient: node(20) }),
        Just(Lock::Stream { stream: stream() }),
        any::<u32>().prop_map(|key_epoch| Lock::Group { key_epoch }),
        any::<[u8; 32]>().prop_map(|ephemeral| Lock::Box { ephemeral }),
    ]
}

proptest! {
    #[test]
    fn what_is_sealed_opens(
        (lock, key) in (lock(), any::<[u8; 32]>()),
        (key_epoch, epoch, counter) in any::<(u32, u64, u64)>(),
        nonce in any::<[u8; NONCE_BYTES]>(),
        payload in prop::collection::vec(any::<u8>(), 0..2_000),
    ) {
        let (sender, key) = (identity(10), SecretKey::new(key));
        let header = Header { key_epoch, epoch, counter, nonce, ..header(lock) };
        let frame = seal(&control(), &header, &key, &sender, &payload).unwrap();
        let envelope = Envelope::parse(&frame).unwrap();
        prop_assert_eq!(envelope.header(), &header);
        prop_assert_eq!(envelope.open_unverified(&control(), &key).unwrap(), payload.clone());
        let verified = envelope.verify(&control(), &sender.public()).unwrap();
        prop_assert_eq!(verified.header(), &header);
        prop_assert_eq!(verified.open(&key).unwrap(), payload);
    }

    #[test]
    fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400), start in 0usize..3) {
        // With the right version and suite in front, noise gets deeper.
        let bytes = [&[VERSION, SUITE][..start.min(2)], &bytes].concat();
        let key = SecretKey::new([7; 32]);
        prop_assert!(read(&bytes, &control(), &identity(10).public(), &key).is_err());
        if let Ok(envelope) = Envelope::parse(&bytes) {
            let keys = |_: &[u8]| Some((identity(10).public(), ()));
            prop_assert!(envelope.open_box(&control(), &identity(20), keys).is_err());
        }
    }

    #[test]
    fn several_changes_at_once_are_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..5),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let (sender, key) = (identity(10), SecretKey::new([7; 32]));
        let good = seal(&control(), &to_20(), &key, &sender, b"payload").unwrap();
        let mut frame = good.clone();
        for (at, mask) in &changes {
            let at = at.index(frame.len());
            frame[at] ^= mask;
        }
        if let Some(cut) = cut {
            frame.truncate(cut.index(frame.len()));
        }
        // Two changes of one byte may undo each other.
        prop_assume!(frame != good);
        prop_assert!(read(&frame, &control(), &sender.public(), &key).is_err());
    }
}

#[test]
fn any_byte_flipped_is_refused() {
    let (sender, key) = (identity(10), SecretKey::new([7; 32]));
    for lock in [
        Lock::Pair { recipient: node(20) },
        Lock::Stream { stream: stream() },
        Lock::Group { key_epoch: 5 },
        Lock::Box { ephemeral: [3; 32] },
    ] {
        let header = header(lock);
        let good = seal(&control(), &header, &key, &sender, b"payload").unwrap();
        let header_len = encode(&header).len();
        for at in 0..good.len() {
            for mask in [0x01, 0x80, 0xff] {
                let mut frame = good.clone();
                frame[at] ^= mask;
                let refused = read(&frame, &control(), &sender.public(), &key);
                assert!(
                    refused.is_err(),
                    "byte {at} ^ {mask:#04x} of {:?} was believed",
                    header.lock
                );
                // The tag alone keeps header and contents whole, too.
                if let Ok(envelope) = Envelope::parse(&frame)
                    && at < good.len() - 64
                {
                    let opened = envelope.open_unverified(&control(), &key);
                    assert!(
                        opened.is_err(),
                        "byte {at} (header: {header_len}) opens without the signature"
                    );
                }
            }
        }
        for len in 0..good.len() {
            assert!(
                read(&good[..len], &control(), &sender.public(), &key).is_err(),
                "cut to {len} bytes"
            );
        }
        let longer = [good.as_slice(), &[0]].concat();
        assert!(read(&longer, &control(), &sender.public(), &key).is_err());
    }
}

#[test]
fn another_subject_is_refused() {
    let (sender, key) = (identity(10), SecretKey::new([7; 32]));
    let frame = seal(&control(), &to_20(), &key, &sender, b"payload").unwrap();
    let text = control().as_str().to_string();
    let mut tried = 0;
    for at in 0..text.len() {
        for letter in ['a', 'z', '7', '-', '.'] {
            let moved = format!("{}{letter}{}", &text[..at], &text[at + 1..]);
            let Ok(moved) = Subject::parse(&moved) else { continue };
            if moved == control() {
                continue;
            }
            tried += 1;
            let refused = read(&frame, &moved, &sender.public(), &key);
            assert_eq!(refused, Err(EnvelopeError::Signature { sender: node(10) }), "{moved}");
            let opened = Envelope::parse(&frame).unwrap().open_unverified(&moved, &key);
            assert_eq!(opened, Err(EnvelopeError::Key { sender: node(10) }), "{moved}");
        }
    }
    assert!(tried > 3 * text.len(), "hardly any subject was tried");
}

#[test]
fn errors_say_what_is_wrong() {
    let (sender, key) = (identity(10), SecretKey::new([7; 32]));
    let good = seal(&control(), &to_20(), &key, &sender, b"payload").unwrap();
    let with = |at: usize, byte: u8| {
        let mut frame = good.clone();
        frame[at] = byte;
        frame
    };
    let unsupported = |version, suite| Err(EnvelopeError::Unsupported { version, suite });
    for (frame, expected) in [
        (Vec::new(), Err(EnvelopeError::Malformed("too short for a signature"))),
        (
            vec![0; FRAME_BYTES_MAX + 1],
            Err(EnvelopeError::Malformed("longer than a frame may be")),
        ),
        (with(0, 2), unsupported(2, SUITE)),
        (with(1, 9), unsupported(VERSION, 9)),
        (with(2, 0x7f), Err(EnvelopeError::Malformed("header"))),
        (good.clone(), Ok(b"payload".to_vec())),
    ] {
        assert_eq!(read(&frame, &control(), &sender.public(), &key), expected);
    }
    let other = SecretKey::new([8; 32]);
    assert_eq!(
        read(&good, &control(), &sender.public(), &other),
        Err(EnvelopeError::Key { sender: node(10) })
    );
    assert_eq!(
        read(&good, &control(), &identity(11).public(), &key),
        Err(EnvelopeError::Signature { sender: node(10) })
    );
}

#[test]
fn a_payload_has_a_limit_and_its_frame_fits() {
    let (sender, key) = (identity(10), SecretKey::new([7; 32]));
    let seal = |bytes: usize| seal(&control(), &to_20(), &key, &sender, &vec![1; bytes]);
    let largest = seal(PAYLOAD_BYTES_MAX).unwrap();
    assert!(largest.len() <= FRAME_BYTES_MAX);
    assert_eq!(
        read(&largest, &control(), &sender.public(), &key).unwrap().len(),
        PAYLOAD_BYTES_MAX
    );
    let bytes = PAYLOAD_BYTES_MAX + 1;
    assert_eq!(seal(bytes), Err(EnvelopeError::TooLarge { bytes }));
}

#[test]
fn two_members_share_a_key_for_each_direction() {
    let [a, b, c] = [10, 20, 30].map(identity);
    let (id_a, id_b, id_c) = (node(10), node(20), node(30));
    let forth = a.pair_key(&b.public(), &id_a, &id_b).unwrap();
    let back = a.pair_key(&b.public(), &id_b, &id_a).unwrap();
    assert_eq!(b.pair_key(&a.public(), &id_a, &id_b), Some(forth.clone()));
    assert_eq!(b.pair_key(&a.public(), &id_b, &id_a), Some(back.clone()));
    assert_ne!(forth, back);
    assert_ne!(c.pair_key(&b.public(), &id_a, &id_b), Some(forth.clone()));
    assert_ne!(a.pair_key(&c.public(), &id_a, &id_c), Some(forth));
    // A point of small order would make a key that everybody knows.
    for weak in [[0; 32], core::array::from_fn(|at| u8::from(at == 0))] {
        let keys = PublicKeys {
            seal: weak,
            ..b.public()
        };
        assert_eq!(a.pair_key(&keys, &id_a, &id_b), None);
    }
}

/// A sealed box as a candidate makes it: signed and sealed by keys that only its contents name.
fn boxed(signer: &Identity, claimed: &Identity, named: PublicKeys, recipient: &PublicKeys) -> Vec<u8> {
    let (lock, key) = seal_box(recipient, [0x42; 32]).unwrap();
    let header = Header {
        sender: claimed.public().node_id(),
        ..header(lock)
    };
    seal(&control(), &header, &key, signer, &encode(&(named, 77u8))).unwrap()
}

fn unbox(frame: &[u8], recipient: &Identity) -> Result<(PublicKeys, u8), EnvelopeError> {
    Envelope::parse(frame)?.open_box(&control(), recipient, decode::<(PublicKeys, u8)>)
}

#[test]
fn a_sealed_box_opens_for_its_recipient_only() {
    let [candidate, plane, other] = [10, 30, 40].map(identity);
    let keys = candidate.public();
    let good = boxed(&candidate, &candidate, keys, &plane.public());
    assert_eq!(unbox(&good, &plane), Ok((keys, 77)));
    let closed = Err(EnvelopeError::Key { sender: node(10) });
    assert_eq!(unbox(&good, &other), closed);
    assert_eq!(unbox(&good, &candidate), closed);

    // The id in the header, the keys inside and the signature must be one and the same member's.
    let forged = |sender| Err(EnvelopeError::Signature { sender: node(sender) });
    assert_eq!(
        unbox(&boxed(&other, &candidate, keys, &plane.public()), &plane),
        forged(10)
    );
    assert_eq!(
        unbox(&boxed(&other, &candidate, other.public(), &plane.public()), &plane),
        forged(10)
    );
    assert_eq!(
        unbox(&boxed(&candidate, &other, keys, &plane.public()), &plane),
        forged(40)
    );

    // Nor does a box open that lies about being one, is empty, or was meant for another subject.
    let key = SecretKey::new([7; 32]);
    let pair = seal(&control(), &to_20(), &key, &candidate, b"x").unwrap();
    assert_eq!(unbox(&pair, &plane), Err(EnvelopeError::Malformed("not a sealed box")));
    let (lock, key) = seal_box(&plane.public(), [0x42; 32]).unwrap();
    let noise = seal(&control(), &header(lock), &key, &candidate, b"noise").unwrap();
    assert_eq!(unbox(&noise, &plane), Err(EnvelopeError::Malformed("sealed box")));
    let elsewhere = Subject::parse("a.b").unwrap();
    let moved = Envelope::parse(&good)
        .unwrap()
        .open_box(&elsewhere, &plane, decode::<(PublicKeys, u8)>);
    assert_eq!(moved, closed);
    assert!(seal_box(&PublicKeys { seal: [0; 32], ..keys }, [1; 32]).is_none());
}

#[test]
fn secrets_do_not_print() {
    let shown = format!(
        "{:?} {:?} {:?}",
        SecretKey::new([7; 32]),
        identity(10),
        common::invitation()
    );
    assert!(shown.starts_with("[redacted] Identity"), "{shown}");
    assert!(!shown.contains("pass"), "{shown}");
    assert_eq!(
        Identity::from_bytes(&identity(10).to_bytes()).public(),
        identity(10).public()
    );
}
