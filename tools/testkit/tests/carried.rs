//! What nodes do and streams carry, from real daemons to whoever looks: the command line, history, and Prometheus.

#![cfg(target_os = "linux")]

use std::time::Duration;

use serde_json::Value;
use testkit::{Broker, Fleet, wait_ok};

const SOON: Duration = Duration::from_secs(60);

/// A workflow over two daemons.
fn text(fleet: &Fleet) -> String {
    format!(
        "name = \"readings\"\n[sources.sensor]\ntype = \"generator\"\ndaemon = \"gateway\"\nrate = 200\n\
         fields = {{ n = {{ kind = \"counter\" }}, site = {{ kind = \"text\", text = \"berlin\" }} }}\n\
         [transforms.some]\ntype = \"filter\"\nfrom = \"sensor\"\nwhere = \"n > 10\"\n\
         [destinations.kept]\ntype = \"file\"\ndaemon = \"hub\"\nfrom = \"some\"\nformat = \"json_lines\"\npath = \"{}\"\n",
        fleet.path("kept.jsonl")
    )
}

/// The value of the first sample whose name and labels hold all of these.
fn sample(page: &str, parts: &[&str]) -> Option<f64> {
    let line = page.lines().find(|line| parts.iter().all(|part| line.contains(part)))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[test]
fn bytes_latency_and_nodes_are_told_and_kept() {
    let fleet = Fleet::start(Broker::embedded(false), None).with_metrics();
    for name in ["gateway", "hub"] {
        fleet.enrol(name);
    }
    let _daemons = [fleet.daemon("gateway", None), fleet.daemon("hub", None)];
    fleet.apply("readings", &text(&fleet));

    // Each node on its daemon, and what it did.
    let nodes = wait_ok("all nodes to have done something", SOON, || {
        let said = fleet.cli(&["workflow", "nodes", "readings", "-o", "json"])?;
        let nodes: Vec<Value> = serde_json::from_str(&said).map_err(|error| error.to_string())?;
        let busy = nodes
            .iter()
            .all(|node| node["records"].as_u64() > Some(100) && node["rate"].as_u64() > Some(0));
        (nodes.len() == 3 && busy).then_some(nodes).ok_or(said)
    });
    let found: Vec<(&str, &str)> = nodes
        .iter()
        .map(|node| {
            (
                node["node"].as_str().unwrap_or(""),
                node["daemon"].as_str().unwrap_or(""),
            )
        })
        .collect();
    assert_eq!(found.len(), 3, "{nodes:?}");
    for expected in [("sensor", "gateway"), ("kept", "hub")] {
        assert!(found.contains(&expected), "{expected:?} in {found:?}");
    }
    for node in &nodes {
        let (records, bytes) = (
            node["records"].as_u64().unwrap_or(0),
            node["bytes"].as_u64().unwrap_or(0),
        );
        // A number of eight bytes and a text of six.
        assert!((14 * records..40 * records).contains(&bytes), "{node}");
        assert_eq!((&node["errors"], &node["faults"]), (&0.into(), &0.into()), "{node}");
    }

    // What Prometheus fetches.
    wait_ok("the stream's bytes and latency", SOON, || {
        let page = fleet.metrics()?;
        let of_stream = |name: &str| sample(&page, &[name, "workflow=\"readings\"", "producer=\"gateway\""]);
        let of_node = |name: &str, node: &str| sample(&page, &[name, &format!("node=\"{node}\"")]);
        let all = [
            of_stream("mycelial_stream_bytes_total{").filter(|bytes| *bytes > 1_000.0),
            of_stream("mycelial_stream_bytes_per_second{").filter(|rate| *rate > 0.0),
            of_stream("mycelial_stream_latency_seconds{").filter(|latency| *latency < 30.0),
            of_stream("mycelial_stream_lag_seconds{"),
            of_node("mycelial_node_records_total{", "sensor").filter(|records| *records > 100.0),
            of_node("mycelial_node_batches_total{", "some").filter(|batches| *batches > 0.0),
            of_node("mycelial_node_busy_seconds_total{", "kept").filter(|busy| *busy > 0.0),
            of_node("mycelial_node_errors_total{", "kept").filter(|errors| *errors == 0.0),
        ];
        all.iter()
            .all(Option::is_some)
            .then_some(())
            .ok_or(format!("{all:?} in {page}"))
    });

    // What the plane keeps.
    for (what, name, metrics) in [
        ("node", "readings/some", &["bytes", "records", "busy"][..]),
        ("workflow", "readings", &["bytes", "latency"]),
        ("daemon", "gateway", &["bytes", "records", "memory"]),
    ] {
        wait_ok(&format!("the history of the {what} {name}"), SOON, || {
            let said = fleet.cli(&["metrics", what, name, "-o", "json"])?;
            let series: Vec<Value> = serde_json::from_str(&said).map_err(|error| error.to_string())?;
            let moves = |metric: &&str| {
                let found = series.iter().find(|one| one["metric"] == **metric);
                let points = found.and_then(|one| one["points"].as_array());
                points.is_some_and(|points| points.iter().any(|point| point["max"].as_f64() > Some(0.0)))
            };
            metrics.iter().all(moves).then_some(()).ok_or(said)
        });
    }
}
