//! Source `modbus`: reads registers and bits of devices, over TCP or a serial line, again and again. A device keeps no past:
//! what was not read is not read later.

mod frame;
mod line;
mod plan;
mod point;
mod poll;
#[cfg(test)]
mod tests;

use std::{collections::HashSet, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use bus_schema::{
    data::{Batch, BatchBuilder, Cell, Field, Op, Origin, Schema, Type, Zone},
    limits::COLUMNS_MAX,
    plan::{ComponentRole, Descriptor},
};
use flow::{
    Build, BuildContext, Component, ConfigError, Fault, Position, READ_WAIT_MAX, Read, Source, SourceBatch, Trouble,
    TroubleKind, describe, parse_config,
};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, timeout},
};

use self::{
    line::{Framing, Line, Manner, Place, SerialConfig},
    point::{Point, PointConfig},
    poll::{Round, Unit, status},
};
use crate::{clock::now_ns, mqtt::Task, reach, tls::TlsFiles};

/// Where devices listen.
const PORT: u16 = 502;
/// Where they do with TLS.
const TLS_PORT: u16 = 802;
/// Time between two looks, in milliseconds.
const INTERVALS_MS: std::ops::RangeInclusive<u64> = 10..=86_400_000;
/// Time to wait for an answer, in milliseconds.
const TIMEOUTS_MS: std::ops::RangeInclusive<u64> = 10..=60_000;
/// Longest pause between an answer and the next question, in milliseconds.
const PAUSE_MS_MAX: u64 = 10_000;
/// Most further attempts.
const RETRIES_MAX: u32 = 10;
/// Most values read between two points that nobody wants.
const GAP_MAX: u16 = 2000;
/// Columns besides the points'.
const OWN_COLUMNS: [&str; 3] = ["time", "unit", "status"];
/// Columns that a row of a single point has.
const LONG_COLUMNS: [&str; 2] = ["name", "value"];
/// Most values of one look: points times units.
const READINGS_MAX: usize = 16_384;
/// Looks that wait for somebody to take them. While they do, nobody looks.
const ROUNDS_WAITING: usize = 1;
/// How long opening waits for the first answers, so that a device that is not there is noticed as such.
const FIRST_WAIT: Duration = Duration::from_secs(10);

/// Reads points of Modbus devices at an interval: over TCP (`host`), protected by `tls` if the device knows that, or on a
/// `serial` line, with one or several units.
///
/// Each look gives a row for each unit with the columns `time` (UTC, when the unit was asked), `unit`, one for each point, and
/// `status`; with `rows = "long"` a row for each point, with `time`, `unit`, `name`, `value` and `status`. Integers are i64,
/// `u64` is u64, floats stay what they are; a number with `factor` or `offset` is f64, rounded as one would by hand. A point that
/// the device refuses is null, `status` names it with the cause, and the others are read all the same; so it is with a unit
/// that does not answer, while another does. `status` is null when all is well.
///
/// Points that stand side by side are read in one question, up to 125 registers or 2000 bits; `max_gap` lets them stand apart. A
/// value is never put together from two answers. A question that is refused is divided until the point at fault is found.
///
/// A device has no past: looks that could not be made, because the line was down or the buffer full, are not made up for. After
/// a crash of the daemon, a look that was not stored yet is lost.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Name or address of the device, or of the gateway to it.
    host: Option<String>,
    /// Its port. Default: 502, or 802 with TLS.
    port: Option<u16>,
    /// Protects the connection (Modbus/TCP Security).
    tls: Option<TlsFiles>,
    /// `rtu` for a converter that passes on the bytes of a serial line as they are. Default: `tcp`.
    framing: Option<Framing>,
    /// The serial line that the devices are on, instead of `host`. Only one source can use it.
    serial: Option<SerialConfig>,
    /// The units (slave ids) that have the points.
    #[serde(default = "default_units")]
    units: Vec<u8>,
    /// What to read of each unit.
    points: Vec<PointConfig>,
    /// Time between two looks, in milliseconds, from the first one on; one that is late is left out.
    #[serde(default = "default_interval_ms")]
    #[schemars(range(min = 10, max = 86_400_000))]
    interval_ms: u64,
    /// How long to wait for an answer, in milliseconds; on a serial line the time on the way is added. Longer than the slowest
    /// device takes: RTU answers do not say what they answer, so after a late one nothing else is asked of the unit for as long.
    #[serde(default = "default_timeout_ms")]
    #[schemars(range(min = 10, max = 60_000))]
    timeout_ms: u64,
    /// How often to ask again where nothing came, or nothing sensible. A unit that is away is asked once each time.
    #[serde(default = "default_retries")]
    #[schemars(range(max = 10))]
    retries: u32,
    /// Pause between an answer and the next question, in milliseconds, for devices that need it.
    #[serde(default)]
    #[schemars(range(max = 10_000))]
    pause_ms: u64,
    /// Most values between two points that may be read for nothing to save a question.
    #[serde(default)]
    #[schemars(range(max = 2000))]
    max_gap: u16,
    /// A row for each unit or for each point.
    #[serde(default)]
    rows: RowKind,
}

fn default_units() -> Vec<u8> {
    vec![1]
}

fn default_interval_ms() -> u64 {
    1000
}

fn default_timeout_ms() -> u64 {
    1000
}

fn default_retries() -> u32 {
    2
}

/// What a row is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum RowKind {
    /// A unit, with a column for each point. A point that the unit does not have is missing.
    #[default]
    Wide,
    /// A point. `value` has the points' type if it is the same for all, else each row its own.
    Long,
}

/// The registry line.
pub(crate) const SOURCE: Component = Component {
    descriptor,
    build: Build::Source(build),
};

const EXAMPLE: &str = r#"name = "meters"

[sources.meter]
type = "modbus"
host = "192.168.1.20"
units = [1, 2]
interval_ms = 5000
points = [
    { name = "voltage", table = "input", address = 0, type = "f32" },
    { name = "energy", table = "input", address = 342, type = "f32", order = "CDAB" },
    { name = "temperature", table = "holding", address = 10, type = "i16", factor = 0.1 },
    { name = "alarm", table = "holding", address = 11, type = "bool", bit = 3 },
    { name = "relay", table = "coil", address = 0 },
]

[destinations.out]
type = "stdout"
from = "meter"
"#;

fn descriptor() -> Descriptor {
    let summary = "Reads registers and bits of Modbus devices, over TCP or a serial line";
    describe::<Config>(ComponentRole::Source, "modbus", summary, EXAMPLE)
}

fn build(config: &str, context: &BuildContext) -> Result<Box<dyn Source>, ConfigError> {
    let config: Config = parse_config(config)?;
    let within = |key: &str, value: u64, least: u64, most: u64| {
        let message = format!("must be from {least} to {most}");
        (least..=most)
            .contains(&value)
            .then_some(())
            .ok_or_else(|| ConfigError::at(key, message))
    };
    within(
        "interval_ms",
        config.interval_ms,
        *INTERVALS_MS.start(),
        *INTERVALS_MS.end(),
    )?;
    within(
        "timeout_ms",
        config.timeout_ms,
        *TIMEOUTS_MS.start(),
        *TIMEOUTS_MS.end(),
    )?;
    within("retries", config.retries.into(), 0, RETRIES_MAX.into())?;
    within("pause_ms", config.pause_ms, 0, PAUSE_MS_MAX)?;
    within("max_gap", config.max_gap.into(), 0, GAP_MAX.into())?;
    let place = place(&config, &context.base_dir)?;
    check_units(&config)?;
    let points = points(&config)?;
    let schema = match config.rows {
        RowKind::Wide => wide_schema(&points),
        RowKind::Long => long_schema(&points),
    };
    Ok(Box::new(Modbus {
        plan: Plan {
            place,
            manner: Manner {
                timeout: Duration::from_millis(config.timeout_ms),
                attempts: config.retries + 1,
                pause: Duration::from_millis(config.pause_ms),
            },
            interval: Duration::from_millis(config.interval_ms),
            units: config
                .units
                .iter()
                .map(|id| Unit::new(*id, &points, config.max_gap))
                .collect(),
            points,
            rows: config.rows,
            schema: Arc::new(schema),
        },
        watch: None,
    }))
}

fn place(config: &Config, base_dir: &Path) -> Result<Place, ConfigError> {
    match (&config.host, &config.serial) {
        (Some(_), Some(_)) | (None, None) => Err(ConfigError::at(
            "host",
            "say where the devices are: either host, or serial",
        )),
        (None, Some(serial)) => {
            serial.check()?;
            let others = [
                ("port", config.port.is_some()),
                ("tls", config.tls.is_some()),
                ("framing", config.framing.is_some()),
            ];
            match others.iter().find(|(_, given)| *given) {
                Some((key, _)) => Err(ConfigError::at(*key, "is for connections, not for a serial line")),
                None => Ok(Place::Serial(serial.clone())),
            }
        }
        (Some(host), None) => {
            if host.is_empty() {
                return Err(ConfigError::at("host", "is missing"));
            }
            if let Some(tls) = &config.tls {
                tls.check()?;
            }
            Ok(Place::Tcp {
                host: host.clone(),
                port: config
                    .port
                    .unwrap_or(if config.tls.is_some() { TLS_PORT } else { PORT }),
                framing: config.framing.unwrap_or(Framing::Tcp),
                tls: config.tls.clone(),
                base_dir: base_dir.to_path_buf(),
            })
        }
    }
}

fn check_units(config: &Config) -> Result<(), ConfigError> {
    let is_rtu = config.serial.is_some() || config.framing == Some(Framing::Rtu);
    let mut seen = HashSet::new();
    for (index, unit) in config.units.iter().enumerate() {
        let key = format!("units[{index}]");
        if is_rtu && !(1..=247).contains(unit) {
            return Err(ConfigError::at(key, "units on a serial line are 1 to 247"));
        }
        if !seen.insert(unit) {
            return Err(ConfigError::at(key, format!("{unit} stands there twice")));
        }
    }
    if config.units.is_empty() {
        return Err(ConfigError::at("units", "name at least one"));
    }
    Ok(())
}

fn points(config: &Config) -> Result<Vec<Point>, ConfigError> {
    let most = COLUMNS_MAX - OWN_COLUMNS.len();
    if config.points.is_empty() || config.points.len() > most {
        return Err(ConfigError::at("points", format!("1 to {most} points")));
    }
    if config.points.len() * config.units.len() > READINGS_MAX {
        let message = format!("points times units: at most {READINGS_MAX}");
        return Err(ConfigError::at("points", message));
    }
    let mut names: HashSet<&str> = OWN_COLUMNS.into();
    let mut points = Vec::with_capacity(config.points.len());
    for (index, point) in config.points.iter().enumerate() {
        let point = Point::new(point.clone(), &format!("points[{index}]"), &config.units)?;
        let strange = point.units.iter().find(|unit| !config.units.contains(unit));
        if let Some(unit) = strange {
            let message = format!("{unit} is not one of the source's units");
            return Err(ConfigError::at(format!("points[{index}].units"), message));
        }
        points.push(point);
    }
    for (index, point) in points.iter().enumerate() {
        if !names.insert(&point.name) {
            let message = format!("'{}' is the name of another column", point.name);
            return Err(ConfigError::at(format!("points[{index}].name"), message));
        }
    }
    let idle = config
        .units
        .iter()
        .find(|unit| !points.iter().any(|point| point.units.contains(unit)));
    match idle {
        Some(unit) => Err(ConfigError::at("units", format!("unit {unit} has no points"))),
        None => Ok(points),
    }
}

fn own_fields() -> [Field; 3] {
    let field = |name: &str, ty, nullable| Field {
        nullable,
        ..Field::new(name, ty)
    };
    let [time, unit, status] = OWN_COLUMNS;
    [
        field(time, Type::Timestamp(Zone::Utc), false),
        field(unit, Type::I64, false),
        field(status, Type::Text, true),
    ]
}

fn wide_schema(points: &[Point]) -> Schema {
    let [time, unit, status] = own_fields();
    let mut fields = vec![time, unit];
    fields.extend(points.iter().map(|point| Field::new(&point.name, point.ty())));
    fields.push(status);
    Schema {
        collection: "modbus".to_string(),
        fields,
    }
}

fn long_schema(points: &[Point]) -> Schema {
    let [time, unit, status] = own_fields();
    let mut types = points.iter().map(Point::ty);
    let first = types.next().unwrap_or(Type::Any);
    let ty = if types.all(|ty| ty == first) { first } else { Type::Any };
    let [name, value] = LONG_COLUMNS;
    let name = Field {
        nullable: false,
        ..Field::new(name, Type::Text)
    };
    Schema {
        collection: "modbus".to_string(),
        fields: vec![time, unit, name, Field::new(value, ty), status],
    }
}

/// What to read, and how.
#[derive(Clone)]
struct Plan {
    place: Place,
    manner: Manner,
    interval: Duration,
    units: Vec<Unit>,
    points: Vec<Point>,
    rows: RowKind,
    schema: Arc<Schema>,
}

impl Plan {
    /// One look at all units.
    async fn look(&mut self, line: &mut Line) -> Result<Batch, Fault> {
        let mut builder = BatchBuilder::new(Arc::clone(&self.schema));
        let mut was_heard = false;
        for unit in &mut self.units {
            let time_ns = now_ns();
            let round = unit
                .poll(line, &self.manner, &self.points)
                .await
                .map_err(Fault::retry)?;
            was_heard |= round.was_heard;
            let status = status(&round, &self.points);
            if unit.news(status.as_deref()) {
                match &status {
                    Some(status) => {
                        tracing::warn!(line = %self.place, unit = unit.id, status, "not all points can be read")
                    }
                    None => tracing::info!(line = %self.place, unit = unit.id, "all points can be read"),
                }
            }
            push(
                &mut builder,
                self.rows,
                &self.points,
                &round,
                time_ns,
                status.as_deref(),
            )?;
        }
        if !was_heard {
            let (units, ms) = (self.units.len(), self.manner.timeout.as_millis());
            let who = match (units, self.units.first()) {
                (1, Some(unit)) => format!("unit {} does not", unit.id),
                _ => format!("none of {units} units does"),
            };
            return Err(Fault::retry(format!("{}: {who} answer within {ms} ms", self.place)));
        }
        Ok(builder.finish(Origin::default()))
    }
}

fn push(
    builder: &mut BatchBuilder,
    rows: RowKind,
    points: &[Point],
    round: &Round,
    time_ns: i128,
    status: Option<&str>,
) -> Result<(), Fault> {
    let (time, unit) = (Cell::TimestampUtc(time_ns), Cell::I64(round.unit.into()));
    let mut push = |row: &[Cell<'_>]| {
        let pushed = builder.push(Op::Insert, row);
        pushed.map_err(|error| Fault::stop(error.to_string()))
    };
    if rows == RowKind::Wide {
        let mut row = vec![time, unit];
        row.extend(round.readings.iter().map(|reading| match reading {
            Some(Ok(value)) => value.as_cell(),
            Some(Err(_)) => Cell::Null,
            None => Cell::Missing,
        }));
        row.push(status.map_or(Cell::Null, Cell::Text));
        return push(&row);
    }
    for (point, reading) in points.iter().zip(&round.readings) {
        let (value, cause) = match reading {
            Some(Ok(value)) => (value.as_cell(), None),
            Some(Err(cause)) => (Cell::Null, Some(cause.as_str())),
            None => continue,
        };
        let status = cause.map_or(Cell::Null, Cell::Text);
        push(&[time, unit, Cell::Text(&point.name), value, status])?;
    }
    Ok(())
}

/// Looks until the line breaks or nobody wants to know any more. On a grid, so that rows stand at even distances.
async fn keep_looking(mut plan: Plan, mut line: Line, sender: mpsc::Sender<Result<Batch, Fault>>) {
    let mut grid = interval(plan.interval);
    grid.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        grid.tick().await;
        let looked = plan.look(&mut line).await;
        let has_failed = looked.is_err();
        if sender.send(looked).await.is_err() || has_failed {
            return;
        }
    }
}

/// Somebody who looks.
struct Watch {
    looks: mpsc::Receiver<Result<Batch, Fault>>,
    /// What opening has waited for.
    first: Option<Batch>,
    task: Task,
}

struct Modbus {
    plan: Plan,
    watch: Option<Watch>,
}

#[async_trait]
impl Source for Modbus {
    async fn open(&mut self, _: Option<&Position>) -> Result<(), Fault> {
        self.close().await;
        let mut line = Line::new(self.plan.place.clone(), self.plan.manner);
        line.connect().await.map_err(Fault::retry)?;
        let (sender, looks) = mpsc::channel(ROUNDS_WAITING);
        let mut watch = Watch {
            looks,
            first: None,
            // A time-out must not hold up whoever reads.
            task: Task(tokio::spawn(keep_looking(self.plan.clone(), line, sender))),
        };
        if let Ok(Some(first)) = timeout(FIRST_WAIT, watch.looks.recv()).await {
            watch.first = Some(first?);
        }
        self.watch = Some(watch);
        Ok(())
    }

    async fn read(&mut self) -> Result<Read, Fault> {
        let gone = || Fault::retry("nobody looks at the devices any more");
        let watch = self.watch.as_mut().ok_or_else(gone)?;
        let batch = match watch.first.take() {
            Some(first) => first,
            None => match timeout(READ_WAIT_MAX, watch.looks.recv()).await {
                Err(_) => return Ok(Read::Idle),
                Ok(looked) => looked.ok_or_else(gone)??,
            },
        };
        Ok(Read::Batch(SourceBatch {
            batch,
            position: Position::default(),
            undecodable: Vec::new(),
        }))
    }

    async fn check(&mut self) -> Result<String, Trouble> {
        self.plan.place.check().await?;
        let Plan {
            place,
            manner,
            points,
            units,
            ..
        } = &mut self.plan;
        let mut line = Line::new(place.clone(), *manner);
        let lost = |cause| Trouble::new(TroubleKind::Unreachable, cause, "see the line and what is at its end");
        line.connect().await.map_err(lost)?;
        for unit in units.iter_mut() {
            let round = unit.poll(&mut line, manner, points).await.map_err(lost)?;
            if let Some(status) = status(&round, points) {
                return Err(reach::missing(
                    format!("{place}, unit {}: {status}", unit.id),
                    "correct the unit's number and the registers, and see whether it is switched on",
                ));
            }
        }
        Ok(format!(
            "{place}: {} units answer for all {} points",
            units.len(),
            points.len()
        ))
    }

    async fn close(&mut self) {
        let Some(mut watch) = self.watch.take() else { return };
        // The line is free when the task is gone.
        watch.task.0.abort();
        let _ = (&mut watch.task.0).await;
    }
}
