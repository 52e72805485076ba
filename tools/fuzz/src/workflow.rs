//! Workflow files: whatever a person, or a program, may write.

use std::sync::{Arc, OnceLock};

use bus_schema::{
    id::NodeId,
    plan::{ComponentRole, Descriptor},
};
use workflow::Fleet;

const TABLE: &str = r#"{"type":"object","additionalProperties":false,"required":["path"],"properties":{
    "path":{"type":"string","description":"Where the file is."},
    "mode":{"enum":["append","upsert"]},
    "rows":{"type":"integer","format":"uint32","minimum":1,"maximum":1000},
    "columns":{"type":"array","items":{"type":"string"}}}}"#;
const EXPRESSION: &str = r#"{"type":"object","additionalProperties":false,"required":["expression"],"properties":{
    "expression":{"type":"string"}}}"#;

fn fleet() -> &'static Fleet {
    static FLEET: OnceLock<Fleet> = OnceLock::new();
    FLEET.get_or_init(|| {
        let component = |role, name: &str, inputs_max, schema: &str| Descriptor {
            role,
            name: name.to_string(),
            summary: String::new(),
            schema: schema.to_string(),
            example: String::new(),
            inputs_max,
            durable: true,
        };
        let components: Arc<[Descriptor]> = [
            component(ComponentRole::Source, "sqlite", 0, TABLE),
            component(ComponentRole::Transform, "filter", 1, EXPRESSION),
            component(ComponentRole::Transform, "merge", 0, EXPRESSION),
            component(ComponentRole::Destination, "sqlite", 0, TABLE),
            component(ComponentRole::Destination, "stdout", 1, TABLE),
        ]
        .into();
        let mut fleet = Fleet::new();
        fleet.insert("gateway", NodeId::from_hash(&[1; 32]), Some(Arc::clone(&components)));
        fleet.insert("hub", NodeId::from_hash(&[2; 32]), Some(components));
        fleet.insert("late", NodeId::from_hash(&[3; 32]), None);
        fleet
    })
}

/// A text has problems, or it compiles; never both, never neither.
pub fn feed(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    match workflow::validate(text, fleet()) {
        Err(problems) => assert!(!problems.is_empty(), "refused without a reason"),
        Ok(spec) => {
            let compiled = workflow::compile(&spec, fleet(), 1);
            assert!(compiled.is_ok(), "valid, and yet: {:?}", compiled.err());
        }
    }
}
