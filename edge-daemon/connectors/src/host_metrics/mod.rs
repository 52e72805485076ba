//! Source `host_metrics`: what the machine itself is doing, one row per measurement. Reads `/proc` and `/sys`; a sensor that
//! is not there is left out. Linux only.

use std::{
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use async_trait::async_trait;
use bus_schema::{
    data::{Batch, BatchBuilder, Cell, Field, Op, Origin, Schema, Type, Zone},
    plan::{ComponentRole, Descriptor},
};
use flow::{
    Build, BuildContext, Component, ConfigError, Fault, Position, READ_WAIT_MAX, Read, Source, SourceBatch, describe,
    parse_config,
};
use schemars::JsonSchema;
use serde::Deserialize;

mod probe;

use probe::{Probe, Sample};

/// Shortest time between two measurements, in milliseconds.
const INTERVAL_MS_MIN: u64 = 100;
/// The first measurement does not wait longer than this: rates need two readings.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// Measures the machine the daemon runs on: one row per measurement, with the columns `time` (UTC), `host`, `name`, `device`
/// (null where there is only one), `value` (f64; counters are exact up to 2^53) and `unit`.
///
/// cpu: `cpu.busy`, `cpu.user`, `cpu.system`, `cpu.iowait` (percent since the last row; device `all` and each core),
/// `load.1m`, `load.5m`, `load.15m`, `uptime`. memory: `memory.total`, `memory.available`, `memory.used`, `swap.total`,
/// `swap.used` (bytes). disk: `disk.total`, `disk.used`, `disk.free` (bytes per mounted disk), `disk.read`, `disk.written`
/// (bytes since boot per drive). network: `network.received`, `network.sent` (bytes since boot per interface),
/// `network.errors`, `network.dropped` (packets). temperature: `temperature` (degrees Celsius per sensor).
/// What was not measured while the daemon was away is not measured later.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Time between two measurements, in milliseconds; at least 100.
    #[serde(default = "default_interval_ms")]
    interval_ms: u64,
    /// What to measure; everything by default.
    #[serde(default = "everything")]
    collect: Vec<Collect>,
    /// Where the kernel's files are; another place when the daemon runs in a container and measures its host.
    #[serde(default = "default_proc")]
    proc_dir: PathBuf,
    /// Where the kernel's devices are.
    #[serde(default = "default_sys")]
    sys_dir: PathBuf,
}

fn default_interval_ms() -> u64 {
    10_000
}

fn everything() -> Vec<Collect> {
    vec![
        Collect::Cpu,
        Collect::Memory,
        Collect::Disk,
        Collect::Network,
        Collect::Temperature,
    ]
}

fn default_proc() -> PathBuf {
    "/proc".into()
}

fn default_sys() -> PathBuf {
    "/sys".into()
}

/// A group of measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Collect {
    /// Processor use and load.
    Cpu,
    /// Memory and swap.
    Memory,
    /// Space and traffic of disks.
    Disk,
    /// Traffic of network interfaces, without the loopback.
    Network,
    /// Temperature sensors.
    Temperature,
}

/// The registry line.
pub(crate) const SOURCE: Component = Component {
    descriptor,
    build: Build::Source(build),
};

const EXAMPLE: &str = r#"name = "load"

[sources.host]
type = "host_metrics"
interval_ms = 5000
collect = ["cpu", "memory"]

[destinations.out]
type = "stdout"
from = "host"
format = "table"
"#;

fn descriptor() -> Descriptor {
    describe::<Config>(
        ComponentRole::Source,
        "host_metrics",
        "Measures CPU, memory, disks, network and temperatures",
        EXAMPLE,
    )
}

fn build(config: &str, _: &BuildContext) -> Result<Box<dyn Source>, ConfigError> {
    let config: Config = parse_config(config)?;
    if config.interval_ms < INTERVAL_MS_MIN {
        return Err(ConfigError::at("interval_ms", format!("at least {INTERVAL_MS_MIN}")));
    }
    if config.collect.is_empty() {
        return Err(ConfigError::at(
            "collect",
            "name at least one of cpu, memory, disk, network, temperature",
        ));
    }
    let interval = Duration::from_millis(config.interval_ms);
    let probe = Probe::new(config.proc_dir, config.sys_dir, config.collect);
    Ok(Box::new(HostMetrics {
        interval,
        schema: schema().into(),
        probe: Some(probe),
        due: Instant::now(),
    }))
}

fn schema() -> Schema {
    let field = |name, ty, nullable| Field {
        name: String::from(name),
        ty,
        nullable,
        key: false,
    };
    let fields = vec![
        field("time", Type::Timestamp(Zone::Utc), false),
        field("host", Type::Text, false),
        field("name", Type::Text, false),
        field("device", Type::Text, true),
        field("value", Type::F64, false),
        field("unit", Type::Text, false),
    ];
    Schema {
        collection: "host_metrics".to_string(),
        fields,
    }
}

struct HostMetrics {
    interval: Duration,
    schema: std::sync::Arc<Schema>,
    /// Away while a thread works with it.
    probe: Option<Probe>,
    due: Instant,
}

impl HostMetrics {
    /// Measures in a thread of its own: a mounted disk may take its time to answer.
    async fn measure(&mut self) -> Result<(String, Vec<Sample>), Fault> {
        let broken = || Fault::retry("measuring the machine broke off");
        let mut probe = self.probe.take().ok_or_else(broken)?;
        let done = tokio::task::spawn_blocking(move || {
            let measured = probe.measure();
            (probe, measured)
        });
        let (probe, measured) = done.await.map_err(|_| broken())?;
        self.probe = Some(probe);
        measured
    }

    fn batch(&self, host: &str, samples: &[Sample]) -> Result<Batch, Fault> {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos() as i128);
        let mut builder = BatchBuilder::new(self.schema.clone());
        for sample in samples {
            let row = [
                Cell::TimestampUtc(now),
                Cell::Text(host),
                Cell::Text(sample.name),
                sample.device.as_deref().map_or(Cell::Null, Cell::Text),
                Cell::F64(sample.value),
                Cell::Text(sample.unit),
            ];
            builder
                .push(Op::Insert, &row)
                .map_err(|error| Fault::stop(error.to_string()))?;
        }
        Ok(builder.finish(Origin::default()))
    }
}

#[async_trait]
impl Source for HostMetrics {
    async fn open(&mut self, _: Option<&Position>) -> Result<(), Fault> {
        if !cfg!(target_os = "linux") {
            return Err(Fault::stop(format!(
                "host_metrics is not supported on {}",
                std::env::consts::OS
            )));
        }
        // The reading that the first rates are counted from.
        self.measure().await?;
        self.due = Instant::now() + self.interval.min(FIRST_WAIT);
        Ok(())
    }

    async fn read(&mut self) -> Result<Read, Fault> {
        let wait = self.due.saturating_duration_since(Instant::now());
        tokio::time::sleep(wait.min(READ_WAIT_MAX)).await;
        if wait > READ_WAIT_MAX {
            return Ok(Read::Idle);
        }
        let (host, samples) = self.measure().await?;
        // Late measurements are not caught up with.
        self.due = (self.due + self.interval).max(Instant::now());
        let batch = self.batch(&host, &samples)?;
        Ok(Read::Batch(SourceBatch {
            batch,
            position: Position::default(),
            undecodable: Vec::new(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::testing::{refused, source};

    #[tokio::test]
    async fn this_machine_can_be_measured() {
        let mut metrics = source(&SOURCE, r#"{"interval_ms": 100}"#, std::path::Path::new("/"));
        metrics.open(None).await.unwrap();
        let mut times = Vec::new();
        while times.len() < 2 {
            let Read::Batch(read) = metrics.read().await.unwrap() else {
                continue;
            };
            let batch = read.batch;
            let find = |name: &str, device: Option<&str>| {
                let device = device.map_or(Cell::Null, Cell::Text);
                let is_it = |row: &usize| batch.cell(*row, 2) == Cell::Text(name) && batch.cell(*row, 3) == device;
                (0..batch.rows()).find(is_it).map(|row| batch.cell(row, 4))
            };
            let Some(Cell::F64(busy)) = find("cpu.busy", Some("all")) else {
                panic!("no cpu.busy")
            };
            assert!((0.0..=100.0).contains(&busy), "{busy}");
            let (Some(Cell::F64(total)), Some(Cell::F64(used))) =
                (find("memory.total", None), find("memory.used", None))
            else {
                panic!("no memory")
            };
            assert!(0.0 < used && used < total, "{used} of {total}");
            times.push(batch.cell(0, 0).to_value());
        }
        assert_ne!(times[0], times[1]);
    }

    #[test]
    fn mistakes_are_named() {
        for (config, wanted) in [
            (r#"{"interval_ms": 10}"#, "interval_ms: at least 100"),
            (r#"{"collect": []}"#, "collect: name at least one"),
            (r#"{"collect": ["gpu"]}"#, "collect[0]: unknown variant `gpu`"),
        ] {
            refused(&SOURCE, config, wanted);
        }
    }
}
