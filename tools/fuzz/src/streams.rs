//! What a producer may send: frames that are genuine and mean nonsense, in any order.

use std::time::Instant;

use bus_schema::{
    data::Batch,
    id::StreamId,
    key::SecretKey,
    message::{SourceMark, StreamOpen},
};
use stream::{
    frames::{self, Assembly, body, pack, read},
    standing::{Place, Standing},
};

/// The first byte says whether the rest is a batch to be packed, or plaintexts of frames, each after its length.
pub fn feed(data: &[u8]) {
    match data.split_first() {
        Some((0, rest)) => packed(rest),
        Some((_, rest)) => arrives(rest),
        None => {}
    }
}

/// A batch comes out as it went in.
fn packed(data: &[u8]) {
    let Ok(batch) = Batch::decode(data) else { return };
    let mark = SourceMark {
        root_seq: 7,
        position: vec![1, 2, 3],
    };
    let packing = pack(&batch, &mark, usize::MAX);
    assert!(packing.too_large.is_empty(), "it came in, so it fits");
    let mut assembly = Assembly::default();
    let mut rows = 0;
    for plain in &packing.frames {
        let frame = read(&plain.plaintext).expect("what was packed reads back");
        if let Some(arrived) = assembly.take(frame).expect("what was packed is a batch") {
            rows += arrived.batch.rows();
        }
    }
    assert_eq!(rows, batch.rows());
}

/// Frames are taken once and in order, whatever they say of themselves.
fn arrives(mut data: &[u8]) {
    let mut standing = Standing::default();
    let mut assembly = Assembly::default();
    standing.resume(Place::default());
    standing.open(&StreamOpen {
        stream: StreamId::from_hash(&[1; 32]),
        epoch: 1,
        key: SecretKey::new([1; 32]),
        first_seq: 1,
        next_seq: 1,
        clocks: Vec::new(),
    });
    let now = Instant::now();
    let mut last = 0;
    while let [jump, low, high, rest @ ..] = data {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (plaintext, next) = rest.split_at(length);
        data = next;
        let Ok(frame) = frames::read(plaintext) else { continue };
        assert!(read(&body(&frame)).is_ok(), "what was read can be written");
        standing.frame(1, standing.received() + u64::from(*jump % 4), 0, frame, now);
        while let Some(taken) = standing.take() {
            assert!(taken.seq > last, "{} after {last}", taken.seq);
            last = taken.seq;
            let _ = assembly.take(taken.frame);
        }
    }
}
