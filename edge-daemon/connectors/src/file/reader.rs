//! Makes batches of a followed file: records of one of the formats become rows, what is none becomes undecodable input.
//! Blocking; the source around it brings threads and pauses.

use std::{borrow::Cow, time::Instant};

use bus_schema::{
    data::{Batch, Type, Value},
    limits::{BATCH_BYTES_TARGET, RECORD_BYTES_MAX},
};
use flow::{Fault, Position, SourceBatch, Undecodable};

use super::{
    csv::{self, CsvField},
    json::{self, JsonError},
    rows::{self, RowError, Rows, Shape, Token},
    tail::{Advanced, AtEnd, Bookmark, Opened, Tail},
};

/// How much of something undecodable goes to the dead letters, in bytes: all of what could have been a record.
const UNDECODABLE_BYTES_MAX: usize = RECORD_BYTES_MAX;
/// Longest header of a CSV file, in bytes.
const HEADER_BYTES_MAX: usize = 256 * 1024;
/// What some editors put before the first character of a text file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How records are told apart and taken apart.
pub(crate) enum Format {
    Lines,
    JsonLines,
    Csv(Csv),
}

pub(crate) struct Csv {
    pub delimiter: u8,
    /// The first record of each file names the columns.
    pub header: bool,
    /// The columns of the file being read, once they are known.
    pub names: Option<Vec<String>>,
}

/// What [`Reader::read`] gave.
#[derive(Debug)]
pub(crate) enum Got {
    Batch(SourceBatch),
    /// Nothing new.
    Wait,
    End,
}

pub(crate) struct Reader {
    tail: Tail,
    format: Format,
    /// Declared column types, by name.
    types: Vec<(String, Type)>,
    shape: Shape,
    collection: String,
    origin_columns: bool,
    /// Found outside of any batch.
    undecodable: Vec<Undecodable>,
    /// The start itself is worth remembering: without it a restart would begin somewhere else.
    announce: bool,
}

/// Where a record stands.
#[derive(Clone, Copy)]
struct Place<'a> {
    file: &'a str,
    line: Option<u64>,
    offset: u64,
}

impl Place<'_> {
    fn tell(&self, cause: impl std::fmt::Display) -> String {
        match self.line {
            Some(line) => format!("{}:{line}: {cause}", self.file),
            None => format!("{} at byte {}: {cause}", self.file, self.offset),
        }
    }
}

impl Reader {
    pub(crate) fn new(
        tail: Tail,
        format: Format,
        types: Vec<(String, Type)>,
        collection: String,
        origin_columns: bool,
    ) -> Self {
        let shape = Shape::new(types.clone());
        Self {
            tail,
            format,
            types,
            shape,
            collection,
            origin_columns,
            undecodable: Vec::new(),
            announce: false,
        }
    }

    /// Goes to `after`, or to the start or end of the file.
    pub(crate) fn open(&mut self, after: Option<&Position>, at_end: bool) -> Result<(), Fault> {
        let bookmark = match after {
            Some(position) => Some(read_bookmark(position)?),
            None => None,
        };
        self.announce = bookmark.is_none() && at_end;
        match self
            .tail
            .open(bookmark.as_ref(), at_end)
            .map_err(|error| self.failed(&error))?
        {
            Opened::Ready => {}
            Opened::Lost => {
                let name = self.tail.name();
                let reason = format!(
                    "{name}: the file that was being read is gone (deleted or compressed) before its end was seen; lines \
                     may be missing. Reading starts at the beginning of what is there now"
                );
                tracing::warn!(file = name, "{reason}");
                self.undecodable.push(Undecodable {
                    bytes: Vec::new(),
                    reason,
                });
            }
        }
        self.forget_header();
        Ok(())
    }

    /// The next batch, if there is one now.
    pub(crate) fn read(&mut self) -> Result<Got, Fault> {
        if std::mem::take(&mut self.announce) && self.tail.is_open() {
            return Ok(Got::Batch(self.nothing()));
        }
        loop {
            let is_fresh = self.tail.fill().map_err(|error| self.failed(&error))?;
            if is_fresh || !self.tail.unread().is_empty() {
                let before = self.tail.offset();
                if let Some(batch) = self.parse(false)? {
                    return Ok(Got::Batch(batch));
                }
                if self.tail.offset() > before || is_fresh {
                    continue;
                }
            }
            if let Some(cause) = self.tail.take_broken() {
                self.give_up_rest(&cause);
            }
            match self.tail.at_end(Instant::now()).map_err(|error| self.failed(&error))? {
                AtEnd::Wait => return Ok(self.bad_news().map_or(Got::Wait, Got::Batch)),
                AtEnd::Final if !self.tail.unread().is_empty() => {
                    if let Some(batch) = self.parse(true)? {
                        return Ok(Got::Batch(batch));
                    }
                }
                AtEnd::Final => {
                    let advanced = self.tail.advance().map_err(|error| self.failed(&error))?;
                    if advanced == Advanced::Finished {
                        return Ok(self.bad_news().map_or(Got::End, Got::Batch));
                    }
                    tracing::debug!(file = self.tail.name(), "the next file");
                    self.forget_header();
                }
                AtEnd::Moved => self.restart()?,
            }
        }
    }

    /// Whether the file that is being read holds more lines than were taken from it.
    pub(crate) fn has_more(&self) -> bool {
        memchr::memchr(b'\n', self.tail.unread()).is_some() || self.tail.is_behind()
    }

    fn restart(&mut self) -> Result<(), Fault> {
        let name = self.tail.name();
        let place = Place {
            file: &name,
            line: self.tail.line().map(|line| line + 1),
            offset: self.tail.offset(),
        };
        let unfinished = cut(self.tail.unread());
        let is_copied = self.tail.restart().map_err(|error| self.failed(&error))?;
        if is_copied {
            tracing::info!(
                file = name,
                copy = self.tail.name(),
                "the file was copied and truncated: going on in the copy"
            );
        } else {
            tracing::warn!(
                file = name,
                "the file was truncated or replaced in place: starting again at its beginning"
            );
            if !unfinished.is_empty() {
                let reason = place.tell("the file was truncated in the middle of this line");
                self.undecodable.push(Undecodable {
                    bytes: unfinished,
                    reason,
                });
            }
        }
        self.forget_header();
        Ok(())
    }

    /// What cannot be unpacked is told of, with the record that breaks off before it.
    fn give_up_rest(&mut self, cause: &str) {
        let name = self.tail.name();
        let rest = self.tail.unread().len();
        // After a restart here, it has been told.
        if !self.tail.is_skipping() {
            let place = Place {
                file: &name,
                line: self.tail.line().map(|line| line + 1),
                offset: self.tail.offset(),
            };
            let reason = place.tell(format!("the rest of the file cannot be unpacked: {cause}"));
            tracing::warn!(file = name, "{reason}");
            self.undecodable.push(Undecodable {
                bytes: cut(self.tail.unread()),
                reason,
            });
        }
        self.tail.consume(rest, 0);
        self.tail.set_skipping(true);
    }

    fn forget_header(&mut self) {
        if let Format::Csv(csv) = &mut self.format
            && csv.header
        {
            csv.names = None;
        }
    }

    fn failed(&self, error: &std::io::Error) -> Fault {
        Fault::retry(format!("cannot read {}: {error}", self.tail.name()))
    }

    /// A batch of what was found outside of any batch.
    fn bad_news(&mut self) -> Option<SourceBatch> {
        (!self.undecodable.is_empty()).then(|| self.nothing())
    }

    fn nothing(&mut self) -> SourceBatch {
        SourceBatch {
            batch: rows::empty(&self.collection),
            position: position(&self.tail.bookmark()),
            undecodable: std::mem::take(&mut self.undecodable),
        }
    }

    /// Makes a record of the bytes of one that could not be read before. Only where a record stands for itself, and where
    /// nothing but the record becomes columns.
    pub(crate) fn decode(&mut self, bytes: &[u8]) -> Result<Batch, String> {
        if !matches!(self.format, Format::JsonLines) || self.origin_columns {
            return Err("only JSON lines without origin columns can be read again: mend the file".to_string());
        }
        if bytes.len() >= UNDECODABLE_BYTES_MAX {
            return Err("it is not kept whole: mend the file".to_string());
        }
        let (mut rows, mut fields) = (Rows::new(), Vec::new());
        match self.format.row(bytes, &mut rows, &mut self.shape, &mut fields) {
            Ok(Made::Row) => rows.end(),
            Ok(Made::Nothing | Made::Header(_)) => return Err("there is no record in it".to_string()),
            Err(error) => return Err(error.to_string()),
        }
        rows.finish(&mut self.shape, &self.collection)
            .map_err(|error| error.to_string())
    }

    /// Makes a batch of the unread bytes, as far as they go. `last`: a last line without end is complete. `None`: there is
    /// no record, though lines may have been passed over.
    fn parse(&mut self, last: bool) -> Result<Option<SourceBatch>, Fault> {
        self.find_header()?;
        let file = self.tail.name();
        let (start_line, start_offset) = (self.tail.line(), self.tail.offset());
        let mut skipping = self.tail.is_skipping();
        let mut undecodable = std::mem::take(&mut self.undecodable);
        let mut undecodable_bytes = 0;
        let window = self.tail.unread();
        let mut at = if start_offset == 0 && window.starts_with(BYTE_ORDER_MARK) {
            BYTE_ORDER_MARK.len()
        } else {
            0
        };
        let mut lines = 0;
        let mut fields: Vec<CsvField<'_>> = Vec::new();
        let mut rows = Rows::new();
        while !rows.is_full() && undecodable_bytes < BATCH_BYTES_TARGET && at < window.len() {
            let rest = &window[at..];
            let place = Place {
                file: &file,
                line: start_line.map(|line| line + lines + 1),
                offset: start_offset + at as u64,
            };
            let refuse = |bytes: &[u8], cause: String| Undecodable {
                bytes: cut(bytes),
                reason: place.tell(cause),
            };
            let Some((content, whole)) = self.format.record_end(rest, last, skipping) else {
                if !(last || rest.len() > RECORD_BYTES_MAX) || rows.len() > 0 {
                    break;
                }
                // Will not get an end: either its first line is broken, or it is one endless line.
                let line_end = memchr::memchr(b'\n', rest);
                if !skipping {
                    let cause = match line_end {
                        Some(_) => "a quoted field without its closing quote".to_string(),
                        None => format!("the line is longer than {RECORD_BYTES_MAX} bytes"),
                    };
                    undecodable.push(refuse(&rest[..line_end.unwrap_or(rest.len())], cause));
                }
                skipping = line_end.is_none() && !last;
                lines += u64::from(!skipping);
                at += line_end.map_or(rest.len(), |end| end + 1);
                break;
            };
            let line_ends = if matches!(self.format, Format::Csv(_)) {
                count_lines(&rest[..whole])
            } else {
                1
            };
            if std::mem::take(&mut skipping) {
                (at, lines) = (at + whole, lines + line_ends);
                continue;
            }
            if rows.would_burst(content) {
                break;
            }
            let record = &rest[..content];
            let made = if content > RECORD_BYTES_MAX {
                Err(RecordError::Other(format!(
                    "the record is longer than {RECORD_BYTES_MAX} bytes"
                )))
            } else {
                let mut made = self.format.row(record, &mut rows, &mut self.shape, &mut fields);
                if made == Err(RecordError::TooManyColumns) && rows.len() == 0 {
                    // The columns remembered from other records leave no room: forget them.
                    rows.undo();
                    self.shape.forget();
                    made = self.format.row(record, &mut rows, &mut self.shape, &mut fields);
                }
                match made {
                    Ok(Made::Row) if self.origin_columns => {
                        add_origin(place, &mut rows, &mut self.shape).map(|()| Made::Row)
                    }
                    made => made,
                }
            };
            match made {
                Ok(Made::Row) => rows.end(),
                Ok(Made::Nothing) => {}
                Ok(Made::Header(names)) => {
                    rows.undo();
                    self.shape = header_shape(&names, &self.types, &file)?;
                    if let Format::Csv(csv) = &mut self.format {
                        csv.names = Some(names);
                    }
                }
                Err(RecordError::TooManyColumns) if rows.len() > 0 => {
                    rows.undo();
                    break;
                }
                Err(error) => {
                    rows.undo();
                    undecodable_bytes += record.len().min(UNDECODABLE_BYTES_MAX) + 64;
                    undecodable.push(refuse(record, error.to_string()));
                }
            }
            (at, lines) = (at + whole, lines + line_ends);
        }
        let batch = if rows.len() > 0 {
            let batch = rows.finish(&mut self.shape, &self.collection);
            Some(batch.map_err(|cause| Fault::stop(format!("{file}: {cause}")))?)
        } else {
            (!undecodable.is_empty()).then(|| rows::empty(&self.collection))
        };
        self.tail.consume(at, lines);
        self.tail.set_skipping(skipping);
        Ok(batch.map(|batch| SourceBatch {
            batch,
            position: position(&self.tail.bookmark()),
            undecodable,
        }))
    }

    /// In the middle of a CSV file the header is at its beginning.
    fn find_header(&mut self) -> Result<(), Fault> {
        let Format::Csv(csv) = &mut self.format else {
            return Ok(());
        };
        if csv.names.is_some() || self.tail.offset() == 0 {
            return Ok(());
        }
        let name = self.tail.name();
        let broken = |cause: String| Fault::stop(format!("{name}: the header cannot be read: {cause}"));
        let beginning = self
            .tail
            .beginning(HEADER_BYTES_MAX)
            .map_err(|error| broken(error.to_string()))?;
        let bytes = beginning.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&beginning);
        let (content, _) = csv::record_end(bytes, csv.delimiter, bytes.len() < HEADER_BYTES_MAX)
            .ok_or_else(|| broken(format!("it does not end within {HEADER_BYTES_MAX} bytes")))?;
        let text = std::str::from_utf8(&bytes[..content]).map_err(|error| broken(error.to_string()))?;
        let mut fields = Vec::new();
        csv::fields(text, csv.delimiter, &mut fields).map_err(broken)?;
        let names = header_names(&fields);
        self.shape = header_shape(&names, &self.types, &name)?;
        csv.names = Some(names);
        Ok(())
    }
}

/// What a record became.
#[derive(Debug, PartialEq)]
pub(crate) enum Made {
    Row,
    /// An empty line.
    Nothing,
    Header(Vec<String>),
}

/// Why a record did not become a row.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("{}", RowError::TooManyColumns)]
    TooManyColumns,
    #[error("{0}")]
    Other(String),
}

impl From<RowError> for RecordError {
    fn from(error: RowError) -> Self {
        match error {
            RowError::TooManyColumns => RecordError::TooManyColumns,
            error => RecordError::Other(error.to_string()),
        }
    }
}

impl Format {
    /// Where the first record ends: the length of its content, and with its line end.
    pub(crate) fn record_end(&self, bytes: &[u8], last: bool, skipping: bool) -> Option<(usize, usize)> {
        if let Format::Csv(csv) = self
            && !skipping
        {
            return csv::record_end(bytes, csv.delimiter, last);
        }
        match memchr::memchr(b'\n', bytes) {
            Some(end) => Some((end, end + 1)),
            None => (last && !bytes.is_empty()).then_some((bytes.len(), bytes.len())),
        }
    }

    /// Fills a row with the fields of a record.
    pub(crate) fn row<'a>(
        &self,
        record: &'a [u8],
        rows: &mut Rows<'a>,
        shape: &mut Shape,
        fields: &mut Vec<CsvField<'a>>,
    ) -> Result<Made, RecordError> {
        let other = |cause: &dyn std::fmt::Display| RecordError::Other(cause.to_string());
        let text = std::str::from_utf8(record).map_err(|error| other(&format!("not UTF-8: {error}")))?;
        match self {
            Format::Lines => {
                let line = text.strip_suffix('\r').unwrap_or(text);
                rows.set(shape, "line", Token::Text(Cow::Borrowed(line)))?;
                Ok(Made::Row)
            }
            Format::JsonLines => {
                if text.trim_ascii().is_empty() {
                    return Ok(Made::Nothing);
                }
                json::object(text, |name, token| rows.set(shape, name, token)).map_err(|error| match error {
                    JsonError::Row(error) => error.into(),
                    error => other(&error),
                })?;
                if rows.has_fields() {
                    Ok(Made::Row)
                } else {
                    Err(other(&"an object without fields is not a record"))
                }
            }
            Format::Csv(csv) => {
                csv::fields(text, csv.delimiter, fields).map_err(|cause| other(&cause))?;
                let Some(names) = &csv.names else {
                    return Ok(Made::Header(header_names(fields)));
                };
                if text.is_empty() && names.len() > 1 {
                    return Ok(Made::Nothing);
                }
                if fields.len() != names.len() {
                    return Err(other(&format!("{} fields for {} columns", fields.len(), names.len())));
                }
                for (field, name) in fields.drain(..).zip(names) {
                    let is_null = field.text.is_empty() && !field.quoted;
                    rows.set(shape, name, if is_null { Token::Null } else { Token::Text(field.text) })?;
                }
                Ok(Made::Row)
            }
        }
    }
}

/// Names of the columns: a field without a name is called by its number.
fn header_names(fields: &[CsvField<'_>]) -> Vec<String> {
    let name = |(index, field): (usize, &CsvField<'_>)| match field.text.trim() {
        "" => format!("column_{}", index + 1),
        name => name.to_string(),
    };
    fields.iter().enumerate().map(name).collect()
}

/// All columns of a CSV file are declared: text, unless the config says otherwise.
pub(crate) fn header_shape(names: &[String], types: &[(String, Type)], file: &str) -> Result<Shape, Fault> {
    if let Some((index, twice)) = names
        .iter()
        .enumerate()
        .find(|(index, name)| names[..*index].contains(name))
    {
        return Err(Fault::stop(format!(
            "{file}: columns {} and {} are both called '{twice}': rename one, or set csv.header = false and csv.columns",
            names.iter().position(|name| name == twice).unwrap_or(0) + 1,
            index + 1,
        )));
    }
    if let Some((unknown, _)) = types.iter().find(|(name, _)| !names.contains(name)) {
        let listed = names.join(", ");
        return Err(Fault::stop(format!(
            "{file}: types names '{unknown}', but the columns are {listed}"
        )));
    }
    let ty = |name: &String| {
        types
            .iter()
            .find(|(known, _)| known == name)
            .map_or(Type::Text, |(_, ty)| ty.clone())
    };
    Ok(Shape::new(names.iter().map(|name| (name.clone(), ty(name))).collect()))
}

fn add_origin<'a>(place: Place<'a>, rows: &mut Rows<'a>, shape: &mut Shape) -> Result<(), RecordError> {
    rows.set(shape, "_file", Token::Text(Cow::Borrowed(place.file)))?;
    rows.set(
        shape,
        "_line",
        place.line.map_or(Token::Null, |line| Token::Value(Value::U64(line))),
    )?;
    rows.set(shape, "_offset", Token::Value(Value::U64(place.offset)))?;
    Ok(())
}

fn count_lines(bytes: &[u8]) -> u64 {
    (memchr::memchr_iter(b'\n', bytes).count() as u64).max(1)
}

pub(crate) fn cut(bytes: &[u8]) -> Vec<u8> {
    bytes[..bytes.len().min(UNDECODABLE_BYTES_MAX)].to_vec()
}

fn position(bookmark: &Bookmark) -> Position {
    Position::new(serde_json::to_vec(bookmark).unwrap_or_default())
}

fn read_bookmark(position: &Position) -> Result<Bookmark, Fault> {
    let unknown = || Fault::stop("the stored position is not one of a file source: was the workflow's source changed?");
    let bookmark: Bookmark = serde_json::from_slice(position.as_bytes()).map_err(|_| unknown())?;
    if bookmark.v == 1 { Ok(bookmark) } else { Err(unknown()) }
}
