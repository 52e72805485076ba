//! Against InfluxDB 1.x, and for what version 3 answers against a script.

use std::{fs, path::Path};

use bus_schema::data::{Batch, BatchBuilder, Field, Op, Origin, Schema, Type, Value};
use flow::{Fault, Sink};
use serde_json::{Value as Json, json};
use testkit::{Influxdb, Script, Tls};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::SINK;
use crate::file::testing::{delivery, refused, sink};

/// Records at these nanoseconds, with these values in columns of these names.
fn batch(names: &[&str], rows: &[(i128, &[Value])]) -> Batch {
    let mut fields = vec![Field::new("time", Type::Any)];
    fields.extend(names.iter().map(|name| Field::new(*name, Type::Any)));
    let schema = Schema {
        collection: "t".into(),
        fields,
    };
    let mut builder = BatchBuilder::new(schema.into());
    for (time, values) in rows {
        let time = Value::TimestampUtc(*time);
        let cells: Vec<_> = [&time].into_iter().chain(*values).map(Value::as_cell).collect();
        builder.push(Op::Insert, &cells).unwrap();
    }
    builder.finish(Origin::default())
}

fn text(text: &str) -> Value {
    Value::Text(text.to_string())
}

async fn opened(server: &Influxdb, more: &str) -> Box<dyn Sink> {
    server.query("", "CREATE DATABASE plant");
    let config = format!(r#"{{"url": "{}", "database": "plant"{more}}}"#, server.url());
    let mut sink = sink(&SINK, &config, Path::new("/"));
    sink.open().await.unwrap();
    sink
}

/// The rows a query gives, without their columns' names.
fn rows(server: &Influxdb, query: &str) -> Json {
    let answer: Json = serde_json::from_str(&server.query("plant", query)).unwrap();
    answer["results"][0]["series"][0]["values"].clone()
}

#[tokio::test]
async fn what_is_written_is_read() {
    let server = Influxdb::start();
    let mut sink = opened(&server, r#", "measurement": "a m,=", "tags": ["the line", "none"]"#).await;
    let odd = "q\"\\ ,=\né🦀";
    let names = ["the line", "none", "f", "i", "u", "b", "s", "d", "j", "x y"];
    let row = [
        text("a ,=\\b é"),
        Value::Null,
        Value::F64(-1.5e-3),
        Value::I64(i64::MIN),
        Value::U64(i64::MAX as u64),
        Value::Bool(true),
        text(odd),
        Value::Decimal(1250, 2),
        Value::Json("{\"a\": [1]}".into()),
        Value::Bytes(vec![0xab, 1]),
    ];
    let times = [1_700_000_000_123_456_789, -1, i128::from(i64::MAX) - 1];
    let written = batch(&names, &times.map(|time| (time, &row[..])));
    assert_eq!(sink.write(&[delivery("a", 1, written)]).await.unwrap(), []);
    sink.commit().await.unwrap();
    let query = "select f, i, u, b, s, d, j, \"x y\" from \"a m,=\" where \"the line\" = 'a ,=\\\\b é' order by time";
    let mut sorted = times;
    sorted.sort_unstable();
    let wanted = sorted.map(|time| {
        json!([
            time as i64,
            -1.5e-3,
            i64::MIN,
            i64::MAX,
            true,
            odd,
            12.5,
            "{\"a\": [1]}",
            "ab01"
        ])
    });
    assert_eq!(rows(&server, query), json!(wanted));
    // No tag without a value.
    let tags = rows(&server, "show tag keys from \"a m,=\"");
    assert_eq!(tags, json!([["the line"]]));
}

#[tokio::test]
async fn what_cannot_be_said_goes_to_the_dead_letters() {
    let server = Influxdb::start();
    let mut sink = opened(&server, r#", "measurement_column": "m", "tags": ["t"]"#).await;
    let good = |value: f64| [text("m"), text("x"), Value::F64(value), Value::Missing];
    let with = |at: usize, value: Value| {
        let mut row = good(1.0);
        row[at] = value;
        row
    };
    let cases: Vec<([Value; 4], &str)> = vec![
        (good(1.0), ""),
        (with(2, Value::F64(f64::NAN)), "'v' is NaN"),
        (with(2, Value::F64(f64::NEG_INFINITY)), "'v' is -"),
        (with(2, Value::Decimal(i128::MAX, 2)), "cannot say exactly"),
        (
            with(2, Value::U64(u64::MAX)),
            "'v' is 18446744073709551615, which is more",
        ),
        (with(0, Value::Null), "no measurement in column 'm'"),
        (with(0, text("a\nb")), "no way to write 'a\nb'"),
        (with(1, text("x\\")), "no way to write 'x\\'"),
        (with(2, Value::Null), "no field has a value"),
        // Refused by the server: the field is a float there.
        (with(2, text("warm")), "field type conflict"),
        (good(2.0), ""),
        (with(3, Value::I64(3)), ""),
        (with(2, Value::I64(3)), "field type conflict"),
    ];
    let mut places: Vec<(i128, &[Value])> = Vec::new();
    for (index, (row, _)) in cases.iter().enumerate() {
        places.push((index as i128, row));
    }
    let mut early = places.clone();
    early.truncate(1);
    sink.write(&[delivery("a", 1, batch(&["m", "t", "v", "w"], &early))])
        .await
        .unwrap();
    sink.commit().await.unwrap();
    let rejected = sink
        .write(&[delivery("a", 2, batch(&["m", "t", "v", "w"], &places))])
        .await
        .unwrap();
    let mut found: Vec<(usize, &str)> = rejected.iter().map(|one| (one.row, one.reason.as_str())).collect();
    found.sort_unstable();
    let wanted: Vec<(usize, &str)> = cases
        .iter()
        .enumerate()
        .filter(|(_, (_, why))| !why.is_empty())
        .map(|(row, (_, why))| (row, *why))
        .collect();
    assert_eq!(found.len(), wanted.len(), "{found:#?}");
    for ((row, reason), (wanted_row, why)) in found.iter().zip(&wanted) {
        assert!(
            row == wanted_row && reason.contains(why),
            "{row} {reason}: {wanted_row} {why}"
        );
    }
    assert_eq!(rows(&server, "select v from m"), json!([[0, 1], [10, 2], [11, 1]]));
    // Without a time, with one that is no moment, a deletion, and a name that is taken.
    let mut builder = BatchBuilder::new(batch(&["m", "v"], &[]).schema().clone());
    let mut push = |op, time: Value| {
        builder
            .push(op, &[time.as_cell(), text("m").as_cell(), Value::F64(1.0).as_cell()])
            .unwrap();
    };
    push(Op::Insert, Value::Null);
    push(Op::Insert, Value::Timestamp(5));
    push(Op::Delete, Value::TimestampUtc(5));
    let rejected = sink
        .write(&[delivery("a", 3, builder.finish(Origin::default()))])
        .await
        .unwrap();
    for (one, why) in rejected
        .iter()
        .zip(["no time in column 'time'", "is no moment", "deletion"])
    {
        assert!(one.reason.contains(why), "{}", one.reason);
    }
    assert_eq!(rejected.len(), 3);
    let mut other = opened(&server, r#", "measurement": "m", "time": "at""#).await;
    let rejected = other
        .write(&[delivery("a", 4, batch(&["at"], &[(1, &[Value::TimestampUtc(1)])]))])
        .await
        .unwrap();
    assert!(
        rejected[0].reason.contains("keeps the name 'time' to itself"),
        "{}",
        rejected[0].reason
    );
}

#[tokio::test]
async fn a_restart_in_between_neither_loses_nor_doubles() {
    let server = Influxdb::start();
    let mut sink = opened(&server, r#", "measurement": "m", "lines_max": 2"#).await;
    let values: Vec<[Value; 1]> = (0..5).map(|value| [Value::I64(value)]).collect();
    let places: Vec<(i128, &[Value])> = values
        .iter()
        .enumerate()
        .map(|(at, row)| (at as i128, &row[..]))
        .collect();
    let deliveries = [
        delivery("a", 1, batch(&["v"], &places[..3])),
        delivery("a", 2, batch(&["v"], &places[3..])),
    ];
    sink.write(&deliveries).await.unwrap();
    server.kill9();
    let more = [delivery("a", 3, batch(&["w"], &places))];
    let fault = sink.write(&more).await.unwrap_err();
    assert!(matches!(fault, Fault::Retry { .. }), "{fault:?}");
    sink.close().await;
    assert!(sink.open().await.is_err());
    server.start();
    sink.open().await.unwrap();
    // As after a crash of the daemon: what is there comes again.
    sink.write(&deliveries).await.unwrap();
    sink.write(&more).await.unwrap();
    sink.commit().await.unwrap();
    assert_eq!(rows(&server, "select count(v), count(w) from m"), json!([[0, 5, 5]]));
}

#[tokio::test]
async fn credentials_and_certificates_are_checked() {
    let tls = Tls::new();
    let server = Influxdb::start_guarded(&tls);
    let row = [Value::I64(1)];
    let one = [delivery("a", 1, batch(&["v"], &[(1, &row)]))];
    let ca = tls.ca();
    for (password, wanted) in [("tester", ""), ("wrong", "are the credentials right?")] {
        let more = format!(
            r#", "measurement": "m", "user": "tester", "password": "{password}", "tls": {{"ca_file": {ca:?}}}"#
        );
        let mut sink = opened(&server, &more).await;
        match (sink.write(&one).await, wanted) {
            (Ok(rejected), "") => assert_eq!(rejected, []),
            (Err(fault @ Fault::Retry { .. }), wanted) => assert!(fault.to_string().contains(wanted), "{fault}"),
            (other, _) => panic!("{other:?}"),
        }
    }
    assert_eq!(rows(&server, "select v from m"), json!([[1, 1]]));
    let open_to_all = Influxdb::start();
    let config = format!(
        r#"{{"url": "{}", "database": "none", "measurement": "m"}}"#,
        open_to_all.url()
    );
    let mut lost = sink(&SINK, &config, Path::new("/"));
    lost.open().await.unwrap();
    let fault = lost.write(&one).await.unwrap_err();
    assert!(
        matches!(fault, Fault::Retry { .. }) && fault.to_string().contains("database not found"),
        "{fault}"
    );
}

#[tokio::test]
async fn the_check_asks_behind_the_path_of_a_proxy() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // Closes after each answer: the first connection may only be tried.
    let proxy = tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 4096];
            let read = connection.read(&mut head).await.unwrap();
            let is_ours = head[..read].starts_with(b"GET /influx/ping HTTP/1.1\r\n");
            let status = if is_ours { "204 No Content" } else { "404 Not Found" };
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let _ = connection.write_all(answer.as_bytes()).await;
        }
    });
    for end in ["", "/"] {
        let config =
            format!(r#"{{"url": "http://127.0.0.1:{port}/influx{end}", "database": "plant", "measurement": "m"}}"#);
        let said = sink(&SINK, &config, Path::new("/")).check().await.unwrap();
        assert!(said.contains("204"), "{said}");
    }
    proxy.abort();
}

/// Version 3's answers, and what it was sent.
const VERSION_3: &str = r#"
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def do_POST(self):
        lines = self.rfile.read(int(self.headers["Content-Length"])).decode().splitlines()
        with open("requests", "a") as file:
            file.write(json.dumps([self.path, self.headers["Authorization"], lines]) + "\n")
        bad = [{"original_line": line, "line_number": number, "error_message": "a string in an int column"}
               for number, line in enumerate(lines, 1) if '"' in line]
        if bad:
            body = json.dumps({"error": "partial write of line protocol occurred", "data": bad}).encode()
            self.send_response(400)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        else:
            self.send_response(204)
            self.end_headers()
print("listening")
HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"#;

#[tokio::test]
async fn lines_that_are_named_are_believed() {
    let server = Script::start(VERSION_3, &[]);
    let config = format!(
        r#"{{"url": "http://127.0.0.1:{}/db/", "org": "a b", "bucket": "x&y", "token": "t", "measurement": "m", "unsigned": true}}"#,
        server.port()
    );
    let mut sink = sink(&SINK, &config, Path::new("/"));
    sink.open().await.unwrap();
    let values = [Value::U64(u64::MAX), text("a"), Value::I64(2), text("b")].map(|value| [value]);
    let places: Vec<(i128, &[Value])> = values.iter().map(|row| (7, &row[..])).collect();
    let rejected = sink.write(&[delivery("a", 1, batch(&["v"], &places))]).await.unwrap();
    let said: Vec<_> = rejected.iter().map(|one| (one.row, one.reason.as_str())).collect();
    let why = "InfluxDB refuses it: a string in an int column";
    assert_eq!(said, [(1, why), (3, why)]);
    let requests = fs::read_to_string(server.dir().join("requests")).unwrap();
    let requests: Vec<Json> = requests
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let path = "/db/api/v2/write?org=a+b&bucket=x%26y&precision=ns";
    assert_eq!(requests.len(), 2);
    assert_eq!(
        requests[1],
        json!([path, "Token t", ["m v=18446744073709551615u 7", "m v=2i 7"]])
    );
}

#[test]
fn mistakes_are_named() {
    for (config, wanted) in [
        (r#""measurement": "m""#, "bucket: set this, or database"),
        (
            r#""measurement": "m", "bucket": "b", "database": "d""#,
            "bucket: set this, or database",
        ),
        (
            r#""measurement": "m", "bucket": "b", "user": "u""#,
            "user: is for version 1",
        ),
        (
            r#""measurement": "m", "database": "d", "token": "u""#,
            "token: is for version 2",
        ),
        (
            r#""measurement": "m", "database": "d", "org": "u""#,
            "org: is for version 2",
        ),
        (
            r#""measurement": "m", "bucket": "d", "retention_policy": "u""#,
            "retention_policy: is for version 1",
        ),
        (r#""bucket": "b""#, "measurement: set this, or measurement_column"),
        (
            r#""bucket": "b", "measurement": "a\\""#,
            "measurement: line protocol has no way",
        ),
        (
            r#""bucket": "b", "measurement": "m", "tags": ["time"]"#,
            "tags: InfluxDB keeps",
        ),
        (
            r#""bucket": "b", "measurement": "m", "tags": ["a"], "fields": ["a"]"#,
            "fields: 'a' is something else",
        ),
        (
            r#""bucket": "b", "measurement": "m", "fields": []"#,
            "fields: a point has at least one",
        ),
        (
            r#""bucket": "b", "measurement": "m", "lines_max": 0"#,
            "lines_max: is 1 to",
        ),
    ] {
        refused(&SINK, &format!(r#"{{"url": "http://x", {config}}}"#), wanted);
    }
}
