//! Files: JSON lines, CSV and Parquet, read and written, and whole ones copied.

use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::{
    Circumstances, Lines, Race, columnar, generator, into_file, json, memchr_lines, out, push_json, row, timed,
    to_its_end, until_lines,
};

/// What is sent of a whole file at once.
const PIECE_BYTES: u64 = 48_000;
/// Pieces of a whole file.
const PIECES: u64 = 20;

/// An input of each form.
pub(super) struct Inputs {
    pub(super) json: PathBuf,
    csv: PathBuf,
    parquet: PathBuf,
    /// A directory of whole files.
    whole: PathBuf,
    pieces: u64,
}

/// Makes them: so many records, and as many pieces of whole files as a hundredth of that.
pub(super) fn inputs(circumstances: &Circumstances, rows: u64) -> Result<Inputs> {
    let dir = circumstances.fresh("connector-inputs")?;
    let files = (rows / 100).div_ceil(PIECES);
    let inputs = Inputs {
        json: dir.join("in.jsonl"),
        csv: dir.join("in.csv"),
        parquet: dir.join("in.parquet"),
        whole: dir.join("whole"),
        pieces: files * PIECES,
    };
    columnar::write(&inputs.parquet, rows)?;
    std::fs::create_dir(&inputs.whole)?;
    for file in 0..files {
        let bytes: Vec<u8> = (0..PIECES * PIECE_BYTES).map(|at| (at * 31 + file) as u8).collect();
        std::fs::write(inputs.whole.join(format!("{file}.bin")), bytes)?;
    }
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
pub(super) fn races(inputs: &Inputs, rows: u64) -> Vec<Race<'_>> {
    let Inputs {
        json: lines,
        csv,
        parquet,
        whole,
        pieces,
    } = inputs;
    vec![
        Race {
            name: "file source, JSON lines",
            note: "serde_json",
            rows,
            ours: Box::new(move |dir| read(dir, lines, "json_lines", rows)),
            bare: Box::new(move |dir| timed(|| bare_json(lines, &out(dir)))),
        },
        Race {
            name: "file source, CSV",
            note: "csv; columns have types",
            rows,
            ours: Box::new(move |dir| read(dir, csv, "csv", rows)),
            bare: Box::new(move |dir| timed(|| bare_csv(csv, &out(dir)))),
        },
        Race {
            name: "file source, Parquet",
            note: "parquet, column by column",
            rows,
            ours: Box::new(move |dir| read(dir, parquet, "parquet", rows)),
            bare: Box::new(move |dir| timed(|| columnar::read(parquet, &out(dir)))),
        },
        Race {
            name: "file destination, JSON lines",
            note: "serde_json",
            rows,
            ours: Box::new(move |dir| {
                let seconds = write(dir, &out(dir), "json_lines", rows)?;
                counted(memchr_lines(&out(dir))?, rows, seconds)
            }),
            bare: Box::new(move |dir| timed(|| bare_write(&out(dir), rows))),
        },
        Race {
            name: "file destination, CSV",
            note: "csv",
            rows,
            ours: Box::new(move |dir| {
                let path = dir.join("out.csv");
                let seconds = write(dir, &path, "csv", rows)?;
                // The first line has the names of the columns.
                counted(memchr_lines(&path)?, rows + 1, seconds)
            }),
            bare: Box::new(move |dir| timed(|| bare_write_csv(&dir.join("bare.csv"), rows))),
        },
        Race {
            name: "file destination, Parquet",
            note: "parquet, in row groups of 4 MB with Snappy; records are on disk here until there are enough for a file, \
                   and in memory there",
            rows,
            ours: Box::new(move |dir| {
                let parts = dir.join("parts");
                std::fs::create_dir(&parts)?;
                let seconds = write(dir, &parts.join("out.parquet"), "parquet", rows)?;
                counted(parquet_rows(&parts)?, rows, seconds)
            }),
            bare: Box::new(move |dir| timed(|| columnar::write(&dir.join("bare.parquet"), rows))),
        },
        Race {
            name: "files source",
            note: "serde_json; a directory with one file of JSON lines",
            rows,
            ours: Box::new(move |dir| {
                let from = linked(std::slice::from_ref(lines), dir)?;
                let source = format!("{}format = \"json_lines\"\n", files_source(&from));
                let text = format!("{source}{}", into_file(&out(dir)));
                let seconds = to_its_end(dir, &text)?;
                counted(memchr_lines(&out(dir))?, rows, seconds)
            }),
            bare: Box::new(move |dir| timed(|| bare_json(lines, &out(dir)))),
        },
        Race {
            name: "files destination",
            note: "whole files of 1 MB from a directory into another, with an fsync each; a record is a piece of 48 KB, \
                   and both ends take its SHA-256, which the loop does not",
            rows: *pieces,
            ours: Box::new(move |dir| {
                let to = dir.join("copies");
                std::fs::create_dir(&to)?;
                let destination = format!(
                    "\n[destinations.out]\ntype = \"files\"\nfrom = \"in\"\npath = \"{}\"\n",
                    to.display()
                );
                let from = linked(&paths_in(whole)?, dir)?;
                let seconds = to_its_end(dir, &format!("{}{destination}", files_source(&from)))?;
                compare(whole, &to)?;
                Ok(seconds)
            }),
            bare: Box::new(move |dir| {
                let to = dir.join("copies");
                std::fs::create_dir(&to)?;
                let seconds = timed(|| bare_copies(whole, &to))?;
                compare(whole, &to)?;
                Ok(seconds)
            }),
        },
    ]
}

fn counted(found: u64, wanted: u64, seconds: f64) -> Result<f64> {
    ensure!(found == wanted, "{found} of {wanted} rows");
    Ok(seconds)
}

fn read(dir: &Path, input: &Path, format: &str, rows: u64) -> Result<f64> {
    let more = match format {
        "csv" => "types = { id = \"i64\", value = \"f64\" }\n",
        "parquet" => "mode = \"once\"\n",
        _ => "",
    };
    let text = format!(
        "name = \"job\"\n\n[sources.in]\ntype = \"file\"\npath = \"{}\"\nformat = \"{format}\"\n{more}{}",
        input.display(),
        into_file(&out(dir))
    );
    if format != "parquet" {
        return until_lines(dir, &text, &out(dir), rows);
    }
    let seconds = to_its_end(dir, &text)?;
    counted(memchr_lines(&out(dir))?, rows, seconds)
}

fn paths_in(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir)?.map(|entry| Ok(entry?.path()));
    entries.collect()
}

/// The files in a new directory: in that the source remembers what it has sent.
fn linked(files: &[PathBuf], dir: &Path) -> Result<PathBuf> {
    let new = dir.join("in");
    std::fs::create_dir(&new)?;
    for file in files {
        std::fs::hard_link(file, new.join(file.file_name().context("a name")?))?;
    }
    Ok(new)
}

/// What is in a directory, and no more.
fn files_source(dir: &Path) -> String {
    format!(
        "name = \"job\"\n\n[sources.in]\ntype = \"files\"\npath = \"{}\"\nmode = \"once\"\nsettle_ms = 0\n",
        dir.display()
    )
}

fn bare_json(input: &Path, out: &Path) -> Result<()> {
    let mut lines = BufReader::with_capacity(1 << 16, File::open(input)?);
    let (mut out, mut line) = (Lines::create(out)?, Vec::new());
    while lines.read_until(b'\n', &mut line)? > 0 {
        push_json(&mut out, &line)?;
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

fn write(dir: &Path, path: &Path, format: &str, rows: u64) -> Result<f64> {
    let text = format!(
        "{}[destinations.out]\ntype = \"file\"\nfrom = \"in\"\npath = \"{}\"\nformat = \"{format}\"\n",
        generator(rows),
        path.display()
    );
    to_its_end(dir, &text)
}

/// Rows in all Parquet files of a directory.
fn parquet_rows(dir: &Path) -> Result<u64> {
    let files = paths_in(dir)?.into_iter();
    let files = files.filter(|path| path.extension().is_some_and(|ending| ending == "parquet"));
    files.map(|path| columnar::count(&path)).sum()
}

fn bare_write(path: &Path, rows: u64) -> Result<()> {
    let mut out = Lines::create(path)?;
    for id in 1..=rows {
        let row = row(id);
        out.push(row.id as i64, &row.name, row.value)?;
    }
    out.finish()
}

fn bare_write_csv(path: &Path, rows: u64) -> Result<()> {
    let file = File::create(path)?;
    let mut out = csv::Writer::from_writer(BufWriter::with_capacity(1 << 16, &file));
    out.write_record(["id", "name", "value"])?;
    for id in 1..=rows {
        let row = row(id);
        out.write_record([&row.id.to_string(), &row.name, &format!("{:?}", row.value)])?;
    }
    out.flush()?;
    Ok(file.sync_all()?)
}

fn bare_copies(from: &Path, to: &Path) -> Result<()> {
    let mut piece = Vec::new();
    for path in paths_in(from)? {
        let name = path.file_name().context("a name")?;
        let (mut input, mut output) = (File::open(&path)?, File::create(to.join(name))?);
        while (&mut input).take(PIECE_BYTES).read_to_end(&mut piece)? > 0 {
            output.write_all(&piece)?;
            piece.clear();
        }
        output.sync_all()?;
    }
    Ok(())
}

/// Sees whether every file is in the other directory, as it is.
fn compare(from: &Path, to: &Path) -> Result<()> {
    for path in paths_in(from)? {
        let copy = to.join(path.file_name().context("a name")?);
        ensure!(
            std::fs::read(&path)? == std::fs::read(&copy)?,
            "{} is another file",
            copy.display()
        );
    }
    Ok(())
}
