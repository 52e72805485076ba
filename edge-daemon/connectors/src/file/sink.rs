//! Destination `file`: JSON lines or CSV, each record exactly once. Files and commits are in `output`.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use bus_schema::{
    data::Batch,
    id::StreamId,
    plan::{ComponentRole, Descriptor},
};
use flow::{
    Build, BuildContext, Component, ConfigError, Delivery, Fault, Rejected, Sink, Trouble, Watermark, describe,
    parse_config,
};
use schemars::JsonSchema;
use serde::Deserialize;

#[cfg(feature = "parquet")]
use super::parquet::{self, Packing, ParquetSink};
use super::{
    csv,
    encode::{CsvRows, JsonRows, push_csv_header},
    output::{Output, Target, file_name},
    part::{Limits, Part},
    partition::NameTemplate,
    source::delimiter,
    writer::Writer,
};

/// Text collected before it goes to the file, in bytes.
const WRITE_BYTES: usize = 128 * 1024;
/// Longest header of a file that is added to, in bytes.
const HEADER_BYTES_MAX: usize = 256 * 1024;
/// When a Parquet file is complete unless `rotate` says it.
#[cfg(feature = "parquet")]
const PARQUET_BYTES: u64 = 64_000_000;
#[cfg(feature = "parquet")]
const PARQUET_AGE: std::time::Duration = std::time::Duration::from_secs(300);
/// Smallest size at which a file may be rotated, in bytes.
const ROTATE_BYTES_MIN: u64 = 4096;

/// Appends records to a file, or to several of a directory, each exactly once: beside the file in `<path>.mycelial`, in the
/// directory in `.mycelial`, stands how much is committed, and what a crash left beyond that is cut off. (Do not delete that
/// file while the workflow exists. One destination per path.) A file that exists already is added to.
///
/// JSON lines: numbers keep every digit, floats are written in their shortest exact form; NaN and the infinities become
/// the texts "NaN", "Infinity" and "-Infinity"; bytes are hexadecimal, times ISO 8601; a missing field is left out, null is
/// null, and JSON's own null is null. CSV (RFC 4180, LF): null, missing and unchanged are an empty field (logged, where it is not null), an empty text is
/// `""`; lists are JSON arrays.
///
/// Parquet: every file gets a number, and is there whole or not at all. Records are gathered until there are `max_bytes` of
/// them (default 64 MB, before they are packed), or the first one is `max_age_s` old (default 300); nothing counts as delivered
/// before that: until then the records are with the source or in the buffer of the stream, and a copy is in the daemon's
/// directory. A column of another type begins another file. Times have nanoseconds, and those outside of the years 1677 to 2262
/// go to the dead letters, as do decimals of more than 38 digits; lists and values of no fixed type are JSON; missing and
/// unchanged are null, and offsets of timestamps are not kept (both logged). Whoever sends to a `webhook` or with `mqtt` waits
/// until a file is complete: with `spool = {}` here, or on another daemon than the source, a buffer keeps what comes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "parquet", schemars(extend("x-gathers" = {
    "age_s": "/rotate/max_age_s", "default": 300, "bytes": "/rotate/max_bytes", "default_bytes": 64_000_000,
    "when": {"format": "parquet"}
})))]
struct Config {
    /// The file; with `partition` the directory, which must exist. A relative path starts in the daemon's directory.
    path: PathBuf,
    /// Which file of the directory a record goes to: a name with columns in it, such as `{site}/{at:date}.jsonl`. `{column}`
    /// is a value, `{column:date}` the day of a time (also `year`, `month`, `hour`), in UTC. Directories are made. A record
    /// whose name leads out of the directory, or cannot be one on every system (`..`, `C:`, `aux`, …), goes to the dead
    /// letters, and so does one of more than 1024 names in a commit.
    partition: Option<String>,
    /// How records are written.
    format: FormatName,
    /// How pages of Parquet are packed. Default: snappy.
    #[cfg(feature = "parquet")]
    compression: Option<Packing>,
    /// Adds a column of this name that says what each record does: insert, update, delete or upsert. Without it,
    /// deletions go to the dead letters.
    op_column: Option<String>,
    /// How the CSV is written.
    csv: Option<CsvConfig>,
    /// When a file is complete: it is renamed to `name-000001.ext`, `name-000002.ext`, …. Complete files are never
    /// touched again, nor deleted. With `max_age_s` and a partition, at most 32 files are not complete.
    rotate: Option<RotateConfig>,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum FormatName {
    /// One JSON object per line.
    JsonLines,
    /// Comma separated values.
    Csv,
    /// Apache Parquet. Records are gathered until there are enough of them for a file.
    #[cfg(feature = "parquet")]
    Parquet,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CsvConfig {
    /// Whether each file begins with the names of its columns.
    header: bool,
    /// The columns, in order. Without it, those of the first records.
    columns: Option<Vec<String>>,
    /// What separates fields: one ASCII character, such as "," or ";" or "\t".
    delimiter: String,
    /// What happens when records come with columns the file has not (and `columns` is not given).
    new_columns: NewColumns,
}

impl Default for CsvConfig {
    fn default() -> Self {
        Self {
            header: true,
            columns: None,
            delimiter: ",".into(),
            new_columns: NewColumns::default(),
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NewColumns {
    /// The file is rotated; the next one has the old columns and the new ones.
    #[default]
    NewFile,
    /// Records with a value in such a column go to the dead letters.
    Reject,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RotateConfig {
    /// A file of this size is complete, in bytes. It may be exceeded by the records of one commit (about 2 MB).
    max_bytes: Option<u64>,
    /// A file of this age is complete, in seconds, whether more records come or not.
    max_age_s: Option<u64>,
}

/// The registry line.
pub(crate) const SINK: Component = Component {
    descriptor,
    build: Build::Sink(build),
};

const EXAMPLE: &str = r#"name = "metrics"

[sources.host]
type = "host_metrics"

[destinations.out]
type = "file"
from = "host"
path = "metrics.csv"
format = "csv"
rotate = { max_bytes = 100_000_000 }
"#;

fn descriptor() -> Descriptor {
    let mut descriptor = describe::<Config>(
        ComponentRole::Destination,
        "file",
        "Writes records to files: JSON lines, CSV or Parquet",
        EXAMPLE,
    );
    descriptor.durable = true;
    descriptor
}

fn build(config: &str, context: &BuildContext) -> Result<Box<dyn Sink>, ConfigError> {
    let config: Config = parse_config(config)?;
    let partition = config.partition.as_deref();
    let partition = partition
        .map(|text| NameTemplate::parse(text, "partition"))
        .transpose()?;
    if partition.is_none() && config.path.file_name().is_none() {
        return Err(ConfigError::at("path", "name the file"));
    }
    let path = context.base_dir.join(&config.path);
    if config.op_column.as_deref() == Some("") {
        return Err(ConfigError::at("op_column", "the name is empty"));
    }
    let format = match (config.format, config.csv) {
        (FormatName::Csv, csv) => Format::Csv(csv_settings(csv.unwrap_or_default(), config.op_column.as_deref())?),
        (_, Some(_)) => return Err(ConfigError::at("csv", "only for format = \"csv\"")),
        (_, None) => Format::JsonLines,
    };
    #[cfg(feature = "parquet")]
    if config.format != FormatName::Parquet && config.compression.is_some() {
        return Err(ConfigError::at("compression", "only for format = \"parquet\""));
    }
    let rotate = config.rotate.unwrap_or(RotateConfig {
        max_bytes: None,
        max_age_s: None,
    });
    if rotate.max_bytes.is_some_and(|bytes| bytes < ROTATE_BYTES_MIN) {
        return Err(ConfigError::at(
            "rotate.max_bytes",
            format!("at least {ROTATE_BYTES_MIN}"),
        ));
    }
    if rotate.max_age_s == Some(0) {
        return Err(ConfigError::at("rotate.max_age_s", "at least 1"));
    }
    let limits = Limits {
        bytes: rotate.max_bytes,
        age: rotate.max_age_s.map(std::time::Duration::from_secs),
    };
    let (target, names) = match partition {
        None => (Target::File(path.clone()), Names::One(file_name(&path))),
        Some(template) => (Target::Directory(path), Names::Filled(template)),
    };
    #[cfg(feature = "parquet")]
    if config.format == FormatName::Parquet {
        let limits = parquet::Limits {
            bytes: limits.bytes.unwrap_or(PARQUET_BYTES),
            age: limits.age.unwrap_or(PARQUET_AGE),
        };
        let packing = config.compression.unwrap_or_default();
        let place = (context.base_dir.clone(), Writer::new(target, Limits::default()));
        return Ok(Box::new(ParquetSink::new(
            names,
            config.op_column,
            packing,
            limits,
            place,
        )));
    }
    Ok(Box::new(FileSink {
        encoding: Encoding {
            format,
            op_column: config.op_column,
            blurred: Arc::default(),
            names,
        },
        writer: Writer::new(target, limits),
    }))
}

pub(crate) fn csv_settings(config: CsvConfig, op_column: Option<&str>) -> Result<Csv, ConfigError> {
    let delimiter = delimiter(&config.delimiter, "csv.delimiter")?;
    let mut columns = config.columns;
    if let Some(columns) = &mut columns {
        if columns.is_empty() {
            return Err(ConfigError::at("csv.columns", "name at least one column"));
        }
        if let Some(twice) = columns
            .iter()
            .enumerate()
            .find(|(at, name)| columns[..*at].contains(name))
        {
            return Err(ConfigError::at(
                "csv.columns",
                format!("'{}' stands here twice", twice.1),
            ));
        }
        if let Some(op_column) = op_column.filter(|name| !columns.iter().any(|column| column == name)) {
            columns.push(op_column.to_string());
        }
    }
    Ok(Csv {
        delimiter,
        header: config.header,
        columns,
        widen: config.new_columns == NewColumns::NewFile,
    })
}

struct FileSink {
    encoding: Encoding,
    writer: Writer,
}

#[derive(Clone)]
struct Encoding {
    format: Format,
    op_column: Option<String>,
    /// It has been logged that fields without a value look like null.
    blurred: Arc<AtomicBool>,
    names: Names,
}

/// Which file a record goes to.
#[derive(Clone)]
pub(super) enum Names {
    One(String),
    Filled(NameTemplate),
}

impl Names {
    /// The rows of a batch by the file they go to. A row without a name is rejected.
    pub(super) fn groups(&self, batch: &Batch, rejected: &mut Vec<(usize, String)>) -> Vec<(String, Vec<usize>)> {
        match self {
            Self::One(name) => vec![(name.clone(), (0..batch.rows()).collect())],
            Self::Filled(template) => by_name(template, batch, rejected),
        }
    }
}

#[derive(Clone)]
enum Format {
    JsonLines,
    Csv(Csv),
}

#[derive(Clone)]
pub(crate) struct Csv {
    pub(crate) delimiter: u8,
    pub(crate) header: bool,
    pub(crate) columns: Option<Vec<String>>,
    /// New columns begin a new file.
    pub(crate) widen: bool,
}

/// Appends the text of one row.
type RowText<'a> = dyn Fn(usize, &mut Vec<u8>) -> Result<(), String> + 'a;

#[async_trait]
impl Sink for FileSink {
    async fn open(&mut self) -> Result<(), Fault> {
        self.writer.open().await
    }

    async fn watermark(&mut self, stream: &StreamId) -> Result<Option<Watermark>, Fault> {
        Ok(self.writer.mark(stream))
    }

    fn keeps_watermark(&self) -> bool {
        true
    }

    async fn write(&mut self, deliveries: &[Delivery]) -> Result<Vec<Rejected>, Fault> {
        let mut rejected = Vec::new();
        for (index, delivery) in deliveries.iter().enumerate() {
            // One at a time: a copy of one batch is small, of all of them it is not.
            let (encoding, delivery) = (self.encoding.clone(), delivery.clone());
            let refused = self
                .writer
                .with(move |output| encoding.write(output, &delivery))
                .await?;
            rejected.extend(refused.into_iter().map(|(row, reason)| Rejected {
                delivery: index,
                row,
                reason,
            }));
        }
        Ok(rejected)
    }

    async fn commit(&mut self) -> Result<(), Fault> {
        self.writer.with(Output::commit).await
    }

    fn is_due(&self) -> bool {
        self.writer.is_due()
    }

    async fn check(&mut self) -> Result<String, Trouble> {
        self.writer.check()
    }

    async fn close(&mut self) {
        self.writer.close();
    }
}

impl Encoding {
    /// Writes one delivery, and returns the rows that cannot be written.
    fn write(&self, output: &mut Output, delivery: &Delivery) -> std::io::Result<Vec<(usize, String)>> {
        let batch = &delivery.batch;
        let mut rejected = Vec::new();
        let wanted = self.names.groups(batch, &mut rejected);
        let mut groups: Vec<(String, Vec<usize>)> = Vec::with_capacity(wanted.len());
        for (name, rows) in wanted {
            match output.admit(&name)? {
                // No rows begin no file.
                Ok(()) if rows.is_empty() => {}
                Ok(()) => groups.push((name, rows)),
                Err(cause) => rejected.extend(rows.iter().map(|row| (*row, cause.clone()))),
            }
        }
        output.adopt(groups.iter().map(|(name, _)| name.as_str()))?;
        for (name, rows) in &groups {
            self.write_rows(output, name, batch, rows, &mut rejected)?;
        }
        rejected.sort_by_key(|(row, _)| *row);
        let mark = output
            .pending_mark(&delivery.stream)
            .after(delivery, rejected.len() as u64);
        output.set_mark(delivery.stream, &mark);
        Ok(rejected)
    }

    /// Writes some rows of a batch to one file.
    fn write_rows(
        &self,
        output: &mut Output,
        name: &str,
        batch: &Batch,
        rows: &[usize],
        rejected: &mut Vec<(usize, String)>,
    ) -> std::io::Result<()> {
        let mut text = Vec::with_capacity(WRITE_BYTES);
        let mut each = |row: &RowText<'_>, output: &mut Output, text: &mut Vec<u8>| {
            for index in rows {
                if let Err(reason) = row(*index, text) {
                    rejected.push((*index, reason));
                }
                if text.len() >= WRITE_BYTES {
                    output.part(name)?.write(text)?;
                    text.clear();
                }
            }
            Ok::<(), std::io::Error>(())
        };
        match &self.format {
            Format::JsonLines => {
                let rows = JsonRows::new(batch, self.op_column.as_deref());
                let line = |row: usize, text: &mut Vec<u8>| rows.row(row, text).map(|()| text.push(b'\n'));
                each(&line, output, &mut text)?;
            }
            Format::Csv(csv) => {
                let columns = self.csv_columns(csv, output, name, batch, &mut text)?;
                let rows = CsvRows::new(batch, &columns, csv.delimiter, self.op_column.as_deref());
                if !self.blurred.load(Ordering::Relaxed)
                    && let Some(column) = rows.blurs()
                    && !self.blurred.swap(true, Ordering::Relaxed)
                {
                    tracing::warn!(
                        column,
                        "a missing or unchanged field is an empty one, as null is: CSV has no other"
                    );
                }
                each(&|row, text: &mut Vec<u8>| rows.row(row, text), output, &mut text)?;
            }
        }
        if !text.is_empty() {
            output.part(name)?.write(&text)?;
        }
        Ok(())
    }

    /// The columns of the file for this batch: those it has, or in a new file those it gets.
    fn csv_columns(
        &self,
        csv: &Csv,
        output: &mut Output,
        name: &str,
        batch: &Batch,
        text: &mut Vec<u8>,
    ) -> std::io::Result<Vec<String>> {
        let op_column = self.op_column.as_deref();
        let wanted = csv
            .columns
            .clone()
            .unwrap_or_else(|| CsvRows::header_of(batch, op_column));
        let mut columns = wanted.clone();
        let part = output.part(name)?;
        if part.length() > 0 {
            columns = match &part.columns {
                Some(columns) => columns.clone(),
                None if csv.header => read_header(part, csv.delimiter)?,
                None => wanted.clone(),
            };
            let rows = CsvRows::new(batch, &columns, csv.delimiter, op_column);
            let lacks_op = op_column.is_some_and(|name| !columns.iter().any(|column| column == name));
            let is_other = csv.columns.as_ref().is_some_and(|fixed| *fixed != columns);
            let grows = csv.widen && csv.columns.is_none() && rows.strangers().next().is_some();
            if !(is_other || grows || lacks_op) {
                part.columns = Some(columns.clone());
                return Ok(columns);
            }
            let added: Vec<String> = rows
                .strangers()
                .map(str::to_string)
                .chain(op_column.filter(|_| lacks_op).map(str::to_string))
                .collect();
            tracing::info!(?added, "the columns change: beginning a new file");
            columns.extend(added);
            if csv.columns.is_some() {
                columns = wanted;
            }
            output.seal(name)?;
        }
        output.part(name)?.columns = Some(columns.clone());
        if csv.header {
            push_csv_header(text, &columns, csv.delimiter);
        }
        Ok(columns)
    }
}

/// The rows of a batch by the file they go to, in the order of their first rows. A row without a name is rejected.
fn by_name(template: &NameTemplate, batch: &Batch, rejected: &mut Vec<(usize, String)>) -> Vec<(String, Vec<usize>)> {
    let mut groups: Vec<(String, Vec<usize>)> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for row in 0..batch.rows() {
        match template.fill(batch, row) {
            Err(cause) => rejected.push((row, cause)),
            Ok(name) => match places.get(&name) {
                Some(place) => groups[*place].1.push(row),
                None => {
                    places.insert(name.clone(), groups.len());
                    groups.push((name, vec![row]));
                }
            },
        }
    }
    groups
}

/// The columns of a file that somebody else began.
fn read_header(part: &mut Part, delimiter: u8) -> std::io::Result<Vec<String>> {
    let length = usize::try_from(part.length()).unwrap_or(usize::MAX);
    let mut bytes = vec![0; length.min(HEADER_BYTES_MAX)];
    part.read_at(&mut bytes, 0)?;
    let broken =
        |cause: String| std::io::Error::other(format!("the file's header cannot be read: {cause}; move the file away"));
    let (content, _) = csv::record_end(&bytes, delimiter, false).ok_or_else(|| broken("it has no end".into()))?;
    let text = std::str::from_utf8(&bytes[..content]).map_err(|error| broken(error.to_string()))?;
    let mut fields = Vec::new();
    csv::fields(text, delimiter, &mut fields).map_err(broken)?;
    Ok(fields.into_iter().map(|field| field.text.into_owned()).collect())
}
