//! Control is never behind data: a daemon with a large backlog behind a slow modem with a deep queue answers as if there
//! were none, and everything arrives once in the end.

#![cfg(target_os = "linux")]

use std::{
    path::Path,
    time::{Duration, Instant},
};

use testkit::{
    Broker, Cmd, Fleet, Link, Mosquitto, Nats,
    scenario::{all_arrive, balanced, shop_workflow},
    shop::{self, Sizes},
    wait_ok, wait_until,
};

const SOON: Duration = Duration::from_secs(60);
const LATE: Duration = Duration::from_secs(1_800);
const STOP: Duration = Duration::from_secs(20);

/// 50 kbit/s.
const SLOW_BYTES_PER_S: u64 = 50_000 / 8;
/// Far more than anybody may wait.
const MODEM_QUEUE: Duration = Duration::from_secs(40);
/// A command is answered within this time.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long it is looked at.
const WATCHED: Duration = Duration::from_secs(60);
/// Rows before the backlog.
const BEFORE: u64 = 100;
/// Largest photo of the backlog's rows; a row has about an eighth of it.
const PHOTO_BYTES_MAX: u64 = 200_000;

/// Bytes of all files below a directory.
fn size(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => size(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.flatten().map(of).sum()
}

/// The gateway's presence as the plane has it.
fn presence(fleet: &Fleet) -> String {
    let text = fleet.cli(&["daemon", "list", "-o", "json"]).unwrap_or_default();
    let daemons: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap_or_default();
    let gateway = daemons.iter().find(|daemon| daemon["name"] == "gateway");
    gateway.map_or("unknown to the plane".into(), |gateway| gateway["presence"].to_string())
}

fn answers_over_a_slow_line(broker: Broker, backlog_bytes: u64) {
    let fleet = Fleet::start(broker, None);
    fleet.enrol("gateway");
    fleet.enrol("hub");
    let link = Link::to(fleet.broker.addr());
    let bus = link.url(&fleet.broker.url());
    let mut gateway = fleet.daemon("gateway", Some(&bus));
    let mut hub = fleet.daemon("hub", None);
    let source = fleet.dir().join("shop.db");
    shop::create(&source).expect("a database");
    shop::add(&source, BEFORE).expect("rows");
    fleet.apply(
        "shop",
        &format!("{}spool = {{ quota = \"4GiB\" }}\n", shop_workflow(&fleet)),
    );
    all_arrive("the first rows", &fleet, BEFORE);

    // The backlog grows while the line is down.
    link.cut();
    let rows = backlog_bytes * 8 / PHOTO_BYTES_MAX;
    shop::add_sized(&source, rows, Sizes::UpTo(PHOTO_BYTES_MAX)).expect("rows");
    let spooled = fleet.dir().join("gateway").join("streams");
    wait_until("the backlog to be in the buffer", LATE, || {
        (size(&spooled) >= backlog_bytes * 4 / 5).then_some(())
    });
    link.queue(MODEM_QUEUE);
    link.cap(Some(SLOW_BYTES_PER_S));
    link.restore();
    // What is asked before it is back is lost.
    wait_ok("the gateway to be back", SOON, || {
        fleet.cli(&["daemon", "ping", "gateway", "--timeout", "3"])
    });
    wait_until("the plane to trust in that", SOON, || {
        presence(&fleet).contains("online").then_some(())
    });

    let started = Instant::now();
    let mut slowest = Duration::ZERO;
    while started.elapsed() < WATCHED {
        let asked = Instant::now();
        if let Err(error) = fleet.cli(&["daemon", "ping", "gateway", "--timeout", "30"]) {
            panic!("no answer after {:?}: {error}", started.elapsed());
        }
        let took = asked.elapsed();
        eprintln!("after {:.1} s: answered in {took:.2?}", started.elapsed().as_secs_f64());
        slowest = slowest.max(took);
        assert!(
            presence(&fleet).contains("online"),
            "its presence flaps: {}",
            presence(&fleet)
        );
    }
    assert!(slowest <= ANSWER_MAX, "an answer took {slowest:.2?}");
    assert!(
        shop::count(&fleet.dir().join("copy.db"), testkit::scenario::COPY) < BEFORE + rows,
        "the line was too fast to prove anything"
    );

    link.cap(None);
    let lifted = Instant::now();
    wait_until("the backlog to drain", LATE, || {
        (shop::count(&fleet.dir().join("copy.db"), testkit::scenario::COPY) == BEFORE + rows).then_some(())
    });
    let seconds = lifted.elapsed().as_secs_f64();
    eprintln!(
        "the rest came in {seconds:.1} s: {:.1} MB/s",
        backlog_bytes as f64 / 1e6 / seconds
    );
    all_arrive("the backlog", &fleet, BEFORE + rows);
    balanced(&fleet, 1, BEFORE + rows);
    assert!(gateway.term_and_wait(STOP).success(), "the gateway drains and stops");
    assert!(hub.term_and_wait(STOP).success(), "the hub drains and stops");
}

const MB: u64 = 1_000_000;

#[test]
fn a_command_is_answered_before_a_backlog_over_mqtt() {
    answers_over_a_slow_line(Broker::Mosquitto(Mosquitto::start()), 30 * MB);
}

#[test]
fn a_command_is_answered_before_a_backlog_over_nats() {
    answers_over_a_slow_line(Broker::Nats(Nats::start()), 30 * MB);
}

#[test]
#[ignore = "takes five minutes and 4 GB of disk with release programs; run it by hand"]
fn a_command_is_answered_before_a_gigabyte() {
    answers_over_a_slow_line(Broker::Mosquitto(Mosquitto::start()), 1_000 * MB);
}

/// Hours and minutes where this machine is, so many hours from now.
fn in_hours(hours: u32) -> String {
    let text = Cmd::new("date")
        .args(["+%H:%M", "-d", &format!("+{hours} hours")])
        .run(SOON)
        .ok();
    text.trim().to_string()
}

#[test]
fn a_stream_keeps_its_hours_and_says_so() {
    let fleet = Fleet::start(Broker::embedded(false), None);
    fleet.enrol("gateway");
    fleet.enrol("hub");
    let _gateway = fleet.daemon("gateway", None);
    let _hub = fleet.daemon("hub", None);
    let source = fleet.dir().join("shop.db");
    shop::create(&source).expect("a database");
    let rows = 20_000;
    shop::add(&source, rows).expect("rows");
    let (from, to) = (in_hours(3), in_hours(5));
    let send = "class = \"bulk\", rate = \"500KB/s\", compress = true";
    let workflow = shop_workflow(&fleet);
    fleet.apply(
        "shop",
        &format!("{workflow}send = {{ {send}, windows = [\"{from}-{to}\"] }}\n"),
    );
    let told = wait_until("the stream to say that it waits", SOON, || {
        let text = fleet.cli(&["ledger", "-o", "json"]).ok()?;
        let streams: Vec<serde_json::Value> = serde_json::from_str(&text).ok()?;
        let all = |stream: &&serde_json::Value| stream["ledger"]["buffered"] == rows;
        let stream = streams.iter().find(all)?;
        stream["trouble"]
            .as_str()
            .filter(|trouble| !trouble.is_empty())
            .map(String::from)
    });
    assert_eq!(told, format!("waits for its hours: sends again at {from}"));
    assert_eq!(
        fleet.ledgers().iter().map(|(_, ledger)| ledger.delivered).sum::<u64>(),
        0,
        "nothing may have been sent"
    );
    fleet.apply("shop", &format!("{workflow}send = {{ {send} }}\n"));
    all_arrive("every row, without hours", &fleet, rows);
    balanced(&fleet, 1, rows);
}
