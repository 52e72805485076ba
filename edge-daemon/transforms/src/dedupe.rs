//! Transform `dedupe`: leaves out records that have come before. Which ones have is stored with the position of the source, so
//! that neither a crash nor a restart lets one through twice.

use std::collections::{BTreeMap, HashMap};

use bus_schema::{
    data::{Batch, Cell, Field, Op},
    plan::{ComponentRole, Descriptor},
};
use flow::{Build, BuildContext, Component, ConfigError, Fault, Transform, Transformed, describe, parse_config};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    cells::named_columns,
    moment::{MILLI_NANOS, moment},
    pace::{Pace, ahead_usual},
};

/// Most records that are remembered.
const COUNT_MAX: usize = 2_000;
/// What a remembered record takes in the state, in bytes: its print, and its time as it is written at most.
const ENTRY_BYTES: usize = 16 + 10;
/// What the state takes beside them, in bytes.
const HEAD_BYTES: usize = 64;
/// The form of the state, and the one before, which had the youngest time and no pace.
const FORM: u8 = 2;
const FORM_BEFORE: u8 = 1;

/// Leaves out a record that is equal to one before it in the columns of `by`; the first is let through. Remembers up to
/// 2,000 records that were let through (fewer when several such transforms stand in a row); with more, or when the settings
/// change, the oldest are forgotten, and what repeats them is let through: nothing is left out that has not come before. A
/// delete is let through, and its record is forgotten.
///
/// Of records with a key, such as the captured changes of a table, one repeats another without `by` only if it is in all
/// columns what the last one with its key was: a change is let through, and so is a change back. With `by`, also a change is
/// left out that is equal in these columns: name one there that differs from change to change, such as a version.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-remembers" = true))]
struct Config {
    /// Records that are equal in these columns are one. Without this: in all columns.
    by: Option<Vec<String>>,
    /// Only among the last so many that were let through, up to 2,000.
    count: Option<usize>,
    /// The column with the time of a record, for `within_ms`: a timestamp, or a text with one.
    time: Option<String>,
    /// Only when the one before is less than so much older or younger, by the records' own times. What is so much older than
    /// the youngest is forgotten.
    within_ms: Option<u64>,
    /// How far ahead of the youngest record before it a record may be, in milliseconds, and others be forgotten for it alone;
    /// three days unless given, and never less than `within_ms`. A record further ahead may have a wrong clock: nothing is too
    /// old then before five in a row are ahead, as after a gap, and time has come to the earliest of them, and those that are
    /// no further apart than that. 0: time goes by each record.
    #[serde(default = "ahead_usual")]
    ahead_max_ms: u64,
}

/// The registry line.
pub(crate) const DEDUPE: Component = Component {
    descriptor,
    build: Build::Transform(build),
};

const EXAMPLE: &str = r#"name = "once"

[sources.readings]
type = "file"
path = "readings.jsonl"
format = "json_lines"

[transforms.once]
type = "dedupe"
from = "readings"
by = ["line", "time"]
time = "time"
within_ms = 3_600_000

[destinations.out]
type = "stdout"
from = "once"
"#;

fn descriptor() -> Descriptor {
    let summary = "Leaves out records that have come before";
    describe::<Config>(ComponentRole::Transform, "dedupe", summary, EXAMPLE)
}

fn build(config: &str, _: &BuildContext) -> Result<Box<dyn Transform>, ConfigError> {
    let config: Config = parse_config(config)?;
    if let Some(names) = &config.by {
        named_columns("by", names)?;
    }
    if config.count.is_some_and(|count| !(1..=COUNT_MAX).contains(&count)) {
        return Err(ConfigError::at("count", format!("it is from 1 to {COUNT_MAX}")));
    }
    if config.time.is_some() != config.within_ms.is_some() {
        let message = "it goes together with `time`: give both or neither";
        return Err(ConfigError::at("within_ms", message));
    }
    if config.within_ms == Some(0) {
        return Err(ConfigError::at("within_ms", "it is 1 at least"));
    }
    let nanos = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(MILLI_NANOS);
    let least = config.within_ms.unwrap_or_default();
    let ahead_max = (config.ahead_max_ms > 0).then(|| nanos(config.ahead_max_ms.max(least)));
    let settings = serde_json::json!([config.by, config.time]).to_string();
    let digest: [u8; 32] = Sha256::digest(settings).into();
    Ok(Box::new(Dedupe {
        count: config.count.unwrap_or(COUNT_MAX),
        within: config.within_ms.map(nanos),
        ahead_max,
        config,
        settings: digest.first_chunk().copied().unwrap_or_default(),
        seen: Seen::default(),
        room: COUNT_MAX,
    }))
}

/// What a record is known by: halves of SHA-256, of what it is (its key) and of what it is like. A record without a key, and
/// any with `by`, is what it is like: both are of the same one.
type Print = [u8; 2 * HALF_BYTES];
/// Half of a print.
type Half = [u8; HALF_BYTES];
const HALF_BYTES: usize = 8;

/// What a record is, and what it is like.
fn halves(print: &Print) -> (Half, Half) {
    let (mut first, mut second) = (Half::default(), Half::default());
    first.copy_from_slice(&print[..HALF_BYTES]);
    second.copy_from_slice(&print[HALF_BYTES..]);
    (first, second)
}

/// A record that was let through.
#[derive(Clone, Copy)]
struct Known {
    order: u64,
    at: i64,
    like: Half,
}

struct Dedupe {
    config: Config,
    count: usize,
    /// Nanoseconds.
    within: Option<i64>,
    /// Nanoseconds; see [`Pace`].
    ahead_max: Option<i64>,
    settings: [u8; 8],
    seen: Seen,
    /// Records that there is room for.
    room: usize,
}

/// The records that were let through, and in which order.
#[derive(Default)]
struct Seen {
    /// The last one of each that is the same.
    known: HashMap<Half, Known>,
    by_order: BTreeMap<u64, Half>,
    next: u64,
    /// How far time has come.
    pace: Pace,
}

#[derive(Serialize, Deserialize)]
struct State {
    form: u8,
    settings: [u8; 8],
    pace: Pace,
    /// In the order in which they came, with their times.
    seen: Vec<(Print, i64)>,
}

/// [`State`] in the form before.
#[derive(Deserialize)]
struct StateBefore {
    form: u8,
    settings: [u8; 8],
    youngest: i64,
    seen: Vec<(Print, i64)>,
}

impl State {
    fn read(bytes: &[u8]) -> Option<Self> {
        let now = bus_schema::decode(bytes).filter(|state: &Self| state.form == FORM);
        let before = || {
            let state: StateBefore =
                bus_schema::decode(bytes).filter(|state: &StateBefore| state.form == FORM_BEFORE)?;
            Some(Self {
                form: FORM,
                settings: state.settings,
                pace: Pace::at(state.youngest),
                seen: state.seen,
            })
        };
        now.or_else(before)
    }
}

impl Seen {
    fn insert(&mut self, print: Print, at: i64) {
        let (half, like) = halves(&print);
        self.remove(&half);
        let order = self.next;
        self.known.insert(half, Known { order, at, like });
        self.by_order.insert(order, half);
        self.next += 1;
    }

    fn remove(&mut self, half: &Half) {
        if let Some(known) = self.known.remove(half) {
            self.by_order.remove(&known.order);
        }
    }

    /// The time of the last record that is the same, if it was alike.
    fn before(&self, print: &Print) -> Option<i64> {
        let (half, like) = halves(print);
        self.known
            .get(&half)
            .filter(|known| known.like == like)
            .map(|known| known.at)
    }

    fn in_order(&self) -> impl Iterator<Item = (Print, i64)> {
        self.by_order.values().filter_map(|half| {
            let known = self.known.get(half)?;
            let mut print = Print::default();
            print[..HALF_BYTES].copy_from_slice(half);
            print[HALF_BYTES..].copy_from_slice(&known.like);
            Some((print, known.at))
        })
    }

    /// Forgets the oldest, until so many are left and none of them is too old.
    fn forget(&mut self, most: usize, within: Option<i64>) {
        while let Some((_, half)) = self.by_order.first_key_value() {
            let half = *half;
            let at = self.known.get(&half).map_or(i64::MIN, |known| known.at);
            let is_old = within.is_some_and(|within| self.pace.youngest().saturating_sub(at) >= within);
            if self.by_order.len() <= most && !is_old {
                break;
            }
            self.remove(&half);
        }
    }
}

/// A column: its name, and where it stands if the batch has it.
type Place = (String, Option<usize>);

/// What tells the records of a batch apart.
struct Traits {
    /// The key; of records without one, and with `by`, the same as the others.
    key: Option<Vec<Place>>,
    all: Vec<Place>,
}

impl Transform for Dedupe {
    fn apply(&mut self, batch: Batch) -> Result<Transformed, Fault> {
        let traits = self.traits(&batch);
        let time = self
            .config
            .time
            .as_ref()
            .map(|name| (name.clone(), batch.schema().index_of(name)));
        let (mut kept, mut rejected) = (Vec::with_capacity(batch.rows()), Vec::new());
        for row in 0..batch.rows() {
            match self.is_new(&batch, row, &traits, time.as_ref()) {
                Ok(true) => kept.push(row),
                Ok(false) => {}
                Err(reason) => rejected.push((row, reason)),
            }
        }
        let batch = if kept.len() == batch.rows() {
            batch
        } else {
            batch.take(&kept)
        };
        Ok(Transformed { batch, rejected })
    }

    fn remembers(&self) -> bool {
        true
    }

    fn state(&self) -> Vec<u8> {
        bus_schema::encode(&State {
            form: FORM,
            settings: self.settings,
            pace: self.seen.pace,
            seen: self.seen.in_order().collect(),
        })
    }

    fn restore(&mut self, state: Option<&[u8]>, room_bytes: usize) -> Result<(), Fault> {
        self.room = room_bytes.saturating_sub(HEAD_BYTES) / ENTRY_BYTES;
        self.seen = Seen::default();
        let Some(state) = state else { return Ok(()) };
        match State::read(state) {
            Some(state) if state.settings == self.settings => {
                self.seen.pace = state.pace;
                state
                    .seen
                    .into_iter()
                    .for_each(|(print, at)| self.seen.insert(print, at));
            }
            _ => tracing::warn!("what has come before was remembered with other settings: it is forgotten"),
        }
        Ok(())
    }
}

impl Dedupe {
    fn traits(&self, batch: &Batch) -> Traits {
        let schema = batch.schema();
        if let Some(names) = &self.config.by {
            let all = names.iter().map(|name| (name.clone(), schema.index_of(name)));
            return Traits {
                key: None,
                all: all.collect(),
            };
        }
        let fields = schema.fields.iter().enumerate();
        let place = |(place, field): (usize, &Field)| (field.name.clone(), Some(place));
        let key: Vec<Place> = fields.clone().filter(|(_, field)| field.key).map(place).collect();
        let mut all: Vec<Place> = fields.map(place).collect();
        // Another batch may have the same columns in another order.
        all.sort_unstable();
        Traits {
            key: (!key.is_empty()).then_some(key),
            all,
        }
    }

    fn is_new(&mut self, batch: &Batch, row: usize, traits: &Traits, time: Option<&Place>) -> Result<bool, String> {
        let print = self.print(batch, row, traits)?;
        if batch.op(row) == Op::Delete {
            self.seen.remove(&halves(&print).0);
            return Ok(true);
        }
        let cell = |place: &Option<usize>| place.map_or(Cell::Missing, |place| batch.cell(row, place));
        let at = match time {
            Some((name, place)) => moment(cell(place), name)?.0,
            None => 0,
        };
        let before = self.seen.before(&print);
        let repeats = before.is_some_and(|before| {
            let apart = at.saturating_sub(before).saturating_abs();
            self.within.is_none_or(|within| apart < within)
        });
        self.seen.pace = self.seen.pace.after(at, self.ahead_max);
        if !repeats {
            // Of two that are far apart the younger is the one that is repeated, as far as anybody can tell.
            self.seen.insert(print, before.map_or(at, |before| before.max(at)));
        }
        self.seen.forget(self.count.min(self.room), self.within);
        Ok(!repeats)
    }

    fn print(&self, batch: &Batch, row: usize, traits: &Traits) -> Result<Print, String> {
        let all = self.digest(batch, row, &traits.all)?;
        let mut print: Print = all.first_chunk().copied().unwrap_or_default();
        if let Some(key) = &traits.key {
            let key = self.digest(batch, row, key)?;
            print.copy_within(..HALF_BYTES, HALF_BYTES);
            print[..HALF_BYTES].copy_from_slice(&key[..HALF_BYTES]);
        }
        Ok(print)
    }

    fn digest(&self, batch: &Batch, row: usize, columns: &[Place]) -> Result<[u8; 32], String> {
        let mut digest = Sha256::new();
        for (name, place) in columns {
            let cell = place.map_or(Cell::Missing, |place| batch.cell(row, place));
            if self.config.by.is_none() {
                // Another batch may not even have the column.
                if cell == Cell::Missing {
                    continue;
                }
            } else if matches!(cell, Cell::Missing | Cell::Unchanged) {
                return Err(format!("the record does not say what its field '{name}' is"));
            }
            // With names and lengths: columns come and go, and "a" and "bc" are not "ab" and "c". Null is not the empty text.
            let text = cell.to_string();
            for part in [name, &text] {
                digest.update((part.len() as u64).to_be_bytes());
                digest.update(part);
            }
            digest.update([u8::from(cell.is_value()) | u8::from(cell == Cell::Unchanged) << 1]);
        }
        Ok(digest.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use bus_schema::data::{BatchBuilder, Origin, Schema, Type};
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{check_config, shown, table, transform};

    fn dedupe(config: &str) -> Box<dyn Transform> {
        let mut dedupe = transform(&DEDUPE, config);
        dedupe.restore(None, flow::STATES_BYTES_MAX).unwrap();
        dedupe
    }

    #[test]
    fn repetitions_are_left_out() {
        for (config, rows, kept) in [
            (
                "{}",
                &[
                    "1970-01-01T00:00:00Z|a|1",
                    "1970-01-01T00:00:00Z|a|1",
                    "1970-01-01T00:00:00Z|~|1",
                ][..],
                "1970-01-01T00:00:00Z|a|1\n1970-01-01T00:00:00Z|~|1",
            ),
            (
                r#"{"by": ["k"], "count": 2}"#,
                &["~|a|1", "~|b|2", "~|a|3", "~|c|4", "~|b|5", "~|a|6"],
                "~|a|1\n~|b|2\n~|c|4\n~|a|6",
            ),
            (
                r#"{"by": ["k"], "time": "at", "within_ms": 10000}"#,
                &[
                    "1970-01-01T00:00:10Z|a|1",
                    "1970-01-01T00:00:19Z|a|2",
                    "1970-01-01T00:00:01Z|a|3",
                    "1970-01-01T00:00:20Z|a|4",
                    "1970-01-01T00:00:29Z|a|5",
                    "1970-01-01T00:00:29Z|b|6",
                ],
                "1970-01-01T00:00:10Z|a|1\n1970-01-01T00:00:20Z|a|4\n1970-01-01T00:00:29Z|b|6",
            ),
        ] {
            let done = dedupe(config)
                .apply(table(&["at:timestamp_utc", "k:text", "n:i64"], rows))
                .unwrap();
            assert_eq!(
                (shown(&done.batch).as_str(), done.rejected.as_slice()),
                (kept, &[][..]),
                "{config}"
            );
        }
    }

    #[test]
    fn a_wrong_clock_makes_nobody_forget() {
        let config = r#"{"by": ["k"], "time": "at", "within_ms": 3600000}"#;
        let rows: Vec<String> = (0..10).map(|n| format!("2024-01-01T00:0{n}:00Z|{n}")).collect();
        let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
        let columns = &["at:text", "k:text"];
        for wrong in [0, 4, 10] {
            let mut with_wrong = rows.clone();
            with_wrong.insert(wrong, "2099-01-01T00:00:00Z|wrong");
            let mut first = dedupe(config);
            assert_eq!(first.apply(table(columns, &with_wrong)).unwrap().batch.rows(), 11);
            let mut later = dedupe(config);
            later.restore(Some(&first.state()), flow::STATES_BYTES_MAX).unwrap();
            assert_eq!(later.apply(table(columns, &rows)).unwrap().batch.rows(), 0, "{wrong}");
        }
    }

    #[test]
    fn a_state_of_the_form_before_goes_on() {
        let config = r#"{"by": ["k"], "time": "at", "within_ms": 10000}"#;
        let input = table(&["at:text", "k:text"], &["2024-01-01T00:00:00Z|a"]);
        let mut first = dedupe(config);
        first.apply(input.clone()).unwrap();
        let state = State::read(&first.state()).unwrap();
        let before = bus_schema::encode(&(FORM_BEFORE, state.settings, state.seen[0].1, &state.seen));
        let mut later = dedupe(config);
        later.restore(Some(&before), flow::STATES_BYTES_MAX).unwrap();
        assert_eq!(later.apply(input).unwrap().batch.rows(), 0);
    }

    #[test]
    fn a_deleted_record_may_come_again() {
        let mut builder = BatchBuilder::new(table(&["k:i64"], &[]).schema().clone());
        for op in [Op::Insert, Op::Insert, Op::Delete, Op::Insert, Op::Insert] {
            builder.push(op, &[Cell::I64(1)]).unwrap();
        }
        let done = dedupe("{}").apply(builder.finish(Origin::default())).unwrap();
        let ops: Vec<Op> = (0..done.batch.rows()).map(|row| done.batch.op(row)).collect();
        assert_eq!(ops, [Op::Insert, Op::Delete, Op::Insert]);
    }

    #[test]
    fn changes_are_no_repetitions() {
        let schema = Schema {
            collection: "t".into(),
            fields: vec![Field::new("k", Type::I64).key(), Field::new("v", Type::I64)],
        };
        let mut builder = BatchBuilder::new(schema.into());
        let mut wanted = Vec::new();
        for (op, key, value, passes) in [
            (Op::Upsert, 1, Cell::I64(1), true),
            (Op::Upsert, 1, Cell::I64(1), false),
            (Op::Upsert, 1, Cell::I64(2), true),
            (Op::Upsert, 2, Cell::I64(2), true),
            // Back to what it was.
            (Op::Update, 1, Cell::I64(1), true),
            (Op::Update, 1, Cell::I64(1), false),
            (Op::Update, 1, Cell::Unchanged, true),
            // A delete has only the key.
            (Op::Delete, 2, Cell::Missing, true),
            (Op::Upsert, 2, Cell::I64(2), true),
        ] {
            builder.push(op, &[Cell::I64(key), value]).unwrap();
            if passes {
                wanted.push((op, key, value.to_value()));
            }
        }
        let input = builder.finish(Origin::default());
        for cut in 0..input.rows() {
            let (mut first, mut later) = (dedupe("{}"), dedupe("{}"));
            let mut found = Vec::new();
            let mut take = |batch: &Batch| {
                for row in 0..batch.rows() {
                    let Cell::I64(key) = batch.cell(row, 0) else {
                        panic!("no key")
                    };
                    found.push((batch.op(row), key, batch.cell(row, 1).to_value()));
                }
            };
            take(&first.apply(input.slice(0..cut)).unwrap().batch);
            later.restore(Some(&first.state()), flow::STATES_BYTES_MAX).unwrap();
            take(&later.apply(input.slice(cut..input.rows())).unwrap().batch);
            assert_eq!(found, wanted, "{cut}");
        }
    }

    #[test]
    fn other_columns_in_a_batch_do_not_matter() {
        let mut all = dedupe("{}");
        for (columns, row, rows) in [
            (&["a:i64", "b:i64"][..], "1|2", 1),
            (&["b:i64", "a:i64"], "2|1", 0),
            (&["a:i64", "b:i64", "c:text"], "1|2|?", 0),
            (&["a:i64", "b:i64", "c:text"], "1|2|~", 1),
            (&["a:i64", "b:i64", "c:text"], "1|2|=", 1),
        ] {
            let done = all.apply(table(columns, &[row])).unwrap();
            assert_eq!(done.batch.rows(), rows, "{columns:?} {row}");
        }
    }

    #[test]
    fn who_does_not_say_is_rejected() {
        let done = dedupe(r#"{"by": ["k"], "time": "at", "within_ms": 1}"#)
            .apply(table(&["at:text", "k:text"], &["now|a", "1970-01-01T00:00:00Z|?"]))
            .unwrap();
        let reasons: Vec<&str> = done.rejected.iter().map(|(_, reason)| reason.as_str()).collect();
        assert_eq!(
            reasons,
            [
                "column 'at' is no time: 'now'",
                "the record does not say what its field 'k' is"
            ]
        );
    }

    #[test]
    fn the_oldest_make_room() {
        let mut dedupe = dedupe(r#"{"time": "at", "within_ms": 3600000, "by": ["n"]}"#);
        let rows: Vec<String> = (0..3_000).map(|n| format!("{n}|2024-01-01T00:00:00Z")).collect();
        let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
        let input = table(&["n:i64", "at:text"], &rows);
        assert_eq!(dedupe.apply(input.clone()).unwrap().batch.rows(), 3_000);
        let state = dedupe.state();
        assert!(state.len() <= flow::STATES_BYTES_MAX, "{}", state.len());
        assert_eq!(
            dedupe.apply(input.slice(1_000..3_000)).unwrap().batch.rows(),
            0,
            "2,000 are remembered"
        );
        // With less room it goes on with what there is, and grows no more.
        dedupe.restore(Some(&state), HEAD_BYTES + 100 * ENTRY_BYTES).unwrap();
        assert_eq!(dedupe.apply(input.slice(2_999..3_000)).unwrap().batch.rows(), 0);
        assert_eq!(dedupe.apply(input.slice(0..1)).unwrap().batch.rows(), 1);
        assert!(dedupe.state().len() <= HEAD_BYTES + 100 * ENTRY_BYTES);
    }

    #[test]
    fn mistakes_are_named() {
        for (config, wanted) in [
            (r#"{"by": []}"#, "by: name at least one"),
            (r#"{"count": 0}"#, "count: it is from 1 to 2000"),
            (r#"{"time": "at"}"#, "within_ms: it goes together"),
            (r#"{"time": "at", "within_ms": 0}"#, "within_ms: it is 1 at least"),
        ] {
            check_config(&DEDUPE, config, wanted);
        }
    }

    proptest! {
        /// However the records are cut into batches, and wherever a new one goes on from the state of the last.
        #[test]
        fn batches_and_restarts_do_not_matter(
            records in prop::collection::vec((0..12u8, 0..30u8), 1..100),
            cuts in prop::collection::vec((1..10usize, any::<bool>()), 1..30),
            config in prop::sample::select(vec![
                r#"{"by": ["k"], "count": 5}"#,
                r#"{"by": ["k"], "time": "at", "within_ms": 7000}"#,
                r#"{"by": ["k"], "time": "at", "within_ms": 7000, "count": 3}"#,
            ]),
        ) {
            let row = |(key, second): &(u8, u8)| format!("{key}|1970-01-01T00:00:{second:02}Z");
            let rows: Vec<String> = records.iter().map(row).collect();
            let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
            let columns = &["k:i64", "at:timestamp_utc"];
            let expected = shown(&dedupe(config).apply(table(columns, &rows)).unwrap().batch);
            let mut part = dedupe(config);
            let (mut found, mut at) = (Vec::new(), 0);
            let mut cuts = cuts.into_iter().cycle();
            while at < rows.len() {
                let (size, restarts) = cuts.next().unwrap();
                let end = rows.len().min(at + size);
                let done = part.apply(table(columns, &rows[at..end])).unwrap();
                if done.batch.rows() > 0 {
                    found.push(shown(&done.batch));
                }
                if restarts {
                    let state = part.state();
                    part = dedupe(config);
                    part.restore(Some(&state), flow::STATES_BYTES_MAX).unwrap();
                }
                at = end;
            }
            prop_assert_eq!(found.join("\n"), expected);
        }
    }
}
