//! Who may depend on whom. The table is the architecture; the code only compares it with `cargo metadata`.

use std::collections::{BTreeSet, HashMap};

use super::Report;
use crate::metadata::{Metadata, Package};

/// One crate's place in the house.
struct Layer {
    name: &'static str,
    /// The crates of this workspace it may be built from.
    uses: &'static [&'static str],
    /// More of them for its tests. `testkit` is open to everybody's.
    tests_use: &'static [&'static str],
    /// Crates that must not end up in it by any way, because it has promised to know nothing of what they do.
    never: &'static [&'static str],
}

const BUS_CLIENTS: &[&str] = &["async-nats", "rumqttc", "rustls", "mysql_async", "tokio-postgres"];

#[rustfmt::skip]
const LAYERS: &[Layer] = &[
    Layer { name: "crash-point", uses: &[], tests_use: &[], never: &["tokio", "serde", "tracing"] },
    Layer { name: "resident",    uses: &[], tests_use: &[], never: &["tokio", "serde", "tracing"] },
    Layer { name: "layout",      uses: &[], tests_use: &[], never: &[] },
    Layer { name: "bus-schema",  uses: &[], tests_use: &[], never: &["tokio", "serde_json", "tracing"] },
    Layer { name: "bus-link",    uses: &["bus-schema", "crash-point"], tests_use: &[], never: &["rusqlite", "sled"] },
    Layer { name: "workflow",    uses: &["bus-schema"], tests_use: &[], never: &["tokio", "rusqlite", "sled"] },
    Layer { name: "flow",        uses: &["bus-schema", "crash-point"], tests_use: &[], never: &["async-nats", "rumqttc", "rustls", "rusqlite", "sled"] },
    Layer { name: "spool",       uses: &["crash-point"], tests_use: &[], never: &["tokio", "async-nats", "rumqttc", "rustls", "rusqlite"] },
    Layer { name: "stream",      uses: &["bus-schema"], tests_use: &[], never: &["tokio", "tracing", "async-nats", "rumqttc", "rustls", "rusqlite", "sled"] },
    Layer { name: "converge",    uses: &["bus-schema"], tests_use: &[], never: &["tokio", "tracing", "async-nats", "rumqttc", "rustls", "rusqlite", "sled"] },
    Layer { name: "connectors",  uses: &["bus-schema", "crash-point", "flow"], tests_use: &[], never: &["sled", "rhai"] },
    Layer { name: "transforms",  uses: &["bus-schema", "flow"], tests_use: &[], never: BUS_CLIENTS },
    Layer { name: "edge-daemon", uses: &["bus-schema", "bus-link", "crash-point", "workflow", "flow", "spool", "stream", "converge", "connectors", "transforms", "layout", "resident"], tests_use: &[], never: &["axum", "mqtt5"] },
    Layer { name: "plane",       uses: &["bus-schema", "bus-link", "crash-point", "workflow", "layout", "resident"], tests_use: &["plane"], never: &["flow", "connectors", "transforms", "spool", "sled", "rhai", "tokio-postgres", "csv", "mqtt5"] },
    Layer { name: "broker",      uses: &["bus-schema", "resident"], tests_use: &["bus-link"], never: &["rusqlite", "sled", "rhai", "axum"] },
    Layer { name: "cli",         uses: &["bus-schema", "bus-link", "workflow"], tests_use: &[], never: &["rusqlite", "sled", "rhai", "axum", "mqtt5"] },
    Layer { name: "fleet-sim",   uses: &["bus-schema", "bus-link", "converge"], tests_use: &[], never: &[] },
    Layer { name: "fuzz",        uses: &["bus-schema", "workflow", "spool", "stream"], tests_use: &[], never: &["tokio", "async-nats", "rumqttc", "rustls", "rusqlite"] },
    Layer { name: "sim",         uses: &["bus-schema", "flow", "stream", "converge"], tests_use: &[], never: &["async-nats", "rumqttc", "rustls", "rusqlite", "sled"] },
    Layer { name: "micro",       uses: &["bus-schema", "flow", "spool", "stream", "connectors", "transforms"], tests_use: &[], never: &["axum", "mqtt5"] },
    Layer { name: "testkit",     uses: &[], tests_use: &["bus-schema", "bus-link", "crash-point", "workflow"], never: &[] },
    Layer { name: "bench",       uses: &["testkit"], tests_use: &[], never: &[] },
    Layer { name: "xtask",       uses: &["layout"], tests_use: &[], never: &["axum", "async-nats", "rumqttc", "sled"] },
];

/// In no crate at all, and why.
const NOWHERE: &[(&str, &str)] = &[
    ("openssl-sys", "TLS is rustls with ring"),
    ("native-tls", "TLS is rustls with ring"),
    (
        "aws-lc-sys",
        "TLS is rustls with ring; aws-lc wants cmake and doubles the build",
    ),
    ("async-std", "the runtime is tokio"),
    ("evalexpr", "it is AGPL; expressions are Rhai"),
];

/// The crates the wire contract may be built from. Each compiles without a standard library.
const FIRMWARE: &[&str] = &[
    "blake2",
    "chacha20poly1305",
    "ed25519-dalek",
    "hkdf",
    "hmac",
    "postcard",
    // Optional, and never in what users run: it describes the web API.
    "schemars",
    "serde",
    "serde_bytes",
    "sha2",
    "subtle",
    "thiserror",
    "x25519-dalek",
    "zeroize",
];
/// Those of them whose default features need no standard library.
const FIRMWARE_DEFAULTS: &[&str] = &["hkdf", "hmac"];
/// The crate that a firmware compiles too.
const FIRMWARE_CRATE: &str = "bus-schema";
/// Only there when the plane's tests ask for the feature `schema`, to describe the API; no program that users run does.
const DESCRIBED: [&str; 2] = ["bus-schema", "schemars"];

/// Compares the workspace with the table.
pub fn check(metadata: &Metadata) -> Report {
    let workspace = metadata.workspace();
    let members: BTreeSet<&str> = workspace.iter().map(|package| package.name.as_str()).collect();
    let mut findings = Vec::new();
    for package in &workspace {
        let Some(layer) = LAYERS.iter().find(|layer| layer.name == package.name) else {
            findings.push(format!("{} has no place in the table of layers", package.name));
            continue;
        };
        findings.extend(edges(layer, package, &members));
        if package.name == FIRMWARE_CRATE {
            findings.extend(firmware(package));
        }
        let linked = metadata.linked_into(&package.id);
        findings.extend(banned(layer, &linked.into_values().collect::<Vec<_>>()));
    }
    let names: HashMap<&str, &str> = metadata
        .packages
        .iter()
        .map(|p| (p.name.as_str(), p.version.as_str()))
        .collect();
    for (name, why) in NOWHERE {
        findings.extend(
            names
                .get(name)
                .map(|version| format!("{name} {version} is in the dependency tree: {why}")),
        );
    }
    findings.sort();
    findings.dedup();
    Report { findings, note: None }
}

/// The edges to other crates of the workspace.
fn edges(layer: &Layer, package: &Package, members: &BTreeSet<&str>) -> Vec<String> {
    let ours = package
        .dependencies
        .iter()
        .filter(|dep| members.contains(dep.name.as_str()));
    let mut findings = Vec::new();
    for dep in ours {
        let name = dep.name.as_str();
        let for_tests = dep.kind.as_deref() == Some("dev");
        let allowed =
            layer.uses.contains(&name) || (for_tests && (name == "testkit" || layer.tests_use.contains(&name)));
        if !allowed {
            let what = if for_tests {
                "may not use it even in tests"
            } else {
                "may not depend on it"
            };
            findings.push(format!("{} → {name}: {} {what}", layer.name, layer.name));
        }
    }
    findings
}

/// What a firmware can compile: known crates, without `std`.
fn firmware(package: &Package) -> Vec<String> {
    let mut findings = Vec::new();
    for dep in package.dependencies.iter().filter(|dep| dep.kind.is_none()) {
        let name = dep.name.as_str();
        if !FIRMWARE.contains(&name) {
            findings.push(format!(
                "{} → {name}: a firmware compiles it too, and {name} is not known to fit",
                package.name
            ));
        } else if dep.uses_default_features && !FIRMWARE_DEFAULTS.contains(&name) {
            findings.push(format!(
                "{} → {name}: needs `default-features = false`, the defaults bring std",
                package.name
            ));
        }
        if dep.features.iter().any(|feature| feature == "std") {
            findings.push(format!("{} → {name}: asks for the feature std", package.name));
        }
    }
    findings
}

/// Crates that came in by a way nobody looked at. A way is the names from the crate itself to what it links.
fn banned(layer: &Layer, ways: &[Vec<&str>]) -> Vec<String> {
    let last_is_banned = |way: &&Vec<&str>| way.last().is_some_and(|last| layer.never.contains(last));
    let for_tests = |way: &&Vec<&str>| way.windows(2).any(|step| step == DESCRIBED);
    ways.iter()
        .filter(last_is_banned)
        .filter(|way| !for_tests(way))
        .map(|way| format!("{}: must not be linked", way.join(" → ")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Dependency;

    fn package(name: &str, dependencies: &[(&str, Option<&str>)]) -> Package {
        let dependencies = dependencies.iter().map(|(name, kind)| Dependency {
            name: (*name).to_owned(),
            kind: kind.map(str::to_owned),
            uses_default_features: true,
            features: Vec::new(),
        });
        Package {
            id: name.to_owned(),
            name: name.to_owned(),
            version: "0.1.0".to_owned(),
            source: None,
            license: None,
            dependencies: dependencies.collect(),
        }
    }

    fn layer(name: &str) -> &'static Layer {
        LAYERS.iter().find(|layer| layer.name == name).unwrap()
    }

    #[test]
    fn edges_between_our_crates() {
        let members = LAYERS.iter().map(|layer| layer.name).collect();
        let cases: &[(&str, &str, Option<&str>, bool)] = &[
            ("bus-link", "bus-schema", None, true),
            ("bus-schema", "bus-link", None, false),
            ("plane", "workflow", None, true),
            ("plane", "connectors", None, false),
            ("plane", "connectors", Some("dev"), false),
            ("plane", "testkit", Some("dev"), true),
            ("plane", "testkit", None, false),
            ("flow", "bus-link", None, false),
            ("flow", "spool", None, false),
            ("spool", "bus-schema", None, false),
            ("edge-daemon", "spool", None, true),
            ("connectors", "flow", Some("build"), true),
            ("connectors", "spool", Some("build"), false),
            ("testkit", "bus-link", Some("dev"), true),
            ("testkit", "bus-link", None, false),
            // Not ours, so not a matter of layers.
            ("flow", "serde", None, true),
        ];
        for (from, to, kind, fine) in cases {
            let findings = edges(layer(from), &package(from, &[(to, *kind)]), &members);
            assert_eq!(findings.is_empty(), *fine, "{from} → {to} ({kind:?}): {findings:?}");
        }
    }

    #[test]
    fn the_table_points_one_way() {
        let place: HashMap<&str, usize> = LAYERS.iter().enumerate().map(|(i, layer)| (layer.name, i)).collect();
        for layer in LAYERS {
            for used in layer.uses {
                assert!(
                    place[used] < place[layer.name],
                    "{} → {used} points upwards",
                    layer.name
                );
                assert!(!layer.never.contains(used), "{} both uses and bans {used}", layer.name);
            }
            for used in layer.tests_use {
                assert!(place.contains_key(used), "{used} is not a crate");
            }
        }
    }

    #[test]
    fn firmware_is_clean() {
        let dep = |name: &str, defaults: bool, features: &[&str]| Dependency {
            name: name.to_owned(),
            kind: None,
            uses_default_features: defaults,
            features: features.iter().map(ToString::to_string).collect(),
        };
        let cases = [
            (dep("serde", false, &["derive", "alloc"]), None),
            (dep("hkdf", true, &[]), None),
            (dep("serde", true, &[]), Some("default-features = false")),
            (dep("serde", false, &["std"]), Some("feature std")),
            (dep("tokio", false, &[]), Some("not known to fit")),
        ];
        for (dependency, want) in cases {
            let name = dependency.name.clone();
            let findings = firmware(&Package {
                dependencies: vec![dependency],
                ..package("bus-schema", &[])
            });
            match want {
                None => assert!(findings.is_empty(), "{name}: {findings:?}"),
                Some(part) => assert!(
                    findings.len() == 1 && findings[0].contains(part),
                    "{name}: {findings:?}"
                ),
            }
        }
    }

    #[test]
    fn banned_by_any_way() {
        let ways = [
            vec!["plane", "bus-link", "rumqttc"],
            vec!["plane", "workflow", "sled"],
            vec!["plane", "flow"],
        ];
        let findings = banned(layer("plane"), &ways);
        assert_eq!(
            findings,
            [
                "plane → workflow → sled: must not be linked",
                "plane → flow: must not be linked"
            ]
        );
    }
}
