//! Pipes: programs of the user's own and what is piped into the daemon, line by line; and Python, beside a script of a few
//! lines in the same interpreter.

use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use testkit::find_program;

use super::{
    Lines, Race, generator, into_file, json, memchr_lines, out, push_json, row, start, timed, to_its_end, until_ended,
};

/// Records in a batch that the loop gives to a program.
const BATCH_ROWS: u64 = 1_000;

/// A program for the destination `exec`: appends the records of a batch to a file, and answers.
const TAKER: &str = r#"import itertools, json, sys
lines = sys.stdin.buffer
with open(sys.argv[1], "ab") as out:
    for line in lines:
        batch = json.loads(line)
        out.writelines(itertools.islice(lines, batch["records"]))
        out.flush()
        print(json.dumps({"batch": batch["batch"]}), flush=True)
"#;

/// What the source `python` is given, and what the loop reads as well.
const READ: &str = r#"def read(cursor):
    for id in range(1, ROWS + 1):
        yield {"id": id, "name": f"reading {id} of the plant", "value": id % 1000 / 8}, id
"#;
const BARE_READ: &str = r#"
import json, os
with open("OUT", "w") as out:
    for record, _ in read(None):
        out.write(json.dumps(record) + "\n")
    out.flush()
    os.fsync(out.fileno())
"#;

/// What the destination `python` is given, and what the loop writes with as well.
const WRITE: &str = r#"import json
out = open("OUT", "a")
def write(records):
    for record in records:
        out.write(json.dumps(record) + "\n")
    out.flush()
"#;
const BARE_WRITE: &str = r#"
import os
for first in range(1, ROWS + 1, 1000):
    write([{"id": id, "name": f"reading {id} of the plant", "value": id % 1000 / 8}
           for id in range(first, min(first + 1000, ROWS + 1))])
os.fsync(out.fileno())
"#;

/// The races: through pipes `rows`, and `python_rows` through Python.
pub(super) fn races<'a>(input: PathBuf, rows: u64, python_rows: u64) -> Vec<Race<'a>> {
    let python = find_program("python3", "python3-minimal");
    let (piped, input_again, piped_again) = (input.clone(), input.clone(), input.clone());
    let (taker, taker_again) = (python.clone(), python.clone());
    let (interpreter, interpreter_again) = (python.clone(), python);
    vec![
        Race {
            name: "exec source",
            note: "`cat` of a file; the lines of its pipe, by serde_json",
            rows,
            ours: Box::new(move |dir| {
                let source = format!(
                    "type = \"exec\"\ncommand = [\"cat\", \"{}\"]\nformat = \"json_lines\"\n",
                    input.display()
                );
                read(dir, &source, Stdio::null(), rows)
            }),
            bare: Box::new(move |dir| timed(|| bare_read(&input_again, &out(dir)))),
        },
        Race {
            name: "exec destination",
            note: "a script in Python that counts lines off and writes them; the loop does not wait for its answers",
            rows,
            ours: Box::new(move |dir| {
                let script = taker_script(dir)?;
                let text = format!(
                    "{}[destinations.out]\ntype = \"exec\"\nfrom = \"in\"\ncommand = [\"{}\", \"{}\", \"{}\"]\n",
                    generator(rows),
                    taker.display(),
                    script.display(),
                    out(dir).display()
                );
                let seconds = to_its_end(dir, &text)?;
                counted(dir, rows, seconds)
            }),
            bare: Box::new(move |dir| {
                let script = taker_script(dir)?;
                let seconds = timed(|| bare_write(&taker_again, &script, &out(dir), rows))?;
                counted(dir, rows, seconds)
            }),
        },
        Race {
            name: "stdin source",
            note: "`cat` of a file; the lines of its pipe, by serde_json",
            rows,
            ours: Box::new(move |dir| {
                let mut cat = cat(&piped)?;
                let pipe = cat.stdout.take().context("a pipe")?;
                let seconds = read(dir, "type = \"stdin\"\nformat = \"json_lines\"\n", pipe.into(), rows)?;
                ensure!(cat.wait()?.success(), "cat has failed");
                Ok(seconds)
            }),
            bare: Box::new(move |dir| timed(|| bare_read(&piped_again, &out(dir)))),
        },
        Race {
            name: "python source",
            note: "the same function in a script of its own, with `json.dumps`",
            rows: python_rows,
            ours: Box::new(move |dir| {
                let source = format!("type = \"python\"\ncode = '''\n{}'''\n", given(READ, dir, python_rows));
                read(dir, &source, Stdio::null(), python_rows)
            }),
            bare: Box::new(move |dir| {
                let script = given(&format!("{READ}{BARE_READ}"), dir, python_rows);
                run_script(&interpreter, dir, &script, python_rows)
            }),
        },
        Race {
            name: "python destination",
            note: "the same function in a script of its own that makes the records, a thousand at a time",
            rows: python_rows,
            ours: Box::new(move |dir| {
                let text = format!(
                    "{}[destinations.out]\ntype = \"python\"\nfrom = \"in\"\ncode = '''\n{}'''\n",
                    generator(python_rows),
                    given(WRITE, dir, python_rows)
                );
                let seconds = to_its_end(dir, &text)?;
                counted(dir, python_rows, seconds)
            }),
            bare: Box::new(move |dir| {
                let script = given(&format!("{WRITE}{BARE_WRITE}"), dir, python_rows);
                run_script(&interpreter_again, dir, &script, python_rows)
            }),
        },
    ]
}

/// Code with the number of rows and the output in it.
fn given(code: &str, dir: &Path, rows: u64) -> String {
    code.replace("ROWS", &rows.to_string())
        .replace("OUT", &out(dir).display().to_string())
}

/// Runs a source that ends into the output.
fn read(dir: &Path, source: &str, stdin: Stdio, rows: u64) -> Result<f64> {
    let text = format!("name = \"job\"\n\n[sources.in]\n{source}{}", into_file(&out(dir)));
    let seconds = until_ended(dir, &text, stdin)?;
    counted(dir, rows, seconds)
}

fn counted(dir: &Path, rows: u64, seconds: f64) -> Result<f64> {
    let found = memchr_lines(&out(dir))?;
    ensure!(found == rows, "{found} of {rows} lines");
    Ok(seconds)
}

fn cat(input: &Path) -> Result<Child> {
    start(Command::new("cat").arg(input).stdout(Stdio::piped()))
}

fn bare_read(input: &Path, out: &Path) -> Result<()> {
    let mut cat = cat(input)?;
    let mut pipe = BufReader::with_capacity(1 << 16, cat.stdout.take().context("a pipe")?);
    let (mut lines, mut line) = (Lines::create(out)?, Vec::new());
    while pipe.read_until(b'\n', &mut line)? > 0 {
        push_json(&mut lines, &line)?;
        line.clear();
    }
    ensure!(cat.wait()?.success(), "cat has failed");
    lines.finish()
}

fn taker_script(dir: &Path) -> Result<PathBuf> {
    let path = dir.join("taker.py");
    std::fs::write(&path, TAKER).context("cannot write the program")?;
    Ok(path)
}

fn bare_write(python: &Path, script: &Path, out: &Path, rows: u64) -> Result<()> {
    let mut command = Command::new(python);
    command
        .arg(script)
        .arg(out)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut taker = start(&mut command)?;
    let answers = BufReader::new(taker.stdout.take().context("a pipe")?);
    let reading = std::thread::spawn(move || answers.lines().map_while(Result::ok).count() as u64);
    let mut pipe = BufWriter::with_capacity(1 << 16, taker.stdin.take().context("a pipe")?);
    for first in (1..=rows).step_by(BATCH_ROWS as usize) {
        let last = rows.min(first + BATCH_ROWS - 1);
        writeln!(pipe, "{{\"batch\": \"{first}\", \"records\": {}}}", last + 1 - first)?;
        for id in first..=last {
            writeln!(pipe, "{}", json(&row(id)))?;
        }
        pipe.flush()?;
    }
    drop(pipe);
    ensure!(taker.wait()?.success(), "the program has failed");
    let (answered, wanted) = (reading.join().unwrap_or_default(), rows.div_ceil(BATCH_ROWS));
    ensure!(answered == wanted, "{answered} of {wanted} batches were answered");
    Ok(())
}

fn run_script(python: &Path, dir: &Path, script: &str, rows: u64) -> Result<f64> {
    let path = dir.join("bare.py");
    std::fs::write(&path, script).context("cannot write the script")?;
    let seconds = timed(|| {
        let status = start(Command::new(python).arg(&path))?.wait()?;
        ensure!(status.success(), "the script ended with {status}");
        Ok(())
    })?;
    counted(dir, rows, seconds)
}
