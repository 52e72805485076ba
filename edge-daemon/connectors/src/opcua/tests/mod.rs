//! Against asyncua, which encodes by its own lights.

mod protected;

use std::path::Path;

use bus_schema::data::Value as Data;
use serde_json::{Value as Json, json};
use testkit::{Link, OpcUa as Server};

use super::*;
use crate::file::testing::{refused, source};

/// The config's source, with the keys of `more` in it.
fn opcua(url: &str, more: &Json, ids: &[&str]) -> Box<dyn Source> {
    let nodes: Vec<Json> = ids.iter().map(|id| json!({"id": id})).collect();
    let mut config = json!({"url": url, "interval_ms": 50, "nodes": nodes});
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    source(&SOURCE, &config.to_string(), Path::new("/"))
}

/// A row: node, value, status, source time.
type Row = (String, Data, String, Data);

/// The rows of the next batch.
async fn rows(source: &mut dyn Source) -> Result<Vec<Row>, Fault> {
    loop {
        if let Read::Batch(read) = source.read().await? {
            let batch = read.batch;
            let text = |row, column| batch.cell(row, column).to_string();
            let value = |row, column| batch.cell(row, column).to_value();
            let row = |row| (text(row, 0), value(row, 2), text(row, 3), value(row, 4));
            assert!((0..batch.rows()).all(|row| value(row, 6) != Data::Null));
            return Ok((0..batch.rows()).map(row).collect());
        }
    }
}

/// Reads until there are so many rows.
async fn taken(source: &mut dyn Source, count: usize) -> Vec<Row> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(rows(source).await.unwrap());
    }
    all
}

fn values(rows: &[Row]) -> Vec<Data> {
    rows.iter().map(|(_, value, ..)| value.clone()).collect()
}

fn number(id: &str, value: f64) -> Json {
    json!([{"id": id, "type": "Double", "value": value}])
}

#[tokio::test]
async fn every_type_read_and_subscribed() {
    let cases = [
        (json!({"type": "Boolean", "value": true}), Data::Bool(true)),
        (json!({"type": "SByte", "value": -128}), Data::I64(-128)),
        (json!({"type": "Byte", "value": 255}), Data::I64(255)),
        (json!({"type": "Int16", "value": -32_768}), Data::I64(-32_768)),
        (json!({"type": "UInt16", "value": 65_535}), Data::I64(65_535)),
        (json!({"type": "Int32", "value": i32::MIN}), Data::I64(i32::MIN.into())),
        (json!({"type": "UInt32", "value": u32::MAX}), Data::I64(u32::MAX.into())),
        (json!({"type": "Int64", "value": i64::MIN}), Data::I64(i64::MIN)),
        (json!({"type": "UInt64", "value": u64::MAX}), Data::U64(u64::MAX)),
        (json!({"type": "Float", "value": 1.5}), Data::F32(1.5)),
        (json!({"type": "Double", "value": -0.1}), Data::F64(-0.1)),
        (json!({"type": "Double", "value": "inf"}), Data::F64(f64::INFINITY)),
        (json!({"type": "String", "value": "häll"}), Data::Text("häll".into())),
        (json!({"type": "String", "value": ""}), Data::Text(String::new())),
        (json!({"type": "String", "value": null}), Data::Null),
        (
            json!({"type": "DateTime", "value": "1969-12-31T23:59:59.999999+00:00"}),
            Data::TimestampUtc(-1000),
        ),
        (
            json!({"type": "Guid", "value": "72962b91-fa75-4ae6-8d28-b404dc7daf63"}),
            Data::Uuid([
                0x72, 0x96, 0x2b, 0x91, 0xfa, 0x75, 0x4a, 0xe6, 0x8d, 0x28, 0xb4, 0x04, 0xdc, 0x7d, 0xaf, 0x63,
            ]),
        ),
        (
            json!({"type": "ByteString", "value": "00ff"}),
            Data::Bytes(vec![0, 255]),
        ),
        (
            json!({"type": "XmlElement", "value": "<a/>"}),
            Data::Text("<a/>".into()),
        ),
        (
            json!({"type": "NodeId", "value": "ns=2;s=x"}),
            Data::Text("ns=2;s=x".into()),
        ),
        (
            json!({"type": "ExpandedNodeId", "value": "i=85"}),
            Data::Text("i=85".into()),
        ),
        (
            json!({"type": "StatusCode", "value": 0x8034_0000_u32}),
            Data::Text("BadNodeIdUnknown".into()),
        ),
        (
            json!({"type": "QualifiedName", "value": ["q", 2]}),
            Data::Text("2:q".into()),
        ),
        (
            json!({"type": "LocalizedText", "value": "Halle"}),
            Data::Text("Halle".into()),
        ),
        (json!({"type": "Int32", "value": [1, -2]}), Data::Json("[1,-2]".into())),
        (
            json!({"type": "Int32", "value": [[1, 2], [3, 4]]}),
            Data::Json("[[1,2],[3,4]]".into()),
        ),
        (
            json!({"type": "String", "value": ["a", "b\""]}),
            Data::Json(r#"["a","b\""]"#.into()),
        ),
    ];
    let id = |number: usize| format!("ns=2;i={}", 1000 + number);
    let nodes = cases.iter().enumerate().map(|(at, (node, _))| {
        let mut node = node.clone();
        node["id"] = json!(id(at));
        node
    });
    let nodes: Vec<Json> = nodes.collect();
    let server = Server::start(&json!(nodes));
    let ids: Vec<String> = (0..cases.len()).map(id).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    for mode in ["read", "subscribe"] {
        let mut source = opcua(&server.url(), &json!({"mode": mode}), &ids);
        source.open(None).await.unwrap();
        let found = taken(&mut *source, cases.len()).await;
        for (id, (node, wanted)) in ids.iter().zip(&cases) {
            let row = found
                .iter()
                .find(|(found, ..)| found == id)
                .unwrap_or_else(|| panic!("no {id}"));
            assert_eq!((&row.1, row.2.as_str()), (wanted, "Good"), "{mode} {node}");
        }
        source.close().await;
    }
}

#[tokio::test]
async fn changes_come_in_order_with_quality_and_source_time() {
    let server = Server::start(&number("ns=2;s=speed", 0.0));
    let mut source = opcua(&server.url(), &json!({}), &["ns=2;s=speed"]);
    source.open(None).await.unwrap();
    assert_eq!(values(&taken(&mut *source, 1).await), [Data::F64(0.0)]);
    let set = |value: f64, status: u32, second: u32| {
        server.set(&json!([{
            "id": "ns=2;s=speed", "type": "Double", "value": value, "status": status,
            "source_time": format!("2024-01-02T03:04:{second:02}.000001+00:00"),
        }]));
    };
    // Within one report: all of them are kept.
    for step in 1..=5 {
        set(f64::from(step), 0, step);
    }
    set(6.0, 0x4090_0000, 6);
    set(7.0, 0x808c_0000, 7);
    let rows = taken(&mut *source, 7).await;
    let base_ns = 1_704_164_640_000_001_000_i128;
    for (step, (node, value, status, time)) in (1..).zip(&rows) {
        let at = Data::TimestampUtc(base_ns + i128::from(step) * 1_000_000_000);
        assert_eq!((node.as_str(), time), ("ns=2;s=speed", &at), "{rows:?}");
        let wanted = match step {
            6 => "UncertainLastUsableValue",
            7 => "BadSensorFailure",
            _ => "Good",
        };
        assert_eq!(status, wanted, "{rows:?}");
        // A bad one has no value that could be used.
        assert!(step == 7 || *value == Data::F64(f64::from(step)), "{rows:?}");
    }
}

#[tokio::test]
async fn a_server_restarts() {
    let server = Server::start(&number("ns=2;s=a", 1.0));
    let mut source = opcua(&server.url(), &json!({}), &["ns=2;s=a"]);
    source.open(None).await.unwrap();
    assert_eq!(values(&taken(&mut *source, 1).await), [Data::F64(1.0)]);
    server.kill9();
    let fault = loop {
        if let Err(fault) = rows(&mut *source).await {
            break fault.to_string();
        }
    };
    assert!(fault.starts_with(&server.url()), "{fault}");
    source.close().await;
    let fault = source.open(None).await.unwrap_err();
    assert!(
        matches!(&fault, Fault::Retry { cause, .. } if cause.contains("refused")),
        "{fault:?}"
    );
    server.start();
    source.open(None).await.unwrap();
    // The current value comes first, then what changes.
    assert_eq!(values(&taken(&mut *source, 1).await), [Data::F64(1.0)]);
    server.set(&number("ns=2;s=a", 2.0));
    assert_eq!(values(&taken(&mut *source, 1).await), [Data::F64(2.0)]);
}

#[tokio::test]
async fn a_connection_breaks() {
    let server = Server::start(&number("ns=2;s=a", 1.0));
    let link = Link::to(server.addr());
    let mut source = opcua(
        &format!("opc.tcp://127.0.0.1:{}", link.port()),
        &json!({}),
        &["ns=2;s=a"],
    );
    source.open(None).await.unwrap();
    taken(&mut *source, 1).await;
    link.drop_connections();
    let fault = rows(&mut *source).await.unwrap_err();
    assert!(matches!(fault, Fault::Retry { .. }), "{fault:?}");
    source.close().await;
    server.set(&number("ns=2;s=a", 2.0));
    source.open(None).await.unwrap();
    assert_eq!(values(&taken(&mut *source, 1).await), [Data::F64(2.0)]);
}

#[tokio::test]
async fn a_bad_node_is_named_and_does_not_silence_the_others() {
    let server = Server::start(&number("ns=2;s=good", 1.0));
    for mode in ["read", "subscribe"] {
        let mut source = opcua(&server.url(), &json!({"mode": mode}), &["ns=2;s=bad", "ns=2;s=good"]);
        source.open(None).await.unwrap();
        let mut rows = taken(&mut *source, 2).await;
        rows.truncate(2);
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        let shown: Vec<_> = rows
            .iter()
            .map(|(node, value, status, _)| (node.as_str(), value.clone(), status.as_str()))
            .collect();
        assert_eq!(
            shown,
            [
                ("ns=2;s=bad", Data::Null, "BadNodeIdUnknown"),
                ("ns=2;s=good", Data::F64(1.0), "Good")
            ],
            "{mode}"
        );
        source.close().await;
    }
}

#[tokio::test]
async fn what_nobody_takes_waits_at_the_server() {
    let server = Server::start(&number("ns=2;s=a", 0.0));
    let mut source = opcua(&server.url(), &json!({}), &["ns=2;s=a"]);
    source.open(None).await.unwrap();
    taken(&mut *source, 1).await;
    // No time for the source to do anything meanwhile.
    for step in 1..=30 {
        server.set(&number("ns=2;s=a", f64::from(step)));
    }
    let wanted: Vec<Data> = (1..=30).map(|step| Data::F64(f64::from(step))).collect();
    assert_eq!(values(&taken(&mut *source, 30).await), wanted);
}

#[tokio::test]
async fn users_have_passwords() {
    let nodes = number("ns=2;s=a", 1.0);
    let server = Server::start_for_users(&nodes, &json!({"reader": "secret"}));
    for (more, wanted) in [
        (json!({"user": "reader", "password": "secret"}), None),
        (
            json!({"user": "reader", "password": "wrong"}),
            Some("BadUserAccessDenied"),
        ),
        (json!({}), Some("lets nobody in without a user name")),
    ] {
        let mut source = opcua(&server.url(), &more, &["ns=2;s=a"]);
        match (source.open(None).await, wanted) {
            (Ok(()), None) => assert_eq!(values(&taken(&mut *source, 1).await), [Data::F64(1.0)]),
            (Err(fault), Some(wanted)) => assert!(fault.to_string().contains(wanted), "{fault}"),
            (opened, wanted) => panic!("{opened:?} instead of {wanted:?}"),
        }
        source.close().await;
    }
}

#[tokio::test]
async fn large_messages_come_in_pieces_and_many_nodes_in_several_requests() {
    let nodes: Vec<Json> = (0..1200)
        .map(|number| json!({"id": format!("ns=2;i={}", 2000 + number), "type": "Int32", "value": number}))
        .chain([json!({"id": "ns=2;s=long", "type": "String", "value": "ä".repeat(150_000)})])
        .collect();
    let server = Server::start(&json!(nodes));
    let ids: Vec<&str> = nodes.iter().map(|node| node["id"].as_str().unwrap()).collect();
    for mode in ["read", "subscribe"] {
        let mut source = opcua(&server.url(), &json!({"mode": mode}), &ids);
        source.open(None).await.unwrap();
        let rows = taken(&mut *source, ids.len()).await;
        let long = rows.iter().find(|(node, ..)| node == "ns=2;s=long").unwrap();
        assert_eq!(long.1, Data::Text("ä".repeat(150_000)));
        for (number, id) in ids.iter().enumerate().take(1200) {
            let row = rows.iter().find(|(node, ..)| node == id).unwrap();
            assert_eq!(row.1, Data::I64(number as i64), "{mode} {id}");
        }
        source.close().await;
    }
}

#[tokio::test]
async fn a_frozen_server_is_noticed_and_a_stranger_is_told_apart() {
    let server = Server::start(&number("ns=2;s=a", 1.0));
    let mut source = opcua(&server.url(), &json!({"mode": "read"}), &["ns=2;s=a"]);
    source.open(None).await.unwrap();
    taken(&mut *source, 1).await;
    server.pause();
    let fault = loop {
        if let Err(fault) = rows(&mut *source).await {
            break fault.to_string();
        }
    };
    assert!(fault.ends_with("no answer within 10 s"), "{fault}");
    server.resume();
    source.close().await;
    source.open(None).await.unwrap();
    taken(&mut *source, 1).await;

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("opc.tcp://{}", listener.local_addr().unwrap());
    let stranger = std::thread::spawn(move || {
        use std::io::Write as _;
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"220 mail.example.org ESMTP\r\n").unwrap();
        stream
    });
    let mut source = opcua(&url, &json!({}), &["ns=2;s=a"]);
    let fault = source.open(None).await.unwrap_err();
    assert!(fault.to_string().ends_with("it is no OPC UA server"), "{fault}");
    stranger.join().unwrap();
}

#[test]
fn addresses() {
    for (url, host, port) in [
        ("opc.tcp://plc", "plc", 4840),
        ("opc.tcp://10.0.0.5:4841/a/b:c", "10.0.0.5", 4841),
        ("opc.tcp://[::1]", "::1", 4840),
        ("opc.tcp://[::1]:5000/x", "::1", 5000),
    ] {
        let server = server(url).unwrap();
        assert_eq!((server.host.as_str(), server.port), (host, port));
    }
    for url in ["", "http://a", "opc.tcp://", "opc.tcp://a:x", "opc.tcp://:1"] {
        assert!(server(url).is_err(), "{url}");
    }
}

#[test]
fn mistakes_are_named() {
    let good = json!({"url": "opc.tcp://a", "nodes": [{"id": "i=85"}]});
    for (more, wanted) in [
        (json!({"url": "plc:4840"}), "url: 'plc:4840' is none"),
        (json!({"nodes": []}), "nodes: 1 to 10000 nodes"),
        (json!({"nodes": [{"id": "85"}]}), "nodes[0].id: '85' is no node id"),
        (json!({"interval_ms": 9}), "interval_ms: must be from 10"),
        (json!({"sampling_ms": 86_400_001}), "sampling_ms: must be from 0"),
        (json!({"mode": "read", "sampling_ms": 1}), "sampling_ms: is of use only"),
        (json!({"queue": 0}), "queue: must be from 1"),
        (json!({"password": "x"}), "user: is missing"),
        (json!({"mode": "poll"}), "mode: unknown variant `poll`"),
    ] {
        let mut config = good.clone();
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        refused(&SOURCE, &config.to_string(), wanted);
    }
}
