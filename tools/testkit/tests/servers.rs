//! Each server starts, answers its own protocol, keeps its port and data over restarts, and stops.
//! The protocols are spoken by hand, so that the kit is not tested with what it exists to test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use testkit::{CertFiles, Mosquitto, NULL, Nats, Postgres, Service, Tls};

const ANSWER: Duration = Duration::from_secs(10);
/// How long a frozen server is listened to.
const SILENCE: Duration = Duration::from_millis(200);

trait Socket: Read + Write {}
impl<T: Read + Write> Socket for T {}

fn tcp(port: u16) -> TcpStream {
    let socket = TcpStream::connect(("127.0.0.1", port)).expect("the server accepts");
    socket.set_read_timeout(Some(ANSWER)).expect("a socket has a timeout");
    socket
}

fn tls(socket: TcpStream, ca: &Path, client: Option<&CertFiles>) -> StreamOwned<ClientConnection, TcpStream> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(ca).expect("a certificate"))
        .expect("a CA");
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring knows TLS")
        .with_root_certificates(roots);
    let config = match client {
        None => config.with_no_client_auth(),
        Some(files) => config
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_file(&files.cert).expect("a certificate")],
                PrivateKeyDer::from_pem_file(&files.key).expect("a key"),
            )
            .expect("a pair"),
    };
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).expect("a client"), socket)
}

/// An MQTT 3.1.1 string or binary field.
fn field(bytes: &str) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("a short field");
    [&length.to_be_bytes(), bytes.as_bytes()].concat()
}

/// A packet of less than 128 bytes.
fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, u8::try_from(body.len()).expect("a short packet")], body].concat()
}

/// Connects, and returns the broker's return code, or the reason why there was none.
fn mqtt_connect(socket: &mut impl Socket, user: Option<(&str, &str)>) -> std::io::Result<u8> {
    let flags = if user.is_some() { 0b1100_0010 } else { 0b0000_0010 };
    let mut body = [&field("MQTT")[..], &[4, flags, 0, 60], &field("kit")].concat();
    if let Some((name, password)) = user {
        body.extend([field(name), field(password)].concat());
    }
    socket.write_all(&packet(0x10, &body))?;
    let mut answer = [0; 4];
    socket.read_exact(&mut answer)?;
    assert_eq!(answer[..2], [0x20, 2], "not a CONNACK: {answer:?}");
    Ok(answer[3])
}

/// Connects and asks for a PONG; returns the server's error line when it sends one instead.
fn nats_ping(socket: &mut impl Socket, connect: &str) -> Result<(), String> {
    write!(socket, "CONNECT {connect}\r\nPING\r\n").map_err(|e| e.to_string())?;
    let mut lines = BufReader::new(socket);
    loop {
        let mut line = String::new();
        lines.read_line(&mut line).map_err(|e| e.to_string())?;
        match line.trim_end() {
            "PONG" => return Ok(()),
            "" => return Err("hung up".into()),
            info if info.starts_with("INFO") || info == "PING" => {}
            error => return Err(error.to_owned()),
        }
    }
}

fn nats_plain(port: u16, connect: &str) -> Result<(), String> {
    nats_ping(&mut tcp(port), connect)
}

const ANYBODY: &str = r#"{"verbose":false,"pedantic":false}"#;

/// A process that was reaped or waits to be.
fn is_gone(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

/// Start, stop, kill, freeze: the same for every server. `answers` tells whether it does.
fn lifecycle(server: &Service, answers: impl Fn(Duration) -> bool) {
    assert!(answers(ANSWER), "it answers after its start");
    let (port, first) = (server.port(), server.pid());

    server.restart();
    assert!(is_gone(first) && server.pid() != first, "a restart is a new process");
    assert_eq!(server.port(), port);
    assert!(answers(ANSWER), "it answers after a restart");

    let second = server.pid();
    server.kill9();
    assert!(is_gone(second) && !server.is_running());
    assert!(
        TcpStream::connect(("127.0.0.1", port)).is_err(),
        "nobody listens after a kill"
    );
    server.start();
    assert!(answers(ANSWER), "it answers after a kill and a start");

    server.pause();
    assert!(!answers(SILENCE), "a frozen server does not answer");
    server.resume();
    assert!(answers(ANSWER), "it answers after it was frozen");

    server.pause();
    server.stop();
    assert!(!server.is_running(), "a frozen server can be stopped");
}

#[test]
fn mosquitto_lifecycle() {
    let broker = Mosquitto::start();
    assert_eq!(broker.url(), format!("mqtt://127.0.0.1:{}", broker.port()));
    lifecycle(&broker, |patience| {
        let mut socket = tcp(broker.port());
        socket.set_read_timeout(Some(patience)).expect("a socket has a timeout");
        mqtt_connect(&mut socket, None).is_ok_and(|code| code == 0)
    });
    let pid = {
        broker.start();
        broker.pid()
    };
    drop(broker);
    assert!(is_gone(pid), "dropping stops it");
}

#[test]
fn mosquitto_users_and_acl() {
    let broker = Mosquitto::builder()
        .user("ann", "secret")
        .user("bob", "other")
        .acl("user ann\ntopic readwrite a/#\n")
        .start();
    let cases = [
        (None, 5),
        (Some(("ann", "wrong")), 5),
        (Some(("eve", "secret")), 5),
        (Some(("ann", "secret")), 0),
        (Some(("bob", "other")), 0),
    ];
    for (user, want) in cases {
        let code = mqtt_connect(&mut tcp(broker.port()), user).expect("an answer");
        assert_eq!(code, want, "{user:?}");
    }
}

#[test]
fn mosquitto_tls() {
    let (ours, theirs) = (Tls::new(), Tls::new());
    let broker = Mosquitto::builder().tls(&ours).start();
    assert_eq!(broker.url(), format!("mqtts://localhost:{}", broker.port()));
    let connect = |ca: &Path| mqtt_connect(&mut tls(tcp(broker.port()), ca, None), None);
    assert_eq!(connect(&ours.ca()).expect("trusted"), 0);
    assert!(connect(&theirs.ca()).is_err(), "a stranger's authority is not trusted");

    let strict = Mosquitto::builder().tls(&ours).client_certs().start();
    let connect = |client: Option<&CertFiles>| mqtt_connect(&mut tls(tcp(strict.port()), &ours.ca(), client), None);
    assert_eq!(connect(Some(&ours.client("ann"))).expect("known"), 0);
    assert!(
        connect(Some(&theirs.client("ann"))).is_err(),
        "a stranger's certificate is refused"
    );
    assert!(connect(None).is_err(), "no certificate is refused");
}

#[test]
fn mosquitto_persists() {
    let broker = Mosquitto::builder().persist().line("max_keepalive 600").start();
    let mut socket = tcp(broker.port());
    assert_eq!(mqtt_connect(&mut socket, None).expect("an answer"), 0);
    // A retained QoS 1 message, and its acknowledgement.
    let publish = [&field("kept")[..], &[0, 1], b"after the restart"].concat();
    socket.write_all(&packet(0x33, &publish)).expect("sent");
    let mut puback = [0; 4];
    socket.read_exact(&mut puback).expect("acknowledged");
    assert_eq!(puback[0], 0x40);

    broker.restart();

    let mut socket = tcp(broker.port());
    assert_eq!(mqtt_connect(&mut socket, None).expect("an answer"), 0);
    let subscribe = [&[0, 2], &field("#")[..], &[0]].concat();
    socket.write_all(&packet(0x82, &subscribe)).expect("sent");
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"after the restart") {
        socket.read_exact(&mut byte).expect("the retained message comes");
        seen.push(byte[0]);
    }
}

#[test]
fn nats_lifecycle() {
    let server = Nats::start();
    assert_eq!(server.url(), format!("nats://127.0.0.1:{}", server.port()));
    lifecycle(&server, |patience| {
        let mut socket = tcp(server.port());
        socket.set_read_timeout(Some(patience)).expect("a socket has a timeout");
        nats_ping(&mut socket, ANYBODY).is_ok()
    });
}

#[test]
fn nats_users() {
    let server = Nats::builder()
        .user("ann", "secret")
        .user_with_permissions("bob", "other", r#"publish: ["b.>"], subscribe: ["b.>"]"#)
        .start();
    let login = |user: &str, password: &str| format!(r#"{{"verbose":false,"user":"{user}","pass":"{password}"}}"#);
    assert_eq!(nats_plain(server.port(), &login("ann", "secret")), Ok(()));
    assert_eq!(nats_plain(server.port(), &login("bob", "other")), Ok(()));
    for refused in [login("ann", "wrong"), login("eve", "secret"), ANYBODY.to_owned()] {
        let error = nats_plain(server.port(), &refused).expect_err("refused");
        assert!(error.contains("Authorization Violation"), "{refused}: {error}");
    }
}

/// nats-server speaks first, in the clear, and asks for TLS in what it says.
fn nats_tls(port: u16, ca: &Path, client: Option<&CertFiles>) -> Result<(), String> {
    let mut socket = tcp(port);
    let mut byte = [0];
    while byte != *b"\n" {
        socket.read_exact(&mut byte).map_err(|e| e.to_string())?;
    }
    nats_ping(&mut tls(socket, ca, client), ANYBODY)
}

#[test]
fn nats_over_tls() {
    let (ours, theirs) = (Tls::new(), Tls::new());
    let server = Nats::builder().tls(&ours).start();
    assert_eq!(server.url(), format!("tls://localhost:{}", server.port()));
    assert_eq!(nats_tls(server.port(), &ours.ca(), None), Ok(()));
    assert!(
        nats_tls(server.port(), &theirs.ca(), None).is_err(),
        "a stranger's authority is not trusted"
    );

    let strict = Nats::builder().tls(&ours).client_certs().start();
    assert_eq!(nats_tls(strict.port(), &ours.ca(), Some(&ours.client("ann"))), Ok(()));
    assert!(nats_tls(strict.port(), &ours.ca(), Some(&theirs.client("ann"))).is_err());
    assert!(nats_tls(strict.port(), &ours.ca(), None).is_err());
}

#[test]
fn nats_mqtt_listener() {
    let server = Nats::builder().mqtt().user("ann", "secret").start();
    assert_eq!(server.mqtt_url(), format!("mqtt://127.0.0.1:{}", server.mqtt_port()));
    for _ in 0..2 {
        let connect = |user| mqtt_connect(&mut tcp(server.mqtt_port()), user);
        assert_eq!(connect(Some(("ann", "secret"))).expect("an answer"), 0);
        assert!(!connect(Some(("ann", "wrong"))).is_ok_and(|code| code == 0));
        server.restart();
    }

    let tls_files = Tls::new();
    let secure = Nats::builder().mqtt().tls(&tls_files).start();
    assert_eq!(secure.mqtt_url(), format!("mqtts://localhost:{}", secure.mqtt_port()));
    let code = mqtt_connect(&mut tls(tcp(secure.mqtt_port()), &tls_files.ca(), None), None);
    assert_eq!(code.expect("an answer"), 0);
}

#[test]
fn postgres_lifecycle() {
    let server = Postgres::start();
    server.query("create table kept (n int)");
    lifecycle(&server, |patience| {
        // The startup packet that asks for TLS is answered by one byte, before any login.
        let mut socket = tcp(server.port());
        socket.set_read_timeout(Some(patience)).expect("a socket has a timeout");
        let mut answer = [0];
        socket.write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]).expect("sent");
        socket.read_exact(&mut answer).is_ok() && answer == *b"N"
    });
    server.start();
    assert_eq!(server.query_one("show fsync"), "on");
    server.query("insert into kept values (1), (2)");
    server.kill9();
    server.start();
    assert_eq!(
        server.query_one("select count(*) from kept"),
        "2",
        "what was committed survives a kill"
    );
}

#[test]
fn postgres_queries() {
    let server = Postgres::start();
    let url = server.create_database("orders");
    assert_eq!(url, format!("postgres://postgres@127.0.0.1:{}/orders", server.port()));
    server.query_in(
        "orders",
        "create table t (a int, b text); insert into t values (1, E'x\\ty\\nz'), (2, null)",
    );
    let rows = server.query_in("orders", "select a, b from t order by a");
    assert_eq!(rows, [["1", "x\ty\nz"], ["2", NULL]]);
    assert_eq!(server.query_one("select ''"), "");
    assert!(server.query_in("orders", "select 1 where false").is_empty());
    let failed = server.try_query_in("orders", "select * from nothing");
    assert!(
        !failed.status.success() && failed.stderr.contains("nothing"),
        "{failed}"
    );
}

/// What psql says over TCP.
fn psql(url: &str) -> testkit::Finished {
    let psql = testkit::find_program("psql", "postgresql");
    testkit::Cmd::new(psql)
        .args(["-X", "-A", "-t", "-w", "-c", "select 'hello'", url])
        .run(ANSWER)
}

#[test]
fn postgres_password_and_tls() {
    let tls = Tls::new();
    let server = Postgres::builder()
        .password("secret")
        .tls(&tls)
        .config("wal_level", "logical")
        .start();
    assert_eq!(server.query_one("show wal_level"), "logical");
    let url = server.url();
    assert_eq!(
        url,
        format!("postgres://postgres:secret@127.0.0.1:{}/postgres", server.port())
    );
    let verified = format!("{url}?sslmode=verify-full&sslrootcert={}", tls.ca().display());
    assert_eq!(psql(&verified).ok(), "hello\n");
    for refused in [
        format!("{url}?sslmode=disable"),
        format!("{url}?sslmode=verify-full&sslrootcert={}", Tls::new().ca().display()),
        verified.replace("secret", "wrong"),
    ] {
        assert!(!psql(&refused).status.success(), "{refused}");
    }
}

#[test]
fn clusters_do_not_share_data() {
    let (first, second) = (Postgres::start(), Postgres::start());
    first.query("create table only_here (n int)");
    assert!(
        !second
            .try_query_in("postgres", "select * from only_here")
            .status
            .success()
    );
}
