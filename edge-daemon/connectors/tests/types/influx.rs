//! InfluxDB as a place of the matrix: its own query language reads what the destination wrote. A point needs a time, which the
//! cases do not have: each record gets the same one, so that the later ones of a table are the same point.

use std::path::PathBuf;

use bus_schema::{
    data::{Batch, Cell, Column, Field, Type, Zone},
    id::StreamId,
};
use flow::{Delivery, Fault, Rejected, Sink, Watermark};
use serde::Deserialize;
use serde_json::{Value as Json, json, value::RawValue};
use testkit::Influxdb;

use crate::places::{Found, Place, Row, build, plain};

/// A database of a server.
pub struct InInfluxdb(Influxdb);

impl InInfluxdb {
    /// An empty one.
    pub fn start() -> Self {
        let server = Influxdb::start();
        server.query("", "CREATE DATABASE types");
        Self(server)
    }

    /// What it says to a question, if it says anything: the names of columns, and the last row.
    fn last(&self, question: &str) -> Option<(Vec<String>, Vec<Box<RawValue>>)> {
        let said = self.0.query("types", question);
        let said: Said = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{question}: {error}: {said}"));
        let series = said.results.into_iter().next()?.series.into_iter().next()?;
        let last = series.values.into_iter().next_back()?;
        Some((series.columns, last))
    }
}

#[derive(Deserialize)]
struct Said {
    results: Vec<Answer>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    series: Vec<Series>,
}

#[derive(Deserialize)]
struct Series {
    columns: Vec<String>,
    values: Vec<Vec<Box<RawValue>>>,
}

/// The digits of a number that may have an exponent.
fn without_exponent(number: &str) -> String {
    let Some((mantissa, exponent)) = number.split_once('e') else {
        return number.to_string();
    };
    let exponent: i32 = exponent.parse().unwrap();
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(mantissa) => ("-", mantissa),
        None => ("", mantissa),
    };
    let (before, after) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{before}{after}");
    let point = before.len() as i32 + exponent;
    let zeros = |count: i32| "0".repeat(count.max(0) as usize);
    match usize::try_from(point) {
        Ok(point @ 1..) if point < digits.len() => format!("{sign}{}.{}", &digits[..point], &digits[point..]),
        Ok(1..) => format!("{sign}{digits}{}", zeros(point - digits.len() as i32)),
        _ => format!("{sign}0.{}{digits}", zeros(-point)),
    }
}

#[test]
fn exponents_are_written_out() {
    for (number, wanted) in [
        ("1.5", "1.5"),
        ("-1e-9", "-0.000000001"),
        ("1.25e+2", "125"),
        ("1.25e1", "12.5"),
        ("2.5e3", "2500"),
        ("12e-1", "1.2"),
    ] {
        assert_eq!(without_exponent(number), wanted, "{number}");
    }
}

/// A name in its language, which has no way to write NUL: there it is any character.
fn quote(name: &str) -> String {
    if name.contains('\0') {
        return format!("/^{}$/", name.replace('\0', "."));
    }
    let name = name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{name}\"")
}

impl Place for InInfluxdb {
    fn name(&self) -> &'static str {
        "influxdb (1.x)"
    }

    fn component(&self) -> &'static str {
        "influxdb"
    }

    fn is_database(&self) -> bool {
        true
    }

    fn sink(&self, table: &str, more: Json) -> Result<Box<dyn Sink>, String> {
        let config = json!({"url": self.0.url(), "database": "types", "measurement": table});
        Ok(Box::new(Timed(build("influxdb", config, more, PathBuf::new())?)))
    }

    fn read(&self, table: &str, column: &str) -> Row {
        let Some((columns, values)) = self.last(&format!("SELECT * FROM {}", quote(table))) else {
            return Row::None;
        };
        let at = columns.iter().position(|name| name == column);
        let Some(raw) = at.map(|at| values[at].get()).filter(|raw| *raw != "null") else {
            return Row::Without;
        };
        let kinds = self.0.query("types", &format!("SHOW FIELD KEYS FROM {}", quote(table)));
        let kinds: Json = serde_json::from_str(&kinds).unwrap();
        let kinds = kinds["results"][0]["series"][0]["values"].as_array().unwrap();
        let kind = kinds.iter().find(|kind| kind[0] == column).unwrap()[1]
            .as_str()
            .unwrap();
        let text = match raw.starts_with('"') {
            true => serde_json::from_str(raw).unwrap(),
            false => raw.to_string(),
        };
        Row::With(Found::new(kind, Some(text)))
    }

    fn plain(&self, ty: &Type, found: &Found) -> Option<String> {
        let text = found.text.as_deref()?;
        Some(match ty {
            Type::Decimal { .. } => plain(ty, &without_exponent(text)),
            _ => plain(ty, text),
        })
    }
}

/// Gives each record a time.
struct Timed(Box<dyn Sink>);

fn timed(batch: &Batch) -> Batch {
    let ty = Type::Timestamp(Zone::Utc);
    let mut column = Column::new(&ty);
    for _ in 0..batch.rows() {
        column.push(Cell::TimestampUtc(1), &ty).unwrap();
    }
    let (mut schema, mut columns) = ((**batch.schema()).clone(), batch.columns().to_vec());
    schema.fields.push(Field::new("time", ty));
    columns.push(column);
    batch.clone().with_columns(schema.into(), columns).unwrap()
}

#[async_trait::async_trait]
impl Sink for Timed {
    async fn open(&mut self) -> Result<(), Fault> {
        self.0.open().await
    }

    async fn watermark(&mut self, stream: &StreamId) -> Result<Option<Watermark>, Fault> {
        self.0.watermark(stream).await
    }

    async fn write(&mut self, deliveries: &[Delivery]) -> Result<Vec<Rejected>, Fault> {
        let deliveries: Vec<Delivery> = deliveries
            .iter()
            .map(|delivery| Delivery {
                batch: timed(&delivery.batch),
                ..delivery.clone()
            })
            .collect();
        self.0.write(&deliveries).await
    }

    async fn commit(&mut self) -> Result<(), Fault> {
        self.0.commit().await
    }

    async fn close(&mut self) {
        self.0.close().await;
    }
}
