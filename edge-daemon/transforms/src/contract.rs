//! Transform `contract`: what happens when the columns of a source change while records flow. Knows no destination.

mod agreed;

use std::collections::{BTreeMap, BTreeSet};

use bus_schema::{
    data::{Batch, Value},
    plan::{ComponentRole, Descriptor},
};
use flow::{
    Build, BuildContext, Component, ConfigError, Drift as Met, Fault, Transform, Transformed, describe, parse_config,
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    cells::{column, reshaped},
    ordered::Ordered,
    text::{TYPE_NAMES, type_named},
};
use agreed::{Agreed, Finding, Known, lacks, said};

/// Decides what happens when the columns of the records change: one comes, goes, gets another name or another type. Placed
/// before a destination it protects the table there; placed before a stream, the line as well.
///
/// What is agreed is said by `columns`. Only `evolve` needs none: it agrees to what the first records have, collection by
/// collection, and to whatever comes then. Every difference is reported once in the log, and as what the workflow says of
/// itself in `mycelial workflow status`; when columns were met last that differ, an alert can tell (`when = "drift"`).
///
/// | | a new column | a column that is gone | values of another type |
/// |---|---|---|---|
/// | `evolve` | goes on, and is agreed | is not missed any more | go on, and are agreed: the destination takes what its column holds exactly |
/// | `freeze` | the workflow stops | the workflow stops | the workflow stops |
/// | `discard_value` | is left out | records go on without it | are left out; of a key, the record goes to the dead letters |
/// | `discard_row` | records with a value in it are left out | records are left out | records are left out |
/// | `dead_letter` | records with a value in it go to the dead letters | the same | the same |
///
/// A column of another name is one that is gone and a new one. A column is gone where a record does not have it at all (null
/// is a value); updates and deletes may leave out what they like. Where a source says no types (files of JSON, messages), a
/// value is of the agreed type if it is of its kind: all numbers are one, and text, bytes, booleans and so on are others.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// What happens to what is different.
    drift: Drift,
    /// Column = type, as `cast` names types; `any` takes everything. For every drift but `evolve`.
    columns: Option<Ordered<String>>,
    /// Columns of `columns` that records may lack.
    #[serde(default)]
    optional: Vec<String>,
}

/// What happens to what is different.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Drift {
    /// It becomes what is agreed.
    Evolve,
    /// The workflow stops before the first such record, and says why.
    Freeze,
    /// The record goes on without the value.
    DiscardValue,
    /// The record is left out.
    DiscardRow,
    /// The record goes to the dead letters.
    DeadLetter,
}

/// The registry line.
pub(crate) const CONTRACT: Component = Component {
    descriptor,
    build: Build::Transform(build),
};

const EXAMPLE: &str = r#"name = "agreed"

[sources.readings]
type = "file"
path = "readings.jsonl"
format = "json_lines"

[transforms.agreed]
type = "contract"
from = "readings"
drift = "discard_value"
columns = { line = "text", temperature = "f64", at = "text" }
optional = ["at"]

[destinations.out]
type = "stdout"
from = "agreed"
"#;

fn descriptor() -> Descriptor {
    let summary = "Decides what happens when columns come, go or change their type";
    describe::<Config>(ComponentRole::Transform, "contract", summary, EXAMPLE)
}

fn build(config: &str, _: &BuildContext) -> Result<Box<dyn Transform>, ConfigError> {
    let Config {
        drift,
        columns,
        optional,
    } = parse_config(config)?;
    let columns = match (drift, columns) {
        (Drift::Evolve, None) if optional.is_empty() => return Ok(Box::new(Contract::new(drift, None))),
        (Drift::Evolve, None) => return Err(ConfigError::at("optional", "only with columns")),
        (Drift::Evolve, Some(_)) => {
            let message = "only where they stay what they are: drift = \"evolve\" agrees to what comes";
            return Err(ConfigError::at("columns", message));
        }
        (_, None) => return Err(ConfigError::at("columns", "say what is agreed: column = type")),
        (_, Some(columns)) => columns,
    };
    if columns.0.is_empty() {
        return Err(ConfigError::at("columns", "name at least one column"));
    }
    if let Some(stranger) = optional
        .iter()
        .find(|name| columns.0.iter().all(|(known, _)| known != *name))
    {
        return Err(ConfigError::at("optional", format!("'{stranger}' is none of columns")));
    }
    let known = |(name, ty): &(String, String)| {
        let ty = type_named(ty).ok_or_else(|| {
            let message = format!("'{ty}' is not a type: use {TYPE_NAMES}");
            ConfigError::at(format!("columns.{name}"), message)
        })?;
        Ok(Known::declared(name, ty, optional.contains(name)))
    };
    let columns = columns.0.iter().map(known).collect::<Result<_, ConfigError>>()?;
    Ok(Box::new(Contract::new(drift, Some(Agreed { columns }))))
}

/// Collections whose columns are remembered by `evolve`. Of others no difference is reported.
const COLLECTIONS_MAX: usize = 1_000;
/// Differences that are reported at most, until the workflow starts again.
const TOLD_MAX: usize = 10_000;
/// Differences of one batch that are named together.
const TOGETHER_MAX: usize = 4;

struct Contract {
    drift: Drift,
    /// What the config says.
    said: Option<Agreed>,
    /// What was met, by collection, where the config says nothing.
    met: BTreeMap<String, Agreed>,
    /// Differences that were reported, by collection.
    told: BTreeSet<(String, String)>,
    /// Of the last batch.
    drift_met: Option<Met>,
}

impl Contract {
    fn new(drift: Drift, said: Option<Agreed>) -> Self {
        Self {
            drift,
            said,
            met: BTreeMap::new(),
            told: BTreeSet::new(),
            drift_met: None,
        }
    }

    /// What is agreed about the collection of a batch. The first batch agrees to itself.
    fn agreed(&mut self, batch: &Batch) -> Agreed {
        if let Some(said) = &self.said {
            return said.clone();
        }
        let collection = batch.schema().collection.clone();
        if self.met.len() >= COLLECTIONS_MAX && !self.met.contains_key(&collection) {
            return Agreed::of(batch);
        }
        let met = self.met.entry(collection).or_insert_with(|| Agreed::of(batch));
        met.learn(batch);
        met.clone()
    }

    /// Reports what was found: as news, what has not been reported.
    fn tell(&mut self, findings: &[Finding], agreed: &Agreed, batch: &Batch) {
        let collection = &batch.schema().collection;
        let done = match self.drift {
            Drift::Evolve => "accepted",
            Drift::Freeze => "stopped",
            Drift::DiscardValue => "values that differ are left out",
            Drift::DiscardRow => "records that differ are left out",
            Drift::DeadLetter => "records that differ go to the dead letters",
        };
        let all = said(findings, agreed, batch.schema());
        let mut news = Vec::new();
        for what in &all {
            if self.told.len() < TOLD_MAX && self.told.insert((collection.clone(), what.clone())) {
                tracing::warn!(collection, what, done, "the columns have changed");
                news.push(format!("{what} in '{collection}': {done}"));
            }
        }
        let first = all.iter().take(TOGETHER_MAX).map(String::as_str).collect::<Vec<_>>();
        let more = match all.len().saturating_sub(TOGETHER_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let what = format!("{}{more} in '{collection}': {done}", first.join("; "));
        self.drift_met = Some(Met { what, news });
    }
}

impl Transform for Contract {
    fn apply(&mut self, batch: Batch) -> Result<Transformed, Fault> {
        if batch.rows() == 0 {
            return Ok(batch.into());
        }
        let agreed = self.agreed(&batch);
        let findings = agreed.findings(&batch);
        let has_strangers = batch
            .schema()
            .fields
            .iter()
            .any(|field| agreed.index_of(&field.name).is_none());
        if findings.is_empty() && !has_strangers {
            return Ok(batch.into());
        }
        if !findings.is_empty() {
            self.tell(&findings, &agreed, &batch);
        }
        match self.drift {
            Drift::Evolve => {
                if let Some(met) = self.met.get_mut(&batch.schema().collection) {
                    met.evolve(&batch, &findings);
                }
                Ok(batch.into())
            }
            Drift::Freeze if !findings.is_empty() => Err(Fault::stop(format!(
                "{} in '{}', and drift = \"freeze\": mend the source, or let another drift decide for once",
                said(&findings, &agreed, batch.schema()).join("; "),
                batch.schema().collection
            ))),
            Drift::Freeze | Drift::DiscardValue => without_values(batch, &agreed, &findings),
            Drift::DiscardRow => Ok(sorted_out(&batch, &agreed, &findings)?.batch.into()),
            Drift::DeadLetter => sorted_out(&batch, &agreed, &findings),
        }
    }

    fn drift(&mut self) -> Option<Met> {
        self.drift_met.take()
    }
}

/// The agreed columns of a batch.
fn agreed_only(batch: &Batch, agreed: &Agreed) -> Result<Batch, Fault> {
    let fields = &batch.schema().fields;
    let places = (0..fields.len()).filter(|column| agreed.index_of(&fields[*column].name).is_some());
    let places: Vec<usize> = places.collect();
    let columns = places.iter().map(|column| batch.columns()[*column].clone());
    reshaped(
        batch,
        places.iter().map(|column| fields[*column].clone()).collect(),
        columns.collect(),
    )
}

/// Why a record cannot go on as it is.
fn difference(batch: &Batch, row: usize, agreed: &Agreed, findings: &[Finding]) -> Option<String> {
    let fields = &batch.schema().fields;
    findings.iter().find_map(|finding| match finding {
        Finding::Added(column) => {
            let is_there = batch.cell(row, *column).is_value();
            is_there.then(|| format!("column '{}' was not agreed", fields[*column].name))
        }
        Finding::Gone(known) => {
            let name = &agreed.columns[*known].name;
            lacks(batch, row, batch.schema().index_of(name))
                .then(|| format!("column '{name}' is agreed, and the record does not have it"))
        }
        Finding::Retyped(column, known) => {
            let (cell, known) = (batch.cell(row, *column), &agreed.columns[*known]);
            let found = cell.type_of().map(|ty| ty.to_string()).unwrap_or_default();
            (!known.takes(&cell, &fields[*column].ty))
                .then(|| format!("column '{}' is agreed to be {}, not {found}", known.name, known.ty))
        }
    })
}

/// The records that are as agreed, and why the others are not.
fn sorted_out(batch: &Batch, agreed: &Agreed, findings: &[Finding]) -> Result<Transformed, Fault> {
    let (mut kept, mut rejected) = (Vec::with_capacity(batch.rows()), Vec::new());
    for row in 0..batch.rows() {
        match difference(batch, row, agreed, findings) {
            Some(reason) => rejected.push((row, reason)),
            None => kept.push(row),
        }
    }
    let fields = &batch.schema().fields;
    if !fields.iter().any(|field| agreed.index_of(&field.name).is_some()) {
        // A record without any field cannot be told from no record.
        let all = 0..batch.rows();
        return Ok(Transformed {
            batch: batch.take(&[]),
            rejected: all
                .map(|row| (row, "none of its columns is agreed".to_string()))
                .collect(),
        });
    }
    let kept = if rejected.is_empty() {
        batch.clone()
    } else {
        batch.take(&kept)
    };
    Ok(Transformed {
        batch: agreed_only(&kept, agreed)?,
        rejected,
    })
}

/// Every record with nothing but what was agreed. Without its key it would be another one.
fn without_values(batch: Batch, agreed: &Agreed, findings: &[Finding]) -> Result<Transformed, Fault> {
    let schema = batch.schema();
    let (keys, others): (Vec<Finding>, Vec<Finding>) = findings
        .iter()
        .filter(|finding| matches!(finding, Finding::Retyped(..)))
        .cloned()
        .partition(|finding| matches!(finding, Finding::Retyped(column, _) if schema.fields[*column].key));
    let mut columns = batch.columns().to_vec();
    for finding in &others {
        let Finding::Retyped(place, known) = finding else {
            continue;
        };
        let (field, known) = (&schema.fields[*place], &agreed.columns[*known]);
        let kept = |row| {
            let cell = batch.cell(row, *place);
            // Missing, not null: an update leaves what the destination has.
            if known.takes(&cell, &field.ty) {
                cell.to_value()
            } else {
                Value::Missing
            }
        };
        let values: Vec<Value> = (0..batch.rows()).map(kept).collect();
        columns[*place] = column(&values, field)?;
    }
    let cleaned = reshaped(&batch, schema.fields.clone(), columns)?;
    sorted_out(&cleaned, agreed, &keys)
}

#[cfg(test)]
mod tests;
