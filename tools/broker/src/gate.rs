//! The gate: who connects, and what they may publish and subscribe to. Keeps no list of users and opens no connection.

use std::{
    collections::{HashMap, HashSet},
    future::{Future, ready},
    hint::black_box,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bus_schema::{
    access::{Rules, User, rules},
    id::{FleetId, NodeId},
    subject::{Dialect, Pattern, Subject},
};
use mqtt5::{
    broker::{
        AuthProvider, AuthResult, BrokerEventHandler, ClientConnectEvent, ClientDisconnectEvent, ClientPublishEvent,
        PublishAction,
    },
    packet::{connect::ConnectPacket, publish::PublishPacket},
    protocol::v5::reason_codes::ReasonCode,
};
use tokio::sync::watch;
use tracing::{debug, info, warn};
use zeroize::Zeroizing;

/// What mqtt5 calls a client id it made up itself: this and 32 hexadecimal digits nobody else can guess.
const ASSIGNED_PREFIX: &str = "auto-";

type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Decides for every connection, publication and subscription.
pub(crate) struct Gate {
    fleet: FleetId,
    plane: NodeId,
    secret: Zeroizing<[u8; 32]>,
    /// Rules of the users that are connected, so that they are not built anew for each message.
    known: Mutex<HashMap<String, Arc<Known>>>,
    known_max: usize,
    /// Users that were taken out of the fleet.
    revoked: watch::Sender<HashSet<String>>,
    /// Who is connected from where: user and client id.
    present: Mutex<HashMap<SocketAddr, (String, String)>>,
}

/// A connected user.
struct Known {
    rules: Rules,
    refused: AtomicU64,
}

/// Why a connection is refused.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    code: ReasonCode,
    why: &'static str,
}

impl Gate {
    /// A gate that remembers the rules of at most `known_max` users.
    pub(crate) fn new(fleet: FleetId, plane: NodeId, secret: Zeroizing<[u8; 32]>, known_max: usize) -> Self {
        Self {
            fleet,
            plane,
            secret,
            known: Mutex::default(),
            known_max,
            revoked: watch::Sender::default(),
            present: Mutex::default(),
        }
    }

    /// These users are let in no more, and those that are in are put out.
    pub(crate) fn revoke(&self, users: HashSet<String>) {
        self.revoked.send_if_modified(|known| {
            let changed = *known != users;
            *known = users;
            changed
        });
    }

    fn is_revoked(&self, user: &str) -> bool {
        self.revoked.borrow().contains(user)
    }

    /// Returns once the user that is connected from `peer` has been taken out of the fleet.
    pub(crate) async fn until_revoked(&self, peer: SocketAddr) {
        let mut revoked = self.revoked.subscribe();
        let present = || self.present.lock().unwrap_or_else(PoisonError::into_inner);
        let is_out = |revoked: &HashSet<String>| present().get(&peer).is_some_and(|(user, _)| revoked.contains(user));
        // The sender lives as long as this.
        let _ = revoked.wait_for(is_out).await;
    }

    /// The connection from `peer` has ended. Returns its client id if its user was taken out of the fleet.
    pub(crate) fn left(&self, peer: SocketAddr) -> Option<String> {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        let (user, client) = present.remove(&peer)?;
        self.is_revoked(&user).then_some(client)
    }

    fn admit(&self, connect: &ConnectPacket) -> Result<User, Refusal> {
        let refuse = |code, why| Err(Refusal { code, why });
        let (Some(name), Some(password)) = (&connect.username, &connect.password) else {
            return refuse(
                ReasonCode::BadUsernameOrPassword,
                "a user name and a password are needed",
            );
        };
        let Some(user) = User::parse(name) else {
            return refuse(
                ReasonCode::BadUsernameOrPassword,
                "the user name is neither a node id nor 'enrol-' and a token id",
            );
        };
        let expected = Zeroizing::new(user.password(&self.secret));
        if !same(expected.as_bytes(), password) {
            return refuse(
                ReasonCode::BadUsernameOrPassword,
                "wrong password: was the broker's secret changed?",
            );
        }
        if self.is_revoked(name) {
            return refuse(ReasonCode::NotAuthorized, "was taken out of the fleet");
        }
        let id = connect.client_id.as_str();
        let plain = id == name;
        let suffixed = id.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with('-'));
        if !(plain || suffixed || id.starts_with(ASSIGNED_PREFIX)) {
            let why = "the client id is neither the user name nor the user name, '-' and something";
            return refuse(ReasonCode::ClientIdentifierNotValid, why);
        }
        if !plain && keeps_session(connect) {
            let why = "only a client whose id is the user name alone may keep a session (clean session off)";
            return refuse(ReasonCode::ClientIdentifierNotValid, why);
        }
        if connect
            .will
            .as_ref()
            .is_some_and(|will| !self.may_publish(name, &will.topic))
        {
            return refuse(
                ReasonCode::NotAuthorized,
                "its last will is on a subject it may not publish on",
            );
        }
        Ok(user)
    }

    fn may_publish(&self, user: &str, topic: &str) -> bool {
        if self.is_revoked(user) {
            return false;
        }
        let Some(known) = self.known(user) else { return false };
        let allowed = Subject::from_wire(topic, Dialect::Mqtt)
            .is_ok_and(|subject| known.rules.publish.iter().any(|rule| rule.matches(&subject)));
        if !allowed {
            known.report("publish on", user, topic);
        }
        allowed
    }

    fn may_subscribe(&self, user: &str, filter: &str) -> bool {
        if self.is_revoked(user) {
            return false;
        }
        let Some(known) = self.known(user) else { return false };
        let allowed = pattern_from_mqtt(filter)
            .is_some_and(|pattern| known.rules.subscribe.iter().any(|rule| rule.contains(&pattern)));
        if !allowed {
            known.report("subscribe to", user, filter);
        }
        allowed
    }

    fn known(&self, name: &str) -> Option<Arc<Known>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(name) {
            return Some(Arc::clone(found));
        }
        let user = User::parse(name)?;
        if known.len() >= self.known_max {
            // Only reached by connections that came and went half-way; what is still needed comes back by itself.
            known.clear();
        }
        let entry = Arc::new(Known {
            rules: rules(&self.fleet, &self.plane, &user),
            refused: AtomicU64::new(0),
        });
        known.insert(name.to_string(), Arc::clone(&entry));
        Some(entry)
    }

    fn forget(&self, name: &str) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

impl Known {
    /// Says so the 1st, 10th, 100th… time: a client that goes on must not fill the disk with log lines.
    fn report(&self, what: &str, user: &str, subject: &str) {
        let count = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
        if 10_u64.pow(count.ilog10()) == count {
            let subject: String = subject.chars().take(160).collect();
            warn!(user, subject, count, "refused: {user} may not {what} this subject");
        }
    }
}

/// Compares in a time that does not depend on where the difference is.
fn same(expected: &[u8], given: &[u8]) -> bool {
    if expected.len() != given.len() {
        return false;
    }
    let difference = expected
        .iter()
        .zip(given)
        .fold(0, |all, (a, b)| black_box(all | (a ^ b)));
    black_box(difference) == 0
}

/// Whether the session is to outlive the connection.
fn keeps_session(connect: &ConnectPacket) -> bool {
    match connect.protocol_version {
        5 => connect
            .properties
            .get_session_expiry_interval()
            .is_some_and(|seconds| seconds > 0),
        _ => !connect.clean_start,
    }
}

/// The pattern an MQTT filter means; `None` when Mycelial has no such pattern.
fn pattern_from_mqtt(filter: &str) -> Option<Pattern> {
    // These have a meaning in a pattern and none in a filter.
    if filter.contains(['.', '*', '>']) {
        return None;
    }
    let tokens = filter.split('/').map(|token| match token {
        "+" => "*",
        "#" => ">",
        token => token,
    });
    Pattern::parse(&tokens.collect::<Vec<_>>().join(".")).ok()
}

impl AuthProvider for Gate {
    fn authenticate<'a>(
        &'a self,
        connect: &'a ConnectPacket,
        peer: SocketAddr,
    ) -> Later<'a, mqtt5::Result<AuthResult>> {
        let result = match self.admit(connect) {
            Ok(user) => {
                let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
                present.insert(peer, (user.name(), connect.client_id.clone()));
                AuthResult::success_with_user(user.name())
            }
            Err(Refusal { code, why }) => {
                let user: String = connect.username.iter().flat_map(|name| name.chars()).take(64).collect();
                warn!(%peer, user, "connection refused: {why}");
                AuthResult::fail(code)
            }
        };
        Box::pin(ready(Ok(result)))
    }

    fn authorize_publish<'a>(&'a self, _: &str, user: Option<&'a str>, topic: &'a str) -> Later<'a, bool> {
        Box::pin(ready(user.is_some_and(|user| self.may_publish(user, topic))))
    }

    fn authorize_subscribe<'a>(&'a self, _: &str, user: Option<&'a str>, filter: &'a str) -> Later<'a, bool> {
        Box::pin(ready(user.is_some_and(|user| self.may_subscribe(user, filter))))
    }

    fn cleanup_session<'a>(&'a self, user: &'a str) -> Later<'a, ()> {
        self.forget(user);
        Box::pin(ready(()))
    }
}

/// Says who comes and goes, and takes the retain flag off.
pub(crate) struct Doorkeeper;

impl BrokerEventHandler for Doorkeeper {
    fn on_client_connect<'a>(&'a self, event: ClientConnectEvent) -> Later<'a, ()> {
        info!(client = %event.client_id, "connected");
        Box::pin(ready(()))
    }

    fn on_client_disconnect<'a>(&'a self, event: ClientDisconnectEvent) -> Later<'a, ()> {
        if event.unexpected {
            info!(client = %event.client_id, reason = ?event.reason, "connection lost");
        } else {
            info!(client = %event.client_id, "disconnected");
        }
        Box::pin(ready(()))
    }

    fn on_client_publish<'a>(&'a self, event: ClientPublishEvent) -> Later<'a, PublishAction> {
        if !event.retain {
            return Box::pin(ready(PublishAction::Continue));
        }
        debug!(client = %event.client_id, topic = %event.topic, "delivered without retaining");
        let mut plain = PublishPacket::new(&*event.topic, event.payload, event.qos);
        plain.packet_id = event.packet_id;
        Box::pin(ready(PublishAction::Transform(plain)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bus_schema::{id::TokenId, subject};
    use mqtt5::{ConnectOptions, WillMessage};

    struct Fleet {
        gate: Gate,
        fleet: FleetId,
        plane: NodeId,
        a: NodeId,
        b: NodeId,
        token: TokenId,
    }

    fn fleet() -> Fleet {
        let fleet = FleetId::from_hash(&[1; 32]);
        let [plane, a, b] = [2, 3, 4].map(|n| NodeId::from_hash(&[n; 32]));
        let gate = Gate::new(fleet, plane, Zeroizing::new([9; 32]), 2);
        Fleet {
            gate,
            fleet,
            plane,
            a,
            b,
            token: TokenId::from_hash(&[5; 32]),
        }
    }

    fn connect(user: User, client_id: &str) -> ConnectPacket {
        let mut options = ConnectOptions::new(client_id).protocol_options;
        options.username = Some(user.name());
        options.password = Some(user.password(&[9; 32]).into_bytes());
        ConnectPacket::new(options)
    }

    #[test]
    fn only_known_names_with_their_password_come_in() {
        let Fleet { gate, a, b, token, .. } = fleet();
        let node = User::Node(a);
        let with = |change: fn(&mut ConnectPacket)| {
            let mut packet = connect(node, a.as_str());
            change(&mut packet);
            packet
        };
        let bad_password = Some(ReasonCode::BadUsernameOrPassword);
        let bad_id = Some(ReasonCode::ClientIdentifierNotValid);
        for (what, packet, refused) in [
            ("right", with(|_| ()), None),
            (
                "candidate",
                connect(User::Candidate(token), &User::Candidate(token).name()),
                None,
            ),
            ("no password", with(|packet| packet.password = None), bad_password),
            ("no user", with(|packet| packet.username = None), bad_password),
            (
                "empty password",
                with(|packet| packet.password = Some(vec![])),
                bad_password,
            ),
            (
                "longer password",
                with(|packet| packet.password.as_mut().unwrap().push(b'a')),
                bad_password,
            ),
            (
                "first byte",
                with(|packet| packet.password.as_mut().unwrap()[0] ^= 1),
                bad_password,
            ),
            (
                "last byte",
                with(|packet| *packet.password.as_mut().unwrap().last_mut().unwrap() ^= 1),
                bad_password,
            ),
            (
                "foreign name",
                with(|packet| packet.username = Some("admin".into())),
                bad_password,
            ),
            ("suffix", connect(node, &format!("{a}-data")), None),
            ("suffix without '-'", connect(node, &format!("{a}data")), bad_id),
            ("another's client id", connect(node, b.as_str()), bad_id),
            (
                "made up by the broker",
                connect(node, "auto-0123456789abcdef0123456789abcdef"),
                None,
            ),
        ] {
            let found = gate.admit(&packet).err().map(|refusal| refusal.code);
            assert_eq!(found, refused, "{what}");
        }
        let mut borrowed = connect(User::Node(b), a.as_str());
        borrowed.username = Some(a.to_string());
        assert_eq!(
            gate.admit(&borrowed).err().map(|refusal| refusal.code),
            bad_password,
            "another's password"
        );
    }

    #[test]
    fn who_was_taken_out_is_put_out_and_let_in_no_more() {
        let Fleet { gate, fleet, a, b, .. } = fleet();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let peers = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let enters = |node: NodeId, peer| {
            let packet = connect(User::Node(node), node.as_str());
            let admitted = runtime.block_on(gate.authenticate(&packet, peer)).unwrap();
            admitted.authenticated
        };
        assert!(enters(a, peers[0]) && enters(b, peers[1]));
        let topic = format!("myc/v1/{fleet}/ctl/{a}/{b}");
        assert!(gate.may_publish(a.as_str(), &topic));
        gate.revoke(HashSet::from([a.to_string()]));
        assert!(!gate.may_publish(a.as_str(), &topic));
        assert!(!gate.may_subscribe(a.as_str(), &format!("myc/v1/{fleet}/ctl/+/{a}")));
        assert!(!enters(a, SocketAddr::from(([127, 0, 0, 1], 3))));
        let short = std::time::Duration::from_millis(20);
        let out =
            |peer| runtime.block_on(async { tokio::time::timeout(short, gate.until_revoked(peer)).await.is_ok() });
        assert_eq!(peers.map(out), [true, false]);
        assert_eq!(peers.map(|peer| gate.left(peer)), [Some(a.to_string()), None]);
        assert!(gate.present.lock().unwrap().is_empty());
    }

    #[test]
    fn one_kept_session_a_user() {
        let Fleet { gate, a, .. } = fleet();
        let node = User::Node(a);
        for (id, version, clean_start, expiry, refused) in [
            (a.to_string(), 4, false, None, false),
            (format!("{a}-1"), 4, false, None, true),
            (format!("{a}-1"), 4, true, None, false),
            (format!("{a}-1"), 5, true, Some(60), true),
            (format!("{a}-1"), 5, false, Some(0), false),
            (a.to_string(), 5, true, Some(60), false),
        ] {
            let mut packet = connect(node, &id);
            packet.protocol_version = version;
            packet.clean_start = clean_start;
            packet.properties = mqtt5::Properties::default();
            if let Some(seconds) = expiry {
                packet.properties.set_session_expiry_interval(seconds);
            }
            assert_eq!(
                gate.admit(&packet).is_err(),
                refused,
                "{id} {version} {clean_start} {expiry:?}"
            );
        }
    }

    #[test]
    fn a_last_will_is_a_publication() {
        let Fleet { gate, fleet, a, b, .. } = fleet();
        for (sender, refused) in [(a, None), (b, Some(ReasonCode::NotAuthorized))] {
            let mut packet = connect(User::Node(a), a.as_str());
            let topic = subject::control(&fleet, &sender, &b).render(Dialect::Mqtt);
            packet.will = Some(WillMessage::new(topic, b"gone".to_vec()));
            assert_eq!(gate.admit(&packet).err().map(|refusal| refusal.code), refused);
        }
    }

    #[test]
    fn publishes_in_its_own_name_only() {
        let Fleet {
            gate,
            fleet,
            plane,
            a,
            b,
            token,
        } = fleet();
        let candidate = User::Candidate(token).name();
        for (user, topic, allowed) in [
            (a.as_str(), format!("myc/v1/{fleet}/ctl/{a}/{b}"), true),
            (a.as_str(), format!("myc/v1/{fleet}/ctl/{b}/{a}"), false),
            (a.as_str(), format!("myc/v1/{fleet}/data/{a}/{b}"), true),
            (a.as_str(), format!("myc/v1/{fleet}/app/{a}/deep/topic"), true),
            (a.as_str(), format!("myc/v1/{fleet}/app/{a}"), false),
            (a.as_str(), format!("myc/v1/{plane}/ctl/{a}/{b}"), false),
            (a.as_str(), format!("myc/v1/{fleet}/enrol/{token}/ask"), false),
            (a.as_str(), format!("myc.v1.{fleet}.ctl.{a}.{b}"), false),
            (a.as_str(), "$SYS/broker".to_string(), false),
            (a.as_str(), String::new(), false),
            (plane.as_str(), format!("myc/v1/{fleet}/enrol/{token}/answer"), true),
            (&candidate, format!("myc/v1/{fleet}/enrol/{token}/ask"), true),
            (&candidate, format!("myc/v1/{fleet}/enrol/{token}/answer"), false),
            ("admin", format!("myc/v1/{fleet}/ctl/{a}/{b}"), false),
        ] {
            assert_eq!(gate.may_publish(user, &topic), allowed, "{user} {topic}");
        }
    }

    #[test]
    fn hears_what_is_meant_for_it() {
        let Fleet {
            gate,
            fleet,
            plane,
            a,
            b,
            token,
        } = fleet();
        let candidate = User::Candidate(token).name();
        for (user, filter, allowed) in [
            (a.as_str(), format!("myc/v1/{fleet}/ctl/+/{a}"), true),
            (a.as_str(), format!("myc/v1/{fleet}/ctl/+/{b}"), false),
            (a.as_str(), format!("myc/v1/{fleet}/ctl/#"), false),
            (a.as_str(), format!("myc/v1/{fleet}/data/{b}/{b}"), true),
            (a.as_str(), format!("myc/v1/{fleet}/data/+/+"), true),
            (a.as_str(), format!("myc/v1/{fleet}/app/#"), true),
            (a.as_str(), format!("myc/v1/{fleet}/enrol/+/ask"), false),
            (a.as_str(), "#".to_string(), false),
            (a.as_str(), "myc/#".to_string(), false),
            (a.as_str(), "+/+/+/+/+/+".to_string(), false),
            (a.as_str(), "$SYS/#".to_string(), false),
            (a.as_str(), format!("$share/g/myc/v1/{fleet}/app/#"), false),
            (a.as_str(), format!("myc.v1.{fleet}.app.>"), false),
            (a.as_str(), format!("myc/v1/{fleet}/app/>"), false),
            (a.as_str(), format!("myc/v1/{fleet}/app/*"), false),
            (plane.as_str(), format!("myc/v1/{fleet}/enrol/+/ask"), true),
            (&candidate, format!("myc/v1/{fleet}/enrol/{token}/answer"), true),
            (&candidate, format!("myc/v1/{fleet}/enrol/+/answer"), false),
            (&candidate, format!("myc/v1/{fleet}/app/#"), false),
        ] {
            assert_eq!(gate.may_subscribe(user, &filter), allowed, "{user} {filter}");
        }
    }

    #[test]
    fn remembers_few_and_forgets_who_left() {
        let Fleet { gate, a, b, plane, .. } = fleet();
        let size = || gate.known.lock().unwrap().len();
        for user in [a, b, plane] {
            gate.may_publish(user.as_str(), "x");
            assert!((1..=2).contains(&size()), "{}", size());
        }
        gate.forget(plane.as_str());
        assert_eq!(size(), 0);
        assert!(gate.known("nobody").is_none());
        assert_eq!(size(), 0, "a name that is none leaves nothing behind");
    }

    #[test]
    fn retained_messages_are_delivered_and_not_kept() {
        let event = |retain| ClientPublishEvent {
            client_id: "a".into(),
            user_id: None,
            topic: "t".into(),
            payload: b"x".as_slice().into(),
            qos: mqtt5::QoS::AtLeastOnce,
            retain,
            packet_id: Some(7),
            response_topic: None,
            correlation_data: None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let act = |retain| runtime.block_on(Doorkeeper.on_client_publish(event(retain)));
        assert!(matches!(act(false), PublishAction::Continue));
        match act(true) {
            PublishAction::Transform(packet) => {
                assert_eq!(
                    (packet.retain, packet.packet_id, &*packet.payload),
                    (false, Some(7), b"x".as_slice())
                );
            }
            _ => panic!("the flag stays on"),
        }
    }
}
