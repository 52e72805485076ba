//! The source that is called, by curl.

use std::{fs, path::Path, time::Duration};

use flow::{Position, Read, Source};
use testkit::{Cmd, Tls, free_port, temp_dir};
use tokio::task::JoinHandle;

use crate::{
    file::testing::{refused, shown, source},
    http::WEBHOOK,
};

const SOON: Duration = Duration::from_secs(60);

/// A source at a free port.
async fn opened(more: &str) -> (Box<dyn Source>, String) {
    let port = free_port();
    let config = format!(r#"{{"listen": "127.0.0.1:{port}", "path": "/in"{more}}}"#);
    let mut source = source(&WEBHOOK, &config, Path::new("/"));
    source.open(None).await.unwrap();
    (source, format!("http://127.0.0.1:{port}/in"))
}

/// Calls; gives what came back, and behind it the status and `Retry-After`.
fn call(url: &str, args: &[&str]) -> JoinHandle<String> {
    let mut curl = Cmd::new("curl").args(["--silent", "--show-error", "--max-time", "50"]);
    curl = curl.args(["--write-out", "%{http_code} %header{retry-after}"]);
    let curl = curl.args(args).arg(url);
    tokio::task::spawn_blocking(move || {
        let done = curl.run(SOON);
        done.ok().replace('\n', " ").trim_end().to_string()
    })
}

/// Reads, as the runner does, until the calls are answered. With `durable` all of it is committed.
async fn answered(
    source: &mut dyn Source,
    calls: Vec<JoinHandle<String>>,
    durable: bool,
) -> (Vec<String>, Vec<String>) {
    let (mut rows, mut letters) = (Vec::new(), Vec::new());
    while calls.iter().any(|call| !call.is_finished()) {
        if source.ready().await
            && let Read::Batch(read) = source.read().await.unwrap()
        {
            if read.batch.rows() > 0 {
                rows.extend(shown(&read.batch).lines().map(str::to_string));
            }
            letters.extend(read.undecodable.into_iter().map(|input| input.reason));
            if durable {
                source.commit(&read.position).await.unwrap();
            }
        }
    }
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.unwrap());
    }
    rows.extend(letters);
    (answers, rows)
}

async fn one(source: &mut dyn Source, call: JoinHandle<String>) -> (String, Vec<String>) {
    let (answers, rows) = answered(source, vec![call], true).await;
    (answers.into_iter().next().unwrap(), rows)
}

/// A row without the time it was received.
fn plain(row: &str) -> String {
    let cells: Vec<&str> = row.split('|').filter(|cell| !cell.ends_with('Z')).collect();
    cells.join("|")
}

#[tokio::test]
async fn a_key_that_is_too_long_is_refused() {
    let (mut source, url) = opened(r#", "anybody": true"#).await;
    for (bytes, wanted) in [
        (255, r#"{"records":1} 200"#),
        (256, "Idempotency-Key has 256 bytes, and at most 255"),
    ] {
        let key = format!("Idempotency-Key: {}", "k".repeat(bytes));
        let (answer, _) = one(&mut *source, call(&url, &["--json", "{}", "--header", &key])).await;
        assert!(answer.contains(wanted), "{answer}");
        assert_eq!(answer.contains(" 400"), bytes > 255, "{answer}");
    }
}

#[tokio::test]
async fn the_answer_is_yes_when_the_records_are_durable() {
    let (mut source, url) = opened(r#", "anybody": true, "types": {"t": "i64"}, "answer_ms_max": 1000"#).await;
    let (answers, rows) = answered(&mut *source, vec![call(&url, &["--json", r#"{"t": 1}"#])], false).await;
    assert_eq!(
        answers[0],
        r#"{"error":"the destination takes long; the records may arrive all the same: send the same again"} 503 5"#
    );
    assert_eq!(rows.len(), 1);
    let args = [
        "--json",
        r#"[{"t": 2}, {"t": "x"}, {"t": 3, "u": "é"}]"#,
        "--header",
        "Idempotency-Key: k 1",
    ];
    let (answer, rows) = one(&mut *source, call(&url, &args)).await;
    assert_eq!(answer, r#"{"records":3} 200"#);
    let plain: Vec<String> = rows[..2].iter().map(|row| plain(row)).collect();
    assert_eq!(plain, ["2|127.0.0.1|k 1|0|?", "3|127.0.0.1|k 1|2|é"]);
    assert!(
        rows[2].starts_with("a request of 127.0.0.1: column 't' is not"),
        "{}",
        rows[2]
    );
    // A position of an earlier session answers nobody.
    source
        .commit(&Position::new(*br#"{"v":1,"session":1,"records":99}"#))
        .await
        .unwrap();
    source.close().await;
    source.open(None).await.unwrap();
    let (answer, rows) = one(&mut *source, call(&url, &["--request", "PUT", "--data", "{}"])).await;
    assert_eq!((answer.as_str(), rows.len()), (r#"{"records":1} 200"#, 1));
}

#[tokio::test]
async fn each_format_is_what_it_says() {
    let dir = temp_dir("webhook");
    fs::write(dir.path().join("bytes"), b"\xff\x00\n").unwrap();
    let bytes = format!("@{}", dir.path().join("bytes").display());
    for (format, body, answer, row) in [
        (
            "json_lines",
            "{\"a\": 1}\n\n{\"a\": 2}\n",
            r#"{"records":2} 200"#,
            "1|127.0.0.1|~|0",
        ),
        (
            "json_lines",
            "{\"a\": 1}\nx",
            r#"{"error":"line 2: not JSON: expected '{' at byte 0"} 400"#,
            "",
        ),
        ("json", "[]", r#"{"records":0} 200"#, ""),
        (
            "json",
            "[1]",
            r#"{"error":"item 0: JSON, but not an object: a record needs named fields"} 400"#,
            "",
        ),
        ("text", "a|b", r#"{"records":1} 200"#, "a|b|127.0.0.1|~|0"),
        (
            "text",
            &bytes,
            r#"{"error":"the body is not UTF-8: invalid utf-8 sequence of 1 bytes from index 0"} 400"#,
            "",
        ),
        ("bytes", &bytes, r#"{"records":1} 200"#, "ff000a|127.0.0.1|~|0"),
    ] {
        let (mut source, url) = opened(&format!(r#", "anybody": true, "format": "{format}""#)).await;
        let (found, rows) = one(&mut *source, call(&url, &["--data-binary", body])).await;
        assert_eq!(found, answer, "{format} {body}");
        assert_eq!(
            rows.first().map(|row| plain(row)).unwrap_or_default(),
            row,
            "{format} {body}"
        );
    }
}

#[tokio::test]
async fn only_those_who_may_are_let_in() {
    let (mut source, url) =
        opened(r#", "bearer": "s3cret", "signature": {"secret": "k3y", "header": "X-Sign", "prefix": ""}"#).await;
    let python = "import hmac, sys; print(hmac.new(b'k3y', sys.argv[1].encode(), 'sha256').hexdigest(), end='')";
    let signed = Cmd::new("python3").args(["-c", python, r#"{"a": "é"}"#]).run(SOON).ok();
    let signature = format!("X-Sign: {signed}");
    let (token, wrong) = ("Authorization: Bearer s3cret", "Authorization: Bearer s3cre");
    let body = r#"{"a": "é"}"#;
    for (args, wanted) in [
        (
            vec!["--data", body],
            r#"{"error":"the token is not the right one"} 401"#,
        ),
        (
            vec!["--data", body, "-H", wrong, "-H", &signature],
            r#"{"error":"the token is not the right one"} 401"#,
        ),
        (
            vec!["--data", body, "-H", token],
            r#"{"error":"the signature is not the right one"} 401"#,
        ),
        (
            vec!["--data", r#"{"a": 2}"#, "-H", token, "-H", &signature],
            r#"{"error":"the signature is not the right one"} 401"#,
        ),
        (
            vec!["--data", body, "-H", "authorization: bearer s3cret", "-H", &signature],
            r#"{"records":1} 200"#,
        ),
        (vec!["-H", token], r#"{"error":"POST or PUT records here"} 405"#),
    ] {
        let (answer, rows) = one(&mut *source, call(&url, &args)).await;
        assert_eq!(answer, wanted, "{args:?}");
        assert_eq!(rows.len(), usize::from(wanted.ends_with("200")), "{args:?}");
    }
    let (answer, _) = one(&mut *source, call(&url.replace("/in", "/other"), &["--data", body])).await;
    assert_eq!(answer, r#"{"error":"there is nothing here"} 404"#);
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_not_kept() {
    let dir = temp_dir("webhook");
    let large = dir.path().join("large");
    fs::write(&large, format!("{{\"a\": \"{}\"}}", "x".repeat(3000))).unwrap();
    let large = format!("@{}", large.display());
    let (mut source, url) = opened(r#", "anybody": true, "body_bytes_max": 2048"#).await;
    for more in [&[][..], &["-H", "Transfer-Encoding: chunked"]] {
        let args = [&["--data-binary", &large], more].concat();
        let (answer, rows) = one(&mut *source, call(&url, &args)).await;
        assert_eq!(answer, r#"{"error":"a body has at most 2048 bytes"} 413"#);
        assert_eq!(rows.len(), 0);
    }
    let many = dir.path().join("many");
    fs::write(&many, "{}\n".repeat(10_001)).unwrap();
    let (mut source, url) = opened(r#", "anybody": true, "format": "json_lines""#).await;
    let (answer, _) = one(
        &mut *source,
        call(&url, &["--data-binary", &format!("@{}", many.display())]),
    )
    .await;
    assert_eq!(answer, r#"{"error":"a request has at most 10000 records"} 413"#);
}

#[tokio::test]
async fn who_comes_while_there_is_no_room_comes_again() {
    let dir = temp_dir("webhook");
    let large = dir.path().join("large");
    fs::write(&large, format!("{{\"a\": \"{}\"}}", "x".repeat(900_000))).unwrap();
    let large = format!("@{}", large.display());
    let (mut source, url) = opened(r#", "anybody": true, "answer_ms_max": 60000"#).await;
    let args = ["--data-binary", &large, "-H", "Expect:"];
    let calls = vec![call(&url, &args), call(&url, &args)];
    // Nobody reads: the inbox holds one of them.
    while !calls.iter().any(JoinHandle::is_finished) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (mut answers, rows) = answered(&mut *source, calls, true).await;
    answers.sort_unstable();
    let wanted = [
        r#"{"error":"there is no room for more records: send the same again"} 503 5"#,
        r#"{"records":1} 200"#,
    ];
    assert_eq!((answers, rows.len()), (wanted.map(str::to_string).to_vec(), 1));
    let (answer, _) = one(&mut *source, call(&url, &args)).await;
    assert_eq!(answer, r#"{"records":1} 200"#);
}

#[tokio::test]
async fn when_it_ends_nobody_is_left_without_an_answer() {
    let (mut source, url) = opened(r#", "anybody": true"#).await;
    let calls = [
        call(&url, &["--data", r#"{"a": 1}"#]),
        call(&url, &["--data", r#"{"a": 2}"#]),
    ];
    let mut positions = Vec::new();
    let mut rows = 0;
    while rows < 2 {
        if let Read::Batch(read) = source.read().await.unwrap() {
            rows += read.batch.rows();
            positions.push(read.position);
        }
    }
    // The first is durable, and the end comes at once.
    let first = br#"records":1"#;
    let mut position = String::from_utf8(positions[0].as_bytes().to_vec()).unwrap();
    if !position.contains(std::str::from_utf8(first).unwrap()) {
        position = position.replace(r#"records":2"#, r#"records":1"#);
    }
    source.commit(&Position::new(position)).await.unwrap();
    source.close().await;
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.unwrap());
    }
    answers.sort_unstable();
    let again = r#"{"error":"the daemon is about to stop, or to start anew: send the same again"} 503 5"#;
    assert_eq!(answers, [again, r#"{"records":1} 200"#]);
}

#[tokio::test]
async fn clients_show_certificates() {
    let tls = Tls::new();
    let (files, client, stranger) = (tls.server(), tls.client("sender"), Tls::new().client("sender"));
    let ca = tls.ca();
    let more = format!(
        r#", "tls": {{"cert_file": {:?}, "key_file": {:?}, "client_ca_file": {ca:?}}}"#,
        files.cert, files.key
    );
    let (mut source, url) = opened(&more).await;
    let url = url.replace("http://", "https://");
    let path = |path: &Path| path.to_str().unwrap().to_string();
    let (ca, cert, key) = (path(&ca), path(&client.cert), path(&client.key));
    let args = ["--cacert", &ca, "--cert", &cert, "--key", &key, "--data", "{}"];
    let (answer, rows) = one(&mut *source, call(&url, &args)).await;
    assert_eq!((answer.as_str(), rows.len()), (r#"{"records":1} 200"#, 1));
    for (cert, key) in [("", ""), (&*path(&stranger.cert), &*path(&stranger.key))] {
        let mut curl = Cmd::new("curl").args(["--silent", "--cacert", &ca, "--data", "{}"]);
        if !cert.is_empty() {
            curl = curl.args(["--cert", cert, "--key", key]);
        }
        let curl = curl.arg(&url);
        let done = tokio::task::spawn_blocking(move || curl.run(SOON)).await.unwrap();
        assert!(!done.status.success(), "{cert}");
    }
}

#[tokio::test]
async fn a_taken_port_is_said() {
    let port = free_port();
    let _other = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let config = format!(r#"{{"listen": "127.0.0.1:{port}", "anybody": true}}"#);
    let fault = source(&WEBHOOK, &config, Path::new("/")).open(None).await.unwrap_err();
    assert!(
        fault.to_string().contains("cannot listen for HTTP at 127.0.0.1"),
        "{fault}"
    );
}

#[test]
fn mistakes_are_named() {
    for (config, wanted) in [
        ("", "anybody: nobody's word is asked for"),
        (
            r#", "anybody": true, "bearer": "x""#,
            "anybody: is the opposite of bearer",
        ),
        (r#", "anybody": true, "path": "in""#, "path: begins with /"),
        (
            r#", "anybody": true, "body_bytes_max": 1"#,
            "body_bytes_max: is 1024 to",
        ),
        (r#", "anybody": true, "answer_ms_max": 1"#, "answer_ms_max: is 100 to"),
        (
            r#", "anybody": true, "format": "text", "types": {"a": "i64"}"#,
            "types: only for JSON",
        ),
        (
            r#", "signature": {"secret": "s", "header": "a b"}"#,
            "signature.header: 'a b' is no name",
        ),
    ] {
        refused(&WEBHOOK, &format!(r#"{{"listen": "127.0.0.1:1"{config}}}"#), wanted);
    }
}
