//! Sensors: many small messages with QoS 1 from an MQTT broker, each acknowledged only when it is durable.

use anyhow::Result;
use testkit::scenario::sensors::{Destination, sensors};

use super::Circumstances;
use crate::suite::{Bound, Contestant, Suite, goal, in_turns, metric, number};

const MESSAGES: u64 = 200_000;
/// Messages that the broker hands out before it wants acknowledgements: what is usual where sensors are many, and
/// mosquitto's own default.
const MANY: u16 = 1_000;
const FEW: u16 = 20;
/// The goal, in messages a second.
const RATE_MIN: f64 = 25_000.0;

/// Runs the suite.
pub fn run(circumstances: &Circumstances) -> Result<Suite> {
    let messages = circumstances.scaled(MESSAGES);
    let metrics = [
        metric("messages/s", 0),
        metric("published/s", 0),
        metric("CPU, µs a message", 1),
        metric("memory, MB", 1),
    ];
    let contestant = |name: &str, note: &str, to: Destination, in_flight: u16| {
        Contestant::new(name, note, move || {
            let found = sensors(to, messages, in_flight);
            let per_s = |took: std::time::Duration| messages as f64 / took.as_secs_f64();
            Ok(vec![
                per_s(found.took),
                per_s(found.published),
                found.cpu.as_secs_f64() * 1e6 / messages as f64,
                found.peak_kib as f64 * 1024.0 / 1e6,
            ])
        })
    };
    let contestants = vec![
        contestant(
            "MQTT to file",
            "filter and file in the daemon that listens",
            Destination::File,
            MANY,
        ),
        contestant("MQTT to file, again", "", Destination::File, MANY),
        contestant(
            "MQTT to PostgreSQL",
            "filter, then over the embedded broker to another daemon",
            Destination::Postgres,
            MANY,
        ),
        contestant(
            "MQTT to file, few in flight",
            "the broker waits for acknowledgements after 20 messages, and every acknowledgement waits for a disk",
            Destination::File,
            FEW,
        ),
    ];
    Ok(Suite {
        name: "sensors".to_string(),
        title: "Sensors".to_string(),
        about: format!(
            "{} messages of 1 KB with QoS 1 from a mosquitto that hands out {} at a time; one in ten is filtered out. A message \
             is acknowledged when it is durable. The clock runs from the first that is published until the last is at the \
             destination; “published” is the rate at which the broker took them meanwhile.",
            number(messages as f64, 0),
            number(f64::from(MANY), 0)
        ),
        entries: in_turns(&metrics, circumstances.rounds(), contestants)?,
        metrics: metrics.to_vec(),
        goals: ["MQTT to file", "MQTT to PostgreSQL"]
            .map(|name| goal(name, "messages/s", Bound::AtLeast(RATE_MIN)))
            .to_vec(),
    })
}
