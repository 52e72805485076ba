//! InfluxDB's line protocol: writing one line. What it has no way to say is refused, never bent.
//! After InfluxData, "Line protocol reference" (InfluxDB OSS v2).

use std::fmt::Write as _;

use bus_schema::data::Cell;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::text::{float_units, shorten};

/// What a backslash stands before in tags and in the names of fields; in a measurement the equals sign is like any other.
pub(crate) const ESCAPED: &str = ",= ";

/// What the numbers count that are times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
pub(crate) enum Precision {
    /// Nanoseconds.
    #[default]
    #[serde(rename = "ns")]
    Nanos,
    /// Microseconds.
    #[serde(rename = "us")]
    Micros,
    /// Milliseconds.
    #[serde(rename = "ms")]
    Millis,
    /// Seconds.
    #[serde(rename = "s")]
    Seconds,
}

impl Precision {
    pub(crate) fn nanos(self) -> i128 {
        match self {
            Precision::Nanos => 1,
            Precision::Micros => 1_000,
            Precision::Millis => 1_000_000,
            Precision::Seconds => 1_000_000_000,
        }
    }
}

/// A line that is being written.
pub(crate) struct Line {
    text: String,
    fields: usize,
}

impl Line {
    /// A line of this measurement.
    pub(crate) fn of(measurement: &str) -> Result<Self, String> {
        let mut text = String::new();
        escape(&mut text, measurement, ", ")?;
        Ok(Self { text, fields: 0 })
    }

    /// Adds a tag; all of them come before the first field. One without a value, or of the empty text, is left out.
    pub(crate) fn tag(&mut self, name: &str, cell: Cell<'_>) -> Result<(), String> {
        let value = cell.to_string();
        if !cell.is_value() || value.is_empty() {
            return Ok(());
        }
        self.text.push(',');
        escape(&mut self.text, name, ESCAPED)?;
        self.text.push('=');
        escape(&mut self.text, &value, ESCAPED)
    }

    /// Adds a field. One without a value is left out.
    pub(crate) fn field(&mut self, name: &str, cell: Cell<'_>) -> Result<(), String> {
        if !cell.is_value() {
            return Ok(());
        }
        self.text.push(if self.fields == 0 { ' ' } else { ',' });
        self.fields += 1;
        escape(&mut self.text, name, ESCAPED)?;
        self.text.push('=');
        // Writing into a string cannot fail.
        let _ = match cell {
            Cell::Bool(v) => write!(self.text, "{v}"),
            Cell::I64(v) => write!(self.text, "{v}i"),
            Cell::U64(v) => write!(self.text, "{v}u"),
            Cell::F32(_) | Cell::F64(_) | Cell::Decimal(..) => match double(cell) {
                Some(v) if v.is_finite() => write!(self.text, "{v}"),
                _ => {
                    return Err(format!(
                        "'{name}' is {cell}, which a float of line protocol cannot say exactly"
                    ));
                }
            },
            cell => {
                let text = cell.to_string().replace('\\', "\\\\").replace('"', "\\\"");
                write!(self.text, "\"{text}\"")
            }
        };
        Ok(())
    }

    /// The line, with its time if it has one.
    pub(crate) fn finish(mut self, time: Cell<'_>, precision: Precision) -> Result<String, String> {
        if self.fields == 0 {
            return Err("no field has a value, and a line needs one".to_string());
        }
        let nanos = match time {
            Cell::TimestampUtc(nanos) | Cell::TimestampOffset(nanos, _) => nanos,
            time if !time.is_value() => return Ok(self.text),
            time => return Err(format!("'{time}' is no moment: cast it to timestamp_utc first")),
        };
        let ticks = i64::try_from(nanos.div_euclid(precision.nanos()));
        let ticks = ticks.map_err(|_| format!("{time} is a time that line protocol cannot say"))?;
        let _ = write!(self.text, " {ticks}");
        Ok(self.text)
    }
}

fn escape(out: &mut String, text: &str, special: &str) -> Result<(), String> {
    // A backslash at the end would take the mark that follows with it.
    if text.is_empty() || text.ends_with('\\') || text.contains(['\n', '\r']) {
        return Err(format!("line protocol has no way to write '{}'", shorten(text)));
    }
    for char in text.chars() {
        if special.contains(char) {
            out.push('\\');
        }
        out.push(char);
    }
    Ok(())
}

/// The float that is this number: of a decimal the one whose shortest form has its digits.
fn double(cell: Cell<'_>) -> Option<f64> {
    match cell {
        Cell::F32(v) => Some(f64::from(v)),
        Cell::F64(v) => Some(v),
        Cell::Decimal(units, scale) => {
            let near: f64 = cell.to_string().parse().ok()?;
            (float_units(near, &format!("{near:?}"), scale) == Some(units)).then_some(near)
        }
        _ => None,
    }
}
