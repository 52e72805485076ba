//! What people copy is true: every component's example and every TOML snippet of the guide, against the real components.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::{fs, path::Path, sync::Arc, time::Duration};

use bus_schema::{
    id::NodeId,
    plan::{ComponentRole, Descriptor},
};
use flow::{Build, BuildContext, Registry};
use testkit::{Cmd, temp_dir};

const SOON: Duration = Duration::from_secs(60);

fn registry() -> Registry {
    Registry::new(connectors::components().into_iter().chain(transforms::components()))
}

fn components() -> Arc<[Descriptor]> {
    registry().descriptors().collect()
}

/// Reads, compiles and builds a workflow, as far as that goes without anything outside.
fn works(text: &str, fleet: &workflow::Fleet) -> Result<workflow::Spec, String> {
    let told = |problems: Vec<bus_schema::api::Problem>| format!("{problems:#?}");
    let spec = workflow::validate(text, fleet).map_err(told)?;
    workflow::compile(&spec, fleet, 1).map_err(told)?;
    let registry = registry();
    for node in spec.nodes() {
        let config = serde_json::to_string(&node.config).unwrap();
        let context = BuildContext::default();
        let built = match registry.find(node.role, &node.component) {
            Some(Build::Source(build)) => build(&config, &context).map(drop),
            Some(Build::Transform(build)) => build(&config, &context).map(drop),
            Some(Build::Sink(build)) => build(&config, &context).map(drop),
            Some(Build::Junction(build)) => build(&config, &context).map(drop),
            None => return Err(format!("{}: no such component", node.id)),
        };
        built.map_err(|error| format!("{}: {error}", node.id))?;
    }
    Ok(spec)
}

#[test]
fn of_every_component() {
    let components = components();
    let fleet = workflow::Fleet::single("local", NodeId::from_hash(&[1; 32]), Arc::clone(&components));
    assert!(components.len() >= 15, "{}", components.len());
    for Descriptor {
        role, name, example, ..
    } in components.iter()
    {
        let spec = works(example, &fleet).unwrap_or_else(|error| panic!("{role} {name}: {error}\n{example}"));
        let shown = spec
            .nodes()
            .iter()
            .any(|node| node.role == *role && node.component == *name);
        assert!(shown, "the example of {role} {name} does not use it:\n{example}");
        assert!(example.ends_with('\n') && !example.ends_with("\n\n"), "{role} {name}");
    }
}

/// The examples of transforms differ only in the transform: each runs over the same few records.
#[test]
fn of_transforms_run() {
    let dir = temp_dir("examples");
    let readings = "{\"time\": \"2024-01-31T10:00:00Z\", \"at\": \"2024-01-31T10:00:00Z\", \"line\": \"a\", \
                    \"temperature\": 31.5, \"fahrenheit\": 88, \"price\": \"12.50\", \"payload\": {\"x\": {\"y\": 1}}, \"values\": [7], \
                    \"body\": \"KLUv/SAFKQAAaGVsbG8=\"}\n";
    fs::write(dir.path().join("lines.csv"), "line,hall,name\na,North,Ada\n").unwrap();
    let (orders, payments) = (
        "{\"id\": 1, \"placed\": \"2024-01-31T10:00:00Z\"}\n",
        "{\"order\": 1, \"at\": \"2024-01-31T10:01:00Z\"}\n",
    );
    fs::write(dir.path().join("orders.jsonl"), orders).unwrap();
    fs::write(dir.path().join("payments.jsonl"), payments).unwrap();
    for Descriptor {
        role, name, example, ..
    } in components().iter()
    {
        if *role != ComponentRole::Transform {
            continue;
        }
        let file = dir.path().join(format!("{name}.toml"));
        let readings = match name.as_str() {
            "rename" => readings.replace("temperature", "temp"),
            _ => readings.to_string(),
        };
        for file in ["readings.jsonl", "line1.jsonl", "line2.jsonl"] {
            fs::write(dir.path().join(file), &readings).unwrap();
        }
        let once = example.replace("format = \"json_lines\"", "format = \"json_lines\"\nmode = \"once\"");
        fs::write(&file, once).unwrap();
        let out = Cmd::new(env!("CARGO_BIN_EXE_myceliald"))
            .arg("run")
            .arg(&file)
            .run(SOON)
            .ok();
        let records = if name == "merge" { 2 } else { 1 };
        assert_eq!(out.lines().count(), records, "{name}: {out}");
        for line in out.lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{name}: {error}: {line}"));
        }
    }
}

#[test]
fn of_the_guide() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let read = |name: &str| fs::read_to_string(docs.join(name)).unwrap();
    let guide = format!("{}{}", read("GUIDE.md"), read("SYSTEMS.md"));
    let mut fleet = workflow::Fleet::new();
    for (number, name) in ["gateway", "hub"].into_iter().enumerate() {
        fleet.insert(name, NodeId::from_hash(&[number as u8; 32]), Some(components()));
    }
    let labels = [("line".to_string(), "a".to_string())].into();
    fleet.describe(
        "gateway",
        workflow::Facts {
            labels,
            ..workflow::Facts::default()
        },
    );
    fleet.choose("label:line", Ok(vec!["gateway".to_string()]));
    fleet.choose("group:writers", Ok(vec!["hub".to_string()]));
    let dir = temp_dir("guide");
    let (mut workflows, mut settings) = (0, 0);
    for snippet in guide.split("```toml\n").skip(1) {
        let snippet = snippet.split("```").next().unwrap();
        if snippet.contains("[sources.") {
            works(snippet, &fleet).unwrap_or_else(|error| panic!("{error}\n{snippet}"));
            workflows += 1;
        } else {
            let file = dir.path().join("config.toml");
            fs::write(&file, snippet).unwrap();
            let check = Cmd::new(env!("CARGO_BIN_EXE_myceliald"))
                .arg("--config")
                .arg(&file)
                .arg("check");
            assert_eq!(check.run(SOON).ok(), "the settings are good\n", "{snippet}");
            settings += 1;
        }
    }
    assert!(
        workflows >= 2 && settings >= 1,
        "{workflows} workflows, {settings} settings"
    );
}
