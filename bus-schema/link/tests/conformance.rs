//! One suite for every road a bus can take: the same tests over memory, mosquitto, nats-server and nats-server's MQTT
//! listener, plain and with TLS, anonymous and with log-in. Needs `mosquitto` and `nats-server` installed.

#![allow(clippy::unwrap_used, reason = "a test may only fail")]

mod suite;

use std::{sync::Arc, time::Duration};

use bus_link::{Event, PublishError, Status};
use bus_schema::limits::FRAME_BYTES_MAX;
use suite::{Road, SOON, pattern, subject};
use testkit::{Mosquitto, Nats, Tls};
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};

/// Every broker of the suite. A function per road, so that each test has a broker of its own.
mod roads {
    use super::*;

    pub fn memory() -> Road {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        Road::memory(&format!(
            "hub-{}",
            NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
        ))
    }

    pub fn mosquitto() -> Road {
        Road::mosquitto(Mosquitto::start())
    }

    pub fn mosquitto_tls() -> Road {
        let tls = Tls::new();
        Road::mosquitto(Mosquitto::builder().tls(&tls).start()).trusting(&tls, None)
    }

    pub fn mosquitto_client_certificate() -> Road {
        let tls = Tls::new();
        let server = Mosquitto::builder().tls(&tls).client_certs().start();
        Road::mosquitto(server).trusting(&tls, Some(&tls.client("gateway")))
    }

    pub fn mosquitto_password() -> Road {
        Road::mosquitto(Mosquitto::builder().user("ann", "right").start()).user("ann", "right")
    }

    pub fn nats() -> Road {
        Road::nats(Nats::start())
    }

    pub fn nats_tls() -> Road {
        let tls = Tls::new();
        Road::nats(Nats::builder().tls(&tls).start()).trusting(&tls, None)
    }

    pub fn nats_client_certificate() -> Road {
        let tls = Tls::new();
        let server = Nats::builder().tls(&tls).client_certs().start();
        Road::nats(server).trusting(&tls, Some(&tls.client("gateway")))
    }

    pub fn nats_password() -> Road {
        Road::nats(Nats::builder().user("ann", "right").start()).user("ann", "right")
    }

    pub fn nats_creds() -> Road {
        let server = Nats::builder().creds().start();
        let creds = String::from_utf8(suite::read(server.creds_file())).unwrap();
        Road::nats(server).creds(creds)
    }

    pub fn nats_mqtt() -> Road {
        Road::nats_mqtt(Nats::builder().mqtt().start())
    }

    pub fn nats_mqtt_tls() -> Road {
        let tls = Tls::new();
        Road::nats_mqtt(Nats::builder().mqtt().tls(&tls).start()).trusting(&tls, None)
    }

    /// The brokers that are processes, one of each kind of connection.
    pub fn processes() -> Vec<(&'static str, Road)> {
        vec![
            ("mosquitto", mosquitto()),
            ("mosquitto_tls", mosquitto_tls()),
            ("nats", nats()),
            ("nats_tls", nats_tls()),
            ("nats_mqtt", nats_mqtt()),
        ]
    }
}

macro_rules! suite {
    ($($road:ident)*) => { $(
        mod $road {
            #[tokio::test]
            async fn carries_messages() {
                super::carries_messages(super::roads::$road()).await;
            }
            #[tokio::test]
            async fn keeps_order() {
                super::keeps_order(super::roads::$road()).await;
            }
            #[tokio::test]
            async fn survives_a_restart_of_the_broker() {
                super::survives_a_restart_of_the_broker(super::roads::$road()).await;
            }
            #[tokio::test]
            async fn closes_without_losing_what_was_published() {
                super::closes_without_losing_what_was_published(super::roads::$road()).await;
            }
        }
    )* };
}

suite! {
    memory
    mosquitto mosquitto_tls mosquitto_client_certificate mosquitto_password
    nats nats_tls nats_client_certificate nats_password nats_creds
    nats_mqtt nats_mqtt_tls
}

/// Exact subjects, both wildcards, empty and large payloads; subscriptions that come and go.
async fn carries_messages(road: Road) {
    let mut hearer = road.connect("hearer", &["a.b.exact", "a.*.one", "a.c.>"]).await;
    let sender = road.connect("sender", &[]).await;
    let large: Vec<u8> = (0..90 * 1024u32).map(|n| (n * 7) as u8).collect();
    let full = vec![0xff; FRAME_BYTES_MAX];
    let cases: &[(&str, &[u8], bool)] = &[
        ("a.b.exact", b"exact", true),
        ("a.b.exact.below", b"-", false),
        ("a.b.other", b"-", false),
        ("a.x_y-9.one", b"", true),
        ("a.b.d.one", b"-", false),
        ("a.c.d", b"rest", true),
        ("a.c.d.e.f", &[0, 0xff, b'\r', b'\n'], true),
        ("other.c.d", b"-", false),
        ("a.b.exact", &large, true),
        ("a.c.full", &full, true),
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
        .publish(&subject("a.c.d"), vec![0; FRAME_BYTES_MAX + 1])
        .await;
    assert!(matches!(too_large, Err(PublishError::TooLarge { bytes, .. }) if bytes == FRAME_BYTES_MAX + 1));

    hearer.bus.subscribe(pattern("later.*")).await;
    hearer.bus.subscribe(pattern("later.*")).await;
    hearer.bus.unsubscribe(&pattern("a.b.exact")).await;
    hearer.settle().await;
    sender.publish("a.b.exact", "no longer").await;
    sender.publish("later.x", "now").await;
    assert_eq!(hearer.message().await, ("later.x".to_owned(), b"now".to_vec()));
    assert_eq!(hearer.bus.counters(), bus_link::Counters::default());
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
async fn survives_a_restart_of_the_broker(road: Road) {
    road.on_broker(|broker| broker.stop()).await;
    // Started before its broker exists.
    let mut hearer = road.start("hearer", &["a.first"]);
    let mut sender = road.start("sender", &[]);
    let cause = hearer.down().await;
    assert!(cause.contains("nothing listens at"), "{cause}");
    assert_eq!(
        sender.bus.publish(&subject("a.first"), b"x".to_vec()).await,
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
            sender.bus.publish(&subject("a.first"), b"x".to_vec()).await,
            Err(PublishError::Offline)
        );
    }
}

/// Whatever was published before `close` reaches the others; afterwards the bus is over.
async fn closes_without_losing_what_was_published(road: Road) {
    let mut hearer = road.connect("hearer", &["a.>"]).await;
    let mut sender = road.connect("sender", &[]).await;
    for n in 0..50u8 {
        sender.publish("a.b", vec![n; 1000]).await;
    }
    timeout(SOON, sender.bus.close()).await.expect("close is bounded");
    assert_eq!(
        sender.bus.publish(&subject("a.b"), Vec::new()).await,
        Err(PublishError::Offline)
    );
    assert_eq!(sender.events.recv().await, None);
    sender.bus.close().await;
    for n in 0..50u8 {
        assert_eq!(hearer.message().await.1[0], n);
    }
}

/// Runs the same test over every kind of process at once: these tests wait for long.
async fn on_every_process<F: Future<Output = ()> + Send + 'static>(test: impl Fn(&'static str, Road) -> F) {
    let starting = tokio::task::spawn_blocking(roads::processes);
    let mut running = tokio::task::JoinSet::new();
    for (name, road) in starting.await.unwrap() {
        running.spawn(test(name, road));
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
}

/// A broker that accepts everything and answers nothing, as after a crash of its host.
#[tokio::test]
async fn a_frozen_broker_is_noticed() {
    on_every_process(|name, road| async move {
        let mut client = road.connect("client", &["a.b"]).await;
        // Publishes as long as it may, so that what it sends does not count as a sign of life.
        let publishing = {
            let bus = client.bus.clone();
            tokio::spawn(async move { while bus.publish(&subject("a.c"), vec![0; 60_000]).await.is_ok() {} })
        };
        sleep(Duration::from_millis(500)).await;
        road.on_broker(|broker| broker.pause()).await;
        let down = |status: &Status| matches!(status, Status::Down { .. });
        client
            .until(&format!("{name} to be given up"), Duration::from_secs(45), down)
            .await;
        timeout(SOON, publishing)
            .await
            .expect("a waiting publish learns of the loss")
            .unwrap();
        let cause = client.down().await;
        assert!(cause.contains("has stopped answering"), "{name}: {cause}");
        road.on_broker(|broker| broker.resume()).await;
        client.up().await;
        // A server that was frozen may first work off what it had already received.
        client.settle().await;
    })
    .await;
}

/// The owner takes no event for longer than a broker waits for a sign of life, while far more arrives than fits.
#[tokio::test]
async fn a_slow_owner_keeps_its_connection() {
    on_every_process(|name, road| async move {
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
        assert!(slow.bus.is_up(), "{name}");
        // What was held back comes now, here or at the broker; what comes then is heard again.
        let mut held = 0;
        while let Ok(Some(Event::Message { payload, .. })) = timeout(Duration::from_secs(2), slow.events.recv()).await {
            held += payload.len();
        }
        assert!(held > 500_000, "{name}: {held} bytes were held");
        assert!(slow.bus.is_up(), "{name}");
        sender.publish("a.data", "fresh").await;
        // A broker may repeat what was not taken in time.
        while slow.message().await.1 != b"fresh" {}
    })
    .await;
}
