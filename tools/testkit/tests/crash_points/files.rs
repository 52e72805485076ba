//! Files are written into a directory, and whole files sent from one into another, by a daemon that dies at every moment of
//! it, each time it gets there. Then one that lives goes on, and everything is in place once.

use std::{
    collections::BTreeMap, fmt::Write as _, fs, os::unix::process::ExitStatusExt as _, path::Path, time::Duration,
};

use crash_point::Point;
use testkit::{Cmd, bin, temp_dir};

/// How long one run may take.
const RUN_MAX: Duration = Duration::from_secs(60);
/// How many times each moment is survived before it is deadly.
const TIMES_MAX: u64 = 4;
const ROWS: u64 = 20_000;

/// Moments of any destination of files.
const WRITING: &[Point] = &[
    Point::RunnerAfterWrite,
    Point::RunnerAfterCommit,
    Point::FileBeforeSync,
    Point::FileBeforeLedger,
    Point::FileAfterLedger,
    Point::FileRotateAfterRename,
    Point::FileRotateAfterLedger,
];
/// Moments of a source of whole files.
pub const SENDING: &[Point] = &[Point::FilesBeforeDealt, Point::FilesAfterDealt];

const PARTITION: &str = r#"name = "partition"

[sources.lines]
type = "file"
path = "lines.jsonl"
format = "json_lines"
mode = "once"

[destinations.out]
type = "file"
from = "lines"
path = "out"
format = "csv"
partition = "{site}/{at:date}.csv"
csv = { header = false }
rotate = { max_bytes = 8192 }
"#;

const WHOLE: &str = r#"name = "whole"

[sources.folder]
type = "files"
path = "in"
mode = "once"
settle_ms = 0
when_sent = WHEN

[destinations.out]
type = "files"
from = "folder"
path = "out"
existing = "number"
"#;

/// Dies at each moment the first time, the second, …; `prepare` and `judge` get the directory.
#[track_caller]
fn die_at_each(points: &[Point], workflow: &str, prepare: impl Fn(&Path), judge: impl Fn(&Path, &str)) {
    for point in points {
        for times in 1..=TIMES_MAX {
            let dir = temp_dir("files");
            let dir = dir.path();
            prepare(dir);
            let job = dir.join("job.toml");
            fs::write(&job, workflow).expect("a workflow");
            let daemon = Cmd::new(bin("myceliald")).dir(dir).arg("run").arg(&job);
            let order = format!("{}:{times}", point.name());
            let status = daemon
                .clone()
                .env("MYCELIAL_CRASH_AT", &order)
                .spawn()
                .wait_exit(RUN_MAX)
                .unwrap_or_else(|| panic!("{order}: it goes on and on"));
            if status.success() {
                assert!(times > 1, "{order} was never reached");
                judge(dir, &order);
                break;
            }
            assert_eq!(status.signal(), Some(9), "{order}: {status}");
            daemon.run(RUN_MAX).ok();
            judge(dir, &order);
        }
    }
}

/// Name and content of everything below a directory that does not begin with a dot.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut found, mut directories) = (BTreeMap::new(), vec![root.to_path_buf()]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(root).expect("below").display().to_string();
            if path.is_dir() {
                directories.push(path);
            } else if !name.starts_with('.') {
                found.insert(name, fs::read(path).expect("a file"));
            }
        }
    }
    found
}

#[test]
fn a_daemon_dies_while_it_writes_a_partition() {
    let site = |n: u64| format!("s{}/2026-01-{:02}", n % 7, 1 + n / 2_000);
    let prepare = |dir: &Path| {
        let mut lines = String::new();
        for n in 0..ROWS {
            let name = site(n);
            let (site, day) = name.split_once('/').expect("both");
            let _ = writeln!(lines, r#"{{"n":{n},"site":"{site}","at":"{day}T12:00:00Z"}}"#);
        }
        fs::write(dir.join("lines.jsonl"), lines).expect("the lines");
        fs::create_dir(dir.join("out")).expect("a directory");
    };
    let judge = |dir: &Path, order: &str| {
        let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for (name, bytes) in files(&dir.join("out")) {
            let text = String::from_utf8(bytes).expect("text");
            let number = |line: &str| line.split_once(',').and_then(|(number, _)| number.parse::<u64>().ok());
            let mut numbers = text
                .lines()
                .map(|line| number(line).unwrap_or_else(|| panic!("{order}: {name}: {line:?}")));
            // s1/2026-01-01.csv, s1/2026-01-01-000001.csv
            let of: String = name.chars().take("s1/2026-01-01".len()).collect();
            found.entry(of).or_default().extend(&mut numbers);
        }
        let mut wanted: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        (0..ROWS).for_each(|n| wanted.entry(site(n)).or_default().push(n));
        found.values_mut().for_each(|numbers| numbers.sort_unstable());
        assert!(
            found == wanted,
            "{order}: {} rows are not where they belong",
            accuse(&found, &wanted)
        );
    };
    die_at_each(WRITING, PARTITION, prepare, judge);
}

fn accuse(found: &BTreeMap<String, Vec<u64>>, wanted: &BTreeMap<String, Vec<u64>>) -> usize {
    wanted
        .iter()
        .map(|(name, rows)| rows.len().abs_diff(found.get(name).map_or(0, Vec::len)))
        .sum()
}

#[test]
fn a_daemon_dies_while_it_sends_whole_files() {
    let contents: BTreeMap<String, Vec<u8>> = (0..9u32)
        .map(|n| {
            let bytes = (0..n * n * 9_000).map(|at| (at.wrapping_mul(2_654_435_761) >> (8 + n % 8)) as u8);
            (format!("file-{n}.bin"), bytes.collect())
        })
        .collect();
    let prepare = |dir: &Path| {
        fs::create_dir(dir.join("in")).expect("a directory");
        fs::create_dir(dir.join("out")).expect("a directory");
        for (name, bytes) in &contents {
            fs::write(dir.join("in").join(name), bytes).expect("a file");
        }
    };
    for (when, stays) in [
        ("\"keep\"", "in"),
        ("\"delete\"", ""),
        ("\"move\"\nmove_to = \"sent\"", "sent"),
    ] {
        let judge = |dir: &Path, order: &str| {
            let order = format!("{order}, {when}");
            // A double would have a number.
            assert!(
                files(&dir.join("out")) == contents,
                "{order}: {:?}",
                files(&dir.join("out")).keys()
            );
            let left = fs::read_dir(dir.join("out")).expect("a directory").count();
            assert_eq!(left, contents.len() + 1, "{order}: something unfinished is left");
            match stays {
                "" => assert!(files(&dir.join("in")).is_empty(), "{order}"),
                stays => assert!(files(&dir.join(stays)) == contents, "{order}"),
            }
        };
        let points: Vec<Point> = WRITING.iter().chain(SENDING).copied().collect();
        die_at_each(&points, &WHOLE.replace("WHEN", when), prepare, judge);
    }
}
