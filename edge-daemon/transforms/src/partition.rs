//! Transform `partition`: one part of the records, of several that together are all of them. It is how a destination that is
//! shared by several daemons gets its parts; by itself it halves what is too much for one.

use bus_schema::{
    data::{Batch, Cell},
    plan::{ComponentRole, Descriptor},
};
use flow::{Build, BuildContext, Component, ConfigError, Fault, Transform, Transformed, describe, parse_config};
use schemars::JsonSchema;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::cells::named_columns;

/// Most parts.
const PARTS_MAX: u16 = 1_000;

/// Lets one part of the records through, of so many that each record is in exactly one of them. Records that are equal in the
/// columns of `by` are in the same part, today and after every restart; what has none of these columns is in one part, too.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Records that are equal in these columns stay together.
    by: Vec<String>,
    /// Which part, from 1.
    part: u16,
    /// How many parts there are, up to 1000.
    of: u16,
}

/// The registry line.
pub(crate) const PARTITION: Component = Component {
    descriptor,
    build: Build::Transform(build),
};

const EXAMPLE: &str = r#"name = "halves"

[sources.readings]
type = "file"
path = "readings.jsonl"
format = "json_lines"

[transforms.half]
type = "partition"
from = "readings"
by = ["line"]
part = 2
of = 2

[destinations.out]
type = "stdout"
from = "half"
"#;

fn descriptor() -> Descriptor {
    let summary = "Lets one part of the records through, of several that together are all";
    describe::<Config>(ComponentRole::Transform, "partition", summary, EXAMPLE)
}

fn build(config: &str, _: &BuildContext) -> Result<Box<dyn Transform>, ConfigError> {
    let Config { by, part, of } = parse_config(config)?;
    named_columns("by", &by)?;
    if !(1..=PARTS_MAX).contains(&of) {
        return Err(ConfigError::at("of", format!("it is from 1 to {PARTS_MAX}")));
    }
    if !(1..=of).contains(&part) {
        return Err(ConfigError::at("part", format!("it is from 1 to {of}, which is `of`")));
    }
    Ok(Box::new(Partition { by, part, of }))
}

struct Partition {
    by: Vec<String>,
    part: u16,
    of: u16,
}

impl Transform for Partition {
    fn apply(&mut self, batch: Batch) -> Result<Transformed, Fault> {
        let columns: Vec<Option<usize>> = self.by.iter().map(|name| batch.schema().index_of(name)).collect();
        let is_mine = |row: &usize| part_of(&batch, *row, &columns, self.of) == self.part;
        let kept: Vec<usize> = (0..batch.rows()).filter(is_mine).collect();
        Ok(Transformed {
            batch: batch.take(&kept),
            rejected: Vec::new(),
        })
    }
}

/// The part of a record, from 1: the first 64 bits of the SHA-256 of its cells, each as text behind its length, modulo the
/// number of parts. It must never change: what is on its way would go to another part.
fn part_of(batch: &Batch, row: usize, columns: &[Option<usize>], of: u16) -> u16 {
    let mut digest = Sha256::new();
    for place in columns {
        let cell = place.map_or(Cell::Missing, |place| batch.cell(row, place));
        let text = if cell.is_value() {
            cell.to_string()
        } else {
            String::new()
        };
        digest.update((text.len() as u64).to_be_bytes());
        digest.update([u8::from(cell.is_value())]);
        digest.update(text);
    }
    let digest: [u8; 32] = digest.finalize().into();
    let first = digest[..8].iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    // Below `of`, which is 16 bits.
    (first % u64::from(of)) as u16 + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_config, shown, table, transform};

    fn lines(count: usize) -> Batch {
        let rows: Vec<String> = (0..count).map(|n| format!("{n}|line {}", n % 7)).collect();
        let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
        table(&["n:i64", "line:text"], &rows)
    }

    fn part(part: u16, of: u16, by: &str, input: Batch) -> Vec<String> {
        let config = format!(r#"{{"by":["{by}"],"part":{part},"of":{of}}}"#);
        let done = transform(&PARTITION, &config).apply(input).unwrap();
        assert!(done.rejected.is_empty());
        shown(&done.batch).lines().map(str::to_string).collect()
    }

    #[test]
    fn each_record_is_in_exactly_one_part_and_equal_ones_stay_together() {
        let rows = |batch: &Batch| -> Vec<String> { shown(batch).lines().map(str::to_string).collect() };
        let mut before = rows(&lines(100));
        before.sort();
        for of in [1, 2, 5, 16] {
            let parts: Vec<Vec<String>> = (1..=of).map(|n| part(n, of, "line", lines(100))).collect();
            for line in 0..7 {
                let name = format!("line {line}");
                let holders = parts.iter().filter(|part| part.iter().any(|row| row.ends_with(&name)));
                assert_eq!(holders.count(), 1, "{name} of {of}");
            }
            let mut all = parts.concat();
            all.sort();
            assert_eq!(all, before, "{of}");
        }
    }

    #[test]
    fn parts_are_the_same_for_ever_and_about_as_large() {
        let sizes: Vec<usize> = (1..=4).map(|n| part(n, 4, "n", lines(1_000)).len()).collect();
        assert_eq!(
            sizes,
            [254, 266, 254, 226],
            "whoever changes this moves records that are on their way"
        );
    }

    #[test]
    fn what_has_no_such_column_is_in_one_part() {
        let sizes: Vec<usize> = (1..=4).map(|n| part(n, 4, "none", lines(10)).len()).collect();
        assert_eq!(sizes.iter().max(), Some(&10), "{sizes:?}");
        assert_eq!(sizes.iter().sum::<usize>(), 10);
    }

    #[test]
    fn configs() {
        for (config, place) in [
            (r#"{"by":[],"part":1,"of":2}"#, "by"),
            (r#"{"by":["a"],"part":0,"of":2}"#, "part"),
            (r#"{"by":["a"],"part":3,"of":2}"#, "part"),
            (r#"{"by":["a"],"part":1,"of":0}"#, "of"),
        ] {
            check_config(&PARTITION, config, place);
        }
    }
}
