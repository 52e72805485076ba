//! An oracle that acquits everybody proves nothing: here it judges destinations doctored in every way.

use std::fmt::Write as _;

use super::*;
use crate::temp_dir;

const ROWS: u64 = 300;

/// A shop and a faithful copy of it, without a key, as a destination makes one.
fn shop_and_copy(dir: &Path) -> (PathBuf, PathBuf) {
    let (source, copy) = (dir.join("shop.db"), dir.join("copy.db"));
    shop::create(&source).unwrap();
    shop::add(&source, ROWS).unwrap();
    let db = Connection::open(&copy).unwrap();
    db.execute_batch(&format!(
        "ATTACH '{}' AS shop; CREATE TABLE copied (id INTEGER, name TEXT, price REAL, quantity INTEGER, note TEXT,
         photo BLOB, misc); INSERT INTO copied SELECT * FROM shop.orders ORDER BY id;",
        source.display()
    ))
    .unwrap();
    (source, copy)
}

/// What a verdict says, in the order of its offences.
fn counts(verdict: &Verdict) -> [u64; 5] {
    verdict.offences().map(|(_, offence)| offence.count)
}

/// A row of a SQLite table can be moved behind all others by writing it again.
const LATE: &str = "INSERT INTO copied SELECT * FROM copied WHERE id = 5; DELETE FROM copied WHERE rowid = 5;";

/// The doctoring, and how often it must accuse of: lost, doubled, altered, invented, disordered.
const DOCTORED: &[(&str, [u64; 5])] = &[
    ("", [0, 0, 0, 0, 0]),
    ("DELETE FROM copied WHERE id IN (1, 17, 300)", [3, 0, 0, 0, 0]),
    ("DELETE FROM copied", [ROWS, 0, 0, 0, 0]),
    (
        "INSERT INTO copied SELECT * FROM copied WHERE id > 290",
        [0, 10, 0, 0, 0],
    ),
    ("INSERT INTO copied SELECT * FROM copied WHERE id = 7", [0, 1, 0, 0, 0]),
    // A double with another content is both.
    (
        "INSERT INTO copied SELECT id, 'x', price, quantity, note, photo, misc FROM copied WHERE id = 7",
        [0, 1, 1, 0, 0],
    ),
    ("UPDATE copied SET price = 0.0 WHERE id = 13", [0, 0, 1, 0, 0]),
    (
        "UPDATE copied SET misc = CAST(misc AS TEXT) WHERE id = 1",
        [0, 0, 1, 0, 0],
    ),
    ("UPDATE copied SET note = NULL WHERE id = 4", [0, 0, 1, 0, 0]),
    ("UPDATE copied SET photo = zeroblob(32) WHERE id = 5", [0, 0, 1, 0, 0]),
    ("INSERT INTO copied (id, name) VALUES (5000, 'x')", [0, 0, 0, 1, 0]),
    // A row under another's name: one is lost, one is doubled, and it is not what it says.
    ("UPDATE copied SET id = 8 WHERE id = 7", [1, 1, 1, 0, 0]),
    (LATE, [0, 0, 0, 0, 1]),
];

#[test]
fn accuses_a_doctored_sqlite() {
    let dir = temp_dir("oracle");
    let (source, copy) = shop_and_copy(dir.path());
    let produced = Produced::all(&source).unwrap();
    for (doctoring, want) in DOCTORED {
        let doctored = dir.path().join("doctored.db");
        std::fs::copy(&copy, &doctored).unwrap();
        Connection::open(&doctored).unwrap().execute_batch(doctoring).unwrap();
        let verdict = produced.judge_sqlite(&doctored, "copied").unwrap();
        assert_eq!(counts(&verdict), *want, "{doctoring}: {verdict}");
        assert_eq!(verdict.is_clean(), doctoring.is_empty());
    }
    let absent = produced.judge_sqlite(&copy, "nothing_of_the_kind");
    assert!(absent.is_err(), "a table that is not there is not an empty one");
    assert!(!dir.path().join("new.db").exists());
    assert!(produced.judge_sqlite(&dir.path().join("new.db"), "copied").is_err());
}

#[test]
fn accuses_a_doctored_postgres() {
    let postgres = Postgres::start();
    let dir = temp_dir("oracle");
    let (source, _) = shop_and_copy(dir.path());
    let produced = Produced::typed(&source).unwrap();
    postgres
        .query("CREATE TABLE faithful (id bigint, name text, price float8, quantity bigint, note text, photo bytea)");
    let insert = insert_statements(&source);
    postgres.query(&insert);
    let unstamped = produced.judge_postgres(&postgres, "faithful").unwrap();
    assert_eq!(counts(&unstamped), [0; 5], "{unstamped}");

    for (doctoring, want) in DOCTORED
        .iter()
        .filter(|(doctoring, _)| !doctoring.contains("misc AS TEXT"))
    {
        postgres.query(
            "DROP TABLE IF EXISTS copied;
             CREATE TABLE copied AS TABLE faithful;
             ALTER TABLE copied ADD COLUMN arrived bigint;
             UPDATE copied SET arrived = id;
             CREATE SEQUENCE IF NOT EXISTS late START 100000;
             ALTER TABLE copied ALTER COLUMN arrived SET DEFAULT nextval('late')",
        );
        // The same doctoring in this database's words.
        let columns = "id, name, price, quantity, note, photo";
        let words = doctoring
            .replace("SELECT * FROM copied", &format!("SELECT {columns} FROM copied"))
            .replace(
                "SELECT id, 'x', price, quantity, note, photo, misc",
                "SELECT id, 'x', price, quantity, note, photo",
            )
            .replace("INTO copied SELECT", &format!("INTO copied ({columns}) SELECT"))
            .replace("zeroblob(32)", "decode(repeat('00', 32), 'hex')")
            .replace("rowid = 5", "id = 5 AND arrived = 5");
        postgres.query(&words);
        let verdict = produced.judge_postgres(&postgres, "copied").unwrap();
        assert_eq!(counts(&verdict), *want, "{words}: {verdict}");
    }
    assert!(produced.judge_postgres(&postgres, "nothing_of_the_kind").is_err());
}

/// The shop as PostgreSQL would be told it by hand: an implementation of its own, so that the comparison is one.
fn insert_statements(source: &Path) -> String {
    let db = Connection::open(source).unwrap();
    let sql = "SELECT id, quote(name), quantity, quote(note), hex(photo), photo IS NULL, price FROM orders ORDER BY id";
    let mut rows = db.prepare(sql).unwrap();
    let mut rows = rows.query([]).unwrap();
    let mut text = String::from("INSERT INTO faithful VALUES ");
    while let Some(row) = rows.next().unwrap() {
        let (id, quantity): (i64, Option<i64>) = (row.get(0).unwrap(), row.get(2).unwrap());
        let (name, note): (String, String) = (row.get(1).unwrap(), row.get(3).unwrap());
        let photo = match row.get::<_, bool>(5).unwrap() {
            true => "NULL".to_string(),
            false => format!("decode('{}', 'hex')", row.get::<_, String>(4).unwrap()),
        };
        let price = row.get::<_, Option<f64>>(6).unwrap();
        let price = price.map_or("NULL".to_string(), |price| match price {
            f64::INFINITY => "'Infinity'".to_string(),
            price => format!("'{price:e}'::float8"),
        });
        let quantity = quantity.map_or("NULL".to_string(), |quantity| quantity.to_string());
        let comma = if text.ends_with(' ') { "" } else { ", " };
        let _ = write!(text, "{comma}({id}, {name}, {price}, {quantity}, {note}, {photo})");
    }
    text
}

#[test]
fn accuses_a_doctored_file() {
    let dir = temp_dir("oracle");
    let (source, _) = shop_and_copy(dir.path());
    let produced = Produced::typed(&source).unwrap();
    let lines = csv_lines(&source);
    let doctor = |change: &dyn Fn(&mut Vec<String>)| {
        let mut lines = lines.clone();
        change(&mut lines);
        let header = "id,name,price,quantity,note,photo\n".to_string();
        let (first, second) = lines.split_at(lines.len() / 2);
        let files: Vec<PathBuf> = [first, second]
            .iter()
            .enumerate()
            .map(|(index, part)| {
                let path = dir.path().join(format!("part-{index}.csv"));
                std::fs::write(&path, header.clone() + &part.concat()).unwrap();
                path
            })
            .collect();
        produced.judge_csv(&files)
    };
    type Change = dyn Fn(&mut Vec<String>);
    let cases: &[(&str, &Change, [u64; 5])] = &[
        ("faithful", &|_| {}, [0, 0, 0, 0, 0]),
        ("a line less", &|lines| drop(lines.remove(10)), [1, 0, 0, 0, 0]),
        ("a line twice", &|lines| lines.push(lines[3].clone()), [0, 1, 0, 0, 0]),
        (
            "another note",
            &|lines| lines[0] = lines[0].replace("note", "Note"),
            [0, 0, 1, 0, 0],
        ),
        (
            "a stranger",
            &|lines| lines.push("9999,x,,,,\n".to_string()),
            [0, 0, 0, 1, 0],
        ),
        ("two changed places", &|lines| lines.swap(0, 1), [0, 0, 0, 0, 1]),
    ];
    for (what, change, want) in cases {
        let verdict = doctor(*change).unwrap();
        assert_eq!(counts(&verdict), *want, "{what}: {verdict}");
    }
    let torn = doctor(&|lines| {
        let last = lines.last_mut().unwrap();
        last.truncate(3);
    });
    assert!(torn.is_err(), "a torn line is not read as one");
}

fn csv_lines(source: &Path) -> Vec<String> {
    let db = Connection::open(source).unwrap();
    let mut rows = db
        .prepare("SELECT id, name, price, quantity, note, lower(hex(photo)) FROM orders ORDER BY id")
        .unwrap();
    let line = |row: &rusqlite::Row<'_>| {
        let text = |column| row.get::<_, Option<String>>(column).map(Option::unwrap_or_default);
        let quoted = |text: String| match text.contains(['"', ',']) {
            true => format!("\"{}\"", text.replace('"', "\"\"")),
            false => text,
        };
        let price = row
            .get::<_, Option<f64>>(2)?
            .map_or(String::new(), |price| price.to_string());
        let quantity = row
            .get::<_, Option<i64>>(3)?
            .map_or(String::new(), |number| number.to_string());
        Ok(format!(
            "{},{},{price},{quantity},{},{}\n",
            row.get::<_, i64>(0)?,
            quoted(text(1)?),
            text(4)?,
            text(5)?
        ))
    };
    rows.query_map([], line).unwrap().collect::<Result<_, _>>().unwrap()
}

#[test]
fn names_the_first_offenders() {
    let dir = temp_dir("oracle");
    let (source, copy) = shop_and_copy(dir.path());
    let produced = Produced::all(&source).unwrap();
    let doctoring = "DELETE FROM copied WHERE id < 100; UPDATE copied SET quantity = 1 WHERE id = 200";
    Connection::open(&copy).unwrap().execute_batch(doctoring).unwrap();
    let verdict = produced.judge_sqlite(&copy, "copied").unwrap();
    let text = verdict.to_string();
    assert!(text.contains("201 of 300 rows; 99 lost (id 1; id 2; id 3)"), "{text}");
    assert!(text.contains("1 altered (id 200: quantity 200 became 1)"), "{text}");
    assert!(verdict.acquit().is_err());
}

#[test]
fn accuses_books() {
    let ledger = |produced, delivered, buffered, dead_lettered| crate::Ledger {
        produced,
        delivered,
        buffered,
        dropped: 0,
        dead_lettered,
    };
    for (ledger, want) in [
        (ledger(10, 10, 0, 0), None),
        (ledger(10, 9, 0, 0), Some("1 lost without a trace")),
        (ledger(10, 10, 1, 0), Some("1 counted twice")),
        // These balance, but do not agree with what was produced.
        (ledger(9, 9, 0, 0), Some("10 rows were produced")),
        (ledger(10, 9, 1, 0), Some("10 rows were produced")),
        (ledger(10, 9, 0, 1), Some("10 rows were produced")),
    ] {
        let said = accuse_ledger("orders", &ledger, 10);
        match want {
            None => assert_eq!(said, None),
            Some(want) => assert!(said.as_deref().is_some_and(|said| said.contains(want)), "{said:?}"),
        }
    }
}
