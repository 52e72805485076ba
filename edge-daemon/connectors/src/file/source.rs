//! Source `file`: the records of a file, once or for ever. The reading itself is in `reader` and `tail`, or in `table`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bus_schema::{
    data::{Batch, Type},
    plan::{ComponentRole, Descriptor},
};
use flow::{
    Build, BuildContext, Component, ConfigError, Fault, Position, READ_WAIT_MAX, Read, Source, Trouble, describe,
    parse_config,
};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::Instant;

#[cfg(feature = "excel")]
use super::excel::{self, ExcelConfig};
use super::{
    input::Input,
    packed::is_packed,
    reader::{self, Csv, Format, Got, Reader},
    table::{Open, TableReader},
    tail::Tail,
    text::{TYPE_NAMES, type_named},
};
use crate::{
    reach,
    watch::{Found, Watch},
};

/// How often a quiet file is looked at, whatever the system tells of it.
const POLL: Duration = Duration::from_millis(100);

/// Reads a file: JSON lines, CSV or plain lines, as it grows or once. Follows rotation by renaming (`app.log` →
/// `app.log.1`, `app-20240131.log`, …) and by copying and truncating without losing or repeating lines, as long as the
/// rotated file is not compressed before it is read. What is not a record goes to the dead letters with file and line.
/// UTF-8 only. A file whose name ends with `.gz` is unpacked while it is read, with `mode = "once"`; `_offset` is then the
/// place in what is in it.
///
/// Parquet, with `mode = "once"`: integers are i64 (unsigned ones of 32 and 64 bits u64), decimals keep their digits, times and
/// timestamps their zone, JSON and UUID what they are, other bytes are bytes. A file with lists, maps or structures, or one that
/// is damaged, goes to the dead letters, as far as it was not read.
///
/// Excel, with `mode = "once"`: a sheet of a workbook, with a row that names its columns. Numbers are f64 (Excel has no others;
/// declare `types` for whole ones), dates and times timestamps, spans of less than a day times, true and false bool; an empty cell
/// is null, an empty row is passed over. Formulas are what they came to when the workbook was saved. A row with an error in it
/// goes to the dead letters.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The file. A relative path starts in the daemon's directory. Rotated files are found beside it.
    path: PathBuf,
    /// What its lines are.
    format: FormatName,
    /// Whether to follow the file as it grows, or to read it once and be done.
    #[serde(default)]
    mode: Mode,
    /// Where to begin the first time; later on, where reading stopped.
    #[serde(default)]
    start: Start,
    /// How the CSV is written.
    csv: Option<CsvConfig>,
    /// Which part of a workbook is read.
    #[cfg(feature = "excel")]
    excel: Option<ExcelConfig>,
    /// Column = type (as for `cast`; not list or any): a value that is none goes to the dead letters with its record.
    /// Without it, CSV columns are text, and JSON values have the type they are written in: whole numbers i64 or u64
    /// (larger ones decimal), others f64, objects and arrays json.
    #[serde(default)]
    types: BTreeMap<String, String>,
    /// Adds the columns `_file`, `_line` and `_offset`: where each record stood.
    #[serde(default)]
    origin_columns: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FormatName {
    /// One JSON object per line; its fields become columns. Empty lines are passed over.
    JsonLines,
    /// Comma separated values (RFC 4180). An empty field is null, `""` is an empty text.
    Csv,
    /// Plain text; the column is called `line`.
    Lines,
    /// Apache Parquet, with `mode = "once"`.
    #[cfg(feature = "parquet")]
    Parquet,
    /// A sheet of an Excel workbook (`.xlsx`, `.xlsm`), with `mode = "once"`.
    #[cfg(feature = "excel")]
    Excel,
}

impl FormatName {
    /// Whether a file of it is read whole, and does not grow.
    pub(crate) fn is_table(self) -> bool {
        match self {
            Self::JsonLines | Self::Csv | Self::Lines => false,
            #[cfg(feature = "parquet")]
            Self::Parquet => true,
            #[cfg(feature = "excel")]
            Self::Excel => true,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// Follow the file. A last line without line end waits for it.
    #[default]
    Tail,
    /// Read to the end and finish. A last line without line end counts.
    Once,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Start {
    /// With what is in the file already.
    #[default]
    Beginning,
    /// Only with what is added from now on.
    End,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CsvConfig {
    /// Whether the first record of each file names the columns.
    header: bool,
    /// The names of the columns of files without a header.
    columns: Option<Vec<String>>,
    /// What separates fields: one ASCII character, such as "," or ";" or "\t".
    delimiter: String,
}

impl Default for CsvConfig {
    fn default() -> Self {
        Self {
            header: true,
            columns: None,
            delimiter: ",".to_string(),
        }
    }
}

/// The registry line.
pub(crate) const SOURCE: Component = Component {
    descriptor,
    build: Build::Source(build),
};

const EXAMPLE: &str = r#"name = "app-log"

[sources.log]
type = "file"
path = "/var/log/app.jsonl"
format = "json_lines"

[destinations.out]
type = "stdout"
from = "log"
"#;

fn descriptor() -> Descriptor {
    let mut descriptor = describe::<Config>(
        ComponentRole::Source,
        "file",
        "Reads a file: JSON lines, CSV, plain lines, Parquet or a sheet of Excel",
        EXAMPLE,
    );
    descriptor.durable = true;
    descriptor
}

fn build(config: &str, context: &BuildContext) -> Result<Box<dyn Source>, ConfigError> {
    let config: Config = parse_config(config)?;
    if config.mode == Mode::Once && config.start == Start::End {
        return Err(ConfigError::at("start", "a file read once is read from its beginning"));
    }
    if config.path.as_os_str().is_empty() {
        return Err(ConfigError::at("path", "name the file"));
    }
    if config.mode == Mode::Tail && config.format.is_table() {
        return Err(ConfigError::at(
            "mode",
            "a file of this format is read whole, and does not grow: set mode = \"once\" (or use the source files for those of a \
             directory)",
        ));
    }
    if config.mode == Mode::Tail && is_packed(&config.path) {
        return Err(ConfigError::at(
            "mode",
            "a .gz file is read whole, and does not grow: set mode = \"once\" (or use the source files for those of a directory)",
        ));
    }
    let settings = Settings {
        path: context.base_dir.join(&config.path),
        once: config.mode == Mode::Once,
        at_end: config.start == Start::End,
        parsing: Parsing::new(
            FormatConfig {
                name: config.format,
                csv: config.csv,
                #[cfg(feature = "excel")]
                excel: config.excel,
            },
            &config.types,
            config.origin_columns,
        )?,
    };
    Ok(Box::new(FileSource {
        settings,
        reader: None,
        watch: None,
    }))
}

/// Declared types, checked.
pub(crate) fn types(types: &BTreeMap<String, String>) -> Result<Vec<(String, Type)>, ConfigError> {
    let named = types.iter().map(|(column, name)| match type_named(name) {
        Some(Type::List | Type::Any) | None => {
            let message = format!("'{name}' cannot be declared; there is {TYPE_NAMES} (without list and any)");
            Err(ConfigError::at(format!("types.{column}"), message))
        }
        Some(ty) => Ok((column.clone(), ty)),
    });
    named.collect()
}

/// A delimiter and, without a header, the columns.
pub(crate) fn csv_settings(
    config: CsvConfig,
    types: &[(String, Type)],
) -> Result<(u8, Option<Vec<String>>), ConfigError> {
    let delimiter = delimiter(&config.delimiter, "csv.delimiter")?;
    match (config.header, config.columns) {
        (true, None) => Ok((delimiter, None)),
        (true, Some(_)) => Err(ConfigError::at(
            "csv.columns",
            "the header names the columns; set csv.header = false",
        )),
        (false, None) => Err(ConfigError::at("csv.columns", "without a header, name the columns")),
        (false, Some(names)) if names.is_empty() => Err(ConfigError::at("csv.columns", "name at least one column")),
        (false, Some(names)) => {
            let checked = reader::header_shape(&names, types, "csv.columns");
            checked.map_err(|fault| ConfigError::at("csv.columns", fault.to_string()))?;
            Ok((delimiter, Some(names)))
        }
    }
}

/// A field separator as people write it.
pub(super) fn delimiter(text: &str, key: &str) -> Result<u8, ConfigError> {
    match text.as_bytes() {
        b"\\t" => Ok(b'\t'),
        [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r') => Ok(*byte),
        _ => Err(ConfigError::at(
            key,
            format!("'{text}' is not one ASCII character other than a quote or a line end"),
        )),
    }
}

struct Settings {
    path: PathBuf,
    once: bool,
    at_end: bool,
    parsing: Parsing,
}

impl Settings {
    fn reader(&self) -> Input {
        self.parsing.reader(&self.path, self.once)
    }
}

/// How a file becomes records, checked.
#[derive(Clone)]
pub(crate) struct Parsing {
    /// How one that is a table is opened.
    table: Option<Arc<Open>>,
    csv: Option<(u8, Option<Vec<String>>)>,
    is_json: bool,
    types: Vec<(String, Type)>,
    origin_columns: bool,
}

/// What a config says of a format.
pub(crate) struct FormatConfig {
    pub name: FormatName,
    pub csv: Option<CsvConfig>,
    #[cfg(feature = "excel")]
    pub excel: Option<ExcelConfig>,
}

impl Parsing {
    /// Checks what a config says.
    pub(crate) fn new(
        config: FormatConfig,
        declared: &BTreeMap<String, String>,
        origin_columns: bool,
    ) -> Result<Self, ConfigError> {
        let types = types(declared)?;
        let FormatConfig { name: format, csv, .. } = config;
        #[cfg(feature = "excel")]
        if format != FormatName::Excel && config.excel.is_some() {
            return Err(ConfigError::at("excel", "only for format = \"excel\""));
        }
        if format != FormatName::Csv && csv.is_some() {
            return Err(ConfigError::at("csv", "only for format = \"csv\""));
        }
        if format == FormatName::Lines && !types.is_empty() {
            return Err(ConfigError::at("types", "plain lines have one column, and it is text"));
        }
        if format.is_table() && origin_columns {
            return Err(ConfigError::at("origin_columns", "only for formats of lines"));
        }
        let table: Option<Arc<Open>> = match format {
            FormatName::JsonLines | FormatName::Csv | FormatName::Lines => None,
            #[cfg(feature = "parquet")]
            FormatName::Parquet if !types.is_empty() => {
                return Err(ConfigError::at("types", "Parquet says itself what its columns are"));
            }
            #[cfg(feature = "parquet")]
            FormatName::Parquet => Some(Arc::new(super::parquet::open)),
            #[cfg(feature = "excel")]
            FormatName::Excel => {
                let settings = excel::Settings::new(config.excel.unwrap_or_default(), types.clone())?;
                Some(Arc::new(move |file, name| settings.open(file, name)))
            }
        };
        Ok(Self {
            table,
            csv: match format {
                FormatName::Csv => Some(csv_settings(csv.unwrap_or_default(), &types)?),
                _ => None,
            },
            is_json: format == FormatName::JsonLines,
            types,
            origin_columns,
        })
    }

    /// A reader of one file, not opened.
    pub(crate) fn reader(&self, path: &Path, once: bool) -> Input {
        if let Some(open) = &self.table {
            return Input::Table(TableReader::new(path, Arc::clone(open)));
        }
        let format = match &self.csv {
            Some((delimiter, names)) => Format::Csv(Csv {
                delimiter: *delimiter,
                header: names.is_none(),
                names: names.clone(),
            }),
            None if self.is_json => Format::JsonLines,
            None => Format::Lines,
        };
        let types = match &self.csv {
            // Without a header all columns are known from the start.
            Some((_, Some(names))) => {
                let ty = |name: &String| {
                    self.types
                        .iter()
                        .find(|(known, _)| known == name)
                        .map(|(_, ty)| ty.clone())
                };
                names
                    .iter()
                    .map(|name| (name.clone(), ty(name).unwrap_or(Type::Text)))
                    .collect()
            }
            _ => self.types.clone(),
        };
        let name = path
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let tail = Tail::new(path.to_path_buf(), once);
        Input::Lines(Box::new(Reader::new(tail, format, types, name, self.origin_columns)))
    }
}

struct FileSource {
    settings: Settings,
    /// Away while a thread works with it.
    reader: Option<Input>,
    /// When to look. There once it is open.
    watch: Option<Watch>,
}

impl FileSource {
    async fn blocking<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Input) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let Some(mut reader) = self.reader.take() else {
            return Err(Fault::retry("the file source is not open"));
        };
        let done = tokio::task::spawn_blocking(move || {
            let result = work(&mut reader);
            (reader, result)
        });
        let (reader, result) = done
            .await
            .map_err(|error| Fault::retry(format!("reading the file broke off: {error}")))?;
        self.reader = Some(reader);
        result
    }
}

#[async_trait]
impl Source for FileSource {
    async fn open(&mut self, after: Option<&Position>) -> Result<(), Fault> {
        self.reader = Some(self.settings.reader());
        let (after, at_end, path) = (after.cloned(), self.settings.at_end, self.settings.path.clone());
        let open = move |reader: &mut Input| {
            reader.open(after.as_ref(), at_end)?;
            Ok(Watch::new(&path, &[], POLL))
        };
        self.watch = Some(self.blocking(open).await?);
        Ok(())
    }

    async fn read(&mut self) -> Result<Read, Fault> {
        let give_up = Instant::now() + READ_WAIT_MAX;
        loop {
            let watch = self
                .watch
                .as_mut()
                .ok_or_else(|| Fault::retry("the file source is not open"))?;
            if !watch.due(give_up).await {
                return Ok(Read::Idle);
            }
            let (wire, looked_at) = (watch.wire(), Instant::now());
            let look = move |reader: &mut Input| {
                if let Some(wire) = wire {
                    wire.arm();
                }
                let got = reader.read()?;
                Ok((got, reader.has_more()))
            };
            let (got, has_more) = self.blocking(look).await?;
            let found = match &got {
                Got::Wait => Found::Nothing,
                Got::Batch(_) if !has_more => Found::Some,
                Got::Batch(_) | Got::End => Found::More,
            };
            if let Some(watch) = &mut self.watch {
                watch.looked(looked_at, found);
            }
            match got {
                Got::Batch(batch) => return Ok(Read::Batch(batch)),
                Got::End => return Ok(Read::End),
                Got::Wait => {}
            }
        }
    }

    fn decode(&mut self, bytes: &[u8]) -> Result<Batch, String> {
        match &mut self.reader {
            Some(reader) => reader.decode(bytes),
            None => self.settings.reader().decode(bytes),
        }
    }

    async fn check(&mut self) -> Result<String, Trouble> {
        let (path, once) = (&self.settings.path, self.settings.once);
        let shown = path.display();
        match reach::readable_file(path)? {
            true => Ok(format!("{shown} can be read")),
            false if once => Err(reach::missing(
                format!("there is no file {shown}"),
                "correct the path, or follow it, to wait until it is there",
            )),
            false => Ok(format!("{shown} is not there yet, and is waited for")),
        }
    }

    async fn close(&mut self) {
        self.reader = None;
        self.watch = None;
    }
}
