//! Transform `deadband`: leaves out readings that have hardly moved since the last one that was let through. That one it
//! knows in memory only: when reading starts again it lets more through than it would have, never less.

use std::collections::HashMap;

use bus_schema::{
    data::{Batch, Cell, Op, Type, Value},
    plan::{ComponentRole, Descriptor},
};
use flow::{Build, BuildContext, Component, ConfigError, Fault, Transform, Transformed, describe, parse_config};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{cells::named_columns, convert::convert, ordered::Ordered};

/// Groups whose last reading is known at a time. With more, all are forgotten and begin anew.
const GROUPS_MAX: usize = 10_000;
const MILLI_NANOS: i128 = 1_000_000;

/// Leaves out readings that have hardly moved since the last one of their group that was let through. What is no number is
/// let through when it is another. The first of a group is let through, and every delete. The last readings are known in
/// memory only, for 10,000 groups at most: when the daemon starts again, the source is opened again or there are more
/// groups, readings are let through that have not moved. None is left out that has.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Column = the band: a reading is let through when one of these columns has moved by more. A number
    /// (`temperature = 0.5`), or a part of the last reading (`flow = { percent = 2 }`). 0: every other value.
    columns: Ordered<Band>,
    /// The columns that tell one sensor from another; without this those of the key. Without either all are one group.
    by: Option<Vec<String>>,
    /// The column with the time of a reading, for `silence_max_ms`.
    time: Option<String>,
    /// A reading is let through although it has not moved when the last one is so much older, by the readings' own times.
    silence_max_ms: Option<u64>,
}

/// How far a reading may move.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a band is a number or { percent = NUMBER }")]
enum Band {
    /// As much as this.
    Absolute(f64),
    /// A part of the last reading.
    Relative(Percent),
}

/// A part of the last reading.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Percent {
    /// So many hundredths.
    percent: f64,
}

/// The registry line.
pub(crate) const DEADBAND: Component = Component {
    descriptor,
    build: Build::Transform(build),
};

const EXAMPLE: &str = r#"name = "moves"

[sources.readings]
type = "file"
path = "readings.jsonl"
format = "json_lines"

[transforms.moves]
type = "deadband"
from = "readings"
columns = { temperature = 0.5 }
by = ["line"]

[destinations.out]
type = "stdout"
from = "moves"
"#;

fn descriptor() -> Descriptor {
    let summary = "Leaves out readings that have hardly moved";
    describe::<Config>(ComponentRole::Transform, "deadband", summary, EXAMPLE)
}

fn build(config: &str, _: &BuildContext) -> Result<Box<dyn Transform>, ConfigError> {
    let config: Config = parse_config(config)?;
    if config.columns.0.is_empty() {
        return Err(ConfigError::at("columns", "name at least one column"));
    }
    for (name, band) in &config.columns.0 {
        let (Band::Absolute(width) | Band::Relative(Percent { percent: width })) = band;
        if !(width.is_finite() && *width >= 0.0) {
            return Err(ConfigError::at(format!("columns.{name}"), "a band is 0 or more"));
        }
    }
    if let Some(names) = &config.by {
        named_columns("by", names)?;
    }
    if config.time.is_some() != config.silence_max_ms.is_some() {
        return Err(ConfigError::at(
            "silence_max_ms",
            "it goes together with `time`: give both or neither",
        ));
    }
    Ok(Box::new(Deadband {
        config,
        last: HashMap::new(),
    }))
}

struct Deadband {
    config: Config,
    last: HashMap<Group, Reading>,
}

/// The values of the columns that tell sensors apart, as texts with their lengths.
type Group = String;

/// What is remembered of a reading that was let through.
struct Reading {
    values: Vec<Value>,
    /// Nanoseconds since 1970.
    at: Option<i128>,
}

/// Where the columns stand in one batch.
struct Places {
    values: Vec<Option<usize>>,
    group: Vec<Option<usize>>,
    time: Option<usize>,
}

impl Transform for Deadband {
    fn apply(&mut self, batch: Batch) -> Result<Transformed, Fault> {
        let places = self.places(&batch);
        let mut kept = Vec::with_capacity(batch.rows());
        for row in 0..batch.rows() {
            let group = group(&batch, row, &places.group);
            if batch.op(row) == Op::Delete {
                self.last.remove(&group);
                kept.push(row);
                continue;
            }
            let reading = self.reading(&batch, row, &places);
            let lets_through = self.last.get(&group).is_none_or(|last| self.has_moved(last, &reading));
            if lets_through {
                kept.push(row);
                self.remember(group, reading);
            }
        }
        if kept.len() == batch.rows() {
            return Ok(batch.into());
        }
        Ok(batch.take(&kept).into())
    }

    fn forget(&mut self) {
        self.last.clear();
    }
}

impl Deadband {
    fn places(&self, batch: &Batch) -> Places {
        let schema = batch.schema();
        let fields = schema.fields.iter().enumerate();
        Places {
            values: self
                .config
                .columns
                .0
                .iter()
                .map(|(name, _)| schema.index_of(name))
                .collect(),
            group: match &self.config.by {
                Some(names) => names.iter().map(|name| schema.index_of(name)).collect(),
                None => fields
                    .filter(|(_, field)| field.key)
                    .map(|(place, _)| Some(place))
                    .collect(),
            },
            time: self.config.time.as_ref().and_then(|name| schema.index_of(name)),
        }
    }

    fn reading(&self, batch: &Batch, row: usize, places: &Places) -> Reading {
        let at = places.time.map(|place| batch.cell(row, place));
        Reading {
            values: places
                .values
                .iter()
                .map(|place| cell(batch, row, *place).to_value())
                .collect(),
            at: match at {
                Some(Cell::Timestamp(nanos) | Cell::TimestampUtc(nanos) | Cell::TimestampOffset(nanos, _)) => {
                    Some(nanos)
                }
                _ => None,
            },
        }
    }

    fn has_moved(&self, last: &Reading, now: &Reading) -> bool {
        if let Some(silence_max_ms) = self.config.silence_max_ms {
            // Whoever says no time is let through, and so is who comes from before the last.
            let (Some(last), Some(now)) = (last.at, now.at) else {
                return true;
            };
            let silence = now - last;
            if silence < 0 || silence >= i128::from(silence_max_ms) * MILLI_NANOS {
                return true;
            }
        }
        let bands = self.config.columns.0.iter().map(|(_, band)| band);
        let pairs = last.values.iter().zip(&now.values);
        pairs.zip(bands).any(|((last, now), band)| is_beyond(last, now, band))
    }

    fn remember(&mut self, group: Group, mut reading: Reading) {
        match self.last.get(&group) {
            // What an update does not say is as it was.
            Some(last) => {
                for (value, last) in reading.values.iter_mut().zip(&last.values) {
                    if *value == Value::Unchanged {
                        value.clone_from(last);
                    }
                }
            }
            None if self.last.len() >= GROUPS_MAX => self.last.clear(),
            None => {}
        }
        self.last.insert(group, reading);
    }
}

fn cell(batch: &Batch, row: usize, place: Option<usize>) -> Cell<'_> {
    place.map_or(Cell::Missing, |place| batch.cell(row, place))
}

fn group(batch: &Batch, row: usize, places: &[Option<usize>]) -> Group {
    let mut group = Group::new();
    for place in places {
        let cell = cell(batch, row, *place);
        let text = cell.to_string();
        // With their lengths: "a" and "bc" are not "ab" and "c". Null is not the empty text.
        group.push_str(&format!(
            "{}{}:{text}",
            if cell.is_value() { "" } else { "-" },
            text.len()
        ));
    }
    group
}

fn is_beyond(last: &Value, now: &Value, band: &Band) -> bool {
    if *now == Value::Unchanged || last == now {
        return false;
    }
    let (Some(from), Some(to)) = (number(last), number(now)) else {
        return true;
    };
    if from.is_nan() && to.is_nan() {
        return false;
    }
    let width = match band {
        Band::Absolute(width) => *width,
        Band::Relative(Percent { percent }) => from.abs() * percent / 100.0,
    };
    // As floats two large integers may be one: with a band of 0 they are two, as the values are.
    let distance = (to - from).abs();
    // From or to infinity or NaN is no distance that a band spans.
    width == 0.0 || distance > width || !distance.is_finite()
}

fn number(value: &Value) -> Option<f64> {
    match value.as_cell() {
        Cell::I64(v) => Some(v as f64),
        Cell::U64(v) => Some(v as f64),
        Cell::F32(v) => Some(f64::from(v)),
        Cell::F64(v) => Some(v),
        cell @ Cell::Decimal(..) => match convert(cell, &Type::F64) {
            Ok(Value::F64(v)) => Some(v),
            // Too fine for a float: any other value has moved.
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use bus_schema::data::{BatchBuilder, Field, Origin, Schema};

    use super::*;
    use crate::testing::{check, check_config, shown, table, transform};

    #[test]
    fn what_has_moved_is_let_through() {
        for (config, columns, rows, kept) in [
            (
                r#"{"columns": {"n": 1}}"#,
                &["n:f64"][..],
                &[
                    "5", "5.9", "6", "6.1", "5", "~", "~", "?", "5", "NaN", "NaN", "inf", "inf",
                ][..],
                "5.0\n6.1\n5.0\n~\n?\n5.0\nNaN\ninf",
            ),
            (
                r#"{"columns": {"n": {"percent": 10}}, "by": ["s"]}"#,
                &["n:i64", "s:text"],
                &["100|a", "100|b", "110|a", "111|a", "89|b", "100|~", "100|"],
                "100|a\n100|b\n111|a\n89|b\n100|~\n100|",
            ),
            (
                r#"{"columns": {"n": {"percent": 10}}}"#,
                &["n:f64"],
                &["5", "inf", "inf", "5", "-inf", "inf", "0", "0.1"],
                "5.0\ninf\n5.0\n-inf\ninf\n0.0\n0.1",
            ),
            (
                r#"{"columns": {"n": 0, "t": 5}}"#,
                &["n:i64", "t:text"],
                &[
                    "9007199254740992|x",
                    "9007199254740993|x",
                    "9007199254740993|x",
                    "=|y",
                    "9007199254740993|=",
                ],
                "9007199254740992|x\n9007199254740993|x\n=|y",
            ),
            (
                r#"{"columns": {"n": 5}, "time": "at", "silence_max_ms": 1000}"#,
                &["n:i64", "at:timestamp_utc"],
                &[
                    "1|1970-01-01T00:00:00Z",
                    "1|1970-01-01T00:00:00.999Z",
                    "1|1970-01-01T00:00:01Z",
                    "9|1970-01-01T00:00:01.5Z",
                    "9|1970-01-01T00:00:00.5Z",
                    "9|~",
                ],
                "1|1970-01-01T00:00:00Z\n1|1970-01-01T00:00:01Z\n9|1970-01-01T00:00:01.500Z\n\
                 9|1970-01-01T00:00:00.500Z\n9|~",
            ),
        ] {
            check(&DEADBAND, config, table(columns, rows), kept, "");
        }
    }

    #[test]
    fn batches_do_not_matter_and_forgetting_sends_again() {
        let mut deadband = transform(&DEADBAND, r#"{"columns": {"n": 1}}"#);
        let mut apply = |rows: &[&str]| shown(&deadband.apply(table(&["n:i64"], rows)).unwrap().batch);
        assert_eq!(
            (apply(&["1", "2"]), apply(&["2", "3"]), apply(&["3"])),
            ("1".into(), "3".into(), String::new())
        );
        deadband.forget();
        let again = deadband.apply(table(&["n:i64"], &["3"])).unwrap();
        assert_eq!(shown(&again.batch), "3");
    }

    #[test]
    fn deletes_pass_and_begin_anew() {
        let schema = Schema {
            collection: "t".into(),
            fields: vec![Field::new("k", Type::I64).key(), Field::new("n", Type::I64)],
        };
        let mut builder = BatchBuilder::new(schema.into());
        for (op, n) in [
            (Op::Upsert, Cell::I64(1)),
            (Op::Upsert, Cell::I64(1)),
            (Op::Delete, Cell::Missing),
            (Op::Upsert, Cell::I64(1)),
        ] {
            builder.push(op, &[Cell::I64(7), n]).unwrap();
        }
        let done = transform(&DEADBAND, r#"{"columns": {"n": 5}}"#)
            .apply(builder.finish(Origin::default()))
            .unwrap();
        assert_eq!(shown(&done.batch), "7|1\n7|?\n7|1");
    }

    #[test]
    fn groups_are_bounded() {
        let rows: Vec<String> = (0..=GROUPS_MAX).map(|n| format!("{n}|1")).collect();
        let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
        let mut deadband = transform(&DEADBAND, r#"{"columns": {"n": 5}, "by": ["s"]}"#);
        let mut apply = |rows: &[&str]| deadband.apply(table(&["s:i64", "n:i64"], rows)).unwrap().batch.rows();
        assert_eq!(apply(&rows[..GROUPS_MAX]), GROUPS_MAX);
        assert_eq!(apply(&rows[..1]), 0);
        assert_eq!(apply(&rows[GROUPS_MAX..]), 1);
        assert_eq!(apply(&rows[..1]), 1, "forgotten, and so sent again");
    }

    #[test]
    fn mistakes_are_named() {
        for (config, wanted) in [
            (r#"{"columns": {}}"#, "columns: name at least one"),
            (r#"{"columns": {"a": -1}}"#, "columns.a: a band is 0 or more"),
            (r#"{"columns": {"a": "x"}}"#, "a band is a number or"),
            (
                r#"{"columns": {"a": 1}, "time": "t"}"#,
                "silence_max_ms: it goes together",
            ),
            (r#"{"columns": {"a": 1}, "by": []}"#, "by: name at least one"),
        ] {
            check_config(&DEADBAND, config, wanted);
        }
    }

    proptest::proptest! {
        /// Every reading is at most a band away from the last one that was let through at its time.
        #[test]
        fn nothing_that_moved_is_left_out(values in proptest::collection::vec(-20..20i64, 0..50), band in 0..5i64) {
            let mut deadband = transform(&DEADBAND, &format!("{{\"columns\": {{\"n\": {band}}}}}"));
            let mut last = None;
            for value in values {
                let done = deadband.apply(table(&["n:i64"], &[&value.to_string()])).unwrap();
                match last {
                    _ if done.batch.rows() == 1 => last = Some(value),
                    Some(last) => proptest::prop_assert!((value - last).abs() <= band),
                    None => proptest::prop_assert!(false, "the first was left out"),
                }
            }
        }
    }
}
