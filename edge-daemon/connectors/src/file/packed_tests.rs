//! Files that are gzip, made by the program of that name: whole, interrupted, damaged.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use flow::{Component, Read};

use super::{
    SOURCE,
    testing::{Harvest, refused, source},
};
use crate::files;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut child = Command::new("gzip")
        .arg("--stdout")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&bytes).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output.stdout
}

/// Reads to the end, by another source for each batch: the one before died.
async fn interrupted(component: &Component, config: &str, dir: &Path) -> Harvest {
    let mut harvest = Harvest::default();
    let mut input = source(component, config, dir);
    input.open(None).await.unwrap();
    while let Read::Batch(read) = input.read().await.unwrap() {
        harvest.batches.push(read.batch);
        harvest.undecodable.extend(read.undecodable);
        input = source(component, config, dir);
        input.open(Some(&read.position)).await.unwrap();
    }
    harvest
}

fn csv(first: u32, rows: u32) -> String {
    let row = |number: u32| format!("{number},\"text of\n{number}\"\n");
    (first..first + rows).map(row).collect()
}

#[tokio::test]
async fn what_is_in_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    // Two of them one after the other, as `cat` makes them.
    let mut bytes = gzip(format!("n,t\n{}", csv(0, 9_000)).as_bytes());
    bytes.extend(gzip(csv(9_000, 9_000).as_bytes()));
    fs::write(dir.path().join("in.csv.gz"), bytes).unwrap();
    let config =
        r#"{"path": "in.csv.gz", "format": "csv", "mode": "once", "types": {"n": "i64"}, "origin_columns": true}"#;
    let harvest = interrupted(&SOURCE, config, dir.path()).await;
    assert!(harvest.batches.len() > 3, "{}", harvest.batches.len());
    let rows = harvest.rows();
    let path = dir.path().join("in.csv.gz").display().to_string();
    let (mut line, mut offset) = (2, 4);
    let wanted: Vec<String> = (0..18_000u32)
        .map(|number| {
            let row = format!("{number}|text of\n{number}|{path}|{line}|{offset}");
            line += 2;
            offset += csv(number, 1).len();
            row
        })
        .collect();
    assert!(rows == wanted.join("\n"), "{}", &rows[..200]);
    assert_eq!(harvest.schema(), "n:i64 t:text _file:text _line:u64 _offset:u64");
}

#[tokio::test]
async fn of_a_damaged_one_what_can_be_read() {
    let lines: String = (0..30_000).map(|number| format!("{{\"n\":{number}}}\n")).collect();
    let whole = gzip(lines.as_bytes());
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0xff;
    for (bytes, at_least) in [
        (whole[..whole.len() / 2].to_vec(), 5_000),
        // Only the checksum is missing.
        (whole[..whole.len() - 4].to_vec(), 30_000),
        (flipped, 1_000),
        (lines.clone().into_bytes(), 0),
        (Vec::new(), 0),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("in.gz"), &bytes).unwrap();
        let config = r#"{"path": "in.gz", "format": "json_lines", "mode": "once"}"#;
        let harvest = interrupted(&SOURCE, config, dir.path()).await;
        let found = harvest.batches.iter().map(|batch| batch.rows()).sum::<usize>();
        assert!(found >= at_least, "{found}");
        let reasons = harvest.reasons();
        assert!(
            reasons
                .lines()
                .last()
                .unwrap()
                .contains("the rest of the file cannot be unpacked"),
            "{reasons}"
        );
    }
}

#[tokio::test]
async fn a_directory_of_them_goes_on_after_a_damaged_one() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("in")).unwrap();
    let lines = |first: u32| -> String { (first..first + 9_000).map(|number| format!("{number}\n")).collect() };
    let put = |name: &str, bytes: &[u8], second: u64| {
        let path = dir.path().join("in").join(name);
        fs::write(&path, bytes).unwrap();
        let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(second);
        fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(time)
            .unwrap();
    };
    put("a.gz", &gzip(lines(0).as_bytes()), 1);
    put("b.gz", b"no gzip", 2);
    put("c", lines(9_000).as_bytes(), 3);
    put("d.GZ", &gzip(lines(18_000).as_bytes()), 4);
    let config = r#"{"path": "in", "mode": "once", "settle_ms": 0, "format": "lines"}"#;
    let harvest = interrupted(&files::SOURCE, config, dir.path()).await;
    assert!(
        harvest.rows() == lines(0) + &lines(9_000) + lines(18_000).trim_end(),
        "{}",
        harvest.rows().len()
    );
    assert_eq!(harvest.undecodable.len(), 1);
    assert!(
        harvest.reasons().contains("/b.gz:1: the rest of the file cannot"),
        "{}",
        harvest.reasons()
    );
}

#[test]
fn one_that_grows_is_none() {
    refused(
        &SOURCE,
        r#"{"path": "a.gz", "format": "lines"}"#,
        "mode: a .gz file is read whole",
    );
}
