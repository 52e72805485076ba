//! Records in a stream of bytes that cannot be read twice: what a pipe brings is cut into lines (or CSV records) and made
//! into batches as the source `file` does. Performs no I/O.

use std::collections::BTreeMap;

use bus_schema::{
    data::{Batch, Type},
    limits::{BATCH_BYTES_TARGET, RECORD_BYTES_MAX},
};
use flow::{ConfigError, Fault, Undecodable};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::file::{
    csv::CsvField,
    reader::{Csv, Format, Made, RecordError, cut, header_shape},
    rows::{self, Rows, Shape},
    source::{CsvConfig, csv_settings, types},
};

/// What lines are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FormatName {
    /// One JSON object per line; its fields become columns. Empty lines are passed over.
    #[default]
    JsonLines,
    /// Comma separated values (RFC 4180). An empty field is null, `""` is an empty text.
    Csv,
    /// Plain text; the column is called `line`.
    Lines,
}

/// Bytes on their way to becoming records.
pub(crate) struct Feed {
    format: Format,
    types: Vec<(String, Type)>,
    shape: Shape,
    /// What the batches are called, and messages about them.
    name: String,
    bytes: Vec<u8>,
    /// Bytes of these that have become records.
    used: usize,
    /// Lines before them.
    lines: u64,
    /// In the rest of a line that was too long.
    skipping: bool,
    ended: bool,
}

impl Feed {
    /// Checks the settings that stand in a config.
    pub(crate) fn new(
        name: &str,
        format: FormatName,
        csv: Option<CsvConfig>,
        declared: &BTreeMap<String, String>,
    ) -> Result<Self, ConfigError> {
        let declared = types(declared)?;
        if format != FormatName::Csv && csv.is_some() {
            return Err(ConfigError::at("csv", "only for format = \"csv\""));
        }
        let mut shape = Shape::new(declared.clone());
        let format = match format {
            FormatName::Lines if !declared.is_empty() => {
                return Err(ConfigError::at("types", "plain lines have one column, and it is text"));
            }
            FormatName::Lines => Format::Lines,
            FormatName::JsonLines => Format::JsonLines,
            FormatName::Csv => {
                let (delimiter, names) = csv_settings(csv.unwrap_or_default(), &declared)?;
                if let Some(names) = &names {
                    let known = header_shape(names, &declared, name);
                    shape = known.map_err(|fault| ConfigError::at("csv.columns", fault.to_string()))?;
                }
                let header = names.is_none();
                Format::Csv(Csv {
                    delimiter,
                    header,
                    names,
                })
            }
        };
        Ok(Self {
            format,
            types: declared,
            shape,
            name: name.to_string(),
            bytes: Vec::new(),
            used: 0,
            lines: 0,
            skipping: false,
            ended: false,
        })
    }

    /// Another stream begins; what was left of the one before is forgotten.
    pub(crate) fn restart(&mut self) {
        (self.used, self.lines, self.skipping, self.ended) = (0, 0, false, false);
        self.bytes = Vec::new();
        if let Format::Csv(csv) = &mut self.format
            && csv.header
        {
            csv.names = None;
        }
    }

    /// Where more bytes go. Never much more than a record and a batch.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        self.bytes.drain(..self.used);
        self.used = 0;
        &mut self.bytes
    }

    /// No more bytes will come: a last line without line end counts.
    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    /// Whether everything has become records.
    pub(crate) fn is_at_end(&self) -> bool {
        self.ended && self.used == self.bytes.len()
    }

    /// A batch of what is there. `None`: more bytes are needed (or there are none left).
    pub(crate) fn batch(&mut self) -> Result<Option<(Batch, Vec<Undecodable>)>, Fault> {
        let Self {
            format,
            types,
            shape,
            name,
            bytes,
            used,
            lines,
            skipping,
            ended,
        } = self;
        let (mut rows, mut fields, mut undecodable) = (Rows::new(), Vec::<CsvField<'_>>::new(), Vec::new());
        let mut undecodable_bytes = 0;
        while !rows.is_full() && undecodable_bytes < BATCH_BYTES_TARGET && *used < bytes.len() {
            let rest = &bytes[*used..];
            let place = *lines + 1;
            let mut refuse = |record: &[u8], cause: &str| {
                undecodable_bytes += record.len() + 64;
                undecodable.push(Undecodable {
                    bytes: cut(record),
                    reason: format!("{name}, line {place}: {cause}"),
                });
            };
            let Some((content, whole)) = format.record_end(rest, *ended, *skipping) else {
                if rest.len() <= RECORD_BYTES_MAX && !*ended {
                    break;
                }
                // Will not get an end: its first line is broken, or it is one endless line.
                let line_end = memchr::memchr(b'\n', rest);
                if !*skipping {
                    let cause = match line_end {
                        Some(_) => "a quoted field without its closing quote".to_string(),
                        None => format!("the line is longer than {RECORD_BYTES_MAX} bytes"),
                    };
                    refuse(&rest[..line_end.unwrap_or(rest.len())], &cause);
                }
                *skipping = line_end.is_none() && !*ended;
                *lines += u64::from(!*skipping);
                *used += line_end.map_or(rest.len(), |end| end + 1);
                continue;
            };
            let record = &rest[..content];
            let line_ends = memchr::memchr_iter(b'\n', &rest[..whole]).count().max(1) as u64;
            if std::mem::take(skipping) {
                (*used, *lines) = (*used + whole, *lines + line_ends);
                continue;
            }
            if rows.would_burst(content) {
                break;
            }
            let made = if content > RECORD_BYTES_MAX {
                Err(RecordError::Other(format!(
                    "the record is longer than {RECORD_BYTES_MAX} bytes"
                )))
            } else {
                let mut made = format.row(record, &mut rows, shape, &mut fields);
                if made == Err(RecordError::TooManyColumns) && rows.len() == 0 {
                    rows.undo();
                    shape.forget();
                    made = format.row(record, &mut rows, shape, &mut fields);
                }
                made
            };
            match made {
                Ok(Made::Row) => rows.end(),
                Ok(Made::Nothing) => {}
                Ok(Made::Header(names)) => {
                    rows.undo();
                    *shape = header_shape(&names, types, name)?;
                    if let Format::Csv(csv) = format {
                        csv.names = Some(names);
                    }
                }
                Err(RecordError::TooManyColumns) if rows.len() > 0 => {
                    rows.undo();
                    break;
                }
                Err(error) => {
                    rows.undo();
                    refuse(record, &error.to_string());
                }
            }
            (*used, *lines) = (*used + whole, *lines + line_ends);
        }
        if rows.len() == 0 && undecodable.is_empty() {
            return Ok(None);
        }
        let batch = match rows.len() {
            0 => rows::empty(name),
            _ => {
                let finished = rows.finish(shape, name);
                finished.map_err(|cause| Fault::stop(format!("{name}: {cause}")))?
            }
        };
        Ok(Some((batch, undecodable)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::testing::shown;

    fn feed(format: FormatName, types: &[(&str, &str)]) -> Feed {
        let types = types.iter().map(|(name, ty)| ((*name).to_string(), (*ty).to_string()));
        Feed::new("pipe", format, None, &types.collect()).unwrap()
    }

    /// Rows and reasons after the bytes came in pieces of this size.
    fn fed(feed: &mut Feed, bytes: &[u8], piece: usize) -> (String, String) {
        let (mut rows, mut reasons) = (Vec::new(), Vec::new());
        let mut drain = |feed: &mut Feed| {
            while let Some((batch, undecodable)) = feed.batch().unwrap() {
                rows.extend((batch.rows() > 0).then(|| shown(&batch)));
                reasons.extend(undecodable.into_iter().map(|input| input.reason));
            }
        };
        for piece in bytes.chunks(piece) {
            feed.buffer().extend_from_slice(piece);
            drain(feed);
        }
        feed.end();
        drain(feed);
        assert!(feed.is_at_end());
        (rows.join("\n"), reasons.join("\n"))
    }

    #[test]
    fn pieces_make_the_same_records() {
        for piece in [1, 2, 3, 7, 1000] {
            let lines = fed(&mut feed(FormatName::Lines, &[]), "a\r\nä\n\nlast".as_bytes(), piece);
            assert_eq!(lines, ("a\nä\n\nlast".to_string(), String::new()));
            let json = b"{\"a\": 1}\n\nno\n{\"a\": 2}\n\xff\n{\"a\":";
            let (rows, reasons) = fed(&mut feed(FormatName::JsonLines, &[("a", "i64")]), json, piece);
            assert_eq!(rows, "1\n2");
            let reasons: Vec<&str> = reasons.lines().collect();
            assert_eq!(reasons.len(), 3, "{reasons:?}");
            for (reason, line) in reasons.iter().zip([3, 5, 6]) {
                assert!(reason.starts_with(&format!("pipe, line {line}: not ")), "{reason}");
            }
            let csv = b"n,t\n1,\"x\ny\"\n2\n3,\"\"\n4,\n5,\"open\n";
            let (rows, reasons) = fed(&mut feed(FormatName::Csv, &[("n", "i64")]), csv, piece);
            assert_eq!(rows, "1|x\ny\n3|\n4|~");
            let wanted = "pipe, line 4: 1 fields for 2 columns\npipe, line 7: a quoted field without its closing quote";
            assert_eq!(reasons, wanted);
        }
    }

    #[test]
    fn a_new_stream_has_its_own_header() {
        let mut feed = feed(FormatName::Csv, &[]);
        assert_eq!(fed(&mut feed, b"a,b\n1,2\n", 100).0, "1|2");
        feed.restart();
        assert_eq!(fed(&mut feed, b"b\n3\n", 100).0, "3");
    }

    #[test]
    fn an_endless_line_takes_no_more_than_a_record() {
        let mut feed = feed(FormatName::JsonLines, &[]);
        let piece = vec![b' '; 8 * 1024 * 1024];
        let mut reasons = Vec::new();
        for _ in 0..=RECORD_BYTES_MAX / piece.len() + 2 {
            feed.buffer().extend_from_slice(&piece);
            while let Some((_, undecodable)) = feed.batch().unwrap() {
                reasons.extend(undecodable.into_iter().map(|input| input.reason));
            }
            assert!(feed.bytes.len() <= RECORD_BYTES_MAX + piece.len());
        }
        feed.buffer().extend_from_slice(b"\n{\"a\": 1}\n");
        let (batch, undecodable) = feed.batch().unwrap().unwrap();
        assert_eq!(
            (shown(&batch).as_str(), undecodable.len(), reasons.len()),
            ("1", 0, 1),
            "{reasons:?}"
        );
    }
}
