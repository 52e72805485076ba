//! Transform `batch`: holds records back until there are so many, and lets them go together. What it holds is stored with the
//! position of the source, so that a crash neither loses nor doubles it.

use std::sync::Arc;

use bus_schema::{
    data::{Batch, BatchBuilder, Cell, Field, Origin, Schema, Type},
    plan::{ComponentRole, Descriptor},
};
use flow::{Build, BuildContext, Component, ConfigError, Fault, Transform, Transformed, describe, parse_config};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    cells::without,
    moment::{MILLI_NANOS, moment},
};

/// Bounds of `rows`: beyond, what is held would not fit into the state.
const ROWS: std::ops::RangeInclusive<usize> = 2..=65_536;
/// Most of `bytes`: a frame, with some room for what stands around the records in the state.
const BYTES_MAX: usize = 56 * 1024;
/// Least of `bytes`: with less nothing would be gathered.
const BYTES_MIN: usize = 1024;
/// Longest `within_ms`: a year.
const WITHIN_MS_MAX: u64 = 366 * 86_400_000;
/// What the state takes beside the records, in bytes.
const HEAD_BYTES: usize = 64;
/// What a column takes beside its name and values, in bytes.
const FIELD_BYTES: usize = 16;
/// The form of the state.
const FORM: u8 = 1;

/// Holds records back until there are `rows` of them, or `bytes`, or until one comes that is `within_ms` younger than the first
/// by the records' own times; then all of them go on together, in their order. What is left when the source comes to its end
/// goes on then. Nothing goes on because time passes: while no record comes, those that are held stay (stored, up to 64 KiB).
///
/// Records travel in batches whether or not this stands in their way: whatever has come by the time somebody takes them. Use it
/// where records come one by one and each would travel alone: on a metered line a frame costs a few hundred bytes besides its
/// records, and a service may charge by the request. A frame of a stream holds up to 64 KiB of records, and larger batches are
/// cut there; a destination cuts by its own limits, such as `records_max` of `http`. So this says how few records go together,
/// not how many: what comes in larger batches goes on as it comes, and what comes up to the last `rows` of it.
///
/// Records with other columns are held together with those before: a column that one of them does not have is missing there,
/// and one that has two types in a batch is of any type.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-remembers" = true))]
struct Config {
    /// Records that go together: 2 to 65,536.
    #[schemars(range(min = 2, max = 65_536))]
    rows: Option<usize>,
    /// Fewer when they take so many bytes: 1,024 to 57,344, which it is unless given.
    #[schemars(range(min = 1_024, max = 57_344))]
    bytes: Option<usize>,
    /// Fewer when one is this many milliseconds younger than the first of them, up to a year. Needs `time`.
    within_ms: Option<u64>,
    /// The column with the time of a record: a timestamp, or a text with one. A record without goes to the dead letters.
    time: Option<String>,
}

/// The registry line.
pub(crate) const BATCH: Component = Component {
    descriptor,
    build: Build::Transform(build),
};

const EXAMPLE: &str = r#"name = "thrifty"

[sources.readings]
type = "file"
path = "readings.jsonl"
format = "json_lines"

[transforms.gathered]
type = "batch"
from = "readings"
rows = 500
within_ms = 60_000
time = "time"

[destinations.out]
type = "stdout"
from = "gathered"
"#;

fn descriptor() -> Descriptor {
    let summary = "Holds records back until there are so many, and lets them go together";
    describe::<Config>(ComponentRole::Transform, "batch", summary, EXAMPLE)
}

fn build(config: &str, _: &BuildContext) -> Result<Box<dyn Transform>, ConfigError> {
    let Config {
        rows,
        bytes,
        within_ms,
        time,
    } = parse_config(config)?;
    if rows.is_none() && bytes.is_none() && within_ms.is_none() {
        return Err(ConfigError::at("rows", "say how many: set rows, bytes or within_ms"));
    }
    if rows.is_some_and(|rows| !ROWS.contains(&rows)) {
        let message = format!("must be from {} to {}", ROWS.start(), ROWS.end());
        return Err(ConfigError::at("rows", message));
    }
    if bytes.is_some_and(|bytes| !(BYTES_MIN..=BYTES_MAX).contains(&bytes)) {
        return Err(ConfigError::at(
            "bytes",
            format!("must be from {BYTES_MIN} to {BYTES_MAX}"),
        ));
    }
    if within_ms.is_some_and(|ms| !(1..=WITHIN_MS_MAX).contains(&ms)) {
        return Err(ConfigError::at("within_ms", "is from 1 ms to a year"));
    }
    if within_ms.is_some() != time.is_some() {
        return Err(ConfigError::at(
            "time",
            "it goes together with `within_ms`: give both or neither",
        ));
    }
    Ok(Box::new(Gather {
        rows: rows.unwrap_or(*ROWS.end()),
        bytes: bytes.unwrap_or(BYTES_MAX),
        // No more than a year: far from what it can hold.
        within: within_ms.zip(time).map(|(ms, time)| (ms as i64 * MILLI_NANOS, time)),
        room: BYTES_MAX,
        held: None,
        made: 0,
    }))
}

/// Records that wait for more.
struct Held {
    batch: Batch,
    /// The time of the first of them, in nanoseconds.
    since: Option<i64>,
}

/// [`Held`], as it is stored.
#[derive(Serialize, Deserialize)]
struct State {
    form: u8,
    since: Option<i64>,
    #[serde(with = "serde_bytes")]
    batch: Vec<u8>,
}

struct Gather {
    rows: usize,
    bytes: usize,
    within: Option<(i64, String)>,
    /// Most bytes that may be held.
    room: usize,
    held: Option<Held>,
    /// Records that were held before the last batch came, and went on with it.
    made: usize,
}

impl Transform for Gather {
    fn apply(&mut self, batch: Batch) -> Result<Transformed, Fault> {
        self.gather(batch, false)
    }

    fn made(&mut self) -> usize {
        self.made
    }

    fn finish(&mut self, batch: Batch) -> Result<Transformed, Fault> {
        self.gather(batch, true)
    }

    fn remembers(&self) -> bool {
        true
    }

    fn state(&self) -> Vec<u8> {
        let Some(held) = &self.held else { return Vec::new() };
        bus_schema::encode(&State {
            form: FORM,
            since: held.since,
            batch: held.batch.encode(),
        })
    }

    fn restore(&mut self, state: Option<&[u8]>, room_bytes: usize) -> Result<(), Fault> {
        self.room = room_bytes.saturating_sub(HEAD_BYTES);
        self.held = None;
        let Some(state) = state.filter(|state| !state.is_empty()) else {
            return Ok(());
        };
        let unknown = || {
            Fault::stop("the records it holds were stored in a form that this version does not know: update myceliald")
        };
        let State { form, since, batch } = bus_schema::decode(state).ok_or_else(unknown)?;
        if form != FORM {
            return Err(unknown());
        }
        let batch = Batch::decode(&batch).map_err(|_| unknown())?;
        self.held = Some(Held { batch, since });
        Ok(())
    }
}

impl Gather {
    fn gather(&mut self, batch: Batch, is_last: bool) -> Result<Transformed, Fault> {
        let (times, rejected) = self.times(&batch);
        let batch = without(batch, &rejected);
        let before = self.held.take();
        let held_rows = before.as_ref().map_or(0, |held| held.batch.rows());
        let (all, first) = match before {
            Some(held) => (joined(&held.batch, &batch)?, held.since),
            None => (batch, None),
        };
        // After which rows something is complete; the last of them counts.
        let go = if is_last {
            all.rows()
        } else {
            self.complete(&all, held_rows, first, &times)
        };
        self.made = held_rows.min(go);
        let rest = all.slice(go..all.rows());
        if rest.rows() > 0 {
            let since = match go.checked_sub(held_rows) {
                Some(new) => times.get(new).copied().flatten(),
                None => first,
            };
            self.held = Some(Held {
                batch: rest,
                since: since.or(first),
            });
        }
        let batch = all.slice(0..go);
        Ok(Transformed { batch, rejected })
    }

    /// The times of the rows that can go on, where they matter, and the rows that cannot.
    fn times(&self, batch: &Batch) -> (Vec<Option<i64>>, Vec<(usize, String)>) {
        let Some((_, name)) = &self.within else {
            return (vec![None; batch.rows()], Vec::new());
        };
        let column = batch.schema().index_of(name);
        let (mut times, mut rejected) = (Vec::with_capacity(batch.rows()), Vec::new());
        for row in 0..batch.rows() {
            let cell = column.map_or(Cell::Missing, |column| batch.cell(row, column));
            match moment(cell, name) {
                Ok((at, _)) => times.push(Some(at)),
                Err(reason) => rejected.push((row, reason)),
            }
        }
        (times, rejected)
    }

    /// How many rows go on. Looked at row by row, so that it does not matter how they were cut into batches.
    fn complete(&self, all: &Batch, held_rows: usize, first: Option<i64>, times: &[Option<i64>]) -> usize {
        let widths = widths(all);
        let names: usize = all
            .schema()
            .fields
            .iter()
            .map(|field| field.name.len() + FIELD_BYTES)
            .sum();
        let most = self.bytes.min(self.room.saturating_sub(names));
        let (mut begin, mut bytes, mut since) = (0, 0, first);
        for (row, width) in widths.into_iter().enumerate() {
            let at = row
                .checked_sub(held_rows)
                .and_then(|new| times.get(new).copied().flatten());
            let is_due = match (&self.within, since, at) {
                (Some((within, _)), Some(since), Some(at)) => at.saturating_sub(since) >= *within,
                _ => false,
            };
            // This one belongs to those that come.
            if row > begin && (is_due || bytes + width > most) {
                (begin, bytes, since) = (row, 0, None);
            }
            bytes += width;
            if row >= held_rows {
                since = since.or(at);
            }
            if row + 1 - begin >= self.rows {
                (begin, bytes, since) = (row + 1, 0, None);
            }
        }
        // What does not fit by itself is not held at all.
        if bytes > most { all.rows() } else { begin }
    }
}

/// About what each row takes.
fn widths(batch: &Batch) -> Vec<usize> {
    let columns = 0..batch.columns().len();
    let width = |row: usize| {
        columns
            .clone()
            .map(|column| batch.cell(row, column).size_hint() + 2)
            .sum()
    };
    (0..batch.rows()).map(width).collect()
}

/// The rows of both, one after the other, with the columns of both.
fn joined(first: &Batch, second: &Batch) -> Result<Batch, Fault> {
    let (one, other) = (first.schema(), second.schema());
    if second.rows() == 0 {
        return Ok(first.clone());
    }
    let mut fields = one.fields.clone();
    for field in &other.fields {
        match fields.iter_mut().find(|known| known.name == field.name) {
            Some(known) if known.ty == field.ty => known.nullable |= field.nullable,
            Some(known) => {
                *known = Field {
                    ty: Type::Any,
                    nullable: true,
                    ..known.clone()
                }
            }
            None => fields.push(field.clone()),
        }
    }
    let schema = Schema {
        collection: other.collection.clone(),
        fields,
    };
    let schema = Arc::new(schema);
    let mut rows = BatchBuilder::new(Arc::clone(&schema));
    for batch in [first, second] {
        let places: Vec<Option<usize>> = schema
            .fields
            .iter()
            .map(|field| batch.schema().index_of(&field.name))
            .collect();
        for row in 0..batch.rows() {
            let cell = |place: &Option<usize>| place.map_or(Cell::Missing, |column| batch.cell(row, column));
            let cells: Vec<Cell<'_>> = places.iter().map(cell).collect();
            rows.push(batch.op(row), &cells)
                .map_err(|error| Fault::stop(error.to_string()))?;
        }
    }
    // Where they came from last: the boot and the time of the newest.
    let origin: Origin = second.origin().clone();
    Ok(rows.finish(origin))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_config, shown, shown_schema, table, transform};

    const ROOM: usize = 64 * 1024;

    /// What comes out of batches, joined by `;`, and what is left at the end.
    fn out(config: &str, batches: &[Batch]) -> Vec<String> {
        let mut transform = transform(&BATCH, config);
        transform.restore(None, ROOM).unwrap();
        let (mut shown_rows, mut held) = (Vec::new(), 0);
        let mut take = |done: Transformed, made: usize, came: usize, held: &mut usize| {
            *held = *held + came - done.rejected.len() - done.batch.rows();
            assert!(made <= done.batch.rows(), "{made} of {}", done.batch.rows());
            shown_rows.push(shown(&done.batch).replace('\n', " "));
        };
        for batch in batches {
            let done = transform.apply(batch.clone()).unwrap();
            let made = transform.made();
            take(done, made, batch.rows(), &mut held);
            // Nothing of it depends on this life.
            let state = transform.state();
            transform.restore(Some(&state), ROOM).unwrap();
        }
        let rest = transform.finish(table(&[], &[])).unwrap();
        let made = transform.made();
        assert_eq!((rest.batch.rows(), made), (held, held));
        take(rest, made, 0, &mut held);
        assert_eq!(transform.state(), Vec::<u8>::new());
        shown_rows
    }

    #[test]
    fn records_wait_for_others() {
        let rows = |rows: &[&str]| table(&["n:i64"], rows);
        for (config, batches, expected) in [
            (
                r#"{"rows": 3}"#,
                vec![rows(&["1"]), rows(&["2"]), rows(&["3"]), rows(&["4"])],
                vec!["", "", "1 2 3", "", "4"],
            ),
            // Larger batches go on up to the last that is complete.
            (
                r#"{"rows": 2}"#,
                vec![rows(&["1", "2", "3", "4", "5"]), rows(&["6"])],
                vec!["1 2 3 4", "5 6", ""],
            ),
            (r#"{"rows": 2}"#, vec![rows(&[]), rows(&["1"])], vec!["", "", "1"]),
        ] {
            assert_eq!(out(config, &batches), expected, "{config}");
        }
    }

    #[test]
    fn bytes_and_times_end_a_batch() {
        let texts = |count: usize| {
            let text = "x".repeat(500);
            table(&["t:text"], &vec![text.as_str(); count])
        };
        let counted =
            |rows: Vec<String>| -> Vec<usize> { rows.iter().map(|row| row.split_whitespace().count()).collect() };
        assert_eq!(
            counted(out(r#"{"bytes": 1200}"#, &[texts(1), texts(1), texts(1), texts(4)])),
            [0, 0, 2, 4, 1]
        );
        let at = |times: &[&str]| table(&["time:timestamp_utc", "n:i64"], times);
        let config = r#"{"within_ms": 1000, "time": "time"}"#;
        let batches = [
            at(&["2024-01-01T00:00:00Z|1"]),
            at(&["2024-01-01T00:00:00.999Z|2", "~|9"]),
            // It is no part of what it ends.
            at(&["2024-01-01T00:00:01Z|3"]),
            at(&["2024-01-01T00:00:01.5Z|4", "2024-01-01T00:00:05Z|5"]),
        ];
        let numbers: Vec<String> = out(config, &batches)
            .iter()
            .map(|rows| rows.split(' ').filter_map(|row| row.split('|').nth(1)).collect())
            .collect();
        assert_eq!(numbers, ["", "", "12", "34", "5"]);
    }

    #[test]
    fn how_records_are_cut_does_not_matter() {
        let all: Vec<String> = (0..40).map(|n| format!("{n}")).collect();
        let config = r#"{"rows": 7}"#;
        let together = |cuts: &[usize]| {
            let mut rows = all.iter().map(String::as_str);
            let batches: Vec<Batch> = cuts
                .iter()
                .map(|cut| table(&["n:i64"], &rows.by_ref().take(*cut).collect::<Vec<_>>()))
                .collect();
            let mut out = out(config, &batches);
            out.retain(|rows| !rows.is_empty());
            out.join(" ")
        };
        assert_eq!(together(&[40]), together(&[1; 40]));
        assert_eq!(together(&[13, 1, 20, 6]), together(&[5; 8]));
    }

    #[test]
    fn other_columns_are_held_with_those_before() {
        let mut gather = transform(&BATCH, r#"{"rows": 3}"#);
        gather.restore(None, ROOM).unwrap();
        gather.apply(table(&["a:i64", "b:text"], &["1|x"])).unwrap();
        gather.apply(table(&["b:i64", "c:bool"], &["2|true"])).unwrap();
        let done = gather.apply(table(&["a:i64"], &["3"])).unwrap();
        assert_eq!(shown_schema(&done.batch), "a:i64 b:any c:bool");
        assert_eq!(shown(&done.batch), "1|x|?\n?|2|true\n3|?|?");
    }

    #[test]
    fn what_is_held_never_outgrows_its_room() {
        let mut gather = transform(&BATCH, r#"{"rows": 60000}"#);
        gather.restore(None, 8 * 1024).unwrap();
        let row = format!("1|{}", "x".repeat(300));
        for _ in 0..200 {
            gather.apply(table(&["n:i64", "t:text"], &[&row])).unwrap();
            assert!(gather.state().len() <= 8 * 1024, "{}", gather.state().len());
        }
        let fault = gather.restore(Some(b"\x09\x00\x00"), ROOM).unwrap_err();
        assert!(fault.to_string().contains("update myceliald"), "{fault}");
    }

    #[test]
    fn mistakes_are_named() {
        for (config, wanted) in [
            ("{}", "rows: say how many"),
            (r#"{"rows": 1}"#, "rows: must be from 2"),
            (r#"{"bytes": 100}"#, "bytes: must be from 1024"),
            (r#"{"within_ms": 5}"#, "time: it goes together"),
            (r#"{"rows": 5, "time": "t"}"#, "time: it goes together"),
            (r#"{"within_ms": 0, "time": "t"}"#, "within_ms: is from 1 ms"),
        ] {
            check_config(&BATCH, config, wanted);
        }
    }
}
