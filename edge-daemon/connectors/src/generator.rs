//! Source `generator`: records made up on the spot, for demonstrations, tests and benchmarks. A record depends only on its
//! number and the config, so after a crash the same records come again.

use std::{
    f64::consts::TAU,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use bus_schema::{
    data::{Batch, BatchBuilder, Field, Op, Origin, Schema, Type, Value, Zone},
    limits::{BATCH_BYTES_TARGET, COLUMNS_MAX, ROWS_MAX},
    plan::{ComponentRole, Descriptor},
};
use flow::{
    Build, BuildContext, Component, ConfigError, Fault, Position, READ_WAIT_MAX, Read, Source, SourceBatch, describe,
    parse_config,
};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::{task::yield_now, time::Instant};

use crate::{
    file::text::{shorten, timestamp},
    ordered::Ordered,
};

/// Most records per second that are kept apart in time, in records; above it leave `rate` out.
const RATE_MAX: f64 = 10_000_000.0;
/// Slowest rate, in records per second: one in about twelve days.
const RATE_MIN: f64 = 1e-6;
/// How much of a delay is caught up with.
const ARREARS_MAX: Duration = Duration::from_secs(1);
/// At high rates records come in groups this far apart.
const TICK: Duration = Duration::from_millis(20);
/// Longest text of a field, in bytes.
const TEXT_BYTES_MAX: usize = 16 * 1024;

/// Makes records up: for demonstrations, for trying a workflow out, and for benchmarks. Records are numbered from 0, and
/// each follows from its number: after a crash the generator goes on where it was, with the same records (but not with the
/// same `time`, unless that has a start).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Records per second. Without it, as many as the destination takes.
    rate: Option<f64>,
    /// How many records to make; then the source is at its end. Without it, it never ends.
    count: Option<u64>,
    /// The columns: name = what to fill it with.
    fields: Ordered<Template>,
}

/// What fills a column.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum Template {
    /// Counts: `start` + number × `step` (i64, and around at its ends).
    Counter {
        /// The first value.
        #[serde(default)]
        start: i64,
        /// What each record adds.
        #[serde(default = "one")]
        step: i64,
    },
    /// A sine wave (f64).
    Sine {
        /// Its lowest value.
        #[serde(default = "minus_one")]
        min: f64,
        /// Its highest value.
        #[serde(default = "plus_one")]
        max: f64,
        /// Records of one wave.
        #[serde(default = "sixty")]
        period: f64,
    },
    /// An even distribution (f64), as if by chance, but always the same for a record.
    Random {
        /// No value is below.
        #[serde(default)]
        min: f64,
        /// Every value is below.
        #[serde(default = "plus_one")]
        max: f64,
        /// Another seed gives other values.
        #[serde(default)]
        seed: u64,
    },
    /// Text; `{n}` stands for the record's number.
    Text {
        /// The text.
        text: String,
    },
    /// One of several texts, as if by chance.
    Choice {
        /// The texts.
        of: Vec<String>,
        /// Another seed gives another order.
        #[serde(default)]
        seed: u64,
    },
    /// Time (UTC): now, or from a start on in steps.
    Time {
        /// Time of the first record, such as `2024-01-31T10:00:00Z`. Without it, each record has the time it is made.
        start: Option<String>,
        /// Milliseconds from one record to the next.
        #[serde(default = "second")]
        step_ms: u32,
    },
}

fn one() -> i64 {
    1
}

fn minus_one() -> f64 {
    -1.0
}

fn plus_one() -> f64 {
    1.0
}

fn sixty() -> f64 {
    60.0
}

fn second() -> u32 {
    1_000
}

/// The registry line.
pub(crate) const SOURCE: Component = Component {
    descriptor,
    build: Build::Source(build),
};

const EXAMPLE: &str = r#"name = "demo"

[sources.sensor]
type = "generator"
rate = 10
count = 50

[sources.sensor.fields]
time = { kind = "time" }
number = { kind = "counter", start = 1 }
temperature = { kind = "sine", min = 15, max = 30, period = 600 }
noise = { kind = "random", min = -0.5, max = 0.5 }
line = { kind = "choice", of = ["north", "south"] }

[destinations.out]
type = "stdout"
from = "sensor"
"#;

fn descriptor() -> Descriptor {
    let summary = "Makes records up, for demonstrations and benchmarks";
    let mut descriptor = describe::<Config>(ComponentRole::Source, "generator", summary, EXAMPLE);
    descriptor.durable = true;
    descriptor
}

fn build(config: &str, _: &BuildContext) -> Result<Box<dyn Source>, ConfigError> {
    let Config { rate, count, fields } = parse_config(config)?;
    if let Some(rate) = rate
        && !(RATE_MIN..=RATE_MAX).contains(&rate)
    {
        let cause = format!("is {rate}, and may be {RATE_MIN} to {RATE_MAX}; leave it out for as many as go");
        return Err(ConfigError::at("rate", cause));
    }
    if fields.0.is_empty() || fields.0.len() > COLUMNS_MAX {
        return Err(ConfigError::at("fields", format!("name 1 to {COLUMNS_MAX} columns")));
    }
    let made = fields.0.into_iter().map(|(name, template)| {
        let maker = Maker::new(template).map_err(|cause| ConfigError::at(format!("fields.{name}"), cause))?;
        Ok((Field::new(name, maker.type_of()), maker))
    });
    let (fields, makers) = made.collect::<Result<Vec<_>, ConfigError>>()?.into_iter().unzip();
    Ok(Box::new(Generator {
        rate,
        count: count.unwrap_or(u64::MAX),
        schema: Arc::new(Schema {
            collection: "generator".to_string(),
            fields,
        }),
        makers,
        next: 0,
        clock: Clock::default(),
    }))
}

/// A template that has been checked.
#[derive(Debug)]
enum Maker {
    Counter { start: i64, step: i64 },
    Sine { middle: f64, swing: f64, period: f64 },
    Random { min: f64, span: f64, seed: u64 },
    Text(String),
    Choice { of: Vec<String>, seed: u64 },
    Now,
    Steps { start_ns: i128, step_ns: i128 },
}

impl Maker {
    fn new(template: Template) -> Result<Self, String> {
        let ordered = |min: f64, max: f64| {
            if min.is_finite() && max.is_finite() && min <= max && (max - min).is_finite() {
                Ok(())
            } else {
                Err(format!("min is {min} and max {max}: they are not a range"))
            }
        };
        let short = |text: &String| {
            if text.len() <= TEXT_BYTES_MAX {
                Ok(())
            } else {
                Err(format!("a text has at most {TEXT_BYTES_MAX} bytes"))
            }
        };
        Ok(match template {
            Template::Counter { start, step } => Maker::Counter { start, step },
            Template::Sine { min, max, period } => {
                ordered(min, max)?;
                if !(period.is_finite() && period > 0.0) {
                    return Err(format!("a period of {period} is no wave"));
                }
                Maker::Sine {
                    middle: f64::midpoint(min, max),
                    swing: (max - min) / 2.0,
                    period,
                }
            }
            Template::Random { min, max, seed } => {
                ordered(min, max)?;
                Maker::Random {
                    min,
                    span: max - min,
                    seed,
                }
            }
            Template::Text { text } => {
                short(&text)?;
                Maker::Text(text)
            }
            Template::Choice { of, .. } if of.is_empty() => return Err("there is nothing to choose from".to_string()),
            Template::Choice { of, seed } => {
                of.iter().try_for_each(short)?;
                Maker::Choice { of, seed }
            }
            Template::Time { start: None, .. } => Maker::Now,
            Template::Time {
                start: Some(start),
                step_ms,
            } => match timestamp(&start, Zone::Utc) {
                Some(Value::TimestampUtc(start_ns)) => Maker::Steps {
                    start_ns,
                    step_ns: i128::from(step_ms) * 1_000_000,
                },
                _ => return Err(format!("'{}' is not a time in UTC", shorten(&start))),
            },
        })
    }

    fn type_of(&self) -> Type {
        match self {
            Maker::Counter { .. } => Type::I64,
            Maker::Sine { .. } | Maker::Random { .. } => Type::F64,
            Maker::Text(_) | Maker::Choice { .. } => Type::Text,
            Maker::Now | Maker::Steps { .. } => Type::Timestamp(Zone::Utc),
        }
    }

    /// The value of record `number`, made at `now_ns`.
    fn make(&self, number: u64, now_ns: i128) -> Value {
        match self {
            Maker::Counter { start, step } => Value::I64(start.wrapping_add(step.wrapping_mul(number as i64))),
            Maker::Sine { middle, swing, period } => {
                // The remainder keeps the angle exact, however high the number.
                let phase = (number as f64 % period) / period;
                Value::F64(middle + swing * (phase * TAU).sin())
            }
            Maker::Random { min, span, seed } => {
                // 53 bits are what an f64 holds.
                let share = (scatter(number, *seed) >> 11) as f64 / (1_u64 << 53) as f64;
                Value::F64(min + span * share)
            }
            Maker::Text(text) => Value::Text(text.replace("{n}", &number.to_string())),
            Maker::Choice { of, seed } => {
                let place = scatter(number, *seed) % of.len() as u64;
                Value::Text(of[place as usize].clone())
            }
            Maker::Now => Value::TimestampUtc(now_ns),
            Maker::Steps { start_ns, step_ns } => Value::TimestampUtc(start_ns + step_ns * i128::from(number)),
        }
    }
}

/// A number without any pattern to it: SplitMix64 (Steele, Lea and Flood, 2014), whose n-th value needs no earlier ones.
fn scatter(number: u64, seed: u64) -> u64 {
    let mut z = seed.wrapping_add(number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Tells how many records are due.
#[derive(Debug, Default)]
struct Clock {
    /// When counting began, and how many records were made since.
    since: Option<(Instant, u64)>,
}

impl Clock {
    /// Records due at `now` at `rate` per second. What is more than [`ARREARS_MAX`] late is not made up for.
    fn due(&mut self, rate: f64, now: Instant) -> u64 {
        let (since, made) = *self.since.get_or_insert((now, 0));
        let due = (rate * (now - since).as_secs_f64()) as u64 + 1;
        let late = due.saturating_sub(made);
        let most = ((rate * ARREARS_MAX.as_secs_f64()) as u64).max(1);
        if late <= most {
            return late;
        }
        self.since = Some((now, 0));
        1
    }

    /// When the next record is due.
    fn next(&self, rate: f64) -> Option<Instant> {
        let (since, made) = self.since?;
        Some(since + Duration::from_secs_f64(made as f64 / rate))
    }

    fn made(&mut self, records: u64) {
        if let Some((_, made)) = &mut self.since {
            *made += records;
        }
    }
}

struct Generator {
    /// Records per second.
    rate: Option<f64>,
    count: u64,
    schema: Arc<Schema>,
    makers: Vec<Maker>,
    /// Number of the next record.
    next: u64,
    clock: Clock,
}

impl Generator {
    fn batch(&mut self, rows_max: u64) -> Result<Batch, Fault> {
        let now_ns = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos() as i128);
        let mut builder = BatchBuilder::new(Arc::clone(&self.schema));
        let mut row = Vec::with_capacity(self.makers.len());
        while (builder.rows() as u64) < rows_max && builder.rows() < ROWS_MAX && builder.bytes() < BATCH_BYTES_TARGET {
            row.clear();
            row.extend(self.makers.iter().map(|maker| maker.make(self.next, now_ns)));
            let cells: Vec<_> = row.iter().map(Value::as_cell).collect();
            builder
                .push(Op::Insert, &cells)
                .map_err(|error| Fault::stop(format!("the generator: {error}")))?;
            self.next += 1;
        }
        self.clock.made(builder.rows() as u64);
        Ok(builder.finish(Origin::default()))
    }
}

#[async_trait]
impl Source for Generator {
    async fn open(&mut self, after: Option<&Position>) -> Result<(), Fault> {
        self.next = match after.map(Position::as_bytes) {
            None => 0,
            Some(bytes) => bytes.try_into().map(u64::from_be_bytes).map_err(|_| {
                Fault::stop("the stored position is not one of a generator: was the workflow's source changed?")
            })?,
        };
        self.clock = Clock::default();
        Ok(())
    }

    async fn read(&mut self) -> Result<Read, Fault> {
        let left = self.count.saturating_sub(self.next);
        if left == 0 {
            return Ok(Read::End);
        }
        let due = match self.rate {
            None => left,
            Some(rate) => {
                let give_up = Instant::now() + READ_WAIT_MAX;
                // Slow ones come when they are due, fast ones in groups.
                let next = self.clock.next(rate).unwrap_or_else(Instant::now);
                let next = if rate * TICK.as_secs_f64() > 1.0 {
                    next + TICK
                } else {
                    next
                };
                tokio::time::sleep_until(next.min(give_up)).await;
                let due = self.clock.due(rate, Instant::now());
                if due == 0 {
                    return Ok(Read::Idle);
                }
                due
            }
        };
        // As fast as it goes is no reason to keep the others from running.
        yield_now().await;
        let batch = self.batch(due.min(left))?;
        Ok(Read::Batch(SourceBatch {
            batch,
            position: Position::new(self.next.to_be_bytes()),
            undecodable: Vec::new(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::testing::{Harvest, refused, source};

    const ALL: &str = r#"{"count": 1000, "fields": {
        "z": {"kind": "counter", "start": 5, "step": -2},
        "sine": {"kind": "sine", "min": 0, "max": 10, "period": 4},
        "random": {"kind": "random", "min": 2, "max": 3, "seed": 7},
        "text": {"kind": "text", "text": "r{n}"},
        "choice": {"kind": "choice", "of": ["a", "b", "c"]},
        "time": {"kind": "time", "start": "2024-01-31T10:00:00Z", "step_ms": 500}}}"#;

    async fn harvest(config: &str, after: Option<&Position>) -> Harvest {
        let mut generator = source(&SOURCE, config, std::path::Path::new("/"));
        generator.open(after).await.unwrap();
        Harvest::of(&mut *generator).await
    }

    #[tokio::test]
    async fn the_same_records_come_again() {
        let whole = harvest(ALL, None).await;
        assert!(whole.ended);
        assert_eq!(
            whole.schema(),
            "z:i64 sine:f64 random:f64 text:text choice:text time:timestamp_utc"
        );
        let rows = whole.rows();
        let rows: Vec<&str> = rows.lines().collect();
        assert_eq!(rows.len(), 1000);
        for (row, wanted) in [
            (0, ["5", "5.0", "r0", "2024-01-31T10:00:00Z"]),
            (1, ["3", "10.0", "r1", "2024-01-31T10:00:00.500Z"]),
            (999, ["-1993", "0.0", "r999", "2024-01-31T10:08:19.500Z"]),
        ] {
            let found: Vec<&str> = rows[row].split('|').collect();
            assert_eq!([found[0], found[1], found[3], found[5]], wanted, "{}", rows[row]);
        }
        for letter in ["a", "b", "c"] {
            let share = rows.iter().filter(|row| row.contains(&format!("|{letter}|"))).count();
            assert!((250..420).contains(&share), "{letter}: {share}");
        }
        let middle = Position::new(400_u64.to_be_bytes());
        assert_eq!(harvest(ALL, Some(&middle)).await.rows(), rows[400..].join("\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_kept_and_delays_are_not_all_caught_up_with() {
        for (rate, seconds, wanted) in [(2.0, 10, 20_u64), (1000.0, 3, 3000), (0.5, 20, 10)] {
            let config = format!(r#"{{"rate": {rate}, "fields": {{"n": {{"kind": "counter"}}}}}}"#);
            let mut generator = source(&SOURCE, &config, std::path::Path::new("/"));
            generator.open(None).await.unwrap();
            let end = Instant::now() + Duration::from_secs(seconds);
            let mut records = 0;
            while Instant::now() < end {
                if let Read::Batch(read) = generator.read().await.unwrap() {
                    records += read.batch.rows() as u64;
                }
            }
            // The last group may still be coming.
            let group = (rate * 0.05) as u64 + 1;
            assert!((wanted - group..=wanted + 1).contains(&records), "{rate}: {records}");
        }
        let (mut clock, start) = (Clock::default(), Instant::now());
        assert_eq!(clock.due(10.0, start), 1);
        clock.made(1);
        assert_eq!(clock.due(10.0, start + Duration::from_millis(500)), 5);
        clock.made(5);
        assert_eq!(clock.due(10.0, start + Duration::from_secs(3600)), 1);
    }

    #[tokio::test]
    async fn mistakes_are_named() {
        for (config, wanted) in [
            (r#"{"fields": {}}"#, "fields: name 1 to"),
            (r#"{"rate": 0, "fields": {"a": {"kind": "counter"}}}"#, "rate: is 0"),
            (r#"{"fields": {"a": {"kind": "count"}}}"#, "unknown variant `count`"),
            (
                r#"{"fields": {"a": {"kind": "sine", "period": 0}}}"#,
                "fields.a: a period of 0",
            ),
            (
                r#"{"fields": {"a": {"kind": "random", "min": 2}}}"#,
                "fields.a: min is 2 and max 1",
            ),
            (
                r#"{"fields": {"a": {"kind": "choice", "of": []}}}"#,
                "fields.a: there is nothing",
            ),
            (
                r#"{"fields": {"a": {"kind": "time", "start": "noon"}}}"#,
                "fields.a: 'noon' is not a time",
            ),
        ] {
            refused(&SOURCE, config, wanted);
        }
        let mut generator = source(&SOURCE, ALL, std::path::Path::new("/"));
        let foreign = Position::new(*b"{}");
        assert!(matches!(generator.open(Some(&foreign)).await, Err(Fault::Stop { .. })));
    }
}
