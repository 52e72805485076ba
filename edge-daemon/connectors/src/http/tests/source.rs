//! The source that asks.

use std::{fmt::Write as _, fs, time::Duration};

use flow::{Fault, Position, Read, Source};
use testkit::Script;

use crate::{
    file::testing::{refused, shown, source},
    http::SOURCE,
};

const GIVER: &str = include_str!("giver.py");

/// Writes what the server gives, at once.
fn put(server: &Script, text: &str) {
    let next = server.dir().join("next");
    fs::write(&next, text).unwrap();
    fs::rename(next, server.dir().join("data")).unwrap();
}

/// Records with these ids, and a moment that two share.
fn give(server: &Script, ids: std::ops::Range<u64>, pad: usize) {
    let mut text = String::new();
    for id in ids {
        let _ = writeln!(
            text,
            r#"{{"id": {id}, "t": "t{:04}", "pad": "{}"}}"#,
            id / 2,
            "x".repeat(pad)
        );
    }
    put(server, &text);
}

fn built(server: &Script, way: &str, more: &str) -> Box<dyn Source> {
    let url = format!("http://127.0.0.1:{}/{way}", server.port());
    source(
        &SOURCE,
        &format!(r#"{{"url": "{url}", "poll_interval_ms": 100{more}}}"#),
        server.dir(),
    )
}

/// Ids of so many rows, with the position after each batch of them, and the reasons of what is no record.
#[derive(Debug, Default)]
struct Taken {
    ids: Vec<u64>,
    positions: Vec<(usize, Position)>,
    reasons: Vec<String>,
}

impl Taken {
    fn add(&mut self, read: flow::SourceBatch) {
        let at = read.batch.schema().index_of("id");
        let id = |row| at.map(|at| read.batch.cell(row, at).to_string().parse::<u64>().unwrap());
        self.ids.extend((0..read.batch.rows()).filter_map(id));
        self.reasons
            .extend(read.undecodable.into_iter().map(|input| input.reason));
        self.positions.push((self.ids.len(), read.position));
    }
}

/// Reads so many rows and letters, and on until nothing comes for half a second, in which the server is asked again.
async fn taken(source: &mut dyn Source, wanted: usize) -> Taken {
    let mut taken = Taken::default();
    loop {
        match source.read().await.unwrap() {
            Read::Batch(read) => taken.add(read),
            Read::Idle if taken.ids.len() + taken.reasons.len() >= wanted => return taken,
            Read::Idle => {}
            Read::End => panic!("it has no end"),
        }
    }
}

fn requests(server: &Script) -> Vec<(String, u16)> {
    let text = fs::read_to_string(server.dir().join("requests")).unwrap_or_default();
    let request = |line| serde_json::from_str::<(String, u16, Option<String>)>(line).unwrap();
    text.lines()
        .map(request)
        .map(|(path, status, _)| (path, status))
        .collect()
}

const AFTER: (&str, &str) = (
    "after?id={cursor}&size=150",
    r#", "cursor": {"field": "id"}, "start": "0", "records": "/data/orders""#,
);
const FROM: (&str, &str) = ("from?t={cursor}", r#", "cursor": {"field": "t"}, "start": """#);
const POINTER: (&str, &str) = (
    "token?c={cursor}&size=150",
    r#", "cursor": {"pointer": "/cursor"}, "start": "", "records": "/items""#,
);
const HEADER: (&str, &str) = (
    "token?c={cursor}&size=150",
    r#", "cursor": {"header": "X-Cursor"}, "start": "", "records": "/items""#,
);
const PAGES: (&str, &str) = (
    "pages?size=150",
    r#", "next": "/next", "records": "/items", "poll_interval_ms": 60000"#,
);
const LINKS: (&str, &str) = (
    "pages?size=150",
    r#", "next": "link", "records": "/items", "poll_interval_ms": 60000"#,
);
const LIST: (&str, &str) = ("list", "");
const PLAIN: (&str, &str) = ("plain", "");
const CSV: (&str, &str) = ("csv", r#", "format": "csv", "types": {"id": "u64"}"#);
const RAW: (&str, &str) = ("raw", r#", "format": "json_lines""#);

#[tokio::test]
async fn every_way_reads_everything_once_wherever_it_was_interrupted() {
    let server = Script::start(GIVER, &[]);
    give(&server, 1..401, 1000);
    let wanted: Vec<u64> = (1..401).collect();
    for (way, more) in [AFTER, FROM, POINTER, HEADER, LIST, PLAIN, CSV, RAW] {
        let mut source = built(&server, way, more);
        source.open(None).await.unwrap();
        let all = taken(&mut *source, 400).await;
        assert_eq!(all.ids, wanted, "{way}{more}");
        assert!(
            all.positions.len() > 5,
            "{way}{more}: too few batches to be interrupted between"
        );
        for (before, position) in all.positions.iter().step_by(3).chain(all.positions.last()) {
            let mut again = built(&server, way, more);
            again.open(Some(position)).await.unwrap();
            let rest = taken(&mut *again, 400 - before).await;
            assert_eq!(rest.ids, wanted[*before..], "{way}{more} after {before}: {position:?}");
        }
    }
}

#[tokio::test]
async fn a_list_of_several_pages_goes_on_at_its_page() {
    let server = Script::start(GIVER, &[]);
    give(&server, 1..401, 1000);
    let wanted: Vec<u64> = (1..401).collect();
    for (way, more) in [PAGES, LINKS] {
        let url = format!("http://127.0.0.1:{}/{way}", server.port());
        let built = || source(&SOURCE, &format!(r#"{{"url": "{url}"{more}}}"#), server.dir());
        let mut first = built();
        first.open(None).await.unwrap();
        let all = taken(&mut *first, 400).await;
        assert_eq!(all.ids, wanted);
        for (before, position) in &all.positions[..all.positions.len() - 1] {
            let mut again = built();
            again.open(Some(position)).await.unwrap();
            // A position at the very end is before the next reading of the whole.
            let rest = taken(&mut *again, 400 - before).await;
            assert_eq!(rest.ids, wanted[*before..], "{more} after {before}: {position:?}");
        }
    }
}

#[tokio::test]
async fn what_comes_later_is_read_once() {
    let server = Script::start(GIVER, &[]);
    for (way, more) in [AFTER, FROM] {
        give(&server, 1..4, 1);
        let mut source = built(&server, way, more);
        source.open(None).await.unwrap();
        assert_eq!(taken(&mut *source, 3).await.ids, [1, 2, 3], "{way}");
        give(&server, 1..7, 1);
        let later = taken(&mut *source, 3).await;
        assert_eq!(later.ids, [4, 5, 6], "{way}");
        // Restarted, with the server: nothing of it comes again.
        server.restart();
        let (_, position) = later.positions.last().unwrap();
        let mut again = built(&server, way, more);
        again.open(Some(position)).await.unwrap();
        assert_eq!(taken(&mut *again, 0).await.ids, [0; 0], "{way}");
        give(&server, 1..8, 1);
        assert_eq!(taken(&mut *again, 1).await.ids, [7], "{way}");
    }
}

#[tokio::test]
async fn a_list_is_read_again_when_it_has_changed() {
    let server = Script::start(GIVER, &[]);
    for (way, more) in [LIST, PLAIN] {
        give(&server, 1..3, 1);
        let mut source = built(&server, way, more);
        source.open(None).await.unwrap();
        let first = taken(&mut *source, 2).await;
        assert_eq!(first.ids, [1, 2], "{way}");
        let mut again = built(&server, way, more);
        again.open(Some(&first.positions.last().unwrap().1)).await.unwrap();
        assert_eq!(taken(&mut *again, 0).await.ids, [0; 0], "{way}");
        give(&server, 1..4, 1);
        assert_eq!(taken(&mut *again, 3).await.ids, [1, 2, 3], "{way}");
    }
    let statuses: Vec<u16> = requests(&server)
        .into_iter()
        .filter(|(path, _)| path == "/list")
        .map(|one| one.1)
        .collect();
    assert!(statuses.contains(&304), "{statuses:?}");
    assert_eq!(
        statuses.iter().filter(|status| **status == 200).count(),
        2,
        "{statuses:?}"
    );
    let mut repeating = built(&server, "list", r#", "repeat": true"#);
    repeating.open(None).await.unwrap();
    let mut many = Taken::default();
    while many.ids.len() < 9 {
        if let Read::Batch(read) = repeating.read().await.unwrap() {
            many.add(read);
        }
    }
    assert_eq!(many.ids[..9], [1, 2, 3, 1, 2, 3, 1, 2, 3]);
}

#[tokio::test]
async fn broken_records_go_to_the_dead_letters_once() {
    let server = Script::start(GIVER, &[]);
    put(&server, "{\"id\": 1}\n5\n{\"id\": \"x\"}\n\n{\"id\": 2}\n");
    let mut source = built(&server, "raw", r#", "format": "json_lines", "types": {"id": "u64"}"#);
    source.open(None).await.unwrap();
    let found = taken(&mut *source, 4).await;
    assert_eq!(found.ids, [1, 2]);
    let wanted = [
        "http, line 2: JSON, but not an object",
        "line 3: column 'id' is not a value of type u64",
    ];
    assert_eq!(found.reasons.len(), 2, "{:?}", found.reasons);
    for (reason, wanted) in found.reasons.iter().zip(wanted) {
        assert!(reason.contains(wanted), "{reason}");
    }
    // Another field: the columns follow.
    put(&server, "{\"id\": 2}\n{\"id\": 3, \"new\": [1]}\n");
    loop {
        if let Read::Batch(read) = source.read().await.unwrap()
            && read.batch.rows() > 0
        {
            assert_eq!(shown(&read.batch), "2|?\n3|[1]");
            break;
        }
    }
}

#[tokio::test]
async fn a_wrong_answer_is_asked_for_again() {
    let server = Script::start(GIVER, &[]);
    give(&server, 1..100, 100);
    for (way, more, wanted, after) in [
        ("html", "", "is not JSON", None),
        ("status/503/7", "", "answers 503 Service Unavailable: not now", Some(7)),
        ("status/401", "", "are the credentials right?", None),
        ("moved", "", "redirects are not followed: set url to /list", None),
        ("list", r#", "records": "/items""#, "has nothing at \"/items\"", None),
        ("list", r#", "body_bytes_max": 1024"#, "has more than 1024 bytes", None),
        (
            "slow",
            r#", "timeout_ms": 300"#,
            "has not answered within 0.3 seconds",
            None,
        ),
        (
            "elsewhere",
            r#", "next": "link""#,
            "leads on to http://example.org, another server",
            None,
        ),
        ("circle", r#", "next": "link""#, "leads on to itself", None),
    ] {
        let mut source = built(&server, way, more);
        source.open(None).await.unwrap();
        let fault = loop {
            match source.read().await {
                Ok(Read::Idle) => {}
                Ok(read) => panic!("{way}: {read:?}"),
                Err(fault) => break fault,
            }
        };
        assert!(fault.to_string().contains(wanted), "{way}: {fault}");
        let Fault::Retry { after: pause, .. } = fault else {
            panic!("{way}: {fault:?}")
        };
        assert_eq!(pause, after.map(Duration::from_secs), "{way}");
        source.close().await;
    }
    server.stop();
    let fault = built(&server, "list", "").open(None).await.unwrap_err();
    assert!(fault.to_string().contains("cannot connect to 127.0.0.1"), "{fault}");
}

#[tokio::test]
async fn closing_does_not_wait_for_an_answer() {
    let server = Script::start(GIVER, &[]);
    let mut source = built(&server, "slow", "");
    source.open(None).await.unwrap();
    assert!(matches!(source.read().await, Ok(Read::Idle)));
    source.close().await;
    source.open(None).await.unwrap();
    assert!(matches!(source.read().await, Ok(Read::Idle)));
}

#[test]
fn mistakes_are_named() {
    for (config, wanted) in [
        (
            r#""url": "http://x/{cursor}""#,
            "cursor: say where {cursor} in the address comes from",
        ),
        (
            r#""url": "http://x/", "cursor": {"field": "id"}, "start": "0""#,
            "url: has no {cursor} in it",
        ),
        (
            r#""url": "http://x/{cursor}", "cursor": {"field": "id"}"#,
            "start: say what the first cursor is",
        ),
        (r#""url": "http://x/", "start": "0""#, "start: is for a cursor"),
        (
            r#""url": "http://x/", "records": "items""#,
            "records: a JSON pointer begins with /: '/items'",
        ),
        (
            r#""url": "http://x/", "format": "csv", "records": "/a""#,
            "records: a JSON pointer is for format",
        ),
        (
            r#""url": "http://x/", "next": "nxt""#,
            "next: a JSON pointer begins with /",
        ),
        (
            r#""url": "http://x/{cursor}", "cursor": {"header": "a b"}, "start": """#,
            "cursor.header: 'a b' is no name",
        ),
        (
            r#""url": "http://x/{cursor}", "cursor": {"pointer": "a"}, "start": """#,
            "cursor.pointer: a JSON pointer",
        ),
        (
            r#""url": "http://x/", "poll_interval_ms": 1"#,
            "poll_interval_ms: is 100 to",
        ),
        (
            r#""url": "http://x/", "body_bytes_max": 1"#,
            "body_bytes_max: is 1024 to",
        ),
        (
            r#""url": "http://{cursor}/", "cursor": {"field": "id"}, "start": "0", "tls": {}"#,
            "tls: is of no use",
        ),
    ] {
        refused(&SOURCE, &format!("{{{config}}}"), wanted);
    }
}
