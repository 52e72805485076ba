//! Files: JSON lines and CSV, read and written.

use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::{
    Circumstances, Lines, Race, generator, into_file, json, memchr_lines, out, row, timed, to_its_end, until_lines,
};

/// An input of each form.
struct Inputs {
    json: PathBuf,
    csv: PathBuf,
}

fn inputs(circumstances: &Circumstances, rows: u64) -> Result<Inputs> {
    let dir = circumstances.fresh("connector-inputs")?;
    let inputs = Inputs {
        json: dir.join("in.jsonl"),
        csv: dir.join("in.csv"),
    };
    let mut lines = BufWriter::new(File::create(&inputs.json)?);
    let mut csv = BufWriter::new(File::create(&inputs.csv)?);
    writeln!(csv, "id,name,value")?;
    for id in 1..=rows {
        let row = row(id);
        writeln!(lines, "{}", json(&row))?;
        writeln!(csv, "{},{},{:?}", row.id, row.name, row.value)?;
    }
    lines.into_inner().context("cannot write the input")?.sync_all()?;
    csv.into_inner().context("cannot write the input")?.sync_all()?;
    Ok(inputs)
}

/// The races of both directions.
pub(super) fn races<'a>(circumstances: &Circumstances, rows: u64) -> Result<Vec<Race<'a>>> {
    let Inputs { json: lines, csv } = inputs(circumstances, rows)?;
    let (lines_again, csv_again) = (lines.clone(), csv.clone());
    Ok(vec![
        Race {
            name: "file source, JSON lines",
            note: "serde_json",
            rows,
            ours: Box::new(move |dir| read(dir, &lines, "json_lines", rows)),
            bare: Box::new(move |dir| timed(|| bare_json(&lines_again, &out(dir)))),
        },
        Race {
            name: "file source, CSV",
            note: "csv; columns have types",
            rows,
            ours: Box::new(move |dir| read(dir, &csv, "csv", rows)),
            bare: Box::new(move |dir| timed(|| bare_csv(&csv_again, &out(dir)))),
        },
        Race {
            name: "file destination, JSON lines",
            note: "serde_json",
            rows,
            ours: Box::new(move |dir| write(dir, "json_lines", rows)),
            bare: Box::new(move |dir| timed(|| bare_write(&out(dir), rows))),
        },
    ])
}

fn read(dir: &Path, input: &Path, format: &str, rows: u64) -> Result<f64> {
    let types = if format == "csv" {
        "types = { id = \"i64\", value = \"f64\" }\n"
    } else {
        ""
    };
    let text = format!(
        "name = \"job\"\n\n[sources.in]\ntype = \"file\"\npath = \"{}\"\nformat = \"{format}\"\n{types}",
        input.display()
    );
    until_lines(dir, &format!("{text}{}", into_file(&out(dir))), &out(dir), rows)
}

fn bare_json(input: &Path, out: &Path) -> Result<()> {
    let mut lines = BufReader::with_capacity(1 << 16, File::open(input)?);
    let (mut out, mut line) = (Lines::create(out)?, String::new());
    while lines.read_line(&mut line)? > 0 {
        let row: serde_json::Value = serde_json::from_str(&line)?;
        let text = row["name"].as_str().context("no name")?;
        out.push(
            row["id"].as_i64().context("no id")?,
            text,
            row["value"].as_f64().context("no value")?,
        )?;
        line.clear();
    }
    out.finish()
}

fn bare_csv(input: &Path, out: &Path) -> Result<()> {
    let mut reader = csv::Reader::from_path(input)?;
    let (mut out, mut record) = (Lines::create(out)?, csv::StringRecord::new());
    while reader.read_record(&mut record)? {
        out.push(record[0].parse()?, &record[1], record[2].parse()?)?;
    }
    out.finish()
}

fn write(dir: &Path, format: &str, rows: u64) -> Result<f64> {
    let path = out(dir);
    let text = format!(
        "{}[destinations.out]\ntype = \"file\"\nfrom = \"in\"\npath = \"{}\"\nformat = \"{format}\"\n",
        generator(rows),
        path.display()
    );
    let seconds = to_its_end(dir, &text)?;
    let found = memchr_lines(&path)?;
    ensure!(found == rows, "{found} of {rows} lines");
    Ok(seconds)
}

fn bare_write(path: &Path, rows: u64) -> Result<()> {
    let mut out = Lines::create(path)?;
    for id in 1..=rows {
        let row = row(id);
        out.push(row.id as i64, &row.name, row.value)?;
    }
    out.finish()
}
