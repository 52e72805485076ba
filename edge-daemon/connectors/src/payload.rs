//! Messages of one payload each on their way into a batch: what the payload is, and what came beside it. Knows no protocol.

use std::borrow::Cow;

use bus_schema::{
    data::{Batch, Value},
    limits::RECORD_BYTES_MAX,
};
use flow::Undecodable;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::file::{
    json::{self, JsonError},
    reader::cut,
    rows::{self, RowError, Rows, Shape, Token},
};

/// What a payload is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Format {
    /// A JSON object: its fields become columns. What came beside it has columns that begin with `_`.
    #[default]
    Json,
    /// UTF-8 text, in the column `payload`. What came beside it has columns of plain names.
    Text,
    /// Any bytes: the same columns.
    Bytes,
}

/// One message.
pub(crate) trait Message {
    /// What it brings.
    fn payload(&self) -> &[u8];
    /// What came beside it: names that begin with `_`.
    fn beside(&self) -> Vec<(&'static str, Token<'_>)>;
    /// What to call it when it is broken.
    fn name(&self) -> String;
}

/// Why a message did not become a row.
enum Failed {
    Full,
    Other(String),
}

impl From<RowError> for Failed {
    fn from(error: RowError) -> Self {
        match error {
            RowError::TooManyColumns => Failed::Full,
            error => Failed::Other(error.to_string()),
        }
    }
}

/// A batch of the first messages, what could not be read, and how many messages that were.
pub(crate) fn batch<M: Message>(
    messages: &[M],
    format: Format,
    shape: &mut Shape,
    collection: &str,
) -> Result<(Batch, Vec<Undecodable>, usize), String> {
    let (mut rows, mut undecodable, mut taken) = (Rows::new(), Vec::new(), 0);
    for message in messages {
        let mut made = row(message, format, shape, &mut rows);
        if matches!(made, Err(Failed::Full)) && rows.len() == 0 {
            // The columns remembered from other messages leave no room: forget them.
            rows.undo();
            shape.forget();
            made = row(message, format, shape, &mut rows);
        }
        match made {
            Ok(()) => rows.end(),
            Err(Failed::Full) if rows.len() > 0 => {
                rows.undo();
                break;
            }
            Err(failed) => {
                rows.undo();
                let cause = match failed {
                    Failed::Full => RowError::TooManyColumns.to_string(),
                    Failed::Other(cause) => cause,
                };
                undecodable.push(Undecodable {
                    bytes: cut(message.payload()),
                    reason: format!("{}: {cause}", message.name()),
                });
            }
        }
        taken += 1;
    }
    let batch = match rows.len() {
        0 => rows::empty(collection),
        _ => rows.finish(shape, collection)?,
    };
    Ok((batch, undecodable, taken))
}

fn row<'a, M: Message>(message: &'a M, format: Format, shape: &mut Shape, rows: &mut Rows<'a>) -> Result<(), Failed> {
    let payload = message.payload();
    if payload.len() > RECORD_BYTES_MAX {
        return Err(Failed::Other(format!("it has more than {RECORD_BYTES_MAX} bytes")));
    }
    let text = || std::str::from_utf8(payload).map_err(|error| Failed::Other(format!("not UTF-8: {error}")));
    match format {
        Format::Json => {
            json::object(text()?, |name, token| rows.set(shape, name, token)).map_err(|error| match error {
                JsonError::Row(error) => error.into(),
                error => Failed::Other(error.to_string()),
            })?;
        }
        Format::Text => rows.set(shape, "payload", Token::Text(Cow::Borrowed(text()?)))?,
        Format::Bytes => rows.set(shape, "payload", Token::Value(Value::Bytes(payload.to_vec())))?,
    }
    for (name, token) in message.beside() {
        let name = if format == Format::Json {
            name
        } else {
            name.trim_start_matches('_')
        };
        rows.set(shape, name, token)?;
    }
    Ok(())
}
