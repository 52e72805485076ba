//! A daemon dies just before an object of several parts becomes whole, and just after: each record is in the objects once, and no
//! upload is left behind.

use std::{fmt::Write as _, fs, time::Duration};

use crash_point::Point;
use testkit::{Cmd, S3, bin, temp_dir, wait_until};

const LATE: Duration = Duration::from_secs(120);
const STOP: Duration = Duration::from_secs(20);
const ROWS: u64 = 60_000;
/// Makes rows so long that every object has several parts: a part is 5 MiB.
const PAD: usize = 300;

/// The moments of an upload.
pub const UPLOADING: &[Point] = &[Point::S3BeforeComplete, Point::S3AfterComplete];

fn workflow(server: &S3) -> String {
    format!(
        r#"name = "lake"
[sources.in]
type = "file"
path = "in.jsonl"
format = "json_lines"
[destinations.out]
type = "s3"
from = "in"
bucket = "plant"
region = "eu-central-1"
endpoint = "http://{}"
access_key = "tester"
secret_key = "a secret/with+signs"
prefix = "raw/"
format = "json_lines"
max_bytes = 6000000
max_age_s = 2
"#,
        server.addr()
    )
}

/// The numbers of all records in all objects, in the order of their names.
fn ids(server: &S3) -> Vec<u64> {
    let texts = server
        .objects()
        .into_values()
        .map(|bytes| String::from_utf8(bytes).expect("text"));
    let id = |line: &str| {
        let record: serde_json::Value = serde_json::from_str(line).expect("JSON");
        record["id"].as_u64().expect("a number")
    };
    texts
        .flat_map(|text| text.lines().map(id).collect::<Vec<_>>())
        .collect()
}

#[test]
fn an_upload_is_whole_or_not_there() {
    for point in UPLOADING {
        let (dir, server) = (temp_dir("objects"), S3::start());
        let rows = (1..=ROWS).fold(String::new(), |mut text, id| {
            let _infallible = writeln!(text, r#"{{"id": {id}, "pad": "{}"}}"#, "x".repeat(PAD));
            text
        });
        fs::write(dir.path().join("in.jsonl"), rows).expect("the input is written");
        let file = dir.path().join("lake.toml");
        fs::write(&file, workflow(&server)).expect("the workflow is written");
        let mut left_behind = 0;
        // Twice: once with nothing stored before it, and once in the middle.
        for times in [1, 2] {
            let order = format!("{}:{times}", point.name());
            let done = Cmd::new(bin("myceliald"))
                .arg("run")
                .arg(&file)
                .env("MYCELIAL_CRASH_AT", &order)
                .run(LATE);
            assert_eq!(done.code(), None, "{order} was not reached: {done}");
            left_behind += server.uploads().matches("jsonl").count();
        }
        assert_eq!(left_behind > 0, *point == Point::S3BeforeComplete, "{}", point.name());
        let mut daemon = Cmd::new(bin("myceliald")).arg("run").arg(&file).spawn();
        wait_until("all records", LATE, || {
            (ids(&server).len() as u64 >= ROWS).then_some(())
        });
        // The last ones are there before the daemon has stored that.
        std::thread::sleep(Duration::from_secs(2));
        assert!(daemon.term_and_wait(STOP).success(), "the daemon drains and stops");
        assert!(!daemon.log().contains("does not balance"), "{}", daemon.log());
        assert!(
            ids(&server) == (1..=ROWS).collect::<Vec<_>>(),
            "{}: not what was read",
            point.name()
        );
        assert_eq!(server.uploads().trim(), "[]", "{}", point.name());
    }
}
