use std::{path::Path, sync::atomic::AtomicUsize};

use rumqttc::MqttOptions;
use testkit::Mosquitto;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::{file::testing::source, mqtt::PACKET_BYTES_MAX};

/// Publishes one after the other; the broker has all of them when this returns.
async fn publish(broker: &Mosquitto, messages: &[(&str, &str, bool)]) {
    let mut options = MqttOptions::new("publisher", "127.0.0.1", broker.port());
    options.set_max_packet_size(PACKET_BYTES_MAX, PACKET_BYTES_MAX);
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

/// A broker that sends so many messages before its answer to a subscription, and counts them.
async fn hasty_broker(messages: usize, payload: usize, answer: u8) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut packet = [0; 1024];
        assert!(connection.read(&mut packet).await.unwrap() > 0);
        connection.write_all(&[0x20, 2, 0, 0]).await.unwrap();
        assert!(connection.read(&mut packet).await.unwrap() > 4);
        let answer = [0x90, 3, packet[2], packet[3], answer];
        let mut length = payload + 3;
        let mut message = vec![0x30];
        while length >= 128 {
            message.push((length % 128) as u8 | 0x80);
            length /= 128;
        }
        message.extend([length as u8, 0, 1, b'p']);
        message.resize(message.len() + payload, b'x');
        for _ in 0..messages {
            if connection.write_all(&message).await.is_err() {
                return;
            }
            counted.fetch_add(1, Ordering::Relaxed);
        }
        let _ = connection.write_all(&answer).await;
        // Until it is closed.
        while connection.read(&mut packet).await.is_ok_and(|read| read > 0) {}
    });
    (port, sent)
}

fn hasty_reader(port: u16) -> Box<dyn Source> {
    let config = format!(r#"{{"url": "mqtt://127.0.0.1:{port}", "topics": ["p"], "qos": 0, "format": "text"}}"#);
    source(&SOURCE, &config, Path::new("/"))
}

const GRANTED: u8 = 0;
const REFUSED: u8 = 0x80;

#[tokio::test]
async fn what_overtakes_the_subscription_is_read() {
    for (messages, payload) in [
        (BUFFER_MESSAGES_MAX, 1),
        (BUFFER_MESSAGES_MAX + 1, 1),
        (BUFFER_BYTES_MAX / 8192 + 1, 8192),
    ] {
        let (port, _) = hasty_broker(messages, payload, GRANTED).await;
        let mut reader = hasty_reader(port);
        reader.open(None).await.unwrap();
        let (rows, _, _) = taken(&mut *reader, &["payload"], messages).await;
        assert_eq!(rows.len(), messages, "{payload} bytes each");
    }
}

#[tokio::test]
async fn what_nobody_reads_stays_with_the_broker() {
    const MESSAGES: usize = 1024;
    let (port, sent) = hasty_broker(MESSAGES, 64 * 1024, GRANTED).await;
    let mut reader = hasty_reader(port);
    reader.open(None).await.unwrap();
    sleep(Duration::from_millis(500)).await;
    // What is held, and what the sockets hold.
    let held = sent.load(Ordering::Relaxed);
    assert!(held < MESSAGES / 2, "{held} messages of 64 KiB");
    let (rows, _, _) = taken(&mut *reader, &["payload"], MESSAGES).await;
    assert_eq!(rows.len(), MESSAGES);
}

#[tokio::test]
async fn a_refused_subscription_is_an_error_sooner_or_later() {
    let (port, _) = hasty_broker(3, 1, REFUSED).await;
    let fault = hasty_reader(port).open(None).await.unwrap_err();
    assert!(fault.to_string().contains("refuses the subscription to 'p'"), "{fault}");
    // Later: messages have to be read before the answer comes.
    let (port, _) = hasty_broker(BUFFER_MESSAGES_MAX + 100, 1, REFUSED).await;
    let mut reader = hasty_reader(port);
    reader.open(None).await.unwrap();
    let (_, _, position) = taken(&mut *reader, &["payload"], BUFFER_MESSAGES_MAX + 100).await;
    let bookmark: Bookmark = serde_json::from_slice(position.unwrap().as_bytes()).unwrap();
    assert_eq!(bookmark.topics, 0, "the topics are asked for again");
    let fault = reader.read().await.unwrap_err();
    assert!(fault.to_string().contains("refuses the subscription to 'p'"), "{fault}");
}

#[tokio::test]
async fn what_a_session_kept_is_read_however_large_it_is() {
    let broker = Mosquitto::start();
    for (name, messages, bytes) in [("large", 1, 2 * 1024 * 1024), ("many", 20, 60 * 1024)] {
        let config = format!(r#", "topics": ["{name}"], "format": "text", "client_id": "{name}""#);
        let mut first = reader(&broker, &config);
        first.open(None).await.unwrap();
        first.close().await;
        let payload = "x".repeat(bytes);
        publish(&broker, &vec![(name, payload.as_str(), false); messages]).await;
        // Without a position it subscribes again.
        let mut second = reader(&broker, &config);
        second.open(None).await.unwrap();
        let (rows, reasons, position) = taken(&mut *second, &["topic"], messages).await;
        assert_eq!(rows.len() + reasons.len(), messages, "{name}");
        second.commit(&position.unwrap()).await.unwrap();
        publish(&broker, &[(name, "more", false)]).await;
        let (rows, _, _) = taken(&mut *second, &["payload"], 1).await;
        assert_eq!(rows, ["more"], "{name}");
        second.close().await;
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
