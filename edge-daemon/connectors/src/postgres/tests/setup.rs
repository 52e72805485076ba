//! Configs, connections, credentials and TLS.

use bus_schema::data::{Op::Insert, Type, Value};
use flow::Fault;
use serde_json::json;
use testkit::{Postgres, Tls};

use super::{Database, deliver, delivery, inserts, rows, schema, sink, try_sink};

#[test]
fn configs_are_checked() {
    for (config, error) in [
        (r#"{"url": "postgres://u:p@h/d", "table": "t"}"#, ""),
        (r#"{"url": {"env": "DATABASE_URL"}, "table": "t"}"#, ""),
        (
            r#"{"host": "h", "user": "u", "database": "d", "password": {"file": "pw"}, "table": "t"}"#,
            "",
        ),
        (r#"{"url": "postgres://u@h/d"}"#, "missing field `table`"),
        (
            r#"{"table": "t"}"#,
            "host: is missing: give host, user and database, or a url",
        ),
        (r#"{"host": "h", "database": "d", "table": "t"}"#, "user: is missing"),
        (r#"{"host": "h", "user": "u", "table": "t"}"#, "database: is missing"),
        (
            r#"{"url": "postgres://u@h/d", "port": 1, "table": "t"}"#,
            "port: belongs into the url",
        ),
        (
            r#"{"url": "mysql://u:hunter2@h/d", "table": "t"}"#,
            "url: is not of the form postgres://USER",
        ),
        (
            r#"{"url": "postgres:/u:hunter2@h/d", "table": "t"}"#,
            "url: is not of the form postgres://USER",
        ),
        (
            r#"{"url": "postgres:///d", "table": "t"}"#,
            "url: names no host or no user",
        ),
        (
            r#"{"url": "postgres://u@h/d?sslmode=require", "table": "t"}"#,
            "url: has sslmode in it: set tls.mode instead",
        ),
        (
            r#"{"url": "postgres://u@h/d", "table": "t", "tls": {"mode": "prefer"}}"#,
            "tls.mode: unknown variant `prefer`",
        ),
        (
            r#"{"url": "postgres://u@h/d", "table": "t", "tls": {"mode": "require", "ca_file": "x"}}"#,
            "tls.ca_file: is of no use unless",
        ),
        (
            r#"{"url": "postgres://u@h/d", "table": "t", "tls": {"verify": true}}"#,
            "tls.verify: unknown field `verify`",
        ),
        (r#"{"url": "postgres://u@h/d", "table": ""}"#, "table: is empty"),
        (
            r#"{"url": "postgres://u@h/d", "table": "t", "schema": "a\u0000"}"#,
            "schema: contains a NUL",
        ),
        (
            r#"{"url": "postgres://u@h/d", "table": "_mycelial_watermark"}"#,
            "table: is the one Mycelial keeps",
        ),
        (
            r#"{"url": "postgres://u@h/d", "table": "t", "mode": "upsert", "key": []}"#,
            "key: is empty, but mode",
        ),
        (
            r#"{"url": "postgres://u@h/d", "table": "t", "key": ["a", "a"]}"#,
            "key[1]: 'a' is in the list twice",
        ),
        (
            r#"{"url": "postgres://u@h/d", "table": "t", "passwd": "x"}"#,
            "unknown field `passwd`",
        ),
        (r#"{"url": 5, "table": "t"}"#, "url: a secret is { secret"),
    ] {
        match (try_sink(config), error) {
            (Ok(_), "") => {}
            (Err(found), error) if !error.is_empty() => {
                assert!(found.to_string().contains(error), "{config}: {found}");
                assert!(!found.to_string().contains("hun"), "{found}");
            }
            (result, _) => panic!("{config}: {:?}", result.err()),
        }
    }
    let long = format!(r#"{{"url": "postgres://u@h/d", "table": "{}"}}"#, "ä".repeat(32));
    assert!(
        try_sink(&long)
            .err()
            .unwrap()
            .to_string()
            .contains("longer than PostgreSQL's 63 bytes")
    );
}

#[tokio::test]
async fn databases_that_cannot_be_written() {
    let db = Database::new(
        "unwritable",
        "CREATE TABLE readings (id int PRIMARY KEY, v int); CREATE SCHEMA plant;
         CREATE ROLE reader LOGIN; GRANT SELECT ON readings TO reader; REVOKE CREATE ON SCHEMA public FROM PUBLIC",
    );
    let reader = db.url.replace("postgres@", "reader@");
    let nobody = db.url.replace("postgres@", "nobody@");
    let elsewhere = db.url.replace("/unwritable", "/nowhere");
    let deaf = format!("postgres://u@127.0.0.1:{}/d", testkit::free_port());
    let with_key = schema(&[("*id", Type::I64), ("v", Type::I64)]);
    let without = schema(&[("id", Type::I64), ("v", Type::I64)]);
    for (url, config, schema, stop, cause) in [
        (
            &deaf,
            json!({}),
            &with_key,
            false,
            "cannot connect to PostgreSQL at 127.0.0.1:",
        ),
        (
            &elsewhere,
            json!({}),
            &with_key,
            false,
            "database \"nowhere\" does not exist",
        ),
        (&nobody, json!({}), &with_key, false, "role \"nobody\" does not exist"),
        (
            &db.url,
            json!({"schema": "plnt"}),
            &with_key,
            false,
            "has no schema 'plnt' (did you mean 'plant'?)",
        ),
        (
            &db.url,
            json!({"table": "reading", "create_table": false}),
            &with_key,
            false,
            "no table public.reading (did you mean 'readings'?)",
        ),
        (
            // The cases before have made the watermark table, which is not this role's.
            &reader,
            json!({"table": "readings"}),
            &with_key,
            false,
            "permission denied for table _mycelial_watermark",
        ),
        (
            &db.url,
            json!({"mode": "upsert"}),
            &without,
            true,
            "come without key columns: set key",
        ),
        (
            &db.url,
            json!({"mode": "upsert", "key": ["ids"]}),
            &without,
            false,
            "no key column 'ids' (did you mean 'id'?)",
        ),
        (
            &db.url,
            json!({"table": "readings", "mode": "upsert", "key": ["v"]}),
            &without,
            false,
            "CREATE UNIQUE INDEX ON \"public\".\"readings\" (\"v\")",
        ),
        (
            &db.url,
            json!({"table": "readings", "mode": "upsert"}),
            &with_key,
            false,
            "",
        ),
    ] {
        let mut sink = sink(url, config.clone());
        let batch = rows(schema, &[(Insert, &[Value::I64(1), Value::I64(1)])]);
        let done = match sink.open().await {
            Ok(()) => sink.write(&[delivery(1, batch)]).await.map(|_| ()),
            Err(fault) => Err(fault),
        };
        match (done, cause) {
            (Ok(()), "") => {}
            (Err(fault), cause) if !cause.is_empty() => {
                assert!(fault.to_string().contains(cause), "{config}: {fault}");
                assert_eq!(matches!(fault, Fault::Stop { .. }), stop, "{config}: {fault}");
            }
            (done, _) => panic!("{config}: {done:?}"),
        }
    }
}

#[tokio::test]
async fn passwords_and_tls_are_what_the_config_says() {
    let tls = Tls::new();
    let other = Tls::new();
    let server = Postgres::builder().password("hunter2").tls(&tls).start();
    let dir = tempfile::tempdir().unwrap();
    let password = dir.path().join("pw");
    std::fs::write(&password, "hunter2\n").unwrap();
    let (ca, wrong_ca) = (tls.ca(), other.ca());
    let full = json!({"mode": "verify-full", "ca_file": ca});
    for (host, password, tls, cause) in [
        ("localhost", json!({"file": password}), full.clone(), ""),
        ("127.0.0.1", json!("hunter2"), json!({"mode": "require"}), ""),
        (
            "localhost",
            json!("hunter3"),
            full.clone(),
            "password authentication failed",
        ),
        (
            "localhost",
            json!({"file": "/nowhere"}),
            full.clone(),
            "cannot read the secret from /nowhere",
        ),
        (
            "localhost",
            json!("hunter2"),
            json!({"mode": "disable"}),
            "no pg_hba.conf entry",
        ),
        (
            "localhost",
            json!("hunter2"),
            json!({"ca_file": wrong_ca}),
            "certificate",
        ),
        (
            "localhost",
            json!("hunter2"),
            json!({"ca_file": "/nowhere"}),
            "cannot read authorities from /nowhere",
        ),
        ("localhost", json!("hunter2"), json!({}), "tls.ca_file"),
    ] {
        let config = json!({
            "host": host, "port": server.port(), "user": "postgres", "database": "postgres",
            "password": password, "tls": tls, "table": "t", "mode": "upsert",
        });
        let mut sink = try_sink(&config.to_string()).unwrap();
        match (sink.open().await, cause) {
            (Ok(()), "") => assert_eq!(deliver(&mut *sink, inserts(0..3)).await, []),
            (Err(Fault::Retry { cause: found, .. }), cause) if !cause.is_empty() => {
                assert!(found.contains(cause), "{config}: {found}");
                assert!(!found.contains("hunter"), "{found}");
            }
            (result, _) => panic!("{config}: {result:?}"),
        }
    }
    assert_eq!(server.query_one("SELECT count(*) FROM t"), "3");
    // A server without TLS, and a config that did not say so.
    let plain = Postgres::start();
    let config = json!({"url": plain.url(), "table": "t", "tls": {"mode": "require"}});
    let fault = try_sink(&config.to_string()).unwrap().open().await.unwrap_err();
    assert!(fault.to_string().contains("needs tls.mode = \"disable\""), "{fault}");
}
