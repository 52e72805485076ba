//! Against pymodbus, which encodes and frames by its own lights.

mod faults;
mod values;

use std::path::Path;

use flow::{Read, Source};
use serde_json::{Value as Json, json};
use testkit::Modbus;

use super::*;
use crate::file::testing::{refused, shown, source};

/// The config's source, with the keys of `more` in it.
fn modbus(more: &Json, points: &Json) -> Box<dyn Source> {
    let mut config = json!({"interval_ms": 10, "points": points});
    merge(&mut config, more);
    source(&SOURCE, &config.to_string(), Path::new("/"))
}

fn merge(into: &mut Json, more: &Json) {
    for (key, value) in more.as_object().unwrap() {
        into[key] = value.clone();
    }
}

/// Where the devices are on TCP.
fn at(devices: &Modbus) -> Json {
    json!({"host": "127.0.0.1", "port": devices.port()})
}

/// The rows of the next look, without their time.
async fn look(source: &mut dyn Source) -> Result<String, Fault> {
    loop {
        if let Read::Batch(read) = source.read().await? {
            assert!(read.undecodable.is_empty());
            let text = shown(&read.batch);
            let without_time = text.lines().map(|line| line.split_once('|').unwrap().1);
            return Ok(without_time.collect::<Vec<_>>().join("\n"));
        }
    }
}

/// What the next looks fail with.
async fn broken(source: &mut dyn Source) -> String {
    for _ in 0..10_000 {
        if let Err(fault) = look(source).await {
            assert!(matches!(fault, Fault::Retry { .. }), "{fault:?}");
            return fault.to_string();
        }
    }
    panic!("it goes on and on");
}

#[test]
fn mistakes_are_named() {
    let point = json!({"name": "p", "table": "coil", "address": 0});
    let tty = json!({"device": "/dev/ttyS0"});
    for (more, wanted) in [
        (json!({}), "host: say where"),
        (json!({"host": "a", "serial": tty}), "host: say where"),
        (json!({"host": ""}), "host: is missing"),
        (json!({"serial": tty, "port": 1}), "port: is for connections"),
        (json!({"serial": tty, "framing": "rtu"}), "framing: is for connections"),
        (json!({"serial": {"device": ""}}), "serial.device: is missing"),
        (
            json!({"serial": {"device": "x", "speed": 1}}),
            "serial.speed: must be from",
        ),
        (
            json!({"serial": {"device": "x", "stop_bits": 3}}),
            "serial.stop_bits: 1 or 2",
        ),
        (json!({"serial": tty, "units": [0]}), "units[0]: units on a serial line"),
        (json!({"host": "a", "units": [1, 1]}), "units[1]: 1 stands there twice"),
        (json!({"host": "a", "units": []}), "units: name at least one"),
        (json!({"host": "a", "units": [256]}), "units[0]: invalid value"),
        (json!({"host": "a", "interval_ms": 1}), "interval_ms: must be from 10"),
        (json!({"host": "a", "timeout_ms": 1}), "timeout_ms: must be from 10"),
        (json!({"host": "a", "retries": 11}), "retries: must be from 0 to 10"),
        (json!({"host": "a", "pause_ms": 10_001}), "pause_ms: must be from 0"),
        (json!({"host": "a", "max_gap": 2001}), "max_gap: must be from 0"),
        (
            json!({"host": "a", "tls": {"cert_file": "c"}}),
            "tls.key_file: a certificate",
        ),
        (json!({"host": "a", "points": []}), "points: 1 to 1021 points"),
        (
            json!({"host": "a", "points": [point, point]}),
            "points[1].name: 'p' is the name of another",
        ),
        (
            json!({"host": "a", "points": [{"name": "status", "table": "coil", "address": 0}]}),
            "points[0].name: 'status' is the name of another",
        ),
        (
            json!({"host": "a", "points": [{"name": "p", "table": "coil", "address": 0, "units": [2]}]}),
            "points[0].units: 2 is not one of",
        ),
        (
            json!({"host": "a", "units": [1, 2], "points": [{"name": "p", "table": "coil", "address": 0, "units": [2]}]}),
            "units: unit 1 has no points",
        ),
        (
            json!({"host": "a", "points": [{"name": "p", "table": "input", "address": 0, "order": "abcd"}]}),
            "points[0].order: unknown variant `abcd`",
        ),
    ] {
        let mut config = json!({"points": [point]});
        merge(&mut config, &more);
        refused(&SOURCE, &config.to_string(), wanted);
    }
}
