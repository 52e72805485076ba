//! Configs, connections, credentials and TLS.

use std::sync::Arc;

use flow::Fault;
use serde_json::json;
use testkit::{Mariadb, Tls};

use super::{Database, deliver, delivery, inserts, sink, try_sink};

#[test]
fn configs_are_checked() {
    for (config, error) in [
        (r#"{"url": "mysql://u:p@h/d", "table": "t"}"#, ""),
        (r#"{"url": {"env": "DATABASE_URL"}, "table": "t"}"#, ""),
        (
            r#"{"host": "h", "user": "u", "database": "d", "password": {"file": "pw"}, "table": "t"}"#,
            "",
        ),
        (r#"{"url": "mysql://u@h/d"}"#, "missing field `table`"),
        (
            r#"{"table": "t"}"#,
            "host: is missing: give host, user and database, or a url",
        ),
        (r#"{"host": "h", "database": "d", "table": "t"}"#, "user: is missing"),
        (r#"{"host": "h", "user": "u", "table": "t"}"#, "database: is missing"),
        (
            r#"{"url": "mysql://u@h/d", "port": 1, "table": "t"}"#,
            "port: belongs into the url",
        ),
        (
            r#"{"url": "postgres://u:hunter2@h/d", "table": "t"}"#,
            "url: is not of the form mysql://USER",
        ),
        (
            r#"{"url": "mysql://u@h", "table": "t"}"#,
            "url: names no host, user or database",
        ),
        (
            r#"{"url": "mysql://u@h/d?require_ssl=true", "table": "t"}"#,
            "url: has parameters in it",
        ),
        (
            r#"{"url": "mysql://u@h/d", "table": "t", "tls": {"mode": "require", "ca_file": "x"}}"#,
            "tls.ca_file: is of no use unless",
        ),
        (r#"{"url": "mysql://u@h/d", "table": ""}"#, "table: cannot be a name"),
        (r#"{"url": "mysql://u@h/d", "table": "a "}"#, "table: cannot be a name"),
        (
            r#"{"url": "mysql://u@h/d", "table": "_Mycelial_watermark"}"#,
            "table: is the one Mycelial keeps its watermarks in",
        ),
        (
            r#"{"url": "mysql://u@h/d", "table": "t", "mode": "upsert", "key": []}"#,
            "key: is empty",
        ),
        (
            r#"{"url": "mysql://u@h/d", "table": "t", "key": ["a", "a"]}"#,
            "key[1]: 'a' is in the list twice",
        ),
    ] {
        let found = try_sink(config)
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        assert!(
            found.starts_with(error) && error.is_empty() == found.is_empty(),
            "{config}: {found}"
        );
        assert!(!found.contains("hunter2"), "{found}");
    }
}

async fn open_fails(config: serde_json::Value, reasons: &[&str]) {
    let mut sink = try_sink(&config.to_string()).unwrap();
    let fault = sink.open().await.unwrap_err();
    assert!(matches!(fault, Fault::Retry { .. }), "{fault}");
    for reason in reasons {
        assert!(fault.to_string().contains(reason), "{config}: {fault}");
    }
    assert!(!fault.to_string().contains("hunter2"), "{fault}");
}

#[tokio::test]
async fn what_is_wrong_with_a_server_is_said() {
    let db = Database::new(
        "setup",
        "CREATE TABLE readings (id bigint) ENGINE = Aria; CREATE VIEW seen AS SELECT 1 AS id",
    );
    let port = db.server.port();
    let plain = json!({"mode": "disable"});
    let wrong = format!("mysql://tester:hunter2@127.0.0.1:{port}/setup");
    open_fails(
        json!({"url": wrong, "tls": plain, "table": "t"}),
        &["Access denied", "[1045]"],
    )
    .await;
    let unknown = db.server.url_of("nowhere");
    open_fails(json!({"url": unknown, "tls": plain, "table": "t"}), &["nowhere"]).await;
    open_fails(json!({"url": db.url, "table": "t"}), &["tls.mode = \"disable\""]).await;
    open_fails(
        json!({"url": db.url, "tls": plain, "table": "reading", "create_table": false}),
        &["there is no table reading (did you mean 'readings'?)"],
    )
    .await;
    open_fails(
        json!({"url": db.url, "tls": plain, "table": "readings"}),
        &["table readings is kept by Aria", "ENGINE = InnoDB"],
    )
    .await;
    open_fails(json!({"url": db.url, "tls": plain, "table": "seen"}), &["kept by VIEW"]).await;
    let mut gone = sink("mysql://u@127.0.0.1:1/d", json!({}));
    assert!(gone.open().await.unwrap_err().to_string().contains("127.0.0.1:1/d"));
    assert!(gone.watermark(&super::stream("s")).await.is_err());
}

#[tokio::test]
async fn a_strange_server_changes_nothing() {
    // A server that is set to make everything fit in silence, in another character set and zone.
    let server = Mariadb::builder()
        .config("sql_mode", "")
        .config("character_set_server", "latin1")
        .config("default_time_zone", "+05:00")
        .config("default_storage_engine", "Aria")
        .config("init_connect", "'SET NAMES latin1, sql_mode = \'ANSI_QUOTES\''")
        .start();
    let db = Database::on(&Arc::new(server), "strange_server", "");
    let mut sink = db.sink(json!({})).await;
    assert_eq!(deliver(&mut *sink, inserts(1..3)).await, []);
    assert_eq!(db.rows("SELECT * FROM t ORDER BY id"), ["1|row 1", "2|row 2"]);
    let engines = "SELECT DISTINCT ENGINE FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'strange_server'";
    assert_eq!(db.rows(engines), ["InnoDB"]);
}

#[tokio::test]
async fn tls_proves_the_servers_name() {
    let (tls, other) = (Tls::new(), Tls::new());
    let server = Arc::new(Mariadb::builder().tls(&tls).start());
    let db = Database::on(&server, "secured", "");
    let ca = |tls: &Tls| json!({"ca_file": tls.ca()});
    let mut sink = try_sink(&json!({"url": db.url, "tls": ca(&tls), "table": "t"}).to_string()).unwrap();
    sink.open().await.unwrap();
    assert_eq!(sink.write(&[delivery(1, inserts(0..3))]).await.unwrap(), []);
    sink.commit().await.unwrap();
    assert_eq!(db.rows("SELECT count(*) FROM t"), ["3"]);
    let encrypted = json!({"url": db.url, "tls": {"mode": "require"}, "table": "t"});
    try_sink(&encrypted.to_string()).unwrap().open().await.unwrap();
    open_fails(
        json!({"url": db.url, "tls": ca(&other), "table": "t"}),
        &["certificate"],
    )
    .await;
    open_fails(json!({"url": db.url, "table": "t"}), &["certificate"]).await;
    open_fails(
        json!({"url": db.url, "tls": {"mode": "disable"}, "table": "t"}),
        &["Access denied"],
    )
    .await;
}
