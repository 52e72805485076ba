use std::path::Path;

use rumqttc::MqttOptions;
use testkit::Mosquitto;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::file::testing::source;

/// Publishes one after the other; the broker has all of them when this returns.
async fn publish(broker: &Mosquitto, messages: &[(&str, &str, bool)]) {
    let options = MqttOptions::new("publisher", "127.0.0.1", broker.port());
    let (client, mut events) = AsyncClient::new(options, 10);
    for (topic, payload, retain) in messages {
        let sent = client.publish(*topic, QoS::AtLeastOnce, *retain, *payload).await;
        sent.unwrap();
        while !matches!(events.poll().await.unwrap(), Event::Incoming(Packet::PubAck(_))) {}
    }
}

fn reader(broker: &Mosquitto, more: &str) -> Box<dyn Source> {
    let config = format!(r#"{{"url": "{}"{more}}}"#, broker.url());
    source(&SOURCE, &config, Path::new("/"))
}

/// Reads so many records: the named columns of each, the reasons of what is none, and the last position.
async fn taken(
    source: &mut dyn Source,
    columns: &[&str],
    wanted: usize,
) -> (Vec<String>, Vec<String>, Option<Position>) {
    let (mut rows, mut reasons, mut position) = (Vec::new(), Vec::new(), None);
    while rows.len() + reasons.len() < wanted {
        if let Read::Batch(read) = source.read().await.unwrap() {
            let batch = &read.batch;
            let cell = |row, name: &&str| {
                let column = batch.schema().index_of(name).expect("the column");
                batch.cell(row, column).to_string()
            };
            rows.extend((0..batch.rows()).map(|row| {
                let cells: Vec<String> = columns.iter().map(|name| cell(row, name)).collect();
                cells.join("|")
            }));
            reasons.extend(read.undecodable.into_iter().map(|input| input.reason));
            position = Some(read.position);
        }
    }
    (rows, reasons, position)
}

#[tokio::test]
async fn retained_messages_only_when_they_are_wanted() {
    let broker = Mosquitto::start();
    publish(&broker, &[("p/old", r#"{"n": 1}"#, true)]).await;
    for (wants, expected) in [("true", vec!["1", "2"]), ("false", vec!["2"])] {
        // A session of its own each: the broker keeps subscriptions.
        let config = format!(r#", "topics": ["p/#"], "retained": {wants}, "client_id": "{wants}""#);
        let mut reader = reader(&broker, &config);
        reader.open(None).await.unwrap();
        publish(&broker, &[("p/new", r#"{"n": 2}"#, false)]).await;
        let (rows, _, _) = taken(&mut *reader, &["n"], expected.len()).await;
        assert_eq!(rows, expected, "retained = {wants}");
        reader.close().await;
    }
}

#[tokio::test]
async fn a_payload_has_columns_beside_it() {
    let broker = Mosquitto::start();
    let cases = [
        (
            "json",
            ["n", "_topic", "_qos", "_retained"],
            r#"{"n": 7}"#,
            "7|p/a|1|false",
        ),
        (
            "text",
            ["payload", "topic", "qos", "retained"],
            "warm",
            "warm|p/a|1|false",
        ),
        (
            "bytes",
            ["payload", "topic", "qos", "retained"],
            "ab",
            "6162|p/a|1|false",
        ),
    ];
    for (format, columns, payload, expected) in cases {
        let mut reader = reader(
            &broker,
            &format!(r#", "topics": ["p/+"], "format": "{format}", "client_id": "{format}""#),
        );
        reader.open(None).await.unwrap();
        publish(&broker, &[("p/a", payload, false)]).await;
        let (rows, _, position) = taken(&mut *reader, &columns, 1).await;
        assert_eq!(rows, [expected], "{format}");
        reader.commit(&position.unwrap()).await.unwrap();
        reader.close().await;
    }
}

#[tokio::test]
async fn what_is_not_committed_comes_again_and_what_is_broken_does_not_stop_the_rest() {
    let broker = Mosquitto::start();
    let mut first = reader(&broker, r#", "topics": ["p"], "client_id": "reader""#);
    first.open(None).await.unwrap();
    let messages = [r#"{"n": 1}"#, "broken", r#"{"n": 2}"#].map(|payload| ("p", payload, false));
    publish(&broker, &messages).await;
    let (rows, reasons, position) = taken(&mut *first, &["n"], 3).await;
    assert_eq!(rows, ["1", "2"]);
    assert!(reasons[0].starts_with("a message to 'p': "), "{reasons:?}");
    first.commit(&position.unwrap()).await.unwrap();
    publish(&broker, &[("p", r#"{"n": 3}"#, false)]).await;
    let (rows, _, uncommitted) = taken(&mut *first, &["n"], 1).await;
    assert_eq!(rows, ["3"]);
    first.close().await;
    let mut second = reader(&broker, r#", "topics": ["p"], "client_id": "reader""#);
    second.open(uncommitted.as_ref()).await.unwrap();
    let (rows, _, position) = taken(&mut *second, &["n"], 1).await;
    assert_eq!(rows, ["3"]);
    second.commit(&position.unwrap()).await.unwrap();
    publish(&broker, &[("p", r#"{"n": 4}"#, false)]).await;
    let (rows, _, _) = taken(&mut *second, &["n"], 1).await;
    assert_eq!(rows, ["4"]);
}

/// A broker that sends so many messages before its answer to a subscription.
async fn hasty_broker(messages: usize, payload: usize) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut packet = [0; 1024];
        assert!(connection.read(&mut packet).await.unwrap() > 0);
        connection.write_all(&[0x20, 2, 0, 0]).await.unwrap();
        assert!(connection.read(&mut packet).await.unwrap() > 4);
        let answer = [0x90, 3, packet[2], packet[3], 0];
        let length = payload + 3;
        let mut message = vec![0x30, (length % 128) as u8 | 0x80, (length / 128) as u8, 0, 1, b'p'];
        message.resize(message.len() + payload, b'x');
        for _ in 0..messages {
            if connection.write_all(&message).await.is_err() {
                return;
            }
        }
        let _ = connection.write_all(&answer).await;
        // Until it is closed.
        while connection.read(&mut packet).await.is_ok_and(|read| read > 0) {}
    });
    port
}

#[tokio::test]
async fn what_overtakes_the_subscription_is_bounded() {
    for (messages, payload, is_taken) in [
        (BUFFER_MESSAGES_MAX, 1, true),
        (BUFFER_MESSAGES_MAX + 1, 1, false),
        (BUFFER_BYTES_MAX / 8192 + 1, 8192, false),
    ] {
        let port = hasty_broker(messages, payload).await;
        let config = format!(r#"{{"url": "mqtt://127.0.0.1:{port}", "topics": ["p"], "qos": 0, "format": "text"}}"#);
        let mut reader = source(&SOURCE, &config, Path::new("/"));
        match reader.open(None).await {
            Ok(()) => {
                assert!(is_taken, "{messages} messages of {payload} bytes");
                let (rows, _, _) = taken(&mut *reader, &["payload"], messages).await;
                assert_eq!(rows.len(), messages);
            }
            Err(fault) => {
                assert!(!is_taken && matches!(fault, Fault::Retry { .. }), "{fault:?}");
                assert!(fault.to_string().contains("max_inflight_messages"), "{fault}");
            }
        }
    }
}

#[tokio::test]
async fn acknowledgements_wait_for_room() {
    const MESSAGES: usize = 3 * REQUESTS_MAX;
    let broker = Mosquitto::builder().line("max_inflight_messages 0").start();
    let mut first = reader(&broker, r#", "topics": ["p"], "client_id": "reader""#);
    first.open(None).await.unwrap();
    publish(&broker, &vec![("p", r#"{"n": 1}"#, false); MESSAGES]).await;
    // None is acknowledged before the last is read: then there are more than there is room for.
    let (rows, _, position) = taken(&mut *first, &["n"], MESSAGES).await;
    assert_eq!(rows.len(), MESSAGES);
    first.commit(&position.clone().unwrap()).await.unwrap();
    first.close().await;
    let mut second = reader(&broker, r#", "topics": ["p"], "client_id": "reader""#);
    second.open(position.as_ref()).await.unwrap();
    publish(&broker, &[("p", r#"{"n": 2}"#, false)]).await;
    let (rows, _, _) = taken(&mut *second, &["n"], 1).await;
    assert_eq!(rows, ["2"], "all of the first were acknowledged");
}
