//! Transforms, built by the registry as a workflow's are, on a batch of 1,000 table rows.

use std::hint::black_box;

use anyhow::{Context as _, Result, bail, ensure};
use bus_schema::plan::ComponentRole;
use flow::{Build, BuildContext, Registry, Transform};
use serde_json::{Value, json};

use crate::{Body, Case, SPREAD_PERCENT, data};

/// The cases.
pub const CASES: &[Case] = &[
    Case {
        name: "filter_native",
        iteration: "1,000 rows, half of them kept, by a comparison",
        iterations: 40,
        spread_percent: SPREAD_PERCENT,
        main_thread_only: false,
        prepare: |_| applied("filter", &json!({"where": "price > 500"})),
    },
    Case {
        name: "filter_engine",
        iteration: "1,000 rows, half of them kept, by an expression for the engine",
        iterations: 4,
        spread_percent: SPREAD_PERCENT,
        main_thread_only: false,
        prepare: |_| applied("filter", &json!({"where": "price * quantity > 7000"})),
    },
    Case {
        name: "derive_engine",
        iteration: "1,000 rows, one column computed",
        iterations: 4,
        spread_percent: SPREAD_PERCENT,
        main_thread_only: false,
        prepare: |_| applied("derive", &json!({"columns": {"total": "price * quantity"}})),
    },
    Case {
        name: "select",
        iteration: "1,000 rows, one of five columns left out",
        iterations: 100,
        spread_percent: SPREAD_PERCENT,
        main_thread_only: false,
        prepare: |_| applied("select", &json!({"columns": ["id", "name", "price", "quantity"]})),
    },
    Case {
        name: "cast",
        iteration: "1,000 rows, one column from i64 to text",
        iterations: 10,
        spread_percent: SPREAD_PERCENT,
        main_thread_only: false,
        prepare: |_| applied("cast", &json!({"columns": {"quantity": "text"}})),
    },
];

fn applied(name: &str, config: &Value) -> Result<Body> {
    let mut transform = transform(name, config)?;
    let batch = data::table()?;
    Ok(Box::new(move || {
        let done = transform.apply(black_box(&batch).clone())?;
        ensure!(done.rejected.is_empty(), "rows were rejected: {:?}", done.rejected);
        Ok(black_box(done).batch.rows() as u64)
    }))
}

fn transform(name: &str, config: &Value) -> Result<Box<dyn Transform>> {
    let found = Registry::new(transforms::components()).find(ComponentRole::Transform, name);
    match found.with_context(|| format!("there is no transform '{name}'"))? {
        Build::Transform(build) => Ok(build(&config.to_string(), &BuildContext::default())?),
        _ => bail!("'{name}' is no transform"),
    }
}
