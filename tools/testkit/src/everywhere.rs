//! One workflow into every destination that promises exactly once: SQLite, PostgreSQL and files. Deploys it, counts what
//! has arrived, and hands it to the oracle; what goes wrong meanwhile is somebody else's.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::oracle::{Produced, Verdict};
use crate::{Fleet, Postgres, shop};

/// The table in both databases.
const TABLE: &str = "copied";
/// Streams of the workflow: one to each destination.
pub const STREAMS: usize = 3;
/// The file that is written now.
const ARCHIVE: &str = "archive.csv";
/// A file is complete at this size.
const ROTATE_BYTES: u64 = 1024 * 1024;

/// Makes the source, and the table in PostgreSQL: with a column that tells in which order rows arrived, and without a key,
/// which would refuse a double and so hide it.
#[track_caller]
pub fn prepare(fleet: &Fleet, postgres: &Postgres) {
    shop::create(&source(fleet)).expect("a database");
    std::fs::create_dir_all(landing(fleet)).expect("a directory");
    postgres.query(&format!(
        "CREATE TABLE {TABLE} (id bigint, name text, price float8, quantity bigint, note text, photo bytea,
         arrived bigserial)"
    ));
}

/// Where rows are produced, by [`shop::add_sized`].
#[must_use]
pub fn source(fleet: &Fleet) -> PathBuf {
    fleet.dir().join("shop.db")
}

/// Where what is delivered into files lands, SQLite's among them.
#[must_use]
pub fn landing(fleet: &Fleet) -> PathBuf {
    fleet.dir().join("landed")
}

/// From the daemon `gateway` to the daemon `hub`.
#[must_use]
pub fn workflow(fleet: &Fleet, postgres: &Postgres, name: &str) -> String {
    format!(
        r#"name = "{name}"

[sources.orders]
type = "sqlite"
daemon = "gateway"
path = "{shop}"
table = "{orders}"
cursor = "id"

[transforms.typed]
type = "select"
from = "orders"
except = ["misc"]

[destinations.copy]
type = "sqlite"
daemon = "hub"
from = "orders"
path = "{copy}"
table = "{TABLE}"
key = []

[destinations.warehouse]
type = "postgres"
daemon = "hub"
from = "typed"
url = "{url}"
table = "{TABLE}"
key = []
tls = {{ mode = "disable" }}

[destinations.archive]
type = "file"
daemon = "hub"
from = "typed"
path = "{archive}"
format = "csv"
rotate = {{ max_bytes = {ROTATE_BYTES} }}
"#,
        shop = source(fleet).display(),
        orders = shop::TABLE,
        copy = copy(fleet).display(),
        url = postgres.url(),
        archive = landing(fleet).join(ARCHIVE).display(),
    )
}

fn copy(fleet: &Fleet) -> PathBuf {
    landing(fleet).join("copy.db")
}

/// Rows in SQLite so far: cheap.
#[must_use]
pub fn copied(fleet: &Fleet) -> u64 {
    shop::count(&copy(fleet), TABLE)
}

/// Rows in SQLite, in PostgreSQL and in the files so far.
#[must_use]
pub fn delivered(fleet: &Fleet, postgres: &Postgres) -> [u64; STREAMS] {
    let counted = postgres.try_query_in("postgres", &format!("SELECT count(*) FROM {TABLE}"));
    let warehouse = counted.stdout.trim().parse().unwrap_or(0);
    let archived = archive(fleet).iter().map(|file| records(file)).sum();
    [copied(fleet), warehouse, archived]
}

/// Asks the oracle about each destination. An error is one that cannot even be read.
pub fn verdicts(fleet: &Fleet, postgres: &Postgres) -> [Result<Verdict>; STREAMS] {
    let judge = |typed: bool, ask: &dyn Fn(&Produced) -> Result<Verdict>| {
        let source = source(fleet);
        let produced = if typed {
            Produced::typed(&source)
        } else {
            Produced::all(&source)
        };
        ask(&produced.context("the source cannot be read")?)
    };
    [
        judge(false, &|produced| produced.judge_sqlite(&copy(fleet), TABLE)),
        judge(true, &|produced| produced.judge_postgres(postgres, TABLE)),
        judge(true, &|produced| produced.judge_csv(&archive(fleet))),
    ]
}

/// The files, the oldest first.
fn archive(fleet: &Fleet) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(landing(fleet)).into_iter().flatten().flatten();
    let is_complete = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("archive-") && name.ends_with(".csv")
    };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_complete).collect();
    files.sort();
    let current = landing(fleet).join(ARCHIVE);
    files.extend(Some(current).filter(|path| path.exists()));
    files
}

/// Lines of a CSV file without its header: no value of the shop has a line end in it.
fn records(path: &Path) -> u64 {
    let bytes = std::fs::read(path).unwrap_or_default();
    (memchr::memchr_iter(b'\n', &bytes).count() as u64).saturating_sub(1)
}
