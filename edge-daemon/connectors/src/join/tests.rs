//! What a join makes is what the records say, whatever comes first, however it is cut, and wherever it is interrupted.

use std::{collections::BTreeMap, path::Path};

use bus_schema::{
    data::{Batch, Field, Op, Type, Value, Zone},
    id::{NodeId, StreamId, WorkflowId},
};
use flow::{Build, BuildContext, Delivery, Fault, Junction, Position, Read, Sink, Tally};
use proptest::prelude::*;

use super::{TRANSFORM, store::MADE_ROWS_MAX};
use crate::file::testing::{batch_of, refused};

/// Time goes by each record.
const INPUTS: &str =
    r#""ahead_max_ms": 0, "inputs": {"a": {"key": ["k"], "time": "at"}, "b": {"key": ["id"], "time": "at"}}"#;
const SECOND: i128 = 1_000_000_000;

fn join(config: &str, file: Option<&Path>) -> Box<dyn Junction> {
    let Build::Junction(build) = TRANSFORM.build else {
        panic!("no junction")
    };
    let context = BuildContext {
        node: "both".into(),
        ..BuildContext::default()
    };
    let mut junction = build(config, &context).unwrap_or_else(|error| panic!("{config}: {error}"));
    junction.settle(file.map(Path::to_path_buf));
    junction
}

/// Key, second, and a number to tell it by. No key: null.
type Row = (Option<i64>, i128, i64);

fn batch(side: &str, rows: &[Row]) -> Batch {
    let (key, number) = if side == "a" { ("k", "x") } else { ("id", "y") };
    let fields = vec![
        Field::new(key, Type::I64),
        Field::new("at", Type::Timestamp(Zone::Utc)),
        Field::new(number, Type::I64),
    ];
    let values: Vec<[Value; 3]> = rows
        .iter()
        .map(|(key, at, number)| {
            let key = key.map_or(Value::Null, Value::I64);
            [key, Value::TimestampUtc(at * SECOND), Value::I64(*number)]
        })
        .collect();
    let rows: Vec<(Op, &[Value])> = values.iter().map(|row| (Op::Insert, &row[..])).collect();
    batch_of(fields, &rows)
}

fn lineage(side: &str) -> StreamId {
    let node = NodeId::of_key(&[1; 32]);
    StreamId::of_edge(&WorkflowId::of_name("w"), side, &node, &node)
}

fn delivery(side: &str, seq: u64, rows: &[Row]) -> Delivery {
    Delivery {
        stream: lineage(side),
        seq,
        position: Position::new(seq.to_be_bytes()),
        batch: batch(side, rows),
        tally: Tally::default(),
        bytes: 0,
    }
}

async fn give(sink: &mut dyn Sink, deliveries: &[Delivery]) -> Result<Vec<String>, Fault> {
    let rejected = sink.write(deliveries).await?;
    sink.commit().await?;
    Ok(rejected.into_iter().map(|rejected| rejected.reason).collect())
}

/// The numbers of what came together, `None` for what is not there.
type Pair = (Option<i64>, Option<i64>);

fn pairs(batch: &Batch) -> Vec<Pair> {
    let number = |row: usize, name: &str| {
        let column = batch.schema().index_of(name)?;
        match batch.cell(row, column).to_value() {
            Value::I64(number) => Some(number),
            _ => None,
        }
    };
    (0..batch.rows())
        .map(|row| (number(row, "x"), number(row, "y")))
        .collect()
}

/// Reads all there is, and says whether it has ended.
async fn harvest(source: &mut dyn flow::Source) -> (Vec<Batch>, Option<Position>, bool) {
    let (mut batches, mut position) = (Vec::new(), None);
    loop {
        match source.read().await.unwrap() {
            Read::Batch(read) => {
                batches.push(read.batch);
                position = Some(read.position);
            }
            Read::Idle => return (batches, position, false),
            Read::End => return (batches, position, true),
        }
    }
}

#[tokio::test]
async fn one_batch_cannot_make_without_end_and_gives_the_disk_back() {
    let dir = testkit::temp_dir("join");
    let file = dir.path().join("join.db");
    let junction = join(&format!(r#"{{{INPUTS}, "within_ms": 1000}}"#), Some(&file));
    let (mut a, mut b) = (junction.input("a").unwrap(), junction.input("b").unwrap());
    let mut source = junction.output();
    a.open().await.unwrap();
    b.open().await.unwrap();
    source.open(None).await.unwrap();
    // A thousand of one key, and as many as many times again.
    let alike = |count: i64| (0..count).map(|number| (Some(1), 1, number)).collect::<Vec<Row>>();
    let fitting = MADE_ROWS_MAX / 1_000;
    assert_eq!(
        give(&mut *a, &[delivery("a", 1, &alike(1_000))]).await.unwrap().len(),
        0
    );
    let refused = give(&mut *b, &[delivery("b", 1, &alike(fitting + 2))]).await.unwrap();
    assert_eq!(refused.len(), 2);
    assert!(refused[0].contains("smaller 'within_ms'"), "{refused:?}");
    let bytes = || std::fs::metadata(&file).unwrap().len();
    let most = bytes();
    let mut made = 0;
    loop {
        let (batches, position, _) = harvest(&mut *source).await;
        let Some(position) = position else { break };
        made += batches.iter().map(|batch| batch.rows() as i64).sum::<i64>();
        source.commit(&position).await.unwrap();
    }
    assert_eq!(made, MADE_ROWS_MAX);
    // Little by little.
    for seq in 2..200 {
        give(&mut *a, &[delivery("a", seq, &[(Some(1), 1, 0)])]).await.unwrap();
        let (_, position, _) = harvest(&mut *source).await;
        if let Some(position) = position {
            source.commit(&position).await.unwrap();
        }
        if bytes() < most / 10 {
            return;
        }
    }
    panic!("{} of {most} bytes are kept", bytes());
}

#[tokio::test(start_paused = true)]
async fn a_wrong_clock_makes_nobody_late_and_lets_nobody_go() {
    const WRONG: i128 = 4_000_000_000;
    let config = format!(
        r#"{{{}, "within_ms": 10000, "keep": ["b"]}}"#,
        INPUTS.replace("\"ahead_max_ms\": 0, ", "")
    );
    for wrong in [0, 3, 9] {
        let dir = testkit::temp_dir("join");
        let file = dir.path().join("join.db");
        let mut seconds: Vec<i128> = (0..10).collect();
        seconds.insert(wrong, WRONG);
        let mut found = Vec::new();
        let mut read_to = None;
        // Over a restart after each record.
        for (seq, at) in (1u64..).zip(seconds) {
            let junction = join(&config, Some(&file));
            let (mut a, mut b) = (junction.input("a").unwrap(), junction.input("b").unwrap());
            let mut source = junction.output();
            for sink in [&mut a, &mut b] {
                sink.open().await.unwrap();
            }
            source.open(read_to.as_ref()).await.unwrap();
            let number = i64::try_from(at).unwrap();
            let none: [&str; 0] = [];
            // The one of `b` is there first, and must still be when its partner comes.
            if at != WRONG {
                let late = give(&mut *b, &[delivery("b", seq, &[(Some(number), at, number)])]).await;
                assert_eq!(late.unwrap(), none, "{wrong} {at}");
            }
            let late = give(&mut *a, &[delivery("a", seq, &[(Some(number), at, number)])]).await;
            assert_eq!(late.unwrap(), none, "{wrong} {at}");
            let (batches, position, _) = harvest(&mut *source).await;
            found.extend(batches.iter().flat_map(pairs));
            read_to = position.or(read_to);
        }
        let wanted: Vec<Pair> = (0..10).map(|n| (Some(n), Some(n))).collect();
        assert_eq!(found, wanted, "{wrong}");
    }
}

/// A file of before time was a pace has the youngest of each input alone: it goes on from there, with what waits in it.
#[tokio::test(start_paused = true)]
async fn a_file_of_before_goes_on_from_the_youngest() {
    let dir = testkit::temp_dir("join");
    let file = dir.path().join("join.db");
    let config = format!(r#"{{{INPUTS}, "within_ms": 10000, "lateness_ms": 2000, "keep": ["b"]}}"#);
    let open = async |config: &str| {
        let junction = join(config, Some(&file));
        let (mut a, mut b) = (junction.input("a").unwrap(), junction.input("b").unwrap());
        let mut source = junction.output();
        for sink in [&mut a, &mut b] {
            sink.open().await.unwrap();
        }
        source.open(None).await.unwrap();
        (a, b, source)
    };
    let none: [&str; 0] = [];
    {
        // Time went by each record.
        let (mut a, mut b, _source) = open(&config).await;
        let given = give(&mut *b, &[delivery("b", 1, &[(Some(1), 100, 20), (Some(2), 104, 21)])]).await;
        assert_eq!(given.unwrap(), none);
        let given = give(&mut *a, &[delivery("a", 1, &[(Some(9), 102, 10)])]).await;
        assert_eq!(given.unwrap(), none);
    }
    let conn = rusqlite::Connection::open(&file).unwrap();
    let paces = "DELETE FROM meta WHERE name LIKE 'pace %'";
    assert_eq!(conn.execute(paces, []).unwrap(), 2, "both inputs have one");
    drop(conn);

    let config = config.replace("\"ahead_max_ms\": 0, ", "");
    let (mut a, mut b, mut source) = open(&config).await;
    let mark = b.watermark(&lineage("b")).await.unwrap().unwrap();
    assert_eq!((mark.seq, mark.delivered), (1, 2));
    // Late by the youngest in the file, and by just so much that it is not.
    let late = give(&mut *b, &[delivery("b", 2, &[(Some(1), 101, 22), (Some(3), 102, 23)])]).await;
    let late = late.unwrap();
    assert_eq!(late.len(), 1, "{late:?}");
    assert!(late[0].starts_with("it is late: 'b'"), "{late:?}");
    // Whoever waited is still there for those that come.
    let given = give(&mut *a, &[delivery("a", 2, &[(Some(1), 105, 11), (Some(2), 105, 12)])]).await;
    assert_eq!(given.unwrap(), none);
    let (batches, ..) = harvest(&mut *source).await;
    let mut found: Vec<Pair> = batches.iter().flat_map(pairs).collect();
    found.sort_unstable();
    assert_eq!(found, [(Some(11), Some(20)), (Some(12), Some(21))]);
    // One clock that is wrong does not move the time that came from the file.
    let given = give(&mut *a, &[delivery("a", 3, &[(Some(9), 4_000_000_000, 13)])]).await;
    assert_eq!(given.unwrap(), none);
    let given = give(&mut *a, &[delivery("a", 4, &[(Some(3), 106, 14)])]).await;
    assert_eq!(given.unwrap(), none);
    let (batches, ..) = harvest(&mut *source).await;
    assert!(batches.iter().flat_map(pairs).any(|pair| pair == (Some(14), Some(23))));
    // The next opening has the pace of both.
    drop((a, b, source));
    let conn = rusqlite::Connection::open(&file).unwrap();
    let paces = "SELECT count(*) FROM meta WHERE name LIKE 'pace %'";
    assert_eq!(conn.query_row(paces, [], |row| row.get::<_, i64>(0)).unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn records_meet_whoever_comes_first() {
    let config = format!(r#"{{{INPUTS}, "within_ms": 10000, "lateness_ms": 2000, "keep": ["a"]}}"#);
    let junction = join(&config, None);
    let (mut a, mut b) = (junction.input("a").unwrap(), junction.input("b").unwrap());
    let mut source = junction.output();
    for sink in [&mut a, &mut b] {
        sink.open().await.unwrap();
        assert!(sink.keeps_watermark());
    }
    source.open(None).await.unwrap();
    let none: [&str; 0] = [];
    let rows = [(Some(1), 0, 10), (Some(2), 1, 11), (None, 1, 12), (Some(3), 5, 13)];
    assert_eq!(give(&mut *a, &[delivery("a", 1, &rows)]).await.unwrap(), none);
    // The same key, within the span and beyond it; a key that nobody has.
    let rows = [(Some(1), 10, 20), (Some(2), 12, 21), (Some(9), 12, 22)];
    assert_eq!(give(&mut *b, &[delivery("b", 1, &rows)]).await.unwrap(), none);
    let (batches, ..) = harvest(&mut *source).await;
    let names: Vec<&str> = batches[0]
        .schema()
        .fields
        .iter()
        .map(|field| field.name.as_str())
        .collect();
    assert_eq!(names, ["k", "at", "x", "id", "b_at", "y"]);
    assert_eq!(batches[0].schema().collection, "both");
    assert_eq!(pairs(&batches[0]), [(Some(10), Some(20))]);

    // Late, and by just so much that it is not.
    let late = give(&mut *b, &[delivery("b", 2, &[(Some(1), 9, 23), (Some(3), 10, 24)])])
        .await
        .unwrap();
    assert_eq!(late.len(), 1);
    assert!(late[0].starts_with("it is late: 'b'"), "{late:?}");
    // Whoever could still have met them would be late: 'keep' lets them go on alone.
    give(&mut *b, &[delivery("b", 3, &[(Some(4), 14, 25)])]).await.unwrap();
    let (batches, position, has_ended) = harvest(&mut *source).await;
    let all: Vec<Pair> = batches.iter().flat_map(pairs).collect();
    assert_eq!(all, [(Some(13), Some(24)), (Some(11), None), (Some(12), None)]);
    assert!(!has_ended);
    source.commit(&position.unwrap()).await.unwrap();
    assert_eq!(junction.waiting()(), 0);

    a.ended();
    assert!(!harvest(&mut *source).await.2, "one of them goes on");
    b.ended();
    let (batches, _, has_ended) = harvest(&mut *source).await;
    assert!(has_ended && batches.is_empty());
    let mark = b.watermark(&lineage("b")).await.unwrap().unwrap();
    assert_eq!((mark.seq, mark.delivered, mark.counts.dead), (3, 5, 1));
}

#[tokio::test(start_paused = true)]
async fn who_is_ahead_waits_and_who_is_not_rejects() {
    let config = format!(r#"{{{INPUTS}, "within_ms": 1000, "rows_max": 1000}}"#);
    let junction = join(&config, None);
    let (mut a, mut b) = (junction.input("a").unwrap(), junction.input("b").unwrap());
    a.open().await.unwrap();
    b.open().await.unwrap();
    let many: Vec<Row> = (0..1000).map(|n| (Some(n), 5, n)).collect();
    give(&mut *a, &[delivery("a", 1, &many)]).await.unwrap();
    let error = give(&mut *a, &[delivery("a", 2, &[(Some(1), 6, 1)])])
        .await
        .unwrap_err();
    assert!(matches!(error, Fault::Retry { .. }));
    assert!(error.to_string().contains("'a' is ahead of 'b'"), "{error}");
    // The other one comes as far: now it is too much for the span.
    give(&mut *b, &[delivery("b", 1, &[(Some(2000), 5, 1)])]).await.unwrap();
    let reasons = give(&mut *a, &[delivery("a", 2, &[(Some(1), 5, 1)])]).await.unwrap();
    assert!(reasons[0].contains("one too many"), "{reasons:?}");
    // And passes them: there is room.
    give(&mut *b, &[delivery("b", 2, &[(Some(2000), 7, 1)])]).await.unwrap();
    assert!(
        give(&mut *a, &[delivery("a", 3, &[(Some(1), 6, 1)])])
            .await
            .unwrap()
            .is_empty()
    );
    // A thousand of one key, and one for whom that is too many.
    let config = format!(r#"{{{INPUTS}, "within_ms": 1000, "rows_max": 2000}}"#);
    let junction = join(&config, None);
    let (mut a, mut b) = (junction.input("a").unwrap(), junction.input("b").unwrap());
    let many: Vec<Row> = (0..1001).map(|n| (Some(7), 5, n)).collect();
    give(&mut *a, &[delivery("a", 1, &many)]).await.unwrap();
    let reasons = give(&mut *b, &[delivery("b", 1, &[(Some(7), 5, 1)])]).await.unwrap();
    assert!(reasons[0].starts_with("more than 1000"), "{reasons:?}");
}

#[tokio::test]
async fn other_settings_are_refused_while_something_waits() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("joins/j.db");
    let config = format!(r#"{{{INPUTS}, "within_ms": 1000}}"#);
    let other = config.replace("\"id\"", "\"y\"");
    let mut a = join(&config, Some(&file)).input("a").unwrap();
    a.open().await.unwrap();
    give(&mut *a, &[delivery("a", 1, &[(Some(1), 1, 1)])]).await.unwrap();
    drop(a);
    let fault = join(&other, Some(&file)).input("a").unwrap().open().await.unwrap_err();
    assert!(
        matches!(&fault, Fault::Stop { cause } if cause.contains("1 records wait")),
        "{fault}"
    );
    // Other spans are no matter.
    let wider = config.replace("1000", "2000");
    join(&wider, Some(&file)).input("a").unwrap().open().await.unwrap();
    let cause = join(&config, None).input("c").err().unwrap();
    assert!(cause.contains("'c'") && cause.contains("'a' and 'b'"), "{cause}");
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_lost_uses_no_number_twice() {
    let config = format!(r#"{{{INPUTS}, "within_ms": 1000}}"#);
    let junction = join(&config, None);
    let mut source = junction.output();
    source.open(Some(&Position::new(41_i64.to_be_bytes()))).await.unwrap();
    let (mut a, mut b) = (junction.input("a").unwrap(), junction.input("b").unwrap());
    give(&mut *a, &[delivery("a", 1, &[(Some(1), 1, 1)])]).await.unwrap();
    give(&mut *b, &[delivery("b", 1, &[(Some(1), 1, 2)])]).await.unwrap();
    let (batches, position, _) = harvest(&mut *source).await;
    assert_eq!(pairs(&batches[0]), [(Some(1), Some(2))]);
    assert_eq!(position, Some(Position::new(42_i64.to_be_bytes())));
}

#[test]
fn configs_are_checked() {
    for (config, wanted) in [
        (r#"{"inputs": {}, "within_ms": 1}"#.to_string(), "name both nodes"),
        (
            r#"{"inputs": {"a": {"key": ["k"], "time": "t"}}, "within_ms": 1}"#.to_string(),
            "name both nodes",
        ),
        (format!(r#"{{{INPUTS}}}"#), "within_ms"),
        (
            format!(r#"{{{INPUTS}, "within_ms": 1, "keep": ["c"]}}"#),
            "'c' is none of the inputs",
        ),
        (format!(r#"{{{INPUTS}, "within_ms": 99999999999}}"#), "a year"),
        (format!(r#"{{{INPUTS}, "within_ms": 1, "rows_max": 1}}"#), "rows_max"),
        (
            format!(
                r#"{{{}, "within_ms": 1}}"#,
                INPUTS.replace(r#"["id"]"#, r#"["id", "y"]"#)
            ),
            "as many columns",
        ),
        (
            format!(r#"{{{}, "within_ms": 1}}"#, INPUTS.replace(r#"["id"]"#, "[]")),
            "1 to 16",
        ),
    ] {
        refused(&TRANSFORM, &config, wanted);
    }
}

/// What should come of two inputs, by looking at every pair.
fn expected(sides: &[Vec<Row>; 2], within: i128, lateness: i128) -> BTreeMap<Pair, usize> {
    let timely = sides.each_ref().map(|rows| {
        let mut youngest = i128::MIN / 2;
        let is_timely = |row: &&Row| {
            let is_timely = row.1 >= youngest - lateness;
            youngest = youngest.max(row.1);
            is_timely
        };
        rows.iter().filter(is_timely).collect::<Vec<_>>()
    });
    let belong = |a: &Row, b: &Row| a.0.is_some() && a.0 == b.0 && (a.1 - b.1).abs() <= within;
    let mut made = BTreeMap::new();
    for a in &timely[0] {
        let partners: Vec<&&Row> = timely[1].iter().filter(|b| belong(a, b)).collect();
        for b in &partners {
            *made.entry((Some(a.2), Some(b.2))).or_insert(0) += 1;
        }
        if partners.is_empty() {
            *made.entry((Some(a.2), None)).or_insert(0) += 1;
        }
    }
    made
}

/// What happens next: some rows of a side, a crash, or a reading that is committed or not.
#[derive(Debug, Clone)]
enum Act {
    Give(usize, usize),
    Crash,
    Read(bool),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (0..2usize, 1..5usize).prop_map(|(side, rows)| Act::Give(side, rows)),
        1 => Just(Act::Crash),
        2 => any::<bool>().prop_map(Act::Read),
    ];
    proptest::collection::vec(act, 1..40)
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let row = (proptest::option::weighted(0.9, 0..3i64), 0..4i128);
    proptest::collection::vec(row, 0..30).prop_map(|rows| {
        let row = |(n, (key, jitter)): (usize, (Option<i64>, i128))| (key, n as i128 - jitter, n as i64);
        rows.into_iter().enumerate().map(row).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn nothing_depends_on_order_cuts_and_crashes(a in rows(), b in rows(), acts in acts()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(run([a, b], acts))?;
    }
}

async fn run(sides: [Vec<Row>; 2], acts: Vec<Act>) -> Result<(), TestCaseError> {
    const NAMES: [&str; 2] = ["a", "b"];
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("j.db");
    let config = format!(r#"{{{INPUTS}, "within_ms": 3000, "lateness_ms": 2000, "keep": ["a"]}}"#);
    // What the destination has: rows, and the position in the same transaction.
    let (mut arrived, mut committed): (Vec<Pair>, Option<Position>) = (Vec::new(), None);
    let finish = [Act::Give(0, usize::MAX), Act::Give(1, usize::MAX)];
    let mut junction = join(&config, Some(&file));
    let mut sinks = NAMES.map(|name| junction.input(name).unwrap());
    let mut source = junction.output();
    source.open(None).await.unwrap();
    for act in acts.into_iter().chain(finish) {
        match act {
            Act::Give(side, count) => {
                // From where it stands by its own word, as the runner does.
                let mark = sinks[side]
                    .watermark(&lineage(NAMES[side]))
                    .await
                    .unwrap()
                    .unwrap_or_default();
                let from = (mark.delivered + mark.counts.dead) as usize;
                let rows = &sides[side][from..from.saturating_add(count).min(sides[side].len())];
                if !rows.is_empty() {
                    give(&mut *sinks[side], &[delivery(NAMES[side], mark.seq + 1, rows)])
                        .await
                        .unwrap();
                }
            }
            Act::Crash => {
                // In the middle of something that is not committed.
                let mark = sinks[0].watermark(&lineage("a")).await.unwrap().unwrap_or_default();
                sinks[0]
                    .write(&[delivery("a", mark.seq + 1, &[(Some(1), 1_000, -1)])])
                    .await
                    .unwrap();
                drop((sinks, source, junction));
                junction = join(&config, Some(&file));
                sinks = NAMES.map(|name| junction.input(name).unwrap());
                source = junction.output();
                source.open(committed.as_ref()).await.unwrap();
            }
            Act::Read(is_told) => {
                let (batches, position, _) = harvest(&mut *source).await;
                arrived.extend(batches.iter().flat_map(pairs));
                if let Some(position) = position {
                    committed = Some(position);
                }
                if let Some(position) = committed.as_ref().filter(|_| is_told) {
                    source.commit(position).await.unwrap();
                }
            }
        }
    }
    sinks.iter_mut().for_each(|sink| sink.ended());
    let (batches, _, has_ended) = harvest(&mut *source).await;
    prop_assert!(has_ended);
    arrived.extend(batches.iter().flat_map(pairs));
    let mut found = BTreeMap::new();
    arrived
        .into_iter()
        .for_each(|pair| *found.entry(pair).or_insert(0) += 1);
    prop_assert_eq!(found, expected(&sides, 3, 2));
    Ok(())
}
