//! Transform `timestamp`: reads times as others write them, and writes them as others read them. Looks into the system's
//! table of time zones once, when it is made.

use std::fmt::Write as _;

use bus_schema::{
    data::{Batch, Cell, Field, Type, Value, Zone},
    plan::{ComponentRole, Descriptor},
};
use chrono::{
    DateTime, Datelike as _, FixedOffset, NaiveDateTime, NaiveTime, Timelike as _,
    format::{Fixed, Item, Parsed, StrftimeItems, parse},
};
use flow::{Build, BuildContext, Component, ConfigError, Fault, Transform, Transformed, describe, parse_config};
use schemars::JsonSchema;
use serde::Deserialize;
use tz::{TimeZone, datetime::FoundDateTimeKind};

use crate::{
    cells::{compute, named_columns, places, put, without},
    line::Precision,
    text::shorten,
};

/// Nanoseconds in a second.
const NANOS: i128 = 1_000_000_000;
/// What is wrong with a time that cannot be written.
const OUTSIDE: &str = "lies outside every calendar";
/// Digits of a number that are looked at.
const DIGITS_MAX: usize = 36;

/// Reads times as others write them, and writes them as others read them: by a pattern, as a number, in a time zone. ISO 8601
/// needs none of it: `cast` reads that.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The columns. One that a batch does not have is passed over.
    columns: Vec<String>,
    /// What their values become.
    #[serde(default, rename = "as")]
    to: To,
    /// How texts are written: `%d.%m.%Y %H:%M:%S%.f`, `%b %e %I:%M %p`, `%Y-%m-%dT%H:%M:%S%z`. Without a time of day it is
    /// midnight. The name of a zone (`%Z`) tells no offset, and is refused: name the zone in `zone`.
    pattern: Option<String>,
    /// What numbers count since 1970, in UTC. When reading, texts may hold the number.
    unit: Option<Precision>,
    /// Where clocks show that time: `Europe/Berlin`, if this host has a table of zones; else a rule such as
    /// `CET-1CEST,M3.5.0,M10.5.0/3`; without this UTC. A text that names its offset (`%z`) keeps to that. An hour that
    /// comes twice when clocks are put back is taken for the first; a time that clocks leave out is rejected.
    zone: Option<String>,
}

/// What the values become.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum To {
    /// A timestamp in UTC, from a text by `pattern`, a number by `unit`, or a timestamp without a zone.
    #[default]
    Timestamp,
    /// A text by `pattern`, from a timestamp.
    Text,
    /// A whole number of `unit` since 1970, from a timestamp; what is less is cut off.
    Number,
}

/// The registry line.
pub(crate) const TIMESTAMP: Component = Component {
    descriptor,
    build: Build::Transform(build),
};

const EXAMPLE: &str = r#"name = "times"

[sources.readings]
type = "file"
path = "readings.jsonl"
format = "json_lines"

[transforms.times]
type = "timestamp"
from = "readings"
columns = ["at"]
pattern = "%Y-%m-%dT%H:%M:%S%#z"

[transforms.local]
type = "timestamp"
from = "times"
columns = ["at"]
as = "text"
pattern = "%d.%m.%Y %H:%M"
zone = "CET-1CEST,M3.5.0,M10.5.0/3"

[destinations.out]
type = "stdout"
from = "local"
"#;

fn descriptor() -> Descriptor {
    let summary = "Reads and writes times by a pattern, as a number, in a time zone";
    describe::<Config>(ComponentRole::Transform, "timestamp", summary, EXAMPLE)
}

fn build(config: &str, _: &BuildContext) -> Result<Box<dyn Transform>, ConfigError> {
    let config: Config = parse_config(config)?;
    named_columns("columns", &config.columns)?;
    let unwanted = |key: &str, is_there: bool| match is_there {
        true => Err(ConfigError::at(key, "is not for what 'as' says")),
        false => Ok(()),
    };
    let pattern = config.pattern.as_deref().map(pattern).transpose()?;
    let zone = zone(config.zone.as_deref().unwrap_or("UTC0"))?;
    let how = match (config.to, pattern, config.unit) {
        (To::Timestamp, pattern, unit) => How::Read { pattern, unit, zone },
        (To::Text, Some(pattern), unit) => {
            unwanted("unit", unit.is_some())?;
            How::Write { pattern, zone }
        }
        (To::Number, pattern, Some(unit)) => {
            unwanted("pattern", pattern.is_some())?;
            unwanted("zone", config.zone.is_some())?;
            How::Count(unit)
        }
        (To::Text, None, _) => return Err(ConfigError::at("pattern", "say how the text is written")),
        (To::Number, _, None) => return Err(ConfigError::at("unit", "say what the number counts: s, ms, us or ns")),
    };
    if matches!(
        &how,
        How::Read {
            pattern: None,
            unit: None,
            ..
        }
    ) && config.zone.is_none()
    {
        let message =
            "say how the times are written: 'pattern' for texts, 'unit' for numbers, 'zone' for timestamps without one";
        return Err(ConfigError::at("pattern", message));
    }
    Ok(Box::new(Times {
        columns: config.columns,
        how,
    }))
}

fn pattern(text: &str) -> Result<Vec<Item<'static>>, ConfigError> {
    let items = StrftimeItems::new(text).parse_to_owned();
    let items = items.map_err(|_| ConfigError::at("pattern", format!("'{text}' holds a '%' that means nothing")))?;
    if items.is_empty() {
        return Err(ConfigError::at("pattern", "say how the text is written"));
    }
    if items.contains(&Item::Fixed(Fixed::TimezoneName)) {
        let message = "'%Z' is the name of a zone, which does not tell its offset: name the zone in 'zone', or use '%z' \
                       where the text has the offset";
        return Err(ConfigError::at("pattern", message));
    }
    Ok(items)
}

/// By its name in the host's table, or by a rule.
fn zone(text: &str) -> Result<TimeZone, ConfigError> {
    let is_plain = !text.starts_with(['/', ':']) && !text.contains("..");
    let found = is_plain.then(|| TimeZone::from_posix_tz(text).ok()).flatten();
    found.ok_or_else(|| {
        let message =
            format!("no zone '{text}' on this host: install tzdata, or write its rule (CET-1CEST,M3.5.0,M10.5.0/3)");
        ConfigError::at("zone", message)
    })
}

struct Times {
    columns: Vec<String>,
    how: How,
}

enum How {
    Read {
        pattern: Option<Vec<Item<'static>>>,
        unit: Option<Precision>,
        zone: TimeZone,
    },
    Write {
        pattern: Vec<Item<'static>>,
        zone: TimeZone,
    },
    Count(Precision),
}

impl Transform for Times {
    fn apply(&mut self, batch: Batch) -> Result<Transformed, Fault> {
        let schema = batch.schema().clone();
        let places = places(&batch, &self.columns);
        if places.is_empty() {
            return Ok(batch.into());
        }
        let (values, rejected) = compute(batch.rows(), places.len(), |row, index| {
            let place = places[index];
            let cell = batch.cell(row, place);
            if !cell.is_value() {
                return Ok(cell.to_value());
            }
            let done = self.how.of(cell);
            done.map_err(|cause| format!("column '{}' {cause}", schema.fields[place].name))
        });
        let batch = without(batch, &rejected);
        let new = places.iter().zip(values).map(|(place, values)| {
            let field = Field {
                ty: self.how.ty(),
                ..schema.fields[*place].clone()
            };
            (field, values)
        });
        let batch = put(&batch, new)?;
        Ok(Transformed { batch, rejected })
    }
}

impl How {
    fn ty(&self) -> Type {
        match self {
            How::Read { .. } => Type::Timestamp(Zone::Utc),
            How::Write { .. } => Type::Text,
            How::Count(_) => Type::I64,
        }
    }

    fn of(&self, cell: Cell<'_>) -> Result<Value, String> {
        match self {
            How::Read { pattern, unit, zone } => {
                let nanos = match (cell, pattern, unit) {
                    (Cell::TimestampUtc(nanos) | Cell::TimestampOffset(nanos, _), ..) => nanos,
                    (Cell::Timestamp(nanos), ..) => in_zone(naive(nanos)?, zone)?,
                    (Cell::Text(text), Some(pattern), _) => read(text, pattern, zone)?,
                    (Cell::Text(text), None, Some(unit)) => counted(text, *unit)?,
                    (Cell::F64(number), _, Some(unit)) => counted(&number.to_string(), *unit)?,
                    (Cell::I64(_) | Cell::U64(_) | Cell::F32(_) | Cell::Decimal(..), _, Some(unit)) => {
                        counted(&cell.to_string(), *unit)?
                    }
                    (Cell::Text(_), None, None) => return Err(wrong(cell, "a text, and there is no 'pattern'")),
                    (Cell::I64(_) | Cell::U64(_) | Cell::F64(_) | Cell::F32(_) | Cell::Decimal(..), _, None) => {
                        return Err(wrong(cell, "a number, and there is no 'unit'"));
                    }
                    _ => return Err(wrong(cell, "no time")),
                };
                Ok(Value::TimestampUtc(nanos))
            }
            How::Write { pattern, zone } => {
                let utc = naive(instant(cell)?)?;
                let offset = zone.find_local_time_type(utc.and_utc().timestamp());
                let offset = offset.ok().and_then(|local| FixedOffset::east_opt(local.ut_offset()));
                let offset = offset.ok_or("is a time for which the zone has no rule")?;
                if utc.checked_add_offset(offset).is_none() {
                    return Err(OUTSIDE.to_string());
                }
                let mut text = String::new();
                let shown = DateTime::<FixedOffset>::from_naive_utc_and_offset(utc, offset);
                write!(text, "{}", shown.format_with_items(pattern.iter()))
                    .map_err(|_| "cannot be written by this pattern".to_string())?;
                Ok(Value::Text(text))
            }
            How::Count(unit) => {
                let count = i64::try_from(instant(cell)?.div_euclid(unit.nanos()));
                let count = count.map_err(|_| "lies too far from 1970 for a number of this unit")?;
                Ok(Value::I64(count))
            }
        }
    }
}

fn wrong(cell: Cell<'_>, what: &str) -> String {
    format!("is '{}', {what}", shorten(&cell.to_string()))
}

/// Nanoseconds since 1970 of a timestamp that has a zone.
fn instant(cell: Cell<'_>) -> Result<i128, String> {
    match cell {
        Cell::TimestampUtc(nanos) | Cell::TimestampOffset(nanos, _) => Ok(nanos),
        Cell::Timestamp(_) => Err(wrong(
            cell,
            "a time without a zone: read it by 'timestamp' with its zone before",
        )),
        _ => Err(wrong(cell, "no timestamp")),
    }
}

/// As a calendar has it.
fn naive(nanos: i128) -> Result<NaiveDateTime, String> {
    let seconds = i64::try_from(nanos.div_euclid(NANOS)).ok();
    let of = |seconds| DateTime::from_timestamp(seconds, nanos.rem_euclid(NANOS) as u32);
    let found = seconds.and_then(of).map(|utc| utc.naive_utc());
    found.ok_or_else(|| OUTSIDE.to_string())
}

fn nanos_of(utc: NaiveDateTime) -> i128 {
    i128::from(utc.and_utc().timestamp()) * NANOS + i128::from(utc.nanosecond())
}

/// A text by its pattern.
fn read(text: &str, pattern: &[Item<'static>], zone: &TimeZone) -> Result<i128, String> {
    let mut parsed = Parsed::new();
    parse(&mut parsed, text, pattern.iter())
        .map_err(|error| format!("is '{}', which is not as the pattern says: {error}", shorten(text)))?;
    let local = parsed.to_naive_datetime_with_offset(0).or_else(|_| {
        let midnight = parsed.to_naive_time().unwrap_or(NaiveTime::MIN);
        parsed.to_naive_date().map(|date| date.and_time(midnight))
    });
    let local = local.map_err(|error| format!("is '{}', which is no time: {error}", shorten(text)))?;
    if parsed.timestamp().is_some() {
        return Ok(nanos_of(local));
    }
    match parsed.offset() {
        Some(east_s) => Ok(nanos_of(local) - i128::from(east_s) * NANOS),
        None => in_zone(local, zone),
    }
}

/// What clocks in a zone showed.
fn in_zone(local: NaiveDateTime, zone: &TimeZone) -> Result<i128, String> {
    let small = |number: u32| u8::try_from(number).unwrap_or(u8::MAX);
    let found = tz::DateTime::find(
        local.year(),
        small(local.month()),
        small(local.day()),
        small(local.hour()),
        small(local.minute()),
        small(local.second()),
        0,
        zone.as_ref(),
    );
    let found = found.map_err(|error| format!("is '{local}', which the zone has no rule for: {error}"))?;
    let first = found.into_inner().into_iter().find_map(|kind| match kind {
        FoundDateTimeKind::Normal(found) => Some(found.unix_time()),
        FoundDateTimeKind::Skipped { .. } => None,
    });
    let seconds = first.ok_or_else(|| format!("is '{local}', a time that clocks left out"))?;
    Ok(i128::from(seconds) * NANOS + i128::from(local.nanosecond()))
}

/// A number of units since 1970, exactly; below nanoseconds it is cut off.
fn counted(text: &str, unit: Precision) -> Result<i128, String> {
    let number = || {
        let (sign, digits) = match text.strip_prefix('-') {
            Some(digits) => (-1, digits),
            None => (1, text),
        };
        let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
        let are_digits = [whole, part]
            .iter()
            .all(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
        if !are_digits || whole.is_empty() || digits.len() > DIGITS_MAX {
            return None;
        }
        let mut nanos = whole.parse::<i128>().ok()?.checked_mul(unit.nanos())?;
        let mut place = unit.nanos();
        for digit in part.bytes() {
            place /= 10;
            nanos += i128::from(digit - b'0') * place;
        }
        Some(sign * nanos)
    };
    number().ok_or_else(|| format!("is '{}', which is no number of a time", shorten(text)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{check, check_config, shown_schema, table, transform};

    const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";

    #[test]
    fn texts_become_times() {
        for (text, pattern, zone, at) in [
            (
                "31.01.2026 14:05:09",
                "%d.%m.%Y %H:%M:%S",
                BERLIN,
                "2026-01-31T13:05:09Z",
            ),
            (
                "31.07.2026 14:05:09.25",
                "%d.%m.%Y %H:%M:%S%.f",
                BERLIN,
                "2026-07-31T12:05:09.250Z",
            ),
            ("1/2/26 3:04 PM", "%m/%d/%y %I:%M %p", "UTC0", "2026-01-02T15:04:00Z"),
            ("2026-02-03", "%Y-%m-%d", "UTC0", "2026-02-03T00:00:00Z"),
            ("2026-02-03", "%Y-%m-%d", BERLIN, "2026-02-02T23:00:00Z"),
            // Its own offset counts.
            (
                "2026-02-03 10:00 +0500",
                "%Y-%m-%d %H:%M %z",
                BERLIN,
                "2026-02-03T05:00:00Z",
            ),
            (
                "03/Feb/2026:10:00:01 +0000",
                "%d/%b/%Y:%H:%M:%S %z",
                "UTC0",
                "2026-02-03T10:00:01Z",
            ),
            ("1700000000", "%s", BERLIN, "2023-11-14T22:13:20Z"),
            ("01.01.1969 00:00", "%d.%m.%Y %H:%M", "UTC0", "1969-01-01T00:00:00Z"),
            // Comes twice; the first.
            ("25.10.2026 02:30", "%d.%m.%Y %H:%M", BERLIN, "2026-10-25T00:30:00Z"),
        ] {
            let config = format!(r#"{{"columns": ["at"], "pattern": "{pattern}", "zone": "{zone}"}}"#);
            check(&TIMESTAMP, &config, table(&["at:text"], &[text]), at, "");
        }
        for (text, reason) in [
            (
                "31.02.2026 00:00",
                "0: column 'at' is '31.02.2026 00:00', which is no time",
            ),
            (
                "31.01.26",
                "0: column 'at' is '31.01.26', which is not as the pattern says",
            ),
            (
                "29.03.2026 02:30",
                "0: column 'at' is '2026-03-29 02:30:00', a time that clocks left out",
            ),
            ("", "0: column 'at' is '', which is not as the pattern says"),
        ] {
            let config = format!(r#"{{"columns": ["at"], "pattern": "%d.%m.%Y %H:%M", "zone": "{BERLIN}"}}"#);
            check(&TIMESTAMP, &config, table(&["at:text"], &[text]), "", reason);
        }
    }

    #[test]
    fn numbers_become_times() {
        for (ty, number, unit, at) in [
            ("i64", "1700000000", "s", "2023-11-14T22:13:20Z"),
            ("i64", "-1", "ms", "1969-12-31T23:59:59.999Z"),
            ("u64", "1700000000123456789", "ns", "2023-11-14T22:13:20.123456789Z"),
            ("f64", "1700000000.5", "s", "2023-11-14T22:13:20.500Z"),
            ("f64", "1700000000000", "ms", "2023-11-14T22:13:20Z"),
            ("decimal(18,3)", "1700000000.125", "s", "2023-11-14T22:13:20.125Z"),
            ("text", "1700000000.000000001", "s", "2023-11-14T22:13:20.000000001Z"),
            ("any", "~", "s", "~"),
        ] {
            let config = format!(r#"{{"columns": ["at"], "unit": "{unit}"}}"#);
            let column = format!("at:{ty}");
            check(&TIMESTAMP, &config, table(&[&column], &[number]), at, "");
        }
        let config = r#"{"columns": ["at"], "unit": "s"}"#;
        for (ty, number) in [
            ("text", "1e9"),
            ("text", ""),
            ("text", "-"),
            ("f64", "inf"),
            ("text", "١٧"),
        ] {
            let column = format!("at:{ty}");
            let reason = "0: column 'at' is '";
            check(&TIMESTAMP, config, table(&[&column], &[number]), "", reason);
        }
    }

    #[test]
    fn times_are_written() {
        let times = table(
            &["n:i64", "at:timestamp_utc"],
            &["1|2026-07-31T12:05:09.25Z", "2|~", "3|2026-01-31T13:05:09Z"],
        );
        let config =
            format!(r#"{{"columns": ["at"], "as": "text", "pattern": "%d.%m.%Y %H:%M:%S %z", "zone": "{BERLIN}"}}"#);
        let kept = "1|31.07.2026 14:05:09 +0200\n2|~\n3|31.01.2026 14:05:09 +0100";
        check(&TIMESTAMP, &config, times.clone(), kept, "");
        let config = r#"{"columns": ["at"], "as": "number", "unit": "s"}"#;
        check(&TIMESTAMP, config, times.clone(), "1|1785499509\n2|~\n3|1769864709", "");
        let done = transform(&TIMESTAMP, config).apply(times).unwrap();
        assert_eq!(shown_schema(&done.batch), "n:i64 at:i64");
        let naive = table(&["at:timestamp"], &["2026-07-31T12:05:09"]);
        let reason = "0: column 'at' is '2026-07-31T12:05:09', a time without a zone";
        check(&TIMESTAMP, config, naive.clone(), "", reason);
        let config = format!(r#"{{"columns": ["at"], "zone": "{BERLIN}"}}"#);
        check(&TIMESTAMP, &config, naive, "2026-07-31T10:05:09Z", "");
    }

    /// The edges of what a calendar holds, written where clocks are ahead of UTC.
    #[test]
    fn what_no_calendar_holds_is_rejected() {
        let how = How::Write {
            pattern: pattern("%Y").unwrap(),
            zone: zone(BERLIN).unwrap(),
        };
        let last = nanos_of(NaiveDateTime::MAX) / NANOS * NANOS;
        for nanos in [last, last + NANOS, i128::MAX, i128::MIN] {
            let written = how.of(Cell::TimestampUtc(nanos));
            assert_eq!(written, Err(OUTSIDE.to_string()), "{nanos}");
        }
        let written = how.of(Cell::TimestampUtc(last - 86_400 * NANOS)).unwrap();
        assert_eq!(written, Value::Text("+262142".into()));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(seconds in -60_000_000_000_i64..250_000_000_000, part in 0..1_000_000_000_i64, unit in 0..4_usize) {
            let units = [Precision::Nanos, Precision::Micros, Precision::Millis, Precision::Seconds];
            let nanos = i128::from(seconds) * NANOS + i128::from(part);
            let (items, place) = (super::pattern("%Y-%m-%d %H:%M:%S%.9f %z").unwrap(), super::zone(BERLIN).unwrap());
            let text = How::Write { pattern: items.clone(), zone: place }.of(Cell::TimestampUtc(nanos)).unwrap();
            let Value::Text(text) = text else { panic!("no text") };
            prop_assert_eq!(read(&text, &items, &super::zone("UTC0").unwrap()), Ok(nanos), "{}", text);
            let unit = units[unit];
            if let Ok(Value::I64(number)) = How::Count(unit).of(Cell::TimestampUtc(nanos)) {
                let counted = counted(&number.to_string(), unit).unwrap();
                prop_assert_eq!(counted, nanos.div_euclid(unit.nanos()) * unit.nanos());
            }
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (config, wanted) in [
            (r#"{"columns": []}"#, "columns: name at least one"),
            (r#"{"columns": ["a"]}"#, "pattern: say how the times are written"),
            (
                r#"{"columns": ["a"], "pattern": "%Q"}"#,
                "pattern: '%Q' holds a '%' that means nothing",
            ),
            (
                r#"{"columns": ["a"], "pattern": "%F %T %Z"}"#,
                "pattern: '%Z' is the name of a zone, which does not tell its offset: name the zone in 'zone'",
            ),
            (
                r#"{"columns": ["a"], "as": "text", "pattern": "%F %T %Z"}"#,
                "pattern: '%Z' is the name",
            ),
            (r#"{"columns": ["a"], "as": "text"}"#, "pattern: say how"),
            (r#"{"columns": ["a"], "as": "number"}"#, "unit: say what"),
            (
                r#"{"columns": ["a"], "as": "number", "unit": "s", "pattern": "%s"}"#,
                "pattern: is not for",
            ),
            (
                r#"{"columns": ["a"], "pattern": "%F", "zone": "Atlantis"}"#,
                "zone: no zone 'Atlantis' on this host",
            ),
            (
                r#"{"columns": ["a"], "pattern": "%F", "zone": "/etc/passwd"}"#,
                "zone: no zone '/etc/passwd'",
            ),
            (
                r#"{"columns": ["a"], "pattern": "%F", "zone": "../../etc/passwd"}"#,
                "zone: no zone",
            ),
        ] {
            check_config(&TIMESTAMP, config, wanted);
        }
    }
}
