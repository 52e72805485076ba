//! Against a real nats-server, with messages sent by hand where the other side must not be ours.

use std::{
    io::{BufRead, BufReader, Write as _},
    net::TcpStream,
    path::Path,
    time::Duration,
};

use bus_schema::data::{Batch, BatchBuilder, Field, Op, Origin, Schema, Type, Value};
use flow::{Fault, Position, Read, Sink, Source};
use testkit::{Nats, Tls};

use super::*;
use crate::file::testing::{delivery, refused, shown, sink, source};

const SOON: Duration = Duration::from_secs(60);

/// Publishes without any library, and waits until the server has it.
fn publish(server: &Nats, subject: &str, payloads: &[&str]) {
    let mut socket = TcpStream::connect(server.addr()).unwrap();
    write!(socket, "CONNECT {{\"verbose\":false}}\r\n").unwrap();
    for payload in payloads {
        write!(socket, "PUB {subject} {}\r\n{payload}\r\n", payload.len()).unwrap();
    }
    write!(socket, "PING\r\n").unwrap();
    let mut lines = BufReader::new(socket).lines();
    while lines.next().unwrap().unwrap() != "PONG" {}
}

fn server() -> Nats {
    Nats::builder().jetstream().start()
}

fn reader(server: &Nats, more: &str) -> Box<dyn Source> {
    source(
        &SOURCE,
        &format!(r#"{{"url": "{}"{more}}}"#, server.url()),
        Path::new("/"),
    )
}

fn writer(server: &Nats, more: &str) -> Box<dyn Sink> {
    sink(
        &SINK,
        &format!(r#"{{"url": "{}"{more}}}"#, server.url()),
        Path::new("/"),
    )
}

fn numbers(numbers: impl IntoIterator<Item = i64>) -> Batch {
    let schema = Schema {
        collection: "t".into(),
        fields: vec![Field::new("n", Type::I64)],
    };
    let mut builder = BatchBuilder::new(schema.into());
    for number in numbers {
        builder.push(Op::Insert, &[Value::I64(number).as_cell()]).unwrap();
    }
    builder.finish(Origin::default())
}

/// Opens, again and again while that fails for want of a server.
async fn opened(source: &mut dyn Source, after: Option<&Position>) {
    let start = std::time::Instant::now();
    while let Err(fault) = source.open(after).await {
        assert!(
            start.elapsed() < SOON && matches!(fault, Fault::Retry { .. }),
            "{fault}"
        );
    }
}

/// Reads so many records: the first column of each, the reasons, and the last position.
async fn taken(source: &mut dyn Source, wanted: usize) -> (Vec<String>, Vec<String>, Option<Position>) {
    let (mut rows, mut reasons, mut position) = (Vec::new(), Vec::new(), None);
    while rows.len() + reasons.len() < wanted {
        if let Read::Batch(read) = source.read().await.unwrap() {
            let first = |line: &str| line.split('|').next().unwrap().to_string();
            rows.extend(shown(&read.batch).lines().map(first));
            reasons.extend(read.undecodable.into_iter().map(|input| input.reason));
            position = Some(read.position);
        }
    }
    (rows, reasons, position)
}

#[tokio::test]
async fn a_message_of_a_stream_is_acknowledged_when_it_is_committed() {
    let server = server();
    server.create_stream("S", "s.>", "{}");
    let mut reader = reader(&server, r#", "stream": "S", "subject": "s.*.t""#);
    opened(&mut *reader, None).await;
    assert!(matches!(reader.read().await.unwrap(), Read::Idle));
    publish(&server, "s.a.t", &[r#"{"n": 1}"#, "broken", r#"{"n": 2}"#]);
    publish(&server, "s.a.other", &[r#"{"n": 99}"#]);
    let (rows, reasons, position) = taken(&mut *reader, 3).await;
    assert_eq!(rows, ["1", "2"]);
    assert!(reasons[0].starts_with("a message to 's.a.t': not JSON"), "{reasons:?}");
    reader.commit(&position.unwrap()).await.unwrap();
    publish(&server, "s.b.t", &[r#"{"n": 3}"#, r#"{"n": 4}"#]);
    let (rows, _, uncommitted) = taken(&mut *reader, 2).await;
    assert_eq!(rows, ["3", "4"]);
    // The stream and the consumer outlive the server.
    reader.close().await;
    server.restart();
    opened(&mut *reader, uncommitted.as_ref()).await;
    // The old position means nothing to the new connection.
    reader.commit(&uncommitted.unwrap()).await.unwrap();
    publish(&server, "s.c.t", &[r#"{"n": 5}"#]);
    let mut after = Vec::new();
    while !after.contains(&"5".to_string()) {
        after.extend(taken(&mut *reader, 1).await.0);
    }
    assert!(
        !after.contains(&"1".to_string()) && !after.contains(&"2".to_string()),
        "{after:?}"
    );
}

#[tokio::test]
async fn what_is_not_acknowledged_comes_again() {
    let server = server();
    server.create_stream("S", "s", "{}");
    let config = r#", "stream": "S", "ack_wait_ms": 500"#;
    let mut first = reader(&server, config);
    opened(&mut *first, None).await;
    publish_all(&server, &numbered(1000));
    let (mut rows, _, position) = taken(&mut *first, 500).await;
    first.commit(&position.unwrap()).await.unwrap();
    let committed = rows.len();
    // Read, and lost with the process.
    taken(&mut *first, 1).await;
    drop(first);
    let mut second = reader(&server, config);
    opened(&mut *second, None).await;
    while rows.iter().collect::<std::collections::BTreeSet<_>>().len() < 1000 {
        let (more, _, position) = taken(&mut *second, 1).await;
        rows.extend(more);
        second.commit(&position.unwrap()).await.unwrap();
    }
    let again = rows[committed..]
        .iter()
        .filter(|row| rows[..committed].contains(row))
        .count();
    assert_eq!(again, 0, "what was committed does not come again");
    second.close().await;
}

/// The first column of all that comes until nothing comes.
async fn drained(source: &mut dyn Source) -> (Vec<String>, Option<Position>) {
    let (mut rows, mut position) = (Vec::new(), None);
    while let Read::Batch(read) = source.read().await.unwrap() {
        rows.extend(
            shown(&read.batch)
                .lines()
                .map(|line| line.split('|').next().unwrap().to_string()),
        );
        position = Some(read.position);
    }
    (rows, position)
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|n| format!(r#"{{"n": {n}}}"#)).collect()
}

fn publish_all(server: &Nats, payloads: &[String]) {
    publish(server, "s", &payloads.iter().map(String::as_str).collect::<Vec<_>>());
}

/// A destination gathers for longer than the server waits, and more than the server would give by itself.
#[tokio::test]
async fn what_is_held_for_long_does_not_come_again() {
    let server = server();
    server.create_stream("S", "s", "{}");
    let mut reader = reader(&server, r#", "stream": "S", "ack_wait_ms": 600"#);
    opened(&mut *reader, None).await;
    publish_all(&server, &numbered(3000));
    let (mut rows, _, mut position) = taken(&mut *reader, 2500).await;
    // Nobody reads, as while the pipe is full: what has come and was not read yet is held, too.
    tokio::time::sleep(Duration::from_millis(2000)).await;
    for _ in 0..4 {
        let (more, last) = drained(&mut *reader).await;
        rows.extend(more);
        position = last.or(position);
    }
    let wanted: Vec<String> = (0..3000).map(|n| n.to_string()).collect();
    assert_eq!(rows, wanted, "each of them once");
    // One acknowledgement for all of them, and nothing is left.
    reader.commit(&position.unwrap()).await.unwrap();
    reader.close().await;
    opened(&mut *reader, None).await;
    tokio::time::sleep(Duration::from_millis(1000)).await;
    assert_eq!(drained(&mut *reader).await.0, Vec::<String>::new());
    reader.close().await;
}

#[tokio::test]
async fn no_more_is_held_than_is_said() {
    let server = server();
    server.create_stream("S", "s", "{}");
    let mut reader = reader(&server, r#", "stream": "S", "max_ack_pending": 40"#);
    opened(&mut *reader, None).await;
    publish_all(&server, &numbered(100));
    let (rows, position) = drained(&mut *reader).await;
    assert_eq!(rows.len(), 40);
    reader.commit(&position.unwrap()).await.unwrap();
    assert_eq!(drained(&mut *reader).await.0.len(), 40);
    reader.close().await;
}

#[tokio::test]
async fn a_reader_waits_for_its_server() {
    let server = server();
    server.create_stream("S", "s", "{}");
    let mut reader = reader(&server, r#", "stream": "S""#);
    opened(&mut *reader, None).await;
    server.kill9();
    let fault = loop {
        match reader.read().await {
            Ok(read) => assert!(matches!(read, Read::Idle)),
            Err(fault) => break fault,
        }
    };
    assert!(matches!(fault, Fault::Retry { .. }), "{fault}");
    reader.close().await;
    server.start();
    opened(&mut *reader, None).await;
    publish(&server, "s", &[r#"{"n": 1}"#]);
    assert_eq!(taken(&mut *reader, 1).await.0, ["1"]);
}

#[tokio::test]
async fn plain_subjects_and_payloads() {
    let server = Nats::start();
    for (format, payload, wanted) in [
        ("json", r#"{"n": 1}"#, "n:i64 _subject:text _received_at:timestamp_utc"),
        ("text", "ä", "payload:text subject:text received_at:timestamp_utc"),
        ("bytes", "\u{1}", "payload:bytes subject:text received_at:timestamp_utc"),
    ] {
        let mut reader = reader(
            &server,
            &format!(r#", "subject": "a.>", "queue": "q", "format": "{format}""#),
        );
        opened(&mut *reader, None).await;
        // The server may hear of the subscription after it hears of the message.
        let read = loop {
            publish(&server, "a.b.c", &[payload]);
            if let Read::Batch(read) = reader.read().await.unwrap() {
                break read;
            }
        };
        let fields = read.batch.schema().fields.iter();
        let schema: Vec<_> = fields.map(|field| format!("{}:{}", field.name, field.ty)).collect();
        assert_eq!(schema.join(" "), wanted);
        assert!(shown(&read.batch).contains("|a.b.c|"));
        reader.close().await;
    }
}

#[tokio::test]
async fn a_stream_stores_each_record_once() {
    let server = server();
    server.create_stream("S", "n.*", r#"{"max_msg_size": 1000}"#);
    let mut writer = writer(&server, r#", "subject": "n.{n}""#);
    let first = [delivery("a", 1, numbers(0..3000)), delivery("a", 2, numbers([7, 7]))];
    writer.open().await.unwrap();
    assert_eq!(writer.write(&first).await.unwrap(), []);
    writer.commit().await.unwrap();
    assert_eq!(server.stream_messages("S"), 3002);
    // After a crash the same comes again: the stream knows it. The server's crash makes no difference.
    server.kill9();
    server.start();
    let fault = writer.write(&first).await.unwrap_err();
    assert!(matches!(fault, Fault::Retry { .. }), "{fault}");
    writer.close().await;
    while writer.open().await.is_err() {}
    // JetStream comes up a little after the server does.
    while let Err(fault) = writer.write(&first).await {
        assert!(matches!(fault, Fault::Retry { .. }), "{fault}");
        writer.close().await;
        writer.open().await.unwrap();
    }
    assert_eq!(server.stream_messages("S"), 3002);
    // The same number with other records is something else.
    writer.write(&[delivery("a", 2, numbers([8, 9]))]).await.unwrap();
    assert_eq!(server.stream_messages("S"), 3004);
}

#[tokio::test]
async fn records_that_cannot_be_sent_do_not_stop_the_others() {
    let server = server();
    server.create_stream("S", "t.>", r#"{"max_msg_size": 1000}"#);
    let schema = Schema {
        collection: "t".into(),
        fields: vec![Field::new("at", Type::Text), Field::new("text", Type::Text)],
    };
    let mut builder = BatchBuilder::new(schema.into());
    let (long, huge) = ("x".repeat(2000), "x".repeat(2_000_000));
    for (at, text) in [
        ("a", "1"),
        ("b c", "2"),
        ("", "3"),
        ("d", long.as_str()),
        ("e", huge.as_str()),
        ("f.g", "6"),
    ] {
        let row = [Value::Text(at.into()), Value::Text(text.into())];
        builder.push(Op::Insert, &row.each_ref().map(Value::as_cell)).unwrap();
    }
    builder
        .push(
            Op::Delete,
            &[Value::Text("g".into()), Value::Null].each_ref().map(Value::as_cell),
        )
        .unwrap();
    let records = [delivery("a", 1, builder.finish(Origin::default()))];
    let raw = r#", "subject": "t.{at}", "format": "raw", "payload_column": "text""#;
    for more in [raw, r#", "subject": "t.{at}""#] {
        let mut writer = writer(&server, more);
        writer.open().await.unwrap();
        let mut rejected = writer.write(&records).await.unwrap();
        rejected.sort_by_key(|rejected| rejected.row);
        let reasons: Vec<_> = rejected.iter().map(|one| (one.row, one.reason.as_str())).collect();
        let wanted = [
            "no subject",
            "needs a value",
            "the stream refuses it",
            "the server takes",
            "a deletion",
        ];
        assert_eq!(
            reasons.iter().map(|(row, _)| *row).collect::<Vec<_>>(),
            [1, 2, 3, 4, 6],
            "{reasons:?}"
        );
        for ((_, reason), wanted) in reasons.iter().zip(wanted) {
            assert!(reason.contains(wanted), "{reason}");
        }
    }
    assert_eq!(server.stream_messages("S"), 4);
    let mut homeless = writer(&server, r#", "subject": "nobody.{at}""#);
    homeless.open().await.unwrap();
    let fault = homeless.write(&records).await.unwrap_err();
    assert!(
        fault.to_string().contains("no JetStream stream takes the subject"),
        "{fault}"
    );
}

#[tokio::test]
async fn without_a_stream_the_server_says_that_it_has_them() {
    let server = Nats::start();
    let mut reader = reader(&server, r#", "subject": "n""#);
    opened(&mut *reader, None).await;
    // The server may hear of the subscription later than of the messages.
    while !matches!(reader.read().await.unwrap(), Read::Batch(_)) {
        publish(&server, "n", &[r#"{"n": -1}"#]);
    }
    let mut writer = writer(&server, r#", "subject": "n", "jetstream": false"#);
    writer.open().await.unwrap();
    writer.write(&[delivery("a", 1, numbers(0..200))]).await.unwrap();
    writer.commit().await.unwrap();
    let mut heard = Vec::new();
    while heard.len() < 200 {
        heard.extend(taken(&mut *reader, 1).await.0.into_iter().filter(|n| n != "-1"));
    }
    assert_eq!(heard, (0..200).map(|n| n.to_string()).collect::<Vec<_>>());
    // A server that was killed has taken nothing.
    server.kill9();
    let written = match writer.write(&[delivery("a", 2, numbers(0..200))]).await {
        Ok(_) => writer.commit().await,
        Err(fault) => Err(fault),
    };
    assert!(matches!(written, Err(Fault::Retry { .. })), "{written:?}");
}

#[tokio::test]
async fn users_and_certificates() {
    let tls = Tls::new();
    let server = Nats::builder().tls(&tls).user("ann", "secret").start();
    let with = |more: &str| {
        let ca = tls.ca();
        format!(
            r#"{{"url": "{}", "subject": "n", "tls": {{"ca_file": {ca:?}}}{more}}}"#,
            server.url()
        )
    };
    let mut good = source(
        &SOURCE,
        &with(r#", "user": "ann", "password": "secret""#),
        Path::new("/"),
    );
    opened(&mut *good, None).await;
    for config in [
        with(r#", "user": "ann", "password": "wrong""#),
        format!(
            r#"{{"url": "{}", "subject": "n", "user": "ann", "password": "secret"}}"#,
            server.url()
        ),
    ] {
        let mut bad = source(&SOURCE, &config, Path::new("/"));
        let fault = bad.open(None).await.unwrap_err();
        assert!(
            matches!(fault, Fault::Retry { .. }) && !fault.to_string().contains("secret"),
            "{fault}"
        );
    }
}

#[test]
fn mistakes_are_named() {
    for (config, wanted) in [
        (r#"{"url": "nats://a"}"#, "subject: set a subject, a stream or both"),
        (r#"{"url": "http://a", "subject": "s"}"#, "url: 'http://a' is none"),
        (
            r#"{"url": ["nats://u:p@a"], "subject": "s"}"#,
            "url[0]: write user and password",
        ),
        (
            r#"{"url": "nats://a", "subject": "s", "tls": {}}"#,
            "url: is without TLS",
        ),
        (
            r#"{"url": "nats://a", "subject": "s..t"}"#,
            "subject: 's..t' is no subject",
        ),
        (r#"{"url": "nats://a", "stream": "a.b"}"#, "stream: 'a.b' is no name"),
        (
            r#"{"url": "nats://a", "subject": "s", "consumer": "c"}"#,
            "stream: consumer and start",
        ),
        (
            r#"{"url": "nats://a", "stream": "s", "max_ack_pending": 0}"#,
            "max_ack_pending: must be from 1 to 262144",
        ),
        (
            r#"{"url": "nats://a", "stream": "s", "queue": "q"}"#,
            "queue: readers of a stream",
        ),
        (
            r#"{"url": "nats://a", "subject": "s", "user": "u"}"#,
            "password: user and password",
        ),
        (
            r#"{"url": "nats://a", "subject": "s", "token": "t", "nkey": "n"}"#,
            "set one of user and password",
        ),
    ] {
        refused(&SOURCE, config, wanted);
    }
    for (config, wanted) in [
        (
            r#"{"url": "nats://a", "subject": "s.>"}"#,
            "subject: 's.>' is no subject",
        ),
        (r#"{"url": "nats://a", "subject": "s.{a"}"#, "subject: 's.{a' has a {"),
        (
            r#"{"url": "nats://a", "subject": "s", "format": "raw"}"#,
            "payload_column: name the column",
        ),
    ] {
        refused(&SINK, config, wanted);
    }
}
