//! What the tests of the wire share: fixed members, and a sample of everything that has bytes on the wire.

#![allow(dead_code, reason = "each test file uses its own part")]

pub mod batches;
pub mod control;
pub mod drift;
pub mod letters;
pub mod messages;
pub mod secrets;
pub mod trial;

use bus_schema::{
    decode, encode,
    id::{FleetId, NodeId, StreamId, TokenId, WorkflowId},
    key::{Identity, SecretKey},
    member::{BrokerLogin, Certificate, GroupKey, Invitation, Role, Roster, Signed},
    message::{CATALOG, Message},
    plan::{
        Action, Class, ComponentRole, Descriptor, Pipe, Plan, PlanNode, PlanWorkflow, Root, SendPolicy, SpoolPolicy,
        Step, StreamSpec, WhenFull, Window,
    },
};
use serde::{Serialize, de::DeserializeOwned};

/// Reads bytes as one type: `None` when they are refused, else whether they are one certain value.
pub type Read = Box<dyn Fn(&[u8]) -> Option<bool>>;

/// Something with bytes on the wire.
pub struct Sample {
    /// What and which.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Reads bytes as the same type, and compares with this very value.
    pub read: Read,
}

/// A message, by its number and name.
pub fn message<M: Message + PartialEq + 'static>(label: &str, value: M) -> Sample {
    let known = CATALOG.iter().find(|(kind, ver, _)| (*kind, *ver) == (M::KIND, M::VER));
    let (_, _, name) = known.expect("every message is in the catalog: one macro makes both");
    let name = format!("message {}.{} {name} {label}", M::KIND, M::VER);
    let bytes = value.to_payload();
    let read = move |bytes: &[u8]| M::from_payload(M::KIND, M::VER, bytes).ok().map(|read| read == value);
    Sample {
        name: name.trim_end().to_string(),
        bytes,
        read: Box::new(read),
    }
}

/// Anything else.
pub fn plain<T: Serialize + DeserializeOwned + PartialEq + 'static>(name: &str, value: T) -> Sample {
    let bytes = encode(&value);
    let read = move |bytes: &[u8]| decode::<T>(bytes).map(|read| read == value);
    Sample {
        name: name.to_string(),
        bytes,
        read: Box::new(read),
    }
}

/// One value of every variant. Does not compile when a variant is missing.
macro_rules! variants {
    ($ty:ty { $($pattern:pat => $value:expr),* $(,)? }) => {{
        fn covers(value: &$ty) {
            #[allow(unused_imports, reason = "some enums are written in full")]
            match value { $($pattern => {})* }
        }
        let all: Vec<$ty> = vec![$($value),*];
        all.iter().for_each(covers);
        all
    }};
}
pub(crate) use variants;

pub fn fleet() -> FleetId {
    FleetId::of_root(&root().public().sign)
}

/// The fleet's root key.
pub fn root() -> Identity {
    Identity::from_bytes(&[1; 64])
}

/// A member's keys.
pub fn identity(n: u8) -> Identity {
    Identity::from_bytes(&core::array::from_fn(|at| n.wrapping_add(at as u8)))
}

pub fn node(n: u8) -> NodeId {
    identity(n).public().node_id()
}

pub fn workflow() -> WorkflowId {
    WorkflowId::of_name("orders")
}

pub fn stream() -> StreamId {
    StreamId::of_edge(&workflow(), "db->warehouse", &node(10), &node(20))
}

pub fn certificate(n: u8, role: Role) -> Certificate {
    let keys = identity(n).public();
    Certificate {
        fleet: fleet(),
        node: keys.node_id(),
        name: format!("member-{n}"),
        role,
        keys,
        key_epoch: 3,
    }
}

pub fn roster() -> Roster {
    Roster {
        fleet: fleet(),
        version: 7,
        members: vec![certificate(10, Role::Daemon), certificate(30, Role::Plane)],
        revoked: vec![node(40)],
    }
}

pub fn group() -> GroupKey {
    GroupKey {
        key_epoch: 2,
        key: SecretKey::new([0x5a; 32]),
    }
}

pub fn login() -> BrokerLogin {
    BrokerLogin {
        user: "enrol-x".into(),
        password: "pass".into(),
    }
}

pub fn invitation() -> Invitation {
    Invitation {
        bus: vec!["mqtts://bus.example:8883".into(), "nats://10.0.0.1:4222".into()],
        ca: Some(vec![0x30, 0x82, 0x01]),
        login: Some(login()),
        root: root().public().sign,
        plane_seal: identity(30).public().seal,
        plane: node(30),
        token: TokenId::from_hash(&[4; 32]),
        secret: [5; 16],
        role: Role::Daemon,
    }
}

fn stream_spec(when_full: WhenFull) -> StreamSpec {
    StreamSpec {
        stream: stream(),
        edge: "db->warehouse".into(),
        producer: node(10),
        consumer: node(20),
        spool: SpoolPolicy {
            quota_bytes: 1 << 30,
            when_full,
        },
        send: SendPolicy {
            class: Class::Critical,
            bytes_per_s_max: 50_000,
            windows: vec![Window {
                from_minute: 1_320,
                to_minute: 360,
            }],
            compress: true,
            live_first: true,
        },
    }
}

pub fn plan() -> Plan {
    let node_of = |id: &str, role, component: &str| PlanNode {
        id: id.into(),
        role,
        component: component.into(),
        config: r#"{"path":"/data/shop.db"}"#.into(),
    };
    let step = |after, action| Step { after, action };
    Plan {
        fleet: fleet(),
        daemon: node(10),
        version: 12,
        workflows: vec![PlanWorkflow {
            id: workflow(),
            name: "orders".into(),
            revision: 4,
            nodes: vec![
                node_of("db", ComponentRole::Source, "sqlite"),
                node_of("keep", ComponentRole::Transform, "filter"),
                node_of("store", ComponentRole::Destination, "sqlite"),
            ],
            pipes: vec![
                Pipe {
                    root: Root::Source(0),
                    steps: vec![
                        step(None, Action::Transform(1)),
                        step(Some(0), Action::Stream(stream_spec(WhenFull::Block))),
                        step(Some(0), Action::Stream(stream_spec(WhenFull::DropOldest))),
                        step(
                            Some(0),
                            Action::Tracks([WhenFull::Block, WhenFull::DropNewest].map(stream_spec)),
                        ),
                    ],
                },
                Pipe {
                    root: Root::Stream(stream_spec(WhenFull::DropNewest)),
                    steps: vec![step(None, Action::Sink(2))],
                },
            ],
        }],
    }
}

pub fn descriptor(role: ComponentRole) -> Descriptor {
    Descriptor {
        role,
        name: "sqlite".into(),
        summary: "Rows of a table".into(),
        schema: r#"{"type":"object"}"#.into(),
        example: "[sources.db]".into(),
        inputs_max: 1,
        durable: true,
    }
}

/// Everything but messages and batches.
pub fn documents() -> Vec<Sample> {
    vec![
        plain("certificate", certificate(10, Role::Daemon)),
        plain("roster", roster()),
        plain("plan", plan()),
        plain(
            "signed certificate",
            Signed::new(&certificate(10, Role::Operator), &root()),
        ),
        plain("signed roster", Signed::new(&roster(), &root())),
        plain("signed plan", Signed::new(&plan(), &identity(30))),
        plain("invitation", invitation()),
    ]
}

/// Everything.
pub fn all() -> Vec<Sample> {
    [documents(), messages::all(), batches::all()]
        .into_iter()
        .flatten()
        .collect()
}

/// Bytes as hexadecimal text.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Hexadecimal text as bytes.
pub fn unhex(text: &str) -> Vec<u8> {
    let digit = |at: usize| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    (0..text.len())
        .step_by(2)
        .map(|at| digit(at).unwrap_or_else(|| panic!("no hexadecimal: {text}")))
        .collect()
}
