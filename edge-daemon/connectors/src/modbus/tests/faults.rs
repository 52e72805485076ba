//! What goes wrong with devices and lines, and what becomes of the rest.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
};

use testkit::Link;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_serial::{SerialPort as _, SerialStream};

use super::*;

fn holding(name: &str, address: u16) -> Json {
    json!({"name": name, "table": "holding", "address": address})
}

fn unit(id: u8, addresses: std::ops::Range<u16>) -> Json {
    let entries = addresses.map(|address| json!([address, "u16", "ABCD", address]));
    json!({"id": id, "holding": entries.collect::<Vec<_>>()})
}

#[tokio::test]
async fn a_bad_point_does_not_silence_the_others() {
    // 4 is between them and not there, and so is 20.
    let devices = Modbus::start(&json!({"units": [{"id": 1, "holding": [
        [0, "u16", "ABCD", 10], [1, "u32", "ABCD", 11], [3, "u16", "ABCD", 13], [5, "u16", "ABCD", 15],
    ]}]}));
    let points = json!([
        holding("a", 0),
        {"name": "b", "table": "holding", "address": 1, "type": "u32"},
        holding("c", 3),
        holding("bad", 4),
        {"name": "bad too", "table": "holding", "address": 4, "type": "bool"},
        holding("d", 5),
        holding("worse", 20),
    ]);
    let mut place = at(&devices);
    place["max_gap"] = json!(30);
    let mut source = modbus(&place, &points);
    source.open(None).await.unwrap();
    let wanted = "1|10|11|13|~|~|15|~|bad, bad too, worse: refused with exception 2: there is nothing at this address \
                  (illegal data address)";
    for _ in 0..3 {
        assert_eq!(look(&mut *source).await.unwrap(), wanted);
    }
    source.close().await;
    // What was found out is not found out again, and the good ones are still read together.
    let asked = devices.asked();
    let last = asked.iter().rposition(|asked| *asked == "1 holding 0 4").unwrap();
    let round: Vec<&str> = asked[..last].iter().rev().take(4).rev().map(String::as_str).collect();
    assert_eq!(
        round,
        ["1 holding 0 4", "1 holding 4 1", "1 holding 5 1", "1 holding 20 1"],
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_device_that_refuses_everything_says_so_once() {
    let devices = Modbus::start(&json!({"units": [unit(1, 0..4)]}));
    let mut place = at(&devices);
    place["units"] = json!([1, 2]);
    let mut source = modbus(&place, &json!([holding("a", 0), holding("b", 2)]));
    source.open(None).await.unwrap();
    // pymodbus has no better word for a unit it does not have.
    assert_eq!(
        look(&mut *source).await.unwrap(),
        "1|0|2|~\n2|~|~|refused with exception 4: device failure"
    );
}

#[tokio::test]
async fn a_silent_unit_does_not_silence_the_others() {
    let devices = Modbus::start(&json!({"serial": true, "units": [unit(1, 0..4), unit(3, 0..4)]}));
    let line = json!({
        "serial": {"device": devices.serial_port(), "parity": "none", "speed": 38_400},
        "units": [1, 2, 3], "timeout_ms": 400, "retries": 1,
    });
    let mut source = modbus(&line, &json!([holding("a", 0), holding("b", 2)]));
    source.open(None).await.unwrap();
    let wanted = "1|0|2|~\n2|~|~|no answer within 400 ms\n3|0|2|~";
    for _ in 0..4 {
        assert_eq!(look(&mut *source).await.unwrap(), wanted);
    }
    source.close().await;
    // At first as often as is said, then once a round, now this and now that.
    let asked = devices.asked();
    let silent: Vec<&str> = asked
        .iter()
        .filter(|asked| asked.starts_with("2 "))
        .map(String::as_str)
        .collect();
    let (first, second) = ("2 holding 0 1", "2 holding 2 1");
    assert_eq!(
        silent[..7],
        [first, first, second, second, second, first, second],
        "{silent:?}"
    );
}

#[tokio::test]
async fn a_device_that_passes_over_what_it_does_not_have_is_read_all_the_same() {
    let devices = Modbus::start(&json!({"units": [unit(1, 0..8)], "silent": [[1, 5]]}));
    let mut place = at(&devices);
    merge(&mut place, &json!({"timeout_ms": 400, "retries": 0}));
    let points: Vec<Json> = (0..8).map(|address| holding(&format!("p{address}"), address)).collect();
    let more = [
        json!([{"name": "other", "table": "input", "address": 0}]),
        json!(points),
    ];
    let points: Vec<Json> = more
        .iter()
        .flat_map(|points| points.as_array().unwrap().clone())
        .collect();
    let mut source = modbus(&place, &json!(points));
    source.open(None).await.unwrap();
    let mut row = String::new();
    for _ in 0..6 {
        row = look(&mut *source).await.unwrap();
    }
    assert!(
        row.starts_with("1|~|0|1|2|3|4|~|6|7|p5: no answer within 400 ms; other: refused"),
        "{row}"
    );
}

#[tokio::test]
async fn devices_restart() {
    let devices = Modbus::start(&json!({"units": [unit(1, 0..2)]}));
    let mut source = modbus(&at(&devices), &json!([holding("a", 1)]));
    source.open(None).await.unwrap();
    assert_eq!(look(&mut *source).await.unwrap(), "1|1|~");
    devices.kill9();
    let cause = broken(&mut *source).await;
    assert!(cause.contains(&format!("127.0.0.1:{}", devices.port())), "{cause}");
    source.close().await;
    let fault = source.open(None).await.unwrap_err();
    assert!(fault.to_string().contains("cannot reach 127.0.0.1:"), "{fault}");
    devices.start();
    source.open(None).await.unwrap();
    assert_eq!(look(&mut *source).await.unwrap(), "1|1|~");
}

#[tokio::test]
async fn a_connection_that_the_device_has_closed_is_no_fault() {
    let devices = Modbus::start(&json!({"units": [unit(1, 0..2)]}));
    let link = Link::to(devices.addr());
    let place = json!({"host": "127.0.0.1", "port": link.port(), "retries": 0});
    let mut source = modbus(&place, &json!([holding("a", 1)]));
    source.open(None).await.unwrap();
    for dropped in 1..4 {
        link.drop_connections();
        for _ in 0..3 {
            assert_eq!(look(&mut *source).await.unwrap(), "1|1|~");
        }
        assert!(link.accepted() > dropped, "{} connections", link.accepted());
    }
}

#[tokio::test]
async fn slow_devices_are_waited_for_and_frozen_ones_are_not() {
    let devices = Modbus::start(&json!({"units": [unit(1, 0..2)], "delay_ms": 100}));
    let mut place = at(&devices);
    merge(&mut place, &json!({"timeout_ms": 5000, "retries": 0}));
    let mut source = modbus(&place, &json!([holding("a", 1)]));
    source.open(None).await.unwrap();
    for _ in 0..3 {
        assert_eq!(look(&mut *source).await.unwrap(), "1|1|~");
    }
    source.close().await;
    merge(&mut place, &json!({"timeout_ms": 20}));
    let mut hasty = modbus(&place, &json!([holding("a", 1)]));
    let fault = hasty.open(None).await.unwrap_err();
    assert!(
        fault.to_string().ends_with(": unit 1 does not answer within 20 ms"),
        "{fault}"
    );
    devices.pause();
    let fault = hasty.open(None).await.unwrap_err();
    assert!(
        fault.to_string().ends_with(": unit 1 does not answer within 20 ms"),
        "{fault}"
    );
    devices.resume();
    source.open(None).await.unwrap();
    assert_eq!(look(&mut *source).await.unwrap(), "1|1|~");
}

/// A device that answers the first question when it is asked the second.
#[tokio::test]
async fn a_late_answer_is_not_taken_for_another() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let device = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut late, mut question) = (None, [0; 12]);
        let mut served = 0;
        while stream.read_exact(&mut question).is_ok() {
            // What it answers with is the number of the question.
            let [a, b] = [question[0], question[1]];
            let answer = vec![a, b, 0, 0, 0, 5, question[6], question[7], 2, a, b];
            match late.replace(answer.clone()) {
                None => {}
                Some(late) => {
                    let both = if served == 0 { [late, answer].concat() } else { answer };
                    stream.write_all(&both).unwrap();
                    served += 1;
                }
            }
        }
        served
    });
    let place = json!({"host": "127.0.0.1", "port": port, "timeout_ms": 500, "retries": 1});
    let mut source = modbus(&place, &json!([holding("number", 0)]));
    source.open(None).await.unwrap();
    for number in 2..6 {
        assert_eq!(look(&mut *source).await.unwrap(), format!("1|{number}|~"));
    }
    source.close().await;
    assert!(device.join().unwrap() >= 4);
}

/// A device on a pty that answers one question after the other, each register with its own address, and takes its time with
/// some of them.
async fn dawdler(mut line: SerialStream, delays_ms: &'static [u64]) {
    let mut question = [0; 8];
    for delay in delays_ms.iter().cycle() {
        // While nobody has the other end, that is an error.
        while AsyncReadExt::read_exact(&mut line, &mut question).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_millis(*delay)).await;
        let [unit, function, a, b, ..] = question;
        let mut answer = vec![unit, function, 2, a, b];
        answer.extend(crate::modbus::frame::checksum(&answer).to_le_bytes());
        let _ = AsyncWriteExt::write_all(&mut line, &answer).await;
    }
}

/// An RTU answer does not say which question it belongs to.
#[tokio::test]
async fn a_late_answer_on_a_serial_line_is_not_taken_for_another() {
    // What is late comes while the question is asked again, after that, or after all of it.
    for (retries, delays_ms) in [
        (1, &[500, 20, 0, 0][..]),
        (1, &[0, 0, 700, 20, 0][..]),
        (3, &[900, 10, 0, 0, 0, 0][..]),
        (0, &[550, 0, 0][..]),
    ] {
        let (device, end) = SerialStream::pair().unwrap();
        let port = end.name().unwrap();
        // Whoever opens it wants it alone.
        drop(end);
        let device = tokio::spawn(dawdler(device, delays_ms));
        let place = json!({
            "serial": {"device": port, "parity": "none"}, "timeout_ms": 300, "retries": retries, "max_gap": 0,
        });
        let mut source = modbus(&place, &json!([holding("a", 7), holding("b", 70)]));
        let mut opened = source.open(None).await;
        for _ in 0..5 {
            if opened.is_err() {
                opened = source.open(None).await;
            }
        }
        opened.unwrap();
        let mut whole = 0;
        for _ in 0..4 {
            let row = look(&mut *source).await.unwrap();
            let values: Vec<&str> = row.split('|').collect();
            assert!(
                ["7", "~"].contains(&values[1]) && ["70", "~"].contains(&values[2]),
                "{row}, with {delays_ms:?}"
            );
            whole += usize::from(row == "1|7|70|~");
        }
        assert!(whole > 0, "{delays_ms:?}");
        source.close().await;
        device.abort();
    }
}

#[tokio::test]
async fn an_adapter_can_be_pulled_out_and_put_in_again() {
    let devices = Modbus::start(&json!({"serial": true, "units": [unit(1, 0..2)]}));
    let line = json!({"serial": {"device": devices.serial_port(), "parity": "none"}, "timeout_ms": 300});
    let mut source = modbus(&line, &json!([holding("a", 1)]));
    source.open(None).await.unwrap();
    assert_eq!(look(&mut *source).await.unwrap(), "1|1|~");
    devices.kill9();
    // As udev does; what it led to may be another's by now.
    std::fs::remove_file(devices.serial_port()).unwrap();
    let cause = broken(&mut *source).await;
    assert!(cause.contains("serial"), "{cause}");
    source.close().await;
    let fault = source.open(None).await.unwrap_err();
    assert!(fault.to_string().contains("cannot reach"), "{fault}");
    devices.start();
    source.open(None).await.unwrap();
    assert_eq!(look(&mut *source).await.unwrap(), "1|1|~");
    // The port is free when the source is closed.
    source.close().await;
    let mut other = modbus(&line, &json!([holding("a", 1)]));
    other.open(None).await.unwrap();
    assert_eq!(look(&mut *other).await.unwrap(), "1|1|~");
}

#[tokio::test]
async fn nobody_asks_while_nobody_reads() {
    let devices = Modbus::start(&json!({"units": [unit(1, 0..2)]}));
    let mut source = modbus(&at(&devices), &json!([holding("a", 1)]));
    source.open(None).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    // One that opening has taken, one that waits, one in the hand.
    assert!(devices.asked().len() <= 3, "{:?}", devices.asked());
    for _ in 0..20 {
        assert_eq!(look(&mut *source).await.unwrap(), "1|1|~");
    }
    source.close().await;
    let asked = devices.asked().len();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(devices.asked().len(), asked, "it goes on after its end");
}
