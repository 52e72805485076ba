//! Transform `join`: puts records of two inputs together that have the same key and happened within a span of time. A sink for
//! each way that comes in, a source for the one that goes on, and between them a file of SQLite (see `store`).

mod hub;
mod shape;
mod sink;
mod source;
mod store;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, sync::Arc};

use bus_schema::plan::{ComponentRole, Descriptor};
use flow::{Build, BuildContext, Component, ConfigError, Junction, Sink, Source, describe, parse_config};
use schemars::JsonSchema;
use serde::Deserialize;

use self::{
    hub::Hub,
    sink::JoinSink,
    source::JoinSource,
    store::{Rules, Side},
};
use crate::{moment::MILLI_NANOS, ordered::Ordered, pace::ahead_usual};

/// A join has two sides.
const SIDES: usize = 2;
/// Key columns of a side.
const KEY_MAX: usize = 16;
/// A year. Also the most by which times may be apart, so that sums of them stay in 64 bits.
const SPAN_MS_MAX: u64 = 366 * 24 * 60 * 60 * 1_000;
/// Bounds of `rows_max`, and what it is unless given.
const ROWS_MAX: std::ops::RangeInclusive<u64> = 1_000..=10_000_000;
const ROWS_MAX_USUAL: u64 = 100_000;

/// Puts records of two inputs together: each with every one of the other input that has the same key and happened at most
/// `within_ms` before or after it, by the times in the records. What comes out has the columns of the first input and then
/// those of the second. A column of the second with a name that the first has too gets the input's name and `_` before it; key
/// columns with the same name on both sides are one.
///
/// What waits for its partners is kept in a file in the daemon's directory, in the same transaction as how far each input has
/// come: a crash loses nothing and doubles nothing. A record waits until one of the other input is younger than it by
/// more than `within_ms` and `lateness_ms`. Then it is let go of; if its input is in `keep` and it found nobody, it goes on
/// alone, with nulls for the other's columns. When both inputs come to their end, everything is let go of.
///
/// A record that is older than the youngest of its own input by more than `lateness_ms` is late and goes to the dead letters.
/// When `rows_max` records of one input wait, that input waits for the other to catch up, if it is ahead of it; otherwise more
/// than that lie within one span, and what does not fit goes to the dead letters. So does a record with more than 1,000
/// partners, what comes in one batch with others that make a million, and one that is the change or the end of another record. A record without a value in its key has no partner.
///
/// Values of keys are the same if they have the same type and value; whole numbers with and without sign are one type. Where
/// they differ, use `cast` before.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-joins" = "inputs"))]
struct Config {
    /// The two nodes of `from`, and which of their columns hold the key and the time.
    inputs: Ordered<Input>,
    /// How far apart in time two records may be, in milliseconds.
    within_ms: u64,
    /// How late a record may be behind its own input, in milliseconds.
    #[serde(default)]
    lateness_ms: u64,
    /// How far ahead of the youngest record of its input before it a record may be, in milliseconds, and time still go by it
    /// alone; three days unless given, and never less than `within_ms`. A record further ahead waits for its partners and moves
    /// no time: its clock may be wrong. When five of an input in a row are, as after a gap, time goes on with the earliest of
    /// them, and those that are no further apart than that. It begins in the same way. 0: time goes by each record.
    #[serde(default = "ahead_usual")]
    ahead_max_ms: u64,
    /// The inputs whose records go on alone if they find no partner.
    #[serde(default)]
    keep: Vec<String>,
    /// Most records of each input that wait, about: 1,000 to 10,000,000. Default: 100,000.
    #[schemars(range(min = 1_000, max = 10_000_000))]
    rows_max: Option<u64>,
}

/// `{ key = ["order"], time = "at" }`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Input {
    /// The columns of the key, up to 16, in the same order on both sides.
    key: Vec<String>,
    /// The column of the time: a timestamp, or a text with one.
    time: String,
}

/// The registry line.
pub(crate) const TRANSFORM: Component = Component {
    descriptor,
    build: Build::Junction(build),
};

const EXAMPLE: &str = r#"name = "paid"

[sources.orders]
type = "file"
path = "orders.jsonl"
format = "json_lines"

[sources.payments]
type = "file"
path = "payments.jsonl"
format = "json_lines"

[transforms.paid]
type = "join"
from = ["orders", "payments"]
within_ms = 3_600_000
lateness_ms = 60_000
keep = ["orders"]

[transforms.paid.inputs]
orders = { key = ["id"], time = "placed" }
payments = { key = ["order"], time = "at" }

[destinations.out]
type = "stdout"
from = "paid"
"#;

fn descriptor() -> Descriptor {
    let summary = "Puts records of two inputs together that have the same key and happened within a span of time";
    Descriptor {
        inputs_max: SIDES as u16,
        ..describe::<Config>(ComponentRole::Transform, "join", summary, EXAMPLE)
    }
}

fn build(config: &str, context: &BuildContext) -> Result<Box<dyn Junction>, ConfigError> {
    let config: Config = parse_config(config)?;
    for (key, ms) in [
        ("within_ms", config.within_ms),
        ("lateness_ms", config.lateness_ms),
        ("ahead_max_ms", config.ahead_max_ms),
    ] {
        if ms > SPAN_MS_MAX {
            return Err(ConfigError::at(key, "it is a year at most"));
        }
    }
    let rows_max = config.rows_max.unwrap_or(ROWS_MAX_USUAL);
    if !ROWS_MAX.contains(&rows_max) {
        return Err(ConfigError::at("rows_max", "is 1,000 to 10,000,000"));
    }
    let side = |(name, input): (String, Input)| Side {
        is_kept: config.keep.contains(&name),
        name,
        key: input.key,
        time: input.time,
    };
    let sides: Vec<Side> = config.inputs.0.into_iter().map(side).collect();
    let Ok(sides) = <[Side; SIDES]>::try_from(sides) else {
        return Err(ConfigError::at(
            "inputs",
            "name both nodes of `from`, each with its key and time",
        ));
    };
    for side in &sides {
        let wrong = |message: &str| Err(ConfigError::at(format!("inputs.{}.key", side.name), message));
        if side.key.is_empty() || side.key.len() > KEY_MAX {
            return wrong("name 1 to 16 columns");
        }
        if side.key.len() != sides[0].key.len() {
            return wrong("name as many columns as for the other input");
        }
        if (1..side.key.len()).any(|at| side.key[..at].contains(&side.key[at])) {
            return wrong("a column stands here twice");
        }
    }
    if let Some(unknown) = config
        .keep
        .iter()
        .find(|kept| sides.iter().all(|side| side.name != **kept))
    {
        return Err(ConfigError::at("keep", format!("'{unknown}' is none of the inputs")));
    }
    let nanos = |ms: u64| ms as i64 * MILLI_NANOS;
    let rules = Rules {
        node: context.node.clone(),
        sides,
        within: nanos(config.within_ms),
        lateness: nanos(config.lateness_ms),
        ahead_max: (config.ahead_max_ms > 0).then(|| nanos(config.ahead_max_ms.max(config.within_ms))),
        rows_max,
    };
    Ok(Box::new(Join(Arc::new(Hub::new(rules)))))
}

struct Join(Arc<Hub>);

impl Junction for Join {
    fn settle(&mut self, file: Option<PathBuf>) {
        self.0.settle(file);
    }

    fn input(&self, from: &str) -> Result<Box<dyn Sink>, String> {
        let sides = &self.0.rules.sides;
        let Some(side) = sides.iter().position(|side| side.name == from) else {
            let [first, second] = sides;
            return Err(format!(
                "it reads from '{from}', and its inputs are '{}' and '{}': name under 'inputs' what stands in 'from'",
                first.name, second.name
            ));
        };
        Ok(Box::new(JoinSink::new(Arc::clone(&self.0), side)))
    }

    fn output(&self) -> Box<dyn Source> {
        Box::new(JoinSource::new(Arc::clone(&self.0)))
    }

    fn waiting(&self) -> Box<dyn Fn() -> u64 + Send + Sync> {
        let hub = Arc::clone(&self.0);
        Box::new(move || hub.waiting())
    }
}
