//! Fixed keys and small parts for the tests of this crate.

use bus_schema::{
    id::{FleetId, NodeId, WorkflowId},
    key::Identity,
    member::{Certificate, Role},
    message::{Resources, Status},
    plan::PlanWorkflow,
};

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
