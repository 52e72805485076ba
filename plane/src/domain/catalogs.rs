//! Component catalogs by their hash: daemons of one version carry the same, so that only the first of them has to be asked.
//! What a daemon says is the catalog of a hash is believed only if it has that hash.

use std::collections::{BTreeMap, BTreeSet};

use bus_schema::{
    encode,
    id::{NodeId, hash},
    plan::Descriptor,
};

use super::daemon::Catalog;

/// Most catalogs that are known by hash; daemons with others are asked one by one.
const CATALOGS_MAX: usize = 64;

/// Catalogs that daemons of this fleet carry.
#[derive(Debug, Clone, Default)]
pub struct Catalogs {
    known: BTreeMap<[u8; 32], Catalog>,
    /// Daemons whose catalog was known without asking, and is not stored yet.
    unsaved: BTreeSet<NodeId>,
}

/// The hash that a daemon with these components announces.
pub fn hash_of(components: &[Descriptor]) -> [u8; 32] {
    hash("mycelial catalog v1", &[&encode(&components)])
}

impl Catalogs {
    /// Keeps one, if it is what its hash says.
    pub fn keep(&mut self, announced: &[u8; 32], catalog: &Catalog) {
        if self.known.len() < CATALOGS_MAX && !self.known.contains_key(announced) && hash_of(catalog) == *announced {
            self.known.insert(*announced, catalog.clone());
        }
    }

    /// The catalog of a hash, for a daemon that announces it; to be stored some time soon.
    pub fn take(&mut self, announced: &[u8; 32], node: NodeId) -> Option<Catalog> {
        let catalog = self.known.get(announced)?.clone();
        self.unsaved.insert(node);
        Some(catalog)
    }

    /// Daemons whose catalog has to be stored.
    pub fn take_unsaved(&mut self) -> BTreeSet<NodeId> {
        std::mem::take(&mut self.unsaved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::testing::node;

    #[test]
    fn only_what_it_is() {
        let (mut catalogs, catalog) = (Catalogs::default(), Catalog::from(Vec::new()));
        let right = hash_of(&catalog);
        catalogs.keep(&[1; 32], &catalog);
        assert!(catalogs.take(&[1; 32], node(1)).is_none());
        catalogs.keep(&right, &catalog);
        assert!(catalogs.take(&right, node(1)).is_some());
        assert_eq!(catalogs.take_unsaved(), [node(1)].into());
        assert!(catalogs.take_unsaved().is_empty());
    }
}
