//! Transform `aggregate`: records become one for each window of time and group. What windows have gathered is stored with the
//! position of the source, together with what came out, so that every window comes out once and exact, crash or not.

mod sketch;
mod slot;
mod windows;

use std::sync::Arc;

use bus_schema::{
    data::{Batch, Field, Op, Schema, Type, Value, Zone},
    plan::{ComponentRole, Descriptor},
};
use flow::{Build, BuildContext, Component, ConfigError, Fault, Transform, Transformed, describe, parse_config};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use self::{
    slot::{Function, Input, Percentile, Slot},
    windows::{Key, Span, Windows},
};
use crate::{
    cells::{NEW_CELLS_MAX, RejectedRows, column, named_columns},
    expression::common_type,
    moment::{MILLI_NANOS, moment},
    ordered::Ordered,
    pace::{Pace, ahead_usual},
};

/// Most values.
const VALUES_MAX: usize = 64;
/// Most columns that tell groups apart.
const BY_MAX: usize = 16;
/// Most windows that one moment lies in.
const OVERLAP_MAX: u64 = 60;
/// Longest texts that tell a group from others, in bytes.
const GROUP_BYTES_MAX: usize = 1024;
/// Longest name of a collection that is remembered, in bytes.
const COLLECTION_BYTES_MAX: usize = 256;
/// What the state takes beside the windows, in bytes: the above, types, and what it begins with.
const HEAD_BYTES_MAX: usize = 1024;
/// The form of the state, and the one before, which had no pace.
const FORM: u8 = 2;
const FORM_BEFORE: u8 = 1;
/// Longest time of a window, in milliseconds: a year.
const SPAN_MS_MAX: u64 = 366 * 86_400_000;
/// Windows that close before what is left of a batch has to wait for its turn. As many again may be open and close with the
/// next record.
const CLOSED_MAX: usize = 16 * 1024;
const START: &str = "window_start";
const END: &str = "window_end";

/// Makes one record of all records of a window of time, for each group: counts, sums, means and more. The time is that of
/// the records, never a clock's: a window closes when a record comes that is younger than its end by `lateness_ms`, or when
/// the source comes to its end. While none comes, none closes. A record whose windows are all closed goes to the dead
/// letters, and so does one for which there is no room: what is kept of open windows is stored with every batch and takes
/// at most 64 KiB (about 500 windows of four values; less with several such transforms in a row). Changes and deletes go
/// there too: a window counts readings. New records have `window_start`, `window_end`, the columns of `by` and `values`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-remembers" = true))]
struct Config {
    /// The column with the time of a record; a timestamp, or a text with one.
    time: String,
    /// How time is cut.
    window: Window,
    /// How long a window stays open after its end for records that are late, in milliseconds.
    #[serde(default)]
    lateness_ms: u64,
    /// How far ahead of the youngest record before it a record may be, in milliseconds, and time still go by it alone; three days
    /// unless given, and never less than a window is long. A record further ahead is in its window, and moves no time: its
    /// clock may be wrong. When five in a row are, as after a gap, time goes on with the earliest of them, and those that are
    /// no further apart than that. It begins in the same way, with the first five. 0: time goes by each record.
    #[serde(default = "ahead_usual")]
    ahead_max_ms: u64,
    /// The columns that tell groups apart, up to 16. Without any there is one group.
    #[serde(default)]
    by: Vec<String>,
    /// New column = its value: `{ n = "count", warmest = { max = "temperature" } }`; up to 64.
    values: Ordered<Function>,
}

/// `{ every_ms = 60000 }`: one minute after the other. `{ every_ms = 10000, length_ms = 60000 }`: a minute, every ten
/// seconds; up to 60 at a time. `{ gap_ms = 30000 }`: as long as records of the group are less than so far apart.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Window {
    /// How far apart windows begin, in milliseconds, counted from 1970.
    every_ms: Option<u64>,
    /// How long a window is, in milliseconds; without this as long as `every_ms`.
    length_ms: Option<u64>,
    /// How long there must be no record for a window to end, in milliseconds. Goes without the others.
    gap_ms: Option<u64>,
}

/// The registry line.
pub(crate) const AGGREGATE: Component = Component {
    descriptor,
    build: Build::Transform(build),
};

const EXAMPLE: &str = r#"name = "minutes"

[sources.readings]
type = "file"
path = "readings.jsonl"
format = "json_lines"

[transforms.minutes]
type = "aggregate"
from = "readings"
time = "time"
window = { every_ms = 60_000 }
lateness_ms = 5_000
by = ["line"]

[transforms.minutes.values]
readings = "count"
mean = { mean = "temperature" }
p95 = { percentile = { column = "temperature", percent = 95 } }

[destinations.out]
type = "stdout"
from = "minutes"
"#;

fn descriptor() -> Descriptor {
    let summary = "Makes one record of all records of a window of time";
    describe::<Config>(ComponentRole::Transform, "aggregate", summary, EXAMPLE)
}

fn build(config: &str, _: &BuildContext) -> Result<Box<dyn Transform>, ConfigError> {
    let config: Config = parse_config(config)?;
    let span = span(&config.window)?;
    if config.lateness_ms > SPAN_MS_MAX {
        return Err(ConfigError::at("lateness_ms", "it is a year at most"));
    }
    if config.ahead_max_ms > SPAN_MS_MAX {
        return Err(ConfigError::at("ahead_max_ms", "it is a year at most"));
    }
    if !config.by.is_empty() {
        named_columns("by", &config.by)?;
    }
    if config.by.len() > BY_MAX {
        return Err(ConfigError::at("by", format!("name at most {BY_MAX} columns")));
    }
    let (names, functions): (Vec<String>, Vec<Function>) = config.values.0.into_iter().unzip();
    if names.is_empty() || names.len() > VALUES_MAX {
        return Err(ConfigError::at("values", format!("name 1 to {VALUES_MAX} values")));
    }
    for (name, function) in names.iter().zip(&functions) {
        let wrong = |message: &str| Err(ConfigError::at(format!("values.{name}"), message));
        if [START, END].contains(&name.as_str()) || config.by.contains(name) {
            return wrong("there is a column of this name already");
        }
        if matches!(function, Function::Percentile(Percentile { percent, .. }) if !(0.0..=100.0).contains(percent)) {
            return wrong("`percent` is from 0 to 100");
        }
    }
    let print = serde_json::json!([config.time, config.window, config.by, names, functions]).to_string();
    let digest: [u8; 32] = Sha256::digest(print).into();
    let ahead_max = (config.ahead_max_ms > 0).then(|| nanos(config.ahead_max_ms));
    Ok(Box::new(Aggregate {
        windows: Windows::new(span, nanos(config.lateness_ms), ahead_max),
        lateness: nanos(config.lateness_ms),
        head: Head {
            form: FORM,
            print: digest.first_chunk().copied().unwrap_or_default(),
            ..Head::default()
        },
        time: config.time,
        by: config.by,
        names,
        functions,
        made: 0,
        left: 0,
    }))
}

fn span(window: &Window) -> Result<Span, ConfigError> {
    let wrong = |message: &str| Err(ConfigError::at("window", message));
    let within = |ms: u64| (1..=SPAN_MS_MAX).contains(&ms);
    match *window {
        Window {
            every_ms: Some(every_ms),
            length_ms,
            gap_ms: None,
        } => {
            let length_ms = length_ms.unwrap_or(every_ms);
            if !within(every_ms) || !within(length_ms) {
                return wrong("a window is from 1 ms to a year long");
            }
            if length_ms < every_ms {
                return wrong("records between two windows would be in none: `length_ms` is at least `every_ms`");
            }
            if length_ms.div_ceil(every_ms) > OVERLAP_MAX {
                return wrong("a record would be in more than 60 windows: give a larger `every_ms`");
            }
            let (every, length) = (nanos(every_ms), nanos(length_ms));
            Ok(Span::Fixed { every, length })
        }
        Window {
            every_ms: None,
            length_ms: None,
            gap_ms: Some(gap_ms),
        } if within(gap_ms) => Ok(Span::Session { gap: nanos(gap_ms) }),
        _ => {
            wrong("give `every_ms`, `every_ms` and `length_ms`, or `gap_ms` alone, each at least 1 and at most a year")
        }
    }
}

/// No more than a year: far from what it can hold.
fn nanos(ms: u64) -> i64 {
    ms.min(SPAN_MS_MAX) as i64 * MILLI_NANOS
}

struct Aggregate {
    windows: Windows,
    /// Nanoseconds.
    lateness: i64,
    head: Head,
    time: String,
    by: Vec<String>,
    names: Vec<String>,
    functions: Vec<Function>,
    made: usize,
    /// Rows of the last batch that it has not taken.
    left: usize,
}

/// What is remembered beside the windows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Head {
    form: u8,
    /// Of the config that the windows are of.
    print: [u8; 8],
    /// The last records had times without a zone.
    is_naive: bool,
    /// Where the last records came from.
    collection: String,
    /// Of the columns of `by` and then of `values`, as the last records had them.
    types: Vec<Option<Type>>,
}

/// [`State`], to be written.
#[derive(Serialize)]
struct StateRef<'a> {
    head: &'a Head,
    closed_to: i64,
    windows: Vec<(&'a Key, &'a Vec<Slot>)>,
    pace: Pace,
}

/// All that is stored.
#[derive(Deserialize)]
struct State {
    head: Head,
    closed_to: i64,
    windows: Vec<(Key, Vec<Slot>)>,
    pace: Pace,
}

/// [`State`] in the form before.
#[derive(Deserialize)]
struct StateBefore {
    head: Head,
    closed_to: i64,
    windows: Vec<(Key, Vec<Slot>)>,
}

impl State {
    fn read(bytes: &[u8], lateness: i64) -> Option<Self> {
        let now = bus_schema::decode(bytes).filter(|state: &Self| state.head.form == FORM);
        let before = || {
            let StateBefore {
                head,
                closed_to,
                windows,
            } = bus_schema::decode(bytes).filter(|state: &StateBefore| state.head.form == FORM_BEFORE)?;
            let pace = match closed_to {
                i64::MIN => Pace::default(),
                closed_to => Pace::at(closed_to.saturating_add(lateness)),
            };
            Some(Self {
                head: Head { form: FORM, ..head },
                closed_to,
                windows,
                pace,
            })
        };
        now.or_else(before)
    }
}

/// Where the columns stand in one batch.
struct Places {
    time: Option<usize>,
    by: Vec<Option<usize>>,
    values: Vec<Option<usize>>,
}

/// A window that is closed.
struct Closed {
    start: i64,
    end: i64,
    group: Vec<u8>,
    values: Vec<Value>,
}

impl Transform for Aggregate {
    fn apply(&mut self, batch: Batch) -> Result<Transformed, Fault> {
        self.gather(&batch, false)
    }

    fn made(&mut self) -> usize {
        self.made
    }

    fn left(&mut self) -> usize {
        self.left
    }

    fn finish(&mut self, batch: Batch) -> Result<Transformed, Fault> {
        self.gather(&batch, true)
    }

    fn remembers(&self) -> bool {
        true
    }

    fn state(&self) -> Vec<u8> {
        bus_schema::encode(&StateRef {
            head: &self.head,
            closed_to: self.windows.closed_to(),
            windows: self.windows.open().collect(),
            pace: self.windows.pace(),
        })
    }

    fn restore(&mut self, state: Option<&[u8]>, room_bytes: usize) -> Result<(), Fault> {
        let room_bytes = room_bytes.saturating_sub(HEAD_BYTES_MAX);
        let own = Head {
            form: FORM,
            print: self.head.print,
            ..Head::default()
        };
        let Some(state) = state else {
            self.head = own;
            self.windows
                .restore((i64::MIN, Pace::default()), Vec::new(), room_bytes);
            return Ok(());
        };
        let State {
            head,
            closed_to,
            windows,
            pace,
        } = State::read(state, self.lateness).ok_or_else(|| {
            Fault::stop("its open windows were stored in a form that this version does not know: update myceliald")
        })?;
        if head.print == own.print {
            self.head = head;
            self.windows.restore((closed_to, pace), windows, room_bytes);
        } else if windows.is_empty() {
            self.head = own;
            self.windows
                .restore((i64::MIN, Pace::default()), Vec::new(), room_bytes);
        } else {
            return Err(Fault::stop(format!(
                "{} windows are open that were begun with other settings: set `time`, `window`, `by` and `values` as they were, \
                 or give the node another name to give those windows up and begin anew",
                windows.len()
            )));
        }
        Ok(())
    }
}

impl Aggregate {
    fn gather(&mut self, batch: &Batch, is_last: bool) -> Result<Transformed, Fault> {
        let places = self.look(batch);
        let (mut closed, mut rejected) = (Vec::new(), RejectedRows::new());
        let width = self.names.len() + self.by.len() + 2;
        let most = CLOSED_MAX.min(NEW_CELLS_MAX / width);
        self.left = 0;
        for row in 0..batch.rows() {
            if closed.len() >= most {
                self.left = batch.rows() - row;
                break;
            }
            if let Err(reason) = self.add(batch, row, &places, &mut closed) {
                rejected.push((row, reason));
            }
        }
        if is_last && self.left == 0 {
            self.windows.end();
            self.close(&mut closed);
        }
        self.made = closed.len();
        Ok(Transformed {
            batch: self.records(batch, &closed)?,
            rejected,
        })
    }

    /// Where the columns stand, and what they are.
    fn look(&mut self, batch: &Batch) -> Places {
        let schema = batch.schema();
        let by: Vec<_> = self.by.iter().map(|name| schema.index_of(name)).collect();
        let of_function = |function: &Function| function.column().and_then(|name| schema.index_of(name));
        let values: Vec<_> = self.functions.iter().map(of_function).collect();
        if batch.rows() > 0 {
            if self.head.collection != schema.collection {
                let collection = &schema.collection;
                self.head.collection = collection[..collection.floor_char_boundary(COLLECTION_BYTES_MAX)].to_string();
            }
            self.head.types.resize(by.len() + values.len(), None);
            for (known, place) in self.head.types.iter_mut().zip(by.iter().chain(&values)) {
                if let Some(place) = place {
                    *known = Some(schema.fields[*place].ty.clone());
                }
            }
        }
        Places {
            time: schema.index_of(&self.time),
            by,
            values,
        }
    }

    fn add(&mut self, batch: &Batch, row: usize, places: &Places, closed: &mut Vec<Closed>) -> Result<(), String> {
        if !matches!(batch.op(row), Op::Insert | Op::Upsert) {
            return Err("a window counts readings: this is the change of a record, or its end".to_string());
        }
        let cell = |place: Option<usize>| place.map_or(bus_schema::data::Cell::Missing, |place| batch.cell(row, place));
        let (at, is_naive) = moment(cell(places.time), &self.time)?;
        let group: Vec<Value> = places
            .by
            .iter()
            .map(|place| {
                Some(cell(*place))
                    .filter(|cell| cell.is_value())
                    .map_or(Value::Null, |cell| cell.to_value())
            })
            .collect();
        let group = bus_schema::encode(&group);
        if group.len() > GROUP_BYTES_MAX {
            return Err(format!(
                "what tells its group from others takes more than {GROUP_BYTES_MAX} bytes"
            ));
        }
        let functions = self.functions.iter().zip(&places.values);
        let inputs = functions.map(|(function, place)| function.input(cell(*place)));
        let inputs: Vec<Option<Input>> = inputs.collect::<Result<_, _>>()?;
        // Not before all is known that is wrong with the record itself: time goes by records that are in order.
        self.windows.advance(at);
        self.close(closed);
        self.windows.add(at, &group, inputs, &self.functions)?;
        self.head.is_naive = is_naive;
        Ok(())
    }

    fn close(&mut self, closed: &mut Vec<Closed>) {
        while let Some(((end, start, group), slots)) = self.windows.close() {
            let values = slots
                .iter()
                .zip(&self.functions)
                .map(|(slot, function)| slot.result(function));
            closed.push(Closed {
                start,
                end,
                group,
                values: values.collect(),
            });
        }
    }

    /// The new records.
    fn records(&self, batch: &Batch, closed: &[Closed]) -> Result<Batch, Fault> {
        let time = |nanos: i64| match self.head.is_naive {
            true => Value::Timestamp(nanos.into()),
            false => Value::TimestampUtc(nanos.into()),
        };
        let zone = if self.head.is_naive { Zone::Naive } else { Zone::Utc };
        let mut fields = vec![
            Field::new(START, Type::Timestamp(zone)),
            Field::new(END, Type::Timestamp(zone)),
        ];
        let mut all: Vec<Vec<Value>> = vec![
            closed.iter().map(|window| time(window.start)).collect(),
            closed.iter().map(|window| time(window.end)).collect(),
        ];
        let groups: Vec<Vec<Value>> = closed
            .iter()
            .map(|window| bus_schema::decode(&window.group).unwrap_or_default())
            .collect();
        for (index, name) in self.by.iter().enumerate() {
            let values: Vec<Value> = groups
                .iter()
                .map(|group| group.get(index).cloned().unwrap_or(Value::Null))
                .collect();
            fields.push(Field::new(
                name,
                type_of(&values, self.head.types.get(index).cloned().flatten()),
            ));
            all.push(values);
        }
        for (index, (name, function)) in self.names.iter().zip(&self.functions).enumerate() {
            let values: Vec<Value> = closed.iter().map(|window| window.values[index].clone()).collect();
            let column = self.head.types.get(self.by.len() + index).and_then(Option::as_ref);
            fields.push(Field::new(name, type_of(&values, function.result_type(column))));
            all.push(values);
        }
        let columns = fields
            .iter()
            .zip(&all)
            .map(|(field, values)| column(values, field))
            .collect::<Result<_, _>>()?;
        let schema = Schema {
            collection: self.head.collection.clone(),
            fields,
        };
        let ops = bus_schema::data::Ops::All(Op::Insert);
        Batch::new(Arc::new(schema), columns, ops, batch.origin().clone())
            .map_err(|error| Fault::stop(error.to_string()))
    }
}

/// The type of a column of these values: the one they should have, if all of them do.
fn type_of(values: &[Value], wanted: Option<Type>) -> Type {
    let Some(wanted) = wanted else {
        return common_type(values);
    };
    let fits = |value: &Value| match (value.as_cell().type_of(), &wanted) {
        (None, _) | (_, Type::Any) => true,
        (Some(Type::Decimal { scale, .. }), Type::Decimal { scale: most, .. }) => scale <= *most,
        (Some(found), wanted) => found == *wanted,
    };
    if values.iter().all(fits) {
        wanted
    } else {
        common_type(values)
    }
}

#[cfg(test)]
mod tests;
