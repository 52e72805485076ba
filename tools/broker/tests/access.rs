//! Who gets in and what they may do there, over real connections. The rules themselves are tested in `bus-schema`.

mod support;

use bus_schema::{access::User, subject};
use rumqttc::{ConnectReturnCode, ConnectionError, LastWill, QoS};
use support::{Fleet, Peer, QUIET, filter, topic};

#[test]
fn passwords() {
    let fleet = Fleet::new();
    let _broker = fleet.start("");
    let (a, b) = (User::Node(fleet.a), User::Node(fleet.b));
    let login = |name: String, password: String, client_id: &str| {
        let mut options = fleet.options(a, client_id);
        options.set_credentials(name, password);
        options
    };
    let nobody = {
        let mut options = rumqttc::MqttOptions::new(a.name(), "127.0.0.1", fleet.port);
        options.set_clean_session(true);
        options
    };
    let with_will = |topic: String| {
        let mut options = fleet.options(a, &a.name());
        options.set_last_will(LastWill::new(topic, "gone", QoS::AtLeastOnce, false));
        options
    };
    let right = a.password(&support::SECRET);
    for (what, options, refused) in [
        ("the right one", login(a.name(), right.clone(), &a.name()), None),
        (
            "a suffixed client id",
            login(a.name(), right.clone(), &format!("{}-data", a.name())),
            None,
        ),
        (
            "wrong",
            login(a.name(), "x".into(), &a.name()),
            Some(ConnectReturnCode::BadUserNamePassword),
        ),
        (
            "empty",
            login(a.name(), String::new(), &a.name()),
            Some(ConnectReturnCode::BadUserNamePassword),
        ),
        (
            "of another secret",
            login(a.name(), a.password(&[0; 32]), &a.name()),
            Some(ConnectReturnCode::BadUserNamePassword),
        ),
        (
            "another's",
            login(b.name(), right.clone(), &b.name()),
            Some(ConnectReturnCode::BadUserNamePassword),
        ),
        (
            "of a stranger",
            login("admin".into(), right.clone(), "admin"),
            Some(ConnectReturnCode::BadUserNamePassword),
        ),
        ("none", nobody, Some(ConnectReturnCode::BadUserNamePassword)),
        (
            "another's client id",
            login(a.name(), right, &b.name()),
            Some(ConnectReturnCode::BadClientId),
        ),
        ("a will of its own", with_will(fleet.control(&fleet.a, &fleet.b)), None),
        (
            "a will in another's name",
            with_will(fleet.control(&fleet.b, &fleet.a)),
            Some(ConnectReturnCode::NotAuthorized),
        ),
    ] {
        match (Peer::connect(options), refused) {
            (Ok(_), None) => {}
            (Err(ConnectionError::ConnectionRefused(code)), Some(refused)) => assert_eq!(code, refused, "{what}"),
            (found, refused) => panic!("{what}: {:?}, not {refused:?}", found.err()),
        }
    }
}

#[test]
fn nobody_speaks_in_anothers_name() {
    let fleet = Fleet::new();
    let mut broker = fleet.start("");
    let mut plane = fleet.member(fleet.plane);
    let mut b = fleet.member(fleet.b);
    assert!(plane.subscribe(&fleet.control_to(&fleet.plane)));
    assert!(b.subscribe(&fleet.data(&fleet.a)));

    let mut a = fleet.member(fleet.a);
    // MQTT 3.1.1 cannot say no to a publication; it is acknowledged and goes nowhere.
    for forged in [
        fleet.control(&fleet.b, &fleet.plane),
        fleet.data(&fleet.b),
        "$SYS/x".into(),
    ] {
        a.publish(&forged, "forged").unwrap();
    }
    a.publish(&fleet.control(&fleet.a, &fleet.plane), "true").unwrap();
    a.publish(&fleet.data(&fleet.a), "frame").unwrap();
    assert_eq!(plane.receive_text(), "true");
    assert_eq!(b.receive_text(), "frame");
    assert!(plane.receive(QUIET).is_none() && b.receive(QUIET).is_none());
    assert!(broker.log().contains("may not publish on"), "{}", broker.log());
    assert!(broker.is_running());
}

#[test]
fn nobody_listens_where_it_has_no_business() {
    let fleet = Fleet::new();
    let _broker = fleet.start("");
    let mut a = fleet.member(fleet.a);
    for (wide, granted) in [
        ("#".to_string(), false),
        ("+/+/+/+/+/+".to_string(), false),
        ("$SYS/#".to_string(), false),
        (format!("myc/v1/{}/ctl/#", fleet.fleet), false),
        (fleet.control_to(&fleet.b), false),
        (filter(&subject::enrol_asks(&fleet.fleet)), false),
        (format!("$share/group/{}", fleet.control_to(&fleet.a)), false),
        (fleet.control_to(&fleet.a), true),
        (format!("myc/v1/{}/data/+/{}", fleet.fleet, fleet.stream), true),
    ] {
        assert_eq!(a.subscribe(&wide), granted, "{wide}");
    }
    let mut plane = fleet.member(fleet.plane);
    plane.publish(&fleet.control(&fleet.plane, &fleet.b), "for b").unwrap();
    plane.publish(&fleet.control(&fleet.plane, &fleet.a), "for a").unwrap();
    assert_eq!(a.receive_text(), "for a");
    assert!(a.receive(QUIET).is_none());
}

#[test]
fn a_candidate_only_asks() {
    let fleet = Fleet::new();
    let _broker = fleet.start("");
    let user = User::Candidate(fleet.token);
    let (ask, answer) = (
        subject::enrol_ask(&fleet.fleet, &fleet.token),
        subject::enrol_answer(&fleet.fleet, &fleet.token),
    );
    let mut plane = fleet.member(fleet.plane);
    assert!(plane.subscribe(&filter(&subject::enrol_asks(&fleet.fleet))));
    assert!(plane.subscribe(&fleet.control_to(&fleet.plane)));

    let mut candidate = Peer::connect(fleet.options(user, &user.name())).unwrap();
    assert!(candidate.subscribe(&topic(&answer)));
    for wide in [
        filter(&subject::enrol_asks(&fleet.fleet)),
        fleet.control_to(&fleet.a),
        "#".into(),
    ] {
        assert!(!candidate.subscribe(&wide), "{wide}");
    }
    for forbidden in [topic(&answer), fleet.control(&fleet.a, &fleet.plane)] {
        candidate.publish(&forbidden, "forged").unwrap();
    }
    candidate.publish(&topic(&ask), "let me in").unwrap();
    assert_eq!(plane.receive_text(), "let me in");
    plane.publish(&topic(&answer), "welcome").unwrap();
    assert_eq!(candidate.receive_text(), "welcome");
    assert!(plane.receive(QUIET).is_none() && candidate.receive(QUIET).is_none());
}

#[test]
fn mqtt_5_says_why() {
    use rumqttc::v5::{
        Client, Event, Incoming, MqttOptions,
        mqttbytes::{QoS, v5::PubAckReason},
    };
    let fleet = Fleet::new();
    let _broker = fleet.start("");
    let user = User::Node(fleet.a);
    let mut options = MqttOptions::new(user.name(), "127.0.0.1", fleet.port);
    options.set_credentials(user.name(), user.password(&support::SECRET));
    let (client, mut connection) = Client::new(options, 8);
    client
        .try_publish(fleet.control(&fleet.b, &fleet.a), QoS::AtLeastOnce, false, "forged")
        .unwrap();
    client
        .try_publish(fleet.control(&fleet.a, &fleet.b), QoS::AtLeastOnce, false, "true")
        .unwrap();
    let mut said = Vec::new();
    while said.len() < 2 {
        match connection.recv_timeout(support::SOON).expect("an answer").unwrap() {
            Event::Incoming(Incoming::ConnAck(ack)) => {
                let properties = ack.properties.unwrap();
                assert_eq!((properties.max_qos, properties.retain_available), (Some(1), Some(0)));
                assert_eq!(properties.max_packet_size, Some(broker::PACKET_BYTES_MAX as u32));
                assert_eq!(properties.topic_alias_max, Some(0));
            }
            Event::Incoming(Incoming::PubAck(ack)) => said.push(ack.reason),
            _ => {}
        }
    }
    assert_eq!(said, [PubAckReason::NotAuthorized, PubAckReason::Success]);
}
