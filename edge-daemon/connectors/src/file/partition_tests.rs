//! The file destination with a partition, against real directories: where records go, what is refused, and that each stands
//! in one file once, whatever is interrupted.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use bus_schema::data::{Batch, BatchBuilder, Field, Op, Origin, Schema, Type, Value};
use flow::Sink;
use proptest::prelude::*;

use super::{
    SINK,
    output::COMMIT_FILES_MAX,
    testing::{delivery, refused, sink, stream},
};

/// Rows of a site, a time, and a number.
fn batch(rows: &[(Value, &str, i64)]) -> Batch {
    let fields = ["site", "at", "n"].map(|name| Field::new(name, Type::Any)).to_vec();
    let schema = Schema {
        collection: "t".into(),
        fields,
    };
    let mut builder = BatchBuilder::new(schema.into());
    for (site, at, n) in rows {
        let cells = [site.clone(), Value::Text((*at).to_string()), Value::I64(*n)];
        builder.push(Op::Insert, &cells.each_ref().map(Value::as_cell)).unwrap();
    }
    builder.finish(Origin::default())
}

fn site(name: &str) -> Value {
    Value::Text(name.into())
}

/// Every file below a directory but those of the destination itself.
fn files(root: &Path) -> BTreeMap<String, String> {
    let (mut found, mut directories) = (BTreeMap::new(), vec![root.to_path_buf()]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_string();
            if path.is_dir() {
                directories.push(path);
            } else if !name.starts_with(".mycelial") {
                found.insert(name, fs::read_to_string(path).unwrap());
            }
        }
    }
    found
}

async fn put(sink: &mut dyn Sink, seq: u64, batch: Batch) -> Vec<(usize, String)> {
    let rejected = sink.write(&[delivery("a", seq, batch)]).await.unwrap();
    sink.commit().await.unwrap();
    rejected
        .into_iter()
        .map(|rejected| (rejected.row, rejected.reason))
        .collect()
}

const BY_DAY: &str = r#"{"path": ".", "format": "csv", "partition": "{site}/{at:date}.csv",
    "csv": {"columns": ["n", "site", "at"]}}"#;

#[tokio::test]
async fn records_go_where_they_belong() {
    let dir = tempfile::tempdir().unwrap();
    let mut out = sink(&SINK, BY_DAY, dir.path());
    out.open().await.unwrap();
    let first = batch(&[
        (site("north"), "2026-01-31T23:59:59Z", 1),
        (site("south/7"), "2026-01-31T23:59:59Z", 2),
        (site("north"), "2026-02-01T00:00:00Z", 3),
        (site("north"), "2026-01-31T00:00:00Z", 4),
    ]);
    // Nothing is in place before it is committed, nor after a crash.
    out.write(&[delivery("a", 1, first.clone())]).await.unwrap();
    assert_eq!(files(dir.path()), BTreeMap::new());
    drop(out);
    let mut out = sink(&SINK, BY_DAY, dir.path());
    out.open().await.unwrap();
    assert_eq!(put(out.as_mut(), 1, first).await, []);
    // Added to over restarts, and cut where a crash left more.
    let day = dir.path().join("north/2026-01-31.csv");
    fs::write(&day, fs::read_to_string(&day).unwrap() + "torn").unwrap();
    out.close().await;
    out.open().await.unwrap();
    assert_eq!(
        put(out.as_mut(), 2, batch(&[(site("north"), "2026-01-31T12:00:00Z", 5)])).await,
        []
    );
    let wanted = [
        (
            "north/2026-01-31.csv",
            "n,site,at\n1,north,2026-01-31T23:59:59Z\n4,north,2026-01-31T00:00:00Z\n5,north,2026-01-31T12:00:00Z\n",
        ),
        ("north/2026-02-01.csv", "n,site,at\n3,north,2026-02-01T00:00:00Z\n"),
        ("south/7/2026-01-31.csv", "n,site,at\n2,south/7,2026-01-31T23:59:59Z\n"),
    ];
    assert_eq!(
        files(dir.path()),
        wanted.map(|(name, text)| (name.into(), text.into())).into()
    );
}

#[tokio::test]
async fn no_name_leads_out() {
    let (outer, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let dir = outer.path().join("data");
    fs::create_dir(&dir).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), dir.join("away")).unwrap();
    fs::write(dir.join("plain"), "theirs").unwrap();
    let config = r#"{"path": "data", "format": "json_lines", "partition": "{site}"}"#;
    let mut out = sink(&SINK, config, outer.path());
    out.open().await.unwrap();
    let long = "x".repeat(300);
    let bad = [
        ("..", "begins with a dot"),
        ("../escaped", "begins with a dot"),
        ("a/../../escaped", "begins with a dot"),
        ("/tmp/escaped", "is empty"),
        ("a\0b", "cannot stand in it"),
        ("C:\\escaped", "cannot stand in it"),
        ("nul", "is a device"),
        ("com1.jsonl", "is a device"),
        (".mycelial", "begins with a dot"),
        (long.as_str(), "longer than 200 bytes"),
        ("away/escaped", "is a symbolic link"),
        ("plain/x", "is no directory"),
        ("good/x/y", "'good/x' is a file, no directory"),
    ];
    let mut rows = vec![(site("good/x"), "", 0)];
    rows.extend(
        bad.iter()
            .enumerate()
            .map(|(n, (name, _))| (site(name), "", n as i64 + 1)),
    );
    rows.extend([(Value::Null, "", 98), (site("good/z"), "", 99)]);
    let rejected = put(out.as_mut(), 1, batch(&rows)).await;
    let causes = bad
        .iter()
        .map(|(_, cause)| *cause)
        .chain(["needs a value in column 'site'"]);
    assert_eq!(rejected.len(), bad.len() + 1, "{rejected:?}");
    for ((row, reason), (index, cause)) in rejected.iter().zip(causes.enumerate()) {
        assert_eq!(*row, index + 1, "{reason}");
        assert!(reason.contains(cause), "{cause}: {reason}");
    }
    let mark = out.watermark(&stream("a")).await.unwrap().unwrap();
    assert_eq!((mark.delivered, mark.counts.dead), (2, bad.len() as u64 + 1));
    let names: Vec<String> = files(&dir)
        .into_keys()
        .filter(|name| !name.starts_with("away"))
        .collect();
    assert_eq!(names, ["good/x", "good/z", "plain"]);
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn the_number_of_files_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let config = r#"{"path": ".", "format": "json_lines", "partition": "{site}"}"#;
    let mut out = sink(&SINK, config, dir.path());
    out.open().await.unwrap();
    let rows: Vec<_> = (0..COMMIT_FILES_MAX as i64 + 3)
        .map(|n| (site(&format!("s{n}")), "", n))
        .collect();
    let rejected = put(out.as_mut(), 1, batch(&rows)).await;
    assert_eq!(rejected.len(), 3);
    assert!(
        rejected[0].1.contains("its name changes too often"),
        "{}",
        rejected[0].1
    );
    // All of them again, most of which are not remembered any more.
    assert_eq!(put(out.as_mut(), 2, batch(&rows[..COMMIT_FILES_MAX])).await, []);
    let found = files(dir.path());
    assert_eq!(found.len(), COMMIT_FILES_MAX);
    for (name, text) in found {
        let line = format!(
            "{{\"site\":\"{name}\",\"at\":\"\",\"n\":{}}}\n",
            name.trim_start_matches('s')
        );
        assert_eq!(text, line.repeat(2));
    }
}

#[tokio::test]
async fn files_of_a_partition_are_rotated() {
    let dir = tempfile::tempdir().unwrap();
    let config = r#"{"path": ".", "format": "json_lines", "partition": "{site}/log.jsonl", "rotate": {"max_age_s": 3600, "max_bytes": 4096}}"#;
    let mut out = sink(&SINK, config, dir.path());
    out.open().await.unwrap();
    let padding = "x".repeat(5000);
    assert_eq!(
        put(out.as_mut(), 1, batch(&[(site("a"), &padding, 1), (site("b"), "", 2)])).await,
        []
    );
    assert_eq!(put(out.as_mut(), 2, batch(&[(site("a"), "", 3)])).await, []);
    let names: Vec<String> = files(dir.path()).into_keys().collect();
    assert_eq!(names, ["a/log-000001.jsonl", "a/log.jsonl", "b/log.jsonl"]);
    // Of too many files whose age counts, the one longest not written to is complete before its time.
    let many: Vec<_> = (0..40).map(|n| (site(&format!("m{n}")), "", n)).collect();
    assert_eq!(put(out.as_mut(), 3, batch(&many)).await, []);
    let names: Vec<String> = files(dir.path()).into_keys().collect();
    assert!(names.contains(&"b/log-000001.jsonl".to_string()), "{names:?}");
    assert_eq!(names.iter().filter(|name| name.ends_with("/log.jsonl")).count(), 32);
}

#[tokio::test]
async fn mistakes_are_named() {
    for (partition, wanted) in [
        ("x.csv", "partition: 'x.csv' is the same for all records"),
        ("../{site}", "partition: '../0' is no name for a file"),
        ("{site", "partition: '{site' has a { without }"),
    ] {
        refused(
            &SINK,
            &format!(r#"{{"path": "x", "format": "csv", "partition": "{partition}"}}"#),
            wanted,
        );
    }
    let dir = tempfile::tempdir().unwrap();
    let mut out = sink(&SINK, &BY_DAY.replace("\".\"", "\"none\""), dir.path());
    let fault = out.open().await.unwrap_err();
    assert!(
        matches!(fault, flow::Fault::Retry { .. }) && fault.to_string().contains("none"),
        "{fault}"
    );
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is interrupted when: each number stands in the files of its site once, in order.
    #[test]
    fn exactly_once_over_crashes(steps in prop::collection::vec((0..4u8, 1..50i64), 1..25), aged: bool) {
        let dir = tempfile::tempdir().unwrap();
        let age = if aged { r#", "max_age_s": 3600"# } else { "" };
        let config = format!(r#"{{"path": ".", "format": "csv", "partition": "{{site}}/x.csv", "rotate": {{"max_bytes": 4096{age}}}}}"#);
        block_on(async {
            let mut out = sink(&SINK, &config, dir.path());
            out.open().await.unwrap();
            let (mut next, mut wanted) = (1, BTreeMap::<String, Vec<i64>>::new());
            for (step, sites) in &steps {
                let padding = "x".repeat(if next % 5 == 0 { 3000 } else { 0 });
                let rows: Vec<(String, i64)> = (0..*sites).map(|n| (format!("s{n}"), next as i64 * 1000 + n)).collect();
                let batch = batch(&rows.iter().map(|(name, n)| (site(name), padding.as_str(), *n)).collect::<Vec<_>>());
                assert_eq!(out.write(&[delivery("a", next, batch)]).await.unwrap(), []);
                if *step > 0 {
                    out.commit().await.unwrap();
                    next += 1;
                    rows.into_iter().for_each(|(name, n)| wanted.entry(name).or_default().push(n));
                }
                if *step < 2 {
                    // Killed: no close, a new process.
                    drop(out);
                    out = sink(&SINK, &config, dir.path());
                    out.open().await.unwrap();
                    let mark = out.watermark(&stream("a")).await.unwrap();
                    assert_eq!(mark.map_or(0, |mark| mark.seq), next - 1);
                }
            }
            drop(out);
            let mut out = sink(&SINK, &config, dir.path());
            out.open().await.unwrap();
            let mut found = BTreeMap::<String, Vec<i64>>::new();
            // The numbers of complete files stand before the file that is being written.
            let mut all: Vec<_> = files(dir.path()).into_iter().collect();
            all.sort_by_key(|(name, _)| (name.split('/').next().unwrap().to_string(), name.ends_with("/x.csv"), name.clone()));
            for (name, text) in all {
                let numbers = text.lines().skip(1).map(|line| line.rsplit(',').next().unwrap().parse::<i64>().unwrap());
                found.entry(name.split('/').next().unwrap().to_string()).or_default().extend(numbers);
            }
            found.retain(|_, numbers| !numbers.is_empty());
            assert_eq!(found, wanted);
        });
    }
}
