//! Batches to wire bytes and back: encoding, compression, sealing.

use std::{hint::black_box, path::Path};

use anyhow::{Context as _, Result};
use bus_schema::{
    data::Batch,
    envelope::{Envelope, Header, Lock, NONCE_BYTES, SUITE, VERSION, seal},
    id::{FleetId, StreamId, WorkflowId},
    key::{Identity, SecretKey},
    limits::{BATCH_BYTES_TARGET, RECORD_BYTES_MAX},
    message::{Codec, Packed, SourceMark},
    subject::{self, Subject},
};
use stream::{
    compression::{compress, unpack},
    frames,
};

use crate::{
    Body, Case, SPREAD_PERCENT,
    data::{self, Noise},
};

/// The cases.
pub const CASES: &[Case] = &[
    Case {
        name: "batch_encode_table",
        iteration: "a batch of 1,000 table rows",
        iterations: 40,
        spread_percent: SPREAD_PERCENT,
        main_thread_only: false,
        prepare: |_| encode(data::table()?),
    },
    Case {
        name: "batch_decode_table",
        iteration: "a batch of 1,000 table rows",
        iterations: 40,
        spread_percent: SPREAD_PERCENT,
        main_thread_only: false,
        prepare: |_| decode(&data::table()?),
    },
    Case {
        name: "batch_encode_records",
        iteration: "a batch of 270 JSON records",
        iterations: 100,
        spread_percent: SPREAD_PERCENT,
        main_thread_only: false,
        prepare: |_| encode(data::records()?),
    },
    Case {
        name: "batch_decode_records",
        iteration: "a batch of 270 JSON records",
        iterations: 100,
        spread_percent: SPREAD_PERCENT,
        main_thread_only: false,
        prepare: |_| decode(&data::records()?),
    },
    Case {
        name: "compress",
        iteration: "an encoded batch of 1,000 table rows",
        iterations: 10,
        spread_percent: SPREAD_PERCENT,
        main_thread_only: false,
        prepare: compressing,
    },
    Case {
        name: "decompress",
        iteration: "an encoded batch of 1,000 table rows",
        iterations: 20,
        spread_percent: SPREAD_PERCENT,
        main_thread_only: false,
        prepare: decompressing,
    },
    Case {
        name: "frames_pack",
        iteration: "a batch of 1,000 table rows to frames",
        iterations: 40,
        spread_percent: SPREAD_PERCENT,
        main_thread_only: false,
        prepare: packing,
    },
    Case {
        name: "frames_read",
        iteration: "a frame of 1,000 table rows to a batch",
        iterations: 40,
        spread_percent: SPREAD_PERCENT,
        main_thread_only: false,
        prepare: reading,
    },
    Case {
        name: "seal",
        iteration: "a frame of 56 KB",
        iterations: 20,
        spread_percent: SPREAD_PERCENT,
        main_thread_only: false,
        prepare: sealing,
    },
    Case {
        name: "open",
        iteration: "a sealed frame of 56 KB: header, signature, plaintext",
        iterations: 20,
        spread_percent: SPREAD_PERCENT,
        main_thread_only: false,
        prepare: opening,
    },
];

fn encode(batch: Batch) -> Result<Body> {
    Ok(Box::new(move || Ok(black_box(&batch).encode().len() as u64)))
}

fn decode(batch: &Batch) -> Result<Body> {
    let bytes = batch.encode();
    Ok(Box::new(move || Ok(Batch::decode(black_box(&bytes))?.rows() as u64)))
}

fn packed() -> Result<Packed> {
    let batch = data::table()?;
    Ok(Packed {
        records: batch.rows() as u32,
        codec: Codec::Plain,
        bytes: batch.encode(),
        mark: None,
    })
}

fn compressing(_: &Path) -> Result<Body> {
    let plain = packed()?;
    Ok(Box::new(move || {
        // The copy is part of it: compressing takes the bytes' place.
        let mut packed = plain.clone();
        compress(black_box(&mut packed));
        Ok(packed.bytes.len() as u64)
    }))
}

fn decompressing(_: &Path) -> Result<Body> {
    let mut packed = packed()?;
    compress(&mut packed);
    Ok(Box::new(move || {
        Ok(unpack(packed.codec.clone(), black_box(&packed.bytes))?.len() as u64)
    }))
}

fn mark() -> SourceMark {
    SourceMark {
        root_seq: 1,
        position: b"1000".to_vec(),
    }
}

fn packing(_: &Path) -> Result<Body> {
    let (batch, mark) = (data::table()?, mark());
    Ok(Box::new(move || {
        let packing = frames::pack(black_box(&batch), &mark, RECORD_BYTES_MAX);
        Ok(packing.frames.iter().map(|plain| plain.plaintext.len() as u64).sum())
    }))
}

fn reading(_: &Path) -> Result<Body> {
    let packing = frames::pack(&data::table()?, &mark(), RECORD_BYTES_MAX);
    Ok(Box::new(move || {
        let mut assembly = frames::Assembly::default();
        let mut rows = 0;
        for plain in &packing.frames {
            if let Some(arrived) = assembly.take(frames::read(black_box(&plain.plaintext))?)? {
                rows += arrived.batch.rows() as u64;
            }
        }
        Ok(rows)
    }))
}

/// What sealing a stream's frame needs.
struct Sealer {
    subject: Subject,
    header: Header,
    key: SecretKey,
    identity: Identity,
}

impl Sealer {
    fn new() -> Self {
        let identity = Identity::from_bytes(&[3; Identity::BYTES]);
        let node = identity.public().node_id();
        let stream = StreamId::of_edge(&WorkflowId::of_name("shop"), "orders->out", &node, &node);
        Self {
            subject: subject::data(&FleetId::of_root(&[5; 32]), &node, &stream),
            header: Header {
                version: VERSION,
                suite: SUITE,
                lock: Lock::Stream { stream },
                sender: node,
                key_epoch: 1,
                epoch: 1,
                counter: 1,
                nonce: [9; NONCE_BYTES],
            },
            key: SecretKey::new([11; 32]),
            identity,
        }
    }

    fn seal(&self, plaintext: &[u8]) -> Result<Vec<u8>> {
        Ok(seal(&self.subject, &self.header, &self.key, &self.identity, plaintext)?)
    }
}

fn sealing(_: &Path) -> Result<Body> {
    let (sealer, plaintext) = (Sealer::new(), Noise::new(13).bytes(BATCH_BYTES_TARGET));
    Ok(Box::new(move || Ok(sealer.seal(black_box(&plaintext))?.len() as u64)))
}

fn opening(_: &Path) -> Result<Body> {
    let sealer = Sealer::new();
    let frame = sealer
        .seal(&Noise::new(13).bytes(BATCH_BYTES_TARGET))
        .context("cannot seal the frame to be opened")?;
    let sender = sealer.identity.public();
    Ok(Box::new(move || {
        let envelope = Envelope::parse(black_box(&frame))?;
        let verified = envelope.verify(&sealer.subject, &sender)?;
        Ok(verified.open(&sealer.key)?.len() as u64)
    }))
}
