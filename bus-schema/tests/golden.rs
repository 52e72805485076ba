//! Golden bytes: what is on the wire stays as it is. `golden.txt` holds the bytes of a sample of everything.
//!
//! A version's layout is frozen: a change is a new version beside it, with bytes of its own. `UPDATE=1 cargo test -p
//! bus-schema --test golden` adds the bytes of samples that are new; it never changes those that are there.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{collections::BTreeMap, fmt::Write as _, fs, path::PathBuf};

use bus_schema::{
    envelope::{Envelope, Header, Lock, NONCE_BYTES, SUITE, VERSION, seal},
    member::{Invitation, Signed},
    message::CATALOG,
    piece::Piece,
    subject,
};
use common::{Sample, all, fleet, hex, identity, invitation, node, unhex};

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden.txt")
}

fn golden() -> BTreeMap<String, Vec<u8>> {
    let text = fs::read_to_string(path()).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| line.split_once(" = ").unwrap())
        .map(|(name, bytes)| (name.to_string(), unhex(bytes)))
        .collect()
}

/// A whole frame as it is handed to the broker.
fn frame() -> Vec<u8> {
    let (sender, recipient) = (identity(10), identity(20));
    let header = Header {
        version: VERSION,
        suite: SUITE,
        lock: Lock::Pair { recipient: node(20) },
        sender: node(10),
        key_epoch: 3,
        epoch: 9,
        counter: 1_001,
        nonce: [0x24; NONCE_BYTES],
    };
    let key = sender.pair_key(&recipient.public(), &node(10), &node(20)).unwrap();
    let subject = subject::control(&fleet(), &node(10), &node(20));
    seal(&subject, &header, &key, &sender, b"for your eyes only").unwrap()
}

fn samples() -> Vec<Sample> {
    let mut samples = all();
    let read = |bytes: &[u8]| {
        let key = identity(20).pair_key(&identity(10).public(), &node(10), &node(20))?;
        let subject = subject::control(&fleet(), &node(10), &node(20));
        let verified = Envelope::parse(bytes)
            .ok()?
            .verify(&subject, &identity(10).public())
            .ok()?;
        Some(verified.open(&key).ok()? == b"for your eyes only")
    };
    samples.push(Sample {
        name: "sealed envelope".into(),
        bytes: frame(),
        read: Box::new(read),
    });
    let piece = Piece {
        epoch: 9,
        seq: 1_001,
        total: 70_000,
        offset: 4_096,
        bytes: &[1, 2, 3],
    };
    samples.push(Sample {
        name: "piece of a frame".into(),
        bytes: piece.encode(),
        read: Box::new(move |bytes| Some(Piece::decode(bytes)? == piece)),
    });
    let read = |bytes: &[u8]| {
        let text = core::str::from_utf8(bytes).ok()?;
        Some(Invitation::decode(text).ok()? == invitation())
    };
    let text = invitation().encode().into_bytes();
    samples.push(Sample {
        name: "invitation text".into(),
        bytes: text,
        read: Box::new(read),
    });
    samples
}

#[test]
fn the_wire_stays_as_it_is() {
    let known = golden();
    let (mut wrong, mut new) = (String::new(), String::new());
    let mut names = Vec::new();
    for sample in samples() {
        assert!(
            !names.contains(&sample.name),
            "two samples are called '{}'",
            sample.name
        );
        match known.get(&sample.name) {
            None => writeln!(new, "{} = {}", sample.name, hex(&sample.bytes)).unwrap(),
            Some(golden) if *golden != sample.bytes => {
                writeln!(
                    wrong,
                    "{}\n  was {}\n  now {}",
                    sample.name,
                    hex(golden),
                    hex(&sample.bytes)
                )
                .unwrap();
            }
            Some(golden) if (sample.read)(golden) != Some(true) => {
                writeln!(wrong, "{}: does not read back as it was", sample.name).unwrap();
            }
            Some(_) => {}
        }
        names.push(sample.name);
    }
    for name in known.keys().filter(|name| !names.contains(name)) {
        writeln!(wrong, "{name}: the bytes have no sample any more").unwrap();
    }
    assert!(wrong.is_empty(), "the layout of a frozen version has changed:\n{wrong}");
    if std::env::var_os("UPDATE").is_some() {
        let text = fs::read_to_string(path()).unwrap_or_default();
        fs::write(path(), text + &new).unwrap();
    } else {
        assert!(
            new.is_empty(),
            "without golden bytes, see the head of this file:\n{new}"
        );
    }
}

#[test]
fn every_message_has_a_sample() {
    let samples = samples();
    for (kind, ver, name) in CATALOG {
        let start = format!("message {kind}.{ver} {name}");
        let found = samples
            .iter()
            .any(|sample| sample.name == start || sample.name.starts_with(&format!("{start} ")));
        assert!(
            found,
            "add a sample of {name} (kind {kind}, version {ver}) to tests/common/messages.rs"
        );
    }
}

/// Whatever is added to a message without a new version is seen at the other end.
#[test]
fn left_over_bytes_are_refused() {
    for sample in samples() {
        let longer = [sample.bytes.as_slice(), &[0]].concat();
        assert_eq!((sample.read)(&longer), None, "{}", sample.name);
    }
}

/// A signature holds for the bytes as they were signed, not for what they are turned into.
#[test]
fn golden_documents_are_signed() {
    let golden = golden();
    let of = |name: &str| {
        golden
            .get(name)
            .unwrap_or_else(|| panic!("no golden '{name}'"))
            .as_slice()
    };
    let roster: Signed<bus_schema::member::Roster> = bus_schema::decode(of("signed roster")).unwrap();
    assert_eq!(roster.open(&common::root().public().sign).unwrap(), common::roster());
    assert_eq!(roster.bytes(), of("roster"));
    let plan: Signed<bus_schema::plan::Plan> = bus_schema::decode(of("signed plan")).unwrap();
    assert_eq!(plan.open(&identity(30).public().sign).unwrap(), common::plan());
    assert!(plan.open(&common::root().public().sign).is_err());
}

/// The front page of the crate is the index of messages: it names each one, with its number.
#[test]
fn the_front_page_names_every_message() {
    let page = include_str!("../src/lib.rs");
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("//! |")).collect();
    for (kind, ver, name) in CATALOG {
        let (start, end) = (format!("[`{name}`]("), format!("::{name}) {kind}.{ver} |"));
        let is_listed = rows.iter().any(|row| row.contains(&start) && row.contains(&end));
        assert!(is_listed, "the table in src/lib.rs lacks {name}, {kind}.{ver}");
    }
    let numbers: Vec<(u16, u8)> = CATALOG.iter().map(|(kind, ver, _)| (*kind, *ver)).collect();
    assert!(
        numbers.windows(2).all(|pair| pair[0] < pair[1]),
        "kinds and versions go up and are never used twice"
    );
}
