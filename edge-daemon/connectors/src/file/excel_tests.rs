//! Workbooks made by openpyxl: types, sheets, headers, what is no record, and another daemon after each batch.

use std::{path::Path, process::Command};

use flow::Read;

use super::{
    SOURCE,
    testing::{Harvest, refused, shown, source},
};
use crate::files;

/// Runs Python with openpyxl, in a directory.
fn python(dir: &Path, code: &str) {
    let head = "import openpyxl, datetime as dt\nfrom openpyxl import Workbook\n";
    let output = Command::new(testkit::python())
        .args(["-c", &format!("{head}{code}")])
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn once(dir: &Path, more: &str) -> Harvest {
    let config = format!(r#"{{"path": "in.xlsx", "format": "excel", "mode": "once"{more}}}"#);
    let mut input = source(&SOURCE, &config, dir);
    input.open(None).await.unwrap();
    let harvest = Harvest::of(&mut *input).await;
    assert!(harvest.ended);
    harvest
}

const BOOK: &str = "
w = Workbook()
s = w.active
s.title = 'Readings'
s['B1'] = 'Plant 7'
s.append([])
s.append(['id', 'name', '', 'day', 'at', 'span', 'ok', 'n'])
s.append([1, 'grün 🌱', 'x', dt.date(2024, 2, 29), dt.datetime(1999, 12, 31, 23, 59, 59), dt.timedelta(hours=1, minutes=2), True, 1.5])
s.append([])
s.append([2, None, None, None, None, dt.timedelta(days=2), False, -3, 'beyond'])
s.append([3, '=1/0', 'y', dt.date(1900, 3, 1), dt.datetime(2100, 1, 1, 0, 0, 0, 500000), dt.time(12, 30), None, 1e300])
t = w.create_sheet('Other')
t.append(['a', 1])
t.append(['b', 2])
w.save('in.xlsx')
";

#[tokio::test]
async fn cells_become_values() {
    let dir = tempfile::tempdir().unwrap();
    python(dir.path(), BOOK);
    let harvest = once(dir.path(), r#", "excel": {"header_row": 3}"#).await;
    assert_eq!(harvest.reasons(), "");
    assert_eq!(
        harvest.schema(),
        "id:f64 name:text column_3:text day:timestamp at:timestamp span:any ok:bool n:f64 column_9:text"
    );
    let rows = harvest.rows();
    let rows: Vec<&str> = rows.lines().collect();
    assert_eq!(
        rows[0],
        "1.0|grün 🌱|x|2024-02-29T00:00:00|1999-12-31T23:59:59|01:02:00|true|1.5|?"
    );
    assert_eq!(rows[1], "2.0|~|~|~|~|48:00:00|false|-3.0|beyond");
    // A formula that nobody has computed is empty.
    assert_eq!(
        rows[2],
        "3.0|~|y|1900-03-01T00:00:00|2100-01-01T00:00:00.500|1899-12-31T12:30:00|~|1e300|?"
    );
}

#[tokio::test]
async fn types_can_be_declared() {
    let dir = tempfile::tempdir().unwrap();
    python(dir.path(), BOOK);
    let more = r#", "excel": {"sheet": "Readings", "header_row": 3},
        "types": {"id": "i64", "day": "date", "at": "timestamp_utc", "n": "decimal(5,1)", "ok": "text"}"#;
    let harvest = once(dir.path(), more).await;
    assert!(
        harvest.reasons().contains("in.xlsx, row 7: column 'n'"),
        "{}",
        harvest.reasons()
    );
    // Declared columns come first.
    let rows = harvest.rows();
    let rows: Vec<&str> = rows.lines().collect();
    assert_eq!(
        rows[0],
        "1999-12-31T23:59:59Z|2024-02-29|1|1.5|true|grün 🌱|x|01:02:00|?"
    );
    assert_eq!(rows.len(), 2);
}

#[tokio::test]
async fn sheets_are_chosen_by_number_or_name() {
    let dir = tempfile::tempdir().unwrap();
    python(dir.path(), BOOK);
    for sheet in ["2", "\"Other\""] {
        let harvest = once(
            dir.path(),
            &format!(r#", "excel": {{"sheet": {sheet}, "columns": ["k", "v"]}}"#),
        )
        .await;
        assert_eq!(harvest.rows(), "a|1.0\nb|2.0", "{sheet}");
    }
    for (sheet, wanted) in [
        ("3", "there is no sheet 3: it has 2"),
        ("\"Reading\"", "there is no sheet 'Reading' (did you mean 'Readings'?)"),
    ] {
        let harvest = once(dir.path(), &format!(r#", "excel": {{"sheet": {sheet}}}"#)).await;
        assert!(harvest.reasons().contains(wanted), "{}", harvest.reasons());
    }
    std::fs::write(dir.path().join("in.xlsx"), "no workbook").unwrap();
    let harvest = once(dir.path(), "").await;
    assert!(
        harvest
            .reasons()
            .starts_with("in.xlsx: the file cannot be read: it is no workbook"),
        "{}",
        harvest.reasons()
    );
}

#[tokio::test]
async fn a_directory_of_workbooks_is_read_once_over_crashes() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("in")).unwrap();
    python(
        dir.path(),
        "import os
for f in range(3):
    w = Workbook(); s = w.active; s.append(['n', 'text'])
    for i in range(4000): s.append([f * 4000 + i, 'text of row %d' % i if i % 1000 != 7 else '#REF!'])
    w.save('in/%d.xlsx' % f); os.utime('in/%d.xlsx' % f, (f + 1, f + 1))",
    );
    let config = r#"{"path": "in", "mode": "once", "settle_ms": 0, "format": "excel", "types": {"n": "i64"}}"#;
    let (mut found, mut batches, mut bad) = (Vec::new(), 0, 0);
    let mut input = source(&files::SOURCE, config, dir.path());
    input.open(None).await.unwrap();
    while let Read::Batch(read) = input.read().await.unwrap() {
        found.extend(
            shown(&read.batch)
                .lines()
                .map(|row| row.split('|').next().unwrap().parse::<usize>().unwrap()),
        );
        bad += read.undecodable.len();
        batches += 1;
        input = source(&files::SOURCE, config, dir.path());
        input.open(Some(&read.position)).await.unwrap();
    }
    // openpyxl takes that text for an error, as Excel does.
    let wanted: Vec<usize> = (0..12_000).filter(|n| n % 1000 != 7).collect();
    assert!(found == wanted, "{} rows", found.len());
    assert_eq!(bad, 12);
    assert!(batches >= 6, "{batches}");
}

#[tokio::test]
async fn what_would_unpack_to_too_much_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    python(
        dir.path(),
        "import zipfile, os
w = Workbook(); w.active.append(['n', 'text']); w.save('plain.xlsx')
with zipfile.ZipFile('plain.xlsx') as old, zipfile.ZipFile('in.xlsx', 'w', zipfile.ZIP_DEFLATED) as new:
    for name in old.namelist():
        new.writestr(name, old.read(name))
    new.writestr('xl/sharedStrings.xml', b'<sst><si><t>' + b'x' * (65 << 20) + b'</t></si></sst>')
assert os.path.getsize('in.xlsx') < 1 << 20",
    );
    let harvest = once(dir.path(), "").await;
    assert_eq!(harvest.rows().len(), 0);
    let reasons = harvest.reasons();
    assert!(
        reasons.contains("take more than 67108864 bytes when they are unpacked"),
        "{reasons}"
    );
}

#[test]
fn mistakes_are_named() {
    for (config, wanted) in [
        (r#"{"path": "a", "format": "excel"}"#, "mode: a file of this format"),
        (r#"{"path": "a", "format": "lines", "excel": {}}"#, "excel: only for"),
        (
            r#"{"path": "a", "format": "excel", "mode": "once", "excel": {"sheet": 0}}"#,
            "excel.sheet: the first sheet is number 1",
        ),
        (
            r#"{"path": "a", "format": "excel", "mode": "once", "excel": {"header_row": 2, "columns": ["a"]}}"#,
            "excel.columns: the header names the columns",
        ),
        (
            r#"{"path": "a", "format": "excel", "mode": "once", "excel": {"columns": ["a"]}, "types": {"b": "i64"}}"#,
            "types names 'b'",
        ),
    ] {
        refused(&SOURCE, config, wanted);
    }
}
