//! A workflow is changed while data moves: destinations come and go. What stays loses nothing and gets nothing twice; what
//! is new begins where the source is.

#![cfg(target_os = "linux")]

use std::{path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags};
use testkit::{Broker, Fleet, Proc, shop, wait_ok, wait_until};

const LATE: Duration = Duration::from_secs(120);
const STOP: Duration = Duration::from_secs(20);

/// The shop's workflow with these destinations: (name, daemon).
fn workflow(fleet: &Fleet, destinations: &[(&str, &str)]) -> String {
    let mut text = format!(
        "name = \"shop\"\n\n[sources.orders]\ntype = \"sqlite\"\ndaemon = \"gateway\"\npath = \"{}\"\ntable = \"orders\"\n\
         cursor = \"id\"\n",
        fleet.path("shop.db")
    );
    for (name, daemon) in destinations {
        let path = fleet.path(&format!("{name}.db"));
        text.push_str(&format!(
            "\n[destinations.{name}]\ntype = \"sqlite\"\ndaemon = \"{daemon}\"\nfrom = \"orders\"\npath = \"{path}\"\n\
             table = \"copied\"\n"
        ));
    }
    text
}

struct Edited {
    fleet: Fleet,
    daemons: [Proc; 2],
}

impl Edited {
    fn start() -> Self {
        let fleet = Fleet::start(Broker::embedded(false), None);
        fleet.enrol("gateway");
        fleet.enrol("hub");
        let daemons = [fleet.daemon("gateway", None), fleet.daemon("hub", None)];
        shop::create(&fleet.dir().join("shop.db")).expect("a database");
        Self { fleet, daemons }
    }

    /// Deploys these destinations, with rows before and after. `whole` must come to equal the source, and every other one
    /// must get at least what came after.
    #[track_caller]
    fn to(&mut self, destinations: &[(&str, &str)], whole: &str) {
        const ROWS: u64 = 2_000;
        let source = self.fleet.dir().join("shop.db");
        let before = shop::add(&source, ROWS).expect("rows");
        self.fleet.apply("shop", &workflow(&self.fleet, destinations));
        let all = shop::add(&source, ROWS).expect("rows");
        for (name, _) in destinations {
            let copy = self.fleet.dir().join(format!("{name}.db"));
            let what = format!("the rows in {name} with {destinations:?}");
            if *name == whole {
                let rows = wait_ok(&what, LATE, || {
                    shop::compare(&source, &copy, "copied").map_err(|error| error.to_string())
                });
                assert_eq!(rows, all);
            } else {
                wait_until(&what, LATE, || (newest(&copy, before)? == (all, ROWS)).then_some(()));
            }
        }
    }

    fn end(mut self) {
        for daemon in &mut self.daemons {
            assert!(daemon.term_and_wait(STOP).success());
        }
    }
}

/// The highest id in a copy, and how many different ids it has above `after`.
fn newest(copy: &Path, after: u64) -> Option<(u64, u64)> {
    let db = Connection::open_with_flags(copy, OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
    let sql = format!("SELECT max(id), count(DISTINCT id) FROM copied WHERE id > {after}");
    let number = |row: &rusqlite::Row<'_>, column| row.get::<_, i64>(column).map(i64::cast_unsigned);
    db.query_row(&sql, [], |row| Ok((number(row, 0)?, number(row, 1)?)))
        .ok()
}

#[test]
fn destinations_on_another_daemon_come_and_go() {
    let mut edited = Edited::start();
    edited.to(&[("a", "hub")], "a");
    edited.to(&[("a", "hub"), ("b", "hub")], "a");
    edited.to(&[("a", "hub"), ("c", "gateway")], "a");
    edited.to(&[("a", "hub")], "a");
    edited.end();
}
