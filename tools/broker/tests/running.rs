//! The broker's life: starting, stopping, being restarted, and what it says when it cannot.
#![allow(clippy::result_large_err, reason = "rumqttc's own error type")]

mod support;

use std::{
    fs,
    io::Read as _,
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
};

use bus_schema::access::User;
use rumqttc::ConnectionError;
use support::{Fleet, Peer, QUIET, SOON, broker_cmd};
use testkit::{Signal, Tls, free_port, wait_ok};

#[test]
fn clients_come_back_after_a_restart() {
    let fleet = Fleet::new();
    let mut broker = fleet.start("");
    let mut a = fleet.member(fleet.a);
    let mut b = fleet.member(fleet.b);
    let (subject, inbox) = (fleet.control(&fleet.a, &fleet.b), fleet.control_to(&fleet.b));
    assert!(b.subscribe(&inbox));
    a.publish(&subject, "1").unwrap();
    assert_eq!(b.receive_text(), "1");

    for round in ["asked to stop", "killed"] {
        if round == "killed" {
            broker.kill9();
        } else {
            assert_eq!(broker.term_and_wait(SOON).code(), Some(0), "{}", broker.log());
            assert!(broker.log().contains("stopped"));
        }
        broker = fleet.start("");
        for client in [&mut a, &mut b] {
            wait_ok("a new connection", SOON, || client.await_connected());
        }
        assert!(!b.session_present, "{round}: Mycelial's clients start afresh");
        assert!(b.subscribe(&inbox));
        a.publish(&subject, round).unwrap();
        assert_eq!(b.receive_text(), round);
    }
    assert_eq!(broker.term_and_wait(SOON).code(), Some(0));
    assert!(TcpListener::bind(fleet.address()).is_ok(), "the port is free again");
}

#[test]
fn sessions_are_kept_when_asked_for() {
    let fleet = Fleet::new();
    let sessions = "data_dir = 'sessions'";
    let mut broker = fleet.start(sessions);
    let user = User::Node(fleet.b);
    let mut keeping = fleet.options(user, &user.name());
    keeping.set_clean_session(false);
    let mut b = Peer::connect(keeping.clone()).unwrap();
    assert!(!b.session_present);
    assert!(b.subscribe(&fleet.control_to(&fleet.b)));
    b.leave();

    let subject = fleet.control(&fleet.a, &fleet.b);
    fleet.member(fleet.a).publish(&subject, "while away").unwrap();
    assert_eq!(broker.term_and_wait(SOON).code(), Some(0));
    broker = fleet.start(sessions);
    fleet.member(fleet.a).publish(&subject, "after the restart").unwrap();
    let mut b = Peer::connect(keeping.clone()).unwrap();
    assert!(b.session_present);
    assert_eq!(
        [b.receive_text(), b.receive_text()],
        ["while away", "after the restart"]
    );

    let mut second = fleet.options(user, &format!("{}-2", user.name()));
    second.set_clean_session(false);
    assert!(
        matches!(Peer::connect(second), Err(ConnectionError::ConnectionRefused(_))),
        "one kept session a user"
    );

    let other = Fleet::new();
    let config = other.config(&format!("data_dir = '{}'", fleet.dir.path().join("sessions").display()));
    let ended = broker_cmd().arg("--config").arg(config).run(SOON);
    assert_eq!(ended.code(), Some(2), "{ended}");
    assert!(ended.stderr.contains("cannot keep sessions (`data_dir`)"), "{ended}");
    assert!(broker.is_running());
}

#[test]
fn without_a_data_dir_no_session_is_promised() {
    let fleet = Fleet::new();
    let _broker = fleet.start("");
    let user = User::Node(fleet.b);
    let mut keeping = fleet.options(user, &user.name());
    keeping.set_clean_session(false);
    let mut b = Peer::connect(keeping.clone()).unwrap();
    assert!(b.subscribe(&fleet.control_to(&fleet.b)));
    b.leave();
    fleet
        .member(fleet.a)
        .publish(&fleet.control(&fleet.a, &fleet.b), "while away")
        .unwrap();
    let mut b = Peer::connect(keeping).unwrap();
    assert!(!b.session_present);
    assert!(b.receive(QUIET).is_none());
}

#[test]
fn tls_with_its_own_authority() {
    let fleet = Fleet::new();
    let pki = Tls::new();
    let port = free_port();
    let (cert, key) = (pki.server().cert.display(), pki.server().key.display());
    let mut broker = fleet.start(&format!(
        "tls = {{ listen = '127.0.0.1:{port}', cert = '{cert}', key = '{key}' }}"
    ));
    broker.wait_for_log(&format!("listening on 127.0.0.1:{port} with TLS"), SOON);

    // One that connects and says nothing must not keep the others out.
    let silent = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
    let secured = |node, ca: &std::path::Path| {
        let mut options = fleet.options_at(port, User::Node(node), node.as_str());
        options.set_transport(support::tls(ca));
        Peer::connect(options)
    };
    let mut a = secured(fleet.a, &pki.ca()).unwrap();
    assert!(a.subscribe(&fleet.control_to(&fleet.a)));
    let mut b = fleet.member(fleet.b);
    b.publish(&fleet.control(&fleet.b, &fleet.a), "from the plain port")
        .unwrap();
    assert_eq!(a.receive_text(), "from the plain port");
    a.publish(&fleet.data(&fleet.a), vec![7; 64 * 1024]).unwrap();

    let stranger = secured(fleet.b, &Tls::new().ca());
    assert!(
        matches!(stranger, Err(ConnectionError::Tls(_) | ConnectionError::Io(_))),
        "{:?}",
        stranger.err()
    );
    drop(silent);
    assert_eq!(broker.term_and_wait(SOON).code(), Some(0));
}

#[test]
fn what_keeps_it_from_starting_is_said() {
    let fleet = Fleet::new();
    let mut first = fleet.start("");
    let at = fleet.address();
    let secret = fleet.dir.path().join("open.secret");
    fs::write(&secret, "x").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    let missing = fleet.dir.path().join("nowhere.toml");

    let other = Fleet::new();
    for (what, config, expected) in [
        (
            "port",
            fleet.config(""),
            format!("cannot listen on {at}: the port is taken\n  hint: stop the other program"),
        ),
        (
            "TLS port",
            other.config(&format!(
                "tls = {{ listen = '{at}', cert = '{cert}', key = '{key}' }}",
                cert = Tls::new().server().cert.display(),
                key = "k"
            )),
            "cannot read the server's certificate".to_string(),
        ),
        (
            "file",
            missing.clone(),
            format!("{}: cannot read the configuration", missing.display()),
        ),
    ] {
        let ended = broker_cmd().arg("--config").arg(config).run(SOON);
        assert_eq!(ended.code(), Some(2), "{what}: {ended}");
        assert!(ended.stderr.contains(&expected), "{what}: {ended}");
        assert!(!ended.stderr.contains("listening on"), "{what}: {ended}");
        assert!(ended.stdout.is_empty(), "{what}: {ended}");
    }

    let pki = Tls::new();
    let (cert, key) = (pki.server().cert.display(), pki.server().key.display());
    for (more, expected) in [
        (
            format!("tls = {{ listen = '{at}', cert = '{cert}', key = '{key}' }}"),
            format!("cannot listen on {at}"),
        ),
        (
            "lsiten = 'x'".to_string(),
            "broker.toml:5: unknown field `lsiten`".to_string(),
        ),
        ("lsiten = 'x'".to_string(), "did you mean `listen`?".to_string()),
        (
            "data_dir = '/proc/nowhere'".to_string(),
            "cannot keep sessions (`data_dir`)".to_string(),
        ),
        (
            "log.level = 'mqtt5=loud'".to_string(),
            "log level 'mqtt5=loud'".to_string(),
        ),
    ] {
        let ended = broker_cmd().arg("--config").arg(other.config(&more)).run(SOON);
        assert_eq!(ended.code(), Some(2), "{more}: {ended}");
        assert!(ended.stderr.contains(&expected), "{more}: {ended}");
    }
    let open = fs::read_to_string(other.config(""))
        .unwrap()
        .replace("'broker.secret'", &format!("{secret:?}"));
    let path = other.dir.path().join("open.toml");
    fs::write(&path, open).unwrap();
    let ended = broker_cmd().arg("--config").arg(path).run(SOON);
    assert_eq!(ended.code(), Some(2), "{ended}");
    assert!(ended.stderr.contains("chmod 600"), "{ended}");
    assert!(first.is_running());
}

#[test]
fn help_begins_with_an_example() {
    let said = broker_cmd().arg("--help").run(SOON).ok();
    assert!(
        said.starts_with("Example:\n  mycelial-broker --config /etc/mycelial/broker.toml\n"),
        "{said}"
    );
    assert!(said.contains(broker::EXAMPLE.trim_end()), "{said}");
    assert_eq!(broker_cmd().run(SOON).code(), Some(2));
}

#[test]
fn logs_for_machines() {
    let fleet = Fleet::new();
    let mut broker = fleet.start("log = { format = 'json' }");
    drop(fleet.member(fleet.a));
    broker.wait_for_log("connection lost", SOON);
    broker.signal(Signal::Int);
    assert_eq!(broker.wait_exit(SOON).and_then(|status| status.code()), Some(0));
    for line in broker.log().lines() {
        assert!(line.starts_with('{') && line.ends_with('}'), "{line}");
        assert!(
            line.contains("\"level\":\"") && line.contains("\"message\":\""),
            "{line}"
        );
    }
}

#[test]
fn no_more_clients_than_allowed() {
    let fleet = Fleet::new();
    let mut broker = fleet.start("max_clients = 2");
    let (a, b) = (fleet.member(fleet.a), fleet.member(fleet.b));
    let mut third = TcpStream::connect(fleet.address()).unwrap();
    third.set_read_timeout(Some(SOON)).unwrap();
    assert!(
        matches!(third.read(&mut [0]), Ok(0) | Err(_)),
        "the connection is closed at once"
    );
    broker.wait_for_log("there are `max_clients` already", SOON);
    drop(a);
    let plane = User::Node(fleet.plane);
    wait_ok("a free place", SOON, || {
        Peer::connect(fleet.options(plane, &plane.name())).map(drop)
    });
    drop(b);
}

#[test]
fn in_this_process() {
    let fleet = Fleet::new();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let mut config = broker::Config::read(&fleet.config("")).unwrap();
    config.listen = vec![
        SocketAddr::from(([127, 0, 0, 1], 0)),
        SocketAddr::from(([127, 0, 0, 1], 0)),
    ];
    let handle = runtime.block_on(broker::serve(config)).unwrap();
    assert_eq!(handle.plain().len(), 2);
    for address in handle.plain() {
        let options = fleet.options_at(address.port(), User::Node(fleet.a), fleet.a.as_str());
        let mut a = Peer::connect(options).unwrap();
        assert_eq!(handle.connections(), 1);
        a.publish(&fleet.data(&fleet.a), "frame").unwrap();
        drop(a);
        testkit::wait_until("the end of the connection", SOON, || {
            (handle.connections() == 0).then_some(())
        });
    }
    let address = handle.plain()[0];
    runtime.block_on(handle.stop());
    assert!(TcpListener::bind(address).is_ok());
}
