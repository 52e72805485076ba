//! The bare loop: what a program written for this one job takes.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// Without any durability but one fsync at the end.
pub fn convert(input: &Path, output: &Path) -> Result<()> {
    let mut lines = BufReader::with_capacity(1 << 16, File::open(input)?);
    let mut out = BufWriter::with_capacity(1 << 16, File::create(output)?);
    let mut line = String::new();
    while lines.read_line(&mut line)? > 0 {
        let mut row: serde_json::Map<String, Value> = serde_json::from_str(&line)?;
        let celsius = row.get("temp_c").and_then(Value::as_f64).unwrap_or(f64::NAN);
        if celsius > 10.0 {
            row.insert("temp_f".to_string(), (celsius * 1.8 + 32.0).into());
            row.remove("humidity");
            serde_json::to_writer(&mut out, &row)?;
            out.write_all(b"\n")?;
        }
        line.clear();
    }
    out.into_inner().context("cannot write the output")?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use testkit::file_job::{check, write};

    use super::*;

    #[test]
    fn the_bare_loop_does_the_job_and_a_flaw_is_found() {
        let dir = testkit::temp_dir("file-job");
        let (input, output) = (dir.path().join("in"), dir.path().join("out"));
        let expected = write(&input, 3000).unwrap();
        assert!(expected.rows > 2000 && expected.rows < 2300, "{expected:?}");
        convert(&input, &output).unwrap();
        check(&output, expected).unwrap();

        let sound = std::fs::read_to_string(&output).unwrap();
        let first = sound.split_inclusive('\n').next().unwrap();
        for (what, flawed) in [
            ("a lost row", sound.replacen(first, "", 1)),
            ("a doubled row", format!("{sound}{first}")),
            ("a torn row", format!("{sound}{}", &first[..first.len() / 2])),
            ("a wrong value", sound.replacen("temp_f", "temp_k", 1)),
            ("a field too many", sound.replacen("{\"", "{\"humidity\":1,\"", 1)),
        ] {
            std::fs::write(&output, flawed).unwrap();
            assert!(check(&output, expected).is_err(), "{what}");
        }
    }
}
