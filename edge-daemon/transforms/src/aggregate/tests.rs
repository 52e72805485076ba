//! What comes out of records, wherever batches begin and wherever it is stopped and goes on from its state.

use bus_schema::data::{BatchBuilder, Origin};
use proptest::prelude::*;

use super::*;
use crate::{
    testing::{check_config, shown, shown_schema, table, transform},
    timestamp::TIMESTAMP,
};

const ROOM: usize = flow::STATES_BYTES_MAX;

fn aggregate(config: &str) -> Box<dyn Transform> {
    let mut transform = transform(&AGGREGATE, config);
    transform.restore(None, ROOM).unwrap();
    transform
}

#[test]
fn windows_become_records() {
    let config = r#"{"time": "at", "window": {"every_ms": 60000}, "lateness_ms": 10000, "by": ["line"], "values": {
        "n": "count", "sum": {"sum": "t"}, "mean": {"mean": "t"}, "min": {"min": "t"}, "last": {"last": "s"},
        "rate": {"rate": "t"}}}"#;
    let mut transform = aggregate(config);
    let columns = &["at:timestamp_utc", "line:text", "t:i64", "s:text"];
    let input = table(
        columns,
        &[
            "2024-01-01T00:00:01Z|a|10|x",
            "2024-01-01T00:00:31Z|a|40|z",
            "2024-01-01T00:00:21Z|a|20|y",
            "2024-01-01T00:00:02Z|~|~|~",
            "2024-01-01T00:01:09Z|a|1|~",
            "2024-01-01T00:00:59Z|b|7|late",
        ],
    );
    let done = transform.apply(input).unwrap();
    assert_eq!((shown(&done.batch).as_str(), done.rejected.as_slice()), ("", &[][..]));
    let done = transform
        .apply(table(
            columns,
            &["2024-01-01T00:01:10Z|a|1|~", "2024-01-01T00:00:59Z|b|7|late", "~|a|1|x"],
        ))
        .unwrap();
    assert_eq!(
        shown(&done.batch),
        "2024-01-01T00:00:00Z|2024-01-01T00:01:00Z|~|1|~|~|~|~|~\n\
         2024-01-01T00:00:00Z|2024-01-01T00:01:00Z|a|3|70|23.333333333333332|10|z|1.0\n\
         2024-01-01T00:00:00Z|2024-01-01T00:01:00Z|b|1|7|7.0|7|late|~"
    );
    assert_eq!(
        shown_schema(&done.batch),
        "window_start:timestamp_utc window_end:timestamp_utc line:text n:i64 sum:i64 mean:f64 min:i64 last:text rate:f64"
    );
    assert_eq!((transform.made(), done.batch.schema().collection.as_str()), (3, "t"));
    let reasons: Vec<&str> = done.rejected.iter().map(|(_, reason)| reason.as_str()).collect();
    assert!(reasons[0].starts_with("it comes too late"), "{reasons:?}");
    assert!(reasons[1].starts_with("the record has no time in 'at'"), "{reasons:?}");
    let done = transform.finish(table(columns, &[])).unwrap();
    assert_eq!(
        shown(&done.batch),
        "2024-01-01T00:01:00Z|2024-01-01T00:02:00Z|a|2|2|1.0|1|~|0.0"
    );
    let done = transform
        .finish(table(columns, &["2024-01-01T00:01:59Z|a|1|~"]))
        .unwrap();
    assert_eq!(
        (done.batch.rows(), done.rejected.len()),
        (0, 1),
        "a window comes out once"
    );
}

#[test]
fn more_windows_close_than_a_batch_holds() {
    let config = r#"{"time": "at", "window": {"every_ms": 1000, "length_ms": 60000}, "values": {"n": "count", "last": {"last": "n"}}}"#;
    let rows: Vec<String> = (0..3_000).map(|n| format!("{}|{n}", 120_000 * (n + 1))).collect();
    let mut times = transform(&TIMESTAMP, r#"{"columns": ["at"], "unit": "ms"}"#);
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    let input = times.apply(table(&["at:i64", "n:i64"], &rows)).unwrap().batch;
    let mut transform = aggregate(config);
    let (mut at, mut windows, mut pieces) = (0, Vec::new(), 0);
    loop {
        let rest = input.slice(at..input.rows());
        // As when the source ends with this batch.
        let done = transform.finish(rest.clone()).unwrap();
        assert_eq!((done.rejected.len(), transform.made()), (0, done.batch.rows()));
        assert!(done.batch.rows() <= 2 * CLOSED_MAX, "{}", done.batch.rows());
        windows.extend((0..done.batch.rows()).map(|row| match done.batch.cell(row, 3) {
            bus_schema::data::Cell::I64(n) => n,
            other => panic!("{other}"),
        }));
        (at, pieces) = (input.rows() - transform.left(), pieces + 1);
        if transform.left() == 0 {
            break;
        }
        assert!(transform.left() < rest.rows(), "it takes something");
        // Nothing of what it left is in its state.
        let state = transform.state();
        transform = aggregate(config);
        transform.restore(Some(&state), ROOM).unwrap();
    }
    let expected: Vec<i64> = (0..3_000).flat_map(|n| std::iter::repeat_n(n, 60)).collect();
    assert!(windows == expected, "{} of {}", windows.len(), expected.len());
    assert_eq!(pieces, 11);
}

#[test]
fn a_wrong_clock_costs_nobody_else_a_record() {
    let config = r#"{"time": "at", "window": {"every_ms": 60000}, "values": {"n": "count"}}"#;
    let minute = |n: u32| format!("2024-01-01T00:{n:02}:30Z");
    let wrong = "2099-07-01T00:00:00Z".to_string();
    let week_later = |n: u32| format!("2024-01-09T00:{n:02}:30Z");
    for (place, at_end) in [(0, 21), (3, 21), (12, 21), (19, 21)] {
        let mut rows: Vec<String> = (0..10).map(minute).chain((0..10).map(week_later)).collect();
        rows.insert(place, wrong.clone());
        let mut windows = 0;
        // Over a restart at each record.
        let mut state = aggregate(config).state();
        for (index, row) in rows.iter().enumerate() {
            let mut part = aggregate(config);
            part.restore(Some(&state), ROOM).unwrap();
            let input = table(&["at:text"], &[row]);
            let done = if index + 1 == rows.len() {
                part.finish(input)
            } else {
                part.apply(input)
            }
            .unwrap();
            assert_eq!(done.rejected, [], "{place} {row}");
            windows += done.batch.rows();
            state = part.state();
        }
        assert_eq!(windows, at_end, "{place}");
        // Nor when the source goes on after its end.
        let mut later = aggregate(config);
        later.restore(Some(&state), ROOM).unwrap();
        let done = later.apply(table(&["at:text"], &["2024-01-09T00:10:30Z"])).unwrap();
        assert_eq!(done.rejected, [], "{place}");
    }
    // With no bound it does, as the config says.
    let mut follows = aggregate(&config.replace("\"window\"", "\"ahead_max_ms\": 0, \"window\""));
    let done = follows
        .apply(table(&["at:text"], &[&minute(0), &wrong, &minute(1)]))
        .unwrap();
    assert_eq!((done.batch.rows(), done.rejected.len()), (1, 1));
}

#[test]
fn a_record_that_is_rejected_moves_no_time() {
    let config =
        r#"{"time": "at", "window": {"every_ms": 60000}, "ahead_max_ms": 0, "by": ["k"], "values": {"n": "count"}}"#;
    let mut transform = aggregate(config);
    let too_long = format!("2024-01-01T01:00:00Z|{}", "x".repeat(GROUP_BYTES_MAX));
    let rows = ["2024-01-01T00:00:01Z|a", &too_long, "2024-01-01T00:00:02Z|a"];
    let done = transform.finish(table(&["at:text", "k:text"], &rows)).unwrap();
    assert_eq!(done.rejected.len(), 1, "{:?}", done.rejected);
    assert_eq!(shown(&done.batch), "2024-01-01T00:00:00Z|2024-01-01T00:01:00Z|a|2");
}

#[test]
fn wrong_clocks_leave_room_for_the_others() {
    let config = r#"{"time": "at", "window": {"every_ms": 60000}, "values": {"n": "count"}}"#;
    let mut transform = aggregate(config);
    let mut rejected = Vec::new();
    for n in 0..4_000 {
        let right = format!("2024-01-01T{:02}:{:02}:00Z", n / 60 % 24, n % 60);
        let wrong = format!(
            "2099-{:02}-{:02}T{:02}:00:00Z",
            n / 672 % 12 + 1,
            n / 24 % 28 + 1,
            n % 24
        );
        let done = transform.apply(table(&["at:text"], &[&right, &wrong])).unwrap();
        rejected.extend(done.rejected.into_iter().filter(|(row, _)| n < 1_440 || *row == 1));
    }
    assert!(
        !rejected.is_empty() && rejected.iter().all(|(row, _)| *row == 1),
        "{:?}",
        rejected.first()
    );
    assert!(rejected[0].1.contains("see `ahead_max_ms`"), "{}", rejected[0].1);
    assert!(transform.state().len() <= ROOM);
}

#[test]
fn a_state_of_the_form_before_goes_on() {
    let config = r#"{"time": "at", "window": {"every_ms": 60000}, "values": {"n": "count"}}"#;
    let mut first = aggregate(config);
    let rows: Vec<String> = (0..10).map(|n| format!("2024-01-01T00:0{n}:30Z")).collect();
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    first.apply(table(&["at:text"], &rows)).unwrap();
    let State {
        mut head,
        closed_to,
        windows,
        ..
    } = State::read(&first.state(), 0).unwrap();
    head.form = FORM_BEFORE;
    let before = bus_schema::encode(&(head, closed_to, windows));
    let mut later = aggregate(config);
    later.restore(Some(&before), ROOM).unwrap();
    let done = later.finish(table(&["at:text"], &["2024-01-01T00:00:30Z"])).unwrap();
    assert_eq!(
        (shown(&done.batch).as_str(), done.rejected.len()),
        ("2024-01-01T00:09:00Z|2024-01-01T00:10:00Z|1", 1)
    );
}

#[test]
fn times_may_be_texts_and_changes_are_no_readings() {
    let mut transform = aggregate(r#"{"time": "at", "window": {"gap_ms": 1000}, "values": {"n": "count"}}"#);
    let columns = &["at:text"];
    let done = transform
        .finish(table(
            columns,
            &[
                "2024-01-01T00:00:00Z",
                "2024-01-01T00:00:00.9",
                "2024-01-01 00:00:02Z",
                "now",
            ],
        ))
        .unwrap();
    assert_eq!(
        shown(&done.batch),
        "2024-01-01T00:00:00Z|2024-01-01T00:00:01.900Z|2\n2024-01-01T00:00:02Z|2024-01-01T00:00:03Z|1"
    );
    assert_eq!(done.rejected, [(3, "column 'at' is no time: 'now'".to_string())]);
    let schema = table(&["at:timestamp"], &[]).schema().clone();
    let mut builder = BatchBuilder::new(schema);
    for op in [Op::Update, Op::Delete] {
        builder.push(op, &[Value::Timestamp(0).as_cell()]).unwrap();
    }
    let done = transform.apply(builder.finish(Origin::default())).unwrap();
    assert_eq!(done.rejected.len(), 2);
}

#[test]
fn other_settings_do_not_go_on_from_open_windows() {
    let config = |window: &str, lateness: u64| {
        format!(r#"{{"time": "at", "window": {window}, "lateness_ms": {lateness}, "values": {{"n": "count"}}}}"#)
    };
    let mut first = aggregate(&config(r#"{"every_ms": 1000}"#, 0));
    let empty = first.state();
    first.apply(table(&["at:text"], &["2024-01-01T00:00:00Z"])).unwrap();
    let open = first.state();
    let mut later = aggregate(&config(r#"{"every_ms": 1000}"#, 500));
    later.restore(Some(&open), ROOM).unwrap();
    assert_eq!(later.state(), open, "lateness may change");
    let mut other = aggregate(&config(r#"{"every_ms": 2000}"#, 0));
    other.restore(Some(&empty), ROOM).unwrap();
    for (state, wanted) in [
        (open.as_slice(), "1 windows are open that"),
        (&[9, 9], "update myceliald"),
    ] {
        let fault = other.restore(Some(state), ROOM).unwrap_err();
        assert!(fault.to_string().contains(wanted), "{fault}");
    }
}

#[test]
fn without_room_records_are_rejected_and_none_is_lost() {
    let config = r#"{"time": "at", "window": {"every_ms": 1000}, "by": ["k"], "values": {"n": "count",
        "mean": {"mean": "v"}, "min": {"min": "v"}, "max": {"max": "v"}}}"#;
    let mut transform = aggregate(config);
    let rows: Vec<String> = (0..2_000)
        .map(|n| format!("2024-01-01T00:00:00Z|sensor {n}|{n}.5"))
        .collect();
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    let input = table(&["at:text", "k:text", "v:f64"], &rows);
    let done = transform.apply(input.clone()).unwrap();
    assert!(transform.state().len() <= ROOM, "{}", transform.state().len());
    let open = 2_000 - done.rejected.len();
    assert!((500..2_000).contains(&open), "{open} windows have room");
    assert!(
        done.rejected[0].1.contains("windows are open"),
        "{:?}",
        done.rejected[0]
    );
    let done = transform.finish(input.take(&[])).unwrap();
    assert_eq!(done.batch.rows(), open);
}

#[test]
fn mistakes_are_named() {
    let with = |window: &str, values: &str| format!(r#"{{"time": "t", "window": {window}, "values": {values}}}"#);
    let minute = r#"{"every_ms": 60000}"#;
    for (config, wanted) in [
        ("{}".to_string(), "missing field `time`"),
        (with("{}", r#"{"n": "count"}"#), "window: give `every_ms`"),
        (
            with(r#"{"every_ms": 0}"#, r#"{"n": "count"}"#),
            "window: a window is from 1 ms",
        ),
        (
            with(r#"{"every_ms": 5, "gap_ms": 5}"#, r#"{"n": "count"}"#),
            "window: give `every_ms`",
        ),
        (
            with(r#"{"every_ms": 5, "length_ms": 4}"#, r#"{"n": "count"}"#),
            "would be in none",
        ),
        (
            with(r#"{"every_ms": 1, "length_ms": 61}"#, r#"{"n": "count"}"#),
            "more than 60 windows",
        ),
        (with(minute, "{}"), "values: name 1 to 64"),
        (
            with(minute, r#"{"window_end": "count"}"#),
            "values.window_end: there is a column",
        ),
        (with(minute, r#"{"n": "counts"}"#), "values"),
        (
            with(minute, r#"{"n": {"percentile": {"column": "a", "percent": 101}}}"#),
            "values.n: `percent` is from",
        ),
    ] {
        check_config(&AGGREGATE, &config, wanted);
    }
}

/// Rows in an order that is not quite that of their times.
fn rows() -> impl Strategy<Value = Vec<String>> {
    let row = (0..20_000u64, 0..3u8, -50..50i64);
    prop::collection::vec(row, 1..120).prop_map(|rows| {
        let mut base = 0;
        let row = |(offset, group, value): (u64, u8, i64)| {
            base += offset / 10;
            let ms = base + offset % 3_000;
            format!(
                "1970-01-01T00:{:02}:{:02}.{:03}Z|g{group}|{value}",
                ms / 60_000,
                ms / 1000 % 60,
                ms % 1000
            )
        };
        rows.into_iter().map(row).collect()
    })
}

proptest! {
    /// However the records are cut into batches, and wherever a new one goes on from the state of the last: the same
    /// windows come out, once each, and the same records are too late.
    #[test]
    fn batches_and_restarts_do_not_matter(
        rows in rows(),
        cuts in prop::collection::vec((1..12usize, any::<bool>()), 1..40),
        window in prop::sample::select(vec![
            r#"{"every_ms": 4000}"#,
            r#"{"every_ms": 2000, "length_ms": 7000}"#,
            r#"{"gap_ms": 1500}"#,
        ]),
    ) {
        let config = format!(
            r#"{{"time": "at", "window": {window}, "lateness_ms": 1000, "by": ["k"], "values": {{"n": "count",
            "sum": {{"sum": "v"}}, "p": {{"percentile": {{"column": "v", "percent": 90}}}}, "first": {{"first": "v"}},
            "last": {{"last": "v"}}, "max": {{"max": "v"}}, "rate": {{"rate": "v"}}}}}}"#
        );
        let columns = &["at:timestamp_utc", "k:text", "v:i64"];
        let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
        let mut whole = aggregate(&config);
        let done = whole.finish(table(columns, &rows)).unwrap();
        let expected: Vec<String> = shown(&done.batch).lines().map(str::to_string).collect();
        let late: Vec<usize> = done.rejected.iter().map(|(row, _)| *row).collect();

        let mut part = aggregate(&config);
        let (mut found, mut found_late, mut at) = (Vec::new(), Vec::new(), 0);
        let mut cuts = cuts.into_iter().cycle();
        while at < rows.len() {
            let (size, restarts) = cuts.next().unwrap();
            let end = rows.len().min(at + size);
            let done = part.apply(table(columns, &rows[at..end])).unwrap();
            found.extend(shown(&done.batch).lines().map(str::to_string));
            found_late.extend(done.rejected.iter().map(|(row, _)| at + row));
            let state = part.state();
            if restarts {
                part = aggregate(&config);
                part.restore(Some(&state), ROOM).unwrap();
                prop_assert_eq!(part.state(), state);
            }
            at = end;
        }
        let done = part.finish(table(columns, &[])).unwrap();
        found.extend(shown(&done.batch).lines().map(str::to_string));
        prop_assert_eq!(found, expected);
        prop_assert_eq!(found_late, late);
    }
}
