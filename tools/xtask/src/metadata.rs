//! The part of `cargo metadata` the checks read. Decides nothing.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::cmd;

/// The workspace and everything it depends on.
#[derive(Debug, Deserialize)]
pub struct Metadata {
    pub packages: Vec<Package>,
    pub workspace_members: Vec<String>,
    pub resolve: Resolve,
    pub target_directory: PathBuf,
}

#[derive(Debug, Deserialize)]
pub struct Package {
    pub id: String,
    pub name: String,
    pub version: String,
    /// `None` for crates of this workspace.
    pub source: Option<String>,
    pub license: Option<String>,
    pub dependencies: Vec<Dependency>,
}

/// A dependency as the manifest states it.
#[derive(Debug, Deserialize)]
pub struct Dependency {
    pub name: String,
    /// `None`, `dev` or `build`.
    pub kind: Option<String>,
    pub uses_default_features: bool,
    pub features: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub struct Resolve {
    pub nodes: Vec<Node>,
}

/// A package as it was resolved: optional dependencies that are off do not appear.
#[derive(Debug, Deserialize)]
pub struct Node {
    pub id: String,
    pub deps: Vec<NodeDep>,
}

#[derive(Debug, Deserialize)]
pub struct NodeDep {
    pub pkg: String,
    pub dep_kinds: Vec<DepKind>,
}

#[derive(Debug, Deserialize)]
pub struct DepKind {
    /// `None`, `dev` or `build`.
    pub kind: Option<String>,
}

impl Metadata {
    /// Asks cargo. Fails when Cargo.lock does not match the manifests.
    pub fn load() -> Result<Self> {
        let output = cmd::output(cmd::cargo().args(["metadata", "--format-version", "1", "--locked"]))?;
        if !output.status.success() {
            bail!(
                "`cargo metadata --locked` failed:\n{}",
                String::from_utf8_lossy(&output.stderr).trim_end()
            );
        }
        serde_json::from_slice(&output.stdout).context("cannot read what `cargo metadata` said")
    }

    /// The crates of the workspace, by name.
    pub fn workspace(&self) -> Vec<&Package> {
        let members: HashSet<&str> = self.workspace_members.iter().map(String::as_str).collect();
        self.packages
            .iter()
            .filter(|package| members.contains(package.id.as_str()))
            .collect()
    }

    /// The shortest way from a package to every package linked into it, by id. Development and build dependencies are
    /// not followed: nothing of them runs in the product.
    pub fn linked_into(&self, id: &str) -> HashMap<&str, Vec<&str>> {
        let names: HashMap<&str, &str> = self.packages.iter().map(|p| (p.id.as_str(), p.name.as_str())).collect();
        let nodes: HashMap<&str, &Node> = self.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
        let mut ways: HashMap<&str, Vec<&str>> = HashMap::new();
        let Some(start) = nodes.get(id) else { return ways };
        ways.insert(
            &start.id,
            vec![names.get(start.id.as_str()).copied().unwrap_or_default()],
        );
        let mut queue = std::collections::VecDeque::from([*start]);
        while let Some(node) = queue.pop_front() {
            for dep in node
                .deps
                .iter()
                .filter(|dep| dep.dep_kinds.iter().any(|kind| kind.kind.is_none()))
            {
                let (Some(next), Some(name)) = (nodes.get(dep.pkg.as_str()), names.get(dep.pkg.as_str())) else {
                    continue;
                };
                if !ways.contains_key(dep.pkg.as_str()) {
                    let mut way = ways[node.id.as_str()].clone();
                    way.push(name);
                    ways.insert(&dep.pkg, way);
                    queue.push_back(next);
                }
            }
        }
        ways
    }
}
