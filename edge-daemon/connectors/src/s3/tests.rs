use std::{
    collections::BTreeMap,
    io::Read as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use bus_schema::data::{Batch, Field, Op, Type, Value};
use flow::{Sink, Watermark};
use testkit::{S3, TempDir, temp_dir};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::SINK;
use crate::file::testing::{batch_of, delivery, refused, sink};

fn config(server: &S3, more: &str) -> String {
    format!(
        r#"{{"bucket": "plant", "region": "eu-central-1", "endpoint": "{}", "access_key": "tester",
            "secret_key": "a secret/with+signs", "format": "json_lines"{more}}}"#,
        server.url()
    )
}

fn readings(rows: &[(i64, &str)]) -> Batch {
    let rows: Vec<[Value; 2]> = rows
        .iter()
        .map(|(n, site)| [Value::I64(*n), Value::Text((*site).to_string())])
        .collect();
    let rows: Vec<(Op, &[Value])> = rows.iter().map(|row| (Op::Insert, row.as_slice())).collect();
    batch_of(vec![Field::new("n", Type::I64), Field::new("site", Type::Text)], &rows)
}

/// A sink that is open, and the directory of its daemon.
async fn begun(config: &str) -> (Box<dyn Sink>, TempDir) {
    let dir = temp_dir("s3-sink");
    let mut sink = sink(&SINK, config, dir.path());
    sink.open().await.unwrap();
    sink.begin(&delivery("a", 1, readings(&[])).stream, &Watermark::default());
    (sink, dir)
}

/// Objects as text, by the ends of their names: the lineage in them is left out.
fn texts(server: &S3) -> BTreeMap<String, String> {
    let stream = delivery("a", 1, readings(&[])).stream.to_string();
    let text = |(name, bytes): (String, Vec<u8>)| (name.replace(&stream, "S"), String::from_utf8(bytes).unwrap());
    server.objects().into_iter().map(text).collect()
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, text)| (name.to_string(), text.to_string()))
        .collect()
}

#[tokio::test]
async fn objects_are_there_once_they_are_whole_and_come_again_under_the_same_names() {
    let server = S3::start();
    let config = config(&server, r#", "prefix": "raw/{site}/""#);
    let (mut first, _dir) = begun(&config).await;
    let one = delivery("a", 7, readings(&[(1, "a"), (2, "ä b"), (3, "a")]));
    assert_eq!(first.write(std::slice::from_ref(&one)).await.unwrap(), []);
    first.commit().await.unwrap();
    let gathered = first.gathered(&one.stream).unwrap();
    assert_eq!((gathered.mark.seq, gathered.is_durable), (7, false));
    assert_eq!(texts(&server), BTreeMap::new());
    // A name that leads elsewhere, and none.
    let two = delivery("a", 8, readings(&[(4, ".."), (5, ""), (6, "ä b")]));
    let refused = first.write(std::slice::from_ref(&two)).await.unwrap();
    let rows: Vec<usize> = refused.iter().map(|rejected| rejected.row).collect();
    assert_eq!(rows, [0, 1], "{refused:?}");
    first.commit().await.unwrap();
    first.complete(&one.stream).await.unwrap();
    let gathered = first.gathered(&one.stream).unwrap();
    assert_eq!(
        (gathered.mark.seq, gathered.mark.delivered, gathered.is_durable),
        (8, 4, true)
    );
    let wanted = map(&[
        (
            "raw/a/w.n.S.000000000001.jsonl",
            "{\"n\":1,\"site\":\"a\"}\n{\"n\":3,\"site\":\"a\"}\n",
        ),
        (
            "raw/ä b/w.n.S.000000000002.jsonl",
            "{\"n\":2,\"site\":\"ä b\"}\n{\"n\":6,\"site\":\"ä b\"}\n",
        ),
    ]);
    assert_eq!(texts(&server), wanted);
    // The daemon died before it knew that: the same again, cut otherwise.
    let (mut second, _dir) = begun(&config).await;
    let all = readings(&[(1, "a"), (2, "ä b"), (3, "a"), (6, "ä b")]);
    second.write(&[delivery("a", 7, all)]).await.unwrap();
    // What is not committed is undone by closing; then it comes again.
    second.close().await;
    second.open().await.unwrap();
    for (seq, rows) in [(7, [(1, "a"), (2, "ä b")]), (8, [(3, "a"), (6, "ä b")])] {
        second.write(&[delivery("a", seq, readings(&rows))]).await.unwrap();
        second.commit().await.unwrap();
    }
    second.complete(&one.stream).await.unwrap();
    assert_eq!(texts(&server), wanted);
}

#[tokio::test]
async fn a_commit_that_is_large_or_old_enough_makes_them() {
    let server = S3::start();
    let (mut sink, _dir) = begun(&config(&server, r#", "max_bytes": 1024, "max_age_s": 1"#)).await;
    let large: Vec<(i64, &str)> = (0..100).map(|n| (n, "x")).collect();
    sink.write(&[delivery("a", 1, readings(&large))]).await.unwrap();
    sink.commit().await.unwrap();
    assert_eq!(server.objects().len(), 1);
    let small = delivery("a", 2, readings(&[(1, "x")]));
    sink.write(std::slice::from_ref(&small)).await.unwrap();
    sink.commit().await.unwrap();
    assert_eq!(server.objects().len(), 1);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    sink.commit().await.unwrap();
    assert!(sink.gathered(&small.stream).unwrap().is_durable);
    let names: Vec<String> = texts(&server).into_keys().collect();
    assert_eq!(names, ["w.n.S.000000000001.jsonl", "w.n.S.000000000101.jsonl"]);
}

#[tokio::test]
async fn packed_ones_and_those_with_new_columns() {
    let server = S3::start();
    for (packing, ending) in [("gzip", ".gz"), ("zstd", ".zst")] {
        let (mut sink, _dir) = begun(&config(&server, &format!(r#", "compression": "{packing}""#))).await;
        let one = delivery("a", 1, readings(&[(1, "x")]));
        sink.write(std::slice::from_ref(&one)).await.unwrap();
        sink.commit().await.unwrap();
        sink.complete(&one.stream).await.unwrap();
        let objects = server.objects();
        let bytes = objects.iter().find(|(name, _)| name.ends_with(ending)).unwrap().1;
        let mut text = String::new();
        match packing {
            "gzip" => drop(flate2::read::GzDecoder::new(bytes.as_slice()).read_to_string(&mut text)),
            _ => text = String::from_utf8(zstd::stream::decode_all(bytes.as_slice()).unwrap()).unwrap(),
        }
        assert_eq!(text, "{\"n\":1,\"site\":\"x\"}\n");
    }
    let config = config(&server, r#", "prefix": "csv-""#).replace("json_lines", "csv");
    let (mut sink, _dir) = begun(&config).await;
    let narrow = batch_of(vec![Field::new("n", Type::I64)], &[(Op::Insert, &[Value::I64(0)])]);
    sink.write(&[
        delivery("a", 1, narrow),
        delivery("a", 2, readings(&[(1, "x"), (2, "y")])),
    ])
    .await
    .unwrap();
    sink.commit().await.unwrap();
    sink.complete(&delivery("a", 1, readings(&[])).stream).await.unwrap();
    let mut csv = server.objects();
    csv.retain(|name, _| name.starts_with("csv-"));
    let csv: Vec<String> = csv
        .into_values()
        .map(|bytes| String::from_utf8(bytes).unwrap())
        .collect();
    assert_eq!(csv, ["n,site\n0,\n1,x\n2,y\n"]);
}

#[tokio::test]
async fn what_is_in_an_object_does_not_depend_on_how_records_come_in_batches() {
    let server = S3::start();
    let narrow = |n: i64| batch_of(vec![Field::new("n", Type::I64)], &[(Op::Insert, &[Value::I64(n)])]);
    for (header, wanted) in [
        ("true", "n,site\n1,\n2,\n3,\"a\nb\"\n4,\"c\"\"\"\n"),
        ("false", "1,\n2,\n3,\"a\nb\"\n4,\"c\"\"\"\n"),
    ] {
        // The first two come alone, once committed and once not, or with the others' columns.
        for commits in [vec![1, 2, 3], vec![2, 3], vec![3]] {
            let prefix = format!(
                r#", "prefix": "{header}-{}/", "csv": {{"header": {header}}}"#,
                commits.len()
            );
            let (mut sink, _dir) = begun(&config(&server, &prefix).replace("json_lines", "csv")).await;
            let last = readings(&[(3, "a\nb"), (4, "c\"")]);
            for (seq, batch) in [(1, narrow(1)), (2, narrow(2)), (3, last)] {
                sink.write(&[delivery("a", seq, batch)]).await.unwrap();
                if commits.contains(&seq) {
                    sink.commit().await.unwrap();
                }
            }
            let stream = delivery("a", 1, readings(&[])).stream;
            sink.complete(&stream).await.unwrap();
            let mut objects = texts(&server);
            objects.retain(|name, _| name.starts_with(&format!("{header}-{}/", commits.len())));
            let name = format!("{header}-{}/w.n.S.000000000001.csv", commits.len());
            assert_eq!(objects, map(&[(&name, wanted)]));
        }
    }
}

#[tokio::test]
async fn a_refused_record_names_no_object() {
    let server = S3::start();
    let (mut sink, _dir) = begun(&config(&server, r#", "prefix": "{site}/""#)).await;
    let site = |site: &str| [Value::I64(1), Value::Text(site.to_string())];
    let (a, b) = (site("a"), site("b"));
    let rows: [(Op, &[Value]); 3] = [(Op::Delete, &a), (Op::Insert, &b), (Op::Insert, &a)];
    let fields = vec![Field::new("n", Type::I64), Field::new("site", Type::Text)];
    let one = delivery("a", 1, batch_of(fields, &rows));
    assert_eq!(sink.write(std::slice::from_ref(&one)).await.unwrap().len(), 1);
    sink.commit().await.unwrap();
    sink.complete(&one.stream).await.unwrap();
    let names: Vec<String> = texts(&server).into_keys().collect();
    // As if the refused one had come in a batch of its own.
    assert_eq!(names, ["a/w.n.S.000000000002.jsonl", "b/w.n.S.000000000001.jsonl"]);
}

#[tokio::test]
async fn large_ones_go_in_parts_and_nothing_is_left_of_those_that_fail() {
    let server = S3::start();
    let text = "x".repeat(40_000);
    let rows: Vec<(i64, &str)> = (0..300).map(|n| (n, text.as_str())).collect();
    let (mut sink, _dir) = begun(&config(&server, r#", "max_bytes": 100000000"#)).await;
    for (seq, rows) in rows.chunks(10).enumerate() {
        sink.write(&[delivery("a", seq as u64 + 1, readings(rows))])
            .await
            .unwrap();
        sink.commit().await.unwrap();
    }
    let stream = delivery("a", 1, readings(&[])).stream;
    server.refuse("partNumber=2", 1);
    let fault = sink.complete(&stream).await.unwrap_err().to_string();
    assert!(
        fault.contains("503 SlowDown: Please reduce your request rate."),
        "{fault}"
    );
    assert_eq!((server.objects().len(), server.uploads().trim()), (0, "[]"));
    // It breaks off for good, and cannot even be aborted.
    server.refuse("partNumber=3", 1);
    server.refuse("DELETE", 1);
    sink.complete(&stream).await.unwrap_err();
    assert_eq!(server.uploads().matches("jsonl").count(), 1);
    drop(sink);
    let (mut sink, _dir) = begun(&config(&server, r#", "max_bytes": 100000000"#)).await;
    assert_eq!(server.uploads().trim(), "[]");
    for (seq, rows) in rows.chunks(10).enumerate() {
        sink.write(&[delivery("a", seq as u64 + 1, readings(rows))])
            .await
            .unwrap();
        sink.commit().await.unwrap();
    }
    sink.complete(&stream).await.unwrap();
    let objects = texts(&server);
    let object = &objects["w.n.S.000000000001.jsonl"];
    let wanted: String = rows
        .iter()
        .map(|(n, site)| format!("{{\"n\":{n},\"site\":\"{site}\"}}\n"))
        .collect();
    assert!(*object == wanted, "{} bytes instead of {}", object.len(), wanted.len());
    assert!(server.requests().contains("partNumber=3"));
}

/// Answers as a store that lists two pages of uploads. Returns its port, and what it is asked.
async fn store_of_two_pages() -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let asks = Arc::clone(&asked);
    let upload = |name: &str, id: &str| format!("<Upload><Key>{name}</Key><UploadId>{id}</UploadId></Upload>");
    let ours = "raw/w.n.S.000000000001.jsonl";
    let first = format!(
        "<R><IsTruncated>true</IsTruncated><NextKeyMarker>raw/&amp;</NextKeyMarker>\
         <NextUploadIdMarker>7+</NextUploadIdMarker>{}</R>",
        upload("raw/theirs", "7")
    );
    let second = format!("<R><IsTruncated>false</IsTruncated>{}</R>", upload(ours, "8"));
    tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 8192];
            let read = connection.read(&mut head).await.unwrap();
            let head = String::from_utf8_lossy(&head[..read]).into_owned();
            let line = head.lines().next().unwrap_or_default().to_string();
            let body = match (line.starts_with("GET"), line.contains("key-marker=")) {
                (false, _) => "",
                (true, false) => &first,
                (true, true) => &second,
            };
            asks.lock().unwrap().push(line);
            let length = body.len();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
            let _ = connection.write_all(answer.as_bytes()).await;
        }
    });
    (port, asked)
}

#[tokio::test]
async fn uploads_that_were_left_behind_are_found_on_all_pages() {
    for (prefix, fixed) in [("raw/", "raw%2F"), ("raw/{site}/", "raw%2F"), ("{site}/", "")] {
        let (port, asked) = store_of_two_pages().await;
        let config = format!(
            r#"{{"bucket": "plant", "region": "eu-central-1", "endpoint": "http://127.0.0.1:{port}",
                "access_key": "tester", "secret_key": "secret", "format": "json_lines", "prefix": "{prefix}"}}"#
        );
        let dir = temp_dir("s3-pages");
        sink(&SINK, &config, dir.path()).open().await.unwrap();
        let asked: Vec<String> = asked
            .lock()
            .unwrap()
            .drain(..)
            .filter(|line| !line.is_empty())
            .collect();
        let [first, second, abort] = &asked[..] else {
            panic!("two pages and one to abort: {asked:#?}")
        };
        for list in [first, second] {
            let is_narrow = list.contains(&format!("&prefix={fixed}&"));
            assert_eq!(is_narrow, !fixed.is_empty(), "{list}");
        }
        assert!(!first.contains("marker"), "{first}");
        assert!(
            second.contains("key-marker=raw%2F%26&") && second.contains("upload-id-marker=7%2B&"),
            "{second}"
        );
        assert!(abort.starts_with("DELETE ") && abort.contains("uploadId=8"), "{abort}");
    }
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    let server = S3::start();
    let right = config(&server, "");
    let dir = temp_dir("s3-wrong");
    for (from, to, wanted) in [
        (
            "\"tester\"",
            "\"nobody\"",
            "403 InvalidAccessKeyId: The key you provided does not exist in our records. (is access_key right?)",
        ),
        ("a secret", "another", "(is secret_key right?)"),
        ("eu-central-1", "us-east-1", "(is region right?)"),
        ("\"plant\"", "\"nowhere\"", "(the bucket has to exist)"),
    ] {
        let mut sink = sink(&SINK, &right.replace(from, to), dir.path());
        let fault = sink.open().await.unwrap_err();
        assert!(matches!(fault, flow::Fault::Retry { .. }), "{fault:?}");
        assert!(fault.to_string().contains(wanted), "{to}: {fault}");
        assert!(!fault.to_string().contains("another"), "{fault}");
    }
    server.stop();
    let fault = sink(&SINK, &right, dir.path()).open().await.unwrap_err().to_string();
    assert!(fault.contains("cannot connect to 127.0.0.1:"), "{fault}");
    for (from, to, wanted) in [
        ("\"plant\"", "\"a/b\"", "bucket: is no name"),
        ("http://", "ftp://", "endpoint: "),
        ("\"format\"", "\"prefix\": \"/x\", \"format\"", "prefix: "),
        ("\"format\"", "\"prefix\": \"{\", \"format\"", "prefix: "),
        ("\"format\"", "\"max_bytes\": 1, \"format\"", "max_bytes: is 1024 to"),
        ("\"format\"", "\"csv\": {}, \"format\"", "csv: only for"),
        ("\"format\"", "\"tls\": {}, \"format\"", "tls: is of no use"),
    ] {
        refused(&SINK, &right.replacen(from, to, 1), wanted);
    }
}
