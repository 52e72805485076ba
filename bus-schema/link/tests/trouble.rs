//! What goes wrong between a client and a broker, and what the owner of the bus gets to read about it. Needs `mosquitto`
//! and `nats-server` installed.

#![allow(clippy::unwrap_used, reason = "a test may only fail")]

mod suite;

use std::{net::TcpListener, time::Duration};

use bus_link::{
    Counters, Event, PublishError, Status,
    memory::{Faults, Hub},
};
use bus_schema::subject::Dialect;
use suite::{Road, SOON, pattern, said};
use testkit::{Link, Mosquitto, Nats, free_port};
use tokio::time::timeout;

/// A road to an address where no broker of ours is.
fn nowhere(address: String) -> Road {
    Road {
        addresses: vec![address],
        ..Road::memory("nowhere")
    }
}

async fn causes(cases: Vec<(&str, Road, &str)>) {
    for (name, road, needle) in cases {
        let mut client = road.start("client", &["a.b"]);
        let cause = client.down().await;
        assert!(cause.contains(needle), "{name}: {cause}");
        assert!(cause.contains("://"), "the address is named: {cause}");
        assert_eq!(*client.bus.status().borrow(), Status::Down { cause });
    }
}

#[tokio::test]
async fn refused_credentials_are_explained() {
    let mosquitto = || Road::mosquitto(Mosquitto::builder().user("ann", "right").start());
    let nats = || Road::nats(Nats::builder().user("ann", "right").start());
    let nats_mqtt = || Road::nats_mqtt(Nats::builder().mqtt().user("ann", "right").start());
    let creds = |server: &Nats| String::from_utf8(suite::read(server.creds_file())).unwrap();
    let other = Nats::builder().creds().start();
    causes(vec![
        ("mosquitto", mosquitto().user("ann", "wrong"), "refused user 'ann'"),
        ("mosquitto", mosquitto(), "it wants other credentials"),
        ("nats", nats().user("ann", "wrong"), "refused user 'ann'"),
        ("nats", nats(), "it wants other credentials"),
        (
            "nats",
            Road::nats(Nats::builder().creds().start()).creds(creds(&other)),
            "it wants other credentials",
        ),
        ("nats_mqtt", nats_mqtt().user("ann", "wrong"), "refused user 'ann'"),
    ])
    .await;
}

#[tokio::test]
async fn unreachable_brokers_are_explained() {
    let port = free_port();
    causes(vec![
        (
            "mqtt",
            nowhere(format!("mqtt://127.0.0.1:{port}")),
            "nothing listens at",
        ),
        (
            "nats",
            nowhere(format!("nats://127.0.0.1:{port}")),
            "nothing listens at",
        ),
        (
            "mqtt",
            nowhere("mqtt://no-such-host.invalid".into()),
            "cannot find the host of",
        ),
        (
            "nats",
            nowhere("nats://no-such-host.invalid".into()),
            "cannot find the host of",
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_port_that_says_nothing_is_explained() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let one = causes(vec![(
        "mqtt",
        nowhere(format!("mqtt://127.0.0.1:{port}")),
        "does not answer",
    )]);
    let two = causes(vec![(
        "nats",
        nowhere(format!("nats://127.0.0.1:{port}")),
        "does not answer",
    )]);
    tokio::join!(one, two);
}

#[tokio::test]
async fn tls_trouble_is_explained() {
    let (ours, theirs) = (testkit::Tls::new(), testkit::Tls::new());
    let secured = |road: Road, scheme: &str| {
        let address = road.addresses[0].replacen("127.0.0.1", "localhost", 1);
        let (_, rest) = address.split_once("://").unwrap();
        Road {
            addresses: vec![format!("{scheme}://{rest}")],
            ..road
        }
    };
    let mosquitto = || Road::mosquitto(Mosquitto::builder().tls(&ours).start());
    let nats = || Road::nats(Nats::builder().tls(&ours).start());
    let picky_mosquitto = || Road::mosquitto(Mosquitto::builder().tls(&ours).client_certs().start());
    let picky_nats = || Road::nats(Nats::builder().tls(&ours).client_certs().start());
    let stranger = theirs.client("stranger");
    causes(vec![
        (
            "foreign authority",
            mosquitto().trusting(&theirs, None),
            "issued by nobody trusted here",
        ),
        (
            "foreign authority",
            nats().trusting(&theirs, None),
            "issued by nobody trusted here",
        ),
        (
            "no client certificate",
            picky_mosquitto().trusting(&ours, None),
            "refused the client certificate, or wants",
        ),
        (
            "no client certificate",
            picky_nats().trusting(&ours, None),
            "refused the client certificate, or wants",
        ),
        (
            "foreign client",
            picky_mosquitto().trusting(&ours, Some(&stranger)),
            "refused the client certificate",
        ),
        (
            "foreign client",
            picky_nats().trusting(&ours, Some(&stranger)),
            "refused the client certificate",
        ),
        (
            "plain to a TLS port",
            secured(mosquitto(), "mqtt"),
            "closed the connection",
        ),
        (
            "TLS to a plain port",
            secured(Road::mosquitto(Mosquitto::start()), "mqtts").trusting(&ours, None),
            "mqtts://",
        ),
        (
            "TLS to a plain port",
            secured(Road::nats(Nats::start()), "nats+tls").trusting(&ours, None),
            "nats+tls://",
        ),
    ])
    .await;
}

/// Without a CA the system's list is used. It never holds a test's own authority, and may be empty.
#[tokio::test]
async fn the_systems_authorities_are_the_default() {
    let tls = testkit::Tls::new();
    for road in [
        Road::mosquitto(Mosquitto::builder().tls(&tls).start()),
        Road::nats(Nats::builder().tls(&tls).start()),
    ] {
        let cause = road.start("client", &[]).down().await;
        assert!(
            cause.contains("issued by nobody trusted here") || cause.contains("install ca-certificates"),
            "{cause}"
        );
    }
}

/// mosquitto is not here: its access file refuses no subscription, it only never delivers. nats-server's MQTT listener
/// must allow its users `$MQTT.sub.>` besides: it serves QoS 1 through subjects of its own.
#[tokio::test]
async fn a_forbidden_subscription_is_explained() {
    let builder = || {
        let permissions =
            "publish: [\"myc.v1.*.app.*.sync.>\"], subscribe: [\"myc.v1.*.app.*.sync.>\", \"$MQTT.sub.>\"]";
        Nats::builder().user_with_permissions("ann", "right", permissions)
    };
    for road in [Road::nats_mqtt(builder().mqtt().start()), Road::nats(builder().start())] {
        let road = road.user("ann", "right");
        let mut client = road.connect("client", &[]).await;
        // Nobody is told of a forbidden message; the connection goes on.
        client.publish("secret.plans", "x").await;
        client.settle().await;
        client.bus.subscribe(pattern("secret.plans")).await;
        let cause = client.down().await;
        assert!(
            cause.contains("refused the subscription to") && cause.contains("secret.plans"),
            "{cause}"
        );
        client.bus.unsubscribe(&pattern("secret.plans")).await;
        client.up().await;
    }
}

/// Dead addresses are passed over, and the next one is taken when a broker dies; protocols may be mixed.
#[tokio::test]
async fn the_next_address_is_taken() {
    let (first, second) = (Road::mosquitto(Mosquitto::start()), Road::nats(Nats::start()));
    let dead = format!("mqtt://127.0.0.1:{}", free_port());
    let addresses = vec![dead.clone(), first.addresses[0].clone(), second.addresses[0].clone()];
    let road = Road {
        addresses,
        ..first.clone()
    };
    let mut client = road.start("client", &["a.b"]);
    let cause = client.down().await;
    assert!(cause.contains(&dead), "{cause}");
    for (on, off) in [(&first, &second), (&second, &first), (&first, &second)] {
        assert_eq!(client.up().await, on.addresses[0]);
        client.settle().await;
        if on.addresses == second.addresses {
            off.on_broker(|broker| broker.start()).await;
        }
        on.on_broker(|broker| broker.stop()).await;
        client.down().await;
    }
}

/// Subjects no member could have published are counted, not delivered and not fatal.
#[tokio::test]
async fn foreign_subjects_are_counted() {
    let mosquitto = Mosquitto::start();
    let (stranger, mut polling) =
        rumqttc::AsyncClient::new(rumqttc::MqttOptions::new("stranger", "127.0.0.1", mosquitto.port()), 8);
    let polling = tokio::spawn(async move { while polling.poll().await.is_ok() {} });
    let road = Road::mosquitto(mosquitto);
    let mut hearer = road.connect("hearer", &["a.>", "a"]).await;
    let long = format!("a/{}", "x".repeat(200));
    let below = said("stranger", "a").render(Dialect::Mqtt);
    let below = below.strip_suffix("/a").unwrap();
    for topic in [
        "a/B",
        "a//b",
        "a/b c",
        "a/b.c",
        "a/ü",
        "a/1/2/3/4/5/6/7/8/9",
        long.as_str(),
        "a/good",
    ] {
        stranger
            .publish(format!("{below}/{topic}"), rumqttc::QoS::AtLeastOnce, false, "x")
            .await
            .unwrap();
    }
    assert_eq!(hearer.message().await.0, "a.good");
    assert_eq!(hearer.bus.counters(), Counters { foreign: 7, dropped: 0 });
    polling.abort();

    let nats = Nats::start();
    let stranger = async_nats::connect(nats.url()).await.unwrap();
    let road = Road::nats(nats);
    let mut hearer = road.connect("hearer", &["a.>"]).await;
    let below = said("stranger", "a").render(Dialect::Nats);
    let below = below.strip_suffix(".a").unwrap();
    for subject in ["a.B", "a.$x", "a.ü", "a.1.2.3.4.5.6.7.8.9", "a.good"] {
        stranger
            .publish(format!("{below}.{subject}"), "x".into())
            .await
            .unwrap();
    }
    assert_eq!(hearer.message().await.0, "a.good");
    assert_eq!(hearer.bus.counters(), Counters { foreign: 4, dropped: 0 });
}

/// An owner that publishes and subscribes while handling events, with more coming in than the channels hold.
#[tokio::test]
async fn an_owner_may_act_while_it_handles_events() {
    for road in [
        Road::memory("acting"),
        Road::mosquitto(Mosquitto::start()),
        Road::nats(Nats::start()),
    ] {
        let mut owner = road.connect("owner", &["a.in"]).await;
        let peer = road.connect("peer", &[]).await;
        let sending = tokio::spawn(async move {
            for _ in 0..100 {
                peer.publish("a.in", vec![0; 10_000]).await;
            }
            peer
        });
        for n in 0..100 {
            assert_eq!(owner.message().await.0, "a.in");
            for _ in 0..5 {
                owner.publish("a.out", vec![0; 20_000]).await;
            }
            timeout(SOON, owner.bus.subscribe(pattern(&format!("a.more.{n}"))))
                .await
                .expect("no deadlock");
        }
        sending.await.unwrap();
    }
}

#[tokio::test]
async fn a_bus_ends_with_its_listener() {
    let road = Road::mosquitto(Mosquitto::start());
    let client = road.connect("client", &[]).await;
    drop(client.events);
    let mut status = client.bus.status();
    timeout(
        SOON,
        status.wait_for(|status| {
            *status
                == Status::Down {
                    cause: "the bus was closed".into(),
                }
        }),
    )
    .await
    .expect("the end is noticed")
    .unwrap();
    assert_eq!(
        client.bus.publish(&said("client", "a.b"), Vec::new()).await,
        Err(PublishError::Offline)
    );
    timeout(SOON, client.bus.close()).await.expect("already ended");
}

/// Closing does not wait for a broker that does not answer, nor for one that is not there.
#[tokio::test]
async fn closing_is_bounded() {
    let road = Road::mosquitto(Mosquitto::start());
    let client = road.connect("client", &[]).await;
    road.on_broker(|broker| broker.pause()).await;
    client.publish("a.b", vec![0; 60_000]).await;
    timeout(Duration::from_secs(10), client.bus.close())
        .await
        .expect("a frozen broker");
    let client = nowhere(format!("mqtt://127.0.0.1:{}", free_port())).start("client", &[]);
    timeout(Duration::from_secs(10), client.bus.close())
        .await
        .expect("no broker");
}

/// A lost NATS connection leaves nothing behind that would go on connecting.
#[tokio::test]
async fn no_connection_is_made_behind_our_back() {
    let nats = Nats::start();
    let link = Link::to(nats.addr());
    let road = Road {
        addresses: vec![link.url(&nats.url())],
        ..Road::nats(nats)
    };
    let mut client = road.connect("client", &["a.b"]).await;
    assert_eq!(link.accepted(), 1);
    link.cut();
    client.down().await;
    client.bus.close().await;
    link.restore();
    tokio::time::sleep(Duration::from_secs(3)).await;
    // async-nats tries once more before it sees that its owner is gone.
    assert!(link.accepted() <= 2, "{} connections", link.accepted());
}

#[tokio::test]
async fn ipv6_addresses_are_reached() {
    for scheme in ["mqtt", "mqtts", "nats"] {
        let listener = TcpListener::bind("[::1]:0").expect("this machine has IPv6 on its loopback");
        let address = format!("{scheme}://[::1]:{}", listener.local_addr().unwrap().port());
        let road = nowhere(address).trusting(&testkit::Tls::new(), None);
        let _client = road.start("client", &[]);
        let accepting = tokio::task::spawn_blocking(move || listener.accept().unwrap());
        timeout(SOON, accepting)
            .await
            .unwrap_or_else(|_| panic!("{scheme}: nobody connected"))
            .unwrap();
    }
}

/// What the hub loses, repeats and reorders is decided by the seed alone, and nothing else is lost.
#[tokio::test]
async fn the_hub_fails_as_told() {
    let faults = Faults {
        seed: 7,
        drop_per_mille: 100,
        duplicate_per_mille: 50,
        reorder_per_mille: 100,
    };
    let mut runs = Vec::new();
    for (name, faults) in [
        ("one", faults),
        ("two", faults),
        ("three", Faults { seed: 8, ..faults }),
    ] {
        let road = Road::memory(&format!("faults-{name}"));
        let mut hearer = road.connect("hearer", &["a.b"]).await;
        let sender = road.connect("sender", &[]).await;
        let hub = Hub::named(&format!("faults-{name}"));
        hub.set_faults(faults);
        let mut heard = Vec::new();
        for n in 0..1000u16 {
            sender.publish("a.b", n.to_le_bytes()).await;
        }
        hub.set_faults(Faults::default());
        sender.publish("a.b", 1000u16.to_le_bytes()).await;
        while heard.last() != Some(&1000) {
            let (_, payload) = hearer.message().await;
            heard.push(u16::from_le_bytes(payload.try_into().unwrap()));
        }
        while let Ok(Some(Event::Message { payload, .. })) =
            timeout(Duration::from_millis(100), hearer.events.recv()).await
        {
            heard.push(u16::from_le_bytes(payload.try_into().unwrap()));
        }
        runs.push(heard);
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
    let distinct: std::collections::BTreeSet<_> = runs[0].iter().collect();
    let (lost, twice) = (1001 - distinct.len(), runs[0].len() - distinct.len());
    let late = runs[0].windows(2).filter(|pair| pair[1] < pair[0]).count();
    assert!(
        (70..130).contains(&lost) && (25..75).contains(&twice) && (60..130).contains(&late),
        "{lost} {twice} {late}"
    );
}
