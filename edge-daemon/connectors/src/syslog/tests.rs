//! Against `logger` of util-linux, which speaks both formats over both transports; and by hand, what it does not send.

use std::{io::Write as _, net::TcpStream as Plain, path::Path};

use testkit::{Cmd, Tls, free_port};

use super::*;
use crate::file::testing::{refused, shown, source};

const SOON: Duration = Duration::from_secs(30);

/// Reads until there are so many rows and letters; rows without the first column.
async fn taken(source: &mut dyn Source, wanted: usize) -> (Vec<String>, Vec<String>) {
    let (mut rows, mut reasons) = (Vec::new(), Vec::new());
    while rows.len() + reasons.len() < wanted {
        if let Read::Batch(read) = source.read().await.unwrap() {
            let lines = shown(&read.batch);
            let without_time = |line: &str| line.split_once('|').map_or(String::new(), |(_, rest)| rest.to_string());
            rows.extend(lines.lines().map(without_time));
            reasons.extend(read.undecodable.into_iter().map(|input| input.reason));
        }
    }
    (rows, reasons)
}

fn logger(port: u16, more: &[&str]) {
    let mut command = Cmd::new("logger").args(["--server", "127.0.0.1", "--port", &port.to_string()]);
    command = command.args(["--priority", "local3.warning", "--tag", "pump", "--id=4711"]);
    command.args(more).run(SOON).ok();
}

#[tokio::test]
async fn logger_is_understood() {
    let port = free_port();
    let config = format!(r#"{{"udp": "127.0.0.1:{port}", "tcp": "127.0.0.1:{port}", "utc_offset": "Z"}}"#);
    let mut source = source(&SOURCE, &config, Path::new("/"));
    source.open(None).await.unwrap();
    let data = ["--sd-id", "zoo@1", "--sd-param", "tiger=\"hungry\""];
    let cases: [(&[&str], &str, &str); 6] = [
        (&["--udp", "--rfc3164", "hot: 93 °C"], "~", "hot: 93 °C"),
        (&["--tcp", "--rfc3164", "a"], "~", "a"),
        (&["--tcp", "--octet-count", "--rfc3164", "b"], "~", "b"),
        (&["--udp", "--rfc5424", "c"], "quality", "c"),
        (
            &["--tcp", "--octet-count", "--rfc5424", "--msgid", "M1", "d"],
            "quality",
            "d",
        ),
        (&["--tcp", "--rfc5424", "--msgid", "M1", "e"], "quality", "e"),
    ];
    for (arguments, data_wanted, text) in cases {
        let modern = arguments.contains(&"--rfc5424");
        let arguments: Vec<&str> = if modern {
            [&data[..], arguments].concat()
        } else {
            arguments.to_vec()
        };
        logger(port, &arguments);
        let (rows, reasons) = taken(&mut *source, 1).await;
        assert!(reasons.is_empty(), "{reasons:?}");
        let fields: Vec<&str> = rows[0].split('|').collect();
        assert_eq!(fields[..3], ["127.0.0.1", "local3", "warning"], "{}", rows[0]);
        assert_ne!(fields[3], "~", "the time was not understood: {}", rows[0]);
        assert_eq!(
            (fields[6], fields[7], fields[10]),
            ("pump", "4711", text),
            "{}",
            rows[0]
        );
        assert!(
            data_wanted == fields[9] || fields[9].contains(r#""zoo@1":{"tiger":"hungry"}"#),
            "{}",
            rows[0]
        );
        assert_eq!(fields[8], if arguments.contains(&"--msgid") { "M1" } else { "~" });
    }
    source.close().await;
    // The port is free again at once.
    source.open(None).await.unwrap();
    logger(port, &["--udp", "again"]);
    assert!(taken(&mut *source, 1).await.0[0].ends_with("|again"));
}

#[tokio::test]
async fn bad_messages_do_not_stop_the_others() {
    let port = free_port();
    let mut source = source(&SOURCE, &format!(r#"{{"tcp": "127.0.0.1:{port}"}}"#), Path::new("/"));
    source.open(None).await.unwrap();
    let connect = || Plain::connect(("127.0.0.1", port)).unwrap();
    let mut quiet = connect();
    let mut one = connect();
    one.write_all(b"<13>Feb  5 17:32:18 h a: first\n<13>\xff\n").unwrap();
    let mut broken = connect();
    broken.write_all(b"99999999 <13>x").unwrap();
    let mut long = vec![b'x'; MESSAGE_BYTES_MAX + 1];
    long.push(b'\n');
    one.write_all(&long).unwrap();
    one.write_all(b"<13>second\n").unwrap();
    let (rows, reasons) = taken(&mut *source, 4).await;
    // Without utc_offset its time is only text.
    assert_eq!(rows[0], "127.0.0.1|user|notice|~|Feb  5 17:32:18|h|a|~|~|~|first");
    assert!(
        rows[1].ends_with("|second") && reasons[0].contains("not UTF-8"),
        "{rows:?} {reasons:?}"
    );
    assert!(reasons[1].contains("more than 65536 bytes"), "{reasons:?}");
    quiet.write_all(b"<13>cut off").unwrap();
    drop(quiet);
    assert!(taken(&mut *source, 1).await.0[0].ends_with("|cut off"));
}

#[tokio::test]
async fn a_sender_waits_while_nobody_reads_and_loses_nothing() {
    const MESSAGES: usize = 40_000;
    let port = free_port();
    let mut source = source(&SOURCE, &format!(r#"{{"tcp": "127.0.0.1:{port}"}}"#), Path::new("/"));
    source.open(None).await.unwrap();
    let sending = std::thread::spawn(move || {
        let mut stream = Plain::connect(("127.0.0.1", port)).unwrap();
        for number in 0..MESSAGES {
            writeln!(stream, "<13>{number} {}", "x".repeat(200)).unwrap();
        }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!sending.is_finished(), "8 MB went somewhere");
    let (rows, _) = taken(&mut *source, MESSAGES).await;
    sending.join().unwrap();
    for (number, row) in rows.iter().enumerate() {
        assert!(row.contains(&format!("|{number} x")), "{number}: {row}");
    }
}

#[tokio::test]
async fn connections_can_be_protected() {
    let (port, tls) = (free_port(), Tls::new());
    let (server, client) = (tls.server(), tls.client("device"));
    let config = serde_json::json!({
        "tcp": format!("127.0.0.1:{port}"),
        "tls": {"cert_file": server.cert, "key_file": server.key, "client_ca_file": tls.ca()},
    });
    let mut source = source(&SOURCE, &config.to_string(), Path::new("/"));
    source.open(None).await.unwrap();
    // OpenSSL is another implementation than ours.
    let ca = tls.ca();
    let connect = move |more: Vec<PathBuf>| {
        let address = format!("127.0.0.1:{port}");
        let mut openssl = Cmd::new("openssl").args([
            "s_client",
            "-quiet",
            "-no_ign_eof",
            "-verify_return_error",
            "-connect",
            &address,
        ]);
        openssl = openssl.arg("-CAfile").arg(&ca);
        if let [cert, key] = &more[..] {
            openssl = openssl.arg("-cert").arg(cert).arg("-key").arg(key);
        }
        // Refused, it fails; and it waits for us, who never answer.
        openssl.stdin("<13>secret\n").run(SOON)
    };
    let sending = tokio::task::spawn_blocking(move || {
        connect(vec![]);
        connect(vec![client.cert, client.key]);
    });
    let (rows, _) = taken(&mut *source, 1).await;
    assert!(rows.len() == 1 && rows[0].ends_with("|secret"), "{rows:?}");
    sending.await.unwrap();
    assert!(
        matches!(source.read().await, Ok(Read::Idle)),
        "the one without a certificate was let in"
    );
}

#[test]
fn mistakes_are_named() {
    for (config, wanted) in [
        ("{}", "udp: set udp, tcp or both"),
        (r#"{"udp": "here"}"#, "udp: invalid socket address"),
        (
            r#"{"udp": "0.0.0.0:1", "tls": {"cert_file": "a", "key_file": "b"}}"#,
            "tls: is for connections",
        ),
        (
            r#"{"udp": "0.0.0.0:1", "utc_offset": "CET"}"#,
            "utc_offset: 'CET' is not like",
        ),
    ] {
        refused(&SOURCE, config, wanted);
    }
}
