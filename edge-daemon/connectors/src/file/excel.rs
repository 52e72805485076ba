//! A sheet of an Excel workbook (`.xlsx`, `.xlsm`) as rows of a table. A thread of its own reads it, one batch ahead: what the
//! crate reads from belongs to the workbook. In memory are the texts that cells share, and a batch.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, BufReader, Read as _, Seek as _},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
};

use bus_schema::data::{Type, Value};
use calamine::{DataRef, ExcelDateTime, Reader as _, Xlsx};
use flow::{ConfigError, Undecodable};
use schemars::JsonSchema;
use serde::Deserialize;
use zip::ZipArchive;

use super::{
    reader::header_shape,
    rows::{RowError, Rows, Shape, Token},
    table::{Section, Table},
};
use crate::names::hint;

/// Largest workbook, in bytes: the texts in it are in memory, and unpacked.
const BYTES_MAX: u64 = 64 * 1024 * 1024;
/// What may be unpacked of the parts that are in memory, in bytes: all but the sheets.
const UNPACKED_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Where the sheets are, which are read row by row.
const SHEETS: &str = "xl/worksheets/";
/// Columns that a sheet can have: XFD is the last.
const COLUMNS: u32 = 16_384;
/// Batches that are read before they are asked for.
const AHEAD: usize = 1;
/// Whole numbers up to here are what they look like.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
const DAY_NANOS: i128 = 86_400_000_000_000;

/// Which part of a workbook is the table.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ExcelConfig {
    /// The sheet, by its name or its number, from 1. Default: the first.
    sheet: Option<Which>,
    /// The number of the row that names the columns, from 1. Default: the first that is not empty. What is above it is passed
    /// over.
    header_row: Option<u32>,
    /// The names of the columns of a sheet without such a row.
    columns: Option<Vec<String>>,
}

/// A sheet.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "the name of a sheet, or its number")]
enum Which {
    /// By number, from 1.
    Number(usize),
    /// By name.
    Name(String),
}

/// What to read of a workbook, checked.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    config: ExcelConfig,
    types: Vec<(String, Type)>,
}

impl Settings {
    /// Checks what a config says.
    pub(crate) fn new(config: ExcelConfig, types: Vec<(String, Type)>) -> Result<Self, ConfigError> {
        if matches!(config.sheet, Some(Which::Number(0))) {
            return Err(ConfigError::at("excel.sheet", "the first sheet is number 1"));
        }
        if config.header_row == Some(0) {
            return Err(ConfigError::at("excel.header_row", "the first row is number 1"));
        }
        if let Some(names) = &config.columns {
            if config.header_row.is_some() {
                return Err(ConfigError::at(
                    "excel.columns",
                    "the header names the columns: give one of the two",
                ));
            }
            if names.is_empty() {
                return Err(ConfigError::at("excel.columns", "name at least one column"));
            }
            let checked = header_shape(names, &types, "excel.columns");
            checked.map_err(|fault| ConfigError::at("excel.columns", fault.to_string()))?;
        }
        Ok(Self { config, types })
    }

    /// The rows of a workbook's sheet.
    pub(crate) fn open(&self, file: File, collection: &str) -> Result<Box<dyn Table>, String> {
        let size = file.metadata().map_err(|error| error.to_string())?.len();
        if size > BYTES_MAX {
            return Err(format!("it has {size} bytes, and a workbook may have {BYTES_MAX}"));
        }
        Ok(Box::new(Sheet {
            unread: Some(Work {
                file,
                settings: self.clone(),
                collection: collection.to_string(),
                skip: 0,
            }),
            sections: None,
        }))
    }
}

/// A sheet being read.
struct Sheet {
    unread: Option<Work>,
    sections: Option<Receiver<Result<Section, String>>>,
}

/// What the thread has to do.
struct Work {
    file: File,
    settings: Settings,
    collection: String,
    /// Rows to go past.
    skip: u64,
}

impl Table for Sheet {
    fn skip(&mut self, rows: u64) -> Result<(), String> {
        if let Some(work) = &mut self.unread {
            work.skip = rows;
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Section>, String> {
        if let Some(work) = self.unread.take() {
            let (sender, receiver) = sync_channel(AHEAD);
            self.sections = Some(receiver);
            let reading = move || {
                // The end of the thread would look like the end of the sheet.
                let read = catch_unwind(AssertUnwindSafe(|| work.read(&sender)));
                if let Err(cause) = read.unwrap_or_else(|_| Err("it is damaged in a way nobody has met".to_string())) {
                    // Nobody wants to know any more.
                    let _ = sender.send(Err(cause));
                }
            };
            let thread = std::thread::Builder::new().name("excel".to_string());
            thread.spawn(reading).map_err(|error| error.to_string())?;
        }
        // The thread ends after the last row.
        self.sections
            .as_ref()
            .and_then(|sections| sections.recv().ok())
            .transpose()
    }
}

/// How many bytes the parts unpack to that will be in memory, by unpacking them: what they say of themselves may be wrong. Stops
/// behind `most`. Leaves the file where it begins.
fn unpacked(file: &File, most: u64) -> Result<u64, String> {
    let no_workbook = |error: &dyn std::fmt::Display| format!("it is no workbook: {error}");
    let mut parts = ZipArchive::new(BufReader::new(file)).map_err(|error| no_workbook(&error))?;
    let mut bytes = 0;
    for index in 0..parts.len() {
        let part = parts.by_index(index).map_err(|error| no_workbook(&error))?;
        let name = String::from_utf8_lossy(part.name_raw()).to_ascii_lowercase();
        // Pictures and the like are not read.
        let is_read = name.ends_with(".xml") || name.ends_with(".rels");
        if !is_read || name.starts_with(SHEETS) {
            continue;
        }
        let mut part = part.take(most + 1 - bytes);
        bytes += io::copy(&mut part, &mut io::sink()).map_err(|error| no_workbook(&error))?;
        if bytes > most {
            break;
        }
    }
    let mut file = file;
    file.rewind().map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// A cell that is not empty.
enum Content {
    Value(Value),
    /// A date or time: nanoseconds since 1970, or of a span.
    Moment(i128),
    Span(i128),
    Error(String),
}

impl Work {
    fn read(self, sender: &SyncSender<Result<Section, String>>) -> Result<(), String> {
        let unpacked = unpacked(&self.file, UNPACKED_BYTES_MAX)?;
        if unpacked > UNPACKED_BYTES_MAX {
            return Err(format!(
                "the texts in it take more than {UNPACKED_BYTES_MAX} bytes when they are unpacked: save it as CSV, or as several \
                 workbooks"
            ));
        }
        let mut workbook =
            Xlsx::new(BufReader::new(self.file)).map_err(|error| format!("it is no workbook: {error}"))?;
        let names = workbook.sheet_names();
        let name = match &self.settings.config.sheet {
            None => names.first().ok_or("it has no sheet")?,
            Some(Which::Number(number)) => names
                .get(number - 1)
                .ok_or_else(|| format!("there is no sheet {number}: it has {}", names.len()))?,
            Some(Which::Name(name)) => names.iter().find(|it| *it == name).ok_or_else(|| {
                let hint = hint(name, names.iter().map(String::as_str));
                format!("there is no sheet '{name}'{hint}")
            })?,
        };
        let mut cells = workbook
            .worksheet_cells_reader(name)
            .map_err(|error| error.to_string())?;
        let config = &self.settings.config;
        let mut reading = Reading {
            header: config.columns.clone(),
            header_row: config.header_row.map(|row| row - 1),
            shape: Shape::new(self.settings.types.clone()),
            types: self.settings.types,
            collection: self.collection,
            skip: self.skip,
            rows: Rows::new(),
            undecodable: Vec::new(),
            passed: 0,
        };
        let mut row: Vec<(u32, Content)> = Vec::new();
        let mut at = 0;
        loop {
            let cell = cells.next_cell().map_err(|error| format!("row {}: {error}", at + 1))?;
            let is_over = cell.is_none();
            let position = cell.as_ref().map(|cell| cell.get_position());
            let has_ended = is_over || position.is_some_and(|(now, _)| now != at);
            if has_ended && !row.is_empty() && !reading.row(at, std::mem::take(&mut row), sender)? {
                return Ok(());
            }
            let Some(cell) = cell else { break };
            let (now, column) = cell.get_position();
            if column >= COLUMNS {
                return Err(format!(
                    "row {}: a cell beyond the last column that a sheet can have",
                    now + 1
                ));
            }
            at = now;
            row.extend(content(cell.get_value()).map(|content| (column, content)));
        }
        reading.send(sender).map(drop)
    }
}

/// How far a sheet is read.
struct Reading {
    header: Option<Vec<String>>,
    /// From 0.
    header_row: Option<u32>,
    types: Vec<(String, Type)>,
    shape: Shape,
    collection: String,
    skip: u64,
    rows: Rows<'static>,
    undecodable: Vec<Undecodable>,
    /// Rows of the section.
    passed: u64,
}

impl Reading {
    /// Takes a row that is not empty. `false`: nobody wants more.
    fn row(
        &mut self,
        at: u32,
        cells: Vec<(u32, Content)>,
        sender: &SyncSender<Result<Section, String>>,
    ) -> Result<bool, String> {
        if self.header.is_none() {
            if self.header_row.is_some_and(|wanted| at < wanted) {
                return Ok(true);
            }
            if let Some(wanted) = self.header_row.filter(|wanted| at > *wanted) {
                return Err(format!("row {} is empty, and has to name the columns", wanted + 1));
            }
            let names = names(&cells);
            // Names that are there twice, or types of columns that are not.
            header_shape(&names, &self.types, &self.collection).map_err(|fault| fault.to_string())?;
            self.header = Some(names);
            return Ok(true);
        }
        if self.skip > 0 {
            self.skip -= 1;
            return Ok(true);
        }
        let text = shown(&cells);
        if let Err(cause) = self.put(cells) {
            self.rows.undo();
            self.undecodable.push(Undecodable {
                bytes: text.into_bytes(),
                reason: format!("{}, row {}: {cause}", self.collection, at + 1),
            });
        }
        self.passed += 1;
        if self.rows.is_full() {
            self.send(sender)
        } else {
            Ok(true)
        }
    }

    fn put(&mut self, cells: Vec<(u32, Content)>) -> Result<(), RowError> {
        let header = self.header.as_deref().unwrap_or_default();
        let types = &self.types;
        let mut cells = cells.into_iter().peekable();
        for (place, name) in header.iter().enumerate() {
            let content = cells
                .next_if(|(column, _)| *column as usize == place)
                .map(|(_, content)| content);
            let ty = types.iter().find(|(known, _)| known == name).map(|(_, ty)| ty);
            self.rows.set(&mut self.shape, name, token(name, content, ty)?)?;
        }
        for (column, content) in cells {
            let name = format!("column_{}", column + 1);
            let token = token(&name, Some(content), None)?;
            self.rows.set(&mut self.shape, &name, token)?;
        }
        self.rows.end();
        Ok(())
    }

    /// Gives away what was read. `false`: nobody wants more.
    fn send(&mut self, sender: &SyncSender<Result<Section, String>>) -> Result<bool, String> {
        if self.passed == 0 {
            return Ok(true);
        }
        let rows = std::mem::replace(&mut self.rows, Rows::new());
        let batch = match rows.len() {
            0 => super::rows::empty(&self.collection),
            _ => rows.finish(&mut self.shape, &self.collection)?,
        };
        let section = Section {
            batch,
            undecodable: std::mem::take(&mut self.undecodable),
            rows: std::mem::take(&mut self.passed),
        };
        Ok(sender.send(Ok(section)).is_ok())
    }
}

/// What is in a cell, if anything is.
fn content(value: &DataRef<'_>) -> Option<Content> {
    Some(match value {
        DataRef::Empty => return None,
        DataRef::Int(v) => Content::Value(Value::I64(*v)),
        DataRef::Float(v) => Content::Value(Value::F64(*v)),
        DataRef::String(v) => Content::Value(Value::Text(v.clone())),
        DataRef::SharedString(v) => Content::Value(Value::Text((*v).to_string())),
        DataRef::Bool(v) => Content::Value(Value::Bool(*v)),
        DataRef::DateTime(v) if v.is_duration() => Content::Span(nanos(v.as_f64())),
        DataRef::DateTime(v) => Content::Moment(moment(v)),
        DataRef::DateTimeIso(v) | DataRef::DurationIso(v) => Content::Value(Value::Text(v.clone())),
        DataRef::Error(v) => Content::Error(v.to_string()),
    })
}

/// Days as nanoseconds; Excel's own times have milliseconds.
fn nanos(days: f64) -> i128 {
    ((days * 86_400_000.0).round() as i128).saturating_mul(1_000_000)
}

/// Nanoseconds since 1970.
fn moment(value: &ExcelDateTime) -> i128 {
    let (year, month, day, hour, minute, second, millis) = value.to_ymd_hms_milli();
    // Howard Hinnant, "chrono-compatible low-level date algorithms".
    let (year, month, day) = (i128::from(year), i128::from(month), i128::from(day));
    let shifted = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (shifted.div_euclid(400), shifted.rem_euclid(400));
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    let seconds = (i128::from(hour) * 60 + i128::from(minute)) * 60 + i128::from(second);
    days * DAY_NANOS + seconds * 1_000_000_000 + i128::from(millis) * 1_000_000
}

/// A cell's value for a column: as the cell has it, or as text that its declared type is read from.
fn token(name: &str, content: Option<Content>, ty: Option<&Type>) -> Result<Token<'static>, RowError> {
    let Some(content) = content else { return Ok(Token::Null) };
    let value = match content {
        Content::Value(value) => value,
        Content::Error(error) => {
            return Err(RowError::Value {
                column: name.to_string(),
                cause: format!("holds the error {error}"),
            });
        }
        Content::Moment(nanos) => match ty {
            Some(Type::Date) if nanos.rem_euclid(DAY_NANOS) == 0 => Value::Date((nanos / DAY_NANOS) as i32),
            Some(Type::Time) => Value::Time(nanos.rem_euclid(DAY_NANOS) as u64),
            Some(Type::Timestamp(bus_schema::data::Zone::Utc)) => Value::TimestampUtc(nanos),
            _ => Value::Timestamp(nanos),
        },
        Content::Span(nanos) if (0..DAY_NANOS).contains(&nanos) => Value::Time(nanos as u64),
        Content::Span(nanos) => {
            let (sign, seconds) = (if nanos < 0 { "-" } else { "" }, nanos.unsigned_abs() / 1_000_000_000);
            let text = format!(
                "{sign}{:02}:{:02}:{:02}",
                seconds / 3600,
                seconds / 60 % 60,
                seconds % 60
            );
            Value::Text(text)
        }
    };
    if ty.is_none() {
        return Ok(Token::Value(value));
    }
    let text = match value {
        // Every number of Excel is a float.
        Value::F64(v) if v.fract() == 0.0 && v.abs() <= WHOLE_MAX => format!("{v:.0}"),
        Value::Text(text) => text,
        value => value.as_cell().to_string(),
    };
    Ok(Token::Text(Cow::Owned(text)))
}

/// Names of columns: one without is called by its number.
fn names(cells: &[(u32, Content)]) -> Vec<String> {
    let last = cells.iter().map(|(column, _)| *column).max().unwrap_or(0);
    let name = |place: u32| {
        let found = cells.iter().find(|(column, _)| *column == place);
        let text = found.map(|(_, content)| plain(content)).unwrap_or_default();
        match text.trim() {
            "" => format!("column_{}", place + 1),
            name => name.to_string(),
        }
    };
    (0..=last).map(name).collect()
}

/// A row for a person.
fn shown(cells: &[(u32, Content)]) -> String {
    let texts = cells.iter().map(|(_, content)| plain(content));
    texts.collect::<Vec<_>>().join("\t")
}

fn plain(content: &Content) -> String {
    match content {
        Content::Value(Value::F64(v)) if v.fract() == 0.0 && v.abs() <= WHOLE_MAX => format!("{v:.0}"),
        Content::Value(value) => value.as_cell().to_string(),
        Content::Moment(nanos) => Value::Timestamp(*nanos).as_cell().to_string(),
        Content::Span(nanos) => format!("{} ms", nanos / 1_000_000),
        Content::Error(error) => error.clone(),
    }
}
