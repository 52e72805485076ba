//! Prints how many MQTT messages of 1 KB a second go through a daemon:
//! `cargo run -p testkit --example sensors -- file|postgres 100000 1000`, messages and how many the broker hands out at once.

use testkit::scenario::sensors::{Destination, sensors};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [to, messages, in_flight] = arguments.as_slice() else {
        anyhow::bail!("file|postgres MESSAGES IN_FLIGHT");
    };
    let destination = match to.as_str() {
        "postgres" => Destination::Postgres,
        _ => Destination::File,
    };
    let messages: u64 = messages.parse()?;
    let found = sensors(destination, messages, in_flight.parse()?);
    let per_s = |took: std::time::Duration| messages as f64 / took.as_secs_f64();
    println!(
        "mqtt -> {to}, {in_flight} in flight: {:.0} messages/s (published at {:.0}/s); CPU {:.1} us a message; peak {} KiB",
        per_s(found.took),
        per_s(found.published),
        found.cpu.as_secs_f64() * 1e6 / messages as f64,
        found.peak_kib,
    );
    Ok(())
}
