//! Which connectors are raced, and why the others are not. A new one has to be in one of the two.

/// The races in their order. A name begins with the connector's, and says which way it goes.
pub(super) const RACED: &[&str] = &[
    "file source, JSON lines",
    "file source, CSV",
    "file source, Parquet",
    "file destination, JSON lines",
    "file destination, CSV",
    "file destination, Parquet",
    "files source",
    "files destination",
    "sqlite source",
    "sqlite destination",
    "postgres source",
    "postgres destination",
    "mysql source",
    "mysql destination",
    "sqlite source, changes",
    "postgres source, changes",
    "mysql source, changes",
    "mqtt source",
    "mqtt destination",
    "nats source",
    "nats destination",
    "http source",
    "http destination",
    "webhook source",
    "influxdb destination",
    "s3 destination",
    "exec source",
    "exec destination",
    "stdin source",
    "python source",
    "python destination",
    "syslog source",
    "modbus source",
];

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]
mod tests {
    use std::process::Command;

    use super::*;

    /// Connectors without a race, and what docs/PERFORMANCE.md says of them.
    const LEFT_OUT: &[(&str, &str)] = &[
        (
            "generator source",
            "`generator` is what destinations are given in their races",
        ),
        (
            "host_metrics source",
            "`host_metrics` looks at the host once an interval",
        ),
        (
            "opcua source",
            "`opcua` has no client crate: its protocol is written here",
        ),
        ("stdout destination", "`stdout` writes what the destination `file` does"),
    ];

    /// The connector and the way of a race.
    fn connector(race: &str) -> &str {
        race.split(',').next().unwrap_or(race)
    }

    #[test]
    fn every_connector_is_raced_or_left_out_with_a_reason() {
        let told = Command::new(testkit::bin("myceliald"))
            .arg("components")
            .output()
            .unwrap();
        let told = String::from_utf8(told.stdout).unwrap();
        let mut registered = Vec::new();
        for line in told.lines() {
            let mut words = line.split_whitespace();
            let (Some(role), Some(name)) = (words.next(), words.next()) else {
                panic!("{line}")
            };
            if ["source", "destination"].contains(&role) {
                registered.push(format!("{name} {role}"));
            }
        }
        assert!(registered.len() > 20, "{told}");
        for name in &registered {
            let is_raced = RACED.iter().any(|race| connector(race) == name);
            let is_left_out = LEFT_OUT.iter().any(|(known, _)| known == name);
            assert!(
                is_raced != is_left_out,
                "{name} is in both lists or in none: give it a race (and a line of RACED), or a line of LEFT_OUT and the \
                 reason in docs/PERFORMANCE.md"
            );
        }
        let known = RACED.iter().map(|race| connector(race));
        for name in known.chain(LEFT_OUT.iter().map(|(name, _)| *name)) {
            assert!(registered.iter().any(|known| known == name), "{name} is no connector");
        }
    }

    #[test]
    fn the_documentation_says_why() {
        let text = include_str!("../../../../../docs/PERFORMANCE.md").replace('\n', " ");
        for (name, reason) in LEFT_OUT {
            assert!(
                text.contains(reason),
                "docs/PERFORMANCE.md does not say of {name}: {reason}"
            );
        }
    }
}
