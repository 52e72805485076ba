//! The faults of a link, against a server that echoes.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use testkit::{Dice, Link, Way, wait_until};

const SOON: Duration = Duration::from_secs(10);

/// Sends back what it gets, for ever. Its threads end with the test process.
fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            thread::spawn(move || std::io::copy(&mut &socket, &mut &socket));
        }
    });
    addr
}

fn client(link: &Link) -> TcpStream {
    let socket = TcpStream::connect(link.addr()).expect("the link accepts");
    socket.set_read_timeout(Some(SOON)).expect("a socket has a timeout");
    socket
}

fn echo(socket: &mut TcpStream, text: &str) -> std::io::Result<String> {
    socket.write_all(text.as_bytes())?;
    let mut answer = vec![0; text.len()];
    socket.read_exact(&mut answer)?;
    Ok(String::from_utf8(answer).expect("the echo of text"))
}

/// Whether the other side hung up, as opposed to being silent.
fn hung_up(socket: &mut TcpStream) -> bool {
    match socket.read(&mut [0]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(e) => !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

#[test]
fn passes_everything_both_ways() {
    let link = Link::to(echo_server());
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let socket = client(&link);
    let sender = thread::spawn({
        let (mut socket, bytes) = (socket.try_clone().unwrap(), bytes.clone());
        move || {
            socket.write_all(&bytes).unwrap();
            // The end of one direction passes too, and leaves the other one open.
            socket.shutdown(std::net::Shutdown::Write).unwrap();
        }
    });
    let mut back = Vec::new();
    (&socket).read_to_end(&mut back).expect("everything comes back");
    sender.join().unwrap();
    assert!(back == bytes, "{} of {} bytes", back.len(), bytes.len());
    assert_eq!(link.accepted(), 1);
}

#[test]
fn cut_and_restored() {
    let link = Link::to(echo_server());
    let mut old = client(&link);
    assert_eq!(echo(&mut old, "a").unwrap(), "a");

    link.cut();
    assert!(hung_up(&mut old));
    let refused = TcpStream::connect(link.addr()).expect_err("a cut link refuses");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);

    link.restore();
    assert_eq!(echo(&mut client(&link), "b").unwrap(), "b");
    link.restore();

    let mut third = client(&link);
    assert_eq!(echo(&mut third, "c").unwrap(), "c");
    link.drop_connections();
    assert!(hung_up(&mut third));
    assert_eq!(echo(&mut client(&link), "d").unwrap(), "d");

    let addr = link.addr();
    let mut last = client(&link);
    assert_eq!(echo(&mut last, "e").unwrap(), "e");
    drop(link);
    assert!(hung_up(&mut last));
    assert!(TcpStream::connect(addr).is_err());
}

#[test]
fn stalled_and_restored() {
    let link = Link::to(echo_server());
    let mut old = client(&link);
    assert_eq!(echo(&mut old, "a").unwrap(), "a");

    link.stall();
    let mut new = client(&link);
    for socket in [&mut old, &mut new] {
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let error = echo(socket, "late").expect_err("nothing passes");
        assert!(
            matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
            "{error}"
        );
    }
    // Nobody reads, so the buffers fill up.
    old.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let block = vec![7; 1 << 20];
    let mut sent = 0;
    while let Ok(n) = old.write(&block) {
        sent += n;
        assert!(sent < 1 << 28, "a stalled link swallowed {sent} bytes");
    }

    link.restore();
    for socket in [&mut old, &mut new] {
        socket.set_read_timeout(Some(SOON)).unwrap();
        let mut answer = [0; 4];
        socket.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"late", "what was held back arrives");
    }
}

#[test]
fn a_stalled_link_can_be_cut() {
    let link = Link::to(echo_server());
    let mut socket = client(&link);
    assert_eq!(echo(&mut socket, "a").unwrap(), "a");
    link.stall();
    link.cut();
    assert!(hung_up(&mut socket));
}

#[test]
fn no_server_means_hung_up() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let link = Link::to(nobody);
    assert!(hung_up(&mut client(&link)));
}

/// Lower bounds only: a busy machine may be slower, never faster.
#[test]
fn slower_on_demand() {
    let link = Link::to(echo_server());
    let mut socket = client(&link);
    link.delay(Duration::from_millis(50));
    let start = Instant::now();
    assert_eq!(echo(&mut socket, "a").unwrap(), "a");
    assert!(
        start.elapsed() >= Duration::from_millis(100),
        "50 ms each way took {:?}",
        start.elapsed()
    );

    link.delay(Duration::ZERO);
    link.cap(Some(20_000));
    let start = Instant::now();
    let text = "x".repeat(4_000);
    assert_eq!(echo(&mut socket, &text).unwrap(), text);
    assert!(
        start.elapsed() >= Duration::from_millis(180),
        "4 kB at 20 kB/s took {:?}",
        start.elapsed()
    );
    link.cap(None);
    assert_eq!(echo(&mut socket, "b").unwrap(), "b");
}

/// A modem is shared: what one connection sends delays the other, and what came first goes first.
#[test]
fn connections_share_the_cap() {
    let link = Link::to(echo_server());
    let (mut bulk, mut small) = (client(&link), client(&link));
    assert_eq!(echo(&mut small, "a").unwrap(), "a");
    assert_eq!(echo(&mut bulk, "a").unwrap(), "a");
    link.cap(Some(10_000));
    let start = Instant::now();
    bulk.write_all(&vec![1; 5_000]).unwrap();
    // The modem has taken all of it before anything else comes.
    thread::sleep(Duration::from_millis(50));
    assert_eq!(echo(&mut small, "b").unwrap(), "b");
    assert!(
        start.elapsed() >= Duration::from_millis(450),
        "5 kB at 10 kB/s were in front, and it took {:?}",
        start.elapsed()
    );
}

#[test]
fn stalled_one_way() {
    let link = Link::to(echo_server());
    let mut socket = client(&link);
    assert_eq!(echo(&mut socket, "a").unwrap(), "a");
    let capture = link.capture();
    for (way, arrives_at_server) in [(Way::Up, 0), (Way::Down, 1)] {
        let mut socket = client(&link);
        link.stall_one_way(way);
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let before = capture.len();
        assert!(
            echo(&mut socket, "b").is_err(),
            "the way back is as long as the way there"
        );
        assert_eq!(capture.len() - before, arrives_at_server, "{way:?}");
        link.restore();
        socket.set_read_timeout(Some(SOON)).unwrap();
        assert_eq!(socket.read(&mut [0; 8]).unwrap(), 1);
        wait_until("both ways to be recorded", SOON, || {
            (capture.len() - before == 2).then_some(())
        });
    }
}

#[test]
fn jitter_keeps_the_order() {
    let link = Link::to(echo_server());
    link.seed(Dice::new(7));
    link.delay_with_jitter(Duration::from_millis(1), Duration::from_millis(30));
    let mut socket = client(&link);
    let text: String = (0..40).map(|n| format!("{n};")).collect();
    let sender = thread::spawn({
        let (mut socket, text) = (socket.try_clone().unwrap(), text.clone());
        move || {
            for part in text.split_inclusive(';') {
                socket.write_all(part.as_bytes()).unwrap();
                thread::sleep(Duration::from_millis(2));
            }
        }
    });
    let mut answer = vec![0; text.len()];
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(String::from_utf8(answer).unwrap(), text);
    sender.join().unwrap();
}

#[test]
fn connections_are_lost_at_random() {
    let link = Link::to(echo_server());
    link.seed(Dice::new(7));
    link.lose(200_000);
    let mut lost = 0;
    for _ in 0..50 {
        let mut socket = client(&link);
        lost += u32::from(echo(&mut socket, "a").is_err());
    }
    // Two chunks each, a fifth of them lost: 18 of 50, give or take.
    assert!((5..=35).contains(&lost), "{lost} of 50 connections lost");
    link.lose(0);
    assert_eq!(echo(&mut client(&link), "b").unwrap(), "b");
}

#[test]
fn clients_are_moved_to_another_server() {
    let link = Link::to(TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let mut nobody = client(&link);
    assert!(hung_up(&mut nobody));
    link.lead_to(echo_server());
    assert_eq!(echo(&mut client(&link), "a").unwrap(), "a");
}

#[test]
fn captures_whole_connections() {
    let link = Link::to(echo_server());
    let capture = link.capture();
    assert!(capture.is_empty());
    let (mut one, mut two) = (client(&link), client(&link));
    // Interleaved on purpose: each connection is recorded by itself.
    for (a, b) in [("sec", "pub"), ("ret", "lic")] {
        assert_eq!(echo(&mut one, a).unwrap(), a);
        assert_eq!(echo(&mut two, b).unwrap(), b);
    }
    wait_until("both directions of both connections to be recorded", SOON, || {
        (capture.len() == 24).then_some(())
    });
    assert!(capture.contains(b"secret") && capture.contains(b"public"));
    assert!(!capture.contains(b"secpub"));
    capture.assert_no_plaintext(["nothing of the kind"]);
    let caught = std::panic::catch_unwind(|| capture.assert_no_plaintext(["secret"])).expect_err("found");
    assert!(caught.downcast_ref::<String>().unwrap().contains("passed in the clear"));
}

#[test]
#[should_panic(expected = "proves nothing")]
fn an_empty_capture_proves_nothing() {
    Link::to(echo_server()).capture().assert_no_plaintext(["secret"]);
}

#[test]
fn urls() {
    let link = Link::to(echo_server());
    let port = link.port();
    let cases = [
        ("mqtt://127.0.0.1:1883", format!("mqtt://127.0.0.1:{port}")),
        ("tls://localhost:4222", format!("tls://localhost:{port}")),
        (
            "postgres://u:p@127.0.0.1:5432/db?x=1",
            format!("postgres://u:p@127.0.0.1:{port}/db?x=1"),
        ),
    ];
    for (from, to) in cases {
        assert_eq!(link.url(from), to);
    }
}
