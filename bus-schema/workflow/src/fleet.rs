//! What a workflow is checked against: the daemons there are, and what each of them can run. Plain data.

use std::{collections::BTreeMap, sync::Arc};

use bus_schema::{
    id::NodeId,
    plan::{ComponentRole, Descriptor},
};

use crate::{sharing::part_of, template::Facts};

/// The daemons a workflow may name.
#[derive(Debug, Clone, Default)]
pub struct Fleet {
    daemons: BTreeMap<String, Daemon>,
    default_daemon: Option<String>,
    chosen: BTreeMap<String, Result<Vec<String>, String>>,
    /// Seconds.
    silent: BTreeMap<String, u64>,
    /// By workflow and node.
    holders: BTreeMap<(String, String), String>,
}

/// One daemon.
#[derive(Debug, Clone)]
pub struct Daemon {
    /// Its id.
    pub node: NodeId,
    /// What it can run; `None` when it has never announced it.
    pub components: Option<Arc<[Descriptor]>>,
    /// What configs may name of it.
    pub facts: Facts,
}

/// A daemon with its name: where a node runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Site<'a> {
    pub name: &'a str,
    pub daemon: &'a Daemon,
}

impl Fleet {
    /// No daemons.
    pub fn new() -> Self {
        Self::default()
    }

    /// One daemon, on which every node runs that does not name another: for a workflow on one machine without a plane.
    pub fn single(name: &str, node: NodeId, components: Arc<[Descriptor]>) -> Self {
        let mut fleet = Self::new();
        fleet.insert(name, node, Some(components));
        fleet.default_daemon = Some(name.to_string());
        fleet
    }

    /// Adds a daemon. Daemons of one version may share their component list.
    pub fn insert(&mut self, name: &str, node: NodeId, components: Option<Arc<[Descriptor]>>) {
        let facts = Facts::default();
        let daemon = Daemon {
            node,
            components,
            facts,
        };
        self.daemons.insert(name.to_string(), daemon);
    }

    /// Says what configs may name of a daemon.
    pub fn describe(&mut self, name: &str, facts: Facts) {
        if let Some(daemon) = self.daemons.get_mut(name) {
            daemon.facts = facts;
        }
    }

    /// Says which daemons a selector chooses, by name; or what is wrong with it.
    pub fn choose(&mut self, selector: &str, chosen: Result<Vec<String>, String>) {
        self.chosen.insert(selector.to_string(), chosen);
    }

    /// The daemons that a selector chooses.
    pub(crate) fn chosen(&self, selector: &str) -> Result<&[String], &str> {
        match self.chosen.get(selector) {
            Some(Ok(names)) => Ok(names),
            Some(Err(wrong)) => Err(wrong),
            None => Ok(&[]),
        }
    }

    /// Says that a daemon is away, and for how many seconds nothing has been heard of it.
    pub fn silent(&mut self, name: &str, seconds: u64) {
        self.silent.insert(name.to_string(), seconds);
    }

    /// Says on which daemon a part of a shared destination is now.
    pub fn hold(&mut self, workflow: &str, node: &str, daemon: &str) {
        let key = (workflow.to_string(), node.to_string());
        self.holders.insert(key, daemon.to_string());
    }

    /// For how many seconds nothing has been heard of a daemon that is away.
    pub(crate) fn silent_s(&self, name: &str) -> Option<u64> {
        self.silent.get(name).copied()
    }

    /// Where a part of a shared destination is now.
    pub(crate) fn holder(&self, workflow: &str, node: &str) -> Option<&str> {
        let key = (workflow.to_string(), node.to_string());
        self.holders.get(&key).map(String::as_str)
    }

    /// Whether a daemon has any part of a shared destination now.
    pub(crate) fn holds_some(&self, workflow: &str, destination: &str, daemon: &str) -> bool {
        self.holders.iter().any(|((of, node), holder)| {
            of == workflow && holder == daemon && part_of(node).is_some_and(|(found, _)| found == destination)
        })
    }

    /// A daemon by its name.
    pub fn daemon(&self, name: &str) -> Option<&Daemon> {
        self.daemons.get(name)
    }

    /// Where nodes run that name no daemon.
    pub fn default_daemon(&self) -> Option<&str> {
        self.default_daemon.as_deref()
    }

    /// A daemon by its name, with the name.
    pub(crate) fn site(&self, name: &str) -> Option<Site<'_>> {
        self.daemons
            .get_key_value(name)
            .map(|(name, daemon)| Site { name, daemon })
    }

    /// All names, in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.daemons.keys().map(String::as_str)
    }

    /// Every component of the fleet with the name of a daemon that has it.
    pub(crate) fn components(&self) -> impl Iterator<Item = (&str, &Descriptor)> {
        self.daemons.iter().flat_map(|(name, daemon)| {
            daemon
                .components
                .iter()
                .flat_map(|c| c.iter())
                .map(|d| (name.as_str(), d))
        })
    }
}

impl Daemon {
    /// Its component of this role and name.
    pub(crate) fn find(&self, role: ComponentRole, name: &str) -> Option<&Descriptor> {
        self.components
            .as_ref()?
            .iter()
            .find(|descriptor| descriptor.role == role && descriptor.name == name)
    }
}
