//! The file job: JSON lines are read, filtered, changed and written. What goes in, the workflow for a daemon, and whether the
//! right thing came out. Measures nothing.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::Dice;

const SEED: u64 = 7;
/// One row in so many is looked at closely.
const LOOK_EVERY: u64 = 997;

/// What the output must hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expected {
    /// How many rows.
    pub rows: u64,
    /// Tells a lost row from a doubled one beside it.
    pub sum_of_ids: u64,
    /// Of the last row.
    pub last_id: u64,
}

/// Writes the input: about 211 bytes a line.
pub fn write(path: &Path, rows: u64) -> Result<Expected> {
    let mut out = BufWriter::new(File::create(path).with_context(|| format!("cannot write {}", path.display()))?);
    let mut dice = Dice::new(SEED);
    let mut expected = Expected::default();
    for id in 0..rows {
        // From -10.00 to 60.00.
        let hundredths = dice.roll(7001) as i64 - 1000;
        if hundredths > 1000 {
            expected.rows += 1;
            expected.sum_of_ids += id;
            expected.last_id = id;
        }
        let seconds = id / 1000;
        writeln!(
            out,
            r#"{{"id":{id},"ts":"2026-01-01T{:02}:{:02}:{:02}.{:03}Z","device":"gateway-{:04}","site":"plant-{}/line-{}","temp_c":{:.2},"humidity":{:.1},"status":"{}","message":"measurement taken by the sensor {:06} in normal operation"}}"#,
            seconds / 3600 % 24,
            seconds / 60 % 60,
            seconds % 60,
            id % 1000,
            id % 500,
            id % 7,
            id % 13,
            hundredths as f64 / 100.0,
            dice.roll(1001) as f64 / 10.0,
            ["ok", "warn", "fail"][(id % 3) as usize],
            id % 9999,
        )?;
    }
    // Read warm by all: what is measured is the job, not the first look at the input.
    out.into_inner().context("cannot write the input")?.sync_all()?;
    Ok(expected)
}

/// Reads an output to its end.
pub fn check(path: &Path, expected: Expected) -> Result<()> {
    let mut lines = BufReader::new(File::open(path).with_context(|| format!("no output at {}", path.display()))?);
    let mut found = Expected::default();
    let mut line = String::new();
    while lines.read_line(&mut line)? > 0 {
        let row: Value = serde_json::from_str(&line).with_context(|| format!("a torn line: {line:?}"))?;
        let id = row["id"].as_u64().with_context(|| format!("no id in {line:?}"))?;
        if found.rows % LOOK_EVERY == 0 {
            closely(&row).with_context(|| line.clone())?;
        }
        found.rows += 1;
        found.sum_of_ids += id;
        found.last_id = found.last_id.max(id);
        line.clear();
    }
    ensure!(found == expected, "found {found:?}, expected {expected:?}");
    Ok(())
}

fn closely(row: &Value) -> Result<()> {
    let number = |name: &str| row[name].as_f64().with_context(|| format!("{name} is not a number"));
    let (celsius, fahrenheit) = (number("temp_c")?, number("temp_f")?);
    ensure!(celsius > 10.0, "it should have been left out");
    // One peer has only whole degrees, of both kinds.
    ensure!((celsius * 1.8 + 32.0 - fahrenheit).abs() < 3.0, "temp_f is wrong");
    ensure!(row.get("humidity").is_none(), "humidity should be gone");
    Ok(())
}

/// For `myceliald run`. `mode` is the file source's: `once` ends with the input, `tail` goes on.
#[must_use]
pub fn workflow(input: &Path, output: &Path, mode: &str) -> String {
    format!(
        r#"name = "job"

[sources.lines]
type = "file"
path = "{}"
format = "json_lines"
mode = "{mode}"

[transforms.warm]
type = "filter"
from = "lines"
where = "temp_c > 10"

[transforms.fahrenheit]
type = "derive"
from = "warm"
columns = {{ temp_f = "temp_c * 1.8 + 32.0" }}

[transforms.less]
type = "select"
from = "fahrenheit"
except = ["humidity"]

[destinations.out]
type = "file"
from = "less"
path = "{}"
format = "json_lines"
"#,
        input.display(),
        output.display()
    )
}
