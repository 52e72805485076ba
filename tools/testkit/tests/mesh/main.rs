//! The whole mesh, with the real binaries: rows cross from one daemon to another over each kind of broker, while the broker,
//! the plane and the daemons fail. One body for all roads; it ends by comparing every value and by checking the ledger.

#![cfg(target_os = "linux")]

mod spy;

use std::path::Path;
use std::time::Duration;

use memchr::memmem;
use rusqlite::Connection;
use testkit::{Broker, Fleet, Ledger, Link, Mosquitto, Nats, Postgres, Tls, shop, wait_ok, wait_until};

use spy::Spy;

const SOON: Duration = Duration::from_secs(60);
const LATE: Duration = Duration::from_secs(300);
const STOP: Duration = Duration::from_secs(20);

/// Names and values of the data: nobody on the way may see any of them.
const SECRETS: &[&str] = &[
    "orders",
    "copied",
    "quantity",
    "rocket",
    "note 17",
    "shop.db",
    "sqlite",
    "postgres",
    "Grüße 6",
];

fn shop_workflow(fleet: &Fleet) -> String {
    format!(
        "name = \"shop\"\n\n[sources.orders]\ntype = \"sqlite\"\ndaemon = \"gateway\"\npath = \"{}\"\ntable = \"{}\"\n\
         cursor = \"id\"\n\n[destinations.copy]\ntype = \"sqlite\"\ndaemon = \"hub\"\nfrom = \"orders\"\npath = \"{}\"\n\
         table = \"copied\"\n",
        fleet.path("shop.db"),
        shop::TABLE,
        fleet.path("copy.db"),
    )
}

#[track_caller]
fn all_arrive(what: &str, source: &Path, copy: &Path, rows: u64) {
    let compared = wait_ok(what, LATE, || {
        shop::compare(source, copy, "copied").map_err(|error| error.to_string())
    });
    assert_eq!(compared, rows);
}

/// Waits until every stream says it has delivered this many rows, and checks the books.
#[track_caller]
fn balanced(fleet: &Fleet, streams: usize, rows: u64) {
    let wanted = Ledger {
        produced: rows,
        delivered: rows,
        ..Ledger::default()
    };
    let ledgers = wait_until("the ledger to show all rows", SOON, || {
        let ledgers = fleet.ledgers();
        let all = |(_, ledger): &(String, Ledger)| ledger.delivered >= wanted.delivered;
        (ledgers.len() == streams && ledgers.iter().all(all)).then_some(ledgers)
    });
    for (edge, ledger) in ledgers {
        ledger.assert_all_delivered(&edge);
        assert_eq!(ledger, wanted, "{edge}");
    }
}

/// What the spy was given: a lot, and nothing it can read.
fn saw_nothing(spy: &Spy, frames_at_least: usize) {
    let seen = spy.seen();
    assert!(
        seen.len() > frames_at_least,
        "the spy was given {} bytes: it listened to nothing",
        seen.len()
    );
    // The subjects are there for everybody to see: proof that these are the frames.
    assert!(
        memmem::find(&seen, b"data").is_some(),
        "no frame among what the spy saw"
    );
    for secret in SECRETS {
        let at = memmem::find(&seen, secret.as_bytes());
        assert_eq!(at, None, "the spy reads '{secret}'");
    }
}

/// The broker, the plane, the gateway and the hub die in turn; nothing is lost or doubled.
fn mesh(broker: Broker, tls: Option<&Tls>) {
    let mut fleet = Fleet::start(broker, tls);
    fleet.enrol("gateway");
    fleet.enrol("hub");
    // What leaves the gateway goes through here, and is kept.
    let link = Link::to(fleet.broker.addr());
    let capture = link.capture();
    let spy = match (&fleet.broker, tls) {
        (Broker::Mosquitto(broker), None) => Some(Spy::on_mqtt(broker.addr())),
        (Broker::Nats(broker) | Broker::NatsMqtt(broker), None) => Some(Spy::on_nats(broker.addr())),
        // Ours lets no stranger in, and a stranger on TLS would see the same.
        _ => None,
    };
    let gateway_bus = link.url(&fleet.broker.url());
    let mut gateway = fleet.daemon("gateway", Some(&gateway_bus));
    let mut hub = fleet.daemon("hub", None);

    let (source, copy) = (fleet.dir().join("shop.db"), fleet.dir().join("copy.db"));
    shop::create(&source).expect("a database");
    shop::add(&source, 5_000).expect("rows");
    fleet.apply("shop", &shop_workflow(&fleet));
    all_arrive("the first rows", &source, &copy, 5_000);

    // Broker and plane away; the source goes on; the gateway dies and starts again on its own.
    fleet.broker.away();
    fleet.plane_away();
    shop::add(&source, 10_000).expect("rows");
    std::thread::sleep(Duration::from_secs(2));
    gateway.kill9();
    gateway = fleet.daemon("gateway", Some(&gateway_bus));
    shop::add(&source, 5_000).expect("rows");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(shop::count(&copy, "copied"), 5_000, "nothing can have arrived");
    fleet.broker.back();
    all_arrive("every row, once", &source, &copy, 20_000);

    // The hub is killed in the middle of a delivery.
    shop::add(&source, 5_000).expect("rows");
    hub.kill9();
    let mut hub = fleet.daemon("hub", None);
    all_arrive("every row after the hub died", &source, &copy, 25_000);

    fleet.plane_back();
    balanced(&fleet, 1, 25_000);
    capture.assert_no_plaintext(SECRETS);
    if let Some(spy) = spy {
        saw_nothing(&spy, 500_000);
    }
    assert!(gateway.term_and_wait(STOP).success(), "the gateway drains and stops");
    assert!(hub.term_and_wait(STOP).success(), "the hub drains and stops");
    assert!(fleet.plane().term_and_wait(STOP).success());
}

#[test]
fn over_the_embedded_broker() {
    mesh(Broker::embedded(false), None);
}

#[test]
fn over_the_embedded_broker_with_tls() {
    mesh(Broker::embedded(true), None);
}

#[test]
fn over_mosquitto() {
    mesh(Broker::Mosquitto(Mosquitto::start()), None);
}

#[test]
fn over_mosquitto_with_tls() {
    let tls = Tls::new();
    mesh(Broker::Mosquitto(Mosquitto::builder().tls(&tls).start()), Some(&tls));
}

#[test]
fn over_nats() {
    mesh(Broker::Nats(Nats::start()), None);
}

#[test]
fn over_nats_with_tls() {
    let tls = Tls::new();
    mesh(Broker::Nats(Nats::builder().tls(&tls).start()), Some(&tls));
}

#[test]
fn over_the_mqtt_listener_of_nats() {
    mesh(Broker::NatsMqtt(Nats::builder().mqtt().start()), None);
}

/// The plane is away throughout, the broker while 100,000 rows are produced, and the gateway is killed meanwhile.
#[test]
fn a_hundred_thousand_rows_offline_reach_postgres_and_sqlite_once() {
    const BEFORE: u64 = 1_000;
    const OFFLINE: u64 = 100_000;

    let postgres = Postgres::start();
    let mut fleet = Fleet::start(Broker::Mosquitto(Mosquitto::start()), None);
    fleet.enrol("gateway");
    fleet.enrol("hub");
    let spy = Spy::on_mqtt(fleet.broker.addr());
    let mut gateway = fleet.daemon("gateway", None);
    let mut hub = fleet.daemon("hub", None);
    let (source, copy) = (fleet.dir().join("shop.db"), fleet.dir().join("copy.db"));
    shop::create(&source).expect("a database");
    shop::add(&source, BEFORE).expect("rows");
    // A column without a type holds values of many types; PostgreSQL has no such column.
    let workflow = format!(
        "{}\n[transforms.typed]\ntype = \"select\"\nfrom = \"orders\"\nexcept = [\"misc\"]\n\n\
         [destinations.warehouse]\ntype = \"postgres\"\ndaemon = \"hub\"\nfrom = \"typed\"\nurl = \"{}\"\n\
         table = \"copied\"\ntls = {{ mode = \"disable\" }}\n",
        shop_workflow(&fleet),
        postgres.url(),
    );
    fleet.apply("shop", &workflow);
    all_arrive("the first rows in SQLite", &source, &copy, BEFORE);
    wait_ok("the first rows in PostgreSQL", SOON, || {
        compare_with_postgres(&source, &postgres)
    });

    fleet.plane_away();
    fleet.broker.away();
    shop::add(&source, OFFLINE / 2).expect("rows");
    // Killed while it reads; then while it is idle; started again with nobody there.
    gateway.kill9();
    gateway = fleet.daemon("gateway", None);
    shop::add(&source, OFFLINE / 2).expect("rows");
    std::thread::sleep(Duration::from_secs(5));
    gateway.kill9();
    gateway = fleet.daemon("gateway", None);
    assert_eq!(shop::count(&copy, "copied"), BEFORE, "nothing can have arrived");

    fleet.broker.back();
    all_arrive("every row in SQLite, once", &source, &copy, BEFORE + OFFLINE);
    let rows = wait_ok("every row in PostgreSQL, once", LATE, || {
        compare_with_postgres(&source, &postgres)
    });
    assert_eq!(rows, BEFORE + OFFLINE);

    fleet.plane_back();
    balanced(&fleet, 2, BEFORE + OFFLINE);
    saw_nothing(&spy, 1_000_000);
    assert!(gateway.term_and_wait(STOP).success(), "the gateway drains and stops");
    assert!(hub.term_and_wait(STOP).success(), "the hub drains and stops");
}

/// Compares the source with the table in PostgreSQL: values as bytes, floats bit for bit. Returns the number of rows.
fn compare_with_postgres(source: &Path, postgres: &Postgres) -> Result<u64, String> {
    let copied = "SELECT id, encode(convert_to(name, 'UTF8'), 'hex'), encode(float8send(price), 'hex'), quantity,
                  encode(convert_to(note, 'UTF8'), 'hex'), encode(photo, 'hex') FROM copied ORDER BY id";
    if postgres.query_one("SELECT to_regclass('copied') IS NULL") == "t" {
        return Err("there is no table yet".to_string());
    }
    compare_rows(source, postgres.query(copied))
}

fn compare_rows(source: &Path, copied: Vec<Vec<String>>) -> Result<u64, String> {
    let text = |error: rusqlite::Error| error.to_string();
    let db = Connection::open(source).map_err(text)?;
    let original = "SELECT id, hex(name), price, quantity, hex(note), note IS NULL, hex(photo), photo IS NULL
                    FROM orders ORDER BY id";
    let mut original = db.prepare(original).map_err(text)?;
    let mut rows = original.query([]).map_err(text)?;
    let mut copied = copied.into_iter();
    let mut count = 0;
    while let Some(row) = rows.next().map_err(text)? {
        let null = || testkit::NULL.to_string();
        let number = |value: Option<i64>| value.map_or_else(null, |value| value.to_string());
        let hex = |column: usize| -> rusqlite::Result<String> {
            let is_null = matches!(column, 4 | 6) && row.get::<_, bool>(column + 1)?;
            Ok(if is_null {
                null()
            } else {
                row.get::<_, String>(column)?.to_lowercase()
            })
        };
        let price: Option<f64> = row.get(2).map_err(text)?;
        let wanted = vec![
            number(row.get(0).map_err(text)?),
            hex(1).map_err(text)?,
            price.map_or_else(null, |price| format!("{:016x}", price.to_bits())),
            number(row.get(3).map_err(text)?),
            hex(4).map_err(text)?,
            hex(6).map_err(text)?,
        ];
        match copied.next() {
            Some(found) if found == wanted => count += 1,
            Some(found) => return Err(format!("row {}: {wanted:?} became {found:?}", count + 1)),
            None => return Err(format!("the copy ends after {count} rows")),
        }
    }
    match copied.next() {
        Some(more) => Err(format!("the copy has more than {count} rows: {more:?}")),
        None => Ok(count),
    }
}
