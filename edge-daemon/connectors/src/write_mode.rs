//! How records become rows of a table: what the SQL destinations share.

use bus_schema::data::Op;
use flow::ConfigError;
use schemars::JsonSchema;
use serde::Deserialize;

/// What a record that says insert (or update) does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WriteMode {
    /// It adds a row. An update of a row that is not there is rejected; a delete of one does nothing.
    #[default]
    Insert,
    /// It adds a row or, when there is one with the same key, changes that; updates do so too.
    Upsert,
}

impl WriteMode {
    /// What a record with this operation does in this mode.
    pub(crate) fn effective(self, op: Op) -> Op {
        match (self, op) {
            (WriteMode::Upsert, Op::Insert | Op::Update) => Op::Upsert,
            (_, op) => op,
        }
    }
}

/// Whether a config's key can be one.
pub(crate) fn check_key(mode: WriteMode, key: Option<&[String]>) -> Result<(), ConfigError> {
    let Some(key) = key else { return Ok(()) };
    if mode == WriteMode::Upsert && key.is_empty() {
        return Err(ConfigError::at(
            "key",
            "is empty, but mode = \"upsert\" needs columns that identify a record",
        ));
    }
    for (index, name) in key.iter().enumerate() {
        let wrong = |what: String| Err(ConfigError::at(format!("key[{index}]"), what));
        if name.is_empty() || name.contains('\0') {
            return wrong("is not a column name".to_string());
        }
        if key[..index].contains(name) {
            return wrong(format!("'{name}' is in the list twice"));
        }
    }
    Ok(())
}
