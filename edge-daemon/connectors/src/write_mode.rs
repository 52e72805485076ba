//! How records become rows of a table: what the SQL destinations share.

use bus_schema::data::{Batch, Cell, Op};
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
    /// It adds a row or, when there is one with the same key, changes that; updates do so too. A column that a record says
    /// nothing of keeps its value, or has the table's default in a new row. A record with a value that is only known to be
    /// unchanged changes its row, and is rejected when there is none.
    Upsert,
}

impl WriteMode {
    /// What a record with this operation does in this mode. `is_partial`: it has a value that is [`unknown`]. A row cannot be
    /// made of such a record, only changed.
    pub(crate) fn effective(self, op: Op, is_partial: bool) -> Op {
        match (self, op) {
            (WriteMode::Upsert, Op::Insert | Op::Update) | (_, Op::Upsert) if is_partial => Op::Update,
            (WriteMode::Upsert, Op::Insert | Op::Update) => Op::Upsert,
            (_, op) => op,
        }
    }

    /// Why a record that would change its row is rejected when there is none. `unknown`: the column of it that is.
    pub(crate) fn no_row(self, op: Op, unknown: Option<&str>) -> String {
        match (self.effective(op, false), unknown) {
            (Op::Upsert, Some(column)) => format!(
                "there is no row with this key, and none can be added: the value of '{column}' is not known, only that it did \
                 not change. Unless a delete of it follows, read the source anew, or have it tell whole rows"
            ),
            _ => "there is no row with this key to update".to_string(),
        }
    }
}

/// The first column of a record, among those that are written, whose value is only known to be what it was.
pub(crate) fn unknown(batch: &Batch, row: usize, is_written: impl Fn(usize) -> bool) -> Option<usize> {
    (0..batch.columns().len()).find(|index| is_written(*index) && matches!(batch.cell(row, *index), Cell::Unchanged))
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
