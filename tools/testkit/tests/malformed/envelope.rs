//! A stranger on the bus: publishes noise, cut and changed envelopes, and old ones again. Everybody lives on, counts them,
//! and the work goes on to the last value.

use std::{
    fs,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
use testkit::{shop, wait_ok, wait_until};

use crate::{SOON, text, world::World};

/// Messages heard and not looked at yet.
const HEARD_MAX: usize = 100_000;

/// Hears everything, and publishes what it likes.
struct Stranger {
    client: Client,
    heard: mpsc::Receiver<(String, Vec<u8>)>,
}

impl Stranger {
    fn at(port: u16) -> Self {
        let mut options = MqttOptions::new("stranger", "127.0.0.1", port);
        options.set_max_packet_size(256 * 1024, 256 * 1024);
        let (client, mut connection) = Client::new(options, 1_000);
        client.subscribe("#", QoS::AtLeastOnce).unwrap();
        let (hear, heard) = mpsc::sync_channel(HEARD_MAX);
        thread::spawn(move || {
            for event in connection.iter() {
                match event {
                    Ok(Event::Incoming(Packet::Publish(message))) => {
                        // The test may have ended.
                        let _ = hear.send((message.topic, message.payload.to_vec()));
                    }
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        });
        Self { client, heard }
    }

    /// Everything heard for a while.
    fn listen(&self, time: Duration) -> Vec<(String, Vec<u8>)> {
        let end = Instant::now() + time;
        let mut all = Vec::new();
        while let Ok(message) = self.heard.recv_timeout(end.saturating_duration_since(Instant::now())) {
            all.push(message);
        }
        all
    }

    fn say(&self, topic: &str, payload: Vec<u8>) {
        self.client.publish(topic, QoS::AtLeastOnce, false, payload).unwrap();
    }
}

fn refused(world: &World, daemon: &str) -> u64 {
    let shown = world.cli(&["daemon", "show", daemon, "-o", "json"]).ok();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    shown["refused"].as_u64().unwrap_or_else(|| panic!("{shown}"))
}

#[test]
fn a_stranger_is_refused_and_the_work_goes_on() {
    let world = World::start("malformed-envelope");
    let (mut gateway, mut hub) = (world.daemon("gateway"), world.daemon("hub"));
    let (source, copy, file) = (world.path("shop.db"), world.path("copy.db"), world.path("shop.toml"));
    shop::create(&source).unwrap();
    let toml = format!(
        "name = \"shop\"\n\n[sources.orders]\ntype = \"sqlite\"\ndaemon = \"gateway\"\npath = \"{}\"\ntable = \"{}\"\n\
         cursor = \"id\"\n\n[destinations.copy]\ntype = \"sqlite\"\ndaemon = \"hub\"\nfrom = \"orders\"\npath = \"{}\"\n\
         table = \"copied\"\n",
        text(&source),
        shop::TABLE,
        text(&copy),
    );
    fs::write(&file, toml).unwrap();
    wait_ok("both daemons' components", SOON, || {
        let done = world.cli(&["workflow", "validate", text(&file)]);
        if done.code() == Some(0) {
            Ok(())
        } else {
            Err(done.stderr)
        }
    });
    let stranger = Stranger::at(world.broker.port());
    // The beginning of everything has to be heard: the stream's key, the plan.
    thread::sleep(Duration::from_millis(300));
    world.cli(&["workflow", "apply", text(&file)]).ok();
    shop::add(&source, 3_000).unwrap();
    let arrived = |rows: u64| {
        wait_ok("every row, once", SOON, || {
            match shop::compare(&source, &copy, "copied") {
                Ok(found) if found == rows => Ok(()),
                Ok(found) => Err(format!("{found} rows")),
                Err(error) => Err(error.to_string()),
            }
        });
    };
    arrived(3_000);
    let heard = stranger.listen(Duration::from_secs(2));
    let lanes: Vec<&str> = ["/ctl/", "/data/", "/ack/"]
        .into_iter()
        .filter(|lane| heard.iter().any(|(topic, _)| topic.contains(lane)))
        .collect();
    assert_eq!(lanes.len(), 3, "only {lanes:?} was heard");
    let before = [refused(&world, "gateway"), refused(&world, "hub")];

    let mut said = 0;
    for (number, (topic, payload)) in heard.iter().enumerate() {
        let mut flipped = payload.clone();
        flipped[(number * 131) % payload.len()] ^= 1 << (number % 8);
        let noise: Vec<u8> = (0..payload.len()).map(|at| (at * 167 + number * 59) as u8).collect();
        for forged in [
            noise,
            payload[..payload.len() / 2].to_vec(),
            flipped,
            payload.clone(),
            Vec::new(),
        ] {
            stranger.say(topic, forged);
            said += 1;
        }
    }
    // New data in the middle of it.
    shop::add(&source, 3_000).unwrap();
    arrived(6_000);
    println!("{said} forged messages, {} heard", heard.len());
    wait_until("both daemons to count what they refused", SOON, || {
        let now = [refused(&world, "gateway"), refused(&world, "hub")];
        (now[0] > before[0] && now[1] > before[1]).then_some(())
    });
    let mut plane = world.plane;
    plane.wait_for_log("messages were refused", SOON);
    for (name, process) in [("gateway", &mut gateway), ("hub", &mut hub), ("plane", &mut plane)] {
        assert!(process.is_running(), "{name} has ended:\n{}", process.log());
        let log = process.log();
        assert!(!log.contains("panicked"), "{name}:\n{log}");
        assert!(log.contains("refused"), "{name} says nothing:\n{log}");
    }
    // The same revision again, and the books.
    shop::add(&source, 1_000).unwrap();
    arrived(7_000);
    for process in [&mut gateway, &mut hub, &mut plane] {
        assert!(process.term_and_wait(SOON).success());
    }
}
