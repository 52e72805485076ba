//! Sealed frames as a broker may hand them over.

use bus_schema::{
    envelope::{Envelope, Header, Lock, NONCE_BYTES, SUITE, VERSION, seal},
    id::FleetId,
    key::Identity,
    message::Body,
    subject::{self, Subject},
};

fn identity(n: u8) -> Identity {
    Identity::from_bytes(&[n; Identity::BYTES])
}

fn subject() -> Subject {
    let (sender, recipient) = (identity(10).public().node_id(), identity(20).public().node_id());
    subject::control(&FleetId::from_hash(&[1; 32]), &sender, &recipient)
}

/// The first byte says whether the rest is a frame, or a plaintext to be sealed, changed and opened.
pub fn feed(data: &[u8]) {
    match data.split_first() {
        Some((0, frame)) => open(frame),
        Some((change, plaintext)) => round_trip(*change, plaintext),
        None => {}
    }
}

fn open(frame: &[u8]) {
    let Ok(envelope) = Envelope::parse(frame) else { return };
    let (sender, recipient) = (identity(10), identity(20));
    let subject = subject();
    let _ = envelope.header().clone();
    let nodes = (sender.public().node_id(), recipient.public().node_id());
    if let Some(key) = sender.pair_key(&recipient.public(), &nodes.0, &nodes.1)
        && let Ok(plaintext) = envelope.open_unverified(&subject, &key)
    {
        let _ = Body::decode(&plaintext);
    }
    let keys = |plaintext: &[u8]| Some((bus_schema::decode(plaintext)?, ()));
    if let Ok(envelope) = Envelope::parse(frame) {
        let _ = envelope.open_box(&subject, &recipient, keys);
    }
    let _ = envelope.verify(&subject, &sender.public());
}

fn round_trip(change: u8, plaintext: &[u8]) {
    let (sender, recipient) = (identity(10), identity(20));
    let (from, to) = (sender.public().node_id(), recipient.public().node_id());
    let Some(key) = sender.pair_key(&recipient.public(), &from, &to) else {
        return;
    };
    let number = |at: usize| plaintext.get(at).copied().map_or(0, u64::from);
    let header = Header {
        version: VERSION,
        suite: SUITE,
        lock: Lock::Pair { recipient: to },
        sender: from,
        key_epoch: number(0) as u32,
        epoch: number(1) << 40,
        counter: number(2) << 20,
        nonce: [change; NONCE_BYTES],
    };
    let Ok(mut frame) = seal(&subject(), &header, &key, &sender, plaintext) else {
        return;
    };
    let opened = |frame: &[u8]| {
        let verified = Envelope::parse(frame).ok()?.verify(&subject(), &sender.public()).ok()?;
        verified.open(&key).ok()
    };
    assert_eq!(opened(&frame).as_deref(), Some(plaintext), "what was sealed opens");
    let at = usize::from(change) * frame.len() / 256;
    frame[at] ^= change;
    assert_eq!(opened(&frame), None, "byte {at} was changed");
}
