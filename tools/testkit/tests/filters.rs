//! Transforms that leave records out, placed on either side of a stream and on a daemon between two streams: the accounts
//! balance, and say how many were left out, also after kills.

#![cfg(target_os = "linux")]

use std::{fmt::Write as _, time::Duration};

use rusqlite::{Connection, OpenFlags};
use testkit::{Broker, Fleet, shop, wait_ok};

const LATE: Duration = Duration::from_secs(120);
const STOP: Duration = Duration::from_secs(20);
const ROWS: u64 = 3_000;
/// Keeps every fifth row.
const KEPT: u64 = 5;

/// The shop's rows through a filter on `filter_on`, to the hub.
fn workflow(fleet: &Fleet, filter_on: &str) -> String {
    format!(
        "name = \"shop\"\n\n[sources.orders]\ntype = \"sqlite\"\ndaemon = \"gateway\"\npath = \"{}\"\ntable = \"{}\"\n\
         cursor = \"id\"\n\n[transforms.fifth]\ntype = \"filter\"\ndaemon = \"{filter_on}\"\nfrom = \"orders\"\n\
         where = 'id % {KEPT} == 0'\n\n[destinations.copy]\ntype = \"sqlite\"\ndaemon = \"hub\"\nfrom = \"fifth\"\n\
         path = \"{}\"\ntable = \"copied\"\nkey = []\n",
        fleet.path("shop.db"),
        shop::TABLE,
        fleet.path("copy.db"),
    )
}

/// How many rows there are, and how many different ones.
fn there(fleet: &Fleet) -> rusqlite::Result<(u64, u64)> {
    let db = Connection::open_with_flags(fleet.dir().join("copy.db"), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    db.query_row("SELECT count(*), count(DISTINCT id) FROM copied", [], |row| {
        Ok((
            row.get::<_, i64>(0)?.cast_unsigned(),
            row.get::<_, i64>(1)?.cast_unsigned(),
        ))
    })
}

/// Waits until the streams' accounts, by edge, are at rest at these: produced, delivered, filtered.
#[track_caller]
fn books(fleet: &Fleet, wanted: &[(&str, u64, u64, u64)]) {
    wait_ok("the accounts to be at rest and balance", LATE, || {
        let text = fleet.cli(&["ledger", "-o", "json"])?;
        let streams: Vec<serde_json::Value> = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let is = |(edge, produced, delivered, filtered): &(&str, u64, u64, u64)| {
            streams.iter().any(|stream| {
                let ledger = &stream["ledger"];
                stream["edge"] == *edge
                    && stream["balances"] == true
                    && ledger["produced"] == *produced
                    && ledger["delivered"] == *delivered
                    && ledger["filtered"] == *filtered
                    && ledger["buffered"] == 0
            })
        };
        (streams.len() == wanted.len() && wanted.iter().all(is))
            .then_some(())
            .ok_or_else(|| {
                let mut told = format!("wanted {wanted:?}");
                for stream in &streams {
                    let _infallible = write!(told, "\n{stream}");
                }
                told
            })
    });
}

#[test]
fn the_accounts_balance_wherever_a_filter_is() {
    let kept = |rows: u64| rows / KEPT;
    for filter_on in ["gateway", "hub", "relay"] {
        println!("a filter on the {filter_on}");
        let fleet = Fleet::start(Broker::embedded(false), None);
        let names = ["gateway", "relay", "hub"];
        for name in names {
            fleet.enrol(name);
        }
        let mut daemons = names.map(|name| fleet.daemon(name, None));
        let source = fleet.dir().join("shop.db");
        shop::create(&source).expect("a database");
        let mut rows = shop::add(&source, ROWS).expect("rows");
        fleet.apply("shop", &workflow(&fleet, filter_on));
        // Twice, with a kill of everybody in between and while rows are on their way.
        for is_last in [false, true] {
            wait_ok("the rows", LATE, || {
                let found = there(&fleet).map_err(|error| error.to_string())?;
                let all = found == (kept(rows), kept(rows));
                all.then_some(()).ok_or_else(|| format!("{found:?} of {}", kept(rows)))
            });
            let expected: &[(&str, u64, u64, u64)] = match filter_on {
                "gateway" => &[("fifth->copy", kept(rows), kept(rows), 0)],
                "hub" => &[("orders->fifth", rows, rows, rows - kept(rows))],
                _ => &[
                    ("orders->fifth", rows, rows, rows - kept(rows)),
                    ("fifth->copy", kept(rows), kept(rows), 0),
                ],
            };
            books(&fleet, expected);
            if !is_last {
                rows = shop::add(&source, ROWS).expect("rows");
                for (daemon, name) in daemons.iter_mut().zip(names) {
                    daemon.kill9();
                    *daemon = fleet.daemon(name, None);
                }
            }
        }
        for daemon in &mut daemons {
            assert!(daemon.term_and_wait(STOP).success());
        }
    }
}
