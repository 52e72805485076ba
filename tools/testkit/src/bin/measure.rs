//! Prints what the programs take: their size, the memory of the daemons while data moves, and how fast it moves. Every
//! figure comes from a run whose rows were compared and whose books were checked. `cargo xtask measure` builds the release
//! programs and runs it.

use testkit::{
    Broker, Mosquitto, bin,
    scenario::{self, Peaks},
};

/// Rows produced while the broker is away.
const OFFLINE_ROWS: u64 = 100_000;
/// Rows of the bulk transfer.
const BULK_ROWS: u64 = 1_000_000;

fn main() {
    println!("programs on disk");
    for program in ["myceliald", "mycelial-plane", "mycelial", "mycelial-broker"] {
        let bytes = std::fs::metadata(bin(program)).map_or(0, |file| file.len());
        println!("  {program:<16} {:>6.1} MB", bytes as f64 / 1e6);
    }

    println!(
        "\n{OFFLINE_ROWS} rows produced offline, gateway killed twice, into PostgreSQL and SQLite, over mosquitto"
    );
    show(scenario::offline(Broker::Mosquitto(Mosquitto::start()), OFFLINE_ROWS));

    println!("\n{BULK_ROWS} rows SQLite -> bus -> SQLite, over the embedded broker");
    let bulk = scenario::bulk(Broker::embedded(false), BULK_ROWS);
    let seconds = bulk.took.as_secs_f64();
    println!(
        "  {:.1} s: {:.0} rows/s, {:.1} MB/s of the source's file",
        seconds,
        BULK_ROWS as f64 / seconds,
        bulk.bytes as f64 / seconds / 1e6
    );
    show(bulk.peaks);
}

fn show(peaks: Peaks) {
    for (process, kib) in [("gateway", peaks.gateway), ("hub", peaks.hub), ("plane", peaks.plane)] {
        println!(
            "  {process:<16} {:>6.1} MB of memory at most (VmHWM)",
            kib as f64 * 1024.0 / 1e6
        );
    }
}
