//! Transform `sample`: lets a part of the records through. Which ones depends on what they are and on nothing else, so that
//! a record that comes again meets the same fate, and so do all changes of one key.

use bus_schema::{
    data::{Batch, Cell},
    plan::{ComponentRole, Descriptor},
};
use flow::{Build, BuildContext, Component, ConfigError, Fault, Transform, Transformed, describe, parse_config};
use schemars::JsonSchema;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::cells::named_columns;

/// Lets a part of the records through, chosen by what they hold: the same record is always in the part or never. There is
/// no "every tenth that comes": after a restart it would be other ones.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Which part, above 0 and up to 1: 0.1 is one of ten, on average.
    fraction: f64,
    /// Records that are equal in these columns are all let through, or none. Without this: in the key, or where there is no
    /// key, in all columns.
    by: Option<Vec<String>>,
    /// Another text is another choice: two samples, one after the other, need different ones.
    #[serde(default)]
    salt: String,
}

/// The registry line.
pub(crate) const SAMPLE: Component = Component {
    descriptor,
    build: Build::Transform(build),
};

const EXAMPLE: &str = r#"name = "some"

[sources.readings]
type = "file"
path = "readings.jsonl"
format = "json_lines"

[transforms.some]
type = "sample"
from = "readings"
fraction = 0.9
by = ["line"]

[destinations.out]
type = "stdout"
from = "some"
"#;

fn descriptor() -> Descriptor {
    let summary = "Lets a part of the records through";
    describe::<Config>(ComponentRole::Transform, "sample", summary, EXAMPLE)
}

fn build(config: &str, _: &BuildContext) -> Result<Box<dyn Transform>, ConfigError> {
    let Config { fraction, by, salt } = parse_config(config)?;
    if !(fraction > 0.0 && fraction <= 1.0) {
        let message = "it is a part of the records: more than 0, and 1 at most";
        return Err(ConfigError::at("fraction", message));
    }
    if let Some(names) = &by {
        named_columns("by", names)?;
    }
    let salted = Sha256::new_with_prefix(salt);
    Ok(Box::new(Sample { fraction, by, salted }))
}

struct Sample {
    fraction: f64,
    by: Option<Vec<String>>,
    salted: Sha256,
}

impl Transform for Sample {
    fn apply(&mut self, batch: Batch) -> Result<Transformed, Fault> {
        let columns = self.columns(&batch);
        let mut kept = Vec::new();
        let mut rejected = Vec::new();
        for row in 0..batch.rows() {
            match self.lets_through(&batch, row, &columns) {
                Ok(true) => kept.push(row),
                Ok(false) => {}
                Err(reason) => rejected.push((row, reason)),
            }
        }
        Ok(Transformed {
            batch: batch.take(&kept),
            rejected,
        })
    }
}

impl Sample {
    /// What the choice depends on: where each column stands, if the batch has it.
    fn columns(&self, batch: &Batch) -> Vec<(String, Option<usize>)> {
        let fields = &batch.schema().fields;
        if let Some(names) = &self.by {
            let place = |name: &String| (name.clone(), batch.schema().index_of(name));
            return names.iter().map(place).collect();
        }
        let has_key = fields.iter().any(|field| field.key);
        let chosen = fields.iter().enumerate().filter(|(_, field)| field.key || !has_key);
        chosen.map(|(place, field)| (field.name.clone(), Some(place))).collect()
    }

    fn lets_through(&self, batch: &Batch, row: usize, columns: &[(String, Option<usize>)]) -> Result<bool, String> {
        let mut digest = self.salted.clone();
        for (name, place) in columns {
            let cell = place.map_or(Cell::Missing, |place| batch.cell(row, place));
            // Of whole records, a field that is not there is a trait like any other.
            let is_known = self.by.is_none() || !matches!(cell, Cell::Missing | Cell::Unchanged);
            if !is_known {
                return Err(format!("the record does not say what its field '{name}' is"));
            }
            let text = cell.to_string();
            // With their lengths: "a" and "bc" are not "ab" and "c". Null is not the empty text.
            digest.update((text.len() as u64).to_be_bytes());
            digest.update([u8::from(cell.is_value())]);
            digest.update(text);
        }
        let digest: [u8; 32] = digest.finalize().into();
        // The first 53 bits: as many as a float holds exactly.
        let first = digest[..8].iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte)) >> 11;
        Ok((first as f64) < self.fraction * (1u64 << 53) as f64)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::testing::{check, check_config, shown, table, transform};

    fn kept(config: &str, input: Batch) -> Vec<String> {
        let done = transform(&SAMPLE, config).apply(input).unwrap();
        assert_eq!(done.rejected, []);
        shown(&done.batch).lines().map(str::to_string).collect()
    }

    fn numbers(range: std::ops::Range<usize>) -> Batch {
        let rows: Vec<String> = range.map(|n| format!("{n}|{}", n / 10)).collect();
        table(
            &["n:i64", "group:i64"],
            &rows.iter().map(String::as_str).collect::<Vec<_>>(),
        )
    }

    #[test]
    fn a_part_is_let_through() {
        for (fraction, at_least, at_most) in [(0.1, 800, 1_200), (0.5, 4_800, 5_200), (1.0, 10_000, 10_000)] {
            let found = kept(&format!("{{\"fraction\": {fraction}}}"), numbers(0..10_000)).len();
            assert!((at_least..=at_most).contains(&found), "{fraction}: {found}");
        }
        let groups = kept(r#"{"fraction": 0.3, "by": ["group"]}"#, numbers(0..1_000));
        let seen: HashSet<&str> = groups.iter().map(|row| row.split_once('|').unwrap().1).collect();
        assert_eq!(groups.len(), seen.len() * 10, "a group is let through whole");
        let salted = kept(r#"{"fraction": 0.5, "salt": "x"}"#, numbers(0..1_000));
        assert_ne!(salted, kept(r#"{"fraction": 0.5}"#, numbers(0..1_000)));
    }

    #[test]
    fn who_does_not_say_is_rejected() {
        check(
            &SAMPLE,
            r#"{"fraction": 1, "by": ["a"]}"#,
            table(&["a:i64"], &["1", "~", "?", "="]),
            "1\n~",
            "2: the record does not say what its field 'a' is\n3: ",
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (config, wanted) in [
            ("{}", "missing field `fraction`"),
            (r#"{"fraction": 0}"#, "fraction: it is a part"),
            (r#"{"fraction": 1.1}"#, "fraction: it is a part"),
            (r#"{"fraction": 1, "by": []}"#, "by: name at least one"),
        ] {
            check_config(&SAMPLE, config, wanted);
        }
    }

    proptest::proptest! {
        /// However the records are cut into batches, the same ones are let through.
        #[test]
        fn batches_do_not_matter(cut in 0..100usize) {
            let config = r#"{"fraction": 0.5}"#;
            let mut parts = kept(config, numbers(0..cut));
            parts.extend(kept(config, numbers(cut..100)));
            proptest::prop_assert_eq!(parts, kept(config, numbers(0..100)));
        }
    }
}
