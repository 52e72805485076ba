//! What checks say of logins and rights: where a server wants them, and where somebody has too few.

use bus_schema::plan::ComponentRole;
use flow::{Build, BuildContext, Registry, TroubleKind, check};
use serde_json::{Value as Json, json};
use testkit::{Mariadb, Mosquitto, Nats, Postgres};

/// What the check of a component says; nothing when all is well.
async fn trouble(role: ComponentRole, component: &str, config: &Json) -> Option<TroubleKind> {
    let registry = Registry::new(connectors::components());
    let (config, context) = (config.to_string(), BuildContext::default());
    let checked = match registry.find(role, component).unwrap() {
        Build::Source(build) => check::check_source(&mut *build(&config, &context).unwrap()).await,
        Build::Sink(build) => check::check_sink(&mut *build(&config, &context).unwrap()).await,
        Build::Transform(_) | Build::Junction(_) => panic!("a transform"),
    };
    checked.err().map(|trouble| trouble.kind)
}

use ComponentRole::{Destination, Source};

#[tokio::test]
async fn postgres_tells_login_and_rights() {
    let server = Postgres::builder()
        .password("right")
        .config("wal_level", "logical")
        .start();
    server.create_database("plant");
    for sql in [
        "CREATE TABLE t (n bigint PRIMARY KEY)",
        "CREATE TABLE hidden (n bigint PRIMARY KEY)",
        "CREATE ROLE reader LOGIN PASSWORD 'right'",
        "GRANT SELECT ON t TO reader",
    ] {
        server.query_in("plant", sql);
    }
    let config = |user: &str, password: &str, more: Json| {
        let mut config = json!({
            "host": "127.0.0.1", "port": server.port(), "user": user, "password": password, "database": "plant",
            "tls": {"mode": "disable"}, "table": "t",
        });
        config
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        config
    };
    let none = || json!({});
    for (role, config, wanted) in [
        (Source, config("reader", "right", none()), None),
        (Source, config("reader", "wrong", none()), Some(TroubleKind::Login)),
        (Source, config("nobody", "right", none()), Some(TroubleKind::Login)),
        (
            Source,
            config("reader", "right", json!({"table": "hidden"})),
            Some(TroubleKind::Right),
        ),
        (
            Source,
            config("reader", "right", json!({"mode": "replication"})),
            Some(TroubleKind::Right),
        ),
        (
            Source,
            config("reader", "right", json!({"cursor": "m"})),
            Some(TroubleKind::Config),
        ),
        (Destination, config("reader", "right", none()), Some(TroubleKind::Right)),
        (
            Destination,
            config("reader", "right", json!({"table": "made"})),
            Some(TroubleKind::Right),
        ),
        (Destination, config("postgres", "right", json!({"table": "made"})), None),
    ] {
        assert_eq!(trouble(role, "postgres", &config).await, wanted, "{config}");
    }
    let made = server.query_in(
        "plant",
        "SELECT count(*) FROM pg_class WHERE relname IN ('made', '_mycelial_watermark')",
    );
    assert_eq!(made, [["0"]]);
    let slots = server.query_in("plant", "SELECT count(*) FROM pg_replication_slots");
    assert_eq!(slots, [["0"]]);
}

#[tokio::test]
async fn a_server_that_does_not_log_for_replication_is_told() {
    let server = Postgres::start();
    let url = server.create_database("plant");
    server.query_in("plant", "CREATE TABLE t (n bigint PRIMARY KEY)");
    let config = json!({"url": url, "tls": {"mode": "disable"}, "table": "t", "mode": "replication"});
    assert_eq!(trouble(Source, "postgres", &config).await, Some(TroubleKind::Setup));
}

#[tokio::test]
async fn mysql_tells_rights() {
    let server = Mariadb::start();
    server.create_database("plant");
    for sql in [
        "CREATE TABLE t (n bigint PRIMARY KEY) ENGINE = InnoDB",
        "CREATE TABLE old (n bigint PRIMARY KEY) ENGINE = MyISAM",
        "CREATE TABLE hidden (n bigint PRIMARY KEY) ENGINE = InnoDB",
        "CREATE USER reader@'127.0.0.1' IDENTIFIED BY 'right'",
        "GRANT SELECT ON plant.t TO reader@'127.0.0.1'",
    ] {
        server.query_in("plant", sql);
    }
    let config = |user: &str, table: &str| {
        json!({
            "host": "127.0.0.1", "port": server.port(), "user": user, "database": "plant", "tls": {"mode": "disable"},
            "password": if user == "tester" { "tester" } else { "right" }, "table": table,
        })
    };
    for (role, config, wanted) in [
        (Source, config("reader", "t"), None),
        (Source, config("nobody", "t"), Some(TroubleKind::Login)),
        // Who may not read it does not even see that it is there.
        (Source, config("reader", "hidden"), Some(TroubleKind::Missing)),
        (Destination, config("reader", "t"), Some(TroubleKind::Right)),
        (Destination, config("tester", "t"), None),
        (Destination, config("tester", "old"), Some(TroubleKind::Setup)),
    ] {
        assert_eq!(trouble(role, "mysql", &config).await, wanted, "{config}");
    }
}

#[tokio::test]
async fn brokers_tell_logins_and_rights() {
    let mosquitto = Mosquitto::builder()
        .user("reader", "right")
        .acl("user reader\ntopic read open/#\n")
        .start();
    let nats = Nats::builder()
        .user_with_permissions(
            "reader",
            "right",
            r#"subscribe: ["open.>", "_INBOX.>"], publish: ["_INBOX.>"]"#,
        )
        .start();
    for (component, url, topic, password, wanted) in [
        ("mqtt", mosquitto.url(), "open/a", "right", None),
        ("mqtt", mosquitto.url(), "open/a", "wrong", Some(TroubleKind::Login)),
        ("nats", nats.url(), "open.a", "right", None),
        ("nats", nats.url(), "open.a", "wrong", Some(TroubleKind::Login)),
        ("nats", nats.url(), "closed.a", "right", Some(TroubleKind::Right)),
    ] {
        let mut config = json!({"url": url, "user": "reader", "password": password});
        match component {
            "mqtt" => config["topics"] = json!([topic]),
            _ => config["subject"] = json!(topic),
        }
        assert_eq!(trouble(Source, component, &config).await, wanted, "{config}");
    }
}
