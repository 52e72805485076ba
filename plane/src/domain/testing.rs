//! Fixed keys and small parts for the tests of this crate.

use bus_schema::{
    id::{FleetId, NodeId, WorkflowId},
    key::Identity,
    member::{Certificate, Role},
    message::{HostFacts, Resources, Status},
    plan::PlanWorkflow,
};

use super::{Change, Now, State, change::Signer, members::Member, workflows::Revision};

/// Always the same keys for the same number. Number 0 is the root.
pub fn identity(n: u8) -> Identity {
    Identity::from_bytes(&[n.wrapping_add(1); Identity::BYTES])
}

pub fn fleet() -> FleetId {
    FleetId::of_root(&identity(0).public().sign)
}

pub fn node(n: u8) -> NodeId {
    identity(n).public().node_id()
}

pub fn certificate(n: u8, name: &str, role: Role) -> Certificate {
    Certificate {
        fleet: fleet(),
        node: node(n),
        name: name.into(),
        role,
        keys: identity(n).public(),
        key_epoch: 0,
    }
}

/// A part of a workflow without components: plans only compare and carry it.
pub fn part(name: &str, revision: u32) -> PlanWorkflow {
    PlanWorkflow {
        id: WorkflowId::of_name(name),
        name: name.into(),
        revision,
        nodes: Vec::new(),
        pipes: Vec::new(),
    }
}

pub fn status(boot: u64, uptime_ms: u64, plan_version: u64) -> Status {
    Status {
        version: "0.1.0".into(),
        boot,
        uptime_ms,
        unix_ms: 0,
        lease_ms: bus_schema::limits::LEASE_MS,
        plan_version,
        plan_error: String::new(),
        roster_version: 1,
        catalog: [0; 32],
        workflows: Vec::new(),
        resources: Resources::default(),
        refused: 0,
        damaged: 0,
        began_unix_ms: Some(0),
    }
}

/// A time, the same by both clocks.
pub fn at(mono_ms: u64) -> Now {
    Now {
        mono_ms,
        unix_ms: mono_ms as i64,
    }
}

/// Daemons `gw` (1) and `hub` (2), a workflow `a` in revision 1 on both, under plan 1.
pub fn state() -> State {
    let mut state = State::new(fleet(), node(100));
    for (n, name, role) in [
        (1, "gw", Role::Daemon),
        (2, "hub", Role::Daemon),
        (3, "anna", Role::Operator),
    ] {
        let certificate = certificate(n, name, role);
        let signed = bus_schema::member::Signed::new(&certificate, &identity(0));
        let host = HostFacts {
            version: "0.0.9".into(),
            ..HostFacts::default()
        };
        state.members.insert(Member {
            certificate,
            signed,
            host,
            enrolled_unix_ms: 0,
        });
    }
    let signer = Signer {
        root: identity(0),
        plane: identity(100),
    };
    let parts = [(node(1), part("a", 1)), (node(2), part("a", 1))].into();
    let mut changes = state.place(&WorkflowId::of_name("a"), parts, &signer).unwrap();
    changes.push(Change::Revision(Revision {
        workflow: "a".into(),
        number: 1,
        text: "name = 'a'".into(),
        by: "anna".into(),
        at_unix_ms: 5,
    }));
    state.apply(changes, true, at(0));
    state
}
