//! What a record becomes as a message: where it goes, by a text with columns in it, and its payload. Knows no protocol.

use bus_schema::data::{Batch, Cell};
use flow::ConfigError;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    file::encode::{JsonRows, refuse_delete},
    list::list_json,
};

/// Longest topic, in bytes (MQTT 3.1.1, section 1.5.3). Subjects of NATS are shorter still.
const TOPIC_BYTES_MAX: usize = 65_535;

/// What a payload is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Format {
    /// A JSON object of all columns, as the destination `file` writes it.
    #[default]
    Json,
    /// One column: bytes as they are, lists as JSON, anything else as text. Null is an empty payload.
    Raw,
}

/// How payloads are made.
pub(crate) enum Payload {
    Json { op_column: Option<String> },
    Raw { column: String },
}

impl Payload {
    /// Checks what a config says of them.
    pub(crate) fn new(
        format: Format,
        payload_column: Option<String>,
        op_column: Option<String>,
    ) -> Result<Self, ConfigError> {
        match (format, payload_column) {
            (Format::Json, None) => Ok(Self::Json { op_column }),
            (Format::Json, Some(_)) => Err(ConfigError::at("payload_column", "only for format = \"raw\"")),
            (Format::Raw, None) => Err(ConfigError::at("payload_column", "name the column to send")),
            (Format::Raw, Some(_)) if op_column.is_some() => {
                Err(ConfigError::at("op_column", "only for format = \"json\""))
            }
            (Format::Raw, Some(column)) => Ok(Self::Raw { column }),
        }
    }

    /// Those of a batch.
    pub(crate) fn of<'a>(&'a self, batch: &'a Batch) -> Payloads<'a> {
        match self {
            Self::Json { op_column } => Payloads::Json(JsonRows::new(batch, op_column.as_deref())),
            Self::Raw { column } => Payloads::Raw { batch, column },
        }
    }
}

/// The payloads of a batch.
pub(crate) enum Payloads<'a> {
    Json(JsonRows<'a>),
    Raw { batch: &'a Batch, column: &'a str },
}

impl Payloads<'_> {
    /// The payload of a row, or why it has none.
    pub(crate) fn row(&self, row: usize) -> Result<Vec<u8>, String> {
        match self {
            Self::Json(json) => {
                let mut payload = Vec::new();
                json.row(row, &mut payload)?;
                Ok(payload)
            }
            Self::Raw { batch, column } => {
                refuse_delete(batch, row, None)?;
                let place = batch.schema().index_of(column);
                match place.map_or(Cell::Missing, |place| batch.cell(row, place)) {
                    Cell::Missing | Cell::Unchanged => Err(format!("the record has no column '{column}'")),
                    Cell::Bytes(bytes) => Ok(bytes.to_vec()),
                    Cell::List(items) => Ok(list_json(items).into_bytes()),
                    cell => Ok(cell.to_string().into_bytes()),
                }
            }
        }
    }
}

/// A topic or subject with places for values.
#[derive(Debug, PartialEq)]
pub(crate) struct Template(Vec<Piece>);

impl Template {
    /// The whole text, when no value of a record stands in it.
    pub(crate) fn constant(&self) -> Option<&str> {
        match &self.0[..] {
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }
}

/// A part of a text with places for values.
#[derive(Debug, PartialEq)]
pub(crate) enum Piece {
    Text(String),
    /// What stands between braces.
    Column(String),
}

/// Takes a text with `{column}` in it apart.
pub(crate) fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (column, after) = after
            .split_once('}')
            .ok_or_else(|| format!("'{text}' has a {{ without }}"))?;
        if column.is_empty() {
            return Err(format!("'{text}' has {{}} without the name of a column"));
        }
        pieces.push(Piece::Text(before.to_string()));
        pieces.push(Piece::Column(column.to_string()));
        rest = after;
    }
    pieces.push(Piece::Text(rest.to_string()));
    pieces.retain(|piece| *piece != Piece::Text(String::new()));
    if literal(&pieces).any(|text| text.contains('}')) {
        return Err(format!("'{text}' has a }} without {{"));
    }
    Ok(pieces)
}

/// What is the same for all records.
fn literal(pieces: &[Piece]) -> impl Iterator<Item = &str> {
    pieces.iter().filter_map(|piece| match piece {
        Piece::Text(text) => Some(text.as_str()),
        Piece::Column(_) => None,
    })
}

impl Template {
    /// Takes a topic with `{column}` in it apart.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let pieces = pieces(text)?;
        if literal(&pieces).any(|text| text.contains(['+', '#', '\0'])) {
            return Err(format!("'{text}' has + or # in it, which only subscriptions may have"));
        }
        if pieces.is_empty() {
            return Err("is empty".to_string());
        }
        Ok(Self(pieces))
    }

    /// The topic of a row, or why it has none.
    pub(crate) fn fill(&self, batch: &Batch, row: usize) -> Result<String, String> {
        let mut topic = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => topic.push_str(text),
                Piece::Column(name) => {
                    let column = batch.schema().index_of(name);
                    let cell = column.map_or(Cell::Missing, |column| batch.cell(row, column));
                    let value = cell.to_string();
                    if value.is_empty() {
                        return Err(format!("the topic needs a value in column '{name}'"));
                    }
                    if value.contains(['+', '#', '\0']) {
                        return Err(format!("'{value}' in column '{name}' cannot stand in a topic"));
                    }
                    topic.push_str(&value);
                }
            }
        }
        if topic.len() > TOPIC_BYTES_MAX {
            Err("the topic is too long".to_string())
        } else {
            Ok(topic)
        }
    }
}
