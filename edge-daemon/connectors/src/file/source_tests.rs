//! The file source against real files: formats, growth, rotation, truncation, restarts.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::Path,
    time::Duration,
};

use bus_schema::{data::Cell, limits::RECORD_BYTES_MAX};
use proptest::prelude::*;

use super::{
    SOURCE,
    reader::{Format, Got, Reader},
    tail::Tail,
    testing::{Harvest, refused, source},
};

fn append(path: &Path, bytes: impl AsRef<[u8]>) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(bytes.as_ref()).unwrap();
}

async fn once(config: &str, content: &[u8]) -> Harvest {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("in"), content).unwrap();
    let mut source = source(&SOURCE, config, dir.path());
    source.open(None).await.unwrap();
    let harvest = Harvest::of(source.as_mut()).await;
    assert!(harvest.ended, "{config}");
    // Read again from the last position there is nothing more.
    source.close().await;
    source.open(harvest.position.as_ref()).await.unwrap();
    let again = Harvest::of(source.as_mut()).await;
    assert!(again.ended && again.batches.is_empty(), "{config}: {again:?}");
    harvest
}

#[tokio::test]
async fn formats() {
    for (options, content, schema, rows, reasons) in [
        (
            r#""format": "lines""#,
            "a\r\n\nb é\nlast",
            "line:text",
            "a\n\nb é\nlast",
            "",
        ),
        (
            r#""format": "json_lines""#,
            "{\"a\":1,\"b\":\"x\"}\n\n{\"b\":null}\r\n{\"a\":2}",
            "a:i64 b:text",
            "1|x\n?|~\n2|?",
            "",
        ),
        (
            r#""format": "json_lines""#,
            "\u{feff}{\"a\":{\"x\": [1]}}\n",
            "a:json",
            "{\"x\": [1]}",
            "",
        ),
        (
            r#""format": "json_lines""#,
            "{\"a\":18446744073709551616}\n{\"a\":1,}\n[1]\n{}\n{\"a\":1,\"a\":2}\n{\"a\":-1}\n",
            "a:any",
            "18446744073709551616\n-1",
            "in:2: not JSON: expected a field name in double quotes at byte 7\nin:3: JSON, but not an object: a record needs \
             named fields\nin:4: an object without fields is not a record\nin:5: the field 'a' stands in it twice",
        ),
        (
            r#""format": "json_lines", "types": {"n": "f64", "at": "timestamp_utc"}"#,
            "{\"n\":1,\"x\":1}\n{\"n\":\"z\"}\n{\"at\":\"2024-01-01 00:00:00\"}\n",
            "at:timestamp_utc n:f64 x:i64",
            "?|1.0|1\n2024-01-01T00:00:00Z|?|?",
            "in:2: column 'n' is not a value of type f64: 'z'",
        ),
        (
            r#""format": "csv""#,
            "a,b\r\n1,\"x,\n\"\"y\"\"\"\r\n,\"\"\r\n\r\n1,2,3\r\n4,é",
            "a:text b:text",
            "1|x,\n\"y\"\n~|\n4|é",
            "in:6: 3 fields for 2 columns",
        ),
        (
            r#""format": "csv", "types": {"n": "decimal(8,2)"}"#,
            "id,n\nx,1.5\ny,1.555\nz,\n",
            "id:text n:decimal(8,2)",
            "x|1.50\nz|~",
            "in:3: column 'n' is not a value of type decimal(8,2): '1.555'",
        ),
        (
            r#""format": "csv", "csv": {"header": false, "columns": ["x", "y"], "delimiter": ";"}, "types": {"y": "bool"}"#,
            "a;true\nb;no\n",
            "x:text y:bool",
            "a|true\nb|false",
            "",
        ),
        (r#""format": "csv""#, "only\n\n\"\"\nx\n", "only:text", "~\n\nx", ""),
        (
            r#""format": "csv""#,
            "a,,c\n1,2,3\n",
            "a:text column_2:text c:text",
            "1|2|3",
            "",
        ),
        (
            r#""format": "csv""#,
            "a,b\n1,\"2\n3,4\n5,6\n",
            "a:text b:text",
            "3|4\n5|6",
            "in:2: a quoted field without its closing quote",
        ),
        (
            r#""format": "lines", "origin_columns": true"#,
            "a\nbc\n",
            "line:text _file:text _line:u64 _offset:u64",
            "a|in|1|0\nbc|in|2|2",
            "",
        ),
    ] {
        let harvest = once(
            &format!(r#"{{"path": "in", "mode": "once", {options}}}"#),
            content.as_bytes(),
        )
        .await;
        let dir = |text: &str| regex_free_dir(text);
        assert_eq!(harvest.schema(), schema, "{options}");
        assert_eq!(dir(&harvest.rows()), rows, "{options}");
        assert_eq!(dir(&harvest.reasons()), reasons, "{options}");
    }
}

/// Takes the temporary directory out of `…/in`.
fn regex_free_dir(text: &str) -> String {
    let parts: Vec<&str> = text.split("/in").collect();
    let cut = parts.iter().enumerate().map(|(index, part)| match part.rfind("/tmp") {
        Some(at) if index + 1 < parts.len() => part[..at].to_string() + "in",
        _ => (*part).to_string(),
    });
    cut.collect()
}

#[tokio::test]
async fn bytes_that_are_not_text_and_long_lines() {
    let mut content = b"a\n\xff\xfe\nb\n".to_vec();
    content.extend(std::iter::repeat_n(b'x', RECORD_BYTES_MAX + 300_000));
    content.extend(b"\nc\n");
    content.extend(std::iter::repeat_n(b'y', RECORD_BYTES_MAX));
    content.extend(b"\nd");
    let harvest = once(
        r#"{"path": "in", "mode": "once", "format": "lines", "origin_columns": true}"#,
        &content,
    )
    .await;
    let lines: Vec<_> = harvest
        .batches
        .iter()
        .flat_map(|batch| (0..batch.rows()).map(move |row| (batch.cell(row, 0), batch.cell(row, 2))))
        .collect();
    let long = "y".repeat(RECORD_BYTES_MAX);
    let wanted = [("a", 1), ("b", 3), ("c", 5), (long.as_str(), 6), ("d", 7)];
    assert!(
        lines == wanted.map(|(line, number)| (Cell::Text(line), Cell::U64(number))),
        "{} lines",
        lines.len()
    );
    let reasons = harvest.reasons();
    assert!(
        reasons.contains(":2: not UTF-8")
            && reasons.contains(&format!(":4: the line is longer than {RECORD_BYTES_MAX} bytes")),
        "{reasons}"
    );
    assert_eq!(harvest.undecodable[0].bytes, b"\xff\xfe");
    assert!(
        harvest
            .undecodable
            .iter()
            .all(|input| input.bytes.len() <= RECORD_BYTES_MAX)
    );
}

#[tokio::test]
async fn a_followed_file_grows() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in");
    let mut source = source(&SOURCE, r#"{"path": "in", "format": "lines"}"#, dir.path());
    // Not there yet: waited for, and read from its beginning.
    source.open(None).await.unwrap();
    assert_eq!(Harvest::of(source.as_mut()).await.rows(), "");
    append(&path, "a\nb");
    assert_eq!(Harvest::of(source.as_mut()).await.rows(), "a");
    append(&path, "c\n");
    let read = Harvest::of(source.as_mut()).await;
    assert_eq!((read.rows().as_str(), read.ended), ("bc", false));
    // A new run goes on after what was read.
    append(&path, "d\ne\n");
    source.close().await;
    source.open(read.position.as_ref()).await.unwrap();
    assert_eq!(Harvest::of(source.as_mut()).await.rows(), "d\ne");
}

#[tokio::test]
async fn from_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in");
    append(&path, "old\nhalf");
    let mut source = source(
        &SOURCE,
        r#"{"path": "in", "format": "lines", "start": "end"}"#,
        dir.path(),
    );
    source.open(None).await.unwrap();
    let first = Harvest::of(source.as_mut()).await;
    // The start itself is a position: a restart before the first line does not skip what came in between.
    assert_eq!((first.rows().as_str(), first.batches.len()), ("", 1));
    append(&path, "-whole\nnew\n");
    source.close().await;
    source.open(first.position.as_ref()).await.unwrap();
    assert_eq!(Harvest::of(source.as_mut()).await.rows(), "half-whole\nnew");
}

#[tokio::test]
async fn rotation_and_truncation() {
    // Each step does something to the files; then what is read is compared.
    type Step = (&'static str, fn(&Path), &'static str);
    let rename: fn(&Path) = |dir| {
        if dir.join("in.1").exists() {
            fs::rename(dir.join("in.1"), dir.join("in.2")).unwrap();
        }
        fs::rename(dir.join("in"), dir.join("in.1")).unwrap();
    };
    fn copy_truncate(dir: &Path) {
        fs::copy(dir.join("in"), dir.join("in.1")).unwrap();
        File::create(dir.join("in")).unwrap();
    }
    let steps: &[&[Step]] = &[
        &[
            (
                "renamed and created",
                |dir| fs::rename(dir.join("in"), dir.join("in.1")).unwrap(),
                "",
            ),
            (
                "the writer still has the old one",
                |dir| append(&dir.join("in.1"), "c\nd"),
                "c",
            ),
            ("a new one", |dir| append(&dir.join("in"), "e\n"), "d\ne"),
        ],
        &[(
            "copied and truncated, with unread lines",
            |dir| {
                append(&dir.join("in"), "c\nd\n");
                copy_truncate(dir);
                append(&dir.join("in"), "e\n");
            },
            "c\nd\ne",
        )],
        &[(
            "truncated without a copy",
            |dir| fs::write(dir.join("in"), "x\n").unwrap(),
            "x",
        )],
        &[(
            "overwritten with something longer",
            |dir| fs::write(dir.join("in"), "x\ny\nz\nzz\n").unwrap(),
            "x\ny\nz\nzz",
        )],
        &[(
            "deleted and made again",
            |dir| {
                fs::remove_file(dir.join("in")).unwrap();
                append(&dir.join("in"), "x\n");
            },
            "x",
        )],
        &[(
            "compressed is not read",
            |dir| {
                append(&dir.join("in"), "c\n");
                fs::rename(dir.join("in"), dir.join("in.1")).unwrap();
                append(&dir.join("in.9.gz"), "garbage\n");
                append(&dir.join("in"), "d\n");
            },
            "c\nd",
        )],
    ];
    for restart in [false, true] {
        for script in steps {
            let dir = tempfile::tempdir().unwrap();
            append(&dir.path().join("in"), "a\nb\n");
            let mut source = source(&SOURCE, r#"{"path": "in", "format": "lines"}"#, dir.path());
            source.open(None).await.unwrap();
            let mut read = Harvest::of(source.as_mut()).await;
            assert_eq!(read.rows(), "a\nb");
            for (what, step, wanted) in *script {
                if restart {
                    source.close().await;
                    step(dir.path());
                    source.open(read.position.as_ref()).await.unwrap();
                } else {
                    step(dir.path());
                }
                let now = Harvest::of(source.as_mut()).await;
                assert_eq!(now.rows(), *wanted, "{what}, restart {restart}");
                read = Harvest {
                    position: now.position.or(read.position),
                    ..Harvest::default()
                };
            }
        }
    }
    // Several rotations while nobody looked.
    let dir = tempfile::tempdir().unwrap();
    append(&dir.path().join("in"), "a\nb\n");
    let mut source = source(&SOURCE, r#"{"path": "in", "format": "lines"}"#, dir.path());
    source.open(None).await.unwrap();
    let read = Harvest::of(source.as_mut()).await;
    source.close().await;
    append(&dir.path().join("in"), "c\n");
    rename(dir.path());
    append(&dir.path().join("in"), "d\n");
    rename(dir.path());
    append(&dir.path().join("in"), "e\n");
    source.open(read.position.as_ref()).await.unwrap();
    assert_eq!(Harvest::of(source.as_mut()).await.rows(), "c\nd\ne");
}

#[tokio::test]
async fn what_is_lost_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in");
    append(&path, "a\n");
    let mut source = source(&SOURCE, r#"{"path": "in", "format": "lines"}"#, dir.path());
    source.open(None).await.unwrap();
    let read = Harvest::of(source.as_mut()).await;
    source.close().await;
    append(&path, "unread\n");
    // A file made before the old one is removed cannot get its inode.
    append(&dir.path().join("new"), "b\n");
    fs::rename(dir.path().join("new"), &path).unwrap();
    source.open(read.position.as_ref()).await.unwrap();
    let after = Harvest::of(source.as_mut()).await;
    assert_eq!(after.rows(), "b");
    assert!(
        after
            .reasons()
            .contains("is gone (deleted or compressed) before its end was seen"),
        "{}",
        after.reasons()
    );
}

#[tokio::test]
async fn csv_goes_on_in_the_middle() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in");
    append(&path, "a,b\n1,\"x\ny\"\n");
    let mut source = source(
        &SOURCE,
        r#"{"path": "in", "format": "csv", "origin_columns": true}"#,
        dir.path(),
    );
    source.open(None).await.unwrap();
    let read = Harvest::of(source.as_mut()).await;
    assert_eq!(read.batches[0].cell(0, 3), Cell::U64(2));
    source.close().await;
    append(&path, "2,z\n");
    source.open(read.position.as_ref()).await.unwrap();
    let more = Harvest::of(source.as_mut()).await;
    assert_eq!(
        (more.batches[0].cell(0, 1), more.batches[0].cell(0, 3)),
        (Cell::Text("z"), Cell::U64(4))
    );
    // A rotated file has its own header.
    fs::rename(&path, dir.path().join("in.1")).unwrap();
    append(&path, "b,c\n3,4\n");
    let third = Harvest::of(source.as_mut()).await;
    assert!(third.schema().starts_with("b:text c:text"), "{}", third.schema());
}

#[tokio::test]
async fn faults_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("twice"), "a,a\n1,2\n").unwrap();
    fs::write(dir.path().join("types"), "a,b\n1,2\n").unwrap();
    fs::create_dir(dir.path().join("folder")).unwrap();
    for (config, wanted) in [
        (r#"{"path": "none", "format": "lines", "mode": "once"}"#, "No such file"),
        (r#"{"path": "folder", "format": "lines"}"#, "it is a directory"),
        (
            r#"{"path": "twice", "format": "csv"}"#,
            "columns 1 and 2 are both called 'a'",
        ),
        (
            r#"{"path": "types", "format": "csv", "types": {"c": "i64"}}"#,
            "types names 'c', but the columns are a, b",
        ),
    ] {
        let mut source = source(&SOURCE, config, dir.path());
        let fault = match source.open(None).await {
            Ok(()) => source.read().await.unwrap_err(),
            Err(fault) => fault,
        };
        assert!(fault.to_string().contains(wanted), "{config}: {fault}");
    }
    for (config, wanted) in [
        (r#"{"format": "lines"}"#, "missing field `path`"),
        (r#"{"path": "x", "format": "xml"}"#, "format: unknown variant `xml`"),
        (r#"{"path": "", "format": "lines"}"#, "path: name the file"),
        (
            r#"{"path": "x", "format": "lines", "mode": "once", "start": "end"}"#,
            "start: ",
        ),
        (r#"{"path": "x", "format": "lines", "csv": {}}"#, "csv: only for"),
        (
            r#"{"path": "x", "format": "lines", "types": {"line": "i64"}}"#,
            "types: plain lines",
        ),
        (
            r#"{"path": "x", "format": "csv", "types": {"a": "list"}}"#,
            "types.a: 'list' cannot be declared",
        ),
        (
            r#"{"path": "x", "format": "csv", "csv": {"delimiter": "||"}}"#,
            "csv.delimiter: '||' is not one ASCII character",
        ),
        (
            r#"{"path": "x", "format": "csv", "csv": {"header": false}}"#,
            "csv.columns: without a header",
        ),
        (
            r#"{"path": "x", "format": "csv", "csv": {"columns": ["a"]}}"#,
            "csv.columns: the header names",
        ),
        (
            r#"{"path": "x", "format": "csv", "csv": {"header": false, "columns": ["a", "a"]}}"#,
            "csv.columns: ",
        ),
    ] {
        refused(&SOURCE, config, wanted);
    }
}

#[tokio::test]
async fn batches_are_bounded() {
    let content: String = (0..20_000)
        .map(|n| format!("{{\"n\": {n}, \"text\": \"number {n}\"}}\n"))
        .collect();
    let harvest = once(
        r#"{"path": "in", "mode": "once", "format": "json_lines"}"#,
        content.as_bytes(),
    )
    .await;
    let total: usize = harvest.batches.iter().map(|batch| batch.rows()).sum();
    assert_eq!(total, 20_000);
    assert!(harvest.batches.iter().all(|batch| batch.encode().len() < 64 * 1024));
    assert!(harvest.batches.len() < 30, "{} batches", harvest.batches.len());
    // A record with more fields than a batch may have columns, among others with different fields.
    let wide = format!(
        "{{{}}}\n",
        (0..1100).map(|n| format!("\"w{n}\":1")).collect::<Vec<_>>().join(",")
    );
    let varied: String = (0..3000).map(|n| format!("{{\"c{n}\":{n}}}\n")).collect();
    let harvest = once(
        r#"{"path": "in", "mode": "once", "format": "json_lines"}"#,
        (wide + &varied).as_bytes(),
    )
    .await;
    assert_eq!(harvest.batches.iter().map(|batch| batch.rows()).sum::<usize>(), 3000);
    assert!(
        harvest.reasons().contains(":1: it has more than 1024 fields"),
        "{}",
        harvest.reasons()
    );
}

/// What may happen to a log and its reader.
#[derive(Debug, Clone)]
enum Event {
    Append(usize),
    Rename,
    CopyTruncate,
    /// The reader is killed and starts again at its last position.
    Kill,
    Read,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => (0..30usize).prop_map(Event::Append),
        1 => Just(Event::Rename),
        1 => Just(Event::CopyTruncate),
        2 => Just(Event::Kill),
        4 => Just(Event::Read),
    ];
    prop::collection::vec(event, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// However a log is written, rotated and read with interruptions: every line comes once, in order.
    #[test]
    fn every_line_once_in_order(events in events()) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in");
        File::create(&path).unwrap();
        let reader = || Reader::new(Tail::new(path.clone(), false), Format::Lines, Vec::new(), "in".into(), false);
        let (mut running, mut position, mut found) = (reader(), None, Vec::<String>::new());
        running.open(None, false).unwrap();
        let mut written = Vec::new();
        // The text of all lines; how much of it is in files. The first line tells files apart by their first bytes.
        let mut partial = String::new();
        let read_all = |running: &mut Reader, position: &mut Option<flow::Position>, found: &mut Vec<String>, patience: usize| {
            let mut waits = 0;
            while waits <= patience {
                match running.read().unwrap() {
                    Got::Batch(read) => {
                        assert!(read.undecodable.is_empty(), "{:?}", read.undecodable);
                        found.extend((0..read.batch.rows()).map(|row| read.batch.cell(row, 0).to_string()));
                        *position = Some(read.position);
                        waits = 0;
                    }
                    _ => {
                        waits += 1;
                        if patience > 0 {
                            std::thread::sleep(Duration::from_millis(15));
                        }
                    }
                }
            }
        };
        let mut number = 0;
        let mut age = 0;
        // Lines in the files before this one.
        let mut lines_before = 0;
        for event in events.iter().chain([&Event::Append(30), &Event::Read]) {
            match event {
                Event::Append(bytes) => {
                    // Whole lines, and perhaps the beginning of another one.
                    while partial.len() < *bytes {
                        number += 1;
                        let line = format!("line {number} of the log");
                        partial += &line;
                        partial.push('\n');
                        written.push(line);
                    }
                    let now: String = partial.drain(..*bytes).collect();
                    append(&path, now);
                }
                Event::Rename | Event::CopyTruncate => {
                    // Writers finish their line before they let a log be rotated.
                    append(&path, std::mem::take(&mut partial));
                    if fs::metadata(&path).unwrap().len() == 0 {
                        continue;
                    }
                    age += 1;
                    // The highest number is the oldest.
                    let target = dir.path().join(format!("in.{}", 1000 - age));
                    // A copy is known by what was consumed of it; with nothing consumed it cannot be.
                    let is_known = found.len() > lines_before;
                    lines_before = written.len();
                    if matches!(event, Event::Rename) || !is_known {
                        fs::rename(&path, target).unwrap();
                        File::create(&path).unwrap();
                    } else {
                        fs::copy(&path, target).unwrap();
                        File::create(&path).unwrap();
                    }
                }
                Event::Kill => {
                    running = reader();
                    running.open(position.as_ref(), false).unwrap();
                }
                Event::Read => read_all(&mut running, &mut position, &mut found, 0),
            }
        }
        append(&path, std::mem::take(&mut partial));
        read_all(&mut running, &mut position, &mut found, 4);
        // A reader that never had a position starts with the file that is there: what was rotated before is not its own.
        let skipped = written.len() - found.len().min(written.len());
        let wanted = if position_was_ever_taken(&events) { &written[..] } else { &written[skipped..] };
        prop_assert_eq!(found, wanted);
    }
}

/// Whether something was read before the first kill or rotation.
fn position_was_ever_taken(events: &[Event]) -> bool {
    let mut has_appended = false;
    for event in events {
        match event {
            Event::Append(bytes) => has_appended |= *bytes >= 30,
            Event::Read if has_appended => return true,
            Event::Rename | Event::CopyTruncate | Event::Kill => return false,
            Event::Read => {}
        }
    }
    false
}

/// A record that could not be read is read once more where it stands for itself, open or not.
#[tokio::test]
async fn a_single_record_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("in"), "").unwrap();
    let json = r#"{"path": "in", "format": "json_lines", "types": {"n": "i64"}}"#;
    for is_open in [false, true] {
        let mut source = source(&SOURCE, json, dir.path());
        if is_open {
            source.open(None).await.unwrap();
        }
        let batch = source.decode(br#"{"n": 7}"#).unwrap();
        assert_eq!((batch.rows(), batch.cell(0, 0)), (1, Cell::I64(7)));
        for (wrong, said) in [(&b"nonsense"[..], ""), (b"", "no record"), (br#"{"n": "x"}"#, "n")] {
            let cause = source.decode(wrong).unwrap_err();
            assert!(cause.contains(said) && !cause.is_empty(), "{cause}");
        }
    }
    for other in [
        r#"{"path": "in", "format": "csv"}"#,
        r#"{"path": "in", "format": "lines"}"#,
        r#"{"path": "in", "format": "json_lines", "origin_columns": true}"#,
    ] {
        let cause = source(&SOURCE, other, dir.path()).decode(b"a").unwrap_err();
        assert!(cause.contains("mend the file"), "{cause}");
    }
}
