//! Destination `file`: JSON lines or CSV, each record exactly once. Files and commits are in `output`.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use bus_schema::{
    id::StreamId,
    plan::{ComponentRole, Descriptor},
};
use flow::{
    Build, BuildContext, Component, ConfigError, Delivery, Fault, Rejected, Sink, Watermark, describe, parse_config,
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    csv,
    encode::{CsvRows, JsonRows, push_csv_header},
    output::{Limits, Output},
    source::delimiter,
};

/// Text collected before it goes to the file, in bytes.
const WRITE_BYTES: usize = 128 * 1024;
/// Longest header of a file that is added to, in bytes.
const HEADER_BYTES_MAX: usize = 256 * 1024;
/// Smallest size at which a file may be rotated, in bytes.
const ROTATE_BYTES_MIN: u64 = 4096;

/// Appends records to a file, each exactly once: beside it, in `<path>.mycelial`, stands how much of it is committed, and
/// what a crash left beyond that is cut off. (Do not delete that file while the workflow exists. One destination per
/// path.) A file that exists already is added to.
///
/// JSON lines: numbers keep every digit, floats are written in their shortest exact form; NaN and the infinities become
/// the texts "NaN", "Infinity" and "-Infinity"; bytes are hexadecimal, times ISO 8601; a missing field is left out, null is
/// null, and JSON's own null is null. CSV (RFC 4180, LF): null, missing and unchanged are an empty field (logged, where it is not null), an empty text is
/// `""`; lists are JSON arrays.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The file. A relative path starts in the daemon's directory, which must exist.
    path: PathBuf,
    /// How records are written.
    format: FormatName,
    /// Adds a column of this name that says what each record does: insert, update, delete or upsert. Without it,
    /// deletions go to the dead letters.
    op_column: Option<String>,
    /// How the CSV is written.
    csv: Option<CsvConfig>,
    /// When a file is complete: it is renamed to `name-000001.ext`, `name-000002.ext`, …. Complete files are never
    /// touched again, nor deleted.
    rotate: Option<RotateConfig>,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum FormatName {
    /// One JSON object per line.
    JsonLines,
    /// Comma separated values.
    Csv,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct CsvConfig {
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
enum NewColumns {
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
    /// A file of this age is complete, in seconds. Looked at when records come.
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
        "Appends records to a file as JSON lines or CSV",
        EXAMPLE,
    );
    descriptor.durable = true;
    descriptor
}

fn build(config: &str, context: &BuildContext) -> Result<Box<dyn Sink>, ConfigError> {
    let config: Config = parse_config(config)?;
    if config.path.file_name().is_none() {
        return Err(ConfigError::at("path", "name the file"));
    }
    if config.op_column.as_deref() == Some("") {
        return Err(ConfigError::at("op_column", "the name is empty"));
    }
    let format = match (config.format, config.csv) {
        (FormatName::JsonLines, Some(_)) => return Err(ConfigError::at("csv", "only for format = \"csv\"")),
        (FormatName::JsonLines, None) => Format::JsonLines,
        (FormatName::Csv, csv) => Format::Csv(csv_settings(csv.unwrap_or_default(), config.op_column.as_deref())?),
    };
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
    Ok(Box::new(FileSink {
        path: context.base_dir.join(&config.path),
        limits: Limits {
            bytes: rotate.max_bytes,
            age: rotate.max_age_s.map(std::time::Duration::from_secs),
        },
        encoding: Encoding {
            format,
            op_column: config.op_column,
            blurred: Arc::default(),
        },
        output: None,
    }))
}

fn csv_settings(config: CsvConfig, op_column: Option<&str>) -> Result<Csv, ConfigError> {
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
    path: PathBuf,
    limits: Limits,
    encoding: Encoding,
    /// Away while a thread works with it.
    output: Option<Output>,
}

#[derive(Clone)]
struct Encoding {
    format: Format,
    op_column: Option<String>,
    /// It has been logged that fields without a value look like null.
    blurred: Arc<AtomicBool>,
}

#[derive(Clone)]
enum Format {
    JsonLines,
    Csv(Csv),
}

#[derive(Clone)]
struct Csv {
    delimiter: u8,
    header: bool,
    columns: Option<Vec<String>>,
    /// New columns begin a new file.
    widen: bool,
}

impl FileSink {
    fn failed(&self, error: &std::io::Error) -> Fault {
        Fault::retry(format!("cannot write {}: {error}", self.path.display()))
    }

    async fn blocking<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Output) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, Fault> {
        let Some(mut output) = self.output.take() else {
            return Err(Fault::retry("the file is not open"));
        };
        let done = tokio::task::spawn_blocking(move || {
            let result = work(&mut output);
            (output, result)
        });
        let (output, result) = done
            .await
            .map_err(|error| Fault::retry(format!("writing the file broke off: {error}")))?;
        self.output = Some(output);
        result.map_err(|error| self.failed(&error))
    }
}

/// Appends the text of one row.
type RowText<'a> = dyn Fn(usize, &mut Vec<u8>) -> Result<(), String> + 'a;

#[async_trait]
impl Sink for FileSink {
    async fn open(&mut self) -> Result<(), Fault> {
        // Lets go of the lock first, should it still be held.
        self.output = None;
        let (path, limits) = (self.path.clone(), self.limits);
        let opened = tokio::task::spawn_blocking(move || Output::open(&path, limits)).await;
        let opened = opened.map_err(|error| Fault::retry(format!("opening the file broke off: {error}")))?;
        self.output = Some(opened.map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidData => Fault::stop(error.to_string()),
            _ => self.failed(&error),
        })?);
        Ok(())
    }

    async fn watermark(&mut self, stream: &StreamId) -> Result<Option<Watermark>, Fault> {
        Ok(self.output.as_ref().and_then(|output| output.mark(stream)))
    }

    fn keeps_watermark(&self) -> bool {
        true
    }

    async fn write(&mut self, deliveries: &[Delivery]) -> Result<Vec<Rejected>, Fault> {
        let mut rejected = Vec::new();
        for (index, delivery) in deliveries.iter().enumerate() {
            // One at a time: a copy of one batch is small, of all of them it is not.
            let (encoding, delivery) = (self.encoding.clone(), delivery.clone());
            let refused = self.blocking(move |output| encoding.write(output, &delivery)).await?;
            rejected.extend(refused.into_iter().map(|(row, reason)| Rejected {
                delivery: index,
                row,
                reason,
            }));
        }
        Ok(rejected)
    }

    async fn commit(&mut self) -> Result<(), Fault> {
        self.blocking(Output::commit).await
    }

    async fn close(&mut self) {
        self.output = None;
    }
}

impl Encoding {
    /// Writes one delivery, and returns the rows that cannot be written.
    fn write(&self, output: &mut Output, delivery: &Delivery) -> std::io::Result<Vec<(usize, String)>> {
        let batch = &delivery.batch;
        let mut text = Vec::with_capacity(WRITE_BYTES);
        let mut rejected = Vec::new();
        let mut each = |row: &RowText<'_>, output: &mut Output, text: &mut Vec<u8>| {
            for index in 0..batch.rows() {
                if let Err(reason) = row(index, text) {
                    rejected.push((index, reason));
                }
                if text.len() >= WRITE_BYTES {
                    output.write(text)?;
                    text.clear();
                }
            }
            Ok::<(), std::io::Error>(())
        };
        match &self.format {
            // No rows begin no file.
            _ if batch.rows() == 0 => {}
            Format::JsonLines => {
                let rows = JsonRows::new(batch, self.op_column.as_deref());
                let line = |row: usize, text: &mut Vec<u8>| rows.row(row, text).map(|()| text.push(b'\n'));
                each(&line, output, &mut text)?;
            }
            Format::Csv(csv) => {
                let columns = self.csv_columns(csv, output, batch, &mut text)?;
                let rows = CsvRows::new(batch, &columns, csv.delimiter, self.op_column.as_deref());
                if let Some(column) = rows.blurs()
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
            output.write(&text)?;
        }
        let mark = output
            .pending_mark(&delivery.stream)
            .after(delivery, rejected.len() as u64);
        output.set_mark(delivery.stream, &mark);
        Ok(rejected)
    }

    /// The columns of the file for this batch: those it has, or in a new file those it gets.
    fn csv_columns(
        &self,
        csv: &Csv,
        output: &mut Output,
        batch: &bus_schema::data::Batch,
        text: &mut Vec<u8>,
    ) -> std::io::Result<Vec<String>> {
        let op_column = self.op_column.as_deref();
        let wanted = csv
            .columns
            .clone()
            .unwrap_or_else(|| CsvRows::header_of(batch, op_column));
        let mut columns = wanted.clone();
        if output.is_begun()? {
            columns = match output.columns() {
                Some(columns) => columns.clone(),
                None if csv.header => read_header(output, csv.delimiter)?,
                None => wanted.clone(),
            };
            let rows = CsvRows::new(batch, &columns, csv.delimiter, op_column);
            let lacks_op = op_column.is_some_and(|name| !columns.iter().any(|column| column == name));
            let is_other = csv.columns.as_ref().is_some_and(|fixed| *fixed != columns);
            let grows = csv.widen && csv.columns.is_none() && rows.strangers().next().is_some();
            if !(is_other || grows || lacks_op) {
                output.set_columns(columns.clone())?;
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
            output.seal();
        }
        output.set_columns(columns.clone())?;
        if csv.header {
            push_csv_header(text, &columns, csv.delimiter);
        }
        Ok(columns)
    }
}

/// The columns of a file that somebody else began.
fn read_header(output: &mut Output, delimiter: u8) -> std::io::Result<Vec<String>> {
    let bytes = output.beginning(HEADER_BYTES_MAX)?;
    let broken =
        |cause: String| std::io::Error::other(format!("the file's header cannot be read: {cause}; move the file away"));
    let (content, _) = csv::record_end(&bytes, delimiter, false).ok_or_else(|| broken("it has no end".into()))?;
    let text = std::str::from_utf8(&bytes[..content]).map_err(|error| broken(error.to_string()))?;
    let mut fields = Vec::new();
    csv::fields(text, delimiter, &mut fields).map_err(broken)?;
    Ok(fields.into_iter().map(|field| field.text.into_owned()).collect())
}
