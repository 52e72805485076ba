//! Known bad versions in the dependency tree. Never goes to the network: with `cargo audit` and a local copy of its
//! database it asks that; the table below is checked in any case, and knows only what is written in it.

use std::path::PathBuf;

use anyhow::Result;

use super::{Report, text};
use crate::cmd;
use crate::metadata::Metadata;

/// When the table was last compared with the RustSec database, for the crates then in Cargo.lock.
const TABLE_DATE: &str = "2026-11";

/// A RustSec advisory about a crate that is, was or could be in the tree.
struct Advisory {
    krate: &'static str,
    id: &'static str,
    /// Affected versions: from the first of a pair, up to but without the second.
    affected: &'static [(&'static str, &'static str)],
}

const fn bad(krate: &'static str, id: &'static str, affected: &'static [(&'static str, &'static str)]) -> Advisory {
    Advisory { krate, id, affected }
}

#[rustfmt::skip]
const ADVISORIES: &[Advisory] = &[
    bad("async-nats", "RUSTSEC-2023-0027", &[("0.0.0", "0.29.0")]),
    bad("axum-core", "RUSTSEC-2022-0055", &[("0.0.0", "0.2.8")]),
    bad("borsh", "RUSTSEC-2023-0033", &[("0.0.0", "1.0.0")]),
    bad("bytes", "RUSTSEC-2026-0007", &[("1.2.1", "1.11.1")]),
    bad("chrono", "RUSTSEC-2020-0159", &[("0.0.0", "0.4.20")]),
    bad("crossbeam-channel", "RUSTSEC-2025-0024", &[("0.5.12", "0.5.15")]),
    bad("crossbeam-epoch", "RUSTSEC-2026-0204", &[("0.9.0", "0.9.20")]),
    bad("crossbeam-utils", "RUSTSEC-2022-0041", &[("0.0.0", "0.8.7")]),
    bad("curve25519-dalek", "RUSTSEC-2024-0344", &[("0.0.0", "4.1.3")]),
    bad("ed25519-dalek", "RUSTSEC-2022-0093", &[("0.0.0", "2.0.0")]),
    bad("h2", "RUSTSEC-2024-0332", &[("0.0.0", "0.3.26"), ("0.4.0", "0.4.4")]),
    bad("hashbrown", "RUSTSEC-2024-0402", &[("0.15.0", "0.15.1")]),
    bad("hyper", "RUSTSEC-2021-0079", &[("0.0.0", "0.14.10")]),
    bad("idna", "RUSTSEC-2024-0421", &[("0.0.0", "1.0.0")]),
    bad("libsqlite3-sys", "RUSTSEC-2022-0090", &[("0.0.0", "0.25.1")]),
    bad("lock_api", "RUSTSEC-2020-0070", &[("0.0.0", "0.4.2")]),
    bad("mio", "RUSTSEC-2024-0019", &[("0.7.2", "0.8.11")]),
    bad("openssl", "RUSTSEC-2025-0004", &[("0.10.0", "0.10.70")]),
    bad("postgres-protocol", "RUSTSEC-2026-0179", &[("0.3.0", "0.6.12")]),
    bad("postgres-protocol", "RUSTSEC-2026-0180", &[("0.0.0", "0.6.12")]),
    bad("quinn-proto", "RUSTSEC-2026-0185", &[("0.0.0", "0.11.15")]),
    bad("rand", "RUSTSEC-2026-0097", &[("0.7.0", "0.8.6"), ("0.9.0", "0.9.3"), ("0.10.0", "0.10.1")]),
    bad("regex", "RUSTSEC-2022-0013", &[("0.0.0", "1.5.5")]),
    bad("ring", "RUSTSEC-2025-0009", &[("0.0.0", "0.17.12")]),
    bad("rsa", "RUSTSEC-2023-0071", &[("0.0.0", "0.10.0")]),
    bad("rusqlite", "RUSTSEC-2021-0128", &[("0.0.0", "0.25.4"), ("0.26.0", "0.26.2")]),
    bad("rustls", "RUSTSEC-2024-0336", &[("0.0.0", "0.21.11"), ("0.22.0", "0.22.4"), ("0.23.0", "0.23.5")]),
    bad("rustls", "RUSTSEC-2024-0399", &[("0.23.13", "0.23.18")]),
    bad("rustls", "RUSTSEC-2026-0285", &[("0.23.13", "0.23.45")]),
    bad("rustls-webpki", "RUSTSEC-2023-0053", &[("0.0.0", "0.100.2"), ("0.101.0", "0.101.4")]),
    bad("rustls-webpki", "RUSTSEC-2026-0049", &[("0.0.0", "0.103.10")]),
    bad("rustls-webpki", "RUSTSEC-2026-0098", &[("0.0.0", "0.103.12")]),
    bad("rustls-webpki", "RUSTSEC-2026-0099", &[("0.0.0", "0.103.12")]),
    bad("rustls-webpki", "RUSTSEC-2026-0104", &[("0.0.0", "0.103.13")]),
    bad("slab", "RUSTSEC-2025-0047", &[("0.4.10", "0.4.11")]),
    bad("smallvec", "RUSTSEC-2021-0003", &[("0.6.3", "0.6.14"), ("1.0.0", "1.6.1")]),
    bad("spin", "RUSTSEC-2023-0031", &[("0.9.3", "0.9.8")]),
    bad("thin-vec", "RUSTSEC-2026-0103", &[("0.0.0", "0.2.16")]),
    bad("thread_local", "RUSTSEC-2022-0006", &[("0.0.0", "1.1.4")]),
    bad("time", "RUSTSEC-2020-0071", &[("0.1.0", "0.2.23")]),
    bad("time", "RUSTSEC-2026-0009", &[("0.3.6", "0.3.47")]),
    bad("tokio", "RUSTSEC-2025-0023", &[("0.2.5", "1.38.2"), ("1.39.0", "1.43.1"), ("1.44.0", "1.44.2")]),
    bad("tokio-postgres", "RUSTSEC-2026-0178", &[("0.4.0", "0.7.18")]),
    bad("tracing-subscriber", "RUSTSEC-2025-0055", &[("0.0.0", "0.3.20")]),
    bad("tungstenite", "RUSTSEC-2023-0065", &[("0.0.0", "0.20.1")]),
    bad("whoami", "RUSTSEC-2024-0020", &[("0.5.3", "1.5.0")]),
];

/// An advisory that does not apply to how we use the crate. One version only: an update is looked at again.
struct Accepted {
    krate: &'static str,
    version: &'static str,
    ids: &'static [&'static str],
}

const ACCEPTED: &[Accepted] = &[
    // rumqttc 0.25 only names its error type. Certificates are verified by rustls with a newer one, and no revocation
    // list is ever read.
    Accepted {
        krate: "rustls-webpki",
        version: "0.102.8",
        ids: &[
            "RUSTSEC-2026-0049",
            "RUSTSEC-2026-0098",
            "RUSTSEC-2026-0099",
            "RUSTSEC-2026-0104",
        ],
    },
];

/// Checks what was resolved.
pub fn check(metadata: &Metadata) -> Result<Report> {
    let mut findings: Vec<String> = metadata
        .packages
        .iter()
        .filter(|package| package.source.is_some())
        .flat_map(|package| known_bad(&package.name, &package.version))
        .collect();
    let note = match audit_database() {
        Some(_) => {
            findings.extend(audit()?);
            format!("cargo audit with its local database, and the table of {TABLE_DATE}")
        }
        None => format!(
            "offline check only: {} advisories in the table of {TABLE_DATE}",
            ADVISORIES.len()
        ),
    };
    Ok(Report {
        findings,
        note: Some(note),
    })
}

fn known_bad(krate: &str, version: &str) -> Vec<String> {
    let applies = |advisory: &&Advisory| {
        let affected = |(from, to): &(&str, &str)| order(from) <= order(version) && order(version) < order(to);
        let accepted =
            |entry: &Accepted| entry.krate == krate && entry.version == version && entry.ids.contains(&advisory.id);
        advisory.krate == krate && advisory.affected.iter().any(affected) && !ACCEPTED.iter().any(accepted)
    };
    let describe = |advisory: &Advisory| {
        format!(
            "{krate} {version}: {} (https://rustsec.org/advisories/{}.html)",
            advisory.id, advisory.id
        )
    };
    ADVISORIES.iter().filter(applies).map(describe).collect()
}

/// `major.minor.patch` as numbers. A pre-release counts as its release, build metadata not at all: the table names
/// released versions only.
fn order(version: &str) -> [u64; 3] {
    let core = version.split(['-', '+']).next().unwrap_or(version);
    let mut numbers = core.split('.').map(|number| number.parse().unwrap_or(0));
    std::array::from_fn(|_| numbers.next().unwrap_or(0))
}

/// The database `cargo audit` keeps, when both are here.
fn audit_database() -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))?;
    let database = home.join("advisory-db");
    (database.is_dir() && cmd::has_cargo("audit")).then_some(database)
}

fn audit() -> Result<Option<String>> {
    let mut command = cmd::cargo();
    command.args(["audit", "--no-fetch", "--stale", "--quiet"]);
    for id in ACCEPTED.iter().flat_map(|entry| entry.ids) {
        command.args(["--ignore", id]);
    }
    let output = cmd::output(&mut command)?;
    let said = format!("{}\n{}", text(&output.stdout), text(&output.stderr));
    Ok((!output.status.success()).then(|| format!("cargo audit:\n{}", said.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let cases = [
            ("rustls", "0.23.44", 1),
            ("rustls", "0.23.45", 0),
            ("rustls", "0.23.17", 2),
            ("rustls", "0.23.4", 1),
            ("rustls", "0.23.5", 0),
            ("tokio", "1.38.2", 0),
            ("tokio", "1.39.0", 1),
            ("tokio", "1.44.2", 0),
            ("tokio", "0.2.4", 0),
            ("rand", "0.8.8", 0),
            ("rand", "0.10.0", 1),
            ("rsa", "0.9.9", 1),
            ("rsa", "0.10.0", 0),
            ("curve25519-dalek", "4.1.2", 1),
            ("curve25519-dalek", "4.1.3", 0),
            // Accepted in this version, and in no other.
            ("rustls-webpki", "0.102.8", 0),
            ("rustls-webpki", "0.102.7", 4),
            ("rustls-webpki", "0.103.13", 0),
            ("serde", "1.0.0", 0),
        ];
        for (krate, version, want) in cases {
            let found = known_bad(krate, version);
            assert_eq!(found.len(), want, "{krate} {version}: {found:?}");
        }
    }

    #[test]
    fn orders() {
        let rising = [
            "0.0.0",
            "0.9.9",
            "0.9.10",
            "0.10.0",
            "1.0.0-alpha.1",
            "1.0.1",
            "1.1.0+spec-1.1.0",
            "999999.0.0",
        ];
        assert!(
            rising.windows(2).all(|pair| order(pair[0]) < order(pair[1])),
            "{:?}",
            rising.map(order)
        );
    }

    #[test]
    fn the_tables_are_sound() {
        for advisory in ADVISORIES {
            assert!(advisory.id.starts_with("RUSTSEC-20"), "{}", advisory.id);
            assert!(
                advisory.affected.iter().all(|(from, to)| order(from) < order(to)),
                "{}",
                advisory.id
            );
        }
        let sorted = ADVISORIES
            .windows(2)
            .all(|pair| (pair[0].krate, pair[0].id) < (pair[1].krate, pair[1].id));
        assert!(sorted, "the table is sorted by crate, then advisory");
        for accepted in ACCEPTED {
            let known = |id: &str| ADVISORIES.iter().any(|advisory| advisory.id == id);
            assert!(
                accepted.ids.iter().all(|id| known(id)),
                "{} accepts what is not in the table",
                accepted.krate
            );
        }
    }
}
