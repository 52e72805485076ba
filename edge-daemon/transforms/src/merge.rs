//! Transform `merge`: joins several inputs into one; records pass through unchanged, in the order they come.

use bus_schema::{
    data::Batch,
    plan::{ComponentRole, Descriptor},
};
use flow::{Build, BuildContext, Component, ConfigError, Fault, Transform, Transformed, describe, parse_config};
use schemars::JsonSchema;
use serde::Deserialize;

/// Joins several inputs into one. Records pass through unchanged; each input keeps its own order.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {}

/// The registry line.
pub(crate) const MERGE: Component = Component {
    descriptor,
    build: Build::Transform(build),
};

const EXAMPLE: &str = r#"name = "all-lines"

[sources.line1]
type = "file"
path = "line1.jsonl"
format = "json_lines"

[sources.line2]
type = "file"
path = "line2.jsonl"
format = "json_lines"

[transforms.all]
type = "merge"
from = ["line1", "line2"]

[destinations.out]
type = "stdout"
from = "all"
"#;

fn descriptor() -> Descriptor {
    let summary = "Joins several inputs into one";
    let mut descriptor = describe::<Config>(ComponentRole::Transform, "merge", summary, EXAMPLE);
    descriptor.inputs_max = 0;
    descriptor
}

fn build(config: &str, _: &BuildContext) -> Result<Box<dyn Transform>, ConfigError> {
    let Config {} = parse_config(config)?;
    Ok(Box::new(Merge))
}

struct Merge;

impl Transform for Merge {
    fn apply(&mut self, batch: Batch) -> Result<Transformed, Fault> {
        Ok(batch.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, check_config, table};

    #[test]
    fn passes_everything() {
        check(&MERGE, "{}", table(&["a:i64"], &["1", "~"]), "1\n~", "");
        check_config(&MERGE, r#"{"order": 1}"#, "unknown field `order`");
        assert_eq!(descriptor().inputs_max, 0);
    }
}
