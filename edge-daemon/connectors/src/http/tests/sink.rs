//! The destination and its client.

use std::{fs, path::Path, time::Duration};

use bus_schema::data::{Batch, BatchBuilder, Field, Op, Origin, Schema, Type, Value};
use flow::{Fault, Sink};
use testkit::{Script, Tls};

use crate::{
    file::testing::{delivery, refused, sink},
    http::SINK,
};

const TAKER: &str = include_str!("taker.py");

fn batch(values: &[(Op, i64)]) -> Batch {
    let schema = Schema {
        collection: "t".into(),
        fields: vec![Field::new("t", Type::I64)],
    };
    let mut builder = BatchBuilder::new(schema.into());
    for (op, value) in values {
        builder.push(*op, &[Value::I64(*value).as_cell()]).unwrap();
    }
    builder.finish(Origin::default())
}

fn inserts(values: &[i64]) -> Batch {
    batch(&values.iter().map(|value| (Op::Insert, *value)).collect::<Vec<_>>())
}

async fn opened(server: &Script, way: &str, more: &str) -> Box<dyn Sink> {
    let config = format!(r#"{{"url": "http://127.0.0.1:{}/{way}"{more}}}"#, server.port());
    let mut sink = sink(&SINK, &config, server.dir());
    sink.open().await.unwrap();
    sink
}

/// Lines of a file the server has written.
fn written(server: &Script, name: &str) -> Vec<String> {
    let text = fs::read_to_string(server.dir().join(name)).unwrap_or_default();
    text.lines().map(str::to_string).collect()
}

fn requests(server: &Script) -> Vec<serde_json::Value> {
    let requests = written(server, "requests");
    requests
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Makes the server do something once.
fn tell(server: &Script, what: &str) {
    fs::write(server.dir().join(what), "").unwrap();
}

fn pause(fault: &Fault) -> Option<Duration> {
    match fault {
        Fault::Retry { after, .. } => *after,
        fault => panic!("{fault:?}"),
    }
}

#[tokio::test]
async fn each_format_is_what_it_says() {
    let server = Script::start(TAKER, &[]);
    fs::write(server.dir().join("token"), "s3cret\n").unwrap();
    let basic =
        r#", "format": "raw", "payload_column": "t", "user": "u", "password": {"file": "token"}, "method": "PUT""#;
    for (way, more, kind, bodies) in [
        (
            "take?x=1",
            r#", "bearer": {"file": "token"}"#,
            "application/json",
            &[r#"[{"t":1},{"t":2}]"#][..],
        ),
        (
            "take",
            r#", "format": "json_lines", "content_type": "text/plain""#,
            "text/plain",
            &["{\"t\":1}\n{\"t\":2}\n"],
        ),
        (
            "take",
            r#", "format": "json""#,
            "application/json",
            &[r#"{"t":1}"#, r#"{"t":2}"#],
        ),
        ("raw", basic, "application/octet-stream", &["1", "2"]),
        (
            "take",
            r#", "records_max": 1, "headers": {"X-Key": {"file": "token"}}"#,
            "application/json",
            &[r#"[{"t":1}]"#, r#"[{"t":2}]"#],
        ),
    ] {
        let _ = fs::remove_file(server.dir().join("requests"));
        let mut sink = opened(&server, way, more).await;
        let rejected = sink
            .write(&[delivery(
                "a",
                1,
                batch(&[(Op::Insert, 1), (Op::Delete, 9), (Op::Insert, 2)]),
            )])
            .await;
        assert_eq!(
            rejected.unwrap().iter().map(|one| one.row).collect::<Vec<_>>(),
            [1],
            "{more}"
        );
        sink.commit().await.unwrap();
        let requests = requests(&server);
        let compact = |request: &serde_json::Value| request["body"].as_str().unwrap().replace("\": ", "\":");
        assert_eq!(requests.iter().map(compact).collect::<Vec<_>>(), bodies, "{more}");
        for request in &requests {
            let headers = &request["headers"];
            assert_eq!(request["path"], format!("/{way}"));
            assert_eq!(headers["content-type"], kind);
            assert_eq!(headers["host"], format!("127.0.0.1:{}", server.port()));
            let (authorization, method) = match way {
                "raw" => ("Basic dTpzM2NyZXQ=", "PUT"),
                "take?x=1" => ("Bearer s3cret", "POST"),
                _ => ("", "POST"),
            };
            assert_eq!(headers["authorization"].as_str().unwrap_or_default(), authorization);
            assert_eq!(request["method"], method);
            assert_eq!(headers["x-key"].as_str().is_some(), more.contains("X-Key"));
            // One connection does for all.
            assert_eq!(request["peer"], requests[0]["peer"]);
        }
    }
}

#[tokio::test]
async fn a_lost_answer_doubles_nothing() {
    let server = Script::start(TAKER, &[]);
    let mut sink = opened(&server, "take", "").await;
    let deliveries = [
        delivery("a", 1, inserts(&[1, 2])),
        delivery("a", 2, inserts(&[])),
        delivery("a", 3, inserts(&[1, 2])),
        delivery("a", 4, inserts(&[5])),
    ];
    assert_eq!(sink.write(&deliveries[..2]).await.unwrap(), []);
    sink.commit().await.unwrap();
    // Stored, and the connection ends without an answer; stored, and the server dies.
    for what in ["drop", "crash"] {
        tell(&server, what);
        let fault = sink.write(&deliveries[2..]).await.unwrap_err();
        assert!(fault.to_string().contains("broke"), "{fault}");
        sink.close().await;
        if what == "crash" {
            server.kill9();
            assert!(matches!(sink.open().await, Err(Fault::Retry { .. })));
            server.start();
        }
        sink.open().await.unwrap();
    }
    // What a daemon does that was killed: another sink, without memory.
    let mut other = opened(&server, "take", "").await;
    assert_eq!(other.write(&deliveries).await.unwrap(), []);
    assert_eq!(sink.write(&deliveries[2..]).await.unwrap(), []);
    sink.commit().await.unwrap();
    assert_eq!(
        written(&server, "out"),
        [1, 2, 1, 2, 5].map(|t| format!("{{\"t\": {t}}}"))
    );
    // The same content at another place is something else.
    assert_eq!(written(&server, "keys").len(), 3);
}

#[tokio::test]
async fn only_the_refused_records_are_rejected() {
    let server = Script::start(TAKER, &[]);
    let deliveries = [
        delivery("a", 1, inserts(&[1, 200, 3, 4, 300])),
        delivery("a", 2, inserts(&[5, 400])),
    ];
    let mut sink = opened(&server, "hot", "").await;
    let rejected = sink.write(&deliveries).await.unwrap();
    let places: Vec<_> = rejected.iter().map(|one| (one.delivery, one.row)).collect();
    assert_eq!(places, [(0, 1), (0, 4), (1, 1)]);
    assert_eq!(
        rejected[0].reason,
        r#"the server refuses it: 400 Bad Request: {"error": "too hot"}"#
    );
    assert_eq!(written(&server, "out"), [1, 3, 4, 5].map(|t| format!("{{\"t\": {t}}}")));
    let mut whole = opened(&server, "hot", r#", "split_refused": false"#).await;
    assert_eq!(whole.write(&deliveries[..1]).await.unwrap().len(), 5);
}

#[tokio::test]
async fn a_server_answers_for_each_record() {
    let server = Script::start(TAKER, &[]);
    let mut sink = opened(&server, "outcomes", r#", "outcomes": true"#).await;
    let deliveries = [
        delivery("a", 1, inserts(&[1, 200, 50, 4])),
        delivery("a", 2, inserts(&[5])),
    ];
    tell(&server, "full");
    let fault = sink.write(&deliveries).await.unwrap_err();
    assert!(fault.to_string().contains("wants 1 of 4 records again"), "{fault}");
    sink.close().await;
    sink.open().await.unwrap();
    let rejected = sink.write(&deliveries).await.unwrap();
    let said: Vec<_> = rejected
        .iter()
        .map(|one| (one.delivery, one.row, one.reason.as_str()))
        .collect();
    assert_eq!(said, [(0, 1, "the server refuses it: 422: too hot")]);
    sink.commit().await.unwrap();
    let sent: Vec<_> = requests(&server)
        .iter()
        .map(|request| request["body"].clone())
        .collect();
    assert_eq!(sent[1..], [r#"[{"t":50}]"#, r#"[{"t":5}]"#]);
    assert_eq!(
        written(&server, "out"),
        [1, 4, 50, 5].map(|t| format!("{{\"t\": {t}}}"))
    );
    let mut other = opened(&server, "take", r#", "outcomes": true"#).await;
    let fault = other.write(&deliveries[1..]).await.unwrap_err();
    assert!(fault.to_string().contains("is a JSON array of"), "{fault}");
}

#[tokio::test]
async fn what_says_nothing_of_the_records_is_tried_again() {
    let server = Script::start(TAKER, &[]);
    for (way, wanted, after) in [
        ("status/503/7", "503 Service Unavailable: not now", Some(7)),
        ("status/429/2", "429 Too Many Requests", Some(2)),
        ("status/500", "500 Internal Server Error", None),
        ("status/401", "are the credentials right?", None),
        ("status/404", "is the url right?", None),
        ("status/409", "409 Conflict", None),
        ("moved", "redirects are not followed: set url to /take", None),
        ("garbage", "broke", None),
        ("huge", "has more than 1048576 bytes", None),
        // Last: it answers one after the other.
        ("slow", "has not answered within 0.5 seconds", None),
    ] {
        let mut sink = opened(&server, way, r#", "timeout_ms": 500"#).await;
        let fault = sink.write(&[delivery("a", 1, inserts(&[1]))]).await.unwrap_err();
        assert!(fault.to_string().contains(wanted), "{way}: {fault}");
        assert_eq!(pause(&fault), after.map(Duration::from_secs), "{way}");
    }
}

#[tokio::test]
async fn tls_is_checked() {
    let tls = Tls::new();
    let files = tls.server();
    let server = Script::start(TAKER, &[files.cert.to_str().unwrap(), files.key.to_str().unwrap()]);
    let config = |ca: &Path| {
        let url = format!("https://localhost:{}/take", server.port());
        format!(r#"{{"url": "{url}", "tls": {{"ca_file": {ca:?}}}}}"#)
    };
    let mut trusting = sink(&SINK, &config(&tls.ca()), server.dir());
    trusting.open().await.unwrap();
    assert_eq!(trusting.write(&[delivery("a", 1, inserts(&[1]))]).await.unwrap(), []);
    assert_eq!(written(&server, "out"), [r#"{"t": 1}"#]);
    let stranger = Tls::new();
    let mut other = sink(&SINK, &config(&stranger.ca()), server.dir());
    let fault = other.open().await.unwrap_err();
    assert!(fault.to_string().contains("certificate"), "{fault}");
    assert_eq!(pause(&fault), None);
}

#[test]
fn mistakes_are_named() {
    for (config, wanted) in [
        (
            r#"{"url": "example.org"}"#,
            "url: 'example.org' is none: an address is https",
        ),
        (r#"{"url": "ftp://example.org"}"#, "url: 'ftp://example.org' is none"),
        // What may be a secret is not said.
        (
            r#"{"url": "ftp://u:p@example.org/x?key=k"}"#,
            "url: 'example.org/x' is none",
        ),
        (r#"{"url": "example.org/x?key=k"}"#, "url: 'example.org/x' is none"),
        (r#"{"url": "ftp://host/x?mail=a@b&key=SECRET"}"#, "url: 'ftp' is none"),
        (r#"{"url": "ftp://me:p#w@host/x"}"#, "url: 'ftp' is none"),
        (r#"{"url": "host/x?mail=a@b&key=SECRET"}"#, "url: '' is none"),
        (
            r#"{"url": "http://u:p@example.org"}"#,
            "url: write user and password into keys",
        ),
        (r#"{"url": "http://x/#a"}"#, "url: has a # in it"),
        (r#"{"url": "http://x", "tls": {}}"#, "tls: is of no use without TLS"),
        (
            r#"{"url": "http://x", "user": "u"}"#,
            "password: user and password go together",
        ),
        (
            r#"{"url": "http://x", "user": "u", "password": "p", "bearer": "b"}"#,
            "bearer: set this, or",
        ),
        (
            r#"{"url": "http://x", "user": "u:", "password": "p"}"#,
            "user: has a colon",
        ),
        (r#"{"url": "http://x", "timeout_ms": 1}"#, "timeout_ms: is 100 to 50000"),
        (
            r#"{"url": "http://x", "headers": {"a b": "c"}}"#,
            "headers: 'a b' is no name of a header",
        ),
        (
            r#"{"url": "http://x", "headers": {"host": "c"}}"#,
            "headers.host: is set by itself",
        ),
        (
            r#"{"url": "http://x", "bearer": "b", "headers": {"Authorization": "c"}}"#,
            "headers.Authorization: is made of the credentials already",
        ),
        (r#"{"url": "http://x", "records_max": 0}"#, "records_max: is 1 to 65536"),
        (
            r#"{"url": "http://x", "format": "raw"}"#,
            "payload_column: name the column",
        ),
        (
            r#"{"url": "http://x", "format": "json", "outcomes": true}"#,
            "outcomes: the answer's status",
        ),
        (
            r#"{"url": "http://x", "refused_status": [500]}"#,
            "refused_status: a status that refuses",
        ),
        (
            r#"{"url": "http://x", "op_column": ""}"#,
            "op_column: the name is empty",
        ),
        (
            r#"{"url": "http://x", "idempotency_header": "ä"}"#,
            "idempotency_header: is no name",
        ),
        (r#"{"url": "http://x", "method": "GET"}"#, "method: unknown variant"),
    ] {
        refused(&SINK, config, wanted);
    }
}
