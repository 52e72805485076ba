//! A daemon is killed while records of two inputs are put together, at every moment between a batch and its commit, on either side
//! of the join: afterwards each pair is there once, and so is each order that nobody paid for. The books balance, with what the
//! oracle counts.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path, time::Duration};

use crash_point::Point;
use rusqlite::{Connection, OpenFlags};
use testkit::{Cmd, bin, temp_dir};

const LATE: Duration = Duration::from_secs(120);
/// Enough for many batches on either side.
const ORDERS: i64 = 12_000;
/// Seconds that a payment may come after its order.
const WITHIN_S: i64 = 60;

/// The moments of a join's own.
pub const JOINING: &[Point] = &[Point::JoinBeforeCommit, Point::JoinAfterCommit];

/// When an order was placed, in seconds.
fn placed(order: i64) -> i64 {
    order / 10 + 3 - (order * 7) % 4
}

/// Order and second of each payment. Every third order has none, every tenth two, and every seventh is paid too late to belong
/// to it.
fn payments() -> Vec<(i64, i64)> {
    let of_order = |order: i64| {
        let delay = if order % 7 == 0 { WITHIN_S + 30 } else { order % 50 };
        let count = match order {
            _ if order % 3 == 0 => 0,
            _ if order % 10 == 0 => 2,
            _ => 1,
        };
        (0..count).map(move |twice| (order, placed(order) + delay + twice))
    };
    let mut payments: Vec<(i64, i64)> = (0..ORDERS).flat_map(of_order).collect();
    payments.sort_by_key(|(order, second)| (*second, *order));
    payments
}

fn time(second: i64) -> String {
    format!(
        "2024-01-01T{:02}:{:02}:{:02}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

fn write_inputs(dir: &Path) {
    let (mut orders, mut paid) = (String::new(), String::new());
    for order in 0..ORDERS {
        let _infallible = writeln!(orders, "{{\"id\": {order}, \"placed\": \"{}\"}}", time(placed(order)));
    }
    for (number, (order, second)) in payments().into_iter().enumerate() {
        let at = time(second);
        let _infallible = writeln!(paid, "{{\"number\": {number}, \"order\": {order}, \"at\": \"{at}\"}}");
    }
    fs::write(dir.join("orders.jsonl"), orders).expect("the orders are written");
    fs::write(dir.join("payments.jsonl"), paid).expect("the payments are written");
}

/// Order and number of the payment.
type Pair = (i64, Option<i64>);

fn expected(is_kept: bool) -> BTreeSet<Pair> {
    let belongs = |(order, second): &(i64, i64)| second - placed(*order) <= WITHIN_S;
    let payments = payments();
    let numbered = (0..).zip(&payments).filter(|(_, payment)| belongs(payment));
    let mut pairs: BTreeSet<Pair> = numbered.map(|(number, (order, _))| (*order, Some(number))).collect();
    if is_kept {
        let paid: BTreeSet<i64> = pairs.iter().map(|(order, _)| *order).collect();
        pairs.extend(
            (0..ORDERS)
                .filter(|order| !paid.contains(order))
                .map(|order| (order, None)),
        );
    }
    pairs
}

fn found(dir: &Path) -> rusqlite::Result<Vec<Pair>> {
    let db = Connection::open_with_flags(dir.join("paid.db"), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut rows = db.prepare("SELECT id, number FROM paid ORDER BY id, number")?;
    let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

/// Two files, a join, a table; `more` reads from them too.
fn workflow(keep: &str, more: &str) -> String {
    let source = |name: &str, types: &str| {
        format!(
            "[sources.{name}]\ntype = \"file\"\npath = \"{name}.jsonl\"\nformat = \"json_lines\"\nmode = \"once\"\ntypes = {{ {types} \
             }}\n\n"
        )
    };
    format!(
        "name = \"paid\"\n\n{}{}[transforms.paid]\ntype = \"join\"\nfrom = [\"orders\", \"payments\"]\nwithin_ms = {}\nlateness_ms = \
         5_000\nkeep = [{keep}]\n\n[transforms.paid.inputs]\norders = {{ key = [\"id\"], time = \"placed\" }}\npayments = {{ key = \
         [\"order\"], time = \"at\" }}\n\n[destinations.paid]\ntype = \"sqlite\"\nfrom = \"paid\"\npath = \"paid.db\"\ntable = \
         \"paid\"\nkey = []\n\n{more}",
        source("orders", "id = \"i64\""),
        source("payments", "number = \"i64\", order = \"i64\""),
        WITHIN_S * 1_000
    )
}

/// Runs it, dying at each of the moments in turn, then to its end. What the last run said of its streams.
fn run(workflow: &str, deaths: &[(Point, u64)]) -> (testkit::TempDir, String) {
    let dir = temp_dir("joins");
    write_inputs(dir.path());
    let file = dir.path().join("paid.toml");
    // A node and its destination may not have one name.
    fs::write(&file, workflow.replace("[destinations.paid]", "[destinations.out]")).expect("the workflow is written");
    for (point, times) in deaths {
        let order = format!("{}:{times}", point.name());
        let done = Cmd::new(bin("myceliald"))
            .arg("run")
            .arg(&file)
            .env("MYCELIAL_CRASH_AT", &order)
            .run(LATE);
        assert_eq!(done.code(), None, "{order} was not reached: {done}");
    }
    let done = Cmd::new(bin("myceliald")).arg("run").arg(&file).run(LATE);
    assert_eq!(done.code(), Some(0), "{done}");
    assert!(!done.stderr.contains("does not balance"), "{done}");
    (dir, done.stderr)
}

/// Produced, delivered and dead of an edge.
fn account(said: &str, edge: &str) -> [u64; 3] {
    let line = said.lines().find(|line| line.split_whitespace().next() == Some(edge));
    let line = line.unwrap_or_else(|| panic!("{edge} has no account: {said}"));
    let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    [numbers[0], numbers[1], numbers[4]]
}

#[track_caller]
fn judge(deaths: &[(Point, u64)], dir: &Path, wanted: &BTreeSet<Pair>) {
    let found = found(dir).expect("the pairs are there");
    let set: BTreeSet<Pair> = found.iter().copied().collect();
    let (missing, strange) = (wanted.difference(&set).count(), set.difference(wanted).count());
    assert_eq!(
        (missing, strange, found.len() - set.len()),
        (0, 0, 0),
        "{deaths:?}: missing, strange and doubled pairs"
    );
}

#[test]
fn every_pair_is_there_once() {
    use Point::{
        JoinAfterCommit, JoinBeforeCommit, RunnerAfterCommit, RunnerAfterSourceCommit, RunnerAfterWrite,
        RunnerBeforeSourceCommit, SqliteAfterCommit, SqliteBeforeCommit,
    };
    let wanted = expected(true);
    for deaths in [
        &[][..],
        &[(JoinBeforeCommit, 1), (JoinBeforeCommit, 4)],
        &[(JoinAfterCommit, 1), (JoinAfterCommit, 3)],
        &[(RunnerAfterWrite, 2), (RunnerAfterCommit, 3), (RunnerAfterWrite, 4)],
        &[(SqliteBeforeCommit, 1), (SqliteAfterCommit, 2), (JoinBeforeCommit, 2)],
        &[(RunnerBeforeSourceCommit, 2), (RunnerAfterSourceCommit, 3)],
    ] {
        let (dir, said) = run(&workflow("\"orders\"", ""), deaths);
        judge(deaths, dir.path(), &wanted);
        let (orders, payments, pairs) = (ORDERS as u64, payments().len() as u64, wanted.len() as u64);
        assert_eq!(account(&said, "orders->paid"), [orders, orders, 0], "{said}");
        assert_eq!(account(&said, "payments->paid"), [payments, payments, 0], "{said}");
        assert_eq!(account(&said, "paid->out"), [pairs, pairs, 0], "{said}");
    }
}

#[test]
fn streams_go_into_a_join() {
    use Point::{JoinAfterCommit, JoinBeforeCommit, RunnerBetweenLeaves, SpoolSyncBeforeFsync};
    // The orders go elsewhere, too: a buffer stands before the join.
    let more =
        "[destinations.copy]\ntype = \"sqlite\"\nfrom = \"orders\"\npath = \"copy.db\"\ntable = \"orders\"\nkey = []\n";
    let wanted = expected(false);
    for deaths in [
        &[][..],
        &[(JoinBeforeCommit, 3), (JoinAfterCommit, 2)],
        &[
            (RunnerBetweenLeaves, 2),
            (SpoolSyncBeforeFsync, 3),
            (JoinBeforeCommit, 1),
        ],
    ] {
        let (dir, _) = run(&workflow("", more), deaths);
        judge(deaths, dir.path(), &wanted);
    }
}
