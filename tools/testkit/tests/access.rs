//! The access lists that `mycelial acl` writes, in the brokers they are written for: a daemon says only what is its own to
//! say, and hears only what is meant for it. The brokers' protocols are spoken by hand.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use serde_json::Value;
use testkit::{Broker, Fleet, Mosquitto, Nats};

const ANSWER: Duration = Duration::from_secs(10);
/// How long nothing must come.
const SILENCE: Duration = Duration::from_millis(500);
const PASSWORD: &str = "same-for-all-here";

/// Who there is, by id.
struct Ids {
    fleet: String,
    plane: String,
    a: String,
    b: String,
}

fn fleet() -> (Fleet, Ids) {
    let fleet = Fleet::start(Broker::embedded(false), None);
    for name in ["a", "b"] {
        fleet.enrol(name);
    }
    let json = |arguments: &[&str]| -> Value { serde_json::from_str(&fleet.cli(arguments).unwrap()).unwrap() };
    let info = json(&["info", "-o", "json"]);
    let text = |value: &Value| value.as_str().unwrap().to_string();
    let node = |name: &str| text(&json(&["daemon", "show", name, "-o", "json"])["view"]["node"]);
    let ids = Ids {
        fleet: text(&info["fleet"]),
        plane: text(&info["plane"]),
        a: node("a"),
        b: node("b"),
    };
    (fleet, ids)
}

struct Mqtt(TcpStream);

fn field(text: &str) -> Vec<u8> {
    [&u16::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()].concat()
}

impl Mqtt {
    fn connect(port: u16, user: &str) -> Self {
        let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        socket.set_read_timeout(Some(ANSWER)).unwrap();
        let mut mqtt = Self(socket);
        // Protocol 3.1.1; user name, password, clean session; keep-alive of a minute.
        let head = [&field("MQTT")[..], &[4, 0xc2, 0, 60]].concat();
        mqtt.put(0x10, &[head, field(user), field(user), field(PASSWORD)].concat());
        assert_eq!(mqtt.take().1, [0, 0], "{user} is let in");
        mqtt
    }

    fn put(&mut self, kind: u8, body: &[u8]) {
        let mut length = Vec::new();
        let mut left = body.len();
        while left > 127 {
            length.push((left % 128) as u8 | 0x80);
            left /= 128;
        }
        length.push(left as u8);
        self.0.write_all(&[&[kind], &length[..], body].concat()).unwrap();
    }

    fn take(&mut self) -> (u8, Vec<u8>) {
        self.try_take().expect("an answer")
    }

    fn try_take(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut byte = [0];
        self.0.read_exact(&mut byte).ok()?;
        let kind = byte[0];
        let (mut length, mut shift) = (0, 0);
        loop {
            self.0.read_exact(&mut byte).ok()?;
            length |= usize::from(byte[0] & 0x7f) << shift;
            shift += 7;
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).ok()?;
        Some((kind, body))
    }

    /// Whether the broker grants it.
    fn subscribe(&mut self, filter: &str) -> bool {
        self.put(0x82, &[&[0, 1], &field(filter)[..], &[0]].concat());
        let (kind, body) = self.take();
        assert_eq!(kind, 0x90);
        body[2] != 0x80
    }

    fn publish(&mut self, topic: &str, text: &str) {
        self.put(0x30, &[&field(topic)[..], text.as_bytes()].concat());
    }

    /// The next message's text; `None` when there is none.
    fn heard(&mut self) -> Option<String> {
        self.heard_within(SILENCE)
    }

    fn heard_within(&mut self, time: Duration) -> Option<String> {
        self.0.set_read_timeout(Some(time)).unwrap();
        let (_, body) = self.try_take()?;
        let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
        Some(String::from_utf8_lossy(&body[2 + topic..]).into_owned())
    }
}

#[test]
fn mosquitto_lets_nobody_beyond_its_own() {
    let (fleet, ids) = fleet();
    let list = fleet.cli(&["acl", "export", "--broker", "mosquitto"]).unwrap();
    let Ids { fleet: f, plane, a, b } = &ids;
    let broker = [plane, a, b]
        .iter()
        .fold(Mosquitto::builder(), |broker, user| broker.user(user, PASSWORD));
    let broker = broker.acl(&list).start();
    let [mut as_plane, mut as_a, mut as_b] = [plane, a, b].map(|user| Mqtt::connect(broker.port(), user));
    assert!(as_plane.subscribe(&format!("myc/v1/{f}/ctl/+/{plane}")));
    assert!(as_b.subscribe(&format!("myc/v1/{f}/ctl/+/{b}")));
    // What is refused is answered with 0x80, or granted and never served: what counts is what is heard.
    as_a.subscribe(&format!("myc/v1/{f}/ctl/+/{b}"));
    as_a.subscribe("#");
    // (topic, heard by the plane, heard by b)
    for (topic, by_plane, by_b) in [
        (format!("myc/v1/{f}/ctl/{a}/{plane}"), true, false),
        (format!("myc/v1/{f}/ctl/{b}/{plane}"), false, false),
        (format!("myc/v1/{f}/ctl/{plane}/{b}"), false, false),
        (format!("myc/v1/{f}/ctl/{a}/{b}"), false, true),
    ] {
        as_a.publish(&topic, "x");
        assert_eq!(
            (as_plane.heard().is_some(), as_b.heard().is_some()),
            (by_plane, by_b),
            "{topic}"
        );
    }
    as_plane.publish(&format!("myc/v1/{f}/ctl/{plane}/{b}"), "for b alone");
    assert_eq!(as_b.heard().as_deref(), Some("for b alone"));
    assert_eq!(as_a.heard(), None, "what is for another is not heard");
}

struct NatsClient(BufReader<TcpStream>);

impl NatsClient {
    fn connect(port: u16, user: &str) -> Self {
        let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        socket.set_read_timeout(Some(ANSWER)).unwrap();
        let mut client = Self(BufReader::new(socket));
        let mut line = String::new();
        client.0.read_line(&mut line).unwrap();
        assert!(line.starts_with("INFO"), "{line}");
        let said = client.say(&format!(
            "CONNECT {{\"user\":\"{user}\",\"pass\":\"{PASSWORD}\",\"verbose\":false,\"pedantic\":false}}"
        ));
        assert_eq!(said, None, "{user} is let in");
        client
    }

    /// Says a line and asks whether all is well: what the server complains of before it says yes.
    fn say(&mut self, line: &str) -> Option<String> {
        self.0
            .get_mut()
            .write_all(format!("{line}\r\nPING\r\n").as_bytes())
            .unwrap();
        let mut complaint = None;
        loop {
            let mut line = String::new();
            assert!(
                self.0.read_line(&mut line).unwrap() > 0,
                "the server hung up: {complaint:?}"
            );
            match line.trim() {
                "PONG" => return complaint,
                line if line.starts_with("-ERR") => complaint = Some(line.to_string()),
                _ => {}
            }
        }
    }

    /// The next message's text, within the time for answers.
    fn heard(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        assert!(line.starts_with("MSG "), "{line}");
        let length = line.split_whitespace().last().unwrap().parse().unwrap();
        let mut text = vec![0; length];
        self.0.read_exact(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }
}

#[test]
fn nats_server_lets_nobody_beyond_its_own() {
    let (fleet, ids) = fleet();
    // As the whole server's list, and as one account among others.
    for form in ["nats", "nats-account"] {
        nats_server_obeys(&fleet.cli(&["acl", "export", "--broker", form]).unwrap(), &ids);
    }
    let one = fleet
        .cli(&["acl", "export", "--broker", "nats", "--member", "a"])
        .unwrap();
    assert!(
        one.contains(&ids.a) && !one.contains(&format!("user: \"{}\"", ids.b)),
        "{one}"
    );
    assert!(
        fleet
            .cli(&["acl", "export", "--broker", "nats", "--member", "nobody"])
            .is_err()
    );
}

/// A nats-server with this list, in which everybody has the same password.
fn nats_server(list: &str) -> Nats {
    let filled: Vec<String> = list
        .split("$PASSWORD_")
        .enumerate()
        .map(|(n, part)| match n {
            0 => part.to_string(),
            _ => format!(
                "\"{PASSWORD}\"{}",
                part.split_once(',')
                    .map_or("", |(_, rest)| &part[part.len() - rest.len() - 1..])
            ),
        })
        .collect();
    Nats::builder().line(&filled.concat()).start()
}

fn nats_server_obeys(list: &str, ids: &Ids) {
    let Ids { fleet: f, plane, a, b } = ids;
    let server = nats_server(list);
    let mut as_a = NatsClient::connect(server.port(), a);
    // (line, allowed)
    for (line, allowed) in [
        (format!("PUB myc.v1.{f}.ctl.{a}.{plane} 1\r\nx"), true),
        (format!("PUB myc.v1.{f}.ctl.{b}.{plane} 1\r\nx"), false),
        (format!("PUB myc.v1.{f}.ctl.{plane}.{b} 1\r\nx"), false),
        (format!("PUB myc.v1.{f}.app.{a}.line1 1\r\nx"), true),
        (format!("PUB myc.v1.{f}.app.{b}.line1 1\r\nx"), false),
        ("PUB $SYS.REQ.SERVER.PING 1\r\nx".to_string(), false),
        (format!("SUB myc.v1.{f}.ctl.*.{a} 1"), true),
        (format!("SUB myc.v1.{f}.ctl.*.{b} 2"), false),
        (format!("SUB myc.v1.{f}.ctl.> 3"), false),
        (format!("SUB myc.v1.{f}.enrol.*.ask 4"), false),
        ("SUB > 5".to_string(), false),
    ] {
        let said = as_a.say(&line);
        assert_eq!(said.is_none(), allowed, "{line}: {said:?}");
    }
}

/// A fleet whose plane tells of alerts in the clear, and where.
fn told_in_the_clear(broker: Broker) -> (Fleet, String) {
    let mut fleet = Fleet::start(broker, None);
    let settings = fleet.dir().join("plane").join("plane.toml");
    let mut text = std::fs::read_to_string(&settings).unwrap();
    text.push_str("\n[[alerts.bus]]\nname = 'panel'\ntopic = 'alerts.plant'\nplain = true\n");
    std::fs::write(&settings, text).unwrap();
    fleet.plane_away();
    fleet.plane_back();
    let info: Value = serde_json::from_str(&fleet.cli(&["info", "-o", "json"]).unwrap()).unwrap();
    let [f, plane] = ["fleet", "plane"].map(|key| info[key].as_str().unwrap());
    let topic = format!("myc/v1/{f}/app/{plane}/alerts/plant");
    (fleet, topic)
}

fn is_the_test(told: &str) {
    let told: Value = serde_json::from_str(told).unwrap();
    assert_eq!(
        (&told["id"], &told["version"]),
        (&Value::from("test"), &Value::from(1)),
        "{told}"
    );
}

#[test]
fn panels_hear_of_alerts_in_the_clear_and_of_nothing_else() {
    let (fleet, topic) = told_in_the_clear(Broker::Mosquitto(Mosquitto::builder().start()));
    let mut panel = Mqtt::connect(fleet.broker.addr().port(), "anybody");
    assert!(panel.subscribe(&topic));
    fleet.cli(&["alert", "test", "panel"]).unwrap();
    is_the_test(&panel.heard_within(ANSWER).unwrap());
    // With the list, the panel's user hears that subject, and says nothing.
    let list = fleet.cli(&["acl", "export", "--broker", "mosquitto"]).unwrap();
    let plane = topic.split('/').nth(4).unwrap().to_string();
    let broker = [plane.as_str(), "panel"]
        .iter()
        .fold(Mosquitto::builder(), |broker, user| broker.user(user, PASSWORD));
    let broker = broker.acl(&list).start();
    let [mut as_plane, mut as_panel] = [plane.as_str(), "panel"].map(|user| Mqtt::connect(broker.port(), user));
    assert!(as_panel.subscribe(&topic));
    as_panel.subscribe("#");
    assert!(as_plane.subscribe(&topic.replace("/plant", "/#")));
    as_panel.publish(&topic, "not by a panel");
    assert_eq!((as_plane.heard(), as_panel.heard()), (None, None));
    as_plane.publish(&topic.replace("/plant", "/other"), "x");
    assert!(as_plane.heard().is_some());
    assert_eq!(as_panel.heard(), None, "another topic");
    as_plane.publish(&topic, "an alert");
    assert_eq!(as_panel.heard().as_deref(), Some("an alert"));

    let (fleet, topic) = told_in_the_clear(Broker::Nats(Nats::builder().start()));
    let topic = topic.replace('/', ".");
    let mut panel = NatsClient::connect(fleet.broker.addr().port(), "anybody");
    assert_eq!(panel.say(&format!("SUB {topic} 1")), None);
    fleet.cli(&["alert", "test", "panel"]).unwrap();
    is_the_test(&panel.heard());
    let server = nats_server(&fleet.cli(&["acl", "export", "--broker", "nats"]).unwrap());
    let mut as_panel = NatsClient::connect(server.port(), "panel");
    for (line, allowed) in [
        (format!("SUB {topic} 1"), true),
        (format!("SUB {topic}.more 2"), false),
        ("SUB > 3".to_string(), false),
        (format!("PUB {topic} 1\r\nx"), false),
        ("PUB other 1\r\nx".to_string(), false),
    ] {
        let said = as_panel.say(&line);
        assert_eq!(said.is_none(), allowed, "{line}: {said:?}");
    }
}
