//! Vectors of the standards, and both sides of a channel that take what the other has made, and nothing that was changed.

use std::{path::Path, sync::LazyLock, time::SystemTime};

use proptest::prelude::*;
use testkit::CertFiles;

use super::{super::certificate::Trust, *};

fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

/// A certificate of this many bits, with its key.
fn own(dir: &Path, bits: u32) -> Arc<Own> {
    let CertFiles { cert, key } = testkit::rsa_certificate(dir, &format!("k{bits}"), bits, "urn:test");
    Arc::new(Own::load(&cert, &key, SystemTime::now()).unwrap())
}

/// Keys whose sizes are padded each in its own way.
static OWN: LazyLock<[Arc<Own>; 2]> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    [own(dir.path(), 2048), own(dir.path(), 3072)]
});

fn known(own: &Own) -> Known {
    let trust = Trust {
        fingerprints: vec![Sha256::digest(&own.certificate).into()],
    };
    Known::met(&own.certificate, &trust, SystemTime::now()).unwrap()
}

/// Both sides.
fn pairs(policy: &'static Policy, mode: Mode, long_first: bool) -> (Pair, Pair) {
    let [a, b] = &*OWN;
    let (a, b) = if long_first { (b, a) } else { (a, b) };
    let pair = |own: &Arc<Own>, other: &Own| Pair {
        policy,
        mode,
        own: Arc::clone(own),
        other: known(other),
    };
    (pair(a, b), pair(b, a))
}

const HEAD: Head = Head {
    ty: *b"MSG",
    mark: b'F',
    channel: 7,
    sequence: 51,
    request: 3,
};

/// The vector that came with the function's proposal for TLS 1.2.
#[test]
fn keys_are_derived_as_tls_does() {
    let secret = hex("9bbe436ba940f017b17652849a71db35");
    let seed = [&b"test label"[..], &hex("a0ba9f936cda311827a6f796ffd5198c")].concat();
    let wanted = hex(
        "e3f229ba727be17b8d122620557cd453c2aab21d07c3d495329b52d4e61edb5a6b301791e90d35c9c9a46b4e14baf9af0fa022f7077def17
         abfd3797c0564bab4fbc91666e9def9b97fce34f796789baa48082d122ee42c5a72e5a5110fff70187347b66",
    );
    assert_eq!(*derived(&secret, &seed, 100), wanted);
    assert_eq!(*derived(&secret, &seed, 7), wanted[..7]);
}

/// NIST SP 800-38A, F.2.1 and F.2.5.
#[test]
fn aes_is_chained_as_nist_has_it() {
    let plain = hex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51");
    for (key, sealed) in [
        (
            "2b7e151628aed2a6abf7158809cf4f3c",
            "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2",
        ),
        (
            "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
            "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d",
        ),
    ] {
        let keys = Keys {
            sign: Zeroizing::new(vec![0; MAC_BYTES]),
            cipher: Zeroizing::new(hex(key)),
            start: Zeroizing::new(hex("000102030405060708090a0b0c0d0e0f")),
        };
        let mut bytes = plain.clone();
        keys.encrypt(&mut bytes).unwrap();
        assert_eq!(bytes, hex(sealed));
        keys.decrypt(&mut bytes).unwrap();
        assert_eq!(bytes, plain);
        assert!(keys.encrypt(&mut bytes[1..]).is_err() && keys.decrypt(&mut bytes[1..]).is_err());
    }
}

#[test]
fn a_channel_is_opened_by_the_right_ones_only() {
    let head = Head { ty: *b"OPN", ..HEAD };
    for policy in POLICIES {
        for long_first in [false, true] {
            let (ours, theirs) = pairs(policy, Mode::Sign, long_first);
            for bytes in [0, 1, 150, 180, 500] {
                let content = vec![0xa5; bytes];
                let mut chunk = ours.wrap_open(head, &content).unwrap();
                let size = u32::from_le_bytes(*chunk[4..].first_chunk().unwrap());
                assert_eq!(size as usize, chunk.len(), "{}", policy.name);
                let opened = theirs.unwrap_open(&chunk).unwrap();
                assert_eq!((opened.sequence, opened.request, opened.content), (51, 3, content));
                // Not by whom it was made, nor by somebody with another policy.
                assert!(ours.unwrap_open(&chunk).is_err());
                let another = POLICIES.iter().find(|other| *other != policy).unwrap();
                let (_, another) = pairs(another, Mode::Sign, long_first);
                assert_eq!(another.unwrap_open(&chunk), Err(SecurityError::Other("a policy")));
                // Changed anywhere: in its head, its certificate, what is encrypted.
                for at in [8, 40, chunk.len() / 2, chunk.len() - 1] {
                    chunk[at] ^= 1;
                    assert!(theirs.unwrap_open(&chunk).is_err(), "{} {at}", policy.name);
                    chunk[at] ^= 1;
                }
                chunk.truncate(chunk.len() - 1);
                assert!(theirs.unwrap_open(&chunk).is_err());
            }
        }
    }
}

#[test]
fn a_password_is_for_the_server_and_one_session() {
    for policy in POLICIES {
        let (_, theirs) = pairs(policy, Mode::None, true);
        let server = known(&theirs.own);
        for password in ["", "secret", &"long ".repeat(200)] {
            let sealed = policy.password(&server, password.as_bytes(), &[9; 32]).unwrap();
            let plain = policy.decrypt(&theirs.own.key, &sealed).unwrap();
            let (length, rest) = plain.split_first_chunk().unwrap();
            assert_eq!(u32::from_le_bytes(*length) as usize, rest.len());
            assert_eq!(rest, [password.as_bytes(), &[9; 32]].concat());
        }
    }
}

#[test]
fn keys_hold_for_a_while_and_chunks_have_their_order() {
    let (ours, theirs) = pairs(&POLICIES[1], Mode::SignAndEncrypt, false);
    let sent = |ring: &Ring<u32>, sequence| ring.wrap(&theirs, Head { sequence, ..HEAD }, b"x").unwrap();
    // What the server has, with the first and with the second keys.
    let mut rings = [Ring::<u32>::new(), Ring::new()];
    let mut ring = Ring::new();
    for (at, token) in [(0, 13), (1, 14)] {
        let nonces = ([token as u8; 32], [at as u8 + 100; 32]);
        rings[at].renew(token, theirs.keys(&nonces.1, &nonces.0), 0);
        if at == 0 {
            assert_eq!(
                ring.unwrap(&ours, &sent(&rings[0], 1), 5),
                Err(SecurityError::Token(13))
            );
        }
        ring.renew(token, ours.keys(&nonces.0, &nonces.1), 100);
    }
    assert!(ring.unwrap(&ours, &sent(&rings[0], 5), 50).is_ok());
    assert!(ring.unwrap(&ours, &sent(&rings[1], 6), 50).is_ok());
    // Repeated, and left out.
    for found in [6, 8, 0] {
        let wrong = ring.unwrap(&ours, &sent(&rings[1], found), 50);
        assert_eq!(wrong, Err(SecurityError::Sequence { last: 6, found }));
    }
    assert!(ring.unwrap(&ours, &sent(&rings[0], 7), 100).is_ok());
    assert_eq!(
        ring.unwrap(&ours, &sent(&rings[0], 8), 101),
        Err(SecurityError::Token(13))
    );
    assert!(ring.unwrap(&ours, &sent(&rings[1], 8), 101).is_ok());
    // They begin anew at the end only.
    for (last, found, follows) in [
        (u32::MAX, 1, true),
        (u32::MAX - 1024, 1023, true),
        (u32::MAX - 1024, 1024, false),
        (u32::MAX - 1025, 1, false),
        (u32::MAX, 0, true),
    ] {
        ring.last = Some(last);
        assert_eq!(ring.follows(found).is_ok(), follows, "{last} {found}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_message_is_taken_as_it_was_and_in_no_other_way(
        content in proptest::collection::vec(any::<u8>(), 0..300),
        (policy, encrypted) in (0..POLICIES.len(), any::<bool>()),
        bit in any::<prop::sample::Index>(),
    ) {
        let mode = if encrypted { Mode::SignAndEncrypt } else { Mode::Sign };
        let (ours, theirs) = pairs(&POLICIES[policy], mode, false);
        let (sends, _) = ours.keys(&[1; 32], &[2; 32]);
        let (back, takes) = theirs.keys(&[2; 32], &[1; 32]);
        let mut chunk = ours.wrap(&sends, 13, HEAD, &content).unwrap();
        // Everybody can read it, or nobody.
        let begins = content.get(..9).is_some_and(|begin| chunk.windows(9).any(|part| part == begin));
        prop_assert_eq!(begins, !encrypted && content.len() >= 9);
        let opened = theirs.unwrap(&takes, &chunk).unwrap();
        prop_assert_eq!((opened.sequence, opened.request, &opened.content), (51, 3, &content));
        // Sent back to whom it is from.
        prop_assert!(theirs.unwrap(&back, &chunk).is_err());
        let bit = bit.index(chunk.len() * 8);
        chunk[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(theirs.unwrap(&takes, &chunk).is_err());
    }

    #[test]
    fn a_chunk_is_as_large_as_it_may_be_and_no_larger(chunk_bytes in 8192_usize..8300, encrypted in any::<bool>()) {
        let mode = if encrypted { Mode::SignAndEncrypt } else { Mode::Sign };
        let (ours, _) = pairs(&POLICIES[0], mode, false);
        let (keys, _) = ours.keys(&[1; 32], &[2; 32]);
        let fits = ours.content_bytes(chunk_bytes);
        prop_assert!(ours.wrap(&keys, 1, HEAD, &vec![0; fits]).unwrap().len() <= chunk_bytes);
        prop_assert!(ours.wrap(&keys, 1, HEAD, &vec![0; fits + 1]).unwrap().len() > chunk_bytes);
    }

    /// Whatever a server sends: no panic.
    #[test]
    fn anything_may_come(bytes in proptest::collection::vec(any::<u8>(), 0..600), encrypted in any::<bool>()) {
        let mode = if encrypted { Mode::SignAndEncrypt } else { Mode::Sign };
        let (ours, _) = pairs(&POLICIES[1], mode, false);
        let (keys, _) = ours.keys(&[1; 32], &[2; 32]);
        prop_assert!(ours.unwrap(&keys, &bytes).is_err());
        prop_assert!(ours.unwrap_open(&bytes).is_err());
        let _ = unpadded(&bytes, encrypted);
    }
}
