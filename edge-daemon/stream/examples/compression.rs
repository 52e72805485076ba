//! What compression pays on the batches streams carry: `cargo run --release -p stream --example compression`.
//! Prints, for each kind of data and codec, the ratio and the speed both ways on frames of about 56 KB, one at a time.
#![allow(clippy::unwrap_used, reason = "an example may fail by panicking")]

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use bus_schema::{
    data::{Batch, BatchBuilder, Cell, Field, Op, Origin, Schema, Type},
    limits::BATCH_BYTES_TARGET,
};

/// How long each is run.
const RUN: Duration = Duration::from_millis(500);

/// A small generator of numbers that look random: the same at each run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Fills a batch up to about the size at which one is closed.
fn batch(fields: Vec<Field>, mut row: impl FnMut(u64, &mut dyn FnMut(&[Cell<'_>]))) -> Batch {
    let schema = Arc::new(Schema {
        collection: "data".into(),
        fields,
    });
    let mut rows = 64;
    loop {
        let mut builder = BatchBuilder::new(Arc::clone(&schema));
        for n in 0..rows {
            row(n, &mut |cells| builder.push(Op::Insert, cells).unwrap());
        }
        let batch = builder.finish(Origin::default());
        let bytes = batch.encode().len() as u64;
        if bytes * 10 > BATCH_BYTES_TARGET as u64 * 9 {
            return batch;
        }
        rows = (rows * BATCH_BYTES_TARGET as u64 / bytes).max(rows + 1);
    }
}

fn shop() -> Batch {
    const NAMES: [&str; 4] = ["Grüße", "東京", "naïve café", "O'Brien \"quoted\", comma"];
    let fields = vec![
        Field::new("id", Type::I64),
        Field::new("name", Type::Text),
        Field::new("price", Type::F64),
        Field::new("quantity", Type::I64),
        Field::new("note", Type::Text),
    ];
    batch(fields, |n, push| {
        let name = format!("{} {n}", NAMES[n as usize % NAMES.len()]);
        let note = format!("note {n}");
        push(&[
            Cell::I64(n as i64),
            Cell::Text(&name),
            Cell::F64(n as f64 / 7.0),
            Cell::I64((n % 40) as i64),
            Cell::Text(&note),
        ]);
    })
}

fn metrics() -> Batch {
    const NAMES: [&str; 6] = [
        "cpu.user",
        "cpu.system",
        "memory.used",
        "disk.free",
        "net.rx_bytes",
        "net.tx_bytes",
    ];
    let mut noise = Noise(7);
    let fields = vec![
        Field::new("host", Type::Text),
        Field::new("metric", Type::Text),
        Field::new("at", Type::I64),
        Field::new("value", Type::F64),
    ];
    batch(fields, |n, push| {
        let value = (noise.next() % 10_000) as f64 / 100.0;
        push(&[
            Cell::Text("gateway-17.plant.example"),
            Cell::Text(NAMES[n as usize % NAMES.len()]),
            Cell::I64(1_767_225_600_000 + (n / 6) as i64 * 5_000),
            Cell::F64(value),
        ]);
    })
}

fn json() -> Batch {
    let mut noise = Noise(9);
    batch(vec![Field::new("line", Type::Text)], |n, push| {
        let (level, took) = (
            ["info", "warn", "error"][(noise.next() % 3) as usize],
            noise.next() % 9_000,
        );
        let line = format!(
            "{{\"ts\":\"2026-01-01T00:{:02}:{:02}Z\",\"level\":\"{level}\",\"service\":\"orders\",\"path\":\"/api/v1/orders/{}\",\
             \"took_us\":{took},\"user\":\"u{}\"}}",
            n / 60 % 60,
            n % 60,
            noise.next() % 100_000,
            noise.next() % 500,
        );
        push(&[Cell::Text(&line)]);
    })
}

fn blobs() -> Batch {
    let mut noise = Noise(11);
    batch(vec![Field::new("blob", Type::Bytes)], |_, push| {
        let blob: Vec<u8> = (0..100).flat_map(|_| noise.next().to_le_bytes()).collect();
        push(&[Cell::Bytes(&blob)]);
    })
}

type Code = Box<dyn FnMut(&[u8]) -> Vec<u8>>;
type MakeCodec = fn() -> (Code, Code);

/// MB of plain bytes a second.
fn speed(plain: usize, mut run: impl FnMut()) -> f64 {
    let (started, mut times) = (Instant::now(), 0u32);
    while started.elapsed() < RUN {
        run();
        times += 1;
    }
    plain as f64 * f64::from(times) / started.elapsed().as_secs_f64() / 1e6
}

/// Peak resident memory in KB, as the kernel counts it.
fn peak_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

fn main() {
    let kinds = [
        ("shop rows", shop()),
        ("host metrics", metrics()),
        ("JSON lines", json()),
        ("random blobs", blobs()),
    ];
    println!(
        "{:<14} {:<8} {:>7} {:>7} {:>7} {:>12} {:>14}",
        "data", "codec", "bytes", "packed", "ratio", "pack MB/s", "unpack MB/s"
    );
    let mut peak = peak_kb();
    let codecs: [(&str, MakeCodec); 4] = [
        ("lz4", || {
            let pack: Code = Box::new(lz4_flex::block::compress);
            (
                pack,
                Box::new(|packed| lz4_flex::block::decompress(packed, 128 * 1024).unwrap()),
            )
        }),
        ("zstd -1", || zstd_codec(1)),
        ("zstd -2", || zstd_codec(2)),
        ("zstd -3", || zstd_codec(3)),
    ];
    for (codec, make) in codecs {
        let (mut pack, mut unpack) = make();
        for (kind, batch) in &kinds {
            let plain = batch.encode();
            let packed = pack(&plain);
            assert_eq!(unpack(&packed), plain);
            let packing = speed(plain.len(), || drop(black_box(pack(black_box(&plain)))));
            let unpacking = speed(plain.len(), || drop(black_box(unpack(black_box(&packed)))));
            let ratio = plain.len() as f64 / packed.len() as f64;
            println!(
                "{kind:<14} {codec:<8} {:>7} {:>7} {ratio:>7.2} {packing:>12.0} {unpacking:>14.0}",
                plain.len(),
                packed.len()
            );
        }
        let now = peak_kb();
        println!("{codec}: {} KB more resident memory at most\n", now - peak);
        peak = now;
    }
}

fn zstd_codec(level: i32) -> (Code, Code) {
    let mut pack = zstd::bulk::Compressor::new(level).unwrap();
    let mut unpack = zstd::bulk::Decompressor::new().unwrap();
    (
        Box::new(move |plain| pack.compress(plain).unwrap()),
        Box::new(move |packed| unpack.decompress(packed, 128 * 1024).unwrap()),
    )
}
