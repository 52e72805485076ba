//! One suite for every road a bus can take: the same tests over memory, our own broker, mosquitto, nats-server (core, and
//! with JetStream recording everything) and nats-server's MQTT listener, plain and with TLS, anonymous and with log-in.
//! `cargo xtask conformance` writes its results into `docs/CONFORMANCE.md`.
//! Needs `mosquitto` and `nats-server` installed, and `mycelial-broker` built.

#![allow(clippy::unwrap_used, reason = "a test may only fail")]

mod suite;

use std::{sync::Arc, time::Duration};

use bus_link::{Event, PublishError, Status};
use bus_schema::{limits::FRAME_BYTES_MAX, subject::Dialect};
use futures_util::StreamExt as _;
use suite::{Door, Road, SOON, pattern, roads, said, stranger::Stranger};
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};

/// A module of tests per road, and the list of what each road is tested with.
macro_rules! suite {
    ($($road:ident { $($case:ident)* })*) => {
        $( mod $road { $(
            #[tokio::test]
            async fn $case() {
                super::$case(super::Road::made_by(super::roads::$road)).await;
            }
        )* } )*
        const TESTED: &[(&str, &[&str])] = &[ $( (stringify!($road), &[ $( stringify!($case) ),* ]) ),* ];
    };
}

/// For roads that differ only in how a client is let in.
macro_rules! with_variants {
    ($($road:ident)* ; $($full:tt)*) => { suite! {
        $($full)*
        $( $road {
            carries_messages
            keeps_order
            survives_a_restart
            says_all_before_it_closes
        } )*
    } };
}

with_variants! {
    mosquitto_tls mosquitto_client_certificate mosquitto_password
    nats_tls nats_client_certificate nats_password nats_creds nats_mqtt_tls;

    embedded {
        carries_messages carries_full_frames keeps_order says_all_before_it_closes survives_a_restart survives_a_wipe
        moves_to_another_broker notices_a_frozen_broker keeps_a_slow_owner_connected is_not_hurt_by_garbage
    }
    mosquitto {
        carries_messages carries_full_frames keeps_order says_all_before_it_closes survives_a_restart survives_a_wipe
        moves_to_another_broker notices_a_frozen_broker keeps_a_slow_owner_connected is_not_hurt_by_garbage
    }
    nats {
        carries_messages carries_full_frames keeps_order says_all_before_it_closes survives_a_restart survives_a_wipe
        moves_to_another_broker notices_a_frozen_broker keeps_a_slow_owner_connected is_not_hurt_by_garbage
    }
    nats_jetstream {
        carries_messages carries_full_frames keeps_order says_all_before_it_closes survives_a_restart survives_a_wipe
        moves_to_another_broker notices_a_frozen_broker keeps_a_slow_owner_connected is_not_hurt_by_garbage
    }
    nats_jetstream_full {
        carries_messages carries_full_frames keeps_order says_all_before_it_closes survives_a_restart survives_a_wipe
        moves_to_another_broker notices_a_frozen_broker keeps_a_slow_owner_connected is_not_hurt_by_garbage
    }
    nats_mqtt {
        carries_messages carries_full_frames keeps_order says_all_before_it_closes survives_a_restart survives_a_wipe
        moves_to_another_broker notices_a_frozen_broker keeps_a_slow_owner_connected is_not_hurt_by_garbage
    }
    memory {
        carries_messages carries_full_frames keeps_order says_all_before_it_closes survives_a_restart survives_a_wipe
        moves_to_another_broker
    }
}

/// The table in the documentation is of these roads and these cases, and says of each that it works.
#[test]
fn the_documented_table_is_of_this_suite() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/CONFORMANCE.md");
    let text = std::fs::read_to_string(path).unwrap();
    let mut documented = std::collections::BTreeSet::new();
    let mut roads: Vec<&str> = Vec::new();
    for line in text.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        match cells.first() {
            Some(&"") => roads = cells[1..].iter().map(|road| road.trim_matches('`')).collect(),
            Some(case) if case.starts_with('`') => {
                for (road, result) in roads.iter().zip(&cells[1..]) {
                    match *result {
                        "yes" => drop(documented.insert((*road, case.trim_matches('`')))),
                        "–" => {}
                        other => panic!("{case} over {road} is '{other}'"),
                    }
                }
            }
            _ => {}
        }
    }
    let tested = TESTED
        .iter()
        .flat_map(|(road, cases)| cases.iter().map(move |case| (*road, *case)));
    assert_eq!(documented, tested.collect(), "run `cargo xtask conformance`");
}

/// Exact subjects, both wildcards, empty and large payloads; subscriptions that come and go.
async fn carries_messages(road: Road) {
    let mut hearer = road.connect("hearer", &["b.exact", "*.one", "c.>"]).await;
    let sender = road.connect("sender", &[]).await;
    let large: Vec<u8> = (0..90 * 1024u32).map(|n| (n * 7) as u8).collect();
    let cases: &[(&str, &[u8], bool)] = &[
        ("b.exact", b"exact", true),
        ("b.exact.below", b"-", false),
        ("b.other", b"-", false),
        ("x_y-9.one", b"", true),
        ("b.d.one", b"-", false),
        ("c.d", b"rest", true),
        ("c.d.e", &[0, 0xff, b'\r', b'\n'], true),
        ("other.c.d", b"-", false),
        ("b.exact", &large, true),
    ];
    for (to, payload, heard) in cases {
        sender.publish(to, *payload).await;
        if *heard {
            let (on, got) = hearer.message().await;
            assert_eq!(on, *to);
            assert!(
                got == *payload,
                "{to}: {} bytes came back as {}",
                payload.len(),
                got.len()
            );
        }
    }
    let too_large = sender
        .bus
        .publish(&sender.subject("c.d"), vec![0; FRAME_BYTES_MAX + 1])
        .await;
    assert!(matches!(too_large, Err(PublishError::TooLarge { bytes, .. }) if bytes == FRAME_BYTES_MAX + 1));

    hearer.bus.subscribe(pattern("later.*")).await;
    hearer.bus.subscribe(pattern("later.*")).await;
    hearer.bus.unsubscribe(&pattern("b.exact")).await;
    hearer.settle().await;
    sender.publish("b.exact", "no longer").await;
    sender.publish("later.x", "now").await;
    assert_eq!(hearer.message().await, ("later.x".to_owned(), b"now".to_vec()));
    assert_eq!(hearer.bus.counters(), bus_link::Counters::default());
    // Else a road with a record of everything would be like one without.
    road.on_broker(|broker| assert_ne!(broker.captured(), Some(0))).await;
}

/// The largest frames there are, as many as streams have under way, through a broker that takes 128 KB at most.
async fn carries_full_frames(road: Road) {
    const COUNT: u8 = 40;
    const UNDER_WAY: usize = 8;
    let mut hearer = road.connect("hearer", &["a.data"]).await;
    let sender = road.connect("sender", &[]).await;
    let credit = Arc::new(Semaphore::new(UNDER_WAY));
    let sending = {
        let credit = Arc::clone(&credit);
        tokio::spawn(async move {
            for n in 0..COUNT {
                credit.acquire().await.unwrap().forget();
                sender.publish("a.data", vec![n; FRAME_BYTES_MAX]).await;
            }
        })
    };
    for n in 0..COUNT {
        let (_, payload) = hearer.message().await;
        assert!(
            payload == vec![n; FRAME_BYTES_MAX],
            "frame {n} came as {} bytes",
            payload.len()
        );
        credit.add_permits(1);
    }
    sending.await.unwrap();
}

/// 10,000 messages in order, none lost, with as many under way as streams allow.
async fn keeps_order(road: Road) {
    const COUNT: u32 = 10_000;
    const UNDER_WAY: usize = 64;
    let mut hearer = road.connect("hearer", &["a.data"]).await;
    let sender = road.connect("sender", &[]).await;
    let credit = Arc::new(Semaphore::new(UNDER_WAY));
    let sending = {
        let credit = Arc::clone(&credit);
        tokio::spawn(async move {
            for n in 0..COUNT {
                credit.acquire().await.unwrap().forget();
                let payload = [&n.to_le_bytes()[..], &[7; 200]].concat();
                sender.publish("a.data", payload).await;
            }
        })
    };
    for n in 0..COUNT {
        let (_, payload) = hearer.message().await;
        assert_eq!(payload[..4], n.to_le_bytes(), "message {n}");
        credit.add_permits(1);
    }
    sending.await.unwrap();
}

/// Down with a cause, nothing taken while offline, up again with every subscription: those from the start and those
/// made since, online and offline.
async fn survives_a_restart(road: Road) {
    road.on_broker(|broker| broker.stop()).await;
    // Started before its broker exists.
    let mut hearer = road.start("hearer", &["a.first"]);
    let mut sender = road.start("sender", &[]);
    let cause = hearer.down().await;
    assert!(cause.contains("nothing listens at"), "{cause}");
    assert_eq!(
        sender.bus.publish(&sender.subject("a.first"), b"x".to_vec()).await,
        Err(PublishError::Offline)
    );
    for round in 0..2 {
        hearer.bus.subscribe(pattern(&format!("a.offline-{round}"))).await;
        road.on_broker(|broker| broker.start()).await;
        hearer.up().await;
        sender.up().await;
        hearer.bus.subscribe(pattern(&format!("a.online-{round}"))).await;
        hearer.settle().await;
        let mut expected = vec!["a.first".to_owned()];
        expected.extend((0..=round).flat_map(|n| [format!("a.offline-{n}"), format!("a.online-{n}")]));
        for to in expected {
            sender.publish(&to, "x").await;
            assert_eq!(hearer.message().await.0, to);
        }
        road.on_broker(|broker| broker.stop()).await;
        for client in [&mut hearer, &mut sender] {
            let cause = client.down().await;
            assert!(cause.contains("closed the connection"), "{cause}");
            assert!(!client.bus.is_up());
        }
        assert_eq!(
            sender.bus.publish(&sender.subject("a.first"), b"x".to_vec()).await,
            Err(PublishError::Offline)
        );
    }
}

/// Whatever was published before `close` reaches the others; afterwards the bus is over.
async fn says_all_before_it_closes(road: Road) {
    let mut hearer = road.connect("hearer", &["a.>"]).await;
    let mut sender = road.connect("sender", &[]).await;
    for n in 0..50u8 {
        sender.publish("a.b", vec![n; 1000]).await;
    }
    timeout(SOON, sender.bus.close()).await.expect("close is bounded");
    assert_eq!(
        sender.bus.publish(&sender.subject("a.b"), Vec::new()).await,
        Err(PublishError::Offline)
    );
    assert_eq!(sender.events.recv().await, None);
    sender.bus.close().await;
    for n in 0..50u8 {
        assert_eq!(hearer.message().await.1[0], n);
    }
}

/// A broker that accepts everything and answers nothing, as after a crash of its host.
async fn notices_a_frozen_broker(road: Road) {
    let mut client = road.connect("client", &["a.b"]).await;
    // Publishes as long as it may, so that what it sends does not count as a sign of life.
    let publishing = {
        let (bus, to) = (client.bus.clone(), client.subject("a.c"));
        tokio::spawn(async move { while bus.publish(&to, vec![0; 60_000]).await.is_ok() {} })
    };
    sleep(Duration::from_millis(500)).await;
    road.on_broker(|broker| broker.pause()).await;
    let down = |status: &Status| matches!(status, Status::Down { .. });
    client
        .until("the broker to be given up", Duration::from_secs(45), down)
        .await;
    timeout(SOON, publishing)
        .await
        .expect("a waiting publish learns of the loss")
        .unwrap();
    let cause = client.down().await;
    assert!(cause.contains("has stopped answering"), "{cause}");
    road.on_broker(|broker| broker.resume()).await;
    client.up().await;
    // A server that was frozen may first work off what it had already received.
    client.settle().await;
}

/// The owner takes no event for longer than a broker waits for a sign of life, while far more arrives than fits.
async fn keeps_a_slow_owner_connected(road: Road) {
    let mut slow = road.connect("slow", &["a.data"]).await;
    let sender = road.connect("sender", &[]).await;
    let until = tokio::time::Instant::now() + Duration::from_secs(40);
    let sending = tokio::spawn(async move {
        while tokio::time::Instant::now() < until {
            sender.publish("a.data", vec![0; 60_000]).await;
            sleep(Duration::from_millis(100)).await;
        }
        sender
    });
    let sender = sending.await.unwrap();
    assert!(slow.bus.is_up());
    // What was held back comes now, here or at the broker; what comes then is heard again.
    let mut held = 0;
    while let Ok(Some(Event::Message { payload, .. })) = timeout(Duration::from_secs(2), slow.events.recv()).await {
        held += payload.len();
    }
    assert!(held > 500_000, "{held} bytes were held");
    assert!(slow.bus.is_up());
    sender.publish("a.data", "fresh").await;
    // A broker may repeat what was not taken in time.
    while slow.message().await.1 != b"fresh" {}
}

/// Says numbered messages and hears exactly these, in order.
async fn hears_all(hearer: &mut suite::Client, sender: &suite::Client, on: &str) {
    for n in 0..50u8 {
        sender.publish(on, [n]).await;
    }
    for n in 0..50u8 {
        assert_eq!(hearer.message().await, (on.to_owned(), vec![n]));
    }
}

/// The broker comes back and knows nothing any more: no session, no queue, no subscription.
async fn survives_a_wipe(road: Road) {
    let mut hearer = road.connect("hearer", &["a.first"]).await;
    let mut sender = road.connect("sender", &[]).await;
    hearer.bus.subscribe(pattern("a.second")).await;
    hearer.settle().await;
    hears_all(&mut hearer, &sender, "a.first").await;
    for _ in 0..2 {
        road.on_broker(|broker| broker.wipe()).await;
        for client in [&mut hearer, &mut sender] {
            client.down().await;
            client.up().await;
            client.settle().await;
        }
        hears_all(&mut hearer, &sender, "a.first").await;
        hears_all(&mut hearer, &sender, "a.second").await;
    }
}

/// The broker dies for good; another one of the list takes over, and has never heard of anybody. Then back again.
async fn moves_to_another_broker(road: Road) {
    let other = road.another.expect("the suite made this road")();
    let both = Road {
        addresses: [road.addresses.clone(), other.addresses.clone()].concat(),
        ..road.clone()
    };
    let mut hearer = both.connect("hearer", &["a.first"]).await;
    let mut sender = both.connect("sender", &[]).await;
    for (off, on) in [(&road, &other), (&other, &road), (&road, &other)] {
        off.on_broker(|broker| broker.stop()).await;
        for client in [&mut hearer, &mut sender] {
            client.down().await;
            assert_eq!(client.up().await, on.addresses[0]);
            client.settle().await;
        }
        hears_all(&mut hearer, &sender, "a.first").await;
        off.on_broker(|broker| broker.start()).await;
    }
}

/// Leftovers of strangers and of earlier lives: retained messages, a session with a queue under the client's own name,
/// headers, reply subjects, subjects nobody may use. They are passed over; what is said now arrives once, in order.
async fn is_not_hurt_by_garbage(road: Road) {
    let topics = ["a.first", "a.second.x", "b"];
    if let Some(Door::Mqtt(_)) = road.door {
        let mut earlier = Stranger::on_mqtt(&road, "hearer");
        earlier.subscribe(&pattern(">").render(Dialect::Mqtt)).await;
        drop(earlier);
        let mut stranger = Stranger::on_mqtt(&road, "sender");
        for n in 0..30u8 {
            for topic in topics {
                let topic = said("sender", topic).render(Dialect::Mqtt);
                stranger.retain(&topic, &[0, 0xff, n]).await;
            }
        }
    }
    let mut hearer = road.start("hearer", &["a.first", "a.second.>", "b"]);
    hearer.up().await;
    let sender = road.connect("sender", &[]).await;
    // Retained messages, at most one of each subject, and nothing of the session's queue.
    let mut garbage = hearer.drain().await;
    if let Some(Door::Nats(server)) = road.door {
        let stranger = async_nats::connect(format!("nats://{server}")).await.unwrap();
        for topic in topics {
            let mut headers = async_nats::HeaderMap::new();
            headers.insert("Nats-Msg-Id", "1");
            let subject = said("sender", topic).render(Dialect::Nats);
            let sent = stranger.publish_with_reply_and_headers(subject, "_INBOX.garbage", headers, "\0x".into());
            sent.await.unwrap();
        }
        let mut ears = stranger.subscribe("garbage.end").await.unwrap();
        stranger.publish("garbage.end", "".into()).await.unwrap();
        ears.next().await.unwrap();
        garbage.extend(hearer.drain().await);
    }
    assert!(garbage.len() <= topics.len(), "{garbage:?}");
    for topic in topics {
        hears_all(&mut hearer, &sender, topic).await;
    }
}
