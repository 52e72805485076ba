//! What no client can make the broker do: keep too much, take too much, or retain anything.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails them")]

mod support;

use std::{sync::mpsc, thread};

use broker::{LANE_FRAMES, PACKET_BYTES_MAX, WINDOW_FRAMES};
use bus_schema::{access::User, limits::FRAME_BYTES_MAX, subject};
use support::{Fleet, Peer, QUIET, SOON, filter};

/// A frame in the stalled subscriber's test, in bytes.
const FRAME: usize = 64 * 1024;
/// Frames the subscriber that keeps up may be behind.
const HEALTHY_LAG: usize = 16;

#[test]
fn a_stalled_subscriber_holds_a_bounded_part_of_memory() {
    // A frame may sit in a buffer of twice its size.
    stall("", 3_000, 2);
}

#[test]
fn with_kept_sessions_it_does_as_well() {
    // And there is a copy of it until it is written down.
    stall("data_dir = 'sessions'", 300, 3);
}

fn stall(config: &str, frames: usize, copies: usize) {
    const QUEUED: usize = 4 * 1024 * 1024;
    let fleet = Fleet::new();
    let broker = fleet.start(&format!("max_queued_bytes_per_client = {QUEUED}\n{config}"));
    let everything = format!("myc/v1/{}/data/+/+", fleet.fleet);

    let mut stalled = fleet.member(fleet.b);
    assert!(stalled.subscribe(&everything));
    let mut healthy = fleet.member(fleet.plane);
    assert!(healthy.subscribe(&everything));
    let mut producer = fleet.member(fleet.a);
    let subject = fleet.data(&fleet.a);
    let frame = |n: usize| [&n.to_le_bytes(), &vec![7; FRAME - 8][..]].concat();

    // The producer stays close to the healthy subscriber: else a busy machine makes that one a second stalled one.
    let (going, on_the_way) = mpsc::sync_channel(HEALTHY_LAG);
    let taker = thread::spawn(move || {
        for n in 0..frames {
            let publish = healthy.receive(SOON).unwrap_or_else(|| panic!("frame {n}"));
            assert_eq!(publish.payload[..8], n.to_le_bytes(), "in order");
            on_the_way.recv().unwrap();
        }
    });
    let before = broker.rss_kb().unwrap();
    for n in 0..frames {
        going.send(()).unwrap();
        producer.publish(&subject, frame(n)).unwrap();
    }
    taker.join().unwrap();
    let grown = broker.rss_peak_kb().unwrap() - before;
    // The healthy subscriber and the producer have a few on their way as well.
    let frames_held = LANE_FRAMES + usize::from(WINDOW_FRAMES) + 2 * HEALTHY_LAG;
    let bound = copies * (QUEUED + frames_held * FRAME) / 1024;
    assert!(
        grown < bound as u64,
        "{grown} KB more, bound {bound} KB, sent {} KB",
        frames * FRAME / 1024
    );
    assert!(
        grown > (QUEUED / 1024) as u64,
        "{grown} KB: the subscriber has not stalled, this measures nothing"
    );

    // It is let go on: it gets the oldest, which it was sent, and the newest, which had room.
    let number = |publish: rumqttc::Publish| usize::from_le_bytes(publish.payload[..8].try_into().unwrap());
    assert_eq!(number(stalled.receive(SOON).unwrap()), 0);
    let (mut last, mut received) = (0, 1);
    while last + 1 < frames {
        let next = number(stalled.receive(SOON).unwrap());
        assert!(next > last, "{next} after {last}");
        (last, received) = (next, received + 1);
    }
    assert!(received < frames, "some were dropped");
    assert!(broker.log().contains("per-client queue limit reached"));
    assert!(broker.log().lines().count() < 200, "the log is bounded as well");
}

#[test]
fn a_packet_that_is_too_large_ends_the_connection() {
    let fleet = Fleet::new();
    let _broker = fleet.start("");
    let mut b = fleet.member(fleet.b);
    let subject = fleet.data(&fleet.a);
    assert!(b.subscribe(&subject));
    let user = User::Node(fleet.a);
    let mut options = fleet.options(user, &user.name());
    options.set_max_packet_size(10 * PACKET_BYTES_MAX, 10 * PACKET_BYTES_MAX);
    for (bytes, taken) in [
        (FRAME_BYTES_MAX, true),
        (PACKET_BYTES_MAX, false),
        (5 * PACKET_BYTES_MAX, false),
    ] {
        let mut a = Peer::connect(options.clone()).unwrap();
        assert_eq!(a.publish(&subject, vec![7; bytes]).is_ok(), taken, "{bytes}");
        match taken {
            true => assert_eq!(b.receive(SOON).unwrap().payload.len(), bytes),
            false => assert!(b.receive(QUIET).is_none(), "{bytes}"),
        }
    }
}

#[test]
fn nothing_is_retained() {
    let fleet = Fleet::new();
    let mut broker = fleet.start("data_dir = 'sessions'");
    let subject = fleet.data(&fleet.a);
    let mut before = fleet.member(fleet.b);
    assert!(before.subscribe(&subject));
    let mut a = fleet.member(fleet.a);
    a.publish_with(&subject, "keep this", true).unwrap();
    let publish = before.receive(SOON).unwrap();
    assert_eq!((&*publish.payload, publish.retain), (&b"keep this"[..], false));

    let mut after = fleet.member(fleet.plane);
    assert!(after.subscribe(&subject));
    assert!(after.receive(QUIET).is_none());
    broker.term_and_wait(SOON);
    broker = fleet.start("data_dir = 'sessions'");
    let mut again = fleet.member(fleet.plane);
    assert!(again.subscribe(&subject));
    assert!(again.receive(QUIET).is_none());
    assert!(broker.is_running());
}

#[test]
fn messages_reach_many_and_keep_their_order() {
    let fleet = Fleet::new();
    let _broker = fleet.start("");
    let app = filter(&subject::app_from_any(&fleet.fleet, ">").unwrap());
    let mut listeners: Vec<Peer> = (0..5)
        .map(|n| {
            let mut listener = Peer::connect(fleet.options(User::Node(fleet.b), &format!("{}-{n}", fleet.b))).unwrap();
            assert!(listener.subscribe(&app));
            listener
        })
        .collect();
    let mut a = fleet.member(fleet.a);
    let subject = support::topic(&subject::app(&fleet.fleet, &fleet.a, "orders.new").unwrap());
    for n in 0..20 {
        a.publish(&subject, format!("{n}")).unwrap();
    }
    for listener in &mut listeners {
        let heard: Vec<String> = (0..20).map(|_| listener.receive_text()).collect();
        assert_eq!(heard, (0..20).map(|n| n.to_string()).collect::<Vec<_>>());
    }
}

#[test]
fn what_was_acknowledged_arrives_though_its_sender_leaves_at_once() {
    const GOODBYES: usize = 200;
    let fleet = Fleet::new();
    let _broker = fleet.start("");
    let mut plane = fleet.member(fleet.plane);
    assert!(plane.subscribe(&fleet.control_to(&fleet.plane)));
    let subject = fleet.control(&fleet.a, &fleet.plane);
    for n in 0..GOODBYES {
        let mut leaving = fleet.member(fleet.a);
        leaving.publish(&subject, n.to_le_bytes()).unwrap();
        leaving.leave();
        let got = plane.receive(SOON).unwrap_or_else(|| panic!("goodbye {n} is lost"));
        assert_eq!(got.payload[..], n.to_le_bytes());
    }
}
